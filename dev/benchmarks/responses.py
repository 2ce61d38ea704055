"""How long a response with much in it blocks the event loop of a triggerer or an API server."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from typing import Any

from airflow_provider_browseract.api import v3
from airflow_provider_browseract.api.async_client import AsyncBrowserActClient
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.exceptions import ResponseTooLargeError

RUN: dict[str, Any] = {"task_id": "7", "status": "running"}
ROUNDS = 10
PROBE = 0.001
"""Seconds that a probe of the event loop sleeps."""


def responses() -> None:
    """The longest time for which one response blocks the event loop that reads it."""
    empty = b"[" + b",".join([b"[]"] * 2_660_000) + b"]"
    bodies = {
        "8 MB of [[],[],...] as output": json.dumps(RUN).encode()[:-1] + b', "output": ' + empty + b"}",
        "100,000 steps": json.dumps(
            {**RUN, "steps": [{"step": at, "step_goal": "Go"} for at in range(100_000)]}
        ).encode(),
        "3 MB of input": json.dumps({**RUN, "input": {"rows": [{"name": "pen", "price": 1.5}] * 90_000}}).encode(),
        "8 MB of emoji and half of one": json.dumps({**RUN, "output": "\U0001f600" * 660_000 + "\ud83d"}).encode(),
        "8 MB of halves": json.dumps({**RUN, "output": "\ud83d" * 1_330_000}).encode(),
    }
    for what, body in bodies.items():
        receiver, sender = multiprocessing.Pipe(duplex=False)
        server = multiprocessing.Process(target=_serve, args=(body, sender), daemon=True)
        server.start()
        try:
            url = f"http://127.0.0.1:{receiver.recv()}"
            times = sorted(asyncio.run(_blocked(url)) * 1000 for _ in range(ROUNDS))
        finally:
            server.terminate()
            server.join()
        print(
            f"{what} ({len(body) / 1e6:.1f} MB): the event loop was blocked for {times[-1]:.0f} ms (worst of {ROUNDS}, "
            f"median {times[ROUNDS // 2]:.0f} ms; limit 100 ms)"
        )


async def _blocked(url: str) -> float:
    """Read a run, and return the longest time in seconds for which nothing else could run."""
    longest = 0.0

    async def probe() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(PROBE)
            longest = max(longest, time.perf_counter() - before - PROBE)

    async with AsyncBrowserActClient(Settings(api_key="app-key", base_url=url)) as client:
        # The first call opens the connection and builds the models.
        await client.send(v3.list_regions())
        probing = asyncio.ensure_future(probe())
        await asyncio.sleep(10 * PROBE)
        longest = 0.0
        with suppress(ResponseTooLargeError):
            await client.send(v3.get_task("7"))
        await asyncio.sleep(10 * PROBE)
        probing.cancel()
    return longest


def _serve(body: bytes, port: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = b"[]" if self.path.endswith("/regions") else body
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_port)
    server.serve_forever()
