import time
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from airflow_provider_browseract.emulator import SEARCH, RequestFault
from airflow_provider_browseract.exceptions import NoSlotError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.worker import ledger
from airflow_provider_browseract.worker.slots import _in_words
from tests.helpers.workers import BOTH_WAYS, refuse_xcoms


@pytest.fixture
def refused(search, emulator):
    """Return a function that makes a task instance whose first starts are refused because no slot is free."""

    def make(times: int | None = 1, deferrable=True, **arguments):
        emulator.fault("run-task", RequestFault.refused(10118), times=times)
        return search(deferrable=deferrable, **arguments)

    return make


@BOTH_WAYS
@pytest.mark.parametrize("limit", ["queue_timeout", "timeout"])
def test_no_slot_in_time_raises_and_starts_no_run(refused, world, emulator, store, deferrable, limit, monkeypatch):
    monkeypatch.setattr(timings, "QUEUE_RACE_GRACE", 0.0)
    monkeypatch.setattr(timings, "FIRST_SLOT_PAUSE", 60.0)
    began = world.clock.now
    logged = r"(?s)no free slot within 0.3 seconds.*No run was started.*queue_timeout.*Airflow pool"
    with pytest.raises(NoSlotError, match=logged):
        refused(None, deferrable=deferrable, store=store, **{limit: 0.3}).run()
    # A pause between two starts does not go beyond the limit.
    assert world.clock.now - began < 30
    assert emulator.tasks == []
    assert store.values == {}


@pytest.mark.parametrize("from_3_4", [True, False], ids=["Airflow 3.4", "before"])
def test_wait_for_a_slot_pushes_how_many_tries_were_allowed(refused, monkeypatch, from_3_4):
    monkeypatch.setattr(ledger, "AIRFLOW_V_3_4_PLUS", from_3_4)
    run = refused(max_tries=3)
    run.defer()
    assert run.ti.xcoms.get("max_tries") == (3 if from_3_4 else None)
    assert "task_id" not in run.ti.xcoms


def test_wait_for_a_run_keeps_how_many_tries_were_allowed(search):
    assert search(deferrable=True, max_tries=3).defer().trigger.wait.max_tries == 3


def test_place_depends_on_the_start_of_the_dag_run_and_queue_timeout_on_that_of_the_try(refused, world):
    # Weeks before the clock of the world.
    began = datetime(2026, 5, 1, tzinfo=timezone.utc)
    waits = []
    # The first try is lost while it waits.
    for _ in range(2):
        world.clock.sleep(30)
        run, now = refused(2, priority_weight=7, queue_timeout=600), world.clock.now
        run.context["dag_run"] = SimpleNamespace(start_date=began)
        deferral = run.defer()
        waits.append(deferral.trigger.wait)
        assert waits[-1].until == pytest.approx(now + 600, abs=5)
        assert waits[-1].queued.place == (-7, began.timestamp(), -1, pytest.approx(now, abs=5))
    again = run.defer_again(deferral, run.wait_in_triggerer(deferral)).trigger.wait.queued
    assert (again.place, again.refusals) == (waits[1].queued.place, 2)


@BOTH_WAYS
def test_failed_push_of_the_wait_does_not_end_it(refused, deferrable, logs):
    run = refused(deferrable=deferrable)
    refuse_xcoms(run, "wait")
    assert len(run.run()) == 2
    assert "Could not push the XCom 'wait' (OSError: no API server)." in logs()


def test_start_after_the_queue_logs_the_name_of_the_workflow(refused, logs):
    refused().run()
    assert f'Started a run of "{SEARCH.name}": BrowserAct task ' in logs()


def test_wait_for_a_slot_outlasts_the_grace(refused):
    wait = refused(queue_timeout=timings.QUEUE_RACE_GRACE - 2).defer().trigger.wait
    assert wait.until >= time.time() + timings.QUEUE_RACE_GRACE - 1


def test_button_to_the_panel_opens_the_task_instance_in_the_queue_and_with_its_run(refused):
    run = refused()
    run.ti.run_id = "manual__2026-11-27T08:00:00+00:00"
    deferred = run.defer()
    page = "browseract/panel/open/ti/shop/manual__2026-11-27T08%3A00%3A00%2B00%3A00/run/-1"
    assert run.ti.xcoms["_link_PanelLink"] == page
    run.resume(deferred)
    assert run.ti.xcoms["_link_PanelLink"] == page
    assert run.ti.xcoms["task"]["connection"] == "browseract_default"


def test_start_refused_with_429_joins_the_queue_after_one_request_and_counts_no_runs(search, emulator, connect):
    connect({"retry_budget": 60})
    emulator.fault("run-task", RequestFault.status(429))
    wait = search(deferrable=True, validate_inputs=False).defer().trigger.wait
    assert [each.endpoint for each in emulator.requests] == ["run-task"]
    assert wait.not_before >= time.time() + timings.FIRST_SLOT_PAUSE - 5


def test_refusal_for_a_slot_waits_for_slots_and_outlives_the_trigger(refused):
    run = refused(queue_timeout=500)
    deferred = run.defer()
    wait = deferred.trigger.wait
    assert run.ti.xcoms["wait"] == {"waits_for": "slot", "refusals": wait.queued.refusals}
    assert (wait.source, wait.for_budget) == (f"workflow {SEARCH.id}", False)
    # Airflow's own limit comes after the limit of the trigger.
    assert deferred.timeout.total_seconds() == pytest.approx(500 + timings.TIMEOUT_BACKSTOP, abs=60)
    assert deferred.trigger.browseract_conn_id == "browseract_default"
    assert wait.key_digest == BrowserActHook().settings.key_digest


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.34, "0.3 seconds"), (90, "90 seconds"), (120, "2 min"), (3599.9, "1 h 0 min"), (25198, "7 h 0 min")],
)
def test_limit_is_logged_in_hours_and_minutes(seconds, text):
    assert _in_words(seconds) == text


@pytest.mark.parametrize(
    ("retry_after", "queue_timeout", "pause"),
    [(77, 7200, 77), (10**9, 7200, timings.LONGEST_RETRY_AFTER), (300, 120, 120)],
)
def test_retry_after_sets_the_pause_within_limits(search, emulator, world, retry_after, queue_timeout, pause):
    emulator.fault("run-task", RequestFault.status(429, retry_after=retry_after))
    began = world.clock.now
    wait = search(deferrable=True, queue_timeout=queue_timeout).defer().trigger.wait
    assert wait.not_before == pytest.approx(began + pause, abs=20)
    assert wait.not_before <= wait.until


def test_slot_wait_ended_by_airflow_reports_that_no_run_was_started(refused):
    run = refused()
    run.defer()
    with pytest.raises(NoSlotError, match="No run was started"):
        run.operator().resume_execution("__fail__", {"error": "Trigger failure"}, run.context)
