"""The types of fields in responses. Except for an id, each reads a value of another kind as ``None``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypeAlias

import pendulum
from pydantic import PlainValidator

from airflow_provider_browseract.api.arguments import MAX_ID_LENGTH

Json: TypeAlias = Any

MAX_LINE_LENGTH = 1000
"""Characters of a text from a response that people read, such as a goal or a message."""

MAX_LEVELS = 150
"""Objects and arrays in each other, in values that are kept as they were sent. Our own inputs have at most 100."""

MAX_LINK_LENGTH = 2048
"""Characters of an address that is shown to people. BrowserAct accepts as many in a callback's address."""


def kind_of(data: Json) -> str:
    """Describe a value that should be another one, without showing it."""
    return "nothing" if data is None else f"JSON of type {type(data).__name__}"


def one_line(value: Json, length: int = MAX_LINE_LENGTH) -> str | None:
    """Return a value as one printable line of limited length for logs and messages, or None if it is empty.

    Texts from web pages could otherwise forge lines of a log or control the terminal that shows it.
    """
    text = "" if value is None else str(value)[: 2 * length]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())[:length] or None


def read_count(value: Json) -> int | None:
    """Read a count, which may be sent as text or as a floating-point number."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        return int(value)
    number = int(value) if isinstance(value, float) and value.is_integer() else _number(value)
    return number if number is not None and number >= 0 else None


def optional_id(value: Json) -> str | None:
    """Read an id. What cannot be one counts as none: ids are shown and sent, and a shortened one would be another."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        text = str(value)
        return text if 0 < len(text) <= MAX_ID_LENGTH and text.isprintable() else None
    return None


def _id(value: Json) -> str:
    if (read := optional_id(value)) is None:
        raise ValueError("it is not an id")
    return read


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _line(value: Json) -> str | None:
    return one_line(value) if isinstance(value, str) else None


def _link(value: Json) -> str | None:
    url = _text(value)
    if url is None or len(url) > MAX_LINK_LENGTH or not url.lower().startswith(("http://", "https://")):
        return None
    return url if url.isprintable() and " " not in url else None


def _number(value: Json) -> int | None:
    # Larger numbers would be texts of any length in a log.
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**20 else None


def _flag(value: Json) -> bool | None:
    return value if isinstance(value, bool) else None


def _object(value: Json) -> dict[str, Any] | None:
    level: list[Any] = [value] if isinstance(value, dict) else []
    for _ in range(MAX_LEVELS + 1):
        if not level:
            return value if isinstance(value, dict) else None
        inside = (part for each in level for part in (each.values() if isinstance(each, dict) else each))
        level = [part for part in inside if isinstance(part, dict | list)]
    return None


def _time(value: Json) -> datetime | None:
    # pendulum reads some words as times, such as "now".
    if not isinstance(value, str) or not value[:1].isdigit():
        return None
    try:
        moment = pendulum.parse(value)
    except Exception:  # noqa: BLE001 - an odd time must not fail the call, and pendulum raises more than ParserError
        return None
    return moment if isinstance(moment, datetime) else None


Id = Annotated[str, PlainValidator(_id)]
"""A required id. It is a string, because ids have 17 digits, and floating-point numbers would lose some of them."""

OptionalId = Annotated[str | None, PlainValidator(optional_id)]

OptionalText = Annotated[str | None, PlainValidator(_text)]
"""A text as it was sent."""

Line = Annotated[str | None, PlainValidator(_line)]
"""A text for people: one printable line of limited length."""

Link = Annotated[str | None, PlainValidator(_link)]
"""An address that is shown to people as a link: http or https, without spaces, and of limited length."""

Number = Annotated[int | None, PlainValidator(_number)]
"""A whole number."""

Flag = Annotated[bool | None, PlainValidator(_flag)]
"""``True`` or ``False``."""

JsonObject = Annotated[dict[str, Any] | None, PlainValidator(_object)]
"""An object as it was sent, unless it is nested so deeply that it could not be compared or written."""

Time = Annotated[datetime | None, PlainValidator(_time)]
"""A moment."""


def is_envelope_of_success(data: Json) -> bool:
    """Return whether a response is BrowserAct's envelope with the code of a success."""
    return isinstance(data, Mapping) and str(data.get("code")) == "0"
