"""How often the clients send requests to a service that limits their rate."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.client import AsyncBrowserActClient, BrowserActClient
from airflow_provider_browseract.api.retries import RetryPolicy
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.emulator import Emulator, RequestFault
from airflow_provider_browseract.exceptions import RateLimitError

BUDGET = 20.0
"""Seconds for which a call is tried."""

LIMIT = 2.0
"""Requests a second."""


def throttled() -> None:
    """Print how often each client sends a request to a service that responds with 429 and ``Retry-After: 0``."""
    for name, ask in (("requests", _ask), ("httpx", lambda settings: asyncio.run(_ask_async(settings)))):
        print(f"{name}: {_rate(ask):.2f} requests a second for an answer of 429 with Retry-After: 0 (limit: {LIMIT:g})")


def _rate(ask: Callable[[ClientSettings], None]) -> float:
    emulator = Emulator()
    emulator.fault("get-region-list", RequestFault.status(429, retry_after=0))
    with emulator.serve() as running:
        began = time.monotonic()
        with contextlib.suppress(RateLimitError):
            ask(ClientSettings(running.api_key, running.url, retries=RetryPolicy(budget=BUDGET)))
        return len(emulator.requests) / (time.monotonic() - began)


def _ask(settings: ClientSettings) -> None:
    with BrowserActClient(settings) as client:
        client.send(v2.get_region_list())


async def _ask_async(settings: ClientSettings) -> None:
    async with AsyncBrowserActClient(settings) as client:
        await client.send(v2.get_region_list())
