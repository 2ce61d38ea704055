"""Inputs of bots, made from schemas: values that a schema accepts or refuses, and their places."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

Path = tuple[str | int, ...]
"""The names and positions that lead to a value."""


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


class Lazy(Sequence[str]):
    """Texts, as Airflow returns the results of mapped tasks."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> Any:
        return self.texts[index]


MARK = 4_567_800_000
"""Numbers from here on, and texts that contain them, are in no schema and in no valid input."""


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: Path, new: Any) -> None:
    at(value, path[:-1])[path[-1]] = new


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


def wrong_values(part: Any) -> Iterator[Any]:
    types = _types(part)
    if "null" not in types and not part.get("nullable"):
        yield None
    if not types & {"string"}:
        yield from (f"secret{MARK}", "")
    if not types & {"array"}:
        yield [f"secret{MARK}"]
    if not types & {"object"}:
        yield {"value": f"secret{MARK}"}
    if types & {"array", "object"}:
        yield MARK
    if "integer" in types:
        yield from (MARK + 0.5, True)
    if "enum" in part:
        yield f"secret{MARK}"
    if "minimum" in part:
        yield -MARK
    if "maximum" in part or "exclusiveMaximum" in part:
        yield from (MARK, str(MARK))
    if "maxLength" in part:
        yield f"secret{MARK} " * 10
    if "pattern" in part:
        yield f"secret{MARK}"
    if "maxItems" in part:
        yield [f"secret{MARK}"] * 9
    if "minItems" in part:
        yield []


def value_of(part: Any, root: Any, chance: random.Random) -> Any:
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
