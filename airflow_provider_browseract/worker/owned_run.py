"""The run that this process is responsible for, from just before its start until it has ended or is left to others."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.compat import AirflowFailException, AirflowTaskTimeout
from airflow_provider_browseract.exceptions import (
    NOTHING_TO_STOP,
    BrowserActError,
    ResultError,
    RunCanceledError,
    RunError,
    RunLostError,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.links import LiveViewLink
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.loops import Log
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import kept_running, log_url, not_stopped
from airflow_provider_browseract.worker.tries import NEXT_TRY, NO_LATER_TRY, Kill, Tries

if TYPE_CHECKING:
    from airflow_provider_browseract.runs.request import Source
    from airflow_provider_browseract.runs.starting import TriesStep, Write
    from airflow_provider_browseract.worker.conclusion import Conclusion

IF_NEXT_TRY = (
    "the next try reattaches to it if Airflow starts one. If Airflow starts none, nothing waits for the run: stop it "
    "in BrowserAct"
)
"""What happens to a run that is left without knowing whether there is a next try."""

IF_DEFERRED = "the triggerer waits for it if Airflow has accepted the deferral"
"""What happens to a run that is left while Airflow handles the deferral."""

Setting: TypeAlias = Literal["cancel_on_kill", "cancel_on_timeout"]
"""An argument of the operator that decides whether a run is stopped."""


@dataclass(frozen=True)
class Fate:
    """What happens to a run that this process no longer waits for: it was stopped, or exactly one of these applies.

    :param had_ended: it had already ended when it was to be stopped.
    :param error: why it could not be stopped.
    :param setting: the argument that disables the stop, so the run keeps running.
    :param continued_by: what continues to wait for the run, as a clause, so the run keeps running.
    """

    had_ended: bool = False
    error: Exception | None = None
    setting: Setting | None = None
    continued_by: str | None = None


STOPPED, HAD_ENDED = Fate(), Fate(had_ended=True)


class EndedBeforeKillError(RunError):
    """The infrastructure ended a try whose run had already ended, so only the result is left to read."""


class OwnedRun:
    """A run, everything needed to stop it at any moment, and whether this process is being killed.

    Airflow calls ``on_kill`` in a signal handler. The code that the signal has interrupted may hold any lock: of a log,
    of a connection pool, of Airflow's channel, of an import. So the handler itself does nothing that needs a lock: a
    thread decides about the run while the interrupted code continues, until it calls :meth:`raise_if_killed` or ends.

    Airflow may call ``on_kill`` even before the code of the operator has begun. The run then belongs to nobody yet.
    """

    def __init__(self) -> None:
        self.hook: BrowserActHook
        """The hook for the connection of the task instance."""
        self.log: Log
        """The task's log."""
        self.source: Source
        """What is to be run."""
        self.tries: Tries | None = None
        """The tries of the task instance; None before this one has begun."""
        self.cancel_on_kill = self.cancel_on_timeout = True
        """Whether the run is stopped when the task instance is killed, or when its time is over."""
        self.task_id: str | None = None
        """The BrowserAct task; None if this process is not responsible for any known run."""
        self.api_version: ApiVersion
        """The version of the API that knows this task. An earlier try may have run something of another version."""
        self.url: str | None = None
        """Address of the run's page, once it is known."""
        self.start_under_way = False
        """The start was recorded; its response has not arrived yet."""
        self.unconverted = False
        """The bot could not be read, so its input was not converted, and a refusal of the input may be temporary."""
        self._killed_at: float | None = None
        self.kill_error: RunError | None = None
        self.handed_over = False
        """The triggerer waits for the run, if Airflow has accepted the deferral."""
        self._executing = False
        self._decided: threading.Event | None = None
        """Set once the decision of a kill is carried out; None if no thread decides."""
        self.conclusion: Conclusion | None = None
        """The conclusion of the run, once it has ended."""

    def belong_to(self, source: Source, hook: BrowserActHook, log: Log, tries: Tries) -> None:
        """Set what the code of the operator knows when it begins."""
        self.source, self.hook, self.log, self.tries = source, hook, log, tries
        self.api_version = source.api_version

    def follow(self, browseract_task_id: str | None, api_version: ApiVersion) -> None:
        """Be responsible for a run from now on."""
        # A kill at any moment needs the version of the run.
        self.api_version = api_version
        self.task_id = browseract_task_id

    @property
    def killed(self) -> bool:
        """Whether this process is being ended."""
        return self._killed_at is not None

    @contextmanager
    def executing(self) -> Iterator[None]:
        """Run the code of the operator, and do not leave it before the decision of a kill is carried out."""
        self._executing = True
        try:
            yield
        except KeyboardInterrupt:
            # In dag.test(), nothing calls on_kill.
            self.kill(Kill("interrupted (Ctrl-C)", wanted=True))
            raise
        finally:
            self._executing = False
            self.await_decision()

    def describe(self, fate: Fate) -> str:
        """Describe in a sentence what happens to the run, and name the setting that decides it."""
        if fate.error is not None:
            return f"The run {not_stopped(fate.error, self.url)}"
        if fate.setting is not None:
            return f"The run {kept_running(fate.setting, self.url)}"
        if fate.continued_by is not None:
            where = f" Its page is {self.url}." if self.url else ""
            return f"The run keeps running, and {fate.continued_by}.{where}"
        return "The run had already ended." if fate.had_ended else "The run was stopped."

    def stops_on(self, setting: Setting) -> bool:
        """Return whether the setting is ``True``."""
        return self.cancel_on_kill if setting == "cancel_on_kill" else self.cancel_on_timeout

    # The methods take the id of the run, because a kill may have reset the attribute in the meantime.

    def stop(self, browseract_task_id: str, *, within: float | None = None) -> Fate:
        """Stop the run. A failure is returned and never raised; the caller logs it.

        :param within: seconds that the stop may take; None for the limits of the connection.
        """
        try:
            # Anything that interrupts this, such as execution_timeout, calls on_kill, which then stops the run.
            with self.hook.client_within(within) as client:
                client.send(APIS[self.api_version].stop_task(browseract_task_id))
            fate = STOPPED
        except NOTHING_TO_STOP:
            fate = HAD_ENDED
        except Exception as error:  # noqa: BLE001 - whatever fails, the caller reports that the run was not stopped
            self.task_id = None
            return Fate(error=error)
        self.task_id = None
        if within is None and self.tries is not None:
            with tolerate_errors():
                LiveViewLink().push(self.tries.ti, LiveViewLink.OVER)
        return fate

    def stop_if(self, setting: Setting, browseract_task_id: str, *, within: float | None = None) -> Fate:
        """Stop the run if the setting is ``True``."""
        if self.stops_on(setting):
            return self.stop(browseract_task_id, within=within)
        self.task_id = None
        return Fate(setting=setting)

    def leave_to_next_try(self, error: BaseException) -> Fate | None:
        """Leave the run to the next try; return None if there is no next try, and the run must still be stopped."""
        if self.tries is None or not self.tries.another(error):
            return None
        self.task_id = None
        return Fate(continued_by=NEXT_TRY)

    def must_end(self) -> bool:
        """Return whether this process is being ended and must no longer wait for the results of an ended run.

        If no other try can read them, this one waits for as long as Airflow lets a killed process live.
        """
        if self._killed_at is None:
            return False
        another = self.tries is not None and self.tries.another(ResultError("not read"))
        return another or time.monotonic() - self._killed_at >= timings.KILL_LIMIT

    def on_kill(self) -> None:
        """Carry out the operator's ``on_kill``, at most once."""
        # After execution_timeout, Airflow calls this while it handles the exception: no code is interrupted, and no
        # time limit applies.
        timed_out = isinstance(sys.exc_info()[1], AirflowTaskTimeout)
        if self.killed:
            if timed_out:
                self.await_decision()
            return
        self._killed_at = time.monotonic()
        if timed_out:
            self.kill(Kill("execution_timeout ended the Airflow task", wanted=True), hurried=False)
            return
        # An exception may interrupt the wait for an event, and leaves it usable. Thread.join does not guarantee that.
        self._decided = decided = threading.Event()
        threading.Thread(target=self._decide_in_thread, args=(decided,), name="browseract-on-kill", daemon=True).start()
        if not self._executing:
            # No code that follows waits for the decision, and the process may end.
            decided.wait(timings.HANDLER_LIMIT)

    def _decide_in_thread(self, decided: threading.Event) -> None:
        try:
            self._decide()
        finally:
            decided.set()

    def _decide(self) -> None:
        if self.task_id is not None:
            self.kill()
        elif self.start_under_way:
            self.log.warning(
                "Killed during the start of a run of %s. If no line below names its BrowserAct task, a run may be "
                "running and using credits. A later try looks for it. If there is no later try, check the newest "
                "tasks in the BrowserAct dashboard.",
                self.source,
            )

    def await_decision(self) -> None:
        """Wait until the decision of a kill is carried out, if one is under way."""
        if self._decided is not None:
            self._decided.wait()

    def kill(self, kill: Kill | None = None, *, hurried: bool = True) -> None:
        """Stop the run of a try that is being killed, unless another try reattaches to it, and store the error.

        :param kill: why the try is killed; None to ask Airflow.
        :param hurried: whether Airflow ends the process after a few seconds.
        """
        began = time.monotonic()
        if self._killed_at is None:
            self._killed_at = began
        task_id = self.task_id
        if task_id is None:
            self._decide()
            return
        kill = kill or self._why_killed(task_id)
        if kill.continued_by is not None:
            self.task_id = None
            fate = Fate(continued_by=kill.continued_by)
        else:
            # Even late, a stop is worth a try: the process may live for longer than Airflow promises.
            within = max(timings.KILL_LIMIT / 2, timings.KILL_LIMIT - (time.monotonic() - began)) if hurried else None
            fate = self.stop_if("cancel_on_kill", task_id, within=within)
        self.kill_error = self._error_of_kill(task_id, kill, fate)
        self.log.warning("%s", self.kill_error)

    def _why_killed(self, task_id: str) -> Kill:
        """Ask Airflow why this try is killed, and decide without its response if there is none."""
        if self.tries is None:
            return Kill("the Airflow task was killed")
        another = self.tries.another(RunLostError(f"BrowserAct task {task_id} keeps running."))
        reason = self.tries.ask_why_killed()
        unknown = "the Airflow task was killed; Airflow did not report why"
        to = IF_DEFERRED if self.handed_over else IF_NEXT_TRY if another else None
        # If nothing would wait for the run, it is stopped whatever the reason is.
        found = reason.found(timings.KILL_LIMIT if to else timings.KILL_LIMIT / 2)
        if found is None and to is not None:
            self.log.warning(
                "Killed while waiting for BrowserAct task %s. Airflow has not reported yet whether a person has ended "
                "the task. %s If no line below reports something else, this applies.",
                task_id,
                self.describe(Fate(continued_by=to)),
            )
            found = reason.found(timings.KILL_PATIENCE)
        reason.give_up()
        if found is None:
            return Kill(unknown if to else f"{unknown}; {NO_LATER_TRY}", continued_by=to)
        if found.wanted or found.continued_by is not None:
            return found
        if self.handed_over:
            # Until Airflow has accepted the deferral, it reports the task instance as running.
            return replace(found, continued_by=IF_DEFERRED)
        return (
            replace(found, continued_by=NEXT_TRY)
            if another
            else replace(found, reason=f"{found.reason}; {NO_LATER_TRY}")
        )

    def _error_of_kill(self, task_id: str, kill: Kill, fate: Fate) -> RunError:
        message = f"Killed while waiting for BrowserAct task {task_id}: {kill.reason}.\n{self.describe(fate)}"
        if fate.setting is not None or fate.continued_by is not None:
            return RunLostError(message)
        if fate.had_ended and not kill.wanted:
            return EndedBeforeKillError(f"{message} Reading its result.")
        return RunCanceledError(message)

    def raise_if_killed(self) -> None:
        """Raise the error of a kill, because Airflow lets the code continue after its signal handler.

        :raises RunError: the try was killed.
        """
        if self.killed:
            self.await_decision()
            if self.kill_error is None and self.task_id is not None:
                # The signal came before the run was known.
                self.kill()
            raise self.kill_error or RunCanceledError("Killed before a run was started.")

    def kill_if_not_running(self) -> None:
        """Act as if killed when Airflow no longer wants this try to run.

        Airflow would refuse the deferral, and would notify neither this process nor a trigger.
        """
        # During the request, a signal may have come for the same reason.
        if self.tries is not None and not self.tries.is_running() and not self.killed:
            self.kill()

    def stop_if_deferral_was_refused(self) -> None:
        """Stop the run if a person has ended the task after the last check and before Airflow accepted the deferral.

        Airflow then calls neither ``on_kill`` of this process nor that of a trigger.
        """
        if self.tries is None:
            return
        with tolerate_errors(self.log.warning, "Airflow did not report whether it has accepted the deferral (%s)."):
            kill = None if self.killed else self.tries.why_killed()
            # During the request, a signal may have come for the same reason.
            if kill is not None and kill.wanted and not self.killed:
                self.handed_over = False
                self.kill(kill)
        self.await_decision()

    def read(self, browseract_task_id: str) -> Task:
        """Read the run."""
        from airflow_provider_browseract.worker.reading import get_run

        task = get_run(self.hook, browseract_task_id, self.api_version)
        self.url = log_url(task)
        return task

    def has_ended(self, task: Task) -> None:
        """Be responsible for the run no longer.

        :raises RunCanceledError: this process has stopped the run. The error states why.
        """
        if task.status is TaskStatus.CANCELED:
            self.await_decision()
            if isinstance(self.kill_error, RunCanceledError):
                raise self.kill_error
        self.task_id, self.url = None, log_url(task)

    def carry_out(self, step: TriesStep) -> Any:
        """Carry out a step of a start that reads or stores what tries and mapped siblings share."""
        from airflow_provider_browseract.runs.orphans import Claim, ReadClaims
        from airflow_provider_browseract.runs.starting import Write

        assert self.tries is not None
        match step:
            case ReadClaims():
                return self.tries.claimed()
            case Claim():
                return self.tries.claim(step.task_id)
            case Write():
                return self._write(step)

    def _write(self, step: Write) -> None:
        """Store an entry for later tries, and set what ``on_kill`` needs, which Airflow may call at any moment."""
        assert self.tries is not None
        entry = step.entry
        if step.starts:
            self.raise_if_killed()
        self.start_under_way = step.starts
        if step.over or entry is None:
            self.task_id = None
        else:
            self.follow(entry.task_id, entry.source.api_version)
        try:
            self.tries.write(entry)
        except Exception:
            if self.start_under_way:
                # Nothing was started yet. A run that no later try would know about must not be started.
                self.start_under_way = False
                raise
            self.log.warning(
                "The state of the run could not be stored. A later try may be unable to reattach to the run directly. "
                "It then looks for the run first.",
                exc_info=True,
            )

    @contextmanager
    def accounted_for(self, browseract_task_id: str) -> Iterator[None]:
        """Wait for a started run in this context. Every error that ends the wait states what happens to the run.

        After an unexpected error, the run is left to a later try. If there is none, the run is stopped.
        """
        try:
            yield
        except (RunError, AirflowFailException):
            raise
        except Exception as error:  # noqa: BLE001 - raised again as an error that states what happens to the run
            what = error.brief if isinstance(error, BrowserActError) else f"{type(error).__name__}: {error}"
            reason = (
                f"Stopped waiting for BrowserAct task {browseract_task_id}, because an unexpected error occurred "
                f"({what.rstrip('.')})."
            )
            fate = self.leave_to_next_try(RunLostError(reason)) or self.stop(browseract_task_id)
            # Show only the traceback of the original error.
            lost = RunLostError(f"{reason}\n{self.describe(fate)}\nThe traceback shows where the error occurred.")
            raise lost.with_traceback(error.__traceback__) from None

    def give_up(
        self,
        browseract_task_id: str | None,
        why: str,
        *,
        remedy: str,
        overdue: bool = False,
        unknown: bool = False,
    ) -> RunLostError:
        """Leave the run to the next try, or stop it if there is none or its time is over, and return the error.

        :param why: why this try stops waiting, as a clause.
        :param remedy: what the user can do, as a sentence.
        :param unknown: BrowserAct does not know the run, so neither a retry nor a refused stop is a promise.
        """
        why = why.rstrip(".")
        if browseract_task_id is None:
            return RunLostError(
                f"Stopped waiting for a run of {self.source}, because {why}.\n"
                "The run may keep running and using credits, and its id is not known here. Check the newest tasks in "
                f"the BrowserAct dashboard.\n{remedy}"
            )
        reason = f"Stopped waiting for BrowserAct task {browseract_task_id}, because {why}."
        left = None if overdue else self.leave_to_next_try(RunLostError(reason))
        fate = left or self.stop_if("cancel_on_timeout", browseract_task_id)
        known = not unknown or fate == STOPPED or fate.error is not None
        state = self.describe(fate) if known else "It is not known whether the run is still active."
        return RunLostError(f"{reason}\n{state}\n{remedy}")


def started_task_id(ti: Any) -> str | None:
    """Return the BrowserAct task that a task instance pushed as an XCom; None if there is none."""
    found = ti.xcom_pull(task_ids=ti.task_id, key="task_id", map_indexes=ti.map_index)
    return found if isinstance(found, str) else None


def started_version(ti: Any) -> ApiVersion | None:
    """Return the version of the API of the run that a task instance has shown; None if it has shown none."""
    shown = ti.xcom_pull(task_ids=ti.task_id, key="task", map_indexes=ti.map_index)
    return ApiVersion.of(shown.get("api_version")) if isinstance(shown, Mapping) else None
