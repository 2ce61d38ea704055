"""What the pages show, as HTML, of a world made by hand."""

from __future__ import annotations

import re
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from fastapi import Request

from airflow_provider_browseract.api.models import ApiVersion, Failure, Step, Task, TaskStatus
from airflow_provider_browseract.api.pages import Listing
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.dag_file import KINDS, Runnable
from airflow_provider_browseract.panel import credits, database, html, pages, web
from airflow_provider_browseract.panel.days import Day
from airflow_provider_browseract.panel.html import Notice
from airflow_provider_browseract.panel.kept import Known
from airflow_provider_browseract.runs.wait import Wait
from airflow_provider_browseract.spending.budget import Budget
from tests.helpers.cases import cases
from tests.helpers.steps import replace

from .known import ADMIN, CONN, NOW, RUN_ID, Viewer, failed, known, link, queued, task

PANEL = Path(pages.__file__).parent
PATH = "/team-a/browseract/panel"
HOSTILE = "<img src=x onerror=alert(1)>\"' onload=x </script><script>alert(2)</script>{{ 7 * 7 }}"
SCRIPTS = "javascript:alert(1)"
OF_PRICES = Viewer({"prices"})
WITHOUT_LOGS = Viewer({"prices"}, steps=False)
DAY = 24 * 60  # minutes


class Page:
    """A page that is made from a look, as the browser gets it.

    :param read: what BrowserAct has responded to what the page asks for by itself.
    """

    def __init__(self, look, page: str, *args: Any, read: Any = None, query: str = "", fragment: bool = True) -> None:
        panel: Any = object.__new__(pages.Panel)
        kept = SimpleNamespace(get=tuple)
        panel._records = panel._failures = panel._keys = kept
        panel._look = lambda *_: look
        panel._read = lambda *_: read
        panel._accounts = SimpleNamespace(get=lambda *_: read)
        panel._loop = SimpleNamespace(run=lambda result: result)
        of_instance = look.viewing.records.of_instance(args[0]) if page == "instance" else []
        with pytest.MonkeyPatch.context() as patch:
            for name in ("view", "view_dag"):
                patch.setattr(pages, name, lambda *_: look.viewing)
            patch.setattr(pages, "view_instance", lambda *_: (look.viewing, of_instance))
            patch.setattr(database, "has_dag", lambda dag_id: "known" in dag_id)
            request = Request(
                {
                    "type": "http",
                    "method": "GET",
                    "root_path": PATH,
                    "headers": [(b"x-browseract-panel", b"fragment")] if fragment else [],
                    "query_string": query.encode(),
                    "state": {"browseract_begun": 0.0},
                }
            )
            args = tuple(map(str, args[0])) if page == "instance" else args
            self.html = getattr(panel, page)(request, "ada", *args).body.decode()
        self.elements = Elements(self.html)
        self.text = " ".join(self.elements.text.split())

    def having(self, **wanted: Any) -> list[dict[str, str | None]]:
        """Return the attributes of the elements that have these ones."""
        names = {name.strip("_").replace("_", "-"): value for name, value in wanted.items()}
        return [each for _, each in self.elements.found if names.items() <= each.items()]


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> is given twice"
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def rows_of(page: Page) -> list[str | None]:
    return [each["data-run"] for _, each in page.elements.found if "data-run" in each]


def read_of(value: Any) -> Known[Any]:
    return Known(value=value, as_of=NOW)


def run_page(run: Task, viewer: Viewer = ADMIN, *, failures=(), **fields: Any) -> Page:
    look = known(run, links=[link(run, **fields)], failures=failures, viewer=viewer, names={"71": "Search"})
    return Page(look, "run", run.id, read=read_of(run))


def days_of(number: int, runs: list[Task], dags: dict[str, str] | None = None) -> dict[date, Day]:
    """Return the last days with the runs that were created on them."""
    days = [NOW.date() - timedelta(days=back) for back in range(number)]
    return {day: Day.of(day, runs, NOW, dags or {}) for day in days}


