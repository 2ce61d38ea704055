"""Both clients with responses that are changed at random, over real sockets.

Whatever a response contains, both clients have the same outcome: a result or an error of this package. A failure never
counts as a success, and a result has the status and the ids of the response. ``make random`` tries many more.
"""

from __future__ import annotations

import codecs
import copy
import gzip
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import CreatedTask, Page, Task, TaskStatus
from airflow_provider_browseract.api.retries import RetryPolicy
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.emulator import CONTACTS, EXPORT, TEMPLATE_SEARCH, Emulator
from airflow_provider_browseract.emulator.account import ENDPOINTS
from airflow_provider_browseract.emulator.records import envelope
from tests.cases import examples
from tests.catalogue import DOWNLOAD, FAILING, add

from . import test_v2, test_v3
from .conftest import Async, Listen, OneAnswer, Sync

EVERY_CALL = {**test_v2.EVERY_CALL, **test_v3.EVERY_CALL}

SAYS_NOTHING = ("stop-task", "resume-task")
"""The endpoints whose success has no content."""

RUN_STATUSES = [status.value for status in TaskStatus]

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 1.5, 1e308, 10**30, 10118, 10112, 401]),
    st.sampled_from(["", " ", "x", "0", "3", "finished", "queued", "24:00", "2026-13-01T00:00:00Z", "null", "\ud800"]),
    st.sampled_from(["9" * 5000, "\u0000", "2026-01-01", "https://[", "<html>", "..", "a/b", "failed", "created"]),
    # Copies, since the next mutation may change them.
    st.sampled_from([[], {}, [None], [[]], {"id": "5"}, {"code": 0}, {"code": 10112}, {"data": {}}]).map(copy.deepcopy),
    st.sampled_from(["\u0001160", "\u000120000"]),
)
"""What can stand in the place of any part of an answer. After U+0001 it is the depth of lists in each other."""


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def write(value: Any) -> bytes:
    """Write JSON with lists that are too deep for Python."""
    return re.sub(r'"\\u0001(\d+)"(?!:)', lambda depth: deep(int(depth[1])), json.dumps(value)).encode()


