from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest
import requests

from airflow_provider_browseract.emulator import (
    EXPORT,
    PLAIN_TEXT,
    SEARCH,
    CallbackFault,
    Emulator,
    RequestFault,
)


def test_fault_applies_as_often_as_set_after_the_skipped_requests(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(503), times=2, skip=1)
    assert [client.regions().status_code for _ in range(5)] == [200, 503, 503, 200, 200]


def test_fault_without_a_count_applies_until_it_is_cleared(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(500))
    assert {client.regions().status_code for _ in range(4)} == {500}
    client.emulator.clear_faults()
    assert client.regions().status_code == 200


def test_faults_apply_in_the_order_in_which_they_were_armed(client: Any) -> None:
    for status in (500, 502, 429):
        client.emulator.fault("get-region-list", RequestFault.status(status), times=1)
    assert [client.regions().status_code for _ in range(4)] == [500, 502, 429, 200]


def test_fault_applies_to_its_endpoint_only(client: Any) -> None:
    client.emulator.fault("get-task", RequestFault.status(500))
    assert client.regions().status_code == 200
    assert client.call("GET", "get-task", params={"task_id": "1"}).status_code == 500


def test_fault_for_every_endpoint_spares_file_downloads(client: Any) -> None:
    created = client.start(EXPORT, {"keyword": "paper"}).json()
    client.emulator.wait_until(lambda: client.emulator.tasks[0].status == "finished")
    (link,) = client.task(created["id"])["output"]["files"]
    client.emulator.fault("*", RequestFault.status(500))
    assert client.regions().status_code == 500
    assert client.start(PLAIN_TEXT).status_code == 500
    assert client.http.get(link).status_code == 200


def test_download_fault_applies_to_a_file_download(client: Any) -> None:
    created = client.start(EXPORT, {"keyword": "paper"}).json()
    client.emulator.wait_until(lambda: client.emulator.tasks[0].status == "finished")
    (link,) = client.task(created["id"])["output"]["files"]
    client.emulator.fault("download-file", RequestFault.html(503), times=1)
    assert [client.http.get(link).status_code for _ in range(2)] == [503, 200]


def test_fault_for_an_unknown_endpoint_is_refused() -> None:
    with pytest.raises(ValueError, match="get-tasks"):
        Emulator().fault("get-tasks", RequestFault.status(500))


