"""A DAG file that runs a workflow, bot or template, and the pytest file that tests it with the emulator.

The panel shows the first, and ``new-dag`` prints both. Names and values come from outside: in the files, they are only
in string literals, also in comments. What is secret, or below something secret, is nowhere in them.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from textwrap import indent
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from airflow_provider_browseract.api.models import ApiVersion, SourceInfo, one_line
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import is_secret
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import variable_of
from airflow_provider_browseract.runs.request import ID_ARGUMENTS, without_secrets

MAX_LEVELS, MAX_VALUES = 5, 500
"""Levels of objects in the inputs of a bot, and values at all levels together, that are kept."""

MAX_TEXT, MAX_INPUT, MAX_SHORT = 1000, 200, 50
"""Characters of a name or a description, of the name of an input and its example, and of what has to be in a line."""

EXAMPLES = {"string": "text", "integer": 1, "number": 1, "boolean": False, "array": [], "object": {}}
"""Examples of values by their type in a JSON Schema. The user replaces them."""


class Kind(NamedTuple):
    """What a kind of source is called, in a sentence, in a list and in addresses of the panel, and its operator."""

    one: str
    several: str
    path: str
    operator: str


KINDS = {
    SourceKind.WORKFLOW: Kind("workflow", "Workflows", "workflows", "RunWorkflowOperator"),
    SourceKind.TEMPLATE: Kind("template", "Official templates", "templates", "RunTemplateOperator"),
    SourceKind.BOT: Kind("bot", "Bots", "bots", "RunBotOperator"),
    SourceKind.BOT_TEMPLATE: Kind("bot template", "Bot templates", "bot-templates", "RunBotTemplateOperator"),
}

DAG, TEST = "dag.py.jinja", "dag_test.py.jinja"
"""The templates of the two files."""


class Secret(str):
    """An example of a secret text. A DAG reads the secret from the password of a connection."""


class Input(NamedTuple):
    """An input of a workflow or bot."""

    name: str
    required: bool


@dataclass(frozen=True)
class Runnable:
    """A workflow, bot or template. A list of them has no inputs.

    :param schema: a JSON Schema of the inputs, with only their names and types.
    :param example: values for the required inputs that this schema allows.
    :param detail_url: address of the page of a template in BrowserAct.
    """

    kind: SourceKind
    id: str
    name: str = ""
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    example: Mapping[str, Any] = field(default_factory=dict)
    detail_url: str | None = None

    @classmethod
    def of(cls, kind: SourceKind, source: SourceInfo) -> Runnable:
        """Return a runnable without what is too long to be shown."""
        schema = source.input_schema if isinstance(source.input_schema, Mapping) else {}
        if SOURCES[kind].api_version is ApiVersion.V2:
            names = {each.name: {"type": "string"} for each in source.input_parameters}
            required = [each.name for each in source.input_parameters if each.default_enabled is False]
            schema = {"properties": names, "required": required}
        name, description = ((text or "")[:MAX_TEXT] for text in (source.name, source.description))
        outline, example = _outline({**schema, "type": "object"}, MAX_LEVELS, iter(range(MAX_VALUES)), hides=False)
        return cls(kind, source.id, name, description, outline, example, source.detail_url)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs that it declares, the required ones first."""
        return tuple(Input(name, name in self.example) for name in self.schema.get("properties", ()))


def _type_of(schema: Mapping[str, Any]) -> str | None:
    """Return a type that a JSON Schema allows, a text if possible; None if it names no type that is known."""
    choices = schema.get("anyOf") or schema.get("oneOf")
    types = [each.get("type") for each in choices if isinstance(each, Mapping)] if isinstance(choices, list) else []
    named = schema.get("type", "object" if "properties" in schema else None)
    allowed = named if isinstance(named, list) else [named, *types]
    return next((each for each in EXAMPLES if each in allowed), None)


def _outline(schema: Any, levels: int, left: Iterator[int], *, hides: bool) -> tuple[dict[str, Any], Any]:
    """Return the names and types of a JSON Schema, not of what it refers to, and an example with the required names.

    :param left: an item for each value that may still be kept.
    :param hides: the value is a secret or below one, so that no value of the schema is the example.
    """
    schema = schema if isinstance(schema, Mapping) else {}
    kind = _type_of(schema)
    if kind == "object" and levels:
        names, required = schema.get("properties"), schema.get("required")
        names = names if isinstance(names, Mapping) else {}
        required = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        found = {}
        for name in dict.fromkeys([*required, *names]):
            if len(name) <= MAX_INPUT and next(left, None) is not None:
                # In a pair of a name and a value, the name of the value is the example of the other.
                of = _outline(names.get("name"), 0, left, hides=False)[1] if name == "value" else name
                found[name] = _outline(names.get(name), levels - 1, left, hides=hides or is_secret(str(of)))
        needed = [name for name in dict.fromkeys(required) if name in found]
        outline = {"type": kind, "properties": {name: part for name, (part, _) in found.items()}, "required": needed}
        return outline, {name: found[name][1] for name in needed}
    choices, example = schema.get("enum"), EXAMPLES[kind or "string"]
    given = schema.get("default", choices[0] if isinstance(choices, list) and choices else None)
    fits = type(given) is type(example) or (kind == "number" and isinstance(given, float))
    if hides:
        return {"type": kind} if kind else {}, Secret(example) if isinstance(example, str) else example
    # A value can be too deep, or something that is no JSON.
    with suppress(ValueError, RecursionError):
        is_short = fits and len(json.dumps(given, allow_nan=False, ensure_ascii=False).encode()) <= MAX_INPUT
        if is_short and without_secrets(given, is_secret, set()) == given:
            example = given
    return {"type": kind} if kind else {}, example


