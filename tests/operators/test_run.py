import json
import logging
import traceback
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import BaseOperatorLink

from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException, AirflowTaskTimeout
from airflow_provider_browseract.emulator import CONTACTS, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH, RequestFault
from airflow_provider_browseract.exceptions import AuthenticationError, InputError, RunLostError
from airflow_provider_browseract.operators.browseract import (
    RunBotOperator,
    RunBotTemplateOperator,
    RunTemplateOperator,
    RunWorkflowOperator,
    StopTaskOperator,
)
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.wait import MIN_FAILED_POLLS
from airflow_provider_browseract.sensors.browseract import TaskSensor
from tests.helpers.cases import cases, raising
from tests.helpers.workers import BOTH_WAYS, ORDERS_RESULT, PENS, at_pushes, refuse_xcoms

KEY = "app-emulator"
LOGS_IN = {"workflow_id": LOG_IN.id, "input_parameters": {"username": "ada", "password": "hunter2"}}
CONNECTION = "AIRFLOW_CONN_BROWSERACT_DEFAULT"

COMPANY = {"company_name": "Example Corp", "max_pages": 2}
TEXTS = {"keyword": "pens", "max_items": "2"}
WORKFLOW: Any = {"operator_class": RunWorkflowOperator, "workflow_id": SEARCH.id, "input_parameters": PENS}
TEMPLATE: Any = {
    "operator_class": RunTemplateOperator,
    "workflow_template_id": TEMPLATE_SEARCH.id,
    "input_parameters": PENS,
    "region": "DE",
}
BOT: Any = {"operator_class": RunBotOperator, "bot_id": CONTACTS.id, "input": COMPANY}
BOT_TEMPLATE: Any = {
    "operator_class": RunBotTemplateOperator,
    "template_id": TEMPLATE_SEARCH.id,
    "input": TEXTS,
    "region": "DE",
}


@BOTH_WAYS
@cases(
    ("workflow", WORKFLOW, ("v2", "workflow", None), TEXTS),
    ("template", TEMPLATE, ("v2", "template", "DE"), TEXTS),
    ("bot", BOT, ("v3", "bot", None), COMPANY),
    ("template as a bot", BOT_TEMPLATE, ("v3", "template", "DE"), TEXTS),
)
def test_run_gets_its_inputs_and_its_output_is_returned(worker, world, emulator, deferrable, given, started, inputs):
    world.connect(extra={"webhook_base_url": "https://airflow.example"})
    run = worker(**given, deferrable=deferrable)
    result = run.run()
    assert len(result["pages"] if given is BOT else result) == 2
    [task] = emulator.tasks
    assert (task.api_version, task.workflow.kind, task.proxy_region) == started
    assert dict(task.inputs) == inputs
    assert run.ti.xcoms["task_id"] == task.id
    assert ("profile_id" in run.ti.xcoms) is (given is WORKFLOW)
    assert not any(text in json.dumps(run.ti.xcoms["task"]) for text in ("Example Corp", "pens"))
    assert len(run.deferrals) == deferrable
    assert (task.callback_url is not None) is deferrable


@cases(
    ("workflow", WORKFLOW, ["get-workflow", "run-task", "get-task"]),
    ("bot", BOT, ["query-bot", "create-run", "query-run"]),
)
def test_run_that_ends_at_once_needs_three_requests_and_is_not_deferred(worker, emulator, given, calls):
    emulator.set_workflow(SEARCH.id, duration=0.0)
    emulator.set_workflow(CONTACTS.id, duration=0.0)
    run = worker(**given, deferrable=True)
    assert len(run.run()) >= 2
    assert run.deferrals == []
    assert [request.endpoint for request in emulator.requests] == calls


@pytest.fixture
def orders(worker):
    return lambda **arguments: worker(workflow_id=ORDERS.id, **arguments)


