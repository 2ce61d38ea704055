from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    BrowserActError,
    InvalidRequestError,
    NotTheApiError,
    PermissionDeniedError,
    ResponseTooLargeError,
    ServerError,
    TaskNotFoundError,
    UnexpectedResponseError,
)
from airflow_provider_browseract.api.models import Step, Task, TaskStatus
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.steps import Say, Sleep
from airflow_provider_browseract.runs.waiting import (
    FAILED_POLLS,
    JITTER,
    UNKNOWN_POLLS,
    Answer,
    End,
    Next,
    OnPaused,
    RunWait,
    WaitEvent,
    WaitOver,
    WokenBy,
    next_after,
    wait_for_end,
)
from tests.steps import carry_out

START = 1_000_000.0


class World:
    """Stands for clock, API and log: plays a list of answers and writes down what was asked of it."""

    def __init__(self, *answers: TaskStatus | BrowserActError, chance: float = 0.5, steps=((),), statuses=(), **plan):
        self.now = START
        self.statuses = list(statuses)
        self.answers = list(answers)
        self.steps: list[tuple[Step, ...]] = list(steps)
        self.sleeps: list[float] = []
        self.asked: list[str] = []
        self.said: list[Say] = []
        plan = {"poll_interval": 10.0, "first_poll_at": START + 8.0, "deadline": START + 3600.0, **plan}
        kept = ("deadline", "question", "last_seen", "start_by", "steps_told")
        wait = RunWait("7", **{name: plan.pop(name) for name in kept if name in plan})
        steps = wait_for_end(wait, clock=lambda: self.now, chance=lambda: chance, **plan)
        self.over: WaitOver = carry_out(steps, self._answer)

    def _answer(self, step: object) -> object:
        if isinstance(step, Sleep):
            self.sleeps.append(step.seconds)
            self.now += step.seconds
            return None
        if isinstance(step, Say):
            self.said.append(step)
            return None
        assert isinstance(step, Call)
        self.asked.append(step.name)
        assert step.params == {"task_id": "7"}
        if step.name == "get-task-status":
            return self.statuses.pop(0)
        assert step.name == "get-task"
        current = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(current, BrowserActError):
            return current
        live = None if current.ended else "https://live.example/7"
        begun = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        return Task(id="7", status=current, live_url=live, steps=begun)

    @property
    def texts(self) -> list[str]:
        return [say.text for say in self.said]


C, R, P, F = TaskStatus.CREATED, TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.FINISHED
DOWN = ServerError("down", http_status=503)


def test_first_poll_waits_for_the_grace_and_later_polls_for_the_interval():
    world = World(R, R, F, chance=0.0)
    assert world.sleeps == [8.0, 8.0, 8.0]
    world = World(R, R, F, chance=1.0)
    assert world.sleeps == [10.0, 12.0, 12.0]


def test_poll_interval_has_random_jitter_in_both_directions():
    low, high = (World(R, R, F, chance=chance).sleeps[1] for chance in (0.0, 1.0))
    assert (low, high) == (10.0 * (1 - JITTER), 10.0 * (1 + JITTER))


@pytest.mark.parametrize("status", [TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELED])
def test_wait_ends_with_the_whole_task_on_each_end_status(status):
    world = World(R, status)
    assert world.over.end is End.ENDED
    assert world.over.task is not None
    assert world.over.task.status is status


def test_run_that_stays_created_ends_the_wait_at_start_by():
    world = World(C, poll_interval=120.0, start_by=START + 300.0)
    assert (world.over.end, world.now) == (End.NOT_STARTED, START + 300.0)
    assert world.over.wait.last_seen == "created"


def test_run_that_has_left_created_is_polled_as_usual_after_start_by():
    world = World(C, R, F, poll_interval=120.0, chance=0.5, start_by=START + 300.0)
    assert world.over.end is End.ENDED
    assert world.sleeps == [9.0, 120.0, 120.0]


