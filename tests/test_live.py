"""``make live`` against the emulator: what it prints, that it asks before a start, and that it leaves no run active."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from airflow_provider_browseract.emulator import CONTACTS, SEARCH, Emulator, RequestFault
from dev import live
from tests.helpers.cases import cases
from tests.helpers.demos import accept_stops_of_ended_runs, refuse_with, respond_as_in_the_demos
from tests.helpers.local_airflow import free_port
from tests.helpers.pages import ROOT

KEY = "app-very-secret-key"
WORKFLOW = {"WORKFLOW_ID": SEARCH.id, "INPUT_PARAMETERS": '{"keyword": "very secret pens", "max_items": 2}'}
BOT = {"BOT_ID": CONTACTS.id, "BOT_INPUT": '{"company_name": "Very secret company"}'}
FULL_PLAN = "a start of the bot beside another run, with a full plan"


@pytest.fixture
def emulator():
    emulator = Emulator(api_key=KEY)
    for each in (SEARCH, CONTACTS):
        emulator.set_workflow(each.id, duration=0.5)
    with emulator.serve() as running:
        yield running


@pytest.fixture
def run(emulator, monkeypatch, capfd):
    """Return a function that runs the command, and returns its exit code, its rows and its errors."""
    monkeypatch.setattr(live, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr(live, "LATE", 1.0)
    monkeypatch.setattr(live, "LISTED", 0.5)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run_(answer: str = "yes", **variables: str) -> tuple[int, dict[str, str], str]:
        for name, value in {"BROWSERACT_API_KEY": KEY, "BROWSERACT_URL": emulator.url, **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("builtins.input", lambda _: answer)
        code = live.main()
        printed = capfd.readouterr()
        assert all(secret not in printed.out + printed.err for secret in ("ery secret", KEY, "t0ken"))
        rows = [line.split(maxsplit=1) for line in printed.out.splitlines()]
        by_name = {what: f"{mark} {text}" for mark, row in rows for what, _, text in [row.partition(": ")]}
        return code, by_name, printed.err

    yield run_
    for number, handler in before.items():
        signal.signal(number, handler)


def statuses(emulator: Emulator) -> list[str]:
    return [task.status for task in emulator.tasks]


EXPECTED = {
    "an unknown run": "ok expected TaskNotFoundError, found TaskNotFoundError (code 10112",
    "given inputs that are not declared": "ok expected none",
    "its inputs there": "ok expected those of this run alone, found the same",
    "the profile that it saves": "ok expected a profile",
    "the run in the other API": "ok expected TaskNotFoundError, found TaskNotFoundError",
    "statuses of the workflow": "ok expected finished, and known ones before, found ",
    "statuses of the bot": "ok expected finished, and known ones before, found ",
    "its credits after the end": "ok expected final in the first response",
    "its output": "ok expected within 1 s, found after 0 s",
    "its callback": "ok expected within 1 s, found came",
    "a stop of it": "ok expected TaskEndedError",
    "a resume of it": "ok expected ",
}


def test_free_plan_starts_one_run_of_each_and_shows_how_a_full_plan_is_refused(emulator, run):
    port = str(free_port())
    callbacks = {"CALLBACK_URL": f"http://127.0.0.1:{port}/t0ken", "CALLBACK_PORT": port}
    code, rows, _ = run(**WORKFLOW, **BOT, **callbacks)
    expected = {**EXPECTED, FULL_PLAN: "ok expected ConcurrencyLimitError, found ConcurrencyLimitError (code 10118"}
    assert {what: text for what, text in expected.items() if not rows[what].startswith(text)} == {}
    assert code == 0
    assert statuses(emulator) == ["finished", "finished"]


def test_demos_of_browseract_on_a_larger_plan_differ_in_nothing_but_the_stop_of_an_ended_run(emulator, run):
    respond_as_in_the_demos(emulator)
    emulator.as_in_the_demos = True
    emulator.concurrency = 5
    accept_stops_of_ended_runs(emulator)
    code, rows, _ = run(**WORKFLOW, **BOT)
    assert code == 1
    assert [what for what, text in rows.items() if text.startswith("DIFFERENT")] == ["a stop of it"]
    assert FULL_PLAN not in rows
    assert statuses(emulator) == ["finished", "finished"]


def test_unknown_refusal_of_a_full_plan_is_printed_with_its_words_and_without_secrets(emulator, run):
    respond_as_in_the_demos(emulator)
    refuse_with(emulator, 20118, "No browser left for very secret pens")
    code, rows, _ = run(**WORKFLOW, **BOT)
    assert code == 1
    assert rows[FULL_PLAN].startswith("DIFFERENT expected ConcurrencyLimitError, found UnknownRefusalError (code 20118")
    assert rows[FULL_PLAN].endswith(": No browser left for ***")


def test_nothing_is_started_without_a_yes(emulator, run):
    code, rows, _ = run("y", **WORKFLOW)
    assert code == 0
    assert rows["an unknown workflow"].startswith("ok ")
    assert statuses(emulator) == []


@cases(
    ("no source", {}, "Set BROWSERACT_API_KEY, and WORKFLOW_ID or BOT_ID"),
    ("unreadable", {**WORKFLOW, **BOT, "BOT_INPUT": "{"}, "Expecting property name"),
    ("no object", {**WORKFLOW, **BOT, "BOT_INPUT": "[]"}, "BOT_INPUT is not a JSON object"),
)
def test_all_that_is_set_is_read_before_anything_is_sent(emulator, run, variables, reason):
    code, rows, error = run(**variables)
    assert (code, rows, emulator.requests) == (2, {}, [])
    assert reason in error


def test_run_that_does_not_end_is_stopped(emulator, run):
    emulator.set_workflow(SEARCH.id, duration=60.0)
    code, rows, error = run(**WORKFLOW, LIVE_TIMEOUT="0.2")
    assert (code, error, statuses(emulator)) == (1, "", ["canceled"])
    assert rows["the end of the workflow"] == "DIFFERENT expected within 0.2 s, found running"


def test_run_is_stopped_when_browseract_fails(emulator, run):
    emulator.set_workflow(SEARCH.id, duration=60.0)
    emulator.fault("get-task", RequestFault.refused(99002, "Not for very secret pens"))
    code, _, error = run(**WORKFLOW)
    assert (code, statuses(emulator)) == (1, ["canceled"])
    assert "BrowserAct refused get-task: Not for ***" in error


def test_run_that_cannot_be_stopped_is_named(emulator, run):
    emulator.set_workflow(SEARCH.id, duration=60.0)
    emulator.fault("stop-task", RequestFault.refused(99002))
    code, _, error = run(**WORKFLOW, LIVE_TIMEOUT="0.2")
    assert code == 1
    assert f"BrowserAct task {emulator.tasks[0].id} of workflow {SEARCH.id} may be active and using credits" in error


@cases(
    ("workflow", "run-task", RequestFault.lost_response(), ["running"]),
    ("bot, after a workflow", "create-run", RequestFault.lost_response(), ["canceled", "running"]),
)
def test_start_without_a_clear_response_is_the_last_one_and_is_named(emulator, run, endpoint, fault, left):
    emulator.concurrency = 5
    for each in (SEARCH, CONTACTS):
        emulator.set_workflow(each.id, duration=60.0)
    emulator.fault(endpoint, fault)
    code, _, error = run(**WORKFLOW, **BOT)
    assert code == 1
    assert re.search("A start of (workflow|bot) [0-9]+ may have created a run, which may be using credits", error)
    assert statuses(emulator) == left


@cases(
    ("SIGINT during the start", signal.SIGINT, True),
    ("SIGTERM after the start", signal.SIGTERM, False),
    ("SIGHUP after the start", signal.SIGHUP, False),
)
def test_signal_ends_the_command_and_leaves_no_run(emulator, ending, while_starting):
    emulator.set_workflow(SEARCH.id, duration=60.0)
    if while_starting:
        emulator.fault("run-task", RequestFault.slow(2.0))
    # The tests may run under nohup, which lets processes ignore this signal.
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); from dev import live; exit(live.main())"
    variables = {"BROWSERACT_API_KEY": KEY, "BROWSERACT_URL": emulator.url, "PYTHONPATH": str(ROOT), **WORKFLOW, **BOT}
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **variables}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as command:
        assert command.stdin
        command.stdin.write(b"yes\n")
        command.stdin.flush()
        emulator.wait_until(lambda: [run for run in emulator.tasks if while_starting or run.status == "running"], 60)
        command.send_signal(ending)
        assert command.wait(60) == 130
    assert statuses(emulator) == ["canceled"]
