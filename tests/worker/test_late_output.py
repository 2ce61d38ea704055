import logging
import time
from contextlib import nullcontext
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
READ_FAILED = "The run could not be read again: Internal error"


UNREAD = replace(EMPTY, unread="it is not JSON")
LATE_BOT = replace(OF_BOT, output=Output(string="[1]", is_json=True))
NO_OUTPUT = "The run has finished without output or files, which can be available later than its status."


@cases(
    ("text", WITH_TEXT, ()),
    ("output file", replace(EMPTY, output=Output(string="", files=("https://files.example/1",))), ()),
    ("download", replace(EMPTY, download_files=(DownloadFile(guid="1", file_name="a.csv", status="uploading"),)), ()),
    ("no steps", replace(EMPTY, steps=()), ()),
    ("failed", replace(EMPTY, status=TaskStatus.FAILED), ()),
    ("canceled", replace(EMPTY, status=TaskStatus.CANCELED), ()),
    ("formats", replace(OF_BOT, output=Output(formats=(A_FORMAT,))), ()),
    ("value", replace(OF_BOT, output=Output(string="0", is_json=True)), ()),
    ("failed bot", replace(OF_BOT, status=TaskStatus.FAILED), ()),
    ("ended long ago", replace(EMPTY, finished_at=at(time.time() - timings.LATE_OUTPUT_LIMIT - 60)), ()),
    ("no output", EMPTY, (EMPTY, WITH_TEXT)),
    ("no text", replace(EMPTY, output=Output(string=None, files=())), (WITH_TEXT,)),
    ("an empty text", replace(EMPTY, output=Output(string="", files=())), (WITH_TEXT,)),
    ("ended lately", replace(EMPTY, finished_at=at(time.time() + 3600.0)), (WITH_TEXT,)),
    ("a bot, which needs no steps", OF_BOT, (OF_BOT, LATE_BOT)),
    ("output that cannot be read", UNREAD, (WITH_TEXT,)),
    ("without output for about 20 seconds", EMPTY, (EMPTY, EMPTY, EMPTY)),
    ("failed reads", EMPTY, (BROKEN, BROKEN, WITH_TEXT)),
    ("failed last read", EMPTY, (EMPTY, EMPTY, BROKEN)),
)
def test_finished_run_is_read_again_while_output_may_come_and_only_a_failed_last_read_is_an_error(
    monkeypatch, caplog, task, answers
):
    left, slept = list(answers), list[float]()

    def look(hook, task_id, version):
        assert (task_id, version) == (task.id, task.api_version)
        return left.pop(0)

    monkeypatch.setattr(conclude, "look", look)
    monkeypatch.setattr(conclude, "sleep", lambda seconds, check: slept.append(seconds))
    hook: Any = None
    fails = pytest.raises(BrowserActError) if BROKEN in answers[-1:] else nullcontext()
    with caplog.at_level(logging.INFO), fails:
        read = conclude.read_again(task, hook, logging.getLogger("task"), lambda: None)
        assert read is (answers or (task,))[-1]
    assert (left, slept) == ([], [2, 5, 13][: len(answers)])
    why = "The output of the run cannot be read: it is not JSON." if task is UNREAD else NO_OUTPUT
    lines = [
        line
        for pause, answer in zip(slept, answers, strict=True)
        for line in (f"{why} Reading the run again in {pause:g} seconds.", answer is BROKEN and READ_FAILED)
        if line
    ]
    assert caplog.messages == lines