def test_start_by_brings_a_poll_forward_and_not_the_first_one():
    assert World(C, R, F, poll_interval=120.0, chance=0.5, start_by=START + 60.0).sleeps == [9.0, 51.0, 120.0]
    assert World(C, start_by=START + 1.0).sleeps == [8.0]


def test_deadline_before_start_by_ends_the_wait():
    world = World(C, deadline=START + 20.0, start_by=START + 300.0)
    assert (world.over.end, world.now) == (End.DEADLINE, START + 20.0)


def test_failed_polls_after_start_by_keep_their_interval():
    world = World(*[DOWN] * 3, C, chance=0.5, start_by=START + 10.0)
    assert world.over.end is End.NOT_STARTED
    assert world.sleeps == [9.0, 1.0, 10.0, 10.0]


@pytest.mark.parametrize("status", [s for s in TaskStatus if not s.ended])
def test_wait_lasts_until_the_deadline_without_an_end_status(status):
    world = World(status, deadline=START + 100.0)
    assert world.over.end is End.DEADLINE
    assert world.now == START + 100.0


def test_each_poll_sends_exactly_one_request():
    assert World(R, R, P, F).asked == ["get-task"] * 4


FIRST, SECOND = Step(1, "running", "Open the page", None, None), Step(2, "running", "Read the rows", None, None)


def test_each_new_step_is_logged_once_with_its_goal_and_status():
    world = World(R, R, R, F, steps=[(), (FIRST,), (FIRST, SECOND)])
    assert world.texts == [
        "BrowserAct task 7 is running. Live view: https://live.example/7",
        "BrowserAct task 7, step 1: Open the page (running)",
        "BrowserAct task 7, step 2: Read the rows (running)",
        "BrowserAct task 7 is finished.",
    ]


def test_step_that_was_already_logged_is_not_logged_again():
    world = World(R, F, last_seen=R.value, steps=[(FIRST,), (FIRST, SECOND)], steps_told=1)
    assert world.texts == ["BrowserAct task 7, step 2: Read the rows (running)", "BrowserAct task 7 is finished."]


def test_each_status_change_is_logged_once_with_the_live_view_until_the_end():
    assert World(R, R, P, R, F).texts == [
        "BrowserAct task 7 is running. Live view: https://live.example/7",
        "BrowserAct task 7 is paused. It waits for a person: https://live.example/7",
        "BrowserAct task 7 is running. Live view: https://live.example/7",
        "BrowserAct task 7 is finished.",
    ]


def test_status_that_was_already_logged_is_not_logged_again():
    assert World(R, F, last_seen=R.value).texts == ["BrowserAct task 7 is finished."]


REFUSED = AuthenticationError("Invalid authorization", code=401, http_status=401)
BLOCKED = PermissionDeniedError("no reason given", http_status=403)
PAGE = NotTheApiError("a page", http_status=200)
NOT_BROWSERACTS_WORD_ABOUT_THE_TASK = pytest.mark.parametrize(
    "error",
    [DOWN, REFUSED, BLOCKED, PAGE, InvalidRequestError("?"), PermissionDeniedError("no", code=99002)],
    ids=["503", "a refused key", "403 of a firewall", "a web page", "an odd refusal", "403 of the API"],
)


@NOT_BROWSERACTS_WORD_ABOUT_THE_TASK
def test_polls_failing_for_under_ten_minutes_are_logged_and_do_not_end_the_wait(error):
    world = World(*[error] * 50, R, *[error] * 50, F)
    assert world.over.end is End.ENDED
    warnings = [say for say in world.said if say.level == logging.WARNING]
    assert len(warnings) == 100
    assert "1 in a row" in warnings[0].text
    assert "50 in a row" in warnings[49].text


