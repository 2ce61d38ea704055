"""The connections, each read once a minute for all who need it. Reading them sends nothing to BrowserAct.

They are read in threads of their own, because Airflow reads them from its database or a secrets backend, which may
hang, and because its ``aget_connection`` does that in one thread for the whole process. The threads of the event loop
are those that resolve host names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import check_type, read_settings
from airflow_provider_browseract.panel.kept import RETRY_PAUSE, Kept, explain, recall

INTERVAL = 60.0
"""Seconds after which a connection is read again, because someone may have changed or deleted it."""

MAX_CONNECTIONS = 200
"""How many connections are kept, those that could not be read included."""

THREADS = 4

PATIENCE = 2.0
"""Seconds that a page waits for the keys of connections. Without its key, an XCom proves nothing."""


@dataclass(frozen=True)
class Connection:
    """A connection.

    :param api_key: proves what XComs say, also if the other fields are wrong; empty if the connection has none.
    :param settings: its settings, or why BrowserAct cannot be called with them.
    """

    api_key: str = field(repr=False)
    settings: Settings | InputError


class Connections:
    """The connections that somebody asks for, as Airflow has them. All methods run in the panel's event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, "browseract-panel-connections")
        self._kept: dict[str, Kept[Connection]] = {}

    def kept(self, conn_id: str) -> Kept[Connection]:
        """Return a connection."""

        def keep(connection: Connection) -> float:
            return INTERVAL if isinstance(connection.settings, Settings) else RETRY_PAUSE

        read = partial(asyncio.get_running_loop().run_in_executor, self._threads, _read, conn_id)
        kept = partial(Kept, read, keep, partial(explain, conn_id=conn_id), self._clock)
        return recall(self._kept, conn_id, kept, MAX_CONNECTIONS)

    async def keys(self, conn_ids: Collection[str]) -> dict[str, str]:
        """Return the API keys of those connections that can be read in time and are of our type."""
        until = time.monotonic() + PATIENCE
        read = await asyncio.gather(*(self.kept(conn_id).get(until) for conn_id in conn_ids))
        return {conn_id: each.value.api_key for conn_id, each in zip(conn_ids, read, strict=True) if each.value}


def _read(conn_id: str) -> Connection:
    connection, api_key = BrowserActHook.get_connection(conn_id), ""
    try:
        check_type(connection, "Only those have pages.")
        api_key = (connection.password or "").strip()
        return Connection(api_key, read_settings(connection))
    except InputError as error:
        return Connection(api_key, error)
