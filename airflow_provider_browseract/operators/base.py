"""The base classes of the operators that start a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_browseract.compat import (
    AIRFLOW_V_3_3_PLUS,
    TaskDeferralError,
    TaskDeferralTimeout,
    conf,
    is_secret,
    is_unmapped,
    set_during_execution,
    task_instance_state,
)
from airflow_provider_browseract.exceptions import BrowserActError, InputError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.hiding import Hiding
from airflow_provider_browseract.in_airflow.links import BUTTONS, stop_airflow_pushing_links
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.hints import check_arguments, check_rendered, naming_task
from airflow_provider_browseract.runs.options import (
    AskPerson,
    OnBudget,
    OnPaused,
    OutputFormat,
    PauseCallbacks,
    RunOptions,
)
from airflow_provider_browseract.worker.own_run import OwnRun

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import BaseOperatorLink, Context, ObjectStoragePath
    from typing_extensions import Self

    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.api.versions import SourceKind
    from airflow_provider_browseract.runs.request import RunRequest, Source
    from airflow_provider_browseract.worker.execution import Execution

InputParameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


def forget_run(context: Context) -> None:
    """Delete the stored state of a run once Airflow has accepted the success, so that a clear starts a new run."""
    from airflow_provider_browseract.worker.ledger import Ledger

    ledger = Ledger(context, durable=True)
    # A person may have marked the task as failed at the same time.
    if ledger.is_kept and task_instance_state(context["ti"]) == "success":
        ledger.write(None)


class RunOperator(BaseOperator):
    """Start a run, wait for its end, and return its output. Subclasses define what is run.

    Right after the start, the task pushes the id of the BrowserAct task as the XCom ``task_id``. The XCom ``task``
    contains the facts about the run, without its data (:func:`~airflow_provider_browseract.runs.report.facts`).

    :class:`~airflow_provider_browseract.operators.browseract.RunWorkflowOperator` describes the arguments, the result
    and the errors.
    """

    template_fields: Sequence[str] = (
        "callback_url",
        "status_change_callback_url",
        "output_path",
        "browseract_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"input_parameters": "json", "input": "json"}
    operator_extra_links: Collection[BaseOperatorLink] = BUTTONS
    source_kind: ClassVar[SourceKind]
    inputs_argument: ClassVar[str]
    ui_color = "#e6f0ff"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the arguments before Airflow does."""
        check_arguments(cls, kwargs)
        return super().__new__(cls)

    def __init__(
        self,
        *,
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
        queue_timeout: float | timedelta | None = None,
        max_credits: int | None = None,
        on_budget: str = OnBudget.FAIL.value,
        durable: bool = AIRFLOW_V_3_3_PLUS,
        on_paused: str | AskPerson = OnPaused.WAIT.value,
        on_paused_callback: PauseCallbacks = None,
        show_live_view: bool = True,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
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
        self.queue_timeout = queue_timeout
        self.max_credits = max_credits
        self.on_budget = on_budget
        self.durable = durable
        self.on_paused = on_paused
        self.on_paused_callback = on_paused_callback
        self.show_live_view = show_live_view
        self.cancel_on_kill = cancel_on_kill
        self.given: dict[str, Any] = {}
        # Airflow creates the operator of a mapped task in the worker, where an error here would be retried.
        if not is_unmapped(self):
            with naming_task(self.task_id):
                RunOptions.of(self)

    @property
    def has_own_callback(self) -> bool:
        """Whether BrowserAct calls back an address of the user."""
        return bool(self.callback_url or self.status_change_callback_url)

    @property
    def source(self) -> Source:
        """What is run, with its id as it was rendered."""
        from airflow_provider_browseract.runs.request import ID_ARGUMENTS, Source

        return Source(self.source_kind, str(getattr(self, ID_ARGUMENTS[self.source_kind])))

    def request(self, **arguments: Any) -> RunRequest:
        """Check the rendered arguments, and return the request that starts the run.

        :param arguments: the arguments of the start that only some kinds of runs have.
        :raises InputError: an argument cannot be used.
        """
        from airflow_provider_browseract.runs.request import ID_ARGUMENTS, read_request

        return read_request(
            self.source_kind,
            getattr(self, ID_ARGUMENTS[self.source_kind]),
            getattr(self, self.inputs_argument),
            api_base_url=self.hook.settings.base_url,
            callback_url=self.callback_url,
            status_change_callback_url=self.status_change_callback_url,
            **arguments,
        )

    @abstractmethod
    def check_inputs(self, request: RunRequest) -> RunRequest:
        """Compare the inputs with what BrowserAct declares, and return the request to send.

        :raises InputError: an input is not what BrowserAct declares.
        """

    def profile_of(self, created: str | None, task: Task | None) -> str | None:
        """Return the profile for the XCom ``profile_id``; None for a kind of run without profiles.

        :param created: the profile in the response to the start.
        :param task: the run as the API returned it; None if it was not read.
        """
        return None

    def prepare(self, context: Context) -> None:
        """Prepare the arguments before they are checked. Does nothing by default."""

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the operator's connection."""
        hook = BrowserActHook(self.browseract_conn_id)
        placeholder = type(set_during_execution())
        unknown = any(isinstance(getattr(self, name, None), placeholder) for name in self.template_fields)
        hook.hiding = Hiding(live_view=not self.show_live_view, secrets=True, texts=unknown)
        return hook

    def read_request(self, context: Context) -> RunRequest:
        """Check the rendered arguments, which needs no other service, and return the request.

        From then on, the hook knows whether the run has secret inputs.

        :raises InputError: an argument cannot be used.
        """
        from airflow_provider_browseract.results.folder import read_output_path

        self.prepare(context)
        # From now on, this process knows the inputs, and masks the secret ones.
        self.hook.hiding = replace(self.hook.hiding, texts=False)
        self.hide_secrets()
        for name, given in self.given.items():
            rendered = getattr(self, name)
            if isinstance(given, list | tuple) and isinstance(rendered, Mapping):
                rendered = [{"name": key, "value": value} for key, value in rendered.items()]
            check_rendered(name, given, rendered)
        if self.output_path is not None:
            read_output_path(self.output_path)
        request = self.request()
        # A value can also be a lazy sequence, which only the request has read.
        self.hook.hiding = replace(self.hook.hiding, secret_inputs=self._mask_secrets(request.inputs))
        return request

    def _mask_secrets(self, inputs: Any) -> bool:
        from airflow_provider_browseract.worker.checks import mask_secrets

        return mask_secrets(inputs, self.callback_url, self.status_change_callback_url)

    @property
    def _run(self) -> OwnRun:
        """The run that this process answers for."""
        found: OwnRun | None = self.__dict__.get("_run")
        # on_kill can interrupt this at any moment, so the first stored object counts.
        return self.__dict__.setdefault("_run", OwnRun()) if found is None else found

    @contextmanager
    def _executing(self, context: Context) -> Iterator[Execution]:
        """Run the code of the operator in this context."""
        if "ti" not in context:
            raise InputError("execute needs the context of a task instance. In a test, run the DAG with dag.test().")
        stop_airflow_pushing_links(self)
        # Not at the end of execute: until Airflow knows of the success, a later try must find the run. Not in __init__,
        # where a cluster policy could drop it. First: a callback of the user may take longer than Airflow waits.
        given: Any = self.on_success_callback or ()
        given = [given] if callable(given) else given
        self.on_success_callback = [forget_run, *(each for each in given if each is not forget_run)]
        with self._run.executing():
            from airflow_provider_browseract.worker.showing import showing_failure

            execution = self._execution(context)
            with showing_failure(context["ti"], execution.failure_facts, self.log):
                yield execution

    def _execution(self, context: Context) -> Execution:
        """Return the execution of this try, and make it the first time."""
        found: Execution | None = self.__dict__.get("_executed")
        if found is None or found.context is not context:
            # Only workers need it, and DAG files import this module.
            from airflow_provider_browseract.worker.execution import Execution

            found = self._executed = Execution(self, context, self._run)
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
        if parent is self:
            # Rendering may replace a given value with None.
            self.given = {name: getattr(self, name, None) for name in self.template_fields}
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self:
            self.hide_secrets()

    @abstractmethod
    def hide_secrets(self) -> bool:
        """Mask the secret inputs, also those that are too short to be masked everywhere; return whether there are any.

        Called when the templates are rendered, and again after :meth:`prepare` and after a deferral.
        """

    def execute(self, context: Context) -> Any:
        """Reattach to the run of an earlier try or start a new one, wait for its end, and return its output."""
        if not self.do_xcom_push:
            self.log.info("Later tasks cannot read the output of this task, because it has do_xcom_push=False.")
        try:
            with self._executing(context) as execution:
                return execution.execute()
        except BrowserActError as error:
            # Its words say everything. Nobody needs the frames of the call.
            raise error.with_traceback(None) from None

    def execute_queued(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Continue after a wait for a slot.

        :param event: a :class:`~airflow_provider_browseract.queue.queueing.Queued` as JSON values.
        """
        return self._execution(context).resume_from_queue(event)

    def execute_complete(self, context: Context, event: Any, wait: dict[str, Any] | None = None) -> Any:
        """Continue after the wait for the end. Read the run from the API instead of trusting the event.

        :param event: a :class:`~airflow_provider_browseract.runs.wait.WaitEvent` as JSON values, from the trigger
            or from the callback route; or a person's answer, from Airflow.
        :param wait: the :class:`~airflow_provider_browseract.runs.wait.Wait` that ended, as JSON values. It is used
            if the event is a person's answer. ``dag.test()`` does not keep it.
        """
        return self._execution(context).resume_from_wait(event, wait)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after a deferral. If Airflow itself ended it, conclude the run or stop waiting for it."""
        try:
            with self._executing(context) as execution:
                try:
                    return super().resume_execution(next_method, next_kwargs, context)
                except (TaskDeferralError, TaskDeferralTimeout) as error:
                    return execution.end_with_airflow(error, overdue=isinstance(error, TaskDeferralTimeout))
        except BrowserActError as error:
            raise error.with_traceback(None) from None

    def on_kill(self) -> None:
        """Stop the run if a person, or ``execution_timeout``, ends the Airflow task.

        Airflow calls this in a signal handler for each SIGTERM, including those that the infrastructure sends. In that
        case, a run that the next try can reattach to keeps running.
        """
        self._run.on_kill()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return for OpenLineage what was run and where its results are. The OpenLineage provider calls this method."""
        from airflow_provider_browseract.worker.lineage import lineage_of

        return lineage_of(self.source, self.hook.settings.base_url, self._run.conclusion)


class InputParametersOperator(RunOperator):
    """Start a run with ``input_parameters``, the inputs of version 2 of the API: texts by name."""

    inputs_argument = "input_parameters"
    template_fields: Sequence[str] = ("input_parameters", *RunOperator.template_fields)

    def __init__(self, *, input_parameters: InputParameters = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.input_parameters = input_parameters

    def check_inputs(self, request: RunRequest) -> RunRequest:
        """Compare the names of the inputs with those that the workflow or template declares."""
        from airflow_provider_browseract.worker.checks import check_names

        return check_names(request, self.hook, self.log)

    def hide_secrets(self) -> bool:
        """Mask the secret inputs. If there are any, give Airflow's UI a dict, because it hides values by keys."""
        from airflow_provider_browseract.runs.request import with_names_as_keys

        found = self._mask_secrets(self.input_parameters)
        if found:
            self.input_parameters = with_names_as_keys(self.input_parameters)
        return found


class InputOperator(RunOperator):
    """Start a run with ``input``, the input of version 3 of the API: JSON values by name."""

    inputs_argument = "input"
    template_fields: Sequence[str] = ("input", *RunOperator.template_fields)

    def __init__(self, *, input: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.input = input

    def check_inputs(self, request: RunRequest) -> RunRequest:
        """Compare the input with the schema of the bot or template, and convert texts to the types that it declares."""
        from airflow_provider_browseract.worker.checks import conform_input

        return conform_input(request, self.hook, self.log)

    def hide_secrets(self) -> bool:
        """Mask the secret values of the input. Remove them from one that is no dict: it is refused, but shown."""
        from airflow_provider_browseract.runs.request import without_secrets

        found = self._mask_secrets(self.input)
        if found and not isinstance(self.input, Mapping):
            self.input = without_secrets(self.input, is_secret, set())
        return found
