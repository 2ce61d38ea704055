"""What a response means: the result or the error of a call, and whether a start that failed may have started a run."""

import json
import sys
from datetime import datetime, timezone
from itertools import product
from typing import Any, NamedTuple

import pytest

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api import calls, v2, v3
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import CreatedTask
from tests.helpers.cases import cases

START, READ, STOP, RESUME = v2.run("70"), v2.get_task("7"), v2.stop_task("7"), v2.resume_task("7")
NEW = {"code": 4711, "msg": "new"}
HTML = b"<html>Request blocked</html>"

CODES: dict[int, type[errors.BrowserActError]] = {
    401: errors.AuthenticationError,
    10013: errors.NotFoundError,
    10020: errors.InvalidRequestError,
    10021: errors.InvalidRequestError,
    10111: errors.NotFoundError,
    10112: errors.TaskNotFoundError,
    10118: errors.ConcurrencyLimitError,
    10121: errors.TaskEndedError,
    10127: errors.TaskNotPausedError,
    10142: errors.InvalidRequestError,
    10143: errors.InvalidRequestError,
    10176: errors.NotFoundError,
    10879: errors.ResumeNotSupportedError,
    99001: errors.InvalidRequestError,
    99002: errors.PermissionDeniedError,
}
"""The meaning of each code in the vendor's documents, independent of the code that is tested."""

OTHERS: dict[int, type[errors.BrowserActError]] = {
    **dict.fromkeys((200, 400, 404, 409), errors.UnknownRefusalError),
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    429: errors.RateLimitError,
    **dict.fromkeys((408, 500, 503), errors.ServerError),
}
"""What an HTTP status means together with any other code."""


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def to(self, call: Call[Any]) -> Any:
        return call.read(self.status, self.body, self.headers)


def answer(status: int, data: object = None, **headers: str) -> Response:
    return Response(status, {"content-type": "application/json", **headers}, json.dumps(data).encode())


def web(status: int, body: bytes = HTML) -> Response:
    return Response(status, {"content-type": "text/html"}, body)


def error(call: Call, response: Response) -> errors.BrowserActError:
    with pytest.raises(errors.BrowserActError) as caught:
        response.to(call)
    return caught.value


def test_known_error_codes_are_exactly_the_documented_ones():
    assert calls.CODES.keys() == CODES.keys()


@pytest.mark.parametrize(("code", "kind"), CODES.items(), ids=lambda value: getattr(value, "__name__", value))
def test_error_code_decides_the_error_class_whatever_the_http_status(code, kind):
    for status, sent in ((400, code), (401, str(code)), (500, code)):
        found = error(READ, answer(status, {"code": sent, "msg": "words", "traceId": "abc"}))
        assert type(found) is kind
        assert (found.code, found.msg, found.trace_id, found.http_status) == (code, "words", "abc", status)
        for part in (f"code {code}", f"HTTP {status}", "traceId abc", "words"):
            assert part in str(found)
            assert part in found.brief
        assert found.not_processed


UNEXPECTED, UNKNOWN = errors.UnexpectedResponseError, errors.UnknownRefusalError
INVALID, NO_TASK = errors.InvalidRequestError, errors.TaskNotFoundError
NO_API, BOT = "not from the API", v3.run("70")
NO_SUCCESSES = [
    *({"success": False}, {"status": 404, "error": "Not Found"}, {"msg": "no"}, {"code": False}),
    *({"code": None, "msg": "Task is not exist."}, {"code": None, "data": None}, [1], [], "Unauthorized", False, 0),
]
ODD_CODES: list[Any] = ["E1", 1.5, True, [], -1]
NO_CREDITS, IS_EMPTY = errors.InsufficientCreditsError, "If the account has no credits left, add some"
NO_SLOT = {"msg": "Too many running tasks"}


