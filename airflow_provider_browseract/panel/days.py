"""What the runs of the last days cost, read day by day in the background while someone asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias, TypeVar

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.api.pages import list_items
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.exceptions import UnexpectedResponseError
from airflow_provider_browseract.in_airflow.shielding import outlasting
from airflow_provider_browseract.loops import AsyncSender
from airflow_provider_browseract.panel import links
from airflow_provider_browseract.panel.client import AccountClient, only
from airflow_provider_browseract.panel.kept import NO_FAILURE, RETRY_PAUSE, Failure, Read, is_within
from airflow_provider_browseract.panel.listing import RunLists, Runs
from airflow_provider_browseract.runs.watching import WATCH_OVERLAP
from airflow_provider_browseract.spending.budget import ONE_DAY, begin_of, moment
from airflow_provider_browseract.spending.spend import ListedRun

T = TypeVar("T")

DAYS = 31
"""How many days are read, today included: a whole month, also on its last day."""

OPEN_DAY_INTERVAL = 60.0
"""Seconds after which a day is read again whose runs can still change."""

ASKED_LATELY = 30.0
"""Seconds after the last request for the days during which further ones are read."""

REQUEST_PAUSE = 0.5
"""Seconds between two requests for days, of all connections in this process."""

PAGE_SIZE = 250
MAX_REQUESTS = 20
"""Requests for one day and one version of the API. They read 5,000 runs of workflows and 2,000 of bots."""


def source_of(task: Task) -> str | None:
    """Return what a run runs: the id of a workflow, or ``bot`` and its name; None if BrowserAct does not report it."""
    if task.api_version is ApiVersion.V2:
        return task.workflow_id
    name = task.bot_name or task.bot_id
    return f"bot {name}" if name else "bot template"


class Sums(NamedTuple):
    """How many runs there were, what they cost, and how many of them failed."""

    runs: int = 0
    credits: int = 0
    failed: int = 0

    def plus(self, other: Sums) -> Sums:
        """Return both together."""
        return Sums(self.runs + other.runs, self.credits + other.credits, self.failed + other.failed)


Group: TypeAlias = "tuple[str | None, str | None]"
"""What was run, as :func:`source_of` returns it, and the DAG that has started it; None for what is not known."""


@dataclass(frozen=True)
class Day:
    """The sums of the runs that were created on a day (UTC).

    :param truncated: it had more runs, which are not known: there are too many, or they cannot be read.
    :param closed: they cannot change any more.
    :param has_bots: the runs of bots could be read too.
    """

    sums: Mapping[Group, Sums]
    as_of: datetime
    truncated: bool
    closed: bool
    has_bots: bool = True

    @classmethod
    def of(
        cls,
        day: date,
        tasks: Iterable[Task],
        as_of: datetime,
        dags: Mapping[str, str],
        *,
        truncated: bool = False,
        has_bots: bool = True,
    ) -> Day:
        """Sum the tasks that were created on the day. Each counts once.

        :param dags: the DAG of each run that one has started.
        """
        sums: dict[Group, Sums] = {}
        counted, is_known = set[str](), True
        for task in tasks:
            # A task without creation time belongs to no day.
            with suppress(UnexpectedResponseError):
                run = ListedRun.of(task)
                if run.created_at.date() == day and run.id not in counted:
                    counted.add(run.id)
                    group = source_of(task), dags.get(run.id)
                    of_run = Sums(1, run.credit or 0, run.status is TaskStatus.FAILED)
                    sums[group] = sums.get(group, Sums()).plus(of_run)
                    is_known = is_known and run.status.ended and run.credit is not None
        begins = begin_of(day)
        # A run may be listed late.
        is_over = begins + ONE_DAY + timedelta(seconds=WATCH_OVERLAP) < as_of
        # BrowserAct may report the credits of a run days after its end.
        closed = begins + 4 * ONE_DAY < as_of or (is_over and is_known)
        return cls(sums, as_of, truncated, closed, has_bots)


@dataclass(frozen=True)
class DaysRead(Read):
    """The days that were read of the last :data:`DAYS`. ``error`` is why a day could not be read."""

    days: Mapping[date, Day] = field(default_factory=dict)


class Pace:
    """Lets the connections of this process take turns, and pauses between requests."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[Any]]) -> None:
        self.turn = asyncio.Lock()
        self._clock, self._sleep = clock, sleep
        self._next = float("-inf")

    def applied_to(self, client: AsyncSender) -> AsyncSender:
        """Return a client that keeps the pace."""
        return _PacedClient(client, self)

    async def pause(self) -> None:
        """Wait until the next request may be sent."""
        now = self._clock()
        at = min(max(now, self._next), now + REQUEST_PAUSE)
        self._next = at + REQUEST_PAUSE
        await self._sleep(at - now)


class _PacedClient:
    def __init__(self, client: AsyncSender, pace: Pace) -> None:
        self._client, self._pace = client, pace

    async def send(self, call: Call[T]) -> T:
        await self._pace.pause()
        return await self._client.send(call)


