"""BrowserAct, Airflow and time in one process: no socket and no thread, and what waits takes no time.

The emulator answers both clients as a function. Airflow is a task instance with its XComs, its task state, its
deferrals and its states. Whatever sleeps moves the clock, so all times are those of a real run.
"""

import asyncio
import io
import json
import random
import selectors
import time
from datetime import datetime, timezone
from email.utils import format_datetime
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPResponse
from urllib3.exceptions import MaxRetryError, NewConnectionError

from airflow_provider_browseract.api.async_client import AsyncBrowserActClient
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.compat import TaskDeferred
from airflow_provider_browseract.emulator import Emulator, Response
from tests.helpers.catalogue import prepare
from tests.helpers.workers import FakeStore, FakeTaskInstance, Worker, payloads_of, resume_until_end, stored_trigger

STATES = "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states"
START = 1_780_000_000.0


class Clock:
    """The time of a world, which passes only while something waits."""

    def __init__(self):
        self.now = START

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.now += max(0.0, seconds)

    def loop(self):
        """Return an event loop that waits by moving this clock, and runs what needs a thread at once."""
        clock = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout=None):
                found = super().select(0)
                if not found and timeout:
                    clock.sleep(max(timeout, 0.001))
                return found

        class Loop(asyncio.SelectorEventLoop):
            def time(self):
                return clock.now

            def run_in_executor(self, executor, func, *args):  # type: ignore[override]
                future = self.create_future()
                try:
                    future.set_result(func(*args))
                except Exception as error:  # noqa: BLE001 - whoever awaits it gets it
                    future.set_exception(error)
                return future

        loop = Loop(Selector())
        loop._clock_resolution = 0.001  # type: ignore[attr-defined]
        return loop


class Lost(Exception):
    """No response arrives."""


class World:
    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.clock = Clock()
        self.emulator = prepare(Emulator(clock=self.clock.time))
        # Callbacks to a private address are refused unless the API has one too.
        self.emulator.url = "http://127.0.0.1:1"
        self.emulator.wait_until = self.wait_until
        #: Whether a request of a method finds nobody who listens.
        self.unreachable = lambda method: False
        #: What becomes of the response to a call, by the name of its endpoint.
        self.instead: dict[str, Any] = {}
        #: Seconds until a start ends without its response, how it ends, and seconds until it is carried out.
        self.slow_start: tuple[float, int | None, float] | None = None
        self._held: list[tuple[float, Any]] = []
        #: The state of the task instance that other processes see.
        self.state = "running"
        self.connect()
        for name in ("time", "monotonic"):
            monkeypatch.setattr(time, name, self.clock.time)
        monkeypatch.setattr(time, "sleep", self.clock.sleep)
        monkeypatch.setattr(random, "random", lambda: 0.5)
        monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
        monkeypatch.setattr(STATES, lambda dag_id, task_ids, run_ids, **_: {run_ids[0]: {"run": self.state}})
        world = self

        def session(client):
            made = requests.Session()
            made.trust_env = False
            made.headers["User-Agent"] = client._settings().user_agent
            made.mount("http://", _Adapter(world))
            return made

        async def open_client(asynchronous):
            return httpx.AsyncClient(transport=_Transport(world))

        opened = cached_property(session)
        opened.__set_name__(BrowserActClient, "_session")
        monkeypatch.setattr(BrowserActClient, "_session", opened)
        monkeypatch.setattr(AsyncBrowserActClient, "_open", open_client)

    def connect(self, **fields):
        connection = {**self.emulator.connection, **fields}
        self.monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(connection))

    def wait_until(self, condition, timeout=3600.0):
        """Let time pass until a condition is true, as the emulator's own method does."""
        for _ in range(int(timeout * 10)):
            if condition():
                return
            self.clock.sleep(0.1)
        raise TimeoutError(f"the condition did not become true within {timeout:g} s")

    def respond(self, method, url, headers, body):
        """Return the response to a request, when it arrives."""
        parts = urlsplit(url)
        if self.unreachable(method):
            raise Lost("refused")
        if self._held and self._held[0][0] <= self.clock.now:
            self.emulator.receive(*self._held.pop()[1])
        if self.slow_start is not None and parts.path.endswith(("run-task", "/runs")) and method == "POST":
            (takes, status, carried_out_after), self.slow_start = self.slow_start, None
            held = (method, parts.path, parts.query, headers, body)
            self._held.append((self.clock.now + carried_out_after, held))
            self.clock.sleep(takes)
            if status is None:
                raise Lost("hung")
            return Response(status, b"<html>timeout</html>", "text/html")
        record, fault, response = self.emulator.receive(method, parts.path, parts.query, headers, body or b"")
        if fault is not None and fault.kind in ("slow", "hung"):
            self.clock.sleep(fault.seconds or 60)
        if response is None:
            raise Lost(fault.kind)
        record.status = response.status
        response = self.instead.get(record.endpoint, lambda found: found)(response)
        # A server sends its own time.
        date = format_datetime(datetime.fromtimestamp(self.emulator.clock(), timezone.utc), usegmt=True)
        return response._replace(headers={"Date": date, **response.headers})

    def fire(self, trigger):
        """Run a trigger, made again from its stored arguments, and return the payload of its only event."""
        [event] = self.run(payloads_of(stored_trigger(trigger)))
        return event

    def run(self, coroutine):
        """Run a coroutine in an event loop that waits by moving the clock."""

        async def alone():
            found = await coroutine
            # What the triggers of a triggerer share does not end with this one.
            shared = asyncio.all_tasks() - {asyncio.current_task()}
            for task in shared:
                task.cancel()
            await asyncio.gather(*shared, return_exceptions=True)
            return found

        loop = self.clock.loop()
        try:
            return loop.run_until_complete(alone())
        finally:
            loop.close()


