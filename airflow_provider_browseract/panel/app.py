"""The routes of the panel. The first request imports this module, because it imports FastAPI and Airflow's models.

Each page is read in three parts: who asks and what that person may see, with Airflow's records (in a thread), what is
known about the account (in the event loop, see ``accounts.py``), and the page itself (in a thread). Nothing is changed
by a GET request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from functools import cache, partial
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import anyio
import anyio.to_thread
from airflow.api_fastapi.core_api.security import get_user
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.compat import UI_FOLLOWS_FRAME
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.panel import building, database
from airflow_provider_browseract.panel.access import Access
from airflow_provider_browseract.panel.accounts import Account, Accounts
from airflow_provider_browseract.panel.building import DaySums, Knowledge
from airflow_provider_browseract.panel.database import Link, RecordKeeper, Records
from airflow_provider_browseract.panel.days import OPEN_DAY_INTERVAL, Day
from airflow_provider_browseract.panel.rendering import render
from airflow_provider_browseract.panel.views import Frame, Notice, foreign_text
from airflow_provider_browseract.runs.callback_url import TaskInstanceKey
from airflow_provider_browseract.runs.routes import PANEL_PATH, URL_PREFIX
from airflow_provider_browseract.webhook.overload import RareLog

log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS = 2
"""Threads for database, rights and pages. They are not those of the API server, so slow pages delay nothing else. More
threads do not make more pages, because making them takes the interpreter's lock, for which callbacks would wait."""

REFRESH = 10
"""Seconds between two reads of a visible page."""

PAGE_PATIENCE = 0.2
"""Seconds after its request until which a page waits for data from BrowserAct. It is shown with what there is, and its
script reads it again."""

FRAGMENT_PATIENCE = 8.0
"""Seconds that such a second read waits."""

MAX_QUERY = 200
"""Characters of a value in the query string that are read."""

STATIC = {"panel.css": "text/css", "panel.js": "text/javascript", "icon.svg": "image/svg+xml"}

PAGES = ("runs", "ti", "dag", "credits", "workflows", "templates")
"""What the addresses of pages begin with, other than that of the overview."""

FRAGMENT_HEADER = "X-BrowserAct-Panel"
"""Header of requests of the script. A form of another site cannot send it."""

NOT_LOGGED_IN = Notice("error", "You are not logged in to Airflow.", "Log in, and open this page again.")
FORBIDDEN = Notice(
    "error",
    "You may not see this, or it does not exist.",
    "Ask an administrator of Airflow for the right to read the DAG or the connection.",
)
NO_SUCH_PAGE = Notice("error", "There is no such page.", "Use the links at the top.")
NO_DATABASE = Notice(
    "error", "Airflow's database cannot be read now.", "Reload the page. The log of the API server has the reason."
)
NO_CONNECTION = Notice(
    "info",
    "There is no BrowserAct connection that you may see.",
    "Add one of type BrowserAct (Admin > Connections), or ask an administrator for the right to read it.",
)


class PageError(Exception):
    """A page that cannot be shown, with the HTTP status and what the viewer reads instead."""

    def __init__(self, http_status: int, notice: Notice) -> None:
        super().__init__(notice.text)
        self.http_status = http_status
        self.notice = notice


class Query(NamedTuple):
    """The values of the query string that pages know."""

    conn: str
    show: str
    search: str
    page: int
    by: str
    kind: str

    @classmethod
    def of(cls, request: Request) -> Query:
        """Read the query string of a request."""
        given = request.query_params
        texts = {name: given.get(name, "")[:MAX_QUERY] for name in ("conn", "show", "search", "by", "kind")}
        page = given.get("page", "")
        return cls(**texts, page=int(page) if page.isdecimal() and len(page) < 7 else 1)


@dataclass(frozen=True)
class Opened:
    """What is known after the rights were checked.

    :param conn_id: the connection whose account is shown; None if there is none.
    :param connections: the connections that the viewer may choose from.
    """

    access: Access
    records: Records
    conn_id: str | None
    connections: tuple[str, ...]


