"""The pages of the panel. The first request imports this module, because it imports FastAPI and Airflow's models.

Each page is a plain function, which runs in one of the panel's threads: who looks and what that person may see, with
Airflow's records; what is known about the account, which is read in an event loop of the panel's own (``accounts.py``);
and the page itself. Nothing is changed by a GET request.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any
from urllib.parse import quote

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.compat import UI_FOLLOWS_FRAME
from airflow_provider_browseract.dag_file import KINDS
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.panel import building
from airflow_provider_browseract.panel.access import Access, rights_on
from airflow_provider_browseract.panel.accounts import Account, Accounts, TaskRead
from airflow_provider_browseract.panel.building import TOO_MANY_WAIT, Knowledge
from airflow_provider_browseract.panel.client import Loop
from airflow_provider_browseract.panel.credits import credits_page
from airflow_provider_browseract.panel.days import DAYS
from airflow_provider_browseract.panel.kept import Read
from airflow_provider_browseract.panel.keys import Keys
from airflow_provider_browseract.panel.links import Link, Recent, RecordReader, TaskInstanceKey
from airflow_provider_browseract.panel.notices import (
    BUSY,
    FOREIGN_REQUEST,
    MORE_RUNS,
    NO_SUCH_RUN,
    NOT_STOPPED,
    failed,
    left_out,
)
from airflow_provider_browseract.panel.rendering import render
from airflow_provider_browseract.panel.viewing import Viewing, view, view_dag, view_instance
from airflow_provider_browseract.panel.views import Frame, Notice, foreign_text
from airflow_provider_browseract.panel.web import (
    FORBIDDEN,
    FRAGMENT_PATIENCE,
    NO_SUCH_PAGE,
    REFRESH,
    PageError,
    Query,
    RareLog,
    SecureHeaders,
    error_page,
    is_fragment,
    is_own_script,
    patience_of,
    root_of,
    safely,
    static,
    user_of,
)
from airflow_provider_browseract.runs.routes import PANEL

log = logging.getLogger(__name__)

THREADS = 8
"""Threads for pages. They are not those of the API server, so slow pages delay nothing else. Most of them wait for
BrowserAct: making pages takes the interpreter's lock, for which callbacks would wait."""

MOST_WAITING = 200
"""How many pages may wait for a thread. If the database does not respond, more are refused at once."""

LOADING_REFRESH = 2
"""Seconds between two reads of the page about credits, as long as days are missing."""

PAGES = ("runs", "ti", "dag", "credits", *(words.path for words in KINDS.values()))
"""What the addresses of pages begin with, other than that of the overview."""


