"""The two clients behind one face, so that each test runs with the one and the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from airflow_provider_browseract.api.client import AsyncBrowserActClient, BrowserActClient
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.settings import ClientSettings


class Sync:
    """Uses the synchronous client."""

    def __init__(self, settings: ClientSettings, refused: Callable[[], object] = lambda: None) -> None:
        self.settings = settings
        self.refused = refused

    def send(self, *several: Call):
        with BrowserActClient(lambda: self.settings, refused=self.refused) as client:
            return [client.send(call) for call in several][-1]

    def items(self, call: Call) -> list:
        with BrowserActClient(self.settings) as client:
            return list(client.iter_items(call))


class Async:
    """Uses the asynchronous client in the same way."""

    def __init__(self, settings: ClientSettings, refused: Callable[[], object] = lambda: None) -> None:
        self.settings = settings
        self.refused = refused

    async def _current(self) -> ClientSettings:
        return self.settings

    def send(self, *several: Call):
        async def go():
            async with AsyncBrowserActClient(self._current, refused=self.refused) as client:
                return [await client.send(call) for call in several][-1]

        return asyncio.run(go())

    def items(self, call: Call) -> list:
        async def go():
            async with AsyncBrowserActClient(self.settings) as client:
                return [item async for item in client.iter_items(call)]

        return asyncio.run(go())


@pytest.fixture(params=[Sync, Async], ids=["requests", "httpx"])
def kind(request):
    return request.param
