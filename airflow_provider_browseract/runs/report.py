"""Describe a run in logs, messages and XComs, always in the same words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_browseract.api.fields import one_line
from airflow_provider_browseract.api.models import ApiVersion, Step, Task, TaskStatus
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    ResponseLostError,
    RunCanceledError,
    RunFailedError,
    RunLostError,
    TaskNotFoundError,
)

GOAL_LENGTH = 200
"""Characters of a step's goal that a log line shows."""

STATUS_LENGTH = 50
"""Characters of a step's status that a log line shows."""

MAX_STEP_LINES = 50
"""Steps that one poll adds to the log. Of more, the log has the last ones, and how many are missing."""

IF_NO_LINE_FOLLOWS = "If no line follows, check that a triggerer is running."
"""The end of each log line before a deferral. Without a triggerer, the task stays deferred, and its log ends there."""

WHY_UNKNOWN = (
    "The API key may be of another account, the run may have been deleted, or the emulator may have been restarted."
)
"""Why BrowserAct may not know a run that it has started, as a sentence."""


def polling_line(interval: float) -> str:
    """Return a line for the log of a task that is about to wait in the triggerer, without a callback."""
    return f"Waiting in the triggerer, which polls the run every {interval:g} seconds. {IF_NO_LINE_FOLLOWS}"


def error_text(reason: str, *then: str, about: Task | str | None = None, codes: str = "") -> str:
    """Return the text of an error: the reason, what follows from it and what to do, links, and last ids and codes.

    :param then: further lines. The empty ones are left out.
    :param about: the run, or the id of its BrowserAct task.
    :param codes: BrowserAct's code of the error, and what else its support asks for.
    """
    links = ids = ""
    if isinstance(about, Task):
        links = f"Log: {url}" if (url := log_url(about)) else ""
        ids = f"BrowserAct task {about.id}" + (f" of {what_ran(about)} {about.source_id}" if about.source_id else "")
    elif about is not None:
        ids = f"BrowserAct task {about}"
    last = ", ".join(filter(None, (ids, codes)))
    return "\n".join(filter(None, (reason, *then, links, last and f"{last}.")))


def reason_and_remedy(text: str) -> tuple[str, str | None]:
    """Return the first two lines of the text of an error; None if there is no remedy."""
    reason, *then = text.split("\n")
    others = ("Evaluation", "Screenshot: ", "Log: ", "BrowserAct task ", "code ", "HTTP ")
    return reason, then[0] if then and not then[0].startswith(others) else None


def what_ran(task: Task) -> str:
    """Return what the user changes to change the run: the workflow or the bot."""
    return WORDS[task.api_version]["what"]


def brief_of(error: Exception) -> str:
    """Return the reason of any error in one line, without a full stop, for use in a sentence."""
    if isinstance(error, BrowserActError):
        return error.brief
    return str(one_line(f"{type(error).__name__}: {error}")).rstrip(".")


def not_stopped(error: Exception, url: str | None) -> str:
    """Return the end of a sentence about a run whose stop failed."""
    if isinstance(error, TaskNotFoundError):
        return f"could not be stopped: BrowserAct does not know the run with this API key. {WHY_UNKNOWN}"
    what = "may not have been stopped" if isinstance(error, ResponseLostError) else "could not be stopped"
    return f"{what} ({brief_of(error)}). It may keep running and using credits until you stop it {where_to_stop(url)}."


def where_to_stop(url: str | None) -> str:
    """Return where a person can stop a run, as the end of a sentence."""
    return f"at {url}" if url else "in the BrowserAct dashboard"


def kept_running(url: str | None) -> str:
    """Return what happens to a run that is not stopped at a kill, as the end of a sentence."""
    return f"keeps running and using credits because cancel_on_kill=False. Stop it {where_to_stop(url)}."


def log_url(task: Task) -> str | None:
    """Return the address of a task's page in BrowserAct, or of its live view as long as it has no page."""
    return task.log_detail_url or task.live_url


def status_line(task: Task) -> str:
    """Return a line with the status of a run, and the live view while there is one."""
    line = f"Status: {task.status}."
    if not task.live_url or task.status.ended:
        return line
    if task.status is TaskStatus.PAUSED:
        return f"{line} It waits for a person: {task.live_url}"
    return f"{line} Live view: {task.live_url}"


