"""The panel inside Airflow's UI, in a real browser."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import FrameLocator, Locator, Page, expect

from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS, AIRFLOW_V_3_4_PLUS
from airflow_provider_browseract.emulator import (
    CONTACTS,
    ENDLESS,
    ORDERS,
    SEARCH,
    TEMPLATE_SEARCH,
    EmulatedWorkflow,
    Emulator,
    RequestFault,
    WorkflowInput,
)
from tests.helpers.browser import serious_findings, skip_without_browser
from tests.helpers.panel_world import SECRET, PanelWorld, Visitor, panel_world, start_run

from .conftest import World

pytestmark = pytest.mark.timeout(300)

expect.set_options(timeout=20_000)

SOURCES = (f"workflows/{SEARCH.id}", "workflows?kind=bot", f"bots/{CONTACTS.id}", f"bot-templates/{TEMPLATE_SEARCH.id}")
"""Pages of workflows and bots."""

SOON = 15_000
"""Milliseconds within which a page that is refreshed every 10 seconds shows what is new."""


@pytest.fixture(scope="module")
def world(worlds: dict[str, World]) -> Iterator[PanelWorld]:
    """The runs that the panel shows, and a browser."""
    skip_without_browser()
    shop = worlds["browseract_default"]
    with panel_world(shop.airflow, shop.emulator) as world:
        yield world


@pytest.fixture
def ada(world: PanelWorld) -> Iterator[Visitor]:
    """An admin, in whose pages nothing may go wrong."""
    with world.visitor() as visitor:
        yield visitor
        assert visitor.errors == []
        assert visitor.foreign_requests() == []


def row(page: Page | FrameLocator, task_id: str) -> Locator:
    return page.locator(f'#runs tbody tr[data-run="{task_id}"]')


def status(page: Page | FrameLocator | Locator, name: str) -> Locator:
    """Return where a page shows that a run has a status."""
    return page.locator(f'.status[data-status="{name}"]')


class TestStories:
    """Each user story within its clicks, from Airflow's home or from the task instance."""

    def test_active_runs_with_their_task_instances_and_queue_are_one_menu_away(self, world, ada):
        panel = ada.open_panel()
        following = row(panel, world.task_id("follow"))
        expect(status(following, "running")).to_be_visible()
        expect(following).to_contain_text("shop / follow")
        expect(row(panel, world.opened.unread)).to_contain_text("Not waited for")
        expect(row(panel, world.opened.unread)).to_have_class(re.compile(r"\bunread\b"))
        queue = panel.locator("#queue details")
        expect(queue.locator("summary")).to_contain_text("prices: 3 waiting")
        ada.click(queue.locator("summary"))
        expect(queue.locator("li").first).to_contain_text("prices / search")
        for tile, text in {"slots": "3", "queue": "3", "paused": "1", "today": "20,000"}.items():
            expect(panel.locator(f'.tile[data-tile="{tile}"]')).to_contain_text(text)
        # The menu, its entry, and what is folded.
        assert ada.clicks == 3

    def test_reason_of_a_failed_run_is_on_the_first_page_and_one_click_from_its_task_instance(self, world, ada):
        panel = ada.open_panel()
        line = panel.locator("#needs-you li", has_text="shop / blocked")
        expect(line).to_contain_text("captcha")
        line.get_by_role("link", name="Open").click()
        expect(panel.locator("#reason")).to_contain_text("captcha")
        ada.page.goto(world.page_of("blocked", "/details"))
        ada.click_button(ada.page.get_by_role("link", name="Run in the panel"))
        expect(ada.shown().locator("#reason")).to_contain_text("captcha")

    def test_run_with_pictures_and_live_view_is_two_clicks_from_its_task_instance(self, world, ada):
        ada.page.goto(world.page_of("follow", "/details"))
        ada.click_button(ada.page.get_by_role("link", name="Run in the panel"))
        panel = ada.shown()
        expect(status(panel, "running").first).to_be_visible()
        picture = panel.locator(".step img").first
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", value=True)
        assert picture.evaluate("picture => picture.naturalWidth") > 0
        expect(panel.locator("iframe")).to_have_count(0)
        ada.click(panel.locator("[data-live] summary"))
        live = panel.frame_locator("[data-live] iframe")
        expect(live.get_by_text(world.task_id("follow")).first).to_be_visible()
        assert ada.clicks == 2

    def test_required_action_of_paused_run_opens_in_airflow_without_reload(self, world, ada):
        panel = ada.open_panel()
        paused = row(panel, world.task_id("answer"))
        expect(status(paused, "paused")).to_be_visible()
        ada.page.evaluate("window.stayed = true")
        ada.click(panel.locator("#needs-you").get_by_role("link", name="Answer the Required Action"))
        ada.page.wait_for_url("**/tasks/answer/required_actions")
        expect(ada.page.get_by_role("button", name="Stop")).to_be_visible()
        assert ada.page.evaluate("window.stayed")

    def test_search_leaves_the_runs_that_fit(self, world, ada):
        page = ada.open()
        search = page.get_by_role("searchbox")
        search.fill("shop / search")
        search.press("Enter")
        expect(page.locator("#runs tbody tr[data-run]")).to_have_count(1)
        expect(row(page, world.task_id("search"))).to_be_visible()


