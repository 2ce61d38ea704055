from __future__ import annotations

import base64
import json

import pytest

from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.exceptions import InputError, NoCallbackError
from airflow_provider_browseract.runs import callback_url
from airflow_provider_browseract.runs.addresses import URL_LENGTH
from airflow_provider_browseract.runs.callback_url import TaskInstanceKey, is_resumed_wait, is_token
from airflow_provider_browseract.runs.request import RunRequest, Source, digest
from airflow_provider_browseract.runs.waiting import Wait
from tests.cases import cases

WAITING = TaskInstanceKey("shop", "scheduled__2026-11-25T06:00:00+00:00", "group.search", 3)
PUBLIC = "https://api.browseract.com"
FIRST_POLL = 1795647413.0294871
MINE = "https://mine.example.com/end"


def encoded(value) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def arranged(base_url="https://airflow.example.com", waiting=WAITING, api_base_url=PUBLIC, **urls):
    request = RunRequest(Source(SourceKind.WORKFLOW, "70"), **urls)
    token = callback_url.new_token()
    url = callback_url.address(base_url, waiting, token, conn_id="browseract_default", api_base_url=api_base_url)
    return request.with_callback(url, token)


@cases(
    "waiting",
    {
        "plain": WAITING,
        "non-ASCII": TaskInstanceKey("täglich", "manual / 100 % ?#", "発注", -1),
        "longest": TaskInstanceKey("d" * 250, "r" * 250, "t" * 250, 1023),
    },
)
def test_task_instance_encoded_in_callback_url_is_decoded_unchanged(waiting):
    part = waiting.encode()
    assert TaskInstanceKey.decode(part) == waiting
    assert part.isascii()
    assert part.replace("-", "").replace("_", "").isalnum()


@cases(
    "part",
    {
        "empty": "",
        "non-ASCII": "é",
        "null": encoded(None),
        "object": encoded({"dag_id": "shop"}),
        "map index as text": encoded(["shop", "run", "task", "3"]),
        "map index as bool": encoded(["shop", "run", "task", True]),
        "map index as float": encoded(["shop", "run", "task", 1.0]),
        "task id null": encoded(["shop", "run", None, 1]),
        "null character": encoded(["shop", "run", "ta\0sk", 1]),
        "surrogate": encoded(["shop", "run", "\ud800", 1]),
        "emoji": encoded(["shop", "run", "🛒", 1]),
        "task id too long": encoded(["shop", "run", "t" * 251, 1]),
        "map index -2": encoded(["shop", "run", "task", -2]),
        "map index 2**31": encoded(["shop", "run", "task", 2**31]),
        "map index 10**30": encoded(["shop", "run", "task", 10**30]),
        "other spacing": encoded(b'["shop", "run", "task", 1]'),
        "deep nesting": encoded(b"[" * 5000),
        "not UTF-8": encoded(b"\xff\xfe"),
        "5000 digits": encoded(b"1" * 5000),
    },
)
def test_invalid_task_instance_in_callback_url_is_refused(part):
    with pytest.raises(ValueError):  # noqa: PT011 - the words come from several libraries
        TaskInstanceKey.decode(part)


