from datetime import datetime, timezone
from functools import partial
from typing import Any

import pytest

from airflow_provider_browseract.api import v3
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import (
    ApiVersion,
    BotTask,
    BotType,
    CreatedTask,
    Output,
    OutputFile,
    SourceInfo,
    TaskStatus,
)
from airflow_provider_browseract.exceptions import InputError, UnexpectedResponseError
from tests.helpers.cases import cases
from tests.helpers.steps import read

CALLBACKS = {"callback_url": "https://example.com/a", "status_change_callback_url": "https://example.com/b"}
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)

CALLS: dict[str, partial[Call[Any]]] = {
    "create-run": partial(v3.run, "70", {"pages": 2}, **CALLBACKS),
    "create-template-run": partial(v3.run_template, "60", {"keyword": "pens"}, region="US", **CALLBACKS),
    "query-run-status": partial(v3.get_task_status, "7"),
    "query-run": partial(v3.get_task, "7"),
    "page-runs": partial(
        v3.list_tasks, source_id="70", name="shop", status=TaskStatus.FAILED, created_at_from=TIME, created_at_to=TIME
    ),
    "resume-run": partial(v3.resume_task, "7"),
    "cancel-run": partial(v3.stop_task, "7", biz_code=1),
    "page-bots": partial(v3.list_sources, bot_type="agent", keyword="shop"),
    "query-bot": partial(v3.get_source, "70"),
    "page-templates": partial(v3.list_templates, keyword="maps"),
    "query-template": partial(v3.get_template, "60"),
    "list-regions": partial(v3.list_regions),
}
EVERY_CALL = {name: call() for name, call in CALLS.items()}

RUN = {"task_id": "7", "bot_id": "70", "bot_type": "agent", "status": "finished", "input": {"pages": 2}}
OUTSIDE = ["..", "a/b", "5?x=1#", "%2e%2e", "", "7" * 201]
"""What could lead to another address."""


def read_run(**fields):
    return read(v3.get_task("7"), {**RUN, **fields})


def test_input_is_sent_as_it_is_and_an_empty_object_without_one():
    assert v3.run("70", {"pages": 2, "when": None}).body == {"input": {"pages": 2, "when": None}}
    assert v3.run_template("60", region="DE").body == {"input": {}, "proxy_region": "DE"}


@pytest.mark.parametrize("given", OUTSIDE)
def test_id_that_could_change_the_address_is_refused_by_every_call(given):
    tasks = (v3.get_task_status, v3.get_task, v3.resume_task, v3.stop_task)
    sources = (v3.run, v3.run_template, v3.get_source, v3.get_template)
    for call in (*tasks, *sources, lambda bot_id: v3.list_tasks(source_id=bot_id)):
        with pytest.raises(InputError, match="Use the id that the BrowserAct dashboard"):
            call(given)


FILE = {"file_name": "result.csv", "file_size": 9, "download_url": "https://files.example/result"}
CSV = OutputFile(format="csv", name="result.csv", size=9, url="https://files.example/result")


@cases(
    ("as few as possible", {}, {}),
    ("null as output", {"output": None}, {}),
    ("number as id", {"task_id": 7}, {}),
    *(
        (f"{output!a} as output", {"output": output}, {"output": Output(string=text, is_json=is_json)})
        for output, text, is_json in (
            ({"a": [1, None, "\u00fc"]}, '{"a": [1, null, "\u00fc"]}', True),
            *((12, "12", True), (False, "false", True), ("007", "007", False), ("a\ud83d", "a\ud83d", False)),
        )
    ),
    ("file as output", {"output_files": {"csv": FILE}}, {"output": Output(string=None, formats=(CSV,))}),
    # The value is the same output as the files.
    *(
        (
            f"value beside {file}",
            {"output": [1], "output_files": {"csv": file}},
            {"output": Output(string="[1]", is_json=True, formats=(OutputFile(format="csv", name=name),))},
        )
        for file, name in (({"file_name": "a.csv", "download_url": None}, "a.csv"), (1, None))
    ),
    ("list as input", {"input": [1]}, {"input": None}),
)
def test_run_is_read_as_a_task_of_version_3(fields, read_as):
    task = read_run(**fields)
    assert task == BotTask(
        **{
            **{"id": "7", "status": TaskStatus.FINISHED, "bot_id": "70", "bot_type": BotType.AGENT},
            **{"input": {"pages": 2}, **read_as},
        }
    )
    assert (task.source_id, task.api_version) == ("70", ApiVersion.V3)


@cases(
    ("list of files", [FILE]),
    ("no address", {"csv": {"file_name": "a"}}),
    ("empty address", {"csv": {"download_url": ""}}),
    ("number as address", {"csv": {"download_url": 7}}),
    ("no object", {"csv": 1}),
)
def test_unreadable_files_of_an_ended_run_are_an_error_because_a_paid_result_would_be_lost(files):
    with pytest.raises(UnexpectedResponseError):
        read_run(output=None, output_files=files)
    assert read_run(output=None, output_files=files, status="running").output is None


STATUS, CANCEL, RESUME = v3.get_task_status("7"), v3.stop_task("7"), v3.resume_task("7")
NO_TASK = {"status": "failed", "message": "upstream"}
BOT, TEMPLATE = {"bot_id": "70", "bot_type": "new", "input_schema": []}, {"template_id": "60", "input_schema": {}}


@cases(
    ("start", v3.run("70"), {"task_id": "7"}, CreatedTask(id="7")),
    # As the vendor's scripts read it.
    ("start with another name of the id", v3.run("70"), {"id": "7"}, CreatedTask(id="7")),
    ("bot", v3.get_source("70"), BOT, SourceInfo(id="70", input_schema=[])),
    ("template", v3.get_template("60"), TEMPLATE, SourceInfo(id="60", input_schema={})),
    ("number as id", STATUS, {"task_id": 7, "status": "finished"}, "finished"),
    *(
        (f"{call.name}: {response}", call, response, None)
        for call in (CANCEL, RESUME)
        for response in (None, {}, {"code": 0})
    ),
    *(
        (f"{call.name} with a status", call, {"task_id": "7", "status": "canceled"}, "canceled")
        for call in (CANCEL, RESUME)
    ),
)
def test_response_to_a_call_is_read(call, response, result):
    found = read(call, response)
    assert getattr(found, "status", found) == result


@cases(
    *(
        (f"id {given} of a new task", v3.run("70"), {"task_id": given}, "task_id: String should")
        for given in OUTSIDE[:4]
    ),
    *(
        (f"{call.name} of another task", call, {**RUN, "task_id": "8"}, "about another task")
        for call in (v3.get_task("7"), STATUS, CANCEL, RESUME)
    ),
    # It may be the status of a gateway.
    *((f"{call.name} without a task", call, NO_TASK, "task_id: Field") for call in (STATUS, CANCEL, RESUME)),
    *(
        (f"{call.name}: {response}", call, response, words)
        for call in (CANCEL, RESUME)
        for response, words in (
            ({"task_id": "7", "status": "gone"}, "is not a task status"),
            ("ok", "should be a valid dictionary"),
            ({"done": True}, "Field required"),
        )
    ),
)
def test_response_that_may_be_that_of_another_service_is_refused(call, response, words):
    with pytest.raises(UnexpectedResponseError, match=words):
        read(call, response)


@pytest.mark.parametrize("call", [v3.list_sources, v3.list_templates])
def test_keyword_of_more_than_200_characters_is_refused_before_it_is_sent(call):
    call(keyword="x" * 200)
    with pytest.raises(InputError, match="keyword has 201 characters"):
        call(keyword="x" * 201)
