"""The commands of the provider: ``python -m airflow_provider_browseract COMMAND``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout

from airflow_provider_browseract.commands import check, new_dag

COMMANDS = (check, new_dag)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_browseract",
        description="Commands of the Airflow provider for BrowserAct. They start no run and use no credits.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_command(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    parser = command_line()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help()
        return 0
    options = parser.parse_args(arguments)
    # Where a command prints. Airflow may print anything to sys.stdout at any time.
    options.out = sys.stdout
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not load_airflow():
            return 1
        try:
            code: int = options.run(options)
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
        # Airflow has added filters of its own.
        warnings.simplefilter("ignore")
    return True


if __name__ == "__main__":
    sys.exit(main())
