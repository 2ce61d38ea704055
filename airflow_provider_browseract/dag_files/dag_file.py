"""The text of a DAG file that runs a workflow, bot or template. The panel shows it, and ``new-dag`` writes it.

Names, ids and values come from outside. In the file they are only in string literals and, as literals, in comments.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airflow_provider_browseract.api.models import ApiVersion, one_line
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import is_secret
from airflow_provider_browseract.dag_files.python_source import call_of, expression, lines_of, literal
from airflow_provider_browseract.dag_files.runnable import WORDS, Input, Runnable
from airflow_provider_browseract.hooks.browseract import BrowserActHook

MAX_NAME = 50
"""Characters of the name that the DAG id and the first line of the file have at most."""

TEXT_EXAMPLE = "an example"
"""The value that a test enters for an input of a workflow."""

OPERATORS = {
    SourceKind.WORKFLOW: ("RunWorkflowOperator", "workflow_id"),
    SourceKind.TEMPLATE: ("RunTemplateOperator", "workflow_template_id"),
    SourceKind.BOT: ("RunBotOperator", "bot_id"),
    SourceKind.BOT_TEMPLATE: ("RunBotTemplateOperator", "template_id"),
}
"""The operator that runs each kind of source, and its argument for the id."""

ID_END = 6
"""Characters of the source's id at the end of the DAG id, because several workflows may have the same name."""

FILE = '''\
"""Run the BrowserAct {kind}{named}, and use its output in another task."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, {param}task
from airflow_provider_browseract.operators.browseract import {operator}

with DAG(
    {dag_id},
    schedule=None,  # or such as "@daily"{if_defaults}
{params}\
    # After a failed run, each retry pays for another one. On Airflow 3.3, a retry after
    # other trouble, such as a lost worker, reattaches to the run.
    default_args={{"retries": 2}},
    # From Airflow 3.4 on, the DAG has the tab BrowserAct because of this tag.
    tags=["browseract"],
):
    run = {operator}(
        task_id="run",
        {id_argument}={source_id},
{inputs}\
{connection}\
        # Wait without holding a worker.
        deferrable=True,
    )

    @task
    def use(output: Any) -> None:
        """Write to the log what the run returned. Replace this with what you need."""
        print(f"{{len(output)}} rows" if isinstance(output, list) else output)

    use(run.output)
'''


class DagFile(NamedTuple):
    """A DAG file.

    :param source: its content, complete.
    :param asked: the inputs that the DAG has as params without a default.
    :param examples: the inputs for which the file has examples of values.
    :param inputs: what a run gets, with examples for inputs that are asked for and for secrets.
    :param secrets: the connections whose passwords are inputs, by the names of these.
    """

    dag_id: str
    source: str
    asked: tuple[str, ...]
    examples: tuple[str, ...]
    inputs: Mapping[str, Any]
    secrets: Mapping[str, str]

    @property
    def file_name(self) -> str:
        """The name of the file, after its DAG."""
        return f"{self.dag_id}.py"


def dag_file(
    source: Runnable, conn_id: str, *, values: Mapping[str, Any] | None = None, dag_id: str | None = None
) -> DagFile:
    """Return a DAG file that runs a workflow, bot or template, and uses its output.

    Airflow's form for a new DAG run asks for the required inputs of a workflow. Those of a bot have example values in
    the file, because they can be any JSON. Inputs with the name of a secret are read from connections. Optional inputs
    are comments.

    :param values: values of inputs: defaults for the form, or what a bot gets.
    :param dag_id: the id of the DAG. Default: the name and the end of the id of what it runs.
    """
    kind = WORDS[source.kind].one
    operator, id_argument = OPERATORS[source.kind]
    dag_id = dag_id or _dag_id(source.name, kind, source.id)
    is_bot = SOURCES[source.kind].api_version is ApiVersion.V3
    given = values or {}
    required = list({each.name: each for each in source.inputs if each.required}.values())
    names = {each.name for each in required}
    more = list({each.name: each for each in source.inputs if each.name not in names}.values())
    used = [*required, *(each for each in more if each.name in given)]
    optional = [each for each in more if each.name not in given]
    secrets = _connections(dag_id, [each.name for each in used if _is_secret(each, is_bot) and each.name not in given])
    unknown = tuple(each.name for each in used if each.name not in {*given, *secrets})
    asked, examples = ((), unknown) if is_bot else (unknown, ())
    params = {} if is_bot else {each.name: given.get(each.name) for each in used if each.name not in secrets}
    shown = one_line(source.name, MAX_NAME)
    text = FILE.format(
        kind=kind,
        named=f" '{_in_docstring(shown)}'" if shown else "",
        param="Param, " if params else "",
        operator=operator,
        dag_id=literal(dag_id),
        if_defaults=", if each param has a default" if asked else "",
        params=_params(params),
        id_argument=id_argument,
        source_id=literal(_untemplated(source.id)),
        inputs=_input(used, optional, given, secrets) if is_bot else _input_parameters(used, optional, secrets),
        connection=_connection(conn_id),
    )
    inputs = {each.name: each.example if is_bot else TEXT_EXAMPLE for each in used}
    return DagFile(dag_id, text, asked, examples, {**inputs, **given}, secrets)