class Days:
    """The last days of one account.

    :param lists: the runs of the account, which contain those of today unless there are too many.
    """

    def __init__(self, client: AccountClient, lists: RunLists, pace: Pace) -> None:
        self._client, self._lists, self._pace, self._clock = client, lists, pace, client.connection.clock
        self._today_of: Runs | None = None
        self._had_bots = False
        self._had_bots_at = float("-inf")
        self._days: dict[date, Day] = {}
        self._failures: dict[date, Failure] = {}
        self._failed_at = self._asked_at = float("-inf")
        self._loading: asyncio.Task[None] | None = None
        self.first = asyncio.Event()
        """Set after the first day was read, with or without success."""

    def read(self) -> DaysRead:
        """Return the days that were read, and have further ones read in the background."""
        self._asked_at = self._clock()
        wanted = self._wanted()
        self._days = {day: self._days[day] for day in wanted if day in self._days}
        self._failures = {day: self._failures[day] for day in wanted if day in self._failures}
        if self._loading is None and (self._lists.refresh() or self._next() is not None):
            self._loading = outlasting(self._load())
        failure = next(iter(self._failures.values()), NO_FAILURE)
        as_of = max((day.as_of for day in self._days.values()), default=None)
        return DaysRead(dict(self._days), as_of=as_of, error=failure.error, remedy=failure.remedy)

    def _runs_suffice(self) -> bool:
        """Return whether the runs of the account contain all runs of today."""
        lists, today = self._lists, self._wanted()[0]
        needed = (lists.workflows, lists.bots) if lists.has_bots else (lists.workflows,)
        return not lists.runs.truncated and all(kept.as_of and kept.as_of.date() == today for kept in needed)

    def _wanted(self) -> list[date]:
        """Return the days, today first."""
        today = moment(self._clock()).date()
        return [today - number * ONE_DAY for number in range(DAYS)]

    def _next(self) -> date | None:
        """Return the day to read next; None if there is none, or if nobody has asked lately."""
        now = self._clock()
        asked = is_within(ASKED_LATELY, self._asked_at, now)
        if self._client.closed or not asked or is_within(RETRY_PAUSE, self._failed_at, now):
            return None
        due = []
        for number, day in enumerate(self._wanted()):
            known = self._days.get(day)
            is_new = known and (known.closed or is_within(OPEN_DAY_INTERVAL, known.as_of.timestamp(), now))
            if number == 0 and self._runs_suffice():
                is_new = known and self._today_of is self._lists.runs
            if known is None or not is_new or self._lists.has_bots > known.has_bots:
                # A day that cannot be read does not stop the others.
                due.append((known is not None, day in self._failures, -day.toordinal()))
        return date.fromordinal(-min(due)[2]) if due else None

    async def _load(self) -> None:
        try:
            if running := self._lists.refresh():
                await asyncio.wait(running)
            while self._next() is not None:
                async with self._pace.turn:
                    # Another connection may have had its turn for a while.
                    if day := self._next():
                        await self._load_day(day)
        finally:
            self._loading = None

    async def _load_day(self, day: date) -> None:
        began, begins = moment(self._clock()), begin_of(day)
        try:
            has_bots, runs = self._lists.has_bots, self._lists.runs
            if day == self._wanted()[0] and self._runs_suffice():
                began = self._lists.workflows.as_of or began
                self._days[day] = await self._summed(day, runs.tasks, began, has_bots=has_bots)
                self._today_of = runs
                self._failures.pop(day, None)
                return
            versions = (*([ApiVersion.V3] if has_bots and await self._bots_ran() else []), ApiVersion.V2)
            tasks: list[Task] = []
            truncated = False
            for version in versions:
                of_day = {"created_at_from": begins, "created_at_to": begins + ONE_DAY, "limit": PAGE_SIZE}
                steps = list_items(APIS[version].list_tasks(**of_day), MAX_REQUESTS)
                listing = await self._client.send(steps, self._pace.applied_to)
                tasks = listing.items + tasks
                truncated = truncated or listing.incomplete
            self._days[day] = await self._summed(day, tasks, began, truncated=truncated, has_bots=has_bots)
            self._failures.pop(day, None)
        except Exception as error:  # noqa: BLE001 - it is shown on the page, and tried again
            self._failed_at, self._failures[day] = self._clock(), Failure.of(error, self._client.connection.conn_id)
            self._client.connection.expire()
        finally:
            self.first.set()

    async def _summed(self, day: date, tasks: Iterable[Task], as_of: datetime, **known: bool) -> Day:
        conn_id, api_key = self._client.connection.conn_id, self._client.settings.api_key

        def make() -> Day:
            return Day.of(day, tasks, as_of, links.dags_on(day, conn_id, api_key), **known)

        # It reads the database and, for thousands of runs, takes long enough to delay other reads.
        return await asyncio.to_thread(make)

    async def _bots_ran(self) -> bool:
        """Return whether version 3 lists any run of these days. If not, its days need no requests."""
        if not self._had_bots and not is_within(OPEN_DAY_INTERVAL, self._had_bots_at, self._clock()):
            begins = begin_of(self._wanted()[-1])
            page = await self._client.send(only(APIS[ApiVersion.V3].list_tasks(created_at_from=begins, limit=1)))
            self._had_bots, self._had_bots_at = bool(page.items), self._clock()
        return self._had_bots