class TestXComs:
    def test_airflow_pushes_only_links_that_the_operator_does_not_push_itself(self, orders):
        class OwnLink(BaseOperatorLink):
            name = "Own"

            def get_link(self, operator, *, ti_key):
                return "https://shop.example"

        class Own(RunWorkflowOperator):
            operator_extra_links = (*RunWorkflowOperator.operator_extra_links, OwnLink())

        run = orders(operator_class=Own)
        operator = run.operator()
        names = [link.name for link in operator.operator_extra_links]
        assert names == ["BrowserAct task", "Live view", "Run in the panel", "Own"]
        operator.execute(run.context)
        assert [link.name for link in operator.operator_extra_links] == ["Own"]

    def test_subclass_can_define_its_links_as_a_property(self, orders):
        class Own(RunWorkflowOperator):
            @property
            def operator_extra_links(self):  # type: ignore[override]
                return ()

        run = orders(operator_class=Own)
        assert run.run() is not None
        assert "task_id" in run.ti.xcoms

    def test_run_without_a_saved_profile_pushes_an_empty_profile_id_that_fails_the_next_task(self, orders, emulator):
        run = orders()
        run.run()
        assert run.ti.xcoms["profile_id"] == ""
        # Airflow resolves log_in.output["profile_id"] to this. A missing XCom would raise XComNotFound, and be retried.
        message = r"profile_id is ''. If it comes from a task, that task saved no profile"
        with pytest.raises(AirflowFailException, match=message):
            orders(profile_id=run.ti.xcoms["profile_id"]).run()
        assert len(emulator.tasks) == 1

    def test_profile_id_that_only_get_task_returns_is_pushed(self, orders, emulator, monkeypatch):
        emulator.rewrite("run-task", lambda body: {"id": body["id"]})
        run = orders(save_browser_data=True)
        run.run()
        assert run.ti.xcoms["profile_id"] == emulator.tasks[0].profile_id

    def test_profile_xcom_that_cannot_be_stored_keeps_the_result_and_logs_the_profile(self, worker, emulator, logs):
        run = worker(**LOGS_IN, save_browser_data=True)
        refuse_xcoms(run, "profile_id")
        assert run.run()["logged_in"] is True
        text = logs()
        assert "The XCom 'profile_id' could not be pushed" in text
        assert "(OSError: no API server)" in text
        assert f"The profile is {emulator.tasks[0].profile_id}." in text


class TestDeferral:
    @pytest.mark.parametrize("cancel_on_kill", [True, False])
    def test_trigger_arguments_are_plain_values_without_secrets(self, worker, cancel_on_kill):
        address = "http://127.0.0.1/t0ken"
        run = worker(**LOGS_IN, callback_url=address, deferrable=True, cancel_on_kill=cancel_on_kill)
        _, arguments = run.defer().trigger.serialize()
        text = json.dumps(arguments)
        assert set(arguments) == {"browseract_conn_id", "wait", "cancel_on_kill"}
        assert arguments["cancel_on_kill"] is cancel_on_kill
        assert json.loads(text) == arguments
        assert not any(secret in text for secret in (KEY, "hunter2", "t0ken"))
        assert run.ti.xcoms["task_id"] in run.ti.xcoms["_link_BrowserActTaskLink"]

    def test_times_of_a_deferral_count_from_the_last_request_to_airflow_and_deadline_from_start(self, orders, world):
        run, before = orders(deferrable=True, timeout=timedelta(minutes=10)), world.clock.now
        at_pushes(run, lambda key, _: world.clock.sleep(100.0 if key == "wait" else 0.0))
        deferral = run.defer()
        wait, now = deferral.trigger.wait, world.clock.now
        assert wait.began_at == now
        assert wait.deadline == pytest.approx(before + 600, abs=5)
        assert deferral.timeout.total_seconds() == pytest.approx(wait.deadline - now + timings.TIMEOUT_BACKSTOP)


def test_missing_connection_at_the_deadline_raises_an_error_that_names_the_run(orders, emulator, monkeypatch):
    run = orders(timeout=30, deferrable=True)
    event = run.wait_in_triggerer(run.defer())
    monkeypatch.delenv(CONNECTION)
    with pytest.raises(RunLostError, match=r"could not be stopped.*may keep running") as caught:
        run.operator().execute_complete(run.context, event)
    assert emulator.tasks[0].id in str(caught.value)


UNKNOWN_START = r"(?s)execution_timeout expired during.*not known whether BrowserAct started .*stop the one"


