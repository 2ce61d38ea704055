from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import Step, Task, TaskState, TaskStatus
from airflow_provider_browseract.runs import timings, waiting
from airflow_provider_browseract.runs.options import OnPaused
from airflow_provider_browseract.runs.report import GOAL_LENGTH, MAX_STEP_LINES, STATUS_LENGTH
from airflow_provider_browseract.runs.waiting import MAX_STOPS, End, Wait, WaitPolicy, WokenBy, wait_for_end
from tests.cases import cases
from tests.runs.starts import Played
from tests.steps import replace

START = 1_000_000.0
LIVE = "https://live.example/7"
CALLED_BACK = Wait("7", START + 36_000.0, "0" * 64)
RANDOM = random.Random(7)
C, R, P, F = TaskStatus.CREATED, TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.FINISHED
U = TaskStatus.UNKNOWN
DOWN = errors.ServerError("down", http_status=503)
LARGE = errors.ResponseTooLargeError("The response to get-task is larger than 9 bytes")
HANDLES_PAUSES = WaitPolicy(on_paused=OnPaused.RESUME)
WITH_ACTION = {"policy": HANDLES_PAUSES, "pause_known": True, "required_action": "q"}
RESUMED = {"policy": HANDLES_PAUSES, "pauses_from": timings.RESUME_GRACE}
ASKS = {"policy": WaitPolicy(on_paused=OnPaused.ASK, max_credits=100)}
FREE_STEPS = {"policy": WaitPolicy(max_credits=100, credits_per_step=0)}
SLOW = {"interval": 900.0, "deadline": 36_000.0}
RARE = {"interval": 120.0}
BEGUN: dict[str, Any] = {"began_at": -3600.0, "first_poll_at": -3590.0, "deadline": 36_000.0}
"""The fields of a wait that began long ago, and that another triggerer takes over."""

JITTERED = timings.FIRST_POLL_JITTER


class World(Played):
    """What a wait does with a list of responses.

    :param answers: what each poll returns; the last one is returned again and again.
    :param steps: the steps of the run at each poll.
    :param credit: the credits that each poll reports.
    :param statuses: what each poll of the status alone returns.
    :param stops: the error of each stop; the others succeed.
    :param plan: fields of the wait. Moments are in seconds from the start.
    """

    def __init__(self, *answers, chance=0.5, steps=((),), credit=(None,), statuses=(), stops=(), **plan):
        super().__init__(self._respond, START)
        self.polls = [list(each) for each in (answers, steps, credit)]
        self.statuses, self.stops = list(statuses), list(stops)
        plan = {"interval": 10.0, "first_poll_at": 8.0, "deadline": 3600.0, "began_at": -START, **plan}
        for name in {"deadline", "start_by", "pauses_from", "began_at", "first_poll_at"} & plan.keys():
            plan[name] += START
        self.play(wait_for_end(Wait("7", **plan), self.clock, lambda: chance))
        self.end, self.took = self.over.end, self.now - START

    def _respond(self, call: Call[Any]) -> object:
        assert call.params == {"task_id": "7"}
        if call.name == "get-task-status":
            return TaskState(status=self.statuses.pop(0))
        if call.name == "stop-task":
            return self.stops.pop(0) if self.stops else None
        assert call.name == "get-task"
        status, begun, used = (left.pop(0) if len(left) > 1 else left[0] for left in self.polls)
        if isinstance(status, errors.BrowserActError):
            return status
        return Task(id="7", status=status, live_url=LIVE, steps=begun, credit=used)


def wait(*answers, **plan):
    """Return a wait, as a row of a table has it, that is played when it is called."""
    return partial(World, *answers, **plan)


