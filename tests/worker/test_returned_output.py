"""What a worker returns and reports of a run, of a workflow or of a bot, without fetching its files."""

import json
import logging
import time
from contextlib import nullcontext
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.bases.xcom import BaseXCom

from airflow_provider_browseract.api.models import ApiVersion, DownloadFile, Output, OutputFile, Step, Task, TaskStatus
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import CONTACTS, ORDERS, SEARCH, EmulatedFile
from airflow_provider_browseract.exceptions import BrowserActError, RunFailedError, RunTimedOutError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.hiding import Hiding
from airflow_provider_browseract.operators.browseract import RunBotOperator
from airflow_provider_browseract.results.outputs import LARGE_OUTPUT
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.worker import conclude, showing
from tests.helpers.cases import cases, raising
from tests.helpers.catalogue import DOWNLOAD, FAILING, PLAIN_TEXT
from tests.helpers.demos import show_defaults
from tests.helpers.steps import replace
from tests.helpers.workers import BOTH_WAYS, ORDERS_RESULT, PENS, FakeTaskInstance, at_pushes, refuse_xcoms

LIVE, TASK, PANEL = "_link_LiveViewLink", "_link_BrowserActTaskLink", "_link_PanelLink"

TEXT: dict[str, Any] = {"workflow_id": PLAIN_TEXT.id}
BOT: dict[str, Any] = {"operator_class": RunBotOperator, "bot_id": CONTACTS.id, "input": {"company_name": "Example"}}
DOWNLOADS: dict[str, Any] = {"workflow_id": DOWNLOAD.id, "input_parameters": PENS}


@pytest.fixture
def run_with(worker, emulator):
    def make(what, output_format="auto", deferrable=False, store=None, **settings):
        emulator.set_workflow(what.get("bot_id") or what["workflow_id"], **settings)
        return worker(**what, output_format=output_format, deferrable=deferrable, store=store)

    return make


RESERVED = (
    "because Airflow cannot store the parsed value: it has the key __id__, which Airflow reserves. Parse the text in "
)
RESERVED += "the next task (json.loads, csv.DictReader), or set output_path to write it to object storage."
LARGE = "Set output_path to write it to object storage and pass on only its path"


@BOTH_WAYS
@cases(
    ("csv", TEXT, "\ufeffname,price\r\npen,1\r\n", "csv", [{"name": "pen", "price": "1"}], ""),
    ("json with __id__", TEXT, '[{"__id__": "a1"}]', "json", '[{"__id__": "a1"}]', RESERVED),
    ("csv with __id__", TEXT, "__id__\n1\n", "csv", "__id__\n1\n", RESERVED),
    ("object of a bot with __id__", BOT, {"__id__": 1}, "auto", '{"__id__": 1}', RESERVED),
    ("at the size limit", TEXT, "x" * LARGE_OUTPUT, "auto", "x" * LARGE_OUTPUT, ""),
    ("over the size limit", TEXT, "x" * (LARGE_OUTPUT + 1), "auto", "x" * (LARGE_OUTPUT + 1), LARGE),
    # As the end of a text that was cut. msgspec refuses it.
    ("half an emoji at its end", TEXT, "All is well \ud83d", "auto", "All is well ?", ""),
    ("object of a bot", BOT, {"a": None, "b": [1.5, True]}, "auto", {"a": None, "b": [1.5, True]}, ""),
)
def test_output_is_a_value_airflow_can_store(run_with, logs, deferrable, what, output, output_format, value, warning):
    run = run_with(what, output_format, deferrable, output=output)
    returned = run.run()
    assert (returned, type(returned)) == (value, type(value))
    # What Airflow does next with the value.
    BaseXCom.serialize_value(returned)
    log = logs()
    assert warning in log
    assert any(text in log for text in ("cannot store", LARGE)) is bool(warning)
    assert "output_text" not in run.ti.xcoms


KEPT = " stored in the XCom "
JSON_OF_BOT = rf"(?s)^The run .* is not csv: the output is JSON\..*Fix output_format or the b.*of bot {CONTACTS.id}"


@BOTH_WAYS
@cases(
    ("broken", TEXT, "json", '[{"a":', rf"(?s)is not json: Expecting .*{KEPT}output_text", '[{"a":'),
    ("empty", TEXT, "json", "", r"is not json: the output is empty\.\nFix output_format or the workflow", None),
    ("json of a bot", BOT, "csv", [1], JSON_OF_BOT, "[1]"),
)
def test_wrong_format_fails_and_the_text_is_kept(run_with, deferrable, what, output_format, output, error, text):
    run = run_with(what, output_format, deferrable, output=output)
    with pytest.raises(AirflowFailException, match=error):
        run.run()
    assert run.ti.xcoms.get("output_text") == text


