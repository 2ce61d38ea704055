from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from urllib.parse import urlencode

import httpx
import pytest

from airflow_provider_browseract.emulator import HUMAN, Emulator, Response
from airflow_provider_browseract.emulator.account import ENDPOINTS
from tests.helpers.catalogue import add
from tests.helpers.served import read_request

HEADERS = {"authorization": "Bearer app-emulator", "content-type": "Application/JSON ; charset=utf-8"}


class Account:
    """An emulator that is not served, and whose clock only a test advances."""

    def __init__(self, **options):
        self.now = 1_780_000_000.25
        self.emulator = add(Emulator(clock=lambda: self.now, **{"concurrency": 5, **options}))

    def pass_time(self, seconds):
        self.now += seconds

    def request(self, method, path, query="", headers=(), body=b""):
        return self.emulator.handle(method, path, query, dict(headers), body)

    def get(self, link):
        return self.request("GET", link.removeprefix(self.emulator.url).partition("?")[0])

    def send(self, endpoint, ids=(), query="", headers=(), body=b""):
        called = ENDPOINTS[endpoint]
        return self.request(called.method, called.path.format(**dict(ids)), query, {**HEADERS, **dict(headers)}, body)

    def respond(self, endpoint, **given):
        """Call an endpoint, and return its response. What is not in the path is in the query or the body."""
        ids = {name: given.pop(name) for name in list(given) if f"{{{name}}}" in ENDPOINTS[endpoint].path}
        if endpoint.startswith(("run-task", "create-")):
            return self.send(endpoint, ids, body=json.dumps(given).encode())
        return self.send(endpoint, ids, urlencode(given))

    def call(self, endpoint, **given):
        response = self.respond(endpoint, **given)
        assert response.status == 200, response.body
        return json.loads(response.body or b"null")

    def refusal(self, endpoint, **given):
        response = self.respond(endpoint, **given)
        assert response.status >= 400
        value = json.loads(response.body)
        return value["code"], value["msg"]

    def code(self, endpoint, **given):
        return self.refusal(endpoint, **given)[0]

    def start(self, workflow, inputs=(), **fields):
        items = [{"name": name, "value": value} for name, value in dict(inputs).items()]
        return self.call("run-task", workflow_id=workflow.id, input_parameters=items, **fields)

    def run(self, workflow, inputs=(), **fields):
        return self.start(workflow, inputs, **fields)["id"]

    def run_bot(self, bot, given=(), **fields):
        return self.call("create-run", bot_id=bot.id, input=dict(given), **fields)["task_id"]

    def task(self, task_id):
        return self.call("get-task", task_id=task_id)

    def bot_run(self, task_id):
        return self.call("query-run", task_id=task_id)

    def finished(self, workflow, inputs=(), *, as_bot=False, **settings):
        """Return a task, or a run of API v3, after 2 seconds, at its end."""
        self.emulator.next_run(workflow.id, **settings)
        task_id = (self.run_bot if as_bot else self.run)(workflow, inputs)
        self.pass_time(2)
        return (self.bot_run if as_bot else self.task)(task_id)


class Client(Account):
    def __init__(self, emulator):
        self.emulator = emulator
        self.http = httpx.Client(base_url=emulator.url, trust_env=False, timeout=120)

    def request(self, method, path, query="", headers=(), body=b""):
        sent = self.http.request(method, f"{path}?{query}", headers=dict(headers), content=body)
        return Response(sent.status_code, sent.content, sent.headers.get("content-type", ""), dict(sent.headers))

    def regions(self):
        return self.respond("get-region-list").status


class Receiver:
    """Receives callbacks, and responds with the statuses in ``responses``, then with 200, unless it is held."""

    def __init__(self, listen):
        self.paths, self.bodies, self.headers, self.responses = [], [], [], []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.url = f"http://127.0.0.1:{listen(self._receive)}"

    @property
    def statuses(self):
        return [body["status"] for body in self.bodies]

    def _receive(self, connection):
        head, _, body = read_request(connection).decode().partition("\r\n\r\n")
        line, *headers = head.split("\r\n")
        self.paths.append(line.split()[1])
        self.headers.append(dict(header.split(": ", 1) for header in headers))
        self.bodies.append(json.loads(body))
        self.goes_on.wait(120)
        status = self.responses.pop(0) if self.responses else 200
        response = f"HTTP/1.1 {status} As told\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(response.encode())


@pytest.fixture
def account():
    return Account()


@pytest.fixture
def serve():
    with ExitStack() as served:

        def serve(**options):
            emulator = add(Emulator(**{"callback_retry_delay": 0.0, "concurrency": 5, **options}))
            emulator.set_workflow("*", duration=0.02)
            emulator.set_workflow(HUMAN.id, pause_limit=None)
            return Client(served.enter_context(emulator.serve()))

        yield serve


@pytest.fixture
def client(serve):
    return serve()


@pytest.fixture
def receiver(listen):
    receiver = Receiver(listen)
    yield receiver
    receiver.goes_on.set()
