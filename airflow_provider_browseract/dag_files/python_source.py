"""Python source of values, laid out as ruff lays it out, whatever the length of its lines.

What does not fit in :data:`LINE_LENGTH` has one member in each line, and a comma after the last one. Because of that
comma, formatters that allow longer lines leave it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LINE_LENGTH = 88
"""The default of ruff and black."""


def literal(text: str) -> str:
    """Return a string literal in one line, with the quotes that need fewer escapes, and double ones if in doubt."""
    if text.isprintable() and not any(char in text for char in "\\\"'"):
        return f'"{text}"'
    quote = '"' if text.count('"') <= text.count("'") else "'"
    return f"{quote}{''.join(_escaped(char, quote) for char in text)}{quote}"


def _escaped(char: str, quote: str) -> str:
    if char in ("\\", quote):
        return f"\\{char}"
    return char if char.isprintable() else repr(char)[1:-1]


def expression(value: Any) -> str:
    """Return a JSON value as Python source in one line."""
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(name)}: {expression(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(expression, value)) + "]"
    # Formatters leave out the plus of an exponent.
    return repr(value).replace("e+", "e")


def lines_of(before: str, value: Any, after: str = "", indent: int = 0) -> list[str]:
    """Return the lines of a JSON value between two texts."""
    line = f"{' ' * indent}{before}{expression(value)}{after}"
    if fits(line) or not value or not isinstance(value, list | tuple | Mapping):
        return [line]
    if isinstance(value, Mapping):
        members = [(f"{literal(name)}: ", member) for name, member in value.items()]
        opening, closing = "{}"
    else:
        members = [("", member) for member in value]
        opening, closing = "[]"
    return [
        f"{' ' * indent}{before}{opening}",
        *(line for start, member in members for line in lines_of(start, member, ",", indent + 4)),
        f"{' ' * indent}{closing}{after}",
    ]


def call_of(before: str, arguments: Sequence[str], after: str = "", indent: int = 0) -> list[str]:
    """Return the lines of a call.

    :param before: what is before the bracket.
    :param arguments: each of them in one line.
    """
    line = f"{' ' * indent}{before}({', '.join(arguments)}){after}"
    if fits(line):
        return [line]
    inner = " " * (indent + 4)
    return [f"{' ' * indent}{before}(", *(f"{inner}{each}," for each in arguments), f"{' ' * indent}){after}"]


def fits(line: str) -> bool:
    """Return whether a line is certainly short enough, however wide its characters are."""
    return len(line) + sum(not char.isascii() for char in line) <= LINE_LENGTH
