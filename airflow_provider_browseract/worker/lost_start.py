"""Find out whether a start whose response was lost has created a run.

BrowserAct can carry out a start after the response was lost, and a new run can be missing in the list of tasks for a
while. So the list is read twice (``timings.LIST_READS``). The first read finds most runs early. Only the second one, if
the list is complete, proves that there is no run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.api.pages import Pages
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.worker.ledger import Entry
from airflow_provider_browseract.worker.matching import match_task

MAX_NAMED = 10
"""Possible runs that a message names."""


@dataclass(frozen=True)
class Listed:
    """What the list of tasks shows of a start.

    :param certain: the one run that certainly matches.
    :param usable: the runs that may be it, and have neither failed nor been canceled.
    :param clocks: a sentence about BrowserAct's clock, if it is so far from ours that a run may be missing.
    """

    certain: Task | None
    usable: list[Task]
    clocks: str | None


@dataclass(frozen=True)
class LostStart:
    """A start that may have created a run.

    :param ti: the task instance.
    :param entry: what was stored before the start.
    :param request: what was to be run; None if that is no longer known.
    :param ended_at: when the request had certainly ended, in seconds since the epoch.
    """

    ti: Any
    entry: Entry
    request: RunRequest | None
    ended_at: float

    def moments(self) -> list[float]:
        """Return when to read the list, in seconds since the epoch: twice, or once if both moments are over."""
        moments = [self.ended_at + seconds for seconds in timings.LIST_READS]
        return moments if time.time() < moments[-1] else moments[-1:]

    def read(self, client: BrowserActClient) -> Listed:
        """Read the list of the tasks that were created in the time of the start, to its end.

        :raises BrowserActError: the list cannot be read to its end.
        """
        tasks, clocks = self._created_meanwhile(client)
        matches = [(match_task(task, self.entry, self.request), task) for task in tasks]
        possible = [(match, task) for match, task in matches if match is not False]
        usable = [(match, task) for match, task in possible if not task.status.came_to_nothing]
        # If one run certainly matches, the undecided ones do not count.
        certain = [task for match, task in usable or possible if match]
        return Listed(certain[0] if len(certain) == 1 else None, [task for _, task in usable], clocks)

    def _created_meanwhile(self, client: BrowserActClient) -> tuple[list[Task], str | None]:
        """Return the tasks that were created in the time of the start, and a sentence about a clock that is wrong.

        The runs of other task instances of the same mapped task are left out.
        """
        source, clocks, tasks = self.entry.source, None, list[Task]()
        since = datetime.fromtimestamp(self.entry.written_at - timings.CLOCK_SKEW, timezone.utc)
        until = datetime.fromtimestamp(self.ended_at + timings.LIST_READS[-1] + timings.CLOCK_SKEW, timezone.utc)
        # A list does not name the template of a run.
        of = {"source_id": None if source.is_template else source.id}
        call = APIS[source.api_version].list_tasks(**of, created_at_from=since, created_at_to=until)
        pages: Pages[Task] = Pages(call)
        while pages.call is not None:
            page = client.send(pages.call)
            clocks = clocks or _clocks(page.served_at)
            tasks += pages.take(page)
        siblings = self._runs_of_siblings()
        in_time = [task for task in tasks if task.created_at is None or since <= task.created_at <= until]
        return [task for task in in_time if task.id not in siblings], clocks

    def _runs_of_siblings(self) -> set[str]:
        """Return the runs of the other task instances of the same mapped task."""
        ti = self.ti
        found = ti.xcom_pull(task_ids=[ti.task_id], key="task_id") if ti.map_index >= 0 else None
        return {each for each in found or () if isinstance(each, str)}

    def names_of(self, listed: Listed) -> str:
        """Return the ids of the usable runs, the newest first, each with its status and time, as a sentence."""
        since = datetime.min.replace(tzinfo=timezone.utc)
        newest = sorted(listed.usable, key=lambda task: task.created_at or since, reverse=True)
        times = [f", created at {_shown(task.created_at)}" if task.created_at else "" for task in newest]
        names = [f"{task.id} ({task.status}{at})" for task, at in zip(newest, times, strict=True)]
        more = f", and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        return f"BrowserAct tasks of {self.entry.source}: {', '.join(names[:MAX_NAMED])}{more}." if names else ""


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _clocks(served_at: datetime | None) -> str | None:
    ours = datetime.fromtimestamp(time.time(), timezone.utc)
    if served_at is None or abs((served_at - ours).total_seconds()) <= timings.CLOCK_SKEW:
        return None
    return (
        f"BrowserAct's clock shows {_shown(served_at)}, and that of this machine {_shown(ours)}, so the run may be "
        "missing in the list. Correct the clock that is wrong."
    )
