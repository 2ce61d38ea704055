"""What the endpoints of both versions of the API share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from airflow_provider_browseract.emulator.browseract import BrowserAct
from airflow_provider_browseract.emulator.errors import NOT_PAUSED, TASK_ENDED, TASK_UNKNOWN, ApiError, parameter_error
from airflow_provider_browseract.emulator.parameters import Query, check_callback_url, read_object
from airflow_provider_browseract.emulator.run import Run

CALLBACKS = ("callback_url", "status_change_callback_url")

Body = dict[str, Any]
Version = Literal["v2", "v3"]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint of the API.

    :param name: the name for faults and records
    :param path: its path, in which ids are names such as ``{task_id}``
    :param respond: returns the value of the response's JSON body, or None for an empty body, given the parameters and
        the ids of the path
    :param parameters: the names of the query parameters; or the fields of the JSON body, and their types
    """

    name: str
    method: str
    path: str
    respond: Callable[[BrowserAct, Any], Any]
    parameters: tuple[str, ...] | Mapping[str, type]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What matches a path of the endpoint, with its ids as groups."""
        return re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path))

    def call(
        self,
        browseract: BrowserAct,
        *,
        ids: Mapping[str, str] | None = None,
        query: bytes = b"",
        body: bytes = b"",
        content_type: str = "",
    ) -> Any:
        """Process a request, and return what ``respond`` returns.

        :raises ApiError: if the response is the error envelope
        """
        with browseract.changed:
            browseract.catch_up()
            if isinstance(self.parameters, tuple):
                return self.respond(browseract, Query(query, self.parameters, ids or {}))
            Query(query, ())
            return self.respond(browseract, {**read_object(body, content_type, self.parameters), **(ids or {})})


def read_callbacks(browseract: BrowserAct, body: Body) -> dict[str, str | None]:
    """Return the callback URLs of a start."""
    for name in CALLBACKS:
        if name in body:
            check_callback_url(name, body[name], allow_private=browseract.allow_private_callbacks)
    return {name: body.get(name) for name in CALLBACKS}


def find_run(browseract: BrowserAct, query: Query, version: Version) -> Run:
    """Return the task of a request. Each version of the API knows only its own tasks, unless they are shared."""
    run = browseract.runs.get(query.required("task_id"))
    if run is None or not (browseract.shared_runs or run.api_version == version):
        raise ApiError(TASK_UNKNOWN)
    return run


def find_runs(browseract: BrowserAct, query: Query, version: Version, statuses: tuple[str, ...]) -> list[Run]:
    """Return the tasks that a version of the API lists with the filters that both versions have, oldest first."""
    status = query.text("status")
    if status is not None and status not in statuses:
        raise parameter_error(f"status must be one of {', '.join(statuses)}")
    earliest = query.moment("created_at_from")
    latest = query.moment("created_at_to")
    now = browseract.clock()
    return [
        run
        for run in browseract.runs.values()
        if run.is_listed(now)
        and (browseract.shared_runs or run.api_version == version)
        and status in (None, run.reported(now))
        and (earliest is None or earliest <= int(run.created))
        and (latest is None or int(run.created) <= latest)
    ]


def stop(browseract: BrowserAct, query: Query, version: Version) -> Run:
    """Stop an active task, and return it."""
    biz_code = query.integer("biz_code", -(2**31))
    run = find_run(browseract, query, version)
    if not run.ended:
        browseract.stop_run(run, biz_code)
    elif not browseract.stop_ended_is_ok:
        raise ApiError(TASK_ENDED)
    return run


def resume(browseract: BrowserAct, run: Run) -> None:
    """Resume a paused task."""
    if run.status == "paused":
        browseract.resume_run(run)
    elif not (run.status == "running" and browseract.resume_running_is_ok):
        raise ApiError(NOT_PAUSED)


def page_of(
    query: Query, found: list[Any], render: Callable[[Any], dict[str, Any]], *, default: int = 1, most: int = 500
) -> dict[str, Any]:
    """Return a page of a list.

    :param default: the number of items without a ``limit``. API v2 then returns one item
    :param most: the highest ``limit``
    """
    page = query.integer("page", 1) or 1
    limit = query.integer("limit", 1, most) or default
    return {
        "page": page,
        "limit": limit,
        "items": [render(one) for one in found[(page - 1) * limit : page * limit]],
        "total_pages": -(-len(found) // limit),
        "total_count": len(found),
    }
