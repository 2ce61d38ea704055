"""Protect the callback route and the log of the API server against floods of requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from airflow_provider_browseract.runs import timings


class BusyError(Exception):
    """Too many newer requests have arrived in the meantime, or the request has waited too long."""


class NewestFirst:
    """Limit the number of concurrent requests. The newest waiting request is next; if too many wait, the oldest fails.

    A burst of forged requests then delays earlier requests, but not a genuine callback after the burst. In a steady
    flood the earlier ones would never have their turn, so each fails while its sender still waits for the response.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = at_once
        self._most = waiting
        self._waiting: deque[asyncio.Future[bool]] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn.

        :raises BusyError: too many newer requests wait, or this one has waited for
            :data:`~airflow_provider_browseract.runs.timings.LONGEST_CALLBACK_WAIT`.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self) -> None:
        mine: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if len(self._waiting) > self._most:
            self._waiting.popleft().set_result(False)
        try:
            await asyncio.wait([mine], timeout=timings.LONGEST_CALLBACK_WAIT)
            if not mine.done():
                self._waiting.remove(mine)
                raise BusyError
            if not mine.result():
                raise BusyError
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.result():
                self._pass_on()
            elif mine in self._waiting:
                self._waiting.remove(mine)
            raise

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.pop().set_result(True)
        else:
            self._free += 1


class RareLog:
    """Limit the lines about something that may happen many times a second, and show how many were left out.

    :param every: seconds after which lines are written again.
    """

    def __init__(self, log: logging.Logger, every: float = 60.0, most: int = 1) -> None:
        self._log = log
        self._every = every
        self._most = most
        self._left = 0
        self._next = 0.0
        self._skipped = 0

    def error(self, what: str, error: Exception, consequence: str) -> None:
        """Log an error without its traceback, whose variables may be secret.

        :param what: what failed, as a clause.
        :param consequence: what happens now, as a sentence.
        """
        why = str(error).partition("\n")[0]
        self._write(logging.ERROR, "%s (%s: %s). %s", what, type(error).__name__, why, consequence)

    def info(self, text: str, *args: object) -> None:
        """Log a line, as :meth:`logging.Logger.info` does."""
        self._write(logging.INFO, text, *args)

    def _write(self, level: int, text: str, *args: object) -> None:
        if time.monotonic() >= self._next:
            self._next, self._left = time.monotonic() + self._every, self._most
        if not self._left:
            self._skipped += 1
            return
        self._left -= 1
        more = f" {self._skipped} more such lines were left out since the last one." if self._skipped else ""
        self._skipped = 0
        self._log.log(level, f"{text}%s", *args, more)
