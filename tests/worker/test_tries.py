"""How a later try uses the run of an earlier one, and a start whose response was lost."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import pytest

from airflow_provider_browseract.api.errors import ResponseLostError, RunStartUnknownError
from airflow_provider_browseract.api.exchange import Response
from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from airflow_provider_browseract.emulator import LOG_IN, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.operators.browseract import RunBotOperator, RunWorkflowOperator
from airflow_provider_browseract.runs.callback_url import TOKEN_KEY, WAIT_XCOM
from airflow_provider_browseract.runs.ledger import STATE_KEY
from airflow_provider_browseract.runs.outcome import RunCanceledError, RunFailedError, RunLostError, RunTimedOutError
from airflow_provider_browseract.runs.report import WHY_UNKNOWN
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.starting import MAX_STARTS
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.waiting import End
from airflow_provider_browseract.worker import checks
from airflow_provider_browseract.worker.tries import CLAIM_KEY, PLACE_KEY, STATE_RETENTION, Tries, forget_run
from tests.workers import BOTH_WAYS, ORDERS_RESULT, PENS, calls_of, set_retry_policy

# A later try looks for the run of a lost start for as long as the start could have taken.
PATIENCE = {"retry_budget": 0.2, "connect_timeout": 0.5, "read_timeout": 3, "webhook_base_url": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def _short_patience(connect):
    connect(PATIENCE)


@pytest.fixture
def tries(worker, store):
    """Creates the tries of a task instance, each with its own XComs and all with the same state."""

    def make(**arguments):
        defaults = {"workflow_id": SEARCH.id, "input_parameters": PENS, "store": store}
        return worker(**{**defaults, **arguments})

    return make


class Crash(BaseException):
    """Simulates a SIGKILL: no code of the operator runs after it."""


def a_try_dies(tries, monkeypatch, when="after the answer to the start", *, death=Crash, **arguments) -> None:
    """Run a try whose process dies: before the start, after its response, or after the response to the next call."""
    attempt = tries(**arguments)
    operator = attempt.operator()
    send = operator.hook.client.send

    def die(call):
        if call.name == "get-workflow":
            return send(call)
        if when == "before the start":
            raise death("x")
        answer = send(call)
        if call.starts_run == (when == "after the answer to the start"):
            raise death("x")
        return answer

    monkeypatch.setattr(operator.hook.client, "send", die)
    with pytest.raises(death):
        operator.execute(attempt.context)


class TestAfterWorkerDeath:
    @BOTH_WAYS
    def test_worker_killed_after_the_start_reattaches_on_retry_and_starts_no_run(
        self, tries, emulator, monkeypatch, deferrable, capfd
    ):
        a_try_dies(tries, monkeypatch, "after the call behind the start", deferrable=deferrable)
        second = tries(deferrable=deferrable)
        assert len(second.run()) == 2
        assert len(emulator.tasks) == 1
        assert second.ti.xcoms["task_id"] == emulator.tasks[0].id
        assert f"Reattaching to BrowserAct task {emulator.tasks[0].id}" in "".join(capfd.readouterr())

    def test_reattached_run_keeps_its_deadline_and_callback_token(self, tries, emulator):
        emulator.set_workflow(SEARCH.id, duration=60.0)
        arguments = []
        for _ in range(2):
            attempt = tries(deferrable=True)
            with pytest.raises(TaskDeferred) as deferral:
                attempt.operator().execute(attempt.context)
            arguments.append(deferral.value.trigger.serialize()[1]["wait"])
            assert attempt.ti.xcoms[WAIT_XCOM][TOKEN_KEY] == arguments[0][TOKEN_KEY]
        for name in ("browseract_task_id", "deadline", TOKEN_KEY):
            assert arguments[0][name] == arguments[1][name]

    def test_reattached_run_gets_the_timeout_of_the_later_try(self, tries, emulator):
        emulator.next_run(SEARCH.id, duration=1.5)
        with pytest.raises(RunTimedOutError, match="keeps running and using credits because cancel_on_timeout=False"):
            tries(timeout=0.3, cancel_on_timeout=False).run()
        assert len(tries(timeout=30).run()) == 2
        assert len(emulator.tasks) == 1

    def test_run_that_finished_between_tries_returns_its_result_on_retry(self, tries, emulator):
        first = tries(deferrable=True)
        with pytest.raises(TaskDeferred):
            first.operator().execute(first.context)
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        second = tries(deferrable=True)
        assert len(second.run()) == 2
        assert second.deferrals == []
        assert len(emulator.tasks) == 1

    def test_profile_id_is_pushed_by_the_try_that_reattaches(self, tries, emulator):
        inputs = {"username": "ada", "password": "secret"}
        arguments = {"workflow_id": LOG_IN.id, "input_parameters": inputs, "save_browser_data": True}
        first, second = tries(**arguments, deferrable=True), tries(**arguments)
        with pytest.raises(TaskDeferred):
            first.operator().execute(first.context)
        second.run()
        assert second.ti.xcoms["profile_id"] == first.ti.xcoms["profile_id"] == emulator.tasks[0].profile_id

    @pytest.mark.parametrize(("outcome", "error"), [("failed", RunFailedError), ("canceled", RunCanceledError)])
    def test_retry_after_a_failed_or_canceled_run_starts_a_new_run(self, tries, emulator, outcome, error, capfd):
        emulator.next_run(SEARCH.id, duration=0.1, outcome=outcome)
        with pytest.raises(error, match=outcome):
            tries().run()
        assert len(tries().run()) == 2
        assert [task.status for task in emulator.tasks] == [outcome, "finished"]
        assert f"has ended as {outcome}. Starting a new run." in "".join(capfd.readouterr())

    def test_retry_without_waiting_returns_the_same_browseract_task_id(self, tries, emulator):
        ids = {tries(wait_for_completion=False).run() for _ in range(2)}
        assert ids == {emulator.tasks[0].id}

    def test_retry_after_a_run_stopped_at_its_deadline_starts_a_new_run(self, tries, emulator):
        emulator.next_run(SEARCH.id, duration=60.0)
        with pytest.raises(RunTimedOutError):
            tries(timeout=0.3).run()
        assert len(tries(timeout=30).run()) == 2
        assert [task.status for task in emulator.tasks] == ["canceled", "finished"]

    def test_reattach_false_starts_a_new_run_and_stores_nothing(self, tries, emulator, store):
        for _ in range(2):
            tries(durable=False, wait_for_completion=False).run()
        assert len(emulator.tasks) == 2
        assert store.values == {}

    def test_airflow_without_task_state_starts_a_new_run_on_retry(self, worker, emulator):
        for _ in range(2):
            worker(workflow_id=ORDERS.id, wait_for_completion=False).run()
        assert len(emulator.tasks) == 2


class TestAfterAirflowError:
    @pytest.fixture
    def without_airflow(self, tries, emulator):
        """Creates a try in which the API server is unreachable right after the start."""
        emulator.set_workflow(SEARCH.id, duration=60.0)

        def make(try_number: int):
            attempt = tries()
            attempt.ti.try_number, attempt.ti.max_tries = try_number, 1

            def away(key, value):
                if emulator.tasks:
                    raise OSError("no API server")

            attempt.ti.xcom_push = away
            return attempt

        return make

    def test_airflow_error_after_the_start_keeps_the_run_and_the_next_try_reattaches(
        self, without_airflow, tries, emulator
    ):
        emulator.next_run(SEARCH.id, duration=1.0)
        with pytest.raises(
            RunLostError,
            match=r"no API server\)\.\nThe run keeps running, and the next try reattaches to it\.\nThe traceback shows",
        ):
            without_airflow(1).run()
        assert len(tries().run()) == 2
        assert len(emulator.tasks) == 1

    def test_unexpected_error_after_a_deferral_in_the_last_try_stops_the_run(self, tries, emulator, monkeypatch):
        emulator.set_workflow(SEARCH.id, duration=60.0)
        attempt = tries(deferrable=True)
        with pytest.raises(TaskDeferred) as deferral:
            attempt.operator().execute(attempt.context)

        def fail(*_):
            raise OSError("a bug")

        monkeypatch.setattr(RunWorkflowOperator, "hide_secrets", fail)
        event = to_json(WaitEvent(deferral.value.trigger.wait, End.ENDED))
        with pytest.raises(RunLostError) as lost:
            attempt.operator().execute_complete(attempt.context, event)
        assert str(lost.value).startswith(
            f"Stopped waiting for BrowserAct task {emulator.tasks[0].id}, because an unexpected error occurred "
            "(OSError: a bug).\nThe run was stopped.\n"
        )
        assert emulator.tasks[0].status == "canceled"

    def test_airflow_error_after_the_start_in_the_last_try_stops_the_run(self, without_airflow, emulator):
        with pytest.raises(RunLostError, match=r"no API server\)\.\nThe run was stopped\."):
            without_airflow(2).run()
        assert emulator.tasks[0].status == "canceled"

    @pytest.mark.parametrize(
        ("error", "status"), [("Trigger failure", "running"), ("Trigger timeout", "canceled")], ids=str
    )
    def test_deferral_ended_by_airflow_stops_the_run_only_on_trigger_timeout(self, tries, emulator, error, status):
        emulator.set_workflow(SEARCH.id, duration=60.0)
        attempt = tries(deferrable=True)
        attempt.ti.max_tries = 1
        with pytest.raises(TaskDeferred):
            attempt.operator().execute(attempt.context)
        with pytest.raises(RunLostError, match="Airflow ended the deferral"):
            attempt.operator().resume_execution("__fail__", {"error": error}, attempt.context)
        assert emulator.tasks[0].status == status

    @pytest.mark.parametrize("error", ["Trigger failure", "Trigger timeout"])
    def test_deferral_ended_by_airflow_still_returns_the_result_of_an_ended_run(self, tries, emulator, error):
        attempt = tries(deferrable=True)
        with pytest.raises(TaskDeferred):
            attempt.operator().execute(attempt.context)
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        assert len(attempt.operator().resume_execution("__fail__", {"error": error}, attempt.context)) == 2

    def test_invalid_trigger_event_of_an_unknown_run_reports_where_to_look(self, tries, emulator):
        attempt = tries(deferrable=True)
        with pytest.raises(TaskDeferred):
            attempt.operator().execute(attempt.context)
        before = calls_of(emulator, "get-task")
        for found in (None, ["7", "8"]):
            attempt.ti.xcoms["task_id"] = found
            with pytest.raises(RunLostError, match=r"(?s)not known here\. Check the newest tasks.*\nCheck that"):
                attempt.operator().execute_complete(attempt.context, {"end": "triumph"})
        assert calls_of(emulator, "get-task") == before

    @pytest.mark.parametrize("readable", [True, False], ids=["run is read", "run cannot be read"])
    def test_invalid_trigger_event_keeps_the_run_for_the_next_try(self, tries, emulator, readable):
        emulator.set_workflow(SEARCH.id, duration=60.0)
        attempt = tries(deferrable=True)
        attempt.ti.max_tries = 1
        with pytest.raises(TaskDeferred):
            attempt.operator().execute(attempt.context)
        if not readable:
            emulator.fault("get-task", RequestFault.status(503), times=None)
        with pytest.raises(RunLostError) as lost:
            attempt.operator().execute_complete(attempt.context, {"end": "triumph"})
        task = emulator.tasks[0]
        assert str(lost.value).startswith(
            f"Stopped waiting for BrowserAct task {task.id}, because the trigger's event cannot be read:"
        )
        assert ".." not in str(lost.value)
        assert f"the next try reattaches to it.{' Its page is http' if readable else ''}" in str(lost.value)
        remedy = "\nCheck that all components of Airflow have the same version of this provider."
        assert str(lost.value).endswith(remedy)
        assert task.status == "running"

    @pytest.mark.parametrize(("action", "status"), [("fail", "canceled"), ("retry", "running")])
    def test_retry_policy_decides_about_the_error_what_becomes_of_a_run_that_is_given_up(
        self, tries, emulator, action, status
    ):
        emulator.set_workflow(SEARCH.id, duration=60.0)
        attempt = tries(deferrable=True)
        attempt.ti.max_tries = 1
        seen = set_retry_policy(attempt, SimpleNamespace(value=action))
        with pytest.raises(TaskDeferred):
            attempt.operator().execute(attempt.context)
        with pytest.raises(RunLostError):
            attempt.operator().execute_complete(attempt.context, {"end": "triumph"})
        assert isinstance(seen[-1], RunLostError)
        assert str(seen[-1]).startswith(f"Stopped waiting for BrowserAct task {emulator.tasks[0].id}, because the ")
        assert emulator.tasks[0].status == status


class TestFailedReattach:
    @pytest.fixture(autouse=True)
    def _going(self, tries, emulator):
        emulator.set_workflow(SEARCH.id, duration=60.0)
        tries(wait_for_completion=False).run()

    def test_reattach_that_fails_in_the_api_keeps_the_run_for_the_next_try(self, tries, emulator):
        emulator.fault("get-task", RequestFault.status(503), times=None)
        attempt = tries()
        attempt.ti.max_tries = 1
        seen = set_retry_policy(attempt, "default")
        earlier = f"BrowserAct task {emulator.tasks[0].id} of an earlier try: "
        with pytest.raises(RunLostError, match=f"{earlier}The run keeps running, and the next try"):
            attempt.run()
        assert emulator.tasks[0].status == "running"
        assert isinstance(seen[0], RunLostError)
        assert str(seen[0]).endswith(earlier)

    @pytest.mark.parametrize(("cancel_on_kill", "status"), [(True, "canceled"), (False, "running")])
    def test_cancel_on_kill_decides_whether_a_failed_reattach_in_the_last_try_stops_the_run(
        self, tries, emulator, cancel_on_kill, status
    ):
        emulator.fault("get-task", RequestFault.status(503), times=None)
        becomes = r"was stopped\." if cancel_on_kill else "keeps running and using credits because cancel_on_kill=False"
        with pytest.raises(RunLostError, match=f"of an earlier try: The run {becomes}"):
            tries(cancel_on_kill=cancel_on_kill).run()
        assert emulator.tasks[0].status == status

    def test_invalid_argument_in_a_later_try_stops_the_run_because_airflow_does_not_retry(self, tries, emulator):
        attempt = tries(profile_id="")
        attempt.ti.max_tries = 1
        with pytest.raises(
            AirflowFailException, match=r"(?s)profile_id is ''.*of an earlier try: The run was stopped\."
        ):
            attempt.run()
        assert emulator.tasks[0].status == "canceled"

    def test_refused_api_key_in_a_later_try_reports_that_the_run_may_keep_running(self, tries, emulator):
        emulator.fault("*", RequestFault.refused(401, http_status=401), times=None)
        with pytest.raises(RunLostError, match=f"task {emulator.tasks[0].id} of an earlier try.* may keep running"):
            tries().run()


class TestClearedTaskInstance:
    def test_task_instance_cleared_while_deferred_stops_the_run_and_starts_a_new_one(self, tries, emulator, capfd):
        emulator.next_run(SEARCH.id, duration=60.0)
        waiting = tries(deferrable=True)
        with pytest.raises(TaskDeferred):
            waiting.operator().execute(waiting.context)
        cleared = tries(deferrable=True)
        cleared.ti.try_number, cleared.ti.max_tries = 2, 1
        assert len(cleared.run()) == 2
        assert [task.status for task in emulator.tasks] == ["canceled", "finished"]
        assert "was stopped, because the Airflow task was cleared while it waited" in "".join(capfd.readouterr())

    @BOTH_WAYS
    @pytest.mark.parametrize("operator_class", [RunWorkflowOperator, RunBotOperator])
    def test_forgotten_run_is_replaced_only_after_the_task_instance_was_cleared(
        self, worker, emulator, store, deferrable, operator_class, capfd
    ):
        bot = operator_class is RunBotOperator
        arguments = {"bot_id": ORDERS.id} if bot else {"workflow_id": ORDERS.id}

        def attempt(try_number: int, max_tries: int):
            made = worker(operator_class=operator_class, store=store, deferrable=deferrable, **arguments)
            made.ti.try_number, made.ti.max_tries = try_number, max_tries
            return made

        emulator.next_run(ORDERS.id, duration=60.0)
        get_task = "query-run" if bot else "get-task"
        emulator.fault(get_task, RequestFault.refused(10112), times=None)
        with pytest.raises(RunLostError) as lost:
            attempt(1, 1).run()
        assert str(lost.value).startswith(
            f"Stopped waiting for BrowserAct task {emulator.tasks[0].id}, because BrowserAct does not know it with "
            f"this API key: BrowserAct refused {get_task}"
        )
        assert f"\nIt is not known whether the run is still active.\n{WHY_UNKNOWN}" in str(lost.value)
        with pytest.raises(AirflowFailException, match=r"Nothing was started.*\n.*Then clear the task instance"):
            attempt(2, 1).run()
        assert [task.status for task in emulator.tasks] == ["running"]
        assert calls_of(emulator, "cancel-run" if bot else "stop-task") == 0
        emulator.clear_faults()
        store.values[STATE_KEY] = json.dumps({**json.loads(store.values[STATE_KEY]), "task_id": "1"})
        assert attempt(3, 3).run() == ORDERS_RESULT
        assert len(emulator.tasks) == 2
        assert "Starting a new run, because the Airflow task was cleared." in "".join(capfd.readouterr())

    def test_last_try_makes_no_promise_about_a_forgotten_run(self, tries, emulator):
        emulator.next_run(SEARCH.id, duration=60.0)
        for endpoint in ("get-task", "stop-task"):
            emulator.fault(endpoint, RequestFault.refused(10112), times=None)
        with pytest.raises(RunLostError, match=r"\nIt is not known whether the run is still active\.\n"):
            tries().run()

    def test_task_instance_cleared_after_the_run_finished_returns_its_result(self, tries, emulator):
        waiting = tries(deferrable=True)
        with pytest.raises(TaskDeferred):
            waiting.operator().execute(waiting.context)
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        cleared = tries(deferrable=True)
        cleared.ti.max_tries = 1
        assert len(cleared.run()) == 2
        assert len(emulator.tasks) == 1

    def test_task_instance_cleared_after_worker_death_reattaches(self, tries, emulator, monkeypatch):
        a_try_dies(tries, monkeypatch, "after the call behind the start")
        cleared = tries()
        cleared.ti.max_tries = 1
        assert len(cleared.run()) == 2
        assert len(emulator.tasks) == 1


class TestAfterSuccess:
    def test_task_instance_cleared_after_success_starts_a_new_run(self, tries, emulator, store):
        first = tries()
        operator = first.operator()
        operator.execute(first.context)
        assert STATE_KEY in store.values
        for callback in operator.on_success_callback:
            callback(first.context)
        assert store.values == {}
        tries().run()
        assert len(emulator.tasks) == 2

    def test_on_success_callback_of_the_user_is_placed_after_forget_run(self, tries):
        def mine(context):
            """The user's."""

        assert tries(on_success_callback=mine).operator().on_success_callback == [forget_run, mine]
        assert tries(on_success_callback=[mine]).operator().on_success_callback == [forget_run, mine]
        assert tries().operator().on_success_callback == [forget_run]

    def test_forget_run_does_not_raise_in_airflow_without_task_state(self, worker):
        forget_run(worker(workflow_id=ORDERS.id).context)


