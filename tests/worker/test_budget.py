import json
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_browseract.compat import AirflowFailException, AirflowSkipException
from airflow_provider_browseract.emulator import SEARCH, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.triggers.slot import SlotTrigger
from tests.helpers.cases import cases
from tests.helpers.workers import BOTH_WAYS, calls_of

EACH = 20
"""The credits of a run of the workflow."""

DOWN = RequestFault.status(503)

REFUSED = (
    "The budget of connection 'browseract_default' (daily_credits) does not allow another run. No run was started."
)


@pytest.fixture
def limit(world):
    return lambda **fields: world.connect(extra=fields)


@pytest.fixture
def start_outside(world, emulator):
    """Return a function that starts runs without an operator, every other one of a bot, which has the same budget."""

    def start(number: int, *, ended: bool = True, **settings) -> None:
        hook = BrowserActHook()
        for each in range(number):
            emulator.next_run(SEARCH.id, **{"duration": 1.0 if ended else 600.0, **settings})
            (hook.run_bot if each % 2 else hook.run_task)(SEARCH.id, {"keyword": "pens", "max_items": "2"})
            world.clock.sleep(2)

    return start


@pytest.fixture
def today(world):
    return datetime.fromtimestamp(world.clock.now, timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)


# Before a start


def test_budget_that_allows_a_run_is_checked_once(search, emulator, limit, start_outside, logs):
    start_outside(3)
    limit(daily_credits=80)
    assert len(search().run()) == 2
    assert "daily_credits: 60 of 80 credits are used" in logs()
    assert calls_of(emulator, "list-tasks") == 1


def test_active_runs_of_another_connection_with_the_same_key_count(search, emulator, start_outside, today, monkeypatch):
    start_outside(3)
    start_outside(1, ended=False)
    second = {**emulator.connection, "extra": {"daily_credits": 99}}
    monkeypatch.setenv("AIRFLOW_CONN_SECOND", json.dumps(second))
    run = search(browseract_conn_id="second")
    with pytest.raises(AirflowFailException) as failed:
        run.run()
    reason, remedy, numbers, largest = str(failed.value).split("\n")
    # The panel groups failures by their reason, so it has no numbers.
    assert run.ti.xcoms["failure"]["reason"] == reason == REFUSED.replace("browseract_default", "second")
    assert remedy.startswith(f"Wait until {today + timedelta(days=1):%Y-%m-%d} 00:00 UTC, raise daily")
    assert numbers.startswith("60 of 99 credits are used, 20 are expected for runs that are active or have no credits")
    # Someone can look at the run that holds the rest, and stop it.
    task = emulator.tasks[-1]
    # It is not the live view: whoever may see this error could use the browser of another DAG.
    of = f"BrowserAct task {task.id} of workflow {SEARCH.id}, {emulator.url}/logs/{task.id}"
    assert largest == f"The largest active run is expected to use 20 credits: {of}"


@cases(
    ("budget allows", 3, 80, "and 20 for this run (mean of earlier runs). The budget allows this run."),
    ("budget does not allow", 3, 79, "The budget does not allow this run."),
    ("nothing is known", 0, 10, "5 for this run (one step, as no earlier run is known). The budget allows this run."),
    ("down", 3, 10, "The credits cannot be counted: "),
    ("no budget", 3, None, ""),
)
def test_dry_run_reports_the_verdict_but_never_fails(search, emulator, limit, start_outside, logs, runs, credits, line):
    start_outside(runs)
    limit(**({} if credits is None else {"daily_credits": credits}))
    if "cannot" in line:
        emulator.fault("list-tasks", DOWN, times=None)
    run = search(dry_run=True)
    with pytest.raises(AirflowSkipException):
        run.run()
    shown = logs()
    assert line in shown
    assert ("credits" in shown) is bool(line)
    assert run.ti.xcoms == {}
    assert len(emulator.tasks) == runs


def test_of_50_starts_a_day_the_budget_allows_10_until_all_tasks_have_run(search, world, emulator, limit, today):
    emulator.concurrency = 1000
    limit(daily_credits=10 * EACH)
    for day in range(1, 4):
        for _ in range(50):
            world.clock.sleep(10)
            with suppress(AirflowFailException):
                search(wait_for_completion=False).run()
        assert (len(emulator.tasks), calls_of(emulator, "run-task")) == (10 * day, 10 * day)
        world.clock.now = (today + timedelta(days=day)).timestamp() + timings.CLOCK_SKEW
    assert sum(task.credit for task in emulator.tasks) == 3 * 10 * EACH


# on_budget="wait"


@BOTH_WAYS
def test_task_waits_until_the_next_day(search, world, emulator, limit, start_outside, today, logs, store, deferrable):
    start_outside(3)
    limit(daily_credits=3 * EACH)
    run = search(deferrable=deferrable, store=store, on_budget="wait", queue_timeout=600, priority_weight=7)
    before, tomorrow = world.clock.now, today + timedelta(days=1)
    deferred = run.defer()
    wait = deferred.trigger.wait
    assert isinstance(deferred.trigger, SlotTrigger)
    begins = tomorrow.timestamp() + 60
    assert (wait.not_before, wait.until) == (begins, begins + 600)
    assert before <= wait.queued.since <= world.clock.now
    # queue_timeout begins when the wait for the budget is over.
    assert (wait.queued.began, wait.queued.refusals, wait.queued.priority) == (wait.not_before, 0, 7)
    assert deferred.timeout is not None
    assert wait.until - before + 590 < deferred.timeout.total_seconds() < wait.until - before + 601
    assert run.ti.xcoms["wait"] == {"waits_for": "budget", "until": tomorrow.isoformat()}
    assert run.ti.xcoms["_link_PanelLink"] == "browseract/panel/open/ti/shop/manual__1/run/-1"
    log = logs()
    assert (
        f"{REFUSED} Waiting until {tomorrow:%Y-%m-%d} 00:00 UTC because of on_budget='wait': 60 of 60 credits are used,"
        " 0 are expected for runs that are active or have no credits yet (0), and 20 for this run (mean of earlier "
        "runs). If no line follows, check that a triggerer is running." in log
    )
    assert len(emulator.tasks) == 3
    # Others use the credits of the next day before it begins to count.
    world.clock.sleep(begins - 30 - world.clock.now)
    start_outside(3)
    assert len(run.resume(deferred)) == 2
    waits = [each.trigger.wait for each in run.deferrals if isinstance(each.trigger, SlotTrigger)]
    assert [each.queued.since for each in waits] == [wait.queued.since] * 2
    assert waits[1].not_before == begins + 24 * 3600
    assert len(emulator.tasks) == 7
