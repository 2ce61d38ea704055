"""What an ended run means: its result, or an error that says what happened and what to do."""

from __future__ import annotations

from typing import Any

from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.runs.outputs import read_output


class RunError(Exception):
    """A run did not come to a result. Airflow's retries apply."""


class RunFailedError(RunError):
    """BrowserAct says that the run failed."""


class RunCanceledError(RunError):
    """The run was stopped before it finished."""


class RunTimedOutError(RunError):
    """The run took longer than the operator's ``timeout``."""


class RunPausedError(RunError):
    """The run paused for a person, and the operator was told not to wait for one."""


class NoSlotError(RunError):
    """BrowserAct had no room for a run for as long as the operator was told to wait; nothing was started."""


class RunLostError(RunError):
    """The status of the run could not be learned; the run may go on."""


def result_of(task: Task) -> Any:
    """Give the result of a run that has ended.

    :param task: the task as ``get-task`` answers it.
    :returns: the output, as :func:`~airflow_provider_browseract.runs.outputs.read_output` reads it.
    :raises RunFailedError: the run failed.
    :raises RunCanceledError: the run was canceled.
    :raises RunLostError: the status is none of an ended run, so that nothing is known of its result.
    """
    if task.status is TaskStatus.FINISHED:
        return read_output(task.output)
    if task.status is TaskStatus.FAILED:
        raise RunFailedError(_what_happened(task))
    if task.status is TaskStatus.CANCELED:
        raise RunCanceledError(
            f"{describe(task)} was canceled, by someone in BrowserAct or through its API.{_where(task)} "
            "Clear the Airflow task to run the workflow again."
        )
    raise RunLostError(f"{describe(task)} has the status {task.status}, so it has no result yet.{_where(task)}")


def describe(task: Task) -> str:
    """Name a task in the words of every message."""
    return f"BrowserAct task {task.id}" + (f" of workflow {task.workflow_id}" if task.workflow_id else "")


def _what_happened(task: Task) -> str:
    failure = task.failure
    reason = (failure and failure.message) or "BrowserAct gave no reason"
    code = f" (code {failure.code})" if failure and failure.code is not None else ""
    said = f"{describe(task)} failed: {reason}{code}."
    step = next((step for step in reversed(task.steps) if step.status == "failed"), None)
    if step is None and task.steps:
        step = task.steps[-1]
    if step is not None:
        said += f" Step {step.number}: {step.goal or 'no goal given'}."
        if step.evaluation_previous_goal:
            said += f" Evaluation: {step.evaluation_previous_goal}."
    return (
        f"{said}{_where(task)} Open the log to see the page as the run saw it, mend the workflow or its inputs, and "
        "clear the Airflow task."
    )


def _where(task: Task) -> str:
    return f" Log: {task.log_detail_url}." if task.log_detail_url else ""
