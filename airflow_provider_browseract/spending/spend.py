"""What runs cost: the credits in the lists of tasks, and the forecast for the next run of a workflow or bot.

Each version of the API lists the runs of the whole account, whoever started them. It is not documented whether a list
also has the runs of the other version, so runs are counted by their ids. Days are in UTC, and ``created_at`` decides to
which day a run belongs.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import CREDITS_PER_STEP, ApiVersion, Page, Task, TaskStatus
from airflow_provider_browseract.api.pages import Pages
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.exceptions import UnexpectedResponseError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import number_of
from airflow_provider_browseract.runs.request import Source

MAX_REQUESTS = 80
"""How many list requests one check of a budget sends at most. If it needs more, the credits count as unknown."""

MEAN_OF = 20
"""The forecast is the mean of at most this many runs of the workflow or bot."""

FEWEST_FOR_MEAN = 3
"""With fewer listed runs of the workflow or bot, the forecast reads older ones."""

OLDER_RUNS_AGE = timedelta(days=7)
"""How old these runs can be."""

OLDER_RUNS_LIMIT = 100
"""How many of these runs are read at most."""


class ListedRun(NamedTuple):
    """A run in a list of tasks.

    :param source_id: the workflow or bot; None if BrowserAct does not report it.
    :param credit: the credits that BrowserAct reports; None if there are none yet.
    :param api_version: the version of the API that lists the run.
    """

    id: str
    source_id: str | None
    created_at: datetime
    status: TaskStatus
    credit: int | None
    api_version: ApiVersion

    @classmethod
    def of(cls, task: Task) -> ListedRun:
        """Return a listed task without its inputs, which can be large.

        :raises UnexpectedResponseError: the task is listed without its creation time.
        """
        if task.created_at is None:
            raise UnexpectedResponseError(f"BrowserAct task {task.id} is listed without its creation time")
        credit = task.credit if task.credit is not None and task.credit >= 0 else None
        created_at = task.created_at.astimezone(timezone.utc)
        return cls(task.id, task.source_id, created_at, task.status, credit, task.api_version)

    @property
    def order(self) -> tuple[datetime, str]:
        """The place of the run in the order of all runs, which is the same in all workers."""
        return self.created_at, self.id


class SpendRow(NamedTuple):
    """What the runs of one workflow or bot that were created on one day (UTC) cost.

    :param source_id: the workflow or bot; None if BrowserAct does not report it, as for the template of a bot.
    :param failed: how many of the runs failed.
    :param active: how many of the runs have not ended yet. Their credits can be incomplete.
    """

    day: date
    source_id: str | None
    runs: int
    credits: int
    failed: int
    active: int


@dataclass(frozen=True)
class Spend:
    """What runs of an account cost.

    :param rows: one for each workflow or bot and day, sorted by day.
    """

    rows: tuple[SpendRow, ...]

    @classmethod
    def of(cls, runs: Iterable[ListedRun]) -> Spend:
        """Add up the credits of runs. A run that is listed twice counts once."""
        sums: dict[tuple[date, str], SpendRow] = {}
        for run in unite(runs):
            day = run.created_at.date()
            row = sums.get((day, run.source_id or ""), SpendRow(day, run.source_id, 0, 0, 0, 0))
            sums[day, run.source_id or ""] = row._replace(
                runs=row.runs + 1,
                credits=row.credits + (run.credit or 0),
                failed=row.failed + (run.status is TaskStatus.FAILED),
                active=row.active + (not run.status.ended),
            )
        return cls(tuple(sums[key] for key in sorted(sums)))

    @property
    def credits(self) -> int:
        """The credits of all runs."""
        return sum(row.credits for row in self.rows)


class Forecast(NamedTuple):
    """The credits that a run is expected to use.

    :param runs: how many runs of its workflow or bot the credits are the mean of; 0 if there are none.
    """

    credits: int
    runs: int

    def basis(self, source: Source) -> str:
        """Return where the number comes from, in parentheses."""
        if self.runs:
            return f"(mean of {number_of(self.runs, 'run')} of {source})"
        if source.is_template:
            return "(assumed, because lists do not name the template of a run)"
        return f"(assumed, because no ended run of {source} was found)"


UNKNOWN = Forecast(CREDITS_PER_STEP, 0)
"""The forecast for a run about which nothing is known: the cost of one step."""


@dataclass
class RequestLimit:
    """The list requests that one check may still send."""

    remaining: int = MAX_REQUESTS

    def use_one(self) -> None:
        """Count a request.

        :raises UnexpectedResponseError: the check may send no further request.
        """
        if self.remaining == 0:
            raise UnexpectedResponseError(f"counting them takes more than {MAX_REQUESTS} requests")
        self.remaining -= 1


def unite(runs: Iterable[ListedRun]) -> list[ListedRun]:
    """Return each run once, with its credits if any list has them."""
    found: dict[str, ListedRun] = {}
    for run in runs:
        first = found.setdefault(run.id, run)
        if first.credit is None:
            found[run.id] = first._replace(credit=run.credit)
    return [*found.values()]


def list_runs(
    requests: RequestLimit, since: datetime, until: datetime | None = None
) -> Generator[Call[Any], Any, list[ListedRun]]:
    """List the runs that were created at or after ``since`` and before ``until``.

    :raises BrowserActError: a list cannot be read, is too long, or has an item that cannot be counted.
    """
    found: list[ListedRun] = []
    for api in APIS.values():
        known = {run.id for run in found}
        # A minute more is listed, in case BrowserAct rounds times. The creation times then decide.
        call = api.list_tasks(created_at_from=since - timedelta(seconds=timings.CLOCK_SKEW), created_at_to=until)
        pages: Pages[Task] = Pages(call)
        while pages.call is not None:
            requests.use_one()
            page: Page[Task] = yield pages.call
            found += map(ListedRun.of, pages.take(page))
            if page.total_count == len(known) and known.issuperset(task.id for task in page.items):
                # Both versions list all runs, and the pages of version 3 are small.
                break
    return [run for run in unite(found) if since <= run.created_at and (until is None or run.created_at < until)]


def forecast_for(
    requests: RequestLimit, source: Source, runs: Sequence[ListedRun], cap: int | None, now: datetime
) -> Generator[Call[Any], Any, Forecast]:
    """Return what a run is expected to use: the mean of the newest ended runs of its workflow or bot.

    :raises BrowserActError: older runs cannot be read.
    """
    # Lists do not name the template of a run.
    if not source.is_template:
        found = mean_of(source.id, runs)
        if found is None or found.runs < FEWEST_FOR_MEAN:
            call = APIS[source.api_version].list_tasks(
                source_id=source.id, created_at_from=now - OLDER_RUNS_AGE, limit=OLDER_RUNS_LIMIT
            )
            pages: Pages[Task] = Pages(call)
            tasks: list[Task] = []
            while pages.call is not None and not tasks:
                requests.use_one()
                page: Page[Task] = yield pages.call
                tasks = pages.take(page)
            listed = []
            for task in tasks:
                with suppress(UnexpectedResponseError):
                    listed.append(ListedRun.of(task)._replace(source_id=source.id))
            found = mean_of(source.id, listed) or found
        if found is not None:
            return found
    return UNKNOWN if cap is None else Forecast(cap, 0)


def mean_of(source_id: str | None, runs: Iterable[ListedRun]) -> Forecast | None:
    """Return the mean of the newest ended runs of a workflow or bot; None if there are none.

    Runs without credits do not count, and neither do canceled ones, because most of them were stopped early.
    """
    known = [run for run in runs if run.source_id == source_id and run.status.ended_by_itself and run.credit]
    newest = sorted(known, key=lambda run: run.order, reverse=True)[:MEAN_OF]
    if source_id is None or not newest:
        return None
    return Forecast(math.ceil(sum(run.credit or 0 for run in newest) / len(newest)), len(newest))
