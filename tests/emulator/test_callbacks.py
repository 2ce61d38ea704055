from __future__ import annotations

import socket
from typing import Any

import pytest

from airflow_provider_browseract.emulator import EXPORT, FAILING, HUMAN, PLAIN_TEXT, SEARCH, CallbackFault


def start(client: Any, receiver: Any, workflow: Any, field: str = "status_change_callback_url", **more: Any) -> str:
    response = client.start(workflow, **{field: f"{receiver.url}/{field}"}, **more)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def delivered(client: Any, count: int) -> list[Any]:
    """Wait for a number of delivery attempts, and return their outcomes."""
    client.emulator.wait_until(lambda: len(client.emulator.deliveries) >= count)
    return [(record.status, record.attempt, record.http_status) for record in client.emulator.deliveries]


def test_every_status_change_of_a_run_sends_a_callback(client: Any, receiver: Any) -> None:
    task_id = start(client, receiver, HUMAN)
    client.emulator.wait_until(lambda: client.emulator.tasks[0].status == "paused")
    client.call("PUT", "resume-task", params={"task_id": task_id})
    delivered(client, 4)
    assert receiver.statuses == ["running", "paused", "running", "finished"]
    assert {body["id"] for body in receiver.bodies} == {task_id}


@pytest.mark.parametrize(
    ("workflow", "end"), [(PLAIN_TEXT, "finished"), (FAILING, "failed")], ids=["finished", "failed"]
)
def test_callback_url_receives_the_end_of_a_run_once(client: Any, receiver: Any, workflow: Any, end: str) -> None:
    start(client, receiver, workflow, "callback_url")
    assert delivered(client, 1) == [(end, 1, 200)]
    assert receiver.statuses == [end]


def test_callback_url_receives_the_cancellation_of_a_run(client: Any, receiver: Any) -> None:
    task_id = start(client, receiver, HUMAN, "callback_url")
    client.call("PUT", "stop-task", params={"task_id": task_id})
    assert delivered(client, 1) == [("canceled", 1, 200)]


def test_both_callback_urls_receive_the_end_of_a_run(client: Any, receiver: Any) -> None:
    start(client, receiver, PLAIN_TEXT, callback_url=f"{receiver.url}/callback_url")
    delivered(client, 3)
    received = sorted(zip(receiver.paths, receiver.statuses, strict=True))
    assert received == [
        ("/callback_url", "finished"),
        ("/status_change_callback_url", "finished"),
        ("/status_change_callback_url", "running"),
    ]
    kinds = {(record.kind, record.url) for record in client.emulator.deliveries}
    assert kinds == {(kind, f"{receiver.url}/{kind}") for kind in ("callback_url", "status_change_callback_url")}


def test_callback_body_equals_the_response_to_get_task(client: Any, receiver: Any) -> None:
    response = client.start(EXPORT, {"keyword": "paper"}, callback_url=receiver.url)
    delivered(client, 1)
    assert receiver.bodies == [client.task(response.json()["id"])]
    assert receiver.bodies[0]["output"]["files"]
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert "Authorization" not in receiver.headers[0]


