"""SIGTERM while the process holds a lock: in a log line, a request, an XCom push or an import."""

import importlib.abc
import importlib.machinery
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import airflow_provider_browseract.api
from airflow_provider_browseract.emulator import SEARCH, RequestFault
from airflow_provider_browseract.exceptions import RunCanceledError, RunError, RunLostError
from tests.conftest import connect
from tests.helpers.cases import cases
from tests.helpers.workers import PENS, at_pushes, calls_of, emulator, worker

__all__ = ["connect", "emulator", "worker"]

IMPORTED = "airflow_provider_browseract.api.pages"
"""A module that a stop imports."""


class LockedLog:
    """A log that writes one line at a time, as structlog does, with a lock that is not reentrant."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lines: list[str] = []
        self.interrupt: Callable[[], None] = lambda: None

    def info(self, msg: str, *args: Any, **_: Any) -> None:
        with self.lock:
            self.interrupt()
            self.lines.append(msg % args)

    def log(self, level: int, msg: str, *args: Any) -> None:
        self.info(msg, *args)

    warning = error = info


class SignalDuringImport(importlib.abc.MetaPathFinder):
    """Send a signal in the middle of an import, while the lock of the module is held."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != IMPORTED:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.machinery.PathFinder.find_spec(fullname, path)
        execute = spec.loader.exec_module

        def interrupted(module: Any) -> None:
            terminate()
            execute(module)

        spec.loader.exec_module = interrupted
        return spec


@pytest.fixture
def channel(airflow) -> threading.Lock:
    """The lock of Airflow's channel to a task, which sends one request at a time, and is not reentrant."""
    lock = threading.Lock()

    def respond() -> None:
        with lock:
            pass

    airflow.answers = respond
    return lock


@pytest.fixture
def begin(worker, store, connect, emulator, airflow, channel) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a try. SIGTERM calls ``on_kill``, and code continues."""
    connect({"retry_budget": 0.2, "read_timeout": 3})
    emulator.set_workflow(SEARCH.id, duration=60.0)
    before = signal.getsignal(signal.SIGTERM)

    def make(state: str, **arguments: Any) -> Any:
        attempt = worker(workflow_id=SEARCH.id, input_parameters=PENS, store=store, **arguments)
        airflow.state = state
        signal.signal(signal.SIGTERM, lambda *_: attempt.made.on_kill())
        return attempt

    yield make
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def in_a_log_line(attempt, channel, emulator, monkeypatch) -> None:
    log = LockedLog()
    monkeypatch.setattr(attempt.operator_class, "log", log)
    # Once the id of the run is known.
    log.interrupt = lambda: terminate() if attempt.ti.xcoms.get("task_id") and not attempt.made._run.killed else None


def in_a_request(attempt, channel, emulator, monkeypatch) -> None:
    emulator.fault("get-task", RequestFault.hung(), times=1, skip=1)
    first = calls_of(emulator, "get-task")

    def send() -> None:
        emulator.wait_until(lambda: calls_of(emulator, "get-task") - first > 1)
        terminate()

    threading.Thread(target=send).start()


def push_over(channel, attempt, pushed: Callable[[str], None] = lambda _: None) -> None:
    """Let a task instance hold the lock of the channel during each push of an XCom."""
    push = attempt.ti.xcom_push

    def pushing(key: str, value: Any) -> None:
        with channel:
            push(key, value)
            pushed(key)

    attempt.ti.xcom_push = pushing


def in_an_xcom_push(attempt, channel, emulator, monkeypatch) -> None:
    push_over(channel, attempt, lambda key: terminate() if key == "task_id" else None)


def in_an_import(attempt, channel, emulator, monkeypatch) -> None:
    monkeypatch.setattr(airflow_provider_browseract.api, "pages", sys.modules[IMPORTED])

    def importing(key: str, _: Any) -> None:
        if key == "task_id":
            monkeypatch.delitem(sys.modules, IMPORTED)
            sys.meta_path.insert(0, SignalDuringImport())
            importlib.import_module(IMPORTED)

    at_pushes(attempt, importing)


@pytest.mark.parametrize("place", [in_a_log_line, in_a_request, in_an_xcom_push, in_an_import])
@cases(("marked", "failed", RunCanceledError, "canceled"), ("infrastructure", "running", RunLostError, "running"))
def test_sigterm_is_carried_out_while_the_interrupted_code_holds_a_lock(
    begin, emulator, channel, monkeypatch, place, state, error, status
):
    attempt = begin(state, max_tries=1)
    place(attempt, channel, emulator, monkeypatch)
    # A process that waits for a lock never ends.
    with pytest.raises(error):
        attempt.run()
    assert emulator.tasks[0].status == status


def test_run_is_stopped_while_the_process_still_waits_for_a_response(begin, emulator, channel, monkeypatch):
    attempt = begin("failed")
    in_a_request(attempt, channel, emulator, monkeypatch)
    reads_at_the_stop = []

    def watch() -> None:
        emulator.wait_until(lambda: emulator.tasks and emulator.tasks[0].status == "canceled")
        reads_at_the_stop.append(calls_of(emulator, "get-task"))

    watching = threading.Thread(target=watch)
    watching.start()
    with pytest.raises(RunCanceledError, match="The run was stopped"):
        attempt.run()
    watching.join()
    # The process still waited for its second read.
    assert reads_at_the_stop == [2]


def test_sigterm_after_the_deferral_holds_the_process_only_for_a_moment(begin, emulator, airflow, channel):
    attempt = begin("running", deferrable=True)
    attempt.defer()
    # Airflow sends the deferral.
    with channel:
        terminate()
        # The process continues, and may end before the decision.
        [deciding] = [thread for thread in threading.enumerate() if thread.name == "browseract-on-kill"]
        assert deciding.daemon
    airflow.state = "deferred"
    attempt.made._run.await_decision()
    assert emulator.tasks[0].status == "running"


def test_signals_at_random_moments_never_freeze_the_process(begin, store, emulator, channel, pytestconfig):
    emulator.set_workflow(SEARCH.id, duration=0.15)
    chance = random.Random(1)
    for _ in range(pytestconfig.getoption("--signals")):
        before = len(emulator.tasks)
        store.values.clear()
        state = chance.choice(["running", "failed", "restarting"])
        attempt = begin(state, max_tries=chance.randrange(2), poll_interval=0.02)
        push_over(channel, attempt)
        operator = attempt.operator()
        killing = threading.Timer(chance.uniform(0.0, 0.3), terminate)
        killing.start()
        result = error = None
        try:
            result = operator.execute(attempt.context)
        except RunError as raised:
            error = raised
        killing.join()
        # Whatever the moment is, there is a result or an error, and the error is true.
        assert (result is None) != (error is None)
        assert len(emulator.tasks) <= before + 1, "a second run was started"
        # Runs of earlier signals may be left to a next try.
        if error is not None and [task.status for task in emulator.tasks[before:]] == ["running"]:
            assert "keeps running" in str(error)
