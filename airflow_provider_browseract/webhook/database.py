"""Resume deferred task instances from the API server: one whose run has ended, and the next one that waits for a slot.

Each takes one lookup and one short transaction.

Like ``panel/database.py``, this module uses ``airflow.models``, which is not a public interface. The first callback
imports it. Every error here leads to a 503 response, and the polls of the trigger end the wait.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from inspect import signature
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

from airflow.models.dag import DagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select, text, update
from sqlalchemy.orm import lazyload

from airflow_provider_browseract.compat import count
from airflow_provider_browseract.in_airflow.xcoms import TaskInstanceKey
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.callback_url import WAIT_XCOM, resumed_wait
from airflow_provider_browseract.runs.queueing import Candidate, QueueWait, hand_over_order
from airflow_provider_browseract.runs.request import digest
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.wait import MAX_CALLBACKS_IN_VAIN, Wait, WaitEvent, WokenBy

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.engine import CursorResult
    from sqlalchemy.orm import Session

TRIGGERS = "airflow_provider_browseract.triggers."
"""Module path of our triggers."""

RUN_TRIGGER = f"{TRIGGERS}run.TaskTrigger"
"""Class path of the trigger of a task instance that waits for a run."""

TOKEN_KEY = "callback_token_sha256"
"""Field of the wait that a trigger stores, with the digest of the token."""

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


def resume(ti_id: UUID, token: str) -> bool:
    """End the deferral of a task instance that waits for a callback with this token, and then hand its slot over.

    :returns: whether it was ended. It was not if the token is not the right one, if something else has ended the wait,
        if Airflow has accepted the deferral only a moment ago, or if several callbacks came before the end of the run.
        The polls of the trigger then end the wait.
    """
    now = datetime.now(timezone.utc)
    # Not the scoped session, because it belongs to the thread, which serves other requests too.
    with create_session(scoped=False) as session:
        # The id is a text before Airflow 3.2, and a UUID since then.
        ti = session.get(TaskInstance, TaskInstance.id.type.python_type(str(ti_id)), options=[lazyload("*")])
        found = None if ti is None else _our_trigger(session, ti)
        if ti is None or found is None:
            return False
        trigger, kwargs = found
        stored = kwargs["wait"]
        if not hmac.compare_digest(str(stored[TOKEN_KEY]).encode(), digest(token).encode()):
            return False
        wait = from_json(Wait, stored)
        too_early = now - trigger.created_date < timedelta(seconds=timings.CORE_RACE_GRACE)
        if too_early or wait.callbacks_in_vain >= MAX_CALLBACKS_IN_VAIN:
            return False
        if not _claim(session, ti.id, trigger.id, now):
            return False
        # Airflow is about to cancel the trigger. The trigger reads this and does not stop the run.
        key = TaskInstanceKey(*(getattr(ti, name) for name in TaskInstanceKey._fields))
        XComModel.set(key=WAIT_XCOM, value=resumed_wait(wait), **key._asdict(), **AS_STORED, session=session)
        event = TriggerEvent(to_json(WaitEvent(wait, WokenBy.CALLBACK)))  # type: ignore[no-untyped-call]
        Trigger.submit_event(trigger.id, event, session=session)
        conn_id, team = kwargs["browseract_conn_id"], getattr(trigger, "team_name", None)
    log.info("Callback for %s: resumed", key)
    try:
        woken = hand_over(conn_id, wait.key_digest, team)
    except Exception as error:  # noqa: BLE001 - the task itself is resumed, and the triggerer finds the free slot
        log.error("A free slot could not be handed over (%s). The triggerer finds it instead.", type(error).__name__)
    else:
        if woken is not None:
            count("browseract.slots.handed_over")
            log.info("Slot of connection %r handed over to %s", conn_id, woken)
    return True


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


def _our_trigger(session: Session, ti: TaskInstance) -> tuple[Trigger, dict[str, Any]] | None:
    """Return the trigger that a task instance waits for, and its arguments, if a callback may end that trigger.

    Each read of the arguments decrypts them, which is slow.
    """
    if ti.state != TaskInstanceState.DEFERRED or ti.trigger_id is None:
        return None
    trigger = session.get(Trigger, ti.trigger_id, options=[lazyload("*")])
    if trigger is None or not trigger.classpath.startswith(TRIGGERS):
        return None
    try:
        kwargs = trigger.kwargs
        stored = kwargs.get("wait")
    except Exception:  # noqa: BLE001 - another key has encrypted it, and no token can be compared
        return None
    return (trigger, kwargs) if isinstance(stored, dict) and stored.get(TOKEN_KEY) else None


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
