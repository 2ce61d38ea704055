"""Run the tests on each supported Python and Airflow, and print a table: ``make matrix``, or ``make cell`` for one.

A cell is `make units` and `make e2e`, with the package as its wheel: `make cell AIRFLOW=3.2.2 PYTHON=python3.12`.
A Python that is not installed is left out. This needs nothing but Python's standard library.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]

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
"""Airflow and Python of each cell: each Python on the newest Airflow; and the oldest Airflow, the newest 3.1, 3.2 and
3.3, and the newest pre-release."""


@dataclass(frozen=True)
class Result:
    """What a cell came to.

    :param seconds: how long it took.
    :param good: whether it passed.
    :param tests: how many tests passed, failed or were skipped.
    :param skipped: why tests were skipped, and how many.
    """

    seconds: float
    good: bool
    tests: Counter[str]
    skipped: Counter[str]


def interpreter(python: str) -> str | None:
    """Return the path of a Python; None if it is not installed, on the ``PATH`` or with pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    # pyenv's commands on the PATH work only for versions that are switched on.
    installed = sorted(pyenv.glob(f"versions/{python}.*/bin/python{python}"))
    return str(installed[-1]) if installed else shutil.which(f"python{python}")


def run(airflow: str, python: str, path: str) -> Result:
    """Run a cell.

    :param path: path of the Python.
    """
    reports = ROOT / ".venv" / f"reports-{airflow}-{python}"
    shutil.rmtree(reports, ignore_errors=True)
    began = time.monotonic()
    words = ["make", "cell", f"AIRFLOW={airflow}", f"PYTHON={path}", f"REPORTS={reports}"]
    done = subprocess.run(words, cwd=ROOT, check=False)
    tests: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for report in sorted(reports.glob("*.xml")):
        for case in ElementTree.parse(report).iter("testcase"):
            skip = case.find("skipped")
            failed = case.find("failure") is not None or case.find("error") is not None
            tests["failed" if failed else "passed" if skip is None else "skipped"] += 1
            if skip is not None:
                skipped[skip.get("message", "")] += 1
    return Result(time.monotonic() - began, done.returncode == 0, tests, skipped)


def main() -> int:
    """Run the cells that were named, or all, and print the table."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("cells", nargs="*", metavar="AIRFLOW/PYTHON", default=["/".join(cell) for cell in CELLS])
    lines, failed = [], False
    for name in options.parse_args().cells:
        airflow, _, python = name.partition("/")
        path = interpreter(python)
        if path is None:
            lines.append(f"{airflow:9} {python:7} not run: python{python} is not installed")
            continue
        print(f"== Airflow {airflow}, Python {python}", flush=True)
        result = run(airflow, python, path)
        failed |= not result.good
        counts = f"{result.tests['passed']:6} {result.tests['failed']:6} {result.tests['skipped']:7}"
        lines.append(
            f"{airflow:9} {python:7} {'ok' if result.good else 'FAILED':7} {counts} {result.seconds / 60:7.1f}"
        )
        lines += [f"{'':10}{count} skipped: {reason}" for reason, count in sorted(result.skipped.items())]
    print(f"\n{'Airflow':9} {'Python':7} {'':7} {'passed':>6} {'failed':>6} {'skipped':>7} minutes", *lines, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