@NOT_BROWSERACTS_WORD_ABOUT_THE_TASK
def test_polls_failing_for_ten_minutes_give_up_the_wait_with_the_last_error(error):
    world = World(R, error)
    assert world.over.end is End.GIVEN_UP
    assert world.over.error is error
    assert world.now - START >= 18.0 + timings.POLL_PATIENCE
    assert world.now - START < 18.0 + timings.POLL_PATIENCE + 15.0


def test_few_failed_polls_do_not_give_up_the_wait_however_long_they_take():
    world = World(R, *[DOWN] * (FAILED_POLLS - 1), F, poll_interval=900.0, deadline=START + 36_000.0)
    assert world.over.end is End.ENDED
    assert World(R, *[DOWN] * FAILED_POLLS, F, poll_interval=900.0, deadline=START + 36_000.0).over.end is End.GIVEN_UP


def test_answer_that_cannot_be_read_counts_as_a_failed_poll():
    error = UnexpectedResponseError("the id is missing")
    assert World(R, error, F).over.end is End.ENDED
    world = World(R, error, poll_interval=900.0, deadline=START + 36_000.0)
    assert (world.over.end, world.over.error) == (End.GIVEN_UP, error)
    assert len(world.asked) == 1 + FAILED_POLLS


def test_task_not_found_reported_by_browseract_gives_up_the_wait_at_once():
    world = World(R, TaskNotFoundError("gone", code=10112), F)
    assert world.over.end is End.GIVEN_UP
    assert len(world.asked) == 2


def test_404_from_a_gateway_does_not_end_the_wait():
    world = World(R, TaskNotFoundError("no route", http_status=404), F)
    assert world.over.end is End.ENDED
    assert len(world.asked) == 3


def test_answer_too_large_for_the_triggerer_lets_the_wait_end_by_status_alone():
    large = ResponseTooLargeError("more than 4 MiB")
    world = World(R, large, large, statuses=[R, F])
    assert (world.over.end, world.over.task) == (End.ENDED, None)
    assert world.asked == ["get-task", "get-task", "get-task-status", "get-task", "get-task-status"]


def test_ended_wait_returns_the_last_logged_status_and_step_count():
    world = World(R, R, P, tell_pauses_from=START, steps=[(), (FIRST, SECOND)])
    assert (world.over.wait.last_seen, world.over.wait.steps_told) == ("paused", 2)


@pytest.mark.parametrize(
    ("answers", "plan", "end", "seen"),
    [
        ([R, F], {}, End.ENDED, F),
        ([R, ResponseTooLargeError("x")], {"statuses": [F]}, End.ENDED, None),
        ([R], {"deadline": START + 100.0}, End.DEADLINE, R),
        ([R, DOWN], {"deadline": START + 100.0}, End.DEADLINE, R),
        ([R, DOWN], {}, End.GIVEN_UP, R),
        ([R, TaskStatus.UNKNOWN], {}, End.GIVEN_UP, TaskStatus.UNKNOWN),
        ([P, R], {"tell_pauses_from": START, "question": "q", "pause_told": True}, End.WENT_ON, R),
        ([P], {"tell_pauses_from": START}, End.PAUSED, P),
        ([R, DOWN, ResponseTooLargeError("x"), DOWN], {"statuses": [P]}, End.GIVEN_UP, P),
        ([DOWN], {"deadline": START + 100.0}, End.DEADLINE, None),
    ],
    ids=[
        "end",
        "end by status",
        "deadline",
        "deadline in failures",
        "failures",
        "unknown",
        "went on",
        "pause",
        "by status",
        "never seen",
    ],
)
def test_every_end_of_a_wait_returns_the_wait_and_the_run_as_it_was_seen_last(answers, plan, end, seen):
    over = World(*answers, **plan).over
    assert (over.end, over.wait.browseract_task_id) == (end, "7")
    assert (over.task is None) == (seen is None)
    if over.task is not None:
        assert (over.task.id, over.task.status) == ("7", seen)


