"""Reading what a run put out: one text, and files."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import math
import mimetypes
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_provider_browseract.api.models import Task, Word

MAX_DEPTH = 64
"""Levels of lists and dicts that a returned value may have: MySQL, the strictest of Airflow's databases, stores 100."""

LARGE_OUTPUT = 1024 * 1024
"""Bytes of a text from which on it belongs into object storage rather than into Airflow's database."""

NAME_BYTES = 200
"""The longest file name, in bytes of UTF-8: stores allow 255 and more, and names of other things are put around it."""

BROKEN_STATES = frozenset({"failed", "error", "expired", "canceled", "cancelled"})
"""What BrowserAct may call a file that will not come any more; its document says that the words vary."""

BOM = "\ufeff"


class OutputFormat(Word):
    """What the text of an output is."""

    AUTO = "auto"
    """JSON if it can be read as that, and text otherwise."""

    JSON = "json"
    """A JSON value."""

    CSV = "csv"
    """Comma-separated values with a header line."""

    TEXT = "text"
    """Nothing but text."""


OUTPUT_NAMES = {
    OutputFormat.JSON: "output.json",
    OutputFormat.CSV: "output.csv",
    OutputFormat.TEXT: "output.txt",
}
"""Under which name a text is written, by what it is."""

RESERVED_NAMES = ("task.json", *OUTPUT_NAMES.values())
"""Names of what is written beside a run's files."""


class FormatError(ValueError):
    """A text does not have the format that was declared; the message says why, and not what is in it."""


class _BeyondPythonError(Exception):
    """A text is too deep, or has a number with too many digits, for Python to read it."""


WhyUnstorable: TypeAlias = Callable[[Any], str | None]
"""Returns why Airflow cannot store a value, or None if it can."""


@dataclass(frozen=True)
class ReturnValue:
    """What an Airflow task returns of an output.

    :param value: the value.
    :param kept_as_text: why the value has the text itself and not what the text describes; None if it does not.
    """

    value: Any
    kept_as_text: str | None = None


def read_output(task: Task, output_format: OutputFormat, why_unstorable: WhyUnstorable) -> ReturnValue:
    """Turn a run's output into the value that an Airflow task returns.

    :param task: the run as ``get-task`` answers it.
    :param output_format: what the text of its output is.
    :param why_unstorable: asks Airflow whether it can store a value.
    :returns: what :func:`read_text` makes of the text. If the run has files, ready or not, a dict with that under
        ``output`` and the addresses of those that are ready under ``files``.
    :raises FormatError: the text does not have that format.
    """
    text = task.output.string if task.output else None
    if not has_files(task):
        return read_text(text, output_format, why_unstorable)
    # An output that is written into a file leaves the text empty.
    read = read_text(text, output_format, why_unstorable) if text else ReturnValue(None)
    return replace(read, value={"output": read.value, "files": addresses_of(task)})


def has_files(task: Task) -> bool:
    """Return whether a run has files, whether they are ready or not."""
    return bool(task.download_files or (task.output and task.output.files))


def addresses_of(task: Task) -> list[str]:
    """Return the addresses of a run's files: those that the workflow put out, then the downloads that are ready."""
    put_out = task.output.files if task.output else ()
    known = set(map(source_of, put_out))
    downloads = [url for file in task.download_files if (url := file.download_url) and source_of(url) not in known]
    return list(map(storable, (*put_out, *downloads)))


def pending_line(task: Task) -> str | None:
    """Return the line for the log where files are not returned because BrowserAct still prepares them, or None."""
    pending = sum(file.pending for file in files_of(task))
    if not pending:
        return None
    return (
        f"BrowserAct is still preparing {pending} of the run's files, so they are not returned. Set output_path to "
        "wait for them and write them to object storage."
    )


def read_text(text: str | None, output_format: OutputFormat, why_unstorable: WhyUnstorable) -> ReturnValue:
    """Read the text of an output.

    A value that Airflow cannot store would fail the task after the run was paid for. The text is returned instead.

    :param text: the text; a byte order mark before it does not count.
    :param output_format: what it is.
    :param why_unstorable: asks Airflow whether it can store a value.
    :returns: for JSON the value that it describes, for CSV the rows as dicts of strings by the names in the header, for
        text the text itself; ``None`` for an empty text that was not declared to be JSON or CSV.
    :raises FormatError: it is not that.
    """
    text = (text or "").removeprefix(BOM)
    auto = output_format is OutputFormat.AUTO
    as_text = storable(text) or None
    if output_format is OutputFormat.TEXT or (auto and not text):
        return ReturnValue(as_text)
    try:
        value = _read_csv(text) if output_format is OutputFormat.CSV else _read_json(text)
        why = _why_no_database_stores(value) or why_unstorable(value)
    except _BeyondPythonError as error:
        return ReturnValue(as_text, str(error))
    except FormatError:
        if not auto:
            raise
        return ReturnValue(as_text)
    if why is None:
        return ReturnValue(value)
    # No warning for a text that was not declared as JSON and only looks like a long number or a JSON string.
    return ReturnValue(as_text, None if auto and not isinstance(value, dict | list) else why)


