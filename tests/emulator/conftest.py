from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from airflow_provider_browseract.emulator import HUMAN, EmulatedWorkflow, Emulator, RunningEmulator
from airflow_provider_browseract.emulator.errors import ApiError
from airflow_provider_browseract.emulator.routes import ENDPOINTS

NOON = 1_780_000_000.25


class Account:
    """An emulator that is not served, and whose clock only a test advances."""

    def __init__(self, **options: Any) -> None:
        self.now = NOON
        self.emulator = Emulator(clock=lambda: self.now, **{"as_in_the_demos": False, "concurrency": 5, **options})

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def raw(self, endpoint: str, **request: Any) -> Any:
        return ENDPOINTS[endpoint].call(self.emulator, **request)

    def post(self, endpoint: str, body: Any, **ids: str) -> Any:
        return self.raw(endpoint, ids=ids, body=json.dumps(body).encode(), content_type="application/json")

    def get(self, endpoint: str, **given: Any) -> Any:
        """Call an endpoint without a body. What its path does not contain is in the query."""
        ids = {name: value for name, value in given.items() if f"{{{name}}}" in ENDPOINTS[endpoint].path}
        query = {name: value for name, value in given.items() if name not in ids}
        return self.raw(endpoint, ids=ids, query=urlencode(query).encode())

    def run(self, workflow: EmulatedWorkflow, inputs: dict[str, str] | None = None, **fields: Any) -> str:
        return str(self.start(workflow, inputs, **fields)["id"])

    def start(self, workflow: EmulatedWorkflow, inputs: dict[str, str] | None = None, **fields: Any) -> Any:
        items = [{"name": name, "value": value} for name, value in (inputs or {}).items()]
        return self.post("run-task", {"workflow_id": workflow.id, "input_parameters": items, **fields})

    def task(self, task_id: str) -> Any:
        return self.get("get-task", task_id=task_id)

    def status(self, task_id: str) -> str:
        return str(self.get("get-task-status", task_id=task_id)["status"])

    def output(self, task_id: str) -> Any:
        return json.loads(self.task(task_id)["output"]["string"])

    def run_bot(self, bot: EmulatedWorkflow, given: Any = None, **fields: Any) -> str:
        return str(self.post("create-run", {"input": given or {}, **fields}, bot_id=bot.id)["task_id"])

    def detail(self, task_id: str) -> Any:
        return self.get("query-run", task_id=task_id)

    def setting(self, workflow: EmulatedWorkflow, **settings: Any) -> None:
        self.emulator.set_workflow(workflow.id, **settings)


@pytest.fixture
def make_account() -> type[Account]:
    return Account


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def code_of() -> Callable[[Callable[[], Any]], int]:
    """Return the error code with which the API refuses a call."""

    def code_of(call: Callable[[], Any]) -> int:
        with pytest.raises(ApiError) as caught:
            call()
        return caught.value.code

    return code_of


class Client:
    """Calls a running emulator over HTTP."""

    def __init__(self, running: RunningEmulator) -> None:
        self.running = running
        self.emulator = running.emulator
        self.http = httpx.Client(
            base_url=running.url,
            headers={"Authorization": f"Bearer {running.api_key}"},
            trust_env=False,
            timeout=10,
        )

    def call(self, method: str, endpoint: str, **options: Any) -> httpx.Response:
        return self.http.request(method, f"/v2/workflow/{endpoint}", **options)

    def start_bot(self, bot: EmulatedWorkflow, given: Any = None, **fields: Any) -> httpx.Response:
        return self.http.post(f"/v3/bots/{bot.id}/runs", json={"input": given or {}, **fields})

    def regions(self, **options: Any) -> httpx.Response:
        return self.call("GET", "get-region-list", **options)

    def start(self, workflow: EmulatedWorkflow, inputs: dict[str, str] | None = None, **fields: Any) -> Any:
        items = [{"name": name, "value": value} for name, value in (inputs or {}).items()]
        body = {"workflow_id": workflow.id, "input_parameters": items, **fields}
        return self.call("POST", "run-task", json=body)

    def task(self, task_id: str) -> Any:
        return self.call("GET", "get-task", params={"task_id": task_id}).json()


@pytest.fixture
def serve() -> Iterator[Callable[..., Client]]:
    """Serve an emulator made with the given options, until the end of the test."""
    contexts = []

    def serve(**options: Any) -> Client:
        given = {"as_in_the_demos": False, "callback_retry_delay": 0.0, "concurrency": 5, "speed": 100.0, **options}
        emulator = Emulator(**given)
        emulator.set_workflow(HUMAN.id, pause_limit=None)
        context = emulator.serve()
        client = Client(context.__enter__())
        contexts.append((context, client))
        return client

    yield serve
    for context, client in reversed(contexts):
        client.http.close()
        context.__exit__(None, None, None)


@pytest.fixture
def client(serve: Callable[..., Client]) -> Client:
    return serve()


class Receiver:
    """Receives callbacks, and responds with the statuses in ``responses``, then with 200."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.responses: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.append(self.path)
                receiver.headers.append(dict(self.headers))
                receiver.bodies.append(json.loads(body))
                receiver.hold.wait(10)
                status = receiver.responses.pop(0) if receiver.responses else 200
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def statuses(self) -> list[str]:
        return [body["status"] for body in self.bodies]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield receiver
    receiver.hold.set()
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.fixture(scope="module")
def running() -> Iterator[RunningEmulator]:
    """An emulator that random requests cannot fill."""
    with Emulator(concurrency=1000, speed=1000).serve() as running:
        yield running