def step_lines(task: Task, since: int, *, hide_goals: bool = False) -> Iterator[str]:
    """Yield lines with the steps of a run after the first ``since``; of many, only of the last ones."""
    new = max(task.step_count - since, 0)
    steps = task.steps[max(len(task.steps) - min(new, MAX_STEP_LINES), 0) :]
    if new > len(steps):
        yield f"... {new - len(steps):,} more steps"
    for step in steps:
        shown = step.model_copy(update={"goal": "***"}) if hide_goals else step
        yield f"{name_step(shown, 'Step')} ({_cut(step.status or 'no status given', STATUS_LENGTH)})"


def end_line(task: Task) -> str:
    """Return a line with the end of a run, its duration, its credits and the number of its steps."""
    seconds = duration_of(task)
    took = f" after {seconds:.0f} s" if seconds is not None else ""
    spent = f", {task.credit} credits" if task.credit is not None else ""
    number = task.step_count
    counted = f", {number_of(number, 'step')}" if number else ""
    return f"{task.status.value.capitalize()}{took}{spent}{counted}."


def number_of(number: int, what: str) -> str:
    """Return a number with a noun, which gets a plural if it needs one."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


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


def name_step(step: Step, word: str = "step") -> str:
    """Return the number and the goal of a step in one line."""
    return f"{word} {'?' if step.number is None else step.number}: {goal_of(step)}"


def goal_of(step: Step) -> str:
    """Return the goal of a step in limited length."""
    return _cut(step.goal or "no goal given", GOAL_LENGTH)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"


# How a run has ended

REMEDIES = {
    1011: (
        "captcha",
        "Let the {what} pause for a person at this point, {start_with} that is already logged in, or slow down the "
        "{what}. ",
    ),
    10001: ("navigation timeout", "Check the address of the page, and let the {what} wait longer for it. "),
}
"""For the failure codes in BrowserAct's documents: words that its message must have, and the remedy. The documents do
not list all codes, and one code may have several reasons."""

WORDS = {
    ApiVersion.V2: {"what": "workflow", "inputs": "inputs", "start_with": "start with a profile"},
    ApiVersion.V3: {"what": "bot", "inputs": "input", "start_with": "give it a Standard Browser"},
}
"""The words of a remedy that depend on the version of the API."""


def check_finished(task: Task) -> None:
    """Raise an error unless a run has finished.

    :raises RunFailedError: the run failed.
    :raises RunCanceledError: the run was canceled.
    :raises RunLostError: the run has not ended, so it has no result yet.
    """
    if task.status is TaskStatus.FAILED:
        raise RunFailedError(_why_failed(task))
    if task.status is TaskStatus.CANCELED:
        raise RunCanceledError(
            error_text(
                "The run was canceled in BrowserAct, by a person or through the API.",
                "To run it again, clear the Airflow task that started it.",
                about=task,
            )
        )
    if task.status is not TaskStatus.FINISHED:
        raise RunLostError(error_text(f"The run is {task.status}, so it has no result yet.", about=task))


def _why_failed(task: Task) -> str:
    failure = task.failure
    code = failure.code if failure else None
    codes = "" if code is None else f"code {code}"
    reason = (failure and failure.message) or "The run failed, and BrowserAct gave no reason"
    words, remedy = REMEDIES.get(code or 0, ("", ""))
    advice = (remedy if words in reason.lower() else "") + "Fix the {what} or its {inputs}, and clear the Airflow task."
    then = advice.format(**WORDS[task.api_version])
    at, judged, screenshot = _failing_step(task.steps[-MAX_STEP_LINES:])
    return error_text(f"{reason.rstrip('.')}{at}.", then, judged, screenshot, about=task, codes=codes)


def _failing_step(steps: tuple[Step, ...]) -> tuple[str, str, str]:
    """Return the step that failed, in brackets, how it was evaluated, and where its screenshot is."""
    if not steps:
        return "", "", ""
    at = next((at for at in reversed(range(len(steps))) if steps[at].status == "failed"), len(steps) - 1)
    step = steps[at]
    # The evaluation of a step is in the step after it.
    judged = steps[at + 1].evaluation_previous_goal if at + 1 < len(steps) else None
    evaluation = f"Evaluation: {judged}" if judged else ""
    # An address with a query may be signed, and is then secret.
    shown = step.screenshots_url and "?" not in step.screenshots_url
    return f" ({name_step(step).rstrip('.')})", evaluation, f"Screenshot: {step.screenshots_url}" if shown else ""