def world(text: str, address: str | None) -> dict[str, Page]:
    """Return each page, with a text and an address from outside wherever one can be."""
    step = Step(number=1, status=text, goal=text).model_copy(update={"screenshots_url": address})
    of_web: dict[str, Any] = dict.fromkeys(("live_url", "log_detail_url"), address)
    failing = {"failure": Failure(code=7, message="x").model_copy(update={"message": text}), "profile_id": None}
    steps = (step, step.model_copy(update={"number": 2, "status": "failed"}))
    active = task(1, steps=steps).model_copy(update=of_web)
    over = task(2, TaskStatus.FAILED, steps=steps).model_copy(update={**of_web, **failing, "profile_id": text})
    of_runs = [link(over, "prices"), link(active, text, required_action=True, wait=Wait("83001", 5e9))]
    viewer = Viewer({"prices", text}, {"prices", text}, account=True, edits=True)
    of_run: dict[str, Any] = {"started": True, "task_id": over.id, "remedy": text}
    failures = [failed(reason=text, **of_run), failed(text, text, map_index=3), failed(text, None, task="killed")]
    queue = [queued(1, text), queued(2, "hidden"), queued(3, "prices")]
    look = known(
        active, over, task(3), links=of_runs, failures=failures, queue=queue, viewer=viewer, names={"71": text}
    )
    look = replace(look, viewing=replace(look.viewing, connections=(CONN, text)))
    source = Runnable(SourceKind.WORKFLOW, "71", text, text, {"properties": {text: {}}}, {}, address)
    days = read_of(days_of(1, [active], {active.id: text}))
    return {
        "overview": Page(look, "overview", query=f"conn={CONN}"),
        "search": Page(look, "overview", query="search=no%20such%20thing"),
        "dag": Page(look, "dag", text),
        "run": Page(look, "run", active.id, read=read_of(active)),
        "failed run": Page(look, "run", over.id, read=read_of(over)),
        "task instance": Page(look, "instance", failed(text, map_index=3).key),
        "task instance in the queue": Page(look, "instance", queue[0].key),
        "credits": Page(look, "credits", read=days, query="by=dag"),
        "workflows": Page(look, "workflows", read=read_of(Listing([source], 0, True))),
        "workflow": Page(look, "source", "71", SourceKind.WORKFLOW, read=read_of(source)),
    }


PAGES = [*world("x", None)]


@pytest.fixture(scope="module")
def typical() -> dict[str, Page]:
    return world("Search", "https://b.example/p.png?s=1")


@pytest.fixture(scope="module")
def hostile() -> dict[str, Page]:
    return world(HOSTILE, SCRIPTS)


def check_content_security(page: Page) -> None:
    """Hold a page against the policy that its response has."""
    for tag, attributes in page.elements.found:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        assert tag != "script" or set(attributes) == {"src"}
        for name in ("href", "src", "action", "data-live"):
            assert not re.match(r"\s*(javascript|data|vbscript):", attributes.get(name) or "", re.IGNORECASE)
        if tag == "a" and attributes.get("target"):
            assert attributes["rel"] == "noopener noreferrer"


@pytest.mark.parametrize("name", PAGES)
def test_page_has_no_inline_code_and_shows_foreign_texts_as_text(typical, hostile, name):
    for page in (typical[name], hostile[name]):
        check_content_security(page)
        assert [tag for tag, _ in page.elements.found if tag == "script"] == []
    if name != "search":
        assert HOSTILE in hostile[name].elements.text
    assert "<img src=x" not in hostile[name].html
    assert SCRIPTS not in hostile[name].html


@pytest.mark.parametrize("name", PAGES)
def test_ids_of_a_page_are_unique_and_labels_refer_to_them(typical, name):
    found = typical[name].elements.found
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found:
        for reference in ("aria-labelledby", "aria-controls", "for", "data-copy"):
            assert attributes.get(reference) in (None, *ids)


LOADING, NO_RUN = "Reading the runs from BrowserAct", "No run in the last 24 hours"


