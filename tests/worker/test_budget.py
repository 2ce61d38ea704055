"""The budget of an account in a worker: which starts it refuses, and what the task does then."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow_provider_browseract.emulator import SEARCH, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow import day_sums
from airflow_provider_browseract.operators.browseract import RunBotOperator
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.budget import ReadDaySums, WriteDaySums
from airflow_provider_browseract.runs.ledger import STATE_KEY
from airflow_provider_browseract.runs.outcome import BudgetUnknownError, RunCanceledError
from airflow_provider_browseract.triggers.slot import SlotTrigger
from airflow_provider_browseract.worker import budget
from airflow_provider_browseract.worker.tries import PLACE_KEY
from tests.workers import BOTH_WAYS, PENS, FakeStore, calls_of

pytestmark = pytest.mark.usefixtures("documented_responses")

EACH = 20
"""The credits of a run of the workflow."""


@pytest.fixture(autouse=True)
def _on_one_day(monkeypatch):
    """Let no day end during a test."""
    now = time.time
    if now() % 86400 > 86400 - 180:
        monkeypatch.setattr(time, "time", lambda: now() + 180)


@pytest.fixture(autouse=True)
def metrics(monkeypatch) -> list[str]:
    """The metrics of budgets."""
    names: list[str] = []
    monkeypatch.setattr(budget, "count_in_task", names.append)
    return names


@pytest.fixture
def limit(connect):
    """Set the fields of the connection about the budget."""

    def set_fields(**fields):
        connect({"retry_budget": 0.05, "read_timeout": 10, **fields})

    return set_fields


def search(worker, **arguments):
    return worker(workflow_id=SEARCH.id, input_parameters=PENS, **arguments)


def started_outside(emulator, number: int, *, ended: bool = True, **fields) -> None:
    """Start runs without an operator, and wait for their end unless ``ended`` is false."""
    for _ in range(number):
        emulator.next_run(SEARCH.id, **{"duration": 0.0 if ended else 600.0, **fields})
        BrowserActHook().run_task(SEARCH.id, PENS)
    # A request lets the clock of the emulator continue.
    emulator.wait_until(lambda: BrowserActHook().get_task_status(emulator.tasks[-1].id) and True)
    emulator.wait_until(lambda: not ended or all(task.status == "finished" for task in emulator.tasks))


def today() -> datetime:
    return datetime.fromtimestamp(time.time(), timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)


def endpoints(emulator) -> list[str | None]:
    return [request.endpoint for request in emulator.requests]


# Before a start


@BOTH_WAYS
@pytest.mark.parametrize("fields", [{}, {"budget_action": "warn"}], ids=["no field", "only an action"])
def test_run_without_a_budget_sends_no_additional_request(worker, emulator, limit, deferrable, fields, metrics):
    limit(**fields)
    run = search(worker, deferrable=deferrable)
    assert len(run.run()) == 2
    sent = endpoints(emulator)
    assert sent[:3] == ["get-workflow", "run-task", "get-task"]
    assert set(sent[3:]) <= {"get-task"}
    assert "budget" not in run.ti.xcoms
    assert metrics == []


@BOTH_WAYS
def test_start_over_the_daily_budget_is_refused_even_if_others_have_used_the_credits(
    worker, emulator, limit, deferrable, metrics
):
    started_outside(emulator, 3)
    limit(daily_credits=4 * EACH - 1)
    run = search(worker, deferrable=deferrable)
    with pytest.raises(AirflowFailException) as failed:
        run.run()
    day = f"{today():%Y-%m-%d}"
    assert str(failed.value) == (
        f"The budget of connection 'browseract_default' for {day} (UTC) does not allow another run: 60 of 79 credits "
        "are used, no run is active, and this run is expected to use 20. No run was started.\n"
        'Wait until 00:00 UTC, raise daily_credits in the extra of the connection, or set on_budget="wait" so that the '
        "task waits."
    )
    assert run.ti.xcoms == {
        "budget": {"period": day, "limit": 79, "used": 60, "reserved": 0, "expected": 20, "verdict": "refused"}
    }
    assert metrics == ["browseract.budget.refused"]
    assert calls_of(emulator, "run-task") == len(emulator.tasks) == 3


@BOTH_WAYS
def test_bots_and_workflows_use_the_same_budget(worker, emulator, limit, deferrable):
    limit(daily_credits=4 * EACH)
    bot = {"operator_class": RunBotOperator, "bot_id": SEARCH.id, "input": PENS, "deferrable": deferrable}
    for arguments in (bot, {}, bot):
        assert len((worker(**arguments) if arguments else search(worker, deferrable=deferrable)).run()) == 2
    started_outside(emulator, 1)
    with pytest.raises(AirflowFailException, match="80 of 80 credits are used"):
        worker(**bot).run()
    with pytest.raises(AirflowFailException, match="80 of 80 credits are used"):
        search(worker, deferrable=deferrable).run()
    assert [task.api_version for task in emulator.tasks] == ["v3", "v2", "v3", "v2"]


def test_active_runs_of_another_connection_with_the_same_key_count(
    worker, emulator, limit, monkeypatch, browseract_emulator
):
    limit(daily_credits=10**6)
    started_outside(emulator, 3)
    emulator.next_run(SEARCH.id, duration=600.0)
    search(worker, wait_for_completion=False).run()
    second = {**browseract_emulator.connection, "extra": {"daily_credits": 99}}
    monkeypatch.setenv("AIRFLOW_CONN_SECOND", json.dumps(second))
    with pytest.raises(
        AirflowFailException, match=r"'second' for .* 60 of 99 .* 20 are expected for 1 active run, and"
    ):
        search(worker, browseract_conn_id="second").run()


@BOTH_WAYS
def test_start_within_the_budget_shows_what_is_used(worker, emulator, limit, deferrable, metrics, capfd):
    started_outside(emulator, 3)
    limit(daily_credits=1000)
    run = search(worker, deferrable=deferrable)
    assert len(run.run()) == 2
    assert run.ti.xcoms["budget"]["verdict"] == "allowed"
    assert metrics == []
    # Far from the limit, the budget is checked once.
    assert calls_of(emulator, "list-tasks") == 1
    assert (
        f"Budget of connection 'browseract_default' for {today():%Y-%m-%d} (UTC): 60 of 1,000 credits used, no run is "
        f"active. This run is expected to use 20 (mean of 3 runs of workflow {SEARCH.id})."
        in "".join(capfd.readouterr())
    )


def test_start_over_the_budget_with_the_action_warn_is_sent(worker, emulator, limit, metrics, capfd):
    started_outside(emulator, 3)
    limit(daily_credits=10, budget_action="warn")
    run = search(worker)
    assert len(run.run()) == 2
    assert run.ti.xcoms["budget"]["verdict"] == "exceeded"
    assert metrics == ["browseract.budget.exceeded"]
    assert "This run is expected to exceed daily_credits=10." in "".join(capfd.readouterr())


def test_list_that_cannot_be_read_fails_the_try_and_a_retry_counts_again(worker, emulator, limit, store, metrics):
    limit(daily_credits=1000)
    emulator.fault("list-tasks", RequestFault.status(503), times=None)
    with pytest.raises(BudgetUnknownError, match=r"cannot be counted, so no run was started: .*503.*next try counts"):
        search(worker, store=store).run()
    assert metrics == ["browseract.budget.unknown"]
    assert (calls_of(emulator, "run-task"), store.values) == (0, {})
    emulator.clear_faults()
    assert len(search(worker, store=store).run()) == 2


def test_list_that_cannot_be_read_only_warns_with_the_action_warn(worker, emulator, limit, metrics):
    limit(daily_credits=1000, budget_action="warn")
    emulator.fault("list-tasks", RequestFault.status(503), times=None)
    run = search(worker)
    assert len(run.run()) == 2
    assert (run.ti.xcoms["budget"], metrics) == ({"verdict": "unknown"}, ["browseract.budget.unknown"])


def test_try_that_reattaches_is_never_refused(worker, emulator, limit, store):
    emulator.next_run(SEARCH.id, duration=1.0)
    search(worker, store=store, deferrable=True).defer()
    limit(daily_credits=1)
    assert len(search(worker, store=store).run()) == 2
    assert (calls_of(emulator, "run-task"), calls_of(emulator, "list-tasks")) == (1, 0)


def test_budget_is_checked_again_after_a_wait_for_a_slot(worker, emulator, limit):
    limit(daily_credits=3 * EACH)
    emulator.fault("run-task", RequestFault.refused(10118), times=1)
    run = search(worker, deferrable=True)
    deferred = run.defer()
    started_outside(emulator, 3)
    with pytest.raises(AirflowFailException, match="60 of 60 credits are used"):
        run.resume(deferred)
    assert len(emulator.tasks) == 3


def test_of_30_starts_in_a_row_only_those_within_the_budget_are_sent(worker, emulator, limit):
    emulator.set_workflow(SEARCH.id, duration=0.0)
    limit(daily_credits=5 * EACH)
    ended = []
    for _ in range(30):
        try:
            ended.append(len(search(worker, validate_inputs=False).run()))
        except AirflowFailException:
            ended.append(0)
    assert ended == [2] * 5 + [0] * 25
    assert calls_of(emulator, "run-task") == 5


def test_dry_run_reports_the_verdict_and_never_fails_because_of_the_budget(worker, emulator, limit, capfd, metrics):
    started_outside(emulator, 3)
    for fields, text in (
        ({}, "The run is expected to use 20 credits (mean of 3 runs of workflow "),
        ({"daily_credits": 10}, "The budget does not allow this run."),
        ({"daily_credits": 1000}, "The budget allows this run."),
    ):
        limit(**fields)
        run = search(worker, dry_run=True)
        with pytest.raises(AirflowSkipException):
            run.run()
        assert text in "".join(capfd.readouterr())
        assert run.ti.xcoms == {}
    emulator.fault("list-tasks", RequestFault.status(503), times=None)
    with pytest.raises(AirflowSkipException):
        search(worker, dry_run=True).run()
    assert "The credits cannot be counted: " in "".join(capfd.readouterr())
    assert (len(emulator.tasks), metrics) == (3, [])


def test_sums_of_past_days_are_stored_for_the_connection_and_its_key(monkeypatch, connect):
    kept: dict[str, str] = {}

    class Variable:
        @staticmethod
        def get(key, default=None, deserialize_json=False):
            return kept.get(key, default)

        @staticmethod
        def set(key, value, description=None, serialize_json=False):
            kept[key] = value

    monkeypatch.setattr(day_sums, "Variable", Variable)
    sums = {date(2026, 11, 26): 1840}

    def carried_out(step, **fields):
        connect(**fields)
        run: Any = SimpleNamespace(hook=BrowserActHook(), log=logging.getLogger())
        return budget.carry_out(step, run, None)

    carried_out(WriteDaySums(sums))
    assert list(kept) == ["browseract_spend_browseract_default"]
    assert carried_out(ReadDaySums()) == sums
    assert carried_out(ReadDaySums(), password="app-other") == {}


# The second check


@pytest.fixture
def real_time(emulator, monkeypatch):
    """Let the emulator's clock run, because a test waits for its lists."""
    monkeypatch.setattr(emulator, "clock", lambda: time.time())
    return emulator


