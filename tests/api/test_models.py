from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_provider_browseract.api.arguments import MAX_ID_LENGTH
from airflow_provider_browseract.api.errors import UnexpectedResponseError
from airflow_provider_browseract.api.fields import MAX_LINE_LENGTH, MAX_LINK_LENGTH
from airflow_provider_browseract.api.models import (
    MAX_FILES,
    MAX_STEPS,
    CreatedTask,
    DownloadFile,
    Output,
    Region,
    Task,
    TaskStatus,
    read_list,
    read_page,
    read_status,
)
from airflow_provider_browseract.api.workflows import Template, Workflow
from airflow_provider_browseract.runs.report import facts
from tests.cases import cases

WHOLE = {
    "id": "16429034742537847",
    "status": "failed",
    "workflow_id": "16429034742537800",
    "created_at": "2026-10-08T10:17:54Z",
    "finished_at": "2026-10-08T10:18:54Z",
    "steps": [
        {
            "id": "s1",
            "step": 1,
            "status": "failed",
            "step_goal": "open",
            "evaluation_previous_goal": "none",
            "screenshots_url": None,
        }
    ],
    "output": {"string": "[]", "files": ["https://files.example/1"]},
    "task_failure_info": {"code": 1011, "message": "captcha"},
    "profile_id": "5",
    "credit": 15,
    "live_url_info": {"width": 1, "height": 1, "live_url": "https://live.example"},
    "log_detail_url": "https://log.example",
    "input_parameters": "a=1; b=2",
    "download_files": [
        {"guid": "g", "fileName": "a.csv", "fileSize": 3, "downloadUrl": "https://signed", "status": "x"}
    ],
    "files_expires_at": 1699335116000,
}


def test_complete_task_is_read_from_an_api_response():
    task = Task.read(WHOLE)
    assert task.status is TaskStatus.FAILED
    assert task.created_at == datetime(2026, 10, 8, 10, 17, 54, tzinfo=timezone.utc)
    assert task.steps[0].goal == "open"
    assert task.output == Output("[]", ("https://files.example/1",))
    assert task.failure is not None
    assert (task.failure.code, task.failure.message) == (1011, "captcha")
    assert (task.credit, task.profile_id, task.live_url) == (15, "5", "https://live.example")
    assert task.download_files[0].file_name == "a.csv"


def test_inputs_of_a_task_are_read_as_text_or_as_pairs():
    pairs = [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]
    assert Task.read({**WHOLE, "input_parameters": pairs}).input_parameters == "a=1; b=2"
    assert Task.read_summary({**WHOLE, "input_parameters": []}).input_parameters == ""
    # Sent values are always texts. What is listed in another way cannot be compared with them.
    for other in (True, None, {"a": 1}, 1):
        listed = [{"name": "a", "value": other}]
        assert Task.read_summary({**WHOLE, "input_parameters": listed}).input_parameters is None
    assert Task.read({**WHOLE, "input_parameters": ["a"]}).input_parameters is None
    assert Task.read({**WHOLE, "input_parameters": [{"value": "1"}]}).input_parameters is None


def test_task_with_only_id_and_status_is_read():
    assert Task.read({"id": "7", "status": "running"}) == Task(id="7", status=TaskStatus.RUNNING)


def test_null_and_unknown_fields_of_a_task_are_ignored():
    everything_null = dict.fromkeys(WHOLE) | {"id": "7", "status": "running", "brand_new": [1]}
    assert Task.read(everything_null) == Task(id="7", status=TaskStatus.RUNNING)
    assert Task.read({"id": "7", "status": "running", "output": {"string": None, "files": None}}).output == Output()


def test_unreadable_informational_parts_of_a_task_are_left_out():
    task = Task.read(
        {
            "id": "7",
            "status": "failed",
            "steps": ["broken", {"step": 2}],
            "task_failure_info": "broken",
            "download_files": 5,
        }
    )
    assert ([step.number for step in task.steps], task.failure, task.download_files) == ([2], None, ())


@pytest.mark.parametrize(
    "output",
    ["text", ["text"], {"files": 5}, {"files": "https://x"}, {"files": [{"url": "x"}]}],
    ids=["text", "list", "number as files", "text as files", "objects as files"],
)
def test_unreadable_output_of_a_finished_task_raises(output):
    with pytest.raises(UnexpectedResponseError):
        Task.read({"id": "7", "status": "finished", "output": output})


@pytest.mark.parametrize("output", ["text", {"files": 5}], ids=["text", "number as files"])
def test_unreadable_output_of_a_running_task_is_ignored(output):
    assert Task.read({"id": "7", "status": "running", "output": output}).output is None


def test_very_many_steps_are_counted_and_only_the_first_and_last_are_read():
    steps: list[dict] = [{"step": number} for number in range(MAX_STEPS * 3)]
    read = Task.read({"id": "7", "status": "running", "steps": steps})
    assert read.step_count == MAX_STEPS * 3
    assert [step.number for step in (read.steps[0], read.steps[-1])] == [0, MAX_STEPS * 3 - 1]
    assert len(read.steps) == MAX_STEPS
    assert Task.read({"id": "7", "status": "running", "steps": steps[:MAX_STEPS]}).steps_left_out == 0


