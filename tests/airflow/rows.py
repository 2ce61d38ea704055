"""Rows of Airflow's database, made by hand, and fixtures that have them."""

from __future__ import annotations

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
from airflow.utils.state import TaskInstanceState
from sqlalchemy import delete, event, func, insert, select, update
from sqlalchemy.engine import Engine

from airflow_provider_browseract.emulator import SEARCH
from airflow_provider_browseract.panel.database import SLOT_TRIGGER
from airflow_provider_browseract.panel.records import TaskInstanceKey
from airflow_provider_browseract.runs.callback_url import new_token
from airflow_provider_browseract.runs.queueing import Queued, QueueWait
from airflow_provider_browseract.runs.request import digest
from airflow_provider_browseract.runs.wait import Wait
from airflow_provider_browseract.triggers.run import TaskTrigger
from airflow_provider_browseract.triggers.slot import SlotTrigger
from airflow_provider_browseract.webhook.database import AS_STORED

DAG_ID = "example_browseract_search"
LONG_AGO = 60.0

TABLE: Any = TaskInstance.__table__
INDEX = "map_index" if "map_index" in TABLE.c else "region_index"
"""The column of the map index, which has another name from Airflow 3.4 on."""


def dialect() -> str:
    """Return the kind of Airflow's database, as SQLAlchemy names it."""
    with create_session() as session:
        return session.get_bind().dialect.name


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
    """Execute statements in one transaction."""
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


def push_xcom(of: TaskInstanceKey, key: str, value: Any, *, as_text: bool = False) -> None:
    """Push an XCom, as workers do.

    :param as_text: store it as JSON text, as the API server of Airflow 3.1 does.
    """
    with create_session() as session:
        how: dict[str, Any] = {} if as_text else AS_STORED
        XComModel.set(key, value, **of._asdict(), **how, session=session)


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


class Deferred:
    """A task instance in Airflow's database, made to wait for a callback by hand."""

    def __init__(self, run_id: str) -> None:
        self.waiting = TaskInstanceKey(DAG_ID, run_id, "search", -1)
        self.token = new_token()
        self.deadline = time.time() + 3600
        self.first_poll_at = 0.0

    @property
    def path(self) -> str:
        """Where the callback goes."""
        return f"/browseract/callback/{self.ti_id}/{self.token}"

    @property
    def ti_id(self) -> str:
        """The id of its current try."""
        with create_session() as session:
            return str(self.row(session).id)

    def row(self, session) -> Any:
        """Return the row of the task instance."""
        of = {"dag_id": DAG_ID, "run_id": self.waiting.run_id, "task_id": "search"}
        return session.scalars(select(TaskInstance).filter_by(**of)).one()

    def start(self) -> None:
        """Bring it to where its run is about to be started."""
        with create_session() as session:
            ti = self.row(session)
            ti.state, ti.trigger_id, ti.next_method, ti.next_kwargs = TaskInstanceState.RUNNING, None, None, None
            XComModel.clear(dag_id=DAG_ID, task_id="search", run_id=self.waiting.run_id, session=session)

    def defer(self, ago: float = LONG_AGO, **fields: Any) -> int:
        """Defer the task instance some seconds ago, and return the id of the trigger."""
        self.began_at = time.time()
        known = {"callback_token_sha256": digest(self.token), "began_at": self.began_at}
        self.wait = Wait("7", self.deadline, **{**known, **fields})
        trigger = TaskTrigger(browseract_conn_id="browseract_default", wait=self.wait)
        with create_session() as session:
            trigger_id: int = store_trigger(session, trigger, ago).id
            ti = self.row(session)
            ti.state, ti.trigger_id, ti.next_method = TaskInstanceState.DEFERRED, trigger_id, "execute_complete"
            return trigger_id

    def next_try(self) -> None:
        """End the waiting try, and begin another one."""
        with create_session() as session:
            ti = self.row(session)
            ti.state, ti.trigger_id = TaskInstanceState.UP_FOR_RETRY, None
            ti.prepare_db_for_next_try(session)
        self.start()

    def leave_trigger(self, state: TaskInstanceState) -> None:
        """End the deferral without a callback."""
        with create_session() as session:
            ti = self.row(session)
            ti.trigger_id, ti.state = None, state

    def forget_trigger(self) -> None:
        """Delete the trigger, as the triggerer does with one that no task instance waits for."""
        self.leave_trigger(TaskInstanceState.SCHEDULED)
        execute(delete(Trigger).where(Trigger.classpath.startswith("airflow_provider_browseract")))

    @property
    def state(self) -> str:
        """Its state."""
        with create_session() as session:
            return str(self.row(session).state)

    @property
    def resumed_with(self) -> Any:
        """The event that it was resumed with, or None."""
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
        """Its XComs."""
        with create_session() as session:
            query = XComModel.get_many(run_id=self.waiting.run_id, dag_ids=DAG_ID, task_ids="search", map_indexes=-1)
            rows = session.scalars(query)
            return {row.key: XComModel.deserialize_value(row) for row in rows}


