"""Serve the emulator until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from airflow_provider_browseract.emulator import Emulator, RunningEmulator

DURATION = 15.0
"""Seconds that a run takes by default. The provider refuses callbacks in the first 8 seconds after a deferral and polls
a few seconds later. That poll finds the end of a shorter run, and no callback can be seen."""


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
        ("Workflows, for RunWorkflowOperator:", emulator.workflows),
        ("Templates, for RunTemplateOperator:", emulator.templates),
    ):
        yield ""
        yield title
        for one in listed.values():
            names = (entry.name if entry.required else f"{entry.name} (optional)" for entry in one.inputs)
            yield f"  {one.id}  {one.name}: {one.description}"
            yield f"  {'':{len(one.id)}}  Inputs: {', '.join(names) or 'none'}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_browseract.emulator",
        description="An emulated BrowserAct to develop DAGs with, offline and without credits.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8010, help="0 selects a free one (default: %(default)s)")
    parser.add_argument("--api-key", default="app-emulator", help="key to accept (default: %(default)s)")
    parser.add_argument(
        "--concurrency",
        type=int,
        default=1,
        help="number of concurrent runs allowed (default: %(default)s, as on the free plan; paid plans allow up to 20)",
    )
    parser.add_argument(
        "--duration",
        type=float,
        default=DURATION,
        help="seconds that each run takes (default: %(default)s, long enough for a callback to resume its task)",
    )
    parser.add_argument("--speed", type=float, default=1.0, help="2 halves all durations (default: %(default)s)")
    parser.add_argument(
        "--public-callbacks-only", action="store_true", help="refuse private callback addresses, as BrowserAct does"
    )
    parser.add_argument(
        "--as-in-the-demos", action="store_true", help="respond with the irregularities of the vendor's examples"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        emulator = Emulator(
            api_key=options.api_key,
            concurrency=options.concurrency,
            speed=options.speed,
            allow_private_callbacks=not options.public_callbacks_only,
            as_in_the_demos=options.as_in_the_demos,
        )
        for workflow_id in (*emulator.workflows, *emulator.templates):
            emulator.set_workflow(workflow_id, duration=options.duration)
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
