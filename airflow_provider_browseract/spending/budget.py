"""The budget of an account: the credits that its runs may use on a day and in a month.

BrowserAct has no budgets. The provider adds up the credits in BrowserAct's lists of tasks, which all workers can read.
Only the sums of past days are stored, to save requests. Days and months are in UTC. The generators do no I/O: they
yield the next step and are sent the result. ``clock`` returns the current time in seconds since the epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, NamedTuple, TypeAlias

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.exceptions import (
    AuthenticationError,
    BrowserActError,
    BudgetUnknownError,
)
from airflow_provider_browseract.loops import Sender
from airflow_provider_browseract.runs.log import Log
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.spending.spend import (
    UNKNOWN,
    Forecast,
    ListedRun,
    RequestLimit,
    forecast_for,
    list_runs,
    mean_of,
)

ONE_DAY = timedelta(days=1)

LONGEST_RUN = timedelta(hours=7, minutes=10)
"""How long after the end of a day its runs can be active: a run takes at most 7 hours."""

WAIT_FOR_CREDITS = timedelta(days=4)
"""How long after the beginning of a day it is listed again because ended runs have no credits yet."""


class Period(NamedTuple):
    """A day or a month with a budget, and the setting that the budget comes from."""

    setting: str
    limit: int
    begins: datetime
    ends: datetime

    def __str__(self) -> str:
        return f"{self.begins:%Y-%m-%d}" if self.is_day else f"{self.begins:%Y-%m}"

    @property
    def is_day(self) -> bool:
        """Whether it is a day, and not a month."""
        return self.ends - self.begins == ONE_DAY

    def includes(self, run: ListedRun) -> bool:
        """Return whether a run belongs to the period."""
        return self.begins <= run.created_at < self.ends


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
            ends = (begins + timedelta(days=31)).replace(day=1)
            yield Period("monthly_credits", self.monthly_credits, begins, ends)


@dataclass(frozen=True)
class Verdict:
    """Whether the budget of a period allows a run, and why.

    :param used: the credits of ended runs.
    :param open: how many runs are active, or have ended and have no credits yet.
    :param reserved: the credits that they are expected to use.
    """

    budget: Budget
    period: Period
    source: Source
    forecast: Forecast
    used: int
    open: int
    reserved: int

    @property
    def credits_left(self) -> int:
        """The credits of the budget that are left after the run; negative if the budget does not allow the run."""
        return self.period.limit - self.used - self.reserved - self.forecast.credits

    @property
    def exceeds_whole_budget(self) -> bool:
        """Whether the run alone is expected to use more than the whole budget."""
        return self.forecast.credits > self.period.limit

    @property
    def short_line(self) -> str:
        """The line for the log of a start, when much of the budget is used."""
        return (
            f"{self.used:,} credits of {self.period.setting}={self.period.limit} are used; {self._others}, and "
            f"{self.forecast.credits:,} for this one."
        )

    @property
    def line(self) -> str:
        """The line for the log of a dry run."""
        return (
            f"Budget of connection {self.budget.conn_id!r} for {self.period} (UTC): {self.used:,} of "
            f"{self.period.limit:,} credits are used, {self._others}. This run is expected to use "
            f"{self.forecast.credits:,} {self.forecast.basis(self.source)}."
        )

    @property
    def _others(self) -> str:
        return f"{self.reserved:,} are expected for runs that are active or have no credits yet ({self.open})"

    def refusal(self) -> str:
        """Return the error of a refused start."""
        until = f"{self.period.ends:%H:%M}" if self.period.is_day else f"{self.period.ends:%Y-%m-%d}"
        advice = (
            f"Wait until {until} UTC, raise {self.period.setting} in the extra of the connection, or set "
            'on_budget="wait" so that the task waits.'
        )
        if self.exceeds_whole_budget:
            advice = (
                f"This run alone is expected to use more than {self.period.setting} allows, so waiting does not help. "
                f"Raise {self.period.setting} in the extra of the connection."
            )
        # Without a mean, only a cap makes the forecast higher than the cost of a step.
        if not self.forecast.runs and self.forecast.credits > UNKNOWN.credits:
            advice += " The forecast is max_credits of the task, so a lower max_credits lowers it."
        return (
            f"The budget of connection {self.budget.conn_id!r} for {self.period} (UTC) does not allow another run: "
            f"{self.used:,} of {self.period.limit:,} credits are used, {self._others}, and this run is expected to use "
            f"{self.forecast.credits:,}. No run was started.\n{advice}"
        )


@dataclass(frozen=True)
class ReadDaySums:
    """Return the stored sums of past days, by day."""


@dataclass(frozen=True)
class WriteDaySums:
    """Store the sums of past days."""

    sums: Mapping[date, int]


@dataclass(frozen=True)
class LogLine:
    """Write a line to the task's log."""

    text: str
    level: int = logging.INFO


