"""Rows of Airflow's database, made by hand, and fixtures that have them."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.jobs.job import Job
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import delete, event, func, insert, select, update
from sqlalchemy.engine import Engine

from airflow_provider_browseract.emulator import SEARCH
from airflow_provider_browseract.panel.database import TaskInstanceKey
from airflow_provider_browseract.panel.links import SLOT_TRIGGER
from airflow_provider_browseract.queue.queueing import Queued, QueueWait
from airflow_provider_browseract.runs.callback_url import new_token
from airflow_provider_browseract.runs.request import digest
from airflow_provider_browseract.runs.wait import Wait
from airflow_provider_browseract.triggers.slot import SlotTrigger
from airflow_provider_browseract.triggers.task import TaskTrigger

DAG_ID = "example_browseract_search"
LONG_AGO = 60.0

TABLE: Any = TaskInstance.__table__
INDEX = "map_index" if "map_index" in TABLE.c else "region_index"
"""The column of the map index, which has another name from Airflow 3.4 on."""


@contextmanager
def selects() -> Iterator[list[str]]:
    """Collect the statements with which Airflow's database is read in the meantime, each in one line."""
    found: list[str] = []

    def add(connection, cursor, statement, *_):
        if statement.startswith("SELECT"):
            found.append(" ".join(statement.split()))

    event.listen(Engine, "before_cursor_execute", add)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", add)


def execute(*statements: Any) -> None:
    with create_session() as session:
        for statement in statements:
            session.execute(statement)


@contextmanager
def stored(*connections: Connection) -> Iterator[None]:
    """Store connections in Airflow's database for a while."""
    ids = [connection.conn_id for connection in connections]
    with create_session() as session:
        session.add_all(connections)
    try:
        yield
    finally:
        execute(delete(Connection).where(Connection.conn_id.in_(ids)))


def store_trigger(session: Any, trigger: Any, ago: float = 0.0) -> Trigger:
    """Store a trigger that was created some seconds ago, and return its row."""
    row = Trigger.from_object(trigger)
    row.created_date = datetime.now(timezone.utc) - timedelta(seconds=ago)
    session.add(row)
    session.flush()
    return row


def copy_row(session: Any, table: Any, like: dict[str, Any], **own: Any) -> None:
    """Copy a row with other values; None for a value that the database creates."""
    row = session.execute(select(table).where(*(table.c[name] == like[name] for name in like))).mappings().first()
    values = {**row, **own}
    session.execute(insert(table).values({name: value for name, value in values.items() if value is not None}))


def new_ti_id() -> Any:
    """Return an id for another task instance, of the type that this Airflow stores."""
    return TABLE.c.id.type.python_type(str(uuid.uuid4()))


def row_of(session: Any, key: TaskInstanceKey) -> Any:
    return session.scalars(select(TaskInstance).filter_by(**key._asdict())).one()


def id_of(key: TaskInstanceKey) -> Any:
    with create_session() as session:
        return row_of(session, key).id


def change(key: TaskInstanceKey, **values: Any) -> None:
    execute(update(TABLE).where(TABLE.c.id == id_of(key)).values(**values))


def defer(key: TaskInstanceKey, trigger: Any, ago: float = 0.0) -> int:
    """Let a task instance wait in the triggerer since some seconds, and return the id of the trigger."""
    with create_session() as session:
        trigger_id: int = store_trigger(session, trigger, ago).id
    change(key, state="deferred", trigger_id=trigger_id, next_method="execute_complete")
    return trigger_id


def schedule_next_try(key: TaskInstanceKey) -> None:
    """End the try and schedule the next one, as Airflow does for a retry and after a clear."""
    with create_session() as session:
        ti = row_of(session, key)
        ti.state, ti.trigger_id, ti.next_method = "up_for_retry", None, None
        number = ti.try_number + 1
        ti.prepare_db_for_next_try(session)
    change(key, state="scheduled", try_number=number)


def start_worker(key: TaskInstanceKey) -> None:
    """Let a worker start the current try, which deletes the XComs of the one before."""
    with create_session() as session:
        ti = row_of(session, key)
        ti.state, ti.trigger_id, ti.next_method, ti.next_kwargs = "running", None, None, None
        XComModel.clear(dag_id=key.dag_id, task_id=key.task_id, run_id=key.run_id, session=session)


