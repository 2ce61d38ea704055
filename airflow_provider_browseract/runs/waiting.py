"""Waiting for a run to end: when to ask next, what each answer means, and what the log says meanwhile.

:func:`wait_for_end` does no I/O and reads no clock of its own. It says what to do next and is told what came of it,
so the operator in its worker and the trigger in the triggerer wait in exactly the same way;
:mod:`airflow_provider_browseract.hooks.following` has the two loops that do as it says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import BrowserActError, NotFoundError, ResponseTooLargeError
from airflow_provider_browseract.api.models import Task, TaskStatus, Word
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import status_line, step_line
from airflow_provider_browseract.runs.steps import Say, Sleep

JITTER = 0.2
"""Part of the interval by which each pause is spread, so that runs started together do not ask together."""

FAILED_POLLS = 5
"""How many polls in a row must have failed before the wait is given up. Each was already retried by the client."""

RESUMES = 3
"""How many pauses each try resumes with ``on_paused="resume"``, so that no run pauses and resumes for ever."""

HINTS = 5
"""Callbacks in vain after which none resumes the task: whoever has the address could start workers for ever."""

UNKNOWN_POLLS = 30
"""How many times in a row, and over ``timings.POLL_PATIENCE`` seconds, a run has to be ``unknown`` to end the wait."""


class End(Word):
    """How a wait ended."""

    ENDED = "ended"
    """The run has ended, in whichever way."""

    DEADLINE = "deadline"
    """The time allowed for the run is over; the run goes on."""

    NOT_STARTED = "not_started"
    """The run did not leave the status ``created`` in the time allowed for that."""

    PAUSED = "paused"
    """The run waits for a person, and is not to be waited for."""

    ANSWERED = "answered"
    """It was decided what becomes of the paused run."""

    WENT_ON = "went_on"
    """The run of which a person is asked has left its pause without an answer."""

    GIVEN_UP = "given_up"
    """The status could not be learned; whether the run goes on is not known."""


class OnPaused(Word):
    """What to do when a run pauses for a person."""

    WAIT = "wait"
    """Wait on, until the deadline."""

    FAIL = "fail"
    """Wait no longer."""

    RESUME = "resume"
    """Resume the run, :data:`RESUMES` times at most, then wait until the deadline."""

    ASK = "ask"
    """Ask people in Airflow, as a Required Action."""


class Answer(Word):
    """What can be decided of a paused run."""

    RESUME = "resume"
    """Let it go on."""

    STOP = "stop"
    """Stop it."""

    @property
    def option(self) -> str:
        """The word on the button that a person presses."""
        return self.value.capitalize()


class WokenBy(Word):
    """What told that a wait is over."""

    POLL = "poll"
    """The trigger's own question."""

    CALLBACK = "callback"
    """BrowserAct's callback."""

    PERSON = "person"
    """The answer of a person, or that there was none in time."""


@dataclass(frozen=True)
class RunWait:
    """What a wait for a run takes with it from one deferral to the next.

    :param browseract_task_id: the BrowserAct task.
    :param deadline: moment at which the run's time is over, in seconds since the epoch.
    :param callback_token_sha256: see :mod:`airflow_provider_browseract.webhook.callback`; None without callbacks.
    :param pauses: how many times the run paused and someone was told of it.
    :param question: the question to a person that is open, if one is.
    :param answer_by: moment from which on nobody has to answer it any more, if there is one.
    :param last_seen: the status that the log has reported last; None before the first.
    :param steps_told: how many steps of the run the log has reported.
    :param first_poll_at: moment of the trigger's first poll, which tells the waits of a run apart.
    :param hints_in_vain: how many callbacks have resumed the task although the run had not ended; see :data:`HINTS`.
    :param start_by: moment by which the run has to leave the status ``created``, if there is one.
    :param callback_missed: a poll found the end of the run and no callback reported it, so the next wait polls at the
        interval that runs without a callback have.
    """

    browseract_task_id: str
    deadline: float
    callback_token_sha256: str | None = None
    pauses: int = 0
    question: str | None = None
    answer_by: float | None = None
    last_seen: str | None = None
    steps_told: int = 0
    first_poll_at: float = 0.0
    hints_in_vain: int = 0
    start_by: float | None = None
    callback_missed: bool = False

    def unasked(self) -> RunWait:
        """Return the same wait without a question to a person."""
        return replace(self, question=None, answer_by=None)

    def next_limit(self, now: float) -> float:
        """Return the next moment at which the wait can end without an end of the run.

        :param now: the moment, in seconds since the epoch.
        """
        may_be_created = self.last_seen in (None, TaskStatus.CREATED.value)
        return (
            min(self.start_by, self.deadline)
            if self.start_by and self.start_by > now and may_be_created
            else self.deadline
        )

    def news(self, task: Task) -> tuple[list[str], RunWait]:
        """Return the log lines about a run that the log does not have yet, and the wait that knows of them."""
        lines = [step_line(task.id, step) for step in task.steps[self.steps_told :]]
        if task.status.value != self.last_seen:
            lines.append(status_line(task))
        steps_told = max(self.steps_told, len(task.steps))
        return lines, replace(self, last_seen=task.status.value, steps_told=steps_told)


