"""What is looked at before a run is started, and what a dry run shows."""

from __future__ import annotations

import pytest

from airflow_provider_browseract.compat import AirflowFailException, AirflowSkipException
from airflow_provider_browseract.emulator import LOG_IN, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
from airflow_provider_browseract.runs.inputs import InputError
from airflow_provider_browseract.runs.outcome import RunCanceledError
from tests.operators.conftest import is_killed_at_each_call

PENS = {"keyword": "pens", "max_items": 2}


@pytest.fixture(autouse=True)
def _short_patience(set_extra):
    set_extra(retry_budget=0.2, read_timeout=1, webhook_base_url="http://127.0.0.1:1")


def endpoints(emulator) -> list[str | None]:
    return [request.endpoint for request in emulator.requests]


class TestNamesOfInputs:
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"keywrod": "pens"}, r"has the name 'keywrod' \(did you mean 'keyword'\?\); it lacks 'keyword'"),
            ({"Keyword": "pens"}, "has the name 'Keyword', which is written 'keyword'"),
            ({"keyword": "a", "colour": "red"}, "has the name 'colour'. What workflow"),
            ({"max_items": 2}, "lacks 'keyword', which has to be given"),
            ({}, r"takes: keyword \(required\), max_items"),
        ],
    )
    def test_that_are_wrong_are_told_with_the_right_ones_before_anything_is_started(
        self, worker, emulator, inputs, message
    ):
        with pytest.raises(AirflowFailException, match=message):
            worker(workflow_id=SEARCH.id, input_parameters=inputs).run()
        assert endpoints(emulator) == ["get-workflow"]

    def test_cost_one_request(self, worker, emulator):
        worker(workflow_id=SEARCH.id, input_parameters=PENS, wait_for_completion=False).run()
        assert endpoints(emulator).count("get-workflow") == 1

    def test_are_not_looked_at_again_while_the_task_waits_for_room(self, worker, emulator):
        emulator.concurrency = 1
        emulator.set_workflow(ORDERS.id, duration=1.0)
        worker(workflow_id=ORDERS.id, wait_for_completion=False).run()
        worker(workflow_id=SEARCH.id, input_parameters=PENS, deferrable=True).run()
        assert endpoints(emulator).count("run-task") > 2
        assert endpoints(emulator).count("get-workflow") == 2

    def test_are_not_looked_at_where_a_run_is_taken_up(self, worker, emulator, store):
        arguments = {"workflow_id": SEARCH.id, "input_parameters": PENS, "store": store}
        worker(**arguments, wait_for_completion=False).run()
        emulator.fault("get-workflow", RequestFault.refused(10111), times=None)
        assert len(worker(**arguments).run()) == 2

    def test_are_not_looked_at_with_validate_inputs_false(self, worker, emulator):
        worker(workflow_id=SEARCH.id, input_parameters=PENS, validate_inputs=False).run()
        assert "get-workflow" not in endpoints(emulator)

    def test_that_cannot_be_read_cost_a_warning_and_not_the_run(self, worker, emulator, capfd):
        emulator.fault("get-workflow", RequestFault.status(500), times=None)
        assert len(worker(workflow_id=SEARCH.id, input_parameters=PENS).run()) == 2
        assert "The names of the inputs were not checked: BrowserAct failed" in "".join(capfd.readouterr())

    def test_of_a_workflow_that_lists_none_cost_a_warning(self, worker, emulator, capfd):
        emulator.set_workflow(SEARCH.id, inputs=())
        with pytest.raises(AirflowFailException, match="refused run-task"):
            worker(workflow_id=SEARCH.id, input_parameters=PENS).run()
        assert "BrowserAct lists none for workflow" in "".join(capfd.readouterr())

    def test_of_a_workflow_that_there_is_not_are_not_asked_for_twice(self, worker, emulator):
        with pytest.raises(AirflowFailException, match="Check workflow_id"):
            worker(workflow_id="123").run()
        assert endpoints(emulator) == ["get-workflow"]


class TestAKillDuringTheLook:
    def test_keeps_the_start_from_being_sent(self, worker, emulator, monkeypatch):
        operator = worker(workflow_id=SEARCH.id, input_parameters=PENS).operator()
        is_killed_at_each_call(operator, monkeypatch)
        with pytest.raises(RunCanceledError, match="Killed before a run was started"):
            operator.execute(worker(workflow_id=SEARCH.id).context)
        assert emulator.tasks == []


class TestADryRun:
    def test_starts_nothing_and_ends_as_skipped(self, worker, emulator):
        with pytest.raises(AirflowSkipException, match=f"no run of workflow {SEARCH.id} was started"):
            worker(workflow_id=SEARCH.id, input_parameters=PENS, dry_run=True, deferrable=True).run()
        assert endpoints(emulator) == ["get-workflow"]

    def test_shows_the_request_and_no_secret(self, worker, emulator, capfd):
        inputs = {"username": "ada", "password": "hunter2"}
        receiver = "http://127.0.0.1/t0ken"
        with pytest.raises(AirflowSkipException):
            worker(workflow_id=LOG_IN.id, input_parameters=inputs, callback_url=receiver, dry_run=True).run()
        said = "".join(capfd.readouterr())
        assert "/v2/workflow/run-task with {" in said
        for shown in (f'"workflow_id": "{LOG_IN.id}"', '{"name": "username", "value": "ada"}', '"callback_url": "***"'):
            assert shown in said
        assert not any(secret in said for secret in ("hunter2", "t0ken", "app-emulator"))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"input_parameters": {}}, "lacks 'keyword'"),
            ({"output_path": "nostore://x"}, "the filesystem for nostore cannot be used here"),
            ({"browseract_conn_id": "nowhere"}, "There is no connection 'nowhere'"),
        ],
    )
    def test_finds_what_a_run_would_fail_for(self, worker, emulator, arguments, message):
        given = {"workflow_id": SEARCH.id, "input_parameters": PENS, "dry_run": True, **arguments}
        with pytest.raises(AirflowFailException, match=message):
            worker(**given).run()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"timeout": 0}, "timeout is 0"),
            ({"on_orphan": "hope"}, "on_orphan is 'hope'"),
            ({"webhook": "yes"}, "webhook is 'yes'"),
            ({"webhook": True}, "webhook=True needs deferrable=True"),
            ({"dry_run": "yes"}, "dry_run is 'yes'"),
        ],
    )
    def test_is_not_needed_for_constant_arguments_which_fail_while_the_dag_is_parsed(self, arguments, message):
        given = {"workflow_id": SEARCH.id, "input_parameters": PENS, "dry_run": True, **arguments}
        with pytest.raises(InputError, match=message):
            RunWorkflowOperator(task_id="run", **given)

    def test_keeps_nothing_of_a_callback(self, worker, emulator):
        run = worker(workflow_id=SEARCH.id, input_parameters=PENS, dry_run=True, deferrable=True)
        with pytest.raises(AirflowSkipException):
            run.run()
        assert run.ti.xcoms == {}

    def test_shows_no_secret_at_any_depth(self, worker, emulator, capfd):
        emulator.set_workflow(LOG_IN.id, inputs=())
        inputs = {"accounts": [{"name": "ada", "password": "hunter2"}]}
        with pytest.raises(AirflowSkipException):
            worker(workflow_id=LOG_IN.id, input_parameters=inputs, dry_run=True).run()
        said = "".join(capfd.readouterr())
        assert "ada" in said
        assert "hunter2" not in said

    def test_leaves_airflows_method_of_that_name_alone(self, worker):
        assert callable(worker(workflow_id=SEARCH.id, dry_run=True).operator().dry_run)
