"""What ``max_credits`` lets the runs of one task instance use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowFailException, TaskDeferred
from airflow_provider_browseract.emulator import ENDLESS, SEARCH, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow import showing
from airflow_provider_browseract.operators.browseract import RunBotOperator
from airflow_provider_browseract.runs.outcome import RunCanceledError, RunFailedError, RunLostError
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.waiting import MAX_STOPS, End, WaitPolicy, WokenBy
from airflow_provider_browseract.worker import waiter
from tests.demos import accept_stops_of_ended_runs
from tests.workers import BOTH_WAYS, PENS, calls_of

SETTINGS = {"retry_budget": 0.2, "read_timeout": 10}
CALLBACKS = {"webhook_base_url": "http://127.0.0.1:1/"}
CAP = 100
BOUND = 130
"""The cap, and what an endless run with a step every 2 seconds uses in 10 seconds and at its end."""


class PollClock:
    """BrowserAct's clock, which only requests advance: from one poll of a run to the next by 10 seconds.

    A run has then used as many credits at each poll as it has with the real intervals, however fast the test is.

    :ivar stop_takes: seconds by which a stop advances it, before the stop is carried out.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self.stop_takes = 0.0
        self._polled = False

    def __call__(self) -> float:
        return self.now

    def notice(self, endpoint: str) -> None:
        if endpoint in ("stop-task", "cancel-run"):
            self.now += self.stop_takes
        if endpoint in ("run-task", "create-run"):
            self._polled = False
        if endpoint in ("get-task", "query-run"):
            # The first one follows the start at once.
            self.now += 10.0 if self._polled else 0.0
            self._polled = True


@pytest.fixture(autouse=True)
def clock(emulator, connect, monkeypatch) -> PollClock:
    connect(SETTINGS)
    clock, take_fault = PollClock(emulator.clock()), emulator.take_fault

    def noticed(endpoint, **about):
        clock.notice(endpoint or "")
        return take_fault(endpoint, **about)

    monkeypatch.setattr(emulator, "clock", clock)
    monkeypatch.setattr(emulator, "take_fault", noticed)
    emulator.set_workflow(ENDLESS.id, step_every=2.0)
    return clock


@pytest.fixture
def capped(worker):
    def make(**arguments):
        what = {} if "bot_id" in arguments else {"workflow_id": ENDLESS.id}
        return worker(**{**what, "max_credits": CAP, **arguments})

    return make


def continue_with(run, deferred: TaskDeferred, event: WaitEvent | dict[str, Any]) -> Any:
    """Resume the operator once with an event."""
    payload = event if isinstance(event, dict) else to_json(event)
    return run.operator().resume_execution(
        deferred.method_name, {**(deferred.kwargs or {}), "event": payload}, run.context
    )


