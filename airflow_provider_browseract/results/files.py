"""The files of a run: what the API lists, under names that are safe on every store."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from airflow_provider_browseract.api.models import Output, Task
from airflow_provider_browseract.runs.stored import storable

NAME_BYTES = 200
"""The longest file name, in bytes of UTF-8. Stores allow 255 and more; the rest is for additions to the name."""

BROKEN_STATES = frozenset({"failed", "error", "expired", "canceled", "cancelled"})
"""Statuses of a file that BrowserAct will no longer prepare. According to its document, the words vary."""

TEXT_NAMES = {"json": "output.json", "csv": "output.csv", "text": "output.txt"}
"""File name of the text of an output, by its format."""

SIGNATURE = re.compile(
    "x-(amz|goog|oss)-.*|.*(signature|accesskeyid|accessid)|key-pair-id|policy|expires?|token|sig|s[eprtv]|spr|sk[a-z]+",
    re.IGNORECASE,
)
"""Query parameters that sign the address of a file (S3, CloudFront, Google, Azure, OSS) and change each time."""

RESERVED_NAMES = ("task.json", *TEXT_NAMES.values())
"""Names that files of a run must not have, because other files in its folder have them."""


@dataclass(frozen=True)
class RunFile:
    """A file of a run.

    :param name: a name that is safe on every store, and that no other file of the run has. Files with an id have the
        same name in each try, whatever the order in which BrowserAct lists them.
    :param url: temporary address from which anyone can fetch it, so it is kept out of ``repr``. None while BrowserAct
        is preparing the file.
    :param size: its size in bytes, if announced.
    :param broken: why BrowserAct will no longer prepare it, if so.
    :param listed_as: what identifies it in each listing, ready or not.
    """

    name: str
    url: str | None = field(repr=False)
    size: int | None = None
    broken: str | None = None
    listed_as: str = ""

    @property
    def pending(self) -> bool:
        """Whether BrowserAct is still preparing it."""
        return self.url is None and self.broken is None


def files_of(task: Task) -> tuple[RunFile, ...]:
    """Return the files of a run: the workflow's output files, the downloads, and the formats of a bot's output.

    :param task: the task as the API returns it. A file among the downloads and the output files counts once. Its two
        addresses may have other signatures, so they are compared without them, unless only these tell several files
        apart, or the path does not end with the name of a file.
    """
    output = task.output or Output()
    ready = {file.download_url for file in task.download_files if file.download_url}
    often = Counter(map(place_of, {*output.files})) | Counter(map(place_of, ready))

    def source(url: str) -> str:
        place = place_of(url)
        return place if often[place] == 1 and "." in _name_in(url) else url

    # Each file, with what is added to its name if another file has the same name.
    found: dict[object, tuple[RunFile, str]] = {}
    for url in output.files:
        found[source(url)] = RunFile(safe_name(_name_in(url)), url), place_of(url)
    for number, file in enumerate(task.download_files):
        link, state = file.download_url or None, file.status or ""
        name = safe_name(file.file_name or _name_in(link or ""))
        broken = file.error_message or (f"its status is {state}" if state.lower() in BROKEN_STATES else None)
        download = RunFile(name, link, file.file_size, None if link else broken, listed_as=file.guid or name)
        known = source(link or "")
        found[known if known in found else number] = download, file.guid or place_of(link or "")
    for each in output.formats:
        name = safe_name(each.name or _name_in(each.url or "") or each.format)
        found["format", each.format] = RunFile(name, each.url, each.size, listed_as=each.format), each.format
    names = Counter([*RESERVED_NAMES, *(listed.name.lower() for listed, _ in found.values())])
    taken = dict.fromkeys(RESERVED_NAMES, 2)
    files = []
    for listed, addition in found.values():
        name = listed.name
        if addition and names[name.lower()] > 1:
            name = _with(name, safe_name(addition))
        files.append(replace(listed, name=_free_name(name, taken)))
    return tuple(files)


def has_files(task: Task) -> bool:
    """Return whether a run has files, whether they are ready or not."""
    return bool(task.download_files or (task.output and (task.output.files or task.output.formats)))


def returned_files(task: Task) -> tuple[RunFile, ...]:
    """Return the files of a run whose addresses are returned if they are not stored.

    Beside a value, the same output in other formats is not returned.
    """
    if task.output and task.output.string:
        task = task.model_copy(update={"output": task.output.model_copy(update={"formats": ()})})
    return files_of(task)


def addresses_of(files: tuple[RunFile, ...]) -> list[str]:
    """Return the addresses of files that are ready.

    Only addresses with http or https are returned, because the next task may open any other one as a local file.
    """
    return [storable(file.url) for file in files if file.url and file.url.lower().startswith(("http://", "https://"))]


def pending_line(task: Task) -> str | None:
    """Return a log line if files are not returned because BrowserAct is still preparing them, or None."""
    pending = sum(file.pending for file in returned_files(task))
    why = f"BrowserAct is still preparing {pending} of the run's files, so they are not returned."
    return f"{why} Set output_path to wait for them and write them to object storage." if pending else None


def place_of(url: str) -> str:
    """Return a short digest of the parts of an address that stay the same when it is signed again.

    :param url: the address of a file. Without one, or without a valid one, the digest is empty.
    """
    parts = _parts_of(url)
    named = sorted(pair for pair in parse_qsl(parts.query) if not SIGNATURE.fullmatch(pair[0]))
    digest = hashlib.sha256(repr((parts.hostname, parts.path, named)).encode()).hexdigest()
    return digest[:16] if parts.hostname else ""


def safe_name(name: str) -> str:
    """Return a file name that is valid on every store, and does not lead out of its folder.

    :returns: its last path segment, without invisible characters and at most :data:`NAME_BYTES` long; ``file`` if
        nothing is left.
    """
    name = storable(name.replace("\0", "")).replace("\\", "/").rpartition("/")[2]
    if len(name) > 2 * NAME_BYTES:
        # Normalizing takes quadratic time. The end may be an extension.
        name = name[:NAME_BYTES] + name[-NAME_BYTES:]
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if char in '<>:"|?*' else char for char in name if unicodedata.category(char)[0] != "C")
    # A leading dot hides a file, and some stores drop a trailing dot or space.
    name = name.lstrip(". ").rstrip(". ")
    stem, ending = _split(name)
    return _cut(stem, NAME_BYTES - len(ending.encode())) + ending or "file"


def _split(name: str) -> tuple[str, str]:
    """Split off the extension of a name, with its dot."""
    stem, dot, ending = name.rpartition(".")
    return (stem, dot + ending) if dot and len(ending.encode()) <= 20 else (name, "")


def _name_in(url: str) -> str:
    return unquote(_parts_of(url).path.rpartition("/")[2])


def _parts_of(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _free_name(name: str, taken: dict[str, int]) -> str:
    """Return a name that is not taken yet, ignoring case, and mark it as taken.

    :param taken: the names that are taken, and for each the number from which a number in it may be free.
    """
    free, key = name, name.lower()
    while free.lower() in taken:
        free = _with(name, str(taken[key]))
        taken[key] += 1
    taken[free.lower()] = 2
    return free


def _with(name: str, addition: str) -> str:
    """Insert something between a name and its extension, without exceeding the longest name."""
    stem, ending = _split(name)
    rest = f" ({_cut(addition, NAME_BYTES // 2)}){ending}"
    return _cut(stem, NAME_BYTES - len(rest.encode())) + rest


def _cut(text: str, length: int) -> str:
    """Truncate a text to a number of bytes, without splitting a character."""
    return text.encode()[:length].decode("utf-8", "ignore")
