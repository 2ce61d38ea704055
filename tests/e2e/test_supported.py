"""What each supported Airflow and Python must do (``make cell``): chain profiles, and be woken by a callback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from airflow_provider_browseract.emulator import LOG_IN, ORDERS, Emulator

from .conftest import EXAMPLES
from .local_airflow import LocalAirflow, free_port

PROFILE = "example_browseract_profile"


@pytest.fixture
def emulator() -> Emulator:
    """A BrowserAct whose first run is long enough for its callback to be expected."""
    emulator = Emulator()
    emulator.set_workflow(LOG_IN.id, duration=30.0)
    emulator.set_workflow(ORDERS.id, duration=2.0)
    return emulator


@pytest.fixture
def airflow(emulator: Emulator, tmp_path) -> Iterator[LocalAirflow]:
    """The smallest Airflow, with a connection that has callbacks."""
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(EXAMPLES / f"{PROFILE}.py", dags)
    with emulator.serve() as running:
        port = free_port()
        extra = {"webhook_base_url": f"http://127.0.0.1:{port}"}
        connection = json.dumps({**running.connection, "extra": extra})
        airflow = LocalAirflow(tmp_path / "airflow", dags, {"AIRFLOW_CONN_BROWSERACT_DEFAULT": connection}, port=port)
        with airflow.running():
            yield airflow


@pytest.mark.timeout(600)
def test_profile_chain_runs_and_callback_ends_first_wait(airflow, emulator, capsys):
    run_id = airflow.trigger(PROFILE, {"username": "grace"})
    state = airflow.wait_for_run(PROFILE, run_id)
    with capsys.disabled():
        print("", *airflow.log(PROFILE, run_id, "log_in"), sep="\n  ")
    assert state == "success"
    assert airflow.xcom(PROFILE, run_id, "log_in", "wait")["woken_by"] == "callback"
    profile_id = airflow.xcom(PROFILE, run_id, "log_in", "profile_id")
    assert [task.status for task in emulator.tasks] == ["finished"] * 3
    assert [task.profile_id for task in emulator.tasks[1:]] == [profile_id] * 2
