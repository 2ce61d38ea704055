"""The two clients: they carry calls, and everything else is decided elsewhere.

Redirects are not followed, since the API has none and the key must not travel. Credentials in ``~/.netrc`` are not
used; proxy variables of the environment are.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import TracebackType
from typing import Any, TypeVar

import httpx
import requests
import tenacity
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from airflow_provider_browseract import __version__
from airflow_provider_browseract.api.calls import Answer, Call, next_page
from airflow_provider_browseract.api.errors import (
    AnswerLostError,
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
)
from airflow_provider_browseract.api.models import Page
from airflow_provider_browseract.api.retries import RetryPolicy

T = TypeVar("T")

DEFAULT_BASE_URL = "https://api.browseract.com"

MAX_CONNECTIONS = 10
"""Connections that an asynchronous client opens at most; further calls wait for one."""

KEEP_ALIVE = 30.0
"""Seconds for which an asynchronous client keeps a connection that is not used.

Longer than the usual pause between two polls, or each of them would begin with a TLS handshake, which blocks the event
loop for milliseconds. (One client for all triggers would keep fewer connections, but its pool looks at every one of
them for each request: with 500 triggers the loop then stood still for tens of milliseconds.)
"""


@dataclass(frozen=True)
class ClientSettings:
    """What both clients need to know.

    :param api_key: BrowserAct API key; kept out of ``repr``.
    :param base_url: address of the API without the version.
    :param connect_timeout: seconds to wait for a connection.
    :param read_timeout: seconds to wait for the next bytes of an answer.
    :param retries: how a call is tried again.
    :param user_agent: who is calling.
    :param connection: id of the Airflow connection that the settings come from, for error messages.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    user_agent: str = f"airflow-provider-browseract/{__version__}"
    connection: str | None = None

    @property
    def longest_call(self) -> float:
        """Seconds that a call can take with all its tries, as far as it is not slowed down byte by byte.

        The last try may be two requests: one with a refused API key, and one with the key that replaced it.
        """
        return self.retries.budget + 2 * (self.connect_timeout + self.read_timeout)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request, without the key."""
        return {"User-Agent": self.user_agent, "Accept": "application/json"}


class BrowserActClient:
    """Carries calls with ``requests`` over one connection pool.

    :param settings: where to, as whom, and how patiently.
    :param renew: returns the settings anew when BrowserAct refuses the API key. If they have another key, the client
        uses them from then on and sends the call once more. Default: a refused key is an error at once.
    """

    def __init__(self, settings: ClientSettings, *, renew: Callable[[], ClientSettings | None] | None = None) -> None:
        self.settings = settings
        self._renew = renew

    def __enter__(self) -> BrowserActClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def _session(self) -> requests.Session:
        session = requests.Session()
        session.headers.update(self.settings.headers)
        return session

    def close(self) -> None:
        """Close the connections; the client can be used again and opens new ones."""
        self._session.close()

    def send(self, call: Call[T]) -> T:
        """Carry a call, again if the policy says so.

        :param call: a value from :mod:`airflow_provider_browseract.api.calls`.
        :returns: what the call's reader makes of the answer.
        :raises BrowserActError: the class says what a user can do about it.
        """
        try:
            answer: T = tenacity.Retrying(**self.settings.retries.controls(call))(self._send_with_valid_key, call)
        except BrowserActError as error:
            error.connection = self.settings.connection
            raise
        return answer

    def iter_items(self, call: Call[Page[T]]) -> Iterator[T]:
        """Give the items of a list call, page after page.

        :param call: the call for the first page.
        """
        following: Call[Page[T]] | None = call
        while following is not None:
            page = self.send(following)
            yield from page.items
            following = next_page(following, page)

    def _send_with_valid_key(self, call: Call[T]) -> T:
        key = self.settings.api_key
        try:
            return self._send_once(call)
        except AuthenticationError as error:
            if not _may_renew(call, error):
                raise
            renewed = self._renew() if self._renew is not None else None
            if renewed is None or renewed.api_key == key:
                raise
            self.settings = renewed
        return self._send_once(call)

    def _send_once(self, call: Call[T]) -> T:
        try:
            response = self._session.request(
                call.method,
                self.settings.base_url + call.path,
                params=dict(call.params),
                json=call.body,
                auth=_RequestsBearer(self.settings.api_key),
                timeout=(self.settings.connect_timeout, self.settings.read_timeout),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise _requests_error(call, self.settings, error) from None
        headers = {name.lower(): value for name, value in response.headers.items()}
        return call.read_answer(Answer(response.status_code, headers, response.content))


class AsyncBrowserActClient:
    """Carries calls with ``httpx`` over one connection pool; nothing in it blocks the event loop.

    :param settings: where to, as whom, and how patiently.
    :param renew: as for :class:`BrowserActClient`, but awaited.
    """

    def __init__(
        self, settings: ClientSettings, *, renew: Callable[[], Awaitable[ClientSettings | None]] | None = None
    ) -> None:
        self.settings = settings
        self._renew = renew
        self._opened: httpx.AsyncClient | None = None

    async def __aenter__(self) -> AsyncBrowserActClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            self._opened = httpx.AsyncClient(
                headers=self.settings.headers,
                timeout=httpx.Timeout(self.settings.read_timeout, connect=self.settings.connect_timeout),
                verify=await asyncio.to_thread(_ssl_context),
                limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE),
                follow_redirects=False,
            )
        return self._opened

    async def aclose(self) -> None:
        """Close the connections; the client can be used again and opens new ones."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()

    async def send(self, call: Call[T]) -> T:
        """Carry a call; as :meth:`BrowserActClient.send`."""
        try:
            return await tenacity.AsyncRetrying(**self.settings.retries.controls(call))(self._send_with_valid_key, call)
        except BrowserActError as error:
            error.connection = self.settings.connection
            raise

    async def iter_items(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Give the items of a list call, page after page; as :meth:`BrowserActClient.iter_items`."""
        following: Call[Page[T]] | None = call
        while following is not None:
            page = await self.send(following)
            for item in page.items:
                yield item
            following = next_page(following, page)

    async def _send_with_valid_key(self, call: Call[T]) -> T:
        key = self.settings.api_key
        try:
            return await self._send_once(call)
        except AuthenticationError as error:
            if not _may_renew(call, error):
                raise
            # Another call may have renewed the settings while this one was under way.
            if self.settings.api_key == key:
                renewed = await self._renew() if self._renew is not None else None
                if renewed is None or renewed.api_key == key:
                    raise
                self.settings = renewed
        return await self._send_once(call)

    async def _send_once(self, call: Call[T]) -> T:
        client = await self._client()
        try:
            response = await client.request(
                call.method,
                self.settings.base_url + call.path,
                params=dict(call.params),
                json=call.body,
                auth=_HttpxBearer(self.settings.api_key),
            )
        except httpx.HTTPError as error:
            raise _httpx_error(call, self.settings, error) from None
        return call.read_answer(Answer(response.status_code, response.headers, response.content))


def _may_renew(call: Call[Any], error: AuthenticationError) -> bool:
    """Say whether a call may be sent once more with another key; a start only if it surely was not carried out."""
    return error.not_processed or not call.starts_run


@cache
def _ssl_context() -> ssl.SSLContext:
    # Reading the certificates blocks for long enough to be felt by other triggers, and a copy takes some 500 KiB:
    # so once a process, in a thread.
    return httpx.create_ssl_context()


class _RequestsBearer(AuthBase):
    """Sets the key as requests' own authentication, or it would be replaced by an entry in ~/.netrc."""

    def __init__(self, api_key: str) -> None:
        self.api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.api_key}"
        return request


