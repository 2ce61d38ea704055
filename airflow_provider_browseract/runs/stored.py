"""Values that are stored and received: written as plain JSON, and read back strictly."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

T = TypeVar("T")

Text = Annotated[str, Field(min_length=1)]
"""A text that is not empty."""

Count = Annotated[int, Field(ge=0)]
"""A whole number that is not negative."""

Moment = Annotated[float, Field(ge=0, lt=1e11)]
"""A moment in seconds since the epoch."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A length of time."""


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
        fields and quotes no values. Unknown fields are ignored: a newer version may have written them.
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


def read_argument(kind: type[T], value: Any) -> T:
    """Read an argument of a trigger; as :func:`from_json`.

    :raises TypeError: it cannot be read. A triggerer fails only the trigger that raises this; any other exception would
        stop the triggerer itself.
    """
    try:
        return from_json(kind, value)
    except ValueError as error:
        raise TypeError(f"the stored {kind.__name__} cannot be read: {error}") from None
