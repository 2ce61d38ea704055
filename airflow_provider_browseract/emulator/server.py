"""Serve an emulator over HTTP in separate threads, with the faults of requests, and send its callbacks."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from airflow_provider_browseract.emulator.account import CALLBACK, Emulator
from airflow_provider_browseract.emulator.faults import CallbackFault, RequestFault
from airflow_provider_browseract.emulator.records import DeliveryRecord, Response, utc
from airflow_provider_browseract.emulator.runs import Run

log = logging.getLogger(__name__)

GRACE = 2.0
"""Seconds that responses may take to be sent when the server stops."""
ATTEMPTS = 3
"""How often a callback is tried. Only a 5xx response leads to another attempt."""


@contextlib.contextmanager
def serving(emulator: Emulator, host: str, port: int) -> Iterator[None]:
    """Serve an emulator at its URL while the context lasts.

    :raises OSError: if the port is already in use
    """
    with EmulatorServer(emulator, host, port) as server:
        emulator.url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_address[1]}"
        sender = CallbackSender(emulator)
        threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
        threading.Thread(target=sender.run, daemon=True).start()
        try:
            yield
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
        """Accept no more connections, and end those that are open after the response that is being sent."""
        self.shutdown()
        connections, until = dict(self._connections), time.monotonic() + GRACE
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        for thread in connections.values():
            thread.join(max(0.0, until - time.monotonic()))


class _Connection(BaseHTTPRequestHandler):
    """A connection of a client, and its current request."""

    server: EmulatorServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60
    """Seconds for which an idle connection is kept, about as long as load balancers in front of APIs keep theirs."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # whatever the method of the request is
            return self._respond
        raise AttributeError(name)

    def handle_expect_100(self) -> bool:
        """Tell a client at once that it may send the body."""
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def _respond(self) -> None:
        emulator, (address, _, query) = self.server.emulator, self.path.partition("?")
        if "transfer-encoding" in self.headers:
            self.close_connection = True
            return self.send_error(411)
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            return None  # the client has gone
        headers = dict(self.headers.items())
        record, fault, response = emulator.receive(self.command, unquote(address), query, headers, body)
        if fault is None and record.endpoint is not None and emulator.latency[1]:
            fault = RequestFault.slow(random.uniform(*emulator.latency))
        if fault is not None and fault.kind in ("slow", "hung"):
            # Something can be read when the client disconnects or the server stops.
            self.connection.settimeout(fault.seconds if fault.kind == "slow" else None)
            with contextlib.suppress(OSError):
                self.connection.recv(1, socket.MSG_PEEK)
            self.connection.settimeout(self.timeout)
        if fault is not None and fault.kind == "reset":
            # Closing a socket with a linger time of zero resets the connection.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = self.close_connection or response is None
        if response is not None:
            # Recorded before the response is sent, so that a client with the response finds the record.
            record.status = response.status
            self._send(response)
        return None

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        fields = {"Content-Type": response.content_type, "Content-Length": str(len(response.body))}
        for name, value in {**fields, **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and response.status not in (204, 304):
            self.wfile.write(response.body)

    def log_message(self, *_: Any) -> None:
        """Log nothing: the emulator records requests."""


class CallbackSender:
    """Lets an emulator's runs proceed, and sends their callbacks, in order for each run."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._stopping = threading.Event()
        self._last: dict[str, threading.Thread] = {}

    def run(self) -> None:
        """Send callbacks until :meth:`stop`."""
        emulator = self._emulator
        with emulator.changed:
            while not self._stopping.is_set():
                for run in emulator.take_transitions():
                    self._send(run)
                change = emulator.next_change()
                wait = threading.TIMEOUT_MAX if change is None else change[0] - emulator.clock()
                emulator.changed.wait(min(max(wait, 0.0), threading.TIMEOUT_MAX))

    def stop(self) -> None:
        """Send nothing more. A request that has been sent is not waited for."""
        self._stopping.set()
        with self._emulator.changed:
            self._emulator.changed.notify_all()

    def _send(self, run: Run) -> None:
        """Start to deliver the callbacks of a status change."""
        urls = {"status_change_callback_url": run.status_change_callback_url}
        if run.finished_at is not None:
            urls["callback_url"] = run.callback_url
        addresses = {kind: url for kind, url in urls.items() if url is not None}
        if not addresses:
            return
        about = {"workflow_id": run.workflow_id, "task_id": run.id, "status": run.status}
        fault = self._emulator.take_fault(CALLBACK, **about) or run.workflow.callback_fault
        is_late = fault is not None and fault.kind == "late"
        after = None if is_late else self._last.get(run.id)
        sending = threading.Thread(target=self._deliver, args=(run, addresses, fault, after), daemon=True)
        sending.start()
        if not is_late:
            self._last[run.id] = sending

    def _deliver(
        self, run: Run, addresses: dict[str, str], fault: CallbackFault | None, after: threading.Thread | None
    ) -> None:
        """Deliver the callbacks of a status change, after those of the change before."""
        emulator, fault_kind = self._emulator, fault.kind if fault else None
        try:
            with emulator.changed:
                described = emulator.apis[run.api_version].describe(run)
            rewritten = emulator.rewritten(CALLBACK, described)
            body = json.dumps(rewritten).encode()
        except Exception:
            log.exception("A callback is not sent, because of an error")
            return
        if rewritten is None:
            return
        if after is not None:
            after.join()
        self._stopping.wait(fault.seconds if fault else 0.0)
        for kind, url in [*addresses.items()] * (fault.copies if fault else 1):
            for attempt in range(1, ATTEMPTS + 1):
                self._stopping.wait(emulator.callback_retry_delay if attempt > 1 else 0.0)
                if self._stopping.is_set():
                    return
                status, error = self._post(url, body, fault_kind)
                if self._stopping.is_set():
                    return
                now = utc(emulator.clock())
                emulator.deliveries.append(
                    DeliveryRecord(run.id, url, kind, attempt, run.status, status, error, fault_kind, now)
                )
                if status is None or status < 500:
                    break

    def _post(self, url: str, body: bytes, fault: str | None) -> tuple[int | None, str | None]:
        """Send a callback, and return the status of the response, or why there is none."""
        if fault == "lost":
            return None, "lost"
        limit, parts = self._emulator.callback_timeout, urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        try:
            with contextlib.closing(kind(parts.hostname or "", parts.port, timeout=limit)) as connection:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                if fault == "hung_up":
                    return None, "hung up"
                return connection.getresponse().status, None
        except TimeoutError:
            return None, f"no response within {limit:g} s"
        except (OSError, HTTPException, ValueError) as problem:
            return None, f"{type(problem).__name__}: {problem}"
