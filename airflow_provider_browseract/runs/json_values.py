"""JSON values in Python: copy them, name a place in them, compare them, and convert them without loss."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias

from airflow_provider_browseract.api.models import one_line
from airflow_provider_browseract.exceptions import InputError

Path: TypeAlias = tuple[str | int, ...]
"""The names and positions that lead to a value."""

MAX_VALUES = 1_000_000
"""Values that are copied, at all levels together."""

MAX_LEVELS = 100
"""Objects and arrays in each other."""

MAX_BITS = 1024
"""Size of an integer. Floating-point numbers, as which many programs read JSON, end there."""

MAX_CUT_LENGTH = 100
"""Characters of a name, or of something else of any length, in a message."""

MAX_PLACE_LENGTH = 400

MAX_NUMBER_LENGTH = 400
"""Characters of a text that is converted to a number. Without an exponent, the smallest numbers have more than 300."""


def copy_json(value: Any, root: str, most: int = MAX_VALUES) -> Any:
    """Copy JSON values: mappings to dicts, and sequences, also lazy ones, to lists.

    :param root: the name of the value in messages.
    :param most: how many values it may have, at all levels together.
    :raises InputError: a part of it is not JSON, or it is too large. The message names the place, but no value.
    """
    path: list[str | int] = []
    left = most

    def error(problem: str) -> InputError:
        return InputError(f"{place_of(root, path)} {problem}")

    def copy_text(text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise error("has a text with a character that UTF-8 does not have.") from None
        return str.__str__(text)

    def copy(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise InputError(f"{root} has more than {most:,} values.")
        if len(path) > MAX_LEVELS:
            raise InputError(f"{root} has more than {MAX_LEVELS} levels.")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return copy_text(value)
        if isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise error(f"is a number of more than {MAX_BITS:,} bits. Pass it as a text.")
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise error("is NaN or infinite. JSON has no such numbers.")
            return float(value)
        if isinstance(value, Mapping):
            members: dict[str, Any] = {}
            for name, member in value.items():
                if not isinstance(name, str):
                    raise error(f"has a name of type {type(name).__name__}. Use texts as names.")
                path.append(name)
                members[copy_text(name)] = copy(member)
                path.pop()
            return members
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            items = []
            for position, item in enumerate(value):
                path.append(position)
                items.append(copy(item))
                path.pop()
            return items
        raise error(f"is of type {type(value).__name__}. Pass a JSON value: a time as .isoformat(), a set as a list.")

    return copy(value)


def place_of(root: str, path: Iterable[str | int]) -> str:
    """Name a place as Python would, such as ``input['cities'][0]``, in one line of limited length."""
    place = root + "".join(f"[{cut(repr(step))}]" for step in path)
    half = MAX_PLACE_LENGTH // 2
    return place if len(place) <= MAX_PLACE_LENGTH else f"{place[:half]}...{place[-half:]}"


def cut(text: str) -> str:
    """Return a text as one line of limited length."""
    line = one_line(text, MAX_CUT_LENGTH + 1) or ""
    return line if len(line) <= MAX_CUT_LENGTH else f"{line[:MAX_CUT_LENGTH]}..."


def comparable(value: Any) -> Any:
    """Return something hashable that is equal for equal JSON values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return dict, frozenset((name, comparable(member)) for name, member in value.items())
    if isinstance(value, list):
        return list, tuple(map(comparable, value))
    return (bool, value) if isinstance(value, bool) else value


def convert(value: Any, wanted: str) -> Any:
    """Convert a text to another type, or a number or boolean to a text.

    :param wanted: the type, as JSON Schema names it.
    :returns: the converted value, or ``None`` if something would be lost, or the text could mean something else.
    """
    if wanted == "string" and isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str) or wanted not in _FROM_TEXT:
        return None
    try:
        return _FROM_TEXT[wanted](value)
    except (ValueError, RecursionError):
        return None


def _integer(text: str) -> int:
    # Larger ones lose digits in programs that read them as floating-point numbers.
    if not re.fullmatch("0|-?[1-9][0-9]{0,15}", text) or abs(int(text)) >= 2**53:
        raise ValueError
    return int(text)


def _number(text: str) -> int | float:
    try:
        return _integer(text)
    except ValueError:
        pass
    # Without a limit, an exponent of any length would be read.
    if len(text) > MAX_NUMBER_LENGTH or not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
        raise ValueError
    number = float(text)
    if not math.isfinite(number) or Decimal(repr(number)) != Decimal(text):
        raise ValueError
    return number


def _container(kind: type, text: str) -> Any:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(read := dict(pairs)) < len(pairs):
            raise ValueError
        return read

    # A constant is NaN or infinite, which is no number either.
    read = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_number, object_pairs_hook=members)
    return copy_json(read, "") if isinstance(read, kind) else None


_FROM_TEXT: Mapping[str, Callable[[str], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": {"true": True, "True": True, "false": False, "False": False}.get,
    "object": partial(_container, dict),
    "array": partial(_container, list),
}