def test_only_unknown_statuses_in_a_row_give_up_the_wait():
    answers = [R, *[TaskStatus.UNKNOWN] * (UNKNOWN_POLLS - 1)]
    assert World(*answers, *answers, F, poll_interval=60.0, deadline=START + 36_000.0).over.end is End.ENDED


def test_unknown_status_gives_up_the_wait_after_enough_polls_and_time():
    patient = World(*[TaskStatus.UNKNOWN] * (UNKNOWN_POLLS - 1), F)
    assert patient.over.end is End.ENDED
    endless = World(TaskStatus.UNKNOWN)
    assert endless.over.end is End.GIVEN_UP
    # Every 10 seconds.
    assert len(endless.asked) == 61
    assert endless.now - START >= timings.POLL_PATIENCE
    fast = World(TaskStatus.UNKNOWN, poll_interval=60.0)
    assert fast.over.end is End.GIVEN_UP
    assert len(fast.asked) == UNKNOWN_POLLS


def test_wait_begun_anew_after_a_restart_keeps_its_deadline():
    # The wait begins anew 90 s after the start, as after a restart of the triggerer.
    world = World(R, first_poll_at=START - 90.0, deadline=START + 10.0)
    assert world.over.end is End.DEADLINE
    assert world.now == START + 10.0


def test_wait_begun_after_the_deadline_polls_once_and_takes_the_result():
    world = World(F, first_poll_at=START - 60.0, deadline=START - 5.0)
    assert world.over.end is End.ENDED
    assert world.sleeps == [0.0]


def test_first_poll_is_not_moved_forward_by_an_earlier_deadline():
    world = World(R, first_poll_at=START + 8.0, deadline=START + 1.0)
    assert world.over.end is End.DEADLINE
    assert world.now == START + 8.0


def test_polls_failing_at_the_deadline_end_the_wait_as_deadline_with_the_error():
    world = World(R, DOWN, deadline=START + 12.0)
    assert world.over.end is End.DEADLINE
    assert world.over.error is DOWN


def test_long_poll_interval_adds_only_a_short_jitter_to_the_first_poll():
    world = World(F, chance=1.0, poll_interval=120.0, first_poll_at=START + 10.0)
    assert world.sleeps == [10.0 + timings.FIRST_POLL_JITTER]


class TestAPause:
    def test_pause_does_not_end_the_wait_when_pauses_are_not_reported(self):
        assert World(R, P, F).over.end is End.ENDED

    def test_pause_ends_the_wait_once_and_is_not_reported_again(self):
        world = World(R, P, F, tell_pauses_from=START)
        assert (world.over.end, world.over.task and world.over.task.status) == (End.PAUSED, P)
        assert World(P, P, F, tell_pauses_from=START, pause_told=True).over.end is End.ENDED

    def test_new_pause_is_reported_after_the_run_has_resumed(self):
        world = World(P, R, P, F, tell_pauses_from=START, pause_told=True)
        assert (world.over.end, world.asked) == (End.PAUSED, ["get-task"] * 3)

    def test_pause_with_a_required_action_ends_the_wait_when_the_run_resumes(self):
        world = World(P, R, P, F, tell_pauses_from=START, pause_told=True, question="q")
        assert (world.over.end, world.asked) == (End.WENT_ON, ["get-task"] * 2)
        assert World(P, F, tell_pauses_from=START, pause_told=True, question="q").over.end is End.ENDED

    def test_pause_after_an_unknown_status_is_not_a_new_pause(self):
        world = World(P, TaskStatus.UNKNOWN, P, F, tell_pauses_from=START, pause_told=True, question="q")
        assert world.over.end is End.ENDED

    def test_pause_still_shown_shortly_after_a_resume_is_not_a_new_pause(self):
        assert World(P, P, R, F, tell_pauses_from=START + timings.RESUME_GRACE).over.end is End.ENDED
        assert World(P, P, P, P, F, tell_pauses_from=START + timings.RESUME_GRACE).over.end is End.PAUSED


