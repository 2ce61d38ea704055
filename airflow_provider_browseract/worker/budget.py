"""The budget of an account in a worker: its check before a start, and the wait for the next period."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NoReturn

from airflow_provider_browseract.compat import AirflowFailException, TaskDeferred, in_dag_test
from airflow_provider_browseract.hooks.connection import budget_of
from airflow_provider_browseract.loops import send_all
from airflow_provider_browseract.queue.queueing import Queued, QueueWait
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import OnBudget
from airflow_provider_browseract.runs.report import IF_NO_LINE_FOLLOWS
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.spending.budget import (
    Budget,
    BudgetStep,
    ReadDaySums,
    StepSender,
    Verdict,
    WriteDaySums,
    check_budget,
    forecast_run,
    refused_by,
)
from airflow_provider_browseract.spending.day_sums import read_day_sums, write_day_sums
from airflow_provider_browseract.worker.own_run import OwnRun
from airflow_provider_browseract.worker.showing import show_wait


def refusal_of(run: OwnRun, budget: Budget, cap: int | None, request: RunRequest) -> Verdict | None:
    """Return the verdict with which the budget of the account refuses a run; None if it allows the run.

    :param cap: the cap of the task instance, which is the forecast if nothing else is known.
    :raises BudgetUnknownError: the credits of the account cannot be counted.
    """
    steps = check_budget(budget, request.source, cap, time.time)
    return refused_by(send_all(steps, _sender(run)))


def log_forecast(run: OwnRun, cap: int | None, request: RunRequest) -> None:
    """Log what a run is expected to cost, and whether the budget would allow it, if there is one."""
    if (budget := budget_of(run.hook.settings)) is not None:
        send_all(forecast_run(budget, request.source, cap, time.time), _sender(run))


def _sender(run: OwnRun) -> StepSender:
    conn_id, key_digest, log = run.hook.browseract_conn_id, run.hook.settings.key_digest, run.log

    def carry_out(step: BudgetStep) -> Any:
        match step:
            case ReadDaySums():
                return read_day_sums(conn_id, key_digest, log)
            case WriteDaySums(sums):
                return write_day_sums(conn_id, key_digest, sums, log)

    return StepSender(run.hook.client, log, carry_out)


@dataclass(frozen=True, repr=False)
class BudgetWait:
    """The wait for the next day or month if the budget allows no run now.

    :param queued: the place of the task instance in the queue.
    :param limit: seconds that the task instance may wait for a slot after that.
    """

    run: OwnRun
    ti: Any
    verdict: Verdict
    on_budget: OnBudget
    queued: Queued
    limit: float

    def wait(self) -> NoReturn:
        """Wait in the triggerer until the next period begins.

        :raises TaskDeferred: the wait has begun.
        :raises AirflowFailException: the task cannot wait, or waiting does not help.
        """
        period, refusal = self.verdict.period, self.verdict.refusal()
        reason = refusal.partition("\n")[0]
        if self.on_budget is OnBudget.FAIL or self.verdict.exceeds_whole_budget:
            raise AirflowFailException(refusal)
        if in_dag_test():
            raise AirflowFailException(f"{reason}\ndag.test() does not wait for the budget.")
        self.run.check()
        from airflow_provider_browseract.triggers.slot import SlotTrigger

        # By BrowserAct's clock, the period may begin up to a minute later.
        begins = period.ends.timestamp() + timings.CLOCK_SKEW
        until = begins + self.limit
        self.run.log.warning(
            "%s Waiting until %s UTC because of on_budget='wait'. %s",
            reason,
            f"{period.ends:%Y-%m-%d %H:%M}",
            IF_NO_LINE_FOLLOWS,
        )
        shown = {"waits_for": "budget", "until": period.ends.isoformat()}
        show_wait(self.ti, shown, self.run.log, link=True)
        settings = self.run.hook.settings
        wait = QueueWait(
            replace(self.queued, began=begins),
            until,
            str(self.run.source),
            settings.key_digest,
            begins,
            self.run.source.api_version,
            for_budget=True,
        )
        raise TaskDeferred(
            trigger=SlotTrigger(browseract_conn_id=self.run.hook.browseract_conn_id, wait=wait),
            method_name="execute_queued",
            timeout=timedelta(seconds=until - time.time() + timings.TIMEOUT_BACKSTOP),
        )
