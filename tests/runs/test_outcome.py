from __future__ import annotations

import pytest

from airflow_provider_browseract.api.models import Failure, Output, Step, Task, TaskStatus
from airflow_provider_browseract.runs.outcome import (
    RunCanceledError,
    RunFailedError,
    RunLostError,
    check_finished,
)


def task(status: TaskStatus, **fields) -> Task:
    return Task(id="7", status=status, workflow_id="70", log_detail_url="https://log.example/7", **fields)


def test_a_finished_run_has_come_to_a_result():
    check_finished(task(TaskStatus.FINISHED, output=Output(string='{"a": 1}')))


def test_a_failed_run_says_reason_code_step_evaluation_picture_log_and_remedy():
    steps = (
        Step(1, "succeed", "open the page", None, None),
        Step(2, "failed", "solve the captcha", "the page was open", "https://shots.example/2.png"),
        Step(3, "running", "read the rows", "the captcha stands", None),
    )
    with pytest.raises(RunFailedError) as caught:
        check_finished(task(TaskStatus.FAILED, failure=Failure(1011, "Captcha blocked the run"), steps=steps))
    said = str(caught.value)
    for part in (
        "task 7 of workflow 70",
        "Captcha blocked the run (code 1011)",
        "At step 2: solve the captcha",
        "Evaluation: the captcha stands",
        "Screenshot: https://shots.example/2.png",
        "Log: https://log.example/7",
        "let the workflow pause for a person there",
        "clear the Airflow task",
    ):
        assert part in said


def test_a_failing_step_that_was_not_judged_is_told_with_what_was_before_it():
    steps = (Step(1, "failed", "read the rows", "the page was open", None),)
    with pytest.raises(RunFailedError, match="Before it: the page was open"):
        check_finished(task(TaskStatus.FAILED, steps=steps))


def test_a_failure_whose_code_nobody_documents_has_the_general_remedy_alone():
    with pytest.raises(RunFailedError, match=r"gone \(code 9\)\.\nLog: .*\nMend the workflow or its inputs"):
        check_finished(task(TaskStatus.FAILED, failure=Failure(9, "gone")))


def test_a_failed_run_without_a_failing_step_names_the_last_one():
    steps = (Step(1, "succeed", "open the page", None, None), Step(2, "succeed", "read", None, None))
    with pytest.raises(RunFailedError, match="At step 2: read"):
        check_finished(task(TaskStatus.FAILED, steps=steps))


def test_a_failed_run_without_a_reason_says_so():
    with pytest.raises(RunFailedError, match="BrowserAct gave no reason"):
        check_finished(task(TaskStatus.FAILED))


def test_a_canceled_run_is_an_error_even_with_an_output():
    with pytest.raises(RunCanceledError, match="was canceled"):
        check_finished(task(TaskStatus.CANCELED, output=Output(string="[]")))


@pytest.mark.parametrize("status", [status for status in TaskStatus if not status.ended])
def test_a_run_that_has_not_ended_has_no_result(status):
    with pytest.raises(RunLostError, match=f"has the status {status}"):
        check_finished(task(status, output=Output(string="[]")))


def test_a_picture_whose_address_may_be_signed_is_not_shown():
    steps = (Step(1, "failed", "read", None, "https://shots.example/1.png?X-Amz-Signature=secret"),)
    with pytest.raises(RunFailedError) as caught:
        check_finished(task(TaskStatus.FAILED, steps=steps))
    assert "shots.example" not in str(caught.value)
