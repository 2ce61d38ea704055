"""What the command ``check`` reads in Airflow's database."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from airflow_provider_browseract.commands import database
from tests.airflow import rows
from tests.cases import raising


def test_components_that_are_alive_come_first(components):
    components.clear()
    components.add("TriggererJob", ago=90.0)
    components.add("TriggererJob", ago=10.0)
    components.add("TriggererJob", ago=1.0, state="failed")
    components.add("TriggererJob", ago=100_000.0)
    components.add("LocalTaskJob")
    found = [(each.kind, each.alive, round(each.age, -1)) for each in database.components()]
    kind = database.ComponentKind.TRIGGERER
    assert found == [(kind, True, 10), (kind, False, 0), (kind, False, 90)]


def test_waits_of_a_connection_and_of_its_key_are_found(queue):
    queue.add(1.0)
    queue.add(2.0, conn_id="another")
    queue.add(3.0, conn_id="same_key", key_digest="digest")
    rows.change(queue.add(4.0), state="failed", trigger_id=None)
    waits = database.waits_for_slots("browseract_default", "digest")
    assert sorted(wait.queued.since for wait in waits) == [1.0, 3.0]


def test_reason_of_the_database_has_no_password(monkeypatch):
    error = OperationalError("SELECT secret", {}, Exception("no pg_hba entry for hunter2\nmore"))
    bind = SimpleNamespace(engine=SimpleNamespace(url=make_url("postgresql://ada:hunter2@db/airflow")))
    session = SimpleNamespace(get_bind=lambda: bind, scalars=raising(error))
    monkeypatch.setattr(database, "create_session", lambda **_: nullcontext(session))
    with pytest.raises(database.NoDatabaseError, match=r"^no pg_hba entry for \*\*\*$"):
        database.components()


def test_missing_file_of_sqlite_is_not_created(tmp_path, monkeypatch):
    engine = create_engine(f"sqlite:///{tmp_path}/airflow.db")
    monkeypatch.setattr(database, "create_session", lambda **_: Session(engine))
    with pytest.raises(database.NoDatabaseError, match="there is no file"):
        database.components()
    assert list(tmp_path.iterdir()) == []
