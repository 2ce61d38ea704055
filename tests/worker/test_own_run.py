"""What happens to the run when the process of its Airflow task is killed."""

import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import DEFAULT, Mock, call, patch

import pytest
from airflow.sdk.execution_time.supervisor import WatchedSubprocess

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.compat import DELETED, AirflowFailException, AirflowTaskTimeout, conf
from airflow_provider_browseract.emulator import ENDLESS, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.exceptions import RunCanceledError, RunLostError, RunTimedOutError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import RunBotOperator
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.wait import Wait, WaitEvent, WokenBy
from airflow_provider_browseract.worker.ledger import Ledger
from airflow_provider_browseract.worker.own_run import OwnRun
from tests.conftest import connect
from tests.helpers.cases import cases, raising
from tests.helpers.workers import KILL, PENS, Worker, at_pushes, calls_of, emulator, set_retry_policy, worker

__all__ = ["connect", "emulator", "worker"]

AWAY = raising(RuntimeError("no API server"))
REATTACHES = "The run keeps running, and the next try reattaches to it. Its page is http"


def kill_and_decide(operator) -> None:
    """Kill an operator, and wait until the decision about its run is carried out."""
    operator.on_kill()
    operator._run.await_decision()


def wait_for_end(emulator) -> None:
    emulator.wait_until(lambda: emulator.tasks and emulator.tasks[0].finished_at)


@pytest.fixture
def tries(worker, store, airflow, short_patience, emulator):
    """Creates the tries of a task instance that waits in its worker for a run of a minute."""
    emulator.set_workflow(SEARCH.id, duration=60.0)

    def make(**arguments):
        defaults = {} if "bot_id" in arguments else {"workflow_id": SEARCH.id, "input_parameters": PENS}
        return worker(**{"store": store, "max_tries": 1, **defaults, **arguments})

    return make


@pytest.fixture
def be_hasty(monkeypatch) -> Callable[[], None]:
    """Return a function that lets a kill wait only for a moment for a response of Airflow."""

    def shorten() -> None:
        monkeypatch.setattr(timings, "KILL_LIMIT", 0.2)
        monkeypatch.setattr(timings, "KILL_PATIENCE", 0.4)

    return shorten


@contextmanager
def sigterm_after(attempt, wait: Callable[[], object]) -> Iterator[None]:
    """Send SIGTERM to this process after a wait, as Airflow handles it: call on_kill, and let the code continue."""
    before = signal.signal(signal.SIGTERM, lambda *_: attempt.made.on_kill())

    def send() -> None:
        wait()
        os.kill(os.getpid(), signal.SIGTERM)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        sending.join()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def killed(emulator) -> Callable[..., BaseException]:
    """Return a function that runs a try and ends its process with SIGTERM while it waits."""

    def kill(attempt, *, happens: Callable[[], Any] = lambda: None, polls: int = 2) -> BaseException:
        polled = calls_of(emulator, "get-task")

        def wait() -> None:
            # One poll after the start, for the links, and then those of the wait.
            emulator.wait_until(lambda: calls_of(emulator, "get-task") - polled >= polls)
            happens()

        with sigterm_after(attempt, wait), pytest.raises((RunLostError, RunCanceledError)) as raised:
            attempt.run()
        return raised.value

    return kill


