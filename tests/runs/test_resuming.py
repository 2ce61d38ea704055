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

from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    BrowserActError,
    ServerError,
    TaskNotFoundError,
)
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import Step, Task, TaskStatus
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import WHY_UNKNOWN
from airflow_provider_browseract.runs.resuming import (
    Answered,
    Conclude,
    GiveUp,
    Paused,
    WaitAgain,
    WaitEvent,
    after_deferral,
    after_wait,
)
from airflow_provider_browseract.runs.steps import LogLine, Sleep
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.waiting import (
    MIN_FAILED_POLLS,
    Answer,
    End,
    OnPaused,
    Wait,
    WaitEnd,
    WaitPolicy,
    WokenBy,
    wait_for_end,
)
from tests.cases import examples

START = 1_000_000.0
C, R, P, F = TaskStatus.CREATED, TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.FINISHED
DOWN = ServerError("down", http_status=503)
REFUSED = AuthenticationError("Invalid authorization", code=401, http_status=401)
GONE = TaskNotFoundError("gone", code=10112)

WAIT = Wait("7", START, "0" * 64)
ASKING = WAIT.asking("q")
CAPPED = replace(WAIT, policy=WaitPolicy(max_credits=100), spent_before=40)
"""Another 60 credits are left."""

EVENT = WaitEvent(WAIT, End.ENDED, WokenBy.CALLBACK)


def test_event_has_only_the_fields_that_other_versions_of_the_provider_know():
    assert set(to_json(EVENT)) == {"wait", "end", "woken_by", "reason", "answer", "answered_by"}


def event_of(end: End, wait: Wait = WAIT, **fields: Any) -> WaitEvent:
    if end is End.ANSWERED:
        return WaitEvent(ASKING, end, WokenBy.PERSON, answer=Answer.RESUME, answered_by="ada")
    return WaitEvent(wait, end, **fields)


def test_wait_event_survives_a_json_round_trip():
    for event in (EVENT, event_of(End.GIVEN_UP, reason="HTTP 503"), event_of(End.ANSWERED)):
        assert from_json(WaitEvent, json.loads(json.dumps(to_json(event)))) == event


@pytest.mark.parametrize(
    "change",
    [
        None,
        [],
        {"wait": None},
        {"wait": {}},
        {"end": None},
        {"end": "triumph"},
        {"woken_by": None},
        {"woken_by": "magic"},
        {"reason": 7},
        {"answered_by": 7},
        {"answer": "resume"},
        {"end": "answered"},
        {"end": "answered", "answer": "perhaps"},
    ],
    ids=str,
)
def test_incomplete_or_invalid_wait_event_is_refused(change):
    payload = {**to_json(EVENT), **change} if isinstance(change, dict) else change
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ by what is missing
        from_json(WaitEvent, payload)


@pytest.mark.parametrize(
    ("over", "decision"),
    [
        (WaitEnd(End.ENDED, WAIT, Task("7", F)), Conclude(Task("7", F))),
        (WaitEnd(End.PAUSED, WAIT, Task("7", P)), Paused(WAIT, Task("7", P))),
        (WaitEnd(End.DEADLINE, WAIT, Task("7", R)), GiveUp(WAIT, End.DEADLINE)),
        (WaitEnd(End.NOT_STARTED, WAIT, Task("7", C)), GiveUp(WAIT, End.NOT_STARTED)),
        (WaitEnd(End.GIVEN_UP, WAIT, None, DOWN), GiveUp(WAIT, End.GIVEN_UP, DOWN.brief, DOWN)),
    ],
    ids=["ended", "paused", "deadline", "not started", "given up"],
)
def test_wait_in_a_worker_is_followed_by_what_it_came_to(over, decision):
    assert after_wait(over) == decision


@pytest.mark.parametrize("end", End)
@pytest.mark.parametrize("status", [status for status in TaskStatus if status.ended])
def test_ended_run_is_concluded_whatever_the_event_reports(end, status):
    decision, lines = after_deferral(event_of(end), Task("7", status), START + 1.0)
    if status is TaskStatus.CANCELED and end is End.MAX_CREDITS:
        assert decision == GiveUp(WAIT, end, task=Task("7", status))
    else:
        assert decision == Conclude(Task("7", status))
    useless = [LogLine("The run has ended, so the answer Resume has no effect.")]
    assert lines == [LogLine(f"BrowserAct task 7 is {status}."), *(useless if end is End.ANSWERED else [])]


