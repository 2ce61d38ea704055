"""A call to BrowserAct's API as a value, what its response means, and whether it is sent again.

Nothing here depends on the version of the API: a call brings its name, its path, and what its response is read as.
"""

from __future__ import annotations

import faulthandler
import json
import math
import re
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from tempfile import TemporaryFile
from typing import Any, Generic, TypeVar

import msgspec
from pydantic import ValidationError
from tenacity import RetryCallState, stop_before_delay
from tenacity.wait import wait_random_exponential

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api.declared import ENVELOPE, decode_declared
from airflow_provider_browseract.api.fields import one_line
from airflow_provider_browseract.api.models import Model, Page
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.api.validation import adapter, first_problem
from airflow_provider_browseract.exceptions import THE_CONNECTION, BrowserActError

T = TypeVar("T")

UNREADABLE = (ValueError, RecursionError, msgspec.MsgspecError)
"""What the readers of a response raise if they cannot read it."""

NOT_PUBLISHED = 10020
"""BrowserAct's code for a workflow or bot that cannot run yet."""

MISSING_INPUT = "Give each required input a value that is not empty (BrowserActHook.get_workflow, get_bot)."

CODES: dict[int, tuple[type[BrowserActError], str | None]] = {
    401: (errors.AuthenticationError, None),
    10013: (errors.NotFoundError, "Use a code from BrowserActHook.get_region_list, or get_bot_region_list for bots."),
    NOT_PUBLISHED: (errors.InvalidRequestError, "Publish the workflow or bot in the BrowserAct dashboard."),
    10021: (errors.InvalidRequestError, "In the BrowserAct dashboard, open the bot and choose its language model."),
    10111: (
        errors.NotFoundError,
        "Check the id of the workflow or bot, and that the API key is of the account that owns it. RunWorkflowOperator "
        "runs workflows, RunBotOperator runs bots, and RunTemplateOperator and RunBotTemplateOperator run templates.",
    ),
    10112: (errors.TaskNotFoundError, None),
    10118: (errors.ConcurrencyLimitError, None),
    10121: (errors.TaskEndedError, None),
    10127: (errors.TaskNotPausedError, None),
    10142: (errors.InvalidRequestError, MISSING_INPUT),
    10143: (errors.InvalidRequestError, MISSING_INPUT),
    10176: (errors.NotFoundError, "Check the template's id (iter_official_workflow_templates, iter_bot_templates)."),
    10879: (errors.ResumeNotSupportedError, None),
    99001: (errors.InvalidRequestError, None),
    99002: (errors.PermissionDeniedError, None),
}
"""The error for each code of BrowserAct's error envelope, and its remedy where that of the class is too general."""

BY_STATUS = {401: errors.AuthenticationError, 403: errors.PermissionDeniedError, 429: errors.RateLimitError}
"""The error for an HTTP status with any other code."""

DATA = ("data", "id", "task_id")
"""What the envelope of an error does not have."""

DAG_FILE_IMPORTERS = (
    b"airflow/models/dagbag.py",  # before Airflow 3.2
    b"airflow/dag_processing/importers/python_importer.py",
    b"airflow/sdk/importers/python_importer.py",  # from Airflow 3.4 on
)
"""The files of Airflow whose code imports DAG files, in the DAG processor and in workers."""

MAX_REFUSAL = 64 * 1024
"""Bytes of a response without declared fields, such as a refusal, that a shared process reads."""

NO_SLOT_WORDS = re.compile(r"running tasks|concurren|parallel|one active task", re.IGNORECASE)
"""Words of a refusal without a documented code if no slot is free. BrowserAct's own scripts look for such words."""

