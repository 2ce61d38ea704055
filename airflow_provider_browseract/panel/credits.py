"""What the page about credits shows: the sums of each day (UTC), by workflow or by DAG."""

from __future__ import annotations

from calendar import monthrange
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import NamedTuple

from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.panel.days import Group, Sums
from airflow_provider_browseract.panel.html import foreign_text
from airflow_provider_browseract.panel.rows import Look
from airflow_provider_browseract.spending.budget import begin_of

COLORS = 8
"""Colors of the plot. The last one is for all other workflows or DAGs."""

GROUPS_SHOWN = 200
"""Workflows or DAGs in the table."""

DAYS_SHOWN = 30
"""Days on the page."""

FEWEST_DAYS = 3
"""Days of a month from which on its credits are projected."""

UNKNOWN_SOURCE, UNKNOWN_DAG, UNREADABLE_DAGS = "no workflow given", "no DAG known", "DAGs that you may not read"


class BudgetShare(NamedTuple):
    """The credits of a day or month, against the budget.

    :param used: credits of the runs that were created in the period.
    :param budget: None if the connection has no budget for it.
    :param projected: the credits of the whole period if it continues like this; None if it has just begun.
    """

    used: int
    budget: int | None = None
    projected: int | None = None

    @property
    def percent(self) -> int:
        """How much of the budget is used, at most 100; 0 without a budget."""
        return min(100, 100 * self.used // self.budget) if self.budget else 0

    @property
    def is_exceeded(self) -> bool:
        """Whether more than the budget is used."""
        return self.budget is not None and self.used > self.budget


class Bar(NamedTuple):
    """A day in the plot, with credits by the names of :attr:`CreditsPage.groups`, from the bottom up."""

    day: date
    parts: tuple[int, ...]

    @property
    def total(self) -> int:
        """The credits of the day."""
        return sum(self.parts)


class CreditsRow(NamedTuple):
    """The runs of a workflow or DAG within the days that are shown.

    :param color: number of its color in the plot, from 0; the last color is for all others.
    :param dag_id: the DAG, if its runs have a page.
    """

    name: str
    runs: int
    credits: int
    failed: int
    color: int
    dag_id: str | None

    @property
    def mean(self) -> float:
        """Credits of a run on average."""
        return self.credits / self.runs if self.runs else 0.0


@dataclass(frozen=True)
class CreditsPage:
    """The credits of the last days.

    :param groups: names of the parts of each bar, from the bottom up.
    :param days_loaded: how many of the days were read.
    :param month: None as long as one of the days of this month was not read.
    """

    by_dag: bool
    groups: tuple[str, ...]
    bars: tuple[Bar, ...]
    days_loaded: int
    today: BudgetShare
    month: BudgetShare | None
    rows: tuple[CreditsRow, ...]
    rows_left_out: int = 0

    @property
    def total(self) -> int:
        """The credits of all days."""
        return sum(bar.total for bar in self.bars)


def credits_on(tasks: Iterable[Task], now: datetime) -> int:
    """Return the credits of the runs that were created today (UTC)."""
    begin = begin_of(now.astimezone(timezone.utc).date())
    return sum(max(0, task.credit or 0) for task in tasks if task.created_at and task.created_at >= begin)


def credits_page(look: Look, days: Mapping[date, Mapping[Group, Sums]], by_dag: bool) -> CreditsPage:
    """Return the credits of the last :data:`DAYS_SHOWN` days.

    :param days: the sums of each day that was read.
    """
    now = look.now.astimezone(timezone.utc)
    shown = [now.date() - timedelta(days=back) for back in range(DAYS_SHOWN - 1, -1, -1)]
    sums: dict[str, Sums] = {}
    parts: dict[date, Counter[str]] = {day: Counter() for day in shown}
    dags: dict[str, str] = {}
    for day in days.keys() & parts.keys():
        for group, of_group in days[day].items():
            name, dag_id = _name_of(look, group, by_dag)
            sums[name] = sums.get(name, Sums()).plus(of_group)
            parts[day][name] += of_group.credits
            if dag_id is not None:
                dags[name] = dag_id
    largest = sorted(sums.items(), key=lambda each: (-each[1].credits, each[0]))
    names = [name for name, _ in largest]
    own, others = (names, []) if len(names) < COLORS else (names[: COLORS - 1], names[COLORS - 1 :])
    bars = []
    for day, found in parts.items():
        rest = [sum(found[name] for name in others)] if others else []
        bars.append(Bar(day, (*(found[name] for name in own), *rest)))
    budget = look.account.budget
    rows = [
        CreditsRow(name, *of_name, min(place, COLORS - 1), dags.get(name))
        for place, (name, of_name) in enumerate(largest[:GROUPS_SHOWN])
    ]
    return CreditsPage(
        by_dag=by_dag,
        groups=(*own, "all others") if others else tuple(own),
        bars=tuple(bars),
        days_loaded=len(days.keys() & parts.keys()),
        today=BudgetShare(bars[-1].total, budget.daily_credits if budget else None),
        month=_this_month(days, now, budget.monthly_credits if budget else None),
        rows=tuple(rows),
        rows_left_out=len(largest) - len(rows),
    )


def _name_of(look: Look, group: Group, by_dag: bool) -> tuple[str, str | None]:
    """Return what a group is called, and its DAG if the page is by DAG and the viewer may see its runs."""
    source, dag_id = group
    if not by_dag:
        return look.source_name(source) or UNKNOWN_SOURCE, None
    if dag_id is None:
        return UNKNOWN_DAG, None
    if not look.viewing.access.reads_runs(dag_id):
        return UNREADABLE_DAGS, None
    return foreign_text(dag_id), dag_id


def _this_month(days: Mapping[date, Mapping[Group, Sums]], now: datetime, budget: int | None) -> BudgetShare | None:
    """Return the credits of this month; None as long as one of its days was not read."""
    month = [now.date().replace(day=number) for number in range(1, now.day + 1)]
    if not all(day in days for day in month):
        return None
    used = sum(each.credits for day in month for each in days[day].values())
    passed = (now - begin_of(month[0])) / timedelta(days=1)
    length = monthrange(now.year, now.month)[1]
    return BudgetShare(used, budget, round(used * length / passed) if passed >= FEWEST_DAYS else None)
