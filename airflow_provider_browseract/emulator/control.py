"""The emulator as a test uses it: its responses, faults, records and server."""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import http
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_browseract.emulator.account import Account
from airflow_provider_browseract.emulator.endpoints import Endpoint
from airflow_provider_browseract.emulator.errors import ApiError, message_of
from airflow_provider_browseract.emulator.faults import ArmedFault, CallbackFault, RequestFault
from airflow_provider_browseract.emulator.pages import FILES, HTML, show
from airflow_provider_browseract.emulator.records import DeliveryRecord, RequestRecord, Response, envelope, iso
from airflow_provider_browseract.emulator.v2 import ENDPOINTS as ENDPOINTS_OF_V2
from airflow_provider_browseract.emulator.v3 import ENDPOINTS as ENDPOINTS_OF_V3

ENDPOINTS = {**ENDPOINTS_OF_V2, **ENDPOINTS_OF_V3}
"""The endpoints of both versions by name."""

EVERY_ENDPOINT, DOWNLOAD_FILE, CALLBACK = "*", "download-file", "callback"
"""What faults and rewrites can be about besides an endpoint of the API."""

HTML_PAGE = b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>Not the API</h1></body></html>"


@dataclass(frozen=True)
class RunningEmulator:
    """An emulator that is being served at a URL."""

    url: str
    emulator: Emulator

    @property
    def api_key(self) -> str:
        """The API key it accepts."""
        return self.emulator.api_key

    @property
    def connection(self) -> dict[str, str]:
        """The Airflow connection to the emulator, as ``AIRFLOW_CONN_...`` takes it in JSON."""
        return {"conn_type": "browseract", "host": self.url, "password": self.api_key}


