"""The XCom ``failure``, which a try leaves that fails."""

import json
from typing import Any

import pytest

from airflow_provider_browseract import compat
from airflow_provider_browseract.emulator import LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH, RequestFault
from airflow_provider_browseract.exceptions import RunCanceledError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.links import PanelLink
from airflow_provider_browseract.operators.browseract import RunTemplateOperator
from airflow_provider_browseract.runs.report import reason_and_remedy
from airflow_provider_browseract.sensors.browseract import TaskSensor
from airflow_provider_browseract.worker.ledger import STATE_KEY
from airflow_provider_browseract.worker.showing import FAILURE_LENGTH, FAILURE_XCOM
from tests.helpers.cases import cases, raising
from tests.helpers.workers import BOTH_WAYS, KILL, PENS, at_pushes


def failure(run) -> dict[str, Any]:
    with pytest.raises(Exception):  # noqa: B017, PT011 - the XCom has the class of the error
        run.run()
    return dict(run.ti.xcoms[FAILURE_XCOM])


@BOTH_WAYS
def test_failed_run_leaves_reason_remedy_and_ids(search, emulator, deferrable):
    emulator.set_workflow(SEARCH.id, outcome="failed", failure=(1011, "A captcha"), steps=("Read",))
    assert failure(search(deferrable=deferrable)) == {
        "reason": "A captcha (step 1: Read).",
        "remedy": "Let the workflow pause for a person at this point, start with a profile that is already logged in, "
        "or slow down the workflow. Fix the workflow or its inputs, and clear the Airflow task.",
        "kind": "RunFailedError",
        "connection": "browseract_default",
        "source": {"kind": "workflow", "id": SEARCH.id, "name": SEARCH.name},
        "task_id": emulator.tasks[0].id,
        "started": True,
    }


DOWN, LOST = RequestFault.status(503), RequestFault.lost_response()


@cases(
    ("refused argument", (), {"input_parameters": {}}, "input_parameters lacks the required name", False),
    ("refused start", ("run-task", RequestFault.refused(10021)), {}, "BrowserAct refused the start: ", False),
    ("lost start", ("run-task", LOST), {"durable": False}, "It is not known whether BrowserAct st", True),
    ("status stays unreadable", ("get-task", DOWN), {}, "The status of the run could not", True),
)
def test_failure_states_its_reason_and_whether_a_run_was_started(search, emulator, fault, arguments, reason, started):
    if fault:
        emulator.fault(fault[0], fault[1], times=None)
    if LOST in fault:
        emulator.fault("list-tasks", DOWN, times=None)
    found = failure(run := search(**arguments))
    assert found["reason"].startswith(reason)
    # Without a run too, the button leads to the reason.
    assert run.ti.xcoms[PanelLink().xcom_key].startswith("browseract/panel/open/ti/shop/")
    assert (found["started"], bool(found["task_id"])) == (started, started and LOST not in fault)


def test_killed_try_leaves_none_because_another_may_have_begun(search, airflow):
    airflow.state = "failed"
    run = search()
    run.at_calls("get-task", before=KILL)
    with pytest.raises(RunCanceledError):
        run.run()
    assert FAILURE_XCOM not in run.ti.xcoms


def test_lost_start_of_which_no_run_is_certain_counts_as_started(worker, emulator):
    emulator.fault("run-task-by-template", LOST, times=None)
    run = worker(operator_class=RunTemplateOperator, workflow_template_id=TEMPLATE_SEARCH.id, input_parameters=PENS)
    found = failure(run)
    assert (found["reason"][:33], found["started"]) == ("The response to a start was lost.", True)


def test_refused_start_after_a_run_of_an_earlier_try_is_not_started(search, emulator, store):
    emulator.next_run(SEARCH.id, outcome="failed")
    assert failure(search(store=store))["task_id"] == emulator.tasks[0].id
    emulator.fault("run-task", RequestFault.refused(10021))
    found = failure(search(store=store))
    assert (found["started"], found["task_id"]) == (False, None)


def test_state_of_an_earlier_try_that_cannot_be_read_counts_as_started(search, store):
    store.values[STATE_KEY] = json.dumps({"task_id": 7})
    assert failure(search(store=store))["started"]


@cases("given", {"text of a dict": '{"password": "hunter2"}', "nothing": "None"})
def test_only_what_is_an_id_is_shown_as_one(worker, given):
    assert failure(worker(workflow_id=given))["source"]["id"] is None
    found = failure(worker(operator_class=TaskSensor, browseract_task_id=given))
    assert (found["task_id"], found["started"]) == (None, False)


def test_rescheduled_sensor_has_not_failed(worker):
    task_id = BrowserActHook().run_task(SEARCH.id, PENS).id
    run = worker(operator_class=TaskSensor, browseract_task_id=task_id, mode="reschedule")
    run.ti.get_first_reschedule_date = lambda context: None
    with pytest.raises(compat.AirflowRescheduleException):
        run.run()
    assert FAILURE_XCOM not in run.ti.xcoms


@cases("broken", {"push": compat.AirflowTaskTimeout("over"), "no API server": OSError("away")})
def test_error_of_the_push_never_replaces_the_error_of_the_run(search, emulator, broken):
    emulator.set_workflow(SEARCH.id, output="no json")
    run = search(output_format="json", durable=False)
    fail = raising(broken)
    at_pushes(run, lambda key, _: fail() if key == FAILURE_XCOM else None)
    with pytest.raises(compat.AirflowFailException, match="is not json"):
        run.run()


def test_skipped_or_successful_task_leaves_none(search, worker):
    dry, done = search(dry_run=True), worker(workflow_id=ORDERS.id)
    with pytest.raises(compat.AirflowSkipException):
        dry.run()
    done.run()
    assert FAILURE_XCOM not in {**dry.ti.xcoms, **done.ti.xcoms}


def test_failure_has_no_secrets_and_limited_length(worker, emulator):
    emulator.set_workflow(LOG_IN.id, outcome="failed", failure=(9, "hunter2 was refused " + "x" * 900))
    found = failure(worker(workflow_id=LOG_IN.id, input_parameters={"username": "ada", "password": "hunter2"}))
    assert "hunter2" not in str(found)
    assert len(found["reason"]) <= FAILURE_LENGTH


@BOTH_WAYS
def test_failed_sensor_leaves_a_failure_without_a_source(worker, emulator, deferrable):
    emulator.set_workflow(SEARCH.id, outcome="failed", duration=0.0)
    task_id = BrowserActHook().run_task(SEARCH.id, PENS).id
    found = failure(worker(operator_class=TaskSensor, browseract_task_id=task_id, deferrable=deferrable))
    assert (found["source"], found["task_id"]) == (None, task_id)


def test_second_line_is_the_remedy_unless_it_is_a_link_or_an_id():
    assert reason_and_remedy("Gone.\nAdd it.\nLog: http://x") == ("Gone.", "Add it.")
    assert reason_and_remedy("Gone.\nLog: http://x\nBrowserAct task 7.") == ("Gone.", None)