class _HttpxBearer(httpx.Auth):
    def __init__(self, api_key: str) -> None:
        self.api_key = api_key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self.api_key}"
        yield request


def _requests_error(call: Call[Any], settings: ClientSettings, error: requests.RequestException) -> BrowserActError:
    # urllib3 keeps what happened in `reason`, and behind a proxy, where it calls a reset a proxy error too, in
    # `original_error`. Only these surely came before the request was sent.
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    reason = getattr(reason, "original_error", reason)
    handshake = isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(reason)
    never_sent = handshake or isinstance(reason, ConnectTimeoutError | NewConnectionError)
    return _transport_error(call, settings, never_sent, reason or error)


def _httpx_error(call: Call[Any], settings: ClientSettings, error: httpx.HTTPError) -> BrowserActError:
    never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError)
    return _transport_error(call, settings, never_sent, error)


def _transport_error(
    call: Call[Any], settings: ClientSettings, never_sent: bool, cause: BaseException
) -> BrowserActError:
    # Only the kind is named: the text of these exceptions can hold addresses with query and object references.
    kind = type(cause).__name__
    if never_sent:
        return ConnectionFailedError(f"No connection to {settings.base_url} for {call.name} ({kind})")
    return AnswerLostError(f"{settings.base_url} gave no whole answer to {call.name} ({kind})")
