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
"""Seconds that a run takes by default. The provider refuses callbacks in the first 8 seconds after a deferral and polls
a few seconds later. That poll finds the end of a shorter run, and no callback can be seen."""

OPTIONS: dict[str, tuple[str | float, str]] = {
    "host": ("127.0.0.1", "address to listen on"),
    "port": (8010, "port to listen on, 0 for a free one"),
    "api_key": ("app-emulator", "key to accept"),
    "concurrency": (1, "number of concurrent runs allowed: 1 on the free plan, up to 20 on paid plans"),
}
"""Default and description of the options for the emulator."""

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
    fields = vars(EmulatedWorkflow)["__pydantic_fields__"]
    texts = {name: fields[name].description.partition(".")[0].replace("``", "") for name in DELAYS}
    delays = {name: (default, f"seconds: {texts[name]}") for name, default in DELAYS.items()}
    for name, (default, text) in {**OPTIONS, **delays}.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), default=default, help=f"{text} (default: %(default)s)")
    parser.add_argument(
        "--latency",
        type=float,
        nargs=2,
        default=(0.05, 0.3),
        metavar=("SHORTEST", "LONGEST"),
        help="seconds that a response takes (default: %(default)s)",
    )
    parser.add_argument("--credits", type=int, help="credits of the account (default: no limit)")
    parser.add_argument(
        "--credits-at-end", action="store_true", help="let a run use its credits when it ends, not with each step"
    )
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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    try:
        with emulator.serve(options.host, options.port):
            print(introduction(emulator), flush=True)
            done.wait()
    except OSError as error:
        print(f"Cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
