"""What Airflow's database knows about runs: which task instance has started which run, who waits, and the queue.

Like ``webhook/database.py``, this module uses ``airflow.models``, which is not a public interface. Its functions block,
so the panel calls them in its own threads. They read at most a limited number of rows, and only what they need.

The XCom ``task`` links a task instance to its run. It is only a hint: people may edit it, operators of others may use
the same key, and a custom XCom backend stores a reference in its place. What a trigger has stored is certain.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Set
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from airflow.models import xcom as xcoms
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.models.hitl import HITLDetail
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import Text, and_, cast, func, select
from sqlalchemy.orm import lazyload

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.compat import conf
from airflow_provider_browseract.hooks.connection import CONNECTION_TYPE
from airflow_provider_browseract.in_airflow.hiding import LIVE_VIEW, SECRET_INPUTS
from airflow_provider_browseract.panel.records import (
    ID_LENGTH,
    Link,
    QueueEntry,
    Records,
    TaskInstanceKey,
    arrange,
    newest,
)
from airflow_provider_browseract.queue.queueing import QueueWait
from airflow_provider_browseract.runs.stored import from_json, storable
from airflow_provider_browseract.runs.wait import Wait
from airflow_provider_browseract.spending.budget import begin_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session

RUN_TRIGGER = "airflow_provider_browseract.triggers.task.TaskTrigger"
"""Class path of the trigger of a task instance that waits for a run."""

SLOT_TRIGGER = "airflow_provider_browseract.triggers.slot.SlotTrigger"
"""Class path of the trigger of a task instance that waits for a slot."""

READ_AT_ONCE = 500
"""How many rows are read by their ids with one statement."""

MAX_AGE = 2.0
"""Seconds for which :class:`RecordKeeper` returns the same records."""

OLDEST = 30.0
"""Seconds after which nobody gets old records, as after a time without viewers."""

FIRST_READ = timedelta(hours=24)
"""How old XComs may be that a process reads first."""

OVERLAP = timedelta(minutes=1)
"""By how much two reads of XComs overlap: clocks differ, and a transaction may take a while."""

MAX_LINKS = 20_000
"""How many links are kept, and how many XComs are read at once; the newest ones."""

MAX_DEFERRED = 5_000
"""How many waits for runs and for slots are read; those that were deferred first."""

MAX_JSON = 50_000
"""Characters of an XCom or of rendered fields. Longer ones are not read."""

MAX_CONNECTIONS = 1_000

RUN_XCOM = "task"
"""XCom with the facts about the run of a task instance."""

FACTS = {"task_id", "workflow_id", "status"}
"""Keys of these facts by which the XCom is distinguished from that of another operator."""

XCOM: Any = getattr(xcoms, "XComModelV2", xcoms.XComModel)
"""Table of XComs. From Airflow 3.4 on each try has its own ones, and those of before the upgrade are left out."""

VALUE = cast(XCOM.value, Text).label("value")

BY_TRY = XCOM is not xcoms.XComModel

KEY = tuple(getattr(TaskInstance, name) for name in TaskInstanceKey._fields)

ABOUT_TO_CONTINUE = (TaskInstanceState.SCHEDULED, TaskInstanceState.QUEUED)

MAY_WAIT = (
    *ABOUT_TO_CONTINUE,
    TaskInstanceState.RUNNING,
    TaskInstanceState.DEFERRED,
    TaskInstanceState.UP_FOR_RESCHEDULE,
    # The next try reattaches to the run. If it could not do that, the run would have been stopped.
    TaskInstanceState.UP_FOR_RETRY,
)
"""States in which a task instance waits for the newest run of its current try."""


_Known: TypeAlias = "dict[tuple[str, TaskInstanceKey], Link]"
"""Links by their runs and task instances, those that were found first at the beginning."""


TriggerKey: TypeAlias = "tuple[int, datetime]"
"""Id and creation time of a trigger. Databases reuse ids."""

W = TypeVar("W")


def in_parts(ids: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield ids in order, as many at a time as one statement reads."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), READ_AT_ONCE):
        yield ordered[start : start + READ_AT_ONCE]


class StoredWaits(Generic[W]):
    """What triggers have stored, without those that cannot be read.

    A stored trigger never changes, and decrypting it is slow, so each is read once.

    :param kind: class of the waits.
    """

    def __init__(self, kind: type[W]) -> None:
        self._kind = kind
        # Other threads replace the whole dict.
        self._read: dict[TriggerKey, tuple[str, W] | None] = {}

    def unread(self, session: Session, triggers: Set[TriggerKey]) -> list[Trigger]:
        """Return those triggers that were not read yet, for :meth:`read`."""
        earlier = self._read
        ids = (trigger_id for trigger_id, created in triggers if (trigger_id, created) not in earlier)
        found: list[Trigger] = []
        for part in in_parts(ids):
            found.extend(session.scalars(select(Trigger).options(lazyload("*")).where(Trigger.id.in_(part))))
        return found

    def read(self, triggers: Set[TriggerKey], unread: Iterable[Trigger]) -> dict[TriggerKey, tuple[str, W]]:
        """Return connection and wait of each trigger that can be read, and forget all others.

        :param unread: what :meth:`unread` returned for them. Its session may be closed.
        """
        earlier = self._read
        known = {trigger: earlier[trigger] for trigger in triggers if trigger in earlier}
        for trigger in unread:
            # SQLite may have given the id to another one since then.
            if (key := (trigger.id, trigger.created_date)) in triggers:
                known[key] = self._decrypt(trigger)
        self._read = known
        return {trigger: found for trigger, found in known.items() if found is not None}

    def _decrypt(self, trigger: Trigger) -> tuple[str, W] | None:
        try:
            stored = trigger.kwargs
            return stored["browseract_conn_id"], from_json(self._kind, stored["wait"])
        except Exception:  # noqa: BLE001 - another version or key has stored it
            return None


class RecordKeeper:
    """Reads records, in any number of threads, and keeps them for a moment.

    XComs are read once. So the runs of earlier tries stay known to a process, although Airflow deletes their XComs.
    """

    def __init__(self) -> None:
        self._refreshing = threading.Lock()
        self._records, self._read_at = Records({}, ()), float("-inf")
        self._known: _Known = {}
        self._since: datetime | None = None
        self._waits, self._queue = StoredWaits(Wait), StoredWaits(QueueWait)

    def read(self) -> Records:
        """Return records that are a few seconds old at most.

        While a thread refreshes, others get the last ones, unless these are older than :data:`OLDEST`.

        :raises Exception: the refresh failed. The next call tries again.
        """
        if self._is_fresh() or not self._refreshing.acquire(blocking=self._age() > OLDEST):
            return self._records
        try:
            if not self._is_fresh():
                self._refresh()
            return self._records
        finally:
            self._refreshing.release()

    def _is_fresh(self) -> bool:
        return self._age() < MAX_AGE

    def _age(self) -> float:
        return time.monotonic() - self._read_at

    def _refresh(self) -> None:
        began = datetime.now(timezone.utc)
        with create_session(scoped=False) as session:
            runs, slots = _deferred(session, RUN_TRIGGER), _deferred(session, SLOT_TRIGGER)
            unread, unread_slots = self._waits.unread(session, runs.keys()), self._queue.unread(session, slots.keys())
            rows = _pushed(session, XCOM.timestamp >= (self._since or began - FIRST_READ))
            pushed = [*self._news(rows)]
            created = {row.id for each in unread if (row := runs.get((each.id, each.created_date)))}
            rendered = _rendered(session, {row.id for row, _ in pushed} | created)
            # After the triggers, so that nobody who stops or begins to be deferred is missed.
            dag_ids = {key.dag_id for _, key in self._known} | {row.dag_id for row, _ in pushed}
            active = _active(session, dag_ids | {row.dag_id for row in runs.values()})
        known = dict(self._known)
        for row, named in pushed:
            _add_pushed(known, row, named, rendered.get(row.id, NOT_RENDERED))
        waits: dict[tuple[str, TaskInstanceKey], dict[str, Any]] = {}
        for trigger, (conn_id, wait) in self._waits.read(runs.keys(), unread).items():
            row = runs[trigger]
            asked = wait.required_action is not None and row.asked is not None
            waits[wait.browseract_task_id, _key(row)] = {"waits": True, "wait": wait, "required_action": asked}
            _add_deferred(known, row, wait, conn_id, rendered.get(row.id, NOT_RENDERED))
        if len(known) > MAX_LINKS:
            known = dict(sorted(known.items(), key=lambda each: each[1].pushed_at)[-MAX_LINKS:])
        # A trigger states what is waited for. If it cannot be read here, the XCom has to do.
        for key in (*(key for _, key in waits), *map(_key, slots.values())):
            active.pop(key, None)
        waits |= {(link.browseract_task_id, link.key): {"waits": True} for link in newest(known.values(), active)}
        shown = known | {of: known[of]._replace(**changes) for of, changes in waits.items() if of in known}
        links, others = arrange(shown.values())
        stored = self._queue.read(slots.keys(), unread_slots)
        queue = [QueueEntry(_key(row), *stored[trigger]) for trigger, row in slots.items() if trigger in stored]
        queue.sort(key=lambda entry: (entry.wait.queued.place, entry.key))
        # From here on nothing fails. A clock that is ahead, or another one that is behind, must not hide XComs.
        self._known, self._since = known, min(began, rows[0].timestamp if rows else began) - OVERLAP
        self._records, self._read_at = Records(links, tuple(queue), tuple(others)), time.monotonic()

    def _news(self, rows: list[Row[Any]]) -> Iterator[tuple[Row[Any], _Named]]:
        """Yield the XComs that are not known yet, oldest first, with what they say."""
        for row in reversed(rows):
            named = _named(row.value)
            if named is not None:
                link = self._known.get((named.browseract_task_id, _key(row)))
                if link is None or link.pushed_at < row.timestamp:
                    yield row, named


def connections() -> list[str]:
    """Return the ids of the connections to BrowserAct in Airflow's database."""
    query = select(Connection.conn_id).where(Connection.conn_type == CONNECTION_TYPE)
    with create_session(scoped=False) as session:
        return list(session.scalars(query.order_by(Connection.conn_id).limit(MAX_CONNECTIONS)))


