from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    BrowserActError,
    InvalidRequestError,
    NotTheApiError,
    PermissionDeniedError,
    ResponseTooLargeError,
    ServerError,
    TaskEndedError,
    TaskNotFoundError,
    UnexpectedResponseError,
)
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import Step, Task, TaskStatus
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import GOAL_LENGTH, MAX_STEP_LINES, STATUS_LENGTH
from airflow_provider_browseract.runs.steps import LogLine, Sleep
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.waiting import (
    JITTER,
    MAX_STOPS,
    MIN_FAILED_POLLS,
    MIN_UNKNOWN_POLLS,
    End,
    OnPaused,
    Wait,
    WaitEnd,
    WaitPolicy,
    WokenBy,
    wait_for_end,
)
from tests.steps import carry_out

START = 1_000_000.0


class World:
    """Replaces clock, API and log: returns a list of responses, and records the requests.

    :param answers: what each poll returns; the last one is returned again and again.
    :param credit: the credits that each poll reports.
    :param stops: the error of each stop; the others succeed.
    """

    def __init__(
        self,
        *answers: TaskStatus | BrowserActError,
        chance: float = 0.5,
        steps=((),),
        credit=(None,),
        statuses=(),
        stops=(),
        **plan,
    ):
        self.now = START
        self.statuses = list(statuses)
        self.answers = list(answers)
        self.steps: list[tuple[Step, ...]] = list(steps)
        self.credit: list[int | None] = list(credit)
        self.stops: list[BrowserActError] = list(stops)
        self.sleeps: list[float] = []
        self.asked: list[str] = []
        self.logged: list[LogLine] = []
        plan = {"interval": 10.0, "first_poll_at": START + 8.0, "deadline": START + 3600.0, **plan}
        steps = wait_for_end(Wait("7", **plan), lambda: self.now, lambda: chance)
        self.over: WaitEnd = carry_out(steps, self._answer)

    def _answer(self, step: object) -> object:
        if isinstance(step, Sleep):
            self.sleeps.append(step.seconds)
            self.now += step.seconds
            return None
        if isinstance(step, LogLine):
            self.logged.append(step)
            return None
        assert isinstance(step, Call)
        self.asked.append(step.name)
        assert step.params == {"task_id": "7"}
        if step.name == "get-task-status":
            return self.statuses.pop(0)
        if step.name == "stop-task":
            return self.stops.pop(0) if self.stops else None
        assert step.name == "get-task"
        current = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(current, BrowserActError):
            return current
        live = None if current.ended else "https://live.example/7"
        begun = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        used = self.credit.pop(0) if len(self.credit) > 1 else self.credit[0]
        return Task(id="7", status=current, live_url=live, steps=begun, credit=used)

    @property
    def texts(self) -> list[str]:
        return [say.text for say in self.logged]

    @property
    def warnings(self) -> list[str]:
        return [say.text for say in self.logged if say.level >= logging.WARNING]


C, R, P, F = TaskStatus.CREATED, TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.FINISHED
DOWN = ServerError("down", http_status=503)
HANDLES_PAUSES = WaitPolicy(on_paused=OnPaused.RESUME)


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
    world = World(C, interval=120.0, start_by=START + 300.0)
    assert (world.over.end, world.now) == (End.NOT_STARTED, START + 300.0)
    assert world.over.wait.last_seen is C


def test_run_that_has_left_created_is_polled_as_usual_after_start_by():
    world = World(C, R, F, interval=120.0, chance=0.5, start_by=START + 300.0)
    assert world.over.end is End.ENDED
    assert world.sleeps == [9.0, 120.0, 120.0]


def test_start_by_brings_a_poll_forward_and_not_the_first_one():
    assert World(C, R, F, interval=120.0, chance=0.5, start_by=START + 60.0).sleeps == [9.0, 51.0, 120.0]
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
    world = World(R, F, last_seen=R, steps=[(FIRST,), (FIRST, SECOND)], steps_logged=1, step_status=FIRST.status)
    assert world.texts == ["BrowserAct task 7, step 2: Read the rows (running)", "BrowserAct task 7 is finished."]


