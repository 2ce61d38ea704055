"""Sums of past days for the page about credits. Each is made once, because a day can have thousands of runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import date
from typing import NamedTuple, TypeAlias

from airflow_provider_browseract.panel import links as airflow
from airflow_provider_browseract.panel.days import DAYS, Day, DayRun
from airflow_provider_browseract.spending.budget import ONE_DAY

NEWEST_DAYS_AGE = 60.0
"""Seconds for which the DAGs of today's and yesterday's runs are kept. A task instance may push the XCom that names its
run on the next day."""


class Sums(NamedTuple):
    """How many runs there were, what they cost, and how many of them failed."""

    runs: int = 0
    credits: int = 0
    failed: int = 0

    def plus(self, other: Sums) -> Sums:
        """Return both together."""
        return Sums(self.runs + other.runs, self.credits + other.credits, self.failed + other.failed)


Group: TypeAlias = "tuple[str | None, str | None]"
"""What was run, and the DAG that has started it; None for what is not known."""


def sums_of(runs: Iterable[DayRun], dags: Mapping[str, str]) -> dict[Group, Sums]:
    """Return the sums of runs.

    :param dags: the DAG of each run that one has started.
    """
    sums: dict[Group, Sums] = {}
    for run in runs:
        group = run.source, dags.get(run.browseract_task_id)
        sums[group] = sums.get(group, Sums()).plus(Sums(1, run.credit or 0, run.failed))
    return sums


class _Links(NamedTuple):
    dags: Mapping[str, str]
    read_at: float


NO_LINKS = _Links({}, float("-inf"))


class SumsOfDays:
    """The sums of the days that were read, of all connections. They are made in any number of threads."""

    def __init__(self) -> None:
        # Other threads replace the whole dicts.
        self._links: dict[date, _Links] = {}
        self._sums: dict[tuple[str, date], tuple[Day, float, dict[Group, Sums]]] = {}

    def of(self, conn_id: str, days: Mapping[date, Day], today: date) -> dict[date, dict[Group, Sums]]:
        """Return the sums of some days of a connection."""
        oldest, now = today - DAYS * ONE_DAY, time.monotonic()
        links = {day: read for day, read in self._links.items() if day > oldest}
        made = {of: sums for of, sums in self._sums.items() if of[1] > oldest}
        for day, read in days.items():
            known = links.get(day, NO_LINKS)
            if known is NO_LINKS or (day >= today - ONE_DAY and now - known.read_at >= NEWEST_DAYS_AGE):
                links[day] = known = _Links(airflow.links_on(day), now)
            of_day, read_at = made.get((conn_id, day), (None, None))[:2]
            if of_day is not read or read_at != known.read_at:
                made[conn_id, day] = (read, known.read_at, sums_of(read.runs, known.dags))
        self._links, self._sums = links, made
        return {day: made[conn_id, day][2] for day in days}
