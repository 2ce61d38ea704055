"""Wait for the end of a run: what a wait is, when to poll next, and what each response means.

:func:`wait_for_end` does no I/O and does not read the clock itself. It yields the next step and is sent the result, so
a worker and the triggerer wait in exactly the same way. ``clock`` and ``now`` are in seconds since the epoch, and
``chance`` returns a random number from 0 to 1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, TypeAlias

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, Task, TaskState, TaskStatus, Word
from airflow_provider_browseract.api.settings import CREDITS_PER_STEP
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.exceptions import (
    NOTHING_TO_STOP,
    BrowserActError,
    NotFoundError,
    ResponseTooLargeError,
    TaskNotFoundError,
)
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.cap import WARN_FROM, credits_of, near_cap_line, unread_credits_line
from airflow_provider_browseract.runs.options import Answer, OnPaused
from airflow_provider_browseract.runs.report import log_url, not_stopped, status_line, status_of, step_lines
from airflow_provider_browseract.runs.steps import LogLine, Sleep
from airflow_provider_browseract.runs.stored import Count, Moment, Seconds, Text

JITTER = 0.2
"""Fraction of the poll interval that is random, so that runs that started together are not polled together."""

MIN_FAILED_POLLS = 5
"""How many polls in a row must have failed before the wait is given up. Each was already retried by the client."""

MIN_UNKNOWN_POLLS = 30
"""How many polls in a row must have shown the status ``unknown`` before the wait is given up."""

MAX_CALLBACKS_IN_VAIN = 5
"""How many callbacks may resume a task instance whose run has not ended. Further callbacks are ignored. Otherwise,
anyone who knows the address could start workers forever."""


MAX_STOPS = 3
"""How many polls try to stop a run that has used more than ``max_credits``. After that, a worker tries."""


class End(Word):
    """How a wait ended."""

    ENDED = "ended"
    """The run has ended with any status."""

    DEADLINE = "deadline"
    """The time allowed for the run is over; the run is still running."""

    NOT_STARTED = "not_started"
    """The run did not leave the status ``created`` in the time allowed for it."""

    PAUSED = "paused"
    """The run waits for a person, and a worker has to do something about it."""

    ANSWERED = "answered"
    """The Required Action of the paused run was answered, or the default answer applies."""

    NO_LONGER_PAUSED = "no_longer_paused"
    """The run left its pause before the Required Action was answered."""

    MAX_CREDITS = "max_credits"
    """The run has used more credits than ``max_credits`` allows, and was stopped if possible."""

    GIVEN_UP = "given_up"
    """The status could not be read. The run may still be running."""


class WokenBy(Word):
    """What ended a wait."""

    POLL = "poll"
    """A poll of the trigger."""

    CALLBACK = "callback"
    """BrowserAct's callback."""

    PERSON = "person"
    """A person's answer, or the default because there was none in time."""


@dataclass(frozen=True)
class WaitPolicy:
    """The settings of a wait, which do not depend on the run.

    :param poll_interval: seconds between two polls; None for the default of the kind of wait.
    :param notifies_of_pauses: a worker must call ``on_paused_callback`` when the run pauses.
    :param answer_timeout: seconds to wait for an answer to a Required Action; None for as long as the run may take.
    :param answer_default: the answer that applies if nobody answers in that time.
    :param max_credits: credits that all runs of the task instance may use together; None for no cap.
    :param credits_per_step: credits that a step costs, which count while BrowserAct reports fewer; 0
        to count only the credits that it reports.
    :param hide_goals: do not log the goals of steps: they may quote secret inputs, which this process does not know.
    """

    poll_interval: Seconds | None = None
    on_paused: OnPaused = OnPaused.WAIT
    notifies_of_pauses: bool = False
    answer_timeout: Seconds | None = None
    answer_default: Answer = Answer.STOP
    show_live_view: bool = True
    hide_goals: bool = False
    max_credits: Count | None = None
    credits_per_step: Count = CREDITS_PER_STEP

    @property
    def pause_ends_wait(self) -> bool:
        """Whether a worker has to do something when the run pauses."""
        return self.on_paused is not OnPaused.WAIT or self.notifies_of_pauses


