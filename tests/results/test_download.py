"""Which addresses of files are requested, and which responses count as the whole file."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from airflow_provider_browseract.api.settings import DEFAULT_BASE_URL, Settings
from airflow_provider_browseract.results import download
from airflow_provider_browseract.results.download import MAX_RUN_SIZE, THREAD, FileError, FileSession, Stopped
from airflow_provider_browseract.results.files import RunFile
from tests.helpers.cases import cases
from tests.results.file_host import CONTENT, OK, FileHost, reply

PUBLIC = "203.0.114.7"
"""An address that counts as public, and to which no packet gets from a test."""

PRIVATE = "its address points to the private host"
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
    "https://near.example:{port}/secret": PRIVATE,
    # Two parsers may see different hosts in these.
    "http://127.0.0.1:{port}#@files.example/secret": PRIVATE,
    "http://127.0.0.1:{port}?@files.example/secret": PRIVATE,
    "http://files.example@127.0.0.1:{port}/secret": CREDENTIALS,
    "http://files.example:80@127.0.0.1:{port}/secret": CREDENTIALS,
    "http://user@api.example:{port}/secret": CREDENTIALS,
    "http://127.0.0.1:{port}\\@files.example/secret": NO_ADDRESS,
    "http://files.example\\@127.0.0.1:{port}/secret": NO_ADDRESS,
    "http://127.0.0.1:{port}\\.files.example/secret": NO_ADDRESS,
    "http:\\\\127.0.0.1:{port}\\secret": NO_ADDRESS,
    "http://127.0.0.1:{port}/sec\nret": NO_ADDRESS,
    " http://127.0.0.1:{port}/secret": NO_ADDRESS,
    "http://127.0.0.1\x00.files.example/secret": NO_ADDRESS,
    "http://127.0.0.1:{port}/\u202esecret": NO_ADDRESS,
    # Characters that become digits, dots or letters.
    "http://①②⑦.⓪.⓪.①:{port}/secret": NO_ADDRESS,
    "http://１２７.0.0.1:{port}/secret": NO_ADDRESS,  # noqa: RUF001
    "http://127。0。0。1:{port}/secret": NO_ADDRESS,
    "http://ｌocalhost:{port}/secret": NO_ADDRESS,  # noqa: RUF001
    "file:///etc/passwd": NO_ADDRESS,
    "javascript:alert(1)": NO_ADDRESS,
    "http://": NO_ADDRESS,
    "http://[::1": NO_ADDRESS,
    "http://127.0.0.1:99999/secret": NO_ADDRESS,
    "": NO_ADDRESS,
    # At the second try, it has another IP address.
    "http://rebinding.example:{port}/secret": f"{UNREACHABLE}|{PRIVATE}",
    "http://late.example:{port}/secret": f"{UNREACHABLE}|{PRIVATE}",
}

REDIRECTS = {
    "http://near.example:{port}/secret": PRIVATE,
    "//127.0.0.1:{port}/secret": PRIVATE,
    " http://127.0.0.1:{port}/secret": PRIVATE,
    "http://files.example@127.0.0.1:{port}/secret": CREDENTIALS,
    "file:///etc/passwd": NO_ADDRESS,
    "http://rebinding.example:{port}/secret": f"{UNREACHABLE}|{PRIVATE}",
    "http://[::1": NO_ADDRESS,
    # What is relative to the host's own address stays there.
    "http://": "its address was redirected more than 5 times",
}


def session_for(base_url: str) -> FileSession:
    return FileSession(Settings(api_key="app-secret", base_url=base_url, connect_timeout=0.2, read_timeout=5.0))


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
    with closing(session_for(api)) as session:
        yield SimpleNamespace(host=host, session=session, answers=answers, api=api)


def fetch(net, url: str, size: int | None = None) -> bytes:
    pieces: list[bytes] = []
    file = RunFile("a", url.format(port=net.host.port), size)
    assert net.session.fetch(file, pieces.append, MAX_RUN_SIZE) == sum(map(len, pieces))
    return b"".join(pieces)


class TestFileUrl:
    @cases(("url", "why"), {repr(url): (url, why) for url, why in REFUSED.items()})
    def test_private_or_invalid_file_url_is_never_requested(self, net, url, why):
        for _ in range(3):
            with pytest.raises(FileError, match=f"^({why})"):
                fetch(net, url)
        assert net.host.paths == []

    @cases(("url", "why"), {repr(url): (url, why) for url, why in REDIRECTS.items()})
    def test_redirect_to_private_or_invalid_file_url_is_not_followed(self, net, url, why):
        net.host.redirect_to(url.format(port=net.host.port))
        for _ in range(3):
            with pytest.raises(FileError, match=f"^({why})"):
                fetch(net, f"{net.api}/redirect")
        assert set(net.host.paths) == {"/redirect"}

    def test_of_private_hosts_only_that_of_a_private_api_is_fetched_from(self, net, listen):
        assert fetch(net, f"{net.api}/file") == CONTENT
        net.host.paths.clear()
        other_port = FileHost(listen)
        with pytest.raises(FileError, match="points to the private host"):
            fetch(net, f"http://api.example:{other_port.port}/file")
        assert other_port.paths == []
        net.answers.update({name: [["127.0.0.1"]] for name in ("other.example", "api.browseract.com")})
        with pytest.raises(FileError, match=r"points to the private host other\.example"):
            fetch(net, "http://other.example:{port}/secret")
        with (
            closing(session_for(DEFAULT_BASE_URL)) as net.session,
            pytest.raises(FileError, match=r"points to the private host api\.browseract\.com"),
        ):
            fetch(net, "http://api.browseract.com:{port}/secret")
        assert net.host.paths == []

    def test_file_host_whose_first_ip_address_fails_is_reached_at_the_next(self, net, monkeypatch):
        net.answers["files.example"] = [["127.0.0.3", "127.0.0.1"]]
        monkeypatch.setattr(download, "is_private", lambda host: False)
        assert fetch(net, "http://files.example:{port}/file") == CONTENT

    @pytest.mark.parametrize("scheme", ["https", "HTTPS"])
    def test_file_redirect_from_https_to_http_is_refused(self, net, monkeypatch, scheme):
        send = net.session.send

        def redirected(request, **arguments):
            request = request.copy()
            request.url = request.url.replace("https://", "http://")
            return send(request, **arguments)

        monkeypatch.setattr(net.session, "send", redirected)
        monkeypatch.setattr(download, "is_private", lambda host: False)
        net.host.redirect_to(f"{net.api}/file")
        with pytest.raises(FileError, match="redirected from https to another scheme"):
            fetch(net, f"{scheme}://api.example:{{port}}/redirect")

    def test_proxy_gets_only_requests_for_hosts_that_are_not_private_by_name_or_number(self, net, monkeypatch):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{net.host.port}")
        for url in ("http://10.0.0.7/secret", "http://metadata.google.internal/secret"):
            with pytest.raises(FileError, match="points to the private host"):
                fetch(net, url)
        assert net.host.paths == []
        # The proxy resolves names.
        assert fetch(net, "http://files.example/file") == CONTENT

    def test_file_request_has_no_credentials_and_its_url_is_in_no_log(self, net, tmp_path, monkeypatch, caplog):
        netrc = tmp_path / "netrc"
        netrc.write_text("machine api.example login ada password hunter2")
        monkeypatch.setenv("NETRC", str(netrc))
        net.host.redirect_to("/odd?signature=x")
        # urllib3 warns of malformed headers.
        net.host.replies["odd"] = OK + b"Content-Length: 1\r\nno header\r\n\r\nx"
        monkeypatch.setattr(threading.current_thread(), "name", THREAD)
        for name in ("urllib3", "urllib3.connectionpool", "urllib3.connection"):
            caplog.set_level(logging.DEBUG, logger=name)
        assert fetch(net, f"{net.api}/redirect?signature=y", size=1) == b"x"
        with pytest.raises(FileError):
            fetch(net, "http://files.example/a?signature=z")
        assert not [record for record in caplog.records if "signature" in record.getMessage()]
        assert net.host.paths == ["/redirect?signature=y", "/odd?signature=x"]
        assert not any("authorization" in head or "app-secret" in head for head in net.host.heads)


@cases(
    ("gzip", "gzip", gzip.compress(CONTENT), CONTENT),
    ("deflate", "deflate", zlib.compress(b"deflated"), b"deflated"),
    ("not gzip", "gzip", b"plain", None),
    ("unknown coding", "?", b"plain", None),
)
def test_file_response_in_a_content_coding_is_decoded_or_raises_file_error(net, coding, body, content):
    net.host.replies["file"] = reply(body, f"Content-Encoding: {coding}")
    if content is not None:
        assert fetch(net, f"{net.api}/file") == content
        net.host.replies["file"] = reply(body[:-1], f"Content-Encoding: {coding}", length=len(body))
    with pytest.raises(FileError, match=r"its host (cannot|closed|sent it with the content coding '\?')"):
        fetch(net, f"{net.api}/file")


@cases(("identity", "identity"), ("gzip", "gzip"))
def test_body_that_is_too_short_is_noticed_also_if_urllib3_accepts_it(net, monkeypatch, coding):
    send = net.session.send

    def send_as_with_urllib3_1(*arguments, **options):
        response = send(*arguments, **options)
        response.raw.enforce_content_length = False
        return response

    monkeypatch.setattr(net.session, "send", send_as_with_urllib3_1)
    body = gzip.compress(CONTENT) if coding == "gzip" else CONTENT
    net.host.replies["file"] = reply(body[:-1], f"Content-Encoding: {coding}", length=len(body))
    with pytest.raises(FileError, match=r"closed the connection after 1[0-9]+ bytes, too early") as caught:
        fetch(net, f"{net.api}/file")
    assert caught.value.temporary


def test_body_of_a_redirect_is_not_read(net):
    sent: list[bytes] = []

    def flood(connection) -> None:
        connection.sendall(reply(b"", "Location: /plain/a", status="302 Found", length=10**9))
        while len(sent) < 10_000:
            connection.sendall(CONTENT)
            sent.append(CONTENT)

    net.host.replies["flood"] = flood
    assert fetch(net, f"{net.api}/flood") == CONTENT
    assert len(sent) < 10_000


def test_stopped_session_ends_at_the_next_bytes_and_sends_no_further_request(net):
    half = len(CONTENT) // 2

    def stop_after_half(connection) -> None:
        connection.sendall(reply(CONTENT[:half], length=len(CONTENT)))
        net.session.stop.set()
        connection.sendall(CONTENT[half:])

    net.host.replies["file"] = stop_after_half
    for _ in range(2):
        with pytest.raises(Stopped):
            fetch(net, f"{net.api}/file")
    assert net.host.paths == ["/file"]
