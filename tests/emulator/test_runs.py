"""A run over time: its status, steps, credits, stops, pauses and profile."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from airflow_provider_browseract.emulator import (
    AGENT_HUMAN,
    CONTACTS,
    ENDLESS,
    HUMAN,
    LOG_IN,
    ORDERS,
    SEARCH,
    TEMPLATE_SEARCH,
    EmulatedFile,
    EmulatedWorkflow,
    Emulator,
    Output,
    RunContext,
)
from airflow_provider_browseract.emulator.catalogue import orders_of, results_for
from tests.cases import cases
from tests.catalogue import DOWNLOAD, FAILING, PLAIN_TEXT

PAPER = {"keyword": "paper"}


def log_in(account: Any, username: str, **fields: Any) -> Any:
    return account.start(LOG_IN, {"username": username, "password": "secret"}, **fields)


@cases(
    ("settings", "seen"),
    {
        "by itself": ({}, ["running", "running", "finished", "finished", "finished"]),
        "after a queue": ({"queued": 1.5}, ["created", "created", "running", "running", "finished"]),
        "at once": ({"duration": 0.0}, ["finished"] * 5),
        "as failed": ({"outcome": "failed"}, ["running", "running", "failed", "failed", "failed"]),
        "as canceled": ({"outcome": "canceled"}, ["running", "running", "canceled", "canceled", "canceled"]),
        "never": ({"step_every": 0.5, "outcome": "failed"}, ["running"] * 5),
        "after a pause": (
            {"pause_at": 0.5, "pause_limit": 2.0},
            ["running", "paused", "paused", "running", "finished"],
        ),
        "not without a person": ({"pause_at": 0.0}, ["paused"] * 5),
        "in other words": ({"status": "dreaming"}, ["dreaming"] * 5),
    },
)
def test_run_ends(account: Any, settings: Any, seen: list[str]) -> None:
    account.emulator.set_workflow(SEARCH.id, **settings)
    task_id, found = account.run(SEARCH, PAPER), []
    for _ in range(5):
        found.append(account.status(task_id))
        account.pass_time(1)
    assert found == seen


def test_status_changes_are_taken_once_and_in_order(account: Any) -> None:
    account.emulator.set_workflow(SEARCH.id, duration=3.0)
    long, short = account.run(SEARCH, PAPER), account.run(PLAIN_TEXT)
    account.pass_time(60)
    changes = [(run.id, run.status(at)) for run, at in account.emulator.take_transitions()]
    assert changes == [(long, "running"), (short, "running"), (short, "finished"), (long, "finished")]
    assert account.emulator.take_transitions() == []


def test_account_knows_its_next_change(account: Any) -> None:
    assert account.emulator.next_change() is None
    account.run(ENDLESS)
    account.run(SEARCH, PAPER)
    account.emulator.take_transitions()
    assert account.emulator.next_change()[0] == account.now + 2


@cases(
    ("settings", "steps"),
    {
        "even": ({}, ["0+", "1+", "2+", "3+", "4"]),
        "queued": ({"queued": 1.0}, ["0", "0", "0+", "1+", "2+"]),
        "paused": ({"pause_at": 0.25}, ["0+", "1+", "1+", "1+", "1+"]),
        "endless": ({"step_every": 0.25}, ["0+", "2+", "4+", "6+", "8+"]),
        "stopped": ({"stop_after": 1.0}, ["0+", "1+", "2-", "2-", "2-"]),
        "failed": ({"outcome": "failed", "duration": 1.0}, ["0+", "2+", "3-", "3-", "3-"]),
    },
)
def test_steps_and_credits_follow_the_work(account: Any, settings: Any, steps: list[str]) -> None:
    """The table has the number of steps that are done each half second, and whether another one runs or failed."""
    account.emulator.set_workflow(SEARCH.id, **settings)
    task_id, seen = account.run(SEARCH, PAPER), []
    if "stop_after" in settings:
        account.call("stop-task", task_id=task_id)
    for _ in range(5):
        task = account.task(task_id)
        statuses = [step["status"] for step in task["steps"]]
        done = statuses.count("succeed")
        seen.append(f"{done}{ {'running': '+', 'failed': '-'}[statuses[-1]] if len(statuses) > done else '' }")
        assert task["credit"] == 5 * len(statuses)
        assert [step["step_goal"] for step in task["steps"]] == [SEARCH.steps[n % 4] for n in range(len(statuses))]
        account.pass_time(0.5)
    assert seen == steps


def test_status_never_runs_ahead_of_what_the_account_has_done(account: Any) -> None:
    def passing() -> float:
        account.now += 0.3
        return float(account.now)

    account.emulator.clock = passing
    task_id = account.run(LOG_IN, {"username": "ada", "password": "wrong"})
    assert {account.task(task_id)["status"] for _ in range(9)} == {"running", "failed"}


def test_very_old_endless_run_has_all_credits_and_only_its_newest_steps(account: Any) -> None:
    task_id = account.run(ENDLESS)
    account.pass_time(10 * 365 * 86400)
    task, begun = account.task(task_id), 5 * 365 * 86400 + 1
    assert (task["credit"], len(task["steps"])) == (5 * begun, 10_000)
    assert (task["steps"][0]["step"], task["steps"][-1]["step"]) == (begun - 9999, begun)


@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "stopped"])
def test_credits_can_be_used_at_the_end_only(make_account: Any, stopped: bool) -> None:
    account = make_account(credits_at_end=True)
    task_id = account.run(SEARCH, PAPER)
    account.pass_time(1)
    assert account.task(task_id)["credit"] == 0
    if stopped:
        account.call("stop-task", task_id=task_id)
    account.pass_time(1)
    assert account.task(task_id)["credit"] == (15 if stopped else 20)


class TestStops:
    @pytest.mark.parametrize(("seconds", "before"), [(0, "created"), (1, "running"), (2, "paused")])
    def test_stop_cancels_a_created_running_or_paused_task_for_good(
        self, account: Any, seconds: int, before: str
    ) -> None:
        account.emulator.set_workflow(HUMAN.id, queued=1.0)
        task_id = account.run(HUMAN)
        account.pass_time(seconds)
        assert account.status(task_id) == before
        assert account.call("stop-task", task_id=task_id, biz_code=7) is None
        credit = account.task(task_id)["credit"]
        account.pass_time(1000)
        [record] = account.emulator.tasks
        assert (record.status, record.biz_code, record.credit) == ("canceled", 7, credit)
        assert record.finished_at.timestamp() == account.now - 1000
        assert account.code("stop-task", task_id=task_id) == 10121
        assert account.code("resume-task", task_id=task_id) == 10127

    def test_first_stop_takes_effect_stop_after_its_request(self, account: Any) -> None:
        account.emulator.set_workflow(SEARCH.id, duration=60.0, stop_after=4.0)
        task_id = account.run(SEARCH, PAPER)
        account.call("stop-task", task_id=task_id, biz_code=7)
        account.pass_time(3)
        account.call("stop-task", task_id=task_id, biz_code=8)
        assert account.status(task_id) == "running"
        account.pass_time(1)
        assert (account.status(task_id), account.emulator.tasks[0].biz_code) == ("canceled", 7)

    def test_run_can_end_by_itself_before_its_stop_takes_effect(self, account: Any) -> None:
        account.emulator.set_workflow(SEARCH.id, stop_after=4.0)
        task_id = account.run(SEARCH, PAPER)
        account.call("stop-task", task_id=task_id)
        account.pass_time(10)
        assert account.status(task_id) == "finished"

    def test_cancel_of_a_bots_run_returns_its_status(self, account: Any) -> None:
        task_id = account.run_bot(CONTACTS, {"company_name": "Example Corp"})
        account.pass_time(1)
        canceled = account.call("cancel-run", task_id=task_id, biz_code=7)
        assert canceled == {"task_id": task_id, "status": "canceled", "updated_at": "2026-05-28T20:26:41Z"}
        assert account.emulator.tasks[0].biz_code == 7
        assert account.code("cancel-run", task_id=task_id) == 10121

    def test_stopped_run_has_no_output_whatever_its_outcome(self, account: Any) -> None:
        account.emulator.set_workflow(SEARCH.id, outcome="canceled", output="text")
        task_id = account.run(SEARCH, PAPER)
        account.call("stop-task", task_id=task_id)
        account.pass_time(5)
        assert account.task(task_id)["output"]["string"] == ""


class TestPauses:
    def test_resumed_run_does_the_rest_of_its_work_and_is_confirmed(self, account: Any) -> None:
        task_id = account.run(HUMAN)
        assert account.code("resume-task", task_id=task_id) == 10127
        account.pass_time(1)
        steps = account.task(task_id)["steps"]
        account.pass_time(300)
        assert (account.status(task_id), account.task(task_id)["steps"]) == ("paused", steps)
        assert account.call("resume-task", task_id=task_id) is None
        account.pass_time(0.99)
        assert account.status(task_id) == "running"
        account.pass_time(0.01)
        assert account.output(task_id) == {"confirmed": True}

    @pytest.mark.parametrize("bot", [HUMAN, AGENT_HUMAN], ids=["workflow", "agent"])
    def test_run_continues_unconfirmed_after_the_limit_of_its_pause(self, account: Any, bot: Any) -> None:
        task_id = account.run_bot(bot)
        account.pass_time(1 + 600)
        assert account.call("query-run-status", task_id=task_id)["status"] == "running"
        account.pass_time(1)
        assert account.call("query-run", task_id=task_id)["output"] == {"confirmed": False}

    def test_resumed_run_of_a_bot_is_still_paused_in_the_response(self, account: Any) -> None:
        task_id = account.run_bot(HUMAN)
        account.pass_time(1)
        assert account.call("resume-run", task_id=task_id)["status"] == "paused"
        assert account.call("query-run-status", task_id=task_id)["status"] == "running"


class TestLateness:
    def test_output_and_files_appear_output_after_the_end(self, account: Any) -> None:
        task = account.finished(DOWNLOAD, PAPER, output_after=5.0, output="text")
        assert (task["status"], bool(task["steps"])) == ("finished", True)
        assert {"output", "download_files", "files_expires_at"}.isdisjoint(task)
        account.pass_time(5)
        task = account.task(task["id"])
        assert task["output"]["string"] == "text"
        assert task["download_files"]

    def test_run_appears_in_lists_listed_after_its_start(self, account: Any) -> None:
        account.emulator.set_workflow("*", listed_after=3.0)
        account.run(SEARCH, PAPER)
        account.run_bot(CONTACTS, {"company_name": "Example Corp"})
        for seconds, count in ((2.9, 0), (0.1, 1)):
            account.pass_time(seconds)
            assert [account.call(name)["total_count"] for name in ("list-tasks", "page-runs")] == [count, count]

    def test_file_can_still_be_in_preparation_when_its_run_has_ended(self, account: Any) -> None:
        late = (EmulatedFile("a.txt", b"A", prepared_after=30.0), EmulatedFile("b.txt", b"", broken="gone"))
        task = account.finished(DOWNLOAD, PAPER, files=late, downloads=late)
        waiting, broken = task["download_files"]
        assert (task["output"]["files"], waiting["status"], broken["errorMessage"]) == ([], "uploading", "gone")
        assert "downloadUrl" not in waiting
        account.pass_time(30)
        task = account.task(task["id"])
        assert task["download_files"][0]["downloadUrl"]
        assert len(task["output"]["files"]) == 1


class TestStarts:
    def test_plan_limits_the_active_runs_of_both_versions_and_a_paused_run_counts(self, make_account: Any) -> None:
        account = make_account(concurrency=2)
        paused, _ = account.run(HUMAN), account.run_bot(CONTACTS, {"company_name": "Example Corp"})
        account.pass_time(1)
        assert account.status(paused) == "paused"
        assert account.code("run-task", workflow_id=PLAIN_TEXT.id) == 10118
        assert account.code("create-run", bot_id=PLAIN_TEXT.id, input={}) == 10118
        account.call("stop-task", task_id=paused)
        account.run(PLAIN_TEXT)
        assert len(account.emulator.tasks) == 3

    def test_free_plan_of_one_run_is_the_default(self) -> None:
        assert Emulator().concurrency == 1

    @pytest.mark.parametrize(("workflow", "inputs"), [(LOG_IN, {"username": "ada", "password": "x"}), (ORDERS, {})])
    def test_workflow_that_runs_one_at_a_time_refuses_a_second_run(
        self, account: Any, workflow: Any, inputs: Any
    ) -> None:
        account.run_bot(workflow, inputs)
        items = [{"name": name, "value": value} for name, value in inputs.items()]
        assert account.code("run-task", workflow_id=workflow.id, input_parameters=items) == 90001
        account.pass_time(2)
        account.run(workflow, inputs)

    def test_start_without_credits_is_refused(self, make_account: Any) -> None:
        account = make_account(credits=20)
        assert account.finished(SEARCH, PAPER)["credit"] == 20
        assert account.code("run-task", workflow_id=PLAIN_TEXT.id) == 90002

    def test_settings_for_the_next_run_are_used_once_in_order_and_not_by_a_refused_start(self, account: Any) -> None:
        for text in ("first", "second"):
            account.emulator.next_run(SEARCH.id, output=text)
        account.emulator.set_workflow(SEARCH.id, duration=7.0)
        assert account.code("run-task", workflow_id=SEARCH.id) == 10142
        ids = [account.run(SEARCH, PAPER) for _ in range(3)]
        account.pass_time(6.9)
        assert {account.status(task_id) for task_id in ids} == {"running"}
        account.pass_time(0.1)
        texts = [account.task(task_id)["output"]["string"] for task_id in ids]
        assert texts == ["first", "second", json.dumps(results_for("paper"))]

    def test_ids_are_17_digit_texts_that_a_float_cannot_represent(self, make_account: Any) -> None:
        account = make_account(concurrency=50)
        ids = [account.run(PLAIN_TEXT) for _ in range(50)]
        assert len(set(ids)) == 50
        for number in (*ids, *account.emulator.workflows):
            assert re.fullmatch(r"[1-9]\d{16}", number)
            assert f"{float(number):.0f}" != number

    def test_template_runs_in_its_region_without_a_profile_for_a_workflow_that_nobody_knows(self, account: Any) -> None:
        items = [{"name": "keyword", "value": "paper"}]
        given = {"workflow_template_id": TEMPLATE_SEARCH.id, "input_parameters": items}
        ids = [account.call("run-task-by-template", **given, **more)["id"] for more in ({}, {"proxyRegion": "JP"})]
        account.pass_time(2)
        first, second = map(account.task, ids)
        assert json.loads(first["output"]["string"]) == results_for("paper")
        assert "profile_id" not in first
        assert len({first["workflow_id"], second["workflow_id"], TEMPLATE_SEARCH.id}) == 3
        records = [(task.workflow_id, task.from_template, task.proxy_region) for task in account.emulator.tasks]
        assert records == [(TEMPLATE_SEARCH.id, True, "US"), (TEMPLATE_SEARCH.id, True, "JP")]
        assert account.code("get-workflow", workflow_id=first["workflow_id"]) == 10111


class TestOutcomes:
    def test_failed_run_has_code_and_message(self, account: Any) -> None:
        task = account.finished(FAILING)
        assert task["task_failure_info"] == {"code": 1011, "message": FAILING.failure[1]}
        assert task["output"] == {"string": "", "files": []}

    @cases(
        ("behaviour", "message"),
        {
            "error": (lambda _: 1 / 0, "ZeroDivisionError"),
            "no output": (lambda _: None, "TypeError"),
            "too many files": (lambda _: Output(files=(EmulatedFile("a", b""),) * 101), "at most 100 files"),
            "too large a file": (lambda _: Output(files=(EmulatedFile("a", bytes(50 * 2**20 + 1)),)), "52428801"),
        },
    )
    def test_error_in_a_behaviour_fails_only_its_own_run(self, account: Any, behaviour: Any, message: str) -> None:
        good = account.run(PLAIN_TEXT)
        task = account.finished(SEARCH, PAPER, behaviour=behaviour)
        assert (task["status"], task["task_failure_info"]["code"]) == ("failed", 10000)
        assert message in task["task_failure_info"]["message"]
        assert account.status(good) == "finished"

    def test_different_failures_have_different_codes(self, account: Any) -> None:
        tasks = [
            account.finished(LOG_IN, {"username": "ada", "password": "wrong"}),
            account.finished(SEARCH, {"keyword": "pens", "max_items": "three"}),
            account.finished(ORDERS, outcome="failed"),
            account.finished(FAILING),
        ]
        assert len({task["task_failure_info"]["code"] for task in tasks}) == 4


class TestProfiles:
    @pytest.fixture(autouse=True)
    def _many_at_a_time(self, account: Any) -> None:
        for workflow in (LOG_IN, ORDERS):
            account.emulator.set_workflow(workflow.id, one_at_a_time=False)

    def orders(self, account: Any, profile_id: str, **fields: Any) -> Any:
        """Return the orders that a profile sees, 2 seconds later."""
        task_id = account.run(ORDERS, profile_id=profile_id, **fields)
        account.pass_time(2)
        return account.output(task_id)

    def test_saved_profiles_keep_their_own_log_ins(self, account: Any) -> None:
        profiles = [log_in(account, name, save_browser_data=True)["profile_id"] for name in ("ada", "bob")]
        account.pass_time(2)
        found = [self.orders(account, profile_id) for profile_id in profiles]
        assert found == [orders_of("ada"), orders_of("bob")]
        assert found[0] != found[1]

    def test_profile_is_read_once_at_the_start(self, account: Any) -> None:
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.emulator.next_run(ORDERS.id, pause_at=0.5, pause_limit=9.0)
        early = account.run(ORDERS, profile_id=profile_id)
        account.pass_time(20)
        assert account.output(early)["logged_in"] is False

    def test_run_without_a_saved_profile_is_not_logged_in(self, account: Any) -> None:
        log_in(account, "ada", save_browser_data=True)
        account.pass_time(2)
        for fields in ({}, {"save_browser_data": True}):
            assert self.orders(account, "", **fields)["logged_in"] is False

    def test_profile_id_is_returned_and_known_only_if_browser_data_is_saved(self, account: Any) -> None:
        created = [log_in(account, "ada", save_browser_data=saved) for saved in (False, True)]
        assert [each.keys() for each in created] == [{"id"}, {"id", "profile_id"}]
        shown = account.task(created[0]["id"])["profile_id"]
        assert account.code("run-task", workflow_id=ORDERS.id, profile_id=shown) == 99001

    @cases(
        "settings",
        {
            "before its run has finished": {"duration": 3.0},
            "failed": {"outcome": "failed"},
            "canceled": {"outcome": "canceled"},
        },
    )
    def test_profile_is_saved_only_when_its_run_finishes(self, account: Any, settings: Any) -> None:
        account.emulator.next_run(LOG_IN.id, **settings)
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.pass_time(2)
        assert self.orders(account, profile_id)["logged_in"] is False

    def test_later_run_changes_a_profile_only_if_it_saves_browser_data(self, account: Any) -> None:
        profile_id, found = log_in(account, "ada", save_browser_data=True)["profile_id"], []
        for save in (False, True):
            account.pass_time(2)
            log_in(account, "bob", profile_id=profile_id, save_browser_data=save)
            account.pass_time(2)
            found.append(self.orders(account, profile_id))
        assert found == [orders_of("ada"), orders_of("bob")]


def test_record_has_the_request_and_the_history_and_does_not_change(account: Any) -> None:
    created = log_in(account, "ada", save_browser_data=True, callback_url="https://example.com/x")
    [before] = account.emulator.tasks
    account.pass_time(2)
    [record] = account.emulator.tasks
    assert (record.id, record.profile_id) == (created["id"], created["profile_id"])
    assert (record.api_version, record.inputs) == ("v2", [("username", "ada"), ("password", "secret")])
    assert (record.save_browser_data, record.callback_url) == (True, "https://example.com/x")
    assert [status for status, _ in record.history] == ["created", "running", "finished"]
    assert (record.finished_at - record.created_at).total_seconds() == 2
    assert (before.status, before.output, record.credit) == ("running", None, 15)
    assert json.loads(record.output)["logged_in"] is True


@cases(
    "settings",
    {
        "negative time": {"duration": -1.0},
        "no number": {"queued": float("nan")},
        "endless time": {"output_after": float("inf")},
        "outcome": {"outcome": "exploded"},
        "pause after the end": {"pause_at": 1.5},
        "no steps": {"steps": ()},
        "no time for a step": {"step_every": 0.0},
        "negative credits": {"credits_per_step": -1},
        "flag as credits": {"credits_per_step": True},
        "too many files": {"files": (EmulatedFile("a", b""),) * 101},
    },
)
def test_invalid_settings_are_refused(account: Any, settings: Any) -> None:
    for change in (account.emulator.next_run, account.emulator.set_workflow):
        with pytest.raises(ValueError, match=next(iter(settings))):
            change(SEARCH.id, **settings)


def test_unknown_settings_and_workflows_are_refused_with_the_known_ones(account: Any) -> None:
    with pytest.raises(TypeError, match=r"no such setting: colour \(there are: behaviour, created_at"):
        account.emulator.next_run(SEARCH.id, colour="red")
    with pytest.raises(KeyError, match="12345"):
        account.emulator.next_run("12345", duration=1.0)
    with pytest.raises(TypeError, match="set"):
        EmulatedWorkflow(id="1", name="Mine", output={1, 2})


def test_behaviour_gets_inputs_cookies_and_confirmation(account: Any) -> None:
    task = account.finished(SEARCH, PAPER, behaviour=lambda run: Output(f"{run}"))
    assert task["output"]["string"] == str(RunContext({"keyword": "paper"}, {}, True))