class TaskInstance:
    """A task instance over its tries: each try has new XComs, and all have one task state."""

    def __init__(self, world, make):
        self.world, self.make = world, make
        self.store = FakeStore()
        self.try_number, self.max_tries = 0, 3

    def next_try(self):
        """Begin the next try, and return its context."""
        self.try_number += 1
        ti = FakeTaskInstance()
        ti.try_number, ti.max_tries = self.try_number, self.max_tries
        return {"ti": ti, "task_state_store": self.store}

    def run(self, context, defers=False, renders=False):
        """Run a try to its end, or raise its first deferral if it defers, and return the result."""
        operator = self.make()
        if renders:
            operator.render_template_fields(context)
        try:
            result = operator.execute(context)
        except TaskDeferred as deferred:
            if defers:
                raise
            operator, result = resume_until_end(
                self.make, lambda waiting: self.world.fire(waiting.trigger), deferred, context
            )
        self.world.state = "success"
        for callback in operator.on_success_callback:
            callback(context)
        return result


class _Adapter(BaseAdapter):
    """Sends the requests of the worker's client to a world."""

    def __init__(self, world):
        super().__init__()
        self.world = world

    def send(self, request, *_, **__):
        try:
            found = self.world.respond(request.method, request.url, request.headers, request.body)
        except Lost as lost:
            if "refused" in lost.args:
                nobody: Any = None
                refused = NewConnectionError(nobody, "refused")
                raise requests.ConnectionError(MaxRetryError(nobody, "/", refused)) from None
            raise (requests.ReadTimeout if "hung" in lost.args else requests.ConnectionError)(str(lost)) from None
        response = requests.Response()
        response.status_code, response.url, response.request = found.status, request.url, request
        response.headers = CaseInsensitiveDict({"Content-Type": found.content_type, **found.headers})
        response.raw = HTTPResponse(io.BytesIO(found.body), status=found.status, preload_content=False)
        return response

    def close(self):
        pass


class _Transport(httpx.AsyncBaseTransport):
    """Sends the requests of the triggerer's client to a world."""

    def __init__(self, world):
        self.world = world

    async def handle_async_request(self, request):
        try:
            found = self.world.respond(request.method, str(request.url), request.headers, await request.aread())
        except Lost as lost:
            error = {"hung": httpx.ReadTimeout, "refused": httpx.ConnectError}.get(str(lost), httpx.ReadError)
            raise error(str(lost)) from None
        headers = {"Content-Type": found.content_type, **found.headers}
        return httpx.Response(found.status, headers=headers, stream=httpx.ByteStream(found.body))


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


@pytest.fixture
def emulator(world):
    """The emulator of the world, whose runs take a minute."""
    world.emulator.set_workflow("*", duration=60.0)
    return world.emulator


@pytest.fixture
def connect(world):
    """Set the connection to the emulator of the world, with an extra or with other fields."""
    return lambda extra=None, **fields: world.connect(extra=extra or {}, **fields)


@pytest.fixture
def worker(world):
    return partial(Worker, fire=world.fire, interval=None)
