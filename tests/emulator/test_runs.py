"""A run over time: its status, steps, credits, stops, pauses and profile."""

from __future__ import annotations

import json
import re

import pytest

from airflow_provider_browseract.emulator import (
    AGENT_HUMAN,
    CONTACTS,
    ENDLESS,
    HUMAN,
    LOG_IN,
    ORDERS,
    SEARCH,
    EmulatedFile,
    EmulatedWorkflow,
    Emulator,
    Output,
    RunContext,
)
from airflow_provider_browseract.emulator.catalogue import orders_of, results_for
from tests.cases import cases
from tests.catalogue import DOWNLOAD, FAILING, PLAIN_TEXT

STOP, RESUME = "stop-task", "resume-task"
PAPER, COMPANY = {"keyword": "paper"}, {"company_name": "Example Corp"}


def log_in(account, username, **fields):
    return account.start(LOG_IN, {"username": username, "password": "secret"}, **fields)


@cases(
    ("settings", "requests", "seen"),
    {
        "ends by itself": ({}, {}, "running 0+ 1+ 2+ 3+ finished 4 4"),
        "is queued": ({"queued": 1.0}, {}, "created 0 0 running 0+ 1+ 2+ 3+"),
        "ends at once": ({"duration": 0.0}, {}, "finished 4 4 4 4 4 4"),
        "fails": ({"outcome": "failed", "duration": 1.0}, {}, "running 0+ 2+ failed 3- 3- 3- 3-"),
        "is canceled": ({"outcome": "canceled"}, {}, "running 0+ 1+ 2+ 3+ canceled 3- 3-"),
        "never ends": ({"step_every": 0.25, "outcome": "failed"}, {}, "running 0+ 2+ 4+ 6+ 8+ 10+"),
        "pauses": ({"pause_at": 0.25, "pause_limit": 1.0}, {}, "running 0+ paused 1+ 1+ running 1+ 2+ 3+"),
        "pauses for a person": ({"pause_at": 0.0}, {}, "paused 0+ 0+ 0+ 0+ 0+ 0+"),
        "is resumed": ({"pause_at": 0.25}, {3: RESUME}, "running 0+ paused 1+ 1+ running 1+ 2+ 3+"),
        "is stopped while queued": ({"queued": 1.0}, {1: STOP}, "created 0 canceled 0 0 0 0 0"),
        "is stopped": ({}, {2: STOP}, "running 0+ 1+ canceled 2- 2- 2- 2-"),
        "is stopped while paused": ({"pause_at": 0.25}, {2: STOP}, "running 0+ paused 1+ canceled 1- 1- 1- 1-"),
        "is stopped later": (
            {"stop_after": 1.0},
            {0: STOP, 1: STOP},
            "running 0+ 1+ canceled 2- 2- 2- 2-",
        ),
        "ends before its stop": ({"stop_after": 4.0}, {0: STOP}, "running 0+ 1+ 2+ 3+ finished 4 4"),
    },
)
def test_run(account, settings, requests, seen):
    """The table has each status, and for each half second how many steps are done, and whether one runs or failed."""
    account.emulator.set_workflow(SEARCH.id, **settings)
    task_id, found, status = account.run(SEARCH, PAPER), [], ""
    for number in range(6):
        if number in requests:
            assert account.call(requests[number], task_id=task_id) is None
        task = account.task(task_id)
        if task["status"] != status:
            found.append(status := task["status"])
        statuses = [step["status"] for step in task["steps"]]
        done = statuses.count("succeed")
        found.append(f"{done}{ {'running': '+', 'failed': '-'}[statuses[-1]] if len(statuses) > done else '' }")
        assert task["credit"] == 5 * len(statuses)
        assert [step["step_goal"] for step in task["steps"]] == [SEARCH.steps[n % 4] for n in range(len(statuses))]
        account.pass_time(0.5)
    assert " ".join(found) == seen


