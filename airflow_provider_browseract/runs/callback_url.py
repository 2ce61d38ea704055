"""Callback addresses: how they are made, and how a wait that a callback has ended is recognized.

An address contains the id of the task instance that waits, and a token that is sent only to BrowserAct. The trigger's
arguments contain only the SHA-256 of the token.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.runs.addresses import check_callback_url
from airflow_provider_browseract.runs.routes import CALLBACK_PATH, URL_PREFIX
from airflow_provider_browseract.runs.wait import Wait, WokenBy

UNKNOWN_RESPONSE = b'{"outcome":"unknown"}'
"""The response of the route to everything that is not for it. Other paths respond with something else."""

WAIT_XCOM = "wait"
"""XCom that describes how a task instance waits and what ended the wait. Its value is a dict."""

TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
"""The form of a token."""


def new_token() -> str:
    """Return a token that cannot be guessed: 256 bits in 43 characters."""
    return secrets.token_urlsafe(32)


def resumed_wait(wait: Wait) -> dict[str, Any]:
    """Return the value of :data:`WAIT_XCOM` for a wait that a callback has ended."""
    return {"woken_by": WokenBy.CALLBACK.value, "began_at": wait.began_at}


def is_resumed_wait(wait: Any, began_at: float) -> bool:
    """Return whether a callback has ended a certain wait of a task instance.

    A task instance can wait several times, and each wait has its own trigger.

    :param wait: value of the XCom :data:`WAIT_XCOM`, or None if there is none.
    :param began_at: when that wait began. It identifies the wait, because Airflow reuses the ids of triggers.
    """
    if not isinstance(wait, dict) or wait.get("woken_by") != WokenBy.CALLBACK.value:
        return False
    found = wait.get("began_at")
    # Databases may store the number with fewer digits.
    return isinstance(found, int | float) and abs(found - began_at) < 0.001


def address(base_url: str, ti_id: object, token: str, *, conn_id: str, api_base_url: str) -> str:
    """Return the address for the callback of a run, after the checks that BrowserAct makes too.

    :param base_url: public address of the Airflow API server, with the path of ``[api] base_url``.
    :param ti_id: Airflow's id of the task instance. Each try has another one.
    :param conn_id: id of the connection that has the base URL, for the messages.
    :param api_base_url: address of the BrowserAct API. If it is private, the base URL may be private too.
    :raises InputError: BrowserAct would not accept the address.
    """
    named = f"webhook_base_url of connection {conn_id!r}"
    if "?" in base_url or "#" in base_url or "@" in base_url:
        raise InputError(f"{named} has a query, a fragment or a login. Set it to only scheme, host and path.")
    if f"{URL_PREFIX}{CALLBACK_PATH}/" in f"{base_url}/":
        raise InputError(
            f"{named} contains the path of the callback route. Remove {URL_PREFIX}{CALLBACK_PATH} and what follows it."
        )
    check_callback_url(named, base_url, api_base_url=api_base_url)
    url = f"{base_url.rstrip('/')}{URL_PREFIX}{CALLBACK_PATH}/{ti_id}/{token}"
    check_callback_url(f"The callback address that begins with {named}", url, api_base_url=api_base_url)
    return url