@cases(
    ("not read yet", {"as_of": None}, [LOADING]),
    ("that could not be read", {"as_of": None, "error": "Wrong key"}, ["Nothing could be read", "Wrong key."]),
    ("without runs", {}, [NO_RUN, "Choose a workflow and copy a DAG"]),
)
def test_overview_of_an_account(account, texts):
    page = Page(known(**account), "overview", query=f"conn={CONN}")
    assert [text for text in texts if text not in page.text] == []
    assert ("data-loading" in page.html) is (LOADING in texts)
    # What Airflow knows does not wait for BrowserAct.
    assert "prices / search not started: It is over" in Page(known(failures=[failed()], **account), "overview").text


@cases(("is being read", {}, True), ("could not be read", {"error": "no"}, False))
def test_page_of_what_is_not_read_yet(read, loads):
    of_run = link(task(1))
    for name, *args in (("run", "1"), ("instance", of_run.key), ("workflows",)):
        page = Page(known(links=[of_run]), name, *args, read=Known(**read))
        assert ("data-loading" in page.html, "could be read from BrowserAct" in page.text) == (loads, not loads)


def test_overview_has_the_lines_of_needs_you_with_their_buttons_first():
    asked = task(2, TaskStatus.PAUSED)
    wait = Wait(asked.id, NOW.timestamp() + 720, required_action="x")
    asking = link(asked, wait=wait, required_action=True, map_index=3)
    failures = [failed("shop", "Only 3 credits are left", map_index=n) for n in range(45)]
    look = known(task(1, credit=5855), asked, links=[asking], failures=failures, names={"71": "Search"})
    page = Page(look, "overview", query=f"conn={CONN}")
    needs = page.html.split('id="needs-you"')[1].split("</section>")[0]
    assert page.html.index("needs-you") < page.html.index("tiles") < page.html.index('id="runs"')
    words = " ".join(Elements(f"<section{needs}</section>").text.split())
    assert "Not waited for: Search, 5,855 credits in 10 min Stop" in words
    assert "prices / search [3] · Search waits for an answer until" in words
    assert "shop / search not started: Only 3 credits are left 45 times Show all 45" in words
    stop = f'data-url="{PATH}/runs/83001/stop?conn={CONN}" data-what="Search, 10 min, 5,855 credits"'
    assert f'data-stop="83001" {stop}' in needs
    assert f"/team-a/dags/prices/runs/{quote(RUN_ID, safe='')}/tasks/search/mapped/3/required_actions" in needs
    [show] = re.findall(r'href="[^"]*\?([^"]*show=[^"#]*)#', needs)
    listed = Page(look, "overview", query=show.replace("&amp;", "&"))
    assert len(rows_of(listed)) == 45
    assert 'role="status">3 things need you</p>' in page.html


def test_only_some_lines_of_needs_you_are_shown_and_all_are_counted():
    page = Page(known(failures=[failed(task=f"t{n}") for n in range(20)]), "overview")
    assert page.html.count('<li data-key="') == pages.TROUBLES_SHOWN
    assert "and 8 more in the list below" in page.text


