"""Both clients, each test with the one and the other, against the emulator and against sockets that misbehave."""

from __future__ import annotations

import asyncio
import re
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.bodies import CHUNK_SIZE
from airflow_provider_browseract.api.client import LARGE_BODY, AsyncBrowserActClient
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.retries import RetryPolicy
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.emulator import ORDERS, Emulator, RequestFault
from tests.cases import cases

QUICK = RetryPolicy(budget=5.0, first_pause=0.01, longest_pause=0.02)
REGIONS = b'[{"code": "US"}]'


@pytest.fixture
def emulator() -> Iterator:
    emulator = Emulator(concurrency=5)
    emulator.set_workflow(ORDERS.id, one_at_a_time=False)
    with emulator.serve() as running:
        yield running


@pytest.fixture
def settings(emulator):
    return ClientSettings("app-emulator", emulator.url, retries=QUICK, connection="shop")


@pytest.fixture
def client(kind, settings):
    return kind(settings)


@pytest.fixture
def impatient(kind, settings):
    """A client for servers that hang."""
    return kind(replace(settings, read_timeout=1.0))


def count(emulator: Emulator, endpoint: str) -> int:
    return len([request for request in emulator.requests if request.endpoint == endpoint])


def test_item_that_cannot_be_read_is_skipped_but_a_list_without_any_other_is_not_an_empty_list(client, emulator):
    _, newest = client.send(v2.run_task(ORDERS.id)), client.send(v2.run_task(ORDERS.id))
    odd = {"items": [{"id": "5", "status": "transcended"}]}
    emulator.rewrite("list-tasks", lambda body: {"items": [*odd["items"], *body["items"][:1]], "total_count": 2})
    assert [task.id for task in client.items(v2.list_tasks())] == [newest.id]
    emulator.rewrite("list-tasks", lambda body: {**odd, "total_count": 1})
    with pytest.raises(errors.UnexpectedResponseError, match=r"none of the 1 items .* list-tasks .*'transcended'"):
        client.items(v2.list_tasks())


def test_client_reads_lists_to_their_last_page(client, emulator):
    for call, sources in (
        (v2.list_workflows(limit=3), "workflow"),
        (v2.list_official_workflow_templates(limit=1), "template"),
    ):
        assert sorted(each.id for each in client.items(call)) == sorted(each.id for each in emulator.of_kind(sources))
    client.send(v2.run_task(ORDERS.id), v2.run_task(ORDERS.id))
    assert len(client.items(v2.list_tasks(workflow_id=ORDERS.id, limit=1))) == 2
    assert abs(client.send(v2.list_tasks()).served_at.timestamp() - time.time()) < 30


@pytest.mark.parametrize("path", ["", "/v2"])
def test_address_that_is_not_the_api_is_named_with_the_connection(kind, settings, emulator, path):
    if not path:
        emulator.fault("run-task", RequestFault.html())
    with pytest.raises(errors.UnexpectedResponseError) as caught:
        kind(replace(settings, base_url=emulator.url + path)).send(v2.run_task(ORDERS.id))
    assert f"(API address {emulator.url}{path})" in str(caught.value)
    assert "\nSet the host of the Airflow connection 'shop'" in str(caught.value)


@pytest.mark.parametrize("call", [v2.get_region_list(), v2.stop_task("7")], ids=lambda call: call.name)
def test_read_and_stop_are_sent_again_after_gateway_error_reset_lost_response_and_hang(impatient, emulator, call):
    for fault in (RequestFault.status(502), RequestFault.reset(), RequestFault.lost_response(), RequestFault.hung()):
        emulator.fault(call.name, fault, times=1)
    with suppress(errors.TaskNotFoundError):
        impatient.send(call)
    assert count(emulator, call.name) == 5
    assert emulator.requests[-1].status in (200, 400)


@pytest.mark.parametrize(
    "fault",
    [RequestFault.reset(), RequestFault.lost_response(), RequestFault.lost_response(status=502), RequestFault.hung()],
    ids=["reset", "lost response", "502 after creating", "hung"],
)
def test_start_with_an_unknown_outcome_is_never_sent_again(impatient, emulator, fault):
    emulator.fault("run-task", fault, times=None)
    with pytest.raises((errors.ResponseLostError, errors.ServerError)) as caught:
        impatient.send(v2.run_task(ORDERS.id))
    assert caught.value.not_processed is False
    assert count(emulator, "run-task") == 1


