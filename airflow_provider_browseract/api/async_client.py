"""The client of event loops, in triggers and the panel."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any, TypeVar

import httpx
import tenacity

from airflow_provider_browseract.api.calls import Call, controls, refuse_while_parsing
from airflow_provider_browseract.api.failures import completing, lost, not_connected, trusted_certificates
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.exceptions import AuthenticationError, ResponseTooLargeError

T = TypeVar("T")

MAX_CONNECTIONS = 10
"""Connections that a client opens. Further calls wait for one."""

KEEP_ALIVE = 30.0
"""Seconds for which a client keeps an idle connection.

This is longer than the usual pause between two polls. Otherwise each poll would begin with a TLS handshake, which
blocks the event loop for milliseconds. (One client for all triggers would have a pool that checks all its connections
for each request. With 500 triggers, this blocked the event loop for tens of milliseconds.)
"""

MAX_RESPONSE = 8 * 1024 * 1024
"""Bytes of a response that a client reads, because many tasks share its process."""


class AsyncBrowserActClient(AbstractAsyncContextManager["AsyncBrowserActClient"]):
    """Send calls with ``httpx`` over one connection pool, without blocking the event loop, in an ``async with``.

    It builds only what the results of the calls declare, and reads at most ``MAX_RESPONSE`` bytes of a response.

    :param settings: as for :class:`~airflow_provider_browseract.api.client.BrowserActClient`; a function is awaited.
    :param refused: called when BrowserAct has refused the API key. Default: nothing is called.
    :param shown: returns what the caller may see of a result. Default: everything.
    """

    def __init__(
        self,
        settings: Settings | Callable[[], Awaitable[Settings]],
        *,
        refused: Callable[[], object] = lambda: None,
        shown: Callable[[Any], Any] = lambda result: result,
    ) -> None:
        self._given = settings
        self._refused = refused
        self._shown = shown
        self._http: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def __aexit__(self, *error: object) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def _pool(self) -> httpx.AsyncClient:
        # If the certificates cannot be read, only the call fails.
        async with self._opening:
            self._http = self._http or await self._open()
        return self._http

    async def _settings(self) -> Settings:
        return await self._given() if callable(self._given) else self._given

    async def _open(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            # A few compressed bytes can expand to very many.
            headers={"Accept-Encoding": "identity"},
            verify=await asyncio.to_thread(_ssl_context),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE),
            follow_redirects=False,
        )

    async def send(self, call: Call[T]) -> T:
        """Send a call."""
        refuse_while_parsing(call)
        settings = await self._settings()
        retrying = tenacity.AsyncRetrying(**controls(call, settings))
        try:
            received: Any = await retrying(self._send_once, call)
        except AuthenticationError:
            if call.starts_run or (await self._settings()).api_key == settings.api_key:
                raise
            received = await retrying(self._send_once, call)
        result: T = self._shown(received)
        return result

    async def _send_once(self, call: Call[T]) -> T:
        settings, progress, http = await self._settings(), _Progress(), await self._pool()
        with completing(settings, self._refused):
            try:
                async with http.stream(
                    call.method,
                    settings.base_url + call.path,
                    params=dict(call.params),
                    json=call.body,
                    headers={"Authorization": f"Bearer {settings.api_key}", "User-Agent": settings.user_agent},
                    timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout),
                    extensions={"trace": progress.note},
                ) as streamed:
                    content = bytearray()
                    async for chunk in streamed.aiter_bytes():
                        content += chunk
                        if len(content) > MAX_RESPONSE:
                            what = f"The response to {call.name} is larger than {MAX_RESPONSE} bytes"
                            raise ResponseTooLargeError(what, http_status=streamed.status_code)
            # httpx does not wrap a TLS error that occurs after the handshake.
            except (httpx.HTTPError, OSError) as error:
                never_sent = httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError
                failed = not_connected if isinstance(error, never_sent) or progress.opening_tunnel else lost
                raise failed(call, settings, error) from None
            return call.read(streamed.status_code, bytes(content), streamed.headers, shared=True)


class _Progress:
    """Track which request a connection of httpx has begun to send last."""

    opening_tunnel = False

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle an event of httpcore's ``trace`` extension."""
        if event.endswith("send_request_headers.started"):
            self.opening_tunnel = getattr(info.get("request"), "method", None) == b"CONNECT"


@cache
def _ssl_context() -> ssl.SSLContext:
    # Reading the certificates blocks long enough to delay other triggers, and a copy takes about 500 KiB. So this is
    # done once per process, in a thread.
    certificates = trusted_certificates()
    if certificates is None:
        return httpx.create_ssl_context()
    place: Any = {"capath" if os.path.isdir(certificates) else "cafile": certificates}
    return ssl.create_default_context(**place)