class TestTable:
    @pytest.fixture
    def found(self):
        finished = task(4, TaskStatus.FINISHED, workflow_id="72")
        runs = (task(1), task(2, TaskStatus.PAUSED), task(3, TaskStatus.FAILED), finished, task(5, minutes=2))
        links = [link(run, waits=run.id != "83005") for run in runs]
        look = known(
            *runs, links=links, failures=[failed("shop", "No slot")], names={"71": "Search", "72": "Log in <b>"}
        )
        return lambda query: Page(look, "overview", query=f"conn={CONN}&{query}")

    @cases(
        ("all", "", ["83005", f"shop/{RUN_ID}/search/-1", "83001", "83002", "83003", "83004"]),
        ("active", "show=active", ["83005", "83001", "83002"]),
        ("paused", "show=paused", ["83002"]),
        ("not waited for", "show=unread", ["83005"]),
        ("failed", "show=failed", [f"shop/{RUN_ID}/search/-1", "83003"]),
        ("no filter", "show=nonsense&search=83003", ["83003"]),
        ("workflow", "search=log%20IN", ["83004"]),
        ("task instance", "search=shop%20/%20s", [f"shop/{RUN_ID}/search/-1"]),
        ("reason", "search=no%20slot", [f"shop/{RUN_ID}/search/-1"]),
        ("status", "search=paused", ["83002"]),
        ("nothing found", "search=no%20such%20thing", []),
    )
    def test_filter_and_search(self, found, query, ids):
        assert rows_of(found(query)) == ids

    def test_filters_have_counts_and_keep_the_search_which_keeps_the_filter(self, found):
        page = found("show=active&search=search&page=1")
        for text in ("All 6", "Active 3", "Paused 1", "Not waited for 1", "Failed 2"):
            assert text in page.text
        [chosen] = page.having(aria_current="true")
        kept = dict(parse_qsl((chosen["href"] or "").strip("?").removesuffix("#list")))
        assert kept == {"conn": CONN, "show": "active", "search": "search"}
        hidden = {each["name"]: each["value"] for each in page.having(type="hidden")}
        assert hidden == {"conn": CONN, "show": "active"}

    def test_filters_keep_the_connection_that_is_shown_without_one_in_the_address(self):
        [chosen] = Page(known(task(1)), "overview").having(aria_current="true")
        assert chosen["href"] == f"?conn={CONN}&show=all#list"

    @cases(
        ("first", 250, 1, "1\u2013100 of 250", [2]),
        ("second", 250, 2, "101\u2013200 of 250", [1, 3]),
        ("behind the last one", 250, 99, "201\u2013250 of 250", [2]),
        ("one page", 3, 1, "", []),
    )
    def test_pages_have_100_rows(self, runs, page, limits, others):
        shown = Page(known(*map(task, range(runs))), "overview", query=f"page={page}")
        assert limits in shown.text
        assert [int(each) for each in re.findall(r"[;&]page=(\d+)", shown.html)] == others

    def test_page_with_100_rows_has_less_than_300_kilobytes(self):
        names = {"71": "W" * 200}
        page = Page(known(*map(task, range(100)), names=names), "overview")
        assert page.html.count("data-stop=") == 100 + pages.TROUBLES_SHOWN
        assert len(page.html) < 300_000


LIVE: dict[str, Any] = {"live_url": "https://live.example"}
LOG: dict[str, Any] = {"log_detail_url": "https://log.example"}
LIVE_SHOWN, LOG_SHOWN, STEPS_SHOWN = 'data-live="https://live.example"', 'href="https://log.example"', 'class="steps"'
FAILED_STEP = Step(number=2, status="failed", goal="Log in", screenshots_url="https://pictures.example/2.png")
STEPS = (Step(number=1, status="succeed", goal="Open the shop"), FAILED_STEP)
GONE = Failure(code=7, message="The <b>button</b>\u202e is gone")
FAILED_RUN = task(1, TaskStatus.FAILED, steps=STEPS, failure=GONE, **LOG)
REPORTED = "BrowserAct reports: The <b>button</b> is gone (code 7)"
HIDES_LIVE_VIEW = {"hidden": ("live_view",)}
BY = "Waited for byprices / search"


