"""The two loops that do as :func:`~airflow_provider_browseract.runs.waiting.wait_for_end` says."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.runs.waiting import Say, Sleep, Steps, WaitOver

if TYPE_CHECKING:
    from airflow_provider_browseract.api.client import AsyncBrowserActClient, BrowserActClient


class Log(Protocol):
    """The one method of a logger that the loops use."""

    def log(self, level: int, msg: str, /, *args: Any) -> Any:
        """Write a line."""


def follow(steps: Steps, client: BrowserActClient, log: Log) -> WaitOver:
    """Wait in this thread.

    :param steps: what to do.
    :param client: carries the calls.
    :param log: the task's log.
    """
    try:
        step = next(steps)
        while True:
            answer: Any = None
            if isinstance(step, Sleep):
                time.sleep(step.seconds)
            elif isinstance(step, Say):
                log.log(step.level, "%s", step.text)
            elif isinstance(step, Call):
                try:
                    answer = client.send(step)
                except BrowserActError as error:
                    step = steps.throw(error)
                    continue
            step = steps.send(answer)
    except StopIteration as stop:
        over: WaitOver = stop.value
        return over


async def follow_async(steps: Steps, client: AsyncBrowserActClient, log: Log) -> WaitOver:
    """Wait in the event loop; as :func:`follow`."""
    try:
        step = next(steps)
        while True:
            answer: Any = None
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Say):
                log.log(step.level, "%s", step.text)
            elif isinstance(step, Call):
                try:
                    answer = await client.send(step)
                except BrowserActError as error:
                    step = steps.throw(error)
                    continue
            step = steps.send(answer)
    except StopIteration as stop:
        over: WaitOver = stop.value
        return over
