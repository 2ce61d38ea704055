"""The hook: BrowserAct's API behind an Airflow connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseHook

from airflow_provider_browseract import __version__
from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import (
    NOTHING_TO_STOP,
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
    NotTheApiError,
    ResponseLostError,
    RunStartUnknownError,
)
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException, in_dag_test
from airflow_provider_browseract.hooks import connection as form
from airflow_provider_browseract.hooks.shielding import uninterrupted
from airflow_provider_browseract.runs.arguments import InputError, read_choice, read_id
from airflow_provider_browseract.runs.request import read_run, read_template_run
from airflow_provider_browseract.webhook import callback

if TYPE_CHECKING:
    import requests
    from airflow.sdk import Connection

    from airflow_provider_browseract.api.client import AsyncBrowserActClient, BrowserActClient, ClientSettings
    from airflow_provider_browseract.api.models import (
        CreatedTask,
        Page,
        Region,
        Task,
        Template,
        Workflow,
    )

T = TypeVar("T")

PROBE_TIMEOUT = 5.0
"""Seconds that the test of a connection waits for the callback route."""


@dataclass(eq=False)
class _Shared:
    """A client that an :meth:`BrowserActHook.async_client` opened, for whatever runs within; None once it is closed."""

    hook: BrowserActHook
    loop: asyncio.AbstractEventLoop
    client: AsyncBrowserActClient | None


# Each asyncio task sees what itself and those that started it have opened, the innermost last, and nothing of others.
_SHARED: ContextVar[tuple[_Shared, ...]] = ContextVar("browseract_shared_clients", default=())


class BrowserActHook(BaseHook):
    """Talks to BrowserAct as a connection of type ``browseract`` says.

    Each endpoint of the API has a method, and a second one, with an ``a`` before its name, that does not block the
    event loop. The latter share one connection pool within :meth:`async_client`; elsewhere each opens its own.

    The connection is looked up at the first call, and again when BrowserAct refuses its API key: if the connection has
    another key by then, that one is used from then on. Every method raises
    :class:`~airflow_provider_browseract.api.errors.BrowserActError`, in the class that says what can be done, and
    :class:`~airflow_provider_browseract.runs.arguments.InputError` for arguments or a connection that cannot be used.

    The examples run as they stand against the package's emulator, whose ids they use. In them ``asyncio`` is
    imported, ``hook`` is ``BrowserActHook()``, and ``task_id``, ``finished_task_id`` and ``paused_task_id`` are the ids
    of three tasks, of which the first is running.

    :param browseract_conn_id: id of the Airflow connection.
    """

    conn_name_attr = "browseract_conn_id"
    default_conn_name = "browseract_default"
    conn_type = form.CONNECTION_TYPE
    hook_name = form.HOOK_NAME

    def __init__(self, browseract_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.browseract_conn_id = browseract_conn_id

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the form's extra fields to Airflow 3.1; newer cores read the provider info."""
        return form.form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the form's standard fields to Airflow 3.1; newer cores read the provider info."""
        return form.field_behaviour()

    @cached_property
    def settings(self) -> form.ConnectionSettings:
        """What the connection says."""
        return self._read(self.get_connection(self.browseract_conn_id))

    @cached_property
    def client(self) -> BrowserActClient:
        """The client that carries any call of :mod:`airflow_provider_browseract.api.calls`."""
        from airflow_provider_browseract.api.client import BrowserActClient

        return BrowserActClient(self.settings.client, renew=self._renew)

    def get_conn(self) -> BrowserActClient:
        """Return :attr:`client`, under the name that Airflow's hooks have in common."""
        return self.client

    @asynccontextmanager
    async def async_client(
        self, *, within: float | None = None, max_response: int | None = None
    ) -> AsyncIterator[AsyncBrowserActClient]:
        """Open an asynchronous client; the connection is read without blocking the event loop.

        This hook's asynchronous methods use it, and so its connection pool, where they are called within the context,
        also in asyncio tasks that are started there. The client itself is for triggers, and carries any call of
        :mod:`airflow_provider_browseract.api.calls`.

        :param within: seconds after which a call gives up, where they are few; the connection's patience otherwise.
        :param max_response: bytes of an answer after which a call stops reading and raises
            :class:`~airflow_provider_browseract.api.errors.ResponseTooLargeError`. Default: no limit.

        >>> async def statuses():
        ...     async with hook.async_client():
        ...         return await asyncio.gather(*map(hook.aget_task_status, [task_id, finished_task_id]))
        >>> print(*asyncio.run(statuses()))
        running finished
        """
        async with self._open(within, max_response) as client:
            shared = _Shared(self, asyncio.get_running_loop(), client)
            _SHARED.set((*_still_open(), shared))
            try:
                yield client
            finally:
                # An asynchronous generator may be closed in another context, from where no variable of this one can be
                # reset, and asyncio tasks that were started within may outlast it: they see that it is closed.
                shared.client = None
                _SHARED.set(_still_open())

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
        """Start a run of a workflow (``run-task``); everything is checked before anything is sent.

        :param workflow_id: the workflow to run.
        :param input_parameters: names and values, or the API's list of name/value pairs.
        :param save_browser_data: keep cookies and logins; the answer then has the profile's id.
        :param profile_id: browser profile of an earlier run to start with.
        :param callback_url: public address that is called once when the task ends.
        :param status_change_callback_url: public address that is called at each change of status.
        :returns: the ids of the task and, if it is saved, of the profile.
        :raises RunStartUnknownError: the call may have started a run, but its answer was lost or is unusable.
        :raises ConcurrencyLimitError: as many runs as the plan allows are going; this is said at once, and not waited
            for.

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
        with self._starting(request.call):
            return self.client.send(request.call)

    async def arun_task(
        self,
        workflow_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        save_browser_data: bool = False,
        profile_id: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """As :meth:`run_task`, without blocking the event loop.

        Not for triggers: Airflow may run a trigger more than once, and each time would start, and bill, a run.

        >>> async def start(keyword):
        ...     created = await hook.arun_task("71002814653029437", {"keyword": keyword})
        ...     return await hook.aget_task(created.id)
        >>> print(asyncio.run(start("laptops")).input_parameters)
        keyword=laptops
        """
        request = read_run(
            workflow_id,
            input_parameters,
            save_browser_data=save_browser_data,
            profile_id=profile_id,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=(await self._asettings()).client.base_url,
        )
        with self._starting(request.call):
            return await self._asend(request.call)

    def run_task_by_template(
        self,
        workflow_template_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        region: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of an official template (``run-task-by-template``); everything is checked before.

        :param workflow_template_id: the template to run.
        :param input_parameters: names and values, or the API's list of name/value pairs.
        :param region: code of the proxy region; the API's default is ``US``.
        :param callback_url: public address that is called once when the task ends.
        :param status_change_callback_url: public address that is called at each change of status.
        :returns: the id of the task; templates know no profiles.
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
        with self._starting(request.call):
            return self.client.send(request.call)

    async def arun_task_by_template(
        self,
        workflow_template_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        region: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """As :meth:`run_task_by_template`, without blocking the event loop; as :meth:`arun_task`, not for triggers.

        >>> created = asyncio.run(hook.arun_task_by_template("52000417936205143", {"keyword": "laptops"}))
        >>> print(asyncio.run(hook.aget_task_status(created.id)))
        running
        """
        request = read_template_run(
            workflow_template_id,
            input_parameters,
            region=region,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=(await self._asettings()).client.base_url,
        )
        with self._starting(request.call):
            return await self._asend(request.call)

    def get_task(self, task_id: str) -> Task:
        """Read everything about a task (``get-task``).

        :param task_id: the task to read.
        :returns: the task with its steps, its output and why it failed, as far as it has come.
        :raises TaskNotFoundError: there is no such task.

        >>> import json
        >>> task = hook.get_task(finished_task_id)
        >>> print(task.status, task.credit, json.loads(task.output.string)[0]["title"])
        finished 20 laptops 824
        """
        return self.client.send(calls.get_task(read_id("task_id", task_id)))

    async def aget_task(self, task_id: str) -> Task:
        """As :meth:`get_task`, without blocking the event loop.

        >>> task = asyncio.run(hook.aget_task(task_id))
        >>> print(task.status, task.steps[-1].goal)
        running Open the search page
        """
        return await self._asend(calls.get_task(read_id("task_id", task_id)))

    def get_task_status(self, task_id: str) -> TaskStatus:
        """Read a task's status alone, the cheapest way to poll (``get-task-status``).

        :param task_id: the task to read.
        :returns: the status, whose ``ended`` says whether it will never change again.
        :raises TaskNotFoundError: there is no such task.

        >>> hook.get_task_status(task_id)
        <TaskStatus.RUNNING: 'running'>
        >>> hook.get_task_status(finished_task_id).ended
        True
        """
        return self.client.send(calls.get_task_status(read_id("task_id", task_id)))

    async def aget_task_status(self, task_id: str) -> TaskStatus:
        """As :meth:`get_task_status`, without blocking the event loop.

        >>> asyncio.run(hook.aget_task_status(task_id))
        <TaskStatus.RUNNING: 'running'>
        """
        return await self._asend(calls.get_task_status(read_id("task_id", task_id)))

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
        :param workflow_name: only tasks of workflows whose name contains this, in any case.
        :param status: only tasks with this status.
        :param created_at_from: only tasks created at this time or later; needs a time zone.
        :param created_at_to: only tasks created at this time or earlier; needs a time zone.
        :returns: the tasks, without steps and downloads, which only :meth:`get_task` has.

        >>> import pendulum
        >>> now = pendulum.now("UTC")
        >>> tasks = hook.iter_tasks(
        ...     workflow_id="71002814653029437",
        ...     workflow_name="search",
        ...     status="finished",
        ...     created_at_from=now.subtract(days=1),
        ...     created_at_to=now,
        ... )
        >>> sum(task.credit for task in tasks)
        20
        """
        return self.client.iter_items(_list_tasks(workflow_id, workflow_name, status, created_at_from, created_at_to))

    def aiter_tasks(
        self,
        *,
        workflow_id: str | None = None,
        workflow_name: str | None = None,
        status: TaskStatus | str | None = None,
        created_at_from: datetime | None = None,
        created_at_to: datetime | None = None,
    ) -> AsyncGenerator[Task, None]:
        """As :meth:`iter_tasks`, without blocking the event loop.

        >>> async def credits(**filters):
        ...     return sum([task.credit async for task in hook.aiter_tasks(**filters)])
        >>> asyncio.run(credits(workflow_id="71002814653029437", status="finished"))
        20
        """
        return self._aiter_items(_list_tasks(workflow_id, workflow_name, status, created_at_from, created_at_to))

    def stop_task(self, task_id: str, *, biz_code: int | None = None, within: float | None = None) -> bool:
        """Cancel a task (``stop-task``).

        :param task_id: the task to cancel.
        :param biz_code: a number for your own statistics.
        :param within: seconds after which to give up, where they are few; the connection's patience otherwise.
        :returns: False if BrowserAct says that the task had already ended, or does not know it any more.

        >>> hook.stop_task(task_id)
        True
        >>> hook.stop_task(finished_task_id)
        False
        """
        call = _stop_task(task_id, biz_code)
        if within is None:
            return self.client.send(call)
        from airflow_provider_browseract.api.client import BrowserActClient

        def renew() -> ClientSettings | None:
            renewed = self._renew()
            return None if renewed is None else _hurried(renewed, within)

        with BrowserActClient(_hurried(self.settings.client, within), renew=renew) as client:
            return client.send(call)

    async def astop_task(self, task_id: str, *, biz_code: int | None = None, within: float | None = None) -> bool:
        """As :meth:`stop_task`, without blocking the event loop.

        >>> asyncio.run(hook.astop_task(task_id, within=5))
        True
        """
        return await self._asend(_stop_task(task_id, biz_code), within)

    def resume_task(self, task_id: str) -> None:
        """Let a paused task go on (``resume-task``).

        :param task_id: the task that waits for a person.
        :raises TaskNotPausedError: the task is not paused.
        :raises TaskNotFoundError: there is no such task.

        >>> hook.resume_task(paused_task_id)
        >>> print(hook.get_task_status(paused_task_id))
        running
        """
        self.client.send(calls.resume_task(read_id("task_id", task_id)))

    async def aresume_task(self, task_id: str) -> None:
        """As :meth:`resume_task`, without blocking the event loop.

        >>> asyncio.run(hook.aresume_task(paused_task_id))
        >>> print(asyncio.run(hook.aget_task_status(paused_task_id)))
        running
        """
        await self._asend(calls.resume_task(read_id("task_id", task_id)))

    def iter_workflows(self) -> Iterator[Workflow]:
        """Iterate over the account's workflows (``list-workflows``); each page is read when it is needed.

        :returns: the workflows, without their inputs, which only :meth:`get_workflow` has.

        >>> [workflow.id for workflow in hook.iter_workflows() if workflow.name == "Search"]
        ['71002814653029437']
        """
        return self.client.iter_items(calls.list_workflows())

    def aiter_workflows(self) -> AsyncGenerator[Workflow, None]:
        """As :meth:`iter_workflows`, without blocking the event loop.

        >>> async def ids(name):
        ...     return [workflow.id async for workflow in hook.aiter_workflows() if workflow.name == name]
        >>> asyncio.run(ids("Search"))
        ['71002814653029437']
        """
        return self._aiter_items(calls.list_workflows())

    def get_workflow(self, workflow_id: str) -> Workflow:
        """Read a workflow with the inputs that it takes (``get-workflow``).

        :param workflow_id: the workflow to read.
        :returns: the workflow.
        :raises WorkflowNotFoundError: there is no such workflow.

        >>> [entry.name for entry in hook.get_workflow("71002814653029437").input_parameters]
        ['keyword', 'max_items']
        """
        return self.client.send(calls.get_workflow(read_id("workflow_id", workflow_id)))

    async def aget_workflow(self, workflow_id: str) -> Workflow:
        """As :meth:`get_workflow`, without blocking the event loop.

        >>> asyncio.run(hook.aget_workflow("71002814653029437")).name
        'Search'
        """
        return await self._asend(calls.get_workflow(read_id("workflow_id", workflow_id)))

    def iter_official_workflow_templates(self, keyword: str | None = None) -> Iterator[Template]:
        """Iterate over the official templates (``list-official-workflow-templates``); each page is read when needed.

        :param keyword: only templates whose name or description contains this.
        :returns: the templates, without their inputs, which only :meth:`get_official_workflow_template` has.

        >>> [(template.id, template.name) for template in hook.iter_official_workflow_templates("summary")]
        [('52000417936205157', 'Page summary')]
        """
        return self.client.iter_items(calls.list_official_workflow_templates(keyword=keyword))

    def aiter_official_workflow_templates(self, keyword: str | None = None) -> AsyncGenerator[Template, None]:
        """As :meth:`iter_official_workflow_templates`, without blocking the event loop.

        >>> async def names(keyword):
        ...     return [template.name async for template in hook.aiter_official_workflow_templates(keyword)]
        >>> asyncio.run(names("product"))
        ['Product export', 'Product search']
        """
        return self._aiter_items(calls.list_official_workflow_templates(keyword=keyword))

    def get_official_workflow_template(self, workflow_template_id: str) -> Template:
        """Read a template with the inputs that it takes (``get-official-workflow-template``).

        :param workflow_template_id: the template to read.
        :returns: the template.
        :raises TemplateNotFoundError: there is no such template.

        >>> [entry.name for entry in hook.get_official_workflow_template("52000417936205143").input_parameters]
        ['keyword', 'max_items']
        """
        return self.client.send(_get_template(workflow_template_id))

    async def aget_official_workflow_template(self, workflow_template_id: str) -> Template:
        """As :meth:`get_official_workflow_template`, without blocking the event loop.

        >>> asyncio.run(hook.aget_official_workflow_template("52000417936205143")).name
        'Product search'
        """
        return await self._asend(_get_template(workflow_template_id))

    def get_region_list(self) -> tuple[Region, ...]:
        """List the proxy regions for template runs (``get-region-list``).

        :returns: the regions; :meth:`run_task_by_template` takes their codes.

        >>> [region.code for region in hook.get_region_list()]
        ['US', 'UK', 'DE', 'JP']
        """
        return self.client.send(calls.get_region_list())

    async def aget_region_list(self) -> tuple[Region, ...]:
        """As :meth:`get_region_list`, without blocking the event loop.

        >>> [region.name for region in asyncio.run(hook.aget_region_list()) if region.code == "DE"]
        ['Germany']
        """
        return await self._asend(calls.get_region_list())

    def test_connection(self) -> tuple[bool, str]:
        """Check key, address and network by listing one workflow, which costs no credits, and the way of callbacks.

        :returns: whether it worked, and what was found or what is wrong.
        """
        try:
            page = self.client.send(calls.list_workflows(limit=1))
        except AuthenticationError as error:
            return False, f"The API key is wrong: {error}"
        except NotTheApiError as error:
            return False, f"The host is wrong: {error}"
        except (ConnectionFailedError, ResponseLostError) as error:
            return False, f"The network or the host is wrong: {error}"
        except (BrowserActError, InputError) as error:
            return False, str(error)
        connected = f"Connected to {self.settings.client.base_url}: {page.total_count or 0} workflows are visible."
        good, callbacks = self._test_callbacks()
        return good, f"{connected} {callbacks}"

    def _test_callbacks(self) -> tuple[bool, str]:
        """Knock at the callback route with a token that no run has."""
        import requests

        base_url = self.settings.webhook_base_url
        if base_url is None:
            return True, "Deferred tasks poll, since there is no webhook_base_url."
        try:
            url = callback.address(
                base_url,
                callback.TaskInstanceKey("", "", "", -1),
                callback.new_token(),
                conn_id=self.browseract_conn_id,
                api_base_url=self.settings.client.base_url,
            )
            answer = requests.post(url, json={}, timeout=PROBE_TIMEOUT, allow_redirects=False)
        except InputError as error:
            return False, str(error)
        except requests.RequestException as error:
            return True, (
                f"Whether callbacks arrive at {base_url} is not known: it cannot be reached from here "
                f"({type(error).__name__})."
            )
        if (answer.status_code, answer.content) == (404, callback.UNKNOWN_RESPONSE):
            return True, f"Callbacks arrive at {base_url}."
        return False, _why_callbacks_do_not_arrive(base_url, answer)

    def _read(self, connection: Connection) -> form.ConnectionSettings:
        from airflow import __version__ as airflow_version

        user_agent = f"airflow-provider-browseract/{__version__} apache-airflow/{airflow_version}"
        return form.read_settings(connection, user_agent=user_agent)

    async def _asettings(self) -> form.ConnectionSettings:
        """Return :attr:`settings`, and read the connection for them without blocking the event loop."""
        if "settings" not in self.__dict__:
            self.__dict__["settings"] = await self._alook_up()
        return self.settings

    async def _alook_up(self) -> form.ConnectionSettings:
        """Read the connection without blocking the event loop."""
        try:
            connection = await uninterrupted(self.aget_connection(self.browseract_conn_id))
        except AirflowNotFoundException:
            # In a task of Airflow 3.1, and under dag.test(), only the blocking look-up reaches the connections that
            # Airflow keeps; the other one does not find them.
            if not (_in_a_task() or in_dag_test()):
                raise
            connection = self.get_connection(self.browseract_conn_id)
        return self._read(connection)

    def _renew(self) -> ClientSettings | None:
        """Read the connection again, since BrowserAct refused its API key; return None where that fails."""
        try:
            settings = self._read(self.get_connection(self.browseract_conn_id))
        except Exception as error:  # noqa: BLE001 - the refused key is the error that the caller reports
            self._log_not_renewed(error)
            return None
        return self._renewed(settings)

    async def _arenew(self) -> ClientSettings | None:
        """As :meth:`_renew`, without blocking the event loop."""
        try:
            settings = await self._alook_up()
        except Exception as error:  # noqa: BLE001 - the refused key is the error that the caller reports
            self._log_not_renewed(error)
            return None
        return self._renewed(settings)

    def _renewed(self, settings: form.ConnectionSettings) -> ClientSettings:
        if settings.client.api_key != self.settings.client.api_key:
            self.log.info(
                "BrowserAct refused the API key of connection %r. The connection has another key now, which is used "
                "from here on.",
                self.browseract_conn_id,
            )
            self.__dict__["settings"] = settings
        return settings.client

    def _log_not_renewed(self, error: Exception) -> None:
        self.log.warning(
            "BrowserAct refused the API key of connection %r, and the connection could not be read again (%s).",
            self.browseract_conn_id,
            type(error).__name__,
        )

    @asynccontextmanager
    async def _carrier(self, within: float | None) -> AsyncIterator[AsyncBrowserActClient]:
        """Return the client of the innermost :meth:`async_client` around, or open one."""
        around = self._client_around() if within is None else None
        if around is not None:
            yield around
        else:
            async with self._open(within) as client:
                yield client

    def _client_around(self) -> AsyncBrowserActClient | None:
        # A thread that was started within has the same variables, but may have an event loop of its own.
        loop = asyncio.get_running_loop()
        ours = (shared.client for shared in reversed(_SHARED.get()) if shared.hook is self and shared.loop is loop)
        return next(filter(None, ours), None)

    @asynccontextmanager
    async def _open(
        self, within: float | None, max_response: int | None = None
    ) -> AsyncIterator[AsyncBrowserActClient]:
        from airflow_provider_browseract.api.client import AsyncBrowserActClient

        def patient(settings: ClientSettings) -> ClientSettings:
            return settings if within is None else _hurried(settings, within)

        async def renew() -> ClientSettings | None:
            renewed = await self._arenew()
            return None if renewed is None else patient(renewed)

        settings = (await self._asettings()).client
        async with AsyncBrowserActClient(patient(settings), renew=renew, max_response=max_response) as client:
            yield client

    async def _asend(self, call: calls.Call[T], within: float | None = None) -> T:
        async with self._carrier(within) as client:
            return await client.send(call)

    async def _aiter_items(self, call: calls.Call[Page[T]]) -> AsyncGenerator[T, None]:
        async with self._carrier(None) as client:
            async for item in client.iter_items(call):
                yield item

    @contextmanager
    def _starting(self, call: calls.Call[CreatedTask]) -> Iterator[None]:
        """LogLine of a start that ends without its answer what it may have left behind."""
        try:
            yield
        except BrowserActError as error:
            if error.started_nothing:
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
            # Such as Airflow's task timeout, which interrupts wherever the code is.
            self.log.error("Interrupted during %s: a run may go on, and cost credits, without its id known.", call.name)
            raise


