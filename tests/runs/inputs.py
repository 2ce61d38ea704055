"""Inputs of bots, and schemas made from them: their places and values."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from airflow_provider_browseract.runs.bot_input import TYPES

Path = tuple[str | int, ...]
"""The names and positions that lead to a value."""


class Lazy(Sequence[str]):
    """Texts, as Airflow returns the results of mapped tasks."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> Any:
        return self.texts[index]


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: Path, new: Any) -> None:
    at(value, path[:-1])[path[-1]] = new


def paths_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of each value within a value, those that contain others first."""
    for step in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, step)
        yield from paths_of(value[step], (*path, step))


def schema_of(value: Any, chance: random.Random) -> dict[str, Any]:
    """Return a schema that an input conforms to, in which each part is declared in one of the usual ways."""
    return {**_part_of(value, chance), "$defs": {name: {"type": name} for name in TYPES}}


def _part_of(value: Any, chance: random.Random) -> dict[str, Any]:
    if isinstance(value, dict):
        properties = {name: _either(_part_of(each, chance), chance) for name, each in value.items()}
        return {"type": "object", "properties": properties, "required": [*value], "additionalProperties": False}
    if isinstance(value, list):
        return {"type": "array", "items": _either(_part_of(value[0], chance), chance), "maxItems": len(value)}
    name = next(name for name, kind in TYPES.items() if isinstance(value, kind))
    return chance.choice([{"type": name}, {"type": [name, "null"]}, {"$ref": f"#/$defs/{name}"}])


def _either(part: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return the schema of a part that may also be null, or just that of the part."""
    return chance.choice([part, {"anyOf": [part, {"type": "null"}]}, {**part, "nullable": True}])