@cases(
    ("timeout during the start", AirflowTaskTimeout("Timeout"), True, AirflowFailException, UNKNOWN_START),
    ("timeout before the start", AirflowTaskTimeout("Timeout"), False, AirflowTaskTimeout, "^Timeout$"),
    ("exit during the start", SystemExit(), True, SystemExit, None),
)
def test_interrupted_start_is_not_repeated(orders, monkeypatch, logs, error, only_starts, raised, match):
    send = BrowserActClient._send_once

    def interrupted(client, call, before):
        if call.starts_run or not only_starts:
            before()
            raise error
        return send(client, call, before)

    monkeypatch.setattr(BrowserActClient, "_send_once", interrupted)
    with pytest.raises(raised, match=match):
        orders().run()
    may_run = "not known whether BrowserAct started a run. A run may be running and using credits. Check the"
    assert raised is not SystemExit or may_run in logs()


class TestChangingConnection:
    @cases({"missing": (None, f"or set {CONNECTION}"), "unreadable": ("{", "Airflow cannot read the value of")})
    def test_connection_that_cannot_be_read_ends_the_try(self, orders, world, emulator, monkeypatch, variable, words):
        monkeypatch.delenv(CONNECTION)
        if variable:
            monkeypatch.setenv(CONNECTION, variable)
        began = world.clock.now
        with pytest.raises(AirflowNotFoundException, match=words):
            orders().run()
        assert (emulator.tasks, world.clock.now) == ([], began)

    def test_missing_connection_keeps_the_earlier_run_for_the_next_try(self, orders, emulator, store, monkeypatch):
        orders(store=store, wait_for_completion=False).run()
        monkeypatch.delenv(CONNECTION)
        with pytest.raises(RunLostError, match=r"(?s)There is no connection.*names a run, which may be active"):
            orders(store=store, max_tries=1).run()
        assert emulator.tasks[0].status == "running"

    def test_missing_connection_leaves_unknown_start_to_the_next_try(self, orders, world, emulator, store, monkeypatch):
        first = orders(store=store)
        first.at_calls("run-task", after=raising(SystemExit()))
        with pytest.raises(SystemExit):
            first.run()
        monkeypatch.delenv(CONNECTION)
        with pytest.raises(AirflowNotFoundException):
            orders(store=store).run()
        world.connect()
        with pytest.raises(AirflowFailException, match="It is not known whether BrowserAct started a run"):
            orders(profile_id="", store=store).run()
        assert orders(store=store).run() == ORDERS_RESULT
        assert len(emulator.tasks) == 1

    def test_unreadable_connection_after_the_deferral_defers_again(self, orders, emulator, monkeypatch):
        run = orders(deferrable=True)
        deferred = run.defer()
        event = run.wait_in_triggerer(deferred)
        with monkeypatch.context() as gone:
            gone.delenv(CONNECTION)
            again = run.defer_again(deferred, event)
        assert run.resume(again) == ORDERS_RESULT
        assert len(emulator.tasks) == 1


@cases(
    ("a firewall", RequestFault.html(403)),
    ("a gateway", RequestFault.gateway(404)),
    ("a redirect", RequestFault.redirect()),
    ("a refused key", RequestFault.refused(401)),
)
def test_poll_outage_in_triggerer_defers_again_if_the_worker_can_read_the_run(orders, emulator, logs, fault):
    emulator.set_workflow(ORDERS.id, duration=7200.0)
    run = orders(deferrable=True)
    deferred = run.defer()
    with emulator.fault("get-task", fault):
        event = run.wait_in_triggerer(deferred)
    assert event["wait"]["failed_polls"] >= MIN_FAILED_POLLS
    assert run.defer_again(deferred, event).trigger.wait.deadline == deferred.trigger.wait.deadline
    assert emulator.tasks[0].status == "running"
    assert "A poll of the run failed, 5 in a row: " in logs()


@BOTH_WAYS
def test_logs_contain_no_api_key_password_input_or_callback_token(worker, deferrable, caplog, logs):
    with caplog.at_level(logging.DEBUG):
        worker(**LOGS_IN, callback_url="http://127.0.0.1:9/t0ken", deferrable=deferrable).run()
    logged = caplog.text + logs()
    assert "Started a run of " in logged
    assert not any(secret in logged for secret in (KEY, "hunter2", "t0ken"))


def test_refused_key_is_shown_without_the_frames_of_the_call(orders, world):
    world.connect(password="app-wrong")
    with pytest.raises(AuthenticationError) as refused:
        orders().run()
    frames = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(refused.value.__traceback__)]
    assert len([name for name in frames if name.startswith("airflow_provider_browseract")]) <= 2
    assert not {"tenacity", "requests.sessions"} & {*frames}
    assert refused.value.__suppress_context__


