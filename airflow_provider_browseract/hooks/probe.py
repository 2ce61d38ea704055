"""Test a connection: the API with its key, and the callback route."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
    NotTheApiError,
    ResponseLostError,
)
from airflow_provider_browseract.runs import callback_url
from airflow_provider_browseract.runs.routes import URL_PREFIX

if TYPE_CHECKING:
    from airflow_provider_browseract.api.client import BrowserActClient
    from airflow_provider_browseract.hooks.browseract import BrowserActHook

PROBE_TIMEOUT = 5.0
"""Seconds that the test of a connection waits for the callback route."""


def probe(client: BrowserActClient, hook: BrowserActHook) -> tuple[bool, str]:
    """Return whether the connection of a hook works, and a message for the user.

    :param client: a client of the hook with a limit for the time that a call may take.
    """
    try:
        page = client.send(v2.list_workflows(limit=1))
    except AuthenticationError as error:
        return False, f"The API key is wrong: {error}"
    except NotTheApiError as error:
        return False, f"The host is wrong: {error}"
    except (ConnectionFailedError, ResponseLostError) as error:
        return False, f"No usable connection to the API address: {error}"
    except (BrowserActError, InputError) as error:
        return False, str(error)
    connected = f"Connected to {hook.settings.client.base_url}: {page.total_count or 0} workflows are visible."
    good, callbacks = _probe_callbacks(hook)
    return good, f"{connected} {callbacks}"


def _probe_callbacks(hook: BrowserActHook) -> tuple[bool, str]:
    """Send a callback with a token that no run has, and return whether the callback route received it.

    Airflow shows the message only if the test fails. So callbacks that may not arrive are a failure.
    """
    base_url = hook.settings.webhook_base_url
    if base_url is None:
        return True, "Deferred tasks poll BrowserAct, because the connection has no webhook_base_url."
    try:
        url = callback_url.address(
            base_url,
            callback_url.TaskInstanceKey("", "", "", -1),
            callback_url.new_token(),
            conn_id=hook.browseract_conn_id,
            api_base_url=hook.settings.client.base_url,
        )
        with requests.post(url, json={}, timeout=PROBE_TIMEOUT, allow_redirects=False, stream=True) as response:
            body: bytes = next(response.iter_content(1000), b"")
    except InputError as error:
        return False, f"But callbacks are not possible: {error}"
    except requests.RequestException as error:
        return False, (
            f"But {base_url} cannot be reached from the machine of this test: {_why_unreachable(error)}. Check the "
            "address, and that the API server or a relay listens there. In some networks, a machine cannot reach "
            "its own public address. If yours is one of them, look at the log of a task that waited for a "
            "callback: if it has the line 'Woken by a callback', callbacks arrive."
        )
    if (response.status_code, body) == (404, callback_url.UNKNOWN_RESPONSE):
        return True, f"The callback route responds at {base_url}."
    return False, _why_callbacks_do_not_arrive(base_url, response, body)


def _why_unreachable(error: requests.RequestException) -> str:
    """Return the reason of the operating system for an error, as text."""
    if isinstance(error, requests.Timeout):
        return f"no response within {PROBE_TIMEOUT:g} seconds"
    cause: BaseException | None = error
    reason = type(error).__name__
    while cause is not None:
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            reason = cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return reason


def _why_callbacks_do_not_arrive(base_url: str, response: requests.Response, body: bytes) -> str:
    """Return what is wrong if the response is not the one of the callback route to an unknown token."""
    status = f"HTTP {response.status_code}"
    if response.status_code == 503 and body.startswith(b'{"outcome":'):
        return (
            f"But the callback route at {base_url} cannot handle callbacks now ({status}): Airflow's database does not "
            "respond, or this version of the provider does not support this version of Airflow. Check the log of the "
            "API server."
        )
    is_page = "html" in response.headers.get("content-type", "").lower()
    if response.is_redirect or response.status_code in (401, 403) or (is_page and response.ok):
        return (
            f"But a login page or another gateway responds at {base_url} ({status}) instead of the callback route. Set "
            "up a relay there for callbacks."
        )
    hint = f" (remove {URL_PREFIX} from its end)" if base_url.rstrip("/").endswith(URL_PREFIX) else ""
    return (
        f"But {base_url} does not lead to the callback route: the response was {status}. Check its path{hint}, and "
        "that the provider is installed where the API server runs."
    )
