"""Fetch the files of a run from hosts that are not BrowserAct's API.

The addresses come from responses and redirects, so they are not trusted: every address is checked before a request is
sent to it, and each response is read in small pieces. Every byte from a socket, also of headers, counts towards the
limits for the size of a file and for the time that it takes.
"""

from __future__ import annotations

import io
import ipaddress
import logging
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPResponse, RemoteDisconnected
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, LocationParseError, NewConnectionError
from urllib3.util import Url, parse_url

from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.addresses import is_private

if TYPE_CHECKING:
    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.results.files import RunFile

PARALLEL_DOWNLOADS = 4
"""How many files are fetched at once."""

MAX_REDIRECTS = 5
"""How many redirects are followed per file."""

MAX_FILE_SIZE = 256 * 2**20
"""Bytes that a file may have. BrowserAct itself allows 50 MB."""

MOST_OVERHEAD = 1024 * 1024
"""Bytes that a response may have in addition to twice the size of a file: for headers, chunk sizes and compression."""

EXPIRED_STATUSES = frozenset({401, 403, 404, 410})
"""HTTP statuses with which hosts respond to an expired link."""

LEVELS_WITHOUT_ADDRESSES = {"urllib3.connectionpool": logging.INFO, "urllib3.connection": logging.ERROR}
"""urllib3's loggers that log addresses, one of them with a warning about malformed headers, and levels without them."""

CHUNK_SIZE = 256 * 1024
"""Bytes that are read, written or decompressed at a time."""

GZIP = 16 + zlib.MAX_WBITS
"""The format gzip, as zlib numbers it."""

CONTENT_CODINGS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": zlib.MAX_WBITS}
"""Content codings that some stores use although the request accepts none, with zlib's value for each."""


class FileError(Exception):
    """A file could not be fetched or written. The message contains the reason, but not the address.

    :param expired: the link may have expired.
    :param temporary: the same request may succeed a little later.
    """

    def __init__(self, why: str, *, expired: bool = False, temporary: bool = False) -> None:
        super().__init__(why)
        self.expired = expired
        self.temporary = temporary


class Interrupted(Exception):
    """The download was interrupted from outside."""


class RunSizeError(FileError):
    """A file did not fit within the limit for all files of a run. It may fit after failed files are deleted."""


class Allowance:
    """How many bytes a run may still have written.

    :param limit: bytes of all files of the run together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._left = limit
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Reserve bytes. They are reserved even if fewer are left, until :meth:`give_back` releases them.

        :raises RunSizeError: fewer bytes are left.
        """
        with self._lock:
            self._left -= size
            if self._left < 0:
                raise RunSizeError(f"the files of the run exceed the limit of {self.limit} bytes for a run")

    def give_back(self, size: int) -> None:
        """Release reserved bytes, because the written file was deleted."""
        with self._lock:
            self._left += size


