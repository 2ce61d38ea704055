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
        server = uvicorn.Server(_config(create_app(browseract, stopping)))
        loops: list[asyncio.AbstractEventLoop] = []

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve(sockets=[listener])

        thread = threading.Thread(target=lambda: asyncio.run(serve()), name="browseract-emulator", daemon=True)
        thread.start()
        try:
            _wait_for_start(server, thread)
            yield browseract.base_url
        finally:
            server.should_exit = True
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                for loop in loops:
                    loop.call_soon_threadsafe(stopping.set)
            thread.join(STOP_TIMEOUT)
            if thread.is_alive():
                raise RuntimeError(f"the emulator's server did not stop within {STOP_TIMEOUT:g} s")


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
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


def _wait_for_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError(f"the emulator's server did not start within {START_TIMEOUT:g} s")
        time.sleep(0.005)