@cases(
    *((f"other code with {each}", READ, answer(each, NEW), kind, "new") for each, kind in OTHERS.items()),
    *(
        (f"{words} with {status}", START, answer(status, {"code": 90002, "msg": words}), NO_CREDITS, IS_EMPTY)
        for words in ("Insufficient credits.", "Your credit is used up", "Account balance too low")
        for status in (200, 400, 402, 403)
    ),
    ("words about credits, but no start", READ, answer(400, {"code": 1, "msg": "credits"}), UNKNOWN, "credits"),
    ("words about slots, but no start", READ, answer(400, NO_SLOT), UNKNOWN, "running tasks"),
    ("other account", BOT, answer(400, {"code": 99002}), errors.PermissionDeniedError, "account that owns the"),
    ("no language model", BOT, answer(400, {"code": 10021}), INVALID, "choose its language model"),
    *((f"input, {code}", BOT, answer(400, {"code": code}), INVALID, "not empty") for code in (10142, 10143)),
    ("arguments", START, answer(400, {"code": 99001}), INVALID, "A profile (profile_id) must"),
    ("code with 200", STOP, answer(200, {"code": 10112, "id": "5", "msg": "No."}), NO_TASK, "No."),
    ("code alone with 200", START, answer(200, {"code": 10112, "id": "5"}), NO_TASK, "no reason given"),
    *((f"code {odd!r} with 200", START, answer(200, {"code": odd, "id": "5"}), UNKNOWN, "") for odd in ODD_CODES),
    ("code of thousands of digits", START, answer(400, {"code": "9" * 5000, "msg": "x"}), UNKNOWN, "x"),
    ("empty with 200", READ, web(200, b""), NO_API, "host of the Airflow connection"),
    ("text with 200", READ, answer(200, "ok"), NO_API, "host of the Airflow connection"),
    ("no JSON with 200", READ, web(200, b"Please log in"), NO_API, "host of the Airflow connection"),
    ("empty start with 200", START, web(200, b""), UNEXPECTED, "response to run-task cannot be used"),
    ("another task", READ, answer(200, {"id": "8", "status": "finished"}), UNEXPECTED, "it is about another task"),
    ("part of JSON", START, web(200, b'{"id": "123", "profile'), UNEXPECTED, "not complete JSON"),
    *(
        (f"{call.name}: {body}", call, answer(200, body), UNEXPECTED, "cannot be used")
        for call, body in product((STOP, RESUME), NO_SUCCESSES)
    ),
    ("empty with 401", READ, web(401, b""), errors.AuthenticationError, "API key"),
    ("page with 401", READ, web(401), NO_API, "a firewall"),
    ("page with 200", READ, web(200), NO_API, "host of the Airflow connection"),
    ("page with 404", READ, web(404), NO_API, "host of the Airflow connection"),
    ("page with 502", READ, web(502), errors.ServerError, "BrowserAct failed at get-task"),
    ("redirect", READ, web(302, b""), NO_API, "host of the Airflow connection"),
    ("another API", READ, answer(404, {"message": "Not Found"}), NO_API, "is not from BrowserAct's API"),
)
def test_response_and_call_decide_the_error(call, response, kind, words):
    found = error(call, response)
    assert type(found) is (UNEXPECTED if kind is NO_API else kind)
    assert kind not in (NO_API, UNEXPECTED) or (found.unusable is None) is (kind is NO_API)
    assert words in str(found)
    assert str(found).count(f"HTTP {response.status}") == 1
    # The page of a firewall says nothing about the key.
    assert kind is not NO_API or "API key" not in str(found)


@pytest.mark.parametrize("code", [4711, "4711", -1, 10**30])
@pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 422])
def test_error_envelope_of_browseract_with_http_4xx_proves_that_nothing_was_started(status, code):
    found = error(START, answer(status, {"code": code, "msg": "Not today.", "data": None, "ts": 1, "traceId": "t"}))
    assert str(found).startswith("BrowserAct refused the start: Not today")
    assert found.not_processed
    assert found.temporary is False


WHOLE = {"code": 4711, "msg": "Not today.", "traceId": "t"}
TIMEOUT = {"code": 50000, "msg": "java.util.concurrent.TimeoutException", "traceId": "t"}


@cases(
    *((f"whole envelope with {status}", status, WHOLE) for status in (200, 401, 408, 500, 503)),
    *(
        (f"400 with {changed}", 400, {**WHOLE, **changed})
        for changed in (
            *({"code": "QUOTA_EXCEEDED"}, {"code": None}, {"msg": ""}, {"traceId": None}),
            *({"data": {"id": "5"}}, {"id": "5"}, {"task_id": "5"}),
        )
    ),
    *(
        (f"{status} with {code!r}", status, {"code": code, "msg": "new"})
        for status, code in product((200, 400, 401, 403, 404, 409, 422, 500), (4711, "4711", "QUOTA_EXCEEDED"))
    ),
    ("no code", 409, {"msg": "task service timeout"}),
    ("code 0", 409, {"code": 0, "msg": "x", "traceId": "t"}),
    *((f"words about slots with {status}", status, TIMEOUT) for status in (200, 408, 500, 504)),
    *((f"JSON of a gateway with {status}", status, {"message": "No."}) for status in (400, 401, 403, 404)),
)
def test_no_other_refusal_proves_that_nothing_was_started(status, body):
    found = error(START, answer(status, body))
    assert found.not_processed is False
    assert found.temporary is (status in (408, 500, 503, 504))
    assert (found.msg or "") == body.get("msg", "")
    assert str(body.get("code") or "") in found.brief


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 500, 502, 504, 520, 524])
def test_start_counts_as_not_processed_after_http_429_but_not_after_a_web_page(status):
    assert error(START, web(status)).not_processed is False
    assert error(START, web(429)).not_processed


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
@pytest.mark.parametrize("shared", [False, True])
def test_response_in_another_encoding_of_unicode_is_read_alike_in_all_processes(encoding, shared):
    body = json.dumps({"id": "7", "status": "finished", "credit": 20}).encode(encoding)
    assert READ.read(200, body, {}, shared=shared).credit == 20


