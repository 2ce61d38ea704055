"""The browser in which tests and screenshots show Airflow's UI: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Frame, Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

LOOKS: dict[str, Any] = {"color_scheme": "light", "locale": "en-US", "timezone_id": "UTC"}
"""What pages look like, whatever the machine's settings are."""


def find_browser() -> str:
    """Return the path of the system's Chromium, or raise a RuntimeError if there is none."""
    for found in filter(None, map(shutil.which, BROWSERS)):
        return found
    raise RuntimeError(f"there is none of {', '.join(BROWSERS)}; install one, as with: apt-get install chromium")


def skip_without_browser() -> None:
    try:
        find_browser()
    except RuntimeError as missing:
        pytest.skip(f"The browser is left out: {missing}")


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Have a browser without pages for the length of a ``with`` block."""
    path = find_browser()
    with sync_playwright() as playwright:
        # Playwright starts Chromium without its sandbox, which root cannot use. Ctrl-C is for this process alone.
        browser = playwright.chromium.launch(
            executable_path=path, handle_sigint=False, handle_sigterm=False, handle_sighup=False
        )
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, address: str, user: str) -> None:
    """Log in to an Airflow, as a user whose password is the name."""
    page.goto(f"{address}/")
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill(user)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{address}/")


def serious_findings(page: Page | Frame, name: str) -> list[str]:
    """Return what keeps people from using a page, as axe-core finds it."""
    return [
        f"{name}: {each['id']}: {node['html'][:200]}: {node['failureSummary'][:200]}"
        for each in Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
