"""What a workflow, a template and a bot of the emulator are: settings, behaviour and output."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from airflow_provider_browseract.emulator.faults import CallbackFault

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

Outcome = Literal["finished", "failed", "canceled"]
OUTCOMES: tuple[Outcome, ...] = ("finished", "failed", "canceled")
BotType = Literal["workflow", "agent"]

PAGE_NOT_LOADED, BLOCKED = 10001, 1011
"""The only failure codes in BrowserAct's documents."""

LOGIN_REFUSED, INPUT_REFUSED = 10002, 10003
"""Failure codes that the emulator invents."""


MAX_FILES = 100
MAX_FILE_SIZE = 50 * 1024 * 1024
"""What BrowserAct allows for each run."""


class RunFailed(Exception):
    """Raised by a behaviour to end its run as ``failed`` with this code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class WorkflowInput:
    """An input parameter that a workflow declares."""

    name: str
    required: bool = True


@dataclass(frozen=True)
class EmulatedFile:
    """A file that a run produces or downloads.

    Output files are addresses in ``output.files``, as with "Output as file", and on API v3 objects in ``output_files``,
    by the format that their names end with. Downloads are objects in ``download_files``, as with files that the browser
    has downloaded.

    :param prepared_after: seconds after the end of the run from which the file is available (real time)
    :param broken: ``errorMessage`` of a download that never becomes available
    :param announced: size in bytes in a download's ``fileSize``, if it differs from the actual size
    """

    name: str
    content: bytes
    content_type: str = "application/octet-stream"
    prepared_after: float = 0.0
    broken: str | None = None
    announced: int | None = None


@dataclass(frozen=True)
class Output:
    """What a run produces: text, output files, downloads, or several of these.

    As on BrowserAct, a run has at most 100 files, and a file at most 50 MB.

    :param value: the output of a bot, which can be any JSON value but null. API v2 returns it as a text
    """

    string: str = ""
    files: tuple[EmulatedFile, ...] = ()
    downloads: tuple[EmulatedFile, ...] = ()
    value: Any = None

    def __post_init__(self) -> None:
        if self.value is not None:
            object.__setattr__(self, "string", self.value if isinstance(self.value, str) else json.dumps(self.value))
        stored = (*self.files, *self.downloads)
        if len(stored) > MAX_FILES:
            raise ValueError(f"a run has at most {MAX_FILES} files, got {len(stored)}")
        for file in stored:
            if len(file.content) > MAX_FILE_SIZE:
                raise ValueError(f"a file has at most {MAX_FILE_SIZE} bytes, but {file.name!r} has {len(file.content)}")


@dataclass(frozen=True)
class RunContext:
    """The data of a run that its behaviour can use.

    :param inputs: the input parameters by name; texts, or any JSON values with API v3
    :param cookies: the state of the run's browser profile. Changes are saved in the profile if the run was started with
        ``save_browser_data``
    :param confirmed: whether every pause was ended by ``resume-task`` and not by its time limit
    """

    inputs: Mapping[str, Any]
    cookies: dict[str, str]
    confirmed: bool = True


Behaviour = Callable[[RunContext], Output]
Workflow = TypeVar("Workflow", bound="EmulatedWorkflow")


class WorkflowSettings(TypedDict, total=False):
    """Settings that :meth:`Emulator.set_workflow` and :meth:`Emulator.next_run` can change; see EmulatedWorkflow."""

    name: str
    description: str
    published: bool
    inputs: tuple[WorkflowInput, ...]
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    ready: bool
    steps: tuple[str, ...]
    step_every: float | None
    behaviour: Behaviour
    duration: float
    queued: float
    outcome: Outcome
    failure: tuple[int, str]
    failed_step: int | None
    output: Any
    files: tuple[EmulatedFile, ...] | None
    downloads: tuple[EmulatedFile, ...] | None
    credits_per_step: int
    extra_credits: int
    file_lifetime: float
    output_after: float
    listed_after: float
    one_at_a_time: bool
    pause_at: float | None
    pausing_for: float
    pause_limit: float | None
    resume_after: float
    stop_after: float
    unknown_at: float | None
    unknown_for: float
    status: str | None
    callback_fault: CallbackFault | None


def no_output(_: RunContext) -> Output:
    """Produce nothing."""
    return Output()


def object_of(properties: dict[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """Return the schema of an object without other members."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT = {"type": "string"}


