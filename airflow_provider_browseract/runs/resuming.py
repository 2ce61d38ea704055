"""Decide what to do after a wait. Operator and sensor use the same decisions, which are returned as values."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TypeAlias

from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.report import WHY_UNKNOWN, describe
from airflow_provider_browseract.runs.steps import LogLine
from airflow_provider_browseract.runs.waiting import End, Wait, WaitEnd, WokenBy, is_hopeless


@dataclass(frozen=True)
class WaitEvent:
    """The event that resumes a deferred task instance, from the trigger or from the callback route.

    :param end: how it ended. A callback is only a hint that the run has ended.
    :param reason: why the status could not be read, if so.
    :param answer: the answer to the Required Action, if it ended the wait.
    :param answered_by: name of the person who answered; None if nobody did in time.
    """

    wait: Wait
    end: End
    woken_by: WokenBy = WokenBy.POLL
    reason: str | None = None
    answer: Answer | None = None
    answered_by: str | None = None

    def __post_init__(self) -> None:
        if (self.end is End.ANSWERED) != (self.answer is not None):
            raise ValueError("an event must have an answer if and only if an answer ended the wait")


@dataclass(frozen=True)
class Conclude:
    """The run has ended: return its result."""

    task: Task


@dataclass(frozen=True)
class WaitAgain:
    """The run is still running, or may be: wait again."""

    wait: Wait


@dataclass(frozen=True)
class Paused:
    """The run has paused: act as ``on_paused`` says, then wait again."""

    wait: Wait
    task: Task


@dataclass(frozen=True)
class Answered:
    """The Required Action of the paused run was answered: resume or stop the run.

    :param wait: the next wait, if the run is resumed.
    :param by: name of the person who answered; None if nobody did in time.
    """

    wait: Wait
    answer: Answer
    by: str | None


@dataclass(frozen=True)
class GiveUp:
    """The wait is over without a result.

    :param reason: why the status could not be read, if known.
    :param error: why the run cannot be read now, if so.
    :param task: the run, if it used more than ``max_credits``.
    """

    wait: Wait
    end: End
    reason: str | None = None
    error: BrowserActError | None = None
    task: Task | None = None

    @property
    def unknown(self) -> bool:
        """Whether BrowserAct itself does not know the run."""
        return self.error is not None and is_hopeless(self.error)

    @property
    def why(self) -> str:
        """Why the wait is over, as a clause. It applies if the status could not be read."""
        if self.error is not None and self.unknown:
            return f"BrowserAct does not know it with this API key: {self.error.brief}"
        if not self.reason:
            return "its status stayed 'unknown'"
        return f"its status could not be read: {self.reason.rstrip('.')}"

    @property
    def remedy(self) -> str:
        """What the user can do, as a sentence. It applies if the status could not be read."""
        if self.unknown:
            return WHY_UNKNOWN
        connection = "Check the network and the API key of the connection. " if self.reason else ""
        return f"{connection}Check in the BrowserAct dashboard whether the run still exists."


Decision: TypeAlias = Conclude | WaitAgain | Paused | Answered | GiveUp


def after_wait(over: WaitEnd) -> Decision:
    """Decide what to do after a wait in a worker, which has read the run itself."""
    if over.task is not None and over.end is End.ENDED:
        return _after_end(over.wait, over.task, over.end)
    if over.task is not None and over.end is End.PAUSED:
        return Paused(over.wait, over.task)
    given_up = over.end is End.GIVEN_UP
    return GiveUp(over.wait, over.end, over.error.brief if over.error else None, over.error if given_up else None)


def after_deferral(event: WaitEvent, seen: Task | BrowserActError, now: float) -> tuple[Decision, list[LogLine]]:
    """Decide what to do after a wait in the triggerer. Use the status that the API returns, never that of the event.

    :param seen: the run as the API returns it now, or the error of reading it.
    :returns: the decision, and lines for the log.
    """
    wait, lines = event.wait, []
    if isinstance(seen, Task):
        news, wait = wait.news(seen)
        lines = [LogLine(line) for line in news]
        if seen.status.ended:
            if event.answer:
                lines.append(LogLine(f"The run has ended, so the answer {event.answer.option} has no effect."))
            return _after_end(event.wait, seen, event.end), lines
        if event.end is End.MAX_CREDITS or wait.is_over_cap(seen):
            # An older triggerer ignores the cap, and a stop may take a moment.
            return GiveUp(wait, End.MAX_CREDITS, task=seen), lines
    if event.end is End.NO_LONGER_PAUSED or (event.end is End.DEADLINE and wait.required_action is not None):
        # The trigger has closed the Required Action.
        wait = wait.unasked()
    if event.end is End.ENDED and event.woken_by is WokenBy.POLL:
        wait = replace(wait, callback_missed=True)
    if event.answer is not None:
        decision, more = _after_answer(wait, event.answer, event.answered_by)
    elif isinstance(seen, BrowserActError):
        decision, more = _after_unreadable(wait, event, seen, now)
    else:
        decision, more = _after_poll(wait, event, seen, now)
    return decision, [*lines, *more]


def _after_end(wait: Wait, task: Task, end: End) -> Conclude | GiveUp:
    """Conclude an ended run, unless it was stopped because of its credits. A finished run has its result even then."""
    if task.status is TaskStatus.CANCELED and (end is End.MAX_CREDITS or wait.is_over_cap(task)):
        return GiveUp(wait, End.MAX_CREDITS, task=task)
    return Conclude(task)


def _after_answer(wait: Wait, answer: Answer, by: str | None) -> tuple[Decision, list[LogLine]]:
    if wait.required_action is not None:
        return Answered(wait, answer, by), []
    # Airflow also shows an open Required Action in later tries.
    line = f"The answer {answer.option} was for an earlier Required Action and has no effect. Waiting again."
    return WaitAgain(wait), [LogLine(line, logging.WARNING)]


def _after_unreadable(
    wait: Wait, event: WaitEvent, error: BrowserActError, now: float
) -> tuple[Decision, list[LogLine]]:
    limit = {
        End.DEADLINE: wait.deadline - timings.AIRFLOW_CLOCK_SKEW,
        End.PAUSED: wait.deadline,
        End.NOT_STARTED: wait.deadline,
        End.ENDED: wait.deadline + timings.TIMEOUT_BACKSTOP,
        End.NO_LONGER_PAUSED: wait.deadline + timings.TIMEOUT_BACKSTOP,
        End.MAX_CREDITS: wait.deadline + timings.TIMEOUT_BACKSTOP,
    }
    if is_hopeless(error) or now >= limit.get(event.end, 0.0):
        return GiveUp(wait, event.end, error.brief, error), []
    line = f"BrowserAct task {wait.browseract_task_id} cannot be read yet: {error.brief}. Waiting again."
    return WaitAgain(wait), [LogLine(line, logging.WARNING)]


def _after_poll(wait: Wait, event: WaitEvent, seen: Task, now: float) -> tuple[Decision, list[LogLine]]:
    """Decide what to do if the run can be read and has not ended."""
    end, status = event.end, seen.status
    if end is End.PAUSED and status is TaskStatus.PAUSED:
        return Paused(wait, seen), []
    if end is End.DEADLINE and now < wait.deadline - timings.AIRFLOW_CLOCK_SKEW:
        line = (
            f"The triggerer reported that the time of {describe(seen)} is over, but by the clock of this worker "
            f"{wait.deadline - now:.0f} seconds are left. Waiting again. Compare the clocks of triggerer and worker."
        )
        return WaitAgain(wait), [LogLine(line, logging.WARNING)]
    if end is End.GIVEN_UP and now >= wait.deadline:
        end = End.DEADLINE
    not_started = end is End.NOT_STARTED and status is TaskStatus.CREATED
    if end is End.DEADLINE or not_started or (end is End.GIVEN_UP and status is TaskStatus.UNKNOWN):
        return GiveUp(wait, end, event.reason), []
    if end is End.NO_LONGER_PAUSED:
        return WaitAgain(wait), [LogLine(f"BrowserAct task {seen.id} is no longer paused, so no answer is needed.")]
    if end is End.NOT_STARTED:
        return WaitAgain(wait), []
    if end is End.GIVEN_UP and wait.required_action is not None:
        line = f"The answer to the Required Action cannot be used: {event.reason}. Waiting again."
        wait = wait.unasked()
    elif end is End.GIVEN_UP:
        why = event.reason or "its status stayed 'unknown'"
        line = f"The triggerer could not poll BrowserAct task {seen.id} ({why}), but this worker can. Waiting again."
    else:
        line = f"{describe(seen)} is {status}, although the {event.woken_by} reported that it had {end}. Waiting again."
        if event.woken_by is WokenBy.CALLBACK:
            wait = replace(wait, callbacks_in_vain=wait.callbacks_in_vain + 1)
    return WaitAgain(wait), [LogLine(line, logging.WARNING)]
