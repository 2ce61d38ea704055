from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_browseract.api.models import DownloadFile, Output, OutputFile, Task, TaskStatus
from airflow_provider_browseract.results import files
from airflow_provider_browseract.results.files import (
    NAME_BYTES,
    addresses_of,
    files_of,
    place_of,
    returned_files,
    safe_name,
)
from tests.helpers.cases import cases
from tests.helpers.steps import replace


@cases(
    ("relative path", "../../etc/passwd", "passwd"),
    ("backslash path", "..\\..\\boot.ini", "boot.ini"),
    ("parent folder", "..", "file"),
    ("hidden file", ".hidden", "hidden"),
    ("empty", "", "file"),
    ("control characters", "a\x00b\r\nc\x1b.txt", "abc.txt"),
    ("direction override", "\u202egnp.exe", "gnp.exe"),
    ("reserved characters", 'a<b>:"|?*.txt', "a_b______.txt"),
    ("trailing dot and space", "name. ", "name"),
    ("ending X", "a.X", "a.X"),
    ("long middle", "a." + "x" * 300 + ".csv", "a." + "x" * (NAME_BYTES - 6) + ".csv"),
    ("ending of 20", "x" * 300 + "." + "e" * 20, "x" * (NAME_BYTES - 21) + "." + "e" * 20),
    ("ending of 21", "x" * 300 + "." + "e" * 21, "x" * NAME_BYTES),
    ("decomposed accent", "caf\u0065\u0301.txt", "caf\u00e9.txt"),
    ("name cut within a character", "\u767a" * 100, "\u767a" * 66),
    ("long extension", "a." + "x" * 300, "a." + "x" * (NAME_BYTES - 2)),
)
def test_file_name_is_made_safe_for_folders_and_stores(given, safe):
    assert safe_name(given) == safe


@given(st.text(max_size=400))
def test_file_name_is_safe_for_any_given_text(name):
    safe = safe_name(name)
    assert safe
    assert len(safe.encode()) <= NAME_BYTES
    assert not set(safe) & set('/\\<>:"|?*\x00\n')
    assert not safe.startswith(".")
    assert safe_name(safe) == safe


def download(name: str | None, **fields) -> DownloadFile:
    given = {"guid": None, "file_size": 3, "status": "uploaded", "error_message": None, "expires_at": None}
    return DownloadFile(**{**given, "download_url": f"https://f/{name}?signed", **fields, "file_name": name})


def downloads(*names: str | None) -> list[DownloadFile]:
    return [download(name, download_url=None) for name in names]


def task(*downloads: DownloadFile, files: tuple[str, ...] = (), formats: tuple[OutputFile, ...] = ()) -> Task:
    output = Output(files=files, formats=formats)
    return Task(id="7", status=TaskStatus.FINISHED, output=output, download_files=downloads)


def test_ready_downloads_are_returned_once_and_after_the_files_of_the_output():
    downloads = (download("a.csv"), download("b.csv"), download("late.csv", status="uploading", download_url=None))
    # The next task would open the others as files of its own machine.
    local = ("file:///etc/passwd", "javascript:alert(1)", "/etc/passwd")
    run = task(*downloads, files=("https://f/c.csv?token=other", "https://f/a.csv?token=other", *local))
    addresses = ["https://f/c.csv?token=other", "https://f/a.csv?signed", "https://f/b.csv?signed"]
    assert addresses_of(returned_files(run)) == addresses
    assert files.pending_line(run) == (
        "BrowserAct is still preparing 1 of the run's files, so they are not returned. Set output_path to wait for "
        "them and write them to object storage."
    )
    assert files.pending_line(replace(run, download_files=downloads[:2])) is None
    # A format in preparation is not missed beside a value.
    formats = (OutputFile(format="csv", name="r.csv"),)
    assert files.pending_line(replace(task(), output=Output(string="{}", formats=formats, is_json=True))) is None


INVALID_URLS = ("http://[", "http://]", "https://f/b")
BY_GUID, BY_PATH = ("https://g/get?id=1", "https://g/get?id=2"), "https://f/x%2Fy.csv?s"
FORMATS = (
    OutputFile(format="csv", name="../r.csv", size=9, url="https://f/r.csv?s"),
    OutputFile(format="md", url="https://f/x/r.md?s"),
    OutputFile(format="../xml", url="http://["),
)
SIGNED_FORMATS = tuple(
    OutputFile(format=kind, name=f"r.{kind}", url=f"https://f/get?token={kind}") for kind in ("csv", "md")
)
NUMBERED = [name.replace(".", " (2).") for name in files.RESERVED_NAMES]


