"""``make mutants``: what it finds in a small project, what its sample depends on, and what it tries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dev import mutants
from tests.helpers.pages import ROOT

MODULE = """
def plus_one(a):
    return a + 1


class Class:
    def half_tested(self, a):
        if a > 2 and a < 9:
            return "big"
        raise ValueError("A text for people, which no test has to notice.")


def untested(a):
    return not a
"""

TESTS = """
from airflow_provider_browseract.runs.small import Class, plus_one


def test_plus_one():
    assert plus_one(1) == 2


def test_half_tested():
    assert Class().half_tested(5) == "big"
"""

PYPROJECT = """
[tool.pytest.ini_options]
addopts = "--import-mode=importlib"
[tool.mutmut]
source_paths = ["airflow_provider_browseract"]
do_not_mutate_patterns = ['^\\s*raise ']
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A project with one module in a folder of the gate."""
    files = {
        "airflow_provider_browseract/__init__.py": "",
        "airflow_provider_browseract/runs/__init__.py": "",
        "airflow_provider_browseract/runs/small.py": MODULE,
        "tests/runs/test_small.py": TESTS,
        "pyproject.toml": PYPROJECT,
        "dev/__init__.py": "",
        "dev/mutants.py": (ROOT / "dev" / "mutants.py").read_text(),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # Without other plugins, pytest starts quickly.
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist.plugin"}
    return subprocess.run(
        [sys.executable, "-m", "dev.mutants", *words],
        cwd=folder,
        env={**os.environ, "AIRFLOW_HOME": str(folder), **plugins},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_small_project_has_its_unnoticed_changes_printed(project):
    printed = run(project, "--sample", "50").stdout
    unnoticed = printed.partition("Each change is tried ...\n")[2].partition("\n\n")[0].splitlines()
    half_tested = "runs.small.Class.half_tested: if a > 2 and a < 9:"
    assert unnoticed == [
        *(half_tested, "    - 2", "    + 3"),
        *(half_tested, "    - 9", "    + 10"),
        *(half_tested, "    - < 9", "    + <= 9"),
        *(half_tested, "    - > 2", "    + >= 2"),
        *(half_tested, "    - a > 2 and a < 9", "    + a > 2 or a < 9"),
        *("runs.small.untested: return not a", "    - not a", "    + a    (no test enters it)"),
    ]
    assert re.search(r"^runs\.small +3 +9$", printed, re.MULTILINE)


def test_change_stays_in_the_sample_when_other_code_changes(project, monkeypatch):
    monkeypatch.setattr(mutants, "ROOT", project)
    path = project / "airflow_provider_browseract" / "runs" / "small.py"
    _, before = mutants.changes_of(path)
    path.write_text(
        MODULE.replace("class Class", "def another():\n    return 7\n\n\nclass Class").replace("a + 1", "a + 2")
    )
    _, after = mutants.changes_of(path)
    assert {each for each in before if each.function != "plus_one"} < set(after)
    assert [each.rank(1) for each in before] != [each.rank(2) for each in before]


def test_all_code_that_decides_about_money_is_tried():
    paths = [path.relative_to(ROOT / mutants.PACKAGE) for path in mutants.paths_of([])]
    folders = sorted({path.parts[0] for path in paths})
    assert folders == ["api", "queue", "results", "runs", "spending", "triggers", "webhook", "worker"]
    assert len(paths) > 50


def test_test_with_many_cases_does_not_keep_others_from_being_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "MOST_TESTS", 6)
    entered = [[False, 1, f"test_story[{number}]", ["start"]] for number in range(9)]
    entered.append([False, 7, "test_secrets", ["start"]])
    (tmp_path / "1.jsonl").write_text("\n".join(map(json.dumps, entered)))
    [tests] = mutants.plan(["start__mutmut_1"], tmp_path).values()
    assert tests == [*(f"test_story[{number}]" for number in range(5)), "test_secrets"]
