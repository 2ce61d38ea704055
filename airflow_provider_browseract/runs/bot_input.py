"""Check the input of a bot against its JSON Schema before a run uses credits, and give rendered texts their types.

Messages have places, rules and parts of the schema, but no value that was given, because it can be secret. The schema
comes from BrowserAct, and a worker checks with it for its own task, so what a check costs is not limited here.

Functions import jsonschema, because DAG files import this module.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeVar

from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.runs.hints import did_you_mean, not_a_dict
from airflow_provider_browseract.runs.stored import json_text

T = TypeVar("T")

MAX_NAMED = 10
"""Problems, names or places in a message. The others are counted."""

MAX_SHOWN = 100
"""Characters of a name, or of a part of the schema, in a message."""

TYPES: Mapping[str, type | tuple[type, ...]] = {
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "array": list,
    "object": dict,
}
"""The Python types for the types of JSON Schema. The first one that fits is the narrowest."""

EXACT_INTEGERS = 2**53
"""From here on, programs that read JSON numbers as floating-point numbers change integers."""


class SchemaUnusableError(ValueError):
    """A value cannot be checked with a schema. The message states why, as a clause, without the value."""


@dataclass(frozen=True)
class Conformed:
    """An input that conforms to the schema of a bot.

    :param input: the input to send.
    :param converted: the places of converted values, such as ``input['max_pages']``: the first ones, and the number of
        the others.
    :param undeclared: in the same way, the names at the top that the schema allows, but does not declare, with similar
        ones.
    """

    input: dict[str, Any] = field(repr=False)
    converted: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()


def read_input(value: Any) -> dict[str, Any]:
    """Check the ``input`` of a bot without its schema, and return it as JSON values.

    :param value: a mapping of names to JSON values, or ``None`` for no input. The results of mapped tasks and other
        sequences become lists, and mappings become dicts.
    :raises InputError: it is something else, or contains something that is not JSON. The message has no value.
    """
    if not isinstance(value, Mapping | None):
        forms = "a dict of names and values (only RunWorkflowOperator and RunTemplateOperator take a list)"
        raise not_a_dict("input", value, forms)
    read: dict[str, Any] = {}
    for name, member in (value or {}).items():
        try:
            _check_names(one := {name: member})
            text = json_text(one)
            # A lone surrogate is valid JSON, but cannot be encoded as UTF-8.
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            why = error if isinstance(error, TypeError) else type(error).__name__
            raise InputError(
                f"{_place([name])} cannot be written as JSON ({why}). Pass a string or a JSON value, for example a "
                "time as .isoformat(), or a set as a list."
            ) from None
        read |= json.loads(text)
    return read


def _check_names(value: Any) -> None:
    # json.dumps makes texts of other names, and two of them could become equal.
    for name, member in value.items() if isinstance(value, Mapping) else ():
        if not isinstance(name, str):
            raise TypeError(f"it has a name of type {type(name).__name__}")
        _check_names(member)
    for member in value if isinstance(value, list | tuple) else ():
        _check_names(member)


def conform(input: Mapping[str, Any], schema: Any, what: str) -> Conformed:
    """Check an input against the schema of a bot, and convert values of a wrong type where nothing is lost.

    The given input is not changed. A value that conforms stays as it is, and defaults are not filled in.

    :param input: JSON values by name, as :func:`read_input` returns them.
    :param what: the bot, for messages.
    :raises InputError: the input does not conform. The message has all problems.
    :raises SchemaUnusableError: the schema cannot be used.
    """
    copied, converted = deepcopy(dict(input)), dict[tuple[str | int, ...], None]()
    try:
        validator = _validator(schema)
        # A text that becomes a list or a dict can contain further texts to convert.
        while problems := [*validator.iter_errors(copied)]:
            wanted = {path: types for path, types in _wanted_types(problems).items() if path and path not in converted}
            changed = [path for path, types in wanted.items() if len(types) == 1 and _convert(copied, path, *types)]
            if not changed:
                break
            converted |= dict.fromkeys(changed)
        reasons = [*dict.fromkeys(map(_reason, problems))]
    except Exception as error:  # noqa: BLE001 - jsonschema raises errors of all kinds for malformed schemas
        raise SchemaUnusableError(_why_unusable(error)) from None
    if reasons:
        raise InputError(f"The input does not match the schema of {what}: {'; '.join(_first(reasons, str))}.")
    return Conformed(copied, _first([*converted], _place), _undeclared(copied, schema))


def _validator(schema: Any) -> Any:
    import attrs
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend, validator_for
    from referencing import Registry

    dialect = validator_for(schema, default=Draft202012Validator)
    # Otherwise a malformed rule could refuse a right input.
    dialect.check_schema(schema)
    rules = {**dialect.VALIDATORS, "multipleOf": _multiple_of}
    checker = extend(dialect, {name: _or_null(rule) for name, rule in rules.items()})
    # Otherwise jsonschema's own rules would check what a schema with the name of a dialect refers to.
    checker.evolve = attrs.evolve
    # With an empty registry, nothing is fetched.
    return checker(schema, registry=Registry())


def _or_null(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Return a rule that accepts None where the schema has ``nullable``, a word of OpenAPI."""

    def check(validator: Any, part: Any, value: Any, schema: Any) -> Any:
        return () if value is None and schema.get("nullable") is True else rule(validator, part, value, schema)

    return check