class Deferred:
    """A task instance in Airflow's database, made to wait for a callback by hand."""

    def __init__(self, run_id: str) -> None:
        self.waiting = TaskInstanceKey(DAG_ID, run_id, "search", -1)
        self.token = new_token()

    @property
    def path(self) -> str:
        """Where the callback goes."""
        return f"/browseract/callback/{self.ti_id}/{self.token}"

    @property
    def ti_id(self) -> str:
        return str(id_of(self.waiting))

    def row(self, session) -> Any:
        return row_of(session, self.waiting)

    def start(self) -> None:
        """Bring it to where its run is about to be started."""
        start_worker(self.waiting)

    def defer(self, ago: float = LONG_AGO, **fields: Any) -> None:
        known = {"callback_token_sha256": digest(self.token), "began_at": time.time()}
        self.wait = Wait("7", time.time() + 3600, **{**known, **fields})
        trigger = TaskTrigger(browseract_conn_id="browseract_default", wait=self.wait)
        self.trigger_id = defer(self.waiting, trigger, ago)

    def leave_trigger(self, state: str) -> None:
        """End the deferral without a callback."""
        change(self.waiting, trigger_id=None, state=state)

    def forget_trigger(self) -> None:
        """Delete the trigger, as the triggerer does with one that no task instance waits for."""
        self.leave_trigger("scheduled")
        execute(delete(Trigger).where(Trigger.classpath.startswith("airflow_provider_browseract")))

    def hand_to_another_provider(self) -> None:
        """Let its trigger be one of another provider."""
        classpath = "airflow.providers.other.triggers.Other"
        execute(update(Trigger).where(Trigger.id == self.trigger_id).values(classpath=classpath))

    @property
    def state(self) -> str:
        with create_session() as session:
            return str(self.row(session).state)

    @property
    def resumed_with(self) -> Any:
        with create_session() as session:
            ti = self.row(session)
            if ti.trigger_id is not None or not ti.next_kwargs:
                return None
            kwargs: Any = ti.next_kwargs
            try:
                from airflow.sdk.serde import deserialize

                resumed: Any = deserialize(kwargs)
                return resumed["event"]
            except ImportError:
                return kwargs["event"]

    @property
    def xcoms(self) -> dict[str, Any]:
        with create_session() as session:
            query = XComModel.get_many(run_id=self.waiting.run_id, dag_ids=DAG_ID, task_ids="search", map_indexes=-1)
            return {row.key: XComModel.deserialize_value(row) for row in session.scalars(query)}


class Queue:
    """Mapped task instances in Airflow's database that wait for slots.

    :param run_id: the DAG run to which they belong.
    """

    def __init__(self, run_id: str) -> None:
        self._of = {"dag_id": DAG_ID, "run_id": run_id, "task_id": "cheapest"}
        self._are_of = [TABLE.c[name] == value for name, value in self._of.items()]

    def add(
        self, since: float, *, priority: int = 1, conn_id: str = "browseract_default", refusals: int = 1, **fields: Any
    ) -> TaskInstanceKey:
        """Add a task instance that has been waiting since then, and return it."""
        fields = {"source": "workflow 7", "key_digest": "k", "not_before": since, **fields}
        wait = QueueWait(Queued(since, since, refusals, priority), time.time() + 3600, **fields)
        with create_session() as session:
            trigger = store_trigger(session, SlotTrigger(browseract_conn_id=conn_id, wait=wait), LONG_AGO)
            highest: Any = session.scalar(select(func.max(TABLE.c[INDEX])).where(*self._are_of))
            index = highest + 1
            own = {"id": new_ti_id(), INDEX: index, "trigger_id": trigger.id, "state": "deferred"}
            copy_row(session, TABLE, {**self._of, INDEX: -1}, **own, next_method="execute_queued")
        return TaskInstanceKey(**self._of, map_index=index)

    def pause(self, *, paused: bool = True) -> None:
        execute(update(DagModel).where(DagModel.dag_id == DAG_ID).values(is_paused=paused))

    def clear(self) -> None:
        waiting = delete(TABLE).where(*self._are_of, TABLE.c[INDEX] >= 0)
        execute(waiting, delete(Trigger).where(Trigger.classpath == SLOT_TRIGGER))


_run_ids: list[str] = []
"""The run of the search example that all tests take the rows of."""


@pytest.fixture
def deferred(run_dag, browseract_emulator) -> Deferred:
    """A task instance that has been waiting for a callback for a minute."""
    if not _run_ids:
        browseract_emulator.set_workflow(SEARCH.id, duration=0.0)
        _run_ids.append(run_dag(DAG_ID).dag_run.run_id)
    made = Deferred(_run_ids[0])
    made.start()
    made.defer()
    return made


@pytest.fixture
def queue(deferred) -> Iterator[Queue]:
    """The task instances that wait for slots: none at first."""
    made = Queue(deferred.waiting.run_id)
    made.clear()
    made.pause(paused=False)
    yield made
    made.clear()


class Components:
    def add(self, kind: str, ago: float = 0.0, state: str = "running") -> None:
        """Add one with a last heartbeat some seconds ago."""
        at = datetime.now(timezone.utc) - timedelta(seconds=ago)
        with create_session() as session:
            job = Job()
            job.job_type, job.state, job.start_date, job.latest_heartbeat = kind, state, at, at
            session.add(job)

    def clear(self) -> None:
        execute(delete(Job))


@pytest.fixture
def components(airflow_database) -> Iterator[Components]:
    """The components of an Airflow, one of each, alive."""
    made = Components()
    made.clear()
    for kind in ("TriggererJob", "SchedulerJob", "DagProcessorJob"):
        # Also for a command that takes longer on a busy machine than a heartbeat is valid.
        made.add(kind, ago=-3600.0)
    yield made
    made.clear()
