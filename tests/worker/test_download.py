"""Which addresses of files are requested, and how much of the responses is read."""

from __future__ import annotations

import gzip
import itertools
import logging
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3.util.connection
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from airflow_provider_browseract.api.bodies import CHUNK_SIZE
from airflow_provider_browseract.api.retries import RetryPolicy
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.files import RunFile
from airflow_provider_browseract.worker import download
from airflow_provider_browseract.worker.download import (
    Allowance,
    FileError,
    FileSession,
    Interrupted,
    no_addresses_in_logs,
)
from tests.e2e.local_airflow import wait_for
from tests.served import certificate_in, listening, served

MIB = 1024 * 1024
PUBLIC = "203.0.114.7"
"""An address that counts as public, and to which no packet gets from a test."""

PRIVATE = "its address points to the private host"
CHARACTERS = "its address has characters that are not allowed in a URL"
NO_ADDRESS = "its address is not an http or https address"
CREDENTIALS = "its address has a user name or a password"

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
    "http://%31%32%37.0.0.1:{port}/secret",
    # other near addresses
    "http://10.0.0.7/secret",
    "http://172.16.0.1/secret",
    "http://192.168.0.1/secret",
    "http://169.254.169.254/latest/meta-data",
    "http://168.63.129.16/machine",
    "http://192.0.0.192/opc/v2/instance",
    "http://100.64.0.1/secret",
    "http://224.0.0.1/secret",
    "http://255.255.255.255/secret",
    "http://intranet/secret",
    "http://files.internal/secret",
    "http://printer.local/secret",
    "http://metadata.google.internal/computeMetadata",
    # two parsers that see different hosts
    "http://127.0.0.1:{port}#@files.example/secret",
    "http://127.0.0.1:{port}?@files.example/secret",
    # names that lead to near addresses
    "http://near.example:{port}/secret",
    "http://near-too.example:{port}/secret",
    "http://NEAR.example:{port}/secret",
]
WITH_CREDENTIALS = [
    "http://user:password@api.example:{port}/secret",
    "http://user@api.example:{port}/secret",
    "http://files.example@127.0.0.1:{port}/secret",
    "http://files.example:80@127.0.0.1:{port}/secret",
]
WITH_ODD_CHARACTERS = [
    # Two parsers may see different hosts.
    "http://127.0.0.1:{port}\\@files.example/secret",
    "http://files.example\\@127.0.0.1:{port}/secret",
    "http://127.0.0.1:{port}\\.files.example/secret",
    "http:\\\\127.0.0.1:{port}\\secret",
    "http://127.0.0.1:{port}/..\\secret",
    "http://127.0.0.1:{port}/sec\nret",
    "http://127.0.0.1:{port}/sec\tret",
    "\thttp://127.0.0.1:{port}/secret",
    " http://127.0.0.1:{port}/secret",
    "http://127.0.0.1\x00.files.example/secret",
    "http://127.0.0.1 .files.example/secret",
    "http://127.0.0.1:{port}/\u202esecret",
]
NO_ADDRESSES = [
    # characters that become digits, dots or letters
    "http://①②⑦.⓪.⓪.①:{port}/secret",
    "http://１２７.0.0.1:{port}/secret",  # noqa: RUF001
    "http://127。0。0。1:{port}/secret",
    "http://ｌocalhost:{port}/secret",  # noqa: RUF001
    # of nothing that is fetched
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
]
REFUSED = {
    **dict.fromkeys(NEAR, PRIVATE),
    **dict.fromkeys(WITH_CREDENTIALS, CREDENTIALS),
    **dict.fromkeys(WITH_ODD_CHARACTERS, CHARACTERS),
    **dict.fromkeys(NO_ADDRESSES, NO_ADDRESS),
    # Its first IP address, to which no packet gets, is the one that was checked.
    "http://rebinding.example:{port}/secret": "its host cannot be reached",
}
"""Addresses that are never requested, each with the reason."""

REFUSED_AS_REDIRECT = {
    **{url: why for url, why in REFUSED.items() if url.isprintable()},
    # The framework of the test's host encodes these.
    **dict.fromkeys(NO_ADDRESSES[:4], CHARACTERS),
    " http://127.0.0.1:{port}/secret": PRIVATE,
    # What is relative to the host's own address stays there.
    "http://": "its address was redirected more than 5 times",
    "http://[": "its address was redirected to an invalid address",
    "http://[::1": "its address was redirected to an invalid address",
}
del REFUSED_AS_REDIRECT[""], REFUSED_AS_REDIRECT["http:///secret"]


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
    with closing(FileSession(settings, threading.Event())) as session:
        yield SimpleNamespace(host=host, port=port, session=session, answers=answers)