def test_steps_that_no_poll_has_logged_are_logged_at_the_end():
    steps = tuple(Step(number, "succeed", "read", None, None) for number in (1, 2, 3))
    wait = replace(WAIT, last_seen=R, steps_logged=2, step_status="running")
    _, lines = after_deferral(WaitEvent(wait, End.ENDED, WokenBy.CALLBACK), Task("7", F, steps=steps), START)
    assert [line.text for line in lines] == [
        "BrowserAct task 7, step 2: read (succeed)",
        "BrowserAct task 7, step 3: read (succeed)",
        "BrowserAct task 7 is finished.",
    ]


class TestOverTheCap:
    @pytest.mark.parametrize("end", [End.MAX_CREDITS, End.ENDED, End.GIVEN_UP])
    @pytest.mark.parametrize(
        ("status", "given_up"), [(TaskStatus.CANCELED, True), (F, False), (TaskStatus.FAILED, False)]
    )
    def test_canceled_run_is_given_up_and_any_other_ended_run_is_concluded(self, end, status, given_up):
        seen = Task("7", status, credit=61)
        decision, _ = after_deferral(event_of(end, CAPPED), seen, START - 1.0)
        assert decision == (GiveUp(CAPPED, End.MAX_CREDITS, task=seen) if given_up else Conclude(seen))

    @pytest.mark.parametrize("end", [End.ENDED, End.GIVEN_UP])
    def test_canceled_run_within_the_cap_is_concluded(self, end):
        seen = Task("7", TaskStatus.CANCELED, credit=60)
        assert after_deferral(event_of(end, CAPPED), seen, START - 1.0)[0] == Conclude(seen)

    @pytest.mark.parametrize("end", End)
    @pytest.mark.parametrize("status", [C, R, P])
    def test_active_run_is_given_up_whatever_the_event_reports(self, end, status):
        # An older triggerer ignores the cap.
        wait = ASKING if end is End.ANSWERED else WAIT
        event = replace(event_of(end), wait=replace(wait, policy=CAPPED.policy, spent_before=40))
        decision, lines = after_deferral(event, Task("7", status, credit=61), START - 1.0)
        assert isinstance(decision, GiveUp)
        assert (decision.end, decision.task) == (End.MAX_CREDITS, Task("7", status, credit=61))
        assert [line.text for line in lines] == [f"BrowserAct task 7 is {status}."]

    def test_active_run_that_was_stopped_is_given_up_although_its_credits_do_not_show_why(self):
        decision, _ = after_deferral(event_of(End.MAX_CREDITS, CAPPED), Task("7", R), START - 1.0)
        assert isinstance(decision, GiveUp)

    def test_active_run_at_the_cap_is_waited_for(self):
        decision, _ = after_deferral(event_of(End.ENDED, CAPPED), Task("7", R, credit=60), START - 1.0)
        assert isinstance(decision, WaitAgain)


@pytest.mark.parametrize("status", [status for status in TaskStatus if not status.ended])
@pytest.mark.parametrize("woken_by", [WokenBy.POLL, WokenBy.CALLBACK])
def test_reported_end_that_the_api_does_not_confirm_is_waited_for_again(status, woken_by):
    decision, lines = after_deferral(WaitEvent(WAIT, End.ENDED, woken_by), Task("7", status), START - 1.0)
    assert isinstance(decision, WaitAgain)
    assert decision.wait.callbacks_in_vain == (woken_by is WokenBy.CALLBACK)
    assert decision.wait.callback_missed == (woken_by is WokenBy.POLL)
    logged = f"BrowserAct task 7 is {status}, although the {woken_by} reported that it had ended. Waiting again."
    assert lines[-1] == LogLine(logged, logging.WARNING)


