"""What an emulator records for a test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True)
class TaskRecord:
    """Everything about a task at one moment.

    :param api_version: the version of the API that started it
    :param workflow_id: its workflow, bot or template
    :param inputs: the names and values exactly as they were sent. ``dict(inputs)`` is the ``input`` of a bot, unless
        ``converts_input`` has changed it
    :param status: its true status, even if another word is reported
    :param history: each status, and when it began
    :param ended_by: ``workflow`` if it ended by itself, ``stop-task`` if ``stop-task`` or ``cancel-run`` stopped it
    :param biz_code: the business code of that request
    """

    id: str
    api_version: Literal["v2", "v3"]
    workflow_id: str
    workflow_name: str
    from_template: bool
    proxy_region: str | None
    inputs: list[tuple[str, Any]]
    profile_id: str | None
    save_browser_data: bool
    callback_url: str | None
    status_change_callback_url: str | None
    status: str
    history: list[tuple[str, datetime]]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    ended_by: Literal["workflow", "stop-task"] | None
    biz_code: int | None
    credit: int
    output: str | None


@dataclass(frozen=True)
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
    status: int | None
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
