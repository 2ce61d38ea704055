"""What is called in which version of the API: how a run is started, and how it is followed.

Everything that starts or follows runs goes through these two tables, so another version of the API is another row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import (
    ApiVersion,
    CreatedTask,
    Page,
    Task,
    TaskStatus,
    Template,
    Word,
    Workflow,
    read_page,
)


class Api(NamedTuple):
    """The calls with which a run is followed, in one version of the API.

    :param list_tasks: takes ``source_id``, ``status``, ``created_at_from``, ``created_at_to`` and ``limit``, all
        optional, and reads the tasks with :meth:`~airflow_provider_browseract.api.models.Task.read_summary`.
    """

    get_task: Callable[[str], Call[Task]]
    get_task_status: Callable[[str], Call[TaskStatus]]
    list_tasks: Callable[..., Call[Page[Task]]]
    stop_task: Callable[[str], Call[None]]
    resume_task: Callable[[str], Call[None]]


def _list_tasks(*, source_id: str | None = None, **filters: Any) -> Call[Page[Task]]:
    return replace(v2.list_tasks(workflow_id=source_id, **filters), read=read_page(Task.read_summary))


APIS = {
    ApiVersion.V2: Api(v2.get_task, v2.get_task_status, _list_tasks, v2.stop_task, v2.resume_task),
}
"""How a run is followed, by the version of the API that has started it."""


class SourceKind(Word):
    """What can be run."""

    WORKFLOW = "workflow"
    """A workflow of the account."""

    TEMPLATE = "template"
    """An official template of BrowserAct."""


class SourceCalls(NamedTuple):
    """The calls with which one kind of source is found and run.

    :param start: takes the id of the source, the inputs, and the other arguments of the run by their names.
    :param read: takes the id of the source, and reads its declaration.
    :param list: takes ``limit``, which is optional, and reads the sources without their declarations.
    """

    api_version: ApiVersion
    start: Callable[..., Call[CreatedTask]]
    read: Callable[[str], Call[Workflow] | Call[Template]]
    list: Callable[..., Call[Page[Workflow]] | Call[Page[Template]]]


SOURCES = {
    SourceKind.WORKFLOW: SourceCalls(ApiVersion.V2, v2.run_task, v2.get_workflow, v2.list_workflows),
    SourceKind.TEMPLATE: SourceCalls(
        ApiVersion.V2,
        v2.run_task_by_template,
        v2.get_official_workflow_template,
        v2.list_official_workflow_templates,
    ),
}
"""How each kind of source is found and run."""
