"""What the endpoints of both versions of the API share: how a request is read, and how a run is found and described."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

import pydantic
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field
from pydantic_core import from_json

from airflow_provider_browseract.emulator.account import Account
from airflow_provider_browseract.emulator.errors import ApiError, Code, parameter_error
from airflow_provider_browseract.emulator.records import iso, milliseconds
from airflow_provider_browseract.emulator.runs import Run, StoredFile
from airflow_provider_browseract.emulator.workflow import EmulatedWorkflow, explained


def _like(pattern: str, meaning: str) -> BeforeValidator:
    """Return a check of a text that pydantic then reads, because it would also read other texts."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"must be {meaning}")
        return text

    return BeforeValidator(check)


def _is_an_address(url: str) -> str:
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not (url.isascii() and url.isprintable())
        or " " in url
    ):
        raise ValueError("must be an HTTP or HTTPS URL")
    return url


Id = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, _like(r"-?\d{1,10}", "a whole number"), Field(ge=-(2**31), lt=2**31)]
PageNumber = Annotated[Whole, Field(ge=1)]
Limit = Annotated[Whole, Field(ge=1, le=500)]
LimitOfV3 = Annotated[Whole, Field(ge=1, le=100)]
_DATE_TIME = r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)"
Moment = Annotated[AwareDatetime, _like(_DATE_TIME, "a date-time such as 2026-01-31T12:00:00Z")]
Keyword = Annotated[str, Field(max_length=200)]
CallbackUrl = Annotated[str, Field(max_length=2048), AfterValidator(_is_an_address)]
Callbacks = dict[str, str | None]
CALLBACKS = ("callback_url", "status_change_callback_url")
Status = Literal["created", "running", "finished", "canceled", "pausing", "paused", "failed"]
StatusOfV2 = Literal["created", "running", "finished", "canceled", "pausing", "paused", "failed", "unknown"]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint of the API.

    :param name: the name for faults and records
    :param path: its path, in which ids are names such as ``{task_id}``
    :param respond: returns the value of the response's JSON body, or None for an empty body, given the account and what
        is in the path and in the query or the JSON body of a request
    :param parameters: a model of the parameters of ``respond``. A start has ``callbacks`` for its callback URLs
    """

    name: str
    method: str
    path: str
    respond: Callable[..., Any]
    parameters: type[BaseModel]

    @property
    def version(self) -> str:
        """The version of the API, ``v2`` or ``v3``."""
        return self.path[1:3]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path))

    def ids(self, path: str) -> dict[str, str] | None:
        """Return the ids in a path, or None if it is the path of another endpoint."""
        found = self._pattern.fullmatch(path)
        return None if found is None else found.groupdict()

    def call(self, account: Account, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Any:
        """Read a request strictly, and respond. What cannot be understood raises an ``ApiError`` and is not ignored."""
        ids, is_start = self.ids(path) or {}, "callback_url" in self.parameters.model_fields
        pairs: list[tuple[str, Any]] = []
        try:
            pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
            if is_start:
                content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
                if pairs or content_type != "application/json":
                    raise parameter_error("a start has a body of the Content-Type application/json and no query")
                pairs = [*from_json(body, allow_inf_nan=False).items()]
            given = dict([*pairs, *ids.items()])
            if len(given) < len(pairs) + len(ids):
                raise parameter_error("a parameter is given twice")
            validate = self.parameters.model_validate if is_start else self.parameters.model_validate_strings
            read = validate(given, strict=is_start)
        except pydantic.ValidationError as invalid:
            raise parameter_error(explained(invalid)) from None
        except (ValueError, AttributeError, RecursionError):
            raise parameter_error("the query or the body cannot be read") from None
        values: dict[str, Any] = dict(read)
        if is_start:
            values["callbacks"] = {name: values.pop(name) for name in CALLBACKS}
        return self.respond(account, **values)


def endpoint(endpoints: dict[str, Endpoint], method: str, path: str, name: str = "") -> Callable[..., Any]:
    """Return a decorator that adds an endpoint, whose parameters are those of the decorated function.

    :param path: the path, in which ``{name}`` is the endpoint's name
    :param name: BrowserAct's name. Default: the name of the function, with hyphens
    """

    def add(respond: Callable[..., Any]) -> Callable[..., Any]:
        _, *parameters = inspect.signature(respond, eval_str=True).parameters.values()
        fields: dict[str, Any] = {
            each.name: (each.annotation, ... if each.default is each.empty else each.default) for each in parameters
        }
        if fields.pop("callbacks", None):
            fields |= dict.fromkeys(CALLBACKS, (CallbackUrl, None))
        model = pydantic.create_model(respond.__name__, __config__=pydantic.ConfigDict(extra="forbid"), **fields)
        called = name or respond.__name__.replace("_", "-")
        endpoints[called] = Endpoint(called, method, path.replace("{name}", called), respond, model)
        return respond

    return add


def find(account: Account, wanted: str, unknown: Code, *kinds: str) -> EmulatedWorkflow:
    """Return a workflow of some kinds."""
    if wanted not in (known := account.of_kind(*kinds)):
        raise ApiError(unknown)
    return known[wanted]


def find_run(account: Account, task_id: str, version: str) -> Run:
    """Return the task of a request. Each version of the API knows only its own tasks, unless they are shared."""
    run = account.runs.get(task_id)
    if run is None or not (account.shared_runs or run.api_version == version):
        raise ApiError(Code.TASK_UNKNOWN)
    return run


def find_runs(
    account: Account, version: str, status: str | None, earliest: datetime | None, latest: datetime | None
) -> list[Run]:
    """Return the tasks that a version of the API lists with the filters that both versions have, oldest first."""
    now = account.clock()
    return [
        run
        for run in account.runs.values()
        if run.is_listed(now)
        and (account.shared_runs or run.api_version == version)
        and status in (None, run.reported(now))
        and (earliest is None or earliest.timestamp() <= int(run.created))
        and (latest is None or int(run.created) <= latest.timestamp())
    ]


def stop(account: Account, run: Run, biz_code: int | None) -> None:
    """Stop an active task."""
    now = account.clock()
    if run.finished(now) is not None:
        raise ApiError(Code.TASK_ENDED)
    run.stop(now, biz_code)
    account.changed.notify_all()
    account.catch_up()


def resume(account: Account, run: Run) -> None:
    """Resume a paused task."""
    now = account.clock()
    if run.status(now) != "paused":
        raise ApiError(Code.NOT_PAUSED)
    run.resume(now)
    account.changed.notify_all()
    account.catch_up()


def page_of(found: Iterable[Any], page: int, limit: int, render: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a page of a list."""
    listed = list(found)
    return {
        "page": page,
        "limit": limit,
        "items": [render(one) for one in listed[(page - 1) * limit : page * limit]],
        "total_pages": -(-len(listed) // limit),
        "total_count": len(listed),
    }


def described(account: Account, run: Run, at: float, *, whole: bool) -> dict[str, Any]:
    """Return what both versions say about a run, in the same words. What does not apply is left out.

    :param at: the time for which it is described
    :param whole: also what lists do not have
    """
    status, finished = run.status(at), run.finished(at)
    fields: dict[str, Any] = {"status": run.reported(at), "created_at": iso(run.created), "credit": run.credit(at)}
    if status in ("running", "paused"):
        fields["live_url_info"] = {"width": 1280, "height": 1024, "live_url": f"{account.url}/live/{run.id}"}
    if finished is not None:
        fields["finished_at"] = iso(finished)
    if status == "failed" and run.failure is not None:
        fields["task_failure_info"] = {"code": run.failure[0], "message": run.failure[1]}
    if whole:
        fields["log_detail_url"] = f"{account.url}/logs/{run.id}"
        fields["steps"] = [
            {
                "id": f"{run.id}{number:02}",
                "step": number,
                "status": status,
                "evaluation_previous_goal": f"Reached: {run.goal(number - 1)}"
                if number > 1
                else "This is the first step",
                "step_goal": run.goal(number),
                "screenshots_url": f"{account.url}/screenshots/{run.id}/{number}.svg",
            }
            for number, status in run.steps(at)
        ]
    if whole and run.downloads and run.has_output(at):
        fields["download_files"] = [download_of(account, stored, at) for stored in run.downloads]
        fields["files_expires_at"] = milliseconds(min(stored.expires for stored in run.downloads))
    return fields


def download_of(account: Account, stored: StoredFile, at: float) -> dict[str, Any]:
    """Return a file that the browser has downloaded, with the names of API v2."""
    created = milliseconds(stored.created)
    fields: dict[str, Any] = {
        "guid": stored.guid,
        "fileName": stored.file.name,
        "downloadStartTime": created,
        "createTime": created,
    }
    if stored.file.broken is not None:
        return {**fields, "status": "failed", "progress": 50, "errorMessage": stored.file.broken}
    if not stored.ready(at):
        return {**fields, "status": "uploading", "progress": 50}
    return {
        **fields,
        "status": "uploaded",
        "progress": 100,
        "fileSize": len(stored.file.content),
        "downloadUrl": stored.link(account.url, at),
        "downloadCompletedTime": milliseconds(stored.created + stored.file.prepared_after),
        "expiresAt": milliseconds(stored.expires),
    }