def test_text_in_the_wrong_format_is_reported_even_if_it_cannot_be_kept(run_with):
    run = run_with(TEXT, "json", output="No results")
    refuse_xcoms(run, "output_text", reason="SlowDown")
    with pytest.raises(AirflowFailException, match=r"(?s)is not json: .* pushed as an XCom \(OSError: SlowDown\)"):
        run.run()


def names_of(returned) -> list[str]:
    return sorted(url.rpartition("/")[2].partition("?")[0] for url in returned["files"])


def test_files_are_returned_as_addresses_beside_the_value(run_with, emulator, logs):
    files = (EmulatedFile("a.csv", b"a"), EmulatedFile("late.csv", b"b", prepared_after=600.0))
    returned = run_with(DOWNLOADS, "json", downloads=files).run()
    # A run that has files needs no text in the declared format.
    assert (returned["output"], names_of(returned)) == (None, ["a.csv"])
    assert "still preparing 1 of the run's files" in logs()
    # In the vendor's example, the output is null beside its files.
    emulator.as_in_the_demos = True
    returned = run_with(BOT, output={}, downloads=()).run()
    assert returned["output"] is None
    assert names_of(returned) == ["result.csv", "result.json", "result.md", "result.xml"]


# What is reported of a run


def every_value_of(run, xcom: str) -> list:
    values: list[Any] = []
    at_pushes(run, lambda key, value: values.append(value) if key == xcom else None)
    return values


def test_log_and_xcom_task_have_the_facts_of_the_run_while_it_runs_and_after_its_end(search, emulator, logs):
    run = search(deferrable=True)
    facts = every_value_of(run, "task")
    run.run()
    assert [each["status"] for each in facts] in (
        ["created", "running", "finished"],
        ["created", "created", "finished"],
    )
    assert facts[-1]["credits"] == 20
    assert facts[-1]["counts"] == {"steps": 4, "output_files": 0, "download_files": 0}
    assert "pens" not in json.dumps(facts)
    log = logs()
    assert "Finished after 60 s, 20 credits, 4 steps." in log
    assert log.count("Step 2: Search for the keyword (") == 1


def test_failed_push_of_links_and_facts_does_not_lose_the_result(worker, emulator, logs):
    run = worker(workflow_id=ORDERS.id, deferrable=True)
    refuse_xcoms(run, "task", LIVE, TASK, PANEL, reason="SlowDown")
    assert run.run() == ORDERS_RESULT
    assert [task.status for task in emulator.tasks] == ["finished"]
    assert "could not be pushed (OSError: SlowDown)" in logs()


def test_run_without_urls_has_only_the_button_to_the_panel(emulator):
    ti = FakeTaskInstance()
    task = Task(id="7", status=TaskStatus.RUNNING)
    hook = BrowserActHook()
    hook.hiding = Hiding(live_view=True)
    showing.show_run(ti, task, hook, logging.getLogger(__name__))
    assert list(ti.xcoms) == [PANEL, "task"]
    assert (ti.xcoms["task"]["connection"], ti.xcoms["task"]["hidden"]) == ("browseract_default", ["live_view"])


def test_each_concluded_run_is_counted_once_with_its_credits_if_it_took_any(run_with, monkeypatch):
    counted = []
    monkeypatch.setattr(showing, "count_in_task", lambda name, **how: counted.append((name, how)))
    run_with({"workflow_id": SEARCH.id, "input_parameters": PENS}).run()
    run_with(TEXT, credits_per_step=0).run()
    with pytest.raises(RunFailedError):
        run_with({"workflow_id": FAILING.id}).run()
    assert counted == [
        ("browseract.runs", {"tags": {"status": "finished"}}),
        ("browseract.credits", {"by": 20}),
        ("browseract.runs", {"tags": {"status": "finished"}}),
        ("browseract.runs", {"tags": {"status": "failed"}}),
        ("browseract.credits", {"by": 10}),
    ]


@cases(
    ("run ends", 600.0, 0.0),
    ("run times out", 30.0, 0.0),
    ("run times out, and BrowserAct shows it as running for a while", 30.0, 60.0),
)
def test_live_view_link_is_pushed_at_the_start_and_opens_the_log_at_the_end(worker, emulator, timeout, stop_after):
    emulator.set_workflow(ORDERS.id, stop_after=stop_after)
    run = worker(workflow_id=ORDERS.id, timeout=timeout)
    links = every_value_of(run, LIVE)
    with pytest.raises(RunTimedOutError) if timeout < 60.0 else nullcontext():
        run.run()
    assert emulator.tasks[0].id in links[0]
    assert links[-1] == run.ti.xcoms[TASK]
    assert "/logs/" in links[-1]


