"""BrowserAct's responses as frozen values.

Every reader takes the decoded JSON. It accepts missing, null and new fields, but it refuses a response without its
essential field (an id, a status) with :class:`~airflow_provider_browseract.api.errors.UnexpectedResponseError`. Ids are
always strings, because they have 17 digits, and floating-point numbers would lose some of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Generic, TypeVar

import pendulum

from airflow_provider_browseract.api.errors import UnexpectedResponseError

log = logging.getLogger(__name__)

T = TypeVar("T")
Json = Any

MAX_REASON_LENGTH = 300
"""Characters of the reason why an item is skipped that a message contains."""

MAX_LINE_LENGTH = 1000
"""Characters of a text from a response that people read, such as a goal or a message."""

MAX_ID_LENGTH = 200
"""Characters of an id. BrowserAct's ids have 17 to 32."""

MAX_LINK_LENGTH = 2048
"""Characters of an address that is shown to people. BrowserAct accepts as many in a callback's address."""

MAX_STEPS = 10_000
"""Steps of a task that are read. Of more, the first and the last ones are read, and the others only counted.

A run of 7 hours, the longest that BrowserAct allows, would need a step every 2.5 seconds to reach it.
"""

MAX_FILES = 1000
"""Downloads, and files of the output, that are read. Others are only counted. BrowserAct's own limit is 100 files."""


class Word(str, Enum):
    """Base class of enumerations whose members are formatted as their value."""

    def __str__(self) -> str:
        return str(self.value)


class TaskStatus(Word):
    """The statuses that the API documents for a task."""

    CREATED = "created"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELED = "canceled"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """Whether a task with this status will never change again."""
        return self in _ENDED


_ENDED = frozenset({TaskStatus.FINISHED, TaskStatus.CANCELED, TaskStatus.FAILED})


@dataclass(frozen=True)
class CreatedTask:
    """Response to ``run-task`` and ``run-task-by-template``."""

    id: str
    profile_id: str | None = None

    @classmethod
    def read(cls, data: Json) -> CreatedTask:
        # The document uses profile_id, but the vendor's own demos use profileId.
        fields = _object(data, "a created task")
        return cls(
            id=_required_id(fields, "id", "a created task"),
            profile_id=_id(fields.get("profile_id") or fields.get("profileId")),
        )


@dataclass(frozen=True)
class Step:
    """One step of a task: its goal, and the evaluation of the previous step."""

    number: int | None
    status: str | None
    goal: str | None
    evaluation_previous_goal: str | None
    screenshots_url: str | None

    @classmethod
    def read(cls, data: Json) -> Step:
        fields = _object(data, "a step")
        return cls(
            number=_int(fields.get("step")),
            status=_line(fields.get("status")),
            goal=_line(fields.get("step_goal")),
            evaluation_previous_goal=_line(fields.get("evaluation_previous_goal")),
            screenshots_url=_link(fields.get("screenshots_url")),
        )


@dataclass(frozen=True)
class Failure:
    """The reason why a task failed, as BrowserAct reports it (``task_failure_info``)."""

    code: int | None
    message: str | None

    @classmethod
    def read(cls, data: Json) -> Failure:
        fields = _object(data, "task_failure_info")
        return cls(code=_int(fields.get("code")), message=_line(fields.get("message")))


@dataclass(frozen=True)
class Output:
    """A task's output in the response: one text, and the addresses of files, of which some may be left out."""

    string: str | None = None
    files: tuple[str, ...] = ()
    files_left_out: int = 0

    @classmethod
    def read(cls, data: Json) -> Output:
        # The output is the only part of a task that is read strictly, because a paid result must not be lost silently.
        fields = _object(data, "an output")
        string, files = fields.get("string"), fields.get("files") or []
        if not isinstance(files, list) or not all(isinstance(url, str) for url in files):
            raise UnexpectedResponseError("the files of an output should be a list of addresses")
        text = string if isinstance(string, str | None) else json.dumps(string, ensure_ascii=False)
        return cls(string=text, files=tuple(files[:MAX_FILES]), files_left_out=max(0, len(files) - MAX_FILES))


