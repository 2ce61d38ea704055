"""What the runs of the last days cost, read day by day in the background while someone asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from math import inf
from typing import Any, NamedTuple, TypeAlias, TypeVar

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.api.pages import list_items
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.in_airflow.shielding import outlasting
from airflow_provider_browseract.panel import links
from airflow_provider_browseract.panel.client import AccountClient, Steps
from airflow_provider_browseract.panel.kept import Kept, Known, is_within
from airflow_provider_browseract.panel.listing import Runs
from airflow_provider_browseract.spending.budget import ONE_DAY, begin_of, is_final, moment
from airflow_provider_browseract.spending.spend import ListedRun

T = TypeVar("T")

DAYS = 31
"""How many days are read, today included: a whole month, also on its last day."""

OPEN_DAY_INTERVAL = 60.0
"""Seconds after which a day is read again whose runs can still change."""

ASKED_LATELY = 30.0
"""Seconds after the last request for the days during which further ones are read."""

DAY_PAUSE = 0.5
"""Seconds between the reads of two days, of all connections in this process."""

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

    :param closed: they cannot change any more.
    :param truncated: it had more runs, which are not known: there are too many, or they cannot be read.
    :param has_bots: the runs of bots could be read too.
    """

    sums: Mapping[Group, Sums]
    as_of: datetime
    closed: bool
    truncated: bool = False
    has_bots: bool = True

    @classmethod
    def of(cls, day: date, tasks: Iterable[Task], as_of: datetime, dags: Mapping[str, str], **known: bool) -> Day:
        """Sum the tasks that were created on the day. Each counts once, as it is listed last.

        :param dags: the DAG of each run that one has started.
        :param known: further fields.
        """
        sums: dict[Group, Sums] = {}
        runs = list[ListedRun]()
        # A task without creation time belongs to no day.
        for task in {task.id: task for task in tasks if task.created_at}.values():
            run = ListedRun.of(task)
            if run.created_at.date() == day:
                runs.append(run)
                group = source_of(task), dags.get(run.id)
                of_run = Sums(1, run.credit or 0, run.status is TaskStatus.FAILED)
                sums[group] = sums.get(group, Sums()).plus(of_run)
        return cls(sums, as_of, is_final(day, runs, as_of), **known)


class Pace(NamedTuple):
    """Lets the connections of this process take turns, and pauses before each day.

    :param turn: is held by whoever reads a day.
    """

    turn: asyncio.Lock
    sleep: Callable[[float], Awaitable[Any]]


class Days:
    """The last days of one account."""

    def __init__(self, client: AccountClient, pace: Pace) -> None:
        self._client, self._pace = client, pace
        self._days: dict[date, Kept[Day]] = {}
        self._bots_ran = client.kept(self._ask_for_bots, lambda ran: inf if ran else OPEN_DAY_INTERVAL)
        self._asked_at = -inf
        self._loading: asyncio.Task[None] | None = None

    async def get(self, until: float) -> Known[Mapping[date, Day]]:
        """Return the days that are known, after today was read if it is due, and read further ones in the background.

        :param until: return at this moment of the monotonic clock in any case.
        """
        self._asked_at = self._client.clock()
        today = moment(self._asked_at).date()
        wanted = [today - number * ONE_DAY for number in range(DAYS)]
        self._days = {day: self._days.get(day) or self._kept(day) for day in wanted}
        if self._loading is None or self._loading.done():
            self._loading = outlasting(self._load())
        await self._days[today].get(until)
        known = [kept.known for kept in self._days.values()]
        failed = next((each for each in known if each.error is not None), Known())
        days = {day: kept.known.value for day, kept in self._days.items() if kept.known.value is not None}
        as_of = max((day.as_of for day in days.values()), default=None)
        return Known(value=days, as_of=as_of, error=failed.error, remedy=failed.remedy)

    def _kept(self, day: date) -> Kept[Day]:
        return Kept(partial(self._read, day), self._keep, self._client.explain, self._client.clock)

    async def _load(self) -> None:
        while day := self._next():
            await day.get()

    def _next(self) -> Kept[Day] | None:
        """Return the day to read next; None if none is due, nobody has asked lately, or after an error."""
        asked = is_within(ASKED_LATELY, self._asked_at, self._client.clock())
        if not asked or any(each.known.error is not None and not each.is_due for each in self._days.values()):
            return None
        # The newest first. A day that cannot be read does not stop the others.
        due = [each for each in self._days.values() if each.is_due]
        return min(due, key=lambda each: (each.known.error is not None, each.known.value is not None), default=None)

    def _keep(self, day: Day) -> float:
        if not day.has_bots and self._bots_ran.known.error is None:
            return 0.0
        return inf if day.closed else OPEN_DAY_INTERVAL

    async def _read(self, day: date) -> Day:
        as_of, bots_ran = moment(self._client.clock()), await self._bots_ran.get()
        has_bots = bots_ran.error is None
        versions = [ApiVersion.V3, ApiVersion.V2] if has_bots and bots_ran.value else [ApiVersion.V2]
        async with self._pace.turn:
            await self._pace.sleep(DAY_PAUSE)
            tasks, truncated = await self._client.send(_list_day(day, versions))
        conn_id, api_key = self._client.conn_id, self._client.settings.api_key

        def summed() -> Day:
            dags = links.dags_on(day, conn_id, api_key)
            return Day.of(day, tasks, as_of, dags, truncated=truncated, has_bots=has_bots)

        # It reads the database and, for thousands of runs, takes long enough to delay other reads.
        return await asyncio.to_thread(summed)

    def _ask_for_bots(self) -> Steps[bool]:
        """Return whether version 3 lists any run of these days. If not, its days need no requests."""
        page = yield APIS[ApiVersion.V3].list_tasks(created_at_from=begin_of(min(self._days)), limit=1)
        return bool(page.items)


def _list_day(day: date, api_versions: Iterable[ApiVersion]) -> Steps[Runs]:
    """List the runs of a day. Where both versions list a run, that of version 2 is the last one."""
    begins, tasks, truncated = begin_of(day), list[Task](), False
    for api_version in api_versions:
        of_day = {"created_at_from": begins, "created_at_to": begins + ONE_DAY, "limit": PAGE_SIZE}
        listing = yield from list_items(APIS[api_version].list_tasks(**of_day), MAX_REQUESTS)
        tasks += listing.items
        truncated = truncated or listing.incomplete
    return Runs(tuple(tasks), truncated)
