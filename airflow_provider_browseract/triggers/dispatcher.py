"""Wake the task instances that wait for slots in this triggerer, one for each slot."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing, suppress

from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.hooks.steps import run_steps_async
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import Active, QueueWait, SlotQueue, count_active
from airflow_provider_browseract.triggers.polling import PatientClient

log = logging.getLogger(__name__)

_ALL: dict[asyncio.AbstractEventLoop, dict[str, Dispatcher]] = {}
"""The dispatchers of each event loop, by connection. A triggerer has one loop, and ``dag.test()`` one for each wait."""

PARALLEL_XCOMS = 2
"""How many task instances may push their places at once, so that other triggers can also send requests to Airflow."""


class Dispatcher:
    """Counts the active runs of a connection while task instances wait, and wakes one for each free slot.

    All waits of a connection in one triggerer share one dispatcher, and so one count. It counts only while something
    waits.

    :param conn_id: id of the Airflow connection.
    """

    def __init__(self, conn_id: str) -> None:
        self.queue = SlotQueue()
        self.pushing = asyncio.Semaphore(PARALLEL_XCOMS)
        self._conn_id = conn_id
        self._woken: dict[str, asyncio.Event] = {}
        self._hint = asyncio.Event()
        self._counting: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, conn_id: str) -> Dispatcher:
        """Return the dispatcher of a connection in this event loop."""
        for loop in [loop for loop in _ALL if loop.is_closed()]:
            del _ALL[loop]
        dispatchers = _ALL.setdefault(asyncio.get_running_loop(), {})
        if conn_id not in dispatchers:
            dispatchers[conn_id] = cls(conn_id)
        return dispatchers[conn_id]

    def join(self, key: str, wait: QueueWait) -> None:
        """Add a task instance to the queue.

        :param key: the task instance, the same for all its waits.
        :param wait: its wait.
        """
        self.queue.join(key, wait, time.monotonic())
        self._woken[key] = asyncio.Event()
        if self._counting is None:
            self._counting = asyncio.create_task(self._count())

    async def wait(self, key: str, until: float) -> None:
        """Wait until a task instance should try its start.

        :param key: the task instance, which has joined.
        :param until: when the wait ends in any case, in seconds since the epoch.
        """
        woken, resumed = self._woken[key], False
        try:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(woken.wait(), max(0.0, until - time.time()))
        except asyncio.CancelledError:
            resumed = True
            raise
        finally:
            # A task instance that was cleared may already wait again.
            if self._woken.get(key) is woken:
                del self._woken[key]
                if resumed:
                    self.queue.leave(key, time.monotonic())
                else:
                    self.queue.give_up(key)

    def hint(self) -> None:
        """Count soon, because a run has ended."""
        self._hint.set()

    async def _count(self) -> None:
        try:
            while self._woken:
                try:
                    await self._look()
                except Exception:
                    # Without this task, nothing would wake those that wait.
                    log.exception("The queue of connection %r could not be processed; trying again", self._conn_id)
                    await asyncio.sleep(timings.SLOT_COUNT_INTERVAL)
        finally:
            self._counting = None

    async def _look(self) -> None:
        """Wake task instances until none waits."""
        async with aclosing(PatientClient(self._conn_id, within=timings.SLOT_COUNT_LIMIT)) as client:
            while self._woken:
                await self._pause()
                if self.queue.wants_count(time.monotonic()):
                    self.queue.count(await self._active(client), time.monotonic())
                for key in self.queue.wake(time.monotonic()):
                    self._woken[key].set()
                # Those that were woken leave before the next look.
                await asyncio.sleep(0)

    async def _pause(self) -> None:
        """Wait until the next count is due, or a run has ended."""
        due = time.monotonic() + self.queue.next_look(time.monotonic())
        await asyncio.sleep(timings.SLOT_COUNT_PAUSE)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._hint.wait(), max(0.0, due - time.monotonic()))
        self._hint.clear()

    async def _active(self, client: PatientClient) -> Active | None:
        try:
            return await run_steps_async(count_active(), client, log)
        except BrowserActError as error:
            # The waits continue. A start from time to time shows whether there is a slot.
            log.warning("The active runs of connection %r could not be counted: %s", self._conn_id, error.brief)
        return None


def run_has_ended(conn_id: str) -> None:
    """Let the dispatcher of a connection count soon, if something waits for a slot in this triggerer."""
    if dispatcher := _ALL.get(asyncio.get_running_loop(), {}).get(conn_id):
        dispatcher.hint()