def test_step_is_logged_again_with_another_status():
    ended = replace(SECOND, status="succeed")
    world = World(R, R, R, F, steps=[(FIRST, SECOND), (FIRST, SECOND), (FIRST, ended), (FIRST, ended)])
    assert [text for text in world.texts if "step 2" in text] == [
        "BrowserAct task 7, step 2: Read the rows (running)",
        "BrowserAct task 7, step 2: Read the rows (succeed)",
    ]


def steps_until(last: int) -> tuple[Step, ...]:
    return tuple(Step(number, "running", "read", None, None) for number in range(1, last + 1))


def test_response_with_a_hundred_thousand_steps_adds_about_fifty_lines_of_limited_length():
    long = Step(7, "s" * 5000, "g" * 5000, None, None)
    world = World(R, R, F, steps=[(long,) * 100_000, (long,) * 100_000])
    assert len(world.texts) == MAX_STEP_LINES + 3
    assert world.texts[MAX_STEP_LINES // 2] == "BrowserAct task 7: ... 99,950 more steps"
    assert max(map(len, world.texts)) < GOAL_LENGTH + STATUS_LENGTH + 60
    assert world.over.wait.steps_logged == 100_000


def test_first_and_last_of_many_new_steps_are_logged():
    world = World(R, R, F, steps=[(FIRST,), steps_until(61)])
    shown = [text for text in world.texts if ", step " in text]
    assert [int(text.split(", step ")[1].split(":")[0]) for text in shown] == [1, *range(2, 27), *range(37, 62)]
    assert "BrowserAct task 7: ... 10 more steps" in world.texts


def test_triggerer_that_takes_over_logs_the_steps_of_a_long_run_again_only_within_the_limit():
    begun = {"began_at": START - 600.0, "first_poll_at": START - 592.0}
    world = World(R, R, F, steps=[steps_until(100_000)], last_seen=R, steps_logged=3, **begun)
    assert len(world.texts) == MAX_STEP_LINES + 2


def test_each_status_change_is_logged_once_with_the_live_view_until_the_end():
    assert World(R, R, P, R, F).texts == [
        "BrowserAct task 7 is running. Live view: https://live.example/7",
        "BrowserAct task 7 is paused. It waits for a person: https://live.example/7",
        "BrowserAct task 7 is running. Live view: https://live.example/7",
        "BrowserAct task 7 is finished.",
    ]


def test_status_that_was_already_logged_is_not_logged_again():
    assert World(R, F, last_seen=R).texts == ["BrowserAct task 7 is finished."]


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
    warnings = [say for say in world.logged if say.level == logging.WARNING]
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
    world = World(R, *[DOWN] * (MIN_FAILED_POLLS - 1), F, interval=900.0, deadline=START + 36_000.0)
    assert world.over.end is End.ENDED
    assert World(R, *[DOWN] * MIN_FAILED_POLLS, F, interval=900.0, deadline=START + 36_000.0).over.end is End.GIVEN_UP


def test_response_that_cannot_be_read_counts_as_a_failed_poll():
    error = UnexpectedResponseError("the id is missing")
    assert World(R, error, F).over.end is End.ENDED
    world = World(R, error, interval=900.0, deadline=START + 36_000.0)
    assert (world.over.end, world.over.error) == (End.GIVEN_UP, error)
    assert len(world.asked) == 1 + MIN_FAILED_POLLS


def test_task_not_found_reported_by_browseract_gives_up_the_wait_at_once():
    world = World(R, TaskNotFoundError("gone", code=10112), F)
    assert world.over.end is End.GIVEN_UP
    assert len(world.asked) == 2


def test_404_from_a_gateway_does_not_end_the_wait():
    world = World(R, TaskNotFoundError("no route", http_status=404), F)
    assert world.over.end is End.ENDED
    assert len(world.asked) == 3


def test_response_too_large_for_the_triggerer_ends_the_wait_by_status_alone():
    large = ResponseTooLargeError("more than 4 MiB")
    world = World(R, large, large, statuses=[R, F])
    assert (world.over.end, world.over.task) == (End.ENDED, Task("7", F, unread="more than 4 MiB"))
    assert world.asked == ["get-task", "get-task", "get-task-status", "get-task", "get-task-status"]


def test_ended_wait_returns_the_last_logged_status_and_step_count():
    world = World(R, R, P, policy=HANDLES_PAUSES, steps=[(), (FIRST, SECOND)])
    assert (world.over.wait.last_seen, world.over.wait.steps_logged) == (P, 2)


@pytest.mark.parametrize(
    ("answers", "plan", "end", "seen"),
    [
        ([R, F], {}, End.ENDED, F),
        ([R, ResponseTooLargeError("x")], {"statuses": [F]}, End.ENDED, F),
        ([R], {"deadline": START + 100.0}, End.DEADLINE, R),
        ([R, DOWN], {"deadline": START + 100.0}, End.DEADLINE, R),
        ([R, DOWN], {}, End.GIVEN_UP, R),
        ([R, TaskStatus.UNKNOWN], {}, End.GIVEN_UP, TaskStatus.UNKNOWN),
        ([P, R], {"policy": HANDLES_PAUSES, "required_action": "q", "pause_known": True}, End.NO_LONGER_PAUSED, R),
        ([P], {"policy": HANDLES_PAUSES}, End.PAUSED, P),
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
        "no longer paused",
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
    answers = [R, *[TaskStatus.UNKNOWN] * (MIN_UNKNOWN_POLLS - 1)]
    assert World(*answers, *answers, F, interval=60.0, deadline=START + 36_000.0).over.end is End.ENDED


def test_unknown_status_gives_up_the_wait_after_enough_polls_and_time():
    patient = World(*[TaskStatus.UNKNOWN] * (MIN_UNKNOWN_POLLS - 1), F)
    assert patient.over.end is End.ENDED
    endless = World(TaskStatus.UNKNOWN)
    assert endless.over.end is End.GIVEN_UP
    # Every 10 seconds.
    assert len(endless.asked) == 61
    assert endless.now - START >= timings.POLL_PATIENCE
    fast = World(TaskStatus.UNKNOWN, interval=60.0)
    assert fast.over.end is End.GIVEN_UP
    assert len(fast.asked) == MIN_UNKNOWN_POLLS


def test_wait_begun_again_after_a_restart_keeps_its_deadline():
    # The wait begins again 90 s after the start, as after a restart of the triggerer.
    world = World(R, began_at=START - 98.0, first_poll_at=START - 90.0, deadline=START + 10.0)
    assert world.over.end is End.DEADLINE
    assert world.now == START + 10.0


def test_wait_begun_after_the_deadline_polls_once_and_takes_the_result():
    world = World(F, began_at=START - 68.0, first_poll_at=START - 60.0, deadline=START - 5.0)
    assert world.over.end is End.ENDED
    assert world.sleeps == [8.0]


def test_first_poll_is_not_moved_forward_by_an_earlier_deadline():
    world = World(R, first_poll_at=START + 8.0, deadline=START + 1.0)
    assert world.over.end is End.DEADLINE
    assert world.now == START + 8.0


def test_polls_failing_at_the_deadline_end_the_wait_as_deadline_with_the_error():
    world = World(R, DOWN, deadline=START + 12.0)
    assert world.over.end is End.DEADLINE
    assert world.over.error is DOWN


def test_long_poll_interval_adds_only_a_short_jitter_to_the_first_poll():
    world = World(F, chance=1.0, interval=120.0, first_poll_at=START + 10.0)
    assert world.sleeps == [10.0 + timings.FIRST_POLL_JITTER]


class TestPauses:
    def test_pause_does_not_end_the_wait_when_pauses_are_not_reported(self):
        assert World(R, P, F).over.end is End.ENDED

    def test_pause_ends_the_wait_once_and_is_not_reported_again(self):
        world = World(R, P, F, policy=HANDLES_PAUSES)
        assert (world.over.end, world.over.task and world.over.task.status) == (End.PAUSED, P)
        assert World(P, P, F, policy=HANDLES_PAUSES, pause_known=True).over.end is End.ENDED

    def test_new_pause_is_reported_after_the_run_has_resumed(self):
        world = World(P, R, P, F, policy=HANDLES_PAUSES, pause_known=True)
        assert (world.over.end, world.asked) == (End.PAUSED, ["get-task"] * 3)

    def test_pause_with_a_required_action_ends_the_wait_when_the_run_resumes(self):
        world = World(P, R, P, F, policy=HANDLES_PAUSES, pause_known=True, required_action="q")
        assert (world.over.end, world.asked) == (End.NO_LONGER_PAUSED, ["get-task"] * 2)
        assert World(P, F, policy=HANDLES_PAUSES, pause_known=True, required_action="q").over.end is End.ENDED

    def test_pause_after_an_unknown_status_is_not_a_new_pause(self):
        world = World(P, TaskStatus.UNKNOWN, P, F, policy=HANDLES_PAUSES, pause_known=True, required_action="q")
        assert world.over.end is End.ENDED

    def test_pause_still_shown_shortly_after_a_resume_is_not_a_new_pause(self):
        assert World(P, P, R, F, policy=HANDLES_PAUSES, pauses_from=START + timings.RESUME_GRACE).over.end is End.ENDED
        assert (
            World(P, P, P, P, F, policy=HANDLES_PAUSES, pauses_from=START + timings.RESUME_GRACE).over.end is End.PAUSED
        )


def capped(cap: int = 100, **policy) -> WaitPolicy:
    return WaitPolicy(max_credits=cap, **policy)


class TestCap:
    NEAR = "BrowserAct task 7 has used {} of 100 credits (max_credits). It is stopped when it uses more than 100."

    STOPPED = "BrowserAct task 7 was stopped, because more credits were used than max_credits=100 allows."

    @pytest.mark.parametrize(
        ("status", "plan", "stopped"),
        [
            (R, {"credit": [100]}, False),
            (R, {"credit": [101]}, True),
            (P, {"credit": [101]}, True),
            (R, {"steps": [steps_until(20)]}, False),
            (R, {"steps": [steps_until(21)]}, True),
            (R, {"steps": [steps_until(21)], "credit": [20]}, True),
            (R, {"steps": [steps_until(3)], "credit": [101]}, True),
            (R, {"steps": [steps_until(21)], "credit": [100], "policy": capped(credits_per_step=0)}, False),
            (R, {"credit": [60], "spent_before": 40}, False),
            (R, {"credit": [61], "spent_before": 40}, True),
            (R, {"credit": [10**6], "policy": WaitPolicy()}, False),
        ],
        ids=[
            "at the cap",
            "above the cap",
            "paused above the cap",
            "steps at the cap",
            "steps above the cap",
            "steps above the reported credits",
            "reported credits above the steps",
            "steps that are not estimated",
            "at the cap with earlier tries",
            "above the cap with earlier tries",
            "no cap",
        ],
    )
    def test_run_is_stopped_at_once_when_it_is_above_the_cap(self, status, plan, stopped):
        world = World(status, F, **{"policy": capped(), **plan})
        assert world.over.end is (End.MAX_CREDITS if stopped else End.ENDED)
        assert world.asked == ["get-task", "stop-task" if stopped else "get-task"]

    @pytest.mark.parametrize("status", [F, TaskStatus.FAILED, TaskStatus.CANCELED])
    def test_ended_run_above_the_cap_is_not_stopped_and_logs_no_warning(self, status):
        world = World(status, credit=[500], policy=capped())
        assert (world.over.end, world.asked, world.warnings) == (End.ENDED, ["get-task"], [])

    def test_warning_is_logged_once_from_80_percent_of_the_cap_on(self):
        world = World(R, R, R, R, credit=[79, 80, 100, 101], policy=capped())
        assert world.warnings == [self.NEAR.format(80), self.STOPPED]
        assert world.over.wait.cap_warned
        assert World(R, F, credit=[100], policy=capped()).warnings == [self.NEAR.format(100)]
        assert World(R, credit=[101], policy=capped()).warnings == [self.STOPPED]
        assert World(R, F, credit=[95], policy=capped(), cap_warned=True).warnings == []

    def test_warning_counts_the_credits_of_earlier_tries(self):
        world = World(R, F, credit=[10], policy=capped(), spent_before=70)
        assert world.warnings == [f"With the 70 credits of earlier tries, {self.NEAR.format(80)}"]

    def test_run_above_the_cap_with_a_required_action_is_stopped(self):
        world = World(P, credit=[101], policy=capped(on_paused=OnPaused.ASK), required_action="q", pause_known=True)
        assert world.over.end is End.MAX_CREDITS

    def test_stop_that_fails_is_tried_at_each_of_three_polls_and_then_left_to_the_worker(self):
        world = World(R, credit=[101], policy=capped(), stops=[DOWN] * MAX_STOPS)
        assert world.over.end is End.MAX_CREDITS
        assert world.asked == ["get-task", "stop-task"] * MAX_STOPS
        assert world.sleeps[1:] == [10.0, 10.0]
        failed = (
            "BrowserAct task 7 could not be stopped (down (HTTP 503)). It may keep running and using credits until you "
            "stop it at https://live.example/7."
        )
        assert world.warnings == [failed] * MAX_STOPS

    def test_stop_that_succeeds_at_the_second_poll_ends_the_wait(self):
        world = World(R, credit=[101], policy=capped(), stops=[DOWN])
        assert world.over.end is End.MAX_CREDITS
        assert world.asked == ["get-task", "stop-task"] * 2
        assert world.warnings[1:] == [self.STOPPED]

    def test_run_that_ends_after_a_failed_stop_ends_the_wait_as_usual(self):
        world = World(R, F, credit=[101], policy=capped(), stops=[DOWN])
        assert (world.over.end, world.over.task and world.over.task.status) == (End.ENDED, F)

    @pytest.mark.parametrize("error", [TaskEndedError("ended", code=10121), TaskNotFoundError("gone", code=10112)])
    def test_stop_of_a_run_that_has_ended_counts_as_successful(self, error):
        world = World(R, credit=[101], policy=capped(), stops=[error])
        assert world.over.end is End.MAX_CREDITS
        assert world.warnings == []

    def test_warning_about_a_run_too_large_to_be_read_is_logged_once_and_the_run_keeps_running(self):
        large = ResponseTooLargeError("The response to get-task is larger than 9 bytes")
        world = World(large, large, F, statuses=[R, R], policy=capped())
        assert world.over.end is End.ENDED
        assert world.warnings == [
            "The credits of BrowserAct task 7 cannot be compared with max_credits=100: The response to get-task is "
            "larger than 9 bytes. Until they can be compared, only timeout stops the run."
        ]
        assert World(large, F, statuses=[R]).warnings == []
        assert World(large, statuses=[F], policy=capped()).warnings == []


def wait_of(**plan) -> Wait:
    return Wait("7", START + 3600.0, **plan)


CALLED_BACK = Wait("7", START + 36_000.0, "0" * 64)
RANDOM = random.Random(7)


def polls_of(length: float, wait: Wait = CALLED_BACK, chance: Callable[[], float] = RANDOM.random) -> list[float]:
    """Return when a run of this length is polled until a poll finds its end, in seconds after the deferral."""
    now, polls = START, []

    def answer(step: object) -> object:
        nonlocal now
        if isinstance(step, Sleep):
            now += step.seconds
        if isinstance(step, Call):
            polls.append(now - START)
            return Task("7", F if polls[-1] >= length else R)
        return None

    over = carry_out(wait_for_end(wait.deferred(START), lambda: now, chance), answer)
    assert over.end is End.ENDED
    return polls


class TestPollsBehindACallback:
    def test_polls_come_after_10_20_40_80_and_160_seconds_and_then_every_120(self):
        assert polls_of(500.0, chance=lambda: 0.5) == [11.0, 22.0, 44.0, 88.0, 176.0, 296.0, 416.0, 536.0]

    def test_run_of_20_seconds_whose_callback_is_lost_is_found_at_most_25_seconds_late(self):
        assert max(polls_of(20.0)[-1] for _ in range(5000)) - 20.0 <= 25.0

    @pytest.mark.parametrize("length", [10.0, 15.0, 20.0, 45.0, 90.0, 170.0, 500.0, 5000.0])
    def test_lost_callback_costs_at_most_about_as_long_as_the_run_took(self, length):
        late = max(polls_of(length)[-1] for _ in range(500)) - length
        assert late <= (1 + JITTER) * min(length, timings.SAFETY_POLL_INTERVAL)

    def test_run_of_20_to_60_seconds_is_polled_at_most_two_and_a_half_times_before_its_callback(self):
        # With the check of the inputs, the start, and a read after each of start and end: 6.5 requests.
        polls = [sum(at < length for at in polls_of(length)) for length in range(20, 61) for _ in range(200)]
        assert sum(polls) / len(polls) <= 2.5

    def test_poll_interval_of_the_user_does_not_grow(self):
        wait = replace(CALLED_BACK, policy=WaitPolicy(33.0))
        assert polls_of(100.0, wait, chance=lambda: 0.5) == [11.0, 44.0, 77.0, 110.0]

    @pytest.mark.parametrize(
        "change",
        [{"callback_missed": True}, {"policy": HANDLES_PAUSES}, {"policy": capped()}],
        ids=["missed callback", "pause ends the wait", "cap"],
    )
    def test_polls_do_not_become_rarer_if_something_has_to_be_found_by_polls(self, change):
        wait = replace(CALLED_BACK, **change)
        assert polls_of(50.0, wait, chance=lambda: 0.5) == [11.0, 21.0, 31.0, 41.0, 51.0]


class TestTakeover:
    """Another triggerer continues with waits that began long ago, or the clock of the triggerer is ahead."""

    BEGUN = {"began_at": START - 3600.0, "first_poll_at": START - 3590.0, "deadline": START + 36_000.0}

    def test_polls_continue_with_the_interval_that_they_had(self):
        assert World(R, R, R, F, interval=120.0, chance=0.5, **self.BEGUN).sleeps[1:] == [120.0] * 3

    @pytest.mark.parametrize("interval", [10.0, 120.0])
    def test_first_polls_of_many_waits_are_spread_over_the_interval(self, interval):
        firsts = [World(F, interval=interval, chance=n / 500, **self.BEGUN).sleeps[0] for n in range(500)]
        busiest = max(sum(at <= other < at + 1.0 for other in firsts) for at in firsts)
        assert busiest <= 500 / interval + 1

    def test_first_poll_comes_soon_if_the_wait_began_a_moment_ago(self):
        begun = {"began_at": START - 9.0, "first_poll_at": START - 1.0}
        assert World(F, chance=1.0, **begun).sleeps == [1.0 + timings.FIRST_POLL_JITTER]

    def test_clock_ahead_does_not_shorten_the_grace_after_a_deferral(self):
        world = World(R, began_at=START - 31.0, first_poll_at=START - 23.0, deadline=START - 10.0)
        assert (world.over.end, world.sleeps) == (End.DEADLINE, [8.0])


@pytest.mark.parametrize(
    ("wait", "interval", "grace", "waits_for"),
    [
        (wait_of(), 10.0, 8.0, WokenBy.POLL),
        (wait_of(callback_token_sha256="0" * 64), 120.0, 10.0, WokenBy.CALLBACK),
        (wait_of(callback_token_sha256="0" * 64, callback_missed=True), 10.0, 10.0, WokenBy.CALLBACK),
        (wait_of(callback_token_sha256="0" * 64, policy=HANDLES_PAUSES), 10.0, 10.0, WokenBy.CALLBACK),
        (wait_of(callback_token_sha256="0" * 64, policy=WaitPolicy(max_credits=9)), 10.0, 10.0, WokenBy.CALLBACK),
        (wait_of(callback_token_sha256="0" * 64, policy=WaitPolicy(7.0)), 7.0, 10.0, WokenBy.CALLBACK),
        (wait_of(policy=WaitPolicy(7.0)), 7.0, 8.0, WokenBy.POLL),
        (wait_of(callback_token_sha256="0" * 64, required_action="q"), 10.0, 10.0, WokenBy.PERSON),
    ],
    ids=[
        "polls",
        "callback",
        "missed callback",
        "pauses",
        "cap",
        "own interval, callback",
        "own interval",
        "Required Action",
    ],
)
def test_deferral_polls_as_often_as_its_end_must_be_found_by_polls(wait, interval, grace, waits_for):
    begun = wait.deferred(START)
    assert (begun.interval, begun.first_poll_at - START, begun.began_at) == (interval, grace, START)
    assert begun.waits_for is waits_for
    assert begun.pause_known == (waits_for is WokenBy.PERSON)


def test_worker_polls_first_after_one_interval_or_at_the_deadline():
    assert wait_of(callback_token_sha256="0" * 64).begun(START).first_poll_at == START + 10.0
    assert Wait("7", START + 3.0).begun(START).first_poll_at == START + 3.0


@pytest.mark.parametrize(
    ("policy", "ends"),
    [
        (WaitPolicy(), False),
        (WaitPolicy(on_paused=OnPaused.ASK), True),
        (WaitPolicy(on_paused=OnPaused.FAIL), True),
        (HANDLES_PAUSES, True),
        (WaitPolicy(notifies_of_pauses=True), True),
    ],
    ids=["wait", "ask", "fail", "resume", "notifier"],
)
def test_pause_ends_the_wait_only_if_a_worker_has_something_to_do(policy, ends):
    assert World(P, F, policy=policy).over.end is (End.PAUSED if ends else End.ENDED)


def test_wait_survives_a_json_round_trip():
    full = Wait(
        "7",
        START,
        "0" * 64,
        start_by=START,
        policy=WaitPolicy(5.0, OnPaused.ASK, True, 60.0, max_credits=100, credits_per_step=0),
        last_seen=P,
        steps_logged=3,
        pauses=2,
        pause_known=True,
        pauses_from=START,
        required_action="q",
        answer_by=START,
        callbacks_in_vain=1,
        callback_missed=True,
        began_at=START,
        first_poll_at=START,
        interval=5.0,
        spent_before=40,
        cap_warned=True,
    )
    for wait in (full, Wait("7", START)):
        assert from_json(Wait, json.loads(json.dumps(to_json(wait)))) == wait


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"browseract_task_id": 7}, "browseract_task_id"),
        ({"browseract_task_id": ""}, "browseract_task_id"),
        ({"deadline": None}, "deadline"),
        ({"deadline": True}, "deadline"),
        ({"deadline": "9.5"}, "deadline"),
        ({"deadline": float("nan")}, "deadline"),
        ({"callback_token_sha256": 7}, "callback_token_sha256"),
        ({"pauses": -1}, "pauses"),
        ({"pauses": True}, "pauses"),
        ({"steps_logged": "3"}, "steps_logged"),
        ({"last_seen": 7}, "last_seen"),
        ({"last_seen": "teleported"}, "last_seen"),
        ({"interval": 0}, "interval"),
        ({"policy": {"on_paused": "shrug"}}, "policy.on_paused"),
        ({"policy": None}, "policy"),
        ({"interval": float("inf")}, "interval"),
    ],
    ids=str,
)
def test_invalid_stored_wait_is_refused_by_field_name(change, named):
    with pytest.raises(ValueError, match=f"^{named}: "):
        from_json(Wait, {**to_json(Wait("7", START)), **change})


@pytest.mark.parametrize("value", [None, [], "wait", {}, {"deadline": START}, {1}], ids=str)
def test_stored_value_that_is_no_wait_is_refused(value):
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ by what is missing
        from_json(Wait, value)


def test_fields_of_a_newer_version_in_a_stored_wait_are_ignored():
    stored = to_json(Wait("7", START))
    newer = {**stored, "colour": "blue", "policy": {**stored["policy"], "mood": "calm"}}
    assert from_json(Wait, newer) == Wait("7", START)
