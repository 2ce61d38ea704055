"""Describe the package to Airflow (entry point ``apache_airflow_provider``)."""

from __future__ import annotations

from typing import Any

from airflow_provider_browseract import __version__
from airflow_provider_browseract.hooks.connection import connection_type

_INTEGRATION = "BrowserAct"
_PACKAGE = "airflow_provider_browseract"


def get_provider_info() -> dict[str, Any]:
    """Return the provider info, as Airflow's ``provider_info.schema.json`` defines it."""
    return {
        "package-name": "airflow-provider-browseract",
        "name": "BrowserAct",
        # Airflow's list of providers shows the link as text, and loses a space behind it.
        "description": "Run cloud browser workflows and bots of `BrowserAct <https://www.browseract.com/>`__.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.browseract.com/",
                "tags": ["service"],
            }
        ],
        **{
            room: [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.{room}.browseract"]}]
            for room in ("hooks", "operators", "sensors", "triggers")
        },
        "task-decorators": [{"class-name": f"{_PACKAGE}.decorators.browseract.browseract_task", "name": "browseract"}],
        "connection-types": [connection_type()],
        "extra-links": [
            f"{_PACKAGE}.in_airflow.links.{name}" for name in ("BrowserActTaskLink", "LiveViewLink", "PanelLink")
        ],
    }