def dag_id_of(source: Runnable) -> str:
    """Return an id for the DAG that is also a name for its file: the words of the name, and the end of the id."""
    words = f"{_words(source.name)}_{_words(source.id[-6:])}".strip("_")
    return words if words[:1].isalpha() else f"{source.kind}_{words}"


def dag_file(source: Runnable, conn_id: str, given: Mapping[str, Any] | None = None, *, template: str = DAG) -> str:
    """Return a DAG file that runs a workflow, bot or template, and uses its output; or its test.

    Airflow's form for a new DAG run asks for the required inputs of a workflow. Those of a bot have examples in the
    file, because they can be any JSON. Inputs with the name of a secret are read from connections, because the form
    would show them. Optional inputs without a value are comments.

    :param conn_id: the connection of the operator.
    :param given: values of inputs, none of them secret: defaults for the form, or what a bot gets.
    :param template: :data:`DAG` or :data:`TEST`.
    """
    dag_id, is_bot, given = dag_id_of(source), SOURCES[source.kind].api_version is ApiVersion.V3, given or {}
    inputs = _filled(given, source.example)
    plain = {name: value for name, value in inputs.items() if not isinstance(value, Secret)}
    asked = {} if is_bot else {name: "..." for name in plain if name not in given}
    secrets: dict[str, None] = {}

    def password(name: str) -> str:
        conn = f"{dag_id}_{_words(name)}".rstrip("_")
        conn = conn if conn not in secrets else next(each for n in count(2) if (each := f"{conn}_{n}") not in secrets)
        secrets[conn] = None
        return f"{{{{ conn.{conn}.password }}}}"

    values = {
        name: _template(value, name, password) if is_bot or name not in plain else _param(name)
        for name, value in inputs.items()
    }
    return _ENVIRONMENT.get_template(template).render(
        source=source,
        kind=KINDS[source.kind],
        argument=ID_ARGUMENTS[source.kind],
        is_bot=is_bot,
        name=one_line(source.name, MAX_SHORT),
        dag_id=dag_id,
        conn_id=conn_id,
        default_conn_id=BrowserActHook.default_conn_name,
        given=given,
        inputs=inputs,
        values=values,
        secrets=secrets,
        params=[] if is_bot else plain,
        examples=is_bot and plain.keys() - given.keys(),
        conf=asked and shlex.quote(json.dumps(asked)),
    )


def _filled(given: Mapping[str, Any], example: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with those of an example where a required one is missing, at any depth of objects."""
    members = {
        name: _filled(given[name], part)
        for name, part in example.items()
        if isinstance(part, Mapping) and isinstance(given.get(name), Mapping)
    }
    return {**example, **given, **members}


def _words(text: str) -> str:
    """Return the beginning of a text in lower case, with ``_`` for everything but ASCII letters and digits."""
    plain = unicodedata.normalize("NFKD", text[:MAX_TEXT]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:MAX_SHORT].strip("_")


def _literal(value: Any) -> str:
    """Return a JSON value as Python source. A long list or dict has a line for each member."""
    if isinstance(value, str):
        shown = repr(value)
        return shown if '"' in shown else f'"{shown[1:-1]}"'
    if not isinstance(value, Mapping | list):
        return repr(value)
    start, end = "{}" if isinstance(value, Mapping) else "[]"
    members = [f"{_literal(each)}: {_literal(value[each])}" if start == "{" else _literal(each) for each in value]
    line = ", ".join(members)
    if len(line) <= MAX_SHORT and "\n" not in line:
        return f"{start}{line}{end}"
    return f"{start}\n{indent(''.join(f'{each},{chr(10)}' for each in members), '    ')}{end}"


def _template(value: Any, name: str = "", password: Callable[[str], str] = str) -> Any:
    """Return what renders to a JSON value in an argument that is a template. Names of members are not rendered.

    :param name: the name of the value, or of the object or list that it is in.
    :param password: returns a template for the secret with a name.
    """
    if isinstance(value, Secret):
        return password(name)
    if isinstance(value, Mapping):
        return {each: _template(member, each, password) for each, member in value.items()}
    if isinstance(value, list):
        return [_template(member, name, password) for member in value]
    # Jinja leaves out a line break at the end, and writes all kinds of them in one way.
    is_plain = not isinstance(value, str) or not ("{" in value or "\r" in value or value.endswith("\n"))
    return value if is_plain else f"{{{{ {value!a} }}}}"


def _param(name: str) -> str:
    """Return the template of a param's value."""
    # Of a param with the name of a method, a template would find the method.
    simple = name.isascii() and name.isidentifier() and not hasattr(dict, name)
    return f"{{{{ params.{name} }}}}" if simple else f"{{{{ params[{name!a}] }}}}"


_ENVIRONMENT = Environment(
    loader=PackageLoader("airflow_provider_browseract"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters.update(literal=_literal, template=_template, variable=variable_of)
_ENVIRONMENT.tests["secret"] = is_secret
