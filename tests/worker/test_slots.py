"""What the operator does when BrowserAct has no free slot."""

from __future__ import annotations

import time

import pytest

from airflow_provider_browseract.api.errors import InsufficientCreditsError
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.compat import AirflowFailException, TaskDeferralError, TaskDeferred
from airflow_provider_browseract.emulator import CONTACTS, SEARCH, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import RunBotOperator
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.ledger import STATE_KEY
from airflow_provider_browseract.runs.outcome import NoSlotError, RunCanceledError, RunLostError
from airflow_provider_browseract.worker.slots import _in_words
from airflow_provider_browseract.worker.tries import PLACE_KEY
from tests.workers import BOTH_WAYS, FakeTaskInstance, calls_of, is_killed_at_each_call, refuse_xcoms

NO_ROOM = pytest.mark.parametrize(
    "fault", [RequestFault.refused(10118), RequestFault.status(429)], ids=["10118", "429"]
)


@pytest.fixture(autouse=True)
def _short_patience(connect):
    connect({"retry_budget": 0.05, "read_timeout": 10})


def search(worker, **arguments):
    return worker(workflow_id=SEARCH.id, input_parameters={"keyword": "pens", "max_items": 2}, **arguments)


@BOTH_WAYS
@NO_ROOM
def test_start_without_a_free_slot_is_sent_again_within_the_same_try(worker, emulator, store, fault, deferrable, capfd):
    emulator.fault("run-task", fault, times=3)
    run = search(worker, deferrable=deferrable, store=store)
    assert len(run.run()) == 2
    assert len(emulator.tasks) == 1
    logged = "".join(capfd.readouterr())
    why = (
        "received too many requests; it accepts no start for a while"
        if fault.http_status == 429
        else "no free slot now; it lists no active run: the run that has the slot has only just started, or has just "
        "ended"
    )
    assert f"BrowserAct has {why}. BrowserAct has refused the start once. Waiting for at most 7 h 0 min." in logged
    assert "0 runs" not in logged
    assert "BrowserAct has refused the start 2 times." in logged
    assert ("no free slot now; it lists no active run any more" in logged) is (fault.http_status != 429)
    assert ("If no line follows, check that a triggerer is running." in logged) is deferrable


@pytest.mark.parametrize(
    ("deferrable", "plan", "active"),
    [(False, 1, "1 run is active"), (True, 2, "2 runs are active")],
    ids=["in the worker", "deferred"],
)
def test_full_plan_delays_the_run_until_a_slot_is_free(worker, emulator, deferrable, plan, active, capfd):
    emulator.concurrency = plan
    for _ in range(plan):
        emulator.next_run(SEARCH.id, duration=1.0)
        search(worker, wait_for_completion=False).run()
    run = search(worker, deferrable=deferrable)
    assert len(run.run()) == 2
    assert {task.status for task in emulator.tasks} == {"finished"}
    assert f"BrowserAct has no free slot now; {active}. " in "".join(capfd.readouterr())


@pytest.mark.parametrize("shared_runs", [True, False], ids=["each version lists all runs", "each lists only its own"])
def test_refused_bot_counts_runs_of_both_versions_and_a_refused_workflow_those_of_version_2(
    worker, emulator, shared_runs
):
    emulator.concurrency, emulator.shared_runs = 2, shared_runs
    for source in (SEARCH, CONTACTS):
        emulator.set_workflow(source.id, duration=60.0)

    def refused(**arguments):
        before = len(emulator.requests)
        run = worker(**arguments, deferrable=True)
        with pytest.raises(TaskDeferred) as deferral:
            run.operator().execute(run.context)
        wait = deferral.value.trigger.wait
        return wait.api_version, wait.active, [each.endpoint for each in emulator.requests[before + 2 :]]

    workflow = {"workflow_id": SEARCH.id, "input_parameters": {"keyword": "pens"}}
    bot = {"operator_class": RunBotOperator, "bot_id": CONTACTS.id, "input": {"company_name": "Example Corp"}}
    for arguments in (workflow, bot):
        worker(**arguments, wait_for_completion=False).run()
    assert refused(**bot) == (ApiVersion.V3, 2, ["list-tasks"] * 4 + ["page-runs"] * 4)
    assert refused(**workflow) == (ApiVersion.V2, 1 + shared_runs, ["list-tasks"] * 4)


