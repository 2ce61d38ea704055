"""``make mutants``: change the modules that decide about money in many small ways, and check whether a test notices.

    python -m dev.mutants [PATTERN ...]

mutmut makes the mutants and tests each of them, as ``[tool.mutmut]`` in ``pyproject.toml`` says. A pattern such as
``airflow_provider_browseract.runs.waiting*`` limits it to some functions. Results are kept in ``mutants/``: without a
pattern, only functions that changed are tested again. Survivors that no test needs to notice are listed in
``mutants.json`` with the reasons. Any other survivor is a gap in the tests.
"""

from __future__ import annotations

import collections
import fnmatch
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCEPTED = Path(__file__).with_suffix(".json")
PACKAGE = "airflow_provider_browseract."
UNNOTICED = ("survived", "no tests")


@dataclass(frozen=True)
class Change:
    """What a mutant changes. Unlike its number, this stays the same while other lines of its function change.

    :param where: module and function.
    :param before: the lines that are replaced, without what surrounds them.
    :param after: the lines that replace them.
    """

    where: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.where}\n    - {self.before}\n    + {self.after}"


def results() -> dict[str, str]:
    """Return the status of each mutant that was ever tested."""
    lines = _mutmut("results", "--all", "true").splitlines()
    return dict(line.strip().rsplit(": ", 1) for line in lines if ": " in line)


def change_of(mutant: str) -> Change:
    """Return what a mutant changes."""
    lines = _mutmut("show", mutant).splitlines()
    before, after = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign) and not line.startswith(sign * 3))
        for sign in "-+"
    )
    return Change(_where(mutant), before, after)


def _where(mutant: str) -> str:
    """Return module and function of a mutant such as ``package.module.xǁClassǁmethod__mutmut_7``."""
    module, _, name = mutant.rpartition(".")
    function = re.sub(r"__mutmut_\d+$", "", name).removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    return f"{module.removeprefix(PACKAGE)}.{function}"


def _mutmut(*words: str) -> str:
    done = subprocess.run(["mutmut", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mutmut {' '.join(words)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Run the quickest tests first: most mutants are noticed by one of them, and the first that notices is enough."""
    stats = Path("mutmut-stats.json")
    if stats.exists():
        durations = json.loads(stats.read_text())["duration_by_test"]
        items.sort(key=lambda item: durations.get(item.nodeid, 0.0))


def main() -> int:
    """Test the mutants, and report those that no test notices and that are not accepted."""
    patterns = sys.argv[1:] or ["*"]
    subprocess.run(["mutmut", "run", *sys.argv[1:]], check=False)
    accepted = {Change(**change) for each in json.loads(ACCEPTED.read_text()) for change in each["changes"]}
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    holes = []
    for mutant, status in results().items():
        if status == "not checked" or not any(fnmatch.fnmatch(mutant, pattern) for pattern in patterns):
            continue
        module = mutant.rpartition(".")[0].removeprefix(PACKAGE)
        if status in UNNOTICED:
            change = change_of(mutant)
            if change in accepted:
                status = "accepted"
            else:
                holes.append(change)
        table[module][status] += 1
    for hole in holes:
        print(hole)
    for module, counts in sorted(table.items()):
        unnoticed = sum(counts[status] for status in UNNOTICED)
        counted = counts.total() - counts["accepted"]
        print(f"{module:20} {1 - unnoticed / max(1, counted):6.1%} noticed of {counted:4}  {dict(counts)}")
    print(f"{len(holes)} unnoticed and not accepted")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
