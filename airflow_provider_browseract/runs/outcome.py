"""Decide whether a run has a result, or raise an error that describes what happened and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_browseract.api.models import ApiVersion, Step, Task, TaskStatus
from airflow_provider_browseract.exceptions import RunCanceledError, RunFailedError, RunLostError
from airflow_provider_browseract.runs.report import MAX_STEP_LINES, describe, name_step, what_ran

REMEDIES = {
    1011: (
        "captcha",
        "A captcha stopped the run: let the {what} pause for a person at this point, {start_with} that is already "
        "logged in, or slow down the {what}.",
    ),
    10001: (
        "navigation timeout",
        "The page did not load in time: check its address, and let the {what} wait longer for the page.",
    ),
}
"""For the failure codes in BrowserAct's documents: words that its message must have, and the remedy. The documents do
not list all codes, and one code may have several reasons."""

WORDS = {
    ApiVersion.V2: {"inputs": "inputs", "start_with": "start with a profile"},
    ApiVersion.V3: {"inputs": "input", "start_with": "give it a Standard Browser"},
}
"""The words of a remedy that depend on the version of the API."""


def check_finished(task: Task) -> None:
    """Raise an error unless a run has finished.

    :raises RunFailedError: the run failed.
    :raises RunCanceledError: the run was canceled.
    :raises RunLostError: the run has not ended, so it has no result yet.
    """
    if task.status is TaskStatus.FINISHED:
        return
    if task.status is TaskStatus.FAILED:
        raise RunFailedError(_what_happened(task))
    if task.status is TaskStatus.CANCELED:
        raise RunCanceledError(
            f"{describe(task)} was canceled in BrowserAct, by a person or through the API.{_where(task)} "
            "To run it again, clear the Airflow task that started it."
        )
    raise RunLostError(f"{describe(task)} has the status {task.status}, so it has no result yet.{_where(task)}")


def _what_happened(task: Task) -> str:
    failure = task.failure
    reason = (failure and failure.message) or "BrowserAct gave no reason"
    code = f" (code {failure.code})" if failure and failure.code is not None else ""
    words, remedy = REMEDIES.get(failure.code or 0, ("", "")) if failure else ("", "")
    if words not in reason.lower():
        remedy = ""
    advice = f"{remedy} Fix the {{what}} or its {{inputs}}, and clear the Airflow task that started it.".lstrip()
    lines = [
        f"{describe(task)} failed: {reason.rstrip('.')}{code}.",
        *_failing_step(task.steps[-MAX_STEP_LINES:]),
        *([f"Log: {task.log_detail_url}"] if task.log_detail_url else []),
        advice.format(what=what_ran(task), **WORDS[task.api_version]),
    ]
    return "\n".join(lines)


def _failing_step(steps: tuple[Step, ...]) -> Iterator[str]:
    """Yield lines that describe which step failed, how it was evaluated, and where the screenshot is."""
    if not steps:
        return
    at = next((at for at in reversed(range(len(steps))) if steps[at].status == "failed"), len(steps) - 1)
    step = steps[at]
    yield f"At {name_step(step)}"
    # The evaluation of a step is in the step after it.
    if at + 1 < len(steps) and (judged := steps[at + 1].evaluation_previous_goal):
        yield f"Evaluation: {judged}"
    elif step.evaluation_previous_goal:
        yield f"Evaluation of the previous step: {step.evaluation_previous_goal}"
    # An address with a query may be signed, and is then secret.
    if step.screenshots_url and "?" not in step.screenshots_url:
        yield f"Screenshot: {step.screenshots_url}"


def _where(task: Task) -> str:
    return f" Log: {task.log_detail_url}." if task.log_detail_url else ""