@dataclass(frozen=True)
class EmulatedWorkflow:
    """A workflow of the emulated account, and the behaviour of its runs. API v3 serves it as a bot with the same id.

    All times are seconds at speed 1.

    :param inputs: the declared input parameters
    :param input_schema: the JSON Schema of the bot's ``input``. None means one that is made of ``inputs``, all of them
        texts
    :param output_schema: the JSON Schema of the bot's ``output``, if it has one. The emulator does not check outputs
    :param steps: the goal of each step; a run spreads them evenly over its duration
    :param step_every: time from the beginning of one step to the next in a run that never ends by itself. It repeats
        its steps until somebody stops it or it exceeds the longest duration, whatever its duration and outcome. None
        means that a run ends by itself
    :param behaviour: computes the output of a run that finishes, and may change its profile
    :param published: whether the workflow is published. A run of an unpublished workflow is refused
    :param duration: time in the status ``running``
    :param queued: time in the status ``created`` before that
    :param outcome: the status with which a run ends by itself
    :param failure: code and message in ``task_failure_info`` when the outcome is ``failed``
    :param failed_step: the step (from 1) at which a failing run ends; None means its last one
    :param output: text, or JSON value of a bot, that replaces the behaviour's
    :param files: output files that replace the behaviour's
    :param downloads: downloads that replace the behaviour's
    :param credits_per_step: the credits that each step uses
    :param extra_credits: the credits that a run uses besides those of its steps, as for a proxy. They are added when
        it ends
    :param file_lifetime: how long file links stay valid (real time, whatever the speed)
    :param output_after: how long after the end of a run its output, files and downloads appear
    :param listed_after: how long after its start a run appears in lists
    :param one_at_a_time: whether a run is refused while another one of this workflow is active, as with a
        Standard Browser. The code and the message of that refusal are not documented; see ``BROWSER_BUSY``
    :param pause_at: the fraction of the duration at which a run pauses for a human; None means never
    :param pausing_for: how long it is ``pausing`` before it is ``paused``
    :param pause_limit: how long a pause lasts if nobody resumes the run, which then continues unconfirmed. None
        means forever
    :param resume_after: how long a resumed run stays ``paused``
    :param stop_after: how long a run that is stopped stays as it is before it is ``canceled``
    :param unknown_at: the fraction of the duration from which the status is ``unknown``; None means never
    :param unknown_for: how long the status is ``unknown``
    :param status: a word that is reported instead of every status, to test clients with unknown statuses
    :param callback_fault: the fault of every callback of a run
    """

    id: str
    name: str
    description: str = ""
    inputs: tuple[WorkflowInput, ...] = ()
    input_schema: dict[str, Any] | None = field(default=None, hash=False)
    output_schema: dict[str, Any] | None = field(default=None, hash=False)
    steps: tuple[str, ...] = ("Open the page", "Collect the data", "Return the output")
    step_every: float | None = None
    behaviour: Behaviour = no_output
    published: bool = True
    created_at: str = "2026-01-05T08:00:00Z"
    published_at: str = "2026-01-06T08:00:00Z"
    duration: float = 2.0
    queued: float = 0.0
    outcome: Outcome = "finished"
    failure: tuple[int, str] = (PAGE_NOT_LOADED, "Navigation timeout")
    failed_step: int | None = None
    output: Any = field(default=None, hash=False)
    files: tuple[EmulatedFile, ...] | None = None
    downloads: tuple[EmulatedFile, ...] | None = None
    credits_per_step: int = 5
    extra_credits: int = 0
    file_lifetime: float = 24 * 3600.0
    output_after: float = 0.0
    listed_after: float = 0.0
    one_at_a_time: bool = False
    pause_at: float | None = None
    pausing_for: float = 0.0
    pause_limit: float | None = None
    resume_after: float = 0.0
    stop_after: float = 0.0
    unknown_at: float | None = None
    unknown_for: float = 0.0
    status: str | None = None
    callback_fault: CallbackFault | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("id must not be empty")
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}, got {self.outcome!r}")
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            if setting.type in ("float", "float | None") and value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{setting.name} must be a number from 0, got {value!r}")
            if setting.type == "int" and (type(value) is not int or value < 0):
                raise ValueError(f"{setting.name} must be a whole number from 0, got {value!r}")
        for name in ("pause_at", "unknown_at"):
            fraction = getattr(self, name)
            if fraction is not None and not 0 <= fraction <= 1:
                raise ValueError(f"{name} must be a fraction from 0 to 1, got {fraction!r}")
        # Checks the number and the sizes of the files, and whether the output is JSON.
        Output(files=self.files or (), downloads=self.downloads or (), value=self.output)
        if self.step_every == 0:
            raise ValueError("step_every must be more than 0")
        if not self.steps:
            raise ValueError("a workflow needs at least one step")
        if self.failed_step is not None and not 1 <= self.failed_step <= len(self.steps):
            raise ValueError(f"failed_step must be from 1 to {len(self.steps)}, got {self.failed_step!r}")

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its input on API v3."""
        if self.input_schema is not None:
            return self.input_schema
        return object_of({one.name: TEXT for one in self.inputs}, [one.name for one in self.inputs if one.required])

    def having(self, **settings: Unpack[WorkflowSettings]) -> Self:
        """Return this workflow with some settings changed.

        :raises TypeError: if there is no setting with that name
        :raises ValueError: if a value is invalid
        """
        known = WorkflowSettings.__annotations__.keys() & {each.name for each in dataclasses.fields(self)}
        if unknown := settings.keys() - known:
            raise TypeError(f"no such setting: {', '.join(sorted(unknown))} (there are: {', '.join(sorted(known))})")
        changes: dict[str, Any] = {**settings}
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class EmulatedTemplate(EmulatedWorkflow):
    """An official workflow template.

    :param recommendation: its ``recommendDesc``
    :param detail_url: its public page
    """

    recommendation: str = ""
    detail_url: str = ""


@dataclass(frozen=True)
class EmulatedBot(EmulatedWorkflow):
    """A bot that only API v3 serves.

    :param bot_type: ``agent`` or ``workflow``
    :param ready: whether the language model of the bot is configured. Otherwise, a run is refused with 10021
    """

    bot_type: BotType = "agent"
    ready: bool = True
