"""``dag.test()``: the tasks and triggers of a DAG in one process, where a developer tries them."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from airflow.models import Connection

from airflow_provider_browseract.emulator import ORDERS, SEARCH, RequestFault
from tests.airflow.rows import stored
from tests.conftest import DagResult
from tests.helpers.cases import cases
from tests.helpers.workers import BOTH_WAYS, calls_of

pytestmark = pytest.mark.usefixtures("airflow_database")


FILE = """
from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

with DAG("tried", schedule=None):
    RunWorkflowOperator(task_id="run", poll_interval=0.1, **{arguments!r})
"""


@pytest.fixture
def emulator(browseract_emulator):
    browseract_emulator.set_workflow("*", duration=0.2)
    return browseract_emulator


@pytest.fixture
def tried(parse, add_dag_bundle, tmp_path, short_timings) -> Callable[..., DagResult]:
    """Run a DAG of one task with ``dag.test()``, and check how its run ends."""
    add_dag_bundle(tmp_path)

    def run(state: str = "success", **arguments: Any) -> DagResult:
        file = tmp_path / "tried.py"
        file.write_text(FILE.format(arguments=arguments))
        result = DagResult(parse(file)["tried"].test())
        assert result.state == state
        return result

    return run


@pytest.fixture
def logged(caplog, capfd) -> Callable[[], str]:
    return lambda: caplog.text + "".join(capfd.readouterr())


KEPT = "keeps running and using credits because cancel_on_kill=False"


@pytest.fixture
def ctrl_c(emulator) -> Iterator[Callable[[], None]]:
    """Press Ctrl-C once the run has been polled twice: after the start, and in the wait."""

    def press() -> None:
        emulator.wait_until(lambda: calls_of(emulator, "get-task") > 1, timeout=280)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell lets a process in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield press
    signal.signal(signal.SIGINT, before)


@cases(
    ("in the worker", {"deferrable": False}, False, "canceled", "was stopped"),
    ("deferred", {"deferrable": True}, False, "canceled", "was stopped"),
    ("in the worker, cancel_on_kill=False", {"deferrable": False, "cancel_on_kill": False}, False, "running", KEPT),
    ("deferred, cancel_on_kill=False", {"deferrable": True, "cancel_on_kill": False}, False, "running", KEPT),
    ("stop fails", {"deferrable": True}, True, "running", "It may keep running and using credits"),
)
def test_ctrl_c_logs_what_becomes_of_the_run(tried, emulator, ctrl_c, logged, arguments, stop_fails, status, expected):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    if stop_fails:
        emulator.fault("stop-task", RequestFault.refused(10127), times=None)
    pressing = threading.Thread(target=ctrl_c)
    pressing.start()
    # Airflow fails the task with it in a worker, and passes it on from a trigger.
    with suppress(KeyboardInterrupt):
        tried("failed", workflow_id=ORDERS.id, **arguments)
    pressing.join()
    [task] = emulator.tasks
    assert task.status == status
    shown = logged()
    assert expected in shown
    assert task.id in shown
    assert "(Ctrl-C)" in shown or status == "running"


@BOTH_WAYS
def test_dag_test_waits_for_a_slot_and_then_starts_one_run(tried, emulator, deferrable):
    emulator.fault("run-task", RequestFault.refused(10118), times=2)
    tried(workflow_id=SEARCH.id, input_parameters={"keyword": "pens"}, deferrable=deferrable)
    assert len(emulator.tasks) == 1


def test_dag_test_does_not_wait_for_the_budget(tried, emulator, connect, logged):
    connect({"daily_credits": 30})
    for state in ("success", "failed"):
        tried(state, workflow_id=ORDERS.id, on_budget="wait")
    assert len(emulator.tasks) == 1
    shown = logged()
    assert "The budget of connection 'browseract_default'" in shown
    assert "does not allow another run. No run was started." in shown
    assert "dag.test() does not wait for the budget." in shown


def test_dag_test_stores_the_links_and_reads_none_that_were_not_pushed(tried, emulator, logged):
    emulator.fault("run-task", RequestFault.refused(99001), times=1)
    before, result = (tried(state, workflow_id=ORDERS.id) for state in ("failed", "success"))
    assert before.xcom("run", "_link_BrowserActTaskLink") is None
    assert emulator.tasks[0].id in result.xcom("run", "_link_BrowserActTaskLink")
    assert "_link_" not in logged()


@BOTH_WAYS
def test_dag_test_finds_a_stored_connection_without_a_traceback(tried, emulator, deferrable, monkeypatch, logged):
    monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
    given = {**emulator.connection, "extra": None}
    with stored(Connection(conn_id="browseract_stored", **given)):
        tried(workflow_id=ORDERS.id, deferrable=deferrable, browseract_conn_id="browseract_stored")
    shown = logged()
    assert "Traceback" not in shown
    assert "cannot be read" not in shown


def test_dag_test_logs_each_step_of_a_deferred_run_once(tried, emulator, logged):
    emulator.set_workflow(SEARCH.id, duration=1.0)
    tried(workflow_id=SEARCH.id, input_parameters={"keyword": "pens"}, deferrable=True)
    shown = re.findall(r"Step \d: .+?(?= \(\w+\))", logged())
    assert shown == [f"Step {number}: {goal}" for number, goal in enumerate(SEARCH.steps, start=1)]
