"""What a workflow of the emulator is: its settings, and what its runs produce."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from airflow_provider_browseract.emulator.faults import CallbackFault

PAGE_NOT_LOADED, BLOCKED = 10001, 1011
"""The only failure codes in BrowserAct's documents."""

Outcome = Literal["finished", "failed", "canceled"]
Kind = Literal["workflow", "template", "bot"]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Credits = Annotated[int, Field(ge=0, strict=True)]


class RunFailed(Exception):
    """Raised by a behaviour to end its run as ``failed`` with this code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


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

    :param prepared_after: seconds after the end of the run from which the file is available
    :param broken: ``errorMessage`` of a download that never becomes available
    """

    name: str
    content: bytes
    content_type: str = "application/octet-stream"
    prepared_after: float = 0.0
    broken: str | None = None


@dataclass(frozen=True)
class Output:
    """What a run produces: a value, output files, downloads, or several of these.

    :param value: a text, or any other JSON value but null, which API v2 returns as a text. An empty text is no output
    """

    value: Any = ""
    files: tuple[EmulatedFile, ...] = ()
    downloads: tuple[EmulatedFile, ...] = ()

    @property
    def string(self) -> str:
        """The value as a text."""
        return self.value if isinstance(self.value, str) else json.dumps(self.value)

    def __post_init__(self) -> None:
        _ = self.string  # Raises an error if it is no JSON value.


@dataclass(frozen=True)
class RunContext:
    """The data of a run that its behaviour can use.

    :param inputs: the input parameters by name; texts, or any JSON values with API v3
    :param cookies: the state of the browser profile. ``save_browser_data`` saves changes
    :param confirmed: whether the pause, if any, was ended by ``resume-task`` and not by its time limit
    """

    inputs: Mapping[str, Any]
    cookies: dict[str, str]
    confirmed: bool = True


TEXT = {"type": "string"}


def object_of(properties: dict[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """Return the schema of an object without other members."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def explained(invalid: pydantic.ValidationError) -> str:
    """Return the first reason why values are invalid, with the place but without the value."""
    error = invalid.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"


@pydantic.dataclasses.dataclass(frozen=True, config={"use_attribute_docstrings": True})
class EmulatedWorkflow:
    """A workflow, a template or a bot of the emulated account, and the behaviour of its runs. All times are seconds."""

    id: Annotated[str, Field(min_length=1)]
    """The id, with which runs are started."""
    name: str
    """The name that lists show."""
    kind: Kind = "workflow"
    """What it is: a ``workflow``, which API v3 serves as a workflow-built bot; an official ``template``; or a ``bot``,
    which is agent-built and on API v3 only."""
    description: str = ""
    """What its runs do."""
    inputs: tuple[WorkflowInput, ...] = ()
    """The input parameters that it declares."""
    input_schema: Any = dataclasses.field(default=None, hash=False)
    """The JSON Schema of the bot's ``input``, which a start has to conform to. Default: None, which means one that is
    made of ``inputs``, all of them texts."""
    output_schema: Any = dataclasses.field(default=None, hash=False)
    """The JSON Schema of the bot's ``output``, if it has one. The emulator does not check outputs."""
    published: bool = True
    """Whether it can be run. Otherwise a start is refused with 10020."""
    created_at: str = "2026-01-05T08:00:00Z"
    """When it was created. The order in which workflows are listed."""
    published_at: str = "2026-01-06T08:00:00Z"
    """When it was published."""
    detail_url: str = ""
    """The public page of a template."""
    steps: Annotated[tuple[str, ...], Field(min_length=1)] = ("Open the page", "Collect the data", "Return the output")
    """The goal of each step. A run spreads them evenly over its duration."""
    behaviour: Callable[[RunContext], Output] = lambda _: Output()
    """Computes the output of a run that finishes, and may change its profile."""
    output: Any = dataclasses.field(default=None, hash=False)
    """A text, or any other JSON value but null, that replaces the value of the behaviour's output."""
    files: tuple[EmulatedFile, ...] | None = None
    """Output files that replace the behaviour's."""
    downloads: tuple[EmulatedFile, ...] | None = None
    """Downloads that replace the behaviour's."""
    duration: Seconds = 2.0
    """How long a run is ``running``. Default: 2; on the command line 15, long enough for a callback."""
    queued: Seconds = 0.0
    """How long it is ``created`` before that. Default: 0; on the command line 1."""
    outcome: Outcome = "finished"
    """The status with which it ends by itself: ``finished``, ``failed`` or ``canceled``."""
    failure: tuple[int, str] = (PAGE_NOT_LOADED, "Navigation timeout")
    """Code and message in ``task_failure_info`` if the outcome is ``failed``."""
    step_every: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The time from the beginning of one step to the next, in a run that never ends by itself. It repeats its steps
    until somebody stops it, whatever its duration and outcome. Default: None, which means that a run ends by itself."""
    credits_per_step: Credits = 5
    """The credits that each step uses. Default: 5."""
    output_after: Seconds = 0.0
    """How long after its end its output, files and downloads appear. Default: 0; on the command line 1."""
    listed_after: Seconds = 0.0
    """How long after its start it appears in lists. Default: 0; on the command line 2."""
    file_lifetime: Seconds = 24 * 3600.0
    """How long the links to its files stay valid. Default: 86,400, a day."""
    one_at_a_time: bool = False
    """Whether a start is refused while another run of this workflow is active, as with a Standard Browser. The code of
    that refusal, 90001, is not documented."""
    pause_at: Share | None = None
    """The fraction of the duration at which it pauses for a person. Default: None, which means never."""
    pause_limit: Seconds | None = None
    """How long a pause lasts if nobody resumes the run, which then continues unconfirmed. Default: None, which means
    forever."""
    stop_after: Seconds = 0.0
    """How long a run that is stopped stays as it is before it is ``canceled``. Until then, it can end by itself."""
    callback_fault: CallbackFault | None = None
    """The fault of every callback of a run."""

    def __post_init__(self) -> None:
        self.instead_of(Output())  # Raises an error if the output is no JSON value.

    def instead_of(self, output: Output) -> Output:
        """Return an output with what these settings have instead of it."""
        replaced = {"value": self.output, "files": self.files, "downloads": self.downloads}
        return dataclasses.replace(output, **{name: each for name, each in replaced.items() if each is not None})

    @property
    def bot_type(self) -> str:
        """The type of the bot as which API v3 serves it."""
        return "agent" if self.kind == "bot" else "workflow"

    @property
    def schema(self) -> Any:
        """The JSON Schema of its input on API v3."""
        if self.input_schema is not None:
            return self.input_schema
        return object_of({one.name: TEXT for one in self.inputs}, [one.name for one in self.inputs if one.required])

    def having(self, **settings: Any) -> EmulatedWorkflow:
        """Return this workflow with some settings changed.

        :param settings: the fields of this class, except for ``id`` and ``kind``
        :raises TypeError: if there is no setting with that name
        :raises ValueError: if a value is invalid
        """
        known = {each.name for each in dataclasses.fields(self)} - {"id", "kind"}
        if unknown := settings.keys() - known:
            raise TypeError(f"no such setting: {', '.join(sorted(unknown))} (there are: {', '.join(sorted(known))})")
        try:
            return dataclasses.replace(self, **settings)
        except pydantic.ValidationError as invalid:
            raise ValueError(explained(invalid)) from None