class TestEndlessRun:
    @pytest.mark.parametrize("credits_at_end", [False, True], ids=["credits at each step", "credits at the end"])
    @pytest.mark.parametrize("callbacks", [False, True], ids=["", "with a callback"])
    @BOTH_WAYS
    def test_endless_run_is_stopped_soon_after_the_cap_and_not_retried(
        self, capped, emulator, connect, credits_at_end, callbacks, deferrable
    ):
        connect({**SETTINGS, **(CALLBACKS if callbacks else {})})
        emulator.credits_at_end = credits_at_end
        run = capped(deferrable=deferrable)
        with pytest.raises(
            AirflowFailException,
            match=r"used 1\d\d credits, more than max_credits=100 allows, and was stopped at step \d+: .*\nLook for a",
        ):
            run.run()
        [task] = emulator.tasks
        assert task.status == "canceled"
        assert CAP < task.credit <= BOUND
        assert (calls_of(emulator, "run-task"), calls_of(emulator, "stop-task")) == (1, 1)
        assert (run.ti.xcoms["task"]["task_id"], run.ti.xcoms["task"]["status"]) == (task.id, "canceled")

    @pytest.mark.usefixtures("documented_responses")
    @pytest.mark.parametrize("credits_at_end", [False, True], ids=["credits at each step", "credits at the end"])
    @BOTH_WAYS
    def test_endless_run_of_a_bot_is_stopped_soon_after_the_cap(self, capped, emulator, credits_at_end, deferrable):
        emulator.credits_at_end = credits_at_end
        run = capped(operator_class=RunBotOperator, bot_id=ENDLESS.id, deferrable=deferrable)
        with pytest.raises(AirflowFailException, match=r"used 1\d\d credits, .*, and was stopped at step \d+: "):
            run.run()
        [task] = emulator.tasks
        assert (task.api_version, task.status, calls_of(emulator, "cancel-run")) == ("v3", "canceled", 1)
        assert CAP < task.credit <= BOUND

    def test_deferred_run_is_stopped_by_the_triggerer_without_a_worker(self, capped, emulator):
        run = capped(deferrable=True)
        assert from_json(WaitEvent, run.wait_in_triggerer(run.defer())).end is End.MAX_CREDITS
        assert emulator.tasks[0].status == "canceled"

    def test_triggerer_that_takes_over_after_the_stop_leads_to_the_same_error(self, capped, emulator):
        run = capped(deferrable=True)
        deferred = run.defer()
        run.wait_in_triggerer(deferred)
        with pytest.raises(AirflowFailException, match="and was stopped at step"):
            run.resume(deferred)
        assert [from_json(WaitEvent, event).end for event in run.events] == [End.MAX_CREDITS, End.ENDED]

    def test_callback_of_the_stop_leads_to_the_same_error(self, capped, emulator, connect):
        connect({**SETTINGS, **CALLBACKS})
        run = capped(deferrable=True)
        deferred = run.defer()
        event = from_json(WaitEvent, run.wait_in_triggerer(deferred))
        with pytest.raises(AirflowFailException, match="and was stopped at step"):
            continue_with(run, deferred, replace(event, end=End.ENDED, woken_by=WokenBy.CALLBACK))

    @BOTH_WAYS
    def test_log_warns_once_of_the_cap_and_ends_with_the_steps(self, capped, deferrable, capfd):
        with pytest.raises(AirflowFailException):
            capped(deferrable=deferrable).run()
        log = "".join(capfd.readouterr())
        assert log.count("of 100 credits (max_credits). It is stopped when it uses more than 100.") == 1
        assert "ended as canceled after " in log
        assert "could not be stopped" not in log

    @pytest.mark.usefixtures("documented_responses")
    @BOTH_WAYS
    def test_stopped_run_is_counted_with_its_credits(self, capped, emulator, monkeypatch, deferrable):
        counted = []
        for module in (waiter, showing):
            monkeypatch.setattr(module, "count_in_task", lambda name, **how: counted.append((name, how)))
        with pytest.raises(AirflowFailException):
            capped(deferrable=deferrable).run()
        assert counted == [
            ("browseract.runs", {"tags": {"status": "canceled"}}),
            ("browseract.credits", {"by": emulator.tasks[0].credit}),
            ("browseract.runs.over_max_credits", {}),
        ]

    @BOTH_WAYS
    def test_cost_of_a_step_is_that_of_the_connection(self, capped, emulator, connect, deferrable):
        connect({**SETTINGS, "credits_per_step": 10})
        emulator.credits_at_end = True
        with pytest.raises(AirflowFailException, match=r"used 1\d0 credits"):
            capped(deferrable=deferrable).run()
        assert emulator.tasks[0].credit < CAP

    @BOTH_WAYS
    def test_run_without_a_cap_is_not_stopped(self, worker, emulator, deferrable):
        emulator.set_workflow(SEARCH.id, duration=40.0, credits_per_step=1000)
        assert worker(workflow_id=SEARCH.id, input_parameters=PENS, deferrable=deferrable).run()
        assert calls_of(emulator, "stop-task") == 0


class TestEndBeforeTheStop:
    """A run of 40 steps in 40 seconds, which is above the cap from the 21st one on."""

    @pytest.fixture
    def long(self, capped, emulator):
        emulator.set_workflow(SEARCH.id, duration=40.0, steps=("Read a page",) * 40)
        return lambda **arguments: capped(workflow_id=SEARCH.id, input_parameters=PENS, **arguments)

    @pytest.mark.parametrize("stop_ended_is_ok", [False, True], ids=["stop is refused", "stop is accepted"])
    @BOTH_WAYS
    def test_run_that_finishes_before_the_stop_returns_its_result(
        self, long, emulator, clock, deferrable, stop_ended_is_ok
    ):
        clock.stop_takes = 100.0
        if stop_ended_is_ok:
            accept_stops_of_ended_runs(emulator)
        assert len(long(deferrable=deferrable).run()) == 2
        assert (emulator.tasks[0].status, calls_of(emulator, "stop-task")) == ("finished", 1)

    @BOTH_WAYS
    def test_run_that_fails_before_the_stop_raises_its_failure(self, long, emulator, clock, deferrable):
        clock.stop_takes = 100.0
        emulator.set_workflow(SEARCH.id, outcome="failed", failure=(1011, "No results"))
        with pytest.raises(RunFailedError, match="No results"):
            long(deferrable=deferrable).run()

    @BOTH_WAYS
    def test_run_that_finishes_although_a_stop_was_accepted_returns_its_result(self, long, emulator, deferrable):
        emulator.set_workflow(SEARCH.id, stop_after=1000.0)
        assert len(long(deferrable=deferrable).run()) == 2
        assert emulator.tasks[0].status == "finished"

    @BOTH_WAYS
    def test_run_whose_stop_takes_half_a_minute_is_reported_as_stopped(self, capped, emulator, clock, deferrable):
        emulator.set_workflow(ENDLESS.id, stop_after=30.0)
        with pytest.raises(AirflowFailException, match=r"and was stopped at step \d+: "):
            capped(deferrable=deferrable).run()
        clock.now += 30.0
        emulator.wait_until(lambda: emulator.tasks[0].status == "canceled")


