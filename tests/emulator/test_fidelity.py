"""What the emulator can do as the real service may: late, refusing, odd."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_browseract.emulator import (
    CONTACTS,
    DOWNLOAD,
    ENDLESS,
    HUMAN,
    LOG_IN,
    ORDERS,
    PLAIN_TEXT,
    SEARCH,
    TEMPLATE_SEARCH,
    TEMPLATE_TEXT,
    EmulatedFile,
    EmulatedWorkflow,
    Emulator,
    Output,
)
from airflow_provider_browseract.emulator.__main__ import OPTIONS
from airflow_provider_browseract.emulator.differences import LENIENT, STRICTER
from airflow_provider_browseract.emulator.errors import BROWSER_BUSY, NO_CREDITS, ApiError
from airflow_provider_browseract.emulator.workflow import WorkflowSettings

PAPER = {"keyword": "paper"}


def run_template(account: Any, template: Any = TEMPLATE_TEXT) -> str:
    inputs = [{"name": "keyword", "value": "paper"}] if template is TEMPLATE_SEARCH else []
    body = {"workflow_template_id": template.id, "input_parameters": inputs}
    return str(account.post("run-task-by-template", body)["id"])


def listed(account: Any, **query: Any) -> list[str]:
    return [item["id"] for item in account.get("list-tasks", limit=9, **query)["items"]]


class TestLateness:
    def test_output_and_files_appear_output_after_the_end(self, account: Any) -> None:
        account.setting(DOWNLOAD, output_after=5.0, output="text", files=SEARCH.files or ())
        task_id = account.run(DOWNLOAD, PAPER)
        account.pass_time(2)
        task = account.task(task_id)
        assert task["status"] == "finished"
        assert task["steps"]
        assert {"output", "download_files", "files_expires_at"}.isdisjoint(task)
        account.pass_time(5)
        task = account.task(task_id)
        assert task["output"]["string"] == "text"
        assert task["download_files"]

    def test_callback_is_sent_before_output_that_is_late(self, account: Any) -> None:
        account.setting(SEARCH, output_after=5.0)
        account.run(SEARCH, PAPER, callback_url="http://receiver.example/")
        account.pass_time(2)
        assert "output" not in account.emulator.take_transitions()[-1].payload

    def test_run_appears_in_the_list_listed_after_its_start(self, account: Any) -> None:
        account.setting(SEARCH, listed_after=3.0)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2.9)
        assert account.status(task_id) == "finished"
        assert listed(account) == []
        account.pass_time(0.1)
        assert listed(account) == [task_id]

    def test_stop_takes_effect_stop_after_the_request(self, account: Any) -> None:
        account.setting(SEARCH, duration=60.0, stop_after=4.0)
        task_id = account.run(SEARCH, PAPER)
        account.get("stop-task", task_id=task_id, biz_code=7)
        account.pass_time(3)
        account.get("stop-task", task_id=task_id, biz_code=8)
        assert account.status(task_id) == "running"
        account.pass_time(1)
        assert account.status(task_id) == "canceled"
        [record] = account.emulator.tasks
        assert (record.ended_by, record.biz_code) == ("stop-task", 7)

    def test_run_can_end_by_itself_before_its_stop_takes_effect(self, account: Any) -> None:
        account.setting(SEARCH, stop_after=4.0)
        task_id = account.run(SEARCH, PAPER)
        account.get("stop-task", task_id=task_id)
        account.pass_time(10)
        assert account.status(task_id) == "finished"
        assert account.emulator.tasks[0].ended_by == "workflow"

    @pytest.mark.parametrize("workflow", [SEARCH, HUMAN], ids=["running", "paused"])
    def test_run_that_exceeds_the_longest_duration_fails(self, make_account: Any, workflow: Any) -> None:
        account = make_account(max_duration=7.0, speed=0.5)
        account.setting(workflow, duration=8.0, queued=1.0)
        task_id = account.run(workflow, PAPER if workflow is SEARCH else {})
        account.pass_time(15.9)
        assert account.status(task_id) in ("running", "paused")
        account.pass_time(0.1)
        task = account.task(task_id)
        assert (task["status"], task["task_failure_info"]["code"]) == ("failed", 10004)

    def test_run_as_long_as_the_longest_duration_finishes(self, make_account: Any) -> None:
        account = make_account(max_duration=2.0)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        assert account.status(task_id) == "finished"


class TestEndlessRuns:
    def test_endless_run_begins_a_step_every_2_seconds_and_repeats_the_goals(self, account: Any) -> None:
        task_id = account.run(ENDLESS)
        account.pass_time(7)
        task = account.task(task_id)
        collect, turn = ENDLESS.steps
        assert [(step["step"], step["step_goal"], step["status"]) for step in task["steps"]] == [
            (1, collect, "succeed"),
            (2, turn, "succeed"),
            (3, collect, "succeed"),
            (4, turn, "running"),
        ]
        assert [step["evaluation_previous_goal"] for step in task["steps"]] == [
            "This is the first step",
            *(f"Reached: {goal}" for goal in (collect, turn, collect)),
        ]
        assert (task["status"], task["credit"]) == ("running", 20)
        assert account.emulator.next_change() is None

    def test_speed_shortens_the_steps_of_an_endless_run(self, make_account: Any) -> None:
        account = make_account(speed=10.0)
        task_id = account.run(ENDLESS)
        account.pass_time(1.1)
        assert len(account.task(task_id)["steps"]) == 6

    @pytest.mark.parametrize(
        "settings", [{"duration": 1.0}, {"duration": 0.0}, {"outcome": "failed", "failed_step": 1}], ids=str
    )
    def test_endless_run_has_no_duration_and_no_outcome(self, account: Any, settings: Any) -> None:
        account.setting(ENDLESS, **settings)
        task_id = account.run(ENDLESS)
        account.pass_time(3600)
        assert (account.status(task_id), account.task(task_id)["credit"]) == ("running", 5 * 1801)

    def test_stopped_endless_run_uses_credits_until_its_stop_takes_effect(self, account: Any) -> None:
        account.setting(ENDLESS, stop_after=5.0)
        task_id = account.run(ENDLESS)
        account.pass_time(2)
        account.get("stop-task", task_id=task_id)
        account.pass_time(4)
        assert (account.status(task_id), account.task(task_id)["credit"]) == ("running", 20)
        account.pass_time(60)
        task = account.task(task_id)
        assert (task["status"], task["credit"]) == ("canceled", 20)
        assert [step["status"] for step in task["steps"]] == ["succeed"] * 3 + ["failed"]

    def test_endless_run_fails_at_the_longest_duration(self, make_account: Any) -> None:
        account = make_account(max_duration=9.0)
        task_id = account.run(ENDLESS)
        account.pass_time(100)
        task = account.task(task_id)
        assert (task["status"], task["task_failure_info"]["code"], len(task["steps"])) == ("failed", 10004, 5)

    def test_endless_run_begins_no_step_while_it_is_paused(self, account: Any) -> None:
        account.setting(ENDLESS, duration=10.0, pause_at=0.5)
        task_id = account.run(ENDLESS)
        account.pass_time(100)
        assert (account.status(task_id), len(account.task(task_id)["steps"])) == ("paused", 3)
        account.get("resume-task", task_id=task_id)
        account.pass_time(1)
        assert (account.status(task_id), len(account.task(task_id)["steps"])) == ("running", 4)

    def test_very_old_endless_run_has_all_credits_and_only_its_newest_steps(self, account: Any) -> None:
        task_id = account.run(ENDLESS)
        account.pass_time(10 * 365 * 86400)
        begun = 5 * 365 * 86400 + 1
        task = account.task(task_id)
        assert (task["credit"], len(task["steps"])) == (5 * begun, 10_000)
        assert (task["steps"][-1]["step"], task["steps"][-1]["status"]) == (begun, "running")
        assert task["steps"][0]["step"] == begun - 9999
        assert task["steps"][0]["evaluation_previous_goal"] == f"Reached: {ENDLESS.steps[0]}"

    def test_every_workflow_can_be_set_to_be_endless(self, account: Any) -> None:
        account.emulator.next_run(SEARCH.id, step_every=0.5)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(60)
        assert (account.status(task_id), account.task(task_id)["credit"]) == ("running", 5 * 121)


class TestPauses:
    def test_run_is_pausing_before_it_is_paused_and_cannot_be_resumed_then(self, account: Any, code_of: Any) -> None:
        account.setting(HUMAN, pausing_for=3.0, pause_limit=None)
        task_id = account.run(HUMAN)
        account.pass_time(1)
        assert account.status(task_id) == "pausing"
        assert code_of(lambda: account.raw("resume-task", query=f"task_id={task_id}".encode())) == 10127
        account.pass_time(3)
        assert account.status(task_id) == "paused"
        assert [status for status, _ in account.emulator.tasks[0].history][-2:] == ["pausing", "paused"]

    def test_pausing_is_not_called_back(self, account: Any) -> None:
        account.setting(HUMAN, pausing_for=1.0)
        account.run(HUMAN, status_change_callback_url="http://receiver.example/")
        account.pass_time(2)
        called = [transition.status for transition in account.emulator.take_transitions() if transition.urls]
        assert called == ["running", "paused"]

    def test_resumed_run_stays_paused_for_resume_after_and_is_confirmed(self, account: Any) -> None:
        account.setting(HUMAN, resume_after=4.0, pause_limit=60.0)
        task_id = account.run(HUMAN)
        account.pass_time(1)
        for _ in range(2):
            assert account.raw("resume-task", query=f"task_id={task_id}".encode()) is None
        assert account.status(task_id) == "paused"
        account.pass_time(4)
        assert account.status(task_id) == "running"
        account.pass_time(1)
        assert account.output(task_id) == {"confirmed": True}

    def test_pause_that_expires_before_the_resume_takes_effect_is_not_confirmed(self, account: Any) -> None:
        account.setting(HUMAN, resume_after=4.0, pause_limit=2.0)
        task_id = account.run(HUMAN)
        account.pass_time(1)
        account.raw("resume-task", query=f"task_id={task_id}".encode())
        account.pass_time(3)
        assert account.output(task_id) == {"confirmed": False}

    def test_resume_of_a_running_task_is_accepted_if_configured(self, make_account: Any, code_of: Any) -> None:
        account = make_account(resume_running_is_ok=True)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(1)
        assert account.raw("resume-task", query=f"task_id={task_id}".encode()) is None
        account.pass_time(1)
        assert code_of(lambda: account.raw("resume-task", query=f"task_id={task_id}".encode())) == 10127

    def test_status_is_unknown_for_a_while(self, account: Any) -> None:
        account.setting(SEARCH, duration=10.0, unknown_at=0.5, unknown_for=2.0)
        task_id = account.run(SEARCH, PAPER)
        seen = []
        for _ in range(10):
            account.pass_time(1)
            seen.append(account.status(task_id))
        assert seen == [*["running"] * 4, "unknown", "unknown", *["running"] * 3, "finished"]

    @pytest.mark.parametrize("setting", [{"unknown_at": 1.5}, {"pausing_for": -1.0}, {"output_after": float("inf")}])
    def test_impossible_setting_is_refused(self, setting: Any) -> None:
        with pytest.raises(ValueError, match=next(iter(setting))):
            SEARCH.having(**setting)


class TestRefusals:
    def test_default_is_the_free_plan_of_one_run_at_once(self, code_of: Any, make_account: Any) -> None:
        assert Emulator().concurrency == 1
        account = make_account(concurrency=1)
        account.run(SEARCH, PAPER)
        assert code_of(lambda: account.run(PLAIN_TEXT)) == 10118
        account.pass_time(2)
        account.run(PLAIN_TEXT)

    def test_refusal_can_be_in_other_words(self, make_account: Any) -> None:
        account = make_account(concurrency=1, refusal=(12345, "Too many concurrent tasks"))
        account.run(SEARCH, PAPER)
        with pytest.raises(ApiError, match="12345: Too many concurrent tasks"):
            run_template(account)

    def test_workflow_that_runs_one_at_a_time_refuses_a_second_run(self, account: Any, code_of: Any) -> None:
        account.setting(SEARCH, one_at_a_time=True)
        account.run(SEARCH, PAPER)
        assert code_of(lambda: account.run(SEARCH, PAPER)) == BROWSER_BUSY
        account.run(PLAIN_TEXT)
        account.pass_time(2)
        account.run(SEARCH, PAPER)

    def test_start_without_credits_is_refused(self, make_account: Any, code_of: Any) -> None:
        account = make_account(credits=20)
        account.run(SEARCH, PAPER)
        account.pass_time(2)
        assert sum(task.credit for task in account.emulator.tasks) == 20
        assert code_of(lambda: account.run(SEARCH, PAPER)) == NO_CREDITS
        assert code_of(lambda: run_template(account)) == NO_CREDITS

    @pytest.mark.parametrize("stopped", [False, True], ids=["finished", "stopped"])
    def test_credits_can_be_used_at_the_end_only(self, make_account: Any, stopped: bool) -> None:
        account = make_account(credits_at_end=True)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(1)
        assert account.task(task_id)["credit"] == 0
        if stopped:
            account.get("stop-task", task_id=task_id)
        account.pass_time(1)
        assert account.task(task_id)["credit"] == (15 if stopped else 20)

    @pytest.mark.parametrize("at_end", [False, True], ids=["credits with steps", "credits at the end"])
    def test_extra_credits_are_added_at_the_end_of_a_run(self, make_account: Any, at_end: bool) -> None:
        account = make_account(credits_at_end=at_end)
        account.setting(SEARCH, credits_per_step=3, extra_credits=40)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(1.5)
        assert account.task(task_id)["credit"] == (0 if at_end else 12)
        account.pass_time(0.5)
        assert account.task(task_id)["credit"] == account.emulator.tasks[0].credit == 52
        assert account.get("list-tasks")["items"][0]["credit"] == 52

    def test_stopped_run_uses_extra_credits_only_if_it_has_begun(self, account: Any) -> None:
        account.setting(SEARCH, queued=5.0, extra_credits=40)
        waiting, begun = account.run(SEARCH, PAPER), account.run(SEARCH, PAPER)
        account.get("stop-task", task_id=waiting)
        account.pass_time(5)
        account.get("stop-task", task_id=begun)
        assert [account.task(task_id)["credit"] for task_id in (waiting, begun)] == [0, 45]

    def test_steps_and_extra_credits_use_up_the_credits_of_the_account(self, make_account: Any, code_of: Any) -> None:
        account = make_account(credits=100)
        account.setting(SEARCH, credits_per_step=0, extra_credits=100)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(1)
        account.run(PLAIN_TEXT)
        assert account.task(task_id)["credit"] == 0
        account.pass_time(1)
        assert code_of(lambda: account.run(PLAIN_TEXT)) == NO_CREDITS

    @pytest.mark.parametrize("workflow", [LOG_IN, ORDERS], ids=["LOG_IN", "ORDERS"])
    def test_workflows_with_a_profile_run_one_at_a_time(self, account: Any, code_of: Any, workflow: Any) -> None:
        inputs = {"username": "ada", "password": "x"} if workflow is LOG_IN else {}
        account.run(workflow, inputs)
        assert code_of(lambda: account.run(workflow, inputs)) == BROWSER_BUSY

    @pytest.mark.parametrize("setting", ["files", "downloads"])
    @pytest.mark.parametrize(
        ("number", "size", "reason"),
        [(101, 0, "at most 100 files"), (1, 50 * 2**20 + 1, "'a' has 52428801")],
        ids=["too many", "too large"],
    )
    def test_files_beyond_the_limits_of_browseract_are_refused(
        self, setting: Any, number: int, size: int, reason: str
    ) -> None:
        allowed: Any = {setting: (EmulatedFile("a", bytes(50 * 2**20)),) * 100}
        EmulatedWorkflow(id="1", name="Files", **allowed)
        beyond: Any = {setting: (EmulatedFile("a", bytes(size)),) * number}
        with pytest.raises(ValueError, match=reason):
            EmulatedWorkflow(id="1", name="Files", **beyond)

    def test_run_that_produces_too_many_files_fails(self, account: Any) -> None:
        account.setting(PLAIN_TEXT, behaviour=lambda _: Output(files=(EmulatedFile("a", b""),) * 101))
        task_id = account.run(PLAIN_TEXT)
        account.pass_time(2)
        assert "at most 100 files" in account.task(task_id)["task_failure_info"]["message"]

    def test_run_of_a_template_belongs_to_a_workflow_that_nobody_knows(self, account: Any, code_of: Any) -> None:
        first, second = run_template(account), run_template(account, TEMPLATE_SEARCH)
        workflows = {account.task(task_id)["workflow_id"] for task_id in (first, second)}
        assert len(workflows) == 2
        assert workflows.isdisjoint({TEMPLATE_TEXT.id, TEMPLATE_SEARCH.id})
        assert listed(account, workflow_id=TEMPLATE_TEXT.id) == []
        assert listed(account, workflow_id=account.task(first)["workflow_id"]) == [first]
        assert code_of(lambda: account.get("get-workflow", workflow_id=workflows.pop())) == 10111
        assert account.emulator.tasks[0].workflow_id == TEMPLATE_TEXT.id


def test_documentation_lists_every_setting_and_every_difference():
    text = (Path(__file__).parent.parent.parent / "docs" / "emulator.md").read_text()
    for difference in (*STRICTER, *LENIENT):
        assert f"- {difference}\n" in text
    not_shown = {"name", "description", "inputs", "steps", "behaviour", "file_lifetime", "callback_fault"}
    for setting in WorkflowSettings.__annotations__.keys() - not_shown:
        assert f"`{setting}`" in text
    settings = {each.name for each in dataclasses.fields(Emulator) if each.init}
    for setting in settings - {"api_key", "clock", "callback_timeout", "callback_retry_delay"}:
        assert f"| `{setting}`" in text or f", `{setting}` |" in text
    for option in OPTIONS.keys() - {"host", "port", "api_key"}:
        assert option in settings or f"`{option}`" in text


def test_start_page_lists_the_catalogue_and_every_difference(client: Any) -> None:
    page = client.http.get("/").text.replace("&quot;", '"').replace("&#x27;", "'")
    for text in (SEARCH.id, TEMPLATE_SEARCH.id, CONTACTS.id, *STRICTER, *LENIENT):
        assert text in page
