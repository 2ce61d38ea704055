"""The fixtures of the package in a pytest of a user, whose other tests use an Airflow of their own."""

import json
import re

from airflow_provider_browseract.emulator import ORDERS
from tests.helpers.separate_pytest import assert_passed, run_pytest

TESTS = """
import os

import pytest
from airflow import settings  # before the fixture is used
from airflow_provider_browseract.hooks.browseract import BrowserActHook

OWN = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
OWN_ASYNC = settings.SQL_ALCHEMY_CONN_ASYNC


def address():
    return BrowserActHook().settings.base_url


def test_own_settings_before():
    assert settings.SQL_ALCHEMY_CONN == OWN
    assert address() == "https://api.example.com"


def test_connection_of_the_emulator_comes_before_that_of_a_secrets_backend(browseract_emulator):
    assert address() == browseract_emulator.connection["host"]


@pytest.mark.parametrize("name", ["one", "two"])
def test_dag_runs_in_another_database(browseract_load_dag, name):
    dag = browseract_load_dag(f"dags/{name}.py")
    assert str(dag.test().state) == "success"
    assert settings.SQL_ALCHEMY_CONN != OWN
    assert settings.SQL_ALCHEMY_CONN_ASYNC != OWN_ASYNC


def test_callback_can_be_required(browseract_emulator, browseract_load_dag):
    browseract_emulator.set_workflow("*", duration=0.2)
    assert str(browseract_load_dag("dags/callback.py").test().state) == "success"
    assert [delivery.http_status for delivery in browseract_emulator.deliveries] == [404]


@pytest.mark.parametrize("dag_id", ["left", "right"])
def test_one_dag_of_several_in_a_file_runs(browseract_load_dag, dag_id):
    dag_run = browseract_load_dag("dags/pair.py", dag_id=dag_id).test()
    assert (dag_run.dag_id, str(dag_run.state)) == (dag_id, "success")


def test_file_that_cannot_be_used_is_named(browseract_load_dag):
    with pytest.raises(ImportError, match="no_such_module"):
        browseract_load_dag("dags/broken.py")
    with pytest.raises(ValueError, match="helper.py has no DAG"):
        browseract_load_dag("dags/helper.py")
    with pytest.raises(ValueError, match=r"pair.py has the DAGs left, right. Pass the id of one as dag_id"):
        browseract_load_dag("dags/pair.py")
    with pytest.raises(ValueError, match="pair.py has no DAG 'middle', but the DAGs left, right. Pass the id"):
        browseract_load_dag("dags/pair.py", dag_id="middle")
    with pytest.raises(FileNotFoundError, match="three.py"):
        browseract_load_dag("dags/three.py")


def test_own_settings_after():
    assert address() == "https://api.example.com"
    assert settings.SQL_ALCHEMY_CONN == OWN
    assert settings.SQL_ALCHEMY_CONN_ASYNC == OWN_ASYNC
    assert str(settings.engine.url) == OWN
    assert "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST" not in os.environ
"""

DAG = """
from airflow.sdk import DAG, task
from helper import VALUE

with DAG("{name}", schedule=None):
    @task
    def value():
        return VALUE

    value()
"""

# A mapped task fails in both of its tries, with a text that Airflow masks.
FAILING_DAG = """
from airflow.sdk import DAG, task
from airflow.sdk.log import mask_secret

with DAG("failing", schedule=None):
    @task(retries=1, retry_delay=0)
    def shout(word):
        mask_secret("hunter2ofshop")
        if word == "loud":
            raise RuntimeError("the word is too loud for hunter2ofshop")

    shout.expand(word=["quiet", "loud"])
"""

FAILING_TEST = """
def test_state(browseract_load_dag):
    dag = browseract_load_dag("failing.py")
    assert str(dag.test().state) == "success"
"""

CALLBACK_DAG = f"""
from airflow.sdk import DAG
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

with DAG("callback", schedule=None):
    RunWorkflowOperator(task_id="run", workflow_id="{ORDERS.id}", deferrable=True, webhook=True, poll_interval=0.2)
"""

ACCOUNT = {"conn_type": "browseract", "password": "app-1", "host": "https://api.example.com"}


def test_dags_run_in_a_database_of_their_own_also_if_airflow_was_imported_before(tmp_path):
    connections = tmp_path / "connections.json"
    files = {
        **{f"dags/{name}.py": DAG.format(name=name) for name in ("one", "two")},
        "dags/pair.py": DAG.format(name="left") + DAG.format(name="right"),
        "dags/callback.py": CALLBACK_DAG,
        "dags/helper.py": "VALUE = 1\nDAG = 'airflow'\n",
        "dags/broken.py": "from airflow.sdk import DAG\nimport no_such_module\n",
        "test_dags.py": TESTS,
        connections.name: json.dumps({"browseract_default": ACCOUNT}),
        # The configuration file has the database once more.
        "home/airflow.cfg": f"[database]\nsql_alchemy_conn_async = sqlite+aiosqlite:///{tmp_path}/own.db\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    own = {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/own.db",
        "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(connections)}),
    }
    assert_passed(9, tmp_path, tmp_path, own)
    assert not (tmp_path / "own.db").exists()


def test_errors_of_failed_tries_come_before_the_captured_log(tmp_path):
    (tmp_path / "failing.py").write_text(FAILING_DAG)
    (tmp_path / "test_failing.py").write_text(FAILING_TEST)
    printed = run_pytest(tmp_path, tmp_path)
    # Of the test itself. Before it, Airflow may have printed something too.
    titles = re.findall(r"^-+ (Captured .*?(?<! setup)) -+$", printed, re.MULTILINE)
    tries = [f"Captured error of task shout[1], try {number}, in dag.test()" for number in (1, 2)]
    assert titles[:2] == tries
    assert "Captured stdout call" in titles[2:]
    first = printed.index(tries[0])
    assert printed[first:].splitlines()[1] == "RuntimeError: the word is too loud for ***"
    # The traceback of the test, and Airflow's log with its own traceback, are as without the fixture.
    assert "assert 'failed' == 'success'" in printed[:first]
    assert "Task failed with exception" in printed[first:]
