"""A pytest in a process of its own, as an author of DAGs runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def assert_passed(number: int, folder: Path, home: Path, settings: Mapping[str, str] | None = None) -> None:
    """Run a number of tests in a folder, all of which have to pass, without the Airflow settings of this process."""
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
    assert re.search(rf"^{number} passed(, \d+ warnings?)? in ", done.stdout, re.MULTILINE), done.stdout
