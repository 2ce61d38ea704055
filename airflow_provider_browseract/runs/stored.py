"""Write stored values as plain JSON, and read them back strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from airflow_provider_browseract.api.validation import adapter, first_problem

T = TypeVar("T")

Text = Annotated[str, Field(min_length=1)]
"""A text that is not empty."""

Count = Annotated[int, Field(ge=0)]
"""A whole number that is not negative."""

Moment = Annotated[float, Field(ge=0, lt=1e11)]
"""A moment in seconds since the epoch."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A length of time."""


def json_text(value: Any) -> str:
    """Write JSON. The lazy sequences that Airflow returns for the results of mapped tasks become lists.

    :raises TypeError: a part of the value is not JSON.
    :raises ValueError: a number is not finite, or the value contains itself.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")


def to_json(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON values."""
    written: dict[str, Any] = adapter(type(value)).dump_python(value, mode="json")
    return written


def from_json(kind: type[T], value: Any) -> T:
    """Read a value that :func:`to_json` returned.

    Unknown fields are ignored, because a newer version may have written them.

    :raises ValueError: a field is missing, has another type, or an invalid value. The message names the field and
        quotes no value.
    """
    try:
        read: T = adapter(kind).validate_json(json.dumps(value), strict=True)
        return read
    except ValidationError as error:
        raise ValueError(": ".join(filter(None, first_problem(error)))) from None
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"it is of type {type(value).__name__} and is not JSON") from None


def read_argument(kind: type[T], value: Any) -> T:
    """Return an argument of a trigger, which is a value of that kind or what :func:`to_json` returned for one.

    :raises TypeError: the value cannot be read. A ``TypeError`` fails only its trigger; any other exception would stop
        the triggerer.
    """
    if isinstance(value, kind):
        return value
    try:
        return from_json(kind, value)
    except ValueError as error:
        raise TypeError(f"the stored {kind.__name__} cannot be read: {error}") from None


def storable(text: str) -> str:
    """Replace characters that a database cannot store: lone surrogates, which JSON can contain, and NUL."""
    clean = text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    return clean.replace("\0", "\ufffd")
