"""Fetch a file of a run from a host that is not BrowserAct's API.

Web pages choose these addresses, so each one is checked before a request is sent to it. What the host sends is only
taken for the file if something shows that it is complete.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.util import parse_url

from airflow_provider_browseract.api.failures import trusted_certificates
from airflow_provider_browseract.runs.addresses import is_private

if TYPE_CHECKING:
    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.results.files import RunFile

MAX_REDIRECTS = 5
"""How many redirects are followed per file."""

MAX_FILE_SIZE = 256 * 2**20
"""Bytes that a file may have. BrowserAct itself allows 50 MB."""

MAX_RUN_SIZE = 5 * 2**30
"""Bytes that all files of a run may have together. BrowserAct itself allows 100 files of 50 MB."""

TOO_LARGE = f"it exceeds {MAX_FILE_SIZE >> 20} MiB, or all files of the run together {MAX_RUN_SIZE >> 30} GiB"

CHUNK_SIZE = 16 * 1024
"""Bytes that are read at a time. Decompressed, they may have a thousand times that size."""

THREAD = "browseract-files"
"""Name of the thread in which files are fetched."""


class FileError(Exception):
    """A file could not be fetched or written. The message contains the reason, but not the address.

    :param expired: the link may have expired.
    :param temporary: the same request may succeed a little later.
    """

    def __init__(self, why: str, *, expired: bool = False, temporary: bool = False) -> None:
        super().__init__(why)
        self.expired, self.temporary = expired, temporary


class Stopped(BaseException):
    """The file is not waited for any more. This is no error of the file, so no handler of errors must catch it."""


class FileSession(requests.Session):
    """A session for the hosts of files. It has no API key, follows no redirect, and sends nothing to a private address.

    :param settings: the timeouts, and the address of the API. Only its host may be private, and only at its own port,
        because a web page can name any port.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        #: Ends the download when it is set and the next bytes arrive.
        self.stop = threading.Event()
        self._timeout = settings.connect_timeout, settings.read_timeout
        # With a content coding, Content-Length would not be the size of the file.
        self.headers.update({"User-Agent": settings.user_agent, "Accept-Encoding": "identity"})
        # Do not send credentials from ~/.netrc either.
        self.auth = lambda request: request
        self.verify = trusted_certificates() or True
        # A proxy uses its own pools: it connects, and resolves names.
        self._public = HTTPAdapter()
        pools = self._public.poolmanager
        pools.pool_classes_by_scheme = {kind: _public(pool) for kind, pool in pools.pool_classes_by_scheme.items()}
        self.mount("http://", self._public)
        self.mount("https://", self._public)
        self.mount(urljoin(settings.base_url, "/"), HTTPAdapter())
        # These log the addresses that are requested.
        for name in ("connectionpool", "connection", "util.retry"):
            logging.getLogger(f"urllib3.{name}").addFilter(_is_not_of_a_file)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None, because requests would read the whole body of a redirect, however long it is."""

    def fetch(self, file: RunFile, write: Callable[[bytes], object], left: int) -> int:
        """Fetch a file, write its content in pieces, and return its size.

        :param left: bytes that the run may still have.
        :raises FileError: the file cannot be fetched, may not be complete, or its address is not allowed.
        :raises Stopped: the file is not waited for any more.
        """
        received = 0
        try:
            with self._open(file.url or "") as response:
                announced = _announced_size(file, response)
                for chunk in response.iter_content(CHUNK_SIZE):
                    received += len(chunk)
                    if self.stop.is_set():
                        raise Stopped
                    if (announced or received) > min(MAX_FILE_SIZE, left):
                        raise FileError(TOO_LARGE)
                    if announced is not None and received > announced:
                        raise FileError(f"it is larger than the {announced} bytes that were announced")
                    write(chunk)
        except requests.RequestException as error:
            # The text of the error contains the address, which is secret.
            why = f"its host cannot be reached or closed the connection ({type(error).__name__})"
            raise FileError(why, temporary=True) from None
        # urllib3 1.26 takes a body that ends too early for a whole one.
        if announced not in (None, received) or _length(response) not in (None, response.raw.tell()):
            raise FileError(f"its host closed the connection after {received} bytes, too early", temporary=True)
        return received

    def _open(self, url: str) -> requests.Response:
        """Request a file, and return the response. Each redirect is checked before it is followed."""
        before = ""
        for _ in range(MAX_REDIRECTS + 1):
            if self.stop.is_set():
                raise Stopped
            request = self._prepare(url, before)
            before = request.url or ""
            send = self.merge_environment_settings(before, {}, True, self.verify, None)
            response = self.send(request, allow_redirects=False, timeout=self._timeout, **send)
            if not response.is_redirect:
                return response
            response.close()
            url = response.headers["location"]
        raise FileError(f"its address was redirected more than {MAX_REDIRECTS} times")

    def _prepare(self, url: str, before: str) -> requests.PreparedRequest:
        """Return the prepared request after checking the address that it will use.

        :param before: the address that was redirected to it, if any.
        """
        odd = "\\" in url or not url.isprintable() or any(char.isspace() for char in url)
        try:
            request = self.prepare_request(requests.Request("GET", urljoin(before, url)))
            parts = parse_url(request.url or "")
        except (requests.RequestException, ValueError):
            odd = True
        if odd or parts.scheme not in ("http", "https") or not parts.host:
            raise FileError("its address is not an http or https address")
        if before.startswith("https:") and parts.scheme != "https":
            raise FileError("its address was redirected from https to another scheme")
        if parts.auth is not None:
            raise FileError("its address has a user name or a password")
        if self.get_adapter(request.url or "") is self._public and is_private(parts.host.strip("[]")):
            raise FileError(f"its address points to the private host {parts.host}")
        return request


class _PublicConnection(HTTPConnection):
    """A connection that sends nothing to a private address. Mixed into each class of connections that urllib3 uses."""

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        if is_private(str(connection.getpeername()[0])):
            connection.close()
            raise FileError(f"its address points to the private host {self.host}")
        return connection


def _public(pool: Any) -> Any:
    connection = type("Connection", (_PublicConnection, pool.ConnectionCls), {})
    return type("Pool", (pool,), {"ConnectionCls": connection})


def _is_not_of_a_file(record: logging.LogRecord) -> bool:
    # The addresses are secret.
    return threading.current_thread().name != THREAD


def _length(response: requests.Response) -> int | None:
    """Return the number of bytes that follow the headers, if their host announced it."""
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() and not response.raw.chunked else None


def _announced_size(file: RunFile, response: requests.Response) -> int | None:
    """Return the announced size of the file, or None if only its end will show that it is complete.

    :raises FileError: the response is not the file, or nothing would show that it is complete.
    """
    status = response.status_code
    if status != 200:
        why, expired = f"its host responded with HTTP {status}", status in (401, 403, 404, 410)
        raise FileError(why, expired=expired, temporary=status >= 500 or status in (408, 429))
    length = _length(response)
    coding = response.headers.get("content-encoding", "identity").lower()
    if coding not in ("identity", *response.raw.CONTENT_DECODERS):
        raise FileError(f"its host sent it with the content coding {coding[:20]!r}, which this worker cannot decode")
    # With a content coding, Content-Length is the compressed size.
    announced = length if coding == "identity" else None
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_page = media_type in ("text/html", "application/xhtml+xml") and (announced is None or announced != file.size)
    if is_page and not file.name.lower().endswith((".html", ".htm", ".xhtml")):
        raise FileError("its host responded with a web page", expired=True)
    if None not in (announced, file.size) and announced != file.size:
        raise FileError(f"its host announced {announced} bytes, but BrowserAct announced {file.size}")
    if file.size is None and length is None and not response.raw.chunked:
        raise FileError("neither BrowserAct nor its host announced its size", temporary=True)
    return file.size if announced is None else announced
