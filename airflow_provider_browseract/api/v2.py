"""Every endpoint of BrowserAct's API v2 as a function that returns a call, which a client sends.

:mod:`~airflow_provider_browseract.api.v3` has the same functions. The methods of
:class:`~airflow_provider_browseract.hooks.browseract.BrowserActHook` describe the arguments. For an id or a filter that
cannot be used, the functions raise :class:`~airflow_provider_browseract.exceptions.InputError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_provider_browseract.api import models
from airflow_provider_browseract.api.arguments import given, optional, read_choice, read_id, read_moment, read_path_id
from airflow_provider_browseract.api.calls import Call

PAGE_LIMIT = 500
"""The largest page that the API returns. The limit is always sent, because a page has only one item without it."""


def run(workflow_id: str, inputs: Mapping[str, str] | None = None, **options: Any) -> Call[models.CreatedTask]:
    """Start a run of a workflow (``POST /v2/workflow/run-task``).

    :param options: the other fields of a :class:`~airflow_provider_browseract.runs.request.RunRequest` that this kind
        of source takes, here and in the other starts. They have been checked there.
    """
    return _start("run-task", "workflow_id", workflow_id, inputs, {"save_browser_data": False, **options})


def run_template(
    template_id: str, inputs: Mapping[str, str] | None = None, *, region: str | None = None, **options: Any
) -> Call[models.CreatedTask]:
    """Start a run of an official template (``POST /v2/workflow/run-task-by-template``). Templates have no profiles."""
    options |= given(proxyRegion=region)
    return _start("run-task-by-template", "workflow_template_id", template_id, inputs, options)


def get_task_status(task_id: str) -> Call[models.TaskState]:
    """Read only the status, the cheapest way to poll (``GET /v2/workflow/get-task-status``)."""
    return _call("get-task-status", "GET", models.TaskState, {"task_id": read_id("task_id", task_id)})


def get_task(task_id: str) -> Call[models.Task]:
    """Read everything about a task (``GET /v2/workflow/get-task``)."""
    task_id = read_id("task_id", task_id)
    return _call("get-task", "GET", models.Task, {"task_id": task_id}, about=task_id)


def list_tasks(**filters: Any) -> Call[models.Page[models.ListedTask]]:
    """List tasks by creation time (``GET /v2/workflow/list-tasks``).

    :param filters: as for :func:`read_filters`.
    """
    return _call("list-tasks", "GET", models.Page[models.ListedTask], read_filters("workflow", PAGE_LIMIT, **filters))


def read_filters(
    source: str,
    page_limit: int,
    *,
    source_id: str | None = None,
    name: str | None = None,
    status: models.TaskStatus | str | None = None,
    created_at_from: datetime | None = None,
    created_at_to: datetime | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Return the parameters of the first page of a list of tasks. In both versions, they are the same.

    :param source: what has run, as the names of two parameters begin: ``workflow`` or ``bot``.
    :param page_limit: the largest page. Default of ``limit``.
    """
    return given(
        **{f"{source}_id": optional(read_path_id, f"{source}_id", source_id), f"{source}_name": name},
        status=None if status is None else read_choice("status", status, models.TaskStatus).value,
        created_at_from=optional(read_moment, "created_at_from", created_at_from),
        created_at_to=optional(read_moment, "created_at_to", created_at_to),
        page=1,
        limit=min(limit or page_limit, page_limit),
    )


def stop_task(task_id: str, *, biz_code: int | None = None) -> Call[Any]:
    """Cancel a task at once (``PUT /v2/workflow/stop-task``)."""
    return _call("stop-task", "PUT", models.Done, given(task_id=read_id("task_id", task_id), biz_code=biz_code))


def resume_task(task_id: str) -> Call[Any]:
    """Resume a paused task (``PUT /v2/workflow/resume-task``)."""
    return _call("resume-task", "PUT", models.Done, {"task_id": read_id("task_id", task_id)})


def list_sources(*, limit: int = PAGE_LIMIT) -> Call[models.Page[models.SourceInfo]]:
    """List the account's workflows (``GET /v2/workflow/list-workflows``)."""
    return _call("list-workflows", "GET", models.Page[models.SourceInfo], {"page": 1, "limit": limit})


def get_source(workflow_id: str) -> Call[models.SourceInfo]:
    """Read a workflow with the inputs that it takes (``GET /v2/workflow/get-workflow``)."""
    return _call("get-workflow", "GET", models.SourceInfo, {"workflow_id": read_path_id("workflow_id", workflow_id)})


def list_templates(*, keyword: str | None = None, limit: int = PAGE_LIMIT) -> Call[models.Page[models.SourceInfo]]:
    """List official templates (``GET /v2/workflow/list-official-workflow-templates``)."""
    params = given(keyword=keyword, page=1, limit=limit)
    return _call("list-official-workflow-templates", "GET", models.Page[models.SourceInfo], params)


def get_template(template_id: str) -> Call[models.SourceInfo]:
    """Read a template with the inputs that it takes (``GET /v2/workflow/get-official-workflow-template``)."""
    params = {"workflow_template_id": read_path_id("workflow_template_id", template_id)}
    return _call("get-official-workflow-template", "GET", models.SourceInfo, params)


def list_regions() -> Call[tuple[models.Region, ...]]:
    """List the proxy regions for template runs (``GET /v2/workflow/get-region-list``)."""
    return _call("get-region-list", "GET", tuple[models.Region, ...])


def _start(
    name: str, id_name: str, source_id: str, inputs: Mapping[str, str] | None, options: Mapping[str, Any]
) -> Call[Any]:
    pairs = [{"name": name, "value": text} for name, text in (inputs or {}).items()]
    body = {id_name: read_path_id(id_name, source_id), "input_parameters": pairs, **options}
    return _call(name, "POST", models.CreatedTask, body=body, starts_run=True)


def _call(name: str, method: str, result: Any, params: Mapping[str, Any] | None = None, **more: Any) -> Call[Any]:
    return Call(name, method, f"/v2/workflow/{name}", result, params or {}, **more)
