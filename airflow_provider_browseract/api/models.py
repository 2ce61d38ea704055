"""BrowserAct's responses as frozen models, for both versions of the API.

One rule for surprises: unknown fields are ignored, and an optional field that cannot be read has its default. Only a
required field (an id, the status of a task) and the output of a run that has ended, which was paid for, fail the whole
response.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import (
    AliasChoices,
    AliasGenerator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from airflow_provider_browseract.api.fields import (
    Id,
    Inputs,
    Line,
    Link,
    Name,
    Number,
    Text,
    Time,
    Url,
    camel,
    one_line,
)

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

CREDITS_PER_STEP = 5
"""Credits that a step costs, according to BrowserAct's documents."""


class Word(str, Enum):
    """Base class of enumerations whose members are formatted as their value."""

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def of(cls, word: Any) -> Self | None:
        """Return the member for a word from outside; None if it is not documented, or no word."""
        return next((each for each in cls if each.value == word), None)


class ApiVersion(Word):
    """The versions of the API: 2 runs workflows, 3 runs bots. Only the one that has started a task knows the task."""

    V2 = "v2"
    V3 = "v3"


class BotType(Word):
    """How a bot was built: from the nodes of BrowserAct's editor, or from a description."""

    WORKFLOW = "workflow"
    AGENT = "agent"


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
    def holds_slot(self) -> bool:
        """Whether a task with this status counts among the concurrent runs that the plan allows."""
        return self in (TaskStatus.CREATED, TaskStatus.RUNNING, TaskStatus.PAUSING, TaskStatus.PAUSED)

    @property
    def ended(self) -> bool:
        """Whether a task with this status will never change again."""
        return self.ended_by_itself or self is TaskStatus.CANCELED

    @property
    def ended_by_itself(self) -> bool:
        """Whether a task with this status has ended without being stopped."""
        return self in (TaskStatus.FINISHED, TaskStatus.FAILED)

    @property
    def came_to_nothing(self) -> bool:
        """Whether a task with this status has ended without a result. Nobody can use it, but it has used credits."""
        return self.ended and self is not TaskStatus.FINISHED


def _status(word: Any) -> Any:
    if TaskStatus.of(word) is None:
        raise ValueError(f"{one_line(word, 100)!r} is not a task status that the API documents")
    return word


def _objects(items: Any) -> list[Any]:
    return [item for item in items if isinstance(item, Mapping | Model)]


Status = Annotated[TaskStatus, BeforeValidator(_status)]
"""A status that the API documents. Any other is an error, never a success."""


