"""What is called in which version of the API: how a run is started, and how it is followed.

Everything that starts or follows runs goes through these two tables, so another version of the API is another row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.bots import read_run_summary
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import (
    ApiVersion,
    CreatedTask,
    Page,
    Region,
    Task,
    TaskStatus,
    Word,
    read_page,
)

T = TypeVar("T")


class Api(NamedTuple):
    """The calls with which a run is followed, in one version of the API, and that for the regions of its templates.

    :param list_tasks: takes ``source_id``, ``status``, ``created_at_from``, ``created_at_to`` and ``limit``, all
        optional, and reads the tasks tolerantly
        (:meth:`~airflow_provider_browseract.api.models.Task.read_summary`). If the API's largest page is smaller than
        ``limit``, it is returned.
    :param stop_task: takes the id of the task, and ``biz_code``, which is optional.
    """

    get_task: Callable[[str], Call[Task]]
    get_task_status: Callable[[str], Call[TaskStatus]]
    list_tasks: Callable[..., Call[Page[Task]]]
    stop_task: Callable[..., Call[None]]
    resume_task: Callable[[str], Call[None]]
    list_regions: Callable[[], Call[tuple[Region, ...]]]


def _list_tasks(*, source_id: str | None = None, limit: int = v2.PAGE_LIMIT, **filters: Any) -> Call[Page[Task]]:
    call = v2.list_tasks(workflow_id=source_id, limit=min(limit, v2.PAGE_LIMIT), **filters)
    return replace(call, read=read_page(Task.read_summary))


def _page_runs(*, source_id: str | None = None, limit: int = v3.PAGE_LIMIT, **filters: Any) -> Call[Page[Task]]:
    call = v3.page_runs(bot_id=source_id, limit=min(limit, v3.PAGE_LIMIT), **filters)
    return replace(call, read=read_page(read_run_summary))


APIS = {
    ApiVersion.V2: Api(v2.get_task, v2.get_task_status, _list_tasks, v2.stop_task, v2.resume_task, v2.get_region_list),
    ApiVersion.V3: Api(v3.query_run, v3.query_run_status, _page_runs, v3.cancel_run, v3.resume_run, v3.list_regions),
}
"""How a run is followed, by the version of the API that has started it."""


class SourceKind(Word):
    """What can be run."""

    WORKFLOW = "workflow"
    """A workflow of the account."""

    TEMPLATE = "template"
    """An official template of BrowserAct."""

    BOT = "bot"
    """A bot of the account."""

    BOT_TEMPLATE = "bot_template"
    """An official template of BrowserAct that runs as a bot."""


class SourceCalls(NamedTuple):
    """The calls with which one kind of source is found and run.

    :param start: takes the id of the source, the inputs, and the other arguments of the run by their names.
    :param read: takes the id of the source, and reads its declaration.
    :param list: takes ``limit``, which is optional, and reads the sources without their declarations.
    """

    api_version: ApiVersion
    start: Callable[..., Call[CreatedTask]]
    read: Callable[[str], Call[Any]]
    list: Callable[..., Call[Any]]


SOURCES = {
    SourceKind.WORKFLOW: SourceCalls(ApiVersion.V2, v2.run_task, v2.get_workflow, v2.list_workflows),
    SourceKind.TEMPLATE: SourceCalls(
        ApiVersion.V2,
        v2.run_task_by_template,
        v2.get_official_workflow_template,
        v2.list_official_workflow_templates,
    ),
    SourceKind.BOT: SourceCalls(ApiVersion.V3, v3.create_run, v3.query_bot, v3.page_bots),
    SourceKind.BOT_TEMPLATE: SourceCalls(ApiVersion.V3, v3.create_template_run, v3.query_template, v3.page_templates),
}
"""How each kind of source is found and run."""
