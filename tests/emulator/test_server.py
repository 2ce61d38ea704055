import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from airflow_provider_browseract.emulator import SEARCH, CallbackFault, EmulatedWorkflow, Emulator
from airflow_provider_browseract.emulator.__main__ import DURATION, command_line, introduction, main, make_emulator
from airflow_provider_browseract.emulator.account import ENDPOINTS
from airflow_provider_browseract.runs import timings
from tests.helpers.catalogue import PLAIN_TEXT

from .conftest import HEADERS

PACKAGE = "airflow_provider_browseract.emulator"
ROOT = Path(__file__).parents[2]


class TestResponses:
    @pytest.mark.parametrize("header", ["", "Bearer wrong", "Basic app-emulator", "app-emulator", "Bearer"])
    def test_no_endpoint_responds_without_the_api_key_and_each_is_recorded_by_its_name(self, client, header):
        ids = dict.fromkeys(("task_id", "bot_id", "template_id"), "1")
        for endpoint in ENDPOINTS:
            response = client.send(endpoint, ids, headers={"authorization": header})
            assert (response.status, json.loads(response.body)["code"]) == (401, 401)
        assert [record.endpoint for record in client.emulator.requests] == list(ENDPOINTS)

    def test_error_is_returned_in_the_error_envelope(self, account):
        response = account.respond("get-task", task_id="1")
        envelope = json.loads(response.body)
        assert (response.status, response.content_type) == (400, "application/json")
        assert len(envelope.pop("traceId")) == 32
        times = {"ts": 1_780_000_000_250, "time": "2026-05-28T20:26:40Z"}
        assert envelope == {"code": 10112, "msg": "Task is not exist.", "data": {}, **times}

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

    def test_request_that_is_not_complete_or_has_no_length_is_not_carried_out(self, client):
        body = json.dumps({"workflow_id": PLAIN_TEXT.id}).encode()
        response = client.http.post("/v2/workflow/run-task", headers=HEADERS, content=iter([body]))
        assert response.status_code == 411
        fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        host, port = client.emulator.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
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


class TestServing:
    def test_emulator_can_be_served_again_but_not_twice_at_once_and_keeps_its_records(self):
        emulator = Emulator()
        with emulator.serve(), pytest.raises(RuntimeError, match="already"), emulator.serve():
            pass
        with emulator.serve():
            assert httpx.get(emulator.url).status_code == 200
        assert [record.path for record in emulator.requests] == ["/"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(emulator.url)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("concurrency", 0), ("api_key", ""), ("latency", (0.3, 0.05)), ("duration", -1.0), ("pause_at", 1.5)),
            *(("queued", float("nan")), ("output_after", float("inf")), ("outcome", "exploded"), ("steps", ())),
            *(("step_every", 0.0), ("credits_per_step", -1), ("credits_per_step", True)),
        ],
    )
    def test_invalid_setting_is_refused_at_the_beginning_and_later(self, name, value):
        emulator, settings = Emulator(), {name: value}
        changes = [lambda: Emulator(**settings), lambda: setattr(emulator, name, value)]
        if not hasattr(emulator, name):
            changes = [partial(change, SEARCH.id, **settings) for change in (emulator.next_run, emulator.set_workflow)]
        for change in changes:
            with pytest.raises(ValueError, match=name):
                change()

    def test_unknown_settings_and_workflows_are_refused_with_the_known_ones(self):
        emulator = Emulator()
        with pytest.raises(TypeError, match=r"no such setting: colour \(there are: behaviour, callback_fault"):
            emulator.next_run(SEARCH.id, colour="red")
        with pytest.raises(KeyError, match="12345"):
            emulator.next_run("12345", duration=1.0)
        with pytest.raises(KeyError, match="12345"):
            emulator.fault("callback", CallbackFault.lost(), workflow_id="12345")
        with pytest.raises(TypeError, match="set"):
            EmulatedWorkflow(id="1", name="Mine", output={1, 2})

    def test_import_of_emulator_and_pytest_plugin_loads_nothing_heavy(self):
        code = f"""if True:
            import sys, airflow_provider_browseract.pytest_plugin
            print(*(name for name in sys.modules if name.startswith("airflow")))
            import {PACKAGE}
            print(*{{"airflow", "fastapi", "httpx", "starlette", "requests", "jinja2"}} & {{*sys.modules}})"""
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert result.stdout == "airflow_provider_browseract airflow_provider_browseract.pytest_plugin\n\n"


