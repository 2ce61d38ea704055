"""What a task instance comes to, try after try: each story in the worker and deferred, with a workflow and a bot."""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowFailException as FAILS
from airflow_provider_browseract.compat import AirflowSkipException
from airflow_provider_browseract.emulator import ORDERS, RequestFault
from airflow_provider_browseract.exceptions import (
    AuthenticationError,
    BudgetUnknownError,
    InsufficientCreditsError,
    NoSlotError,
    ResponseLostError,
    RunCanceledError,
    RunFailedError,
    RunLostError,
    RunStartUnknownError,
    RunTimedOutError,
    UnexpectedResponseError,
)
from airflow_provider_browseract.worker import showing
from tests.stories.player import DEFERS, KINDS, SHAPES, WAYS, Try

INK, OTHER = {"inputs": {"keyword": "ink"}}, {"source": ORDERS.id, "inputs": None}
NO_STATE, NO_WAIT, ENOUGH = {"durable": False}, {"wait_for_completion": False}, {"daily_credits": 40}
NO_PAUSE = {"on_paused": "fail", "cancel_on_kill": False}
SHORT, LONG, PAUSES = {"timeout": 300}, {"duration": 900}, {"pause_at": 0.5}

LOST, RESET = RequestFault.lost_response(), RequestFault.reset()
DOWN, PAGE = RequestFault.status(503), RequestFault.html()
GONE, FULL, ENDED = (RequestFault.refused(code) for code in (10112, 10118, 10121))
LOCKED, NO_CREDITS = RequestFault.refused(4711, "Locked."), RequestFault.refused(90002, "Insufficient credits.")
LOST_START = {"start": (LOST, 1)}
NO_LOOK_UP = {**LOST_START, "list": (DOWN, None)}
NO_STOP, NO_READ = {"stop": (DOWN, None)}, {"read": (DOWN, None)}
FORGOTTEN, NO_RIGHT = {"read": (GONE, None)}, {"read": (LOCKED, None)}
NO_SLOT, IN_A_QUEUE = {"start": (FULL, None)}, {"queue_timeout": 600}
NO_KEY = {"*": (RequestFault.refused(401, http_status=401), None)}

KILLED_EARLY = "RunCanceledError('Killed before a run was started.')"
STARTS_ANEW = "Starting a new run, because the Airflow task was"
REATTACHES, HAS_BEGUN = "Reattaching to", "An earlier try has started a run."
NOT_STOPPED = "The run could not be stopped (BrowserAct failed at ... It may keep running and using credits until"
UNKNOWN, WRONG_HOST = "not known whether BrowserAct started a run ... stop the one", "host of the Airflow connection"
REFUSED_ONCE = "no free slot now, and has refused the start once"
UNCOUNTED = "cannot be counted, so no run was started: ... 503 ... next try counts"
MAY_RUN_AND_STOPPED = "a run may be running and using credits ... set to a final state.\nThe run was stopped."
NOT_KNOWN = "could not be stopped: BrowserAct does not know the run with this API key"
STAYS = "could not be stopped ... may keep running and using credits until you stop it at"

LOSES_WORKER = Try(dies="after read")
LOSES_WORKER_EARLY = Try(dies="after read", run=LONG)
OVERDUE = Try(RunTimedOutError, run=LONG, args=SHORT, says="had already ended", runs="running")
MARKED: Any = partial(Try, killed="read", state="failed")

