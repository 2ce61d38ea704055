"""The two clients that send calls. All decisions are made elsewhere.

The clients do not follow redirects, because the API has none and the key must not be sent to another host. They use the
proxy variables of the environment, but not the credentials in ``~/.netrc``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from functools import cache, cached_property
from types import TracebackType
from typing import Any, TypeVar

import httpx
import requests
import tenacity
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import Page
from airflow_provider_browseract.api.pages import Pages
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.exceptions import (
    THE_CONNECTION,
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
    ResponseLostError,
    ResponseTooLargeError,
    UnexpectedResponseError,
)

T = TypeVar("T")

MAX_CONNECTIONS = 10
"""Maximum number of connections that an asynchronous client opens. Further calls wait for one."""

KEEP_ALIVE = 30.0
"""Seconds for which an asynchronous client keeps an idle connection.

This is longer than the usual pause between two polls. Otherwise each poll would begin with a TLS handshake, which
blocks the event loop for milliseconds. (One client for all triggers would keep fewer connections, but its pool checks
all of them for each request. With 500 triggers, this blocked the event loop for tens of milliseconds.)
"""

MAX_RESPONSE = 8 * 1024 * 1024
"""Bytes of a response that an asynchronous client reads, because many tasks share its process."""

PLAIN_HTTP_REASONS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"})
"""Reasons that OpenSSL reports if a server does not use TLS, depending on the first bytes of its response."""

PLAIN_HTTP = f"If the host does not use HTTPS, write http:// in front of the host of {THE_CONNECTION}."
UNTRUSTED = (
    f"Check the host of {THE_CONNECTION} (field API address). If a private authority issued the certificate, set "
    "REQUESTS_CA_BUNDLE on workers, triggerers and API servers to a file with all certificates to trust, also the "
    "public ones."
)
"""The remedies of errors of TLS."""


class BrowserActClient:
    """Send calls with ``requests`` over one connection pool.

    :param settings: address, API key, timeouts and retries; or a function that returns them for each call.
    :param refused: called when BrowserAct has refused the API key. Default: nothing is called.
    :param shown: returns what the caller may see of a result. Default: everything.
    :param warn: the method of a logger that is called when the first try of a call has failed and others follow.
        Default: no line is written.
    """

    def __init__(
        self,
        settings: ClientSettings | Callable[[], ClientSettings],
        *,
        refused: Callable[[], object] = lambda: None,
        shown: Callable[[Any], Any] = lambda result: result,
        warn: Callable[..., Any] | None = None,
    ) -> None:
        self._settings = settings if callable(settings) else lambda: settings
        self._refused = refused
        self._shown = shown
        self._warn = warn

    def __enter__(self) -> BrowserActClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def _session(self) -> requests.Session:
        session = _Session()
        session.verify = trusted_certificates() or True
        session.mount("https://", _Adapter())
        session.headers.update(self._settings().headers)
        return session

    def close(self) -> None:
        """Close the connections. The client can still be used and then opens new ones."""
        if "_session" in vars(self):
            self._session.close()

    def send(self, call: Call[T]) -> T:
        """Send a call, with retries as the policy says.

        :raises BrowserActError: the call failed. The class depends on what a user can do about it.
        """
        settings = self._settings()
        try:
            received = self._send_with_retries(call, settings)
        except AuthenticationError:
            # Someone may have replaced the key. Before a start is sent again, its caller checks everything again.
            if call.starts_run or (renewed := self._settings()).api_key == settings.api_key:
                raise
            received = self._send_with_retries(call, renewed)
        result: T = self._shown(received)
        return result

    def _send_with_retries(self, call: Call[T], settings: ClientSettings) -> T:
        try:
            received: T = tenacity.Retrying(**settings.retries.controls(call, self._warn))(self._send_once, call)
        except BrowserActError as error:
            _complete(error, settings, self._refused)
            raise
        return received

    def iter_items(self, call: Call[Page[T]]) -> Iterator[T]:
        """Iterate over the items of a list call, page by page, each item once.

        :raises BrowserActError: as :meth:`send`; or the pages contradict each other, or none of the items can be read.
        """
        pages = Pages(call)
        while pages.call is not None:
            with pages.dividing():
                yield from pages.take(self.send(pages.call))

    def _send_once(self, call: Call[T]) -> T:
        settings = self._settings()
        try:
            response = self._session.request(
                call.method,
                settings.base_url + call.path,
                params=dict(call.params),
                json=call.body,
                auth=_RequestsBearer(settings.api_key),
                timeout=(settings.connect_timeout, settings.read_timeout),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise _requests_error(call, settings, error) from None
        return call.read(response.status_code, response.content, response.headers)


class AsyncBrowserActClient:
    """Send calls with ``httpx`` over one connection pool, without blocking the event loop.

    It builds only what the results of the calls declare, and reads at most ``MAX_RESPONSE`` bytes of a response.

    :param settings: as for :class:`BrowserActClient`; a function is awaited.
    :param refused: as for :class:`BrowserActClient`.
    """

    def __init__(
        self,
        settings: ClientSettings | Callable[[], Awaitable[ClientSettings]],
        *,
        refused: Callable[[], object] = lambda: None,
    ) -> None:
        self._given = settings
        self._refused = refused
        self._opened: httpx.AsyncClient | None = None

    async def __aenter__(self) -> AsyncBrowserActClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _settings(self) -> ClientSettings:
        return await self._given() if callable(self._given) else self._given

    async def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            headers, context = (await self._settings()).headers, await asyncio.to_thread(_ssl_context)
            # Several first calls may have waited for the context. Nothing is awaited from here on, so only one of them
            # opens the client.
            if self._opened is None:
                self._opened = httpx.AsyncClient(
                    headers=headers,
                    verify=context,
                    limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE),
                    follow_redirects=False,
                )
        return self._opened

    async def aclose(self) -> None:
        """Close the connections. The client can still be used and then opens new ones."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send a call; as :meth:`BrowserActClient.send`."""
        settings = await self._settings()
        try:
            return await self._send_with_retries(call, settings)
        except AuthenticationError:
            if call.starts_run or (renewed := await self._settings()).api_key == settings.api_key:
                raise
            return await self._send_with_retries(call, renewed)

    async def _send_with_retries(self, call: Call[T], settings: ClientSettings) -> T:
        try:
            return await tenacity.AsyncRetrying(**settings.retries.controls(call))(self._send_once, call)
        except BrowserActError as error:
            _complete(error, settings, self._refused)
            raise

    async def iter_items(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Iterate over the items of a list call, page by page; as :meth:`BrowserActClient.iter_items`."""
        pages = Pages(call)
        while pages.call is not None:
            with pages.dividing():
                for item in pages.take(await self.send(pages.call)):
                    yield item

    async def _send_once(self, call: Call[T]) -> T:
        client, settings, progress = await self._client(), await self._settings(), _Progress()
        try:
            async with client.stream(
                call.method,
                settings.base_url + call.path,
                params=dict(call.params),
                json=call.body,
                auth=_HttpxBearer(settings.api_key),
                timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout),
                # A few compressed bytes can expand to very many.
                headers={"Accept-Encoding": "identity"},
                extensions={"trace": progress.note},
            ) as streamed:
                content = bytearray()
                async for chunk in streamed.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_RESPONSE:
                        raise ResponseTooLargeError(
                            f"The response to {call.name} is larger than {MAX_RESPONSE} bytes",
                            http_status=streamed.status_code,
                        )
        # httpx does not wrap a TLS error that occurs after the handshake.
        except (httpx.HTTPError, OSError) as error:
            raise _httpx_error(call, settings, error, progress) from None
        return call.read(streamed.status_code, bytes(content), streamed.headers, shared=True)


class _Progress:
    """Track which request a connection of httpx has begun to send last."""

    def __init__(self) -> None:
        self.opening_tunnel = False

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle an event of httpcore's ``trace`` extension."""
        if event.endswith("send_request_headers.started"):
            self.opening_tunnel = getattr(info.get("request"), "method", None) == b"CONNECT"


class _NotConnectedError(NewConnectionError):
    """A connection that failed while it was opened: in the TLS handshake, or in the CONNECT request to a proxy."""


class _Session(requests.Session):
    """A session that ignores the target of a redirect. requests would read it even without following it."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _HttpsConnection(HTTPSConnection):
    """Distinguish failures to connect, which happen before the request is sent, from later failures.

    urllib3 does so only for TCP. For urllib3, a failed TLS handshake looks like a response that cannot be read.
    """

    def connect(self) -> None:
        try:
            super().connect()
        except (ConnectTimeoutError, NewConnectionError):
            raise
        except Exception as error:
            raise _NotConnectedError(self, type(error).__name__) from error


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    """The adapter of requests with :class:`_HttpsConnection` for each address that begins with ``https://``."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _use_https_pool(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        _use_https_pool(manager)
        return manager


def _use_https_pool(manager: Any) -> None:
    classes = manager.pool_classes_by_scheme
    # A SOCKS proxy has its own connection class. Its failures count as lost responses.
    if classes["https"] is HTTPSConnectionPool:
        manager.pool_classes_by_scheme = {**classes, "https": _HttpsPool}


def _complete(error: BrowserActError, settings: ClientSettings, refused: Callable[[], object]) -> None:
    error.connection = settings.connection
    if isinstance(error, AuthenticationError):
        refused()
    if isinstance(error, UnexpectedResponseError):
        error.message = f"{error.message} (API address {settings.base_url})"


@cache
def _ssl_context() -> ssl.SSLContext:
    # Reading the certificates blocks long enough to delay other triggers, and a copy takes about 500 KiB. So this is
    # done once per process, in a thread.
    certificates = trusted_certificates()
    if certificates is None:
        return httpx.create_ssl_context()
    is_folder = os.path.isdir(certificates)
    return ssl.create_default_context(
        cafile=None if is_folder else certificates, capath=certificates if is_folder else None
    )


def trusted_certificates() -> str | None:
    """Return the file or folder of certificates that the environment names, or None for those of certifi.

    requests reads two of the variables and httpx the other two. A worker and a triggerer with the same environment
    would therefore trust different hosts.
    """
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
    return next((path for path in map(os.environ.get, names) if path), None)


class _RequestsBearer(AuthBase):
    """Set the key as authentication of requests. Otherwise an entry in ~/.netrc would replace it."""

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
    # urllib3 stores the cause in `reason`. Behind a proxy, where it also reports a reset as a proxy error, the cause is
    # in `original_error`. Only the causes below certainly occurred before the request was sent.
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    reason = getattr(reason, "original_error", reason)
    if isinstance(reason, ConnectTimeoutError | NewConnectionError):
        return _not_connected(call, settings, reason)
    return _lost(call, settings, reason or error)


def _httpx_error(
    call: Call[Any], settings: ClientSettings, error: httpx.HTTPError | OSError, progress: _Progress
) -> BrowserActError:
    never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError)
    if never_sent or progress.opening_tunnel:
        return _not_connected(call, settings, error)
    return _lost(call, settings, error)


