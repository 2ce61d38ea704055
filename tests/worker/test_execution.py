import json
from functools import partial
from types import SimpleNamespace

import pytest

from airflow_provider_browseract.compat import AirflowFailException, AirflowSkipException, AirflowTaskTimeout
from airflow_provider_browseract.emulator import LOG_IN, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.exceptions import RunLostError, ServerError
from airflow_provider_browseract.operators import browseract as operators
from airflow_provider_browseract.operators.base import forget_run
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.wait import WaitEvent
from airflow_provider_browseract.worker import checks
from airflow_provider_browseract.worker.ledger import STATE_KEY
from tests.helpers.cases import cases, raising
from tests.helpers.workers import refuse_xcoms, set_retry_policy


@pytest.fixture
def tries(search, store):
    return partial(search, store=store)


class TestAfterWorkerDeath:
    def test_reattached_run_keeps_its_deadline_and_is_polled(self, tries, emulator, connect):
        connect({"webhook_base_url": "http://127.0.0.1:1"})
        first, again = (tries(deferrable=True, poll_interval=None).defer().trigger.wait for _ in range(2))
        assert (first.browseract_task_id, first.deadline) == (again.browseract_task_id, again.deadline)
        # The address of the callback has the id of the first try.
        assert first.callback_token_sha256 is not None
        assert (again.callback_token_sha256, again.longest_pause) == (None, timings.DEFAULT_POLL_INTERVAL)

    def test_profile_id_is_pushed_by_the_try_that_reattaches(self, tries, emulator):
        inputs = {"username": "ada", "password": "secret"}
        arguments = {"workflow_id": LOG_IN.id, "input_parameters": inputs, "save_browser_data": True}
        first, second = tries(**arguments, deferrable=True), tries(**arguments)
        first.defer()
        second.run()
        assert second.ti.xcoms["profile_id"] == first.ti.xcoms["profile_id"] == emulator.tasks[0].profile_id


