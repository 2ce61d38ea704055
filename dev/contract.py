"""``make contract``: Prism judges the client and the emulator by the vendor's OpenAPI document.

    BROWSERACT_OPENAPI=openapi_v2.json make contract

The document is not part of this project. npm brings Prism, a proxy and mock server that knows such documents. Three
rounds, each with both clients and every endpoint:

- proxy: client, Prism, emulator. Prism records each request and response that the document does not allow.
- mock, examples: the client with responses that Prism takes from the document.
- mock, random: the client with responses that Prism generates from the schemas of the document.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.client import AsyncBrowserActClient, BrowserActClient
from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.api.retries import RetryPolicy
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.emulator import (
    DOWNLOAD,
    EXPORT,
    FAILING,
    HUMAN,
    LOG_IN,
    SEARCH,
    TEMPLATE_SEARCH,
    Emulator,
)

PRISM = "@stoplight/prism-cli@5.14.2"
ROUNDS = 30
"""How often the client makes all calls against random answers."""

START_TIMEOUT = 300.0
"""Seconds that npm may take to fetch and start Prism."""

UNDECLARED = re.compile(r"Unable to match the returned status code")
"""The document declares 200, 400 and 500 only; docs/emulator.md names the others."""

PROOF = "request.query.limit Request query parameter limit must be integer"
"""What Prism records of a request that neither client can send."""


class Prism:
    """A Prism that runs, and what it has said.

    :param arguments: its command line.
    """

    def __init__(self, *arguments: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = ["npx", "--yes", PRISM, *arguments, "--port", str(port), "--host", "127.0.0.1"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.lines: list[str] = []
        self._listening = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if not self._listening.wait(START_TIMEOUT) or self._process.poll() is not None:
            self.close()
            raise RuntimeError("Prism does not start:\n" + "\n".join(self.lines[-20:]))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(re.sub(r"\x1b\[[0-9;]*m", "", line.rstrip()))
            if "Prism is listening" in line:
                self._listening.set()
        self._listening.set()

    def prove(self) -> list[str]:
        """Check that Prism records a request that the document does not allow, and forget all records.

        Prism writes its records some time after the response, but in the order of the requests: when it has recorded
        this request, it has recorded all earlier ones.

        :returns: the violations before this request.
        :raises RuntimeError: Prism does not record it, so its other records prove nothing.
        """
        url = f"{self.url}/v2/workflow/list-tasks?limit=many"
        httpx.get(url, headers={"Authorization": "Bearer app-emulator"})
        end = time.monotonic() + 10.0
        while PROOF not in self.violations:
            if time.monotonic() > end:
                raise RuntimeError("Prism does not record a request that the document does not allow")
            time.sleep(0.1)
        found = [line for line in self.violations if line != PROOF]
        self.lines.clear()
        return found

    @property
    def violations(self) -> list[str]:
        """What the document does not allow, as Prism has put it."""
        found = [line.partition("Violation:")[2].strip() for line in self.lines if "Violation:" in line]
        return [line for line in found if not UNDECLARED.search(line)]

    def close(self) -> None:
        """End it, and what npm has started with it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(20)


@contextlib.contextmanager
def prism(*arguments: str) -> Iterator[Prism]:
    """Run a Prism while the context lasts."""
    running = Prism(*arguments)
    try:
        yield running
    finally:
        running.close()


class Clients:
    """Both clients, and the outcomes of their calls.

    :param url: address of the API.
    """

    def __init__(self, url: str) -> None:
        self._settings = ClientSettings("app-emulator", url, retries=RetryPolicy(budget=0.0))
        self.sent = 0
        self.refused: collections.Counter[str] = collections.Counter()
        self.odd: list[str] = []

    def send(self, call: Call[Any]) -> list[Any]:
        """Send a call with each client, and return the two results, None for an error."""
        return [self._count(call, self._sync), self._count(call, self._async)]

    def _count(self, call: Call[Any], send: Any) -> Any:
        self.sent += 1
        try:
            return send(call)
        except BrowserActError as error:
            self.refused[f"{call.name}, {type(error).__name__}, code {error.code}"] += 1
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.odd.append(f"{call.name}: {type(error).__name__}: {error}")
        return None

    def _sync(self, call: Call[Any]) -> Any:
        with BrowserActClient(self._settings) as client:
            return client.send(call)

    def _async(self, call: Call[Any]) -> Any:
        async def send() -> Any:
            async with AsyncBrowserActClient(self._settings) as client:
                return await client.send(call)

        return asyncio.run(send())