class TestFrame:
    def test_links_out_open_a_new_tab_from_the_frame(self, world, ada):
        panel = ada.open_panel()
        row(panel, world.task_id("follow")).get_by_role("link").first.click()
        out = panel.locator("a[data-out]").first
        with ada.context.expect_page() as opened:
            out.click()
        expect(opened.value.locator("body")).to_contain_text(world.task_id("follow"))
        assert opened.value.evaluate("window.opener") is None

    def test_page_alone_follows_the_system(self, world, ada):
        page = ada.open()
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.emulate_media(color_scheme="dark")
        expect(page.locator("body")).not_to_have_css("background-color", light)

    def test_page_with_an_address_to_share_is_in_the_ui_where_airflow_can_show_it(self, world, ada):
        page = ada.open(f"open/runs/{world.task_id('follow')}?conn=browseract_default")
        expect(status(ada.shown(), "running").first).to_be_visible()
        assert world.task_id("follow") in page.url
        assert ("/plugin/browseract/" in page.url) == AIRFLOW_V_3_3_PLUS


class TestTabs:
    def test_tab_is_on_our_tasks_alone_and_from_airflow_3_4_on(self, world, ada):
        tab = ada.page.get_by_role("link", name="BrowserAct", exact=True)
        for task_id, here in (("follow", AIRFLOW_V_3_4_PLUS), ("other", False)):
            ada.page.goto(world.page_of(task_id))
            expect(ada.page.get_by_role("link", name="Logs")).to_be_visible()
            expect(tab).to_have_count(int(here))

    @pytest.mark.skipif(not AIRFLOW_V_3_4_PLUS, reason="before Airflow 3.4 a tab would be on every task")
    def test_tabs_show_the_run_and_the_runs_of_the_dag(self, world, ada):
        dag_run = f"{world.airflow.url}/dags/shop/runs/{quote(world.opened.run_id, safe='')}"
        tab = ada.page.get_by_role("link", name="BrowserAct", exact=True)
        ada.page.goto(world.page_of("follow"))
        tab.click()
        expect(status(ada.frame(), "running").first).to_be_visible()
        for address in (dag_run, f"{world.airflow.url}/dags/shop"):
            ada.page.goto(address)
            tab.click()
            expect(row(ada.frame(), world.task_id("follow"))).to_be_visible()


