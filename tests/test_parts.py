"""The runner of ``make test``, ``.ci/run``, ``make weekly`` and ``make matrix``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.local_airflow import is_running, wait_for
from tests.helpers.pages import ROOT

MAKEFILE = """
broken:
	@echo broken; exit 3
good:
	@echo '== 12 passed, 1 skipped in 3.45s =='; echo 'SKIPPED [1] tests/a.py:7: no browser'
cell:
	@echo '== 12 passed in 3.45s =='; echo '3 passed in 3.45s'
long: ; @echo $$$$ > $@.new; mv $@.new $@.pid; sleep 600
deaf: ; @trap '' INT; echo $$$$ > $@.new; mv $@.new $@.pid; while true; do sleep 1; done
never: ; @touch begun
"""

RUNNER = """
import signal, sys
from pathlib import Path
from dev import parts
# The tests may run under nohup, which lets processes ignore this signal; and a shell does that with the other one.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.SIG_IGN)
parts.ROOT, parts.LOGS, parts.GRACE, parts.HEARTBEAT = Path.cwd(), Path("logs").resolve(), 1.0, 0.2
lanes = [[parts.Part(word) for word in lane.split()] for lane in sys.argv[1:]]
parts.lanes_of = lambda _: lanes
sys.argv[1:] = ["test"]
sys.exit(parts.main())
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "Makefile").write_text(MAKEFILE)
    started = []

    def start_(*lanes: str) -> subprocess.Popen[str]:
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "MAKEFLAGS": ""}
        words = [sys.executable, "-c", RUNNER, *lanes]
        started.append(subprocess.Popen(words, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start_
    for process in started:
        process.kill()
        process.communicate()


def test_failed_part_hides_no_other_and_its_output_comes_last(start):
    runner = start("broken good", "cell")
    printed, _ = runner.communicate(timeout=60)
    assert runner.returncode == 1
    rows = re.findall(r"^(broken|good|cell) +\d+\.\d  (\w+)(.*)$", printed, re.MULTILINE)
    passed = [("good", "ok", "      12 passed, 1 skipped"), ("cell", "ok", "      12 passed; 3 passed")]
    assert rows == [("broken", "FAILED", ""), *passed]
    assert "Skipped: no browser\n" in printed
    assert re.search(r"\nbroken FAILED\. The end of .*broken\.txt:\nbroken\n.*Error 3\n$", printed)


def pid_of(folder: Path, target: str) -> int:
    """Return the process of a part, once it has begun."""
    file = folder / f"{target}.pid"
    return int(wait_for(f"The part {target}", lambda: file.read_text() if file.exists() else "", timeout=60))


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_ends_the_parts_and_begins_no_other(start, tmp_path, ending):
    runner = start("long never", "deaf never")
    pids = [pid_of(tmp_path, "long"), pid_of(tmp_path, "deaf")]
    assert next(line for line in runner.stdout if "Running" in line) == "Running: long, deaf\n"
    runner.send_signal(ending)
    assert runner.wait(60) == 130
    wait_for("The end of the parts", lambda: not any(map(is_running, pids)), timeout=20)
    assert not (tmp_path / "begun").exists()
