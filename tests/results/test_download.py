"""Which addresses of files are requested, and how much of the responses is read."""

from __future__ import annotations

import gzip
import itertools
import logging
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_browseract.api.settings import DEFAULT_BASE_URL, Settings
from airflow_provider_browseract.results import download
from airflow_provider_browseract.results.download import FileError, FileSession, Interrupted, no_addresses_in_logs
from airflow_provider_browseract.results.files import RunFile
from airflow_provider_browseract.runs import timings
from tests.cases import cases
from tests.e2e.local_airflow import wait_for
from tests.results.file_host import CONTENT, OK, Handle, reply, request_of
from tests.served import certificate_in, with_tls

MIB = 1024 * 1024
PUBLIC = "203.0.114.7"
"""An address that counts as public, and to which no packet gets from a test."""

PRIVATE = "its address points to the private host"
CHARACTERS = "its address has characters that are not allowed in a URL"
NO_ADDRESS = "its address is not an http or https address"
CREDENTIALS = "its address has a user name or a password"
UNREACHABLE = "its host cannot be reached"

NEAR = """
    127.0.0.1 127.0.0.1. 127.1 2130706433 0x7f000001 0x7f.0.0.1 0177.0.0.1 0 0.0.0.0 %31%32%37.0.0.1
    localhost LOCALHOST localhost. a.localhost intranet files.internal printer.local metadata.google.internal
    [::1] [0:0:0:0:0:0:0:1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1]
    [2002:7f00:1::] [fe80::1] [fe80::1%25lo] [fc00::1] [fec0::1] [ff02::1] [2001:db8::1]
    10.0.0.7 172.16.0.1 192.168.0.1 169.254.169.254 168.63.129.16 192.0.0.192 100.64.0.1 224.0.0.1 255.255.255.255
    near.example near-too.example NEAR.example
"""
"""Names and notations of this machine and of other near ones. The last three are resolved to this machine."""

REFUSED = {
    **{f"http://{host}:{{port}}/secret": PRIVATE for host in NEAR.split()},
    "https://127.0.0.1:{port}/secret": PRIVATE,
    # Two parsers may see different hosts in these.
    "http://127.0.0.1:{port}#@files.example/secret": PRIVATE,
    "http://127.0.0.1:{port}?@files.example/secret": PRIVATE,
    "http://files.example@127.0.0.1:{port}/secret": CREDENTIALS,
    "http://files.example:80@127.0.0.1:{port}/secret": CREDENTIALS,
    "http://user@api.example:{port}/secret": CREDENTIALS,
    "http://127.0.0.1:{port}\\@files.example/secret": CHARACTERS,
    "http://files.example\\@127.0.0.1:{port}/secret": CHARACTERS,
    "http://127.0.0.1:{port}\\.files.example/secret": CHARACTERS,
    "http:\\\\127.0.0.1:{port}\\secret": CHARACTERS,
    "http://127.0.0.1:{port}/sec\nret": CHARACTERS,
    "\thttp://127.0.0.1:{port}/secret": CHARACTERS,
    " http://127.0.0.1:{port}/secret": CHARACTERS,
    "http://127.0.0.1\x00.files.example/secret": CHARACTERS,
    "http://127.0.0.1:{port}/\u202esecret": CHARACTERS,
    # Characters that become digits, dots or letters.
    "http://①②⑦.⓪.⓪.①:{port}/secret": NO_ADDRESS,
    "http://１２７.0.0.1:{port}/secret": NO_ADDRESS,  # noqa: RUF001
    "http://127。0。0。1:{port}/secret": NO_ADDRESS,
    "http://ｌocalhost:{port}/secret": NO_ADDRESS,  # noqa: RUF001
    "file:///etc/passwd": NO_ADDRESS,
    "ftp://127.0.0.1/secret": NO_ADDRESS,
    "javascript:alert(1)": NO_ADDRESS,
    "http://": NO_ADDRESS,
    "http:///secret": NO_ADDRESS,
    "http://[::1": NO_ADDRESS,
    "http://127.0.0.1:99999/secret": NO_ADDRESS,
    "http://127.0.0.1:-1/secret": NO_ADDRESS,
    "": NO_ADDRESS,
    # Its first IP address, to which no packet gets, is the one that was checked.
    "http://rebinding.example:{port}/secret": UNREACHABLE,
    # The check finds no IP address, and urllib3 would find this machine.
    "http://late.example:{port}/secret": UNREACHABLE,
    # What a Python without IPv6 returns for an IPv6 address.
    "http://odd.example:{port}/secret": UNREACHABLE,
}

