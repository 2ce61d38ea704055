"""Serve an emulator over HTTP in a separate thread, with the faults of requests."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from airflow_provider_browseract.emulator.callbacks import CallbackSender
from airflow_provider_browseract.emulator.control import DOWNLOAD_FILE, Emulator, name_of
from airflow_provider_browseract.emulator.faults import RequestFault
from airflow_provider_browseract.emulator.records import RequestRecord, Response, utc

START_TIMEOUT = STOP_TIMEOUT = 15.0
GRACE = 2.0
"""Seconds that requests have to end when the server stops, before they are canceled."""
KEEP_ALIVE = 60
"""Seconds for which an idle connection is kept, about as long as load balancers in front of APIs keep theirs."""


class QuickServer(uvicorn.Server):
    """A server that stops at once. uvicorn's own takes 0.2 s, because it checks only every 0.1 s whether to stop.

    :param stopping: is set to stop the server.
    """

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Stop the server from another thread."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            # Once per second, uvicorn updates the time that it sends in each response.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        ends = time.monotonic() + GRACE
        while (self.server_state.connections or self.server_state.tasks) and time.monotonic() < ends:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@contextlib.contextmanager
def running_server(emulator: Emulator, host: str, port: int) -> Iterator[str]:
    """Serve an emulator while the context lasts, and yield its URL.

    :raises OSError: if the port is already in use
    :raises RuntimeError: if the server does not start or stop in time
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=512) as listener:
        # asyncio does this only for sockets that were created with the protocol's number. Without it, every response on
        # a connection that is kept open takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listener.getsockname()[1]
        emulator.base_url = f"http://[{host}]:{port}" if family == socket.AF_INET6 else f"http://{host}:{port}"
        server = EmulatorServer(emulator)
        thread = threading.Thread(target=server.run, args=([listener],), name="browseract-emulator", daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + START_TIMEOUT
            while not server.started:
                if not thread.is_alive() or time.monotonic() > deadline:
                    raise RuntimeError(f"the emulator's server did not start within {START_TIMEOUT:g} s")
                time.sleep(0.002)  # uvicorn sets the flag, and notifies nobody
            yield emulator.base_url
        finally:
            server.stop()
            thread.join(STOP_TIMEOUT)
            if thread.is_alive():
                raise RuntimeError(f"the emulator's server did not stop within {STOP_TIMEOUT:g} s")


class EmulatorServer(QuickServer):
    """The server of an emulator: sends its callbacks, records requests, and applies their faults."""

    def __init__(self, emulator: Emulator) -> None:
        config = uvicorn.Config(
            self._respond,
            interface="asgi3",
            loop="asyncio",
            log_level="warning",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=KEEP_ALIVE,
        )
        super().__init__(config, asyncio.Event())
        self._emulator = emulator

    async def main_loop(self) -> None:
        async with CallbackSender(self._emulator):
            await super().main_loop()

    async def _respond(self, scope: Any, receive: Any, send: Any) -> None:
        emulator, method, path = self._emulator, scope["method"], scope["path"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query, name = scope["query_string"].decode("latin-1"), name_of(method, path)
        of = {} if name is None else {"endpoint": name, "kind": "files" if name == DOWNLOAD_FILE else "api"}
        fault = emulator.take_fault(**of)
        number = emulator.begin_request(
            RequestRecord(
                method=method,
                path=path,
                query=query,
                endpoint=name,
                status=None,
                fault=None if fault is None else fault.kind,
                with_key="authorization" in headers,
                at=utc(emulator.clock()),
            )
        )
        # A client that is still sending would not always notice a reset.
        body = await _body(receive)
        if body is None:
            return
        response = None
        if fault is None or fault.processed:
            response = emulator.handle(method, path, query, headers, body)
        if fault is None and name is not None and emulator.latency[1]:
            fault = RequestFault.slow(random.uniform(*emulator.latency))
        if fault is not None and name is not None:
            response = await self._go_wrong(name, fault, response, receive)
        if response is not None:
            # Recorded before the response is sent, so that a client with the response finds the record.
            emulator.end_request(number, response.status)
            await _send(response, send)

    async def _go_wrong(
        self, name: str, fault: RequestFault, response: Response | None, receive: Any
    ) -> Response | None:
        """Wait or close the connection, and return what is responded, if there is a response at all."""
        if fault.kind == "slow":
            await self._gone_or_stopping(receive, fault.seconds)
            return response
        if fault.http_status:
            return self._emulator.faulty(name, fault)
        if fault.kind == "hung":
            await self._gone_or_stopping(receive, None)
        await cut_connection(receive, reset=fault.kind == "reset")
        return None

    async def _gone_or_stopping(self, receive: Any, seconds: float | None) -> None:
        """Wait until the client disconnects, the emulator stops, or some seconds have passed."""
        waits = [asyncio.create_task(_disconnected(receive)), asyncio.create_task(self._stopping.wait())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def _body(receive: Any) -> bytes | None:
    """Return the body of a request, or None if the client has gone."""
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _send(response: Response, send: Any) -> None:
    fields = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        **response.headers,
    }
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _disconnected(receive: Any) -> bool:
    while (await receive())["type"] != "http.disconnect":
        pass
    return True


async def cut_connection(receive: Any, *, reset: bool = False) -> None:
    """Close the TCP connection of a request without a response.

    ASGI has no method for this. With uvicorn, ``receive`` is a method of the object that handles the request, and that
    object has the transport of the connection. This applies to both HTTP implementations of uvicorn.

    :param reset: reset the connection instead of closing it normally
    """
    transport = receive.__self__.transport
    connection = transport.get_extra_info("socket")
    if reset and connection is not None:
        # Closing a socket with a linger time of zero resets the connection.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    # uvicorn logs an error about the missing response unless it has noticed the disconnect.
    await _disconnected(receive)
