from __future__ import annotations

import json
import re

import pytest

from airflow_provider_browseract.api.models import DownloadFile, Output, OutputFile, Task, TaskStatus
from airflow_provider_browseract.runs import outputs
from airflow_provider_browseract.runs.outputs import (
    MAX_DEPTH,
    FormatError,
    OutputFormat,
    ReturnValue,
    WhyUnstorable,
    as_text_line,
    doubt_about,
    format_of,
    read_output,
)

AUTO, JSON, CSV, TEXT = OutputFormat.AUTO, OutputFormat.JSON, OutputFormat.CSV, OutputFormat.TEXT


def stores_everything(value: object) -> None:
    """Answer as an Airflow that can store every value."""


def read(
    text: str | None,
    output_format: OutputFormat = AUTO,
    why_unstorable: WhyUnstorable = stores_everything,
    files: tuple[str, ...] = (),
) -> ReturnValue:
    task = Task("7", TaskStatus.FINISHED, output=Output(string=text, files=files))
    return read_output(task, output_format, why_unstorable)


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


class TestAutoFormat:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ('[{"a": 1}]', [{"a": 1}]),
            ('\ufeff{"a": null}', {"a": None}),
            ("12", 12),
            ("plain words", "plain words"),
            ("\ufeffplain words", "plain words"),
            ("name,price\npen,1\n", "name,price\npen,1\n"),
            ('{"broken": ', '{"broken": '),
            ("NaN", "NaN"),
            ('{"a": 1e999}', '{"a": 1e999}'),
            ("[123456789012345678901234567890]", "[123456789012345678901234567890]"),
            ("[9223372036854775807, -9223372036854775808]", [2**63 - 1, -(2**63)]),
            (r'["\ud800"]', r'["\ud800"]'),
            (r'["\udfff"]', r'["\udfff"]'),
            ('["\ud800"]', '["?"]'),
            ('["\u00fc\U0001f600", true, null, 1.5]', ["\u00fc\U0001f600", True, None, 1.5]),
            ('{"a": Infinity}', '{"a": Infinity}'),
            ("[" * 100_000, "[" * 100_000),
            (nested(600), nested(600)),
            (r'["\u0000"]', r'["\u0000"]'),
            ("a\0b", "a\ufffdb"),
            ("", None),
            (None, None),
        ],
        ids=[
            "JSON list",
            "JSON object with BOM",
            "JSON number",
            "plain text",
            "plain text with BOM",
            "CSV",
            "broken JSON",
            "NaN",
            "float overflow",
            "integer too large",
            "64-bit limits",
            "surrogate escape",
            "last surrogate escape",
            "surrogate",
            "other characters",
            "Infinity",
            "100000 open brackets",
            "600 levels",
            "null escape",
            "null character",
            "empty",
            "missing",
        ],
    )
    def test_output_in_auto_format_is_parsed_as_json_or_kept_as_text(self, text, value):
        assert read(text).value == value

    @pytest.mark.parametrize(
        "text",
        ["plain words", '{"broken": ', "NaN", "1" * 30, "1e999", r'"\u0000"', "", None],
        ids=[
            "plain text",
            "broken JSON",
            "NaN",
            "integer too large",
            "float overflow",
            "null escape",
            "empty",
            "missing",
        ],
    )
    def test_text_output_in_auto_format_is_not_reported_as_kept_as_text(self, text):
        assert read(text).kept_as_text is None