@pytest.mark.parametrize("rendered", ["", "abc", 0, None], ids=repr)
def test_cap_that_renders_to_an_invalid_value_during_the_wait_loses_no_result(worker, emulator, rendered):
    run = worker(workflow_id=SEARCH.id, input_parameters=PENS, deferrable=True, max_credits="{{ var.value.cap }}")
    operator = run.operator()
    operator.max_credits = "100"
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(run.context)
    event = run.wait_in_triggerer(deferral.value)
    operator = run.operator()
    operator.max_credits = rendered
    kwargs = {**(deferral.value.kwargs or {}), "event": event}
    assert len(operator.resume_execution(deferral.value.method_name, kwargs, run.context)) == 2


class TestFailedStop:
    @BOTH_WAYS
    def test_failed_stops_are_never_reported_as_a_stop(self, capped, emulator, deferrable, capfd):
        emulator.fault("stop-task", RequestFault.status(503), times=None)
        with pytest.raises(AirflowFailException, match=r"more than max_credits=100 allows\. It was at step") as failed:
            capped(deferrable=deferrable).run()
        assert "The run could not be stopped (" in str(failed.value)
        assert "until you stop it at http" in str(failed.value)
        log = "".join(capfd.readouterr())
        assert log.count("could not be stopped") == MAX_STOPS
        assert "was stopped" not in log + str(failed.value)
        assert emulator.tasks[0].status == "running"

    def test_worker_stops_the_run_if_the_triggerer_could_not(self, capped, emulator):
        emulator.fault("stop-task", RequestFault.status(503), times=None)
        run = capped(deferrable=True)
        deferred = run.defer()
        event = run.wait_in_triggerer(deferred)
        emulator.clear_faults()
        with pytest.raises(AirflowFailException, match="and was stopped at step"):
            continue_with(run, deferred, event)
        assert emulator.tasks[0].status == "canceled"

    @BOTH_WAYS
    def test_next_try_reattaches_to_a_run_that_could_not_be_stopped(self, capped, emulator, store, deferrable):
        emulator.fault("stop-task", RequestFault.status(503), times=None)
        first, second = (capped(store=store, deferrable=deferrable) for _ in range(2))
        first.ti.max_tries = second.ti.max_tries = 1
        with pytest.raises(RunLostError, match=r"could not be stopped .* The next try reattaches to it and stops it\."):
            first.run()
        emulator.clear_faults()
        with pytest.raises(AirflowFailException, match="and was stopped at step"):
            second.run()
        assert [task.status for task in emulator.tasks] == ["canceled"]

    @BOTH_WAYS
    def test_run_that_cannot_be_read_after_the_stop_is_waited_for(self, capped, emulator, monkeypatch, deferrable):
        def unreadable_after_the_stop(body):
            emulator.fault("get-task", RequestFault.refused(500), times=1)
            return body

        emulator.rewrite("stop-task", unreadable_after_the_stop)
        with pytest.raises(AirflowFailException, match="and was stopped at step"):
            capped(deferrable=deferrable).run()
        assert calls_of(emulator, "stop-task") == 1


class TestStopByAPerson:
    @pytest.mark.parametrize(("seconds", "error"), [(10.0, RunCanceledError), (100.0, AirflowFailException)])
    def test_run_stopped_by_a_person_is_retried_only_within_the_cap(self, capped, emulator, clock, seconds, error):
        run = capped(deferrable=True)
        deferred = run.defer()
        clock.now += seconds
        BrowserActHook().stop_task(emulator.tasks[0].id)
        with pytest.raises(error):
            run.resume(deferred)


