from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path

import pytest

from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.panel import rendering
from airflow_provider_browseract.panel.views import (
    COLORS,
    Bar,
    BudgetShare,
    Choice,
    CreditsPage,
    CreditsRow,
    DagPage,
    Frame,
    InputView,
    InstancePage,
    InstanceView,
    Notice,
    Overview,
    QueuePlace,
    RunPage,
    RunRow,
    RunTable,
    Slots,
    SourcePage,
    SourceRow,
    SourcesPage,
    StepView,
)

PANEL = Path(rendering.__file__).parent
NOW = datetime.now(timezone.utc)
HOSTILE = "<img src=x onerror=alert(1)>\"' onload=x </script><script>alert(2)</script>{{ 7 * 7 }}"
SCRIPTS = "javascript:alert(1)"
FILTERS = (
    Choice("All", "conn=c&show=all", count=2),
    Choice("Paused", "conn=c&show=paused&page=3", chosen=True, count=1),
)


def frame(**changed: object) -> Frame:
    shown = Frame("/team-a/", "runs", conn_id="c", connections=("c",), as_of=NOW, refresh=10, sees_account=True)
    return replace(shown, **changed)  # type: ignore[arg-type]


def instance(text: str = "prices / search [3]") -> InstanceView:
    return InstanceView(text, "dags/prices/runs/r/tasks/search", 1)


def run_row(text: str = "Search", **changed: object) -> RunRow:
    row = RunRow("83912", TaskStatus.RUNNING, text, instance(text), False, False, NOW - timedelta(minutes=2), None, 25)
    return replace(row, **changed)  # type: ignore[arg-type]


def table(*rows: RunRow, search: str = "") -> RunTable:
    return RunTable(rows, min(1, len(rows)), len(rows), None, "page=2", FILTERS, search)


def place(text: str = "prices / search [17]", number: int = 1) -> QueuePlace:
    return QueuePlace(number, instance(text), 10, 250, 3)


def overview(*rows: RunRow, **changed: object) -> Overview:
    shown = Overview(Slots(18, 20), (place(),), 1, 250, 2, BudgetShare(1620, 2000), table(*rows))
    return replace(shown, **changed)  # type: ignore[arg-type]


def run_page(text: str = "Search", link: str = "https://b.example/p.png?s=1", **changed: object) -> RunPage:
    page = RunPage(
        run=run_row(text),
        source_id=text,
        profile_id=text,
        ended=NOW,
        log_url=link,
        live_url=link,
        failure=text,
        steps=(
            StepView(1, text, "succeed", link),
            StepView(2, text, "failed", link, failed=True),
            StepView(None, text, text, None),
        ),
        steps_left_out=4,
        wait=text,
        others=(
            run_row(text, status=TaskStatus.FAILED),
            run_row("2", status=TaskStatus.CANCELED, started=None, credits=None),
        ),
    )
    return replace(page, **changed)  # type: ignore[arg-type]


def credits_page(text: str = "Search", loaded: int = 2) -> CreditsPage:
    bars = (Bar(date(2026, 11, 26), (1200, 30), loaded > 1), Bar(date(2026, 11, 27), (20, 0), loaded > 0))
    rows = (CreditsRow(text, 1842, 1220, 3, 2, 0), CreditsRow("others", 1, 30, 0, 0, COLORS - 1))
    return CreditsPage((Choice(text, "by=dag", True),), (text, "others"), bars, BudgetShare(2300, 2000), None, rows)


def source_page(text: str = "Search", link: str = "https://b.example/t") -> SourcePage:
    return SourcePage(
        SourceKind.WORKFLOW,
        text,
        text,
        text,
        (InputView(text, True), InputView("n", False)),
        text,
        text,
        text,
        3,
        21.4,
        link,
    )