def connection_team(conn_id: str) -> str | None:
    """Return the team of a connection."""
    if not _has_teams():
        return None
    with create_session(scoped=False) as session:
        return Connection.get_team_name(storable(conn_id), session=session)


def dag_team(dag_id: str) -> str | None:
    """Return the team of a DAG."""
    if not _has_teams():
        return None
    with create_session(scoped=False) as session:
        return DagModel.get_team_name(storable(dag_id), session=session)


def _has_teams() -> bool:
    return bool(conf.getboolean("core", "multi_team", fallback=False))


def links_of(key: TaskInstanceKey) -> list[Link]:
    """Return the runs of a task instance whatever their age, newest first, but not whether it waits for them."""
    if not key.fits:
        return []
    columns = KEY if BY_TRY else tuple(getattr(XCOM, name) for name in TaskInstanceKey._fields)
    is_key = and_(*(column == value for column, value in zip(columns, key, strict=True)))
    with create_session(scoped=False) as session:
        rows = _pushed(session, XCOM.task_instance_id.in_(select(TaskInstance.id).where(is_key)) if BY_TRY else is_key)
        rendered = _rendered(session, {row.id for row in rows})
    known: _Known = {}
    for row in reversed(rows):
        if named := _named(row.value):
            _add_pushed(known, row, named, rendered.get(row.id, NOT_RENDERED))
    return sorted(known.values(), key=lambda link: link.pushed_at, reverse=True)