class TestWorkerThatResumes:
    def resume(self, run, policy: WaitPolicy, clock: PollClock, **changed: Any) -> Any:
        """Resume the operator when the run is above the cap, although the trigger has not stopped it."""
        deferred = run.defer()
        clock.now += 100.0
        run.arguments.update(changed)
        event = WaitEvent(replace(deferred.trigger.wait, policy=policy), End.ENDED, WokenBy.CALLBACK)
        return continue_with(run, deferred, event)

    def test_worker_stops_a_run_whose_older_triggerer_ignores_the_cap(self, capped, emulator, clock):
        with pytest.raises(AirflowFailException, match="and was stopped at step"):
            self.resume(capped(deferrable=True), WaitPolicy(), clock)
        assert emulator.tasks[0].status == "canceled"

    def test_cap_that_renders_to_none_after_the_deferral_still_applies(self, capped, emulator, clock):
        with pytest.raises(AirflowFailException, match="more than max_credits=100 allows"):
            self.resume(capped(deferrable=True), WaitPolicy(max_credits=CAP), clock, max_credits=None)

    def test_cap_that_was_raised_in_the_meantime_applies(self, capped, emulator, clock):
        with pytest.raises(TaskDeferred) as again:
            self.resume(capped(deferrable=True), WaitPolicy(max_credits=CAP), clock, max_credits=1000)
        assert again.value.trigger.wait.policy.max_credits == 1000
        assert emulator.tasks[0].status == "running"

    def test_run_that_was_stopped_fails_although_the_cap_was_raised_in_the_meantime(self, capped, emulator):
        run = capped(deferrable=True)
        deferred = run.defer()
        event = run.wait_in_triggerer(deferred)
        run.arguments["max_credits"] = 1000
        with pytest.raises(AirflowFailException, match="more than max_credits=100 allows, and was stopped"):
            continue_with(run, deferred, event)


class TestTries:
    """Tries share the cap where Airflow keeps the state of a task for them."""

    @pytest.fixture
    def tries(self, capped, store):
        def make(**arguments):
            run = capped(**{"store": store, **arguments})
            run.ti.max_tries = 2
            return run

        return make

    def fail(self, emulator, run, *, using: int) -> None:
        """Let a run fail at once with these credits."""
        steps = ("Open the next page",) * (using // 5)
        emulator.next_run(ENDLESS.id, step_every=None, duration=0.0, outcome="failed", steps=steps)
        with pytest.raises(RunFailedError):
            run.run()

    @BOTH_WAYS
    def test_third_run_may_use_only_the_credits_that_two_failed_runs_have_left(self, tries, emulator, deferrable):
        for _ in range(2):
            self.fail(emulator, tries(), using=40)
        with pytest.raises(AirflowFailException, match=r"^With the 80 credits of earlier tries, .* share max_credits"):
            tries(deferrable=deferrable).run()
        assert [task.credit for task in emulator.tasks[:2]] == [40, 40]
        assert 20 < emulator.tasks[2].credit <= 30

    @BOTH_WAYS
    def test_clearing_the_task_begins_a_new_count(self, tries, emulator, deferrable):
        self.fail(emulator, tries(), using=90)
        cleared = tries(deferrable=deferrable)
        cleared.ti.max_tries = 4
        with pytest.raises(AirflowFailException, match=r"^BrowserAct task"):
            cleared.run()
        assert CAP < emulator.tasks[1].credit <= BOUND

    def test_cap_that_earlier_tries_have_used_up_fails_the_next_one_without_a_start(self, tries, emulator):
        self.fail(emulator, tries(), using=120)
        with pytest.raises(AirflowFailException, match="have used 120 credits, and max_credits=100 allows no further"):
            tries().run()
        assert calls_of(emulator, "run-task") == 1

    def test_reattached_run_shares_the_cap_with_the_runs_before_it(self, tries, emulator):
        self.fail(emulator, tries(), using=80)
        tries(deferrable=True).defer()
        with pytest.raises(AirflowFailException, match=r"^With the 80 credits of earlier tries"):
            tries().run()
        assert calls_of(emulator, "run-task") == 2
        assert emulator.tasks[1].status == "canceled"

    def test_each_try_without_stored_state_has_its_own_count(self, tries, emulator):
        self.fail(emulator, tries(store=None), using=120)
        with pytest.raises(AirflowFailException, match=r"^BrowserAct task .* another run would probably use as much"):
            tries(store=None).run()
        assert emulator.tasks[1].credit <= BOUND
