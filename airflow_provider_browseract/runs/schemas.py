"""Check the input of a bot against its JSON Schema before a run uses credits.

Messages name places, rules and parts of the schema, but no value that was given, because it can be secret. A schema
comes from outside, so what it can cost is limited: its size, and the time of a check. Patterns are matched in linear
time, and not against texts of more than 10,000 characters. BrowserAct checks what is left out here, which are also the
rules ``format``, ``unevaluatedItems`` and ``unevaluatedProperties``.

Functions import jsonschema, because this module is imported when DAGs are parsed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Annotated, Any

import attrs
from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError

from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.runs.hints import not_a_dict
from airflow_provider_browseract.runs.json_values import Path, comparable, convert, copy_json, cut, place_of
from airflow_provider_browseract.runs.mismatches import Found, first_of, similar_of

MAX_SCHEMA_VALUES = 20_000
"""Values in a schema, at all levels together. One with 200 names has about 1,000."""

MAX_SECONDS = 5.0
"""Processor time of a check. An array of 20,000 texts takes 0.1 seconds."""

MAX_PATTERN_SECONDS = 0.5
"""Processor time for reading patterns. It also limits their memory: 10 to 100 MB. Simple ones take less than 1 ms."""

MAX_MATCHED_LENGTH = 10_000
"""Characters of a text that is matched against a pattern. A longer one counts as a match."""


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
    :raises InputError: it is something else, or contains something that is not JSON. The message names the place.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        copied: dict[str, Any] = copy_json(value, "input")
        return copied
    if isinstance(value, list):
        raise InputError(
            'input is a list. Pass a dict of names and values. A list of {"name": ..., "value": ...} is what '
            "RunWorkflowOperator takes as input_parameters."
        )
    raise not_a_dict("input", value, "a dict of names and values")


def conform(input: Mapping[str, Any], schema: Any, what: str) -> Conformed:
    """Check an input against the schema of a bot, and convert values of a wrong type where nothing is lost.

    A value that conforms is never changed. Defaults are not filled in.

    :param what: the bot, for messages.
    :raises InputError: the input does not conform. The message has all errors.
    :raises SchemaUnusableError: the schema cannot be used.
    """
    copied = read_input(input)
    converted: dict[Path, None] = {}
    with _any_error_as_unusable():
        check = _Check(schema)
        # A text that becomes a dict can contain further texts to convert.
        while found := check.find(copied, "input"):
            wanted = {path: types for path, types in found.types.items() if path not in converted}
            changed = [path for path, types in wanted.items() if len(types) == 1 and _convert_at(copied, path, *types)]
            if not changed:
                break
            converted.update(dict.fromkeys(changed))
    if found:
        hint = " For a list or dict in a template, add the filter tojson." if found.python_text else ""
        raise InputError(f"The input does not match the schema of {what}: {found}.{hint}")
    return Conformed(
        copied, first_of([*converted], lambda path: place_of("input", path)), _undeclared(copied, check.schema)
    )


@contextmanager
def _any_error_as_unusable() -> Iterator[None]:
    """Raise any error as ``SchemaUnusableError``: jsonschema raises errors of all kinds for malformed schemas."""
    try:
        yield
    except SchemaUnusableError:
        raise
    except InputError as error:
        raise SchemaUnusableError(str(error).rstrip(".")) from None
    except RecursionError:
        raise SchemaUnusableError("it refers to itself without an end") from None
    except Exception as error:  # noqa: BLE001 - see above
        from referencing.exceptions import Unresolvable

        if isinstance(error, Unresolvable):
            raise SchemaUnusableError("it refers to a schema that is not part of it") from None
        raise SchemaUnusableError(f"it is malformed ({type(error).__name__})") from None


class _Check:
    """A schema with its rules, and the time that checks with it may still take."""

    def __init__(self, schema: Any) -> None:
        from jsonschema import Draft3Validator, Draft202012Validator
        from jsonschema.exceptions import ValidationError as Error
        from jsonschema.validators import extend, validator_for
        from referencing import Registry

        if not isinstance(schema, Mapping | bool):
            raise SchemaUnusableError("it is not an object")
        self.schema = copy_json(schema, "the schema", MAX_SCHEMA_VALUES)
        self._error: Callable[..., Any] = Error
        self._deadline = time.thread_time() + MAX_SECONDS
        self._patterns: dict[str, TypeAdapter[str]] = {}
        self._reading_patterns = 0.0
        dialect = validator_for(self.schema, default=Draft202012Validator)
        if dialect is Draft3Validator:
            raise SchemaUnusableError("it is written for draft 3 of JSON Schema")
        own: dict[str, Callable[..., Any]] = {
            "required": self._required,
            "additionalProperties": self._additional_properties,
            "patternProperties": self._pattern_properties,
            "propertyNames": self._property_names,
            "pattern": self._pattern,
            "uniqueItems": self._unique_items,
            "multipleOf": self._multiple_of,
            "anyOf": self._any_of,
            "oneOf": partial(self._any_of, most=1),
            # For these, jsonschema matches patterns with an engine that can take years.
            "unevaluatedItems": _no_errors,
            "unevaluatedProperties": _no_errors,
        }
        rules = {name: self._bounded(name, own.get(name, rule)) for name, rule in dialect.VALIDATORS.items()}
        checker = extend(dialect, rules)
        # Otherwise jsonschema's own rules would check a part of the schema that names a dialect.
        checker.evolve = attrs.evolve
        # With an empty registry, nothing is fetched.
        self._validator = checker(self.schema, registry=Registry())

    def find(self, value: Any, root: str) -> Found:
        """Return what is wrong with a value, whose name in messages is ``root``."""
        found = Found(root)
        for error in self._validator.iter_errors(value):
            found.add(error)
        return found

    def _bounded(self, name: str, rule: Callable[..., Iterable[Any] | None]) -> Callable[..., Iterable[Any]]:
        """Return a rule that also ends a check that takes too long, finds malformed rules, and knows ``nullable``."""
        is_well_formed = _SHAPES.get(name)

        def check(validator: Any, part: Any, value: Any, schema: dict[str, Any]) -> Iterable[Any]:
            self._check_time()
            if is_well_formed is not None and not is_well_formed(part):
                raise SchemaUnusableError(f"its rule {name!r} is malformed")
            if value is None and schema.get("nullable") is True:
                return ()
            return rule(validator, part, value, schema) or ()

        return check

    def _check_time(self) -> None:
        if time.thread_time() > self._deadline:
            raise SchemaUnusableError(f"a check with it takes more than {MAX_SECONDS:g} seconds")

    def _matches(self, pattern: str, text: str) -> bool:
        self._check_time()
        if len(text) > MAX_MATCHED_LENGTH:
            return True
        if pattern not in self._patterns:
            # This engine takes linear time. It has no lookarounds and no backreferences.
            linear = ConfigDict(regex_engine="rust-regex")
            began = time.thread_time()
            try:
                self._patterns[pattern] = TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)], config=linear)
            except Exception:  # noqa: BLE001 - the class belongs to pydantic's core
                raise SchemaUnusableError(f"its pattern {cut(repr(pattern))} cannot be matched") from None
            self._reading_patterns += time.thread_time() - began
            if self._reading_patterns > MAX_PATTERN_SECONDS:
                raise SchemaUnusableError("its patterns are too large")
        try:
            self._patterns[pattern].validate_python(text)
        except ValidationError:
            return False
        return True

    def _required(self, validator: Any, names: list[str], value: Any, schema: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            yield from (self._error("", path=[name]) for name in names if name not in value)

    def _additional_properties(self, validator: Any, allowed: Any, value: Any, schema: Any) -> Iterator[Any]:
        declared, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name, member in value.items() if isinstance(value, dict) else ():
            if name in declared or any(self._matches(pattern, name) for pattern in patterns):
                continue
            if allowed is False:
                yield self._error("", path=[name])
            else:
                yield from validator.descend(member, allowed, path=name)

    def _pattern_properties(self, validator: Any, patterns: Any, value: Any, schema: Any) -> Iterator[Any]:
        for name, member in value.items() if isinstance(value, dict) else ():
            for pattern, wanted in patterns.items():
                if self._matches(pattern, name):
                    yield from validator.descend(member, wanted, path=name)

    def _property_names(self, validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        if isinstance(value, dict) and not all(_is_valid(validator, wanted, name) for name in value):
            yield self._error("")

    def _pattern(self, validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
        if isinstance(value, str) and not self._matches(pattern, value):
            yield self._error("")

    def _unique_items(self, validator: Any, unique: bool, value: Any, schema: Any) -> Iterator[Any]:
        # jsonschema compares each item with each other one if they cannot be sorted.
        if unique and isinstance(value, list) and len(set(map(comparable, value))) < len(value):
            yield self._error("")

    def _multiple_of(self, validator: Any, factor: Any, value: Any, schema: Any) -> Iterator[Any]:
        # Divided as floating-point numbers, 19.99 is no multiple of 0.01.
        if validator.is_type(value, "number") and Fraction(repr(value)) % Fraction(repr(factor)):
            yield self._error("")

    def _any_of(
        self, validator: Any, choices: list[Any], value: Any, schema: Any, most: float = math.inf
    ) -> Iterator[Any]:
        others = [each for each in choices if not (isinstance(each, dict) and each.get("type") == "null")]
        if len(others) == 1 < len(choices):
            # One type or null, as generated schemas write it: the errors of the type say more than one of the choice.
            if value is not None:
                yield from validator.descend(value, others[0])
        elif not 1 <= sum(_is_valid(validator, each, value) for each in choices) <= most:
            yield self._error("")


def _no_errors(*arguments: Any) -> Iterable[Any]:
    return ()


def _is_valid(validator: Any, schema: Any, value: Any) -> bool:
    return next(iter(validator.descend(value, schema)), None) is None


def _are_texts(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(each, str) for each in part)


_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")

_SHAPES: Mapping[str, Callable[[Any], bool]] = {
    "type": lambda part: isinstance(part, str) or (part != [] and _are_texts(part)),
    "required": _are_texts,
    "dependentRequired": lambda part: all(map(_are_texts, part.values())),
    "uniqueItems": lambda part: isinstance(part, bool),
    **dict.fromkeys(("enum", "anyOf", "oneOf"), lambda part: isinstance(part, list) and part != []),
    **dict.fromkeys(_LIMITS, lambda part: not isinstance(part, bool)),
}
"""Rules that could refuse a value, although they are malformed. The others raise an error then.

To check a schema against the schema of schemas would take 40 ms for 200 names.
"""


def _convert_at(value: Any, path: Path, wanted: str) -> bool:
    """Convert a part of a value in its place if nothing is lost, and return whether that was so."""
    if not path:
        return False
    for step in path[:-1]:
        value = value[step]
    converted = convert(value[path[-1]], wanted)
    if converted is not None:
        value[path[-1]] = converted
    return converted is not None


def _undeclared(input: dict[str, Any], schema: Any) -> tuple[str, ...]:
    """Describe the names at the top that a schema allows, but does not declare. Some rules can declare names too."""
    others = ("$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "dependencies", "patternProperties")
    if not isinstance(schema, Mapping) or any(rule in schema for rule in others):
        return ()
    declared = schema.get("properties")
    if not isinstance(declared, Mapping) or not declared or schema.get("additionalProperties", True) not in (True, {}):
        return ()
    known = {*declared, *schema.get("required", ())}
    return first_of(
        [name for name in input if name not in known], lambda name: f"{cut(repr(name))}{similar_of(name, known)}"
    )
