"""The pages of the panel. The first request imports this module, because it imports FastAPI and Airflow's models.

Each page is made in three parts: who looks and what that person may see, with Airflow's records (in a thread), what is
known about the account (in the event loop, see ``accounts.py``), and the page itself (in a thread). Nothing is changed
by a GET request.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar
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
from airflow_provider_browseract.panel.building import Knowledge
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
from airflow_provider_browseract.panel.sums import SumsOfDays
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

T = TypeVar("T")

THREADS = 2
"""Threads for database, rights and pages. They are not those of the API server, so slow pages delay nothing else. More
threads do not make more pages, because making them takes the interpreter's lock, for which callbacks would wait."""

MOST_WAITING = 200
"""How many parts of pages may wait for a thread. If the database does not respond, more are refused at once."""

LOADING_REFRESH = 2
"""Seconds between two reads of the page about credits, as long as days are missing."""

PAGES = ("runs", "ti", "dag", "credits", *(words.path for words in KINDS.values()))
"""What the addresses of pages begin with, other than that of the overview."""


class Panel:
    """The panel of one process of the API server."""

    def __init__(self) -> None:
        self._accounts = Accounts()
        self._records = Recent(RecordReader().read)
        self._keys = Keys()
        self._sums = SumsOfDays()
        self._threads = anyio.CapacityLimiter(THREADS)

    async def overview(self, request: Request) -> Response:
        """Show slots, queue, paused runs, credits, and the runs of the last 24 hours."""
        query = Query.of(request)
        viewing = await self._view(request, query.conn)
        account = None
        if viewing.conn_id is not None:
            account = await self._accounts.account(viewing.conn_id, patience_of(request))
        if account is None or account.missing:
            missing = (Notice("info", f"{account.error}."),) if account is not None and query.conn else ()
            return await self._show(request, "overview.html", viewing, tab="runs", notices=missing)

        def build(known: Knowledge) -> Any:
            return building.overview(known, query.show, query.search, query.page)

        return await self._show(request, "overview.html", viewing, account, build, tab="runs", refresh=REFRESH)

    async def run(self, request: Request, task_id: str) -> Response:
        """Show a run."""
        viewing = await self._view(request, Query.of(request).conn)
        if viewing.conn_id is None:
            raise PageError(403, FORBIDDEN)
        return await self._run(request, viewing, task_id)

    async def instance(self, request: Request, dag_id: str, run_id: str, task_id: str, map_index: str) -> Response:
        """Show the latest run of a task instance, or its place in the queue."""
        # Airflow leaves the placeholder in the address of a task instance that is not mapped.
        index = int(map_index) if map_index.isdecimal() and len(map_index) < 10 else -1
        key = TaskInstanceKey(dag_id, run_id, task_id, index)
        viewing, links = await self._with_records(view_instance, request, key)
        if links and viewing.conn_id is not None:
            return await self._run(request, viewing, links[0].browseract_task_id, key, links)
        title = building.instance_view(key).label
        if viewing.conn_id is None:
            return await self._show(request, "instance.html", viewing, title=title, refresh=REFRESH)
        account = await self._accounts.account(viewing.conn_id, 0)

        def build(known: Knowledge) -> Any:
            return building.instance_page(known, key, None)

        return await self._show(request, "instance.html", viewing, account, build, title=title, refresh=REFRESH)

    async def dag(self, request: Request, dag_id: str, run_id: str = "{RUN_ID}") -> Response:
        """Show the runs of a DAG or DAG run."""
        # Airflow leaves the placeholder in the address of a DAG.
        dag_run = None if run_id == "{RUN_ID}" else run_id
        query, title = Query.of(request), foreign_text(dag_id)
        viewing = await self._with_records(view_dag, request, dag_id, dag_run, query.conn)
        if viewing.conn_id is None:
            return await self._show(request, "dag.html", viewing, title=title, refresh=REFRESH)
        account = await self._accounts.account(viewing.conn_id, patience_of(request))

        def build(known: Knowledge) -> Any:
            return building.dag_page(known, dag_id, dag_run, query.show, query.search, query.page)

        return await self._show(request, "dag.html", viewing, account, build, title=title, refresh=REFRESH)

    async def credits(self, request: Request) -> Response:
        """Show what the runs of the last days cost."""
        query = Query.of(request)
        viewing, conn_id = await self._view_account(request, query.conn)
        account = await self._accounts.account(conn_id, patience_of(request))
        read = await self._accounts.days(conn_id, patience_of(request))

        def build(known: Knowledge) -> Any:
            sums = self._sums.of(conn_id, read.days, known.now.date())
            return credits_page(known, sums, query.by == "dag")

        more = [MORE_RUNS] if any(day.truncated for day in read.days.values()) else []
        return await self._show(
            request,
            "credits.html",
            viewing,
            account,
            build,
            tab="credits",
            title="Credits",
            notices=(*failed(read, True), *more),
            refresh=REFRESH if len(read.days) == DAYS else LOADING_REFRESH,
        )

    async def workflows(self, request: Request) -> Response:
        """Show all workflows, bots or templates."""
        query = Query.of(request)
        viewing, conn_id = await self._view_account(request, query.conn)
        read = await self._accounts.sources(conn_id, query.kind, patience_of(request))
        account = await self._accounts.account(conn_id, 0)

        def build(known: Knowledge) -> Any:
            return building.sources_page(known, read.items, query.kind, query.search, read.truncated)

        return await self._show(
            request, "workflows.html", viewing, account, build, tab="workflows", title="Workflows", about=read
        )

    async def workflow(self, request: Request, source_id: str) -> Response:
        """Show a workflow with a DAG file that runs it."""
        return await self._source(request, SourceKind.WORKFLOW, source_id)

    async def template(self, request: Request, source_id: str) -> Response:
        """Show a template with a DAG file that runs it."""
        return await self._source(request, SourceKind.TEMPLATE, source_id)

    async def bot(self, request: Request, source_id: str) -> Response:
        """Show a bot with a DAG file that runs it."""
        return await self._source(request, SourceKind.BOT, source_id)

    async def bot_template(self, request: Request, source_id: str) -> Response:
        """Show a bot template with a DAG file that runs it."""
        return await self._source(request, SourceKind.BOT_TEMPLATE, source_id)

    async def stop(self, request: Request, task_id: str) -> Response:
        """Stop a run that is not waited for."""
        viewing = await self._view(request, Query.of(request).conn)
        if not is_own_script(request):
            raise PageError(403, FOREIGN_REQUEST)
        if viewing.conn_id is None:
            raise PageError(403, FORBIDDEN)
        task = (await self._read(request, viewing, task_id, FRAGMENT_PATIENCE)).task
        account = await self._accounts.account(viewing.conn_id, 0)
        if task is None:
            return JSONResponse({"error": "BrowserAct does not respond. Try again."}, 502)
        why_not = await self._in_thread(self._why_not_stopped, viewing, account, task)
        if task.status.ended:
            return JSONResponse({"outcome": "ended"})
        if why_not is not None:
            return JSONResponse({"error": why_not}, 409)
        try:
            stopped = await self._accounts.stop(viewing.conn_id, task.api_version, task_id)
        except BrowserActError as error:
            return JSONResponse({"error": f"The run could not be stopped: {error.brief}."}, 502)
        if stopped:
            log.info("BrowserAct task %s was stopped in the panel by %s", task_id, viewing.access.name)
        return JSONResponse({"outcome": "stopped" if stopped else "ended"})

    async def redirect(self, request: Request, path: str) -> Response:
        """Redirect to a page of the panel: within Airflow's UI where it can show that page, else alone."""
        access = await self._in_thread(Access, await user_of(request))
        first, *rest = path.split("/")
        if first not in PAGES or ".." in rest or not all(rest):
            raise PageError(404, NO_SUCH_PAGE)
        root = root_of(request)
        here = f"{root}{PANEL.lstrip('/')}/{quote(path)}"
        if request.url.query:
            here += f"?{request.url.query}"
        if UI_FOLLOWS_FRAME and await self._in_thread(access.sees_plugin_pages):
            return RedirectResponse(f"{root}plugin/browseract{here}")
        return RedirectResponse(here)

    # Who looks

    async def _view(self, request: Request, wanted: str) -> Viewing:
        """Return who looks, at the wanted connection or at the first one that the viewer may see.

        :raises PageError: the viewer may not see the wanted connection.
        :raises HTTPException: nobody is logged in.
        """
        return await self._with_records(view, request, wanted)

    async def _view_account(self, request: Request, wanted: str) -> tuple[Viewing, str]:
        """Return who looks, and the connection, for a page about the whole account."""
        viewing = await self._view(request, wanted)
        if viewing.conn_id is None or not await self._in_thread(lambda: viewing.reads_account):
            raise PageError(403, FORBIDDEN)
        return viewing, viewing.conn_id

    # Pages about one run, workflow, bot or template

    async def _run(
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
        assert viewing.conn_id is not None
        read = await self._read(request, viewing, task_id, patience_of(request), links)
        account = await self._accounts.account(viewing.conn_id, 0)
        task = read.task
        title = f"BrowserAct task {foreign_text(task_id)}" if key is None else building.instance_view(key).label

        def page(known: Knowledge) -> Any:
            assert task is not None
            proven = viewing.proven(task_id)
            link = links[0] if links else next(iter(proven), None)
            # What is older than the records gives rights too: those that were asked for with the task instance.
            rights = rights_on(viewing.access, account.conn_id, [*proven, *links[:1]])
            if not rights.run:
                raise PageError(403, FORBIDDEN)
            others = links or (viewing.records.of_instance(link.key) if link is not None else [])
            run = building.run_page(known, read, link, rights, others)
            return run if key is None else building.instance_page(known, key, run)

        return await self._show(
            request,
            "run.html" if key is None or task is None else "instance.html",
            viewing,
            account,
            None if task is None else page,
            tab="runs" if key is None else "",
            title=title,
            about=read,
            # A task instance can get another run, also after its run has ended.
            refresh=0 if key is None and task is not None and task.status.ended else REFRESH,
        )

    async def _read(
        self, request: Request, viewing: Viewing, task_id: str, patience: float, links: Sequence[Link] = ()
    ) -> TaskRead:
        """Read a run in the version of the API that has started it. It has none yet if BrowserAct has not responded.

        :param links: the runs of a task instance that the viewer may see.
        """
        assert viewing.conn_id is not None
        # Not even the existence of a run is shown to those who may not see it, and BrowserAct is not asked for them.
        if not links and not await self._in_thread(viewing.may_know, task_id):
            raise PageError(403, FORBIDDEN)
        listed = self._accounts.version_of(viewing.conn_id, task_id)
        named = (link.api_version for link in links or viewing.proven(task_id))
        version = listed or next(named, ApiVersion.V2)
        read = await self._accounts.task(viewing.conn_id, version, task_id, patience)
        if read.task is None and read.not_found:
            raise PageError(404, NO_SUCH_RUN)
        if read.task is None and read.error is not None:
            raise PageError(502, *failed(read, await self._in_thread(lambda: viewing.reads_account)))
        return read

    def _why_not_stopped(self, viewing: Viewing, account: Account, task: Task) -> str | None:
        """Return why a run must not be stopped; None if it is not waited for."""
        # Somebody may have begun to wait since the page was read.
        now_known = replace(viewing, records=self._records.get(max_age=0.0))
        known = Knowledge(now_known, account, datetime.now(timezone.utc))
        rights = known.rights_on(task)
        if not rights.act:
            raise PageError(403, NOT_STOPPED if rights.run else FORBIDDEN)
        if who := known.who_waits(task.id):
            return f"The run is waited for by {who}. Clear or mark the task instance instead."
        return None if known.is_unread(task) else "The run is less than a minute old. Try again in a minute."

    async def _source(self, request: Request, kind: SourceKind, source_id: str) -> Response:
        viewing, conn_id = await self._view_account(request, Query.of(request).conn)
        read = await self._accounts.source(conn_id, kind, source_id, patience_of(request))
        account = await self._accounts.account(conn_id, 0)
        found = read.source
        if found is None and read.not_found:
            what = KINDS[kind].one
            missing = Notice("error", f"BrowserAct has no such {what}.", f"Choose one in the list of {what}s.")
            raise PageError(404, missing)
        if found is None and read.error is not None:
            raise PageError(502, *failed(read, True))
        build = None if found is None else partial(building.source_page, source=found)
        title = foreign_text(found.name) or found.id if found is not None else "Workflow"
        return await self._show(
            request, "workflow.html", viewing, account, build, tab="workflows", title=title, about=read
        )

    # How it is shown

    async def _show(
        self,
        request: Request,
        template: str,
        viewing: Viewing,
        account: Account | None = None,
        build: Callable[[Knowledge], Any] | None = None,
        *,
        tab: str = "",
        title: str = "BrowserAct",
        about: Read | None = None,
        notices: Sequence[Notice] = (),
        refresh: int = 0,
    ) -> Response:
        """Build and render a page in a thread.

        :param build: makes the value of the template; None if there is none yet.
        :param about: what the page is about, whose age and error it shows. Default: the runs of the account.
        """

        def page() -> str:
            content, shown = None, about or account
            reads_account = account is not None and viewing.reads_account
            if account is not None and build is not None:
                content = build(Knowledge(viewing, account, datetime.now(timezone.utc)))
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
                refresh=refresh,
                sees_account=reads_account,
            )
            return render(template, frame, content, fragment=is_fragment(request))

        text = await self._in_thread(page)
        request.state.browseract_host = account.host if account is not None else ""
        return HTMLResponse(text)

    async def _with_records(self, function: Callable[..., T], request: Request, *args: Any) -> T:
        """Call a function with the user and with Airflow's records in a thread.

        :raises HTTPException: nobody is logged in.
        """
        user = await user_of(request)
        return await self._in_thread(lambda: function(user, self._records.get(), self._keys, *args))

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        if self._threads.statistics().tasks_waiting >= MOST_WAITING:
            raise PageError(503, BUSY)
        return await anyio.to_thread.run_sync(partial(function, *args), limiter=self._threads)


def create_app() -> FastAPI:
    """Return the application that the plugin mounts, without API documentation."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    panel, rare_log = Panel(), RareLog()
    app.add_middleware(SecureHeaders)
    pages: dict[str, Callable[..., Awaitable[Response]]] = {
        "/": panel.overview,
        "/runs/{task_id}": panel.run,
        "/ti/{dag_id}/{run_id}/{task_id}/{map_index}": panel.instance,
        "/dag/{dag_id}": panel.dag,
        "/dag/{dag_id}/{run_id}": panel.dag,
        "/credits": panel.credits,
        "/workflows": panel.workflows,
        "/workflows/{source_id}": panel.workflow,
        "/templates/{source_id}": panel.template,
        "/bots/{source_id}": panel.bot,
        "/bot-templates/{source_id}": panel.bot_template,
        "/open/{path:path}": panel.redirect,
        "/static/{name}": static,
    }
    for path, page in pages.items():
        app.get(path)(safely(page, rare_log))
    app.post("/runs/{task_id}/stop")(safely(panel.stop, rare_log))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        return error_page(request, error.status_code, NO_SUCH_PAGE)

    return app
