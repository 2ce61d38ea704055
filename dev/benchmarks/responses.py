"""The CPU time that one odd response takes in a triggerer or an API server, whose event loop it blocks for as long."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.async_client import MAX_RESPONSE
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.exceptions import BrowserActError
from dev.benchmarks.figures import Figure

ROUNDS = 5
BY_A_PAGE = Figure("processor time of an odd response of 8 MB that a web page can cause", 100, "ms")
BY_THE_API = Figure("the same, if only BrowserAct can cause it", 300, "ms")

RUN = b'"task_id": "7", "status": "running"'
EMOJI, HALF = rb"\ud83d\ude00", rb"\ud83d"
GET: dict[str, Call[Any]] = {"v2": v2.get_task("7"), "v3": v3.get_task("7")}
LISTS: dict[str, Call[Any]] = {"v2": v2.list_tasks(), "v3": v3.list_tasks()}
SOURCES: dict[str, Call[Any]] = {"v2": v2.get_source("7"), "v3": v3.get_source("7")}
SOURCE_LISTS: dict[str, Call[Any]] = {"v2": v2.list_sources(), "v3": v3.list_sources()}


def responses() -> None:
    """The most CPU time that a response of 8 MB takes, of those that a page can cause and of those that it cannot."""
    for figure, shapes in ((BY_A_PAGE, _by_a_page()), (BY_THE_API, _by_the_api())):
        found = sorted(((_cpu(call, body), what) for what, call, body in shapes), reverse=True)
        slowest, what = found[0]
        figure.report(slowest, f"{what}, the slowest of {len(found)}")


def _cpu(call: Call[Any], body: bytes) -> float:
    """Return the median of the milliseconds that one read of a response takes."""
    taken = []
    for _ in range(ROUNDS):
        gc.collect()
        began = time.process_time()
        with suppress(BrowserActError):
            call.read(200, body, {}, shared=True)
        taken.append((time.process_time() - began) * 1000)
    return sorted(taken)[ROUNDS // 2]


def _full(part: bytes, separator: bytes = b",") -> bytes:
    """Return a part as often as it fits into a response."""
    return separator.join([part] * ((MAX_RESPONSE - 4096) // (len(part) + len(separator))))


def _nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def _members(**fields: bytes) -> bytes:
    return b", ".join(b'"%s": %s' % (name.encode(), value) for name, value in fields.items())


def _by_a_page() -> Iterator[tuple[str, Call[Any], bytes]]:
    texts = {
        "emoji and one half": _full(EMOJI, b"") + HALF,
        "halves": _full(HALF, b""),
        "escaped quotes": _full(rb"\"", b""),
        "text": _full(b"x", b""),
    }
    values = {
        "[[],[],...]": b"[%s]" % _full(b"[]"),
        "[{},{},...]": b"[%s]" % _full(b"{}"),
        "numbers": b"[%s]" % _full(b"1"),
        "names": b"{%s}" % _full(b'"name": 1'),
        "deep lists": _nested(1_000_000),
        "half an emoji in each item": b"[%s]" % _full(b'"%s"' % HALF),
        **{what: b'"%s"' % text for what, text in texts.items()},
    }
    goal = {"emoji and a half in each goal": EMOJI * 3400 + HALF, "long goals": b"x" * 40_000}
    for version, call in GET.items():
        for what, value in values.items():
            yield f"output: {what} ({version})", call, b"{%s, %s}" % (RUN, _members(output=value))
        for what, text in goal.items():
            steps = b"[%s]" % _full(b'{"step": 1, "step_goal": "%s"}' % text)
            yield f"steps: {what} ({version})", call, b"{%s, %s}" % (RUN, _members(steps=steps))
        output = b'{"string": "%s"}' % (EMOJI * 5000 + HALF)
        items = _full(b"{%s, %s}" % (RUN, _members(output=output)))
        yield f"list: half an emoji in each output ({version})", LISTS[version], b'{"items": [%s]}' % items


def _by_the_api() -> Iterator[tuple[str, Call[Any], bytes]]:
    texts = (
        "bot_name",
        "profile_id",
        "workflow_id",
        "live_url",
        "log_detail_url",
        "created_at",
        "finished_at",
        "credit",
    )
    for version, call in GET.items():
        for what, value in {"{}": b"{}", "null": b"null", "a step": b'{"step": 1, "step_goal": "Go"}'}.items():
            yield f"steps: many {what} ({version})", call, b"{%s, %s}" % (RUN, _members(steps=b"[%s]" % _full(value)))
        lists = b"[%s]" % b",".join([b"[]"] * 80_000)
        for what, value in {"lists": lists, "deep lists": _nested(400)}.items():
            fields = dict.fromkeys((*texts, "input_parameters", "task_failure_info", "live_url_info", "msg"), value)
            yield f"each field: {what} ({version})", call, b"{%s, %s}" % (RUN, _members(**fields))
            items = b",".join([b"{%s, %s}" % (RUN, _members(**dict.fromkeys(texts, value[:80_000])))] * 10)
            yield f"list: each field: {what} ({version})", LISTS[version], b'{"items": [%s]}' % items
        for levels in (150, 5000):
            yield (
                f"data in data, {levels} times ({version})",
                call,
                b'{"data": ' * levels + b"{%s}" % RUN + b"}" * levels,
            )
        inputs = b"{%s}" % b",".join(b'"%d": 1' % at for at in range(6000))
        items = b",".join([b"{%s, %s}" % (RUN, _members(input=inputs))] * 100)
        yield f"list: names of 60 kB ({version})", LISTS[version], b'{"items": [%s]}' % items
        yield f"names of 60 kB ({version})", call, b"{%s, %s}" % (RUN, _members(input=inputs))
        steps = b"[%s]" % b",".join([b'{"step": 1}'] * 7000)
        items = b",".join(
            [b"{%s, %s}" % (RUN, _members(steps=steps, download_files=b"[%s]" % b",".join([b"{}"] * 999)))] * 80
        )
        yield f"list: steps and files ({version})", LISTS[version], b'{"items": [%s]}' % items
        schema = json.dumps({"properties": {str(at): {"type": "string"} for at in range(2000)}}).encode()
        pairs = b"[%s]" % b",".join([b'{"name": "x", "default_enabled": false}'] * 150)
        source = b'{"id": "7", "name": "x", %s}' % _members(input_schema=schema, input_parameters=pairs)
        yield (
            f"sources: schema and inputs ({version})",
            SOURCE_LISTS[version],
            b'{"items": [%s]}' % b",".join([source] * 100),
        )
        large = b'{"id": "7", %s}' % _members(input_schema=b"[%s]" % _full(b"[]"))
        yield f"source: large schema ({version})", SOURCES[version], large
