"""Start a run, or reattach to the run of an earlier try. If the result of a start is not known, look up its run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api.models import CreatedTask, Task
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    ConcurrencyLimitError,
    RateLimitError,
    RunStartUnknownError,
    UnknownRefusalError,
)
from airflow_provider_browseract.hooks.connection import budget_of
from airflow_provider_browseract.loops import send_all
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import WHY_UNKNOWN, error_text
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.runs.wait import is_unknown_run, stop_run
from airflow_provider_browseract.spending.cap import check_cap
from airflow_provider_browseract.worker.fate import UNKNOWN
from airflow_provider_browseract.worker.ledger import UNTIL_CLEARED, UNUSABLE, Entry, id_of, not_certain
from airflow_provider_browseract.worker.lost_start import Listed, LostStart
from airflow_provider_browseract.worker.matching import match_task
from airflow_provider_browseract.worker.own_run import OwnRun

if TYPE_CHECKING:
    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.spending.budget import Verdict

MAX_STARTS = 2
"""How often one try sends a start if the response was lost, but certainly no run was started."""

MAX_WRITES = 3
"""How often the entry of a start is stored before a request, if each time storing it takes long."""

STARTING_ANEW = "Starting a new run, because the Airflow task was cleared."
MAYBE = "The response to a start was lost. Each run below may be the one that it created."


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


@dataclass
class Start:
    """Starts a run, or reattaches to the run of an earlier try.

    :param run: the run that this process answers for.
    :param request: what is to be run.
    :param max_credits: credits that all runs of the task instance may use together; None for no cap.
    :param before_start: checks what takes requests to other services, and returns the request to send.
    """

    run: OwnRun
    request: RunRequest
    max_credits: int | None
    before_start: Callable[[RunRequest], RunRequest]

    def begin(self, entry: Entry | None) -> Started:
        """Reattach to the run of an earlier try, or start a new one.

        :param entry: what the earlier try has stored.
        :raises NotNowError: no run can be started now.
        :raises AirflowFailException: nothing was started, and no retry can help.
        :raises RunStartUnknownError: it is not known whether a start has created a run. A later try looks it up.
        :raises BrowserActError: the start was refused, or the earlier run could not be read or stopped.
        """
        if entry is None:
            return self._start()
        settings = self.run.hook.settings
        # Whether it is certain that this task instance has stored the entry.
        self.proven = entry.is_proven(settings, self.run.ledger.ti)
        # Whether a person has cleared the task since then. This begins a new count of credits.
        self.cleared = entry.max_tries != self.run.ledger.ti.max_tries
        # With another API key, the inputs cannot be compared, and are assumed to be unchanged.
        self.other_key = entry.key_digest != settings.key_digest
        same = self.other_key or entry.fingerprint == self.request.fingerprint(settings.api_key)
        self.same = same and entry.source == self.request.source
        if not (self.proven or self.other_key):
            return self._leave_alone(entry, "nothing proves that this task instance stored it")
        if entry.task_id is None:
            return self._look_up_or_start(entry)
        if not self.proven:
            # Read it, but do not answer for it yet.
            self.run.follow(None, entry.source.api_version)
        return self._reattach_or_start(entry, entry)

    def _spent(self, entry: Entry) -> int:
        return 0 if self.cleared else entry.spent

    def _look_up_or_start(self, entry: Entry) -> Started:
        """Find the run of an earlier try that has not stored the result of its start, or start a new one."""
        self.run.log.info("An earlier try was about to start a run and did not store the result. Looking for the run.")
        request = self.request if self.same else None
        lost = LostStart(self.run.ledger.ti, entry, request, entry.written_at + entry.longest_call)
        if (found := _find(self.run, lost, cleared=self.cleared)) is not None:
            started = replace(entry, task_id=found.id, profile_id=found.profile_id or entry.profile_id)
            # If a new start is refused, it is stored again.
            started = started if self.other_key else started.signed(self.run.hook.settings, self.run.ledger.ti)
            self.run.follow(found.id, entry.source.api_version)
            self.proven = True
            return self._reattach_or_start(started, entry)
        if self.other_key and entry.source.is_template:
            # Another account, whose list this was, can run the same template, but no workflow or bot of this one.
            return self._leave_alone(entry, "the API key has changed, and the run was not found")
        return self._start(entry, entry.earlier, self._spent(entry))

    def _reattach_or_start(self, entry: Entry, before: Entry) -> Started:
        """Reattach to the run of an earlier try if it is still wanted, or start a new one.

        :param before: what is stored now.
        """
        spent, task_id = self._spent(entry), entry.task_id or ""
        task = self._read_earlier(task_id)
        if task is None:
            return self._start(entry, (*entry.earlier, task_id), spent)
        if not self.proven:
            if not (self.same and match_task(task, entry, self.request)):
                why = "the API key has changed, and it is not certain that the run is one of this task instance"
                return self._leave_alone(entry, why)
            self.run.log.warning("The API key has changed since the earlier try. Its run matches this task instance.")
            self.run.follow(task_id, entry.source.api_version)
        if not self._is_wanted(task, entry):
            spent += 0 if self.cleared else task.credits_so_far
            return self._start(entry, (*entry.earlier, task_id), spent)
        # Someone may have changed an argument or the connection, or cleared the task.
        current = replace(entry, **self._now(), spent=spent).signed(self.run.hook.settings, self.run.ledger.ti)
        if current != before:
            self._remember(current)
        self.run.log.info("Reattaching to BrowserAct task %s that an earlier try started.", task_id)
        return Started(current, task, None)

    def _now(self) -> dict[str, Any]:
        """Return the fields of an entry that depend on the connection and the try as they are now."""
        settings = self.run.hook.settings
        digests = {"fingerprint": self.request.fingerprint(settings.api_key), "key_digest": settings.key_digest}
        return {**digests, "connection": self.run.hook.browseract_conn_id, "max_tries": self.run.ledger.ti.max_tries}

    def _leave_alone(self, entry: Entry, why: str) -> Started:
        """Fail or, if the task was cleared, start a new run; do nothing to the run that the entry names."""
        named = id_of(entry.task_id)
        self._check_cleared(UNUSABLE.format(why), named)
        return self._start(earlier=(named,) if named else ())

    def _check_cleared(self, reason: str, task_id: str | None, codes: str = "") -> None:
        """Fail unless a person has cleared the task, and so wants a new run beside one that may be active."""
        if not self.cleared:
            raise not_certain(reason, UNTIL_CLEARED, task_id, codes)
        active = f" A run may be active and using credits: BrowserAct task {task_id}." if task_id else ""
        self.run.log.warning("%s %s%s", reason, STARTING_ANEW, active)

    def _read_earlier(self, task_id: str) -> Task | None:
        """Read the run of an entry; return None if BrowserAct does not know it, and a person has cleared the task."""
        task = self.run.look(task_id)
        if isinstance(task, Task):
            return task
        if not is_unknown_run(task):
            raise task
        # With a key of another account, the run may still be active there.
        self.run.task_id = None
        unknown = f"BrowserAct does not know the run of an earlier try with this API key. {WHY_UNKNOWN}"
        self._check_cleared(unknown, task_id, task.codes)
        return None

    def _is_wanted(self, task: Task, entry: Entry) -> bool:
        """Return whether to wait for the run of an earlier try. If not, stop it."""
        source, status = entry.source, task.status
        if source != self.request.source:
            why = f"it is a run of {source}"
        elif not self.same:
            why = "an earlier try had other inputs or another profile"
        elif status.came_to_nothing:
            why = "it has no result"
        elif status.ended or not self.cleared:
            return True
        else:
            why = "the Airflow task was cleared"
        what = f"has ended as {status}"
        if not status.ended:
            what = "was stopped"
            if not send_all(stop_run(task.id, APIS[task.api_version]), self.run.hook.client):
                seen, what = self.run.look(task.id), "ended before its stop"
                if self.same and isinstance(seen, Task) and not seen.status.came_to_nothing:
                    # It has finished before the stop, and its result was never returned.
                    return True
        text = "The run of an earlier try %s. Starting a new run, because %s. It was BrowserAct task %s."
        self.run.log.warning(text, what, why, task.id)
        return False

    def _start(self, before: Entry | None = None, earlier: tuple[str, ...] = (), spent: int = 0) -> Started:
        """Start a run, if cap and budget allow it. If certainly none was started, restore the entry before."""
        run = self.run
        # From here on, this try no longer answers for a run of an earlier try.
        run.task_id = run.known_id = run.unproven = None
        run.starting = False
        request = self.before_start(self.request)
        run.source_name = request.source_name
        check_cap(spent, self.max_credits)
        for number in range(1, MAX_STARTS + 1):
            # Before each start: it takes minutes until it is known that the last start created no run.
            _check_budget(run, self.max_credits, request)
            settings = run.hook.settings
            known = {**self._now(), "longest_call": settings.longest_call, "earlier": earlier, "spent": spent}
            record = _Record(run, settings, Entry(request.source, **known, written_at=0.0))
            try:
                return self._started(record, request, run.hook.client.send(request.call, before=record))
            except BrowserActError as error:
                if not error.not_processed:
                    text = "%s. Looking for it for up to %g seconds: %s"
                    run.log.warning(text, UNKNOWN, timings.LIST_READS[-1], error.brief)
                    if found := _find(run, LostStart(run.ledger.ti, record.entry, request, time.time())):
                        run.log.info("The run of this start was found: BrowserAct task %s.", found.id)
                        return self._started(record, request, CreatedTask(id=found.id, profile_id=found.profile_id))
                run.starting = False
                self._remember(before)
                if isinstance(error, ConcurrencyLimitError | RateLimitError):
                    raise NotNowError(error) from None
                # The same request would be refused again.
                if error.not_processed or number == MAX_STARTS or isinstance(error, UnknownRefusalError):
                    raise
                run.log.warning("No run was started (start %d of %d).", number, MAX_STARTS)
        raise AssertionError("the last start has raised its error")

    def _started(self, record: _Record, request: RunRequest, created: CreatedTask) -> Started:
        """Answer for a new run from now on, and store it."""
        run = self.run
        run.follow(created.id, request.source.api_version, stored=False)
        entry = replace(record.entry, task_id=created.id, profile_id=created.profile_id)
        entry = entry.signed(record.settings, run.ledger.ti)
        if self._remember(entry):
            run.stored = True
        else:
            run.stop_if_replaced()
        what = f'"{request.source_name}"' if request.source_name else request.source
        run.log.info("Started a run of %s: BrowserAct task %s.", what, created.id)
        return Started(entry, None, request)

    def _remember(self, entry: Entry | None) -> bool:
        """Store an entry, and return whether that was possible. If not, a later try looks for the run."""
        try:
            self.run.ledger.write(entry)
        except Exception:
            self.run.log.warning(
                "The state of the run could not be stored. A later try may be unable to reattach to the run directly. "
                "It then looks for the run first.",
                exc_info=True,
            )
            return False
        return True


# Look up the run of a lost start


def _find(run: OwnRun, lost: LostStart, *, cleared: bool = False) -> Task | None:
    """Return the run; None if there is certainly none. A kill ends this, and decides what happens to the run.

    :param cleared: a person has cleared the task since then, and so wants a new run if this one is not certain.
    :raises RunStartUnknownError: the list of tasks cannot be read to its end, or the clocks differ.
    :raises AirflowFailException: some tasks may be the run, and none certainly is.
    :raises RunError: the try was killed.
    """
    run.lost = lost
    try:
        listed = _read_when_listed(run, lost)
    except Exception:
        run.lost = None
        raise
    run.lost = None
    if listed.certain is not None:
        return listed.certain
    if not listed.usable and listed.clocks is None:
        run.log.info("No matching run was found.")
        return None
    why = MAYBE if listed.usable else f"{UNKNOWN}. {listed.clocks}"
    if cleared:
        run.log.warning("%s %s %s", why, STARTING_ANEW, lost.names_of(listed))
        return None
    if not listed.usable:
        raise RunStartUnknownError(why)
    # The error names the runs.
    run.leave_start_unknown()
    stop = "In the BrowserAct dashboard, stop the runs below that no Airflow task waits for."
    raise AirflowFailException(error_text(why, f"{stop} Then {UNTIL_CLEARED}.", lost.names_of(listed)))


def _read_when_listed(run: OwnRun, lost: LostStart) -> Listed:
    """Wait until the run must be in the list, and return what the list shows then, or earlier if it has the run."""
    moments = lost.moments()
    for moment in moments:
        run.sleep(moment - time.time())
        try:
            listed = lost.read(run.hook.client)
        except BrowserActError as error:
            if moment is moments[-1]:
                message = f"{UNKNOWN}, and looking for it failed: {error.message}"
                raise RunStartUnknownError.after(error, message) from error
            run.log.warning("The list of tasks could not be read: %s", error.brief)
            continue
        run.check()
        if listed.certain is not None or moment is moments[-1]:
            break
    return listed


# The steps of a start


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


def _check_budget(run: OwnRun, max_credits: int | None, request: RunRequest) -> None:
    if (budget := budget_of(run.hook.settings)) is not None:
        from airflow_provider_browseract.worker.budget import refusal_of

        if (verdict := refusal_of(run, budget, max_credits, request)) is not None:
            raise NotNowError(verdict)
