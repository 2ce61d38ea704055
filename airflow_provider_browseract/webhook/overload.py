"""Protect the callback route and the log of the API server against floods of requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class BusyError(Exception):
    """Too many newer requests have arrived in the meantime."""


class NewestFirst:
    """Limit the number of concurrent requests. The newest waiting request is next; if too many wait, the oldest fails.

    A burst of forged requests then delays earlier requests, but not a genuine callback after the burst.

    :param at_once: how many requests may run at once.
    :param waiting: how many requests may wait.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = at_once
        self._most = waiting
        self._waiting: deque[asyncio.Future[bool]] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn.

        :raises BusyError: too many newer requests wait.
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
            if not await mine:
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
    """Log an error that may occur many times a second only once a minute, with the number of skipped lines.

    :param log: the logger.
    :param every: seconds between two lines.
    """

    def __init__(self, log: logging.Logger, every: float = 60.0) -> None:
        self._log = log
        self._every = every
        self._next = 0.0
        self._skipped = 0

    def error(self, what: str, error: Exception, consequence: str) -> None:
        """Log an error without its traceback, whose variables may be secret.

        :param what: what failed, as a clause.
        :param error: the error.
        :param consequence: what happens now, as a sentence.
        """
        if time.monotonic() < self._next:
            self._skipped += 1
            return
        more = f" {self._skipped} more such errors since the last line." if self._skipped else ""
        why = str(error).partition("\n")[0]
        self._log.error("%s (%s: %s). %s%s", what, type(error).__name__, why, consequence, more)
        self._next, self._skipped = time.monotonic() + self._every, 0