REDIRECTS = {
    **{f"http://{host}:{{port}}/secret": PRIVATE for host in NEAR.split()[::5]},
    "//127.0.0.1:{port}/secret": PRIVATE,
    " http://127.0.0.1:{port}/secret": PRIVATE,
    "http://files.example@127.0.0.1:{port}/secret": CREDENTIALS,
    "http://127.0.0.1:{port}\\@files.example/secret": CHARACTERS,
    "http://①②⑦.⓪.⓪.①:{port}/secret": CHARACTERS,
    "file:///etc/passwd": NO_ADDRESS,
    "ftp://127.0.0.1/secret": NO_ADDRESS,
    "http://127.0.0.1:99999/secret": NO_ADDRESS,
    "http://rebinding.example:{port}/secret": UNREACHABLE,
    "http://late.example:{port}/secret": UNREACHABLE,
    "http://[::1": "its address was redirected to an invalid address",
    # What is relative to the host's own address stays there.
    "http://": "its address was redirected more than 5 times",
}


def session_for(base_url: str, stop: threading.Event | None = None, **settings: Any) -> FileSession:
    given = {"connect_timeout": 20, "read_timeout": 20, **settings}
    return FileSession(Settings(api_key="app-secret", base_url=base_url, **given), stop or threading.Event())


def opened(session: FileSession, url: str, limit: float = 60):
    return session.opened(RunFile("a", url), time.monotonic() + limit)


@pytest.fixture
def net(host, monkeypatch) -> Iterator[SimpleNamespace]:
    """A session whose API is at ``api.example``, and a DNS that knows a few names."""
    answers = {
        "api.example": [["127.0.0.1"]],
        "near.example": [["127.0.0.1"]],
        "near-too.example": [[PUBLIC, "127.0.0.1"]],
        "rebinding.example": [[PUBLIC], ["127.0.0.1"]],
        "late.example": [[], ["127.0.0.1"]],
    }
    resolve = socket.getaddrinfo

    def getaddrinfo(name, *arguments, **named):
        if name == "odd.example":
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (10, b"\x00" * 20))]
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
    api = f"http://api.example:{host.port}"
    with closing(session_for(api, connect_timeout=0.2, read_timeout=5.0)) as session:
        yield SimpleNamespace(host=host, session=session, answers=answers, api=api)


def fetch(net, url: str) -> bytes:
    with opened(net.session, url.format(port=net.host.port)) as (content, _):
        return b"".join(content)


