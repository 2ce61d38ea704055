"""Test a connection: the API with its key, and the address for callbacks.

The connection test of Airflow and the command ``check`` use the same steps.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING
from uuid import uuid4

import requests

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.hooks.connection import check_for_start
from airflow_provider_browseract.runs import callback_url

if TYPE_CHECKING:
    from airflow_provider_browseract.api.client import BrowserActClient
    from airflow_provider_browseract.api.settings import Settings

PROBE_TIMEOUT = 5.0
"""Seconds to wait for the response to a callback."""


def probe(client: BrowserActClient, settings: Settings) -> str:
    """Test a connection, and return a message for the user.

    Airflow shows the message only if the test fails. So callbacks that may not arrive are a failure.

    :param client: a client with a limit for the time that a call may take.
    :raises BrowserActError: the API cannot be reached, or does not accept the key.
    :raises InputError: the connection cannot be used, or callbacks do not arrive.
    """
    check_for_start(settings)
    workflows = count_workflows(client)
    if settings.webhook_base_url is not None:
        check_callbacks(settings)
    return f"Connected to {settings.base_url}: {workflows} workflows are visible."


def count_workflows(client: BrowserActClient) -> int:
    """Return how many workflows the API key can see. The request uses no credits.

    :raises BrowserActError: the API cannot be reached, or does not accept the key.
    """
    return client.send(v2.list_sources(limit=1)).total_count or 0


def check_callbacks(settings: Settings) -> None:
    """Send a callback that no run has to ``webhook_base_url``. Only the callback route responds to it as expected.

    :raises InputError: BrowserAct would not accept the address, or something else responds.
    """
    base_url = settings.webhook_base_url or ""
    of = {"conn_id": settings.connection or "", "api_base_url": settings.base_url}
    url = callback_url.address(base_url, uuid4(), callback_url.new_token(), **of)
    expected = callback_url.UNKNOWN_RESPONSE
    try:
        with requests.post(url, json={}, timeout=PROBE_TIMEOUT, allow_redirects=False, stream=True) as response:
            # It may arrive in pieces, and be longer.
            status, body = response.status_code, b"".join(islice(response.iter_content(1), len(expected) + 1))
    # ValueError: the name of the host cannot be encoded.
    except (requests.RequestException, ValueError) as error:
        cause: BaseException = error
        while cause.__context__ is not None:
            cause = cause.__context__
        raise InputError(
            "Callbacks do not arrive: webhook_base_url does not respond to this machine "
            f"({getattr(cause, 'strerror', None) or type(cause).__name__}).\n"
            "Check the address, and that the API server or a relay listens there. In some networks, a machine cannot "
            "reach its own public address. Then only the log of a task shows it, with the line 'Woken by a callback'."
        ) from None
    if (status, body) == (404, expected):
        return
    if status in (301, 302, 303, 307, 308, 401, 403) or (status == 200 and body.lstrip().startswith(b"<")):
        what, remedy = "a login page or another gateway responds", "Set up a relay there for callbacks."
    else:
        what = "what responds at webhook_base_url is not the callback route"
        remedy = "Check its path, and the log of the API server, where the provider must be installed too."
    raise InputError(f"Callbacks do not arrive: {what} (HTTP {status}).\n{remedy}")