def test_stop_is_reported_although_the_live_view_link_cannot_be_changed(worker, emulator):
    run = worker(workflow_id=ORDERS.id, timeout=30)
    fail = raising(OSError("no API server"))
    at_pushes(run, lambda key, value: fail() if key == LIVE and "/logs/" in value else None)
    with pytest.raises(RunTimedOutError, match="The run was stopped"):
        run.run()


@pytest.mark.parametrize("events", [{}, None], ids=["unknown asset", "no events"])
def test_outlet_events_that_cannot_be_changed_do_not_cost_the_result(worker, emulator, logs, events):
    run = worker(workflow_id=ORDERS.id, outlets=[AssetAlias("pens"), Asset("pens")])
    run.context["outlet_events"] = events
    assert run.run() == ORDERS_RESULT
    assert "The run could not be added to the asset events" in logs()


@BOTH_WAYS
def test_secret_default_that_a_bot_quotes_is_in_no_log_and_no_xcom(worker, emulator, logs, deferrable, tmp_path):
    secret = "hunter2ofthisbot"
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"company_name": {"type": "string"}, "password": {"type": "string", "default": secret}},
    }
    show_defaults(emulator)
    emulator.set_workflow(CONTACTS.id, input_schema=schema, steps=(f"Type {secret}", "Wait"), files=())
    run = worker(**BOT, deferrable=deferrable, output_path=str(tmp_path))
    run.run()
    [facts] = tmp_path.glob("*/task.json")
    log = logs()
    assert "Type ***" in log
    for text in (log, facts.read_text(), json.dumps([run.ti.xcoms, run.events])):
        assert secret not in text


# Output that may come later than the status


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


EMPTY = Task(id="7", status=TaskStatus.FINISHED, steps=(Step(number=1, status="succeed", goal="Open the page"),))
OF_BOT = replace(EMPTY, api_version=ApiVersion.V3, steps=())
WITH_TEXT = replace(EMPTY, output=Output(string="text", files=()))
BROKEN = BrowserActError("Internal error")
READ_FAILED = "The run could not be read again: Internal error"


UNREAD = replace(EMPTY, unread="it is not JSON")
LATE_BOT = replace(OF_BOT, output=Output(string="[1]", is_json=True))
NO_OUTPUT = "The run has finished without output or files, which can be available later than its status."


@cases(
    ("text", WITH_TEXT, ()),
    ("output file", replace(EMPTY, output=Output(files=("https://files.example/1",))), ()),
    ("formats", replace(OF_BOT, output=Output(formats=(OutputFile(format="csv", url="https://files.example/1"),))), ()),
    ("download", replace(EMPTY, download_files=(DownloadFile(guid="1", file_name="a.csv", status="uploading"),)), ()),
    ("no steps", replace(EMPTY, steps=()), ()),
    ("failed", replace(EMPTY, status=TaskStatus.FAILED), ()),
    ("ended long ago", replace(EMPTY, finished_at=moment(time.time() - timings.LATE_OUTPUT_LIMIT - 60)), ()),
    ("no output", EMPTY, (EMPTY, WITH_TEXT)),
    ("an empty text", replace(EMPTY, output=Output(string="", files=())), (WITH_TEXT,)),
    ("ended lately", replace(EMPTY, finished_at=moment(time.time() + 3600.0)), (WITH_TEXT,)),
    ("a bot, which needs no steps", OF_BOT, (OF_BOT, LATE_BOT)),
    ("output that cannot be read", UNREAD, (WITH_TEXT,)),
    ("without output for about 20 seconds", EMPTY, (EMPTY, EMPTY, EMPTY)),
    ("failed reads", EMPTY, (BROKEN, BROKEN, WITH_TEXT)),
    ("failed last read", EMPTY, (EMPTY, EMPTY, BROKEN)),
)
def test_finished_run_is_read_again_while_output_may_come_and_only_a_failed_last_read_is_an_error(
    monkeypatch, caplog, task, answers
):
    left, slept = list(answers), list[float]()

    def look(hook, task_id, version):
        assert (task_id, version) == (task.id, task.api_version)
        return left.pop(0)

    monkeypatch.setattr(conclude, "look", look)
    monkeypatch.setattr(conclude, "sleep", lambda seconds, check: slept.append(seconds))
    hook: Any = None
    fails = pytest.raises(BrowserActError) if BROKEN in answers[-1:] else nullcontext()
    with caplog.at_level(logging.INFO), fails:
        read = conclude.read_again(task, hook, logging.getLogger("task"), lambda: None)
        assert read is (answers or (task,))[-1]
    assert (left, slept) == ([], [2, 5, 13][: len(answers)])
    why = "The output of the run cannot be read: it is not JSON." if task is UNREAD else NO_OUTPUT
    again = [f"{why} Reading the run again in {pause:g} seconds." for pause in slept]
    assert [line for line in caplog.messages if line != READ_FAILED] == again
    assert caplog.messages.count(READ_FAILED) == answers.count(BROKEN)