@dataclass(frozen=True)
class WaitEvent:
    """What resumes a deferred task, whether the trigger or the callback route sends it.

    :param browseract_task_id: the BrowserAct task.
    :param end: how the wait ended; after a callback it is only said to have ended.
    :param deadline: moment at which the run's time is over, in seconds since the epoch.
    :param woken_by: what told that it ended.
    :param callback_token_sha256: see :mod:`airflow_provider_browseract.webhook.callback`; None without callbacks.
    :param reason: why the status could not be learned, where that is so.
    :param answer: what was decided of a paused run, where that is what ended the wait.
    :param answered_by: name of the person who decided it; None if nobody did in time.
    :param pauses: see :class:`RunWait`; ``dag.test()`` hands on nothing but the event.
    :param last_seen: likewise.
    :param steps_told: likewise.
    """

    browseract_task_id: str
    end: End
    deadline: float
    woken_by: WokenBy = WokenBy.POLL
    callback_token_sha256: str | None = None
    reason: str | None = None
    answer: Answer | None = None
    answered_by: str | None = None
    pauses: int = 0
    last_seen: str | None = None
    steps_told: int = 0

    def wait(self, before: RunWait | None) -> RunWait:
        """Return the wait that this event ended, with what the log has reported since it began.

        :param before: the wait as it began; None where Airflow has not kept it.
        """
        if before is None:
            before = RunWait(self.browseract_task_id, self.deadline, self.callback_token_sha256, self.pauses)
        if self.last_seen is None:
            return before
        return replace(before, last_seen=self.last_seen, steps_told=max(before.steps_told, self.steps_told))

    def payload(self) -> dict[str, Any]:
        """Write the event as plain JSON values."""
        words = {"end": self.end, "woken_by": self.woken_by, "answer": self.answer}
        return {**asdict(self), **{name: word and word.value for name, word in words.items()}}

    @classmethod
    def read(cls, payload: Any) -> WaitEvent:
        """Read an event, and refuse one that is not whole.

        :raises ValueError: it is not an event of this provider.
        """
        if not isinstance(payload, Mapping):
            raise ValueError(f"the event is {payload!r}")
        task_id, deadline = payload.get("browseract_task_id"), payload.get("deadline")
        if not isinstance(task_id, str) or not task_id:
            raise ValueError("the event names no BrowserAct task")
        if isinstance(deadline, bool) or not isinstance(deadline, int | float):
            raise ValueError("the event has no deadline")
        texts = [payload.get(name) for name in ("callback_token_sha256", "reason", "answered_by", "last_seen")]
        if not all(isinstance(text, str | None) for text in texts):
            raise ValueError("the event's digest, reason, person or status is no text")
        counts = {name: payload.get(name, 0) for name in ("pauses", "steps_told")}
        if not all(type(number) is int and number >= 0 for number in counts.values()):
            raise ValueError("the event's number of pauses or steps is no number")
        end, answer = End(payload.get("end")), payload.get("answer")
        if (end is End.ANSWERED) != (answer is not None):
            raise ValueError("the event should have an answer if that is what ended the wait, and only then")
        digest, reason, answered_by, last_seen = texts
        return cls(
            task_id,
            end,
            float(deadline),
            WokenBy(payload.get("woken_by")),
            digest,
            reason,
            None if answer is None else Answer(answer),
            answered_by,
            last_seen=None if last_seen is None else TaskStatus(last_seen).value,
            **counts,
        )


@dataclass(frozen=True)
class WaitOver:
    """What a wait came to.

    :param end: how it ended.
    :param wait: the wait, with what the log has reported by now.
    :param task: the run as the API showed it last; None if it never did, or if it is too large to be read here.
    :param error: the last error, where the status could not be learned.
    """

    end: End
    wait: RunWait
    task: Task | None = None
    error: BrowserActError | None = None


class Next(Word):
    """What follows when a deferred task is resumed."""

    CONCLUDE = "conclude"
    """The run has ended: take its result."""

    DEFER = "defer"
    """The run is still running, or may be: wait again."""

    PAUSE = "pause"
    """The run has paused, or it was decided what becomes of that."""

    END = "end"
    """Nothing more is to be waited for."""


Steps: TypeAlias = "Generator[Sleep | Say | calls.Call[Any], Any, WaitOver]"
"""What to do next; a call is answered with its result, or with the error thrown in."""


