"""The budget of an account: the credits that its runs may use on a day and in a month.

BrowserAct has no budgets. The provider adds up the credits in BrowserAct's lists of tasks, which all workers can read.
Days and months are in UTC. Nothing here reads or stores anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import NamedTuple

from airflow_provider_browseract.runs.watching import LONGEST_RUN
from airflow_provider_browseract.spending.spend import CAP, Forecast, ListedRun

ONE_DAY = timedelta(days=1)

WAIT_FOR_CREDITS = 2 * ONE_DAY
"""How long after the beginning of a day BrowserAct may report credits of its runs. Then missing credits count as 0."""


class Period(NamedTuple):
    """A day or a month with a budget, and the setting that the budget comes from."""

    setting: str
    limit: int
    begins: datetime
    ends: datetime

    def __str__(self) -> str:
        return f"{self.begins:%Y-%m-%d}" if self.ends - self.begins == ONE_DAY else f"{self.begins:%Y-%m}"


@dataclass(frozen=True)
class Budget:
    """The credits that all runs of an account may use, as the connection sets them."""

    conn_id: str
    daily_credits: int | None = None
    monthly_credits: int | None = None

    def periods(self, at: datetime) -> Iterator[Period]:
        """Yield the periods with a budget that contain a moment."""
        today = begin_of(at.date())
        if self.daily_credits is not None:
            yield Period("daily_credits", self.daily_credits, today, today + ONE_DAY)
        if self.monthly_credits is not None:
            begins = today.replace(day=1)
            yield Period("monthly_credits", self.monthly_credits, begins, (begins + 31 * ONE_DAY).replace(day=1))


@dataclass(frozen=True)
class Verdict:
    """Whether the budget of a period allows a run, and why.

    :param used: the credits of ended runs.
    :param open: the runs that are active or have no credits yet, each with the credits that it is expected to use.
    :param forecast: the credits that the run to start is expected to use.
    """

    conn_id: str
    period: Period
    used: int
    open: Mapping[ListedRun, int]
    forecast: Forecast

    @property
    def reserved(self) -> int:
        """The credits that the open runs are expected to use."""
        return sum(self.open.values())

    @property
    def credits_left(self) -> int:
        """The credits of the budget that are left after the run; negative if the budget does not allow the run."""
        return self.period.limit - self.used - self.reserved - self.forecast.credits

    @property
    def exceeds_whole_budget(self) -> bool:
        """Whether the run alone is expected to use more than the whole budget."""
        return self.forecast.credits > self.period.limit

    @property
    def numbers(self) -> str:
        """The numbers behind the verdict, as a sentence."""
        return (
            f"{self.used:,} of {self.period.limit:,} credits are used, {self.reserved:,} are expected for "
            f"runs that are active or have no credits yet ({len(self.open)}), and {self.forecast.credits:,} for "
            f"this run ({self.forecast.basis})."
        )

    @property
    def reason(self) -> str:
        """The first line of a refusal. It has no numbers, so that equal refusals are equal."""
        setting = self.period.setting
        return f"The budget of connection {self.conn_id!r} ({setting}) does not allow another run. No run was started."

    def refusal(self, address_of: Callable[[ListedRun], str | None]) -> str:
        """Return the error of a refused start: reason, remedy, numbers, and the run that most credits are kept for.

        :param address_of: returns the address of the page of a run, if it is known.
        """
        setting = f"{self.period.setting} in the extra of the connection"
        advice = f'Wait until {self.period.ends:%Y-%m-%d %H:%M} UTC, raise {setting}, or set on_budget="wait".'
        if self.exceeds_whole_budget:
            advice = f"This run alone exceeds the budget, so waiting does not help. Raise {setting}."
        if self.forecast.basis == CAP:
            advice += " The credits expected for this run are its max_credits. Lower it if the run needs less."
        lines = [self.reason, advice, self.numbers]
        if active := [run for run in self.open if not run.status.ended]:
            largest = max(active, key=lambda run: self.open[run])
            found = f"{largest.name}, {address}" if (address := address_of(largest)) else largest.name
            lines.append(f"The largest active run is expected to use {self.open[largest]:,} credits: {found}")
        return "\n".join(lines)


def judge(
    budget: Budget, now: datetime, sums: Mapping[date, int], runs: Sequence[ListedRun], forecast: Forecast
) -> Iterator[Verdict]:
    """Yield for the day and the month with a budget whether it allows a run.

    :param sums: the credits of past days, which count instead of their runs.
    :param runs: the runs of all other days. Further ones only count for the means.
    :param forecast: the credits that the run is expected to use.
    """
    counted = [run for run in runs if run.created_at.date() not in sums]
    means = {of: Forecast.of(of, runs).credits for of in {run.source_id for run in counted if not run.is_settled}}
    for period in budget.periods(now):
        inside = [run for run in counted if period.begins <= run.created_at < period.ends]
        used = sum(run.credit or 0 for run in inside if run.status.ended)
        used += sum(credits for day, credits in sums.items() if period.begins <= begin_of(day) < period.ends)
        open_runs = {run: max(run.credit or 0, means[run.source_id]) for run in inside if not run.is_settled}
        yield Verdict(budget.conn_id, period, used, open_runs, forecast)


def is_final(day: date, runs: Collection[ListedRun], now: datetime) -> bool:
    """Return whether the credits of a day cannot change any more.

    :param runs: the runs that were created on the day.
    """
    is_past = now >= begin_of(day + ONE_DAY) + timedelta(seconds=LONGEST_RUN)
    is_closed = now >= begin_of(day) + WAIT_FOR_CREDITS
    return is_past and all(run.status.ended if is_closed else run.is_settled for run in runs)


def begin_of(day: date) -> datetime:
    """Return the first moment of a day (UTC)."""
    return datetime.combine(day, time(), timezone.utc)


def moment(seconds: float) -> datetime:
    """Return a moment (UTC), given in seconds since the epoch."""
    return datetime.fromtimestamp(seconds, timezone.utc)
