"""What each poll makes of a wait, and when the next poll comes."""

import json
import logging
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api.models import ApiVersion, Step, Task, TaskState, TaskStatus
from airflow_provider_browseract.runs import timings, wait
from airflow_provider_browseract.runs.report import GOAL_LENGTH, MAX_STEP_LINES, STATUS_LENGTH, WHY_UNKNOWN
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.wait import FOREVER, MIN_FAILED_POLLS, End, Wait, WokenBy, poll_run, why_unread
from tests.helpers.cases import cases
from tests.helpers.steps import carry_out, replace

START = 1_000_000.0
LIVE = "https://live.example/7"
R, P, F = TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.FINISHED
UNKNOWN, FAILED, CANCELED = TaskStatus.UNKNOWN, TaskStatus.FAILED, TaskStatus.CANCELED
DOWN = errors.ServerError("down", http_status=503)
REFUSED = errors.AuthenticationError("Invalid authorization", code=401, http_status=401)
GONE = errors.TaskNotFoundError("gone", code=10112)
ACTION: dict[str, Any] = {"watch_pauses": True, "required_action": "q", "ignore_pause_until": FOREVER}
WATCHES = {"watch_pauses": True}


class Log(logging.Logger):
    """Keeps its lines."""

    def __init__(self) -> None:
        super().__init__("wait")
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def handle(self, record: logging.LogRecord) -> None:
        (self.lines if record.levelno == logging.INFO else self.warnings).append(record.getMessage())


class Polls:
    """What a wait that polls every 10 seconds makes of a list of responses; the last one is returned again and again.

    :param fields: fields of the wait. Moments are in seconds from the start.
    """

    def __init__(self, *answers: Any, steps: Any = ((),), credit: Any = (None,), left_out: int = 0, **fields: Any):
        self.now, self.log, self.number = START, Log(), 0
        left = [list(each) for each in (answers, steps, credit)]
        for name in {"deadline", "failing_since"} & fields.keys():
            fields[name] += START
        if 0 < fields.get("ignore_pause_until", 0) < FOREVER:
            fields["ignore_pause_until"] += START
        self.wait = Wait("7", **{"deadline": START + 3600.0, **fields})
        self.end: End | None = None
        while self.end is None:
            status, begun, used = (each.pop(0) if len(each) > 1 else each[0] for each in left)
            seen = status
            if isinstance(status, TaskStatus):
                seen = Task(id="7", status=status, live_url=LIVE, steps=begun, steps_left_out=left_out, credit=used)
            self.number += 1
            assert self.number < 1000
            # A deferral stores the wait.
            self.wait, self.end = from_json(Wait, json.loads(json.dumps(to_json(self.wait)))).after_poll(
                seen, self.now, self.log
            )
            if self.end is None:
                self.now += 10.0

    @property
    def took(self) -> float:
        return self.now - START


@pytest.mark.parametrize("status", TaskStatus)
def test_wait_lasts_until_the_end_of_the_run_or_the_deadline(status):
    polls = Polls(R, status, deadline=100.0)
    assert (polls.end, polls.wait.last_seen) == (End.ENDED if status.ended else End.DEADLINE, status)
    assert polls.took == (10.0 if status.ended else 100.0)


FIRST = Step(number=1, status="running", goal="Open the page")
SECOND = Step(number=2, status="running", goal="Read the rows")
IS_RUNNING, IS_PAUSED = f"Status: running. Live view: {LIVE}", f"Status: paused. It waits for a person: {LIVE}"
STEP_1, STEP_2 = "Step 1: Open the page (running)", "Step 2: Read the rows (running)"
GROWING = [(FIRST,), (FIRST, SECOND)]


@cases(
    ("new steps", (R, R, R, F), {"steps": [(), *GROWING]}, [IS_RUNNING, STEP_1, STEP_2]),
    ("steps that were logged before", (R, F), {"last_seen": R, "steps": GROWING, "steps_logged": 1}, [STEP_2]),
    ("goals may quote secrets", (F,), {"steps": [(FIRST,)], "hide_goals": True}, ["Step 1: *** (running)"]),
    ("statuses", (R, R, P, R, F), {}, [IS_RUNNING, IS_PAUSED, IS_RUNNING]),
    ("status that was logged before", (R, F), {"last_seen": R}, []),
)
def test_each_step_and_status_is_logged_once(answers, fields, texts):
    assert Polls(*answers, **fields).log.lines == texts


def steps_until(last: int) -> tuple[Step, ...]:
    return tuple(Step(number=number, status="running", goal="read") for number in range(1, last + 1))


