"""A pytest fixture for tests of DAGs: an emulated BrowserAct, and the Airflow connection to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_browseract.emulator import RunningEmulator


@pytest.fixture
def browseract_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningEmulator]:
    """Run an emulator during a test, with the connection ``browseract_default`` set to it."""
    # Imported here, because pytest loads this module in every run of every project in the environment.
    from airflow_provider_browseract.emulator import Emulator

    with Emulator().serve() as running:
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(running.connection))
        yield running
