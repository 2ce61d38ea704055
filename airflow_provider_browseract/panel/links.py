"""What Airflow's database knows about runs: which task instance has which run, which ones wait, and the queue.

Like ``database.py``, this module uses ``airflow.models``, and its functions block.

The XCom ``task`` links a task instance to its run. People may edit it, operators of others may use the same key, and a
custom XCom backend stores a reference in its place. So only its proof makes the run one of the task instance
(:meth:`Link.is_proven`). What a trigger has stored is certain.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import and_, func, select
from sqlalchemy.orm import lazyload

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.in_airflow.hiding import LIVE_VIEW, SECRET_INPUTS
from airflow_provider_browseract.in_airflow.xcoms import names_of
from airflow_provider_browseract.panel import database
from airflow_provider_browseract.panel.database import (
    BY_TRY,
    KEY,
    LISTED,
    MAX_JSON,
    RUN_XCOM,
    VALUE,
    XCOM,
    TaskInstanceKey,
    key_of,
)
from airflow_provider_browseract.queue.queueing import QueueWait
from airflow_provider_browseract.runs.proof import OF_RUN, is_proven, prove_run
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.wait import Wait
from airflow_provider_browseract.spending.budget import begin_of

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.orm import Session

RUN_TRIGGER = "airflow_provider_browseract.triggers.task.TaskTrigger"
"""Class path of the trigger of a task instance that waits for a run."""

SLOT_TRIGGER = "airflow_provider_browseract.triggers.slot.SlotTrigger"
"""Class path of the trigger of a task instance that waits for a slot."""

MAX_AGE = 5.0
"""Seconds for which :class:`Recent` returns the same."""

OLDEST = 30.0
"""Seconds after which nobody gets old records, as after a time without viewers."""

RARELY = 10.0
"""What takes long to read, such as tens of thousands of XComs, is kept so many times as long, up to :data:`OLDEST`."""

MAX_DEFERRED = 5_000
"""How many waits for runs and for slots are read; those that were deferred first."""

MAX_PROOFS = 2 * database.MAX_LINKS
"""How many proofs are kept with their results, because each page needs them again."""

PROOF_LENGTH = 64
"""Characters of a proof. Others prove nothing, and are not kept."""

FACTS = {"task_id", "workflow_id", "status"}
"""Keys of these facts by which the XCom is distinguished from that of another operator."""

ABOUT_TO_CONTINUE = (TaskInstanceState.SCHEDULED, TaskInstanceState.QUEUED)

MAY_WAIT = (
    *ABOUT_TO_CONTINUE,
    TaskInstanceState.RUNNING,
    TaskInstanceState.DEFERRED,
    TaskInstanceState.UP_FOR_RESCHEDULE,
    TaskInstanceState.UP_FOR_RETRY,
)
"""States in which a task instance waits for the newest run that it has named. The next try reattaches to the run of the
last one. If it could not do that, the run would have been stopped."""


class Link(NamedTuple):
    """A task instance and a run that its XCom or its trigger names.

    :param try_number: the try that has the run; None if that is not known.
    :param conn_id: the connection; None if the XCom names none.
    :param api_version: the version of the API that knows the run.
    :param follows: the task instance has not started the run, and only waits for it, as a sensor does.
    :param hidden: what must not be shown of the run, in the words of the XCom.
    :param proof: what the XCom has as the proof of the fields above.
    :param pushed_at: timestamp of the XCom, or when the trigger was created.
    :param waits: the task instance waits for the run now.
    :param wait: how it waits, as its trigger states; None for the link of an XCom.
    :param required_action: a Required Action waits for an answer.
    """

    browseract_task_id: str
    key: TaskInstanceKey
    try_number: int | None
    conn_id: str | None
    api_version: ApiVersion
    follows: bool
    hidden: tuple[str, ...]
    proof: str
    pushed_at: datetime
    waits: bool = False
    wait: Wait | None = None
    required_action: bool = False

    def is_proven(self, conn_id: str, api_key: str | None) -> bool:
        """Return whether the run is one of the task instance, in the account of a connection.

        The proof of an XCom shows the account by itself, so that another connection with the same key will do.

        :param api_key: that of the connection; None if it cannot be read.
        """
        if self.wait is not None:
            return self.conn_id == conn_id
        stated = self.conn_id, self.api_version.value, self.browseract_task_id, self.follows, self.hidden
        return bool(api_key and self.proof) and _has_proof(api_key, self.key, self.proof, stated)


@lru_cache(MAX_PROOFS)
def _has_proof(api_key: str, key: TaskInstanceKey, proof: str, stated: tuple[Any, ...]) -> bool:
    """Return whether a proof is that of what an XCom of a task instance states, in the order of ``OF_RUN``."""
    return is_proven(prove_run(api_key, names_of(key), dict(zip(OF_RUN, stated, strict=True))), proof)


class QueueEntry(NamedTuple):
    """A task instance that waits for a slot or for the budget of the account."""

    key: TaskInstanceKey
    conn_id: str
    wait: QueueWait


@dataclass(frozen=True)
class Records:
    """What Airflow's database knows at a moment.

    :param links: by the ids of their runs, what each task instance claims: those of triggers first, then the newest.
    :param queue: all who wait for slots, with any connection, in the order of their places. Those of paused DAGs and
        those that wait for the budget are included.
    :param unreadable: a task instance that may wait has an XCom that is stored elsewhere, by a custom XCom backend.
    :param incomplete: so many task instances may wait that not all were read.
    """

    links: dict[str, list[Link]] = field(default_factory=dict)
    queue: tuple[QueueEntry, ...] = ()
    unreadable: bool = False
    incomplete: bool = False

    def of_run(self, task_id: str) -> list[Link]:
        """Return what all task instances claim about a run."""
        return self.links.get(task_id, [])

    def proven(self, task_id: str, conn_id: str, api_key: str | None) -> list[Link]:
        """Return the links of a run that are proven, those of task instances that have started it first."""
        proven = [link for link in self.of_run(task_id) if link.is_proven(conn_id, api_key)]
        return sorted(proven, key=lambda link: link.follows)

    def of_instance(self, key: TaskInstanceKey) -> list[Link]:
        """Return the links of a task instance: of the run that its trigger names, then the newest."""
        return _ordered(link for links in self.links.values() for link in links if link.key == key)


def _ordered(links: Iterable[Link]) -> list[Link]:
    return sorted(links, key=lambda link: (link.wait is not None, link.pushed_at), reverse=True)


TriggerKey: TypeAlias = "tuple[int, datetime]"
"""Id and creation time of a trigger. Databases reuse ids."""

T = TypeVar("T")
W = TypeVar("W")


class StoredWaits(Generic[W]):
    """What triggers have stored, without those that cannot be read.

    A stored trigger never changes, and decrypting it is slow, so each is read once.

    :param kind: class of the waits.
    """

    def __init__(self, kind: type[W]) -> None:
        self._kind = kind
        # Other threads replace the whole dict.
        self._read: dict[TriggerKey, tuple[str, W] | None] = {}

    def of(self, session: Session, triggers: Set[TriggerKey]) -> dict[TriggerKey, tuple[str, W]]:
        """Return connection and wait of each trigger that can be read, and forget all others."""
        known = {key: found for key, found in self._read.items() if key in triggers}
        for part in database.in_parts(trigger_id for trigger_id, _ in triggers - known.keys()):
            for trigger in session.scalars(select(Trigger).options(lazyload("*")).where(Trigger.id.in_(part))):
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


class Recent(Generic[T]):
    """What is read from the database, in any number of threads, and kept for a moment."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read, self._reading = read, threading.Lock()
        self._found: Any = None
        self._read_at, self._took = float("-inf"), 0.0

    def get(self) -> T:
        """Return what is a few seconds old at most.

        While a thread reads, others get what it has read before, unless that is older than :data:`OLDEST`.

        :raises Exception: the read failed. The next call tries again.
        """
        limit = max(MAX_AGE, min(RARELY * self._took, OLDEST))
        if self._age() >= limit and self._reading.acquire(blocking=self._age() > OLDEST):
            try:
                if self._age() >= limit:
                    began = time.monotonic()
                    self._found, self._read_at = self._read(), time.monotonic()
                    self._took = self._read_at - began
            finally:
                self._reading.release()
        found: T = self._found
        return found

    def _age(self) -> float:
        return time.monotonic() - self._read_at


