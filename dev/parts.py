"""Run all parts of ``make test`` or of ``.ci/run``: several of them side by side, each to its end, and then a table.

    python -m dev.parts test|ci

What a part prints is in ``.venv/parts``, and is shown if the part fails. The parts that start an Airflow run one after
the other: with a second Airflow beside them, two cores are sometimes too slow for tests in which a callback has to
come before a poll. In ``ci`` the panel is an exception, because it waits for no callback. ``ci`` needs nothing but
Python's standard library.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / ".venv" / "parts"

OLDEST, NEWEST = "3.1.1", "3.3.2"

EXAMPLES_AND_CALLBACKS = "tests/e2e/test_examples.py tests/e2e/test_webhooks.py"
PANEL = "tests/e2e/test_panel.py"
SITE = "tests/e2e/test_site.py"

DATABASE = "tests/webhook tests/panel/test_database.py tests/commands/test_database.py"
"""What uses Airflow's database."""

INDEPENDENT = "--ignore=tests/runs --ignore-glob=tests/emulator/test_[!s]*"
"""Where neither Airflow nor a library whose version depends on it takes part, so one Airflow is enough."""

AS_IN_THE_DEMOS = "--as-in-the-demos"
"""The emulator responds like the vendor's examples."""

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end the parts, which run in separate sessions: only this process gets what a terminal sends."""

END_GRACE = 60.0
"""Seconds that parts have to end after an interruption, before they are killed."""

HEARTBEAT = 60.0
"""Seconds between two lines that report how far the running parts are."""


@dataclass(frozen=True, eq=False)
class Part:
    """Something that is run and can fail.

    :param name: its name in the table.
    :param command: its command.
    :param environment: more environment variables.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """The file with what it prints."""
        return OUTPUT / f"{re.sub('[^a-z0-9.]+', '-', self.name.lower())}.txt"


@dataclass(frozen=True)
class Result:
    """How a part ended.

    :param seconds: how long it took.
    :param cpu: processor time of its processes, in seconds.
    :param tests: what pytest counted.
    """

    part: Part
    good: bool
    seconds: float
    cpu: float
    tests: str

    def __str__(self) -> str:
        result = "ok" if self.good else "FAILED"
        return f"{self.part.name:27} {self.seconds / 60:7.1f} {self.cpu / 60:7.1f}  {result:6}  {self.tests}".rstrip()


Lane = Sequence[Part]
"""Parts that run one after the other; lanes run side by side."""


def _make(name: str, *words: str, **environment: str) -> Part:
    return Part(name, ("make", "--no-print-directory", *words), environment)


def _tests(name: str, arguments: str, *variables: str, target: str = "test", **environment: str) -> Part:
    return _make(name, target, *variables, f"PYTEST_ARGS={arguments}", **environment)


def parts_of_test() -> list[list[Lane]]:
    """Return the parts of ``make test``, which has made the environment."""
    return [
        [
            [_make("unit tests", "units")],
            [
                _tests("examples and callbacks", EXAMPLES_AND_CALLBACKS),
                _tests("panel in a browser", PANEL),
            ],
        ]
    ]


def parts_of_ci() -> list[list[Lane]]:
    """Return what ``.ci/run`` does with the built wheel: first the environments, and then everything that uses them."""
    oldest, newest = ("WHEEL=1", f"AIRFLOW={OLDEST}"), ("WHEEL=1", f"AIRFLOW={NEWEST}")
    return [
        [[_make(f"environment, {airflow}", "env", "WHEEL=1", f"AIRFLOW={airflow}")] for airflow in (OLDEST, NEWEST)],
        [
            [
                _make("checks", "check", *newest),
                _tests("documentation in a browser", SITE, *newest),
                _make("sdist and wheel", "dist"),
                _make(f"unit tests, {NEWEST}", "units", *newest),
                _tests(f"unit tests, {OLDEST}", f"{INDEPENDENT} {AS_IN_THE_DEMOS}", *oldest, target="units"),
                _tests("database, PostgreSQL", DATABASE, *newest, BROWSERACT_DATABASE="postgresql"),
                _tests(f"panel in a browser, {NEWEST}", PANEL, *newest),
                _tests(f"panel in a browser, {OLDEST}", PANEL, *oldest),
            ],
            [
                _tests(f"examples, callbacks, {NEWEST}", EXAMPLES_AND_CALLBACKS, *newest),
                _tests(f"examples, callbacks, {OLDEST}", f"{EXAMPLES_AND_CALLBACKS} {AS_IN_THE_DEMOS}", *oldest),
                _tests(f"faults, {NEWEST}", "tests/faults", *newest),
                _tests(f"pods, {NEWEST}", "tests/e2e/test_pods.py", *newest),
            ],
        ],
    ]


