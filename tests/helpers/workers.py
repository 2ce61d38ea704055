"""Operators that run as in a worker, and the parts of Airflow that they use there."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from operator import methodcaller
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import BaseSensorOperator

from airflow_provider_browseract.compat import TaskDeferred
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
from tests.helpers.cases import raising

BOTH_WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["in the worker", "deferred"])
PENS = {"keyword": "pens", "max_items": 2}
"""Inputs of the emulator's workflow SEARCH."""

ORDERS_RESULT = {"logged_in": False, "message": "The page asks to log in"}
"""What the emulator's workflow ORDERS returns without a profile."""


class FakeTaskInstance:
    """The part of a task instance that the operator uses: XComs, which last over a deferral."""

    dag_id, run_id, task_id, map_index = "shop", "manual__1", "run", -1
    try_number, max_tries = 1, 0
    id = "019ab3d5-0000-7000-8000-000000000001"
    log_url = "http://airflow.example/dags/shop/runs/manual__1/tasks/run?try_number=1"

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}
        self.siblings: dict[str, list[object]] = {}

    def xcom_push(self, key, value):
        self.xcoms[key] = value

    def xcom_pull(self, task_ids, key, map_indexes=None):
        if task_ids == ["run"]:
            # Without an index, Airflow returns those of all mapped siblings.
            return [*self.siblings.get(key, ()), *filter(None, [self.xcoms.get(key)])]
        assert (task_ids, map_indexes) == ("run", -1)
        return self.xcoms.get(key)


