from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.panel import rendering, views
from tests.cases import cases

PANEL = Path(rendering.__file__).parent
NOW = datetime.now(timezone.utc)
HOSTILE = "<img src=x onerror=alert(1)>\"' onload=x </script><script>alert(2)</script>{{ 7 * 7 }}"
SCRIPTS = "javascript:alert(1)"
CHOSEN = views.Choice("Paused", "conn=c&show=paused&page=3", chosen=True, count=1)
FILTERS = (views.Choice("All", "conn=c&show=all", count=2), CHOSEN)


def frame(**changed: Any) -> views.Frame:
    shown = views.Frame("/team-a/", "runs", conn_id="c", connections=("c",), as_of=NOW, refresh=10, sees_account=True)
    return replace(shown, **changed)


def instance(text: str = "prices / search [3]") -> views.InstanceView:
    return views.InstanceView(text, "dags/prices/runs/r/tasks/search", 1)


def run_row(text: str = "Search", **changed: Any) -> views.RunRow:
    started = NOW - timedelta(minutes=2)
    row = views.RunRow("83912", TaskStatus.RUNNING, text, instance(text), False, False, started, None, 25)
    return replace(row, **changed)


def table(*rows: views.RunRow, search: str = "") -> views.RunTable:
    return views.RunTable(rows, min(1, len(rows)), len(rows), None, "page=2", FILTERS, search)


def place(text: str = "prices / search [17]", number: int = 1) -> views.QueuePlace:
    return views.QueuePlace(number, instance(text), 10, 250, 3)


def overview(*rows: views.RunRow, **changed: Any) -> views.Overview:
    page = views.Overview(views.Slots(18, True), (place(),), 1, 250, 2, views.BudgetShare(1620, 2000), table(*rows))
    return replace(page, **changed)


def run_page(text: str = "Search", link: str = "https://b.example/p.png?s=1", **changed: Any) -> views.RunPage:
    good, failed = views.StepView(1, text, "succeed", link), views.StepView(2, text, "failed", link, failed=True)
    canceled = run_row("2", status=TaskStatus.CANCELED, started=None, credits=None)
    page = views.RunPage(
        run=run_row(text),
        source_id=text,
        profile_id=text,
        ended=NOW,
        log_url=link,
        live_url=link,
        failure=text,
        steps=(good, failed, views.StepView(None, text, text, None)),
        steps_left_out=4,
        wait=text,
        others=(run_row(text, status=TaskStatus.FAILED), canceled),
    )
    return replace(page, **changed)


def credits_page(text: str = "Search", loaded: int = 2) -> views.CreditsPage:
    bars = (views.Bar(date(2026, 11, 26), (1200, 30), loaded > 1), views.Bar(date(2026, 11, 27), (20, 0), loaded > 0))
    rows = (views.CreditsRow(text, 1842, 1220, 3, 2, 0), views.CreditsRow("others", 1, 30, 0, 0, views.COLORS - 1))
    choices, today = (views.Choice(text, "by=dag", True),), views.BudgetShare(2300, 2000)
    return views.CreditsPage(choices, (text, "others"), bars, today, None, rows)


def source_page(text: str = "Search", link: str = "https://b.example/t") -> views.SourcePage:
    inputs = (views.InputView(text, True), views.InputView("n", False))
    return views.SourcePage(SourceKind.WORKFLOW, text, text, text, inputs, text, text, text, 3, 21.4, link)


def pages(text: str, link: str) -> dict[str, tuple[str, object]]:
    """Return a page for each template, with a text and an address from outside wherever one can be."""
    row = run_row(text, unread=True, stoppable=True, required_action="required_actions", id=text)
    queue = (place(text), replace(place(), instance=None, for_budget=True))
    sources = views.SourcesPage(FILTERS, SourceKind.WORKFLOW, (views.SourceRow(text, text, text),), text, True)
    failed = run_page(text, link, run=run_row(text, status=TaskStatus.FAILED, took=48.0))
    return {
        "overview": ("overview.html", overview(row, queue=queue)),
        "search": ("overview.html", overview(runs=table(search=text))),
        "run": ("run.html", run_page(text, link)),
        "failed run": ("run.html", failed),
        "task instance": ("instance.html", views.InstancePage(instance(text), run_page(text, link), None)),
        "waiting": ("instance.html", views.InstancePage(instance(text), None, place(text))),
        "dag": ("dag.html", views.DagPage(text, text, table(row), 25)),
        "credits": ("credits.html", credits_page(text)),
        "workflows": ("workflows.html", sources),
        "workflow": ("workflow.html", source_page(text, link)),
        "error": ("error.html", None),
    }


