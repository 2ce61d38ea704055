"""Wait for the output of a finished run, which can become available later than the status.

After a callback, the worker reads the run within a second of its end. A public client of the API, which polls, also
reads a finished run again before it accepts that there is no output.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any, TypeAlias

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.files import has_files
from airflow_provider_browseract.runs.steps import LogLine, Sleep
from airflow_provider_browseract.runs.wait import poll_run

Steps: TypeAlias = "Generator[Sleep | LogLine | Call[Any], Any, Task]"
"""Steps to execute. The generator is sent the result of a call, or its error is thrown in."""


def read_late_output(task: Task, now: float) -> Steps:
    """Read a finished run again while it has neither output nor files; of version 2, only if it has steps.

    :param now: the current time, in seconds since the epoch. A run that ended more than ``timings.LATE_OUTPUT_LIMIT``
        seconds ago is not read again.
    :returns: the run as the API returned it last. It has no output if it still had none after
        ``timings.LATE_OUTPUT_PAUSES``.
    :raises BrowserActError: the last read failed, so it is not known whether the run has output.
    """
    if not _lacks_output(task) or (task.finished_at and task.finished_at.timestamp() < now - timings.LATE_OUTPUT_LIMIT):
        return task
    yield LogLine(
        f"BrowserAct task {task.id} has finished without output or files. They can become available after the status, "
        f"so the run is read again for up to {sum(timings.LATE_OUTPUT_PAUSES):g} seconds."
    )
    waited = 0.0
    for pause in timings.LATE_OUTPUT_PAUSES:
        yield Sleep(pause)
        waited += pause
        try:
            task = yield from poll_run(task.id, task.api_version)
        except BrowserActError as error:
            if pause == timings.LATE_OUTPUT_PAUSES[-1]:
                raise
            yield LogLine(f"BrowserAct task {task.id} could not be read again: {error.brief}", logging.WARNING)
            continue
        if not _lacks_output(task):
            yield LogLine(f"The output of BrowserAct task {task.id} became available within {waited:g} seconds.")
            return task
    yield LogLine(f"BrowserAct task {task.id} still has no output after {waited:g} seconds.")
    return task


def _lacks_output(task: Task) -> bool:
    """Return whether a run has finished and should have output, but has neither output nor files."""
    if task.status is not TaskStatus.FINISHED:
        return False
    # Agent-built bots may have no steps.
    has_worked = bool(task.steps) or task.api_version is ApiVersion.V3
    has_text = task.output is not None and bool(task.output.string)
    return has_worked and not (has_text or has_files(task))
