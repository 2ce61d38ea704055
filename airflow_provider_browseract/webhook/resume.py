"""Resuming a deferred task from the API server: a look, and one short transaction.

The only module of the package that touches ``airflow.models``, which is no public interface. It is imported by the
first callback; whatever goes wrong here is answered with 503, and the trigger's own questions end the wait.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger, handle_event_submit
from airflow.models.xcom import XComModel
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import insert, select, update
from sqlalchemy.orm import lazyload

from airflow_provider_browseract.runs.waiting import CORE_RACE_GRACE, End, WaitEvent, WokenBy
from airflow_provider_browseract.webhook.callback import (
    RESUMED_XCOM_PREFIX,
    TOKEN_XCOM,
    Outcome,
    WaitingTask,
    resumed_xcom,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import CursorResult
    from sqlalchemy.orm import Session

TRIGGERS = "airflow_provider_browseract.triggers."
"""Where the classes of our triggers lie."""


@dataclass(frozen=True)
class Wait:
    """A wait that a callback may end.

    :param waiting: the task instance that waits.
    :param ti_id: its primary key.
    :param trigger_id: primary key of the trigger that it waits for.
    :param arguments: the trigger's arguments.
    """

    waiting: WaitingTask
    ti_id: Any
    trigger_id: int
    arguments: dict[str, Any]


def look(waiting: WaitingTask, token_sha256: str) -> Wait | Outcome:
    """Look whether a task instance waits for a callback with this token. Changes nothing.

    :param waiting: the task instance.
    :param token_sha256: digest of the token that the callback came with.
    :returns: the wait; or, where there is none to end, why: :attr:`Outcome.UNKNOWN` if the token is not the right one.
    """
    # A session of its own: the scoped one belongs to the thread, which serves other requests too.
    with create_session(scoped=False) as session:
        found = session.execute(
            select(TaskInstance.id, TaskInstance.state, TaskInstance.next_method, Trigger)
            .outerjoin(Trigger, TaskInstance.trigger_id == Trigger.id)
            .where(
                TaskInstance.dag_id == waiting.dag_id,
                TaskInstance.run_id == waiting.run_id,
                TaskInstance.task_id == waiting.task_id,
                TaskInstance.map_index == waiting.map_index,
            )
            .options(lazyload("*"))
        ).one_or_none()
        if found is None:
            return Outcome.UNKNOWN
        ti_id, state, next_method, trigger = found
        arguments = _our_arguments(trigger) if state == TaskInstanceState.DEFERRED else None
        xcoms = _xcoms(session, waiting) if arguments is None else {}
        expected = xcoms.get(TOKEN_XCOM) if arguments is None else arguments.get(TOKEN_XCOM)
        if not isinstance(expected, str) or not hmac.compare_digest(expected.encode(), token_sha256.encode()):
            return Outcome.UNKNOWN
        if arguments is None:
            return _not_deferred(state, next_method, xcoms)
        if datetime.now(timezone.utc) - trigger.created_date < timedelta(seconds=CORE_RACE_GRACE):
            return Outcome.TOO_EARLY
        return Wait(waiting, ti_id, trigger.id, arguments)


def resume(wait: Wait) -> Outcome:
    """End a wait, in one transaction.

    :param wait: what :func:`look` found.
    :returns: :attr:`Outcome.RESUMED`, or :attr:`Outcome.ALREADY_RESUMED` if someone else was faster; nothing was
        changed then.
    """
    now = datetime.now(timezone.utc)
    with create_session(scoped=False) as session:
        if not _claim(session, wait, now):
            return Outcome.ALREADY_RESUMED
        _leave_note(session, wait, now)
        # What Trigger.submit_event does with a task instance; its look for assets of the trigger would be in vain.
        task_instance = session.scalars(select(TaskInstance).where(TaskInstance.id == wait.ti_id)).one()
        handle_event_submit(_event(wait.arguments), task_instance=task_instance, session=session)
        return Outcome.RESUMED


def _our_arguments(trigger: Trigger | None) -> dict[str, Any] | None:
    """Give the arguments of a trigger, if it is one of ours that a callback may end."""
    if trigger is None or not trigger.classpath.startswith(TRIGGERS):
        return None
    arguments: dict[str, Any] = trigger.kwargs
    return arguments if arguments.get(TOKEN_XCOM) else None


def _xcoms(session: Session, waiting: WaitingTask) -> dict[str, Any]:
    rows = session.execute(
        select(XComModel.key, XComModel.value).where(
            XComModel.dag_id == waiting.dag_id,
            XComModel.run_id == waiting.run_id,
            XComModel.task_id == waiting.task_id,
            XComModel.map_index == waiting.map_index,
            (XComModel.key == TOKEN_XCOM) | XComModel.key.startswith(RESUMED_XCOM_PREFIX, autoescape=True),
        )
    )
    return {key: _decoded(value) for key, value in rows}


def _decoded(value: Any) -> Any:
    """Read an XCom as workers write it: as JSON text, in a column that is JSON itself."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _not_deferred(state: str | None, next_method: str | None, xcoms: dict[str, Any]) -> Outcome:
    if xcoms.keys() - {TOKEN_XCOM}:
        return Outcome.ALREADY_RESUMED
    # A task that was resumed still has the method that it was resumed with.
    return Outcome.TOO_EARLY if state == TaskInstanceState.RUNNING and not next_method else Outcome.NOT_WAITING


def _claim(session: Session, wait: Wait, now: datetime) -> bool:
    """Lock the task instance, if it still waits for this trigger.

    An update that matches nothing changes nothing, and one that matches keeps the row until the transaction ends: on
    every database, and without a lock for callbacks that do not get this far.
    """
    claim = (
        update(TaskInstance)
        .where(
            TaskInstance.id == wait.ti_id,
            TaskInstance.trigger_id == wait.trigger_id,
            TaskInstance.state == TaskInstanceState.DEFERRED,
        )
        .values(updated_at=now)
        .execution_options(synchronize_session=False)
    )
    claimed = cast("CursorResult[Any]", session.execute(claim))
    return bool(claimed.rowcount)


def _leave_note(session: Session, wait: Wait, now: datetime) -> None:
    """Tell the trigger, which Airflow is about to kill, that its run is still waited for.

    As ``XComModel.set`` does, without its look for a note that could be there: no trigger is ended twice.
    """
    waiting = wait.waiting
    dag_run_id = select(DagRun.id).where(DagRun.dag_id == waiting.dag_id, DagRun.run_id == waiting.run_id)
    note = insert(XComModel).values(
        **waiting._asdict(),
        dag_run_id=dag_run_id.scalar_subquery(),
        key=resumed_xcom(wait.arguments["first_poll_at"]),
        value=XComModel.serialize_value(now.isoformat()),
    )
    session.execute(note)


def _event(arguments: dict[str, Any]) -> TriggerEvent:
    event = WaitEvent(
        arguments["browseract_task_id"],
        End.ENDED,
        arguments["deadline"],
        WokenBy.CALLBACK,
        arguments[TOKEN_XCOM],
    )
    return TriggerEvent(event.payload())  # type: ignore[no-untyped-call]
