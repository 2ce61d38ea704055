import base64
from uuid import uuid4

import pytest

from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.runs import callback_url
from airflow_provider_browseract.runs.callback_url import TOKEN, is_resumed_wait
from airflow_provider_browseract.runs.request import RunRequest, Source, digest
from airflow_provider_browseract.runs.wait import Wait
from tests.helpers.cases import cases

TI_ID = uuid4()
PUBLIC = "https://api.browseract.com"
BEGAN = 1795647413.0294871


def arranged(base_url="https://airflow.example.com", api_base_url=PUBLIC):
    token = callback_url.new_token()
    url = callback_url.address(base_url, TI_ID, token, conn_id="browseract_default", api_base_url=api_base_url)
    return RunRequest(Source(SourceKind.WORKFLOW, "70"), callback_url=url, callback_token=token)


def test_callback_token_has_256_bits_and_does_not_repeat_and_another_text_is_none():
    tokens = {callback_url.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(TOKEN.fullmatch(token) and len(base64.urlsafe_b64decode(token + "=")) == 32 for token in tokens)
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert not [
        text for text in ("", "short", "x" * 42, "x" * 44, "x" * 42 + "/", "x" * 43 + "\n") if TOKEN.fullmatch(text)
    ]


@pytest.mark.parametrize("slash", ["", "/"])
@cases("server", {"public": "https://airflow.example.com", "private, as the API is": "http://127.0.0.1:8080"})
def test_callback_url_has_the_id_of_the_task_instance_and_a_token_that_differs_each_time(server, slash):
    api = PUBLIC if "example" in server else "http://127.0.0.1:9000"
    first, second = (arranged(f"{server}/team-X{slash}", api_base_url=api) for _ in range(2))
    token = first.callback_token
    assert first.callback_url == f"{server}/team-X/browseract/callback/{TI_ID}/{token}"
    assert first.status_change_callback_url is None
    assert first.callback_token_sha256 == digest(token)
    assert token != second.callback_token
    assert token not in repr(first)


@cases(
    ("no host", "https://", "not an http or https address"),
    ("query", "https://airflow.example.com?x=1", "query"),
    ("fragment", "https://airflow.example.com#top", "fragment"),
    ("login", "https://me:secret@airflow.example.com", "login"),
    ("route", "https://airflow.example.com/browseract/callback", "Remove /browseract/callback and what follows"),
    ("private address", "https://10.0.0.7:8080", "has a private host, which BrowserAct cannot reach"),
    ("too long", "https://airflow.example.com/" + "x" * 2000, "BrowserAct accepts at most 2048"),
)
def test_invalid_webhook_base_url_is_refused_naming_its_connection_field(base_url, problem):
    with pytest.raises(InputError, match=problem) as refused:
        arranged(base_url)
    assert "webhook_base_url of connection 'browseract_default'" in str(refused.value)
    assert "secret" not in str(refused.value)


RESUMED = callback_url.resumed_wait(Wait("7", 1.0, began_at=BEGAN))


@cases(
    ("ended by its callback", RESUMED, True),
    ("time that a database has rounded", {**RESUMED, "began_at": 1795647413.02949}, True),
    ("no XCom", None, False),
    ("still waiting", {"waits_for": "callback"}, False),
    ("beginning is null", {"woken_by": "callback", "began_at": None}, False),
    ("another wait", {"woken_by": "callback", "began_at": BEGAN - 1}, False),
    ("ended by poll", {"woken_by": "poll", "began_at": BEGAN}, False),
)
def test_wait_xcom_matches_only_the_wait_that_a_callback_has_ended(wait, matches):
    assert is_resumed_wait(wait, BEGAN) is matches
