"""A trigger that waits for a slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.in_airflow.xcoms import names_of
from airflow_provider_browseract.queue.queueing import QueueWait
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.stored import read_argument, to_json
from airflow_provider_browseract.triggers.dispatcher import Dispatcher


class SlotTrigger(BaseTrigger):
    """Wait until the task instance is next in the queue and BrowserAct seems to have a free slot.

    The trigger starts no run, so it can end at any time.

    :param browseract_conn_id: id of the Airflow connection.
    :param wait: the wait, as a :class:`~airflow_provider_browseract.queue.queueing.QueueWait` or as it is stored.
    :raises TypeError: the wait cannot be read.
    """

    def __init__(self, *, browseract_conn_id: str, wait: QueueWait | dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_conn_id = browseract_conn_id
        self.wait = read_argument(QueueWait, wait)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments: plain JSON values, none of them secret."""
        return "airflow_provider_browseract.triggers.slot.SlotTrigger", {
            "browseract_conn_id": self.browseract_conn_id,
            "wait": to_json(self.wait),
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and report once that the wait is over. Only the next start shows whether there is a free slot."""
        ti: Any = getattr(self, "task_instance", None)
        key = str(id(self)) if ti is None else str(names_of(ti))
        dispatcher = Dispatcher.of(self.wait.key_digest)
        pause = self.wait.not_before - time.time()
        if pause > timings.QUEUE_RACE_GRACE:
            # It waits for something else than a slot, and does not use the one for which it may have been woken.
            dispatcher.queue.free(key)
        try:
            await asyncio.sleep(max(0.0, pause))
            dispatcher.join(key, self.wait, self.browseract_conn_id, getattr(ti, "dag_id", ""))
            place_line = asyncio.ensure_future(self._log_place(dispatcher, key))
            try:
                await dispatcher.wait(key, self.wait.until)
            finally:
                place_line.cancel()
        except asyncio.CancelledError:
            # It may have been woken a moment before, and does not start.
            dispatcher.queue.free(key)
            raise
        # dag.test() passes on only the event.
        yield TriggerEvent(to_json(self.wait.queued))  # type: ignore[no-untyped-call]

    async def _log_place(self, dispatcher: Dispatcher, key: str) -> None:
        """Log the place of the task instance, after those that were refused at the same time have joined."""
        await asyncio.sleep(timings.PLACE_DELAY)
        waiting = dispatcher.queue.waiting
        if key in waiting:
            mine = waiting[key].wait.queued.place
            number = 1 + sum(each.wait.queued.place < mine for each in waiting.values())
            self.log.info("Place %d of %d in the queue for slots.", number, len(waiting))
