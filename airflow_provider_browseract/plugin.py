"""The Airflow plugin that mounts the callback route (entry point ``airflow.plugins``).

Every process of Airflow imports plugins, including each task, but only the API server serves this one. Everything that
the route needs is therefore imported by the first request.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow_provider_browseract.compat import AirflowPlugin
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.routes import CALLBACK_PATH, URL_PREFIX
from airflow_provider_browseract.webhook.overload import RareLog

log = logging.getLogger(__name__)

_TOKEN = re.compile(r"(?<=/)[A-Za-z0-9_-]{43}(?=/|$)")
"""A segment of a path that has the form of a token."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class CallbackApp:
    """An ASGI application that loads :func:`~airflow_provider_browseract.webhook.receiver.create_app` when needed.

    After a failure, it waits before it tries again. Otherwise, every request of a stranger would load it.
    """

    def __init__(self) -> None:
        self._app: App | None = None
        self._load_at = 0.0
        self._log = RareLog(log)

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Respond to a request."""
        original = dict(scope)
        _hide_token(scope)
        if self._app is None and time.monotonic() >= self._load_at:
            self._load()
        if self._app is None:
            await _unavailable(scope, send)
        else:
            await self._app(original, receive, send)

    def _load(self) -> None:
        try:
            # The route itself imports the module with Airflow's models, where each request would notice its failure.
            import airflow_provider_browseract.webhook.database  # noqa: F401
            from airflow_provider_browseract.webhook.receiver import create_app

            self._app = create_app()
        except Exception as error:  # noqa: BLE001 - another version of Airflow may fail in any way
            self._load_at = time.monotonic() + timings.ROUTE_LOAD_PAUSE
            self._log.error("The callback route cannot be loaded", error, "Waiting tasks are resumed by their polls.")

    def __repr__(self) -> str:
        return "<BrowserAct callbacks>"


def _hide_token(scope: Scope) -> None:
    """Remove the token from the path, because the server and its middlewares log the path afterwards."""
    before, route, _ = scope["path"].partition(f"{URL_PREFIX}{CALLBACK_PATH}/")
    # A path that misses the route by a slash may still contain a token.
    path = f"{before}{route}hidden" if route else _TOKEN.sub("hidden", scope["path"])
    if path != scope["path"]:
        scope["path"] = path
        scope["raw_path"] = path.encode()


async def _unavailable(scope: Scope, send: Callable[[Message], Awaitable[None]]) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    body = json.dumps({"outcome": "unavailable"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class BrowserActPlugin(AirflowPlugin):
    """Mount the callback route at :data:`URL_PREFIX`, below the path of ``[api] base_url``."""

    name = "browseract"
    fastapi_apps = [{"app": CallbackApp(), "url_prefix": URL_PREFIX, "name": "BrowserAct callbacks"}]
