"""The client of workers.

The clients do not follow redirects, because the API has none and the key must not be sent to another host. They use the
proxy variables of the environment, but not the credentials in ``~/.netrc``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, TypeVar

import requests
import tenacity
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from airflow_provider_browseract.api.calls import Call, controls, refuse_while_parsing
from airflow_provider_browseract.api.failures import completing, lost, not_connected, trusted_certificates
from airflow_provider_browseract.api.models import Page
from airflow_provider_browseract.api.pages import Pages
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.exceptions import AuthenticationError, BrowserActError

T = TypeVar("T")


class BrowserActClient(AbstractContextManager["BrowserActClient"]):
    """Send calls with ``requests`` over one connection pool.

    :param settings: address, API key, timeouts and retries; or a function that returns them for each call.
    :param refused: called when BrowserAct has refused the API key. Default: nothing is called.
    :param shown: returns what the caller may see of a result. Default: everything.
    :param warn: the method of a logger that is called when the first try of a call has failed and others follow.
        Default: no line is written.
    """

    def __init__(
        self,
        settings: Settings | Callable[[], Settings],
        *,
        refused: Callable[[], object] = lambda: None,
        shown: Callable[[Any], Any] = lambda result: result,
        warn: Callable[..., Any] | None = None,
    ) -> None:
        self._settings = settings if callable(settings) else lambda: settings
        self._refused = refused
        self._shown = shown
        self._warn = warn

    def __exit__(self, *error: object) -> None:
        if "_session" in vars(self):
            self._session.close()

    @cached_property
    def _session(self) -> requests.Session:
        session = requests.Session()
        # requests reads the target of a redirect even without following it.
        session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
        session.verify = trusted_certificates() or True
        session.mount("https://", _Adapter())
        session.headers["User-Agent"] = self._settings().user_agent
        return session

    def send(self, call: Call[T], *, before: Callable[[], object] = lambda: None) -> T:
        """Send a call, with retries as the policy says.

        :param before: called right before each request; its exception ends the call. Default: nothing is called.
        :raises BrowserActError: the call failed. The class depends on what a user can do about it.
        """
        refuse_while_parsing(call)
        settings = self._settings()
        retrying = tenacity.Retrying(**controls(call, settings, self._warn))
        try:
            received = retrying(self._send_once, call, before)
        except AuthenticationError:
            # Someone may have replaced the key. Before a start is sent again, its caller checks everything again.
            if call.starts_run or self._settings().api_key == settings.api_key:
                raise
            received = retrying(self._send_once, call, before)
        result: T = self._shown(received)
        return result

    def iter_items(self, call: Call[Page[T]]) -> Iterator[T]:
        """Iterate over the items of a list call, page by page, each item once.

        :raises BrowserActError: as :meth:`send`; or the pages contradict each other.
        """
        pages = Pages(call)
        while pages.call is not None:
            yield from pages.take(self.send(pages.call))

    def _send_once(self, call: Call[T], before: Callable[[], object]) -> T:
        settings = self._settings()
        before()
        with completing(settings, self._refused):
            try:
                response = self._session.request(
                    call.method,
                    settings.base_url + call.path,
                    params=dict(call.params),
                    json=call.body,
                    headers={"Authorization": f"Bearer {settings.api_key}"},
                    # Otherwise an entry in ~/.netrc would replace the key.
                    auth=lambda request: request,
                    timeout=(settings.connect_timeout, settings.read_timeout),
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                raise _error_of(call, settings, error) from None
            return call.read(response.status_code, response.content, response.headers)


class _HttpsConnection(HTTPSConnection):
    """Distinguish failures to connect, which happen before the request is sent, from later failures.

    urllib3 does so only for TCP. For urllib3, a failed TLS handshake or CONNECT request to a proxy looks like a
    response that cannot be read.
    """

    def connect(self) -> None:
        try:
            super().connect()
        except (ConnectTimeoutError, NewConnectionError):
            raise
        except Exception as error:
            raise NewConnectionError(self, type(error).__name__) from error


class _Adapter(HTTPAdapter):
    """The adapter of requests with :class:`_HttpsConnection`, also behind a proxy."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        # A SOCKS proxy has its own connection class. Its failures count as lost responses.
        if pool.ConnectionCls is HTTPSConnection:
            pool.ConnectionCls = _HttpsConnection
        return pool


def _error_of(call: Call[Any], settings: Settings, error: requests.RequestException) -> BrowserActError:
    # urllib3 stores the cause in `reason`. Behind a proxy, where it also reports a reset as a proxy error, the cause is
    # in `original_error`. Only the causes below certainly occurred before the request was sent.
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    reason = getattr(reason, "original_error", reason)
    if isinstance(reason, ConnectTimeoutError | NewConnectionError):
        return not_connected(call, settings, reason)
    return lost(call, settings, reason or error)
