"""Callbacks as the vendor documents them, and their faults."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from airflow_provider_browseract.emulator import CONTACTS, EXPORT, HUMAN, SEARCH, CallbackFault
from tests.cases import cases
from tests.catalogue import FAILING, PLAIN_TEXT


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


@cases(
    ("workflow", "end"),
    {"finished": (PLAIN_TEXT, "finished"), "failed": (FAILING, "failed"), "canceled": (HUMAN, "canceled")},
)
def test_both_addresses_receive_the_end_of_a_run(client: Any, receiver: Any, workflow: Any, end: str) -> None:
    task_id = start(client, receiver, workflow, "callback_url", status_change_callback_url=f"{receiver.url}/changes")
    if end == "canceled":
        client.call("PUT", "stop-task", params={"task_id": task_id})
    client.emulator.wait_until(lambda: [record.status for record in client.emulator.deliveries].count(end) == 2)
    assert sorted(path for path, status in zip(receiver.paths, receiver.statuses, strict=True) if status == end) == [
        "/callback_url",
        "/changes",
    ]
    kinds = {record.kind for record in client.emulator.deliveries}
    assert kinds == {"callback_url", "status_change_callback_url"}


def test_body_is_what_the_version_of_the_run_responds(client: Any, receiver: Any) -> None:
    task_id = start(
        client, receiver, EXPORT, "callback_url", **{"input_parameters": [{"name": "keyword", "value": "a"}]}
    )
    run = client.start_bot(CONTACTS, {"company_name": "Example Corp"}, callback_url=receiver.url).json()
    delivered(client, 2)
    bodies = {body.get("id") or body["task_id"]: body for body in receiver.bodies}
    detail = client.http.get(f"/v3/bots/runs/{run['task_id']}").json()
    assert bodies == {task_id: client.task(task_id), run["task_id"]: detail}
    assert bodies[task_id]["output"]["files"]
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert "Authorization" not in receiver.headers[0]


@pytest.mark.parametrize("settings", [{"duration": 0.0}, {"pause_at": 0.0, "pause_limit": 0.0}], ids=str)
def test_each_change_is_sent_once_although_all_are_at_the_same_time(client: Any, receiver: Any, settings: Any) -> None:
    client.emulator.set_workflow(PLAIN_TEXT.id, **{"duration": 0.0, **settings})
    start(client, receiver, PLAIN_TEXT, "callback_url", status_change_callback_url=f"{receiver.url}/changes")
    changes = ["running", *(["paused", "running"] if "pause_at" in settings else []), "finished"]
    delivered(client, len(changes) + 1)
    got = list(zip(receiver.paths, receiver.statuses, strict=True))
    assert [status for path, status in got if path == "/changes"] == changes
    assert [status for path, status in got if path == "/callback_url"] == ["finished"]


def test_output_that_is_late_is_not_in_the_callback_and_a_rewrite_is(client: Any, receiver: Any) -> None:
    client.emulator.rewrite("callback", lambda body: {**body, "status": "dreaming"})
    client.emulator.set_workflow(PLAIN_TEXT.id, output_after=60.0)
    start(client, receiver, PLAIN_TEXT, "callback_url")
    delivered(client, 1)
    assert ("output" in receiver.bodies[0], receiver.statuses) == (False, ["dreaming"])


def test_rewrite_leaves_a_callback_out_and_one_that_fails_is_logged(client: Any, receiver: Any, caplog: Any) -> None:
    client.emulator.rewrite("callback", lambda body: body["missing"] if body["status"] == "running" else None)
    start(client, receiver, PLAIN_TEXT)
    client.emulator.wait_until(lambda: client.emulator.tasks[0].status == "finished" and caplog.records)
    assert receiver.bodies == client.emulator.deliveries == []
    assert "A callback is not sent, because of an error" in caplog.text


@cases(
    ("responses", "sent"),
    {
        "accepted": ([], [200]),
        "server errors": ([500, 503], [500, 503, 200]),
        "server errors only": ([500, 500, 500], [500, 500, 500]),
        **{str(status): ([status], [status]) for status in (301, 307, 400, 404, 410, 429)},
    },
)
def test_only_a_server_error_leads_to_another_attempt(client: Any, receiver: Any, responses: Any, sent: Any) -> None:
    receiver.responses = [*responses]
    start(client, receiver, PLAIN_TEXT, "callback_url")
    assert delivered(client, len(sent)) == [("finished", attempt, status) for attempt, status in enumerate(sent, 1)]
    start(client, receiver, PLAIN_TEXT, "callback_url")
    assert delivered(client, len(sent) + 1)[len(sent) :] == [("finished", 1, 200)]
    assert "/elsewhere" not in receiver.paths


def test_unreachable_receiver_gets_one_attempt(client: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    client.start(PLAIN_TEXT, status_change_callback_url=f"http://127.0.0.1:{port}/")
    assert delivered(client, 2) == [("running", 1, None), ("finished", 1, None)]
    assert "ConnectError" in client.emulator.deliveries[0].error


def test_receiver_that_is_too_slow_is_given_up(serve: Any, receiver: Any) -> None:
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


@cases(
    ("fault", "about", "arrived"),
    {
        "lost": (CallbackFault.lost(), {"status": "running"}, ["finished"]),
        "repeated": (CallbackFault.repeated(3), {"status": "finished"}, ["running", *["finished"] * 3]),
        "late": (CallbackFault.late(0.6), {"status": "running"}, ["finished", "running"]),
        "of another workflow": (CallbackFault.lost(), {"workflow_id": SEARCH.id}, ["running", "finished"]),
        "after one": (CallbackFault.lost(), {"skip": 1}, ["running"]),
        "once": (CallbackFault.lost(), {"times": 1}, ["finished"]),
    },
)
def test_fault_changes_what_arrives(client: Any, receiver: Any, fault: Any, about: Any, arrived: list[str]) -> None:
    client.emulator.fault("callback", fault, **about)
    start(client, receiver, PLAIN_TEXT)
    delivered(client, max(2, len(arrived)))
    assert receiver.statuses == arrived
    of_another = "workflow_id" in about
    assert {record.fault for record in client.emulator.deliveries} == {None} | (set() if of_another else {fault.kind})


def test_hung_up_callback_arrives_and_its_response_is_not_waited_for(client: Any, receiver: Any) -> None:
    receiver.hold.clear()
    client.emulator.fault("callback", CallbackFault.hung_up())
    start(client, receiver, PLAIN_TEXT, "callback_url")
    assert delivered(client, 1) == [("finished", 1, None)]
    assert client.emulator.deliveries[0].error == "hung up"
    receiver.hold.set()
    client.emulator.wait_until(lambda: receiver.statuses)
    assert receiver.statuses == ["finished"]


def test_fault_can_apply_to_one_run_or_until_cleared(client: Any, receiver: Any) -> None:
    paused = start(client, receiver, HUMAN, "callback_url")
    client.emulator.fault("callback", CallbackFault.lost(), task_id=paused)
    client.call("PUT", "stop-task", params={"task_id": paused})
    first = start(client, receiver, PLAIN_TEXT, "callback_url")
    delivered(client, 2)
    client.emulator.fault("callback", CallbackFault.lost())
    client.emulator.clear_faults()
    last = start(client, receiver, PLAIN_TEXT, "callback_url")
    delivered(client, 3)
    assert [body["id"] for body in receiver.bodies] == [first, last]


def test_fault_about_something_else_is_refused_with_the_known_names(client: Any) -> None:
    with pytest.raises(KeyError, match="12345"):
        client.emulator.fault("callback", CallbackFault.lost(), workflow_id="12345")
    with pytest.raises(
        ValueError, match=r"no such field of a callback: 'colour' \(there are: workflow_id, task_id, status\)"
    ):
        client.emulator.fault("callback", CallbackFault.lost(), colour="red")
