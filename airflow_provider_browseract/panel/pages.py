"""The pages: one function for each. They run in the panel's threads, and block. A GET request changes nothing.

Each makes a ``Look`` first: who looks and what that person may see, with Airflow's records, and what is known about the
account, which is read in an event loop of the panel's own (``accounts.py``).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import UI_FOLLOWS_FRAME
from airflow_provider_browseract.dag_file import KINDS, Runnable, dag_file, dag_id_of
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.panel import database, failures
from airflow_provider_browseract.panel.access import Access, visible_failures
from airflow_provider_browseract.panel.accounts import Account, Accounts
from airflow_provider_browseract.panel.client import Loop
from airflow_provider_browseract.panel.credits import DAYS_SHOWN, BudgetShare, credits_content, credits_on
from airflow_provider_browseract.panel.database import TaskInstanceKey
from airflow_provider_browseract.panel.failures import FailedTry
from airflow_provider_browseract.panel.html import Choice, Frame, Notice, foreign_text, label_of, render
from airflow_provider_browseract.panel.kept import Known, Read
from airflow_provider_browseract.panel.links import Link, Recent, RecordReader
from airflow_provider_browseract.panel.rows import Look, Row, troubles
from airflow_provider_browseract.panel.run import run_content, why_not_stopped
from airflow_provider_browseract.panel.viewing import Viewing, view, view_dag, view_instance
from airflow_provider_browseract.panel.web import (
    FORBIDDEN,
    FOREIGN_REQUEST,
    FRAGMENT_PATIENCE,
    NO_SUCH_PAGE,
    REFRESH,
    PageError,
    asked,
    is_fragment,
    is_own_script,
    patience_of,
    root_of,
)
from airflow_provider_browseract.runs.routes import PANEL

log = logging.getLogger(__name__)

PAGE_SIZE = 100
"""Rows of a list on one page."""

TROUBLES_SHOWN = 12
"""Lines of "Needs you". All are counted."""

SHOWN = {"all": "All", "active": "Active", "paused": "Paused", "unread": "Not waited for", "failed": "Failed"}
"""The filters of a list, and what they are called on the page."""

LOADING_REFRESH = 2
"""Seconds between two reads of the page about credits, as long as days are missing."""

PAGES = ("runs", "ti", "dag", "credits", *(words.path for words in KINDS.values()))
"""What the addresses of pages begin with, other than that of the overview."""

MANY_WAIT = Notice(
    "warning", "It is not known which runs are not waited for: so many task instances may wait that not all are read."
)
MANY_FAILURES = Notice("warning", "There are so many failed task instances that only the newest of them are read.")
BOTS_MISSING = "The runs of bots are missing, because they could not be read"
MORE_RUNS = Notice("info", "Some days have more runs than are read here, so their credits are higher than shown.")
NO_SUCH_RUN = Notice(
    "error",
    "BrowserAct has no such run.",
    "Check the id, and the connection: each account knows only its own runs.",
)


class Panel:
    """The panel of one process of the API server. Its pages take the request and the user."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._accounts = Accounts()
        self._reader = RecordReader()
        self._records = Recent(self._reader.read)
        self._failures = Recent(failures.failed_tries)

    def overview(self, request: Request, user: Any) -> Response:
        """Show what needs a person, slots, queue, credits, and the runs of the last 24 hours."""
        conn_id = asked(request, "conn")
        viewing, tries = view(user, self._records.get(), self._keys, conn_id), self._failures.get()
        look = self._look(viewing, patience_of(request), tries)
        account, rows = look.account, look.rows()
        notices = [Notice("info", f"{account.error}.")] if account.not_found and conn_id else []
        if look.viewing.records.incomplete:
            notices.append(MANY_WAIT)
        if len(tries) >= failures.MAX_FAILURES:
            notices.append(MANY_FAILURES)
        if account.not_found:
            account = replace(account, error=None)
            look = replace(look, viewing=replace(look.viewing, conn_id=None), account=account)
        wrong, budget = troubles(rows), account.budget
        content = {
            "needs_you": wrong[:TROUBLES_SHOWN],
            "more_needs": len(wrong) - TROUBLES_SHOWN,
            "active": sum(not task.status.ended for task in account.tasks),
            "today": BudgetShare(credits_on(account.tasks, look.now), budget.daily_credits if budget else None),
            "table": _table(look, rows, request),
        }
        return _show(request, "overview.html", look, content, tab="runs", notices=notices, refresh=REFRESH)

    def dag(self, request: Request, user: Any, dag_id: str, run_id: str = "{RUN_ID}") -> Response:
        """Show the runs and failed task instances of a DAG or DAG run."""
        # Airflow leaves the placeholder in the address of a DAG.
        dag_run = None if run_id == "{RUN_ID}" else run_id
        viewing = view_dag(user, self._records.get(), self._keys, dag_id, dag_run, asked(request, "conn"))
        look = self._look(viewing, patience_of(request), self._failures.get())
        own = [(row, row.key) for row in look.rows() if row.key is not None]
        rows = [row for row, key in own if key.dag_id == dag_id and dag_run in (None, key.run_id)]
        credits = sum(row.credits or 0 for row in rows)
        content = {"dag_run": dag_run, "credits": credits, "table": _table(look, rows, request)}
        return _show(request, "dag.html", look, content, title=foreign_text(dag_id), refresh=REFRESH)

    def run(self, request: Request, user: Any, task_id: str) -> Response:
        """Show a run."""
        viewing = view(user, self._records.get(), self._keys, asked(request, "conn"))
        look = self._look(viewing, 0, self._failures.get())
        read = self._read(viewing, task_id, patience_of(request))
        link = next(iter(viewing.proven(task_id)), None)
        # The other runs of its task instance are only for those who may see that, and need a proof too.
        sees = link is not None and viewing.access.reads_runs(link.key.dag_id)
        own = (
            [each for each in viewing.records.of_instance(link.key) if viewing.is_proven(each)] if link and sees else []
        )
        run = run_content(look, read, own, link)
        content = {"key": None, "has_run": True, "place": None, "failed": None, "run": run}
        title = f"BrowserAct task {foreign_text(task_id)}"
        refresh = 0 if read.value is not None and read.value.status.ended else REFRESH
        return _show(request, "run.html", look, content, tab="runs", title=title, about=read, refresh=refresh)

    def instance(self, request: Request, user: Any, dag_id: str, run_id: str, task_id: str, map_index: str) -> Response:
        """Show the latest run of a task instance, its place in the queue, or why it has failed without a run."""
        # Airflow leaves the placeholder in the address of a task instance that is not mapped.
        index = int(map_index) if map_index.isdecimal() and len(map_index) < 10 else -1
        key = TaskInstanceKey(dag_id, run_id, task_id, index)
        viewing, own = view_instance(user, self._records.get(), self._keys, key)
        look, read, run = self._look(viewing, 0, self._failures.get()), None, None
        place = next((each for each in enumerate(look.queue, start=1) if each[1].key == key), None)
        failed, notices = next((look.row_of(each) for each in look.failures if each.key == key), None), []
        try:
            if own:
                read = self._read(viewing, own[0].browseract_task_id, patience_of(request), own)
                run = run_content(look, read, own, own[0])
        except PageError as error:
            # Why it has failed is known without BrowserAct.
            if failed is None:
                raise
            notices = [error.notice]
        if run is not None and failed is not None and run["row"].failed is failed.failed:
            failed = None
        content = {"key": key, "has_run": bool(own), "place": place, "failed": failed, "run": run}
        title = label_of(key)
        # A task instance can get another run, also after its run has ended.
        return _show(request, "run.html", look, content, title=title, about=read, notices=notices, refresh=REFRESH)

    def credits(self, request: Request, user: Any) -> Response:
        """Show what the runs of the last days cost."""
        look = self._whole_account(user, asked(request, "conn"), patience_of(request))
        read = self._loop.run(self._accounts.get(look.account.conn_id, patience_of(request), lambda of: of.days.get))
        days = read.value or {}
        content = credits_content(look, {day: each.sums for day, each in days.items()}, asked(request, "by") == "dag")
        notices = [*_failed(read, True), *([MORE_RUNS] if any(day.truncated for day in days.values()) else [])]
        if look.account.bots_failure.error is None and not all(day.has_bots for day in days.values()):
            notices.append(Notice("warning", f"{BOTS_MISSING}."))
        refresh = REFRESH if content["read"] == DAYS_SHOWN and content["month"] else LOADING_REFRESH
        return _show(
            request, "credits.html", look, content, tab="credits", title="Credits", notices=notices, refresh=refresh
        )

    def workflows(self, request: Request, user: Any) -> Response:
        """Show all workflows, bots or templates."""
        look = self._whole_account(user, asked(request, "conn"), 0)
        conn_id, kind = look.account.conn_id, SourceKind.of(asked(request, "kind")) or SourceKind.WORKFLOW
        read = self._loop.run(self._accounts.get(conn_id, patience_of(request), lambda of: of.sources[kind].get))
        found, truncated = (read.value.items, read.value.truncated) if read.value else ([], False)
        wanted = foreign_text(asked(request, "search")).strip()
        content = {
            "kind": kind,
            "words": KINDS[kind],
            "kinds": [
                Choice(words.several, urlencode({"conn": conn_id, "kind": other.value}), other is kind)
                for other, words in KINDS.items()
            ],
            "search": wanted,
            "truncated": truncated,
            "sources": [each for each in found if wanted.casefold() in _words_of(each).casefold()],
        }
        return _show(request, "workflows.html", look, content, tab="workflows", title="Workflows", about=read)

    def source(self, request: Request, user: Any, source_id: str, kind: SourceKind) -> Response:
        """Show a workflow, bot or template with a DAG file that runs it."""
        look, words = self._whole_account(user, asked(request, "conn"), 0), KINDS[kind]
        conn_id, patience = look.account.conn_id, patience_of(request)
        read = self._loop.run(self._accounts.get(conn_id, patience, lambda of: of.source(kind, source_id).get))
        source = read.value
        if source is None and read.not_found:
            remedy = f"Choose one in the list of {words.one}s."
            raise PageError(404, Notice("error", f"BrowserAct has no such {words.one}.", remedy))
        if source is None and read.error is not None:
            raise PageError(502, *_failed(read, True))
        content: dict[str, Any] = {"kind": kind, "words": words, "source": source}
        if source is not None:
            dag_id, version = dag_id_of(source), SOURCES[kind].api_version
            # Lists do not name the template of a run, so a template has none.
            runs = [each for each in look.account.tasks if (each.api_version, each.source_id) == (version, source.id)]
            credits = [task.credit for task in runs if task.status.ended and task.credit]
            content |= {
                "runs": None if kind in (SourceKind.TEMPLATE, SourceKind.BOT_TEMPLATE) else len(runs),
                "mean": sum(credits) / len(credits) if credits else None,
                "inputs": {each.name: "required" if each.required else "optional" for each in source.inputs},
                "dag_id": dag_id,
                "dag_exists": look.viewing.access.reads_dag(dag_id) and database.has_dag(dag_id),
                "dag_file": dag_file(source, look.account.conn_id),
            }
        title = source_id if source is None else source.name or source.id
        return _show(request, "workflow.html", look, content, tab="workflows", title=foreign_text(title), about=read)

    def stop(self, request: Request, user: Any, task_id: str) -> Response:
        """Stop a run that is not waited for."""
        viewing = view(user, self._records.get(), self._keys, asked(request, "conn"))
        if not is_own_script(request):
            raise PageError(403, FOREIGN_REQUEST)
        task = self._read(viewing, task_id, FRAGMENT_PATIENCE).value
        look = self._look(viewing, 0)
        if task is None:
            return JSONResponse({"error": "BrowserAct does not respond. Try again."}, 502)
        why_not = why_not_stopped(look, task)
        if task.status.ended:
            return JSONResponse({"outcome": "ended"})
        if why_not is None:
            # Somebody may have begun to wait since the page was read.
            fresh = replace(viewing, records=self._reader.read())
            why_not = why_not_stopped(replace(look, viewing=fresh), task)
        if why_not is not None:
            return JSONResponse({"error": why_not}, 409)
        try:
            stopped = self._loop.run(self._accounts.stop(look.account.conn_id, task.api_version, task_id))
        except BrowserActError as error:
            return JSONResponse({"error": f"The run could not be stopped: {error.brief}."}, 502)
        if stopped:
            log.info("BrowserAct task %s was stopped in the panel by %s", task_id, viewing.access.name)
        return JSONResponse({"outcome": "stopped" if stopped else "ended"})

    def redirect(self, request: Request, user: Any, path: str) -> Response:
        """Redirect to a page of the panel: within Airflow's UI where it can show that page, else alone."""
        first, *rest = path.split("/")
        if first not in PAGES or ".." in rest or not all(rest):
            raise PageError(404, NO_SUCH_PAGE)
        root = root_of(request)
        here = f"{root}{PANEL.lstrip('/')}/{quote(path)}"
        if request.url.query:
            here += f"?{request.url.query}"
        if UI_FOLLOWS_FRAME and Access(user).sees_plugin_pages():
            return RedirectResponse(f"{root}plugin/browseract{here}")
        return RedirectResponse(here)

    def _keys(self, conn_ids: Collection[str]) -> dict[str, str]:
        """Return the API keys of those connections that can be read in time."""
        return self._loop.run(self._accounts.connections.keys(conn_ids))

    def _look(self, viewing: Viewing, patience: float, tries: Sequence[FailedTry] = ()) -> Look:
        """Return what a page is made from. Without a connection, nothing is known about an account.

        :param tries: the failed task instances, for pages that show them.
        """
        account = Account(viewing.conn_id or "")
        if viewing.conn_id is not None:
            account = self._loop.run(self._accounts.account(viewing.conn_id, patience))
        return Look(viewing, account, datetime.now(timezone.utc), visible_failures(viewing.access, tries))

    def _whole_account(self, user: Any, wanted: str, patience: float) -> Look:
        """Return what a page is made from that is about all of an account."""
        viewing = view(user, self._records.get(), self._keys, wanted)
        if not viewing.reads_account:
            raise PageError(403, FORBIDDEN)
        return self._look(viewing, patience)

    def _read(self, viewing: Viewing, task_id: str, patience: float, of_instance: Sequence[Link] = ()) -> Known[Task]:
        """Read a run in the version of the API that has started it. It has none yet if BrowserAct has not responded.

        :param of_instance: the runs of a task instance that the viewer may see.
        """
        conn_id = viewing.conn_id
        # Not even the existence of a run is shown to those who may not see it, and BrowserAct is not asked for them.
        if conn_id is None or not (of_instance or viewing.may_know(task_id)):
            raise PageError(403, FORBIDDEN)
        named = next((link.api_version for link in of_instance or viewing.proven(task_id)), ApiVersion.V2)
        read = self._loop.run(self._accounts.get(conn_id, patience, lambda of: of.run(task_id, named).get))
        if read.value is None and read.not_found:
            raise PageError(404, NO_SUCH_RUN)
        if read.value is None and read.error is not None:
            raise PageError(502, *_failed(read, viewing.reads_account))
        return read


