"""The budget of an account in a worker: what a check reads and pushes in Airflow, and the wait for the next period."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NoReturn

from airflow_provider_browseract.compat import AirflowFailException, count_in_task, in_dag_test
from airflow_provider_browseract.in_airflow.day_sums import read_day_sums, write_day_sums
from airflow_provider_browseract.in_airflow.showing import show_budget, show_wait_before_start
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.budget import BudgetStep, ReadDaySums, ShowBudget, WriteDaySums
from airflow_provider_browseract.runs.options import OnBudget
from airflow_provider_browseract.runs.queueing import Queued, QueueWait
from airflow_provider_browseract.runs.report import IF_NO_LINE_FOLLOWS
from airflow_provider_browseract.runs.starting import BudgetUsedUp
from airflow_provider_browseract.worker.owned_run import OwnedRun


def carry_out(step: BudgetStep, run: OwnedRun, ti: Any) -> Any:
    """Carry out a step of a check of the budget."""
    conn_id, log = run.hook.browseract_conn_id, run.log
    match step:
        case ReadDaySums():
            return read_day_sums(conn_id, run.hook.settings.key_digest, log)
        case WriteDaySums(sums):
            return write_day_sums(conn_id, run.hook.settings.key_digest, sums, log)
        case ShowBudget(xcom, counter):
            show_budget(ti, xcom, log)
            if counter is not None:
                count_in_task(f"browseract.budget.{counter}")
            return None


@dataclass(frozen=True, repr=False)
class BudgetWait:
    """The wait for the next day or month if the budget allows no run now.

    :param queued: how long the task instance has been in the queue.
    :param limit: seconds that the task instance may wait for a slot after that.
    :param defer: the operator's ``defer``.
    """

    run: OwnedRun
    ti: Any
    used_up: BudgetUsedUp
    on_budget: OnBudget
    queued: Queued
    limit: float
    defer: Callable[..., Any]

    def wait(self) -> NoReturn:
        """Wait in the triggerer until the next period begins.

        :raises AirflowFailException: the task cannot wait, or waiting does not help.
        """
        period = self.used_up.verdict.period
        refusal = self.used_up.verdict.refusal(self.used_up.stopped)
        reason = refusal.partition("\n")[0]
        if self.on_budget is OnBudget.FAIL or self.used_up.verdict.exceeds_whole_budget:
            raise AirflowFailException(refusal)
        if in_dag_test():
            raise AirflowFailException(f"{reason}\ndag.test() does not wait for the budget.")
        self.run.raise_if_killed()
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
        show_wait_before_start(self.ti, shown, self.run.log)
        settings = self.run.hook.settings
        wait = QueueWait(
            replace(self.queued, began=begins),
            until,
            source=str(self.run.source),
            handed_over=settings.webhook_base_url is not None,
            key_digest=settings.key_digest,
            api_version=self.run.source.api_version,
            not_before=begins,
        )
        self.defer(
            trigger=SlotTrigger(browseract_conn_id=self.run.hook.browseract_conn_id, wait=wait),
            method_name="execute_queued",
            timeout=timedelta(seconds=until - time.time() + timings.TIMEOUT_BACKSTOP),
        )
        raise AssertionError("defer has raised")
