"""What the panel knows, made by hand, and viewers with few rights."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.panel.accounts import Account
from airflow_provider_browseract.panel.building import Knowledge
from airflow_provider_browseract.panel.records import Link, QueueEntry, Records, TaskInstanceKey
from airflow_provider_browseract.queue.queueing import Queued, QueueWait

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=timezone.utc)
CONN = "browseract_default"


@dataclass
class Viewer:
    """Rights, as :class:`~airflow_provider_browseract.panel.access.Access` returns them.

    :param reads: DAGs of which the viewer sees runs and steps.
    :param changes: DAGs of which the viewer may clear task instances.
    """

    reads: Collection[str] = ()
    changes: Collection[str] = ()
    account: bool = False
    steps: bool = True
    edits: bool = False

    def reads_connection(self, conn_id: str) -> bool:
        return self.account

    def edits_connection(self, conn_id: str) -> bool:
        return self.edits

    def reads_dag(self, dag_id: str) -> bool:
        return dag_id in self.reads

    reads_runs = reads_dag

    def reads_steps(self, dag_id: str) -> bool:
        return self.steps and dag_id in self.reads

    def changes_runs(self, dag_id: str) -> bool:
        return dag_id in self.changes


ADMIN = Viewer({"prices", "shop"}, {"prices", "shop"}, account=True, edits=True)


def task(number: int, status: TaskStatus = TaskStatus.RUNNING, *, minutes: float = 10, **fields: Any) -> Task:
    """Return a run that was created some minutes ago."""
    given = {"workflow_id": "71", "created_at": NOW - timedelta(minutes=minutes), "credit": 5, **fields}
    if status.ended:
        given.setdefault("finished_at", NOW - timedelta(minutes=minutes - 1))
    return Task(id=f"83{number:03}", status=status, **given)


def link(of: Task, dag_id: str = "prices", *, waits: bool = True, map_index: int = -1, **fields: Any) -> Link:
    """Return the link of a task instance that has started a run, with a connection from its rendered fields."""
    assert of.created_at is not None
    given = {
        "try_number": 1,
        "conn_id": CONN,
        "source_id": of.source_id,
        "confirmed": True,
        "pushed_at": of.created_at + timedelta(seconds=1),
        "waits": waits and not of.status.ended,
        **fields,
    }
    return Link(of.id, TaskInstanceKey(dag_id, "manual__2026-11-27T00:00:00+00:00", "search", map_index), **given)


def queued(number: int, dag_id: str = "prices", *, conn_id: str = CONN, minutes: float = 4, **wait: Any) -> QueueEntry:
    """Return a task instance that waits for a slot."""
    since = (NOW - timedelta(minutes=minutes)).timestamp()
    place = Queued(since, since, wait.pop("refusals", 3), wait.pop("priority", 1))
    stored = QueueWait(
        place, since + 3600, **{"source": "workflow 7", "key_digest": conn_id, "not_before": since, **wait}
    )
    return QueueEntry(TaskInstanceKey(dag_id, "r", "search", number), conn_id, stored)


def known(
    *tasks: Task, links: Iterable[Link] = (), queue: Iterable[QueueEntry] = (), viewer: Viewer = ADMIN, **account: Any
) -> Knowledge:
    """Return what a page is made from."""
    records = Records({each.browseract_task_id: each for each in links}, tuple(queue))
    access: Any = viewer
    return Knowledge(access, Account(CONN, tuple(tasks), as_of=NOW, **account), records, NOW)
