from __future__ import annotations

import inspect

import pytest

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


def method(endpoint: str) -> str:
    """Name the method for an endpoint, which iterates over the items if the API lists pages of them."""
    name = METHODS_OF_V3.get(endpoint, endpoint.replace("-", "_"))
    return "iter_" + name.removeprefix("list_") if name.startswith("list_") else name


@pytest.mark.parametrize("endpoint", [*V2.endpoints, *V3.endpoints])
def test_hook_has_a_method_for_each_endpoint_and_describes_its_arguments(endpoint):
    found = getattr(BrowserActHook, method(endpoint))
    description, arguments = inspect.getdoc(found) or "", set(inspect.signature(found).parameters) - {"self"}
    assert [name for name in arguments if f":param {name}:" not in description] == []
    assert f"``{endpoint}``" in description
