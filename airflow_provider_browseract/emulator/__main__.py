"""Serve the emulator until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from airflow_provider_browseract.emulator import Emulator, RunningEmulator


def introduction(running: RunningEmulator) -> Iterator[str]:
    """Describe an emulator to its user: the Airflow connection to it, and what it can run.

    :param running: the emulator.
    :returns: the lines to print.
    """
    yield f"BrowserAct emulator at {running.url}"
    yield ""
    yield f"Concurrent runs allowed: {running.emulator.concurrency} (change with --concurrency)"
    yield f"Where it differs from BrowserAct: {running.url}/"
    yield ""
    yield "The Airflow connection to it, as an environment variable:"
    yield f"export AIRFLOW_CONN_BROWSERACT_DEFAULT={shlex.quote(json.dumps(running.connection))}"
    yield ""
    yield "or in the form for connections, with the connection id browseract_default:"
    yield "  Connection type  BrowserAct"
    yield f"  API address      {running.connection['host']}"
    yield f"  API key          {running.connection['password']}"
    for title, listed in (
        ("Workflows, for RunWorkflowOperator:", running.emulator.workflows),
        ("Templates, for RunTemplateOperator:", running.emulator.templates),
    ):
        yield ""
        yield title
        for one in listed.values():
            names = (entry.name if entry.required else f"{entry.name} (optional)" for entry in one.inputs)
            yield f"  {one.id}  {one.name}: {one.description}"
            yield f"  {'':{len(one.id)}}  Inputs: {', '.join(names) or 'none'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
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
    parser.add_argument("--speed", type=float, default=1.0, help="2 halves all durations (default: %(default)s)")
    parser.add_argument(
        "--public-callbacks-only", action="store_true", help="refuse private callback addresses, as BrowserAct does"
    )
    parser.add_argument(
        "--as-in-the-demos", action="store_true", help="respond with the irregularities of the vendor's examples"
    )
    options = parser.parse_args(arguments)
    try:
        emulator = Emulator(
            api_key=options.api_key,
            concurrency=options.concurrency,
            speed=options.speed,
            allow_private_callbacks=not options.public_callbacks_only,
            as_in_the_demos=options.as_in_the_demos,
        )
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
