"""What is read of a response of version 2: odd fields count as missing, and a missing essential field is an error."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.arguments import MAX_ID_LENGTH
from airflow_provider_browseract.api.fields import MAX_LINE_LENGTH, MAX_LINK_LENGTH
from airflow_provider_browseract.api.models import (
    CreatedTask,
    DownloadFile,
    Failure,
    InputParameter,
    ListedTask,
    Output,
    SourceInfo,
    Step,
    Task,
    TaskStatus,
)
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.exceptions import UnexpectedResponseError
from tests.helpers.cases import cases
from tests.helpers.steps import read

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
    "steps": (Step(number=1, status="failed", goal="open", evaluation_previous_goal="none"),),
    "output": Output(string="[]", files=("https://files.example/1",)),
    "failure": Failure(code=1011, message="captcha"),
    "profile_id": "5",
    "credit": 15,
    "live_url": "https://live.example",
    "log_detail_url": "https://log.example",
    "input_parameters": "a=1; b=2",
    "download_files": (
        DownloadFile(guid="g", file_name="a.csv", file_size=3, status="x", download_url="https://signed"),
    ),
    "files_expires_at": 1699335116000,
}
PAIRS = [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]
NO_TIMES = ["yesterday", "now", " now", "24:00", "P1Y", "2026-01-01/2026-01-02", "2026-01-01/P99999Y", "2026-13-45"]
NO_TIMES += ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"]
NO_IDS = ["7\n8", "\x1b[31m7", "\u202e7", "7" * (MAX_ID_LENGTH + 1)]


@cases(
    ("everything", WHOLE, READ),
    ("nothing else", {}, {}),
    ("null and a new field", {**dict.fromkeys(WHOLE), "status": "running", "brand_new": [1]}, {}),
    ("null in output", {"output": {"string": None, "files": None}}, {"output": Output()}),
    ("object as output", {**WHOLE, "output": {"string": {"a": [1]}}}, {**READ, "output": Output(string='{"a": [1]}')}),
    ("text as output of an active task", {"output": "text"}, {}),
    ("number as id", {"id": 16429034742537847}, {"id": "16429034742537847"}),
    ("steps that are none", {"steps": ["broken", {"step": 2}]}, {"steps": (Step(number=2),)}),
    ("text as failure, number as files", {"task_failure_info": "broken", "download_files": 5}, {}),
    ("numbers of thousands of digits", {"credit": 10**4000, "steps": [{"step": 10**4000}]}, {"steps": (Step(),)}),
    *((f"{time!a} as time", {"created_at": time, "finished_at": time}, {}) for time in (*NO_TIMES, "\ud800", 5)),
    *((f"{each!a:.12} as other ids", {"workflow_id": each, "profile_id": each}, {}) for each in (*NO_IDS, "")),
    ("fraction as id", {"workflow_id": 1.5}, {}),
    ("older name of live_url", {"live_url": "https://old"}, {"live_url": "https://old"}),
    *((f"{odd} as profile", {"profileId": "5", "profile_id": odd}, {"profile_id": "5"}) for odd in (None, "")),
    ("pairs as inputs", {"input_parameters": PAIRS}, {"input_parameters": "a=1; b=2"}),
    ("no pairs as inputs", {"input_parameters": []}, {"input_parameters": ""}),
    # Sent values are always texts. What is listed in another way cannot be compared with them.
    *(
        (f"{odd} as inputs", {"input_parameters": [odd]}, {})
        for odd in (
            "a",
            {"value": "1"},
            {"name": 1, "value": "1"},
            *({"name": "a", "value": value} for value in (True, None, {"a": 1}, 1)),
        )
    ),
)
def test_task_is_read_with_what_can_be_read(fields, found):
    assert Task.model_validate({"id": "7", "status": "running", **fields}) == Task(
        **{"id": "7", "status": TaskStatus.RUNNING, **found}
    )


PAID: list[Any] = ["text", ["text"], {"files": 5}, {"files": "https://x"}, {"files": [{"url": "x"}]}]
PAID += [{"files": [None]}, {"files": [5]}, {"text": "x"}, {"data": {"a": 1}}, {"result": None}]


@pytest.mark.parametrize("output", PAID, ids=str)
def test_unreadable_output_of_a_finished_task_raises(output):
    with pytest.raises(UnexpectedResponseError, match="get-task cannot be used: output"):
        read(v2.get_task("7"), {"id": "7", "status": "finished", "output": output})


RUNNING = {"status": "running"}
NO_TASKS: list[Any] = [None, [], "task", {}, RUNNING, {"id": "", **RUNNING}]
GET, START, STATUS = v2.get_task("7"), v2.run("70"), v2.get_task_status("7")


@cases(
    *((f"{data} as task", GET, data, "cannot be used|not from BrowserAct") for data in NO_TASKS),
    *((f"{each!a:.12} as id", GET, {"id": each, **RUNNING}, "id: String should") for each in NO_IDS),
    *((f"{each!a:.12} as id of a start", START, {"id": each}, "id: String should") for each in NO_IDS),
    *((f"{each} as id of a start", START, {"id": float(each)}, "id: it is not") for each in ("inf", "nan", "1")),
    ("flag as id of a start", START, {"id": True}, "id: Input should be a valid string"),
    *(
        (f"{word} as status", STATUS, {"status": word}, "is not a task status that the API documents")
        for word in ("queued", "Finished", "", 3)
    ),
    ("null as status", STATUS, {"status": None}, "status: Field required"),
    ("no object as status", STATUS, [], "it: Input should be a valid dictionary"),
    *((f"{data} in a list", v2.list_tasks(), {"items": [data]}, r"items\.0") for data in (RUNNING, "?", None)),
    ("page without items", v2.list_tasks(), {"items": None}, "items: Field required"),
    ("page as list", v2.list_regions(), {"items": []}, "it: Input should be a valid tuple"),
)
def test_response_without_its_essential_part_is_refused(call, data, words):
    with pytest.raises(UnexpectedResponseError, match=words):
        read(call, data)


INPUT, KEYWORD = {"name": "keyword", "default_enabled": False}, InputParameter(name="keyword", default_enabled=False)
LISTED = {"id": "7", "workflow_id": "70"}
UNKNOWN: dict[str, Any] = {**LISTED, "status": TaskStatus.UNKNOWN}


@cases(
    # An odd task must not hide the others of a list.
    ("listed, status not documented", {**LISTED, "status": "new"}, ListedTask(**UNKNOWN)),
    ("listed without a status", LISTED, ListedTask(**UNKNOWN)),
    (
        "listed, odd output",
        {**LISTED, "status": "finished", "output": "?"},
        ListedTask(id="7", workflow_id="70", status=TaskStatus.FINISHED),
    ),
    ("start without a profile", {"id": "7"}, CreatedTask(id="7")),
    ("profileId", {"id": "7", "profileId": "5", "profile_id": None}, CreatedTask(id="7", profile_id="5")),
    ("template of a list", {"templateId": "t", "name": "n"}, SourceInfo(id="t", name="n")),
    ("inputs", {"id": "w", "input_parameters": [INPUT]}, SourceInfo(id="w", input_parameters=(KEYWORD,))),
    # No name is refused if one cannot be read.
    ("odd inputs", {"id": "w", "input_parameters": [INPUT, {"label": "b"}]}, SourceInfo(id="w")),
)
def test_response_is_read(data, result):
    assert type(result).model_validate(data) == result


@pytest.mark.parametrize(
    ("given", "count"), [(3, 3), ("3", 3), (3.0, 3), (3.5, None), (-1, None), ("three", None), ([], None)], ids=repr
)
def test_numbers_of_a_page_are_read_as_numbers_or_text(given, count):
    page = read(v2.list_sources(), {"items": [{"id": "70"}], "total_count": given, "total_pages": given})
    assert (page.items, page.total_count, page.total_pages) == ((SourceInfo(id="70"),), count, count)


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
    task = Task.model_validate({"id": "7", "status": "paused", **fields})
    assert (task.live_url, task.log_detail_url, task.steps[0].screenshots_url) == (None, None, None)
    assert SourceInfo.model_validate({"id": "7", "detailUrl": url}).detail_url is None


BOT_RUN = {"task_id": "7", "status": "finished"}
SIGNED = "https://files.example/s3cret"


@cases(
    ("API key", Settings(api_key="s3cret")),
    ("inputs of a start", v2.run("70", {"password": "s3cret"})),
    ("input of a start", v3.run("70", {"password": "s3cret"})),
    ("input of a run", read(v3.get_task("7"), {**BOT_RUN, "input": {"password": "s3cret"}})),
    ("output as a file", read(v3.get_task("7"), {**BOT_RUN, "output_files": {"csv": {"download_url": SIGNED}}})),
    ("download", DownloadFile.model_validate({"guid": "g", "downloadUrl": SIGNED})),
)
def test_keys_inputs_and_signed_addresses_are_in_no_repr(value):
    assert "s3cret" not in repr(value)


FORGED = "Open\n[2026-11-27] INFO - forged\r\n::group::\x1b[31m\x07\u202eevil\u2028\u2066" + "x" * 100_000


def test_texts_of_pages_and_of_the_vendor_become_one_printable_line_of_limited_length():
    task = Task.model_validate(
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
        read(v2.get_task("7"), {"id": "7", "status": FORGED})
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < MAX_LINE_LENGTH + 100
