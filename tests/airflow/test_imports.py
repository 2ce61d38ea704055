"""What a process loads and reads when it imports parts of the package. Each test has a new process for that.

The processes are forks of one that has imported Airflow, because that takes longer than everything else.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import pytest

from tests.helpers.cases import cases

pytestmark = pytest.mark.xdist_group("imports")

PACKAGE = "airflow_provider_browseract"
HTTP = {"requests", "httpx", "fastapi", "uvicorn"}
UNUSED_BY_OPERATORS = {*HTTP, "jsonschema", "pydantic", "referencing", "api.client", "api.async_client", "triggers"}
UNUSED_BY_PLUGIN = {"api", "panel", "runs.callback_url", "runs.wait", "fastapi", "jinja2", "starlette"}
WITHOUT_AIRFLOW = ("api.v2", "runs.wait", "spending.budget", "queue.queueing")


@pytest.fixture(scope="module")
def in_a_new_process() -> Callable[..., None]:
    """Call a function of this module in a new process, which fails if the function does."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["airflow.sdk.definitions.dag", "airflow.sdk.bases.operator"])

    def call(function: Callable[..., None], *arguments: object) -> None:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            pool.submit(function, *arguments).result(240)

    return call


def loaded(before: Collection[str] = ()) -> set[str]:
    """Return the modules of this package that are loaded, and the other packages."""
    added = set(sys.modules) - set(before)
    return {name.removeprefix(f"{PACKAGE}.") if name.startswith(PACKAGE) else name.partition(".")[0] for name in added}


def load(module: str, after: str, unwanted: Collection[str]) -> None:
    """Import a module of the package after one of Airflow, and check that this loads nothing unwanted."""
    import_module(after)
    before = set(sys.modules)
    import_module(f"{PACKAGE}.{module}")
    found = loaded(before)
    assert module in found
    assert not [name for name in found for each in unwanted if f"{name}.".startswith(f"{each}.")], found


def parse_all_operators() -> None:
    # Airflow itself loads jsonschema for this module, 3.1 only when an operator is made.
    import airflow.serialization.serialized_objects  # noqa: F401
    from airflow.sdk import DAG

    # An import now fails.
    sys.modules["jsonschema"] = None  # type: ignore[assignment]
    from airflow_provider_browseract.decorators.browseract import browseract_task
    from airflow_provider_browseract.operators import browseract
    from airflow_provider_browseract.sensors.browseract import TaskSensor

    needed: dict[Any, dict[str, Any]] = {
        browseract.RunWorkflowOperator: {"workflow_id": "7"},
        browseract.RunTemplateOperator: {"workflow_template_id": "7"},
        browseract.RunBotOperator: {"bot_id": "7", "input": {"pages": "{{ params.pages }}"}},
        browseract.RunBotTemplateOperator: {"template_id": "7", "input": {"keyword": "pens"}},
        browseract.StopTaskOperator: {"browseract_task_id": "7"},
        browseract.ResumeTaskOperator: {"browseract_task_id": "7"},
        TaskSensor: {"browseract_task_id": "7"},
    }
    assert {each.__name__ for each in needed} >= {name for name in browseract.__all__ if name.endswith("Operator")}
    with DAG("all", schedule=None):
        for operator, arguments in needed.items():
            operator(task_id=operator.__name__, **arguments)
            operator.partial(task_id=f"mapped_{operator.__name__}", **arguments).expand(doc=["a", "b"])
        browseract_task(bot_id="7", task_id="decorated")(lambda: {})()
    assert "runs.options" in loaded()
    assert "runs.bot_input" not in loaded()


def load_provider_info() -> None:
    import_module(f"{PACKAGE}.get_provider_info").get_provider_info()
    assert "api.models" not in loaded(), loaded()


def load_without_airflow() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "airflow"]:
        sys.modules[name] = None  # type: ignore[assignment]
    for module in (*WITHOUT_AIRFLOW, "api.client", "api.async_client"):
        import_module(f"{PACKAGE}.{module}")


def load_without_http() -> None:
    for name in HTTP:
        sys.modules.pop(name, None)
    for module in WITHOUT_AIRFLOW:
        import_module(f"{PACKAGE}.{module}")
    assert not HTTP & set(sys.modules), HTTP & set(sys.modules)


def read_default_deferrable() -> None:
    # Airflow reads the default when a class is defined.
    os.environ["AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"] = "True"
    from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
    from airflow_provider_browseract.sensors.browseract import TaskSensor

    assert RunWorkflowOperator(task_id="run", workflow_id="7").deferrable
    assert TaskSensor(task_id="wait", browseract_task_id="7").deferrable


@cases(
    (
        "operators, which each DAG file imports, load no HTTP library, client or trigger",
        partial(load, "operators.browseract", "airflow.sdk.definitions.dag", UNUSED_BY_OPERATORS),
    ),
    ("DAG with all operators loads no jsonschema", parse_all_operators),
    (
        "plugin loads only what it needs before the first request",
        partial(load, "plugin", "airflow.plugins_manager", UNUSED_BY_PLUGIN),
    ),
    ("provider info, which every process reads, loads no models", load_provider_info),
    ("API and decisions load no Airflow", load_without_airflow),
    ("calls and decisions load no HTTP library", load_without_http),
    ("deferrable is the default of Airflow's configuration", read_default_deferrable),
)
def test_in_a_new_process(in_a_new_process, function):
    in_a_new_process(function)


def test_provider_info_can_be_imported_before_airflow():
    # Airflow then imports it again, for the list of its providers.
    subprocess.run([sys.executable, "-c", f"import {PACKAGE}.get_provider_info"], check=True)
