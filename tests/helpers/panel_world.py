"""Emulators with runs of every kind, and people who look at them in Airflow's UI."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.emulator import (
    ENDLESS,
    EXPORT,
    HUMAN,
    LOG_IN,
    ORDERS,
    SEARCH,
    EmulatedWorkflow,
    Emulator,
)
from airflow_provider_browseract.emulator.workflow import Outcome, Output
from tests.helpers.browser import LOOKS, log_in, running_browser
from tests.helpers.catalogue import FAILING

from .local_airflow import LocalAirflow, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, FrameLocator, Locator, Page

DAGS = Path(__file__).parents[1] / "e2e" / "dags" / "panel.py"

SECRET = "hunter2"
"""An input of a run."""

HELD: dict[str, Any] = {"duration": 4.0, "pause_at": 0.01, "pause_limit": None}
"""Settings of a run that keeps running until it is stopped."""


@dataclass
class PanelWorld:
    """An Airflow with the DAGs in ``dags/panel.py``, the emulators of its connections, and a browser.

    :param shop: the account of ``browseract_default``. All its slots are taken, and task instances wait.
    :param quiet: the account of the connection ``quiet``, with free slots.
    :param idle: a run in it that Airflow has not started.
    """

    airflow: LocalAirflow
    shop: Emulator
    quiet: Emulator
    browser: Browser
    idle: str = field(init=False)
    opened: Shop = field(init=False)
    _contexts: dict[str | None, BrowserContext] = field(default_factory=dict)

    @property
    def panel(self) -> str:
        return f"{self.airflow.url}/browseract/panel/"

    def task_id(self, task_id: str) -> str:
        """Return the BrowserAct task that a task of the DAG ``shop`` has started."""
        return self.airflow.xcom("shop", self.opened.run_id, task_id, "task_id")

    def page_of(self, task_id: str, tab: str = "") -> str:
        """Return the address of a task instance of the DAG ``shop`` in Airflow."""
        return f"{self.airflow.url}/dags/shop/runs/{quote(self.opened.run_id, safe='')}/tasks/{task_id}{tab}"

    def connect(self, conn_id: str, service: Emulator, **fields: Any) -> None:
        given = {"host": service.url, "password": service.api_key, **fields}
        self.airflow.set_connection(conn_id, conn_type="browseract", **given)

    @contextmanager
    def visitor(self, user: str | None = "ada") -> Iterator[Visitor]:
        """Have a user, or somebody who has never logged in, with an empty page for the length of a ``with`` block."""
        context = self._contexts.get(user)
        if context is None:
            context = self.browser.new_context(viewport={"width": 1400, "height": 1000}, **LOOKS)
            # Milliseconds that a page may take on a busy machine.
            context.set_default_timeout(30_000)
        if user is not None and user not in self._contexts:
            # Logged in once, and with what the browser keeps of Airflow's UI.
            log_in(context.new_page(), self.airflow.url, user)
            self._contexts[user] = context
        visitor = Visitor(self, context)
        try:
            yield visitor
        finally:
            visitor.leave()


class Visitor:
    """A person with a browser's page, and what went wrong in it."""

    def __init__(self, world: PanelWorld, context: BrowserContext) -> None:
        self.world, self.context = world, context
        self.clicks = 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._listeners: dict[Any, Callable[..., None]] = {
            "console": self._noted,
            "weberror": lambda error: self.errors.append(str(error.error)),
            "request": lambda request: self.requests.append(request.url),
        }
        for event, listener in self._listeners.items():
            context.on(event, listener)
        self.page: Page = context.new_page()

    def leave(self) -> None:
        for event, listener in self._listeners.items():
            self.context.remove_listener(event, listener)
        for page in self.context.pages:
            page.close()

    def _noted(self, message: ConsoleMessage) -> None:
        # Airflow's own pages are not the panel's.
        if message.type == "error" and "/browseract/" in message.location["url"] + message.text:
            self.errors.append(message.text)

    def open(self, path: str = "") -> Page:
        self.page.goto(self.world.panel + path)
        return self.page

    def click(self, what: Locator) -> None:
        what.click()
        self.clicks += 1

    def click_button(self, what: Locator) -> None:
        """Click on a button of a task instance, which opens a new tab on some versions of Airflow, and go on there."""
        if what.get_attribute("target") == "_blank":
            with self.context.expect_page() as opened:
                self.click(what)
            self.page = opened.value
        else:
            self.click(what)
        self.page.wait_for_url(re.compile("/browseract/panel/|/plugin/"))

    def open_panel(self) -> FrameLocator:
        """Open the panel from the menu of Airflow, and return its frame."""
        self.page.goto(self.world.airflow.url + "/")
        self.click(self.page.get_by_role("button", name="Browse"))
        self.click(self.page.get_by_role("menuitem", name="BrowserAct"))
        return self.frame()

    def frame(self) -> FrameLocator:
        """Return the frame in which Airflow shows the panel."""
        return self.page.frame_locator('iframe[src*="browseract/panel"]')

    def shown(self) -> FrameLocator | Page:
        """Return the panel, whether Airflow shows it in its frame or it is alone."""
        return self.frame() if "/plugin/" in self.page.url else self.page

    def foreign_requests(self) -> list[str]:
        """Return the addresses of requests to anything else than Airflow and the emulators."""
        hosts = {urlsplit(url).netloc for url in (self.world.panel, self.world.shop.url, self.world.quiet.url)}
        parts = [(urlsplit(url), url) for url in self.requests]
        return [url for part, url in parts if part.netloc not in hosts and part.scheme not in ("blob", "data")]