def links_on(day: date) -> dict[str, str]:
    """Return the DAGs of the runs whose XComs were pushed on a day (UTC) or on the next one, by the ids of the runs."""
    begin = begin_of(day)
    with create_session(scoped=False) as session:
        rows = _pushed(session, XCOM.timestamp >= begin, XCOM.timestamp < begin + timedelta(days=2))
    return {named.browseract_task_id: row.dag_id for row in reversed(rows) if (named := _named(row.value))}


class _Rendered(NamedTuple):
    """What the rendered fields of a task instance contain."""

    conn_id: str | None = None
    source_id: str | None = None
    started: bool = True
    followed: str | None = None
    """The run that a sensor waits for."""


NOT_RENDERED = _Rendered()


def _key(row: Row[Any]) -> TaskInstanceKey:
    """Return the task instance of a row that begins with :data:`KEY`."""
    return TaskInstanceKey(*row[: len(KEY)])


def _of(model: Any) -> ColumnElement[bool]:
    """Return the condition that a row belongs to a task instance."""
    if BY_TRY:
        condition: ColumnElement[bool] = model.task_instance_id == TaskInstance.id
        return condition
    return and_(*(getattr(model, name) == column for name, column in zip(TaskInstanceKey._fields, KEY, strict=True)))


def _pushed(session: Session, *conditions: ColumnElement[bool]) -> list[Row[Any]]:
    """Return the XComs of runs that fulfil conditions with their task instances, of all tries, newest first."""
    names = ("task_instance_id",) if BY_TRY else TaskInstanceKey._fields
    query = select(*(getattr(XCOM, name) for name in names), XCOM.timestamp, VALUE)
    query = query.where(XCOM.key == RUN_XCOM, func.length(VALUE) <= MAX_JSON, *conditions)
    # The limit is in a separate query: PostgreSQL would otherwise begin with all task instances.
    newest = query.order_by(XCOM.timestamp.desc()).limit(MAX_LINKS).subquery()
    of = TaskInstance.id, TaskInstance.try_number, TaskInstance.state, TaskInstance.next_method
    query = select(*KEY, newest.c.timestamp, newest.c.value, *of).select_from(newest).join(TaskInstance, _of(newest.c))
    query = query.order_by(newest.c.timestamp.desc()).execution_options(include_all_attempts=True)
    return list(session.execute(query))


