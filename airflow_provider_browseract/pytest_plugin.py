"""Pytest fixtures for tests of DAGs: an emulated BrowserAct with the connection to it, and a database for Airflow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_provider_browseract.emulator import RunningEmulator

# Functions import what they need, because pytest loads this module in every run of every project in the environment.


@pytest.fixture
def browseract_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningEmulator]:
    """Run an emulator during a test, with the connection ``browseract_default`` set to it."""
    from airflow_provider_browseract.emulator import Emulator

    with Emulator().serve() as running:
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(running.connection))
        yield running


@pytest.fixture(scope="session")
def _browseract_airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture
def browseract_load_dag(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _browseract_airflow_home: Path
) -> Iterator[Callable[[str], Any]]:
    """Return a function that loads the DAG of a file, for ``dag.test()``.

    The function takes the path of the file, absolute or relative to the test's own file. During the test, Airflow has
    an empty database, which all tests of a session share, and knows no other DAG files. No other setting is changed,
    but if neither ``AIRFLOW_HOME`` is set nor Airflow imported yet, it gets a temporary home.
    """
    home = _browseract_airflow_home
    if "AIRFLOW_HOME" not in os.environ:
        monkeypatch.setenv("AIRFLOW_HOME", str(home))
    database = home / "tests.db"
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{database}")
    monkeypatch.delenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC", raising=False)
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")

    from airflow_provider_browseract.compat import create_tables, dags_of, reconfigure_database
    from airflow_provider_browseract.runs import timings

    # The pause is for the scheduler, which has no part in dag.test().
    monkeypatch.setattr(timings, "CORE_RACE_GRACE", 0.5)
    is_new = not database.exists()
    reconfigure_database()
    if is_new:
        create_tables()

    def load(path: str) -> Any:
        file = (request.path.parent / path).resolve()
        bundle = {
            "name": "dags-folder",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(file)},
        }
        monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
        # In a DAGs folder, files can import each other.
        monkeypatch.syspath_prepend(str(file.parent))
        found = dags_of(str(file))
        if len(found) != 1:
            raise ValueError(f"{file} has {len(found)} DAGs. browseract_load_dag() takes a file with one.")
        [dag] = found.values()
        return dag

    yield load
    monkeypatch.undo()
    reconfigure_database()
