"""The text of a pytest file that tests a DAG file with the emulator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_browseract.api.models import ApiVersion, BotType, SourceInfo, one_line
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import is_secret
from airflow_provider_browseract.dag_files.dag_file import DagFile
from airflow_provider_browseract.dag_files.python_source import call_of, lines_of, literal
from airflow_provider_browseract.dag_files.runnable import WORDS, Runnable, output_example
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import variable_of

MAX_SCHEMA = 20_000
"""Characters of a bot's schema that the file contains, as JSON. With a longer one, the test accepts any input."""

KEPT_RULES = ("type", "properties", "required", "items", "additionalProperties")
"""What the schema of a secret keeps. Its other rules can contain the secret, or refuse the example for it."""

EMULATED = {
    SourceKind.WORKFLOW: ("WORKFLOW", "workflow"),
    SourceKind.TEMPLATE: ("TEMPLATE", "template"),
    SourceKind.BOT: ("BOT", "bot"),
    SourceKind.BOT_TEMPLATE: ("TEMPLATE", "template"),
}
"""The constant that the file has for each kind of source, and what the emulator calls that kind."""

OUTPUT = [{"title": "an example"}]
"""The output of what declares none."""

FILE = '''\
"""Test the DAG {dag_id} with the BrowserAct emulator: offline, without credits."""

from __future__ import annotations

{standard}import pytest
from airflow_provider_browseract.emulator import EmulatedWorkflow{more}

# What a run returns in these tests. Replace it with what your {kind} returns.
{output}

{constant} = EmulatedWorkflow(
{declaration}
    output=OUTPUT,
    duration=0.2,
)

# What a run gets.
{inputs}


@pytest.fixture
def emulator(browseract_emulator{if_connection}):
{connection}\
    browseract_emulator.add_workflow({constant})
    return browseract_emulator


@pytest.fixture
def dag(browseract_load_dag{if_secrets}):
{secrets}\
{load}


def test_run_gets_the_inputs_and_returns_the_output(emulator, dag):
    dag_run = dag.test({conf})

    assert dag_run.state == "success"
    [run] = emulator.tasks
    assert dict(run.inputs) == INPUTS
    assert dag_run.get_task_instance("run").xcom_pull(task_ids="run") == OUTPUT


def test_dag_fails_if_the_run_fails(emulator, dag):
    emulator.next_run({constant}.id, outcome="failed", failure=(1011, "captcha"))
    # dag.test() would wait 5 minutes before a retry.
    for task in dag.tasks:
        task.retries = 0

    assert dag.test({conf}).state == "failed"
'''


def dag_test_file(source: SourceInfo, runnable: Runnable, file: DagFile, path: str, conn_id: str) -> str:
    """Return the text of a test for a DAG file.

    :param source: what the DAG runs.
    :param runnable: the same without what is too long.
    :param path: the path of the DAG file, relative to the test or absolute.
    """
    constant, kind = EMULATED[runnable.kind]
    if source.type is BotType.WORKFLOW:
        kind = "workflow"  # API v3 runs each workflow as a bot with the same id.
    declaration = [] if kind == "workflow" else [f'    kind="{kind}",']
    declaration += lines_of("id=", runnable.id, ",", 4)
    declaration += lines_of("name=", one_line(runnable.name) or WORDS[runnable.kind].one, ",", 4)
    output: Any = None
    more = ""
    if SOURCES[runnable.kind].api_version is ApiVersion.V3:
        if runnable.kind is SourceKind.BOT:
            output = output_example(source.output_schema)
        declaration += lines_of("input_schema=", _schema(source.input_schema), ",", 4)
    elif runnable.inputs:
        more = ", WorkflowInput"
        # Because of the comment, formatters leave one input in its line.
        declaration += ["    inputs=(", "        # Those that it declares."]
        for each in runnable.inputs:
            arguments = [literal(each.name), *(["required=False"] if not each.required else [])]
            declaration += call_of("WorkflowInput", arguments, ",", 8)
        declaration.append("    ),")
    asked = {name: file.inputs[name] for name in file.asked}
    inputs = lines_of("INPUTS = ", file.inputs)
    if asked and asked != file.inputs:
        inputs += ["", "# What a person enters in the form for a new DAG run.", *lines_of("CONF = ", asked)]
    is_default = conn_id == BrowserActHook.default_conn_name
    set_connection = call_of(
        "monkeypatch.setenv", [literal(variable_of(conn_id)), "json.dumps(browseract_emulator.connection)"], indent=4
    )
    return FILE.format(
        dag_id=file.dag_id,
        standard="" if is_default else "import json\n\n",
        more=more,
        kind=WORDS[runnable.kind].one,
        output="\n".join(lines_of("OUTPUT = ", OUTPUT if output is None else output)),
        constant=constant,
        declaration="\n".join(declaration),
        inputs="\n".join(inputs),
        if_connection="" if is_default else ", monkeypatch",
        connection="" if is_default else "\n".join([*set_connection, ""]),
        if_secrets=", monkeypatch" if file.secrets else "",
        secrets="".join(f"{line}\n" for name in file.secrets for line in _set_secret(file, name)),
        load="\n".join(call_of("return browseract_load_dag", [literal(path)], indent=4)),
        conf="" if not asked else f"run_conf={'INPUTS' if asked == file.inputs else 'CONF'}",
    )


def _set_secret(file: DagFile, name: str) -> list[str]:
    connection = json.dumps({"conn_type": "generic", "password": file.inputs[name]})
    return call_of("monkeypatch.setenv", [literal(variable_of(file.secrets[name])), literal(connection)], indent=4)


def _schema(schema: Any) -> Any:
    """Return the schema of a bot without the secrets in it, or one that allows any input if it is long or no JSON."""
    found = schema_without_secrets(schema)
    try:
        if isinstance(found, Mapping) and len(json.dumps(found, allow_nan=False)) <= MAX_SCHEMA:
            return found
    except (ValueError, RecursionError):
        pass
    return {"type": "object"}


def schema_without_secrets(schema: Any) -> Any:
    """Return a schema that accepts any value for an input with the name of a secret, and names none itself."""
    if isinstance(schema, list):
        return [schema_without_secrets(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {}
    for name, part in schema.items():
        if is_secret(name):
            part = {rule: part[rule] for rule in KEPT_RULES if rule in part} if isinstance(part, Mapping) else "***"
        found[name] = schema_without_secrets(part)
    return found