class TestFileUrl:
    @cases(("url", "why"), {repr(url): (url, why) for url, why in REFUSED.items()})
    def test_private_or_invalid_file_url_is_never_requested(self, net, url, why):
        with pytest.raises(FileError, match=f"^{why}"):
            fetch(net, url)
        assert net.host.paths == []

    @cases(("url", "why"), {repr(url): (url, why) for url, why in REDIRECTS.items()})
    def test_redirect_to_private_or_invalid_file_url_is_not_followed(self, net, url, why):
        net.host.redirect_to(url.format(port=net.host.port))
        with pytest.raises(FileError, match=f"^{why}"):
            fetch(net, f"{net.api}/redirect")
        assert set(net.host.paths) == {"/redirect"}

    def test_of_private_hosts_only_that_of_a_private_api_is_fetched_from(self, net):
        assert fetch(net, f"{net.api}/file") == CONTENT
        net.host.paths.clear()
        with pytest.raises(FileError, match="points to the private host"):
            fetch(net, "http://api.example:1/file")
        net.answers.update({name: [["127.0.0.1"]] for name in ("other.example", "api.browseract.com")})
        with pytest.raises(FileError, match=r"points to the private host other\.example"):
            fetch(net, "http://other.example:{port}/secret")
        with (
            closing(session_for(DEFAULT_BASE_URL, connect_timeout=0.2)) as net.session,
            pytest.raises(FileError, match=r"points to the private host api\.browseract\.com"),
        ):
            fetch(net, "http://api.browseract.com:{port}/secret")
        assert net.host.paths == []

    @pytest.mark.parametrize("host", ["[::1]", "127.0.0.1", "localhost."])
    def test_private_host_of_the_api_is_allowed_as_urllib3_names_it(self, host):
        with closing(session_for(f"http://{host}:8080")) as session:
            session.check_address(host.strip("[]").rstrip("."), 8080, "127.0.0.1")

    def test_file_host_is_resolved_once_and_the_checked_ip_address_is_used(self, net, monkeypatch):
        net.answers["files.example"] = [["127.0.0.1"], [PUBLIC]]
        monkeypatch.setattr(download, "is_private", lambda host: host != "127.0.0.1" and "example" not in host)
        assert fetch(net, "http://files.example:{port}/file") == CONTENT
        assert len(net.answers["files.example"]) == 1

    def test_file_host_whose_first_ip_address_fails_is_reached_at_the_next(self, net, monkeypatch):
        net.answers["files.example"] = [["127.0.0.3", "127.0.0.1"]]
        monkeypatch.setattr(download, "is_private", lambda host: False)
        assert fetch(net, "http://files.example:{port}/file") == CONTENT

    @pytest.mark.parametrize("scheme", ["https", "HTTPS"])
    def test_file_redirect_from_https_to_http_is_refused(self, net, monkeypatch, scheme):
        send = net.session.send

        def redirected(request, **arguments):
            request.url = request.url.replace("https://", "http://")
            return send(request, **arguments)

        monkeypatch.setattr(net.session, "send", redirected)
        net.host.redirect_to(f"{net.api}/file")
        with pytest.raises(FileError, match="redirected from https to another scheme"):
            fetch(net, f"{scheme}://api.example:{{port}}/redirect")

    def test_proxy_gets_only_requests_for_hosts_that_are_not_private(self, net, monkeypatch):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{net.host.port}")
        for url in ("http://10.0.0.7/secret", "http://near.example/secret"):
            with pytest.raises(FileError, match="points to the private host"):
                fetch(net, url)
        assert net.host.paths == []
        # Only the proxy can resolve this one.
        assert fetch(net, "http://files.example/file") == CONTENT


@cases(
    ("coding", "body", "content"),
    {
        "gzip": ("gzip", gzip.compress(CONTENT), CONTENT),
        "x-gzip in two parts": ("x-gzip", gzip.compress(b"one, ") + gzip.compress(b"two"), b"one, two"),
        "deflate": ("deflate", zlib.compress(b"deflated"), b"deflated"),
        "truncated": ("gzip", gzip.compress(CONTENT)[:-9], "its host closed the connection too early"),
        "not gzip": ("gzip", b"plain", "its content is not gzip, although its host announced that coding"),
        "br": ("br", b"?", "content coding 'br', which the request does not accept"),
    },
)
def test_file_response_in_a_content_coding_is_decoded_or_raises_file_error(net, coding, body, content):
    net.host.replies["file"] = reply(body, f"Content-Encoding: {coding}")
    if isinstance(content, bytes):
        assert fetch(net, f"{net.api}/file") == content
    else:
        with pytest.raises(FileError, match=content):
            fetch(net, f"{net.api}/file")


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LIMIT = 0.6


