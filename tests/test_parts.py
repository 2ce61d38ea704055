"""The runner of ``make test``, ``.ci/run`` and ``make weekly``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
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
parts.ROOT, parts.LOGS, parts.HEARTBEAT, parts.GRACE = Path.cwd(), Path("logs").resolve(), 0.1, float(sys.argv[1])
lanes = [[parts.Part(word) for word in lane.split()] for lane in sys.argv[2:]]
parts.lanes_of = lambda _: lanes
sys.argv[1:] = ["test"]
sys.exit(parts.main())
"""


@pytest.fixture
def start(tmp_path):
    """Start the runner with lanes of targets."""
    (tmp_path / "Makefile").write_text(MAKEFILE)
    started = []

    def start_(*lanes: str, grace: float = 60.0) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", RUNNER, str(grace), *lanes],
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


def pid_of(folder: Path, target: str) -> int:
    """Return the process of a part, once it has begun."""
    file = folder / f"{target}.pid"
    return int(wait_for(f"The part {target}", lambda: file.read_text() if file.exists() else "", timeout=60))


def is_running(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_ends_the_parts_and_begins_no_other(start, tmp_path, ending):
    runner = start("long never", "deaf never", grace=1.0)
    pids = [pid_of(tmp_path, "long"), pid_of(tmp_path, "deaf")]
    runner.send_signal(ending)
    assert runner.wait(60) == 130
    wait_for("The end of the parts", lambda: not any(map(is_running, pids)), timeout=20)
    assert not (tmp_path / "begun").exists()


def test_parts_end_by_themselves_within_the_grace(start, tmp_path):
    runner = start("long")
    pid_of(tmp_path, "long")
    runner.send_signal(signal.SIGTERM)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(30) == 130


def test_each_part_is_a_target_of_the_makefile():
    targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {name for names in targets for name in names.split()}
    wanted = {
        part.name.split()[0] for which in ("test", "ci", "weekly") for lane in parts.lanes_of(which) for part in lane
    }
    assert wanted <= known
