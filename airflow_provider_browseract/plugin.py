"""The Airflow plugin that mounts the callback route and the panel (entry point ``airflow.plugins``).

Every process of Airflow imports plugins, including each task, but only the API server serves this one. Everything that
the two need is therefore imported by the first request.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow_provider_browseract.compat import AIRFLOW_V_3_4_PLUS, AirflowPlugin
from airflow_provider_browseract.in_airflow.tolerance import first_line
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.routes import CALLBACK_PATH, OPERATORS, PANEL, URL_PREFIX

log = logging.getLogger(__name__)

_TOKEN = re.compile(r"(?<=/)[A-Za-z0-9_-]{43}(?=/|$)")
"""A segment of a path that has the form of a token."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class LazyApp:
    """An ASGI application that is loaded by its first request.

    After a failure, it waits before it tries again. Otherwise, every request of a stranger would load it.

    :param load: imports and creates the application.
    :param name: what the response and the log call it.
    :param consequence: what follows as long as it cannot be loaded, for the log.
    """

    def __init__(self, load: Callable[[], App], name: str, consequence: str) -> None:
        self._load, self._name, self._consequence = load, name, consequence
        self._app: App | None = None
        self._load_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request."""
        original = dict(scope)
        _hide_token(scope)
        if self._app is None and time.monotonic() >= self._load_at:
            try:
                self._app = self._load()
            except Exception as error:  # noqa: BLE001 - another version of Airflow may fail in any way
                self._load_at = time.monotonic() + timings.ROUTE_LOAD_PAUSE
                # Without a traceback, whose variables may be secret.
                log.error("%s cannot be loaded (%s). %s", self._name, first_line(error), self._consequence)
        if self._app is None:
            await self._unavailable(scope, receive, send)
        else:
            await self._app(original, receive, send)

    async def _unavailable(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import PlainTextResponse
        from starlette.websockets import WebSocketClose

        text = f"{self._name} cannot be loaded. The log of the API server states the reason. Try again in a minute."
        respond = WebSocketClose() if scope["type"] == "websocket" else PlainTextResponse(text, 503)
        await respond(scope, receive, send)

    def __repr__(self) -> str:
        return f"<BrowserAct {self._load.__name__}>"


def _hide_token(scope: Scope) -> None:
    """Remove the token from the path, because the server and its middlewares log the path afterwards."""
    before, route, _ = scope["path"].partition(f"{URL_PREFIX}{CALLBACK_PATH}/")
    # A path that misses the route by a slash may still contain a token.
    path = f"{before}{route}hidden" if route else _TOKEN.sub("hidden", scope["path"])
    if path != scope["path"]:
        scope["path"] = path
        scope["raw_path"] = path.encode()


def callbacks() -> App:
    """Load the application with the callback route."""
    # The route itself imports the module with Airflow's models, where each request would notice its failure.
    import airflow_provider_browseract.webhook.database  # noqa: F401
    from airflow_provider_browseract.webhook.receiver import create_app

    return create_app()


def panel() -> App:
    """Load the application with the pages."""
    from airflow_provider_browseract.panel.app import create_app

    return create_app()


_OVERVIEW = f"{PANEL}/".lstrip("/")
"""Address of the overview. The UI reads it as relative to ``[api] base_url``."""

MENU_ENTRY = {
    "name": "BrowserAct",
    "href": _OVERVIEW,
    "destination": "nav",
    "category": "browse",
    "url_route": "browseract",
    "icon": f"{_OVERVIEW}static/icon.svg",
}
"""The entry in the menu Browse."""


def _tab(place: str, page: str, applies_to: dict[str, list[str]]) -> dict[str, Any]:
    route = f"browseract-{place.replace('_', '-')}"
    tab = {"name": "BrowserAct", "href": _OVERVIEW + page, "destination": place, "url_route": route}
    return {**tab, "applies_to": applies_to}


# Ids are in the path, because Airflow 3.1 inserts them raw, and in a query a + would be a space.
TABS = [
    _tab("task_instance", "ti/{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}", {"operator_name": [*OPERATORS]}),
    _tab("dag_run", "dag/{DAG_ID}/{RUN_ID}", {"dag.tags.name": ["browseract"]}),
    _tab("dag", "dag/{DAG_ID}", {"tags.name": ["browseract"]}),
]
"""Tabs of the pages of Airflow's own things. Before Airflow 3.4, every task and DAG would have them."""


class BrowserActPlugin(AirflowPlugin):
    """Mount the callback route and the pages at :data:`URL_PREFIX`, below the path of ``[api] base_url``.

    A menu entry and, from Airflow 3.4 on, tabs show the pages in Airflow's UI.
    """

    name = "browseract"
    fastapi_apps = [
        # First, because the other prefix would match its paths too.
        {
            "app": LazyApp(panel, "The panel", "Runs and callbacks are not affected."),
            "url_prefix": PANEL,
            "name": "BrowserAct panel",
        },
        {
            "app": LazyApp(callbacks, "The callback route", "Waiting tasks are resumed by their polls."),
            "url_prefix": URL_PREFIX,
            "name": "BrowserAct callbacks",
        },
    ]
    external_views = [MENU_ENTRY, *(TABS if AIRFLOW_V_3_4_PLUS else [])]