class FileSession(requests.Session):
    """A session for the hosts of files. It has no API key, follows no redirect, and connects to no private address.

    :param settings: the timeouts, and the address of the API. Only its host may be private, and only if it is not
        BrowserAct's own.
    :param stop: ends all downloads when it is set. Close the session after that: otherwise, a download ends when the
        next bytes arrive.
    """

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        from airflow_provider_browseract.api.failures import trusted_certificates
        from airflow_provider_browseract.api.settings import DEFAULT_BASE_URL

        super().__init__()
        self.settings = settings
        self.reading: set[socket.socket] = set()
        self._stop = stop
        # A thread fetches one file at a time.
        self._file = threading.local()
        own = parse_url(settings.base_url)
        is_default = own.host == parse_url(DEFAULT_BASE_URL).host
        self._own = None if is_default else (_bare(own.host or ""), _port_of(own))
        # With a content coding, Content-Length would not be the size of the file.
        self.headers.update({"User-Agent": settings.user_agent, "Accept-Encoding": "identity"})
        # Do not send credentials from ~/.netrc either.
        self.auth = lambda request: request
        self.verify = trusted_certificates() or True
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(self))

    def close(self) -> None:
        """Close all connections, also those from which other threads are reading."""
        super().close()
        for connection in list(self.reading):
            with suppress(OSError, AttributeError):
                connection.shutdown(socket.SHUT_RDWR)

    def seconds_left(self) -> float:
        """Return how many seconds the files may still take.

        :raises FileError: no time is left.
        :raises Interrupted: the downloads were stopped.
        """
        if self._stop.is_set():
            raise Interrupted
        left: float = self._file.deadline - time.monotonic()
        if left <= 0:
            raise FileError(f"all files together took longer than {timings.FILES_LIMIT:g} seconds", temporary=True)
        return left

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None, because requests would read the whole body of a redirect, however long it is."""

    @contextmanager
    def opened(self, file: RunFile, deadline: float) -> Iterator[tuple[Iterator[bytes], int | None]]:
        """Request a file, and yield its content in pieces of at most :data:`CHUNK_SIZE` bytes, and the announced size.

        :param deadline: when it must be complete, on the clock of ``time.monotonic``.
        :raises FileError: the file cannot be fetched, or its address is not allowed. Reading the content raises it too.
        :raises Interrupted: the downloads were stopped. Reading the content raises it too.
        """
        self._file.deadline = deadline
        url, encrypted = file.url or "", False
        try:
            for _ in range(MAX_REDIRECTS + 1):
                self.seconds_left()
                request = self._prepare(url)
                if encrypted and not (request.url or "").startswith("https:"):
                    raise FileError("its address was redirected from https to another scheme")
                encrypted = (request.url or "").startswith("https:")
                response = self.send(
                    request,
                    allow_redirects=False,
                    timeout=(self.settings.connect_timeout, self.settings.read_timeout),
                    **self.merge_environment_settings(request.url, {}, True, self.verify, None),
                )
                with closing(response):
                    if response.is_redirect:
                        url = _joined(request.url or "", response.headers["location"])
                        continue
                    yield self._content_of(response), _announced(file, response)
                    return
        except (requests.RequestException, HTTPError) as error:
            # The time limit of the file also ends a connection that is being opened.
            self.seconds_left()
            raise _broken_off(error) from None
        raise FileError(f"its address was redirected more than {MAX_REDIRECTS} times")

    def _content_of(self, response: requests.Response) -> Iterator[bytes]:
        """Read a response in pieces, with any content coding decoded."""
        coding = _coding(response)
        decode: Callable[[bytes], Iterable[bytes]] = (
            _decoder(coding) if coding else lambda chunk: [chunk] if chunk else []
        )
        try:
            while chunk := response.raw.read1(CHUNK_SIZE, decode_content=False):
                for piece in decode(chunk):
                    self.seconds_left()
                    yield piece
            yield from decode(b"")
        except HTTPError as error:
            raise _broken_off(error) from None
        except zlib.error:
            raise FileError(f"its content is not {coding}, although its host announced that coding") from None

    def _prepare(self, url: str) -> requests.PreparedRequest:
        """Return the prepared request after checking the address that it will use."""
        if "\\" in url or not url.isprintable() or any(char.isspace() for char in url):
            raise FileError("its address has characters that are not allowed in a URL")
        try:
            request = self.prepare_request(requests.Request("GET", url))
            parts = parse_url(request.url or "")
        except (requests.RequestException, LocationParseError, ValueError):
            raise FileError("its address is not an http or https address") from None
        if parts.scheme not in ("http", "https") or not parts.host:
            raise FileError("its address is not an http or https address")
        if parts.auth is not None:
            raise FileError("its address has a user name or a password")
        port = _port_of(parts)
        self.check_address(parts.host, port, parts.host)
        if self._uses_proxy(request.url or ""):
            # The proxy resolves the name itself, and may get other addresses than this machine.
            for address in _addresses_of(parts.host, port):
                self.check_address(parts.host, port, address)
        return request

    def _uses_proxy(self, url: str) -> bool:
        return bool(requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)))

    def check_address(self, host: str, port: int, address: str) -> None:
        """Check a host name, or an IP address that it resolves to, before a request is sent there.

        Only the host of the API may be private, and only at its own port, because a web page can name any port.
        """
        if (_bare(host), port) != self._own and is_private(address.strip("[]")):
            raise FileError(f"its address points to the private host {host}")


class _Adapter(HTTPAdapter):
    """Open only connections that obey the limits of a session and, without a proxy, lead to checked addresses.

    A proxy resolves names itself.
    """

    def __init__(self, session: FileSession) -> None:
        self._session = session
        super().__init__(pool_maxsize=PARALLEL_DOWNLOADS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pools with checked connections."""
        super().init_poolmanager(*args, **kwargs)
        self._limit(_CheckedConnection, self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> urllib3.PoolManager:
        """Return the pools of a proxy."""
        manager: urllib3.PoolManager = super().proxy_manager_for(*args, **kwargs)
        self._limit(_Connection, manager)
        return manager

    def _limit(self, connection: type[_Connection], manager: urllib3.PoolManager) -> None:
        def derived(pool: Any) -> Any:
            if issubclass(pool.ConnectionCls, _Connection):
                return pool
            with_limits = type("Connection", (connection, pool.ConnectionCls), {"session": self._session})
            return type("Pool", (pool,), {"ConnectionCls": with_limits})

        classes = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: derived(pool) for scheme, pool in classes.items()}


class _Connection(HTTPConnection):
    """A connection that obeys the limits of its session. Mixed into each class of connections that urllib3 uses."""

    session: ClassVar[FileSession]

    def _new_conn(self) -> socket.socket:
        self.timeout = min(self.session.settings.connect_timeout, self.session.seconds_left())
        connection = super()._new_conn()
        # A handshake of TLS follows, which takes at most the timeout of the socket.
        connection.settimeout(min(self.timeout, self.session.seconds_left()))
        return connection

    def response_class(self, connection: socket.socket, *args: Any, **kwargs: Any) -> HTTPResponse:  # type: ignore[override]
        """Return a response that obeys the limits of the session."""
        response = HTTPResponse(connection, *args, **kwargs)
        response.fp = _WholeLines(_LimitedBytes(response.fp.detach(), connection, self.session))
        return response


