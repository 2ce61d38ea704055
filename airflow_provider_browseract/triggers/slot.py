"""A trigger that waits for a slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS, task_instance_state
from airflow_provider_browseract.in_airflow.shielding import ask_airflow, outlasting
from airflow_provider_browseract.in_airflow.showing import show_place
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.in_airflow.xcoms import XComs, names_of
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import QueueWait
from airflow_provider_browseract.runs.stored import read_argument, to_json
from airflow_provider_browseract.triggers.dispatcher import Dispatcher

ABOUT_TO_START = ("scheduled", "queued", "running", "deferred")
"""States of a task instance after a hand-over. It is deferred again if its start was refused, or has succeeded."""


class SlotTrigger(BaseTrigger):
    """Wait until the task instance is next in the queue and BrowserAct seems to have a free slot.

    The trigger starts no run, so it can end at any time. The API server ends it too, when it hands over a slot.

    :param browseract_conn_id: id of the Airflow connection.
    :param wait: the wait, as a :class:`~airflow_provider_browseract.runs.queueing.QueueWait` or as it is stored.
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
        dispatcher = Dispatcher.of(self.browseract_conn_id, self.wait.key_digest)
        if self.wait.not_before is not None:
            # It does not use the slot for which it may have been woken.
            dispatcher.queue.free(key)
            await asyncio.sleep(max(0.0, self.wait.not_before - time.time()))
        dispatcher.join(key, self.wait, self.browseract_conn_id, getattr(ti, "dag_id", ""))
        showing = asyncio.ensure_future(self._show_place(dispatcher, key, ti))
        try:
            await dispatcher.wait(key, self.wait.until)
        except asyncio.CancelledError:
            if ti is not None:
                outlasting(_free_unless_starting(dispatcher, key, ti))
            raise
        finally:
            showing.cancel()
        # dag.test() passes on only the event.
        yield TriggerEvent(to_json(self.wait.queued))  # type: ignore[no-untyped-call]

    async def _show_place(self, dispatcher: Dispatcher, key: str, ti: Any) -> None:
        """Show the place of the task instance, after those that were refused at the same time have joined."""
        await asyncio.sleep(timings.PLACE_DELAY)
        order = dispatcher.queue.order()
        if key not in order:
            return
        place, slots, active = order.index(key) + 1, dispatcher.queue.capacity, dispatcher.queue.active
        self.log.info(
            "Place %d of %d in the queue for slots.%s",
            place,
            len(order),
            f" The plan seems to have {slots} {'slot' if slots == 1 else 'slots'}." if slots else "",
        )
        # Before Airflow 3.3, a request to Airflow from another thread would break the triggerer.
        if ti is not None and AIRFLOW_V_3_3_PLUS and self.wait.queued.refusals == 1:
            number = self.wait.active_in(dispatcher.queue.versions) if active is None else active.number
            # Not in the XCom of the wait: a slow triggerer could overwrite what a callback has pushed there.
            shown = {"place": place, "length": len(order), "active_runs": number}
            async with dispatcher.pushing:
                await asyncio.to_thread(show_place, XComs(ti), shown, self.log)


async def _free_unless_starting(dispatcher: Dispatcher, key: str, ti: Any) -> None:
    """Free the slot of a task instance whose trigger was cancelled, unless it is about to start.

    Airflow cancels a trigger in the same way after a hand-over, a mark and a clear. Only the state of the task instance
    differs.
    """
    async with dispatcher.pushing:
        # Without a response, the task instance holds the slot for a limited time.
        with tolerate_errors():
            if await ask_airflow(task_instance_state, ti) not in ABOUT_TO_START:
                dispatcher.queue.free(key)
