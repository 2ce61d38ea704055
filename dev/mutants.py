"""``make mutants``: does a test notice small changes in the code that decides about money?

    python -m dev.mutants [--sample 200] [--seed 1] [MODULE ...]
    make mutants SAMPLE=500 MUTANTS="runs.wait worker"

mutmut makes every small change in the folders of ``ROOMS``. A fixed sample of them is tried: the same code and seed
give the same sample, and in other code, most of it stays the same. One run of the tests finds which tests enter which
function. Then each change is tried with these tests, the most specific first, until one fails. The result is a table by
module, and the changes that no test noticed. Nothing else should run at that time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import libcst
import pytest
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import Mutation, combine_mutations_to_source, create_mutations
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "airflow_provider_browseract"
ROOMS = ("api", "queue", "results", "runs", "spending", "triggers", "webhook", "worker")
"""The folders of the package that decide about money."""

OTHER_TESTS = ("commands", "e2e", "emulator", "faults", "panel")
"""The folders of tests that do not test these decisions. Those directly in ``tests/`` do not, either."""

COPY = ROOT / "mutants"
"""A copy of the project, in which the changes are made and tried."""

LANES = (os.cpu_count() or 1) + 1
"""How many changes are tried side by side. Most tests wait most of the time."""

MOST_TESTS = 800
"""How many tests try a change at most."""

FIRST_CASES = 5
"""How many cases of a test are tried before other tests."""

LIMIT = 300.0
"""Seconds after which a change that makes tests hang counts as noticed."""

HITS, PLAN = "BROWSERACT_MUTANT_HITS", "BROWSERACT_MUTANT_PLAN"
"""Variables by which pytest, with this module as a plugin, gets a folder to write into: in the first run which
functions each test enters, afterwards which changes were noticed."""


@dataclass(frozen=True)
class Change:
    """A small change.

    :param module: its module, without the name of the package.
    :param function: its function or method.
    :param line: the line of the code in which it begins.
    :param before: what is replaced.
    :param after: what replaces it.
    :param number: 0 for the first such change in this function.
    """

    module: str
    function: str
    line: str
    before: str
    after: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.module}.{self.function}: {self.line}\n    - {self.before}\n    + {self.after}"

    def rank(self, seed: int) -> str:
        """Return what decides whether this change is in the sample."""
        return hashlib.sha256(repr((seed, self)).encode()).hexdigest()


def changes_of(path: Path) -> tuple[libcst.Module, dict[Change, Mutation]]:
    """Return the syntax tree of a module, and the small changes in it."""
    tree, mutations, _, _ = create_mutations(str(path), source := path.read_text())
    lines = source.splitlines()
    positions = MetadataWrapper(tree, unsafe_skip_copy=True).resolve(PositionProvider)
    module = ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
    names = dict(_functions(tree))
    seen: Counter[Change] = Counter()
    found = {}
    for each in mutations:
        if each.contained_by_top_level_function not in names or _needs_no_test(each):
            continue
        before, after = (" ".join(tree.code_for_node(node).split()) for node in (each.original_node, each.mutated_node))
        line = lines[positions[each.original_node].start.line - 1].strip()
        change = Change(module, names[each.contained_by_top_level_function], line, before, after)
        found[replace(change, number=seen[change])] = each
        seen[change] += 1
    return tree, found


def _functions(tree: libcst.Module) -> Iterator[tuple[libcst.FunctionDef, str]]:
    for outer in tree.body:
        if isinstance(outer, libcst.FunctionDef):
            yield outer, outer.name.value
        elif isinstance(outer, libcst.ClassDef):
            for inner in outer.body.body:
                if isinstance(inner, libcst.FunctionDef):
                    yield inner, f"{outer.name.value}.{inner.name.value}"


def _needs_no_test(mutation: Mutation) -> bool:
    """Return whether it changes a text for people, is the second change of a name, or leaves out an argument."""
    before, after = cast("tuple[Any, Any]", (mutation.original_node, mutation.mutated_node))
    if isinstance(before, libcst.SimpleString):
        return " " in before.value or "XX" not in after.value
    return isinstance(before, libcst.Call) and isinstance(after, libcst.Call) and len(after.args) < len(before.args)


def make_sample(paths: Collection[Path], size: int, seed: int) -> dict[Change, str]:
    """Choose the sample, make its changes in the copy, and return them with mutmut's names."""
    modules = {path: changes_of(path) for path in paths}
    ranked = sorted((change for _, found in modules.values() for change in found), key=lambda each: each.rank(seed))
    chosen = set(ranked[:size])
    names: dict[Change, str] = {}
    for path, (tree, found) in modules.items():
        changes = [change for change in found if change in chosen]
        # mutmut takes the functions of a module in the order of its lines, and the changes of a function in ours.
        order = list(dict(_functions(tree)).values())
        changes.sort(key=lambda each: order.index(each.function))
        made = combine_mutations_to_source(tree, [found[change] for change in changes])
        (COPY / path.relative_to(ROOT)).write_text(made.code)
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names |= {change: f"{module}.{name}" for change, name in zip(changes, made.mutant_names, strict=True)}
    return names


