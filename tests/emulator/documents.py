"""The emulator against the vendor's OpenAPI documents: what is the same for each version of the API."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from airflow_provider_browseract.emulator import Emulator

MANY = hypothesis.settings(
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
"""Settings of a test with random requests."""


def load(variable: str, name: str) -> tuple[Any, Any]:
    """Return the schema of a document that a variable names, and the same without authentication.

    The tests of the module are skipped if there is no such document. The documents have no response to random requests
    without a key or with a wrong one: they do not declare 401.
    """
    if not (path := os.environ.get(variable)):
        pytest.skip(f"{variable} does not name the vendor's {name}", allow_module_level=True)
    openapi = pytest.importorskip("schemathesis").openapi
    document = json.loads(Path(path).read_text())
    return openapi.from_dict(document), openapi.from_dict({**document, "security": []})


def validate(running: Emulator, case: Any) -> Any:
    """Send a request, and check the response with the document."""
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    # Requests that the document allows are still refused if they name something that does not exist, and if they have
    # additional fields, which the document does not exclude.
    left_out = [positive_data_acceptance]
    if tuple(int(part) for part in version("schemathesis").split(".")[:2]) < (4, 30):
        # It takes parameters for invalid that it then does not send at all.
        left_out.append(negative_data_rejection)
    return case.call_and_validate(
        base_url=running.url,
        headers={"Authorization": f"Bearer {running.api_key}"},
        excluded_checks=left_out,
    )


def succeed(running: Emulator, case: Any) -> Any:
    """Send a request, check the response, and return it. It has to be a success."""
    response = validate(running, case)
    assert response.status_code == 200, response.text
    return response
