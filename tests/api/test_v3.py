from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_browseract.api import v3
from airflow_provider_browseract.api.bots import Bot, BotTemplate
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.fields import MAX_LEVELS
from airflow_provider_browseract.api.models import (
    MAX_FILES,
    ApiVersion,
    BotType,
    CreatedTask,
    Output,
    OutputFile,
    Task,
    TaskStatus,
)
from airflow_provider_browseract.emulator.v3 import V3
from airflow_provider_browseract.exceptions import InputError, UnexpectedResponseError
from tests.cases import cases

CALLBACKS = {"callback_url": "https://example.com/a", "status_change_callback_url": "https://example.com/b"}
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)

EVERY_CALL: dict[str, Call[Any]] = {
    "create-run": v3.create_run("70", {"pages": 2}, **CALLBACKS),
    "create-template-run": v3.create_template_run("60", {"keyword": "pens"}, region="US", **CALLBACKS),
    "query-run-status": v3.query_run_status("7"),
    "query-run": v3.query_run("7"),
    "page-runs": v3.page_runs(
        bot_id="70", bot_name="shop", status=TaskStatus.FAILED, created_at_from=MOMENT, created_at_to=MOMENT
    ),
    "resume-run": v3.resume_run("7"),
    "cancel-run": v3.cancel_run("7", biz_code=1),
    "page-bots": v3.page_bots(bot_type="agent", keyword="shop"),
    "query-bot": v3.query_bot("70"),
    "page-templates": v3.page_templates(keyword="maps"),
    "query-template": v3.query_template("60"),
    "list-regions": v3.list_regions(),
}

RUN = {"task_id": "7", "bot_id": "70", "bot_type": "agent", "status": "finished", "input": {"pages": 2}}
OUTSIDE = ["..", "a/b", "5?x=1#", "%2e%2e", "", "7" * 201]
"""What could lead to another address."""


def read(**fields):
    return v3.query_run("7").read({**RUN, **fields})


@pytest.mark.parametrize(("name", "call"), EVERY_CALL.items(), ids=EVERY_CALL)
def test_each_call_has_the_name_method_and_path_of_its_endpoint(name, call):
    path = V3.endpoints[name].path.format(bot_id="70", template_id="60", task_id="7")
    assert (call.name, call.method, call.path) == (name, V3.endpoints[name].method, path)
    assert call.starts_run is (name in ("create-run", "create-template-run"))


def test_input_is_sent_as_it_is_and_an_empty_object_without_one():
    assert v3.create_run("70", {"pages": 2, "when": None}).body == {"input": {"pages": 2, "when": None}}
    assert v3.create_template_run("60", region="DE").body == {"input": {}, "proxy_region": "DE"}


@pytest.mark.parametrize("given", OUTSIDE)
def test_id_that_could_change_the_address_is_refused_by_every_call(given):
    tasks = (v3.query_run_status, v3.query_run, v3.resume_run, v3.cancel_run)
    sources = (v3.create_run, v3.create_template_run, v3.query_bot, v3.query_template)
    for call in (*tasks, *sources, lambda bot_id: v3.page_runs(bot_id=bot_id)):
        with pytest.raises(InputError, match="Use the id that the BrowserAct dashboard"):
            call(given)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": [value]}
    return value