class Panel:
    """The panel of one process of the API server."""

    def __init__(self) -> None:
        self._accounts = Accounts()
        self._records = RecordKeeper()
        self._sums = SumsOfDays()
        self._threads = anyio.CapacityLimiter(THREADS)

    async def overview(self, request: Request) -> Response:
        """Show slots, queue, paused runs, credits, and the runs of the last 24 hours."""
        query = Query.of(request)
        opened = await self._open(request, query.conn)
        if opened.conn_id is None:
            return await self._show(request, "overview.html", opened, None, Frame("", "runs", notices=(NO_CONNECTION,)))
        account = await self._accounts.account(opened.conn_id, _patience(request))
        return await self._show(
            request,
            "overview.html",
            opened,
            lambda known: building.overview(known, query.show, query.search, query.page),
            Frame("", "runs"),
            account,
        )

    async def run(self, request: Request, task_id: str) -> Response:
        """Show a run."""
        opened = await self._open(request, Query.of(request).conn)
        if opened.conn_id is None:
            raise PageError(403, FORBIDDEN)
        return await self._run(request, opened, task_id, "run.html", lambda _, page: page)

    async def instance(self, request: Request, key: TaskInstanceKey) -> Response:
        """Show the latest run of a task instance, or its place in the queue."""
        opened, links = await self._in_thread(self._instance, await _user(request), key)
        if opened.conn_id is None:
            frame = Frame("", title=building.instance_view(key).label)
            return await self._show(request, "instance.html", opened, None, frame)

        def wrap(known: Knowledge, page: Any) -> Any:
            return building.instance_page(known, key, page)

        if not links:
            account = await self._accounts.account(opened.conn_id, 0)
            return await self._show(
                request, "instance.html", opened, lambda known: wrap(known, None), Frame(""), account
            )
        return await self._run(request, opened, links[0].browseract_task_id, "instance.html", wrap, links)

    async def dag(self, request: Request, dag_id: str, run_id: str | None) -> Response:
        """Show the runs of a DAG or DAG run."""
        query = Query.of(request)
        opened = await self._in_thread(self._dag, await _user(request), dag_id, run_id, query.conn)
        if opened.conn_id is None:
            return await self._show(request, "dag.html", opened, None, Frame("", title=foreign_text(dag_id)))
        account = await self._accounts.account(opened.conn_id, _patience(request))

        def build(known: Knowledge) -> Any:
            return building.dag_page(known, dag_id, run_id, query.show, query.search, query.page)

        return await self._show(request, "dag.html", opened, build, Frame(""), account)

    async def credits(self, request: Request) -> Response:
        """Show what the runs of the last days cost."""
        query = Query.of(request)
        opened = await self._open(request, query.conn, whole_account=True)
        assert opened.conn_id is not None
        account = await self._accounts.account(opened.conn_id, _patience(request))
        read = await self._accounts.days(opened.conn_id, _patience(request))

        def build(known: Knowledge) -> Any:
            sums = self._sums.of(known.account.conn_id, read.days, known.now.date())
            return building.credits_page(known, sums, query.by == "dag")

        notices = (Notice("warning", f"A day could not be read: {read.error}."),) if read.error else ()
        return await self._show(request, "credits.html", opened, build, Frame("", "credits", notices=notices), account)

    async def sources(self, request: Request) -> Response:
        """Show the workflows of the account, or the official templates."""
        query = Query.of(request)
        opened = await self._open(request, query.conn, whole_account=True)
        assert opened.conn_id is not None
        is_template = query.kind == "template"
        read = await self._accounts.sources(opened.conn_id, is_template, FRAGMENT_PATIENCE)
        account = await self._accounts.account(opened.conn_id, 0)

        def build(known: Knowledge) -> Any:
            return building.sources_page(known, read.items, is_template, query.search, read.truncated)

        frame = Frame("", "workflows", notices=_failed(read.error, read.remedy), as_of=read.as_of)
        return await self._show(request, "workflows.html", opened, build, frame, account)

    async def source(self, request: Request, is_template: bool, source_id: str) -> Response:
        """Show a workflow or template with a DAG file that runs it."""
        opened = await self._open(request, Query.of(request).conn, whole_account=True)
        assert opened.conn_id is not None
        read = await self._accounts.source(opened.conn_id, is_template, source_id, FRAGMENT_PATIENCE)
        account = await self._accounts.account(opened.conn_id, 0)
        found = read.source
        if found is None:
            what = "template" if is_template else "workflow"
            missing = Notice("error", f"BrowserAct has no such {what}.", f"Choose one in the list of {what}s.")
            raise PageError(404, missing) if read.not_found else PageError(502, _failed(read.error, read.remedy)[0])
        frame = Frame("", "workflows", as_of=datetime.now(timezone.utc))
        return await self._show(
            request, "workflow.html", opened, lambda known: building.source_page(known, found), frame, account
        )

    async def stop(self, request: Request, task_id: str) -> Response:
        """Stop a run that nobody waits for."""
        opened = await self._open(request, Query.of(request).conn)
        if not _is_own_script(request) or opened.conn_id is None:
            raise PageError(403, FORBIDDEN)
        task = await self._task(opened, task_id, FRAGMENT_PATIENCE)
        account = await self._accounts.account(opened.conn_id, 0)
        if task is None:
            return JSONResponse({"error": "BrowserAct does not respond. Try again."}, 502)
        may_stop = await self._in_thread(self._may_stop, opened, account, task)
        if task.status.ended:
            return JSONResponse({"outcome": "ended"})
        if not may_stop:
            return JSONResponse({"error": "A task instance waits for this run. Clear or mark the task instance."}, 409)
        try:
            stopped = await self._accounts.stop(opened.conn_id, task_id)
        except BrowserActError as error:
            return JSONResponse({"error": f"The run could not be stopped: {error.brief}"}, 502)
        log.info("BrowserAct task %s was stopped in the panel by %s", task_id, opened.access.name)
        return JSONResponse({"outcome": "stopped" if stopped else "ended"})

    async def open(self, request: Request, path: str) -> Response:
        """Redirect to a page of the panel: within Airflow's UI where it can show that page, else alone."""
        access = await self._in_thread(_access, await _user(request))
        first, *rest = path.split("/")
        if first not in PAGES or ".." in rest or not all(rest):
            raise PageError(404, NO_SUCH_PAGE)
        root = _root(request)
        here = f"{root}{URL_PREFIX.lstrip('/')}{PANEL_PATH}/{quote(path)}"
        if request.url.query:
            here += f"?{request.url.query}"
        if UI_FOLLOWS_FRAME and await self._in_thread(access.sees_plugin_pages):
            return RedirectResponse(f"{root}plugin/browseract{here}")
        return RedirectResponse(here)

    async def _open(self, request: Request, wanted: str, *, whole_account: bool = False) -> Opened:
        """Return what the viewer may see.

        :raises PageError: the viewer is not logged in, or may not see the wanted connection.
        """
        opened = await self._in_thread(self._choose, await _user(request), wanted)
        if whole_account and (opened.conn_id is None or not opened.access.reads_connection(opened.conn_id)):
            raise PageError(403, FORBIDDEN)
        return opened

    def _choose(self, user: Any, wanted: str) -> Opened:
        access, records = _access(user), self._records.read()
        linked = {link.conn_id: link for link in records.links.values() if link.conn_id and link.confirmed}
        known = {BrowserActHook.default_conn_name, *database.connections(), *linked}
        dags = {(link.conn_id, link.key.dag_id) for link in records.links.values() if link.confirmed}

        def is_visible(conn_id: str) -> bool:
            return access.reads_connection(conn_id) or any(
                access.reads_runs(dag_id) for other, dag_id in dags if other == conn_id
            )

        connections = tuple(sorted(filter(is_visible, known)))
        if wanted and wanted not in connections and not access.reads_connection(wanted):
            raise PageError(403, FORBIDDEN)
        default = BrowserActHook.default_conn_name
        first = default if default in connections else next(iter(connections), None)
        return Opened(access, records, wanted or first, connections)

    def _instance(self, user: Any, key: TaskInstanceKey) -> tuple[Opened, list[Link]]:
        access, records = _access(user), self._records.read()
        if not access.reads_runs(key.dag_id):
            raise PageError(403, FORBIDDEN)
        links = records.of_instance(key) or database.links_of(key)
        queued = [entry.conn_id for entry in records.queue if entry.key == key]
        conn_id = next((link.conn_id for link in links if link.conn_id), None) or next(iter(queued), None)
        return Opened(access, records, conn_id, ()), links

    def _dag(self, user: Any, dag_id: str, run_id: str | None, wanted: str) -> Opened:
        access, records = _access(user), self._records.read()
        if not access.reads_runs(dag_id):
            raise PageError(403, FORBIDDEN)
        of_dag = [link for link in records.links.values() if link.key.dag_id == dag_id]
        found = {link.conn_id for link in of_dag if link.conn_id and run_id in (None, link.key.run_id)}
        if wanted and wanted not in found:
            raise PageError(403, FORBIDDEN)
        return Opened(access, records, wanted or min(found, default=None), tuple(sorted(found)))

    async def _run(
        self,
        request: Request,
        opened: Opened,
        task_id: str,
        template: str,
        wrap: Callable[[Knowledge, Any], Any],
        links: Sequence[Link] = (),
    ) -> Response:
        """Show a page about one run."""
        assert opened.conn_id is not None
        task = await self._task(opened, task_id, _patience(request), links)
        account = await self._accounts.account(opened.conn_id, 0)
        if task is None:
            frame = Frame("", "runs", refresh=REFRESH)
            return await self._show(request, template, opened, lambda known: wrap(known, None), frame, account)

        def build(known: Knowledge) -> Any:
            link = links[0] if links else known.records.links.get(task_id)
            sight = building.sight_of(known, task, link)
            if not sight.run:
                raise PageError(403, FORBIDDEN)
            earlier = links or (known.records.of_instance(link.key) if link is not None and sight.instance else [])
            return wrap(known, building.run_page(known, task, link, sight, earlier))

        frame = Frame("", "runs", refresh=0 if task.status.ended else REFRESH)
        return await self._show(request, template, opened, build, frame, account)

    async def _task(self, opened: Opened, task_id: str, patience: float, links: Sequence[Link] = ()) -> Task | None:
        """Read a run; None if BrowserAct has not responded yet.

        :param links: the runs of a task instance that the viewer may see.
        """
        assert opened.conn_id is not None
        read = await self._accounts.task(opened.conn_id, task_id, patience)
        # Not even the existence of a run is shown to those who may not see it.
        if read.task is None and not links and not await self._in_thread(self._may_know, opened, task_id):
            raise PageError(403, FORBIDDEN)
        if read.task is None and read.not_found:
            remedy = "Check the id, and the connection: each account knows only its own runs."
            raise PageError(404, Notice("error", "BrowserAct has no such run.", remedy))
        if read.task is None and read.error is not None:
            raise PageError(502, _failed(read.error, read.remedy)[0])
        return read.task

    def _may_know(self, opened: Opened, task_id: str) -> bool:
        assert opened.conn_id is not None
        link = opened.records.links.get(task_id)
        of_dag = link is not None and link.confirmed and opened.access.reads_runs(link.key.dag_id)
        return of_dag or opened.access.reads_connection(opened.conn_id)

    def _may_stop(self, opened: Opened, account: Account, task: Task) -> bool:
        records = self._records.read()
        known = Knowledge(opened.access, account, records, datetime.now(timezone.utc))
        link = records.links.get(task.id)
        if not building.sight_of(known, task, link).act:
            raise PageError(403, FORBIDDEN)
        return building.is_unread(task, link, known.now)

    async def _show(
        self,
        request: Request,
        template: str,
        opened: Opened,
        build: Callable[[Knowledge], Any] | None,
        frame: Frame,
        account: Account | None = None,
    ) -> Response:
        """Build and render a page in a thread."""

        def page() -> str:
            values: dict[str, Any] = {"root": _root(request), "connections": opened.connections}
            content = None
            if account is not None and build is not None:
                known = Knowledge(opened.access, account, opened.records, datetime.now(timezone.utc))
                content = build(known)
                values |= {
                    "conn_id": opened.conn_id,
                    "sees_account": known.reads_account,
                    "as_of": frame.as_of or account.as_of,
                    "notices": (*frame.notices, *_notices(account)),
                }
            else:
                values["notices"] = frame.notices
            values["refresh"] = REFRESH if frame.tab in ("runs", "credits") and account is not None else frame.refresh
            return _render(request, template, frame, content, values)

        text = await self._in_thread(page)
        response = HTMLResponse(text)
        request.state.panel_host = account.host if account is not None else ""
        return response

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await anyio.to_thread.run_sync(partial(function, *args), limiter=self._threads)