def test_callback_token_has_256_bits_and_does_not_repeat_and_another_text_is_none():
    tokens = {callback_url.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(is_token(token) and len(base64.urlsafe_b64decode(token + "=")) == 32 for token in tokens)
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert not [text for text in ("", "short", "x" * 42, "x" * 44, "x" * 42 + "/", "x" * 43 + "\n") if is_token(text)]


@cases(
    ("urls", "ours", "kept"),
    {
        "none": ({}, "callback_url", {"status_change_callback_url": None}),
        "end": ({"callback_url": MINE}, "status_change_callback_url", {"callback_url": MINE}),
        "changes": ({"status_change_callback_url": MINE}, "callback_url", {"status_change_callback_url": MINE}),
    },
)
@pytest.mark.parametrize("slash", ["", "/"])
@cases("server", {"public": "https://airflow.example.com", "private, as the API is": "http://127.0.0.1:8080"})
def test_callback_url_is_put_where_the_user_has_set_no_url_and_differs_each_time(server, slash, urls, ours, kept):
    api = PUBLIC if "example" in server else "http://127.0.0.1:9000"
    first, second = (arranged(f"{server}/team-X{slash}", api_base_url=api, **urls) for _ in range(2))
    token = first.callback_token
    assert getattr(first, ours) == f"{server}/team-X/browseract/callback/{WAITING.encode()}/{token}"
    assert {name: getattr(first, name) for name in kept} == kept
    assert first.callback_token_sha256 == digest(token)
    assert token != second.callback_token
    assert token not in repr(first)


@cases(
    ("base_url", "problem"),
    {
        "no host": ("https://", "not an http or https address"),
        "query": ("https://airflow.example.com?x=1", "query"),
        "fragment": ("https://airflow.example.com#top", "fragment"),
        "login": ("https://me:secret@airflow.example.com", "login"),
        "route": ("https://airflow.example.com/browseract/callback", "Remove /browseract/callback and what follows"),
        "private address": ("https://10.0.0.7:8080", "10.0.0.7, which BrowserAct cannot reach"),
        "localhost": ("http://localhost:8080", "localhost, which BrowserAct cannot reach"),
        "too long": ("https://airflow.example.com/" + "x" * 2000, "BrowserAct accepts at most 2048"),
    },
)
def test_invalid_webhook_base_url_is_refused_naming_its_connection_field(base_url, problem):
    with pytest.raises(InputError, match=problem) as refused:
        arranged(base_url)
    assert "webhook_base_url of connection 'browseract_default'" in str(refused.value)
    assert "secret" not in str(refused.value)


@cases(
    ("waiting", "why"),
    {
        "long names": (TaskInstanceKey("発" * 250, "発" * 250, "発" * 250, -1), "contains webhook_base_url .* 2048"),
        "emoji": (TaskInstanceKey("shop", "run", "🛒", -1), "do not fit into a callback address"),
    },
)
def test_task_instance_whose_names_do_not_fit_into_an_address_has_no_callback(waiting, why):
    with pytest.raises(NoCallbackError, match=why):
        arranged(waiting=waiting)


def test_callback_url_may_have_as_many_characters_as_browseract_takes():
    others = len(arranged("https://airflow.example.com/").callback_url)
    base_url = "https://airflow.example.com/" + "x" * (URL_LENGTH - others - 1)
    assert len(arranged(base_url).callback_url) == URL_LENGTH
    with pytest.raises(NoCallbackError):
        arranged(base_url + "x")


def test_wait_xcom_of_callback_names_its_wait_and_token_digest():
    wait = callback_url.resumed_wait(Wait("7", 1.0, "0" * 64, first_poll_at=FIRST_POLL))
    assert (wait["woken_by"], wait[callback_url.TOKEN_KEY]) == ("callback", "0" * 64)
    assert is_resumed_wait(wait, FIRST_POLL)
    # A database may round the time.
    assert is_resumed_wait({**wait, "first_poll_at": 1795647413.02949}, FIRST_POLL)


@cases(
    "wait",
    {
        "no XCom": None,
        "text": "callback",
        "empty": {},
        "still waiting": {"waits_for": "callback"},
        "no first poll": {"woken_by": "callback"},
        "first poll null": {"woken_by": "callback", "first_poll_at": None},
        "another wait": {"woken_by": "callback", "first_poll_at": FIRST_POLL - 1},
        "ended by poll": {"woken_by": "poll", "first_poll_at": FIRST_POLL},
    },
)
def test_wait_xcom_of_another_wait_or_without_callback_does_not_match(wait):
    assert not is_resumed_wait(wait, FIRST_POLL)