@pytest.mark.parametrize(
    "make",
    [
        lambda: RequestFault.status(200),
        lambda: RequestFault.slow(-1),
        lambda: RequestFault.refused(0),
        lambda: RequestFault.lost_response(status=200),
        lambda: RequestFault.gateway(302),
        lambda: RequestFault.redirect(http_status=200),
        lambda: CallbackFault.repeated(1),
        lambda: CallbackFault.late(-1),
        lambda: Emulator().fault("get-task", RequestFault.reset(), times=0),
        lambda: Emulator().fault("get-task", RequestFault.reset(), skip=-1),
    ],
    ids=[
        "status 200",
        "negative delay",
        "code 0",
        "lost response with status 200",
        "gateway with status 302",
        "redirect with status 200",
        "repeated once",
        "negative lateness",
        "zero times",
        "negative skip",
    ],
)
def test_fault_with_invalid_settings_is_refused(make: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ
        make()


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


def test_hung_request_gets_no_response_and_has_no_effect(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.hung(), times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.call("POST", "run-task", json={"workflow_id": PLAIN_TEXT.id}, timeout=0.1)
    assert client.emulator.tasks == []
    assert client.regions().status_code == 200


def test_hung_request_can_be_set_to_take_effect(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.hung(processed=True), times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.call("POST", "run-task", json={"workflow_id": PLAIN_TEXT.id}, timeout=0.2)
    client.emulator.wait_until(lambda: len(client.emulator.tasks) == 1)


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
        base = f"{running.url}/v2/workflow/"
        sending = [
            threading.Thread(target=send, args=[base + rest]) for rest in ("get-region-list", "get-task?task_id=1")
        ]
        for thread in sending:
            thread.start()
        emulator.wait_until(lambda: len(emulator.requests) == 2)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    for thread in sending:
        thread.join()
    assert [type(problem) for problem in problems] == [requests.ConnectionError]


@pytest.mark.parametrize(
    "retry_after", [None, 2, "Wed, 21 Oct 2026 07:28:00 GMT"], ids=["no header", "seconds", "date"]
)
def test_http_429_fault_can_send_a_retry_after_header(client: Any, retry_after: Any) -> None:
    client.emulator.fault("run-task", RequestFault.status(429, retry_after=retry_after), times=1)
    response = client.start(PLAIN_TEXT)
    assert response.status_code == 429
    assert response.headers.get("Retry-After") == (None if retry_after is None else str(retry_after))
    assert response.json()["code"] == 429
    assert client.emulator.tasks == []


def test_server_error_fault_responds_with_the_error_envelope_or_a_web_page(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(503), times=1)
    client.emulator.fault("get-region-list", RequestFault.html(503), times=1)
    envelope, page = client.regions(), client.regions()
    assert envelope.status_code == page.status_code == 503
    assert envelope.json().keys() == {"code", "msg", "data", "ts", "time", "traceId"}
    assert page.headers["Content-Type"].startswith("text/html")
    assert "<html>" in page.text


def test_html_fault_responds_with_200_and_a_web_page_and_starts_nothing(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.html(), times=1)
    response = client.start(PLAIN_TEXT)
    assert response.status_code == 200
    assert "<html>" in response.text
    assert client.emulator.tasks == []


def test_gateway_fault_responds_with_json_without_a_browseract_code(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.gateway(403), times=1)
    response = client.start(PLAIN_TEXT)
    assert response.status_code == 403
    assert response.json() == {"message": "Forbidden"}
    assert client.emulator.tasks == []


def test_redirect_fault_responds_with_the_given_location(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.redirect("https://login.example.com/"), times=1)
    response = client.start(PLAIN_TEXT)
    assert (response.status_code, response.headers["Location"]) == (302, "https://login.example.com/")
    assert client.emulator.tasks == []


def test_outage_applies_to_every_request_and_leaves_other_faults_armed(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(500), times=1, skip=2)
    with client.emulator.outage("*", RequestFault.html(403)):
        assert [client.regions().status_code for _ in range(2)] == [403, 403]
        assert client.start(PLAIN_TEXT).status_code == 403
    assert [client.regions().status_code for _ in range(2)] == [500, 200]


def test_outage_of_an_unknown_endpoint_is_refused() -> None:
    with pytest.raises(ValueError, match="get-tasks"), Emulator().outage("get-tasks", RequestFault.html()):
        pass


def test_lost_response_breaks_the_connection_after_the_task_was_created(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.lost_response(), times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        client.start(SEARCH, {"keyword": "paper"})
    (task,) = client.emulator.tasks
    assert task.inputs == [("keyword", "paper")]
    assert client.emulator.requests[0].status is None


def test_lost_response_can_be_replaced_by_a_gateway_error_page(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.lost_response(status=502), times=1)
    response = client.start(PLAIN_TEXT)
    assert response.status_code == 502
    assert "<html>" in response.text
    assert len(client.emulator.tasks) == 1


def test_reset_breaks_the_connection_before_anything_is_processed(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.reset(), times=1)
    with pytest.raises(httpx.ReadError, match="reset by peer"):
        client.start(PLAIN_TEXT)
    assert client.emulator.tasks == []
    assert client.start(PLAIN_TEXT).status_code == 200


def test_requests_library_sees_reset_and_lost_response_as_connection_errors(client: Any) -> None:
    url = f"{client.running.url}/v2/workflow/get-region-list"
    for fault, words in ((RequestFault.reset(), "reset by peer"), (RequestFault.lost_response(), "without response")):
        client.emulator.fault("get-region-list", fault, times=1)
        with pytest.raises(requests.ConnectionError, match=words):
            requests.get(url, timeout=10)


def test_server_logs_nothing_about_cut_connections(client: Any, caplog: Any) -> None:
    for fault in (RequestFault.reset(), RequestFault.lost_response(), RequestFault.hung()):
        client.emulator.fault("get-region-list", fault, times=1)
        with pytest.raises(httpx.TransportError):
            client.regions(timeout=0.2)
    assert client.regions().status_code == 200
    assert caplog.records == []


def test_refused_fault_responds_with_a_known_or_made_up_error_code(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.refused(10118), times=1)
    client.emulator.fault("run-task", RequestFault.refused(10999, "No credits", http_status=402), times=1)
    known, made_up = client.start(PLAIN_TEXT), client.start(PLAIN_TEXT)
    assert known.status_code == 400
    assert (known.json()["code"], known.json()["msg"]) == (10118, "Running tasks number exceeds.")
    assert made_up.status_code == 402
    assert (made_up.json()["code"], made_up.json()["msg"]) == (10999, "No credits")
    assert client.emulator.tasks == []


def test_request_record_shows_which_requests_met_a_fault(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(503), times=1)
    client.regions()
    client.regions()
    seen = [(record.endpoint, record.fault, record.status) for record in client.emulator.requests]
    assert seen == [("get-region-list", "status", 503), ("get-region-list", None, 200)]
