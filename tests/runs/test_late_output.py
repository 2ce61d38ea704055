from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import ApiVersion, DownloadFile, Output, OutputFile, Step, Task, TaskStatus
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.late_output import read_late_output
from airflow_provider_browseract.runs.steps import LogLine, Sleep
from tests.steps import carry_out

EMPTY = Task("7", TaskStatus.FINISHED, steps=(Step(1, "succeed", "Open the page", None, None),))
OF_BOT = replace(EMPTY, api_version=ApiVersion.V3, steps=())
WITH_TEXT = replace(EMPTY, output=Output(string="text", files=()))


def play(task: Task, *answers: Task | BrowserActError, now: float = 1000.0) -> tuple[Task, list[float], list[LogLine]]:
    """Execute the steps with the given responses, and return the run, the sleeps and the log."""
    left = list(answers)
    slept: list[float] = []
    logged: list[LogLine] = []

    def answer(step: object) -> object:
        if isinstance(step, Sleep):
            slept.append(step.seconds)
        elif isinstance(step, LogLine):
            logged.append(step)
        else:
            assert isinstance(step, Call)
            expected = v3.query_run("7") if task.api_version is ApiVersion.V3 else v2.get_task("7")
            assert (step.path, step.params) == (expected.path, expected.params)
            return left.pop(0)
        return None

    over = carry_out(read_late_output(task, now), answer)
    assert not left
    return over, slept, logged


@pytest.mark.parametrize(
    "task",
    [
        WITH_TEXT,
        replace(EMPTY, output=Output(string="", files=("https://files.example/1",))),
        replace(EMPTY, download_files=(DownloadFile("1", "a.csv", None, "uploading", None, None, None),)),
        replace(EMPTY, steps=()),
        replace(EMPTY, status=TaskStatus.FAILED),
        replace(EMPTY, status=TaskStatus.CANCELED),
        replace(OF_BOT, output=Output(formats=(OutputFile("csv", "a.csv", 3, "https://files.example/1"),))),
        replace(OF_BOT, output=Output("0", is_json=True)),
        replace(OF_BOT, status=TaskStatus.FAILED),
        replace(OF_BOT, unread="it is too large"),
    ],
    ids=[
        "text",
        "output file",
        "download",
        "no steps",
        "failed",
        "canceled",
        "formats",
        "value",
        "failed bot",
        "too large to be read",
    ],
)
def test_run_with_output_or_without_a_reason_for_any_is_not_read_again(task):
    assert play(task) == (task, [], [])


@pytest.mark.parametrize("output", [None, Output(string=None, files=()), Output(string="", files=())])
def test_finished_run_without_output_is_read_again_until_it_has_some(output):
    empty = replace(EMPTY, output=output)
    task, slept, logged = play(empty, empty, WITH_TEXT)
    assert task is WITH_TEXT
    assert slept == list(timings.LATE_OUTPUT_PAUSES[:2])
    assert [line.text for line in logged] == [
        "BrowserAct task 7 has finished without output or files. They can become available after the status, so the "
        "run is read again for up to 20 seconds.",
        "The output of BrowserAct task 7 became available within 7 seconds.",
    ]


def test_run_of_a_bot_is_read_again_although_it_has_no_steps():
    late = replace(OF_BOT, output=Output("[1]", is_json=True))
    task, slept, _ = play(OF_BOT, OF_BOT, late)
    assert task is late
    assert slept == list(timings.LATE_OUTPUT_PAUSES[:2])


def test_run_that_stays_without_output_is_believed_after_about_20_seconds():
    task, slept, logged = play(EMPTY, EMPTY, EMPTY, EMPTY)
    assert task is EMPTY
    assert sum(slept) == 20
    assert logged[-1].text == "BrowserAct task 7 still has no output after 20 seconds."


def test_failed_reads_are_logged_and_do_not_lose_the_run():
    task, _, logged = play(EMPTY, BrowserActError("Internal error"), BrowserActError("Internal error"), WITH_TEXT)
    assert task is WITH_TEXT
    warnings = [line.text for line in logged if line.level == logging.WARNING]
    assert warnings == ["BrowserAct task 7 could not be read again: Internal error"] * 2


def test_failed_last_read_is_an_error_and_not_a_run_without_output():
    with pytest.raises(BrowserActError, match="Internal error"):
        play(EMPTY, EMPTY, EMPTY, BrowserActError("Internal error"))


@pytest.mark.parametrize(
    ("finished", "read_again"),
    [(1000.0 - timings.LATE_OUTPUT_LIMIT, True), (999.0 - timings.LATE_OUTPUT_LIMIT, False), (None, True)],
)
def test_run_that_ended_long_ago_is_not_read_again(finished, read_again):
    at = None if finished is None else datetime.fromtimestamp(finished, timezone.utc)
    empty = replace(EMPTY, finished_at=at)
    task, slept, _ = play(empty, *([WITH_TEXT] if read_again else []))
    assert (task is WITH_TEXT, bool(slept)) == (read_again, read_again)