class Runner:
    """Runs parts, and prints how they get on."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self._running: dict[Part, subprocess.Popen[bytes]] = {}
        self._ended = False
        self._began = time.monotonic()
        self._printing, self._starting = threading.Lock(), threading.Lock()

    def run(self, lanes: Sequence[Lane]) -> bool:
        """Run lanes side by side, each part to its end, and return whether all parts so far passed."""
        with ThreadPoolExecutor(len(lanes)) as pool:
            try:
                running: set[Future[None]] = {pool.submit(self._run_lane, lane) for lane in lanes}
                left = running
                while left:
                    _, left = wait(left, HEARTBEAT)
                    if left:
                        self._print(", ".join(f"{part.name} {progress(part)}".rstrip() for part in [*self._running]))
            except KeyboardInterrupt:
                self._end()
                raise
        for each in running:
            each.result()
        return all(result.good for result in self.results)

    def _end(self) -> None:
        """End what is running, as Ctrl-C does: pytest then stops the servers of its tests."""
        with self._starting:
            self._ended = True
        for number, grace in ((signal.SIGINT, END_GRACE), (signal.SIGKILL, 1.0)):
            for process in [*self._running.values()]:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            over = time.monotonic() + grace
            while self._running and time.monotonic() < over:
                time.sleep(0.1)

    def _run_lane(self, lane: Lane) -> None:
        for part in lane:
            self._print(f"{part.name} ...")
            result = self._run_part(part)
            if self._ended:
                break
            self.results.append(result)
            if not result.good:
                self._print(f"{part.name} FAILED:\n{part.output.read_text(errors='replace')}")
            self._print(f"{part.name}: {'ok' if result.good else 'FAILED'} after {clock(result.seconds)}")

    def _run_part(self, part: Part) -> Result:
        began = time.monotonic()
        cpu, good = 0.0, False
        with part.output.open("wb") as output:
            try:
                process = self._start(part, output)
            except OSError as error:
                output.write(str(error).encode())
            else:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                del self._running[part]
                cpu, good = usage.ru_utime + usage.ru_stime, process.returncode == 0
        return Result(part, good, time.monotonic() - began, cpu, counts(part))

    def _start(self, part: Part, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a part, unless everything is being ended."""
        with self._starting:
            if self._ended:
                raise InterruptedError("interrupted before the start")
            process = self._running[part] = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env={**os.environ, "MAKEFLAGS": make_flags(), **part.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return process

    def _print(self, text: str) -> None:
        with self._printing:
            print(f"{clock(time.monotonic() - self._began):>6}  {text}", flush=True)

    def table(self) -> str:
        """Return time and result of each part that has ended."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        head = f"{'':27} {'minutes':>7} {'CPU':>7}"
        all_together = (
            f"{'all together':27} {(time.monotonic() - self._began) / 60:7.1f} "
            f"{(used.ru_utime + used.ru_stime) / 60:7.1f}"
        )
        return "\n".join([head, *map(str, self.results), all_together])


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds."""
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


def make_flags() -> str:
    """Return the flags of the make that runs this, without those that would remake environments or hide failures."""
    return re.sub("^[A-Za-z]+", lambda letters: re.sub("[Bi]", "", letters[0]), os.environ.get("MAKEFLAGS", ""))


def progress(part: Part) -> str:
    """Return how far pytest is, as it prints it; nothing if it is not known."""
    found = re.findall(r"\[ *(\d+%)\]", part.output.read_text(errors="replace"))
    return found[-1] if found else ""


def counts(part: Part) -> str:
    """Return pytest's own last words, such as ``12 passed, 1 skipped``."""
    found = re.findall(r"^=+ (.*) in [\d.]+s.*=+$", part.output.read_text(errors="replace"), re.MULTILINE)
    return found[-1] if found else ""


def left_out() -> list[str]:
    """Return what the tests skip on this machine, and what they need for it."""
    from tests.browser import why_no_browser
    from tests.databases import why_no_postgres

    missing = {
        "everything that needs PostgreSQL, such as the examples in a real Airflow": why_no_postgres(),
        "the panel in a browser": why_no_browser(),
        "the relays of docs/callbacks.md": None if shutil.which("nginx") else "nginx is not installed",
        **{
            f"the comparison of calls and emulator with the vendor's document of API {version}": (
                None if os.environ.get(variable) else f"{variable} does not name it"
            )
            for version, variable in (("v2", "BROWSERACT_OPENAPI"), ("v3", "BROWSERACT_OPENAPI_V3"))
        },
    }
    return [f"{what}, because {reason}" for what, reason in missing.items() if reason]


def main() -> int:
    """Run the parts, and print the table."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("which", choices=("test", "ci"))
    which = options.parse_args().which
    OUTPUT.mkdir(parents=True, exist_ok=True)
    if which == "test":
        print(f"These tests take about twelve minutes on two cores. Their output is in {OUTPUT}.")
        for line in left_out():
            print(f"Skipped: {line}.")
    for ending in ENDINGS:
        # nohup ignores SIGHUP.
        if ending is not signal.SIGHUP or signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, _interrupt)
    runner = Runner()
    try:
        good = all(map(runner.run, parts_of_test() if which == "test" else parts_of_ci()))
    except KeyboardInterrupt:
        return 130
    print(runner.table())
    return 0 if good else 1


def _interrupt(number: int, frame: object) -> None:
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