def copy_project() -> None:
    """Copy all that tests read."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(ROOT, COPY, ignore=shutil.ignore_patterns(".*", "__pycache__", COPY.name))


def run_pytest(variable: str, results: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start the tests of the copy, with this module as a plugin that writes results."""
    folders = [each.name for each in (COPY / "tests").iterdir() if each.is_dir()]
    tests = sorted(f"tests/{name}" for name in folders if name not in (*OTHER_TESTS, "__pycache__"))
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "dev.mutants", *words, *tests],
        cwd=COPY,
        env={**os.environ, "PYTHONPATH": str(COPY), variable: str(results)},
        stdout=(results / f"pytest-{len(list(results.glob('pytest-*')))}.txt").open("wb"),
        stderr=subprocess.STDOUT,
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Write which functions a test enters, in the first run."""
    if HITS not in os.environ:
        return (yield)
    state()._stats.clear()
    try:
        return (yield)
    finally:
        entered = [] if item.nodeid in _FAILED else sorted(state()._stats)
        slow = "airflow_database" in getattr(item, "fixturenames", ())
        with Path(os.environ[HITS], f"{os.getpid()}.jsonl").open("a") as file:
            print(json.dumps([slow, len(entered), item.nodeid, entered]), file=file)


_FAILED: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember which tests fail in the first run, such as those that list the functions of a module."""
    if report.failed:
        _FAILED.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write which tests have failed in the first run."""
    if HITS in os.environ and not hasattr(session.config, "workerinput"):
        Path(os.environ[HITS], "failed.json").write_text(json.dumps(sorted(_FAILED)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Try one change after the other, each in a fork of this process, which has imported and collected everything."""
    if PLAN not in os.environ:
        return None
    results = Path(os.environ[PLAN])
    items = {item.nodeid: item for item in session.items}
    for name, tests in json.loads((results / "plan.json").read_text()).items():
        try:
            (results / name).touch(exist_ok=False)
        except FileExistsError:
            continue  # another lane has it
        child = os.fork()
        if not child:
            os.setsid()
            for each in Path(os.environ["AIRFLOW_HOME"]).glob("*.db*"):
                each.unlink()
            set_mutant_under_test(name)
            session.items = [items[test] for test in tests]
            return None  # pytest runs them
        (results / name).write_text("noticed" if _failed(child) else "survived")
    return True


