"""The rewrites of ``tests/demos.py`` against the comments in ``Workflow-Python/*.py`` of the vendor's repository."""

from __future__ import annotations

import json
import re

import pytest

from airflow_provider_browseract.emulator import CONTACTS, HUMAN
from tests.catalogue import FAILING, PLAIN_TEXT, TEMPLATE_TEXT
from tests.demos import respond_as_in_the_demos

from .conftest import Account

TASK = {
    *("id", "status", "profile_id", "workflow_id", "input_parameters", "live_url_info", "live_url"),
    *("created_at", "finished_at", "output", "task_failure_info"),
}


@pytest.fixture
def account():
    account = Account()
    respond_as_in_the_demos(account.emulator).as_in_the_demos = True
    account.emulator.set_workflow(PLAIN_TEXT.id, duration=4.0, output="")
    return account


def test_start_has_the_profile_under_another_name(account):
    saved = account.start(PLAIN_TEXT, save_browser_data=True)
    for created in (saved, account.call("run-task-by-template", workflow_template_id=TEMPLATE_TEXT.id)):
        assert created == {"id": created["id"], "profileId": account.task(created["id"])["profile_id"]}


def test_task_has_null_for_what_it_does_not_have_and_only_in_a_list_no_steps(account):
    account.emulator.set_workflow(PLAIN_TEXT.id, queued=1.0)
    task_id = account.run(PLAIN_TEXT)
    account.run(FAILING)
    created = account.task(task_id)
    account.pass_time(3)
    running = account.task(task_id)
    assert created.keys() == running.keys() == {*TASK, "steps"}
    assert (created["finished_at"], created["steps"], created["output"]) == (None, [], {"string": None, "files": None})
    assert (running["finished_at"], len(running["steps"])) == (running["created_at"], 1)
    account.pass_time(2)
    failed, finished = account.call("list-tasks", limit=10)["items"]
    assert failed.keys() == finished.keys() == TASK
    assert failed["output"] == finished["output"] == {"string": "", "files": None}
    assert (failed["task_failure_info"]["code"], finished["task_failure_info"]) == (1011, None)


def test_error_has_its_own_form_of_time_and_no_data(account):
    body = json.loads(account.emulator.error("get-task", 10112, 400).body)
    assert body.keys() == {"code", "msg", "data", "ts", "time", "traceId"}
    assert (body["data"], bool(re.fullmatch(r"[\d-]{10} [\d:]{8}", body["time"]))) == (None, True)
    assert "data" not in json.loads(account.emulator.error("query-run", 10112, 400).body)


def test_run_of_a_bot_has_no_steps_and_no_output_beside_files(account):
    created = account.call("create-run", bot_id=CONTACTS.id, input={"company_name": "Example Corp"})
    assert created.keys() == {"id", "status"}
    other = account.call("create-run", bot_id=HUMAN.id, input={})["id"]
    account.pass_time(1)
    assert account.call("resume-run", task_id=other) is account.call("cancel-run", task_id=other) is None
    account.pass_time(1)
    run = account.call("query-run", task_id=created["id"])
    assert run["live_url_info"]["live_url"]
    assert (run["output"], "steps" in run, len(run["output_files"])) == (None, False, 4)
