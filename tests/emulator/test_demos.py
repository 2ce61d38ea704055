"""The emulator as in the vendor's demos, key by key.

The examples are the facts of the comments in ``Workflow-Python/*.py`` of https://github.com/browseract-ai/browseract:
each key, each word, number and null as it is there, and the kind of every other value.
"""

from __future__ import annotations

import json
import re
from unittest.mock import ANY

import pytest

from airflow_provider_browseract.emulator import CONTACTS, HUMAN, EmulatedFile, WorkflowInput
from tests.catalogue import FAILING, PLAIN_TEXT, TEMPLATE_TEXT
from tests.demos import respond_as_in_the_demos


class Like:
    """Is equal to each text that matches a pattern."""

    def __init__(self, pattern):
        self.pattern = pattern

    def __eq__(self, other):
        return isinstance(other, str) and re.fullmatch(self.pattern, other) is not None


# Examples of a profile's id are words, but ids of the emulator are numbers.
ID, NAME, TEXT, LINK = Like("[0-9]+"), Like(r"\w+"), Like(r"(?s).*\w.*"), Like(r"https?://\S+")
MOMENT, TIME = Like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), Like(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
INPUTS = {"target_url": "https://www.example.com/?q=pens", "product_limit": "10"}
LIVE_VIEW = {"width": 1280, "height": 1024, "live_url": LINK}
STEP = {
    "id": ID,
    "step": ANY,
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
PAGE = {"page": 1, "limit": 10, "total_pages": 1, "total_count": 3}
ENVELOPE = {"data": None, "ts": ANY, "time": TIME, "traceId": NAME}
ERRORS = {
    401: "Invalid authorization",
    10112: "Task is not exist.",
    10118: "Running tasks number exceeds.",
    10121: "Task has completed.",
    10127: "Task resume only use for paused task",
}


@pytest.fixture
def account(make_account):
    """An account on whose workflows the runs of the examples can be made."""
    account = make_account()
    respond_as_in_the_demos(account.emulator)
    inputs = tuple(WorkflowInput(name, required=False) for name in INPUTS)
    files = (EmulatedFile("a.csv", b"a"),)
    account.emulator.set_workflow(PLAIN_TEXT.id, inputs=inputs, duration=4.0, output="", files=files)
    account.emulator.set_workflow(FAILING.id, inputs=inputs)
    return account


def test_task_that_is_not_over_is_as_in_the_demos(account):
    account.emulator.set_workflow(PLAIN_TEXT.id, queued=1.0)
    task_id = account.run(PLAIN_TEXT, INPUTS)
    created = {**RUNNING, "status": "created", "finished_at": None, "steps": []}
    assert account.task(task_id) == created
    account.pass_time(4)
    task = account.task(task_id)
    assert task == RUNNING
    assert task["finished_at"] == task["created_at"]


def test_list_of_ended_tasks_is_as_in_the_demos(account):
    for workflow in (FAILING, PLAIN_TEXT, PLAIN_TEXT):
        account.start(workflow, INPUTS, save_browser_data=True)
    account.pass_time(5)
    page = account.call("list-tasks", page=1, limit=10)
    assert page == {**PAGE, "items": [FINISHED, FINISHED, FAILED]}


def test_response_to_a_start_is_as_in_the_demos(account):
    for created in (
        account.start(PLAIN_TEXT, INPUTS, save_browser_data=True, profile_id=""),
        account.call("run-task-by-template", workflow_template_id=TEMPLATE_TEXT.id),
    ):
        assert created == {"id": ID, "profileId": ID}
        assert account.task(created["id"])["profile_id"] == created["profileId"]


@pytest.mark.parametrize("code", ERRORS)
def test_error_envelope_is_as_in_the_demos(account, code):
    envelope = json.loads(account.emulator.error("get-task", code, 400).body)
    assert envelope == {**ENVELOPE, "code": code, "msg": ERRORS[code]}
    assert "data" not in json.loads(account.emulator.error("query-run", code, 400).body)


def test_run_of_a_bot_is_as_in_the_demos(account):
    created = account.call("create-run", bot_id=CONTACTS.id, input={"company_name": "Example Corp"})
    assert created.keys() == {"id", "status"}
    other = account.call("create-run", bot_id=HUMAN.id, input={})["id"]
    account.pass_time(1)
    assert account.call("resume-run", task_id=other) is account.call("cancel-run", task_id=other) is None
    account.pass_time(1)
    run = account.call("query-run", task_id=created["id"])
    assert run["live_url_info"]["live_url"]
    assert (run["output"], "steps" in run, len(run["output_files"])) == (None, False, 4)


def test_documented_responses_can_be_turned_on_again(account):
    account.emulator.as_in_the_demos = False
    assert account.task(account.run(PLAIN_TEXT, INPUTS))["credit"] == 5
