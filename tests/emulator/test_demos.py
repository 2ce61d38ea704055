"""The emulator as in the vendor's demos, key by key.

The examples are the facts of the comments in ``Workflow-Python/*.py`` of https://github.com/browseract-ai/browseract:
each key, each word, number and null as it is there, and the kind of every other value.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_browseract.emulator import FAILING, PLAIN_TEXT, TEMPLATE_TEXT, EmulatedFile, WorkflowInput
from airflow_provider_browseract.emulator.errors import MESSAGES, error_envelope
from tests.emulator.conftest import NOON

ID, NAME, TEXT, LINK, MOMENT, TIME, NUMBER = "id", "name", "text", "link", "moment", "time", "number"
"""Kinds of values. Examples of a profile's id are words, but ids of the emulator are numbers."""

INPUTS = {"target_url": "https://www.example.com/?q=pens", "product_limit": "10"}
LIVE_VIEW = {"width": 1280, "height": 1024, "live_url": LINK}
STEP = {
    "id": ID,
    "step": NUMBER,
    "status": "succeed",
    "evaluation_previous_goal": TEXT,
    "step_goal": TEXT,
    "screenshots_url": LINK,
}
LISTED = {
    "id": ID,
    "live_url_info": LIVE_VIEW,
    "live_url": LINK,
    "profile_id": ID,
    "created_at": MOMENT,
    "finished_at": MOMENT,
    "task_failure_info": None,
    "workflow_id": ID,
    "input_parameters": "target_url=https://www.example.com/?q=pens; product_limit=10",
}
RUNNING = {**LISTED, "status": "running", "output": {"string": None, "files": None}, "steps": [STEP, STEP]}
FINISHED = {**LISTED, "status": "finished", "output": {"string": "", "files": [LINK]}}
FAILED = {
    **LISTED,
    "status": "failed",
    "output": {"string": "", "files": None},
    "task_failure_info": {"code": 1011, "message": TEXT},
}
PAGE = {"page": 1, "limit": 10, "total_pages": 1}
WORKFLOW = {"id": ID, "name": TEXT, "description": TEXT, "create_at": MOMENT, "publish_at": MOMENT}
INPUT = {"name": NAME, "default_enabled": True}
TEMPLATE = {"templateId": ID, "name": TEXT, "recommendDesc": TEXT, "detailUrl": LINK}
REGIONS = {"US": "United States", "UK": "United Kingdom", "DE": "Germany", "JP": "Japan"}
ENVELOPE = {"data": None, "ts": NUMBER, "time": TIME, "traceId": NAME}
ERRORS = {
    401: "Invalid authorization",
    10112: "Task is not exist.",
    10118: "Running tasks number exceeds.",
    10121: "Task has completed.",
    10127: "Task resume only use for paused task",
}

KINDS = {
    ID: re.compile(r"[0-9]+"),
    NAME: re.compile(r"\w+"),
    TEXT: re.compile(r"(?s).*\w.*"),
    LINK: re.compile(r"https?://\S+"),
    MOMENT: re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    TIME: re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"),
}


def differences(value: Any, example: Any, path: str = "") -> list[str]:
    """Return the keys and values in which a response differs from an example."""
    if isinstance(example, dict) and isinstance(value, dict):
        found = [f"{path}.{key} is only in one of them" for key in value.keys() ^ example.keys()]
        for key in value.keys() & example.keys():
            found += differences(value[key], example[key], f"{path}.{key}")
        return found
    if isinstance(example, list) and isinstance(value, list) and len(value) == len(example):
        return [each for pair in zip(value, example, strict=True) for each in differences(*pair, f"{path}[]")]
    if isinstance(example, str) and example in KINDS:
        same = isinstance(value, str) and KINDS[example].fullmatch(value) is not None
    else:
        same = type(value) is int if example is NUMBER else value == example
    return [] if same else [f"{path} is {value!r} instead of {example!r}"]


@pytest.fixture
def account(make_account: Any) -> Any:
    """An account on whose workflows the runs of the examples can be made."""
    account = make_account(as_in_the_demos=True)
    inputs = tuple(WorkflowInput(name, required=False) for name in INPUTS)
    account.setting(PLAIN_TEXT, inputs=inputs, duration=4.0, output="", files=(EmulatedFile("a.csv", b"a"),))
    account.setting(FAILING, inputs=inputs)
    return account