class Model(BaseModel):
    """A value that BrowserAct sends, with names in snake or camel case."""

    model_config = ConfigDict(
        frozen=True,
        defer_build=True,
        coerce_numbers_to_str=True,
        populate_by_name=True,
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, camel(name))),
    )
    paid: ClassVar[tuple[str, ...]] = ()
    """Optional fields that have to be readable if there is a value."""
    never_shared: ClassVar[tuple[str, ...]] = ()
    """Fields that are not built in processes that many tasks share."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        # Of two names of a field, one may be null.
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data

    @field_validator("*", mode="wrap")
    @classmethod
    def _or_default(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        field = cls.model_fields[name]
        try:
            return read(value)
        except Exception:
            # pendulum raises more than ValueError.
            if field.is_required() or (value is not None and name in cls.paid and _has_ended(info.data)):
                raise
            return field.get_default(call_default_factory=True)


def _has_ended(fields: Mapping[str, Any]) -> bool:
    # The output before the end of a task is not documented, and not needed.
    return bool(getattr(fields.get("status"), "ended", True))


class CreatedTask(Model):
    """The response to a start."""

    id: Id = Field(validation_alias=AliasChoices("task_id", "id"))
    profile_id: Name | None = Field(default=None, validation_alias=AliasChoices("profileId", "profile_id"))


class Step(Model):
    """One step of a task: its goal, and the evaluation of the previous step."""

    number: Number | None = Field(default=None, validation_alias="step")
    status: Line = None
    goal: Line = Field(default=None, validation_alias="step_goal")
    evaluation_previous_goal: Line = None
    screenshots_url: Link | None = None


class Failure(Model):
    """The reason why a task failed, as BrowserAct reports it (``task_failure_info``)."""

    code: Number | None = None
    message: Line = None


class OutputFile(Model):
    """The output of a bot as a file of one format. ``url`` is pre-signed, so it is kept out of ``repr``.

    Only beside a value, which is the same output, ``url`` may be None.
    """

    format: str
    name: str | None = Field(default=None, validation_alias="file_name")
    size: NonNegativeInt | None = Field(default=None, validation_alias="file_size")
    url: str | None = Field(default=None, validation_alias="download_url", min_length=1, strict=True, repr=False)


class Output(Model):
    """A task's output in the response: one text, and the addresses of files.

    Only runs of bots have ``formats``, the same output as files, and ``is_json``: whether the output is a JSON value,
    whose JSON text ``string`` is, or a text. Of version 2, this is not known.
    """

    paid: ClassVar[tuple[str, ...]] = ("string", "files", "formats")

    string: Text = None
    files: Annotated[tuple[Url, ...], BeforeValidator(lambda files: files or ())] = ()
    formats: tuple[OutputFile, ...] = ()
    is_json: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _not_only_unknown(cls, data: Any) -> Any:
        if isinstance(data, dict) and data and not cls.model_fields.keys() & data.keys():
            raise ValueError("it has none of the documented members")
        return data

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if self.string is None and any(each.url is None for each in self.formats):
            raise ValueError("the output is only in files, and one of them has no download_url")
        return self


class DownloadFile(Model):
    """A file that a task downloaded. ``download_url`` is pre-signed and expires, so it is kept out of ``repr``."""

    guid: str | None = None
    file_name: str | None = None
    file_size: Number | None = None
    status: Line = None
    error_message: Line = None
    expires_at: Number | None = None
    download_url: str | None = Field(default=None, repr=False)


class Task(Model):
    """A task with everything. ``finished_at`` does not mean that it has ended: only ``status`` shows that.

    ``input_parameters`` is one text, ``key=value; key=value``, and not the list that was sent.

    Only runs of bots have ``bot_id``, ``bot_name``, ``bot_type`` and ``input``, the JSON object that was sent. The run
    of a template has no ``bot_id``.

    ``api_version`` is the version of the API that has returned the task. ``unread`` states why only the status is
    known, if so. ``steps_left_out`` counts the steps that the task has beside ``steps``.
    """

    paid: ClassVar[tuple[str, ...]] = ("output",)
    never_shared: ClassVar[tuple[str, ...]] = ("output", "output_files")

    id: Id = Field(validation_alias=AliasChoices("task_id", "id"))
    status: Status
    workflow_id: Id | None = None
    created_at: Time | None = None
    finished_at: Time | None = None
    steps: Annotated[tuple[Step, ...], BeforeValidator(_objects)] = ()
    output: Output | None = None
    failure: Failure | None = Field(default=None, validation_alias="task_failure_info")
    profile_id: Name | None = Field(default=None, validation_alias=AliasChoices("profileId", "profile_id"))
    credit: Number | None = None
    live_url: Link | None = Field(
        default=None, validation_alias=AliasChoices(AliasPath("live_url_info", "live_url"), "live_url")
    )
    log_detail_url: Link | None = None
    input_parameters: Inputs = None
    download_files: Annotated[tuple[DownloadFile, ...], BeforeValidator(_objects)] = ()
    files_expires_at: Number | None = None
    steps_left_out: NonNegativeInt = 0
    unread: str | None = None
    api_version: ApiVersion = ApiVersion.V2
    bot_id: Id | None = None
    bot_name: Line = None
    bot_type: BotType | None = None
    input: dict[str, Any] | None = Field(default=None, repr=False)

    @property
    def source_id(self) -> str | None:
        """The workflow or bot, if the response names it."""
        return self.bot_id or self.workflow_id

    @property
    def step_count(self) -> int:
        """How many steps the task has."""
        return len(self.steps) + self.steps_left_out

    @property
    def credits_so_far(self) -> int:
        """The credits that the task has used so far.

        It is not documented whether ``credit`` grows while a task is active, so the steps that have begun count too.
        """
        return max(self.credit or 0, CREDITS_PER_STEP * self.step_count)


class BotTask(Task):
    """A run of a bot. Its output is a JSON value, and the same as files of several formats."""

    api_version: ApiVersion = ApiVersion.V3

    @model_validator(mode="before")
    @classmethod
    def _with_output(cls, data: Any) -> Any:
        if not isinstance(data, dict) or isinstance(data.get("output"), Output):
            return data
        value, files = data.get("output"), data.get("output_files")
        if value is None and files is None:
            return data
        if isinstance(files, dict):
            # What cannot be read of a file is only missing beside a value.
            files = [{**(file if isinstance(file, dict) else {}), "format": name} for name, file in files.items()]
        else:
            # Without a value, files in another form must not be lost.
            files = "unreadable" if value is None else ()
        is_json = None if value is None else not isinstance(value, str)
        return {**data, "output": {"string": value, "formats": files, "is_json": is_json}}


class ListedTask(Task):
    """A task of a list, which has no steps and no downloads. A status that is not documented is ``UNKNOWN``."""

    paid: ClassVar[tuple[str, ...]] = ()
    never_shared: ClassVar[tuple[str, ...]] = (*Task.never_shared, "steps", "download_files")

    status: Status = TaskStatus.UNKNOWN


class ListedBotTask(ListedTask):
    """A run of a bot of a list, which has no output either."""

    api_version: ApiVersion = ApiVersion.V3


class TaskState(Model):
    """The response to a request for the status."""

    id: Id | None = Field(default=None, validation_alias="task_id")
    status: Status


class BotTaskState(TaskState):
    """The status of a run of a bot. Without the run's id, it may be the status of a gateway."""

    id: Id = Field(validation_alias="task_id")


