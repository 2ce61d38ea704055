"""The examples, and some more DAGs, through a real scheduler and a real triggerer: all at once, as in real life."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS
from airflow_provider_browseract.emulator import CONTACTS, EXPORT, HUMAN, ORDERS, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.emulator.catalogue import contact_of, results_for
from tests.helpers.cases import cases
from tests.helpers.catalogue import DOWNLOAD, FAILING, PLAIN_TEXT, TEMPLATE_TEXT
from tests.helpers.local_airflow import wait_for

from .conftest import HELD, World

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="before Airflow 3.3 this is left to test_supported.py"),
]

PERSON = "example_browseract_person"
OUTSIDE = "example_browseract_outside"
KEYWORDS = ["a", "b", "c", "d", "e"]
COMPANY = "Unlisted Company 4711"
OTHER_RUNS = "example_browseract_other_runs"

MORE = ("blocked", "elsewhere", "limits", "queue")
PLAIN = ("callback", "export", "search", "template")

DAGS: dict[str, dict[str, Any]] = {
    "long": {},
    "example_browseract_bot": {"company": COMPANY},
    "example_browseract_many": {"keywords": KEYWORDS},
    **{f"example_browseract_{name}": {} for name in PLAIN},
    **{name: {} for name in MORE},
}
"""DAGs that need nothing from a test, and their configurations."""


@pytest.fixture(scope="module")
def world(worlds: dict[str, World]) -> World:
    """The account of the examples."""
    world = worlds["examples"]
    for workflow in (EXPORT, ORDERS):
        world.emulator.set_workflow(workflow.id, duration=4.0, one_at_a_time=False)
    # Long enough for mapped runs to overlap, however slow the machine is.
    world.emulator.set_workflow(SEARCH.id, duration=15.0, one_at_a_time=False)
    # A person has the time to answer, and the run is still running when the trigger polls after the answer.
    world.emulator.set_workflow(HUMAN.id, duration=30.0, pause_at=1 / 30, pause_limit=600.0)
    return world


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the export is written."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def started(world: World, store: Path) -> dict[str, str]:
    """Start all of :data:`DAGS` and one that waits for a run that is started here, and return their runs."""
    world.emulator.set_workflow(PLAIN_TEXT.id, **HELD)
    world.emulator.set_workflow(DOWNLOAD.id, duration=15.0, one_at_a_time=True)
    world.emulator.set_workflow(TEMPLATE_TEXT.id, duration=600.0)
    # All are deferred when the callbacks arrive.
    for source in (CONTACTS, TEMPLATE_SEARCH):
        world.emulator.set_workflow(source.id, duration=45.0)
    begun = world.send(v2.run(ORDERS.id)).id
    wanted = {
        **DAGS,
        "example_browseract_export": {"store": f"file://{store}"},
        OTHER_RUNS: {"browseract_task_id": begun},
    }
    return {dag_id: world.airflow.trigger(dag_id, conf) for dag_id, conf in wanted.items()}


def waited_for(world: World, started: dict[str, str]) -> str:
    """Return the run that was started outside Airflow, and whose id a DAG has been given."""
    conf: dict[str, str] = world.airflow.dag_run(OTHER_RUNS, started[OTHER_RUNS])["conf"]
    return conf["browseract_task_id"]


def ended(world: World, dag_id: str, run_id: str, expected: str = "success") -> str:
    """Wait for the end of a DAG run, print the logs if that is not the expected one, and return the run."""
    state = world.airflow.wait_for_run(dag_id, run_id)
    if state != expected:
        for ti in world.airflow.task_instances(dag_id, run_id):
            print(f"--- {ti['task_id']} {ti['map_index']} {ti['state']}, try {ti['try_number']}")
            print(*world.airflow.log(dag_id, run_id, ti["task_id"], map_index=ti["map_index"]), sep="\n")
    assert state == expected
    return run_id


def log_of(world: World, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    return "\n".join(world.airflow.log(dag_id, run_id, task_id, map_index=map_index))


def task_id_of(world: World, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str | None:
    """Read the id of the BrowserAct task that a task instance has started."""
    return world.airflow.xcom(dag_id, run_id, task_id, "task_id", map_index=map_index)


def asked(world: World, run_id: str, other_than: str | None = None) -> str | None:
    """Return the BrowserAct task of the open Required Action, if there is one.

    :param other_than: a BrowserAct task of an earlier try.
    """
    [ti] = world.airflow.task_instances(PERSON, run_id)
    waits_for = (world.airflow.xcom(PERSON, run_id, "solve", "wait") or {}).get("waits_for")
    task_id = task_id_of(world, PERSON, run_id, "solve")
    return task_id if ti["state"] == "deferred" and waits_for == "person" and task_id != other_than else None


def wait_for_polls(world: World, *task_ids: str) -> None:
    """Wait until the triggers have polled once more. Before that, the scheduler may mistake an answer for a crash."""
    before = {task_id: world.polls(task_id) for task_id in task_ids}
    wait_for("Polls", lambda: all(world.polls(each) > before[each] for each in task_ids), timeout=150)


def run_outside(world: World) -> str:
    """Start a run without Airflow, wait for its end, and return its id."""
    world.emulator.next_run(ORDERS.id, duration=0.0)
    task_id = world.send(v2.run(ORDERS.id)).id
    world.emulator.wait_until(lambda: world.task(task_id).finished_at, timeout=60)
    return task_id


def looks(world: World) -> int:
    return sum(request.endpoint == "list-tasks" for request in world.emulator.requests)


def read_outside(world: World) -> dict[str, str]:
    """Return what all ended runs of the DAG that runs whenever a run ends have read."""
    runs = world.airflow.api("GET", f"dags/{OUTSIDE}/dagRuns")["dag_runs"]
    assert {each["run_type"] for each in runs} <= {"asset_triggered"}
    found: dict[str, str] = {}
    for each in runs:
        found |= world.airflow.xcom(OUTSIDE, each["dag_run_id"], "read", "return_value") or {}
    return found


def events_of_watchers(world: World) -> list[dict[str, Any]]:
    """Return the events of assets that a watcher has caused."""
    events = world.airflow.api("GET", "assets/events", params={"limit": 100})["asset_events"]
    return [event for event in events if event["extra"].get("from_trigger")]


def events_of(world: World, task_id: str) -> int:
    """Return how many events of the asset name a BrowserAct task."""
    payloads = [event["extra"]["payload"] for event in events_of_watchers(world)]
    return [task["task_id"] for payload in payloads for task in payload["tasks"]].count(task_id)


def reported_is_stored(world: World, task_id: str) -> bool:
    """Return whether the watcher has stored in Airflow that it reported a BrowserAct task."""
    asset_id = events_of_watchers(world)[0]["asset_id"]
    stored = world.airflow.api("GET", f"assets/{asset_id}/state-store")["asset_state_store"]
    return any(task_id in each["value"]["reported"] for each in stored)


@pytest.fixture(scope="module")
def killed(world: World, started: dict[str, str]) -> SimpleNamespace:
    """Kill all triggerers while a run is running and a Required Action is open; let a run end; start them again.

    What could be seen before is kept for the tests.
    """
    airflow, seen = world.airflow, SimpleNamespace()
    seen.persons = [airflow.trigger(PERSON) for _ in range(3)]
    before = looks(world)
    wait_for("The first look", lambda: looks(world) > before, timeout=150)
    seen.first = run_outside(world)
    long = started["long"]
    wait_for(
        "The deferral",
        lambda: any(ti["state"] == "deferred" for ti in airflow.task_instances("long", long)),
        timeout=150,
    )
    seen.long_task = task_id_of(world, "long", long, "read")
    seen.facts, seen.links = airflow.xcom("long", long, "read", "task"), airflow.extra_links("long", long, "read")
    seen.questions = [wait_for("A Required Action", partial(asked, world, each), timeout=300) for each in seen.persons]
    wait_for("The run of the DAG", lambda: seen.first in read_outside(world), timeout=150)
    seen.events = events_of(world, seen.first)
    wait_for("The state of the watcher", lambda: reported_is_stored(world, seen.first), timeout=150)
    airflow.stop(*world.all_of("triggerer"), with_signal=signal.SIGKILL)
    seen.missed = run_outside(world)
    seen.looks = looks(world)
    airflow.start(*world.all_of("triggerer"))
    wait_for_polls(world, seen.long_task, *seen.questions)
    world.release(seen.long_task)
    return seen


@pytest.fixture(scope="module")
def answered(world: World, started: dict[str, str], killed: SimpleNamespace) -> SimpleNamespace:
    """Answer one Required Action, make another one unnecessary, and clear the task of the third.

    A task that has ended well is cleared too.
    """
    search = started["example_browseract_search"]
    ended(world, "example_browseract_search", search)
    searched = task_id_of(world, "example_browseract_search", search, "search")
    world.clear("example_browseract_search", search, "search")
    resumed, unneeded, stopped = killed.persons
    resumed_task, unneeded_task, stopped_task = killed.questions
    pending = world.airflow.api(
        "GET", f"dags/{PERSON}/dagRuns/{resumed}/hitlDetails", params={"response_received": "false"}
    )["hitl_details"]
    world.release(unneeded_task)
    world.airflow.answer(PERSON, resumed, "solve", "Resume")
    world.clear(PERSON, stopped, "solve")
    again = wait_for("A Required Action of the next run", lambda: asked(world, stopped, stopped_task), timeout=200)
    wait_for_polls(world, again)
    tries = world.airflow.task_instances(PERSON, stopped)[0]["try_number"]
    world.airflow.answer(PERSON, stopped, "solve", "Stop")
    return SimpleNamespace(
        searched=searched,
        pending=pending,
        resumed=SimpleNamespace(run_id=resumed, task_id=resumed_task),
        unneeded=SimpleNamespace(run_id=unneeded, task_id=unneeded_task),
        cleared=SimpleNamespace(task_id=stopped_task),
        stopped=SimpleNamespace(run_id=stopped, task_id=again, tries=tries),
    )


def test_run_started_outside_airflow_triggers_dag_once(world, killed):
    assert killed.events == 1
    assert json.loads(read_outside(world)[killed.first])["logged_in"] is False


class TestKilledTriggerer:
    def test_wait_for_run_survives_kill_of_triggerer(self, world, started, killed):
        run_id = ended(world, "long", started["long"])
        assert world.task(killed.long_task).status == "finished"
        assert task_id_of(world, "long", run_id, "read") == killed.long_task

    def test_required_action_survives_kill_of_triggerer_and_its_answer_resumes_run(self, world, answered):
        run_id, task_id = answered.resumed.run_id, answered.resumed.task_id
        ended(world, PERSON, run_id)
        assert world.task(task_id).status == "finished"
        assert "chose Resume" in log_of(world, PERSON, run_id, "solve")


class TestRequiredAction:
    def test_required_action_and_notification_link_to_live_view(self, world, answered):
        task_id = answered.resumed.task_id
        [pending] = answered.pending
        assert pending["options"] == ["Resume", "Stop"]
        assert f"{world.emulator.url}/live/{task_id}" in pending["body"]
        told = log_of(world, PERSON, answered.resumed.run_id, "solve")
        assert f"Help at {world.emulator.url}/live/{task_id} and answer at {world.airflow.url}/dags/{PERSON}" in told

    def test_required_action_is_closed_once_run_is_resumed_in_browseract(self, world, answered):
        run_id = ended(world, PERSON, answered.unneeded.run_id)
        [question] = world.airflow.api("GET", f"dags/{PERSON}/dagRuns/{run_id}/hitlDetails")["hitl_details"]
        assert question["response_received"]
        assert question["chosen_options"] == ["Resume"]

    def test_answer_stop_stops_run_and_airflow_does_not_retry(self, world, answered):
        run_id = ended(world, PERSON, answered.stopped.run_id, expected="failed")
        assert world.task(answered.stopped.task_id).status == "canceled"
        assert world.airflow.task_instances(PERSON, run_id)[0]["try_number"] == answered.stopped.tries

    def test_clearing_task_with_required_action_stops_run_and_asks_about_new_one(self, world, answered):
        assert answered.stopped.task_id != answered.cleared.task_id
        assert world.task(answered.cleared.task_id).status == "canceled"


def test_run_that_is_running_at_its_deadline_is_stopped_and_fails_task(world, started):
    run_id = ended(world, "limits", started["limits"], expected="failed")
    task_id = task_id_of(world, "limits", run_id, "overdue")
    assert world.task(task_id).status == "canceled"
    log = log_of(world, "limits", run_id, "overdue")
    assert "The run did not end within timeout=20 seconds." in log


def test_tasks_without_a_slot_wait_in_the_triggerer_and_run_one_after_the_other(world, started):
    run_id = ended(world, "queue", started["queue"])
    tasks = [world.task(task_id_of(world, "queue", run_id, "read", index)) for index in range(3)]
    tasks.sort(key=lambda task: task.created_at)
    assert all(earlier.finished_at <= later.created_at for earlier, later in itertools.pairwise(tasks))
    logs = [log_of(world, "queue", run_id, "read", index) for index in range(3)]
    refused = [log for log in logs if "BrowserAct has no free slot now" in log]
    # On a busy machine, the last one may start for the first time after the others have ended.
    assert refused


def test_mapped_runs_with_inputs_of_a_function_stay_within_the_limit_of_their_task(world, started):
    dag_id = "example_browseract_many"
    run_id = ended(world, dag_id, started[dag_id])
    indexes = range(len(KEYWORDS))
    tasks = [world.task(task_id_of(world, dag_id, run_id, "search", index)) for index in indexes]
    keywords = [dict(task.inputs)["keyword"] for task in tasks]
    assert keywords == [f"{keyword} {tasks[0].created_at.year}" for keyword in KEYWORDS]
    # How many of them ran at each moment at which one began.
    at_once = [sum(other.created_at <= task.created_at < other.finished_at for other in tasks) for task in tasks]
    assert 1 < max(at_once) <= 3
    for index, task in zip(indexes, tasks, strict=True):
        links = world.airflow.extra_links(dag_id, run_id, "search", map_index=index)
        assert task.id in str(links["BrowserAct task"])
        assert links["Live view"] == links["BrowserAct task"]
    assert len(world.airflow.xcom(dag_id, run_id, "titles", "return_value")) == 10


def test_task_of_search_example_cleared_after_success_starts_new_run(world, started, answered):
    dag_id = "example_browseract_search"
    run_id = ended(world, dag_id, started[dag_id])
    assert world.airflow.xcom(dag_id, run_id, "search", "task")["credits"] == 20
    assert world.airflow.xcom(dag_id, run_id, "cheapest", "return_value")["price"] > 0
    again = task_id_of(world, dag_id, run_id, "search")
    assert again != answered.searched
    assert [world.task(task_id).status for task_id in (answered.searched, again)] == ["finished", "finished"]


def test_links_are_shown_while_task_waits_and_the_live_view_link_opens_the_log_after_the_run(world, started, killed):
    task_id, links = killed.long_task, killed.links
    # A run that is held runs for a second and is paused then.
    assert killed.facts["status"] in ("running", "paused")
    panel = f"browseract/panel/open/ti/long/{quote(started['long'], safe='')}/read/-1"
    assert links == {
        "BrowserAct task": f"{world.emulator.url}/logs/{task_id}",
        "Live view": f"{world.emulator.url}/live/{task_id}",
        "Run in the panel": panel,
    }
    after = world.airflow.extra_links("long", ended(world, "long", started["long"]), "read")
    assert after["BrowserAct task"] == after["Live view"] == links["BrowserAct task"]


def test_export_is_stored_and_asset_event_has_its_paths(world, started, store):
    dag_id = "example_browseract_export"
    run_id = ended(world, dag_id, started[dag_id])
    task_id = task_id_of(world, dag_id, run_id, "export")
    manifest = world.airflow.xcom(dag_id, run_id, "export", "return_value")
    assert manifest["path"] == f"file://{store}/{task_id}"
    assert {path.name for path in (store / task_id).iterdir()} == {"results.csv", "task.json"}
    assert world.airflow.xcom(dag_id, run_id, "load", "return_value") == 3
    with closing(sqlite3.connect(world.airflow.home.parent / "warehouse.db")) as warehouse:
        assert warehouse.execute("SELECT run, count(*) FROM prices GROUP BY run").fetchall() == [(task_id, 3)]
    [event] = world.airflow.api("GET", "assets/events", params={"source_run_id": run_id})["asset_events"]
    assert event["extra"]["browseract_task_id"] == task_id
    assert event["extra"]["files"] == [file["path"] for file in manifest["files"]]


def test_openlineage_event_has_workflow_and_path_of_export(world, started, store):
    dag_id = "example_browseract_export"
    task_id = task_id_of(world, dag_id, ended(world, dag_id, started[dag_id]), "export")
    lineage = world.airflow.home / "lineage.jsonl"

    def completed() -> dict[str, Any] | None:
        events = [json.loads(line) for line in lineage.read_text().splitlines()] if lineage.exists() else []
        facets = [(event, event["run"]["facets"].get("browseract_task")) for event in events]
        return next((event for event, facet in facets if facet and facet["task"]["task_id"] == task_id), None)

    event = wait_for("The lineage of the run", completed, timeout=150)
    assert [dataset["name"] for dataset in event["inputs"]] == [f"workflow/{EXPORT.id}"]
    assert [dataset["name"] for dataset in event["outputs"]] == [f"{store}/{task_id}"]


def test_task_whose_run_fails_in_each_try_fails_and_logs_why(world, started):
    run_id = ended(world, "blocked", started["blocked"], expected="failed")
    [ti] = world.airflow.task_instances("blocked", run_id)
    assert (ti["state"], ti["try_number"]) == ("failed", 2)
    assert task_id_of(world, "blocked", run_id, "blocked")
    log = log_of(world, "blocked", run_id, "blocked")
    assert log.count("Started a run of ") == 2
    for text in (f"of workflow {FAILING.id}, code ", "RunFailedError", "code 1011."):
        assert text in log


def test_deferred_sensor_waits_for_run_that_was_started_outside_airflow(world, started):
    run_id = ended(world, OTHER_RUNS, started[OTHER_RUNS])
    begun = waited_for(world, started)
    assert world.task(begun).status == "finished"
    assert world.airflow.xcom(OTHER_RUNS, run_id, "use", "return_value")["logged_in"] is False
    links = world.airflow.extra_links(OTHER_RUNS, run_id, "orders")
    assert links["BrowserAct task"] == f"{world.emulator.url}/logs/{begun}"
    # How many processes the task had in workers, which all begin their log with the same line. It begins in one, and
    # ends in another one if the run has not ended by then.
    assert log_of(world, OTHER_RUNS, run_id, "orders").count("DAG bundles loaded") in (1, 2)


def test_sensor_that_is_rescheduled_waits_and_one_for_a_failed_run_fails_once(world, started):
    run_id = ended(world, "elsewhere", started["elsewhere"], expected="failed")
    assert world.airflow.xcom("elsewhere", run_id, "rescheduled", "return_value")["logged_in"] is False
    [failed] = [ti for ti in world.airflow.task_instances("elsewhere", run_id) if ti["state"] == "failed"]
    assert (failed["task_id"], failed["try_number"]) == ("failed", 1)
    assert "code 1011." in log_of(world, "elsewhere", run_id, "failed")


def test_callback_resumes_run_of_bot_whose_input_was_converted_and_is_not_logged(world, started):
    dag_id = "example_browseract_bot"
    run_id = ended(world, dag_id, started[dag_id])
    task = world.task(task_id_of(world, dag_id, run_id, "find"))
    assert dict(task.inputs) == {"company_name": COMPANY, "max_pages": 2}
    story = log_of(world, dag_id, run_id, "find")
    assert world.airflow.xcom(dag_id, run_id, "find", "wait")["woken_by"] == "callback"
    for line in (
        f"Converted to the types that bot {CONTACTS.id} declares: input['max_pages'].",
        f'Started a run of "{CONTACTS.name}": BrowserAct task {task.id}.',
        "Woken by a callback",
        "Finished after ",
    ):
        assert line in story
    contact = contact_of(COMPANY, max_pages=2)
    assert world.airflow.xcom(dag_id, run_id, "find", "return_value") == contact
    assert world.airflow.xcom(dag_id, run_id, "website", "return_value") == contact["official_website_url"]
    assert COMPANY not in story
    assert contact["official_website_url"] not in story


@cases(("as a workflow", "search", "v2"), ("as a bot", "search_as_bot", "v3"))
def test_callbacks_resume_runs_of_template_in_requested_region(world, started, task_id, version):
    dag_id = "example_browseract_template"
    run_id = ended(world, dag_id, started[dag_id])
    task = world.task(task_id_of(world, dag_id, run_id, task_id))
    assert (task.api_version, task.workflow.kind, task.proxy_region) == (version, "template", "DE")
    assert world.airflow.xcom(dag_id, run_id, task_id, "wait")["woken_by"] == "callback"
    assert world.airflow.xcom(dag_id, run_id, task_id, "return_value") == results_for("laptops", 3)
    log = log_of(world, dag_id, run_id, task_id)
    assert f"BrowserAct task {task.id}." in log
    assert "laptops" not in log


def test_run_with_a_cap_has_the_address_of_the_callback_route_and_returns_its_output(world, started):
    dag_id = "example_browseract_callback"
    run_id = ended(world, dag_id, started[dag_id])
    task = world.task(task_id_of(world, dag_id, run_id, "search"))
    assert task.callback_url.startswith(f"{world.airflow.url}/browseract/callback/")
    assert world.airflow.xcom(dag_id, run_id, "search", "return_value") == results_for("laptops", 3)


def test_run_that_ended_while_no_triggerer_was_running_is_reported_once(world, killed):
    wait_for("The missed run", lambda: killed.missed in read_outside(world), timeout=200)
    # The first look reports it.
    wait_for("Two more looks", lambda: looks(world) >= killed.looks + 3, timeout=150)
    assert (events_of(world, killed.missed), events_of(world, killed.first)) == (1, 1)
    world.airflow.api("PATCH", f"dags/{OUTSIDE}", json={"is_paused": True})


def test_every_browseract_task_belongs_to_one_task_instance(world, started, killed, answered):
    # Those that were started outside, and those whose task instance was cleared since.
    outside = [killed.first, killed.missed, waited_for(world, started)]
    found = Counter([*outside, answered.cleared.task_id, answered.searched])
    for dag_id, run_id in [*started.items(), *((PERSON, run_id) for run_id in killed.persons)]:
        for ti in world.airflow.task_instances(dag_id, run_id):
            # These push the id of a run that something else has started.
            if ti["operator"] != "TaskSensor":
                found.update(filter(None, [task_id_of(world, dag_id, run_id, ti["task_id"], ti["map_index"])]))
    # The first of the two runs that fail in turn.
    failed = {task.id for task in world.emulator.tasks if task.workflow_id == FAILING.id}
    assert set(found) | failed == {task.id for task in world.emulator.tasks}
    assert set(found.values()) == {1}