class TestChangedArguments:
    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"input_parameters": {"keyword": "ink"}}, "an earlier try had other inputs or another profile"),
            ({"workflow_id": ORDERS.id, "input_parameters": None}, f"it is a run of workflow {SEARCH.id}"),
        ],
        ids=["other inputs", "another workflow"],
    )
    def test_changed_inputs_or_workflow_stop_the_old_run_and_start_a_new_one(self, tries, emulator, change, why, capfd):
        emulator.next_run(SEARCH.id, duration=60.0)
        tries(wait_for_completion=False).run()
        tries(**change).run()
        assert [task.status for task in emulator.tasks] == ["canceled", "finished"]
        assert f"{emulator.tasks[0].id} was stopped, because {why}. Starting a new run." in "".join(capfd.readouterr())

    def test_changed_inputs_send_no_stop_to_a_run_that_has_ended(self, tries, emulator):
        tries().run()
        tries(input_parameters={"keyword": "ink"}).run()
        assert [task.status for task in emulator.tasks] == ["finished", "finished"]
        assert calls_of(emulator, "stop-task") == 0

    def test_changed_inputs_start_no_run_while_the_old_run_cannot_be_stopped(self, tries, emulator):
        emulator.next_run(SEARCH.id, duration=60.0)
        tries(wait_for_completion=False).run()
        emulator.fault("stop-task", RequestFault.status(503), times=None)
        with pytest.raises(RunLostError, match="503"):
            tries(input_parameters={"keyword": "ink"}).run()
        assert len(emulator.tasks) == 1