class Panel:
    """The panel of one process of the API server. Its pages take the request and the user, and block."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._accounts = Accounts()
        self._records = Recent(RecordReader().read)
        self._keys = Keys()

    def overview(self, request: Request, user: Any) -> Response:
        """Show slots, queue, paused runs, credits, and the runs of the last 24 hours."""
        query = Query.of(request)
        viewing = self._view(user, query.conn)
        account = self._account(viewing, patience_of(request))
        if account is None or account.missing:
            missing = (Notice("info", f"{account.error}."),) if account is not None and query.conn else ()
            return _show(request, "overview.html", viewing, tab="runs", notices=missing)
        content = building.overview(_knowledge(viewing, account), query.show, query.search, query.page)
        return _show(request, "overview.html", viewing, account, content, tab="runs", refresh=REFRESH)

    def run(self, request: Request, user: Any, task_id: str) -> Response:
        """Show a run."""
        return self._run(request, self._view(user, Query.of(request).conn), task_id)

    def instance(self, request: Request, user: Any, dag_id: str, run_id: str, task_id: str, map_index: str) -> Response:
        """Show the latest run of a task instance, or its place in the queue."""
        # Airflow leaves the placeholder in the address of a task instance that is not mapped.
        index = int(map_index) if map_index.isdecimal() and len(map_index) < 10 else -1
        key = TaskInstanceKey(dag_id, run_id, task_id, index)
        viewing, links = view_instance(user, self._records.get(), self._keys, key)
        if links:
            return self._run(request, viewing, links[0].browseract_task_id, key, links)
        account = self._account(viewing, 0)
        content = building.instance_page(_knowledge(viewing, account), key, None) if account is not None else None
        title = building.instance_view(key).label
        return _show(request, "instance.html", viewing, account, content, title=title, refresh=REFRESH)

    def dag(self, request: Request, user: Any, dag_id: str, run_id: str = "{RUN_ID}") -> Response:
        """Show the runs of a DAG or DAG run."""
        # Airflow leaves the placeholder in the address of a DAG.
        dag_run = None if run_id == "{RUN_ID}" else run_id
        query, content = Query.of(request), None
        viewing = view_dag(user, self._records.get(), self._keys, dag_id, dag_run, query.conn)
        account = self._account(viewing, patience_of(request))
        if account is not None:
            known = _knowledge(viewing, account)
            content = building.dag_page(known, dag_id, dag_run, query.show, query.search, query.page)
        title = foreign_text(dag_id)
        return _show(request, "dag.html", viewing, account, content, title=title, refresh=REFRESH)

    def credits(self, request: Request, user: Any) -> Response:
        """Show what the runs of the last days cost."""
        query = Query.of(request)
        viewing, account = self._whole_account(user, query.conn, patience_of(request))
        read = self._loop.run(self._accounts.days(account.conn_id, patience_of(request)))
        known = _knowledge(viewing, account)
        sums = {day: each.sums for day, each in read.days.items()}
        more = [MORE_RUNS] if any(day.truncated for day in read.days.values()) else []
        return _show(
            request,
            "credits.html",
            viewing,
            account,
            credits_page(known, sums, query.by == "dag"),
            tab="credits",
            title="Credits",
            notices=(*failed(read, True), *more),
            refresh=REFRESH if len(read.days) == DAYS else LOADING_REFRESH,
        )

    def workflows(self, request: Request, user: Any) -> Response:
        """Show all workflows, bots or templates."""
        query = Query.of(request)
        viewing, account = self._whole_account(user, query.conn, 0)
        read = self._loop.run(self._accounts.sources(account.conn_id, query.kind, patience_of(request)))
        known = _knowledge(viewing, account)
        content = building.sources_page(known, read.items, query.kind, query.search, read.truncated)
        return _show(
            request, "workflows.html", viewing, account, content, tab="workflows", title="Workflows", about=read
        )

    def source(self, request: Request, user: Any, source_id: str, kind: SourceKind) -> Response:
        """Show a workflow, bot or template with a DAG file that runs it."""
        viewing, account = self._whole_account(user, Query.of(request).conn, 0)
        read = self._loop.run(self._accounts.source(account.conn_id, kind, source_id, patience_of(request)))
        found = read.source
        if found is None and read.not_found:
            what = KINDS[kind].one
            missing = Notice("error", f"BrowserAct has no such {what}.", f"Choose one in the list of {what}s.")
            raise PageError(404, missing)
        if found is None and read.error is not None:
            raise PageError(502, *failed(read, True))
        content = None if found is None else building.source_page(_knowledge(viewing, account), found)
        title = foreign_text(found.name) or found.id if found is not None else "Workflow"
        return _show(request, "workflow.html", viewing, account, content, tab="workflows", title=title, about=read)

    def stop(self, request: Request, user: Any, task_id: str) -> Response:
        """Stop a run that is not waited for."""
        viewing = self._view(user, Query.of(request).conn)
        if not is_own_script(request):
            raise PageError(403, FOREIGN_REQUEST)
        task = self._read(viewing, task_id, FRAGMENT_PATIENCE).task
        account = self._account(viewing, 0)
        if task is None or account is None:
            return JSONResponse({"error": "BrowserAct does not respond. Try again."}, 502)
        why_not = _why_not_stopped(_knowledge(viewing, account), task)
        if task.status.ended:
            return JSONResponse({"outcome": "ended"})
        if why_not is None:
            # Somebody may have begun to wait since the page was read.
            fresh = replace(viewing, records=self._records.get(max_age=0.0))
            why_not = _why_not_stopped(_knowledge(fresh, account), task)
        if why_not is not None:
            return JSONResponse({"error": why_not}, 409)
        try:
            stopped = self._loop.run(self._accounts.stop(account.conn_id, task.api_version, task_id))
        except BrowserActError as error:
            return JSONResponse({"error": f"The run could not be stopped: {error.brief}."}, 502)
        if stopped:
            log.info("BrowserAct task %s was stopped in the panel by %s", task_id, viewing.access.name)
        return JSONResponse({"outcome": "stopped" if stopped else "ended"})

    def redirect(self, request: Request, user: Any, path: str) -> Response:
        """Redirect to a page of the panel: within Airflow's UI where it can show that page, else alone."""
        access = Access(user)
        first, *rest = path.split("/")
        if first not in PAGES or ".." in rest or not all(rest):
            raise PageError(404, NO_SUCH_PAGE)
        root = root_of(request)
        here = f"{root}{PANEL.lstrip('/')}/{quote(path)}"
        if request.url.query:
            here += f"?{request.url.query}"
        if UI_FOLLOWS_FRAME and access.sees_plugin_pages():
            return RedirectResponse(f"{root}plugin/browseract{here}")
        return RedirectResponse(here)

    # Who looks, and at which account

    def _view(self, user: Any, wanted: str) -> Viewing:
        return view(user, self._records.get(), self._keys, wanted)

    def _account(self, viewing: Viewing, patience: float) -> Account | None:
        """Return what is known about the account; None if the viewer may see none."""
        if viewing.conn_id is None:
            return None
        return self._loop.run(self._accounts.account(viewing.conn_id, patience))

    def _whole_account(self, user: Any, wanted: str, patience: float) -> tuple[Viewing, Account]:
        """Return who looks, and the account, for a page that is about all of it."""
        viewing = self._view(user, wanted)
        if not viewing.reads_account or (account := self._account(viewing, patience)) is None:
            raise PageError(403, FORBIDDEN)
        return viewing, account

    # Pages about one run

    def _run(
        self,
        request: Request,
        viewing: Viewing,
        task_id: str,
        key: TaskInstanceKey | None = None,
        links: Sequence[Link] = (),
    ) -> Response:
        """Show a run.

        :param key: show it as the page of this task instance.
        :param links: the runs of the task instance; the first one is shown.
        """
        read = self._read(viewing, task_id, patience_of(request), links)
        account, content, task = self._account(viewing, 0), None, read.task
        if task is not None and account is not None:
            proven = viewing.proven(task_id)
            link = links[0] if links else next(iter(proven), None)
            # What is older than the records gives rights too: those that were asked for with the task instance.
            rights = rights_on(viewing.access, account.conn_id, [*proven, *links[:1]])
            if not rights.run:
                raise PageError(403, FORBIDDEN)
            known, others = _knowledge(viewing, account), links
            if not links and link is not None:
                others = viewing.records.of_instance(link.key)
            run = building.run_page(known, read, link, rights, others)
            content = run if key is None else building.instance_page(known, key, run)
        return _show(
            request,
            "run.html" if key is None or task is None else "instance.html",
            viewing,
            account,
            content,
            tab="runs" if key is None else "",
            title=f"BrowserAct task {foreign_text(task_id)}" if key is None else building.instance_view(key).label,
            about=read,
            # A task instance can get another run, also after its run has ended.
            refresh=0 if key is None and task is not None and task.status.ended else REFRESH,
        )

    def _read(self, viewing: Viewing, task_id: str, patience: float, links: Sequence[Link] = ()) -> TaskRead:
        """Read a run in the version of the API that has started it. It has none yet if BrowserAct has not responded.

        :param links: the runs of a task instance that the viewer may see.
        """
        conn_id = viewing.conn_id
        # Not even the existence of a run is shown to those who may not see it, and BrowserAct is not asked for them.
        if conn_id is None or not (links or viewing.may_know(task_id)):
            raise PageError(403, FORBIDDEN)
        named = (link.api_version for link in links or viewing.proven(task_id))
        version = self._accounts.version_of(conn_id, task_id) or next(named, ApiVersion.V2)
        read = self._loop.run(self._accounts.task(conn_id, version, task_id, patience))
        if read.task is None and read.not_found:
            raise PageError(404, NO_SUCH_RUN)
        if read.task is None and read.error is not None:
            raise PageError(502, *failed(read, viewing.reads_account))
        return read


