import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from airflow_provider_browseract.emulator import CONTACTS, EXPORT, HUMAN, SEARCH, CallbackFault, Emulator, RequestFault
from tests.helpers.cases import cases
from tests.helpers.catalogue import PLAIN_TEXT

REGIONS = "get-region-list"


class TestRequests:
    @cases(
        ("unknown endpoint", lambda: Emulator().fault("get-tasks", RequestFault.status(500))),
        ("unknown endpoint of a rewrite", lambda: Emulator().rewrite("get-tasks", lambda body: body)),
        ("fault of requests for callbacks", lambda: Emulator().fault("callback", RequestFault.reset())),
        ("fault of callbacks for requests", lambda: Emulator().fault("get-task", CallbackFault.lost())),
        ("field of a callback", lambda: Emulator().fault("callback", CallbackFault.lost(), colour="red")),
        ("status 200", lambda: RequestFault.status(200)),
        ("negative delay", lambda: RequestFault.slow(-1)),
        ("code 0", lambda: RequestFault.refused(0)),
        ("redirect with status 200", lambda: RequestFault.redirect(http_status=200)),
        ("repeated once", lambda: CallbackFault.repeated(1)),
        ("negative lateness", lambda: CallbackFault.late(-1)),
        ("zero times", lambda: Emulator().fault("get-task", RequestFault.reset(), times=0)),
        ("negative skip", lambda: Emulator().fault("get-task", RequestFault.reset(), skip=-1)),
    )
    def test_invalid_fault_is_refused(self, make):
        with pytest.raises(ValueError, match=r"must be from|means success|no such \w.*: '.*' \(there are: "):
            make()

    def test_faults_apply_in_order_as_often_as_set_after_the_skipped_requests(self, client):
        client.emulator.fault(REGIONS, RequestFault.status(503), times=1, skip=1)
        client.emulator.fault(REGIONS, RequestFault.status(502), times=1)
        with client.emulator.fault("*", RequestFault.html(403)):
            assert [client.regions() for _ in range(4)] == [502, 503, 403, 403]
        assert client.regions() == 200
        client.emulator.fault("*", RequestFault.status(400))
        assert client.regions() == 400
        client.emulator.clear_faults()
        assert client.regions() == 200
        seen = [(record.endpoint, record.fault, record.status) for record in client.emulator.requests[1:5]]
        assert seen == [(REGIONS, *each) for each in [("status", 503), ("html", 403), ("html", 403), (None, 200)]]

    @cases(
        ("status", RequestFault.status(503), 503, b'"code": 503, "msg": "Internal error"'),
        ("seconds to wait", RequestFault.status(429, retry_after=2), 429, b'"msg": "Too many requests."'),
        ("gateway", RequestFault.gateway(403), 403, b'{"message": "Forbidden"}'),
        ("redirect", RequestFault.redirect("https://login.example.com/"), 302, b""),
        ("known code", RequestFault.refused(10118), 400, b'"msg": "Running tasks number exceeds."'),
        ("page instead of the response", RequestFault.lost_response(status=502), 502, b"<html>"),
        ("other code", RequestFault.refused(10999, "No", http_status=402), 402, b'"code": 10999, "msg": "No"'),
    )
    def test_request_gets_another_response_and_has_an_effect_only_if_it_is_lost(self, client, fault, status, content):
        client.emulator.fault("run-task", fault, times=1)
        response = client.respond("run-task", workflow_id=PLAIN_TEXT.id)
        assert (response.status, len(client.emulator.tasks)) == (status, int(fault.processed))
        assert content in response.body
        assert response.headers.get("retry-after") == ("2" if fault.retry_after else None)
        assert response.headers.get("location") == (fault.location or None)

    @cases(
        ("hung", RequestFault.hung(), httpx.ReadTimeout, 0),
        ("hung after the start", RequestFault.hung(processed=True), httpx.ReadTimeout, 1),
        ("reset", RequestFault.reset(), httpx.ReadError, 0),
        ("lost response", RequestFault.lost_response(), httpx.RemoteProtocolError, 1),
    )
    def test_request_gets_no_response(self, client, caplog, fault, error, runs):
        client.emulator.fault("run-task", fault, times=1)
        client.http.timeout = 0.3
        with pytest.raises(error):
            client.run(PLAIN_TEXT)
        client.emulator.wait_until(lambda: len(client.emulator.tasks) == runs)
        assert client.emulator.requests[0].status is None
        assert client.regions() == 200
        assert caplog.records == []

    def test_slow_request_takes_effect_at_once_and_gets_a_late_response(self, client):
        client.emulator.fault("run-task", RequestFault.slow(0.5), times=1)
        began = time.monotonic()
        with ThreadPoolExecutor() as pool:
            started = pool.submit(client.run, PLAIN_TEXT)
            client.emulator.wait_until(lambda: client.emulator.tasks)
            assert not started.done()
            assert started.result() == client.emulator.tasks[0].id
        assert time.monotonic() - began >= 0.5

    def test_hung_request_does_not_prevent_the_emulator_from_stopping(self):
        with ThreadPoolExecutor() as pool:
            with Emulator().serve() as emulator:
                emulator.fault(REGIONS, RequestFault.hung())
                sending = pool.submit(httpx.get, f"{emulator.url}/v2/workflow/{REGIONS}", timeout=None)
                emulator.wait_until(lambda: emulator.requests)
            assert isinstance(sending.exception(), httpx.RemoteProtocolError)