def _why_callbacks_do_not_arrive(base_url: str, answer: requests.Response) -> str:
    """Return what is wrong where the callback route did not answer as it does to an unknown token."""
    said = f"HTTP {answer.status_code}"
    if answer.status_code == 503 and answer.content.startswith(b'{"outcome":'):
        return (
            f"But the callback route at {base_url} cannot handle callbacks now ({said}): Airflow's database does not "
            "answer, or this version of the provider does not know this Airflow. See the log of the API server."
        )
    is_page = "html" in answer.headers.get("content-type", "").lower()
    if answer.is_redirect or answer.status_code in (401, 403) or (is_page and answer.ok):
        return (
            f"But a login, or another gateway, answers at {base_url} ({said}) in place of the callback route. "
            "Callbacks need a relay there."
        )
    return (
        f"But {base_url} does not lead to the callback route: it answered {said}. Check its path, and that the "
        "provider is installed where the API server runs."
    )


@contextmanager
def no_retry_on_bad_arguments(conn_id: str) -> Iterator[None]:
    """Let what no retry can mend, a wrong argument or no such connection, end the Airflow task without retries.

    :param conn_id: id of the connection that is used within.
    """
    try:
        yield
    except InputError as error:
        raise AirflowFailException(str(error)) from None
    except AirflowNotFoundException:
        raise AirflowFailException(form.no_connection(conn_id)) from None


