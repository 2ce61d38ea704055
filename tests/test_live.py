"""``make live`` against the emulator: it asks everything, leaves no run active, and prints nothing that is secret."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx
import pytest

from airflow_provider_browseract.emulator import (
    AGENT_HUMAN,
    CONTACTS,
    HUMAN,
    SEARCH,
    TEMPLATE_SEARCH,
    Emulator,
    RequestFault,
)
from dev import live, live_session
from dev.live import SOURCES
from dev.live_session import PLAN_HAS_SLOTS, WHILE_ACTIVE, Live, Settings, lines, redacted
from tests.helpers.cases import cases
from tests.helpers.catalogue import add
from tests.helpers.demos import accept_stops_of_ended_runs, refuse_with, respond_as_in_the_demos
from tests.helpers.local_airflow import free_port

KNOWN = "Does the provider know a full plan by it?"
KEY = "app-very-secret-key"
INPUTS: dict[str, dict[str, Any]] = {
    SEARCH.id: {"keyword": "very secret pens"},
    CONTACTS.id: {"company_name": "Very secret company"},
    TEMPLATE_SEARCH.id: {"keyword": "pens"},
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(live_session, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(live_session, "LATE", 1.0)
    monkeypatch.setattr(live_session, "LISTED", 0.2)


def make_emulator(*, as_in_the_demos: bool = False, **settings: Any) -> Emulator:
    emulator = add(respond_as_in_the_demos(Emulator(api_key=KEY, **settings)))
    emulator.as_in_the_demos = as_in_the_demos
    for each in (SEARCH, CONTACTS):
        emulator.set_workflow(each.id, duration=1.0)
    return emulator


def ask(emulator: Emulator, name: str = "WORKFLOW_ID", source_id: str = SEARCH.id, **settings: Any) -> Live:
    with emulator.serve() as running:
        given = {"inputs": INPUTS.get(source_id, {}), **settings}
        asked = Live(Settings(running.url, KEY, source_id, **given), SOURCES[name].version)
        # A start that gets no response ends the questions.
        with contextlib.suppress(httpx.HTTPError):
            live.ask(asked, SOURCES[name].ask)
    return asked


OF_BOTH = {
    "How is a wrong API key answered?": "HTTP 401, code 401: Invalid authorization",
    WHILE_ACTIVE: "HTTP 400, code 10118: Running tasks number exceeds.",
    KNOWN: "Yes: CODES in airflow_provider_browseract/api/calls.py has code 10118.",
    "Which statuses were seen?": "finished",
    "Is the output there with the status?": "after 0.",
    "Are its credits final in the first response after the end?": ", also 1 s later.",
    "How is a stop of an ended run answered?": "HTTP 400, code 10121: Task has completed.",
}
OF_WORKFLOW = {
    "What does a start with save_browser_data answer?": "HTTP 200, ['id', 'profile",
    "How is a second run with the same profile answered?": "code 10118",
    "How soon does list-tasks have it?": "s after the start",
    "What does a callback have?": "Content-Type",
}
GROWTH = {"Do its credits grow while it is active?": "5 with 1 step > 10 with 2 steps"}
OF_BOT = {
    "Which rules does its input_schema have?": "additionalProperties=False, default, maxLength",
    "How is {} answered, where a value is required?": "code 10143",
    "How is the text '20' answered, where a number is required?": "code 99001",
    "What does a start answer?": "HTTP 200, JSON (dict), ['status', 'task_id']",
    "Is the input in the run as it was sent?": "yes",
    "How does v2 answer for a run of v3?": "code 10112",
    "Does the list of v2 have it?": "no",
    "What does a callback have?": "not asked: set CALLBACK_URL",
    "How is a stop answered?": "HTTP 200, JSON (dict), status canceled",
    "How soon has a stopped run ended?": "after 0.",
}


@cases(
    ("workflow", "WORKFLOW_ID", SEARCH.id, False, {**OF_WORKFLOW, **GROWTH}, ["finished"]),
    ("workflow as in the demos", "WORKFLOW_ID", SEARCH.id, True, OF_WORKFLOW, ["finished"]),
    ("bot", "AGENT_BOT_ID", CONTACTS.id, False, OF_BOT, ["finished", "canceled"]),
)
def test_each_check_has_a_result_no_run_stays_active_and_nothing_secret_is_printed(
    name, source_id, as_in_the_demos, expected, statuses
):
    emulator = make_emulator(as_in_the_demos=as_in_the_demos)
    # Long enough that a busy machine, too, reads the run while it has one step.
    emulator.set_workflow(source_id, duration=4.0)
    settings: dict[str, Any] = {}
    if name == "WORKFLOW_ID":
        port = free_port()
        settings = {"callback_url": f"http://127.0.0.1:{port}/very-secret-t0ken", "callback_port": port}
    asked = ask(emulator, name, source_id, **settings)
    found = dict(asked.answers)
    assert {question: text for question, text in {**OF_BOTH, **expected}.items() if text not in found[question]} == {}
    assert [task.status for task in emulator.tasks] == statuses
    printed = "\n".join(lines(asked))
    assert all(secret not in printed for secret in ("ery secret", "very-secret", *(task.id for task in emulator.tasks)))
    assert max(map(len, printed.partition("\n\n")[0].splitlines())) <= live_session.WIDTH


@cases(("workflow", "WORKFLOW_ID", SEARCH.id), ("bot", "BOT_ID", CONTACTS.id))
def test_second_run_that_a_larger_plan_allows_is_stopped_at_once(name, source_id):
    emulator = make_emulator(concurrency=5)
    accept_stops_of_ended_runs(emulator)
    found = dict(ask(emulator, name, source_id).answers)
    assert ", then stopped: HTTP 200, " in found[WHILE_ACTIVE]
    assert found[KNOWN] == PLAN_HAS_SLOTS
    assert found["How is a stop of an ended run answered?"] == "HTTP 200, an empty body"
    assert [task.status for task in emulator.tasks] == ["finished", "canceled", "canceled"]


@cases(
    ("unknown code", 20118, "No browser left", "No. Add the line '20118: (errors.ConcurrencyLimitError, None),' t"),
    ("known words", 20118, "Too many parallel browsers", "By its words only. Add the line '20118: (errors.Conc"),
    ("code of another error", 99001, "No browser left", "No: CODES in airflow_provider_browseract/api/calls.py"),
    ("unknown words", 0, "No browser left", "No, and it has no code. Add its words to NO_SLOT_WORDS in airflow"),
    ("no code", 0, "Too many parallel browsers", "Yes, without a code: it is a ConcurrencyLimitError."),
)
def test_refusal_of_a_full_plan_is_reported_with_the_line_that_the_provider_needs(code, message, expected):
    emulator = make_emulator()
    refuse_with(emulator, code, message)
    found = dict(ask(emulator).answers)
    assert found[WHILE_ACTIVE] == f"HTTP 400, code {code}: {message}"
    assert found[KNOWN].startswith(expected)


@cases(
    ("paused", "WORKFLOW_ID", HUMAN.id, ()),
    ("endless", "WORKFLOW_ID", SEARCH.id, ()),
    ("bot without required values", "BOT_ID", AGENT_HUMAN.id, ()),
    ("template", "BOT_TEMPLATE_ID", TEMPLATE_SEARCH.id, ()),
    ("start without a response", "WORKFLOW_ID", SEARCH.id, ("run-task", RequestFault.lost_response())),
    ("start with 502", "WORKFLOW_ID", SEARCH.id, ("run-task", RequestFault.lost_response(status=502))),
    # The first starts of a bot are refused.
    ("lost start of a bot", "BOT_ID", CONTACTS.id, ("create-run", RequestFault.lost_response(), 3)),
)
def test_run_that_does_not_end_is_stopped(name, source_id, fault):
    emulator = make_emulator()
    emulator.set_workflow(source_id, duration=60.0, pause_limit=None)
    if fault:
        endpoint, what, *skip = fault
        emulator.fault(endpoint, what, skip=sum(skip), times=1)
    asked = ask(emulator, name, source_id, timeout=1.0)
    assert [task.status for task in emulator.tasks] == ["canceled"]
    assert asked.lost == []


def test_run_is_stopped_when_a_check_fails(monkeypatch):
    emulator = make_emulator()
    emulator.set_workflow(SEARCH.id, duration=60.0)
    monkeypatch.setattr(live_session, "follow", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask(emulator)
    assert emulator.tasks[0].status == "canceled"


@cases(
    ("no list shows the template", "BOT_TEMPLATE_ID", TEMPLATE_SEARCH.id, {"create-template-run": (1, 0)}),
    ("no list", "WORKFLOW_ID", SEARCH.id, {"run-task": (1, 0), "list-tasks": (None, 1)}),
)
def test_lost_start_is_reported_if_the_run_cannot_be_found(name, source_id, faults):
    emulator = make_emulator()
    for endpoint, (times, skip) in faults.items():
        emulator.fault(endpoint, RequestFault.lost_response(), times=times, skip=skip)
    asked = ask(emulator, name, source_id)
    assert asked.lost == ["a start was not answered, and a run may be running"]


def run_command(emulator: Emulator, monkeypatch, **variables: str) -> int:
    """Run the command with some variables besides the API key."""
    with emulator.serve() as running:
        for name, value in {"BROWSERACT_API_KEY": KEY, "BROWSERACT_URL": running.url, **variables}.items():
            monkeypatch.setenv(name, value)
        return live.main()


def test_run_that_cannot_be_stopped_is_named_and_the_command_fails(monkeypatch, capsys):
    emulator = make_emulator()
    emulator.set_workflow(SEARCH.id, duration=60.0)
    emulator.fault("stop-task", RequestFault.reset())
    given = {"WORKFLOW_ID": SEARCH.id, "INPUT_PARAMETERS": '{"keyword": "pens"}', "LIVE_TIMEOUT": "1"}
    assert run_command(emulator, monkeypatch, **given) == 1
    assert f"BrowserAct task {emulator.tasks[0].id} may be running and using credits" in capsys.readouterr().err


def test_command_prints_a_table_for_each_source_that_is_set(monkeypatch, capsys):
    emulator = make_emulator()
    inputs = {"INPUT_PARAMETERS": '{"keyword": "pens", "max_items": 2}', "BOT_TEMPLATE_INPUT": '{"keyword": "paper"}'}
    sources = {"WORKFLOW_ID": SEARCH.id, "BOT_TEMPLATE_ID": TEMPLATE_SEARCH.id}
    assert run_command(emulator, monkeypatch) == 2
    assert "Set BROWSERACT_API_KEY and some of WORKFLOW_ID, BOT_ID" in capsys.readouterr().err
    assert run_command(emulator, monkeypatch, **sources, **inputs) == 0
    printed = capsys.readouterr().out
    assert printed.index("The workflow\n\nHow is a wrong API key answered?") < printed.index("The bot template\n\n")
    assert KEY not in printed
    assert emulator.tasks[0].inputs == [("keyword", "pens"), ("max_items", "2")]
    assert emulator.tasks[-1].inputs == [("keyword", "paper")]


def test_payloads_are_redacted():
    payload = {
        "id": "12345678901234567",
        "status": "finished",
        "created_at": "2026-01-02T03:04:05Z",
        "input_parameters": "user=ada; password=hunter2",
        "output": {"string": "secret", "files": ["https://files.example/a?Signature=x&Expires=1"] * 5},
        "credit": 5,
        "number": 12345678901234567,
        "odd": ["http://[x", "https://files.example/a?dG9rZW4==", "//[note] text"],
        "live_url": None,
    }
    link = "https://files.example/... (query: Signature, Expires)"
    assert redacted(payload) == {
        **payload,
        "id": "...567 (17 digits)",
        "input_parameters": "(text of 26 characters)",
        "output": {"string": "(text of 6 characters)", "files": [*[link] * 3, "... 2 more"]},
        "number": "(number of 17 characters)",
        "odd": ["(text of 9 characters)", "https://files.example/... (query: ?)", "(text of 13 characters)"],
    }


def test_message_that_quotes_a_secret_is_printed_without_it():
    given = Settings("http://127.0.0.1:1", KEY, SEARCH.id, {"keyword": "hunter2"}, "https://me.example/t0ken")
    asked = Live(given, SOURCES["WORKFLOW_ID"].version)
    asked.tell("What?", f"{KEY} hunter2 https://me.example/t0ken", {"msg": "hunter2 is wrong"})
    printed = "\n".join(lines(asked))
    assert all(secret not in printed for secret in (KEY, "hunter2", "t0ken"))
    assert "*** is wrong" in printed
