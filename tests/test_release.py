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


METADATA = "p-1.dist-info/METADATA"
WHEEL = {
    "airflow_provider_browseract/py.typed": b"",
    METADATA: "".join(
        f"{field}: {value}\n"
        for field, values in {**dist.METADATA, "Classifier": sorted(dist.CLASSIFIERS), "Version": ["1"]}.items()
        for value in values
    ).encode(),
    "p-1.dist-info/RECORD": b"",
    "p-1.dist-info/WHEEL": b"",
    "p-1.dist-info/entry_points.txt": "".join(f"[{group}]\na = b:c\n" for group in dist.ENTRY_POINTS).encode(),
    "p-1.dist-info/licenses/LICENSE": b"",
}
TREE = ["airflow_provider_browseract/py.typed", "dev/dist.py"]


def test_sdist_and_wheel_without_a_file_of_the_panel_are_refused():
    tree = [*TREE, "airflow_provider_browseract/panel/static/icon.svg"]
    with pytest.raises(dist.DistError, match=rf"wheel: missing \['{tree[-1]}'\]"):
        dist.check_wheel(WHEEL, tree)
    with pytest.raises(dist.DistError, match=rf"sdist: missing \['{tree[-1]}'\]; not expected \['notes\.txt'\]"):
        dist.check_sdist({f"p-1/{name}": b"" for name in (*TREE, "PKG-INFO", "notes.txt")}, tree)


def test_wheel_with_files_of_the_package_and_its_metadata_is_accepted():
    assert dist.check_wheel(WHEEL, TREE)["Version"] == "1"


@cases(
    ("a tool in it", {"dev/dist.py": b""}, r"not expected \['dev/dist\.py'\]"),
    ("no entry points", {"p-1.dist-info/entry_points.txt": b""}, "entry points: missing"),
    ("another name", {METADATA: b"Name: other\n"}, "Name is"),
    ("a classifier less", {METADATA: WHEEL[METADATA].replace(b":: Typed", b"")}, "Typing :: Typed"),
)
def test_wrong_wheel_is_refused(changed, reason):
    with pytest.raises(dist.DistError, match=reason):
        dist.check_wheel({**WHEEL, **changed}, TREE)
