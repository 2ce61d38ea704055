"""Calls with checked arguments, and the error of a lost start. The hook and its asynchronous client share them.

The functions raise :class:`~airflow_provider_browseract.runs.arguments.InputError` for an argument that cannot be used.
Calls that start a run come from :mod:`airflow_provider_browseract.runs.request`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Concatenate, ParamSpec, TypeVar

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.errors import BrowserActError, RunStartUnknownError
from airflow_provider_browseract.api.models import CreatedTask, Page, Task, TaskStatus
from airflow_provider_browseract.hooks.steps import Log
from airflow_provider_browseract.runs.arguments import InputError, read_choice, read_id

P = ParamSpec("P")
T = TypeVar("T")


def _with_checked_id(
    argument: str, function: Callable[Concatenate[str, P], Call[T]]
) -> Callable[Concatenate[str, P], Call[T]]:
    """Return the function with a check of its first argument, an id."""

    def checked(given: str, /, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        return function(read_id(argument, given), *args, **kwargs)

    return checked


get_task = _with_checked_id("task_id", calls.get_task)
get_task_status = _with_checked_id("task_id", calls.get_task_status)
stop_task = _with_checked_id("task_id", calls.stop_task)
resume_task = _with_checked_id("task_id", calls.resume_task)
get_workflow = _with_checked_id("workflow_id", calls.get_workflow)
get_official_workflow_template = _with_checked_id("workflow_template_id", calls.get_official_workflow_template)


def list_tasks(
    workflow_id: str | None,
    workflow_name: str | None,
    status: TaskStatus | str | None,
    created_at_from: datetime | None,
    created_at_to: datetime | None,
) -> Call[Page[Task]]:
    """Return the call that reads the first page of the tasks that match."""
    for argument, moment in (("created_at_from", created_at_from), ("created_at_to", created_at_to)):
        if moment is not None and moment.tzinfo is None:
            raise InputError(f"{argument} is {moment.isoformat()}, which has no time zone. Pass a datetime with one.")
    return calls.list_tasks(
        workflow_id=None if workflow_id is None else read_id("workflow_id", workflow_id),
        workflow_name=workflow_name,
        status=None if status is None else read_choice("status", status, TaskStatus),
        created_at_from=created_at_from,
        created_at_to=created_at_to,
    )


@contextmanager
def starting(call: Call[CreatedTask], log: Log) -> Iterator[None]:
    """Raise :class:`RunStartUnknownError` if the start that is sent in this context fails and may have started a run.

    :param call: the start.
    :param log: gets an error if the start is interrupted, because a run may be running then.
    """
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
        # For example Airflow's execution_timeout, which can interrupt the code at any point.
        log.error("Interrupted during %s. A run may be running and using credits, and its id is not known.", call.name)
        raise