def test_status_changes_are_taken_once_and_in_order(account):
    emulator = account.emulator
    assert emulator.next_change() is None
    emulator.set_workflow(SEARCH.id, duration=3.0)
    long, short = account.run(SEARCH, PAPER), account.run(PLAIN_TEXT)
    account.run(ENDLESS)
    assert [run.status for run in emulator.take_transitions()] == ["running"] * 3
    assert emulator.next_change()[0] == account.now + 2
    account.pass_time(60)
    assert [(run.id, run.status) for run in emulator.take_transitions()] == [(short, "finished"), (long, "finished")]
    assert emulator.take_transitions() == []


def test_status_never_runs_ahead_of_what_the_account_has_done(account):
    def passing():
        account.now += 0.3
        return account.now

    account.emulator.clock = passing
    task_id = account.run(LOG_IN, {"username": "ada", "password": "wrong"})
    assert {account.task(task_id)["status"] for _ in range(9)} == {"running", "failed"}


def test_very_old_endless_run_has_all_credits_and_only_its_newest_steps(account):
    task_id, begun = account.run(ENDLESS), 5 * 365 * 86400 + 1
    account.pass_time(10 * 365 * 86400)
    task = account.task(task_id)
    assert (task["credit"], len(task["steps"]), task["steps"][-1]["step"]) == (5 * begun, 10_000, begun)


@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "stopped"])
def test_credits_can_be_used_at_the_end_only(make_account, stopped):
    account = make_account(credits_at_end=True)
    task_id = account.run(SEARCH, PAPER)
    account.pass_time(1)
    assert account.task(task_id)["credit"] == 0
    if stopped:
        account.call("stop-task", task_id=task_id)
    account.pass_time(1)
    assert account.task(task_id)["credit"] == (15 if stopped else 20)


def test_ended_run_can_neither_be_stopped_nor_resumed(account):
    task_id, run_id = account.run(ENDLESS), account.run_bot(ENDLESS)
    account.pass_time(1)
    account.call("stop-task", task_id=task_id, biz_code=7)
    canceled = account.call("cancel-run", task_id=run_id, biz_code=8)
    assert canceled == {"task_id": run_id, "status": "canceled", "updated_at": "2026-05-28T20:26:41Z"}
    account.pass_time(1000)
    task, run = account.emulator.tasks
    assert (task.biz_code, run.biz_code) == (7, 8)
    assert task.finished_at.timestamp() == account.now - 1000
    assert [account.code(name, task_id=task_id) for name in ("stop-task", "resume-task")] == [10121, 10127]
    assert [account.code(name, task_id=run_id) for name in ("cancel-run", "resume-run")] == [10121, 10127]


def test_stopped_run_has_no_output_whatever_its_outcome(account):
    account.emulator.set_workflow(SEARCH.id, outcome="canceled", output="text")
    task_id = account.run(SEARCH, PAPER)
    account.call("stop-task", task_id=task_id)
    account.pass_time(5)
    assert account.task(task_id)["output"]["string"] == ""


def test_resumed_run_is_confirmed_and_still_paused_in_the_response_of_v3(account):
    task_id = account.run_bot(HUMAN)
    assert account.code("resume-run", task_id=task_id) == 10127
    account.pass_time(300)
    assert account.call("resume-run", task_id=task_id)["status"] == "paused"
    assert account.call("query-run-status", task_id=task_id)["status"] == "running"
    account.pass_time(1)
    assert account.call("query-run", task_id=task_id)["output"] == {"confirmed": True}


@pytest.mark.parametrize("bot", [HUMAN, AGENT_HUMAN], ids=["workflow", "agent"])
def test_run_continues_unconfirmed_after_the_limit_of_its_pause(account, bot):
    task_id = account.run_bot(bot)
    account.pass_time(1 + 600 + 1)
    assert account.call("query-run", task_id=task_id)["output"] == {"confirmed": False}


def test_output_and_files_appear_output_after_the_end(account):
    task = account.finished(DOWNLOAD, PAPER, output_after=5.0, output="text")
    assert (task["status"], bool(task["steps"])) == ("finished", True)
    assert {"output", "download_files", "files_expires_at"}.isdisjoint(task)
    account.pass_time(5)
    task = account.task(task["id"])
    assert (task["output"]["string"], len(task["download_files"])) == ("text", 1)