@pytest.mark.parametrize("deferrable", [False, True], ids=["in the worker", "deferred"])
def test_of_20_starts_at_one_moment_one_run_is_kept(worker, real_time, limit, deferrable, monkeypatch):
    emulator = real_time
    emulator.concurrency = 30
    emulator.set_workflow(SEARCH.id, duration=0.0)
    started_outside(emulator, 3)
    limit(daily_credits=3 * EACH + EACH + 5)
    emulator.set_workflow(SEARCH.id, duration=8.0)
    monkeypatch.setattr(timings, "SECOND_CHECK_DELAY", 1.5)
    monkeypatch.setattr(timings, "LISTING_DELAY", 20.0)
    together = threading.Barrier(20)
    # All checks are over before the first start.
    checked = threading.Barrier(20)
    workers = [
        search(worker, deferrable=deferrable, wait_for_completion=deferrable, store=FakeStore()) for _ in range(20)
    ]
    for each in workers:
        push = each.ti.xcom_push

        def pushed(key, value, push=push):
            push(key, value)
            if key == "budget" and value["verdict"] == "allowed":
                checked.wait(60)

        each.ti.xcom_push = pushed

    def run(each):
        together.wait(60)
        try:
            each.operator().execute(each.context)
        except (AirflowFailException, TaskDeferred) as error:
            return error
        return None

    with ThreadPoolExecutor(20) as threads:
        ended = list(threads.map(run, workers))
    refused = [str(error) for error in ended if isinstance(error, AirflowFailException)]
    assert len(refused) == 19
    assert all("was stopped, because other runs were started at the same time" in text for text in refused)
    assert [task.status for task in emulator.tasks[3:]].count("canceled") == 19
    assert sum(task.credit for task in emulator.tasks if task.status == "canceled") <= 19 * 10


