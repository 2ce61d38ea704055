"""A trigger that waits for a slot."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.steps import run_steps_async
from airflow_provider_browseract.runs.queueing import QueueWait, Slots, wait_for_slot
from airflow_provider_browseract.runs.stored import read_argument, to_json
from airflow_provider_browseract.triggers.serializing import serialized

_SLOTS: dict[str, Slots] = {}
"""The active runs as known to the task instances that wait for a slot in this triggerer, by connection."""


class SlotTrigger(BaseTrigger):
    """Wait until BrowserAct seems to have a free slot. The trigger starts no run, so it can end at any time.

    :param browseract_conn_id: id of the Airflow connection.
    :param wait: the wait, as a :class:`~airflow_provider_browseract.runs.queueing.QueueWait` or as it is stored.
    :raises TypeError: the wait cannot be read.
    """

    def __init__(self, *, browseract_conn_id: str, wait: QueueWait | dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_conn_id = browseract_conn_id
        self.wait = wait if isinstance(wait, QueueWait) else read_argument(QueueWait, wait)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments: plain JSON values, none of them secret."""
        return serialized(self, "browseract_conn_id", "wait")

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and report once that the wait is over. Only the next start shows whether there is a free slot."""
        slots = _SLOTS.setdefault(self.browseract_conn_id, Slots())
        try:
            async with BrowserActHook(self.browseract_conn_id).async_client() as client:
                await run_steps_async(wait_for_slot(slots, self.wait, time.time, random.random), client, self.log)
        except Exception:
            # The next start gets the same error, and raises it.
            self.log.exception("Waiting for a slot failed")
            await asyncio.sleep(self.wait.pause)
        # dag.test() passes on only the event.
        yield TriggerEvent(to_json(self.wait.queued))  # type: ignore[no-untyped-call]
