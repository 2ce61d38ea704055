"""BrowserAct's responses as frozen values, which pydantic reads from the declarations of their fields.

Missing, null and new fields are accepted, but a response without its essential field (an id, a status) is refused with
:class:`~airflow_provider_browseract.exceptions.UnexpectedResponseError`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import AliasChoices, AliasPath, Field, PlainValidator, TypeAdapter, ValidationError, ValidationInfo

from airflow_provider_browseract.api.fields import (
    Id,
    Json,
    JsonObject,
    Line,
    Link,
    Number,
    OptionalId,
    OptionalText,
    Time,
    is_envelope_of_success,
    kind_of,
    one_line,
    optional_id,
    read_count,
)
from airflow_provider_browseract.exceptions import UnexpectedResponseError

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_REASON_LENGTH = 300
"""Characters of the reason why an item is skipped that a message contains."""

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

    @classmethod
    def of(cls, word: Json) -> Self | None:
        """Return the member for a word from outside; None if it is not documented, or no word."""
        return next((each for each in cls if each.value == word), None)


class ApiVersion(Word):
    """The versions of the API. A task is known only to the version that has started it."""

    V2 = "v2"
    """Workflows and official templates, with browser profiles."""

    V3 = "v3"
    """Bots, and the official templates that run as bots."""


class BotType(Word):
    """How a bot was built."""

    WORKFLOW = "workflow"
    """From the nodes of BrowserAct's editor."""

    AGENT = "agent"
    """From a description."""


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


def _status(word: Json) -> TaskStatus:
    try:
        return TaskStatus(word)
    except ValueError:
        raise UnexpectedResponseError(f"{one_line(word)!r} is not a task status that the API documents") from None


def _string(value: Json) -> str | None:
    return value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False)


def _files(value: Json) -> tuple[str, ...]:
    files = value or []
    if not isinstance(files, list) or not all(isinstance(url, str) for url in files):
        raise UnexpectedResponseError("the files of an output should be a list of addresses")
    return tuple(files[:MAX_FILES])


def _output(value: Json, info: ValidationInfo) -> Output | None:
    # The output is the only part of a task that is read strictly, because a paid result must not be lost silently. The
    # output before the end of a task is not documented, and not needed.
    status = info.data.get("status")
    if value is not None and status is not None and status.ended:
        return Output.read(value)
    return _readable(Output, value)


def _inputs(value: Json) -> str | None:
    # Some of the vendor's examples show the list of pairs that was sent. With anything but texts, it is another one.
    if not isinstance(value, list):
        return value if isinstance(value, str) else None
    pairs = [(pair.get("name"), pair.get("value")) for pair in value if isinstance(pair, Mapping)]
    if len(pairs) < len(value) or not all(isinstance(text, str) for pair in pairs for text in pair):
        return None
    return "; ".join(f"{name}={text}" for name, text in pairs)


Status = Annotated[TaskStatus, PlainValidator(_status)]


class Model:
    """A value that is read as its fields are declared."""

    @classmethod
    def read(cls, data: Json) -> Self:
        """Read decoded JSON.

        :raises UnexpectedResponseError: it is not an object, or it has no essential field.
        """
        try:
            result: Self = cls._adapter().validate_python(_with_profile_id(data))
        except ValidationError as error:
            where = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]
            name = re.sub(r"(?<!^)([A-Z])", r" \1", cls.__name__).lower()
            raise UnexpectedResponseError(
                f"the response should be {'an' if name[0] in 'aeiou' else 'a'} {name}, but "
                + (f"has no {where[0]}" if where else f"is {kind_of(data)}")
            ) from None
        return result

    @classmethod
    @cache
    def _adapter(cls) -> TypeAdapter[Any]:
        return TypeAdapter(cls)


def _with_profile_id(data: Json) -> Json:
    """Return an object with the profile's id as ``profile_id``. The vendor's own demos use ``profileId``."""
    if isinstance(data, Mapping) and not data.get("profile_id") and data.get("profileId"):
        return {**data, "profile_id": data["profileId"]}
    return data


M = TypeVar("M", bound=Model)


def _readable(model: type[M], value: Json) -> M | None:
    if value is None:
        return None
    try:
        return model.read(value)
    except UnexpectedResponseError:
        return None


