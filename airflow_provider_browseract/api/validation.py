"""What pydantic does for received and stored values alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
"""Return what reads and writes the values of a type."""


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return where the first problem of a value is, "" for the whole value, and what it is. The value is not quoted."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # pydantic adds a prefix to the messages of our own checks.
    return ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