@cases(
    ("row", "end", "sleeps"),
    {
        "first poll after the grace, earliest": (wait(R, R, F, chance=0.0), End.ENDED, [8.0, 8.0, 8.0]),
        "first poll after the grace, latest": (wait(R, R, F, chance=1.0), End.ENDED, [10.0, 12.0, 12.0]),
        "long interval": (wait(F, chance=1.0, first_poll_at=10.0, **RARE), End.ENDED, [10.0 + JITTERED]),
        "stays created": (wait(C, start_by=300.0, **RARE), End.NOT_STARTED, [9.0, 120.0, 120.0, 51.0]),
        "left created in time": (wait(C, R, F, start_by=300.0, **RARE), End.ENDED, [9.0, 120.0, 120.0]),
        "start_by brings a poll forward": (wait(C, R, F, start_by=60.0, **RARE), End.ENDED, [9.0, 51.0, 120.0]),
        "start_by before the first poll": (wait(C, start_by=1.0), End.NOT_STARTED, [8.0]),
        "deadline before start_by": (wait(C, deadline=20.0, start_by=300.0), End.DEADLINE, [9.0, 10.0, 1.0]),
        "polls fail after start_by": (wait(*[DOWN] * 3, C, start_by=10.0), End.NOT_STARTED, [9.0, 1.0, 10.0, 10.0]),
        "deadline before the first poll": (wait(R, deadline=1.0), End.DEADLINE, [8.0]),
        "polls fail at the deadline": (wait(R, DOWN, deadline=12.0), End.DEADLINE, [9.0, 3.0]),
        "restart": (wait(R, began_at=-98.0, first_poll_at=-90.0, deadline=10.0), End.DEADLINE, [10.0]),
        "restart after the deadline": (wait(F, began_at=-68.0, first_poll_at=-60.0, deadline=-5.0), End.ENDED, [8.0]),
        "soon after the start": (wait(F, chance=1.0, began_at=-9.0, first_poll_at=-1.0), End.ENDED, [1.0 + JITTERED]),
        # The grace after a deferral is not shorter.
        "clock ahead": (wait(R, began_at=-31.0, first_poll_at=-23.0, deadline=-10.0), End.DEADLINE, [8.0]),
        "takeover": (wait(R, R, R, F, **RARE, **BEGUN), End.ENDED, [70.0, 120.0, 120.0, 120.0]),
    },
)
def test_polls_follow_the_interval_and_no_limit_is_passed(row, end, sleeps):
    world = row()
    assert (world.end, world.slept) == (end, sleeps)
    assert world.names == ["get-task"] * len(sleeps)


@pytest.mark.parametrize("status", TaskStatus)
def test_wait_lasts_until_the_end_of_the_run_or_the_deadline(status):
    world = World(R, status, deadline=100.0)
    assert (world.end, world.over.wait.last_seen) == (End.ENDED if status.ended else End.DEADLINE, status)
    assert world.over.task is not None
    assert world.over.task.status is status
    assert world.took == (19.0 if status.ended else 100.0)


FIRST = Step(number=1, status="running", goal="Open the page")
SECOND = Step(number=2, status="running", goal="Read the rows")
ENDED = replace(SECOND, status="succeed")
IS_RUNNING, IS_PAUSED = f" is running. Live view: {LIVE}", f" is paused. It waits for a person: {LIVE}"
IS_FINISHED = " is finished."
STEP_2 = ", step 2: Read the rows (running)"


@cases(
    ("row", "texts"),
    {
        "new steps": (
            wait(R, R, R, F, steps=[(), (FIRST,), (FIRST, SECOND)]),
            [IS_RUNNING, ", step 1: Open the page (running)", STEP_2, IS_FINISHED],
        ),
        "steps that were logged before": (
            wait(R, F, last_seen=R, steps=[(FIRST,), (FIRST, SECOND)], steps_logged=1, step_status=FIRST.status),
            [STEP_2, IS_FINISHED],
        ),
        "step with another status": (
            wait(R, R, R, F, last_seen=R, steps=[(SECOND,), (SECOND,), (ENDED,), (ENDED,)]),
            [STEP_2, ", step 2: Read the rows (succeed)", IS_FINISHED],
        ),
        "statuses": (wait(R, R, P, R, F), [IS_RUNNING, IS_PAUSED, IS_RUNNING, IS_FINISHED]),
        "status that was logged before": (wait(R, F, last_seen=R), [IS_FINISHED]),
    },
)
def test_each_step_and_status_is_logged_once(row, texts):
    assert row().logged == [f"BrowserAct task 7{text}" for text in texts]


def steps_until(last: int) -> tuple[Step, ...]:
    return tuple(Step(number=number, status="running", goal="read") for number in range(1, last + 1))


