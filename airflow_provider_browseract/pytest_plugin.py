"""Pytest fixtures for tests of DAGs: an emulated BrowserAct with the connection to it, and a database for Airflow."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_provider_browseract.emulator import Emulator

# Functions import what they need, because pytest loads this module in every run of every project in the environment.


@pytest.fixture
def browseract_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run an emulator during a test, with the connection ``browseract_default`` set to it.

    The connection has a ``webhook_base_url``, so that ``webhook=True`` can be used. ``dag.test()`` has no callback
    route: the emulator itself receives the callbacks, and the polls end the waits.

    During the test, Airflow uses no secrets backend that is configured. It would find the connection of a real account
    there before this one.
    """
    from airflow_provider_browseract.emulator import Emulator

    with Emulator().serve() as running, _no_secrets_backend():
        connection = {**running.connection, "extra": {"webhook_base_url": running.url}}
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(connection))
        yield running


@contextmanager
def _no_secrets_backend() -> Iterator[None]:
    def reload() -> None:
        # Not the first import of Airflow, because browseract_load_dag may give it another home before.
        if "airflow.configuration" in sys.modules:
            from airflow_provider_browseract.compat import reload_secrets_backends

            reload_secrets_backends()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__SECRETS__BACKEND", "")
        patch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND", "")
        reload()
        yield
    reload()


@pytest.fixture(scope="session")
def _browseract_airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture
def browseract_load_dag(request: pytest.FixtureRequest, _browseract_airflow_home: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that loads a DAG of a file, for ``dag.test()``: ``load(path, dag_id=None)``.

    The function takes the path of the file, absolute or relative to the test's own file, and the id of the DAG if the
    file has several. During the test, Airflow has an empty database, which all tests of a session share, and knows no
    other DAG files. No other setting is changed, but if neither ``AIRFLOW_HOME`` is set nor Airflow imported yet, it
    gets a temporary home.

    If the test fails, pytest prints the error of each failed try of a task before the captured log.
    """
    with pytest.MonkeyPatch.context() as patch:
        database = _use_database_in(_browseract_airflow_home, patch)

        from airflow_provider_browseract.compat import (
            create_tables,
            dags_of,
            reconfigure,
            redact,
            reporting_failed_tries,
        )
        from airflow_provider_browseract.runs import timings

        # The pauses are for the scheduler and for callbacks, which have no part in dag.test().
        for name in ("CORE_RACE_GRACE", "QUEUE_RACE_GRACE"):
            patch.setattr(timings, name, 0.5)
        patch.setattr(timings, "CALLBACK_GRACE", 0.0)

        def report(ti: Any, error: object) -> None:
            task = ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"
            # pytest makes the title "Captured … dag.test()" of it. It adds the captured log after the test.
            title = f"error of task {task}, try {ti.try_number}, in"
            request.node.add_report_section("dag.test()", title, redact(f"{type(error).__name__}: {error}"))

        def load(path: str, dag_id: str | None = None) -> Any:
            file = (request.path.parent / path).resolve(strict=True)
            bundle = {
                "name": "dags-folder",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(file)},
            }
            patch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
            # In a DAGs folder, files can import each other.
            patch.syspath_prepend(str(file.parent))
            is_new = not database.exists()
            reconfigure()
            if is_new:
                create_tables()
            return _chosen(dags_of(str(file)), file, dag_id)

        with reporting_failed_tries(report):
            yield load
    reconfigure()


def _use_database_in(home: Path, patch: pytest.MonkeyPatch) -> Path:
    """Let Airflow use a database in a folder, and return its file."""
    database = home / "tests.db"
    if "AIRFLOW_HOME" not in os.environ:
        patch.setenv("AIRFLOW_HOME", str(home))
    patch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{database}")
    # Airflow does not derive it from the other one if its configuration file has it.
    patch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC", f"sqlite+aiosqlite:///{database}")
    patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    return database


def _chosen(found: Mapping[str, Any], file: Path, dag_id: str | None) -> Any:
    """Return the DAG of a file that has this id, or its only one."""
    if not found:
        raise ValueError(f"{file} has no DAG.")
    if dag_id is None and len(found) == 1:
        return next(iter(found.values()))
    if dag_id is None or dag_id not in found:
        but = "" if dag_id is None else f"no DAG {dag_id!r}, but "
        raise ValueError(f"{file} has {but}the DAGs {', '.join(sorted(found))}. Pass the id of one as dag_id.")
    return found[dag_id]