def _failed(child: int) -> bool:
    """Wait for a process, and return whether its tests failed or took far too long."""
    watched = os.pidfd_open(child)
    ended, _, _ = select.select([watched], [], [], LIMIT)
    os.close(watched)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # it may have left processes, too
    return not ended or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def plan(names: Collection[str], results: Path) -> dict[str, list[str]]:
    """Return the tests for each change: of those that enter its function, first those that enter few others.

    Of a test with many cases, only some come before the other tests, which otherwise could be left out.
    """
    tests = defaultdict(list)
    for file in results.glob("*.jsonl"):
        for slow, number, test, functions in map(json.loads, file.read_text().splitlines()):
            for function in functions:
                tests[function].append((slow, number, test))
    ordered = {}
    for name in names:
        cases: Counter[str] = Counter()
        ranked = []
        for slow, number, test in sorted(tests[name.partition("__mutmut_")[0]]):
            function = test.partition("[")[0]
            ranked.append((slow, cases[function] // FIRST_CASES, number, test))
            cases[function] += 1
        ordered[name] = [test for *_, test in sorted(ranked)[:MOST_TESTS]]
    return ordered


def paths_of(wanted: Collection[str]) -> list[Path]:
    """Return the files of modules or folders such as ``runs.wait`` or ``runs``; without a name, of all."""
    paths = sorted(path for room in ROOMS for path in (ROOT / PACKAGE / room).rglob("*.py"))
    known = {path: ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts) for path in paths}
    found = []
    for name in wanted:
        named = [path for path, module in known.items() if f"{module}.".startswith(f"{name}.")]
        if not named:
            sys.exit(f"There is no module {name} in {', '.join(ROOMS)}. A module is named as in runs.wait.")
        found += named
    return sorted(set(found)) if wanted else paths


def main() -> int:
    """Try the sample, and print the table."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--sample", type=int, default=200, help="how many changes (default: %(default)s)")
    options.add_argument("--seed", type=int, default=1, help="another number gives another sample")
    options.add_argument("modules", nargs="*", help="only these modules or folders, such as runs.wait")
    given = options.parse_args()
    if given.sample < 1:
        sys.exit(f"SAMPLE={given.sample} tries nothing. It is the number of changes, from 1 on.")
    began = time.monotonic()
    paths = paths_of(given.modules)
    copy_project()
    sample = make_sample(paths, given.sample, given.seed)
    results = COPY / ".results"
    results.mkdir()
    print(f"{len(sample)} changes. The tests run once without them ...", flush=True)
    os.environ["MUTANT_UNDER_TEST"] = "stats"
    code = run_pytest(HITS, results, f"--numprocesses={LANES}").wait()
    os.environ["MUTANT_UNDER_TEST"] = ""
    # The copy has more functions than the project, which a few tests notice. They must pass in the project.
    failed = json.loads((results / "failed.json").read_text())
    again = [sys.executable, "-m", "pytest", "--quiet", *failed]
    if code > 1 or (failed and subprocess.run(again, cwd=ROOT, check=False).returncode):
        sys.exit(f"Tests fail without any change. Their output is in {results}. Changes can be tried once all pass.")
    planned = plan(sample.values(), results)
    (results / "plan.json").write_text(json.dumps({name: tests for name, tests in planned.items() if tests}))
    print(f"{(time.monotonic() - began) / 60:.0f} minutes. Each change is tried ...", flush=True)
    lanes = [run_pytest(PLAN, results, "--exitfirst", "--override-ini=timeout=60") for _ in range(LANES)]
    if sum(lane.wait() for lane in lanes):
        sys.exit(f"pytest has ended too early. What it printed is in {results}.")
    survivors = [
        change for change, name in sample.items() if not planned[name] or (results / name).read_text() == "survived"
    ]
    tried, missed = (Counter(change.module for change in changes) for changes in (sample, survivors))
    for change in sorted(survivors, key=str):
        print(f"{change}{'' if planned[sample[change]] else '    (no test enters it)'}")
    print(f"\n{'':24} {'noticed':>8} {'tried':>6}")
    for module in sorted(tried):
        print(f"{module:24} {tried[module] - missed[module]:8} {tried[module]:6}")
    print(f"{'all':24} {tried.total() - missed.total():8} {tried.total():6}")
    print(f"SAMPLE={given.sample} SEED={given.seed}, {(time.monotonic() - began) / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
