"""Start the run of an operator or reattach to the run of an earlier try, and wait for a slot in between."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    BrowserActError,
    ConcurrencyLimitError,
    InsufficientCreditsError,
    RunStartUnknownError,
    UnknownRefusalError,
)
from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException, AirflowTaskTimeout
from airflow_provider_browseract.hooks.connection import no_connection
from airflow_provider_browseract.hooks.steps import run_steps, sleep
from airflow_provider_browseract.links.showing import show_wait
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.arguments import InputError
from airflow_provider_browseract.runs.ledger import STATE_KEY, Entry, LedgerError
from airflow_provider_browseract.runs.orphans import AskClaimed, Claim, OrphanError
from airflow_provider_browseract.runs.outcome import NoSlotError, RunLostError
from airflow_provider_browseract.runs.queueing import Active, Queued, QueueWait, count_active, pause_after
from airflow_provider_browseract.runs.report import IF_NO_LINE_FOLLOWS
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.runs.starting import BeforeStart, Start, StartedRun, StartRefused, Write, begin
from airflow_provider_browseract.worker.owned_run import OwnedRun
from airflow_provider_browseract.worker.tries import Kill, Tries

if TYPE_CHECKING:
    from airflow.sdk import Context

NO_SLOT_NOW = "BrowserAct has no free slot now; %s. BrowserAct has refused the start %s. Waiting for at most %s. (%s)%s"
TOO_MANY_REQUESTS = (
    "BrowserAct has received too many requests; %s. BrowserAct has refused the start %s. Waiting for at most %s. (%s)%s"
)


@dataclass(repr=False)
class Starter:
    """Start a run, or reattach to the run of an earlier try.

    :param run: the run that this process is responsible for.
    :param tries: the tries of the task instance.
    :param prepare: checks the arguments, and returns the wanted start.
    :param check: checks everything that needs another service, such as the store. It is called before a run is started.
    """

    run: OwnedRun
    tries: Tries
    prepare: Callable[[], Start]
    check: Callable[[RunRequest], None]
    _entry: Entry | None = field(default=None, init=False)
    _wanted: Start | None = field(default=None, init=False)

    def begin(self) -> StartedRun | StartRefused:
        """Start the run or reattach to it.

        :returns: the run, or the refusal if there is no free slot now.
        :raises AirflowFailException: something is wrong that no retry can fix.
        :raises RunError: the run of an earlier try could not be read.
        """
        for pause in (*timings.RECHECK_PAUSES, None):
            try:
                return self._begin()
            except Exception as error:  # noqa: BLE001 - tried again, or raised by fail_to_start
                if pause is None or not _connection_may_change(error):
                    fail_to_start(error, self.run, self.tries, self._entry)
                conn_id = self.run.hook.browseract_conn_id
                self.run.log.warning(
                    "%s\nTrying again in %g seconds, because someone may be changing the connection right now, or "
                    "Airflow could not read it.",
                    error.brief if isinstance(error, BrowserActError) else no_connection(conn_id),
                    pause,
                )
                sleep(pause, self.run.raise_if_killed)
            except AirflowTaskTimeout:
                if self.tries.remembered or not self.run.start_under_way:
                    raise
                raise AirflowFailException(
                    f"execution_timeout expired during the start of {self.run.source}. It is not known whether "
                    f"BrowserAct started a run.\n{RunStartUnknownError.remedy}"
                ) from None
            except KeyboardInterrupt:
                self.run.kill(Kill("interrupted (Ctrl-C)", wanted=True))
                raise
            finally:
                self._report_unknown_start()
        raise AssertionError("the last round has returned or raised")

    def _begin(self) -> StartedRun | StartRefused:
        run = self.run
        self._entry = None
        self._entry = entry = self.tries.read()
        run.task_id = entry.task_id if entry else None
        self._wanted = self.prepare()
        started = run_steps(begin(self._wanted, entry, time.time), run.hook.client, run.log, self._do)
        if isinstance(started, StartRefused):
            return started
        run.task_id = started.task_id
        if started.task is None:
            run.log.info("Started BrowserAct task %s of %s.", started.task_id, run.source)
        else:
            run.log.info("Reattaching to BrowserAct task %s that an earlier try started.", started.task_id)
        return started

    def _do(self, step: BeforeStart | Write | AskClaimed | Claim) -> Any:
        if isinstance(step, AskClaimed):
            return self.tries.claimed()
        if isinstance(step, Claim):
            return self.tries.claim(step.task_id)
        if isinstance(step, Write):
            return self._write(step)
        # No run of an earlier try is running any more. While one is, a missing store must not fail the task.
        self.run.task_id = None
        assert self._wanted is not None
        self.check(self._wanted.request)
        return None

    def _write(self, step: Write) -> None:
        """Store an entry for later tries, and set what on_kill needs, which Airflow may call at any moment."""
        run, entry = self.run, step.entry
        if step.starts:
            run.raise_if_killed()
        run.start_under_way = step.starts
        run.task_id = None if step.over or entry is None else entry.task_id
        try:
            self.tries.write(entry)
        except Exception:
            if run.start_under_way:
                # Nothing was started yet. A run that no later try would know about must not be started.
                run.start_under_way = False
                raise
            run.log.warning(
                "The state of the run could not be stored. A later try may be unable to reattach to the run directly. "
                "It then looks for the run first.",
                exc_info=True,
            )

    def _report_unknown_start(self) -> None:
        if not self.run.start_under_way:
            return
        another = self.tries.another(RunStartUnknownError(""))
        self.run.log.error(
            "It is not known whether BrowserAct started a run. A run may be running and using credits. %s",
            "The next try looks for it." if another else RunStartUnknownError.remedy,
        )
        self.run.start_under_way = False


def fail_to_start(error: Exception, run: OwnedRun, tries: Tries, entry: Entry | None) -> NoReturn:
    """Raise an error that Airflow retries or does not retry, and that states what happens to the run of an earlier try.

    :param error: why there is no run to wait for.
    :param run: the run that this process is responsible for.
    :param tries: the tries of the task instance.
    :param entry: what an earlier try has stored, if anything.
    """
    if isinstance(error, LedgerError):
        raise AirflowFailException(
            f"The state that an earlier try stored about its run cannot be used: {str(error).rstrip('.')}. Nothing "
            "was started or stopped.\nMake sure that no run is running. Then delete the key "
            f"{STATE_KEY} from the task state of this task instance, or set reattach=False."
        ) from None
    message, final = _verdict(error, run, tries, entry)
    if (task_id := run.task_id) is not None:
        earlier = f"{message}\nBrowserAct task {task_id} of an earlier try: "
        left = None if final else run.leave_to_next_try(RunLostError(earlier))
        message = f"{earlier}{run.describe(left or run.stop_if('cancel_on_kill', task_id))}"
        if not final:
            raise RunLostError(message) from None
    elif final and entry is not None and entry.task_id is None:
        message = f"{message}\nAn earlier try may have started a run. {RunStartUnknownError.remedy}"
    if final:
        raise AirflowFailException(message) from None
    raise error


def _verdict(error: Exception, run: OwnedRun, tries: Tries, entry: Entry | None) -> tuple[str, bool]:
    """Return the message for an error, and whether retries are useless."""
    message = str(error)
    if isinstance(error, AirflowNotFoundException):
        # Airflow also raises this if its database or a secrets backend does not respond.
        return no_connection(run.hook.browseract_conn_id), entry is None
    if isinstance(error, InputError | OrphanError):
        return message, True
    if isinstance(error, RunStartUnknownError):
        # The next try knows the time of this start, and looks for the run again.
        return message, not tries.remembered
    if isinstance(error, InsufficientCreditsError):
        # Someone may add credits before the next try. Until then, a start costs nothing.
        return message, False
    if isinstance(error, UnknownRefusalError) and run.task_id is None:
        # Nobody knows what the code means, so a later try must not send the start once more.
        return message, bool(error.code or error.trace_id)
    if isinstance(error, BrowserActError):
        # A response of a gateway, a firewall or a maintenance page has no BrowserAct code, and is temporary.
        # An earlier run stays valuable whatever error the API returns.
        return message, not error.temporary and error.code is not None and entry is None
    if run.start_under_way and not tries.remembered:
        return f"{type(error).__name__}: {message.rstrip('.')}.\n{RunStartUnknownError.remedy}", True
    return message, False


def _connection_may_change(error: Exception) -> bool:
    """Return whether a start failed because of the connection, and a change of the connection can fix that."""
    if isinstance(error, AuthenticationError):
        return error.code is not None
    return isinstance(error, AirflowNotFoundException)


def wait_in_queue(
    run: OwnedRun, context: Context, full: StartRefused, queued: Queued, limit: float, defer: Callable[..., Any] | None
) -> None:
    """Wait until there may be a free slot, in this worker or, by raising the deferral, in the triggerer.

    :param run: the run that this process is responsible for.
    :param context: the context of the Airflow task.
    :param full: the refusal of the start.
    :param queued: how long the task instance has been in the queue, including this refusal.
    :param limit: seconds that the task instance may be in the queue.
    :param defer: the operator's ``defer``; None to wait in this worker.
    :raises NoSlotError: the limit is reached.
    """
    run.raise_if_killed()
    about_slots = isinstance(full.error, ConcurrencyLimitError)
    # HTTP 429 is not about the number of runs, and counting sends further requests.
    active = _count_active(run) if about_slots else None
    shown = _active_runs(active, queued) if about_slots else "it accepts no start for a while"
    now, until = time.time(), queued.began + limit
    if now >= until:
        if run.tries is not None:
            run.tries.give_up_place()
        raise NoSlotError(
            f"BrowserAct had no free slot within {_in_words(limit)} and refused {queued.refusals} starts; {shown}. "
            f"No run was started.\n{full.error}\nRaise queue_timeout to wait longer for a slot."
        )
    run.log.info(
        NO_SLOT_NOW if about_slots else TOO_MANY_REQUESTS,
        shown,
        "once" if queued.refusals == 1 else f"{queued.refusals} times",
        _in_words(until - now),
        full.error.message,
        "" if defer is None else f" {IF_NO_LINE_FOLLOWS}",
    )
    # At the first refusal, the only run may just have ended.
    if about_slots and active is not None and active.number == 0 and queued.refusals == 2:
        run.log.warning(
            "BrowserAct refuses the start although no run is active. The task tries again with increasing pauses. If "
            "this continues, check the plan in the BrowserAct dashboard."
        )
    number = None if active is None else active.number
    show_wait(context["ti"], None, {"waits_for": "slot", "refusals": queued.refusals, "active_runs": number}, run.log)
    pause = max(pause_after(queued.refusals, random.random), full.error.retry_after or 0.0)
    pause = min(pause, timings.LONGEST_RETRY_AFTER)
    if defer is None:
        sleep(min(pause, until - now), run.raise_if_killed)
        run.raise_if_killed()
        return
    from airflow_provider_browseract.triggers.slot import SlotTrigger

    wait = QueueWait(
        queued,
        max(until, now + timings.CORE_RACE_GRACE),
        source=str(run.source),
        active=number,
        pause=None if about_slots else pause,
        handed_over=run.hook.settings.webhook_base_url is not None,
        key_digest=run.hook.settings.client.key_digest,
    )
    defer(
        trigger=SlotTrigger(browseract_conn_id=run.hook.browseract_conn_id, wait=wait),
        method_name="execute_queued",
        timeout=timedelta(seconds=until - now + timings.TIMEOUT_BACKSTOP),
    )


def _active_runs(active: Active | None, queued: Queued) -> str:
    """Return how many runs are active after a refusal, as a clause."""
    if active is None:
        return "an unknown number of runs are active"
    if active.number == 0:
        return "the run that had the slot has just ended" if queued.refusals == 1 else "no run is active any more"
    return "1 run is active" if active.number == 1 else f"{active.number} runs are active"


def _in_words(seconds: float) -> str:
    """Return a length of time as a person reads it."""
    if seconds < 120:
        return f"{round(seconds, 1):g} seconds"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _count_active(run: OwnedRun) -> Active | None:
    try:
        return run_steps(count_active(), run.hook.client, run.log)
    except BrowserActError:
        return None
