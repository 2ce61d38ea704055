"""A wait for the end of a run: a value that each poll turns into the next one, in the same way everywhere.

Worker, triggerer and sensor all do the same: read the run, call :meth:`Wait.after_poll`, and sleep for
:meth:`Wait.pause`, or a sensor that is not deferred for its ``poke_interval``. Nothing else decides how a poll ends a
wait. An event or a callback is only a hint to poll now.

Moments are in seconds since the epoch.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, Task, TaskState, TaskStatus, Word
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    NotFoundError,
    ResponseTooLargeError,
    TaskEndedError,
    TaskNotFoundError,
    UnexpectedResponseError,
)
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.report import WHY_UNKNOWN, status_line, step_lines
from airflow_provider_browseract.runs.stored import Count, Moment, Seconds, Text

if TYPE_CHECKING:
    from airflow_provider_browseract.runs.log import Log

JITTER = 0.2
"""Fraction of the pause between two polls that is random, so that runs that started together are polled apart."""

MIN_FAILED_POLLS = 5
"""How many polls in a row must have failed before the wait is given up. Each was already retried by the client."""

MAX_CALLBACKS_IN_VAIN = 5
"""How many callbacks may resume a task instance whose run has not ended. Further callbacks are ignored. Otherwise,
anyone with the address could start workers forever."""

MAX_STOPS = 3
"""How many times to try to stop a run that has used more than ``max_credits``, one poll apart."""

FOREVER = 1e10


class End(Word):
    """What a poll found, if it ended the wait."""

    ENDED = "ended"  # with any status
    PAUSED = "paused"  # it waits for a person, and a worker has to do something about it
    NO_LONGER_PAUSED = "no_longer_paused"  # before the Required Action was answered
    MAX_CREDITS = "max_credits"  # it has used more credits than allowed, and must be stopped
    DEADLINE = "deadline"  # its time is over; as far as is known, it is still running
    GIVEN_UP = "given_up"  # its status could not be read; it may still be running

    @property
    def lets_it_run(self) -> bool:
        """Whether the run has ended, or is no longer paused, before anybody answered its Required Action."""
        return self in (End.ENDED, End.NO_LONGER_PAUSED)


def no_such_end(end: NoReturn) -> NoReturn:
    """Raise an error for an end that nothing handles: waiting again would never stop. The type checker reports it."""
    raise AssertionError(f"nothing handles the end {end!r}")


class WokenBy(Word):
    """What ended a deferral."""

    POLL = "poll"
    CALLBACK = "callback"
    PERSON = "person"  # or the default answer, because there was none in time


@dataclass(frozen=True)
class Wait:
    """A wait for the end of a run. The trigger stores it, the callback route reads it, and each deferral passes it on.

    :param deadline: when the time of the run is over. It is absolute, so no restart extends it.
    :param api_version: version of the API that has started the run; None if a person has given the id, and no poll has
        found the run yet.
    :param callback_token_sha256: digest of the token with which a callback may end the wait; None without callbacks.
    :param source_name: the name of the workflow, bot or template, if it is known.
    :param max_tries: how many tries Airflow allowed the task instance, minus one, when its try began. A clear increases
        this number, and a retry does not.
    :param poll_interval: seconds between two polls; None for the default of the kind of wait.
    :param watch_pauses: a worker has something to do when the run pauses.
    :param default_answer: the answer that applies if nobody answers in time; None if nobody is asked.
    :param show_live_view: whether the address of the live view may be shown.
    :param hide_goals: do not log the goals of steps: they may quote secret inputs, which this process does not know.
    :param max_credits: credits that all runs of the task instance may use together; None for no cap.
    :param spent_before: credits that earlier runs of the task instance have used.
    :param over_cap: the run has used more than ``max_credits``, and was stopped if possible.
    :param required_action: id of the open Required Action, if there is one. Its answer ends the wait, and so does the
        end of the pause.
    :param answer_by: when ``default_answer`` applies; None for no such limit.
    :param last_seen: the last status in the log; None before the first.
    :param steps_logged: how many steps of the run are in the log.
    :param ignore_pause_until: ignore a reported pause until this moment, because it was handled, or because
        BrowserAct may still show a run as paused after it was resumed.
    :param failed_polls: how many polls in a row have failed, the first of them at ``failing_since``.
    :param callbacks_in_vain: how many callbacks have resumed the task instance although the run had not ended.
    :param began_at: when the wait began. It distinguishes the waits of a run.
    :param follows: the task instance has not started the run, as a sensor has not.
    """

    browseract_task_id: Text
    deadline: Moment
    api_version: ApiVersion | None = ApiVersion.V2
    callback_token_sha256: Text | None = None
    source_name: Text | None = None
    max_tries: Count | None = None
    poll_interval: Seconds | None = None
    watch_pauses: bool = False
    default_answer: Answer | None = None
    show_live_view: bool = True
    hide_goals: bool = False
    max_credits: Count | None = None
    spent_before: Count = 0
    over_cap: bool = False
    required_action: Text | None = None
    answer_by: Moment | None = None
    last_seen: TaskStatus | None = None
    steps_logged: Count = 0
    ignore_pause_until: Moment = 0.0
    failed_polls: Count = 0
    failing_since: Moment = 0.0
    callbacks_in_vain: Count = 0
    began_at: Moment = 0.0
    follows: bool = False

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

    @property
    def longest_pause(self) -> float:
        """The seconds between two polls, or at most so many while the polls become rarer (:meth:`pause`)."""
        rarely = self.waits_for is WokenBy.CALLBACK and not self.watch_pauses and self.max_credits is None
        return self.poll_interval or (timings.SAFETY_POLL_INTERVAL if rarely else timings.DEFAULT_POLL_INTERVAL)

    def unasked(self) -> Wait:
        """Return the wait without a Required Action. The next pause that is shown is news again."""
        return replace(self, required_action=None, answer_by=None, ignore_pause_until=0.0)

    # When to poll

    def first_pause(self, now: float) -> float:
        """Return the seconds until the first poll of a trigger.

        Airflow must not resume the task instance in the first seconds after a deferral. If another triggerer takes over
        many waits at once, their polls are spread. If the triggerer's clock is ahead, a new wait looks
        overdue. So wait for the grace once more.
        """
        grace = timings.CORE_RACE_GRACE + (0.0 if self.waits_for is WokenBy.POLL else timings.CALLBACK_GRACE)
        overdue = max(0.0, now - self.began_at - grace)
        pause = self._pause(now)
        spread = min(pause, max(overdue, min(JITTER * pause, timings.FIRST_POLL_JITTER)), max(0.0, self.limit - now))
        if self.required_action is not None:
            spread = min(spread, timings.ANSWER_POLL_INTERVAL)
        return max(0.0, self.began_at + grace - now) + min(overdue, grace) + spread * random.random()

    def pause(self, now: float) -> float:
        """Return the seconds until the next poll.

        While a callback is expected, the next poll comes when the wait has taken twice as long as now, and at the
        latest after 120 seconds. So a lost callback costs at most about as much time as the run has
        taken. The moment at which the wait began is stored, so a triggerer that takes over continues like that.
        """
        seconds = self._pause(now) * random.uniform(1 - JITTER, 1 + JITTER)
        return min(seconds, self.limit - now) if self.limit > now else seconds

    @property
    def limit(self) -> float:
        """The next moment at which the wait ends without an end of the run."""
        return self.deadline if self.answer_by is None else min(self.deadline, self.answer_by)

    def _pause(self, now: float) -> float:
        return self.poll_interval or min(self.longest_pause, max(timings.DEFAULT_POLL_INTERVAL, now - self.began_at))

    # What a poll means

    def after_poll(self, seen: Task | BrowserActError, now: float, log: Log) -> tuple[Wait, End | None]:
        """Log what is new, and return the wait after a poll, and how the poll ends it; None if it does not.

        One failed poll, or one unreadable response, is not a failed run. The wait is given up only after at least
        :data:`MIN_FAILED_POLLS` consecutive failures over at least ``timings.POLL_PATIENCE`` seconds, and never as a
        success. If BrowserAct itself responds that there is no such task, the wait ends at once. While a person is
        asked, only this and the deadline end it.
        """
        if isinstance(seen, BrowserActError) or seen.status is TaskStatus.UNKNOWN:
            return self._after_failed_poll(seen, now, log)
        wait = replace(self._after_news(seen, log), failed_polls=0)
        if seen.status.ended:
            return wait, End.ENDED
        if wait.is_over_cap(seen):
            # Until it is stopped, it is polled at the default interval.
            return replace(wait, over_cap=True, poll_interval=None), End.MAX_CREDITS
        # Before the pauses, so that nobody is asked again and again about a run whose time is over.
        if now >= wait.deadline:
            return wait, End.DEADLINE
        paused = seen.status is TaskStatus.PAUSED
        if wait.required_action is not None and not paused:
            return wait, End.NO_LONGER_PAUSED
        return wait, End.PAUSED if paused and wait.watch_pauses and now >= wait.ignore_pause_until else None

    def _after_failed_poll(self, seen: Task | BrowserActError, now: float, log: Log) -> tuple[Wait, End | None]:
        number, since = self.failed_polls + 1, self.failing_since if self.failed_polls else now
        wait = replace(self, failed_polls=number, failing_since=since)
        if isinstance(seen, Task):
            wait = wait._after_news(seen, log)
        elif is_unknown_run(seen):
            return wait, End.GIVEN_UP
        else:
            log.warning("A poll of the run failed, %d in a row: %s", number, seen.brief)
        lasts = number >= MIN_FAILED_POLLS and now - since >= timings.POLL_PATIENCE
        if lasts and self.required_action is None:
            return wait, End.GIVEN_UP
        # A run that has ended only needs to be read.
        over = self.over_cap or (self.last_seen is not None and self.last_seen.ended)
        limit = self.deadline + (timings.TIMEOUT_BACKSTOP if over else 0.0)
        return wait, End.DEADLINE if now >= limit else None

    def _after_news(self, task: Task, log: Log) -> Wait:
        """Log the steps and the status that are not in the log yet.

        The stored arguments of a trigger never change, so a triggerer that takes over logs the steps since the deferral
        again: once, and in limited number.
        """
        for line in step_lines(task, self.steps_logged, hide_goals=self.hide_goals):
            log.info("%s", line)
        if task.status is not self.last_seen:
            if not task.status.ended:
                log.info("%s", status_line(task))
            if task.unread is not None and self.max_credits is not None:
                log.warning(
                    "The credits of the run cannot be compared with max_credits=%s: %s. Until they can be compared, "
                    "only timeout stops the run.",
                    self.max_credits,
                    task.unread.rstrip("."),
                )
        still_paused = task.status in (TaskStatus.PAUSED, TaskStatus.UNKNOWN)
        return replace(
            self,
            last_seen=task.status,
            steps_logged=max(self.steps_logged, task.step_count),
            ignore_pause_until=self.ignore_pause_until if still_paused or self.ignore_pause_until < FOREVER else 0.0,
            api_version=self.api_version or task.api_version,
        )

    def credits_used(self, task: Task) -> int:
        """Return the credits that the runs of the task instance have used together, as far as is known."""
        return self.spent_before + task.credits_so_far

    def is_over_cap(self, task: Task) -> bool:
        """Return whether the runs of the task instance have used more than ``max_credits``."""
        return self.max_credits is not None and (self.over_cap or self.credits_used(task) > self.max_credits)


@dataclass(frozen=True)
class WaitEvent:
    """What resumes a deferred task instance, from the trigger or from the callback route.

    It is only a hint: the worker reads the run again, and decides by what it reads.

    :param end: how a poll has ended the wait; None for a callback or an answer.
    :param answer: the answer to the Required Action, if it ended the wait.
    :param answered_by: name of the person who answered; None if nobody did in time.
    """

    wait: Wait
    woken_by: WokenBy = WokenBy.POLL
    answer: Answer | None = None
    answered_by: str | None = None
    end: End | None = None


def poll_run(browseract_task_id: str, api_version: ApiVersion | None) -> Generator[Call[Any], Any, Task]:
    """Read a task, or only its status if the task is too large to be read here, or has ended and cannot be read.

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
    except (ResponseTooLargeError, UnexpectedResponseError) as error:
        # Outputs can be large. A triggerer does not need them, and a worker explains why there is no result.
        unread = error.unusable if isinstance(error, UnexpectedResponseError) else error.message
        if unread is None:
            raise
        state: TaskState = yield api.get_task_status(browseract_task_id)
        if isinstance(error, UnexpectedResponseError) and not state.status.ended:
            raise
        return Task(id=browseract_task_id, status=state.status, unread=unread, api_version=api_version)
    return task