UNSTORABLE = [
    ('{"a": 1e999}', "a number that is too large"),
    ("[9223372036854775808]", "an integer of more than 64 bits"),
    ("[-9223372036854775809]", "an integer of more than 64 bits"),
    ("[" + "1" * 5000 + "]", "too many digits for Python|more than 64 bits"),
    (r'["\ud800"]', "a character that a database cannot store"),
    (r'{"\u0000": 1}', "a character that a database cannot store"),
    (nested(MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} levels"),
    (nested(900), f"nested more than {MAX_DEPTH} levels"),
    (nested(100_000), "nested too deeply for Python"),
]


class TestUnstorableValue:
    """The text is returned in its place: the run has been paid for."""

    @pytest.mark.parametrize("output_format", [AUTO, JSON])
    @pytest.mark.parametrize(("text", "why"), UNSTORABLE, ids=[why for _, why in UNSTORABLE])
    def test_unstorable_json_output_is_returned_as_text_with_the_reason(self, text, why, output_format):
        returned = read(text, output_format)
        assert returned.value == text
        assert re.search(why, str(returned.kept_as_text))

    @pytest.mark.parametrize("output_format", [AUTO, JSON])
    def test_json_output_refused_by_airflow_is_returned_as_text_with_the_reason(self, output_format):
        asked = []

        def refuse(value: object) -> str:
            asked.append(value)
            return "Airflow refuses it"

        why = f"{outputs.UNSTORABLE}: Airflow refuses it"
        assert read('{"a": 1}', output_format, refuse) == ReturnValue('{"a": 1}', why)
        assert asked == [{"a": 1}]

    def test_unstorable_csv_output_is_returned_as_text_with_the_reason(self):
        assert read("__id__\n1\n", CSV, lambda value: "no") == ReturnValue("__id__\n1\n", f"{outputs.UNSTORABLE}: no")

    def test_csv_output_with_null_characters_is_parsed_with_them_replaced(self):
        assert read("a\n\0\n", CSV) == ReturnValue([{"a": "\ufffd"}])

    def test_unstorable_output_is_returned_together_with_its_files(self):
        returned = read("[1]", JSON, lambda value: "no", files=("u",))
        assert returned == ReturnValue({"output": "[1]", "files": ["u"]}, f"{outputs.UNSTORABLE}: no")

    def test_json_output_at_the_depth_limit_is_still_parsed(self):
        assert json.dumps(read(nested(MAX_DEPTH), JSON).value) == nested(MAX_DEPTH)

    def test_unstorable_output_log_line_names_the_reason_and_both_remedies(self):
        line = as_text_line(str(read("[1]", JSON, lambda value: "it has the key __id__").kept_as_text))
        assert "because Airflow cannot store the parsed value: it has the key __id__." in line
        assert "json.loads" in line
        assert "output_path" in line

    def test_json_output_nested_too_deep_to_parse_keeps_the_json_format(self):
        assert format_of(Output(nested(100_000)), JSON) is JSON


class TestJsonFormat:
    def test_output_declared_as_json_is_parsed_despite_a_bom(self):
        assert read('\ufeff[{"a": 1}]', JSON).value == [{"a": 1}]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ('[{"a": 1},\n {"a": ', "Expecting value at line 2, column 8"),
            ("", "the output is empty"),
            (None, "the output is empty"),
            ('{"a": Infinity}', "Infinity is not a JSON value"),
        ],
        ids=["broken off", "empty", "missing", "Infinity"],
    )
    def test_invalid_output_declared_as_json_raises_with_the_reason(self, text, why):
        with pytest.raises(FormatError, match=why):
            read(text, JSON)

    def test_empty_output_declared_as_json_is_accepted_when_there_are_files(self):
        assert read("", JSON, files=("u",)).value == {"output": None, "files": ["u"]}


