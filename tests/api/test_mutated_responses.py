"""Responses that are changed at random: a failure never counts as a success, and a result has the status and the ids of
the response. ``make random`` tries many more.
"""

import codecs
import copy
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import CreatedTask, ListedTask, Page, Task, TaskState, TaskStatus
from airflow_provider_browseract.emulator import CONTACTS, EXPORT, HUMAN, TEMPLATE_SEARCH, Emulator
from airflow_provider_browseract.emulator.account import ENDPOINTS
from airflow_provider_browseract.emulator.records import envelope
from airflow_provider_browseract.exceptions import BrowserActError
from tests.helpers.cases import cases, examples
from tests.helpers.catalogue import DOWNLOAD, FAILING, add

STATUSES_OF_RUNS = [status.value for status in TaskStatus]

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 1.5, 1e308, 10**30, 10118, 10112, 401]),
    st.sampled_from(["", " ", "x", "0", "3", "finished", "queued", "24:00", "2026-13-01T00:00:00Z", "null", "\ud800"]),
    st.sampled_from(["9" * 5000, "\u0000", "2026-01-01", "https://[", "<html>", "..", "a/b", "failed", "created"]),
    # Copies, since the next change may be one of them.
    st.sampled_from([[], {}, [None], [[]], {"id": "5"}, {"code": 0}, {"code": 10112}, {"data": {}}]).map(copy.deepcopy),
    st.sampled_from(["\u0001160", "\u000120000"]),
)
"""What can stand in the place of any part of a response. After U+0001 it is the depth of lists in each other."""


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def write(value: Any) -> bytes:
    """Write JSON with lists that are too deep for Python."""
    return re.sub(r'"\\u0001(\d+)"(?!:)', lambda depth: deep(int(depth[1])), json.dumps(value)).encode()


ODD_BODIES = st.sampled_from(
    [
        *(b"", b" ", b"null", b"true", b"5", b'"Unauthorized"', b"[]", b"{}", b"[5]", b"NaN", b'{"id": NaN}'),
        *(b'{"id": "5", "id": "6"}', b'{"code": 10112}', b'{"success": false}', b'{"code": 1e400}'),
        *(b'{"status": 404, "error": "Not Found"}', b'{"code": ' + b"9" * 5000 + b"}"),
        *(b'{"code": "' + b"9" * 5000 + b'", "msg": "x"}', deep(50).encode(), deep(20_000).encode()),
        *(b"<!DOCTYPE html><html><body>Sign in</body></html>", b"\xff\xfe\x00", b"\xef\xbb\xbf"),
        codecs.BOM_UTF16 + '{"id": "5"}'.encode("utf-16-le"),
    ]
)
STATUSES = st.sampled_from(
    [200] * 12 + [201, 206, 301, 302, 303, 307, 308, 400, 401, 403, 404, 408, 409, 418, 422, 429, 500, 502, 503, 599]
)
RETRY_AFTER = [
    *("0", "-3", "nan", "1e400", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "Mon, 01 Jan 2024 00:00:00 -9" + "9" * 20)
]
HEADERS = st.dictionaries(st.just("retry-after"), st.sampled_from(RETRY_AFTER))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
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
            refused = {**value, "code": 10112} if isinstance(value, dict) else value
            value = draw(st.sampled_from([{"code": 0, "msg": "success", "data": value}, refused]) | ANYTHING)
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
    if how == "cut":
        return body[: draw(st.integers(0, len(body)))]
    return {"BOM": codecs.BOM_UTF8 + body, "twice": body * 2}.get(how, body)


def content(body: bytes) -> Any:
    """Return the JSON of a successful response, without the envelope that it may have."""
    value: Any = json.loads(body) if body.strip() else None
    return value["data"] if is_envelope(value) and "data" in value else value


def is_envelope(value: Any) -> bool:
    return isinstance(value, dict) and value.get("code") in (0, "0")


def is_about(value: Any, task_id: str) -> bool:
    return isinstance(value, dict) and str(value.get("task_id", value.get("id"))) == task_id


class Sent(NamedTuple):
    """A call, the run that it is about, and the valid response."""

    call: Call[Any]
    task_id: str
    good: Any

    def is_failure(self, status: int, body: bytes) -> bool:
        """Return whether a response certainly reports no success, without using any code of the client."""
        if not 200 <= status < 300:
            return True
        try:
            value = json.loads(body) if body.strip() else None
        except (ValueError, RecursionError):
            return True
        if isinstance(value, dict) and isinstance(value.get("code"), int) and value["code"] not in (0, False):
            return True
        says_nothing = value in (None, {}) or is_envelope(value)
        match self.call.name:
            case "stop-task" | "resume-task":
                return not says_nothing
            case "resume-run" | "cancel-run" if says_nothing:
                return False
            case "get-task" | "query-run" | "query-run-status" | "resume-run" | "cancel-run":
                run = content(body)
                return not is_about(run, self.task_id) or run.get("status") not in STATUSES_OF_RUNS
            case "get-region-list" | "list-regions":
                return not isinstance(value, dict | list)
        return not isinstance(value, dict)