def test_run_appears_in_lists_listed_after_its_start(account):
    account.emulator.set_workflow("*", listed_after=3.0)
    account.run(SEARCH, PAPER)
    account.run_bot(CONTACTS, COMPANY)
    for seconds, count in ((2.9, 0), (0.1, 1)):
        account.pass_time(seconds)
        assert [account.call(name)["total_count"] for name in ("list-tasks", "page-runs")] == [count, count]


def test_file_can_still_be_in_preparation_when_its_run_has_ended(account):
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
    def test_plan_limits_the_active_runs_of_both_versions_and_a_paused_run_counts(self, make_account):
        assert Emulator().concurrency == 1
        account = make_account(concurrency=2)
        paused, _ = account.run(HUMAN), account.run_bot(CONTACTS, COMPANY)
        account.pass_time(1)
        assert account.status(paused) == "paused"
        assert account.code("run-task", workflow_id=PLAIN_TEXT.id) == 10118
        assert account.code("create-run", bot_id=PLAIN_TEXT.id, input={}) == 10118
        account.call("stop-task", task_id=paused)
        account.run(PLAIN_TEXT)
        assert len(account.emulator.tasks) == 3

    @pytest.mark.parametrize(("workflow", "inputs"), [(LOG_IN, {"username": "ada", "password": "x"}), (ORDERS, {})])
    def test_workflow_that_runs_one_at_a_time_refuses_a_second_run(self, account, workflow, inputs):
        account.run_bot(workflow, inputs)
        assert account.code("create-run", bot_id=workflow.id, input=inputs) == 90001
        account.pass_time(2)
        account.run(workflow, inputs)

    def test_start_without_credits_is_refused(self, make_account):
        account = make_account(credits=20)
        assert account.finished(SEARCH, PAPER)["credit"] == 20
        assert account.code("run-task", workflow_id=PLAIN_TEXT.id) == 90002

    def test_settings_for_the_next_run_are_used_once_in_order_and_not_by_a_refused_start(self, account):
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

    def test_ids_are_17_digit_texts_that_a_float_cannot_represent(self, make_account):
        account = make_account(concurrency=50)
        ids = [account.run(PLAIN_TEXT) for _ in range(50)]
        assert len(set(ids)) == 50
        for number in (*ids, *account.emulator.workflows):
            assert re.fullmatch(r"[1-9]\d{16}", number)
            assert f"{float(number):.0f}" != number


@cases(
    ("behaviour", "message"),
    {"error": (lambda _: 1 / 0, "ZeroDivisionError"), "no output": (lambda _: None, "TypeError")},
)
def test_error_in_a_behaviour_fails_only_its_own_run(account, behaviour, message):
    good = account.run(PLAIN_TEXT)
    task = account.finished(SEARCH, PAPER, behaviour=behaviour)
    assert (task["status"], task["task_failure_info"]["code"]) == ("failed", 10000)
    assert message in task["task_failure_info"]["message"]
    assert account.status(good) == "finished"


def test_different_failures_have_different_codes_and_no_output(account):
    tasks = [
        account.finished(LOG_IN, {"username": "ada", "password": "wrong"}),
        account.finished(SEARCH, {"keyword": "pens", "max_items": "three"}),
        account.finished(ORDERS, outcome="failed"),
        account.finished(FAILING),
    ]
    assert len({task["task_failure_info"]["code"] for task in tasks}) == 4
    assert tasks[-1]["task_failure_info"] == {"code": 1011, "message": FAILING.failure[1]}
    assert [task["output"] for task in tasks] == [{"string": "", "files": []}] * 4