@BOTH_WAYS
@pytest.mark.parametrize("free_plan", [False, True], ids=["Standard Browser", "full plan in other words"])
def test_refusal_by_words_delays_the_run_until_a_slot_is_free(worker, emulator, deferrable, free_plan):
    if free_plan:
        emulator.concurrency, emulator.refusal = 1, (12345, "Too many concurrent tasks")
    else:
        emulator.set_workflow(SEARCH.id, one_at_a_time=True)
    emulator.next_run(SEARCH.id, duration=0.5)
    search(worker, wait_for_completion=False).run()
    assert len(search(worker, deferrable=deferrable).run()) == 2
    assert [task.status for task in emulator.tasks] == ["finished", "finished"]


def test_account_without_credits_fails_with_the_words_of_browseract_and_leaves_retries_to_airflow(
    worker, emulator, store, capfd
):
    emulator.credits = 0
    with pytest.raises(InsufficientCreditsError) as failed:
        search(worker, store=store).run()
    logged = str(failed.value)
    assert logged.startswith(
        "BrowserAct refused the start: Insufficient credits.\nIf the account has no credits left, add"
    )
    assert [calls_of(emulator, endpoint) for endpoint in ("run-task", "list-tasks")] == [1, 0]
    assert "not known" not in logged + "".join(capfd.readouterr())
    assert STATE_KEY not in store.values
    emulator.credits = None
    assert len(search(worker, store=store).run()) == 2


def test_start_that_browseract_refuses_for_an_undocumented_reason_is_sent_once_and_fails_without_retries(
    worker, emulator, store, capfd
):
    emulator.fault("run-task", RequestFault.refused(4711, "The account is locked."), times=None)
    with pytest.raises(AirflowFailException, match=r"^BrowserAct refused the start: The account is locked"):
        search(worker, store=store).run()
    assert [calls_of(emulator, endpoint) for endpoint in ("run-task", "list-tasks")] == [1, 0]
    assert "not known" not in "".join(capfd.readouterr())
    assert store.values == {}


@BOTH_WAYS
def test_no_slot_before_queue_timeout_raises_and_starts_no_run(worker, emulator, store, deferrable, monkeypatch):
    monkeypatch.setattr(timings, "CORE_RACE_GRACE", 0.0)
    emulator.fault("run-task", RequestFault.refused(10118), times=None)
    logged = r"(?s)no free slot within 0.3 seconds.*No run was started.*Airflow pool.*queue_timeout"
    with pytest.raises(NoSlotError, match=logged):
        search(worker, deferrable=deferrable, queue_timeout=0.3, store=store).run()
    assert emulator.tasks == []
    assert store.values == {}


def refuse_once_more(run, deferred) -> TaskDeferred:
    """Resume a task that waits for a slot, whose start is refused again, and return its next deferral."""
    event = run.wait_in_triggerer(deferred)
    with pytest.raises(TaskDeferred) as again:
        run.operator().resume_execution(deferred.method_name, {"event": event}, run.context)
    return again.value


def test_refused_task_keeps_its_place_and_its_priority(worker, emulator):
    emulator.fault("run-task", RequestFault.refused(10118), times=2)
    run = search(worker, deferrable=True, priority_weight=7)
    with pytest.raises(TaskDeferred) as deferral:
        run.operator().execute(run.context)
    first = deferral.value.trigger.wait.queued
    again = refuse_once_more(run, deferral.value).trigger.wait.queued
    assert (first.priority, first.refusals, again.refusals) == (7, 1, 2)
    assert again.place == first.place


def test_retry_keeps_the_place_and_gives_it_up_when_its_run_starts(worker, emulator, store):
    emulator.fault("run-task", RequestFault.refused(10118), times=2)
    waits = []
    for _ in range(2):
        # The first try is lost while it waits.
        run = search(worker, deferrable=True, store=store, queue_timeout=600)
        with pytest.raises(TaskDeferred) as deferral:
            run.operator().execute(run.context)
        waits.append(deferral.value.trigger.wait)
    assert waits[0].queued.place == waits[1].queued.place
    # The time limit of the second try begins again.
    assert waits[1].until > waits[0].until
    assert PLACE_KEY in store.values
    assert len(run.resume(deferral.value)) == 2
    assert PLACE_KEY not in store.values


def test_retry_that_starts_at_once_gives_up_the_place_of_the_try_before(worker, emulator, store):
    emulator.fault("run-task", RequestFault.refused(10118), times=1)
    lost = search(worker, deferrable=True, store=store)
    with pytest.raises(TaskDeferred):
        lost.operator().execute(lost.context)
    assert PLACE_KEY in store.values
    retry = search(worker, store=store)
    retry.ti.try_number = 2
    assert len(retry.run()) == 2
    assert PLACE_KEY not in store.values


