"""What the package tells Airflow about itself (entry point ``apache_airflow_provider``)."""

from __future__ import annotations

from typing import Any

from airflow_provider_browseract import __version__
from airflow_provider_browseract.hooks.connection import connection_type

_INTEGRATION = "BrowserAct"


def get_provider_info() -> dict[str, Any]:
    """Describe the provider, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-browseract",
        "name": "BrowserAct",
        "description": "Run `BrowserAct <https://www.browseract.com/>`__ cloud browser workflows.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.browseract.com/",
                "tags": ["service"],
            }
        ],
        "hooks": [_modules("hooks")],
        "operators": [_modules("operators")],
        "sensors": [_modules("sensors")],
        "triggers": [_modules("triggers")],
        "task-decorators": [
            {
                "class-name": "airflow_provider_browseract.decorators.browseract.browseract_task",
                "name": "browseract",
            }
        ],
        "connection-types": [connection_type()],
        "extra-links": [
            "airflow_provider_browseract.links.browseract.BrowserActTaskLink",
            "airflow_provider_browseract.links.browseract.LiveViewLink",
        ],
    }


def _modules(kind: str) -> dict[str, Any]:
    return {
        "integration-name": _INTEGRATION,
        "python-modules": [f"airflow_provider_browseract.{kind}.browseract"],
    }