@pytest.mark.parametrize(
    ("end", "status", "late", "kind"),
    [
        (End.DEADLINE, R, True, GiveUp),
        (End.PAUSED, P, False, Paused),
        (End.ANSWERED, P, False, Answered),
        (End.ANSWERED, R, True, Answered),
        (End.PAUSED, R, False, WaitAgain),
        (End.NO_LONGER_PAUSED, R, False, WaitAgain),
        (End.NO_LONGER_PAUSED, P, False, WaitAgain),
        (End.GIVEN_UP, R, False, WaitAgain),
        (End.GIVEN_UP, R, True, GiveUp),
        (End.GIVEN_UP, TaskStatus.UNKNOWN, False, GiveUp),
        (End.NOT_STARTED, C, False, GiveUp),
        (End.NOT_STARTED, R, False, WaitAgain),
    ],
)
def test_other_ends_are_checked_against_the_status_and_the_deadline(end, status, late, kind):
    decision, _ = after_deferral(event_of(end), Task("7", status), START + 1.0 if late else START - 1.0)
    assert type(decision) is kind


@pytest.mark.parametrize(
    ("end", "error", "after", "kind"),
    [
        (End.ENDED, DOWN, 0.0, WaitAgain),
        (End.ENDED, DOWN, timings.TIMEOUT_BACKSTOP, GiveUp),
        (End.ENDED, REFUSED, 0.0, WaitAgain),
        (End.ENDED, GONE, 0.0, GiveUp),
        (End.DEADLINE, DOWN, 0.0, GiveUp),
        (End.GIVEN_UP, DOWN, -60.0, GiveUp),
        (End.PAUSED, DOWN, -60.0, WaitAgain),
        (End.PAUSED, DOWN, 60.0, GiveUp),
        (End.PAUSED, GONE, -60.0, GiveUp),
        (End.NO_LONGER_PAUSED, DOWN, 0.0, WaitAgain),
        (End.MAX_CREDITS, DOWN, 0.0, WaitAgain),
        (End.MAX_CREDITS, DOWN, timings.TIMEOUT_BACKSTOP, GiveUp),
        (End.NOT_STARTED, DOWN, -60.0, WaitAgain),
        (End.ANSWERED, DOWN, -60.0, Answered),
    ],
    ids=[
        "ended, API down",
        "ended, API down too long",
        "ended, key refused",
        "ended, task not found",
        "deadline, API down",
        "given up, API down",
        "paused, API down",
        "paused, API down past the deadline",
        "paused, task not found",
        "resumed, API down",
        "over the cap, API down",
        "over the cap, API down too long",
        "not started, API down",
        "answered, API down",
    ],
)
def test_failed_poll_after_an_event_waits_again_or_gives_up_with_the_error(end, error, after, kind):
    decision, lines = after_deferral(event_of(end), error, START + after)
    assert type(decision) is kind
    if isinstance(decision, GiveUp):
        assert decision == GiveUp(decision.wait, end, error.brief, error)
    if isinstance(decision, WaitAgain):
        logged = f"BrowserAct task 7 cannot be read yet: {error.brief}. Waiting again."
        assert lines == [LogLine(logged, logging.WARNING)]


@pytest.mark.parametrize(
    ("reason", "error", "why", "remedy"),
    [
        (
            "HTTP 503.",
            None,
            "its status could not be read: HTTP 503",
            "Check the network and the API key of the connection. Check in the BrowserAct dashboard whether the run "
            "still exists.",
        ),
        (None, None, "its status stayed 'unknown'", "Check in the BrowserAct dashboard whether the run still exists."),
        ("no such task", GONE, "BrowserAct does not know it with this API key: gone (code 10112)", WHY_UNKNOWN),
    ],
    ids=["unreadable", "unknown", "task not found"],
)
def test_wait_without_a_status_has_a_reason_and_a_remedy(reason, error, why, remedy):
    over = GiveUp(WAIT, End.GIVEN_UP, reason, error)
    assert (over.why, over.remedy) == (why, remedy)


@pytest.mark.parametrize("seen", [Task("7", R), Task("7", P), DOWN], ids=["running", "paused", "API down"])
@pytest.mark.parametrize("wait", [WAIT, ASKING], ids=["polls", "Required Action"])
def test_deadline_that_is_minutes_away_by_the_clock_of_the_worker_is_waited_for(wait, seen):
    decision, lines = after_deferral(event_of(End.DEADLINE, wait), seen, START - 120.0)
    assert isinstance(decision, WaitAgain)
    # The trigger has closed the Required Action, so a pause is to be reported again.
    assert (decision.wait.required_action, decision.wait.pause_known) == (None, False)
    assert lines[-1].level == logging.WARNING
    if seen is not DOWN:
        assert "by the clock of this worker 120 seconds are left" in lines[-1].text


