"""The two loops that execute the steps of :mod:`airflow_provider_browseract.runs`."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.runs.steps import Log, LogLine

if TYPE_CHECKING:
    from airflow_provider_browseract.api.client import BrowserActClient

T = TypeVar("T")

CHECK_INTERVAL = 0.5
"""Seconds after which a sleep in a worker checks whether to stop; a signal handler does not interrupt the sleep."""


class AsyncSender(Protocol):
    """The one method of an asynchronous client that the loop uses."""

    async def send(self, call: Call[T]) -> T:
        """Send a call."""
        ...


def _unknown_step(step: Any) -> Any:
    raise TypeError(f"unknown step {step!r}")


def run_steps(
    steps: Generator[Any, Any, T],
    client: BrowserActClient,
    log: Log,
    do: Callable[[Any], Any] = _unknown_step,
) -> T:
    """Execute steps in this thread.

    :param do: executes every step that is neither a call nor a log line, and returns its result.
    :returns: the value that the steps return.
    """
    try:
        step = next(steps)
        while True:
            result: Any = None
            if isinstance(step, LogLine):
                log.log(step.level, "%s", step.text)
            elif isinstance(step, Call):
                try:
                    result = client.send(step)
                except BrowserActError as error:
                    step = steps.throw(error)
                    continue
            else:
                result = do(step)
            step = steps.send(result)
    except StopIteration as stop:
        over: T = stop.value
        return over


def sleep(seconds: float, check: Callable[[], None]) -> None:
    """Sleep in this thread, and call ``check`` every :data:`CHECK_INTERVAL` seconds; its exception ends the sleep."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, CHECK_INTERVAL))
        check()


async def run_steps_async(steps: Generator[Call[Any], Any, T], client: AsyncSender) -> T:
    """Send the calls of steps in the event loop, and return the value that the steps return."""
    try:
        call = next(steps)
        while True:
            try:
                result = await client.send(call)
            except BrowserActError as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as stop:
        over: T = stop.value
        return over
