from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import databases

# Where the tests of tools find `dev`: after site-packages, because the installed package may be the wheel.
sys.path.append(str(Path(__file__).parent.parent))
# Airflow looks for providers only once.
sys.path.append(str(Path(__file__).parent / "helpers" / "warehouse"))

# Airflow reads its settings when it is first imported, so set them before any test module is imported.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="browseract-tests-")
os.environ.update(
    {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent.parent / "example_dags"),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": databases.start(
            os.environ.get("BROWSERACT_DATABASE", "sqlite"), os.environ["AIRFLOW_HOME"]
        ),
        "AIRFLOW__OPENLINEAGE__DISABLED": "True",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
)

import hypothesis
import pytest

from airflow_provider_browseract.runs import timings
from tests.helpers import catalogue
from tests.helpers.local_airflow import free_port, wait_for
from tests.helpers.reports import pytest_make_collect_report, pytest_runtest_makereport, time_limit  # noqa: F401

# Each change is tested with the same examples each time; `make random` finds new ones.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("random", derandomize=False, max_examples=1000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("same")


def pytest_addoption(parser):
    parser.addoption("--signals", type=int, default=20, help="signals at random moments of a run (default: 20)")


def pytest_unconfigure():
    databases.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """End the process if the time limit has not ended the test, for example because a signal handler hangs."""
    faulthandler.dump_traceback_later(time_limit(item) + 60, exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Run all tests that use Airflow's database in one process, because creating it takes longer than most of them.

    Those that run DAGs are in another process: in one, the two would take longer than all other tests in the others.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "airflow_database" in fixtures:
            # The tests of callbacks share a single run of a DAG.
            runs_dags = "deferred" not in fixtures and not {"parse", "add_dag_bundle"}.isdisjoint(fixtures)
            item.add_marker(pytest.mark.xdist_group("dags" if runs_dags else "database"))


def pytest_collection_finish():
    """Let the garbage collector leave out what was imported, which takes it longer than most tests."""
    gc.collect()
    gc.freeze()


EXAMPLES = Path(__file__).parent.parent / "example_dags"


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Create Airflow's database once for all tests that need one."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="session")
def api_server(airflow_database):
    """The application that Airflow creates from the plugin, with its routes mounted."""
    from airflow.api_fastapi.app import init_plugins
    from fastapi import FastAPI

    app = FastAPI()
    init_plugins(app)
    return app


@pytest.fixture
def browseract_emulator(browseract_emulator):
    """The fixture of the package, on a plan of 5, where any workflow may have several runs at once."""
    return catalogue.prepare(browseract_emulator)


@pytest.fixture
def connect(browseract_emulator, monkeypatch):
    """Set the connection ``browseract_default``: to the emulator, with an extra or with other fields."""

    def set_connection(extra=None, **fields):
        connection = {**browseract_emulator.connection, "extra": extra or {}, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(connection))

    return set_connection


@pytest.fixture
def short_patience(connect) -> None:
    """Let calls that fail be repeated for a moment only."""
    connect({"retry_budget": 0.2, "read_timeout": 10})


@pytest.fixture(scope="module")
def listen():
    """Return a function that handles each connection to a port with a function, and returns the port."""
    from tests.helpers.served import listening

    with listening() as listen:
        yield listen


@pytest.fixture
def people(monkeypatch):
    from airflow.sdk.execution_time import hitl

    from tests.helpers.people import People

    return People(monkeypatch, hitl)


class DagResult:
    """A finished run of a DAG, from ``dag.test()``."""

    def __init__(self, dag_run) -> None:
        self.dag_run = dag_run
        self.state = str(dag_run.state)

    def task(self, task_id: str, map_index: int = -1):
        found = self.dag_run.get_task_instance(task_id, map_index=map_index)
        assert found is not None
        return found

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1):
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        of_run = {"dag_ids": self.dag_run.dag_id, "run_id": self.dag_run.run_id}
        with create_session() as session:
            query = XComModel.get_many(**of_run, task_ids=task_id, map_indexes=map_index, key=key)
            row = session.scalars(query).first()
            return None if row is None else row.value


@contextmanager
def somebody_resumes(emulator, notified: Callable[[], bool]) -> Iterator[None]:
    """Let a person resume the first run once there is a notification."""

    def help_the_run() -> None:
        # Imports Airflow.
        from airflow_provider_browseract.hooks.browseract import BrowserActHook

        wait_for("The notification", notified, timeout=120)
        BrowserActHook().resume_task(emulator.tasks[0].id)

    with ThreadPoolExecutor(1) as person:
        helping = person.submit(help_the_run)
        yield
        helping.result()