class TestLostStartResponse:
    def test_lost_start_response_leads_to_the_run_that_was_created(self, tries, emulator):
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        attempt = tries()
        assert len(attempt.run()) == 2
        assert len(emulator.tasks) == 1
        assert attempt.ti.xcoms["task_id"] == emulator.tasks[0].id
        assert CLAIM_KEY not in attempt.ti.xcoms

    def test_lost_start_is_sent_again_once_it_is_certain_that_no_run_exists(self, tries, emulator, capfd):
        emulator.fault("run-task", RequestFault.reset(), times=1)
        assert len(tries().run()) == 2
        assert len(emulator.tasks) == 1
        assert calls_of(emulator, "list-tasks") > 1
        assert f"No run was started (start 1 of {MAX_STARTS})." in "".join(capfd.readouterr())

    def test_start_with_refused_connection_is_sent_again_without_listing_tasks(
        self, tries, emulator, connect, monkeypatch
    ):
        connect({"retry_budget": 20})
        attempt = tries()
        operator = attempt.operator()
        session = operator.hook.client._session
        post = session.request
        refusals: list[str] = []

        def refused(method, url, **keywords):
            if method == "POST" and not refusals:
                refusals.append(url)
                with socket.create_server(("127.0.0.1", 0)) as server:
                    nobody = server.getsockname()[1]
                return post(method, f"http://127.0.0.1:{nobody}/", **keywords)
            return post(method, url, **keywords)

        monkeypatch.setattr(session, "request", refused)
        assert len(operator.execute(attempt.context)) == 2
        assert len(refusals) == len(emulator.tasks) == 1
        assert calls_of(emulator, "list-tasks") == 0

    def test_start_that_keeps_failing_is_sent_a_limited_number_of_times(self, tries, emulator, store):
        emulator.fault("run-task", RequestFault.reset(), times=None)
        with pytest.raises(ResponseLostError, match="No complete response"):
            tries().run()
        assert calls_of(emulator, "run-task") == MAX_STARTS
        assert store.values == {}

    def test_lost_start_response_does_not_match_a_run_of_a_mapped_sibling(self, tries, emulator):
        sibling = tries(wait_for_completion=False, store=None)
        sibling.run()
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        attempt = tries()
        attempt.ti.map_index = 1
        attempt.ti.siblings["task_id"] = [sibling.ti.xcoms["task_id"]]
        attempt.run()
        assert attempt.ti.xcoms["task_id"] == emulator.tasks[1].id

    @pytest.mark.parametrize(("other", "keeps"), [(0, False), (2, True)])
    def test_lowest_map_index_keeps_a_run_that_two_mapped_siblings_claim_at_the_same_time(
        self, tries, emulator, other, keeps
    ):
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        attempt = tries()
        attempt.ti.map_index, push = 1, attempt.ti.xcom_push

        def push_while_the_sibling_pushes(key, value):
            push(key, value)
            if key == CLAIM_KEY:
                attempt.ti.siblings.setdefault(CLAIM_KEY, [{**value, "map_index": other}])

        attempt.ti.xcom_push = push_while_the_sibling_pushes
        attempt.run()
        assert (attempt.ti.xcoms["task_id"] == emulator.tasks[0].id) is keeps
        assert attempt.ti.xcoms[CLAIM_KEY] == {"task_id": emulator.tasks[0].id, "map_index": 1}
        assert len(emulator.tasks) == (1 if keeps else 2)

    def test_run_that_a_mapped_sibling_has_already_claimed_is_not_adopted(self, tries, emulator):
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        attempt = tries()
        attempt.ti.map_index, pull = 1, attempt.ti.xcom_pull

        def pull_what_the_sibling_claims(task_ids, key, map_indexes=None):
            if key == CLAIM_KEY and emulator.tasks:
                return [None, {"task_id": emulator.tasks[0].id, "map_index": 7}]
            return pull(task_ids, key, map_indexes)

        attempt.ti.xcom_pull = pull_what_the_sibling_claims
        attempt.run()
        assert attempt.ti.xcoms["task_id"] == emulator.tasks[1].id
        assert CLAIM_KEY not in attempt.ti.xcoms

    def test_api_key_rotated_after_a_lost_start_still_leads_to_the_run(self, tries, emulator, connect):
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        attempt = tries()
        operator = attempt.operator()
        send = operator.hook.client.send

        def rotated_after_the_start(call):
            try:
                return send(call)
            finally:
                if call.starts_run:
                    connect(PATIENCE, password="app-new")
                    emulator.api_key = "app-new"

        operator.hook.client.send = rotated_after_the_start
        operator.execute(attempt.context)
        assert [task.id for task in emulator.tasks] == [attempt.ti.xcoms["task_id"]]
        assert emulator.tasks[0].status == "finished"

    def test_lost_start_response_fails_with_the_ids_of_several_possible_runs(self, tries, emulator):
        tries(wait_for_completion=False, store=None).run()
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        with pytest.raises(AirflowFailException, match="may have created one of these BrowserAct tasks") as failed:
            tries().run()
        assert all(task.id in str(failed.value) for task in emulator.tasks)
        assert len(emulator.tasks) == 2

    def test_airflow_error_after_a_lost_start_response_fails_without_a_retry_if_not_remembered(self, tries, emulator):
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        attempt = tries(store=None)
        attempt.ti.map_index = 0

        def away(**_):
            raise RuntimeError("no API server.")

        attempt.ti.xcom_pull = away
        with pytest.raises(AirflowFailException, match=r"^RuntimeError: no API server\.\nCheck the newest tasks"):
            attempt.run()

    def test_undocumented_refusal_after_a_failed_run_is_not_left_to_a_later_try(self, tries, emulator):
        emulator.next_run(SEARCH.id, duration=0.1, outcome="failed")
        with pytest.raises(RunFailedError):
            tries().run()
        emulator.fault("run-task", RequestFault.refused(4711, "The account is locked."), times=None)
        with pytest.raises(AirflowFailException, match="The account is locked") as failed:
            tries().run()
        assert "earlier try" not in str(failed.value)
        assert calls_of(emulator, "run-task") == 2

    @pytest.mark.parametrize("code", [None, "SUSPENDED"], ids=["without a code", "a word as code"])
    def test_refusal_without_a_number_as_code_is_not_left_to_a_later_try(self, tries, emulator, monkeypatch, code):
        attempt = tries()
        attempt.ti.max_tries = 1
        operator = attempt.operator()
        send = operator.hook.client.send

        def refused(call):
            if not call.starts_run:
                return send(call)
            body = json.dumps({"code": code, "msg": "Your plan is suspended", "traceId": "t"}).encode()
            return call.read_response(Response(400, {}, body))

        monkeypatch.setattr(operator.hook.client, "send", refused)
        with pytest.raises(AirflowFailException, match="Your plan is suspended"):
            operator.execute(attempt.context)

    def test_killed_try_sends_no_start_again_after_the_look_up_of_a_lost_one(self, tries, emulator, monkeypatch):
        attempt = tries()
        operator = attempt.operator()
        send = operator.hook.client.send
        starts = []

        def lost(call):
            if not call.starts_run:
                return send(call)
            starts.append(call)
            operator.on_kill()
            raise ResponseLostError("lost")

        monkeypatch.setattr(operator.hook.client, "send", lost)
        with pytest.raises(RunCanceledError, match="Killed before a run was started"):
            operator.execute(attempt.context)
        assert len(starts) == 1

    def test_undocumented_refusal_of_a_read_does_not_stop_the_run_of_an_earlier_try(self, tries, emulator, monkeypatch):
        emulator.set_workflow(SEARCH.id, duration=60.0)
        a_try_dies(tries, monkeypatch, "while it waits")
        emulator.fault("get-task", RequestFault.refused(4711, "Not today."), times=None)
        attempt = tries()
        attempt.ti.max_tries = 1
        with pytest.raises(RunLostError, match="Not today"):
            attempt.run()
        assert [task.status for task in emulator.tasks] == ["running"]

    def test_lost_start_that_cannot_be_checked_is_left_to_the_next_try(self, tries, emulator):
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        emulator.fault("list-tasks", RequestFault.status(500), times=None)
        with pytest.raises(RunStartUnknownError, match="looking for it failed"):
            tries().run()
        emulator.clear_faults()
        assert len(tries().run()) == 2
        assert len(emulator.tasks) == 1