EVENT = WaitEvent("7", End.ENDED, 9.5, WokenBy.CALLBACK, "0" * 64)


def test_wait_event_survives_a_json_round_trip():
    answered = WaitEvent(
        "7",
        End.ANSWERED,
        9.5,
        WokenBy.PERSON,
        answer=Answer.RESUME,
        answered_by="ada",
        pauses=2,
        last_seen="paused",
        steps_told=3,
    )
    for event in (EVENT, WaitEvent("7", End.GIVEN_UP, 9.5, reason="HTTP 503"), answered):
        assert WaitEvent.read(json.loads(json.dumps(event.payload()))) == event
        # Airflow's serialization writes an enumeration with its class.
        assert {type(value) for value in event.payload().values()} <= {str, int, float, type(None)}


def test_event_without_numbers_of_pauses_and_steps_has_none():
    payload = {name: value for name, value in EVENT.payload().items() if name not in ("pauses", "steps_told")}
    assert WaitEvent.read(payload) == EVENT


def test_event_continues_the_wait_that_it_ended_also_where_airflow_has_not_kept_it():
    assert EVENT.wait(None) == RunWait("7", 9.5, "0" * 64)
    before = RunWait("7", 9.5, "1" * 64, question="q", answer_by=3.0, steps_told=2)
    assert EVENT.wait(before) is before
    assert before.unasked() == RunWait("7", 9.5, "1" * 64, steps_told=2)


@pytest.mark.parametrize(
    "change",
    [
        None,
        [],
        {"browseract_task_id": 7},
        {"browseract_task_id": ""},
        {"deadline": None},
        {"deadline": True},
        {"deadline": "9.5"},
        {"end": None},
        {"end": "triumph"},
        {"woken_by": None},
        {"woken_by": "magic"},
        {"callback_token_sha256": 7},
        {"reason": 7},
        {"pauses": -1},
        {"pauses": True},
        {"steps_told": "3"},
        {"last_seen": 7},
        {"last_seen": "teleported"},
        {"answered_by": 7},
        {"answer": "resume"},
        {"end": "answered"},
        {"end": "answered", "answer": "perhaps"},
    ],
    ids=[
        "null",
        "list",
        "numeric task id",
        "empty task id",
        "no deadline",
        "boolean deadline",
        "text deadline",
        "no end",
        "unknown end",
        "no waker",
        "unknown waker",
        "numeric token hash",
        "numeric reason",
        "negative pauses",
        "boolean pauses",
        "text steps",
        "numeric status",
        "unknown status",
        "numeric answerer",
        "answer without an answered end",
        "answered end without an answer",
        "unknown answer",
    ],
)
def test_incomplete_or_invalid_wait_event_is_refused(change):
    payload = {**EVENT.payload(), **change} if isinstance(change, dict) else change
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ by what is missing
        WaitEvent.read(payload)


def test_wait_event_continues_the_wait_that_it_ended():
    before = RunWait("7", 9.5, "0" * 64, pauses=1, question="q", last_seen="created", steps_told=2)
    event = WaitEvent("7", End.PAUSED, 9.5, pauses=1, last_seen="paused", steps_told=4)
    assert event.wait(before) == RunWait("7", 9.5, "0" * 64, 1, "q", last_seen="paused", steps_told=4)
    assert EVENT.wait(before) == before


def test_wait_event_alone_restores_the_wait_when_nothing_was_stored():
    event = WaitEvent("7", End.PAUSED, 9.5, pauses=3, last_seen="paused", steps_told=4)
    assert event.wait(None) == RunWait("7", 9.5, pauses=3, last_seen="paused", steps_told=4)


