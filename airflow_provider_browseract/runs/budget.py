"""The budget of an account: the credits that its runs may use on a day and in a month.

BrowserAct has no budgets. But its list of tasks is a count that all workers share, so nothing is stored except the sums
of days that are over, which saves requests. Days and months are in UTC. The generators do no I/O: they yield the next
step and are sent the result. ``clock`` returns the current time in seconds since the epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, NamedTuple, TypeAlias

from airflow_provider_browseract.api.errors import AuthenticationError, BrowserActError, NotFoundError
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import TaskStatus, Word
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.outcome import BudgetUnknownError
from airflow_provider_browseract.runs.outputs import counted
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.runs.spend import (
    UNKNOWN,
    CountedRun,
    Forecast,
    Requests,
    forecast_for,
    list_runs,
)
from airflow_provider_browseract.runs.steps import LogLine, Sleep

MOST_SLOTS = 20
"""Concurrent runs of BrowserAct's largest plan. So many starts at the same moment do not see each other's runs."""

ONE_DAY = timedelta(days=1)

LONGEST_RUN = timedelta(hours=7, minutes=10)
"""How long after its end a day can still have active runs: a run takes 7 hours at most."""

WAIT_FOR_CREDITS = timedelta(days=4)
"""How long after its beginning a day is listed again because ended runs have no credits yet."""


class BudgetAction(Word):
    """What a budget does about a start that it does not allow."""

    REFUSE = "refuse"
    """Refuse it."""

    WARN = "warn"
    """Log a warning, and start the run."""


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

    def includes(self, run: CountedRun) -> bool:
        """Return whether a run belongs to the period."""
        return self.begins <= run.created_at < self.ends


@dataclass(frozen=True)
class Budget:
    """The credits that all runs of an account may use, as the connection sets them."""

    conn_id: str
    daily_credits: int | None = None
    monthly_credits: int | None = None
    action: BudgetAction = BudgetAction.REFUSE

    def periods(self, at: datetime) -> Iterator[Period]:
        """Yield the periods with a budget that contain a moment."""
        today = _begin_of(at.date())
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
    :param active: how many runs are active.
    :param reserved: the credits that they are expected to use.
    :param unpriced: how many ended runs have no credits yet. They count as 0.
    """

    budget: Budget
    period: Period
    source: Source
    forecast: Forecast
    used: int
    active: int
    reserved: int
    unpriced: int

    @property
    def left(self) -> int:
        """The credits that are left after the run; negative if the budget does not allow it."""
        return self.period.limit - self.used - self.reserved - self.forecast.credits

    @property
    def never_fits(self) -> bool:
        """Whether the run alone is expected to use more than the whole budget."""
        return self.forecast.credits > self.period.limit

    @property
    def line(self) -> str:
        """The line for the log."""
        active = f"{self.reserved:,} expected for {_active(self.active)}" if self.active else "no run is active"
        unpriced = ""
        if self.unpriced:
            unpriced = (
                f" {counted(self.unpriced, 'ended run')} {'has' if self.unpriced == 1 else 'have'} no credits yet."
            )
        return (
            f"Budget of connection {self.budget.conn_id!r} for {self.period} (UTC): {self.used:,} of "
            f"{self.period.limit:,} credits used, {active}.{unpriced} This run is expected to use "
            f"{self.forecast.credits:,} {self.forecast.basis(self.source)}."
        )

    def refusal(self, stopped: str | None = None) -> str:
        """Return the error of a refused start.

        :param stopped: the BrowserAct task that was started and stopped, if there is one.
        """
        active = f"{self.reserved:,} are expected for {_active(self.active)}" if self.active else "no run is active"
        until = f"{self.period.ends:%H:%M}" if self.period.is_day else f"{self.period.ends:%Y-%m-%d}"
        run = "No run was started."
        if stopped is not None:
            run = f"BrowserAct task {stopped} was stopped, because other runs were started at the same time."
        advice = (
            f"Wait until {until} UTC, raise {self.period.setting} in the extra of the connection, or set "
            'on_budget="wait" so that the task waits.'
        )
        if self.never_fits:
            advice = (
                f"This run alone is expected to use more than {self.period.setting} allows, so waiting does not help. "
                f"Raise {self.period.setting} in the extra of the connection."
            )
        return (
            f"The budget of connection {self.budget.conn_id!r} for {self.period} (UTC) does not allow another run: "
            f"{self.used:,} of {self.period.limit:,} credits are used, {active}, and this run is expected to use "
            f"{self.forecast.credits:,}. {run}\n{advice}"
        )

    def shown(self, verdict: str) -> dict[str, Any]:
        """Return the value of the XCom ``budget``."""
        return {
            "period": str(self.period),
            "limit": self.period.limit,
            "used": self.used,
            "reserved": self.reserved,
            "expected": self.forecast.credits,
            "verdict": verdict,
        }


@dataclass(frozen=True)
class ReadDaySums:
    """Return the stored sums of days that are over, by day."""


