"""Poll a run in the triggerer until its wait ends."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import unreadable
from airflow_provider_browseract.hooks.hiding import NOTHING, Hiding
from airflow_provider_browseract.loops import Log, run_steps_async
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.waiting import End, Wait, wait_for_end

if TYPE_CHECKING:
    from airflow_provider_browseract.api.async_client import AsyncBrowserActClient
    from airflow_provider_browseract.api.models import Task

T = TypeVar("T")


class PatientClient:
    """Send the polls of a trigger. If the Airflow connection cannot be read, the poll fails, and the wait continues.

    :param within: seconds that a call and its retries may take; None for the limits of the connection.
    :param hiding: what is removed from the runs that are read.
    """

    def __init__(self, conn_id: str, *, within: float | None = None, hiding: Hiding = NOTHING) -> None:
        self._conn_id = conn_id
        self._within = within
        self._hiding = hiding
        self._open = AsyncExitStack()
        self._client: AsyncBrowserActClient | None = None

    async def send(self, call: Call[T]) -> T:
        """Send a call.

        :raises BrowserActError: the call failed, or the connection cannot be read.
        """
        if self._client is None:
            hook = BrowserActHook(self._conn_id)
            try:
                await hook.asettings()
            except Exception as error:
                raise unreadable(self._conn_id, error) from error
            self._client = await self._open.enter_async_context(hook.async_client(within=self._within))
        result: T = self._hiding.apply(await self._client.send(call))
        return result

    async def aclose(self) -> None:
        """Close the connections."""
        await self._open.aclose()


async def poll_until_end(wait: Wait, conn_id: str, log: Log) -> tuple[WaitEvent, Task | None]:
    """Poll a run until its wait ends; return how it ended, and the run as the last poll returned it."""
    try:
        # Whether goals of steps are hidden was decided in the worker, which knows the inputs.
        hiding = Hiding(live_view=not wait.policy.show_live_view)
        async with aclosing(PatientClient(conn_id, hiding=hiding)) as client:
            over = await run_steps_async(wait_for_end(wait, time.time, random.random), client, log)
    except Exception as error:
        # A trigger that raises skips execute_complete, and nothing would wait for the run any more. An error here
        # would probably occur again at once, so end the wait no sooner than failed polls would.
        pause = max(0.0, min(timings.POLL_PATIENCE, wait.deadline - time.time()))
        log.error(
            "Polling BrowserAct task %s failed with an unexpected error. A worker continues in %.0f seconds.",
            wait.browseract_task_id,
            pause,
            exc_info=True,
        )
        await asyncio.sleep(pause)
        return WaitEvent(wait, End.GIVEN_UP, reason=f"{type(error).__name__}: {error}"), None
    return WaitEvent(over.wait, over.end, reason=over.error.brief if over.error else None), over.task
