"""What the endpoints of both versions of the API share: how a request is read, and how a run is found and described."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl

import pydantic
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field, HttpUrl, TypeAdapter
from pydantic_core import from_json

from airflow_provider_browseract.emulator.errors import ApiError, Code, parameter_error
from airflow_provider_browseract.emulator.records import iso, milliseconds
from airflow_provider_browseract.emulator.runs import Run, StoredFile
from airflow_provider_browseract.emulator.workflow import EmulatedWorkflow, explained

if TYPE_CHECKING:
    from airflow_provider_browseract.emulator.account import Emulator


def _like(pattern: str, meaning: str) -> BeforeValidator:
    """Return a check of a text that pydantic then reads, because it would also read other texts."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"must be {meaning}")
        return text

    return BeforeValidator(check)


Id = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, _like(r"-?\d{1,10}", "a whole number"), Field(ge=-(2**31), lt=2**31)]
PageNumber = Annotated[Whole, Field(ge=1)]
Limit = Annotated[Whole, Field(ge=1, le=500)]
LimitOfV3 = Annotated[Whole, Field(ge=1, le=100)]
_DATE_TIME = r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)"
Moment = Annotated[AwareDatetime, _like(_DATE_TIME, "a date-time such as 2026-01-31T12:00:00Z")]
Keyword = Annotated[str, Field(max_length=200)]
_URL = TypeAdapter(HttpUrl)
CallbackUrl = Annotated[
    str,
    Field(max_length=2048, pattern="^https?://[!-.0-~][!-~]*$"),
    AfterValidator(lambda url: _URL.validate_python(url) and url),
]
Callbacks = dict[str, str | None]
CALLBACKS = ("callback_url", "status_change_callback_url")
Status = Literal["created", "running", "finished", "canceled", "pausing", "paused", "failed"]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint of the API.

    :param name: the name for faults and records
    :param path: its path, in which ids are names such as ``{task_id}``. ``pattern`` matches it
    :param respond: a method of an :class:`Api`. Given what is in the path and in the query or the JSON body of a
        request, it returns the value of the response's JSON body, or None for an empty body
    :param parameters: a model of the parameters of ``respond``. A start has ``callbacks`` for its callback URLs
    """

    name: str
    version: str
    method: str
    path: str
    pattern: re.Pattern[str]
    respond: Callable[..., Any]
    parameters: type[BaseModel]

    def call(self, api: Api, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Any:
        """Read a request strictly, and respond. What cannot be understood raises an ``ApiError`` and is not ignored."""
        found, is_start = self.pattern.fullmatch(path), "callback_url" in self.parameters.model_fields
        ids = found.groupdict() if found else {}
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
            values = dict(validate(given, strict=is_start))
        except pydantic.ValidationError as invalid:
            raise parameter_error(explained(invalid)) from None
        except (ValueError, AttributeError, RecursionError):
            raise parameter_error("the query or the body cannot be read") from None
        if is_start:
            values["callbacks"] = {name: values.pop(name) for name in CALLBACKS}
        return self.respond(api, **values)


def endpoint(method: str, path: str, name: str = "") -> Callable[[Callable[..., Any]], Endpoint]:
    """Return a decorator of a method of an :class:`Api`, which makes an endpoint with the method's parameters.

    :param path: its path, in which ``{name}`` is the endpoint's name
    :param name: BrowserAct's name. Default: the name of the method, with hyphens
    """

    def make(respond: Callable[..., Any]) -> Endpoint:
        _, *parameters = inspect.signature(respond, eval_str=True).parameters.values()
        fields: dict[str, Any] = {
            each.name: (each.annotation, ... if each.default is each.empty else each.default) for each in parameters
        }
        if fields.pop("callbacks", None):
            fields |= dict.fromkeys(CALLBACKS, (CallbackUrl, None))
        model = pydantic.create_model(respond.__name__, __config__={"extra": "forbid"}, **fields)
        called = name or respond.__name__.replace("_", "-")
        full_path = path.replace("{name}", called)
        pattern = re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", full_path))
        return Endpoint(called, path[1:3], method, full_path, pattern, respond, model)

    return make


class Api:
    """What both versions of the API do with an account. The subclasses have their endpoints, by name."""

    version: ClassVar[str]
    endpoints: ClassVar[dict[str, Endpoint]]

    def __init_subclass__(cls) -> None:
        cls.version = cls.__name__.lower()
        cls.endpoints = {each.name: each for each in vars(cls).values() if isinstance(each, Endpoint)}

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator

    def find(self, workflow_id: str, *kinds: str) -> EmulatedWorkflow:
        """Return a workflow, a template or a bot."""
        workflow = self.emulator.workflows.get(workflow_id)
        if workflow is None or workflow.kind not in kinds:
            raise ApiError(Code.TEMPLATE_UNKNOWN if "template" in kinds else Code.WORKFLOW_UNKNOWN)
        return workflow

    def find_run(self, task_id: str) -> Run:
        """Return a task as it is now. Each version of the API knows only its own tasks, unless they are shared."""
        run = self.emulator.runs.get(task_id)
        if run is None or not (self.emulator.shared_runs or run.api_version == self.version):
            raise ApiError(Code.TASK_UNKNOWN)
        return run.seen(self.emulator.clock())

    def find_runs(self, status: str | None, earliest: datetime | None, latest: datetime | None) -> list[Run]:
        """Return the tasks that are listed, with the filters that both versions have, oldest first."""
        return [
            run
            for run in self.emulator.tasks
            if run.created + run.workflow.listed_after <= run.at
            and (self.emulator.shared_runs or run.api_version == self.version)
            and status in (None, run.status)
            and (earliest is None or earliest <= run.created_at.replace(microsecond=0))
            and (latest is None or run.created_at.replace(microsecond=0) <= latest)
        ]

    def stop(self, task_id: str, biz_code: int | None) -> Run:
        """Stop an active task, and return it."""
        run = self.find_run(task_id)
        if run.finished_at is not None:
            raise ApiError(Code.TASK_ENDED)
        self.emulator.runs[task_id].stop(run.at, biz_code)
        self.emulator.catch_up()
        return self.find_run(task_id)

    def resume(self, task_id: str) -> Run:
        """Resume a paused task, and return it as it was before."""
        run = self.find_run(task_id)
        if run.status != "paused":
            raise ApiError(Code.NOT_PAUSED)
        self.emulator.runs[task_id].resume(run.at)
        self.emulator.catch_up()
        return run

    def described(self, run: Run, *, whole: bool) -> dict[str, Any]:
        """Return what both versions say about a run, in the same words. What does not apply is left out.

        :param whole: also what lists do not have
        """
        url = self.emulator.url
        fields: dict[str, Any] = {"status": run.status, "created_at": iso(run.created_at), "credit": run.credit}
        if run.status in ("running", "paused"):
            fields["live_url_info"] = {"width": 1280, "height": 1024, "live_url": f"{url}/live/{run.id}"}
        if run.finished_at is not None:
            fields["finished_at"] = iso(run.finished_at)
        if run.status == "failed" and run.failure is not None:
            fields["task_failure_info"] = {"code": run.failure[0], "message": run.failure[1]}
        if whole:
            fields["log_detail_url"] = f"{url}/logs/{run.id}"
            fields["steps"] = [
                {
                    "id": f"{run.id}{number:02}",
                    "step": number,
                    "status": status,
                    "evaluation_previous_goal": f"Reached: {run.goal(number - 1)}" if number > 1 else "The first step",
                    "step_goal": run.goal(number),
                    "screenshots_url": f"{url}/screenshots/{run.id}/{number}.svg",
                }
                for number, status in run.steps
            ]
        if whole and run.downloads and run.has_output:
            fields["download_files"] = [download(stored, run.at, url) for stored in run.downloads]
            fields["files_expires_at"] = milliseconds(min(stored.expires for stored in run.downloads))
        return fields


def download(stored: StoredFile, at: float, url: str) -> dict[str, Any]:
    """Return a file that the browser has downloaded, with the names of API v2."""
    created, file = milliseconds(stored.created), stored.file
    fields = {"guid": stored.guid, "fileName": file.name, "downloadStartTime": created, "createTime": created}
    if file.broken is not None:
        return {**fields, "status": "failed", "progress": 50, "errorMessage": file.broken}
    if not stored.ready(at):
        return {**fields, "status": "uploading", "progress": 50}
    return {
        **fields,
        "status": "uploaded",
        "progress": 100,
        "fileSize": len(file.content),
        "downloadUrl": stored.link(url, at),
        "downloadCompletedTime": milliseconds(stored.created + file.prepared_after),
        "expiresAt": milliseconds(stored.expires),
    }


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
