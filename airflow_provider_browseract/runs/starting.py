"""Start a run, or reattach to the run of an earlier try.

If the result of an earlier start is not known, its run is looked up first, before a new run is started.

:func:`begin` does no I/O. It yields the next step and is sent the result. ``clock`` returns the current time in seconds
since the epoch.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from airflow_provider_browseract.api.models import CreatedTask, Task, TaskStatus
from airflow_provider_browseract.api.settings import CREDITS_PER_STEP
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.exceptions import (
    NOTHING_TO_STOP,
    BrowserActError,
    ConcurrencyLimitError,
    RateLimitError,
    TaskNotFoundError,
    UnknownRefusalError,
)
from airflow_provider_browseract.runs import orphans, timings
from airflow_provider_browseract.runs.budget import Budget, BudgetStep, Verdict, check_again, check_budget, refused_by
from airflow_provider_browseract.runs.cap import check_cap, credits_of
from airflow_provider_browseract.runs.ledger import Entry, LedgerError, UnknownRunError
from airflow_provider_browseract.runs.matching import Orphan
from airflow_provider_browseract.runs.options import OnOrphan
from airflow_provider_browseract.runs.orphans import find_orphan
from airflow_provider_browseract.runs.report import WHY_UNKNOWN, not_stopped
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.runs.steps import LogLine
from airflow_provider_browseract.runs.waiting import poll_run

MAX_STARTS = 3
"""How often one try sends a start if each time the response was lost, but certainly no run was started."""

GATEWAY_STATUSES = (408, 502, 503, 504)
"""HTTP statuses with which a gateway responds to a start that BrowserAct may still carry out."""


@dataclass(frozen=True)
class Start:
    """The wanted start of a run.

    :param timeout: seconds that the run may take.
    :param patience: seconds that sending the start can take at most.
    :param max_tries: the last try that Airflow starts by itself. Only clearing the task changes it.
    :param deferred: whether the task instance waits deferred. If it is cleared during the wait, no worker is notified,
        and the triggerer may be notified too late to stop the run.
    :param api_key: the API key of the connection, which the stored fingerprint depends on.
    :param key_digest: digest of the API key that may be stored.
    :param max_credits: credits that all runs of the task instance may use together; None for no cap.
    :param credits_per_step: credits that a step costs, which count while BrowserAct reports fewer.
    :param budget: the budget of the account; None if there is none.
    """

    request: RunRequest
    timeout: float
    patience: float
    on_orphan: OnOrphan = OnOrphan.FAIL
    max_tries: int = 0
    deferred: bool = False
    api_key: str = field(kw_only=True, repr=False)
    key_digest: str = field(kw_only=True)
    max_credits: int | None = None
    credits_per_step: int = CREDITS_PER_STEP
    budget: Budget | None = None

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the request."""
        return self.request.fingerprint(self.api_key)

    def entry(self, now: float, earlier: EarlierRuns) -> Entry:
        """Return the entry to store before the start."""
        return Entry(
            self.request.source,
            self.fingerprint,
            written_at=now,
            deadline=now + self.timeout,
            earlier=earlier.ids,
            max_tries=self.max_tries,
            key_digest=self.key_digest,
            deferred=self.deferred,
            spent=earlier.spent,
        )

    def spent_before(self, entry: Entry) -> int:
        """Return the credits of the runs before the one of an entry. Clearing the task begins a new count."""
        return entry.spent if entry.max_tries == self.max_tries else 0

    def cleared_since(self, entry: Entry) -> bool:
        """Return whether a person has cleared the task instance since an entry was written."""
        return entry.max_tries not in (None, self.max_tries)


@dataclass(frozen=True)
class EarlierRuns:
    """The runs of a task instance that cannot be used any more.

    :param spent: the credits that they have used, since the task was cleared for the last time.
    """

    ids: tuple[str, ...] = ()
    spent: int = 0


