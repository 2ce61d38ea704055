"""The arguments of an operator that are no templates, as one checked value.

They are checked when a DAG is parsed, so that a wrong one is an import error of the DAG, and again before a run is
started, because a cluster policy may have changed them and a mapped task gets them only then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from inspect import iscoroutinefunction
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from airflow_provider_browseract.api.arguments import optional, read_choice, read_credits, read_flag, read_seconds
from airflow_provider_browseract.api.models import Word
from airflow_provider_browseract.exceptions import InputError

PauseCallback = Callable[[Any], Any]
PauseCallbacks = PauseCallback | Sequence[PauseCallback] | None


class OutputFormat(Word):
    """Format of an output's text."""

    AUTO = "auto"  # JSON if the text can be read as JSON (of a bot, only an object or array), and text otherwise
    JSON = "json"
    CSV = "csv"  # with a header line
    TEXT = "text"


class OnPaused(Word):
    """What to do when a run pauses for a person."""

    WAIT = "wait"
    FAIL = "fail"  # and stop the run
    ASK = "ask"  # people in Airflow, with a Required Action


class Answer(Word):
    """An answer to the Required Action of a paused run."""

    RESUME = "resume"
    STOP = "stop"

    @property
    def option(self) -> str:
        """The label of the button that a person presses."""
        return self.value.capitalize()


class OnBudget(Word):
    """What a task does if the budget refuses its start."""

    FAIL = "fail"  # without a retry
    WAIT = "wait"  # in the triggerer until the next day or month begins, then in the queue for slots


@dataclass(frozen=True)
class AskPerson:
    """Ask people in Airflow when a run pauses: the value of ``on_paused`` with a time limit and a default answer.

    The pause becomes a Required Action with the live view of the browser and the answers Resume and Stop.

    :param timeout: seconds, or a ``timedelta``, to wait for the answer. Default: as long as the run may take.
    :param default: what to do if nobody answers in that time: ``"stop"`` or ``"resume"``. Default: ``"stop"``.
    :raises InputError: one of them has another value.
    """

    timeout: float | timedelta | None = None
    default: str = Answer.STOP.value

    def __post_init__(self) -> None:
        optional(read_seconds, "timeout of AskPerson", self.timeout)
        read_choice("default of AskPerson", self.default, Answer)


def _on_paused(name: str, value: Any) -> OnPaused | AskPerson:
    if isinstance(value, AskPerson):
        return value
    chosen = read_choice(name, value, OnPaused)
    return AskPerson() if chosen is OnPaused.ASK else chosen


def _callbacks(name: str, value: Any) -> list[PauseCallback]:
    given = [value] if callable(value) else value if isinstance(value, list | tuple) else [] if value is None else None
    if given is None or not all(callable(each) for each in given):
        raise InputError(f"{name} is {value!r}. Pass a notifier or a function, or a list of them.")
    if any(map(iscoroutinefunction, given)):
        raise InputError(f"{name} is {value!r}. Pass functions that are not async; they are not awaited.")
    return list(given)


def _read_by(read: Callable[[str, Any], Any]) -> PlainValidator:
    """Let a function read an argument, whose name it gets for the message."""
    return PlainValidator(lambda value, info: read(info.field_name, value))


def _choice(choices: type[Enum]) -> PlainValidator:
    return _read_by(partial(read_choice, choices=choices))


Flag = Annotated[bool, _read_by(read_flag)]
OptionalSeconds = Annotated[float | None, _read_by(partial(optional, read_seconds))]


class RunOptions(BaseModel):
    """The options of a run, which ``RunWorkflowOperator`` describes, read from the attributes of an operator.

    Lengths of time are in seconds.
    """

    model_config = ConfigDict(from_attributes=True, frozen=True)

    output_path: Any
    output_format: Annotated[OutputFormat, _choice(OutputFormat)]
    validate_inputs: Flag
    # Airflow's BaseOperator has a method named dry_run.
    dry_run: Flag = Field(validation_alias="_dry")
    wait_for_completion: Flag
    deferrable: Flag
    webhook: Annotated[bool | None, _read_by(partial(optional, read_flag))]
    has_own_callback: bool
    poll_interval: OptionalSeconds
    timeout: Annotated[float, _read_by(read_seconds)]
    queue_timeout: OptionalSeconds
    max_credits: Annotated[int | None, _read_by(partial(optional, read_credits))]
    on_budget: Annotated[OnBudget, _choice(OnBudget)]
    durable: Flag
    # OnPaused | AskPerson: with that type, pydantic would load its dataclasses in each process that reads a DAG file.
    on_paused: Annotated[Any, _read_by(_on_paused)]
    on_paused_callback: Annotated[list[PauseCallback], _read_by(_callbacks)]
    show_live_view: Flag
    cancel_on_kill: Flag
    # Only of workflows.
    save_browser_data: Flag = False

    @classmethod
    def of(cls, operator: Any) -> RunOptions:
        """Check the attributes of an operator, and return them as options.

        :raises InputError: an argument has an invalid value, or does not go with another one.
        """
        try:
            return cls.model_validate(operator)
        except ValidationError as error:
            raise error.errors()[0]["ctx"]["error"] from None

    @model_validator(mode="after")
    def _go_together(self) -> RunOptions:
        if self.webhook and self.has_own_callback:
            raise InputError(
                "webhook=True goes with neither callback_url nor status_change_callback_url: BrowserAct calls back the "
                "addresses that you give, and this task then polls its run. Remove webhook, or the addresses."
            )
        if self.webhook and not self.waits_deferred:
            raise InputError(
                "webhook=True needs deferrable=True and wait_for_completion=True: a callback can only resume a task "
                "that is deferred."
            )
        needs_end = {
            "output_path": self.output_path is not None,
            "max_credits": self.max_credits is not None,
            "on_paused='ask'": self.asks,
            "on_paused_callback": self.on_paused_callback,
        }
        why = "a task that does not wait for its run sees neither its pauses nor its end, and cannot stop it"
        for argument, is_set in needs_end.items():
            if is_set and not self.wait_for_completion:
                raise InputError(f"{argument} needs wait_for_completion=True: {why}.")
        return self

    @property
    def waits_deferred(self) -> bool:
        """Whether the task instance waits for its run in the triggerer."""
        return self.deferrable and self.wait_for_completion

    @property
    def asks(self) -> bool:
        """Whether people are asked in Airflow when the run pauses."""
        return isinstance(self.on_paused, AskPerson)

    @property
    def watches_pauses(self) -> bool:
        """Whether a worker has to do something when the run pauses."""
        return self.on_paused is not OnPaused.WAIT or bool(self.on_paused_callback)

    @property
    def answer_timeout(self) -> float | None:
        """Seconds to wait for an answer of a person; None for as long as the run may take."""
        return optional(read_seconds, "timeout", getattr(self.on_paused, "timeout", None))

    @property
    def default_answer(self) -> Answer | None:
        """The answer that applies if nobody answers in that time; None if nobody is asked."""
        return Answer(self.on_paused.default) if isinstance(self.on_paused, AskPerson) else None