class TestNextAfterWaitEvent:
    @pytest.mark.parametrize("end", End)
    @pytest.mark.parametrize("status", [status for status in TaskStatus if status.ended])
    def test_ended_run_is_concluded_whatever_the_wait_event_reports(self, end, status):
        assert next_after(WaitEvent("7", end, START), Task("7", status), START + 1.0) is Next.CONCLUDE

    @pytest.mark.parametrize("status", [status for status in TaskStatus if not status.ended])
    def test_reported_end_not_confirmed_by_the_api_defers_again(self, status):
        assert next_after(WaitEvent("7", End.ENDED, START), Task("7", status), START + 1.0) is Next.DEFER

    @pytest.mark.parametrize(
        ("end", "status", "late", "then"),
        [
            (End.DEADLINE, R, True, Next.END),
            (End.PAUSED, P, False, Next.PAUSE),
            (End.ANSWERED, P, False, Next.PAUSE),
            (End.ANSWERED, R, True, Next.PAUSE),
            (End.PAUSED, R, False, Next.DEFER),
            (End.WENT_ON, R, False, Next.DEFER),
            (End.WENT_ON, P, False, Next.DEFER),
            (End.GIVEN_UP, R, False, Next.DEFER),
            (End.GIVEN_UP, R, True, Next.END),
            (End.GIVEN_UP, TaskStatus.UNKNOWN, False, Next.END),
            (End.NOT_STARTED, C, False, Next.END),
            (End.NOT_STARTED, R, False, Next.DEFER),
        ],
    )
    def test_other_wait_ends_are_checked_against_the_status_and_the_deadline(self, end, status, late, then):
        now = START + 1.0 if late else START - 1.0
        assert next_after(WaitEvent("7", end, START), Task("7", status), now) is then

    @pytest.mark.parametrize(
        ("end", "error", "after", "then"),
        [
            (End.ENDED, DOWN, 0.0, Next.DEFER),
            (End.ENDED, DOWN, timings.TIMEOUT_BACKSTOP, Next.END),
            (End.ENDED, REFUSED, 0.0, Next.DEFER),
            (End.ENDED, TaskNotFoundError("gone", code=10112), 0.0, Next.END),
            (End.DEADLINE, DOWN, 0.0, Next.END),
            (End.GIVEN_UP, DOWN, -60.0, Next.END),
            (End.PAUSED, DOWN, -60.0, Next.DEFER),
            (End.PAUSED, DOWN, 60.0, Next.END),
            (End.PAUSED, TaskNotFoundError("gone", code=10112), -60.0, Next.END),
            (End.WENT_ON, DOWN, 0.0, Next.DEFER),
            (End.NOT_STARTED, DOWN, -60.0, Next.DEFER),
            (End.ANSWERED, DOWN, -60.0, Next.PAUSE),
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
            "not started, API down",
            "answered, API down",
        ],
    )
    def test_failed_poll_after_a_wait_event_defers_again_or_ends(self, end, error, after, then):
        assert next_after(WaitEvent("7", end, START), error, START + after) is then


