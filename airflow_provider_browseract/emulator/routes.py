"""The endpoints of all versions of the API."""

from __future__ import annotations

from airflow_provider_browseract.emulator import v2, v3
from airflow_provider_browseract.emulator.endpoints import Endpoint

ENDPOINTS = {**v2.ENDPOINTS, **v3.ENDPOINTS}
"""The endpoints by name."""


def endpoint_of(method: str, path: str) -> Endpoint | None:
    """Return the endpoint of a request, or one with the same path and another method."""
    found = [endpoint for endpoint in ENDPOINTS.values() if endpoint.pattern.fullmatch(path)]
    return next((endpoint for endpoint in found if endpoint.method == method), found[0] if found else None)
