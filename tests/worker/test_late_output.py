import logging
import time
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion, DownloadFile, Output, OutputFile, Step, Task, TaskStatus
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.worker import conclude
from tests.helpers.cases import cases
from tests.helpers.steps import replace
from tests.worker.starts import at

EMPTY = Task(id="7", status=TaskStatus.FINISHED, steps=(Step(number=1, status="succeed", goal="Open the page"),))
OF_BOT = replace(EMPTY, api_version=ApiVersion.V3, steps=())
WITH_TEXT = replace(EMPTY, output=Output(string="text", files=()))
A_FORMAT = OutputFile(format="csv", name="a.csv", size=3, url="https://files.example/1")
BROKEN = BrowserActError("Internal error")


@pytest.fixture
def play(monkeypatch, caplog):
    def play(task: Task, *answers: Task | BrowserActError) -> tuple[Any, list[float], list[str]]:
        """Return the run or the error, the pauses, and the log."""
        left, slept = list(answers), list[float]()

        def look(hook, task_id, version):
            assert (task_id, version) == (task.id, task.api_version)
            return left.pop(0)

        monkeypatch.setattr(conclude, "look", look)
        monkeypatch.setattr(conclude, "sleep", lambda seconds, check: slept.append(seconds))
        caplog.clear()
        over: Any = None
        hook: Any = None
        with caplog.at_level(logging.INFO), suppress(BrowserActError):
            over = conclude.read_again(task, hook, logging.getLogger("task"), lambda: None)
        assert left == []
        return over, slept, caplog.messages

    return play


@cases(
    ("text", WITH_TEXT),
    ("output file", replace(EMPTY, output=Output(string="", files=("https://files.example/1",)))),
    ("download", replace(EMPTY, download_files=(DownloadFile(guid="1", file_name="a.csv", status="uploading"),))),
    ("no steps", replace(EMPTY, steps=())),
    ("failed", replace(EMPTY, status=TaskStatus.FAILED)),
    ("canceled", replace(EMPTY, status=TaskStatus.CANCELED)),
    ("formats", replace(OF_BOT, output=Output(formats=(A_FORMAT,)))),
    ("value", replace(OF_BOT, output=Output(string="0", is_json=True))),
    ("failed bot", replace(OF_BOT, status=TaskStatus.FAILED)),
    ("ended long ago", replace(EMPTY, finished_at=at(time.time() - timings.LATE_OUTPUT_LIMIT - 60))),
)
def test_run_with_output_or_without_a_reason_for_any_is_not_read_again(play, task):
    assert play(task) == (task, [], [])


@cases(
    ("no output", EMPTY, WITH_TEXT),
    ("no text", replace(EMPTY, output=Output(string=None, files=())), WITH_TEXT),
    ("an empty text", replace(EMPTY, output=Output(string="", files=())), WITH_TEXT),
    ("ended lately", replace(EMPTY, finished_at=at(time.time() + 3600.0)), WITH_TEXT),
    ("a bot, which needs no steps", OF_BOT, replace(OF_BOT, output=Output(string="[1]", is_json=True))),
)
def test_finished_run_without_output_is_read_again_until_it_has_some(play, empty, late):
    over, slept, logged = play(empty, empty, late)
    assert over is late
    assert slept == list(timings.READ_AGAIN_PAUSES[:2])
    why = "The run has finished without output or files, which can be available later than its status."
    assert logged == [f"{why} Reading the run again in {pause:g} seconds." for pause in slept]


def test_output_that_cannot_be_read_is_read_again(play):
    over, slept, logged = play(replace(EMPTY, unread="it is not JSON"), WITH_TEXT)
    assert (over, slept) == (WITH_TEXT, [2.0])
    assert logged == ["The output of the run cannot be read: it is not JSON. Reading the run again in 2 seconds."]


def test_run_that_stays_without_output_is_believed_after_about_20_seconds(play):
    over, slept, logged = play(EMPTY, EMPTY, EMPTY, EMPTY)
    assert (over, sum(slept)) == (EMPTY, 20)
    assert len(logged) == 3


def test_failed_reads_are_logged_and_only_a_failed_last_one_is_an_error(play):
    over, _, logged = play(EMPTY, BROKEN, BROKEN, WITH_TEXT)
    assert over is WITH_TEXT
    assert logged[1:4:2] == ["The run could not be read again: Internal error"] * 2
    assert play(EMPTY, EMPTY, EMPTY, BROKEN)[0] is None
