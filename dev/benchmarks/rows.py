"""An Airflow with many rows in its database, which are made by hand, and functions that run in its environment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

import requests

from airflow_provider_browseract.panel.database import TaskInstanceKey
from airflow_provider_browseract.runs.routes import OPERATORS
from tests.helpers.databases import postgres
from tests.helpers.local_airflow import LocalAirflow, wait_for

ROOT = Path(__file__).resolve().parents[2]
DAGS = Path(__file__).parent / "dags"
CONN, API_KEY = "browseract_default", "app-emulator"


@dataclass(frozen=True)
class Row:
    """A task instance.

    :param run: the run that it has started.
    :param started: when it has started the run.
    :param trigger: what it waits for.
    :param failed: when it has failed. Otherwise it waits for the trigger, or has succeeded.
    :param operator: class name of its operator.
    """

    key: TaskInstanceKey
    run: str | None = None
    started: datetime | None = None
    trigger: Any = None
    failed: datetime | None = None
    operator: str = "RunWorkflowOperator"
    id: uuid.UUID = field(default_factory=uuid.uuid4)


def insert(rows: list[Row], xcoms: int = 1) -> None:
    """Add task instances to Airflow's database, with their DAG runs, triggers and XComs.

    :param xcoms: how many XComs each of them has that has started a run.
    """
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    now = datetime.now(timezone.utc)
    with create_session() as session:
        triggers = {row.key: Trigger.from_object(row.trigger) for row in rows if row.trigger is not None}
        for trigger in triggers.values():
            trigger.created_date = now - timedelta(minutes=1)
        session.add_all(triggers.values())
        session.flush()
        dag_runs = select(DagRun.dag_id, DagRun.run_id, DagRun.id)
        new = {row.key[:2] for row in rows} - {
            (dag_run.dag_id, dag_run.run_id) for dag_run in session.execute(dag_runs)
        }
        fixed = {"run_type": "manual", "state": "running", "run_after": now}
        added = [{"dag_id": dag_id, "run_id": run_id, **fixed} for dag_id, run_id in sorted(new)]
        if added:
            session.execute(DagRun.__table__.insert(), added)
        ids = {(dag_run.dag_id, dag_run.run_id): dag_run.id for dag_run in session.execute(dag_runs)}
        # A triggerer leaves out a task instance without one.
        versions = {version.dag_id: version.id for version in session.scalars(select(DagVersion))}
        session.execute(
            TaskInstance.__table__.insert(),
            [
                {
                    **row.key._asdict(),
                    "id": row.id,
                    "try_number": 1,
                    "pool": "default_pool",
                    "queue": "default",
                    "priority_weight": 1,
                    "dag_version_id": versions.get(row.key.dag_id),
                    "state": "failed" if row.failed else "deferred" if row.trigger else "success",
                    "end_date": row.failed,
                    "operator": row.operator,
                    "trigger_id": triggers[row.key].id if row.trigger else None,
                    "next_method": "execute_complete" if row.trigger else None,
                }
                for row in rows
            ],
        )
        pushed = [
            {**row.key._asdict(), "dag_run_id": ids[row.key[:2]], "key": key, "value": value, "timestamp": at}
            for row in rows
            for key, value, at in _xcoms(row, xcoms)
        ]
        if pushed:
            session.execute(XComModel.__table__.insert(), pushed)
    analyze()


def _xcoms(row: Row, number: int) -> Iterator[tuple[str, object, datetime]]:
    """Yield the XComs of a task instance: by which the panel knows its run or its failure, and others."""
    from airflow_provider_browseract.api.models import Task, TaskStatus
    from airflow_provider_browseract.emulator import SEARCH
    from airflow_provider_browseract.in_airflow.xcoms import names_of
    from airflow_provider_browseract.runs.proof import prove_run
    from airflow_provider_browseract.runs.report import facts

    if row.run is not None and row.started is not None:
        stated = facts(Task(id=row.run, status=TaskStatus.RUNNING, workflow_id=SEARCH.id), CONN)
        stated |= {"follows": False, "hidden": []}
        yield "task", stated | {"proof": prove_run(API_KEY, names_of(row.key), stated)}, row.started
        for other in range(1, number):
            yield f"other_{other}", "x" * 200, row.started
    if row.failed is not None and row.operator in OPERATORS:
        reason = f"Input {row.key.map_index} is missing"
        yield "failure", {"reason": reason, "kind": "InputError", "connection": CONN, "started": False}, row.failed


def analyze() -> None:
    """Let PostgreSQL count its rows, as it does by itself after a while."""
    from airflow.utils.session import create_session
    from sqlalchemy import text

    with create_session() as session:
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("ANALYZE"))


@contextmanager
def prepared_airflow(
    kind: str = "PostgreSQL", variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[LocalAirflow]:
    """Prepare an Airflow, of which nothing runs yet.

    :param variables: more variables for its processes.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        database = stack.enter_context(postgres()) if kind == "PostgreSQL" else None
        environment = {"PYTHONPATH": str(ROOT), **variables}
        airflow = LocalAirflow(Path(folder, "airflow"), DAGS, environment, database.url if database else None)
        airflow.prepare()
        yield airflow


@contextmanager
def api_server(airflow: LocalAirflow) -> Iterator[None]:
    """Run the API server of an Airflow without its other components."""

    def responds() -> bool:
        airflow.check_alive()
        try:
            return requests.get(f"{airflow.url}/api/v2/version", timeout=10).ok
        except requests.RequestException:
            return False

    airflow.start("api-server")
    try:
        wait_for("The API server", responds, timeout=240)
        yield
    finally:
        airflow.stop(with_signal=signal.SIGKILL)


def command(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """Return the command that calls a function and prints its result as JSON."""
    return [sys.executable, "-m", __spec__.name, f"{function.__module__}:{function.__name__}", json.dumps(arguments)]


def call(airflow: LocalAirflow, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that uses Airflow's models, which read their settings when they are imported."""
    words, variables = command(function, *arguments), airflow.variables_of("api-server")
    done = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    name, arguments = sys.argv[1:]
    print(json.dumps(resolve_name(name)(*json.loads(arguments))), flush=True)
