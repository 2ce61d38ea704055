from __future__ import annotations

import pytest

from airflow_provider_browseract.api.models import Failure, Output, Step, Task, TaskStatus
from airflow_provider_browseract.runs.outcome import (
    RunCanceledError,
    RunFailedError,
    RunLostError,
    result_of,
)


def task(status: TaskStatus, **fields) -> Task:
    return Task(id="7", status=status, workflow_id="70", log_detail_url="https://log.example/7", **fields)


def test_a_finished_run_gives_its_output():
    assert result_of(task(TaskStatus.FINISHED, output=Output(string='{"a": 1}'))) == {"a": 1}


def test_a_failed_run_says_reason_code_step_evaluation_log_and_remedy():
    steps = (
        Step(1, "succeed", "open the page", None, None),
        Step(2, "failed", "solve the captcha", "the page was open", None),
        Step(3, "running", "read the rows", None, None),
    )
    with pytest.raises(RunFailedError) as caught:
        result_of(task(TaskStatus.FAILED, failure=Failure(1011, "Captcha blocked the run"), steps=steps))
    said = str(caught.value)
    for part in (
        "task 7 of workflow 70",
        "Captcha blocked the run (code 1011)",
        "Step 2: solve the captcha",
        "Evaluation: the page was open",
        "https://log.example/7",
        "clear the Airflow task",
    ):
        assert part in said


def test_a_failed_run_without_a_failing_step_names_the_last_one():
    steps = (Step(1, "succeed", "open the page", None, None), Step(2, "succeed", "read", None, None))
    with pytest.raises(RunFailedError, match="Step 2: read"):
        result_of(task(TaskStatus.FAILED, steps=steps))


def test_a_failed_run_without_a_reason_says_so():
    with pytest.raises(RunFailedError, match="BrowserAct gave no reason"):
        result_of(task(TaskStatus.FAILED))


def test_a_canceled_run_is_an_error_even_with_an_output():
    with pytest.raises(RunCanceledError, match="was canceled"):
        result_of(task(TaskStatus.CANCELED, output=Output(string="[]")))


@pytest.mark.parametrize("status", [status for status in TaskStatus if not status.ended])
def test_a_run_that_has_not_ended_has_no_result(status):
    with pytest.raises(RunLostError, match=f"has the status {status}"):
        result_of(task(status, output=Output(string="[]")))
