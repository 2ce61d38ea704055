"""What somebody with rights on one task instance reaches by editing its task state and its XComs: nothing of others."""

import json
from dataclasses import fields
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import ORDERS, SEARCH
from airflow_provider_browseract.exceptions import RunLostError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.worker.ledger import STATE_KEY, Entry
from tests.helpers.cases import cases
from tests.helpers.workers import PENS, FakeStore

OTHERS = {"dag_id": "team_b", "run_id": "manual__2", "task_id": "other", "map_index": -1}
THEIR_INPUTS = {"keyword": "ink", "max_items": 2}
LONG = {"duration": 3600.0}


@pytest.fixture
def theirs(worker, emulator) -> Any:
    """A task instance of another DAG that waits for its run, with the task state that it has stored."""
    emulator.set_workflow("*", **LONG)
    made = worker(store=FakeStore(), workflow_id=SEARCH.id, input_parameters=THEIR_INPUTS, deferrable=True)
    vars(made.ti).update(OTHERS)
    made.ti.xcom_pull = lambda **_: None
    made.defer()
    return made


def entry_of(instance: Any) -> Any:
    return json.loads(instance.context["task_state_store"].values[STATE_KEY])


ENTRY = tuple(each.name for each in fields(Entry))


@pytest.mark.parametrize("max_tries", [0, 1], ids=["retried", "cleared"])
@cases(
    # Which fields of their entry are in the own one, and other values.
    ("their entry", ENTRY, {}),
    ("own entry, their run", ("task_id",), {}),
    ("own entry, their proof", ("task_id", "proof"), {}),
    ("other inputs, other key", ("task_id",), {"fingerprint": "x", "key_digest": "x"}),
    ("their entry, other key", ENTRY, {"key_digest": "x"}),
    ("own entry without a run, their time", ("written_at",), {"task_id": None}),
)
def test_forged_entry_reads_stops_and_adopts_no_run_of_others(worker, emulator, theirs, max_tries, of_theirs, other):
    mine = worker(store=FakeStore(), wait_for_completion=False, workflow_id=SEARCH.id, input_parameters=PENS)
    mine.run()
    [their_run, my_run] = emulator.tasks
    their_entry = entry_of(theirs)
    forged = {**entry_of(mine), **{name: their_entry.get(name) for name in of_theirs}, **other}
    mine.context["task_state_store"].values[STATE_KEY] = json.dumps(forged)
    mine.ti.max_tries = max_tries
    reads = len(emulator.requests)
    if max_tries:
        assert mine.run() not in (their_run.id, my_run.id)
    else:
        with pytest.raises(AirflowFailException, match="cannot be used") as failed:
            mine.run()
        assert str(forged["task_id"] or "") in str(failed.value)
    asked = [request for request in emulator.requests[reads:] if their_run.id in str(request)]
    # With another key, only a read shows whether it is the run of this task instance.
    assert {request.endpoint for request in asked} <= ({"get-task"} if forged["key_digest"] == "x" else set())
    assert (their_run.status, my_run.status) == ("running", "running")


@pytest.mark.parametrize("error", ["Trigger failure", "Trigger timeout"])
@cases(
    ("their id", lambda own, their: {**own, "task_id": their["task_id"]}),
    ("their XCom", lambda own, their: their),
    ("no proof", lambda own, their: {name: value for name, value in own.items() if name != "proof"}),
    ("half a character as its proof", lambda own, their: {**own, "proof": "\ud800"}),
    ("what is hidden", lambda own, their: {**own, "hidden": ["live_view"]}),
    ("who follows", lambda own, their: {**own, "follows": True}),
    ("connection", lambda own, their: {**own, "connection": "other"}),
    ("version", lambda own, their: {**own, "api_version": "v3"}),
    ("no dict", lambda own, their: their["task_id"]),
    ("nothing", lambda own, their: None),
)
def test_forged_xcom_gives_no_run_of_others_after_a_deferral_that_failed(worker, emulator, theirs, error, forge):
    mine = worker(workflow_id=SEARCH.id, input_parameters=PENS, deferrable=True)
    mine.defer()
    [their_run, my_run] = emulator.tasks
    mine.ti.xcoms |= {"task_id": their_run.id, "task": forge(mine.ti.xcoms["task"], theirs.ti.xcoms["task"])}
    with pytest.raises(
        RunLostError, match=f"Its id is not certain.*The XCom task_id names BrowserAct task {their_run.id}"
    ):
        mine.operator().resume_execution("__fail__", {"error": error}, mine.context)
    assert (their_run.status, my_run.status) == ("running", "running")


@pytest.mark.parametrize("durable", [True, False])
def test_own_run_is_found_after_a_failed_deferral_whatever_the_xcom_task_id_names(worker, emulator, theirs, durable):
    mine = worker(store=FakeStore(), durable=durable, workflow_id=SEARCH.id, input_parameters=PENS, deferrable=True)
    mine.defer()
    mine.ti.xcoms["task_id"] = theirs.ti.xcoms["task_id"]
    with pytest.raises(RunLostError, match=r"The run was stopped\."):
        mine.operator().resume_execution("__fail__", {"error": "Trigger timeout"}, mine.context)
    assert [task.status for task in emulator.tasks] == ["running", "canceled"]


def test_xcom_is_proven_before_the_first_read(worker, emulator):
    mine = worker(workflow_id=ORDERS.id, deferrable=True)
    mine.at_calls("get-task", before=lambda _: mine.ti.__dict__.setdefault("before", dict(mine.ti.xcoms)))
    mine.defer()
    assert mine.ti.before["task"]["task_id"] == emulator.tasks[0].id
    assert mine.ti.before["task"]["proof"] == mine.ti.xcoms["task"]["proof"]
    assert BrowserActHook().settings.api_key not in json.dumps(mine.ti.xcoms)
