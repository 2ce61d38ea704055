"""Importing the operator happens in every parse of a DAG file, so it has to be cheap."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from airflow.sdk import DAG, BaseOperator
before = set(sys.modules)
import airflow_provider_browseract.operators.browseract
added = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(added))
assert not added & {"requests", "httpx", "fastapi", "uvicorn", "pydantic"}, added
assert "airflow_provider_browseract.api.client" not in sys.modules
assert not any(name.startswith("airflow_provider_browseract.triggers.") for name in sys.modules)
"""


def test_import_of_the_operator_loads_no_http_library_client_or_trigger():
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=300)


PLUGIN = """
import sys
import airflow.plugins_manager
before = set(sys.modules)
import airflow_provider_browseract.plugin
added = {name for name in set(sys.modules) - before if name.startswith("airflow_provider_browseract.")}
assert "airflow_provider_browseract.plugin" in added
assert not any(part in name for name in added for part in (".api", ".runs.callback_url", ".runs.waiting")), added
"""


def test_import_of_the_plugin_loads_only_what_it_needs_before_the_first_request():
    subprocess.run([sys.executable, "-c", PLUGIN], check=True, timeout=300)


PROVIDER_INFO = """
import sys
from airflow_provider_browseract.get_provider_info import get_provider_info
get_provider_info()
assert "airflow_provider_browseract.api.models" not in sys.modules
"""


def test_provider_info_which_every_airflow_process_reads_loads_no_models():
    subprocess.run([sys.executable, "-c", PROVIDER_INFO], check=True, timeout=300)
