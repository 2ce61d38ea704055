"""Resume deferred task instances from the API server: one whose run has ended, and the next one that waits for a slot.

Each takes one lookup and one short transaction.

Like ``panel/database.py``, this module uses ``airflow.models``, which is not a public interface. The first callback
imports it. Every error here leads to a 503 response, and the polls of the trigger end the wait.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from inspect import signature
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

from airflow.models.dag import DagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.variable import Variable
from airflow.models.xcom import XComModel
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select, text, update
from sqlalchemy.orm import lazyload

from airflow_provider_browseract.compat import count
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.callback_url import (
    CHECK_VARIABLE,
    TOKEN_KEY,
    WAIT_XCOM,
    CallbackOutcome,
    TaskInstanceKey,
    resumed_wait,
)
from airflow_provider_browseract.runs.queueing import Candidate, QueueWait, hand_over_order
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.waiting import MAX_CALLBACKS_IN_VAIN, End, Wait, WokenBy
from airflow_provider_browseract.webhook.overload import RareLog

log = logging.getLogger(__name__)
rare_log = RareLog(log)

if TYPE_CHECKING:
    from sqlalchemy.engine import CursorResult
    from sqlalchemy.orm import Session

TRIGGERS = "airflow_provider_browseract.triggers."
"""Module path of our triggers."""

RUN_TRIGGER = f"{TRIGGERS}run.TaskTrigger"
"""Class path of the trigger of a task instance that waits for a run."""

SLOT_TRIGGER = f"{TRIGGERS}slot.SlotTrigger"
"""Class path of the trigger of a task instance that waits for a slot."""

QUEUED_METHOD = "execute_queued"
"""Method of the operator with which such a task instance is resumed."""

TEAM_NAME: Any = getattr(Trigger, "team_name", None)
"""Column of a trigger with its team; None where Airflow has no teams. The same connection id can be another account for
each team."""

READ_AT_ONCE = 500
"""How many rows are read by their ids with one statement."""

LOCK_TIMEOUT = 5
"""Whole seconds to wait for the row of a task instance that another transaction has locked. After that, the callback
gets 503, and BrowserAct sends it again. By default, PostgreSQL waits forever and MySQL for 50 seconds, and four such
callbacks would block all others."""

AS_STORED: dict[str, Any] = {"serialize": False} if "serialize" in signature(XComModel.set).parameters else {}
"""Keyword that makes Airflow store an XCom as workers do. Without it (before Airflow 3.2) JSON text is stored."""


@dataclass(frozen=True)
class Deferral:
    """A deferral that a callback may end.

    :param trigger_id: primary key of the trigger that it waits for.
    """

    key: TaskInstanceKey
    ti_id: Any
    trigger_id: int
    conn_id: str
    team: str | None
    wait: Wait


def find_deferral(key: TaskInstanceKey, token_sha256: str) -> Deferral | CallbackOutcome:
    """Return the deferral that a callback with this token may end, without changing anything.

    :param token_sha256: digest of the token in the address of the callback.
    :returns: the deferral, or the reason why there is none to end: :attr:`CallbackOutcome.UNKNOWN` if the token is
        not the right one, and :attr:`CallbackOutcome.CHECKED` for the callback of the command ``check``.
    """
    # Not the scoped session, because it belongs to the thread, which serves other requests too.
    with create_session(scoped=False) as session:
        if key.is_check:
            return CallbackOutcome.CHECKED if _sent_by_check(session, key, token_sha256) else CallbackOutcome.UNKNOWN
        # From Airflow 3.4 on, the table has a row for each try. This function finds the current one.
        ti = TaskInstance.get_task_instance(**key._asdict(), session=session)
        if ti is None:
            return CallbackOutcome.UNKNOWN
        trigger = _our_trigger(session, ti)
        if trigger is None:
            described = _wait_xcom(session, key)
            return _not_deferred(ti, described) if _matches(described, token_sha256) else CallbackOutcome.UNKNOWN
        stored: dict[str, Any] = trigger.kwargs["wait"]
        if not _matches(stored, token_sha256):
            return CallbackOutcome.UNKNOWN
        wait = from_json(Wait, stored)
        if wait.callbacks_in_vain >= MAX_CALLBACKS_IN_VAIN:
            return CallbackOutcome.IGNORED
        if datetime.now(timezone.utc) - trigger.created_date < timedelta(seconds=timings.CORE_RACE_GRACE):
            return CallbackOutcome.TOO_EARLY
        team = getattr(trigger, "team_name", None)
        return Deferral(key, ti.id, trigger.id, trigger.kwargs["browseract_conn_id"], team, wait)


def resume(deferral: Deferral) -> CallbackOutcome:
    """End a deferral in one transaction, and then hand its slot over in another one.

    :returns: :attr:`CallbackOutcome.RESUMED`, or :attr:`CallbackOutcome.ALREADY_RESUMED` if something else has ended
        the wait since then; nothing was changed in that case.
    """
    now = datetime.now(timezone.utc)
    with create_session(scoped=False) as session:
        if not _claim(session, deferral.ti_id, deferral.trigger_id, now):
            return CallbackOutcome.ALREADY_RESUMED
        # Airflow is about to cancel the trigger. The trigger reads this and does not stop the run.
        described = resumed_wait(deferral.wait)
        XComModel.set(key=WAIT_XCOM, value=described, **deferral.key._asdict(), **AS_STORED, session=session)
        event = WaitEvent(deferral.wait, End.ENDED, WokenBy.CALLBACK)
        payload = to_json(event)
        Trigger.submit_event(deferral.trigger_id, TriggerEvent(payload), session=session)  # type: ignore[no-untyped-call]
    try:
        woken = hand_over(deferral.conn_id, deferral.wait.key_digest, deferral.team)
    except Exception as error:  # noqa: BLE001 - the task itself is resumed, and the triggerer finds the free slot
        rare_log.error("A free slot could not be handed over", error, "The triggerer finds it instead.")
    else:
        if woken is not None:
            count("browseract.slots.handed_over")
            log.info("Slot of connection %r handed over to %s", deferral.conn_id, woken)
    return CallbackOutcome.RESUMED


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


_queue = StoredWaits(QueueWait)
"""The waits of the queue. The triggers of those that cannot be read here find a free slot themselves."""


def hand_over(conn_id: str, key_digest: str | None = None, team: str | None = None) -> TaskInstanceKey | None:
    """Wake the next task instance in the queue of an API key, because a run has ended.

    This is only a hint. The worker asks BrowserAct for the slot. If something else has taken it, the task instance
    returns to its place.

    :param key_digest: digest of its API key, if it is known.
    :returns: the task instance that was woken; None if none waits that can start.
    """
    now = datetime.now(timezone.utc)
    with create_session(scoped=False) as session:
        waiting = _waiting(session, now - timedelta(seconds=timings.CORE_RACE_GRACE), team)
        queue = {
            trigger: Candidate(wait, of, waiting[trigger][1].dag_id, (now - trigger[1]).total_seconds())
            for trigger, (of, wait) in _queue.read(waiting.keys(), _queue.unread(session, waiting.keys())).items()
            if not wait.waits_for_budget(now.timestamp())
        }
        late_dags = _late_dags(session, now - timedelta(seconds=timings.FOLLOW_DELAY)) if queue else set()
        for trigger in hand_over_order(queue, conn_id, key_digest, late_dags):
            ti_id, key = waiting[trigger]
            if _is_unlocked(session, ti_id) and _claim(session, ti_id, trigger[0], now):
                event = TriggerEvent(to_json(queue[trigger].wait.queued))  # type: ignore[no-untyped-call]
                Trigger.submit_event(trigger[0], event, session=session)
                return key
    return None


def _is_unlocked(session: Session, ti_id: Any) -> bool:
    """Lock a task instance, unless something else has locked it.

    A hand-over never waits for a lock: the next one in the queue can have the slot as well. SQLite locks no rows.
    """
    query = select(TaskInstance.id).where(TaskInstance.id == ti_id).with_for_update(skip_locked=True)
    return session.scalar(query) is not None


def _waiting(
    session: Session, deferred_before: datetime, team: str | None
) -> dict[TriggerKey, tuple[Any, TaskInstanceKey]]:
    """Return the task instances that wait for slots, with their primary keys, by their triggers.

    Airflow does not start those of a paused DAG.
    """
    columns = TaskInstance.id, TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index
    query = (
        select(Trigger.id, Trigger.created_date, *columns)
        .join(TaskInstance, TaskInstance.trigger_id == Trigger.id)
        .join(DagModel, DagModel.dag_id == TaskInstance.dag_id)
        .where(
            Trigger.classpath == SLOT_TRIGGER,
            Trigger.created_date <= deferred_before,
            TaskInstance.state == TaskInstanceState.DEFERRED,
            ~DagModel.is_paused,
        )
    )
    if TEAM_NAME is not None:
        query = query.where(TEAM_NAME.is_(None) if team is None else TEAM_NAME.in_([team]))
    return {(row[0], row[1]): (row[2], TaskInstanceKey(*row[3:])) for row in session.execute(query)}


def _late_dags(session: Session, resumed_before: datetime) -> set[str]:
    """Return the DAGs of which Airflow does not start a task instance that was resumed, as when its pool is full."""
    query = select(TaskInstance.dag_id).where(
        TaskInstance.state == TaskInstanceState.SCHEDULED,
        TaskInstance.next_method == QUEUED_METHOD,
        TaskInstance.updated_at <= resumed_before,
    )
    return set(session.scalars(query.distinct()))


def _our_trigger(session: Session, ti: TaskInstance) -> Trigger | None:
    """Return the trigger that a task instance waits for, if a callback may end that trigger."""
    if ti.state != TaskInstanceState.DEFERRED or ti.trigger_id is None:
        return None
    trigger = session.get(Trigger, ti.trigger_id, options=[lazyload("*")])
    if trigger is None or not trigger.classpath.startswith(TRIGGERS):
        return None
    stored = trigger.kwargs.get("wait")
    return trigger if isinstance(stored, dict) and stored.get(TOKEN_KEY) else None


def _wait_xcom(session: Session, key: TaskInstanceKey) -> dict[str, Any]:
    """Return the XCom that describes the wait, or an empty dict if there is none."""
    query = XComModel.get_many(
        run_id=key.run_id,
        key=WAIT_XCOM,
        task_ids=key.task_id,
        dag_ids=key.dag_id,
        map_indexes=key.map_index,
        limit=1,
    )
    found = session.scalars(query).first()
    value = None if found is None else found.value
    if isinstance(value, str):
        # Not with Airflow's decoder, because it would import classes named in the text.
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def _sent_by_check(session: Session, key: TaskInstanceKey, token_sha256: str) -> bool:
    """Return whether the command ``check`` of an Airflow with this database has sent the callback."""
    # The table instead of the model, which would decrypt the value and mask it in logs.
    table = Variable.__table__
    expected = session.scalar(select(table.c.val).where(table.c.key == CHECK_VARIABLE + key.run_id))
    return _is_digest(expected, token_sha256)


def _matches(described: dict[str, Any], token_sha256: str) -> bool:
    """Return whether the wait of a trigger, or the XCom of a wait, names this digest."""
    return _is_digest(described.get(TOKEN_KEY), token_sha256)


def _is_digest(expected: Any, token_sha256: str) -> bool:
    return isinstance(expected, str) and hmac.compare_digest(expected.encode(), token_sha256.encode())


def _not_deferred(ti: TaskInstance, wait: dict[str, Any]) -> CallbackOutcome:
    if wait.get("woken_by") == WokenBy.CALLBACK.value:
        return CallbackOutcome.ALREADY_RESUMED
    # A task instance that was resumed still has the method that it was resumed with.
    return (
        CallbackOutcome.TOO_EARLY
        if ti.state == TaskInstanceState.RUNNING and not ti.next_method
        else CallbackOutcome.NOT_WAITING
    )


def _claim(session: Session, ti_id: Any, trigger_id: int, now: datetime) -> bool:
    """Lock a task instance, if it still waits for a certain trigger.

    An update that matches no row changes nothing. One that matches locks the row until the transaction ends, on every
    database. Callbacks that do not get this far lock nothing.
    """
    claim = (
        update(TaskInstance)
        .where(
            TaskInstance.id == ti_id,
            TaskInstance.trigger_id == trigger_id,
            TaskInstance.state == TaskInstanceState.DEFERRED,
        )
        .values(updated_at=now)
        .execution_options(synchronize_session=False)
    )
    with _lock_timeout(session):
        claimed = cast("CursorResult[Any]", session.execute(claim))
    return bool(claimed.rowcount)


@contextmanager
def _lock_timeout(session: Session) -> Iterator[None]:
    """Wait for locks for at most :data:`LOCK_TIMEOUT`. On PostgreSQL this applies until the transaction ends."""
    dialect = session.get_bind().dialect.name
    if dialect == "postgresql":
        session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'"))
    elif dialect == "mysql":
        session.execute(text(f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT}"))
    try:
        yield
    finally:
        # The connection goes back to Airflow's pool.
        if dialect == "mysql":
            session.execute(text("SET SESSION innodb_lock_wait_timeout = DEFAULT"))
