"""What runs cost: the credits in the list of tasks, and the forecast for the next run of a workflow.

The list has the runs of the whole account, whoever started them. Days are in UTC, and ``created_at`` decides to which
day a run belongs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

from airflow_provider_browseract.api.errors import UnexpectedResponseError
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import ApiVersion, Page, Task, TaskStatus
from airflow_provider_browseract.api.pages import Pages
from airflow_provider_browseract.api.settings import CREDITS_PER_STEP
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.outputs import number_of
from airflow_provider_browseract.runs.request import Source

MAX_REQUESTS = 40
"""How many list requests one check of a budget sends at most. If it needs more, the credits count as unknown."""

MEAN_OF = 20
"""The forecast is the mean of at most this many runs of the workflow."""

FEWEST_FOR_MEAN = 3
"""With fewer listed runs of the workflow, the forecast reads older ones."""

OLDER_RUNS_AGE = timedelta(days=7)
"""How old these runs can be."""

OLDER_RUNS_LIMIT = 100
"""How many of these runs are read at most."""


class ListedRun(NamedTuple):
    """A run in the list of tasks.

    :param credit: the credits that BrowserAct reports; None if there are none yet.
    """

    id: str
    workflow_id: str | None
    created_at: datetime
    status: TaskStatus
    credit: int | None

    @classmethod
    def of(cls, task: Task) -> ListedRun:
        """Return a listed task without its inputs, which can be large.

        :raises UnexpectedResponseError: the task is listed without its creation time.
        """
        if task.created_at is None:
            raise UnexpectedResponseError(f"BrowserAct task {task.id} is listed without its creation time")
        credit = task.credit if task.credit is not None and task.credit >= 0 else None
        return cls(task.id, task.workflow_id, task.created_at.astimezone(timezone.utc), task.status, credit)

    @property
    def order(self) -> tuple[datetime, str]:
        """The place of the run in the order of all runs, which is the same in all workers."""
        return self.created_at, self.id


class SpendRow(NamedTuple):
    """What the runs of one workflow that were created on one day (UTC) cost.

    :param workflow_id: the workflow; None if BrowserAct does not report it.
    :param failed: how many of the runs failed.
    :param active: how many of the runs have not ended yet. Their credits can be incomplete.
    """

    day: date
    workflow_id: str | None
    runs: int
    credits: int
    failed: int
    active: int


@dataclass(frozen=True)
class Spend:
    """What runs of an account cost.

    :param rows: one for each workflow and day, sorted by day.
    """

    rows: tuple[SpendRow, ...]

    @classmethod
    def of(cls, runs: Iterable[ListedRun]) -> Spend:
        """Add up the credits of runs."""
        sums: dict[tuple[date, str], SpendRow] = {}
        for run in runs:
            day = run.created_at.date()
            row = sums.get((day, run.workflow_id or ""), SpendRow(day, run.workflow_id, 0, 0, 0, 0))
            sums[day, run.workflow_id or ""] = row._replace(
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

    def by_workflow(self) -> dict[str | None, int]:
        """Return the credits of each workflow, the largest sum first."""
        return dict(self._by(lambda row: row.workflow_id).most_common())

    def by_day(self) -> dict[date, int]:
        """Return the credits of each day (UTC) that has runs."""
        return dict(sorted(self._by(lambda row: row.day).items()))

    def _by(self, group: Callable[[SpendRow], Any]) -> Counter[Any]:
        sums: Counter[Any] = Counter()
        for row in self.rows:
            sums[group(row)] += row.credits
        return sums


class Forecast(NamedTuple):
    """The credits that a run is expected to use.

    :param runs: how many runs of its workflow the credits are the mean of; 0 if there are none.
    """

    credits: int
    runs: int

    def basis(self, source: Source) -> str:
        """Return where the number comes from, in parentheses."""
        if self.runs:
            return f"(mean of {number_of(self.runs, 'run')} of {source})"
        if source.is_template:
            return "(unknown, because lists do not name the template of a run)"
        return f"(unknown, because no ended run of {source} was found)"


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


def list_runs(
    requests: RequestLimit, since: datetime, until: datetime | None = None
) -> Generator[Call[Any], Any, list[ListedRun]]:
    """List the runs that were created at or after ``since`` and before ``until``.

    :raises BrowserActError: the list cannot be read, is too long, or has an item that cannot be counted.
    """
    found: list[ListedRun] = []
    for api in (APIS[ApiVersion.V2],):
        # A minute more is listed, in case BrowserAct rounds times. The creation times then decide.
        call = api.list_tasks(created_at_from=since - timedelta(seconds=timings.CLOCK_SKEW), created_at_to=until)
        pages = Pages(call)
        while pages.call is not None:
            requests.use_one()
            with pages.dividing():
                page: Page[Task] = yield pages.call
                found += map(ListedRun.of, pages.take(page))
        if pages.skipped:
            raise UnexpectedResponseError(f"an item in the list of tasks cannot be read ({pages.skipped[0]})")
    return [run for run in found if since <= run.created_at and (until is None or run.created_at < until)]


def forecast_for(
    requests: RequestLimit, source: Source, runs: Sequence[ListedRun], cap: int | None, now: datetime
) -> Generator[Call[Any], Any, Forecast]:
    """Return what a run is expected to use: the mean of the newest ended runs of its workflow.

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
                with pages.dividing():
                    page: Page[Task] = yield pages.call
                    tasks = pages.take(page)
            listed = []
            for task in tasks:
                with suppress(UnexpectedResponseError):
                    listed.append(ListedRun.of(replace(task, workflow_id=source.id)))
            found = mean_of(source.id, listed) or found
        if found is not None:
            return found
    return UNKNOWN if cap is None else Forecast(cap, 0)


def mean_of(workflow_id: str | None, runs: Iterable[ListedRun]) -> Forecast | None:
    """Return the mean of the newest ended runs of a workflow; None if there are none.

    Runs without credits do not count, and neither do canceled ones, because most of them were stopped early.
    """
    ended = (TaskStatus.FINISHED, TaskStatus.FAILED)
    known = [run for run in runs if run.workflow_id == workflow_id and run.status in ended and run.credit]
    newest = sorted(known, key=lambda run: run.order, reverse=True)[:MEAN_OF]
    if workflow_id is None or not newest:
        return None
    return Forecast(math.ceil(sum(run.credit or 0 for run in newest) / len(newest)), len(newest))
