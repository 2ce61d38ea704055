"""A DAG file that runs a workflow or template, to be copied into the dags folder.

Names and ids come from outside. In the file they are only in string literals and, as literals, in comments.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from airflow_provider_browseract.api.workflows import InputParameter
from airflow_provider_browseract.compat import is_secret
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.panel.views import foreign_text

MAX_NAME = 50
"""Characters of the name that the DAG id and the first line of the file have at most."""

ID_END = 6
"""Characters of the workflow's id at the end of the DAG id, because several workflows may have the same name."""

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


def dag_file(
    *, source_id: str, is_template: bool, name: str, inputs: Sequence[InputParameter], conn_id: str
) -> DagFile:
    """Return a DAG file that runs a workflow or template, and uses its output.

    Airflow's form for a new DAG run asks for the required inputs. The optional ones are comments.

    :param source_id: id of the workflow or template.
    :param name: its name, of any length and with any characters.
    :param inputs: its declared inputs.
    """
    kind = "template" if is_template else "workflow"
    dag_id = _dag_id(name, kind, source_id)
    required = list(dict.fromkeys(each.name for each in inputs if each.default_enabled is False))
    optional = list(dict.fromkeys(each.name for each in inputs if each.name not in required))
    shown = foreign_text(name, MAX_NAME).strip()
    source = FILE.format(
        kind=kind,
        named=f" '{_in_docstring(shown)}'" if shown else "",
        param="Param, " if required else "",
        operator="RunTemplateOperator" if is_template else "RunWorkflowOperator",
        dag_id=_literal(dag_id),
        if_defaults=", if each param has a default" if required else "",
        params=_params(required),
        id_argument="workflow_template_id" if is_template else "workflow_id",
        source_id=_literal(_untemplated(source_id)),
        inputs=_input_parameters(required, optional),
        connection=_connection(conn_id),
    )
    return DagFile(dag_id, f"{dag_id}.py", source)


def _dag_id(name: str, kind: str, source_id: str) -> str:
    """Return an id for the DAG that is also a name for its file, from the name and the end of the workflow's id."""
    words, end = _ascii_words(name)[:MAX_NAME].strip("_"), _ascii_words(source_id)[-ID_END:].strip("_")
    return "_".join(filter(None, (words or kind, end)))


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


def _input_parameters(required: Sequence[str], optional: Sequence[str]) -> str:
    if not required and not optional:
        return ""
    lines = [f"            {_literal(name)}: {_literal(_param(name))}," for name in required]
    if optional:
        lines.append("            # Optional, with defaults in BrowserAct:")
        lines += [f'            # {_literal(name)}: "...",' for name in optional]
    return "\n".join(["        input_parameters={", *lines, "        },\n"])


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
