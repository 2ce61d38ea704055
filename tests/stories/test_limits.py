"""Slots, budgets, deadlines and results: what a try comes to, in the worker and deferred, with a workflow and a bot."""

from __future__ import annotations

import pytest

from airflow_provider_browseract.compat import AirflowFailException, AirflowSkipException
from airflow_provider_browseract.emulator import RequestFault
from airflow_provider_browseract.exceptions import (
    BudgetUnknownError,
    NoSlotError,
    RunFailedError,
    RunTimedOutError,
)
from tests.stories.player import DIES, KINDS, SHAPES, WAYS, Try

DOWN, ENDED, GONE = RequestFault.status(503), RequestFault.refused(10121), RequestFault.refused(10112)
TOO_MANY = RequestFault.refused(12345, "Too many concurrent tasks")
IN_USE = RequestFault.refused(12346, "A Standard Browser allows only one active task at a time.")
BUDGET, ENOUGH = {"daily_credits": 30}, {"daily_credits": 40}
SHORT = {"timeout": 300}
NOT_STOPPED = "could not be stopped ... may keep running and using credits until you stop it at"
TAKES_LONG, NO_WAIT = {"duration": 7200.0}, {"wait_for_completion": False}

STORIES = {
    # Each run uses 20 credits.
    "within the budget": ([Try(extra=ENOUGH), Try(extra=ENOUGH, cleared=True)], "finished finished"),
    "budget is used up by others": (
        [Try(AirflowFailException, others=2, extra={"daily_credits": 10}, says="daily_credits")],
        "running running",
    ),
    "budget cannot be checked": (
        [Try(BudgetUnknownError, extra=BUDGET, faults={"list": (DOWN, None)}, says="503")],
        "",
    ),
    "slot becomes free": ([Try(others=5, says="no free slot now; 5 runs are active")], "finished " * 6),
    "plan is full, in other words": ([Try(faults={"start": (TOO_MANY, 2)}, says="no free slot")], "finished"),
    "browser is in use": ([Try(faults={"start": (IN_USE, 2)}, says="no free slot")], "finished"),
    "no slot becomes free in time": (
        [Try(NoSlotError, others=5, run=TAKES_LONG, args={"queue_timeout": 30}, says="No run was started")],
        "running " * 5,
    ),
    "deadline before the start of a run that is queued": (
        [Try(RunTimedOutError, run={"queued": 900.0}, args=SHORT, says="was stopped")],
        "canceled",
    ),
    "deadline, and the stop fails": (
        [Try(RunTimedOutError, run=TAKES_LONG, args=SHORT, faults={"stop": (DOWN, None)}, says=NOT_STOPPED)],
        "running",
    ),
    "deadline of a run that ends before its stop": (
        [Try(RunTimedOutError, run=TAKES_LONG, args=SHORT, faults={"stop": (ENDED, None)}, says="had already ended")],
        "running",
    ),
    "deadline of a run that is unknown by then": (
        [Try(RunTimedOutError, run=TAKES_LONG, args=SHORT, faults={"stop": (GONE, None)}, says="had already ended")],
        "running",
    ),
    "not waited for": ([Try(args=NO_WAIT, says="Not waiting for")], "running"),
    "not waited for, and the worker dies": (
        [Try(DIES, dies="after start", run=TAKES_LONG, args=NO_WAIT), Try(args=NO_WAIT, says="Reattaching to")],
        "running",
    ),
    "failure has its code": (
        [Try(RunFailedError, run={"outcome": "failed", "failure": (1011, "captcha")}, says="captcha (code 1011)")],
        "failed",
    ),
    "text as output": ([Try(run={"output": "sold out"}, args={"output_format": "text"})], "finished"),
    "run is listed late after a lost start": (
        [Try(run={"listed_after": 5.0}, faults={"start": (RequestFault.lost_response(), 1)})],
        "finished",
    ),
    "polls fail now and then": ([Try(run={"duration": 900.0}, faults={"read": (DOWN, 4)})], "finished"),
    "poll is never answered": ([Try(faults={"read": (RequestFault.hung(), 1)})], "finished"),
    "BrowserAct answers slowly": ([Try(faults={"read": (RequestFault.slow(20), 3)})], "finished"),
    "a web page instead of a poll": ([Try(faults={"read": (RequestFault.html(), 2)})], "finished"),
    "dry run": ([Try(AirflowSkipException, args={"dry_run": True})], ""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STORIES)
def test_story(name, way, shapes, kind, player):
    tries, runs = STORIES[name]
    player(kind, way, shapes).play(tries, runs.strip())


# In the vendor's examples, the runs of workflows have no credits.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_run_over_the_budget_is_not_started(way, kind, player):
    refused = Try(AirflowFailException, extra=BUDGET, cleared=True, says="20 of 30 credits are used")
    player(kind, way).play([Try(extra=BUDGET), refused], "finished")
