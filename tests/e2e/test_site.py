"""The documentation site in a real browser: every page on a phone and on a desktop, light and dark."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import quote

import pytest
from playwright.sync_api import ConsoleMessage, Error, Page, expect

from tests.helpers.browser import LOOKS, running_browser, serious_findings, skip_without_browser
from tests.helpers.pages import DOCS, ROOT

HTML = ROOT / "docs" / "_build" / "html"

PAGES = [path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in DOCS]

# One of each kind: tables and pictures, code, what is made from docstrings, results.
KINDS = ("index", "tutorial", "other-runs", "search")

SIZES = {"phone": (400, 800), "desktop": (1400, 900)}
COLORS: tuple[Literal["light", "dark"], ...] = ("light", "dark")

SEARCHES = {
    "10001": "troubleshooting",
    "live view": "people",
    "http operator": "migrating",
    "taskflow": "operator",
    "callback": "callbacks",
    "profile": "profiles",
    "budget": "cost",
    "captcha": "people",
    "kubernetes": "deployment",
    "gdpr": "security",
    "glossary": "reference",
    "retry policy": "recipes",
    "github actions": "testing",
    "check": "commands",
    "mwaa": "deployment",
    "astro": "deployment",
    "RunWorkflowOperator": "operator",
}
"""What people search for, and the page that they should find among the first three."""

FLAWS = """
() => {
  const found = [], report = (flaw, element) => found.push(`${flaw}: ${element.textContent.trim().slice(0, 40)}`);
  const article = document.querySelector("article");
  const right = element => element.getBoundingClientRect().right;
  const edge = right(document.querySelector(".content"));
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) found.push("scrolls sideways");
  for (const element of document.querySelectorAll(".content, .content *")) {
    const hides = getComputedStyle(element).overflowX !== "visible" && element.clientWidth > 1;
    if (hides && element.scrollWidth > element.clientWidth + 1) report(`cut off ${element.localName}`, element);
    if (right(element) > edge && right(element.parentElement) <= edge) report("sticks out", element);
  }
  const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT), range = document.createRange();
  while (texts.nextNode()) {
    // A soft wrap of code may have no other place.
    if (texts.currentNode.parentElement.closest("pre")) continue;
    for (const word of texts.currentNode.data.matchAll(/\\p{L}{2,}/gu)) {
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      const [first, ...others] = range.getClientRects();
      if (others.some(other => other.top > first.bottom - 2)) found.push(`word broken: ${word[0]}`);
    }
  }
  for (const code of article.querySelectorAll(".highlight")) {
    if (!code.querySelector("button.copybtn")) report("no copy button", code);
    const underlined = [...code.querySelectorAll("span")].filter(
      span => getComputedStyle(span).textDecorationLine !== "none");
    if (underlined.length) report("underscores hidden by underlines", underlined[0]);
  }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  for (const picture of document.querySelectorAll("img")) {
    if (!picture.naturalWidth) found.push(`broken picture: ${picture.src}`);
    if (!picture.alt) found.push(`picture without alt text: ${picture.src}`);
    if (dark && picture.matches("article :not(picture) > img") && getComputedStyle(picture).filter === "none")
      found.push(`picture glares: ${picture.src}`);
  }
  return found;
}
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the site, which is built first."""
    skip_without_browser()
    subprocess.run(["make", "--no-print-directory", "docs"], cwd=ROOT, check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def tab(site: str) -> Iterator[Page]:
    """The one tab in which all pages are opened."""
    with running_browser() as browser, browser.new_context(**LOOKS, base_url=site) as context:
        yield context.new_page()


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """The tab, in which no page may cause an error."""
    errors: list[str] = []

    def printed(message: ConsoleMessage) -> None:
        # Also what could not be loaded.
        if message.type == "error":
            errors.append(message.text)

    def raised(error: Error) -> None:
        errors.append(error.message)

    tab.on("console", printed)
    tab.on("pageerror", raised)
    yield tab
    tab.remove_listener("console", printed)
    tab.remove_listener("pageerror", raised)
    assert errors == []


def looks(page: Page) -> Iterator[str]:
    """Show an open page in each size and colors, and return what they are."""
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        for colors in COLORS:
            page.emulate_media(color_scheme=colors)
            # Other colors can mean another picture: the next frame begins to load it. A broken one is reported later.
            page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            with suppress(Error):
                page.wait_for_function("[...document.images].every(picture => picture.naturalWidth)", timeout=10_000)
            yield f"{size}, {colors}"


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_on_phone_and_desktop_in_light_and_dark(name, page):
    page.goto(f"/{name}.html")
    assert [f"{look}: {flaw}" for look in looks(page) for flaw in page.evaluate(FLAWS)] == []


@pytest.mark.parametrize("name", KINDS)
def test_axe_finds_nothing_serious_on_a_page_of_each_kind(name, page):
    page.goto(f"/{name}.html")
    assert [finding for look in looks(page) for finding in serious_findings(page, look)] == []


def test_each_page_has_a_description_of_its_own(site):
    described = {}
    for name in PAGES:
        html = (HTML / f"{name}.html").read_text()
        [description] = re.findall(r'<meta name="description" content="(.*?)">', html)
        assert 50 <= len(description) <= 300, (name, description)
        described[description] = name
    assert len(described) == len(PAGES)


@pytest.mark.parametrize(("words", "name"), SEARCHES.items())
def test_search_finds_the_page_among_the_first_three(words, name, page):
    page.goto(f"/search.html?q={quote(words)}")
    expect(page.locator(".search-summary")).to_contain_text("finished")
    found = page.locator("ul.search > li > a:first-of-type").evaluate_all("links => links.map(link => link.pathname)")
    pages = list(dict.fromkeys(found))
    assert f"/{name}.html" in pages[:3], pages[:8]


def test_logo_leaves_the_sidebar_to_the_links(page):
    page.set_viewport_size({"width": 1400, "height": 900})
    page.goto("/")
    brand = page.locator(".sidebar-brand").bounding_box()
    assert brand
    assert brand["height"] < 0.1 * 900
