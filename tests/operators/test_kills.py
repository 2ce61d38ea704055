"""What becomes of the run when the process of its Airflow task is told to end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowTaskTimeout, TaskDeferred
from airflow_provider_browseract.emulator import SEARCH, RequestFault
from airflow_provider_browseract.runs.outcome import RunCanceledError, RunLostError
from tests.operators.conftest import asked

PENS = {"keyword": "pens", "max_items": 2}
REATTACHES = "The run keeps running, and the next try reattaches to it ("


class Airflow:
    """What Airflow knows of the task instance.

    :param store: what it keeps over tries; a try whose place another one has taken is shown nothing of it.
    """

    def __init__(self, store) -> None:
        self.state: str | None = "running"
        self.superseded = False
        self.answers: Callable[[], None] = lambda: None
        self._get = store.get
        store.get = self.get

    def get(self, key):
        self.answers()
        return None if self.superseded else self._get(key)

    def count(self, dag_id, *, map_index, task_ids, run_ids, states):
        self.answers()
        assert (dag_id, map_index, task_ids, run_ids) == ("shop", -1, ["run"], ["manual__1"])
        return int(self.state is not None and (states is None or self.state in states))


@pytest.fixture
def airflow(store, monkeypatch) -> Airflow:
    airflow = Airflow(store)
    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_ti_count", airflow.count)
    return airflow


@pytest.fixture
def tries(worker, store, airflow, set_extra, emulator):
    """Makes the tries of one task instance that waits in its worker for a run of a minute."""
    set_extra(retry_budget=0.2, connect_timeout=0.5, read_timeout=2)
    emulator.set_workflow(SEARCH.id, duration=60.0)

    def make(*, max_tries: int = 1, try_number: int = 1, **arguments):
        defaults = {"workflow_id": SEARCH.id, "input_parameters": PENS, "store": store}
        made = worker(**{**defaults, **arguments})
        made.ti.max_tries, made.ti.try_number = max_tries, try_number
        return made

    return make


@pytest.fixture
def killed(emulator) -> Iterator[Callable[..., BaseException]]:
    """Run a try and end its process with SIGTERM while it waits, as Airflow handles that signal."""
    before = signal.getsignal(signal.SIGTERM)

    def kill(attempt, *, happens: Callable[[], Any] = lambda: None, times: int = 1, polls: int = 2) -> BaseException:
        operator = attempt.operator()
        # Airflow's handler calls on_kill and lets the code continue.
        signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
        polled = asked(emulator, "get-task")

        def send() -> None:
            # One poll after the start, for the links, and then those of the wait.
            emulator.wait_until(lambda: asked(emulator, "get-task") - polled >= polls)
            happens()
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGTERM)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            with pytest.raises((RunLostError, RunCanceledError)) as raised:
                operator.execute(attempt.context)
        finally:
            sending.join()
        return raised.value

    yield kill
    signal.signal(signal.SIGTERM, before)


class TestSigtermThatNobodyAskedFor:
    """As of an evicted pod, a drained node or a stopped worker: the task instance is running, as before."""

    def test_leaves_the_run_to_the_next_try_which_reattaches(self, tries, killed, emulator):
        emulator.next_run(SEARCH.id, duration=3.0)
        error = killed(tries())
        [task] = emulator.tasks
        assert isinstance(error, RunLostError)
        assert str(error).startswith(
            f"Killed while waiting for BrowserAct task {task.id}: the process of the Airflow task received SIGTERM, "
            f"although nobody marked or cleared the task.\n{REATTACHES}"
        )
        assert task.status == "running"
        assert len(tries(try_number=2).run()) == 2
        assert len(emulator.tasks) == 1

    def test_while_the_next_try_reattaches_leaves_the_run_to_the_one_after_that(self, tries, killed, emulator):
        killed(tries(max_tries=2))
        killed(tries(max_tries=2, try_number=2))
        [task] = emulator.tasks
        assert task.status == "running"

    def test_in_the_last_try_stops_the_run(self, tries, killed, emulator):
        error = killed(tries(max_tries=0))
        assert isinstance(error, RunCanceledError)
        assert str(error).endswith(
            "no later try can reattach to the run (see retries, retry_policy and reattach).\nThe run was stopped."
        )
        assert emulator.tasks[0].status == "canceled"

    def test_where_airflow_keeps_nothing_for_the_next_try_stops_the_run(self, tries, killed, emulator):
        error = killed(tries(store=None))
        assert "no later try can reattach to the run" in str(error)
        assert emulator.tasks[0].status == "canceled"

    def test_with_reattach_false_stops_the_run(self, tries, killed, emulator):
        killed(tries(reattach=False))
        assert emulator.tasks[0].status == "canceled"

    def test_ends_a_long_sleep_between_two_polls(self, tries, killed):
        began = time.monotonic()
        killed(tries(poll_interval=60), polls=1)
        assert time.monotonic() - began < 20

    def test_twice_asks_and_logs_once(self, tries, killed, emulator, capfd):
        killed(tries(max_tries=0), times=2)
        assert asked(emulator, "stop-task") == 1
        assert "".join(capfd.readouterr()).count("Killed while waiting") == 1

    @pytest.mark.parametrize("keeps", [True, False], ids=["Airflow 3.3", "before Airflow 3.3"])
    def test_right_after_the_deferral_leaves_the_run_to_the_triggerer(
        self, tries, airflow, emulator, store, keeps, capfd
    ):
        attempt = tries(deferrable=True, max_tries=0, store=store if keeps else None)
        operator = attempt.operator()
        with pytest.raises(TaskDeferred):
            operator.execute(attempt.context)
        airflow.state = "deferred"
        operator.on_kill()
        assert emulator.tasks[0].status == "running"
        assert "The run keeps running, and the triggerer waits for it (" in "".join(capfd.readouterr())

    @pytest.mark.parametrize("arguments", [{"store": None}, {"max_tries": 0}, {"reattach": False}])
    def test_after_the_end_of_the_run_still_returns_its_result(self, tries, airflow, emulator, arguments, monkeypatch):
        emulator.next_run(SEARCH.id, duration=0.2)
        attempt = tries(poll_interval=60, **arguments)
        operator = attempt.operator()
        before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())

        def send() -> None:
            emulator.wait_until(lambda: emulator.tasks and emulator.tasks[0].finished_at)
            os.kill(os.getpid(), signal.SIGTERM)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            assert len(operator.execute(attempt.context)) == 2
        finally:
            sending.join()
            signal.signal(signal.SIGTERM, before)
        assert [task.status for task in emulator.tasks] == ["finished"]

    def test_during_the_start_of_a_run_that_ends_at_once_still_returns_its_result(self, tries, emulator, monkeypatch):
        emulator.next_run(SEARCH.id, duration=0.0)
        attempt = tries(store=None)
        operator = attempt.operator()
        send = operator.hook.client.send

        def killed_meanwhile(call):
            if call.starts_run:
                operator.on_kill()
            answer = send(call)
            if call.starts_run:
                emulator.wait_until(lambda: emulator.tasks[0].finished_at)
            return answer

        monkeypatch.setattr(operator.hook.client, "send", killed_meanwhile)
        assert len(operator.execute(attempt.context)) == 2
        assert attempt.ti.xcoms["task_id"] == emulator.tasks[0].id

    def test_before_a_start_is_sent_starts_nothing(self, tries, emulator, monkeypatch):
        attempt = tries()
        operator = attempt.operator()
        monkeypatch.setattr(operator, "_look_before_start", lambda call: operator.on_kill())
        with pytest.raises(RunCanceledError, match="Killed before a run was started"):
            operator.execute(attempt.context)
        assert emulator.tasks == []


class TestARetryPolicy:
    """``retry_policy`` of Airflow 3.3 decides after the error whether there is a next try."""

    @pytest.mark.parametrize(("action", "status"), [("fail", "canceled"), ("retry", "running"), ("default", "running")])
    def test_decides_what_becomes_of_the_run(self, tries, killed, emulator, action, status):
        asked_with = []

        def evaluate(**arguments):
            asked_with.append(arguments)
            return SimpleNamespace(action=SimpleNamespace(value=action))

        attempt = tries()
        attempt.ti.task = SimpleNamespace(retry_policy=SimpleNamespace(evaluate=evaluate))
        killed(attempt)
        assert emulator.tasks[0].status == status
        assert set(asked_with[0]) == {"exception", "try_number", "max_tries", "context"}
        assert isinstance(asked_with[0]["exception"], RunLostError)

    def test_that_raises_is_none_as_for_airflow(self, tries, killed, emulator):
        attempt = tries()
        attempt.ti.task = SimpleNamespace(retry_policy=SimpleNamespace(evaluate=None))
        killed(attempt)
        assert emulator.tasks[0].status == "running"

    def test_is_asked_as_airflow_defines_it(self):
        retry_policy = pytest.importorskip(
            "airflow.sdk.definitions.retry_policy", reason="Airflow 3.3 and later has retry policies"
        )
        from airflow_provider_browseract.operators.tries import Tries

        policy = retry_policy.ExceptionRetryPolicy(
            rules=[retry_policy.RetryRule(exception=RunLostError, action=retry_policy.RetryAction.FAIL)],
        )
        ti = SimpleNamespace(try_number=1, max_tries=3, task=SimpleNamespace(retry_policy=policy))
        known: Any = {"ti": ti, "task_state_store": object()}
        assert not Tries(known, reattach=True).another(RunLostError("x"))
        assert Tries(known, reattach=True).another(RunCanceledError("x"))


class TestAPersonWho:
    @pytest.mark.parametrize("state", ["failed", "success", "skipped"])
    def test_marks_the_task_stops_the_run(self, tries, killed, airflow, emulator, state):
        error = killed(tries(), happens=lambda: setattr(airflow, "state", state))
        assert isinstance(error, RunCanceledError)
        assert str(error).endswith("the Airflow task was set to a final state.\nThe run was stopped.")
        assert emulator.tasks[0].status == "canceled"

    def clear(self, airflow, superseded: bool = True) -> None:
        airflow.state, airflow.superseded = "restarting", superseded

    @pytest.mark.parametrize("superseded", [True, False], ids=["Airflow 3.3", "Airflow 3.4"])
    def test_clears_the_task_stops_the_run(self, tries, killed, airflow, emulator, superseded):
        # Before Airflow 3.4, the task instance has another identity by then.
        error = killed(tries(), happens=lambda: self.clear(airflow, superseded))
        assert str(error).endswith("the Airflow task was cleared.\nThe run was stopped.")
        assert emulator.tasks[0].status == "canceled"

    def test_clears_the_task_while_it_reattaches_stops_that_run(self, tries, killed, airflow, emulator):
        killed(tries(max_tries=2))
        killed(tries(max_tries=2, try_number=2), happens=lambda: self.clear(airflow))
        [task] = emulator.tasks
        assert task.status == "canceled"

    def test_marks_the_task_keeps_the_run_with_cancel_on_kill_false(self, tries, killed, airflow, emulator):
        error = killed(tries(cancel_on_kill=False), happens=lambda: setattr(airflow, "state", "failed"))
        assert "The run keeps running and using credits because cancel_on_kill=False (" in str(error)
        assert emulator.tasks[0].status == "running"

    def test_marks_the_task_while_its_run_cannot_be_stopped_is_told_so(self, tries, killed, airflow, emulator):
        emulator.fault("stop-task", RequestFault.status(503), times=None)
        error = killed(tries(), happens=lambda: setattr(airflow, "state", "failed"))
        assert "The run could not be stopped (" in str(error)
        assert "It may keep running and using credits" in str(error)

    def test_marks_the_task_while_its_run_is_being_started_is_told_that_one_may_be_running(
        self, tries, airflow, emulator, monkeypatch, capfd
    ):
        attempt = tries()
        operator = attempt.operator()
        send = operator.hook.client.send

        def marked_meanwhile(call):
            if call.starts_run:
                airflow.state = "failed"
                operator.on_kill()
            return send(call)

        monkeypatch.setattr(operator.hook.client, "send", marked_meanwhile)
        with pytest.raises(RunCanceledError, match=r"set to a final state\.\nThe run was stopped\."):
            operator.execute(attempt.context)
        assert emulator.tasks[0].status == "canceled"
        assert "a run may be running and using credits" in "".join(capfd.readouterr())

    def test_marks_the_task_just_before_it_defers_stops_the_run_since_airflow_would_not_tell(
        self, tries, airflow, emulator, monkeypatch
    ):
        attempt = tries(deferrable=True)
        operator = attempt.operator()

        def marked_meanwhile(context, begun, wait):
            airflow.state = "failed"
            return None, wait

        monkeypatch.setattr(operator, "_look_once", marked_meanwhile)
        with pytest.raises(RunCanceledError, match=r"set to a final state\.\nThe run was stopped\."):
            operator.execute(attempt.context)
        assert emulator.tasks[0].status == "canceled"

    def test_deletes_the_task_instance_stops_the_run(self, tries, killed, airflow, emulator):
        def delete() -> None:
            airflow.state, airflow.superseded = None, True

        error = killed(tries(), happens=delete)
        assert "the task instance was deleted in Airflow.\nThe run was stopped." in str(error)
        assert emulator.tasks[0].status == "canceled"

    def test_marks_the_task_while_its_result_is_asked_for_is_named_as_who_stopped_the_run(
        self, tries, airflow, emulator, monkeypatch
    ):
        attempt = tries()
        operator = attempt.operator()
        send = operator.hook.client.send

        def marked_meanwhile(call):
            if call.name == "get-task":
                monkeypatch.setattr(operator.hook.client, "send", send)
                airflow.state = "failed"
                operator.on_kill()
            return send(call)

        monkeypatch.setattr(operator.hook.client, "send", marked_meanwhile)
        with pytest.raises(RunCanceledError, match=r"set to a final state\.\nThe run was stopped\."):
            operator.execute(attempt.context)

    def test_does_nothing_lets_the_task_defer(self, tries, emulator):
        attempt = tries(deferrable=True)
        with pytest.raises(TaskDeferred):
            attempt.operator().execute(attempt.context)


def test_a_worker_that_airflow_took_for_dead_leaves_the_run_to_the_try_in_its_place(tries, killed, airflow, emulator):
    def superseded() -> None:
        airflow.superseded = True

    error = killed(tries(), happens=superseded)
    assert "Airflow considered this try dead and started another one.\n" + REATTACHES in str(error)
    assert emulator.tasks[0].status == "running"


class TestAirflowThatCannotBeAsked:
    def away(self) -> None:
        raise RuntimeError("no API server")

    def hang(self) -> None:
        threading.Event().wait(30)

    def test_leaves_the_run_to_the_next_try(self, tries, killed, airflow, emulator):
        error = killed(tries(), happens=lambda: setattr(airflow, "answers", self.away))
        assert f"Airflow cannot be asked why.\n{REATTACHES}" in str(error)
        assert emulator.tasks[0].status == "running"

    def test_stops_the_run_if_there_is_no_next_try(self, tries, killed, airflow, emulator):
        error = killed(tries(max_tries=0), happens=lambda: setattr(airflow, "answers", self.away))
        assert "Airflow cannot be asked why; no later try can reattach to the run" in str(error)
        assert str(error).endswith("The run was stopped.")
        assert emulator.tasks[0].status == "canceled"

    def test_is_waited_for_only_as_long_as_airflow_lets_the_process_live(
        self, tries, killed, airflow, emulator, monkeypatch
    ):
        monkeypatch.setattr("airflow_provider_browseract.operators.waiting.KILL_GRACE", 0.4)
        began = time.monotonic()
        killed(tries(), happens=lambda: setattr(airflow, "answers", self.hang))
        assert time.monotonic() - began < 15
        assert emulator.tasks[0].status == "running"


class TestExecutionTimeout:
    def timed_out(self, attempt, emulator, monkeypatch) -> Any:
        """End the time at the second poll, as Airflow does: with an exception, and on_kill while that is handled."""
        operator = attempt.operator()
        send = operator.hook.client.send

        def over(call):
            if call.name == "get-task" and asked(emulator, "get-task"):
                raise AirflowTaskTimeout("Timeout")
            return send(call)

        monkeypatch.setattr(operator.hook.client, "send", over)
        try:
            operator.execute(attempt.context)
        except AirflowTaskTimeout:
            operator.on_kill()
        return operator

    def test_stops_the_run_although_there_is_a_next_try(self, tries, emulator, monkeypatch, capfd):
        self.timed_out(tries(), emulator, monkeypatch)
        assert emulator.tasks[0].status == "canceled"
        said = "".join(capfd.readouterr())
        assert "execution_timeout ended the Airflow task.\nThe run was stopped." in said.replace("\\n", "\n")

    def test_while_the_run_is_being_stopped_does_not_cut_that_off(self, tries, emulator, monkeypatch):
        attempt = tries(timeout=0.2)
        operator = attempt.operator()
        stop = operator.hook.stop_task
        stops = []

        def over(task_id, *, within):
            stops.append(within)
            if len(stops) == 1:
                raise AirflowTaskTimeout("Timeout")
            return stop(task_id, within=within)

        monkeypatch.setattr(operator.hook, "stop_task", over)
        try:
            operator.execute(attempt.context)
        except AirflowTaskTimeout:
            operator.on_kill()
        assert emulator.tasks[0].status == "canceled"
        assert len(stops) == 2
