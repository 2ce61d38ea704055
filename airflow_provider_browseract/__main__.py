"""The commands of the provider: ``python -m airflow_provider_browseract COMMAND``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import TextIOWrapper

EXAMPLES = """\
examples:
  %(prog)s
  %(prog)s 71002814653029437 --input keyword=laptops > dags/search_029437.py
  %(prog)s 71002814653029437 --input keyword=laptops --test > tests/test_search_029437.py

Exit code: 0 for success, 1 if something is wrong, 2 for wrong usage. If something is wrong, stdout is empty.
"""


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_browseract",
        description="Commands of the Airflow provider for BrowserAct. They start no run and use no credits.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    connection = argparse.ArgumentParser(add_help=False)
    default = "browseract_default"
    connection.add_argument("--conn-id", default=default, help="the Airflow connection (default: %(default)s)")
    commands.add_parser(
        "check",
        parents=[connection],
        help="check a connection and the Airflow around it",
        description="Check a connection and the Airflow around it, and print the remedy for each problem.",
        epilog="Exit code: 0 if no check has failed, 1 if one has, 2 for wrong usage.",
    )
    new_dag = commands.add_parser(
        "new-dag",
        parents=[connection],
        help="print a DAG that runs a workflow, bot or template, or its test",
        description="Print a DAG that runs a workflow, bot or template, or its test.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new_dag.add_argument("id", metavar="ID", nargs="?", help="its id or address; without it, list what there is to run")
    new_dag.add_argument("--test", action="store_true", help="print the pytest file of the DAG")
    new_dag.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="value of an input")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    parser = command_line()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help()
        return 0
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        # A file with a DAG has to be UTF-8, whatever the terminal is.
        sys.stdout.reconfigure(encoding="utf-8")
    # Where a command prints. Airflow may print anything to sys.stdout at any time.
    options.out = sys.stdout
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not load_airflow():
            return 1
        from airflow_provider_browseract.commands import check, new_dag

        try:
            code = {"check": check.run, "new-dag": new_dag.run}[options.command](options)
            options.out.flush()
        except BrokenPipeError:
            # The reader, such as head, has seen enough. At its exit, Python writes to stdout once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), options.out.fileno())
            return 1
        return code


def load_airflow() -> bool:
    """Import Airflow, and return whether that is possible."""
    # Airflow then looks for connections where its own components do, which includes its database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    try:
        import airflow  # noqa: F401
    except Exception as error:  # noqa: BLE001 - the message may contain the password of the database
        print(f"Airflow cannot be loaded ({type(error).__name__}). `airflow info` shows why.")
        return False
    if not sys.warnoptions:
        # Airflow has added filters.
        warnings.simplefilter("ignore")
    return True


if __name__ == "__main__":
    sys.exit(main())
