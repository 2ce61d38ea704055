"""The CPU time that one odd response takes in a triggerer or an API server, whose event loop it blocks for as long."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeAlias

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
TEXTS = ("bot_name", "profile_id", "workflow_id", "live_url", "log_detail_url", "created_at", "finished_at", "credit")


def responses() -> None:
    """The most CPU time that a response of 8 MB takes, of those that a page can cause and of those that it cannot."""
    for figure, shapes in ((BY_A_PAGE, _by_a_page), (BY_THE_API, _by_the_api)):
        found = [(_cpu(call, body), what) for api in (v2, v3) for what, call, body in shapes(api)]
        slowest, what = max(found)
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
    return statistics.median(taken)


def _full(part: bytes, separator: bytes = b",") -> bytes:
    """Return a part as often as it fits into a response."""
    return separator.join([part] * ((MAX_RESPONSE - 4096) // (len(part) + len(separator))))


def _list(part: bytes, number: int | None = None) -> bytes:
    """Return a list of a part: a number of times, or as often as it fits into a response."""
    return b"[%s]" % (_full(part) if number is None else b",".join([part] * number))


def _nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def _run(**fields: bytes) -> bytes:
    return b"{%s}" % b", ".join([RUN, *(b'"%s": %s' % (name.encode(), value) for name, value in fields.items())])


Shapes: TypeAlias = "Iterator[tuple[str, Call[Any], bytes]]"
"""What a response has, the call that it is for, and its body."""


def _by_a_page(api: Any) -> Shapes:
    texts = {
        "emoji and one half": _full(EMOJI, b"") + HALF,
        "halves": _full(HALF, b""),
        "escaped quotes": _full(rb"\"", b""),
    }
    values = {
        "[[],[],...]": _list(b"[]"),
        "[{},{},...]": _list(b"{}"),
        "names": b"{%s}" % _full(b'"name": 1'),
        "deep lists": _nested(1_000_000),
        "half an emoji in each item": _list(b'"%s"' % HALF),
        **{what: b'"%s"' % text for what, text in texts.items()},
    }
    for what, value in values.items():
        yield f"output: {what}", api.get_task("7"), _run(output=value)
    for what, text in {"emoji and a half": EMOJI * 3400 + HALF, "long text": b"x" * 40_000}.items():
        yield f"goals: {what}", api.get_task("7"), _run(steps=_list(b'{"step": 1, "step_goal": "%s"}' % text))
    output = b'{"string": "%s"}' % (EMOJI * 5000 + HALF)
    yield "list: half an emoji in each output", api.list_tasks(), b'{"items": %s}' % _list(_run(output=output))


def _by_the_api(api: Any) -> Shapes:
    one, many = api.get_task("7"), api.list_tasks()
    for value in (b"{}", b"null", b'{"step": 1, "step_goal": "Go"}'):
        yield f"many steps {value.decode()}", one, _run(steps=_list(value))
    for what, value in {"lists": _list(b"[]", 80_000), "deep lists": _nested(400)}.items():
        also = ("input_parameters", "task_failure_info", "live_url_info", "msg")
        yield f"each field: {what}", one, _run(**dict.fromkeys((*TEXTS, *also), value))
        items = _list(_run(**dict.fromkeys(TEXTS, value[:80_000])), 10)
        yield f"list: each field: {what}", many, b'{"items": %s}' % items
    for levels in (150, 5000):
        yield f"data in data, {levels} times", one, b'{"data": ' * levels + _run() + b"}" * levels
    inputs = b"{%s}" % b",".join(b'"%d": 1' % at for at in range(6000))
    yield "names of 60 kB", one, _run(input=inputs)
    yield "list: names of 60 kB", many, b'{"items": %s}' % _list(_run(input=inputs), 100)
    run = _run(steps=_list(b'{"step": 1}', 7000), download_files=_list(b"{}", 999))
    yield "list: steps and files", many, b'{"items": %s}' % _list(run, 80)
    schema = json.dumps({"properties": {str(at): {"type": "string"} for at in range(2000)}}).encode()
    pairs = _list(b'{"name": "x", "default_enabled": false}', 150)
    source = b'{"id": "7", "name": "x", "input_schema": %s, "input_parameters": %s}' % (schema, pairs)
    yield "sources: schema and inputs", api.list_sources(), b'{"items": %s}' % _list(source, 100)
    yield "source: large schema", api.get_source("7"), b'{"id": "7", "input_schema": %s}' % _list(b"[]")
