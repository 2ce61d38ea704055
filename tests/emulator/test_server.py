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
from typing import Any

import httpx
import pytest

from airflow_provider_browseract.emulator import (
    ENDLESS,
    HUMAN,
    LOG_IN,
    SEARCH,
    TEMPLATE_SEARCH,
    Emulator,
)
from airflow_provider_browseract.emulator.__main__ import DURATION, command_line, introduction, main, make_emulator
from airflow_provider_browseract.emulator.control import ENDPOINTS
from tests.catalogue import DOWNLOAD, PLAIN_TEXT

PACKAGE = "airflow_provider_browseract.emulator"
ROOT = Path(__file__).parents[2]


def in_a_process_of_its_own(*command: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return {"args": [sys.executable, *command], "env": environment, "text": True, "cwd": ROOT}


class TestTheApi:
    @pytest.mark.parametrize(
        "header",
        [None, "Bearer wrong", "Basic app-emulator", "app-emulator", "Bearer"],
        ids=["no header", "wrong key", "basic scheme", "no scheme", "no key"],
    )
    def test_no_endpoint_responds_without_the_api_key(self, client: Any, header: str | None) -> None:
        headers = {} if header is None else {"Authorization": header}
        for endpoint in ENDPOINTS.values():
            path = re.sub("{.*}", "1", endpoint.path)
            response = httpx.request(endpoint.method, f"{client.running.url}{path}", headers=headers)
            assert response.status_code == 401
            assert (response.json()["code"], response.json()["msg"]) == (401, "Invalid authorization")

    def test_api_key_of_the_emulator_can_be_replaced_at_run_time(self, client: Any) -> None:
        client.running.api_key = "app-new"
        assert client.running.connection["password"] == "app-new"
        assert client.regions(headers={"Authorization": "Bearer app-emulator"}).status_code == 401
        assert client.regions(headers={"Authorization": "Bearer app-new"}).status_code == 200
        with pytest.raises(ValueError, match="must not be empty"):
            client.running.api_key = ""

    def test_api_error_is_returned_in_the_error_envelope(self, client: Any) -> None:
        response = client.call("GET", "get-task", params={"task_id": "1"})
        assert response.status_code == 400
        assert response.headers["Content-Type"] == "application/json"
        envelope = response.json()
        assert (envelope["code"], envelope["msg"]) == (10112, "Task is not exist.")
        assert envelope["data"] == {}
        assert abs(envelope["ts"] / 1000 - time.time()) < 60
        assert len(envelope["traceId"]) == 32
        assert envelope["time"].endswith("Z")

    def test_input_with_unicode_characters_is_returned_unchanged(self, client: Any) -> None:
        task_id = client.start(SEARCH, {"keyword": "紙 & Füße = 100%; 😀"}).json()["id"]
        assert client.task(task_id)["input_parameters"] == "keyword=紙 & Füße = 100%; 😀"

    def test_unknown_path_gets_404_without_the_error_envelope(self, client: Any) -> None:
        for path in ("/v2/workflow/pause-task", "/v3/bots/", "/v4/bots", "/v2/workflow/get-task/"):
            response = client.http.get(path)
            assert (response.status_code, response.json()["status"], response.json()["path"]) == (404, 404, path)
            assert "code" not in response.json()
            assert client.http.post(path).status_code == 404

    def test_wrong_http_method_is_refused_with_405(self, client: Any) -> None:
        response = client.call("POST", "stop-task", params={"task_id": "1"})
        assert (response.status_code, response.headers["Allow"]) == (405, "PUT")
        response = client.http.post("/")
        assert (response.status_code, response.headers["Allow"]) == (405, "GET")

    def test_internal_emulator_error_gets_500_in_the_error_envelope(self, client: Any, monkeypatch: Any) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr(client.emulator, "of_kind", broken)
        response = client.call("GET", "list-workflows")
        assert (response.status_code, response.json()["code"]) == (500, 500)
        assert "oops" in response.json()["msg"]

    def test_responses_take_the_time_that_is_set(self, serve: Any) -> None:
        client = serve(latency=(0.2, 0.3))
        began = time.monotonic()
        assert client.start(PLAIN_TEXT).status_code == 200
        assert time.monotonic() - began >= 0.2
        assert client.emulator.requests[0].fault is None


class TestLinks:
    def test_file_is_downloaded_without_the_key_and_the_record_shows_whether_one_was_sent(self, client: Any) -> None:
        [file] = client.finished(DOWNLOAD, {"keyword": "paper"})["download_files"]
        for headers in ({}, {"Authorization": "Bearer app-emulator"}):
            response = httpx.get(file["downloadUrl"], headers=headers)
            assert (response.status_code, len(response.content)) == (200, file["fileSize"])
            assert response.headers["Content-Type"] == "text/csv"
        downloads = [record for record in client.emulator.requests if record.endpoint == "download-file"]
        assert [record.with_key for record in downloads] == [False, True]

    def test_pages_and_pictures_of_a_task_can_be_opened(self, client: Any) -> None:
        client.emulator.set_workflow(HUMAN.id, pause_at=0.0)
        task = client.task(client.start(HUMAN).json()["id"])
        [step] = task["steps"]
        links = (task["log_detail_url"], task["live_url_info"]["live_url"], step["screenshots_url"])
        pages = [httpx.get(link) for link in links]
        kinds = ["text/html; charset=utf-8", "text/html; charset=utf-8", "image/svg+xml"]
        assert [page.headers["Content-Type"] for page in pages] == kinds
        assert all(step["step_goal"] in page.text for page in pages)


class TestServing:
    def test_connection_has_the_url_and_api_key_of_the_emulator(self, client: Any) -> None:
        assert client.running.connection == {
            "conn_type": "browseract",
            "host": client.running.url,
            "password": "app-emulator",
        }
        assert client.running.url.startswith("http://127.0.0.1:")

    def test_serving_on_a_port_in_use_raises(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            serving = Emulator().serve(port=taken.getsockname()[1])
            with pytest.raises(OSError, match="in use"):
                serving.__enter__()

    def test_stop_takes_a_moment_although_a_client_keeps_its_connection(self) -> None:
        took = []
        with httpx.Client() as client:
            for _ in range(5):
                with Emulator().serve() as running:
                    client.get(running.url)
                    began = time.monotonic()
                took.append(time.monotonic() - began)
        # uvicorn's own server takes 0.2 seconds, however quick the machine is.
        assert min(took) < 0.1

    def test_emulator_can_be_served_again_but_not_twice_at_once(self) -> None:
        emulator = Emulator()
        with emulator.serve(), pytest.raises(RuntimeError, match="already"), emulator.serve():
            pass
        with emulator.serve() as running:
            assert httpx.get(running.url).status_code == 200

    def test_request_record_remains_after_the_emulator_has_stopped(self) -> None:
        emulator = Emulator()
        with emulator.serve() as running:
            httpx.get(running.url)
        assert [record.path for record in emulator.requests] == ["/"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(running.url)

    def test_responses_on_a_kept_alive_connection_are_not_delayed(self, client: Any) -> None:
        client.regions()
        took = []
        for _ in range(50):
            began = time.monotonic()
            client.regions()
            took.append(time.monotonic() - began)
        # A packet that waits for the one before to be acknowledged does so for 40 ms, each time.
        assert statistics.median(took) < 0.03

    def test_wait_until_raises_a_timeout_when_the_condition_is_never_met(self) -> None:
        with pytest.raises(TimeoutError, match=r"0\.05 s"):
            Emulator().wait_until(lambda: False, timeout=0.05)

    @pytest.mark.parametrize("options", [{"concurrency": 0}, {"api_key": ""}, {"latency": (0.3, 0.05)}], ids=str)
    def test_invalid_setting_is_refused_at_the_beginning_and_later(self, options: Any) -> None:
        [(name, value)] = options.items()
        with pytest.raises(ValueError, match=name):
            Emulator(**options)
        with pytest.raises(ValueError, match=name):
            setattr(Emulator(), name, value)

    def test_import_of_the_emulator_and_pytest_plugin_loads_no_web_framework(self) -> None:
        code = (
            f"import sys, {PACKAGE}, airflow_provider_browseract.pytest_plugin\n"
            "heavy = {'airflow', 'fastapi', 'httpx', 'starlette', 'uvicorn', 'requests'}\n"
            "print(sorted(heavy & set(sys.modules)))"
        )
        result = subprocess.run(**in_a_process_of_its_own("-c", code), capture_output=True, check=True)
        assert result.stdout.strip() == "[]"

    def test_import_of_the_pytest_plugin_loads_neither_airflow_nor_the_emulator(self) -> None:
        code = (
            "import sys, airflow_provider_browseract.pytest_plugin\n"
            "print(sorted(name for name in sys.modules if name.startswith('airflow')))"
        )
        result = subprocess.run(**in_a_process_of_its_own("-c", code), capture_output=True, check=True)
        assert result.stdout.strip() == "['airflow_provider_browseract', 'airflow_provider_browseract.pytest_plugin']"


class TestTheCommand:
    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
    def test_emulator_command_prints_the_connection_and_exits_cleanly_on_a_signal(self, end: signal.Signals) -> None:
        command = in_a_process_of_its_own(
            "-m", PACKAGE, "--port", "0", "--api-key", "app-key", "--concurrency", "2", "--duration", "60"
        )
        process = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while len(lines) < 2 or TEMPLATE_SEARCH.id not in lines[-2]:
                line = process.stdout.readline()
                assert line, "it ended early"
                lines.append(line)
                if len(lines) > 50:
                    break
            variable = next(line for line in lines if line.startswith("export AIRFLOW_CONN_BROWSERACT_DEFAULT="))
            connection = json.loads(shlex.split(variable.split("=", 1)[1])[0])
            assert connection["password"] == "app-key"
            assert connection["host"].startswith("http://")
            assert connection["host"] in lines[0]
            response = httpx.get(
                f"{connection['host']}/v2/workflow/get-region-list",
                headers={"Authorization": f"Bearer {connection['password']}"},
            )
            assert response.status_code == 200
            assert "Seconds that a run takes: 60 (change with --duration)\n" in lines
            process.send_signal(end)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
        assert (process.returncode, errors) == (0, "")

    def test_printed_connection_values_can_be_copied_into_the_connection_form(self, serve: Any) -> None:
        from airflow.sdk import Connection

        from airflow_provider_browseract.hooks.connection import RELABELING, read_settings

        running = serve(api_key="app-it's").running
        lines = introduction(running).splitlines()
        host, port, password = (
            next(line for line in lines if f"  {RELABELING[name]} " in line).split()[-1]
            for name in ("host", "port", "password")
        )
        settings = read_settings(
            Connection(conn_id="copied", conn_type="browseract", host=host, port=int(port), password=password),
            user_agent="test",
        ).client
        assert (settings.base_url, settings.api_key) == (running.url, "app-it's")
        exported = next(line for line in lines if line.startswith("export "))
        assert json.loads(shlex.split(exported)[1].partition("=")[2]) == running.connection

    def test_printed_airflow_command_adds_the_connection(self, serve: Any, cli: Any) -> None:
        from airflow.models import Connection
        from airflow.utils.session import create_session

        from airflow_provider_browseract.hooks.connection import read_settings

        running = serve(api_key="app-it's").running
        printed = introduction(running)
        [command] = re.findall(r"^airflow connections add .*\\\n.*$", printed, re.MULTILINE)
        cli(*shlex.split(command.replace("\\\n", ""))[1:])
        try:
            with create_session() as session:
                added = session.query(Connection).filter_by(conn_id="browseract_default").one()
                settings = read_settings(added, user_agent="test").client
                # Without a port, the Test button of Airflow 3.3.2 responds "Bad Request".
                assert running.url.endswith(f":{added.port}")
            assert (settings.base_url, settings.api_key) == (running.url, "app-it's")
        finally:
            cli("connections", "delete", "browseract_default")

    def test_tutorial_shows_the_airflow_command_that_the_emulator_prints(self) -> None:
        emulator = Emulator()
        emulator.url = "http://127.0.0.1:8010"
        printed = introduction(emulator)
        [command] = re.findall(r"^airflow connections add .*\\\n.*$", printed, re.MULTILINE)
        assert command in (ROOT / "docs" / "tutorial.md").read_text()
        assert command in (ROOT / "docs" / "callbacks.md").read_text()

    def test_emulator_command_has_the_delays_of_a_service(self) -> None:
        emulator = make_emulator(command_line().parse_args([]))
        assert (emulator.latency, emulator.concurrency, emulator.credits) == ((0.05, 0.3), 1, None)
        for workflow in emulator.workflows.values():
            delays = (workflow.queued, workflow.duration, workflow.output_after, workflow.listed_after)
            assert delays == (1, 15, 1, 2)
        assert emulator.workflows[ENDLESS.id].step_every == 2

    def test_options_of_the_emulator_command_are_settings_of_the_emulator(self) -> None:
        given = "--stop-after 3 --latency 0 0 --credits 50 --credits-at-end --concurrency 2"
        emulator = make_emulator(command_line().parse_args(given.split()))
        assert emulator.workflows[SEARCH.id].stop_after == 3
        assert (emulator.credits, emulator.credits_at_end) == (50, True)
        assert ([*emulator.latency], emulator.concurrency) == ([0, 0], 2)

    @pytest.mark.parametrize("given", [["--queued", "-1"], ["--latency", "2", "1"], ["--port", "x"]])
    def test_emulator_command_names_an_invalid_option(self, given: list[str], capsys: Any) -> None:
        with pytest.raises(SystemExit):
            main(given)
        assert given[0].removeprefix("--") in capsys.readouterr().err

    def test_runs_of_the_emulator_command_outlast_the_time_in_which_a_callback_is_refused(self) -> None:
        from airflow_provider_browseract.runs import timings

        first_poll = timings.CORE_RACE_GRACE + timings.CALLBACK_GRACE + timings.FIRST_POLL_JITTER
        assert first_poll < DURATION

    def test_emulator_command_lists_workflows_bots_and_templates_with_their_inputs(self, serve: Any) -> None:
        text = introduction(serve().running)
        workflows, _, others = text.partition("Bots, for RunBotOperator:")
        bots, _, templates = others.partition("Templates, for RunTemplateOperator and RunBotTemplateOperator:")
        assert f"  {SEARCH.id}  Search: Searches shop.example for a keyword.\n" in workflows
        assert "Inputs: keyword, max_items (optional)" in workflows
        assert "Inputs: none" in workflows
        assert LOG_IN.id in workflows
        assert TEMPLATE_SEARCH.id not in workflows + bots
        assert TEMPLATE_SEARCH.id in templates
        assert LOG_IN.id not in others
        assert "Inputs: company_name, max_pages (optional)" in bots

    def test_emulator_command_names_a_port_in_use_without_a_traceback(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            command = in_a_process_of_its_own("-m", PACKAGE, "--port", port)
            result = subprocess.run(**command, capture_output=True, check=False, timeout=60)
        assert result.returncode == 1
        assert port in result.stderr
        assert "Traceback" not in result.stderr


class TestTheFixture:
    def test_emulator_fixture_serves_an_emulator_and_sets_the_connection(self, browseract_emulator: Emulator) -> None:
        connection = json.loads(os.environ["AIRFLOW_CONN_BROWSERACT_DEFAULT"])
        assert connection == browseract_emulator.connection
        assert httpx.get(browseract_emulator.url).status_code == 200

    # Each of the two would see the request of the other if the emulator were shared.
    @pytest.mark.parametrize("turn", ["first", "second"])
    def test_emulator_fixture_starts_each_test_without_recorded_requests(
        self, browseract_emulator: Emulator, turn: str
    ) -> None:
        assert browseract_emulator.requests == []
        httpx.get(f"{browseract_emulator.url}/v2/workflow/get-region-list")
        assert len(browseract_emulator.requests) == 1