@dataclass(frozen=True)
class Wait:
    """A wait for the end of a run. The trigger stores it, the callback route reads it, and each deferral passes it on.

    All moments are absolute, in seconds since the epoch, so a triggerer that takes over continues with the same limits.

    :param deadline: moment at which the run's time is over.
    :param callback_token_sha256: digest of the token with which a callback may end the wait; None without callbacks.
    :param start_by: moment by which the run must leave the status ``created``; None for no such limit.
    :param key_digest: digest of the API key, whose queue gets the slot of the run; None if an older version has stored
        the wait.
    :param last_seen: the last status in the log; None before the first.
    :param steps_logged: how many steps of the run are in the log.
    :param step_status: the status with which the last of them is in the log.
    :param pauses: how many pauses of the run a worker has handled.
    :param pause_known: the current pause of the run has already been handled.
    :param pauses_from: moment before which no pause ends the wait.
    :param required_action: id of the open Required Action, if there is one. Its answer ends the wait, and so does the
        end of the pause.
    :param answer_by: moment at which the default answer applies; None for no such limit.
    :param callbacks_in_vain: how many callbacks have resumed the task instance although the run had not ended.
    :param callback_missed: a poll found the end of the run before a callback, so the next wait polls as often as one
        without callbacks.
    :param began_at: moment at which the wait began.
    :param first_poll_at: moment of the first poll. It distinguishes the waits of a run.
    :param interval: seconds between two polls, or at most so many while the polls become rarer (:meth:`until_next`).
    :param api_version: version of the API that has started the run; None if a person has given the id, and no poll has
        found the run yet.
    :param spent_before: credits that earlier runs of the task instance have used.
    :param cap_warned: the log has a warning about ``max_credits``.
    :param source_name: the name of the workflow, bot or template, if it is known.
    :param max_tries: how many tries Airflow allowed the task instance, minus one, when its try began. A clear increases
        this number, and a retry does not. None if an older version has stored the wait.
    """

    browseract_task_id: Text
    deadline: Moment
    callback_token_sha256: Text | None = None
    start_by: Moment | None = None
    policy: WaitPolicy = field(default_factory=WaitPolicy)
    key_digest: Text | None = None
    last_seen: TaskStatus | None = None
    steps_logged: Count = 0
    step_status: str | None = None
    pauses: Count = 0
    pause_known: bool = False
    pauses_from: Moment = 0.0
    required_action: Text | None = None
    answer_by: Moment | None = None
    callbacks_in_vain: Count = 0
    callback_missed: bool = False
    began_at: Moment = 0.0
    first_poll_at: Moment = 0.0
    interval: Seconds = timings.DEFAULT_POLL_INTERVAL
    api_version: ApiVersion | None = ApiVersion.V2
    spent_before: Count = 0
    cap_warned: bool = False
    source_name: Text | None = None
    max_tries: Count | None = None

    @property
    def api(self) -> ModuleType:
        """The calls of the version of the API that has started the run."""
        return APIS[self.api_version or ApiVersion.V2]

    @property
    def waits_for(self) -> WokenBy:
        """What is expected to end the wait."""
        if self.required_action is not None:
            return WokenBy.PERSON
        return WokenBy.POLL if self.callback_token_sha256 is None else WokenBy.CALLBACK

    def deferred(self, now: float) -> Wait:
        """Return the wait as it begins with a deferral."""
        only_polls = self.waits_for is not WokenBy.CALLBACK
        policy = self.policy
        often = only_polls or self.callback_missed or policy.pause_ends_wait or policy.max_credits is not None
        interval = timings.DEFAULT_POLL_INTERVAL if often else timings.SAFETY_POLL_INTERVAL
        grace = timings.CORE_RACE_GRACE + (0.0 if self.waits_for is WokenBy.POLL else timings.CALLBACK_GRACE)
        return self._begun(now, interval, now + grace)

    def begun(self, now: float) -> Wait:
        """Return the wait as it begins in a worker."""
        wait = self._begun(now, timings.DEFAULT_POLL_INTERVAL, now)
        return replace(wait, first_poll_at=min(now + wait.interval, self.deadline))

    def _begun(self, now: float, interval: float, first_poll_at: float) -> Wait:
        given = self.policy.poll_interval
        return replace(
            self,
            began_at=now,
            first_poll_at=first_poll_at,
            interval=interval if given is None else given,
            pause_known=self.pause_known or self.required_action is not None,
        )

    def asking(self, required_action: str) -> Wait:
        """Return the wait with an open Required Action."""
        return replace(self, required_action=required_action, pause_known=True)

    def unasked(self) -> Wait:
        """Return the wait without a Required Action. The run counts as not paused until a poll shows otherwise."""
        return replace(self, required_action=None, answer_by=None, pause_known=False)

    def until_next(self, now: float) -> float:
        """Return the seconds between a poll and the next one.

        While a callback is expected, the next poll comes when the wait has taken twice as long as now: after 10, 20,
        40, 80 and 160 seconds, and then every 120. So a lost callback costs at most about as much time as the run has
        taken. The moment at which the wait began is stored, so a triggerer that takes over continues like that.
        """
        if self.policy.poll_interval is not None:
            return self.interval
        return min(self.interval, max(timings.DEFAULT_POLL_INTERVAL, now - self.began_at))

    def next_limit(self, now: float) -> float:
        """Return the next moment at which the wait can end without an end of the run."""
        may_be_created = self.last_seen in (None, TaskStatus.CREATED)
        if self.start_by is not None and self.start_by > now and may_be_created:
            return min(self.start_by, self.deadline)
        return self.deadline

    def credits_used(self, task: Task) -> int:
        """Return the credits that the runs of the task instance have used together, as far as is known."""
        return self.spent_before + credits_of(task, self.policy.credits_per_step)

    def is_over_cap(self, task: Task) -> bool:
        """Return whether the runs of the task instance have used more than ``max_credits``."""
        return self.policy.max_credits is not None and self.credits_used(task) > self.policy.max_credits

    def news(self, task: Task) -> tuple[list[str], Wait]:
        """Return the lines about a run that are not in the log yet, and the wait that includes them.

        A step that has another status now than in the log is logged again. The number of lines is limited for each
        poll. The stored arguments of a trigger never change, so a triggerer that takes over logs the steps since the
        deferral again: once, and within the same limit.
        """
        number, status = self.steps_logged, self.step_status
        # With steps left out, the position of a step does not tell its number.
        if 0 < number <= len(task.steps) and not task.steps_left_out and status_of(task.steps[number - 1]) != status:
            number -= 1
        lines = list(step_lines(task, number, hide_goals=self.policy.hide_goals))
        if task.status is not self.last_seen:
            lines.append(status_line(task))
        if task.steps:
            number, status = max(self.steps_logged, task.step_count), status_of(task.steps[-1])
        still_paused = self.pause_known and task.status in (TaskStatus.PAUSED, TaskStatus.UNKNOWN)
        return lines, replace(
            self,
            last_seen=task.status,
            steps_logged=number,
            step_status=status,
            pause_known=still_paused,
            api_version=self.api_version or task.api_version,
        )


