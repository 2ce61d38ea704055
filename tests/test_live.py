"""``make live`` against the emulator: what it finds out, what it stops, and what it does not print."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import httpx
import pytest

from airflow_provider_browseract.api import errors
from airflow_provider_browseract.emulator import (
    AGENT_HUMAN,
    CONTACTS,
    EXPORT,
    HUMAN,
    SEARCH,
    TEMPLATE_SEARCH,
    Emulator,
    RequestFault,
)
from dev import live, live_session
from dev.live import SOURCES, Source
from dev.live_session import PLAN_HAS_SLOTS, WHILE_ACTIVE, Followed, Live, Settings, lines, redacted
from tests.cases import cases
from tests.catalogue import add
from tests.demos import (
    accept_stops_of_ended_runs,
    convert_input,
    hide_input,
    refuse_with,
    respond_as_in_the_demos,
    show_defaults,
)

KNOWN = "Does the provider know a full plan by it?"
KEY = "app-very-secret-key"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(live_session, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(live_session, "LATE", 1.0)
    monkeypatch.setattr(live_session, "LISTED", 0.2)


WORKFLOW = SOURCES["WORKFLOW_ID"]


def make_emulator(*, as_in_the_demos: bool = False, **settings: Any) -> Emulator:
    emulator = add(respond_as_in_the_demos(Emulator(api_key=KEY, **settings)))
    emulator.as_in_the_demos = as_in_the_demos
    return emulator


def answers(emulator: Emulator, source: Source = WORKFLOW, **settings: Any) -> tuple[dict[str, str], str]:
    """Run the checks with an emulator, and return the results by their labels, and all that is printed."""
    with emulator.serve() as running:
        given = {"source_id": SEARCH.id, "inputs": {"keyword": "very secret pens"}, **settings}
        asked = Live(Settings(running.url, KEY, **given), source.version)
        live.ask(asked, source.ask)
    return dict(asked.answers), "\n".join(lines(asked))


@pytest.mark.parametrize("as_in_the_demos", [False, True], ids=["as documented", "as in the demos"])
def test_all_checks_have_a_result_and_nothing_is_left_running(as_in_the_demos):
    emulator = make_emulator(as_in_the_demos=as_in_the_demos)
    emulator.set_workflow(SEARCH.id, duration=1.0)
    found, printed = answers(emulator)
    assert found["How is a wrong API key answered?"] == "HTTP 401, code 401: Invalid authorization"
    assert found["How is an unknown task answered?"] == "HTTP 400, code 10112: Task is not exist."
    assert found["How is a path that does not exist answered?"] == "HTTP 404, JSON (dict)"
    assert "code 99001" in found["How is limit=501 answered?"]
    assert found["How many items has a page without limit?"] == "limit 1"
    assert found["Which inputs are enabled by default?"] == "[False, True]"
    key = "profileId" if as_in_the_demos else "profile_id"
    assert found["What does a start with save_browser_data answer?"] == f"HTTP 200, ['id', '{key}']"
    assert found[WHILE_ACTIVE] == "HTTP 400, code 10118: Running tasks number exceeds."
    assert found[KNOWN] == "Yes: BY_CODE in airflow_provider_browseract/api/errors.py has code 10118."
    assert "code 10118" in found["How is a second run with the same profile answered?"]
    assert "code 99001" in found["How is an unknown profile_id answered?"]
    assert "running" in found["Which statuses were seen?"]
    assert "finished" in found["Which statuses were seen?"]
    assert "s after the start" in found["How soon does list-tasks have it?"]
    active = found["What does a run have while it is active?"]
    assert ("no finished_at" in active) is not as_in_the_demos
    assert found["Is there a live view after the end?"] == ("yes" if as_in_the_demos else "no")
    assert found["Are screenshots null?"] == "['False']"
    assert found["Is the output there with the status?"].startswith("after 0.")
    assert found["How is a stop of an ended run answered?"] == "HTTP 400, code 10121: Task has completed."
    assert "code 10127" in found["How is a resume of an ended run answered?"]
    assert found["What does a callback have?"] == "not asked: set CALLBACK_URL"
    assert found["Which headers are about limits?"] == "none were seen"
    assert [task.status for task in emulator.tasks] == ["finished"]
    assert all(secret not in printed for secret in (KEY, "very secret", emulator.tasks[0].id))
    assert max(map(len, printed.partition("\n\n")[0].splitlines())) <= live_session.WIDTH


def test_second_run_that_a_larger_plan_allows_is_stopped_at_once():
    emulator = make_emulator(concurrency=5)
    accept_stops_of_ended_runs(emulator)
    found, _ = answers(emulator)
    assert found["How is a second run with the same profile answered?"].endswith(
        "then stopped: HTTP 200, an empty body"
    )
    assert found["How is a stop of an ended run answered?"] == "HTTP 200, an empty body"
    assert found[KNOWN] == PLAN_HAS_SLOTS
    assert [task.status for task in emulator.tasks] == ["finished", "canceled", "canceled"]


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (
            (20118, "No browser left"),
            "No. Add the line '20118: ConcurrencyLimitError,' to BY_CODE in airflow_provider_browseract/api/errors.py, "
            "and '20118: errors.ConcurrencyLimitError,' to CODES in tests/api/test_exchange.py.",
        ),
        ((20118, "Too many parallel browsers"), "By its words only. Add the line '20118: ConcurrencyLimitError,' to"),
        ((99001, "No browser left"), "No: BY_CODE in airflow_provider_browseract/api/errors.py has code 99001 as Inv"),
        ((0, "No browser left"), "No, and it has no code. Add its words to NO_SLOT_WORDS in airflow_provider_browse"),
        ((0, "Too many parallel browsers"), "Yes, without a code: it is a ConcurrencyLimitError."),
    ],
    ids=["unknown code", "known words", "code of another error", "unknown words", "no code"],
)
def test_refusal_of_a_full_plan_is_reported_with_the_line_that_the_provider_needs(refusal, expected):
    emulator = make_emulator()
    refuse_with(emulator, *refusal)
    found, _ = answers(emulator)
    assert found[WHILE_ACTIVE] == f"HTTP 400, code {refusal[0]}: {refusal[1]}"
    assert found[KNOWN].startswith(expected)


BOT, AGENT_BOT, TEMPLATE = (SOURCES[name] for name in ("BOT_ID", "AGENT_BOT_ID", "BOT_TEMPLATE_ID"))
NO_NUMBER = "How is the text '20' answered, where a number is required?"
NO_VALUE = "How is {} answered, where a value is required?"
UNKNOWN_NAME = "How is a name answered that the schema does not have?"


def test_all_checks_of_an_agent_built_bot_have_a_result_and_nothing_is_left_running():
    emulator = make_emulator()
    emulator.set_workflow(CONTACTS.id, duration=1.0)
    given = {"company_name": "Very secret company", "max_pages": 2}
    found, printed = answers(emulator, AGENT_BOT, source_id=CONTACTS.id, inputs=given)
    assert found["How is a wrong API key answered?"] == "HTTP 401, code 401: Invalid authorization"
    assert found["How is an unknown run answered?"] == "HTTP 400, code 10112: Task is not exist."
    assert "code 99001" in found["How is limit=101 answered?"]
    assert found["How many items has a page without limit?"] == "limit 20"
    assert found["Which bots are listed?"] == "3 agent, 9 workflow"
    assert found["In which order are runs listed?"] == "not known: there are less than two"
    assert found["How does v3 answer for a task of v2's list?"] == "not asked: the list of v2 is empty"
    assert found["Of which type is it?"] == "agent"
    assert "additionalProperties=False, default, maxLength" in found["Which rules does its input_schema have?"]
    assert "type=['string', 'null']" in found["Which rules does its output_schema have?"]
    assert "code 10143" in found[NO_VALUE]
    assert "code 99001" in found[NO_NUMBER]
    assert "code 99001" in found[UNKNOWN_NAME]
    assert found["What does a start answer?"] == "HTTP 200, JSON (dict), ['status', 'task_id']"
    assert found[WHILE_ACTIVE] == "HTTP 400, code 10118: Running tasks number exceeds."
    assert found[KNOWN].startswith("Yes: BY_CODE")
    assert found["Is the input in the list of runs as it was sent?"] == "yes"
    assert found["Is the input in the run as it was sent?"] == "yes"
    assert found["What does the status of a run have?"] == "HTTP 200, ['status', 'task_id', 'updated_at']"
    assert "code 10112" in found["How does v2 answer for a run of v3?"]
    assert found["Does the list of v2 have it?"] == "no"
    assert "finished" in found["Which statuses were seen?"]
    assert found["Is the output there with the status?"].startswith("after 0.")
    assert found["Of which type is its output?"] == "dict"
    assert found["In which formats is its output?"] == "json, md, csv, xml"
    assert found["How is a stop of an ended run answered?"] == "HTTP 400, code 10121: Task has completed."
    assert "code 10879" in found["How is a resume of an ended run answered?"]
    assert found["What does a callback have?"] == "not asked: set CALLBACK_URL"
    assert found["How is a stop answered?"] == "HTTP 200, JSON (dict), status canceled"
    assert found["How soon has a stopped run ended?"].startswith("after 0.")
    assert [task.status for task in emulator.tasks] == ["finished", "canceled"]
    assert all(secret not in printed for secret in (KEY, "ery secret", *(task.id for task in emulator.tasks)))
    assert max(map(len, printed.partition("\n\n")[0].splitlines())) <= live_session.WIDTH


def test_answers_of_a_bot_on_another_service_are_reported_and_its_runs_are_stopped():
    emulator = make_emulator(concurrency=9, as_in_the_demos=True, shared_runs=True)
    convert_input(emulator, CONTACTS)
    show_defaults(emulator)
    hide_input(emulator)
    emulator.set_workflow(CONTACTS.id, duration=1.0)
    found, _ = answers(emulator, BOT, source_id=CONTACTS.id, inputs={"company_name": "A company"})
    shown = "more names: max_pages; other values: company_name; asterisks: company_name"
    assert found["Is the input in the run as it was sent?"] == shown
    assert found[NO_NUMBER].endswith("then stopped: HTTP 200, an empty body")
    assert found["What does a start answer?"] == "HTTP 200, JSON (dict), ['id', 'status']"
    assert found[WHILE_ACTIVE].endswith("then stopped: HTTP 200, an empty body")
    assert found[KNOWN] == PLAN_HAS_SLOTS
    assert found["How does v2 answer for a run of v3?"] == "HTTP 200, JSON (dict)"
    assert found["Does the list of v2 have it?"] == "yes"
    assert sorted(task.status for task in emulator.tasks) == ["canceled"] * 3 + ["finished"]


def test_bot_without_required_values_is_not_asked_about_them():
    emulator = make_emulator()
    found, _ = answers(emulator, BOT, source_id=AGENT_HUMAN.id, inputs={}, timeout=1.0)
    assert found[NO_VALUE] == "not asked: the bot requires none"
    assert found[NO_NUMBER] == "not asked: the bot has no number"
    assert found["What happened to the run?"] == "It did not end within 1 s and is stopped."
    assert emulator.tasks[0].status == "canceled"


def test_v2_is_asked_about_a_run_of_v3_and_the_reverse():
    emulator = make_emulator()
    emulator.set_workflow(SEARCH.id, duration=0.2)
    with emulator.serve() as running:
        for name in ("WORKFLOW_ID", "BOT_ID"):
            asked = Live(Settings(running.url, KEY, SEARCH.id, {"keyword": "pens"}), SOURCES[name].version)
            live.ask(asked, SOURCES[name].ask)
    found = dict(asked.answers)
    assert found["How does v3 answer for a task of v2's list?"] == "HTTP 400, code 10112: Task is not exist."


def test_run_of_a_template_is_stopped_at_once():
    emulator = make_emulator()
    emulator.set_workflow(TEMPLATE_SEARCH.id, duration=60.0)
    found, _ = answers(emulator, TEMPLATE, source_id=TEMPLATE_SEARCH.id)
    assert "bot_id" not in found["What does a run of a template have?"]
    assert "bot_id" not in found["What does the list have of it?"]
    assert "s after the start" in found["How soon does the list of runs have it?"]
    assert emulator.tasks[0].status == "canceled"


def test_run_of_a_bot_whose_start_was_lost_is_stopped():
    emulator = make_emulator()
    emulator.set_workflow(CONTACTS.id, duration=60.0)
    # The first starts are refused.
    emulator.fault("create-run", RequestFault.lost_response(), skip=3, times=1)
    with contextlib.suppress(httpx.HTTPError):
        answers(emulator, BOT, source_id=CONTACTS.id, inputs={"company_name": "A company"})
    assert [task.status for task in emulator.tasks] == ["canceled"]


def test_lost_start_of_a_template_is_reported_because_no_list_shows_the_template():
    emulator = make_emulator()
    emulator.fault("create-template-run", RequestFault.lost_response(), times=1)
    with emulator.serve() as running:
        asked = Live(Settings(running.url, KEY, TEMPLATE_SEARCH.id, {"keyword": "pens"}), TEMPLATE.version)
        with contextlib.suppress(httpx.HTTPError):
            live.ask(asked, TEMPLATE.ask)
    assert asked.lost == ["a start was not answered, and a run may be running"]


def test_line_that_the_provider_needs_makes_it_recognize_the_refusal(monkeypatch):
    monkeypatch.setitem(errors.BY_CODE, 20118, errors.ConcurrencyLimitError)
    emulator = make_emulator()
    refuse_with(emulator, 20118, "No browser left")
    found, _ = answers(emulator)
    assert found[KNOWN].startswith("Yes: BY_CODE")


def test_late_list_is_reported():
    emulator = make_emulator()
    emulator.set_workflow(SEARCH.id, duration=0.5, listed_after=60.0)
    assert answers(emulator)[0]["How soon does list-tasks have it?"] == "not in time"


def test_late_output_is_reported():
    emulator = make_emulator()
    emulator.set_workflow(SEARCH.id, duration=0.5, output_after=0.7)
    found, _ = answers(emulator)
    assert 0.2 < float(found["Is the output there with the status?"].split()[1]) < 5
    emulator = make_emulator()
    emulator.set_workflow(SEARCH.id, duration=0.5, output_after=60.0)
    assert answers(emulator)[0]["Is the output there with the status?"] == "not in 1 s"


@cases(
    "emulator",
    {
        "growing": make_emulator(),
        "at the end": make_emulator(credits_at_end=True),
    },
)
def test_credits_of_an_active_run_are_reported_with_its_steps(emulator):
    emulator.set_workflow(SEARCH.id, duration=1.0)
    found, _ = answers(emulator)
    grown = found["Do its credits grow while it is active?"]
    assert grown.startswith("0 with " if emulator.credits_at_end else "5 with 1 step > 10 with 2 steps")
    assert found["Are its credits final in the first response after the end?"] == "Yes: 20, also 1 s later."


def test_of_many_values_of_credits_only_the_first_and_last_are_reported():
    seen = Followed(credits=[(5 * number, number) for number in range(1, 10)])
    assert seen.growth.startswith("5 with 1 step > 10 with 2 steps > 15 with 3 steps > ... > 35 with 7 steps > ")


def test_credits_that_change_after_the_end_are_reported(monkeypatch):
    read = Live.task
    ended: list[str] = []

    def task_without_late_credits(asked, task_id):
        task = read(asked, task_id)
        ended.extend([task_id] if task.get("status") == "finished" else [])
        return {**task, "credit": 0} if len(ended) < 4 else task

    monkeypatch.setattr(Live, "task", task_without_late_credits)
    emulator = make_emulator()
    emulator.set_workflow(SEARCH.id, duration=0.3)
    found, _ = answers(emulator)
    said = found["Are its credits final in the first response after the end?"]
    assert said.startswith(f"No: 0, and {emulator.tasks[0].credit} after 0.")


def test_callback_is_received_and_its_headers_are_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free_port = taken.getsockname()[1]
    emulator = make_emulator()
    found, printed = answers(emulator, callback_url=f"http://127.0.0.1:{free_port}/t0ken", callback_port=free_port)
    assert found["How many callbacks came?"] == "1"
    assert "Content-Type" in found["What does a callback have?"]
    assert "t0ken" not in printed


def test_addresses_of_files_are_shown_by_host_and_names_in_the_query():
    found, _ = answers(Emulator(api_key=KEY), source_id=EXPORT.id)
    assert found["What do file addresses look like?"] == "['http://127.0.0.1/... (query: expires)']"


@pytest.mark.parametrize("workflow", [HUMAN, SEARCH], ids=["paused", "endless"])
def test_run_that_does_not_end_in_time_is_stopped(workflow):
    emulator = make_emulator()
    emulator.set_workflow(workflow.id, duration=60.0, pause_limit=None)
    inputs = {"keyword": "x"} if workflow is SEARCH else {}
    found, _ = answers(emulator, source_id=workflow.id, inputs=inputs, timeout=1.0)
    assert found["What happened to the run?"] == "It did not end within 1 s and is stopped."
    assert found["How was a run that is still active stopped?"] == "HTTP 200, an empty body"
    assert emulator.tasks[0].status == "canceled"


def test_refused_start_ends_the_checks():
    found, _ = answers(Emulator(api_key=KEY), source_id="1")
    assert "code 10111" in found["What does a start answer?"]
    assert "How is a stop of an ended run answered?" not in found


def test_run_is_stopped_when_a_check_fails(monkeypatch):
    emulator = make_emulator()
    emulator.set_workflow(SEARCH.id, duration=60.0)
    monkeypatch.setattr(live_session, "follow", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answers(emulator)
    assert emulator.tasks[0].status == "canceled"


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
    assert redacted(payload) == {
        "id": "...567 (17 digits)",
        "status": "finished",
        "created_at": "2026-01-02T03:04:05Z",
        "input_parameters": "(text of 26 characters)",
        "output": {
            "string": "(text of 6 characters)",
            "files": ["https://files.example/... (query: Signature, Expires)"] * 3 + ["... 2 more"],
        },
        "credit": 5,
        "number": "(number of 17 characters)",
        "odd": ["(text of 9 characters)", "https://files.example/... (query: ?)", "(text of 13 characters)"],
        "live_url": None,
    }


def test_message_that_quotes_a_secret_is_printed_without_it():
    given = Settings("http://127.0.0.1:1", KEY, SEARCH.id, {"keyword": "hunter2"}, "https://me.example/t0ken")
    asked = Live(given, WORKFLOW.version)
    asked.tell("What?", f"{KEY} hunter2 https://me.example/t0ken", {"msg": "hunter2 is wrong"})
    printed = "\n".join(lines(asked))
    assert all(secret not in printed for secret in (KEY, "hunter2", "t0ken"))
    assert "*** is wrong" in printed


@cases("fault", {"reset": RequestFault.lost_response(), "502": RequestFault.lost_response(status=502)})
def test_run_of_a_start_without_a_response_is_stopped(fault):
    emulator = make_emulator()
    emulator.set_workflow(SEARCH.id, duration=60.0)
    emulator.fault("run-task", fault, times=1)
    with contextlib.suppress(httpx.HTTPError):
        answers(emulator)
    assert [task.status for task in emulator.tasks] == ["canceled"]


def test_run_that_cannot_be_stopped_is_named_and_the_command_fails(monkeypatch, capsys):
    emulator = make_emulator()
    emulator.set_workflow(SEARCH.id, duration=60.0)
    emulator.fault("stop-task", RequestFault.reset())
    with emulator.serve() as running:
        given = {"BROWSERACT_API_KEY": KEY, "WORKFLOW_ID": SEARCH.id, "INPUT_PARAMETERS": '{"keyword": "pens"}'}
        for name, value in {**given, "BROWSERACT_URL": running.url, "LIVE_TIMEOUT": "1"}.items():
            monkeypatch.setenv(name, value)
        assert live.main() == 1
    assert f"BrowserAct task {emulator.tasks[0].id} may be running and using credits" in capsys.readouterr().err


def test_start_without_a_response_or_a_list_is_reported(monkeypatch):
    emulator = make_emulator()
    emulator.fault("run-task", RequestFault.lost_response(status=502), times=1)
    emulator.fault("list-tasks", RequestFault.reset(), skip=1)
    with emulator.serve() as running:
        asked = Live(Settings(running.url, KEY, SEARCH.id, {"keyword": "pens"}), WORKFLOW.version)
        live.ask(asked, WORKFLOW.ask)
    assert asked.lost == ["a start was not answered, and a run may be running"]


def test_command_without_a_key_reports_what_to_set(monkeypatch, capsys):
    monkeypatch.delenv("BROWSERACT_API_KEY", raising=False)
    assert live.main() == 2
    assert "Set BROWSERACT_API_KEY and some of WORKFLOW_ID, BOT_ID" in capsys.readouterr().err


def test_command_prints_the_table(monkeypatch, capsys):
    emulator = make_emulator()
    with emulator.serve() as running:
        for name, value in {
            "BROWSERACT_API_KEY": KEY,
            "WORKFLOW_ID": SEARCH.id,
            "INPUT_PARAMETERS": '{"keyword": "pens", "max_items": 2}',
            "BOT_TEMPLATE_ID": TEMPLATE_SEARCH.id,
            "BOT_TEMPLATE_INPUT": '{"keyword": "paper"}',
            "BROWSERACT_URL": running.url,
        }.items():
            monkeypatch.setenv(name, value)
        assert live.main() == 0
    printed = capsys.readouterr().out
    assert printed.index("The workflow\n\nHow is a wrong API key answered?") < printed.index("The bot template\n\n")
    assert KEY not in printed
    assert emulator.tasks[0].inputs == [("keyword", "pens"), ("max_items", "2")]
    assert emulator.tasks[-1].inputs == [("keyword", "paper")]