def test_response_with_a_hundred_thousand_steps_adds_about_fifty_lines_of_limited_length():
    long = Step(number=7, status="s" * 5000, goal="g" * 5000)
    world = World(R, R, F, steps=[(long,) * 100_000, (long,) * 100_000])
    assert len(world.logged) == MAX_STEP_LINES + 3
    assert world.logged[MAX_STEP_LINES // 2] == "BrowserAct task 7: ... 99,950 more steps"
    assert max(map(len, world.logged)) < GOAL_LENGTH + STATUS_LENGTH + 60
    assert world.over.wait.steps_logged == 100_000


def test_first_and_last_of_many_new_steps_are_logged():
    world = World(R, R, F, steps=[(FIRST,), steps_until(61)])
    shown = [text for text in world.logged if ", step " in text]
    assert [int(text.split(", step ")[1].split(":")[0]) for text in shown] == [1, *range(2, 27), *range(37, 62)]
    assert "BrowserAct task 7: ... 10 more steps" in world.logged
    # A triggerer that takes over logs the steps of a long run again, within the same limit.
    begun: dict[str, Any] = {"began_at": -600.0, "first_poll_at": -592.0, "last_seen": R, "steps_logged": 3}
    assert len(World(R, R, F, steps=[steps_until(100_000)], **begun).logged) == MAX_STEP_LINES + 2


NOT_BROWSERACTS_WORD_ABOUT_THE_TASK = cases(
    "error",
    {
        "503": DOWN,
        "404 of a gateway": errors.TaskNotFoundError("no route", http_status=404),
        "a refused key": errors.AuthenticationError("Invalid authorization", code=401, http_status=401),
        "403 of a firewall": errors.PermissionDeniedError("no reason given", http_status=403),
        "a web page": errors.UnexpectedResponseError("a page", http_status=200, not_processed=True),
        "an odd refusal": errors.InvalidRequestError("?"),
        "403 of the API": errors.PermissionDeniedError("no", code=99002),
        "an unreadable response": errors.UnexpectedResponseError("the id is missing"),
    },
)


@NOT_BROWSERACTS_WORD_ABOUT_THE_TASK
def test_polls_failing_for_under_ten_minutes_are_logged_and_do_not_end_the_wait(error):
    world = World(*[error] * 50, R, *[error] * 50, F)
    assert world.end is End.ENDED
    assert len(world.warnings) == 100
    assert "1 in a row" in world.warnings[0]
    assert "50 in a row" in world.warnings[49]


@NOT_BROWSERACTS_WORD_ABOUT_THE_TASK
def test_polls_failing_for_ten_minutes_give_up_the_wait_with_the_last_error(error):
    world = World(R, error)
    assert (world.end, world.over.error) == (End.GIVEN_UP, error)
    assert 18.0 + timings.POLL_PATIENCE <= world.took < 18.0 + timings.POLL_PATIENCE + 15.0
    rare = World(R, error, **SLOW)
    assert (rare.end, rare.over.error, len(rare.names)) == (End.GIVEN_UP, error, 1 + waiting.MIN_FAILED_POLLS)
    assert World(R, *[error] * (waiting.MIN_FAILED_POLLS - 1), F, **SLOW).end is End.ENDED


def test_task_not_found_reported_by_browseract_gives_up_the_wait_at_once():
    world = World(R, errors.TaskNotFoundError("gone", code=10112), F)
    assert (world.end, len(world.names)) == (End.GIVEN_UP, 2)


def test_response_too_large_for_the_triggerer_ends_the_wait_by_status_alone():
    world = World(R, LARGE, LARGE, statuses=[R, F])
    assert (world.end, world.over.task) == (End.ENDED, Task(id="7", status=F, unread=LARGE.message))
    assert world.names == ["get-task", "get-task", "get-task-status", "get-task", "get-task-status"]


@cases(
    ("row", "end", "seen"),
    {
        "end by status": (wait(R, LARGE, statuses=[F]), End.ENDED, F),
        "deadline in failures": (wait(R, DOWN, deadline=100.0), End.DEADLINE, R),
        "failures": (wait(R, DOWN), End.GIVEN_UP, R),
        "unknown": (wait(R, U), End.GIVEN_UP, U),
        "no longer paused": (wait(P, R, **WITH_ACTION), End.NO_LONGER_PAUSED, R),
        "pause": (wait(P, policy=HANDLES_PAUSES), End.PAUSED, P),
        "by status": (wait(R, DOWN, LARGE, DOWN, statuses=[P]), End.GIVEN_UP, P),
        "never seen": (wait(DOWN, deadline=100.0), End.DEADLINE, None),
    },
)
def test_every_end_of_a_wait_returns_the_wait_and_the_run_as_it_was_seen_last(row, end, seen):
    over = row(steps=[(), (FIRST, SECOND)]).over
    assert (over.end, over.wait.browseract_task_id, over.wait.last_seen) == (end, "7", seen)
    assert over.error is (DOWN if row.args[-1] is DOWN else None)
    assert (over.task is None) == (seen is None)
    if over.task is not None:
        assert (over.task.id, over.task.status) == ("7", seen)
        assert over.wait.steps_logged == len(over.task.steps)


def test_unknown_statuses_in_a_row_give_up_the_wait_after_enough_polls_and_time():
    few = [R, *[U] * (waiting.MIN_UNKNOWN_POLLS - 1)]
    assert World(*few, *few, F, interval=60.0, deadline=36_000.0).end is End.ENDED
    endless = World(U)
    # Every 10 seconds.
    assert (endless.end, len(endless.names)) == (End.GIVEN_UP, 61)
    assert endless.took >= timings.POLL_PATIENCE
    rare = World(U, interval=60.0)
    assert (rare.end, len(rare.names)) == (End.GIVEN_UP, waiting.MIN_UNKNOWN_POLLS)


@cases(
    ("row", "end", "polls"),
    {
        "not reported": (wait(R, P, F), End.ENDED, 3),
        "ends the wait": (wait(R, P, F, policy=HANDLES_PAUSES), End.PAUSED, 2),
        "fails": (wait(P, F, policy=WaitPolicy(on_paused=OnPaused.FAIL)), End.PAUSED, 1),
        "asks": (wait(P, F, policy=WaitPolicy(on_paused=OnPaused.ASK)), End.PAUSED, 1),
        "notifies": (wait(P, F, policy=WaitPolicy(notifies_of_pauses=True)), End.PAUSED, 1),
        "known": (wait(P, P, F, policy=HANDLES_PAUSES, pause_known=True), End.ENDED, 3),
        "new": (wait(P, R, P, F, policy=HANDLES_PAUSES, pause_known=True), End.PAUSED, 3),
        "Required Action, run goes on": (wait(P, R, P, F, **WITH_ACTION), End.NO_LONGER_PAUSED, 2),
        "Required Action, run ends": (wait(P, F, **WITH_ACTION), End.ENDED, 2),
        "after an unknown status": (wait(P, U, P, F, **WITH_ACTION), End.ENDED, 4),
        "still shown after a resume": (wait(P, P, R, F, **RESUMED), End.ENDED, 4),
        "long after a resume": (wait(P, P, P, P, F, **RESUMED), End.PAUSED, 4),
    },
)
def test_pause_ends_the_wait_once_and_only_if_a_worker_has_something_to_do(row, end, polls):
    world = row()
    assert (world.end, world.names) == (end, ["get-task"] * polls)


def capped(cap: int = 100, **policy) -> WaitPolicy:
    return WaitPolicy(max_credits=cap, **policy)


class TestCap:
    NEAR = "BrowserAct task 7 has used {} of 100 credits (max_credits). It is stopped when it uses more than 100."
    STOPPED = "BrowserAct task 7 was stopped, because more credits were used than max_credits=100 allows."

    @cases(
        ("status", "plan", "stopped"),
        {
            "at the cap": (R, {"credit": [100]}, False),
            "above the cap": (R, {"credit": [101]}, True),
            "paused above the cap": (P, {"credit": [101]}, True),
            "Required Action above the cap": (P, {**WITH_ACTION, **ASKS, "credit": [101]}, True),
            "steps at the cap": (R, {"steps": [steps_until(20)]}, False),
            "steps above the cap": (R, {"steps": [steps_until(21)]}, True),
            "steps above the reported credits": (R, {"steps": [steps_until(21)], "credit": [20]}, True),
            "reported credits above the steps": (R, {"steps": [steps_until(3)], "credit": [101]}, True),
            "steps that are not estimated": (R, {"steps": [steps_until(21)], "credit": [100], **FREE_STEPS}, False),
            "at the cap with earlier tries": (R, {"credit": [60], "spent_before": 40}, False),
            "above the cap with earlier tries": (R, {"credit": [61], "spent_before": 40}, True),
            "no cap": (R, {"credit": [10**6], "policy": WaitPolicy()}, False),
        },
    )
    def test_run_is_stopped_at_once_when_it_is_above_the_cap(self, status, plan, stopped):
        world = World(status, F, **{"policy": capped(), **plan})
        assert world.end is (End.MAX_CREDITS if stopped else End.ENDED)
        assert world.names == ["get-task", "stop-task" if stopped else "get-task"]

    @pytest.mark.parametrize("status", [F, TaskStatus.FAILED, TaskStatus.CANCELED])
    def test_ended_run_above_the_cap_is_not_stopped_and_logs_no_warning(self, status):
        world = World(status, credit=[500], policy=capped())
        assert (world.end, world.names, world.warnings) == (End.ENDED, ["get-task"], [])

    def test_warning_is_logged_once_from_80_percent_of_the_cap_on(self):
        world = World(R, R, R, R, credit=[79, 80, 100, 101], policy=capped())
        assert world.warnings == [self.NEAR.format(80), self.STOPPED]
        assert world.over.wait.cap_warned
        assert World(R, F, credit=[100], policy=capped()).warnings == [self.NEAR.format(100)]
        assert World(R, credit=[101], policy=capped()).warnings == [self.STOPPED]
        assert World(R, F, credit=[95], policy=capped(), cap_warned=True).warnings == []
        world = World(R, F, credit=[10], policy=capped(), spent_before=70)
        assert world.warnings == [f"With the 70 credits of earlier tries, {self.NEAR.format(80)}"]

    FAILED = (
        f"BrowserAct task 7 could not be stopped (down (HTTP 503)). It may keep running and using credits until you "
        f"stop it at {LIVE}."
    )

    @cases(
        ("answers", "stops", "end", "tried", "warnings"),
        {
            "each fails": ((R,), [DOWN] * MAX_STOPS, End.MAX_CREDITS, MAX_STOPS, [FAILED] * MAX_STOPS),
            "second succeeds": ((R,), [DOWN], End.MAX_CREDITS, 2, [FAILED, STOPPED]),
            "run ends after the first": ((R, F), [DOWN], End.ENDED, 1, [FAILED]),
            "run has ended": ((R,), [errors.TaskEndedError("ended", code=10121)], End.MAX_CREDITS, 1, []),
            "run is gone": ((R,), [errors.TaskNotFoundError("gone", code=10112)], End.MAX_CREDITS, 1, []),
        },
    )
    def test_stop_that_fails_is_tried_at_three_polls_and_left_to_the_worker(self, answers, stops, end, tried, warnings):
        world = World(*answers, credit=[101], policy=capped(), stops=stops)
        assert (world.end, world.warnings) == (end, warnings)
        assert world.names == ["get-task", "stop-task"] * tried + ["get-task"] * (end is End.ENDED)
        assert set(world.slept[1:]) <= {10.0}

    def test_warning_about_a_run_too_large_to_be_read_is_logged_once_and_the_run_keeps_running(self):
        world = World(LARGE, LARGE, F, statuses=[R, R], policy=capped())
        assert world.end is End.ENDED
        assert world.warnings == [
            "The credits of BrowserAct task 7 cannot be compared with max_credits=100: The response to get-task is "
            "larger than 9 bytes. Until they can be compared, only timeout stops the run."
        ]
        assert World(LARGE, F, statuses=[R]).warnings == []
        assert World(LARGE, statuses=[F], policy=capped()).warnings == []


def polls_of(length: float, wait: Wait = CALLED_BACK, chance: Callable[[], float] = RANDOM.random) -> list[float]:
    """Return when a run of this length is polled until a poll finds its end, in seconds after the deferral."""
    polls: list[float] = []

    def respond(call: Call[Any]) -> Task:
        polls.append(played.now - START)
        return Task(id="7", status=F if polls[-1] >= length else R)

    played = Played(respond, START)
    assert played.play(wait_for_end(wait.deferred(START), played.clock, chance)).over.end is End.ENDED
    return polls


class TestPollsBehindACallback:
    @cases(
        ("change", "polls"),
        {
            "nothing else": ({}, [11.0, 22.0, 44.0, 88.0, 176.0, 296.0, 416.0, 536.0]),
            "own interval": ({"policy": WaitPolicy(66.0)}, [11.0, *(11.0 + 66.0 * each for each in range(1, 9))]),
            "missed callback": ({"callback_missed": True}, [11.0 + 10.0 * each for each in range(50)]),
            "pause ends the wait": ({"policy": HANDLES_PAUSES}, [11.0 + 10.0 * each for each in range(50)]),
            "cap": ({"policy": capped()}, [11.0 + 10.0 * each for each in range(50)]),
        },
    )
    def test_polls_become_rarer_unless_something_has_to_be_found_by_polls(self, change, polls):
        assert polls_of(500.0, replace(CALLED_BACK, **change), chance=lambda: 0.5) == polls

    @pytest.mark.parametrize("length", [10.0, 15.0, 20.0, 45.0, 90.0, 170.0, 500.0, 5000.0])
    def test_lost_callback_costs_at_most_about_as_long_as_the_run_took(self, length):
        late = max(polls_of(length)[-1] for _ in range(500)) - length
        assert late <= (1 + waiting.JITTER) * min(length, timings.SAFETY_POLL_INTERVAL)

    def test_run_of_20_to_60_seconds_is_polled_at_most_two_and_a_half_times_before_its_callback(self):
        # With the check of the inputs, the start, and a read after each of start and end: 6.5 requests.
        polls = [sum(at < length for at in polls_of(length)) for length in range(20, 61) for _ in range(200)]
        assert sum(polls) / len(polls) <= 2.5


@pytest.mark.parametrize("interval", [10.0, 120.0])
def test_first_polls_of_many_waits_that_another_triggerer_takes_over_are_spread_over_the_interval(interval):
    firsts = [World(F, interval=interval, chance=n / 500, **BEGUN).slept[0] for n in range(500)]
    busiest = max(sum(at <= other < at + 1.0 for other in firsts) for at in firsts)
    assert busiest <= 500 / interval + 1


@cases(
    ("plan", "interval", "grace", "waits_for"),
    {
        "polls": ({"callback_token_sha256": None}, 10.0, 8.0, WokenBy.POLL),
        "own interval": ({"callback_token_sha256": None, "policy": WaitPolicy(7.0)}, 7.0, 8.0, WokenBy.POLL),
        "callback": ({}, 120.0, 10.0, WokenBy.CALLBACK),
        "missed callback": ({"callback_missed": True}, 10.0, 10.0, WokenBy.CALLBACK),
        "pauses": ({"policy": HANDLES_PAUSES}, 10.0, 10.0, WokenBy.CALLBACK),
        "cap": ({"policy": capped()}, 10.0, 10.0, WokenBy.CALLBACK),
        "own interval, callback": ({"policy": WaitPolicy(7.0)}, 7.0, 10.0, WokenBy.CALLBACK),
        "Required Action": ({"required_action": "q"}, 10.0, 10.0, WokenBy.PERSON),
    },
)
def test_deferral_polls_as_often_as_its_end_must_be_found_by_polls(plan, interval, grace, waits_for):
    begun = replace(CALLED_BACK, **plan).deferred(START)
    assert (begun.interval, begun.first_poll_at - START, begun.began_at) == (interval, grace, START)
    assert begun.waits_for is waits_for
    assert begun.pause_known == (waits_for is WokenBy.PERSON)


def test_worker_polls_first_after_one_interval_or_at_the_deadline():
    assert CALLED_BACK.begun(START).first_poll_at == START + 10.0
    assert Wait("7", START + 3.0).begun(START).first_poll_at == START + 3.0