BudgetStep: TypeAlias = ReadDaySums | WriteDaySums

Step: TypeAlias = "BudgetStep | LogLine | Call[Any]"


@dataclass(frozen=True)
class StepSender:
    """Send the calls of a check, write its lines, and carry out its other steps.

    :param carry_out: carries out a step that is neither a call nor a line, and returns its result.
    """

    client: Sender
    log: Log
    carry_out: Callable[[BudgetStep], Any]

    def send(self, step: Step) -> Any:
        """Carry out a step."""
        match step:
            case LogLine(text, level):
                return self.log.log(level, "%s", text)
            case Call():
                return self.client.send(step)
            case _:
                return self.carry_out(step)


def check_budget(
    budget: Budget, source: Source, cap: int | None, clock: Callable[[], float]
) -> Generator[Step, Any, tuple[Verdict, ...]]:
    """Check whether a budget allows a run, and report the verdicts.

    :param cap: the cap of the task instance, which is the forecast if nothing else is known.
    :returns: the verdicts about day and month.
    :raises BudgetUnknownError: the credits cannot be counted.
    :raises AuthenticationError: the API key was refused.
    """
    try:
        verdicts = yield from _judge(budget, source, cap, moment(clock()))
    except AuthenticationError:
        raise
    except BrowserActError as error:
        raise BudgetUnknownError(
            f"The credits of connection {budget.conn_id!r} cannot be counted, so no run was started: "
            f"{error.brief.rstrip('.')}. The next try counts again.\n"
            "To start runs without a budget, remove daily_credits and monthly_credits from the extra of the connection."
        ) from error
    for verdict in verdicts:
        if 2 * verdict.used > verdict.period.limit:
            yield LogLine(verdict.short_line)
    return verdicts


