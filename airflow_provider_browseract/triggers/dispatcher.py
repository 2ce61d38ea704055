"""Wake the task instances that wait for slots in this triggerer, one for each slot."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from weakref import WeakKeyDictionary

from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.loops import send_all_async
from airflow_provider_browseract.queue.queueing import QueueWait, active_runs
from airflow_provider_browseract.queue.slot_queue import SlotQueue
from airflow_provider_browseract.runs import timings

log = logging.getLogger(__name__)

_ALL: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Dispatcher]] = WeakKeyDictionary()
"""The dispatchers of each event loop, by the digest of the API key. A triggerer has one loop, and ``dag.test()`` has
one for each wait."""


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
        self._counting: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, key_digest: str) -> Dispatcher:
        """Return the dispatcher in this event loop for all connections with an API key."""
        dispatchers = _ALL.setdefault(asyncio.get_running_loop(), {})
        return dispatchers.setdefault(key_digest, cls())

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

    async def _count(self) -> None:
        try:
            await asyncio.sleep(timings.SLOT_COUNT_PAUSE)
            while self._woken:
                # Without this task, nothing would wake those that wait.
                with tolerate_errors(log.exception, "The queue for slots could not be processed; trying again: %s"):
                    await self._wake()
                await asyncio.sleep(timings.SLOT_COUNT_INTERVAL)
        finally:
            self._counting = None

    async def _wake(self) -> None:
        """Wake task instances until none waits, or until another connection has to be used to count."""
        conn_ids = sorted(set(self._conn_ids.values()))
        conn_id = conn_ids[self._failed % len(conn_ids)]
        async with BrowserActHook(conn_id).async_client(within=timings.SLOT_COUNT_LIMIT) as client:
            while conn_id in self._conn_ids.values():
                active, versions = None, self.queue.versions
                try:
                    active = await send_all_async(active_runs(versions), client)
                except BrowserActError as error:
                    # The waits continue. Starts from time to time show whether there are slots.
                    log.warning("The active runs of connection %r could not be counted: %s", conn_id, error.brief)
                # Otherwise the first bot has joined in the meantime, and the count lacks its kind of runs.
                if versions == self.queue.versions:
                    self.queue.count(active, time.monotonic())
                    for key in self.queue.wake(time.monotonic()):
                        self._woken[key].set()
                if active is None:
                    self._failed += 1
                    return
                await asyncio.sleep(timings.SLOT_COUNT_INTERVAL)
