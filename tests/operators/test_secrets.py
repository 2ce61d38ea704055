"""Secret inputs, callback addresses and live views: what a person who may only read a task can see of them."""

import hashlib
import hmac
import json
import re
from collections import UserList, defaultdict
from functools import partial
from typing import Any

import pytest
from airflow.sdk.log import mask_secret

from airflow_provider_browseract.api.settings import derived_key
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.decorators.browseract import BrowserActDecoratedOperator
from airflow_provider_browseract.emulator import CONTACTS, HUMAN, LOG_IN, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.exceptions import RunFailedError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import RunBotOperator, RunWorkflowOperator
from airflow_provider_browseract.runs.request import read_input_parameters
from airflow_provider_browseract.sensors.browseract import TaskSensor
from tests.helpers.cases import cases
from tests.helpers.workers import BOTH_WAYS, PENS, FakeStore, FakeTaskInstance, Worker, at_pushes

SECRET = "hunter2ofthistest"
HEX = re.compile("([0-9a-f]{2})+")
GOAL = f"Type '{SECRET}' into the field"
DECORATED = pytest.mark.parametrize("by", ["operator", "decorated"])


def forget_masks() -> None:
    from airflow.sdk._shared.secrets_masker import _secrets_masker

    _secrets_masker().reset_masker()


@pytest.fixture(autouse=True)
def _no_masks_afterwards():
    yield
    forget_masks()


class RenderingWorker(Worker):
    """Renders the templates of each process, as Airflow does. The process knows no secret of the one before."""

    def operator(self) -> Any:
        forget_masks()
        operator = super().operator()
        operator.render_template_fields(self.context)
        return operator


@pytest.fixture
def rendering(world):
    return partial(RenderingWorker, fire=world.fire, interval=None)


def stored_by(run: Worker, store: FakeStore) -> str:
    """Return everything that Airflow has stored of a task instance: state, XComs, triggers and events."""
    triggers = [(deferred.trigger.serialize(), deferred.method_name, deferred.kwargs) for deferred in run.deferrals]
    return json.dumps([store.values, run.ti.xcoms, triggers, run.events])


def test_no_guess_of_a_secret_can_be_tested_with_what_airflow_stores(rendering, emulator, store):
    secret = "483920"
    inputs = {"username": "bob", "password": secret}
    run = rendering(store=store, workflow_id=LOG_IN.id, input_parameters=inputs, deferrable=True)
    run.run()
    stored = stored_by(run, store)
    assert secret not in stored
    assert "app-emulator" not in stored
    # What a fingerprint is made of. The code is public, and a viewer sees all inputs but the secret.
    known = json.dumps([f"workflow {LOG_IN.id}", inputs, False, None, None], sort_keys=True).encode()
    assert hashlib.sha256(known).hexdigest() not in stored
    fingerprint = hmac.new(derived_key("app-emulator"), known, "sha256").hexdigest()
    assert fingerprint in stored
    # It is keyed with nothing that is stored.
    texts = set(re.findall(r"[\w.-]+", stored))
    keys = {text.encode() for text in texts} | {bytes.fromhex(text) for text in texts if HEX.fullmatch(text)}
    assert len(keys) > 50
    assert fingerprint not in {hmac.new(key, known, "sha256").hexdigest() for key in keys}


def shown_fields(operator: Any) -> str:
    """Return the rendered fields as Airflow's UI shows them: masked in the worker, then in the API server."""
    from airflow._shared.secrets_masker import redact
    from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

    return json.dumps({name: redact(value, name) for name, value in _serialize_rendered_fields(operator).items()})


PASSWORD, PIN = {"password": "{{ secret }}"}, {"password": "{{ pin }}"}
"""Templates of a secret, and of one that is shorter than those that Airflow masks everywhere."""


def as_list(inputs: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in inputs.items()]


def rendered(**arguments: Any) -> Any:
    operator: Any = RunBotOperator if "input" in arguments else RunWorkflowOperator
    source = {"bot_id": CONTACTS.id} if "input" in arguments else {"workflow_id": LOG_IN.id}
    made = operator(task_id="run", **source, **arguments)
    context: Any = {"secret": SECRET, "pin": "4711", "user": None, "ti": FakeTaskInstance()}
    made.render_template_fields(context)
    return made, context


