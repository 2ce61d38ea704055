"""The command ``new-dag``: its arguments and its output. ``dag_writer.py`` has what it does."""

from __future__ import annotations

import argparse
import json
import sys

from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.exceptions import BrowserActError, InputError

PROGRAM = "python -m airflow_provider_browseract new-dag"


def option_of(kind: SourceKind) -> str:
    """Return a kind as ``--kind`` takes it."""
    return kind.value.replace("_", "-")


KINDS = {option_of(kind): kind for kind in SourceKind}

EPILOG = f"""\
Without --input, the DAG has the required inputs of a workflow as params, which Airflow asks for. For a bot, it has
example values.

examples:
  {PROGRAM} --list
  {PROGRAM} 71002814653029437 --input keyword=laptops
  {PROGRAM} 82000518364027715 --kind bot --output dags/contacts.py

Exit code: 0 for success, 1 if the output names a problem, 2 for wrong usage.
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "new-dag",
        help="write a DAG that runs a workflow, bot or template, and a test for it",
        description="Write a DAG that runs a workflow, bot or template, and a test for it. This uses no credits.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", metavar="ID", nargs="?", help="id of the workflow, bot or template")
    parser.add_argument("--kind", choices=[*KINDS], help="what ID identifies (default: workflow)")
    parser.add_argument(
        "--conn-id",
        default="browseract_default",
        help="Airflow connection that the command and the DAG use (default: %(default)s)",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of an input, and the default of a param of the DAG; lists and objects of a bot as JSON",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="DAG file to write, or its folder. The name of the file becomes the id of the DAG (default: named after "
        "the workflow, in Airflow's DAGs folder)",
    )
    parser.add_argument(
        "--test",
        metavar="FILE",
        help="test file to write, or its folder (default: a folder named tests beside that of the DAG file)",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="list what the account can run, with --kind only this kind, and write nothing",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    parser.set_defaults(run=run, refuse=parser.error)


def run(options: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    # Importing it takes seconds, because it imports Airflow.
    from airflow_provider_browseract.commands.dag_writer import Listed, Written, list_sources, write_dag

    if options.list == (options.id is not None):
        options.refuse("give either an ID or --list")
    kind = KINDS[options.kind] if options.kind else None
    try:
        result: Listed | Written
        if options.list:
            result = list_sources(options.conn_id, kind)
        else:
            kind = kind or SourceKind.WORKFLOW
            result = write_dag(options.conn_id, kind, options.id, options.input, options.output, options.test)
    except (BrowserActError, InputError) as error:
        if options.json:
            print(json.dumps({"error": str(error)}), file=options.out)
        else:
            print(error, file=sys.stderr)
        return 1
    print(json.dumps(result.as_json) if options.json else "\n".join(result.lines), file=options.out)
    return 0