def test_very_many_files_are_counted_and_only_the_first_are_read():
    urls = [f"https://files.example/{number}" for number in range(MAX_FILES + 2)]
    downloads = [{"downloadUrl": url} for url in urls[:-1]]
    data = {"id": "7", "status": "finished", "output": {"files": urls}, "download_files": downloads}
    read = Task.read(data)
    assert read.output
    assert read.output.files == tuple(urls[:MAX_FILES])
    assert [file.download_url for file in read.download_files] == urls[:MAX_FILES]
    assert read.files_left_out == 3
    assert facts(read)["counts"] == {"steps": 0, "output_files": MAX_FILES + 2, "download_files": MAX_FILES + 1}


def test_output_given_as_a_json_object_is_kept_as_text():
    task = Task.read({"id": "7", "status": "finished", "output": {"string": {"a": [1]}}})
    assert task.output == Output('{"a": [1]}')


@pytest.mark.parametrize(
    "text", ["yesterday", "now", " now", "24:00", "P1Y", "2026-01-01/2026-01-02", "2026-13-45", "\ud800", "", 5]
)
def test_unreadable_creation_time_of_a_task_is_left_out(text):
    assert Task.read({"id": "7", "status": "running", "created_at": text}).created_at is None


@cases("error", {"ValueError": ValueError("x"), "OverflowError": OverflowError("x"), "TypeError": TypeError("x")})
def test_error_of_the_time_parser_does_not_fail_reading_a_task(monkeypatch, error):
    def fail(text):
        raise error

    monkeypatch.setattr("pendulum.parse", fail)
    assert Task.read({"id": "7", "status": "running", "created_at": "2026-10-08T10:17:54Z"}).created_at is None


def test_older_live_url_field_is_read_when_the_newer_one_is_missing():
    assert Task.read({"id": "7", "status": "running", "live_url": "https://old"}).live_url == "https://old"


def test_numeric_id_becomes_a_string_without_loss_of_digits():
    assert Task.read({"id": 16429034742537847, "status": "running"}).id == "16429034742537847"


@pytest.mark.parametrize(
    "data",
    [None, [], "task", {}, {"status": "running"}, {"id": "", "status": "running"}],
    ids=["null", "list", "text", "empty object", "no id", "empty id"],
)
def test_response_that_is_not_a_task_is_refused(data):
    with pytest.raises(UnexpectedResponseError, match="the response should be a task"):
        Task.read(data)


@cases("word", {"unknown word": "queued", "wrong case": "Finished", "empty": "", "null": None, "number": 3})
def test_undocumented_task_status_is_refused(word):
    with pytest.raises(UnexpectedResponseError, match="is not a task status"):
        read_status({"status": word})


def test_only_finished_failed_and_canceled_are_end_statuses():
    assert {status for status in TaskStatus if status.ended} == {"finished", "failed", "canceled"}


def test_profile_id_is_read_under_both_of_its_field_names():
    assert CreatedTask.read({"id": "7", "profile_id": "5"}).profile_id == "5"
    for nothing in ({}, {"profile_id": None}, {"profile_id": ""}):
        assert CreatedTask.read({"id": "7", "profileId": "5", **nothing}).profile_id == "5"
    assert CreatedTask.read({"id": "7"}).profile_id is None


def test_template_id_is_read_from_list_and_single_responses():
    assert Template.read({"templateId": "t", "name": "n"}).id == Template.read({"id": "t", "name": "n"}).id == "t"


def test_input_parameters_of_a_workflow_are_read():
    workflow = Workflow.read({"id": "w", "input_parameters": [{"name": "keyword", "default_enabled": False}]})
    assert (workflow.input_parameters[0].name, workflow.input_parameters[0].default_enabled) == ("keyword", False)


def test_pages_and_lists_are_read_and_other_responses_refused():
    page = read_page(Region.read)(
        {"page": 2, "limit": 1, "items": [{"code": "US"}], "total_pages": 3, "total_count": 3}
    )
    assert (page.total_count, page.items[0].code) == (3, "US")
    assert read_list(Region.read)([{"code": "US", "name": "United States"}])[0].name == "United States"
    with pytest.raises(UnexpectedResponseError, match="no list of items"):
        read_page(Region.read)({"items": None})
    with pytest.raises(UnexpectedResponseError, match="should be a list"):
        read_list(Region.read)({"items": []})


@pytest.mark.parametrize(
    ("given", "read"),
    [(3, 3), ("3", 3), (" 3 ", 3), (3.0, 3), (3.5, None), (-1, None), (True, None), ("three", None), ([], None)],
    ids=repr,
)
def test_numbers_of_a_page_are_read_as_numbers_or_text(given, read):
    assert read_page(Region.read)({"items": [], "total_count": given}).total_count == read