class TestCsvFormat:
    @pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["without BOM", "with BOM"])
    def test_output_declared_as_csv_is_parsed_into_one_dict_per_row(self, mark):
        text = f'{mark}name,price\r\n"pen, red",1.50\r\n\r\nink,"two\nlines"\r\n'
        assert read(text, CSV).value == [
            {"name": "pen, red", "price": "1.50"},
            {"name": "ink", "price": "two\nlines"},
        ]

    def test_csv_output_with_one_column_can_contain_empty_values(self):
        assert read("a\n1\n\n2\n", CSV).value == [{"a": "1"}, {"a": None}, {"a": "2"}]

    def test_csv_header_that_begins_like_json_is_accepted(self):
        assert read("[a],{b}\n1,2\n", CSV).value == [{"[a]": "1", "{b}": "2"}]

    def test_csv_output_with_only_a_header_becomes_an_empty_list(self):
        assert read("name,price\n", CSV).value == []

    def test_csv_row_that_is_too_short_is_filled_with_none(self):
        assert read("a,b\n1\n", CSV).value == [{"a": "1", "b": None}]

    def test_csv_value_of_a_million_characters_is_accepted(self):
        assert read(f"a\n{'x' * 1_000_000}\n", CSV).value == [{"a": "x" * 1_000_000}]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "the output is empty"),
            ('[{"name": "pen", "price": 1.5}]', "the output is JSON"),
            (" {}\n", "the output is JSON"),
            ('{"a": NaN}', "the output is JSON"),
            ('{"a": 1}\n{"a": 2}\n', "the output is JSON"),
            ("null", "the output is JSON"),
            ("[" * 100_000 + "]" * 100_000, "the output is JSON"),
            ("a,b\n1,2,3\n", "line 2 has 3 values, but the header has 2 columns"),
            ("a\n1\n2,3\n", "line 3 has 2 values, but the header has 1 column$"),
            ("a,a\n1,2\n", "an empty or a duplicate name"),
            ("a,\n1,2\n", "an empty or a duplicate name"),
            ('a,b\n"1,2\n', "unexpected end of data at line 2"),
        ],
        ids=[
            "empty",
            "JSON",
            "JSON object",
            "NaN",
            "JSON Lines",
            "null",
            "deep JSON",
            "row too long",
            "row too long for one column",
            "duplicate name",
            "empty name",
            "open quote",
        ],
    )
    def test_invalid_output_declared_as_csv_raises_with_the_reason(self, text, why):
        with pytest.raises(FormatError, match=why):
            read(text, CSV)

    def test_csv_lines_may_end_with_a_carriage_return_alone(self):
        assert read("a\r1\r", CSV).value == [{"a": "1"}]

    def test_line_break_within_a_csv_field_is_unchanged(self):
        assert read('a\n"x\r\ny"\n', CSV).value == [{"a": "x\r\ny"}]


class TestDoubtfulCsv:
    """A text that can be read as CSV, but is probably a message, a page, or has another separator."""

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("No results", "it has a header line without any values"),
            ("\ufeff<html>Not found</html>\n\n", "it has a header line without any values"),
            ("name,price\n,\n", "it has a header line without any values"),
            ("name;price\npen;1\n", "its only column has a semicolon in its name"),
            ("name\tprice\npen\t1\n", "its only column has a tab in its name"),
        ],
        ids=["message", "web page", "empty values", "semicolons", "tabs"],
    )
    def test_text_that_is_probably_not_csv_is_returned_with_the_reason_to_doubt_it(self, text, why):
        returned = read(text, CSV)
        assert isinstance(returned.value, list)
        assert why in str(returned.doubt)

    @pytest.mark.parametrize("text", ["a\n1\n", "a,b\n,1\n", "a;b,c\n1,2\n"], ids=["column", "value", "two columns"])
    def test_csv_with_values_is_returned_without_a_doubt(self, text):
        assert read(text, CSV).doubt is None

    def test_text_without_a_declared_csv_format_is_never_doubted(self):
        assert read("No results").doubt is None
        assert doubt_about("No results", TEXT) is None
        assert doubt_about(None, CSV) is None


class TestLargeText:
    @pytest.fixture(autouse=True)
    def _small_limit(self, monkeypatch):
        monkeypatch.setattr(outputs, "LARGEST_PARSED", 20)

    @pytest.mark.parametrize(
        ("text", "output_format"),
        [
            ("[" + "1, " * 10 + "1]", JSON),
            ("[" + "1, " * 10 + "1]", AUTO),
            ("name,price\n" + "pen,1\n" * 10, CSV),
            (nested(100_000), JSON),
            (r'["\ud800 is half of a character"]', JSON),
        ],
        ids=["JSON", "auto JSON", "CSV", "deep JSON", "half of a character"],
    )
    def test_large_text_is_returned_unparsed_with_the_reason(self, text, output_format):
        returned = read(text, output_format, lambda value: pytest.fail("a value was created"))
        assert returned.value == text
        assert "parsing it could need too much memory" in as_text_line(str(returned.kept_as_text))

    @pytest.mark.parametrize("text", ["plain words, " * 10, '"' + "quoted words, " * 10 + '"'])
    def test_large_text_that_was_not_declared_as_json_is_no_reason_for_a_warning(self, text):
        assert read(text) == ReturnValue(text)

    @pytest.mark.parametrize(
        ("text", "output_format", "why"),
        [
            ("[" + "1, " * 10, JSON, "truncated"),
            ("[" + "NaN, " * 10 + "1]", JSON, "malformed"),
            ("name,price\n" + "pen,1\n" * 10 + "pen,1,2\n", CSV, "line 12 has 3 values, but the header has 2 columns"),
            ('[{"name": "a pen", "price": 1}]', CSV, "the output is JSON"),
        ],
        ids=["broken off", "NaN", "CSV", "JSON declared as CSV"],
    )
    def test_large_text_without_the_declared_format_raises_with_the_reason(self, text, output_format, why):
        with pytest.raises(FormatError, match=why):
            read(text, output_format)

    @pytest.mark.parametrize(
        ("text", "declared", "found"),
        [
            (" [" + "1, " * 10 + "1]", AUTO, JSON),
            ('"' + "words " * 10 + '"', AUTO, TEXT),
            ("words " * 10, AUTO, TEXT),
            ("a\n" + "1\n" * 20, CSV, CSV),
        ],
        ids=["JSON", "JSON string", "words", "CSV"],
    )
    def test_format_of_a_large_text_is_found_without_parsing_it(self, text, declared, found):
        assert format_of(Output(text), declared) is found


