"""The trigger that waits for a run while no worker is held."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import NOTHING_TO_STOP, BrowserActError
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.following import follow_async
from airflow_provider_browseract.links.browseract import BrowserActTaskLink
from airflow_provider_browseract.runs.queueing import Slots, wait_for_slot
from airflow_provider_browseract.runs.waiting import End, OnPaused, WaitEvent, WokenBy, wait_for_end
from airflow_provider_browseract.webhook.callback import resumed_xcom

ON_KILL_LIMIT = 25.0
"""Seconds that a killed trigger is kept for stopping its run, a little less than Airflow itself allows."""

CALL_LIMIT = 7.5
"""Seconds of these for each of two calls, which ask for the status and stop the run; asking Airflow takes some, too."""

_STOPPING: set[asyncio.Task[None]] = set()
"""Stops under way, which may outlast their triggers; the loop alone would not keep them alive."""


class TaskTrigger(BaseTrigger):
    """Waits until a BrowserAct task has ended, its time is over, or nothing can be learned of it.

    It never starts, resumes or judges a run: the operator asks the API again. All moments are absolute, so another
    triggerer that takes over continues with the same clock.

    :param browseract_task_id: the BrowserAct task.
    :param browseract_conn_id: id of the Airflow connection.
    :param poll_interval: seconds between two questions for the status.
    :param first_poll_at: no question before this moment, in seconds since the epoch.
    :param deadline: moment at which the wait ends, in seconds since the epoch.
    :param callback_token_sha256: digest of the token with which a callback may end the wait before; None if none is
        expected.
    :param last_seen: the status that the log has already told.
    :param steps_told: how many steps the log has already told.
    :param on_paused: see :class:`~airflow_provider_browseract.runs.waiting.OnPaused`.
    :param cancel_on_kill: stop the run when a person ends the wait.
    """

    def __init__(
        self,
        *,
        browseract_task_id: str,
        browseract_conn_id: str,
        poll_interval: float,
        first_poll_at: float,
        deadline: float,
        callback_token_sha256: str | None = None,
        last_seen: str | None = None,
        steps_told: int = 0,
        on_paused: str = OnPaused.WAIT.value,
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_task_id = browseract_task_id
        self.browseract_conn_id = browseract_conn_id
        self.poll_interval = poll_interval
        self.first_poll_at = first_poll_at
        self.deadline = deadline
        self.callback_token_sha256 = callback_token_sha256
        self.last_seen = last_seen
        self.steps_told = steps_told
        self.on_paused = on_paused
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and the arguments, all plain JSON values and none of them secret."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "browseract_task_id": self.browseract_task_id,
                "browseract_conn_id": self.browseract_conn_id,
                "poll_interval": self.poll_interval,
                "first_poll_at": self.first_poll_at,
                "deadline": self.deadline,
                "callback_token_sha256": self.callback_token_sha256,
                "last_seen": self.last_seen,
                "steps_told": self.steps_told,
                "on_paused": self.on_paused,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and tell once how the wait ended (:class:`WaitEvent`)."""
        yield TriggerEvent((await self._wait()).payload())  # type: ignore[no-untyped-call]

    async def _wait(self) -> WaitEvent:
        steps = wait_for_end(
            self.browseract_task_id,
            poll_interval=self.poll_interval,
            first_poll_at=self.first_poll_at,
            deadline=self.deadline,
            clock=time.time,
            chance=random.random,
            last_seen=TaskStatus(self.last_seen) if self.last_seen else None,
            steps_told=self.steps_told,
            on_paused=OnPaused(self.on_paused),
        )
        try:
            async with BrowserActHook(self.browseract_conn_id).async_client() as client:
                over = await follow_async(steps, client, self.log)
        except Exception as error:
            # A trigger that raises skips execute_complete, and nobody would look after the run.
            self.log.exception("Waiting for BrowserAct task %s failed", self.browseract_task_id)
            await asyncio.sleep(max(0.0, self.first_poll_at - time.time()))
            return self._event(End.GIVEN_UP, f"{type(error).__name__}: {error}")
        return self._event(over.end, str(over.error) if over.error else None)

    def _event(self, end: End, reason: str | None) -> WaitEvent:
        return WaitEvent(self.browseract_task_id, end, self.deadline, WokenBy.POLL, self.callback_token_sha256, reason)

    async def on_kill(self) -> None:
        """Stop the run: someone marked or cleared the waiting Airflow task (Airflow 3.3 and later).

        Airflow calls this too when a callback has resumed the task, and when another triggerer has taken over from one
        that was taken for dead. Both are looked for first, since then the run is still waited for.
        """
        if not self.cancel_on_kill:
            self.log.info("BrowserAct task %s goes on, as it was asked for.", self.browseract_task_id)
            return
        stopping = asyncio.create_task(self._stop_unless_waited_for())
        _STOPPING.add(stopping)
        stopping.add_done_callback(_STOPPING.discard)
        # Until a trigger is gone, Airflow cancels it anew every second or so, and this method with it.
        loop = asyncio.get_running_loop()
        limit = loop.time() + ON_KILL_LIMIT
        while not stopping.done() and loop.time() < limit:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({stopping}, timeout=limit - loop.time())

    async def _stop_unless_waited_for(self) -> None:
        task_id = self.browseract_task_id
        try:
            if waiting := await self._who_waits():
                self.log.info("BrowserAct task %s is not stopped: %s", task_id, waiting)
                return
        except Exception as error:  # noqa: BLE001 - a run that may be waited for must not be stopped on a guess
            self.log.error(
                "BrowserAct task %s was not stopped and may go on: it cannot be learned whether it is still waited for "
                "(%s: %s)",
                task_id,
                type(error).__name__,
                error,
            )
            return
        try:
            async with BrowserActHook(self.browseract_conn_id).async_client(within=CALL_LIMIT) as client:
                # Nothing is said of what a stop makes of a run that has ended, whose result another may just be taking.
                with suppress(BrowserActError):
                    if (await client.send(calls.get_task_status(task_id))).ended:
                        return
                await client.send(calls.stop_task(task_id))
        except NOTHING_TO_STOP:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not go on unsaid
            where = None
            # Of a task that was cleared, Airflow has deleted the link.
            with suppress(Exception):
                where = await self._xcom(BrowserActTaskLink().xcom_key)
            self.log.error(
                "BrowserAct task %s could not be stopped (%s): it may go on, and cost credits, until someone stops it "
                "in the BrowserAct dashboard%s.",
                task_id,
                error,
                f" ({where})" if where else "",
            )
            return
        self.log.info("BrowserAct task %s was stopped, since nobody waits for it any more.", task_id)

    async def _who_waits(self) -> str | None:
        """Say who waits for the run although this trigger was told to end, or give None."""
        if self.callback_token_sha256 and await self._xcom(resumed_xcom(self.first_poll_at)) is not None:
            return "a callback has resumed the Airflow task."
        ti: Any = self.task_instance
        going = await asyncio.to_thread(
            RuntimeTaskInstance.get_ti_count,
            ti.dag_id,
            map_index=ti.map_index,
            task_ids=[ti.task_id],
            run_ids=[ti.run_id],
            states=["deferred", "running"],
        )
        # Of a task that was cleared, Airflow has deleted the XComs by then; the next try wants another run.
        if going and await self._xcom("task_id") == self.browseract_task_id:
            return "the Airflow task waits for it elsewhere."
        return None

    async def _xcom(self, key: str) -> Any:
        ti: Any = self.task_instance
        return await XCom.aget_one(
            key=key, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
        )


