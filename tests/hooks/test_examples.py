"""The examples of the hook and its asynchronous client are run, and every endpoint has its method and examples."""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect

import pytest

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.emulator import CONTACTS, HUMAN, LOG_IN, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.emulator.v2 import V2
from airflow_provider_browseract.emulator.v3 import V3
from airflow_provider_browseract.hooks.async_client import AsyncBrowserAct
from airflow_provider_browseract.hooks.browseract import BrowserActHook

EXAMPLES = {
    test.name: test
    for where in (BrowserActHook, AsyncBrowserAct)
    for name, member in inspect.getmembers(where, inspect.isfunction)
    if member.__module__.startswith("airflow_provider_browseract.")
    for test in doctest.DocTestFinder(recurse=False, exclude_empty=True).find(
        member, f"{where.__name__}.{name}", globs={}
    )
    if test.examples
}
NOT_BLOCKING = ("AsyncBrowserAct.", "BrowserActHook.async_client")


METHODS_OF_V3 = {
    "create-run": "run_bot",
    "create-template-run": "run_bot_template",
    "query-run-status": "get_task_status",
    "query-run": "get_task",
    "page-runs": "iter_bot_tasks",
    "resume-run": "resume_task",
    "cancel-run": "stop_task",
    "page-bots": "iter_bots",
    "query-bot": "get_bot",
    "page-templates": "iter_bot_templates",
    "query-template": "get_bot_template",
    "list-regions": "get_region_list",
}
ENDPOINTS = [*((v2, endpoint) for endpoint in V2.endpoints), *((v3, endpoint) for endpoint in V3.endpoints)]


def method(endpoint: str) -> str:
    """Name the method for an endpoint, which iterates over the items if the API lists pages of them."""
    name = METHODS_OF_V3.get(endpoint, endpoint.replace("-", "_"))
    return "iter_" + name.removeprefix("list_") if name.startswith("list_") else name


@pytest.fixture
def names(browseract_emulator):
    """The names that the examples use, as the docstrings of the two classes describe them."""
    emulator, hook = browseract_emulator, BrowserActHook()
    for workflow_id in (SEARCH.id, LOG_IN.id, TEMPLATE_SEARCH.id, CONTACTS.id):
        emulator.set_workflow(workflow_id, duration=600)
    emulator.set_workflow(HUMAN.id, duration=600, pause_at=0)
    for workflow_id in (SEARCH.id, CONTACTS.id):
        emulator.next_run(workflow_id, duration=0)
    return {
        "hook": BrowserActHook(),
        "finished_bot_task_id": hook.run_bot(CONTACTS.id, {"company_name": "Example Corp"}).id,
        "finished_task_id": hook.run_task(SEARCH.id, {"keyword": "laptops"}).id,
        "paused_task_id": hook.run_task(HUMAN.id).id,
        "task_id": hook.run_task(SEARCH.id, {"keyword": "laptops"}).id,
    }


@pytest.fixture
def run(names, monkeypatch):
    """Run an example, in which ``await`` can stand outside of a function, and return what doctest reports."""
    loop = asyncio.new_event_loop()

    def execute(code, names):
        # Code with such an await evaluates to a coroutine.
        if (coroutine := eval(code, names)) is not None:
            loop.run_until_complete(coroutine)

    def run(test: doctest.DocTest) -> str:
        logged: list[str] = []
        opening = names["hook"].async_client()
        open_names = {**names, "v2": v2, "browseract": loop.run_until_complete(opening.__aenter__())}
        copy = doctest.DocTest(test.examples, open_names, test.name, test.filename, test.lineno, test.docstring)
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(copy, compileflags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, out=logged.append)
        loop.run_until_complete(opening.__aexit__(None, None, None))
        return "".join(logged)

    monkeypatch.setattr(doctest, "exec", execute, raising=False)
    yield run
    loop.close()


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_example_prints_what_it_shows(run, name, monkeypatch):
    if name.startswith(NOT_BLOCKING):

        def blocking(*args, **kwargs):
            raise AssertionError("this blocks the event loop")

        monkeypatch.setattr(BrowserActClient, "send", blocking)
        monkeypatch.setattr(BrowserActHook, "get_connection", blocking)
    assert run(EXAMPLES[name]) == ""


def has_example(where: type, variable: str, name: str) -> bool:
    """Return whether the example of a method calls it and shows a result."""
    examples = EXAMPLES[f"{where.__name__}.{name}"].examples
    return any(f"{variable}.{name}(" in example.source for example in examples) and bool(examples[-1].want)


@pytest.mark.parametrize(
    "call", ["hook.get_task_status(task_id)", "(await browseract.send(v2.get_task(task_id))).status"]
)
def test_docstring_example_with_wrong_output_is_detected(run, call):
    wrong = doctest.DocTestParser().get_doctest(f">>> print({call})\nfailed\n", {}, "it", None, 0)
    assert "Expected:\n    failed\nGot:\n    running\n" in run(wrong)


@pytest.mark.parametrize(("module", "endpoints"), [(v2, V2.endpoints), (v3, V3.endpoints)], ids=["v2", "v3"])
def test_call_functions_match_the_api_endpoints(module, endpoints):
    functions = inspect.getmembers(module, inspect.isfunction)
    public = [name for name, each in functions if each.__module__ == module.__name__ and name[0] != "_"]
    assert sorted(public) == sorted(endpoint.replace("-", "_") for endpoint in endpoints)


@pytest.mark.parametrize(("module", "endpoint"), ENDPOINTS, ids=[endpoint for _, endpoint in ENDPOINTS])
def test_hook_method_takes_and_describes_every_argument_of_its_endpoint_and_has_an_example(module, endpoint):
    found = getattr(BrowserActHook, method(endpoint))
    description, arguments = inspect.getdoc(found) or "", set(inspect.signature(found).parameters) - {"self"}
    sent = inspect.signature(getattr(module, endpoint.replace("-", "_"))).parameters
    assert set(sent) - {"page", "limit"} <= arguments
    assert [name for name in arguments if f":param {name}:" not in description] == []
    assert f"``{endpoint}``" in description
    assert has_example(BrowserActHook, "hook", method(endpoint))


def test_methods_of_the_asynchronous_client_have_examples():
    assert has_example(BrowserActHook, "hook", "async_client")
    assert has_example(AsyncBrowserAct, "browseract", "send")
    assert has_example(AsyncBrowserAct, "browseract", "iter_items")