@dataclass(frozen=True)
class Write:
    """Store an entry, which replaces the earlier one.

    :param entry: the entry; None deletes the earlier one.
    :param over: the entry has no run that is still running.
    """

    entry: Entry | None
    over: bool = False

    @property
    def starts(self) -> bool:
        """Whether a start follows this step."""
        return not self.over and self.entry is not None and self.entry.task_id is None


@dataclass(frozen=True)
class BeforeStart:
    """Check the store and the inputs before a run is stored and started. This can take minutes.

    The result is the request to send.
    """

    request: RunRequest


@dataclass(frozen=True)
class StartedRun:
    """There is a run to wait for.

    :param entry: its stored entry; the ``task_id`` is known.
    :param task: the run as the API returned it; None if it was started just now.
    :param verdicts: the verdicts of the budget right before the start.
    :param source_name: the name of what was started, if it is known.
    :param callback_token_sha256: digest of the token in the run's callback address; None if no callback can resume this
        try. The address of an earlier try has the id of that try.
    """

    entry: Entry
    task: Task | None = None
    verdicts: tuple[Verdict, ...] = ()
    source_name: str | None = None
    callback_token_sha256: str | None = None

    @property
    def task_id(self) -> str:
        """The BrowserAct task."""
        assert self.entry.task_id is not None
        return self.entry.task_id


@dataclass(frozen=True)
class StartRefused:
    """Nothing was started, because BrowserAct accepts no further run now."""

    error: ConcurrencyLimitError | RateLimitError


@dataclass(frozen=True)
class BudgetUsedUp:
    """The budget allows no run now.

    :param stopped: the BrowserAct task that was started at the same time as others, and then stopped; None if no run
        was started.
    """

    verdict: Verdict
    stopped: str | None = None


TriesStep: TypeAlias = "orphans.ReadClaims | orphans.Claim | Write"
"""A step that reads or stores what tries and mapped siblings share."""

Step: TypeAlias = "orphans.Step | BeforeStart | Write | BudgetStep"

Started: TypeAlias = StartedRun | StartRefused | BudgetUsedUp
"""The result of a start."""


def begin(start: Start, entry: Entry | None, clock: Callable[[], float]) -> Generator[Step, Any, Started]:
    """Reattach to the run that an earlier try has started, or start a new one.

    :returns: the run, or why none can be started now.
    :raises CapUsedUpError: earlier runs have used all credits that ``max_credits`` allows.
    :raises BudgetUnknownError: the account has a budget, and its credits cannot be counted.
    :raises LedgerError: the entry contradicts the API.
    :raises UnknownRunError: BrowserAct does not know the earlier run, and nobody has allowed another one.
    :raises OrphanError: it cannot be determined which run an earlier start created.
    :raises RunStartUnknownError: it is not known whether a start has created a run. The entry stays, so that a later
        try looks up the run.
    :raises BrowserActError: the start was refused, or the earlier run could not be read or stopped.
    """
    earlier = EarlierRuns()
    if entry is not None:
        found = yield from _reattach(start, entry, clock)
        if isinstance(found, StartedRun):
            return found
        earlier = found
    return (yield from _start(start, entry, earlier, clock))


