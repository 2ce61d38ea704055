"""How Airflow's database is read: XComs with their task instances, and whether there is something.

Like ``webhook/database.py``, it uses ``airflow.models``, which is not a public interface. The functions block, so the
panel calls them in its own threads. They read at most a limited number of rows, and only what they need.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models import xcom as xcoms
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import Text as TextColumn
from sqlalchemy import and_, cast, func, select

from airflow_provider_browseract.compat import conf
from airflow_provider_browseract.hooks.connection import CONNECTION_TYPE
from airflow_provider_browseract.runs.stored import storable

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row, Select
    from sqlalchemy.orm import Session

ID_LENGTH = 250
"""Characters that Airflow's database columns allow for the ids of DAG, run and task."""

READ_AT_ONCE = 500
"""How many rows are read by their ids with one statement."""

LISTED = timedelta(hours=24)
"""How long ended runs and failures are listed, and how old XComs may be that lists need."""

MAX_LINKS = 20_000
"""How many XComs are read at once; the newest ones."""

MAX_JSON = 8_000
"""Characters of an XCom. Longer ones are not read."""

MAX_CONNECTIONS = 1_000

RUN_XCOM = "task"
"""XCom with the facts about the run of a task instance."""

XCOM: Any = getattr(xcoms, "XComModelV2", xcoms.XComModel)
"""Table of XComs. From Airflow 3.4 on each try has its own ones, and those of before the upgrade are left out."""

VALUE = cast(XCOM.value, TextColumn).label("value")

BY_TRY = XCOM is not xcoms.XComModel

_UNSTORABLE = re.compile("[\0\ud800-\udfff\U00010000-\U0010ffff]")


class TaskInstanceKey(NamedTuple):
    """What identifies the XComs of a task instance, whichever of its tries has pushed them.

    :param map_index: index of a mapped task, -1 otherwise.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int

    @property
    def fits(self) -> bool:
        """Whether every database of Airflow can look it up without an error."""
        # MySQL's older character set ends at U+FFFF. NUL and lone surrogates are errors in PostgreSQL.
        writable = all(len(each) <= ID_LENGTH and not _UNSTORABLE.search(each) for each in self[:3])
        return writable and -1 <= self.map_index < 2**31


KEY_NAMES = TaskInstanceKey._fields
KEY = tuple(getattr(TaskInstance, name) for name in KEY_NAMES)


def key_of(row: Row[Any]) -> TaskInstanceKey:
    """Return the task instance of a row that begins with :data:`KEY`."""
    return TaskInstanceKey(*row[: len(KEY)])


def in_parts(ids: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield ids in order, as many at a time as one statement reads."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), READ_AT_ONCE):
        yield ordered[start : start + READ_AT_ONCE]


def of_instance(model: Any) -> ColumnElement[bool]:
    """Return the condition that a row belongs to a task instance."""
    if BY_TRY:
        condition: ColumnElement[bool] = model.task_instance_id == TaskInstance.id
        return condition
    return and_(*(getattr(model, name) == column for name, column in zip(KEY_NAMES, KEY, strict=True)))


def is_of(model: Any, key: tuple[Any, ...]) -> ColumnElement[bool]:
    """Return the condition that a row belongs to the task instance with a key."""
    columns = KEY if BY_TRY else tuple(getattr(model, name) for name in KEY_NAMES)
    is_key = and_(*(column == value for column, value in zip(columns, key, strict=True)))
    return model.task_instance_id.in_(select(TaskInstance.id).where(is_key)) if BY_TRY else is_key


def pushed(session: Session, *conditions: ColumnElement[bool], xcom: str = RUN_XCOM) -> list[Row[Any]]:
    """Return the XComs of a key that fulfil conditions with their task instances, of all tries, newest first."""
    names = ("task_instance_id",) if BY_TRY else KEY_NAMES
    query = select(*(getattr(XCOM, name) for name in names), XCOM.timestamp, VALUE)
    query = query.where(XCOM.key == xcom, func.length(VALUE) <= MAX_JSON, *conditions)
    # The limit is in a separate query: PostgreSQL would otherwise begin with all task instances.
    newest = query.order_by(XCOM.timestamp.desc()).limit(MAX_LINKS).subquery()
    of_run = with_xcom(newest.c.timestamp, newest.c.value).select_from(newest).join(TaskInstance, of_instance(newest.c))
    of_run = of_run.order_by(newest.c.timestamp.desc())
    return list(session.execute(of_run.execution_options(include_all_attempts=True)))


def with_xcom(timestamp: Any, value: Any) -> Select[Any]:
    """Return a query for task instances, each with an XCom of its own: its time and its value."""
    return select(*KEY, timestamp, value, TaskInstance.id, TaskInstance.try_number, TaskInstance.state)


def stated_in(text: str) -> dict[str, Any]:
    """Return what an XCom states; nothing if it is not a dict."""
    value = _json(text)
    if isinstance(value, str):
        # Before Airflow 3.2, workers' values are JSON text in JSON.
        value = _json(value)
    return value if isinstance(value, dict) else {}


def is_reference(text: str) -> bool:
    """Return whether an XCom has the text that a custom XCom backend stores instead of a value."""
    value = _json(text)
    # Before Airflow 3.2, that of a list is JSON text too.
    return isinstance(value, str) and not isinstance(_json(value), dict | list)


def _json(text: str) -> Any:
    """Read JSON that may come from anyone. Airflow's decoder would import classes named in it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def id_in(value: Any) -> str | None:
    """Return an id that may come from anyone; None if it cannot be one."""
    text = str(value) if isinstance(value, int) else value
    return text if isinstance(text, str) and 0 < len(text) <= ID_LENGTH and text.isprintable() else None


def connections() -> list[str]:
    """Return the ids of the connections to BrowserAct in Airflow's database."""
    query = select(Connection.conn_id).where(Connection.conn_type == CONNECTION_TYPE)
    with create_session(scoped=False) as session:
        return list(session.scalars(query.order_by(Connection.conn_id).limit(MAX_CONNECTIONS)))


def has_dag(dag_id: str) -> bool:
    """Return whether Airflow has read a DAG from a file that still exists."""
    with create_session(scoped=False) as session:
        found = session.scalar(select(DagModel.dag_id).where(DagModel.dag_id == dag_id, DagModel.is_stale.is_(False)))
    return found is not None


def connection_team(conn_id: str) -> str | None:
    """Return the team of a connection."""
    return _team_of(Connection, conn_id)


def dag_team(dag_id: str) -> str | None:
    """Return the team of a DAG."""
    return _team_of(DagModel, dag_id)


def _team_of(model: Any, id_: str) -> str | None:
    if not conf.getboolean("core", "multi_team", fallback=False):
        return None
    with create_session(scoped=False) as session:
        found: str | None = model.get_team_name(storable(id_), session=session)
        return found
