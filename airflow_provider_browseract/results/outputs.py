"""Read the output of a run: one text or JSON value, beside its files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, TypeAlias

from airflow_provider_browseract.api.models import Output, Task
from airflow_provider_browseract.results.files import addresses_of, returned_files
from airflow_provider_browseract.runs.options import OutputFormat
from airflow_provider_browseract.runs.stored import storable

MAX_DEPTH = 64
"""Levels of lists and dicts that a returned value may have. MySQL, the strictest of Airflow's databases, stores 100."""

LARGEST_PARSED = 10_000_000
"""Characters up to which a text is parsed. A larger one stays text, and its declared format is not checked.

The value may need many times the size of the text in memory. Then Airflow makes several copies of it to store it.
"""

LARGE_OUTPUT = 1024 * 1024
"""Bytes from which a text should be written to object storage instead of Airflow's database."""

BOM = "\ufeff"

TOO_LARGE_TO_PARSE = f"it has more than {LARGEST_PARSED // 1_000_000} million characters"
"""Why a large text is not parsed."""


class FormatError(Exception):
    """A text does not have the declared format. The message contains the reason, but no part of the text."""


WhyUnstorable: TypeAlias = Callable[[Any], str | None]
"""Returns why Airflow cannot store a value, or None if it can."""


@dataclass(frozen=True)
class ReturnValue:
    """The value that an Airflow task returns.

    :param format: the format that the text has.
    :param kept_as_text: why the value is the text itself instead of the parsed value; None if there is no such reason.
    """

    value: Any
    format: OutputFormat = OutputFormat.TEXT
    kept_as_text: str | None = None


def read_output(task: Task, output_format: OutputFormat, why_unstorable: WhyUnstorable) -> ReturnValue:
    """Return the value that an Airflow task returns for a run's output.

    :returns: the value that :func:`read_text` returns. If the run has files, ready or not, a dict with that value under
        ``output`` and the addresses of the ready files under ``files``. Files with the same output in other formats
        count only if there is no value.
    :raises FormatError: the text does not have that format.
    """
    output, files = task.output or Output(), returned_files(task)
    if not files:
        return read_text(output, output_format, why_unstorable)
    # The text is empty if the workflow writes its output to a file.
    read = read_text(output, output_format, why_unstorable) if output.string else ReturnValue(None)
    return replace(read, value={"output": read.value, "files": addresses_of(files)})


def read_text(output: Output, declared: OutputFormat, why_unstorable: WhyUnstorable) -> ReturnValue:
    """Read the text of an output.

    A value that Airflow cannot store, or that needs too much memory, would fail the task after the run has used its
    credits. The text is returned instead.

    :param output: the output. A byte order mark in front of its text is ignored. Of a bot, it is known whether the
        output is a JSON value or a text, so the text "12" stays a text.
    :returns: for JSON, the parsed value; for CSV, a list with a dict of strings for each row; for text, the text
        itself; ``None`` for an empty text that was not declared as JSON or CSV.
    :raises FormatError: the text does not have that format.
    """
    text = (output.string or "").removeprefix(BOM)
    is_structure = text.lstrip().startswith(("{", "["))
    auto = declared is OutputFormat.AUTO
    as_text = ReturnValue(storable(text) or None)
    if output.is_json and declared is OutputFormat.CSV:
        raise FormatError("the output is JSON")
    if declared is OutputFormat.TEXT or (auto and (not text or (output.is_json is False and not is_structure))):
        return as_text
    if not text:
        raise FormatError("the output is empty")
    found: OutputFormat = OutputFormat.JSON if auto else declared
    if len(text) > LARGEST_PARSED:
        return as_text if auto and not is_structure else ReturnValue(as_text.value, found, TOO_LARGE_TO_PARSE)
    try:
        value = _read_csv(text) if declared is OutputFormat.CSV else _read_json(text)
        why = _why_no_database_stores(value) or why_unstorable(value)
    except FormatError:
        if auto:
            return as_text
        raise
    except RecursionError:
        value, why = None, "it is nested too deeply for Python"
    except ValueError:
        value, why = None, "it contains a number with too many digits for Python"
    if auto and isinstance(value, str):
        found = OutputFormat.TEXT
    if why is None:
        return ReturnValue(value, found)
    # No warning for a text that was not declared as JSON and only looks like a long number or a JSON string.
    expected = not auto or output.is_json or is_structure
    return ReturnValue(as_text.value, found, f"Airflow cannot store the parsed value: {why}" if expected else None)


def as_text_line(why: str) -> str:
    """Return a log line about a value that is returned as text.

    :param why: why it is not parsed, as a clause.
    """
    return (
        f"The output is returned as text, because {why}. Parse the text in the next task (json.loads, csv.DictReader), "
        "or set output_path to write it to object storage."
    )


def size_of(text: str) -> int:
    """Return the size of a text in bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _read_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise FormatError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None


def _refuse_constant(name: str) -> None:
    raise FormatError(f"{name} is not a JSON value")


def _why_no_database_stores(value: Any) -> str | None:
    """Return why one of Airflow's databases cannot store a value, or None.

    Check level by level instead of recursively, because the recursion limit differs between versions of Python.
    """
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict | list):
                if depth == MAX_DEPTH:
                    return f"it is nested more than {MAX_DEPTH} levels deep"
                below.extend([*each, *each.values()] if isinstance(each, dict) else each)
            elif isinstance(each, str) and each != storable(each):
                return "it contains a character that a database cannot store"
            elif isinstance(each, int) and not -(2**63) <= each < 2**63:
                return "it contains an integer of more than 64 bits"
            elif isinstance(each, float) and not math.isfinite(each):
                return "it contains a number that is too large"
        level, depth = below, depth + 1
    return None


def _read_csv(text: str) -> list[dict[str, str | None]]:
    # Of JSON, the first line would be read as a header, and the rows would be wrong or missing.
    if _is_json(text):
        raise FormatError("the output is JSON")
    # Python's own limit is 131,072 characters for a value.
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    lines = csv.reader(io.StringIO(storable(text), newline=""), strict=True)
    rows = []
    try:
        header = next(lines)
        if "" in header or len(set(header)) < len(header):
            raise FormatError("the header line has an empty or a duplicate name")
        for line in lines:
            # An empty line is an empty value if there is only one column, and is ignored otherwise.
            if not line and len(header) > 1:
                continue
            if len(line) > len(header):
                raise FormatError(f"line {lines.line_num} has more values than the header")
            rows.append(dict(zip_longest(header, line)))
    except csv.Error as error:
        raise FormatError(f"{error} at line {lines.line_num}") from None
    return rows


def _is_json(text: str) -> bool:
    """Return whether a text or its first line is a JSON object or array, or the text is ``null``."""
    text = text.strip()
    if not text.startswith(("{", "[")):
        return text == "null"
    for part in (text, text.partition("\n")[0]):
        with suppress(json.JSONDecodeError):
            json.loads(part)
            return True
    return False