class TestAfterAirflowError:
    @cases(
        ("another try", 1, "keeps running, and the next try reattaches to it", ["finished"]),
        ("last try", 0, "was stopped", ["canceled", "finished"]),
    )
    def test_airflow_error_after_start_keeps_the_run_only_for_another_try(self, tries, emulator, max_tries, fate, runs):
        emulator.next_run(SEARCH.id, duration=1.0)
        attempt = tries(max_tries=max_tries)
        refuse_xcoms(attempt, "task_id")
        with pytest.raises(RunLostError, match=rf"no API server\.\nThe run {fate}\..* The traceback shows"):
            attempt.run()
        assert len(tries(max_tries=max_tries).run()) == 2
        assert [task.status for task in emulator.tasks] == runs

    def test_unexpected_error_after_a_deferral_in_the_last_try_stops_the_run(self, tries, emulator, monkeypatch):
        attempt = tries(deferrable=True)
        deferral = attempt.defer()
        monkeypatch.setattr(operators.RunWorkflowOperator, "hide_secrets", lambda *_: 1 / 0)
        with pytest.raises(RunLostError, match=r"^An unexpected error occurred: Zero.*\.\nThe run was stopped\. "):
            attempt.operator().execute_complete(attempt.context, to_json(WaitEvent(deferral.trigger.wait)))
        assert emulator.tasks[0].status == "canceled"

    @cases(
        ("Trigger failure", "Trigger failure", 1, None, "running"),
        ("Trigger timeout", "Trigger timeout", 1, None, "canceled"),
        ("last try, run cannot be read", "Trigger failure", 0, ServerError("down"), "canceled"),
        ("timeout, Airflow does not respond", "Trigger timeout", 0, RuntimeError("no Airflow"), "canceled"),
    )
    def test_deferral_ended_by_airflow_may_stop_the_run(
        self, tries, emulator, monkeypatch, logs, error, max_tries, unreadable, status
    ):
        emulator.next_run(SEARCH.id, duration=7200.0)
        attempt = tries(deferrable=True, max_tries=max_tries)
        attempt.defer()
        if unreadable:
            monkeypatch.setattr("airflow_provider_browseract.worker.look.send_all", raising(unreadable))
        fate = r"\n(?s:.*)The run was stopped\." if status == "canceled" else ""
        with pytest.raises(RunLostError, match=rf"^Airflow ended the deferral: {error}\..*{fate}"):
            attempt.operator().resume_execution("__fail__", {"error": error}, attempt.context)
        assert emulator.tasks[0].status == status
        assert ("The run cannot be read: " in logs()) is bool(unreadable)

    @pytest.mark.parametrize("error", ["Trigger failure", "Trigger timeout"])
    def test_deferral_ended_by_airflow_still_returns_the_result_of_an_ended_run(self, tries, emulator, error):
        attempt = tries(deferrable=True)
        attempt.defer()
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        assert len(attempt.operator().resume_execution("__fail__", {"error": error}, attempt.context)) == 2
        assert attempt.ti.xcoms["task"]["status"] == "finished"

    @pytest.mark.parametrize("event", [None, {"end": "triumph"}], ids=["missing", "unknown end"])
    @pytest.mark.parametrize("readable", [True, False], ids=["run is read", "run cannot be read"])
    def test_invalid_trigger_event_keeps_the_run_for_the_next_try(self, tries, emulator, readable, event):
        attempt = tries(deferrable=True, max_tries=1)
        attempt.defer()
        if not readable:
            emulator.fault("get-task", RequestFault.status(503))
        with pytest.raises(RunLostError, match="The trigger's event cannot be read:") as lost:
            attempt.operator().execute_complete(attempt.context, event)
        assert f"the next try reattaches to it.{' Its page is http' if readable else ''}" in str(lost.value)
        assert "Check that all components of Airflow have the same version of this provider.\n" in str(lost.value)
        assert ("HTTP 503" in str(lost.value).splitlines()[-1]) is not readable
        assert emulator.tasks[0].status == "running"

    @pytest.mark.parametrize(("action", "status"), [("fail", "canceled"), ("retry", "running")])
    def test_retry_policy_decides_about_the_error_of_a_run_that_is_given_up(self, tries, emulator, action, status):
        attempt = tries(deferrable=True, max_tries=1)
        seen = set_retry_policy(attempt, SimpleNamespace(value=action))
        attempt.defer()
        with pytest.raises(RunLostError, match=r"The run was stopped\." if action == "fail" else "reattaches to it"):
            attempt.operator().execute_complete(attempt.context, {"end": "triumph"})
        assert isinstance(seen[-1], RunLostError)
        assert str(seen[-1]).startswith("The ")
        assert emulator.tasks[0].status == status

    @pytest.mark.parametrize(("cancel_on_kill", "status"), [(True, "canceled"), (False, "running")])
    def test_cancel_on_kill_decides_after_a_failed_last_reattach(self, tries, emulator, cancel_on_kill, status):
        tries(wait_for_completion=False).run()
        emulator.fault("get-task", RequestFault.status(503))
        becomes = r"was stopped\." if cancel_on_kill else "keeps running and using credits because cancel_on_kill=False"
        with pytest.raises(RunLostError, match=f"An earlier try has started a run. The run {becomes}") as failed:
            tries(cancel_on_kill=cancel_on_kill).run()
        [task] = emulator.tasks
        assert task.status == status
        # The codes are at the end, and nowhere else.
        assert str(failed.value).splitlines()[-1].startswith(f"BrowserAct task {task.id}, code 503, HTTP 503, ")
        assert str(failed.value).count("HTTP 503") == 1


class TestAfterSuccess:
    def test_on_success_callback_of_the_user_is_placed_after_forget_run(self, tries):
        for given, callbacks in ((None, []), (print, [print]), ([print], [print])):
            operator = tries(on_success_callback=given, wait_for_completion=False).operator()
            # A cluster policy may have replaced it.
            operator.on_success_callback = given
            operator.execute(tries().context)
            assert operator.on_success_callback == [forget_run, *callbacks]

    def test_forget_run_does_not_raise_in_airflow_without_task_state(self, worker):
        forget_run(worker(workflow_id=ORDERS.id).context)