@pytest.fixture
def over_budget(emulator, limit, monkeypatch):
    """An emulator in which the second check of the next start finds an earlier run that the first check did not."""
    started_outside(emulator, 3)
    limit(daily_credits=3 * EACH + EACH + 5)
    started_outside(emulator, 1, ended=False, listed_after=30.0)
    passed, take_fault = [], emulator.take_fault

    def noticed(endpoint, **about):
        if endpoint == "run-task":
            passed.append(60.0)
        return take_fault(endpoint, **about)

    monkeypatch.setattr(emulator, "clock", lambda: time.time() + sum(passed))
    monkeypatch.setattr(emulator, "take_fault", noticed)
    return emulator


def test_run_over_the_budget_is_stopped_and_counts_for_a_later_try(worker, over_budget, store, metrics):
    over_budget.next_run(SEARCH.id, duration=600.0)
    run = search(worker, store=store)
    with pytest.raises(AirflowFailException) as failed:
        run.run()
    own = over_budget.tasks[-1]
    assert f"BrowserAct task {own.id} was stopped, because other runs were started at the same time." in str(
        failed.value
    )
    assert own.status == "canceled"
    assert (run.ti.xcoms["budget"]["verdict"], metrics) == ("refused", ["browseract.budget.refused"])
    assert own.id in store.values[STATE_KEY]
    assert run.ti.xcoms["task_id"] is None