class TestRun:
    @cases(
        ("who may act", task(1, **LIVE, **LOG), ADMIN, {}, [LIVE_SHOWN, LOG_SHOWN], []),
        ("reader", task(1, **LIVE, **LOG), OF_PRICES, {}, [LOG_SHOWN], ["data-live"]),
        ("ended", task(1, TaskStatus.FINISHED, **LIVE), ADMIN, {}, [], ["data-live"]),
        ("hidden live view", task(1, **LIVE), ADMIN, HIDES_LIVE_VIEW, ["83001"], ["data-live"]),
        ("viewer without logs", FAILED_RUN, WITHOUT_LOGS, {}, ["You may not see"], [STEPS_SHOWN, "button<", "log.ex"]),
        ("failed run", FAILED_RUN, ADMIN, {}, [REPORTED, 'class="step large failed"'], []),
        ("good run with a failed step", task(1, TaskStatus.FINISHED, steps=STEPS), ADMIN, {}, [], ["large"]),
        ("waits in a worker", task(1), ADMIN, {}, [BY], ["data-stop"]),
        ("claim without a proof", task(1), ADMIN, {"proof": "", **HIDES_LIVE_VIEW}, [BY], ["data-stop"]),
        ("waits deferred", task(1), ADMIN, {"wait": Wait("83001", 0.0)}, [BY], ["data-stop"]),
        ("Required Action", task(1, TaskStatus.PAUSED), ADMIN, {"required_action": True}, ["Answer the Required"], []),
        ("not waited for", task(1), ADMIN, {"waits": False}, ["Not waited for", "data-stop"], ["Waited for by"]),
        ("not waited for, reader", task(1), OF_PRICES, {"waits": False}, ["Not waited for"], ["data-stop"]),
    )
    def test_viewer_sees_what_the_rights_and_the_state_of_the_run_allow(self, run, viewer, linked, texts, hidden):
        page = run_page(run, viewer, **linked)
        assert [text for text in texts if text not in page.html and text not in page.text] == []
        assert [text for text in hidden if text in page.html] == []
        # Nobody has asked for the live view yet.
        assert "<iframe" not in page.html

    def test_texts_of_a_run_whose_link_hides_them_are_not_shown(self):
        run = task(1, TaskStatus.FAILED, steps=STEPS, failure=Failure(code=7, message="wrong: hunter2"))
        page = run_page(run, hidden=("secret_inputs",))
        assert page.html.count("<bdi>***</bdi>") == 2
        assert "hunter2" not in page.html
        assert "Open the shop" in run_page(run).text

    @cases(
        ("active, the newest first", task(1), [299, 298], 200, "90 earlier steps"),
        ("ended", task(1, TaskStatus.FINISHED), [0, 1], 200, "91 more steps"),
    )
    def test_of_many_steps_some_are_shown_some_folded_and_all_counted(self, run, first, left_out, folded):
        steps = tuple(Step(number=number, status="succeed", goal="x") for number in range(300))
        page = run_page(run.model_copy(update={"steps": steps, "steps_left_out": 50}))
        numbers = [int(each) for each in re.findall(r"<strong>(\d+)\.</strong>", page.html)]
        assert (len(numbers), numbers[:2]) == (100, first)
        assert "350 steps" in page.text
        assert folded in page.text
        assert f"and {left_out + 50} more" in page.text

    @cases(("failed", FAILED_RUN, "failed"), ("stopped", task(1, TaskStatus.CANCELED), "stopped"))
    def test_reason_and_remedy_are_on_the_page_of_run_and_task_instance(self, run, text):
        tried = failed(started=True, task_id=run.id, remedy="Raise timeout")
        page = run_page(run, failures=[tried])
        look = known(run, links=[link(run)], failures=[tried])
        of_instance = Page(look, "instance", tried.key, read=read_of(run))
        for each in (page, of_instance):
            assert f'data-status="{text}"' in each.html
            assert each.text.count("It is over") == each.text.count("Raise timeout") == 1

    def test_task_instance_whose_new_try_did_not_start_has_the_reason_above_its_earlier_run(self):
        run = task(1, TaskStatus.FINISHED)
        look = known(run, links=[link(run)], failures=[failed(reason="The budget is used up")])
        page = Page(look, "instance", failed().key, read=read_of(run))
        assert page.html.index("budget is used up") < page.html.index('id="run-id"')

    def test_reason_is_hidden_from_who_may_not_read_xcoms_and_the_line_is_not(self):
        page = Page(known(failures=[failed(reason="secret")], viewer=Viewer({"prices"}, xcoms=False)), "overview")
        assert "prices / search failed: Airflow's log has the reason" in page.text
        assert "secret" not in page.html

    def test_pictures_load_late_and_without_a_referrer(self, typical):
        pictures = [attributes for tag, attributes in typical["run"].elements.found if tag == "img"]
        assert {each["referrerpolicy"] for each in pictures} == {"no-referrer"}
        assert [each.get("loading") for each in pictures] == [None, "lazy"]
        assert all("Search" in (each["alt"] or "") for each in pictures)


