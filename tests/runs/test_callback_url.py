from __future__ import annotations

import base64
import json

import pytest

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.runs.addresses import URL_LENGTH
from airflow_provider_browseract.runs.callback_url import (
    TOKEN_KEY,
    NoCallbackError,
    TaskInstanceKey,
    address,
    is_resumed_wait,
    is_token,
    new_token,
    resumed_wait,
)
from airflow_provider_browseract.runs.request import RunRequest, Source, digest
from airflow_provider_browseract.runs.waiting import Wait

WAITING = TaskInstanceKey("shop", "scheduled__2026-11-25T06:00:00+00:00", "group.search", 3)
PUBLIC = "https://api.browseract.com"


def encoded(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def arranged(base_url="https://airflow.example.com", waiting=WAITING, api_base_url=PUBLIC, **urls):
    request = RunRequest(Source(SourceKind.WORKFLOW, "70"), **urls)
    token = new_token()
    url = address(base_url, waiting, token, conn_id="browseract_default", api_base_url=api_base_url)
    return request.with_callback(url, token)


class TestTaskInstanceInUrl:
    @pytest.mark.parametrize(
        "waiting",
        [
            WAITING,
            TaskInstanceKey("täglich", "manual / 100 % ?#", "発注", -1),
            TaskInstanceKey("d" * 250, "r" * 250, "t" * 250, 1023),
        ],
        ids=["plain", "non-ASCII", "longest"],
    )
    def test_task_instance_encoded_in_callback_url_is_decoded_unchanged(self, waiting):
        part = waiting.encode()
        assert TaskInstanceKey.decode(part) == waiting
        assert part.isascii()
        assert part.replace("-", "").replace("_", "").isalnum()

    @pytest.mark.parametrize(
        "part",
        [
            "",
            "x",
            "%00",
            "é",
            "../../etc",
            encoded(None),
            encoded({"dag_id": "shop"}),
            encoded(["shop", "run", "task"]),
            encoded(["shop", "run", "task", "3"]),
            encoded(["shop", "run", "task", True]),
            encoded(["shop", "run", "task", 1.0]),
            encoded(["shop", "run", None, 1]),
            encoded(["shop", "run", "ta\0sk", 1]),
            encoded(["shop", "run", "\ud800", 1]),
            encoded(["shop", "run", "🛒", 1]),
            encoded(["shop", "run", "t" * 251, 1]),
            encoded(["shop", "run", "task", -2]),
            encoded(["shop", "run", "task", 2**31]),
            encoded(["shop", "run", "task", 10**30]),
            encoded(["shop", "run", "task", 1, 1]),
            base64.urlsafe_b64encode(b"[" * 5000).decode(),
            base64.urlsafe_b64encode(b"\xff\xfe").decode(),
            base64.urlsafe_b64encode(b"1" * 5000).decode(),
        ],
        ids=[
            "empty",
            "one character",
            "percent",
            "non-ASCII",
            "path",
            "null",
            "object",
            "three items",
            "map index as text",
            "map index as bool",
            "map index as float",
            "task id null",
            "null character",
            "surrogate",
            "emoji",
            "task id too long",
            "map index -2",
            "map index 2**31",
            "map index 10**30",
            "five items",
            "deep nesting",
            "not UTF-8",
            "5000 digits",
        ],
    )
    def test_invalid_task_instance_in_callback_url_is_refused(self, part):
        with pytest.raises(ValueError):  # noqa: PT011 - the words come from several libraries
            TaskInstanceKey.decode(part)

    def test_task_instance_encoded_with_other_json_spacing_is_refused(self):
        spaced = base64.urlsafe_b64encode(b'["shop", "run", "task", 1]').decode().rstrip("=")
        with pytest.raises(ValueError, match="it does not name a task instance"):
            TaskInstanceKey.decode(spaced)
        assert TaskInstanceKey.decode(WAITING.encode()).encode() == WAITING.encode()


class TestCallbackToken:
    def test_callback_token_has_256_bits_and_does_not_repeat(self):
        tokens = {new_token() for _ in range(100)}
        assert len(tokens) == 100
        assert all(is_token(token) and len(base64.urlsafe_b64decode(token + "=")) == 32 for token in tokens)

    @pytest.mark.parametrize(
        "text",
        ["", "short", "x" * 42, "x" * 44, "x" * 42 + "/", "x" * 43 + "\n"],
        ids=["empty", "short", "42 characters", "44 characters", "slash", "line break"],
    )
    def test_text_of_another_form_is_not_a_callback_token(self, text):
        assert not is_token(text)

    def test_digest_of_callback_token_is_sha256(self):
        assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class TestCallbackUrl:
    def test_callback_url_is_route_below_the_path_of_webhook_base_url(self):
        for base_url in ("https://airflow.example.com/team-X", "https://airflow.example.com/team-X/"):
            callback = arranged(base_url)
            assert callback.callback_url == (
                f"https://airflow.example.com/team-X/browseract/callback/{WAITING.encode()}/{callback.callback_token}"
            )
            assert callback.callback_token_sha256 == digest(callback.callback_token)

    def test_each_arranged_callback_url_is_different(self):
        assert arranged().callback_url != arranged().callback_url

    def test_callback_token_is_not_in_repr(self):
        callback = arranged()
        assert callback.callback_token not in repr(callback)

    def test_callback_url_is_put_where_the_user_has_set_no_url(self):
        free = arranged()
        assert (free.callback_url[:8], free.status_change_callback_url) == ("https://", None)
        mine = "https://mine.example.com/end"
        callback = arranged(callback_url=mine)
        assert callback.callback_url == mine
        assert callback.status_change_callback_url.endswith(callback.callback_token)
        assert callback.callback_token_sha256 == digest(callback.callback_token)
        callback = arranged(status_change_callback_url=mine)
        assert callback.callback_url.endswith(callback.callback_token)
        assert callback.callback_token_sha256 == digest(callback.callback_token)
        assert callback.status_change_callback_url == mine

    @pytest.mark.parametrize(
        ("base_url", "problem"),
        [
            ("ftp://airflow.example.com", "not an http or https address"),
            ("airflow.example.com", "not an http or https address"),
            ("https://", "not an http or https address"),
            ("https://airflow.example.com?x=1", "query"),
            ("https://airflow.example.com#top", "fragment"),
            ("https://me:secret@airflow.example.com", "login"),
            ("https://airflow.example.com/browseract/callback", "Remove /browseract/callback and what follows it"),
            ("https://10.0.0.7:8080", "10.0.0.7, which BrowserAct cannot reach"),
            ("http://localhost:8080", "localhost, which BrowserAct cannot reach"),
            ("https://airflow.example.com/" + "x" * 2000, "BrowserAct accepts at most 2048"),
        ],
        ids=[
            "ftp",
            "no scheme",
            "no host",
            "query",
            "fragment",
            "login",
            "route",
            "private address",
            "localhost",
            "too long",
        ],
    )
    def test_invalid_webhook_base_url_is_refused_naming_its_connection_field(self, base_url, problem):
        with pytest.raises(InputError, match=problem) as refused:
            arranged(base_url)
        assert "webhook_base_url of connection 'browseract_default'" in str(refused.value)
        assert "secret" not in str(refused.value)

    def test_private_callback_url_is_accepted_when_api_is_private(self):
        callback = arranged("http://127.0.0.1:8080", api_base_url="http://127.0.0.1:9000")
        assert callback.callback_url.startswith("http://127.0.0.1:8080/browseract/")

    def test_task_instance_names_too_long_for_callback_url_raise_no_callback_error(self):
        with pytest.raises(NoCallbackError, match=r"The callback address, which contains webhook_base_url .* 2048"):
            arranged(waiting=TaskInstanceKey("発" * 250, "発" * 250, "発" * 250, -1))

    def test_callback_url_may_have_as_many_characters_as_browseract_takes(self):
        others = len(arranged("https://airflow.example.com/").callback_url)
        base_url = "https://airflow.example.com/" + "x" * (URL_LENGTH - others - 1)
        assert len(arranged(base_url).callback_url) == URL_LENGTH
        with pytest.raises(NoCallbackError):
            arranged(base_url + "x")

    def test_task_instance_name_with_emoji_raises_no_callback_error(self):
        with pytest.raises(NoCallbackError, match="do not fit into a callback address"):
            arranged(waiting=TaskInstanceKey("shop", "run", "🛒", -1))


class TestWaitXCom:
    WAIT = Wait("7", 1.0, "0" * 64, first_poll_at=1795647413.0294871)

    def test_wait_xcom_of_callback_names_its_wait_and_token_digest(self):
        wait = resumed_wait(self.WAIT)
        assert (wait["woken_by"], wait[TOKEN_KEY]) == ("callback", "0" * 64)
        assert is_resumed_wait(wait, self.WAIT.first_poll_at)

    @pytest.mark.parametrize(
        "wait",
        [
            None,
            "callback",
            {},
            {"waits_for": "callback"},
            {"woken_by": "callback"},
            {"woken_by": "callback", "first_poll_at": None},
            {"woken_by": "callback", "first_poll_at": 1795647412.0294871},
            {"woken_by": "poll", "first_poll_at": 1795647413.0294871},
        ],
        ids=[
            "no XCom",
            "text",
            "empty",
            "still waiting",
            "no first poll",
            "first poll null",
            "another wait",
            "ended by poll",
        ],
    )
    def test_wait_xcom_of_another_wait_or_without_callback_does_not_match(self, wait):
        assert not is_resumed_wait(wait, self.WAIT.first_poll_at)

    def test_wait_xcom_matches_its_wait_after_database_rounds_the_time(self):
        assert is_resumed_wait({"woken_by": "callback", "first_poll_at": 1795647413.02949}, 1795647413.0294871)