NEW_RUN = run_row(instance=None, started=None, credits=None)
NOTHING = views.RunPage(NEW_RUN, None, None, None, None, None, "", (), 0, "", ())
EMPTY: dict[str, tuple[str, object]] = {
    "overview": ("overview.html", views.Overview(views.Slots(0), (), 0, None, 0, None, table())),
    "run": ("run.html", NOTHING),
    "run without rights": ("run.html", run_page(run=run_row(instance=None, instance_hidden=True), steps=None)),
    "task instance": ("instance.html", views.InstancePage(instance(), None, None)),
    "dag": ("dag.html", views.DagPage("prices", None, views.RunTable((), 0, 0, None, None), 0)),
    "credits": ("credits.html", views.CreditsPage((), (), (), views.BudgetShare(0), views.BudgetShare(0, 5), ())),
    "workflows": ("workflows.html", views.SourcesPage((), SourceKind.WORKFLOW, (), "", False)),
    "templates": ("workflows.html", views.SourcesPage((), SourceKind.TEMPLATE, (), "", False)),
    "workflow": ("workflow.html", replace(source_page(), inputs=(), mean=None, detail_url=None, description="")),
    "error": ("error.html", None),
}


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> is given twice"
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(template: str, page: object, *, fragment: bool = False, **changed: object) -> str:
    return rendering.render(template, frame(**changed), page, fragment=fragment)


def check_content_security(html: str) -> Elements:
    """Hold a page against the policy that its response has, and return its elements."""
    elements = Elements(html)
    for tag, attributes in elements.found:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        assert tag != "script" or set(attributes) == {"src"}
        for name in ("href", "src", "action", "data-live"):
            assert not re.match(r"\s*(javascript|data|vbscript):", attributes.get(name) or "", re.IGNORECASE)
        if tag == "a" and attributes.get("target"):
            assert attributes["rel"] == "noopener noreferrer"
    return elements


as_page_or_fragment = pytest.mark.parametrize("fragment", [False, True], ids=["page", "fragment"])


@as_page_or_fragment
@pytest.mark.parametrize("name", pages("", ""))
@cases("text, link", {"typical": ("Search", "https://b.example/p.png?s=1"), "hostile": (HOSTILE, SCRIPTS)})
def test_page_has_no_inline_code_and_shows_foreign_texts_as_text(name: str, fragment: bool, text: str, link: str):
    notices = (views.Notice("error", text, text),)
    html = shown(*pages(text, link)[name], fragment=fragment, notices=notices, connections=("c", text), title=text)
    elements = check_content_security(html)
    assert text in elements.text
    assert "<img src=x" not in html
    if link == SCRIPTS:
        assert SCRIPTS not in html
    assert len([tag for tag, _ in elements.found if tag == "script"]) == (0 if fragment else 1)


@as_page_or_fragment
@cases("as_of", {"not read yet": None, "read": NOW})
@pytest.mark.parametrize("name", EMPTY)
def test_page_without_data_renders(name: str, as_of: datetime | None, fragment: bool):
    check_content_security(shown(*EMPTY[name], fragment=fragment, as_of=as_of))


@pytest.mark.parametrize("name", pages("", ""))
def test_ids_of_a_page_are_unique_and_labels_refer_to_them(name: str):
    elements = Elements(shown(*pages("Search", "https://b.example/")[name]))
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.found:
        for reference in ("aria-labelledby", "aria-controls", "for", "data-copy"):
            assert attributes.get(reference) in (None, *ids)
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids


def test_fragment_is_what_is_inside_the_main_element_of_the_page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rendering, "datetime", SimpleNamespace(now=lambda _: NOW))
    whole, fragment = (shown("overview.html", overview(run_row()), fragment=each) for each in (False, True))
    inside = whole.split('data-refresh="10">\n', 1)[1].split("</main>")[0]
    assert inside.strip() == fragment.strip()