def test_response_with_a_hundred_thousand_steps_adds_about_fifty_lines_of_limited_length():
    long = Step(number=7, status="s" * 5000, goal="g" * 5000)
    polls = Polls(R, R, F, steps=[(long,) * 100_000, (long,) * 100_000])
    lines = polls.log.lines
    assert len(lines) == MAX_STEP_LINES + 2
    assert lines[0] == "... 99,950 more steps"
    assert max(map(len, lines)) < GOAL_LENGTH + STATUS_LENGTH + 60
    assert polls.wait.steps_logged == 100_000


NOT_BROWSERACTS_WORD_ABOUT_THE_TASK = cases(
    "error",
    {
        "503": DOWN,
        "404 of a gateway": errors.TaskNotFoundError("no route", http_status=404),
        "a refused key": REFUSED,
        "403 of the API": errors.PermissionDeniedError("no", code=99002),
        "an unknown status": UNKNOWN,
    },
)


@NOT_BROWSERACTS_WORD_ABOUT_THE_TASK
def test_polls_failing_for_under_ten_minutes_are_logged_and_do_not_end_the_wait(error):
    polls = Polls(*[error] * 50, R, *[error] * 50, F)
    assert polls.end is End.ENDED
    if error is not UNKNOWN:
        assert len(polls.log.warnings) == 100
        assert polls.log.warnings[49].startswith("A poll of the run failed, 50 in a row: ")


@NOT_BROWSERACTS_WORD_ABOUT_THE_TASK
def test_polls_failing_for_ten_minutes_give_up_the_wait(error):
    polls = Polls(R, error)
    assert (polls.end, polls.took) == (End.GIVEN_UP, 10.0 + timings.POLL_PATIENCE)
    # However long the time is, at least five polls must have failed.
    rare: dict[str, Any] = {"failing_since": -9000.0, "failed_polls": 3}
    assert Polls(error, F, **rare).end is End.ENDED
    assert Polls(error, F, **{**rare, "failed_polls": 4}).end is End.GIVEN_UP


@pytest.mark.parametrize("fields", [{}, ACTION], ids=["", "person is asked"])
def test_task_not_found_reported_by_browseract_gives_up_the_wait_at_once(fields):
    polls = Polls(P, GONE, F, **fields)
    assert (polls.end, polls.number) == (End.GIVEN_UP, 2)


@cases(
    ("person is asked", (P, DOWN), {**ACTION, "deadline": 3000.0}, 3000.0),
    ("deadline", (R, DOWN), {"deadline": 100.0}, 100.0),
    # The run has ended, so it has a result, and only needs to be read.
    ("result", (DOWN,), {"last_seen": F, "deadline": 0.0}, timings.TIMEOUT_BACKSTOP),
    ("stopped at its cap", (DOWN,), {"over_cap": True, "deadline": 0.0}, timings.TIMEOUT_BACKSTOP),
)
def test_polls_fail_until_the_deadline(answers, fields, took):
    polls = Polls(*answers, **fields)
    assert (polls.took, polls.end) == (took, End.GIVEN_UP if took == timings.TIMEOUT_BACKSTOP else End.DEADLINE)


@cases(
    ("not reported", (R, P, F), {}, End.ENDED, 3),
    ("ends the wait", (R, P, F), WATCHES, End.PAUSED, 2),
    ("known", (P, P, F), {**WATCHES, "ignore_pause_until": FOREVER}, End.ENDED, 3),
    ("new", (P, R, P, F), {**WATCHES, "ignore_pause_until": FOREVER}, End.PAUSED, 3),
    ("Required Action, run goes on", (P, R, P, F), ACTION, End.NO_LONGER_PAUSED, 2),
    ("Required Action, run ends", (P, F), ACTION, End.ENDED, 2),
    ("after an unknown status", (P, UNKNOWN, P, F), ACTION, End.ENDED, 4),
    ("still shown after a resume", (P, P, R, F), {**WATCHES, "ignore_pause_until": 30.0}, End.ENDED, 4),
    ("long after a resume", (P, P, P, P, F), {**WATCHES, "ignore_pause_until": 30.0}, End.PAUSED, 4),
    # Nobody is asked about a run whose time is over.
    ("after the deadline", (P, F), {**WATCHES, "deadline": 0.0}, End.DEADLINE, 1),
    ("Required Action after the deadline", (P, F), {**ACTION, "deadline": 0.0}, End.DEADLINE, 1),
)
def test_pause_ends_the_wait_once_and_only_if_a_worker_has_something_to_do(answers, fields, end, polls):
    found = Polls(*answers, **fields)
    assert (found.end, found.number) == (end, polls)