def pages(text: str, link: str) -> dict[str, tuple[str, object]]:
    """Return a page for each template, with a text and an address from outside wherever one can be."""
    row = run_row(text, unread=True, stoppable=True, required_action="required_actions", id=text)
    return {
        "overview": (
            "overview.html",
            overview(row, queue=(place(text), replace(place(), instance=None, for_budget=True))),
        ),
        "search": ("overview.html", overview(runs=table(search=text))),
        "run": ("run.html", run_page(text, link)),
        "failed run": ("run.html", run_page(text, link, run=run_row(text, status=TaskStatus.FAILED, took=48.0))),
        "task instance": ("instance.html", InstancePage(instance(text), run_page(text, link), None)),
        "waiting": ("instance.html", InstancePage(instance(text), None, place(text))),
        "dag": ("dag.html", DagPage(text, text, table(row), 25)),
        "credits": ("credits.html", credits_page(text)),
        "workflows": (
            "workflows.html",
            SourcesPage(FILTERS, SourceKind.WORKFLOW, (SourceRow(text, text, text),), text, True),
        ),
        "workflow": ("workflow.html", source_page(text, link)),
        "error": ("error.html", None),
    }


EMPTY: dict[str, tuple[str, object]] = {
    "overview": (
        "overview.html",
        overview(slots=Slots(0), queue=(), queue_length=0, longest_wait=None, paused=0, today=None),
    ),
    "run": (
        "run.html",
        run_page(
            run=run_row(instance=None, started=None, credits=None),
            source_id=None,
            profile_id=None,
            ended=None,
            log_url=None,
            live_url=None,
            failure="",
            steps=(),
            steps_left_out=0,
            wait="",
            others=(),
        ),
    ),
    "run without rights": ("run.html", run_page(run=run_row(instance=None, instance_hidden=True), steps=None)),
    "task instance": ("instance.html", InstancePage(instance(), None, None)),
    "dag": ("dag.html", DagPage("prices", None, RunTable((), 0, 0, None, None), 0)),
    "credits": ("credits.html", CreditsPage((), (), (), BudgetShare(0), BudgetShare(0, 5), ())),
    "workflows": ("workflows.html", SourcesPage((), SourceKind.WORKFLOW, (), "", False)),
    "templates": ("workflows.html", SourcesPage((), SourceKind.TEMPLATE, (), "", False)),
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


@pytest.mark.parametrize("fragment", [False, True], ids=["page", "fragment"])
@pytest.mark.parametrize("name", pages("", ""))
@pytest.mark.parametrize(
    ("text", "link"), [("Search", "https://b.example/p.png?s=1"), (HOSTILE, SCRIPTS)], ids=["typical", "hostile"]
)
def test_page_has_no_inline_code_and_shows_foreign_texts_as_text(
    name: str, fragment: bool, text: str, link: str
) -> None:
    template, page = pages(text, link)[name]

    html = shown(
        template, page, fragment=fragment, notices=(Notice("error", text, text),), connections=("c", text), title=text
    )

    elements = check_content_security(html)
    assert text in elements.text
    assert "<img src=x" not in html
    if link == SCRIPTS:
        assert SCRIPTS not in html
    assert len([tag for tag, _ in elements.found if tag == "script"]) == (0 if fragment else 1)


@pytest.mark.parametrize("fragment", [False, True], ids=["page", "fragment"])
@pytest.mark.parametrize("as_of", [None, NOW], ids=["not read yet", "read"])
@pytest.mark.parametrize("name", EMPTY)
def test_page_without_data_renders(name: str, as_of: datetime | None, fragment: bool) -> None:
    template, page = EMPTY[name]

    check_content_security(shown(template, page, fragment=fragment, as_of=as_of))


@pytest.mark.parametrize("name", pages("", ""))
def test_ids_of_a_page_are_unique_and_labels_refer_to_them(name: str) -> None:
    elements = Elements(shown(*pages("Search", "https://b.example/")[name]))

    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.found:
        for reference in ("aria-labelledby", "aria-controls", "for", "data-copy"):
            assert attributes.get(reference) in (None, *ids)
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids


def test_fragment_is_what_is_inside_the_main_element_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return NOW

    monkeypatch.setattr(rendering, "datetime", Clock)

    whole = shown("overview.html", overview(run_row()))
    fragment = shown("overview.html", overview(run_row()), fragment=True)

    inside = whole.split('data-refresh="10">\n', 1)[1].split("</main>")[0]
    assert inside.strip() == fragment.strip()


def test_first_page_without_data_is_a_loading_state_that_the_script_refreshes_at_once() -> None:
    html = shown("overview.html", overview(), as_of=None)

    assert "data-loading" in html
    assert "Reading the runs from BrowserAct" in html
    assert 'id="runs"' not in html


def test_data_that_could_not_be_read_are_no_loading_state() -> None:
    html = shown("overview.html", overview(), as_of=None, notices=(Notice("error", "Wrong key."),))

    assert "data-loading" not in html
    assert "The runs could not be read" in html


def test_page_without_a_connection_says_how_to_add_one() -> None:
    html = shown("overview.html", overview(), conn_id=None, connections=(), as_of=None)

    assert 'href="/team-a/connections" data-airflow' in html
    assert "data-loading" not in html


def test_run_that_nobody_waits_for_stands_out_in_words_and_can_be_stopped() -> None:
    html = shown("overview.html", overview(run_row(unread=True, instance=None, stoppable=True)))

    assert '<tr data-run="83912" class="unread">' in html
    assert "Nobody waits for it</span>" in html
    assert 'data-stop="83912" data-url="/team-a/browseract/panel/runs/83912/stop?conn=c"' in html


def test_the_rest_of_the_queue_is_counted() -> None:
    queue = tuple(place(number=number) for number in range(1, 21))

    html = shown("overview.html", overview(queue=queue, queue_length=205))

    assert html.split('id="queue"')[1].split("</section>")[0].count("<tr>") == 21
    assert "and 185 more" in html


def test_search_keeps_connection_and_filter_and_starts_at_the_first_page() -> None:
    elements = Elements(shown("overview.html", overview(run_row())))

    hidden = {
        each["name"]: each["value"] for tag, each in elements.found if tag == "input" and each["type"] == "hidden"
    }
    assert hidden == {"conn": "c", "show": "paused"}


def test_failed_run_shows_the_failed_step_first_and_every_step_once() -> None:
    elements = Elements(shown("run.html", run_page(run=run_row(status=TaskStatus.FAILED))))

    steps = [
        each["class"]
        for tag, each in elements.found
        if (each.get("class") or "").startswith("step ") or each.get("class") == "step"
    ]
    assert steps == ["step attention failed", "step", "step"]


def test_pictures_load_late_and_without_a_referrer() -> None:
    elements = Elements(shown("run.html", run_page(), fragment=True))

    pictures = [attributes for tag, attributes in elements.found if tag == "img"]
    assert len(pictures) == 2
    assert {(each["loading"], each["referrerpolicy"]) for each in pictures} == {("lazy", "no-referrer")}
    assert all("Search" in (each["alt"] or "") for each in pictures)


def test_live_view_is_only_an_address_until_the_viewer_asks_for_it() -> None:
    html = shown("run.html", run_page())

    assert "<iframe" not in html
    assert 'data-live="https://b.example/p.png?s=1"' in html


def test_ids_are_encoded_in_addresses() -> None:
    html = shown("overview.html", overview(run_row(id="a/b?c#d+e~\u00e9")), conn_id="c&d e")

    assert 'href="/team-a/browseract/panel/runs/a%2Fb%3Fc%23d%2Be~%C3%A9?conn=c%26d+e"' in html


def test_viewer_without_rights_on_the_connection_is_offered_no_pages_about_the_account() -> None:
    html = shown("overview.html", overview(today=None), sees_account=False)

    assert "browseract/panel/credits" not in html
    assert "browseract/panel/workflows" not in html
    assert 'data-tile="today"' not in html


def test_budget_that_is_exceeded_is_named_in_words() -> None:
    assert "over the budget of 2,000" in shown("credits.html", credits_page())


def test_days_that_are_being_read_are_counted() -> None:
    assert "1 of 2 days read so far" in shown("credits.html", credits_page(loaded=1))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (11520, "3 h 12 min"),
        (93600, "1 d 2 h"),
    ],
)
def test_duration_has_at_most_two_units_and_is_never_negative(seconds: float, text: str) -> None:
    assert rendering.duration(seconds) == text


def test_page_with_100_rows_has_less_than_300_kilobytes() -> None:
    rows = [run_row("W" * 200, id=str(number), unread=True, stoppable=True) for number in range(100)]

    assert len(shown("overview.html", overview(*rows))) < 300_000


def test_style_sheet_and_script_fit_the_content_security_policy() -> None:
    style, script = ((PANEL / "static" / name).read_text() for name in ("panel.css", "panel.js"))

    assert "@import" not in style
    assert "url(" not in style
    assert not re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_style_sheet_has_all_colors_of_the_plot() -> None:
    style = (PANEL / "static" / "panel.css").read_text()

    assert all(f".c{number} {{" in style for number in range(COLORS))