OVERVIEW = ("overview.html", overview())
UNREAD = ("overview.html", overview(run_row(unread=True, instance=None, stoppable=True)))
ODD_ID = ("overview.html", overview(run_row(id="a/b?c#d+e~\u00e9")))
NOT_READ: dict[str, object] = {"as_of": None}
WRONG_KEY = {"as_of": None, "notices": (views.Notice("error", "Wrong key."),)}
NO_CONNECTION = {"as_of": None, "conn_id": None, "connections": ()}
PATH = "/team-a/browseract/panel"
UNREAD_ROW = '<tr data-run="83912" class="unread">'
STOP_BUTTON = f'data-stop="83912" data-url="{PATH}/runs/83912/stop?conn=c"'


@cases(
    {
        "nothing read yet": (OVERVIEW, NOT_READ, ["data-loading", "Reading the runs from BrowserAct"], ['id="runs"']),
        "data that could not be read": (OVERVIEW, WRONG_KEY, ["The runs could not be read"], ["data-loading"]),
        "no connection": (OVERVIEW, NO_CONNECTION, ['href="/team-a/connections" data-airflow'], ["data-loading"]),
        "run that nobody waits for": (UNREAD, {}, [UNREAD_ROW, "Nobody waits for it</span>", STOP_BUTTON], []),
        "ids": (ODD_ID, {"conn_id": "c&d e"}, [f'href="{PATH}/runs/a%2Fb%3Fc%23d%2Be~%C3%A9?conn=c%26d+e"'], []),
        "budget that is exceeded": (("credits.html", credits_page()), {}, ["over the budget of 2,000"], []),
        "days that are being read": (("credits.html", credits_page(loaded=1)), {}, ["1 of 2 days read so far"], []),
        "unknown credits of today": (("overview.html", overview(today=None)), {}, [], ['data-tile="today"']),
        "no rights on the connection": (OVERVIEW, {"sees_account": False}, [], ["panel/credits", "panel/workflows"]),
        # Nobody has asked for the live view yet.
        "live view": (("run.html", run_page()), {}, ['data-live="https://b.example/p.png?s=1"'], ["<iframe"]),
    },
)
def test_page_shows_and_hides(page, viewed, texts, hidden):
    html = shown(*page, **viewed)
    assert [text for text in texts if text not in html] == []
    assert [text for text in hidden if text in html] == []


def test_the_rest_of_the_queue_is_counted():
    queue = tuple(place(number=number) for number in range(1, 21))
    html = shown("overview.html", overview(queue=queue, queue_length=205))
    assert html.split('id="queue"')[1].split("</section>")[0].count("<tr>") == 21
    assert "and 185 more" in html


def test_search_keeps_connection_and_filter_and_starts_at_the_first_page():
    found = Elements(shown("overview.html", overview(run_row()))).found
    hidden = {each["name"]: each["value"] for tag, each in found if tag == "input" and each["type"] == "hidden"}
    assert hidden == {"conn": "c", "show": "paused"}


def test_failed_run_shows_the_failed_step_first_and_every_step_once():
    elements = Elements(shown("run.html", run_page(run=run_row(status=TaskStatus.FAILED))))
    classes = [attributes.get("class") or "" for _, attributes in elements.found]
    assert [each for each in classes if each.split()[:1] == ["step"]] == ["step attention failed", "step", "step"]


def test_pictures_load_late_and_without_a_referrer():
    elements = Elements(shown("run.html", run_page(), fragment=True))
    pictures = [attributes for tag, attributes in elements.found if tag == "img"]
    assert len(pictures) == 2
    assert {(each["loading"], each["referrerpolicy"]) for each in pictures} == {("lazy", "no-referrer")}
    assert all("Search" in (each["alt"] or "") for each in pictures)


def test_duration_has_at_most_two_units_and_is_never_negative():
    durations = {-3: "0 s", 59.9: "59 s", 60: "1 min", 3599: "59 min", 3600: "1 h", 11520: "3 h 12 min"}
    durations[93600] = "1 d 2 h"
    assert {seconds: rendering.duration(seconds) for seconds in durations} == durations


def test_page_with_100_rows_has_less_than_300_kilobytes():
    rows = [run_row("W" * 200, id=str(number), unread=True, stoppable=True) for number in range(100)]
    assert len(shown("overview.html", overview(*rows))) < 300_000


def test_style_sheet_and_script_fit_the_content_security_policy_and_the_plot():
    style, script = ((PANEL / "static" / name).read_text() for name in ("panel.css", "panel.js"))
    assert "@import" not in style
    assert "url(" not in style
    assert not re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)
    assert all(f".c{number} {{" in style for number in range(views.COLORS))
