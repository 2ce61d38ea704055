from __future__ import annotations

import json
import re

import pytest

from airflow_provider_browseract.api.models import DownloadFile, Output, OutputFile, Task, TaskStatus
from airflow_provider_browseract.results import outputs
from airflow_provider_browseract.results.outputs import MAX_DEPTH, FormatError, ReturnValue
from airflow_provider_browseract.runs.options import OutputFormat
from tests.helpers.cases import cases

AUTO, JSON, CSV, TEXT = OutputFormat.AUTO, OutputFormat.JSON, OutputFormat.CSV, OutputFormat.TEXT


def read(text, output_format=AUTO, why_unstorable=lambda value: None, *, downloads=(), **fields) -> ReturnValue:
    """Read an output. Of a bot, it is known whether it ``is_json``."""
    output = Output(string=text, **{"files": (), **fields})
    task = Task(id="7", status=TaskStatus.FINISHED, output=output, download_files=downloads)
    return outputs.read_output(task, output_format, why_unstorable)


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


UNSTORABLE = {
    '{"a": 1e999}': "a number that is too large",
    "[9223372036854775808]": "an integer of more than 64 bits",
    "[-9223372036854775809]": "an integer of more than 64 bits",
    "[" + "1" * 5000 + "]": "too many digits for Python|more than 64 bits",
    r'["\ud800"]': "a character that a database cannot store",
    r'{"\u0000": 1}': "a character that a database cannot store",
    nested(MAX_DEPTH + 1): f"nested more than {MAX_DEPTH} levels",
    nested(100_000): "nested too deeply for Python",
    "[" * 100_000: "nested too deeply for Python",
    '["\ud800"]': "a character that a database cannot store",
}


@pytest.mark.parametrize(
    ("output_format", "is_json"), [(AUTO, None), (JSON, None), (AUTO, True)], ids=["auto", "JSON", "value of a bot"]
)
@pytest.mark.parametrize(("text", "why"), UNSTORABLE.items(), ids=lambda text: text[:40])
def test_unstorable_json_output_is_returned_as_text_with_the_reason(text, why, output_format, is_json):
    returned = read(text, output_format, is_json=is_json)
    assert returned.value == text.replace("\ud800", "?")
    assert re.search(f"^Airflow cannot store the parsed value: .*({why})", str(returned.kept_as_text))


ROWS = 'name,price\r\n"pen, red",1.50\r\n\r\nink,"two\nlines"\r\n'
PEN_AND_INK = [{"name": "pen, red", "price": "1.50"}, {"name": "ink", "price": "two\nlines"}]
MILLION = "x" * 1_000_000


@cases(
    ("JSON object with BOM", '\ufeff{"a": null}', AUTO, {"a": None}, JSON),
    ("JSON number", "12", AUTO, 12, JSON),
    ("64-bit limits", "[9223372036854775807, -9223372036854775808]", AUTO, [2**63 - 1, -(2**63)], JSON),
    ("Unicode", '["\u00fc\U0001f600", true, null, 1.5]', AUTO, ["\u00fc\U0001f600", True, None, 1.5], JSON),
    ("JSON string", '"words"', AUTO, "words", TEXT),
    ("plain text with BOM", "\ufeffplain words", AUTO, "plain words", TEXT),
    ("null character", "a\0b", AUTO, "a\ufffdb", TEXT),
    *(
        (f"text {text[:20]!r}", text, AUTO, text, TEXT)
        for text in ("plain words", "name,price\npen,1\n", '{"broken": ', "NaN", '{"a": Infinity}', r'"\u0000"')
    ),
    ("number of many digits", "1" * 30, AUTO, "1" * 30, JSON),
    ("number that is too large", "1e999", AUTO, "1e999", JSON),
    ("empty", "", AUTO, None, TEXT),
    ("missing", None, AUTO, None, TEXT),
    ("JSON at the depth limit", nested(MAX_DEPTH), JSON, json.loads(nested(MAX_DEPTH)), JSON),
    ("CSV with BOM", "\ufeff" + ROWS, CSV, PEN_AND_INK, CSV),
    ("empty values of one column", "a\n1\n\n2\n", CSV, [{"a": "1"}, {"a": None}, {"a": "2"}], CSV),
    ("header that begins like JSON", "[a],{b}\n1,2\n", CSV, [{"[a]": "1", "{b}": "2"}], CSV),
    ("row that is too short", "a,b\n1\n", CSV, [{"a": "1", "b": None}], CSV),
    ("value of a million characters", f"a\n{MILLION}\n", CSV, [{"a": MILLION}], CSV),
    ("lines that end with a carriage return alone", "a\r1\r", CSV, [{"a": "1"}], CSV),
    ("null character in CSV", "a\n\0\n", CSV, [{"a": "\ufffd"}], CSV),
    ("text", '{"a": 1}', TEXT, '{"a": 1}', TEXT),
    ("empty text", "", TEXT, None, TEXT),
)
def test_output_is_read_in_its_declared_format_or_as_json_or_text(text, declared, value, found):
    # A text that was not declared as JSON, and is no list or dict, is no reason for a warning.
    assert read(text, declared) == ReturnValue(value, found)