def test_start_refused_with_http_429_was_not_processed_and_is_left_to_the_queue(client, emulator):
    emulator.fault("run-task", RequestFault.status(429, retry_after=7), times=2)
    with pytest.raises(errors.RateLimitError) as refused:
        client.send(v2.run_task(ORDERS.id))
    assert (count(emulator, "run-task"), refused.value.retry_after, refused.value.not_processed) == (1, 7, True)


def test_client_waits_as_long_as_retry_after_requests(client, emulator):
    emulator.fault("get-region-list", RequestFault.status(429, retry_after=1), times=1)
    began = time.monotonic()
    client.send(v2.get_region_list())
    assert time.monotonic() - began >= 1


@cases(
    ("url", "reason"),
    {
        "refused": ("http://127.0.0.1:9", "Connection refused"),
        "refused before TLS": ("https://127.0.0.1:9", "Connection refused"),
        "unknown host": ("http://nowhere.invalid", "the name of the host cannot be resolved ("),
    },
)
def test_failed_connection_raises_an_error_with_url_and_reason_that_proves_the_start_was_not_processed(
    kind, url, reason
):
    settings = ClientSettings("app-key", url, retries=RetryPolicy(budget=0.1), connection="browseract_prod")
    with pytest.raises(errors.ConnectionFailedError) as caught:
        kind(settings).send(v2.run_task("70"))
    assert str(caught.value).startswith(f"No connection to {url} for run-task: {reason}")
    assert "host of the Airflow connection 'browseract_prod'" in str(caught.value)
    assert (type(caught.value), caught.value.not_processed) == (errors.ConnectionFailedError, True)


def test_wrong_api_key_raises_at_once_and_is_not_shown_in_the_error(kind, settings, emulator):
    with pytest.raises(errors.AuthenticationError, match=r"(?s)Invalid authorization.*connection 'shop'") as caught:
        kind(replace(settings, api_key="app-wrong")).send(v2.get_region_list())
    assert "app-wrong" not in str(caught.value)
    assert count(emulator, "get-region-list") == 1


def answering(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *headers, b"Content-Length: %d" % len(body), b"", body))


def packed(*sizes: int, cut: int = 0) -> bytes:
    """A response of gzip with a list of regions, and spaces after it, without its last bytes."""
    packing = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    body = b"".join(map(packing.compress, (REGIONS, *(b" " * size for size in sizes)))) + packing.flush()
    return answering(body[: len(body) - cut], b"Content-Encoding: gzip")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["another host", b"http://[", b"http://x/\xff"], ids=ascii)
def test_redirect_is_not_followed_so_the_api_key_is_not_sent_elsewhere(kind, one_answer, status, location):
    elsewhere = one_answer(answering(b"[]"))
    target = elsewhere.url.encode() if location == "another host" else location
    server = one_answer(b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, target))
    for call in (v2.get_region_list(), v2.run_task("70")):
        with pytest.raises(errors.UnexpectedResponseError):
            kind(ClientSettings("app-key", server.url)).send(call)
    assert elsewhere.received == []


@pytest.mark.parametrize("proxy", [False, True], ids=["direct", "through a proxy"])
@cases(
    "answer",
    {
        "nothing": b"",
        "part of the content": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id": "7"',
        "gzip without its last byte": packed(100_000, cut=1),
        "gzip without its trailer": packed(100_000, cut=9),
        "part of gzip": packed(100_000, cut=60),
        "no gzip": answering(REGIONS, b"Content-Encoding: gzip"),
    },
)
def test_response_to_a_start_that_cannot_be_read_is_lost_and_the_start_not_sent_again(
    kind, one_answer, monkeypatch, answer, proxy
):
    server = one_answer(answer)
    if proxy:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(errors.ResponseLostError):
        kind(ClientSettings("app-key", "http://api.example" if proxy else server.url, retries=QUICK)).send(
            v2.run_task("70")
        )
    assert len(server.received) == 1


