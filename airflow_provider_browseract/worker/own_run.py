"""The run that this process answers for: read it, stop it, or leave it to others, also while the process is killed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.compat import AirflowTaskTimeout, task_instance_state
from airflow_provider_browseract.exceptions import (
    CHECK_NEWEST,
    BrowserActError,
    RunCanceledError,
    RunError,
    RunLostError,
)
from airflow_provider_browseract.in_airflow.links import LiveViewLink
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.loops import CHECK_INTERVAL, send_all, sleep
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import brief_of, error_text, kept_running, log_url, not_stopped
from airflow_provider_browseract.runs.wait import stop_run
from airflow_provider_browseract.worker.fate import ENDED, STOPPED, UNKNOWN, Fate, Kind, Waiter, left_to, looked_up_by
from airflow_provider_browseract.worker.killed import ask_airflow, why_ended, why_killed

if TYPE_CHECKING:
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.runs.log import Log
    from airflow_provider_browseract.runs.request import Source
    from airflow_provider_browseract.worker.conclude import Conclusion
    from airflow_provider_browseract.worker.ledger import Ledger
    from airflow_provider_browseract.worker.lost_start import LostStart


class OwnRun:
    """A run, everything needed to stop it at any moment, and whether this process is being killed.

    Airflow calls ``on_kill`` in a signal handler. The code that the signal has interrupted may hold any lock: of a log,
    of a connection pool, of Airflow's channel, of an import. So the handler itself does nothing that needs a lock: a
    thread decides about the run while the interrupted code continues, until its next :meth:`check`.

    Airflow may call ``on_kill`` even before the code of the operator has begun. The run then belongs to nobody yet.
    """

    hook: BrowserActHook
    log: Log
    source: Source
    ledger: Ledger
    cancel_on_kill = True
    # The BrowserAct task; None if this process does not answer for any known run.
    task_id: str | None = None
    # The version of the API that knows it. An earlier try may have run something of another version.
    api_version = ApiVersion.V2
    # The last BrowserAct task that this process has answered for, and the name of what was run.
    known_id: str | None = None
    source_name: str | None = None
    # The address of the run's page.
    url: str | None = None
    # The run that the state of an earlier try names, until it is known whether it is the run of this task instance.
    unproven: str | None = None
    # A later try can find the run in the stored state.
    stored = True
    # The start was recorded, by this try or an earlier one, and it is not known whether there is a run.
    starting = False
    # The start that is being looked up.
    lost: LostStart | None = None
    # Its outcome is unknown, and this try no longer looks for it.
    start_unknown = False
    # The bot could not be read, so its input was not converted, and a refusal of the input may be temporary.
    unconverted = False
    # The triggerer waits for the run, if Airflow has accepted the deferral.
    handed_over = False
    # The conclusion of the run, once it has ended.
    conclusion: Conclusion | None = None
    # The error of a kill.
    error: RunError | None = None
    # The infrastructure ends this process, and its run had already ended, so only the result is left to read.
    had_ended = False
    _executing = False
    # The thread that decides about the run now, and whether Airflow ends the process after a few seconds.
    _deciding: int | None = None
    _hurried = True
    # Set once the decision of a kill is carried out; None if this process is not being killed.
    _decided: threading.Event | None = None

    def begin(self, source: Source, hook: BrowserActHook, log: Log, ledger: Ledger, *, cancel_on_kill: bool) -> None:
        """Set what the code of the operator knows when it begins."""
        self.source, self.hook, self.log, self.ledger = source, hook, log, ledger
        self.cancel_on_kill, self.api_version = cancel_on_kill, source.api_version

    def follow(self, browseract_task_id: str | None, api_version: ApiVersion, *, stored: bool = True) -> None:
        """Answer for a run from now on, or for none.

        :param stored: a later try can find it in the stored state.
        """
        # A kill at any moment needs the version of the run.
        self.api_version, self.stored = api_version, stored
        self.task_id = browseract_task_id
        if browseract_task_id is not None:
            self.known_id, self.unproven, self.starting = browseract_task_id, None, False

    def leave_start_unknown(self) -> None:
        """Give up a start whose outcome is unknown."""
        self.starting, self.start_unknown = False, True

    # Requests

    def sleep(self, seconds: float) -> None:
        """Sleep until the time is over, or until a kill has found that the run has ended.

        :raises RunError: the try was killed.
        """
        sleep(seconds, self.check)

    def look(self, browseract_task_id: str) -> Task | BrowserActError:
        """Read the run, and return it; or the error, if that fails."""
        # Only workers need it, and DAG files import this module.
        from airflow_provider_browseract.worker.look import look

        seen = look(self.hook, browseract_task_id, self.api_version)
        if isinstance(seen, Task):
            self.url = log_url(seen) or self.url
        return seen

    # These methods decide what happens to the run. They take the id, because a kill may reset the attribute at any
    # moment.

    def leave(self, error: BaseException) -> Fate | None:
        """Leave the run to the next try; return None if there is none after this error."""
        if not self.ledger.another_try(error):
            return None
        self.task_id = None
        return self._left_to(Waiter.NEXT_TRY)

    def _left_to(self, waiter: Waiter) -> Fate:
        """Return the fate of the run, or of a start that is looked up, if something else waits for it."""
        return left_to(waiter, self.url) if self.lost is None else looked_up_by(waiter)

    def stop(self, browseract_task_id: str, *, within: float | None = None) -> Fate:
        """Stop the run. A failure is returned and never raised.

        :param within: seconds that the stop may take; None for the limits of the connection.
        """
        try:
            # Anything that interrupts this, such as execution_timeout, calls on_kill, which then stops the run.
            with self.hook.client_within(within) as client:
                stopped = send_all(stop_run(browseract_task_id, APIS[self.api_version]), client)
            fate = STOPPED if stopped else ENDED
        except Exception as error:  # noqa: BLE001 - whatever fails, the caller reports that the run was not stopped
            fate = Fate(Kind.RUNS, f"The run {not_stopped(error, self.url)}")
        self.task_id = None
        if within is None and self.url is not None and fate.kind is not Kind.RUNS:
            # The live view is no longer available.
            with tolerate_errors():
                LiveViewLink().push(self.ledger.ti, self.url)
        return fate

    def stop_on_kill(self, browseract_task_id: str, *, within: float | None = None) -> Fate:
        """Stop the run, unless ``cancel_on_kill=False`` forbids it."""
        if self.cancel_on_kill:
            return self.stop(browseract_task_id, within=within)
        self.task_id = None
        return Fate(Kind.RUNS, f"The run {kept_running(self.url)}")

    # Kills

    @property
    def killed(self) -> bool:
        """Whether this process is being killed."""
        return self._decided is not None

    @contextmanager
    def executing(self) -> Iterator[None]:
        """Run the code of the operator, and do not leave it before the decision of a kill is carried out."""
        self._executing = True
        try:
            yield
        except KeyboardInterrupt:
            # In dag.test(), nothing calls on_kill.
            self._kill("interrupted (Ctrl-C)")
            raise
        finally:
            self._executing = False
            self.await_decision()

    def on_kill(self) -> None:
        """Carry out the operator's ``on_kill``, at most once."""
        # After execution_timeout, Airflow calls this while it handles the exception: no code is interrupted, and no
        # time limit applies.
        if isinstance(sys.exc_info()[1], AirflowTaskTimeout):
            if self._deciding == threading.get_ident():
                # SIGTERM has interrupted the decision itself.
                self._hurried = True
            elif self.killed:
                self.await_decision()
            else:
                self._kill("execution_timeout ended the Airflow task", hurried=False)
        elif not self.killed:
            # An exception may interrupt the wait for an event, and leaves it usable. Thread.join does not promise that.
            self._decided = decided = threading.Event()
            threading.Thread(target=self._decide, args=(decided,), name="browseract-on-kill", daemon=True).start()
            if not self._executing:
                # No code that follows waits for the decision, and the process may end.
                decided.wait(timings.HANDLER_LIMIT)

    def _kill(self, why: str, *, hurried: bool = True) -> None:
        self._decided = self._decided or threading.Event()
        self._decide(self._decided, why, hurried=hurried)

    def await_decision(self) -> None:
        """Wait until the decision of a kill is carried out, if one is under way."""
        if self._decided is not None:
            self._decided.wait()

    def check(self) -> bool:
        """Raise the error of a kill, because Airflow lets the code continue after its signal handler.

        :returns: whether this process is being killed and its run had ended, so that only the result is left to read.
        :raises RunError: the try was killed.
        """
        if self._decided is None:
            return False
        self._decided.wait()
        if self.error is None and (self.task_id is not None or self.lost is not None):
            # The signal came before the run was known.
            self._decide(self._decided)
        if not self.had_ended:
            raise self.error or RunCanceledError("Killed before a run was started.")
        return True

    def stop_if_replaced(self) -> None:
        """Act as if killed if Airflow has started another try, because only this one knows the run.

        :raises RunError: Airflow has started another try.
        """
        with tolerate_errors():
            if self.ledger.is_of_another_try():
                self.on_kill()
        self.check()

    def stop_if_unwanted(self) -> None:
        """Act as if killed when Airflow no longer wants this try to run.

        Airflow would refuse the deferral, and would notify neither this process nor a trigger.
        """
        with tolerate_errors():
            # During the request, a signal may have come for the same reason.
            if task_instance_state(self.ledger.ti) != "running":
                self.on_kill()

    def stop_if_nobody_waits(self) -> None:
        """Ask Airflow right after the deferral, and once more later, and stop a run that is not waited for.

        A person may have ended the task before Airflow accepted the deferral, or before the trigger began, which takes
        one to two seconds. Airflow then calls neither ``on_kill`` of this process nor that of a trigger.
        """
        began = time.monotonic()
        for pause in (0.0, timings.TRIGGER_BEGINS):
            if self.killed:
                break
            time.sleep(pause)
            found, asking = ask_airflow(partial(why_ended, self.ledger), time.monotonic() + timings.RESPONSE_LIMIT)
            asking.join(timings.RESPONSE_LIMIT)
            if not found and pause == 0.0:
                self.log.warning("Airflow did not report in time whether it has accepted the deferral.")
            # Later, the trigger may have ended the wait.
            if (why := next(iter(found), None)) and time.monotonic() - began <= timings.HAND_OVER_LIMIT:
                self._stop_unless_ended(why)
        self.await_decision()

    def _stop_unless_ended(self, why: str) -> None:
        ended = False
        with tolerate_errors():
            # The end of the task may be that of the process that was resumed.
            ended = isinstance(seen := self.look(self.known_id or ""), Task) and seen.status.ended
        # During the requests, a signal may have come for the same reason.
        if not (ended or self.killed):
            self._kill(why)

    def has_ended(self, task: Task) -> None:
        """Answer for the run no longer.

        :raises RunCanceledError: this process has stopped the run. The error states why.
        """
        if task.status is TaskStatus.CANCELED:
            self.await_decision()
            if isinstance(self.error, RunCanceledError):
                raise self.error
        self.task_id, self.url = None, log_url(task)

    def _decide(self, decided: threading.Event, why: str | None = None, *, hurried: bool = True) -> None:
        """Stop the run of a try that is being killed, unless something else waits for it, and keep the error.

        :param why: what a person or a time limit has done to the try; None to ask Airflow.
        :param hurried: whether Airflow ends the process after a few seconds.
        """
        began, self._deciding, self._hurried = time.monotonic(), threading.get_ident(), hurried
        try:
            task_id, lost = self.task_id, self.lost
            if task_id is None and lost is None:
                if self.starting:
                    self.log.warning(
                        "Killed during the start of a run of %s. If no line below names its BrowserAct task, a run may "
                        "be running and using credits. A later try looks for it. If there is no later try, check the "
                        "newest tasks in the BrowserAct dashboard.",
                        self.source,
                    )
                return
            reason, waits, wanted = self._why_killed() if why is None else (why, None, True)
            if task_id is None and lost is not None:
                fate = self._end_look_up(lost, waits)
            elif waits is not None:
                self.task_id = None
                fate = self._left_to(waits)
            else:
                # Try to stop the run even late: the process may live longer than Airflow promises.
                left = max(timings.KILL_LIMIT / 2, timings.KILL_LIMIT - (time.monotonic() - began))
                fate = self.stop_on_kill(task_id or "", within=left if hurried else None)
            if fate.kind is Kind.ENDED and not wanted:
                self.had_ended = True
                self.log.warning("Killed: %s.\n%s Reading its result.", reason, fate.text)
                return
            killed = error_text(f"Killed: {reason}.", fate.text, about=task_id or self.known_id)
            kept = fate.kind is Kind.LEFT or not self.cancel_on_kill
            self.error = RunLostError(killed) if kept else RunCanceledError(killed)
            self.log.warning("%s", self.error)
        finally:
            self._deciding = None
            decided.set()

    def _why_killed(self) -> tuple[str, Waiter | None, bool]:
        unstored = None if self.stored else self.task_id
        return why_killed(self.ledger, self.log, self._left_to, handed_over=self.handed_over, unstored=unstored)

    def _end_look_up(self, lost: LostStart, waits: Waiter | None) -> Fate:
        """Stop the run that a lost start has created if it is certain by now which one it is.

        :param waits: what looks for the run next, if something does.
        """
        self.leave_start_unknown()
        if waits is not None:
            return looked_up_by(waits)
        if not self.cancel_on_kill:
            return Fate(Kind.RUNS, f"{UNKNOWN}. If so, it {kept_running(None)}")
        # Before that moment, our run may be missing in the list, and one that matches may be of another task instance.
        listed_from = lost.ended_at + timings.LIST_READS[0]
        while not self._hurried and time.time() < listed_from:
            time.sleep(CHECK_INTERVAL)
        early = time.time() < listed_from
        try:
            with self.hook.client_within(timings.KILL_LIMIT / 2 if self._hurried else None) as client:
                listed = lost.read(client)
        except Exception as error:  # noqa: BLE001 - the start stays unknown, whatever fails
            return Fate(Kind.RUNS, f"{UNKNOWN}, and looking for it failed: {brief_of(error)}. {CHECK_NEWEST}")
        if (found := listed.certain) is None or early:
            return Fate(Kind.RUNS, f"{UNKNOWN}. {CHECK_NEWEST} {lost.names_of(listed)}".rstrip())
        self.start_unknown = False
        self.follow(found.id, lost.entry.source.api_version)
        self.log.info("The run of this start was found: BrowserAct task %s.", found.id)
        return self.stop(found.id)
