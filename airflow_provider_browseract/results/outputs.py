"""Read the output of a run: one text or JSON value, beside its files."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec

from airflow_provider_browseract.api.models import Output, Task
from airflow_provider_browseract.results.files import addresses_of, has_files
from airflow_provider_browseract.runs.options import OutputFormat
from airflow_provider_browseract.runs.report import number_of
from airflow_provider_browseract.runs.stored import storable

MAX_DEPTH = 64
"""Levels of lists and dicts that a returned value may have. MySQL, the strictest of Airflow's databases, stores 100."""

LARGEST_PARSED = 10 * 1024 * 1024
"""Characters up to which a text is parsed to return its value. A larger text is returned as text.

The value and the check whether Airflow can store it may need ten times the size of CSV in memory, and 25 times the size
of JSON that consists of empty lists. Then Airflow makes several copies of the value to store it.
"""

LARGE_OUTPUT = 1024 * 1024
"""Bytes from which a text should be written to object storage instead of Airflow's database."""

BOM = "\ufeff"

LINE = re.compile(r"[^\r\n]*(?:\r\n|[\r\n])|[^\r\n]+")
"""A line of a text, with its end."""

LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape of half a character. JSON allows it, but msgspec refuses it if the other half is missing."""

UNSTORABLE = "Airflow cannot store the parsed value"
"""Why a text is not parsed, before the details."""

TOO_LARGE_TO_PARSE = (
    f"it has more than {LARGEST_PARSED // 1024**2} million characters, so parsing it could need too much memory"
)
"""Why a large text is not parsed."""


class FormatError(ValueError):
    """A text does not have the declared format. The message contains the reason, but no part of the text."""


class _BeyondPythonError(Exception):
    """A text is nested too deeply, or has a number with too many digits, for Python to read it."""


WhyUnstorable: TypeAlias = Callable[[Any], str | None]
"""Returns why Airflow cannot store a value, or None if it can."""


@dataclass(frozen=True)
class ReturnValue:
    """The value that an Airflow task returns.

    :param kept_as_text: why the value is the text itself instead of the parsed value; None if there is no such reason.
    """

    value: Any
    kept_as_text: str | None = None


def read_output(task: Task, output_format: OutputFormat, why_unstorable: WhyUnstorable) -> ReturnValue:
    """Return the value that an Airflow task returns for a run's output.

    :returns: the value that :func:`read_text` returns. If the run has files, ready or not, a dict with that value under
        ``output`` and the addresses of the ready files under ``files``. Files with the same output in other formats
        count only if there is no value.
    :raises FormatError: the text does not have that format.
    """
    output = task.output
    if output and output.string and output.formats:
        task = task.model_copy(update={"output": output.model_copy(update={"formats": ()})})
    if not has_files(task):
        return read_text(output, output_format, why_unstorable)
    # The text is empty if the workflow writes its output to a file.
    read = read_text(output, output_format, why_unstorable) if output and output.string else ReturnValue(None)
    return replace(read, value={"output": read.value, "files": addresses_of(task)})


def read_text(output: Output | None, output_format: OutputFormat, why_unstorable: WhyUnstorable) -> ReturnValue:
    """Read the text of an output.

    A value that Airflow cannot store, or that needs too much memory, would fail the task after the run has used its
    credits. The text is returned instead.

    :param output: the output. A byte order mark in front of its text is ignored.
    :returns: for JSON, the parsed value; for CSV, a list with a dict of strings for each row; for text, the text
        itself; ``None`` for an empty text that was not declared as JSON or CSV.
    :raises FormatError: the text does not have that format.
    """
    text, output_format = _to_read(output, output_format)
    auto = output_format is OutputFormat.AUTO
    as_text = storable(text) or None
    if output_format is OutputFormat.TEXT or (auto and not text):
        return ReturnValue(as_text)
    if len(text) > LARGEST_PARSED:
        is_text = format_of(output, output_format) is OutputFormat.TEXT
        return ReturnValue(as_text, None if is_text else TOO_LARGE_TO_PARSE)
    try:
        value = _read_csv(text) if output_format is OutputFormat.CSV else _read_json(text)
        why = _why_no_database_stores(value) or why_unstorable(value)
    except _BeyondPythonError as error:
        return ReturnValue(as_text, f"{UNSTORABLE}: {error}")
    except FormatError:
        if not auto:
            raise
        return ReturnValue(as_text)
    if why is None:
        return ReturnValue(value)
    # No warning for a text that was not declared as JSON and only looks like a long number or a JSON string.
    is_json = not auto or isinstance(value, dict | list) or bool(output and output.is_json)
    return ReturnValue(as_text, f"{UNSTORABLE}: {why}" if is_json else None)


def as_text_line(why: str) -> str:
    """Return a log line about a value that is returned as text.

    :param why: why it is not parsed, as a clause.
    """
    return (
        f"The output is returned as text, because {why}. Parse the text in the next task (json.loads, csv.DictReader), "
        "or set output_path to write it to object storage."
    )


def format_of(output: Output | None, output_format: OutputFormat) -> OutputFormat:
    """Return the format of an output's text.

    :raises FormatError: the text does not have that format.
    """
    text, output_format = _to_read(output, output_format)
    if output_format is OutputFormat.CSV:
        for _ in _csv_lines(storable(text)):
            pass
    elif output_format is OutputFormat.JSON:
        # A text that Python cannot read may still be JSON.
        with suppress(_BeyondPythonError):
            _check_json(text)
    elif output_format is OutputFormat.AUTO:
        try:
            _check_json(text)
        except (FormatError, _BeyondPythonError):
            return OutputFormat.TEXT
        return OutputFormat.TEXT if text.lstrip().startswith('"') else OutputFormat.JSON
    return output_format


def _to_read(output: Output | None, output_format: OutputFormat) -> tuple[str, OutputFormat]:
    """Return the text of an output, and the format in which to read it.

    Of a bot, it is known whether the output is a JSON value or a text. So the text "12" stays a text.
    """
    text = ((output and output.string) or "").removeprefix(BOM)
    if output and output.is_json and output_format is OutputFormat.CSV:
        raise FormatError("the output is JSON")
    if output and output.is_json is False and output_format is OutputFormat.AUTO:
        return text, OutputFormat.AUTO if text.lstrip().startswith(("{", "[")) else OutputFormat.TEXT
    return text, output_format


def size_of(text: str) -> int:
    """Return the size of a text in bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _check_json(text: str) -> None:
    """Raise an error if a text is not JSON. The values of a large text are not created."""
    if len(text) <= LARGEST_PARSED:
        _read_json(text)
        return
    try:
        msgspec.json.decode(text.encode("utf-8", "replace"), type=msgspec.Raw)
    except RecursionError:
        raise _BeyondPythonError("it is nested too deeply for Python") from None
    except msgspec.DecodeError as error:
        if LONE_SURROGATE.search(text):
            raise _BeyondPythonError("it contains half of a character") from None
        raise FormatError(str(error)) from None


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
        raise _BeyondPythonError("it is nested too deeply for Python") from None
    except ValueError:
        raise _BeyondPythonError("it contains a number with too many digits for Python") from None


