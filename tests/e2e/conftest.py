from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.api.v2 import resume_task
from airflow_provider_browseract.compat import CLEAR_KEEPS_STATE
from airflow_provider_browseract.emulator import EXPORT, LOG_IN, ORDERS, SEARCH, Emulator, Run
from airflow_provider_browseract.hooks.connection import variable_of
from tests.helpers import catalogue, cluster
from tests.helpers.cluster import Cluster, redis
from tests.helpers.databases import postgres, skip_without_postgres
from tests.helpers.local_airflow import LocalAirflow, free_port
from tests.helpers.reports import time_limit
from tests.helpers.warehouse import sqlite_provider

T = TypeVar("T")

collect_ignore = [] if cluster.wanted() else ["test_hosts.py"]

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"

ACCOUNTS = ("examples", "callbacks", "tries")
"""Connections that have an account each, so that no module of tests sees the runs of another one.

The panel has ``browseract_default``.
"""

PROFILE = "example_browseract_profile"

CALLED_BACK = "called_back"
"""The connection with callbacks to the account of the examples, which polls otherwise."""

OTHER_CONNECTIONS = {
    "example_browseract_bot": CALLED_BACK,
    "example_browseract_callback": CALLED_BACK,
    "example_browseract_template": CALLED_BACK,
    PROFILE: "tries",
}
"""Examples that do not use the connection ``examples``."""

PASSWORD = "only for the emulator"
"""The password of the shop."""

USERS = {"ada": "admin", "grace": "viewer", "linus": "op"}

SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "12",
    # A busy Airflow may take a task that ends quickly for dead (see LocalAirflow.taken_for_dead), and runs it again.
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "5",
    # A DAG that is unpaused watches its assets from the next reading of its file on, and there is only one.
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    # A new DAG file is found within seconds.
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "2",
    # A dead process is reported after seconds instead of minutes. Airflow 3.4.0b2 lets a cleared task end for a minute,
    # and its scheduler fails if the task counts as dead before that.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30" if CLEAR_KEEPS_STATE else "90",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    # Without its provider, Airflow does not know these. A separate process sends an event, for which the worker waits;
    # so there are events of one DAG only.
    "AIRFLOW__OPENLINEAGE__DISABLED": "False",
    "AIRFLOW__OPENLINEAGE__EMISSION_POLICY": json.dumps(
        [
            {"scope": {}, "controls": {"emit": False}},
            {"scope": {"dag_id": "example_browseract_export"}, "controls": {"emit": True}},
        ]
    ),
}

HELD: dict[str, Any] = {"duration": 2.0, "pause_at": 0.5, "pause_limit": 3600.0}
"""Settings of a run that keeps running until :meth:`World.release`, however slow the machine is."""


START_LIMIT = 600.0
"""Seconds that the start of the Airflow takes at most: its database, its migration, and until it is healthy."""

ORDER = ("test_panel", "test_supported", "test_examples", "test_callbacks")
"""The modules that share an Airflow. Little else happens in it while somebody looks at the panel."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the modules, and let the tries get to where a test ends them while the first tests run."""
    own = [item for item in items if item.path.parent == Path(__file__).parent]
    items[:] = [item for item in items if item not in own]
    own.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else len(ORDER))
    if any("tries" in getattr(item, "fixturenames", ()) for item in own):
        own[0].fixturenames.insert(0, "tries")  # type: ignore[attr-defined]
    for item in own:
        if not {"worlds", "tries"}.isdisjoint(getattr(item, "fixturenames", ())):
            # The first test that needs the Airflow waits for its start, which has its own limits.
            item.add_marker(pytest.mark.timeout(time_limit(item) + START_LIMIT), append=False)
            break
    items += own