@pytest.fixture
def parse(airflow_database):
    """Parse a file as Airflow does, and return its DAGs by their ids."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef,assignment,unused-ignore]

    def parse_(path: Path):
        bag = DagBag(str(path))
        assert not bag.import_errors
        return bag.dags

    return parse_


@pytest.fixture
def add_dag_bundle(monkeypatch):
    """Let Airflow find DAG files in another folder in addition to the examples, as ``dag.test()`` requires."""
    from airflow.dag_processing.bundles import manager

    # From Airflow 3.4 on, the configuration of bundles is read once per process.
    forget = getattr(getattr(manager, "_load_bundle_config_snapshot", None), "cache_clear", lambda: None)

    def add(folder: Path) -> None:
        local = "airflow.dag_processing.bundles.local.LocalDagBundle"
        bundles = [
            {"name": "dags-folder", "classpath": local, "kwargs": {}},
            {"name": folder.name, "classpath": local, "kwargs": {"path": str(folder)}},
        ]
        monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))
        forget()

    yield add
    forget()


@pytest.fixture(scope="session")
def s3_server():
    """A server that speaks S3, with two buckets; one for all tests, since Airflow keeps what it has connected to."""
    pytest.importorskip("s3fs", reason="before Airflow 3.3 s3fs is not installed for the tests")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
    client = boto3.client("s3", aws_access_key_id="ada", aws_secret_access_key="hunter2", **access)
    for bucket in ("results", "bucket"):
        client.create_bucket(Bucket=bucket)
    connection = {"conn_type": "aws", "login": "ada", "password": "hunter2", "extra": access}
    try:
        yield client, connection
    finally:
        server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """That server, behind the connections ``local_s3`` and ``aws_default``."""
    client, connection = s3_server
    for name in ("LOCAL_S3", "AWS_DEFAULT"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))
    return client


SHORT_TIMINGS = {
    "ANSWER_POLL_INTERVAL": 0.05,
    "CALLBACK_GRACE": 0.05,
    "CORE_RACE_GRACE": 0.05,
    "EVENT_STORE_GRACE": 0.05,
    "FILES_READ_PAUSE": 0.05,
    "FIRST_SLOT_PAUSE": 0.1,
    "READ_AGAIN_PAUSES": (0.2, 0.3),
    "LIST_READS": (0.3, 0.6),
    "PLACE_DELAY": 0.02,
    "POLL_PATIENCE": 0.3,
    "QUEUE_RACE_GRACE": 0.05,
    "RESUME_GRACE": 0.3,
    "SHORTEST_WATCH_INTERVAL": 0.01,
    "SLOT_COUNT_INTERVAL": 0.05,
    "SLOT_COUNT_PAUSE": 0.02,
    "SLOT_PROBE_PAUSE": 0.2,
    "STORE_RETRY_PAUSE": 0.01,
    "TRIGGER_BEGINS": 0.05,
}
"""What takes seconds or minutes in an Airflow, for tests that wait for it."""


@pytest.fixture
def short_timings(monkeypatch) -> None:
    """Shorten everything in ``runs.timings`` that tests wait for."""
    for name, seconds in SHORT_TIMINGS.items():
        monkeypatch.setattr(timings, name, seconds)


@pytest.fixture
def run_dag(parse, monkeypatch):
    """Run a DAG of the examples with ``dag.test()``: in this process, with tasks and triggers in line."""
    # The grace is for the scheduler, which has no part in this.
    for name in ("CORE_RACE_GRACE", "QUEUE_RACE_GRACE"):
        monkeypatch.setattr(timings, name, 0.5)
    monkeypatch.setattr(timings, "FIRST_POLL_JITTER", 0.0)

    return lambda name: DagResult(parse(EXAMPLES / f"{name}.py")[name].test())


@pytest.fixture(autouse=True)
def ends_of_tasks(monkeypatch) -> list[Callable[[], None]]:
    """What the process of a task calls at its end. This process continues, so a test has to call it."""
    calls: list[Callable[[], None]] = []
    monkeypatch.setattr("airflow_provider_browseract.worker.execution.at_end_of_task", calls.append)
    return calls