def test_new_run_is_shown_in_airflow_before_the_second_check(worker, over_budget, monkeypatch):
    over_budget.next_run(SEARCH.id, duration=600.0)
    run = search(worker)
    operator = run.operator()
    send, shown = operator.hook.client.send, []

    def noticed(call):
        if call.name == "list-tasks" and calls_of(over_budget, "run-task") == 5:
            shown.append(run.ti.xcoms.get("task_id"))
        return send(call)

    monkeypatch.setattr(operator.hook.client, "send", noticed)
    with pytest.raises(AirflowFailException):
        operator.execute(run.context)
    assert set(shown) == {over_budget.tasks[-1].id}


def test_run_over_the_budget_that_cannot_be_stopped_keeps_running(worker, over_budget, capfd):
    over_budget.next_run(SEARCH.id, duration=3.0)
    over_budget.fault("stop-task", RequestFault.status(503), times=None)
    assert len(search(worker).run()) == 2
    assert f"BrowserAct task {over_budget.tasks[-1].id} could not be stopped" in "".join(capfd.readouterr())


@pytest.mark.parametrize("noticed", [True, False], ids=["before the second check", "after it"])
def test_run_over_the_budget_that_has_ended_already_is_kept(worker, over_budget, noticed):
    over_budget.next_run(SEARCH.id, duration=0.0 if noticed else 1.0)
    over_budget.fault("stop-task", RequestFault.refused(10121), times=None)
    assert len(search(worker).run()) == 2
    assert over_budget.tasks[-1].status == "finished"
    assert calls_of(over_budget, "stop-task") == (not noticed)


def test_kill_during_the_second_check_stops_the_new_run(worker, over_budget, monkeypatch):
    over_budget.next_run(SEARCH.id, duration=600.0)
    run = search(worker)
    operator = run.operator()
    send = operator.hook.client.send

    def killed_meanwhile(call):
        if call.name == "list-tasks" and calls_of(over_budget, "run-task") == 5:
            operator.on_kill()
        return send(call)

    monkeypatch.setattr(operator.hook.client, "send", killed_meanwhile)
    # The kill and the second check both stop it.
    with pytest.raises((RunCanceledError, AirflowFailException)):
        operator.execute(run.context)
    assert over_budget.tasks[-1].status == "canceled"
    assert calls_of(over_budget, "run-task") == 5