def _active(session: Session, dag_ids: Iterable[str]) -> dict[TaskInstanceKey, int]:
    """Return the task instances of some DAGs that may wait for a run, with the numbers of their tries."""
    found = {}
    query = select(*KEY, TaskInstance.try_number).where(TaskInstance.state.in_(MAY_WAIT)).limit(MAX_LINKS)
    for part in in_parts(dag_ids):
        for row in session.execute(query.where(TaskInstance.dag_id.in_(part))):
            found[_key(row)] = row.try_number
    return found


def _deferred(session: Session, classpath: str) -> dict[TriggerKey, Row[Any]]:
    """Return the task instances that wait for a kind of trigger, by their triggers."""
    query = (
        select(*KEY, TaskInstance.id, TaskInstance.try_number, Trigger.created_date, HITLDetail.ti_id.label("asked"))
        .add_columns(Trigger.id.label("trigger_id"))
        .select_from(Trigger)
        .join(TaskInstance, TaskInstance.trigger_id == Trigger.id)
        .outerjoin(HITLDetail, and_(HITLDetail.ti_id == TaskInstance.id, HITLDetail.responded_at.is_(None)))
        .where(Trigger.classpath == classpath, TaskInstance.state == TaskInstanceState.DEFERRED)
        .order_by(Trigger.created_date)
        .limit(MAX_DEFERRED)
    )
    return {(row.trigger_id, row.created_date): row for row in session.execute(query)}