class _CheckedConnection(_Connection):
    """Resolve a host, check each of its addresses, and connect to a checked one."""

    def _new_conn(self) -> socket.socket:
        host = self._dns_host
        addresses = _addresses_of(host, self.port)
        if not addresses:
            # urllib3 would resolve the name again, and connect to an address that was not checked.
            raise NewConnectionError(self, f"Failed to resolve '{host}'")
        for address in addresses:
            self.session.check_address(self.host, self.port, address)
        try:
            for address in addresses[:-1]:
                self._dns_host = address
                try:
                    return super()._new_conn()
                except HTTPError:
                    continue
            self._dns_host = addresses[-1]
            return super()._new_conn()
        finally:
            # TLS needs the name.
            self._dns_host = host


class _LimitedBytes(io.RawIOBase):
    """The bytes from a socket, within the limits of a session."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, session: FileSession) -> None:
        self._raw, self._connection, self._session = raw, connection, session
        self._left = 2 * MAX_FILE_SIZE + MOST_OVERHEAD
        session.reading.add(connection)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(min(self._session.settings.read_timeout, self._session.seconds_left()))
        try:
            size = self._raw.readinto(buffer)
        finally:
            # The time limit or a stop may be why the bytes ended, and in a body this looks like its end.
            self._session.seconds_left()
        self._left -= size or 0
        if self._left < 0:
            raise FileError(f"its host sent more than twice the limit of {MAX_FILE_SIZE} bytes for a file")
        return size

    def close(self) -> None:
        self._session.reading.discard(self._connection)
        self._raw.close()
        super().close()


class _WholeLines(io.BufferedReader):
    """Refuse a line that breaks off.

    ``http.client`` would read on as if the headers had ended there, or as if the size of a chunk were complete.
    """

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise RemoteDisconnected("the connection was closed within a line")
        return line


def _broken_off(error: Exception) -> FileError:
    # The text of the error contains the address, which is secret.
    return FileError(f"its host cannot be reached or closed the connection ({type(error).__name__})", temporary=True)


def _decoder(coding: str) -> Callable[[bytes], Iterator[bytes]]:
    """Return a function that decodes content in pieces of limited size; ``b""`` marks the end.

    A few compressed bytes can expand to very many. The content can consist of several compressed streams.
    """
    stream = zlib.decompressobj(CONTENT_CODINGS[coding])

    def decode(chunk: bytes) -> Iterator[bytes]:
        nonlocal stream
        if not chunk and not stream.eof:
            raise FileError("its host closed the connection too early", temporary=True)
        while chunk:
            if stream.eof:
                stream = zlib.decompressobj(CONTENT_CODINGS[coding])
            yield stream.decompress(chunk, CHUNK_SIZE)
            chunk = stream.unconsumed_tail or stream.unused_data

    return decode


@contextmanager
def no_addresses_in_logs() -> Iterator[None]:
    """Prevent urllib3 from logging the addresses that it requests, because they are secret."""
    loggers = [(logging.getLogger(name), level) for name, level in LEVELS_WITHOUT_ADDRESSES.items()]
    before = [logger.level for logger, _ in loggers]
    for logger, level in loggers:
        logger.setLevel(max(logger.getEffectiveLevel(), level))
    try:
        yield
    finally:
        for (logger, _), level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _bare(host: str) -> str:
    return host.strip("[]").rstrip(".")


def _port_of(parts: Url) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _addresses_of(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host, or an empty list if it cannot be resolved here."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = dict.fromkeys(str(each[4][0]) for each in found)
    return [address for address in addresses if _is_address(address.partition("%")[0])]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise FileError("its address was redirected to an invalid address") from None


def _coding(response: requests.Response) -> str | None:
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return None
    if coding not in CONTENT_CODINGS:
        raise FileError(f"its host sent it with the content coding {coding[:20]!r}, which the request does not accept")
    return coding


def _announced(file: RunFile, response: requests.Response) -> int | None:
    """Return the announced size of the file, or None if it is not announced reliably.

    :raises FileError: the response is not the file.
    """
    if response.status_code != 200:
        raise FileError(
            f"its host responded with HTTP {response.status_code}",
            expired=response.status_code in EXPIRED_STATUSES,
            temporary=response.status_code >= 500 or response.status_code in (408, 429),
        )
    length = response.headers.get("content-length", "")
    # With a content coding, Content-Length is the compressed size.
    announced = int(length) if length.isdecimal() and not _coding(response) else None
    is_right_size = announced is not None and announced == file.size
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_page = media_type in ("text/html", "application/xhtml+xml")
    if is_page and not is_right_size and not file.name.lower().endswith((".html", ".htm", ".xhtml")):
        raise FileError("its host responded with a web page", expired=True)
    if None not in (announced, file.size) and announced != file.size:
        raise FileError(f"its host announced {announced} bytes, but BrowserAct announced {file.size}")
    return file.size if announced is None else announced
