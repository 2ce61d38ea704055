"""What an account can run, of all kinds: workflows, bots and templates, with their inputs and examples for these."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from airflow_provider_browseract.api.models import ApiVersion, SourceInfo, Task
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import is_secret
from airflow_provider_browseract.runs.request import without_secrets

MAX_TEXT = 1000
"""Characters of a name or a description."""

MAX_EXAMPLE = 200
"""Characters of a text in an example, and of an example that a schema gives."""

MAX_INPUTS = 200
"""Inputs of a workflow or bot that are kept, and names of an object in an example."""

MAX_ITEMS = 10
"""Items of a list in an example, and names of an object that a schema gives as one."""

MAX_VALUES = 500
"""Values, at all levels together, in the examples of one bot."""

MAX_LEVELS = 5
"""Levels of objects and lists in an example."""

MAX_NUMBER = 2**53
SMALLEST_STEP = 0.001
"""Numbers of a schema that an example can respect."""

FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "name@example.com",
    "uri": "https://example.com",
    "url": "https://example.com",
}
"""Examples of texts by the format that a schema names."""


class Words(NamedTuple):
    """What a kind of source is called.

    :param one: such as ``workflow``, in a sentence.
    :param several: its name as a choice.
    :param path: what the addresses of its pages begin with.
    """

    one: str
    several: str
    path: str


WORDS = {
    SourceKind.WORKFLOW: Words("workflow", "Workflows", "workflows"),
    SourceKind.TEMPLATE: Words("template", "Official templates", "templates"),
    SourceKind.BOT: Words("bot", "Bots", "bots"),
    SourceKind.BOT_TEMPLATE: Words("bot template", "Bot templates", "bot-templates"),
}


class Input(NamedTuple):
    """An input of a workflow or bot.

    :param example: a value for the input of a bot, as JSON.
    """

    name: str
    required: bool
    example: Any = None


@dataclass(frozen=True)
class Runnable:
    """A workflow, bot or template.

    :param inputs: what it declares; a list of runnables does not have them.
    :param detail_url: address of the page of a template in BrowserAct.
    """

    kind: SourceKind
    id: str
    name: str = ""
    description: str = ""
    inputs: tuple[Input, ...] = ()
    detail_url: str | None = None

    @classmethod
    def of(cls, kind: SourceKind, source: SourceInfo) -> Runnable:
        """Return a runnable without what is too long to be shown."""
        if SOURCES[kind].api_version is ApiVersion.V2:
            declared = source.input_parameters[:MAX_INPUTS]
            inputs = tuple(Input(each.name, each.default_enabled is False) for each in declared)
        else:
            inputs = inputs_of(source.input_schema)
        name, description = ((text or "")[:MAX_TEXT] for text in (source.name, source.description))
        return cls(kind, source.id, name, description, inputs, source.detail_url)


def source_of(task: Task) -> str | None:
    """Return what a run runs: the id of a workflow, or ``bot`` and its name; None if BrowserAct does not report it."""
    if task.api_version is ApiVersion.V2:
        return task.workflow_id
    name = task.bot_name or task.bot_id
    return f"bot {name}" if name else "bot template"


def inputs_of(schema: Any) -> tuple[Input, ...]:
    """Return the inputs that a JSON Schema declares at its top level, the required ones first.

    The schema comes from outside. What it declares in another way than most do is left out.
    """
    schemas = _Schemas(schema)
    root = schemas.resolved(schema)
    declared, required = _names(root), set(_required(root))
    names = dict.fromkeys((*_required(root), *islice(declared, MAX_INPUTS)))
    return tuple(
        Input(name, name in required, schemas.example(declared.get(name), MAX_LEVELS, hides=is_secret(name)))
        for name in islice(names, MAX_INPUTS)
    )


def output_example(schema: Any) -> Any:
    """Return an example of the output that a JSON Schema describes; None if there is none.

    A list has one item, also if the schema allows an empty one.
    """
    schemas = _Schemas(schema)
    root = schemas.resolved(schema)
    example = schemas.example(root, MAX_LEVELS) if root else None
    if isinstance(example, list) and not example and "items" in root:
        return [schemas.example(root["items"], MAX_LEVELS - 1)]
    return example


def _names(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    names = schema.get("properties")
    return names if isinstance(names, Mapping) else {}


def _required(schema: Mapping[str, Any]) -> list[str]:
    names = schema.get("required")
    return [name for name in names[:MAX_INPUTS] if isinstance(name, str)] if isinstance(names, list) else []


class _Schemas:
    """A JSON Schema with what it refers to. It counts the values that it makes."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._values = 0

    def resolved(self, schema: Any) -> Mapping[str, Any]:
        """Return the schema that is meant: what a reference within the schema leads to, or the first choice."""
        for _ in range(MAX_LEVELS):
            if not isinstance(schema, Mapping):
                break
            choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
            if isinstance(schema.get("$ref"), str):
                schema = self._referred(schema["$ref"])
            elif isinstance(choices, list) and "default" not in schema and "type" not in schema:
                schema = next((each for each in choices if each != {"type": "null"}), {})
            else:
                return schema
        return {}

    def _referred(self, reference: str) -> Any:
        found = self._root
        for step in reference.removeprefix("#/").split("/")[:MAX_LEVELS]:
            found = found.get(step) if isinstance(found, Mapping) else None
        return found

    def example(self, schema: Any, levels: int, *, hides: bool = False) -> Any:
        """Return a value that a schema allows, if the schema is a simple one.

        :param hides: the value is a secret, so that of the schema is not used.
        """
        self._values += 1
        if levels == 0 or self._values > MAX_VALUES:
            return None
        schema = self.resolved(schema)
        for given in () if hides else _given(schema):
            if _is_short(given):
                return given
        wanted = schema.get("type")
        if isinstance(wanted, list):
            wanted = next((each for each in wanted if each != "null"), "null")
        if wanted == "object" or (wanted is None and "properties" in schema):
            declared = _names(schema)
            return {name: self._member(name, declared, levels) for name in _required(schema)}
        if wanted == "array":
            number = min(_limit(schema, "minItems") or 0, MAX_ITEMS)
            return [self.example(schema.get("items"), levels - 1) for _ in range(int(number))]
        if wanted in ("integer", "number"):
            return _number(schema, is_integer=wanted == "integer")
        if wanted == "boolean":
            return False
        return None if wanted == "null" else _text(schema)

    def _member(self, name: str, declared: Mapping[str, Any], levels: int) -> Any:
        return self.example(declared.get(name), levels - 1, hides=is_secret(name))


