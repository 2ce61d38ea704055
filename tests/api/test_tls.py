"""What is known of a call that fails around TLS: each test with both clients and with real servers on this machine."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api import async_client, v2
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.emulator import Emulator
from tests.helpers.cases import cases
from tests.helpers.served import certificate_in, read_request, with_tls

START = v2.run("70")
HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"
"""A TLS record with the fatal alert 40."""

HASTY: dict[str, Any] = {"connection": "shop", "read_timeout": 20, "retry_budget": 0.05, "first_pause": 0.01}
CERTIFICATES = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]
Act = Callable[[socket.socket], object]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return certificate_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def no_variables(monkeypatch) -> Iterator[None]:
    for name in (*CERTIFICATES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    async_client._ssl_context.cache_clear()
    yield
    async_client._ssl_context.cache_clear()


@pytest.fixture(params=CERTIFICATES)
def trusted(request, certificate, monkeypatch, no_variables) -> None:
    monkeypatch.setenv(request.param, str(certificate))


@pytest.fixture
def tls(certificate, listen):
    return lambda handle: listen(with_tls(certificate, handle))


@pytest.fixture
def start(kind):
    def start_(port: int, connect_timeout: float = 20.0) -> errors.BrowserActError:
        url = f"https://127.0.0.1:{port}"
        settings = Settings(api_key="app-key", base_url=url, connect_timeout=connect_timeout, **HASTY)
        with pytest.raises(errors.BrowserActError) as caught:
            kind(settings).send(START)
        return caught.value

    return start_


NOT_SENT, LOST = (errors.ConnectionFailedError, True, True), (errors.ResponseLostError, False, True)
NOT_SENT_FOR_GOOD = (errors.ConnectionFailedError, True, False)


def known(error: errors.BrowserActError) -> tuple[type[errors.BrowserActError], bool, bool]:
    return type(error), error.not_processed, error.temporary


def close(connection: socket.socket) -> None:
    """Do nothing, after which the connection is closed."""


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def keep_silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def write(data: bytes) -> Act:
    return lambda connection: connection.sendall(data)


def write_without_tls(data: bytes, before: bytes = b"") -> Act:
    """Send bytes that are no TLS record of this connection, which OpenSSL reports as it does for a plain server."""

    def act(secured: socket.socket) -> None:
        secured.sendall(before)
        with socket.socket(fileno=os.dup(secured.fileno())) as raw:
            raw.sendall(data)

    return act


def after_first_bytes(act: Act) -> Act:
    return lambda connection: (connection.recv(65536), act(connection))


def after_request(act: Act) -> Act:
    return lambda connection: (read_request(connection), act(connection))


class TestFailedHandshake:
    @cases(
        ("closed", close, ""),
        ("reset", reset, ""),
        ("alert", write(HANDSHAKE_FAILURE), "the TLS handshake failed ("),
        ("silence", keep_silent, ""),
    )
    def test_failed_tls_handshake_is_a_connection_error_with_nothing_processed(self, listen, start, act, words):
        error = start(listen(after_first_bytes(act)), connect_timeout=0.5 if act is keep_silent else 20.0)
        assert known(error) == NOT_SENT
        assert words in error.brief

    @pytest.mark.usefixtures("no_variables")
    def test_untrusted_certificate_is_a_permanent_error_that_names_the_remedy(self, tls, start):
        received = []
        error = start(tls(lambda secured: received.append(read_request(secured))))
        assert known(error) == NOT_SENT_FOR_GOOD
        assert "certificate is not trusted (self-signed certificate)" in error.brief
        assert "set REQUESTS_CA_BUNDLE" in str(error)
        assert "connection 'shop'" in str(error)
        assert not any(received)

    @pytest.mark.usefixtures("trusted")
    def test_certificate_for_another_host_is_reported_with_the_host_name(self, kind, tls):
        settings = Settings(api_key="app-key", base_url=f"https://localhost:{tls(close)}")
        with pytest.raises(errors.ConnectionFailedError, match="not valid for 'localhost'"):
            kind(settings).send(START)

    def test_host_that_uses_plain_http_is_reported_with_the_remedy(self, start):
        with Emulator().serve() as running:
            error = start(int(running.url.rpartition(":")[2]))
            assert running.requests == []
        assert known(error) == NOT_SENT_FOR_GOOD
        assert "the host uses plain HTTP" in error.brief
        assert "write http:// in front of the host of the Airflow connection 'shop'" in str(error)


BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@pytest.mark.usefixtures("trusted")
class TestErrorAfterHandshake:
    @cases(
        ("closed without a response", close),
        ("reset without a response", reset),
        ("response without TLS", write_without_tls(BAD_REQUEST)),
        ("part of a response", write_without_tls(BAD_REQUEST, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")),
        ("alert", write_without_tls(HANDSHAKE_FAILURE)),
    )
    def test_error_after_the_tls_handshake_is_a_lost_response(self, tls, start, act):
        assert known(start(tls(after_request(act)))) == LOST

    def test_complete_response_after_the_tls_handshake_is_read(self, kind, tls):
        port = tls(after_request(write(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"id": "7"}')))
        assert kind(Settings(api_key="app-key", base_url=f"https://127.0.0.1:{port}")).send(START).id == "7"


def pipe(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def tunnel(connection: socket.socket) -> None:
    """Do what a proxy does for CONNECT, while both sides are there."""
    port = int(connection.recv(65536).split()[1].rpartition(b":")[2])
    with socket.create_connection(("127.0.0.1", port)) as other:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=pipe, args=(other, connection), daemon=True)
        back.start()
        pipe(connection, other)
        back.join(10)


@pytest.mark.usefixtures("trusted")
class TestBehindAProxy:
    @pytest.fixture
    def behind(self, listen, start, monkeypatch):
        def send(handle: Act, port: int = 9) -> errors.BrowserActError:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listen(handle)}")
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
            return start(port)

        return send

    @cases(
        ("closed", close),
        ("reset", reset),
        ("refusal", write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")),
        ("part of a response", write(b"HTTP/1.1 2")),
        ("nonsense", write(b"nonsense\r\n\r\n")),
    )
    def test_start_is_not_processed_when_the_proxy_opens_no_tunnel(self, behind, act):
        assert known(behind(after_first_bytes(act))) == NOT_SENT

    def test_failed_tls_handshake_in_a_proxy_tunnel_proves_the_start_was_not_processed(self, behind, listen):
        assert known(behind(tunnel, listen(after_first_bytes(close)))) == NOT_SENT

    def test_response_lost_in_a_proxy_tunnel_raises_and_the_start_is_sent_once(self, behind, tls):
        received = []
        error = behind(tunnel, tls(lambda secured: received.append(read_request(secured))))
        assert known(error) == LOST
        assert received[0].startswith(b"POST /v2/workflow/run-task ")
        assert len(received) == 1
