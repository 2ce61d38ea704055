"""Every endpoint of BrowserAct's API v2 as a function that returns a call.

A call is a plain value that can be compared, logged and tested without a network. A client sends it.

The methods of :class:`~airflow_provider_browseract.hooks.browseract.BrowserActHook` describe the arguments. Here the
inputs of a run are texts by name, and a list also takes the number of a page, from 1, and how many items it has, 1 to
500. For an argument that cannot be used, the functions raise
:class:`~airflow_provider_browseract.exceptions.InputError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from airflow_provider_browseract.api.arguments import (
    given,
    read_choice,
    read_id,
    read_moment,
    read_optional_id,
    read_optional_path_id,
    read_path_id,
)
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import (
    CreatedTask,
    Page,
    Region,
    Task,
    TaskStatus,
    read_list,
    read_nothing,
    read_page,
    read_status,
)
from airflow_provider_browseract.api.workflows import Template, Workflow
from airflow_provider_browseract.exceptions import (
    InputError,
    UnexpectedResponseError,
)

T = TypeVar("T")

PAGE_LIMIT = 500
"""The largest page that the API returns. The limit is always sent, because a page has only one item without it."""


def run_task(
    workflow_id: str,
    input_parameters: Mapping[str, str] | None = None,
    *,
    save_browser_data: bool = False,
    profile_id: str | None = None,
    callback_url: str | None = None,
    status_change_callback_url: str | None = None,
) -> Call[CreatedTask]:
    """Start a run of a workflow (``POST /v2/workflow/run-task``)."""
    body = given(
        workflow_id=read_path_id("workflow_id", workflow_id),
        input_parameters=_pairs(input_parameters),
        save_browser_data=save_browser_data,
        profile_id=read_optional_id("profile_id", profile_id),
        callback_url=callback_url,
        status_change_callback_url=status_change_callback_url,
    )
    return _call("run-task", "POST", CreatedTask.read, body=body, starts_run=True)


def run_task_by_template(
    workflow_template_id: str,
    input_parameters: Mapping[str, str] | None = None,
    *,
    region: str | None = None,
    callback_url: str | None = None,
    status_change_callback_url: str | None = None,
) -> Call[CreatedTask]:
    """Start a run of an official template (``POST /v2/workflow/run-task-by-template``). Templates have no profiles."""
    body = given(
        workflow_template_id=read_path_id("workflow_template_id", workflow_template_id),
        proxyRegion=read_optional_id("region", region),
        input_parameters=_pairs(input_parameters),
        callback_url=callback_url,
        status_change_callback_url=status_change_callback_url,
    )
    return _call("run-task-by-template", "POST", CreatedTask.read, body=body, starts_run=True)


def get_task_status(task_id: str) -> Call[TaskStatus]:
    """Read only the status, the cheapest way to poll (``GET /v2/workflow/get-task-status``)."""
    return _call("get-task-status", "GET", read_status, {"task_id": read_id("task_id", task_id)})


def get_task(task_id: str) -> Call[Task]:
    """Read everything about a task (``GET /v2/workflow/get-task``)."""
    task_id = read_id("task_id", task_id)

    def read(data: Any) -> Task:
        task = Task.read(data)
        if task.id != task_id:
            raise UnexpectedResponseError("it is about another task")
        return task

    return _call("get-task", "GET", read, {"task_id": task_id})


def list_tasks(
    *,
    workflow_id: str | None = None,
    workflow_name: str | None = None,
    status: TaskStatus | str | None = None,
    created_at_from: datetime | None = None,
    created_at_to: datetime | None = None,
    page: int = 1,
    limit: int = PAGE_LIMIT,
) -> Call[Page[Task]]:
    """List tasks by creation time (``GET /v2/workflow/list-tasks``)."""
    params = given(
        workflow_id=read_optional_path_id("workflow_id", workflow_id),
        workflow_name=workflow_name,
        status=None if status is None else read_choice("status", status, TaskStatus).value,
        created_at_from=read_moment("created_at_from", created_at_from),
        created_at_to=read_moment("created_at_to", created_at_to),
        page=page,
        limit=limit,
    )
    return _call("list-tasks", "GET", read_page(Task.read), params)


def stop_task(task_id: str, *, biz_code: int | None = None) -> Call[None]:
    """Cancel a task at once (``PUT /v2/workflow/stop-task``)."""
    params = given(task_id=read_id("task_id", task_id), biz_code=biz_code)
    return _call("stop-task", "PUT", read_nothing, params)


def resume_task(task_id: str) -> Call[None]:
    """Resume a paused task (``PUT /v2/workflow/resume-task``)."""
    return _call("resume-task", "PUT", read_nothing, {"task_id": read_id("task_id", task_id)})


def list_workflows(*, page: int = 1, limit: int = PAGE_LIMIT) -> Call[Page[Workflow]]:
    """List the account's workflows (``GET /v2/workflow/list-workflows``)."""
    params = {"page": page, "limit": limit}
    return _call("list-workflows", "GET", read_page(Workflow.read), params)


def get_workflow(workflow_id: str) -> Call[Workflow]:
    """Read a workflow with the inputs that it takes (``GET /v2/workflow/get-workflow``)."""
    params = {"workflow_id": read_path_id("workflow_id", workflow_id)}
    return _call("get-workflow", "GET", Workflow.read, params)


def list_official_workflow_templates(
    *, keyword: str | None = None, page: int = 1, limit: int = PAGE_LIMIT
) -> Call[Page[Template]]:
    """List official templates (``GET /v2/workflow/list-official-workflow-templates``)."""
    params = given(keyword=keyword, page=page, limit=limit)
    return _call("list-official-workflow-templates", "GET", read_page(Template.read), params)


def get_official_workflow_template(workflow_template_id: str) -> Call[Template]:
    """Read a template with the inputs that it takes (``GET /v2/workflow/get-official-workflow-template``)."""
    params = {"workflow_template_id": read_path_id("workflow_template_id", workflow_template_id)}
    return _call("get-official-workflow-template", "GET", Template.read, params)


def get_region_list() -> Call[tuple[Region, ...]]:
    """List the proxy regions for template runs (``GET /v2/workflow/get-region-list``)."""
    return _call("get-region-list", "GET", read_list(Region.read))


def _call(
    name: str, method: str, read: Callable[[Any], T], params: Mapping[str, str | int] | None = None, **more: Any
) -> Call[T]:
    return Call(name, method, f"/v2/workflow/{name}", read, params or {}, **more)


def _pairs(inputs: Mapping[str, str] | None) -> list[dict[str, str]]:
    if not isinstance(inputs, Mapping | None):
        raise InputError(f"the inputs should be a dict of names and texts, but are {type(inputs).__name__}")
    return [{"name": name, "value": text} for name, text in (inputs or {}).items()]
