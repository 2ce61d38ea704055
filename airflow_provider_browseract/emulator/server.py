"""The emulator's HTTP server.

In addition to the API, it serves exported files (``/files/...``, no API key needed) and small pages for the links of
tasks (``/live/...``, ``/logs/...``), with screenshots of their steps (``/screenshots/...``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http
import json
import logging
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from html import escape
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_browseract.emulator.browseract import BrowserAct
from airflow_provider_browseract.emulator.delivery import CallbackSender
from airflow_provider_browseract.emulator.differences import LENIENT, STRICTER
from airflow_provider_browseract.emulator.endpoints import Endpoint
from airflow_provider_browseract.emulator.errors import MESSAGES, UNAUTHORIZED, ApiError, error_envelope
from airflow_provider_browseract.emulator.faults import DOWNLOAD_FILE, RequestFault
from airflow_provider_browseract.emulator.pictures import draw
from airflow_provider_browseract.emulator.records import RequestRecord
from airflow_provider_browseract.emulator.routes import ENDPOINTS, endpoint_of
from airflow_provider_browseract.emulator.run import Run
from airflow_provider_browseract.emulator.times import iso, utc

log = logging.getLogger(__name__)

FILES_PREFIX = "/files/"

HTML_PAGE = b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>Not the API</h1></body></html>"


def create_app(browseract: BrowserAct, stopping: asyncio.Event) -> ASGIApp:
    """Return the ASGI application that serves an emulator.

    :param stopping: set when the server is about to stop, so that hanging requests end
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(follow_redirects=False, timeout=None, trust_env=False) as client:
            sender = CallbackSender(browseract, client)
            ticking = asyncio.create_task(_tick(browseract, sender))
            ticking.add_done_callback(_complain)
            try:
                yield
            finally:
                ticking.cancel()
                await asyncio.gather(ticking, return_exceptions=True)
                await sender.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for endpoint in ENDPOINTS.values():
        app.add_api_route(endpoint.path, _api_route(browseract, endpoint), methods=[endpoint.method])
    _add_pages(app, browseract)

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> Response:
        # BrowserAct's address suggests a framework that responds like this. The response itself is not documented.
        body = {
            "timestamp": iso(browseract.clock()),
            "status": error.status_code,
            "error": str(error.detail),
            "path": request.url.path,
        }
        return _json(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def internal_error(request: Request, error: Exception) -> Response:
        return _envelope(browseract, request.url.path, 500, f"{type(error).__name__}: {error}", 500)

    return _Gate(app, browseract, stopping)


async def _tick(browseract: BrowserAct, sender: CallbackSender) -> None:
    """Bring tasks up to date when something is due, and send their callbacks."""
    loop = asyncio.get_running_loop()
    wake = asyncio.Event()

    # This may be called from any thread, and while the event loop is closing.
    def changed() -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(wake.set)

    browseract.on_change = changed
    try:
        while True:
            wake.clear()
            for transition in browseract.take_transitions():
                sender.send(transition)
            due = browseract.next_change()
            # Not asyncio.wait_for, because it may swallow the cancellation of this task before Python 3.12.
            alarm = None if due is None else loop.call_later(max(0.0, due - browseract.clock()), wake.set)
            await wake.wait()
            if alarm is not None:
                alarm.cancel()
    finally:
        browseract.on_change = None


def _complain(ticking: asyncio.Task[None]) -> None:
    if not ticking.cancelled():
        log.critical("The emulator's tasks make no more progress because of an error", exc_info=ticking.exception())


def _json(value: Any, status: int = 200, headers: Any = None) -> Response:
    return Response(json.dumps(value).encode(), status, headers, "application/json")


def _envelope(browseract: BrowserAct, path: str, code: int, message: str, status: int, headers: Any = None) -> Response:
    as_in_the_demos = browseract.as_in_the_demos or browseract.errors_as_in_the_demos
    body = error_envelope(code, message, browseract.clock(), as_in_the_demos=as_in_the_demos)
    if as_in_the_demos and path.startswith("/v3/"):
        del body["data"]
    return _json(body, status, headers)


def _api_route(browseract: BrowserAct, endpoint: Endpoint) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        if not browseract.accepts_key(request.headers.get("authorization", "")):
            return _envelope(browseract, request.url.path, UNAUTHORIZED, MESSAGES[UNAUTHORIZED], 401)
        try:
            value = endpoint.call(
                browseract,
                ids=request.path_params,
                query=request.scope["query_string"],
                body=await request.body(),
                content_type=request.headers.get("content-type", ""),
            )
        except ApiError as error:
            return _envelope(browseract, request.url.path, error.code, error.message, 400)
        return Response() if value is None else _json(value)

    return respond


def _add_pages(app: FastAPI, browseract: BrowserAct) -> None:
    @app.get("/")
    async def root() -> Response:
        return Response(_start_page(browseract), media_type="text/html")

    @app.get("/files/{token}/{name:path}")
    async def download(token: str, name: str) -> Response:
        file = browseract.file(token)
        if file is None or file.name != name:
            return Response("The link is not valid, or has expired.\n", 403, media_type="text/plain")
        return Response(file.content, 200, {"Content-Disposition": "attachment"}, file.content_type)

    def show(task_id: str, page: Callable[[Run, float], str | None], media_type: str = "text/html") -> Response:
        with browseract.changed:
            now = browseract.catch_up()
            run = browseract.runs.get(task_id)
            content = None if run is None else page(run, now)
        if content is None:
            return Response("There is no such task or step.\n", 404, media_type="text/plain")
        # A step that is running will look different.
        return Response(content, 200, {"Cache-Control": "no-store"}, media_type)

    @app.get("/live/{task_id}")
    async def live(task_id: str) -> Response:
        return show(task_id, _live_page)

    @app.get("/logs/{task_id}")
    async def steps(task_id: str) -> Response:
        return show(task_id, _log_page)

    @app.get("/screenshots/{task_id}/{number}.svg")
    async def screenshot(task_id: str, number: str) -> Response:
        return show(task_id, functools.partial(_picture, number), "image/svg+xml")


def _start_page(browseract: BrowserAct) -> str:
    """Return a page that describes the emulator, what it can run, and how it differs from BrowserAct."""
    listed = {
        "Workflows": [f"{one.id} {one.name}: {one.description}" for one in browseract.workflows.values()],
        "Bots of API v3 only": [f"{one.id} {one.name}: {one.description}" for one in browseract.bots.values()],
        "Templates": [f"{one.id} {one.name}: {one.description}" for one in browseract.templates.values()],
        "Stricter than BrowserAct, or than its documents": STRICTER,
        "More lenient than BrowserAct": LENIENT,
    }
    sections = "".join(
        f"<h2>{escape(title)}</h2><ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        for title, items in listed.items()
    )
    return _html(
        "BrowserAct emulator",
        "<p>This server replaces BrowserAct for development and tests. It serves API v2 and v3, and runs at most "
        f"{browseract.concurrency} tasks at once.</p>{sections}",
    )


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: #1b2430; background: #f4f6f9 }
header { background: #1b2a4a; color: #fff; padding: .6em 1.5em }
main { background: #fff; margin: 1.5em auto; max-width: 60em; padding: .5em 2em 1.5em; border-radius: 8px }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .4em .8em .4em 0; vertical-align: top }
tr + tr { border-top: 1px solid #dde3ea } b { background: #e3ecfb; padding: .1em .6em; border-radius: 1em }
aside { color: #5b6675; font-size: 90%; margin-top: 1em }
h1 { font-size: 1.5em } td:nth-child(3) { width: 100% }
main > svg, img { display: block; height: auto; border: 1px solid #dde3ea; border-radius: 8px }
main > svg { max-width: 100% } img { width: min(300px, 30vw); aspect-ratio: 8 / 5 }
"""


def _html(heading: str, body: str, *, refresh: bool = False) -> str:
    """Return a page, which loads itself again every two seconds if ``refresh``."""
    again = "<meta http-equiv=refresh content=2>" if refresh else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>{again}<title>{escape(heading)}</title>"
        f"<style>{STYLE}</style>"
        f"<header>Emulator of airflow-provider-browseract</header><main><h1>{escape(heading)}</h1>{body}</main></html>"
    )


def _picture(wanted: str, run: Run, now: float) -> str | None:
    """Return the screenshot of a step, or None if there is no such step."""
    found = (each for each in run.steps(now) if str(each[0]) == wanted)
    return next((draw(run.workflow, number, run.goal(number), status) for number, status in found), None)


def _live_page(run: Run, now: float) -> str:
    """Return a page that shows the browser of a task at its newest step."""
    newest = max((number for number, _ in run.steps(now)), default=0)
    return _page_of(run, now, _picture(str(newest), run, now) or "<p>The browser is not open yet.</p>")


def _log_page(run: Run, now: float) -> str:
    """Return a page that shows all steps of a task."""
    rows = "".join(
        f'<tr><td>{number}<td><a href="{link}"><img src="{link}" alt="Screenshot of step {number}" loading=lazy></a>'
        f"<td>{escape(run.goal(number))}<td>{status}"
        for number, status in run.steps(now)
        for link in [f"../screenshots/{run.id}/{number}.svg"]
    )
    return _page_of(run, now, f"<table><tr><th>Step<th>Picture<th>Goal<th>Status{rows}</table>")


def _page_of(run: Run, now: float, body: str) -> str:
    """Return a page about a task, without its inputs, which can be secret."""
    return _html(
        f"BrowserAct task {run.id}",
        f"<p>Status: <b>{escape(run.reported(now))}</b></p>{body}"
        "<aside>The emulator draws what the goals of the steps suggest. The real pages show the browser and the inputs "
        "of the run. The emulator hides the inputs, because they can be secret.</aside>",
        refresh=not run.ended,
    )


class _Gate:
    """ASGI middleware that records requests and applies their faults."""

    def __init__(self, app: ASGIApp, browseract: BrowserAct, stopping: asyncio.Event) -> None:
        self._app = app
        self._browseract = browseract
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        endpoint = _endpoint(scope["method"], scope["path"])
        fault = None if endpoint is None else self._browseract.request_faults.take(endpoint)
        if fault is None and endpoint in ENDPOINTS:
            fault = self._browseract.over_rate_limit()
        number = self._browseract.begin_request(
            RequestRecord(
                method=scope["method"],
                path=scope["path"],
                query=scope["query_string"].decode("latin-1"),
                endpoint=endpoint,
                status=None,
                fault=None if fault is None else fault.kind,
                with_key=any(name == b"authorization" for name, _ in scope["headers"]),
                at=utc(self._browseract.clock()),
            )
        )

        async def recording_send(message: Message) -> None:
            # Recorded before the response is sent, so that a client with the response finds the record.
            if message["type"] == "http.response.start":
                self._browseract.end_request(number, message["status"])
            await send(message)

        seconds = 0.0 if endpoint is None else random.uniform(*self._browseract.latency)
        if fault is None and seconds:
            fault = RequestFault.slow(seconds)
        if fault is None:
            await self._app(scope, receive, recording_send)
        else:
            await self._go_wrong(fault, scope, receive, recording_send)

    async def _go_wrong(self, fault: RequestFault, scope: Scope, receive: Receive, send: Send) -> None:
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        if fault.processed:
            await self._app(scope, receive, keep)
        if fault.kind == "slow":
            await self._gone_or_stopping(receive, fault.seconds)
            for message in kept:
                await send(message)
        elif fault.kind == "hung":
            await self._gone_or_stopping(receive, None)
            await cut_connection(receive)
        elif fault.kind == "reset":
            # A client that is still sending would not always notice the reset.
            await _whole_request(receive)
            await cut_connection(receive, reset=True)
        elif fault.kind == "lost_response" and fault.http_status is None:
            await cut_connection(receive)
        else:
            await self._response(fault, scope["path"])(scope, receive, send)

    def _response(self, fault: RequestFault, path: str) -> Response:
        status = fault.http_status or 400
        if fault.kind in ("html", "lost_response"):
            return Response(HTML_PAGE, status, media_type="text/html")
        if fault.kind == "redirect":
            return Response(b"", status, {"Location": fault.location or "/"})
        if fault.kind == "gateway":
            return _json({"message": http.HTTPStatus(status).phrase}, status)
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        code = fault.code or status
        message = fault.message or MESSAGES.get(code, "Internal error" if status >= 500 else "Refused")
        return _envelope(self._browseract, path, code, message, status, headers)

    async def _gone_or_stopping(self, receive: Receive, seconds: float | None) -> None:
        """Wait until the client disconnects, the emulator stops, or some seconds have passed."""
        waits = [asyncio.create_task(_disconnected(receive)), asyncio.create_task(self._stopping.wait())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


def _endpoint(method: str, path: str) -> str | None:
    """Return the name that faults and records have for a request."""
    if path.startswith(FILES_PREFIX):
        return DOWNLOAD_FILE
    found = endpoint_of(method, path)
    return None if found is None else found.name


async def _whole_request(receive: Receive) -> None:
    while (await receive()).get("more_body", False):
        pass


async def _disconnected(receive: Receive) -> bool:
    while (await receive())["type"] != "http.disconnect":
        pass
    return True


async def cut_connection(receive: Receive, *, reset: bool = False) -> None:
    """Close the TCP connection of a request without a response.

    ASGI has no method for this. With uvicorn, ``receive`` is a method of the object that handles the request, and that
    object has the transport of the connection. This applies to both HTTP implementations of uvicorn.

    :param reset: reset the connection instead of closing it normally
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("connections can be closed only under uvicorn, without other middleware in between")
    connection = transport.get_extra_info("socket")
    if reset and connection is not None:
        # Closing a socket with a linger time of zero resets the connection.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    # uvicorn logs an error about the missing response unless it has noticed the disconnect.
    await _disconnected(receive)
