"""Each endpoint of both versions of the API has its function and its method of the hook."""

from __future__ import annotations

import inspect

import pytest

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.emulator.v2 import V2
from airflow_provider_browseract.emulator.v3 import V3
from airflow_provider_browseract.hooks.browseract import BrowserActHook

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
    "list-regions": "get_bot_region_list",
}
ENDPOINTS = [*((v2, endpoint) for endpoint in V2.endpoints), *((v3, endpoint) for endpoint in V3.endpoints)]


def method(endpoint: str) -> str:
    """Name the method for an endpoint, which iterates over the items if the API lists pages of them."""
    name = METHODS_OF_V3.get(endpoint, endpoint.replace("-", "_"))
    return "iter_" + name.removeprefix("list_") if name.startswith("list_") else name


@pytest.mark.parametrize(("module", "endpoints"), [(v2, V2.endpoints), (v3, V3.endpoints)], ids=["v2", "v3"])
def test_call_functions_match_the_api_endpoints(module, endpoints):
    functions = inspect.getmembers(module, inspect.isfunction)
    public = [name for name, each in functions if each.__module__ == module.__name__ and name[0] != "_"]
    assert sorted(public) == sorted(endpoint.replace("-", "_") for endpoint in endpoints)


@pytest.mark.parametrize(("module", "endpoint"), ENDPOINTS, ids=[endpoint for _, endpoint in ENDPOINTS])
def test_hook_method_takes_and_describes_every_argument_of_its_endpoint(module, endpoint):
    found = getattr(BrowserActHook, method(endpoint))
    description, arguments = inspect.getdoc(found) or "", set(inspect.signature(found).parameters) - {"self"}
    sent = inspect.signature(getattr(module, endpoint.replace("-", "_"))).parameters
    assert set(sent) - {"page", "limit"} <= arguments
    assert [name for name in arguments if f":param {name}:" not in description] == []
    assert f"``{endpoint}``" in description
