"""What all operators that start a run have in common: begin, wait, conclude, and lose nothing on the way."""

from __future__ import annotations

import json
import random
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.log import mask_secret

from airflow_provider_browseract.api.errors import (
    BrowserActError,
    ConcurrencyLimitError,
    NotFoundError,
    RunStartUnknownError,
    TaskNotPausedError,
)
from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
    conf,
    is_secret,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import no_connection
from airflow_provider_browseract.hooks.following import follow
from airflow_provider_browseract.hooks.required_action import ask, is_asked_in_vain, read_event
from airflow_provider_browseract.links.browseract import BrowserActTaskLink, LiveViewLink
from airflow_provider_browseract.links.telling import show_run
from airflow_provider_browseract.operators.conclusion import Conclusion, open_store
from airflow_provider_browseract.operators.pauses import (
    PauseCallbacks,
    read_callbacks,
    required_action_url,
    tell_pause,
)
from airflow_provider_browseract.operators.tries import Tries
from airflow_provider_browseract.runs import ledger
from airflow_provider_browseract.runs.inputs import (
    InputError,
    check_names,
    read_choice,
    read_flag,
    read_output_path,
    read_seconds,
)
from airflow_provider_browseract.runs.ledger import Begun, NoSlot, OnOrphan, Wanted, Write
from airflow_provider_browseract.runs.outcome import (
    NoSlotError,
    RunCanceledError,
    RunError,
    RunLostError,
    RunPausedError,
    RunTimedOutError,
)
from airflow_provider_browseract.runs.outputs import OutputFormat
from airflow_provider_browseract.runs.queueing import count_going, pause_after
from airflow_provider_browseract.runs.report import describe, log_url, status_line, step_line
from airflow_provider_browseract.runs.waiting import (
    BACKSTOP,
    CALLBACK_GRACE,
    CORE_RACE_GRACE,
    DEFAULT_POLL_INTERVAL,
    DEFAULT_TIMEOUT,
    RESUME_GRACE,
    RESUMES,
    SAFETY_POLL_INTERVAL,
    Answer,
    End,
    Next,
    OnPaused,
    RunWait,
    WaitEvent,
    WokenBy,
    next_after,
    wait_for_end,
)
from airflow_provider_browseract.webhook.callback import TOKEN_XCOM, Callback, NoCallbackError, WaitingTask, arrange

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_browseract.api.calls import Call
    from airflow_provider_browseract.api.models import CreatedTask, InputParameter, Task

KILL_GRACE = 4.0
"""Seconds within which a killed task has to have stopped its run; Airflow ends the process after 5."""

InputParameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


