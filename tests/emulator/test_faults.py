"""Faults of requests, and rewrites of responses."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest
import requests

from airflow_provider_browseract.emulator import CONTACTS, EXPORT, SEARCH, CallbackFault, Emulator, RequestFault
from airflow_provider_browseract.emulator.control import ENDPOINTS
from tests.cases import cases
from tests.catalogue import PLAIN_TEXT


def test_fault_applies_as_often_as_set_after_the_skipped_requests(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(503), times=2, skip=1)
    assert [client.regions().status_code for _ in range(5)] == [200, 503, 503, 200, 200]
    seen = [(record.endpoint, record.fault, record.status) for record in client.emulator.requests[:2]]
    assert seen == [("get-region-list", None, 200), ("get-region-list", "status", 503)]


def test_faults_apply_in_order_until_they_are_cleared(client: Any) -> None:
    for status in (500, 502, 429):
        client.emulator.fault("get-region-list", RequestFault.status(status), times=1)
    client.emulator.fault("get-region-list", RequestFault.status(400))
    assert [client.regions().status_code for _ in range(5)] == [500, 502, 429, 400, 400]
    client.emulator.clear_faults()
    assert client.regions().status_code == 200


@cases(
    ("endpoint", "statuses"),
    {
        "one": ("get-region-list", [503, 200, 200]),
        "one of the other version": ("list-regions", [200, 503, 200]),
        "every": ("*", [503, 503, 200]),
        "download": ("download-file", [200, 200, 503]),
    },
)
def test_fault_applies_to_its_endpoint_only(client: Any, endpoint: str, statuses: list[int]) -> None:
    [link] = client.finished(EXPORT, {"keyword": "paper"})["output"]["files"]
    client.emulator.fault(endpoint, RequestFault.html(503))
    paths = ("/v2/workflow/get-region-list", "/v3/bots/regions", link)
    assert [client.http.get(path).status_code for path in paths] == statuses


def test_outage_applies_to_every_request_and_leaves_other_faults_armed(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(500), times=1, skip=2)
    with client.emulator.outage("*", RequestFault.html(403)):
        assert [client.regions().status_code for _ in range(2)] == [403, 403]
        assert client.start(PLAIN_TEXT).status_code == 403
    assert [client.regions().status_code for _ in range(2)] == [500, 200]


@cases(
    "make",
    {
        "unknown endpoint": lambda: Emulator().fault("get-tasks", RequestFault.status(500)),
        "unknown endpoint of an outage": lambda: Emulator().outage("get-tasks", RequestFault.html()).__enter__(),
        "unknown endpoint of a rewrite": lambda: Emulator().rewrite("get-tasks", lambda body: body),
        "status 200": lambda: RequestFault.status(200),
        "negative delay": lambda: RequestFault.slow(-1),
        "code 0": lambda: RequestFault.refused(0),
        "lost response with status 200": lambda: RequestFault.lost_response(status=200),
        "gateway with status 302": lambda: RequestFault.gateway(302),
        "redirect with status 200": lambda: RequestFault.redirect(http_status=200),
        "repeated once": lambda: CallbackFault.repeated(1),
        "negative lateness": lambda: CallbackFault.late(-1),
        "zero times": lambda: Emulator().fault("get-task", RequestFault.reset(), times=0),
        "negative skip": lambda: Emulator().fault("get-task", RequestFault.reset(), skip=-1),
    },
)
def test_invalid_fault_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"must|is from|means|no such endpoint: 'get-tasks' \(there are: "):
        make()


@cases(
    ("fault", "status", "content"),
    {
        "status": (RequestFault.status(503), 503, '"code": 503, "msg": "Internal error"'),
        "seconds to wait": (RequestFault.status(429, retry_after=2), 429, '"code": 429, "msg": "Too many requests."'),
        "html": (RequestFault.html(), 200, "<html>"),
        "gateway": (RequestFault.gateway(403), 403, '{"message": "Forbidden"}'),
        "redirect": (RequestFault.redirect("https://login.example.com/"), 302, ""),
        "known code": (RequestFault.refused(10118), 400, '"code": 10118, "msg": "Running tasks number exceeds."'),
        "other code": (RequestFault.refused(10999, "No", http_status=402), 402, '"code": 10999, "msg": "No"'),
    },
)
def test_request_gets_another_response_and_has_no_effect(client: Any, fault: Any, status: int, content: str) -> None:
    client.emulator.fault("run-task", fault, times=1)
    response = client.start(PLAIN_TEXT)
    assert (response.status_code, client.emulator.tasks) == (status, [])
    assert content in response.text
    assert response.headers.get("Retry-After") == ("2" if fault.retry_after else None)
    assert response.headers.get("Location") == (fault.location or None)


@cases(
    ("fault", "error", "runs"),
    {
        "hung": (RequestFault.hung(), httpx.ReadTimeout, 0),
        "hung after the start": (RequestFault.hung(processed=True), httpx.ReadTimeout, 1),
        "reset": (RequestFault.reset(), httpx.ReadError, 0),
        "lost response": (RequestFault.lost_response(), httpx.RemoteProtocolError, 1),
    },
)
def test_request_gets_no_response(client: Any, caplog: Any, fault: Any, error: Any, runs: int) -> None:
    client.emulator.fault("run-task", fault, times=1)
    with pytest.raises(error):
        client.call("POST", "run-task", json={"workflow_id": PLAIN_TEXT.id}, timeout=0.3)
    client.emulator.wait_until(lambda: len(client.emulator.tasks) == runs)
    assert client.emulator.requests[0].status is None
    assert client.regions().status_code == 200
    assert caplog.records == []


def test_lost_response_can_be_replaced_by_a_gateway_error_page(client: Any) -> None:
    client.emulator.fault("create-run", RequestFault.lost_response(status=502), times=1)
    response = client.start_bot(CONTACTS, {"company_name": "Example Corp"})
    assert (response.status_code, "<html>" in response.text, len(client.emulator.tasks)) == (502, True, 1)


def test_requests_library_sees_reset_and_lost_response_as_connection_errors(client: Any) -> None:
    url = f"{client.running.url}/v2/workflow/get-region-list"
    for fault, words in ((RequestFault.reset(), "reset by peer"), (RequestFault.lost_response(), "without response")):
        client.emulator.fault("get-region-list", fault, times=1)
        with pytest.raises(requests.ConnectionError, match=words):
            requests.get(url, timeout=10)


def test_slow_request_takes_effect_at_once_and_gets_a_late_response(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.slow(0.5), times=1)
    responses: list[Any] = []
    began = time.monotonic()
    sending = threading.Thread(target=lambda: responses.append(client.start(PLAIN_TEXT)))
    sending.start()
    client.emulator.wait_until(lambda: client.emulator.tasks)
    assert responses == []
    sending.join()
    assert time.monotonic() - began >= 0.5
    assert responses[0].json() == {"id": client.emulator.tasks[0].id}


def test_hung_requests_do_not_prevent_the_emulator_from_stopping() -> None:
    emulator = Emulator()
    emulator.fault("get-region-list", RequestFault.hung())
    emulator.fault("get-task", RequestFault.slow(60))
    problems: list[Exception] = []

    def send(url: str) -> None:
        try:
            requests.get(url, headers={"Authorization": "Bearer app-emulator"}, timeout=30)
        except requests.RequestException as problem:
            problems.append(problem)

    with emulator.serve() as running:
        paths = ("get-region-list", "get-task?task_id=1")
        sending = [threading.Thread(target=send, args=[f"{running.url}/v2/workflow/{path}"]) for path in paths]
        for thread in sending:
            thread.start()
        emulator.wait_until(lambda: len(emulator.requests) == 2)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    for thread in sending:
        thread.join()
    assert [type(problem) for problem in problems] == [requests.ConnectionError]


class TestRewrites:
    def test_rewrites_change_responses_in_order_also_errors(self, account: Any) -> None:
        account.emulator.rewrite("get-task", lambda body: {**body, "status": "dreaming"})
        account.emulator.rewrite("get-task", lambda body: {**body, "status": body["status"].upper()})
        task_id = account.run(SEARCH, {"keyword": "paper"})
        assert account.task(task_id)["status"] == "DREAMING"
        assert account.status(task_id) == "running"
        account.emulator.rewrite("get-task", lambda body: {**body, "code": 1})
        assert account.code("get-task", task_id="1") == 1

    def test_rewrite_of_every_endpoint_spares_callbacks(self, account: Any) -> None:
        account.emulator.rewrite("*", lambda body: {"items": []})
        account.emulator.rewrite("callback", lambda body: {**body, "more": 1})
        assert account.call("page-runs") == account.call("list-tasks") == {"items": []}
        assert account.emulator.rewritten("callback", {}) == {"more": 1}

    def test_none_makes_an_empty_success_also_of_an_error(self, account: Any) -> None:
        account.emulator.rewrite("stop-task", lambda body: None if body and body["code"] == 10112 else body)
        assert account.call("stop-task", task_id="1") is None
        assert account.code("stop-task") == 99001

    def test_error_in_a_rewrite_becomes_the_response(self, account: Any, caplog: Any) -> None:
        account.emulator.rewrite("get-region-list", lambda body: body["missing"])
        assert account.code("get-region-list") == 500
        assert "A rewrite of the response of get-region-list has an error" in caplog.text


def test_requests_are_recorded_with_the_names_of_their_endpoints(client: Any) -> None:
    for endpoint in ENDPOINTS.values():
        client.http.request(endpoint.method, endpoint.path.replace("{", "").replace("}", ""))
    assert [record.endpoint for record in client.emulator.requests] == list(ENDPOINTS)