def _reattach(start: Start, entry: Entry, clock: Callable[[], float]) -> Generator[Step, Any, StartedRun | EarlierRuns]:
    """Reattach to the run of an entry, or return the earlier runs if none of them can be used."""
    comparable = start.key_digest == entry.key_digest
    same = start.fingerprint == entry.fingerprint if comparable else start.request.source == entry.source
    if same and not comparable:
        yield LogLine(
            "The inputs cannot be compared with those of the earlier try, because the connection has another API key "
            "since then, or another version of the provider stored them. They count as unchanged.",
            logging.WARNING,
        )
    if entry.task_id is None:
        found = yield from _earlier_orphan(start, entry, same, clock)
        if found is None:
            return EarlierRuns(entry.earlier, start.spent_before(entry))
        entry = found
    task_id: str = entry.task_id or ""
    task = yield from _read_earlier(start, entry, task_id)
    spent = start.spent_before(entry)
    if task is None:
        return EarlierRuns((*entry.earlier, task_id), spent)
    if not same:
        of_another = entry.source != start.request.source
        why = f"it is a run of {entry.source}" if of_another else "an earlier try had other inputs or another profile"
        yield from _give_way(task, why)
    elif task.status in (TaskStatus.FAILED, TaskStatus.CANCELED):
        yield LogLine(f"BrowserAct task {task_id} of an earlier try has ended as {task.status}. Starting a new run.")
    elif not task.status.ended and entry.deferred and start.cleared_since(entry):
        yield from _give_way(task, "the Airflow task was cleared while it waited")
    else:
        # Someone may have changed an argument or cleared the task.
        current = replace(
            entry,
            deadline=entry.written_at + start.timeout,
            max_tries=start.max_tries,
            deferred=start.deferred,
            spent=spent,
        )
        if current != entry:
            yield Write(current)
        return StartedRun(current, task)
    if entry.max_tries == start.max_tries:
        spent += credits_of(task, start.credits_per_step)
    return EarlierRuns((*entry.earlier, task_id), spent)


def _read_earlier(start: Start, entry: Entry, task_id: str) -> Generator[Step, Any, Task | None]:
    """Read the run of an entry; return None if BrowserAct does not know it, and a person has allowed another one."""
    try:
        task: Task = yield from poll_run(task_id, entry.source.api_version)
    except TaskNotFoundError as error:
        unknown = f"BrowserAct does not know task {task_id} of an earlier try with this API key: {error.brief}."
        cleared = start.cleared_since(entry)
        if start.on_orphan is OnOrphan.FAIL and not cleared:
            # With a key of another account, the run may still be active there.
            raise UnknownRunError(
                f"{unknown} Nothing was started.\n{WHY_UNKNOWN} Make sure that no run is active. Then clear the task "
                "instance, which starts a new run."
            ) from error
        why = "the Airflow task was cleared" if cleared else f"on_orphan={start.on_orphan.value!r}"
        yield LogLine(
            f"{unknown} {WHY_UNKNOWN} If it is active in another account, it keeps using credits. Starting a new run, "
            f"because {why}.",
            logging.WARNING,
        )
        return None
    source = entry.source
    if not source.is_template and task.source_id not in (None, source.id):
        found = replace(source, id=task.source_id)
        raise LedgerError(
            f"it names BrowserAct task {task_id} as a run of {source}, but for BrowserAct it is a run of {found}"
        )
    return task


def _earlier_orphan(
    start: Start, entry: Entry, same: bool, clock: Callable[[], float]
) -> Generator[Step, Any, Entry | None]:
    """Find the run that an earlier try was about to start, and store it; return None if there is none."""
    yield LogLine("An earlier try was about to start a run and did not store the result. Looking for the run.")
    found = yield from find_orphan(
        Orphan(
            entry,
            start.request if same else None,
            created_until=entry.written_at + start.patience + timings.CLOCK_SKEW,
            listed_from=entry.written_at + start.patience + timings.LISTING_DELAY,
        ),
        start.on_orphan,
        clock,
    )
    if found is None:
        yield LogLine("No matching run was found.")
        return None
    entry = replace(entry, task_id=found.id, profile_id=found.profile_id or entry.profile_id)
    yield Write(entry)
    return entry


def _give_way(task: Task, why: str) -> Generator[Step, Any, None]:
    """Stop a run that is no longer wanted, if it is still running."""
    if task.status.ended:
        yield LogLine(f"BrowserAct task {task.id} has ended as {task.status}, but {why}. Starting a new run.")
        return
    with contextlib.suppress(*NOTHING_TO_STOP):
        yield APIS[task.api_version].stop_task(task.id)
    yield LogLine(f"BrowserAct task {task.id} was stopped, because {why}. Starting a new run.", logging.WARNING)