class RecordReader:
    """Reads records. What triggers have stored is read once."""

    def __init__(self) -> None:
        self._waits, self._queue = StoredWaits(Wait), StoredWaits(QueueWait)

    def read(self) -> Records:
        """Read what Airflow's database knows now."""
        since = datetime.now(timezone.utc) - LISTED
        with create_session(scoped=False) as session:
            runs, slots = _deferred(session, RUN_TRIGGER), _deferred(session, SLOT_TRIGGER)
            waits, places = self._waits.of(session, runs.keys()), self._queue.of(session, slots.keys())
            # After the triggers, so that nobody who stops or begins to be deferred is missed.
            waiting = _waiting(session)
            rows = waiting + database.pushed(session, XCOM.timestamp >= since)
            rows.sort(key=lambda row: row.timestamp, reverse=True)
            active = _active(session, {row.dag_id for row in rows})
        incomplete = max(len(waiting), len(active)) >= database.MAX_LINKS or len(runs) >= MAX_DEFERRED
        # A trigger states what is waited for. If it cannot be read here, the XCom has to do.
        active -= {key_of(runs[trigger]) for trigger in waits} | {*map(key_of, slots.values())}
        found = [_deferred_link(runs[trigger], *stored) for trigger, stored in waits.items()]
        links: dict[str, list[Link]] = {}
        for link in _ordered(found + _links(rows, active)):
            links.setdefault(link.browseract_task_id, []).append(link)
        queue = [QueueEntry(key_of(slots[trigger]), *stored) for trigger, stored in places.items()]
        queue.sort(key=lambda entry: (entry.wait.queued.place, entry.key))
        unreadable = any(database.is_reference(row.value) for row in rows if key_of(row) in active)
        return Records(links, tuple(queue), unreadable, incomplete)