def _knowledge(viewing: Viewing, account: Account) -> Knowledge:
    return Knowledge(viewing, account, datetime.now(timezone.utc))


def _why_not_stopped(known: Knowledge, task: Task) -> str | None:
    """Return why a run must not be stopped; None if it is not waited for."""
    rights = known.rights_on(task)
    if not rights.act:
        raise PageError(403, NOT_STOPPED if rights.run else FORBIDDEN)
    if known.viewing.records.incomplete:
        return TOO_MANY_WAIT
    if who := known.who_waits(task.id):
        return f"The run is waited for by {who}. Clear or mark the task instance instead."
    return None if known.is_unread(task) else "The run is less than a minute old. Try again in a minute."


def _show(
    request: Request,
    template: str,
    viewing: Viewing,
    account: Account | None = None,
    content: Any = None,
    *,
    tab: str = "",
    title: str = "BrowserAct",
    about: Read | None = None,
    notices: Sequence[Notice] = (),
    refresh: int = 0,
) -> Response:
    """Return a page.

    :param content: the value of the template; None if there is none yet.
    :param about: what the page is about, whose age and error it shows. Default: the runs of the account.
    """
    shown = about or account
    reads_account = account is not None and viewing.reads_account
    frame = Frame(
        root_of(request),
        tab,
        title,
        conn_id=viewing.conn_id if account is not None else None,
        connections=viewing.connections if about is None or tab == "workflows" else (),
        notices=(
            *notices,
            *(() if notices else failed(shown, reads_account)),
            *left_out(shown, reads_account),
        ),
        as_of=shown.as_of if shown is not None else None,
        reading=bool(refresh) and shown is not None and shown.is_old(datetime.now(timezone.utc)),
        refresh=refresh,
        sees_account=reads_account,
    )
    text = render(template, frame, content, fragment=is_fragment(request))
    request.state.browseract_host = account.host if account is not None else ""
    return HTMLResponse(text)


def create_app() -> FastAPI:
    """Return the application that the plugin mounts, without API documentation."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    panel, rare_log, threads = Panel(), RareLog(), anyio.CapacityLimiter(THREADS)
    app.add_middleware(SecureHeaders)
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
        return error_page(request, error.status_code, NO_SUCH_PAGE)

    return app
