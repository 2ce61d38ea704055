"""Which task is the run of a start: compare a listed task with what was sent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from airflow_provider_browseract.api.models import InputParameter, Task, TaskStatus
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.ledger import Entry
from airflow_provider_browseract.runs.request import RunRequest

CUT_LENGTH = 64
"""Characters from which a listed value that is a prefix of the sent value may be a truncated copy of it."""

MAX_TEXT = 1024 * 1024
"""Characters of a task's listed inputs that are compared."""

MAX_SEPARATORS = 20_000
"""Separators in a task's listed inputs that are compared."""


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


def match_task(task: Task, orphan: Orphan, declared: Sequence[InputParameter] = ()) -> bool | None:
    """Return whether a task is the run that was started; None if that is not certain.

    :param declared: the inputs that the workflow declares, if they were read.
    """
    entry, request = orphan.entry, orphan.request
    # A failed or canceled run is useless, so it does not matter whether it is the wanted one.
    if task.id in entry.earlier or task.status in (TaskStatus.FAILED, TaskStatus.CANCELED):
        return False
    if not entry.source.is_template and task.workflow_id not in (None, entry.source.id):
        return False
    created = task.created_at
    if created is not None and not orphan.since <= created <= orphan.until:
        return False
    if request is None:
        return None
    inputs = inputs_match(task.input_parameters or "", request.inputs, declared)
    if inputs is False or (request.profile_id and task.profile_id not in (None, request.profile_id)):
        return False
    # A run that was created earlier is older than the start, unless BrowserAct's clock is behind ours.
    earliest = entry.written_at - orphan.behind - timings.CLOCK_RESOLUTION
    sure = created is not None and created.timestamp() >= earliest
    # Nothing in the list shows which template a run is of.
    sure = sure and not entry.source.is_template and (not request.profile_id or task.profile_id is not None)
    return inputs if sure else None


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