@dataclass(frozen=True)
class DownloadFile:
    """A file that a task downloaded. ``download_url`` is pre-signed and expires, so it is kept out of ``repr``."""

    guid: str | None
    file_name: str | None
    file_size: int | None
    status: str | None
    error_message: str | None
    expires_at: int | None

    download_url: str | None

    @classmethod
    def read(cls, data: Json) -> DownloadFile:
        fields = _object(data, "a download file")
        return cls(
            guid=_text(fields.get("guid")),
            file_name=_text(fields.get("fileName")),
            file_size=_int(fields.get("fileSize")),
            status=_line(fields.get("status")),
            error_message=_line(fields.get("errorMessage")),
            expires_at=_int(fields.get("expiresAt")),
            download_url=_text(fields.get("downloadUrl")),
        )

    def __repr__(self) -> str:
        return f"DownloadFile(guid={self.guid!r}, file_name={self.file_name!r}, file_size={self.file_size!r})"


@dataclass(frozen=True)
class Task:
    """A task as ``get-task`` and ``list-tasks`` return it.

    ``list-tasks`` does not return ``steps``, ``download_files`` and ``log_detail_url``. ``input_parameters`` is one
    text, ``key=value; key=value``, and not the list that was sent. ``finished_at`` may be set on a task that is still
    running: only ``status`` shows whether it has ended.

    ``unread`` states why only the status is known, if so. ``steps_left_out`` and ``downloads_left_out`` count what was
    beyond ``MAX_STEPS`` and ``MAX_FILES``.
    """

    id: str
    status: TaskStatus
    workflow_id: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    output: Output | None = None
    failure: Failure | None = None
    profile_id: str | None = None
    credit: int | None = None
    live_url: str | None = None
    log_detail_url: str | None = None
    input_parameters: str | None = None
    download_files: tuple[DownloadFile, ...] = ()
    files_expires_at: int | None = None
    steps_left_out: int = 0
    downloads_left_out: int = 0
    unread: str | None = None

    @property
    def step_count(self) -> int:
        """How many steps the task has."""
        return len(self.steps) + self.steps_left_out

    @property
    def files_left_out(self) -> int:
        """How many files the task has beyond those that were read."""
        return self.downloads_left_out + (self.output.files_left_out if self.output else 0)

    @classmethod
    def read(cls, data: Json) -> Task:
        fields = _object(data, "a task")
        live, output = fields.get("live_url_info"), fields.get("output")
        steps, downloads = (_array(fields.get(name)) for name in ("steps", "download_files"))
        if left_out := max(0, len(steps) - MAX_STEPS):
            steps = steps[: MAX_STEPS // 2] + steps[-MAX_STEPS // 2 :]
        task_id, status = _required_id(fields, "id", "a task"), read_status(fields)
        return cls(
            id=task_id,
            status=status,
            workflow_id=_id(fields.get("workflow_id")),
            created_at=_time(fields.get("created_at")),
            finished_at=_time(fields.get("finished_at")),
            steps=_readable_items(steps, Step.read),
            # The output before the end of a task is not documented, and not needed.
            output=None if output is None else Output.read(output) if status.ended else _readable(output, Output.read),
            failure=_readable(fields.get("task_failure_info"), Failure.read),
            profile_id=_id(fields.get("profile_id") or fields.get("profileId")),
            credit=_int(fields.get("credit")),
            live_url=_link((live if isinstance(live, Mapping) else fields).get("live_url")),
            log_detail_url=_link(fields.get("log_detail_url")),
            input_parameters=_text(fields.get("input_parameters")),
            download_files=_readable_items(downloads[:MAX_FILES], DownloadFile.read),
            files_expires_at=_int(fields.get("files_expires_at")),
            steps_left_out=left_out,
            downloads_left_out=max(0, len(downloads) - MAX_FILES),
        )

    @classmethod
    def read_summary(cls, data: Json) -> Task:
        """Read a task of a list tolerantly: without its output, steps and downloads, and with any status.

        A status that the API does not document becomes ``UNKNOWN``. Only a task without an id is an error.
        """
        fields = {**_object(data, "a task"), "output": None, "steps": None, "download_files": None}
        try:
            return cls.read(fields)
        except UnexpectedResponseError:
            return cls.read({**fields, "status": TaskStatus.UNKNOWN.value})


@dataclass(frozen=True)
class InputParameter:
    """An input that a workflow or template declares. If ``default_enabled`` is ``False``, the input is required."""

    name: str
    default_enabled: bool | None = None

    @classmethod
    def read(cls, data: Json) -> InputParameter:
        fields = _object(data, "an input parameter")
        return cls(
            name=_required_id(fields, "name", "an input parameter"),
            default_enabled=fields.get("default_enabled"),
        )


@dataclass(frozen=True)
class Workflow:
    """A workflow. Only ``get-workflow`` returns its inputs."""

    id: str
    name: str | None = None
    description: str | None = None
    created_at: datetime | None = None
    published_at: datetime | None = None
    input_parameters: tuple[InputParameter, ...] = ()

    @classmethod
    def read(cls, data: Json) -> Workflow:
        fields = _object(data, "a workflow")
        return cls(
            id=_required_id(fields, "id", "a workflow"),
            name=_text(fields.get("name")),
            description=_text(fields.get("description")),
            created_at=_time(fields.get("create_at")),
            published_at=_time(fields.get("publish_at")),
            input_parameters=_declared(fields.get("input_parameters")),
        )


@dataclass(frozen=True)
class Template:
    """An official workflow template. Its id is ``templateId`` in the list, and ``id`` in the single template."""

    id: str
    name: str | None = None
    description: str | None = None
    recommendation: str | None = None
    detail_url: str | None = None
    input_parameters: tuple[InputParameter, ...] = ()

    @classmethod
    def read(cls, data: Json) -> Template:
        fields = _object(data, "a template")
        return cls(
            id=_required_id(fields, "templateId" if "templateId" in fields else "id", "a template"),
            name=_text(fields.get("name")),
            description=_text(fields.get("description")),
            recommendation=_text(fields.get("recommendDesc")),
            detail_url=_text(fields.get("detailUrl")),
            input_parameters=_declared(fields.get("input_parameters")),
        )


@dataclass(frozen=True)
class Region:
    """A proxy region in which template tasks can run."""

    code: str
    name: str | None = None

    @classmethod
    def read(cls, data: Json) -> Region:
        fields = _object(data, "a region")
        return cls(code=_required_id(fields, "code", "a region"), name=_line(fields.get("name")))


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list call.

    :param items: the items that could be read.
    :param number: the number of the page, counted from 1.
    :param total_pages: how many pages there are, if the response contains it.
    :param total_count: how many items all pages have together, if the response contains it.
    :param limit: how many items a full page has, if the response contains it.
    :param skipped: the items that could not be read: the id of each, if it has one, and the reason.
    :param served_at: the time of the response by the server's clock, in whole seconds, if the response contains it.
    """

    items: tuple[T, ...]
    number: int
    total_pages: int | None = None
    total_count: int | None = None
    limit: int | None = None
    skipped: tuple[str, ...] = ()
    served_at: datetime | None = None


def read_page(read_item: Callable[[Json], T]) -> Callable[[Json], Page[T]]:
    """Return a function that reads a page, given one that reads an item."""

    def read(data: Json) -> Page[T]:
        fields = _object(data, "a page")
        if not isinstance(fields.get("items"), list):
            raise UnexpectedResponseError("the response should be a page, but has no list of items")
        items, skipped = _list(fields["items"], read_item)
        return Page(
            items=items,
            number=_count(fields.get("page")) or 1,
            total_pages=_count(fields.get("total_pages")),
            total_count=_count(fields.get("total_count")),
            limit=_count(fields.get("limit")) or None,
            skipped=skipped,
        )

    return read


def read_list(read_item: Callable[[Json], T]) -> Callable[[Json], tuple[T, ...]]:
    """Return a function that reads a JSON array, given one that reads an item."""

    def read(data: Json) -> tuple[T, ...]:
        if not isinstance(data, list):
            raise UnexpectedResponseError(f"the response should be a list, but is {_kind(data)}")
        return _list(data, read_item)[0]

    return read


def read_status(data: Json) -> TaskStatus:
    """Read the status in a response. A status that the API does not document is an error, never a success."""
    word = _object(data, "a task status").get("status")
    try:
        return TaskStatus(word)
    except ValueError:
        raise UnexpectedResponseError(f"{one_line(word)!r} is not a task status that the API documents") from None


def is_envelope_of_success(data: Json) -> bool:
    """Return whether a response is BrowserAct's envelope with the code of a success."""
    return isinstance(data, Mapping) and str(data.get("code")) == "0"


def read_nothing(data: Json) -> None:
    """Read the response to stop and resume, which is empty or contains only code 0."""
    # Anything else, such as the refusal of another service, must not count as a success.
    if data not in (None, {}) and not is_envelope_of_success(data):
        raise UnexpectedResponseError(f"the response should be empty, but is {_kind(data)}")


def _kind(data: Json) -> str:
    return "nothing" if data is None else f"JSON of type {type(data).__name__}"


def _object(data: Json, what: str) -> Mapping[str, Json]:
    if not isinstance(data, Mapping):
        raise UnexpectedResponseError(f"the response should be {what}, but is {_kind(data)}")
    return data


def _required_id(fields: Mapping[str, Json], name: str, what: str) -> str:
    value = _id(fields.get(name))
    if value is None:
        raise UnexpectedResponseError(f"the response should be {what}, but has no {name}")
    return value


def _id(value: Json) -> str | None:
    # Ids are shown and sent. A shortened id would be another one, so what cannot be an id counts as none.
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        text = str(value)
        return text if 0 < len(text) <= MAX_ID_LENGTH and text.isprintable() else None
    return None


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def one_line(value: Json, length: int = MAX_LINE_LENGTH) -> str | None:
    """Return a value as one printable line of limited length for logs and messages, or None if it is empty.

    Texts from web pages could otherwise forge lines of a log or control the terminal that shows it.
    """
    text = "" if value is None else str(value)[: 2 * length]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())[:length] or None