@pytest.mark.parametrize(
    ("text", "declared", "found"),
    [
        ("\ufeff[1]", AUTO, JSON),
        ('"words"', AUTO, TEXT),
        ("words", AUTO, TEXT),
        ("a\n1\n", AUTO, TEXT),
        ("a\n1\n", CSV, CSV),
        ("\ufeff[1]", JSON, JSON),
        ("[1]", TEXT, TEXT),
    ],
    ids=["JSON list with BOM", "JSON string", "words", "CSV undeclared", "CSV", "JSON declared", "JSON as text"],
)
def test_format_of_a_text_is_the_declared_one_or_found_by_its_content(text, declared, found):
    assert format_of(Output(text), declared) is found


@pytest.mark.parametrize(("text", "declared"), [("{", JSON), ("a,b\n1,2,3\n", CSV)], ids=["JSON", "CSV"])
def test_text_that_is_not_of_the_declared_format_raises(text, declared):
    with pytest.raises(FormatError):
        format_of(Output(text), declared)


def test_output_declared_as_text_is_unchanged_and_none_when_empty():
    assert read('{"a": 1}', TEXT).value == '{"a": 1}'
    assert read("", TEXT).value is None


def test_output_with_files_is_returned_together_with_their_urls():
    assert read('["row"]', files=("https://files.example/1",)).value == {
        "output": ["row"],
        "files": ["https://files.example/1"],
    }


def test_unstorable_characters_in_file_urls_are_replaced():
    assert read(None, files=("https://files.example/\ud800\0",)).value["files"] == ["https://files.example/?\ufffd"]


def test_missing_output_is_returned_as_none():
    assert read_output(Task("7", TaskStatus.FINISHED), AUTO, stores_everything) == ReturnValue(None)


