from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_browseract.api.models import DownloadFile, Output, Task, TaskStatus
from airflow_provider_browseract.runs.outputs import (
    NAME_BYTES,
    RESERVED_NAMES,
    FormatError,
    OutputFormat,
    files_of,
    read_output,
    safe_name,
)

JSON, CSV, TEXT = OutputFormat.JSON, OutputFormat.CSV, OutputFormat.TEXT


class TestTextThatMayBeAnything:
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
            ('["\ud800"]', '["?"]'),
            ('{"a": {"__classname__": "b"}}', '{"a": {"__classname__": "b"}}'),
            ('["\u00fc\U0001f600", true, null, 1.5]', ["\u00fc\U0001f600", True, None, 1.5]),
            ('{"a": Infinity}', '{"a": Infinity}'),
            ("[" * 100_000, "[" * 100_000),
            ("[" * 600 + "]" * 600, "[" * 600 + "]" * 600),
            (r'["\u0000"]', r'["\u0000"]'),
            ("a\0b", "a\ufffdb"),
            ("", None),
            (None, None),
        ],
    )
    def test_is_the_value_of_json_and_otherwise_itself(self, text, value):
        assert read_output(Output(string=text)) == value


class TestTextThatIsDeclaredToBeJson:
    def test_is_the_value_that_it_describes(self):
        assert read_output(Output(string='\ufeff[{"a": 1}]'), JSON) == [{"a": 1}]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ('[{"a": 1},\n {"a": ', "Expecting value at line 2, column 8"),
            ("", "the output is empty"),
            (None, "the output is empty"),
            ("[" * 100_000, "RecursionError"),
            ('{"a": Infinity}', "Infinity is no JSON value"),
            ('{"a": 1e999}', "that Airflow cannot store"),
            ("[" * 600 + "]" * 600, "that Airflow cannot store"),
            ("[" + "1" * 5000 + "]", "it cannot be read|cannot store"),
        ],
    )
    def test_and_is_not_is_an_error_that_says_why_and_where(self, text, why):
        with pytest.raises(FormatError, match=why):
            read_output(Output(string=text), JSON)

    def test_may_be_missing_where_the_output_went_into_a_file(self):
        assert read_output(Output(string="", files=("u",)), JSON) == {"output": None, "files": ["u"]}


class TestTextThatIsDeclaredToBeCsv:
    @pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["without BOM", "with BOM"])
    def test_is_its_rows_as_dicts(self, mark):
        text = f'{mark}name,price\r\n"pen, red",1.50\r\n\r\nink,"two\nlines"\r\n'
        assert read_output(Output(string=text), CSV) == [
            {"name": "pen, red", "price": "1.50"},
            {"name": "ink", "price": "two\nlines"},
        ]

    def test_with_one_column_may_have_empty_values(self):
        assert read_output(Output(string="a\n1\n\n2\n"), CSV) == [{"a": "1"}, {"a": None}, {"a": "2"}]

    def test_without_rows_is_an_empty_list(self):
        assert read_output(Output(string="name,price\n"), CSV) == []

    def test_with_a_row_that_is_too_short_has_nothing_where_values_are_missing(self):
        assert read_output(Output(string="a,b\n1\n"), CSV) == [{"a": "1", "b": None}]

    def test_may_have_values_of_any_length(self):
        assert read_output(Output(string=f"a\n{'x' * 1_000_000}\n"), CSV) == [{"a": "x" * 1_000_000}]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "the output is empty"),
            ("a,b\n1,2,3\n", "line 2 has 3 values for 2 names"),
            ("a,a\n1,2\n", "an empty name, or one twice"),
            ("a,\n1,2\n", "an empty name, or one twice"),
            ('a,b\n"1,2\n', "unexpected end of data at line 2"),
        ],
    )
    def test_and_is_not_is_an_error_that_says_why_and_where(self, text, why):
        with pytest.raises(FormatError, match=why):
            read_output(Output(string=text), CSV)


def test_text_that_is_declared_to_be_text_stays_as_it_is():
    assert read_output(Output(string='{"a": 1}'), TEXT) == '{"a": 1}'
    assert read_output(Output(string=""), TEXT) is None