def test_request_has_user_agent_and_api_key_whatever_netrc_contains(kind, one_answer, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server = one_answer(answering(b"[]"))
    kind(ClientSettings("app-key", server.url, user_agent="provider/1 airflow/2")).send(v2.get_region_list())
    request = server.received[0].decode().lower()
    assert "authorization: bearer app-key" in request
    assert "user-agent: provider/1 airflow/2" in request


def test_client_sends_consecutive_calls_over_one_connection(kind, one_answer):
    server = one_answer(answering(b"[]"), keep_alive=True)
    kind(ClientSettings("app-key", server.url)).send(*[v2.get_region_list()] * 5)
    assert (len(server.received), server.connections) == (5, 1)


@pytest.fixture
def regions(kind):
    """Send a call to a server, and return the regions."""
    return lambda server: kind(ClientSettings("app-key", server.url, retries=QUICK)).send(v2.get_region_list())


def test_small_gzip_body_that_expands_beyond_the_limit_takes_little_memory(regions, one_answer):
    server = one_answer(packed(*[1024 * 1024] * 260))
    assert len(server.answer) < 300_000
    tracemalloc.start()
    try:
        with pytest.raises(errors.ResponseTooLargeError, match="get-region-list is larger than 268435456 bytes"):
            regions(server)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 1024 * 1024
    assert len(server.received) == 1


LIMIT = "airflow_provider_browseract.api.bodies.MAX_RESPONSE"


@cases(
    ("answer", "limit"),
    {
        "body": (answering(REGIONS), len(REGIONS)),
        "gzip": (packed(100_000 - len(REGIONS)), 100_000),
        "gzip in several pieces": (packed(3 * CHUNK_SIZE + 1), 4 * CHUNK_SIZE),
    },
)
def test_response_up_to_the_limit_is_read_completely(regions, one_answer, monkeypatch, answer, limit):
    monkeypatch.setattr(LIMIT, limit)
    assert regions(one_answer(answer))[0].code == "US"


LARGER = {"body": (answering(REGIONS), len(REGIONS) - 1), "gzip": (packed(100_000), 1000)}


@cases(("answer", "limit"), LARGER)
def test_larger_response_is_refused_and_no_second_request_sent(regions, one_answer, monkeypatch, answer, limit):
    monkeypatch.setattr(LIMIT, limit)
    server = one_answer(answer, keep_alive=True)
    with pytest.raises(errors.ResponseTooLargeError) as caught:
        regions(server)
    assert str(caught.value).startswith(f"The response to get-region-list is larger than {limit} bytes.")
    # There is nothing that a worker could raise.
    assert "max_response" not in str(caught.value)
    assert "let the workflow return less" in str(caught.value)
    assert (caught.value.http_status, caught.value.temporary, caught.value.not_processed) == (200, False, False)
    assert len(server.received) == 1


def test_list_whose_pages_are_too_large_is_read_in_smaller_pages(client, emulator, monkeypatch):
    monkeypatch.setattr(LIMIT, 800)
    workflows = client.items(v2.list_workflows())
    assert {workflow.id for workflow in workflows} == {each.id for each in emulator.of_kind("workflow")}
    queries = [request.query for request in emulator.requests if request.endpoint == "list-workflows"]
    limits = [int(re.findall(r"limit=(\d+)", query)[0]) for query in queries]
    assert limits[0] == 500
    assert max(limits[1:]) < 500


def send_in_event_loop(server, call: Call[Any], max_response: int | None = None):
    async def go():
        async with AsyncBrowserActClient(ClientSettings("app-key", server.url), max_response=max_response) as client:
            return await client.send(call)

    return asyncio.run(go())


@pytest.mark.parametrize(("size", "on_the_loop"), [(LARGE_BODY, True), (LARGE_BODY + 1, False)])
def test_async_client_reads_a_large_response_in_another_thread(one_answer, size, on_the_loop):
    server, threads = one_answer(answering(b"{}".ljust(size))), []
    call: Call[Any] = v2.get_region_list()
    send_in_event_loop(server, replace(call, read=lambda data: threads.append(threading.get_ident())))
    assert (threads == [threading.get_ident()]) is on_the_loop
    with pytest.raises(errors.UnexpectedResponseError, match="should be a list"):
        send_in_event_loop(server, v2.get_region_list())


# A server without an end announces more than it sends, so reading to the end would be a lost response after 30 seconds.
@cases(("answer", "limit"), {**LARGER, "no end": (answering(REGIONS).replace(b"16", b"17"), len(REGIONS) - 1)})
def test_async_client_may_have_a_smaller_limit_which_the_error_names(one_answer, answer, limit):
    server = one_answer(answer, keep_alive=True)
    with pytest.raises(errors.ResponseTooLargeError) as caught:
        send_in_event_loop(server, v2.get_region_list(), limit)
    assert f"larger than {limit} bytes (max_response).\nRaise max_response." in str(caught.value)
    assert len(server.received) == 1


def test_key_digest_is_the_same_for_the_same_key_and_shows_nothing_of_it():
    digest = ClientSettings("app-123", connect_timeout=1.0).key_digest
    assert digest == ClientSettings("app-123", base_url="https://elsewhere.example").key_digest
    assert digest != ClientSettings("app-124").key_digest
    assert len(digest) == 16
    assert "app" not in digest