@cases(
    ("output files, then downloads", task(download("a"), files=("https://g/x/b%20c.csv?s=1",)), ["b c.csv", "a"]),
    ("listed twice", task(download("a.pdf"), files=("https://f/a.pdf?signed again",)), ["a.pdf"]),
    (
        "urls that differ in their query",
        task(download("a.pdf", download_url=BY_GUID[0]), files=(*BY_GUID, BY_GUID[1])),
        ["a.pdf", "get"],
    ),
    ("urls without a file name", task(download("a.pdf", download_url=BY_GUID[0]), files=BY_GUID[1:]), ["get", "a.pdf"]),
    ("downloads with one url", task(*(download(name, download_url=BY_GUID[0]) for name in "ab")), ["a", "b"]),
    ("invalid urls", task(*downloads("a"), files=INVALID_URLS), ["file", "file (2)", "b", "a"]),
    ("equal names", task(*downloads("a.pdf", "A.pdf", "x/a.pdf")), ["a.pdf", "A (2).pdf", "a (3).pdf"]),
    (
        "numbered name that another file has",
        task(*downloads("a", "1/a (2)", "2/a", "3/a", "4/a (2)")),
        ["a", "a (2)", "a (3)", "a (4)", "a (2) (2)"],
    ),
    ("no output", replace(task(download("a.pdf")), output=None), ["a.pdf"]),
    ("no name", task(download(None, download_url=BY_PATH)), ["y.csv"]),
    ("no name and no url", task(*downloads(None)), ["file"]),
    ("formats", task(download("a.pdf", guid="g1"), formats=FORMATS), ["a.pdf", "r.csv", "r.md", "xml"]),
    (
        "urls that differ only in their signature",
        task(download("r", download_url="https://f/get?token=pdf"), formats=SIGNED_FORMATS),
        ["r", "r.csv", "r.md"],
    ),
    ("reserved names", task(*downloads(*files.RESERVED_NAMES)), NUMBERED),
    (
        "equal long names with long ids",
        task(*(download("x" * 300 + ".csv", guid=each * 300) for each in "gh")),
        [f"{'x' * 93} ({each * 100}).csv" for each in "gh"],
    ),
)
def test_files_of_a_run_have_safe_and_different_names_and_no_url_in_their_repr(run, names):
    found = files_of(run)
    assert [file.name for file in found] == names
    assert all(len(name.encode()) <= NAME_BYTES for name in names)
    assert "https" not in repr(found)


def test_files_of_equal_name_get_the_same_names_in_any_listing_order():
    downloads = [
        download("a.csv", guid="g1"),
        download("x/A.csv", guid="g2"),
        download("a.csv", download_url="https://f/1/a.csv?expires=1"),
        download("task.json"),
    ]
    urls = ("https://f/2/a.csv?expires=1", "https://f/output.csv", "https://f/b.csv")
    names = {file.url: file.name for file in files_of(task(*downloads, files=urls))}
    assert names == {file.url: file.name for file in files_of(task(*reversed(downloads), files=urls[::-1]))}
    assert [*names.values()] == [
        f"a ({place_of(urls[0])}).csv",
        f"output ({place_of(urls[1])}).csv",
        "b.csv",
        "a (g1).csv",
        "A (g2).csv",
        f"a ({place_of('https://f/1/a.csv')}).csv",
        f"task ({place_of('https://f/task.json')}).json",
    ]


def test_formats_of_equal_or_reserved_name_are_named_after_the_format_in_any_order():
    names = {"csv": "result", "md": "RESULT", "json": "output.json", "../xml": "result", "txt": "task.json"}
    formats = [OutputFile(format=kind, name=name, url=f"https://f/{kind}?token=1") for kind, name in names.items()]
    safe = ["result (csv)", "RESULT (md)", "output (json).json", "result (xml)", "task (txt).json"]
    for listed in (formats, formats[::-1]):
        found = {file.listed_as: file.name for file in files_of(task(formats=tuple(listed)))}
        assert found == dict(zip(names, safe, strict=True))


@cases(
    ("no url", {"status": "uploading"}, None, True),
    ("empty url", {"download_url": "", "status": "uploading"}, None, True),
    ("error message", {"error_message": "too large"}, "too large", False),
    ("failed status", {"status": "Failed"}, "its status is Failed", False),
    ("url with an error", {"download_url": "https://f/a", "status": "expired", "error_message": "?"}, None, False),
)
def test_file_without_a_url_is_pending_or_broken(fields, broken, pending):
    given = {"download_url": None, **fields}
    [file] = files_of(task(download("a", **given)))
    assert (file.broken, file.pending, file.url) == (broken, pending, given["download_url"] or None)


def test_place_of_a_file_is_a_digest_that_stays_the_same_when_its_url_is_signed_again():
    assert place_of("https://f/secret?id=1&X-Amz-Signature=1") == place_of("https://f/secret?token=2&id=1")
    assert place_of("https://f/secret?id=1") != place_of("https://f/secret?id=2")
    assert place_of("https://f/secret") != place_of("https://g/secret")
    assert "secret" not in place_of("https://f/secret")
    assert place_of("http://[") == place_of("") == ""
