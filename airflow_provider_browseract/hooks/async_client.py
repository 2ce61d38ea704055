"""BrowserAct's endpoints for code that runs in an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.errors import NOTHING_TO_STOP
from airflow_provider_browseract.hooks import checked_calls
from airflow_provider_browseract.runs.request import read_run, read_template_run

if TYPE_CHECKING:
    from airflow_provider_browseract.api.client import AsyncBrowserActClient
    from airflow_provider_browseract.api.models import CreatedTask, Page, Region, Task, TaskStatus, Template, Workflow
    from airflow_provider_browseract.hooks.steps import Log

T = TypeVar("T")


class AsyncBrowserAct:
    """Call BrowserAct's endpoints without blocking the event loop.

    :meth:`~airflow_provider_browseract.hooks.browseract.BrowserActHook.async_client` opens such a client. All calls
    share its connection pool, including those of asyncio tasks that run concurrently. Each method takes the arguments
    of the hook's method with the same name, which describes them, returns the same result and raises the same errors.

    The examples run against the package's emulator, whose ids they use. They need a REPL with ``await``, such as
    ``python -m asyncio`` or IPython. In them, ``browseract`` is an open client; the other names are those in the
    examples of :class:`~airflow_provider_browseract.hooks.browseract.BrowserActHook`.

    :param client: sends the calls.
    :param log: gets an error if a start is interrupted.
    """

    def __init__(self, client: AsyncBrowserActClient, log: Log) -> None:
        self._client = client
        self._log = log

    async def send(self, call: Call[T]) -> T:
        """Send a call of :mod:`airflow_provider_browseract.api.calls`, whose arguments are not checked."""
        return await self._client.send(call)

    def iter_items(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Iterate over the items of a list. The call reads its first page; as :meth:`send`."""
        return self._client.iter_items(call)

    async def run_task(
        self,
        workflow_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        save_browser_data: bool = False,
        profile_id: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of a workflow (``run-task``).

        Do not start runs in a trigger: Airflow may run a trigger more than once, and each run costs credits.

        >>> created = await browseract.run_task("71002814653029437", {"keyword": "laptops"})
        >>> print((await browseract.get_task(created.id)).input_parameters)
        keyword=laptops
        """
        request = read_run(
            workflow_id,
            input_parameters,
            save_browser_data=save_browser_data,
            profile_id=profile_id,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=self._client.settings.base_url,
        )
        with checked_calls.starting(request.call, self._log):
            return await self.send(request.call)

    async def run_task_by_template(
        self,
        workflow_template_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        region: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of an official template (``run-task-by-template``); as :meth:`run_task`, not in a trigger.

        >>> created = await browseract.run_task_by_template("52000417936205143", {"keyword": "laptops"}, region="DE")
        >>> await browseract.get_task_status(created.id)
        <TaskStatus.RUNNING: 'running'>
        """
        request = read_template_run(
            workflow_template_id,
            input_parameters,
            region=region,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=self._client.settings.base_url,
        )
        with checked_calls.starting(request.call, self._log):
            return await self.send(request.call)

    async def get_task(self, task_id: str) -> Task:
        """Read everything about a task (``get-task``).

        >>> task = await browseract.get_task(task_id)
        >>> print(task.status, task.steps[-1].goal)
        running Open the search page
        """
        return await self.send(checked_calls.get_task(task_id))

    async def get_task_status(self, task_id: str) -> TaskStatus:
        """Read only the status of a task (``get-task-status``).

        >>> await browseract.get_task_status(task_id)
        <TaskStatus.RUNNING: 'running'>
        """
        return await self.send(checked_calls.get_task_status(task_id))

    def iter_tasks(
        self,
        *,
        workflow_id: str | None = None,
        workflow_name: str | None = None,
        status: TaskStatus | str | None = None,
        created_at_from: datetime | None = None,
        created_at_to: datetime | None = None,
    ) -> AsyncIterator[Task]:
        """Iterate over the tasks that match (``list-tasks``); each page is read when it is needed.

        >>> [task.credit async for task in browseract.iter_tasks(workflow_name="search", status="finished")]
        [20]
        """
        call = checked_calls.list_tasks(workflow_id, workflow_name, status, created_at_from, created_at_to)
        return self.iter_items(call)

    async def stop_task(self, task_id: str, *, biz_code: int | None = None) -> bool:
        """Stop a task (``stop-task``); return ``False`` if it had already ended or does not exist any more.

        >>> await browseract.stop_task(task_id)
        True
        >>> await browseract.stop_task(finished_task_id)
        False
        """
        with suppress(*NOTHING_TO_STOP):
            await self.send(checked_calls.stop_task(task_id, biz_code=biz_code))
            return True
        return False

    async def resume_task(self, task_id: str) -> None:
        """Resume a paused task (``resume-task``).

        >>> await browseract.resume_task(paused_task_id)
        >>> await browseract.get_task_status(paused_task_id)
        <TaskStatus.RUNNING: 'running'>
        """
        await self.send(checked_calls.resume_task(task_id))

    def iter_workflows(self) -> AsyncIterator[Workflow]:
        """Iterate over the account's workflows (``list-workflows``); each page is read when it is needed.

        >>> [workflow.id async for workflow in browseract.iter_workflows() if workflow.name == "Search"]
        ['71002814653029437']
        """
        return self.iter_items(calls.list_workflows())

    async def get_workflow(self, workflow_id: str) -> Workflow:
        """Read a workflow and the inputs that it takes (``get-workflow``).

        >>> [entry.name for entry in (await browseract.get_workflow("71002814653029437")).input_parameters]
        ['keyword', 'max_items']
        """
        return await self.send(checked_calls.get_workflow(workflow_id))

    def iter_official_workflow_templates(self, keyword: str | None = None) -> AsyncIterator[Template]:
        """Iterate over the official templates (``list-official-workflow-templates``); each page is read when needed.

        >>> [template.name async for template in browseract.iter_official_workflow_templates("product")]
        ['Product export', 'Product search']
        """
        return self.iter_items(calls.list_official_workflow_templates(keyword=keyword))

    async def get_official_workflow_template(self, workflow_template_id: str) -> Template:
        """Read an official template and the inputs that it takes (``get-official-workflow-template``).

        >>> (await browseract.get_official_workflow_template("52000417936205143")).name
        'Product search'
        """
        return await self.send(checked_calls.get_official_workflow_template(workflow_template_id))

    async def get_region_list(self) -> tuple[Region, ...]:
        """Read the proxy regions for runs of templates (``get-region-list``).

        >>> [region.name for region in await browseract.get_region_list() if region.code == "DE"]
        ['Germany']
        """
        return await self.send(calls.get_region_list())