# on_budget="wait"


@BOTH_WAYS
def test_task_waits_in_the_triggerer_until_the_next_day_and_keeps_its_place(worker, emulator, limit, store, deferrable):
    started_outside(emulator, 3)
    limit(daily_credits=3 * EACH)
    run = search(worker, deferrable=deferrable, store=store, on_budget="wait", queue_timeout=600, priority_weight=7)
    before = time.time()
    deferred = run.defer()
    tomorrow = today() + timedelta(days=1)
    wait = deferred.trigger.wait
    assert isinstance(deferred.trigger, SlotTrigger)
    assert (wait.not_before, wait.until) == (tomorrow.timestamp() + 60, tomorrow.timestamp() + 60 + 600)
    assert before <= wait.queued.since <= time.time()
    # queue_timeout begins when the wait for the budget is over.
    assert (wait.queued.began, wait.queued.refusals, wait.queued.priority) == (wait.not_before, 0, 7)
    assert deferred.timeout is not None
    left = wait.until - before
    assert left + 590 < deferred.timeout.total_seconds() < left + 601
    assert run.ti.xcoms["wait"] == {"waits_for": "budget", "until": tomorrow.isoformat()}
    assert run.ti.xcoms["_link_PanelLink"] == "browseract/panel/open/ti/shop/manual__1/run/-1"
    assert PLACE_KEY in store.values
    assert calls_of(emulator, "run-task") == 3


def test_warning_of_a_wait_for_the_budget_names_its_reason_and_its_end(worker, emulator, limit, capfd):
    started_outside(emulator, 3)
    limit(daily_credits=3 * EACH)
    search(worker, on_budget="wait").defer()
    tomorrow = today() + timedelta(days=1)
    logged = "".join(capfd.readouterr())
    assert "does not allow another run: 60 of 60 credits are used" in logged
    assert (
        f"No run was started. Waiting until {tomorrow:%Y-%m-%d} 00:00 UTC because of on_budget='wait'. If no line "
        "follows, check that a triggerer is running." in logged
    )


@BOTH_WAYS
def test_task_that_has_waited_checks_the_budget_again(worker, emulator, limit, store, deferrable):
    started_outside(emulator, 3)
    limit(daily_credits=3 * EACH)
    run = search(worker, deferrable=deferrable, store=store, on_budget="wait")
    deferred = run.defer()
    place = deferred.trigger.wait.queued.place
    event = json.loads(json.dumps(deferred.trigger.serialize()[1]["wait"]["queued"]))

    def resume():
        return run.operator().resume_execution(deferred.method_name, {"event": event}, run.context)

    with pytest.raises(TaskDeferred) as again:
        resume()
    assert again.value.trigger.wait.queued.place == place
    assert calls_of(emulator, "run-task") == 3
    limit(daily_credits=1000)
    try:
        result = resume()
    except TaskDeferred as waiting:
        result = run.resume(waiting)
    assert len(result) == 2
    assert PLACE_KEY not in store.values


def test_task_starts_when_the_wait_for_the_budget_is_over(worker, emulator, limit):
    started_outside(emulator, 3)
    limit(daily_credits=3 * EACH)
    run = search(worker, on_budget="wait")
    deferred = run.defer()
    # The next day has begun.
    deferred.trigger.wait = replace(deferred.trigger.wait, not_before=time.time() + 0.1)
    limit(daily_credits=1000)
    assert len(run.resume(deferred)) == 2
    assert len(emulator.tasks) == 4


def test_task_whose_new_run_was_over_the_budget_waits_for_the_next_day(worker, over_budget, store):
    over_budget.next_run(SEARCH.id, duration=600.0)
    run = search(worker, store=store, on_budget="wait")
    deferred = run.defer()
    assert over_budget.tasks[-1].status == "canceled"
    assert deferred.trigger.wait.not_before is not None
