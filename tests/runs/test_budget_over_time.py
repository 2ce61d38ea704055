"""A budget over many starts: in a row, at the same moment, and over days, with the emulator and a simulated clock."""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Generator
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.emulator import SEARCH, Emulator
from airflow_provider_browseract.exceptions import ResponseLostError
from airflow_provider_browseract.runs import starting, timings
from airflow_provider_browseract.runs.budget import Budget, ReadDaySums, WriteDaySums
from airflow_provider_browseract.runs.orphans import ReadClaims
from airflow_provider_browseract.runs.request import RunRequest, Source
from airflow_provider_browseract.runs.starting import BudgetUsedUp, StartedRun
from airflow_provider_browseract.runs.steps import Sleep
from tests.steps import carry_out

MORNING = datetime(2026, 3, 10, 8, tzinfo=timezone.utc).timestamp()
COST = 20
"""Credits of a run."""


class Account:
    """An account with a budget, and the time."""

    def __init__(self, daily_credits: int, monthly_credits: int | None = None, *, shared_runs: bool = False) -> None:
        self.now = MORNING
        self.browseract = Emulator(clock=lambda: self.now, concurrency=1000, shared_runs=shared_runs)
        self.sums: dict[Any, int] = {}
        self.calls: collections.Counter[str] = collections.Counter()
        self.budget = Budget("browseract_default", daily_credits, monthly_credits)

    @property
    def credits(self) -> int:
        return sum(task.credit for task in self.browseract.tasks)

    def statuses(self) -> collections.Counter[str]:
        return collections.Counter(task.status for task in self.browseract.tasks)

    def steps(self, kind: SourceKind = SourceKind.WORKFLOW, keyword: str = "pens") -> Generator[Any, Any, Any]:
        """Return the steps of a start."""
        request = RunRequest(Source(kind, SEARCH.id), {"keyword": keyword})
        start = starting.Start(request, 3600.0, 1.0, api_key="app-key", key_digest="0" * 16, budget=self.budget)
        started = yield from starting.begin(start, None, lambda: self.now)
        if not isinstance(started, StartedRun):
            return started
        return (yield from starting.stop_if_over_budget(started, lambda: self.now)) or started

    def answer(self, step: Any) -> Any:
        if isinstance(step, Sleep):
            self.now += step.seconds
        elif isinstance(step, starting.BeforeStart):
            return step.request
        elif isinstance(step, ReadDaySums):
            return self.sums
        elif isinstance(step, ReadClaims):
            return {}
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

    def start(self, pause: float = 10.0) -> StartedRun | BudgetUsedUp:
        """Start a run, and let some time pass."""
        started: StartedRun | BudgetUsedUp = carry_out(self.steps(), self.answer)
        self.now += pause
        return started


def test_of_1000_starts_in_a_row_the_budget_allows_50_and_no_start_is_sent_after_that():
    account = Account(daily_credits=50 * COST)
    allowed = sum(isinstance(account.start(), StartedRun) for _ in range(1000))
    assert (allowed, account.calls["run-task"], account.credits) == (50, 50, 50 * COST)


def test_start_that_is_sent_again_after_a_lost_response_checks_the_budget_again():
    account = Account(daily_credits=3 * COST)
    account.start()

    def answer(step: Any) -> Any:
        if isinstance(step, Call) and step.name == "run-task" and account.calls["run-task"] == 1:
            # The response is lost, and others use the credits in the meantime.
            for _ in range(2):
                account.start()
            return ResponseLostError("lost")
        return account.answer(step)

    outcome = carry_out(account.steps(keyword="paper"), answer)
    assert isinstance(outcome, BudgetUsedUp)
    assert account.calls["run-task"] == 3


def test_backfill_of_30_runs_spreads_over_three_days_in_the_order_of_the_queue():
    account = Account(daily_credits=10 * COST, monthly_credits=1000 * COST)
    waiting, days = list(range(30)), collections.defaultdict(list)
    while waiting:
        refused = None
        for number in list(waiting):
            outcome = account.start(pause=0.0)
            if isinstance(outcome, BudgetUsedUp):
                refused = outcome
                continue
            waiting.remove(number)
            days[datetime.fromtimestamp(account.now, timezone.utc).date().isoformat()].append(number)
            account.now += 60
        if refused is not None:
            account.now = refused.verdict.period.ends.timestamp() + timings.CLOCK_SKEW
    assert list(days.values()) == [list(range(first, first + 10)) for first in (0, 10, 20)]


@pytest.mark.parametrize("room", [1, 3])
def test_of_20_starts_at_the_same_moment_those_that_fit_are_kept(room):
    account = Account(daily_credits=room * COST + 9 * COST)
    account.browseract.set_workflow(SEARCH.id, duration=3600.0)
    for _ in range(9):
        account.browseract.next_run(SEARCH.id, duration=0.0)
        account.start()
    kept = play_at_once(account, 20, itertools.cycle(range(20)))
    assert kept == room
    assert account.statuses() == {"finished": 9, "running": room, "canceled": 20 - room}


@given(
    order=st.lists(st.integers(0, 19), max_size=200),
    room=st.integers(0, 3),
    lag=st.sampled_from((0.0, 5.0)),
    shared=st.booleans(),
)
def test_starts_in_any_interleaving_use_the_budget_and_at_most_one_run_more(order, room, lag, shared):
    """This holds even if a run appears in the list some seconds after its start."""
    limit = room * COST + 3 * COST
    account = Account(daily_credits=limit, shared_runs=shared)
    account.browseract.set_workflow(SEARCH.id, duration=3600.0)
    for _ in range(3):
        account.browseract.next_run(SEARCH.id, duration=0.0)
        account.start()
    account.browseract.set_workflow(SEARCH.id, listed_after=lag)
    kept = play_at_once(account, 20, itertools.chain(order, itertools.cycle(range(20))))
    assert kept <= room
    account.now += 3600
    assert account.credits <= limit + COST + 10 * account.statuses()["canceled"]


def play_at_once(account: Account, number: int, order: Any) -> int:
    """Carry out starts step by step, in any order, and return how many runs are kept. Every other one runs a bot.

    While one of them sleeps, the others continue. Time passes when all of them sleep.
    """
    kinds = itertools.cycle([SourceKind.WORKFLOW, SourceKind.BOT])
    starts = [account.steps(kind) for kind in itertools.islice(kinds, number)]
    replies: list[Any] = [None] * number
    awake_at = [account.now] * number
    outcomes: dict[int, Any] = {}
    for turn in order:
        if len(outcomes) == number:
            break
        if all(turn in outcomes or awake_at[turn] > account.now for turn in range(number)):
            account.now = min(awake_at[turn] for turn in range(number) if turn not in outcomes)
        if turn in outcomes or awake_at[turn] > account.now:
            continue
        try:
            step = starts[turn].send(replies[turn])
        except StopIteration as stop:
            outcomes[turn] = stop.value
            continue
        if isinstance(step, Sleep):
            awake_at[turn], replies[turn] = account.now + step.seconds, None
        else:
            replies[turn] = account.answer(step)
    kept = [each for each in outcomes.values() if isinstance(each, StartedRun)]
    active = [task for task in account.browseract.tasks if not TaskStatus(task.status).ended]
    assert len(kept) == len(active)
    return len(kept)