class TestEntryWithoutId:
    """A worker died, or was timed out, between writing down that it starts a run and learning of the run."""

    @pytest.mark.parametrize("death", [Crash, AirflowTaskTimeout], ids=["killed", "execution_timeout"])
    def test_try_ended_before_start_response_reattaches_on_retry(self, tries, emulator, monkeypatch, death):
        a_try_dies(tries, monkeypatch, death=death)
        second = tries()
        second.run()
        assert len(emulator.tasks) == 1
        assert second.ti.xcoms["task_id"] == emulator.tasks[0].id

    def test_try_that_is_timed_out_during_the_start_logs_that_the_next_one_looks_for_the_run(
        self, tries, emulator, monkeypatch, capfd
    ):
        attempt = tries()
        attempt.ti.max_tries = 1
        seen = set_retry_policy(attempt, "default")
        operator = attempt.operator()
        send = operator.hook.client.send

        def timed_out(call):
            if call.starts_run:
                raise AirflowTaskTimeout("Timeout")
            return send(call)

        monkeypatch.setattr(operator.hook.client, "send", timed_out)
        with pytest.raises(AirflowTaskTimeout):
            operator.execute(attempt.context)
        unknown = "It is not known whether BrowserAct started a run. A run may be running and using credits. "
        assert f"{unknown}The next try looks for it." in "".join(capfd.readouterr())
        assert isinstance(seen[-1], RunStartUnknownError)

    def test_worker_killed_before_the_start_was_sent_starts_a_run_on_retry(self, tries, emulator, monkeypatch, capfd):
        a_try_dies(tries, monkeypatch, "before the start")
        tries().run()
        assert len(emulator.tasks) == 1
        assert "No matching run was found" in "".join(capfd.readouterr())

    def test_changed_inputs_after_an_unconfirmed_start_fail_and_name_the_possible_run(
        self, tries, emulator, monkeypatch
    ):
        a_try_dies(tries, monkeypatch)
        with pytest.raises(AirflowFailException, match=emulator.tasks[0].id):
            tries(input_parameters={"keyword": "ink"}).run()
        assert len(emulator.tasks) == 1

    @pytest.mark.parametrize(
        ("on_orphan", "runs", "logged"),
        [
            ("adopt", 2, "Adopting the newest of the possible runs because of on_orphan='adopt'"),
            ("start", 3, "may be the run of the lost start, and keep running and using credits: "),
        ],
        ids=["adopt", "start"],
    )
    def test_on_orphan_decides_what_happens_with_several_possible_orphans(
        self, tries, emulator, monkeypatch, on_orphan, runs, logged, capfd
    ):
        tries(wait_for_completion=False, store=None).run()
        a_try_dies(tries, monkeypatch)
        attempt = tries(on_orphan=on_orphan)
        attempt.run()
        assert len(emulator.tasks) == runs
        # The newest of those that may be the run, or the new one.
        assert attempt.ti.xcoms["task_id"] == emulator.tasks[-1].id
        log = "".join(capfd.readouterr())
        assert logged in log
        assert all(task.id in log for task in emulator.tasks[:2])