DEEPEST = nested(MAX_LEVELS // 2)
FILE = {"file_name": "result.csv", "file_size": 9, "download_url": "https://files.example/result"}
CSV = OutputFile("csv", "result.csv", 9, "https://files.example/result")


@cases(
    ("fields", "read_as"),
    {
        "as few as possible": ({}, {}),
        "null as output": ({"output": None}, {}),
        "name": ({"bot_name": "Contacts"}, {"bot_name": "Contacts"}),
        "live view": ({"live_url_info": {"live_url": "https://live.example"}}, {"live_url": "https://live.example"}),
        "number as id": ({"task_id": 7}, {}),
        **{
            f"{output!a} as output": ({"output": output}, {"output": Output(text, is_json=is_json)})
            for output, text, is_json in (
                ({"a": [1, None, "\u00fc"]}, '{"a": [1, null, "\u00fc"]}', True),
                *((12, "12", True), (False, "false", True), ("007", "007", False)),
            )
        },
        "file as output": ({"output_files": {"csv": FILE}}, {"output": Output(None, formats=(CSV,))}),
        # The value is the same output as the files.
        **{
            f"value beside {file}": (
                {"output": [1], "output_files": {"csv": file}},
                {"output": Output("[1]", is_json=True, formats=(OutputFile("csv", name, None, None),))},
            )
            for file, name in (({"file_name": "a.csv", "download_url": None}, "a.csv"), (1, None))
        },
        "deep input": ({"input": DEEPEST}, {"input": DEEPEST}),
        "input too deep to be compared": ({"input": {"a": DEEPEST}}, {"input": None}),
        "list as input": ({"input": [1]}, {"input": None}),
        "fields of version 2": ({"workflow_id": "70", "profile_id": "5", "input_parameters": "a=1"}, {}),
        "other name of a profile": ({"profileId": "5"}, {}),
    },
)
def test_run_is_read_as_a_task_of_version_3(fields, read_as):
    task = read(**fields)
    assert task == Task(
        **{
            **{"id": "7", "status": TaskStatus.FINISHED, "bot_id": "70", "bot_type": BotType.AGENT},
            **{"input": {"pages": 2}, "api_version": ApiVersion.V3, **read_as},
        }
    )
    assert task.source_id == "70"


def test_only_a_limited_number_of_formats_is_read():
    task = read(output_files={str(number): FILE for number in range(MAX_FILES + 2)})
    assert task.output is not None
    assert (len(task.output.formats), task.files_left_out) == (MAX_FILES, 2)


@cases(
    "files",
    {
        "list": [],
        "no address": {"csv": {"file_name": "a"}},
        "empty address": {"csv": {"download_url": ""}},
        "number as address": {"csv": {"download_url": 7}},
        "no object": {"csv": 1},
    },
)
def test_unreadable_files_of_an_ended_run_are_an_error_because_a_paid_result_would_be_lost(files):
    with pytest.raises(UnexpectedResponseError):
        read(output=None, output_files=files)
    assert read(output=None, output_files=files, status="running").output is None


STATUS, CANCEL, RESUME = v3.query_run_status("7"), v3.cancel_run("7"), v3.resume_run("7")
NO_TASK = {"status": "failed", "message": "upstream"}
BOT, TEMPLATE = {"bot_id": "70", "bot_type": "new", "input_schema": []}, {"template_id": "60", "input_schema": {}}


@cases(
    ("call", "response", "result"),
    {
        "start": (v3.create_run("70"), {"task_id": "7"}, CreatedTask("7")),
        # As the vendor's scripts read it.
        "start with another name of the id": (v3.create_run("70"), {"id": "7"}, CreatedTask("7")),
        "bot": (v3.query_bot("70"), BOT, Bot("70", input_schema=[])),
        "template": (v3.query_template("60"), TEMPLATE, BotTemplate("60", input_schema={})),
        "number as id": (STATUS, {"task_id": 7, "status": "finished"}, "finished"),
        **{
            f"{call.name}: {response}": (call, response, None)
            for call in (CANCEL, RESUME)
            for response in ({"task_id": "7", "status": "canceled"}, None, {}, {"code": 0})
        },
    },
)
def test_response_to_a_call_is_read(call, response, result):
    assert call.read(response) == result


@cases(
    ("call", "response", "words"),
    {
        **{
            f"id {given} of a new task": (v3.create_run("70"), {"task_id": given}, "characters that no address")
            for given in OUTSIDE[:4]
        },
        **{
            f"{call.name} of another task": (call, {**RUN, "task_id": "8"}, "about another task")
            for call in (v3.query_run("7"), STATUS, CANCEL, RESUME)
        },
        # It may be the status of a gateway.
        **{f"{call.name} without a task": (call, NO_TASK, "not name the task") for call in (STATUS, CANCEL, RESUME)},
        **{
            f"{call.name}: {response}": (call, response, words)
            for call in (CANCEL, RESUME)
            for response, words in (
                ({"task_id": "7", "status": "gone"}, "is not a task status"),
                ("ok", "should be empty"),
                ({"done": True}, "should be empty"),
            )
        },
    },
)
def test_response_that_may_be_that_of_another_service_is_refused(call, response, words):
    with pytest.raises(UnexpectedResponseError, match=words):
        call.read(response)


def test_runs_and_bots_can_be_kept_in_sets():
    schema = {"input_schema": {"type": "object"}, "output_schema": {}}
    bots = [v3.query_bot("70").read({"bot_id": "70", "name": name, **schema}) for name in "aab"]
    templates = [v3.query_template("60").read({"template_id": "60", **schema}) for _ in range(2)]
    assert (len({*bots}), len({*templates})) == (2, 1)
    assert "object" not in repr((bots, templates))
    assert len({read(), read(), read(input={})}) == 2