def _multiple_of(validator: Any, factor: Any, value: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    # Divided as floating-point numbers, 19.99 is no multiple of 0.01.
    if validator.is_type(value, "number") and Fraction(repr(value)) % Fraction(repr(factor)):
        yield ValidationError("")


def _why_unusable(error: Exception) -> str:
    from jsonschema import SchemaError
    from referencing.exceptions import Unresolvable

    if isinstance(error, SchemaError):
        return f"its part {_shown('/'.join(map(str, error.absolute_path)))} is malformed"
    if isinstance(error, Unresolvable):
        return "it refers to a schema that is not part of it"
    if isinstance(error, RecursionError):
        return "it refers to itself without an end"
    return f"it is malformed ({type(error).__name__})"


# Problems


def _reason(problem: Any) -> str:
    """Describe a problem by place and rule, because the message of jsonschema can contain the value."""
    from jsonschema.exceptions import best_match

    problem = best_match([problem])
    place, rule, part = _place(problem.absolute_path), problem.validator, problem.validator_value
    if rule is None:
        return f"{place} has a part that is not allowed"
    if rule == "required":
        return "; ".join(
            f"{place} lacks the required name {_shown(each)}" for each in part if each not in problem.instance
        )
    if rule == "additionalProperties" and part is False:
        known, patterns = problem.schema.get("properties", {}), problem.schema.get("patternProperties", {})
        unknown = [
            each for each in problem.instance if each not in known and not any(re.search(one, each) for one in patterns)
        ]
        return "; ".join(f"{place} has the unknown name {_shown(each)}{did_you_mean(each, known)}" for each in unknown)
    if rule != "type":
        return f"{place} does not follow the rule {rule}: {_shown(part)}"
    given = next(name for name, kind in TYPES.items() if isinstance(problem.instance, kind))
    is_python = given == "string" and problem.instance.lstrip()[:1] in ("[", "{")
    hint = " (for a list or dict in a template, add the filter tojson)" if is_python else ""
    return f"{place} must be of type {part if isinstance(part, str) else ' or '.join(part)}, not {given}{hint}"


def _place(path: Iterable[str | int]) -> str:
    """Name a place as Python would, such as ``input['cities'][0]``."""
    return "input" + "".join(f"[{_shown(step)}]" for step in path)


def _shown(part: Any) -> str:
    text = repr(part)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _first(items: list[T], write: Callable[[T], str]) -> tuple[str, ...]:
    """Write the first items, and the number of the others as the last one."""
    more = len(items) - MAX_NAMED
    return (*map(write, items[:MAX_NAMED]), *([f"{more:,} more"] if more > 0 else []))


def _undeclared(input: Mapping[str, Any], schema: Any) -> tuple[str, ...]:
    """Describe the names at the top that a schema allows, but does not declare. Some rules can declare names too."""
    others = ("$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "dependencies", "patternProperties")
    if not isinstance(schema, Mapping) or not schema.get("properties") or any(rule in schema for rule in others):
        return ()
    if schema.get("additionalProperties", True) not in (True, {}):
        return ()
    known = {*schema["properties"], *schema.get("required", ())}
    return _first([name for name in input if name not in known], lambda name: _shown(name) + did_you_mean(name, known))


# Conversion


def _wanted_types(problems: Iterable[Any]) -> dict[tuple[str | int, ...], set[str]]:
    """Return the places of values of a wrong type, and the types that the schema names for each, without null."""
    wanted: dict[tuple[str | int, ...], set[str]] = {}
    for problem in problems:
        # A choice between one type and null has a problem for each. Of other choices, nobody knows which one is meant.
        others = [each for each in problem.validator_value if each != {"type": "null"}] if problem.context else []
        for part, types in _wanted_types(problem.context if len(others) == 1 else ()).items():
            wanted.setdefault(part, set()).update(types)
        if problem.validator == "type":
            named = problem.validator_value
            types = {named} if isinstance(named, str) else {*named}
            wanted.setdefault(tuple(problem.absolute_path), set()).update(types - {"null"})
    return wanted


def _convert(root: Any, path: tuple[str | int, ...], wanted: str) -> bool:
    """Convert a value in its place if nothing is lost, and return whether that was so."""
    *steps, last = path
    for step in steps:
        root = root[step]
    converted = _converted(root[last], wanted)
    if converted is not None:
        root[last] = converted
    return converted is not None


def _converted(given: Any, wanted: str) -> Any:
    """Return a text as another type, or a number or boolean as a text; None if something would be lost."""
    if wanted == "string":
        return json.dumps(given) if isinstance(given, bool | int | float) else None
    if not isinstance(given, str):
        return None
    text = {"True": "true", "False": "false"}.get(given, given)
    try:
        read = json.loads(text, parse_int=_exact, parse_float=_exact, parse_constant=_exact, object_pairs_hook=_members)
        # A lone surrogate cannot be encoded as UTF-8.
        json_text(read).encode()
    except (ValueError, ArithmeticError, RecursionError):
        return None
    is_right = isinstance(read, TYPES[wanted]) and isinstance(read, bool) == (wanted == "boolean")
    return read if is_right else None


def _exact(text: str) -> int | float:
    """Read a number of JSON.

    :raises ValueError: a program that reads it as a floating-point number would change it.
    """
    number = float(text)
    if not math.isfinite(number) or Decimal(repr(number)) != Decimal(text):
        raise ValueError
    is_integer = text.lstrip("-").isdigit() and abs(number) < EXACT_INTEGERS
    return int(text) if is_integer else number


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError
    return members
