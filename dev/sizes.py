"""What ``make check`` prints at its end: how large the rooms, the tests, the tools and the pages are.

Lines of code are those without docstrings, comments, imports and blank lines. The words of a page are counted without
the parts that ``make tables`` writes.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "airflow_provider_browseract"

LONG_FILE, LONG_FUNCTION, LONG_SECTION = 400, 45, 250
"""Lines of a file, lines of a function, and words of a section, from which on they are named."""


def code_of(path: Path) -> int:
    """Return the lines of code of a module."""
    text, other = path.read_text(), set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            other |= {*range(node.lineno, (node.end_lineno or 0) + 1)}
    code = {number for number, line in enumerate(text.splitlines(), 1) if line.strip() and line.strip()[0] != "#"}
    return len(code - other)


def long_functions(path: Path) -> list[str]:
    """Return the functions of a module that are too long, with their lines without the docstring."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or 0) - node.lineno + 1 - (text.count("\n") + 1 if text else 0)
            if lines > LONG_FUNCTION:
                found.append(f"{path.relative_to(PACKAGE)} {node.name} {lines}")
    return found


def sections_of(page: Path) -> dict[str, int]:
    """Return the words below each heading of a page, without code and generated parts."""
    text = re.sub(r"<!-- (\w[\w-]*) -->\n.*?<!-- end -->", "", page.read_text(), flags=re.DOTALL)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    texts = zip(parts[1::2], parts[2::2], strict=True)
    return {heading: len(re.findall(r"\S*\w\S*", text)) for heading, text in texts}


def main() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    rooms: dict[str, int] = {}
    for path in modules:
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        rooms[room] = rooms.get(room, 0) + code_of(path)
    print("Code:", ", ".join(f"{room} {lines:,}" for room, lines in rooms.items() if lines))
    print(f"Package without the emulator: {sum(rooms.values()) - rooms['emulator']:,} lines of code")
    of_tools = [ROOT / "Makefile", ROOT / ".ci/run", *ROOT.glob("dev/**/*.py"), *ROOT.glob(".github/**/*.yml")]
    for name, paths in {"Tests": [*(ROOT / "tests").rglob("*.py")], "Tools, Makefile and CI": of_tools}.items():
        print(f"{name}: {sum(len(path.read_text().splitlines()) for path in paths):,} lines")
    pages = {path: sections_of(path) for path in sorted((ROOT / "docs").rglob("*.md"))}
    print(f"Pages: {len(pages)}, {sum(sum(each.values()) for each in pages.values()):,} words")
    for path in modules:
        if (lines := len(path.read_text().splitlines())) > LONG_FILE:
            print(f"Long file: {path.relative_to(PACKAGE)} {lines}")
        print(*(f"Long function: {each}\n" for each in long_functions(path)), sep="", end="")
    for page, sections in pages.items():
        for heading, words in sections.items():
            if words > LONG_SECTION:
                print(f"Long section: {page.name}, {heading}: {words}")


if __name__ == "__main__":
    main()