@pytest.mark.parametrize("code", [{}, {"code": 4711}, {"code": 4711, "traceId": "t"}], ids=str)
@pytest.mark.parametrize(
    "words",
    [
        "Too many running tasks",
        "The concurrent limit of your plan is reached",
        "A Standard Browser takes one active task at a time",
        "The maximum number of parallel browsers is in use",
    ],
)
def test_start_refused_without_a_free_slot_is_recognized_by_its_words(words, code):
    found = error(START, answer(400, {"msg": words, **code}))
    assert type(found) is errors.ConcurrencyLimitError
    assert found.not_processed is ("traceId" in code)


def test_error_message_of_the_api_becomes_one_line_of_bounded_length():
    msg = "first\nsecond\x1b[31m\u2028" + "x" * 5000
    found = error(READ, answer(400, {"code": 99001, "msg": msg, "traceId": "a\nb"}))
    assert found.msg is not None
    assert found.msg.startswith("first second [31m xxx")
    assert len(found.msg) == 1000
    assert found.trace_id == "a b"


@cases(("status", '"status": %s'), ("output", '"status": "finished", "output": {"string": %s}'))
def test_response_that_is_nested_too_deeply_raises_the_same_error_whatever_fails_first(field):
    # Near the limit of Python, JSON can be read, but no longer be written or described.
    limit, failed = sys.getrecursionlimit(), 0
    for levels in (*range(limit - 100, limit + 1), *range(2 * limit, 200 * limit, 7 * limit)):
        body = '{"id": "7", ' + field % ("[" * levels + "]" * levels) + "}"
        try:
            READ.read(200, body.encode(), {})
        except errors.UnexpectedResponseError:
            failed += 1
    assert failed


DONE = {
    "empty": Response(200, {}, b""),
    **{
        json.dumps(body): answer(200, body)
        for body in (None, {}, {"code": 0}, {"code": 0, "msg": "success"}, {"code": 0, "data": None})
    },
}


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_alone_is_no_success(mark):
    assert type(error(STOP, Response(200, {}, "".encode(mark)))) is errors.UnexpectedResponseError


CREATED, MADE = {"id": "5", "profile_id": "9"}, CreatedTask(id="5", profile_id="9")


@cases(
    ("start", START, answer(200, CREATED), MADE),
    ("envelope", START, answer(200, {"code": 0, "msg": "success", "data": CREATED}), MADE),
    ("code as text", START, answer(200, {"code": "0", "data": CREATED}), MADE),
    *((f"stop: {name}", STOP, response, None) for name, response in DONE.items()),
)
def test_successful_response_is_read(call, response, result):
    assert response.to(call) == result


@cases(
    ("seconds", "3", 3.0),
    ("negative", "-1", 0.0),
    ("not a number", "soon", None),
    ("NaN", "nan", None),
    ("infinite", "inf", None),
    ("date", "Wed, 21 Oct 2015 07:28:00 GMT", None),
)
def test_retry_after_is_read_in_seconds(value, seconds):
    assert error(READ, answer(429, {}, **{"retry-after": value})).retry_after == seconds


NOON = datetime(2026, 11, 27, 12, 0, tzinfo=timezone.utc)


@cases(
    ("GMT", {"date": "Fri, 27 Nov 2026 12:00:00 GMT"}, NOON),
    ("no zone", {"date": "Fri, 27 Nov 2026 12:00:00"}, NOON),
    ("from a cache", {"date": "Fri, 27 Nov 2026 12:00:00 GMT", "age": "30"}, None),
    ("not a date", {"date": "noon"}, None),
    ("impossible time zone", {"date": "Mon, 01 Jan 2024 00:00:00 -99999999999999999999"}, None),
    ("missing", {}, None),
)
def test_page_has_the_time_of_its_response(headers, moment):
    assert answer(200, {"items": []}, **headers).to(v2.list_tasks()).served_at == moment
