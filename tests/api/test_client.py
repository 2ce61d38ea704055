"""Both clients, each test with the one and the other, against the emulator and against sockets that misbehave."""

import gzip
import time
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api import async_client as client_module
from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.emulator import ORDERS, RequestFault
from tests.api.conftest import Async
from tests.helpers.cases import cases
from tests.helpers.steps import replace
from tests.helpers.workers import calls_of

QUICK: dict[str, Any] = {"retry_budget": 5.0, "first_pause": 0.01, "longest_pause": 0.02}
REGIONS = b'[{"code": "US"}]'


@pytest.fixture
def emulator(browseract_emulator):
    return browseract_emulator


@pytest.fixture
def settings(emulator):
    return Settings(api_key="app-emulator", base_url=emulator.url, connection="shop", **QUICK)


@pytest.fixture
def client(kind, settings):
    return kind(settings)


@pytest.fixture
def impatient(kind, settings):
    return kind(replace(settings, read_timeout=1.0))


def test_client_reads_lists_to_their_last_page(client, emulator):
    for call, sources in ((v2.list_sources(limit=3), "workflow"), (v2.list_templates(limit=1), "template")):
        assert sorted(each.id for each in client.items(call)) == sorted(each.id for each in emulator.of_kind(sources))
    client.send(v2.run(ORDERS.id), v2.run(ORDERS.id))
    assert len(client.items(v2.list_tasks(source_id=ORDERS.id, limit=1))) == 2
    assert abs(client.send(v2.list_tasks()).served_at.timestamp() - time.time()) < 30


def test_address_that_is_not_the_api_is_named_with_the_connection(kind, settings, emulator):
    with pytest.raises(errors.UnexpectedResponseError) as caught:
        kind(replace(settings, base_url=f"{emulator.url}/v2")).send(v2.run(ORDERS.id))
    assert f"(API address {emulator.url}/v2)" in str(caught.value)
    assert "\nSet the host of the Airflow connection 'shop'" in str(caught.value)


@pytest.mark.parametrize("call", [v2.list_regions(), v2.stop_task("7")], ids=lambda call: call.name)
def test_read_and_stop_are_sent_again_after_gateway_error_reset_lost_response_and_hang(impatient, emulator, call):
    for fault in (RequestFault.status(502), RequestFault.reset(), RequestFault.lost_response(), RequestFault.hung()):
        emulator.fault(call.name, fault, times=1)
    with suppress(errors.TaskNotFoundError):
        impatient.send(call)
    assert calls_of(emulator, call.name) == 5
    assert emulator.requests[-1].status in (200, 400)


@pytest.mark.parametrize(
    "fault",
    [RequestFault.reset(), RequestFault.lost_response(), RequestFault.lost_response(status=502), RequestFault.hung()],
    ids=["reset", "lost response", "502 after creating", "hung"],
)
def test_start_with_an_unknown_outcome_is_never_sent_again(impatient, emulator, fault):
    emulator.fault("run-task", fault, times=None)
    with pytest.raises((errors.ResponseLostError, errors.ServerError)) as caught:
        impatient.send(v2.run(ORDERS.id))
    assert caught.value.not_processed is False
    assert calls_of(emulator, "run-task") == 1


@cases(
    ("refused", "http://127.0.0.1:9", "Connection refused"),
    ("refused before TLS", "https://127.0.0.1:9", "Connection refused"),
    ("unknown host", "http://nowhere.invalid", "the name of the host cannot be resolved ("),
)
def test_failed_connection_is_an_error_with_url_and_reason_and_nothing_was_processed(kind, url, reason):
    settings = Settings(api_key="app-key", base_url=url, retry_budget=0.1, connection="browseract_prod")
    with pytest.raises(errors.ConnectionFailedError) as caught:
        kind(settings).send(v2.run("70"))
    assert str(caught.value).startswith(f"No connection to {url} for run-task: {reason}")
    assert "host of the Airflow connection 'browseract_prod'" in str(caught.value)
    assert (type(caught.value), caught.value.not_processed) == (errors.ConnectionFailedError, True)


