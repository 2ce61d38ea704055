"""A budget over many starts: in a row and over days, with the emulator and a simulated clock."""

from __future__ import annotations

import collections
import json
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.emulator import SEARCH, Emulator
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.budget import (
    Budget,
    ReadDaySums,
    Verdict,
    WriteDaySums,
    check_budget,
    refused_by,
)
from airflow_provider_browseract.runs.request import RunRequest, Source
from airflow_provider_browseract.runs.steps import Sleep
from tests.steps import carry_out

MORNING = datetime(2026, 3, 10, 8, tzinfo=timezone.utc).timestamp()
COST = 20
"""Credits of a run."""


class Account:
    """An account with a budget, and the time."""

    def __init__(self, daily_credits: int, monthly_credits: int | None = None) -> None:
        self.now = MORNING
        self.browseract = Emulator(clock=lambda: self.now, concurrency=1000)
        self.sums: dict[Any, int] = {}
        self.calls: collections.Counter[str] = collections.Counter()
        self.budget = Budget("browseract_default", daily_credits, monthly_credits)

    @property
    def credits(self) -> int:
        return sum(task.credit for task in self.browseract.tasks)

    def answer(self, step: Any) -> Any:
        if isinstance(step, Sleep):
            self.now += step.seconds
        elif isinstance(step, ReadDaySums):
            return self.sums
        elif isinstance(step, WriteDaySums):
            self.sums = dict(step.sums)
        elif isinstance(step, Call):
            self.calls[step.name] += 1
            body = b"" if step.body is None else json.dumps(step.body).encode()
            headers = {"authorization": "Bearer app-emulator", "content-type": "application/json"}
            response = self.browseract.handle(step.method, step.path, urlencode(step.params), headers, body)
            assert response.status == 200, response.body
            return step.read(response.status, response.body, {})
        return None

    def start(self, pause: float = 10.0) -> Verdict | None:
        """Start a run if the budget allows it, and let some time pass. Return the verdict that refuses it."""
        request = RunRequest(Source(SourceKind.WORKFLOW, SEARCH.id), {"keyword": "pens"})
        verdicts = carry_out(check_budget(self.budget, request.source, None, lambda: self.now), self.answer)
        if (refusing := refused_by(verdicts)) is None:
            self.answer(request.call)
        self.now += pause
        return refusing


def test_of_1000_starts_in_a_row_the_budget_allows_50_and_no_start_is_sent_after_that():
    account = Account(daily_credits=50 * COST)
    allowed = sum(account.start() is None for _ in range(1000))
    assert (allowed, account.calls["run-task"], account.credits) == (50, 50, 50 * COST)


def test_backfill_of_30_runs_spreads_over_three_days_in_the_order_of_the_queue():
    account = Account(daily_credits=10 * COST, monthly_credits=1000 * COST)
    waiting, days = list(range(30)), collections.defaultdict(list)
    while waiting:
        refused = None
        for number in list(waiting):
            outcome = account.start(pause=0.0)
            if outcome is not None:
                refused = outcome
                continue
            waiting.remove(number)
            days[datetime.fromtimestamp(account.now, timezone.utc).date().isoformat()].append(number)
            account.now += 60
        if refused is not None:
            account.now = refused.period.ends.timestamp() + timings.CLOCK_SKEW
    assert list(days.values()) == [list(range(first, first + 10)) for first in (0, 10, 20)]
