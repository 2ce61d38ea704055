"""The hook: call BrowserAct's API with an Airflow connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_provider_browseract import __version__
from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.errors import (
    NOTHING_TO_STOP,
)
from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.compat import AirflowNotFoundException, in_dag_test, in_task
from airflow_provider_browseract.hooks import connection as form
from airflow_provider_browseract.hooks.hiding import NOTHING
from airflow_provider_browseract.in_airflow.shielding import uninterrupted
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.request import read_run, read_template_run

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_browseract.api.client import BrowserActClient
    from airflow_provider_browseract.api.exchange import Call
    from airflow_provider_browseract.api.models import CreatedTask, Region, TaskStatus
    from airflow_provider_browseract.api.settings import ClientSettings
    from airflow_provider_browseract.api.workflows import Template, Workflow
    from airflow_provider_browseract.hooks.async_client import AsyncBrowserAct
    from airflow_provider_browseract.runs.spend import Spend


class BrowserActHook(BaseHook):
    """Call BrowserAct with an Airflow connection of type ``browseract``.

    Each endpoint of the API has a method, which blocks. For code that runs in an event loop, :meth:`async_client` opens
    a client that sends the calls of :mod:`airflow_provider_browseract.api.v2`.

    The hook reads the connection at the first call, and again after BrowserAct has refused the API key. If it then has
    another key, the call is sent again, unless it starts a run. Every method raises a subclass of
    :class:`~airflow_provider_browseract.api.errors.BrowserActError` if the call fails, and
    :class:`~airflow_provider_browseract.api.arguments.InputError` if an argument or the connection cannot be used.

    The examples run against the package's emulator, whose ids they use. In them, ``hook`` is ``BrowserActHook()``, and
    ``task_id``, ``finished_task_id`` and ``paused_task_id`` are the ids of three tasks, of which the first is running.

    :param browseract_conn_id: id of the Airflow connection.
    """

    conn_name_attr = "browseract_conn_id"
    default_conn_name = "browseract_default"
    conn_type = form.CONNECTION_TYPE
    hook_name = form.HOOK_NAME

    def __init__(self, browseract_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.browseract_conn_id = browseract_conn_id
        self._settings: form.ConnectionSettings | None = None
        self._key_refused = False
        self.hiding = NOTHING
        """What :attr:`client` removes from the runs that it returns. Operators and sensors set it."""

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the form's extra fields to Airflow 3.1; newer cores read the provider info."""
        return form.form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the form's standard fields to Airflow 3.1; newer cores read the provider info."""
        return form.field_behaviour()

    @property
    def settings(self) -> form.ConnectionSettings:
        """The settings of the connection."""
        # Another thread may let the hook forget them.
        settings = self._settings
        if settings is None:
            settings = self._settings = self._look_up()
        return settings

    @cached_property
    def client(self) -> BrowserActClient:
        """The client that sends any call of :mod:`airflow_provider_browseract.api.v2`."""
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
    async def async_client(
        self, *, within: float | None = None, max_response: int | None = None
    ) -> AsyncIterator[AsyncBrowserAct]:
        """Open a client for code that runs in an event loop. Reading the connection does not block the loop either.

        :param within: seconds after which a call fails, retries included. Default: as the connection's timeouts and
            ``retry_budget`` say.
        :param max_response: bytes of a response after which a call stops reading and raises
            :class:`~airflow_provider_browseract.api.errors.ResponseTooLargeError`. Default: 256 MiB.

        >>> import asyncio
        >>> from airflow_provider_browseract.api import v2
        >>> async with hook.async_client() as browseract:
        ...     polls = [browseract.send(v2.get_task_status(each)) for each in (task_id, finished_task_id)]
        ...     print(*await asyncio.gather(*polls))
        running finished
        """
        from airflow_provider_browseract.api.client import AsyncBrowserActClient
        from airflow_provider_browseract.hooks.async_client import AsyncBrowserAct

        async def settings() -> ClientSettings:
            current = self._settings
            if current is None:
                with self._failing_the_call():
                    current = self._settings = await self._alook_up()
            return current.client.within(within)

        await settings()
        async with AsyncBrowserActClient(settings, refused=self._forget, max_response=max_response) as client:
            yield AsyncBrowserAct(client, self.log)

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

        >>> created = hook.run_task("71002814653029437", {"keyword": "laptops"})
        >>> print(hook.get_task_status(created.id))
        running
        """
        request = read_run(
            workflow_id,
            input_parameters,
            save_browser_data=save_browser_data,
            profile_id=profile_id,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=self.settings.client.base_url,
        )
        return self._start(request.call)

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

        >>> created = hook.run_task_by_template("52000417936205143", {"keyword": "laptops"}, region="DE")
        >>> print(hook.get_task_status(created.id))
        running
        """
        request = read_template_run(
            workflow_template_id,
            input_parameters,
            region=region,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=self.settings.client.base_url,
        )
        return self._start(request.call)

    def _start(self, call: Call[CreatedTask]) -> CreatedTask:
        from airflow_provider_browseract.hooks.async_client import lost_start_is_unknown

        with lost_start_is_unknown(call, self.log):
            return self.client.send(call)

    def get_task(self, task_id: str) -> Task:
        """Read everything about a task (``get-task``).

        :param task_id: the task to read.
        :returns: the task with its steps so far and, once it has ended, its output or the reason of its failure.
        :raises TaskNotFoundError: there is no such task.

        >>> import json
        >>> task = hook.get_task(finished_task_id)
        >>> print(task.status, task.credit, json.loads(task.output.string)[0]["title"])
        finished 20 laptops 824
        """
        return self.client.send(v2.get_task(task_id))

    def get_task_status(self, task_id: str) -> TaskStatus:
        """Read only the status of a task, the cheapest way to poll (``get-task-status``).

        :param task_id: the task to read.
        :returns: the status. If its ``ended`` is ``True``, it does not change any more.
        :raises TaskNotFoundError: there is no such task.

        >>> hook.get_task_status(task_id)
        <TaskStatus.RUNNING: 'running'>
        >>> hook.get_task_status(finished_task_id).ended
        True
        """
        return self.client.send(v2.get_task_status(task_id))

    def iter_tasks(
        self,
        *,
        workflow_id: str | None = None,
        workflow_name: str | None = None,
        status: TaskStatus | str | None = None,
        created_at_from: datetime | None = None,
        created_at_to: datetime | None = None,
    ) -> Iterator[Task]:
        """Iterate over the tasks that match (``list-tasks``); each page is read when it is needed.

        :param workflow_id: only tasks of this workflow.
        :param workflow_name: only tasks of workflows whose name contains this. Case does not matter.
        :param status: only tasks with this status.
        :param created_at_from: only tasks created at this time or later. It needs a time zone.
        :param created_at_to: only tasks created at this time or earlier. It needs a time zone.
        :returns: the tasks, without steps and downloads, which only :meth:`get_task` returns.

        >>> import pendulum
        >>> yesterday = pendulum.now("UTC").subtract(days=1)
        >>> tasks = hook.iter_tasks(workflow_name="search", status="finished", created_at_from=yesterday)
        >>> sum(task.credit or 0 for task in tasks)
        20
        """
        call = v2.list_tasks(
            workflow_id=workflow_id,
            workflow_name=workflow_name,
            status=status,
            created_at_from=created_at_from,
            created_at_to=created_at_to,
        )
        return self.client.iter_items(call)

    def get_spend(
        self, created_at_from: datetime, created_at_to: datetime | None = None, *, workflow_id: str | None = None
    ) -> Spend:
        """Add up the credits of all runs of the account, whoever started them (``list-tasks``).

        :param created_at_from: only runs created at this time or later. It needs a time zone.
        :param created_at_to: only runs created before this time. It needs a time zone.
        :param workflow_id: only runs of this workflow.
        :returns: the sums by day and workflow. The credits of active runs can be incomplete.

        >>> import pendulum
        >>> spend = hook.get_spend(pendulum.today("UTC"), workflow_id="71002814653029437")
        >>> [(row.workflow_id, row.credits >= 20) for row in spend.rows]
        [('71002814653029437', True)]
        """
        from airflow_provider_browseract.runs.spend import ListedRun, Spend

        # This call does not read the outputs.
        call = APIS[ApiVersion.V2].list_tasks(
            source_id=workflow_id, created_at_from=created_at_from, created_at_to=created_at_to
        )
        runs = map(ListedRun.of, self.client.iter_items(call))
        # The API compares whole seconds.
        return Spend.of(
            run
            for run in runs
            if created_at_from <= run.created_at and (created_at_to is None or run.created_at < created_at_to)
        )

    def stop_task(self, task_id: str, *, biz_code: int | None = None) -> bool:
        """Stop a task (``stop-task``).

        :param task_id: the task to stop.
        :param biz_code: a number for your own statistics.
        :returns: ``False`` if the task had already ended or does not exist any more.

        >>> hook.stop_task(task_id)
        True
        >>> hook.stop_task(finished_task_id)
        False
        """
        call = v2.stop_task(task_id, biz_code=biz_code)
        with suppress(*NOTHING_TO_STOP):
            self.client.send(call)
            return True
        return False

    def resume_task(self, task_id: str) -> None:
        """Resume a paused task (``resume-task``).

        :param task_id: the task that waits for a person.
        :raises TaskNotPausedError: the task is not paused.
        :raises TaskNotFoundError: there is no such task.

        >>> hook.resume_task(paused_task_id)
        >>> print(hook.get_task_status(paused_task_id))
        running
        """
        self.client.send(v2.resume_task(task_id))

    def iter_workflows(self) -> Iterator[Workflow]:
        """Iterate over the account's workflows (``list-workflows``); each page is read when it is needed.

        :returns: the workflows, without their inputs, which only :meth:`get_workflow` returns.

        >>> [workflow.id for workflow in hook.iter_workflows() if workflow.name == "Search"]
        ['71002814653029437']
        """
        return self.client.iter_items(v2.list_workflows())

    def get_workflow(self, workflow_id: str) -> Workflow:
        """Read a workflow and the inputs that it takes (``get-workflow``).

        :param workflow_id: the workflow to read.
        :returns: the workflow.
        :raises WorkflowNotFoundError: there is no such workflow.

        >>> [entry.name for entry in hook.get_workflow("71002814653029437").input_parameters]
        ['keyword', 'max_items']
        """
        return self.client.send(v2.get_workflow(workflow_id))

    def iter_official_workflow_templates(self, keyword: str | None = None) -> Iterator[Template]:
        """Iterate over the official templates (``list-official-workflow-templates``); each page is read when needed.

        :param keyword: only templates whose name or description contains this.
        :returns: the templates, without their inputs, which only :meth:`get_official_workflow_template` returns.

        >>> [(template.id, template.name) for template in hook.iter_official_workflow_templates("summary")]
        [('52000417936205157', 'Page summary')]
        """
        return self.client.iter_items(v2.list_official_workflow_templates(keyword=keyword))

    def get_official_workflow_template(self, workflow_template_id: str) -> Template:
        """Read an official template and the inputs that it takes (``get-official-workflow-template``).

        :param workflow_template_id: the template to read.
        :returns: the template.
        :raises TemplateNotFoundError: there is no such template.

        >>> [entry.name for entry in hook.get_official_workflow_template("52000417936205143").input_parameters]
        ['keyword', 'max_items']
        """
        return self.client.send(v2.get_official_workflow_template(workflow_template_id))

    def get_region_list(self) -> tuple[Region, ...]:
        """Read the proxy regions for runs of templates (``get-region-list``).

        :returns: the regions, whose codes :meth:`run_task_by_template` takes.

        >>> [region.code for region in hook.get_region_list()]
        ['US', 'UK', 'DE', 'JP']
        """
        return self.client.send(v2.get_region_list())

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

    def _current(self, within: float | None = None) -> ClientSettings:
        with self._failing_the_call():
            return self.settings.client.within(within)

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

    def _look_up(self) -> form.ConnectionSettings:
        """Read the connection."""
        return _read(self.get_connection(self.browseract_conn_id))

    async def _alook_up(self) -> form.ConnectionSettings:
        """Read the connection without blocking the event loop."""
        try:
            return _read(await uninterrupted(self.aget_connection(self.browseract_conn_id)))
        except AirflowNotFoundException:
            # In a task of Airflow 3.1 and under dag.test(), only the blocking method finds the connections that Airflow
            # stores.
            if not (in_task() or in_dag_test()):
                raise
            return self._look_up()


def _read(connection: Connection) -> form.ConnectionSettings:
    from airflow import __version__ as airflow_version

    user_agent = f"airflow-provider-browseract/{__version__} apache-airflow/{airflow_version}"
    return form.read_settings(connection, user_agent=user_agent)