class Queue:
    """Mapped task instances in Airflow's database that wait for slots.

    :param run_id: the DAG run to which they belong.
    """

    def __init__(self, run_id: str) -> None:
        self._of = {"dag_id": DAG_ID, "run_id": run_id, "task_id": "cheapest"}

    def add(
        self,
        since: float,
        *,
        priority: int = 1,
        conn_id: str = "browseract_default",
        ago: float = LONG_AGO,
        refusals: int = 1,
        **fields: Any,
    ) -> TaskInstanceKey:
        """Add a task instance that has been waiting since then and deferred some seconds ago, and return it."""
        wait = QueueWait(Queued(since, since, refusals, priority), time.time() + 3600, **fields)
        with create_session() as session:
            trigger = store_trigger(session, SlotTrigger(browseract_conn_id=conn_id, wait=wait), ago)
            highest: Any = session.scalar(select(func.max(TABLE.c[INDEX])).where(*self._is(TABLE)))
            index = highest + 1
            own = {"id": new_ti_id(), INDEX: index, "trigger_id": trigger.id, "state": "deferred"}
            copy_row(session, TABLE, {**self._of, INDEX: -1}, **own, next_method="execute_queued")
        return TaskInstanceKey(**self._of, map_index=index)

    def pause(self, *, paused: bool = True) -> None:
        """Pause their DAG, or unpause it."""
        execute(update(DagModel).where(DagModel.dag_id == DAG_ID).values(is_paused=paused))

    def clear(self) -> None:
        """Delete all of them."""
        waiting = delete(TABLE).where(*self._is(TABLE), TABLE.c[INDEX] >= 0)
        execute(waiting, delete(Trigger).where(Trigger.classpath == SLOT_TRIGGER))

    def make_unreadable(self, key: TaskInstanceKey) -> None:
        """Let the trigger of a task instance be one that another version of this package has stored."""
        with create_session() as session:
            of = select(TABLE.c.trigger_id).where(*self._is(TABLE), TABLE.c[INDEX] == key.map_index)
            trigger = session.get(Trigger, session.scalar(of))
            assert trigger is not None
            trigger.kwargs = {"browseract_conn_id": "browseract_default", "wait": {"place": 1}}

    def mark(self, key: TaskInstanceKey, state: str) -> None:
        """Set the state of a task instance, as a person does."""
        of = *self._is(TABLE), TABLE.c[INDEX] == key.map_index
        execute(update(TABLE).where(*of).values(state=state, trigger_id=None))

    def _is(self, of: Any) -> list[Any]:
        columns = getattr(of, "c", of)
        return [getattr(columns, name) == value for name, value in self._of.items()]


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
    """The components that have sent heartbeats."""

    def add(self, kind: str, ago: float = 0.0, state: str = "running") -> None:
        """Add one with a last heartbeat some seconds ago."""
        at = datetime.now(timezone.utc) - timedelta(seconds=ago)
        with create_session() as session:
            job = Job()
            job.job_type, job.state, job.start_date, job.latest_heartbeat = kind, state, at, at
            session.add(job)

    def clear(self) -> None:
        """Delete all of them."""
        execute(delete(Job))


@pytest.fixture
def components(airflow_database) -> Iterator[Components]:
    """The components of an Airflow, one of each, alive."""
    made = Components()
    made.clear()
    for kind in ("TriggererJob", "SchedulerJob", "DagProcessorJob"):
        made.add(kind)
    yield made
    made.clear()