class TestUnexpectedSigterm:
    """As of an evicted pod, a drained node or a stopped worker: the task instance is running, as before."""

    def test_second_sigterm_during_a_slow_stop_sends_no_other_stop_request(self, tries, emulator, logs):
        attempt = tries(max_tries=0)
        emulator.fault("stop-task", RequestFault.slow(1.5))

        def called(endpoint: str) -> Callable[[], object]:
            return lambda: emulator.wait_until(lambda: calls_of(emulator, endpoint))

        with (
            sigterm_after(attempt, called("get-task")),
            sigterm_after(attempt, called("stop-task")),
            pytest.raises(RunCanceledError, match=r"\nThe run was stopped\."),
        ):
            attempt.run()
        assert calls_of(emulator, "stop-task") == 1
        assert logs().count("Killed: ") == 1

    @cases(
        ("has not accepted it yet", "running", " if Airflow has accepted the deferral"),
        ("does not respond", None, " if Airflow has accepted the deferral"),
        ("has accepted it", "deferred", ""),
    )
    def test_kill_during_or_after_a_deferral_keeps_the_run_for_the_triggerer(
        self, tries, airflow, emulator, be_hasty, logs, state, condition
    ):
        attempt = tries(deferrable=True, max_tries=0)
        attempt.defer()
        airflow.state = state
        if state is None:
            airflow.answers = AWAY
            be_hasty()
        kill_and_decide(attempt.made)
        assert emulator.tasks[0].status == "running"
        log = logs()
        assert f"The run keeps running, and the triggerer waits for it{condition}. Its page is http" in log
        why = "Killed: the Airflow task has deferred."
        assert (why in log) is (state == "deferred")

    def test_sigterm_after_the_run_has_ended_still_returns_its_result(self, tries, emulator, logs):
        emulator.next_run(SEARCH.id, duration=0.2)
        # SIGTERM interrupts the sleep between two polls.
        attempt = tries(poll_interval=3600, max_tries=0)
        with sigterm_after(attempt, partial(wait_for_end, emulator)):
            assert len(attempt.run()) == 2
        assert [task.status for task in emulator.tasks] == ["finished"]
        assert "The run had already ended. Reading its result." in logs()

    def test_run_still_shown_as_running_after_a_stop_that_came_too_late_is_polled_with_pauses(self, tries, emulator):
        emulator.fault("stop-task", RequestFault.refused(10121))
        emulator.next_run(SEARCH.id, duration=2.0)
        attempt = tries(store=None, poll_interval=0.5)
        with sigterm_after(attempt, lambda: emulator.wait_until(lambda: calls_of(emulator, "get-task") >= 2)):
            assert len(attempt.run()) == 2
        assert calls_of(emulator, "get-task") < 20

    def test_ctrl_c_while_an_earlier_run_is_looked_up_stops_that_run(self, tries, killed, emulator, logs):
        killed(tries())
        attempt = tries(try_number=2)
        attempt.at_calls("get-task", before=raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            attempt.run()
        assert [task.status for task in emulator.tasks] == ["canceled"]
        assert "Killed: interrupted (Ctrl-C)." in logs()

    def test_ctrl_c_after_a_kill_does_not_stop_the_run_left_to_the_next_try(self, tries, airflow, emulator, logs):
        attempt = tries()

        def killed_and_interrupted(operator) -> None:
            kill_and_decide(operator)
            raise KeyboardInterrupt

        attempt.at_calls("get-task", before=killed_and_interrupted)
        with pytest.raises(KeyboardInterrupt):
            attempt.run()
        assert [task.status for task in emulator.tasks] == ["running"]
        assert logs().count("Killed: ") == 1


class TestOperatorOfAnotherVersionOfTheApi:
    """An earlier try has started a run of a bot. Since then, someone has changed the operator to one for workflows."""

    @pytest.fixture
    def changed(self, tries) -> Worker:
        """A try with the new operator."""
        tries(operator_class=RunBotOperator, bot_id=ENDLESS.id, wait_for_completion=False).run()
        return tries(workflow_id=ORDERS.id, input_parameters=None, try_number=2)

    @pytest.fixture
    def earlier(self, changed, emulator) -> str:
        """The run of the earlier try."""
        return emulator.tasks[0].id

    def test_kill_before_the_first_read_stops_the_run(self, changed, airflow, emulator, earlier):
        airflow.state = "failed"
        changed.at_calls("query-run", before=kill_and_decide)
        marked = f"(?s)^Killed: the Airflow task was set to a final state.*{earlier}"
        with pytest.raises(RunCanceledError, match=marked):
            changed.run()
        assert [task.status for task in emulator.tasks] == ["canceled"]

    def test_kill_right_after_the_new_start_stops_the_new_run(self, changed, airflow, emulator, earlier, store):
        operator = changed.operator()
        emulator.set_workflow(ORDERS.id, duration=60.0)
        keep = store.set

        def killed_after(key, value, **keywords):
            keep(key, value, **keywords)
            if value.get("task_id") not in (None, earlier):
                airflow.state = "failed"
                kill_and_decide(operator)

        store.set = killed_after
        with pytest.raises(RunCanceledError, match="the Airflow task was set to a final state"):
            operator.execute(changed.context)
        assert [task.status for task in emulator.tasks] == ["canceled", "canceled"]

    def test_event_of_a_deferred_run_is_acted_on_in_the_version_of_the_run(self, changed, emulator, earlier):
        wait = Wait(earlier, time.time(), ApiVersion.V3)
        with pytest.raises(RunTimedOutError, match="The run was stopped"):
            changed.operator().execute_complete(changed.context, to_json(WaitEvent(wait)))
        assert [task.status for task in emulator.tasks] == ["canceled"]

    def test_run_whose_deferral_was_ended_by_airflow_is_stopped(self, changed, emulator, earlier):
        changed.ti.xcoms["task_id"] = earlier
        with pytest.raises(RunLostError, match=r"Airflow ended the deferral: Trigger timeout\.\nThe run was stopped\."):
            changed.operator().resume_execution("__fail__", {"error": "Trigger timeout"}, changed.context)
        assert [task.status for task in emulator.tasks] == ["canceled"]


class TestRetryPolicy:
    """``retry_policy`` of Airflow 3.3 decides after the error whether there is a next try."""

    @cases(
        ("fail", "fail", True, "canceled"),
        ("fail, and Airflow is unreachable", "fail", False, "canceled"),
        ("retry", "retry", True, "running"),
    )
    def test_policy_decides_if_a_kill_stops_the_run(self, tries, killed, airflow, emulator, action, reachable, status):
        attempt = tries()
        asked_with = set_retry_policy(attempt, SimpleNamespace(value=action))
        error = killed(attempt, happens=lambda: None if reachable else setattr(airflow, "answers", AWAY))
        assert emulator.tasks[0].status == status
        assert ("The run was stopped." in str(error)) is (status == "canceled")
        assert repr(asked_with[0]) == "RunLostError('The run keeps running.')"

    def test_retry_policy_rules_of_airflow_decide_whether_another_try_follows(self):
        from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule

        policy = ExceptionRetryPolicy(rules=[RetryRule(exception=RunLostError, action=RetryAction.FAIL)])
        ti = SimpleNamespace(try_number=1, max_tries=3, task=SimpleNamespace(retry_policy=policy))
        known: Any = {"ti": ti, "task_state_store": object()}
        assert not Ledger(known, durable=True).another_try(RunLostError("x"))
        assert Ledger(known, durable=True).another_try(RunCanceledError("x"))
        # Airflow ignores a policy that fails.
        ti.task.retry_policy = SimpleNamespace(evaluate=raising(ValueError("x")))
        assert Ledger(known, durable=True).another_try(RunLostError("x"))


class TestUserActionInAirflow:
    @cases(
        ("marked", "failed", False, "the Airflow task was set to a final state"),
        # Before Airflow 3.4, the task instance has another identity by then.
        ("cleared, Airflow 3.3", "restarting", True, "the Airflow task was cleared"),
        ("deleted", DELETED, True, "the task instance was deleted in Airflow"),
    )
    def test_person_who_ends_the_task_instance_stops_the_run_that_earlier_tries_have_kept_running(
        self, tries, killed, airflow, emulator, state, superseded, why
    ):
        evicted = "SIGTERM ended the process; nobody had marked or cleared the task"
        for number in (1, 2):
            error = killed(tries(max_tries=3, try_number=number))
            assert isinstance(error, RunLostError)
            assert str(error).startswith(f"Killed: {evicted}.\n{REATTACHES}")
            assert emulator.tasks[0].status == "running"
        error = killed(tries(max_tries=3, try_number=3), happens=partial(airflow.become, state, superseded))
        assert isinstance(error, RunCanceledError)
        assert f"{why}.\nThe run was stopped.\n" in str(error)
        assert [task.status for task in emulator.tasks] == ["canceled"]

    def test_mark_just_before_the_deferral_stops_the_run(self, tries, airflow, emulator):
        attempt = tries(deferrable=True)
        at_pushes(attempt, lambda key, _: setattr(airflow, "state", "failed") if key == "task" else None)
        with pytest.raises(RunCanceledError, match=r"set to a final state\.\nThe run was stopped\."):
            attempt.run()
        assert emulator.tasks[0].status == "canceled"

    def test_result_of_a_run_that_had_ended_is_not_returned_when_a_person_ends_the_task_instance(
        self, tries, killed, airflow, emulator
    ):
        def ended_by_a_person() -> None:
            wait_for_end(emulator)
            airflow.become("failed")

        emulator.next_run(SEARCH.id, duration=0.3)
        # Between its polls the worker does not see the end.
        error = killed(tries(poll_interval=60), happens=ended_by_a_person, polls=1)
        assert isinstance(error, RunCanceledError)
        assert "set to a final state.\nThe run had already ended.\n" in str(error)
        assert emulator.tasks[0].status == "finished"


class TestUnreachableAirflow:
    def test_kill_while_airflow_does_not_respond_keeps_the_run_and_says_that_perhaps_nothing_waits_for_it(
        self, tries, killed, airflow, emulator, be_hasty, logs
    ):
        be_hasty()
        answering = threading.Event()
        try:
            error = killed(tries(), happens=lambda: setattr(airflow, "answers", answering.wait))
            # The process need not wait for it.
            assert {each.daemon for each in threading.enumerate() if "reason" in each.name} == {True}
        finally:
            answering.set()
        left = (
            "The run keeps running, and the next try reattaches to it if Airflow starts one. If Airflow starts none, "
            "nothing waits for the run: stop it in BrowserAct. Its page is http"
        )
        assert f"Airflow did not report why.\n{left}" in str(error)
        assert f"Airflow has not reported yet whether a person has ended the task. {left}" in logs()
        assert emulator.tasks[0].status == "running"

    def test_mark_while_airflow_does_not_respond_within_the_limit_of_a_kill_still_stops_the_run(
        self, tries, killed, airflow, emulator, monkeypatch, logs
    ):
        monkeypatch.setattr(timings, "KILL_LIMIT", 0.2)

        def marked() -> None:
            airflow.become("failed")
            airflow.answers = lambda: time.sleep(1.0)

        error = killed(tries(), happens=marked)
        assert "the Airflow task was set to a final state.\nThe run was stopped.\n" in str(error)
        assert emulator.tasks[0].status == "canceled"
        assert "Airflow has not reported yet" in logs()

    def test_kill_leaves_half_of_its_time_for_the_stop(self, tries, killed, airflow, emulator):
        within = BrowserActHook.client_within
        with patch.object(BrowserActHook, "client_within", autospec=True, side_effect=within) as stop:
            error = killed(tries(max_tries=0), happens=lambda: setattr(airflow, "answers", partial(time.sleep, 30)))
        assert "Airflow did not report why; no later try can reattach to the run" in str(error)
        assert "\nThe run was stopped.\n" in str(error)
        assert emulator.tasks[0].status == "canceled"
        assert [each.args[1] for each in stop.mock_calls] == [pytest.approx(timings.KILL_LIMIT / 2, abs=0.1)]


def test_kill_grace_is_shorter_than_the_escalation_delay_of_airflow():
    kill = inspect.signature(WatchedSubprocess.kill)
    assert kill.parameters["escalation_delay"].default > timings.KILL_LIMIT


def test_killed_task_asks_airflow_for_longer_than_airflow_tries_the_request_before():
    tries, limit = conf.getint("workers", "execution_api_retries"), conf.getfloat("workers", "execution_api_timeout")
    pauses = sum(2**number for number in range(tries - 1))
    assert tries * limit + pauses < timings.KILL_PATIENCE


def test_core_race_grace_is_longer_than_the_scheduler_heartbeat_interval():
    assert conf.getint("scheduler", "scheduler_heartbeat_sec") < timings.CORE_RACE_GRACE


@cases(
    ("left to the next try", {}, ("get-task", RequestFault.status(503))),
    ("could not be stopped", {"timeout": 0.2}, ("stop-task", RequestFault.status(503))),
    ("stopped", {"timeout": 0.2}, None),
    ("not waited for", {"wait_for_completion": False}, None),
)
def test_kill_stops_no_run_that_this_try_has_left(tries, airflow, emulator, logs, arguments, fault):
    if fault is not None:
        emulator.fault(*fault, times=None, skip=1 if fault[0] == "get-task" else 0)
    attempt = tries(**arguments)
    fails = pytest.raises((RunLostError, RunTimedOutError))
    with nullcontext() if "wait_for_completion" in arguments else fails:
        attempt.run()
    emulator.clear_faults()
    stops = calls_of(emulator, "stop-task")
    airflow.state = "failed"
    kill_and_decide(attempt.made)
    assert calls_of(emulator, "stop-task") == stops
    assert "Killed" not in logs()


class TestKillThatTheCodeOutruns:
    """The thread has stopped the run, and the interrupted code has not noticed yet."""

    @pytest.mark.parametrize("arguments", [{"wait_for_completion": False}, {"deferrable": True}], ids=str)
    def test_killed_try_neither_succeeds_nor_defers_after_its_run_is_stopped(self, tries, airflow, emulator, arguments):
        attempt = tries(max_tries=0, **arguments)
        killed: list[str] = []

        def kill_meanwhile(key, _):
            if key == ("wait" if arguments.get("deferrable") else "task") and not killed:
                killed.append(key)
                airflow.state = "failed"
                attempt.made.on_kill()
                emulator.wait_until(lambda: emulator.tasks[0].status == "canceled")

        at_pushes(attempt, kill_meanwhile)
        with pytest.raises(RunCanceledError, match=r"set to a final state\.\nThe run was stopped"):
            attempt.run()

    def test_execution_timeout_during_the_decision_waits_until_the_run_is_stopped(self, tries, airflow, emulator):
        attempt = tries(max_tries=0)

        def time_out_and_respond() -> None:
            # The thread that decides asks Airflow.
            airflow.answers = lambda: None
            os.kill(os.getpid(), signal.SIGALRM)
            time.sleep(1.0)

        def marked() -> None:
            emulator.wait_until(lambda: calls_of(emulator, "get-task") >= 2)
            airflow.state, airflow.answers = "failed", time_out_and_respond

        before = signal.signal(signal.SIGALRM, raising(AirflowTaskTimeout("Timeout")))
        try:
            with sigterm_after(attempt, marked):
                attempt.run()
        except AirflowTaskTimeout:
            attempt.made.on_kill()
        except RunCanceledError:
            pytest.fail("the decision came before the timeout")
        finally:
            signal.signal(signal.SIGALRM, before)
        assert emulator.tasks[0].status == "canceled"


def test_kill_during_a_look_up_while_airflow_is_away_promises_no_next_try(tries, airflow, emulator, be_hasty, logs):
    def killed(operator) -> None:
        airflow.answers = AWAY
        operator.on_kill()

    be_hasty()
    emulator.fault("run-task", RequestFault.lost_response(), times=1)
    attempt = tries()
    attempt.at_calls("run-task", before=killed)
    with pytest.raises(RunLostError, match=r"looks for it if Airflow starts one\. If not: Check the newest"):
        attempt.run()
    assert "The run keeps running" not in logs()


class TestExecutionTimeout:
    def execute(self, attempt) -> None:
        """Handle execution_timeout as Airflow does: with an exception, and on_kill while that is handled."""
        try:
            attempt.run()
        except AirflowTaskTimeout:
            attempt.made.on_kill()
            raise

    def time_out(self, attempt, emulator, after: str = "get-task") -> None:
        """Run a try, and end its time at the first poll after a call."""

        def over(_) -> None:
            if calls_of(emulator, after):
                raise AirflowTaskTimeout("Timeout")

        attempt.at_calls("get-task", before=over)
        with pytest.raises(AirflowTaskTimeout):
            self.execute(attempt)

    @pytest.fixture
    def lost(self, tries, emulator, monkeypatch):
        """Return a function that makes a try whose time ends while it looks up its lost start."""

        def make(**arguments) -> Worker:
            attempt, pause = tries(**arguments), time.sleep

            def over(seconds: float) -> None:
                run = attempt.made and attempt.made._run
                if run and run.lost is not None and not run.killed:
                    raise AirflowTaskTimeout("Timeout")
                pause(seconds)

            emulator.fault("run-task", RequestFault.lost_response(), times=1)
            monkeypatch.setattr(time, "sleep", over)
            return attempt

        return make

    def test_execution_timeout_stops_the_run_even_if_a_retry_follows(self, tries, emulator, logs):
        self.time_out(tries(), emulator)
        assert emulator.tasks[0].status == "canceled"
        assert "execution_timeout ended the Airflow task.\nThe run was stopped." in logs().replace("\\n", "\n")

    def test_execution_timeout_does_not_read_the_result_of_a_run_that_has_ended(self, tries, emulator, logs):
        emulator.fault("stop-task", RequestFault.refused(10121), times=1)
        self.time_out(tries(), emulator)
        logged = logs()
        assert "The run had already ended." in logged
        assert "Reading its result" not in logged

    @cases(
        ("later try", {}, True, AirflowTaskTimeout, "canceled"),
        ("no later try", {"store": None}, True, AirflowTaskTimeout, "canceled"),
        ("no later try, not certain", {"store": None}, False, AirflowFailException, "running"),
        ("cancel_on_kill=False", {"cancel_on_kill": False}, True, AirflowTaskTimeout, "running"),
    )
    def test_execution_timeout_while_a_lost_start_is_looked_up_stops_the_run_once_it_must_be_listed(
        self, lost, emulator, logs, arguments, matches, error, status
    ):
        if not matches:
            emulator.rewrite("list-tasks", lambda _: {"items": [], "total_count": 0})
        with pytest.raises(error):
            self.execute(lost(**arguments))
        assert emulator.tasks[0].status == status
        assert logs().count("Killed: execution_timeout ended the Airflow task.") == 1

    def test_sigterm_while_execution_timeout_waits_for_the_list_ends_the_wait(self, lost, emulator, monkeypatch, logs):
        # Without SIGTERM, this would take hours.
        monkeypatch.setattr(timings, "LIST_READS", (3600.0, 7200.0))
        attempt = lost()
        deciding = partial(emulator.wait_until, lambda: attempt.made is not None and attempt.made._run._deciding)
        with sigterm_after(attempt, deciding), pytest.raises(AirflowTaskTimeout):
            self.execute(attempt)
        assert emulator.tasks[0].status == "running"
        assert f"BrowserAct tasks of workflow {SEARCH.id}: {emulator.tasks[0].id}" in logs()

    def test_execution_timeout_after_a_stop_at_the_cap_that_failed_stops_the_run(self, tries, emulator):
        emulator.fault("stop-task", RequestFault.status(403), times=1)
        self.time_out(tries(max_credits=1), emulator, after="stop-task")
        assert emulator.tasks[0].status == "canceled"

    def test_execution_timeout_that_interrupts_a_stop_still_stops_the_run(self, tries, emulator, monkeypatch):
        attempt = tries(timeout=0.2)
        operator = attempt.operator()
        times_out_once = [AirflowTaskTimeout("Timeout"), DEFAULT]
        stop = Mock(wraps=operator.hook.client_within, side_effect=times_out_once)
        monkeypatch.setattr(operator.hook, "client_within", stop)
        attempt.operator = lambda: operator
        with pytest.raises(AirflowTaskTimeout):
            self.execute(attempt)
        assert emulator.tasks[0].status == "canceled"
        # Airflow sets no limit to the time after execution_timeout.
        assert stop.mock_calls == [call(None), call(None)]


BY_ADA = r"ada chose Stop\.\nThe run was stopped\."
STOP = {"woken_by": WokenBy.PERSON, "answer": Answer.STOP, "answered_by": "ada"}


@cases(
    ("a person chose Stop", {"required_action": "7"}, STOP, AirflowFailException, BY_ADA),
    ("not ended", {}, {}, RunLostError, "the next try reattaches to it"),
)
def test_kill_during_the_read_after_a_deferral_stops_or_leaves_the_run(tries, emulator, state, event, error, match):
    attempt = tries(deferrable=True)
    woken = WaitEvent(replace(attempt.defer().trigger.wait, **state), **event)
    attempt.at_calls(before=KILL)
    with pytest.raises(error, match=match):
        attempt.operator().execute_complete(attempt.context, to_json(woken))
    assert emulator.tasks[0].status == ("running" if error is RunLostError else "canceled")


def test_run_that_ends_between_the_read_after_a_deferral_and_the_stop_of_a_kill_returns_its_result(tries, emulator):
    emulator.next_run(SEARCH.id, duration=1.0)
    attempt = tries(deferrable=True, max_tries=0)
    event = to_json(WaitEvent(attempt.defer().trigger.wait))

    def killed_after_the_read(operator) -> None:
        wait_for_end(emulator)
        operator.on_kill()

    attempt.at_calls("get-task", after=killed_after_the_read)
    assert len(attempt.operator().execute_complete(attempt.context, event)) == 2


def test_kill_before_the_run_is_known_is_not_forgotten_when_the_run_becomes_known(tries, killed, emulator):
    killed(tries(max_tries=1))
    attempt = tries(max_tries=1, try_number=2)
    operator = attempt.operator()
    operator.on_kill()
    [task] = emulator.tasks
    with pytest.raises(RunCanceledError, match=f"(?s)^Killed: .*BrowserAct task {task.id}"):
        operator.execute(attempt.context)
    assert emulator.tasks[0].status == "canceled"


def test_signal_while_the_run_is_being_made_is_not_forgotten(tries, monkeypatch):
    operator = tries().operator()
    make = OwnRun.__init__

    def interrupted(self):
        monkeypatch.setattr(OwnRun, "__init__", make)
        operator.on_kill()

    monkeypatch.setattr(OwnRun, "__init__", interrupted)
    assert operator._run.killed


SET, CLEARED = "the Airflow task was set to a final state.", "the Airflow task was cleared."


@cases(
    ("deferral refused, marked", ["failed"], False, False, "canceled", SET),
    ("deferral refused, deleted", [DELETED], False, False, "canceled", "was deleted in Airflow."),
    ("accepted", ["deferred", "deferred"], False, True, "running", ""),
    ("resumed already", ["scheduled"], False, False, "running", ""),
    ("another try has begun", ["running"], True, False, "running", ""),
    ("marked before the trigger begins", ["deferred", "failed"], False, False, "canceled", SET),
    ("cleared, Airflow 3.4", ["deferred", "scheduled"], True, True, "canceled", CLEARED),
    ("left to a retry, Airflow 3.4", ["deferred", "up_for_retry"], True, True, "running", ""),
    # The next try finds the run.
    ("cleared, Airflow 3.3", ["deferred", "scheduled"], True, False, "running", ""),
)
def test_process_that_has_deferred_stops_the_run_if_a_person_has_ended_the_task_before_the_trigger_begins(
    tries, airflow, emulator, ends_of_tasks, monkeypatch, logs, states, superseded, newest, status, words
):
    monkeypatch.setattr("airflow_provider_browseract.worker.killed.AIRFLOW_V_3_4_PLUS", newest)
    tries(deferrable=True).defer()
    logs()
    airflow.become(states[0], superseded and len(states) == 1)
    pause = time.sleep

    def pause_until_later(seconds: float) -> None:
        if seconds == timings.TRIGGER_BEGINS:
            airflow.become(states[-1], superseded)
        pause(seconds)

    monkeypatch.setattr(time, "sleep", pause_until_later)
    ends_of_tasks[0]()
    assert emulator.tasks[0].status == status
    assert (f"{words}\nThe run was stopped." if words else "") in logs()


def test_success_soon_after_the_deferral_stops_and_logs_nothing(tries, airflow, emulator, ends_of_tasks, logs):
    emulator.next_run(SEARCH.id, duration=0.5)
    tries(deferrable=True).defer()
    wait_for_end(emulator)
    logs()
    airflow.become("success")
    ends_of_tasks[0]()
    assert calls_of(emulator, "stop-task") == 0
    assert logs() == ""


def test_airflow_is_not_asked_after_a_deferral_with_cancel_on_kill_false(tries, ends_of_tasks):
    tries(deferrable=True, cancel_on_kill=False).defer()
    assert ends_of_tasks == []


def test_late_response_of_airflow_after_the_deferral_is_ignored(tries, airflow, emulator, ends_of_tasks, monkeypatch):
    monkeypatch.setattr(timings, "HAND_OVER_LIMIT", 0.0)
    tries(deferrable=True).defer()
    airflow.become("failed")
    ends_of_tasks[0]()
    assert emulator.tasks[0].status == "running"


@cases(
    ("it runs", "running", "stored", "running"),
    ("it has deferred", "deferred", "stored", "running"),
    ("it cannot find the run in the stored state", "deferred", "", "canceled"),
    ("it has found the run in the list of tasks", "deferred", "found", "running"),
)
def test_run_is_kept_for_the_try_that_replaced_the_killed_one_if_it_can_reattach(
    tries, killed, airflow, emulator, state, known, status
):
    def replaced() -> None:
        attempt.made._run.stored = known == "stored"
        # Airflow deletes the XComs when another try begins.
        attempt.ti.xcoms["task_id"] = emulator.tasks[0].id if known == "found" else None
        airflow.become(state, superseded=True)

    attempt = tries()
    error = killed(attempt, happens=replaced)
    fate = REATTACHES if status == "running" else "The run was stopped."
    assert f"Airflow considered this try dead and started another one.\n{fate}" in str(error)
    assert emulator.tasks[0].status == status


def test_replaced_try_that_cannot_store_its_new_run_stops_it(tries, airflow, emulator, store, logs):
    keep = store.set

    def refuse_the_run(key, value, **keywords) -> None:
        if value["task_id"] is not None:
            airflow.become("running", superseded=True)
            raise RuntimeError("Task Instance not found")
        keep(key, value, **keywords)

    store.set = refuse_the_run
    with pytest.raises(RunCanceledError, match=r"started another one\.\nThe run was stopped\."):
        tries().run()
    assert [task.status for task in emulator.tasks] == ["canceled"]
    assert "Started a run" not in logs()


def test_run_is_left_to_the_trigger_if_airflow_is_away_after_a_deferral(tries, airflow, emulator, ends_of_tasks, logs):
    tries(deferrable=True).defer()
    airflow.answers = AWAY
    ends_of_tasks[0]()
    assert emulator.tasks[0].status == "running"
    assert "Airflow did not report in time whether it has accepted the deferral." in logs()


def test_process_ends_after_a_kill_after_its_deferral_is_decided(tries, airflow, emulator, ends_of_tasks, monkeypatch):
    monkeypatch.setattr(timings, "HANDLER_LIMIT", 0.0)
    emulator.fault("stop-task", RequestFault.slow(0.5))
    attempt = tries(deferrable=True)
    attempt.defer()
    airflow.state = "failed"
    attempt.made.on_kill()
    ends_of_tasks[0]()
    assert isinstance(attempt.made._run.error, RunCanceledError)
    assert calls_of(emulator, "stop-task") == 1