CREDIT_WORDS = re.compile(r"\bcredits?\b|\bbalance\b", re.IGNORECASE)
"""Words of a refusal, without a documented code, that are about credits."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request to the API, and what its response is read as.

    :param name: the endpoint's name in the API, such as ``get-task``, for messages.
    :param path: path below the base URL, with the version of the API.
    :param result: the type of the result, which pydantic reads.
    :param body: JSON body, kept out of ``repr`` because inputs may be confidential.
    :param starts_run: whether sending the call twice would start, and bill, two runs.
    :param about: the task that the response must be about, if it names one.
    """

    name: str
    method: str
    path: str
    result: Any
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    starts_run: bool = False
    about: str | None = None

    def read(self, status: int, body: bytes, headers: Mapping[str, str], *, shared: bool = False) -> T:
        """Convert a response to the result of the call.

        :param headers: with names in lower case.
        :param shared: build only what the result declares, because many tasks share this process.
        :raises ResponseTooLargeError: a shared process cannot read the response.
        :raises BrowserActError: the call failed. The class depends on BrowserAct's code, or on the HTTP status.
        """
        data, broken = None, None
        try:
            is_empty, body = not body.strip(), _in_utf8(body).strip()
            data = None if is_empty else self._decode(body, status, shared)
        except UNREADABLE as error:
            broken = error
        if broken is not None and body.startswith(b"<") and (status < 300 or status in (401, 403)):
            raise self._not_the_api(status)
        envelope = data if isinstance(data, dict) else {}
        # No documented error has status 200, but such an error would still be an error.
        if not 200 <= status < 300 or envelope.get("code") not in (None, 0, "0"):
            raise self._refusal(status, headers, envelope)
        try:
            if broken is not None:
                raise broken
            found = self._result_in(data)
        except UNREADABLE as error:
            raise self._unusable(error, status, body, only_here=shared and broken is not None) from None
        if isinstance(found, Page):
            found = found.model_copy(update={"served_at": _served_at(headers)})
        result: T = found
        return result

    def _decode(self, body: bytes, status: int, shared: bool) -> Any:
        if not shared:
            return json.loads(body)
        if 200 <= status < 300 and isinstance(self.result, type(Model)):
            return decode_declared(body, self.result)
        if len(body) > MAX_REFUSAL:
            raise ValueError
        return json.loads(body)

    def _result_in(self, data: Any) -> Any:
        if isinstance(data, dict) and str(data.get("code")) == "0":
            # According to the document, a few responses have their data in {"code": 0, "data": ...}.
            inner = {name: value for name, value in data.items() if name not in ENVELOPE}
            data = inner.get("data", inner)
        found = adapter(self.result).validate_python(data)
        if self.about is not None and getattr(found, "id", None) not in (None, self.about):
            raise ValueError("it is about another task")
        return found

    # The errors

    def _unusable(self, error: Exception, status: int, body: bytes, *, only_here: bool) -> BrowserActError:
        """Return the error of a successful response whose content cannot be used.

        :param only_here: a worker may be able to read it.
        """
        # What BrowserAct returns when it is asked for something is an object or a list.
        if self.method == "GET" and body[:1] not in (b"{", b"["):
            return self._not_the_api(status)
        # A response that was cut off ends otherwise, and a worker could not read it either.
        if only_here and body[-1:] in (b"}", b"]"):
            what = f"The response to {self.name} has what only a worker reads"
            return errors.ResponseTooLargeError(what, http_status=status)
        why = _shortly(error)
        what = f"BrowserAct's response to {self.name} cannot be used: {why}"
        return errors.UnexpectedResponseError(what, http_status=status, unusable=why)

    def _not_the_api(self, status: int) -> BrowserActError:
        return errors.UnexpectedResponseError(
            f"The response to {self.name} is not from BrowserAct's API",
            http_status=status,
            remedy=(
                f"Set the host of {THE_CONNECTION} (field API address) to the address of BrowserAct's API without a "
                "path such as /v2, or leave it empty. If it is right, the response comes from a proxy or a firewall "
                "between this machine and BrowserAct."
            ),
        )

    def _refusal(self, status: int, headers: Mapping[str, str], envelope: Mapping[str, Any]) -> BrowserActError:
        given = envelope.get("code")
        code, msg, trace_id = _code(given), *(one_line(envelope.get(name)) for name in ("msg", "traceId"))
        kind, remedy = CODES.get(code or 0, (self._kind_without_code(status, msg or ""), None))
        if kind is errors.UnknownRefusalError and given is None and not (msg or trace_id):
            return self._not_the_api(status)
        word = one_line(given) if code is None else None
        return kind(
            self._who_failed(kind) + (": ".join(filter(None, (word, msg))) or "no reason given"),
            http_status=status,
            code=code,
            msg=msg,
            trace_id=trace_id,
            retry_after=_retry_after(headers.get("retry-after")),
            remedy=remedy,
            not_processed=_was_refused(status, code, bool(msg and trace_id), envelope),
        )

    def _who_failed(self, kind: type[BrowserActError]) -> str:
        """Return the beginning of the message of a refusal."""
        if kind is errors.ServerError:
            return f"BrowserAct failed at {self.name}: "
        return "BrowserAct refused the start: " if self.starts_run else f"BrowserAct refused {self.name}: "

    def _kind_without_code(self, status: int, msg: str) -> type[BrowserActError]:
        """Return the error for a refusal without a documented code."""
        kind = BY_STATUS.get(status, errors.UnknownRefusalError)
        if status >= 500 or status == 408:
            kind = errors.ServerError
        elif self.starts_run and status >= 400 and NO_SLOT_WORDS.search(msg):
            kind = errors.ConcurrencyLimitError
        if self.starts_run and kind in (errors.UnknownRefusalError, errors.PermissionDeniedError):
            kind = errors.InsufficientCreditsError if CREDIT_WORDS.search(msg) else kind
        return kind