@dataclass(frozen=True)
class WaitEnd:
    """The end of a wait.

    :param wait: the wait, including the lines in the log by now.
    :param task: the run as the API returned it last; None if it was never read.
    :param error: why the status could not be read, if so.
    """

    end: End
    wait: Wait
    task: Task | None = None
    error: BrowserActError | None = None


Steps: TypeAlias = "Generator[Sleep | LogLine | Call[Any], Any, WaitEnd]"
"""Steps to execute. The generator is sent the result of a call, or its error is thrown in."""


@dataclass
class _Streak:
    """Consecutive polls with the same outcome."""

    number: int = 0
    since: float = 0.0

    def add(self, now: float) -> None:
        if self.number == 0:
            self.since = now
        self.number += 1

    def lasts(self, number: int, now: float) -> bool:
        """Return whether there are at least this many polls, over a time that is long enough to give up the wait."""
        return self.number >= number and now - self.since >= timings.POLL_PATIENCE


def wait_for_end(wait: Wait, clock: Callable[[], float], chance: Callable[[], float]) -> Steps:
    """Wait until a run has ended, its time is over, or its status cannot be read.

    Each poll reads the whole task, so that one request returns the status, the steps for the log, and finally the
    result. One failed poll, or one unreadable response, is not a failed run. The wait is given up only after at least
    :data:`MIN_FAILED_POLLS` consecutive failures over at least ``timings.POLL_PATIENCE`` seconds, and never as a
    success. If BrowserAct itself responds that there is no such task, the wait ends at once.
    """
    task: Task | None = None
    failed, unknown, stops = _Streak(), _Streak(), 0
    earliest, spread = _first_poll(wait, clock())
    poll_at = earliest + spread * chance()
    while True:
        now = clock()
        # The first poll is never earlier, even if a limit is.
        yield Sleep(max(0.0, min(poll_at, max(wait.next_limit(now), earliest)) - now))
        poll_at = clock() + wait.until_next(clock()) * (1 + JITTER * (2 * chance() - 1))
        try:
            task = yield from poll_run(wait.browseract_task_id, wait.api_version)
        except BrowserActError as error:
            failed.add(clock())
            if is_hopeless(error) or failed.lasts(MIN_FAILED_POLLS, clock()):
                return WaitEnd(End.GIVEN_UP, wait, task, error)
            if clock() >= wait.deadline:
                return WaitEnd(End.DEADLINE, wait, task, error)
            yield LogLine(
                f"Poll of BrowserAct task {wait.browseract_task_id} failed, {failed.number} in a row: {error.brief}",
                logging.WARNING,
            )
            continue
        failed = _Streak()
        if task.status is TaskStatus.UNKNOWN:
            unknown.add(clock())
        else:
            unknown = _Streak()
        lines, wait = wait.news(task)
        for line in lines:
            yield LogLine(line)
        wait = yield from _warn_of_cap(wait, task)
        end = _end_of(wait, task, clock())
        if end is End.MAX_CREDITS:
            stops += 1
            # Do not leave the stop to a worker: until one resumes the task, the run keeps using credits.
            if not (yield from _stop(wait, task)) and stops < MAX_STOPS:
                continue
        if end is not None:
            return WaitEnd(end, wait, task)
        if unknown.lasts(MIN_UNKNOWN_POLLS, clock()):
            return WaitEnd(End.GIVEN_UP, wait, task)


