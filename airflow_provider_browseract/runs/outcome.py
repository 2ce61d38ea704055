"""What an ended run means: its result, or an error that says what happened and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_browseract.api.models import Step, Task, TaskStatus
from airflow_provider_browseract.runs.report import describe, name_step

REMEDIES = {
    1011: (
        "A captcha or a block stopped it: let the workflow pause for a person there, start with a profile that is "
        "logged in already, or slow the workflow down."
    ),
    10001: "The page did not come up in time: check its address, and let the workflow wait longer for it.",
}
"""What helps against the failures that BrowserAct's documents show, by code. There is no list of all."""


class RunError(Exception):
    """A run did not come to a result. Airflow's retries apply."""


class RunFailedError(RunError):
    """BrowserAct says that the run failed."""


class RunCanceledError(RunError):
    """The run was stopped before it finished."""


class RunTimedOutError(RunError):
    """The run took longer than the operator's ``timeout``, or did not start within its ``start_timeout``."""


class RunPausedError(RunError):
    """The run paused for a person, and the operator was told not to wait for one."""


class NoSlotError(RunError):
    """BrowserAct had no room for a run for as long as the operator was told to wait; nothing was started."""


class RunLostError(RunError):
    """The status of the run could not be learned; the run may go on."""


class ResultError(RunError):
    """The run finished, and what it put out could not be kept, or not all of it; it is still there in BrowserAct."""


def check_finished(task: Task) -> None:
    """Make sure that a run has come to a result.

    :param task: the task as ``get-task`` answers it.
    :raises RunFailedError: the run failed.
    :raises RunCanceledError: the run was canceled.
    :raises RunLostError: the status is none of an ended run, so that nothing is known of its result.
    """
    if task.status is TaskStatus.FINISHED:
        return
    if task.status is TaskStatus.FAILED:
        raise RunFailedError(_what_happened(task))
    if task.status is TaskStatus.CANCELED:
        raise RunCanceledError(
            f"{describe(task)} was canceled, by someone in BrowserAct or through its API.{_where(task)} "
            "To run it again, clear the Airflow task that started it."
        )
    raise RunLostError(f"{describe(task)} has the status {task.status}, so it has no result yet.{_where(task)}")


def _what_happened(task: Task) -> str:
    failure = task.failure
    reason = (failure and failure.message) or "BrowserAct gave no reason"
    code = f" (code {failure.code})" if failure and failure.code is not None else ""
    remedy = REMEDIES.get(failure.code or 0, "") if failure else ""
    said = [
        f"{describe(task)} failed: {reason.rstrip('.')}{code}.",
        *_failing_step(task.steps),
        *([f"Log: {task.log_detail_url}"] if task.log_detail_url else []),
        f"{remedy} Mend the workflow or its inputs, and clear the Airflow task that started it.".lstrip(),
    ]
    return "\n".join(said)


def _failing_step(steps: tuple[Step, ...]) -> Iterator[str]:
    """Yield lines that say which step failed, how it was evaluated, and where the screenshot is."""
    if not steps:
        return
    at = next((at for at in reversed(range(len(steps))) if steps[at].status == "failed"), len(steps) - 1)
    step = steps[at]
    yield f"At {name_step(step)}"
    # A step is judged by the one after it.
    if at + 1 < len(steps) and (judged := steps[at + 1].evaluation_previous_goal):
        yield f"Evaluation: {judged}"
    elif step.evaluation_previous_goal:
        yield f"Before it: {step.evaluation_previous_goal}"
    # With a query, the address may be signed, and is then as good as a key.
    if step.screenshots_url and "?" not in step.screenshots_url:
        yield f"Screenshot: {step.screenshots_url}"


def _where(task: Task) -> str:
    return f" Log: {task.log_detail_url}." if task.log_detail_url else ""
