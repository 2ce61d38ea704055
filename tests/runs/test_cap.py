"""The cap of a task instance: what counts, and its texts."""

from __future__ import annotations

import pytest

from airflow_provider_browseract.api.models import Step, Task, TaskStatus
from airflow_provider_browseract.runs.cap import (
    CapUsedUpError,
    check_cap,
    credits_of,
    near_cap_line,
    over_cap_text,
    unread_credits_line,
)

URL = "https://browseract.example/123"
LOOPING = Task(
    "123",
    TaskStatus.CANCELED,
    steps=tuple(Step(number, "succeed", "Open the next page.", None, None) for number in range(1, 42)),
    log_detail_url=URL,
)
LOOK = f"Look for a loop in the last steps at {URL}, or raise max_credits if the run needs more."


@pytest.mark.parametrize(
    ("credit", "cost", "used"),
    [(None, 5, 205), (0, 5, 205), (204, 5, 205), (206, 5, 206), (None, 0, 0), (80, 0, 80)],
)
def test_larger_of_reported_credits_and_cost_of_the_steps_counts(credit, cost, used):
    assert credits_of(Task("7", TaskStatus.RUNNING, steps=LOOPING.steps, credit=credit), cost) == used


def test_steps_that_a_long_run_no_longer_reports_count():
    assert credits_of(Task("7", TaskStatus.RUNNING, steps=LOOPING.steps, steps_left_out=1000), 5) == 5205


def test_warning_names_the_credits_and_the_cap():
    text = "BrowserAct task 123 has used 165 of 200 credits (max_credits). It is stopped when it uses more than 200."
    assert near_cap_line("123", 165, 200, earlier=0) == text
    assert near_cap_line("123", 165, 200, earlier=80) == f"With the 80 credits of earlier tries, {text}"


def test_warning_of_a_run_that_is_too_large_to_read_names_timeout_as_the_remaining_limit():
    assert unread_credits_line("123", "The response is larger than 9 bytes.", 200) == (
        "The credits of BrowserAct task 123 cannot be compared with max_credits=200: The response is larger than 9 "
        "bytes. Until they can be compared, only timeout stops the run."
    )


def test_error_of_a_stopped_run_names_the_step_and_what_to_do():
    assert over_cap_text(LOOPING, 205, 200, earlier=0, fate=None, shared=True, retried=False) == (
        "BrowserAct task 123 used 205 credits, more than max_credits=200 allows, and was stopped at step 41: Open the "
        "next page. There is no retry, because the tries of a task instance share max_credits.\n" + LOOK
    )


def test_error_names_the_credits_of_earlier_tries():
    text = over_cap_text(LOOPING, 1205, 1200, earlier=1000, fate=None, shared=True, retried=False)
    assert text.startswith(
        "With the 1,000 credits of earlier tries, BrowserAct task 123 used 1,205 credits, more than "
    )


def test_error_does_not_claim_that_a_run_was_stopped_if_it_was_not():
    fate = "The run could not be stopped."
    running = (
        "BrowserAct task 123 used 205 credits, more than max_credits=200 allows. It was at step 41: Open the next "
        f"page. {fate} "
    )
    text = over_cap_text(LOOPING, 205, 200, earlier=0, fate=fate, shared=True, retried=False)
    assert text.startswith(f"{running}There is no retry, because ")
    text = over_cap_text(LOOPING, 205, 200, earlier=0, fate=fate, shared=True, retried=True)
    assert text == f"{running}The next try reattaches to it and stops it.\n{LOOK}"


def test_error_before_the_first_step_names_no_step_and_no_link():
    bare = Task("123", TaskStatus.RUNNING)
    look = "Look for a loop in the last steps in the BrowserAct dashboard, or raise"
    stopped = over_cap_text(bare, 205, 200, earlier=0, fate=None, shared=True, retried=False)
    assert "allows, and was stopped. There is no retry" in stopped
    assert look in stopped
    assert "allows. Gone. There is no" in over_cap_text(
        bare, 205, 200, earlier=0, fate="Gone.", shared=True, retried=False
    )


def test_error_gives_another_reason_for_no_retry_where_tries_do_not_share_the_cap():
    text = over_cap_text(LOOPING, 205, 200, earlier=0, fate=None, shared=False, retried=False)
    assert "There is no retry, because another run would probably use as much.\n" in text


@pytest.mark.parametrize(("spent", "cap"), [(99, 100), (0, 1), (10**6, None)])
def test_cap_with_credits_left_allows_a_run(spent, cap):
    check_cap(spent, cap)


@pytest.mark.parametrize("spent", [1000, 1205])
def test_cap_that_is_used_up_allows_no_run(spent):
    with pytest.raises(CapUsedUpError) as refused:
        check_cap(spent, 1000)
    assert str(refused.value) == (
        f"The runs of earlier tries have used {spent:,} credits, and max_credits=1000 allows no further run. No run "
        "was started.\nRaise max_credits if the task needs more. To begin a new count, clear the task."
    )