def test_item_that_cannot_be_read_is_skipped_with_a_warning_that_names_it(caplog):
    items = [{"id": "7", "status": "teleported"}, {"id": "8", "status": "running"}, {"status": "running"}]
    page = read_page(Task.read)({"items": items})
    assert [task.id for task in page.items] == ["8"]
    assert [each.split(":")[0] for each in page.skipped] == ["7", "one without an id"]
    assert "2 of 3 items of a BrowserAct list cannot be read and are skipped: 7: 'teleported' is not" in caplog.text


def test_many_items_that_cannot_be_read_make_one_short_warning(caplog):
    page = read_page(Region.read)({"items": [{"name": "x" * 1000}] * 500})
    assert len(page.skipped) == 500
    assert len(caplog.records) == 1
    assert len(caplog.text) < 1000


def test_region_without_a_code_does_not_hide_the_others():
    assert [region.code for region in read_list(Region.read)([{"name": "?"}, {"code": "US"}])] == ["US"]


def test_workflow_with_an_input_that_cannot_be_read_declares_none():
    assert Workflow.read({"id": "w", "input_parameters": [{"name": "a"}, {"label": "b"}]}).input_parameters == ()


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"status": "teleported"}, "unknown"), ({}, "unknown"), ({"status": "finished", "output": "?"}, "finished")],
    ids=["status not documented", "no status", "odd output"],
)
def test_summary_of_an_odd_task_has_what_can_be_read(fields, status):
    task = Task.read_summary({"id": "7", "workflow_id": "70", **fields})
    assert (task.id, task.workflow_id, task.status, task.output) == ("7", "70", status, None)


@pytest.mark.parametrize("data", [{"status": "running"}, "?", None], ids=["no id", "text", "null"])
def test_summary_of_a_task_without_an_id_raises(data):
    with pytest.raises(UnexpectedResponseError):
        Task.read_summary(data)


def test_signed_download_url_is_not_in_the_repr_of_a_file():
    file = DownloadFile.read({"guid": "g", "downloadUrl": "https://signed/secret"})
    assert file.download_url == "https://signed/secret"
    assert "secret" not in repr(file)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "//x.example",
        "https://x.example/a b",
        "https://x\n",
        "https://x.example/\u202e",
        f"https://x.example/{'x' * MAX_LINK_LENGTH}",
        7,
        "",
    ],
    ids=str,
)
def test_invalid_live_and_log_urls_are_read_as_none(url):
    fields = {"live_url": url, "log_detail_url": url, "steps": [{"screenshots_url": url}]}
    task = Task.read({"id": "7", "status": "paused", **fields})
    assert (task.live_url, task.log_detail_url, task.steps[0].screenshots_url) == (None, None, None)
    assert Template.read({"id": "7", "detailUrl": url}).detail_url is None


FORGED = "Open\n[2026-11-27] INFO - forged\r\n::group::\x1b[31m\x07\u202eevil\u2028\u2066" + "x" * 100_000


def test_texts_of_pages_and_of_the_vendor_become_one_printable_line_of_limited_length():
    step = {"status": FORGED, "step_goal": FORGED, "evaluation_previous_goal": FORGED}
    file = {"status": FORGED, "errorMessage": FORGED}
    failure = {"code": 1011, "message": FORGED}
    task = Task.read(
        {"id": "7", "status": "failed", "steps": [step], "task_failure_info": failure, "download_files": [file]}
    )
    assert task.failure is not None
    [read], [download] = task.steps, task.download_files
    texts = [read.status, read.goal, read.evaluation_previous_goal, task.failure.message]
    for text in (*texts, download.status, download.error_message):
        assert text is not None
        assert text.startswith("Open [2026-11-27] INFO - forged ::group:: [31m evil xxx")
        assert text.isprintable()
        assert len(text) == MAX_LINE_LENGTH


@pytest.mark.parametrize("id_", ["7\n8", "\x1b[31m7", "\u202e7", "7" * (MAX_ID_LENGTH + 1)], ids=ascii)
def test_text_that_cannot_be_an_id_is_never_shown(id_):
    for read in (Task.read, CreatedTask.read):
        with pytest.raises(UnexpectedResponseError, match="has no id"):
            read({"id": id_, "status": "running"})
    task = Task.read({"id": "7", "status": "running", "workflow_id": id_, "profile_id": id_})
    assert (task.workflow_id, task.profile_id) == (None, None)


def test_unknown_status_is_shown_as_one_line_of_limited_length():
    with pytest.raises(UnexpectedResponseError) as caught:
        Task.read({"id": "7", "status": FORGED})
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < MAX_LINE_LENGTH + 100


def test_numbers_of_thousands_of_digits_are_left_out():
    task = Task.read({"id": "7", "status": "failed", "credit": 10**4000, "steps": [{"step": 10**4000}]})
    assert (task.credit, task.steps[0].number) == (None, None)
