"""The route that BrowserAct calls. The first request imports this module, because it imports FastAPI."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec
from airflow import __version__ as airflow_version
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from airflow_provider_browseract import __version__
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.compat import count
from airflow_provider_browseract.runs.callback_url import CallbackOutcome, TaskInstanceKey, is_token
from airflow_provider_browseract.runs.request import digest
from airflow_provider_browseract.runs.routes import CALLBACK_PATH, OVER_PATH, PANEL_PATH
from airflow_provider_browseract.webhook.overload import BusyError, NewestFirst, RareLog

if TYPE_CHECKING:
    from airflow_provider_browseract.webhook.database import Deferral

log = logging.getLogger(__name__)

MAX_BODY = 1024 * 1024
"""Maximum bytes read from a request body."""

BODY_TIMEOUT = 20.0
"""Seconds that a body may take to arrive. BrowserAct itself waits 30 seconds for a response."""

MAX_BODIES = 16
"""How many bodies are in memory at once, at most one for each wait. Any other callback counts without its body."""

LINES_PER_MINUTE = 20
"""How many lines a minute the log has about callbacks that resumed nothing. Whoever knows a token can send any number
of them."""

LOOKUP_THREADS = 4
"""How many requests are looked up at once, and how many callbacks resume their task at once. Each of the two uses at
most this many threads and database connections, so forged requests do not delay genuine callbacks."""

MAX_WAITING_REQUESTS = 2000
"""How many requests may wait to be looked up. That is a few seconds of work, so many runs may end at the same moment.
Beyond that, the oldest request gets 503, and BrowserAct sends it again."""

_STATUS = {CallbackOutcome.TOO_EARLY: 202}

OVER_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>The run is over</title></head>
<body style="font-family: sans-serif; margin: 4em auto; max-width: 36em">
<h1>The run is over</h1>
<p>The live view is no longer available. The button <b>BrowserAct task</b> opens the log of the run, with a screenshot
of each step.</p>
<p><a href="javascript:history.back()">Back</a></p>
</body>
</html>
"""