class TestRights:
    def test_without_login_there_is_no_data_on_any_page(self, world):
        run, dag_run = world.task_id("follow"), quote(world.opened.run_id, safe="")
        of_runs = ("", f"runs/{run}", f"ti/shop/{dag_run}/follow/-1", "dag/shop", f"dag/shop/{dag_run}")
        with world.visitor(user=None) as stranger:
            for route in (*of_runs, "credits", "workflows", *SOURCES):
                response = stranger.context.request.get(world.panel + route)
                assert response.status == 401, route
                text = response.text()
                data = (SEARCH.name, "prices", world.opened.unread, SECRET)
                assert [each for each in data if each in text] == [], route
            assert stranger.context.request.get(world.panel + "static/panel.css").ok
            stranger.open()
            expect(stranger.page.locator("body")).to_contain_text(re.compile("log in", re.IGNORECASE))

    def test_viewer_sees_runs_of_dags_but_no_account_and_no_live_view(self, world):
        with world.visitor("grace") as grace:
            page = grace.open()
            expect(row(page, world.task_id("follow"))).to_be_visible()
            expect(row(page, world.opened.unread)).to_have_count(0)
            expect(page.get_by_role("link", name="Credits")).to_have_count(0)
            expect(page.locator("[data-stop]")).to_have_count(0)
            grace.open(f"runs/{world.task_id('follow')}")
            expect(page.locator(".step").first).to_be_visible()
            expect(page.locator("[data-live]")).to_have_count(0)
            assert grace.context.request.get(world.panel + "credits").status == 403

    def test_page_says_that_the_login_has_ended_and_stops_asking(self, world, ada):
        ada.page.clock.install()
        page = ada.open()
        expect(row(page, world.opened.unread)).to_be_visible()
        cookies = ada.context.cookies()
        ada.context.clear_cookies()
        page.clock.run_for(11_000)
        expect(page.locator("#message")).to_contain_text("Log in again")
        before = len(ada.requests)
        page.clock.run_for(60_000)
        assert len(ada.requests) == before
        ada.context.add_cookies(cookies)
        # The browser logs the refusal.
        ada.errors.clear()


class TestRefresh:
    def test_new_run_appears_without_moving_the_page_or_the_focus(self, world, ada):
        ada.page.set_viewport_size({"width": 1400, "height": 400})
        page = ada.open("?conn=quiet")
        expect(row(page, world.idle)).to_be_visible()
        search = page.get_by_role("searchbox")
        search.focus()
        page.evaluate("window.stayed = true; window.scrollTo(0, 30)")
        run = start_run(world.quiet, ENDLESS.id)
        expect(row(page, run)).to_be_visible(timeout=SOON)
        expect(search).to_be_focused()
        assert page.evaluate("[window.stayed, window.scrollY]") == [True, 30]

    def test_opened_live_view_stays_while_the_page_is_refreshed(self, world, ada):
        page = ada.open(f"runs/{world.task_id('follow')}?conn=browseract_default")
        page.locator("[data-live] summary").click()
        live = page.locator("[data-live] iframe")
        expect(live.content_frame.locator("body")).to_contain_text(world.task_id("follow"))
        # A frame that is moved or loaded again has another window.
        live.evaluate("frame => { window.shown = frame.contentWindow; }")
        # A button before it may go, such as the one for an answer.
        live.evaluate("frame => frame.closest('.buttons').prepend(document.createElement('a'))")
        # The run makes a step every two seconds, which costs credits.
        facts = page.locator("dl.facts").inner_text()
        expect(page.locator("dl.facts")).not_to_have_text(facts, timeout=SOON, use_inner_text=True)
        expect(page.locator(".buttons:has(#live) > :first-child")).to_have_attribute("id", "live")
        assert live.evaluate("frame => window.shown === frame.contentWindow")

    def test_hidden_page_sends_no_requests_until_it_is_visible_again(self, world, ada):
        page = ada.page
        page.clock.install()
        ada.open()
        expect(row(page, world.opened.unread)).to_be_visible()
        set_visible(page, visible=False)
        before = len(ada.requests)
        page.clock.run_for(120_000)
        assert ada.requests[before:] == []
        with page.expect_request(lambda request: request.headers.get("x-browseract-panel") == "fragment"):
            set_visible(page, visible=True)
            page.clock.run_for(11_000)


