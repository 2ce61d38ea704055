"""The two clients behind one face, so that each test runs with the one and the other, and a server that misbehaves."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from airflow_provider_browseract.api.async_client import AsyncBrowserActClient
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.pages import list_items
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.loops import send_all_async
from tests.helpers.served import read_request


class Sync:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def send(self, *several: Call):
        with BrowserActClient(self.settings) as client:
            return [client.send(call) for call in several][-1]

    def items(self, call: Call) -> list:
        with BrowserActClient(self.settings) as client:
            return list(client.iter_items(call))


class Async(Sync):
    def send(self, *several: Call):
        async def go():
            async with AsyncBrowserActClient(self.settings) as client:
                return [await client.send(call) for call in several][-1]

        return asyncio.run(go())

    def items(self, call: Call) -> list:
        async def go():
            async with AsyncBrowserActClient(self.settings) as client:
                return (await send_all_async(list_items(call), client)).items

        return asyncio.run(go())


@pytest.fixture(params=[Sync, Async], ids=["requests", "httpx"])
def kind(request):
    return request.param


Listen = Callable[[Callable[[socket.socket], None]], int]


class OneAnswer:
    def __init__(self, listen: Listen, answer: bytes = b"", *, keep_alive: bool = False) -> None:
        self.answer = answer
        self.keep_alive = keep_alive
        self.received: list[bytes] = []
        self.connections = 0
        self.url = f"http://127.0.0.1:{listen(self._handle)}"

    def _handle(self, connection: socket.socket) -> None:
        self.connections += 1
        while request := read_request(connection):
            self.received.append(request)
            connection.sendall(self.answer)
            if not self.keep_alive:
                break


@pytest.fixture
def one_answer(listen: Listen):
    return lambda answer, **more: OneAnswer(listen, answer, **more)
