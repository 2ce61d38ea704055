"""What Airflow's database has about runs, as values: who has started which run, who waits, and the queue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.queue.queueing import QueueWait
from airflow_provider_browseract.runs.wait import Wait

ID_LENGTH = 250
"""Characters that Airflow's database columns allow for the ids of DAG, run and task."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff\U00010000-\U0010ffff]")


class TaskInstanceKey(NamedTuple):
    """What identifies the XComs of a task instance, whichever of its tries has pushed them.

    :param map_index: index of a mapped task, -1 otherwise.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int

    @property
    def fits(self) -> bool:
        """Whether every database of Airflow can look it up without an error."""
        # MySQL's older character set ends at U+FFFF. NUL and lone surrogates are errors in PostgreSQL.
        writable = all(len(each) <= ID_LENGTH and not _UNSTORABLE.search(each) for each in self[:3])
        return writable and -1 <= self.map_index < 2**31


class Link(NamedTuple):
    """A task instance and its run.

    :param try_number: the try that has the run; None if that is not known.
    :param conn_id: the connection; None if it is not known.
    :param source_id: the workflow or bot that the task instance runs; None if it is not known, and for a template.
    :param confirmed: the connection comes from the trigger or from the rendered fields, and not only from the XCom.
    :param pushed_at: timestamp of the XCom, or when the trigger was created.
    :param started: the task instance starts runs; False for a sensor, which waits for a run that was started elsewhere.
    :param waits: a task instance waits for the run now, in its current try: this one, or a sensor.
    :param wait: how it waits, if it is deferred.
    :param other_wait: how another task instance waits for the run, if one is deferred.
    :param required_action: a Required Action waits for an answer.
    :param hidden: what must not be shown of the run, in the words of the XCom.
    :param api_version: the version of the API that knows the run.
    """

    browseract_task_id: str
    key: TaskInstanceKey
    try_number: int | None
    conn_id: str | None
    source_id: str | None
    confirmed: bool
    pushed_at: datetime
    started: bool = True
    waits: bool = False
    wait: Wait | None = None
    other_wait: Wait | None = None
    required_action: bool = False
    hidden: frozenset[str] = frozenset()
    api_version: ApiVersion = ApiVersion.V2

    @property
    def proves_its_run(self) -> bool:
        """Whether more than an XCom names the run. For a template, only its trigger does."""
        return self.wait is not None or self.source_id is not None

    def may_be_of(self, task: Task) -> bool:
        """Return whether the task instance can have started a run, by what both say about the workflow or bot."""
        if self.source_id is None or self.source_id == task.source_id:
            return True
        # Version 3 always names the bot, unless it is the run of a template.
        return task.source_id is None and task.api_version is ApiVersion.V2


class QueueEntry(NamedTuple):
    """A task instance that waits for a slot or for the budget of the account."""

    key: TaskInstanceKey
    conn_id: str
    wait: QueueWait


@dataclass(frozen=True)
class Records:
    """What Airflow's database knows at a moment.

    :param links: by the ids of their runs, the link of the task instance that has started the run.
    :param queue: all who wait for slots, with any connection, in the order of their places. Those of paused DAGs and
        those that wait for the budget are included.
    :param others: further task instances with these runs, such as sensors.
    """

    links: Mapping[str, Link]
    queue: tuple[QueueEntry, ...]
    others: tuple[Link, ...] = ()

    def of_run(self, task_id: str) -> list[Link]:
        """Return the links of all task instances with a run."""
        return self._by_run.get(task_id, [])

    @cached_property
    def _by_run(self) -> dict[str, list[Link]]:
        found: dict[str, list[Link]] = {}
        for link in (*self.links.values(), *self.others):
            found.setdefault(link.browseract_task_id, []).append(link)
        return found

    def of_instance(self, key: TaskInstanceKey) -> list[Link]:
        """Return the runs of a task instance that are known, newest first."""
        found = [link for link in (*self.links.values(), *self.others) if link.key == key]
        return sorted(found, key=lambda link: link.pushed_at, reverse=True)


def newest(links: Iterable[Link], active: Mapping[TaskInstanceKey, int]) -> Iterable[Link]:
    """Return the newest link of the current try of each task instance."""
    found: dict[TaskInstanceKey, Link] = {}
    for link in links:
        if active.get(link.key, -1) == link.try_number:
            other = found.setdefault(link.key, link)
            found[link.key] = max(other, link, key=lambda each: each.pushed_at)
    return found.values()


def arrange(links: Iterable[Link]) -> tuple[dict[str, Link], list[Link]]:
    """Return the link of the task instance that has started each run, and all others."""
    groups: dict[str, list[Link]] = {}
    for link in links:
        groups.setdefault(link.browseract_task_id, []).append(link)
    best, others = {}, []
    for browseract_task_id, group in groups.items():
        best[browseract_task_id] = group[0]
        if len(group) == 1:
            continue
        # What a trigger has stored cannot be edited. What gives rights is not taken from one link into another.
        group.sort(key=lambda link: (link.started, link.confirmed, link.wait is not None), reverse=True)
        best[browseract_task_id] = group[0]._replace(
            waits=any(link.waits for link in group),
            other_wait=next((link.wait for link in group[1:] if link.wait is not None), None),
            required_action=any(link.required_action for link in group),
            hidden=frozenset[str]().union(*(link.hidden for link in group)),
        )
        others += group[1:]
    return best, others
