"""A DAG file whose code starts a run while Airflow imports it: nothing is started, whatever the code looks like."""

from contextlib import suppress
from textwrap import dedent

import pytest

from airflow_provider_browseract.compat import dags_of
from airflow_provider_browseract.emulator import SEARCH
from tests.helpers.cases import cases

pytestmark = [
    pytest.mark.usefixtures("airflow_database"),
    # The code of a thread fails by itself.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

BEGIN = f"""
import asyncio, os, sys, threading
from concurrent.futures import ThreadPoolExecutor
# Airflow passes over files without the letters "dag" and "airflow".
from airflow.sdk import DAG
from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
from tests.helpers.workers import FakeTaskInstance

hook, ID = BrowserActHook(), "{SEARCH.id}"
CALL = v2.run(ID)

def start(): return hook.run_task(ID)

async def send():
    async with hook.async_client() as client: await client.send(CALL)
"""
EXECUTED = (
    "inputs = {'keyword': 'tea'}\n"
    "operator = RunWorkflowOperator(task_id='a', workflow_id=ID, input_parameters=inputs, durable=False)\n"
    "operator.execute({'ti': FakeTaskInstance()})"
)
STARTS = ("run-task", "run-task-by-template", "create-run", "create-template-run")


@cases(
    ("the top of a file", "start()"),
    ("a template", "hook.run_task_by_template(ID)"),
    ("a bot", "hook.run_bot(ID)"),
    ("a bot template", "hook.run_bot_template(ID)"),
    ("an imported module", "import sys; sys.path.insert(0, os.path.dirname(__file__)); import helper_that_starts"),
    ("a deep stack", "def f(n): return f(n - 1) if n else start()\nf(200)"),
    ("a thread", "t = threading.Thread(target=start); t.start(); t.join()"),
    ("a pool of threads", "ThreadPoolExecutor(1).submit(start).result()"),
    ("a thread of an event loop", "asyncio.run(asyncio.to_thread(start))"),
    ("the client", "hook.client.send(CALL)"),
    ("a client with a time limit", "with hook.client_within(5) as client: client.send(v3.run(ID))"),
    ("the client of event loops", "asyncio.run(send())"),
    ("an operator that is executed", EXECUTED),
)
def test_code_at_the_top_of_a_dag_file_starts_no_run(browseract_emulator, tmp_path, code):
    (tmp_path / "helper_that_starts.py").write_text(f"{BEGIN}\nstart()\n")
    file = tmp_path / "file.py"
    file.write_text(dedent(f"{BEGIN}\n{code}\n"))
    with suppress(ImportError):
        dags_of(str(file))
    assert not [record for record in browseract_emulator.requests if record.endpoint in STARTS]


def test_error_names_the_remedy_and_other_calls_are_sent(browseract_emulator, tmp_path, caplog):
    file = tmp_path / "file.py"
    file.write_text(f"{BEGIN}\nhook.get_workflow(ID)\nstart()\n")
    with pytest.raises(
        ImportError, match=r"would start a paid run each time Airflow reads this file\. Move it into a @task"
    ):
        dags_of(str(file))
    assert [record.endpoint for record in browseract_emulator.requests] == ["get-workflow"]
    assert "A run may be running" not in caplog.text
