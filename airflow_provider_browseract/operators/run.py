"""What all operators that start a run have in common: check, start or reattach, and know of the run in any case."""

from __future__ import annotations

import json
import random
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.log import mask_secret

from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    BrowserActError,
    ConcurrencyLimitError,
    NotFoundError,
    RunStartUnknownError,
)
from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    AirflowTaskTimeout,
    conf,
    is_secret,
    is_unmapped,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import no_connection
from airflow_provider_browseract.hooks.following import follow, sleep
from airflow_provider_browseract.links.browseract import BrowserActTaskLink, LiveViewLink
from airflow_provider_browseract.links.showing import show_run
from airflow_provider_browseract.operators.waiting import WaitingOperator
from airflow_provider_browseract.runs import ledger, timings
from airflow_provider_browseract.runs.inputs import (
    InputError,
    check_names,
    check_rendered,
    read_choice,
    read_flag,
    read_output_path,
    read_seconds,
)
from airflow_provider_browseract.runs.ledger import (
    AskClaimed,
    BeforeStart,
    Entry,
    OnOrphan,
    PlanFull,
    StartedRun,
    Wanted,
    Write,
)
from airflow_provider_browseract.runs.outcome import NoSlotError, RunLostError
from airflow_provider_browseract.runs.outputs import OutputFormat
from airflow_provider_browseract.runs.queueing import count_going, pause_after
from airflow_provider_browseract.runs.report import log_url
from airflow_provider_browseract.runs.waiting import Answer, OnPaused, RunWait
from airflow_provider_browseract.webhook.callback import Callback, NoCallbackError, TaskInstanceKey, arrange
from airflow_provider_browseract.worker.conclusion import open_store
from airflow_provider_browseract.worker.pauses import PauseCallbacks
from airflow_provider_browseract.worker.tries import Kill, Tries

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_browseract.api.calls import Call
    from airflow_provider_browseract.api.models import CreatedTask, InputParameter, Task

InputParameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