def links_of(key: TaskInstanceKey) -> list[Link]:
    """Return the runs of a task instance whatever their age, newest first, but not whether it waits for them."""
    if not key.fits:
        return []
    with create_session(scoped=False) as session:
        rows = database.pushed(session, database.is_of(XCOM, key))
    return _links(rows, set())


def dags_on(day: date, conn_id: str, api_key: str) -> dict[str, str]:
    """Return the DAGs of an account's runs whose XComs were pushed on a day (UTC) or on the next one."""
    begin = begin_of(day)
    with create_session(scoped=False) as session:
        rows = database.pushed(session, XCOM.timestamp >= begin, XCOM.timestamp < begin + timedelta(days=2))
    found = [link for link in _links(rows, set()) if link.is_proven(conn_id, api_key)]
    # That of the task instance that has started a run, if both are known.
    found.sort(key=lambda link: not link.follows)
    return {link.browseract_task_id: link.key.dag_id for link in found}


def _waiting(session: Session) -> list[Row[Any]]:
    """Return the XComs of runs that may be waited for, whatever their age, newest first."""
    query = database.with_xcom(XCOM.timestamp, VALUE).select_from(TaskInstance).join(XCOM, database.of_instance(XCOM))
    # Not by the index of the key: SQLite would otherwise begin with all XComs, and not with these few task instances.
    is_of_run = func.coalesce(XCOM.key, "") == RUN_XCOM
    query = query.where(TaskInstance.state.in_(MAY_WAIT), is_of_run)
    query = query.where(func.length(VALUE) <= MAX_JSON).order_by(XCOM.timestamp.desc()).limit(database.MAX_LINKS)
    return list(session.execute(query))


def _active(session: Session, dag_ids: Iterable[str]) -> set[TaskInstanceKey]:
    """Return the task instances of some DAGs that may wait for a run."""
    found = set()
    query = select(*KEY).where(TaskInstance.state.in_(MAY_WAIT)).limit(database.MAX_LINKS)
    for part in database.in_parts(dag_ids):
        found |= {*map(key_of, session.execute(query.where(TaskInstance.dag_id.in_(part))))}
    return found


def _deferred(session: Session, classpath: str) -> dict[TriggerKey, Row[Any]]:
    """Return the task instances that wait for a kind of trigger, by their triggers."""
    query = (
        select(*KEY, TaskInstance.try_number, Trigger.created_date, HITLDetail.ti_id.label("asked"))
        .add_columns(Trigger.id.label("trigger_id"))
        .select_from(Trigger)
        .join(TaskInstance, TaskInstance.trigger_id == Trigger.id)
        .outerjoin(HITLDetail, and_(HITLDetail.ti_id == TaskInstance.id, HITLDetail.responded_at.is_(None)))
        .where(Trigger.classpath == classpath, TaskInstance.state == TaskInstanceState.DEFERRED)
        .order_by(Trigger.created_date)
        .limit(MAX_DEFERRED)
    )
    return {(row.trigger_id, row.created_date): row for row in session.execute(query)}


def _deferred_link(row: Row[Any], conn_id: str, wait: Wait) -> Link:
    """Return the link of a task instance that waits for a run in the triggerer."""
    version = wait.api_version or ApiVersion.V2
    asked = wait.required_action is not None and row.asked is not None
    hidden = {LIVE_VIEW: not wait.show_live_view, SECRET_INPUTS: wait.hide_goals}
    stated = conn_id, version, wait.follows, tuple(name for name, hide in hidden.items() if hide), ""
    return Link(wait.browseract_task_id, key_of(row), row.try_number, *stated, row.created_date, True, wait, asked)


def _links(rows: Iterable[Row[Any]], active: Set[TaskInstanceKey]) -> list[Link]:
    """Return the links of XComs, without those of other operators.

    :param rows: the newest first.
    :param active: who waits for the newest run that it has named.
    """
    found: dict[tuple[str, TaskInstanceKey], Link] = {}
    named = set[TaskInstanceKey]()
    for row in rows:
        key, stated = key_of(row), database.stated_in(row.value)
        task_id = database.id_in(stated.get("task_id"))
        if task_id is None or not stated.keys() >= FACTS:
            continue
        hidden, proof = stated.get("hidden"), stated.get("proof")
        words = [word for word in (hidden if isinstance(hidden, list) else ()) if word in (LIVE_VIEW, SECRET_INPUTS)]
        # What we do not write proves nothing, and is not kept.
        is_ours = hidden == words and isinstance(proof, str) and len(proof) == PROOF_LENGTH
        link = Link(
            task_id,
            key,
            # Before Airflow 3.4, the number of the try rises when it is scheduled, but its worker deletes the XCom of
            # the try before.
            row.try_number if BY_TRY or row.state not in ABOUT_TO_CONTINUE else None,
            database.id_in(stated.get("connection")),
            ApiVersion.of(stated.get("api_version")) or ApiVersion.V2,
            stated.get("follows") is True,
            tuple(words),
            str(proof) if is_ours else "",
            row.timestamp,
            key in active and key not in named,
        )
        named.add(key)
        found.setdefault((task_id, key), link)
    return [*found.values()]
