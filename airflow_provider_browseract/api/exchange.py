"""A call to BrowserAct's API as a value, and what its response means.

Nothing here depends on the version of the API: a call brings its name, its path, and how its response is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

from airflow_provider_browseract.api.errors import (
    BY_CODE,
    BrowserActError,
    ConcurrencyLimitError,
    InsufficientCreditsError,
    NotTheApiError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnexpectedResponseError,
    UnknownRefusalError,
    error_class,
)
from airflow_provider_browseract.api.fields import is_envelope_of_success, one_line
from airflow_provider_browseract.api.models import Page

T = TypeVar("T")

SUCCESS_CODES = (None, 0, "0")
"""Values of ``code`` in a successful response. Most responses have none."""

NO_SLOT_WORDS = re.compile(r"running tasks|concurren|parallel|one active task", re.IGNORECASE)
"""Words with which BrowserAct refuses a start without a free slot in responses whose code is not documented.

BrowserAct's own scripts look for words like these instead of a code. No code is documented for the second run of a
Standard Browser, which allows one run at a time.
"""

CREDIT_WORDS = re.compile(r"\bcredits?\b|\bbalance\b", re.IGNORECASE)
"""Words in BrowserAct's refusal of a start that are about credits. No code is documented for that."""


@dataclass(frozen=True)
class Response:
    """An HTTP response, from either HTTP library.

    :param headers: header names in lower case, with their values.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request to the API, and how to read its response.

    :param name: the endpoint's name in the API, such as ``get-task``, for messages.
    :param path: path below the base URL, with the version of the API.
    :param read: converts the decoded JSON of a successful response to a model.
    :param body: JSON body, kept out of ``repr`` because inputs may be confidential.
    :param starts_run: whether sending the call twice would start, and bill, two runs.
    :param remedies: what the user can do about an error, where the call knows more than the class of the error.
    """

    name: str
    method: str
    path: str
    read: Callable[[Any], T] = field(repr=False)
    params: Mapping[str, str | int] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    starts_run: bool = False
    remedies: Mapping[type[BrowserActError], str] = field(default_factory=dict, repr=False)

    def read_response(self, response: Response) -> T:
        """Convert an HTTP response to the result of the call.

        :raises BrowserActError: the call failed. The class depends on BrowserAct's code, or on the HTTP status.
        """
        try:
            return self._read_response(response)
        except RecursionError:
            # Reading, writing and comparing JSON are recursive in Python.
            raise UnexpectedResponseError(
                f"BrowserAct's response to {self.name} cannot be used: it is nested too deeply",
                http_status=response.status,
            ) from None

    def _read_response(self, response: Response) -> T:
        if 200 <= response.status < 300:
            try:
                data = _decode(response)
                # No documented error has status 200, but such an error would still be an error.
                if isinstance(data, Mapping) and data.get("code") not in SUCCESS_CODES:
                    raise self._error(response, data)
                result = self.read(_unwrapped(data))
                return replace(result, served_at=_served_at(response)) if isinstance(result, Page) else result
            except UnexpectedResponseError as error:
                raise type(error)(
                    f"BrowserAct's response to {self.name} cannot be used: {error.message}",
                    http_status=response.status,
                ) from None
        is_page = False
        try:
            data = _decode(response)
        except UnexpectedResponseError as error:
            data, is_page = None, isinstance(error, NotTheApiError)
        raise self._error(response, data if isinstance(data, Mapping) else {}, is_page=is_page)

    def _error(self, response: Response, envelope: Mapping[str, Any], *, is_page: bool = False) -> BrowserActError:
        given = envelope.get("code")
        msg, trace_id = (one_line(envelope.get(name)) for name in ("msg", "traceId"))
        code = _code(given)
        kind = error_class(
            response.status, code, is_envelope=given is not None or bool(msg or trace_id), is_page=is_page
        )
        if issubclass(kind, NotTheApiError):
            return kind(f"The response to {self.name} is not from BrowserAct's API", http_status=response.status)
        # After any other status, such as a gateway's, it is not known whether the start was processed.
        undocumented = self.starts_run and code not in BY_CODE
        refused = 400 <= response.status < 500 and response.status != 408
        no_slot = undocumented and refused and NO_SLOT_WORDS.search(msg or "")
        if no_slot:
            kind = ConcurrencyLimitError
        elif undocumented and CREDIT_WORDS.search(msg or ""):
            kind = InsufficientCreditsError if issubclass(kind, UnknownRefusalError | PermissionDeniedError) else kind
        what = "BrowserAct refused the start: " if self.starts_run else f"BrowserAct refused {self.name}: "
        if issubclass(kind, ServerError):
            what = f"BrowserAct failed at {self.name}: "
        word = None if code is not None else one_line(given)
        error = kind(
            what + (": ".join(filter(None, (word, msg))) or "no reason given"),
            http_status=response.status,
            code=code,
            msg=msg,
            trace_id=trace_id,
            retry_after=_retry_after(response.headers.get("retry-after")),
            remedy=self.remedies.get(kind),
        )
        # HTTP 429 itself means that nothing was processed.
        if given and code not in BY_CODE and not isinstance(error, RateLimitError) and not no_slot:
            error.not_processed = _is_refusal(response.status, error, envelope)
        return error


def _is_refusal(status: int, error: BrowserActError, envelope: Mapping[str, Any]) -> bool:
    """Return whether BrowserAct itself has certainly refused a call, although its code is not documented.

    Every error that the vendor documents is refused before a task exists: with HTTP 4xx, and an envelope with code,
    message and trace id, without data. No gateway writes such an envelope. So the start need not be looked up, which
    would take a minute and call a plain refusal, such as that of an account without credits, an unknown start.

    If BrowserAct nevertheless refused a start after it had created a task, a paid run would be active without an
    Airflow task that waits for it, but not more than one: the start is not sent again, and the Airflow task fails
    without retries (unless the reason is a lack of credits, without which nothing runs). After HTTP 408, 5xx or 200 and
    in any other form, the run is looked up, because something may have failed after the start. The same applies to 401,
    after which the start is sent again, perhaps with a new key.
    """
    is_whole = bool(error.code) and bool(error.msg) and bool(error.trace_id)
    has_data = any(envelope.get(name) for name in ("data", "id", "task_id"))
    return 400 <= status < 500 and status not in (401, 408) and is_whole and not has_data


def _code(given: Any) -> int | None:
    """Read the code of an envelope, a number that may be sent as text."""
    if isinstance(given, str):
        # Python refuses to read numbers of thousands of digits.
        return int(given) if given.isdecimal() and len(given) < 20 else None
    return int(given) if isinstance(given, int) else None


def _unwrapped(data: Any) -> Any:
    """Return the data of a response. According to the document, a few have it in ``{"code": 0, "data": ...}``."""
    return data["data"] if is_envelope_of_success(data) and "data" in data else data


def _decode(response: Response) -> Any:
    if not response.body.strip():
        return None
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        if response.body.lstrip().startswith(b"<"):
            raise NotTheApiError("it is a web page instead of JSON") from None
        raise UnexpectedResponseError("it is not complete JSON") from None


def _retry_after(value: str | None) -> float | None:
    """Read a ``Retry-After`` header, seconds or an HTTP date, as seconds from now."""
    if value is None:
        return None
    with suppress(ValueError):
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    moment = _http_date(value)
    return None if moment is None else max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def _served_at(response: Response) -> datetime | None:
    """Return the time of a response by the server's clock; None if there is none, or if it comes from a cache."""
    return None if "age" in response.headers else _http_date(response.headers.get("date", ""))


def _http_date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
