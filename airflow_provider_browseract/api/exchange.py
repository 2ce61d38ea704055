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

from airflow_provider_browseract.api.fields import is_envelope_of_success, one_line
from airflow_provider_browseract.api.models import Page
from airflow_provider_browseract.exceptions import (
    THE_CONNECTION,
    AuthenticationError,
    BrowserActError,
    ConcurrencyLimitError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResumeNotSupportedError,
    ServerError,
    TaskEndedError,
    TaskNotFoundError,
    TaskNotPausedError,
    UnexpectedResponseError,
    UnknownRefusalError,
)

T = TypeVar("T")

NOT_PUBLISHED = 10020
"""BrowserAct's code for a workflow or bot that cannot run yet."""

CODES: dict[int, tuple[type[BrowserActError], str | None]] = {
    401: (AuthenticationError, None),
    10013: (NotFoundError, "Use a code from BrowserActHook.get_region_list, or get_bot_region_list for bots."),
    NOT_PUBLISHED: (InvalidRequestError, "Publish the workflow or bot in the BrowserAct dashboard."),
    10021: (
        InvalidRequestError,
        "Open the bot in the BrowserAct dashboard, choose its language model, and test the bot there.",
    ),
    10111: (
        NotFoundError,
        "Check the id of the workflow or bot (dashboard, or BrowserActHook.iter_workflows and iter_bots), and that the "
        "API key is of the account that owns it. RunWorkflowOperator runs workflows, RunBotOperator runs bots, and "
        "RunTemplateOperator and RunBotTemplateOperator run official templates.",
    ),
    10112: (TaskNotFoundError, None),
    10118: (ConcurrencyLimitError, None),
    10121: (TaskEndedError, None),
    10127: (TaskNotPausedError, None),
    **dict.fromkeys(
        (10142, 10143),
        (
            InvalidRequestError,
            "Give each required input a value that is not empty. BrowserActHook.get_workflow and get_bot return the "
            "inputs.",
        ),
    ),
    10176: (
        NotFoundError,
        "Check the id of the template (BrowserActHook.iter_official_workflow_templates, or iter_bot_templates).",
    ),
    10879: (ResumeNotSupportedError, None),
    99001: (InvalidRequestError, None),
    99002: (PermissionDeniedError, None),
}
"""The error for each code of BrowserAct's error envelope, and its remedy where that of the class is too general."""

BY_STATUS = {401: AuthenticationError, 403: PermissionDeniedError, 429: RateLimitError}
"""The error for an HTTP status with any other code."""

DATA = ("data", "id", "task_id")
"""What the envelope of an error does not have."""

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
    """

    name: str
    method: str
    path: str
    read: Callable[[Any], T] = field(repr=False)
    params: Mapping[str, str | int] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    starts_run: bool = False

    def read_response(self, response: Response) -> T:
        """Convert an HTTP response to the result of the call.

        :raises BrowserActError: the call failed. The class depends on BrowserAct's code, or on the HTTP status.
        """
        status, body = response.status, response.body.strip()
        complete, data = True, None
        try:
            data = json.loads(body) if body else None
        except (ValueError, RecursionError):
            complete = False
        if not complete and body.startswith(b"<") and (status < 300 or status in (401, 403)):
            raise self._not_the_api(status)
        envelope = data if isinstance(data, dict) else {}
        # No documented error has status 200, but such an error would still be an error.
        if not 200 <= status < 300 or envelope.get("code") not in SUCCESS_CODES:
            raise self._refusal(response, envelope)
        try:
            if not complete:
                raise UnexpectedResponseError("it is not complete JSON")
            result = self.read(_unwrapped(data))
        except UnexpectedResponseError as error:
            # What BrowserAct returns when it is asked for something is an object or a list.
            if self.method == "GET" and not isinstance(data, dict | list) and body[:1] not in (b"{", b"["):
                raise self._not_the_api(status) from None
            raise self._unusable(error.message, status) from None
        except RecursionError:
            # Reading, writing and comparing JSON are recursive in Python.
            raise self._unusable("it is nested too deeply", status) from None
        return replace(result, served_at=_served_at(response)) if isinstance(result, Page) else result

    def _unusable(self, why: str, status: int) -> BrowserActError:
        return UnexpectedResponseError(
            f"BrowserAct's response to {self.name} cannot be used: {why}", http_status=status
        )

    def _not_the_api(self, status: int) -> BrowserActError:
        return UnexpectedResponseError(
            f"The response to {self.name} is not from BrowserAct's API",
            http_status=status,
            not_processed=True,
            remedy=(
                f"Set the host of {THE_CONNECTION} (field API address) to the address of BrowserAct's API without a "
                "path such as /v2, or leave it empty. If it is right, the response comes from a proxy or a firewall "
                "between this machine and BrowserAct."
            ),
        )

    def _refusal(self, response: Response, envelope: Mapping[str, Any]) -> BrowserActError:
        status, given = response.status, envelope.get("code")
        msg, trace_id = (one_line(envelope.get(name)) for name in ("msg", "traceId"))
        code = _code(given)
        kind, remedy = CODES.get(code or 0, (BY_STATUS.get(status, UnknownRefusalError), None))
        documented, refused = code in CODES, 400 <= status < 500 and status != 408
        if not documented and (status >= 500 or status == 408):
            kind = ServerError
        if kind is UnknownRefusalError and given is None and not (msg or trace_id):
            return self._not_the_api(status)
        if self.starts_run and not documented:
            if refused and NO_SLOT_WORDS.search(msg or ""):
                kind, documented = ConcurrencyLimitError, True
            elif kind in (UnknownRefusalError, PermissionDeniedError) and CREDIT_WORDS.search(msg or ""):
                kind = InsufficientCreditsError
        what = "BrowserAct refused the start: " if self.starts_run else f"BrowserAct refused {self.name}: "
        if kind is ServerError:
            what = f"BrowserAct failed at {self.name}: "
        word = None if code is not None else one_line(given)
        # Every documented error is refused before a task exists: with HTTP 4xx and an envelope with code, message and
        # trace id, without data. No gateway writes such an envelope, so a start that is refused like this started
        # nothing, although its code is not documented. After any other response to a start, the run is looked up.
        whole = refused and status != 401 and code and msg and trace_id
        # HTTP 429 itself means that nothing was processed.
        by_class = documented or not given or kind is RateLimitError
        return kind(
            what + (": ".join(filter(None, (word, msg))) or "no reason given"),
            http_status=status,
            code=code,
            msg=msg,
            trace_id=trace_id,
            retry_after=_retry_after(response.headers.get("retry-after")),
            remedy=remedy,
            not_processed=None if by_class else bool(whole and not any(map(envelope.get, DATA))),
        )


def _code(given: Any) -> int | None:
    """Read the code of an envelope, a number that may be sent as text."""
    if isinstance(given, str):
        # Python refuses to read numbers of thousands of digits.
        return int(given) if given.isdecimal() and len(given) < 20 else None
    return int(given) if isinstance(given, int) else None


def _unwrapped(data: Any) -> Any:
    """Return the data of a response. According to the document, a few have it in ``{"code": 0, "data": ...}``."""
    return data["data"] if is_envelope_of_success(data) and "data" in data else data


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
