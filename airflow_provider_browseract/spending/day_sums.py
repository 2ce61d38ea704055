"""Sums of credits of past days, in an Airflow Variable that all workers can read and write.

With them, a check of a monthly budget does not list the whole month. If the Variable cannot be read or written, the
days are counted again. This sends more requests to BrowserAct, but never changes a result. Two workers that write at
the same time write the same sums.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from airflow.sdk import Variable

from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.loops import Sender
from airflow_provider_browseract.runs.log import Log
from airflow_provider_browseract.runs.stored import Count, Text, from_json, to_json
from airflow_provider_browseract.spending.budget import ONE_DAY, Budget, begin_of, is_final
from airflow_provider_browseract.spending.spend import ListedRun, list_runs

DAYS_KEPT = 62
"""How many sums are kept: those of this month and the last one."""


@dataclass(frozen=True)
class DaySums:
    """What the Variable has. The sums belong to one API key."""

    key_digest: Text
    days: dict[date, Count]


def read_day_sums(budget: Budget, key_digest: str, today: date, log: Log) -> dict[date, int]:
    """Return the stored sums of past days; none if they belong to another API key, or if the budget does not need them.

    :param key_digest: digest of the API key of the connection.
    """
    if budget.monthly_credits is not None:
        with tolerate_errors(log.warning, "The stored sums of credits could not be read and are counted again: %s"):
            stored = Variable.get(_key_of(budget), default=None)
            if stored is not None and (read := from_json(DaySums, json.loads(stored))).key_digest == key_digest:
                # Someone may have edited it. The sum of a later day would count after that day.
                return {day: credits for day, credits in read.days.items() if day < today}
    return {}


def write_day_sums(budget: Budget, key_digest: str, sums: Mapping[date, int], log: Log) -> None:
    """Store sums by day. They replace the stored ones."""
    stored = DaySums(key_digest, dict(sorted(sums.items())[-DAYS_KEPT:]))
    with tolerate_errors(log.warning, "The sums of credits could not be stored: %s"):
        Variable.set(_key_of(budget), json.dumps(to_json(stored)), description="Credits of the account by day (UTC)")


def list_open_days(client: Sender, budget: Budget, sums: dict[date, int], now: datetime) -> list[ListedRun]:
    """List the runs of all days of a budget whose sums are not known, and add the sums that cannot change any more.

    The days are counted one after the other. If this fails, ``sums`` has those that were counted before.

    :param sums: the known sums by day.
    :raises BrowserActError: the runs of a day cannot be counted.
    """
    today, begins = now.date(), min(period.begins for period in budget.periods(now)).date()
    past = [begins + number * ONE_DAY for number in range((today - begins).days)]
    days = [day for day in past if day not in sums]
    if today - ONE_DAY not in days:
        days.append(today)
    runs: list[ListedRun] = []
    for day in days:
        # Yesterday is listed together with today.
        listed = list_runs(client, begin_of(day), None if day == days[-1] else begin_of(day + ONE_DAY))
        runs += listed
        if is_final(day, of_day := [run for run in listed if run.created_at.date() == day], now):
            sums[day] = sum(run.credit or 0 for run in of_day)
    return runs


def _key_of(budget: Budget) -> str:
    return f"browseract_spend_{budget.conn_id}"
