from __future__ import annotations

import gzip
import json
import logging
import os
import re
import socket
import threading
import time
import tracemalloc
import uuid
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk import ObjectStoragePath
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_browseract.api.models import DownloadFile, Output, OutputFile, Step, Task, TaskStatus
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.exceptions import ServerError, StorageError
from airflow_provider_browseract.results import download as downloads
from airflow_provider_browseract.results import store as results
from airflow_provider_browseract.results.folder import Folder
from airflow_provider_browseract.results.store import ResultStore
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import OutputFormat
from tests.helpers.cases import cases, raising
from tests.helpers.local_airflow import wait_for
from tests.helpers.steps import replace
from tests.results.file_host import CONTENT, OK, Handle, reply

AUTO = OutputFormat.AUTO
SIZE = len(CONTENT)
PAGE = b"<html>log in</html>"
MIB = 1024 * 1024
FAILS = raising(OSError("no space left"))
log = logging.getLogger(__name__)


def wait_after_half(connection) -> None:
    connection.sendall(reply(CONTENT[: SIZE // 2], length=SIZE))
    connection.recv(1)


REPLIES = {
    "waiting": wait_after_half,
    "truncated": reply(CONTENT[: SIZE // 2], length=SIZE),
    "expired": reply(status="403 Forbidden"),
    "down": reply(status="503 Service Unavailable"),
    "page": reply(PAGE, "Content-Type: text/html"),
    "redirect": reply(b"", "Location: /plain/a", status="302 Found"),
    "around": reply(b"", "Location: /around/and/around", status="302 Found"),
    "short": OK + b"\r\n" + CONTENT[:-1],
    "long": OK + b"\r\n" + CONTENT * 10,
    "endless": OK + b"Transfer-Encoding: chunked\r\n\r\n" + (b"%x\r\n%b\r\n" % (SIZE, CONTENT)) * 10,
}


@pytest.fixture
def store(host, tmp_path, short_timings) -> SimpleNamespace:
    """A store in a folder, and how to save a run there, whose addresses without a host are those of the host."""
    root = tmp_path / "results"
    host.replies.update(REPLIES)
    own = Settings(api_key="app-secret", base_url=host.url, read_timeout=5.0)

    def at_host(path):
        return host.url + path if path and path.startswith("/") else path

    def with_host(task):
        if isinstance(task, Exception):
            raise task
        output = task.output or Output()
        files = [replace(each, download_url=at_host(each.download_url)) for each in task.download_files]
        formats = [replace(each, url=at_host(each.url)) for each in output.formats]
        output = replace(output, files=tuple(map(at_host, output.files)), formats=tuple(formats))
        return replace(task, download_files=tuple(files), output=output if task.output else None)

    def make(path=str(root), **settings) -> ResultStore:
        return ResultStore(path, replace(own, **settings), log)

    def save(task, *again, output_format=AUTO, check=lambda: None, made=None, **settings):
        answers = [*again]

        def read_again():
            found = answers.pop(0) if answers else task
            return with_host(found() if callable(found) else found)

        return (made or make(**settings)).save(with_host(task), output_format, read_again, check)

    return SimpleNamespace(root=root, folder=root / "7", save=save, make=make)


def task(*files: DownloadFile, text: str | None = None, urls: tuple[str, ...] = (), **fields) -> Task:
    output = Output(string=text, files=urls)
    return Task(id="7", status=TaskStatus.FINISHED, workflow_id="70", output=output, download_files=files, **fields)


def download(name: str, url: str | None = "/plain/a", **fields) -> DownloadFile:
    given = {"guid": name, "file_size": SIZE, "status": "uploaded", "error_message": None, "expires_at": None}
    return DownloadFile(**{**given, **fields, "file_name": name, "download_url": url})


def of_formats(**urls: str) -> Task:
    formats = tuple(OutputFile(format=kind, name="result", size=SIZE, url=url) for kind, url in urls.items())
    return Task(id="7", status=TaskStatus.FINISHED, output=Output(string="[1]", formats=formats, is_json=True))


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestWrittenResults:
    @cases(
        ("JSON", '[{"a": 1}]', AUTO, "output.json"),
        ("text", "plain", AUTO, "output.txt"),
        ("quoted text as JSON", '"quoted"', OutputFormat.JSON, "output.json"),
        ("CSV", "\ufeffa,b\n1,2\n", OutputFormat.CSV, "output.csv"),
        ("large text", "\u00fc" * 2_000_000, AUTO, "output.txt"),
        ("broken JSON", '{"broken": ', OutputFormat.JSON, "output.txt"),
    )
    def test_output_text_is_written_unchanged_to_file_named_by_its_format(self, store, text, output_format, name):
        kept = store.save(task(text=text), output_format=output_format)
        assert (store.folder / name).read_text(encoding="utf-8") == text
        assert kept.output is not None
        assert (kept.output.path, kept.output.size) == (str(store.folder / name), len(text.encode()))
        assert bool(kept.format_error) is ("broken" in text)

    def test_run_without_text_is_an_error_only_without_files_and_if_a_format_was_declared(self, store):
        kept = store.save(Task(id="7", status=TaskStatus.FINISHED))
        assert (kept.format_error, kept.output) == (None, None)
        assert written(store.folder).keys() == {"task.json"}
        kept = store.save(task(text=""), output_format=OutputFormat.CSV)
        assert (kept.format_error, kept.output) == ("the output is empty", None)
        kept = store.save(task(download("a"), text=""), output_format=OutputFormat.CSV)
        assert (kept.format_error, kept.output) == (None, None)

    def test_output_text_not_encodable_as_utf_8_is_saved_with_replacement(self, store):
        store.save(task(text="a\ud800b"))
        assert (store.folder / "output.txt").read_bytes() == b"a?b"

    def test_task_json_contains_run_facts_without_signed_urls_and_inputs(self, store):
        run = task(
            download("a", "/plain/a?signature=x"),
            text="[1]",
            credit=5,
            input_parameters="password=hunter2",
            steps=(Step(number=1, status="succeed", goal="read", screenshots_url="https://shots/1.png?signature=x"),),
        )
        store.save(run)
        text = (store.folder / "task.json").read_text()
        facts = json.loads(text)
        assert (facts["status"], facts["credits"], facts["steps"][0]["goal"]) == ("finished", 5, "read")
        assert facts["files"][0]["name"] == "a"
        assert facts["missing"] == {}
        assert not any(secret in text for secret in ("signature", "hunter2"))

    def test_files_with_hostile_names_are_written_inside_the_run_folder(self, store):
        names = ["../../out", "/etc/passwd", "a\x00b", "x" * 300, "task.json", ".."]
        kept = store.save(task(*map(download, names), download("x" * 300, guid="1" * 200)))
        assert len(kept.files) == len(names) + 1
        assert len(written(store.folder)) == len(names) + 2
        assert [path.name for path in store.root.iterdir()] == ["7"]
        assert json.loads((store.folder / "task.json").read_text())["status"] == "finished"

    @pytest.mark.parametrize("task_id", ["../../escaped", "a/b", "..", ".hidden", "a\\b"])
    def test_task_id_invalid_as_folder_name_raises_and_writes_nothing(self, store, task_id):
        with pytest.raises(StorageError, match="cannot be the name of a folder"):
            store.save(replace(task(text="x"), id=task_id))
        assert not list(store.root.parent.rglob("task.json"))

    def test_large_file_is_saved_without_loading_it_whole_into_memory(self, store, host):
        host.replies["large"] = reply(gzip.compress(bytes(50 * MIB)), "Content-Encoding: gzip")
        tracemalloc.start()
        try:
            kept = store.save(task(download("a", "/large/a", file_size=50 * MIB)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept.files[0].size == 50 * MIB
        assert peak < 16 * MIB


class TestRepeatedSave:
    def test_existing_file_of_another_size_is_downloaded_again(self, store):
        store.folder.mkdir(parents=True)
        (store.folder / "a").write_bytes(b"something else")
        store.save(task(download("a")))
        assert (store.folder / "a").read_bytes() == CONTENT

    @pytest.mark.parametrize("pausing", [False, True], ids=["during downloads", "in a pause before a retry"])
    def test_interrupted_save_ends_its_downloads_and_leaves_no_partial_file(self, store, host, monkeypatch, pausing):
        def check() -> None:
            if host.paths if pausing else any(store.folder.iterdir()):
                raise KeyboardInterrupt

        monkeypatch.setattr(timings, "STORE_RETRY_PAUSE", 60.0)
        if pausing:
            host.replies["waiting"] = REPLIES["down"]
        before = {*threading.enumerate()}
        with pytest.raises(KeyboardInterrupt):
            store.save(task(download("a", "/waiting/a", file_size=None), download("b")), check=check, read_timeout=1.0)

        def ended():
            return not any(thread.name == downloads.THREAD for thread in {*threading.enumerate()} - before)

        wait_for("The end of all downloads", ended, timeout=120, every=0.01)
        assert set(host.paths) <= {"/waiting/a"}
        assert written(store.folder) == {}


def test_limit_is_shared_by_all_files_of_a_run_and_does_not_count_what_was_not_kept(store, monkeypatch):
    monkeypatch.setattr(results, "MAX_RUN_SIZE", SIZE * 3 // 2)
    kept = store.save(task(download("a", "/truncated/a"), download("b"), download("c")))
    assert [file.name for file in kept.files] == ["b"]
    assert "closed the connection" in kept.missing["a"]
    assert "all files of the run together" in kept.missing["c"]


@pytest.mark.parametrize("size", [SIZE, None], ids=["size announced", "size unknown"])
class TestNoFile:
    def test_folder_with_the_name_of_a_file_is_reported_and_left_empty(self, store, size):
        (store.folder / "a").mkdir(parents=True)
        assert "IsADirectoryError" in store.save(task(download("a", file_size=size))).missing["a"]
        assert list((store.folder / "a").iterdir()) == []

    @pytest.mark.parametrize("content", [b"of another file", CONTENT], ids=["other size", "same size"])
    def test_link_with_the_name_of_a_file_is_replaced_by_the_file(self, store, size, content):
        store.folder.mkdir(parents=True)
        (store.root / "other").write_bytes(content)
        (store.folder / "a").symlink_to(store.root / "other")
        kept = store.save(task(download("a", file_size=size)))
        assert [(file.name, file.size) for file in kept.files] == [("a", SIZE)]
        assert not (store.folder / "a").is_symlink()
        assert (store.folder / "a").read_bytes() == CONTENT
        assert (store.root / "other").read_bytes() == content


BODY = b"0123456789"
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n"
CHUNKED = HEADERS + b"Transfer-Encoding: chunked\r\n\r\n"
GZIPPED = gzip.compress(BODY)
RESPONSES = {
    "chunks": (CHUNKED, b"6;a=b\r\n012345\r\n4\r\n6789\r\n0\r\nX: 1\r\n\r\n"),
    "length": (HEADERS + b"Content-Length: 10\r\n\r\n", BODY),
    "gzip": (HEADERS + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(GZIPPED), GZIPPED),
    "end of connection": (HEADERS + b"\r\n", BODY),
}
STORES = {"local": "{tmp_path}", "memory": "memory://results", "S3": "s3://local_s3@results"}


@pytest.mark.parametrize("size", [len(BODY), None], ids=["size announced", "size unknown"])
@cases("where", STORES)
@cases(("headers", "body"), RESPONSES)
def test_response_that_breaks_off_at_any_byte_is_never_a_complete_file(
    store, listen, monkeypatch, request, tmp_path, headers, body, where, size
):
    if where.startswith("s3"):
        request.getfixturevalue("s3")
    if where.startswith("memory"):
        monkeypatch.setattr(Folder, "fs", MemoryFileSystem())

    def respond(connection: socket.socket) -> None:
        asked = connection.recv(65536)
        connection.sendall((headers + body)[: int(asked.split()[1][1:])])

    monkeypatch.setattr(results, "STORE_ATTEMPTS", 1)
    url = f"http://127.0.0.1:{listen(respond)}"
    whole = len(headers + body)
    files = [download(str(end), f"{url}/{end}", file_size=size) for end in range(whole + 1)]
    path = f"{where.format(tmp_path=tmp_path)}/{uuid.uuid4().hex}"
    kept = store.save(task(*files), made=store.make(path, base_url=url))
    folder = Folder(kept.path)
    assert {folder.fs.cat_file(folder._path_of(file.name)) for file in kept.files} <= {BODY}
    # If only the end of the connection shows the end of the content, nothing shows that it is complete.
    unknown = size is None and headers == HEADERS + b"\r\n"
    assert (str(whole) in {file.name for file in kept.files}) is not unknown
    assert not kept.lost


def test_file_of_unknown_size_is_fetched_again_on_a_store_where_it_may_be_a_part(store, monkeypatch):
    monkeypatch.setattr(Folder, "fs", MemoryFileSystem())
    path = f"memory://results/{uuid.uuid4().hex}"
    run = task(download("a", file_size=None))
    part = Folder(f"{path}/{run.id}")
    part.make()
    part.fs.pipe_file(part._path_of("a"), CONTENT[:100])
    [kept] = store.save(run, made=store.make(path)).files
    assert (kept.size, part.fs.cat_file(part._path_of("a"))) == (SIZE, CONTENT)


def test_connection_of_a_store_is_read_in_the_main_thread(store, monkeypatch):
    threads = []

    def filesystem(_):
        threads.append(threading.current_thread())
        return MemoryFileSystem()

    monkeypatch.setattr(ObjectStoragePath, "fs", property(filesystem))
    assert len(store.save(task(download("a")), made=store.make("s3://aws_default@bucket/x")).files) == 1
    assert {*threads} == {threading.main_thread()}


def drips(begin: bytes, slow: bytes, connection: socket.socket) -> None:
    """Send bytes one by one until the other side closes the connection, and at most for 10 seconds."""
    connection.sendall(begin)
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        connection.sendall(slow)
        time.sleep(0.05)


SLOW: dict[str, Handle] = {
    "silence": lambda connection: connection.recv(1),
    "header": partial(drips, OK + b"X-Header: ", b"x"),
    "headers": partial(drips, OK, b"X: 1\r\n"),
    "body": partial(drips, OK + b"Content-Length: %d\r\n\r\n" % SIZE, b"x"),
    "chunks": partial(drips, CHUNKED, b"1\r\nx\r\n"),
    "redirects": partial(drips, b"HTTP/1.1 302 Found\r\nLocation: /slow\r\n", b"X: 1\r\n"),
}


@cases("handle", SLOW)
def test_one_time_limit_is_for_all_files_and_what_is_stored_stays(store, host, monkeypatch, handle):
    monkeypatch.setattr(timings, "FILES_LIMIT", 0.6)
    host.replies["slow"] = handle
    began = time.monotonic()
    kept = store.save(task(download("a"), *(download(f"{each}", f"/slow/{each}") for each in range(40))))
    # A limit for each file would take 24 seconds.
    assert 0.6 <= time.monotonic() - began < 12
    assert [file.name for file in kept.files] == ["a"]
    assert {*kept.missing.values()} == {"all files together took longer than 0.6 seconds"}
    assert (len(kept.missing), kept.lost) == (40, False)
    # The next try fetches only the rest.
    host.replies.clear()
    host.paths.clear()
    assert len(store.save(task(download("a"), download("0", "/slow/0"))).files) == 2
    assert "/plain/a" not in host.paths


LIMIT = SIZE + 10
EXCEEDS = "^it exceeds 256 MiB, or all files of the run together 5 GiB$"
TOO_LARGE = download("bad", "/long/a", file_size=LIMIT + 1)
NOT_UPLOADED = {"status": "failed", "error_message": "404 at https://shop.example/a?signature=x"}
LOST, MAY_COME = True, False
UNFETCHABLE = {
    "web page": (download("bad", "/page/a"), "its host responded with a web page", MAY_COME),
    "web page of unknown size": (download("bad", "/page/a", file_size=None), "with a web page", MAY_COME),
    "short": (download("bad", "/short/a"), f"closed the connection after {SIZE - 1} bytes, too early$", MAY_COME),
    "size unknown": (download("bad", "/short/a", file_size=None), "^neither BrowserAct nor its host", MAY_COME),
    "size differs": (download("bad", file_size=7), f"announced {SIZE} bytes, but BrowserAct announced 7$", LOST),
    "longer than announced": (download("bad", "/long/a"), f"larger than the {SIZE} bytes that were announced", LOST),
    "too large": (download("bad", "/endless/a", file_size=None), EXCEEDS, LOST),
    "announced as too large": (TOO_LARGE, EXCEEDS, LOST),
    "redirect loop": (download("bad", "/around/a"), "redirected more than 5 times", LOST),
    "HTTP 503": (download("bad", "/down/a"), "^its host responded with HTTP 503$", MAY_COME),
    "unreachable": (download("bad", "http://files.invalid/a?signature=x"), "^its host cannot be [^/:?]*$", MAY_COME),
    "no http address": (download("bad", "http://["), "its address is not an http or https address", LOST),
    "failed upload": (download("bad", None, **NOT_UPLOADED), r"^404 at \(an address\)$", LOST),
    "late": (download("bad", None), "did not prepare it within files_timeout=0.05 seconds", MAY_COME),
}


@cases(("bad", "why", "lost"), UNFETCHABLE)
def test_unfetchable_file_is_reported_with_its_reason_while_others_are_kept(store, monkeypatch, bad, why, lost):
    monkeypatch.setattr(downloads, "MAX_FILE_SIZE", LIMIT)
    kept = store.save(task(bad, download("good"), text="[1]"), files_timeout=0.05)
    assert list(kept.missing) == ["bad"]
    assert re.search(why, kept.missing["bad"])
    assert kept.lost is lost
    assert written(store.folder).keys() == {"good", "output.json", "task.json"}
    assert json.loads((store.folder / "task.json").read_text())["missing"] == kept.missing


class TestFileDownload:
    @cases(
        ("HTTP 503", REPLIES["down"]),
        ("HTTP 408", reply(status="408 Request Timeout")),
        ("HTTP 429", reply(status="429 Too Many Requests")),
        ("closed", b""),
        ("broken off", REPLIES["truncated"]),
    )
    def test_file_host_failing_twice_is_retried_until_it_succeeds(self, store, host, failure):
        host.replies["plain"] = [failure] * 2
        assert not store.save(task(download("a"))).missing
        assert len(host.paths) == 3

    def test_web_page_of_the_announced_size_is_saved_as_file(self, store):
        kept = store.save(task(download("a", "/page/a", file_size=len(PAGE))))
        assert [file.size for file in kept.files] == [len(PAGE)]


A, LATE, EXPIRED = (download("a", url) for url in ("/plain/a", None, "/expired/a"))
B, WITHOUT_ID = download("b", "/plain/b", guid=None), download("a", guid=None)
OTHER_IDS = [download("a", url, guid="g1") for url in (None, "/plain/a")]
RENAMED = [download("a", url, guid=None) for url in (None, "/plain/b")]
DOWN = ServerError("down", http_status=503)
GONE, HTTP_403 = {"a": "BrowserAct no longer lists it"}, {"a": "its host responded with HTTP 403"}
READ_AGAIN = {
    "in preparation": ([task(LATE), task(LATE), task(A)], "plain/a", {}),
    "failed poll": ([task(LATE), DOWN, task(A)], "plain/a", {}),
    "ready in one list only": ([task(each, urls=("/plain/a",)) for each in OTHER_IDS], "plain/a plain/a", {}),
    "no id, and the name changes": ([task(WITHOUT_ID, each) for each in RENAMED], "plain/a plain/b", {}),
    "no longer listed": ([task(B, LATE), task(B)], "plain/b", GONE),
    "expired": ([task(EXPIRED, B), task(A, B)], "expired/a plain/a plain/b", {}),
    "expired for good": ([task(EXPIRED, B)], "expired/a expired/a plain/b", HTTP_403),
    "expired and down": ([task(EXPIRED, B), DOWN], "expired/a expired/a plain/b", HTTP_403),
    # The formats are the keys of an object, so their order can change.
    "expired format": (
        [of_formats(csv="/expired/a", md="/plain/b"), of_formats(md="/plain/new", csv="/plain/a")],
        "expired/a plain/a plain/b",
        {},
    ),
}


@cases(("listings", "fetched", "missing"), READ_AGAIN)
def test_run_is_read_again_for_files_in_preparation_and_for_expired_links(store, host, listings, fetched, missing):
    kept = store.save(*listings)
    assert kept.missing == missing
    assert not kept.lost
    # No file that was ready is fetched again.
    assert sorted(host.paths) == [f"/{path}" for path in fetched.split()]
    assert written(store.folder).keys() - {"output.json"} == {*(file.name for file in kept.files), "task.json"}


def test_file_in_preparation_does_not_delay_other_files(store):
    seen = []

    def look() -> Task:
        seen.append(set(written(store.folder)))
        return task(download("a"), download("good"))

    kept = store.save(task(download("a", None), download("good")), look)
    assert seen == [{"good"}]
    assert len(kept.files) == 2


def test_save_to_full_store_raises_storage_error_naming_the_folder(store, monkeypatch):
    monkeypatch.setattr("builtins.open", FAILS)
    with pytest.raises(StorageError, match=r"results/7: OSError: no space left"):
        store.save(task(text="[1]"))


def test_store_error_for_one_file_leaves_the_other_files_saved_and_the_facts_come_last(store, monkeypatch):
    order: list[str] = []

    def replace_file(part, path):
        order.append(Path(path).name)
        return FAILS() if path.endswith("/bad") else Path(part).rename(path)

    monkeypatch.setattr(os, "replace", replace_file)
    kept = store.save(task(download("bad"), download("good"), text="[1]"))
    assert [file.name for file in kept.files] == ["good"]
    assert kept.missing == {"bad": "OSError: no space left"}
    assert written(store.folder).keys() == {"good", "output.json", "task.json"}
    assert order == ["output.json", "bad", "good", "task.json"]