def test_woken_task_sends_its_start_before_any_other_request(worker, emulator):
    emulator.fault("run-task", RequestFault.refused(10118), times=1)
    run = search(worker, deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        run.operator().execute(run.context)
    event = run.wait_in_triggerer(deferral.value)
    before = len(emulator.requests)
    with pytest.raises(TaskDeferred):
        run.operator().resume_execution(deferral.value.method_name, {"event": event}, run.context)
    assert emulator.requests[before].endpoint == "run-task"


def test_refusal_although_nothing_is_active_is_reported_once(worker, emulator, capfd):
    emulator.fault("run-task", RequestFault.refused(10118), times=3)
    assert len(search(worker, deferrable=True).run()) == 2
    logged = "".join(capfd.readouterr())
    warning = "BrowserAct refuses the start although it lists no active run."
    assert logged.count(warning) == 1
    # The only run may end right before the first refusal.
    assert "refused the start once" in logged.partition(warning)[0]
    assert "refused the start 3 times" in logged.partition(warning)[2]


def test_wait_for_a_slot_is_limited_by_timeout_without_queue_timeout(worker, emulator, monkeypatch):
    monkeypatch.setattr(timings, "FIRST_SLOT_PAUSE", 60.0)
    emulator.fault("run-task", RequestFault.refused(10118), times=None)
    began = time.monotonic()
    with pytest.raises(NoSlotError, match=r"within 0.3 seconds"):
        search(worker, timeout=0.3).run()
    # A pause between two starts does not go beyond the limit.
    assert time.monotonic() - began < 30


@BOTH_WAYS
def test_failed_push_of_the_wait_does_not_end_it(worker, emulator, deferrable, capfd):
    emulator.fault("run-task", RequestFault.refused(10118), times=1)
    run = search(worker, deferrable=deferrable)
    refuse_xcoms(run, "wait")
    assert len(run.run()) == 2
    assert "Could not push the XCom 'wait' (OSError: no API server)." in "".join(capfd.readouterr())


def test_slot_wait_trigger_has_only_expected_arguments_and_outlasts_the_grace(worker, emulator, monkeypatch):
    monkeypatch.setattr(timings, "CORE_RACE_GRACE", 8.0)
    emulator.fault("run-task", RequestFault.refused(10118), times=None)
    # Shorter than the grace, and long enough for a busy machine.
    run = search(worker, deferrable=True, queue_timeout=timings.CORE_RACE_GRACE - 2)
    with pytest.raises(TaskDeferred) as deferral:
        run.operator().execute(run.context)
    _, arguments = deferral.value.trigger.serialize()
    assert set(arguments) == {"browseract_conn_id", "wait"}
    expected = {"queued", "source", "active", "pause", "until", "handed_over", "key_digest", "api_version"}
    assert set(arguments["wait"]) == expected | {"not_before"}
    assert arguments["wait"]["until"] >= time.time() + timings.CORE_RACE_GRACE - 1
    assert arguments["wait"]["queued"]["refusals"] == 1
    assert run.ti.xcoms["wait"] == {"waits_for": "slot", "refusals": 1, "active_runs": 0}


def test_button_to_the_panel_opens_the_task_instance_in_the_queue_and_with_its_run(worker, emulator):
    emulator.fault("run-task", RequestFault.refused(10118), times=1)
    run = search(worker, deferrable=True)
    run.ti.run_id = "manual__2026-11-27T08:00:00+00:00"
    deferred = run.defer()
    page = "browseract/panel/open/ti/shop/manual__2026-11-27T08%3A00%3A00%2B00%3A00/run/-1"
    assert run.ti.xcoms["_link_PanelLink"] == page
    run.resume(deferred)
    assert run.ti.xcoms["_link_PanelLink"] == page
    assert run.ti.xcoms["task"]["connection"] == "browseract_default"


def test_start_refused_with_429_joins_the_queue_after_one_request_and_counts_no_runs(worker, emulator, connect):
    connect({"retry_budget": 60})
    emulator.fault("run-task", RequestFault.status(429), times=None)
    with pytest.raises(TaskDeferred):
        search(worker, deferrable=True, validate_inputs=False).operator().execute({"ti": FakeTaskInstance()})
    assert [each.endpoint for each in emulator.requests] == ["run-task"]


def test_refusal_for_a_slot_waits_for_slots_and_outlives_the_trigger(worker, emulator, connect):
    connect({"retry_budget": 0.05, "webhook_base_url": "https://airflow.example"})
    emulator.fault("run-task", RequestFault.refused(10118), times=None)
    with pytest.raises(TaskDeferred) as deferral:
        search(worker, deferrable=True, queue_timeout=500, webhook=False).operator().execute({"ti": FakeTaskInstance()})
    deferred, wait = deferral.value, deferral.value.trigger.wait
    assert (wait.pause, wait.handed_over) == (None, True)
    assert (wait.source, wait.active) == (f"workflow {SEARCH.id}", 0)
    # Airflow's own limit comes after the limit of the trigger.
    assert deferred.timeout.total_seconds() == pytest.approx(500 + timings.TIMEOUT_BACKSTOP, abs=60)
    assert deferred.trigger.browseract_conn_id == "browseract_default"
    assert wait.key_digest == BrowserActHook().settings.client.key_digest


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.34, "0.3 seconds"), (90, "90 seconds"), (120, "2 min"), (3599.9, "1 h 0 min"), (25198, "7 h 0 min")],
)
def test_limit_is_logged_in_hours_and_minutes(seconds, text):
    assert _in_words(seconds) == text


