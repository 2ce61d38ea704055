"""Which addresses of files are requested, and how much of the responses is read."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from airflow_provider_browseract.api.client import ClientSettings
from airflow_provider_browseract.api.retries import RetryPolicy
from airflow_provider_browseract.runs.outputs import RunFile
from airflow_provider_browseract.worker import download
from airflow_provider_browseract.worker.download import Allowance, FileError, FileSession, chunks_of
from tests.served import served

MIB = 1024 * 1024
PUBLIC = "203.0.114.7"
"""An address that counts as public, and to which no packet gets from a test."""

NEAR = [
    # 127.0.0.1 itself, and what resolvers take for it
    "http://127.0.0.1:{port}/secret",
    "http://127.0.0.1.:{port}/secret",
    "http://127.1:{port}/secret",
    "http://2130706433:{port}/secret",
    "http://0x7f000001:{port}/secret",
    "http://0x7f.0.0.1:{port}/secret",
    "http://0177.0.0.1:{port}/secret",
    "http://0:{port}/secret",
    "http://0.0.0.0:{port}/secret",
    "http://localhost:{port}/secret",
    "http://LOCALHOST:{port}/secret",
    "http://localhost.:{port}/secret",
    "http://a.localhost:{port}/secret",
    "https://127.0.0.1:{port}/secret",
    # IPv6, and IPv4 in it
    "http://[::1]:{port}/secret",
    "http://[0:0:0:0:0:0:0:1]:{port}/secret",
    "http://[::]:{port}/secret",
    "http://[::ffff:127.0.0.1]:{port}/secret",
    "http://[::ffff:7f00:1]:{port}/secret",
    "http://[::127.0.0.1]:{port}/secret",
    "http://[64:ff9b::7f00:1]:{port}/secret",
    "http://[64:ff9b:1::7f00:1]:{port}/secret",
    "http://[2002:7f00:1::]:{port}/secret",
    "http://[fe80::1]:{port}/secret",
    "http://[fe80::1%25lo]:{port}/secret",
    "http://[fc00::1]:{port}/secret",
    "http://[fec0::1]:{port}/secret",
    "http://[ff02::1]:{port}/secret",
    "http://[2001:db8::1]:{port}/secret",
    # characters that become digits, dots or letters
    "http://①②⑦.⓪.⓪.①:{port}/secret",
    "http://１２７.0.0.1:{port}/secret",  # noqa: RUF001
    "http://127。0。0。1:{port}/secret",
    "http://ｌocalhost:{port}/secret",  # noqa: RUF001
    "http://%31%32%37.0.0.1:{port}/secret",
    # other near addresses
    "http://10.0.0.7/secret",
    "http://172.16.0.1/secret",
    "http://192.168.0.1/secret",
    "http://169.254.169.254/latest/meta-data",
    "http://100.64.0.1/secret",
    "http://224.0.0.1/secret",
    "http://255.255.255.255/secret",
    "http://intranet/secret",
    "http://files.internal/secret",
    "http://printer.local/secret",
    "http://metadata.google.internal/computeMetadata",
    # two parsers that see different hosts
    "http://127.0.0.1:{port}\\@files.example/secret",
    "http://files.example\\@127.0.0.1:{port}/secret",
    "http://127.0.0.1:{port}\\.files.example/secret",
    "http:\\\\127.0.0.1:{port}\\secret",
    "http://127.0.0.1:{port}/..\\secret",
    "http://files.example@127.0.0.1:{port}/secret",
    "http://files.example:80@127.0.0.1:{port}/secret",
    "http://user:password@files.example/secret",
    "http://127.0.0.1:{port}#@files.example/secret",
    "http://127.0.0.1:{port}?@files.example/secret",
    # characters that are not allowed in a URL
    "http://127.0.0.1:{port}/sec\nret",
    "http://127.0.0.1:{port}/sec\tret",
    "\thttp://127.0.0.1:{port}/secret",
    " http://127.0.0.1:{port}/secret",
    "http://127.0.0.1\x00.files.example/secret",
    "http://127.0.0.1 .files.example/secret",
    "http://127.0.0.1:{port}/\u202esecret",
    # no addresses, or of nothing that is fetched
    "file:///etc/passwd",
    "ftp://127.0.0.1/secret",
    "gopher://127.0.0.1:{port}/secret",
    "javascript:alert(1)",
    "data:text/plain,x",
    "http://",
    "http:///secret",
    "http://[",
    "http://[::1",
    "http://127.0.0.1:99999/secret",
    "http://127.0.0.1:-1/secret",
    "",
    # names that lead to near addresses
    "http://near.example:{port}/secret",
    "http://near-too.example:{port}/secret",
    "http://NEAR.example:{port}/secret",
    "http://rebinding.example:{port}/secret",
]


class Host:
    """A host of files, which is also that of the API."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.location = ""
        self.app = FastAPI()
        self.app.add_api_route("/{path:path}", self._answer)

    async def _answer(self, path: str, request: Request) -> Response:
        self.reached.append(path)
        if path == "redirect":
            # Not with a redirect of the framework, which would encode the address.
            response = Response(status_code=302)
            response.raw_headers.append((b"location", self.location.encode("utf-8")))
            return response
        if path == "drip":
            return StreamingResponse(_drips())
        if path == "gzip":
            body = zlib.compressobj(wbits=31)
            pieces = [body.compress(b"\0" * MIB) for _ in range(50)] + [body.flush()]
            return StreamingResponse(iter(pieces), headers={"Content-Encoding": "gzip"})
        if path == "twice":
            return Response(gzip.compress(b"one, ") + gzip.compress(b"two"), headers={"Content-Encoding": "x-gzip"})
        if path == "deflate":
            return Response(zlib.compress(b"deflated"), headers={"Content-Encoding": "deflate"})
        if path == "half":
            return Response(gzip.compress(b"x" * 1000)[:-9], headers={"Content-Encoding": "gzip"})
        if path == "no-gzip":
            return Response(b"plain", headers={"Content-Encoding": "gzip"})
        if path == "br":
            return Response(b"?", headers={"Content-Encoding": "br"})
        return Response(b"content")