class RunOperator(WaitingOperator):
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
    :param start_timeout: seconds, or a ``timedelta``, that the run may stay in the status ``created``, from its start.
        After that, the run is stopped and the Airflow task fails. Default: no separate limit; only ``timeout`` applies.
    :param queue_timeout: seconds, or a ``timedelta``, to wait for room where BrowserAct takes no further run. Default:
        as ``timeout``.
    :param reattach: let a later try reattach to the run of an earlier one instead of starting another (Airflow 3.3 and
        later, which keep the state of a run for the next try). It needs ``retries``: without a later try, a run that
        would be left to that try is stopped.
    :param on_orphan: what to do where it stays unknown which run an earlier start has made: ``"fail"`` and name those
        that may be the one, ``"adopt"`` the newest of them, or ``"start"`` a new one beside them.
    :param on_paused: what to do when the run pauses for a person: ``"wait"`` on, ``"fail"`` and stop it, ``"resume"``
        it, at most three times in each try, or ``"ask"`` people in Airflow: the pause becomes a Required Action, with
        the live view of the browser and the answers Resume and Stop. While it is open, the task is always deferred.
    :param on_paused_timeout: seconds, or a ``timedelta``, to wait for the answer to ``"ask"``. Default: as long as the
        run may take.
    :param on_paused_default: what happens if nobody answers in that time: ``"stop"`` or ``"resume"``.
    :param on_paused_callback: called each time the run pauses, with the context of the task: notifiers, or functions.
        ``browseract_task`` in it has what is known of the run
        (:func:`~airflow_provider_browseract.runs.report.facts`), with the live view as ``links.live``;
        ``required_action_url`` is where to answer. While a callback is expected, the status is asked for every 10
        seconds with this or with ``"ask"``, and not every 120.
    :param cancel_on_kill: stop the run when a person marks or clears the Airflow task that waits for it, when
        ``execution_timeout`` or Ctrl-C ends that, or when its process receives SIGTERM and no later try can reattach to
        the run. When ``False``, the run keeps running and using credits.
    :param cancel_on_timeout: stop the run when its time is over, when it still has the status ``created`` after
        ``start_timeout``, or when its status can no longer be read and no later try can reattach to it. When ``False``,
        the run keeps running and using credits.
    :returns: the output: JSON text as the value it describes, other text as text, ``None`` if there is none. If the
        run put out files, a dict with that under ``output`` and the files' addresses under ``files``. With
        ``output_path`` a dict of what was written: ``path`` of the run's folder, ``task`` (path of the facts),
        ``output`` and ``files``, each of those with ``name``, ``path``, ``size`` in bytes and ``media_type``.
    :raises InputError: an argument that is not a template has an impossible value, when the DAG is parsed.
    :raises AirflowFailException: something is wrong that a retry cannot mend, such as an argument, the connection or
        the API key; nothing was started. Or it is not known whether a run was started, and no later try could find
        out. Or the run finished, and a retry could only pay for another: the output does not have the declared format
        (its text is kept), or files of it will not come any more. Or a person has chosen to stop it.
    :raises RunError: the run was started and failed, was canceled, took too long, paused and nobody answered, or could
        not be followed; or there was no room for one; or it finished and its results could not be written. Airflow's
        retries apply: the next try starts a new run if this one has come to nothing.
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
        timeout: float | timedelta = timings.DEFAULT_TIMEOUT,
        start_timeout: float | timedelta | None = None,
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
        self.start_timeout = start_timeout
        self.queue_timeout = queue_timeout
        self.reattach = reattach
        self.on_orphan = on_orphan
        self.on_paused = on_paused
        self.on_paused_timeout = on_paused_timeout
        self.on_paused_default = on_paused_default
        self.on_paused_callback = on_paused_callback
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self._given: dict[str, Any] = {}

    def _take_arguments(self) -> None:
        """Check the constants of a complete operator, and remember what was given for the templated arguments."""
        # Of a mapped task, Airflow makes the operator in the worker, where an error here would be tried again.
        if not is_unmapped(self):
            self._check_constants()
        # Rendering may turn it into nothing.
        self._given = {name: getattr(self, name, None) for name in self.template_fields}

    save_browser_data: bool

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

    def profile_of(self, begun: StartedRun, task: Task | None) -> str | None:
        """Give the browser profile that a run hands on, if any.

        :param begun: the run.
        :param task: the run as the API showed it, if it did.
        """
        return None

    def prepare(self, context: Context) -> None:
        """Make what a run needs and only this process can make, before everything is checked. Nothing by default."""

    def execute(self, context: Context) -> Any:
        """Reattach to the run of an earlier try or start one, and wait for it in the way asked for."""
        return self._run(context, time.time(), 0)

    def execute_queued(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Continue after a wait for a slot.

        :param event: the payload of the trigger's event: ``queued_since``, the moment of the first refusal in seconds
            since the epoch, and ``refusals``, how often BrowserAct refused the start.
        """
        return self._run(context, float(event["queued_since"]), int(event["refusals"]))

    def _run(self, context: Context, queued_since: float, refusals: int) -> Any:
        if self._dry:
            self._run_dry(context)
        while isinstance(begun := self._begin(context, checked=refusals > 0), PlanFull):
            refusals += 1
            self._wait_for_slot(context, begun, queued_since, refusals)
            self._raise_if_killed()
        return self._account_for(context, begun.task_id, lambda: self._see_through(context, begun))

    def _see_through(self, context: Context, begun: StartedRun) -> Any:
        """Push what later tasks need of a run, and wait for it if that is wanted."""
        limit = None if self.start_timeout is None else read_seconds("start_timeout", self.start_timeout)
        wait = RunWait(
            begun.task_id,
            begun.entry.deadline,
            begun.entry.callback_token_sha256,
            start_by=None if limit is None else begun.entry.written_at + limit,
        )
        self._hand_on(context, begun)
        if self._killed and self._kill_error is None:
            # The signal came during a call, before the run was known. Airflow lets the code continue after it.
            self._end_killed()
        self._raise_if_killed()
        task, wait = self._look_once(context, begun, wait)
        if not self.wait_for_completion:
            self._browseract_task_id = None
            self.log.info("Not waiting for BrowserAct task %s.", begun.task_id)
            return begun.task_id
        if task is not None and task.status.ended:
            return self._conclude(context, task)
        return self._wait(context, wait)

    def _run_dry(self, context: Context) -> NoReturn:
        try:
            self.prepare(context)
            self._check_rendered()
            call = self.make_call(self.callback_url, self.status_change_callback_url)
            self._make_callback(context)
            self._look_before_start(call)
        except Exception as error:  # noqa: BLE001 - it is raised again, in the way that fits
            self._fail_to_begin(Tries(context, reattach=False), error, None)
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
        except (NotFoundError, AuthenticationError):
            raise
        except BrowserActError as error:
            self.log.warning("The names of the inputs were not checked: %s", error.brief)
            return
        given = (call.body or {})["input_parameters"]
        if declared:
            check_names(given, declared, self._what)
        elif given:
            self.log.warning("The names of the inputs were not checked: BrowserAct lists none for %s.", self._what)

    def _begin(
        self, context: Context, *, checked: bool, recheck_after: Sequence[float] | None = None
    ) -> StartedRun | PlanFull:
        """Reattach to the run of an earlier try, or start one.

        :param checked: whether the checks before the start were made already.
        :param recheck_after: what is left of ``timings.RECHECK_PAUSES``; None for all of it.
        """
        recheck_after = timings.RECHECK_PAUSES if recheck_after is None else recheck_after
        self._tries = tries = Tries(context, reattach=self.reattach is True)

        def do(step: BeforeStart | Write | AskClaimed) -> Any:
            if isinstance(step, AskClaimed):
                return tries.claimed()
            if isinstance(step, Write):
                return self._write(tries, step)
            # By now, no run of an earlier try is running. While one is, a missing store is no reason to fail.
            self._browseract_task_id = None
            if not checked:
                self._look_before_start(wanted.call)
            self._raise_if_killed()
            return None

        entry = None
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
                do,
            )
        except Exception as error:  # noqa: BLE001 - tried again, or raised again in the way that fits
            if recheck_after and _connection_may_change(error):
                pause, *left = recheck_after
                self.log.warning(
                    "%s\nTrying again in %g seconds, in case the connection is just being changed, or Airflow could "
                    "not read it.",
                    error.brief if isinstance(error, BrowserActError) else no_connection(self.browseract_conn_id),
                    pause,
                )
                sleep(pause, self._raise_if_killed)
                return self._begin(context, checked=checked, recheck_after=left)
            self._fail_to_begin(tries, error, entry)
        except AirflowTaskTimeout:
            if tries.remembered or not self._start_under_way:
                raise
            raise AirflowFailException(
                f"execution_timeout ended the start of {self._what}, so it is not known whether a run was started.\n"
                f"{RunStartUnknownError.remedy}"
            ) from None
        except KeyboardInterrupt:
            self._end_killed(Kill("interrupted (Ctrl-C)", wanted=True))
            raise
        finally:
            if self._start_under_way:
                another = tries.another(RunStartUnknownError(""))
                later = "The next try looks for it." if another else RunStartUnknownError.remedy
                self.log.error(
                    "It is not known whether a run was started. A run may be running and using credits. %s", later
                )
                self._start_under_way = False
        if isinstance(begun, PlanFull):
            return begun
        self._browseract_task_id = begun.task_id
        if begun.task is None:
            self.log.info("Started BrowserAct task %s of %s.", begun.task_id, self._what)
        else:
            self.log.info("Reattaching to BrowserAct task %s, which an earlier try has started.", begun.task_id)
        return begun

    def _fail_to_begin(self, tries: Tries, error: Exception, entry: Entry | None) -> NoReturn:
        """Raise what Airflow makes another try of, or no other; and say what becomes of the run of an earlier try.

        :param entry: what an earlier try has written down.
        """
        if isinstance(error, ledger.LedgerError):
            raise AirflowFailException(
                f"What an earlier try has written down of its run cannot be used: {str(error).rstrip('.')}. Nothing "
                f"was started or stopped.\nDelete the key {ledger.KEY} from the task state of this task instance, or "
                "set reattach=False, once you know that no run is running."
            ) from None
        task_id = self._browseract_task_id
        said, final = str(error), False
        if isinstance(error, AirflowNotFoundException):
            # Airflow raises it also where its database or a secrets backend does not answer.
            final = entry is None
            said = no_connection(self.browseract_conn_id)
        elif isinstance(error, InputError | ledger.OrphanError):
            final = True
        elif isinstance(error, RunStartUnknownError):
            # The next try knows when this start was, and looks again.
            final = not tries.remembered
        elif isinstance(error, BrowserActError):
            # A gateway, a firewall or a maintenance page answers without a code of BrowserAct's, and only for a while.
            # And nothing that the API says of an earlier run makes that one worthless.
            final = not error.temporary and error.code is not None and entry is None
        elif self._start_under_way and not tries.remembered:
            final = True
            said = f"{type(error).__name__}: {said.rstrip('.')}.\n{RunStartUnknownError.remedy}"
        if task_id is not None:
            earlier = f"{said}\nBrowserAct task {task_id} of an earlier try: "
            left = None if final else self._leave_to_next_try(RunLostError(earlier))
            stopped = left or self._stop(task_id, wanted=self.cancel_on_kill, unwanted="cancel_on_kill")
            said = f"{earlier}{stopped}"
            if not final:
                raise RunLostError(said) from None
        elif final and entry is not None:
            said = f"{said}\nAn earlier try may have started a run. {RunStartUnknownError.remedy}"
        if final:
            raise AirflowFailException(said) from None
        raise error

    def _wanted(self, context: Context) -> Wanted:
        """Check everything, before anything is started."""
        self._check_rendered()
        # First without a callback, so that nothing is kept of a run that is refused.
        call = self.make_call(self.callback_url, self.status_change_callback_url)
        if (callback := self._arrange_callback(context)) is not None:
            call = self.make_call(callback.callback_url, callback.status_change_callback_url)
        ti: Any = context["ti"]
        return Wanted(
            call,
            read_seconds("timeout", self.timeout),
            callback.token_sha256 if callback else None,
            max_tries=ti.max_tries,
            deferred=self.deferrable and self.wait_for_completion,
        )

    def _check_constants(self) -> None:
        """Check the arguments that are no templates, so that a wrong one is an import error of the DAG."""
        self._poll_interval(timings.DEFAULT_POLL_INTERVAL)
        read_seconds("timeout", self.timeout)
        for name in ("start_timeout", "queue_timeout"):
            if (given := getattr(self, name)) is not None:
                read_seconds(name, given)
        read_flag("dry_run", self._dry)
        for flag in (
            "validate_inputs",
            "wait_for_completion",
            "deferrable",
            "reattach",
            "cancel_on_kill",
            "cancel_on_timeout",
            "save_browser_data",
        ):
            read_flag(flag, getattr(self, flag))
        read_choice("output_format", self.output_format, OutputFormat)
        read_choice("on_orphan", self.on_orphan, OnOrphan)
        self._check_pauses()
        self._check_webhook()
        if self.output_path is not None and not self.wait_for_completion:
            raise InputError(
                "output_path needs wait_for_completion=True: what a run puts out is known at its end only."
            )

    def _check_webhook(self) -> None:
        if self.webhook is not None and not isinstance(self.webhook, bool):
            raise InputError(f"webhook is {self.webhook!r}. Give True, False or None.")
        if self.webhook is True and not (self.deferrable and self.wait_for_completion):
            raise InputError(
                "webhook=True needs deferrable=True and wait_for_completion=True: a callback can only wake a task "
                "that waits without a worker."
            )

    def _check_rendered(self) -> None:
        """Check all arguments that are not part of the call."""
        self._check_constants()
        for name, given in self._given.items():
            check_rendered(name, given, getattr(self, name))
        if self.output_path is not None:
            read_output_path(self.output_path)

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

    def _wait_for_slot(self, context: Context, refused: PlanFull, queued_since: float, refusals: int) -> None:
        """Wait until there may be a slot for a run: here, or in the triggerer by raising the deferral."""
        self._raise_if_killed()
        limit = read_seconds("queue_timeout", self.timeout if self.queue_timeout is None else self.queue_timeout)
        try:
            going = follow(count_going(), self.hook.client, self.log)
        except BrowserActError:
            going = None
        shown = "an unknown number of" if going is None else going
        now, until = time.time(), queued_since + limit
        if now >= until:
            raise NoSlotError(
                f"BrowserAct had no free slot within {limit:g} seconds and refused {refusals} starts; {shown} runs are "
                f"active. No run was started.\n{refused.error}\nRaise queue_timeout to wait longer."
            )
        pause = max(pause_after(refusals, random.random), refused.error.retry_after or 0.0)
        self.log.info(
            "BrowserAct has no free slot now; %s runs are active. Refused %d times, trying again as soon as there is "
            "one, for %.0f seconds at most. (%s)",
            shown,
            refusals,
            until - now,
            refused.error.message,
        )
        self._show_wait(context, None, {"waits_for": "slot", "refusals": refusals})
        if not self.deferrable:
            # The worker itself is what waits.
            sleep(min(pause, until - now), self._raise_if_killed)
            return
        from airflow_provider_browseract.triggers.browseract import SlotTrigger

        self.defer(
            trigger=SlotTrigger(
                browseract_conn_id=self.browseract_conn_id,
                # 429 is not about runs; and a refusal while none is seen to go cannot be explained by their number.
                capacity=(going or None) if isinstance(refused.error, ConcurrencyLimitError) else None,
                pause=pause,
                until=max(until, now + timings.CORE_RACE_GRACE),
                queued_since=queued_since,
                refusals=refusals,
            ),
            method_name="execute_queued",
            timeout=timedelta(seconds=until - now + timings.TIMEOUT_BACKSTOP),
        )

    def _arrange_callback(self, context: Context) -> Callback | None:
        """Decide whether BrowserAct is to call back, and keep what the callback will be recognised by."""
        callback = self._make_callback(context)
        if callback is not None:
            mask_secret(callback.token)
            # Before the start, so that not even a callback that overtakes the answer to the start is unknown.
            if not self._show_wait(context, callback.token_sha256, {"waits_for": "callback"}):
                self.log.warning("Without that XCom no callback could resume this task, so it polls.")
                return None
        return callback

    def _make_callback(self, context: Context) -> Callback | None:
        demanded = self.webhook is True
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
                TaskInstanceKey(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index),
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

    def _hand_on(self, context: Context, begun: StartedRun) -> None:
        ti: Any = context["ti"]
        ti.xcom_push(key="task_id", value=begun.task_id)
        self._push_profile(ti, self.profile_of(begun, None))
        if begun.task is not None and begun.entry.callback_token_sha256:
            # BrowserAct calls back with the token of the try that started the run.
            self._show_wait(context, begun.entry.callback_token_sha256, {"waits_for": "callback"})

    def _push_profile(self, ti: Any, profile_id: str | None) -> None:
        """Push the profile that the run hands on, if it is one of a kind that has any."""
        if profile_id is None:
            return
        try:
            ti.xcom_push(key="profile_id", value=profile_id)
        except Exception as error:  # noqa: BLE001 - the run is worth more, and the log has the id
            self.log.error(
                "The XCom profile_id could not be stored (%s: %s), so later tasks cannot read it. The profile is %s.",
                type(error).__name__,
                error,
                profile_id or "none",
            )

    def _look_once(self, context: Context, begun: StartedRun, wait: RunWait) -> tuple[Task | None, RunWait]:
        """Read a new task for its links and, if the answer to the start had none, for its profile."""
        try:
            task = begun.task or self.hook.get_task(begun.task_id)
        except BrowserActError as error:
            self.log.warning("BrowserAct task %s was started, but cannot be read yet: %s", begun.task_id, error.brief)
            return None, wait
        self._url = log_url(task)
        show_run(context["ti"], task, self.log)
        if (profile_id := self.profile_of(begun, task)) != self.profile_of(begun, None):
            self._push_profile(context["ti"], profile_id)
        return task, self._log_news(wait, task)


def _connection_may_change(error: Exception) -> bool:
    """Return whether a start failed because of the connection, in a way that a change of the connection can mend."""
    if isinstance(error, AuthenticationError):
        return error.code is not None
    return isinstance(error, AirflowNotFoundException)


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
    """Delete what is written down of a run once Airflow knows of the success: clearing the task gives a new run."""
    Tries(context, reattach=True).write(None)
