"""Every endpoint of BrowserAct's API v3, which runs bots, as a function that returns a call.

The functions have the names of those in :mod:`~airflow_provider_browseract.api.v2`, and the calls those of the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_browseract.api import arguments, models
from airflow_provider_browseract.api.arguments import given
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.v2 import read_filters
from airflow_provider_browseract.exceptions import InputError

PAGE_LIMIT = 100
"""The largest page of bots and runs. A page of templates can have 500."""

MAX_KEYWORD = 200
"""Characters of a keyword."""


def run(bot_id: str, inputs: Mapping[str, Any] | None = None, **options: Any) -> Call[models.CreatedTask]:
    """Start a run of a bot (``POST /v3/bots/{bot_id}/runs``)."""
    body = {"input": dict(inputs or {}), **options}
    path = f"/{arguments.read_path_id('bot_id', bot_id)}/runs"
    return _call("create-run", "POST", path, models.CreatedTask, body=body, starts_run=True)


def run_template(
    template_id: str, inputs: Mapping[str, Any] | None = None, *, region: str | None = None, **options: Any
) -> Call[models.CreatedTask]:
    """Start a run of an official template (``POST /v3/bots/templates/{template_id}/runs``)."""
    path = f"/templates/{arguments.read_path_id('template_id', template_id)}/runs"
    body = {"input": dict(inputs or {}), **given(proxy_region=region), **options}
    return _call("create-template-run", "POST", path, models.CreatedTask, body=body, starts_run=True)


def get_task_status(task_id: str) -> Call[models.BotTaskState]:
    """Read only the status of a run (``GET /v3/bots/runs/{task_id}/status``)."""
    return _about("query-run-status", "GET", task_id, "/status", models.BotTaskState)


def get_task(task_id: str) -> Call[models.BotTask]:
    """Read everything about a run (``GET /v3/bots/runs/{task_id}``)."""
    return _about("query-run", "GET", task_id, "", models.BotTask)


def list_tasks(**filters: Any) -> Call[models.Page[models.ListedBotTask]]:
    """List runs of bots and templates (``GET /v3/bots/runs``). They have no output.

    :param filters: as for :func:`~airflow_provider_browseract.api.v2.read_filters`.
    """
    if filters.get("status") == models.TaskStatus.UNKNOWN:
        raise InputError("status is 'unknown', which version 3 of the API does not have. Use another one, or None.")
    params = read_filters("bot", PAGE_LIMIT, **filters)
    return _call("page-runs", "GET", "/runs", models.Page[models.ListedBotTask], params=params)


def stop_task(task_id: str, *, biz_code: int | None = None) -> Call[Any]:
    """Cancel a run (``POST /v3/bots/runs/{task_id}/cancel``)."""
    return _about("cancel-run", "POST", task_id, "/cancel", models.Done, params=given(biz_code=biz_code))


def resume_task(task_id: str) -> Call[Any]:
    """Resume a paused run of a workflow-built bot (``POST /v3/bots/runs/{task_id}/resume``)."""
    return _about("resume-run", "POST", task_id, "/resume", models.Done)


def list_sources(
    *, bot_type: models.BotType | str | None = None, keyword: str | None = None, limit: int = PAGE_LIMIT
) -> Call[models.Page[models.SourceInfo]]:
    """List the bots that can run (``GET /v3/bots``)."""
    wanted = None if bot_type is None else arguments.read_choice("bot_type", bot_type, models.BotType).value
    params = given(bot_type=wanted, keyword=_keyword(keyword), page=1, limit=limit)
    return _call("page-bots", "GET", "", models.Page[models.SourceInfo], params=params)


def get_source(bot_id: str) -> Call[models.SourceInfo]:
    """Read a bot with its schemas (``GET /v3/bots/{bot_id}``)."""
    return _call("query-bot", "GET", f"/{arguments.read_path_id('bot_id', bot_id)}", models.SourceInfo)


def list_templates(*, keyword: str | None = None, limit: int = 500) -> Call[models.Page[models.SourceInfo]]:
    """List the official templates that run as bots (``GET /v3/bots/templates``)."""
    params = given(keyword=_keyword(keyword), page=1, limit=limit)
    return _call("page-templates", "GET", "/templates", models.Page[models.SourceInfo], params=params)


def get_template(template_id: str) -> Call[models.SourceInfo]:
    """Read a template with the schema of its input (``GET /v3/bots/templates/{template_id}``)."""
    path = f"/templates/{arguments.read_path_id('template_id', template_id)}"
    return _call("query-template", "GET", path, models.SourceInfo)


def list_regions() -> Call[tuple[models.Region, ...]]:
    """List the proxy regions for runs of templates (``GET /v3/bots/regions``)."""
    return _call("list-regions", "GET", "/regions", tuple[models.Region, ...])


def _about(name: str, method: str, task_id: str, end: str, result: Any, **more: Any) -> Call[Any]:
    task_id = arguments.read_path_id("task_id", task_id)
    return _call(name, method, f"/runs/{task_id}{end}", result, about=task_id, **more)


def _call(name: str, method: str, path: str, result: Any, **more: Any) -> Call[Any]:
    return Call(name, method, f"/v3/bots{path}", result, **more)


def _keyword(value: str | None) -> str | None:
    if value is not None and len(value) > MAX_KEYWORD:
        raise InputError(f"keyword has {len(value)} characters. BrowserAct accepts at most {MAX_KEYWORD}.")
    return value
