"""``@task.browseract``: a function makes the inputs, and everything else is as with the operator."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.decorators.browseract import BotDecoratedOperator, BrowserActDecoratedOperator
from airflow_provider_browseract.emulator import CONTACTS, SEARCH
from airflow_provider_browseract.runs.outcome import RunLostError
from tests.cases import cases
from tests.workers import Worker, emulator, store, worker

__all__ = ["emulator", "store", "worker"]


pytestmark = pytest.mark.usefixtures("short_patience")


@pytest.fixture
def decorated(worker):
    """Creates tries of a decorated function."""

    def make(function, **arguments) -> Worker:
        given = {"workflow_id": SEARCH.id, "python_callable": function, **arguments}
        made: Worker = worker(operator_class=BrowserActDecoratedOperator, **given)
        return made

    return make


def test_task_browseract_decorator_creates_the_decorated_operator():
    with DAG("decorated") as dag:

        @task.browseract(workflow_id=SEARCH.id, deferrable=True)
        def search(keyword) -> dict[str, str]:
            return {"keyword": keyword}

        search("pens")
    operator: Any = dag.get_task("search")
    assert isinstance(operator, BrowserActDecoratedOperator)
    assert (operator.workflow_id, operator.deferrable, operator.operator_name) == (SEARCH.id, True, "@task.browseract")
    assert operator.multiple_outputs is False


def test_decorator_with_a_bot_id_creates_the_operator_of_bots():
    with DAG("decorated") as dag:

        @task.browseract(bot_id=CONTACTS.id, validate_output=True)
        def find(company):
            return {"company_name": company}

        find.expand(company=["a", "b"])
        find("c")
    operator: Any = dag.get_task("find__1")
    assert isinstance(operator, BotDecoratedOperator)
    assert (operator.bot_id, operator.validate_output, operator.operator_name) == (
        CONTACTS.id,
        True,
        "@task.browseract",
    )


@pytest.mark.parametrize("given", [{}, {"workflow_id": SEARCH.id, "bot_id": CONTACTS.id}], ids=["neither", "both"])
def test_decorator_needs_either_a_workflow_id_or_a_bot_id(given):
    with pytest.raises(InputError, match=r"^@task\.browseract needs either workflow_id or bot_id\.$"):

        @task.browseract(**given)
        def find():
            return {}


def test_decorator_of_a_bot_refuses_arguments_that_bots_do_not_have():
    with DAG("decorated"):

        @task.browseract(bot_id=CONTACTS.id, profile_id="7")
        def find():
            return {}

        with pytest.raises(InputError, match="has no profile_id, because API v3 has no profiles"):
            find()


@pytest.mark.parametrize("deferrable", [False, True], ids=["in the worker", "deferred"])
def test_return_value_of_the_function_becomes_the_input_of_the_bot(worker, emulator, documented_responses, deferrable):
    def find(company, ti=None):
        return {"company_name": f"{company} of {ti.task_id}", "max_pages": "2"}

    given: dict[str, Any] = {"python_callable": find, "op_args": ["Example"], "deferrable": deferrable}
    run = worker(operator_class=BotDecoratedOperator, bot_id=CONTACTS.id, **given)
    assert run.run()["company_name"] == "Example of run"
    assert dict(emulator.tasks[0].inputs) == {"company_name": "Example of run", "max_pages": 2}


def test_bot_of_a_function_that_returns_none_gets_an_empty_input(worker, emulator):
    emulator.set_workflow(CONTACTS.id, input_schema={"type": "object"}, duration=60.0)
    given: dict[str, Any] = {"python_callable": lambda: None, "wait_for_completion": False}
    worker(operator_class=BotDecoratedOperator, bot_id=CONTACTS.id, **given).run()
    assert dict(emulator.tasks[0].inputs) == {}


@pytest.mark.parametrize("returned", ["pens", 7, [{"name": "company_name", "value": "a"}]], ids=repr)
def test_function_for_a_bot_must_return_a_dict(worker, emulator, returned):
    run = worker(operator_class=BotDecoratedOperator, bot_id=CONTACTS.id, python_callable=lambda: returned)
    with pytest.raises(AirflowFailException, match="Return a dict with the input of the bot, or None if it needs none"):
        run.run()
    assert emulator.requests == []


def test_return_value_of_the_function_becomes_the_inputs(decorated, emulator):
    def search(keyword, ti=None):
        return {"keyword": f"{keyword} of {ti.task_id}", "max_items": 2}

    run = decorated(search, op_args=["pens"], deferrable=True)
    assert len(run.run()) == 2
    assert dict(emulator.tasks[0].inputs) == {"keyword": "pens of run", "max_items": "2"}


def test_return_value_of_the_function_is_not_rendered_as_a_template(decorated, emulator):
    decorated(lambda: {"keyword": "{{ conn.shop.password }}"}).run()
    assert dict(emulator.tasks[0].inputs)["keyword"] == "{{ conn.shop.password }}"


def test_function_is_called_again_after_a_wait_for_a_slot(decorated, worker, emulator):
    emulator.concurrency = 1
    emulator.next_run(SEARCH.id, duration=0.7)
    worker(workflow_id=SEARCH.id, input_parameters={"keyword": "ink"}, wait_for_completion=False).run()
    called = []

    def search():
        called.append(1)
        return {"keyword": "pens"}

    decorated(search, deferrable=True).run()
    assert len(called) > 1
    assert [dict(run.inputs)["keyword"] for run in emulator.tasks] == ["ink", "pens"]


def test_later_try_reattaches_to_the_run_of_a_decorated_function(decorated, emulator, store):
    for _ in range(2):
        run = decorated(lambda: {"keyword": "pens"}, store=store, wait_for_completion=False)
        assert run.run() == emulator.tasks[0].id


@cases(
    ("returned", "message"),
    {
        "text": ("pens", "The function returned a value of type str.\nReturn a dict"),
        "number": (7, "The function returned a value of type int"),
        "wrong case input": ({"Keyword": "pens"}, r"'Keyword' \(did you mean 'keyword'\?\)"),
        "empty dict": ({}, "lacks the required name 'keyword'"),
        "returns None": (None, "The function returned None"),
    },
)
def test_invalid_return_value_of_the_function_fails_before_any_start(decorated, emulator, returned, message):
    with pytest.raises(AirflowFailException, match=message):
        decorated(lambda: returned).run()
    assert emulator.tasks == []


def test_error_of_the_function_stops_and_names_the_run_of_an_earlier_try(decorated, emulator, store):
    emulator.set_workflow(SEARCH.id, duration=60.0)
    decorated(lambda: {"keyword": "pens"}, store=store, wait_for_completion=False).run()

    def search():
        raise KeyError("keyword")

    with pytest.raises(
        RunLostError, match=rf"BrowserAct task {emulator.tasks[0].id} of an earlier try: The run was stopped"
    ):
        decorated(search, store=store).run()
    assert emulator.tasks[0].status == "canceled"


def test_error_of_the_function_is_raised_and_starts_no_run(decorated, emulator):
    def search():
        raise KeyError("keyword")

    with pytest.raises(KeyError):
        decorated(search).run()
    assert emulator.tasks == []


def test_decorated_operator_refuses_the_input_parameters_argument():
    with pytest.raises(TypeError, match="input_parameters"):
        BrowserActDecoratedOperator(
            task_id="x", workflow_id="7", python_callable=lambda: {}, input_parameters={"keyword": "pens"}
        )
