"""How a callback that claims a task instance treats the locks of others, on a database that locks rows."""

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timezone

import pytest
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import Boolean, Column, DateTime, Integer, MetaData, String, Table, create_engine, insert, select, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from airflow_provider_browseract.webhook import database
from tests.helpers.databases import SERVERS, DatabaseMissingError

TI_ID = uuid.uuid4()
TRIGGER_ID = 7

SHOW_TIMEOUT = {"mysql": "SELECT @@innodb_lock_wait_timeout", "postgresql": "SHOW lock_timeout"}

TABLE = Table(
    "task_instance",
    MetaData(),
    # Airflow changes the type of its ids between versions.
    Column("id", TaskInstance.__table__.c.id.type, primary_key=True),
    Column("trigger_id", Integer),
    Column("state", String(20)),
    Column("updated_at", DateTime(timezone=True)),
    # From Airflow 3.4 on, the row of the current try.
    Column("working_set", Boolean, default=True),
)
"""The part of Airflow's table of task instances by which a callback claims one."""


@pytest.fixture(params=sorted(SERVERS))
def engine(request) -> Iterator[Engine]:
    """A database with a task instance that waits."""
    with ExitStack() as stack:
        try:
            database = stack.enter_context(SERVERS[request.param]())
        except DatabaseMissingError as missing:
            pytest.skip(f"{request.param} is left out: {missing}")
        engine = create_engine(database.url)
        stack.callback(engine.dispose)
        with engine.begin() as connection:
            TABLE.create(connection)
            connection.execute(insert(TABLE).values(id=TI_ID, trigger_id=TRIGGER_ID, state="deferred"))
        yield engine


def test_claim_of_row_locked_by_another_transaction_gives_up_after_lock_timeout(engine, monkeypatch):
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 1)
    now = datetime.now(timezone.utc)
    show = text(SHOW_TIMEOUT[engine.dialect.name])
    with Session(engine) as session:
        by_default = session.scalar(show)
    with engine.begin() as other, Session(engine) as session:
        other.execute(select(TABLE).with_for_update())
        began = time.monotonic()
        with pytest.raises(OperationalError, match=r"(?i)lock (wait )?timeout"):
            database._claim(session, TI_ID, TRIGGER_ID, now)
        assert time.monotonic() - began < 10
        session.rollback()
    with Session(engine) as session:
        assert database._claim(session, TI_ID, TRIGGER_ID, now)
        session.commit()
        # The connection goes back to Airflow's pool.
        assert session.scalar(show) == by_default