class FakeStore:
    """Airflow's task state, which lasts over tries: JSON values by key."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key):
        return json.loads(self.values[key]) if key in self.values else None

    def set(self, key, value, *, retention):
        assert retention > timedelta(days=1)
        self.values[key] = json.dumps(value)

    def delete(self, key):
        self.values.pop(key, None)


class Worker:
    """Runs an operator as Airflow does, deferrals included, but in this process and without a scheduler."""

    def __init__(
        self,
        *,
        store: FakeStore | None = None,
        operator_class: Any = RunWorkflowOperator,
        fire: Callable[[Any], dict] | None = None,
        interval: float | None = 0.05,
        try_number: int = 1,
        max_tries: int = 0,
        **arguments,
    ) -> None:
        self.operator_class, self.fire = operator_class, fire or fire_in_real_time
        if interval is not None:
            name = "poke_interval" if issubclass(operator_class, BaseSensorOperator) else "poll_interval"
            arguments = {name: interval, **arguments}
        self.arguments = {"task_id": "run", **arguments}
        self.ti = FakeTaskInstance()
        self.ti.try_number, self.ti.max_tries = try_number, max_tries
        self.context: Any = {"ti": self.ti}
        if store is not None:
            self.context["task_state_store"] = store
            # Before Airflow 3.3, which has no such store, this is not the default.
            self.arguments.setdefault("durable", True)
        self.deferrals: list[TaskDeferred] = []
        self.events: list[dict] = []
        #: The operator of the last process.
        self.made: Any = None
        self._at_calls: tuple[Any, ...] | None = None

    def operator(self) -> Any:
        """Create the operator again, as each process does."""
        operator = self.operator_class(**self.arguments)
        if self._at_calls is not None:
            names, before, after = self._at_calls
            client = operator.hook.client
            send = client.send

            def sent(call, **how):
                if names and call.name not in names:
                    return send(call, **how)
                # A start is recorded right before it is sent.
                how.pop("before", lambda: None)()
                before(operator)
                try:
                    return send(call, **how)
                finally:
                    after(operator)

            client.send = sent
        self.made = operator
        return operator

    def at_calls(self, *names: str, before=lambda _: None, after=lambda _: None) -> None:
        """Let something happen, given the operator, before and after its calls with these names, or all calls."""
        self._at_calls = (names, before, after)

    def defer(self) -> TaskDeferred:
        """Run it until it defers for the first time."""
        with pytest.raises(TaskDeferred) as deferral:
            self.operator().execute(self.context)
        return deferral.value

    def run(self):
        try:
            return self.operator().execute(self.context)
        except TaskDeferred as deferred:
            return self.resume(deferred)

    def resume(self, deferred: TaskDeferred, event: Any = None):
        """Run the trigger, unless there is an event, then the operator from there, as often as it defers."""
        events = [event] if event is not None else []

        def wait(waiting):
            return events.pop() if events else self.wait_in_triggerer(waiting)

        _, result = resume_until_end(self.operator, wait, deferred, self.context)
        return result

    def defer_again(self, deferred: TaskDeferred, event: Any) -> TaskDeferred:
        """Continue after an event that does not end the wait, and return the next deferral."""
        with pytest.raises(TaskDeferred) as again:
            resume_operator(self.operator(), deferred, event, self.context)
        return again.value

    def wait_in_triggerer(self, deferred: TaskDeferred) -> dict:
        """Run the trigger, created again from its stored arguments, and return the payload of its only event."""
        self.deferrals.append(deferred)
        event = self.fire(deferred.trigger)
        self.events.append(event)
        return event


def fire_in_real_time(trigger: Any) -> dict:
    """Run a trigger, created again from its stored arguments, and return the payload of its only event."""
    [event] = asyncio.run(payloads_of(stored_trigger(trigger)))
    return event


async def payloads_of(trigger: Any) -> list[dict]:
    return [event.payload async for event in trigger.run()]


def stored_trigger(trigger: Any) -> Any:
    """Return a trigger, created again from the arguments that Airflow stores, as in the triggerer."""
    path, arguments = trigger.serialize()
    return resolve_name(path)(**json.loads(json.dumps(arguments)))


def resume_operator(operator: Any, deferred: TaskDeferred, event: dict, context: Any) -> Any:
    """Resume an operator after a deferral, with the arguments that Airflow stores and the payload of the event."""
    kwargs = {**json.loads(json.dumps(deferred.kwargs or {})), "event": event}
    return operator.resume_execution(deferred.method_name, kwargs, context)


def resume_until_end(
    make: Callable[[], Any], wait: Callable[[TaskDeferred], dict], deferred: TaskDeferred, context: Any
):
    """Continue in a new operator after each wait for an event, and return the last one and its result."""
    while True:
        event, operator = wait(deferred), make()
        try:
            return operator, resume_operator(operator, deferred, event, context)
        except TaskDeferred as again:
            deferred = again


def calls_of(emulator, endpoint: str) -> int:
    return sum(request.endpoint == endpoint for request in emulator.requests)


KILL = methodcaller("on_kill")


@pytest.fixture
def worker(short_timings):
    return Worker


@pytest.fixture
def logs(capfd) -> Callable[[], str]:
    """Return a function that returns what has been logged since its last call."""
    return lambda: "".join(capfd.readouterr())


@pytest.fixture
def store() -> FakeStore:
    """What lasts over the tries of one task instance."""
    return FakeStore()


def set_retry_policy(run, action: object) -> list[BaseException]:
    """Give a task instance a retry policy that always decides so, and return the list of errors that it is given."""
    given: list[BaseException] = []

    def evaluate(exception, **_):
        given.append(exception)
        return SimpleNamespace(action=action)

    run.ti.task = SimpleNamespace(retry_policy=SimpleNamespace(evaluate=evaluate))
    return given


def at_pushes(run, happens: Callable[[str, Any], object]) -> None:
    """Let something happen after each push of an XCom by a task instance. It is given the key and the value."""
    push = run.ti.xcom_push

    def pushing(key, value):
        push(key, value)
        happens(key, value)

    run.ti.xcom_push = pushing


def refuse_xcoms(run, *keys: str, reason: str = "no API server") -> None:
    """Make pushes of some XComs of a task instance fail."""
    fail = raising(OSError(reason))
    at_pushes(run, lambda key, _: fail() if key in keys else None)


LONGEST_HOLD = 10.0


def hold_until_looked_at(emulator, monkeypatch) -> None:
    """Let the runs of an emulator still be running when they are looked at first, however short they are.

    Its clock stands still from a start until another request has its response, for a few seconds at most. So the
    machine can be slow.
    """
    handle, lag = emulator.handle, 0.0
    held_at: float | None = None

    def release(now: float) -> None:
        nonlocal lag, held_at
        lag, held_at = lag + (0.0 if held_at is None else now - held_at), None

    def clock() -> float:
        now = time.time()
        if held_at is not None and now - held_at > LONGEST_HOLD:
            release(now)
        return (now if held_at is None else held_at) - lag

    def held(method, path, *request):
        nonlocal held_at
        is_start = "/run-task" in path or (method, path[-5:]) == ("POST", "/runs")
        if is_start:
            held_at = held_at or time.time()
        response = handle(method, path, *request)
        if not is_start:
            release(time.time())
        return response

    monkeypatch.setattr(emulator, "clock", clock)
    monkeypatch.setattr(emulator, "handle", held)


@pytest.fixture
def emulator(browseract_emulator, monkeypatch):
    """The emulator behind ``browseract_default``, with runs that take no time to speak of."""
    emulator = browseract_emulator
    hold_until_looked_at(emulator, monkeypatch)
    for each in emulator.of_kind("workflow", "bot"):
        emulator.set_workflow(each.id, duration=0.2)
    return emulator
