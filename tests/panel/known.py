"""What the panel knows, made by hand, and viewers with few rights."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.in_airflow.xcoms import names_of
from airflow_provider_browseract.panel.access import visible_failures
from airflow_provider_browseract.panel.accounts import Account
from airflow_provider_browseract.panel.database import TaskInstanceKey
from airflow_provider_browseract.panel.failures import FailedTry, Failure, Source
from airflow_provider_browseract.panel.links import Link, QueueEntry, Records
from airflow_provider_browseract.panel.rows import Look
from airflow_provider_browseract.panel.viewing import Viewing
from airflow_provider_browseract.queue.queueing import Queued, QueueWait
from airflow_provider_browseract.runs.proof import prove_run

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=timezone.utc)
CONN = "browseract_default"
KEY = "key of the account"
RUN_ID = "manual__2026-11-27T00:00:00+00:00"


@dataclass
class Viewer:
    """Rights, as :class:`~airflow_provider_browseract.panel.access.Access` returns them.

    :param reads: DAGs of which the viewer sees runs and steps.
    :param changes: DAGs of which the viewer may clear task instances.
    """

    reads: Collection[str] = ()
    changes: Collection[str] = ()
    account: bool = False
    xcoms: bool = True
    steps: bool = True
    edits: bool = False

    def reads_connection(self, conn_id: str) -> bool:
        return self.account

    def edits_connection(self, conn_id: str) -> bool:
        return self.edits

    def reads_dag(self, dag_id: str) -> bool:
        return dag_id in self.reads

    def reads_runs(self, dag_id: str) -> bool:
        return self.xcoms and dag_id in self.reads

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


def proof_of(link: Link, api_key: str) -> str:
    """Return what a worker with the API key pushes as the proof of a link."""
    stated: dict[str, Any] = {"connection": link.conn_id, "api_version": link.api_version.value}
    stated |= {"task_id": link.browseract_task_id, "follows": link.follows, "hidden": link.hidden}
    return prove_run(api_key, names_of(link.key), stated)


def link_of(task_id: str, key: TaskInstanceKey, api_key: str, **fields: Any) -> Link:
    """Return the link of a task instance that has started a run, with a proof unless one is given."""
    given = {"try_number": 1, "conn_id": CONN, "api_version": ApiVersion.V2, "follows": False, "hidden": (), **fields}
    made = Link(task_id, key, **{"proof": "", **given})
    return made if "proof" in fields else made._replace(proof=proof_of(made, api_key))


def link(of: Task, dag_id: str = "prices", *, waits: bool = True, map_index: int = -1, **fields: Any) -> Link:
    """Return the link of a task instance that has started a run."""
    assert of.created_at is not None
    given = {"pushed_at": of.created_at, "waits": waits and not of.status.ended, "api_version": of.api_version}
    return link_of(of.id, TaskInstanceKey(dag_id, RUN_ID, "search", map_index), KEY, **{**given, **fields})


def queued(number: int, dag_id: str = "prices", *, conn_id: str = CONN, minutes: float = 4, **wait: Any) -> QueueEntry:
    """Return a task instance that waits for a slot."""
    since = (NOW - timedelta(minutes=minutes)).timestamp()
    place = Queued(since, since, wait.pop("refusals", 3), wait.pop("priority", 1))
    stored = QueueWait(
        place, since + 3600, **{"source": "workflow 7", "key_digest": conn_id, "not_before": since, **wait}
    )
    return QueueEntry(TaskInstanceKey(dag_id, "r", "search", number), conn_id, stored)


def failed(
    dag_id: str = "prices", reason: str | None = "It is over", *, map_index: int = -1, minutes: float = 2, **fields: Any
) -> FailedTry:
    """Return a task instance that has failed some minutes ago, with an XCom ``failure`` if there is a reason."""
    key = TaskInstanceKey(dag_id, RUN_ID, fields.pop("task", "search"), map_index)
    given = {"connection": CONN, "source": Source("workflow", "71", "Search"), "kind": "Error", **fields}
    failure = None if reason is None else Failure(reason=reason, **given)
    return FailedTry(key, 1, NOW - timedelta(minutes=minutes), retries=False, failure=failure)


def known(
    *tasks: Task,
    links: Iterable[Link] = (),
    queue: Iterable[QueueEntry] = (),
    failures: Iterable[FailedTry] = (),
    viewer: Viewer = ADMIN,
    **account: Any,
) -> Look:
    """Return what a page is made from."""
    of_runs: dict[str, list[Link]] = {}
    for each in links:
        of_runs.setdefault(each.browseract_task_id, []).append(each)
    access: Any = viewer
    viewing = Viewing(access, Records(of_runs, tuple(queue)), CONN, KEY, (CONN, "second"))
    seen = tuple(visible_failures(access, failures))
    return Look(viewing, Account(CONN, tuple(tasks), **{"as_of": NOW, **account}), NOW, seen)
