import asyncio
import traceback
from typing import Any

import pytest

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api.models import InputParameter
from airflow_provider_browseract.compat import AirflowFailException, AirflowSkipException
from airflow_provider_browseract.emulator import CONTACTS, LOG_IN, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.hooks import connection
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import RunBotOperator, RunWorkflowOperator, StopTaskOperator
from airflow_provider_browseract.runs.wait import Wait
from airflow_provider_browseract.triggers.task import TaskTrigger
from airflow_provider_browseract.worker.checks import compare_names
from tests.helpers.cases import cases, raising
from tests.helpers.workers import BOTH_WAYS, PENS

BOT: dict[str, Any] = {"operator_class": RunBotOperator, "bot_id": CONTACTS.id, "wait_for_completion": False}
RENDERED = {"company_name": "Example Corp", "max_pages": "2"}


def endpoints(emulator) -> list[str | None]:
    return [request.endpoint for request in emulator.requests]


def test_error_of_the_user_that_forbids_retries_is_raised_as_it_is(worker, monkeypatch):
    class NothingToDoError(AirflowFailException):
        pass

    monkeypatch.setattr(RunWorkflowOperator, "prepare", raising(error := NothingToDoError("no rows")))
    with pytest.raises(NothingToDoError) as failed:
        worker(workflow_id=ORDERS.id).run()
    assert failed.value is error


class TestUnknownKeyInTheExtra:
    TYPO = {"daily_credit": 5}

    def test_no_run_is_started_and_the_error_names_the_key_and_the_known_ones(self, worker, emulator, connect):
        connect(self.TYPO)
        words = "(?s)unknown keys: 'daily_credit'.*known keys are webhook_base_url, "
        with pytest.raises(AirflowFailException, match=words):
            worker(workflow_id=ORDERS.id).run()
        with pytest.raises(errors.ConnectionFieldError, match=words):
            BrowserActHook().run_task(ORDERS.id)
        assert "run-task" not in endpoints(emulator)

    @BOTH_WAYS
    def test_waiting_run_still_returns_its_result(self, worker, emulator, connect, caplog, monkeypatch, deferrable):
        def saved(body):
            connect(self.TYPO)
            return body

        connection._warn_once.cache_clear()
        emulator.rewrite("get-task", saved)
        assert worker(workflow_id=ORDERS.id, deferrable=deferrable).run()
        assert ("New runs are refused until they are corrected." in caplog.text) is deferrable

    def test_run_that_was_started_is_stopped_by_a_kill_and_by_a_person(self, emulator, connect):
        emulator.set_workflow(ORDERS.id, duration=600.0)
        started = [BrowserActHook().run_task(ORDERS.id).id for _ in range(2)]
        connect(self.TYPO)
        trigger = TaskTrigger(browseract_conn_id="browseract_default", wait=Wait(started[0], 2e9))
        asyncio.run(trigger._stop_unless_ended("."))
        assert StopTaskOperator(task_id="stop", browseract_task_id=started[1]).execute({}) == {started[1]: "stopped"}
        assert [task.status for task in emulator.tasks] == ["canceled"] * 2


@cases({"workflow": {"workflow_id": SEARCH.id, "input_parameters": PENS}, "bot": {**BOT, "input": RENDERED}})
def test_inputs_are_neither_checked_nor_converted_with_validate_inputs_false(worker, emulator, given):
    emulator.set_workflow(CONTACTS.id, input_schema={"type": "object"})
    worker(**given, validate_inputs=False).run()
    assert not {"get-workflow", "query-bot"} & {*endpoints(emulator)}
    assert ("max_pages" if "input" in given else "max_items", "2") in emulator.tasks[0].inputs


class TestInputNames:
    def test_only_an_input_that_is_declared_as_disabled_by_default_is_required(self):
        a, b = (InputParameter(name=name, default_enabled=name == "b") for name in "ab")
        declared = [a, b, InputParameter(name="c")]
        compare_names(["a"], declared, "workflow 7")
        message = r"lacks the required name 'a'\. The inputs of workflow 7 are: a \(required\), b, c\."
        with pytest.raises(InputError, match=message):
            compare_names([], declared, "workflow 7")

    def test_workflow_that_lists_no_inputs_logs_a_warning_and_the_start_is_sent(self, search, emulator, logs):
        emulator.set_workflow(SEARCH.id, inputs=())
        with pytest.raises(AirflowFailException, match="refused the start"):
            search().run()
        assert "BrowserAct lists none for workflow" in logs()