@dataclass(frozen=True)
class World:
    """The Airflow of the whole session, and the account of one connection."""

    airflow: LocalAirflow
    emulator: Emulator

    def all_of(self, component: str) -> list[str]:
        """Return the names of all API servers, or of all triggerers."""
        return [name for name in self.airflow.names if name.startswith(component)]

    def task(self, task_id: str) -> Run:
        [found] = [task for task in self.emulator.tasks if task.id == task_id]
        return found

    def release(self, task_id: str) -> None:
        """End a run that is :data:`HELD`."""
        self.send(resume_task(task_id))

    def send(self, call: Call[T]) -> T:
        """Call BrowserAct as a user without Airflow does, and return the result."""
        with BrowserActClient(Settings(api_key=self.emulator.api_key, base_url=self.emulator.url)) as client:
            return client.send(call)

    def requests(self, endpoint: str, task_id: str) -> int:
        """Return how often an endpoint was called for a BrowserAct task."""
        requests = self.emulator.requests
        return sum(request.endpoint == endpoint and task_id in request.query for request in requests)

    def polls(self, task_id: str) -> int:
        return self.requests("get-task", task_id)

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear the task instances of a task, as a person does in the UI."""
        body = {"dry_run": False, "task_ids": [task_id], "dag_run_id": run_id, "only_failed": False}
        self.airflow.api("POST", f"dags/{dag_id}/clearTaskInstances", json=body)

    def mark(self, state: str, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> None:
        """Mark a task instance, as a person does in the UI."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}{'' if map_index < 0 else f'/{map_index}'}"
        self.airflow.api("PATCH", path, json={"new_state": state})


def copy_dag_file(file: Path, folder: Path, conn_id: str) -> None:
    """Copy a DAG file that names no connection, so that its operators, triggers and hooks use one."""
    text = file.read_text()
    for place, named in {
        "default_args={": f'default_args={{"browseract_conn_id": "{conn_id}", ',
        "Trigger(": f'Trigger(browseract_conn_id="{conn_id}", ',
        "BrowserActHook()": f'BrowserActHook("{conn_id}")',
    }.items():
        text = text.replace(place, named)
    assert conn_id in text
    (folder / file.name).write_text(text)


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    """The one Airflow of all these tests, or a cluster, with a world for each connection that has an account."""
    skip_without_postgres()
    folder = tmp_path_factory.mktemp("world")
    dags = folder / "dags"
    dags.mkdir()
    here = Path(__file__).parent
    for file in EXAMPLES.glob("*.py"):
        copy_dag_file(file, dags, OTHER_CONNECTIONS.get(file.stem, "examples"))
    for file in (*here.glob("more_dags/*.py"), here / "dags" / "panel.py", here / "dags" / "tries.py"):
        shutil.copy(file, dags)
    port, path = free_port(), "/team-a"
    with ExitStack() as stack:
        # Not SQLite: with a dozen tasks at once, its one writer may keep the others waiting for a minute.
        database = stack.enter_context(postgres())
        make = partial(Cluster, broker=stack.enter_context(redis())) if cluster.wanted() else LocalAirflow
        services = {
            conn_id: stack.enter_context(catalogue.add(Emulator(concurrency=200, api_key=f"app-of-{conn_id}")).serve())
            for conn_id in (*ACCOUNTS, "browseract_default")
        }
        polling: dict[str, Any] = {"retry_budget": 20}
        with_callbacks = {**polling, "webhook_base_url": f"http://127.0.0.1:{port}{path}"}
        connections = {
            "examples": {**services["examples"].connection, "extra": polling},
            CALLED_BACK: {**services["examples"].connection, "extra": with_callbacks},
            "callbacks": {**services["callbacks"].connection, "extra": with_callbacks},
            "tries": {**services["tries"].connection, "extra": with_callbacks},
            "shop": {"conn_type": "generic", "password": PASSWORD},
            "warehouse": {"conn_type": sqlite_provider.CONN_TYPE, "host": str(folder / "warehouse.db")},
        }
        airflow = make(
            folder / "airflow",
            dags,
            {
                **{variable_of(conn_id): json.dumps(fields) for conn_id, fields in connections.items()},
                **SETTINGS,
                "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                    {"type": "file", "log_file_path": str(folder / "airflow" / "lineage.jsonl"), "append": True}
                ),
            },
            database=database.url,
            path=path,
            modules=(Path(sqlite_provider.__file__).parent,),
            users=USERS,
            port=port,
        )
        stack.enter_context(airflow.running())
        yield {conn_id: World(airflow, service) for conn_id, service in services.items()}


@pytest.fixture(scope="session")
def tries(worlds: dict[str, World]) -> dict[str, str]:
    """Start the DAGs of ``test_supported.py``, whose first run is long enough for its callback to be expected."""
    world = worlds["tries"]
    world.emulator.set_workflow(SEARCH.id, **HELD)
    world.emulator.next_run(EXPORT.id, outcome="failed", duration=1.0)
    world.emulator.set_workflow(LOG_IN.id, duration=30.0)
    world.emulator.set_workflow(ORDERS.id, duration=2.0)
    wanted = {PROFILE: {"username": "grace"}, "tries": {}}
    return {dag_id: world.airflow.trigger(dag_id, conf) for dag_id, conf in wanted.items()}
