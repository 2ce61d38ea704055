from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from airflow.jobs.job import Job
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from sqlalchemy import delete, select

from airflow_provider_browseract.runs.callback_url import CHECK_VARIABLE
from tests.webhook.conftest import deferred, queue

__all__ = ["deferred", "queue"]


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    """Restore what the command sets for its process."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")


class Components:
    """The components that have sent heartbeats."""

    def add(self, kind: str, ago: float = 0.0, state: str = "running") -> None:
        """Add one with a last heartbeat some seconds ago."""
        at = datetime.now(timezone.utc) - timedelta(seconds=ago)
        with create_session() as session:
            job = Job()
            job.job_type, job.state, job.start_date, job.latest_heartbeat = kind, state, at, at
            session.add(job)

    def clear(self) -> None:
        """Delete all of them."""
        with create_session() as session:
            session.execute(delete(Job))


@pytest.fixture
def components(airflow_database) -> Iterator[Components]:
    """The components of an Airflow, one of each, alive."""
    made = Components()
    made.clear()
    for kind in ("TriggererJob", "SchedulerJob", "DagProcessorJob"):
        made.add(kind)
    yield made
    made.clear()


def variables() -> list[str]:
    """Return the keys of the Variables that checks have stored."""
    with create_session() as session:
        return sorted(session.scalars(select(Variable.key).where(Variable.key.startswith(CHECK_VARIABLE))))