class TestOutputOfABot:
    """Of a bot, it is known whether the output is a JSON value, whose JSON text is read, or a text."""

    @staticmethod
    def read(
        text: str | None,
        output_format: OutputFormat = AUTO,
        why_unstorable: WhyUnstorable = stores_everything,
        *,
        is_json: bool | None,
        formats: tuple[OutputFile, ...] = (),
        downloads: tuple[DownloadFile, ...] = (),
    ) -> ReturnValue:
        output = Output(text, formats=formats, is_json=is_json)
        return read_output(
            Task("7", TaskStatus.FINISHED, output=output, download_files=downloads), output_format, why_unstorable
        )

    @pytest.mark.parametrize(
        ("text", "is_json", "value", "found"),
        [
            ('{"a": null}', True, {"a": None}, JSON),
            ("[]", True, [], JSON),
            ("12", True, 12, JSON),
            ("1.5", True, 1.5, JSON),
            ("false", True, False, JSON),
            ("Infinity", True, "Infinity", TEXT),
            ("12", False, "12", TEXT),
            ("007", False, "007", TEXT),
            ("true", False, "true", TEXT),
            ("null", False, "null", TEXT),
            ('"quoted"', False, '"quoted"', TEXT),
            ("a,b\n1,2\n", False, "a,b\n1,2\n", TEXT),
            ("\ufeffwords", False, "words", TEXT),
            (' {"a": 1}', False, {"a": 1}, JSON),
            ("\ufeff[1]", False, [1], JSON),
            ("[broken", False, "[broken", TEXT),
            ("", False, None, TEXT),
            (None, None, None, TEXT),
        ],
    )
    def test_value_keeps_its_type_and_text_is_json_only_as_object_or_array(self, text, is_json, value, found):
        returned = self.read(text, is_json=is_json)
        assert (returned.value, type(returned.value), returned.kept_as_text) == (value, type(value), None)
        assert format_of(Output(text, is_json=is_json), AUTO) is found

    @pytest.mark.parametrize(
        ("text", "is_json", "declared", "value"),
        [
            ("12", False, JSON, 12),
            ('{"a": 1}', True, TEXT, '{"a": 1}'),
            ("a,b\n1,2\n", False, CSV, [{"a": "1", "b": "2"}]),
        ],
    )
    def test_declared_format_is_read_as_of_a_workflow(self, text, is_json, declared, value):
        assert self.read(text, declared, is_json=is_json) == ReturnValue(value)
        assert format_of(Output(text, is_json=is_json), declared) is declared

    @pytest.mark.parametrize(("text", "is_json"), [("12", True), ('{"a": 1}', True), ('{"a": 1}', False)])
    def test_json_value_is_not_csv(self, text, is_json):
        with pytest.raises(FormatError, match="the output is JSON"):
            self.read(text, CSV, is_json=is_json)
        with pytest.raises(FormatError, match="the output is JSON"):
            format_of(Output(text, is_json=is_json), CSV)

    @pytest.mark.parametrize("text", [str(2**63), '{"__id__": 1}', nested(MAX_DEPTH + 1)])
    def test_value_that_airflow_cannot_store_is_returned_as_text_with_the_reason(self, text):
        returned = self.read(text, why_unstorable=lambda value: "no", is_json=True)
        assert returned.value == text
        assert str(returned.kept_as_text).startswith(outputs.UNSTORABLE)

    @pytest.mark.parametrize(
        ("text", "is_json", "kept_as_text"),
        [("[" + "1, " * 10 + "1]", True, outputs.TOO_LARGE_TO_PARSE), ("1" * 30, False, None)],
    )
    def test_large_output_is_returned_as_text_and_reported_only_if_it_is_json(
        self, monkeypatch, text, is_json, kept_as_text
    ):
        monkeypatch.setattr(outputs, "LARGEST_PARSED", 20)
        assert self.read(text, is_json=is_json) == ReturnValue(text, kept_as_text)

    FORMATS = (OutputFile("csv", "r.csv", 3, "https://f/r.csv?s"), OutputFile("md", None, None, "https://f/r.md?s"))
    DOWNLOAD = DownloadFile("g", "a.pdf", 3, "completed", None, None, "https://f/a.pdf?s")

    def test_value_is_returned_alone_although_there_are_files_with_the_same_in_other_formats(self):
        assert self.read("[1]", is_json=True, formats=self.FORMATS).value == [1]

    def test_downloads_are_returned_beside_the_value_and_without_its_other_formats(self):
        returned = self.read("[1]", is_json=True, formats=self.FORMATS, downloads=(self.DOWNLOAD,))
        assert returned.value == {"output": [1], "files": ["https://f/a.pdf?s"]}

    @pytest.mark.parametrize("text", [None, ""])
    @pytest.mark.parametrize("declared", OutputFormat)
    def test_addresses_of_the_formats_are_returned_if_there_is_no_value(self, text, declared):
        returned = self.read(text, declared, is_json=None, formats=self.FORMATS, downloads=(self.DOWNLOAD,))
        addresses = ["https://f/a.pdf?s", "https://f/r.csv?s", "https://f/r.md?s"]
        assert returned.value == {"output": None, "files": addresses}


def test_value_written_as_json_output_is_read_back_unchanged():
    value = [{"a": [1, 2.5, None, "\u00fc"]}]
    assert read(json.dumps(value), JSON).value == value
