"""Serve the emulator until SIGINT or SIGTERM, with the delays of a service unless the options say otherwise."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_browseract.emulator import EmulatedWorkflow, Emulator
from airflow_provider_browseract.emulator.pages import render

DURATION = 15.0
"""Seconds that a run takes by default. The provider refuses callbacks in the first 10 seconds after a deferral and
polls a few seconds later. That poll finds the end of a shorter run, and no callback can be seen."""

DELAYS = {"duration": DURATION, "queued": 1.0, "output_after": 1.0, "listed_after": 2.0, "stop_after": 0.0}
"""Settings of every workflow that are options too, and their defaults on the command line."""


def introduction(emulator: Emulator) -> Any:
    """Describe an emulator to its user: the Airflow connection to it, and what it can run."""
    longest = max(workflow.duration for workflow in emulator.workflows.values())
    return render(
        "introduction.txt",
        emulator=emulator,
        port=urlsplit(emulator.url).port,
        connection=json.dumps(emulator.connection),
        longest=f"{longest:g}",
        quote=shlex.quote,
    )


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_browseract.emulator",
        description="An emulated BrowserAct to develop DAGs with, offline and without credits.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8010, help="port to listen on, 0 for a free one (default: %(default)s)")
    add("--api-key", default=Emulator.api_key, help="key to accept (default: %(default)s)")
    add("--concurrency", type=int, default=1, help="concurrent runs allowed, up to 20 on paid plans (default: 1)")
    add("--credits", type=int, help="credits of the account (default: no limit)")
    add("--credits-at-end", action="store_true", help="let a run use its credits when it ends, not with each step")
    text = "seconds that a response takes (default: %(default)s)"
    add("--latency", type=float, nargs=2, default=(0.05, 0.3), metavar=("SHORTEST", "LONGEST"), help=text)
    for name, default in DELAYS.items():
        field = vars(EmulatedWorkflow)["__pydantic_fields__"][name]
        text = field.description.partition(".")[0].replace("``", "")
        add(f"--{name.replace('_', '-')}", type=float, default=default, help=f"seconds: {text} (default: {default:g})")
    return parser


def make_emulator(options: argparse.Namespace) -> Emulator:
    """Return an emulator with the settings that the options contain by name.

    :raises ValueError: if a setting is invalid
    """
    given = vars(options)
    account = {each.name: given[each.name] for each in dataclasses.fields(Emulator) if each.name in given}
    emulator = Emulator(**account)
    emulator.set_workflow("*", **{name: given[name] for name in DELAYS})
    return emulator


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = command_line()
    options = parser.parse_args(arguments)
    try:
        emulator = make_emulator(options)
    except ValueError as error:
        parser.error(str(error))

    done = threading.Event()
    try:
        with emulator.serve(options.host, options.port):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: done.set())
            print(introduction(emulator), flush=True)
            done.wait()
    except OSError as error:
        print(f"Cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