class TestRenderedFields:
    @cases(
        ("dict", {"input_parameters": {"username": "bob", **PASSWORD}}, SECRET),
        ("dict, short", {"input_parameters": {"username": "bob", **PIN}}, "4711"),
        ("list, short", {"input_parameters": as_list({"username": "bob", **PIN})}, "4711"),
        ("bot, short", {"input": {"username": "bob", "logins": [PIN]}}, "4711"),
    )
    def test_secret_input_is_hidden_and_sent_in_all_forms(self, given, password):
        operator, _ = rendered(**given)
        shown = shown_fields(operator)
        assert "bob" in shown
        assert SECRET not in shown
        assert "4711" not in shown
        if "input" in given:
            assert operator.input == {"username": "bob", "logins": [{"password": password}]}
        else:
            assert read_input_parameters(operator.input_parameters)["password"] == password

    @cases("given", {"list": as_list(PIN), "JSON text": json.dumps(PIN)})
    def test_secret_in_an_input_of_a_wrong_form_is_hidden_although_it_is_refused(self, world, given):
        operator, context = rendered(input=given)
        assert "4711" not in shown_fields(operator)
        with pytest.raises(AirflowFailException, match=r"^input is a "):
            operator.execute(context)

    @pytest.mark.parametrize("argument", ["callback_url", "status_change_callback_url"])
    def test_callback_address_shows_only_its_host(self, argument):
        shown = shown_fields(rendered(**{argument: "https://cb.example.com/{{ secret }}?x=1"})[0])
        assert "https://cb.example.com***" in shown
        assert SECRET not in shown

    def test_list_that_is_rendered_to_none_is_still_refused_with_its_position(self, world):
        operator, context = rendered(input_parameters=as_list({"password": "x", "username": "{{ user }}"}))
        message = r"^input_parameters\[1\]\['value'\] was given, but Airflow rendered it"
        with pytest.raises(AirflowFailException, match=message):
            operator.execute(context)

    @pytest.mark.parametrize(
        "inputs",
        [as_list({"keyword": "pens"}), 7, "[broken", [{"name": "password"}], [None], {"password": None}],
        ids=repr,
    )
    def test_inputs_without_a_secret_and_wrong_inputs_are_rendered_unchanged(self, inputs):
        assert rendered(input_parameters=inputs)[0].input_parameters == inputs


class TestGoals:
    """The agent may quote an input in the goal of a step, in an evaluation, or in the reason of a failure."""

    @pytest.fixture(autouse=True)
    def _agent_quotes_the_secret(self, emulator):
        emulator.set_workflow(LOG_IN.id, steps=(GOAL, "Wait"))
        # The world has no files.
        emulator.set_workflow(CONTACTS.id, input_schema={"type": "object"}, steps=(GOAL, "Wait"), files=())

    def run(self, make: Any, by: str = "operator", **arguments: Any) -> Any:
        inputs = as_list({"username": "bob", "password": SECRET})
        decorated, of_bot = {"operator_class": BrowserActDecoratedOperator}, {"operator_class": RunBotOperator}
        given: Any = {
            "operator": {"workflow_id": LOG_IN.id, "input_parameters": inputs},
            "decorated": {**decorated, "workflow_id": LOG_IN.id, "python_callable": lambda: inputs},
            "bot": {**of_bot, "bot_id": CONTACTS.id, "input": {"company_name": "bob", "password": SECRET}},
        }
        return make(**given[by], **arguments)

    @pytest.mark.parametrize("by", ["operator", "decorated", "bot"])
    @BOTH_WAYS
    def test_quoted_secret_is_neither_in_log_nor_in_task_json(self, rendering, store, tmp_path, logs, deferrable, by):
        run = self.run(rendering, by, store=store, deferrable=deferrable, output_path=str(tmp_path))
        run.run()
        logged = logs()
        assert "Step 1: Type '***' into the field" in logged
        [facts] = tmp_path.glob("*/task.json")
        assert len(json.loads(facts.read_text())["steps"]) == 2
        for text in (logged, facts.read_text(), stored_by(run, store)):
            assert SECRET not in text

    @cases(
        ("several lines and spaces", "correct horse\u00a0 battery\nstaple", "horse"),
        ("longer than a goal", "x" * 1430, "x" * 20),
        ("lazy sequence", UserList([SECRET]), SECRET),
    )
    def test_secret_that_a_goal_has_in_another_form_is_hidden(self, rendering, emulator, tmp_path, logs, secret, piece):
        goal = GOAL if isinstance(secret, UserList) else f"Type {secret}"
        emulator.set_workflow(LOG_IN.id, steps=(goal, "Wait"))
        inputs = {"username": "bob", "password": secret}
        rendering(workflow_id=LOG_IN.id, input_parameters=inputs, output_path=str(tmp_path)).run()
        [facts] = tmp_path.glob("*/task.json")
        for text in (logs(), facts.read_text()):
            assert "Type" in text
            assert piece not in text

    def test_triggerer_hides_whole_goals_of_a_run_with_secret_inputs_and_the_worker_logs_them(self, rendering, logs):
        run = self.run(rendering, deferrable=True)
        deferred = run.defer()
        logs()
        run.wait_in_triggerer(deferred)
        logged = logs()
        assert "Step 2: *** (" in logged
        assert "Wait" not in logged
        run.resume(deferred)
        assert "Step 2: Wait (succeed)" in logs()

    def test_triggerer_hides_the_goals_of_a_bot_whose_defaults_could_not_be_read(self, rendering, emulator):
        emulator.fault("query-run", RequestFault.refused(10021), times=None)
        run = rendering(operator_class=RunBotOperator, bot_id=CONTACTS.id, input={"company_name": "A"}, deferrable=True)
        assert run.defer().trigger.wait.hide_goals is True

    @DECORATED
    @BOTH_WAYS
    def test_error_does_not_quote_a_secret(self, rendering, emulator, deferrable, by):
        emulator.next_run(LOG_IN.id, steps=(GOAL,) * 4)
        with pytest.raises(AirflowFailException, match=r"(?s)allows\..*credits by step \d: .*\*\*\*") as over_cap:
            self.run(rendering, by=by, deferrable=deferrable, max_credits=4).run()
        assert SECRET not in str(over_cap.value)
        emulator.set_workflow(LOG_IN.id, outcome="failed", failure=(1011, f"{SECRET} was refused"), steps=("Log in",))
        with pytest.raises(RunFailedError) as raised:
            self.run(rendering, by=by, deferrable=deferrable).run()
        message = str(raised.value)
        assert SECRET not in message
        hidden = "BrowserAct's reason may quote secret inputs, so it is only in BrowserAct's log of the run"
        assert (hidden if deferrable and by == "decorated" else "*** was refused") in message
        assert message.endswith(", code 1011.")

    def test_required_action_does_not_quote_a_secret(self, rendering, emulator, people):
        emulator.set_workflow(HUMAN.id, steps=(GOAL,), inputs=LOG_IN.inputs)
        mask_secret(SECRET)
        run = rendering(workflow_id=HUMAN.id, input_parameters={"username": "bob", "password": SECRET}, on_paused="ask")
        run.defer()
        assert "Last step 1: " in people.question["body"]
        assert SECRET not in people.question["body"]


