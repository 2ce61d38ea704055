"""Values that are read when someone asks for them, and kept for a while. One read serves all who ask until it ends."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    InputError,
    NotFoundError,
    ResponseLostError,
    ResponseTooLargeError,
    ServerError,
)
from airflow_provider_browseract.hooks.connection import no_connection
from airflow_provider_browseract.in_airflow.shielding import outlasting
from airflow_provider_browseract.spending.budget import moment

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_PAUSE = 30.0
"""Seconds after an error before the same is read again."""

OLD = 60.0
"""Seconds after which what was read counts as old, although it is read again when somebody asks for it."""

NO_REMEDY = (ServerError, ResponseLostError, ResponseTooLargeError)
"""Errors whose remedies are about calls that a person repeats. The pages repeat theirs by themselves."""

MAX_LINE = 500
"""Characters of an error that are kept."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """What is known about a read.

    :param as_of: when what is there was read; None if nothing was read yet.
    :param error: why the last read failed, in one line; None if it did not. What is there stays.
    :param remedy: what to do about it; empty if it is enough to wait.
    """

    as_of: datetime | None = None
    error: str | None = None
    remedy: str = ""

    def is_old(self, now: datetime) -> bool:
        """Return whether what is there is so old that it must not be taken for what is true now."""
        return self.error is None and self.as_of is not None and (now - self.as_of).total_seconds() > OLD


class Failure(NamedTuple):
    """Why a read failed."""

    error: str | None
    remedy: str = ""
    not_found: bool = False

    @classmethod
    def of(cls, error: Exception, conn_id: str) -> Failure:
        """Explain an error without secrets."""
        if isinstance(error, BrowserActError):
            remedy = "" if isinstance(error, NO_REMEDY) else error.advice
            return cls(error.brief, remedy, isinstance(error, NotFoundError))
        if isinstance(error, AirflowNotFoundException):
            reason, _, remedy = no_connection(conn_id).partition("\n")
            return cls(reason.rstrip("."), remedy, not_found=True)
        if isinstance(error, InputError):
            text = str(error)
        else:
            # Without a traceback: Airflow's logs may show its variables, such as the API key.
            log.warning("The account of connection %r could not be read (%s)", conn_id, type(error).__name__)
            log.debug("%s", "".join(traceback.format_exception(error)))
            text = f"unexpected error ({type(error).__name__})"
        reason, _, remedy = text.partition("\n")
        return cls(reason.rstrip(".")[:MAX_LINE], remedy[:MAX_LINE])


NO_FAILURE = Failure(None)


class Kept(Generic[T]):
    """A value that is read again if someone asks for it when it is old.

    :param keep: returns for how many seconds a value is kept.
    :param failed: called after a read has failed.
    """

    def __init__(
        self,
        conn_id: str,
        read: Callable[[], Awaitable[T]],
        keep: Callable[[T], float],
        clock: Callable[[], float],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.value: T | None = None
        self.failure = NO_FAILURE
        self.as_of: datetime | None = None
        self.conn_id, self.clock = conn_id, clock
        self._read, self._keep, self._failed = read, keep, failed
        self._at, self._expired = float("-inf"), False
        self._running: asyncio.Task[None] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """The fields of :class:`Read`."""
        return {"as_of": self.as_of, "error": self.failure.error, "remedy": self.failure.remedy}

    def expire(self) -> None:
        """Read it again when someone asks next."""
        self._expired = True

    def refresh(self) -> asyncio.Task[None] | None:
        """Return the read that is running, or start one if it is due."""
        if self._running is None and self._is_due():
            # Others may wait for it when the one who asked first has closed the page.
            self._running = outlasting(self._refresh())
        return self._running

    def _is_due(self) -> bool:
        if self.failure is not NO_FAILURE or self.value is None:
            return not is_within(RETRY_PAUSE, self._at, self.clock())
        return self._expired or not is_within(self._keep(self.value), self._at, self.clock())

    async def _refresh(self) -> None:
        began, self._expired = self.clock(), False
        try:
            self.value = await self._read()
            self._at, self.as_of, self.failure = began, moment(began), NO_FAILURE
        except Exception as error:  # noqa: BLE001 - it is shown on the page, and tried again
            self._at, self.failure = self.clock(), Failure.of(error, self.conn_id)
            if self.failure.not_found:
                self.value = self.as_of = None
            self._failed()
        finally:
            self._running = None


class Patience:
    """How long a caller waits, for everything that it needs."""

    def __init__(self, seconds: float) -> None:
        self._end = asyncio.get_running_loop().time() + seconds

    async def wait_for(self, *kept: Kept[Any]) -> None:
        """Wait until values that are old are read again. If the caller is cancelled, the reads continue."""
        running = {task for each in kept if (task := each.refresh())}
        left = self._end - asyncio.get_running_loop().time()
        if running and left > 0:
            await asyncio.wait(running, timeout=left)

    async def wait_until(self, event: asyncio.Event) -> None:
        """Wait until an event has happened."""
        left = self._end - asyncio.get_running_loop().time()
        if left > 0 and not event.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(event.wait(), left)


def is_within(seconds: float, since: float, now: float) -> bool:
    """Return whether some time has not passed yet. It has if the clock was set back, so that reads do not stop."""
    return 0 <= now - since < seconds
