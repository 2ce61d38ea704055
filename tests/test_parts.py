"""The runner of ``make test`` and ``.ci/run``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dev import parts
from tests.e2e.local_airflow import wait_for

ROOT = Path(__file__).parents[1]

MAKEFILE = """
broken:
	@echo broken; exit 3
good:
	@echo '== 12 passed, 1 skipped in 3.45s =='; echo 'SKIPPED [1] tests/a.py:7: no browser'
a: ; @touch a; for i in $$(seq 600); do test -e b && exit 0; sleep 0.1; done; exit 1
b: ; @touch b; for i in $$(seq 600); do test -e a && exit 0; sleep 0.1; done; exit 1
slow: ; @echo 'tests/b.py .... [ 61%]'; sleep 2
long: ; @echo $$$$ > pid.new; mv pid.new pid; sleep 600
"""

RUNNER = """
import signal, sys
from pathlib import Path
from dev import parts
# The tests may run under nohup, which lets processes ignore this signal.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
parts.ROOT, parts.LOGS, parts.HEARTBEAT = Path.cwd(), Path("logs").resolve(), 0.1
lanes = [[parts.Part(word) for word in lane.split()] for lane in sys.argv[2:]]
parts.lanes_of = lambda _: lanes
sys.argv[2:] = []
sys.exit(parts.main())
"""


@pytest.fixture
def start(tmp_path):
    """Start the runner with lanes of targets."""
    (tmp_path / "Makefile").write_text(MAKEFILE)
    started = []

    def start_(*lanes: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", RUNNER, "test", *lanes],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), "MAKEFLAGS": ""},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start_
    for process in started:
        process.kill()
        process.communicate()


def test_failed_part_hides_no_other_and_its_output_comes_last(start):
    runner = start("broken good", "good")
    printed, _ = runner.communicate(timeout=60)
    assert runner.returncode == 1
    rows = re.findall(r"^(broken|good) +\d+\.\d  (\w+)(.*)$", printed, re.MULTILINE)
    passed = ("good", "ok", "      12 passed, 1 skipped")
    assert rows == [("broken", "FAILED", ""), passed, passed]
    assert "Skipped: no browser\n" in printed
    assert re.search(r"\nbroken FAILED\. The end of .*broken\.txt:\nbroken\n.*Error 3\n$", printed)


def test_lanes_run_side_by_side(start):
    runner = start("a", "b")
    printed, _ = runner.communicate(timeout=120)
    assert runner.returncode == 0, printed
    assert "a: ok after 0.0 minutes" in printed


def test_progress_of_pytest_is_shown(start):
    runner = start("slow")
    printed, _ = runner.communicate(timeout=60)
    assert "\nslow 61%\n" in printed


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_ends_the_parts(start, tmp_path, ending):
    runner = start("long good", "long")
    pid = int(wait_for("The part", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), timeout=60))
    runner.send_signal(ending)
    assert runner.wait(60) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_each_part_is_a_target_of_the_makefile():
    targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {name for names in targets for name in names.split()}
    wanted = {
        part.name.split()[0] for which in ("test", "ci", "weekly") for lane in parts.lanes_of(which) for part in lane
    }
    assert wanted <= known
