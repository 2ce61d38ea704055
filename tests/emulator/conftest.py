from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from airflow_provider_browseract.emulator import HUMAN, EmulatedWorkflow, Emulator, Response
from airflow_provider_browseract.emulator.control import ENDPOINTS
from tests.catalogue import add

NOON = 1_780_000_000.25


class Refused(Exception):
    """The API has refused a call."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(f"{code}: {message}")


class Account:
    """An emulator that is not served, and whose clock only a test advances."""

    def __init__(self, **options: Any) -> None:
        self.now = NOON
        self.emulator = add(Emulator(clock=lambda: self.now, **{"concurrency": 5, **options}))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def send(self, endpoint: str, ids: Any = None, query: str = "", **request: Any) -> Response:
        """Call an endpoint, with a body of JSON unless there are other headers."""
        called = ENDPOINTS[endpoint]
        headers = {"content-type": "application/json", **request.pop("headers", {})}
        path = called.path.format(**(ids or {}))
        key = {"authorization": f"Bearer {self.emulator.api_key}"}
        return self.emulator.handle(called.method, path, query, {**key, **headers}, **request)

    def call(self, endpoint: str, **given: Any) -> Any:
        """Call an endpoint, and return the value of its body. What is not in the path is in the query or the body."""
        ids = {name: given.pop(name) for name in list(given) if f"{{{name}}}" in ENDPOINTS[endpoint].path}
        if endpoint.startswith(("run-task", "create-")):
            response = self.send(endpoint, ids, body=json.dumps(given).encode())
        else:
            response = self.send(endpoint, ids, urlencode(given))
        value = json.loads(response.body or b"null")
        if response.status != 200:
            raise Refused(value["code"], value["msg"])
        return value

    def run(self, workflow: EmulatedWorkflow, inputs: dict[str, str] | None = None, **fields: Any) -> str:
        return str(self.start(workflow, inputs, **fields)["id"])

    def start(self, workflow: EmulatedWorkflow, inputs: dict[str, str] | None = None, **fields: Any) -> Any:
        items = [{"name": name, "value": value} for name, value in (inputs or {}).items()]
        return self.call("run-task", workflow_id=workflow.id, input_parameters=items, **fields)

    def run_bot(self, bot: EmulatedWorkflow, given: Any = None, **fields: Any) -> str:
        return str(self.call("create-run", bot_id=bot.id, input=given or {}, **fields)["task_id"])

    def task(self, task_id: str) -> Any:
        return self.call("get-task", task_id=task_id)

    def status(self, task_id: str) -> str:
        return str(self.call("get-task-status", task_id=task_id)["status"])

    def output(self, task_id: str) -> Any:
        return json.loads(self.task(task_id)["output"]["string"])

    def finished(self, workflow: EmulatedWorkflow, inputs: Any = None, **settings: Any) -> Any:
        """Return a task after 2 seconds, at its end."""
        self.emulator.next_run(workflow.id, **settings)
        task_id = self.run(workflow, inputs)
        self.pass_time(2)
        return self.task(task_id)

    def finished_bot(self, bot: EmulatedWorkflow, given: Any = None, **settings: Any) -> Any:
        """The same with API v3."""
        self.emulator.next_run(bot.id, **settings)
        task_id = self.run_bot(bot, given)
        self.pass_time(2)
        return self.call("query-run", task_id=task_id)

    def code(self, endpoint: str, **given: Any) -> int:
        """Return the code with which a call is refused."""
        with pytest.raises(Refused) as refused:
            self.call(endpoint, **given)
        return refused.value.code


@pytest.fixture
def make_account() -> type[Account]:
    return Account


@pytest.fixture
def account() -> Account:
    return Account()


class Client:
    """Calls a running emulator over HTTP."""

    def __init__(self, running: Emulator) -> None:
        self.running = running
        self.emulator = running
        headers = {"Authorization": f"Bearer {running.api_key}"}
        self.http = httpx.Client(base_url=running.url, headers=headers, trust_env=False, timeout=10)

    def call(self, method: str, endpoint: str, **options: Any) -> httpx.Response:
        return self.http.request(method, f"/v2/workflow/{endpoint}", **options)

    def start_bot(self, bot: EmulatedWorkflow, given: Any = None, **fields: Any) -> httpx.Response:
        return self.http.post(f"/v3/bots/{bot.id}/runs", json={"input": given or {}, **fields})

    def regions(self, **options: Any) -> httpx.Response:
        return self.call("GET", "get-region-list", **options)

    def start(self, workflow: EmulatedWorkflow, inputs: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        items = [{"name": name, "value": value} for name, value in (inputs or {}).items()]
        return self.call("POST", "run-task", json={"workflow_id": workflow.id, "input_parameters": items, **fields})

    def task(self, task_id: str) -> Any:
        return self.call("GET", "get-task", params={"task_id": task_id}).json()

    def finished(self, workflow: EmulatedWorkflow, inputs: dict[str, str] | None = None) -> Any:
        """Return a task at its end."""
        task_id = self.start(workflow, inputs).json()["id"]
        self.emulator.wait_until(lambda: self.emulator.tasks[-1].status == "finished")
        return self.task(task_id)


@pytest.fixture
def serve() -> Iterator[Callable[..., Client]]:
    """Serve an emulator made with the given options, until the end of the test."""
    contexts = []

    def serve(**options: Any) -> Client:
        emulator = add(Emulator(**{"callback_retry_delay": 0.0, "concurrency": 5, **options}))
        emulator.set_workflow("*", duration=0.02)
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
def running() -> Iterator[Emulator]:
    """An emulator that random requests cannot fill."""
    emulator = add(Emulator(concurrency=1000))
    emulator.set_workflow("*", duration=0.002)
    with emulator.serve() as running:
        yield running
