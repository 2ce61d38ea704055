"""What is read of a response of version 2: odd fields count as missing, and a missing essential field is an error."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.arguments import MAX_ID_LENGTH
from airflow_provider_browseract.api.fields import MAX_LINE_LENGTH, MAX_LINK_LENGTH
from airflow_provider_browseract.api.models import (
    MAX_FILES,
    MAX_STEPS,
    CreatedTask,
    DownloadFile,
    Failure,
    Output,
    Region,
    Step,
    Task,
    TaskStatus,
    read_list,
    read_page,
    read_status,
)
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.api.workflows import InputParameter, Template, Workflow
from airflow_provider_browseract.exceptions import UnexpectedResponseError
from airflow_provider_browseract.runs.report import facts
from tests.cases import cases

NOON = datetime(2026, 10, 8, 12, tzinfo=timezone.utc)
STEP = {"id": "s1", "step": 1, "status": "failed", "step_goal": "open", "evaluation_previous_goal": "none"}
DOWNLOAD = {"guid": "g", "fileName": "a.csv", "fileSize": 3, "downloadUrl": "https://signed", "status": "x"}
WHOLE = {
    "status": "failed",
    "workflow_id": "16429034742537800",
    "created_at": "2026-10-08T12:00:00Z",
    "finished_at": "2026-10-08T12:01:00Z",
    "steps": [STEP],
    "output": {"string": "[]", "files": ["https://files.example/1"]},
    "task_failure_info": {"code": 1011, "message": "captcha"},
    "profile_id": "5",
    "credit": 15,
    "live_url_info": {"width": 1, "height": 1, "live_url": "https://live.example"},
    "log_detail_url": "https://log.example",
    "input_parameters": "a=1; b=2",
    "download_files": [DOWNLOAD],
    "files_expires_at": 1699335116000,
}
READ = {
    "status": TaskStatus.FAILED,
    "workflow_id": "16429034742537800",
    "created_at": NOON,
    "finished_at": NOON + timedelta(minutes=1),
    "steps": (Step(1, "failed", "open", "none"),),
    "output": Output("[]", ("https://files.example/1",)),
    "failure": Failure(1011, "captcha"),
    "profile_id": "5",
    "credit": 15,
    "live_url": "https://live.example",
    "log_detail_url": "https://log.example",
    "input_parameters": "a=1; b=2",
    "download_files": (DownloadFile("g", "a.csv", 3, "x", download_url="https://signed"),),
    "files_expires_at": 1699335116000,
}
PAIRS = [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]
NO_TIMES = ["yesterday", "now", " now", "24:00", "P1Y", "2026-01-01/2026-01-02", "2026-01-01/P99999Y", "2026-13-45"]
NO_IDS = ["7\n8", "\x1b[31m7", "\u202e7", "7" * (MAX_ID_LENGTH + 1)]


@cases(
    ("fields", "read"),
    {
        "everything": (WHOLE, READ),
        "nothing else": ({}, {}),
        "null and a new field": ({**dict.fromkeys(WHOLE), "status": "running", "brand_new": [1]}, {}),
        "null in output": ({"output": {"string": None, "files": None}}, {"output": Output()}),
        "object as output": ({**WHOLE, "output": {"string": {"a": [1]}}}, {**READ, "output": Output('{"a": [1]}')}),
        "text as output of an active task": ({"output": "text"}, {}),
        "number as files of an active task": ({"output": {"files": 5}}, {}),
        "number as id": ({"id": 16429034742537847}, {"id": "16429034742537847"}),
        "steps that are none": ({"steps": ["broken", {"step": 2}]}, {"steps": (Step(2),)}),
        "text as failure, number as files": ({"task_failure_info": "broken", "download_files": 5}, {}),
        "numbers of thousands of digits": ({"credit": 10**4000, "steps": [{"step": 10**4000}]}, {"steps": (Step(),)}),
        **{f"{time!a} as time": ({"created_at": time, "finished_at": time}, {}) for time in (*NO_TIMES, "\ud800", 5)},
        **{
            f"{each!a:.12} as other ids": ({"workflow_id": each, "profile_id": each}, {}) for each in (*NO_IDS, "", 1.5)
        },
        "older name of live_url": ({"live_url": "https://old"}, {"live_url": "https://old"}),
        **{f"{odd} as profile": ({"profileId": "5", "profile_id": odd}, {"profile_id": "5"}) for odd in (None, "")},
        "pairs as inputs": ({"input_parameters": PAIRS}, {"input_parameters": "a=1; b=2"}),
        "no pairs as inputs": ({"input_parameters": []}, {"input_parameters": ""}),
        # Sent values are always texts. What is listed in another way cannot be compared with them.
        **{
            f"{odd} as inputs": ({"input_parameters": [odd]}, {})
            for odd in (
                "a",
                {"value": "1"},
                {"name": 1, "value": "1"},
                *({"name": "a", "value": value} for value in (True, None, {"a": 1}, 1)),
            )
        },
    },
)
def test_task_is_read_with_what_can_be_read(fields, read):
    assert Task.read({"id": "7", "status": "running", **fields}) == Task(
        **{"id": "7", "status": TaskStatus.RUNNING, **read}
    )


@pytest.mark.parametrize(
    "output",
    ["text", ["text"], {"files": 5}, {"files": "https://x"}, {"files": [{"url": "x"}]}],
    ids=["text", "list", "number as files", "text as files", "objects as files"],
)
def test_unreadable_output_of_a_finished_task_raises(output):
    with pytest.raises(UnexpectedResponseError):
        Task.read({"id": "7", "status": "finished", "output": output})


RUNNING = {"status": "running"}
NO_TASKS: list[Any] = [None, [], "task", {}, RUNNING, {"id": "", **RUNNING}]


@cases(
    ("read", "data", "words"),
    {
        **{f"{data} as task": (Task.read, data, "should be a task") for data in NO_TASKS},
        **{f"{each!a:.12} as id": (Task.read, {"id": each, **RUNNING}, "has no id") for each in NO_IDS},
        **{f"{each!a:.12} as id of a start": (CreatedTask.read, {"id": each}, "has no id") for each in NO_IDS},
        **{
            f"{word} as status": (read_status, {"status": word}, "is not a task status")
            for word in ("queued", "Finished", "", None, 3)
        },
        "no object as status": (read_status, [], "should be a task status, but is JSON of type list"),
        **{f"{data} in a list": (Task.read_summary, data, "should be a task") for data in (RUNNING, "?", None)},
        "page without items": (read_page(Region.read), {"items": None}, "no list of items"),
        "page as list": (read_list(Region.read), {"items": []}, "should be a list"),
    },
)
def test_response_without_its_essential_part_is_refused(read, data, words):
    with pytest.raises(UnexpectedResponseError, match=words):
        read(data)


def test_only_finished_failed_and_canceled_are_end_statuses():
    assert {status for status in TaskStatus if status.ended} == {"finished", "failed", "canceled"}


def test_very_many_steps_are_counted_and_only_the_first_and_last_are_read():
    steps: list[dict] = [{"step": number} for number in range(MAX_STEPS * 3)]
    read, fewer = (Task.read({"id": "7", **RUNNING, "steps": each}) for each in (steps, steps[:MAX_STEPS]))
    assert (read.step_count, len(read.steps), fewer.steps_left_out) == (MAX_STEPS * 3, MAX_STEPS, 0)
    assert [step.number for step in (read.steps[0], read.steps[-1])] == [0, MAX_STEPS * 3 - 1]


def test_very_many_files_are_counted_and_only_the_first_are_read():
    urls = [f"https://files.example/{number}" for number in range(MAX_FILES + 2)]
    downloads = [{"downloadUrl": url} for url in urls[:-1]]
    read = Task.read({"id": "7", "status": "finished", "output": {"files": urls}, "download_files": downloads})
    assert read.output
    assert read.output.files == tuple(urls[:MAX_FILES])
    assert [file.download_url for file in read.download_files] == urls[:MAX_FILES]
    assert read.files_left_out == 3
    assert facts(read)["counts"] == {"steps": 0, "output_files": MAX_FILES + 2, "download_files": MAX_FILES + 1}


INPUT, KEYWORD = {"name": "keyword", "default_enabled": False}, InputParameter("keyword", False)
LISTED = {"id": "7", "workflow_id": "70"}
UNKNOWN, PAUSED = ("7", TaskStatus.UNKNOWN, "70"), ("7", TaskStatus.PAUSED, "70")


@cases(
    ("read", "data", "result"),
    {
        # An odd task must not hide the others of a list.
        "summary, status not documented": (Task.read_summary, {**LISTED, "status": "new"}, Task(*UNKNOWN)),
        "summary without a status": (Task.read_summary, LISTED, Task(*UNKNOWN)),
        "summary, odd output": (Task.read_summary, {**LISTED, "status": "paused", "output": "?"}, Task(*PAUSED)),
        "start without a profile": (CreatedTask.read, {"id": "7"}, CreatedTask("7", None)),
        "profileId": (CreatedTask.read, {"id": "7", "profileId": "5", "profile_id": None}, CreatedTask("7", "5")),
        "template of a list": (Template.read, {"templateId": "t", "name": "n"}, Template("t", "n")),
        "template": (Template.read, {"id": "t", "name": "n"}, Template("t", "n")),
        "inputs": (Workflow.read, {"id": "w", "input_parameters": [INPUT]}, Workflow("w", input_parameters=(KEYWORD,))),
        # No name is refused if one cannot be read.
        "odd inputs": (Workflow.read, {"id": "w", "input_parameters": [INPUT, {"label": "b"}]}, Workflow("w")),
        "one code": (read_list(Region.read), [{"name": "?"}, {"code": "US", "name": "A"}], (Region("US", "A"),)),
    },
)
def test_response_is_read(read, data, result):
    assert read(data) == result


@pytest.mark.parametrize(
    ("given", "read"),
    [(3, 3), ("3", 3), (" 3 ", 3), (3.0, 3), (3.5, None), (-1, None), (True, None), ("three", None), ([], None)],
    ids=repr,
)
def test_numbers_of_a_page_are_read_as_numbers_or_text(given, read):
    page = read_page(Region.read)({"page": 2, "items": [{"code": "US"}], "total_count": given, "total_pages": given})
    assert (page.items, page.total_count, page.total_pages) == ((Region("US"),), read, read)


def test_items_that_cannot_be_read_are_skipped_with_one_short_warning_that_names_them(caplog):
    items = [{"id": "7", "status": "teleported"}, {"id": "8", **RUNNING}, RUNNING]
    page = read_page(Task.read)({"items": items})
    assert [task.id for task in page.items] == ["8"]
    assert [each.split(":")[0] for each in page.skipped] == ["7", "one without an id"]
    assert "2 of 3 items of a BrowserAct list cannot be read and are skipped: 7: 'teleported' is not" in caplog.text
    caplog.clear()
    assert len(read_page(Region.read)({"items": [{"name": "x" * 1000}] * 500}).skipped) == 500
    assert len(caplog.records) == 1
    assert len(caplog.text) < 1000


@pytest.mark.parametrize(
    "url",
    [
        *("javascript:alert(1)", "data:text/html,x", "//x.example", "https://x.example/a b", "https://x\n"),
        *("https://x.example/\u202e", f"https://x.example/{'x' * MAX_LINK_LENGTH}", 7, ""),
    ],
    ids=str,
)
def test_invalid_live_and_log_urls_are_read_as_none(url):
    fields = {"live_url": url, "log_detail_url": url, "steps": [{"screenshots_url": url}]}
    task = Task.read({"id": "7", "status": "paused", **fields})
    assert (task.live_url, task.log_detail_url, task.steps[0].screenshots_url) == (None, None, None)
    assert Template.read({"id": "7", "detailUrl": url}).detail_url is None


BOT_RUN = {"task_id": "7", "status": "finished"}
SIGNED = "https://files.example/s3cret"


@cases(
    "value",
    {
        "API key": ClientSettings("s3cret"),
        "inputs of a start": v2.run_task("70", {"password": "s3cret"}),
        "input of a start": v3.create_run("70", {"password": "s3cret"}),
        "input of a run": v3.query_run("7").read({**BOT_RUN, "input": {"password": "s3cret"}}),
        "output as a file": v3.query_run("7").read({**BOT_RUN, "output_files": {"csv": {"download_url": SIGNED}}}),
        "download": DownloadFile.read({"guid": "g", "downloadUrl": SIGNED}),
    },
)
def test_keys_inputs_and_signed_addresses_are_in_no_repr(value):
    assert "s3cret" not in repr(value)


FORGED = "Open\n[2026-11-27] INFO - forged\r\n::group::\x1b[31m\x07\u202eevil\u2028\u2066" + "x" * 100_000


def test_texts_of_pages_and_of_the_vendor_become_one_printable_line_of_limited_length():
    task = Task.read(
        {
            **{"id": "7", "status": "failed", "task_failure_info": {"code": 1011, "message": FORGED}},
            "steps": [{"status": FORGED, "step_goal": FORGED, "evaluation_previous_goal": FORGED}],
            "download_files": [{"status": FORGED, "errorMessage": FORGED}],
        }
    )
    assert task.failure is not None
    [step], [file] = task.steps, task.download_files
    texts = (step.status, step.goal, step.evaluation_previous_goal, file.status, file.error_message)
    for text in (*texts, task.failure.message):
        assert text is not None
        assert text.startswith("Open [2026-11-27] INFO - forged ::group:: [31m evil xxx")
        assert text.isprintable()
        assert len(text) == MAX_LINE_LENGTH
    with pytest.raises(UnexpectedResponseError) as caught:
        Task.read({"id": "7", "status": FORGED})
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < MAX_LINE_LENGTH + 100
