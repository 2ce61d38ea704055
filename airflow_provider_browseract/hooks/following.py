"""The two loops that do what the steps of :mod:`airflow_provider_browseract.runs` say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.runs.steps import Say, Sleep

if TYPE_CHECKING:
    from airflow_provider_browseract.api.client import BrowserActClient

T = TypeVar("T")

PULSE = 0.5
"""Seconds after which a sleep in a worker checks whether it is to end; a signal handler does not interrupt it."""


class AsyncCarrier(Protocol):
    """The one method of an asynchronous client that the loop uses."""

    async def send(self, call: Call[T]) -> T:
        """Carry a call."""
        ...


class Log(Protocol):
    """The one method of a logger that the loops use."""

    def log(self, level: int, msg: str, /, *args: Any) -> Any:
        """Write a line."""


def _nothing_else(step: Any) -> Any:
    raise TypeError(f"nobody knows the step {step!r}")


def _nothing_to_check() -> None:
    pass


def follow(
    steps: Generator[Any, Any, T],
    client: BrowserActClient,
    log: Log,
    do: Callable[[Any], Any] = _nothing_else,
    check: Callable[[], None] = _nothing_to_check,
) -> T:
    """Do the steps in this thread.

    :param steps: what to do.
    :param client: carries the calls.
    :param log: the task's log.
    :param do: does every step that is neither a call nor a sleep nor a line for the log, and returns the answer.
    :param check: called before each step and every :data:`PULSE` seconds of a sleep; what it raises ends the steps.
    :returns: what the steps came to.
    """
    try:
        step = next(steps)
        while True:
            check()
            answer: Any = None
            if isinstance(step, Sleep):
                sleep(step.seconds, check)
            elif isinstance(step, Say):
                log.log(step.level, "%s", step.text)
            elif isinstance(step, Call):
                try:
                    answer = client.send(step)
                except BrowserActError as error:
                    step = steps.throw(error)
                    continue
            else:
                answer = do(step)
            step = steps.send(answer)
    except StopIteration as stop:
        over: T = stop.value
        return over


def sleep(seconds: float, check: Callable[[], None]) -> None:
    """Sleep in this thread, and call a function every :data:`PULSE` seconds, whose exception ends the sleep."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, PULSE))
        check()


async def follow_async(steps: Generator[Any, Any, T], client: AsyncCarrier, log: Log) -> T:
    """Do the steps in the event loop; as :func:`follow`."""
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
            else:
                answer = _nothing_else(step)
            step = steps.send(answer)
    except StopIteration as stop:
        over: T = stop.value
        return over


_UNDER_WAY: set[asyncio.Future[Any]] = set()
"""What may outlast those who wait for it; the loop alone would not keep it alive."""


def outlasting(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Begin something that comes to its end whatever becomes of who waits for it."""
    task = asyncio.ensure_future(coroutine)
    _UNDER_WAY.add(task)
    task.add_done_callback(_forget)
    return task


async def uninterrupted(coroutine: Coroutine[Any, Any, T]) -> T:
    """Wait for a question to Airflow in such a way that it is not cut off with this.

    Before Airflow 3.3 a triggerer takes the answer to a question that was cut off for that to the next one, whoever
    asks it, and breaks down.
    """
    return await asyncio.shield(outlasting(coroutine))


def _forget(done: asyncio.Future[Any]) -> None:
    _UNDER_WAY.discard(done)
    if not done.cancelled():
        # Or asyncio would complain of an error that nobody waited for any more.
        done.exception()
