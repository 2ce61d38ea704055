"""What is released, and the files of the repository that describe the project to GitHub, registries and tools."""

from __future__ import annotations

import re
import zipfile
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_browseract import __version__
from airflow_provider_browseract.get_provider_info import get_provider_info
from dev import dist
from dev.parts import CELLS
from dev.pins import VERSIONS
from tests.helpers.cases import cases
from tests.helpers.pages import ROOT, public_names

NAME = "airflow-provider-browseract"
MAKEFILE = (ROOT / "Makefile").read_text()


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_registry_file_lists_public_classes_of_provider_info():
    info = get_provider_info()
    registry = read(ROOT / ".airflow-registry.yaml")
    assert registry["package-name"] == info["package-name"]
    names = public_names()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        modules = {module for each in info[kind] for module in each["python-modules"]}
        expected = [each for each in names if each.rpartition(".")[0] in modules and not each.endswith(".AskPerson")]
        assert [each["module"] for each in registry[kind]] == expected
    decorators = [each["class-name"] for each in info["task-decorators"]]
    assert [each["module"] for each in registry["decorators"]] == decorators


def test_cells_of_the_workflow_are_those_of_make_matrix_and_cover_what_is_supported():
    found = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["cell"]["strategy"]["matrix"]["include"]
    cells = [(cell["airflow"], cell["python"]) for cell in found]
    assert cells == list(CELLS)
    assert VERSIONS.keys() == {airflow for airflow, _ in cells}
    [newest] = re.findall(r"^NEWEST := (.*)$", MAKEFILE, re.MULTILINE)
    classifiers = "\n".join(metadata(NAME).get_all("Classifier", []))
    pythons = re.findall(r"Programming Language :: Python :: (3\.\d+)", classifiers)
    assert [python for airflow, python in cells if airflow == newest] == pythons
    [oldest] = [each for each in metadata(NAME).get_all("Requires-Dist", []) if each.startswith("apache-airflow>=")]
    assert (oldest.removeprefix("apache-airflow>="), metadata(NAME)["Requires-Python"].removeprefix(">=")) in cells


def test_pre_commit_hooks_are_the_checks_of_make_check():
    [repository] = read(ROOT / ".pre-commit-config.yaml")["repos"]
    [checks] = re.findall(r"^CHECKS := (.*)$", MAKEFILE, re.MULTILINE)
    hooks = [hook["entry"] for hook in repository["hooks"]]
    assert hooks == [f"make {name}" for name in [*checks.split(), "workflows"]]


def test_changelog_and_security_policy_have_the_current_version():
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"| {__version__.rpartition('.')[0]}.x | yes |" in (ROOT / "SECURITY.md").read_text()


CHANGELOG = """# Changelog

## [0.2.0] - unreleased

### Added

- Two.

## [0.1.0] - 2026-12-01

- One.
"""


def test_release_notes_are_the_section_of_the_version_which_needs_a_date_for_a_release():
    assert dist.release_notes(CHANGELOG, "0.1.0", dated=True) == "- One.\n"
    assert dist.release_notes(CHANGELOG, "0.2.0", dated=False) == "### Added\n\n- Two.\n"
    for version, reason in (("0.2.0", "'unreleased'"), ("0.3.0", "no section")):
        with pytest.raises(dist.DistError, match=reason):
            dist.release_notes(CHANGELOG, version, dated=True)


def test_different_builds_are_refused_with_the_files_that_differ(tmp_path):
    for name, text in (("one.whl", "1"), ("other.whl", "2")):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr("same.py", "")
            wheel.writestr("generated.py", text)
    with pytest.raises(dist.DistError, match=r"differ: generated\.py$"):
        dist.check_same(tmp_path / "one.whl", tmp_path / "other.whl")


TREE = ["airflow_provider_browseract/py.typed", "dev/dist.py"]
SDIST = [f"p-1/{name}" for name in (*TREE, "PKG-INFO")]
WHEEL = [TREE[0], *(f"p-1.dist-info/{name}" for name in dist.DIST_INFO)]
ICON = "airflow_provider_browseract/panel/static/icon.svg"


@cases(
    ("sdist without a file", SDIST, [*WHEEL, ICON], [*TREE, ICON], rf"sdist: missing \['{ICON}'\]"),
    ("sdist with another file", [*SDIST, "p-1/notes.txt"], WHEEL, TREE, r"sdist: .*not expected \['notes\.txt'\]"),
    ("wheel without a file", [*SDIST, f"p-1/{ICON}"], WHEEL, [*TREE, ICON], rf"wheel: missing \['{ICON}'\]"),
    ("wheel with a tool", SDIST, [*WHEEL, "dev/dist.py"], TREE, r"wheel: .*not expected \['dev/dist\.py'\]"),
)
def test_only_the_files_of_the_repository_are_accepted(sdist, wheel, tree, reason):
    dist.check_files(SDIST, WHEEL, TREE)
    with pytest.raises(dist.DistError, match=reason):
        dist.check_files(sdist, wheel, tree)
