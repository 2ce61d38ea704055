"""What ruff and import-linter cannot hold of the layout in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import airflow_provider_browseract

PACKAGE = Path(airflow_provider_browseract.__file__).parent
MODULES = [path for path in PACKAGE.rglob("*.py") if "emulator" not in path.parts]


def forks(tree: ast.AST) -> list[int]:
    """The lines in which something of Airflow is imported, or else something in its place."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        and any("ImportError" in ast.unparse(handler.type) for handler in node.handlers if handler.type)
        and any("airflow." in ast.unparse(each) for each in node.body)
    ]


def test_airflow_version_forks_are_in_compat_only():
    found = {str(path.relative_to(PACKAGE)) for path in MODULES if forks(ast.parse(path.read_text()))}
    assert found == {"compat.py"}


def test_each_class_var_has_a_type():
    # On Python 3.10, pydantic cannot read the others.
    found = [str(path.relative_to(PACKAGE)) for path in MODULES if re.search(r": ClassVar\b(?!\[)", path.read_text())]
    assert found == []


def test_only_tests_of_tools_import_from_dev():
    tests = Path(__file__).parent
    found = {path.name for path in tests.rglob("*.py") if re.search(r"^ *(from|import) dev\b", path.read_text(), re.M)}
    assert found == {f"test_{tool}.py" for tool in ("live", "mutants", "parts", "release", "tables")}