def test_files_come_alongside():
    output = Output(string='["row"]', files=("https://files.example/1",))
    assert read_output(output) == {"output": ["row"], "files": ["https://files.example/1"]}


def test_no_output_is_none():
    assert read_output(None) is None


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
            ("caf\u0065\u0301.txt", "caf\u00e9.txt"),
            ("x" * 300 + ".csv", "x" * (NAME_BYTES - 4) + ".csv"),
            ("\U0001f600" * 100, "\U0001f600" * 50),
            ("a." + "x" * 300, "a." + "x" * (NAME_BYTES - 2)),
        ],
    )
    def test_lead_out_of_no_folder_and_suit_every_store(self, given, safe):
        assert safe_name(given) == safe

    @given(st.text(max_size=400))
    def test_are_safe_whatever_is_given(self, name):
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


class TestFilesOfARun:
    def test_are_those_downloaded_and_then_those_put_out(self):
        found = files_of(task(download("a.pdf"), files=("https://g/x/b%20c.csv?s=1",)))
        assert [(file.name, file.size) for file in found] == [("a.pdf", 3), ("b c.csv", None)]

    def test_count_once_if_they_are_in_both_lists(self):
        [file] = files_of(task(download("a.pdf"), files=("https://f/a.pdf?signed anew",)))
        assert file.size == 3

    def test_are_not_taken_for_one_since_only_what_their_addresses_ask_for_differs(self):
        urls = ("https://g/get?id=1", "https://g/get?id=2", "https://g/get?id=2")
        found = files_of(task(download("a.pdf", download_url="https://g/get?id=1"), files=urls))
        assert [(file.name, file.url) for file in found] == [("a.pdf", urls[0]), ("get", urls[1])]

    def test_of_one_name_keep_theirs_in_whatever_order_they_are_listed(self):
        first, second = download("a.csv", guid="g1"), download("x/A.csv", guid="g2")
        names = {file.url: file.name for file in files_of(task(first, second))}
        assert names == {file.url: file.name for file in files_of(task(second, first))}
        assert sorted(names.values()) == ["A (g2).csv", "a (g1).csv"]

    def test_get_names_that_no_other_has_even_where_capitals_do_not_count(self):
        names = [file.name for file in files_of(task(download("a.pdf"), download("A.pdf"), download("x/a.pdf")))]
        assert names == ["a.pdf", "A (2).pdf", "a (3).pdf"]

    def test_do_not_take_the_names_of_what_is_written_beside_them(self):
        names = [file.name for file in files_of(task(*map(download, RESERVED_NAMES)))]
        assert not set(names) & set(RESERVED_NAMES)

    @pytest.mark.parametrize("url", [None, ""])
    def test_are_pending_without_an_address(self, url):
        [file] = files_of(task(download("a", download_url=url, status="uploading")))
        assert file.pending

    def test_are_tried_if_they_have_an_address_whatever_is_said_of_them(self):
        [file] = files_of(task(download("a", status="expired", error_message="?")))
        assert file.url
        assert file.broken is None

    @pytest.mark.parametrize(
        ("fields", "why"),
        [({"error_message": "too large"}, "too large"), ({"status": "Failed"}, "BrowserAct says Failed")],
    )
    def test_are_broken_if_browseract_says_so_and_gives_no_address(self, fields, why):
        [file] = files_of(task(download("a", download_url=None, **fields)))
        assert (file.broken, file.pending, file.url) == (why, False, None)

    def test_do_not_show_their_addresses(self):
        assert "signed" not in repr(files_of(task(download("a"))))

    def test_without_a_name_are_called_as_in_their_address(self):
        [file] = files_of(task(download(None, download_url="https://f/x%2Fy.csv?s")))
        assert file.name == "y.csv"

    def test_survive_an_address_that_is_none(self):
        assert files_of(task(files=("http://[",)))[0].name == "file"


def test_a_value_goes_through_json_unchanged():
    value = [{"a": [1, 2.5, None, "\u00fc"]}]
    assert read_output(Output(string=json.dumps(value)), JSON) == value
