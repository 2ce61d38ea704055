"""What went wrong before a response arrived, and what to do about it; the same for both HTTP libraries."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def completing(settings: Settings, refused: Callable[[], object]) -> Iterator[None]:
    """Add to the errors of a call what only the settings know, and report a refused API key."""
    try:
        yield
    except BrowserActError as error:
        error.connection = settings.connection
        if isinstance(error, AuthenticationError):
            refused()
        if isinstance(error, UnexpectedResponseError):
            error.message = f"{error.message} (API address {settings.shown_url})"
        raise


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
    return ResponseLostError(f"No complete response to {call.name} from {settings.shown_url} ({kind})")


def not_connected(call: Call[Any], settings: Settings, error: BaseException) -> ConnectionFailedError:
    """Return the error of a connection that could not be opened, with the reason of the operating system or of TLS."""
    failure = f"No connection to {settings.shown_url} for {call.name}"
    cause: Any = error
    while cause is not None and not isinstance(cause, TimeoutError) and getattr(cause, "errno", None) is None:
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        what = f"{failure}: its certificate is not trusted ({cause.verify_message})"
        return ConnectionFailedError(what, remedy=UNTRUSTED, temporary=False)
    if isinstance(cause, ssl.SSLError) and cause.reason in PLAIN_HTTP_REASONS:
        what = f"{failure}: the host uses plain HTTP, not HTTPS"
        return ConnectionFailedError(what, remedy=PLAIN_HTTP, temporary=False)
    reason = type(error.__cause__ or error).__name__
    if isinstance(cause, ssl.SSLError):
        reason = f"the TLS handshake failed ({cause.reason or type(cause).__name__})"
    elif isinstance(cause, socket.gaierror):
        reason = f"the name of the host cannot be resolved ({cause.strerror})"
    elif cause is not None:
        reason = "timed out" if isinstance(cause, TimeoutError) else os.strerror(cause.errno)
    return ConnectionFailedError(f"{failure}: {reason}")