class TestTheCommand:
    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
    def test_command_prints_the_connection_and_exits_cleanly_on_a_signal(self, end):
        command = [sys.executable, "-m", PACKAGE, "--port", "0", "--api-key", "app-key", "--duration", "60"]
        with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                lines = [process.stdout.readline() for _ in range(20)]  # type: ignore[union-attr]
                [variable] = [line for line in lines if line.startswith("export AIRFLOW_CONN_BROWSERACT_DEFAULT=")]
                connection = json.loads(shlex.split(variable.split("=", 1)[1])[0])
                assert (connection["password"], connection["host"] in lines[0]) == ("app-key", True)
                headers = {"Authorization": f"Bearer {connection['password']}"}
                assert httpx.get(f"{connection['host']}/v3/bots/regions", headers=headers).status_code == 200
                assert "Seconds that a run takes: 60 (change with --duration)\n" in lines
                process.send_signal(end)
                _, errors = process.communicate(timeout=120)
            finally:
                process.kill()
        assert (process.returncode, errors) == (0, "")

    def test_printed_commands_quote_the_api_key_and_the_documentation_shows_the_same_airflow_command(self):
        emulator, served = Emulator(api_key="app-it's"), command_line().parse_args([])
        emulator.url = f"http://{served.host}:{served.port}"
        printed = introduction(emulator)
        [exported] = re.findall(r"^export (.*)$", printed, re.MULTILINE)
        assert json.loads(shlex.split(exported)[0].partition("=")[2]) == emulator.connection
        [command] = re.findall(r"^airflow connections add .*\\\n.*$", printed, re.MULTILINE)
        # Without a port, the Test button of Airflow 3.3.2 responds "Bad Request".
        words = ["--conn-host", emulator.url, "--conn-port", "8010", "--conn-password", "app-it's"]
        assert shlex.split(command.replace("\\\n", ""))[-6:] == words
        for page in ("tutorial", "callbacks"):
            text = (ROOT / "docs" / f"{page}.md").read_text()
            assert command.replace(shlex.quote("app-it's"), served.api_key) in text

    def test_command_has_the_delays_of_a_service_and_options_for_them(self):
        options = "--stop-after 3 --latency 0 0 --credits 50 --credits-at-end --concurrency 2"
        emulator, other = (make_emulator(command_line().parse_args(given.split())) for given in ("", options))
        assert (emulator.latency, emulator.concurrency, emulator.credits) == ((0.05, 0.3), 1, None)
        for workflow in emulator.workflows.values():
            delays = (workflow.queued, workflow.duration, workflow.output_after, workflow.listed_after)
            assert delays == (1, DURATION, 1, 2)
        # Runs outlast the time in which a callback is refused.
        assert timings.CORE_RACE_GRACE + timings.CALLBACK_GRACE + timings.FIRST_POLL_JITTER < DURATION
        limits = (*other.latency, other.concurrency, other.credits, other.credits_at_end)
        assert (other.find(SEARCH.id).stop_after, *limits) == (3, 0, 0, 2, 50, True)

    @pytest.mark.parametrize("given", [["--queued", "-1"], ["--latency", "2", "1"], ["--port", "x"]])
    def test_command_names_an_invalid_option(self, given, capsys):
        with pytest.raises(SystemExit):
            main(given)
        assert given[0].removeprefix("--") in capsys.readouterr().err

    def test_command_names_a_port_in_use_without_a_traceback(self, capsys):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert main(["--port", port]) == 1
        assert f"Cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
