"""The emulator over HTTP, on the command line, and as a fixture of pytest."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from airflow_provider_browseract.emulator import ENDLESS, HUMAN, LOG_IN, SEARCH, TEMPLATE_SEARCH, Emulator
from airflow_provider_browseract.emulator.__main__ import DURATION, command_line, introduction, main, make_emulator
from airflow_provider_browseract.emulator.account import ENDPOINTS
from tests.catalogue import DOWNLOAD, PLAIN_TEXT

PACKAGE = "airflow_provider_browseract.emulator"
ROOT = Path(__file__).parents[2]
ADD_COMMAND = re.compile(r"^airflow connections add .*\\\n.*$", re.MULTILINE)


def in_a_process_of_its_own(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return {"args": [sys.executable, *command], "env": environment, "text": True, "cwd": ROOT}


class TestResponses:
    @pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic app-emulator", "app-emulator", "Bearer"])
    def test_no_endpoint_responds_without_the_api_key(self, client, header):
        headers = {} if header is None else {"Authorization": header}
        for endpoint in ENDPOINTS.values():
            response = client.http.request(endpoint.method, re.sub("{.*}", "1", endpoint.path), headers=headers)
            assert (response.status_code, response.json()["code"]) == (401, 401)
            assert response.json()["msg"] == "Invalid authorization"

    def test_api_key_can_be_replaced_at_run_time(self, client):
        client.emulator.api_key = "app-new"
        assert client.emulator.connection["password"] == "app-new"
        assert client.regions() == 401
        assert client.send("list-regions", headers={"authorization": "Bearer app-new"}).status == 200

    def test_error_is_returned_in_the_error_envelope(self, client):
        response = client.respond("get-task", task_id="1")
        assert (response.status, response.content_type) == (400, "application/json")
        envelope = json.loads(response.body)
        assert (envelope["code"], envelope["msg"], envelope["data"]) == (10112, "Task is not exist.", {})
        assert abs(envelope["ts"] / 1000 - time.time()) < 60
        assert len(envelope["traceId"]) == 32
        assert envelope["time"].endswith("Z")

    def test_unknown_path_gets_404_and_a_wrong_method_405_without_the_error_envelope(self, client):
        for path in ("/v2/workflow/pause-task", "/v3/bots/", "/v4/bots", "/v2/workflow/get-task/"):
            for method in ("GET", "POST", "QUERY"):
                response = client.http.request(method, path)
                assert (response.status_code, response.json()["status"], response.json()["path"]) == (404, 404, path)
                assert "code" not in response.json()
        for path, allowed in (("/v2/workflow/stop-task?task_id=1", "PUT"), ("/", "GET")):
            response = client.http.post(path)
            assert (response.status_code, response.headers["Allow"]) == (405, allowed)

    def test_internal_error_gets_500_in_the_error_envelope(self, client, monkeypatch):
        monkeypatch.setattr(client.emulator, "of_kind", lambda _: 1 / 0)
        response = client.respond("list-workflows")
        assert (response.status, json.loads(response.body)["code"]) == (500, 500)
        assert b"ZeroDivisionError" in response.body

    def test_request_that_is_not_complete_or_has_no_length_is_not_carried_out(self, client):
        headers = {"Authorization": "Bearer app-emulator", "Content-Type": "application/json"}
        body = json.dumps({"workflow_id": PLAIN_TEXT.id}).encode()
        response = client.http.post("/v2/workflow/run-task", headers=headers, content=iter([body]))
        assert response.status_code == 411
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        address = client.emulator.url.removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1]))) as connection:
            line = f"POST /v2/workflow/run-task HTTP/1.1\r\n{fields}Content-Length: {len(body) + 1}\r\n\r\n"
            connection.sendall(line.encode() + body)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
        assert client.emulator.tasks == []

    def test_responses_take_the_time_that_is_set(self, serve):
        client = serve(latency=(0.2, 0.3))
        began = time.monotonic()
        client.run(PLAIN_TEXT)
        assert time.monotonic() - began >= 0.2
        assert client.emulator.requests[0].fault is None

    def test_file_is_downloaded_without_the_key_and_the_record_shows_whether_one_was_sent(self, client):
        task_id = client.run(DOWNLOAD, {"keyword": "paper"})
        client.wait_for("finished")
        [file] = client.task(task_id)["download_files"]
        for headers in ({}, {"Authorization": "Bearer app-emulator"}):
            response = httpx.get(file["downloadUrl"], headers=headers)
            assert (response.status_code, len(response.content)) == (200, file["fileSize"])
            assert response.headers["Content-Type"] == "text/csv"
        downloads = [record for record in client.emulator.requests if record.endpoint == "download-file"]
        assert [record.with_key for record in downloads] == [False, True]

    def test_pages_and_pictures_of_a_task_can_be_opened(self, client):
        client.emulator.set_workflow(HUMAN.id, pause_at=0.0)
        task = client.task(client.run(HUMAN))
        [step] = task["steps"]
        links = (task["log_detail_url"], task["live_url_info"]["live_url"], step["screenshots_url"])
        pages = [httpx.get(link) for link in links]
        kinds = ["text/html; charset=utf-8", "text/html; charset=utf-8", "image/svg+xml"]
        assert [page.headers["Content-Type"] for page in pages] == kinds
        assert all(step["step_goal"] in page.text for page in pages)


class TestServing:
    def test_serving_on_a_port_in_use_raises(self):
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
            Emulator().serve(port=taken.getsockname()[1]).__enter__()

    def test_stop_takes_a_moment_although_a_client_keeps_its_connection(self):
        took = []
        with httpx.Client() as client:
            for _ in range(5):
                with Emulator().serve() as emulator:
                    client.get(emulator.url)
                    began = time.monotonic()
                took.append(time.monotonic() - began)
        assert min(took) < 0.1

    def test_emulator_can_be_served_again_but_not_twice_at_once_and_keeps_its_records(self):
        emulator = Emulator()
        with emulator.serve(), pytest.raises(RuntimeError, match="already"), emulator.serve():
            pass
        with emulator.serve():
            assert httpx.get(emulator.url).status_code == 200
        assert [record.path for record in emulator.requests] == ["/"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(emulator.url)

    def test_responses_on_a_kept_alive_connection_are_not_delayed(self, client):
        client.regions()
        took = []
        for _ in range(50):
            began = time.monotonic()
            client.regions()
            took.append(time.monotonic() - began)
        # A packet that waits for the one before to be acknowledged does so for 40 ms, each time.
        assert statistics.median(took) < 0.03

    def test_wait_until_raises_a_timeout_when_the_condition_is_never_met(self):
        with pytest.raises(TimeoutError, match=r"0\.05 s"):
            Emulator().wait_until(lambda: False, timeout=0.05)

    @pytest.mark.parametrize("options", [{"concurrency": 0}, {"api_key": ""}, {"latency": (0.3, 0.05)}], ids=str)
    def test_invalid_setting_is_refused_at_the_beginning_and_later(self, options):
        [(name, value)] = options.items()
        with pytest.raises(ValueError, match=name):
            Emulator(**options)
        with pytest.raises(ValueError, match=name):
            setattr(Emulator(), name, value)

    @pytest.mark.parametrize(
        ("modules", "heavy"),
        [
            (f"{PACKAGE}, airflow_provider_browseract.pytest_plugin", r"airflow|fastapi|httpx|starlette|requests"),
            ("airflow_provider_browseract.pytest_plugin", r"airflow|airflow_provider_browseract\.(?!pytest_plugin).*"),
        ],
        ids=["emulator", "pytest plugin"],
    )
    def test_import_loads_nothing_heavy(self, modules, heavy):
        code = f"import sys, re, {modules}; print([name for name in sys.modules if re.fullmatch({heavy!r}, name)])"
        result = subprocess.run(**in_a_process_of_its_own("-c", code), capture_output=True, check=True)
        assert result.stdout.strip() == "[]"


class TestTheCommand:
    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
    def test_command_prints_the_connection_and_exits_cleanly_on_a_signal(self, end):
        options = ("--port", "0", "--api-key", "app-key", "--concurrency", "2", "--duration", "60")
        command = in_a_process_of_its_own("-m", PACKAGE, *options)
        with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                lines = [process.stdout.readline() for _ in range(20)]  # type: ignore[union-attr]
                [variable] = [line for line in lines if line.startswith("export AIRFLOW_CONN_BROWSERACT_DEFAULT=")]
                connection = json.loads(shlex.split(variable.split("=", 1)[1])[0])
                assert (connection["password"], connection["host"] in lines[0]) == ("app-key", True)
                headers = {"Authorization": f"Bearer {connection['password']}"}
                assert httpx.get(f"{connection['host']}/v3/bots/regions", headers=headers).status_code == 200
                assert "Seconds that a run takes: 60 (change with --duration)\n" in lines
                process.send_signal(end)
                _, errors = process.communicate(timeout=20)
            finally:
                process.kill()
        assert (process.returncode, errors) == (0, "")

    def test_printed_airflow_command_adds_the_connection(self, serve, cli):
        from airflow.models import Connection
        from airflow.utils.session import create_session

        from airflow_provider_browseract.hooks.connection import read_settings

        emulator = serve(api_key="app-it's").emulator
        printed = introduction(emulator)
        [exported] = re.findall(r"^export (.*)$", printed, re.MULTILINE)
        assert json.loads(shlex.split(exported)[0].partition("=")[2]) == emulator.connection
        [command] = ADD_COMMAND.findall(printed)
        cli(*shlex.split(command.replace("\\\n", ""))[1:])
        try:
            with create_session() as session:
                added = session.query(Connection).filter_by(conn_id="browseract_default").one()
                settings = read_settings(added, user_agent="test").client
                # Without a port, the Test button of Airflow 3.3.2 responds "Bad Request".
                assert emulator.url.endswith(f":{added.port}")
            assert (settings.base_url, settings.api_key) == (emulator.url, "app-it's")
        finally:
            cli("connections", "delete", "browseract_default")

    def test_documentation_shows_the_airflow_command_that_the_emulator_prints(self):
        emulator = Emulator()
        emulator.url = "http://127.0.0.1:8010"
        [command] = ADD_COMMAND.findall(introduction(emulator))
        for page in ("tutorial", "callbacks"):
            assert command in (ROOT / "docs" / f"{page}.md").read_text()

    def test_command_has_the_delays_of_a_service(self):
        from airflow_provider_browseract.runs import timings

        emulator = make_emulator(command_line().parse_args([]))
        assert (emulator.latency, emulator.concurrency, emulator.credits) == ((0.05, 0.3), 1, None)
        for workflow in emulator.workflows.values():
            delays = (workflow.queued, workflow.duration, workflow.output_after, workflow.listed_after)
            assert delays == (1, DURATION, 1, 2)
        assert emulator.find(ENDLESS.id).step_every == 2
        # Runs outlast the time in which a callback is refused.
        assert timings.CORE_RACE_GRACE + timings.CALLBACK_GRACE + timings.FIRST_POLL_JITTER < DURATION

    def test_options_of_the_command_are_settings_of_the_emulator(self):
        given = "--stop-after 3 --latency 0 0 --credits 50 --credits-at-end --concurrency 2"
        emulator = make_emulator(command_line().parse_args(given.split()))
        assert emulator.find(SEARCH.id).stop_after == 3
        assert (emulator.credits, emulator.credits_at_end) == (50, True)
        assert ([*emulator.latency], emulator.concurrency) == ([0, 0], 2)

    @pytest.mark.parametrize("given", [["--queued", "-1"], ["--latency", "2", "1"], ["--port", "x"]])
    def test_command_names_an_invalid_option(self, given, capsys):
        with pytest.raises(SystemExit):
            main(given)
        assert given[0].removeprefix("--") in capsys.readouterr().err

    def test_command_lists_workflows_bots_and_templates_with_their_inputs(self):
        text = introduction(Emulator())
        workflows, _, others = text.partition("Bots, for RunBotOperator:")
        bots, _, templates = others.partition("Templates, for RunTemplateOperator and RunBotTemplateOperator:")
        assert f"  {SEARCH.id}  Search: Searches shop.example for a keyword.\n" in workflows
        assert "Inputs: keyword, max_items (optional)" in workflows
        assert "Inputs: none" in workflows
        assert "Inputs: company_name, max_pages (optional)" in bots
        assert [LOG_IN.id in each for each in (workflows, others)] == [True, False]
        assert [TEMPLATE_SEARCH.id in each for each in (workflows + bots, templates)] == [False, True]

    def test_command_names_a_port_in_use_without_a_traceback(self, capsys):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert main(["--port", port]) == 1
        assert f"Cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


# Each of the two would see the request of the other if the emulator were shared.
@pytest.mark.parametrize("turn", ["first", "second"])
def test_fixture_serves_an_emulator_for_one_test_and_sets_the_connection(browseract_emulator, turn):
    assert json.loads(os.environ["AIRFLOW_CONN_BROWSERACT_DEFAULT"]) == browseract_emulator.connection
    assert browseract_emulator.requests == []
    assert httpx.get(browseract_emulator.url).status_code == 200
    assert len(browseract_emulator.requests) == 1