def test_running_task_is_as_in_the_demos(account: Any) -> None:
    task_id = account.run(PLAIN_TEXT, INPUTS)
    account.pass_time(3)
    task = account.task(task_id)
    assert differences(task, RUNNING) == []
    assert task["finished_at"] == task["created_at"]


def test_list_of_ended_tasks_is_as_in_the_demos(account: Any) -> None:
    for workflow in (FAILING, PLAIN_TEXT, PLAIN_TEXT):
        account.run(workflow, INPUTS)
    account.pass_time(5)
    page = account.get("list-tasks", workflow_id="", page=1, limit=10)
    assert differences(page, {**PAGE, "items": [FINISHED, FINISHED, FAILED], "total_count": 3}) == []


def test_empty_list_of_tasks_is_as_in_the_demos(account: Any) -> None:
    page = account.get("list-tasks", workflow_id="", page=1, limit=10)
    assert page == {**PAGE, "items": [], "total_pages": 0, "total_count": 0}


def test_response_to_a_start_is_as_in_the_demos(account: Any) -> None:
    created = account.start(PLAIN_TEXT, INPUTS, save_browser_data=True, profile_id="")
    assert differences(created, {"id": ID, "profileId": ID}) == []
    assert account.task(created["id"])["profile_id"] == created["profileId"]


def test_response_to_a_start_of_a_template_is_as_in_the_demos(account: Any) -> None:
    created = account.post("run-task-by-template", {"workflow_template_id": TEMPLATE_TEXT.id})
    assert differences(created, {"id": ID, "profileId": ID}) == []
    assert account.task(created["id"])["profile_id"] == created["profileId"]


def test_responses_about_workflows_templates_and_regions_are_as_in_the_demos(account: Any) -> None:
    workflow = account.get("get-workflow", workflow_id=PLAIN_TEXT.id)
    assert differences(workflow, {**WORKFLOW, "input_parameters": [INPUT, INPUT]}) == []
    account.emulator.workflows = {PLAIN_TEXT.id: account.emulator.find(PLAIN_TEXT.id)}
    page = account.get("list-workflows", page=1, limit=10)
    assert differences(page, {**PAGE, "items": [WORKFLOW], "total_count": 1}) == []
    page = account.get("list-official-workflow-templates", page=1, limit=10)
    assert differences(page, {**PAGE, "items": [TEMPLATE] * 3, "total_count": 3}) == []
    assert {one["code"]: one["name"] for one in account.get("get-region-list")} == REGIONS


@pytest.mark.parametrize("code", ERRORS)
def test_error_envelope_is_as_in_the_demos(code: int) -> None:
    envelope = error_envelope(code, MESSAGES[code], NOON, as_in_the_demos=True)
    assert differences(envelope, {**ENVELOPE, "code": code, "msg": ERRORS[code]}) == []


@pytest.mark.parametrize("setting", ["as_in_the_demos", "errors_as_in_the_demos"])
def test_server_responds_with_the_error_envelope_of_the_demos(serve: Any, setting: str) -> None:
    envelope = serve(**{setting: True}).call("GET", "get-task", params={"task_id": "1"}).json()
    assert differences(envelope, {**ENVELOPE, "code": 10112, "msg": ERRORS[10112]}) == []


def test_task_that_has_not_begun_has_a_live_view_and_no_end(account: Any) -> None:
    account.setting(PLAIN_TEXT, queued=10.0)
    task = account.task(account.run(PLAIN_TEXT, INPUTS))
    assert differences(task, {**RUNNING, "status": "created", "finished_at": None, "steps": []}) == []


def test_text_of_a_finished_task_is_its_output(account: Any) -> None:
    account.setting(PLAIN_TEXT, output="text", files=())
    task_id = account.run(PLAIN_TEXT, INPUTS)
    account.pass_time(4)
    assert account.task(task_id)["output"] == {"string": "text", "files": None}


def test_empty_workflow_id_is_refused_outside_the_mode(make_account: Any, code_of: Any) -> None:
    assert code_of(lambda: make_account().get("list-tasks", workflow_id="")) == 99001
