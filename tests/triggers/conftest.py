from __future__ import annotations

import pytest

from airflow_provider_browseract.emulator import ORDERS
from airflow_provider_browseract.runs import timings


@pytest.fixture
def emulator(browseract_emulator, connect, monkeypatch):
    connect({"retry_budget": 0.2, "read_timeout": 3})
    browseract_emulator.set_workflow(ORDERS.id, duration=0.3)
    monkeypatch.setattr(timings, "POLL_PATIENCE", 0.3)
    return browseract_emulator