def test_page_of_dag_has_only_its_runs_and_failures():
    runs = [task(1, credit=5), task(2, credit=7), task(3)]
    sensor, forged = link(runs[1], follows=True), link(runs[1], proof="")
    links = [link(runs[0]), sensor, forged, link(runs[1], "shop"), link(runs[2], follows=True)]
    look = known(*runs, links=links, failures=[failed(task="other"), failed("shop")])
    assert rows_of(Page(look, "dag", "prices")) == [f"prices/{RUN_ID}/other/-1", "83001", "83003"]
    assert rows_of(Page(look, "dag", "prices", "another run")) == []
    assert "7 credits" in Page(look, "dag", "shop").text


class TestCredits:
    def page(self, days: dict[date, Day], *, by_dag=False, **account: Any):
        return credits.credits_content(known(**account), {day: each.sums for day, each in days.items()}, by_dag)

    def drawn(self, content) -> list[str]:
        return re.findall(r"<title>(.*?)</title>", content["plot"])

    def test_rows_are_sorted_by_credits_and_have_sums(self):
        today = [task(1), task(2, workflow_id="72", credit=50), task(3, TaskStatus.FAILED, credit=None)]
        days = days_of(30, [*today, task(4, minutes=DAY, credit=10)], {"83001": "prices"})
        page = self.page(days, names={"71": "Search"})
        assert [(row.name, row.sums) for row in page["rows"]] == [("72", (1, 50, 0)), ("Search", (3, 15, 1))]
        of_today = ["Nov 27, 72: 50 of 55 credits", "Nov 27, Search: 5 of 55 credits"]
        assert self.drawn(page) == ["Nov 26, Search: 10 of 10 credits", *of_today]
        assert (page["days"], page["read"], page["total"], page["today"].used) == (30, 30, 65, 55)

    def test_by_dag_names_and_links_only_readable_dags(self):
        days = days_of(1, [task(n, credit=n) for n in (1, 2, 3)], {"83001": "prices", "83002": "secret"})
        page = self.page(days, by_dag=True, viewer=Viewer({"prices"}, account=True))
        expected = [("no DAG known", 3, None), ("DAGs that you may not read", 2, None), ("prices", 1, "prices")]
        assert [(row.name, row.sums.credits, row.dag_id) for row in page["rows"]] == expected

    def test_many_workflows_share_the_last_color_and_only_the_largest_are_rows(self, monkeypatch):
        monkeypatch.setattr(credits, "GROUPS_SHOWN", 10)
        runs = [task(number, credit=100 - number, workflow_id=str(number)) for number in range(20)]
        days = days_of(30, runs)
        page = self.page(days)
        others = sum(100 - number for number in range(7, 20))
        credits_of = {**{str(number): 100 - number for number in range(7)}, "all others": others}
        assert self.drawn(page) == [f"Nov 27, {name}: {of:,} of 1,810 credits" for name, of in credits_of.items()]
        assert (len(page["rows"]), page["rows_left_out"]) == (10, 10)
        shown = Page(known(), "credits", read=read_of(days))
        assert re.findall(r'<rect class="c(\d)" width="12"', shown.html) == [*"0123456", *"777"]
        assert "and 10 more" in shown.text
        # As many as there are colors.
        assert "all others" not in str(self.page(days_of(30, runs[:8]))["plot"])

    def test_month_is_projected_and_unknown_until_all_of_its_days_are_read(self):
        runs = [task(back, minutes=back * DAY) for back in range(NOW.day)]
        budget = Budget(CONN, daily_credits=10, monthly_credits=1000)
        page = self.page(days_of(NOW.day, runs), budget=budget)
        # 26.5 of 30 days have passed.
        assert (page["month"], page["today"].budget) == ((135, 1000, 153), 10)
        assert self.page(days_of(NOW.day - 1, runs), budget=budget)["month"] is None

    @cases(("all", 31, "153 at this pace", True), ("some", 5, "5 of 30 days read so far", False))
    def test_page_has_a_plot_when_all_days_are_read(self, loaded, texts, plotted):
        runs = [task(back, TaskStatus.FAILED, minutes=back * DAY + 10) for back in range(loaded)]
        page = Page(known(), "credits", read=read_of(days_of(loaded, runs)))
        assert texts in page.text
        assert ('class="plot"' in page.html) is plotted
        assert "On averageFailed" in page.text
        assert page.having(href=f"{PATH}/?conn={CONN}&search=71")

    def test_budget_that_is_exceeded_is_a_warning(self):
        runs = [task(1, credit=100), task(2, credit=None), task(3, minutes=13 * 60, credit=1000)]
        page = Page(known(*runs, budget=Budget(CONN, daily_credits=80)), "overview")
        assert "100 credits over the budget of 80" in page.text


