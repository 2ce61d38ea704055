"""Start a run, or reattach to the run of an earlier try. If the result of a start is not known, look up its run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api.models import CreatedTask, Task
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException
from airflow_provider_browseract.exceptions import (
    AuthenticationError,
    BrowserActError,
    ConcurrencyLimitError,
    ConnectionFieldError,
    InputError,
    InsufficientCreditsError,
    InvalidRequestError,
    RateLimitError,
    RunStartUnknownError,
    TaskNotFoundError,
    UnknownRefusalError,
)
from airflow_provider_browseract.loops import send_all
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.cap import CapUsedUpError, check_cap, credits_of
from airflow_provider_browseract.runs.report import WHY_UNKNOWN, error_text
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.runs.wait import stop_run
from airflow_provider_browseract.worker.ledger import UNTIL_CLEARED, Entry, id_of, unusable
from airflow_provider_browseract.worker.lost_start import LostStart
from airflow_provider_browseract.worker.matching import came_to_nothing, match_task
from airflow_provider_browseract.worker.own_run import UNKNOWN, OwnRun

if TYPE_CHECKING:
    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.runs.budget import Verdict

MAX_STARTS = 2
"""How often one try sends a start if the response was lost, but certainly no run was started."""

MAX_WRITES = 3
"""How often the entry of a start is stored before a request, if each time storing it takes long."""


@dataclass(frozen=True)
class Wanted:
    """What is to be run.

    :param max_credits: credits that all runs of the task instance may use together; None for no cap.
    :param before_start: checks what takes requests to other services, and returns the request to send.
    :param check_budget: checks the budget of the account; raises :class:`NotNowError` if it allows no run.
    """

    request: RunRequest
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


def start_or_reattach(run: OwnRun, wanted: Wanted, entry: Entry | None) -> Started:
    """Reattach to the run of an earlier try, or start a new one.

    :param entry: what the earlier try has stored.
    :raises NotNowError: no run can be started now.
    :raises AirflowFailException: nothing was started, and no retry can help.
    :raises RunStartUnknownError: it is not known whether a start has created a run. A later try looks it up.
    :raises BrowserActError: the start was refused, or the earlier run could not be read or stopped.
    """
    if entry is None:
        return _start(run, wanted, None, (), 0)
    settings, ti, request, before = run.hook.settings, run.ledger.ti, wanted.request, entry
    version, fingerprint = entry.source.api_version, request.fingerprint(settings.api_key)
    cleared, other_key = entry.max_tries != ti.max_tries, entry.key_digest != settings.key_digest
    certain = entry.is_proven(settings, ti)
    if not (certain or other_key):
        return _leave_alone(run, wanted, entry, cleared, "nothing proves that this task instance stored it")
    # Clearing the task begins a new count.
    spent = 0 if cleared else entry.spent
    same = entry.source == request.source and (other_key or entry.fingerprint == fingerprint)
    if entry.task_id is None:
        run.log.info("An earlier try was about to start a run and did not store the result. Looking for the run.")
        lost = LostStart(run, entry, request if same else None, entry.written_at + entry.longest_call)
        if (found := lost.find(cleared=cleared)) is None:
            if other_key and entry.source.is_template:
                # Another account, whose list this was, can run the same template, but no workflow or bot of this one.
                return _leave_alone(run, wanted, entry, cleared, "the API key has changed, and the run was not found")
            return _start(run, wanted, entry, entry.earlier, spent)
        entry, certain = replace(entry, task_id=found.id, profile_id=found.profile_id or entry.profile_id), True
        # If a new start is refused, it is stored again.
        entry = entry if other_key else entry.signed(settings, ti)
        run.follow(found.id, version)
        run.starting = False
    elif not certain:
        # Read it, but do not answer for it yet.
        run.follow(None, version)
    task_id = entry.task_id or ""
    task = _read_earlier(run, task_id, cleared=cleared)
    if task is not None and not certain:
        if not (same and match_task(task, entry, request)):
            why = "the API key has changed, and it is not certain that the run is one of this task instance"
            return _leave_alone(run, wanted, entry, cleared, why)
        run.log.warning("The API key has changed since the earlier try. Its run matches this task instance.")
        run.follow(task_id, version)
    if task is not None and _is_wanted(run, task, entry, wanted, same=same, cleared=cleared):
        # Someone may have changed an argument or the connection, or cleared the task.
        current = replace(entry, **_now(run, request), spent=spent).signed(settings, ti)
        if current != before:
            _remember(run, current)
        run.log.info("Reattaching to BrowserAct task %s that an earlier try started.", task_id)
        return Started(current, task, None)
    if task is not None and not cleared:
        spent += credits_of(task, settings.credits_per_step)
    return _start(run, wanted, entry, (*entry.earlier, task_id), spent)


def _now(run: OwnRun, request: RunRequest) -> dict[str, Any]:
    """Return the fields of an entry that depend on the connection and the try as they are now."""
    settings = run.hook.settings
    digests = {"fingerprint": request.fingerprint(settings.api_key), "key_digest": settings.key_digest}
    return {**digests, "connection": run.hook.browseract_conn_id, "max_tries": run.ledger.ti.max_tries}


def _leave_alone(run: OwnRun, wanted: Wanted, entry: Entry, cleared: bool, why: str) -> Started:
    """Fail or, if the task was cleared, start a new run; do nothing to the run that the entry names."""
    named = id_of(entry.task_id)
    if not cleared:
        raise unusable(why, named, UNTIL_CLEARED)
    then = f" The run that it names may be active and using credits: BrowserAct task {named}." if named else ""
    text = "The state that an earlier try stored about its run cannot be used: %s. %s"
    run.log.warning(text, why, f"Starting a new run, because the Airflow task was cleared.{then}")
    return _start(run, wanted, None, (named,) if named else (), 0)


def _read_earlier(run: OwnRun, task_id: str, *, cleared: bool) -> Task | None:
    """Read the run of an entry; return None if BrowserAct does not know it, and a person has cleared the task."""
    task = run.look(task_id)
    if isinstance(task, TaskNotFoundError) and task.code is not None:
        unknown = "BrowserAct does not know the run of an earlier try with this API key."
        if not cleared:
            # With a key of another account, the run may still be active there.
            run.task_id = None
            then = f"{WHY_UNKNOWN} Make sure that no run is active. Then {UNTIL_CLEARED}."
            why = f"{unknown} Nothing was started."
            raise AirflowFailException(error_text(why, then, about=task_id, codes=task.codes))
        then = "Starting a new run, because the Airflow task was cleared."
        text = "%s %s If it is active in another account, it keeps using credits. %s It was BrowserAct task %s."
        run.log.warning(text, unknown, WHY_UNKNOWN, then, task_id)
        return None
    if isinstance(task, BrowserActError):
        raise task
    return task


def _is_wanted(run: OwnRun, task: Task, entry: Entry, wanted: Wanted, *, same: bool, cleared: bool) -> bool:
    """Return whether to wait for the run of an earlier try. If not, stop it."""
    if not same:
        other = entry.source != wanted.request.source
        why = f"it is a run of {entry.source}" if other else "an earlier try had other inputs or another profile"
    elif came_to_nothing(task):
        run.log.info("The run of an earlier try has ended as %s. Starting a new run.", task.status)
        return False
    elif not task.status.ended and cleared:
        why = "the Airflow task was cleared"
    else:
        return True
    if task.status.ended:
        run.log.info("The run of an earlier try has ended as %s, but %s. Starting a new run.", task.status, why)
        return False
    text = "The run of an earlier try was stopped, because %s. Starting a new run. It was BrowserAct task %s."
    if not send_all(stop_run(task.id, APIS[task.api_version]), run.hook.client):
        seen = run.look(task.id)
        if same and isinstance(seen, Task) and not came_to_nothing(seen):
            # It has finished before the stop, and its result was never returned.
            return True
        text = "The run of an earlier try ended before its stop (%s). Starting a new run. It was BrowserAct task %s."
    run.log.warning(text, why, task.id)
    return False


@dataclass
class _Record:
    """Store the entry of a start right before each request that sends it.

    A process can freeze between the two, and Airflow can then start another try. So an entry that is no longer fresh
    is stored again, which Airflow refuses to a try that it has replaced.
    """

    run: OwnRun
    settings: Settings
    entry: Entry

    def __call__(self) -> None:
        run = self.run
        # A request before this one was certainly not processed.
        run.starting = False
        for _ in range(MAX_WRITES):
            run.check()
            if time.time() - self.entry.written_at <= timings.ENTRY_FRESH:
                break
            # If this fails, nothing is sent: a run that no later try would know about must not be started.
            self.entry = replace(self.entry, written_at=round(time.time(), 3)).signed(self.settings, run.ledger.ti)
            run.ledger.write(self.entry)
        run.check()
        run.starting = True


def _start(run: OwnRun, wanted: Wanted, before: Entry | None, earlier: tuple[str, ...], spent: int) -> Started:
    """Start a run, if cap and budget allow it. If certainly none was started, restore the entry before."""
    # From here on, this try no longer answers for a run of an earlier try.
    run.task_id = run.known_id = run.unproven = None
    run.starting = False
    request = wanted.before_start(wanted.request)
    run.source_name = request.source_name
    check_cap(spent, wanted.max_credits)
    for number in range(1, MAX_STARTS + 1):
        # Before each start: it takes minutes until it is known that the last start created no run.
        wanted.check_budget(request)
        settings = run.hook.settings
        known = {**_now(run, wanted.request), "longest_call": settings.longest_call, "earlier": earlier, "spent": spent}
        record = _Record(run, settings, Entry(request.source, **known, written_at=0.0))
        try:
            created: CreatedTask = run.hook.client.send(request.call, before=record)
            break
        except BrowserActError as error:
            found = None
            if not error.not_processed:
                text = "%s. Looking for it for up to %g seconds: %s"
                run.log.warning(text, UNKNOWN, timings.LIST_READS[-1], error.brief)
                found = LostStart(run, record.entry, request, time.time()).find()
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
    run.follow(created.id, request.source.api_version, stored=False)
    run.starting = False
    entry = replace(record.entry, task_id=created.id, profile_id=created.profile_id).signed(settings, run.ledger.ti)
    if _remember(run, entry):
        run.stored = True
    else:
        run.stop_if_replaced(created.id)
    what = f'"{request.source_name}"' if request.source_name else request.source
    run.log.info("Started a run of %s: BrowserAct task %s.", what, created.id)
    return Started(entry, None, request)


def _remember(run: OwnRun, entry: Entry | None) -> bool:
    """Store an entry, and return whether that was possible. If not, a later try looks for the run."""
    try:
        run.ledger.write(entry)
    except Exception:
        run.log.warning(
            "The state of the run could not be stored. A later try may be unable to reattach to the run directly. It "
            "then looks for the run first.",
            exc_info=True,
        )
        return False
    return True


def is_final(error: Exception, run: OwnRun, entry: Entry | None) -> bool:
    """Return whether no retry can help after a failed start.

    :param entry: what an earlier try has stored.
    """
    if isinstance(error, ConnectionFieldError) and entry is not None:
        # Someone may correct the field while the run of an earlier try is waited for.
        return False
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
    return (run.starting or run.start_unknown) and not run.ledger.is_kept