class TestInvalidEntry:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"version": 3}, "its version is 3"),
            ({"version": None}, "its version is None"),
            ({"task_id": 7}, "task_id: Input should be a valid string"),
            ({"deadline": "soon"}, "deadline: Input should be a valid number"),
            ({"source": None}, r"source: .*It names BrowserAct task \d+: check in the BrowserAct dashboard"),
            ({"written_at": 1e20}, "written_at: Input should be less than"),
            ({"earlier": None}, "earlier: Input should be a valid array"),
            (
                {"source": {"kind": "workflow", "id": "1"}},
                "a run of workflow 1, but for BrowserAct it is a run of workflow",
            ),
        ],
        ids=[
            "unknown version",
            "missing version",
            "task_id",
            "deadline",
            "source",
            "written_at",
            "earlier",
            "other workflow",
        ],
    )
    def test_invalid_stored_entry_fails_and_starts_or_stops_no_run(self, tries, emulator, store, change, message):
        emulator.set_workflow(SEARCH.id, duration=60.0)
        tries(wait_for_completion=False).run()
        store.values[STATE_KEY] = json.dumps({**json.loads(store.values[STATE_KEY]), **change})
        with pytest.raises(
            AirflowFailException, match=f"stored about its run.*{message}.*Nothing was started or stopped"
        ):
            tries().run()
        assert [task.status for task in emulator.tasks] == ["running"]

    @pytest.mark.parametrize("on_orphan", ["adopt", "start"])
    def test_stored_entry_of_a_missing_run_starts_a_new_run_with_on_orphan_adopt_or_start(
        self, tries, emulator, store, on_orphan
    ):
        tries(wait_for_completion=False).run()
        store.values[STATE_KEY] = json.dumps({**json.loads(store.values[STATE_KEY]), "task_id": "1"})
        tries(on_orphan=on_orphan).run()
        assert len(emulator.tasks) == 2

    def test_stored_entry_of_the_wrong_type_fails_and_starts_no_run(self, tries, emulator, store):
        store.values[STATE_KEY] = '"7"'
        with pytest.raises(AirflowFailException, match="it is of type str"):
            tries().run()
        assert emulator.tasks == []


