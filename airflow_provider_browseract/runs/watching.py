"""Watch for tasks that end, whoever started them: which tasks to list, and which to report. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, Page, Task, TaskStatus
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.runs.stored import Moment, from_json

REPORT_WINDOW = 24 * 3600.0
"""Seconds by which the end of a task may be reported late, after a time without a running triggerer."""

WATCH_OVERLAP = 600.0
"""Seconds of tolerance for tasks that are listed late, and for inaccurate clocks."""

PAGE_SIZE = 128
"""Tasks on a page of the list; 100 in version 3 of the API. A page of version 2 contains the outputs of its tasks, so
it can be large. It is halved, again and again, if it is too large."""

LONGEST_RUN = timings.DEFAULT_TIMEOUT + WATCH_OVERLAP
"""Seconds that a task may take. The first poll lists tasks from this far back, to find all that ended lately."""

END_STATUSES = tuple(status for status in TaskStatus if status.ended)
"""The statuses of ended tasks."""


@dataclass(frozen=True)
class EndedTask:
    """A task that has ended.

    :param task: the task, without its inputs and its output.
    :param moment: when it ended, in seconds since the epoch.
    """

    task: Task
    moment: float

    def facts(self) -> dict[str, Any]:
        """Return the facts for an event as plain JSON values, as far as a list of tasks contains them.

        :returns: as :func:`~airflow_provider_browseract.runs.report.facts`, without ``links`` and ``counts``, and with
            ``failure`` (``code`` and ``message``; None unless it failed).
        """
        known = {name: fact for name, fact in facts(self.task).items() if name not in ("links", "counts")}
        failure = self.task.failure
        return {**known, "failure": failure and {"code": failure.code, "message": failure.message}}


class Window:
    """The tasks of an account that ended lately, kept up to date with one short list per poll.

    The API filters tasks by their creation time. So each list begins with the oldest task that was still active, and
    the first list begins early enough for all tasks that ended within :data:`REPORT_WINDOW`.
    """

    def __init__(self, now: float, api_version: ApiVersion = ApiVersion.V2) -> None:
        self._api = APIS[api_version]
        self._from = now - REPORT_WINDOW - LONGEST_RUN
        self._active: dict[str, Task] = {}
        self._ended: dict[str, EndedTask] = {}

    @property
    def tasks(self) -> list[Task]:
        """All tasks that are active or ended lately, without their inputs and outputs, the newest first."""
        # The end of a task is believed, also if an older list shows the task as active again.
        known = {**self._active, **{task_id: ended.task for task_id, ended in self._ended.items()}}
        return sorted(known.values(), key=_created, reverse=True)

    def call(self, page_size: int = PAGE_SIZE) -> Call[Page[Task]]:
        """Return the call that lists the tasks that may have changed."""
        begin = datetime.fromtimestamp(self._from, timezone.utc)
        call: Call[Page[Task]] = self._api.list_tasks(created_at_from=begin, limit=page_size)
        return call

    def add(self, tasks: Iterable[Task], now: float, *, incomplete: bool = False) -> tuple[EndedTask, ...]:
        """Add the listed tasks.

        :param tasks: the tasks of all pages of the list.
        :param now: the time before the call was sent, in seconds since the epoch.
        :param incomplete: some tasks were not listed, or could not be read. Those that were active in the last poll
            count as still active, for at most a day after their creation.
        :returns: all tasks that ended lately.
        """
        begin = now - REPORT_WINDOW
        active = {task.id: task for task in self._active.values() if incomplete and _created(task) >= begin}
        for listed in tasks:
            # Inputs are not reported, and may be large.
            task = listed.model_copy(update={"input_parameters": None, "input": None})
            if not task.status.ended:
                active[task.id] = task
                continue
            active.pop(task.id, None)
            # Its credits may be listed later than its end.
            self._ended[task.id] = EndedTask(task, self._moment_of(task, now))
        self._active = active
        begins = [_created(task) for task in active.values() if task.created_at]
        # A task that never ends must not make the list ever longer.
        self._from = max(begin, min([now - WATCH_OVERLAP, *begins]))
        oldest = begin - WATCH_OVERLAP
        self._ended = {task_id: ended for task_id, ended in self._ended.items() if ended.moment >= oldest}
        return tuple(self._ended.values())

    def _moment_of(self, task: Task, now: float) -> float:
        """Return when a task has ended, as it was first listed."""
        if known := self._ended.get(task.id):
            return known.moment
        if task.finished_at:
            return task.finished_at.timestamp()
        # A task that was never seen active is treated as an old one.
        return now if task.id in self._active or task.created_at is None else _created(task)


@dataclass
class Cursor:
    """The tasks that were already reported, so that each is reported once.

    :param floor: tasks that ended before this moment are not reported any more, in seconds since the epoch.
    :param reported: the reported tasks that ended after it, and when they ended.
    """

    floor: Moment
    reported: dict[str, Moment]

    @classmethod
    def read(cls, value: Any, now: float) -> Cursor:
        """Read a stored cursor.

        :raises ValueError: the value is not a cursor, or is from the future and would delay all reports.
        """
        cursor = from_json(cls, value)
        if cursor.floor > now:
            raise ValueError("it is from the future")
        return cursor

    def news(self, ended: Iterable[EndedTask]) -> list[EndedTask]:
        """Return the tasks that were not reported yet, the earliest end first."""
        new = [each for each in ended if each.moment >= self.floor and each.task.id not in self.reported]
        # The times of the API have whole seconds, so tasks that ended together are sorted by their creation.
        return sorted(new, key=lambda each: (each.moment, _created(each.task)))

    def mark_reported(self, news: Iterable[EndedTask], now: float) -> None:
        """Mark tasks as reported."""
        self.reported.update({each.task.id: each.moment for each in news})
        # Limited to now: with a clock that is ahead, the next ends would be before the floor.
        latest = min(max(self.reported.values(), default=self.floor), now)
        self.floor = max(self.floor, latest - WATCH_OVERLAP)
        self.reported = {task_id: moment for task_id, moment in self.reported.items() if moment >= self.floor}


def _created(task: Task) -> float:
    return task.created_at.timestamp() if task.created_at else 0.0
