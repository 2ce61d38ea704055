"""Describe a run in logs, messages and XComs, always in the same words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from airflow_provider_browseract.api.models import ApiVersion, Step, Task, TaskStatus
from airflow_provider_browseract.exceptions import BrowserActError, ResponseLostError

GOAL_LENGTH = 200
"""Characters of a step's goal that a log line shows."""

STATUS_LENGTH = 50
"""Characters of a step's status that a log line shows."""

MAX_STEP_LINES = 50
"""Steps that one poll adds to the log. Of more, the log has the first and the last ones, and how many are between."""


IF_NO_LINE_FOLLOWS = "If no line follows, check that a triggerer is running."
"""The end of each log line before a deferral. Without a triggerer, the task stays deferred, and its log ends there."""

WHY_UNKNOWN = (
    "The API key may be of another account, the run may have been deleted, or the emulator may have been restarted."
)
"""Why BrowserAct may not know a run that it has started, as a sentence."""


def polling_line(interval: float) -> str:
    """Return a line for the log of a task that is about to wait in the triggerer, without a callback."""
    return f"Waiting in the triggerer, which polls the run every {interval:g} seconds. {IF_NO_LINE_FOLLOWS}"


def describe(task: Task) -> str:
    """Return the name of a task for messages."""
    return f"BrowserAct task {task.id}" + (f" of {what_ran(task)} {task.source_id}" if task.source_id else "")


def what_ran(task: Task) -> str:
    """Return what the user changes to change the run: the workflow or the bot."""
    return "bot" if task.api_version is ApiVersion.V3 else "workflow"


def not_stopped(error: Exception, url: str | None) -> str:
    """Return the end of a sentence about a run whose stop failed."""
    reason = error.brief if isinstance(error, BrowserActError) else f"{type(error).__name__}: {error}"
    what = "may not have been stopped" if isinstance(error, ResponseLostError) else "could not be stopped"
    return (
        f"{what} ({reason.rstrip('.')}). It may keep running and using credits until you stop it {where_to_stop(url)}."
    )


def where_to_stop(url: str | None) -> str:
    """Return where a person can stop a run, as the end of a sentence."""
    return f"at {url}" if url else "in the BrowserAct dashboard"


def kept_running(setting: str, url: str | None) -> str:
    """Return what happens to a run that a setting does not let be stopped, as the end of a sentence."""
    return f"keeps running and using credits because {setting}=False. Stop it {where_to_stop(url)}."


def log_url(task: Task) -> str | None:
    """Return the address of a task's page in BrowserAct, or of its live view as long as it has no page."""
    return task.log_detail_url or task.live_url


def status_line(task: Task) -> str:
    """Return a line with the status of a run, and the live view while there is one."""
    line = f"BrowserAct task {task.id} is {task.status}."
    if not task.live_url or task.status.ended:
        return line
    if task.status is TaskStatus.PAUSED:
        return f"{line} It waits for a person: {task.live_url}"
    return f"{line} Live view: {task.live_url}"


Gap: TypeAlias = int
"""How many steps are left out."""


def _steps_to_show(task: Task, since: int = 0) -> Iterator[Step | Gap]:
    """Yield the steps of a run after the first ``since``; of many, only the first and the last."""
    # Of very many steps, only the first and the last ones are known.
    begin = max(min(since, len(task.steps) // 2), since - task.steps_left_out)
    steps, half = task.steps[begin:], MAX_STEP_LINES // 2
    first, last = steps[:half], steps[half:][-half:]
    yield from first
    if (left_out := task.step_count - since - len(first) - len(last)) > 0:
        yield left_out
    yield from last


def with_fewer_steps(task: Task, most: int) -> Task:
    """Return a run with at most so many steps: the first and the last ones, half each. The others are counted."""
    steps, half = task.steps, most // 2
    if len(steps) > most:
        steps = steps[:half] + steps[-half:]
    return task.model_copy(update={"steps": steps, "steps_left_out": task.step_count - len(steps)})


def step_lines(task: Task, since: int, *, hide_goals: bool = False) -> Iterator[str]:
    """Yield at most ``MAX_STEP_LINES + 1`` lines with the steps of a run after the first ``since``."""
    for step in _steps_to_show(task, since):
        if isinstance(step, Gap):
            yield f"BrowserAct task {task.id}: ... {step:,} more steps"
        else:
            named = name_step(step.model_copy(update={"goal": "***"}) if hide_goals else step)
            yield f"BrowserAct task {task.id}, {named} ({status_of(step) or 'no status given'})"


def end_line(task: Task) -> str:
    """Return a line with the end of a run, its duration, its credits and the number of its steps."""
    seconds = duration_of(task)
    took = f" after {seconds:.0f} s" if seconds is not None else ""
    spent = f", {task.credit} credits used" if task.credit is not None else ""
    number = task.step_count
    counted = f", {number} step{'' if number == 1 else 's'}" if number else ""
    return f"BrowserAct task {task.id} ended as {task.status}{took}{spent}{counted}."


def duration_of(task: Task) -> float | None:
    """Return the seconds from a run's start to its end, by BrowserAct's clock; None before the end."""
    if not task.status.ended or task.created_at is None or task.finished_at is None:
        return None
    return (task.finished_at - task.created_at).total_seconds()


def facts(task: Task, conn_id: str | None = None) -> dict[str, Any]:
    """Return the facts about a run as plain JSON values, without its inputs and its output.

    :param conn_id: id of the Airflow connection of the run, to be added as ``connection``.
    :returns: ``task_id``, ``api_version``, ``workflow_id``, ``bot_id``, ``bot_name``, ``bot_type``, ``profile_id``,
        ``status``, ``created_at`` and ``finished_at`` in ISO 8601, ``seconds``, ``credits``, ``links`` (``task``,
        ``live``), and ``counts`` of ``steps``, ``output_files`` and ``download_files``. An id or name that the
        version of the API does not have is None.
    """
    output = task.output
    return {
        **({} if conn_id is None else {"connection": conn_id}),
        "task_id": task.id,
        "api_version": str(task.api_version),
        "workflow_id": task.workflow_id,
        "bot_id": task.bot_id,
        "bot_name": task.bot_name,
        "bot_type": task.bot_type.value if task.bot_type else None,
        "profile_id": task.profile_id,
        "status": task.status.value,
        "created_at": task.created_at.isoformat() if task.created_at else None,
        "finished_at": task.finished_at.isoformat() if task.finished_at and task.status.ended else None,
        "seconds": duration_of(task),
        "credits": task.credit,
        "links": {"task": task.log_detail_url, "live": None if task.status.ended else task.live_url},
        "counts": {
            "steps": task.step_count,
            "output_files": len(output.files) + len(output.formats) if output else 0,
            "download_files": len(task.download_files),
        },
    }


def name_step(step: Step) -> str:
    """Return the number and the goal of a step in one line."""
    return f"step {'?' if step.number is None else step.number}: {goal_of(step)}"


def goal_of(step: Step) -> str:
    """Return the goal of a step in limited length."""
    return _cut(step.goal or "no goal given", GOAL_LENGTH)


def status_of(step: Step) -> str:
    """Return the status of a step in limited length."""
    return _cut(step.status or "", STATUS_LENGTH)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"
