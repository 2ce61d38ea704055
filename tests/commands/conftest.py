from __future__ import annotations

import pytest
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_browseract.runs.callback_url import CHECK_VARIABLE
from tests.airflow.rows import components, deferred, queue

__all__ = ["components", "deferred", "queue"]


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    """Restore what the command sets for its process."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")


def variables() -> list[str]:
    """Return the keys of the Variables that checks have stored."""
    with create_session() as session:
        return sorted(session.scalars(select(Variable.key).where(Variable.key.startswith(CHECK_VARIABLE))))