def wait_for_end(
    wait: RunWait,
    *,
    poll_interval: float,
    first_poll_at: float,
    clock: Callable[[], float],
    chance: Callable[[], float],
    tell_pauses_from: float | None = None,
    pause_told: bool = False,
) -> Steps:
    """Wait until a run has ended, its time is over, or nothing can be learned of it.

    Each poll asks for the whole task, so that one request brings the status, the steps so far for the log, and in the
    end the result. One failed poll is not a failed run, and neither is an answer that cannot be understood: only
    :data:`FAILED_POLLS` or more in a row over ``timings.POLL_PATIENCE`` seconds or more end the wait, and not as a
    success.
    Only BrowserAct's own answer that there is no such task ends it at once.

    :param wait: the wait: the BrowserAct task, the moment at which the wait ends, and what the log has reported. While
        a person is asked about a pause (``question``), the end of that pause ends the wait.
    :param poll_interval: seconds between two polls.
    :param first_poll_at: no poll before this moment, in seconds since the epoch.
    :param clock: returns the moment, in seconds since the epoch.
    :param chance: returns a random number from 0 to 1.
    :param tell_pauses_from: moment from which on a pause ends the wait, in seconds since the epoch; None if no pause
        does.
    :param pause_told: the pause that the run is in, if it is, is known already.
    """
    task_id, deadline = wait.browseract_task_id, wait.deadline
    task: Task | None = None
    failures = unknowns = 0
    failing_since = unknown_since = 0.0
    poll_at = first_poll_at + min(JITTER * poll_interval, timings.FIRST_POLL_JITTER) * chance()
    while True:
        now = clock()
        # Not even a limit brings the first poll forward.
        yield Sleep(max(0.0, min(poll_at, max(wait.next_limit(now), first_poll_at)) - now))
        poll_at = clock() + poll_interval * (1 + JITTER * (2 * chance() - 1))
        try:
            try:
                task = yield calls.get_task(task_id)
            except ResponseTooLargeError:
                # Outputs can be large. Only a worker needs them.
                status: TaskStatus = yield calls.get_task_status(task_id)
                if status.ended:
                    return WaitOver(End.ENDED, wait)
                task = Task(task_id, status)
        except BrowserActError as error:
            failing_since = failing_since if failures else clock()
            failures += 1
            if is_hopeless(error) or (failures >= FAILED_POLLS and clock() - failing_since >= timings.POLL_PATIENCE):
                return WaitOver(End.GIVEN_UP, wait, task, error)
            if clock() >= deadline:
                return WaitOver(End.DEADLINE, wait, task, error)
            yield Say(f"Poll of BrowserAct task {task_id} failed, {failures} in a row: {error.brief}", logging.WARNING)
            continue
        failures, status = 0, task.status
        unknown_since = unknown_since if unknowns else clock()
        unknowns = unknowns + 1 if status is TaskStatus.UNKNOWN else 0
        lines, wait = wait.news(task)
        for line in lines:
            yield Say(line)
        if status.ended:
            return WaitOver(End.ENDED, wait, task)
        if pause_told and status not in (TaskStatus.PAUSED, TaskStatus.UNKNOWN):
            if wait.question is not None:
                return WaitOver(End.WENT_ON, wait, task)
            pause_told = False
        wanted = tell_pauses_from is not None and clock() >= tell_pauses_from
        if status is TaskStatus.PAUSED and wanted and not pause_told:
            return WaitOver(End.PAUSED, wait, task)
        if clock() >= deadline:
            return WaitOver(End.DEADLINE, wait, task)
        if status is TaskStatus.CREATED and wait.start_by is not None and clock() >= wait.start_by:
            return WaitOver(End.NOT_STARTED, wait, task)
        if unknowns >= UNKNOWN_POLLS and clock() - unknown_since >= timings.POLL_PATIENCE:
            return WaitOver(End.GIVEN_UP, wait, task)


def next_after(event: WaitEvent, seen: Task | BrowserActError, now: float) -> Next:
    """Return what to do after an event. Only the reason why the trigger ended is taken from the event.

    :param event: what resumed the task.
    :param seen: the run as the API shows it now, or why it does not.
    :param now: the moment, in seconds since the epoch.
    """
    if isinstance(seen, BrowserActError):
        if event.end is End.ANSWERED:
            return Next.PAUSE
        if is_hopeless(seen):
            return Next.END
        if event.end in (End.PAUSED, End.NOT_STARTED) and now < event.deadline:
            return Next.DEFER
        readable_later = event.end in (End.ENDED, End.WENT_ON)
        return Next.DEFER if readable_later and now < event.deadline + timings.TIMEOUT_BACKSTOP else Next.END
    if seen.status.ended:
        return Next.CONCLUDE
    still = {End.PAUSED: TaskStatus.PAUSED, End.NOT_STARTED: TaskStatus.CREATED}
    if event.end in (End.ENDED, End.WENT_ON) or seen.status is not still.get(event.end, seen.status):
        return Next.DEFER
    if event.end in (End.PAUSED, End.ANSWERED):
        return Next.PAUSE
    if event.end is End.GIVEN_UP and seen.status is not TaskStatus.UNKNOWN and now < event.deadline:
        return Next.DEFER
    return Next.END


def is_hopeless(error: BrowserActError) -> bool:
    """Return whether another poll is useless: BrowserAct itself, and not a gateway, does not know the task."""
    return isinstance(error, NotFoundError) and error.code is not None
