"""The two loops that send the calls which the generators of :mod:`airflow_provider_browseract.runs` yield.

What a worker and an event loop do in the same way is a generator. It yields calls, and gets the result of each, or its
error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.exceptions import BrowserActError

T = TypeVar("T")

CHECK_INTERVAL = 0.5
"""Seconds after which a sleep in a worker checks whether to stop; a signal handler does not interrupt the sleep."""


class Sender(Protocol):
    """The one method of a client that a worker's loop uses."""

    def send(self, call: Any) -> Any:
        """Send a call."""


class AsyncSender(Protocol):
    """The one method of an asynchronous client that the loop uses."""

    async def send(self, call: Call[T]) -> T:
        """Send a call."""


def send_all(calls: Generator[Any, Any, T], client: Sender) -> T:
    """Send calls in this thread, and return the value that their generator returns."""
    seen: Any = None
    try:
        while True:
            call = calls.throw(seen) if isinstance(seen, BrowserActError) else calls.send(seen)
            try:
                seen = client.send(call)
            except BrowserActError as error:
                seen = error
    except StopIteration as stop:
        over: T = stop.value
        return over


async def send_all_async(calls: Generator[Call[Any], Any, T], client: AsyncSender) -> T:
    """Send calls in the event loop, and return the value that their generator returns."""
    seen: Any = None
    try:
        while True:
            call = calls.throw(seen) if isinstance(seen, BrowserActError) else calls.send(seen)
            try:
                seen = await client.send(call)
            except BrowserActError as error:
                seen = error
    except StopIteration as stop:
        over: T = stop.value
        return over


def sleep(seconds: float, check: Callable[[], object]) -> None:
    """Sleep in this thread, and call ``check`` every :data:`CHECK_INTERVAL` seconds.

    :param check: its exception or a true result ends the sleep.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, CHECK_INTERVAL))
        if check():
            return
