"""Which task instances of our operators have failed lately, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import and_, or_, select

from airflow_provider_browseract.in_airflow.links import PanelLink
from airflow_provider_browseract.panel.database import (
    KEY,
    LISTED,
    XCOM,
    TaskInstanceKey,
    in_parts,
    key_of,
    of_instance,
    pushed,
    stated_in,
)
from airflow_provider_browseract.runs.routes import OPERATORS, SENSOR
from airflow_provider_browseract.runs.stored import Text, from_json
from airflow_provider_browseract.worker.showing import FAILURE_LENGTH, FAILURE_XCOM

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session

MAX_FAILURES = 5_000
"""How many failed task instances are read; the newest ones."""

FAILED = (TaskInstanceState.FAILED, TaskInstanceState.UP_FOR_RETRY)


@dataclass(frozen=True)
class Source:
    """What was to be run, as an XCom ``failure`` names it."""

    kind: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Failure:
    """What an XCom ``failure`` states. People may edit it.

    :param kind: name of the class of the error.
    :param task_id: the BrowserAct task; None if the run was not started, or if that is not known.
    :param started: the run was started, or may have been.
    """

    reason: Text
    kind: Text
    remedy: str | None = None
    connection: str | None = None
    source: Source | None = None
    task_id: str | None = None
    started: bool = False


class FailedTry(NamedTuple):
    """A task instance whose newest try has failed.

    :param retries: another try follows.
    :param failure: why it has failed; None if only Airflow's log has the reason, as of a try that was killed.
    """

    key: TaskInstanceKey
    try_number: int
    ended: datetime
    retries: bool
    failure: Failure | None


def failed_tries() -> list[FailedTry]:
    """Return the task instances of our operators that have failed in the last 24 hours, the newest first.

    They are known by the names of our operators, and those of subclasses by the XCom ``failure``. The sensor of another
    provider may have the same name as ours, so that one needs an XCom of ours. A task instance that has succeeded in a
    later try is not among them.
    """
    since = datetime.now(timezone.utc) - LISTED
    of_sensor = XCOM.key.in_([FAILURE_XCOM, PanelLink().xcom_key])
    with_xcom = and_(TaskInstance.operator == SENSOR, select(XCOM.key).where(of_instance(XCOM), of_sensor).exists())
    names = [name for name in OPERATORS if name != SENSOR]
    ours = or_(TaskInstance.operator.in_(names), TaskInstance.custom_operator_name.in_(names), with_xcom)
    with create_session(scoped=False) as session:
        rows = pushed(session, XCOM.timestamp >= since, xcom=FAILURE_XCOM)
        stated = {row.id: failure for row in rows if (failure := _failure(row.value))}
        found = {row.id: row for row in _failed(session, since, ours)}
        for part in in_parts(stated.keys() - found.keys()):
            found |= {row.id: row for row in _failed(session, since, TaskInstance.id.in_(part))}
    # From Airflow 3.4 on, a task instance that is up for retry has the id and the number of its next try already.
    by_try = {(key_of(row), row.try_number): stated[row.id] for row in reversed(rows) if row.id in stated}
    tries = []
    for row in found.values():
        retries = row.state == TaskInstanceState.UP_FOR_RETRY
        failure = by_try.get((key_of(row), row.try_number))
        if failure is None and retries:
            failure = by_try.get((key_of(row), row.try_number - 1))
        tries.append(FailedTry(key_of(row), row.try_number, row.end_date, retries, failure))
    return sorted(tries, key=lambda each: each.ended, reverse=True)[:MAX_FAILURES]


def _failed(session: Session, since: datetime, condition: ColumnElement[bool]) -> list[Row[Any]]:
    query = select(*KEY, TaskInstance.id, TaskInstance.try_number, TaskInstance.state, TaskInstance.end_date)
    query = query.where(TaskInstance.state.in_(FAILED), TaskInstance.end_date >= since, condition)
    return list(session.execute(query.order_by(TaskInstance.end_date.desc()).limit(MAX_FAILURES)))


def _failure(text: str) -> Failure | None:
    try:
        stated = from_json(Failure, stated_in(text))
    except ValueError:
        return None
    # As long as workers make them.
    reason, remedy = stated.reason[:FAILURE_LENGTH], (stated.remedy or "")[:FAILURE_LENGTH]
    return replace(stated, reason=reason, remedy=remedy or None)