def create_app() -> FastAPI:
    """Return the application that the plugin mounts: the callback route and a page, without API documentation."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    limits = _Limits()
    rare_log = RareLog(log)

    @app.post(CALLBACK_PATH + "/{run}/{token}")
    async def callback(run: str, token: str, request: Request) -> JSONResponse:
        try:
            return await _receive(run, token, request, limits)
        except BusyError:
            return _respond("busy", 503)
        except Exception as error:  # noqa: BLE001 - BrowserAct sends the callback again
            # Without a traceback: Airflow's logs may show its variables, such as the token.
            consequence = "BrowserAct sends it again, or a poll finds the end of the run."
            rare_log.error("A callback could not be handled", error, consequence)
            log.debug("The callback for %r:\n%s", run, traceback.format_exc())
            # BrowserAct sends a callback again only after a 5xx response.
            return _respond("unavailable", 503)

    @app.get(OVER_PATH)
    async def over() -> HTMLResponse:
        return HTMLResponse(OVER_PAGE)

    @app.get(PANEL_PATH)
    async def panel(request: Request) -> RedirectResponse:
        # Without the slash at its end, the address of the panel leads here.
        return RedirectResponse(f"{request.scope['root_path']}{PANEL_PATH}/")

    @app.exception_handler(HTTPException)
    async def no_route(_: Request, error: HTTPException) -> JSONResponse:
        # Not the response of the route: the test of a connection must notice an address that misses it.
        outcome = "no such path" if error.status_code == 404 else "method not allowed"
        return _respond(outcome, error.status_code, error.headers)

    return app


class _Limits:
    """What bounds the work of the route.

    Requests wait first to be looked up, all of them, and then, with the right token, to resume a task.
    """

    def __init__(self) -> None:
        self.lookups = NewestFirst(LOOKUP_THREADS, MAX_WAITING_REQUESTS)
        self.lookup_threads = anyio.CapacityLimiter(LOOKUP_THREADS)
        self.resume_threads = anyio.CapacityLimiter(LOOKUP_THREADS)
        self.body_of: set[int] = set()
        """Triggers of the waits whose callback has its body in memory."""
        self.log = RareLog(log, most=LINES_PER_MINUTE)


async def _receive(run: str, token: str, request: Request, limits: _Limits) -> JSONResponse:
    try:
        key = TaskInstanceKey.decode(run)
    except ValueError:
        return _respond(CallbackOutcome.UNKNOWN, 404)
    if not is_token(token):
        return _respond(CallbackOutcome.UNKNOWN, 404)
    # Imported here, because this module is also imported where there is no database.
    from airflow_provider_browseract.webhook.database import Deferral, find_deferral, resume

    async with limits.lookups.turn():
        found = await anyio.to_thread.run_sync(find_deferral, key, digest(token), limiter=limits.lookup_threads)
    if found is CallbackOutcome.UNKNOWN:
        log.debug("Callback for %s: %s", key, found)
        return _respond(found, 404)
    refusal = None
    if isinstance(found, Deferral):
        run_active, refusal = await _reports_active_run(found, request, limits)
        if run_active:
            outcome = CallbackOutcome.RUN_ACTIVE
        else:
            outcome = await anyio.to_thread.run_sync(resume, found, limiter=limits.resume_threads)
    else:
        # There is nothing to resume, so the body does not matter and stays unread.
        outcome = found
    # One wait is resumed only a few times, so these lines need no limit.
    write = log.info if outcome is CallbackOutcome.RESUMED else limits.log.info
    write("Callback for %s: %s", key, outcome)
    # Large outputs have large bodies, which are not read. The address alone identifies the task instance.
    versions = {"provider": __version__, "airflow": airflow_version} if outcome is CallbackOutcome.CHECKED else {}
    return _respond(outcome, refusal or _STATUS.get(outcome, 200), versions=versions)


async def _reports_active_run(deferral: Deferral, request: Request, limits: _Limits) -> tuple[bool, int | None]:
    """Return whether the body reports that the run is still active, and the HTTP status for a body that is not read."""
    if deferral.trigger_id in limits.body_of or len(limits.body_of) >= MAX_BODIES:
        return False, None
    limits.body_of.add(deferral.trigger_id)
    try:
        body, refusal = await _read(request)
        if body is None:
            return False, refusal
        return await anyio.to_thread.run_sync(is_progress_update, body, limiter=limits.lookup_threads), None
    finally:
        limits.body_of.remove(deferral.trigger_id)


async def _read(request: Request) -> tuple[bytes | None, int | None]:
    """Return the body, or None if it was not read completely, and the HTTP status that states why, if one does.

    A request whose sender has disconnected, perhaps because it waited too long, is still a hint that the run has ended.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY:
        return None, 413
    body = bytearray()
    try:
        with anyio.move_on_after(BODY_TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    return None, 413
            return bytes(body), None
    except ClientDisconnect:
        return None, None
    return None, 408


class _Task(msgspec.Struct):
    """The fields of a body that are read. Everything else is skipped without being built, in 2 ms for 1 MiB."""

    status: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Task).decode


def is_progress_update(body: bytes) -> bool:
    """Return whether a callback reports a change that is not the end of the run.

    Only a known status of an active run counts. For any other body, the task reads the run from the API.

    :param body: a task as ``get-task`` returns it, with or without the envelope.
    """
    try:
        task = _decode(body)
        if bytes(task.data).startswith(b"{"):
            task = _decode(task.data)
        status = TaskStatus(msgspec.json.decode(task.status, type=str))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return not status.ended and status is not TaskStatus.UNKNOWN


def _respond(
    outcome: CallbackOutcome | str,
    http_status: int,
    headers: Mapping[str, str] | None = None,
    *,
    versions: Mapping[str, str] | None = None,
) -> JSONResponse:
    count(f"browseract.callback.{str(outcome).replace(' ', '_')}")
    return JSONResponse({"outcome": str(outcome), **(versions or {})}, http_status, headers)
