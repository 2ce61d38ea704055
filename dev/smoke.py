"""Try an installed package from outside of the repository: ``python -I dev/smoke.py``.

``make dist`` runs it in a new environment that has the wheel and its dependencies, and nothing that only tests need.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import tempfile

PACKAGE = "airflow_provider_browseract"
IMPORTED_BY_OTHERS = {f"{PACKAGE}.pytest_plugin", f"{PACKAGE}.worker.lineage"}
"""Modules that only pytest and the OpenLineage provider load, which the package does not require."""


def import_all_modules() -> int:
    """Import the modules of the installed package, and return how many."""
    package = importlib.import_module(PACKAGE)
    if "site-packages" not in str(package.__file__):
        raise RuntimeError(f"{package.__file__} is not an installed package")
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")]
    names = [name for name in names if name not in IMPORTED_BY_OTHERS]
    for name in names:
        importlib.import_module(name)
    return len(names)


def find_provider() -> str:
    """Return the version of the provider that Airflow finds."""
    from airflow.providers_manager import ProvidersManager

    return ProvidersManager().providers["airflow-provider-browseract"].version


def run_once() -> str:
    """Run a workflow of the emulator with the hook, and return the id of the BrowserAct task."""
    from airflow_provider_browseract.emulator import SEARCH, Emulator
    from airflow_provider_browseract.hooks.browseract import BrowserActHook

    with Emulator().serve() as running:
        os.environ["AIRFLOW_CONN_BROWSERACT_DEFAULT"] = json.dumps(running.connection)
        running.next_run(SEARCH.id, duration=0.1)
        hook = BrowserActHook()
        created = hook.run_task(SEARCH.id, {"keyword": "laptops"})
        running.wait_until(lambda: hook.get_task_status(created.id).ended)
        task = hook.get_task(created.id)
    if task.status != "finished" or not task.output:
        raise RuntimeError(f"BrowserAct task {task.id} is {task.status} and has the output {task.output!r}")
    return task.id


def main() -> None:
    """Try the package, and print what worked."""
    with tempfile.TemporaryDirectory(prefix="browseract-smoke-") as home:
        # Airflow reads its settings when it is first imported.
        os.environ["AIRFLOW_HOME"] = home
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        print(f"{import_all_modules()} modules can be imported")
        print(f"Airflow finds provider {find_provider()}")
        print(f"BrowserAct task {run_once()} has finished in the emulator")


if __name__ == "__main__":
    main()