class SumsOfDays:
    """The sums of past days. Each is made once, because a day can have thousands of runs."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, date], tuple[datetime, float, DaySums]] = {}

    def of(self, conn_id: str, days: Mapping[date, Day], today: date) -> dict[date, DaySums]:
        """Return the sums of some days of a connection."""
        now = time.monotonic()
        # A copy, because other threads do the same.
        known = {of: made for of, made in dict(self._known).items() if of[0] != conn_id or of[1] in days}
        for day, read in days.items():
            as_of, made_at, _ = known.get((conn_id, day), (None, now, None))
            # A task instance may push the XCom with its run on the next day.
            is_settled = day < today - timedelta(days=1) or now - made_at < OPEN_DAY_INTERVAL
            if as_of != read.as_of or not is_settled:
                known[conn_id, day] = read.as_of, now, building.sums_of(read.runs, database.links_on(day))
        self._known = known
        return {day: known[conn_id, day][2] for day in days}


def create_app() -> FastAPI:
    """Return the application that the plugin mounts, without API documentation."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    panel, rare_log = Panel(), RareLog(log)
    app.add_middleware(SecureHeaders)

    @app.get("/")
    async def overview(request: Request) -> Response:
        return await panel.overview(request)

    @app.get("/runs/{task_id}")
    async def run(request: Request, task_id: str) -> Response:
        return await panel.run(request, task_id)

    @app.get("/ti/{dag_id}/{run_id}/{task_id}/{map_index}")
    async def instance(request: Request, dag_id: str, run_id: str, task_id: str, map_index: str) -> Response:
        # Airflow leaves the placeholder in the address of a task instance that is not mapped.
        index = int(map_index) if map_index.isdecimal() and len(map_index) < 10 else -1
        key = TaskInstanceKey(dag_id, run_id, task_id, index)
        if not key.fits:
            raise PageError(403, FORBIDDEN)
        return await panel.instance(request, key)

    @app.get("/dag/{dag_id}")
    async def dag(request: Request, dag_id: str) -> Response:
        return await panel.dag(request, dag_id, None)

    @app.get("/dag/{dag_id}/{run_id}")
    async def dag_run(request: Request, dag_id: str, run_id: str) -> Response:
        return await panel.dag(request, dag_id, None if run_id == "{RUN_ID}" else run_id)

    @app.get("/credits")
    async def credits(request: Request) -> Response:
        return await panel.credits(request)

    @app.get("/workflows")
    async def workflows(request: Request) -> Response:
        return await panel.sources(request)

    @app.get("/workflows/{source_id}")
    async def workflow(request: Request, source_id: str) -> Response:
        return await panel.source(request, False, source_id)

    @app.get("/templates/{source_id}")
    async def template(request: Request, source_id: str) -> Response:
        return await panel.source(request, True, source_id)

    @app.post("/runs/{task_id}/stop")
    async def stop(request: Request, task_id: str) -> Response:
        return await panel.stop(request, task_id)

    @app.get("/open/{path:path}")
    async def open_page(request: Request, path: str) -> Response:
        return await panel.open(request, path)

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in STATIC:
            raise PageError(404, NO_SUCH_PAGE)
        return Response(_static(name), media_type=STATIC[name])

    @app.exception_handler(PageError)
    async def page_error(request: Request, error: PageError) -> Response:
        return _error_page(request, error.http_status, error.notice)

    @app.exception_handler(StarletteHTTPException)
    async def http_error(request: Request, error: StarletteHTTPException) -> Response:
        notice = {401: NOT_LOGGED_IN, 403: FORBIDDEN}.get(error.status_code, NO_SUCH_PAGE)
        return _error_page(request, error.status_code, notice)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        rare_log.error("A page of the panel could not be shown", error, "Runs are not affected.")
        return _error_page(request, 503, NO_DATABASE)

    return app


