"""Wake the task instances that wait for slots in this triggerer, one for each slot."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.loops import send_all_async
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import QueueWait, count_active
from airflow_provider_browseract.runs.slot_queue import SlotQueue

if TYPE_CHECKING:
    from airflow_provider_browseract.api.async_client import AsyncBrowserActClient

log = logging.getLogger(__name__)

_ALL: dict[asyncio.AbstractEventLoop, dict[str, Dispatcher]] = {}
"""The dispatchers of each event loop, by the digest of the API key, or by the connection if a wait has no digest. A
triggerer has one loop, and ``dag.test()`` one for each wait."""


class Dispatcher:
    """Counts the active runs of an API key while task instances wait, and wakes one for each free slot.

    All waits with one API key in one triggerer share one dispatcher, and so one count. It counts only while something
    waits.
    """

    def __init__(self) -> None:
        self.queue = SlotQueue()
        self._conn_ids: dict[str, str] = {}
        """The connection of each task instance that waits. Each of them can count the active runs."""
        self._failed = 0
        """How many counts have failed, which also decides whose turn is next."""
        self._woken: dict[str, asyncio.Event] = {}
        self._hint = asyncio.Event()
        self._counting: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, conn_id: str, key_digest: str | None) -> Dispatcher:
        """Return the dispatcher in this event loop for all connections with an API key.

        :param key_digest: digest of the API key; None for a dispatcher of this connection only.
        """
        for loop in [loop for loop in _ALL if loop.is_closed()]:
            del _ALL[loop]
        dispatchers = _ALL.setdefault(asyncio.get_running_loop(), {})
        return dispatchers.setdefault(key_digest or conn_id, cls())

    def join(self, key: str, wait: QueueWait, conn_id: str, dag_id: str) -> None:
        """Add a task instance to the queue.

        :param key: the task instance, the same for all its waits.
        """
        self.queue.join(key, wait, time.monotonic(), dag_id)
        self._woken[key], self._conn_ids[key] = asyncio.Event(), conn_id
        if self._counting is None:
            self._counting = asyncio.create_task(self._count())

    async def wait(self, key: str, until: float) -> None:
        """Wait until a task instance should try its start.

        :param key: the task instance, which has joined.
        :param until: when the wait ends in any case, in seconds since the epoch.
        """
        woken = self._woken[key]
        try:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(woken.wait(), max(0.0, until - time.time()))
        finally:
            # A task instance that was cleared may already wait again.
            if self._woken.get(key) is woken:
                del self._woken[key], self._conn_ids[key]
                self.queue.remove(key)

    def hint(self) -> None:
        """Count soon, because a run has ended."""
        self.queue.run_ended()
        self._hint.set()

    async def _count(self) -> None:
        try:
            while self._woken:
                # Without this task, nothing would wake those that wait.
                with tolerate_errors(log.exception, "The queue for slots could not be processed; trying again: %s"):
                    await self._wake()
                    continue
                await asyncio.sleep(timings.SLOT_COUNT_INTERVAL)
        finally:
            self._counting = None

    async def _wake(self) -> None:
        """Wake task instances until none waits, or until another connection has to be used to count."""
        conn_ids = sorted(set(self._conn_ids.values()))
        conn_id = conn_ids[self._failed % len(conn_ids)]
        async with BrowserActHook(conn_id).async_client(within=timings.SLOT_COUNT_LIMIT) as client:
            while conn_id in self._conn_ids.values():
                await self._pause()
                failed = self.queue.wants_count(time.monotonic()) and not await self._counted(client, conn_id)
                for key in self.queue.wake(time.monotonic()):
                    self._woken[key].set()
                # Those that were woken leave before the next ones are woken.
                await asyncio.sleep(0)
                if failed:
                    self._failed += 1
                    return

    async def _pause(self) -> None:
        """Wait until the next count is due, or a run has ended."""
        due = time.monotonic() + self.queue.next_count(time.monotonic())
        await asyncio.sleep(timings.SLOT_COUNT_PAUSE)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._hint.wait(), max(0.0, due - time.monotonic()))
        self._hint.clear()

    async def _counted(self, client: AsyncBrowserActClient, conn_id: str) -> bool:
        """Count the active runs for the queue, and return whether that was possible."""
        active, versions = None, self.queue.versions
        try:
            active = await send_all_async(count_active(versions), client)
        except BrowserActError as error:
            # The waits continue. Starts from time to time show whether there are slots.
            log.warning("The active runs of connection %r could not be counted: %s", conn_id, error.brief)
        # Otherwise a task instance has joined in the meantime, and the count lacks some of the runs.
        if versions == self.queue.versions:
            self.queue.count(active, time.monotonic())
        return active is not None


def run_has_ended(conn_id: str, key_digest: str | None) -> None:
    """Let the dispatchers of a connection and of its API key count soon, if something waits in this triggerer."""
    dispatchers = _ALL.get(asyncio.get_running_loop(), {})
    for name in {conn_id, key_digest}:
        if name in dispatchers:
            dispatchers[name].hint()