def as_text_line(why: str) -> str:
    """Return the line for the log where a value is returned as text.

    :param why: why Airflow cannot store the value.
    """
    return (
        f"The output is returned as text, because Airflow cannot store the value that it describes: {why}. Read the "
        "text in the next task (json.loads, csv.DictReader), or set output_path to write it to object storage."
    )


def format_of(text: str | None, output_format: OutputFormat) -> OutputFormat:
    """Return what a text is.

    :param output_format: what it is declared to be.
    :raises FormatError: it is not that.
    """
    text = (text or "").removeprefix(BOM)
    if output_format is OutputFormat.CSV:
        _read_csv(text)
    elif output_format is OutputFormat.JSON:
        # What Python cannot read may be JSON all the same.
        with suppress(_BeyondPythonError):
            _read_json(text)
    elif output_format is OutputFormat.AUTO:
        try:
            return OutputFormat.TEXT if isinstance(_read_json(text), str) else OutputFormat.JSON
        except (FormatError, _BeyondPythonError):
            return OutputFormat.TEXT
    return output_format


def storable(text: str) -> str:
    """Replace what a database cannot store: lone surrogates, which JSON can write, and the character zero."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def _read_json(text: str) -> Any:
    if not text:
        raise FormatError("the output is empty")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except FormatError:
        raise
    except json.JSONDecodeError as error:
        raise FormatError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _BeyondPythonError("it is nested too deep for Python") from None
    except ValueError:
        raise _BeyondPythonError("it has a number with too many digits for Python") from None


def _refuse_constant(name: str) -> None:
    raise FormatError(f"{name} is no JSON value")


def _why_no_database_stores(value: Any) -> str | None:
    """Return why a value cannot go into one of Airflow's databases, or None.

    It goes down level by level, since a recursion ends at another depth in each version of Python.
    """
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict | list):
                if depth == MAX_DEPTH:
                    return f"it is nested more than {MAX_DEPTH} levels deep"
                below.extend(each)
                if isinstance(each, dict):
                    below.extend(each.values())
            elif why := _why_no_database_stores_scalar(each):
                return why
        level, depth = below, depth + 1
    return None


def _why_no_database_stores_scalar(value: Any) -> str | None:
    if isinstance(value, str):
        surrogates = not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)
        if surrogates or "\0" in value:
            return "it has a text with a character that a database cannot store"
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            return "it has an integer of more than 64 bits"
    elif isinstance(value, float) and not math.isfinite(value):
        return "it has a number that is too large"
    return None


def _read_csv(text: str) -> list[dict[str, str | None]]:
    before = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        rows = csv.reader(io.StringIO(storable(text), newline=""), strict=True)
        header = next(rows, None)
        if header is None:
            raise FormatError("the output is empty")
        if "" in header or len(set(header)) < len(header):
            raise FormatError("the header line has an empty name, or one twice")
        found = []
        for row in rows:
            # An empty line is an empty value where there is but one, and nothing otherwise.
            if not row and len(header) > 1:
                continue
            if len(row) > len(header):
                raise FormatError(f"line {rows.line_num} has {len(row)} values for {len(header)} names")
            found.append({name: row[column] if column < len(row) else None for column, name in enumerate(header)})
        return found
    except csv.Error as error:
        raise FormatError(f"{error} at line {rows.line_num}") from None
    finally:
        csv.field_size_limit(before)


SIGNATURE = re.compile(
    "x-(amz|goog|oss)-.*|.*(signature|accesskeyid|accessid)|key-pair-id|policy|expires?|token|sig|s[eprtv]|spr|sk[a-z]+",
    re.IGNORECASE,
)
"""Parts of a query that sign the address of a file, for S3, CloudFront, Google, Azure and OSS, and change each time."""


@dataclass(frozen=True)
class RunFile:
    """A file of a run.

    :param name: a name that is safe on every store, and that no other file of the run has.
    :param url: where it can be fetched, for a while and by anyone: kept out of ``repr``. None while it is prepared.
    :param size: its size in bytes, if that was announced.
    :param broken: why it will not come any more, if so.
    :param source: digest of what its address names, without what only signs the address.
    :param ambiguous: another file of the run has the same name by itself, so that the next time the two may change
        places in BrowserAct's lists, and with that their names.
    """

    name: str
    url: str | None = field(repr=False)
    size: int | None = None
    broken: str | None = None
    source: str = ""
    ambiguous: bool = False

    @property
    def pending(self) -> bool:
        """Whether BrowserAct still prepares it."""
        return self.url is None and self.broken is None


def files_of(task: Task) -> tuple[RunFile, ...]:
    """Return the files of a run: what the browser downloaded, then what the workflow put out.

    :param task: the task as ``get-task`` answers it. A file that is in both lists counts once.
    """
    taken = set(RESERVED_NAMES)
    found: list[RunFile] = []
    downloads = [(file, safe_name(file.file_name or _name_in(file.download_url or ""))) for file in task.download_files]
    often = Counter(name.lower() for _, name in downloads)
    for file, name in downloads:
        # The list may come in another order the next time, and what a name stands for has to stay.
        if file.guid and (often[name.lower()] > 1 or name.lower() in RESERVED_NAMES):
            name = _with(name, safe_name(file.guid))
        state = file.status or ""
        broken = file.error_message or (f"BrowserAct says {state}" if state.lower() in BROKEN_STATES else None)
        url = file.download_url or None
        free = _free_name(name, taken)
        ambiguous = not file.guid and often[name.lower()] > 1
        found.append(
            RunFile(free, url, file.file_size, None if url else broken, source_of(url or ""), ambiguous or free != name)
        )
    known = {source_of(file.download_url or "") for file, _ in downloads}
    put_out = {source_of(url): (url, safe_name(_name_in(url))) for url in (task.output.files if task.output else ())}
    often.update(name.lower() for source, (_, name) in put_out.items() if source not in known)
    for source, (url, name) in put_out.items():
        if source not in known:
            found.append(RunFile(_free_name(name, taken), url, source=source, ambiguous=often[name.lower()] > 1))
    return tuple(found)


def source_of(url: str) -> str:
    """Return a short digest of what an address names, which stays the same when the address is signed anew.

    :param url: the address of a file.
    """
    try:
        parts = urlsplit(url)
        named = [pair for pair in parse_qsl(parts.query) if not SIGNATURE.fullmatch(pair[0])]
    except ValueError:
        return ""
    return hashlib.sha256(repr((parts.hostname, parts.path, sorted(named))).encode()).hexdigest()[:16]


def media_type_of(name: str) -> str:
    """Return the media type that a file's name stands for."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def safe_name(name: str) -> str:
    """Make a file name that is one on every store, and leads out of no folder.

    :param name: whatever was given as a name.
    :returns: its last part, without what cannot be seen, at most :data:`NAME_BYTES` long; ``file`` if nothing is left.
    """
    name = unicodedata.normalize("NFC", storable(name.replace("\0", ""))).replace("\\", "/").rpartition("/")[2]
    name = "".join("_" if char in '<>:"|?*' else char for char in name if unicodedata.category(char)[0] != "C")
    # A dot in front hides a file, and a dot or a blank behind gets lost on some stores.
    name = name.lstrip(". ").rstrip(". ")
    stem, dot, ending = name.rpartition(".")
    if len(ending.encode()) > 20 or not dot:
        stem, dot, ending = name, "", ""
    return _cut(stem, NAME_BYTES - len((dot + ending).encode())) + dot + ending or "file"


def _name_in(url: str) -> str:
    try:
        return unquote(urlsplit(url).path.rpartition("/")[2])
    except ValueError:
        return ""


def _free_name(name: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, also where capitals do not count, and take it."""
    for candidate in _candidates(name):
        if candidate.lower() not in taken:
            taken.add(candidate.lower())
            return candidate
    raise AssertionError("there is always one more number")


def _candidates(name: str) -> Iterator[str]:
    yield name
    for number in itertools.count(2):
        yield _with(name, str(number))


def _with(name: str, addition: str) -> str:
    """Put something behind a name and before its ending."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem} ({addition}){dot}{ending}" if dot else f"{name} ({addition})"


def _cut(text: str, length: int) -> str:
    """Cut a text to a number of bytes, between two characters."""
    return text.encode()[:length].decode("utf-8", "ignore")
