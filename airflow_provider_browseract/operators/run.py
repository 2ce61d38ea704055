"""The base class of all operators that start a run."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.log import mask_secret

from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
    NotFoundError,
)
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.compat import (
    CLEAR_KEEPS_STATE,
    AirflowSkipException,
    TaskDeferralError,
    TaskDeferralTimeout,
    conf,
    is_secret,
    is_unmapped,
    set_during_execution,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook, get_run
from airflow_provider_browseract.hooks.hiding import Hiding
from airflow_provider_browseract.hooks.required_action import read_event
from airflow_provider_browseract.links.browseract import BrowserActTaskLink, LiveViewLink, prevent_second_push
from airflow_provider_browseract.links.showing import show_run, show_wait
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.arguments import (
    InputError,
    check_rendered,
    naming_similar_arguments,
    read_choice,
    read_flag,
    read_output_path,
    read_seconds,
)
from airflow_provider_browseract.runs.orphans import OnOrphan
from airflow_provider_browseract.runs.outcome import NoSlotError, RunCanceledError
from airflow_provider_browseract.runs.outputs import OutputFormat
from airflow_provider_browseract.runs.queueing import Queued
from airflow_provider_browseract.runs.report import log_url
from airflow_provider_browseract.runs.request import (
    RunRequest,
    Source,
    check_names,
    secret_parts,
    with_names_as_keys,
    without_secrets,
)
from airflow_provider_browseract.runs.resuming import Conclude, WaitAgain
from airflow_provider_browseract.runs.starting import Start, StartedRun, StartRefused
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.waiting import Answer, OnPaused, Wait, WaitPolicy
from airflow_provider_browseract.worker.callback import register, with_callback
from airflow_provider_browseract.worker.conclusion import Conclusion, open_store
from airflow_provider_browseract.worker.owned_run import OwnedRun, started_task_id
from airflow_provider_browseract.worker.pauses import PauseCallbacks, read_callbacks
from airflow_provider_browseract.worker.starting import Starter, fail_to_start, wait_in_queue
from airflow_provider_browseract.worker.tries import Tries
from airflow_provider_browseract.worker.waiting import Waiter

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import BaseOperatorLink, Context, ObjectStoragePath

    from airflow_provider_browseract.api.models import InputParameter, Task

InputParameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


READ_AGAIN = (
    "On Airflow 3.3, clearing the task reads the same run again; reattach=False starts a new one."
    if CLEAR_KEEPS_STATE
    else "Clearing the task with 'Keep task state and resume' reads the same run again; without it, a new run starts."
)
"""How to read a run again after the error is fixed."""


class RunOperator(BaseOperator):
    """Start a run, wait for its end, and return its output. Subclasses define what is run.

    Right after the start, the task pushes the id of the BrowserAct task as the XCom ``task_id``. The XCom ``task``
    contains the facts about the run, without its data (:func:`~airflow_provider_browseract.runs.report.facts`).

    :param input_parameters: the inputs of the run, as a dict of names and values or as the API's list of
        ``{"name": ..., "value": ...}``. Strings are sent as they are, other JSON values as JSON text. Values can be
        templates at any depth. In the list form, names can be templates too.
    :param callback_url: your own URL that BrowserAct calls when the run ends: http(s), public, at most 2,048
        characters.
    :param status_change_callback_url: your own URL that BrowserAct calls at each change of status; as ``callback_url``.
    :param output_format: format of the output's text: ``"json"``, ``"csv"`` (returned as a list of dicts), ``"text"``,
        or ``"auto"``, which reads the text as JSON if possible and returns it as text otherwise. Default: ``"auto"``.
        With ``"json"`` or ``"csv"``, the task fails if the text does not have that format. A text of more than 10
        million characters is returned as text, because its value could need too much memory.
    :param output_path: folder in object storage for the results of the run, as ``ObjectStoragePath`` takes it, such as
        ``s3://conn_id@bucket/results``. Text, files and facts are written to a separate folder for each run. Default:
        nothing is written, and the task returns the output itself.
    :param validate_inputs: compare the names of the inputs with the declared ones before the start. This takes one
        more request. If the declaration cannot be read, the task logs a warning and starts the run. When ``False``,
        a wrong name only shows in the run. Default: ``True``.
    :param dry_run: check everything and log the request that would start the run, but start nothing. The task ends as
        skipped.
    :param browseract_conn_id: id of the Airflow connection. Default: ``browseract_default``.
    :param wait_for_completion: wait for the end of the run. When ``False``, the task succeeds once the run is started,
        and returns the id of the BrowserAct task.
    :param deferrable: wait in the triggerer, without holding a worker. Default: ``[operators] default_deferrable``.
    :param webhook: let BrowserAct call back when the run ends, to resume the deferred task at once. ``None`` uses a
        callback if the connection has a ``webhook_base_url``. ``True`` fails the task if a callback is not possible.
        ``False`` only polls. Default: ``None``.
    :param poll_interval: seconds, or a ``timedelta``, between two polls. Default: 10. While a callback is expected, the
        default grows to 120: polls come about 10, 20, 40, 80 and 160 seconds after the deferral, and so on. A shorter
        interval finds the end of the run sooner, but sends more requests.
    :param timeout: seconds, or a ``timedelta``, that the run may take from its start. After that, the run is stopped
        and the Airflow task fails. Default: 7 hours, the limit of the BrowserAct API.
    :param start_timeout: seconds, or a ``timedelta``, that the run may stay in the status ``created``, from its start.
        After that, the run is stopped and the Airflow task fails. Default: no separate limit; only ``timeout`` applies.
    :param queue_timeout: seconds, or a ``timedelta``, to wait in the queue for a slot if BrowserAct accepts no further
        run. After that, the Airflow task fails. Default: the value of ``timeout``.
    :param reattach: let a later try reattach to the run of an earlier one instead of starting another (Airflow 3.3 and
        later, which keep the state of a run for the next try). It needs ``retries``: without a later try, a run that
        would be left to that try is stopped. Default: ``True``.
    :param on_orphan: what to do if it cannot be determined which run an earlier start created: ``"fail"`` and name the
        possible runs, ``"adopt"`` the newest of them, or ``"start"`` a new run while they keep running and using
        credits. Default: ``"fail"``.
    :param on_paused: what to do when the run pauses for a person: keep waiting (``"wait"``), stop the run and fail
        (``"fail"``), resume the run at most three times in each try (``"resume"``), or ask people in Airflow
        (``"ask"``). With ``"ask"``, the pause becomes a Required Action with the live view of the browser and the
        answers Resume and Stop. While it is open, the task is always deferred. Default: ``"wait"``.
    :param on_paused_timeout: seconds, or a ``timedelta``, to wait for the answer to ``"ask"``. Default: as long as the
        run may take.
    :param on_paused_default: what to do if nobody answers in that time: ``"stop"`` or ``"resume"``. Default:
        ``"stop"``.
    :param on_paused_callback: a notifier or a function, or a list of them, called with the context of the task each
        time the run pauses. In the context, ``browseract_task`` contains the facts about the run
        (:func:`~airflow_provider_browseract.runs.report.facts`), with the live view as ``links.live``, and
        ``required_action_url`` is the page on which to answer. With this or with ``"ask"``, the run is polled every 10
        seconds even while a callback is expected.
    :param show_live_view: put the address of the run's live view into the log, XComs, buttons and Required Actions of
        the task. Everyone who may see the task can then open it, and may be able to act in a browser that is logged in.
        When ``False``, only BrowserAct shows it. Default: ``True``.
    :param cancel_on_kill: stop the run when a person marks or clears the Airflow task that waits for it, when
        ``execution_timeout`` or Ctrl-C ends the task, or when its process receives SIGTERM and no later try can
        reattach to the run. When ``False``, the run keeps running and using credits. Default: ``True``.
    :param cancel_on_timeout: stop the run when its time is over, when it still has the status ``created`` after
        ``start_timeout``, or when its status can no longer be read and no later try can reattach to it. When ``False``,
        the run keeps running and using credits. Default: ``True``.
    :returns: the output: the parsed value of JSON text, other text as text, ``None`` if there is none. If the run
        produced files, a dict with that value under ``output`` and the addresses of the files under ``files``.
        With ``output_path``, a dict that describes what was written: ``path`` of the run's folder, ``task`` (path of
        the facts), ``output`` and ``files``, each of those with ``name``, ``path``, ``size`` in bytes and
        ``media_type``.
    :raises InputError: an argument that is not a template has an invalid value. It is raised when the DAG is parsed.
    :raises AirflowFailException: a retry cannot help. Either an argument, the connection or the API key is wrong, and
        nothing was started. Or it is not known whether BrowserAct started a run, and no later try could find out. Or
        the run finished, and a retry would only start, and bill, another run: the output does not have the declared
        format (its text is stored), or some of its files are no longer available. Or a person chose to stop the run.
    :raises RunError: the run failed, was canceled, took too long, paused and nobody answered, or its status could not
        be read; or nothing was started, because there was no free slot or the store did not respond; or the run
        finished and its results could not be written. Airflow's retries apply: the next try starts a new run if it
        cannot use this one.
    """

    template_fields: Sequence[str] = (
        "input_parameters",
        "callback_url",
        "status_change_callback_url",
        "output_path",
        "browseract_conn_id",
    )
    template_fields_renderers = {"input_parameters": "json"}
    operator_extra_links: Collection[BaseOperatorLink] = (BrowserActTaskLink(), LiveViewLink())
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
        show_live_view: bool = True,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        **kwargs: Any,
    ) -> None:
        with naming_similar_arguments(type(self), kwargs):
            super().__init__(**kwargs)
        # Not at the end of execute: until Airflow knows of the success, a later try must find the run.
        # First in the list, because a callback of the user may take longer than Airflow waits.
        self.on_success_callback = [forget_run, *self.on_success_callback]
        self.input_parameters = input_parameters
        self.callback_url = callback_url
        self.status_change_callback_url = status_change_callback_url
        self.output_format = output_format
        self.output_path = output_path
        self.validate_inputs = validate_inputs
        # Airflow's BaseOperator has a method named dry_run.
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
        self.show_live_view = show_live_view
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self._given: dict[str, Any] = {}
        self._secret_inputs = False

    def _take_arguments(self) -> None:
        """Check the arguments that are not templates, and remember the templated ones as they were given."""
        # Airflow creates the operator of a mapped task in the worker, where an error here would be retried.
        if not is_unmapped(self):
            self._check_constants()
        # Rendering may replace a given value with None.
        self._given = {name: getattr(self, name, None) for name in self.template_fields}

    @property
    @abstractmethod
    def source(self) -> Source:
        """The workflow or template to run."""

    @abstractmethod
    def read_request(self) -> RunRequest:
        """Check the arguments of the run, and return them as a request.

        :raises InputError: an argument cannot be used.
        """

    @abstractmethod
    def read_declared(self) -> Sequence[InputParameter]:
        """Read the declared inputs, and check everything that only the API knows."""

    def profile_of(self, started: StartedRun, task: Task | None) -> str | None:
        """Return the browser profile that later runs can use; None for a kind of run without profiles.

        :param started: the run.
        :param task: the run as the API returned it; None if it was not read.
        """
        return None

    def prepare(self, context: Context) -> None:
        """Prepare the arguments before they are checked. Does nothing by default."""

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the operator's connection."""
        hook = BrowserActHook(self.browseract_conn_id)
        unknown = isinstance(self.input_parameters, type(set_during_execution()))
        hook.hiding = Hiding(live_view=not self.show_live_view, secrets=True, texts=unknown)
        return hook

    @property
    def _run(self) -> OwnedRun:
        """The run that this process is responsible for."""
        found: OwnedRun | None = self.__dict__.get("_owned_run")
        if found is None:
            # As functions: creating a log or a hook takes locks, which on_kill must not need.
            hook, log = lambda: self.hook, lambda: self.log
            stops = {"cancel_on_kill": self.cancel_on_kill, "cancel_on_timeout": self.cancel_on_timeout}
            # on_kill can interrupt this at any moment, so the first stored object counts.
            found = self.__dict__.setdefault("_owned_run", OwnedRun(hook, log, **stops))
        return found

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        """Render the templates, and hide secrets before Airflow stores the rendered fields for its UI.

        Airflow calls this method also for mapped tasks, unlike ``render_template_fields``.
        """
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self:
            self._hide_secrets(self.input_parameters)

    def _hide_secrets(self, inputs: Any) -> None:
        """Mask secret inputs, and the paths of the user's callback addresses, in the log and in Airflow's UI."""
        found: set[str] = set()
        # The checks of the arguments report whatever fails here.
        with suppress(Exception):
            without_secrets(inputs, is_secret, found)
        self._secret_inputs = bool(found)
        if found:
            # Airflow's UI hides values by the keys of dicts, also those that are too short to be masked everywhere.
            self.input_parameters = with_names_as_keys(self.input_parameters)
        for url in (self.callback_url, self.status_change_callback_url):
            found |= secret_parts(url)
        if found:
            mask_secret([*sorted(found)])

    def execute(self, context: Context) -> Any:
        """Reattach to the run of an earlier try or start a new one, wait for its end, and return its output."""
        now = time.time()
        with self._run.executing():
            return self._execute(context, Queued(now, now, priority=self.priority_weight))

    def execute_queued(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Continue after a wait for a slot.

        :param event: a :class:`~airflow_provider_browseract.runs.queueing.Queued` as JSON values.
        """
        return self._execute(context, from_json(Queued, event))

    def execute_complete(self, context: Context, event: Any, wait: dict[str, Any] | None = None) -> Any:
        """Continue after the wait for the end. Read the run from the API instead of trusting the event.

        :param event: a :class:`~airflow_provider_browseract.runs.resuming.WaitEvent` as JSON values, from the trigger
            or from the callback route; or a person's answer, from Airflow.
        :param wait: the :class:`~airflow_provider_browseract.runs.waiting.Wait` that ended, as JSON values. It is used
            if the event is a person's answer. ``dag.test()`` does not keep it.
        """
        resumed_at = time.time()
        self._own(context)
        try:
            read = read_event(event, from_json(Wait, wait) if wait else None)
        except ValueError as error:
            return self._end_with_airflow(
                context,
                f"the trigger's event cannot be read: {error}",
                remedy="Check that all components of Airflow have the same version of this provider.",
            )
        self._run.task_id = read.wait.browseract_task_id

        def wait_for_result() -> Any:
            waiter = self._waiter(context)
            # The arguments may have changed since the deferral. The secrets of inputs that a function has returned are
            # not known any more.
            unknown = read.wait.policy.hide_goals and not self._secret_inputs
            self.hook.hiding = replace(self.hook.hiding, texts=unknown)
            resumed = replace(read, wait=replace(read.wait, policy=replace(self._policy, hide_goals=unknown)))
            return self._conclude(context, waiter.until_end(waiter.resume(resumed, resumed_at)))

        return self._account_for(context, read.wait.browseract_task_id, wait_for_result)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after a deferral. If Airflow itself ended it, conclude the run or stop waiting for it."""
        prevent_second_push(self)
        with self._run.executing():
            return self._resume_execution(next_method, next_kwargs, context)

    def _resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            tries = self._own(context)
            overdue = isinstance(error, TaskDeferralTimeout)
            why, remedy = str(error).rstrip("."), "Check that a triggerer is running, and check its log."
            if started_task_id(context["ti"]) is None:
                if overdue:
                    tries.give_up_place()
                raise NoSlotError(f"Airflow ended the wait for a slot: {why}. No run was started.\n{remedy}") from None
            return self._end_with_airflow(context, f"Airflow ended the deferral: {why}", remedy=remedy, overdue=overdue)

    def on_kill(self) -> None:
        """Stop the run if a person, or ``execution_timeout``, ends the Airflow task.

        Airflow calls this in a signal handler for each SIGTERM, including those that the infrastructure sends. In that
        case, a run that the next try can reattach to keeps running.
        """
        self._run.on_kill()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return for OpenLineage what was run and where its results are. The OpenLineage provider calls this method."""
        from airflow_provider_browseract.worker.lineage import lineage_of

        return lineage_of(self.source, self.hook.settings.client.base_url, self._run.conclusion)

    def _execute(self, context: Context, queued: Queued) -> Any:
        """Start the run, wait for a slot first if there is none, wait for the end, and return the result."""
        prevent_second_push(self)
        if self._dry:
            self._run_dry(context)
        tries = self._own(context)

        def check(request: RunRequest) -> None:
            if queued.refusals == 0:
                self._check_before_start(request)

        starter = Starter(self._run, tries, lambda: self._wanted(context), check)
        while isinstance(started := starter.begin(), StartRefused):
            if queued.refusals == 0:
                queued = replace(queued, since=tries.keep_place(queued.since))
            queued = queued.refused()
            limit = self._optional_seconds("queue_timeout") or read_seconds("timeout", self.timeout)
            wait_in_queue(self._run, context, started, queued, limit, self.defer if self.deferrable else None)

        return self._account_for(context, started.task_id, lambda: self._wait_for_result(context, started, queued))

    def _own(self, context: Context) -> Tries:
        """Make this process responsible for the run of a task instance."""
        self._run.source = self.source
        self._run.tries = tries = Tries(context, reattach=self.reattach is True)
        return tries

    def _account_for(self, context: Context, task_id: str, wait_for_result: Callable[[], Any]) -> Any:
        def read_result() -> Any:
            return self._conclude(context, get_run(self.hook, task_id))

        return self._run.account_for(task_id, wait_for_result, read_result)

    def _wanted(self, context: Context) -> Start:
        """Check everything before a run is started, and return the wanted start."""
        self.prepare(context)
        request = self._checked_request()
        ti: Any = context["ti"]
        called = self._with_callback(request, ti)
        client = self.hook.settings.client
        return Start(
            called if register(called, ti, self.log) else request,
            read_seconds("timeout", self.timeout),
            patience=client.longest_call,
            on_orphan=read_choice("on_orphan", self.on_orphan, OnOrphan),
            max_tries=ti.max_tries,
            deferred=self._waits_deferred,
            api_key=client.api_key,
            key_digest=client.key_digest,
        )

    def _wait_for_result(self, context: Context, started: StartedRun, queued: Queued) -> Any:
        """Push the XComs that later tasks need, and wait for the run if ``wait_for_completion`` is set."""
        ti: Any = context["ti"]
        self._push_ids(ti, started)
        if self._run.tries is not None and (queued.refusals or ti.try_number > 1):
            self._run.tries.give_up_place()
        self._run.raise_if_killed()
        limit = self._optional_seconds("start_timeout")
        wait = Wait(
            started.task_id,
            started.entry.deadline,
            started.entry.callback_token_sha256,
            start_by=None if limit is None else started.entry.written_at + limit,
            policy=self._policy,
            key_digest=self.hook.settings.client.key_digest,
        )
        task, wait = self._look(ti, started, wait)
        self._run.raise_if_killed()
        if not self.wait_for_completion:
            self._run.task_id = None
            self.log.info("Not waiting for BrowserAct task %s.", started.task_id)
            return started.task_id
        first = Conclude(task) if task is not None and task.status.ended else WaitAgain(wait)
        return self._conclude(context, self._waiter(context).until_end(first))

    def _push_ids(self, ti: Any, started: StartedRun) -> None:
        ti.xcom_push(key="task_id", value=started.task_id)
        self._push_profile(ti, self.profile_of(started, None))
        digest = started.entry.callback_token_sha256
        if started.task is not None and digest:
            # The callback uses the token of the try that started the run.
            show_wait(ti, digest, {"waits_for": "callback"}, self.log)

    def _push_profile(self, ti: Any, profile_id: str | None) -> None:
        """Push the profile that later runs can use, if the kind of run has profiles."""
        if profile_id is None:
            return
        try:
            ti.xcom_push(key="profile_id", value=profile_id)
        except Exception as error:  # noqa: BLE001 - the run is more important, and the log contains the id
            self.log.error(
                "The XCom 'profile_id' could not be pushed (%s: %s), so later tasks cannot read it. The profile is %s.",
                type(error).__name__,
                error,
                profile_id or "none",
            )

    def _look(self, ti: Any, started: StartedRun, wait: Wait) -> tuple[Task | None, Wait]:
        """Read a new run for its links and, if the response to the start had none, for its profile."""
        try:
            task = started.task or self.hook.get_task(started.task_id)
        except BrowserActError as error:
            self.log.warning("BrowserAct task %s was started, but cannot be read yet: %s", started.task_id, error.brief)
            return None, wait
        self._run.url = log_url(task)
        show_run(ti, task, self.log)
        if (profile_id := self.profile_of(started, task)) != self.profile_of(started, None):
            self._push_profile(ti, profile_id)
        lines, wait = wait.news(task)
        for line in lines:
            self.log.info("%s", line)
        return task, wait

    def _waiter(self, context: Context) -> Waiter:
        return Waiter(
            self._run,
            context,
            deferrable=self.deferrable,
            defer=self.defer,
            timeout=read_seconds("timeout", self.timeout),
            start_timeout=self._optional_seconds("start_timeout"),
            callbacks=read_callbacks(self.on_paused_callback),
            cancel_on_kill=self.cancel_on_kill,
            secret_inputs=self._secret_inputs,
        )

    @property
    def _waits_deferred(self) -> bool:
        return self.deferrable and self.wait_for_completion

    def _optional_seconds(self, argument: str) -> float | None:
        """Return an argument that is a length of time or None, in seconds."""
        given = getattr(self, argument)
        return None if given is None else read_seconds(argument, given)

    @property
    def _policy(self) -> WaitPolicy:
        return WaitPolicy(
            poll_interval=self._optional_seconds("poll_interval"),
            on_paused=OnPaused(self.on_paused),
            notifies_of_pauses=bool(read_callbacks(self.on_paused_callback)),
            answer_timeout=self._optional_seconds("on_paused_timeout"),
            answer_default=Answer(self.on_paused_default),
            show_live_view=self.show_live_view,
        )

    def _conclude(self, context: Context, task: Task) -> Any:
        """Return the result of a run that has ended, or raise the error with which it ended."""
        if task.status is TaskStatus.CANCELED:
            self._run.await_decision()
            if isinstance(self._run.kill_error, RunCanceledError):
                # This error states why this process stopped the run.
                raise self._run.kill_error
        self._run.task_id = None
        self._run.url = log_url(task)
        self._run.conclusion = Conclusion(
            task,
            context,
            output_format=OutputFormat(self.output_format),
            output_path=self.output_path,
            hook=self.hook,
            outlets=self.outlets,
            another_try_reads_it=self._run.tries is not None and self._run.tries.remembered,
            advice=READ_AGAIN,
            log=self.log,
            must_end=self._run.must_end,
        )
        return self._run.conclusion.result()

    def _end_with_airflow(self, context: Context, why: str, *, remedy: str, overdue: bool = False) -> Any:
        """Return the result if the run has ended although Airflow's part of the wait failed, or stop waiting for it.

        :param context: the context of the Airflow task.
        :param why: what failed, as a clause.
        :param remedy: what the user can do, as a sentence.
        :param overdue: the time of the run is over.
        """
        task_id = self._run.task_id = started_task_id(context["ti"])
        task = None
        try:
            task = get_run(self.hook, task_id) if task_id else None
        except Exception as error:  # noqa: BLE001 - the failed wait is reported instead
            self.log.warning("BrowserAct task %s cannot be read: %s", task_id, error)
        if task is not None:
            self._run.url = log_url(task)
            if task.status.ended:
                self.log.warning("The run has ended, so its result is read, although %s.", why.rstrip("."))
                return self._conclude(context, task)
        raise self._run.give_up(task_id, why, remedy=remedy, overdue=overdue)

    def _run_dry(self, context: Context) -> NoReturn:
        try:
            self.prepare(context)
            request = self._checked_request()
            self._with_callback(request, context["ti"])
            self._check_before_start(request)
        except Exception as error:  # noqa: BLE001 - raised again by fail_to_start
            fail_to_start(error, self._run, Tries(context, reattach=False), None)
        self.log.info(
            "Dry run: nothing is started. The request would be %s %s%s with %s",
            request.call.method,
            self.hook.settings.client.base_url,
            request.call.path,
            json.dumps(request.shown(is_secret), ensure_ascii=False),
        )
        raise AirflowSkipException(f"Dry run: no run of {self.source} was started.")

    def _checked_request(self) -> RunRequest:
        """Check the rendered arguments, and return the request."""
        self._check_constants()
        self._hide_secrets(self.input_parameters)
        for name, given in self._given.items():
            rendered = getattr(self, name)
            if isinstance(given, list | tuple) and isinstance(rendered, Mapping):
                rendered = [{"name": key, "value": value} for key, value in rendered.items()]
            check_rendered(name, given, rendered)
        if self.output_path is not None:
            read_output_path(self.output_path)
        request = self.read_request()
        # A value can also be a lazy sequence, which only the request has read.
        self._hide_secrets(request.inputs)
        return request

    def _with_callback(self, request: RunRequest, ti: Any) -> RunRequest:
        """Return the request with our callback address, if BrowserAct is to call back."""
        if self.webhook is False or not self._waits_deferred:
            return request
        return with_callback(request, ti, self.hook, self.log, demanded=self.webhook is True)

    def _check_before_start(self, request: RunRequest) -> None:
        """Check the store and the names of the inputs before the run is started and costs credits."""
        if (store := open_store(self.output_path, self.hook, self.log)) is not None:
            store.check("No run was started.")
        if not self.validate_inputs:
            return
        try:
            declared = self.read_declared()
        # The start would have no connection either, and would be tried for as long again.
        except (NotFoundError, AuthenticationError, ConnectionFailedError):
            raise
        except BrowserActError as error:
            self.log.warning("The names of the inputs were not checked: %s", error.brief)
            return
        if declared:
            check_names(request.inputs, declared, str(self.source))
        elif request.inputs:
            self.log.warning("The names of the inputs were not checked: BrowserAct lists none for %s.", self.source)

    def _check_constants(self) -> None:
        """Check the arguments that are not templates, so that a wrong one is an import error of the DAG."""
        read_seconds("timeout", self.timeout)
        for name in ("poll_interval", "start_timeout", "queue_timeout", "on_paused_timeout"):
            self._optional_seconds(name)
        read_flag("dry_run", self._dry)
        for flag in (
            "validate_inputs",
            "wait_for_completion",
            "deferrable",
            "reattach",
            "show_live_view",
            "cancel_on_kill",
            "cancel_on_timeout",
        ):
            read_flag(flag, getattr(self, flag))
        read_choice("output_format", self.output_format, OutputFormat)
        read_choice("on_orphan", self.on_orphan, OnOrphan)
        self._check_pauses()
        self._check_webhook()
        if self.output_path is not None and not self.wait_for_completion:
            raise InputError(
                "output_path needs wait_for_completion=True: the output of a run is available only at its end."
            )

    def _check_webhook(self) -> None:
        if self.webhook is not None and not isinstance(self.webhook, bool):
            raise InputError(f"webhook is {self.webhook!r}. Use True, False or None.")
        if self.webhook is True and not self._waits_deferred:
            raise InputError(
                "webhook=True needs deferrable=True and wait_for_completion=True: a callback can only resume a task "
                "that is deferred."
            )

    def _check_pauses(self) -> None:
        asks = read_choice("on_paused", self.on_paused, OnPaused) is OnPaused.ASK
        default = read_choice("on_paused_default", self.on_paused_default, Answer)
        if not asks and (self.on_paused_timeout is not None or default is not Answer.STOP):
            raise InputError(
                f"on_paused_timeout and on_paused_default have no effect with on_paused={self.on_paused!r}, because "
                "nobody is asked. Set on_paused='ask', or remove them."
            )
        callbacks = read_callbacks(self.on_paused_callback)
        if not self.wait_for_completion and (asks or callbacks):
            raise InputError(
                "on_paused='ask' and on_paused_callback need wait_for_completion=True: a task that does not wait for "
                "its run does not notice a pause."
            )


def forget_run(context: Context) -> None:
    """Delete the stored state of a run after the task has succeeded, so that clearing the task starts a new run."""
    Tries(context, reattach=True).write(None)
