"""Test a connection: the API with its key, and the address for callbacks.

The connection test of Airflow and the command ``check`` use the same steps.
"""

from __future__ import annotations

import time
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import requests

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.exceptions import (
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
    InputError,
    ResponseLostError,
)
from airflow_provider_browseract.hooks.connection import check_for_start
from airflow_provider_browseract.runs import callback_url
from airflow_provider_browseract.runs.routes import URL_PREFIX

if TYPE_CHECKING:
    from airflow_provider_browseract.api.client import BrowserActClient
    from airflow_provider_browseract.hooks.browseract import BrowserActHook

PROBE_TIMEOUT = 5.0
"""Seconds to wait for the response to a callback."""

MAX_RESPONSE = 1000
"""Bytes that are read of it."""


class Arrival(Enum):
    """Where a callback arrived that was sent to test an address."""

    NOWHERE = auto()
    """Nothing responded."""

    ROUTE = auto()
    """The callback route of an Airflow responded."""

    UNAVAILABLE = auto()
    """The callback route cannot handle callbacks now."""

    GATEWAY = auto()
    """A login page or another gateway responded."""

    ELSEWHERE = auto()
    """Something else responded, such as an Airflow without the provider."""


class Delivery(NamedTuple):
    """The result of a callback that was sent to test an address.

    :param seen: HTTP status of the response, or the reason why there is none.
    """

    arrival: Arrival
    seen: str


class Problem(NamedTuple):
    """Why callbacks cannot arrive, and what to do, as sentences without and with a full stop."""

    what: str
    remedy: str


def probe(client: BrowserActClient, hook: BrowserActHook) -> tuple[bool, str]:
    """Return whether the connection of a hook works, and a message for the user.

    :param client: a client of the hook with a limit for the time that a call may take.
    """
    try:
        check_for_start(hook.settings)
        workflows = count_workflows(client)
    except AuthenticationError as error:
        return False, f"The API key is wrong: {error}"
    except (ConnectionFailedError, ResponseLostError) as error:
        return False, f"No usable connection to the API address: {error}"
    except (BrowserActError, InputError) as error:
        return False, str(error)
    good, callbacks = _probe_callbacks(hook)
    return good, f"Connected to {hook.settings.base_url}: {workflows} workflows are visible. {callbacks}"


def count_workflows(client: BrowserActClient) -> int:
    """Return how many workflows the API key can see. The request uses no credits.

    :raises BrowserActError: the API cannot be reached, or does not accept the key.
    """
    return client.send(v2.list_sources(limit=1)).total_count or 0


def _probe_callbacks(hook: BrowserActHook) -> tuple[bool, str]:
    """Send a callback with a token that no run has, and return whether the callback route received it.

    Airflow shows the message only if the test fails. So callbacks that may not arrive are a failure.
    """
    base_url = hook.settings.webhook_base_url
    if base_url is None:
        return True, "Deferred tasks poll BrowserAct, because the connection has no webhook_base_url."
    try:
        url = address_to_test(hook)
    except InputError as error:
        return False, f"But callbacks are not possible: {error}"
    delivery = deliver(url)
    if delivery.arrival is Arrival.ROUTE:
        return True, f"The callback route responds at {base_url}."
    problem = explain(base_url, delivery)
    return False, f"But {problem.what}. {problem.remedy}"


def address_to_test(hook: BrowserActHook) -> str:
    """Return the address for a callback, which no run has, through the ``webhook_base_url`` of a connection.

    :raises InputError: BrowserAct would not accept it.
    """
    settings = hook.settings
    of = {"conn_id": hook.browseract_conn_id, "api_base_url": settings.base_url}
    return callback_url.address(settings.webhook_base_url or "", uuid4(), callback_url.new_token(), **of)


def deliver(url: str) -> Delivery:
    """Send a callback to test its address, and return where it arrived."""
    try:
        with requests.post(url, json={}, timeout=PROBE_TIMEOUT, allow_redirects=False, stream=True) as response:
            body = beginning_of(response)
    # ValueError: the name of the host cannot be encoded.
    except (requests.RequestException, ValueError) as error:
        return Delivery(Arrival.NOWHERE, _why_unreachable(error))
    seen = f"HTTP {response.status_code}"
    if (response.status_code, body) == (404, callback_url.UNKNOWN_RESPONSE):
        return Delivery(Arrival.ROUTE, seen)
    if response.status_code == 503 and body.startswith(b'{"outcome":'):
        return Delivery(Arrival.UNAVAILABLE, seen)
    is_page = "html" in response.headers.get("content-type", "").lower()
    if response.is_redirect or response.status_code in (401, 403) or (is_page and response.ok):
        return Delivery(Arrival.GATEWAY, seen)
    return Delivery(Arrival.ELSEWHERE, seen)


def beginning_of(response: requests.Response) -> bytes:
    """Read a body that may be endless, or arrive a byte at a time."""
    body, until = bytearray(), time.monotonic() + PROBE_TIMEOUT
    for byte in response.iter_content(1):
        body += byte
        if len(body) >= MAX_RESPONSE or time.monotonic() >= until:
            break
    return bytes(body)


def explain(base_url: str, delivery: Delivery) -> Problem:
    """Return why callbacks do not arrive at a ``webhook_base_url``."""
    seen = delivery.seen
    if delivery.arrival is Arrival.NOWHERE:
        return Problem(
            f"{base_url} cannot be reached from the machine of this test: {seen}",
            "Check the address, and that the API server or a relay listens there. In some networks, a machine cannot "
            "reach its own public address. If yours is one of them, look at the log of a task that waited for a "
            "callback: if it has the line 'Woken by a callback', callbacks arrive.",
        )
    if delivery.arrival is Arrival.UNAVAILABLE:
        return Problem(
            f"the callback route at {base_url} cannot handle callbacks now ({seen}): Airflow's database does not "
            "respond, or this version of the provider does not support this version of Airflow",
            "Check the log of the API server.",
        )
    if delivery.arrival is Arrival.GATEWAY:
        return Problem(
            f"a login page or another gateway responds at {base_url} ({seen}) instead of the callback route",
            "Set up a relay there for callbacks.",
        )
    hint = f" (remove {URL_PREFIX} from its end)" if base_url.rstrip("/").endswith(URL_PREFIX) else ""
    return Problem(
        f"{base_url} does not lead to the callback route: the response was {seen}",
        f"Check its path{hint}, and that the provider is installed where the API server runs.",
    )


def _why_unreachable(error: Exception) -> str:
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