class TestRewrites:
    def test_rewrites_change_responses_in_order_also_errors_but_not_callbacks(self, account):
        account.emulator.rewrite("get-task", lambda body: {**body, "code": 1, "status": "dreaming"})
        account.emulator.rewrite("*", lambda body: {**body, "status": body.get("status", "").upper()})
        account.emulator.rewrite("callback", lambda body: {**body, "more": 1})
        task_id = account.run(SEARCH, {"keyword": "paper"})
        found = [account.call(name, task_id=task_id)["status"] for name in ("get-task", "get-task-status")]
        assert found == ["DREAMING", "RUNNING"]
        assert account.code("get-task", task_id="1") == 1
        assert account.emulator.rewritten("callback", {}) == {"more": 1}

    def test_rewrite_to_none_makes_an_empty_success_also_of_an_error(self, account):
        account.emulator.rewrite("stop-task", lambda body: None if body and body["code"] == 10112 else body)
        assert account.call("stop-task", task_id="1") is None
        assert account.code("stop-task") == 99001

    def test_rewrite_that_waits_does_not_hold_up_the_test(self, client):
        read = threading.Event()
        client.emulator.rewrite(REGIONS, lambda body: read.wait(10) and body)
        with ThreadPoolExecutor() as pool:
            sending = pool.submit(client.regions)
            client.emulator.wait_until(lambda: client.emulator.requests)
            assert (client.emulator.tasks, sending.done()) == ([], False)
            read.set()
            assert sending.result() == 200

    @cases(("error", lambda body: body["missing"]), ("no JSON", lambda body: {1}))
    def test_error_in_a_rewrite_becomes_the_response(self, account, caplog, rewrite):
        account.emulator.rewrite(REGIONS, rewrite)
        assert account.code(REGIONS) == 500
        assert f"A rewrite of the response of {REGIONS} has an error" in caplog.text


def delivered(client, count):
    client.emulator.wait_until(lambda: len(client.emulator.deliveries) >= count)
    return [(record.status, record.attempt, record.http_status) for record in client.emulator.deliveries]