STORIES = {
    "all is well": [Try()],
    "worker dies after the start": [Try(dies="after start"), Try(says=REATTACHES)],
    "worker dies before the start": [Try(dies="before start"), Try(says="No matching run")],
    "worker dies after it knows the run": [LOSES_WORKER, Try(says=REATTACHES)],
    "run ends between tries": [LOSES_WORKER, Try(later=600)],
    "start is lost": [Try(faults=LOST_START)],
    "start is reset": [Try(faults={"start": (RESET, 1)}, says="start 1 of 2")],
    "each start is reset": [Try(ResponseLostError, faults={"start": (RESET, None)}, runs="")],
    "lost start cannot be looked up": [Try(RunStartUnknownError, faults=NO_LOOK_UP, says="failed"), Try()],
    "lost start cannot be looked up without durable": [Try(FAILS, faults=NO_LOOK_UP, args=NO_STATE, says=UNKNOWN)],
    # It may be a maintenance page, so Airflow's retries apply.
    "a web page instead of a start": [
        Try(UnexpectedResponseError, faults={"start": (PAGE, None)}, says=WRONG_HOST),
        Try(),
    ],
    "run fails": [
        Try(RunFailedError, run={"outcome": "failed"}),
        Try(says="The run of an earlier try has ended as failed", runs="failed finished"),
    ],
    "run is canceled": [Try(RunCanceledError, run={"outcome": "canceled"}), Try(runs="canceled finished")],
    "deadline": [Try(RunTimedOutError, run=LONG, args=SHORT, says="was stopped"), Try(runs="canceled finished")],
    "other inputs": [LOSES_WORKER, Try(args=INK, says="had other inputs", runs="canceled finished")],
    "another workflow": [LOSES_WORKER, Try(args=OTHER, says="it is a run of", runs="canceled finished")],
    "other inputs after the end": [LOSES_WORKER, Try(args=INK, later=600, runs="finished finished")],
    "other inputs, stop fails": [LOSES_WORKER, Try(RunLostError, args=INK, faults=NO_STOP, says="503", runs="running")],
    "other inputs after a lost start": [Try(dies="after start", run=LONG), Try(FAILS, args=INK, runs="running")],
    "run is forgotten": [
        Try(RunLostError, faults=FORGOTTEN, says="still active ... code 10112"),
        Try(FAILS, faults=FORGOTTEN, says="Nothing was started", runs="running"),
    ],
    "run is forgotten until the task is cleared": [
        Try(RunLostError, faults=FORGOTTEN),
        Try(cleared=True, faults={"read": (GONE, 1)}, says=STARTS_ANEW, runs="finished finished"),
    ],
    "earlier run cannot be read": [
        LOSES_WORKER_EARLY,
        Try(RunLostError, faults=NO_READ, says=HAS_BEGUN),
        Try(says=REATTACHES),
    ],
    "read of the earlier run is refused": [LOSES_WORKER_EARLY, Try(RunLostError, faults=NO_RIGHT, runs="running")],
    "key is refused in a later try": [
        LOSES_WORKER_EARLY,
        Try(RunLostError, faults=NO_KEY, says=HAS_BEGUN, runs="running"),
    ],
    "two runs could be the lost one": [
        Try(FAILS, others=1, faults=LOST_START, says="may be the one that it created", runs="finished finished")
    ],
    "marked as failed during the start": [
        MARKED(RunCanceledError, killed="start", run=LONG, says=MAY_RUN_AND_STOPPED, runs="canceled")
    ],
    "evicted without durable during the start of a run that ends at once": [
        Try(killed="start", run={"duration": 0.0}, args=NO_STATE, says="had already ended. Reading its result.")
    ],
    "evicted": [Try(RunLostError, killed="read", says="reattaches"), Try(says=REATTACHES)],
    "killed before the start": [Try(RunCanceledError, killed="look", says=KILLED_EARLY), Try()],
    "killed, stop fails": [MARKED(RunCanceledError, faults=NO_STOP, says=NOT_STOPPED, runs="running")],
    "plan is full": [
        Try(faults={"start": (FULL, 3)}, says=f"{REFUSED_ONCE}. Waiting for at most 7 h 0 min. ... 3 times.")
    ],
    "plan is full, and the task is killed": [
        Try(RunCanceledError, faults={"start": (FULL, 1)}, killed="start", says=KILLED_EARLY, runs="")
    ],
    "plan stays full": [Try(NoSlotError, faults=NO_SLOT, args=IN_A_QUEUE, says="No run was started", runs="")],
    "too many requests": [Try(faults={"start": (RequestFault.status(429), 2)}, says="too many requests")],
    "cap": [Try(FAILS, run={"step_every": 2.0}, args={"max_credits": 100}, says="max_credits=100", runs="canceled")],
    "pause": [Try(run={**PAUSES, "pause_limit": 600.0}, says="waits for a person: http")],
    "pause with on_paused=fail": [Try(FAILS, run=PAUSES, args=NO_PAUSE, says="paused for a person", runs="canceled")],
    "pause with on_paused=fail, stop fails": [
        Try(RunLostError, run=PAUSES, args=NO_PAUSE, faults=NO_STOP, says="The next try reattaches to the run."),
        Try(FAILS, args=NO_PAUSE, says="paused for a person", runs="canceled"),
    ],
    "no credits": [Try(InsufficientCreditsError, faults={"start": (NO_CREDITS, 1)}, says="add"), Try()],
    "start is refused": [Try(FAILS, faults={"start": (LOCKED, 1)}, says="Locked.", runs="")],
    "key is refused": [Try(AuthenticationError, faults=NO_KEY), Try()],
    "sibling has the other run": [Try(others=1, sibling=True, faults=LOST_START, runs="finished finished")],
    "cleared after success": [Try(), Try(cleared=True, runs="finished finished")],
    "BrowserAct is down without durable": [
        Try(RunLostError, faults=NO_READ, run={"duration": 1500}, args=NO_STATE, runs="canceled")
    ],
    "output in another format": [Try(FAILS, args={"output_format": "csv"}), Try(cleared=True)],
    "not durable": [Try(args=NO_STATE), Try(args=NO_STATE, runs="finished finished")],
    "BrowserAct is down": [Try(RunLostError, run=LONG, faults=NO_READ), Try(later=60)],
    "run takes an hour": [Try(run={"duration": 3600})],
    "output is late": [Try(run={"output_after": 10})],
    # Each run uses 20 credits.
    "within the budget": [Try(extra=ENOUGH), Try(extra=ENOUGH, cleared=True, runs="finished finished")],
    "slot becomes free": [Try(others=5, says=REFUSED_ONCE, runs=" ".join(["finished"] * 6))],
    "deadline before the start of a run that is queued": [
        Try(RunTimedOutError, run={"queued": 900.0}, args=SHORT, says="was stopped", runs="canceled")
    ],
    "deadline, and the stop fails": [replace(OVERDUE, faults=NO_STOP, says=STAYS)],
    "deadline of a run that ends before its stop": [
        Try(run={"duration": 299.9}, args=SHORT, faults={"read": (RequestFault.slow(5), None)})
    ],
    "deadline of a run that is unknown by then": [replace(OVERDUE, faults={"stop": (GONE, None)}, says=NOT_KNOWN)],
    "not waited for": [Try(args=NO_WAIT, says="Not waiting for", runs="running")],
    "not waited for, and the worker dies": [
        Try(dies="after start", run=LONG, args=NO_WAIT),
        Try(args=NO_WAIT, says=REATTACHES, runs="running"),
    ],
    "run is listed late after a lost start": [Try(run={"listed_after": 5.0}, faults=LOST_START)],
    "polls fail now and then": [Try(run=LONG, faults={"read": (DOWN, 4)})],
    "poll is never answered": [Try(faults={"read": (RequestFault.hung(), 1)})],
    "BrowserAct answers slowly": [Try(faults={"read": (RequestFault.slow(20), 3)})],
    "dry run": [Try(AirflowSkipException, args={"dry_run": True}, runs="")],
    "inputs cannot be checked": [Try(faults={"look": (DOWN, None)}, says="The inputs were not checked: BrowserAct")],
    "a web page instead of the inputs": [
        Try(UnexpectedResponseError, faults={"look": (PAGE, None)}, says=WRONG_HOST, runs="")
    ],
    "inputs are not checked before a reattach": [LOSES_WORKER, Try(faults={"look": (GONE, None)}, says=REATTACHES)],
    "credits cannot be counted": [
        Try(BudgetUnknownError, extra=ENOUGH, faults={"list": (DOWN, None)}, says=UNCOUNTED),
        Try(extra=ENOUGH),
    ],
    "budget is not checked before a reattach": [LOSES_WORKER, Try(extra={"daily_credits": 1}, says=REATTACHES)],
    "run is not known right after its start": [Try(faults={"read": (GONE, 1)}, says="The run cannot be read yet: ")],
    "argument is invalid in a later try": [
        LOSES_WORKER_EARLY,
        Try(FAILS, args={"inputs": "pens"}, says=f"a dict ... {HAS_BEGUN} The run was stopped.", runs="canceled"),
    ],
}
DEFERRED = {
    "cleared while deferred": [
        Try(DEFERS),
        Try(cleared=True, says=f"was stopped. {STARTS_ANEW} cleared", runs="canceled finished"),
    ],
    "cleared after the end": [Try(DEFERS), Try(cleared=True, later=600)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(("name", "way"), [*itertools.product(STORIES, WAYS), *itertools.product(DEFERRED, WAYS[1:])])
def test_story(name, way, shapes, kind, player):
    player(kind, way, shapes).play(*{**STORIES, **DEFERRED}[name])


# In the vendor's examples, the runs of workflows have no credits.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_run_over_the_budget_is_not_started(way, kind, player):
    budget = {"daily_credits": 30}
    refused = Try(FAILS, extra=budget, cleared=True, says="20 of 30 credits are used")
    player(kind, way).play(Try(extra=budget), refused)


@pytest.mark.parametrize("name", ["deadline", "pause with on_paused=fail"])
@pytest.mark.parametrize("way", WAYS)
def test_run_that_the_task_stops_is_counted_with_its_credits_and_shown(way, name, world, player, monkeypatch):
    counted = []
    monkeypatch.setattr(showing, "count_in_task", lambda name, **how: counted.append((name, how)))
    found = player("workflow", way)
    found.play_try(STORIES[name][0])
    [run] = world.emulator.tasks
    status = {"tags": {"status": "canceled"}}
    assert counted == [("browseract.runs", status), ("browseract.credits", {"by": run.credit})]
    assert "Canceled after " in found.log
