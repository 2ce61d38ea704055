"""Checks of the arguments of calls."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

E = TypeVar("E", bound=Enum)

LONGEST_TIME = 366 * 24 * 3600.0
"""The longest duration that an argument accepts, in seconds."""


class InputError(ValueError):
    """An argument cannot be used. The message names it, and the valid values or what to change."""


def read_id(argument: str, value: Any) -> str:
    """Check a required id, and return it as a string.

    :param value: the id, a string or a whole number.
    :raises InputError: the value is empty, ``None``, or of another type.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    # Jinja renders a missing value as the word None.
    if not isinstance(value, str) or value.strip() in ("", "None"):
        raise InputError(f"{argument} is {value!r}. Use the id that the BrowserAct dashboard or an earlier task shows.")
    return value.strip()


def read_choice(argument: str, value: Any, choices: type[E]) -> E:
    """Check an argument that has a fixed set of values.

    :raises InputError: the value is not one of them.
    """
    try:
        return choices(value)
    except ValueError:
        words = ", ".join(repr(choice.value) for choice in choices)
        raise InputError(f"{argument} is {value!r}. Use one of {words}.") from None