@cases(
    ("at the cap", R, {"credit": [100]}, False),
    ("above the cap", R, {"credit": [101]}, True),
    ("Required Action above the cap", P, {**ACTION, "credit": [101]}, True),
    ("steps at the cap", R, {"steps": [steps_until(20)]}, False),
    ("steps above the reported credits", R, {"steps": [steps_until(21)], "credit": [20]}, True),
    ("reported credits above the steps", R, {"steps": [steps_until(3)], "credit": [101]}, True),
    ("steps that were left out", R, {"steps": [steps_until(1)], "left_out": 20}, True),
    ("at the cap with earlier tries", R, {"credit": [60], "spent_before": 40}, False),
    ("above the cap with earlier tries", R, {"credit": [61], "spent_before": 40}, True),
    ("no cap", R, {"credit": [10**6], "max_credits": None}, False),
    # Its credits do not show why it was stopped.
    ("was stopped", R, {"credit": [None], "over_cap": True}, True),
)
def test_run_above_the_cap_ends_the_wait_at_once(status, fields, stopped):
    polls = Polls(status, F, **{"max_credits": 100, "poll_interval": 66.0, **fields})
    assert (polls.end, polls.number) == ((End.MAX_CREDITS, 1) if stopped else (End.ENDED, 2))
    assert polls.wait.over_cap is stopped
    # Until it is stopped, it is polled soon.
    assert polls.wait.longest_pause == (10.0 if stopped else 66.0)


@pytest.mark.parametrize("status", [F, FAILED, CANCELED])
def test_ended_run_above_the_cap_has_ended(status):
    assert Polls(status, credit=[500], max_credits=100).end is End.ENDED


def test_run_too_large_to_be_read_has_no_credits_to_compare_with_the_cap_which_is_logged_once():
    large = Task(id="7", status=R, unread="The response to get-task is larger than 9 bytes")
    assert Polls(large, large, F, max_credits=100).log.warnings == [
        "The credits of the run cannot be compared with max_credits=100: The response to get-task is larger "
        "than 9 bytes. Until they can be compared, only timeout stops the run."
    ]
    assert Polls(large, F).log.warnings == []


def test_run_whose_id_a_person_has_given_and_that_is_too_large_has_the_version_that_knows_it():
    unknown, large = errors.TaskNotFoundError("no such task", code=10112), errors.ResponseTooLargeError("large")
    answers = {"get-task": unknown, "query-run": large, "query-run-status": TaskState(status=R)}
    seen = carry_out(poll_run("7", None), lambda call: answers[call.name])
    assert (seen.status, seen.api_version) == (R, ApiVersion.V3)


def test_wait_without_a_status_has_a_reason_and_a_remedy():
    look = "Check in the BrowserAct dashboard whether the run still exists."
    network = f"Check the network and the API key of the connection. {look}"
    assert why_unread(DOWN) == ("The status of the run could not be read: down.", network)
    assert why_unread(Task(id="7", status=UNKNOWN)) == ("The status of the run stayed 'unknown'.", look)
    assert why_unread(GONE) == ("BrowserAct does not know the run with this API key: gone.", WHY_UNKNOWN)


CALLED_BACK = Wait("7", START + 36_000.0, callback_token_sha256="0" * 64, began_at=START)
NO_CALLBACK: dict[str, Any] = {"callback_token_sha256": None}


@pytest.fixture
def middle(monkeypatch) -> None:
    """Let every random number be in the middle of its range."""
    monkeypatch.setattr(random, "random", lambda: 0.5)
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)


def polls_of(length: float, waits: Wait = CALLED_BACK) -> list[float]:
    """Return when a run of this length is polled until a poll finds its end, in seconds after the deferral."""
    polls = [waits.first_pause(START)]
    while polls[-1] < length:
        polls.append(polls[-1] + waits.pause(START + polls[-1]))
    return polls


class TestPollsBehindACallback:
    @cases(
        ("nothing else", {}, [13.0, 26.0, 52.0, 104.0, 208.0, 328.0, 448.0, 568.0]),
        ("own interval", {"poll_interval": 66.0}, [13.0, *(13.0 + 66.0 * each for each in range(1, 9))]),
        ("pause ends the wait", WATCHES, [13.0 + 10.0 * each for each in range(50)]),
    )
    @pytest.mark.usefixtures("middle")
    def test_polls_become_rarer_unless_something_has_to_be_found_by_polls(self, change, polls):
        assert polls_of(500.0, replace(CALLED_BACK, **change)) == polls

    @pytest.mark.parametrize("length", [10.0, 15.0, 20.0, 45.0, 90.0, 170.0, 500.0, 5000.0])
    def test_lost_callback_costs_at_most_about_as_long_as_the_run_took(self, length):
        late = max(polls_of(length)[-1] for _ in range(500)) - length
        assert late <= (1 + wait.JITTER) * min(length, timings.SAFETY_POLL_INTERVAL)


