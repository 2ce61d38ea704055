"""Whether a listed task is the run of a start: yes, no, or None if that is not certain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.worker.ledger import Entry

CUT_LENGTH = 64
"""Characters from which a listed value that is a prefix of the sent value may be a truncated copy of it."""

SIGNS = ("*", "...", "\u2026", "\u2022", "\u25cf")
"""What masked or truncated texts contain."""

WORDS = re.compile(r"\W?(?:filtered|hidden|masked|redacted|removed)\W?", re.IGNORECASE)
"""What some services show instead of a value."""


def match_task(task: Task, entry: Entry, request: RunRequest | None) -> bool | None:
    """Return whether a task, which was created in the time of a start, is its run.

    :param request: what was to be run; None if that is no longer known.
    """
    source = entry.source
    if task.id in entry.earlier:
        return False
    # The run of a template can have any workflow, but it has no bot.
    if task.bot_id is not None if source.is_template else task.source_id not in (None, source.id):
        return False
    if request is None:
        return None
    if source.kind in (SourceKind.WORKFLOW, SourceKind.TEMPLATE):
        same = same_texts(task.input_parameters or "", request.inputs)
    else:
        same = same_values(task.input, request.inputs)
    if same is False or (request.profile_id and task.profile_id not in (None, request.profile_id)):
        return False
    # A run that was created earlier is another one, unless BrowserAct's clock is behind ours.
    created = task.created_at
    sure = created is not None and created.timestamp() >= entry.written_at - timings.CLOCK_RESOLUTION
    # Nothing in a list shows which template a run is of.
    sure = sure and not source.is_template and (not request.profile_id or task.profile_id is not None)
    return same if sure else None


def same_texts(listed: str, sent: Mapping[str, str]) -> bool | None:
    """Return whether a workflow was started with these inputs, and perhaps with others that have defaults.

    :param listed: the inputs as the API shows them, ``key=value; key=value``, in any order, with other whitespace.
    """
    # Without inputs, any run would match.
    if not sent:
        return None if listed.strip() else True
    text = f";{_without_spaces(listed)};"
    pieces = {_without_spaces(name): _without_spaces(f"{name}={value}") for name, value in sent.items()}
    # A value that looks like an input would make two different lists of inputs equal.
    if len(pieces) < len(sent) or any(f";{name}=" in piece for name in pieces for piece in pieces.values()):
        return None
    left = text
    for piece in sorted(pieces.values(), key=len, reverse=True):
        left = left.replace(f";{piece};", ";", 1)
    found = len(left) == len(text) - sum(len(piece) + 1 for piece in pieces.values())
    twice = any(f";{name}=" in left for name in pieces)
    if found:
        return None if twice else True
    missing = [(name, piece) for name, piece in pieces.items() if f";{piece};" not in text]
    cut = any(f";{piece[: len(name) + 1 + CUT_LENGTH]}" in text for name, piece in missing if len(piece) > CUT_LENGTH)
    if cut or _may_be_hidden(listed, "".join(pieces.values())) or not missing:
        return None
    return False if any(f";{name}=" in text for name, _ in missing) else None


def same_values(listed: Mapping[str, Any] | None, sent: Mapping[str, Any]) -> bool | None:
    """Return whether a bot was started with this input, and perhaps with other names that have defaults.

    A value and its JSON text count as equal, because we convert values to the types in the bot's schema.
    """
    # Without inputs, any run would match.
    if listed is None or bool(sent) != bool(listed):
        return None
    try:
        # A list may leave out null.
        absent = {name: None if value is None else False for name, value in sent.items()}
        return _all(_same(listed[name], value) if name in listed else absent[name] for name, value in sent.items())
    except RecursionError:
        return None


def _all(results: Iterable[bool | None]) -> bool | None:
    """Return False if a part is False, otherwise None if a part is None, otherwise True."""
    found = set(results)
    return False if False in found else None if None in found else True


def _same(listed: Any, sent: Any) -> bool | None:
    if isinstance(listed, str) and listed == sent:
        return True
    one, other = _parsed(listed), _parsed(sent)
    if isinstance(one, dict) and isinstance(other, dict):
        same = same_values(one, other)
        return None if same and one.keys() - other.keys() else same
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and _all(map(_same, one, other))
    equal = isinstance(one, bool) is isinstance(other, bool) and one == other
    if equal and not (isinstance(listed, str) and isinstance(sent, str)):
        return True
    # Nothing was converted, so texts such as 1.1 and 1.10 may be two inputs.
    shown, given = (each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in (listed, sent))
    alike = equal or _without_spaces(shown) == _without_spaces(given) or _is_rounded(one, other)
    return None if alike or (isinstance(listed, str) and _may_be_hidden(listed, given)) else False


def _parsed(value: Any) -> Any:
    """Return the value that a text stands for, if it is JSON or a boolean of Python, and anything else unchanged."""
    if value in ("True", "False"):
        return value == "True"
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_rounded(listed: Any, sent: Any) -> bool:
    """Return whether a listed number may be the sent one, which has more digits than a float."""
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in (listed, sent)):
        return False
    with suppress(OverflowError):
        return float(listed) == float(sent)
    return False


def _may_be_hidden(listed: str, sent: str) -> bool:
    """Return whether a listed text may be a masked or truncated copy of a sent one."""
    if WORDS.fullmatch(listed) or any(listed.count(sign) > sent.count(sign) for sign in SIGNS):
        return True
    # What cannot be read as JSON although it begins like that was cut off.
    return listed[:1] in ("{", "[") or (len(listed) >= CUT_LENGTH and sent.startswith(listed))


def _without_spaces(text: str) -> str:
    """Return the text without whitespace, which BrowserAct may change."""
    return "".join(text.split())