def _is_json(text: str) -> bool:
    """Return whether a text or its first line is a JSON object or array, or the text is ``null``."""
    text = text.lstrip()
    if not text.startswith(("{", "[")):
        return text.startswith("null") and text.rstrip() == "null"
    for part in (text, text.partition("\n")[0]):
        try:
            if len(part) > LARGEST_PARSED:
                _check_json(part)
            else:
                json.loads(part)
        except (FormatError, json.JSONDecodeError):
            continue
        except (_BeyondPythonError, RecursionError, ValueError):
            # It is JSON, but too deep or with a too large number for Python.
            return True
        return True
    return False


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
                below.extend(each)
                if isinstance(each, dict):
                    below.extend(each.values())
            elif isinstance(each, str):
                if "\0" in each or (not each.isascii() and any("\ud800" <= char <= "\udfff" for char in each)):
                    return "it contains a character that a database cannot store"
            elif isinstance(each, int) and not -(2**63) <= each < 2**63:
                return "it contains an integer of more than 64 bits"
            elif isinstance(each, float) and not math.isfinite(each):
                return "it contains a number that is too large"
        level, depth = below, depth + 1
    return None


def _read_csv(text: str) -> list[dict[str, str | None]]:
    lines = _csv_lines(storable(text))
    header = next(lines)
    return [{name: row[column] if column < len(row) else None for column, name in enumerate(header)} for row in lines]


def _csv_lines(text: str) -> Generator[list[str], None, None]:
    """Yield the header and the rows of a CSV text one by one.

    :raises FormatError: the text is not CSV.
    """
    # Of JSON, the first line would be read as a header, and the rows would be wrong or missing.
    if _is_json(text):
        raise FormatError("the output is JSON")
    before = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        # io.StringIO would need four times the size of the text.
        rows = csv.reader((line.group() for line in LINE.finditer(text)), strict=True)
        header = next(rows, None)
        if header is None:
            raise FormatError("the output is empty")
        if "" in header or len(set(header)) < len(header):
            raise FormatError("the header line has an empty or a duplicate name")
        yield header
        for row in rows:
            # An empty line is an empty value if there is only one column, and is ignored otherwise.
            if not row and len(header) > 1:
                continue
            if len(row) > len(header):
                values, columns = number_of(len(row), "value"), number_of(len(header), "column")
                raise FormatError(f"line {rows.line_num} has {values}, but the header has {columns}")
            yield row
    except csv.Error as error:
        raise FormatError(f"{error} at line {rows.line_num}") from None
    finally:
        csv.field_size_limit(before)
