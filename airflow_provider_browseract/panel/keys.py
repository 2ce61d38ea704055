"""The API keys of connections, which prove what XComs say. Reading them sends nothing to BrowserAct."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import CONNECTION_TYPE

MAX_AGE = 60.0
"""Seconds after which a connection is read again, because someone may have changed or deleted it."""

MAX_KEYS = 200
"""How many connections are kept, those that could not be read included."""

THREADS = 4
"""Threads that read connections. Airflow reads them from its database or a secrets backend, which may be slow."""

PATIENCE = 2.0
"""Seconds that a page waits for connections. Without its key, an XCom proves nothing."""


class Keys:
    """Reads the API keys of connections, in any number of threads, and keeps them for a minute."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "browseract-panel-keys")
        self._lock = threading.Lock()
        self._read: OrderedDict[str, tuple[float, Future[str]]] = OrderedDict()

    def of(self, conn_ids: Iterable[str]) -> dict[str, str]:
        """Return the keys of those connections that can be read in time and are of our type."""
        futures = {conn_id: self._reading(conn_id) for conn_id in conn_ids}
        wait(futures.values(), PATIENCE)
        return {name: each.result() for name, each in futures.items() if each.done() and each.exception() is None}

    def _reading(self, conn_id: str) -> Future[str]:
        now = time.monotonic()
        with self._lock:
            began, future = self._read.pop(conn_id, (now, None))
            if future is None or (future.done() and now - began >= MAX_AGE):
                began, future = now, self._pool.submit(_key_of, conn_id)
            self._read[conn_id] = began, future
            while len(self._read) > MAX_KEYS:
                self._read.popitem(last=False)
        return future


def _key_of(conn_id: str) -> str:
    # The other fields do not matter here, so they may be wrong.
    connection = BrowserActHook.get_connection(conn_id)
    key = (connection.password or "").strip()
    if connection.conn_type != CONNECTION_TYPE or not key:
        raise ValueError("no API key")
    return key