class TestInputOfBots:
    def test_all_errors_are_named_without_values_before_any_start(self, worker, emulator, logs):
        given = {"company": "s3cret", "max_pages": "s3cret"}
        with pytest.raises(AirflowFailException) as failed:
            worker(**BOT, input=given).run()
        message = str(failed.value)
        assert f"bot {CONTACTS.id}" in message
        assert "lacks the required name 'company_name'" in message
        assert "has the unknown name 'company'" in message
        assert "input['max_pages'] must be of type integer, not string" in message
        assert endpoints(emulator) == ["query-bot"]
        assert "s3cret" not in "".join(traceback.format_exception(failed.value)) + logs()

    def test_rendered_values_are_converted_and_a_log_line_names_places_without_values(self, worker, emulator, logs):
        types = {"company_name": "string", "max_pages": "integer", "names": "array"}
        schema = {"type": "object", "properties": {name: {"type": each} for name, each in types.items()}}
        emulator.set_workflow(CONTACTS.id, input_schema=schema)
        run = worker(**BOT, input={**RENDERED, "max_pages": "{{ pages }}", "names": "{{ names | tojson }}"})
        operator = run.operator()
        operator.render_template_fields({**run.context, "pages": 2, "names": ["s3cret"]})
        operator.execute(run.context)
        assert dict(emulator.tasks[0].inputs) == {"company_name": "Example Corp", "max_pages": 2, "names": ["s3cret"]}
        logged = logs()
        line = f"Converted to the types that bot {CONTACTS.id} declares: input['max_pages'], input['names']."
        assert logged.count(line) == logged.count("Converted") == 1
        assert "s3cret" not in logged

    def test_name_that_the_schema_allows_but_does_not_declare_logs_a_warning(self, worker, emulator, logs):
        emulator.set_workflow(CONTACTS.id, input_schema={**CONTACTS.schema, "additionalProperties": True})
        worker(**BOT, input={"company_name": "a", "max_page": 2}).run()
        assert "'max_page' (did you mean 'max_pages'?)" in logs()

    @pytest.mark.parametrize("schema", [{"$ref": "#/nowhere"}, "object"], ids=["reference to nothing", "no schema"])
    def test_unusable_schema_logs_one_warning_and_the_start_is_sent(self, worker, emulator, logs, schema):
        emulator.set_workflow(CONTACTS.id, input_schema=schema)
        emulator.fault("create-run", RequestFault.refused(99001), times=1)
        with pytest.raises(AirflowFailException, match="refused the start"):
            worker(**BOT, input=RENDERED).run()
        warning = f"The inputs were not checked: the schema of bot {CONTACTS.id} cannot be used: "
        assert logs().count(warning) == 1

    def test_refusal_of_an_input_that_could_not_be_converted_is_retried(self, worker, emulator, store, logs):
        emulator.fault("query-bot", RequestFault.status(500))
        with pytest.raises(errors.InvalidRequestError, match="refused the start"):
            worker(**BOT, input=RENDERED, store=store).run()
        assert "The inputs were not checked: BrowserAct failed at query-bot" in logs()
        emulator.clear_faults()
        worker(**BOT, input=RENDERED, store=store).run()
        assert [dict(task.inputs) for task in emulator.tasks] == [{"company_name": "Example Corp", "max_pages": 2}]

    @BOTH_WAYS
    def test_input_is_converted_again_after_a_wait_for_a_slot(self, worker, emulator, deferrable):
        emulator.fault("create-run", RequestFault.refused(10118), times=2)
        worker(operator_class=RunBotOperator, bot_id=CONTACTS.id, input=RENDERED, deferrable=deferrable).run()
        assert dict(emulator.tasks[0].inputs)["max_pages"] == 2
        assert endpoints(emulator).count("query-bot") == endpoints(emulator).count("create-run") == 3


def test_api_that_cannot_be_reached_is_logged_at_once_and_costs_one_retry_budget(search, world, connect, logs):
    connect({"retry_budget": 20})
    world.unreachable = lambda _: True
    message = r"(?s)^No connection to http://127.0.0.1:1 for get-workflow.*Check the host"
    with pytest.raises(errors.ConnectionFailedError, match=message):
        search().run()
    logged = logs()
    assert logged.count("Trying again for up to 20 seconds.") == 1
    assert logged.count("No connection to") == 1


class TestDryRun:
    def test_dry_run_logs_the_start_request_without_secrets_and_leaves_no_xcom(self, worker, emulator, logs):
        emulator.set_workflow(LOG_IN.id, inputs=())
        inputs = {"username": "ada", "password": "hunter2", "accounts": [{"name": "bob", "password": "hunter2"}]}
        receiver = "http://127.0.0.1/t0ken"
        run = worker(workflow_id=LOG_IN.id, input_parameters=inputs, callback_url=receiver, dry_run=True)
        with pytest.raises(AirflowSkipException, match=f"a run of workflow {LOG_IN.id}"):
            run.run()
        assert endpoints(emulator) == ["get-workflow"]
        assert run.ti.xcoms == {}
        logged = logs()
        assert "/v2/workflow/run-task with {" in logged
        assert "bob" in logged
        for shown in (f'"workflow_id": "{LOG_IN.id}"', '{"name": "username", "value": "ada"}', '"callback_url": "***"'):
            assert shown in logged
        assert not any(secret in logged for secret in ("hunter2", "t0ken", "app-emulator"))

    def test_dry_run_of_a_bot_logs_the_converted_input_without_secrets(self, worker, emulator, logs):
        schema = {"type": "object", "properties": {"pages": {"type": "integer"}, "wait": {"type": "boolean"}}}
        emulator.set_workflow(CONTACTS.id, input_schema=schema)
        given = {"pages": "3", "wait": "true", "login": {"password": "hunter2"}, "note": None}
        run = worker(operator_class=RunBotOperator, bot_id=CONTACTS.id, input=given, dry_run=True)
        with pytest.raises(AirflowSkipException, match=f"a run of bot {CONTACTS.id}"):
            run.run()
        logged = logs()
        body = '{"input": {"pages": 3, "wait": true, "login": {"password": "***"}, "note": null}}'
        assert f"/v3/bots/{CONTACTS.id}/runs with {body}" in logged
        assert "hunter2" not in logged
        assert emulator.tasks == []

    def test_method_dry_run_of_airflow_renders_the_fields_although_an_argument_has_its_name(self, worker, logs):
        worker(workflow_id=SEARCH.id, dry_run=True).operator().dry_run()
        assert "Rendering template for workflow_id" in logs()
