"""What ``make mutants`` is configured with must follow the code, or it would silently change or excuse nothing."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from dev.mutants import ACCEPTED

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "airflow_provider_browseract"


def definitions(path: Path) -> set[str]:
    """Return the names of all functions and methods of a module, as ``Class.method``."""
    tree = ast.parse(path.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)} | {
        f"{each.name}.{node.name}"
        for each in classes
        for node in each.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_module_that_is_mutated_exists():
    [listed] = re.findall(r"^only_mutate = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    modules = re.findall(r'"(.*)"', listed)
    assert len(modules) > 20
    assert [module for module in modules if not (ROOT / module).exists()] == []


def test_every_accepted_mutant_names_a_function_that_exists():
    accepted = {change["where"] for each in json.loads(ACCEPTED.read_text()) for change in each["changes"]}
    known = {
        f"{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}.{name}"
        for path in PACKAGE.rglob("*.py")
        for name in definitions(path)
    }
    assert accepted - known == set()