PROFILES = (
    "Only RunWorkflowOperator takes a browser profile. To keep a login, set the browser of a bot to Standard Browser "
    "in the BrowserAct dashboard, or copy a template to a workflow."
)
ON_THE_START = "Remove it, or set it on the task that starts the run."
IN_THE_INPUTS = "Names of inputs go into input_parameters: input_parameters="
IN_THE_CONNECTION = "It is a field of the Airflow connection whose id browseract_conn_id is."
IDS = {
    RunWorkflowOperator: "workflow_id",
    RunTemplateOperator: "workflow_template_id",
    RunBotOperator: "bot_id",
    RunBotTemplateOperator: "template_id",
}


@pytest.mark.parametrize(
    ("operator", "wrong", "instead"),
    [
        (RunWorkflowOperator, "input_parameter", "Did you mean 'input_parameters'?"),
        (RunWorkflowOperator, "conn_id", "Did you mean 'browseract_conn_id'?"),
        (RunWorkflowOperator, "input", "Did you mean 'input_parameters'?"),
        (RunBotOperator, "input_parameters", "Did you mean 'input'?"),
        (TaskSensor, "workflow_id", ON_THE_START),
        (TaskSensor, "run_id", "Did you mean 'browseract_task_id'?"),
        (RunBotOperator, "id", "Did you mean 'bot_id'?"),
        (RunWorkflowOperator, "api_key", IN_THE_CONNECTION),
        (StopTaskOperator, "webhook_base_url", IN_THE_CONNECTION),
        (RunBotOperator, "profile_id", PROFILES),
        (RunBotOperator, "region", "Only RunTemplateOperator and RunBotTemplateOperator take a region."),
        (RunBotOperator, "workflow_id", "Pass bot_id, or use RunWorkflowOperator, which takes workflow_id."),
        (RunWorkflowOperator, "keyword", IN_THE_INPUTS + '{"keyword": ...}'),
        (RunBotOperator, "company", 'Names of inputs go into input: input={"company": ...}'),
        (RunWorkflowOperator, "MAXCREDITS", "Did you mean 'max_credits'?"),
        (RunTemplateOperator, "template", "Did you mean 'workflow_template_id'?"),
    ],
)
def test_unknown_argument_is_an_error_that_states_what_to_write(operator, wrong, instead):
    with pytest.raises(TypeError) as error:
        operator(task_id="t", **{IDS.get(operator, "browseract_task_id"): "7", wrong: "x"})
    assert str(error.value) == f"Task 't': {operator.__name__} has no argument {wrong!r}. {instead}"


@pytest.mark.parametrize("conn_id", [None, ""])
@pytest.mark.parametrize("operator", [*IDS, StopTaskOperator, TaskSensor])
def test_missing_id_of_a_connection_is_refused_when_the_dag_is_parsed(operator, conn_id):
    with pytest.raises(InputError) as error:
        operator(task_id="t", **{IDS.get(operator, "browseract_task_id"): "7"}, browseract_conn_id=conn_id)
    assert str(error.value) == (
        f"Task 't': browseract_conn_id is {conn_id!r}. Pass the id of an Airflow connection, or leave it out for "
        "browseract_default."
    )


def test_execute_without_the_context_of_a_task_instance_states_how_to_test():
    operator = RunWorkflowOperator(task_id="t", workflow_id="7")
    with pytest.raises(InputError, match=r"^execute needs the context of a task instance\. .* with dag\.test\(\)\.$"):
        operator.execute({})


def test_wrong_id_is_named_rather_than_the_missing_one():
    with pytest.raises(TypeError, match="RunBotOperator has no argument 'workflow_id'"):
        RunBotOperator(task_id="t", workflow_id="7")  # type: ignore[call-arg]


def test_private_callback_url_is_refused_unless_the_api_is_private(orders, monkeypatch):
    arguments = {"callback_url": "http://10.0.0.1/t0ken"}
    monkeypatch.setenv("AIRFLOW_CONN_PUBLIC", '{"conn_type": "browseract", "password": "app-key"}')
    with pytest.raises(AirflowFailException, match="which BrowserAct cannot reach") as caught:
        orders(browseract_conn_id="public", **arguments).run()
    assert "t0ken" not in str(caught.value)
    assert orders(**arguments).run() == ORDERS_RESULT