class TestCallbacks:
    @cases(
        ("finished", {}, ["running", "finished"]),
        ("stopped", {"duration": 60.0}, ["running", "canceled"]),
        ("all at once", {"duration": 0.0}, ["running", "finished"]),
        ("paused", {"pause_at": 0.5, "pause_limit": 0.01}, ["running", "paused", "running", "finished"]),
        ("paused at once", {"pause_at": 0.0, "pause_limit": 0.0}, ["running", "paused", "running", "finished"]),
    )
    def test_each_change_is_sent_once_in_order_and_the_end_to_both_addresses(self, client, receiver, settings, changes):
        client.emulator.set_workflow(PLAIN_TEXT.id, **settings)
        urls = {kind: f"{receiver.url}/{kind}" for kind in ("callback_url", "status_change_callback_url")}
        task_id = client.run(PLAIN_TEXT, **urls)
        if "canceled" in changes:
            client.call("stop-task", task_id=task_id)
        delivered(client, len(changes) + 1)
        got = list(zip(receiver.paths, receiver.statuses, strict=True))
        assert [status for path, status in got if path == "/status_change_callback_url"] == changes
        assert [status for path, status in got if path == "/callback_url"] == changes[-1:]
        assert {f"/{record.kind}" for record in client.emulator.deliveries} == set(receiver.paths)

    def test_callback_is_what_the_version_of_the_run_responds(self, client, receiver):
        task_id = client.run(EXPORT, {"keyword": "paper"}, callback_url=receiver.url)
        run_id = client.run_bot(CONTACTS, {"company_name": "Example Corp"}, callback_url=receiver.url)
        delivered(client, 2)
        bodies = {body.get("id") or body["task_id"]: body for body in receiver.bodies}
        assert bodies == {task_id: client.task(task_id), run_id: client.bot_run(run_id)}
        assert bodies[task_id]["output"]["files"]
        assert receiver.headers[0]["Content-Type"] == "application/json"
        assert "Authorization" not in receiver.headers[0]

    def test_rewrite_changes_a_callback_or_leaves_it_out_and_an_error_in_it_is_logged(self, client, receiver, caplog):
        bodies = {"running": lambda body: None, "finished": lambda body: {**body, "status": "dreaming"}}
        client.emulator.rewrite("callback", lambda body: bodies[body["status"]](body))
        client.emulator.set_workflow(PLAIN_TEXT.id, output_after=60.0)
        client.run(PLAIN_TEXT, status_change_callback_url=receiver.url)
        delivered(client, 1)
        assert ("output" in receiver.bodies[0], receiver.statuses) == (False, ["dreaming"])
        client.emulator.next_run(PLAIN_TEXT.id, outcome="failed")
        client.run(PLAIN_TEXT, callback_url=receiver.url)
        client.emulator.wait_until(lambda: "A callback is not sent, because of an error" in caplog.text)
        assert len(receiver.bodies) == 1

    @cases(
        ("accepted", [], [200]),
        ("server errors", [500, 503], [500, 503, 200]),
        ("server errors only", [500, 500, 500], [500, 500, 500]),
        *((str(status), [status], [status]) for status in (301, 307, 400, 404, 410, 429)),
    )
    def test_only_a_server_error_leads_to_another_attempt_of_a_callback(self, client, receiver, responses, sent):
        receiver.responses = [*responses]
        for outcomes in (sent, [*sent, 200]):
            client.run(PLAIN_TEXT, callback_url=receiver.url)
            assert [status for _, _, status in delivered(client, len(outcomes))] == outcomes
        assert [attempt for _, attempt, _ in delivered(client, 0)] == [*range(1, len(sent) + 1), 1]
        assert "/elsewhere" not in receiver.paths

    def test_unreachable_receiver_gets_one_attempt(self, client):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        client.run(PLAIN_TEXT, status_change_callback_url=f"http://127.0.0.1:{port}/")
        assert delivered(client, 2) == [("running", 1, None), ("finished", 1, None)]
        assert "ConnectionRefusedError" in client.emulator.deliveries[0].error

    def test_receiver_that_is_too_slow_is_given_up_and_the_next_callback_follows_in_order(self, serve, receiver):
        client = serve(callback_timeout=0.2)
        receiver.goes_on.clear()
        client.run(PLAIN_TEXT, status_change_callback_url=receiver.url)
        client.emulator.wait_until(lambda: client.emulator.tasks[0].status == "finished")
        client.emulator.wait_until(lambda: receiver.bodies)
        assert receiver.statuses == ["running"]
        assert delivered(client, 1) == [("running", 1, None)]
        assert client.emulator.deliveries[0].error == "no response within 0.2 s"
        receiver.goes_on.set()
        assert delivered(client, 2)[1] == ("finished", 1, 200)

    @cases(
        ("lost", CallbackFault.lost(), {"status": "running"}, ["finished"]),
        ("repeated", CallbackFault.repeated(3), {"status": "finished"}, ["running", *["finished"] * 3]),
        ("late", CallbackFault.late(0.6), {"status": "running"}, ["finished", "running"]),
        ("of another workflow", CallbackFault.lost(), {"workflow_id": SEARCH.id}, ["running", "finished"]),
        ("after one", CallbackFault.lost(), {"skip": 1}, ["running"]),
        ("once", CallbackFault.lost(), {"times": 1}, ["finished"]),
    )
    def test_fault_changes_which_callbacks_arrive(self, client, receiver, fault, about, arrived):
        client.emulator.fault("callback", fault, **about)
        client.run(PLAIN_TEXT, status_change_callback_url=receiver.url)
        delivered(client, max(2, len(arrived)))
        assert receiver.statuses == arrived
        faults = {record.fault for record in client.emulator.deliveries}
        assert faults == ({None} if "workflow_id" in about else {None, fault.kind})

    def test_hung_up_callback_arrives_and_its_response_is_not_waited_for(self, client, receiver):
        receiver.goes_on.clear()
        client.emulator.fault("callback", CallbackFault.hung_up())
        client.run(PLAIN_TEXT, callback_url=receiver.url)
        assert delivered(client, 1) == [("finished", 1, None)]
        assert client.emulator.deliveries[0].error == "hung up"
        receiver.goes_on.set()
        client.emulator.wait_until(lambda: receiver.statuses == ["finished"])

    def test_fault_can_apply_to_the_callbacks_of_one_run(self, client, receiver):
        paused = client.run(HUMAN, callback_url=receiver.url)
        client.emulator.fault("callback", CallbackFault.lost(), task_id=paused)
        client.call("stop-task", task_id=paused)
        client.emulator.next_run(PLAIN_TEXT.id, callback_fault=CallbackFault.repeated())
        task_id = client.run(PLAIN_TEXT, callback_url=receiver.url)
        delivered(client, 3)
        assert [body["id"] for body in receiver.bodies] == [task_id, task_id]
