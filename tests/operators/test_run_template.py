"""Official templates: another start, and everything else as with workflows."""

from __future__ import annotations

import json

import pytest

from airflow_provider_browseract.compat import AirflowFailException, TaskDeferred
from airflow_provider_browseract.emulator import SEARCH, TEMPLATE_EXPORT, TEMPLATE_SEARCH, RequestFault
from airflow_provider_browseract.operators.browseract import RunTemplateOperator
from airflow_provider_browseract.runs.ledger import STATE_KEY
from tests.workers import BOTH_WAYS, PENS


@pytest.fixture(autouse=True)
def _short_patience(connect, emulator):
    connect({"retry_budget": 0.2, "read_timeout": 10, "webhook_base_url": "http://127.0.0.1:1"})
    for template_id in emulator.templates:
        emulator.set_workflow(template_id, duration=0.2)


@pytest.fixture
def template(worker):
    """Creates tries of a task that runs a template."""

    def make(**arguments):
        defaults = {"workflow_template_id": TEMPLATE_SEARCH.id, "input_parameters": PENS}
        return worker(operator_class=RunTemplateOperator, **{**defaults, **arguments})

    return make


@BOTH_WAYS
def test_template_runs_with_its_region_and_returns_its_output(template, emulator, deferrable):
    run = template(region="DE", deferrable=deferrable)
    assert len(run.run()) == 2
    [task] = emulator.tasks
    assert (task.from_template, task.proxy_region) == (True, "DE")
    assert run.ti.xcoms["task_id"] == task.id
    assert "profile_id" not in run.ti.xcoms
    if deferrable:
        assert task.callback_url is not None


def test_template_results_are_written_to_output_path(template, emulator, tmp_path):
    manifest = template(workflow_template_id=TEMPLATE_EXPORT.id, output_path=str(tmp_path)).run()
    assert [file["name"] for file in manifest["files"]] == ["results.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workflow_template_id": ""}, "workflow_template_id is ''"),
        ({"workflow_template_id": "123"}, "Check workflow_template_id"),
        ({"region": "XX"}, r"region is 'XX', which BrowserAct does not have\. Use one of: US \(United States\), UK"),
        ({"region": ""}, "region is ''"),
        ({"input_parameters": {"Keyword": "pens"}}, r"'Keyword' \(did you mean 'keyword'\?\)"),
    ],
    ids=[
        "empty id",
        "unknown id",
        "unknown region",
        "empty region",
        "wrong case input",
    ],
)
def test_invalid_template_argument_fails_before_any_start(template, emulator, arguments, message):
    with pytest.raises(AirflowFailException, match=message):
        template(**arguments).run()
    assert emulator.tasks == []


@pytest.mark.parametrize("argument", [{"profile_id": "7"}, {"save_browser_data": True}])
def test_template_takes_no_arguments_for_browser_profiles(template, emulator, argument):
    with pytest.raises(
        TypeError, match=f"Invalid arguments were passed to RunTemplateOperator.*\n.*{next(iter(argument))}"
    ):
        template(**argument).operator()


def test_unreadable_regions_log_a_warning_and_the_run_still_finishes(template, emulator, capfd):
    emulator.fault("get-region-list", RequestFault.status(500), times=None)
    assert len(template(region="DE").run()) == 2
    assert "The region was not checked" in "".join(capfd.readouterr())
    with pytest.raises(AirflowFailException, match=r"'Keyword' \(did you mean 'keyword'\?\)"):
        template(region="DE", input_parameters={"Keyword": "pens"}).run()


def test_later_try_reattaches_to_the_run_of_a_template(template, emulator, store):
    emulator.set_workflow(TEMPLATE_SEARCH.id, duration=0.6)
    first = template(store=store, deferrable=True)
    with pytest.raises(TaskDeferred):
        first.operator().execute(first.context)
    assert len(template(store=store).run()) == 2
    assert len(emulator.tasks) == 1


class TestLostStartResponse:
    def test_lost_template_start_fails_and_names_the_run_which_is_adopted_if_so_wanted(self, template, emulator, store):
        emulator.fault("run-task-by-template", RequestFault.lost_response(), times=1)
        with pytest.raises(AirflowFailException) as failed:
            template(store=store).run()
        [task] = emulator.tasks
        assert f"may have created one of these BrowserAct tasks: {task.id} (" in str(failed.value)
        assert (f"/logs/{task.id})" in str(failed.value)) is not emulator.as_in_the_demos
        assert len(template(store=store, on_orphan="adopt").run()) == 2
        assert len(emulator.tasks) == 1

    def test_lost_template_start_fails_and_names_a_similar_run_of_a_workflow(
        self, template, worker, emulator, monkeypatch
    ):
        # A run that was not started by us, of a workflow with the same inputs.
        worker(workflow_id=SEARCH.id, input_parameters=PENS, wait_for_completion=False).run()
        emulator.fault("run-task-by-template", RequestFault.reset(), times=1)
        with pytest.raises(AirflowFailException, match=f"may have created one of these.*{emulator.tasks[0].id}"):
            template().run()
        assert len(emulator.tasks) == 1


def test_stored_entry_of_a_template_run_is_marked_as_template(template, emulator, store):
    template(store=store, wait_for_completion=False).run()
    entry = json.loads(store.values[STATE_KEY])
    assert entry["source"] == {"kind": "template", "id": TEMPLATE_SEARCH.id}
