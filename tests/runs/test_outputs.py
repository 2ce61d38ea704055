from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_browseract.api.models import DownloadFile, Output, Task, TaskStatus
from airflow_provider_browseract.runs import outputs
from airflow_provider_browseract.runs.outputs import (
    MAX_DEPTH,
    NAME_BYTES,
    RESERVED_NAMES,
    FormatError,
    OutputFormat,
    ReturnValue,
    WhyUnstorable,
    as_text_line,
    doubt_about,
    files_of,
    format_of,
    media_type_of,
    pending_line,
    read_output,
    safe_name,
    source_of,
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
        assert format_of(nested(100_000), JSON) is JSON


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
        assert format_of(text, declared) is found


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
    assert format_of(text, declared) is found


@pytest.mark.parametrize(("text", "declared"), [("{", JSON), ("a,b\n1,2,3\n", CSV)], ids=["JSON", "CSV"])
def test_text_that_is_not_of_the_declared_format_raises(text, declared):
    with pytest.raises(FormatError):
        format_of(text, declared)


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


class TestNamesOfFiles:
    @pytest.mark.parametrize(
        ("given", "safe"),
        [
            ("report.pdf", "report.pdf"),
            ("../../etc/passwd", "passwd"),
            ("/etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("C:\\boot.ini", "boot.ini"),
            ("..", "file"),
            (".hidden", "hidden"),
            ("", "file"),
            ("/", "file"),
            ("a\x00b\r\nc\x1b.txt", "abc.txt"),
            ("\u202egnp.exe", "gnp.exe"),
            ('a<b>:"|?*.txt', "a_b______.txt"),
            ("name. ", "name"),
            ("X.pdf", "X.pdf"),
            ("a.X", "a.X"),
            ("a." + "x" * 300 + ".csv", "a." + "x" * (NAME_BYTES - 6) + ".csv"),
            ("x" * 300 + "." + "e" * 20, "x" * (NAME_BYTES - 21) + "." + "e" * 20),
            ("x" * 300 + "." + "e" * 21, "x" * NAME_BYTES),
            ("caf\u0065\u0301.txt", "caf\u00e9.txt"),
            ("x" * 300 + ".csv", "x" * (NAME_BYTES - 4) + ".csv"),
            ("\U0001f600" * 100, "\U0001f600" * 50),
            ("\u767a" * 100, "\u767a" * 66),
            ("a." + "x" * 300, "a." + "x" * (NAME_BYTES - 2)),
        ],
        ids=[
            "plain name",
            "relative path",
            "absolute path",
            "backslash path",
            "drive letter",
            "parent folder",
            "hidden file",
            "empty",
            "slash only",
            "control characters",
            "direction override",
            "reserved characters",
            "trailing dot and space",
            "capital X",
            "ending X",
            "long middle",
            "ending of 20",
            "ending of 21",
            "decomposed accent",
            "long name",
            "long emoji name",
            "name cut within a character",
            "long extension",
        ],
    )
    def test_file_name_is_made_safe_for_folders_and_stores(self, given, safe):
        assert safe_name(given) == safe

    @given(st.text(max_size=400))
    def test_file_name_is_safe_for_any_given_text(self, name):
        safe = safe_name(name)
        assert safe
        assert len(safe.encode()) <= NAME_BYTES
        assert not set(safe) & set('/\\<>:"|?*\x00\n')
        assert not safe.startswith(".")
        assert safe_name(safe) == safe


def download(name: str | None, **fields) -> DownloadFile:
    given = {"guid": None, "file_size": 3, "status": "uploaded", "error_message": None, "expires_at": None}
    return DownloadFile(**{**given, "download_url": f"https://f/{name}?signed", **fields, "file_name": name})


def task(*downloads: DownloadFile, files: tuple[str, ...] = ()) -> Task:
    return Task("7", TaskStatus.FINISHED, output=Output(files=files), download_files=downloads)


def test_ready_downloads_are_returned_once_and_after_the_files_of_the_output():
    downloads = (download("a.csv"), download("b.csv"), download("late.csv", status="uploading", download_url=None))
    run = task(*downloads, files=("https://f/a.csv?token=other",))
    assert read_output(run, AUTO, stores_everything).value == {
        "output": None,
        "files": ["https://f/a.csv?token=other", "https://f/b.csv?signed"],
    }
    assert pending_line(run) == (
        "BrowserAct is still preparing 1 of the run's files, so they are not returned. Set output_path to wait for "
        "them and write them to object storage."
    )
    assert pending_line(replace(run, download_files=downloads[:2])) is None


class TestFilesOfARun:
    def test_files_of_a_run_are_its_downloads_followed_by_its_output_files(self):
        found = files_of(task(download("a.pdf"), files=("https://g/x/b%20c.csv?s=1",)))
        assert [(file.name, file.size) for file in found] == [("a.pdf", 3), ("b c.csv", None)]

    def test_file_listed_as_download_and_as_output_counts_once(self):
        [file] = files_of(task(download("a.pdf"), files=("https://f/a.pdf?signed again",)))
        assert file.size == 3

    def test_files_whose_urls_differ_only_in_their_query_are_kept_apart(self):
        urls = ("https://g/get?id=1", "https://g/get?id=2", "https://g/get?id=2")
        found = files_of(task(download("a.pdf", download_url="https://g/get?id=1"), files=urls))
        assert [(file.name, file.url) for file in found] == [("a.pdf", urls[0]), ("get", urls[1])]

    def test_output_file_with_an_invalid_url_is_not_taken_for_a_download_without_a_url(self):
        found = files_of(task(download("a", download_url=None), files=("http://[", "http://]", "https://f/b")))
        assert [file.name for file in found] == ["a", "file", "file (2)", "b"]

    def test_files_of_equal_name_get_the_same_names_in_any_listing_order(self):
        downloads = [
            download("a.csv", guid="g1"),
            download("x/A.csv", guid="g2"),
            download("a.csv", download_url="https://f/1/a.csv?expires=1"),
            download("task.json"),
        ]
        urls = ("https://f/2/a.csv?expires=1", "https://f/output.csv", "https://f/b.csv")
        names = {file.url: file.name for file in files_of(task(*downloads, files=urls))}
        assert names == {file.url: file.name for file in files_of(task(*reversed(downloads), files=urls[::-1]))}
        assert list(names.values()) == [
            "a (g1).csv",
            "A (g2).csv",
            f"a ({source_of('https://f/1/a.csv')}).csv",
            f"task ({source_of('https://f/task.json')}).json",
            f"a ({source_of('https://f/2/a.csv')}).csv",
            f"output ({source_of('https://f/output.csv')}).csv",
            "b.csv",
        ]

    def test_files_of_equal_name_without_id_and_url_are_numbered(self):
        files = (download(name, download_url=None) for name in ("a.pdf", "A.pdf", "x/a.pdf"))
        assert [file.name for file in files_of(task(*files))] == ["a.pdf", "A (2).pdf", "a (3).pdf"]

    def test_file_names_never_equal_a_reserved_name(self):
        names = [file.name for file in files_of(task(*map(download, RESERVED_NAMES)))]
        assert not set(names) & set(RESERVED_NAMES)

    @pytest.mark.parametrize("listed", ["downloads", "output files"])
    def test_names_of_ten_thousand_files_with_one_name_take_little_time(self, listed):
        urls = [f"https://f/{number}/a.csv" for number in range(10_000)]
        run = (
            task(*(download(None, download_url=url) for url in urls)) if listed == "downloads" else task(files=(*urls,))
        )
        best = 9.0
        for _ in range(5):
            began = time.process_time()
            found = files_of(run)
            best = min(best, time.process_time() - began)
        assert len({file.name for file in found}) == len(urls)
        assert best < 1.0

    def test_name_of_combining_characters_takes_little_time(self):
        began = time.process_time()
        safe_name("\u0301\u0316" * 50_000 + ".csv")
        assert time.process_time() - began < 1.0

    def test_numbered_name_that_another_file_has_is_given_once(self):
        names = ["a", "1/a (2)", "2/a", "3/a", "4/a (2)"]
        found = files_of(task(*(download(name, download_url=None) for name in names)))
        assert [file.name for file in found] == ["a", "a (2)", "a (3)", "a (4)", "a (2) (2)"]

    def test_equal_long_names_with_long_guids_stay_short_enough_for_every_store(self):
        name = "x" * 300 + ".csv"
        found = files_of(task(*(download(name, guid=f"{number}{'g' * 300}") for number in range(3))))
        assert len({file.name for file in found}) == 3
        assert all(len(file.name.encode()) <= NAME_BYTES and file.name.endswith(".csv") for file in found)

    def test_only_download_of_its_name_keeps_it(self):
        assert [file.name for file in files_of(task(download("a.pdf", guid="g1")))] == ["a.pdf"]

    def test_file_with_a_reserved_name_is_named_after_its_guid(self):
        [file] = files_of(task(download("TASK.json", guid="g1")))
        assert file.name == "TASK (g1).json"

    def test_number_of_an_equal_name_goes_before_its_last_ending(self):
        names = ["1/a.tar.gz", "1/a", "2/a.tar.gz", "2/a"]
        found = files_of(task(*(download(name, download_url=None) for name in names)))
        assert [file.name for file in found] == ["a.tar.gz", "a", "a.tar (2).gz", "a (2)"]

    def test_run_without_output_has_its_downloads(self):
        assert [file.name for file in files_of(replace(task(download("a.pdf")), output=None))] == ["a.pdf"]

    @pytest.mark.parametrize("url", [None, ""], ids=["missing url", "empty url"])
    def test_file_without_a_download_url_is_pending(self, url):
        [file] = files_of(task(download("a", download_url=url, status="uploading")))
        assert file.pending

    def test_file_with_a_url_is_not_broken_despite_an_error_status(self):
        [file] = files_of(task(download("a", status="expired", error_message="?")))
        assert file.url
        assert file.broken is None

    @pytest.mark.parametrize(
        ("fields", "why"),
        [({"error_message": "too large"}, "too large"), ({"status": "Failed"}, "its status is Failed")],
        ids=["error message", "failed status"],
    )
    def test_file_without_a_url_is_broken_when_browseract_reports_a_failure(self, fields, why):
        [file] = files_of(task(download("a", download_url=None, **fields)))
        assert (file.broken, file.pending, file.url) == (why, False, None)

    def test_repr_of_files_does_not_show_their_urls(self):
        assert "signed" not in repr(files_of(task(download("a"))))

    def test_file_without_a_name_is_named_after_its_url(self):
        [file] = files_of(task(download(None, download_url="https://f/x%2Fy.csv?s")))
        assert file.name == "y.csv"

    def test_file_with_an_invalid_url_gets_a_default_name(self):
        assert files_of(task(files=("http://[",)))[0].name == "file"

    def test_file_without_a_name_and_a_url_gets_a_default_name(self):
        assert files_of(task(download(None, download_url=None)))[0].name == "file"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("a.json", "application/json"), ("a.csv", "text/csv"), ("a.nonsense", "application/octet-stream")],
)
def test_media_type_of_a_file_follows_its_ending(name, media_type):
    assert media_type_of(name) == media_type