def _line(value: Json) -> str | None:
    return one_line(_text(value))


def _link(value: Json) -> str | None:
    """Read an address that is shown to people as a link: http or https, without spaces, and of limited length."""
    url = _text(value)
    if url is None or len(url) > MAX_LINK_LENGTH or not url.lower().startswith(("http://", "https://")):
        return None
    return url if url.isprintable() and " " not in url else None


def _int(value: Json) -> int | None:
    # Larger numbers would be texts of any length in a log.
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**20 else None


def _time(value: Json) -> datetime | None:
    # pendulum reads some words as times, such as "now".
    if not isinstance(value, str) or not value[:1].isdigit():
        return None
    try:
        moment = pendulum.parse(value)
    except Exception:  # noqa: BLE001 - an odd time must not fail the call, and pendulum raises more than ParserError
        return None
    return moment if isinstance(moment, datetime) else None


def _readable(value: Json, read: Callable[[Json], T]) -> T | None:
    try:
        return read(value)
    except UnexpectedResponseError:
        return None


def _array(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _readable_items(items: list[Json], read: Callable[[Json], T]) -> tuple[T, ...]:
    return tuple(item for item in (_readable(item, read) for item in items) if item is not None)


def _list(items: list[Json], read: Callable[[Json], T]) -> tuple[tuple[T, ...], tuple[str, ...]]:
    """Return the items of a list, and descriptions of those that cannot be read, which must not hide the others."""
    found: list[T] = []
    skipped: list[str] = []
    for item in items:
        try:
            found.append(read(item))
        except UnexpectedResponseError as error:
            item_id = _id(item.get("id")) if isinstance(item, Mapping) else None
            skipped.append(f"{item_id or 'one without an id'}: {error.message}"[:MAX_REASON_LENGTH])
    if skipped:
        named = "; ".join(skipped[:5]) + ("; ..." if len(skipped) > 5 else "")
        log.warning(
            "%d of %d items of a BrowserAct list cannot be read and are skipped: %s", len(skipped), len(items), named
        )
    return tuple(found), tuple(skipped)


def _declared(value: Json) -> tuple[InputParameter, ...]:
    """Return the inputs that a workflow declares, or none if one cannot be read, so that no name is refused."""
    found, skipped = _list(_array(value), InputParameter.read)
    return () if skipped else found


def _count(value: Json) -> int | None:
    """Read a count, which may be sent as text or as a floating-point number."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        return int(value)
    number = int(value) if isinstance(value, float) and value.is_integer() else _int(value)
    return number if number is not None and number >= 0 else None