def _was_refused(status: int, code: int | None, explained: bool, envelope: Mapping[str, Any]) -> bool:
    """Return whether BrowserAct certainly did not process a call.

    It refuses before a task exists: with a documented code, or at least with HTTP 4xx and an envelope with code,
    message and trace id, without data. No gateway writes such an envelope. HTTP 429 means that nothing was processed.
    After anything else, a proxy may have replaced the response to a start that was carried out.

    :param explained: there is a message and a trace id.
    """
    if code in CODES or status == 429:
        return True
    if not 400 <= status < 500 or status in (401, 408):
        return False
    return bool(code) and explained and not any(map(envelope.get, DATA))


def _code(given: Any) -> int | None:
    """Read the code of an envelope, a number that may be sent as text."""
    if isinstance(given, str):
        # Python refuses to read numbers of thousands of digits.
        return int(given) if given.isdecimal() and len(given) < 20 else None
    return int(given) if isinstance(given, int) else None


def _in_utf8(body: bytes) -> bytes:
    """Return JSON without a byte order mark in UTF-8, the only encoding that msgspec reads."""
    encoding = json.detect_encoding(body)
    return body if encoding == "utf-8" else body.decode(encoding).encode()


def _shortly(error: Exception) -> str:
    """Return why a response cannot be used, without its values."""
    if isinstance(error, json.JSONDecodeError | UnicodeError | msgspec.MsgspecError):
        return "it is not complete JSON"
    if not isinstance(error, ValidationError):
        return str(error)
    where, what = first_problem(error)
    return f"{where or 'it'}: {what}"


def _retry_after(value: str | None) -> float | None:
    """Read a ``Retry-After`` header. One that is not in seconds counts as none."""
    with suppress(ValueError):
        seconds = float(value or "")
        return max(0.0, seconds) if math.isfinite(seconds) else None
    return None


def _served_at(headers: Mapping[str, str]) -> datetime | None:
    """Return the time of a response by the server's clock; None if there is none, or if it comes from a cache."""
    if "age" not in headers:
        with suppress(ValueError, OverflowError):
            # Without a time zone, it is in UTC.
            moment = parsedate_to_datetime(headers.get("date", ""))
            return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return None


def refuse_while_parsing(call: Call[Any]) -> None:
    """Refuse to start a run while a thread of this process imports a DAG file, also if another thread sends the call.

    faulthandler writes the stacks of all threads in one step. Python can crash if other code follows the frames of a
    thread that runs.

    :raises InputError: Airflow is importing a DAG file.
    """
    if not call.starts_run:
        return
    # faulthandler writes at most 100 frames of a thread.
    stacks = "\n".join(frame.f_code.co_filename for frame, _ in traceback.walk_stack(None)).encode()
    # A machine without a place for temporary files can start runs.
    with suppress(OSError), TemporaryFile() as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        stacks += file.read()
    if any(importer in stacks for importer in DAG_FILE_IMPORTERS):
        raise errors.InputError(
            "This line would start a paid run each time Airflow reads this file. Move it into a @task."
        )


def may_send_again(call: Call[Any], error: BaseException) -> bool:
    """Return whether a call that ended with an error may be sent again.

    Any call may be sent again after a temporary error, except one that starts a run. A start is sent again only if it
    certainly was not processed: after a timeout, a reset or a 5xx, a second start could start, and bill, a second run.
    It is not sent again if BrowserAct accepts no start now: the caller decides which start comes next.
    """
    if not isinstance(error, BrowserActError) or not error.temporary:
        return False
    no_start_now = isinstance(error, errors.ConcurrencyLimitError | errors.RateLimitError)
    return not call.starts_run or (error.not_processed and not no_start_now)


def controls(call: Call[Any], settings: Settings, warn: Callable[..., Any] | None = None) -> dict[str, Any]:
    """Return the arguments for ``tenacity.Retrying`` or ``tenacity.AsyncRetrying`` with which a call is sent.

    No further try begins ``retry_budget`` seconds after the first one. A ``Retry-After`` beyond this limit ends the
    tries at once. A pause is random within its bound, and at least as long as ``Retry-After`` requires.

    :param warn: called with the reason, as the arguments of a log call, when the first try has failed.
    """
    own_pause = wait_random_exponential(multiplier=settings.first_pause, max=settings.longest_pause)

    def error_of(state: RetryCallState) -> Any:
        return state.outcome.exception() if state.outcome else None

    def fails_for_now(state: RetryCallState) -> bool:
        error = error_of(state)
        if isinstance(error, BrowserActError):
            error.resent = state.attempt_number > 1
        return error is not None and may_send_again(call, error)

    def report(state: RetryCallState) -> None:
        if warn is not None and state.attempt_number == 1:
            warn("%s. Trying again for up to %g seconds.", error_of(state).brief, settings.retry_budget)

    return {
        "before_sleep": report,
        "retry": fails_for_now,
        "wait": lambda state: max(own_pause(state), error_of(state).retry_after or 0.0),
        "stop": stop_before_delay(settings.retry_budget),
        "reraise": True,
    }