def _array(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _items(model: type[M], limits: Callable[[], tuple[int, int]]) -> PlainValidator:
    """Return a validator that reads the first and the last items of a list, and skips those that cannot be read."""

    def read(value: Json) -> tuple[M, ...]:
        items, (first, last) = _array(value), limits()
        several = (_readable(model, item) for item in items[:first] + items[max(first, len(items) - last) :])
        return tuple(item for item in several if item is not None)

    return PlainValidator(read)


def _beyond(limit: Callable[[], int]) -> PlainValidator:
    """Return a validator that counts the items beyond the limit."""
    return PlainValidator(lambda value: max(0, len(_array(value)) - limit()))


@dataclass(frozen=True)
class CreatedTask(Model):
    """Response to ``run-task`` and ``run-task-by-template``."""

    id: Id
    profile_id: OptionalId = None


@dataclass(frozen=True)
class Step(Model):
    """One step of a task: its goal, and the evaluation of the previous step."""

    number: Annotated[Number, Field(validation_alias="step")] = None
    status: Line = None
    goal: Annotated[Line, Field(validation_alias="step_goal")] = None
    evaluation_previous_goal: Line = None
    screenshots_url: Link = None


@dataclass(frozen=True)
class Failure(Model):
    """The reason why a task failed, as BrowserAct reports it (``task_failure_info``)."""

    code: Number = None
    message: Line = None


@dataclass(frozen=True)
class OutputFile:
    """The output of a bot as a file of one format. ``url`` is pre-signed, so it is kept out of ``repr``.

    Only beside a value, which is the same output, ``url`` may be None.
    """

    format: str
    name: str | None
    size: int | None
    url: str | None = field(repr=False)


@dataclass(frozen=True)
class Output(Model):
    """A task's output in the response: one text, and the addresses of files, of which some may be left out.

    Only runs of bots have ``formats``, the same output as files, and ``is_json``: whether the output is a JSON value,
    whose JSON text ``string`` is, or a text. Of version 2, this is not known.
    """

    string: Annotated[str | None, PlainValidator(_string)] = None
    files: Annotated[tuple[str, ...], PlainValidator(_files)] = ()
    files_left_out: Annotated[int, Field(validation_alias="files"), _beyond(lambda: MAX_FILES)] = 0
    formats: Annotated[tuple[OutputFile, ...], PlainValidator(lambda _: ())] = ()
    is_json: Annotated[bool | None, PlainValidator(lambda _: None)] = None


@dataclass(frozen=True)
class DownloadFile(Model):
    """A file that a task downloaded. ``download_url`` is pre-signed and expires, so it is kept out of ``repr``."""

    guid: OptionalText = None
    file_name: Annotated[OptionalText, Field(validation_alias=AliasChoices("fileName", "file_name"))] = None
    file_size: Annotated[Number, Field(validation_alias=AliasChoices("fileSize", "file_size"))] = None
    status: Line = None
    error_message: Annotated[Line, Field(validation_alias=AliasChoices("errorMessage", "error_message"))] = None
    expires_at: Annotated[Number, Field(validation_alias=AliasChoices("expiresAt", "expires_at"))] = None
    download_url: Annotated[OptionalText, Field(validation_alias=AliasChoices("downloadUrl", "download_url"))] = field(
        default=None, repr=False
    )


@dataclass(frozen=True)
class Task(Model):
    """A task as ``get-task`` and ``list-tasks`` return it.

    ``list-tasks`` does not return ``steps``, ``download_files`` and ``log_detail_url``. ``input_parameters`` is one
    text, ``key=value; key=value``, and not the list that was sent. ``finished_at`` may be set on a task that is still
    running: only ``status`` shows whether it has ended.

    Only runs of bots have ``bot_id``, ``bot_name``, ``bot_type`` and ``input``, the JSON object that was sent. The run
    of a template has no ``bot_id``.

    ``api_version`` is the version of the API that has returned the task. ``unread`` states why only the status is
    known, if so. ``steps_left_out`` and ``downloads_left_out`` count what was beyond ``MAX_STEPS`` and ``MAX_FILES``.
    """

    id: Id
    status: Status
    workflow_id: OptionalId = None
    created_at: Time = None
    finished_at: Time = None
    steps: Annotated[tuple[Step, ...], _items(Step, lambda: (MAX_STEPS // 2, MAX_STEPS // 2))] = ()
    output: Annotated[Output | None, PlainValidator(_output)] = None
    failure: Annotated[
        Failure | None, Field(validation_alias="task_failure_info"), PlainValidator(partial(_readable, Failure))
    ] = None
    profile_id: OptionalId = None
    credit: Number = None
    live_url: Annotated[
        Link, Field(validation_alias=AliasChoices(AliasPath("live_url_info", "live_url"), "live_url"))
    ] = None
    log_detail_url: Link = None
    input_parameters: Annotated[str | None, PlainValidator(_inputs)] = None
    download_files: Annotated[tuple[DownloadFile, ...], _items(DownloadFile, lambda: (MAX_FILES, 0))] = ()
    files_expires_at: Number = None
    steps_left_out: Annotated[int, Field(validation_alias="steps"), _beyond(lambda: MAX_STEPS)] = 0
    downloads_left_out: Annotated[int, Field(validation_alias="download_files"), _beyond(lambda: MAX_FILES)] = 0
    unread: Annotated[str | None, PlainValidator(lambda _: None)] = None
    api_version: Annotated[ApiVersion, PlainValidator(lambda _: ApiVersion.V2)] = ApiVersion.V2
    bot_id: OptionalId = None
    bot_name: Line = None
    bot_type: Annotated[BotType | None, PlainValidator(BotType.of)] = None
    input: JsonObject = field(default=None, repr=False, hash=False)

    @property
    def source_id(self) -> str | None:
        """The workflow or bot, if the response names it."""
        return self.workflow_id or self.bot_id

    @property
    def step_count(self) -> int:
        """How many steps the task has."""
        return len(self.steps) + self.steps_left_out

    @property
    def files_left_out(self) -> int:
        """How many files the task has beyond those that were read."""
        return self.downloads_left_out + (self.output.files_left_out if self.output else 0)

    @classmethod
    def read_summary(cls, data: Json) -> Task:
        """Read a task of a list tolerantly: without its output, steps and downloads, and with any status.

        A status that the API does not document becomes ``UNKNOWN``. Only a task without an id is an error.
        """
        given = data if isinstance(data, Mapping) else {}
        fields = {**given, "output": None, "steps": None, "download_files": None}
        try:
            return cls.read(fields)
        except UnexpectedResponseError:
            return cls.read({**fields, "status": TaskStatus.UNKNOWN.value})


@dataclass(frozen=True)
class Region(Model):
    """A proxy region in which template tasks can run."""

    code: Id
    name: Line = None


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list call.

    :param items: the items that could be read.
    :param total_count: how many items all pages have together, if the response contains it.
    :param total_pages: how many pages of this size there are, if the response contains it.
    :param skipped: the items that could not be read: the id of each, if it has one, and the reason.
    :param served_at: the time of the response by the server's clock, in whole seconds, if the response contains it.
    """

    items: tuple[T, ...]
    total_count: int | None = None
    skipped: tuple[str, ...] = ()
    served_at: datetime | None = None
    total_pages: int | None = None


def read_page(read_item: Callable[[Json], T]) -> Callable[[Json], Page[T]]:
    """Return a function that reads a page, given one that reads an item."""

    def read(data: Json) -> Page[T]:
        fields = data if isinstance(data, Mapping) else {}
        if not isinstance(fields.get("items"), list):
            raise UnexpectedResponseError("the response should be a page, but has no list of items")
        items, skipped = read_items(fields["items"], read_item)
        total_count, total_pages = (read_count(fields.get(each)) for each in ("total_count", "total_pages"))
        return Page(items, total_count, skipped, total_pages=total_pages)

    return read


def read_list(read_item: Callable[[Json], T]) -> Callable[[Json], tuple[T, ...]]:
    """Return a function that reads a JSON array, given one that reads an item."""

    def read(data: Json) -> tuple[T, ...]:
        if not isinstance(data, list):
            raise UnexpectedResponseError(f"the response should be a list, but is {kind_of(data)}")
        return read_items(data, read_item)[0]

    return read


def read_status(data: Json) -> TaskStatus:
    """Read the status in a response. A status that the API does not document is an error, never a success."""
    if not isinstance(data, Mapping):
        raise UnexpectedResponseError(f"the response should be a task status, but is {kind_of(data)}")
    return _status(data.get("status"))


def read_nothing(data: Json) -> None:
    """Read the response to stop and resume, which is empty or contains only code 0."""
    # Anything else, such as the refusal of another service, must not count as a success.
    if data not in (None, {}) and not is_envelope_of_success(data):
        raise UnexpectedResponseError(f"the response should be empty, but is {kind_of(data)}")


_ID_FIELDS = ("id", "task_id", "bot_id", "template_id", "templateId")


def read_items(items: list[Json], read: Callable[[Json], T]) -> tuple[tuple[T, ...], tuple[str, ...]]:
    """Return the items of a list, and descriptions of those that cannot be read, which must not hide the others."""
    found: list[T] = []
    skipped: list[str] = []
    for item in items:
        try:
            found.append(read(item))
        except UnexpectedResponseError as error:
            given = item if isinstance(item, Mapping) else {}
            item_id = next(filter(None, (optional_id(given.get(name)) for name in _ID_FIELDS)), None)
            skipped.append(f"{item_id or 'one without an id'}: {error.message}"[:MAX_REASON_LENGTH])
    if skipped:
        named = "; ".join(skipped[:5]) + ("; ..." if len(skipped) > 5 else "")
        log.warning(
            "%d of %d items of a BrowserAct list cannot be read and are skipped: %s", len(skipped), len(items), named
        )
    return tuple(found), tuple(skipped)
