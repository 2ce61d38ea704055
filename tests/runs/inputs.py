"""Inputs of bots, made from schemas: 100 that must be refused, 100 that must be accepted, and 50 rendered templates."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from airflow_provider_browseract.runs.json_values import Path, place_of


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these names and no others."""
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


SCHEMAS: Mapping[str, Any] = {
    "contacts": closed(
        ["company_name"],
        company_name={"type": "string", "minLength": 2, "maxLength": 80},
        max_pages={"type": "integer", "minimum": 1, "maximum": 100, "default": 5},
    ),
    "prices": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **closed(
            ["currency", "cities"],
            currency={"enum": ["EUR", "USD", "GBP"]},
            min_price={"type": "number", "minimum": 0, "exclusiveMaximum": 1_000_000},
            in_stock={"type": "boolean"},
            cities={"type": "array", "items": {"type": "string", "maxLength": 40}, "minItems": 1, "maxItems": 4},
            filters=closed(["brand"], brand={"type": "string", "maxLength": 40}, max_price={"type": "number"}),
        ),
    },
    "generated": {
        **closed(
            ["since"],
            since={"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"},
            limit={"anyOf": [{"type": "integer", "maximum": 50}, {"type": "null"}]},
            depth={"type": ["integer", "null"], "minimum": 0},
            note={"type": "string", "nullable": True, "maxLength": 80},
            pages={"type": "array", "items": {"$ref": "#/$defs/Page"}, "maxItems": 3},
        ),
        "$defs": {"Page": closed(["number"], number={"type": "integer"}, ratio={"type": "number", "minimum": 0})},
    },
}
"""What bots declare, as people and as libraries write it."""

COMPLETE: Mapping[str, dict[str, Any]] = {
    "contacts": {"company_name": "Example Corp", "max_pages": 20},
    "prices": {
        "currency": "EUR",
        "min_price": 2.5,
        "in_stock": True,
        "cities": ["Paris", "Rome"],
        "filters": {"brand": "Acme", "max_price": 99},
    },
    "generated": {
        "since": "2026-11-28",
        "limit": 10,
        "depth": 2,
        "note": "new",
        "pages": [{"number": 1, "ratio": 0.5}, {"number": 2}],
    },
}
"""An input for each schema, with all its names."""


class Lazy(Sequence[str]):
    """The texts "a" and "b", as Airflow returns the results of mapped tasks."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return ["a", "b"][index]


MARK = 4_567_800_000
"""Numbers from here on, and texts that contain them, are in no schema and in no valid input."""


@dataclass(frozen=True)
class Refused:
    """An input that must be refused.

    :param kind: what is wrong with it.
    :param schema: the name of the schema.
    :param place: where it is wrong, as the message writes it.
    :param marks: what must not be in the message, because it was given.
    """

    id: str
    kind: str
    schema: str
    input: Any
    place: str
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rendered:
    """An input of templates.

    :param templates: the input, as it is written in a DAG.
    :param params: the DAG's parameters, which the templates use. They are also what must be sent.
    """

    id: str
    schema: str
    templates: dict[str, str]
    params: dict[str, Any]


def refused_inputs(number: int = 100) -> list[Refused]:
    """Return inputs of all kinds that their schemas do not accept."""
    by_kind: dict[str, list[Refused]] = {}
    for case in (case for name in SCHEMAS for case in _refused(name)):
        by_kind.setdefault(case.kind, []).append(case)
    # One of each kind after the other.
    mixed = [case for cases in itertools.zip_longest(*by_kind.values()) for case in cases if case is not None]
    return mixed[:number]


def accepted_inputs(number: int = 100) -> list[tuple[str, dict[str, Any]]]:
    """Return inputs that their schemas accept as they are, with the names of the schemas."""
    chance = random.Random(2)
    names = itertools.islice(itertools.cycle(SCHEMAS), number)
    return [(name, value_of(SCHEMAS[name], SCHEMAS[name], chance)) for name in names]


def rendered_inputs(number: int = 50) -> list[Rendered]:
    """Return inputs in which templates render typed values to texts."""
    chance = random.Random(3)
    cases: list[Rendered] = []
    while len(cases) < number:
        schema = list(SCHEMAS)[len(cases) % len(SCHEMAS)]
        value = value_of(SCHEMAS[schema], SCHEMAS[schema], chance)
        # A template that renders to None is an error of its own.
        given = {name: member for name, member in value.items() if member is not None}
        if any(not isinstance(member, str) for member in given.values()):
            templates = {
                name: f"{{{{ params.{name}{' | tojson' if isinstance(member, list | dict) else ''} }}}}"
                for name, member in given.items()
            }
            cases.append(Rendered(f"{schema}-{len(cases)}", schema, templates, given))
    return cases


def _refused(schema_name: str) -> Iterator[Refused]:
    schema, complete = SCHEMAS[schema_name], COMPLETE[schema_name]
    number = MARK

    def case(kind: str, path: Path, new: Any, place: str | None = None) -> Refused:
        value = deepcopy(complete)
        if new is _MISSING:
            del at(value, path[:-1])[path[-1]]
        else:
            put(value, path, new)
        where = place_of("input", path)
        return Refused(f"{schema_name}-{where}-{kind}", kind, schema_name, value, place or where, tuple(_marks(new)))

    for path, part in parts_of(schema, schema, complete):
        for kind, new in wrong_values(part, number):
            yield case(kind, path, new)
        # Each place has other values.
        number += 10
    for path, part in [((), schema), *parts_of(schema, schema, complete)]:
        if "properties" not in part:
            continue
        owner = place_of("input", path)
        for name in part["required"]:
            yield case("missing", (*path, name), _MISSING, f"{owner} lacks the required name '{name}'")
        for name in part["properties"]:
            wrong = name[:-1]
            place = f"{owner} has the unknown name '{wrong}' (did you mean '{name}'?)"
            yield case("mistyped", (*path, wrong), "", place)
        yield case("unknown", (*path, "zzz"), number, f"{owner} has the unknown name 'zzz'")
    pairs = [{"name": name, "value": value} for name, value in complete.items()]
    yield Refused(f"{schema_name}-pairs", "pairs", schema_name, pairs, "RunWorkflowOperator")
    yield Refused(f"{schema_name}-JSON text", "JSON text", schema_name, json.dumps(complete), "input is a text")


_MISSING = object()


def at(value: Any, path: Path) -> Any:
    """Return the value at a place within a value."""
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: Path, new: Any) -> None:
    """Replace the value at a place within a value, or add it."""
    at(value, path[:-1])[path[-1]] = new


def _marks(value: Any) -> Iterator[str]:
    text = json.dumps(value, default=lambda missing: "")
    yield from (word for word in text.replace('"', " ").split() if str(MARK)[:5] in word)


def _resolved(part: Any, root: Any) -> Any:
    if "$ref" in part:
        return root["$defs"][part["$ref"].rpartition("/")[2]]
    return {**part["anyOf"][0], "nullable": True} if "anyOf" in part else part


def _types(part: Any) -> set[str]:
    types = part.get("type", "string")
    return {types} if isinstance(types, str) else set(types)


def parts_of(part: Any, root: Any, value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the schema of each value within a complete one."""
    part = _resolved(part, root)
    if path:
        yield path, part
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, member in members:
        yield from parts_of(
            part["properties"][step] if isinstance(value, dict) else part["items"], root, member, (*path, step)
        )


