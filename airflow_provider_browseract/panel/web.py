"""What all pages have in common as responses: errors, headers, and what a request says about itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.api_fastapi.core_api.security import get_user
from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException

from airflow_provider_browseract.in_airflow.tolerance import first_line
from airflow_provider_browseract.panel.html import Frame, Notice, render
from airflow_provider_browseract.runs.routes import PANEL

log = logging.getLogger(__name__)

REFRESH = 10
"""Seconds between two reads of a visible page."""

PAGE_PATIENCE = 0.2
"""Seconds after its request until which a page waits for data from BrowserAct. It is shown with what there is, and its
script reads it again."""

FRAGMENT_PATIENCE = 2.0
"""Seconds that such a second read waits."""

MAX_QUERY = 200
"""Characters of a value in the query string that are read."""

FILES = Path(__file__).with_name("static")
STATIC = {"panel.css": "text/css", "panel.js": "text/javascript", "icon.svg": "image/svg+xml"}

SCRIPT_HEADER = "X-BrowserAct-Panel"
"""Header of requests of the script. A form of another site cannot send it."""

NOT_LOGGED_IN = Notice("error", "You are not logged in to Airflow.", "Log in, and open this page again.")
FORBIDDEN = Notice(
    "error",
    "You may not see this, or it does not exist.",
    "Ask an administrator of Airflow for the right to read the DAG or the connection.",
)
NO_SUCH_PAGE = Notice("error", "There is no such page.", "Use the links at the top.")
FOREIGN_REQUEST = Notice(
    "error", "The request does not seem to come from a page of this Airflow.", "Reload the page, and try again."
)
UNEXPECTED = Notice(
    "error", "This page cannot be shown now.", "Reload it later. The log of the API server has the reason."
)


class PageError(Exception):
    """A page that cannot be shown, with the HTTP status and what the viewer reads instead."""

    def __init__(self, http_status: int, notice: Notice) -> None:
        super().__init__(notice.text)
        self.http_status = http_status
        self.notice = notice


def asked(request: Request, name: str) -> str:
    """Return a value of the query string; empty if it has none."""
    return request.query_params.get(name, "")[:MAX_QUERY]


def secured(request: Request, response: Response) -> Response:
    """Add the headers that keep the page from running or loading anything foreign, and how long it took."""
    seconds = time.perf_counter() - request.state.browseract_begun
    response.headers.update(
        {
            "Content-Security-Policy": _policy(getattr(request.state, "browseract_host", "")),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Server-Timing": f"total;dur={1000 * seconds:.1f}",
        }
    )
    return response


def _policy(host: str) -> str:
    # Pictures and live views come from BrowserAct's https addresses. An emulator, or a gateway, may have another one.
    address = urlsplit(host)
    also = f" http://{address.netloc}" if address.scheme == "http" and address.netloc.isascii() else ""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https:{also}; "
        f"frame-src https:{also}; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
    )


class RareLog:
    """Write at most one line a minute about pages that fail, because open pages ask again and again."""

    def __init__(self) -> None:
        self._next = 0.0

    def error(self, error: Exception) -> None:
        """Write a line without the traceback, whose variables may be secret."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 60.0
            log.error("A page of the panel could not be shown (%s). Runs are not affected.", first_line(error))


def safely(respond: Callable[..., Awaitable[Response]], rare_log: RareLog) -> Callable[..., Awaitable[Response]]:
    """Return a route that responds with an error page whatever fails.

    The error goes no further, because servers log it with its traceback, and logs may show variables of that.
    """

    @wraps(respond)
    async def route(request: Request, **values: str) -> Response:
        request.state.browseract_begun = time.perf_counter()
        try:
            response = await respond(request, **values)
        except PageError as error:
            response = error_page(request, error.http_status, error.notice)
        except HTTPException as error:
            # Airflow does not accept the login: 401 without one or after its end, 403 if it is invalid.
            response = error_page(request, error.status_code, NOT_LOGGED_IN)
        except Exception as error:  # noqa: BLE001 - Airflow's database, an auth manager, or a template may fail in any way
            rare_log.error(error)
            response = error_page(request, 503, UNEXPECTED)
        return secured(request, response)

    return route


def error_page(request: Request, http_status: int, notice: Notice) -> Response:
    """Return an error as a page, or as JSON if the script has asked for a change."""
    if request.method == "POST":
        return JSONResponse({"error": f"{notice.text} {notice.remedy}".strip()}, http_status)
    # Trouble passes, and then the page is there.
    frame = Frame(root_of(request), notices=(notice,), refresh=REFRESH if http_status >= 500 else 0)
    return HTMLResponse(render("error.html", frame, fragment=is_fragment(request)), http_status)


def root_of(request: Request) -> str:
    """Return the path of ``[api] base_url`` with a slash at its end."""
    mounted: str = request.scope.get("root_path", "")
    return mounted.removesuffix(PANEL) + "/"


def is_fragment(request: Request) -> bool:
    """Return whether only the content of the page is wanted."""
    return request.headers.get(SCRIPT_HEADER) == "fragment"


def patience_of(request: Request) -> float:
    """Return how many seconds the response may wait for BrowserAct."""
    if is_fragment(request):
        return FRAGMENT_PATIENCE
    taken: float = time.perf_counter() - request.state.browseract_begun
    return PAGE_PATIENCE - taken


def is_own_script(request: Request) -> bool:
    """Return whether a request that changes something comes from a page of this Airflow."""
    if request.headers.get(SCRIPT_HEADER) is None:
        return False
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site == "same-origin"
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


async def user_of(request: Request) -> Any:
    """Return the user who looks.

    :raises HTTPException: nobody is logged in.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    credentials = HTTPAuthorizationCredentials(scheme=scheme, credentials=token) if token else None
    # By position, because the second argument has another name from Airflow 3.2 on.
    return await get_user(request, None, credentials)


async def static(request: Request, name: str) -> Response:
    """Return a file that all pages use. It needs no login."""
    if name not in STATIC:
        raise PageError(404, NO_SUCH_PAGE)
    # Not a FileResponse, which reads the header Range: of any length, in Airflow 3.1.
    return Response((FILES / name).read_bytes(), media_type=STATIC[name])