def _rendered(session: Session, ti_ids: Iterable[Any]) -> dict[Any, _Rendered]:
    """Return what the rendered fields of task instances contain.

    They are read as a whole: PostgreSQL takes no key out of JSON that contains a NUL anywhere.
    """
    found = {}
    fields = cast(RenderedTaskInstanceFields.rendered_fields, Text)
    query = select(TaskInstance.id, fields).join(RenderedTaskInstanceFields, _of(RenderedTaskInstanceFields))
    query = query.where(func.length(fields) <= MAX_JSON).execution_options(include_all_attempts=True)
    for part in in_parts(ti_ids):
        for ti_id, text in session.execute(query.where(TaskInstance.id.in_(part))):
            if isinstance(values := _json(text), dict):
                source_id = _id(values.get("workflow_id")) or _id(values.get("bot_id"))
                templates = values.get("workflow_template_id"), values.get("template_id")
                started = source_id is not None or templates != (None, None)
                followed = None if started else _id(values.get("browseract_task_id"))
                found[ti_id] = _Rendered(_id(values.get("browseract_conn_id")), source_id, started, followed)
    return found


def _json(text: str) -> Any:
    """Read JSON that may come from anyone. Airflow's decoder would import classes named in it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


class _Named(NamedTuple):
    """What an XCom says about a run."""

    browseract_task_id: str
    conn_id: str | None
    hidden: frozenset[str]
    api_version: ApiVersion


def _named(text: str) -> _Named | None:
    """Return the run that an XCom names; None if another operator has pushed it."""
    value = _json(text)
    if isinstance(value, str):
        # Before Airflow 3.2, workers' values are JSON text in JSON.
        value = _json(value)
    if not isinstance(value, dict) or not value.keys() >= FACTS:
        return None
    browseract_task_id, hidden = _id(value["task_id"]), value.get("hidden")
    words = frozenset(each for each in (LIVE_VIEW, SECRET_INPUTS) if isinstance(hidden, list) and each in hidden)
    if browseract_task_id is None:
        return None
    api_version = ApiVersion.of(value.get("api_version")) or ApiVersion.V2
    return _Named(browseract_task_id, _id(value.get("connection")), words, api_version)


def _id(value: Any) -> str | None:
    """Return an id that may come from anyone; None if it cannot be one."""
    text = str(value) if isinstance(value, int) else value
    return text if isinstance(text, str) and 0 < len(text) <= ID_LENGTH and text.isprintable() else None


def _add_pushed(known: _Known, row: Row[Any], named: _Named, rendered: _Rendered) -> None:
    """Add the link of an XCom."""
    # Before Airflow 3.4, the number of the try rises when it is scheduled, but its worker deletes the XCom of the try
    # before. A try that was resumed has a method, and a sensor may be rescheduled.
    of_this_try = BY_TRY or row.state not in ABOUT_TO_CONTINUE or row.next_method or not rendered.started
    key, try_number = _key(row), row.try_number if of_this_try else None
    earlier = known.get((named.browseract_task_id, key))
    if earlier is not None and rendered.conn_id is None:
        # Airflow keeps the rendered fields of the newest DAG runs only.
        link = earlier._replace(try_number=try_number, pushed_at=row.timestamp)
    else:
        follows_another = rendered.followed not in (None, named.browseract_task_id)
        confirmed = rendered.conn_id is not None and not follows_another
        conn_id = rendered.conn_id or named.conn_id
        of = named.browseract_task_id, key, try_number, conn_id, rendered.source_id
        link = Link(*of, confirmed, row.timestamp, rendered.started)
    known[named.browseract_task_id, key] = link._replace(hidden=named.hidden, api_version=named.api_version)


def _add_deferred(known: _Known, row: Row[Any], wait: Wait, conn_id: str, rendered: _Rendered) -> None:
    """Add the link of a task instance that waits for its run, or confirm it."""
    key = _key(row)
    link = known.get((wait.browseract_task_id, key))
    if link is None:
        of = wait.browseract_task_id, key, None, None, rendered.source_id
        link = Link(*of, True, row.created_date, rendered.started)
    hidden = {LIVE_VIEW: not wait.show_live_view, SECRET_INPUTS: wait.hide_goals}
    known[wait.browseract_task_id, key] = link._replace(
        try_number=row.try_number,
        conn_id=conn_id,
        confirmed=True,
        api_version=wait.api_version or ApiVersion.V2,
        hidden=link.hidden | {name for name, hide in hidden.items() if hide},
    )
