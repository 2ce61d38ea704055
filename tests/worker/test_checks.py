"""The checks before a run is started, and what a dry run shows."""

from __future__ import annotations

import socket

import pytest

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.errors import ConnectionFailedError
from airflow_provider_browseract.compat import AirflowFailException, AirflowSkipException
from airflow_provider_browseract.emulator import LOG_IN, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
from airflow_provider_browseract.runs.outcome import RunCanceledError
from tests.workers import PENS, is_killed_at_each_call


@pytest.fixture(autouse=True)
def _short_patience(connect):
    connect({"retry_budget": 0.2, "read_timeout": 10, "webhook_base_url": "http://127.0.0.1:1"})


def endpoints(emulator) -> list[str | None]:
    return [request.endpoint for request in emulator.requests]


class TestInputNames:
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            (
                {"keywrod": "pens"},
                r"^input_parameters has the unknown name 'keywrod' \(did you mean 'keyword'\?\) and lacks the required "
                r"name 'keyword'\. The inputs of workflow \d+ are: ",
            ),
            ({"keywrod": "a", "max_itmes": 2}, r"unknown names 'keywrod' \(.*\?\), 'max_itmes' \(.*\?\) and lacks"),
            ({"Keyword": "pens"}, r"has the unknown name 'Keyword' \(did you mean 'keyword'\?\) and lacks"),
            ({"keyword": "a", "colour": "red"}, "has the unknown name 'colour'. The inputs of workflow"),
            ({"max_items": 2}, "lacks the required name 'keyword'"),
            ({}, r"are: keyword \(required\), max_items"),
        ],
        ids=["misspelled", "two misspelled", "wrong case", "unknown", "required missing", "no inputs"],
    )
    def test_wrong_or_missing_input_name_fails_with_a_hint_before_any_start(self, worker, emulator, inputs, message):
        with pytest.raises(AirflowFailException, match=message):
            worker(workflow_id=SEARCH.id, input_parameters=inputs).run()
        assert endpoints(emulator) == ["get-workflow"]

    def test_check_of_input_names_costs_one_request(self, worker, emulator):
        worker(workflow_id=SEARCH.id, input_parameters=PENS, wait_for_completion=False).run()
        assert endpoints(emulator).count("get-workflow") == 1

    def test_input_names_are_not_checked_again_while_waiting_for_a_slot(self, worker, emulator):
        emulator.concurrency = 1
        emulator.set_workflow(ORDERS.id, duration=1.0)
        worker(workflow_id=ORDERS.id, wait_for_completion=False).run()
        worker(workflow_id=SEARCH.id, input_parameters=PENS, deferrable=True).run()
        assert endpoints(emulator).count("run-task") > 2
        assert endpoints(emulator).count("get-workflow") == 2

    def test_reattach_succeeds_without_a_check_of_input_names(self, worker, emulator, store):
        arguments = {"workflow_id": SEARCH.id, "input_parameters": PENS, "store": store}
        worker(**arguments, wait_for_completion=False).run()
        emulator.fault("get-workflow", RequestFault.refused(10111), times=None)
        assert len(worker(**arguments).run()) == 2

    def test_input_names_are_not_checked_with_validate_inputs_false(self, worker, emulator):
        worker(workflow_id=SEARCH.id, input_parameters=PENS, validate_inputs=False).run()
        assert "get-workflow" not in endpoints(emulator)

    def test_unreadable_input_names_log_a_warning_and_the_run_still_finishes(self, worker, emulator, capfd):
        emulator.fault("get-workflow", RequestFault.status(500), times=None)
        assert len(worker(workflow_id=SEARCH.id, input_parameters=PENS).run()) == 2
        assert "The names of the inputs were not checked: BrowserAct failed" in "".join(capfd.readouterr())

    def test_workflow_that_lists_no_inputs_logs_a_warning_and_the_start_is_sent(self, worker, emulator, capfd):
        emulator.set_workflow(SEARCH.id, inputs=())
        with pytest.raises(AirflowFailException, match="refused the start"):
            worker(workflow_id=SEARCH.id, input_parameters=PENS).run()
        assert "BrowserAct lists none for workflow" in "".join(capfd.readouterr())

    def test_unknown_workflow_fails_after_a_single_request(self, worker, emulator, capfd):
        with pytest.raises(AirflowFailException, match="Check workflow_id"):
            worker(workflow_id="123").run()
        assert endpoints(emulator) == ["get-workflow"]
        assert "not known whether" not in "".join(capfd.readouterr())