def test_sources_are_searched_by_name_id_and_description():
    kind = SourceKind.WORKFLOW
    sources = read_of(Listing([Runnable(kind, "71", "Search", "Finds <b>prices</b>"), Runnable(kind, "72")], 0, False))
    for query, names in (("search=PRICES", ["71"]), ("", ["71", "72"])):
        page = Page(known(), "workflows", read=sources, query=query)
        assert re.findall(r'<li data-key="(\d+)"', page.html) == names


@pytest.mark.parametrize("kind", SourceKind)
def test_page_of_source_has_a_dag_file_with_its_id(kind):
    schema = {"properties": {"keyword": {}, "limit": {}}, "required": ["keyword"]}
    source = Runnable(kind, "71", "Search", "x", schema, {"keyword": "text"})
    run = task(1, TaskStatus.FINISHED, credit=20)
    if SOURCES[kind].api_version is ApiVersion.V3:
        run = replace(run, api_version=ApiVersion.V3, workflow_id=None, bot_id="71")
    page = Page(known(run), "source", "71", kind, read=read_of(source))
    assert '"71"' in page.text
    assert "keyword required limit optional".replace(" ", "") in page.text.replace(" ", "")
    is_template = KINDS[kind].one.endswith("template")
    assert ("Runs of the last 24 hours1Credits of a run on average20.0" in page.text) is not is_template


def test_page_of_a_source_links_to_its_dag_only_if_airflow_has_it():
    viewer = Viewer({"known_71", "search_71"}, account=True)
    for name, link_to in (("Known", "/team-a/dags/known_71"), ("Search", None)):
        read = read_of(Runnable(SourceKind.WORKFLOW, "71", name))
        page = Page(known(viewer=viewer), "source", "71", SourceKind.WORKFLOW, read=read)
        assert [each["href"] for each in page.having(data_airflow=None)] == ([link_to] if link_to else [])


def test_fragment_is_what_is_inside_the_main_element_of_the_page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(html, "datetime", SimpleNamespace(now=lambda _: NOW))
    whole, fragment = (Page(known(task(1)), "overview", fragment=each).html for each in (False, True))
    inside = whole.split('tabindex="-1">\n', 1)[1].split("</main>")[0]
    assert inside.strip() == fragment.strip()
    check_content_security(Page(known(task(1)), "overview", fragment=False))


def test_connection_that_is_missing_leaves_the_selector_empty():
    look = known(not_found=True, error="There is no connection 'nope'", as_of=None)
    page = Page(
        replace(look, viewing=replace(look.viewing, conn_id="nope")), "overview", query="conn=nope", fragment=False
    )
    assert "choose one of 2" in page.text
    assert "There is no connection 'nope'." in page.text
    assert page.text.count("selected") == 0
    assert not page.having(data_loading="")


def test_error_page_shows_its_notice_as_text():
    shown = html.render("error.html", html.Frame("/", notices=(Notice("error", HOSTILE, HOSTILE),)), fragment=True)
    assert Elements(shown).text.count(HOSTILE) == 2


def test_duration_has_at_most_two_units_and_is_never_negative():
    durations = {-3: "0 s", 59.9: "59 s", 60: "1 min", 3599: "59 min", 3600: "1 h", 11520: "3 h 12 min"}
    durations[93600] = "1 d 2 h"
    assert {seconds: html.duration(seconds) for seconds in durations} == durations


def test_style_sheet_and_script_fit_the_content_security_policy_and_the_plot():
    style, script = ((PANEL / "static" / name).read_text() for name in ("panel.css", "panel.js"))
    assert "@import" not in style
    assert "url(" not in style
    assert not re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)
    assert all(f".c{number} {{" in style for number in range(credits.COLORS))
    assert web.STATIC.keys() >= {"panel.css", "panel.js"}
