"""The budget of an account in a worker: its check before a start, and the wait for the next period."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import NoReturn

from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.compat import AirflowFailException, in_dag_test
from airflow_provider_browseract.exceptions import AuthenticationError, BrowserActError, BudgetUnknownError
from airflow_provider_browseract.hooks.connection import budget_of
from airflow_provider_browseract.queue.queueing import Queued
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import OnBudget
from airflow_provider_browseract.runs.report import IF_NO_LINE_FOLLOWS
from airflow_provider_browseract.runs.request import RunRequest, Source
from airflow_provider_browseract.spending.budget import Budget, Verdict, judge, moment
from airflow_provider_browseract.spending.day_sums import list_open_days, read_day_sums, write_day_sums
from airflow_provider_browseract.spending.spend import Forecast, ListedRun, with_older_runs
from airflow_provider_browseract.worker.look import look
from airflow_provider_browseract.worker.own_run import OwnRun
from airflow_provider_browseract.worker.showing import show_wait
from airflow_provider_browseract.worker.slots import defer_to_queue


def refusal_of(run: OwnRun, budget: Budget, cap: int | None, request: RunRequest) -> Verdict | None:
    """Return the verdict with which the budget of the account refuses a run; None if it allows the run.

    Of two, it is the one that waiting cannot help, or else the one with the later end.

    :param cap: the cap of the task instance, which is the forecast if nothing else is known.
    :raises BudgetUnknownError: the credits of the account cannot be counted.
    :raises AuthenticationError: the API key was refused.
    """
    try:
        verdicts = verdicts_of(run, budget, cap, request.source)
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
            run.log.info("%s: %s", verdict.period.setting, verdict.numbers)
    refusing = [verdict for verdict in verdicts if verdict.credits_left < 0]
    return max(refusing, key=lambda each: (each.exceeds_whole_budget, each.period.ends), default=None)


def log_forecast(run: OwnRun, cap: int | None, request: RunRequest) -> None:
    """Log what a run is expected to cost, and whether the budget would allow it, if there is one."""
    if (budget := budget_of(run.hook.settings)) is None:
        return
    try:
        for verdict in verdicts_of(run, budget, cap, request.source):
            allows = "allows" if verdict.credits_left >= 0 else "does not allow"
            run.log.info("%s: %s The budget %s this run.", verdict.period.setting, verdict.numbers, allows)
    except BrowserActError as error:
        run.log.warning("The credits cannot be counted: %s", error.brief)


def verdicts_of(run: OwnRun, budget: Budget, cap: int | None, source: Source) -> list[Verdict]:
    """Count what the runs of the account use, and return whether its budget allows another run."""
    client, key_digest, now = run.hook.client, run.hook.settings.key_digest, moment(time.time())
    sums = read_day_sums(budget, key_digest, now.date(), run.log)
    stored = dict(sums)
    try:
        runs = list_open_days(client, budget, sums, now)
    finally:
        # The next check continues with the days that were counted.
        if sums != stored:
            write_day_sums(budget, key_digest, sums, run.log)
    runs = with_older_runs(client, source, runs, now)
    # Lists do not name the template of a run.
    source_id = None if source.is_template else source.id
    return list(judge(budget, now, sums, runs, Forecast.of(source_id, runs, cap)))


def _address_of(run: OwnRun, listed: ListedRun) -> str | None:
    """Read where BrowserAct shows a run of anybody. Lists only have its live view, which not everyone may see here."""
    seen = look(run.hook, listed.id, listed.api_version)
    return seen.log_detail_url if isinstance(seen, Task) else None


def wait_for_budget(run: OwnRun, refused: Verdict, on_budget: OnBudget, queued: Queued, limit: float) -> NoReturn:
    """Wait in the triggerer for the next day or month if the budget allows no run now.

    :param queued: the place of the task instance in the queue.
    :param limit: seconds that the task instance may wait for a slot after that.
    :raises TaskDeferred: the wait has begun.
    :raises AirflowFailException: the task cannot wait, or waiting does not help.
    """
    if on_budget is OnBudget.FAIL or refused.exceeds_whole_budget:
        raise AirflowFailException(refused.refusal(partial(_address_of, run)))
    if in_dag_test():
        raise AirflowFailException(f"{refused.reason}\ndag.test() does not wait for the budget.")
    run.check()
    ends = refused.period.ends
    line = "%s Waiting until %s UTC because of on_budget='wait': %s %s"
    run.log.warning(line, refused.reason, f"{ends:%Y-%m-%d %H:%M}", refused.numbers, IF_NO_LINE_FOLLOWS)
    show_wait(run.ledger.ti, {"waits_for": "budget", "until": ends.isoformat()}, run.log, link=True)
    # By BrowserAct's clock, the period may begin up to a minute later.
    begins = ends.timestamp() + timings.CLOCK_SKEW
    defer_to_queue(run, replace(queued, began=begins), not_before=begins, until=begins + limit, for_budget=True)
