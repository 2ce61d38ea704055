from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

import httpx
import pytest

from airflow_provider_browseract.emulator import HUMAN, Emulator, Response
from airflow_provider_browseract.emulator.account import ENDPOINTS
from tests.catalogue import add

NOON = 1_780_000_000.25


class Refused(Exception):
    """The API has refused a call."""


class Account:
    """An emulator that is not served, and whose clock only a test advances."""

    def __init__(self, **options):
        self.now = NOON
        self.emulator = add(Emulator(clock=lambda: self.now, **{"concurrency": 5, **options}))

    def pass_time(self, seconds):
        self.now += seconds

    def request(self, method, path, query, headers, body):
        return self.emulator.handle(method, path, query, headers, body)

    def send(self, endpoint, ids=(), query="", headers=(), body=b""):
        """Call an endpoint, with a body of JSON unless there are other headers, and return the response."""
        called = ENDPOINTS[endpoint]
        headers = {"authorization": "Bearer app-emulator", "content-type": "application/json", **dict(headers)}
        return self.request(called.method, called.path.format(**dict(ids)), query, headers, body)

    def respond(self, endpoint, **given):
        """Call an endpoint. What is not in the path is in the query or the body."""
        ids = {name: given.pop(name) for name in list(given) if f"{{{name}}}" in ENDPOINTS[endpoint].path}
        if endpoint.startswith(("run-task", "create-")):
            return self.send(endpoint, ids, body=json.dumps(given).encode())
        return self.send(endpoint, ids, urlencode(given))

    def call(self, endpoint, **given):
        """Return the value of the body of a response, which has to be a success."""
        response = self.respond(endpoint, **given)
        value = json.loads(response.body or b"null")
        if response.status != 200:
            raise Refused(f"{value['code']}: {value['msg']}")
        return value

    def code(self, endpoint, **given):
        """Return the code with which a call is refused."""
        with pytest.raises(Refused) as refused:
            self.call(endpoint, **given)
        return int(str(refused.value).partition(":")[0])

    def start(self, workflow, inputs=(), **fields):
        items = [{"name": name, "value": value} for name, value in dict(inputs).items()]
        return self.call("run-task", workflow_id=workflow.id, input_parameters=items, **fields)

    def run(self, workflow, inputs=(), **fields):
        return self.start(workflow, inputs, **fields)["id"]

    def run_bot(self, bot, given=(), **fields):
        return self.call("create-run", bot_id=bot.id, input=dict(given), **fields)["task_id"]

    def task(self, task_id):
        return self.call("get-task", task_id=task_id)

    def status(self, task_id):
        return self.call("get-task-status", task_id=task_id)["status"]

    def output(self, task_id):
        return json.loads(self.task(task_id)["output"]["string"])

    def finished(self, workflow, inputs=(), **settings):
        """Return a task after 2 seconds, at its end."""
        self.emulator.next_run(workflow.id, **settings)
        task_id = self.run(workflow, inputs)
        self.pass_time(2)
        return self.task(task_id)

    def finished_bot(self, bot, given=(), **settings):
        """The same with API v3."""
        self.emulator.next_run(bot.id, **settings)
        task_id = self.run_bot(bot, given)
        self.pass_time(2)
        return self.call("query-run", task_id=task_id)


class Client(Account):
    """Calls an emulator over HTTP, at the real time."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.http = httpx.Client(base_url=emulator.url, trust_env=False, timeout=10)

    def request(self, method, path, query="", headers=(), body=b""):
        sent = self.http.request(method, f"{path}?{query}", headers=dict(headers), content=body)
        return Response(sent.status_code, sent.content, sent.headers.get("content-type", ""), dict(sent.headers))

    def regions(self):
        """Return the HTTP status of a response."""
        return self.respond("get-region-list").status

    def wait_for(self, status):
        """Wait until the newest run has a status."""
        self.emulator.wait_until(lambda: self.emulator.tasks and self.emulator.tasks[-1].status == status)


class Receiver:
    """Receives callbacks, and responds with the statuses in ``responses``, then with 200."""

    def __init__(self):
        self.bodies: list[dict] = []
        self.paths: list[str] = []
        self.headers: list[dict] = []
        self.responses: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.append(self.path)
                receiver.headers.append(dict(self.headers))
                receiver.bodies.append(json.loads(body))
                receiver.hold.wait(10)
                self.send_response(receiver.responses.pop(0) if receiver.responses else 200)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def statuses(self):
        return [body["status"] for body in self.bodies]


@pytest.fixture
def make_account():
    return Account


@pytest.fixture
def account():
    return Account()


@pytest.fixture
def serve():
    """Serve an emulator made with the given options, until the end of the test."""
    contexts = []

    def serve(**options):
        emulator = add(Emulator(**{"callback_retry_delay": 0.0, "concurrency": 5, **options}))
        emulator.set_workflow("*", duration=0.02)
        emulator.set_workflow(HUMAN.id, pause_limit=None)
        contexts.append(emulator.serve())
        return Client(contexts[-1].__enter__())

    yield serve
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture
def client(serve):
    return serve()


@pytest.fixture
def receiver():
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    receiver.hold.set()
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()
