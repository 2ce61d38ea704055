"""The hook: call BrowserAct's API with an Airflow connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from datetime import datetime
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseHook

from airflow_provider_browseract import __version__
from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.compat import AirflowNotFoundException, imports_dag_file, in_dag_test, in_task
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    InputError,
    RunStartUnknownError,
    TaskEndedError,
    TaskNotFoundError,
)
from airflow_provider_browseract.hooks import connection as form
from airflow_provider_browseract.hooks.hiding import NOTHING
from airflow_provider_browseract.in_airflow.shielding import uninterrupted
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.request import (
    RunRequest,
    read_bot_run,
    read_bot_template_run,
    read_run,
    read_template_run,
)

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_browseract.api.async_client import AsyncBrowserActClient
    from airflow_provider_browseract.api.calls import Call
    from airflow_provider_browseract.api.client import BrowserActClient
    from airflow_provider_browseract.api.models import (
        BotType,
        CreatedTask,
        Region,
        SourceInfo,
        Task,
        TaskState,
        TaskStatus,
    )
    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.runs.spend import Spend

T = TypeVar("T")


class BrowserActHook(BaseHook):
    """Call BrowserAct with an Airflow connection of type ``browseract``. Each endpoint has a method, which blocks.

    The hook reads the connection at the first call, and again after BrowserAct has refused the API key. If it then has
    another key, the call is sent again, unless it starts a run. Every method raises a subclass of
    :class:`~airflow_provider_browseract.exceptions.BrowserActError` if the call fails, and
    :class:`~airflow_provider_browseract.exceptions.InputError` if an argument or the connection cannot be used.

    A method that takes the id of a task looks for the task among the runs of workflows (version 2 of the API) and then,
    if BrowserAct does not know it there, among the runs of bots (version 3).

    The methods that start a run raise :class:`~airflow_provider_browseract.exceptions.InputError` while Airflow reads a
    DAG file: code at the top of a file would start, and bill, a run each time.

    :param browseract_conn_id: id of the Airflow connection.
    """

    conn_name_attr = "browseract_conn_id"
    default_conn_name = "browseract_default"
    conn_type = form.CONNECTION_TYPE
    hook_name = form.HOOK_NAME

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the form's extra fields to Airflow 3.1; newer cores read the provider info."""
        return form.form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the form's standard fields to Airflow 3.1; newer cores read the provider info."""
        return form.field_behaviour()

    def __init__(self, browseract_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.browseract_conn_id = browseract_conn_id
        self._settings: Settings | None = None
        self._key_refused = False
        self._versions: dict[str, ApiVersion] = {}
        self.hiding = NOTHING
        """What :attr:`client` removes from the runs that it returns. Operators and sensors set it."""

    @property
    def settings(self) -> Settings:
        """The settings of the connection."""
        # Another thread may let the hook forget them.
        settings = self._settings
        if settings is None:
            settings = self._settings = _read(self.get_connection(self.browseract_conn_id))
        return settings

    @cached_property
    def client(self) -> BrowserActClient:
        """The client that sends the calls of workers."""
        from airflow_provider_browseract.api.client import BrowserActClient

        return BrowserActClient(
            self._current, refused=self._forget, shown=lambda result: self.hiding.apply(result), warn=self.log.warning
        )

    def get_conn(self) -> BrowserActClient:
        """Return :attr:`client`. All hooks of Airflow have a method with this name."""
        return self.client

    def client_within(self, seconds: float | None) -> AbstractContextManager[BrowserActClient]:
        """Return a client for calls that must end in time.

        :param seconds: seconds after which a call fails, retries included; ``None`` for :attr:`client`, whose limits
            are those of the connection.
        """
        if seconds is None:
            return nullcontext(self.client)
        from airflow_provider_browseract.api.client import BrowserActClient

        return BrowserActClient(lambda: self._current(seconds), refused=self._forget)

    @asynccontextmanager
    async def async_client(self, *, within: float | None = None) -> AsyncIterator[AsyncBrowserActClient]:
        """Open a client for an event loop, for triggers and the panel. Reading the connection does not block the loop.

        :param within: seconds after which a call fails, retries included. Default: as the connection's timeouts and
            ``retry_budget`` say.
        """
        from airflow_provider_browseract.api.async_client import AsyncBrowserActClient

        async def settings() -> Settings:
            current = self._settings
            if current is None:
                with self._failing_the_call():
                    current = self._settings = await self._read_without_blocking()
            return current.within(within)

        await settings()
        async with AsyncBrowserActClient(settings, refused=self._forget) as client:
            yield client

    def _current(self, within: float | None = None) -> Settings:
        with self._failing_the_call():
            return self.settings.within(within)

    def _forget(self) -> None:
        """Read the connection again when it is needed next, because someone may have replaced the API key."""
        self._settings, self._key_refused = None, True

    @contextmanager
    def _failing_the_call(self) -> Iterator[None]:
        """Let the call fail if the connection cannot be read again, so that a wait for a run continues."""
        try:
            yield
        except Exception as error:
            if not self._key_refused:
                raise
            raise form.unreadable(self.browseract_conn_id, error) from error

    async def _read_without_blocking(self) -> Settings:
        try:
            return _read(await uninterrupted(self.aget_connection(self.browseract_conn_id)))
        except AirflowNotFoundException:
            # In a task of Airflow 3.1 and under dag.test(), only the blocking method finds the connections that Airflow
            # stores.
            if not (in_task() or in_dag_test()):
                raise
            return _read(self.get_connection(self.browseract_conn_id))

    def run_task(
        self,
        workflow_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        save_browser_data: bool = False,
        profile_id: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of a workflow (``run-task``). Check all arguments before sending anything.

        :param workflow_id: the workflow to run.
        :param input_parameters: the inputs, as a dict or as the API's list of name/value pairs.
        :param save_browser_data: save cookies and logins of the run in a profile. The result then contains its id.
        :param profile_id: profile of an earlier run to start with.
        :param callback_url: public address that BrowserAct calls once, when the task ends.
        :param status_change_callback_url: public address that BrowserAct calls at each change of status.
        :returns: the id of the task and, with ``save_browser_data``, of the profile.
        :raises RunStartUnknownError: the call may have started a run, but the response was lost or cannot be used.
        :raises ConcurrencyLimitError: as many runs as the plan allows are running. The hook does not wait for a slot.
        """
        return self._start(
            read_run,
            workflow_id,
            input_parameters,
            save_browser_data=save_browser_data,
            profile_id=profile_id,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
        )

    def run_task_by_template(
        self,
        workflow_template_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        region: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of an official template (``run-task-by-template``). Check all arguments before sending anything.

        :param workflow_template_id: the template to run.
        :param input_parameters: the inputs, as a dict or as the API's list of name/value pairs.
        :param region: code of the proxy region. Default: ``US``, the API's.
        :param callback_url: public address that BrowserAct calls once, when the task ends.
        :param status_change_callback_url: public address that BrowserAct calls at each change of status.
        :returns: the id of the task. Runs of templates have no profiles.
        :raises RunStartUnknownError: as :meth:`run_task`.
        :raises ConcurrencyLimitError: as :meth:`run_task`.
        """
        return self._start(
            read_template_run,
            workflow_template_id,
            input_parameters,
            region=region,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
        )

    def run_bot(
        self,
        bot_id: str,
        input: Mapping[str, Any] | None = None,
        *,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of a bot (``create-run``). Check all arguments before sending anything.

        The hook does not compare the input with the schema of the bot. BrowserAct refuses an input that does not match.

        :param bot_id: the bot to run.
        :param input: the input by name: any JSON values, as the bot's schema (:meth:`get_bot`) describes them.
        :param callback_url: public address that BrowserAct calls once, when the task ends.
        :param status_change_callback_url: public address that BrowserAct calls at each change of status.
        :returns: the id of the task. Runs of bots have no profiles.
        :raises RunStartUnknownError: as :meth:`run_task`.
        :raises ConcurrencyLimitError: as :meth:`run_task`.
        """
        return self._start(
            read_bot_run,
            bot_id,
            input,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
        )

    def run_bot_template(
        self,
        template_id: str,
        input: Mapping[str, Any] | None = None,
        *,
        region: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of an official template as a bot (``create-template-run``). Check all arguments first.

        :param template_id: the template to run.
        :param input: as in :meth:`run_bot`; :meth:`get_bot_template` returns the schema.
        :param region: code of the proxy region. Default: ``US``, the API's.
        :param callback_url: public address that BrowserAct calls once, when the task ends.
        :param status_change_callback_url: public address that BrowserAct calls at each change of status.
        :returns: the id of the task.
        :raises RunStartUnknownError: as :meth:`run_task`.
        :raises ConcurrencyLimitError: as :meth:`run_task`.
        """
        return self._start(
            read_bot_template_run,
            template_id,
            input,
            region=region,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
        )

    def _start(self, read: Callable[..., RunRequest], source_id: str, inputs: Any, **arguments: Any) -> CreatedTask:
        """Read the arguments of a start, and send it.

        :raises RunStartUnknownError: it failed, and may have started a run.
        """
        if imports_dag_file():
            raise InputError(
                "This line would start a paid run each time Airflow reads this file. Move it into a @task."
            )
        form.check_for_start(self.settings)
        call = read(source_id, inputs, api_base_url=self.settings.base_url, **arguments).call
        try:
            return self.client.send(call)
        except BrowserActError as error:
            if error.not_processed:
                raise
            raise RunStartUnknownError(
                f"It is not known whether BrowserAct started a run: {error.message}",
                http_status=error.http_status,
                code=error.code,
                msg=error.msg,
                trace_id=error.trace_id,
                connection=error.connection,
            ) from error
        except BaseException:
            # For example Airflow's execution_timeout, which can interrupt the code at any point.
            self.log.error(
                "Interrupted during %s. A run may be running and using credits, and its id is not known.", call.name
            )
            raise

    def send_about(self, task_id: str, call: Callable[[ModuleType], Call[T]]) -> T:
        """Send a call about a task that a person names, in the version of the API that knows the task.

        :param call: makes the call of a version. Version 3 is asked only if version 2 does not know the task.
        :raises TaskNotFoundError: neither version knows the task.
        """
        version = self._versions.get(task_id, ApiVersion.V2)
        try:
            result = self.client.send(call(APIS[version]))
        except TaskNotFoundError:
            if task_id in self._versions:
                raise
            version = ApiVersion.V3
            result = self.client.send(call(APIS[version]))
        self._versions[task_id] = version
        return result

    def get_task(self, task_id: str) -> Task:
        """Read everything about a task (``get-task``, ``query-run``).

        :param task_id: the task to read.
        :returns: the task with its steps so far and, once it has ended, its output or the reason of its failure.
        :raises TaskNotFoundError: there is no such task.
        """
        task: Task = self.send_about(task_id, lambda api: api.get_task(task_id))
        return task

    def get_task_status(self, task_id: str) -> TaskStatus:
        """Read only the status of a task, the cheapest way to poll (``get-task-status``, ``query-run-status``).

        :param task_id: the task to read.
        :returns: the status. If its ``ended`` is ``True``, it does not change any more.
        :raises TaskNotFoundError: there is no such task.
        """
        state: TaskState = self.send_about(task_id, lambda api: api.get_task_status(task_id))
        return state.status

    def iter_tasks(
        self,
        *,
        workflow_id: str | None = None,
        workflow_name: str | None = None,
        status: TaskStatus | str | None = None,
        created_at_from: datetime | None = None,
        created_at_to: datetime | None = None,
    ) -> Iterator[Task]:
        """Iterate over the tasks of version 2 that match (``list-tasks``); each page is read when it is needed.

        :param workflow_id: only tasks of this workflow.
        :param workflow_name: only tasks of workflows whose name contains this. Case does not matter.
        :param status: only tasks with this status.
        :param created_at_from: only tasks created at this time or later. It needs a time zone.
        :param created_at_to: only tasks created at this time or earlier. It needs a time zone.
        :returns: the tasks, without steps and downloads, which only :meth:`get_task` returns.
        """
        call = v2.list_tasks(
            source_id=workflow_id,
            name=workflow_name,
            status=status,
            created_at_from=created_at_from,
            created_at_to=created_at_to,
        )
        return self.client.iter_items(call)

    def iter_bot_tasks(
        self,
        *,
        bot_id: str | None = None,
        bot_name: str | None = None,
        status: TaskStatus | str | None = None,
        created_at_from: datetime | None = None,
        created_at_to: datetime | None = None,
    ) -> Iterator[Task]:
        """Iterate over the runs of bots and their templates that match (``page-runs``); pages are read when needed.

        :param bot_id: only runs of this bot. Runs of templates have no ``bot_id``.
        :param bot_name: only runs of bots whose name contains this.
        :param status: only runs with this status. Version 3 of the API has no ``unknown``.
        :param created_at_from: only runs created at this time or later. It needs a time zone.
        :param created_at_to: only runs created at this time or earlier. It needs a time zone.
        :returns: the runs, without output, steps and downloads, which only :meth:`get_task` returns. Their order is not
            documented.
        """
        call = v3.list_tasks(
            source_id=bot_id,
            name=bot_name,
            status=status,
            created_at_from=created_at_from,
            created_at_to=created_at_to,
        )
        return self.client.iter_items(call)

    def get_spend(
        self,
        created_at_from: datetime,
        created_at_to: datetime | None = None,
        *,
        workflow_id: str | None = None,
        bot_id: str | None = None,
    ) -> Spend:
        """Add up the credits of all runs of the account, whoever started them (``list-tasks``, ``page-runs``).

        :param created_at_from: only runs created at this time or later. It needs a time zone.
        :param created_at_to: only runs created before this time. It needs a time zone.
        :param workflow_id: only runs of this workflow.
        :param bot_id: only runs of this bot; together with ``workflow_id``, the runs of both.
        :returns: the sums by day and workflow or bot. The credits of active runs can be incomplete.
        """
        from airflow_provider_browseract.runs.spend import ListedRun, Spend

        of = {ApiVersion.V2: workflow_id, ApiVersion.V3: bot_id}
        calls = [
            APIS[version].list_tasks(source_id=given, created_at_from=created_at_from, created_at_to=created_at_to)
            for version, given in of.items()
            if given is not None or (workflow_id is None and bot_id is None)
        ]
        runs = (ListedRun.of(task) for call in calls for task in self.client.iter_items(call))
        # The API compares whole seconds.
        return Spend.of(
            run
            for run in runs
            if created_at_from <= run.created_at and (created_at_to is None or run.created_at < created_at_to)
        )

    def stop_task(self, task_id: str, *, biz_code: int | None = None) -> bool:
        """Stop a task (``stop-task``, ``cancel-run``).

        :param task_id: the task to stop.
        :param biz_code: a number for your own statistics.
        :returns: ``False`` if the task had already ended or does not exist. If it does not exist, a warning is logged.
        """
        try:
            self.send_about(task_id, lambda api: api.stop_task(task_id, biz_code=biz_code))
        except TaskEndedError:
            return False
        except TaskNotFoundError as error:
            # With the key of another account, a task that is running looks like one that is gone.
            self.log.warning("BrowserAct task %s was not stopped: %s. %s", task_id, error.brief, error.advice)
            return False
        return True

    def resume_task(self, task_id: str) -> None:
        """Resume a paused task (``resume-task``, ``resume-run``). The run of a bot may still be paused for a moment.

        :param task_id: the task that waits for a person.
        :raises TaskNotPausedError: the task is not paused.
        :raises ResumeNotSupportedError: the task is the run of an agent-built bot, which BrowserAct resumes itself.
        :raises TaskNotFoundError: there is no such task.
        """
        self.send_about(task_id, lambda api: api.resume_task(task_id))

    def iter_workflows(self) -> Iterator[SourceInfo]:
        """Iterate over the account's workflows (``list-workflows``); each page is read when it is needed.

        :returns: the workflows, without their inputs, which only :meth:`get_workflow` returns.
        """
        return self.client.iter_items(v2.list_sources())

    def get_workflow(self, workflow_id: str) -> SourceInfo:
        """Read a workflow and the inputs that it takes (``get-workflow``).

        :param workflow_id: the workflow to read.
        :returns: the workflow.
        :raises NotFoundError: there is no such workflow.
        """
        return self.client.send(v2.get_source(workflow_id))

    def iter_official_workflow_templates(self, keyword: str | None = None) -> Iterator[SourceInfo]:
        """Iterate over the official templates (``list-official-workflow-templates``); each page is read when needed.

        :param keyword: only templates whose name or description contains this.
        :returns: the templates, without their inputs, which only :meth:`get_official_workflow_template` returns.
        """
        return self.client.iter_items(v2.list_templates(keyword=keyword))

    def get_official_workflow_template(self, workflow_template_id: str) -> SourceInfo:
        """Read an official template and the inputs that it takes (``get-official-workflow-template``).

        :param workflow_template_id: the template to read.
        :returns: the template.
        :raises NotFoundError: there is no such template.
        """
        return self.client.send(v2.get_template(workflow_template_id))

    def iter_bots(self, *, bot_type: BotType | str | None = None, keyword: str | None = None) -> Iterator[SourceInfo]:
        """Iterate over the bots of the account that can run (``page-bots``); each page is read when it is needed.

        :param bot_type: only bots that were built like this: ``"workflow"`` or ``"agent"``.
        :param keyword: only bots whose name contains this. Case does not matter.
        :returns: the bots, without their schemas, which only :meth:`get_bot` returns.
        """
        return self.client.iter_items(v3.list_sources(bot_type=bot_type, keyword=keyword))

    def get_bot(self, bot_id: str) -> SourceInfo:
        """Read a bot, with the JSON Schemas of its input and its output (``query-bot``).

        :param bot_id: the bot to read.
        :returns: the bot. Its ``input_schema`` is ``None`` if it is not published.
        :raises NotFoundError: there is no such bot.
        """
        return self.client.send(v3.get_source(bot_id))

    def iter_bot_templates(self, keyword: str | None = None) -> Iterator[SourceInfo]:
        """Iterate over the official templates that run as bots (``page-templates``); pages are read when needed.

        :param keyword: only templates whose name or description contains this.
        :returns: the templates, without their schemas, which only :meth:`get_bot_template` returns.
        """
        return self.client.iter_items(v3.list_templates(keyword=keyword))

    def get_bot_template(self, template_id: str) -> SourceInfo:
        """Read an official template, with the JSON Schema of its input (``query-template``).

        :param template_id: the template to read.
        :returns: the template.
        :raises NotFoundError: there is no such template.
        """
        return self.client.send(v3.get_template(template_id))

    def get_region_list(self) -> tuple[Region, ...]:
        """Read the proxy regions for :meth:`run_task_by_template` (``get-region-list``).

        :returns: the regions, whose codes that method takes.
        """
        return self.client.send(v2.list_regions())

    def get_bot_region_list(self) -> tuple[Region, ...]:
        """Read the proxy regions for :meth:`run_bot_template` (``list-regions``).

        :returns: the regions, whose codes that method takes.
        """
        return self.client.send(v3.list_regions())

    def test_connection(self) -> tuple[bool, str]:
        """Check API key, address and network by listing one workflow, which uses no credits; then check callbacks.

        :returns: whether the connection works, and a message for the user.
        """
        from airflow_provider_browseract.hooks.probe import probe

        with self.client_within(timings.CONNECTION_TEST_LIMIT) as client:
            good, message = probe(client, self)
        # The id tells nothing new: the command was given it, and the Test button tests a copy that has a random one.
        conn_id = repr(self.browseract_conn_id)
        return good, message.replace(f" of connection {conn_id}", "").replace(f"onnection {conn_id}", "onnection")


def _read(connection: Connection) -> Settings:
    from airflow import __version__ as airflow_version

    user_agent = f"airflow-provider-browseract/{__version__} apache-airflow/{airflow_version}"
    return form.read_settings(connection, user_agent=user_agent)
