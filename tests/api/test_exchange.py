from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from airflow_provider_browseract.api import errors, v2
from airflow_provider_browseract.api.exchange import Response
from airflow_provider_browseract.api.models import CreatedTask
from tests.cases import cases

JSON = {"content-type": "application/json"}


def answer(status: int, data: object = None, **headers: str) -> Response:
    return Response(status, {**JSON, **headers}, json.dumps(data).encode())


CODES: dict[int, type[errors.BrowserActError]] = {
    401: errors.AuthenticationError,
    10013: errors.RegionNotFoundError,
    10020: errors.WorkflowNotPublishedError,
    10021: errors.BotNotReadyError,
    10111: errors.WorkflowNotFoundError,
    10112: errors.TaskNotFoundError,
    10118: errors.ConcurrencyLimitError,
    10121: errors.TaskEndedError,
    10127: errors.TaskNotPausedError,
    10142: errors.MissingInputError,
    10143: errors.MissingInputError,
    10176: errors.TemplateNotFoundError,
    10879: errors.ResumeNotSupportedError,
    99001: errors.InvalidRequestError,
    99002: errors.PermissionDeniedError,
}
"""The meaning of each code in the vendor's documents, independent of the code that is tested."""


class TestAnswers:
    def test_successful_response_is_read_into_a_model(self):
        assert v2.run_task("70").read_response(answer(200, {"id": "7"})).id == "7"

    def test_empty_response_to_a_stop_is_accepted(self):
        assert v2.stop_task("7").read_response(Response(200, {}, b"")) is None

    def test_empty_response_is_refused_when_a_body_is_expected(self):
        with pytest.raises(errors.UnexpectedResponseError, match="response to get-task cannot be used"):
            v2.get_task("7").read_response(Response(200, {}, b""))

    def test_known_error_codes_are_exactly_the_documented_ones(self):
        assert errors.BY_CODE.keys() == CODES.keys()

    @pytest.mark.parametrize(("code", "kind"), CODES.items(), ids=lambda value: getattr(value, "__name__", value))
    def test_error_code_decides_the_error_class_whatever_the_http_status(self, code, kind):
        for status, sent in ((400, code), (401, str(code)), (500, code)):
            with pytest.raises(kind) as caught:
                v2.get_task("7").read_response(answer(status, {"code": sent, "msg": "words", "traceId": "abc"}))
            error = caught.value
            assert (error.code, error.msg, error.trace_id, error.http_status) == (code, "words", "abc", status)
            for part in (f"code {code}", f"HTTP {status}", "traceId abc", "words"):
                assert part in str(error)
                assert part in error.brief
            assert error.not_processed is kind.not_processed

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (200, errors.UnknownRefusalError),
            (400, errors.UnknownRefusalError),
            (404, errors.UnknownRefusalError),
            (409, errors.UnknownRefusalError),
            (401, errors.AuthenticationError),
            (403, errors.PermissionDeniedError),
            (429, errors.RateLimitError),
            (408, errors.ServerError),
            (500, errors.ServerError),
            (503, errors.ServerError),
        ],
    )
    def test_undocumented_error_code_is_classified_by_the_http_status(self, status, kind):
        with pytest.raises(kind):
            v2.get_task("7").read_response(answer(status, {"code": 4711, "msg": "new"}))

    @pytest.mark.parametrize("code", [4711, "4711"])
    @pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 422])
    def test_error_envelope_of_browseract_with_http_4xx_proves_that_nothing_was_started(self, status, code):
        envelope = {"code": code, "msg": "Not today.", "data": None, "ts": 1, "traceId": "t"}
        with pytest.raises(errors.BrowserActError, match=r"^BrowserAct refused the start: Not today") as caught:
            v2.run_task("70").read_response(answer(status, envelope))
        assert caught.value.started_nothing
        assert caught.value.temporary is False

    @pytest.mark.parametrize(
        ("status", "changed"),
        [
            (200, {}),
            (401, {}),
            (408, {}),
            (500, {}),
            (503, {}),
            (400, {"code": "QUOTA_EXCEEDED"}),
            (400, {"code": None}),
            (400, {"msg": ""}),
            (400, {"traceId": None}),
            (400, {"data": {"id": "5"}}),
            (400, {"id": "5"}),
            (400, {"task_id": "5"}),
        ],
        ids=str,
    )
    def test_other_refusal_with_an_undocumented_code_does_not_prove_that_nothing_was_started(self, status, changed):
        envelope = {"code": 4711, "msg": "Not today.", "traceId": "t", **changed}
        with pytest.raises(errors.BrowserActError) as caught:
            v2.run_task("70").read_response(answer(status, envelope))
        assert caught.value.started_nothing is False

    @pytest.mark.parametrize("words", ["Insufficient credits.", "Your credit is used up", "Account balance too low"])
    @pytest.mark.parametrize("status", [200, 400, 402, 403])
    def test_refusal_about_credits_is_recognized_by_its_words_and_has_a_remedy_for_them(self, status, words):
        refused = answer(status, {"code": 90002, "msg": words, "traceId": "t"})
        with pytest.raises(errors.InsufficientCreditsError, match="If the account has no credits left, add some"):
            v2.run_task("70").read_response(refused)
        with pytest.raises(errors.BrowserActError) as caught:
            v2.get_task("7").read_response(refused)
        assert not isinstance(caught.value, errors.InsufficientCreditsError)

    @pytest.mark.parametrize("code", [4711, "4711", "QUOTA_EXCEEDED"])
    @pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 409, 422, 500])
    def test_undocumented_error_code_does_not_prove_that_a_start_was_not_processed(self, status, code):
        with pytest.raises(errors.BrowserActError) as caught:
            v2.run_task("70").read_response(answer(status, {"code": code, "msg": "new"}))
        assert caught.value.not_processed is False
        assert not isinstance(caught.value, errors.NotTheApiError)
        assert caught.value.temporary is (status == 500)
        assert str(code) in caught.value.brief

    def test_http_429_alone_proves_that_a_start_was_not_processed(self):
        with pytest.raises(errors.RateLimitError) as caught:
            v2.run_task("70").read_response(answer(429, {"code": 4711, "msg": "new"}))
        assert caught.value.not_processed is True

    @pytest.mark.parametrize("call", [v2.run_task("70"), v2.get_workflow("70")], ids=["run-task", "get-workflow"])
    def test_workflow_not_found_error_names_the_workflow_in_its_remedy(self, call):
        with pytest.raises(errors.WorkflowNotFoundError) as caught:
            call.read_response(answer(400, {"code": 10111, "msg": "not visible"}))
        assert "Check workflow_id '70' (dashboard" in str(caught.value)
        assert "RunTemplateOperator" in str(caught.value)

    def test_error_message_of_the_api_becomes_one_line_of_bounded_length(self):
        with pytest.raises(errors.InvalidRequestError) as caught:
            v2.get_task("7").read_response(
                answer(400, {"code": 99001, "msg": "first\nsecond\x1b[31m\u2028" + "x" * 5000, "traceId": "a\nb"})
            )
        assert caught.value.msg is not None
        assert caught.value.msg.startswith("first second [31m xxx")
        assert len(caught.value.msg) == 1000
        assert caught.value.trace_id == "a b"

    @cases("body", {"no code": {"msg": "task service timeout"}, "code 0": {"code": 0, "msg": "x", "traceId": "t"}})
    def test_refusal_without_a_code_does_not_prove_that_a_start_was_not_processed(self, body):
        with pytest.raises(errors.UnknownRefusalError) as caught:
            v2.run_task("70").read_response(answer(409, body))
        assert caught.value.started_nothing is False
        assert caught.value.msg == body["msg"]

    @cases("field", {"status": '"status": %s', "output": '"status": "finished", "output": {"string": %s}'})
    def test_response_that_is_nested_too_deeply_raises_the_same_error_whatever_fails_first(self, field):
        # Near the limit of Python, JSON can be read, but no longer be written or described.
        limit, failed = sys.getrecursionlimit(), 0
        for levels in (*range(limit - 100, limit + 1), *range(2 * limit, 200 * limit, 7 * limit)):
            nested = "[" * levels + "]" * levels
            body = '{"id": "7", ' + field % nested + "}"
            try:
                v2.get_task("7").read_response(Response(200, {}, body.encode()))
            except errors.UnexpectedResponseError:
                failed += 1
        assert failed

    def test_response_about_another_task_raises(self):
        with pytest.raises(errors.UnexpectedResponseError, match="it is about another task"):
            v2.get_task("7").read_response(answer(200, {"id": "8", "status": "finished"}))

    @pytest.mark.parametrize("words", [{"msg": "Task is not exist."}, {}], ids=["with msg", "without msg"])
    @pytest.mark.parametrize("call", [v2.stop_task("7"), v2.run_task("70")], ids=["stop-task", "run-task"])
    def test_error_code_with_http_200_still_raises(self, call, words):
        with pytest.raises(errors.TaskNotFoundError):
            call.read_response(answer(200, {"code": 10112, "id": "5", **words}))

    @pytest.mark.parametrize("code", ["E1", 1.5, True, [], -1], ids=repr)
    def test_odd_code_with_http_200_is_an_unknown_refusal(self, code):
        with pytest.raises(errors.UnknownRefusalError):
            v2.run_task("70").read_response(answer(200, {"code": code, "id": "5"}))

    def test_code_of_thousands_of_digits_is_an_unknown_refusal(self):
        with pytest.raises(errors.UnknownRefusalError):
            v2.run_task("70").read_response(answer(400, {"code": "9" * 5000, "msg": "x"}))

    @pytest.mark.parametrize("code", [0, "0"], ids=repr)
    def test_response_wrapped_in_an_envelope_of_success_is_read(self, code):
        wrapped = {"code": code, "msg": "success", "data": {"id": "5", "profile_id": "9"}}
        assert v2.run_task("70").read_response(answer(200, wrapped)) == CreatedTask("5", "9")

    @pytest.mark.parametrize(
        "body", [None, {}, {"code": 0}, {"code": 0, "msg": "success"}, {"code": 0, "data": None}], ids=json.dumps
    )
    @pytest.mark.parametrize("call", [v2.stop_task("7"), v2.resume_task("7")], ids=["stop-task", "resume-task"])
    def test_stop_and_resume_accept_an_empty_response_and_code_0(self, call, body):
        assert call.read_response(answer(200, body)) is None

    @pytest.mark.parametrize(
        "body",
        [
            *({"success": False}, {"status": 404, "error": "Not Found"}, {"msg": "no"}),
            *({"code": None, "msg": "Task is not exist."}, {"code": False}, {"code": None, "data": None}),
            *([1], [], "Unauthorized", False, 0),
        ],
        ids=json.dumps,
    )
    @pytest.mark.parametrize("call", [v2.stop_task("7"), v2.resume_task("7")], ids=["stop-task", "resume-task"])
    def test_stop_and_resume_accept_no_other_response_as_a_success(self, call, body):
        with pytest.raises(errors.UnexpectedResponseError, match="should be empty"):
            call.read_response(answer(200, body))

    @pytest.mark.parametrize("code", [None, 4711], ids=["no code", "undocumented code"])
    @pytest.mark.parametrize(
        "words",
        [
            "Running tasks number exceeds.",
            "Too many running tasks",
            "The concurrent limit of your plan is reached",
            "A Standard Browser takes one active task at a time",
            "The maximum number of parallel browsers is in use",
        ],
    )
    def test_start_refused_without_a_free_slot_is_recognized_by_its_words(self, words, code):
        refused = answer(400, {"msg": words} if code is None else {"code": code, "msg": words})
        with pytest.raises(errors.ConcurrencyLimitError) as caught:
            v2.run_task("70").read_response(refused)
        assert caught.value.started_nothing
        with pytest.raises(errors.UnknownRefusalError):
            v2.get_task("7").read_response(refused)

    @pytest.mark.parametrize("status", [200, 408, 500, 504])
    def test_words_about_slots_in_another_error_do_not_prove_that_nothing_was_started(self, status):
        failed = answer(status, {"code": 50000, "msg": "java.util.concurrent.TimeoutException", "traceId": "t"})
        with pytest.raises(errors.BrowserActError) as caught:
            v2.run_task("70").read_response(failed)
        assert not isinstance(caught.value, errors.ConcurrencyLimitError)
        assert not caught.value.started_nothing

    @pytest.mark.parametrize("status", [401, 403])
    def test_web_page_with_http_401_or_403_does_not_blame_the_key(self, status):
        page = Response(status, {"content-type": "text/html"}, b"<html>Request blocked</html>")
        with pytest.raises(errors.NotTheApiError, match="a firewall") as caught:
            v2.get_task("7").read_response(page)
        assert "API key" not in str(caught.value)

    @pytest.mark.parametrize(
        ("status", "kind"), [(401, errors.AuthenticationError), (403, errors.PermissionDeniedError)]
    )
    def test_empty_response_with_http_401_or_403_blames_the_key(self, status, kind):
        with pytest.raises(kind):
            v2.get_task("7").read_response(Response(status, {}, b""))

    @pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (404, b"<html>"), (404, b""), (302, b"")])
    def test_web_page_or_redirect_raises_that_the_host_is_not_the_api(self, status, body):
        with pytest.raises(errors.NotTheApiError, match="host of the Airflow connection") as caught:
            v2.get_task("7").read_response(Response(status, {"content-type": "text/html"}, body))
        assert str(caught.value).count(f"HTTP {status}") == 1

    def test_json_of_another_api_raises_that_the_host_is_not_the_api(self):
        with pytest.raises(errors.NotTheApiError, match="is not from BrowserAct's API"):
            v2.get_task("7").read_response(answer(404, {"message": "Not Found"}))

    def test_truncated_json_is_an_unexpected_response_and_not_a_wrong_host(self):
        with pytest.raises(errors.UnexpectedResponseError, match="not complete JSON") as caught:
            v2.run_task("70").read_response(Response(200, JSON, b'{"id": "123", "profile'))
        assert not isinstance(caught.value, errors.NotTheApiError)

    def test_gateway_page_with_http_502_is_a_server_error(self):
        with pytest.raises(errors.ServerError):
            v2.get_task("7").read_response(Response(502, {"content-type": "text/html"}, b"<html>Bad gateway"))

    @cases(
        ("value", "seconds"),
        {
            "seconds": ("3", 3.0),
            "fraction": ("0.5", 0.5),
            "negative": ("-1", 0.0),
            "not a number": ("soon", None),
            "NaN": ("nan", None),
            "infinite": ("inf", None),
            "too large": ("1e999", None),
            "past date": ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
            "impossible time zone": ("Mon, 01 Jan 2024 00:00:00 -99999999999999999999", None),
        },
    )
    def test_retry_after_in_seconds_is_read(self, value, seconds):
        with pytest.raises(errors.RateLimitError) as caught:
            v2.get_task("7").read_response(answer(429, {}, **{"retry-after": value}))
        assert caught.value.retry_after == seconds

    @pytest.mark.parametrize("zone", [" GMT", " -0000", ""], ids=["GMT", "zone unknown", "no zone"])
    def test_retry_after_as_a_date_is_read(self, zone):
        written = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
        moment = written.removesuffix(" GMT") + zone
        with pytest.raises(errors.RateLimitError) as caught:
            v2.get_task("7").read_response(answer(429, {}, **{"retry-after": moment}))
        assert caught.value.retry_after == pytest.approx(30, abs=2)


NOON = datetime(2026, 11, 27, 12, 0, tzinfo=timezone.utc)


@cases(
    ("headers", "moment"),
    {
        "GMT": ({"date": "Fri, 27 Nov 2026 12:00:00 GMT"}, NOON),
        "no zone": ({"date": "Fri, 27 Nov 2026 12:00:00"}, NOON),
        "from a cache": ({"date": "Fri, 27 Nov 2026 12:00:00 GMT", "age": "30"}, None),
        "not a date": ({"date": "noon"}, None),
        "impossible time zone": ({"date": "Mon, 01 Jan 2024 00:00:00 -99999999999999999999"}, None),
        "missing": ({}, None),
    },
)
def test_page_has_the_time_of_its_response(headers, moment):
    page = v2.list_tasks().read_response(answer(200, {"items": []}, **headers))
    assert page.served_at == moment