class TestFailingTaskState:
    def test_failed_write_of_task_state_before_the_start_starts_no_run(
        self, tries, emulator, store, monkeypatch, capfd
    ):
        def away(*args, **kwargs):
            raise RuntimeError("the API server is away")

        monkeypatch.setattr(store, "set", away)
        with pytest.raises(RuntimeError, match="away"):
            tries().run()
        assert emulator.tasks == []
        assert "not known whether" not in "".join(capfd.readouterr())

    def test_failed_write_of_task_state_after_the_start_is_logged_and_keeps_the_result(
        self, tries, emulator, store, monkeypatch, capfd
    ):
        keep = store.set

        def away(key, value, *, retention):
            if value["task_id"]:
                raise RuntimeError("the API server is away")
            keep(key, value, retention=retention)

        monkeypatch.setattr(store, "set", away)
        assert len(tries().run()) == 2
        assert "The state of the run could not be stored." in "".join(capfd.readouterr())

    def test_failed_read_of_task_state_starts_no_run(self, tries, emulator, store, monkeypatch):
        def away(key):
            raise RuntimeError("the API server is away")

        monkeypatch.setattr(store, "get", away)
        with pytest.raises(RuntimeError, match="away"):
            tries().run()
        assert emulator.tasks == []


@pytest.mark.parametrize(
    ("hours_ago", "kept"), [(23, True), (25, False), (-1, False)], ids=["in time", "too old", "from the future"]
)
def test_place_in_the_queue_is_kept_for_a_day(worker, store, hours_ago, kept):
    now = 1_000_000.0
    since = now - hours_ago * 3600
    store.set(PLACE_KEY, {"since": since}, retention=STATE_RETENTION)
    tries = Tries(worker(workflow_id=ORDERS.id, store=store).context, durable=True)
    assert tries.keep_place(now) == (since if kept else now)
    assert store.get(PLACE_KEY) == {"since": since if kept else now}


def test_stored_entry_contains_no_input_and_no_api_key(tries, emulator, store):
    tries(input_parameters={"keyword": "s3cret-words"}, wait_for_completion=False).run()
    assert "s3cret" not in store.values[STATE_KEY]
    assert "app-emulator" not in store.values[STATE_KEY]


@pytest.mark.parametrize("durable", [True, False])
def test_durable_logs_a_warning_before_airflow_3_3_where_it_has_no_effect(
    worker, emulator, monkeypatch, capfd, durable
):
    monkeypatch.setattr(checks, "AIRFLOW_V_3_3_PLUS", False)
    worker(workflow_id=ORDERS.id, durable=durable).run()
    assert ("durable=True has no effect" in "".join(capfd.readouterr())) == durable
