"""Write results to object storage, here a folder, from hosts with all kinds of responses."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import logging
import os
import re
import socket
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from airflow_provider_browseract.api.errors import ServerError
from airflow_provider_browseract.api.models import DownloadFile, Output, OutputFile, Step, Task, TaskStatus
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.outcome import StorageError
from airflow_provider_browseract.runs.outputs import OutputFormat
from airflow_provider_browseract.worker import download as downloading
from airflow_provider_browseract.worker import results
from airflow_provider_browseract.worker.download import Allowance, RunSizeError
from airflow_provider_browseract.worker.results import ResultStore
from tests.e2e.local_airflow import wait_for
from tests.served import listening, served

AUTO = OutputFormat.AUTO
CONTENT = bytes(range(256)) * 40
log = logging.getLogger(__name__)


class Host:
    """A host of files. The test defines its response to each path."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.app = FastAPI()
        self.failures: dict[str, int] = {}
        self.failure = 503
        self.sent = 0
        self.app.add_api_route("/{path:path}", self._answer)

    async def _answer(self, path: str, request: Request) -> Response:
        self.requests.append((path, dict(request.headers)))
        kind = path.partition("/")[0]
        if self.failures.get(kind, 0) > 0:
            self.failures[kind] -= 1
            return Response(status_code=self.failure)
        if kind == "waiting":
            return StreamingResponse(_waiting())
        if kind == "expired":
            return Response(status_code=403)
        if kind == "page":
            return Response(b"<html>log in</html>", media_type="text/html")
        if kind == "redirect":
            return RedirectResponse(f"/plain/{path.partition('/')[2]}")
        if kind == "private":
            return RedirectResponse("http://169.254.169.254/latest/meta-data")
        if kind == "around":
            return RedirectResponse("/around/and/around")
        if kind == "truncated":
            return StreamingResponse(_pieces(len(CONTENT) // 2), headers={"Content-Length": str(len(CONTENT))})
        if kind == "gzip":
            return Response(gzip.compress(CONTENT), headers={"Content-Encoding": "gzip"})
        if kind == "flood":
            headers = {"Location": f"/plain/{path.partition('/')[2]}"}
            return StreamingResponse(self._counted(_pieces(10**9)), 302, headers)
        if kind == "named":
            return Response(path.split("/")[1].encode())
        if kind == "large":
            return StreamingResponse(_pieces(50 * 1024 * 1024))
        if kind == "endless":
            return StreamingResponse(_pieces(10_000 * len(CONTENT)))
        return Response(CONTENT, media_type="application/octet-stream")

    async def _counted(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self.sent += len(piece)
            yield piece


async def _waiting() -> AsyncIterator[bytes]:
    yield CONTENT
    await asyncio.sleep(20)


async def _pieces(length: int) -> AsyncIterator[bytes]:
    sent = 0
    while sent < length:
        piece = CONTENT[: min(len(CONTENT), length - sent)]
        sent += len(piece)
        yield piece
        # Shows the server that the client is gone.
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def served_host() -> Iterator[tuple[Host, int]]:
    host = Host()
    with served(host.app) as port:
        yield host, port


@pytest.fixture
def host(served_host) -> Host:
    served_host[0].requests.clear()
    served_host[0].failures.clear()
    return served_host[0]


@pytest.fixture
def store(host, served_host, tmp_path, short_timings) -> SimpleNamespace:
    """A store in a folder, and how to save a run there."""
    root = tmp_path / "results"
    settings = ClientSettings("app-secret", f"http://127.0.0.1:{served_host[1]}", read_timeout=5.0)

    def make(output_path=str(root), settings=settings) -> ResultStore:
        return ResultStore(output_path, settings, log)

    def save(task: Task, output_format=AUTO, again=None, **made):
        answers = list(again or ())
        return make(**made).save(task, output_format, lambda: answers.pop(0) if answers else task)

    def url(path: str) -> str:
        return f"http://127.0.0.1:{served_host[1]}/{path}"

    return SimpleNamespace(root=root, folder=root / "7", save=save, url=url, make=make, settings=settings)


def task(*files: DownloadFile, text: str | None = None, urls: tuple[str, ...] = (), **fields) -> Task:
    output = Output(text, urls)
    return Task("7", TaskStatus.FINISHED, "70", output=output, download_files=files, **fields)


def download(name: str, url: str | None, **fields) -> DownloadFile:
    given = {"guid": name, "file_size": len(CONTENT), "status": "uploaded", "error_message": None, "expires_at": None}
    return DownloadFile(**{**given, **fields, "file_name": name, "download_url": url})


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestWrittenResults:
    @pytest.mark.parametrize(
        ("text", "output_format", "name"),
        [
            ('[{"a": 1}]', AUTO, "output.json"),
            ("plain", AUTO, "output.txt"),
            ('"quoted"', AUTO, "output.txt"),
            ('"quoted"', OutputFormat.JSON, "output.json"),
            ("\ufeffa,b\n1,2\n", OutputFormat.CSV, "output.csv"),
            ('{"a": 1}', OutputFormat.TEXT, "output.txt"),
            ("\u00fc" * 2_000_000, AUTO, "output.txt"),
        ],
        ids=["JSON", "text", "quoted text", "quoted text as JSON", "CSV", "JSON as text", "large text"],
    )
    def test_output_text_is_written_unchanged_to_file_named_by_its_format(self, store, text, output_format, name):
        kept = store.save(task(text=text), output_format)
        assert (store.folder / name).read_text(encoding="utf-8") == text
        assert kept.output is not None
        assert (kept.output.path, kept.output.size) == (str(store.folder / name), len(text.encode()))

    def test_manifest_lists_saved_files_with_path_size_and_media_type(self, store, host):
        kept = store.save(task(download("a.pdf", store.url("plain/a")), urls=(store.url("plain/b.csv"),)))
        assert kept.manifest() == {
            "path": str(store.folder),
            "task": str(store.folder / "task.json"),
            "output": None,
            "files": [
                {
                    "name": name,
                    "path": str(store.folder / name),
                    "size": len(CONTENT),
                    "media_type": media_type,
                }
                for name, media_type in (("a.pdf", "application/pdf"), ("b.csv", "text/csv"))
            ],
        }
        assert written(store.folder).keys() == {"a.pdf", "b.csv", "task.json"}
        assert (store.folder / "a.pdf").read_bytes() == CONTENT

    def test_task_json_contains_run_facts_without_signed_urls_and_inputs(self, store, host):
        run = task(
            download("a", store.url("plain/a?signature=x")),
            text="[1]",
            credit=5,
            input_parameters="password=hunter2",
            steps=(Step(1, "succeed", "read", None, "https://shots/1.png?signature=x"),),
        )
        store.save(run)
        text = (store.folder / "task.json").read_text()
        facts = json.loads(text)
        assert (facts["status"], facts["credits"], facts["steps"][0]["goal"]) == ("finished", 5, "read")
        assert facts["files"][0]["name"] == "a"
        assert facts["missing"] == {}
        assert not any(secret in text for secret in ("signature", "hunter2"))

    def test_run_without_output_writes_only_task_json(self, store):
        assert store.save(Task("7", TaskStatus.FINISHED)).output is None
        assert written(store.folder).keys() == {"task.json"}

    def test_file_request_sends_neither_api_key_nor_netrc_credentials(self, store, host, tmp_path, monkeypatch):
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login ada password hunter2")
        monkeypatch.setenv("NETRC", str(netrc))
        store.save(task(download("a", store.url("redirect/a"))))
        assert [path for path, _ in host.requests] == ["redirect/a", "plain/a"]
        assert not any("authorization" in headers for _, headers in host.requests)

    def test_files_with_hostile_names_are_written_inside_the_run_folder(self, store, host):
        names = ["../../out", "/etc/passwd", "a\x00b", "x" * 300, "task.json", ".."]
        kept = store.save(task(*(download(name, store.url("plain/a")) for name in names)))
        assert len(kept.files) == len(names)
        assert len(written(store.folder)) == len(names) + 1
        assert [path.name for path in store.root.iterdir()] == ["7"]
        assert json.loads((store.folder / "task.json").read_text())["status"] == "finished"

    def test_files_of_one_long_name_with_long_guids_are_saved(self, store):
        files = [download("x" * 300 + ".csv", store.url("plain/a"), guid=f"{n}" * 200) for n in range(2)]
        kept = store.save(task(*files))
        assert not kept.missing
        assert len({file.name for file in kept.files}) == 2

    @pytest.mark.parametrize(
        ("text", "number", "line"),
        [
            ("x", 0, "1 file (1 byte)"),
            ("x" * 582, 0, "1 file (582 bytes)"),
            (None, 0, "0 files (0 bytes)"),
            (None, 1, "1 file (10.0 KiB)"),
            ("x" * 3 * 2**19, 2, "3 files (1.5 MiB)"),
        ],
    )
    def test_number_and_size_of_written_files_are_easy_to_read(self, store, caplog, text, number, line):
        files = [download(f"{n}.bin", store.url("plain/a")) for n in range(number)]
        with caplog.at_level(logging.INFO):
            kept = store.save(task(*files, text=text))
        assert kept.written == line
        assert [message for message in caplog.messages if "file" in message] == [
            f"Writing {number} file{'s' if number > 1 else ''} to {store.folder}."
        ] * bool(number)


def test_large_file_is_saved_without_loading_it_whole_into_memory(store, host):
    size = 50 * 1024 * 1024
    tracemalloc.start()
    try:
        kept = store.save(task(download("a", store.url("large/a"), file_size=size)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.files[0].size == size
    assert peak < 16 * 1024 * 1024


def test_file_with_fewer_bytes_than_browseract_announced_is_reported_as_missing(store):
    # The host itself announces no size.
    settings = replace(store.settings, max_file_size=100 * 1024 * 1024)
    kept = store.save(task(download("a", store.url("large/a"), file_size=50 * 1024 * 1024 + 1)), settings=settings)
    assert kept.missing == {"a": "only 52428800 of its 52428801 bytes arrived"}
    assert not kept.lost


class TestUnexpectedOutputText:
    def test_output_that_is_not_the_declared_json_is_kept_as_text_and_reported(self, store):
        kept = store.save(task(text='{"broken": '), OutputFormat.JSON)
        assert kept.format_error is not None
        assert (store.folder / "output.txt").read_text() == '{"broken": '

    def test_empty_csv_output_reports_format_error_and_saves_no_output(self, store):
        kept = store.save(task(text=""), OutputFormat.CSV)
        assert (kept.format_error, kept.output) == ("the output is empty", None)

    def test_output_text_not_encodable_as_utf_8_is_saved_with_replacement(self, store):
        store.save(task(text="a\ud800b"))
        assert (store.folder / "output.txt").read_bytes() == b"a?b"


class TestRepeatedSave:
    def test_complete_file_is_not_downloaded_again_by_next_save(self, store, host):
        run = task(download("a", store.url("plain/a")), urls=(store.url("plain/b"),))
        first = store.save(run)
        host.requests.clear()
        assert store.save(run).manifest() == first.manifest()
        assert host.requests == []

    def test_existing_file_of_another_size_is_downloaded_again(self, store, host):
        store.folder.mkdir(parents=True)
        (store.folder / "a").write_bytes(b"something else")
        store.save(task(download("a", store.url("plain/a"))))
        assert (store.folder / "a").read_bytes() == CONTENT

    def test_interrupted_save_ends_its_downloads_and_leaves_no_partial_file(self, store, host):
        def check() -> None:
            if any(store.folder.iterdir()):
                raise KeyboardInterrupt

        # Four files are fetched at once, so the fifth is not begun.
        files = [download(name, store.url("waiting/a"), file_size=None) for name in "abcd"]
        run = task(*files, download("e", store.url("plain/e")))
        with pytest.raises(KeyboardInterrupt):
            store.make().save(run, AUTO, lambda: run, check)
        assert {path for path, _ in host.requests} == {"waiting/a"}
        wait_for("The end of all downloads", lambda: not downloads_under_way(), timeout=10, every=0.01)
        assert written(store.folder) == {}

    def test_interrupted_save_ends_the_pause_before_a_retry(self, store, host, monkeypatch):
        def check() -> None:
            if host.requests:
                raise KeyboardInterrupt

        monkeypatch.setattr(timings, "STORE_RETRY_PAUSE", 60.0)
        host.failures["plain"] = 99
        run = task(*(download(name, store.url("plain/a")) for name in "abcd"))
        with pytest.raises(KeyboardInterrupt):
            store.make().save(run, AUTO, lambda: run, check)
        wait_for("The end of all downloads", lambda: not downloads_under_way(), timeout=10, every=0.01)

    def test_files_of_equal_name_are_not_mixed_up_when_a_retry_lists_them_in_another_order(self, store, host):
        first, second = store.url("named/one/a.csv"), store.url("named/two/a.csv")
        host.failures["named"] = 0
        kept = store.save(task(urls=(first, second)))
        contents = {file.name: (store.folder / file.name).read_bytes() for file in kept.files}
        assert list(contents.values()) == [b"one", b"two"]
        lost, _ = contents
        (store.folder / lost).unlink()
        host.requests.clear()
        again = store.save(task(urls=(second, first)))
        assert {file.name: (store.folder / file.name).read_bytes() for file in again.files} == contents
        assert [path for path, _ in host.requests] == ["named/one/a.csv"]


def downloads_under_way() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("browseract-file")]


class TestSizeLimits:
    def test_file_over_max_file_size_is_missing_while_others_are_kept(self, store):
        settings = replace(store.settings, max_file_size=len(CONTENT))
        files = [download("bad", store.url("endless/a"), file_size=None), download("good", store.url("plain/b"))]
        kept = store.save(task(*files), settings=settings)
        assert kept.missing == {"bad": f"it exceeds max_file_size={len(CONTENT)} bytes"}
        assert kept.lost

    def test_max_file_size_is_compared_with_the_announced_size(self, store, host):
        settings = replace(store.settings, max_file_size=len(CONTENT) - 1)
        kept = store.save(task(download("bad", store.url("plain/a"))), settings=settings)
        assert kept.missing == {"bad": f"it is {len(CONTENT)} bytes, which exceeds max_file_size={len(CONTENT) - 1}"}

    def test_max_run_size_is_shared_by_all_files_of_a_run(self, store):
        settings = replace(store.settings, max_run_size=len(CONTENT) + 1)
        kept = store.save(task(*[download(name, store.url("plain/a")) for name in "ab"]), settings=settings)
        assert len(kept.missing) == 1
        assert "max_run_size" in next(iter(kept.missing.values()))

    def test_files_that_refused_each_other_are_fetched_again_one_by_one(self, store, monkeypatch):
        both, calls, take = threading.Barrier(2, timeout=60), itertools.count(), Allowance.take

        def refuse_both_at_first(allowance, size):
            if next(calls) >= 2:
                return take(allowance, size)
            with suppress(RunSizeError):
                take(allowance, size)
            both.wait()
            raise RunSizeError("max_run_size")

        monkeypatch.setattr(Allowance, "take", refuse_both_at_first)
        settings = replace(store.settings, max_run_size=len(CONTENT) + 1)
        kept = store.save(task(*[download(name, store.url("plain/a")) for name in "ab"]), settings=settings)
        assert len(kept.files) == len(kept.missing) == 1

    def test_max_run_size_does_not_count_deleted_partial_file(self, store):
        settings = replace(store.settings, max_run_size=len(CONTENT) * 3 // 2)
        files = [download(name, store.url(f"{kind}/{name}")) for kind, name in [("truncated", "a"), ("plain", "b")]]
        kept = store.save(task(*files), settings=settings)
        assert [file.name for file in kept.files] == ["b"]
        assert "max_run_size" not in str(kept.missing)


@pytest.mark.parametrize("task_id", ["../../escaped", "a/b", "..", ".hidden", "a\\b"])
def test_task_id_invalid_as_folder_name_raises_and_writes_nothing(store, task_id):
    with pytest.raises(StorageError, match="cannot be the name of a folder"):
        store.save(replace(task(text="x"), id=task_id))
    assert not list(store.root.parent.rglob("task.json"))


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["size announced", "size unknown"])
class TestNoFile:
    def test_folder_with_the_name_of_a_file_is_reported_and_left_empty(self, store, size):
        (store.folder / "a").mkdir(parents=True)
        kept = store.save(task(download("a", store.url("plain/a"), file_size=size)))
        assert "IsADirectoryError" in kept.missing["a"]
        assert list((store.folder / "a").iterdir()) == []

    @pytest.mark.parametrize("content", [b"of another file", CONTENT], ids=["other size", "same size"])
    def test_link_with_the_name_of_a_file_is_replaced_by_the_file(self, store, size, content):
        store.folder.mkdir(parents=True)
        (store.root / "other").write_bytes(content)
        (store.folder / "a").symlink_to(store.root / "other")
        kept = store.save(task(download("a", store.url("plain/a"), file_size=size)))
        assert [(file.name, file.size) for file in kept.files] == [("a", len(CONTENT))]
        assert not (store.folder / "a").is_symlink()
        assert (store.folder / "a").read_bytes() == CONTENT
        assert (store.root / "other").read_bytes() == content


BODY = b"0123456789"
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n"
RESPONSES = {
    "chunks": (
        HEADERS + b"Transfer-Encoding: chunked\r\n\r\n",
        b"06;a=b\r\n012345\r\n04\r\n6789\r\n000\r\nX: 1\r\n\r\n",
    ),
    "length": (HEADERS + b"Content-Length: 10\r\n\r\n", BODY),
    "end of connection": (HEADERS + b"\r\n", BODY),
}


@pytest.mark.parametrize("size", [len(BODY), None], ids=["size announced", "size unknown"])
@pytest.mark.parametrize(("headers", "body"), RESPONSES.values(), ids=RESPONSES)
def test_response_that_breaks_off_at_any_byte_is_never_a_complete_file(store, monkeypatch, headers, body, size):
    def respond(connection: socket.socket) -> None:
        request = connection.recv(65536)
        connection.sendall((headers + body)[: int(request.split()[1][1:])])

    monkeypatch.setattr(results, "STORE_ATTEMPTS", 1)
    with listening() as listen:
        url = f"http://127.0.0.1:{listen(respond)}"
        files = [download(str(end), f"{url}/{end}", file_size=size) for end in range(len(headers + body) + 1)]
        kept = store.save(task(*files), settings=replace(store.settings, base_url=url))
    # Without a size, nothing shows that a body is not complete that ends with the connection.
    complete = len(headers) if size is None and body is BODY and b"Length" not in headers else len(headers + body)
    assert [int(file.name) for file in kept.files] == list(range(complete, len(headers + body) + 1))
    assert not kept.lost
    assert (store.folder / kept.files[-1].name).read_bytes() == BODY


def test_time_limit_of_a_file_includes_its_retries(store, monkeypatch):
    def respond(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.recv(1)

    monkeypatch.setattr(timings, "FILE_TIMEOUT", 0.5)
    monkeypatch.setattr(timings, "STORE_RETRY_PAUSE", 5.0)
    with listening() as listen:
        url = f"http://127.0.0.1:{listen(respond)}"
        settings = replace(store.settings, base_url=url, read_timeout=20.0)
        began = time.monotonic()
        kept = store.save(task(download("a", f"{url}/a")), settings=settings)
        took = time.monotonic() - began
    assert kept.missing == {"a": "it took longer than 0.5 seconds"}
    assert not kept.lost
    assert 0.5 <= took < 4


class TestFileDownload:
    @pytest.mark.parametrize(
        ("path", "fields", "why"),
        [
            ("page/a", {}, "its host responded with a web page"),
            ("page/a", {"file_size": None}, "its host responded with a web page"),
            ("truncated/a", {"file_size": None}, "its host cannot be reached or closed the connection|only"),
            ("plain/a", {"file_size": 7}, f"its host announced {len(CONTENT)} bytes, but BrowserAct announced 7"),
            ("endless/a", {}, f"it is larger than the {len(CONTENT)} bytes that were announced"),
            ("around/a", {}, "redirected more than 5 times"),
            ("expired/a", {}, "its host responded with HTTP 403"),
        ],
        ids=[
            "web page",
            "web page of unknown size",
            "truncated",
            "size differs",
            "longer than announced",
            "redirect loop",
            "HTTP 403",
        ],
    )
    def test_unfetchable_file_is_reported_with_reason_while_others_are_kept(self, store, host, path, fields, why):
        files = [download("bad", store.url(path), **fields), download("good", store.url("plain/b"))]
        kept = store.save(task(*files, text="[1]"))
        assert list(kept.missing) == ["bad"]
        assert written(store.folder).keys() == {"good", "output.json", "task.json"}
        assert json.loads((store.folder / "task.json").read_text())["missing"] == kept.missing
        assert re.search(why, kept.missing["bad"])

    def test_file_host_resolving_to_private_address_is_refused(self, store, monkeypatch):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 0))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        kept = store.save(task(download("bad", "https://files.example/x")), settings=ClientSettings("app-secret"))
        assert kept.missing == {"bad": "its address points to the private host files.example"}

    @pytest.mark.parametrize(
        "url", ["http://169.254.169.254/x", "http://localhost:1/x", "ftp://example.com/x", "http://["]
    )
    def test_file_with_private_or_invalid_url_is_reported_as_lost(self, store, url):
        public = ClientSettings("app-secret")
        kept = store.save(task(download("bad", url)), settings=public)
        assert "its address" in kept.missing["bad"]
        assert kept.lost

    def test_file_redirected_to_private_address_is_refused(self, store, host, monkeypatch):
        # The test's own host is private too, so here alone it counts as public.
        monkeypatch.setattr(downloading, "is_private", lambda name: name.startswith("169.254."))
        kept = store.save(task(download("bad", store.url("private/a"))))
        assert kept.missing == {"bad": "its address points to the private host 169.254.169.254"}

    @pytest.mark.parametrize("status", [503, 408, 429])
    def test_file_host_failing_twice_is_retried_until_it_succeeds(self, store, host, monkeypatch, status):
        monkeypatch.setattr(host, "failure", status)
        host.failures["plain"] = 2
        assert not store.save(task(download("a", store.url("plain/a")))).missing
        assert len(host.requests) == 3

    def test_file_host_that_keeps_failing_leaves_file_missing_but_not_lost(self, store, host):
        host.failures["plain"] = 99
        kept = store.save(task(download("a", store.url("plain/a"))))
        assert kept.missing == {"a": "its host responded with HTTP 503"}
        assert not kept.lost

    def test_gzip_encoded_file_is_saved_decoded(self, store, host):
        store.save(task(download("a", store.url("gzip/a"))))
        assert (store.folder / "a").read_bytes() == CONTENT

    def test_body_of_a_redirect_is_not_read(self, store, host):
        # It is 1 GB long.
        kept = store.save(task(download("a", store.url("flood/a"))))
        assert [file.name for file in kept.files] == ["a"]
        assert (store.folder / "a").read_bytes() == CONTENT
        assert host.sent < 100_000_000

    def test_web_page_of_the_announced_size_is_saved_as_file(self, store, host):
        page = len(b"<html>log in</html>")
        kept = store.save(task(download("a", store.url("page/a"), file_size=page)))
        assert [file.size for file in kept.files] == [page]

    def test_signed_file_url_is_not_in_debug_log_of_urllib3(self, store, host, caplog):
        with caplog.at_level(logging.DEBUG, logger="urllib3.connectionpool"):
            store.save(task(download("a", store.url("redirect/a?signature=x"))))
            assert logging.getLogger("urllib3.connectionpool").isEnabledFor(logging.DEBUG)
        assert "signature=x" not in caplog.text

    def test_reason_for_unreachable_file_does_not_contain_its_url(self, store):
        kept = store.save(task(download("a", "http://127.0.0.1:1/secret-signature")))
        assert "its host cannot be reached" in kept.missing["a"]
        assert "secret-signature" not in kept.missing["a"]


class TestExpiredLink:
    def test_expired_file_link_is_refreshed_and_file_is_saved(self, store, host):
        good = download("good", store.url("plain/b"))
        run = task(download("a", store.url("expired/a")), good)
        anew = task(download("a", store.url("plain/a")), good)
        kept = store.save(run, again=[anew])
        assert [file.name for file in kept.files] == ["a", "good"]
        assert sorted(path for path, _ in host.requests) == ["expired/a", "plain/a", "plain/b"]

    def test_expired_file_link_that_cannot_be_refreshed_leaves_only_that_file_missing(self, store, host):
        def away() -> Task:
            raise ServerError("down", http_status=503)

        run = task(download("a", store.url("expired/a")), download("good", store.url("plain/b")))
        kept = store.make().save(run, AUTO, away)
        assert kept.missing == {"a": "its host responded with HTTP 403"}
        assert written(store.folder).keys() == {"good", "task.json"}

    def test_expired_link_of_a_format_is_refreshed_and_the_other_formats_are_not_fetched_again(self, store, host):
        def listed(*links: tuple[str, str]) -> Task:
            formats = tuple(OutputFile(kind, "result", len(CONTENT), store.url(link)) for kind, link in links)
            return Task("7", TaskStatus.FINISHED, output=Output("[1]", formats=formats, is_json=True))

        run = listed(("csv", "expired/a"), ("md", "plain/b"))
        # The formats are the keys of an object, so their order can change.
        kept = store.save(run, again=[listed(("md", "plain/new"), ("csv", "plain/a"))])
        assert sorted(file.name for file in kept.files) == ["result (csv)", "result (md)"]
        assert sorted(path for path, _ in host.requests) == ["expired/a", "plain/a", "plain/b"]
        assert (store.folder / "output.json").read_text() == "[1]"

    def test_format_of_another_size_than_announced_is_missing(self, store):
        formats = (OutputFile("csv", "result.csv", len(CONTENT) + 1, store.url("plain/a")),)
        kept = store.save(Task("7", TaskStatus.FINISHED, output=Output(formats=formats)))
        assert list(kept.missing) == ["result.csv"]

    def test_file_link_still_expired_after_refresh_leaves_file_missing(self, store, host):
        kept = store.save(task(download("a", store.url("expired/a"))))
        assert kept.missing == {"a": "its host responded with HTTP 403"}
        assert len(host.requests) == 2


class TestFileInPreparation:
    def test_file_in_preparation_is_waited_for_and_saved(self, store, host):
        pending = task(download("a", None, status="uploading"))
        kept = store.save(pending, again=[pending, pending, task(download("a", store.url("plain/a")))])
        assert [file.name for file in kept.files] == ["a"]

    def test_file_in_preparation_does_not_delay_other_files(self, store, host):
        seen: list[set[str]] = []

        def look() -> Task:
            seen.append(set(written(store.folder)))
            return task(download("a", store.url("plain/a")), good)

        good = download("good", store.url("plain/b"))
        kept = store.make().save(task(download("a", None), good), AUTO, look)
        assert seen == [{"good"}]
        assert len(kept.files) == 2

    def test_failed_poll_does_not_end_wait_for_file_in_preparation(self, store, host):
        looks: Iterator[Any] = iter([ServerError("down", http_status=503), task(download("a", store.url("plain/a")))])

        def look() -> Task:
            seen = next(looks)
            if isinstance(seen, Exception):
                raise seen
            found: Task = seen
            return found

        assert not store.make().save(task(download("a", None)), AUTO, look).missing

    def test_file_not_ready_in_time_is_missing_but_not_lost(self, store):
        settings = replace(store.settings, files_timeout=0.05)
        kept = store.save(task(download("a", None, status="uploading")), settings=settings)
        assert "did not prepare it within files_timeout=0.05 seconds" in kept.missing["a"]
        assert not kept.lost

    def test_file_that_is_ready_in_one_list_and_in_preparation_in_the_other_is_not_missing(self, store, host):
        url = store.url("plain/a.csv")
        first, then = (task(download("a.csv", given, guid="g1"), urls=(url,)) for given in (None, url))
        kept = store.save(first, again=[then])
        assert kept.missing == {}
        assert "a.csv" in {file.name for file in kept.files}

    def test_file_without_an_id_whose_name_changes_when_it_is_ready_is_not_missing(self, store, host):
        ready = download("a.csv", store.url("plain/a"), guid=None)
        first, then = (task(ready, download("a.csv", given, guid=None)) for given in (None, store.url("plain/b")))
        kept = store.save(first, again=[then])
        assert kept.missing == {}
        assert len(kept.files) == 2

    def test_file_without_an_id_that_is_no_longer_listed_is_missing(self, store, host):
        ready = download("b.csv", store.url("plain/b"), guid=None)
        kept = store.save(task(ready, download("a.csv", None, guid=None)), again=[task(ready)])
        assert kept.missing == {"a.csv": "BrowserAct no longer lists it"}

    def test_file_in_preparation_no_longer_listed_is_missing_but_not_lost(self, store, host):
        kept = store.save(task(download("a", None)), again=[task()])
        assert kept.missing == {"a": "BrowserAct no longer lists it"}
        assert not kept.lost

    def test_file_whose_upload_failed_is_lost_and_reason_hides_its_url(self, store):
        logged = "404 at https://shop.example/a?signature=x"
        kept = store.save(task(download("a", None, status="failed", error_message=logged)))
        assert (kept.missing, kept.lost) == ({"a": "404 at (an address)"}, True)


def _fails(*_, **__):
    raise OSError("no space left")


def test_save_to_full_store_raises_storage_error_naming_the_folder(store, monkeypatch):
    made = store.make()
    monkeypatch.setattr(made.folder.fs, "open", _fails)
    with pytest.raises(StorageError, match=r"results/7: OSError: no space left"):
        made.save(task(text="[1]"), AUTO, lambda: task())


def test_save_removes_only_old_partial_files_of_interrupted_tries(store, host):
    store.folder.mkdir(parents=True)
    for name in (".a.0123abcd", ".a.4567abcd", "output.txt", ".keep", "b.csv"):
        (store.folder / name).write_text("left")
        if name != ".a.4567abcd":
            os.utime(store.folder / name, (0, 0))
    store.save(task(download("a", store.url("plain/a")), text="[1]"))
    # What is not ours stays, and what someone may be writing just now.
    assert written(store.folder).keys() == {
        ".a.4567abcd",
        ".keep",
        "a",
        "b.csv",
        "output.json",
        "output.txt",
        "task.json",
    }


def test_store_error_for_one_file_leaves_the_other_files_saved(store, host, monkeypatch):
    made = store.make()
    mv = made.folder.fs.mv
    monkeypatch.setattr(made.folder.fs, "mv", lambda a, b: _fails() if b.endswith("/bad") else mv(a, b))
    kept = made.save(task(download("bad", store.url("plain/a")), download("good", store.url("plain/b"))), AUTO, task)
    assert [file.name for file in kept.files] == ["good"]
    assert kept.missing == {"bad": "OSError: no space left"}
    assert written(store.folder).keys() == {"good", "task.json"}
