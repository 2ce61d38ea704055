from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from airflow_provider_browseract.runs.inputs import InputError
from airflow_provider_browseract.webhook.callback import (
    TOKEN_KEY,
    NoCallbackError,
    WaitingTask,
    arrange,
    digest,
    is_resumed_wait,
    is_token,
    new_token,
    resumed_wait,
)

WAITING = WaitingTask("shop", "scheduled__2026-11-25T06:00:00+00:00", "group.search", 3)
PUBLIC = "https://api.browseract.com"


def encoded(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def arranged(base_url="https://airflow.example.com", waiting=WAITING, api_base_url=PUBLIC, **urls):
    return arrange(
        base_url,
        waiting,
        conn_id="browseract_default",
        api_base_url=api_base_url,
        **{"callback_url": None, "status_change_callback_url": None, **urls},
    )


class TestATaskInstanceInAnAddress:
    @pytest.mark.parametrize(
        "waiting",
        [
            WAITING,
            WaitingTask("täglich", "manual / 100 % ?#", "発注", -1),
            WaitingTask("d" * 250, "r" * 250, "t" * 250, 1023),
        ],
    )
    def test_comes_out_as_it_went_in(self, waiting):
        part = waiting.encode()
        assert WaitingTask.decode(part) == waiting
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
    )
    def test_anything_else_is_refused(self, part):
        with pytest.raises(ValueError):  # noqa: PT011 - the words come from several libraries
            WaitingTask.decode(part)

    def test_has_one_spelling_only(self):
        spaced = base64.urlsafe_b64encode(b'["shop", "run", "task", 1]').decode().rstrip("=")
        with pytest.raises(ValueError, match="no task instance"):
            WaitingTask.decode(spaced)
        assert WaitingTask.decode(WAITING.encode()).encode() == WAITING.encode()


class TestATokenIs:
    def test_of_256_bits_and_never_the_same(self):
        tokens = {new_token() for _ in range(100)}
        assert len(tokens) == 100
        assert all(is_token(token) and len(base64.urlsafe_b64decode(token + "=")) == 32 for token in tokens)

    @pytest.mark.parametrize("text", ["", "short", "x" * 42, "x" * 44, "x" * 42 + "/", "x" * 43 + "\n"])
    def test_told_from_other_text_by_its_form(self, text):
        assert not is_token(text)

    def test_stored_as_its_digest(self):
        assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class TestAnAddress:
    def test_leads_to_the_route_below_the_path_of_the_base_url(self):
        for base_url in ("https://airflow.example.com/team-a", "https://airflow.example.com/team-a/"):
            callback = arranged(base_url)
            assert callback.callback_url == (
                f"https://airflow.example.com/team-a/browseract/callback/{WAITING.encode()}/{callback.token}"
            )
            assert callback.token_sha256 == digest(callback.token)

    def test_is_new_for_each_run(self):
        assert arranged().callback_url != arranged().callback_url

    def test_keeps_its_token_out_of_its_description(self):
        callback = arranged()
        assert callback.token not in repr(callback)

    def test_goes_where_the_user_has_no_receiver(self):
        free = arranged()
        assert (free.callback_url[:8], free.status_change_callback_url) == ("https://", None)
        mine = "https://mine.example.com/end"
        callback = arranged(callback_url=mine)
        assert callback.callback_url == mine
        assert callback.status_change_callback_url.endswith(callback.token)
        callback = arranged(status_change_callback_url=mine)
        assert callback.callback_url.endswith(callback.token)
        assert callback.status_change_callback_url == mine

    def test_is_not_made_where_both_places_are_taken(self):
        mine = "https://mine.example.com/end"
        with pytest.raises(NoCallbackError, match="both in use"):
            arranged(callback_url=mine, status_change_callback_url=mine)

    @pytest.mark.parametrize(
        ("base_url", "problem"),
        [
            ("ftp://airflow.example.com", "not an http or https address"),
            ("airflow.example.com", "not an http or https address"),
            ("https://", "not an http or https address"),
            ("https://airflow.example.com?x=1", "query"),
            ("https://airflow.example.com#top", "fragment"),
            ("https://me:secret@airflow.example.com", "login"),
            ("https://10.0.0.7:8080", "10.0.0.7, which BrowserAct cannot reach"),
            ("http://localhost:8080", "localhost, which BrowserAct cannot reach"),
            ("https://airflow.example.com/" + "x" * 2000, "BrowserAct takes at most 2048"),
        ],
    )
    def test_that_browseract_would_not_take_is_refused_with_its_source_named(self, base_url, problem):
        with pytest.raises(InputError, match=problem) as refused:
            arranged(base_url)
        assert "webhook_base_url of connection 'browseract_default'" in str(refused.value)
        assert "secret" not in str(refused.value)

    def test_may_be_private_where_the_api_is(self):
        callback = arranged("http://127.0.0.1:8080", api_base_url="http://127.0.0.1:9000")
        assert callback.callback_url.startswith("http://127.0.0.1:8080/browseract/")

    def test_is_not_made_of_names_that_are_too_long_for_one(self):
        with pytest.raises(NoCallbackError, match=r"The callback address made from webhook_base_url .* 2048"):
            arranged(waiting=WaitingTask("発" * 250, "発" * 250, "発" * 250, -1))

    def test_is_not_made_of_names_that_some_database_cannot_be_asked_for(self):
        with pytest.raises(NoCallbackError, match="do not fit into a callback address"):
            arranged(waiting=WaitingTask("shop", "run", "🛒", -1))


class TestTheXComOfAWait:
    ARGUMENTS: dict[str, Any] = {"first_poll_at": 1795647413.0294871, TOKEN_KEY: "0" * 64, "deadline": 1.0}

    def test_that_a_callback_ended_names_that_wait_and_the_digest(self):
        wait = resumed_wait(self.ARGUMENTS)
        assert (wait["woken_by"], wait[TOKEN_KEY]) == ("callback", "0" * 64)
        assert is_resumed_wait(wait, self.ARGUMENTS["first_poll_at"])

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
    )
    def test_of_another_wait_or_another_end_does_not_name_it(self, wait):
        assert not is_resumed_wait(wait, self.ARGUMENTS["first_poll_at"])

    def test_names_the_wait_in_a_database_that_rounds(self):
        assert is_resumed_wait({"woken_by": "callback", "first_poll_at": 1795647413.02949}, 1795647413.0294871)
