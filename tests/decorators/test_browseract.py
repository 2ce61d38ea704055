"""``@task.browseract``: a function makes the inputs, and everything else is as with the operator."""

from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.decorators.browseract import BotDecoratedOperator, BrowserActDecoratedOperator
from airflow_provider_browseract.emulator import CONTACTS, SEARCH
from airflow_provider_browseract.exceptions import InputError
from tests.helpers.cases import cases
from tests.helpers.workers import BOTH_WAYS, store
from tests.helpers.world import emulator, worker, world

__all__ = ["emulator", "store", "worker", "world"]

BOT: dict[str, Any] = {"bot_id": CONTACTS.id}
TEMPLATE = "^The function returned the template {{ ds }}, but a returned value is not rendered. Take the value as"


@pytest.fixture
def decorated(worker):
    """Return a function that creates tries of a decorated function, for a workflow unless there is a ``bot_id``."""

    def make(function, **arguments):
        of_bot = "bot_id" in arguments
        given = {"operator_class": BotDecoratedOperator if of_bot else BrowserActDecoratedOperator, **arguments}
        return worker(python_callable=function, **({} if of_bot else {"workflow_id": SEARCH.id}), **given)

    return make


@cases(
    ("workflow", {"workflow_id": SEARCH.id, "deferrable": True}, BrowserActDecoratedOperator),
    ("bot", BOT, BotDecoratedOperator),
)
def test_task_browseract_decorator_creates_the_decorated_operator(arguments, operator_class):
    with DAG("decorated") as dag:

        @task.browseract(**arguments)  # type: ignore[untyped-decorator]
        def find(name) -> dict[str, str]:
            return {"keyword": name}

        find.expand(name=["a", "b"])
        find("c")
    operator: Any = dag.get_task("find__1")
    assert isinstance(operator, operator_class)
    assert {name: getattr(operator, name) for name in arguments} == arguments
    assert (operator.operator_name, operator.multiple_outputs) == ("@task.browseract", False)


@pytest.mark.parametrize("given", [{}, {"workflow_id": SEARCH.id, "bot_id": CONTACTS.id}], ids=["neither", "both"])
def test_decorator_needs_either_a_workflow_id_or_a_bot_id(given):
    with pytest.raises(InputError, match=r"^Write @task\.browseract\(workflow_id=.*, with one of the two\.$"):

        @task.browseract(**given)
        def find():
            return {}


@BOTH_WAYS
@cases({"workflow": ({}, ("keyword", "max_items"), 2, "2"), "bot": (BOT, ("company_name", "max_pages"), "2", 2)})
def test_what_the_function_returns_becomes_the_inputs(decorated, emulator, deferrable, arguments, names, number, sent):
    def find(text, ti=None):
        return dict(zip(names, (f"{text} of {ti.task_id}", number), strict=True))

    assert decorated(find, **arguments, op_args=["pens"], deferrable=deferrable).run()
    assert dict(emulator.tasks[0].inputs) == dict(zip(names, ("pens of run", sent), strict=True))


@pytest.mark.parametrize("argument", ["input_parameters", "input"])
def test_decorator_takes_no_inputs_because_the_function_returns_them(argument):
    with pytest.raises(InputError, match=f"takes no {argument}, because the function returns the inputs"):
        task.browseract(**{"workflow_id": SEARCH.id, argument: {"keyword": "pens"}})  # type: ignore[call-overload]


@cases(
    ("text", {}, "pens", "The function returned a value of type str. Return a dict"),
    ("empty dict", {}, {}, "lacks the required name 'keyword'"),
    ("returns None", {}, None, "The function returned None"),
    ("list for a bot", BOT, [{"name": "company_name", "value": "a"}], "input is a value of type list"),
    ("template", {}, {"keyword": "prices of {{ ds }}"}, TEMPLATE),
    ("template for a bot", BOT, {"company_name": ["{{ ds }}"]}, TEMPLATE),
)
def test_invalid_return_value_of_the_function_fails_before_any_start(decorated, emulator, arguments, returned, message):
    with pytest.raises(AirflowFailException, match=message):
        decorated(lambda: returned, **arguments).run()
    assert emulator.tasks == []
    if not isinstance(returned, dict) or message is TEMPLATE:
        assert emulator.requests == []


def test_braces_that_are_no_template_are_sent_as_they_are(decorated, emulator):
    keyword = '{ds} }} {{ {"a": {"b": {}}}'
    decorated(lambda: {"keyword": keyword}).run()
    assert dict(emulator.tasks[0].inputs)["keyword"] == keyword


def test_function_is_called_again_after_a_wait_for_a_slot(decorated, worker, emulator):
    emulator.concurrency = 1
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