Done = Annotated[BotTaskState | None, BeforeValidator(lambda data: None if data == {} else data)]
"""The response to a stop or a resume: nothing, or in version 3 the status, which may still be the one before."""


class InputParameter(Model):
    """An input that a workflow or template declares. If ``default_enabled`` is ``False``, the input is required."""

    name: str
    default_enabled: bool | None = None


class SourceInfo(Model):
    """A workflow, a bot, or an official template. Only the request for a single one returns its inputs.

    Workflows and their templates have ``input_parameters``, which are none if one of them cannot be read. Bots and
    their templates have ``input_schema``, a JSON Schema, which is null if the bot is not published. ``output_schema``
    is the JSON Schema of a bot's output, and null if there is none.
    """

    id: Id = Field(validation_alias=AliasChoices("bot_id", "template_id", "templateId", "id"))
    name: str | None = None
    type: BotType | None = Field(default=None, validation_alias="bot_type")
    description: str | None = None
    recommendation: str | None = Field(default=None, validation_alias=AliasChoices("recommend_desc", "recommendDesc"))
    detail_url: Link | None = None
    created_at: Time | None = Field(default=None, validation_alias=AliasChoices("created_at", "create_at"))
    published_at: Time | None = Field(default=None, validation_alias=AliasChoices("published_at", "publish_at"))
    input_parameters: tuple[InputParameter, ...] = ()
    input_schema: Any = Field(default=None, repr=False)
    output_schema: Any = Field(default=None, repr=False)


class Region(Model):
    """A proxy region in which template tasks can run."""

    code: Name
    name: Line = None


class Page(Model, Generic[T]):
    """One page of a list.

    :param total_count: how many items all pages have together, if the response contains it.
    :param total_pages: how many pages of this size there are, if the response contains it.
    :param served_at: the time of the response by the server's clock, in whole seconds, if the response contains it.
    """

    items: tuple[T, ...]
    total_count: NonNegativeInt | None = None
    total_pages: NonNegativeInt | None = None
    served_at: datetime | None = None