@cases(
    ("after the grace", NO_CALLBACK, 0.0, 11.0),
    ("after the grace with a callback", {}, 0.0, 13.0),
    ("soon after the start", NO_CALLBACK, 11.0, 11.0 - 10.0 + 1.0),
    # The grace after a deferral is not shorter.
    ("clock ahead, or another triggerer", NO_CALLBACK, 31.0, 10.0 + 5.0),
    ("takeover long after the start", NO_CALLBACK, 3600.0, 10.0 + 5.0),
    ("takeover with a callback", {}, 3600.0, 12.0 + 60.0),
    ("deadline before the first poll", {**NO_CALLBACK, "deadline": START}, 0.0, 10.0),
    ("takeover just before the deadline", {"poll_interval": 3600.0, "deadline": START + 3700.0}, 3600.0, 12.0 + 50.0),
    ("takeover while a person is asked", {"poll_interval": 3600.0, "required_action": "q"}, 3600.0, 12.0 + 2.5),
)
@pytest.mark.usefixtures("middle")
def test_first_poll_comes_after_the_grace(fields, now, pause):
    assert replace(CALLED_BACK, **fields).first_pause(START + now) == pause


@pytest.mark.usefixtures("middle")
def test_no_poll_passes_a_limit():
    assert replace(CALLED_BACK, deadline=START + 103.0).pause(START + 100.0) == 3.0
    assert replace(CALLED_BACK, answer_by=START + 102.0).pause(START + 100.0) == 2.0
    # After the deadline, the result of a run that has ended is read at the usual pace.
    assert replace(CALLED_BACK, deadline=START).pause(START + 5.0) == 10.0


@pytest.mark.parametrize(("token", "pause"), [(None, 10.0), ("0" * 64, 120.0)])
def test_first_polls_of_many_waits_that_another_triggerer_takes_over_are_spread_over_a_pause(token, pause, monkeypatch):
    firsts = []
    for number in range(500):
        monkeypatch.setattr(random, "random", lambda: number / 500)  # noqa: B023
        firsts.append(replace(CALLED_BACK, callback_token_sha256=token).first_pause(START + 3600.0))
    busiest = max(sum(at <= other < at + 1.0 for other in firsts) for at in firsts)
    assert busiest <= 500 / pause + 1


@cases(
    ("polls", NO_CALLBACK, 10.0, WokenBy.POLL),
    ("own interval", {**NO_CALLBACK, "poll_interval": 7.0}, 7.0, WokenBy.POLL),
    ("callback", {}, 120.0, WokenBy.CALLBACK),
    ("pauses", WATCHES, 10.0, WokenBy.CALLBACK),
    ("cap", {"max_credits": 100}, 10.0, WokenBy.CALLBACK),
    ("Required Action", {"required_action": "q"}, 10.0, WokenBy.PERSON),
)
def test_deferral_polls_as_often_as_its_end_must_be_found_by_polls(fields, longest, waits_for):
    waits = replace(CALLED_BACK, **fields)
    assert (waits.longest_pause, waits.waits_for) == (longest, waits_for)


SEEN = st.sampled_from([*TaskStatus, DOWN, REFUSED])


@given(
    answers=st.lists(SEEN, max_size=40),
    pause=st.sampled_from([3.0, 10.0, 120.0]),
    fields=st.fixed_dictionaries({"watch_pauses": st.booleans(), "max_credits": st.none() | st.just(50)}),
)
def test_any_history_of_polls_ends_only_for_a_reason(answers, pause, fields):
    """Whatever the polls return, through deferrals and answers, no end is invented, and none is passed over."""
    waits, now, failing_since, log = Wait("7", START + 1000.0, **fields), START, None, Log()
    for each in answers:
        seen = Task(id="7", status=each, credit=10) if isinstance(each, TaskStatus) else each
        failing = not isinstance(each, TaskStatus) or each is UNKNOWN
        failing_since = (now if failing_since is None else failing_since) if failing else None
        waits, end = from_json(Wait, to_json(waits)).after_poll(seen, now, log)
        known = isinstance(each, TaskStatus) and each.ended
        assert (end is End.ENDED) == known
        assert (waits.failed_polls > 0) == failing
        if end is End.GIVEN_UP:
            assert failing_since is not None
            assert waits.failed_polls >= MIN_FAILED_POLLS
            assert now - failing_since >= timings.POLL_PATIENCE
        if end is End.PAUSED:
            assert (each, waits.watch_pauses) == (P, True)
            waits = replace(waits, **ACTION)
        elif end is End.NO_LONGER_PAUSED:
            assert waits.required_action is not None
            waits = waits.unasked()
        elif end is not None:
            return
        assert now < START + 1000.0 or end is not None
        now += pause
