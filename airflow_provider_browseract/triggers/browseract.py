"""The trigger that waits for a run while no worker is held."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import TaskEndedError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.following import follow_async
from airflow_provider_browseract.runs.waiting import End, WaitEvent, WokenBy, wait_for_end
from airflow_provider_browseract.webhook.callback import resumed_xcom

ON_KILL_LIMIT = 25.0
"""Seconds that a killed trigger is kept for stopping its run, a little less than Airflow itself allows."""

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
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_task_id = browseract_task_id
        self.browseract_conn_id = browseract_conn_id
        self.poll_interval = poll_interval
        self.first_poll_at = first_poll_at
        self.deadline = deadline
        self.callback_token_sha256 = callback_token_sha256

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

        Airflow takes a callback that resumed the task for such a person, so the note that it left is looked for first.
        """
        stopping = asyncio.create_task(self._stop_unless_resumed())
        _STOPPING.add(stopping)
        stopping.add_done_callback(_STOPPING.discard)
        # Until a trigger is gone, Airflow cancels it anew every second or so, and this method with it.
        loop = asyncio.get_running_loop()
        limit = loop.time() + ON_KILL_LIMIT
        while not stopping.done() and loop.time() < limit:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({stopping}, timeout=limit - loop.time())

    async def _stop_unless_resumed(self) -> None:
        if self.callback_token_sha256 and await self._resumed_by_callback():
            return
        try:
            async with BrowserActHook(self.browseract_conn_id).async_client() as client:
                await client.send(calls.stop_task(self.browseract_task_id))
        except TaskEndedError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not go on unsaid
            self.log.error("BrowserAct task %s could not be stopped and goes on: %s", self.browseract_task_id, error)
            return
        self.log.info("BrowserAct task %s was stopped, since nobody waits for it any more.", self.browseract_task_id)

    async def _resumed_by_callback(self) -> bool:
        ti: Any = self.task_instance
        try:
            from airflow.sdk.execution_time.xcom import XCom

            note = await XCom.aget_one(
                key=resumed_xcom(self.trigger_id),
                dag_id=ti.dag_id,
                task_id=ti.task_id,
                run_id=ti.run_id,
                map_index=ti.map_index,
            )
        except Exception as error:  # noqa: BLE001 - then it is not known, and a run that is waited for must not be stopped
            self.log.error(
                "BrowserAct task %s was not stopped and may go on: it cannot be learned whether a callback or a person "
                "ended the wait (%s: %s)",
                self.browseract_task_id,
                type(error).__name__,
                error,
            )
            return True
        return note is not None
