"""An application behind a port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from tests.e2e.local_airflow import free_port, wait_for


@contextmanager
def served(app: FastAPI) -> Iterator[int]:
    """Serve an application from a thread."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for("The server", lambda: server.started, timeout=15, every=0.02)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(10)
