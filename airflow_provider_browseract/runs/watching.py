"""Watching for tasks that end, whoever started them: which to list, and which of them are news. Does no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from airflow_provider_browseract.api.calls import Call, list_tasks
from airflow_provider_browseract.api.models import Page, Task, TaskStatus, read_page
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.runs.stored import Moment, from_json

REPORT_WINDOW = 24 * 3600.0
"""Seconds for which the end of a task can be reported late, after a time without a triggerer."""

WATCH_OVERLAP = 600.0
"""Seconds by which the end or the beginning of a task may be seen out of order, or by a clock that goes wrong."""

LONGEST_RUN = timings.DEFAULT_TIMEOUT + WATCH_OVERLAP
"""Seconds that a task takes at most, so that the first look finds all that ended lately."""

END_STATUSES = tuple(status for status in TaskStatus if status.ended)
"""The statuses that are ends."""


@dataclass(frozen=True)
class EndedTask:
    """A task that has ended.

    :param task: the task, without what it put out.
    :param moment: when it ended, in seconds since the epoch.
    """

    task: Task
    moment: float

    def facts(self) -> dict[str, Any]:
        """Return what an event tells of it, as plain JSON values: as much as a list of tasks knows.

        :returns: as :func:`~airflow_provider_browseract.runs.report.facts`, without ``links`` and ``counts``, and with
            ``failure`` (``code`` and ``message``; None unless it failed).
        """
        known = {name: fact for name, fact in facts(self.task).items() if name not in ("links", "counts")}
        failure = self.task.failure
        return {**known, "failure": failure and {"code": failure.code, "message": failure.message}}


class Window:
    """The tasks of an account that ended lately, kept up to date with one short list at a time.

    Tasks are listed by their creation. So each list begins with the oldest task that was still active, and the first
    one early enough for what ended within :data:`REPORT_WINDOW`.

    :param now: the moment, in seconds since the epoch.
    """

    def __init__(self, now: float) -> None:
        self._from = now - REPORT_WINDOW - LONGEST_RUN
        self._active: set[str] = set()
        self._ended: dict[str, EndedTask] = {}

    def call(self) -> Call[Page[Task]]:
        """Make the call for what may have changed."""
        call = list_tasks(created_at_from=datetime.fromtimestamp(self._from, timezone.utc))
        return replace(call, read=read_page(Task.read_summary))

    def add(self, tasks: Iterable[Task], now: float) -> tuple[EndedTask, ...]:
        """Take the tasks that were listed.

        :param tasks: what the call gave, all pages of it.
        :param now: the moment before it was sent.
        :returns: all tasks that ended lately.
        """
        active: set[str] = set()
        begins = [now - WATCH_OVERLAP]
        for task in tasks:
            created = task.created_at.timestamp() if task.created_at else now
            if not task.status.ended:
                active.add(task.id)
                begins.append(created)
            elif task.id not in self._ended:
                # Without a moment of its end, a task that was not seen active is taken for an old one.
                unknown = now if task.id in self._active else created
                moment = task.finished_at.timestamp() if task.finished_at else unknown
                self._ended[task.id] = EndedTask(task, moment)
        self._active = active
        # A task that never ends must not make the list longer and longer.
        self._from = max(min(begins), now - REPORT_WINDOW)
        oldest = now - REPORT_WINDOW - WATCH_OVERLAP
        self._ended = {task_id: ended for task_id, ended in self._ended.items() if ended.moment >= oldest}
        return tuple(self._ended.values())


@dataclass
class Cursor:
    """Which ends were reported already, so that each is reported once.

    :param floor: moment before which nothing is reported any more, in seconds since the epoch.
    :param reported: the tasks after it that were reported, and when they ended.
    """

    floor: Moment
    reported: dict[str, Moment]

    @classmethod
    def beginning(cls, ended: Iterable[EndedTask], now: float) -> Cursor:
        """Begin with a first look: what it shows has ended before."""
        floor = now - WATCH_OVERLAP
        return cls(floor, {each.task.id: each.moment for each in ended if each.moment >= floor})

    @classmethod
    def read(cls, value: Any, now: float) -> Cursor:
        """Read a cursor that was kept.

        :raises ValueError: it is none, or one from the future, with which nothing would be reported for a long time.
        """
        cursor = from_json(cls, value)
        if cursor.floor > now:
            raise ValueError("it is from the future")
        return cursor

    def news(self, ended: Iterable[EndedTask]) -> list[EndedTask]:
        """Return what was not reported yet, the earliest end first."""
        new = [each for each in ended if each.moment >= self.floor and each.task.id not in self.reported]
        # Moments have whole seconds, so the one that began first comes first.
        return sorted(new, key=lambda each: (each.moment, _created(each.task)))

    def mark_reported(self, news: Iterable[EndedTask], now: float) -> None:
        """Take note of what is reported."""
        self.reported.update({each.task.id: each.moment for each in news})
        # Not with a clock that is ahead, or the next ends would lie below the floor.
        latest = min(max(self.reported.values(), default=self.floor), now)
        self.floor = max(self.floor, latest - WATCH_OVERLAP)
        self.reported = {task_id: moment for task_id, moment in self.reported.items() if moment >= self.floor}


def matching(ended: Iterable[EndedTask], workflow_id: str | None, statuses: Collection[TaskStatus]) -> list[EndedTask]:
    """Pick the tasks of a workflow, or of all, that ended in one of some ways."""
    return [each for each in ended if each.task.status in statuses and workflow_id in (None, each.task.workflow_id)]


def _created(task: Task) -> float:
    return task.created_at.timestamp() if task.created_at else 0.0
