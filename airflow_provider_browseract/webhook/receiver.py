"""The route that BrowserAct calls at the end of a run.

The first request imports this module, because it imports FastAPI. A callback is only a hint, and its body is not read:
the task reads the run from the API. Without callbacks, the polls of the trigger end the wait.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from uuid import UUID

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from airflow_provider_browseract.in_airflow.tolerance import first_line
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.callback_url import TOKEN
from airflow_provider_browseract.runs.routes import CALLBACK_PATH, PANEL_PATH

log = logging.getLogger(__name__)

THREADS = 4
"""How many callbacks are looked up at once, each in a thread with a connection to the database."""

MAX_AT_ONCE = 250
"""How many callbacks may have a thread or wait for one. Any other one gets 503, and BrowserAct sends it again."""


class _Callbacks:
    """Resume the task instances of callbacks, few at a time."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(THREADS)
        self._under_way = 0
        self._failing = False

    async def handle(self, ti_id: str, token: str) -> JSONResponse:
        if (key := _uuid(ti_id)) is None or not TOKEN.fullmatch(token):
            return _respond("unknown", 404)
        if self._under_way >= MAX_AT_ONCE:
            return _respond("busy", 503)
        self._under_way += 1
        try:
            # A callback that got no thread by then would get no response while its sender waits.
            with anyio.move_on_after(timings.LONGEST_CALLBACK_WAIT):
                return await self._resume(key, token)
            return _respond("busy", 503)
        except Exception as error:  # noqa: BLE001 - BrowserAct sends a callback again only after a 5xx response
            # Anybody can send such a request again and again, so there is one line until callbacks work again. It has
            # no traceback, whose variables may be secret.
            if not self._failing:
                log.error("A callback could not be handled (%s). Polls end the waits.", first_line(error))
            self._failing = True
            return _respond("unavailable", 503)
        finally:
            self._under_way -= 1

    async def _resume(self, key: UUID, token: str) -> JSONResponse:
        # Imported here, because this module is also imported where there is no database.
        from airflow_provider_browseract.webhook.database import resume

        resumed = await anyio.to_thread.run_sync(resume, key, token, limiter=self._limiter)
        self._failing = self._failing and not resumed
        return _respond("resumed", 200) if resumed else _respond("unknown", 404)


def create_app() -> FastAPI:
    """Return the application that the plugin mounts: the callback route, without API documentation."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    callbacks = _Callbacks()

    @app.post(CALLBACK_PATH + "/{ti_id}/{token}")
    async def callback(ti_id: str, token: str) -> JSONResponse:
        return await callbacks.handle(ti_id, token)

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


def _uuid(text: str) -> UUID | None:
    """Read the id of a task instance as Airflow writes it; None if it is another text."""
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text else None


def _respond(outcome: str, http_status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"outcome": outcome}, http_status, headers)
