"""The browser in which tests and screenshots show Airflow's UI: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

LOOKS: dict[str, Any] = {"color_scheme": "light", "locale": "en-US", "timezone_id": "UTC"}
"""What pages look like, whatever the machine's settings are."""


def why_no_browser() -> str | None:
    """Return why no browser can run here, as a clause; None if one can."""
    if importlib.util.find_spec("playwright") is None:
        return "the package playwright is not installed"
    if _program() is None:
        return f"there is none of {', '.join(BROWSERS)}; install one, as with: apt-get install chromium"
    return None


def _program() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Have a browser without pages for the length of a ``with`` block.

    :raises RuntimeError: none can run here.
    """
    if reason := why_no_browser():
        raise RuntimeError(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Playwright starts Chromium without its sandbox, which root cannot use. Ctrl-C is for this process alone.
        browser = playwright.chromium.launch(
            executable_path=_program(), handle_sigint=False, handle_sigterm=False, handle_sighup=False
        )
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, address: str, user: str) -> None:
    """Log in to an Airflow that has users, as a person does.

    :param address: address of its UI.
    :param user: the name, which is the password too.
    """
    page.goto(f"{address}/")
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill(user)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{address}/")
