"""Which task is the run of a start: compare a listed task with what was sent."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from airflow_provider_browseract.api.models import InputParameter, SourceInfo, Task, TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.ledger import Entry
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.runs.schemas import declared_defaults

CUT_LENGTH = 64
"""Characters from which a listed value that is a prefix of the sent value may be a truncated copy of it."""

MAX_TEXT = 1024 * 1024
"""Characters of a task's listed inputs that are compared."""

MAX_SEPARATORS = 20_000
"""Separators in a task's listed inputs that are compared."""

MAX_VALUES = 100_000
"""Values, at all levels together, in the input of a bot's run that are compared."""


@dataclass(frozen=True)
class Orphan:
    """A run that a start may have created, and what is known about it.

    :param request: the request of that start; None if it is no longer known.
    :param created_until: the run was created before this moment, in seconds since the epoch.
    :param listed_from: before this moment, the run may be missing in the list of tasks. A list without it, or with a
        similar run, then proves nothing.
    :param behind: seconds by which BrowserAct's clock is certainly behind ours.
    """

    entry: Entry
    request: RunRequest | None
    created_until: float
    listed_from: float
    behind: float = 0.0

    @property
    def since(self) -> datetime:
        """The run was created at this moment or later."""
        return datetime.fromtimestamp(self.entry.written_at - timings.CLOCK_SKEW, timezone.utc)

    @property
    def until(self) -> datetime:
        """The run was created at this moment or earlier."""
        return datetime.fromtimestamp(self.created_until, timezone.utc)


