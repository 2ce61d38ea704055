"""What the page about credits shows: the sums of each day (UTC), by workflow or by DAG."""

from __future__ import annotations

from calendar import monthrange
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.panel.days import Group, Sums
from airflow_provider_browseract.panel.html import foreign_text
from airflow_provider_browseract.panel.plot import stacked_bars
from airflow_provider_browseract.panel.rows import Look
from airflow_provider_browseract.spending.budget import begin_of

COLORS = 8
"""Colors of the plot. With more workflows or DAGs, the last one is for all others."""

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


@dataclass
class CreditsRow:
    """The runs of a workflow or DAG within the days that are shown.

    :param dag_id: the DAG, if its runs have a page.
    :param credits_on: its credits by day.
    """

    name: str
    dag_id: str | None
    sums: Sums
    credits_on: Counter[date]


def credits_on(tasks: Iterable[Task], now: datetime) -> int:
    """Return the credits of the runs that were created today (UTC)."""
    begin = begin_of(now.astimezone(timezone.utc).date())
    return sum(max(0, task.credit or 0) for task in tasks if task.created_at and task.created_at >= begin)


def credits_content(look: Look, days: Mapping[date, Mapping[Group, Sums]], by_dag: bool) -> dict[str, Any]:
    """Return what the page shows of the last :data:`DAYS_SHOWN` days. It has a plot when all of them were read.

    :param days: the sums of each day that was read.
    """
    now, budget = look.now.astimezone(timezone.utc), look.account.budget
    shown = [now.date() - timedelta(days=back) for back in range(DAYS_SHOWN - 1, -1, -1)]
    found: dict[str, CreditsRow] = {}
    for day in shown:
        for group, of_group in days.get(day, {}).items():
            name, dag_id = _name_of(look, group, by_dag)
            row = found.setdefault(name, CreditsRow(name, dag_id, Sums(), Counter()))
            row.sums = row.sums.plus(of_group)
            row.credits_on[day] += of_group.credits
    rows = sorted(found.values(), key=lambda row: (-row.sums.credits, row.name))
    parts = [(row.name, row.credits_on) for row in rows]
    if len(parts) > COLORS:
        parts[COLORS - 1 :] = [("all others", sum((row.credits_on for row in rows[COLORS - 1 :]), Counter()))]
    total, read = sum(row.sums.credits for row in rows), len(days.keys() & {*shown})
    daily = budget.daily_credits if budget else None
    return {
        "by_dag": by_dag,
        "colors": COLORS,
        "days": DAYS_SHOWN,
        "read": read,
        "total": total,
        "today": BudgetShare(sum(row.credits_on[shown[-1]] for row in rows), daily),
        "month": _this_month(days, now, budget.monthly_credits if budget else None),
        "plot": stacked_bars(shown, parts, daily) if total and read == DAYS_SHOWN else None,
        "rows": rows[:GROUPS_SHOWN],
        "rows_left_out": len(rows) - GROUPS_SHOWN,
    }


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
