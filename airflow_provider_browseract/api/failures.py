"""What went wrong before a response arrived, and what to do about it; the same for both HTTP libraries."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.exceptions import (
    THE_CONNECTION,
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
    ResponseLostError,
    UnexpectedResponseError,
)

PLAIN_HTTP_REASONS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"})
"""Reasons that OpenSSL reports if a server does not use TLS, depending on the first bytes of its response."""

PLAIN_HTTP = f"If the host does not use HTTPS, write http:// in front of the host of {THE_CONNECTION}."
UNTRUSTED = (
    f"Check the host of {THE_CONNECTION} (field API address). If a private authority issued the certificate, set "
    "REQUESTS_CA_BUNDLE on workers, triggerers and API servers to a file with all certificates to trust, also the "
    "public ones."
)
"""The remedies of errors of TLS."""


def complete(error: BrowserActError, settings: Settings, refused: Callable[[], object]) -> None:
    """Add to an error of a call what only the settings know."""
    error.connection = settings.connection
    if isinstance(error, AuthenticationError):
        refused()
    if isinstance(error, UnexpectedResponseError):
        error.message = f"{error.message} (API address {settings.base_url})"


def trusted_certificates() -> str | None:
    """Return the file or folder of certificates that the environment names, or None for those of certifi.

    requests reads two of the variables and httpx the other two. A worker and a triggerer with the same environment
    would therefore trust different hosts.
    """
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
    return next((path for path in map(os.environ.get, names) if path), None)


def lost(call: Call[Any], settings: Settings, error: BaseException) -> ResponseLostError:
    """Return the error of a call that was sent, and whose response did not arrive."""
    # Only the class is named, because the text of these exceptions can contain addresses with queries.
    kind = type(error).__name__
    return ResponseLostError(f"No complete response to {call.name} from {settings.base_url} ({kind})")


def not_connected(call: Call[Any], settings: Settings, error: BaseException) -> ConnectionFailedError:
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
    # The text of any other exception can contain addresses with queries.
    texts = [_text_of(cause) for cause in causes if isinstance(cause, OSError)]
    return ConnectionFailedError(f"{failure}: {next(filter(None, texts), type(causes[-1]).__name__)}")


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
