"""Values that are read when someone asks for them, and kept for a while. One read serves all who ask until it ends."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from typing import Any, Generic, TypeAlias, TypeVar

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

K = TypeVar("K", bound=Hashable)
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
    :param not_found: there is no such thing.
    """

    as_of: datetime | None = None
    error: str | None = None
    remedy: str = ""
    not_found: bool = False

    def is_old(self, now: datetime) -> bool:
        """Return whether what is there is so old that it must not be taken for what is true now."""
        return self.error is None and self.as_of is not None and (now - self.as_of).total_seconds() > OLD


@dataclass(frozen=True, kw_only=True)
class Known(Read, Generic[T]):
    """A value that was read; None if there is none."""

    value: T | None = None


Explain: TypeAlias = "Callable[[Exception], Known[Any]]"


class Kept(Generic[T]):
    """A value that is read again if someone asks for it when it is old, or when :attr:`expired` was set.

    :param keep: returns for how many seconds a value is kept.
    :param explain: returns what is known after an error.
    """

    def __init__(
        self, read: Callable[[], Awaitable[T]], keep: Callable[[T], float], explain: Explain, clock: Callable[[], float]
    ) -> None:
        self._read, self._keep, self._explain, self._clock = read, keep, explain, clock
        self.known: Known[T] = Known()
        self._at, self.expired = -inf, False
        self._running: asyncio.Task[None] | None = None
        self._began = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is read when someone asks next."""
        if self.known.error is not None:
            return not is_within(RETRY_PAUSE, self._at, self._clock())
        value = self.known.value
        return value is None or self.expired or not is_within(self._keep(value), self._at, self._clock())

    async def get(self, until: float = inf) -> Known[T]:
        """Return what is known after a read that is due or running, or at a moment of the monotonic clock.

        A running read is waited for as if the caller had come when it began: nobody waits again for one that hangs.
        """
        now = time.monotonic()
        if self.is_due and (self._running is None or self._running.done()):
            # Others may wait for it when the one who asked first has closed the page.
            self._running, self._began = outlasting(self._refresh()), now
        if self._running is not None:
            patience = until - now
            await asyncio.wait([self._running], timeout=max(0.0, self._began + patience - now))
        return self.known

    async def _refresh(self) -> None:
        began, self.expired = self._clock(), False
        try:
            self.known, self._at = Known(value=await self._read(), as_of=moment(began)), began
        except Exception as error:  # noqa: BLE001 - it is shown on the page, and tried again
            known, failed = self.known, self._explain(error)
            self._at = self._clock()
            self.known = failed if failed.not_found else replace(failed, value=known.value, as_of=known.as_of)


def explain(error: Exception, conn_id: str) -> Known[Any]:
    """Return why a read has failed, without secrets."""
    if isinstance(error, BrowserActError):
        remedy = "" if isinstance(error, NO_REMEDY) else error.advice
        return Known(error=error.brief, remedy=remedy, not_found=isinstance(error, NotFoundError))
    if not_found := isinstance(error, AirflowNotFoundException):
        text = no_connection(conn_id)
    elif isinstance(error, InputError):
        text = str(error)
    else:
        # Without a traceback: Airflow's logs may show its variables, such as the API key.
        log.warning("The account of connection %r could not be read (%s)", conn_id, type(error).__name__)
        log.debug("%s", "".join(traceback.format_exception(error)))
        text = f"unexpected error ({type(error).__name__})"
    reason, _, remedy = text.partition("\n")
    return Known(error=reason.rstrip(".")[:MAX_LINE], remedy=remedy[:MAX_LINE], not_found=not_found)


def is_within(seconds: float, since: float, now: float) -> bool:
    """Return whether some time has not passed yet. It has if the clock was set back, so that reads do not stop."""
    return 0 <= now - since < seconds


def recall(known: dict[K, T], key: K, make: Callable[[], T], at_most: int) -> T:
    """Return a value that is made once, and forget those of a dict that were asked for longest ago."""
    value = known[key] = known.pop(key, None) or make()
    while len(known) > at_most:
        del known[next(iter(known))]
    return value
