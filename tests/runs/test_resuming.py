"""Decisions after a wait, and any interleaving of crashes, callbacks, answers and errors."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import Step, Task, TaskStatus
from airflow_provider_browseract.runs import resuming, timings, waiting
from airflow_provider_browseract.runs.options import Answer, OnPaused
from airflow_provider_browseract.runs.report import WHY_UNKNOWN
from airflow_provider_browseract.runs.resuming import Conclude, GiveUp, WaitAgain, WaitEvent, after_deferral
from airflow_provider_browseract.runs.steps import LogLine, Sleep
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.waiting import End, Wait, WaitEnd, WaitPolicy, WokenBy
from tests.cases import cases, examples

START = 1_000_000.0
BACKSTOP = timings.TIMEOUT_BACKSTOP
SKEW = timings.AIRFLOW_CLOCK_SKEW
C, R, P, F = TaskStatus.CREATED, TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.FINISHED
UNKNOWN, FAILED, CANCELED = TaskStatus.UNKNOWN, TaskStatus.FAILED, TaskStatus.CANCELED
DOWN = errors.ServerError("down", http_status=503)
REFUSED = errors.AuthenticationError("Invalid authorization", code=401, http_status=401)
GONE = errors.TaskNotFoundError("gone", code=10112)

WAIT = Wait("7", START, "0" * 64)
ASKING = WAIT.asking("q")
CAPPED = replace(WAIT, policy=WaitPolicy(max_credits=100), spent_before=40)
"""Another 60 credits are left."""


def event_of(end: End, wait: Wait = WAIT, **fields: Any) -> WaitEvent:
    if end is End.ANSWERED:
        return WaitEvent(ASKING, end, WokenBy.PERSON, answer=Answer.RESUME, answered_by="ada")
    return WaitEvent(wait, end, **fields)


@cases(
    ("over", "decision"),
    {
        "ended": (WaitEnd(End.ENDED, WAIT, Task(id="7", status=F)), Conclude(Task(id="7", status=F))),
        "paused": (WaitEnd(End.PAUSED, WAIT, Task(id="7", status=P)), resuming.Paused(WAIT, Task(id="7", status=P))),
        "deadline": (WaitEnd(End.DEADLINE, WAIT, Task(id="7", status=R)), GiveUp(WAIT, End.DEADLINE)),
        "not started": (WaitEnd(End.NOT_STARTED, WAIT, Task(id="7", status=C)), GiveUp(WAIT, End.NOT_STARTED)),
        "given up": (WaitEnd(End.GIVEN_UP, WAIT, None, DOWN), GiveUp(WAIT, End.GIVEN_UP, DOWN.brief, DOWN)),
    },
)
def test_wait_in_a_worker_is_followed_by_what_it_came_to(over, decision):
    assert resuming.after_wait(over) == decision


@pytest.mark.parametrize("end", End)
@pytest.mark.parametrize("status", [status for status in TaskStatus if status.ended])
def test_ended_run_is_concluded_whatever_the_event_reports(end, status):
    decision, lines = after_deferral(event_of(end), Task(id="7", status=status), START + 1.0)
    if status is CANCELED and end is End.MAX_CREDITS:
        assert decision == GiveUp(WAIT, end, task=Task(id="7", status=status))
    else:
        assert decision == Conclude(Task(id="7", status=status))
    useless = [LogLine("The run has ended, so the answer Resume has no effect.")]
    assert lines == [LogLine(f"BrowserAct task 7 is {status}."), *(useless if end is End.ANSWERED else [])]


def test_steps_that_no_poll_has_logged_are_logged_at_the_end():
    steps = tuple(Step(number=number, status="succeed", goal="read") for number in (1, 2, 3))
    wait = replace(WAIT, last_seen=R, steps_logged=2, step_status="running")
    _, lines = after_deferral(WaitEvent(wait, End.ENDED, WokenBy.CALLBACK), Task(id="7", status=F, steps=steps), START)
    assert [line.text for line in lines] == [
        "BrowserAct task 7, step 2: read (succeed)",
        "BrowserAct task 7, step 3: read (succeed)",
        "BrowserAct task 7 is finished.",
    ]


class TestOverTheCap:
    @pytest.mark.parametrize("end", [End.MAX_CREDITS, End.ENDED, End.GIVEN_UP])
    @pytest.mark.parametrize(
        ("status", "credit", "given_up"),
        [(CANCELED, 61, True), (F, 61, False), (FAILED, 61, False), (CANCELED, 60, False)],
    )
    def test_canceled_run_is_given_up_and_any_other_ended_run_is_concluded(self, end, status, credit, given_up):
        seen = Task(id="7", status=status, credit=credit)
        decision, _ = after_deferral(event_of(end, CAPPED), seen, START - 1.0)
        given_up = given_up or (status is CANCELED and end is End.MAX_CREDITS)
        assert decision == (GiveUp(CAPPED, End.MAX_CREDITS, task=seen) if given_up else Conclude(seen))

    @pytest.mark.parametrize("end", End)
    @pytest.mark.parametrize("status", [C, R, P])
    def test_active_run_is_given_up_whatever_the_event_reports(self, end, status):
        # An older triggerer ignores the cap.
        wait = ASKING if end is End.ANSWERED else WAIT
        event = replace(event_of(end), wait=replace(wait, policy=CAPPED.policy, spent_before=40))
        seen = Task(id="7", status=status, credit=61)
        decision, lines = after_deferral(event, seen, START - 1.0)
        assert isinstance(decision, GiveUp)
        assert (decision.end, decision.task) == (End.MAX_CREDITS, seen)
        assert [line.text for line in lines] == [f"BrowserAct task 7 is {status}."]

    # Its credits do not show why it was stopped; or it has used exactly the cap.
    @pytest.mark.parametrize(("end", "credit", "kind"), [(End.MAX_CREDITS, None, GiveUp), (End.ENDED, 60, WaitAgain)])
    def test_active_run_is_given_up_if_it_was_stopped_and_waited_for_at_the_cap(self, end, credit, kind):
        decision, _ = after_deferral(event_of(end, CAPPED), Task(id="7", status=R, credit=credit), START - 1.0)
        assert type(decision) is kind


@pytest.mark.parametrize("status", [status for status in TaskStatus if not status.ended])
@pytest.mark.parametrize("woken_by", [WokenBy.POLL, WokenBy.CALLBACK])
def test_reported_end_that_the_api_does_not_confirm_is_waited_for_again(status, woken_by):
    decision, lines = after_deferral(WaitEvent(WAIT, End.ENDED, woken_by), Task(id="7", status=status), START - 1.0)
    assert isinstance(decision, WaitAgain)
    assert decision.wait.callbacks_in_vain == (woken_by is WokenBy.CALLBACK)
    assert decision.wait.callback_missed == (woken_by is WokenBy.POLL)
    logged = f"BrowserAct task 7 is {status}, although the {woken_by} reported that it had ended. Waiting again."
    assert lines[-1] == LogLine(logged, logging.WARNING)


@pytest.mark.parametrize(
    ("end", "seen", "after", "kind"),
    [
        (End.DEADLINE, R, 1.0, GiveUp),
        (End.PAUSED, P, -1.0, resuming.Paused),
        (End.ANSWERED, P, -1.0, resuming.Answered),
        (End.ANSWERED, R, 1.0, resuming.Answered),
        (End.PAUSED, R, -1.0, WaitAgain),
        (End.NO_LONGER_PAUSED, R, -1.0, WaitAgain),
        (End.NO_LONGER_PAUSED, P, -1.0, WaitAgain),
        (End.GIVEN_UP, R, -1.0, WaitAgain),
        (End.GIVEN_UP, R, 1.0, GiveUp),
        (End.GIVEN_UP, UNKNOWN, -1.0, GiveUp),
        (End.NOT_STARTED, C, -1.0, GiveUp),
        (End.NOT_STARTED, R, -1.0, WaitAgain),
        (End.ENDED, DOWN, 0.0, WaitAgain),
        (End.ENDED, DOWN, BACKSTOP, GiveUp),
        (End.ENDED, REFUSED, 0.0, WaitAgain),
        (End.ENDED, GONE, 0.0, GiveUp),
        (End.DEADLINE, DOWN, 0.0, GiveUp),
        # The clocks of triggerer and worker may differ by some seconds.
        (End.DEADLINE, DOWN, -SKEW, GiveUp),
        (End.DEADLINE, R, -SKEW, GiveUp),
        (End.GIVEN_UP, DOWN, -60.0, GiveUp),
        (End.PAUSED, DOWN, -60.0, WaitAgain),
        (End.PAUSED, DOWN, 60.0, GiveUp),
        (End.PAUSED, GONE, -60.0, GiveUp),
        (End.NO_LONGER_PAUSED, DOWN, 0.0, WaitAgain),
        (End.MAX_CREDITS, DOWN, 0.0, WaitAgain),
        (End.MAX_CREDITS, DOWN, BACKSTOP, GiveUp),
        (End.NOT_STARTED, DOWN, -60.0, WaitAgain),
        (End.ANSWERED, DOWN, -60.0, resuming.Answered),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_other_ends_are_checked_against_the_status_or_the_error_and_the_deadline(end, seen, after, kind):
    run = seen if isinstance(seen, errors.BrowserActError) else Task(id="7", status=seen)
    decision, lines = after_deferral(event_of(end), run, START + after)
    assert type(decision) is kind
    if isinstance(decision, GiveUp) and isinstance(run, errors.BrowserActError):
        assert decision == GiveUp(decision.wait, end, run.brief, run)
    if isinstance(decision, WaitAgain) and isinstance(run, errors.BrowserActError):
        logged = f"BrowserAct task 7 cannot be read yet: {run.brief}. Waiting again."
        assert lines == [LogLine(logged, logging.WARNING)]


LOOK = "Check in the BrowserAct dashboard whether the run still exists."
CONNECTION = "Check the network and the API key of the connection."
NOT_KNOWN = "BrowserAct does not know it with this API key: gone (code 10112)"


@pytest.mark.parametrize(
    ("reason", "error", "why", "remedy"),
    [
        ("HTTP 503.", None, "its status could not be read: HTTP 503", f"{CONNECTION} {LOOK}"),
        (None, None, "its status stayed 'unknown'", LOOK),
        ("no such task", GONE, NOT_KNOWN, WHY_UNKNOWN),
    ],
)
def test_wait_without_a_status_has_a_reason_and_a_remedy(reason, error, why, remedy):
    over = GiveUp(WAIT, End.GIVEN_UP, reason, error)
    assert (over.why, over.remedy) == (why, remedy)


def test_wait_that_was_given_up_at_the_deadline_of_a_readable_run_is_a_timeout():
    decision, _ = after_deferral(event_of(End.GIVEN_UP, reason="HTTP 503"), Task(id="7", status=R), START)
    assert decision == GiveUp(WAIT.news(Task(id="7", status=R))[1], End.DEADLINE, "HTTP 503")


TWO_MINUTES_LEFT = (
    "The triggerer reported that the time of BrowserAct task 7 is over, but by the clock of this worker 120 seconds "
    "are left. Waiting again. Compare the clocks of triggerer and worker."
)
UNREADABLE = "BrowserAct task 7 cannot be read yet: down (HTTP 503). Waiting again."
THIS_WORKER_CAN = "The triggerer could not poll BrowserAct task 7 (HTTP 503), but this worker can. Waiting again."
UNUSABLE = "The answer to the Required Action cannot be used: no such option. Waiting again."
FOR_AN_EARLIER_ONE = "The answer Stop was for an earlier Required Action and has no effect. Waiting again."
NO_ANSWER_NEEDED = "BrowserAct task 7 is no longer paused, so no answer is needed."
KNOWN = replace(WAIT, pause_known=True)
EARLIER = WaitEvent(WAIT, End.ANSWERED, WokenBy.PERSON, answer=Answer.STOP, answered_by="ada")


@cases(
    ("event", "seen", "pause_known", "line"),
    {
        "deadline": (event_of(End.DEADLINE), R, False, TWO_MINUTES_LEFT),
        "deadline of a paused run": (event_of(End.DEADLINE), P, False, TWO_MINUTES_LEFT),
        "deadline, unreadable": (event_of(End.DEADLINE), DOWN, False, UNREADABLE),
        # The trigger has closed the Required Action, so a pause is to be reported again.
        "deadline of a Required Action": (event_of(End.DEADLINE, ASKING), P, False, TWO_MINUTES_LEFT),
        "deadline of a Required Action, running": (event_of(End.DEADLINE, ASKING), R, False, TWO_MINUTES_LEFT),
        "deadline of a Required Action, unreadable": (event_of(End.DEADLINE, ASKING), DOWN, False, UNREADABLE),
        "deadline of a handled pause": (event_of(End.DEADLINE, KNOWN), P, True, TWO_MINUTES_LEFT),
        "given up": (event_of(End.GIVEN_UP, reason="HTTP 503"), R, False, THIS_WORKER_CAN),
        "answer that cannot be used": (event_of(End.GIVEN_UP, ASKING, reason="no such option"), P, False, UNUSABLE),
        "answer to an earlier Required Action": (EARLIER, R, False, FOR_AN_EARLIER_ONE),
        "no longer paused": (event_of(End.NO_LONGER_PAUSED, ASKING), R, False, NO_ANSWER_NEEDED),
    },
)
def test_run_is_waited_for_again_without_a_required_action_and_with_the_reason(event, seen, pause_known, line):
    run = seen if seen is DOWN else Task(id="7", status=seen)
    decision, lines = after_deferral(event, run, START - 120.0)
    assert isinstance(decision, WaitAgain)
    assert (decision.wait.required_action, decision.wait.pause_known) == (None, pause_known)
    assert lines[-1] == LogLine(line, logging.WARNING if event.end is not End.NO_LONGER_PAUSED else logging.INFO)


def test_news_of_the_run_are_logged_once():
    task = Task(id="7", status=R, steps=(Step(number=1, status="running", goal="Open the page"),))
    decision, lines = after_deferral(event_of(End.NOT_STARTED), task, START - 1.0)
    assert isinstance(decision, WaitAgain)
    expected = ["BrowserAct task 7, step 1: Open the page (running)", "BrowserAct task 7 is running."]
    assert [line.text for line in lines] == expected
    assert after_deferral(event_of(End.NOT_STARTED, decision.wait), task, START - 1.0)[1] == []


class WaitingForARun(RuleBasedStateMachine):
    """One run, its trigger, which dies and comes back, callbacks, true and forged, and the task that is resumed."""

    @initialize(
        poll_interval=st.sampled_from([3.0, 10.0, 120.0]),
        length=st.sampled_from([60.0, 600.0]),
        on_paused=st.sampled_from(OnPaused),
    )
    def a_run_is_deferred_for(self, poll_interval: float, length: float, on_paused: OnPaused) -> None:
        # The clock may be set back, but time still passes.
        self.now = self.passed = START
        self.status = TaskStatus.CREATED
        self.result: TaskStatus | None = None
        self.given_up: End | None = None
        self.failures = 0
        self._defer(Wait("7", START + length, policy=WaitPolicy(poll_interval, on_paused)))

    def _defer(self, wait: Wait) -> None:
        self.grace_ends = self.passed + 8.0
        self.wait = wait.deferred(self.now)
        self._begin()

    def _begin(self) -> None:
        self.failed_polls = 0
        self.began = self.now
        self.failing_since = self.passed
        self.poll_failed = False
        self.reply: Any = None
        self.steps = waiting.wait_for_end(self.wait, lambda: self.now, lambda: 0.5)
        self._advance()

    def _advance(self, error: errors.BrowserActError | None = None) -> None:
        try:
            self.pending = self.steps.throw(error) if error else self.steps.send(self.reply)
            if isinstance(self.pending, Sleep):
                # Never past the deadline, so that the wait ends; but a triggerer that takes over begins with a grace.
                limit = max(self.wait.deadline, self.wait.first_poll_at, self.began + timings.CORE_RACE_GRACE)
                assert self.now + self.pending.seconds <= max(limit, self.now)
        except StopIteration as stop:
            over: WaitEnd = stop.value
            assert self.passed >= self.grace_ends
            assert self.now >= self.wait.deadline or over.end is not End.DEADLINE
            if over.end is End.GIVEN_UP:
                assert self.failed_polls + 1 >= waiting.MIN_FAILED_POLLS
                # The clock may have been set back in the meantime, so that it took longer.
                assert self.passed - self.failing_since >= timings.POLL_PATIENCE
            # There is only one Required Action for each pause.
            assert over.end is not End.PAUSED or (self.wait.policy.pause_ends_wait and not self.wait.pause_known)
            self._resume(WaitEvent(over.wait, over.end))

    def _resume(self, event: WaitEvent) -> None:
        """Do what is decided when Airflow resumes the operator."""
        read = from_json(WaitEvent, json.loads(json.dumps(to_json(event))))
        seen: Task | errors.BrowserActError = DOWN if self.failures > 0 else Task(id="7", status=self.status)
        self.failures = max(0, self.failures - 1)
        decision, _ = after_deferral(read, seen, self.now)
        match decision:
            case Conclude():
                # No success, nor any other result, without the API's word.
                assert isinstance(seen, Task)
                assert self.status.ended
                self.result = self.status
            case GiveUp(wait):
                # A run with a result was not given up while the API could be reached.
                assert isinstance(seen, errors.BrowserActError) or not self.status.ended
                last_moment = wait.deadline + timings.TIMEOUT_BACKSTOP
                assert read.end not in (End.ENDED, End.NO_LONGER_PAUSED) or self.now >= last_moment
                self.given_up = read.end
            case resuming.Paused(wait):
                assert self.status is P
                self._handle_pause(wait)
            case resuming.Answered(wait):
                self.status = R if self.status is P else self.status
                self._defer(replace(wait.unasked(), pauses_from=self.now + timings.RESUME_GRACE))
            case WaitAgain(wait):
                self._defer(wait)

    def _handle_pause(self, wait: Wait) -> None:
        match wait.policy.on_paused:
            case OnPaused.FAIL:
                self.given_up = End.PAUSED
            case OnPaused.ASK:
                self._defer(wait.asking("q"))
            case _:
                self.status = R
                self._defer(replace(wait, pauses_from=self.now + timings.RESUME_GRACE))

    def _goes_on(self) -> bool:
        return self.result is None and self.given_up is None

    @precondition(_goes_on)
    @rule(steps=st.integers(1, 12))
    def the_trigger_goes_on(self, steps: int) -> None:
        for _ in range(steps):
            if not self._goes_on():
                return
            step, self.reply = self.pending, None
            if isinstance(step, Sleep):
                self.now += step.seconds
                self.passed += step.seconds
                self.failed_polls = self.failed_polls + 1 if self.poll_failed else 0
                self.poll_failed = False
                self._advance()
            elif isinstance(step, LogLine):
                self._advance()
            elif self.failures > 0:
                self.failures -= 1
                self.poll_failed = True
                self.failing_since = self.failing_since if self.failed_polls else self.passed
                self._advance(DOWN)
            else:
                self._answer(step)

    def _answer(self, call: Call[Any]) -> None:
        assert self.passed >= self.grace_ends, "nothing is asked within the grace"
        assert call.name == "get-task", "a wait starts, resumes and stops nothing"
        self.reply = Task(id="7", status=self.status)
        self._advance()

    @precondition(_goes_on)
    @rule()
    def the_triggerer_dies_and_another_begins_anew(self) -> None:
        self.steps.close()
        self._begin()

    @precondition(lambda self: self._goes_on() and self.passed >= self.grace_ends)
    @rule()
    def a_callback_says_that_it_ended(self) -> None:
        """Whether it did or not."""
        self.steps.close()
        self._resume(WaitEvent(self.wait, End.ENDED, WokenBy.CALLBACK))

    @precondition(lambda self: self._goes_on() and self.wait.required_action and self.passed >= self.grace_ends)
    @rule()
    def a_person_lets_it_go_on(self) -> None:
        self.steps.close()
        answer = WaitEvent(self.wait, End.ANSWERED, WokenBy.PERSON, answer=Answer.RESUME, answered_by="ada")
        self._resume(answer)

    @precondition(lambda self: not self.status.ended)
    @rule(status=st.sampled_from([status for status in TaskStatus if status is not TaskStatus.UNKNOWN]))
    def the_run_changes(self, status: TaskStatus) -> None:
        self.status = status

    @rule(failures=st.integers(1, waiting.MIN_FAILED_POLLS + 1) | st.just(300))
    def the_api_fails_for_a_while(self, failures: int) -> None:
        self.failures = failures

    @rule(seconds=st.sampled_from([0.5, 7.0, 45.0, 300.0]))
    def the_machine_stands_still(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds

    @rule(seconds=st.sampled_from([3.0, 30.0]))
    def the_clock_is_set_back(self, seconds: float) -> None:
        self.now -= seconds

    def teardown(self) -> None:
        """Once all is well again, the wait comes to an end, with the result if there is one."""
        if not hasattr(self, "status"):
            return
        ended, waited = self.status.ended, self._goes_on()
        self.failures = 0
        for _ in range(2000):
            if not self._goes_on():
                break
            self.the_trigger_goes_on(1)
        assert not self._goes_on()
        if ended and waited:
            assert self.result is self.status


TestAnyInterleaving = WaitingForARun.TestCase
TestAnyInterleaving.settings = settings(
    max_examples=examples(300), stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
