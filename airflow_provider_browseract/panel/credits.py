"""Make the page about credits from the sums of days. Nothing here reads anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta, timezone
from urllib.parse import urlencode

from airflow_provider_browseract.panel.building import Knowledge, source_name
from airflow_provider_browseract.panel.days import Group, Sums
from airflow_provider_browseract.panel.views import (
    COLORS,
    Bar,
    BudgetShare,
    Choice,
    CreditsPage,
    CreditsRow,
    foreign_text,
)

GROUPS_SHOWN = 200
"""Workflows or DAGs in the table of the page about credits."""

DAYS_SHOWN = 30
"""Days on the page about credits."""


def credits_page(known: Knowledge, days: Mapping[date, Mapping[Group, Sums]], by_dag: bool) -> CreditsPage:
    """Return the credits of the last :data:`DAYS_SHOWN` days.

    :param days: the sums of each day that was read.
    """
    last = known.now.astimezone(timezone.utc).date()
    shown = [last - timedelta(days=back) for back in range(DAYS_SHOWN - 1, -1, -1)]
    rows, parts = _by_name(known, {day: days[day] for day in shown if day in days}, by_dag)
    names = [row.name for row in rows]
    others = names[COLORS - 1 :] if len(names) >= COLORS else []
    groups = names[: COLORS - 1] if others else names
    bars = []
    for day in shown:
        found = parts.get(day, Counter())
        amounts = [found[name] for name in groups]
        if others:
            amounts.append(sum(found[name] for name in others))
        bars.append(Bar(day, tuple(amounts), day in days))
    budget = known.account.budget
    conn = {"conn": known.account.conn_id}
    return CreditsPage(
        by=(
            Choice("Workflow or bot", urlencode({**conn, "by": "workflow"}), not by_dag),
            Choice("DAG", urlencode({**conn, "by": "dag"}), by_dag),
        ),
        groups=(*groups, "all others") if others else tuple(groups),
        bars=tuple(bars),
        today=BudgetShare(parts.get(last, Counter()).total(), budget.daily_credits if budget else None),
        month=_this_month(days, last, budget.monthly_credits if budget else None),
        rows=tuple(rows[:GROUPS_SHOWN]),
        rows_left_out=max(0, len(rows) - GROUPS_SHOWN),
    )


def _by_name(
    known: Knowledge, days: Mapping[date, Mapping[Group, Sums]], by_dag: bool
) -> tuple[list[CreditsRow], dict[date, Counter[str]]]:
    """Return the sums of each workflow or DAG, the largest first, and the credits of each by day."""
    names: dict[Group, str] = {}
    sums: dict[str, Sums] = {}
    without_dag: Counter[str] = Counter()
    parts: dict[date, Counter[str]] = {}
    for day, groups in days.items():
        parts[day] = Counter()
        for group, of_group in groups.items():
            if group not in names:
                names[group] = _name_of(known, group, by_dag)
            name = names[group]
            sums[name] = sums.get(name, Sums()).plus(of_group)
            parts[day][name] += of_group.credits
            without_dag[name] += of_group.runs if group[1] is None else 0
    largest = sorted(sums.items(), key=lambda each: (-each[1].credits, each[0]))
    rows = [
        CreditsRow(name, *of_name, without_dag[name], min(place, COLORS - 1))
        for place, (name, of_name) in enumerate(largest)
    ]
    return rows, parts


def _name_of(known: Knowledge, group: Group, by_dag: bool) -> str:
    source, dag_id = group
    if not by_dag:
        return source_name(known, source) or "no workflow given"
    if dag_id is None:
        return "no DAG known"
    return foreign_text(dag_id) if known.viewing.access.reads_runs(dag_id) else "DAGs that you may not read"


def _this_month(days: Mapping[date, Mapping[Group, Sums]], last: date, budget: int | None) -> BudgetShare | None:
    """Return the credits of this month; None as long as one of its days was not read."""
    month = [last.replace(day=number) for number in range(1, last.day + 1)]
    if not all(day in days for day in month):
        return None
    return BudgetShare(sum(each.credits for day in month for each in days[day].values()), budget)
