"""How the fields of BrowserAct's responses are read: ids, names, texts for people, addresses, times and inputs."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Annotated, Any

import pendulum
from pydantic import AfterValidator, BeforeValidator, Field

from airflow_provider_browseract.api.arguments import PATH_ID

MAX_LINE_LENGTH = 1000
"""Characters of a text from a response that people read, such as a goal or a message."""

MAX_LINK_LENGTH = 2048
"""Characters of an address that is shown to people. BrowserAct accepts as many in a callback's address."""

HTTP = "^[Hh][Tt][Tt][Pp][Ss]?://[^ ]*$"
"""An address with http or https, without spaces."""


def one_line(value: Any, length: int = MAX_LINE_LENGTH) -> str | None:
    """Return a value as one printable line of limited length for logs and messages, or None if it is empty.

    Texts from web pages could otherwise forge lines of a log or control the terminal that shows it.
    """
    text = "" if value is None else str(value)[: 2 * length]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())[:length] or None


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has characters that cannot be shown")
    return text


def _time(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    # pendulum reads some words as times, such as "now".
    if not value[:1].isdigit():
        raise ValueError("it is not a time")
    moment: Any = pendulum.parse(value)
    # Of the first or last hours of the calendar, the time in another zone is an error.
    moment.astimezone(timezone.utc)
    return moment


def _id(value: Any) -> Any:
    # As text, "inf" would be an id.
    if isinstance(value, float):
        raise ValueError("it is not a text or a whole number")
    return value


def _string(value: Any) -> str | None:
    return value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False)


def _inputs(value: Any) -> Any:
    # Some of the vendor's examples show the list of pairs that was sent. With anything but texts, it is another one.
    if not isinstance(value, list):
        return value
    pairs = [(pair["name"], pair["value"]) for pair in value]
    if not all(isinstance(text, str) for pair in pairs for text in pair):
        raise ValueError("these are not the texts that were sent")
    return "; ".join(f"{name}={text}" for name, text in pairs)


def camel(name: str) -> str:
    # As pydantic.alias_generators.to_camel, which DAG files would have to import.
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


Id = Annotated[str, Field(pattern=f"^{PATH_ID.pattern}$"), BeforeValidator(_id)]
"""An id. It is a string, because ids have 17 digits, and it can be a part of an address."""

Name = Annotated[str, Field(min_length=1, max_length=200), BeforeValidator(_id), AfterValidator(_printable)]
"""A name that people have given, or an id that is never a part of an address."""

Url = Annotated[str, Field(strict=True)]
"""The address of a file. No other value is converted to it."""

Line = Annotated[str | None, BeforeValidator(lambda value: one_line(value) if isinstance(value, str) else None)]
"""A text for people: one printable line of limited length."""

Link = Annotated[str, Field(max_length=MAX_LINK_LENGTH, pattern=HTTP), AfterValidator(_printable)]
"""An address that is shown to people as a link: http or https, without spaces, and of limited length."""

Text = Annotated[str | None, BeforeValidator(_string)]
"""A text, or the JSON text of another value."""

Inputs = Annotated[str | None, BeforeValidator(_inputs)]
"""The inputs of a workflow as one text."""

Number = Annotated[int, Field(gt=-(10**18), lt=10**18)]
"""A whole number that can be shown."""

Time = Annotated[datetime, BeforeValidator(_time)]
"""A moment."""
