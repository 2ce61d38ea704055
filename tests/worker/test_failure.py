"""The XCom ``failure``, which a try leaves that fails."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowSkipException
from airflow_provider_browseract.emulator import LOG_IN, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.exceptions import RunFailedError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.showing import FAILURE_LENGTH, FAILURE_XCOM
from airflow_provider_browseract.runs.report import reason_and_remedy
from airflow_provider_browseract.sensors.browseract import TaskSensor
from tests.cases import cases
from tests.workers import BOTH_WAYS, PENS, refuse_xcoms
from tests.world import browseract_emulator, emulator, worker, world

__all__ = ["browseract_emulator", "emulator", "worker", "world"]

SEARCHED = {"kind": "workflow", "id": SEARCH.id, "name": SEARCH.name}


@pytest.fixture
def search(worker):
    return partial(worker, workflow_id=SEARCH.id, input_parameters=PENS)


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
        "source": SEARCHED,
        "task_id": emulator.tasks[0].id,
        "started": True,
    }


LOST = RequestFault.lost_response()


@cases(
    ("fault", "arguments", "reason", "started"),
    {
        "refused argument": ((), {"input_parameters": {}}, "input_parameters lacks the required name", False),
        "refused start": (("run-task", RequestFault.refused(10021)), {}, "BrowserAct refused the start: ", False),
        "lost start": (("run-task", LOST, None), {"durable": False}, "It is not known whether BrowserAct st", True),
        "status stays unreadable": (
            ("get-task", RequestFault.status(503), None),
            {},
            "The status of the run cou",
            True,
        ),
        "over time": ((), {"timeout": 1, "poll_interval": 1}, "The run was stopped, because it did not end", True),
        "over the cap": ((), {"max_credits": 4, "poll_interval": 1}, "The run was stopped, because more credits", True),
    },
)
def test_failure_begins_with_its_reason_and_states_whether_a_run_was_started(
    search, emulator, fault, arguments, reason, started
):
    if fault:
        endpoint, how, *times = fault
        emulator.fault(endpoint, how, **({"times": times[0]} if times else {}))
        if how is LOST:
            emulator.fault("list-tasks", RequestFault.status(503), times=None)
    found = failure(search(**arguments))
    assert found["reason"].startswith(reason)
    assert (found["started"], bool(found["task_id"])) == (started, started and how_known(fault))


def how_known(fault) -> bool:
    return not (fault and fault[1] is LOST)


def test_killed_try_leaves_a_failure_with_what_becomes_of_the_run(search, airflow):
    airflow.state = "failed"
    run = search()
    run.at_calls("get-task", before=lambda operator: operator.on_kill())
    found = failure(run)
    assert (found["reason"], found["remedy"]) == (
        "Killed: the Airflow task was set to a final state.",
        "The run was stopped.",
    )


def test_skipped_or_successful_task_leaves_none(search, worker):
    dry = search(dry_run=True)
    with pytest.raises(AirflowSkipException):
        dry.run()
    done = worker(workflow_id=ORDERS.id)
    done.run()
    assert FAILURE_XCOM not in {**dry.ti.xcoms, **done.ti.xcoms}


def test_failure_that_cannot_be_pushed_changes_nothing(search, emulator, logs):
    emulator.set_workflow(SEARCH.id, outcome="failed")
    run = search()
    refuse_xcoms(run, FAILURE_XCOM)
    with pytest.raises(RunFailedError):
        run.run()
    assert "Could not push the XCom 'failure'" in logs()


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


@pytest.mark.parametrize(
    ("text", "remedy"),
    [("Gone.\nAdd it.\nLog: http://x", "Add it."), ("Gone.\nLog: http://x\nBrowserAct task 7.", None), ("Gone.", None)],
)
def test_second_line_is_the_remedy_unless_it_is_a_link_or_an_id(text, remedy):
    assert reason_and_remedy(text) == ("Gone.", remedy)
