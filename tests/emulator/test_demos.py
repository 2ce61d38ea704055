"""The emulator as in the vendor's demos, key by key.

The examples are the facts of the comments in ``Workflow-Python/*.py`` of https://github.com/browseract-ai/browseract:
each key, each word, number and null as it is there, and the kind of every other value.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from airflow_provider_browseract.emulator import CONTACTS, HUMAN, EmulatedFile, WorkflowInput
from tests.catalogue import FAILING, PLAIN_TEXT, TEMPLATE_TEXT
from tests.demos import respond_as_in_the_demos

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
    account = make_account()
    respond_as_in_the_demos(account.emulator)
    inputs = tuple(WorkflowInput(name, required=False) for name in INPUTS)
    files = (EmulatedFile("a.csv", b"a"),)
    account.emulator.set_workflow(PLAIN_TEXT.id, inputs=inputs, duration=4.0, output="", files=files)
    account.emulator.set_workflow(FAILING.id, inputs=inputs)
    return account


def test_running_task_is_as_in_the_demos(account: Any) -> None:
    task_id = account.run(PLAIN_TEXT, INPUTS)
    account.pass_time(3)
    task = account.task(task_id)
    assert differences(task, RUNNING) == []
    assert task["finished_at"] == task["created_at"]


def test_list_of_ended_tasks_is_as_in_the_demos(account: Any) -> None:
    for workflow in (FAILING, PLAIN_TEXT, PLAIN_TEXT):
        account.start(workflow, INPUTS, save_browser_data=True)
    account.pass_time(5)
    page = account.call("list-tasks", page=1, limit=10)
    assert differences(page, {**PAGE, "items": [FINISHED, FINISHED, FAILED], "total_count": 3}) == []


def test_response_to_a_start_is_as_in_the_demos(account: Any) -> None:
    for created in (
        account.start(PLAIN_TEXT, INPUTS, save_browser_data=True, profile_id=""),
        account.call("run-task-by-template", workflow_template_id=TEMPLATE_TEXT.id),
    ):
        assert differences(created, {"id": ID, "profileId": ID}) == []
        assert account.task(created["id"])["profile_id"] == created["profileId"]


def test_responses_about_workflows_templates_and_regions_are_as_in_the_demos(account: Any) -> None:
    workflow = account.call("get-workflow", workflow_id=PLAIN_TEXT.id)
    assert differences(workflow, {**WORKFLOW, "input_parameters": [INPUT, INPUT]}) == []
    for endpoint, known, item in (
        ("list-workflows", PLAIN_TEXT, WORKFLOW),
        ("list-official-workflow-templates", TEMPLATE_TEXT, TEMPLATE),
    ):
        account.emulator.workflows = {known.id: known}
        page = account.call(endpoint, page=1, limit=10)
        assert differences(page, {**PAGE, "items": [item], "total_count": 1}) == []
    assert {one["code"]: one["name"] for one in account.call("get-region-list")} == REGIONS


@pytest.mark.parametrize("code", ERRORS)
def test_error_envelope_is_as_in_the_demos(account: Any, code: int) -> None:
    envelope = json.loads(account.emulator.error("get-task", code, 400).body)
    assert differences(envelope, {**ENVELOPE, "code": code, "msg": ERRORS[code]}) == []
    assert "data" not in json.loads(account.emulator.error("query-run", code, 400).body)


def test_task_that_has_not_begun_is_as_in_the_demos(account: Any) -> None:
    account.emulator.set_workflow(PLAIN_TEXT.id, queued=10.0)
    task = account.task(account.run(PLAIN_TEXT, INPUTS))
    assert differences(task, {**RUNNING, "status": "created", "finished_at": None, "steps": []}) == []


def test_run_of_a_bot_is_as_in_the_demos(account: Any) -> None:
    created = account.call("create-run", bot_id=CONTACTS.id, input={"company_name": "Example Corp"})
    assert created.keys() == {"id", "status"}
    other = account.call("create-run", bot_id=HUMAN.id, input={})["id"]
    account.pass_time(1)
    assert account.call("resume-run", task_id=other) is account.call("cancel-run", task_id=other) is None
    account.pass_time(1)
    run = account.call("query-run", task_id=created["id"])
    assert run["live_url_info"]["live_url"]
    assert (run["output"], "steps" in run, len(run["output_files"])) == (None, False, 4)


def test_documented_responses_can_be_turned_on_again(account: Any) -> None:
    account.emulator.as_in_the_demos = False
    assert account.task(account.run(PLAIN_TEXT, INPUTS))["credit"] == 5