ODD_BODIES = st.sampled_from(
    [
        *(b"", b" ", b"null", b"true", b"5", b'"Unauthorized"', b"[]", b"{}", b"[5]", b"NaN", b'{"id": NaN}'),
        *(b'{"id": "5", "id": "6"}', b'{"code": 10112}', b'{"success": false}', b'{"code": 1e400}'),
        b'{"status": 404, "error": "Not Found"}',
        b'{"code": ' + b"9" * 5000 + b"}",
        b'{"code": "' + b"9" * 5000 + b'", "msg": "x"}',
        deep(50).encode(),
        deep(20_000).encode(),
        b"<!DOCTYPE html><html><body>Sign in</body></html>",
        b"\xff\xfe\x00",
        b"\xef\xbb\xbf",
        codecs.BOM_UTF16 + '{"id": "5"}'.encode("utf-16-le"),
    ]
)
STATUSES = st.sampled_from(
    [200] * 12
    + [201, 204, 206, 301, 302, 303, 307, 308, 400, 401, 403, 404, 408, 409, 418, 422, 429, 500, 502, 503, 599]
)
HEADERS = st.dictionaries(
    st.sampled_from(["Location", "Retry-After", "Content-Type", "Content-Encoding", "X-Trace"]),
    st.sampled_from(
        [
            *("", "0", "-3", "nan", "inf", "1e400", "999999999999", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"),
            *("Mon, 01 Jan 2024 00:00:00 -99999999999999999999", "http://[", "/login", "https://example.com/"),
            *("\xff\xfe", "text/html", "application/json; charset=utf-16", "application/json; charset=none"),
            *("gzip", "br", "deflate"),
        ]
    ),
    max_size=2,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each part of a JSON value."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


@st.composite
def mutated(draw: st.DrawFn, good: Any) -> bytes:
    """Draw the body of a response: the valid one with a part removed or replaced, or wrapped, cut or malformed."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(0, 2))):
        every = list(places(value))
        # The essential parts are at the top, and most of the others are not.
        path = draw(st.sampled_from(draw(st.sampled_from([every, [path for path in every if len(path) < 2]]))))
        if not path:
            value = draw(st.one_of(st.just({"code": 0, "msg": "success", "data": value}), ANYTHING))
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        if draw(st.booleans()):
            del parent[path[-1]]
        else:
            parent[path[-1]] = draw(ANYTHING)
    body = write(value)
    how = draw(st.sampled_from(["plain"] * 6 + ["BOM", "cut", "twice"]))
    if how == "BOM":
        return codecs.BOM_UTF8 + body
    if how == "cut":
        return body[: draw(st.integers(0, len(body)))]
    return body * 2 if how == "twice" else body


def outcomes(server: OneAnswer, call: Call[Any]) -> list[object]:
    """Return what each client comes to: its result, or its error. Other exceptions leave."""
    found: list[object] = []
    for kind in (Sync, Async):
        try:
            found.append(kind(ClientSettings("app-key", server.url, retries=RetryPolicy(budget=0.0))).send(call))
        except BrowserActError as error:
            found.append(error)
    return found


def as_text(outcome: object) -> str:
    """Write an outcome so that those of both clients can be compared."""
    if isinstance(outcome, BrowserActError):
        return f"{type(outcome).__name__} {outcome.code} {outcome.http_status} {outcome.retry_after}"
    return repr(outcome)


def content(status: int, body: bytes) -> Any:
    """Return the JSON of a successful response, without the envelope that it may have."""
    value: Any = json.loads(body) if body.strip() and status != 204 else None
    return value["data"] if is_envelope(value) and "data" in value else value


def is_failure(endpoint: str, status: int, body: bytes) -> bool:
    """Return whether a response certainly reports no success, without using any code of the client."""
    if not 200 <= status < 300:
        return True
    if status == 204:
        # It has no body, whatever follows it.
        body = b""
    try:
        value = json.loads(body) if body.strip() else None
    except (ValueError, RecursionError):
        return body.strip() != b""
    if isinstance(value, dict) and isinstance(value.get("code"), int) and value["code"] not in (0, False):
        return True
    of_task, nothing = content(status, body), value in (None, {}) or is_envelope(value)
    if endpoint in ("get-task", "query-run", "query-run-status"):
        return not is_about(of_task, "7") or of_task.get("status") not in RUN_STATUSES
    if endpoint in ("resume-run", "cancel-run"):
        return not nothing and (not is_about(of_task, "7") or of_task.get("status") not in RUN_STATUSES)
    if endpoint in SAYS_NOTHING:
        return not nothing
    return not isinstance(value, dict if endpoint not in ("get-region-list", "list-regions") else dict | list)


def is_envelope(value: Any) -> bool:
    return isinstance(value, dict) and value.get("code") in (0, "0")


def is_about(value: Any, task_id: str) -> bool:
    return isinstance(value, dict) and str(value.get("task_id", value.get("id"))) == task_id


def is_in(result: Any, value: Any) -> bool:
    """Return whether a response has the status and the ids of a result, without using any code of the client."""
    if isinstance(result, Page):
        return all(any(is_in(item, each) for each in value["items"]) for item in result.items)
    if isinstance(result, TaskStatus):
        return bool(value["status"] == result.value)
    if isinstance(result, Task):
        return is_about(value, result.id) and value["status"] == result.status.value
    if isinstance(result, CreatedTask):
        return result.id in (str(value.get("task_id")), str(value.get("id")))
    return True


def good_responses() -> dict[str, Any]:
    """Return a valid response of each endpoint from the emulator, with everything that it can contain."""
    now = 1_780_000_000.0
    emulator = add(Emulator(concurrency=9, clock=lambda: now))

    def call(endpoint: str, **given: Any) -> Any:
        called = ENDPOINTS[endpoint]
        path = called.path.format(**{name: given.pop(name) for name in re.findall(r"{(\w+)}", called.path)})
        headers = {"authorization": "Bearer app-emulator", "content-type": "application/json"}
        starts = endpoint.startswith(("run-task", "create-"))
        query, body = ("", json.dumps(given)) if starts else (urlencode(given), "")
        response = emulator.handle(called.method, path, query, headers, body.encode())
        assert response.status == 200, response.body
        return json.loads(response.body)

    inputs = [{"name": "keyword", "value": "pens"}]
    created = call("run-task", workflow_id=DOWNLOAD.id, input_parameters=inputs, save_browser_data=True)
    call("run-task", workflow_id=EXPORT.id, input_parameters=inputs)
    call("run-task", workflow_id=FAILING.id)
    template = call("run-task-by-template", workflow_template_id=TEMPLATE_SEARCH.id, input_parameters=inputs)
    run = call("create-run", bot_id=CONTACTS.id, input={"company_name": "Example"})
    downloads = call("create-run", bot_id=DOWNLOAD.id, input={"keyword": "pens"})
    call("create-run", bot_id=FAILING.id, input={})
    template_run = call("create-template-run", template_id=TEMPLATE_SEARCH.id, input={"keyword": "pens"})
    now += 10
    # The client compares the id in a response with the requested one.
    status = {**call("query-run-status", task_id=run["task_id"]), "task_id": "7"}
    files = call("query-run", task_id=downloads["task_id"])["download_files"]
    return {
        "run-task": created,
        "run-task-by-template": template,
        "get-task-status": call("get-task-status", task_id=created["id"]),
        "get-task": {**call("get-task", task_id=created["id"]), "id": "7"},
        "stop-task": None,
        "resume-task": None,
        "create-run": run,
        "create-template-run": template_run,
        "query-run-status": status,
        "query-run": {**call("query-run", task_id=run["task_id"]), "task_id": "7", "download_files": files},
        "resume-run": {**status, "status": "paused"},
        "cancel-run": {**status, "status": "canceled"},
        "get-workflow": call("get-workflow", workflow_id=EXPORT.id),
        "get-official-workflow-template": call(
            "get-official-workflow-template", workflow_template_id=TEMPLATE_SEARCH.id
        ),
        "query-bot": call("query-bot", bot_id=CONTACTS.id),
        "query-template": call("query-template", template_id=TEMPLATE_SEARCH.id),
        "list-tasks": call("list-tasks", limit=9),
        **{each: call(each, limit=3) for each in ("list-workflows", "page-bots")},
        "list-official-workflow-templates": call("list-official-workflow-templates", limit=2),
        **{each: call(each) for each in ("get-region-list", "page-runs", "page-templates", "list-regions")},
    }


GOOD = good_responses()
ENVELOPE = envelope(10112, "Task is not exist.", 1_780_000_000.0)


@pytest.fixture(scope="module")
def scripted(listen: Listen) -> OneAnswer:
    return OneAnswer(listen)


@pytest.mark.parametrize("endpoint", sorted(GOOD))
def test_clients_agree_on_mutated_responses_and_report_no_failure_as_a_success(
    endpoint: str, scripted: OneAnswer
) -> None:
    good = mutated(GOOD[endpoint])

    @settings(max_examples=examples(50), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(
        status=STATUSES,
        headers=HEADERS,
        body=st.one_of(good, good, mutated(ENVELOPE), ODD_BODIES),
        compressed=st.sampled_from([False] * 8 + [True]),
    )
    def answered_with(status: int, headers: dict[str, str], body: bytes, compressed: bool) -> None:
        sent = gzip.compress(body) if compressed else body
        if compressed:
            headers = {**headers, "Content-Encoding": "gzip"}
        lines = [f"HTTP/1.1 {status} Whatever", "Connection: close", f"Content-Length: {len(sent)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        scripted.answer = "\r\n".join((*lines, "", "")).encode("latin-1") + sent
        first, second = outcomes(scripted, EVERY_CALL[endpoint])
        assert as_text(first) == as_text(second)
        # A body that is not compressed as the headers say cannot be judged here.
        if headers.get("Content-Encoding", "") != ("gzip" if compressed else ""):
            return
        if is_failure(endpoint, status, body):
            assert isinstance(first, BrowserActError), f"{first!r} for a failure"
        elif not isinstance(first, BrowserActError):
            assert is_in(first, content(status, body)), f"{first!r} is not in the response"

    answered_with()


@pytest.mark.parametrize("endpoint", sorted(GOOD))
def test_clients_read_the_valid_response(endpoint: str, scripted: OneAnswer) -> None:
    body = b"" if GOOD[endpoint] is None else json.dumps(GOOD[endpoint]).encode()
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    scripted.answer = head.encode() + body
    first, second = outcomes(scripted, EVERY_CALL[endpoint])
    assert not isinstance(first, BrowserActError)
    assert first == second
    assert not is_failure(endpoint, 200, body)
