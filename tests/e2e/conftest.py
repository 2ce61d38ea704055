from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.api.v2 import resume_task
from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS
from airflow_provider_browseract.emulator import EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, Emulator
from airflow_provider_browseract.emulator.records import TaskRecord
from airflow_provider_browseract.emulator.workflow import WorkflowSettings
from tests.databases import postgres, skip_without_postgres

from . import cluster
from .cluster import Cluster, redis
from .local_airflow import LocalAirflow, free_port

T = TypeVar("T")

collect_ignore = [] if cluster.wanted() else ["test_hosts.py"]

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"

CALLED_BACK = ("example_browseract_bot", "example_browseract_bot_template")
"""Examples that use the connection with callbacks."""

tells_of_kills = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="before Airflow 3.3 the core tells no trigger")


HELD: WorkflowSettings = {"duration": 2.0, "pause_at": 0.5, "pause_limit": 3600.0}
"""Settings of a run that keeps running until :meth:`World.release`, however slow the machine is."""


@dataclass
class World:
    """A real Airflow, and an emulator that it uses.

    :param url: address of the emulator.
    :param key: its API key.
    :param lineage: file into which OpenLineage writes.
    """

    airflow: LocalAirflow
    emulator: Emulator
    url: str
    key: str
    lineage: Path

    @property
    def api_servers(self) -> list[str]:
        """The names of all API servers."""
        return [name for name in self.airflow.names if name.startswith("api-server")]

    @property
    def triggerers(self) -> list[str]:
        """The names of all triggerers."""
        return [name for name in self.airflow.names if name.startswith("triggerer")]

    def task(self, task_id: str) -> TaskRecord:
        """Find the record that the emulator has of a BrowserAct task."""
        [found] = [task for task in self.emulator.tasks if task.id == task_id]
        return found

    def release(self, task_id: str) -> None:
        """End a run that is :data:`HELD`."""
        self.send(resume_task(task_id))

    def send(self, call: Call[T]) -> T:
        """Call BrowserAct as a user without Airflow does, and return the result."""
        with BrowserActClient(ClientSettings(api_key=self.key, base_url=self.url)) as client:
            return client.send(call)

    def polls(self, task_id: str) -> int:
        """Return how often a BrowserAct task was requested."""
        requests = self.emulator.requests
        return sum(request.endpoint == "get-task" and task_id in request.query for request in requests)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An Airflow with two API servers behind one address and two triggerers, or a cluster; and an emulator.

    There are two connections to it: one with callbacks and one without.
    """
    skip_without_postgres()
    folder = tmp_path_factory.mktemp("world")
    dags = folder / "dags"
    dags.mkdir()
    for source in (EXAMPLES, Path(__file__).parent / "more_dags"):
        for file in source.glob("*.py"):
            text = file.read_text()
            if file.stem in CALLED_BACK:
                text = text.replace("default_args={", 'default_args={"browseract_conn_id": "callbacks", ')
            (dags / file.name).write_text(text)
    lineage = folder / "lineage.jsonl"
    emulator = Emulator(concurrency=200)
    for workflow in (EXPORT, LOG_IN, ORDERS, SEARCH):
        emulator.set_workflow(workflow.id, duration=4.0, one_at_a_time=False)
    # A person has the time to answer, and the run is still running when the trigger polls after the answer.
    emulator.set_workflow(HUMAN.id, duration=30.0, pause_at=1 / 30, pause_limit=600.0)
    with ExitStack() as stack:
        # Not SQLite: with a dozen tasks at once, its one writer may keep the others waiting for a minute.
        database = stack.enter_context(postgres())
        make = partial(Cluster, broker=stack.enter_context(redis())) if cluster.wanted() else LocalAirflow
        running = stack.enter_context(emulator.serve())
        port, path = free_port(), "/team-a"
        extra: dict[str, Any] = {"retry_budget": 20}
        with_callbacks = {**extra, "webhook_base_url": f"http://127.0.0.1:{port}{path}"}
        airflow = make(
            folder / "airflow",
            dags,
            {
                "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps({**running.connection, "extra": extra}),
                "AIRFLOW_CONN_CALLBACKS": json.dumps({**running.connection, "extra": with_callbacks}),
                "AIRFLOW__CORE__PARALLELISM": "12",
                # A DAG that is unpaused watches its assets from the next reading of its file on, and there is only one.
                "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
                # A triggerer that is only slow, on a busy machine, must not be taken for dead where nothing is kept for
                # the next one: it would report again what it has reported.
                "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15" if AIRFLOW_V_3_3_PLUS else "60",
                # Without its provider, Airflow does not know these. A separate process sends an event, for which
                # the worker waits; so there are events of one DAG only.
                "AIRFLOW__OPENLINEAGE__DISABLED": "False",
                "AIRFLOW__OPENLINEAGE__EMISSION_POLICY": json.dumps(
                    [
                        {"scope": {}, "controls": {"emit": False}},
                        {"scope": {"dag_id": "example_browseract_export"}, "controls": {"emit": True}},
                    ]
                ),
                "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                    {"type": "file", "log_file_path": str(lineage), "append": True}
                ),
            },
            database=database.url,
            copies=2,
            path=path,
            port=port,
        )
        stack.enter_context(airflow.running())
        yield World(airflow, emulator, running.url, running.api_key, lineage)