async def _drips():
    import asyncio

    for _ in range(600):
        yield b"x"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def served_host() -> Iterator[tuple[Host, int]]:
    host = Host()
    with served(host.app) as port:
        yield host, port


@pytest.fixture
def world(served_host, monkeypatch) -> Iterator[SimpleNamespace]:
    """A session whose API is at ``api.example``, and a DNS that knows a few names."""
    host, port = served_host
    host.reached.clear()
    answers = {
        "api.example": [["127.0.0.1"]],
        "near.example": [["127.0.0.1"]],
        "near-too.example": [[PUBLIC, "127.0.0.1"]],
        "rebinding.example": [[PUBLIC], ["127.0.0.1"]],
        "late.example": [[], ["127.0.0.1"]],
    }
    resolve = socket.getaddrinfo

    def getaddrinfo(name, *arguments, **named):
        known = answers.get(str(name).lower().rstrip("."))
        if known is None:
            if any(char.isalpha() for char in str(name).replace("0x", "")) and ":" not in str(name):
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            return resolve(name, *arguments, **named)
        addresses = known.pop(0) if len(known) > 1 else known[0]
        if not addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [found for address in addresses for found in resolve(address, *arguments, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    settings = ClientSettings("app-secret", f"http://api.example:{port}", connect_timeout=0.2, read_timeout=5.0)
    with closing(FileSession(settings)) as session:
        yield SimpleNamespace(host=host, port=port, session=session, answers=answers)


def fetch(world, url: str, name: str = "a") -> bytes:
    with world.session.opened(RunFile(name, url)) as (response, _):
        return b"".join(chunks_of(response, threading.Event()))


def test_host_that_could_not_be_resolved_for_the_check_is_not_resolved_again_to_connect(world):
    with pytest.raises(FileError, match="its host cannot be reached"):
        fetch(world, f"http://late.example:{world.port}/secret")
    assert world.host.reached == []


def test_address_that_this_python_cannot_name_is_not_connected_to(monkeypatch):
    # What a Python without IPv6 returns for an IPv6 address.
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (10, b"\x00" * 20))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    settings = ClientSettings("app-secret", "https://api.example", retries=RetryPolicy(budget=0.1))
    with closing(FileSession(settings)) as session, pytest.raises(FileError, match="its host cannot be reached"):
        session.opened(RunFile("a", "https://files.example/a")).__enter__()


class TestFileUrl:
    @pytest.mark.parametrize("url", NEAR)
    def test_private_or_invalid_file_url_is_never_requested(self, world, url):
        with pytest.raises(FileError):
            fetch(world, url.format(port=world.port))
        assert world.host.reached == []

    # A redirect to "http:///secret" is one within the same host.
    @pytest.mark.parametrize("url", [url for url in NEAR if url.isprintable() and url not in ("", "http:///secret")])
    def test_redirect_to_private_or_invalid_file_url_is_not_followed(self, world, url):
        world.host.location = url.format(port=world.port)
        with pytest.raises(FileError):
            fetch(world, f"http://api.example:{world.port}/redirect")
        assert set(world.host.reached) == {"redirect"}

    def test_file_on_private_host_of_the_api_itself_is_fetched(self, world):
        assert fetch(world, f"http://api.example:{world.port}/file") == b"content"

    def test_file_on_other_private_host_is_refused_although_api_host_is_private(self, world):
        world.answers["other.example"] = [["127.0.0.1"]]
        with pytest.raises(FileError, match=r"points to the private host other\.example"):
            fetch(world, f"http://other.example:{world.port}/secret")

    def test_file_host_is_resolved_once_and_the_checked_ip_address_is_used(self, world, monkeypatch):
        world.answers["files.example"] = [["127.0.0.1"], [PUBLIC]]
        monkeypatch.setattr(download, "is_private", lambda host: host != "127.0.0.1" and "example" not in host)
        assert fetch(world, f"http://files.example:{world.port}/file") == b"content"
        assert len(world.answers["files.example"]) == 1

    def test_file_host_whose_first_ip_address_fails_is_reached_at_the_next(self, world, monkeypatch):
        world.answers["files.example"] = [["127.0.0.3", "127.0.0.1"]]
        monkeypatch.setattr(download, "is_private", lambda host: False)
        assert fetch(world, f"http://files.example:{world.port}/file") == b"content"

    def test_file_redirect_from_https_to_http_is_refused(self, world, monkeypatch):
        send = world.session.send

        def redirected(request, **arguments):
            request.url = request.url.replace("https://", "http://")
            return send(request, **arguments)

        monkeypatch.setattr(world.session, "send", redirected)
        world.host.location = f"http://api.example:{world.port}/file"
        with pytest.raises(FileError, match="redirected from https to another scheme"):
            fetch(world, f"https://api.example:{world.port}/redirect")

    @pytest.mark.parametrize("url", ["http://10.0.0.7/secret", "http://near.example/secret"])
    def test_private_file_url_is_not_sent_to_the_proxy(self, world, monkeypatch, url):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{world.port}")
        with pytest.raises(FileError, match="points to the private host"):
            fetch(world, url)
        assert world.host.reached == []

    def test_file_host_that_only_the_proxy_can_resolve_is_fetched_through_it(self, world, monkeypatch):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{world.port}")
        assert fetch(world, "http://files.example/file") == b"content"


class TestFileResponse:
    def url(self, world, path: str) -> str:
        return f"http://api.example:{world.port}/{path}"

    def test_slow_file_response_is_aborted_at_the_time_limit(self, world, monkeypatch):
        monkeypatch.setattr(download, "FILE_TIMEOUT", 0.3)
        began = time.monotonic()
        with pytest.raises(FileError, match=r"took longer than 0\.3 seconds") as caught:
            fetch(world, self.url(world, "drip"))
        assert caught.value.temporary
        assert time.monotonic() - began < 10

    def test_gzip_file_response_is_decompressed_in_bounded_chunks_and_memory(self, world):
        largest = size = 0
        tracemalloc.start()
        with world.session.opened(RunFile("a", self.url(world, "gzip"))) as (response, _):
            for chunk in chunks_of(response, threading.Event()):
                largest, size = max(largest, len(chunk)), size + len(chunk)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size == 50 * MIB
        assert largest <= download.CHUNK_SIZE
        # The server of this process has its part in it, too.
        assert peak < 64 * MIB

    @pytest.mark.parametrize(
        ("path", "content"), [("twice", b"one, two"), ("deflate", b"deflated")], ids=["x-gzip", "deflate"]
    )
    def test_file_response_in_x_gzip_or_deflate_is_decoded(self, world, path, content):
        assert fetch(world, self.url(world, path)) == content

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("half", "its host closed the connection too early"),
            ("no-gzip", "its content is not gzip, although its host announced that coding"),
            ("br", "content coding 'br', which the request does not accept"),
        ],
        ids=["truncated gzip", "no gzip", "br"],
    )
    def test_undecodable_file_response_raises_file_error(self, world, path, why):
        with pytest.raises(FileError, match=why):
            fetch(world, self.url(world, path))


def test_max_run_size_allowance_is_shared_by_all_files():
    allowance = Allowance(10)
    allowance.take(6)
    allowance.take(4)
    with pytest.raises(FileError, match=r"exceed 10 bytes \(max_run_size\)"):
        allowance.take(1)
