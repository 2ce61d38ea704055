"""``make pictures``: retake the screenshots of the documentation from a real Airflow that uses the emulator.

    python -m dev.pictures [NAME ...]

Without names it takes all of :data:`PICTURES`, in about seven minutes. Each replaces ``docs/NAME.png``. It needs
Chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import FloatRect, FrameLocator, Locator, Page

from airflow_provider_browseract.emulator import LOG_IN, SEARCH, Emulator
from tests.helpers.browser import LOOKS, running_browser
from tests.helpers.catalogue import add
from tests.helpers.local_airflow import LocalAirflow, run_command, wait_for
from tests.helpers.panel_world import DAGS, Shop, add_history

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

WIDTH, HEIGHT = 1280, 1000
"""The size of the browser's window, in CSS pixels."""

SCALE = 1.25
"""Pixels of a picture for each CSS pixel. With 2, the log takes more than 200 KB."""

MARGIN = 16
"""CSS pixels that a picture shows below what it is about."""

LIMIT = 150.0
"""Seconds to wait for an event at most."""

PROFILE = "example_browseract_profile"
SEARCHING = "example_browseract_search"
PERSON = "example_browseract_person"


@dataclass(frozen=True)
class Studio:
    """An Airflow, the emulator that it uses, another one for the panel, and a browser's page that shows Airflow."""

    airflow: LocalAirflow
    service: Emulator
    account: Emulator
    page: Page

    def open(self, path: str) -> None:
        """Open a page of Airflow."""
        self.page.goto(f"{self.airflow.url}/{path}")

    def details(self) -> Locator:
        """Return the part of the page that is about the run or task instance."""
        return self.page.locator("#details-panel")

    def header(self) -> Locator:
        """Return the name and the state of the run or task instance."""
        return self.details().get_by_test_id("header-card")

    @cached_property
    def shop(self) -> Shop:
        """The runs that the panel shows, which are started when they are needed first."""
        extra = json.dumps({"webhook_base_url": self.airflow.url, "daily_credits": 2000})
        self.airflow.set_connection("browseract_default", **self.account.connection, extra=extra)
        return Shop.opened(self.airflow, self.account)

    def open_shop(self) -> FrameLocator:
        """Open the panel on the account of :attr:`shop`, and return its frame."""
        self.shop  # noqa: B018 - starts the runs
        return self.open_panel()

    def open_panel(self, scheme: Literal["light", "dark"] = "light") -> FrameLocator:
        """Open the panel in Airflow's UI, and return its frame."""
        self.page.emulate_media(color_scheme=scheme)
        # So high that the lower end of Airflow's menu is outside of each picture.
        self.page.set_viewport_size({"width": WIDTH, "height": 2 * HEIGHT})
        self.open("plugin/browseract")
        return self.page.frame_locator("iframe")

    def down_to(self, last: Locator, margin: int = MARGIN) -> FloatRect:
        """Return the window down to an element in it."""
        lowest = box(last)
        return {"x": 0, "y": 0, "width": WIDTH, "height": lowest["y"] + lowest["height"] + margin}

    def wait_for(self, what: str, look: Callable[[], Any]) -> Any:
        """Wait until there is something, as long as every component of Airflow is alive."""

        def alive() -> Any:
            self.airflow.check_alive()
            return look()

        return wait_for(what, alive, timeout=LIMIT)

    def wait_for_state(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Wait until a task instance is in a state."""

        def reached() -> bool:
            instances = self.airflow.task_instances(dag_id, run_id)
            return any(ti["task_id"] == task_id and ti["state"] == state for ti in instances)

        self.wait_for(f"State {state} of {task_id}", reached)

    def between(self, top: Locator, bottom: Locator) -> FloatRect:
        """Return where :meth:`details` is, from one element down to another."""
        whole, first, last = box(self.details()), box(top), box(bottom)
        # The button of the line that divides the page reaches into it.
        left, right = whole["x"] + MARGIN, whole["x"] + whole["width"]
        lower = last["y"] + last["height"] + MARGIN
        return {"x": left, "y": first["y"], "width": right - left, "height": lower - first["y"]}

    def shoot(self, area: Callable[[], FloatRect]) -> bytes:
        """Take a picture as soon as the page has come to rest: two pictures in a row are equal."""
        taken = [b""]

        def at_rest() -> bytes | None:
            taken.append(self.page.screenshot(clip=area(), animations="disabled"))
            return taken[-1] if taken[-1] == taken[-2] else None

        return wait_for("A page at rest", at_rest, timeout=LIMIT)


def box(element: Locator) -> FloatRect:
    """Return where an element is, as soon as it is visible."""
    element.wait_for()
    found = element.bounding_box()
    assert found is not None
    return found


def log(studio: Studio) -> bytes:
    """Show the log of a task that a callback has resumed."""
    # Long enough for a poll in between, which sees the second step.
    studio.service.next_run(LOG_IN.id, duration=25.0)
    run_id = studio.airflow.trigger(PROFILE)
    studio.wait_for_state(PROFILE, run_id, "log_in", "success")
    woken_by = studio.airflow.xcom(PROFILE, run_id, "log_in", "wait")["woken_by"]
    if woken_by != "callback":
        raise RuntimeError(f"a {woken_by} has resumed the task, because this machine was too busy for the callback")
    read = partial(studio.airflow.log, PROFILE, run_id, "log_in")
    studio.wait_for("The end of the trigger", lambda: any("trigger completed" in line for line in read()))
    studio.open(f"dags/{PROFILE}/runs/{run_id}/tasks/log_in")
    tab = studio.details().get_by_role("link", name="Logs")
    # Each of the task's two processes ends its log with this group.
    studio.details().get_by_text("Post Execute").nth(1).wait_for()
    lines = studio.details().get_by_test_id("virtualized-list")
    return studio.shoot(lambda: studio.between(tab, lines))


def links(studio: Studio) -> bytes:
    """Show the buttons of a task instance that waits."""
    studio.service.next_run(SEARCH.id, duration=600.0)
    run_id = studio.airflow.trigger(SEARCHING)
    studio.wait_for_state(SEARCHING, run_id, "search", "deferred")
    studio.open(f"dags/{SEARCHING}/runs/{run_id}/tasks/search/details")
    button = studio.details().get_by_role("link", name="Live view")
    return studio.shoot(lambda: studio.between(studio.header(), button))


def required_action(studio: Studio) -> bytes:
    """Show the Required Action of a run that has paused."""
    run_id = studio.airflow.trigger(PERSON)
    asked = partial(studio.airflow.api, "GET", f"dags/{PERSON}/dagRuns/{run_id}/hitlDetails")
    studio.wait_for("The Required Action", lambda: asked()["hitl_details"])
    studio.wait_for_state(PERSON, run_id, "solve", "deferred")
    studio.open(f"dags/{PERSON}/runs/{run_id}/tasks/solve/required_actions")
    button = studio.details().get_by_role("button", name="Stop")
    return studio.shoot(lambda: studio.between(studio.header(), button))


def connection(studio: Studio) -> bytes:
    """Show the form for a connection."""
    studio.open("connections")
    studio.page.get_by_role("button", name="Add Connection").click()
    form = studio.page.get_by_role("dialog")
    form.get_by_role("combobox").click()
    studio.page.get_by_role("option", name="BrowserAct").click()
    form.get_by_role("textbox").first.fill("browseract_default")
    # Without a frame around the field.
    form.get_by_role("heading", name="Add Connection").click()
    form.get_by_text("API key").wait_for()
    return studio.shoot(lambda: box(form))


def panel_steps(studio: Studio, scheme: Literal["light", "dark"] = "light") -> bytes:
    """Show an active run in the panel, with the screenshots of its steps."""
    emulator = studio.service
    # The third of four steps runs for 25 seconds.
    emulator.next_run(SEARCH.id, duration=100.0)
    run_id = studio.airflow.trigger(SEARCHING)
    studio.wait_for_state(SEARCHING, run_id, "search", "deferred")
    task_id = studio.airflow.xcom(SEARCHING, run_id, "search", "task_id")
    # Before that, the page would load screenshots of steps that are running.
    studio.wait_for("The third step", lambda: emulator.tasks[-1].credit == 3 * SEARCH.credits_per_step)
    panel = studio.open_panel(scheme)
    panel.locator(f'#runs [data-run="{task_id}"]').get_by_role("link").first.click()
    # The newest step comes first.
    panel.locator(".step").first.get_by_text("running").wait_for()
    return studio.shoot(lambda: studio.down_to(panel.locator(".step").last))


def panel_overview(studio: Studio) -> bytes:
    """Show the first page of the panel, inside Airflow's UI."""
    panel = studio.open_shop()
    panel.locator("#queue summary").wait_for()
    return studio.shoot(lambda: studio.down_to(panel.locator(f'#runs [data-run="{studio.shop.unread}"]'), margin=0))


def panel_run(studio: Studio) -> bytes:
    """Show a run in the panel that has failed, with the screenshots of its steps."""
    panel = studio.open_shop()
    task_id = studio.airflow.xcom("shop", studio.shop.run_id, "blocked", "task_id")
    panel.locator(f'#runs [data-run="{task_id}"]').get_by_role("link").first.click()
    return studio.shoot(lambda: studio.down_to(panel.locator(".step").last))


def panel_credits(studio: Studio) -> bytes:
    """Show the page of the panel with the credits of 30 days."""
    panel = studio.open_shop()
    panel.get_by_role("link", name="Credits").click()
    days = panel.locator('[data-tile="days"]')
    days.wait_for()
    days.locator("progress").wait_for(state="detached")
    return studio.shoot(lambda: studio.down_to(panel.locator("#groups")))


def panel_workflow(studio: Studio) -> bytes:
    """Show a workflow in the panel, with a DAG file that runs it."""
    panel = studio.open_shop()
    panel.get_by_role("link", name="Workflows").click()
    # The overview, which is shown until then, has links of this name too.
    panel.locator(".sources").get_by_role("link", name=SEARCH.name, exact=True).click()
    return studio.shoot(lambda: studio.down_to(panel.locator("#dag-file")))


PICTURES: dict[str, Callable[[Studio], bytes]] = {
    "log": log,
    "links": links,
    "required_action": required_action,
    "connection": connection,
    "panel_steps": panel_steps,
    "panel_steps_dark": partial(panel_steps, scheme="dark"),
    # Last, because the connection is then one to an account without a free slot.
    "panel_overview": panel_overview,
    "panel_run": panel_run,
    "panel_credits": panel_credits,
    "panel_workflow": panel_workflow,
}
"""What takes each picture."""


def take(names: Collection[str]) -> None:
    """Run an Airflow, and two emulators that can call it back; take the named pictures, and print a line for each."""
    account = add(Emulator(concurrency=20))
    add_history(account, 30)
    with (
        running_browser() as browser,
        tempfile.TemporaryDirectory(prefix="browseract-pictures-") as folder,
        add(Emulator(concurrency=20)).serve() as service,
        account.serve() as other,
    ):
        dags = Path(folder, "dags")
        shutil.copytree(ROOT / "example_dags", dags)
        shutil.copy(DAGS, dags)
        environment = {
            # Lines of a log are shown to their ends.
            "AIRFLOW__API__DEFAULT_WRAP": "True",
            # The password of the shop. The emulator refuses only "wrong".
            "AIRFLOW_CONN_SHOP": json.dumps({"conn_type": "generic", "password": "only for the pictures"}),
        }
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE, **LOOKS)
        page.set_default_timeout(LIMIT * 1000)
        with LocalAirflow(Path(folder, "airflow"), dags, environment).running() as airflow:
            extra = json.dumps({"webhook_base_url": airflow.url})
            airflow.set_connection("browseract_default", **service.connection, extra=extra)
            studio = Studio(airflow, service, other, page)
            for name in (name for name in PICTURES if name in names):
                picture = PICTURES[name](studio)
                (DOCS / f"{name}.png").write_bytes(picture)
                print(f"docs/{name}.png: {len(picture) / 1000:.0f} KB", flush=True)


def main() -> int:
    """Take the pictures with the given names, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *PICTURES], help=", ".join(PICTURES))
    take(parser.parse_args().names or PICTURES)
    return 0


if __name__ == "__main__":
    run_command(main, "The pictures could not be taken")
