"""Official templates: another start, and everything else as with workflows."""

from __future__ import annotations

import json

import pytest

from airflow_provider_browseract.compat import AirflowFailException, TaskDeferred
from airflow_provider_browseract.emulator import SEARCH, TEMPLATE_EXPORT, TEMPLATE_SEARCH, RequestFault
from airflow_provider_browseract.operators.browseract import RunTemplateOperator
from airflow_provider_browseract.runs.ledger import KEY

BOTH_WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["in the worker", "deferred"])
PENS = {"keyword": "pens", "max_items": 2}


@pytest.fixture(autouse=True)
def _short_patience(set_extra, emulator):
    set_extra(retry_budget=0.2, read_timeout=1, webhook_base_url="http://127.0.0.1:1")
    for template_id in emulator.templates:
        emulator.set_workflow(template_id, duration=0.2)


@pytest.fixture
def template(worker):
    """Makes tries of a task that runs a template."""

    def make(**arguments):
        defaults = {"workflow_template_id": TEMPLATE_SEARCH.id, "input_parameters": PENS}
        return worker(operator_class=RunTemplateOperator, **{**defaults, **arguments})

    return make


@BOTH_WAYS
def test_a_template_is_run_and_its_output_comes_back(template, emulator, deferrable):
    run = template(region="DE", deferrable=deferrable)
    assert len(run.run()) == 2
    [task] = emulator.tasks
    assert (task.from_template, task.proxy_region) == (True, "DE")
    assert run.ti.xcoms["task_id"] == task.id
    assert "profile_id" not in run.ti.xcoms
    if deferrable:
        assert task.callback_url is not None


def test_results_are_written_as_those_of_a_workflow(template, emulator, tmp_path):
    manifest = template(workflow_template_id=TEMPLATE_EXPORT.id, output_path=str(tmp_path)).run()
    assert [file["name"] for file in manifest["files"]] == ["results.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workflow_template_id": ""}, "workflow_template_id is ''"),
        ({"workflow_template_id": "123"}, "Check workflow_template_id"),
        ({"region": "XX"}, r"region is 'XX'\. BrowserAct has: US \(United States\), UK"),
        ({"region": ""}, "region is ''"),
        ({"input_parameters": {"Keyword": "pens"}}, "which is written 'keyword'"),
        ({"profile_id": "7"}, "profile_id is '7', but official templates have no browser profiles"),
        ({"save_browser_data": True}, "save_browser_data is True, but official templates have no browser profiles"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_started(template, emulator, arguments, message):
    with pytest.raises(AirflowFailException, match=message):
        template(**arguments).run()
    assert emulator.tasks == []


def test_regions_that_cannot_be_read_cost_a_warning_and_not_the_run(template, emulator, capfd):
    emulator.fault("get-region-list", RequestFault.status(500), times=None)
    assert len(template(region="DE").run()) == 2
    assert "The region was not checked" in "".join(capfd.readouterr())
    with pytest.raises(AirflowFailException, match="which is written 'keyword'"):
        template(region="DE", input_parameters={"Keyword": "pens"}).run()


def test_a_later_try_takes_the_run_up(template, emulator, store):
    emulator.set_workflow(TEMPLATE_SEARCH.id, duration=0.6)
    first = template(store=store, deferrable=True)
    with pytest.raises(TaskDeferred):
        first.operator().execute(first.context)
    assert len(template(store=store).run()) == 2
    assert len(emulator.tasks) == 1


class TestAStartWhoseAnswerWasLost:
    def test_leads_to_the_run_if_the_api_shows_it_under_the_template(self, template, emulator, store):
        emulator.fault("run-task-by-template", RequestFault.lost_answer(), times=1)
        assert len(template(store=store).run()) == 2
        assert len(emulator.tasks) == 1

    def test_and_that_the_api_shows_under_another_workflow_is_named_and_not_doubled(
        self, template, worker, emulator, monkeypatch
    ):
        # A run that was not started by us, of a workflow with the same inputs.
        worker(workflow_id=SEARCH.id, input_parameters=PENS, wait_for_completion=False).run()
        emulator.fault("run-task-by-template", RequestFault.reset(), times=1)
        with pytest.raises(AirflowFailException, match=f"may have made one of these.*{emulator.tasks[0].id}"):
            template().run()
        assert len(emulator.tasks) == 1


def test_an_entry_says_that_it_is_of_a_template(template, emulator, store):
    template(store=store, wait_for_completion=False).run()
    entry = json.loads(store.values[KEY])
    assert (entry["workflow_id"], entry["is_template"]) == (TEMPLATE_SEARCH.id, True)