def wrong_values(part: Any, number: int) -> Iterator[tuple[str, Any]]:
    """Yield values that a schema refuses, and that cannot be converted."""
    types = _types(part)
    if "null" not in types and not part.get("nullable"):
        yield "null", None
    if not types & {"string"}:
        yield "text", f"secret{number}"
        yield "empty text", ""
    if not types & {"array"}:
        yield "list", [f"secret{number + 1}"]
    if not types & {"object"}:
        yield "dict", {"value": f"secret{number + 2}"}
    if types & {"array", "object"}:
        yield "integer", number + 3
    if "integer" in types:
        yield "fraction", number + 0.5
        yield "boolean", True
    if "enum" in part:
        yield "not a choice", f"secret{number + 4}"
    if "minimum" in part:
        yield "too small", -number
    if "maximum" in part or "exclusiveMaximum" in part:
        yield "too large", number
        yield "too large as a text", str(number)
    if "maxLength" in part:
        yield "too long", f"secret{number + 5} " * 10
    if "pattern" in part:
        yield "no match", f"secret{number + 6}"
    if "maxItems" in part:
        yield "too many", [f"secret{number + 7}"] * 9
    if "minItems" in part:
        yield "too few", []


def value_of(part: Any, root: Any, chance: random.Random) -> Any:
    """Return a value that a schema accepts."""
    part = _resolved(part, root)
    types = _types(part)
    if ("null" in types or part.get("nullable")) and chance.random() < 0.2:
        return None
    if "enum" in part:
        return chance.choice(part["enum"])
    if "pattern" in part:
        return f"{chance.randint(1000, 9999)}-{chance.randint(10, 99)}-{chance.randint(10, 99)}"
    if "object" in types:
        needed = part["required"]
        return {
            name: value_of(member, root, chance)
            for name, member in part["properties"].items()
            if name in needed or chance.random() < 0.6
        }
    if "array" in types:
        length = chance.randint(part.get("minItems", 0), part["maxItems"])
        return [value_of(part["items"], root, chance) for _ in range(length)]
    if "boolean" in types:
        return chance.random() < 0.5
    if types & {"integer", "number"}:
        low, high = part.get("minimum", 0), part.get("maximum", 50)
        return chance.randint(low, high) if "integer" in types else round(chance.uniform(low, high), 2)
    # Texts that look like other types stay texts.
    texts = ["Example Corp", "20", "true", "null", "[1]", "{}", "1.50", "Größe <b> 'x'", "two\nlines"]
    return chance.choice([each for each in texts if len(each) >= part.get("minLength", 0)])
