"""Serve an emulator over HTTP in separate threads, with the faults of requests."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from airflow_provider_browseract.emulator.callbacks import CallbackSender
from airflow_provider_browseract.emulator.control import Emulator, name_of
from airflow_provider_browseract.emulator.faults import RequestFault
from airflow_provider_browseract.emulator.records import RequestRecord, Response, utc

log = logging.getLogger(__name__)

GRACE = 2.0
"""Seconds that a response may take to be sent when the server stops."""


@contextlib.contextmanager
def serving(emulator: Emulator, host: str, port: int) -> Iterator[str]:
    """Serve an emulator while the context lasts, and yield its URL.

    :raises OSError: if the port is already in use
    """
    with EmulatorServer(emulator, host, port) as server:
        sender = CallbackSender(emulator)
        accepting = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
        for thread in (sender, accepting):
            thread.start()
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{server.server_address[1]}"
        finally:
            sender.stop()
            server.stop()


class EmulatorServer(socketserver.TCPServer):
    """The server of an emulator, with a thread for each connection."""

    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, emulator: Emulator, host: str, port: int) -> None:
        self.emulator = emulator
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._connections: dict[Any, threading.Thread] = {}
        super().__init__((host, port), _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection."""
        thread = threading.Thread(target=self._serve, args=(request, client_address), daemon=True)
        self._connections[request] = thread
        thread.start()

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except ConnectionError:
            pass  # the client has gone
        except Exception:
            log.exception("The emulator cannot respond to a request, because of an error")
        # Not shutdown_request(), which closes a connection normally that has to be reset.
        self.close_request(request)
        del self._connections[request]

    def stop(self) -> None:
        """Stop to accept connections, and end those that are open, without waiting for further requests on them."""
        self.shutdown()
        for connection, thread in list(self._connections.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
            thread.join(GRACE)


class _Connection(BaseHTTPRequestHandler):
    """A connection of a client, and its current request."""

    server: EmulatorServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60
    """Seconds for which an idle connection is kept, about as long as load balancers in front of APIs keep theirs."""

    def _respond(self) -> None:
        emulator, (address, _, query) = self.server.emulator, self.path.partition("?")
        path = unquote(address)
        headers = {name.lower(): value for name, value in self.headers.items()}
        name = name_of(self.command, path)
        fault = emulator.take_fault(name)
        request = RequestRecord(
            method=self.command,
            path=path,
            query=query,
            endpoint=name,
            fault=None if fault is None else fault.kind,
            with_key="authorization" in headers,
            at=utc(emulator.clock()),
        )
        emulator.begin_request(request)
        # A client that is still sending would not always notice a reset.
        body = self.rfile.read(int(headers.get("content-length", 0)))
        response = None
        if fault is None or fault.processed:
            response = emulator.handle(self.command, path, query, headers, body)
        if fault is None and name is not None and emulator.latency[1]:
            fault = RequestFault.slow(random.uniform(*emulator.latency))
        if fault is not None and name is not None:
            response = self._go_wrong(name, fault, response)
        if response is None:
            self.close_connection = True
            return
        # Recorded before the response is sent, so that a client with the response finds the record.
        emulator.end_request(request, response.status)
        self._send(response)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _respond

    def _go_wrong(self, name: str, fault: RequestFault, response: Response | None) -> Response | None:
        """Wait or prepare to close the connection, and return what is responded, if there is a response at all."""
        if fault.kind in ("slow", "hung"):
            # Something can be read when the client disconnects or the server stops.
            self.connection.settimeout(fault.seconds if fault.kind == "slow" else None)
            with contextlib.suppress(OSError):
                self.connection.recv(1, socket.MSG_PEEK)
            self.connection.settimeout(self.timeout)
        if fault.kind == "reset":
            # Closing a socket with a linger time of zero resets the connection.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault.http_status:
            return self.server.emulator.faulty(name, fault)
        return response if fault.kind == "slow" else None

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        length = str(len(response.body))
        for name, value in {
            "Content-Type": response.content_type,
            "Content-Length": length,
            **response.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def log_message(self, *_: Any) -> None:
        """Log nothing: the emulator records requests."""
