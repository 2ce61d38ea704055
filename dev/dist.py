"""``make dist``: build sdist and wheel of the last commit, and check and try them as users get them.

    python -m dev.dist [--airflow VERSION] [--tag TAG]

1. Builds both twice, from two exports of the commit that differ in path, file modes, file times and time zone, and the
   wheel once more from the sdist. All builds must have the same bytes.
2. Checks the description (``twine check``), and that the files are those of the commit.
3. Installs the wheel in a new environment, and tries it there from outside of the repository. ``.ci/run`` and
   ``make cell`` run tests with the wheel.

Writes both files to ``dist/``. Their checksums and the section of the changelog go to ``build/``. The versions of the
build tools are pinned, so whoever runs this on the same commit gets the same checksums.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
BESIDE = ROOT / "build"
PACKAGE = "airflow_provider_browseract"

DIST_INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
"""What a wheel has beside the package."""


class DistError(Exception):
    """The files must not be released."""


def _run(*words: str | Path, cwd: Path = ROOT, umask: int = -1, **variables: str) -> str:
    """Run a command to its end, and return what it printed."""
    done = subprocess.run(
        words,
        cwd=cwd,
        umask=umask,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode:
        raise DistError(f"{' '.join(map(str, words))} has failed:\n{done.stdout}")
    return done.stdout


def export(folder: Path, *, umask: int, as_new: bool) -> Path:
    """Write the files of the last commit to a folder, and return it.

    :param umask: which modes the files do not get.
    :param as_new: whether the files get the current time instead of the commit's.
    """
    folder.mkdir(parents=True)
    archive = folder.with_suffix(".tar")
    _run("git", "archive", "--format=tar", f"--output={archive}", "HEAD")
    words = ["tar", "--extract", "--no-same-permissions", *(["--touch"] if as_new else [])]
    _run(*words, f"--file={archive}", f"--directory={folder}", umask=umask)
    return folder


def build(tree: Path, out: Path, *kinds: str, umask: int = 0o022, zone: str = "UTC") -> dict[str, Path]:
    """Build ``sdist`` and ``wheel``, or one, from a folder, and return the paths. All have the commit's time."""
    words = [sys.executable, "-m", "build", "--no-isolation", *(f"--{kind}" for kind in kinds), f"--outdir={out}"]
    commit_time = _run("git", "log", "-1", "--format=%ct", "HEAD").strip()
    _run(*words, tree, umask=umask, SOURCE_DATE_EPOCH=commit_time, TZ=zone)
    patterns = {"sdist": "*.tar.gz", "wheel": "*.whl"}
    return {kind: next(out.glob(patterns[kind])) for kind in kinds}


