"""The panel as an application. The first request imports this module, because it imports FastAPI and Airflow's models.

A request takes this way:

1. ``plugin.py`` mounts the application, and :func:`create_app` has its routes.
2. ``web.py`` finds out who looks, and turns whatever fails into an error page.
3. A thread of the panel makes the page, with one function of ``pages.py``.
4. ``viewing.py`` decides which connection is shown. It asks ``access.py``, which asks Airflow's auth manager, and
   ``links.py``, which reads Airflow's database: a link between a run and a task instance gives rights by its proof.
   ``failures.py`` reads what has failed.
5. ``accounts.py`` has what BrowserAct has responded, at most some seconds old.
6. ``rows.py`` makes rows of all that, without what the viewer must not see, and ``html.py`` the page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from airflow_provider_browseract.dag_file import KINDS
from airflow_provider_browseract.panel.html import Notice
from airflow_provider_browseract.panel.pages import Panel
from airflow_provider_browseract.panel.web import NO_SUCH_PAGE, PageError, RareLog, error_page, safely, static, user_of

THREADS = 8
"""Threads for pages. They are not those of the API server, so slow pages delay nothing else. Most of them wait for
BrowserAct: making pages takes the interpreter's lock, for which callbacks would wait."""

MOST_WAITING = 200
"""How many pages may wait for a thread. If the database does not respond, more are refused at once."""

BUSY = Notice("error", "Too many pages are being read now.", "The page tries again by itself.")


def create_app() -> FastAPI:
    """Return the application that the plugin mounts, without API documentation."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    panel, rare_log, threads = Panel(), RareLog(), anyio.CapacityLimiter(THREADS)
    pages: dict[str, Callable[..., Response]] = {
        "/": panel.overview,
        "/runs/{task_id}": panel.run,
        "/ti/{dag_id}/{run_id}/{task_id}/{map_index}": panel.instance,
        "/dag/{dag_id}": panel.dag,
        "/dag/{dag_id}/{run_id}": panel.dag,
        "/credits": panel.credits,
        "/workflows": panel.workflows,
        "/open/{path:path}": panel.redirect,
    }
    pages |= {f"/{words.path}/{{source_id}}": partial(panel.source, kind=kind) for kind, words in KINDS.items()}

    def route(page: Callable[..., Response]) -> Callable[..., Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            user = await user_of(request)
            if threads.statistics().tasks_waiting >= MOST_WAITING:
                raise PageError(503, BUSY)
            return await anyio.to_thread.run_sync(partial(page, request, user, **request.path_params), limiter=threads)

        return safely(respond, rare_log)

    for path, page in pages.items():
        app.get(path)(route(page))
    app.post("/runs/{task_id}/stop")(route(panel.stop))
    app.get("/static/{name}")(safely(static, rare_log))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        async def respond(_: Request) -> Response:
            return error_page(request, error.status_code, NO_SUCH_PAGE)

        return await safely(respond, rare_log)(request)

    return app
