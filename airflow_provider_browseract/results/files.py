"""The files of a run: what the API lists, under names that are safe on every store."""

from __future__ import annotations

import hashlib
import mimetypes
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.runs.stored import storable

NAME_BYTES = 200
"""The longest file name, in bytes of UTF-8. Stores allow 255 and more; the rest is for additions to the name."""

BROKEN_STATES = frozenset({"failed", "error", "expired", "canceled", "cancelled"})
"""Statuses of a file that BrowserAct will no longer prepare. According to its document, the words vary."""

TEXT_NAMES = {"json": "output.json", "csv": "output.csv", "text": "output.txt"}
"""File name of the text of an output, by its format."""

RESERVED_NAMES = ("task.json", *TEXT_NAMES.values())
"""Names that files of a run must not have, because other files in its folder have them."""

SIGNATURE = re.compile(
    "x-(amz|goog|oss)-.*|.*(signature|accesskeyid|accessid)|key-pair-id|policy|expires?|token|sig|s[eprtv]|spr|sk[a-z]+",
    re.IGNORECASE,
)
"""Query parameters that sign the address of a file (S3, CloudFront, Google, Azure, OSS) and change each time."""


@dataclass(frozen=True)
class RunFile:
    """A file of a run.

    :param name: a name that is safe on every store, and that no other file of the run has. It does not depend on the
        order in which BrowserAct lists the files, so in each try it is the name of the same file.
    :param url: temporary address from which anyone can fetch it, so it is kept out of ``repr``. None while BrowserAct
        is preparing the file.
    :param size: its size in bytes, if announced.
    :param broken: why BrowserAct will no longer prepare it, if so.
    :param key: what identifies it in each listing; "" if nothing does, which only a file in preparation can lack.
    """

    name: str
    url: str | None = field(repr=False)
    size: int | None = None
    broken: str | None = None
    key: str = ""

    @property
    def pending(self) -> bool:
        """Whether BrowserAct is still preparing it."""
        return self.url is None and self.broken is None


def files_of(task: Task) -> tuple[RunFile, ...]:
    """Return the files of a run: the downloads, the workflow's output files, and the formats of a bot's output.

    :param task: the task as the API returns it. A file among the downloads and the output files counts once.
    """
    listed: list[RunFile] = []
    sources: set[str] = set()
    for file in task.download_files:
        state, url = file.status or "", file.download_url or None
        broken = file.error_message or (f"its status is {state}" if state.lower() in BROKEN_STATES else None)
        name = safe_name(file.file_name or _name_in(url or ""))
        sources.add(source := source_of(url or ""))
        listed.append(RunFile(name, url, file.file_size, None if url else broken, key=file.guid or source))
    for url in task.output.files if task.output else ():
        source = source_of(url)
        # An invalid address has none.
        if not source or source not in sources:
            sources.add(source)
            listed.append(RunFile(safe_name(_name_in(url)), url, key=source))
    for each in task.output.formats if task.output else ():
        name = safe_name(each.name or _name_in(each.url or "") or each.format)
        listed.append(RunFile(name, each.url, each.size, key=each.format))
    often = Counter([*RESERVED_NAMES, *(found.name.lower() for found in listed)])
    taken = dict.fromkeys(RESERVED_NAMES, 2)
    files = []
    for found in listed:
        name = found.name
        if found.key and often[name.lower()] > 1:
            name = _with(name, safe_name(found.key))
        files.append(replace(found, name=_free_name(name, taken)))
    return tuple(files)


def has_files(task: Task) -> bool:
    """Return whether a run has files, whether they are ready or not."""
    return bool(task.download_files or (task.output and (task.output.files or task.output.formats)))


def addresses_of(task: Task) -> list[str]:
    """Return the addresses of a run's files: output files, downloads that are ready, and formats of a bot's output.

    Only addresses with http or https are returned, because the next task may open any other one as a local file.
    """
    output_files = task.output.files if task.output else ()
    formats = [each.url for each in task.output.formats if each.url] if task.output else []
    known = set(map(source_of, output_files))
    downloads = [url for file in task.download_files if (url := file.download_url) and source_of(url) not in known]
    found = (*output_files, *downloads, *formats)
    return [storable(url) for url in found if url.lower().startswith(("http://", "https://"))]


def pending_line(task: Task) -> str | None:
    """Return a log line if files are not returned because BrowserAct is still preparing them, or None."""
    if task.output and task.output.string is not None:
        # Beside a value, no format of it is returned.
        task = task.model_copy(update={"output": task.output.model_copy(update={"formats": ()})})
    pending = sum(file.pending for file in files_of(task))
    if not pending:
        return None
    return (
        f"BrowserAct is still preparing {pending} of the run's files, so they are not returned. Set output_path to "
        "wait for them and write them to object storage."
    )


def source_of(url: str) -> str:
    """Return a short digest of an address that stays the same when the address is signed again.

    :param url: the address of a file. Without one, or without a valid one, the digest is empty.
    """
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        named = [pair for pair in parse_qsl(parts.query) if not SIGNATURE.fullmatch(pair[0])]
    except ValueError:
        return ""
    return hashlib.sha256(repr((parts.hostname, parts.path, sorted(named))).encode()).hexdigest()[:16]


def media_type_of(name: str) -> str:
    """Return the media type of a file, guessed from its name."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


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
    try:
        return unquote(urlsplit(url).path.rpartition("/")[2])
    except ValueError:
        return ""


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