def contents(path: Path) -> dict[str, bytes]:
    """Return the files in a sdist or wheel."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(path) as sdist:
        members = {member.name: sdist.extractfile(member) for member in sdist.getmembers()}
        return {name: member.read() for name, member in members.items() if member is not None}


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_same(first: Path, second: Path) -> None:
    """Check that two builds have the same bytes.

    :raises DistError: if not, with the files that differ.
    """
    if checksum(first) == checksum(second):
        return
    one, other = contents(first), contents(second)
    differing = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    raise DistError(f"Two builds of {first.name} differ: {', '.join(differing) or 'only in modes, times or order'}")


def check_files(sdist: Iterable[str], wheel: Iterable[str], tree: Iterable[str]) -> None:
    """Check that a sdist has every file of the repository, that a wheel has those of the package, and nothing else.

    :param tree: paths of the files of the repository.
    """
    [info] = {name.partition("/")[0] for name in wheel if ".dist-info/" in name}
    package = {name for name in tree if name.startswith(f"{PACKAGE}/")}
    for kind, names, expected in (
        ("sdist", {name.partition("/")[2] for name in sdist}, {*tree, "PKG-INFO"}),
        ("wheel", {*wheel}, package | {f"{info}/{name}" for name in DIST_INFO}),
    ):
        missing, extra = sorted(expected - names), sorted(names - expected)
        if missing or extra:
            raise DistError(f"{kind}: missing {missing or 'nothing'}; not expected {extra or 'nothing'}")


def release_notes(changelog: str, version: str, *, dated: bool) -> str:
    """Return the section of the changelog about a version.

    :param dated: the section must have a date, as that of a version that is released now.
    """
    found = re.search(rf"^## \[{re.escape(version)}\] - (.*)\n((?:(?!## ).*\n?)*)", changelog, re.MULTILINE)
    if found is None:
        raise DistError(f"CHANGELOG.md has no section about {version}")
    date, text = found.groups()
    if dated and not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise DistError(f"CHANGELOG.md: the section about {version} has {date!r} instead of the date of the release")
    return text.strip() + "\n"


def build_all(work: Path) -> dict[str, Path]:
    """Build the last commit in different ways, check that the builds are the same, and return sdist and wheel.

    The sdist is unpacked in ``work / "source"``.
    """
    first = build(export(work / "first", umask=0o022, as_new=False), work / "out", "sdist", "wheel")
    elsewhere = export(work / "elsewhere" / "second", umask=0o077, as_new=True)
    second = build(elsewhere, work / "out-2", "sdist", "wheel", umask=0o077, zone="Asia/Tokyo")
    source = work / "source"
    source.mkdir()
    _run("tar", "--extract", "--strip-components=1", f"--file={first['sdist']}", f"--directory={source}")
    third = build(source, work / "out-3", "wheel")
    for kind, path in [*second.items(), *third.items()]:
        check_same(first[kind], path)
    print("Two builds in different folders, and the wheel built from the sdist, have the same bytes.")
    return first


def check_all(built: dict[str, Path], changelog: str, tag: str | None) -> str:
    """Check metadata, files, tag and changelog, and return the release notes.

    :param tag: the tag of the release, if this is one.
    """
    tree = _run("git", "ls-tree", "-r", "--name-only", "HEAD").splitlines()
    _run(sys.executable, "-m", "twine", "check", "--strict", *built.values())
    check_files(contents(built["sdist"]), contents(built["wheel"]), tree)
    version = built["wheel"].name.split("-")[1]
    if tag not in (None, f"v{version}"):
        raise DistError(f"The tag is {tag}, but the version is {version}")
    print(f"Version {version} has the right files: the sdist has all {len(tree)} of the repository.")
    return release_notes(changelog, version, dated=tag is not None)


def try_wheel(work: Path, wheel: Path, airflow: str) -> None:
    """Install the wheel with what it needs in a new environment, for a version of Airflow, and try it there."""
    dev, python = work / "source" / "dev", work / "environment" / "bin" / "python"
    _run("uv", "venv", "--quiet", f"--python={sys.executable}", work / "environment")
    constraints = f"--constraint={dev}/constraints/airflow-{airflow}.txt"
    _run("uv", "pip", "install", "--quiet", f"--python={python}", constraints, wheel)
    _run("uv", "pip", "check", "--quiet", f"--python={python}")
    smoke = _run(python, "-I", dev / "smoke.py", cwd=work)
    print(f"In a new environment with Airflow {airflow}, outside of the repository:\n{smoke.rstrip()}")


def make(work: Path, airflow: str, tag: str | None) -> None:
    """Make ``dist/`` and ``build/``.

    :param work: an empty folder for everything but the results.
    :raises DistError: the files must not be released.
    """
    if _run("git", "status", "--porcelain", "--untracked-files=no"):
        print("Changes that are not committed are left out.")
    built = build_all(work)
    notes = check_all(built, (work / "source" / "CHANGELOG.md").read_text(), tag)
    try_wheel(work, built["wheel"], airflow)
    for folder in (DIST, BESIDE):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for path in built.values():
        shutil.copy(path, DIST)
    (BESIDE / "release-notes.md").write_text(notes)
    sums = "".join(f"{checksum(path)}  {path.name}\n" for path in sorted(DIST.iterdir()))
    (BESIDE / "SHA256SUMS").write_text(sums)
    print(sums.rstrip())


def main() -> int:
    """Read the arguments, and print why the files must not be released if that is so."""
    options = argparse.ArgumentParser(description="Build, check and try the sdist and the wheel of the last commit.")
    options.add_argument("--airflow", default="3.3.2", help="the Airflow to try the wheel with (default: %(default)s)")
    options.add_argument("--tag", help="the tag of the release, which must be that of the version")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="browseract-dist-") as work:
        try:
            make(Path(work), asked.airflow, asked.tag)
        except DistError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
