"""What an emulator responds and records, and how it writes times. A time is a number of seconds since the epoch."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple


def utc(moment: float) -> datetime:
    """Return a time with its time zone, UTC."""
    return datetime.fromtimestamp(moment, timezone.utc)


def iso(moment: datetime) -> str:
    """Return a time as most fields of the API have it: UTC, whole seconds."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def milliseconds(moment: float) -> int:
    """Return a time as the other fields of the API have it."""
    return int(moment * 1000)


def envelope(code: int, message: str, now: float) -> dict[str, Any]:
    """Return the body of an error response."""
    trace = {"ts": milliseconds(now), "time": iso(utc(now)), "traceId": secrets.token_hex(16)}
    return {"code": code, "msg": message, "data": {}, **trace}


class Response(NamedTuple):
    """The response to a request."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = {}


@dataclass
class RequestRecord:
    """A request that arrived.

    :param endpoint: the name of an endpoint as for faults, ``download-file``, or None for any other path
    :param fault: the kind of fault that applied to it
    :param with_key: whether it had an ``Authorization`` header (whose value is not recorded)
    :param status: the HTTP status of the response; None before the response, or if there is none
    """

    method: str
    path: str
    query: str
    endpoint: str | None
    fault: str | None
    with_key: bool
    at: datetime
    status: int | None = None


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
