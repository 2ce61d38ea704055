"""Start a run, or reattach to the run of an earlier try. If the result of a start is not known, look up its run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_provider_browseract.api.models import CreatedTask, Task
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException
from airflow_provider_browseract.exceptions import (
    NOTHING_TO_STOP,
    AuthenticationError,
    BrowserActError,
    ConcurrencyLimitError,
    InputError,
    InsufficientCreditsError,
    InvalidRequestError,
    RateLimitError,
    RunStartUnknownError,
    TaskNotFoundError,
    UnknownRefusalError,
)
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.cap import CapUsedUpError, check_cap, credits_of
from airflow_provider_browseract.runs.report import WHY_UNKNOWN, error_text
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.worker.ledger import Entry, unusable
from airflow_provider_browseract.worker.matching import came_to_nothing, match_task
from airflow_provider_browseract.worker.run import Run

if TYPE_CHECKING:
    from airflow_provider_browseract.runs.budget import Verdict

MAX_STARTS = 3
"""How often one try sends a start if each time the response was lost, but certainly no run was started."""

GATEWAY_STATUSES = (408, 502, 503, 504)
"""HTTP statuses with which a gateway responds to a start that BrowserAct may still carry out."""

MAX_NAMED = 10
"""Possible runs that a message names."""


@dataclass(frozen=True)
class Wanted:
    """What is to be run.

    :param deferred: the task instance waits deferred. If it is cleared during the wait, no worker is notified, and the
        triggerer may be notified too late to stop the run.
    :param max_credits: credits that all runs of the task instance may use together; None for no cap.
    :param before_start: checks what takes requests to other services, and returns the request to send.
    :param check_budget: checks the budget of the account; raises :class:`NotNowError` if it allows no run.
    """

    request: RunRequest
    deferred: bool
    max_credits: int | None
    before_start: Callable[[RunRequest], RunRequest]
    check_budget: Callable[[RunRequest], None]


@dataclass(frozen=True)
class Started:
    """There is a run to wait for.

    :param task: the run of an earlier try, as the API returned it; None if the run was started just now.
    :param request: the request that has started it; None for the run of an earlier try. The callback address in its
        request has the id of that try, so no callback can resume this one.
    """

    entry: Entry
    task: Task | None
    request: RunRequest | None

    @property
    def task_id(self) -> str:
        """The BrowserAct task."""
        assert self.entry.task_id is not None
        return self.entry.task_id


class NotNowError(Exception):
    """Nothing was started: BrowserAct accepts no further run now, or the budget of the account allows none.

    :param why: the refusal.
    """

    def __init__(self, why: ConcurrencyLimitError | RateLimitError | Verdict) -> None:
        super().__init__(why)
        self.why = why


def start_or_reattach(run: Run, wanted: Wanted, entry: Entry | None) -> Started:
    """Reattach to the run of an earlier try, or start a new one.

    :param entry: what the earlier try has stored.
    :raises NotNowError: no run can be started now.
    :raises AirflowFailException: nothing was started, and no retry can help.
    :raises RunStartUnknownError: it is not known whether a start has created a run. A later try looks it up.
    :raises BrowserActError: the start was refused, or the earlier run could not be read or stopped.
    """
    if entry is None:
        return _start(run, wanted, None, (), 0)
    settings, cleared = run.hook.settings, entry.max_tries != run.ledger.ti.max_tries
    # Clearing the task begins a new count.
    spent = 0 if cleared else entry.spent
    comparable = entry.key_digest == settings.key_digest
    same = entry.source == wanted.request.source
    if comparable:
        same = entry.fingerprint == wanted.request.fingerprint(settings.api_key)
    elif same:
        run.log.warning(
            "The inputs cannot be compared with those of the earlier try, because the connection has another API key "
            "since then. They count as unchanged."
        )
    if entry.task_id is None:
        run.log.info("An earlier try was about to start a run and did not store the result. Looking for the run.")
        listed_from = entry.written_at + settings.longest_call + timings.LISTING_DELAY
        found = find_lost_run(run, entry, wanted.request if same else None, listed_from, cleared=cleared)
        if found is None:
            return _start(run, wanted, entry, entry.earlier, spent)
        entry = replace(entry, task_id=found.id, profile_id=found.profile_id or entry.profile_id)
        run.follow(entry.task_id, entry.source.api_version)
        run.starting = False
        _remember(run, entry)
    task_id = entry.task_id or ""
    task = _read_earlier(run, entry, task_id, cleared=cleared)
    if task is not None and _is_wanted(run, task, entry, wanted, same=same, cleared=cleared):
        # Someone may have changed an argument or cleared the task.
        current = replace(entry, max_tries=run.ledger.ti.max_tries, deferred=wanted.deferred, spent=spent)
        if current != entry:
            _remember(run, current)
        run.log.info("Reattaching to BrowserAct task %s that an earlier try started.", task_id)
        return Started(current, task, None)
    if task is not None and not cleared:
        spent += credits_of(task, settings.credits_per_step)
    return _start(run, wanted, entry, (*entry.earlier, task_id), spent)


def _read_earlier(run: Run, entry: Entry, task_id: str, *, cleared: bool) -> Task | None:
    """Read the run of an entry; return None if BrowserAct does not know it, and a person has cleared the task."""
    task = run.look(task_id)
    if isinstance(task, TaskNotFoundError) and task.code is not None:
        unknown = "BrowserAct does not know the run of an earlier try with this API key."
        if not cleared:
            # With a key of another account, the run may still be active there.
            run.task_id = None
            then = "Make sure that no run is active. Then clear the task instance, which starts a new run."
            raise AirflowFailException(
                error_text(f"{unknown} Nothing was started.", f"{WHY_UNKNOWN} {then}", about=task_id, codes=task.codes)
            )
        run.log.warning(
            "%s %s If it is active in another account, it keeps using credits. Starting a new run, because the Airflow "
            "task was cleared. It was BrowserAct task %s.",
            unknown,
            WHY_UNKNOWN,
            task_id,
        )
        return None
    if isinstance(task, BrowserActError):
        raise task
    source = entry.source
    if not source.is_template and task.source_id not in (None, source.id):
        found = replace(source, id=task.source_id)
        run.task_id = None
        raise unusable(f"it names a run of {source}, but for BrowserAct it is a run of {found}", {"task_id": task_id})
    return task


def _is_wanted(run: Run, task: Task, entry: Entry, wanted: Wanted, *, same: bool, cleared: bool) -> bool:
    """Return whether to wait for the run of an earlier try. If not, stop it."""
    if not same:
        other = entry.source != wanted.request.source
        why = f"it is a run of {entry.source}" if other else "an earlier try had other inputs or another profile"
    elif came_to_nothing(task):
        run.log.info("The run of an earlier try has ended as %s. Starting a new run.", task.status)
        return False
    elif not task.status.ended and entry.deferred and cleared:
        why = "the Airflow task was cleared while it waited"
    else:
        return True
    if task.status.ended:
        run.log.info("The run of an earlier try has ended as %s, but %s. Starting a new run.", task.status, why)
        return False
    with suppress(*NOTHING_TO_STOP):
        run.hook.client.send(APIS[task.api_version].stop_task(task.id))
    run.log.warning(
        "The run of an earlier try was stopped, because %s. Starting a new run. It was BrowserAct task %s.",
        why,
        task.id,
    )
    return False


def _start(run: Run, wanted: Wanted, before: Entry | None, earlier: tuple[str, ...], spent: int) -> Started:
    """Start a run, if cap and budget allow it. If certainly none was started, restore the entry before."""
    # From here on, this try no longer answers for a run of an earlier try.
    run.task_id, run.known_id, run.starting = None, None, False
    request = wanted.before_start(wanted.request)
    run.source_name = request.source_name
    check_cap(spent, wanted.max_credits)
    settings = run.hook.settings
    for number in range(1, MAX_STARTS + 1):
        # Before each start: it can take minutes until it is known that the last start created no run.
        wanted.check_budget(request)
        run.check()
        entry = Entry(
            request.source,
            wanted.request.fingerprint(settings.api_key),
            settings.key_digest,
            # Right before the start, because a later try looks for runs that were created from this moment on.
            time.time(),
            run.ledger.ti.max_tries,
            wanted.deferred,
            earlier=earlier,
            spent=spent,
        )
        # If this fails, nothing was started: a run that no later try would know about must not be started.
        run.ledger.write(entry)
        run.check()
        run.starting = True
        try:
            created: CreatedTask = run.hook.client.send(request.call)
            break
        except BrowserActError as error:
            found = None
            if not error.not_processed:
                run.log.warning("It is not known whether BrowserAct started a run. Looking for it. %s", error.brief)
                late = timings.LATE_START_DELAY if error.http_status in GATEWAY_STATUSES else timings.LISTING_DELAY
                found = find_lost_run(run, entry, request, time.time() + late)
            if found is not None:
                created = CreatedTask(id=found.id, profile_id=found.profile_id)
                run.log.info("The run of this start was found: BrowserAct task %s.", found.id)
                break
            run.starting = False
            _remember(run, before)
            if isinstance(error, ConcurrencyLimitError | RateLimitError):
                raise NotNowError(error) from None
            # The same request would be refused again.
            if error.not_processed or number == MAX_STARTS or isinstance(error, UnknownRefusalError):
                raise
            run.log.warning("No run was started (start %d of %d).", number, MAX_STARTS)
    run.follow(created.id, request.source.api_version)
    run.starting = False
    entry = replace(entry, task_id=created.id, profile_id=created.profile_id)
    _remember(run, entry)
    what = f'"{request.source_name}"' if request.source_name else request.source
    run.log.info("Started a run of %s: BrowserAct task %s.", what, created.id)
    return Started(entry, None, request)


def _remember(run: Run, entry: Entry | None) -> None:
    """Store an entry. If that fails, a later try looks for the run."""
    try:
        run.ledger.write(entry)
    except Exception:
        run.log.warning(
            "The state of the run could not be stored. A later try may be unable to reattach to the run directly. It "
            "then looks for the run first.",
            exc_info=True,
        )


def find_lost_run(
    run: Run, entry: Entry, request: RunRequest | None, listed_from: float, *, cleared: bool = False
) -> Task | None:
    """Find the run that a start has created although the response was lost.

    :param request: what was to be run; None if that is no longer known.
    :param listed_from: before this moment, in seconds since the epoch, the run may be missing in the list of tasks.
    :param cleared: a person has cleared the task since then, and so wants a new run if this one is not certain.
    :returns: the run; None if there is certainly none.
    :raises RunStartUnknownError: the list of tasks cannot be read to its end.
    :raises AirflowFailException: it cannot be determined which of several tasks is the run.
    """
    # Also while the process is being killed: the run that is found is then stopped.
    time.sleep(max(0.0, listed_from - time.time()))
    try:
        listed = _list_tasks(run, entry, listed_from)
    except BrowserActError as error:
        message = f"It is not known whether BrowserAct started a run, and looking for it failed: {error.message}"
        raise RunStartUnknownError.after(error, message) from error
    siblings = _runs_of_siblings(run)
    matches = [(task, match_task(task, entry, request)) for task in listed if task.id not in siblings]
    possible = [task for task, match in matches if match is not False]
    usable = [task for task in possible if not came_to_nothing(task)]
    # Undecided runs beside a certain one are older, or their inputs cannot be read.
    certain = [task for task, match in matches if match and task in (usable or possible)]
    if len(certain) == 1:
        return certain[0]
    if not usable:
        run.log.info("No matching run was found.")
        return None
    lost = "A start may have created a run, but it is not certain that it is one of those below."
    named = f"BrowserAct tasks of {entry.source}: {_names_of(usable)}."
    if cleared:
        run.log.warning("%s Starting a new run, because the Airflow task was cleared. %s", lost, named)
        return None
    # The error names the runs.
    run.leave_start_unknown()
    raise AirflowFailException(
        error_text(
            lost,
            "In the BrowserAct dashboard, stop the runs below that no Airflow task waits for. Then clear the Airflow "
            "task, which starts a new run.",
            named,
        )
    )


def _list_tasks(run: Run, entry: Entry, listed_from: float) -> list[Task]:
    """Return all tasks that were created in the time of a start.

    :raises BrowserActError: the list cannot be read to its end.
    """
    since = datetime.fromtimestamp(entry.written_at - timings.CLOCK_SKEW, timezone.utc)
    until = datetime.fromtimestamp(listed_from - timings.LISTING_DELAY + timings.CLOCK_SKEW, timezone.utc)
    # A list does not name the template of a run.
    source_id = None if entry.source.is_template else entry.source.id
    call = APIS[entry.source.api_version].list_tasks(source_id=source_id, created_at_from=since, created_at_to=until)
    listed = run.hook.client.iter_items(call)
    return [task for task in listed if task.created_at is None or since <= task.created_at <= until]


def _runs_of_siblings(run: Run) -> set[str]:
    """Return the runs of the other task instances of the same mapped task."""
    ti = run.ledger.ti
    found = ti.xcom_pull(task_ids=[ti.task_id], key="task_id") if ti.map_index >= 0 else None
    return {each for each in found or () if isinstance(each, str)}


def _names_of(tasks: Sequence[Task]) -> str:
    """Return the ids of tasks, the newest first, each with its status and time."""
    since = datetime.min.replace(tzinfo=timezone.utc)
    newest = sorted(tasks, key=lambda task: task.created_at or since, reverse=True)
    created = [task.created_at for task in newest]
    times = [f", created at {at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC" if at else "" for at in created]
    names = [f"{task.id} ({task.status}{at})" for task, at in zip(newest, times, strict=True)]
    return ", ".join(names[:MAX_NAMED]) + (f", and {len(tasks) - MAX_NAMED} more" if len(tasks) > MAX_NAMED else "")


def is_final(error: Exception, run: Run, entry: Entry | None) -> bool:
    """Return whether no retry can help after a failed start.

    :param entry: what an earlier try has stored.
    """
    if isinstance(error, InputError | CapUsedUpError | AirflowFailException):
        return True
    if isinstance(error, AirflowNotFoundException | InsufficientCreditsError | AuthenticationError):
        # Someone may add credits or replace the key before the next try. Until then, a start costs nothing. Airflow
        # also does not find a connection if its database or a secrets backend does not respond.
        return False
    if isinstance(error, RunStartUnknownError):
        # The next try knows the time of this start, and looks for the run again.
        return not run.ledger.is_kept
    if isinstance(error, UnknownRefusalError) and run.task_id is None:
        # Nobody knows what the code means, so a later try must not send the start once more.
        return bool(error.code or error.trace_id)
    if isinstance(error, BrowserActError):
        # A response of a gateway, a firewall or a maintenance page has no BrowserAct code, and is temporary.
        # An earlier run stays valuable whatever error the API returns.
        refused = not error.temporary and error.code is not None and entry is None
        return refused and not (run.unconverted and isinstance(error, InvalidRequestError))
    return run.starting and not run.ledger.is_kept