def fetch(world, url: str, name: str = "a") -> bytes:
    with world.session.opened(RunFile(name, url), time.monotonic() + 60) as (content, _):
        return b"".join(content)


def test_host_that_could_not_be_resolved_for_the_check_is_not_resolved_again_to_connect(world):
    with pytest.raises(FileError, match="its host cannot be reached"):
        fetch(world, f"http://late.example:{world.port}/secret")
    assert world.host.reached == []


def test_address_that_this_python_cannot_name_is_not_connected_to(monkeypatch):
    # What a Python without IPv6 returns for an IPv6 address.
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (10, b"\x00" * 20))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    settings = ClientSettings("app-secret", "https://api.example", retries=RetryPolicy(budget=0.1))
    with (
        closing(FileSession(settings, threading.Event())) as session,
        pytest.raises(FileError, match="its host cannot be reached"),
    ):
        session.opened(RunFile("a", "https://files.example/a"), time.monotonic() + 60).__enter__()


class TestFileUrl:
    @pytest.mark.parametrize(("url", "why"), REFUSED.items())
    def test_private_or_invalid_file_url_is_never_requested(self, world, url, why):
        with pytest.raises(FileError, match=f"^{why}"):
            fetch(world, url.format(port=world.port))
        assert world.host.reached == []

    @pytest.mark.parametrize(("url", "why"), REFUSED_AS_REDIRECT.items())
    def test_redirect_to_private_or_invalid_file_url_is_not_followed(self, world, url, why):
        world.host.location = url.format(port=world.port)
        with pytest.raises(FileError, match=f"^{why}"):
            fetch(world, f"http://api.example:{world.port}/redirect")
        assert set(world.host.reached) == {"redirect"}

    def test_file_on_private_host_of_the_api_itself_is_fetched(self, world):
        assert fetch(world, f"http://api.example:{world.port}/file") == b"content"

    def test_private_address_of_the_public_api_is_refused(self, world):
        world.answers["api.browseract.com"] = [["127.0.0.1"]]
        settings = ClientSettings("app-secret", connect_timeout=0.2)
        with (
            closing(FileSession(settings, threading.Event())) as world.session,
            pytest.raises(FileError, match=r"points to the private host api\.browseract\.com"),
        ):
            fetch(world, f"http://api.browseract.com:{world.port}/secret")
        assert world.host.reached == []

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

    @pytest.mark.parametrize("scheme", ["https", "HTTPS"])
    def test_file_redirect_from_https_to_http_is_refused(self, world, monkeypatch, scheme):
        send = world.session.send

        def redirected(request, **arguments):
            request.url = request.url.replace("https://", "http://")
            return send(request, **arguments)

        monkeypatch.setattr(world.session, "send", redirected)
        world.host.location = f"http://api.example:{world.port}/file"
        with pytest.raises(FileError, match="redirected from https to another scheme"):
            fetch(world, f"{scheme}://api.example:{world.port}/redirect")

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

    def test_gzip_file_response_is_decompressed_in_bounded_chunks_and_memory(self, world):
        largest = size = 0
        tracemalloc.start()
        with world.session.opened(RunFile("a", self.url(world, "gzip")), time.monotonic() + 60) as (content, _):
            for chunk in content:
                largest, size = max(largest, len(chunk)), size + len(chunk)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size == 50 * MIB
        assert largest <= CHUNK_SIZE
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


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

SLOW = {
    "status line": (b"", b"HTTP/1.1 200 OK OK OK OK OK OK "),
    "header": (OK + b"X-Header: ", b"x"),
    "headers": (OK, b"X: 1\r\n"),
    "headers of an informational response": (b"HTTP/1.1 100 Continue\r\n", b"X: 1\r\n"),
    "body of unknown length": (OK + b"\r\n", b"x"),
    "body of known length": (OK + b"Content-Length: 1000000\r\n\r\n", b"x"),
    "size of a chunk": (CHUNKED, b"0"),
    "extension of a chunk": (CHUNKED + b"8;", b"x"),
    "chunk": (CHUNKED + b"fffff\r\n", b"x"),
    "trailer": (CHUNKED + b"1\r\nx\r\n0\r\nX-Trailer: ", b"x"),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: 1\r\n"),
}
"""The beginning of a response, and the bytes that then arrive one by one, for as long as the client waits."""

LIMIT = 0.6
"""The time limit of a file in these tests, in seconds."""


def request_of(connection: socket.socket) -> bytes:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += connection.recv(65536) or b"\r\n\r\n"
    return request


def drip(connection: socket.socket, slow: bytes, send: Callable[[Any, bytes], object] = socket.socket.send) -> None:
    """Send bytes one by one until the other side closes the connection, and at most for 30 seconds."""
    ends = time.monotonic() + 30
    for byte in itertools.cycle(slow):
        if time.monotonic() > ends:
            return
        send(connection, bytes([byte]))
        time.sleep(0.05)


