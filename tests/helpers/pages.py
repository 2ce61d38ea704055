"""The pages of the documentation, and the code blocks in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *DOCS)}
"""The text of each page, by its path."""

YOUR_WORKFLOW = "84512076390412755"
"""The id that stands for a workflow of the reader."""


class Block(NamedTuple):
    """A code block: where it is, and what it says."""

    page: str
    language: str
    code: str

    @property
    def dag_ids(self) -> list[str]:
        return re.findall(r'^with DAG\("(\w+)"', self.code, re.MULTILINE)

    @property
    def kind(self) -> str:
        """How the block is run; see tests/test_code_blocks.py."""
        return {"python": self._python_kind, "shell": self._shell_kind}.get(self.language, lambda: self.language)()

    @property
    def lines(self) -> list[str]:
        """The commands of a shell block, each in one line."""
        return [line.strip() for line in re.sub(r" *\\\n *", " ", self.code).splitlines() if line.strip()]

    @property
    def file(self) -> str:
        """The path of a YAML file, which its first line names."""
        return self.code.partition("\n")[0].removeprefix("# ")

    def _python_kind(self) -> str:
        if self.dag_ids:
            return "DAG"
        found = re.search(r"^(def test_|def handler\()", self.code, re.MULTILINE)
        kinds = {None: "script", "def test_": "test", "def handler(": "Lambda"}
        return kinds[found and found[1]]

    def _shell_kind(self) -> str:
        words = {line.partition(" ")[0] for line in self.lines}
        if words <= {"cat", "export"}:
            return "environment"
        if all(line.startswith("python -m airflow_provider_browseract ") for line in self.lines):
            return "command"
        [word] = words
        return word


BLOCKS = [
    Block(page, language, re.sub(f"^{indent}", "", code, flags=re.MULTILINE))
    for page, text in PAGES.items()
    for indent, language, code in re.findall(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    # The others are directives of Sphinx, which `make docs` checks.
    if not language.startswith("{")
]


def blocks_of(kind: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind == kind]


def block_of(page: str, text: str) -> Block:
    """Find the one block of a page that contains a text."""
    [found] = [block for block in BLOCKS if block.page == page and text in block.code]
    return found


def public_names() -> list[str]:
    """Return the names of the table of the public API, with their modules."""
    rows = re.findall(r"^\| (`.*) \| `([\w.]+)` \|$", PAGES["docs/compatibility.md"], re.MULTILINE)
    return [f"{module}.{name}" for names, module in rows for name in re.findall(r"`(\w+)`", names)]
