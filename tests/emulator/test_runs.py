import itertools
import json
import re

from airflow_provider_browseract.emulator import CONTACTS, ENDLESS, HUMAN, LOG_IN, ORDERS, SEARCH
from airflow_provider_browseract.emulator.catalogue import orders_of, results_for
from tests.helpers.cases import cases
from tests.helpers.catalogue import FAILING, PLAIN_TEXT

from .conftest import Account

STOP, RESUME = "stop-task", "resume-task"
PAPER, COMPANY = {"keyword": "paper"}, {"company_name": "Example Corp"}
LOGGED_OUT = {"logged_in": False, "message": "The page asks to log in"}


def log_in(account, username, **fields):
    created = account.start(LOG_IN, {"username": username, "password": "secret"}, **fields)
    account.pass_time(2)
    return created


@cases(
    ("ends by itself", {}, {}, "running 0+ 1+ 2+ 3+ finished 4 4"),
    ("is queued", {"queued": 1.0}, {}, "created 0 0 running 0+ 1+ 2+ 3+"),
    ("ends at once", {"duration": 0.0}, {}, "finished 4 4 4 4 4 4"),
    ("fails", {"outcome": "failed", "duration": 1.0}, {}, "running 0+ 2+ failed 3- 3- 3- 3-"),
    ("is canceled", {"outcome": "canceled"}, {}, "running 0+ 1+ 2+ 3+ canceled 3- 3-"),
    ("never ends", {"step_every": 0.25, "outcome": "failed"}, {}, "running 0+ 2+ 4+ 6+ 8+ 10+"),
    ("pauses", {"pause_at": 0.25, "pause_limit": 1.0}, {}, "running 0+ paused 1+ 1+ running 1+ 2+ 3+"),
    ("pauses for a person", {"pause_at": 0.0}, {}, "paused 0+ 0+ 0+ 0+ 0+ 0+"),
    ("is resumed", {"pause_at": 0.25}, {3: RESUME}, "running 0+ paused 1+ 1+ running 1+ 2+ 3+"),
    ("is stopped while queued", {"queued": 1.0}, {1: STOP}, "created 0 canceled 0 0 0 0 0"),
    ("is stopped", {}, {2: STOP}, "running 0+ 1+ canceled 2- 2- 2- 2-"),
    ("is stopped later", {"stop_after": 1.0}, {0: STOP, 1: STOP}, "running 0+ 1+ canceled 2- 2- 2- 2-"),
    ("ends before its stop", {"stop_after": 4.0}, {0: STOP}, "running 0+ 1+ 2+ 3+ finished 4 4"),
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
        steps = [(f"{task_id}{n + 1:02}", SEARCH.steps[n % 4]) for n in range(len(statuses))]
        assert [(step["id"], step["step_goal"]) for step in task["steps"]] == steps
        live = {"width": 1280, "height": 1024, "live_url": f"{account.emulator.url}/live/{task_id}"}
        assert task.get("live_url_info") == (live if status in ("running", "paused") else None)
        assert ("output" in task) == ("finished_at" in task) == (status in ("finished", "failed", "canceled"))
        account.pass_time(0.5)
    assert " ".join(found) == seen


def test_status_never_runs_ahead_of_what_the_account_has_done(account):
    times = itertools.count(account.now, 0.3)
    account.emulator.clock = lambda: next(times)
    task_id = account.run(LOG_IN, {"username": "ada", "password": "wrong"})
    assert {account.task(task_id)["status"] for _ in range(9)} == {"running", "failed"}


def test_very_old_endless_run_has_all_credits_and_only_its_newest_steps(account):
    task_id, begun = account.run(ENDLESS), 5 * 365 * 86400 + 1
    account.pass_time(10 * 365 * 86400)
    task = account.task(task_id)
    assert (task["credit"], len(task["steps"]), task["steps"][-1]["step"]) == (5 * begun, 10_000, begun)


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


def test_resumed_run_is_confirmed_and_another_one_continues_after_the_limit_of_its_pause(account):
    account.emulator.next_run(HUMAN.id, queued=1.0)
    task_id, unconfirmed = account.run_bot(HUMAN), account.run_bot(HUMAN)
    assert "steps" not in account.bot_run(task_id)
    assert account.code("resume-run", task_id=task_id) == 10127
    account.pass_time(300)
    assert account.call("resume-run", task_id=task_id)["status"] == "paused"
    assert account.call("query-run-status", task_id=task_id)["status"] == "running"
    account.pass_time(302)
    outputs = [account.bot_run(each)["output"] for each in (task_id, unconfirmed)]
    assert outputs == [{"confirmed": True}, {"confirmed": False}]


def test_run_appears_in_lists_listed_after_its_start(account):
    account.emulator.set_workflow("*", listed_after=3.0)
    account.run(SEARCH, PAPER)
    account.run_bot(CONTACTS, COMPANY)
    for seconds, count in ((2.9, 0), (0.1, 1)):
        account.pass_time(seconds)
        assert [account.call(name)["total_count"] for name in ("list-tasks", "page-runs")] == [count, count]


class TestStarts:
    def test_workflow_that_runs_one_at_a_time_refuses_a_second_run(self, account):
        account.run_bot(ORDERS)
        assert account.code("create-run", bot_id=ORDERS.id, input={}) == 90001
        account.pass_time(2)
        account.run(ORDERS)

    def test_start_without_credits_is_refused(self):
        account = Account(credits=20)
        assert account.finished(SEARCH, PAPER)["credit"] == 20
        assert account.code("run-task", workflow_id=PLAIN_TEXT.id) == 90002

    def test_settings_for_the_next_run_are_used_once_in_order_and_not_by_a_refused_start(self, account):
        for text in ("first", "second"):
            account.emulator.next_run(SEARCH.id, output=text)
        assert account.code("run-task", workflow_id=SEARCH.id) == 10142
        ids = [account.run(SEARCH, PAPER) for _ in range(3)]
        account.pass_time(2)
        texts = [account.task(task_id)["output"]["string"] for task_id in ids]
        assert texts == ["first", "second", json.dumps(results_for("paper"))]

    def test_ids_are_17_digit_texts_that_a_float_cannot_represent(self):
        account = Account(concurrency=50)
        ids = [account.run(PLAIN_TEXT) for _ in range(50)]
        assert len(set(ids)) == 50
        for number in (*ids, *account.emulator.workflows):
            assert re.fullmatch(r"[1-9]\d{16}", number)
            assert f"{float(number):.0f}" != number


@cases(
    ("error", SEARCH, PAPER, lambda _: 1 / 0, 10000, "ZeroDivisionError"),
    ("no output", SEARCH, PAPER, lambda _: None, 10000, "TypeError"),
    ("wrong password", LOG_IN, {"username": "ada", "password": "wrong"}, LOG_IN.behaviour, 10002, "of ada"),
    ("no number", SEARCH, {"keyword": "pens", "max_items": "three"}, SEARCH.behaviour, 10003, "three"),
    ("setting", FAILING, {}, lambda _: 1 / 0, *FAILING.failure),
)
def test_failing_behaviour_fails_only_its_own_run_which_has_no_output(account, workflow, inputs, behaviour, code, text):
    good = account.run(PLAIN_TEXT)
    task = account.finished(workflow, inputs, behaviour=behaviour)
    assert (task["status"], task["task_failure_info"]["code"]) == ("failed", code)
    assert text in task["task_failure_info"]["message"]
    assert task["output"] == {"string": "", "files": []}
    assert account.task(good)["status"] == "finished"


@cases(
    ("saved", [("ada", True, {})], orders_of("ada")),
    ("saved later", [("ada", True, {"duration": 3.0})], None),
    ("failed", [("ada", True, {"outcome": "failed"})], None),
    ("another user", [("ada", True, {}), ("bob", True, {})], orders_of("bob")),
    ("another user, not saved", [("ada", True, {}), ("bob", False, {})], orders_of("ada")),
)
def test_profile_is_saved_when_a_run_finishes_that_saves_browser_data(account, log_ins, orders):
    profile_id, outputs = "", []
    for username, saves, settings in log_ins:
        account.emulator.next_run(LOG_IN.id, **settings)
        created = log_in(account, username, save_browser_data=saves, profile_id=profile_id)
        profile_id = created.get("profile_id", profile_id)
    for each in (profile_id, ""):
        task_id = account.run(ORDERS, profile_id=each)
        account.pass_time(2)
        outputs.append(json.loads(account.task(task_id)["output"]["string"]))
    assert outputs == [orders or LOGGED_OUT, LOGGED_OUT]


def test_profile_id_is_returned_and_known_only_if_browser_data_is_saved(account):
    created = [log_in(account, "ada", save_browser_data=saved) for saved in (False, True)]
    assert [each.keys() for each in created] == [{"id"}, {"id", "profile_id"}]
    shown = account.task(created[0]["id"])["profile_id"]
    assert account.code("run-task", workflow_id=ORDERS.id, profile_id=shown) == 99001


def test_run_that_has_been_read_does_not_change(account):
    account.run(PLAIN_TEXT, save_browser_data=True)
    [before] = account.emulator.tasks
    account.pass_time(2)
    [run] = account.emulator.tasks
    assert [(each.status, each.output is None) for each in (before, run)] == [("running", True), ("finished", False)]
    assert [status for status, _ in run.history] == ["created", "running", "finished"]
