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


def test_a_fault_strikes_as_often_as_asked_after_those_it_skips(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(503), times=2, skip=1)
    assert [client.regions().status_code for _ in range(5)] == [200, 503, 503, 200, 200]


def test_a_fault_without_end_strikes_until_it_is_cleared(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(500))
    assert {client.regions().status_code for _ in range(4)} == {500}
    client.emulator.clear_faults()
    assert client.regions().status_code == 200


def test_faults_strike_in_the_order_in_which_they_were_armed(client: Any) -> None:
    for status in (500, 502, 429):
        client.emulator.fault("get-region-list", RequestFault.status(status), times=1)
    assert [client.regions().status_code for _ in range(4)] == [500, 502, 429, 200]


def test_a_fault_strikes_its_endpoint_only(client: Any) -> None:
    client.emulator.fault("get-task", RequestFault.status(500))
    assert client.regions().status_code == 200
    assert client.call("GET", "get-task", params={"task_id": "1"}).status_code == 500


def test_a_fault_of_every_endpoint_spares_files_and_the_control(client: Any) -> None:
    created = client.start(EXPORT, {"keyword": "paper"}).json()
    client.emulator.wait_until(lambda: client.emulator.tasks[0].status == "finished")
    (link,) = client.task(created["id"])["output"]["files"]
    client.emulator.fault("*", RequestFault.status(500))
    assert client.regions().status_code == 500
    assert client.start(PLAIN_TEXT).status_code == 500
    assert client.http.get(link).status_code == 200
    assert client.http.get("/_emulator/record").status_code == 200


def test_downloads_can_go_wrong_too(client: Any) -> None:
    created = client.start(EXPORT, {"keyword": "paper"}).json()
    client.emulator.wait_until(lambda: client.emulator.tasks[0].status == "finished")
    (link,) = client.task(created["id"])["output"]["files"]
    client.emulator.fault("download-file", RequestFault.html(503), times=1)
    assert [client.http.get(link).status_code for _ in range(2)] == [503, 200]


def test_an_endpoint_that_does_not_exist_cannot_have_faults() -> None:
    with pytest.raises(ValueError, match="get-tasks"):
        Emulator().fault("get-tasks", RequestFault.status(500))