class RunOperator(BaseOperator):
    """Starts a run, waits for its end, and returns its output; the base of those that say what is run.

    Right after the start it pushes the XCom ``task_id`` (the BrowserAct task). The XCom ``task`` has what is known of
    the run, without its data (:func:`~airflow_provider_browseract.runs.report.facts`).

    :param input_parameters: the inputs of what is run, as a dict of names and values or as the API's list of
        ``{"name": ..., "value": ...}``. Strings are sent as they are, other JSON values as JSON text. Templates work
        at every depth, in values (and in the list form in names too).
    :param callback_url: a receiver of your own for the end of the run; http(s), public, at most 2,048 characters.
    :param status_change_callback_url: a receiver of your own for each change of status; as ``callback_url``.
    :param output_format: what the text of the output is: ``"json"``, ``"csv"`` (the rows come back as dicts),
        ``"text"``, or ``"auto"``, which is JSON where it can be read as that.
    :param output_path: folder in object storage for what the run put out, as ``ObjectStoragePath`` takes it, such as
        ``s3://conn_id@bucket/results``. Text, files and facts are written into a folder of the run's own in it.
    :param validate_inputs: compare the names of the inputs with those that are declared, before the start. That is one
        request more; if the declaration cannot be read, the log warns and the run is started.
    :param dry_run: check everything, log the request that would start the run, start nothing, and end as skipped.
    :param browseract_conn_id: id of the Airflow connection.
    :param wait_for_completion: wait for the end. Without it the task succeeds once the run is started and returns
        the id of the BrowserAct task.
    :param deferrable: wait in the triggerer, without a worker. Default: ``[operators] default_deferrable``.
    :param webhook: let BrowserAct call back when the run ends, and resume the deferred task at once. ``None`` does so
        where the connection has a ``webhook_base_url``, ``True`` demands it, ``False`` leaves it to the polls.
    :param poll_interval: seconds, or a ``timedelta``, between two questions for the status. Default: 10, and 120 while
        a callback is expected.
    :param timeout: seconds, or a ``timedelta``, that the run may take from its start. Then it is stopped and the
        Airflow task fails. Default: 7 hours, the limit of the BrowserAct API.
    :param queue_timeout: seconds, or a ``timedelta``, to wait for room where BrowserAct takes no further run. Default:
        as ``timeout``.
    :param reattach: let a later try take up the run of an earlier one, in place of starting another (Airflow 3.3 and
        later, which keeps what is written down of a run over tries).
    :param on_orphan: what to do where it stays unknown which run an earlier start has made: ``"fail"`` and name those
        that may be the one, ``"adopt"`` the newest of them, or ``"start"`` a new one beside them.
    :param on_paused: what to do when the run pauses for a person: ``"wait"`` on, ``"fail"`` and stop it, ``"resume"``
        it, three times at most, or ``"ask"`` people in Airflow: the pause becomes a Required Action, with the live
        view of the browser and the answers Resume and Stop. For as long, the task is deferred in any case.
    :param on_paused_timeout: seconds, or a ``timedelta``, to wait for the answer to ``"ask"``. Default: as long as the
        run may take.
    :param on_paused_default: what happens if nobody answers in that time: ``"stop"`` or ``"resume"``.
    :param on_paused_callback: called each time the run pauses, with the context of the task: notifiers, or functions.
        ``browseract_task`` in it has what is known of the run
        (:func:`~airflow_provider_browseract.runs.report.facts`), with the live view as ``links.live``;
        ``required_action_url`` is where to answer. While a callback is expected, the status is asked for every 10
        seconds with this or with ``"ask"``, and not every 120.
    :param cancel_on_kill: stop the run when the Airflow task that waits for it is killed, marked or cleared.
    :param cancel_on_timeout: stop the run when its time is over, or when its status cannot be learned any more.
    :returns: the output: JSON text as the value it describes, other text as text, ``None`` if there is none. If the
        run put out files, a dict with that under ``output`` and the files' addresses under ``files``. With
        ``output_path`` a dict of what was written: ``path`` of the run's folder, ``task`` (path of the facts),
        ``output`` and ``files``, each of those with ``name``, ``path``, ``size`` in bytes and ``media_type``.
    :raises AirflowFailException: something is wrong that a retry cannot mend, such as an argument, the connection or
        the API key; nothing was started. Or it is not known whether a run was started, and no later try could find
        out. Or the run finished, and a retry could only pay for another: the output does not have the declared format
        (its text is kept), or files of it will not come any more.
    :raises RunError: the run was started and failed, was canceled, took too long, or could not be followed; or there
        was no room for one; or it finished and its results could not be written. Airflow's retries apply: the next
        try starts a new run if this one has come to nothing.
    """

    template_fields: Sequence[str] = (
        "input_parameters",
        "callback_url",
        "status_change_callback_url",
        "output_path",
        "browseract_conn_id",
    )
    template_fields_renderers = {"input_parameters": "json"}
    operator_extra_links = (BrowserActTaskLink(), LiveViewLink())
    ui_color = "#e6f0ff"

    def __init__(
        self,
        *,
        input_parameters: InputParameters = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
        output_format: str = OutputFormat.AUTO.value,
        output_path: str | ObjectStoragePath | None = None,
        validate_inputs: bool = True,
        dry_run: bool = False,
        browseract_conn_id: str = BrowserActHook.default_conn_name,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        webhook: bool | None = None,
        poll_interval: float | timedelta | None = None,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        queue_timeout: float | timedelta | None = None,
        reattach: bool = True,
        on_orphan: str = OnOrphan.FAIL.value,
        on_paused: str = OnPaused.WAIT.value,
        on_paused_timeout: float | timedelta | None = None,
        on_paused_default: str = Answer.STOP.value,
        on_paused_callback: PauseCallbacks = None,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Not at the end of execute: until Airflow knows of the success, a later try has to find the run.
        # First of all, since a callback of the user's may take longer than Airflow waits.
        self.on_success_callback = [forget_run, *self.on_success_callback]
        self.input_parameters = input_parameters
        self.callback_url = callback_url
        self.status_change_callback_url = status_change_callback_url
        self.output_format = output_format
        self.output_path = output_path
        self.validate_inputs = validate_inputs
        # Not self.dry_run, which is a method of Airflow's.
        self._dry = dry_run
        self.browseract_conn_id = browseract_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.webhook = webhook
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.queue_timeout = queue_timeout
        self.reattach = reattach
        self.on_orphan = on_orphan
        self.on_paused = on_paused
        self.on_paused_timeout = on_paused_timeout
        self.on_paused_default = on_paused_default
        self.on_paused_callback = on_paused_callback
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self._browseract_task_id: str | None = None
        self._url: str | None = None
        self._start_under_way = False
        self._killed = False
        self._tries: Tries | None = None
        self._conclusion: Conclusion | None = None

    @property
    @abstractmethod
    def source(self) -> tuple[str, str]:
        """What is run: its kind, such as ``workflow``, and its id."""

    @abstractmethod
    def make_call(self, callback_url: str | None, status_change_callback_url: str | None) -> Call[CreatedTask]:
        """Check everything that is run, and make the call that starts it.

        :param callback_url: address for the end of the run.
        :param status_change_callback_url: address for each change of status.
        :raises InputError: something of it is not usable.
        """

    @abstractmethod
    def read_declared(self) -> Sequence[InputParameter]:
        """Read which inputs are declared, and check what only the API knows."""

    def profile_of(self, begun: Begun, task: Task | None) -> str | None:
        """Give the browser profile that a run hands on, if any.

        :param begun: the run.
        :param task: the run as the API showed it, if it did.
        """
        return None

    def prepare(self, context: Context) -> None:
        """Make what a run needs and only this process can make, before everything is checked. Nothing by default."""

    @property
    def _what(self) -> str:
        return " ".join(self.source)

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the operator's connection."""
        return BrowserActHook(self.browseract_conn_id)

    def execute(self, context: Context) -> Any:
        """Take up or start the run, and wait for it in the way asked for."""
        return self._run(context, time.time(), 0)

    def execute_queued(self, context: Context, event: Any, *, queued_since: float, refusals: int) -> Any:
        """Go on after a wait for room, of which the event only says that it is over.

        :param event: the payload of the trigger's event.
        :param queued_since: moment of the first refusal, in seconds since the epoch.
        :param refusals: how often BrowserAct had no room.
        """
        return self._run(context, queued_since, refusals)

    def execute_complete(self, context: Context, event: Any, wait: dict[str, Any] | None = None) -> Any:
        """Go on after the deferral: ask the API what became of the run, whatever the event says.

        :param event: the payload of a :class:`~airflow_provider_browseract.runs.waiting.WaitEvent`, from the trigger or
            from the callback route; or the answer of a person, from Airflow.
        :param wait: the arguments of the :class:`~airflow_provider_browseract.runs.waiting.RunWait` that it ended.
        """
        resumed_at = time.time()
        self._tries = Tries(context, reattach=self.reattach is True)
        waited = RunWait(**wait) if wait else None
        try:
            told = read_event(event, waited)
        except ValueError as error:
            return self._end_with_airflow(
                context, self._started_task_id(context), f"the trigger cannot be understood: {error}"
            )
        with self._accounting_for(told.browseract_task_id):
            going_on = waited or RunWait(told.browseract_task_id, told.deadline, told.callback_token_sha256)
            return self._resume(context, told, going_on, resumed_at)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the deferral, also when Airflow ended it: then the run must not be left going unseen."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            task_id = self._started_task_id(context)
            if task_id is None:
                raise NoSlotError(f"Airflow ended the wait for room: {error}. No run was started.") from error
            self._tries = Tries(context, reattach=self.reattach is True)
            overdue = isinstance(error, TaskDeferralTimeout)
            return self._end_with_airflow(context, task_id, f"Airflow ended the deferral: {error}", overdue=overdue)

    def on_kill(self) -> None:
        """Stop the run, since the Airflow task that waits for it is being killed; but not if a later try wants it."""
        self._killed = True
        if (task_id := self._browseract_task_id) is not None:
            self.log.warning("Killed while waiting for BrowserAct task %s. %s", task_id, self._end_killed(task_id))

    def _end_killed(self, browseract_task_id: str) -> str:
        """Stop the run of a task that is being killed, unless a later try wants it; and say so in a sentence."""
        began = time.monotonic()
        if self.cancel_on_kill and self._tries and (why := self._tries.taken_over(within=KILL_GRACE / 2)):
            self._browseract_task_id = None
            return f"It goes on: {why}."
        within = KILL_GRACE - (time.monotonic() - began)
        return self._stop(browseract_task_id, wanted=self.cancel_on_kill, within=within)

    def _run(self, context: Context, queued_since: float, refusals: int) -> Any:
        if self._dry:
            self._run_dry(context)
        while isinstance(begun := self._begin(context, checked=refusals > 0), NoSlot):
            refusals += 1
            self._wait_for_slot(context, begun, queued_since, refusals)
            self._go_on_unless_killed()
        entry = begun.entry
        with self._accounting_for(begun.task_id):
            self._hand_on(context, begun)
            task = self._look_once(context, begun)
            if not self.wait_for_completion:
                self._browseract_task_id = None
                self.log.info("Not waiting for BrowserAct task %s.", begun.task_id)
                return begun.task_id
            if task is not None and task.status.ended:
                return self._conclude(context, task)
            return self._wait(context, RunWait(begun.task_id, entry.deadline, entry.callback_token_sha256), task)

    def _run_dry(self, context: Context) -> NoReturn:
        try:
            self.prepare(context)
            self._check_arguments()
            call = self.make_call(self.callback_url, self.status_change_callback_url)
            self._make_callback(context)
            self._look_before_start(call)
        except Exception as error:  # noqa: BLE001 - it is raised again, in the way that fits
            self._fail_to_begin(Tries(context, reattach=False), error)
        self.log.info(
            "Dry run: nothing is started. The request would be %s %s%s with %s",
            call.method,
            self.hook.settings.client.base_url,
            call.path,
            json.dumps(shown_body(call.body or {}), ensure_ascii=False),
        )
        raise AirflowSkipException(f"Dry run: no run of {self._what} was started.")

    def _look_before_start(self, call: Call[CreatedTask]) -> None:
        """Look, before money is spent, at what only others know: the store, and what is run."""
        if (store := open_store(self.output_path, self.hook, self.log)) is not None:
            store.check()
        if not self.validate_inputs:
            return
        try:
            declared = self.read_declared()
        except NotFoundError:
            raise
        except BrowserActError as error:
            self.log.warning("The names of the inputs were not checked: %s", error)
            return
        given = (call.body or {})["input_parameters"]
        if declared:
            check_names(given, declared, self._what)
        elif given:
            self.log.warning("The names of the inputs were not checked: BrowserAct lists none for %s.", self._what)

    def _begin(self, context: Context, *, checked: bool) -> Begun | NoSlot:
        """Take up the run of an earlier try, or start one.

        :param checked: whether it was looked before the start already.
        """
        self._tries = tries = Tries(context, reattach=self.reattach is True)

        def do(step: Write) -> None:
            nonlocal checked
            # Not where a run may go on: that is no time to fail for want of a store.
            if step.starts:
                # By now, no run of an earlier try goes on.
                self._browseract_task_id = None
                if not checked:
                    self._look_before_start(wanted.call)
                    checked = True
                self._go_on_unless_killed()
            self._write(tries, step)

        try:
            entry = tries.read()
            self._browseract_task_id = entry.task_id if entry else None
            self.prepare(context)
            wanted = self._wanted(context)
            begun = follow(
                ledger.begin(
                    wanted,
                    entry,
                    patience=self.hook.settings.client.longest_call,
                    on_orphan=read_choice("on_orphan", self.on_orphan, OnOrphan),
                    clock=time.time,
                ),
                self.hook.client,
                self.log,
                lambda step: do(step) if isinstance(step, Write) else tries.claimed(),
            )
        except Exception as error:  # noqa: BLE001 - it is raised again, in the way that fits
            self._fail_to_begin(tries, error)
        except AirflowTaskTimeout as error:
            if tries.remembered or not self._start_under_way:
                raise
            raise AirflowFailException(
                f"execution_timeout ended the start of {self._what}, so it is not known whether a "
                f"run was started. {RunStartUnknownError.remedy}"
            ) from error
        finally:
            if self._start_under_way:
                later = "A later try looks for it." if tries.another else RunStartUnknownError.remedy
                self.log.error("It is not known whether a run was started; it may go on, and cost credits. %s", later)
                self._start_under_way = False
        if isinstance(begun, NoSlot):
            return begun
        self._browseract_task_id = begun.task_id
        if begun.task is None:
            self.log.info("Started BrowserAct task %s of %s.", begun.task_id, self._what)
        else:
            self.log.info("Taking up BrowserAct task %s, which an earlier try has started.", begun.task_id)
        if self._killed:
            # The signal came while the call was under way, and Airflow lets the code go on after it.
            raise RunCanceledError(
                f"Killed while BrowserAct task {begun.task_id} was started. {self._end_killed(begun.task_id)}"
            )
        return begun

    def _fail_to_begin(self, tries: Tries, error: Exception) -> NoReturn:
        """Raise what Airflow makes another try of, or no other; and say what becomes of the run of an earlier try."""
        if isinstance(error, ledger.LedgerError):
            raise AirflowFailException(
                f"What an earlier try has written down of its run cannot be used: {str(error).rstrip('.')}. Nothing "
                f"was started or stopped. Delete the key {ledger.KEY} from the task state of this task instance, or "
                "set reattach=False, once you know that no run goes on."
            ) from error
        said, final = str(error), False
        if isinstance(error, AirflowNotFoundException):
            final = True
            said = no_connection(self.browseract_conn_id)
        elif isinstance(error, InputError | ledger.OrphanError):
            final = True
        elif isinstance(error, RunStartUnknownError):
            # The next try knows when this start was, and looks again.
            final = not tries.remembered
        elif isinstance(error, BrowserActError):
            final = not error.temporary
        elif self._start_under_way and not tries.remembered:
            final = True
            said = f"{type(error).__name__}: {said.rstrip('.')}. {RunStartUnknownError.remedy}"
        task_id = self._browseract_task_id
        if task_id is not None:
            goes_on = None if final else self._leave_to_next_try()
            said = (
                f"{said.rstrip('.')}. BrowserAct task {task_id} of an earlier try: "
                f"{goes_on or self._stop(task_id, wanted=self.cancel_on_kill)}"
            )
            if not final:
                raise RunLostError(said) from error
        if final:
            raise AirflowFailException(said) from error
        raise error

    def _leave_to_next_try(self) -> str | None:
        """Say that the next try takes up the run, if one will: no trouble of Airflow's own is worth a second run."""
        if self._tries is None or not self._tries.another:
            return None
        self._browseract_task_id = None
        return "It goes on, and the next try takes it up."

    def _wanted(self, context: Context) -> Wanted:
        """Check everything, before anything is started."""
        timeout = self._check_arguments()
        # First without a callback, so that nothing is kept of a run that is refused.
        call = self.make_call(self.callback_url, self.status_change_callback_url)
        if (callback := self._arrange_callback(context)) is not None:
            call = self.make_call(callback.callback_url, callback.status_change_callback_url)
        ti: Any = context["ti"]
        return Wanted(
            call,
            timeout,
            callback.token_sha256 if callback else None,
            max_tries=ti.max_tries,
            deferred=self.deferrable and self.wait_for_completion,
        )

    def _check_arguments(self) -> float:
        """Check the arguments that are not of the call, and give the timeout in seconds."""
        # These are read again later, when it would be too late to refuse them.
        self._poll_interval(DEFAULT_POLL_INTERVAL)
        self._check_pauses()
        read_choice("on_orphan", self.on_orphan, OnOrphan)
        read_flag("dry_run", self._dry)
        for flag in ("validate_inputs", "reattach", "cancel_on_kill", "cancel_on_timeout"):
            read_flag(flag, getattr(self, flag))
        if self.queue_timeout is not None:
            read_seconds("queue_timeout", self.queue_timeout)
        timeout = read_seconds("timeout", self.timeout)
        read_choice("output_format", self.output_format, OutputFormat)
        self._check_output_path()
        return timeout

    def _check_pauses(self) -> None:
        asks = read_choice("on_paused", self.on_paused, OnPaused) is OnPaused.ASK
        default = read_choice("on_paused_default", self.on_paused_default, Answer)
        if self.on_paused_timeout is not None:
            read_seconds("on_paused_timeout", self.on_paused_timeout)
        if not asks and (self.on_paused_timeout is not None or default is not Answer.STOP):
            raise InputError(
                "on_paused_timeout and on_paused_default are about the answer of a person, and with "
                f"on_paused={self.on_paused!r} nobody is asked. Give on_paused='ask', or leave them out."
            )
        if not self.wait_for_completion and (asks or read_callbacks(self.on_paused_callback)):
            raise InputError(
                "on_paused='ask' and on_paused_callback need wait_for_completion=True: a run that is not waited for is "
                "not seen to pause."
            )
        read_callbacks(self.on_paused_callback)

    def _write(self, tries: Tries, step: Write) -> None:
        """Keep an entry of the ledger for later tries, and here what on_kill needs, which may come at any moment."""
        entry = step.entry
        self._start_under_way = step.starts
        self._browseract_task_id = None if step.over or entry is None else entry.task_id
        try:
            tries.write(entry)
        except Exception:
            if self._start_under_way:
                # Nothing was started yet, and nothing may be started that no later try would know of.
                self._start_under_way = False
                raise
            self.log.warning("What became of the run could not be written down for later tries.", exc_info=True)

    def _go_on_unless_killed(self) -> None:
        if self._killed:
            # Airflow lets the code go on after the signal.
            raise RunCanceledError("Killed before a run was started.")

    def _wait_for_slot(self, context: Context, refused: NoSlot, queued_since: float, refusals: int) -> None:
        """Wait until there may be room for a run: here, or in the triggerer by raising the deferral."""
        self._go_on_unless_killed()
        limit = read_seconds("queue_timeout", self.timeout if self.queue_timeout is None else self.queue_timeout)
        try:
            going = follow(count_going(), self.hook.client, self.log)
        except BrowserActError:
            going = None
        shown = "an unknown number of" if going is None else going
        now, until = time.time(), queued_since + limit
        if now >= until:
            raise NoSlotError(
                f"BrowserAct had no room for a run within {limit:g} seconds, asked {refusals} times; {shown} runs are "
                f"going. No run was started. {refused.error}"
            )
        pause = max(pause_after(refusals, random.random), refused.error.retry_after or 0.0)
        self.log.info(
            "BrowserAct takes no further run now; %s runs are going. Refused %d times, trying again as soon as there "
            "is room, for %.0f seconds at most. (%s)",
            shown,
            refusals,
            until - now,
            refused.error.message,
        )
        self._show_wait(context, {"waits_for": "slot", "refusals": refusals})
        if not self.deferrable:
            # The worker itself is what waits.
            time.sleep(min(pause, until - now))
            return
        from airflow_provider_browseract.triggers.browseract import SlotTrigger

        self.defer(
            trigger=SlotTrigger(
                browseract_conn_id=self.browseract_conn_id,
                # 429 is not about runs; and a refusal while none is seen to go cannot be explained by their number.
                capacity=(going or None) if isinstance(refused.error, ConcurrencyLimitError) else None,
                pause=pause,
                until=max(until, now + CORE_RACE_GRACE),
            ),
            method_name="execute_queued",
            kwargs={"queued_since": queued_since, "refusals": refusals},
            timeout=timedelta(seconds=until - now + BACKSTOP),
        )

    def _poll_interval(self, default: float) -> float:
        return default if self.poll_interval is None else read_seconds("poll_interval", self.poll_interval)

    def _arrange_callback(self, context: Context) -> Callback | None:
        """Decide whether BrowserAct is to call back, and keep what the callback will be recognised by."""
        callback = self._make_callback(context)
        if callback is not None:
            mask_secret(callback.token)
            # Before the start, so that not even a callback that overtakes the answer to the start is unknown.
            context["ti"].xcom_push(key=TOKEN_XCOM, value=callback.token_sha256)
        return callback

    def _make_callback(self, context: Context) -> Callback | None:
        if self.webhook is not None and not isinstance(self.webhook, bool):
            raise InputError(f"webhook is {self.webhook!r}. Give True, False or None.")
        demanded = self.webhook is True
        if demanded and not (self.deferrable and self.wait_for_completion):
            raise InputError(
                "webhook=True needs deferrable=True and wait_for_completion=True: a callback can only wake a task "
                "that waits without a worker."
            )
        if self.webhook is False or not (self.deferrable and self.wait_for_completion):
            return None
        settings = self.hook.settings
        if settings.webhook_base_url is None:
            if demanded:
                raise InputError(
                    f"webhook=True needs webhook_base_url in the extra of connection {self.browseract_conn_id!r}: the "
                    "public address of the Airflow API server."
                )
            return None
        ti = context["ti"]
        try:
            return arrange(
                settings.webhook_base_url,
                WaitingTask(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index),
                callback_url=self.callback_url,
                status_change_callback_url=self.status_change_callback_url,
                conn_id=self.browseract_conn_id,
                api_base_url=settings.client.base_url,
            )
        except NoCallbackError as error:
            if demanded:
                raise InputError(f"{error}. Change that, or leave webhook=True out to let the task poll.") from None
            self.log.info("%s. This task polls.", error)
            return None

    def _check_output_path(self) -> None:
        if self.output_path is None:
            return
        if not self.wait_for_completion:
            raise InputError(
                "output_path needs wait_for_completion=True: what a run puts out is known at its end only."
            )
        read_output_path(self.output_path)

    def _hand_on(self, context: Context, begun: Begun) -> None:
        context["ti"].xcom_push(key="task_id", value=begun.task_id)
        if profile_id := self.profile_of(begun, None):
            context["ti"].xcom_push(key="profile_id", value=profile_id)
        if begun.task is not None and begun.entry.callback_token_sha256:
            # BrowserAct calls back with the token of the try that started the run.
            context["ti"].xcom_push(key=TOKEN_XCOM, value=begun.entry.callback_token_sha256)

    def _look_once(self, context: Context, begun: Begun) -> Task | None:
        """Read a new task for its links and, if the answer to the start had none, for its profile."""
        try:
            task = begun.task or self.hook.get_task(begun.task_id)
        except BrowserActError as error:
            self.log.warning("BrowserAct task %s was started, but cannot be read yet: %s", begun.task_id, error)
            return None
        self._url = log_url(task)
        show_run(context["ti"], task)
        if (profile_id := self.profile_of(begun, task)) != self.profile_of(begun, None):
            context["ti"].xcom_push(key="profile_id", value=profile_id)
        for step in task.steps:
            self.log.info("%s", step_line(task.id, step))
        self.log.info("%s", status_line(task))
        return task

    @property
    def _tells_pauses(self) -> bool:
        """Whether a pause ends the wait, for a worker to do something."""
        return self.on_paused in (OnPaused.FAIL, OnPaused.ASK) or bool(read_callbacks(self.on_paused_callback))

    def _wait(
        self,
        context: Context,
        wait: RunWait,
        seen: Task | None,
        *,
        tell_pauses_from: float | None = None,
        pause_told: bool = False,
    ) -> Any:
        """Wait for the run in the way asked for.

        :param wait: the wait.
        :param seen: the run as the log has told it.
        :param tell_pauses_from: moment before which no pause is told, where there is one.
        :param pause_told: the pause that the run is in has been told already.
        """
        if self.deferrable:
            self._defer(context, wait, seen, tell_pauses_from=tell_pauses_from, pause_told=pause_told)
        return self._wait_here(context, wait, seen, tell_pauses_from=tell_pauses_from, pause_told=pause_told)

    def _defer(
        self,
        context: Context,
        wait: RunWait,
        seen: Task | None,
        *,
        tell_pauses_from: float | None = None,
        pause_told: bool = False,
    ) -> NoReturn:
        from airflow_provider_browseract.triggers.browseract import TaskTrigger

        callback_token_sha256 = wait.callback_token_sha256
        if wait.question is not None:
            poll_interval, grace = self._poll_interval(DEFAULT_POLL_INTERVAL), CORE_RACE_GRACE + CALLBACK_GRACE
            self.log.info("Waiting without a worker for the answer of a person: %s", required_action_url(context))
        elif callback_token_sha256 is None:
            poll_interval, grace = self._poll_interval(DEFAULT_POLL_INTERVAL), CORE_RACE_GRACE
            self.log.info("Waiting without a worker; the status is asked for every %g seconds.", poll_interval)
        else:
            safety = DEFAULT_POLL_INTERVAL if self._tells_pauses else SAFETY_POLL_INTERVAL
            poll_interval, grace = self._poll_interval(safety), CORE_RACE_GRACE + CALLBACK_GRACE
            self.log.info(
                "Waiting without a worker for BrowserAct's callback. Should it get lost: the status is asked for every "
                "%g seconds.",
                poll_interval,
            )
        waits_for = WokenBy.POLL if callback_token_sha256 is None else WokenBy.CALLBACK
        if wait.question is not None:
            waits_for = WokenBy.PERSON
        self._show_wait(context, {"waits_for": waits_for.value, "poll_interval": poll_interval})
        now = time.time()
        self.defer(
            trigger=TaskTrigger(
                browseract_task_id=wait.browseract_task_id,
                browseract_conn_id=self.browseract_conn_id,
                poll_interval=poll_interval,
                first_poll_at=now + grace,
                deadline=wait.deadline,
                callback_token_sha256=callback_token_sha256,
                last_seen=seen.status.value if seen else None,
                steps_told=len(seen.steps) if seen else 0,
                on_paused=self.on_paused,
                tell_pauses_from=(tell_pauses_from or now) if self._tells_pauses else None,
                pause_told=pause_told or wait.question is not None,
                question=wait.question,
                answer_by=wait.answer_by,
                answer_default=self.on_paused_default,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
            kwargs={"wait": asdict(wait)},
            timeout=timedelta(seconds=max(0.0, wait.deadline - now) + BACKSTOP),
        )

    def _wait_here(
        self,
        context: Context,
        wait: RunWait,
        seen: Task | None,
        *,
        tell_pauses_from: float | None = None,
        pause_told: bool = False,
    ) -> Any:
        task_id, deadline = wait.browseract_task_id, wait.deadline
        poll_interval = self._poll_interval(DEFAULT_POLL_INTERVAL)
        over = follow(
            wait_for_end(
                task_id,
                poll_interval=poll_interval,
                first_poll_at=min(time.time() + poll_interval, deadline),
                deadline=deadline,
                clock=time.time,
                chance=random.random,
                last_seen=seen.status if seen else None,
                steps_told=len(seen.steps) if seen else 0,
                on_paused=OnPaused(self.on_paused),
                tell_pauses_from=(tell_pauses_from or time.time()) if self._tells_pauses else None,
                pause_told=pause_told,
            ),
            self.hook.client,
            self.log,
            lambda step: None,
        )
        if over.end is End.ENDED and over.task is not None:
            return self._conclude(context, over.task)
        if over.end is End.PAUSED and over.task is not None:
            return self._see_to_pause(context, wait, over.task)
        self._end_without_result(task_id, over.end, str(over.error) if over.error else None)

    def _resume(self, context: Context, told: WaitEvent, wait: RunWait, resumed_at: float) -> Any:
        task_id = self._browseract_task_id = told.browseract_task_id
        seen: Task | BrowserActError
        try:
            seen = self.hook.get_task(task_id)
        except BrowserActError as error:
            seen = error
        then = next_after(told, seen, time.time())
        if then is Next.PAUSE and told.answer is not None:
            known = None if isinstance(seen, BrowserActError) else seen
            if wait.question is None:
                # Airflow shows a question that is still open in later tries too.
                self.log.warning("The answer %s was to an earlier question. Waiting on.", told.answer.option)
                self._defer(context, wait, known)
            return self._do_as_answered(context, wait, told.answer, told.answered_by, known)
        if isinstance(seen, BrowserActError):
            if then is Next.END:
                self._end_without_result(task_id, End.GIVEN_UP, str(seen))
            self.log.warning("The result of BrowserAct task %s cannot be read yet: %s", task_id, seen)
            self._defer(context, wait, None)
        if then is Next.CONCLUDE:
            if told.answer is not None:
                self.log.info("The run has ended, so that the answer %s changes nothing.", told.answer.option)
            self._tell_what_woke(context, told, seen, resumed_at)
            return self._conclude(context, seen)
        self._url = log_url(seen)
        if then is Next.PAUSE:
            return self._see_to_pause(context, wait, seen)
        if then is Next.DEFER:
            self.log.warning(
                "%s is %s, and not %s as a %s told. Waiting on.", describe(seen), seen.status, told.end, told.woken_by
            )
            self._defer(context, wait, seen)
        if then is Next.WAIT_HERE and wait.question is not None:
            self.log.warning("The triggerer could not follow the run (%s). Only there an answer is seen.", told.reason)
            self._defer(context, wait, seen)
        if then is Next.WAIT_HERE:
            self.log.warning("The triggerer could not follow the run (%s). Waiting here.", told.reason)
            return self._wait_here(context, wait, seen)
        self._end_without_result(task_id, told.end, told.reason)

    def _see_to_pause(self, context: Context, wait: RunWait, task: Task) -> Any:
        """Do what is wanted when the run has paused for a person."""
        wait = replace(wait, pauses=wait.pauses + 1)
        show_run(context["ti"], task)
        on_paused = OnPaused(self.on_paused)
        if on_paused is OnPaused.ASK and is_asked_in_vain():
            self.log.warning("dag.test() has nobody to ask. Resume the run in BrowserAct: %s", task.live_url)
        elif on_paused is OnPaused.ASK:
            # Before anybody is told where to answer.
            question = ask(context["ti"], task, Answer(self.on_paused_default))
            limit = self.on_paused_timeout
            answer_by = None if limit is None else time.time() + read_seconds("on_paused_timeout", limit)
            wait = replace(wait, question=question, answer_by=answer_by)
        tell_pause(read_callbacks(self.on_paused_callback), context, task, self.log)
        if wait.question is not None:
            self._defer(context, wait, task)
        if on_paused is OnPaused.FAIL:
            self._end_without_result(task.id, End.PAUSED, None)
        if on_paused is OnPaused.RESUME and wait.pauses <= RESUMES:
            return self._let_go_on(context, wait, task)
        return self._wait(context, wait, task, pause_told=True)

    def _do_as_answered(
        self, context: Context, wait: RunWait, answer: Answer, answered_by: str | None, seen: Task | None
    ) -> Any:
        """Resume or stop the paused run, as a person or the lack of one has decided."""
        task_id = wait.browseract_task_id
        if answered_by is None:
            limit = read_seconds("on_paused_timeout", self.on_paused_timeout or self.timeout)
            who = f"nobody answered within {limit:g} seconds"
        else:
            who = f"{answered_by} has chosen {answer.option}"
        if answer is Answer.RESUME:
            self.log.info("BrowserAct task %s is to go on: %s.", task_id, who)
            return self._let_go_on(context, wait, seen)
        said = f"BrowserAct task {task_id} paused for a person, and {who}. {self._stop(task_id)}"
        if answered_by is None:
            raise RunPausedError(said)
        # No retry: what a person has decided of this run would only have to be decided again.
        raise AirflowFailException(said)

    def _let_go_on(self, context: Context, wait: RunWait, seen: Task | None) -> Any:
        wait = replace(wait, question=None, answer_by=None)
        try:
            self.hook.resume_task(wait.browseract_task_id)
        except TaskNotPausedError:
            self.log.info("BrowserAct task %s is not paused any more.", wait.browseract_task_id)
        except BrowserActError as error:
            self.log.warning("BrowserAct task %s could not be resumed: %s", wait.browseract_task_id, error)
            return self._wait(context, wait, seen)
        else:
            self.log.info("BrowserAct task %s was resumed.", wait.browseract_task_id)
        return self._wait(context, wait, seen, tell_pauses_from=time.time() + RESUME_GRACE)

    def _tell_what_woke(self, context: Context, told: WaitEvent, task: Task, resumed_at: float) -> None:
        shown: dict[str, Any] = {"woken_by": told.woken_by.value}
        after = ""
        if task.finished_at is not None:
            # Two clocks, ours and BrowserAct's: less than nothing means that they differ.
            shown["seconds_after_end"] = seconds = round(max(0.0, resumed_at - task.finished_at.timestamp()), 1)
            after = f", {seconds:g} seconds after the end of the run"
        no_callback = ""
        if told.woken_by is WokenBy.POLL and told.callback_token_sha256 is not None:
            no_callback = " No callback had resumed it."
        self.log.info("Woken by a %s%s.%s", told.woken_by, after, no_callback)
        self._show_wait(context, shown)

    def _show_wait(self, context: Context, shown: dict[str, Any]) -> None:
        """Let the XComs of the task instance say how it waits, or what woke it."""
        try:
            context["ti"].xcom_push(key="wait", value=shown)
        except Exception:
            self.log.warning("How the task waits could not be kept as an XCom.", exc_info=True)

    def _conclude(self, context: Context, task: Task) -> Any:
        self._browseract_task_id = None
        self._url = log_url(task)
        self._conclusion = Conclusion(
            task,
            context,
            output_format=OutputFormat(self.output_format),
            output_path=self.output_path,
            hook=self.hook,
            outlets=self.outlets,
            another_try_reads_it=self._tries is not None and self._tries.remembered,
            advice="On Airflow 3.3 clearing the task reads the same run anew; reattach=False makes that a new run.",
            log=self.log,
        )
        return self._conclusion.draw()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Tell OpenLineage, whose provider calls this, what was run and where its results are."""
        from airflow_provider_browseract.operators.lineage import lineage_of

        done = self._conclusion
        task, results = (done.task, done.results) if done else (None, None)
        return lineage_of(self.source, self.hook.settings.client.base_url, task, results)

    def _end_without_result(self, browseract_task_id: str, end: End, reason: str | None) -> NoReturn:
        if end is End.DEADLINE:
            raise RunTimedOutError(
                f"BrowserAct task {browseract_task_id} did not end within {read_seconds('timeout', self.timeout):g} "
                f"seconds. {self._stop(browseract_task_id, wanted=self.cancel_on_timeout)} Raise timeout if the "
                "workflow needs longer."
            )
        if end is End.PAUSED:
            raise RunPausedError(
                f"BrowserAct task {browseract_task_id} paused for a person, which on_paused='fail' does not wait for. "
                f"{self._stop(browseract_task_id)}"
            )
        self._give_up(browseract_task_id, f"its status could not be learned: {reason or 'it stayed unknown'}")

    def _end_with_airflow(
        self, context: Context, browseract_task_id: str | None, why: str, *, overdue: bool = False
    ) -> Any:
        """Take the result that there may be although Airflow's part of the wait failed, or give the run up."""
        task = None
        try:
            task = self.hook.get_task(browseract_task_id) if browseract_task_id else None
        except Exception as error:  # noqa: BLE001 - the wait has failed already, and that is what is told
            self.log.warning("BrowserAct task %s cannot be read: %s", browseract_task_id, error)
        if task is not None and task.status.ended:
            self.log.warning("%s. The run has ended meanwhile.", why.rstrip("."))
            return self._conclude(context, task)
        self._give_up(browseract_task_id, why, None if overdue else self._leave_to_next_try())

    def _give_up(self, browseract_task_id: str | None, why: str, goes_on: str | None = None) -> NoReturn:
        if browseract_task_id is None:
            raise RunLostError(
                f"A run of {self._what} was started but its id is not known here: {why.rstrip('.')}. "
                "Look at the newest tasks in the BrowserAct dashboard."
            )
        raise RunLostError(
            f"BrowserAct task {browseract_task_id} was given up: {why.rstrip('.')}. "
            f"{goes_on or self._stop(browseract_task_id, wanted=self.cancel_on_timeout)}"
        )

    def _stop(self, browseract_task_id: str, *, wanted: bool = True, within: float | None = None) -> str:
        """Stop a run, if that is wanted, and say in a sentence what came of it."""
        self._browseract_task_id = None
        where = f" ({self._url})" if self._url else ""
        if not wanted:
            return f"It goes on, and costs credits, as it was asked for{where}."
        try:
            stopped = self.hook.stop_task(browseract_task_id, within=within)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not go on unsaid
            return (
                f"It could not be stopped ({str(error).rstrip('.')}): it may go on, and cost credits, until someone "
                f"stops it in the BrowserAct dashboard{where}."
            )
        if within is None and self._tries is not None:
            with suppress(Exception):
                LiveViewLink().push(self._tries.ti, LiveViewLink.OVER)
        return "It was stopped." if stopped else "It had already ended."

    @contextmanager
    def _accounting_for(self, browseract_task_id: str) -> Iterator[None]:
        """Let nothing leave a started run behind unsaid: it is left to a later try or, if there is none, stopped."""
        try:
            yield
        except (RunError, AirflowFailException):
            raise
        except KeyboardInterrupt:
            # As in dag.test(), where no one calls on_kill.
            self.on_kill()
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise RunLostError(
                f"BrowserAct task {browseract_task_id} was given up after an error in Airflow ({reason}). "
                f"{self._leave_to_next_try() or self._stop(browseract_task_id)}"
            ) from error

    def _started_task_id(self, context: Context) -> str | None:
        ti = context["ti"]
        found = ti.xcom_pull(task_ids=self.task_id, key="task_id", map_indexes=ti.map_index)
        return found if isinstance(found, str) else None


def shown_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """Give the body of a start as a log may show it.

    :param body: the body.
    :returns: the same without what may be secret: values that are called like secrets, at any depth, and addresses.
    """
    inputs = [
        {"name": pair["name"], "value": "***" if is_secret(pair["name"]) else _shown_value(pair["value"])}
        for pair in body["input_parameters"]
    ]
    hidden = {name: "***" for name in body if name.endswith("callback_url")}
    return {**body, **hidden, "input_parameters": inputs}


def _shown_value(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(_without_secrets(value), ensure_ascii=False) if isinstance(value, dict | list) else text


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "***" if is_secret(name) else _without_secrets(member) for name, member in value.items()}
    return [_without_secrets(member) for member in value] if isinstance(value, list) else value


def forget_run(context: Context) -> None:
    """Delete what is written down of a run, once Airflow knows of the success: who clears the task gets a new run."""
    Tries(context, reattach=True).write(None)