class SecureHeaders:
    """Add the headers to every response that keep the page from running or loading anything foreign."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request."""
        begun = time.perf_counter()
        scope.setdefault("state", {})["panel_begun"] = begun

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds = time.perf_counter() - begun
                headers = {
                    "Content-Security-Policy": _policy(scope["state"].get("panel_host", "")),
                    "X-Content-Type-Options": "nosniff",
                    "Referrer-Policy": "no-referrer",
                    "Cache-Control": "no-store",
                    "Server-Timing": f"total;dur={1000 * seconds:.1f}",
                }
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _policy(host: str) -> str:
    # Pictures and live views come from BrowserAct's https addresses. An emulator, or a gateway, may have another one.
    address = urlsplit(host)
    also = f" http://{address.netloc}" if address.scheme == "http" and address.netloc.isascii() else ""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https:{also}; "
        f"frame-src https:{also}; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
    )


def _error_page(request: Request, http_status: int, notice: Notice) -> Response:
    if request.method == "POST":
        return JSONResponse({"error": f"{notice.text} {notice.remedy}".strip()}, http_status)
    values = {"root": _root(request), "notices": (notice,)}
    return HTMLResponse(_render(request, "error.html", Frame(""), None, values), http_status)


def _render(request: Request, template: str, frame: Frame, content: Any, values: Mapping[str, Any]) -> str:
    return render(template, replace(frame, **values), content, fragment=_is_fragment(request))


