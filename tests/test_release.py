"""What is released, and the files of the repository that describe the project to GitHub, registries and tools."""

from __future__ import annotations

import importlib
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
from dev.matrix import CELLS
from dev.pins import VERSIONS

NAME = "airflow-provider-browseract"
ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")


def read(path: Path) -> Any:
    """Read a YAML file."""
    return yaml.safe_load(path.read_text())


def test_registry_file_lists_public_classes_of_provider_info():
    info = get_provider_info()
    registry = read(ROOT / ".airflow-registry.yaml")
    assert registry["package-name"] == info["package-name"]
    assert [registry["logo"]] == [each["logo"] for each in info["integrations"]]
    public = re.findall(r"^\| (`.*) \| `([\w.]+)` \|$", (ROOT / "docs" / "compatibility.md").read_text(), re.MULTILINE)
    names = [f"{module}.{name}" for cell, module in public for name in re.findall(r"`(\w+)`", cell)]
    for kind in ("hooks", "operators", "sensors", "triggers"):
        modules = {module for each in info[kind] for module in each["python-modules"]}
        expected = [each for each in names if each.rpartition(".")[0] in modules and not each.endswith(".AskPerson")]
        assert [each["module"] for each in registry[kind]] == expected
    assert [each["module"] for each in registry["decorators"]] == [
        each["class-name"] for each in info["task-decorators"]
    ]


def test_registry_file_describes_only_what_can_be_imported():
    registry = read(ROOT / ".airflow-registry.yaml")
    for each in [entry for entries in registry.values() if isinstance(entries, list) for entry in entries]:
        module, _, name = each["module"].rpartition(".")
        assert hasattr(importlib.import_module(module), name)
        assert each["description"]


def cells() -> list[tuple[str, str]]:
    """Return Airflow and Python of each cell of the workflow CI."""
    found = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["cell"]["strategy"]["matrix"]["include"]
    return [(cell["airflow"], cell["python"]) for cell in found]


def test_workflow_tests_each_supported_python_on_newest_airflow():
    prefix = "Programming Language :: Python :: 3."
    supported = [each for each in metadata(NAME).get_all("Classifier", []) if each.startswith(prefix)]
    [newest] = re.findall(r"^NEWEST := (.*)$", MAKEFILE, re.MULTILINE)
    assert [f"3.{each.removeprefix(prefix)}" for each in supported] == [
        python for airflow, python in cells() if airflow == newest
    ]


def test_workflow_tests_oldest_supported_airflow_on_oldest_python():
    [airflow] = [each for each in metadata(NAME).get_all("Requires-Dist", []) if each.startswith("apache-airflow>")]
    assert (airflow.removeprefix("apache-airflow>="), metadata(NAME)["Requires-Python"].removeprefix(">=")) in cells()


def test_workflow_has_the_cells_of_make_matrix():
    assert cells() == list(CELLS)


def test_pins_are_made_for_the_versions_of_make_matrix():
    assert VERSIONS.keys() == {airflow for airflow, _ in CELLS}


def test_commands_of_workflows_are_targets_of_the_makefile():
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    for path in WORKFLOWS:
        assert set(re.findall(r"\bmake ([a-z-]+)", path.read_text())) <= targets


def test_pre_commit_hooks_are_the_checks_of_make_check():
    [repository] = read(ROOT / ".pre-commit-config.yaml")["repos"]
    [checks] = re.findall(r"^CHECKS := (.*)$", MAKEFILE, re.MULTILINE)
    assert [hook["entry"] for hook in repository["hooks"]] == [
        f"make {name}" for name in [*checks.split(), "workflows"]
    ]


def test_security_policy_supports_current_minor_version():
    minor = __version__.rpartition(".")[0]
    assert f"| {minor}.x | yes |" in (ROOT / "SECURITY.md").read_text()


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_form_is_complete(form):
    content = read(form)
    assert content["name"]
    assert content["description"]
    ids = [field["id"] for field in content["body"] if field["type"] != "markdown"]
    assert len(set(ids)) == len(ids) > 0
    assert all(field["attributes"]["label"] for field in content["body"] if field["type"] != "markdown")


def test_bug_form_requires_what_a_diagnosis_needs():
    [form] = [path for path in FORMS if path.stem == "bug"]
    fields = {
        field["id"]: field.get("validations", {}).get("required") for field in read(form)["body"] if "id" in field
    }
    assert [name for name, required in fields.items() if required] == [
        *("happened", "dag", "provider", "airflow", "python", "executor", "waits", "log")
    ]
    assert "trace" in fields


CHANGELOG = """# Changelog

## [0.2.0] - unreleased

### Added

- Two.

## [0.1.0] - 2026-12-01

- One.
"""


def test_release_notes_are_the_section_of_the_version():
    assert dist.release_notes(CHANGELOG, "0.1.0", dated=True) == "- One.\n"
    assert dist.release_notes(CHANGELOG, "0.2.0", dated=False) == "### Added\n\n- Two.\n"


@pytest.mark.parametrize(("version", "reason"), [("0.2.0", "'unreleased'"), ("0.3.0", "no section")])
def test_release_without_dated_section_of_changelog_is_refused(version, reason):
    with pytest.raises(dist.DistError, match=reason):
        dist.release_notes(CHANGELOG, version, dated=True)


def test_different_builds_are_refused_with_the_files_that_differ(tmp_path):
    for name, text in (("one.whl", "1"), ("other.whl", "2")):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr("same.py", "")
            wheel.writestr("generated.py", text)
    with pytest.raises(dist.DistError, match=r"differ: generated\.py$"):
        dist.check_same(tmp_path / "one.whl", tmp_path / "other.whl")


def test_sdist_without_a_file_of_the_repository_is_refused():
    with pytest.raises(dist.DistError, match=r"missing \['docs/index\.md'\]; not expected \['notes\.txt'\]"):
        dist.check_sdist({"p-1/PKG-INFO": b"", "p-1/notes.txt": b""}, ["docs/index.md"])


WHEEL = {
    "airflow_provider_browseract/py.typed": b"",
    "p-1.dist-info/METADATA": "".join(
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


@pytest.mark.parametrize("file", ["panel/templates/run.html", "panel/static/panel.css", "panel/static/icon.svg"])
def test_sdist_and_wheel_without_a_file_of_the_panel_are_refused(file):
    tree = [*TREE, f"airflow_provider_browseract/{file}"]
    with pytest.raises(dist.DistError, match=rf"wheel: missing \['airflow_provider_browseract/{file}'\]"):
        dist.check_wheel(WHEEL, tree)
    with pytest.raises(dist.DistError, match=rf"sdist: missing \['airflow_provider_browseract/{file}'\]"):
        dist.check_sdist({f"p-1/{name}": b"" for name in (*TREE, "PKG-INFO")}, tree)


def test_wheel_with_files_of_the_package_and_its_metadata_is_accepted():
    assert dist.check_wheel(WHEEL, TREE)["Version"] == "1"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dev/dist.py": b""}, r"not expected \['dev/dist\.py'\]"),
        ({"p-1.dist-info/entry_points.txt": b""}, "entry points: missing"),
        ({"p-1.dist-info/METADATA": b"Name: other\n"}, "Name is"),
        ({"p-1.dist-info/METADATA": WHEEL["p-1.dist-info/METADATA"].replace(b":: Typed", b"")}, "Typing :: Typed"),
    ],
    ids=["a tool in it", "no entry points", "another name", "a classifier less"],
)
def test_wrong_wheel_is_refused(changed, reason):
    with pytest.raises(dist.DistError, match=reason):
        dist.check_wheel({**WHEEL, **changed}, TREE)