class WaitingForARun(RuleBasedStateMachine):
    """One run, its trigger, which dies and comes back, callbacks, true and forged, and the task that is resumed."""

    @initialize(
        poll_interval=st.sampled_from([3.0, 10.0, 120.0]),
        length=st.sampled_from([60.0, 600.0]),
        on_paused=st.sampled_from(OnPaused),
    )
    def a_run_is_deferred_for(self, poll_interval: float, length: float, on_paused: OnPaused) -> None:
        # The clock may be set back, and time goes on all the same.
        self.now = self.passed = START
        self.status = TaskStatus.CREATED
        self.poll_interval, self.on_paused, self.deadline = poll_interval, on_paused, START + length
        self.result: TaskStatus | None = None
        self.ended_as: End | None = None
        self.asked = False
        self.tell_pauses_from = None if on_paused is OnPaused.WAIT else START
        self.failures = 0
        self._defer()

    def _defer(self, pause_told: bool = False) -> None:
        self.asked = pause_told
        self.first_poll_at, self.grace_ends = self.now + 8.0, self.passed + 8.0
        self._begin()

    def _begin(self) -> None:
        self.failed_polls = 0
        self.failing_since = self.passed
        self.poll_failed = False
        self.reply: Any = None
        self.steps = wait_for_end(
            RunWait("7", self.deadline, question="q" if self.asked else None),
            poll_interval=self.poll_interval,
            first_poll_at=self.first_poll_at,
            clock=lambda: self.now,
            chance=lambda: 0.5,
            tell_pauses_from=self.tell_pauses_from,
            pause_told=self.asked,
        )
        self._advance()

    def _advance(self, error: BrowserActError | None = None) -> None:
        try:
            self.pending = self.steps.throw(error) if error else self.steps.send(self.reply)
            if isinstance(self.pending, Sleep):
                # Never past the deadline, so that the wait ends.
                assert self.now + self.pending.seconds <= max(self.deadline, self.first_poll_at, self.now)
        except StopIteration as stop:
            over: WaitOver = stop.value
            assert self.passed >= self.grace_ends
            assert self.now >= self.deadline or over.end is not End.DEADLINE
            if over.end is End.GIVEN_UP:
                assert self.failed_polls + 1 >= FAILED_POLLS
                # The clock may have been set back meanwhile, so that it took longer.
                assert self.passed - self.failing_since >= timings.POLL_PATIENCE
            # Nobody is asked twice of one pause.
            assert over.end is not End.PAUSED or (self.tell_pauses_from is not None and not self.asked)
            self._resume(WaitEvent("7", over.end, self.deadline))

    def _resume(self, event: WaitEvent) -> None:
        """Do as the operator does when Airflow resumes it."""
        told = WaitEvent.read(json.loads(json.dumps(event.payload())))
        seen: Task | BrowserActError = DOWN if self.failures > 0 else Task("7", self.status)
        self.failures = max(0, self.failures - 1)
        then = next_after(told, seen, self.now)
        if then is Next.CONCLUDE:
            # No success, nor any other result, without the API's word.
            assert isinstance(seen, Task)
            assert self.status.ended
            self.result = self.status
        elif then is Next.END:
            # A result that there is was not given up while the API could be asked.
            assert isinstance(seen, BrowserActError) or not self.status.ended
            assert told.end not in (End.ENDED, End.WENT_ON) or self.now >= self.deadline + timings.TIMEOUT_BACKSTOP
            self.ended_as = told.end
        elif then is Next.PAUSE and self.on_paused is OnPaused.FAIL:
            self.ended_as = told.end
        elif then is Next.PAUSE and told.answer is None and self.on_paused is OnPaused.ASK:
            self._defer(pause_told=True)
        elif then is Next.PAUSE:
            self.status = self.status if isinstance(seen, Task) and self.status is not P else R
            self.tell_pauses_from = self.now + timings.RESUME_GRACE
            self._defer()
        else:
            self._defer()

    def _goes_on(self) -> bool:
        return self.result is None and self.ended_as is None

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
            elif isinstance(step, Say):
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
        self._resume(WaitEvent("7", End.ENDED, self.deadline, WokenBy.CALLBACK, "0" * 64))

    @precondition(lambda self: self._goes_on() and self.asked and self.passed >= self.grace_ends)
    @rule()
    def a_person_lets_it_go_on(self) -> None:
        self.steps.close()
        answer = WaitEvent("7", End.ANSWERED, self.deadline, WokenBy.PERSON, answer=Answer.RESUME, answered_by="ada")
        self._resume(answer)

    @precondition(lambda self: not self.status.ended)
    @rule(status=st.sampled_from([status for status in TaskStatus if status is not TaskStatus.UNKNOWN]))
    def the_run_changes(self, status: TaskStatus) -> None:
        self.status = status

    @rule(failures=st.integers(1, FAILED_POLLS + 1) | st.just(300))
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
    max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
