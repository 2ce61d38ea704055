"""The runner of ``make test`` and ``.ci/run``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dev import parts
from dev.parts import Part, Runner, parts_of_ci, parts_of_test
from tests.e2e.local_airflow import wait_for

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(parts, "OUTPUT", tmp_path)
    return tmp_path


def shell(name: str, script: str, **environment: str) -> Part:
    return Part(name, ("sh", "-c", script), environment)


def test_failed_part_is_shown_and_hides_no_other(capsys):
    runner = Runner()
    good = runner.run(
        [
            [shell("first", "echo broken; exit 3"), shell("second", "true")],
            [shell("third", "echo '== 12 passed, 1 skipped in 3.45s =='")],
        ]
    )
    assert not good
    printed = capsys.readouterr().out
    assert re.search(r"first FAILED:\nbroken\n", printed)
    assert "echo" not in printed
    rows = {line[:27].strip(): line[27:] for line in runner.table().splitlines()}
    assert "FAILED" in rows["first"]
    assert rows["second"].endswith("ok")
    assert rows["third"].endswith("ok      12 passed, 1 skipped")


def test_lanes_run_side_by_side_and_parts_of_a_lane_in_order(tmp_path):
    meet = "touch $0/{own}; for i in $(seq 600); do test -e $0/{other} && exit 0; sleep 0.1; done; exit 1"

    def part(name: str, script: str) -> Part:
        return Part(name, ("sh", "-c", script, str(tmp_path)))

    lanes = [
        [part("a", f"({meet.format(own='a', other='b')}) && touch $0/ended"), part("after a", "test -e $0/ended")],
        [part("b", meet.format(own="b", other="a"))],
    ]
    runner = Runner()
    assert runner.run(lanes)
    assert {result.part.name for result in runner.results} == {"a", "after a", "b"}


def test_part_that_cannot_start_fails_and_hides_no_other(capsys):
    runner = Runner()
    lanes = [[Part("missing", ("/nowhere/command",)), shell("after it", "true")], [shell("beside it", "exit 1")]]
    assert not runner.run(lanes)
    assert re.search(r"missing FAILED:\n.*No such file", capsys.readouterr().out)
    assert {result.part.name: result.good for result in runner.results} == {
        "missing": False,
        "after it": True,
        "beside it": False,
    }


@pytest.mark.parametrize(
    ("given", "passed_on"), [("", ""), ("kBi -- AIRFLOW=3.1.1", "k -- AIRFLOW=3.1.1"), ("-- Bi=1", "-- Bi=1")]
)
def test_parts_get_no_flag_of_make_that_remakes_environments_or_hides_failures(monkeypatch, given, passed_on):
    monkeypatch.setenv("MAKEFLAGS", given)
    assert parts.make_flags() == passed_on


def test_environment_of_a_part_is_its_own():
    runner = Runner()
    assert runner.run([[shell("with", 'test "$COLOUR" = red', COLOUR="red"), shell("without", 'test -z "$COLOUR"')]])


def test_progress_is_what_pytest_printed_last():
    part = shell("some tests", "")
    part.output.write_text("tests/a.py .... [  7%]\ntests/b.py .... [ 61%]\n")
    assert parts.progress(part) == "61%"


INTERRUPTED = """
import signal
import sys
from pathlib import Path
from dev import parts
# The tests may run under nohup, which lets processes ignore this signal.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
parts.OUTPUT = Path(sys.argv[1])
part = parts.Part("long", ("sh", "-c", "echo $$ > $0.new; mv $0.new $0; sleep 600", sys.argv[2]))
parts.parts_of_test = lambda: [[[part]]]
parts.left_out = list
sys.argv[1:] = ["test"]
sys.exit(parts.main())
"""


@pytest.mark.parametrize("ending", parts.ENDINGS)
def test_ended_runner_ends_its_parts(tmp_path, ending):
    started = tmp_path / "pid"
    runner = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path), str(started)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        pid = int(wait_for("The part", lambda: started.exists() and started.read_text(), timeout=60))
        runner.send_signal(ending)
        assert runner.wait(40) == 130
    finally:
        runner.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_ci_runs_every_file_of_tests_in_a_real_airflow():
    elsewhere = {"test_hosts.py": "make cluster", "test_supported.py": "make cell"}
    commands = " ".join(word for lanes in parts_of_ci() for lane in lanes for part in lane for word in part.command)
    for path in (ROOT / "tests" / "e2e").glob("test_*.py"):
        assert (path.name in elsewhere) != (f"tests/e2e/{path.name}" in commands), path.name
    assert "tests/faults" in commands


def test_make_test_runs_the_unit_tests_examples_with_callbacks_and_the_panel():
    words = [word for lanes in parts_of_test() for lane in lanes for part in lane for word in part.command]
    assert "units" in words
    assert f"PYTEST_ARGS={parts.EXAMPLES_AND_CALLBACKS}" in words
    assert f"PYTEST_ARGS={parts.PANEL}" in words


def test_make_test_reports_what_it_skips(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("BROWSERACT_OPENAPI", raising=False)
    monkeypatch.setenv("BROWSERACT_OPENAPI_V3", "openapi_v3.json")
    postgres, browser, relays, document = parts.left_out()
    assert postgres.startswith("everything that needs PostgreSQL, such as the examples in a real Airflow, because")
    assert browser.startswith("the panel in a browser, because there is none of chromium")
    assert relays == "the relays of docs/callbacks.md, because nginx is not installed"
    assert document.endswith("with the vendor's document of API v2, because BROWSERACT_OPENAPI does not name it")