def stop_run(browseract_task_id: str, api: ModuleType) -> Generator[Call[Any], Any, bool]:
    """Stop a run, and return whether this has stopped it; False if it had ended before.

    If the response to a first request was lost, the next one finds a run that has ended.

    :raises TaskNotFoundError: BrowserAct does not know the run with this API key.
    """
    try:
        yield api.stop_task(browseract_task_id)
    except TaskEndedError as error:
        state: TaskState | None = (yield api.get_task_status(browseract_task_id)) if error.resent else None
        return state is not None and state.status is TaskStatus.CANCELED
    return True


def is_unknown_run(error: BrowserActError) -> bool:
    """Return whether BrowserAct itself, and not a gateway, does not know the run, so that no poll can help."""
    return isinstance(error, NotFoundError) and error.code is not None


def why_unread(seen: Task | BrowserActError) -> tuple[str, str]:
    """Return why the wait for a run is given up, and what the user can do."""
    look = "Check in the BrowserAct dashboard whether the run still exists."
    if isinstance(seen, Task):
        return "The status of the run stayed 'unknown'.", look
    if is_unknown_run(seen):
        return f"BrowserAct does not know the run with this API key: {seen.message.rstrip('.')}.", WHY_UNKNOWN
    return (
        f"The status of the run could not be read: {seen.message.rstrip('.')}.",
        f"Check the network and the API key of the connection. {look}",
    )
