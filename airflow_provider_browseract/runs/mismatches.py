"""Describe where a value does not match a JSON Schema, by place, rule and schema, and without the value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeVar

from airflow_provider_browseract.runs.hints import did_you_mean
from airflow_provider_browseract.runs.json_values import Path, cut, place_of

T = TypeVar("T")

MAX_NAMED = 10
"""Errors, names or places in a message. The others are counted."""

MAX_COMPARED_NAMES = 500
"""Names that a wrong name is compared with."""

MAX_COMPARED_LENGTH = 50
"""Characters of these names."""

_TYPES = {
    "string": "a text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
    "array": "a list",
    "object": "a dict",
    "null": "None",
}

_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}

_WORDS = {
    "enum": "must be one of {}",
    "const": "must be {}",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} names",
    "maxProperties": "must have at most {} names",
    "pattern": "must match the pattern {}",
    "uniqueItems": "must not have an item twice",
}


class Found:
    """What is wrong with a value, whose name in messages is ``root``. Its text is a clause."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.reasons: list[str] = []
        self.errors = 0
        self.types: dict[Path, set[str]] = {}
        """The types that are wanted at places, where a rule names one type, or one type and null."""
        self.python_text = False
        """Whether there is the text of a Python list or dict in place of one, as a template renders it."""

    def __bool__(self) -> bool:
        return bool(self.reasons)

    def __str__(self) -> str:
        more = self.errors - MAX_NAMED
        return "; ".join([*self.reasons, *([f"and {more:,} more"] if more > 0 else [])])

    def add(self, error: Any) -> None:
        """Add an error of jsonschema."""
        if error.validator == "type":
            names = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
            if len(wanted := set(names) - {"null"}) == 1:
                self.types.setdefault(tuple(error.absolute_path), set()).update(wanted)
            self.python_text |= isinstance(error.instance, str) and error.instance.lstrip()[:1] in ("[", "{")
        self.errors += 1
        if self.errors <= MAX_NAMED and (reason := _reason(error, self.root)) not in self.reasons:
            self.reasons.append(reason)


def _reason(error: Any, root: str) -> str:
    """Describe an error by place, rule and schema, because the error's own message contains the value."""
    rule, part, path = error.validator, error.validator_value, tuple(error.absolute_path)
    if rule in ("required", "additionalProperties"):
        *path_to, name = path
        owner, shown = place_of(root, path_to), cut(repr(name))
        if rule == "required":
            return f"{owner} lacks the required name {shown}"
        return f"{owner} has the unknown name {shown}{similar_of(name, error.schema.get('properties', ()))}"
    place = place_of(root, path)
    if rule is None:
        # jsonschema does not tell which part.
        return f"{place} has a part that is not allowed"
    if rule == "type":
        wanted = " or ".join(_TYPES[each] for each in ([part] if isinstance(part, str) else part))
        given = "null" if error.instance is None else _KINDS[type(error.instance)]
        return f"{place} must be {wanted}, but {_TYPES[given]} was given"
    if rule not in _WORDS:
        return f"{place} does not match the schema (rule {rule!r})"
    words = _WORDS[rule].removesuffix("s") if part == 1 else _WORDS[rule]
    return f"{place} {words.format(cut(', '.join(map(repr, part)) if rule == 'enum' else repr(part)))}"


def similar_of(name: str, known: Iterable[str]) -> str:
    """Return which of some names a wrong name resembles, as an addition to a message."""
    short = [each for each in islice(known, MAX_COMPARED_NAMES) if len(each) <= MAX_COMPARED_LENGTH]
    return did_you_mean(name[:MAX_COMPARED_LENGTH], short)


def first_of(items: list[T], write: Callable[[T], str]) -> tuple[str, ...]:
    """Write the first items, and the number of the others as the last one."""
    more = len(items) - MAX_NAMED
    written = tuple(write(item) for item in items[:MAX_NAMED])
    return (*written, f"{more:,} more") if more > 0 else written