def every_call(workflow_id: str, template_id: str, task_id: str) -> list[Call[Any]]:
    """Return a call of each endpoint, and some more with other arguments."""
    keyword = {"keyword": "pens, ink; \u00fc=1"}
    lists = (v2.list_tasks, v2.list_workflows, v2.list_official_workflow_templates)
    return [
        v2.run_task(workflow_id, input_parameters=keyword, save_browser_data=True),
        v2.run_task(workflow_id, input_parameters=keyword, callback_url="https://example.com/a?b=c"),
        v2.run_task_by_template(template_id, input_parameters=keyword),
        v2.run_task_by_template(template_id, input_parameters=keyword, region="DE"),
        v2.get_task_status(task_id),
        v2.get_task(task_id),
        *(make(page=page, limit=limit) for make in lists for page, limit in ((1, 1), (2, 3), (9999, 500))),
        *(v2.list_tasks(status=status, workflow_id=workflow_id, workflow_name="sea") for status in TaskStatus),
        v2.list_official_workflow_templates(keyword="product"),
        v2.get_workflow(workflow_id),
        v2.get_official_workflow_template(template_id),
        v2.get_region_list(),
        v2.stop_task(task_id, biz_code=7),
        v2.resume_task(task_id),
    ]


def through_the_proxy(document: str) -> tuple[Clients, list[str]]:
    """Call the emulator through Prism, with runs in every state."""
    emulator = Emulator(concurrency=1000, speed=20.0)
    emulator.set_workflow(HUMAN.id, pause_limit=None)
    with emulator.serve() as running, prism("proxy", document, running.url) as judge:
        clients = Clients(judge.url)
        judge.prove()
        inputs = {
            SEARCH: {"keyword": "pens"},
            EXPORT: {"keyword": "pens"},
            DOWNLOAD: {"keyword": "pens"},
            FAILING: {},
            HUMAN: {},
            LOG_IN: {"username": "ada", "password": "x"},
        }
        started = []
        for workflow, given in inputs.items():
            for created in clients.send(v2.run_task(workflow.id, input_parameters=given, save_browser_data=True)):
                started.append(created.id)
                clients.send(v2.get_task(created.id))
        settled = ("finished", "failed", "paused")
        emulator.wait_until(lambda: all(task.status in settled for task in emulator.tasks), timeout=60)
        for task_id in started:
            clients.send(v2.get_task(task_id))
            clients.send(v2.get_task_status(task_id))
        for task_id in started:
            for call in every_call(SEARCH.id, TEMPLATE_SEARCH.id, task_id):
                clients.send(call)
        # What is refused, too.
        for call in every_call("1", "1", "1"):
            clients.send(call)
        violations = judge.prove()
    # BrowserAct's own refusals have a code.
    clients.odd += [line for line in clients.refused.elements() if line.endswith("code None")]
    return clients, violations


def against_the_mock(document: str, *options: str, rounds: int) -> tuple[Clients, list[str]]:
    """Call Prism itself."""
    with prism("mock", document, *options) as judge:
        clients = Clients(judge.url)
        judge.prove()
        for _ in range(rounds):
            for call in every_call("70", "80", "7"):
                # The client compares the id with the requested one, which Prism does not know.
                clients.send(replace(call, read=Task.read) if call.name == "get-task" else call)
        violations = judge.prove()
    # The document allows no response that the client cannot read.
    clients.odd += clients.refused.elements()
    return clients, violations


def main() -> int:
    """Run the three rounds, and print their outcomes."""
    document = os.environ.get("BROWSERACT_OPENAPI")
    if not document or not Path(document).is_file() or shutil.which("npx") is None:
        print("Set BROWSERACT_OPENAPI to the vendor's openapi_v2.json, and install Node.js (npx).", file=sys.stderr)
        return 2
    failed = False
    # A random response often has an item that cannot be read.
    logging.disable(logging.WARNING)
    rounds = {
        "client, Prism, emulator": lambda: through_the_proxy(document),
        "client, mock (examples)": lambda: against_the_mock(document, rounds=1),
        "client, mock (random)": lambda: against_the_mock(document, "--dynamic", rounds=ROUNDS),
    }
    print(f"{'Round':25} {'Requests':>8} {'Violations':>10} {'Other exceptions':>16}")
    for name, judge in rounds.items():
        clients, violations = judge()
        print(f"{name:25} {clients.sent:8} {len(violations):10} {len(clients.odd):16}", flush=True)
        for line, count in collections.Counter((*violations, *clients.odd)).most_common(10):
            print(f"    {count} x {line}")
        for line, count in clients.refused.most_common():
            print(f"    refused {count} times: {line}")
        failed |= bool(violations or clients.odd)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