class TestProfiles:
    @pytest.fixture(autouse=True)
    def _many_at_a_time(self, account):
        for workflow in (LOG_IN, ORDERS):
            account.emulator.set_workflow(workflow.id, one_at_a_time=False)

    def orders(self, account, profile_id, **fields):
        """Return the orders that a profile sees, 2 seconds later."""
        task_id = account.run(ORDERS, profile_id=profile_id, **fields)
        account.pass_time(2)
        return account.output(task_id)

    def test_saved_profiles_keep_their_own_log_ins(self, account):
        profiles = [log_in(account, name, save_browser_data=True)["profile_id"] for name in ("ada", "bob")]
        account.pass_time(2)
        assert [self.orders(account, profile_id) for profile_id in profiles] == [orders_of("ada"), orders_of("bob")]
        assert orders_of("ada") != orders_of("bob")
        for fields in ({}, {"save_browser_data": True}):
            assert self.orders(account, "", **fields)["logged_in"] is False

    def test_profile_is_read_once_at_the_start(self, account):
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.emulator.next_run(ORDERS.id, pause_at=0.5, pause_limit=9.0)
        early = account.run(ORDERS, profile_id=profile_id)
        account.pass_time(20)
        assert account.output(early)["logged_in"] is False

    def test_profile_id_is_returned_and_known_only_if_browser_data_is_saved(self, account):
        created = [log_in(account, "ada", save_browser_data=saved) for saved in (False, True)]
        assert [each.keys() for each in created] == [{"id"}, {"id", "profile_id"}]
        shown = account.task(created[0]["id"])["profile_id"]
        assert account.code("run-task", workflow_id=ORDERS.id, profile_id=shown) == 99001

    @pytest.mark.parametrize("settings", [{"duration": 3.0}, {"outcome": "failed"}, {"outcome": "canceled"}], ids=str)
    def test_profile_is_saved_only_when_its_run_finishes(self, account, settings):
        account.emulator.next_run(LOG_IN.id, **settings)
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.pass_time(2)
        assert self.orders(account, profile_id)["logged_in"] is False

    def test_later_run_changes_a_profile_only_if_it_saves_browser_data(self, account):
        profile_id, found = log_in(account, "ada", save_browser_data=True)["profile_id"], []
        for save in (False, True):
            account.pass_time(2)
            log_in(account, "bob", profile_id=profile_id, save_browser_data=save)
            account.pass_time(2)
            found.append(self.orders(account, profile_id))
        assert found == [orders_of("ada"), orders_of("bob")]


def test_run_has_the_request_and_the_history_and_does_not_change(account):
    created = log_in(account, "ada", save_browser_data=True, callback_url="https://example.com/x")
    [before] = account.emulator.tasks
    account.pass_time(2)
    [run] = account.emulator.tasks
    assert (run.id, run.profile_id) == (created["id"], created["profile_id"])
    assert (run.api_version, run.inputs) == ("v2", [("username", "ada"), ("password", "secret")])
    assert (run.save_browser_data, run.callback_url) == (True, "https://example.com/x")
    assert [status for status, _ in run.history] == ["created", "running", "finished"]
    assert (run.finished_at - run.created_at).total_seconds() == 2
    assert (before.status, before.output, run.credit) == ("running", None, 15)
    assert json.loads(run.output)["logged_in"] is True


SETTINGS: list[dict] = [
    {"duration": -1.0},
    {"queued": float("nan")},
    {"output_after": float("inf")},
    {"outcome": "exploded"},
    {"pause_at": 1.5},
    {"steps": ()},
    {"step_every": 0.0},
    {"credits_per_step": -1},
    {"credits_per_step": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_invalid_settings_are_refused(account, settings):
    for change in (account.emulator.next_run, account.emulator.set_workflow):
        with pytest.raises(ValueError, match=next(iter(settings))):
            change(SEARCH.id, **settings)


def test_unknown_settings_and_workflows_are_refused_with_the_known_ones(account):
    with pytest.raises(TypeError, match=r"no such setting: colour \(there are: behaviour, callback_fault"):
        account.emulator.next_run(SEARCH.id, colour="red")
    with pytest.raises(KeyError, match="12345"):
        account.emulator.next_run("12345", duration=1.0)
    with pytest.raises(TypeError, match="set"):
        EmulatedWorkflow(id="1", name="Mine", output={1, 2})


def test_behaviour_gets_inputs_cookies_and_confirmation(account):
    task = account.finished(SEARCH, PAPER, behaviour=lambda run: Output(f"{run}"))
    assert task["output"]["string"] == str(RunContext({"keyword": "paper"}, {}, True))