def test_retry_after_sets_the_pause_of_the_slot_wait_trigger(worker, emulator, monkeypatch):
    emulator.fault("run-task", RequestFault.status(429, retry_after=77), times=None)
    run = search(worker, deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        run.operator().execute(run.context)
    assert deferral.value.trigger.wait.pause == 77


def test_slot_wait_ended_by_airflow_reports_that_no_run_was_started(worker, emulator):
    emulator.fault("run-task", RequestFault.refused(10118), times=None)
    run = search(worker, deferrable=True)
    with pytest.raises(TaskDeferred):
        run.operator().execute(run.context)
    with pytest.raises(NoSlotError, match="No run was started"):
        run.operator().resume_execution("__fail__", {"error": "Trigger failure"}, run.context)


def test_slot_wait_ends_when_the_triggerer_cannot_read_the_connection(worker, emulator, monkeypatch):
    emulator.fault("run-task", RequestFault.refused(10118), times=1)
    run = search(worker, deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        run.operator().execute(run.context)
    with monkeypatch.context() as gone:
        gone.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
        event = run.wait_in_triggerer(deferral.value)
    assert event["refusals"] == 1


def test_kill_while_there_is_no_free_slot_starts_no_run(worker, emulator, monkeypatch):
    emulator.fault("run-task", RequestFault.refused(10118), times=1)
    run = search(worker)
    operator = run.operator()
    is_killed_at_each_call(operator, monkeypatch)
    with pytest.raises(RunCanceledError, match="Killed before a run was started"):
        operator.execute(run.context)
    assert emulator.tasks == []


def test_run_deferral_ended_by_airflow_is_not_reported_as_a_slot_wait_error(worker, emulator, store):
    emulator.next_run(SEARCH.id, duration=60.0)
    run = search(worker, deferrable=True, store=store)
    with pytest.raises(TaskDeferred):
        run.operator().execute(run.context)
    assert STATE_KEY in store.values
    with pytest.raises(
        RunLostError, match=r"^Stopped waiting for BrowserAct task .*, because Airflow ended the deferral: "
    ) as given_up:
        run.operator().resume_execution("__fail__", {"error": "Trigger failure"}, run.context)
    assert not isinstance(given_up.value, TaskDeferralError)


def test_active_runs_that_cannot_be_counted_do_not_end_the_wait_for_a_slot(worker, emulator, capfd):
    emulator.fault("run-task", RequestFault.refused(10118), times=1)
    emulator.fault("list-tasks", RequestFault.status(503), times=None)
    assert len(search(worker).run()) == 2
    assert "now; an unknown number of runs are active. " in "".join(capfd.readouterr())


def test_endless_retry_after_does_not_make_an_endless_pause(worker, emulator):
    emulator.fault("run-task", RequestFault.status(429, retry_after=10**9), times=None)
    with pytest.raises(TaskDeferred) as deferral:
        search(worker, deferrable=True).operator().execute({"ti": FakeTaskInstance()})
    assert deferral.value.trigger.wait.pause == timings.LONGEST_RETRY_AFTER
