"""Every endpoint of BrowserAct's API v3, which runs bots, as a function that returns a call.

The functions have the names of the API's operations. As in :mod:`~airflow_provider_browseract.api.v2`, a client sends
the calls, and the methods of :class:`~airflow_provider_browseract.hooks.browseract.BrowserActHook` describe the
arguments. A list also takes the number of a page, from 1, and how many items it has, 1 to 100; that of templates, 1 to
500. For an argument that cannot be used, the functions raise
:class:`~airflow_provider_browseract.exceptions.InputError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from airflow_provider_browseract.api.arguments import (
    given,
    read_bot_id,
    read_choice,
    read_moment,
    read_optional_id,
    read_path_id,
)
from airflow_provider_browseract.api.bots import (
    Bot,
    BotTemplate,
    read_action_on,
    read_created,
    read_run,
    read_run_of,
    read_status_of,
)
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import (
    BotType,
    CreatedTask,
    Page,
    Region,
    Task,
    TaskStatus,
    read_list,
    read_page,
)
from airflow_provider_browseract.exceptions import (
    InputError,
)

T = TypeVar("T")

PAGE_LIMIT = 100
"""The largest page of bots and runs."""

TEMPLATE_PAGE_LIMIT = 500
"""The largest page of templates."""


def create_run(
    bot_id: str,
    input: Mapping[str, Any] | None = None,
    *,
    callback_url: str | None = None,
    status_change_callback_url: str | None = None,
) -> Call[CreatedTask]:
    """Start a run of a bot (``POST /v3/bots/{bot_id}/runs``)."""
    path = f"{read_bot_id(bot_id)}/runs"
    body = given(input=_input(input), callback_url=callback_url, status_change_callback_url=status_change_callback_url)
    return _call("create-run", "POST", path, read_created, body=body, starts_run=True)


def create_template_run(
    template_id: str,
    input: Mapping[str, Any] | None = None,
    *,
    region: str | None = None,
    callback_url: str | None = None,
    status_change_callback_url: str | None = None,
) -> Call[CreatedTask]:
    """Start a run of an official template (``POST /v3/bots/templates/{template_id}/runs``)."""
    path = f"templates/{read_path_id('template_id', template_id)}/runs"
    body = given(
        input=_input(input),
        proxy_region=read_optional_id("region", region),
        callback_url=callback_url,
        status_change_callback_url=status_change_callback_url,
    )
    return _call("create-template-run", "POST", path, read_created, body=body, starts_run=True)


def query_run_status(task_id: str) -> Call[TaskStatus]:
    """Read only the status of a run (``GET /v3/bots/runs/{task_id}/status``)."""
    task_id = read_path_id("task_id", task_id)
    return _call("query-run-status", "GET", f"runs/{task_id}/status", read_status_of(task_id))


def query_run(task_id: str) -> Call[Task]:
    """Read everything about a run (``GET /v3/bots/runs/{task_id}``)."""
    task_id = read_path_id("task_id", task_id)
    return _call("query-run", "GET", f"runs/{task_id}", read_run_of(task_id))


def page_runs(
    *,
    bot_id: str | None = None,
    bot_name: str | None = None,
    status: TaskStatus | str | None = None,
    created_at_from: datetime | None = None,
    created_at_to: datetime | None = None,
    page: int = 1,
    limit: int = PAGE_LIMIT,
) -> Call[Page[Task]]:
    """List runs of bots and templates (``GET /v3/bots/runs``). They have no output."""
    wanted = None if status is None else read_choice("status", status, TaskStatus)
    if wanted is TaskStatus.UNKNOWN:
        raise InputError("status is 'unknown', which version 3 of the API does not have. Use another one, or None.")
    params = given(
        bot_id=None if bot_id is None else read_bot_id(bot_id),
        bot_name=bot_name,
        status=None if wanted is None else wanted.value,
        created_at_from=read_moment("created_at_from", created_at_from),
        created_at_to=read_moment("created_at_to", created_at_to),
        page=page,
        limit=limit,
    )
    return _call("page-runs", "GET", "runs", read_page(read_run), params)


def resume_run(task_id: str) -> Call[None]:
    """Resume a paused run of a workflow-built bot (``POST /v3/bots/runs/{task_id}/resume``)."""
    task_id = read_path_id("task_id", task_id)
    return _call("resume-run", "POST", f"runs/{task_id}/resume", read_action_on(task_id))


def cancel_run(task_id: str, *, biz_code: int | None = None) -> Call[None]:
    """Cancel a run (``POST /v3/bots/runs/{task_id}/cancel``)."""
    task_id, params = read_path_id("task_id", task_id), given(biz_code=biz_code)
    return _call("cancel-run", "POST", f"runs/{task_id}/cancel", read_action_on(task_id), params)


def page_bots(
    *, bot_type: BotType | str | None = None, keyword: str | None = None, page: int = 1, limit: int = PAGE_LIMIT
) -> Call[Page[Bot]]:
    """List the bots that can run (``GET /v3/bots``)."""
    params = given(
        bot_type=None if bot_type is None else read_choice("bot_type", bot_type, BotType).value,
        keyword=keyword,
        page=page,
        limit=limit,
    )
    return _call("page-bots", "GET", "", read_page(Bot.read), params)


def query_bot(bot_id: str) -> Call[Bot]:
    """Read a bot with its schemas (``GET /v3/bots/{bot_id}``)."""
    return _call("query-bot", "GET", read_bot_id(bot_id), Bot.read)


def page_templates(
    *, keyword: str | None = None, page: int = 1, limit: int = TEMPLATE_PAGE_LIMIT
) -> Call[Page[BotTemplate]]:
    """List the official templates that run as bots (``GET /v3/bots/templates``)."""
    params = given(keyword=keyword, page=page, limit=limit)
    return _call("page-templates", "GET", "templates", read_page(BotTemplate.read), params)


def query_template(template_id: str) -> Call[BotTemplate]:
    """Read a template with the schema of its input (``GET /v3/bots/templates/{template_id}``)."""
    path = f"templates/{read_path_id('template_id', template_id)}"
    return _call("query-template", "GET", path, BotTemplate.read)


def list_regions() -> Call[tuple[Region, ...]]:
    """List the proxy regions for runs of templates (``GET /v3/bots/regions``)."""
    return _call("list-regions", "GET", "regions", read_list(Region.read))


def _call(
    name: str,
    method: str,
    path: str,
    read: Callable[[Any], T],
    params: Mapping[str, str | int] | None = None,
    **more: Any,
) -> Call[T]:
    return Call(name, method, f"/v3/bots/{path}".rstrip("/"), read, params or {}, **more)


def _input(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping | None):
        raise InputError(f"the input should be a dict, but is {type(value).__name__}")
    return dict(value or {})