@pytest.mark.parametrize("seen", [Task("7", R), DOWN], ids=["running", "API down"])
def test_deadline_is_believed_while_clocks_differ_by_some_seconds(seen):
    decision, _ = after_deferral(event_of(End.DEADLINE), seen, START - timings.AIRFLOW_CLOCK_SKEW)
    assert isinstance(decision, GiveUp)


def test_pause_that_was_handled_stays_handled_after_a_deadline_that_was_too_early():
    decision, _ = after_deferral(event_of(End.DEADLINE, replace(WAIT, pause_known=True)), Task("7", P), START - 120.0)
    assert isinstance(decision, WaitAgain)
    assert decision.wait.pause_known


def test_wait_that_was_given_up_at_the_deadline_of_a_readable_run_is_a_timeout():
    decision, _ = after_deferral(event_of(End.GIVEN_UP, reason="HTTP 503"), Task("7", R), START)
    assert decision == GiveUp(WAIT.news(Task("7", R))[1], End.DEADLINE, "HTTP 503")


def test_run_that_the_triggerer_could_not_poll_is_waited_for_again_with_the_reason():
    decision, lines = after_deferral(event_of(End.GIVEN_UP, reason="HTTP 503"), Task("7", R), START - 1.0)
    assert isinstance(decision, WaitAgain)
    logged = "The triggerer could not poll BrowserAct task 7 (HTTP 503), but this worker can. Waiting again."
    assert lines[-1] == LogLine(logged, logging.WARNING)


def test_answer_that_cannot_be_used_closes_the_required_action():
    decision, lines = after_deferral(event_of(End.GIVEN_UP, ASKING, reason="no such option"), Task("7", P), START - 1.0)
    assert isinstance(decision, WaitAgain)
    assert (decision.wait.required_action, decision.wait.pause_known) == (None, False)
    assert lines[-1].text == "The answer to the Required Action cannot be used: no such option. Waiting again."


def test_run_that_is_no_longer_paused_needs_no_answer():
    decision, lines = after_deferral(event_of(End.NO_LONGER_PAUSED, ASKING), Task("7", R), START - 1.0)
    assert isinstance(decision, WaitAgain)
    assert decision.wait.required_action is None
    assert lines[-1].text == "BrowserAct task 7 is no longer paused, so no answer is needed."


def test_answer_to_an_earlier_required_action_is_ignored():
    event = WaitEvent(WAIT, End.ANSWERED, WokenBy.PERSON, answer=Answer.STOP, answered_by="ada")
    decision, lines = after_deferral(event, Task("7", R), START - 1.0)
    assert isinstance(decision, WaitAgain)
    assert lines[-1].text == "The answer Stop was for an earlier Required Action and has no effect. Waiting again."


def test_news_of_the_run_are_logged_once():
    task = Task("7", R, steps=(Step(1, "running", "Open the page", None, None),))
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
        self.steps = wait_for_end(self.wait, lambda: self.now, lambda: 0.5)
        self._advance()

    def _advance(self, error: BrowserActError | None = None) -> None:
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
                assert self.failed_polls + 1 >= MIN_FAILED_POLLS
                # The clock may have been set back in the meantime, so that it took longer.
                assert self.passed - self.failing_since >= timings.POLL_PATIENCE
            # There is only one Required Action for each pause.
            assert over.end is not End.PAUSED or (self.wait.policy.pause_ends_wait and not self.wait.pause_known)
            self._resume(WaitEvent(over.wait, over.end))

    def _resume(self, event: WaitEvent) -> None:
        """Do what is decided when Airflow resumes the operator."""
        read = from_json(WaitEvent, json.loads(json.dumps(to_json(event))))
        seen: Task | BrowserActError = DOWN if self.failures > 0 else Task("7", self.status)
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
                assert isinstance(seen, BrowserActError) or not self.status.ended
                last_moment = wait.deadline + timings.TIMEOUT_BACKSTOP
                assert read.end not in (End.ENDED, End.NO_LONGER_PAUSED) or self.now >= last_moment
                self.given_up = read.end
            case Paused(wait):
                assert self.status is P
                self._handle_pause(wait)
            case Answered(wait):
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
        self.reply = Task("7", self.status)
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

    @rule(failures=st.integers(1, MIN_FAILED_POLLS + 1) | st.just(300))
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