def drips(begin: bytes, slow: bytes) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(begin)
        drip(connection, slow)

    return handle


def silent(begin: bytes) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(begin)
        connection.recv(1)

    return handle


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    with listening() as listen:
        yield listen


@pytest.fixture
def secured(tmp_path, monkeypatch) -> Callable[[Callable[[ssl.SSLSocket], None]], Callable[[socket.socket], None]]:
    """Make a function that handles a connection with TLS, whose certificate is trusted."""
    pem = certificate_in(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def secure(handle: Callable[[ssl.SSLSocket], None]) -> Callable[[socket.socket], None]:
        def handle_secured(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as secured:
                handle(secured)

        return handle_secured

    return secure


def fetch_from(port: int, *, scheme: str = "http", limit: float = 60, **settings: Any) -> bytes:
    """Fetch a file from a port, and check that no connection stays in the record of the session."""
    url = f"{scheme}://127.0.0.1:{port}"
    given = ClientSettings("app-secret", url, connect_timeout=20, read_timeout=20, **settings)
    with closing(FileSession(given, threading.Event())) as session:
        try:
            with session.opened(RunFile("a", f"{url}/a?signature=x"), time.monotonic() + limit) as (content, _):
                return b"".join(content)
        finally:
            assert not session.reading


@contextmanager
def ended_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(timings, "FILE_TIMEOUT", LIMIT)
    began = time.monotonic()
    with pytest.raises(FileError, match=r"^it took longer than 0\.6 seconds$") as caught:
        yield
    assert caught.value.temporary
    assert LIMIT <= time.monotonic() - began < 10


class TestTimeLimit:
    @pytest.mark.parametrize(("begin", "slow"), SLOW.values(), ids=SLOW)
    def test_file_whose_host_drips_a_part_of_its_response_ends_at_the_time_limit(
        self, listen, monkeypatch, begin, slow
    ):
        port = listen(drips(begin, slow))
        with ended_at_the_limit(monkeypatch):
            fetch_from(port, limit=LIMIT)

    def test_silent_file_host_is_not_waited_for_beyond_the_time_limit(self, listen, monkeypatch):
        port = listen(silent(b""))
        with ended_at_the_limit(monkeypatch):
            fetch_from(port, limit=LIMIT)

    def test_redirects_of_a_file_count_towards_one_time_limit(self, listen, monkeypatch):
        def redirects(connection: socket.socket) -> None:
            request_of(connection)
            time.sleep(0.25)
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n")

        port = listen(redirects)
        with ended_at_the_limit(monkeypatch):
            fetch_from(port, limit=LIMIT)

    def test_file_host_that_drips_its_tls_handshake_ends_at_the_time_limit(self, listen, monkeypatch):
        def handle(connection: socket.socket) -> None:
            connection.sendall(b"\x16\x03\x03\x10\x00")
            drip(connection, b"\x02")

        port = listen(handle)
        with ended_at_the_limit(monkeypatch):
            fetch_from(port, scheme="https", limit=LIMIT)

    def test_tls_handshake_gets_the_time_that_connecting_has_left(self, listen, monkeypatch):
        timeouts: list[float] = []
        connect = urllib3.util.connection.create_connection

        def connect_slowly(*arguments, **named):
            time.sleep(LIMIT / 2)
            return connect(*arguments, **named)

        def wrap(sock, **_):
            timeouts.append(sock.gettimeout())
            raise OSError

        monkeypatch.setattr("urllib3.util.connection.create_connection", connect_slowly)
        monkeypatch.setattr("urllib3.connection.ssl_wrap_socket", wrap)
        with pytest.raises(FileError):
            fetch_from(listen(silent(b"")), scheme="https", limit=LIMIT)
        assert 0 < timeouts[0] <= LIMIT / 2

    @pytest.mark.parametrize("within_a_record", [False, True], ids=["record by record", "within a record"])
    def test_file_host_that_drips_with_tls_ends_at_the_time_limit(self, listen, secured, monkeypatch, within_a_record):
        def handle(connection: ssl.SSLSocket) -> None:
            request_of(connection)
            connection.sendall(OK)
            if within_a_record:
                socket.socket.send(connection, b"\x17\x03\x03\x10\x00")
                drip(connection, b"x")
            else:
                drip(connection, b"X: 1\r\n", ssl.SSLSocket.send)

        port = listen(secured(handle))
        with ended_at_the_limit(monkeypatch):
            fetch_from(port, scheme="https", limit=LIMIT)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_proxy_that_drips_headers_ends_at_the_time_limit(self, listen, monkeypatch, scheme):
        monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{listen(drips(OK, b'X: 1'))}")
        monkeypatch.setenv("no_proxy", "")
        with ended_at_the_limit(monkeypatch):
            fetch_from(1, scheme=scheme, limit=LIMIT)

    def test_next_ip_addresses_are_not_tried_after_the_time_limit(self, listen, monkeypatch):
        tried: list[str] = []

        def create_connection(address, timeout, **_):
            tried.append(address[0])
            assert timeout <= LIMIT
            time.sleep(timeout)
            raise TimeoutError

        monkeypatch.setattr("urllib3.util.connection.create_connection", create_connection)
        monkeypatch.setattr(download, "_addresses_of", lambda *_: [f"203.0.114.{number}" for number in range(9)])
        with ended_at_the_limit(monkeypatch):
            fetch_from(1, limit=LIMIT)
        assert tried == ["203.0.114.0"]


class TestStop:
    @pytest.mark.parametrize("begin", [b"", OK, CHUNKED, CHUNKED + b"8\r\n"], ids=["status", "header", "size", "body"])
    @pytest.mark.parametrize("host", [lambda begin: drips(begin, b"0"), silent], ids=["dripping", "silent"])
    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_stopped_download_ends_at_once(self, listen, secured, begin, host, scheme):
        stop, reasons = threading.Event(), []
        url = f"{scheme}://127.0.0.1:{listen(secured(host(begin)) if scheme == 'https' else host(begin))}"
        settings = ClientSettings("app-secret", url, connect_timeout=20, read_timeout=60)
        session = FileSession(settings, stop)

        def fetch_until_stopped() -> None:
            try:
                with session.opened(RunFile("a", f"{url}/a"), time.monotonic() + 60) as (content, _):
                    b"".join(content)
            except (FileError, Interrupted) as error:
                reasons.append(type(error))

        thread = threading.Thread(target=fetch_until_stopped, daemon=True)
        thread.start()
        wait_for("The read", lambda: session.reading or not thread.is_alive(), timeout=20, every=0.001)
        stop.set()
        session.close()
        thread.join(10)
        assert not thread.is_alive()
        assert reasons == [Interrupted]


def test_stopped_download_does_not_decode_the_rest_of_what_has_arrived(listen):
    content = gzip.compress(bytes(10 * MIB))
    head = OK + f"Content-Encoding: gzip\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    url = f"http://127.0.0.1:{listen(silent(head + content))}"
    stop = threading.Event()
    with (
        closing(FileSession(ClientSettings("app-secret", url), stop)) as session,
        session.opened(RunFile("a", f"{url}/a"), time.monotonic() + 60) as (pieces, _),
    ):
        assert next(pieces) == bytes(CHUNK_SIZE)
        stop.set()
        with pytest.raises(Interrupted):
            next(pieces)


def test_download_that_is_stopped_before_its_response_does_not_read_it(listen):
    stop = threading.Event()

    def handle(connection: socket.socket) -> None:
        request_of(connection)
        stop.set()
        connection.sendall(OK + b"Content-Length: 1\r\n\r\nx")

    url = f"http://127.0.0.1:{listen(handle)}"
    with closing(FileSession(ClientSettings("app-secret", url), stop)) as session, pytest.raises(Interrupted):
        session.opened(RunFile("a", f"{url}/a"), time.monotonic() + 60).__enter__()


ENDLESS = {
    "empty gzip members": (OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"")),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: " + b"x" * 60_000 + b"\r\n"),
    "extensions of chunks": (CHUNKED, b"1;" + b"x" * 60_000 + b"\r\nx\r\n"),
    "informational responses": (b"", b"HTTP/1.1 100 Continue\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS)
def test_bytes_that_are_not_content_count_towards_a_limit_too(listen, begin, more):
    sent = 0

    def handle(connection: socket.socket) -> None:
        nonlocal sent
        request_of(connection)
        connection.sendall(begin)
        while sent < 100 * MIB:
            connection.sendall(more * 100)
            sent += 100 * len(more)

    port = listen(handle)
    with pytest.raises(FileError, match=r"^its host sent more than twice max_file_size=1000 bytes$"):
        fetch_from(port, max_file_size=1000)
    assert sent < 50 * MIB


def test_signed_file_url_is_not_in_the_warning_of_urllib3_about_malformed_headers(listen, caplog):
    port = listen(lambda connection: request_of(connection) and connection.sendall(OK + b"no header\r\n\r\nx"))
    with no_addresses_in_logs():
        assert fetch_from(port) == b"x"
    assert caplog.text == ""
    assert logging.getLogger("urllib3.connection").isEnabledFor(logging.WARNING)