def drip(connection: socket.socket, slow: bytes, send: Callable[[Any, bytes], object] = socket.socket.send) -> None:
    """Send bytes one by one until the other side closes the connection, and at most for 30 seconds."""
    ends = time.monotonic() + 30
    for byte in itertools.cycle(slow):
        if time.monotonic() > ends:
            return
        send(connection, bytes([byte]))
        time.sleep(0.05)


def drips(begin: bytes, slow: bytes, connection: socket.socket, **how: Any) -> None:
    request_of(connection)
    connection.sendall(begin)
    drip(connection, slow, **how)


def silent(begin: bytes, connection: socket.socket) -> None:
    request_of(connection)
    connection.sendall(begin)
    connection.recv(1)


def redirects(connection: socket.socket) -> None:
    request_of(connection)
    time.sleep(0.25)
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n")


def drips_handshake(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x03\x10\x00")
    drip(connection, b"\x02")


def drips_within_a_record(connection: ssl.SSLSocket) -> None:
    request_of(connection)
    connection.sendall(OK)
    socket.socket.send(connection, b"\x17\x03\x03\x10\x00")
    drip(connection, b"x")


TRAILER = CHUNKED + b"1\r\nx\r\n0\r\n"
SLOW: dict[str, tuple[str, Handle]] = {
    "status line": ("http", partial(drips, b"", b"HTTP/1.1 200 OK OK OK OK OK OK ")),
    "header": ("http", partial(drips, OK + b"X-Header: ", b"x")),
    "headers": ("http", partial(drips, OK, b"X: 1\r\n")),
    "informational response": ("http", partial(drips, b"HTTP/1.1 100 Continue\r\n", b"X: 1\r\n")),
    "body of unknown length": ("http", partial(drips, OK + b"\r\n", b"x")),
    "body of known length": ("http", partial(drips, OK + b"Content-Length: 1000000\r\n\r\n", b"x")),
    "size of a chunk": ("http", partial(drips, CHUNKED, b"0")),
    "extension of a chunk": ("http", partial(drips, CHUNKED + b"8;", b"x")),
    "chunk": ("http", partial(drips, CHUNKED + b"fffff\r\n", b"x")),
    "trailer": ("http", partial(drips, TRAILER + b"X-Trailer: ", b"x")),
    "trailers": ("http", partial(drips, TRAILER, b"X: 1\r\n")),
    "silence": ("http", partial(silent, b"")),
    "redirects": ("http", redirects),
    "TLS handshake": ("https", drips_handshake),
    "TLS records": ("secured", partial(drips, OK, b"X: 1\r\n", send=ssl.SSLSocket.send)),
    "TLS record": ("secured", drips_within_a_record),
    "proxy": ("http_proxy", partial(drips, OK, b"X: 1")),
    "proxy with TLS": ("https_proxy", partial(drips, OK, b"X: 1")),
}
"""Hosts that keep a client waiting, mostly by sending bytes one by one, with the scheme of the address."""


@pytest.fixture
def secured(tmp_path, monkeypatch) -> Callable[[Handle], Handle]:
    pem = certificate_in(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    return partial(with_tls, pem)


def fetch_from(port: int, *, scheme: str = "http", limit: float = 60, **settings: Any) -> bytes:
    """Fetch a file from a port, and check that no connection stays in the record of the session."""
    url = f"{scheme}://127.0.0.1:{port}"
    with closing(session_for(url, **settings)) as session:
        try:
            with opened(session, f"{url}/a?signature=x", limit) as (content, _):
                return b"".join(content)
        finally:
            assert not session.reading


@contextmanager
def ended_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(timings, "FILES_LIMIT", LIMIT)
    began = time.monotonic()
    with pytest.raises(FileError, match=r"^all files together took longer than 0\.6 seconds$") as caught:
        yield
    assert caught.value.temporary
    assert LIMIT <= time.monotonic() - began < 10


class TestTimeLimit:
    @cases(("how", "handle"), SLOW)
    def test_file_whose_host_keeps_us_waiting_ends_at_the_time_limit(self, listen, secured, monkeypatch, how, handle):
        port = listen(secured(handle) if how == "secured" else handle)
        if how.endswith("proxy"):
            monkeypatch.setenv(how, f"http://127.0.0.1:{port}")
            monkeypatch.setenv("no_proxy", "")
            port = 1
        with ended_at_the_limit(monkeypatch):
            fetch_from(port, scheme="http" if how in ("http", "http_proxy") else "https", limit=LIMIT)

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


@pytest.mark.parametrize("begin", [b"", OK, CHUNKED, CHUNKED + b"8\r\n"], ids=["status", "header", "size", "body"])
@pytest.mark.parametrize("dripping", [True, False], ids=["dripping", "silent"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_stopped_download_ends_at_once(listen, secured, begin, dripping, scheme):
    stop, reasons = threading.Event(), []
    handle = partial(drips, begin, b"0") if dripping else partial(silent, begin)
    url = f"{scheme}://127.0.0.1:{listen(secured(handle) if scheme == 'https' else handle)}"
    session = session_for(url, stop, read_timeout=60)

    def fetch_until_stopped() -> None:
        try:
            with opened(session, f"{url}/a") as (content, _):
                b"".join(content)
        except (FileError, Interrupted) as error:
            reasons.append(error)

    thread = threading.Thread(target=fetch_until_stopped, daemon=True)
    thread.start()
    wait_for("The read", lambda: session.reading or not thread.is_alive(), timeout=20, every=0.001)
    stop.set()
    session.close()
    thread.join(10)
    assert not thread.is_alive()
    assert [type(reason) for reason in reasons] == [Interrupted], reasons


def test_stopped_download_does_not_decode_the_rest_of_what_has_arrived(listen):
    content = gzip.compress(bytes(10 * MIB))
    head = OK + f"Content-Encoding: gzip\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    url = f"http://127.0.0.1:{listen(partial(silent, head + content))}"
    stop = threading.Event()
    with closing(session_for(url, stop)) as session, opened(session, f"{url}/a") as (pieces, _):
        assert next(pieces) == bytes(download.CHUNK_SIZE)
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
    with closing(session_for(url, stop)) as session, pytest.raises(Interrupted):
        opened(session, f"{url}/a").__enter__()


ENDLESS = {
    "empty gzip members": (OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"")),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: " + b"x" * 60_000 + b"\r\n"),
    "extensions of chunks": (CHUNKED, b"1;" + b"x" * 60_000 + b"\r\nx\r\n"),
    "informational responses": (b"", b"HTTP/1.1 100 Continue\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"),
}


@cases(("begin", "more"), ENDLESS)
def test_bytes_that_are_not_content_count_towards_a_limit_too(listen, monkeypatch, begin, more):
    monkeypatch.setattr(download, "MAX_FILE_SIZE", 1000)
    sent = 0

    def handle(connection: socket.socket) -> None:
        nonlocal sent
        request_of(connection)
        connection.sendall(begin)
        while sent < 100 * MIB:
            connection.sendall(more * 100)
            sent += 100 * len(more)

    port = listen(handle)
    with pytest.raises(FileError, match=r"^its host sent more than twice the limit of 1000 bytes for a file$"):
        fetch_from(port)
    assert sent < 50 * MIB


def test_signed_file_url_is_not_in_the_warning_of_urllib3_about_malformed_headers(listen, caplog):
    port = listen(lambda connection: request_of(connection) and connection.sendall(OK + b"no header\r\n\r\nx"))
    with no_addresses_in_logs():
        assert fetch_from(port) == b"x"
    assert caplog.text == ""
    assert logging.getLogger("urllib3.connection").isEnabledFor(logging.WARNING)
