"""Serve the emulator until SIGINT or SIGTERM, with the delays of a service unless the options say otherwise."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_browseract.emulator import Emulator, RunningEmulator
from airflow_provider_browseract.emulator.workflow import WorkflowSettings

DURATION = 15.0
"""Seconds that a run takes by default. The provider refuses callbacks in the first 8 seconds after a deferral and polls
a few seconds later. That poll finds the end of a shorter run, and no callback can be seen."""

OPTIONS: dict[str, tuple[str | float, str]] = {
    "host": ("127.0.0.1", "address to listen on"),
    "port": (8010, "port to listen on, 0 for a free one"),
    "api_key": ("app-emulator", "key to accept"),
    "concurrency": (1, "number of concurrent runs allowed: 1 on the free plan, up to 20 on paid plans"),
    "duration": (DURATION, "seconds that each run takes, long enough for a callback to resume its task"),
    "queued": (1.0, "seconds for which each run is created before it is running"),
    "output_after": (1.0, "seconds after its end at which output and files of a run appear"),
    "listed_after": (2.0, "seconds after its start at which a run appears in lists"),
    "stop_after": (0.0, "seconds after which a stop takes effect"),
    "max_duration": (7 * 3600.0, "seconds after which a run ends as failed"),
    "speed": (1.0, "2 halves all durations"),
}
"""Default and description of the options that have a value. Most are settings of the emulator or of its workflows."""


def introduction(running: RunningEmulator) -> Iterator[str]:
    """Describe an emulator to its user: the Airflow connection to it, and what it can run.

    :param running: the emulator.
    :returns: the lines to print.
    """
    yield f"BrowserAct emulator at {running.url}"
    yield ""
    emulator = running.emulator
    longest = max(one.duration for one in emulator.workflows.values()) / emulator.speed
    yield f"Concurrent runs allowed: {emulator.concurrency} (change with --concurrency)"
    yield f"Seconds that a run takes: {longest:g} (change with --duration)"
    yield "Delays, limits and other settings: see --help"
    yield f"Where it differs from BrowserAct: {running.url}/"
    yield ""
    host, key = running.connection["host"], running.connection["password"]
    port = urlsplit(host).port
    yield "Add the Airflow connection to it:"
    yield "airflow connections add browseract_default --conn-type browseract \\"
    yield f"    --conn-host {host} --conn-port {port} --conn-password {shlex.quote(key)}"
    yield ""
    yield "or set it as an environment variable:"
    yield f"export AIRFLOW_CONN_BROWSERACT_DEFAULT={shlex.quote(json.dumps(running.connection))}"
    yield ""
    yield "or fill in the form for connections, with the connection id browseract_default:"
    yield "  Connection type  BrowserAct"
    yield f"  API address      {host}"
    yield f"  API port         {port}"
    yield f"  API key          {key}"
    for title, listed in (
        ("Workflows, for RunWorkflowOperator and RunBotOperator:", emulator.workflows),
        ("Bots, for RunBotOperator:", emulator.bots),
        ("Templates, for RunTemplateOperator and RunBotTemplateOperator:", emulator.templates),
    ):
        yield ""
        yield title
        for one in listed.values():
            required = one.schema.get("required", ())
            names = (name if name in required else f"{name} (optional)" for name in one.schema.get("properties", ()))
            yield f"  {one.id}  {one.name}: {one.description}"
            yield f"  {'':{len(one.id)}}  Inputs: {', '.join(names) or 'none'}"


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_browseract.emulator",
        description="An emulated BrowserAct to develop DAGs with, offline and without credits.",
    )
    for name, (default, text) in OPTIONS.items():
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
    parser.add_argument(
        "--rate-limit",
        type=float,
        nargs=2,
        metavar=("REQUESTS", "SECONDS"),
        help="refuse more requests than that with HTTP 429 (default: no limit)",
    )
    parser.add_argument("--credits", type=int, help="credits of the account (default: no limit)")
    parser.add_argument(
        "--credits-at-end", action="store_true", help="let a run use its credits when it ends, not with each step"
    )
    parser.add_argument(
        "--public-callbacks-only",
        action="store_false",
        dest="allow_private_callbacks",
        help="refuse private callback addresses, as BrowserAct does",
    )
    parser.add_argument("--as-in-the-demos", action="store_true", help="respond like the vendor's examples")
    return parser


def make_emulator(options: argparse.Namespace) -> Emulator:
    """Return an emulator with the settings that the options contain by name.

    :raises ValueError: if a setting is invalid
    """
    given = vars(options)
    account = {each.name: given[each.name] for each in dataclasses.fields(Emulator) if each.name in given}
    emulator = Emulator(**account, errors_as_in_the_demos=True)
    for workflow_id in emulator.catalogue:
        settings: Any = {name: given[name] for name in WorkflowSettings.__annotations__.keys() & given.keys()}
        emulator.set_workflow(workflow_id, **settings)
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
        with emulator.serve(options.host, options.port) as running:
            print("\n".join(introduction(running)), flush=True)
            done.wait()
    except OSError as error:
        print(f"Cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