class Emulator(Account):
    """An emulated BrowserAct that a test controls and serves.

    The settings can be given as keyword arguments, and changed later: ``Emulator(concurrency=5)``. It is safe to use
    from several threads.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._faults: list[ArmedFault] = []
        self._rewrites: list[tuple[str, Callable[[Any], Any]]] = []
        self._requests: list[RequestRecord] = []
        self._deliveries: list[DeliveryRecord] = []
        self._serving = False

    def handle(
        self, method: str, path: str, query: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """Respond to a request, without HTTP and without faults.

        :param query: the query string as it is sent
        :param headers: the headers by their names in lower case
        """
        endpoint, given = find_endpoint(method, path), headers or {}
        if endpoint is None:
            with self.changed:
                page = show(self, path, self.catch_up()) or self._no_such_route(path, 404)
            return page if method == "GET" or page.status == 404 else self._no_such_route(path, 405, Allow="GET")
        if endpoint.method != method:
            return self._no_such_route(path, 405, Allow=endpoint.method)
        scheme, _, key = given.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self.api_key.encode()):
            return self.error(endpoint.name, 401, 401)
        try:
            with self.changed:
                self.catch_up()
                value = endpoint.call(self, path, query, given, body)
        except ApiError as error:
            return self.error(endpoint.name, error.code.value[0], 400, detail=error.detail)
        except Exception as error:  # noqa: BLE001 - a test may have broken something
            return self.error(endpoint.name, 500, 500, f"{type(error).__name__}: {error}")
        return self._respond(endpoint.name, value, 200)

    def error(
        self, endpoint: str, code: int, status: int, message: str | None = None, detail: str = "", **headers: str
    ) -> Response:
        """Return an error response of an endpoint.

        :param status: the HTTP status
        :param message: default: the message that BrowserAct has for the code
        :param detail: what follows the message
        """
        known = message_of(code, ENDPOINTS[endpoint].version if endpoint in ENDPOINTS else "v2")
        text = message or known or ("Internal error" if status >= 500 else "Refused")
        return self._respond(endpoint, envelope(code, text + detail, self.clock()), status, **headers)

    def faulty(self, endpoint: str, fault: RequestFault) -> Response:
        """Return what is responded because of a fault."""
        status, after = fault.http_status, fault.retry_after
        if fault.kind in ("html", "lost_response"):
            return Response(status, HTML_PAGE, HTML)
        if fault.kind == "redirect":
            return Response(status, b"", HTML, {"Location": fault.location})
        if fault.kind == "gateway":
            return Response(status, json.dumps({"message": http.HTTPStatus(status).phrase}).encode())
        headers = {} if after is None else {"Retry-After": after if isinstance(after, str) else f"{after:g}"}
        return self.error(endpoint, fault.code or status, status, fault.message, **headers)

    def rewrite(self, endpoint: str, rewrite: Callable[[Any], Any]) -> None:
        """Change what an endpoint responds from now on, also its errors::

            emulator.rewrite("get-task", lambda body: {**body, "status": "dreaming"})

        :param endpoint: BrowserAct's name of an endpoint; ``*`` for every endpoint; ``callback`` for callbacks
        :param rewrite: returns another body, given the JSON value of the body, or None if it is empty. A result of None
            makes the response an empty one with status 200, and no callback. Rewrites that were added before come first
        :raises ValueError: if there is no such endpoint
        """
        _check_endpoint(endpoint, CALLBACK)
        self._rewrites.append((endpoint, rewrite))

    def rewritten(self, endpoint: str, body: Any) -> Any:
        """Return what the rewrites make of a body."""
        for name, rewrite in self._rewrites:
            if name == endpoint or (name == EVERY_ENDPOINT and endpoint != CALLBACK):
                body = rewrite(body)
        return body

    def fault(self, endpoint: str, fault: RequestFault, *, times: int | None = None, skip: int = 0) -> None:
        """Add a fault of requests. The fault that was added first comes first.

        :param endpoint: BrowserAct's name of an endpoint, such as ``run-task`` or ``create-run``; ``*`` for every
            endpoint of both versions of the API; ``download-file`` for files
        :param fault: the fault
        :param times: how many requests it applies to; None means all until :meth:`clear_faults`
        :param skip: how many requests pass without the fault before
        :raises ValueError: if there is no such endpoint
        """
        self._arm(fault, _about(endpoint), times, skip)

    @contextlib.contextmanager
    def outage(self, endpoint: str, fault: RequestFault) -> Iterator[None]:
        """Apply a fault to every request while the context lasts. Faults that were added before come first.

        :param endpoint: as in :meth:`fault`
        :raises ValueError: if there is no such endpoint
        """
        armed = self._arm(fault, _about(endpoint), None, 0)
        try:
            yield
        finally:
            with self.changed:
                self._faults = [each for each in self._faults if each is not armed]

    def callback_fault(
        self, fault: CallbackFault, *, times: int | None = None, skip: int = 0, **about: str | None
    ) -> None:
        """Add a fault of callbacks. The fault that was added first comes first.

        :param fault: the fault
        :param times: how many callbacks it applies to; None means all until :meth:`clear_faults`
        :param skip: how many callbacks pass without the fault before
        :param about: only callbacks of the runs of one ``workflow_id`` (workflow, template or bot), of one ``task_id``,
            or that report one ``status``
        """
        given = {name: value for name, value in about.items() if value is not None}
        if unknown := about.keys() - {"workflow_id", "task_id", "status"}:
            raise TypeError(f"a callback has no {', '.join(sorted(unknown))} (but workflow_id, task_id, status)")
        if "workflow_id" in given:
            self.find(given["workflow_id"])
        self._arm(fault, {"kind": CALLBACK, **given}, times, skip)

    def clear_faults(self) -> None:
        """Remove all faults of requests and callbacks."""
        with self.changed:
            self._faults = []

    def take_fault(self, **about: str) -> Any:
        """Return the first fault that applies to a request or a callback, and count it."""
        with self.changed:
            return next((armed.fault for armed in self._faults if armed.applies_to(about)), None)

    def _arm(
        self, fault: RequestFault | CallbackFault, about: dict[str, str], times: int | None, skip: int
    ) -> ArmedFault:
        if times is not None and times < 1:
            raise ValueError(f"times must be 1 or more, or None, got {times!r}")
        if skip < 0:
            raise ValueError(f"skip must not be negative, got {skip!r}")
        armed = ArmedFault(fault, about, float("inf") if times is None else times, skip)
        with self.changed:
            self._faults = [*self._faults, armed]
        return armed

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request that arrived, oldest first."""
        with self.changed:
            return list(self._requests)

    @property
    def deliveries(self) -> list[DeliveryRecord]:
        """Every attempt to deliver a callback, oldest first."""
        with self.changed:
            return list(self._deliveries)

    def begin_request(self, request: RequestRecord) -> int:
        """Record a request without a response, and return its number."""
        with self.changed:
            self._requests.append(request)
            self.changed.notify_all()
            return len(self._requests) - 1

    def end_request(self, number: int, status: int) -> None:
        """Record the status of the response to a request."""
        with self.changed:
            self._requests[number] = dataclasses.replace(self._requests[number], status=status)
            self.changed.notify_all()

    def record_delivery(self, delivery: DeliveryRecord) -> None:
        """Record an attempt to deliver a callback."""
        with self.changed:
            self._deliveries.append(delivery)
            self.changed.notify_all()

    def wait_until(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
        """Wait until a condition is true. It is checked again after every change.

        :param condition: the condition
        :param timeout: seconds to wait at most. Default: 30
        :raises TimeoutError: if the condition is not true by then
        """
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"the condition did not become true within {timeout:g} s")
            with self.changed:
                # The condition may depend on something outside the emulator.
                self.changed.wait(min(left, 0.02))

    @contextlib.contextmanager
    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[RunningEmulator]:
        """Serve the emulator at ``http://host:port`` while the context lasts.

        :param host: address to listen on. Default: 127.0.0.1
        :param port: port to listen on. Default: 0, which selects a free port
        :raises OSError: if the port is already in use
        :raises RuntimeError: if this emulator is already being served
        """
        # Imported here, because only a served emulator needs the web server.
        from airflow_provider_browseract.emulator.server import running_server

        with self.changed:
            if self._serving:
                raise RuntimeError("this emulator is already being served")
            self._serving = True
        try:
            with running_server(self, host, port) as url:
                yield RunningEmulator(url, self)
        finally:
            self._serving = False

    def _respond(self, endpoint: str, value: Any, status: int, **headers: str) -> Response:
        value = self.rewritten(endpoint, value)
        return Response(200) if value is None else Response(status, json.dumps(value).encode(), headers=headers)

    def _no_such_route(self, path: str, status: int, **headers: str) -> Response:
        # BrowserAct's address suggests a framework that responds like this. The response itself is not documented.
        error = http.HTTPStatus(status).phrase
        body = {"timestamp": iso(self.clock()), "status": status, "error": error, "path": path}
        return Response(status, json.dumps(body).encode(), headers=headers)


def find_endpoint(method: str, path: str) -> Endpoint | None:
    """Return the endpoint of a request, or one with the same path and another method."""
    found = [endpoint for endpoint in ENDPOINTS.values() if endpoint.ids(path) is not None]
    return next((endpoint for endpoint in found if endpoint.method == method), found[0] if found else None)


def name_of(method: str, path: str) -> str | None:
    """Return the name that faults and records have for a request."""
    endpoint = find_endpoint(method, path)
    return endpoint.name if endpoint else DOWNLOAD_FILE if path.startswith(FILES) else None


def _about(endpoint: str) -> dict[str, str]:
    _check_endpoint(endpoint, DOWNLOAD_FILE)
    return {"kind": "api"} if endpoint == EVERY_ENDPOINT else {"endpoint": endpoint}


def _check_endpoint(endpoint: str, other: str) -> None:
    known = (EVERY_ENDPOINT, other, *ENDPOINTS)
    if endpoint not in known:
        raise ValueError(f"no such endpoint: {endpoint!r} (there are: {', '.join(known)})")
