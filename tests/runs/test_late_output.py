from __future__ import annotations

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.models import ApiVersion, DownloadFile, Output, OutputFile, Step, Task, TaskStatus
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.late_output import read_late_output
from tests.cases import cases
from tests.steps import Played, replace
from tests.worker.starts import at

EMPTY = Task(id="7", status=TaskStatus.FINISHED, steps=(Step(number=1, status="succeed", goal="Open the page"),))
OF_BOT = replace(EMPTY, api_version=ApiVersion.V3, steps=())
WITH_TEXT = replace(EMPTY, output=Output(string="text", files=()))
A_FORMAT = OutputFile(format="csv", name="a.csv", size=3, url="https://files.example/1")
BROKEN = BrowserActError("Internal error")


def play(task: Task, *answers: Task | BrowserActError) -> Played:
    left = list(answers)
    played = Played(lambda call: left.pop(0), now=1000.0).play(read_late_output(task, 1000.0))
    expected = v3.get_task("7") if task.api_version is ApiVersion.V3 else v2.get_task("7")
    assert [(call.path, call.params) for call in played.asked] == [(expected.path, expected.params)] * len(answers)
    return played


@cases(
    "task",
    {
        "text": WITH_TEXT,
        "output file": replace(EMPTY, output=Output(string="", files=("https://files.example/1",))),
        "download": replace(EMPTY, download_files=(DownloadFile(guid="1", file_name="a.csv", status="uploading"),)),
        "no steps": replace(EMPTY, steps=()),
        "failed": replace(EMPTY, status=TaskStatus.FAILED),
        "canceled": replace(EMPTY, status=TaskStatus.CANCELED),
        "formats": replace(OF_BOT, output=Output(formats=(A_FORMAT,))),
        "value": replace(OF_BOT, output=Output(string="0", is_json=True)),
        "failed bot": replace(OF_BOT, status=TaskStatus.FAILED),
        "ended long ago": replace(EMPTY, finished_at=at(999.0 - timings.LATE_OUTPUT_LIMIT)),
    },
)
def test_run_with_output_or_without_a_reason_for_any_is_not_read_again(task):
    played = play(task)
    assert (played.over, played.slept, played.logged) == (task, [], [])


@cases(
    ("empty", "late"),
    {
        "no output": (EMPTY, WITH_TEXT),
        "no text": (replace(EMPTY, output=Output(string=None, files=())), WITH_TEXT),
        "an empty text": (replace(EMPTY, output=Output(string="", files=())), WITH_TEXT),
        "ended lately": (replace(EMPTY, finished_at=at(1000.0 - timings.LATE_OUTPUT_LIMIT)), WITH_TEXT),
        "a bot, which needs no steps": (OF_BOT, replace(OF_BOT, output=Output(string="[1]", is_json=True))),
    },
)
def test_finished_run_without_output_is_read_again_until_it_has_some(empty, late):
    played = play(empty, empty, late)
    assert played.over is late
    assert played.slept == list(timings.LATE_OUTPUT_PAUSES[:2])
    assert played.logged == [
        "BrowserAct task 7 has finished without output or files. They can become available after the status, so the "
        "run is read again for up to 20 seconds.",
        "The output of BrowserAct task 7 became available within 7 seconds.",
    ]


def test_run_that_stays_without_output_is_believed_after_about_20_seconds():
    played = play(EMPTY, EMPTY, EMPTY, EMPTY)
    assert (played.over, sum(played.slept)) == (EMPTY, 20)
    assert played.logged[-1] == "BrowserAct task 7 still has no output after 20 seconds."


def test_failed_reads_are_logged_and_only_a_failed_last_one_is_an_error():
    played = play(EMPTY, BROKEN, BROKEN, WITH_TEXT)
    assert played.over is WITH_TEXT
    assert played.logged[1:3] == ["BrowserAct task 7 could not be read again: Internal error"] * 2
    assert play(EMPTY, EMPTY, EMPTY, BROKEN).over is BROKEN