def _lost(call: Call[Any], settings: ClientSettings, error: BaseException) -> ResponseLostError:
    # Only the class is named, because the text of these exceptions can contain addresses with queries.
    kind = type(error).__name__
    return ResponseLostError(f"No complete response to {call.name} from {settings.base_url} ({kind})")


def _not_connected(call: Call[Any], settings: ClientSettings, error: BaseException) -> ConnectionFailedError:
    """Return the error of a connection that could not be opened, with the reason of TLS, if any."""
    causes = list(_causes(error))
    failure = f"No connection to {settings.base_url} for {call.name}"
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if isinstance(tls, ssl.SSLCertVerificationError):
        what = f"{failure}: its certificate is not trusted ({tls.verify_message})"
        return ConnectionFailedError(what, remedy=UNTRUSTED, temporary=False)
    if tls is not None and tls.reason in PLAIN_HTTP_REASONS:
        what = f"{failure}: the host uses plain HTTP, not HTTPS"
        return ConnectionFailedError(what, remedy=PLAIN_HTTP, temporary=False)
    if tls is not None:
        return ConnectionFailedError(f"{failure}: the TLS handshake failed ({tls.reason or type(tls).__name__})")
    known = [cause for cause in causes if not isinstance(cause, _NotConnectedError)]
    # The text of any other exception can contain addresses with queries.
    texts = [_text_of(cause) for cause in causes if isinstance(cause, OSError)]
    return ConnectionFailedError(f"{failure}: {next(filter(None, texts), type((known or causes)[0]).__name__)}")


def _text_of(error: OSError) -> str | None:
    """Return the operating system's text for an error."""
    if isinstance(error, socket.gaierror):
        return f"the name of the host cannot be resolved ({error.strerror})"
    if isinstance(error, TimeoutError):
        return "timed out"
    return os.strerror(error.errno) if error.errno else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over an exception and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
