"""The examples through a real scheduler and a real triggerer."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from airflow.triggers.base import BaseTrigger

from airflow_provider_browseract.api.calls import resume_task, run_task
from airflow_provider_browseract.api.client import BrowserActClient, ClientSettings
from airflow_provider_browseract.compat import TRIGGERS_START_TASKS
from airflow_provider_browseract.emulator import EXPORT, FAILING, HUMAN, LOG_IN, ORDERS, SEARCH, Emulator
from airflow_provider_browseract.links.browseract import LiveViewLink

from .local_airflow import LocalAirflow, wait_for

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(600)

tells_of_kills = pytest.mark.skipif(
    not hasattr(BaseTrigger, "on_kill"), reason="before Airflow 3.3 the core tells no trigger"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """An emulator, and a real Airflow that is connected to it."""
    dags = tmp_path_factory.mktemp("dags")
    for folder in (ROOT / "example_dags", Path(__file__).parent / "more_dags"):
        for file in folder.glob("*.py"):
            (dags / file.name).write_text(file.read_text())
    lineage = tmp_path_factory.mktemp("lineage") / "events.jsonl"
    emulator = Emulator(concurrency=3)
    for workflow in (EXPORT, LOG_IN, ORDERS, SEARCH):
        emulator.set_workflow(workflow.id, duration=4.0)
    with emulator.serve() as running:
        connection = {**running.connection, "extra": {"retry_budget": 20}}
        airflow = LocalAirflow(
            tmp_path_factory.mktemp("airflow"),
            dags,
            {
                "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps(connection),
                # Without its provider, Airflow does not know these.
                "AIRFLOW__OPENLINEAGE__DISABLED": "False",
                "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                    {"type": "file", "log_file_path": str(lineage), "append": True}
                ),
            },
        )
        with airflow.running():
            airflow.api("POST", "pools", json={"name": "browseract", "slots": 3, "include_deferred": True})
            yield SimpleNamespace(
                airflow=airflow, emulator=emulator, key=running.api_key, url=running.url, lineage=lineage
            )


def run(world, dag_id: str, conf: dict | None = None, expected: str = "success") -> str:
    """Run a DAG to its end, and print the logs if that is not the expected one."""
    run_id = world.airflow.trigger(dag_id, conf)
    state = world.airflow.wait_for_run(dag_id, run_id)
    if state != expected:
        for ti in world.airflow.task_instances(dag_id, run_id):
            print(f"--- {ti['task_id']} {ti['map_index']} {ti['state']}")
            print(*world.airflow.log(dag_id, run_id, ti["task_id"], map_index=ti["map_index"]), sep="\n")
    assert state == expected
    return run_id


def deferred_search(world, duration: float) -> tuple[str, int]:
    """Start the search example and wait until it is deferred; give the run, and where its task is in the record."""
    world.emulator.next_run(SEARCH.id, duration=duration)
    position = len(world.emulator.tasks)
    run_id = world.airflow.trigger("example_browseract_search")

    def deferred() -> bool:
        return any(
            ti["state"] == "deferred" for ti in world.airflow.task_instances("example_browseract_search", run_id)
        )

    wait_for("The deferral", deferred, timeout=90)
    return run_id, position


def asked_run(world, duration: float = 4.0) -> str:
    """Start the example that asks a person, and wait until it does; give its run."""
    world.emulator.set_workflow(HUMAN.id, duration=duration, pause_at=2.0 / duration, pause_limit=600.0)
    run_id: str = world.airflow.trigger("example_browseract_person")
    wait_until_asked(world, run_id)
    return run_id


def wait_until_asked(world, run_id: str) -> None:
    """Wait until a person is asked about the newest run."""
    dag_id = "example_browseract_person"

    def asked() -> bool:
        [ti] = world.airflow.task_instances(dag_id, run_id)
        waits_for = (world.airflow.xcom(dag_id, run_id, "solve", "wait") or {}).get("waits_for")
        return ti["state"] == "deferred" and waits_for == "person"

    wait_for("A question to a person", asked, timeout=120)


def asked_for(world, task_id: str) -> bool:
    """Say whether the trigger has asked for a task; the worker had done so before."""
    requests = world.emulator.requests
    return sum(request.endpoint == "get-task" and task_id in request.query for request in requests) > 1


def test_a_profile_chain_hands_the_log_in_on_and_its_log_tells_the_story(world, capsys):
    before = len(world.emulator.tasks)
    run_id = run(world, "example_browseract_profile", {"username": "grace"})
    dag_id = "example_browseract_profile"
    log_in, orders, again = world.emulator.tasks[before:]
    for task_id, started in (("log_in", log_in), ("orders", orders), ("orders_again", again)):
        assert world.airflow.xcom(dag_id, run_id, task_id, "task_id") == started.id
        assert world.airflow.xcom(dag_id, run_id, task_id, "profile_id") == log_in.profile_id
    assert {order["customer"] for order in world.airflow.xcom(dag_id, run_id, "orders", "return_value")} == {"grace"}

    log = world.airflow.log(dag_id, run_id, "log_in")
    with capsys.disabled():
        print("\nLog of log_in:", *log, sep="\n  ")
    story = "\n".join(log)
    for line in (
        rf"Started BrowserAct task {log_in.id} of workflow {LOG_IN.id}",
        r"Pausing task as DEFERRED",
        rf"BrowserAct task {log_in.id} is finished",
        rf"BrowserAct task {log_in.id}, step 1: Open the log-in page \(\w+\)",
        rf"BrowserAct task {log_in.id} ended as finished after \d+ s, 15 credits used, 3 steps:",
        r"  succeed  step 3: Wait for the account page",
    ):
        assert re.search(line, story)
    assert not any(secret in story for secret in (world.key, "only for the emulator"))


def test_one_run_per_keyword_stays_within_the_pool(world):
    before = len(world.emulator.tasks)
    keywords = ["a", "b", "c", "d", "e"]
    run_id = run(world, "example_browseract_keywords", {"keywords": keywords})
    tasks = world.emulator.tasks[before:]
    assert sorted(dict(task.inputs)["keyword"] for task in tasks) == keywords
    assert not [
        request for request in world.emulator.requests if request.endpoint == "run-task" and request.status != 200
    ]
    for index in range(len(keywords)):
        task_id = world.airflow.xcom("example_browseract_keywords", run_id, "search", "task_id", map_index=index)
        assert task_id in {task.id for task in tasks}
        links = world.airflow.extra_links("example_browseract_keywords", run_id, "search", map_index=index)
        assert task_id in str(links["BrowserAct task"])
        assert links["Live view"] == LiveViewLink.OVER
    assert len(world.airflow.xcom("example_browseract_keywords", run_id, "titles", "return_value")) == 10


def test_the_links_are_there_while_the_task_waits_and_the_live_view_says_when_it_is_over(world):
    dag_id = "example_browseract_search"
    run_id, _ = deferred_search(world, duration=4.0)
    task_id = world.airflow.xcom(dag_id, run_id, "search", "task_id")
    assert world.airflow.xcom(dag_id, run_id, "search", "task")["status"] == "running"
    links = world.airflow.extra_links(dag_id, run_id, "search")
    assert links == {"BrowserAct task": f"{world.url}/logs/{task_id}", "Live view": f"{world.url}/live/{task_id}"}
    assert world.airflow.wait_for_run(dag_id, run_id) == "success"
    assert world.airflow.xcom(dag_id, run_id, "search", "task")["credits"] == 20
    after = world.airflow.extra_links(dag_id, run_id, "search")
    assert after["BrowserAct task"] == links["BrowserAct task"]
    page = requests.get(f"{world.airflow.url}/{after['Live view']}", timeout=30)
    assert "The run is over" in page.text


def test_an_export_lies_in_the_store_and_its_asset_event_says_where(world, tmp_path):
    before = len(world.emulator.tasks)
    run_id = run(world, "example_browseract_export", {"store": f"file://{tmp_path}"})
    [task] = world.emulator.tasks[before:]
    manifest = world.airflow.xcom("example_browseract_export", run_id, "export", "return_value")
    assert manifest["path"] == f"file://{tmp_path}/{task.id}"
    assert {path.name for path in (tmp_path / task.id).iterdir()} == {"results.csv", "task.json"}
    assert len(world.airflow.xcom("example_browseract_export", run_id, "load", "return_value", map_index=0)) == 3
    [event] = world.airflow.api("GET", "assets/events", params={"source_run_id": run_id})["asset_events"]
    assert event["extra"]["browseract_task_id"] == task.id
    assert event["extra"]["files"] == [file["path"] for file in manifest["files"]]
    if importlib.util.find_spec("airflow.providers.openlineage") is None:
        return
    completed = wait_for("The lineage of the run", lambda: lineage_of(world, task.id), timeout=60)
    assert [dataset["name"] for dataset in completed["inputs"]] == [f"workflow/{EXPORT.id}"]
    assert [dataset["name"] for dataset in completed["outputs"]] == [f"{tmp_path}/{task.id}"]


def lineage_of(world, task_id: str) -> dict | None:
    """Find the event that tells OpenLineage of a BrowserAct task."""
    events = [json.loads(line) for line in world.lineage.read_text().splitlines()] if world.lineage.exists() else []
    for event in events:
        facet = event["run"]["facets"].get("browseract_task")
        if facet and facet["task"]["task_id"] == task_id:
            found: dict = event
            return found
    return None


def test_the_trigger_survives_a_kill_of_the_triggerer(world):
    run_id, before = deferred_search(world, duration=15.0)
    world.airflow.stop("triggerer", with_signal=signal.SIGKILL)
    world.airflow.start("triggerer")
    assert world.airflow.wait_for_run("example_browseract_search", run_id) == "success"
    tasks = world.emulator.tasks[before:]
    assert [task.status for task in tasks] == ["finished"]


def test_each_mapped_run_has_the_profile_of_its_own_log_in(world):
    run_id = run(world, "profiles")
    customers = [
        {
            order["customer"]
            for order in world.airflow.xcom("profiles", run_id, "orders", "return_value", map_index=index)
        }
        for index in range(2)
    ]
    assert customers == [{"ada"}, {"grace"}]


def test_a_connection_as_the_form_saves_it_works(world):
    saved = {
        "connection_id": "from_the_form",
        "conn_type": "browseract",
        "host": world.url,
        "password": world.key,
        "extra": json.dumps({"connect_timeout": 5, "read_timeout": None, "retry_budget": 20}),
    }
    world.airflow.api("POST", "connections", json=saved)
    run(world, "form")


@tells_of_kills
def test_marking_the_waiting_task_failed_stops_the_run(world):
    run_id, before = deferred_search(world, duration=300.0)
    # The trigger has to run before it can be told.
    world.emulator.wait_until(lambda: asked_for(world, world.emulator.tasks[before].id), timeout=60)
    path = f"dags/example_browseract_search/dagRuns/{run_id}/taskInstances/search"
    world.airflow.api("PATCH", path, json={"new_state": "failed"})
    world.emulator.wait_until(lambda: world.emulator.tasks[before].status == "canceled", timeout=60)


def test_a_failed_run_fails_the_task_with_the_reason_in_its_log(world):
    run_id = run(world, "blocked", expected="failed")
    log = "\n".join(world.airflow.log("blocked", run_id, "blocked"))
    assert "RunFailedError" in log
    assert f"of workflow {FAILING.id} failed" in log
    assert "(code 1011)" in log


def test_bad_input_ends_without_airflows_retries_and_without_a_run(world):
    before = len(world.emulator.tasks)
    run_id = run(world, "mistaken", expected="failed")
    [ti] = world.airflow.task_instances("mistaken", run_id)
    assert ti["try_number"] == 1
    assert "Check workflow_id" in "\n".join(world.airflow.log("mistaken", run_id, "mistaken"))
    assert len(world.emulator.tasks) == before


def test_waiting_in_the_worker_works_as_well(world):
    run_id = run(world, "in_the_worker")
    assert world.airflow.xcom("in_the_worker", run_id, "orders", "return_value")["logged_in"] is False


def worker_processes(world, dag_id: str, run_id: str, task_id: str) -> int:
    """Count the processes that a task instance had in workers, by the lines that each begins its log with."""
    lines = world.airflow.log(dag_id, run_id, task_id)
    return sum("DAG bundles loaded" in line for line in lines)


def test_a_run_that_was_started_elsewhere_is_waited_for_without_any_worker(world, capsys):
    dag_id = "example_browseract_elsewhere"
    run_id = run(world, dag_id)
    begun = world.emulator.tasks[-1]
    assert world.airflow.xcom(dag_id, run_id, "orders", "return_value")["logged_in"] is False
    assert world.airflow.extra_links(dag_id, run_id, "orders")["BrowserAct task"] == f"{world.url}/logs/{begun.id}"
    assert world.airflow.xcom(dag_id, run_id, "stop", "return_value") == {begun.id: "ended"}
    processes = {task_id: worker_processes(world, dag_id, run_id, task_id) for task_id in ("begin", "orders", "stop")}
    assert processes == {"begin": 1, "orders": 0 if TRIGGERS_START_TASKS else 2, "stop": 1}
    pids = {ti["task_id"]: ti["pid"] for ti in world.airflow.task_instances(dag_id, run_id)}
    assert (pids["orders"] is None) == TRIGGERS_START_TASKS
    with capsys.disabled():
        print("\nProcesses of each task in workers:", processes)
        print("Log of orders:", *world.airflow.log(dag_id, run_id, "orders"), sep="\n  ")


def test_a_sensor_waits_in_other_ways_too_and_fails_once_with_a_run_that_came_to_nothing(world):
    run_id = run(world, "elsewhere", expected="failed")
    for sensor in ("deferred", "rescheduled"):
        assert world.airflow.xcom("elsewhere", run_id, sensor, "return_value")["logged_in"] is False
    [failed] = [ti for ti in world.airflow.task_instances("elsewhere", run_id) if ti["state"] == "failed"]
    assert (failed["task_id"], failed["try_number"]) == ("failed", 1)
    assert "(code 1011)" in "\n".join(world.airflow.log("elsewhere", run_id, "failed"))


def test_an_official_template_runs_in_the_region_that_was_asked_for(world):
    run_id = run(world, "example_browseract_template")
    assert (world.emulator.tasks[-1].from_template, world.emulator.tasks[-1].proxy_region) == (True, "DE")
    assert len(world.airflow.xcom("example_browseract_template", run_id, "search", "return_value")) == 3


def test_a_decorated_function_makes_the_inputs_of_each_mapped_run(world):
    dag_id = "example_browseract_decorated"
    before = len(world.emulator.tasks)
    run_id = run(world, dag_id)
    keywords = {dict(task.inputs)["keyword"].partition(" ")[0] for task in world.emulator.tasks[before:]}
    assert keywords == {"pens", "ink"}
    for index in range(2):
        assert len(world.airflow.xcom(dag_id, run_id, "search", "return_value", map_index=index)) == 2


class TestARunThatAirflowDidNotStart:
    dag_id = "example_browseract_outside"

    def start_outside(self, world) -> str:
        """Have a run of someone else, which is over when this returns, and give its id."""
        world.emulator.next_run(ORDERS.id, duration=0.0)
        client = BrowserActClient(ClientSettings(api_key=world.key, base_url=world.url))
        task_id = client.send(run_task(ORDERS.id)).id
        position = len(world.emulator.tasks) - 1
        world.emulator.wait_until(lambda: world.emulator.tasks[position].finished_at, timeout=30)
        return task_id

    def looks(self, world) -> int:
        return sum(request.endpoint == "list-tasks" for request in world.emulator.requests)

    def told(self, world) -> list[str]:
        """Give the BrowserAct tasks that the events of the asset tell of."""
        events = world.airflow.api("GET", "assets/events", params={"limit": 100})["asset_events"]
        payloads = [event["extra"]["payload"] for event in events if event["extra"].get("from_trigger")]
        return [task["task_id"] for payload in payloads for task in payload["tasks"]]

    def read(self, world) -> dict[str, str]:
        """Give what the DAG has read, of all its runs that have ended."""
        runs = world.airflow.api("GET", f"dags/{self.dag_id}/dagRuns")["dag_runs"]
        assert {each["run_type"] for each in runs} <= {"asset_triggered"}
        found: dict[str, str] = {}
        for each in runs:
            found |= world.airflow.xcom(self.dag_id, each["dag_run_id"], "read", "return_value") or {}
        return found

    def test_starts_the_dag_once_with_its_task(self, world):
        before = self.looks(world)
        world.airflow.unpause(self.dag_id)
        wait_for("The first look", lambda: self.looks(world) > before, timeout=90)
        first = self.start_outside(world)
        wait_for("The run of the DAG", lambda: first in self.read(world), timeout=120)
        assert json.loads(self.read(world)[first])["logged_in"] is False

        if TRIGGERS_START_TASKS:
            before = self.looks(world)
            wait_for("One more look, so that it is kept what was told", lambda: self.looks(world) > before, timeout=60)
            # What ended while no triggerer ran is told by the next one, and nothing twice.
            world.airflow.stop("triggerer", with_signal=signal.SIGKILL)
            missed = self.start_outside(world)
            world.airflow.start("triggerer")
            wait_for("The missed one", lambda: missed in self.read(world), timeout=180)
            before = self.looks(world)
            wait_for("Two more looks", lambda: self.looks(world) >= before + 2, timeout=90)
            assert self.told(world).count(missed) == 1
        assert self.told(world).count(first) == 1
        world.airflow.api("PATCH", f"dags/{self.dag_id}", json={"is_paused": True})


def test_a_dry_run_is_skipped_and_starts_nothing(world):
    before = len(world.emulator.tasks)
    run_id = run(world, "dry")
    assert [ti["state"] for ti in world.airflow.task_instances("dry", run_id)] == ["skipped"]
    assert "The request would be POST" in "\n".join(world.airflow.log("dry", run_id, "orders"))
    assert len(world.emulator.tasks) == before


class TestAPersonInTheLoop:
    dag_id = "example_browseract_person"

    def test_finds_the_live_view_in_a_required_action_and_lets_the_run_go_on(self, world):
        run_id = asked_run(world)
        task_id = world.emulator.tasks[-1].id
        [pending] = world.airflow.api(
            "GET", f"dags/{self.dag_id}/dagRuns/{run_id}/hitlDetails", params={"response_received": "false"}
        )["hitl_details"]
        assert pending["options"] == ["Resume", "Stop"]
        assert f"{world.url}/live/{task_id}" in pending["body"]
        told = "\n".join(world.airflow.log(self.dag_id, run_id, "solve"))
        assert f"Help at {world.url}/live/{task_id} and answer at {world.airflow.url}/dags/{self.dag_id}" in told

        # A question lasts over the end of the process that waits for the answer.
        world.airflow.stop("triggerer", with_signal=signal.SIGKILL)
        world.airflow.start("triggerer")
        wait_for_grace(world, run_id)
        world.airflow.answer(self.dag_id, run_id, "solve", "Resume")
        assert world.airflow.wait_for_run(self.dag_id, run_id) == "success"
        assert world.emulator.tasks[-1].status == "finished"
        assert "has chosen Resume" in "\n".join(world.airflow.log(self.dag_id, run_id, "solve"))

    def test_is_not_needed_any_more_once_the_run_goes_on(self, world):
        run_id = asked_run(world, duration=60.0)
        BrowserActClient(ClientSettings(api_key=world.key, base_url=world.url)).send(
            resume_task(world.emulator.tasks[-1].id)
        )
        assert world.airflow.wait_for_run(self.dag_id, run_id) == "success"
        [question] = world.airflow.api("GET", f"dags/{self.dag_id}/dagRuns/{run_id}/hitlDetails")["hitl_details"]
        assert question["response_received"]
        assert question["chosen_options"] == ["Resume"]

    def test_stops_the_run_and_airflow_does_not_try_again_also_of_a_task_that_was_cleared(self, world):
        run_id = asked_run(world)
        if TRIGGERS_START_TASKS:
            first = len(world.emulator.tasks) - 1
            wait_for_grace(world, run_id)
            body = {"dry_run": False, "task_ids": ["solve"], "dag_run_id": run_id, "only_failed": False}
            world.airflow.api("POST", f"dags/{self.dag_id}/clearTaskInstances", json=body)
            wait_for("The stop", lambda: world.emulator.tasks[first].status == "canceled", timeout=60)
            wait_for("The next run", lambda: len(world.emulator.tasks) > first + 1, timeout=90)
            wait_until_asked(world, run_id)
        wait_for_grace(world, run_id)
        tries = world.airflow.task_instances(self.dag_id, run_id)[0]["try_number"]
        world.airflow.answer(self.dag_id, run_id, "solve", "Stop")
        assert world.airflow.wait_for_run(self.dag_id, run_id) == "failed"
        assert world.emulator.tasks[-1].status == "canceled"
        assert world.airflow.task_instances(self.dag_id, run_id)[0]["try_number"] == tries


def wait_for_grace(world, run_id: str) -> None:
    """Wait until the trigger has looked: earlier, the scheduler may take an answer for a crash."""
    position = len(world.emulator.requests)
    task_id = world.emulator.tasks[-1].id
    wait_for(
        "A poll",
        lambda: any(
            request.endpoint == "get-task" and task_id in request.query
            for request in world.emulator.requests[position:]
        ),
        timeout=60,
    )


def test_the_cli_knows_provider_plugin_and_connection(world, capsys):
    assert "airflow-provider-browseract" in world.airflow.cli("providers", "list")
    listed = world.airflow.cli("providers", "get", "airflow-provider-browseract", "--full", "--output", "json")
    [provider] = json.loads(listed[listed.index("[{") :])
    parts = ("hooks", "operators", "sensors", "triggers", "task-decorators", "extra-links")
    for part in parts:
        assert "airflow_provider_browseract." in str(provider[part])
    with capsys.disabled():
        print("\nThe provider as Airflow lists it:", *(f"{part}: {provider[part]}" for part in parts), sep="\n  ")
    assert "browseract" in world.airflow.cli("providers", "hooks")
    assert "browseract" in world.airflow.cli("plugins")
    world.airflow.cli("connections", "add", "second", "--conn-type", "browseract", "--conn-password", "app-two")
    shown = world.airflow.cli("connections", "get", "second", "--output", "json")
    assert json.loads(shown[shown.index("[") :])[0]["conn_type"] == "browseract"