@cases(
    ("broken off", '[{"a": 1},\n {"a": ', JSON, "Expecting value at line 2, column 8"),
    ("empty", "", JSON, "the output is empty"),
    ("Infinity", '{"a": Infinity}', JSON, "Infinity is not a JSON value"),
    *(
        (f"CSV {text[:20]!r}", text, CSV, "the output is JSON")
        for text in ('[{"a": 1.5}]', " {}\n", '{"a": NaN}', '{"a": 1}\n{"a": 2}\n', "null")
    ),
    ("row too long", "a\n1\n2,3\n", CSV, "line 3 has more values than the header$"),
    ("duplicate name", "a,a\n1,2\n", CSV, "an empty or a duplicate name"),
    ("empty name", "a,\n1,2\n", CSV, "an empty or a duplicate name"),
    ("open quote", 'a,b\n"1,2\n', CSV, "unexpected end of data at line 2"),
)
def test_output_without_its_declared_format_raises_with_the_reason(text, declared, why):
    with pytest.raises(FormatError, match=why):
        read(text, declared)


@cases(
    ("JSON", " [" + "1, " * 10 + "1]", JSON, None, JSON),
    ("auto JSON", "[" + "1, " * 10 + "1]", AUTO, None, JSON),
    ("CSV", "name,price\n" + "pen,1\n" * 10, CSV, None, CSV),
    ("half of a character", r'["\ud800 is half of a character"]', JSON, None, JSON),
    ("words", "plain words, " * 10, AUTO, None, TEXT),
    ("JSON string", '"' + "quoted words, " * 10 + '"', AUTO, None, TEXT),
    ("value of a bot", "[" + "1, " * 10 + "1]", AUTO, True, JSON),
    ("text of a bot", "1" * 30, AUTO, False, TEXT),
)
def test_large_text_is_returned_unparsed_with_the_reason_if_it_is_no_text(monkeypatch, text, declared, is_json, found):
    monkeypatch.setattr(outputs, "LARGEST_PARSED", 20)
    returned = read(text, declared, lambda value: pytest.fail("a value was created"), is_json=is_json)
    assert returned == ReturnValue(text, found, None if found is TEXT else outputs.TOO_LARGE_TO_PARSE)


URL, DOWNLOAD_URL = "https://files.example/1", "https://f/a.pdf?s"
FORMATS = (
    OutputFile(format="csv", name="r.csv", size=3, url="https://f/r.csv?s"),
    OutputFile(format="md", url="https://f/r.md?s"),
)
DOWNLOADS = (DownloadFile(guid="g", file_name="a.pdf", file_size=3, status="completed", download_url=DOWNLOAD_URL),)
ALL_FILES = {"formats": FORMATS, "downloads": DOWNLOADS}


@cases(
    ("output files", '["row"]', {"files": (URL,)}, {"output": ["row"], "files": [URL]}),
    ("unstorable characters", None, {"files": (URL + "\ud800\0",)}, {"output": None, "files": [URL + "?\ufffd"]}),
    ("empty text", "", {"output_format": JSON, "files": (URL,)}, {"output": None, "files": [URL]}),
    # They have the same in other formats.
    ("formats of a value", "[1]", {"is_json": True, "formats": FORMATS}, [1]),
    ("downloads beside a value", "[1]", {"is_json": True, **ALL_FILES}, {"output": [1], "files": [DOWNLOAD_URL]}),
    *(
        (
            f"formats without a value, {text!r} as {declared}",
            text,
            {"output_format": declared, **ALL_FILES},
            {"output": None, "files": [DOWNLOAD_URL, "https://f/r.csv?s", "https://f/r.md?s"]},
        )
        for text in (None, "")
        for declared in OutputFormat
    ),
)
def test_output_with_files_is_returned_together_with_their_urls(text, how, value):
    assert read(text, **how).value == value


@pytest.mark.parametrize(
    ("text", "is_json", "declared", "value", "found"),
    [
        ('{"a": null}', True, AUTO, {"a": None}, JSON),
        ("12", True, AUTO, 12, JSON),
        ("false", True, AUTO, False, JSON),
        ("Infinity", True, AUTO, "Infinity", TEXT),
        ("12", False, AUTO, "12", TEXT),
        ("null", False, AUTO, "null", TEXT),
        ('"quoted"', False, AUTO, '"quoted"', TEXT),
        (' {"a": 1}', False, AUTO, {"a": 1}, JSON),
        ("[broken", False, AUTO, "[broken", TEXT),
        ("", False, AUTO, None, TEXT),
        ("12", False, JSON, 12, JSON),
        ('{"a": 1}', True, TEXT, '{"a": 1}', TEXT),
        ("a,b\n1,2\n", False, CSV, [{"a": "1", "b": "2"}], CSV),
    ],
)
def test_value_of_a_bot_keeps_its_type_and_text_is_json_only_as_object_or_array(text, is_json, declared, value, found):
    returned = read(text, declared, is_json=is_json)
    assert (returned, type(returned.value)) == (ReturnValue(value, found), type(value))


def test_json_value_of_a_bot_is_not_csv():
    with pytest.raises(FormatError, match="the output is JSON"):
        read("12", CSV, is_json=True)