def test_value_written_as_json_output_is_read_back_unchanged():
    value = [{"a": [1, 2.5, None, "\u00fc"]}]
    assert read(json.dumps(value), JSON).value == value


class TestTheSourceOfAFile:
    @pytest.mark.parametrize(
        "query",
        [
            "X-Amz-Signature=1&X-Amz-Date=2&X-Amz-Expires=3",
            "X-Goog-Signature=1&X-Goog-Credential=2",
            "Expires=1&Signature=2&Key-Pair-Id=3&Policy=4",
            "sv=1&se=2&sr=b&sp=r&sig=3&spr=https&skoid=4",
            "OSSAccessKeyId=1&Expires=2&Signature=3",
            "token=1&expires=2",
        ],
        ids=["S3", "Google", "CloudFront", "Azure", "OSS", "a token"],
    )
    def test_file_source_ignores_the_signature_in_the_url(self, query):
        assert source_of(f"https://f/a?{query}") == source_of("https://f/a")

    def test_file_source_differs_when_the_query_requests_another_file(self):
        assert source_of("https://f/a?id=1&token=x") != source_of("https://f/a?id=2&token=x")

    def test_invalid_url_has_no_source(self):
        assert source_of("http://[") == ""

    def test_file_source_does_not_show_the_url(self):
        assert "secret" not in source_of("https://f/secret")