def _table(look: Look, rows: Sequence[Row], request: Request) -> dict[str, Any]:
    """Return a page of a list, after filters and search."""
    wanted, conn_id = foreign_text(asked(request, "search")).strip(), look.viewing.conn_id
    kept = {name: value for name, value in {"conn": conn_id, "search": wanted}.items() if value}
    show, page = asked(request, "show"), asked(request, "page")
    numbers = Counter({"all": len(rows)})
    numbers.update(name for row in rows for name in row.filters)
    show = show if show in SHOWN or show in numbers else "all"
    found = [row for row in rows if show == "all" or show in row.filters]
    found = [row for row in found if row.matches(wanted.casefold())] if wanted else found
    number = int(page) if page.isdecimal() and len(page) < 7 else 1
    number = max(1, min(number, -(-len(found) // PAGE_SIZE)))
    begin = (number - 1) * PAGE_SIZE
    pages = {"newer": number - 1, "older": number + 1 if begin + PAGE_SIZE < len(found) else 0}
    return {
        "rows": found[begin : begin + PAGE_SIZE],
        "first": begin + 1,
        "total": len(found),
        **{name: urlencode({**kept, "show": show, "page": page}) if page else None for name, page in pages.items()},
        "filters": [
            Choice(label, urlencode({**kept, "show": name}), name == show, numbers[name])
            for name, label in (SHOWN if show in SHOWN else {**SHOWN, show: "Same reason"}).items()
        ],
        "show": show,
        "numbers": numbers,
        "search": wanted,
    }


def _words_of(source: Runnable) -> str:
    return f"{source.id} {source.name} {source.description}"


def _failed(read: Read, reads_account: bool) -> tuple[Notice, ...]:
    """Return the notice of a failed read. The reason can quote the connection, so only who may read that sees it."""
    if read.error is None:
        return ()
    if not reads_account:
        return (Notice("error", "BrowserAct could not be read.", "The page tries again by itself."),)
    return (Notice("error", f"BrowserAct could not be read: {read.error.rstrip('.')}.", read.remedy),)


def _left_out(account: Account, reads_account: bool) -> tuple[Notice, ...]:
    """Return the notices of runs that a page about the runs of an account does not have."""
    found = []
    if account.truncated:
        number = f" {len(account.tasks):,} runs are shown." if reads_account else ""
        found.append(Notice("info", f"Not all runs could be read.{number}"))
    # If nothing can be read, that says it.
    bots = account.bots_failure
    if account.error is None and bots.error is not None:
        reason = f": {bots.error.rstrip('.')}" if reads_account else ""
        found.append(Notice("warning", f"{BOTS_MISSING}{reason}.", bots.remedy if reads_account else ""))
    return tuple(found)


def _show(
    request: Request,
    template: str,
    look: Look,
    content: dict[str, Any],
    *,
    tab: str = "",
    title: str = "BrowserAct",
    about: Read | None = None,
    notices: Sequence[Notice] = (),
    refresh: int = 0,
) -> Response:
    """Return a page.

    :param content: what the template shows.
    :param about: what the page is about, whose age and error it shows. Default: the runs of the account.
    """
    viewing, account, shown = look.viewing, look.account, about or look.account
    left_out = _left_out(account, viewing.reads_account) if about is None else ()
    frame = Frame(
        root_of(request),
        tab,
        title,
        conn_id=viewing.conn_id,
        connections=viewing.connections if tab == "workflows" or about is None else (),
        notices=tuple(dict.fromkeys((*notices, *_failed(shown, viewing.reads_account), *left_out))),
        as_of=shown.as_of,
        reading=bool(refresh) and shown.is_old(look.now),
        refresh=refresh,
        sees_account=viewing.reads_account,
    )
    text = render(template, frame, fragment=is_fragment(request), look=look, **content)
    request.state.browseract_host = account.host
    return HTMLResponse(text)
