"""The trigger that waits for a run while no worker is held."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import TaskEndedError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.following import follow_async
from airflow_provider_browseract.runs.waiting import End, wait_for_end


@dataclass(frozen=True)
class TaskEvent:
    """What the trigger tells the operator.

    :param browseract_task_id: the BrowserAct task.
    :param end: how the wait ended.
    :param deadline: moment at which the run's time is over, in seconds since the epoch.
    :param reason: why the status could not be learned, where that is so.
    """

    browseract_task_id: str
    end: End
    deadline: float
    reason: str | None = None

    def payload(self) -> dict[str, Any]:
        """Write the event as plain JSON values."""
        return {**asdict(self), "end": self.end.value}

    @classmethod
    def read(cls, payload: Any) -> TaskEvent:
        """Read an event, and refuse one that is not whole.

        :raises ValueError: it is not an event of this trigger.
        """
        if not isinstance(payload, Mapping):
            raise ValueError(f"the trigger's event is {payload!r}")
        task_id, deadline = payload.get("browseract_task_id"), payload.get("deadline")
        if not isinstance(task_id, str) or not task_id:
            raise ValueError("the trigger's event names no BrowserAct task")
        if isinstance(deadline, bool) or not isinstance(deadline, int | float):
            raise ValueError("the trigger's event has no deadline")
        return cls(task_id, End(payload.get("end")), float(deadline), payload.get("reason"))


class TaskTrigger(BaseTrigger):
    """Waits until a BrowserAct task has ended, its time is over, or nothing can be learned of it.

    It never starts, resumes or judges a run: the operator asks the API again. All moments are absolute, so another
    triggerer that takes over continues with the same clock.

    :param browseract_task_id: the BrowserAct task.
    :param browseract_conn_id: id of the Airflow connection.
    :param poll_interval: seconds between two questions for the status.
    :param first_poll_at: no question before this moment, in seconds since the epoch.
    :param deadline: moment at which the wait ends, in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        browseract_task_id: str,
        browseract_conn_id: str,
        poll_interval: float,
        first_poll_at: float,
        deadline: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_task_id = browseract_task_id
        self.browseract_conn_id = browseract_conn_id
        self.poll_interval = poll_interval
        self.first_poll_at = first_poll_at
        self.deadline = deadline

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
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and tell once how the wait ended (:class:`TaskEvent`)."""
        yield TriggerEvent((await self._wait()).payload())  # type: ignore[no-untyped-call]

    async def _wait(self) -> TaskEvent:
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

    def _event(self, end: End, reason: str | None) -> TaskEvent:
        return TaskEvent(self.browseract_task_id, end, self.deadline, reason)

    async def on_kill(self) -> None:
        """Stop the run: someone marked or cleared the waiting Airflow task (Airflow 3.3 and later)."""
        try:
            async with BrowserActHook(self.browseract_conn_id).async_client() as client:
                await client.send(calls.stop_task(self.browseract_task_id))
        except TaskEndedError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not go on unsaid
            self.log.error("BrowserAct task %s could not be stopped and goes on: %s", self.browseract_task_id, error)
            return
        self.log.info("BrowserAct task %s was stopped, since nobody waits for it any more.", self.browseract_task_id)
