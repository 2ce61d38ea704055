"""Resume a deferred task instance from the API server, because the callback of its run has arrived.

This takes one lookup and one short transaction.

Like ``panel/database.py``, this module uses ``airflow.models``, which is not a public interface. The first callback
imports it. Every error here leads to a 503 response, and the polls of the trigger end the wait.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select, text, update
from sqlalchemy.orm import lazyload

from airflow_provider_browseract.in_airflow.xcoms import names_of
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.callback_url import WAIT_XCOM, resumed_wait
from airflow_provider_browseract.runs.request import digest
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.wait import MAX_CALLBACKS_IN_VAIN, Wait, WaitEvent, WokenBy

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.engine import CursorResult
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

TRIGGERS = "airflow_provider_browseract.triggers."
"""Module path of our triggers."""

TOKEN_KEY = "callback_token_sha256"
"""Field of the wait that a trigger stores, with the digest of the token."""

LOCK_TIMEOUT = 5
"""Whole seconds to wait for the row of a task instance that another transaction has locked. After that, the callback
gets 503, and BrowserAct sends it again. By default, PostgreSQL waits forever and MySQL for 50 seconds, and four such
callbacks would block all others."""

AS_STORED: dict[str, Any] = {"serialize": False} if "serialize" in signature(XComModel.set).parameters else {}
"""Keyword that makes Airflow store an XCom as workers do. Without it (before Airflow 3.2) JSON text is stored."""


def resume(ti_id: UUID, token: str) -> bool:
    """End the deferral of a task instance that waits for a callback with this token.

    :returns: whether it was ended. It was not if the token is not the right one, if something else has ended the wait,
        if Airflow has accepted the deferral only a moment ago, or if several callbacks came before the end of the run.
        The polls of the trigger then end the wait.
    """
    now = datetime.now(timezone.utc)
    # Not the scoped session, because it belongs to the thread, which serves other requests too.
    with create_session(scoped=False) as session:
        # The id is a text before Airflow 3.2, and a UUID since then.
        found = session.execute(
            select(TaskInstance, Trigger)
            .join(Trigger, Trigger.id == TaskInstance.trigger_id)
            .where(TaskInstance.id == TaskInstance.id.type.python_type(str(ti_id)))
            .options(lazyload("*"))
        ).first()
        if found is None or (stored := _stored_wait(found.Trigger)) is None:
            return False
        ti, trigger = found
        if not hmac.compare_digest(str(stored[TOKEN_KEY]).encode(), digest(token).encode()):
            return False
        wait = from_json(Wait, stored)
        too_early = now - trigger.created_date < timedelta(seconds=timings.CORE_RACE_GRACE)
        if too_early or wait.callbacks_in_vain >= MAX_CALLBACKS_IN_VAIN or not _claim(session, ti.id, trigger.id, now):
            return False
        # Airflow is about to cancel the trigger. The trigger reads this and does not stop the run.
        XComModel.set(key=WAIT_XCOM, value=resumed_wait(wait), **names_of(ti), **AS_STORED, session=session)
        event = TriggerEvent(to_json(WaitEvent(wait, WokenBy.CALLBACK)))  # type: ignore[no-untyped-call]
        Trigger.submit_event(trigger.id, event, session=session)
    log.debug("A callback has resumed task instance %s.", ti_id)
    return True


def _stored_wait(trigger: Trigger) -> dict[str, Any] | None:
    """Return the wait that one of our triggers has stored, if a callback may end it. Decrypting it is slow."""
    if not trigger.classpath.startswith(TRIGGERS):
        return None
    try:
        stored = trigger.kwargs.get("wait")
    except Exception:  # noqa: BLE001 - another key has encrypted it, and no token can be compared
        return None
    return stored if isinstance(stored, dict) and stored.get(TOKEN_KEY) else None


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
