"""A DAG file that runs a workflow, bot or template, to be copied into the dags folder.

Names and ids come from outside. In the file they are only in string literals and, as literals, in comments.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import is_secret
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.panel.runnable import WORDS, Input, Runnable
from airflow_provider_browseract.panel.views import foreign_text

MAX_NAME = 50
"""Characters of the name that the DAG id and the first line of the file have at most."""

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
    # On Airflow 3.3 a later try reattaches to the run of an earlier one.
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
    """

    dag_id: str
    file_name: str
    source: str


def dag_file(source: Runnable, name: str, conn_id: str) -> DagFile:
    """Return a DAG file that runs a workflow, bot or template, and uses its output.

    Airflow's form for a new DAG run asks for the required inputs of a workflow. Those of a bot have example values in
    the file, because they can be any JSON. Optional inputs are comments.

    :param name: the name of the source, of any length and with any characters.
    """
    kind = WORDS[source.kind].one
    operator, id_argument = OPERATORS[source.kind]
    dag_id = _dag_id(name, kind, source.id)
    required = list({each.name: each for each in source.inputs if each.required}.values())
    names = {each.name for each in required}
    optional = list({each.name: each for each in source.inputs if each.name not in names}.values())
    is_bot = SOURCES[source.kind].api_version is ApiVersion.V3
    asked = [] if is_bot else [each.name for each in required]
    shown = foreign_text(name, MAX_NAME).strip()
    text = FILE.format(
        kind=kind,
        named=f" '{_in_docstring(shown)}'" if shown else "",
        param="Param, " if asked else "",
        operator=operator,
        dag_id=_literal(dag_id),
        if_defaults=", if each param has a default" if asked else "",
        params=_params(asked),
        id_argument=id_argument,
        source_id=_literal(_untemplated(source.id)),
        inputs=(_input if is_bot else _input_parameters)(required, optional),
        connection=_connection(conn_id),
    )
    return DagFile(dag_id, f"{dag_id}.py", text)


def _dag_id(name: str, kind: str, source_id: str) -> str:
    """Return an id for the DAG that is also a name for its file, from the name and the end of the source's id."""
    words, end = _ascii_words(name)[:MAX_NAME].strip("_"), _ascii_words(source_id)[-ID_END:].strip("_")
    return "_".join(filter(None, (words or _ascii_words(kind), end)))


def _ascii_words(text: str) -> str:
    """Return a text with accents removed, and with ``_`` for everything but ASCII letters and digits."""
    plain = unicodedata.normalize("NFKD", text[:1000]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def _params(required: Sequence[str]) -> str:
    if not required:
        return ""
    lines = ["    # The form for a new DAG run asks for these.", "    params={"]
    if any(is_secret(name) for name in required):
        lines.append("        # Airflow shows params in its UI. For a password, delete the param, and use a connection")
        lines.append('        # in input_parameters, as in "{{ conn.shop.password }}".')
    lines += [f'        {_literal(name)}: Param(type="string", minLength=1),' for name in required]
    return "\n".join([*lines, "    },\n"])


def _input_parameters(required: Sequence[Input], optional: Sequence[Input]) -> str:
    """Return the inputs of a workflow: the params of the DAG."""
    lines = [f"{_literal(each.name)}: {_literal(_param(each.name))}," for each in required]
    if optional:
        lines.append("# Optional, with defaults in BrowserAct:")
        lines += [f'# {_literal(each.name)}: "...",' for each in optional]
    return _argument("input_parameters", lines)


def _input(required: Sequence[Input], optional: Sequence[Input]) -> str:
    """Return the input of a bot, with examples of values."""
    lines = ["# Examples. Replace them with your values."] if required else []
    if any(is_secret(each.name) for each in required):
        lines.append('# For a password, use a connection, as in "{{ conn.shop.password }}".')
    lines += [f"{_literal(each.name)}: {_value(each.example)}," for each in required]
    if optional:
        lines.append("# Optional:")
        lines += [f"# {_literal(each.name)}: {_value(each.example)}," for each in optional]
    return _argument("input", lines)


def _argument(name: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return "\n".join([f"        {name}={{", *(f"            {line}" for line in lines), "        },\n"])


def _value(value: Any) -> str:
    """Return a JSON value as Python source in one line, whose texts are sent as they are."""
    if isinstance(value, str):
        return _literal(_untemplated(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(name)}: {_value(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)


def _connection(conn_id: str) -> str:
    if conn_id == BrowserActHook.default_conn_name:
        return ""
    return f"        browseract_conn_id={_literal(_untemplated(conn_id))},\n"


def _param(name: str) -> str:
    """Return the template of a param's value."""
    # Of a param with the name of a method, a template would find the method.
    simple = name.isascii() and name.isidentifier() and not hasattr(dict, name)
    return f"{{{{ params.{name} }}}}" if simple else f"{{{{ params[{name!a}] }}}}"


def _untemplated(text: str) -> str:
    """Return what renders to a text in an argument that is a template."""
    return f"{{{{ {text!a} }}}}" if "{" in text else text


def _literal(text: str) -> str:
    """Return a string literal in one line, in double quotes if possible."""
    literal = repr(text)
    return f'"{literal[1:-1]}"' if literal[0] == "'" and '"' not in text else literal


def _in_docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
