"""Both clients, each test with the one and the other, against the emulator and against sockets that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_browseract.api import errors, v2
from airflow_provider_browseract.api.bodies import CHUNK_SIZE
from airflow_provider_browseract.api.client import LARGE_BODY, AsyncBrowserActClient
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.retries import RetryPolicy
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.emulator import ORDERS, Emulator, RequestFault
from tests.demos import report_status

QUICK = RetryPolicy(budget=5.0, first_pause=0.01, longest_pause=0.02)


@pytest.fixture
def running() -> Iterator:
    emulator = Emulator(concurrency=5)
    emulator.set_workflow(ORDERS.id, one_at_a_time=False)
    with emulator.serve() as running:
        yield running


@pytest.fixture
def emulator(running) -> Emulator:
    return running


@pytest.fixture
def client(kind, running):
    return kind(ClientSettings("app-emulator", running.url, retries=QUICK))


@pytest.fixture
def impatient(kind, running):
    """A client for servers that hang."""
    return kind(ClientSettings("app-emulator", running.url, read_timeout=1.0, retries=QUICK))


def count(emulator: Emulator, endpoint: str) -> int:
    return len([request for request in emulator.requests if request.endpoint == endpoint])


def test_client_starts_reads_and_stops_a_run(client, emulator):
    created = client.send(v2.run_task(ORDERS.id, save_browser_data=True))
    assert created.profile_id
    assert client.send(v2.get_task(created.id)).id == created.id
    assert client.send(v2.stop_task(created.id)) is None
    assert client.send(v2.get_task_status(created.id)) == "canceled"
    with pytest.raises(errors.TaskEndedError):
        client.send(v2.stop_task(created.id))
    with pytest.raises(errors.TaskNotPausedError):
        client.send(v2.resume_task(created.id))


def test_list_of_which_no_item_can_be_read_is_not_an_empty_list(client, emulator):
    report_status(emulator, "transcended")
    client.send(v2.run_task(ORDERS.id))
    with pytest.raises(errors.UnexpectedResponseError, match=r"none of the 1 items .* list-tasks .*'transcended'"):
        client.items(v2.list_tasks())


def test_page_has_the_time_at_which_the_server_responded(client):
    page = client.send(v2.list_tasks())
    assert abs(page.served_at.timestamp() - time.time()) < 30


@pytest.mark.parametrize(("path", "remedy"), [("", "Set the host of"), ("/v2", "Remove '/v2' from the host of")])
def test_address_that_is_not_the_api_is_named_with_the_path_that_is_too_much(kind, running, path, remedy):
    client = kind(ClientSettings("app-emulator", running.url + path, retries=QUICK, connection="shop"))
    if not path:
        running.fault("run-task", RequestFault.html())
    with pytest.raises(errors.NotTheApiError) as caught:
        client.send(v2.run_task(ORDERS.id))
    assert f"(API address {running.url}{path})" in str(caught.value)
    assert str(caught.value).splitlines()[1].startswith(f"{remedy} the Airflow connection 'shop'")


def test_client_reads_lists_to_their_last_page(client, emulator):
    workflows = client.items(v2.list_workflows(limit=3))
    assert {workflow.id for workflow in workflows} == {each.id for each in emulator.of_kind("workflow")}
    assert len(workflows) == len(emulator.of_kind("workflow"))
    templates = client.items(v2.list_official_workflow_templates(limit=1))
    assert {template.id for template in templates} == {each.id for each in emulator.of_kind("template")}
    client.send(v2.run_task(ORDERS.id))
    client.send(v2.run_task(ORDERS.id))
    assert len(client.items(v2.list_tasks(workflow_id=ORDERS.id, limit=1))) == len(
        [task for task in emulator.tasks if task.workflow_id == ORDERS.id]
    )


def test_read_is_sent_again_after_gateway_error_reset_lost_response_and_hang(impatient, emulator):
    for fault in (RequestFault.status(502), RequestFault.reset(), RequestFault.lost_response(), RequestFault.hung()):
        emulator.fault("get-region-list", fault, times=1)
    assert impatient.send(v2.get_region_list())
    assert count(emulator, "get-region-list") == 5


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


def test_start_refused_with_http_429_is_left_to_the_queue(client, emulator):
    emulator.fault("run-task", RequestFault.status(429, retry_after=7), times=2)
    with pytest.raises(errors.RateLimitError) as refused:
        client.send(v2.run_task(ORDERS.id))
    assert (count(emulator, "run-task"), refused.value.retry_after) == (1, 7)


def test_client_waits_as_long_as_retry_after_requests(client, emulator):
    emulator.fault("get-region-list", RequestFault.status(429, retry_after=1), times=1)
    began = time.monotonic()
    client.send(v2.get_region_list())
    assert time.monotonic() - began >= 1


def test_call_to_a_hung_server_fails_in_bounded_time(kind, running, emulator):
    emulator.fault("get-region-list", RequestFault.hung(), times=None)
    settings = ClientSettings("app-emulator", running.url, read_timeout=0.2, retries=RetryPolicy(budget=1))
    began = time.monotonic()
    with pytest.raises(errors.ResponseLostError, match="No complete response to get-region-list"):
        kind(settings).send(v2.get_region_list())
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("http://nowhere.invalid", "the name of the host cannot be resolved ("),
    ],
    ids=["refused", "unknown host"],
)
def test_failed_connection_raises_an_error_with_url_and_reason_that_proves_the_start_was_not_processed(
    kind, url, reason
):
    settings = ClientSettings("app-key", url, retries=RetryPolicy(budget=0.1))
    with pytest.raises(errors.ConnectionFailedError) as caught:
        kind(settings).send(v2.run_task("70"))
    assert str(caught.value).startswith(f"No connection to {url} for run-task: {reason}")
    assert caught.value.not_processed


def test_wrong_api_key_raises_at_once_and_is_not_shown_in_the_error(kind, running, emulator):
    with pytest.raises(errors.AuthenticationError, match="Invalid authorization") as caught:
        kind(ClientSettings("app-wrong", running.url)).send(v2.get_region_list())
    assert "app-wrong" not in str(caught.value)
    assert count(emulator, "get-region-list") == 1


class TestARefusedKey:
    @pytest.fixture
    def settings(self, running, emulator):
        """Settings with a key that the emulator accepted until now."""
        emulator.api_key = "app-new"
        return ClientSettings("app-emulator", running.url, retries=QUICK, connection="browseract_prod")

    def test_call_with_refused_api_key_raises_at_once_and_the_next_call_uses_the_new_settings(
        self, kind, emulator, settings
    ):
        reader: Any = kind(settings, lambda: setattr(reader, "settings", replace(settings, api_key="app-new")))
        with pytest.raises(errors.AuthenticationError, match="connection 'browseract_prod'"):
            reader.send(v2.run_task(ORDERS.id))
        reader.send(v2.run_task(ORDERS.id))
        assert [request.status for request in emulator.requests] == [401, 200]

    def test_other_errors_do_not_count_as_a_refused_api_key(self, kind, emulator, settings):
        emulator.fault("get-region-list", RequestFault.refused(99002, http_status=403))
        asked: list[int] = []
        with pytest.raises(errors.PermissionDeniedError):
            kind(settings, lambda: asked.append(1)).send(v2.get_region_list())
        assert asked == []


def test_client_error_names_the_connection_of_the_settings(kind):
    settings = ClientSettings(
        "app-key", "http://127.0.0.1:9", retries=RetryPolicy(budget=0.1), connection="browseract_prod"
    )
    with pytest.raises(errors.ConnectionFailedError, match="host of the Airflow connection 'browseract_prod'"):
        kind(settings).send(v2.get_region_list())


class OneAnswer:
    """A server that records what it receives and sends one fixed response to each connection."""

    def __init__(self, answer: bytes, *, keep_alive: bool = False) -> None:
        self.answer = answer
        self.keep_alive = keep_alive
        self.received: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while request := connection.recv(65536):
                    self.received.append(request)
                    connection.sendall(self.answer)
                    if not self.keep_alive:
                        break

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def one_answer():
    servers = []

    def make(answer: bytes, *, keep_alive: bool = False) -> OneAnswer:
        servers.append(OneAnswer(answer, keep_alive=keep_alive))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def test_redirect_is_not_followed_so_the_api_key_is_not_sent_elsewhere(kind, one_answer):
    elsewhere = one_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
    server = one_answer(f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n".encode())
    with pytest.raises(errors.NotTheApiError):
        kind(ClientSettings("app-key", server.url)).send(v2.get_region_list())
    assert elsewhere.received == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", [b"http://[", b"http://x/\xff"], ids=["invalid", "not UTF-8"])
def test_redirect_to_an_unreadable_address_is_an_error_of_the_api(kind, one_answer, status, location):
    server = one_answer(b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, location))
    with pytest.raises(errors.NotTheApiError):
        kind(ClientSettings("app-key", server.url)).send(v2.run_task("70"))


def test_start_is_not_sent_again_when_a_proxy_closes_without_a_response(kind, one_answer, monkeypatch):
    proxy = one_answer(b"")
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(errors.ResponseLostError):
        kind(ClientSettings("app-key", "http://api.example", retries=QUICK)).send(v2.run_task("70"))
    assert len(proxy.received) == 1


def test_stop_is_sent_again_after_a_gateway_error(client, emulator):
    created = client.send(v2.run_task(ORDERS.id))
    emulator.fault("stop-task", RequestFault.status(502), times=1)
    client.send(v2.stop_task(created.id))
    assert emulator.tasks[0].status == "canceled"


def test_truncated_response_to_a_start_is_a_lost_response(kind, one_answer):
    server = one_answer(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id": "7"')
    with pytest.raises(errors.ResponseLostError):
        kind(ClientSettings("app-key", server.url)).send(v2.run_task("70"))


def test_request_has_user_agent_and_api_key_whatever_netrc_contains(kind, one_answer, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server = one_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
    settings = ClientSettings("app-key", server.url, user_agent="airflow-provider-browseract/1 apache-airflow/2")
    kind(settings).send(v2.get_region_list())
    request = server.received[0].decode().lower()
    assert "authorization: bearer app-key" in request
    assert "user-agent: airflow-provider-browseract/1 apache-airflow/2" in request


def test_client_sends_consecutive_calls_over_one_connection(kind, one_answer):
    server = one_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", keep_alive=True)
    kind(ClientSettings("app-key", server.url)).send(*[v2.get_region_list()] * 5)
    assert len(server.received) == 5
    assert server.connections == 1


def answering(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


REGIONS = b'[{"code": "US"}]'


class TestTheAsynchronousClient:
    @pytest.mark.parametrize(("size", "on_the_loop"), [(LARGE_BODY, True), (LARGE_BODY + 1, False)])
    def test_async_client_reads_a_large_response_in_another_thread(self, one_answer, size, on_the_loop):
        server = one_answer(answering(REGIONS.ljust(size)))
        threads = []
        call: Call[Any] = v2.get_region_list()
        call = replace(call, read=lambda data: threads.append(threading.get_ident()))

        async def go():
            async with AsyncBrowserActClient(ClientSettings("app-key", server.url)) as client:
                await client.send(call)

        asyncio.run(go())
        assert (threads == [threading.get_ident()]) is on_the_loop

    @pytest.mark.parametrize("size", [LARGE_BODY + 1, 100])
    def test_async_client_raises_the_error_of_the_response_reader(self, one_answer, size):
        server = one_answer(answering(b"{}".ljust(size)))
        with pytest.raises(errors.UnexpectedResponseError, match="should be a list"):
            self.send(server, size)

    def send(self, server, max_response: int):
        async def go():
            async with AsyncBrowserActClient(
                ClientSettings("app-key", server.url), max_response=max_response
            ) as client:
                return await client.send(v2.get_region_list())

        return asyncio.run(go())

    def test_async_client_accepts_a_response_of_the_maximum_size(self, one_answer):
        assert self.send(one_answer(answering(REGIONS)), len(REGIONS))[0].code == "US"

    def test_async_client_refuses_a_larger_response_and_sends_no_second_request(self, one_answer):
        server = one_answer(answering(REGIONS))
        with pytest.raises(errors.ResponseTooLargeError, match="get-region-list is larger than 15 bytes") as caught:
            self.send(server, len(REGIONS) - 1)
        assert caught.value.temporary is False
        assert caught.value.not_processed is False
        assert len(server.received) == 1

    def test_async_client_does_not_wait_for_the_rest_of_a_too_large_response(self, one_answer):
        # The server announces more than it ever sends, so reading to the end would be a lost response after 30 seconds.
        server = one_answer(answering(REGIONS).replace(b"16", b"17"), keep_alive=True)
        with pytest.raises(errors.ResponseTooLargeError):
            self.send(server, len(REGIONS) - 1)

    def test_async_client_measures_the_response_size_after_decompression(self, one_answer):
        body = gzip.compress(REGIONS.ljust(100_000))
        headers = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert len(body) < 1000
        with pytest.raises(errors.ResponseTooLargeError):
            self.send(one_answer(headers + body), 1000)
        assert self.send(one_answer(headers + body), 100_000)[0].code == "US"


def packed(*sizes: int) -> bytes:
    """A response of gzip with a list of regions, and spaces after it."""
    packing = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    body = b"".join(map(packing.compress, (REGIONS, *(b" " * size for size in sizes)))) + packing.flush()
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class TestLimitOfAResponse:
    @pytest.fixture
    def client(self, kind):
        # Some of the responses are read again and again until the budget is used up.
        return lambda server: kind(ClientSettings("app-key", server.url, retries=replace(QUICK, budget=0.2)))

    def test_small_gzip_body_that_expands_beyond_the_limit_takes_little_memory(self, client, one_answer):
        response = packed(*[1024 * 1024] * 400)
        assert len(response) < 450_000
        server = one_answer(response)
        tracemalloc.start()
        try:
            with pytest.raises(errors.ResponseTooLargeError, match="get-region-list is larger than 268435456 bytes"):
                client(server).send(v2.get_region_list())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 20 * 1024 * 1024
        assert len(server.received) == 1

    def test_large_gzip_body_within_the_limit_is_read_completely(self, client, one_answer):
        assert client(one_answer(packed(3 * CHUNK_SIZE + 1))).send(v2.get_region_list())[0].code == "US"

    @pytest.mark.parametrize("cut", [1, 9, 60], ids=["last byte", "trailer", "content"])
    def test_incomplete_gzip_body_is_a_lost_response(self, client, one_answer, cut):
        whole = packed(100_000)
        head, _, body = whole.partition(b"\r\n\r\n")
        head = head.replace(b": %d" % len(body), b": %d" % (len(body) - cut))
        with pytest.raises(errors.ResponseLostError):
            client(one_answer(head + b"\r\n\r\n" + body[:-cut])).send(v2.get_region_list())

    def test_body_that_is_not_gzip_is_a_lost_response(self, client, one_answer):
        response = answering(REGIONS).replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1)
        with pytest.raises(errors.ResponseLostError):
            client(one_answer(response)).send(v2.get_region_list())

    def test_body_is_accepted_up_to_the_limit_and_refused_beyond_it(self, client, one_answer, monkeypatch):
        monkeypatch.setattr("airflow_provider_browseract.api.bodies.MAX_RESPONSE", len(REGIONS))
        assert client(one_answer(answering(REGIONS))).send(v2.get_region_list())[0].code == "US"
        server = one_answer(answering(REGIONS + b" "))
        with pytest.raises(errors.ResponseTooLargeError) as caught:
            client(server).send(v2.get_region_list())
        assert caught.value.http_status == 200
        # There is nothing that a worker could raise.
        assert "max_response" not in str(caught.value)
        assert "let the workflow return less" in str(caught.value)
        assert len(server.received) == 1

    def test_list_whose_pages_are_too_large_is_read_in_smaller_pages(self, client, running, emulator, monkeypatch):
        monkeypatch.setattr("airflow_provider_browseract.api.bodies.MAX_RESPONSE", 800)
        reader = client(running)
        reader.settings = ClientSettings("app-emulator", running.url)
        workflows = reader.items(v2.list_workflows())
        assert {workflow.id for workflow in workflows} == {each.id for each in emulator.of_kind("workflow")}
        queries = [request.query for request in emulator.requests if request.endpoint == "list-workflows"]
        limits = [int(re.findall(r"limit=(\d+)", query)[0]) for query in queries]
        assert limits[0] == 500
        assert max(limits[1:]) < 500


def test_api_key_is_not_in_the_repr_of_client_settings():
    assert "app-key" not in repr(ClientSettings("app-key"))


def test_key_digest_is_the_same_for_the_same_key_and_shows_nothing_of_it():
    digest = ClientSettings("app-123", connect_timeout=1.0).key_digest
    assert digest == ClientSettings("app-123", base_url="https://elsewhere.example").key_digest
    assert digest != ClientSettings("app-124").key_digest
    assert len(digest) == 16
    assert "app" not in digest
