"""What an emulator responds and records, and how it writes times. A time is a number of seconds since the epoch."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple


def utc(moment: float) -> datetime:
    """Return a time with its time zone, UTC."""
    return datetime.fromtimestamp(moment, timezone.utc)


def iso(moment: float) -> str:
    """Return a time as most fields of the API have it: UTC, whole seconds."""
    return f"{utc(int(moment)):%Y-%m-%dT%H:%M:%SZ}"


def milliseconds(moment: float) -> int:
    """Return a time as the other fields of the API have it."""
    return int(moment * 1000)


def envelope(code: int, message: str, now: float) -> dict[str, Any]:
    """Return the body of an error response."""
    trace = {"ts": milliseconds(now), "time": iso(now), "traceId": secrets.token_hex(16)}
    return {"code": code, "msg": message, "data": {}, **trace}


class Response(NamedTuple):
    """The response to a request."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = {}


@dataclass(kw_only=True)
class StartedTask:
    """What is known about a task from its start on.

    :param api_version: the version of the API that started it
    :param workflow_id: its workflow, bot or template
    :param inputs: the names and values exactly as they were sent. ``dict(inputs)`` is the ``input`` of a bot
    """

    id: str
    api_version: Literal["v2", "v3"]
    workflow_id: str
    from_template: bool
    inputs: list[tuple[str, Any]]
    proxy_region: str | None = None
    profile_id: str | None = None
    save_browser_data: bool = False
    callback_url: str | None = None
    status_change_callback_url: str | None = None


@dataclass(kw_only=True)
class TaskRecord(StartedTask):
    """Everything about a task at one moment.

    :param status: its true status, even if another word is reported
    :param history: each status, and when it began
    :param biz_code: the business code of the request that stopped it
    """

    status: str
    history: list[tuple[str, datetime]]
    created_at: datetime
    finished_at: datetime | None
    biz_code: int | None
    credit: int
    output: str | None


@dataclass(kw_only=True)
class RequestRecord:
    """A request that arrived.

    :param endpoint: the name of an endpoint as for faults, ``download-file``, or None for any other path
    :param status: the HTTP status of the response; None before the response, or if there is none
    :param fault: the kind of fault that applied to it
    :param with_key: whether it had an ``Authorization`` header (whose value is not recorded)
    """

    method: str
    path: str
    query: str
    endpoint: str | None
    status: int | None = None
    fault: str | None
    with_key: bool
    at: datetime


@dataclass(frozen=True)
class DeliveryRecord:
    """An attempt to deliver a callback.

    :param kind: ``callback_url`` or ``status_change_callback_url``
    :param attempt: 1 to 3; higher than 1 after a 5xx response
    :param status: the task's status in the payload
    :param http_status: the HTTP status of the receiver's response; None if there was no response or no request
    :param error: why there is no response
    :param fault: the kind of fault that applied to it
    """

    task_id: str
    url: str
    kind: str
    attempt: int
    status: str
    http_status: int | None
    error: str | None
    fault: str | None
    at: datetime