class TestLiveView:
    @BOTH_WAYS
    @pytest.mark.parametrize("shown", [True, False], ids=["shown", "hidden"])
    @pytest.mark.parametrize("as_in_the_demos", [False, True], ids=["as documented", "as in the demos"])
    def test_live_view_is_shown_only_if_wanted(self, worker, emulator, store, logs, deferrable, shown, as_in_the_demos):
        emulator.as_in_the_demos = as_in_the_demos
        pushed: dict[str, list[object]] = defaultdict(list)
        hidden = {} if shown else {"show_live_view": False}
        run = worker(store=store, workflow_id=SEARCH.id, input_parameters=PENS, deferrable=deferrable, **hidden)
        at_pushes(run, lambda key, value: pushed[key].append(value))
        run.run()
        live = f"/live/{emulator.tasks[0].id}"
        assert (live in logs()) is shown
        assert (live in json.dumps(pushed)) is shown
        # In the vendor's examples, a run has no other page.
        assert (live in stored_by(run, store)) is (shown and as_in_the_demos)

    def test_required_action_and_notifiers_get_no_live_view_that_is_not_to_be_shown(self, worker, emulator, people):
        notified: list[Any] = []
        run = worker(workflow_id=HUMAN.id, on_paused="ask", on_paused_callback=notified.append, show_live_view=False)
        run.defer()
        body = people.question["body"]
        assert "/live/" not in body
        assert "Live view" not in body
        assert "[Log](http" in body
        assert notified[0]["browseract_task"]["links"]["live"] is None

    @BOTH_WAYS
    def test_sensor_keeps_the_live_view_out_of_log_and_xcoms(self, worker, emulator, logs, deferrable):
        hidden: Any = {"show_live_view": False}
        task_id = worker(workflow_id=SEARCH.id, input_parameters=PENS, wait_for_completion=False, **hidden).run()
        run = worker(operator_class=TaskSensor, browseract_task_id=task_id, deferrable=deferrable, **hidden)
        if deferrable:
            assert run.defer().trigger.wait.show_live_view is False
        else:
            assert run.operator().poke(run.context) is False
        logged = logs()
        assert "Status: running." in logged
        assert "/live/" not in logged + json.dumps(run.ti.xcoms)

    def test_run_in_the_hook_of_a_user_keeps_its_live_view_and_goals(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, steps=(GOAL,))
        mask_secret(SECRET)
        hook = BrowserActHook()
        task = hook.get_task(hook.run_task(ORDERS.id).id)
        assert (task.live_url or "").endswith(f"/live/{task.id}")
        assert task.steps[0].goal == GOAL
