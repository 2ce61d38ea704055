"""Serve an emulator in a separate thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from airflow_provider_browseract.emulator.browseract import BrowserAct
from airflow_provider_browseract.emulator.server import create_app

START_TIMEOUT = 15.0
STOP_TIMEOUT = 15.0
GRACE = 2.0
"""Seconds that requests have to end when the server stops, before they are canceled."""
KEEP_ALIVE = 60
"""Seconds for which an idle connection is kept, about as long as load balancers in front of APIs keep theirs."""


@contextlib.contextmanager
def running_server(browseract: BrowserAct, host: str, port: int) -> Iterator[str]:
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
        browseract.base_url = f"http://[{host}]:{port}" if family == socket.AF_INET6 else f"http://{host}:{port}"
        stopping = asyncio.Event()
        server = QuickServer(_config(create_app(browseract, stopping)), stopping)
        thread = threading.Thread(target=server.run, args=([listener],), name="browseract-emulator", daemon=True)
        thread.start()
        try:
            _wait_for_start(server, thread)
            yield browseract.base_url
        finally:
            server.stop()
            thread.join(STOP_TIMEOUT)
            if thread.is_alive():
                raise RuntimeError(f"the emulator's server did not stop within {STOP_TIMEOUT:g} s")


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


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        log_level="warning",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE,
    )


def _wait_for_start(server: QuickServer, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError(f"the emulator's server did not start within {START_TIMEOUT:g} s")
        time.sleep(0.005)
