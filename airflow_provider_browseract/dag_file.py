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
from typing import Any, NamedTuple, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined

from airflow_provider_browseract.api.fields import one_line
from airflow_provider_browseract.api.models import ApiVersion, SourceInfo
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import is_secret
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import variable_of
from airflow_provider_browseract.runs.hints import RUN_BY
from airflow_provider_browseract.runs.request import ID_ARGUMENTS, without_secrets

MAX_LEVELS, MAX_VALUES = 5, 500
"""Levels of objects in the inputs of a bot, and values at all levels together, that are kept."""

MAX_SCHEMA_VALUES = 20_000
"""Values of a schema, at all levels together, that are searched for secrets. One with 200 names has about 1,000."""

MAX_TEXT, MAX_INPUT, MAX_SHORT = 1000, 200, 50
"""Characters of a name or a description, of the name of an input and its example, and of what has to be in a line."""

EXAMPLES = {"string": "text", "integer": 1, "number": 1, "boolean": False, "array": [], "object": {}}
"""Examples of values by their type in a JSON Schema. The user replaces them."""


class Kind(NamedTuple):
    """What a kind of source is called, in a sentence, in a list and in addresses of the panel."""

    one: str
    several: str
    path: str


KINDS = {
    SourceKind.WORKFLOW: Kind("workflow", "Workflows", "workflows"),
    SourceKind.TEMPLATE: Kind("template", "Official templates", "templates"),
    SourceKind.BOT: Kind("bot", "Bots", "bots"),
    SourceKind.BOT_TEMPLATE: Kind("bot template", "Bot templates", "bot-templates"),
}

DAG, TEST = "dag.py.jinja", "dag_test.py.jinja"
"""The templates of the two files."""

Secrecy: TypeAlias = Callable[[str], bool]
"""A function that returns whether a value with a name is secret."""


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
    :param is_secret: returns whether an input, or a member of one, with a name is secret.
    """

    kind: SourceKind
    id: str
    name: str = ""
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    example: Mapping[str, Any] = field(default_factory=dict)
    detail_url: str | None = None
    is_secret: Secrecy = field(default=is_secret, repr=False, compare=False)

    @classmethod
    def of(cls, kind: SourceKind, source: SourceInfo) -> Runnable:
        """Return a runnable without what is too long to be shown."""
        schema = _as(dict, source.input_schema)
        if SOURCES[kind].api_version is ApiVersion.V2:
            names = {each.name: {"type": "string"} for each in source.input_parameters}
            required = [each.name for each in source.input_parameters if each.default_enabled is False]
            schema = {"properties": names, "required": required}
        name, description = ((text or "")[:MAX_TEXT] for text in (source.name, source.description))
        secret, schema = _secrecy_of(schema), {**schema, "type": "object"}
        outline, example = _outline(schema, MAX_LEVELS, iter(range(MAX_VALUES)), secret, hide=False)
        return cls(kind, source.id, name, description, outline, example, source.detail_url, secret)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs that it declares, the required ones first."""
        return tuple(Input(name, name in self.example) for name in self.schema.get("properties", ()))


def _as(kind: type, value: Any) -> Any:
    """Return a value of a type as it is, and an empty one of this type for anything else."""
    return value if isinstance(value, kind) else kind()


def _secrecy_of(schema: dict[str, Any]) -> Secrecy:
    """Return a function that knows the secret names: those that Airflow masks, and those that a JSON Schema marks.

    A mark at one place makes the name secret everywhere. If the schema is too large to be read, all names are secret.
    """
    found, parts = set(), [("", schema)]
    # Each part has the name of the value that it describes. The list grows while it is read.
    for name, part in parts:
        rules = dict(enumerate(part[:MAX_SCHEMA_VALUES])) if isinstance(part, list) else _as(dict, part)
        if rules.get("format") == "password" or rules.get("writeOnly") is True:
            found.add(name)
        parts += _as(dict, rules.get("properties")).items()
        parts += [(name, each) for rule, each in rules.items() if rule != "properties"]
        if len(parts) > MAX_SCHEMA_VALUES:
            return lambda _: True
    return lambda name: name in found or is_secret(name)


