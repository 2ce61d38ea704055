"""``dag.test()``: the tasks and triggers of a DAG in one process, where a developer tries them."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.emulator import HUMAN, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.runs.waiting import MAX_RESUMES
from tests.conftest import DagResult
from tests.workers import BOTH_WAYS, calls_of

pytestmark = pytest.mark.usefixtures("airflow_database")


FILE = """
from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

with DAG("tried", schedule=None):
    RunWorkflowOperator(task_id="run", poll_interval=0.1, **{arguments!r})
"""


@pytest.fixture
def emulator(browseract_emulator):
    emulator = browseract_emulator
    for workflow in (ORDERS, SEARCH):
        emulator.set_workflow(workflow.id, duration=0.2)
    return emulator


@pytest.fixture
def tried(parse, add_dag_bundle, tmp_path, short_timings) -> Callable[..., DagResult]:
    """Run a DAG of one task with ``dag.test()``."""
    add_dag_bundle(tmp_path)

    def run(**arguments: Any) -> DagResult:
        file = tmp_path / "tried.py"
        file.write_text(FILE.format(arguments=arguments))
        return DagResult(parse(file)["tried"].test())

    return run


def interrupt_while_it_waits(emulator) -> threading.Thread:
    """Press Ctrl-C once the run has been polled twice: after the start, and in the wait."""

    def press() -> None:
        emulator.wait_until(lambda: sum(each.endpoint == "get-task" for each in emulator.requests) > 1, timeout=280)
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    return pressing


class TestCtrlC:
    @pytest.fixture(autouse=True)
    def _is_interrupted_by_ctrl_c(self):
        """Undo what a shell does to a process in the background: it ignores Ctrl-C."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @BOTH_WAYS
    def test_ctrl_c_in_dag_test_stops_the_run_and_logs_it(self, tried, emulator, deferrable, caplog, capfd):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        pressing = interrupt_while_it_waits(emulator)
        # Airflow fails the task with it in a worker, and passes it on from a trigger.
        with suppress(KeyboardInterrupt):
            tried(workflow_id=ORDERS.id, deferrable=deferrable)
        pressing.join()
        [task] = emulator.tasks
        assert task.status == "canceled"
        logged = caplog.text + "".join(capfd.readouterr())
        assert task.id in logged
        assert "(Ctrl-C)" in logged
        assert "was stopped" in logged

    @BOTH_WAYS
    def test_run_keeps_running_after_ctrl_c_in_dag_test_with_cancel_on_kill_false(
        self, tried, emulator, deferrable, caplog, capfd
    ):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        pressing = interrupt_while_it_waits(emulator)
        with suppress(KeyboardInterrupt):
            tried(workflow_id=ORDERS.id, deferrable=deferrable, cancel_on_kill=False)
        pressing.join()
        assert emulator.tasks[0].status == "running"
        logged = caplog.text + "".join(capfd.readouterr())
        assert "keeps running and using credits because cancel_on_kill=False" in logged

    def test_ctrl_c_in_dag_test_logs_that_the_run_may_keep_running_when_the_stop_fails(
        self, tried, emulator, caplog, capfd
    ):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        emulator.fault("stop-task", RequestFault.refused(10127), times=None)
        pressing = interrupt_while_it_waits(emulator)
        with pytest.raises(KeyboardInterrupt):
            tried(workflow_id=ORDERS.id, deferrable=True)
        pressing.join()
        logged = caplog.text + "".join(capfd.readouterr())
        assert "could not be stopped" in logged
        assert "It may keep running and using credits" in logged


@BOTH_WAYS
def test_dag_test_waits_for_a_slot_and_then_starts_one_run(tried, emulator, deferrable):
    emulator.fault("run-task", RequestFault.refused(10118), times=2)
    result = tried(workflow_id=SEARCH.id, input_parameters={"keyword": "pens"}, deferrable=deferrable)
    assert result.state == "success"
    assert len(emulator.tasks) == 1


@pytest.mark.usefixtures("documented_responses")
def test_dag_test_does_not_wait_for_the_budget(tried, emulator, connect, capfd, caplog):
    connect({"daily_credits": 30})
    before, result = (tried(workflow_id=ORDERS.id, on_budget="wait") for _ in range(2))
    assert (before.state, result.state, len(emulator.tasks)) == ("success", "failed", 1)
    assert "dag.test() does not wait for the budget." in caplog.text + "".join(capfd.readouterr())
    assert result.xcom("run", "budget")["verdict"] == "refused"


def test_dag_test_stores_the_links_and_reads_none_that_were_not_pushed(tried, emulator, caplog, capfd):
    emulator.fault("run-task", RequestFault.refused(99001), times=1)
    before, result = (tried(workflow_id=ORDERS.id) for _ in range(2))
    assert (before.state, result.state) == ("failed", "success")
    assert before.xcom("run", "_link_BrowserActTaskLink") is None
    assert emulator.tasks[0].id in result.xcom("run", "_link_BrowserActTaskLink")
    assert "_link_" not in caplog.text + "".join(capfd.readouterr())


def test_dag_test_limits_the_number_of_resume_attempts_for_a_paused_run(tried, browseract_emulator, emulator):
    emulator.set_workflow(HUMAN.id, duration=0.4, pause_limit=600.0)
    emulator.fault("resume-task", RequestFault.refused(10127), times=None)

    def stop_after_further_polls() -> None:
        emulator.wait_until(lambda: calls_of(emulator, "resume-task") == MAX_RESUMES, timeout=120)
        polled = calls_of(emulator, "get-task")
        # More polls than it takes to see the pause again.
        emulator.wait_until(lambda: calls_of(emulator, "get-task") > polled + 5, timeout=120)
        settings = ClientSettings(browseract_emulator.api_key, browseract_emulator.url)
        with BrowserActClient(settings) as client:
            client.send(v2.stop_task(emulator.tasks[0].id))

    stopping = threading.Thread(target=stop_after_further_polls)
    stopping.start()
    result = tried(workflow_id=HUMAN.id, deferrable=True, on_paused="resume", timeout=250)
    stopping.join()
    assert result.state == "failed"
    assert calls_of(emulator, "resume-task") == MAX_RESUMES


@BOTH_WAYS
def test_dag_test_finds_a_connection_in_the_database_without_a_traceback(
    tried, browseract_emulator, emulator, deferrable, monkeypatch, caplog, capfd
):
    from airflow.models import Connection
    from airflow.utils.session import create_session

    monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
    given = {**browseract_emulator.connection, "extra": None}
    with create_session() as session:
        session.add(Connection(conn_id="browseract_stored", **given))
    try:
        result = tried(workflow_id=ORDERS.id, deferrable=deferrable, browseract_conn_id="browseract_stored")
    finally:
        with create_session() as session:
            session.query(Connection).filter_by(conn_id="browseract_stored").delete()
    assert result.state == "success"
    logged = caplog.text + "".join(capfd.readouterr())
    assert "Traceback" not in logged
    assert "cannot be read" not in logged


def test_dag_test_logs_each_status_of_a_step_of_a_deferred_run_once(tried, emulator, caplog, capfd):
    emulator.set_workflow(SEARCH.id, duration=1.0)
    assert tried(workflow_id=SEARCH.id, input_parameters={"keyword": "pens"}, deferrable=True).state == "success"
    logged = caplog.text + "".join(capfd.readouterr())
    shown = re.findall(r"step \d: .+? \(\w+\)", logged)
    assert len(shown) == len(set(shown))
    assert {f"step {number}: {goal} (succeed)" for number, goal in enumerate(SEARCH.steps, start=1)} <= set(shown)
