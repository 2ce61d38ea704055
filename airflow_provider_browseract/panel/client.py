"""Send calls to BrowserAct for the pages: with the key of one account, few at a time, and not for long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeAlias, TypeVar

from airflow_provider_browseract.api.async_client import AsyncBrowserActClient
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.exceptions import ResponseLostError
from airflow_provider_browseract.loops import send_all_async
from airflow_provider_browseract.panel.connections import Connection
from airflow_provider_browseract.panel.kept import Kept, Known, explain

T = TypeVar("T")

Steps: TypeAlias = "Generator[Call[Any], Any, T]"
"""Yields the calls of a read, and returns what it has read."""

CALL_LIMIT = 8.0
"""Seconds that a call may take, retries included."""

READ_LIMIT = 60.0
"""Seconds that all calls of one read may take together. Only the first read of a large account has many."""

READS_AT_ONCE = 4
"""Reads of one account at the same moment."""


class Loop:
    """An event loop in its own thread, in which BrowserAct is read. So a slow page delays no read, and no read the
    API server."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="browseract-panel", daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine, from another thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class AccountClient:
    """Sends calls with the API key of one account.

    :param connection: the connection. It is read again after a failure, because someone may have changed it.
    """

    def __init__(
        self, conn_id: str, settings: Settings, connection: Kept[Connection], clock: Callable[[], float]
    ) -> None:
        self.conn_id, self.settings, self.clock = conn_id, settings, clock
        self._connection = connection
        self._slots = asyncio.Semaphore(READS_AT_ONCE)

    def kept(self, steps: Callable[[], Steps[T]], keep: Callable[[T], float]) -> Kept[T]:
        """Return a value of this account that is read with some steps when it is needed."""
        return Kept(lambda: self.send(steps()), keep, self.explain, self.clock)

    def explain(self, error: Exception) -> Known[Any]:
        """Return why a read has failed."""
        self._connection.expired = True
        return explain(error, self.conn_id)

    async def send(self, steps: Steps[T]) -> T:
        """Send calls, and return what the steps return."""
        settings = self.settings.within(CALL_LIMIT)
        async with self._slots, AsyncBrowserActClient(settings) as client:
            try:
                return await asyncio.wait_for(send_all_async(steps, client), READ_LIMIT)
            except asyncio.TimeoutError:
                raise ResponseLostError(f"BrowserAct did not send everything within {READ_LIMIT:g} seconds") from None