def _given(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the values that a schema itself names."""
    yield from (schema[rule] for rule in ("default", "const") if rule in schema)
    for rule in ("enum", "examples"):
        values = schema.get(rule)
        if isinstance(values, list):
            yield from values[:1]


def _is_short(value: Any) -> bool:
    """Return whether a value may be in an example as it is: it is short, and has no secrets."""
    return (
        _is_plain(value, 2)
        and len(json.dumps(value)) <= MAX_EXAMPLE
        and without_secrets(value, is_secret, set()) == value
    )


def _is_plain(value: Any, levels: int) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_EXAMPLE
    if isinstance(value, list | Mapping):
        members = value.values() if isinstance(value, Mapping) else value
        return levels > 0 and len(value) <= MAX_ITEMS and all(_is_plain(each, levels - 1) for each in members)
    return not isinstance(value, int | float) or -MAX_NUMBER < value < MAX_NUMBER


def _limit(schema: Mapping[str, Any], rule: str) -> float | None:
    value = schema.get(rule)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < MAX_NUMBER else None


def _number(schema: Mapping[str, Any], *, is_integer: bool) -> float:
    least, above = _limit(schema, "minimum"), _limit(schema, "exclusiveMinimum")
    most, below = _limit(schema, "maximum"), _limit(schema, "exclusiveMaximum")
    step = _limit(schema, "multipleOf")

    def fits(number: float) -> bool:
        return (
            (least is None or number >= least)
            and (above is None or number > above)
            and (most is None or number <= most)
            and (below is None or number < below)
            and (not step or number % step == 0)
            and not (is_integer and number % 1)
        )

    from_, to = (above if least is None else least) or 0, (below if most is None else most) or 0
    found = [1, 0, from_, from_ + 1, to, to - 1, (from_ + to) / 2]
    if step is not None and step >= SMALLEST_STEP:
        found += [math.ceil(from_ / step) * step, math.ceil((from_ + step) / step) * step]
    number = next(filter(fits, found), 1)
    return int(number) if is_integer else number


def _text(schema: Mapping[str, Any]) -> str:
    form = schema.get("format")
    text = FORMATS.get(form, "text") if isinstance(form, str) else "text"
    least, most = _limit(schema, "minLength") or 0, _limit(schema, "maxLength")
    text = text.ljust(min(int(least), MAX_EXAMPLE), "x")
    return text if most is None else text[: max(0, int(most))]