def _root(request: Request) -> str:
    """Return the path of ``[api] base_url`` with a slash at its end."""
    mounted: str = request.scope.get("root_path", "")
    return mounted.removesuffix(f"{URL_PREFIX}{PANEL_PATH}") + "/"


def _is_fragment(request: Request) -> bool:
    return request.headers.get(FRAGMENT_HEADER) == "fragment"


def _patience(request: Request) -> float:
    if _is_fragment(request):
        return FRAGMENT_PATIENCE
    taken: float = time.perf_counter() - request.state.panel_begun
    return PAGE_PATIENCE - taken


def _is_own_script(request: Request) -> bool:
    """Return whether a request that changes something comes from a page of this Airflow."""
    if request.headers.get(FRAGMENT_HEADER) is None:
        return False
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site == "same-origin"
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


async def _user(request: Request) -> Any:
    """Return who asks.

    :raises HTTPException: nobody is logged in.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    credentials = HTTPAuthorizationCredentials(scheme=scheme, credentials=token) if token else None
    # By position, because the second argument has another name from Airflow 3.2 on.
    return await get_user(request, None, credentials)


def _access(user: Any) -> Access:
    return Access(user, database.dag_team, database.connection_team)


def _notices(account: Account) -> tuple[Notice, ...]:
    notices = _failed(account.error, account.remedy)
    if account.truncated:
        notices += (Notice("info", f"Only the newest {len(account.tasks):,} runs are shown."),)
    return notices


def _failed(error: str | None, remedy: str) -> tuple[Notice, ...]:
    if error is None:
        return ()
    return (Notice("error", f"BrowserAct could not be read: {error}", remedy),)


@cache
def _static(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()