def set_visible(page: Page, *, visible: bool) -> None:
    """Let a page be hidden as by another tab, or let it be seen again. Without a screen, no tab hides another."""
    page.evaluate(
        """visible => {
            const values = {hidden: !visible, visibilityState: visible ? "visible" : "hidden"};
            for (const [name, value] of Object.entries(values)) {
                Object.defineProperty(document, name, {configurable: true, value});
            }
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        visible,
    )


HOSTILE = {
    "image": "<img src=//attacker.invalid/x onerror=alert(1)>",
    "script": "</script><script>alert(2)</script>",
    "svg": "<svg onload=alert(3)><use href='//attacker.invalid/y#z'/></svg>",
    "attribute": "\" onmouseover='alert(4)' autofocus onfocus=\"alert(5)",
    "template": "{{ 7 * 7 }} {% raw %} ${7 * 7}",
    "entities": "&lt;b&gt; &amp;lt; &#60;i&#62;",
    "reversed": "abc\u202edcba\u2066x\u200fy",
    "control": "nul\x00 bell\x07 line\nbreak",
    "unbroken": "x" * 5000,
    "megabyte": "<b>" + "m" * 1_000_000,
    "address": "javascript:alert(6)",
    "empty": "",
}
"""Texts that BrowserAct or a web page may have written."""


class TestHostileTexts:
    @pytest.fixture(scope="class")
    def runs(self, world):
        """Runs of workflows with these names, in an account of their own, where each address is a script."""
        with Emulator(concurrency=50).serve() as service:
            for number, text in enumerate(HOSTILE.values()):
                texts: dict[str, Any] = {"name": text, "description": text}
                texts["inputs"] = (WorkflowInput(text or "x", required=False),)
                ends: dict[str, Any] = {"outcome": "failed", "failure": (10001, text), "duration": 0.0}
                workflow = EmulatedWorkflow(f"9100000000000{number:04}", steps=(text, text), **texts, **ends)
                template = EmulatedWorkflow(
                    f"9200000000000{number:04}", kind="template", detail_url="javascript:alert(8)", **texts
                )
                service.add_workflow(workflow)
                service.add_workflow(template)
            world.connect("hostile", service)
            runs = {kind: start_run(service, f"9100000000000{number:04}") for number, kind in enumerate(HOSTILE)}
            service.url = "javascript:alert(7)//"
            yield runs

    def test_they_are_text_in_the_list_of_runs(self, world, ada, runs):
        ada.page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        page = ada.open("?conn=hostile")
        for kind in ("image", "script", "svg", "attribute", "template", "entities"):
            expect(row(page, runs[kind])).to_contain_text(HOSTILE[kind][:190])
        expect(row(page, runs["megabyte"])).to_contain_text("<b>mmm")
        assert len(page.content()) < 300_000
        assert not set("\u202e\u2066\u200f\x00\x07") & set(page.locator("main").inner_text())
        check_width(page)

    @pytest.mark.parametrize("kind", HOSTILE)
    def test_they_are_text_on_the_page_of_a_run(self, world, ada, runs, kind):
        page = ada.open(f"runs/{runs[kind]}?conn=hostile")
        expect(status(page, "failed").first).to_be_visible()
        assert "javascript:" not in "".join(page.locator("[href], [src], [data-live]").evaluate_all(ADDRESSES))
        check_width(page)

    def test_they_are_text_in_workflows_and_dag_files(self, world, ada, runs):
        page = ada.open("workflows?conn=hostile")
        expect(page.locator("main")).to_contain_text(HOSTILE["script"])
        check_width(page)
        for number in range(len(HOSTILE)):
            for route in (f"workflows/9100000000000{number:04}", f"templates/9200000000000{number:04}"):
                ada.open(f"{route}?conn=hostile")
                ast.parse(page.locator("#dag-file code").inner_text())
                assert "javascript:" not in "".join(page.locator("[href], [src]").evaluate_all(ADDRESSES))


ADDRESSES = "all => all.map(each => `${each.getAttribute('href')} ${each.getAttribute('src')} ${each.dataset.live}`)"


def check_width(page: Page) -> None:
    """Check that nothing makes a page wider than its window."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


class TestEveryone:
    def test_keyboard_alone_leads_from_the_overview_to_the_live_view(self, world, ada):
        page = ada.open()
        expect(row(page, world.opened.unread)).to_be_visible()
        tab_to(page, f'tr[data-run="{world.task_id("follow")}"] a')
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        page.keyboard.press("Enter")
        expect(page.locator(".step").first).to_be_attached()
        tab_to(page, "[data-live] summary")
        page.keyboard.press("Enter")
        expect(page.locator("[data-live] iframe")).to_be_visible()

    def test_axe_finds_nothing_serious_on_any_page_in_light_and_dark(self, world, ada):
        runs = [f"runs/{world.task_id(name)}" for name in ("follow", "answer", "blocked")]
        pages = ["", *runs, "credits", "workflows", *SOURCES, "dag/shop", "runs/404", "?conn=quiet"]
        found = []
        for path in pages:
            page = ada.open(path)
            page.locator("main").wait_for()
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                found += serious_findings(page, f"/{path} ({scheme})")
        # The browser logs that a page is missing.
        ada.errors.clear()
        assert found == []

    def test_frame_follows_the_switch_to_dark_mode_and_axe_finds_nothing_serious_in_it(self, world, ada):
        panel = ada.open_panel()
        body = panel.locator("body")
        expect(row(panel, world.opened.unread)).to_be_visible()
        [frame] = ada.page.main_frame.child_frames
        found = serious_findings(frame, "light")
        light = body.evaluate("body => getComputedStyle(body).backgroundColor")
        ada.page.evaluate("document.documentElement.classList.replace('light', 'dark')")
        expect(panel.locator("html")).to_have_class(re.compile("dark"))
        expect(body).not_to_have_css("background-color", light)
        assert found + serious_findings(frame, "dark") == []

    def test_on_a_phone_no_word_of_a_tab_is_broken_and_nothing_is_wider_than_the_frame(self, world, ada):
        panel = ada.open_panel()
        expect(row(panel, world.opened.unread)).to_be_visible()
        ada.page.set_viewport_size({"width": 400, "height": 900})
        for name in ("Runs", "Credits"):
            # One line with its padding.
            tab = panel.locator(".tabs").get_by_role("link", name=name)
            assert tab.evaluate("tab => tab.getBoundingClientRect().height") < 48
        assert panel.locator("html").evaluate("html => html.scrollWidth <= html.clientWidth")


def tab_to(page: Page, selector: str) -> None:
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"Tab does not lead to {selector}")


