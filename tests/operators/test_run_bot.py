"""Bots and the templates that run as bots: another start, a checked input, and everything else as with workflows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import CONTACTS, SEARCH, TEMPLATE_SEARCH, Output, RequestFault
from airflow_provider_browseract.operators.browseract import (
    RunBotOperator,
    RunBotTemplateOperator,
)
from tests.cases import cases
from tests.catalogue import PRICES
from tests.workers import BOTH_WAYS, PENS, calls_of

# In the vendor's example, the output is null beside its files.
pytestmark = pytest.mark.usefixtures("documented_responses")

COMPANY = {"company_name": "Example Corp", "max_pages": 2}
BOT = {"operator_class": RunBotOperator, "bot_id": CONTACTS.id, "input": COMPANY}
SECRET = "hunter2ofthistest"


@pytest.fixture(autouse=True)
def _short_patience(connect, emulator):
    connect({"retry_budget": 0.2, "read_timeout": 10, "webhook_base_url": "http://127.0.0.1:1"})
    for each in emulator.of_kind("template"):
        emulator.set_workflow(each.id, duration=0.2)


@BOTH_WAYS
def test_bot_runs_with_typed_input_and_returns_its_output_as_a_value(worker, emulator, deferrable):
    run = worker(**BOT, deferrable=deferrable)
    result = run.run()
    assert (result["company_name"], len(result["pages"])) == ("Example Corp", 2)
    [task] = emulator.tasks
    assert (task.api_version, dict(task.inputs)) == ("v3", COMPANY)
    assert run.ti.xcoms["task_id"] == task.id
    assert "profile_id" not in run.ti.xcoms
    assert "Example Corp" not in json.dumps(run.ti.xcoms["task"])
    if deferrable:
        assert task.callback_url is not None


def test_bot_without_an_input_gets_an_empty_object(worker, emulator):
    emulator.set_workflow(
        CONTACTS.id, input_schema={"type": "object"}, behaviour=lambda run: Output(value=[*run.inputs])
    )
    assert worker(operator_class=RunBotOperator, bot_id=CONTACTS.id).run() == []
    assert dict(emulator.tasks[0].inputs) == {}


def test_bot_and_workflow_need_the_same_number_of_requests(worker, emulator):
    emulator.set_workflow(SEARCH.id, duration=0.0)
    emulator.set_workflow(CONTACTS.id, duration=0.0)
    worker(workflow_id=SEARCH.id, input_parameters=PENS, deferrable=True).run()
    of_workflow = [request.endpoint for request in emulator.requests]
    worker(**BOT, deferrable=True).run()
    of_bot = [request.endpoint for request in emulator.requests][len(of_workflow) :]
    assert of_workflow == ["get-workflow", "run-task", "get-task"]
    assert of_bot == ["query-bot", "create-run", "query-run"]


@BOTH_WAYS
def test_template_runs_as_a_bot_with_its_region(worker, emulator, deferrable):
    run = worker(
        operator_class=RunBotTemplateOperator,
        template_id=TEMPLATE_SEARCH.id,
        region="DE",
        input={"keyword": "pens", "max_items": "2"},
        deferrable=deferrable,
    )
    assert len(run.run()) == 2
    [task] = emulator.tasks
    assert (task.api_version, task.workflow.kind, task.proxy_region) == ("v3", "template", "DE")
    assert "profile_id" not in run.ti.xcoms


def test_bot_without_a_language_model_fails_without_a_retry_and_names_the_remedy(worker, emulator):
    emulator.fault("create-run", RequestFault.refused(10021))
    with pytest.raises(AirflowFailException, match="choose its language model"):
        worker(**BOT).run()


class TestDurableTries:
    @pytest.mark.parametrize("given", [COMPANY, {**COMPANY, "max_pages": "2"}], ids=["typed", "converted"])
    def test_later_try_reattaches_to_the_run_of_the_same_input(self, worker, emulator, store, given):
        emulator.set_workflow(CONTACTS.id, duration=60.0)
        for _ in range(2):
            run = worker(**{**BOT, "input": given}, store=store, wait_for_completion=False)
            assert run.run() == emulator.tasks[0].id
        assert len(emulator.tasks) == calls_of(emulator, "query-bot") == 1

    def test_later_try_with_another_input_stops_the_run_of_the_earlier_one(self, worker, emulator, store):
        emulator.set_workflow(CONTACTS.id, duration=60.0)
        for pages in (2, 3):
            worker(**{**BOT, "input": {**COMPANY, "max_pages": pages}}, store=store, wait_for_completion=False).run()
        assert [task.status for task in emulator.tasks] == ["canceled", "running"]

    def test_kill_stops_the_run_of_a_bot(self, worker, emulator):
        emulator.set_workflow(CONTACTS.id, duration=60.0)
        run = worker(**BOT)
        operator = run.operator()
        send = operator.hook.client.send

        def killed_at_the_first_read(call):
            if call.name == "query-run":
                operator.on_kill()
            return send(call)

        operator.hook.client.send = killed_at_the_first_read
        with pytest.raises(Exception, match="Killed"):
            operator.execute(run.context)
        assert [task.status for task in emulator.tasks] == ["canceled"]


class TestValidateOutput:
    @BOTH_WAYS
    def test_output_that_matches_the_schema_is_returned_after_one_more_request(self, worker, emulator, deferrable):
        assert worker(**BOT, deferrable=deferrable, validate_output=True).run()["pages"]
        assert [request.endpoint for request in emulator.requests].count("query-bot") == 2

    def test_output_is_not_compared_by_default(self, worker, emulator):
        emulator.set_workflow(CONTACTS.id, output={"company_name": 7})
        assert worker(**BOT).run() == {"company_name": 7}

    @BOTH_WAYS
    def test_output_that_does_not_match_fails_without_a_retry_and_is_kept_in_an_xcom(
        self, worker, emulator, store, deferrable
    ):
        output = {"company_name": 7, "official_website_url": SECRET}
        emulator.set_workflow(CONTACTS.id, output=output)
        run = worker(**BOT, store=store, deferrable=deferrable, validate_output=True)
        with pytest.raises(AirflowFailException) as failed:
            run.run()
        message = str(failed.value)
        assert "its output does not match the output schema of the bot: " in message
        assert "['company_name'] must be a text" in message
        assert "The text is stored in the XCom output_text. The addresses of its files are stored in" in message
        assert "Fix the bot, or set validate_output=False." in message
        assert SECRET not in message
        assert json.loads(run.ti.xcoms["output_text"]) == output
        assert len(emulator.tasks) == 1

    def test_output_that_does_not_match_is_in_the_store(self, worker, emulator, tmp_path):
        emulator.set_workflow(CONTACTS.id, output={"company_name": 7})
        with pytest.raises(AirflowFailException, match="The text is stored in") as failed:
            worker(**BOT, output_path=str(tmp_path), validate_output=True).run()
        [kept] = tmp_path.glob("*/output.json")
        assert str(kept) in str(failed.value)
        assert json.loads(Path(kept).read_text()) == {"company_name": 7}

    def test_bot_without_an_output_does_not_match(self, worker, emulator):
        emulator.set_workflow(CONTACTS.id, behaviour=lambda run: Output())
        with pytest.raises(AirflowFailException, match="does not match the output schema"):
            worker(**BOT, validate_output=True).run()

    @cases(
        ("settings", "warning"),
        {
            "no schema": ({"output_schema": None}, f"BrowserAct has no output schema for bot {CONTACTS.id}."),
            "unusable schema": (
                {"output_schema": {"$ref": "#/nowhere"}},
                f"the output schema of bot {CONTACTS.id} cannot be used: ",
            ),
        },
    )
    def test_schema_that_cannot_be_used_logs_a_warning(self, worker, emulator, capfd, settings, warning):
        emulator.set_workflow(CONTACTS.id, **settings)
        assert worker(**BOT, validate_output=True).run()
        assert f"The output was not checked: {warning}" in "".join(capfd.readouterr())

    def test_bot_that_cannot_be_read_after_the_run_logs_a_warning(self, worker, emulator, capfd):
        emulator.fault("query-bot", RequestFault.status(500), times=None, skip=1)
        assert worker(**BOT, validate_output=True).run()
        assert "The output was not checked: BrowserAct failed at query-bot" in "".join(capfd.readouterr())

    def test_output_that_is_a_list_is_compared(self, worker, emulator):
        given: dict[str, Any] = {"products": ["pens"], "country": "DE"}
        run = worker(operator_class=RunBotOperator, bot_id=PRICES.id, input=given, validate_output=True)
        assert run.run()[0]["product"] == "pens"