def _is_secret(input: Input, is_bot: bool) -> bool:
    """Return whether an input can be read from a connection, and should."""
    return is_secret(input.name) and (not is_bot or isinstance(input.example, str))


def _connections(dag_id: str, names: Sequence[str]) -> dict[str, str]:
    """Return the id of a connection for each name. It is an identifier, so that a template can have it."""
    start, found = _ascii_words(dag_id), dict[str, str]()
    for number, name in enumerate(names, start=1):
        conn_id = f"{start if start[:1].isalpha() else f'dag_{start}'}_{_ascii_words(name)[:MAX_NAME]}".rstrip("_")
        found[name] = f"{conn_id}_{number}" if conn_id in found.values() else conn_id
    return found


def _dag_id(name: str, kind: str, source_id: str) -> str:
    """Return an id for the DAG that is also a name for its file, from the name and the end of the source's id."""
    words, end = _ascii_words(name)[:MAX_NAME].strip("_"), _ascii_words(source_id)[-ID_END:].strip("_")
    return "_".join(filter(None, (words or _ascii_words(kind), end)))


def _ascii_words(text: str) -> str:
    """Return a text with accents removed, and with ``_`` for everything but ASCII letters and digits."""
    plain = unicodedata.normalize("NFKD", text[:1000]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def _params(params: Mapping[str, str | None]) -> str:
    """Return the params of the DAG, which are texts: those that are None have no default."""
    if not params:
        return ""
    if all(default is None for default in params.values()):
        which = "asks for these"
    elif None in params.values():
        which = "asks for those without a default"
    else:
        which = "has these defaults"
    lines = [f"    # The form for a new DAG run {which}.", "    params={"]
    for name, default in params.items():
        first = [] if default is None else [literal(default)]
        lines += call_of(f"{literal(name)}: Param", [*first, 'type="string"', "minLength=1"], ",", 8)
    return "\n".join([*lines, "    },\n"])


def _input_parameters(used: Sequence[Input], optional: Sequence[Input], secrets: Mapping[str, str]) -> str:
    """Return the inputs of a workflow: the params of the DAG, and passwords of connections."""
    lines: list[str] = []
    for each in used:
        lines += _secret(each.name, secrets) or [f"            {literal(each.name)}: {literal(_param(each.name))},"]
    if optional:
        lines.append("            # Optional, with defaults in BrowserAct:")
        lines += [f'            # {literal(each.name)}: "...",' for each in optional]
    return _argument("input_parameters", lines)


def _input(
    used: Sequence[Input], optional: Sequence[Input], given: Mapping[str, Any], secrets: Mapping[str, str]
) -> str:
    """Return the input of a bot: values that were given, and examples of values."""
    lines: list[str] = []
    for each in used:
        if each.name in given:
            lines += lines_of(f"{literal(each.name)}: ", _as_template(given[each.name]), ",", 12)
        lines += _secret(each.name, secrets)
    examples = [each for each in used if each.name not in {*given, *secrets}]
    if examples:
        lines.append("            # Examples. Replace them with your values.")
    for each in examples:
        lines += lines_of(f"{literal(each.name)}: ", _as_template(each.example), ",", 12)
    if optional:
        lines.append("            # Optional:")
        lines += [f"            # {literal(each.name)}: {expression(_as_template(each.example))}," for each in optional]
    return _argument("input", lines)


def _secret(name: str, secrets: Mapping[str, str]) -> list[str]:
    """Return the lines of an input that is the password of a connection, if it is one."""
    if name not in secrets:
        return []
    return [
        "            # A secret. Store it as the password of this connection.",
        f"            {literal(name)}: {literal(f'{{{{ conn.{secrets[name]}.password }}}}')},",
    ]


def _argument(name: str, lines: Sequence[str]) -> str:
    return "\n".join([f"        {name}={{", *lines, "        },\n"]) if lines else ""


def _as_template(value: Any) -> Any:
    """Return what renders to a JSON value. The names of its members are not rendered."""
    if isinstance(value, str):
        return _untemplated(value)
    if isinstance(value, Mapping):
        return {name: _as_template(member) for name, member in value.items()}
    return [_as_template(member) for member in value] if isinstance(value, list) else value


def _connection(conn_id: str) -> str:
    if conn_id == BrowserActHook.default_conn_name:
        return ""
    return f"        browseract_conn_id={literal(_untemplated(conn_id))},\n"


def _param(name: str) -> str:
    """Return the template of a param's value."""
    # Of a param with the name of a method, a template would find the method.
    simple = name.isascii() and name.isidentifier() and not hasattr(dict, name)
    return f"{{{{ params.{name} }}}}" if simple else f"{{{{ params[{name!a}] }}}}"


def _untemplated(text: str) -> str:
    """Return what renders to a text in an argument that is a template."""
    # Jinja leaves out a line break at the end, and writes all kinds of them in one way.
    return f"{{{{ {text!a} }}}}" if "{" in text or "\r" in text or text.endswith("\n") else text


def _in_docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', "'")
