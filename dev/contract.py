"""``make contract``: Prism judges the client and the emulator by the vendor's OpenAPI documents.

    BROWSERACT_OPENAPI=openapi_v2.json BROWSERACT_OPENAPI_V3=openapi_v3.json make contract

The documents, one for each version of the API, are not part of this project. npm brings Prism, a proxy and mock server
that knows such documents. Three rounds for each document, with both clients and every endpoint:

- proxy: client, Prism, emulator. Prism records each request and response that the document does not allow.
- mock, examples: the client with responses that Prism takes from the document.
- mock, random: the client with responses that Prism generates from the schemas of the document.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.client import AsyncBrowserActClient, BrowserActClient
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import ApiVersion, BotType, TaskStatus
from airflow_provider_browseract.api.retries import RetryPolicy
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.emulator import (
    AGENT_HUMAN,
    CONTACTS,
    EXPORT,
    HUMAN,
    LOG_IN,
    SEARCH,
    TEMPLATE_SEARCH,
    Emulator,
)
from airflow_provider_browseract.exceptions import BrowserActError
from tests.catalogue import DOWNLOAD, FAILING, PRICES, add

PRISM = "@stoplight/prism-cli@5.14.2"
ROUNDS = 30
"""How often the client makes all calls against random answers."""

START_TIMEOUT = 300.0
"""Seconds that npm may take to fetch and start Prism."""

UNDECLARED = re.compile(r"Unable to match the returned status code")
"""The documents declare 200, 400 and 500 only; docs/emulator.md names the others."""

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

    def prove(self, path: str) -> list[str]:
        """Check that Prism records a request that the document does not allow, and forget all records.

        Prism writes its records some time after the response, but in the order of the requests: when it has recorded
        this request, it has recorded all earlier ones.

        :param path: that of a list call.
        :returns: the violations before this request.
        :raises RuntimeError: Prism does not record it, so its other records prove nothing.
        """
        httpx.get(f"{self.url}{path}?limit=many", headers={"Authorization": "Bearer app-emulator"})
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


PAGES = ((1, 1), (2, 3), (9999, 100))
"""Numbers and sizes of the pages that each list is asked for."""

KEYWORD = {"keyword": "pens, ink; \u00fc=1"}


def every_call_of_v2(workflow_id: str, template_id: str, task_id: str) -> list[Call[Any]]:
    """Return a call of each endpoint, and some more with other arguments."""
    lists = (v2.list_tasks, v2.list_workflows, v2.list_official_workflow_templates)
    return [
        v2.run_task(workflow_id, input_parameters=KEYWORD, save_browser_data=True),
        v2.run_task(workflow_id, input_parameters=KEYWORD, callback_url="https://example.com/a?b=c"),
        v2.run_task_by_template(template_id, input_parameters=KEYWORD),
        v2.run_task_by_template(template_id, input_parameters=KEYWORD, region="DE"),
        v2.get_task_status(task_id),
        v2.get_task(task_id),
        *(make(page=page, limit=limit) for make in lists for page, limit in PAGES),
        *(v2.list_tasks(status=status, workflow_id=workflow_id, workflow_name="sea") for status in TaskStatus),
        v2.list_official_workflow_templates(keyword="product", limit=v2.PAGE_LIMIT),
        v2.get_workflow(workflow_id),
        v2.get_official_workflow_template(template_id),
        v2.get_region_list(),
        v2.resume_task(task_id),
        v2.stop_task(task_id, biz_code=7),
    ]


def every_call_of_v3(bot_id: str, template_id: str, task_id: str) -> list[Call[Any]]:
    """Return a call of each endpoint, and some more with other arguments."""
    lists = (v3.page_runs, v3.page_bots, v3.page_templates)
    return [
        v3.create_run(bot_id, KEYWORD),
        v3.create_run(bot_id, {**KEYWORD, "more": [1, None, {"a": 1.5}]}, callback_url="https://example.com/a?b=c"),
        v3.create_template_run(template_id, KEYWORD),
        v3.create_template_run(template_id, KEYWORD, region="DE"),
        v3.query_run_status(task_id),
        v3.query_run(task_id),
        *(make(page=page, limit=limit) for make in lists for page, limit in PAGES),
        *(
            v3.page_runs(status=status, bot_id=bot_id, bot_name="sea")
            for status in TaskStatus
            if status is not TaskStatus.UNKNOWN
        ),
        *(v3.page_bots(bot_type=bot_type, keyword="find") for bot_type in BotType),
        v3.page_templates(keyword="product", limit=v3.TEMPLATE_PAGE_LIMIT),
        v3.query_bot(bot_id),
        v3.query_template(template_id),
        v3.list_regions(),
        v3.resume_run(task_id),
        v3.cancel_run(task_id, biz_code=7),
    ]


@dataclass(frozen=True)
class Version:
    """What is tried with one version of the API.

    :param variable: names the vendor's document.
    :param list_path: the path of the list of tasks.
    :param every_call: takes the id of a workflow or bot, that of a template, and that of a task.
    :param starts: the starts of runs that succeed.
    :param refused: starts that are refused.
    :param ids: the ids that the mock server responds with. The clients refuse other ones: those of other tasks than the
        requested one, and those that no address can have.
    """

    variable: str
    list_path: str
    every_call: Callable[[str, str, str], list[Call[Any]]]
    starts: tuple[Call[Any], ...]
    refused: tuple[Call[Any], ...]
    ids: Mapping[str, str]


VERSIONS = {
    ApiVersion.V2: Version(
        "BROWSERACT_OPENAPI",
        "/v2/workflow/list-tasks",
        every_call_of_v2,
        (
            *(
                v2.run_task(workflow.id, input_parameters={"keyword": "pens"}, save_browser_data=True)
                for workflow in (SEARCH, EXPORT, DOWNLOAD)
            ),
            v2.run_task(FAILING.id, save_browser_data=True),
            v2.run_task(HUMAN.id, save_browser_data=True),
            v2.run_task(LOG_IN.id, input_parameters={"username": "ada", "password": "x"}, save_browser_data=True),
        ),
        (),
        {"id": "7"},
    ),
    ApiVersion.V3: Version(
        "BROWSERACT_OPENAPI_V3",
        "/v3/bots/runs",
        every_call_of_v3,
        (
            *(v3.create_run(workflow.id, {"keyword": "pens"}) for workflow in (SEARCH, EXPORT, DOWNLOAD)),
            v3.create_run(FAILING.id),
            v3.create_run(HUMAN.id),
            v3.create_run(AGENT_HUMAN.id),
            v3.create_run(CONTACTS.id, {"company_name": "Example", "max_pages": 2}),
            v3.create_run(PRICES.id, {"products": ["pens"], "country": "DE", "price": {"max": 2.5}, "coupon": None}),
            v3.create_template_run(TEMPLATE_SEARCH.id, {"keyword": "pens"}),
        ),
        (v3.create_run(CONTACTS.id), v3.create_run(PRICES.id, {"products": "pens"})),
        {"task_id": "7", "bot_id": "70", "template_id": "80"},
    ),
}


def through_the_proxy(version: ApiVersion, document: str) -> tuple[Clients, list[str]]:
    """Call the emulator through Prism, with runs in every state."""
    emulator = add(Emulator(concurrency=1000))
    emulator.set_workflow("*", duration=0.1)
    for paused in (HUMAN, AGENT_HUMAN):
        emulator.set_workflow(paused.id, pause_limit=None)
    # Each client starts a run of it at nearly the same moment.
    emulator.set_workflow(LOG_IN.id, one_at_a_time=False)
    tried, api = VERSIONS[version], APIS[version]
    with emulator.serve() as running, prism("proxy", document, running.url) as judge:
        clients = Clients(judge.url)
        judge.prove(tried.list_path)
        started = []
        for start in tried.starts:
            for created in clients.send(start):
                started.append(created.id)
                clients.send(api.get_task(created.id))
        settled = ("finished", "failed", "paused")
        emulator.wait_until(lambda: all(task.status in settled for task in emulator.tasks), timeout=60)
        for task_id in started:
            clients.send(api.get_task(task_id))
            clients.send(api.get_task_status(task_id))
        for task_id in started:
            for call in tried.every_call(SEARCH.id, TEMPLATE_SEARCH.id, task_id):
                clients.send(call)
        # What is refused, too.
        for call in (*tried.refused, *tried.every_call("1", "1", "1")):
            clients.send(call)
        violations = judge.prove(tried.list_path)
    # BrowserAct's own refusals have a code.
    clients.odd += [line for line in clients.refused.elements() if line.endswith("code None")]
    return clients, violations


def against_the_mock(version: ApiVersion, document: str, *options: str, rounds: int) -> tuple[Clients, list[str]]:
    """Call Prism itself."""
    tried = VERSIONS[version]
    with with_ids(document, tried.ids) as narrowed, prism("mock", narrowed, *options) as judge:
        clients = Clients(judge.url)
        judge.prove(tried.list_path)
        for _ in range(rounds):
            for call in tried.every_call("70", "80", "7"):
                clients.send(call)
        violations = judge.prove(tried.list_path)
    # The document allows no response that the client cannot read.
    clients.odd += clients.refused.elements()
    return clients, violations


@contextlib.contextmanager
def with_ids(document: str, ids: Mapping[str, str]) -> Iterator[str]:
    """Write a copy of a document in which each field with an id has the same one, and no file an empty address."""

    def narrow(part: Any) -> None:
        for name, each in part.items() if isinstance(part, dict) else ():
            if name in ids:
                part[name] = {"type": "string", "enum": [ids[name]]} if isinstance(each, dict) else ids[name]
            elif name == "download_url" and isinstance(each, dict):
                each["minLength"] = 1
            else:
                narrow(each)
        for each in part if isinstance(part, list) else ():
            narrow(each)

    narrowed = json.loads(Path(document).read_text())
    narrow(narrowed)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "openapi.json")
        copy.write_text(json.dumps(narrowed))
        yield str(copy)


def main() -> int:
    """Run the three rounds for each document, and print their outcomes."""
    documents = {version: os.environ.get(tried.variable) or "" for version, tried in VERSIONS.items()}
    documents = {version: document for version, document in documents.items() if document}
    if not documents or not all(map(os.path.isfile, documents.values())) or shutil.which("npx") is None:
        print(
            "Set BROWSERACT_OPENAPI to the vendor's openapi_v2.json, BROWSERACT_OPENAPI_V3 to its openapi_v3.json, or "
            "both, and install Node.js (npx).",
            file=sys.stderr,
        )
        return 2
    failed = False
    # A random response often has an item that cannot be read.
    logging.disable(logging.WARNING)
    print(f"{'Round':28} {'Requests':>8} {'Violations':>10} {'Other exceptions':>16}")
    for version, document in documents.items():
        rounds = {
            "client, Prism, emulator": partial(through_the_proxy, version, document),
            "client, mock (examples)": partial(against_the_mock, version, document, rounds=1),
            "client, mock (random)": partial(against_the_mock, version, document, "--dynamic", rounds=ROUNDS),
        }
        for name, judge in rounds.items():
            clients, violations = judge()
            figures = f"{clients.sent:8} {len(violations):10} {len(clients.odd):16}"
            print(f"{version}: {name:24} {figures}", flush=True)
            for line, count in collections.Counter((*violations, *clients.odd)).most_common(10):
                print(f"    {count} x {line}")
            for line, count in clients.refused.most_common():
                print(f"    refused {count} times: {line}")
            failed |= bool(violations or clients.odd)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
