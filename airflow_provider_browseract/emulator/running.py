"""Serve an emulator in a separate thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn

from airflow_provider_browseract.emulator.server import create_app

if TYPE_CHECKING:
    from airflow_provider_browseract.emulator.core import Emulator

START_TIMEOUT = 15.0
STOP_TIMEOUT = 15.0
KEEP_ALIVE = 60
"""Seconds for which an idle connection is kept, about as long as load balancers in front of APIs keep theirs."""


@contextlib.contextmanager
def running_server(emulator: Emulator, host: str, port: int) -> Iterator[str]:
    """Serve an emulator while the context lasts, and yield its URL.

    :raises OSError: if the port is already in use
    :raises RuntimeError: if the server does not start or stop in time
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=512)
    # asyncio does this only for sockets that were created with the protocol's number. Without it, every response on a
    # connection that is kept open takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port = listener.getsockname()[1]
    url = f"http://[{host}]:{port}" if family == socket.AF_INET6 else f"http://{host}:{port}"
    emulator.service.base_url = url
    running = _Running(emulator, listener)
    try:
        running.start()
        yield url
    finally:
        running.stop()
        listener.close()


class _Running:
    def __init__(self, emulator: Emulator, listener: socket.socket) -> None:
        self._emulator = emulator
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="browseract-emulator", daemon=True)
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._problem: BaseException | None = None

    def start(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT
        while self._server is None or not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the emulator's server did not start") from self._problem
            if time.monotonic() > deadline:
                raise RuntimeError(f"the emulator's server did not start within {START_TIMEOUT:g} s")
            time.sleep(0.005)

    def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_TIMEOUT)
        if self._thread.is_alive():
            raise RuntimeError(f"the emulator's server did not stop within {STOP_TIMEOUT:g} s")

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except (Exception, SystemExit) as problem:  # noqa: BLE001  # handed over to the thread that waits
            self._problem = problem

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        config = uvicorn.Config(
            create_app(self._emulator, self._stopping),
            log_level="warning",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=2,
            timeout_keep_alive=KEEP_ALIVE,
        )
        server = uvicorn.Server(config)
        self._server = server
        await server.serve(sockets=[self._listener])