def _start(
    start: Start, before: Entry | None, earlier: EarlierRuns, clock: Callable[[], float]
) -> Generator[Step, Any, Started]:
    """Start a run, if the budget allows it. If certainly none was started, restore the earlier entry."""
    request: RunRequest = yield BeforeStart(start.request)
    check_cap(earlier.spent, start.max_credits)
    verdicts: tuple[Verdict, ...] = ()
    for number in range(1, MAX_STARTS + 1):
        # Check before each start: it can take minutes until it is known that the last start created no run.
        if start.budget is not None:
            verdicts = yield from check_budget(start.budget, request.source, start.max_credits, clock)
            if (refusing := refused_by(verdicts)) is not None:
                return BudgetUsedUp(refusing)
        # Right before the start, because a later try looks for runs that were created from this moment on.
        entry = start.entry(clock(), earlier)
        yield Write(entry)
        try:
            created: CreatedTask = yield request.call
        except BrowserActError as error:
            if error.not_processed:
                yield Write(before, over=True)
                if isinstance(error, ConcurrencyLimitError | RateLimitError):
                    return StartRefused(error)
                raise
            yield LogLine(
                f"It is not known whether BrowserAct started a run. Looking for it. {error.brief}", logging.WARNING
            )
            found = yield from _own_orphan(replace(start, request=request), entry, error, clock)
            if found is None:
                yield LogLine(f"No run was started (start {number} of {MAX_STARTS}).", logging.WARNING)
                yield Write(before, over=True)
                # The same request would be refused again.
                if number < MAX_STARTS and not isinstance(error, UnknownRefusalError):
                    continue
                raise
            created = CreatedTask(id=found.id, profile_id=found.profile_id)
            yield LogLine(f"BrowserAct task {found.id} is the run of this start.")
        entry = replace(entry, task_id=created.id, profile_id=created.profile_id)
        yield Write(entry)
        return StartedRun(
            entry,
            verdicts=verdicts,
            source_name=request.source_name,
            callback_token_sha256=request.callback_token_sha256,
        )
    raise AssertionError("the last start has returned or raised")


def stop_if_over_budget(started: StartedRun, clock: Callable[[], float]) -> Generator[Step, Any, BudgetUsedUp | None]:
    """Stop a new run if, with the runs that were started at the same time, it exceeds the budget.

    :returns: why the run was stopped; None if it keeps running, or has ended in the meantime.
    """
    refusing = yield from check_again(started.verdicts, started.task_id, clock)
    if refusing is None:
        return None
    api_version = started.entry.source.api_version
    try:
        yield APIS[api_version].stop_task(started.task_id)
        task = yield from poll_run(started.task_id, api_version)
        # The run may have finished or failed before the stop arrived, and its credits are used.
        kept = task.status in (TaskStatus.FINISHED, TaskStatus.FAILED)
    except NOTHING_TO_STOP:
        kept = True
    except BrowserActError as error:
        yield LogLine(f"BrowserAct task {started.task_id} {not_stopped(error, None)}", logging.ERROR)
        kept = True
    if kept:
        return None
    # A later try adds its credits to those of the earlier runs.
    yield Write(started.entry, over=True)
    return BudgetUsedUp(refusing, started.task_id)


def _own_orphan(
    start: Start, entry: Entry, error: BrowserActError, clock: Callable[[], float]
) -> Generator[Step, Any, Task | None]:
    """Find the run of a start that has failed with an error just now."""
    late = timings.LATE_START_DELAY if error.http_status in GATEWAY_STATUSES else timings.LISTING_DELAY
    listed_from = clock() + late
    orphan = Orphan(
        entry,
        start.request,
        created_until=listed_from - timings.LISTING_DELAY + timings.CLOCK_SKEW,
        listed_from=listed_from,
    )
    return (yield from find_orphan(orphan, start.on_orphan, clock))