def answering(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *headers, b"Content-Length: %d" % len(body), b"", body))


GZIP = gzip.compress(REGIONS)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["another host", b"http://[", b"http://x/\xff"], ids=ascii)
def test_redirect_is_not_followed_so_the_api_key_is_not_sent_elsewhere(kind, one_answer, status, location):
    elsewhere = one_answer(answering(b"[]"))
    target = elsewhere.url.encode() if location == "another host" else location
    server = one_answer(b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, target))
    for call in (v2.list_regions(), v2.run("70")):
        with pytest.raises(errors.UnexpectedResponseError):
            kind(Settings(api_key="app-key", base_url=server.url)).send(call)
    assert elsewhere.received == []


@pytest.mark.parametrize("proxy", [False, True], ids=["direct", "through a proxy"])
@cases(
    ("nothing", b""),
    ("part of the content", b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id": "7"'),
    ("part of gzip", answering(GZIP, b"Content-Encoding: gzip")[:-12]),
    ("no gzip", answering(REGIONS, b"Content-Encoding: gzip")),
)
def test_start_whose_response_cannot_be_read_is_not_sent_again(kind, one_answer, monkeypatch, proxy, answer):
    server = one_answer(answer)
    if proxy:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.delenv("no_proxy", raising=False)
    url = "http://api.example" if proxy else server.url
    with pytest.raises(errors.ResponseLostError):
        kind(Settings(api_key="app-key", base_url=url, **QUICK)).send(v2.run("70"))
    assert len(server.received) == 1


def test_request_has_user_agent_and_api_key_whatever_netrc_contains(kind, one_answer, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server = one_answer(answering(b"[]"))
    kind(Settings(api_key="app-key", base_url=server.url, user_agent="provider/1 airflow/2")).send(v2.list_regions())
    request = server.received[0].decode().lower()
    assert "authorization: bearer app-key" in request
    assert "user-agent: provider/1 airflow/2" in request


def test_client_sends_consecutive_calls_over_one_connection(kind, one_answer):
    server = one_answer(answering(b"[]"), keep_alive=True)
    kind(Settings(api_key="app-key", base_url=server.url)).send(*[v2.list_regions()] * 5)
    assert (len(server.received), server.connections) == (5, 1)


def test_compressed_response_is_read(kind, one_answer):
    server = one_answer(answering(GZIP, b"Content-Encoding: gzip"))
    assert kind(Settings(api_key="app-key", base_url=server.url)).send(v2.list_regions())[0].code == "US"


# A server without an end announces more than it sends, so reading to the end would be a lost response after 30 seconds.
@cases(
    ("body", answering(REGIONS)),
    ("gzip", answering(GZIP, b"Content-Encoding: gzip")),
    ("no end", answering(REGIONS).replace(b"16", b"17")),
)
def test_event_loop_reads_responses_up_to_a_limit_and_sends_no_second_request(one_answer, monkeypatch, answer):
    server = one_answer(answer, keep_alive=True)
    monkeypatch.setattr(client_module, "MAX_RESPONSE", len(REGIONS) - 1)
    with pytest.raises(errors.ResponseTooLargeError) as caught:
        Async(Settings(api_key="app-key", base_url=server.url)).send(v2.list_regions())
    assert str(caught.value).startswith(f"The response to get-region-list is larger than {len(REGIONS) - 1} bytes.")
    assert (caught.value.http_status, caught.value.temporary, caught.value.not_processed) == (200, False, False)
    assert len(server.received) == 1
    assert b"accept-encoding: identity" in server.received[0].lower()


def test_key_digest_is_the_same_for_the_same_key_and_shows_nothing_of_it():
    digest = Settings(api_key="app-123", connect_timeout=1.0).key_digest
    assert digest == Settings(api_key="app-123", base_url="https://elsewhere.example").key_digest
    assert digest != Settings(api_key="app-124").key_digest
    assert len(digest) == 16
    assert "app" not in digest
