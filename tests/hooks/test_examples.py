"""The examples in the hook's docstrings are run, and every endpoint of the API has its methods and its examples."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import re

import pytest

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.emulator import HUMAN, LOG_IN, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.emulator.service import ENDPOINTS
from airflow_provider_browseract.hooks.browseract import BrowserActHook

EXAMPLES = {
    test.name: test
    for name, member in inspect.getmembers(BrowserActHook, inspect.isfunction)
    for test in doctest.DocTestFinder(recurse=False, exclude_empty=True).find(member, name, globs={})
    if test.examples
}


def method(endpoint: str) -> str:
    """Name the hook's method for an endpoint, which gives what there is where the API lists pages of it."""
    name = endpoint.replace("-", "_")
    return "iter_" + name.removeprefix("list_") if name.startswith("list_") else name


SYNC = [method(endpoint) for endpoint in ENDPOINTS]
ASYNC = ["a" + name for name in SYNC]


@pytest.fixture
def names(browseract_emulator):
    """What the examples have at hand, as the hook's docstring says."""
    emulator, hook = browseract_emulator.emulator, BrowserActHook()
    for workflow_id in (SEARCH.id, LOG_IN.id, TEMPLATE_SEARCH.id):
        emulator.set_workflow(workflow_id, duration=600)
    emulator.set_workflow(HUMAN.id, duration=600, pause_at=0)
    emulator.next_run(SEARCH.id, duration=0)
    return {
        "asyncio": asyncio,
        "hook": BrowserActHook(),
        "finished_task_id": hook.run_task(SEARCH.id, {"keyword": "laptops"}).id,
        "paused_task_id": hook.run_task(HUMAN.id).id,
        "task_id": hook.run_task(SEARCH.id, {"keyword": "laptops"}).id,
    }


def run(test: doctest.DocTest, names) -> str:
    """Run an example, and give what doctest has to say against it."""
    said: list[str] = []
    copy = doctest.DocTest(test.examples, dict(names), test.name, test.filename, test.lineno, test.docstring)
    doctest.DocTestRunner(verbose=False).run(copy, out=said.append)
    return "".join(said)


@pytest.mark.parametrize("name", EXAMPLES)
def test_hook_docstring_example_prints_what_it_shows(names, name, monkeypatch):
    if name in (*ASYNC, "async_client"):

        def blocking(*args, **kwargs):
            raise AssertionError("this blocks the event loop")

        monkeypatch.setattr(BrowserActClient, "send", blocking)
        monkeypatch.setattr(BrowserActHook, "get_connection", blocking)
    assert run(EXAMPLES[name], names) == ""


@pytest.mark.parametrize("name", SYNC + ASYNC)
def test_hook_method_has_docstring_example_that_calls_it_and_shows_a_result(name):
    assert name in EXAMPLES
    examples = EXAMPLES[name].examples
    assert any(f"hook.{name}(" in example.source for example in examples)
    assert examples[-1].want


def test_docstring_example_with_wrong_output_is_detected(names):
    wrong = doctest.DocTestParser().get_doctest(">>> print(hook.get_task_status(task_id))\nfailed\n", {}, "it", None, 0)
    assert "Expected:\n    failed\nGot:\n    running\n" in run(wrong, names)


def test_call_functions_match_the_api_endpoints():
    functions = [
        name
        for name, function in inspect.getmembers(calls, inspect.isfunction)
        if function.__module__ == calls.__name__ and not name.startswith("_")
    ]
    assert sorted(functions) == sorted(endpoint.replace("-", "_") for endpoint in ENDPOINTS)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_sync_and_async_hook_methods_accept_every_endpoint_argument(endpoint):
    function = inspect.signature(getattr(calls, endpoint.replace("-", "_")))
    blocking, other = (
        inspect.signature(getattr(BrowserActHook, name)) for name in (method(endpoint), "a" + method(endpoint))
    )
    assert set(function.parameters) - {"page", "limit"} <= set(blocking.parameters)
    assert other.parameters == blocking.parameters
    assert other.return_annotation == re.sub(
        r"^Iterator\[(.*)\]$", r"AsyncGenerator[\1, None]", blocking.return_annotation
    )


@pytest.mark.parametrize("name", SYNC)
def test_hook_method_docstring_names_its_endpoint_and_describes_all_arguments(name):
    function = getattr(BrowserActHook, name)
    described = inspect.getdoc(function) or ""
    assert [endpoint for endpoint in ENDPOINTS if method(endpoint) == name and f"(``{endpoint}``)" in described]
    for argument in list(inspect.signature(function).parameters)[1:]:
        assert f":param {argument}:" in described