@pytest.mark.parametrize(
    "make",
    [
        lambda: RequestFault.status(200),
        lambda: RequestFault.slow(-1),
        lambda: RequestFault.refused(0),
        lambda: RequestFault.lost_answer(status=200),
        lambda: RequestFault.gateway(302),
        lambda: RequestFault.redirect(http_status=200),
        lambda: CallbackFault.doubled(1),
        lambda: CallbackFault.late(-1),
        lambda: Emulator().fault("get-task", RequestFault.reset(), times=0),
        lambda: Emulator().fault("get-task", RequestFault.reset(), skip=-1),
    ],
)
def test_faults_that_make_no_sense_are_refused(make: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ
        make()


def test_a_slow_answer_comes_late_but_takes_effect_at_once(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.slow(0.5), times=1)
    answers: list[Any] = []
    began = time.monotonic()
    asking = threading.Thread(target=lambda: answers.append(client.start(PLAIN_TEXT)))
    asking.start()
    client.emulator.wait_until(lambda: client.emulator.tasks)
    assert answers == []
    asking.join()
    assert time.monotonic() - began >= 0.5
    assert answers[0].json() == {"id": client.emulator.tasks[0].id}


def test_a_hung_request_is_never_answered_and_has_no_effect(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.hung(), times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.call("POST", "run-task", json={"workflow_id": PLAIN_TEXT.id}, timeout=0.1)
    assert client.emulator.tasks == []
    assert client.regions().status_code == 200


def test_a_hung_request_can_have_taken_effect(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.hung(processed=True), times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.call("POST", "run-task", json={"workflow_id": PLAIN_TEXT.id}, timeout=0.2)
    client.emulator.wait_until(lambda: len(client.emulator.tasks) == 1)


def test_hung_requests_do_not_keep_the_emulator_from_stopping() -> None:
    emulator = Emulator()
    emulator.fault("get-region-list", RequestFault.hung())
    emulator.fault("get-task", RequestFault.slow(60))
    problems: list[Exception] = []

    def ask(url: str) -> None:
        try:
            requests.get(url, headers={"Authorization": "Bearer app-emulator"}, timeout=30)
        except requests.RequestException as problem:
            problems.append(problem)

    with emulator.serve() as running:
        base = f"{running.url}/v2/workflow/"
        asking = [
            threading.Thread(target=ask, args=[base + rest]) for rest in ("get-region-list", "get-task?task_id=1")
        ]
        for thread in asking:
            thread.start()
        emulator.wait_until(lambda: len(emulator.requests) == 2)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    for thread in asking:
        thread.join()
    assert [type(problem) for problem in problems] == [requests.ConnectionError]


@pytest.mark.parametrize("retry_after", [None, 2, "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_too_many_requests_may_say_when_to_come_again(client: Any, retry_after: Any) -> None:
    client.emulator.fault("run-task", RequestFault.status(429, retry_after=retry_after), times=1)
    answer = client.start(PLAIN_TEXT)
    assert answer.status_code == 429
    assert answer.headers.get("Retry-After") == (None if retry_after is None else str(retry_after))
    assert answer.json()["code"] == 429
    assert client.emulator.tasks == []


def test_a_server_error_comes_with_the_envelope_or_as_a_page(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(503), times=1)
    client.emulator.fault("get-region-list", RequestFault.html(503), times=1)
    envelope, page = client.regions(), client.regions()
    assert envelope.status_code == page.status_code == 503
    assert envelope.json().keys() == {"code", "msg", "data", "ts", "time", "traceId"}
    assert page.headers["Content-Type"].startswith("text/html")
    assert "<html>" in page.text


def test_another_host_answers_200_with_a_page(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.html(), times=1)
    answer = client.start(PLAIN_TEXT)
    assert answer.status_code == 200
    assert "<html>" in answer.text
    assert client.emulator.tasks == []


def test_gateway_answers_with_json_that_has_no_code_of_browseract(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.gateway(403), times=1)
    answer = client.start(PLAIN_TEXT)
    assert answer.status_code == 403
    assert answer.json() == {"message": "Forbidden"}
    assert client.emulator.tasks == []


def test_redirect_leads_to_another_page(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.redirect("https://login.example.com/"), times=1)
    answer = client.start(PLAIN_TEXT)
    assert (answer.status_code, answer.headers["Location"]) == (302, "https://login.example.com/")
    assert client.emulator.tasks == []


def test_outage_strikes_every_request_until_it_is_over_and_leaves_other_faults_armed(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(500), times=1, skip=2)
    with client.emulator.outage("*", RequestFault.html(403)):
        assert [client.regions().status_code for _ in range(2)] == [403, 403]
        assert client.start(PLAIN_TEXT).status_code == 403
    assert [client.regions().status_code for _ in range(2)] == [500, 200]


def test_outage_of_an_endpoint_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="get-tasks"), Emulator().outage("get-tasks", RequestFault.html()):
        pass


def test_a_lost_answer_breaks_the_connection_after_the_task_was_created(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.lost_answer(), times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        client.start(SEARCH, {"keyword": "paper"})
    (task,) = client.emulator.tasks
    assert task.inputs == [("keyword", "paper")]
    assert client.emulator.requests[0].status is None


def test_a_lost_answer_can_be_a_gateways(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.lost_answer(status=502), times=1)
    answer = client.start(PLAIN_TEXT)
    assert answer.status_code == 502
    assert "<html>" in answer.text
    assert len(client.emulator.tasks) == 1


def test_a_reset_breaks_the_connection_before_anything_happened(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.reset(), times=1)
    with pytest.raises(httpx.ReadError, match="reset by peer"):
        client.start(PLAIN_TEXT)
    assert client.emulator.tasks == []
    assert client.start(PLAIN_TEXT).status_code == 200


def test_requests_sees_a_reset_and_a_lost_answer_as_connection_errors(client: Any) -> None:
    url = f"{client.running.url}/v2/workflow/get-region-list"
    for fault, words in ((RequestFault.reset(), "reset by peer"), (RequestFault.lost_answer(), "without response")):
        client.emulator.fault("get-region-list", fault, times=1)
        with pytest.raises(requests.ConnectionError, match=words):
            requests.get(url, timeout=10)


def test_the_server_does_not_complain_of_cut_connections(client: Any, caplog: Any) -> None:
    for fault in (RequestFault.reset(), RequestFault.lost_answer(), RequestFault.hung()):
        client.emulator.fault("get-region-list", fault, times=1)
        with pytest.raises(httpx.TransportError):
            client.regions(timeout=0.2)
    assert client.regions().status_code == 200
    assert caplog.records == []


def test_any_error_code_can_be_answered(client: Any) -> None:
    client.emulator.fault("run-task", RequestFault.refused(10118), times=1)
    client.emulator.fault("run-task", RequestFault.refused(10999, "No credits", http_status=402), times=1)
    known, made_up = client.start(PLAIN_TEXT), client.start(PLAIN_TEXT)
    assert known.status_code == 400
    assert (known.json()["code"], known.json()["msg"]) == (10118, "Running tasks number exceeds.")
    assert made_up.status_code == 402
    assert (made_up.json()["code"], made_up.json()["msg"]) == (10999, "No credits")
    assert client.emulator.tasks == []


def test_the_record_tells_which_requests_went_wrong(client: Any) -> None:
    client.emulator.fault("get-region-list", RequestFault.status(503), times=1)
    client.regions()
    client.regions()
    seen = [(record.endpoint, record.fault, record.status) for record in client.emulator.requests]
    assert seen == [("get-region-list", "status", 503), ("get-region-list", None, 200)]