def _first_poll(wait: Wait, now: float) -> tuple[float, float]:
    """Return the earliest moment of the first poll, and the seconds over which first polls are spread.

    The first poll is overdue if another triggerer takes over, with all waits at once, so their polls are spread. It
    also seems overdue if the triggerer's clock is ahead of the worker's. So the grace of the wait begins again.
    """
    interval = wait.until_next(now)
    overdue = max(0.0, now - wait.first_poll_at)
    earliest = max(now, wait.first_poll_at) + min(overdue, wait.first_poll_at - wait.began_at)
    return earliest, min(interval, max(overdue, min(JITTER * interval, timings.FIRST_POLL_JITTER)))


def poll_run(browseract_task_id: str, api_version: ApiVersion | None) -> Generator[Call[Any], Any, Task]:
    """Read a task, or only its status if the task is too large to be read here.

    :param api_version: None if a person has given the id. Version 3 is asked if version 2 does not know the task.
    """
    if api_version is None:
        try:
            return (yield from poll_run(browseract_task_id, ApiVersion.V2))
        except TaskNotFoundError:
            api_version = ApiVersion.V3
    api = APIS[api_version]
    try:
        task: Task = yield api.get_task(browseract_task_id)
    except ResponseTooLargeError as error:
        # Outputs can be large. A triggerer does not need them, and a worker explains why there is no result.
        state: TaskState = yield api.get_task_status(browseract_task_id)
        return Task(id=browseract_task_id, status=state.status, unread=error.message, api_version=api_version)
    return task


def _warn_of_cap(wait: Wait, task: Task) -> Generator[LogLine, Any, Wait]:
    """Log once that most of ``max_credits`` is used or that it cannot be checked, and return the updated wait."""
    cap, used = wait.policy.max_credits, wait.credits_used(task)
    if cap is None or wait.cap_warned or task.status.ended:
        return wait
    if task.unread is not None:
        line = unread_credits_line(task.id, task.unread, cap)
    elif WARN_FROM * cap <= used <= cap:
        line = near_cap_line(task.id, used, cap, earlier=wait.spent_before)
    else:
        return wait
    yield LogLine(line, logging.WARNING)
    return replace(wait, cap_warned=True)


def _stop(wait: Wait, task: Task) -> Generator[LogLine | Call[Any], Any, bool]:
    """Stop a run that is over the cap, and return whether it is stopped now."""
    try:
        yield APIS[task.api_version].stop_task(task.id)
    except NOTHING_TO_STOP:
        return True
    except BrowserActError as error:
        yield LogLine(f"BrowserAct task {task.id} {not_stopped(error, log_url(task))}", logging.ERROR)
        return False
    why = f"more credits were used than max_credits={wait.policy.max_credits} allows"
    yield LogLine(f"BrowserAct task {task.id} was stopped, because {why}.", logging.WARNING)
    return True


def _end_of(wait: Wait, task: Task, now: float) -> End | None:
    """Return how a poll ends the wait, or None if it does not.

    :param wait: the wait, including this poll.
    """
    if task.status.ended:
        return End.ENDED
    if wait.is_over_cap(task):
        return End.MAX_CREDITS
    if wait.required_action is not None and not wait.pause_known:
        return End.NO_LONGER_PAUSED
    is_news = task.status is TaskStatus.PAUSED and not wait.pause_known
    if is_news and wait.policy.pause_ends_wait and now >= wait.pauses_from:
        return End.PAUSED
    if now >= wait.deadline:
        return End.DEADLINE
    if task.status is TaskStatus.CREATED and wait.start_by is not None and now >= wait.start_by:
        return End.NOT_STARTED
    return None


def is_hopeless(error: BrowserActError) -> bool:
    """Return whether another poll is useless, because BrowserAct itself, and not a gateway, does not know the task."""
    return isinstance(error, NotFoundError) and error.code is not None
