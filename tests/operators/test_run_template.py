"""Official templates: another start, and everything else as with workflows."""

from __future__ import annotations

import pytest

from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import SEARCH, TEMPLATE_SEARCH, RequestFault
from airflow_provider_browseract.operators.browseract import RunTemplateOperator
from tests.workers import BOTH_WAYS, PENS


@pytest.fixture(autouse=True)
def _short_patience(connect, emulator):
    connect({"retry_budget": 0.2, "read_timeout": 10, "webhook_base_url": "http://127.0.0.1:1"})
    for each in emulator.of_kind("template"):
        emulator.set_workflow(each.id, duration=0.2)


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
    assert (task.workflow.kind, task.proxy_region) == ("template", "DE")
    assert run.ti.xcoms["task_id"] == task.id
    assert "profile_id" not in run.ti.xcoms
    if deferrable:
        assert task.callback_url is not None


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
    first.defer()
    assert len(template(store=store).run()) == 2
    assert len(emulator.tasks) == 1


class TestLostStartResponse:
    def test_lost_template_start_fails_and_names_the_run_which_is_adopted_if_so_wanted(
        self, template, emulator, store, connect
    ):
        # A later try looks for the run of a lost start for as long as the start could have taken.
        connect({"retry_budget": 0.2, "connect_timeout": 0.5, "read_timeout": 1})
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