@dataclass(frozen=True)
class WriteDaySums:
    """Store the sums of days that are over."""

    sums: Mapping[date, int]


@dataclass(frozen=True)
class ShowBudget:
    """Push the XCom ``budget``, and count the verdict if a person should know of it.

    :param counter: the last part of the name of a metric; None to count nothing.
    """

    shown: dict[str, Any]
    counter: str | None = None


BudgetStep: TypeAlias = ReadDaySums | WriteDaySums | ShowBudget

Step: TypeAlias = "BudgetStep | Sleep | LogLine | Call[Any]"


def check_budget(
    budget: Budget, source: Source, cap: int | None, clock: Callable[[], float]
) -> Generator[Step, Any, tuple[Verdict, ...]]:
    """Judge whether a budget allows a run, and report that.

    :param cap: the cap of the task instance, which is the forecast if nothing else is known.
    :returns: the verdicts about day and month; none if the credits are unknown, but the run should be started.
    :raises BudgetUnknownError: the credits cannot be counted.
    :raises AuthenticationError: the API key was refused.
    """
    try:
        verdicts = yield from _judge(budget, source, cap, _moment(clock()))
    except AuthenticationError:
        raise
    except BrowserActError as error:
        yield ShowBudget({"verdict": "unknown"}, "unknown")
        if budget.action is BudgetAction.REFUSE:
            raise BudgetUnknownError(
                f"The credits of connection {budget.conn_id!r} cannot be counted, so no run was started: "
                f"{error.brief.rstrip('.')}. The next try counts again.\n"
                'To start runs in this case, set budget_action="warn" in the extra of the connection.'
            ) from error
        yield LogLine(
            f"The credits of connection {budget.conn_id!r} cannot be counted: {error.brief.rstrip('.')}. The run is "
            "started, because budget_action is 'warn'.",
            logging.WARNING,
        )
        return ()
    for verdict in verdicts:
        yield LogLine(verdict.line)
    least = min(verdicts, key=lambda verdict: verdict.left)
    if (refusing := refused_by(verdicts)) is not None:
        yield ShowBudget(refusing.shown("refused"), "refused")
    elif least.left >= 0:
        yield ShowBudget(least.shown("allowed"))
    else:
        yield ShowBudget(least.shown("exceeded"), "exceeded")
        yield LogLine(
            f"This run exceeds {least.period.setting}={least.period.limit}. It is started, because budget_action is "
            "'warn'.",
            logging.WARNING,
        )
    return verdicts


