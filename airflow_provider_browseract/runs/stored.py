"""Values that are stored and received: written as plain JSON, and read back strictly."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")

Text = Annotated[str, Field(min_length=1)]
"""A text that is not empty."""

Count = Annotated[int, Field(ge=0)]
"""A whole number that is not negative."""

Moment = Annotated[float, Field(ge=0, lt=1e11)]
"""A moment in seconds since the epoch."""

Seconds = Annotated[float, Field(gt=0)]
"""A length of time."""

EXACT = ConfigDict(extra="forbid")
"""Refuse unknown fields; for the ``__pydantic_config__`` of a stored value that only this version writes."""


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def to_json(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON values."""
    written: dict[str, Any] = _adapter(type(value)).dump_python(value, mode="json")
    return written


def from_json(kind: type[T], value: Any) -> T:
    """Read what :func:`to_json` returned.

    :param kind: the dataclass.
    :param value: plain JSON values.
    :raises ValueError: a field is missing, has another type, or a value that it cannot have. The message names the
        fields and quotes no values.
    """
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"it is of type {type(value).__name__}, and not JSON") from None
    try:
        read: T = _adapter(kind).validate_json(text, strict=True)
        return read
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
        # pydantic words what a check of our own raises in the same way, with a prefix.
        said = (f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}" for each in wrong)
        raise ValueError("; ".join(each.removeprefix(": ") for each in said)) from None
