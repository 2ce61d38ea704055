"""What is known of a call that fails around TLS: each test with both clients and with real servers on this machine."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from airflow_provider_browseract.api import client, errors, v2
from airflow_provider_browseract.api.retries import RetryPolicy
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.emulator import Emulator
from tests.served import certificate_in, listening

START = v2.run_task("70")
HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"
"""A TLS record with the fatal alert 40."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate for 127.0.0.1, signed by itself, and its key."""
    return certificate_in(tmp_path_factory.mktemp("tls"))


CERTIFICATES = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]


@pytest.fixture(params=CERTIFICATES)
def trusted(request, certificate, monkeypatch) -> Iterator[None]:
    """Both clients trust the certificate, no matter which of the variables names it."""
    for name in (*CERTIFICATES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(request.param, str(certificate))
    client._ssl_context.cache_clear()
    yield
    client._ssl_context.cache_clear()


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Handle each connection to a port of this machine with a function, and return the port."""
    with listening() as listen:
        yield listen


@pytest.fixture
def tls(certificate, listen):
    """Listen with TLS: the function gets the secured socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def listen_(handle: Callable[[ssl.SSLSocket], None]) -> int:
        def secure(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as secured:
                handle(secured)

        return int(listen(secure))

    return listen_


@pytest.fixture
def start(kind):
    """Send a start to a port of this machine over TLS, and return the error that it ends with."""

    def start_(port: int, connect_timeout: float = 20.0) -> errors.BrowserActError:
        settings = ClientSettings(
            "app-key",
            f"https://127.0.0.1:{port}",
            connect_timeout=connect_timeout,
            read_timeout=20,
            retries=RetryPolicy(budget=0.05, first_pause=0.01),
            connection="browseract_prod",
        )
        with pytest.raises(errors.BrowserActError) as caught:
            kind(settings).send(START)
        return caught.value

    return start_


def whole_request(secured: ssl.SSLSocket) -> bytes:
    """Read a start; a server that closes before would reset the connection."""
    request = b""
    while not request.endswith(b"}") and (data := secured.recv(65536)):
        request += data
    return request


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class TestFailedHandshake:
    def close_at_once(self, connection: socket.socket) -> None:
        connection.recv(65536)

    def reset_at_once(self, connection: socket.socket) -> None:
        connection.recv(65536)
        reset(connection)

    def send_an_alert(self, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(HANDSHAKE_FAILURE)

    def say_nothing(self, connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    @pytest.mark.parametrize("handle", ["close_at_once", "reset_at_once", "send_an_alert", "say_nothing"])
    def test_failed_tls_handshake_is_a_connection_error_with_nothing_processed(self, listen, start, handle):
        error = start(listen(getattr(self, handle)), connect_timeout=0.5 if handle == "say_nothing" else 20.0)
        assert type(error) is errors.ConnectionFailedError
        assert error.not_processed is True

    def test_closed_port_is_a_connection_error_with_nothing_processed(self, listen, start):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        error = start(port)
        assert type(error) is errors.ConnectionFailedError
        assert error.not_processed is True
        assert "TLS" not in error.brief

    def test_failed_tls_handshake_is_named_in_the_error(self, listen, start):
        assert "the TLS handshake failed (" in start(listen(self.send_an_alert)).brief

    def test_untrusted_certificate_is_a_permanent_error_that_names_the_remedy(self, tls, start):
        received = []
        error = start(tls(lambda secured: received.append(whole_request(secured))))
        assert isinstance(error, errors.UntrustedCertificateError)
        assert "certificate is not trusted (self-signed certificate)" in error.brief
        assert "set REQUESTS_CA_BUNDLE" in str(error)
        assert "connection 'browseract_prod'" in str(error)
        assert (error.not_processed, error.temporary) == (True, False)
        assert not any(received)

    def test_certificates_of_certifi_are_used_where_no_variable_names_others(self, tls, start, monkeypatch):
        for name in (*CERTIFICATES, "SSL_CERT_DIR"):
            monkeypatch.delenv(name, raising=False)
        client._ssl_context.cache_clear()
        try:
            assert isinstance(start(tls(lambda secured: None)), errors.UntrustedCertificateError)
        finally:
            client._ssl_context.cache_clear()

    @pytest.mark.usefixtures("trusted")
    def test_certificate_for_another_host_is_reported_with_the_host_name(self, kind, tls):
        settings = ClientSettings("app-key", f"https://localhost:{tls(lambda secured: None)}")
        with pytest.raises(errors.UntrustedCertificateError, match="not valid for 'localhost'"):
            kind(settings).send(START)

    def test_host_that_uses_plain_http_is_reported_with_the_remedy(self, start):
        with Emulator().serve() as running:
            error = start(int(running.url.rpartition(":")[2]))
            assert running.requests == []
        assert isinstance(error, errors.PlainHttpError)
        assert "the host uses plain HTTP" in error.brief
        assert "write http:// in front of the host of the Airflow connection 'browseract_prod'" in str(error)
        assert (error.not_processed, error.temporary) == (True, False)


@pytest.mark.usefixtures("trusted")
class TestErrorAfterHandshake:
    def close_without_an_answer(self, secured: ssl.SSLSocket) -> None:
        whole_request(secured)

    def reset_without_an_answer(self, secured: ssl.SSLSocket) -> None:
        whole_request(secured)
        reset(secured)

    def answer_without_tls(self, secured: ssl.SSLSocket) -> None:
        """Send bytes that are no TLS record, which OpenSSL reports as it does for a server without TLS."""
        whole_request(secured)
        with socket.socket(fileno=os.dup(secured.fileno())) as raw:
            raw.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def answer_in_part(self, secured: ssl.SSLSocket) -> None:
        whole_request(secured)
        secured.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id": "7"')
        with socket.socket(fileno=os.dup(secured.fileno())) as raw:
            raw.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def send_an_alert(self, secured: ssl.SSLSocket) -> None:
        whole_request(secured)
        with socket.socket(fileno=os.dup(secured.fileno())) as raw:
            raw.sendall(HANDSHAKE_FAILURE)

    @pytest.mark.parametrize(
        "handle",
        [
            "close_without_an_answer",
            "reset_without_an_answer",
            "answer_without_tls",
            "answer_in_part",
            "send_an_alert",
        ],
    )
    def test_error_after_the_tls_handshake_is_a_lost_response(self, tls, start, handle):
        error = start(tls(getattr(self, handle)))
        assert type(error) is errors.ResponseLostError
        assert error.not_processed is False

    def test_complete_response_after_the_tls_handshake_is_read(self, kind, tls):
        def answer(secured: ssl.SSLSocket) -> None:
            whole_request(secured)
            secured.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"id": "7"}')

        assert kind(ClientSettings("app-key", f"https://127.0.0.1:{tls(answer)}")).send(START).id == "7"


@pytest.mark.usefixtures("trusted")
class TestBehindAProxy:
    @pytest.fixture
    def behind(self, listen, start, monkeypatch):
        """Send a start to a port, through a proxy that handles its connections with a function."""

        def send(handle: Callable[[socket.socket], None], port: int = 9) -> errors.BrowserActError:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listen(handle)}")
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
            return start(port)

        return send

    def close_at_once(self, connection: socket.socket) -> None:
        connection.recv(65536)

    def reset_at_once(self, connection: socket.socket) -> None:
        connection.recv(65536)
        reset(connection)

    def refuse(self, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    def answer_in_part(self, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 2")

    def talk_nonsense(self, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"nonsense\r\n\r\n")

    def tunnel(self, connection: socket.socket) -> None:
        """Do what a proxy does for CONNECT, while both sides are there."""
        port = int(connection.recv(65536).split()[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as other:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self.pipe, args=(other, connection), daemon=True)
            back.start()
            self.pipe(connection, other)
            back.join(10)

    def pipe(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    @pytest.mark.parametrize("handle", ["close_at_once", "reset_at_once", "refuse", "answer_in_part", "talk_nonsense"])
    def test_start_is_not_processed_when_the_proxy_opens_no_tunnel(self, behind, handle):
        error = behind(getattr(self, handle))
        assert type(error) is errors.ConnectionFailedError
        assert error.not_processed is True

    def test_failed_tls_handshake_in_a_proxy_tunnel_proves_the_start_was_not_processed(self, behind, listen):
        error = behind(self.tunnel, listen(lambda connection: connection.recv(65536) and None))
        assert type(error) is errors.ConnectionFailedError
        assert error.not_processed

    def test_response_lost_in_a_proxy_tunnel_raises_and_the_start_is_sent_once(self, behind, tls):
        received = []
        error = behind(self.tunnel, tls(lambda secured: received.append(whole_request(secured))))
        assert type(error) is errors.ResponseLostError
        assert received[0].startswith(b"POST /v2/workflow/run-task ")
        assert len(received) == 1
