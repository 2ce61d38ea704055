"""The emulator as a test uses it: its responses, faults, records and server."""

from __future__ import annotations

import contextlib
import hmac
import http
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_browseract.emulator.account import Account
from airflow_provider_browseract.emulator.endpoints import Endpoint
from airflow_provider_browseract.emulator.errors import ApiError, message_of
from airflow_provider_browseract.emulator.faults import ArmedFault, CallbackFault, RequestFault
from airflow_provider_browseract.emulator.pages import FILES, HTML, show
from airflow_provider_browseract.emulator.records import DeliveryRecord, RequestRecord, Response, envelope, iso
from airflow_provider_browseract.emulator.v2 import ENDPOINTS as ENDPOINTS_OF_V2
from airflow_provider_browseract.emulator.v3 import ENDPOINTS as ENDPOINTS_OF_V3

log = logging.getLogger(__name__)

ENDPOINTS = {**ENDPOINTS_OF_V2, **ENDPOINTS_OF_V3}
"""The endpoints of both versions by name."""

EVERY_ENDPOINT, DOWNLOAD_FILE, CALLBACK = "*", "download-file", "callback"
"""What faults and rewrites can be about besides an endpoint of the API."""

NAMES = (EVERY_ENDPOINT, *ENDPOINTS)

HTML_PAGE = b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>Not the API</h1></body></html>"


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

    @property
    def connection(self) -> dict[str, str]:
        """The Airflow connection to the emulator, as ``AIRFLOW_CONN_...`` takes it in JSON."""
        return {"conn_type": "browseract", "host": self.url, "password": self.api_key}

    def handle(
        self, method: str, path: str, query: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """Respond to a request, without HTTP and without faults.

        :param query: the query string as it is sent
        :param headers: the headers by their names in lower case
        """
        endpoint, given = find_endpoint(method, path), headers or {}
        with self.changed:
            if endpoint is None:
                page = show(self, path, self.catch_up()) or self._no_such_route(path, 404)
                return page if method == "GET" or page.status == 404 else self._no_such_route(path, 405, Allow="GET")
            if endpoint.method != method:
                return self._no_such_route(path, 405, Allow=endpoint.method)
            scheme, _, key = given.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self.api_key.encode()):
                return self.error(endpoint.name, 401, 401)
            try:
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
        status, after = fault.http_status or 0, fault.retry_after
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
        _check_name("endpoint", endpoint, (*NAMES, CALLBACK))
        self._rewrites.append((endpoint, rewrite))

    def rewritten(self, endpoint: str, body: Any) -> Any:
        """Return what the rewrites make of a body."""
        for wanted, rewrite in self._rewrites:
            if _includes(wanted, endpoint):
                body = rewrite(body)
        return body

    def fault(
        self,
        endpoint: str,
        fault: RequestFault | CallbackFault,
        *,
        times: int | None = None,
        skip: int = 0,
        **about: str,
    ) -> None:
        """Add a fault of requests or callbacks. The fault that was added first comes first.

        :param endpoint: BrowserAct's name of an endpoint, such as ``run-task`` or ``create-run``; ``*`` for every
            endpoint of both versions of the API; ``download-file`` for files; ``callback`` for callbacks
        :param fault: a :class:`CallbackFault` for callbacks, a :class:`RequestFault` for everything else
        :param times: how many requests it applies to; None means all until :meth:`clear_faults`
        :param skip: how many requests pass without the fault before
        :param about: only callbacks of the runs of one ``workflow_id`` (workflow, template or bot), of one ``task_id``,
            or that report one ``status``
        :raises ValueError: if the endpoint does not exist, or has no such faults
        """
        self._arm(ArmedFault(fault, endpoint, about, times, skip))

    @contextlib.contextmanager
    def outage(self, endpoint: str, fault: RequestFault) -> Iterator[None]:
        """Apply a fault to every request while the context lasts. Faults that were added before come first.

        :param endpoint: as in :meth:`fault`
        """
        armed = ArmedFault(fault, endpoint)
        self._arm(armed)
        try:
            yield
        finally:
            with self.changed:
                self._faults.remove(armed)

    def clear_faults(self) -> None:
        """Remove all faults of requests and callbacks."""
        with self.changed:
            self._faults.clear()

    def take_fault(self, endpoint: str | None, **about: str) -> Any:
        """Return the first fault that applies to a request or a callback, and count it."""
        with self.changed:
            found = (armed for armed in self._faults if _includes(armed.endpoint, endpoint) and armed.applies_to(about))
            return next((armed.fault for armed in found), None)

    def _arm(self, armed: ArmedFault) -> None:
        is_callback = isinstance(armed.fault, CallbackFault)
        _check_name("endpoint", armed.endpoint, (CALLBACK,) if is_callback else (*NAMES, DOWNLOAD_FILE))
        for name in armed.about:
            _check_name("field of a callback", name, ("workflow_id", "task_id", "status") if is_callback else ())
        if "workflow_id" in armed.about:
            self.find(armed.about["workflow_id"])
        with self.changed:
            self._faults.append(armed)

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request that arrived, oldest first."""
        return [*self._requests]

    @property
    def deliveries(self) -> list[DeliveryRecord]:
        """Every attempt to deliver a callback, oldest first."""
        return [*self._deliveries]

    def begin_request(self, request: RequestRecord) -> None:
        """Record a request, before its response."""
        with self.changed:
            self._requests.append(request)
            self.changed.notify_all()

    def end_request(self, request: RequestRecord, status: int) -> None:
        """Record the status of the response to a request."""
        with self.changed:
            request.status = status
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
    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[Emulator]:
        """Serve the emulator at its ``url`` while the context lasts, and yield it.

        :param host: address to listen on. Default: 127.0.0.1
        :param port: port to listen on. Default: 0, which selects a free port
        :raises OSError: if the port is already in use
        :raises RuntimeError: if this emulator is already being served
        """
        # Imported here, because only a served emulator needs the web server.
        from airflow_provider_browseract.emulator.server import serving

        with self.changed:
            if self._serving:
                raise RuntimeError("this emulator is already being served")
            self._serving = True
        try:
            with serving(self, host, port) as self.url:
                yield self
        finally:
            self._serving = False

    def _respond(self, endpoint: str, value: Any, status: int, **headers: str) -> Response:
        try:
            value = self.rewritten(endpoint, value)
        except Exception as error:
            log.exception("A rewrite of the response of %s has an error", endpoint)
            status, value = 500, envelope(500, f"{type(error).__name__}: {error}", self.clock())
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


def _includes(wanted: str, endpoint: str | None) -> bool:
    return endpoint in ENDPOINTS if wanted == EVERY_ENDPOINT else endpoint == wanted


def _check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"no such {what}: {name!r} (there are: {', '.join(known)})")
