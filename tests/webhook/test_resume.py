"""What only another database than SQLite shows of the way in which a callback resumes a task."""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timezone

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from airflow_provider_browseract.runs.waiting import Wait
from airflow_provider_browseract.webhook import resume
from airflow_provider_browseract.webhook.callback import TaskInstanceKey
from tests.e2e.postgres import postgres

COLUMNS = "id uuid PRIMARY KEY, trigger_id integer, state varchar, updated_at timestamptz"
"""The part of Airflow's table of task instances by which a callback claims one."""

ROW = resume.Deferral(
    TaskInstanceKey("shop", "manual__1", "run", -1), uuid.uuid4(), 7, "browseract_default", Wait("7", 1.0)
)


def test_claim_of_row_locked_by_another_transaction_gives_up_after_lock_timeout(monkeypatch):
    monkeypatch.setattr(resume, "LOCK_TIMEOUT", 0.5)
    now = datetime.now(timezone.utc)
    with postgres() as database:
        engine = create_engine(database.url)
        with engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE task_instance ({COLUMNS})"))
            row = {"id": ROW.ti_id, "trigger_id": ROW.trigger_id}
            connection.execute(text("INSERT INTO task_instance VALUES (:id, :trigger_id, 'deferred')"), row)
        with engine.begin() as other, Session(engine) as session:
            other.execute(text("SELECT * FROM task_instance FOR UPDATE"))
            began = time.monotonic()
            with pytest.raises(OperationalError, match="lock timeout"):
                resume._claim(session, ROW.ti_id, ROW.trigger_id, now)
            assert time.monotonic() - began < 10
            session.rollback()
            # A hand-over does not wait at all.
            monkeypatch.setattr(resume, "LOCK_TIMEOUT", 60.0)
            began = time.monotonic()
            assert not resume._is_unlocked(session, ROW.ti_id)
            assert time.monotonic() - began < 10
        with Session(engine) as session:
            assert resume._is_unlocked(session, ROW.ti_id)
            assert resume._claim(session, ROW.ti_id, ROW.trigger_id, now)
            session.commit()
            # The limit ends with the transaction: the connection goes back to Airflow's pool.
            assert session.scalar(text("SHOW lock_timeout")) == "0"
        engine.dispose()
