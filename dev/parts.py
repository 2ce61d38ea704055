"""Run the parts of ``make test``, ``.ci/run``, ``make weekly`` or ``make matrix``, each part to its end.

There are two lanes, or one of the matrix. What a part prints is in ``.venv/parts``. A line each minute shows which
parts are running. At the end come what was skipped on this machine and why, a table, and the last lines of each part
that has failed. Only one lane starts an Airflow: with two, a callback may come after a poll. This needs only Python's
standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / ".venv" / "parts"

NEWEST_PYTHON = "PYTHON=/usr/bin/python3.13"
"""Debian's own, which most users there have."""

CELLS = (
    ("3.3.2", "3.10"),
    ("3.3.2", "3.11"),
    ("3.3.2", "3.12"),
    ("3.3.2", "3.13"),
    ("3.1.1", "3.10"),
    ("3.1.8", "3.11"),
    ("3.2.2", "3.12"),
    ("3.4.0b2", "3.13"),
)
"""Airflow and Python of each cell of the matrix: each Python on the newest Airflow; and the oldest Airflow, the newest
3.1, 3.2 and 3.3, and the newest pre-release."""

OLDEST = CELLS[4]  # what CI runs beside the newest Airflow

HEARTBEAT, GRACE = 60.0, 60.0
"""Seconds between two lines that show which parts are running; and that a part has to end after an interruption, before
it is killed."""


@dataclass(eq=False)
class Part:
    """A target of the Makefile.

    :param name: the target, and variables.
    """

    name: str
    result: str = ""
    seconds: float = 0.0

    @property
    def log(self) -> Path:
        """The file with what it prints."""
        return LOGS / f"{re.sub('[^a-zA-Z0-9.]+', '-', self.name)}.txt"

    def find(self, pattern: str) -> list[str]:
        """Return what matches in what it has printed."""
        return re.findall(pattern, self.log.read_text(errors="replace"), re.MULTILINE)

    async def run(self) -> None:
        """Run it to its end, or end it if this is canceled."""
        began = time.monotonic()
        print(f"{self.name} ...", flush=True)
        with self.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *("make", "--no-print-directory", *self.name.split()),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.result = "FAILED" if await process.wait() else "ok"
        except asyncio.CancelledError:
            # As Ctrl-C does: pytest then stops the servers of its tests.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
                for _ in range(int(GRACE / 0.1)):
                    await asyncio.sleep(0.1)
                    os.killpg(process.pid, 0)
                os.killpg(process.pid, signal.SIGKILL)
            raise
        self.seconds = time.monotonic() - began
        print(f"{self.name}: {self.result} after {self.seconds / 60:.1f} minutes", flush=True)

    def __str__(self) -> str:
        counts = self.find(r"^=*\s?(\d+ (?:passed|failed).*?) in [\d.]+s")
        return f"{self.name:44} {self.seconds / 60:5.1f}  {self.result:6}  {'; '.join(counts)}".rstrip()


def variables(airflow: str, python: str) -> str:
    """Return the variables for an Airflow and a Python, which pyenv may have installed."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    # pyenv's commands on the PATH work only for versions that are switched on.
    installed = sorted(pyenv.glob(f"versions/{python}.*/bin/python{python}"))
    return f"AIRFLOW={airflow} PYTHON={installed[-1] if installed else f'python{python}'}"


def oldest() -> str:
    """Return the variables for the oldest Airflow: with the oldest Python if pyenv has it, else with ``python3``."""
    found = variables(*OLDEST)
    return found if "/" in found else f"AIRFLOW={OLDEST[0]}"


def lanes_of(which: str) -> list[list[Part]]:
    """Return the parts, in lanes. The environments are there already, but for those of the matrix."""
    listed: dict[str, list[list[str]]] = {
        "test": [["units"], ["e2e"]],
        "ci": [
            [
                *("check", "docs", "dist", "units", f"units {NEWEST_PYTHON}"),
                *(f"units WHEEL=1 {oldest()}", "databases WHEEL=1"),
            ],
            ["e2e WHEEL=1", f"e2e WHEEL=1 {oldest()}", "short-faults WHEEL=1"],
        ],
        "weekly": [["random", "site", "databases"], ["pods", "cluster"]],
        "matrix": [[f"cell {variables(*each)}" for each in CELLS]],
    }
    return [[Part(name) for name in lane] for lane in listed[which]]


async def run_all(lanes: list[list[Part]]) -> None:
    """Run lanes side by side, and the parts of each one after the other, until all have ended."""

    async def run(lane: list[Part]) -> None:
        for part in lane:
            await part.run()

    async def show() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            running = [part.name for lane in lanes for part in lane if part.log.exists() and not part.result]
            print("Running:", ", ".join(running), flush=True)

    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup ignores SIGHUP. What a shell runs in the background ignores SIGINT, but with a handler, parts do not.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    all_lanes = asyncio.gather(*map(run, lanes), return_exceptions=True)
    beside: list[asyncio.Future[Any]] = [asyncio.ensure_future(show()), asyncio.ensure_future(interrupted.wait())]
    await asyncio.wait([all_lanes, *beside], return_when=asyncio.FIRST_COMPLETED)
    for each in (*beside, *([all_lanes] if interrupted.is_set() else [])):
        each.cancel()
    await all_lanes


def main() -> int:
    """Run the parts, and print the table and why parts have failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("which", choices=("test", "ci", "weekly", "matrix"))
    lanes = lanes_of(parser.parse_args().which)
    parts = [part for lane in lanes for part in lane]
    LOGS.mkdir(parents=True, exist_ok=True)
    for part in parts:
        part.log.unlink(missing_ok=True)
    began = time.monotonic()
    try:
        asyncio.run(run_all(lanes))
    except asyncio.CancelledError:
        return 130
    skipped = {reason for part in parts for reason in part.find(r"^SKIPPED \[\d+\] \S+: (.*)")}
    print(*(f"Skipped: {reason}" for reason in sorted(skipped)), sep="\n")
    print(*parts, f"{'all, side by side':44} {(time.monotonic() - began) / 60:5.1f}", sep="\n")
    failed = [part for part in parts if part.result != "ok"]
    for part in failed:
        print(f"\n{part.name} FAILED. The end of {part.log}:")
        print(*part.log.read_text(errors="replace").splitlines()[-60:], sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
