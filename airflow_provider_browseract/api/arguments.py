"""Checks of single arguments, before a call is sent and uses credits.

The functions ``read_...`` take the name of an argument, for messages, and its value. They return the value as it is
used, or raise :class:`~airflow_provider_browseract.exceptions.InputError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, TypeVar

from airflow_provider_browseract.exceptions import InputError

E = TypeVar("E", bound=Enum)
T = TypeVar("T")

LONGEST_TIME = 366 * 24 * 3600.0
"""The longest duration that an argument accepts, in seconds."""

MAX_ID_LENGTH = 200
"""Characters of an id. BrowserAct's ids have 17 to 32."""

PATH_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_ID_LENGTH}}}")
"""An id that can be a part of an address without any change."""

ID = "the id that the BrowserAct dashboard or an earlier task shows, such as 14721148181551181"
IDS = {
    "browseract_task_id": 'the id of a BrowserAct task, such as search.output["task_id"]',
    "profile_id": 'the id of a browser profile, such as log_in.output["profile_id"]',
    "region": 'a code such as "US", or leave region out for the default',
}
"""What an argument takes, if it is not just any id."""


def read_id(argument: str, value: Any) -> str:
    """Check a required id: a string or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    wanted = _wanted(argument)
    if isinstance(value, str) and re.fullmatch(r"\{+ ?[\w.]+ ?\}+", value):
        raise InputError(f"{argument} is {value[:100]!r}, which was not replaced. A template needs two braces.")
    # The output of a task can be long or confidential.
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        raise InputError(f"{argument} is the text of a dict or a list. Use {wanted}.")
    if not isinstance(value, str | float | bool | None):
        raise InputError(f"{argument} is of type {type(value).__name__}. Use {wanted}.")
    if not isinstance(value, str) or is_missing(value):
        raise InputError(f"{argument} is {value!r}. Use {wanted}.")
    return value.strip()


def _wanted(argument: str) -> str:
    return IDS.get(argument.partition("[")[0], ID)


def is_missing(value: Any) -> bool:
    """Return whether there is no value, or a template had none."""
    # Jinja renders a missing value as the word None, and a missing Variable as NOTSET.
    return value is None or (isinstance(value, str) and value.strip() in ("", "None", "NOTSET"))


def read_path_id(argument: str, value: Any) -> str:
    """Check a required id that may be a part of an address.

    With other characters, it could lead to another address, and so could the word of an endpoint. Every id has digits.
    """
    found = read_id(argument, value)
    if not PATH_ID.fullmatch(found) or not re.search("[0-9]", found):
        raise InputError(f"{argument} is {found[:100]!r}. Use {_wanted(argument)}, not a name or an address.")
    return found


def optional(read: Callable[[str, Any], T], argument: str, value: Any) -> T | None:
    """Check an argument that may be ``None``, and any other value as ``read`` does."""
    return None if value is None else read(argument, value)


def read_choice(argument: str, value: Any, choices: type[E]) -> E:
    """Check an argument that has a fixed set of values."""
    try:
        return choices(value)
    except ValueError:
        words = ", ".join(repr(choice.value) for choice in choices)
        raise InputError(f"{argument} is {value!r}. Use one of {words}.") from None


def read_ids(argument: str, value: Any) -> list[str]:
    """Check one id or a sequence of ids, such as the XComs of mapped tasks. Return each once."""
    if isinstance(value, str) and any(char in value for char in "[](),{} "):
        raise InputError(
            f"{argument} is a text with spaces, commas or brackets. If it is a list that was rendered to a text, set "
            f"render_template_as_native_obj=True on the DAG, or pass the XCom itself. Otherwise use "
            f"{_wanted(argument)}."
        )
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return [read_path_id(argument, value)]
    if not value:
        raise InputError(f"{argument} is an empty list. Pass at least one id.")
    return list(dict.fromkeys(read_path_id(f"{argument}[{index}]", each) for index, each in enumerate(value)))


def read_moment(argument: str, value: datetime) -> str:
    """Check a moment, and return it as the API takes it: in UTC and whole seconds."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InputError(f"{argument} is {str(value)[:100]!r}. Pass a datetime with a time zone.")
    return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_seconds(argument: str, value: Any) -> float:
    """Check a duration, a positive number of seconds or a ``timedelta``, and return it in seconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_TIME:
        raise InputError(f"{argument} is {value!r}. Use a positive number of seconds or a timedelta, at most a year.")
    return float(seconds)


def read_credits(argument: str, value: Any) -> int:
    """Check a whole number of credits, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10**18:
        raise InputError(f"{argument} is {value!r}. Use a whole number of credits, at least 1.")
    return value


def read_flag(argument: str, value: Any) -> bool:
    """Check an argument that is ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise InputError(f"{argument} is {value!r}. Use True or False.")
    return value


def given(**fields: Any) -> dict[str, Any]:
    """Return the arguments that are not ``None``."""
    return {name: value for name, value in fields.items() if value is not None}