def test_callback_with_a_server_error_response_is_sent_up_to_three_times(client: Any, receiver: Any) -> None:
    receiver.responses = [500, 503]
    start(client, receiver, PLAIN_TEXT, "callback_url")
    assert delivered(client, 3) == [("finished", 1, 500), ("finished", 2, 503), ("finished", 3, 200)]

    receiver.responses = [500, 500, 500]
    start(client, receiver, PLAIN_TEXT, "callback_url")
    delivered(client, 6)
    start(client, receiver, PLAIN_TEXT, "callback_url")
    assert [attempt for _, attempt, _ in delivered(client, 7)] == [1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("status", [301, 307, 400, 404, 410, 429])
def test_callback_with_another_error_or_redirect_response_is_sent_once(client: Any, receiver: Any, status: int) -> None:
    receiver.responses = [status]
    start(client, receiver, PLAIN_TEXT)
    assert delivered(client, 2) == [("running", 1, status), ("finished", 1, 200)]
    assert "/elsewhere" not in receiver.paths


def test_callback_to_an_unreachable_receiver_is_not_sent_again(client: Any, receiver: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    client.start(PLAIN_TEXT, status_change_callback_url=f"http://127.0.0.1:{port}/")
    assert delivered(client, 2) == [("running", 1, None), ("finished", 1, None)]
    assert "ConnectError" in client.emulator.deliveries[0].error


def test_callback_to_a_receiver_that_is_too_slow_is_given_up(serve: Any, receiver: Any) -> None:
    client = serve(callback_timeout=0.2)
    receiver.hold.clear()
    start(client, receiver, PLAIN_TEXT, "callback_url")
    assert delivered(client, 1) == [("finished", 1, None)]
    assert client.emulator.deliveries[0].error == "no response within 0.2 s"


def test_slow_receiver_still_gets_its_callbacks_in_order(client: Any, receiver: Any) -> None:
    receiver.hold.clear()
    start(client, receiver, PLAIN_TEXT)
    client.emulator.wait_until(lambda: client.emulator.tasks[0].status == "finished" and receiver.bodies)
    assert receiver.statuses == ["running"]
    receiver.hold.set()
    delivered(client, 2)
    assert receiver.statuses == ["running", "finished"]


def test_callback_with_the_lost_fault_never_arrives(client: Any, receiver: Any) -> None:
    client.emulator.callback_fault(CallbackFault.lost(), times=1)
    start(client, receiver, PLAIN_TEXT)
    assert delivered(client, 2) == [("running", 1, None), ("finished", 1, 200)]
    assert receiver.statuses == ["finished"]
    assert [record.fault for record in client.emulator.deliveries] == ["lost", None]


def test_callback_with_the_repeated_fault_arrives_several_times(client: Any, receiver: Any) -> None:
    client.emulator.callback_fault(CallbackFault.repeated(3), status="finished")
    start(client, receiver, PLAIN_TEXT)
    delivered(client, 4)
    assert receiver.statuses == ["running", "finished", "finished", "finished"]


def test_late_callback_arrives_after_the_following_one(client: Any, receiver: Any) -> None:
    client.emulator.callback_fault(CallbackFault.late(0.6), times=1)
    start(client, receiver, PLAIN_TEXT)
    delivered(client, 2)
    assert receiver.statuses == ["finished", "running"]
    first, second = client.emulator.deliveries
    assert (second.at - first.at).total_seconds() > 0.1


def test_callback_out_of_order_changes_places_with_the_next_one(client: Any, receiver: Any) -> None:
    client.emulator.callback_fault(CallbackFault.out_of_order(), status="running")
    start(client, receiver, PLAIN_TEXT)
    delivered(client, 2)
    assert receiver.statuses == ["finished", "running"]
    # It still reports what was true when it should have been delivered.
    assert "output" not in receiver.bodies[1]


def test_last_callback_of_a_run_arrives_despite_the_out_of_order_fault(client: Any, receiver: Any) -> None:
    client.emulator.callback_fault(CallbackFault.out_of_order())
    start(client, receiver, PLAIN_TEXT, "callback_url")
    delivered(client, 1)
    assert receiver.statuses == ["finished"]


def test_hung_up_callback_arrives_and_its_response_is_not_waited_for(client: Any, receiver: Any) -> None:
    receiver.hold.clear()
    client.emulator.callback_fault(CallbackFault.hung_up())
    start(client, receiver, PLAIN_TEXT, "callback_url")
    assert delivered(client, 1) == [("finished", 1, None)]
    assert client.emulator.deliveries[0].error == "hung up"
    receiver.hold.set()
    client.emulator.wait_until(lambda: receiver.statuses)
    assert receiver.statuses == ["finished"]


def test_callback_fault_can_apply_to_one_workflow_or_one_run(client: Any, receiver: Any) -> None:
    client.emulator.callback_fault(CallbackFault.lost(), workflow_id=SEARCH.id)
    client.emulator.next_run(PLAIN_TEXT.id, callback_fault=CallbackFault.repeated())
    ids = [start(client, receiver, PLAIN_TEXT, "callback_url") for _ in range(2)]
    client.start(SEARCH, {"keyword": "paper"}, callback_url=receiver.url)
    paused = start(client, receiver, HUMAN, "callback_url")
    client.emulator.callback_fault(CallbackFault.lost(), task_id=paused)
    client.call("PUT", "stop-task", params={"task_id": paused})
    delivered(client, 5)
    got = [body["id"] for body in receiver.bodies]
    assert sorted(got) == sorted([ids[0], ids[0], ids[1]])


def test_callback_faults_can_be_cleared(client: Any, receiver: Any) -> None:
    client.emulator.callback_fault(CallbackFault.lost())
    client.emulator.clear_faults()
    start(client, receiver, PLAIN_TEXT, "callback_url")
    assert delivered(client, 1) == [("finished", 1, 200)]


def test_callback_fault_for_an_unknown_workflow_is_refused(client: Any) -> None:
    with pytest.raises(KeyError, match="12345"):
        client.emulator.callback_fault(CallbackFault.lost(), workflow_id="12345")


def test_callback_reports_an_undocumented_status_as_it_is(client: Any, receiver: Any) -> None:
    client.emulator.next_run(PLAIN_TEXT.id, status="dreaming")
    start(client, receiver, PLAIN_TEXT)
    delivered(client, 2)
    assert receiver.statuses == ["dreaming", "dreaming"]


def test_private_callback_url_is_refused_when_the_emulator_is_set_to_refuse(serve: Any, receiver: Any) -> None:
    client = serve(allow_private_callbacks=False)
    response = client.start(PLAIN_TEXT, callback_url=receiver.url)
    assert (response.status_code, response.json()["code"]) == (400, 99001)
    assert "publicly reachable" in response.json()["msg"]
