"""Tests that use Airflow's database run in one process of pytest-xdist, and those that run DAGs in another one."""

from __future__ import annotations

import os
import re
import subprocess
import sys

GROUPED = """
import pytest

@pytest.mark.xdist_group("database")
@pytest.mark.parametrize("number", range(8))
def test_grouped(number):
    pass
"""


def check_group(request, group: str) -> None:
    assert request.node.get_closest_marker("xdist_group").args == (group,)
    if request.config.getoption("loadgroup", False):
        # pytest-xdist has seen the marker, which tests/conftest.py adds.
        assert request.node.nodeid.endswith(f"@{group}")


def test_tests_that_use_the_database_are_a_group(request, airflow_database):
    check_group(request, "database")


def test_tests_that_run_dags_are_another_group(request, parse):
    check_group(request, "dags")


def test_tests_of_a_group_run_in_one_process(tmp_path):
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    # Without other plugins, each of the three processes starts within half a second.
    words = [sys.executable, "-m", "pytest", "-p", "xdist.plugin", "-n", "2", "--dist=loadgroup", "-v"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
        check=True,
    )
    processes = re.findall(r"^\[(gw\d+)\].* PASSED", done.stdout, re.MULTILINE)
    assert len(processes) == 8
    assert len(set(processes)) == 1
