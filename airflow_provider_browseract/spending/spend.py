"""What runs cost: the runs in BrowserAct's lists of tasks, their credits, and the forecast for a run.

Each version of the API lists the runs of the whole account, whoever started them. It is not documented whether a list
also has the runs of the other version, so runs are counted by their ids. Days are in UTC, and ``created_at`` decides to
which day a run belongs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import NamedTuple, TypeAlias

from airflow_provider_browseract.api.models import CREDITS_PER_STEP, ApiVersion, Page, Task, TaskStatus
from airflow_provider_browseract.api.pages import Pages
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.exceptions import UnexpectedResponseError
from airflow_provider_browseract.loops import Sender
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import what_ran
from airflow_provider_browseract.runs.request import Source

MEAN_OF = 20
"""The forecast is the mean of at most this many runs of the workflow or bot."""

FEWEST_FOR_MEAN = 3
"""With fewer listed runs of the workflow or bot, one more request reads older ones."""

OLDER_RUNS_LIMIT = 100
"""How many of these runs are read at most."""

OLDER_RUNS_AGE = timedelta(days=35)
"""How old these runs can be. Without a limit, a list that begins with its oldest runs would have only those."""

Sources: TypeAlias = "Mapping[ApiVersion, str | None]"
"""The versions of the API whose runs are listed, each with its workflow or bot; None for all of them."""

OF_ALL: Sources = dict.fromkeys(APIS)

MEAN, CAP, STEP = "mean of earlier runs", "its max_credits", "one step, as no earlier run is known"
"""Where a forecast comes from."""


class ListedRun(NamedTuple):
    """A run in a list of tasks, without its inputs and output, which can be large.

    :param source_id: the workflow or bot; None if BrowserAct does not report it.
    :param credit: the credits that BrowserAct reports; None if there are none yet.
    :param api_version: the version of the API that lists the run.
    :param name: the run for a person who looks for it.
    """

    id: str
    source_id: str | None
    created_at: datetime
    status: TaskStatus
    credit: int | None
    api_version: ApiVersion
    name: str

    @classmethod
    def of(cls, task: Task) -> ListedRun:
        """Return a listed task.

        :raises UnexpectedResponseError: the task is listed without its creation time.
        """
        if task.created_at is None:
            raise UnexpectedResponseError(f"BrowserAct task {task.id} is listed without its creation time")
        created_at = task.created_at.astimezone(timezone.utc)
        credit = task.credit if task.credit is not None and task.credit >= 0 else None
        name = f"BrowserAct task {task.id}" + (f" of {what_ran(task)} {task.source_id}" if task.source_id else "")
        return cls(task.id, task.source_id, created_at, task.status, credit, task.api_version, name)

    @property
    def is_settled(self) -> bool:
        """Whether its credits are known and cannot change. BrowserAct may report them after the end of the run."""
        return self.status.ended and self.credit is not None


def list_runs(client: Sender, since: datetime, until: datetime | None = None, of: Sources = OF_ALL) -> list[ListedRun]:
    """List the runs that were created at or after ``since`` and before ``until``, each once.

    :raises BrowserActError: a list cannot be read, or has an item that cannot be counted.
    """
    found: dict[str, ListedRun] = {}
    for version, source_id in of.items():
        # A minute more is listed, in case BrowserAct rounds times. The creation times then decide.
        begin = since - timedelta(seconds=timings.CLOCK_SKEW)
        call = APIS[version].list_tasks(source_id=source_id, created_at_from=begin, created_at_to=until)
        pages: Pages[Task] = Pages(call)
        known = frozenset(found)
        while pages.call is not None:
            page: Page[Task] = client.send(pages.call)
            for run in map(ListedRun.of, pages.take(page)):
                if (first := found.setdefault(run.id, run)).credit is None:
                    found[run.id] = first._replace(credit=run.credit)
            if page.total_count == len(known) and known.issuperset(task.id for task in page.items):
                # Both versions list all runs, and the pages of version 3 are small.
                break
    return [run for run in found.values() if since <= run.created_at and (until is None or run.created_at < until)]


def with_older_runs(client: Sender, source: Source, runs: list[ListedRun], now: datetime) -> list[ListedRun]:
    """Return the runs, and older ones of a workflow or bot if there are too few for a mean.

    :raises BrowserActError: the older runs cannot be read.
    """
    if source.is_template or len(_credits_for_mean(source.id, runs)) >= FEWEST_FOR_MEAN:
        return runs
    since = now - OLDER_RUNS_AGE
    call = APIS[source.api_version].list_tasks(source_id=source.id, created_at_from=since, limit=OLDER_RUNS_LIMIT)
    page: Page[Task] = client.send(call)
    older = [ListedRun.of(task) for task in page.items if task.created_at is not None]
    return list({run.id: run for run in [*older, *runs]}.values())


class Forecast(NamedTuple):
    """The credits that a run is expected to use, and where the number comes from."""

    credits: int
    basis: str

    @classmethod
    def of(cls, source_id: str | None, runs: Iterable[ListedRun], cap: int | None = None) -> Forecast:
        """Return the mean of the newest runs of a workflow or bot; without any, the cap or the cost of a step.

        :param source_id: None for a template, which lists do not name.
        """
        if credits := _credits_for_mean(source_id, runs):
            return cls(math.ceil(sum(credits) / len(credits)), MEAN)
        return cls(CREDITS_PER_STEP, STEP) if cap is None else cls(cap, CAP)


def _credits_for_mean(source_id: str | None, runs: Iterable[ListedRun]) -> list[int]:
    """Return the credits of the newest runs of a workflow or bot.

    Runs without credits do not count, and neither do canceled ones, because most of them were stopped early.
    """
    of_source = [run for run in runs if source_id is not None and run.source_id == source_id]
    known = [run for run in of_source if run.status.ended_by_itself and run.credit]
    newest = sorted(known, key=lambda run: (run.created_at, run.id), reverse=True)[:MEAN_OF]
    return [run.credit or 0 for run in newest]


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
        """Add up the credits of runs, of which each is listed once."""
        sums: dict[tuple[date, str], list[int]] = {}
        for run in runs:
            key = run.created_at.date(), run.source_id or ""
            more = (1, run.credit or 0, run.status is TaskStatus.FAILED, not run.status.ended)
            sums[key] = [before + each for before, each in zip(sums.get(key, [0] * 4), more, strict=True)]
        return cls(tuple(SpendRow(day, source_id or None, *sums[day, source_id]) for day, source_id in sorted(sums)))

    @property
    def credits(self) -> int:
        """The credits of all runs."""
        return sum(row.credits for row in self.rows)
