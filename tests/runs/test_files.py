from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_browseract.api.models import DownloadFile, Output, OutputFile, Task, TaskStatus
from airflow_provider_browseract.runs.files import (
    NAME_BYTES,
    RESERVED_NAMES,
    addresses_of,
    files_of,
    media_type_of,
    pending_line,
    safe_name,
    source_of,
)


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
    assert addresses_of(run) == ["https://f/a.csv?token=other", "https://f/b.csv?signed"]
    assert pending_line(run) == (
        "BrowserAct is still preparing 1 of the run's files, so they are not returned. Set output_path to wait for "
        "them and write them to object storage."
    )
    assert pending_line(replace(run, download_files=downloads[:2])) is None


def test_format_that_is_in_preparation_is_missed_only_without_a_value():
    formats = (OutputFile("csv", "r.csv", None, None),)
    assert pending_line(replace(task(), output=Output(formats=formats))) is not None
    assert pending_line(replace(task(), output=Output("{}", formats=formats, is_json=True))) is None


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
            began = time.thread_time()
            found = files_of(run)
            best = min(best, time.thread_time() - began)
        assert len({file.name for file in found}) == len(urls)
        assert best < 1.0

    def test_name_of_combining_characters_takes_little_time(self):
        began = time.thread_time()
        safe_name("\u0301\u0316" * 50_000 + ".csv")
        assert time.thread_time() - began < 5.0

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

    def test_formats_of_an_output_follow_the_downloads_with_name_and_size(self):
        run = task(download("a.pdf", guid="g1"))
        formats = (
            OutputFile("csv", "../r.csv", 9, "https://f/r.csv?s"),
            OutputFile("md", None, None, "https://f/x/r.md?s"),
            OutputFile("../xml", None, None, "http://["),
        )
        found = files_of(replace(run, output=Output(formats=formats)))
        assert [(file.name, file.size) for file in found] == [("a.pdf", 3), ("r.csv", 9), ("r.md", None), ("xml", None)]
        assert "https" not in repr(found)

    def test_formats_of_equal_or_reserved_name_are_named_after_the_format_in_any_order(self):
        names = {"csv": "result", "md": "RESULT", "json": "output.json", "../xml": "result", "txt": "task.json"}
        formats = [OutputFile(kind, name, None, f"https://f/{kind}?token=1") for kind, name in names.items()]
        for listed in (formats, formats[::-1]):
            found = files_of(replace(task(), output=Output(formats=tuple(listed))))
            assert {file.key: file.name for file in found} == {
                "csv": "result (csv)",
                "md": "RESULT (md)",
                "json": "output (json).json",
                "../xml": "result (xml)",
                "txt": "task (txt).json",
            }

    def test_formats_whose_urls_differ_only_in_their_signature_are_all_kept(self):
        formats = tuple(OutputFile(kind, f"r.{kind}", None, f"https://f/get?token={kind}") for kind in ("csv", "md"))
        run = replace(task(download("r", download_url="https://f/get?token=pdf")), output=Output(formats=formats))
        assert [file.name for file in files_of(run)] == ["r", "r.csv", "r.md"]
        assert len(addresses_of(run)) == 3

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