def start_run(service: Emulator, workflow_id: str) -> str:
    """Start a run without Airflow, and return its id."""
    with BrowserActClient(Settings(api_key=service.api_key, base_url=service.url)) as client:
        return client.send(v2.run(workflow_id)).id


def add_run(emulator: Emulator, workflow: EmulatedWorkflow, seconds_ago: float) -> str:
    """Add a run that was started some time ago, and return its id. No later one may exist."""
    with emulator.changed:
        emulator.clock = partial(float, time.time() - seconds_ago)
        run = emulator.start_run(workflow, api_version="v2", inputs=[])
        emulator.catch_up()
        emulator.clock = time.time
    return run.id


def add_history(emulator: Emulator, days: int) -> None:
    """Add ended runs of the last days, more on some days than on others."""
    workflows = (SEARCH, ORDERS, EXPORT, LOG_IN)
    for day in range(days, 0, -1):
        for number in range(3 + day * 7 % 11):
            outcome: Outcome = "failed" if number == 9 else "finished"
            workflow = workflows[min(number % 5, 3)].having(
                duration=0.0, outcome=outcome, behaviour=lambda _: Output(), credits_per_step=5 + 2 * number
            )
            add_run(emulator, workflow, 86_400 * day + 60)


@dataclass(frozen=True)
class Shop:
    """The run of the DAG ``shop`` of ``dags/panel.py``, with a task for a run of each kind.

    Task instances of the DAG ``prices`` wait for slots. Airflow has not started the run ``unread``.
    """

    run_id: str
    unread: str

    @classmethod
    def opened(cls, airflow: LocalAirflow, emulator: Emulator) -> Shop:
        """Start runs of every kind, and then let task instances wait for slots."""
        emulator.set_workflow(HUMAN.id, **HELD)
        emulator.set_workflow(FAILING.id, duration=1.0)
        # That nobody waits for a run counts after a minute.
        unread = add_run(emulator, ENDLESS, 180)
        run_id = airflow.trigger("shop")

        def states(dag_id: str, run_id: str) -> dict[tuple[str, int], str]:
            airflow.check_alive()
            return {(ti["task_id"], ti["map_index"]): ti["state"] for ti in airflow.task_instances(dag_id, run_id)}

        def asked() -> Any:
            return airflow.api("GET", f"dags/shop/dagRuns/{run_id}/hitlDetails")["hitl_details"]

        expected = {"follow": "deferred", "answer": "deferred", "blocked": "failed", "search": "success"}
        wanted = {(name, -1): state for name, state in expected.items()}.items()
        wait_for("Runs of every kind", lambda: wanted <= states("shop", run_id).items(), timeout=240)
        wait_for("The Required Action", asked, timeout=60)
        emulator.concurrency = sum(task.finished_at is None for task in emulator.tasks)
        waiting = airflow.trigger("prices")
        wait_for("The queue", lambda: [*states("prices", waiting).values()].count("deferred") == 3, timeout=120)
        return cls(run_id, unread)


@contextmanager
def panel_world(airflow: LocalAirflow, shop: Emulator) -> Iterator[PanelWorld]:
    """Have everything running in an Airflow that has the DAGs, with an account without runs."""
    with running_browser() as browser, Emulator(concurrency=20, api_key="app-of-quiet").serve() as quiet:
        shop.concurrency = 20
        add_history(shop, 5)
        world = PanelWorld(airflow, shop, quiet, browser)
        world.connect("browseract_default", shop, extra=json.dumps({"daily_credits": 20_000}))
        world.connect("quiet", quiet)
        world.idle = add_run(quiet, ENDLESS, 180)
        world.opened = Shop.opened(airflow, shop)
        yield world