_SLOTS: dict[str, Slots] = {}
"""What the tasks that wait for room in this triggerer know of the runs, by connection."""


class SlotTrigger(BaseTrigger):
    """Waits until BrowserAct seems to have room for one more run. Starts nothing itself, so its end loses nothing.

    :param browseract_conn_id: id of the Airflow connection.
    :param capacity: how many runs went on when there was no room; None if that is not known.
    :param pause: seconds before the first look.
    :param until: moment at which the wait ends in any case, in seconds since the epoch.
    """

    def __init__(self, *, browseract_conn_id: str, capacity: int | None, pause: float, until: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_conn_id = browseract_conn_id
        self.capacity = capacity
        self.pause = pause
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and the arguments, all plain JSON values and none of them secret."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "browseract_conn_id": self.browseract_conn_id,
                "capacity": self.capacity,
                "pause": self.pause,
                "until": self.until,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and tell once that the wait is over; whether there is room is BrowserAct's to say."""
        steps = wait_for_slot(
            _SLOTS.setdefault(self.browseract_conn_id, Slots()),
            capacity=self.capacity,
            pause=self.pause,
            until=self.until,
            clock=time.time,
            chance=random.random,
        )
        try:
            async with BrowserActHook(self.browseract_conn_id).async_client() as client:
                await follow_async(steps, client, self.log)
        except Exception:
            # The start will meet the same trouble, and say what it is.
            self.log.exception("Waiting for room failed")
            await asyncio.sleep(self.pause)
        yield TriggerEvent({"waited_for": "slot"})  # type: ignore[no-untyped-call]
