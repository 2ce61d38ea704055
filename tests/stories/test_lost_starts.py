"""Starts whose response is late, lost or replaced, runs that cannot be read, and what people do in the meantime."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowFailException as FAILS
from airflow_provider_browseract.compat import AirflowSkipException
from airflow_provider_browseract.emulator import RequestFault, Response
from airflow_provider_browseract.exceptions import (
    ResultError,
    RunCanceledError,
    RunFailedError,
    RunLostError,
    RunStartUnknownError,
    RunTimedOutError,
    UnexpectedResponseError,
)
from tests.helpers.workers import calls_of
from tests.stories.player import KINDS, WAYS, Try

LONG, LOST = {"duration": 3600}, {"start": (RequestFault.lost_response(), 1)}
GONE, REFUSED, DOWN = RequestFault.refused(10112), RequestFault.refused(99001), RequestFault.status(503)
LOOKING, FOUND = "Looking for it for up to 120 seconds: ", "The run of this start was found"
NEWEST = "Check the newest tasks"
NO_STATE = {"durable": False}
ASKS, NO_WAIT = {"on_paused": "ask"}, {"wait_for_completion": False}
LOSES_WORKER = Try(dies="after read", run=LONG)
CLEARED = Try(cleared=True, runs="canceled finished", says="the Airflow task was cleared")
MARKED: Any = partial(Try, RunCanceledError, state="failed", run=LONG)
UNKNOWN_START = Try(RunStartUnknownError, faults={**LOST, "list": (DOWN, None)}, run=LONG)


def page(status: int) -> Any:
    return lambda _: Response(status, b"<html>Blocked</html>", "text/html")


def gateway(status: int) -> Any:
    return lambda _: Response(status, b'{"message": "Blocked"}')


REPLACED = {
    **{f"page with {status}": page(status) for status in (200, 403, 404)},
    **{f"JSON with {status}": gateway(status) for status in (400, 401, 404)},
}
SLOW = {
    "read timeout": (30.0, None, 60.0),
    "HTTP 504": (60.0, 504, 100.0),
    "HTTP 524": (100.0, 524, 125.0),
    "a minute and a half later": (30.0, None, 120.0),
}
STORIES = {
    **{name: [Try(slow_start=how, says=f"{LOOKING} ... {FOUND}")] for name, how in SLOW.items()},
    **{name: [Try(instead={"start": change}, says=f"{LOOKING} ... {FOUND}")] for name, change in REPLACED.items()},
    "marked while it is looked up": [
        MARKED(killed="list", faults=LOST, says="run of this start was found ... The run was stopped", runs="canceled")
    ],
    "marked before it must be listed": [
        MARKED(
            killed="start", faults=LOST, says=f"not known whether ... {NEWEST} ... BrowserAct tasks of", runs="running"
        )
    ],
    "marked, and the list cannot be read": [
        MARKED(killed="list", faults={**LOST, "list": (REFUSED, None)}, says="looking for it failed", runs="running")
    ],
    "marked with cancel_on_kill=False": [
        Try(
            RunLostError,
            killed="list",
            state="failed",
            faults=LOST,
            run=LONG,
            args={"cancel_on_kill": False},
            says="If so, it keeps running and using credits because cancel_on_kill=False.",
            runs="running",
        )
    ],
    "evicted without a later try while it is looked up": [
        Try(RunCanceledError, killed="list", faults=LOST, run=LONG, args=NO_STATE, says="was stopped", runs="canceled")
    ],
    "evicted without a later try, and the run has finished": [
        Try(killed="list", faults=LOST, args=NO_STATE, says="had already ended. Reading its result.")
    ],
    "evicted without a later try before it must be listed": [
        Try(FAILS, killed="start", faults=LOST, run=LONG, args=NO_STATE, says=NEWEST, runs="running")
    ],
    "evicted while it is looked up": [
        Try(RunLostError, killed="list", faults=LOST, says="The next try looks for it."),
        Try(says="Reattaching to"),
    ],
    "list cannot be read until the task is cleared": [
        UNKNOWN_START,
        Try(
            cleared=True,
            later=300,
            runs="canceled finished",
            says="was stopped. Starting a new run, because the Airflow task was",
        ),
    ],
    "run finishes before the stop of a clear": [
        LOSES_WORKER,
        Try(cleared=True, later=3585, faults={"read": (RequestFault.slow(20), 1)}, says="Reattaching to"),
    ],
    "field of the connection cannot be read in a later try": [
        LOSES_WORKER,
        Try(RunLostError, extra={"read_timeout": "soon"}, says="names a run, which may be active"),
        Try(says="Reattaching to"),
    ],
    "key of another account, marked": [
        MARKED(killed="read", faults={"stop": (GONE, None)}, says="does not know the run with", runs="running")
    ],
    "dry run after the worker was lost": [
        LOSES_WORKER,
        Try(AirflowSkipException, args={"dry_run": True}, says="may be active and using credits", runs="running"),
    ],
    "dry run after the end of an earlier run": [
        Try(dies="after read"),
        Try(AirflowSkipException, args={"dry_run": True}, later=600),
    ],
    "stop at the deadline that got no response": [
        Try(
            RunTimedOutError,
            run=LONG,
            args={"timeout": 300},
            faults={"stop": (RequestFault.lost_response(), 1)},
            says="did not end within timeout=300 seconds.\nThe run was stopped. Raise",
            runs="canceled",
        )
    ],
    "worker was lost, then cleared": [LOSES_WORKER, CLEARED],
    "worker was lost with on_paused=ask, then cleared": [replace(LOSES_WORKER, args=ASKS), replace(CLEARED, args=ASKS)],
    "success without waiting, then cleared": [
        Try(args=NO_WAIT, run=LONG),
        Try(args=NO_WAIT, cleared=True, run=LONG, runs="running running"),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STORIES)
def test_story(name, way, kind, player):
    player(kind, way).play(*STORIES[name])


@pytest.mark.parametrize("kind", KINDS)
def test_lost_run_that_is_found_and_cannot_be_read_is_not_reported_as_an_unknown_start(kind, player):
    found = player(kind, WAYS[0])
    found.play(
        Try(dies="after start", run=LONG),
        Try(RunLostError, faults={"read": (DOWN, None)}, says="An earlier try has started a run.", runs="running"),
    )
    assert "not known whether" not in found.log


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", [RequestFault.html(status) for status in (200, 403, 404)], ids=str)
def test_start_whose_response_is_a_web_page_is_sent_at_most_twice_per_try(fault, way, player):
    found = player("workflow", way)
    found.play(
        Try(UnexpectedResponseError, faults={"start": (fault, None)}, says="host of the Airflow", runs=""), Try()
    )
    assert calls_of(found.world.emulator, "run-task") == 3


def once(change: Any) -> Any:
    """Change only the first response."""
    left = iter([change])
    return lambda response: next(left, lambda same: same)(response)


@pytest.mark.parametrize("envelope", [{}, {"msg": "Full.", "traceId": "t"}], ids=["code alone", "envelope"])
def test_full_plan_with_and_without_an_envelope_waits_for_a_slot_and_looks_nothing_up(envelope, player):
    refused = Response(400, json.dumps({"code": 10118, **envelope}).encode())
    found = player("workflow", WAYS[0])
    # The emulator does not process the request, and its response is replaced.
    found.play(Try(faults={"start": (RequestFault.refused(10118), 1)}, instead={"start": once(lambda _: refused)}))
    assert LOOKING not in found.log


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("behind", [-90.0, 90.0])
def test_start_is_not_sent_again_after_an_empty_list_if_the_clocks_differ(behind, way, player):
    found = player("workflow", way)
    emulator, clock = found.world.emulator, found.world.clock
    emulator.clock = lambda: clock.now + behind
    if behind > 0:
        found.play(Try(faults=LOST))
        return
    found.play(
        Try(RunStartUnknownError, faults=LOST, says="BrowserAct's clock shows ... and that of this machine"),
        Try(RunStartUnknownError, later=600, says="BrowserAct's clock shows"),
        Try(cleared=True, later=600, runs="finished finished", says="because the Airflow task was cleared"),
    )


# Runs that have ended and cannot be read


def body(change: Any) -> Any:
    def changed(response: Response) -> Response:
        found = json.loads(response.body)
        return response if found.get("status") != "finished" else change(response, found)

    return changed


def with_output(output: str) -> Any:
    def change(response: Response, found: Any) -> Response:
        text = json.dumps({**found, "output": "@"}).replace('"@"', output)
        return response._replace(body=text.encode("latin-1"))

    return body(change)


UNREADABLE = {
    "invalid byte": '"\xff"',
    "5,000 digits": "1" * 5000,
    "3,000 levels": "[" * 3000 + "]" * 3000,
    "200,000 levels": "[" * 200_000 + "]" * 200_000,
    "null as a file": '{"files": [null]}',
    "list": "[1]",
    "unknown members": '{"text": "x"}',
}
# From Python 3.12 on, json reads 3,000 levels, and the output of a bot may be any JSON.
OF_BOTS = ("invalid byte", "5,000 digits", "200,000 levels")
CANNOT = "The run finished, but its output cannot be read: "


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "name"), [*(("workflow", name) for name in UNREADABLE), *(("bot", name) for name in OF_BOTS)]
)
def test_finished_run_that_cannot_be_read_fails_after_one_deferral_and_the_next_try_reads_it(kind, name, way, player):
    found = player(kind, way)
    began = found.world.clock.now
    change = with_output(UNREADABLE[name])
    found.play_try(Try(ResultError, instead={"read": change}, says=f"{CANNOT} ... Reading the run again"))
    # The run takes a minute, the next poll ten seconds more, and two more reads seven.
    assert found.world.clock.now - began < 110
    assert found.log.count("Waiting in the triggerer") == (way == "deferred")
    found.play(Try(says="Reattaching to"))


@pytest.mark.parametrize("way", WAYS)
def test_run_that_ends_between_its_pause_and_the_stop_returns_its_result(way, player):
    paused = once(lambda response: response._replace(body=response.body.replace(b'"finished"', b'"paused"')))
    args = {"on_paused": "fail"}
    player("workflow", way).play(Try(run={"duration": 0.0}, args=args, instead={"read": paused}, says="paused"))


@pytest.mark.parametrize(("outcome", "error"), [("failed", RunFailedError), ("canceled", RunCanceledError)])
@pytest.mark.parametrize("way", WAYS)
def test_failed_or_canceled_run_that_cannot_be_read_ends_the_wait(outcome, error, way, player):
    cut = {"read": lambda response: response._replace(body=response.body.replace(b'"id"', b'"x', 1))}
    player("workflow", way).play(Try(error, run={"outcome": outcome, "duration": 0.0}, instead=cut, runs=outcome))


@pytest.mark.parametrize("way", WAYS)
def test_run_without_output_succeeds_with_a_warning(way, player):
    player("workflow", way).play(Try(type(None), instead={"read": with_output("null")}, says="without any output"))


@pytest.mark.parametrize("way", WAYS)
def test_result_that_airflow_could_not_store_is_read_again_after_a_clear(way, player, monkeypatch):
    found = player("workflow", way)
    # Airflow calls no on_success_callback of a task that it could not make a success.
    monkeypatch.setattr("airflow_provider_browseract.operators.base.task_instance_state", lambda ti: "failed")
    found.play(Try(), Try(cleared=True, later=600, says="Reattaching to"))