def _type_of(schema: dict[str, Any]) -> str | None:
    """Return a type that a JSON Schema allows, a text if possible; None if it names no type that is known."""
    choices = _as(list, schema.get("anyOf") or schema.get("oneOf"))
    named = schema.get("type", "object" if "properties" in schema else None)
    allowed = named if isinstance(named, list) else [named, *(_as(dict, each).get("type") for each in choices)]
    return next((each for each in EXAMPLES if each in allowed), None)


def _outline(part: Any, levels: int, left: Iterator[int], secret: Secrecy, *, hide: bool) -> tuple[dict[str, Any], Any]:
    """Return the names and types of a JSON Schema, not of what it refers to, and an example with the required names.

    :param left: an item for each value that may still be kept.
    :param hide: the value is a secret or below one, so that no value of the schema is the example.
    """
    schema = _as(dict, part)
    kind = _type_of(schema)
    if kind != "object" or not levels:
        return {"type": kind} if kind else {}, _example_of(schema, kind, secret, hide=hide)
    required = dict.fromkeys(name for name in _as(list, schema.get("required")) if isinstance(name, str))
    members = {**required, **_as(dict, schema.get("properties"))}
    found = {}
    for name, member in members.items():
        if len(name) <= MAX_INPUT and next(left, None) is not None:
            found[name] = _outline(member, levels - 1, left, secret, hide=hide or _is_secret_in(members, name, secret))
    example = {name: each for name, (_, each) in found.items() if name in required}
    properties = {name: outline for name, (outline, _) in found.items()}
    return {"type": kind, "properties": properties, "required": [*example]}, example


def _is_secret_in(members: dict[str, Any], name: str, secret: Secrecy) -> bool:
    """Return whether a member of an object is secret, by its name or, in a pair, by the value of the name beside it."""
    beside = [_given_in(_as(dict, members.get(each))) for each in ("name", "key")] if name == "value" else []
    return any(secret(each) for each in [name, *beside] if isinstance(each, str))


def _given_in(schema: dict[str, Any]) -> Any:
    """Return the value that a JSON Schema names: the only one, the default or the first one; None if it names none."""
    first = next(iter(_as(list, schema.get("enum"))), None)
    return schema.get("const", schema.get("default", first))


def _example_of(schema: dict[str, Any], kind: str | None, secret: Secrecy, *, hide: bool) -> Any:
    """Return the value that a JSON Schema names, if it is short, has its type and is not secret; or one of its type."""
    given, example = _given_in(schema), EXAMPLES[kind or "string"]
    if hide:
        return Secret(example) if isinstance(example, str) else example
    fits = type(given) is type(example) or (kind == "number" and isinstance(given, float))
    # A value can be too deep, or something that is no JSON.
    with suppress(ValueError, RecursionError):
        is_short = fits and len(json.dumps(given, allow_nan=False, ensure_ascii=False).encode()) <= MAX_INPUT
        if is_short and without_secrets(given, secret, set()) == given:
            return given
    return example


def dag_id_of(source: Runnable) -> str:
    """Return an id for the DAG that is also a name for its file: the words of the name, and the end of the id."""
    words = f"{_words(source.name)}_{_words(source.id[-6:])}".strip("_")
    return words if words[:1].isalpha() else f"{source.kind}_{words}"


def dag_file(source: Runnable, conn_id: str, given: Mapping[str, Any] | None = None, *, template: str = DAG) -> str:
    """Return a DAG file that runs a workflow, bot or template, and uses its output; or its test.

    Airflow's form for a new DAG run asks for the required inputs of a workflow. Those of a bot have examples in the
    file, because they can be any JSON. Secret texts are read from connections, because the form would show them.
    Optional inputs without a value are comments.

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
        operator=RUN_BY[ID_ARGUMENTS[source.kind]],
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