def is_in(result: Any, value: Any) -> bool:
    """Return whether a response has the status and the ids of a result, without using any code of the client."""
    if isinstance(result, Page):
        return all(any(is_in(item, each) for each in value["items"]) for item in result.items)
    if isinstance(result, TaskState):
        return bool(value["status"] == result.status.value)
    if isinstance(result, Task):
        is_odd = isinstance(result, ListedTask) and result.status is TaskStatus.UNKNOWN
        return is_about(value, result.id) and (is_odd or value["status"] == result.status.value)
    if isinstance(result, CreatedTask):
        return result.id in (str(value.get("task_id")), str(value.get("id")))
    return True


def every_call() -> dict[str, Sent]:
    """Send each call to an emulator, which returns everything that a response can contain."""
    now = 1_780_000_000.0
    emulator = add(Emulator(concurrency=20, clock=lambda: now))
    sent: dict[str, Sent] = {}

    def send(call: Call[Any], task_id: str = "") -> str:
        headers = {"authorization": "Bearer app-emulator", "content-type": "application/json"}
        body = b"" if call.body is None else json.dumps(call.body).encode()
        record, _, response = emulator.receive(call.method, call.path, urlencode(call.params), headers, body)
        assert record.endpoint == call.name
        assert response is not None
        assert response.status == 200, response.body
        sent[call.name] = Sent(call, task_id, json.loads(response.body or b"null"))
        return str(call.read(200, response.body, {}).id) if call.starts_run else task_id

    pens = {"keyword": "pens"}
    send(v2.run(FAILING.id))
    send(v2.run(EXPORT.id, pens))
    paused = send(v2.run(HUMAN.id))
    task = send(v2.run(DOWNLOAD.id, pens, save_browser_data=True))
    send(v2.run_template(TEMPLATE_SEARCH.id, pens))
    send(v3.run(FAILING.id))
    send(v3.run(CONTACTS.id, {"company_name": "Example"}))
    canceled = send(v3.run(CONTACTS.id, {"company_name": "Example"}))
    run = send(v3.run(DOWNLOAD.id, pens))
    send(v3.run_template(TEMPLATE_SEARCH.id, pens))
    send(v2.stop_task(send(v2.run(EXPORT.id, pens))))
    send(v3.stop_task(canceled), canceled)
    now += 10
    send(v2.resume_task(paused))
    for call in (v2.get_task(task), v2.get_task_status(task), v3.get_task(run), v3.get_task_status(run)):
        send(call, run if call.path.startswith("/v3") else task)
    sent["resume-run"] = Sent(v3.resume_task(run), run, {**sent["query-run-status"].good, "status": "running"})
    others: tuple[Call[Any], ...] = (
        *(v2.list_tasks(limit=9), v2.list_sources(limit=3), v2.list_templates(limit=2)),
        *(v2.get_source(EXPORT.id), v2.get_template(TEMPLATE_SEARCH.id), v2.list_regions()),
        *(v3.list_tasks(), v3.list_sources(limit=3), v3.list_templates(), v3.list_regions()),
        *(v3.get_source(CONTACTS.id), v3.get_template(TEMPLATE_SEARCH.id)),
    )
    for other in others:
        send(other)
    return sent


EVERY_CALL = every_call()
ENVELOPE = envelope(10112, "Task is not exist.", 1_780_000_000.0)


@cases("sent", EVERY_CALL)
def test_changed_response_is_never_a_success_that_it_does_not_report(sent: Sent) -> None:
    good = mutated(sent.good)

    @settings(max_examples=examples(75), deadline=None, database=None)
    @given(STATUSES, HEADERS, st.one_of(good, good, mutated(ENVELOPE), ODD_BODIES), st.booleans())
    def received(status: int, headers: dict[str, str], body: bytes, shared: bool) -> None:
        try:
            result = sent.call.read(status, body, headers, shared=shared)
        except BrowserActError:
            return
        assert not sent.is_failure(status, body), f"{result!r} for a failure"
        assert is_in(result, content(body)), f"{result!r} is not in the response"

    received()


@cases("sent", EVERY_CALL)
def test_valid_response_is_read(sent: Sent) -> None:
    body = b"" if sent.good is None else json.dumps(sent.good).encode()
    for shared in (False, True):
        assert is_in(sent.call.read(200, body, {}, shared=shared), sent.good)
    assert not sent.is_failure(200, body)


def test_every_call_of_both_versions_is_tried():
    assert EVERY_CALL.keys() == ENDPOINTS.keys()