@dataclass(frozen=True)
class Declared:
    """What a workflow or bot declares about its inputs.

    :param parameters: the inputs of a workflow.
    :param defaults: the defaults in the schema of a bot, by name.
    """

    parameters: tuple[InputParameter, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def by(cls, source: SourceInfo) -> Declared:
        """Return what a workflow or bot declares."""
        return cls(source.input_parameters, declared_defaults(source.input_schema))


def match_task(task: Task, orphan: Orphan, declared: Declared) -> bool | None:
    """Return whether a task is the run that was started; None if that is not certain."""
    entry, request = orphan.entry, orphan.request
    source = entry.source
    if task.id in entry.earlier:
        return False
    # The run of a template can have any workflow, but it has no bot.
    if task.bot_id is not None if source.is_template else task.source_id not in (None, source.id):
        return False
    created = task.created_at
    if created is not None and not orphan.since <= created <= orphan.until:
        return False
    if request is None:
        return None
    if source.kind in (SourceKind.WORKFLOW, SourceKind.TEMPLATE):
        inputs = inputs_match(task.input_parameters or "", request.inputs, declared.parameters)
    else:
        inputs = bot_input_matches(task.input, request.inputs, declared.defaults)
    if inputs is False or (request.profile_id and task.profile_id not in (None, request.profile_id)):
        return False
    # A run that was created earlier is older than the start, unless BrowserAct's clock is behind ours.
    earliest = entry.written_at - orphan.behind - timings.CLOCK_RESOLUTION
    sure = created is not None and created.timestamp() >= earliest
    # Nothing in the list shows which template a run is of.
    sure = sure and not source.is_template and (not request.profile_id or task.profile_id is not None)
    return inputs if sure else None


def came_to_nothing(task: Task) -> bool:
    """Return whether a run has ended without a result. Nobody can use it, but it has used credits."""
    return task.status in (TaskStatus.FAILED, TaskStatus.CANCELED)


def inputs_match(text: str, inputs: Mapping[str, str], declared: Sequence[InputParameter] = ()) -> bool | None:
    """Return whether a task was started with some inputs.

    :param text: the inputs as the API shows them, ``key=value; key=value``, in any order.
    :param inputs: the inputs by name, as they were sent.
    :param declared: the inputs that the workflow declares. An input that is enabled by default may be listed with any
        value although it was not sent, because the API does not show the default value.
    :returns: True if the task has all sent inputs, and no other inputs except those with a default; False if an input
        has another value; None if it cannot be decided, also because the text is too long.
    """
    if len(text) > MAX_TEXT or text.count(";") > MAX_SEPARATORS:
        return None
    listed = _without_spaces(text)
    sent = [(_without_spaces(name), _without_spaces(value)) for name, value in inputs.items()]
    names = {_without_spaces(one.name) for one in declared} | {name for name, _ in sent}
    added = {_without_spaces(one.name) for one in declared if one.default_enabled is True}
    pieces = [f"{name}={value}" for name, value in sent]
    # If a name has a separator, or a value looks like several inputs, the text of other inputs can be the same.
    if (
        any(sign in name for name in names for sign in "=;")
        or len(dict(sent)) < len(sent)
        or [item for piece in pieces for item in _items(piece, names)] != sent
    ):
        return None
    # The last value may end with a separator, or the list may.
    matches = {_items_match(_items(each, names), dict(sent), added) for each in (listed, listed.removesuffix(";"))}
    if True in matches:
        return True
    # A hidden or truncated value cannot be distinguished from another value.
    hidden = any(sign in listed and not any(sign in piece for piece in pieces) for sign in ("*", "...", "\u2026"))
    return None if hidden or None in matches else False


def _items(text: str, names: Collection[str]) -> list[tuple[str | None, str]]:
    """Return the names and values in a text. A value ends before the next known name."""
    items: list[tuple[str | None, list[str]]] = []
    for part in text.split(";") if text else ():
        name, sign, value = part.partition("=")
        if sign and name in names:
            items.append((name, [value]))
        elif items:
            items[-1][1].append(part)
        else:
            items.append((None, [part]))
    return [(name, ";".join(parts)) for name, parts in items]


def _items_match(
    items: Iterable[tuple[str | None, str]], sent: Mapping[str, str], added: Collection[str]
) -> bool | None:
    listed: dict[str | None, list[str]] = {}
    for name, value in items:
        listed.setdefault(name, []).append(value)
    if all(listed.get(name) == [value] for name, value in sent.items()) and all(
        name in sent or (name in added and len(values) == 1) for name, values in listed.items()
    ):
        return True
    differs = any(
        name in listed and not any(_may_be(each, value) for each in listed[name]) for name, value in sent.items()
    )
    return False if differs else None


def _may_be(listed: str, sent: str) -> bool:
    """Return whether a listed value, perhaps truncated or followed by an unknown input, may be the sent one."""
    if listed.startswith(sent) and listed[len(sent) : len(sent) + 1] in ("", ";"):
        return True
    return any(len(each) >= CUT_LENGTH and sent.startswith(each) for each in (listed, listed.partition(";")[0]))


def _without_spaces(text: str) -> str:
    """Return the text without whitespace, which BrowserAct may change."""
    return "".join(text.split())


def bot_input_matches(
    listed: Mapping[str, Any] | None, sent: Mapping[str, Any], defaults: Mapping[str, Any]
) -> bool | None:
    """Return whether a run of a bot was started with some input.

    A value and its JSON text count as equal, because we convert values to the types in the bot's schema, and BrowserAct
    may do so too.

    :param listed: the input as the API shows it; None if it shows none.
    :param sent: the input before or after our conversion.
    :param defaults: the defaults in the bot's schema. A name that was not sent may be listed with its default.
    :returns: True if the run has all sent values, and no other names except those with a default; False if a value is
        missing or another one; None if it cannot be decided, also because the inputs are too large.
    """
    if listed is None or (sent and not listed):
        return None
    try:
        return _Comparison().members(listed, sent, defaults)
    except (OverflowError, RecursionError):
        # There are too many values or levels.
        return None


class _Comparison:
    """Compares JSON values: True if they are equal, False if they differ, None if that cannot be decided."""

    def __init__(self) -> None:
        self._values = 0

    def members(self, listed: Mapping[str, Any], sent: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool | None:
        """Compare objects."""

        def each() -> Iterator[bool | None]:
            for name, value in sent.items():
                if name in listed:
                    yield self.value(listed[name], value)
                else:
                    # A list may leave out null.
                    yield None if value is None else False
            for name in listed.keys() - sent.keys():
                yield (name in defaults and self.value(listed[name], defaults[name])) or None

        return _all(each())

    def value(self, listed: Any, sent: Any) -> bool | None:
        """Compare values of any type."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise OverflowError
        if isinstance(listed, str) and listed == sent:
            return True
        one, other = _parsed(listed), _parsed(sent)
        if isinstance(one, dict) and isinstance(other, dict):
            return self.members(one, other, {})
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and _all(map(self.value, one, other))
        equal = isinstance(one, bool) is isinstance(other, bool) and one == other
        if isinstance(listed, str) and isinstance(sent, str):
            # Nothing was converted, so texts such as 1.1 and 1.10 may be two inputs.
            is_alike = equal or _without_spaces(listed) == _without_spaces(sent)
        elif equal:
            return True
        else:
            is_alike = _is_rounded(one, other)
        return None if is_alike or (isinstance(listed, str) and _may_be_hidden(listed, sent, other)) else False


def _all(results: Iterable[bool | None]) -> bool | None:
    """Return what the results of parts mean for the whole."""
    whole: bool | None = True
    for result in results:
        if result is False:
            return False
        if result is None:
            whole = None
    return whole


def _parsed(value: Any) -> Any:
    """Return the value that a text stands for, if it is JSON or a boolean of Python, and anything else unchanged."""
    if not isinstance(value, str):
        return value
    if value in ("True", "False"):
        return value == "True"
    try:
        return json.loads(value, parse_float=_finite, parse_constant=_finite)
    except ValueError:
        return value


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError
    return number


def _is_rounded(listed: Any, sent: Any) -> bool:
    """Return whether a listed number may be the sent one, which has more digits than a float."""
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in (listed, sent)):
        return False
    with suppress(OverflowError):
        return float(listed) == float(sent)
    return False


_HIDDEN = r"\*|\.\.\.|\u2026|\u2022|\u25cf"
"""What masked or truncated texts contain."""

_WORD_FOR_HIDDEN = re.compile(r"\W?(?:filtered|hidden|masked|redacted|removed)\W?", re.IGNORECASE)
"""What some services show instead of a hidden value."""


def _may_be_hidden(listed: str, sent: Any, parsed: Any) -> bool:
    """Return whether a listed text may be a masked or truncated copy of a value.

    :param parsed: the value that the sent text stands for.
    """
    if _WORD_FOR_HIDDEN.fullmatch(listed):
        return True
    if isinstance(parsed, dict | list) and listed.lstrip()[:1] == ("{" if isinstance(parsed, dict) else "["):
        return True
    text = sent if isinstance(sent, str) else json.dumps(sent, ensure_ascii=False)
    first, last = re.search(_HIDDEN, listed), re.match(f"(?s:.*)(?:{_HIDDEN})", listed)
    if first and last:
        before, after = listed[: first.start()], listed[last.end() :]
        return text.startswith(before) and text[len(before) :].endswith(after)
    return len(listed) >= CUT_LENGTH and text.startswith(listed)