def _list_tasks(
    workflow_id: str | None,
    workflow_name: str | None,
    status: TaskStatus | str | None,
    created_at_from: datetime | None,
    created_at_to: datetime | None,
) -> calls.Call[Page[Task]]:
    for argument, moment in (("created_at_from", created_at_from), ("created_at_to", created_at_to)):
        if moment is not None and moment.tzinfo is None:
            raise InputError(f"{argument} is {moment.isoformat()}, which has no time zone. Give a datetime with one.")
    return calls.list_tasks(
        workflow_id=None if workflow_id is None else read_id("workflow_id", workflow_id),
        workflow_name=workflow_name,
        status=None if status is None else read_choice("status", status, TaskStatus),
        created_at_from=created_at_from,
        created_at_to=created_at_to,
    )


def _get_template(workflow_template_id: str) -> calls.Call[Template]:
    return calls.get_official_workflow_template(read_id("workflow_template_id", workflow_template_id))


@dataclass(frozen=True)
class _StopCall(calls.Call[bool]):
    """A call of ``stop-task`` whose result says whether there was anything to stop."""

    def read_response(self, response: calls.Response) -> bool:
        try:
            return super().read_response(response)
        except NOTHING_TO_STOP:
            return False


def _stop_task(task_id: str, biz_code: int | None) -> calls.Call[bool]:
    call = calls.stop_task(read_id("task_id", task_id), biz_code=biz_code)
    return _StopCall(call.method, call.path, read=lambda _: True, params=call.params)


def _still_open() -> tuple[_Shared, ...]:
    return tuple(shared for shared in _SHARED.get() if shared.client is not None)


def _in_a_task() -> bool:
    from airflow.sdk import get_current_context

    try:
        get_current_context()
    except RuntimeError:
        return False
    return True


def _hurried(settings: ClientSettings, seconds: float) -> ClientSettings:
    """Let a call of a client end within some seconds."""
    from airflow_provider_browseract.api.retries import RetryPolicy

    part = seconds / 3
    return replace(
        settings,
        connect_timeout=part,
        read_timeout=part,
        retries=RetryPolicy(budget=part, longest_pause=part),
    )
