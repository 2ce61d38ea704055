"""The examples of the hook and its asynchronous client are run, and every endpoint has its methods and examples."""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

import pytest

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.emulator import HUMAN, LOG_IN, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.emulator.v2 import ENDPOINTS
from airflow_provider_browseract.hooks.async_client import AsyncBrowserAct
from airflow_provider_browseract.hooks.browseract import BrowserActHook

if TYPE_CHECKING:
    from typing_extensions import assert_type

    from airflow_provider_browseract.api.models import Task

# The hook's methods for a single call have the docstrings of the client, whose examples are run only once.
EXAMPLES = {
    test.name: test
    for where in (BrowserActHook, AsyncBrowserAct)
    for _, member in inspect.getmembers(where, inspect.isfunction)
    if member.__qualname__.startswith(where.__name__)
    for test in doctest.DocTestFinder(recurse=False, exclude_empty=True).find(member, member.__qualname__, globs={})
    if test.examples
}
NOT_BLOCKING = ("AsyncBrowserAct.", "BrowserActHook.a")


def method(endpoint: str) -> str:
    """Name the method for an endpoint, which iterates over the items if the API lists pages of them."""
    name = endpoint.replace("-", "_")
    return "iter_" + name.removeprefix("list_") if name.startswith("list_") else name


@pytest.fixture
def names(browseract_emulator):
    """The names that the examples use, as the docstrings of the two classes describe them."""
    emulator, hook = browseract_emulator.emulator, BrowserActHook()
    for workflow_id in (SEARCH.id, LOG_IN.id, TEMPLATE_SEARCH.id):
        emulator.set_workflow(workflow_id, duration=600)
    emulator.set_workflow(HUMAN.id, duration=600, pause_at=0)
    emulator.next_run(SEARCH.id, duration=0)
    return {
        "hook": BrowserActHook(),
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
        said: list[str] = []
        opening = names["hook"].async_client()
        open_names = {**names, "browseract": loop.run_until_complete(opening.__aenter__())}
        copy = doctest.DocTest(test.examples, open_names, test.name, test.filename, test.lineno, test.docstring)
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(copy, compileflags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, out=said.append)
        loop.run_until_complete(opening.__aexit__(None, None, None))
        return "".join(said)

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


@pytest.mark.parametrize("name", map(method, ENDPOINTS))
@pytest.mark.parametrize(("where", "variable"), [(BrowserActHook, "hook"), (AsyncBrowserAct, "browseract")])
def test_method_has_docstring_example_that_calls_it_and_shows_a_result(where, variable, name):
    examples = EXAMPLES[f"{where.__name__}.{name}"].examples
    assert any(f"{variable}.{name}(" in example.source for example in examples)
    assert examples[-1].want


@pytest.mark.parametrize("call", ["hook.get_task_status(task_id)", "await browseract.get_task_status(task_id)"])
def test_docstring_example_with_wrong_output_is_detected(run, call):
    wrong = doctest.DocTestParser().get_doctest(f">>> print({call})\nfailed\n", {}, "it", None, 0)
    assert "Expected:\n    failed\nGot:\n    running\n" in run(wrong)


def test_call_functions_match_the_api_endpoints():
    functions = [
        name
        for name, function in inspect.getmembers(calls, inspect.isfunction)
        if function.__module__ == calls.__name__ and not name.startswith("_")
    ]
    assert sorted(functions) == sorted(endpoint.replace("-", "_") for endpoint in ENDPOINTS)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_sync_and_async_methods_accept_every_endpoint_argument(endpoint):
    name = method(endpoint)
    function = inspect.signature(getattr(calls, endpoint.replace("-", "_")))
    blocking = inspect.signature(getattr(BrowserActHook, name))
    single = inspect.signature(getattr(BrowserActHook, f"a{name}"))
    client = inspect.signature(getattr(AsyncBrowserAct, name))
    assert set(function.parameters) - {"page", "limit"} <= set(blocking.parameters)
    assert single.parameters == blocking.parameters
    # The time limit of a client holds for all its calls.
    assert dict(client.parameters) == {key: value for key, value in blocking.parameters.items() if key != "within"}
    awaited = blocking.return_annotation.replace("Iterator[", "AsyncIterator[")
    assert single.return_annotation == client.return_annotation == awaited


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_docstrings_of_sync_and_async_methods_name_the_endpoint(endpoint):
    name = method(endpoint)
    for function in (
        getattr(BrowserActHook, name),
        getattr(BrowserActHook, f"a{name}"),
        getattr(AsyncBrowserAct, name),
    ):
        assert f"(``{endpoint}``)" in (inspect.getdoc(function) or "")


@pytest.mark.parametrize("name", map(method, ENDPOINTS))
def test_hook_method_docstring_describes_all_arguments(name):
    function = getattr(BrowserActHook, name)
    for argument in list(inspect.signature(function).parameters)[1:]:
        assert f":param {argument}:" in (inspect.getdoc(function) or "")


if TYPE_CHECKING:
    # mypy knows the arguments and results of the methods that the hook derives from those of the client.
    async def check_types(hook: BrowserActHook, browseract: AsyncBrowserAct) -> None:
        assert_type(await hook.aget_task("7"), Task)
        assert_type(hook.aiter_tasks(status="failed"), AsyncGenerator[Task, None])
        assert_type(browseract.iter_tasks(status="failed"), AsyncIterator[Task])
        await hook.aget_task(7)  # type: ignore[arg-type]
        hook.aiter_tasks(state="failed")  # type: ignore[call-arg]
