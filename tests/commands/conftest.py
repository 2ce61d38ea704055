from __future__ import annotations

import pytest

from tests.airflow.rows import components

__all__ = ["components"]


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    """Restore what the command sets for its process."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