def refused_by(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the verdict that refuses a start, the one with the later end if there are two; None if none does."""
    refusing = [each for each in verdicts if each.left < 0 and each.budget.action is BudgetAction.REFUSE]
    return max(refusing, key=lambda each: each.period.ends, default=None)


def look_again(
    verdicts: Sequence[Verdict], task_id: str, clock: Callable[[], float]
) -> Generator[Step, Any, Verdict | None]:
    """Check the budget again after a start that leaves few credits, because others may have started at that moment.

    Everyone adds up the runs in the same order, so that the earliest runs are kept and only the others are stopped.

    :param verdicts: the verdicts before the start.
    :param task_id: the run that was started.
    :returns: the verdict that does not allow the run; None if it can continue.
    """
    first = next(iter(verdicts), None)
    if first is None or first.budget.action is BudgetAction.WARN:
        return None
    if all(each.left >= MOST_SLOTS * each.forecast.credits for each in verdicts):
        return None
    budget, started_at = first.budget, clock()
    # By BrowserAct's clock, the run may belong to the day before.
    now = _moment(started_at - timings.CLOCK_SKEW)
    yield Sleep(timings.SECOND_LOOK_DELAY)
    try:
        while True:
            count = yield from _count(Requests(), budget, first.source, now)
            own = next((run for run in count.runs if run.id == task_id), None)
            if own is not None or clock() >= started_at + timings.LISTING_DELAY:
                break
            yield Sleep(timings.ORPHAN_LIST_PAUSE)
    except BrowserActError as error:
        yield LogLine(f"The budget could not be checked again after the start: {error.brief}", logging.WARNING)
        return None
    if own is None:
        yield LogLine("The budget was not checked again, because the new run is not listed yet.", logging.WARNING)
        return None
    if own.status.ended:
        return None
    # Of the later runs, active ones look again too, and canceled ones probably have. What others have used is spent.
    spent = (TaskStatus.FINISHED, TaskStatus.FAILED)
    before = replace(count, runs=[run for run in count.runs if run.order < own.order or run.status in spent])
    again = [before.verdict(budget, each, first.source, first.forecast) for each in budget.periods(own.created_at)]
    beyond = refused_by(again)
    if beyond is not None:
        yield ShowBudget(beyond.shown("refused"), "refused")
    return beyond


def forecast_run(
    budget: Budget | None, source: Source, cap: int | None, clock: Callable[[], float]
) -> Generator[Step, Any, None]:
    """Log what a run is expected to cost, and whether the budget would allow it."""
    try:
        if budget is None:
            forecast = yield from forecast_for(Requests(), source, (), cap, _moment(clock()))
            yield LogLine(f"The run is expected to use {forecast.credits:,} credits {forecast.basis(source)}.")
            return
        verdicts = yield from _judge(budget, source, cap, _moment(clock()))
    except BrowserActError as error:
        yield LogLine(f"The credits cannot be counted: {error.brief}", logging.WARNING)
        return
    for verdict in verdicts:
        allowed = "allows" if verdict.left >= 0 else "does not allow"
        yield LogLine(f"{verdict.line} The budget {allowed} this run.")


@dataclass(frozen=True)
class _Count:
    """What an account has used.

    :param closed: the sums of days on which no run is active any more.
    :param runs: the runs of later days.
    :param forecasts: the forecasts for the workflows of active runs.
    """

    closed: Mapping[date, int]
    runs: Sequence[CountedRun]
    forecasts: Mapping[str | None, Forecast]

    def verdict(self, budget: Budget, period: Period, source: Source, forecast: Forecast) -> Verdict:
        """Judge whether a run with this forecast fits in the budget of a period."""
        runs = [run for run in self.runs if period.includes(run)]
        ended = [run for run in runs if run.status.ended]
        active = [run for run in runs if not run.status.ended]
        forecasts = dict(self.forecasts)
        if forecast.runs:
            forecasts[source.id] = forecast
        return Verdict(
            budget,
            period,
            source,
            forecast,
            used=sum(run.credit or 0 for run in ended)
            + sum(credit for day, credit in self.closed.items() if period.begins <= _begin_of(day) < period.ends),
            active=len(active),
            reserved=sum(max(run.credit or 0, forecasts.get(run.workflow_id, UNKNOWN).credits) for run in active),
            unpriced=sum(run.credit is None for run in ended),
        )


def _judge(budget: Budget, source: Source, cap: int | None, now: datetime) -> Generator[Step, Any, tuple[Verdict, ...]]:
    requests = Requests()
    count = yield from _count(requests, budget, source, now)
    forecast = yield from forecast_for(requests, source, count.runs, cap, now)
    return tuple(count.verdict(budget, period, source, forecast) for period in budget.periods(now))


def _count(requests: Requests, budget: Budget, source: Source, now: datetime) -> Generator[Step, Any, _Count]:
    """Count what the runs of the account have used since the beginning of the longest period.

    :param source: what is to be run, whose forecast is made separately.
    :raises BrowserActError: the runs cannot be counted.
    """
    begins = min(period.begins for period in budget.periods(now)).date()
    days = [begins + timedelta(days=number) for number in range((now.date() - begins).days + 1)]
    closed = [day for day in days if _begin_of(day + ONE_DAY) + LONGEST_RUN <= now]
    sums, runs = (yield from _count_closed(closed, requests, now)) if closed else ({}, [])
    runs += yield from list_runs(requests, _begin_of(days[len(closed)]))
    own = None if source.is_template else source.id
    others = {run.workflow_id for run in runs if not run.status.ended} - {own}
    forecasts: dict[str | None, Forecast] = {}
    for workflow_id in sorted(filter(None, others))[:MOST_SLOTS]:
        # The list may not know the workflow: a run of a template can have the id of a copy.
        with suppress(NotFoundError):
            of = Source(SourceKind.WORKFLOW, workflow_id)
            forecasts[workflow_id] = yield from forecast_for(requests, of, runs, None, now)
    return _Count(sums, runs, forecasts)


def _count_closed(
    days: Sequence[date], requests: Requests, now: datetime
) -> Generator[Step, Any, tuple[Mapping[date, int], list[CountedRun]]]:
    """Return the sums of days that are over, and the runs of those that can still change.

    The days without a stored sum are listed. Their sums are stored once all their runs have ended and have credits.
    After some days, credits that are missing are not waited for any more.
    """
    stored: Mapping[date, int] = yield ReadDaySums()
    sums = {day: stored[day] for day in days if day in stored}
    new: dict[date, int] = {}
    unsettled: list[CountedRun] = []
    failure: BrowserActError | None = None
    for day in days:
        if day in sums:
            continue
        try:
            runs = yield from list_runs(requests, _begin_of(day), _begin_of(day + ONE_DAY))
        except BrowserActError as error:
            # The next check continues with the days that were counted.
            failure = error
            break
        is_old = _begin_of(day) + WAIT_FOR_CREDITS < now
        if all(run.status.ended and (is_old or run.credit is not None) for run in runs):
            sums[day] = new[day] = sum(run.credit or 0 for run in runs)
        else:
            unsettled += runs
    if new:
        # Someone may have edited what is stored. A sum of a later day would count when that day is over.
        yield WriteDaySums({day: credits for day, credits in {**stored, **new}.items() if day <= days[-1]})
    if failure is not None:
        raise failure
    return sums, unsettled


def _active(number: int) -> str:
    return counted(number, "active run")


def _begin_of(day: date) -> datetime:
    return datetime.combine(day, time(), timezone.utc)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