class TestLostStartResponse:
    def test_api_key_rotated_after_a_lost_start_still_leads_to_the_run(self, tries, emulator, connect):
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        attempt = tries()

        def rotate(_) -> None:
            connect(password="app-new")
            emulator.api_key = "app-new"

        attempt.at_calls("run-task", after=rotate)
        attempt.run()
        assert [(task.id, task.status) for task in emulator.tasks] == [(attempt.ti.xcoms["task_id"], "finished")]

    def test_airflow_error_after_a_lost_start_response_fails_without_a_retry_if_not_remembered(self, tries, emulator):
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        attempt = tries(store=None)
        attempt.ti.map_index = 0
        attempt.ti.xcom_pull = raising(RuntimeError("no API server."))
        with pytest.raises(AirflowFailException, match=r"^RuntimeError: no API server\.\nIt is not known .* Check the"):
            attempt.run()

    def test_refusal_without_a_code_is_not_left_to_a_later_try(self, tries, emulator):
        emulator.fault("run-task", RequestFault.refused(4711))
        emulator.rewrite("run-task", lambda _: {"code": None, "msg": "Your plan is suspended", "traceId": "t"})
        with pytest.raises(AirflowFailException, match="Your plan is suspended"):
            tries(max_tries=1).run()

    def test_next_try_looks_for_the_run_of_a_start_that_timed_out_and_that_is_logged(self, tries, emulator, logs):
        attempt = tries(max_tries=1)
        attempt.at_calls("run-task", after=raising(AirflowTaskTimeout("Timeout")))
        with pytest.raises(AirflowTaskTimeout):
            attempt.run()
        unknown = "It is not known whether BrowserAct started a run. A run may be running and using credits. "
        assert f"{unknown}The next try looks for it." in logs()
        assert len(tries().run()) == 2
        assert len(emulator.tasks) == 1

    @cases(
        ("fails", AirflowFailException, 3, "Check the newest tasks"),
        ("skips", AirflowSkipException, 3, "Check the newest tasks"),
        ("fails in the last try", ValueError, 0, "Check the newest tasks"),
        ("fails in another try", ValueError, 3, "The next try looks for it."),
    )
    def test_error_before_the_look_up_reports_the_unknown_start(
        self, tries, emulator, monkeypatch, logs, error, max_tries, says
    ):
        first = tries()
        first.at_calls("run-task", after=raising(AirflowTaskTimeout("Timeout")))
        with pytest.raises(AirflowTaskTimeout):
            first.run()
        logs()
        monkeypatch.setattr(operators.RunWorkflowOperator, "prepare", raising(error("nothing to search")))
        with pytest.raises(error) as failed:
            tries(max_tries=max_tries).run()
        assert says in f"{failed.value} {logs()}"
        assert emulator.tasks[0].status == "running"


OF_WORKFLOW_1 = {"source": {"kind": "workflow", "id": "1"}}


@cases(
    ("task_id", {"task_id": 7}, "task_id: Input should be a valid string", False),
    ("source", {"source": None}, "source: Input should be an object", True),
    ("other workflow", OF_WORKFLOW_1, "nothing proves that this task instance stored it", True),
    ("of an older version", {"connection": None, "longest_call": None}, "connection: Input should", True),
    ("cut", '{"source": {"kind"', "Input should be an object", False),
    ("1 MB", {"earlier": ["7" * 1000] * 1000}, "nothing proves that this task instance", True),
)
def test_invalid_entry_fails_and_starts_or_stops_no_run(tries, emulator, store, change, message, named):
    tries(wait_for_completion=False).run()
    changed = {**json.loads(store.values[STATE_KEY]), **change} if isinstance(change, dict) else change
    store.values[STATE_KEY] = json.dumps(changed)
    with pytest.raises(
        AirflowFailException, match=f"(?s)about its run.*{message}.*Nothing was started or stopped"
    ) as failed:
        tries().run()
    [task] = emulator.tasks
    assert task.status == "running"
    assert (f"BrowserAct task {task.id}." in str(failed.value)) is named


class TestFailingTaskState:
    @cases(("read", "get", 1, False), ("read in a later try", "get", 2, True), ("written", "set", 1, False))
    def test_failing_task_state_before_the_start_starts_no_run(
        self, tries, emulator, store, monkeypatch, logs, method, number, may_run
    ):
        monkeypatch.setattr(store, method, raising(RuntimeError("the API server is away")))
        with pytest.raises(RuntimeError, match="away"):
            tries(try_number=number).run()
        assert emulator.tasks == []
        assert ("A run may be running and using credits." in logs()) is may_run

    def test_failing_task_state_after_start_is_logged_and_keeps_result(self, tries, emulator, store, monkeypatch, logs):
        keep = store.set

        def away(key, value, *, retention):
            if value["task_id"]:
                raise RuntimeError("the API server is away")
            keep(key, value, retention=retention)

        monkeypatch.setattr(store, "set", away)
        assert len(tries().run()) == 2
        assert "The state of the run could not be stored." in logs()


@pytest.mark.parametrize("durable", [True, False])
def test_durable_logs_a_warning_before_airflow_3_3_where_it_has_no_effect(worker, emulator, monkeypatch, logs, durable):
    monkeypatch.setattr(checks, "AIRFLOW_V_3_3_PLUS", False)
    worker(workflow_id=ORDERS.id, durable=durable).run()
    assert ("durable=True has no effect" in logs()) == durable
