"""The command ``check``: its arguments and its output. ``checks.py`` has the checks."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import textwrap
from collections.abc import Iterator
from enum import Enum

from airflow_provider_browseract.api.models import one_line

LONGEST_TEXT = 600
"""Characters of a text that may come from outside."""

WIDTH = 90
"""Characters of a line of advice."""


class State(str, Enum):
    """Whether a check has passed."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"
    SKIP = "skip"


COLORS = {State.OK: 32, State.WARN: 33, State.FAIL: 31, State.SKIP: 2}


@dataclasses.dataclass(frozen=True)
class Line:
    """The outcome of a check.

    :param name: what was checked.
    :param facts: what was found, or why it was not checked.
    :param advice: the remedy, or what the facts do not show; "" for nothing.
    """

    state: State
    name: str
    facts: str
    advice: str = ""

    def lines(self, state: str) -> Iterator[str]:
        """Yield the lines to print.

        :param state: the state as it is shown.
        """
        facts, advice = (one_line(text, LONGEST_TEXT) or "" for text in (self.facts, self.advice))
        yield f"{state}{'':{6 - len(self.state.value)}}{self.name:12}{facts}"
        for each in textwrap.wrap(advice, WIDTH, break_long_words=False, break_on_hyphens=False):
            yield f"{'':18}{each}"


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a command line."""
    text = (
        "Check a connection and the Airflow around it: API key and address, triggerer, API server, callbacks, slots. "
        "It starts no run and uses no credits."
    )
    parser = commands.add_parser(
        "check",
        help="check a connection, and whether callbacks arrive",
        description=text,
        epilog="Exit code: 0 if no check has failed, 1 if one has, 2 for wrong usage.",
    )
    parser.add_argument(
        "conn_id",
        nargs="?",
        default="browseract_default",
        metavar="CONN_ID",
        help="the Airflow connection (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check, print the lines, and return the exit code."""
    # Importing it takes seconds, because it imports Airflow.
    from airflow_provider_browseract.commands.checks import NOT_ASKED, checks

    out, done = options.out, []
    colored = out.isatty() and "NO_COLOR" not in os.environ
    for line in checks(options.conn_id):
        done.append(line)
        if not options.json:
            state = f"\033[{COLORS[line.state]}m{line.state.value}\033[0m" if colored else line.state.value
            print("\n".join(line.lines(state)), file=out, flush=True)
    failed = sum(line.state is State.FAIL for line in done)
    if options.json:
        found = {"conn_id": options.conn_id, "ok": not failed, "checks": [dataclasses.asdict(line) for line in done]}
        print(json.dumps(found, indent=2), file=out)
    else:
        result = f"{failed} of {len(done)} checks failed" if failed else "No check failed"
        skipped = sum(line.state is State.SKIP for line in done)
        result += f", {skipped} skipped." if skipped else "."
        print(f"\n{NOT_ASKED}\n{result}", file=out)
    return 1 if failed else 0