def refused_by(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the verdict that refuses a start; None if none does.

    Of two, it is the one that waiting cannot help, or else the one with the later end.
    """
    refusing = [each for each in verdicts if each.credits_left < 0]
    return max(refusing, key=lambda each: (each.exceeds_whole_budget, each.period.ends), default=None)


def forecast_run(
    budget: Budget, source: Source, cap: int | None, clock: Callable[[], float]
) -> Generator[Step, Any, None]:
    """Log what a run is expected to cost, and whether the budget would allow it."""
    try:
        verdicts = yield from _judge(budget, source, cap, moment(clock()))
    except BrowserActError as error:
        yield LogLine(f"The credits cannot be counted: {error.brief}", logging.WARNING)
        return
    for verdict in verdicts:
        allowed = "allows" if verdict.credits_left >= 0 else "does not allow"
        yield LogLine(f"{verdict.line} The budget {allowed} this run.")


def read_budget(budget: Budget, clock: Callable[[], float]) -> Generator[Step, Any, tuple[Verdict, ...]]:
    """Return the verdicts about a run that costs one step, with the requests that a check before a start sends.

    :raises BrowserActError: the credits cannot be counted.
    """
    now, anything = moment(clock()), Source(SourceKind.TEMPLATE, "")
    count = yield from _count(RequestLimit(), budget, now)
    return tuple(count.verdict(budget, period, anything, UNKNOWN) for period in budget.periods(now))


@dataclass(frozen=True)
class _Count:
    """The credits that an account has used.

    :param past: the sums of past days whose runs cannot change any more.
    :param runs: the runs of the other days.
    """

    past: Mapping[date, int]
    runs: Sequence[ListedRun]

    def verdict(self, budget: Budget, period: Period, source: Source, forecast: Forecast) -> Verdict:
        """Return whether the budget of a period allows a run with this forecast."""
        runs = [run for run in self.runs if period.includes(run)]
        # BrowserAct may report the credits of a run after its end.
        is_open = [run for run in runs if not run.status.ended or run.credit is None]
        means = {source_id: mean_of(source_id, self.runs) for source_id in {run.source_id for run in is_open}}
        if forecast.runs:
            means[source.id] = forecast
        return Verdict(
            budget,
            period,
            source,
            forecast,
            used=sum(run.credit or 0 for run in runs if run.status.ended)
            + sum(credit for day, credit in self.past.items() if period.begins <= begin_of(day) < period.ends),
            open=len(is_open),
            reserved=sum(max(run.credit or 0, (means[run.source_id] or UNKNOWN).credits) for run in is_open),
        )


def _judge(budget: Budget, source: Source, cap: int | None, now: datetime) -> Generator[Step, Any, tuple[Verdict, ...]]:
    requests = RequestLimit()
    count = yield from _count(requests, budget, now)
    forecast = yield from forecast_for(requests, source, count.runs, cap, now)
    return tuple(count.verdict(budget, period, source, forecast) for period in budget.periods(now))


def _count(requests: RequestLimit, budget: Budget, now: datetime) -> Generator[Step, Any, _Count]:
    """Count what the runs of the account have used since the beginning of the longest period.

    :raises BrowserActError: the runs cannot be counted.
    """
    begins = min(period.begins for period in budget.periods(now)).date()
    days = [begins + timedelta(days=number) for number in range((now.date() - begins).days + 1)]
    past = [day for day in days if begin_of(day + ONE_DAY) + LONGEST_RUN <= now]
    sums, runs = (yield from _count_past_days(past, requests, now)) if past else ({}, [])
    runs += yield from list_runs(requests, begin_of(days[len(past)]))
    return _Count(sums, runs)


def _count_past_days(
    days: Sequence[date], requests: RequestLimit, now: datetime
) -> Generator[Step, Any, tuple[Mapping[date, int], list[ListedRun]]]:
    """Return the sums of past days, and the runs of the past days that can still change.

    The days without a stored sum are listed. The sum of a day is stored when all its runs have ended and have credits,
    or after :data:`WAIT_FOR_CREDITS` even if credits are missing.
    """
    stored: Mapping[date, int] = yield ReadDaySums()
    sums = {day: stored[day] for day in days if day in stored}
    new: dict[date, int] = {}
    changing: list[ListedRun] = []
    failure: BrowserActError | None = None
    for day in days:
        if day in sums:
            continue
        try:
            runs = yield from list_runs(requests, begin_of(day), begin_of(day + ONE_DAY))
        except BrowserActError as error:
            # The next check continues with the days that were counted.
            failure = error
            break
        is_old = begin_of(day) + WAIT_FOR_CREDITS < now
        if all(run.status.ended and (is_old or run.credit is not None) for run in runs):
            sums[day] = new[day] = sum(run.credit or 0 for run in runs)
        else:
            changing += runs
    if new:
        # Someone may have edited the stored sums. The sum of a later day would count after that day.
        yield WriteDaySums({day: credits for day, credits in {**stored, **new}.items() if day <= days[-1]})
    if failure is not None:
        raise failure
    return sums, changing


def begin_of(day: date) -> datetime:
    """Return the first moment of a day (UTC)."""
    return datetime.combine(day, time(), timezone.utc)


def moment(seconds: float) -> datetime:
    """Return a moment (UTC), given in seconds since the epoch."""
    return datetime.fromtimestamp(seconds, timezone.utc)
