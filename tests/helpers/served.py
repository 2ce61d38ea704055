"""An application, or a function for each connection, behind a port of this machine."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fastapi import FastAPI, Response

from tests.helpers.local_airflow import wait_for


@contextmanager
def served(app: FastAPI) -> Iterator[int]:
    settings: dict[str, Any] = {"loop": "asyncio", "log_level": "warning", "log_config": None}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, timeout_graceful_shutdown=2, **settings))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for("The server", lambda: server.started, timeout=15, every=0.02)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def responding(response: Response) -> Iterator[str]:
    """Serve a response to every request, and yield the address."""
    app = FastAPI()
    app.add_api_route("/{path:path}", lambda: response, methods=["POST", "GET"])
    with served(app) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def listening() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Yield a function that handles each connection to a port with a function, and returns the port."""
    listeners = []

    def listen(handle: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                handle(connection)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=one, args=listener.accept()[:1], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        return int(listener.getsockname()[1])

    try:
        yield listen
    finally:
        for listener in listeners:
            # Closing alone does not wake a thread that waits in accept().
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def read_request(connection: socket.socket) -> bytes:
    """Read a request to its end. A server that closes before would reset the connection."""
    request, length = b"", 0
    while (b"\r\n\r\n" not in request or len(request.partition(b"\r\n\r\n")[2]) < length) and (
        data := connection.recv(65536)
    ):
        request += data
        length = int(found[1]) if (found := re.search(rb"(?i)\r\ncontent-length: (\d+)", request)) else 0
    return request


def certificate_in(folder: Path) -> Path:
    """Return a new file with a certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    # The clock of the machine may be set back while a test runs.
    now = datetime.now(timezone.utc)
    yesterday, tomorrow = now - timedelta(days=1), now + timedelta(days=1)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), yesterday, tomorrow)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + signed.public_bytes(Encoding.PEM)
    )
    return pem


def with_tls(pem: Path, handle: Callable[[Any], object]) -> Callable[[Any], None]:
    """Return what handles a connection with a certificate, and gives a function the secured socket."""
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def handle_secured(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            handle(secured)

    return handle_secured