def test_address_where_nothing_listens_is_logged_at_once_and_costs_one_retry_budget(worker, connect, capfd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    connect({"retry_budget": 1}, host=f"http://127.0.0.1:{port}")
    with pytest.raises(ConnectionFailedError, match=f"^No connection to http://127.0.0.1:{port} for get-workflow"):
        worker(workflow_id=SEARCH.id, input_parameters=PENS).run()
    logged = "".join(capfd.readouterr())
    assert logged.count("Trying again for up to 1 seconds.") == 1
    assert logged.count("No connection to") == 1


class TestKillDuringInputCheck:
    def test_kill_during_the_check_of_input_names_prevents_the_start(self, worker, emulator, monkeypatch):
        operator = worker(workflow_id=SEARCH.id, input_parameters=PENS).operator()
        is_killed_at_each_call(operator, monkeypatch)
        with pytest.raises(RunCanceledError, match="Killed before a run was started"):
            operator.execute(worker(workflow_id=SEARCH.id).context)
        assert emulator.tasks == []


class TestDryRun:
    def test_dry_run_starts_no_run_and_ends_as_skipped(self, worker, emulator):
        with pytest.raises(AirflowSkipException, match=f"no run of workflow {SEARCH.id} was started"):
            worker(workflow_id=SEARCH.id, input_parameters=PENS, dry_run=True, deferrable=True).run()
        assert endpoints(emulator) == ["get-workflow", "list-tasks"]

    def test_dry_run_logs_the_start_request_without_secrets(self, worker, emulator, capfd):
        inputs = {"username": "ada", "password": "hunter2"}
        receiver = "http://127.0.0.1/t0ken"
        with pytest.raises(AirflowSkipException):
            worker(workflow_id=LOG_IN.id, input_parameters=inputs, callback_url=receiver, dry_run=True).run()
        logged = "".join(capfd.readouterr())
        assert "/v2/workflow/run-task with {" in logged
        for shown in (f'"workflow_id": "{LOG_IN.id}"', '{"name": "username", "value": "ada"}', '"callback_url": "***"'):
            assert shown in logged
        assert not any(secret in logged for secret in ("hunter2", "t0ken", "app-emulator"))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"input_parameters": {}}, "lacks the required name 'keyword'"),
            ({"output_path": "nostore://x"}, "the filesystem for nostore is not available here"),
            ({"browseract_conn_id": "nowhere"}, "There is no connection 'nowhere'"),
        ],
        ids=["missing input", "unusable output_path", "missing connection"],
    )
    def test_dry_run_fails_on_missing_input_unusable_path_or_missing_connection(
        self, worker, emulator, arguments, message
    ):
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
        ids=["timeout", "on_orphan", "webhook", "webhook not deferred", "dry_run"],
    )
    def test_invalid_constant_argument_fails_at_dag_parse_even_with_dry_run(self, arguments, message):
        given = {"workflow_id": SEARCH.id, "input_parameters": PENS, "dry_run": True, **arguments}
        with pytest.raises(InputError, match=message):
            RunWorkflowOperator(task_id="run", **given)

    def test_dry_run_leaves_the_task_instance_without_xcoms(self, worker, emulator):
        run = worker(workflow_id=SEARCH.id, input_parameters=PENS, dry_run=True, deferrable=True)
        with pytest.raises(AirflowSkipException):
            run.run()
        assert run.ti.xcoms == {}

    def test_dry_run_logs_no_secret_from_nested_inputs(self, worker, emulator, capfd):
        emulator.set_workflow(LOG_IN.id, inputs=())
        inputs = {"accounts": [{"name": "ada", "password": "hunter2"}]}
        with pytest.raises(AirflowSkipException):
            worker(workflow_id=LOG_IN.id, input_parameters=inputs, dry_run=True).run()
        logged = "".join(capfd.readouterr())
        assert "ada" in logged
        assert "hunter2" not in logged

    def test_method_dry_run_of_airflow_renders_the_fields_although_an_argument_has_its_name(self, worker, capfd):
        worker(workflow_id=SEARCH.id, dry_run=True).operator().dry_run()
        assert "Rendering template for workflow_id" in "".join(capfd.readouterr())
