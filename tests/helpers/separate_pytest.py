"""A pytest in a process of its own, as an author of DAGs runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def run_pytest(folder: Path, home: Path, settings: Mapping[str, str] | None = None) -> str:
    """Run the tests in a folder, without the Airflow settings of this process, and return what pytest prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**kept, **(settings or {}), "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Less than the limit of a test, which would hide the output.
        timeout=240,
    )
    return done.stdout


def assert_passed(number: int, folder: Path, home: Path, settings: Mapping[str, str] | None = None) -> None:
    """Run a number of tests in a folder, all of which have to pass."""
    printed = run_pytest(folder, home, settings)
    assert re.search(rf"^{number} passed(, \d+ warnings?)? in ", printed, re.MULTILINE), printed