def test_run_that_nobody_waits_for_is_stopped_after_a_confirmation(world, ada):
    def in_the_emulator() -> str:
        return next(task.status for task in world.quiet.tasks if task.id == world.idle)

    page = ada.open("?conn=quiet")
    stop = row(page, world.idle).locator("[data-stop]")
    stop.click()
    expect(page.locator("#stop-what")).to_contain_text(ENDLESS.name)
    page.get_by_role("button", name="Keep it running").click()
    stop.click()
    assert in_the_emulator() == "running"
    page.get_by_role("button", name="Stop the run").click()
    expect(status(row(page, world.idle), "canceled")).to_be_visible(timeout=SOON)
    assert in_the_emulator() == "canceled"


def test_browseract_that_becomes_slow_leaves_the_run_and_a_line_that_says_so(world, ada):
    with Emulator(concurrency=5).serve() as service:
        world.connect("slow", service)
        run = start_run(service, ENDLESS.id)
        page = ada.open("?conn=slow")
        expect(row(page, run)).to_be_visible()
        with service.fault("*", RequestFault.hung()):
            expect(page.locator(".notice")).to_be_visible(timeout=4 * SOON)
            expect(row(page, run)).to_be_visible()


def test_picture_that_has_expired_is_replaced_by_words(world, ada):
    ada.page.route("**/screenshots/**", lambda route: route.fulfill(status=404))
    page = ada.open(f"runs/{world.task_id('search')}")
    step = page.locator(".step").first
    step.scroll_into_view_if_needed()
    expect(step.get_by_text("This picture has expired")).to_be_visible()
    # The browser logs each picture that is missing.
    ada.errors.clear()


def test_copied_dag_of_a_workflow_is_green_after_five_clicks(world, ada):
    """Last, because it gives the account as many slots as all who wait need."""
    ada.context.grant_permissions(["clipboard-read"])
    panel = ada.open_panel()
    ada.click(panel.get_by_role("link", name="Workflows"))
    ada.click(panel.get_by_role("link", name=ORDERS.name))
    shown = panel.locator("#dag-file code").inner_text()
    ada.click(panel.locator("[data-copy]"))
    expect(panel.locator("#message")).to_have_text("Copied")
    assert ada.clicks == 5
    copied = ada.page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == shown.strip()
    world.shop.concurrency = 50
    world.shop.set_workflow(ORDERS.id, duration=0.0)
    (world.airflow.dags / "copied.py").write_text(copied)
    [dag_id] = re.findall(r"""DAG\(\s*["']([^"']+)["']""", copied)
    run_id = world.airflow.trigger(dag_id)
    assert world.airflow.wait_for_run(dag_id, run_id) == "success"
