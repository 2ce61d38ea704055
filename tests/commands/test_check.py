"""The command ``check``, in this process: with Airflow's database, an API server and the emulator."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
import requests
from airflow.models.connection import Connection
from fastapi import FastAPI, Response

from airflow_provider_browseract import __version__
from airflow_provider_browseract.__main__ import main
from airflow_provider_browseract.commands import checks, database
from airflow_provider_browseract.emulator import SEARCH, RequestFault
from airflow_provider_browseract.hooks import probe
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from tests.airflow.rows import stored
from tests.cases import cases, raising
from tests.e2e.local_airflow import wait_for
from tests.pages import PAGES
from tests.served import listening, responding, served

KEY = "app-emulator"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def airflow(components, api_server, monkeypatch) -> Iterator[str]:
    with served(api_server) as port:
        address = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", address)
        yield address


@pytest.fixture
def check(airflow, connect, monkeypatch):
    monkeypatch.setattr(checks, "API_LIMIT", 2.0)

    def run(extra=None, *, conn_id: str = "browseract_default", words=(), is_terminal: bool = False, **fields):
        connect({"webhook_base_url": airflow, **(extra or {})}, **fields)
        # An earlier test may have let Airflow's logger write to the stdout of this process.
        output = io.StringIO()
        monkeypatch.setattr(output, "isatty", lambda: is_terminal)
        monkeypatch.setattr(sys, "stdout", output)
        return main(["check", conn_id, *words]), output.getvalue()

    return run


def problems(output: str) -> str:
    """Return what has failed, each check in one line, with a bar before the remedy."""
    found = re.findall(r"^(?:FAIL|warn) .*(?:\n {18}.*)*", output, re.MULTILINE)
    return "\n".join(re.sub(r"\s+", " ", each.replace("\n", " | ", 1)) for each in found)


def states(output: str) -> dict[str, str]:
    return {name.strip(): state for state, name in re.findall(r"^(\w+) +(\S.{11})", output, re.MULTILINE)[:6]}


ALL_GOOD = """\
ok    connection  'browseract_default' of type browseract, from {source}
ok    API         {api} accepts the API key; 10 workflows can be seen
ok    triggerer   alive: 1 triggerer, 1 scheduler, 1 DAG processor
ok    API server  the callback route responds at {airflow}
ok    callbacks   the callback route responds at {airflow}
                  It was sent from this machine. That BrowserAct reaches the address too is only shown by
                  the line 'Woken by a callback' in the log of a task.
ok    slots       active: 0 runs; waiting for a slot: 0 task instances

Not asked: the versions of the provider. `airflow providers list` on each machine shows them.
No check failed.
"""


class TestEverythingGood:
    def test_every_check_passes_and_no_run_is_started(self, check, airflow, browseract_emulator):
        code, output = check()
        source = "the environment variable AIRFLOW_CONN_BROWSERACT_DEFAULT"
        assert output == ALL_GOOD.format(source=source, api=browseract_emulator.url, airflow=airflow)
        assert code == 0
        assert browseract_emulator.tasks == []
        assert {request.method for request in browseract_emulator.requests} == {"GET"}

    def test_documented_output_is_like_that(self):
        of = {"api": "http://127.0.0.1:8010", "airflow": "http://127.0.0.1:8080"}
        shown = ALL_GOOD.format(source="Airflow's database", **of)
        assert textwrap.indent(shown, "    ") in PAGES["docs/commands.md"]

    def test_json_has_the_same_as_data_and_nothing_else(self, check):
        code, output = check(words=("--json",))
        found = json.loads(output)
        assert (code, found["conn_id"], found["ok"]) == (0, "browseract_default", True)
        names = ["connection", "API", "triggerer", "API server", "callbacks", "slots"]
        assert [(each["name"], each["state"]) for each in found["checks"]] == [(name, "ok") for name in names]
        assert found["checks"][2]["facts"] == "alive: 1 triggerer, 1 scheduler, 1 DAG processor"

    def test_connection_in_the_database_is_found_there(self, check):
        with stored(Connection("in_database", "browseract", password=KEY)):
            _, output = check(conn_id="in_database")
        assert "ok    connection  'in_database' of type browseract, from Airflow's database\n" in output

    def test_without_webhook_base_url_callbacks_are_skipped(self, check):
        code, output = check({"webhook_base_url": ""})
        assert code == 0
        assert "skip  callbacks   the connection has no webhook_base_url, so deferred tasks poll their runs\n" in output

    def test_active_runs_and_the_queue_are_counted(self, check, queue, browseract_emulator):
        browseract_emulator.set_workflow(SEARCH.id, duration=60.0)
        for _ in range(2):
            BrowserActHook().run_task(SEARCH.id, {"keyword": "laptops"})
        queue.add(100.0)
        queue.add(200.0)
        queue.add(300.0, conn_id="another")
        queue.add(400.0, not_before=time.time() + 600)
        line = "ok    slots       active: 2 runs; waiting for a slot: 2 task instances; waiting for the budget: 1\n"
        assert line in check()[1]

    def test_output_has_colors_only_on_a_terminal_that_wants_them(self, check, monkeypatch):
        assert "\033" not in check()[1]
        assert "\033[32mok\033[0m    connection  " in check(is_terminal=True)[1]
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\033" not in check(is_terminal=True)[1]


class TestConnection:
    def test_missing_connection_names_the_others_of_the_type(self, check):
        with stored(Connection("browseract_shop", "browseract", password=KEY), Connection("web", "http")):
            code, output = check(conn_id="browseract_shp")
        assert code == 1
        assert problems(output) == (
            "FAIL connection There is no connection 'browseract_shp' | Add one of type BrowserAct with the API key in "
            "its API key (password) field, or set AIRFLOW_CONN_BROWSERACT_SHP. Or correct the id (browseract_conn_id). "
            "Connections of type BrowserAct: 'browseract_shop'."
        )
        skipped = {"API": "skip", "callbacks": "skip", "slots": "skip"}
        assert states(output) == {"connection": "FAIL", "triggerer": "ok", "API server": "ok", **skipped}

    def test_variable_that_airflow_cannot_read_is_not_reported_as_missing(self, check, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", "browseract://:app-a/b@/")
        _, output = check(conn_id="shop")
        problem = "'shop': Airflow cannot read the value of AIRFLOW_CONN_SHOP | In a URI, characters such as / in"
        assert problem in problems(output)
        assert "app-a/b" not in output

    def test_secrets_backend_that_fails_is_reported_without_its_message(self, check, monkeypatch):
        monkeypatch.setattr(BrowserActHook, "get_connection", raising(OSError("password is hunter2")))
        _, output = check()
        problem = "FAIL connection Airflow connection 'browseract_default' cannot be read (OSE"
        assert problems(output).startswith(problem)
        assert "hunter2" not in output


ROUTE = {"webhook_base_url": "{airflow}/browseract/callback"}
LOGIN = {"webhook_base_url": "http://ada:hunter2@127.0.0.1:9"}


@cases(
    "fields, name, problem",
    {
        "another type": ({"conn_type": "http"}, "connection", "is of type 'http' | Add a connection of type Bro"),
        "no key": ({"password": ""}, "connection", "'browseract_default' has no API key | Put one (BrowserAct"),
        "field": ({"extra": {"read_timeout": "long"}}, "connection", "extra 'read_timeout': Input should be a valid n"),
        "unknown key": ({"extra": {"webhook_url": ""}}, "connection", "extra has unknown keys: 'webhook_url'"),
        "nothing listens": ({"host": NOWHERE}, "API", "for list-workflows: Connection refused | Check the host"),
        "wrong key": ({"password": "app-wrong"}, "API", "BrowserAct refused list-workflows: "),
        "path of the API": ({"host": "{api}/v2"}, "API", "without a path such as /v2"),
        "callbacks to nobody": ({"extra": {"webhook_base_url": NOWHERE}}, "callbacks", "refused | Check the addr"),
        "callbacks with the route": ({"extra": ROUTE}, "callbacks", "contains the path of the callback route | Rem"),
        "callbacks with a login": ({"extra": LOGIN}, "callbacks", "has a query, a fragment or a login | Set it to"),
    },
)
def test_wrong_field_of_the_connection_is_named_with_remedy(check, airflow, browseract_emulator, fields, name, problem):
    fields = json.loads(json.dumps(fields).replace("{airflow}", airflow).replace("{api}", browseract_emulator.url))
    code, output = check(fields.pop("extra", None), **fields)
    [found] = problems(output).splitlines()
    assert found.startswith(f"FAIL {name}")
    assert problem in found
    assert code == 1
    assert not any(secret in output for secret in ("app-wrong", "hunter2"))
    later = {"connection": ["API", "callbacks", "slots"], "API": ["slots"]}.get(name, [])
    assert [skipped for skipped, state in states(output).items() if state == "skip"] == later


class TestApi:
    def test_lists_that_cannot_be_read_are_warnings(self, check, browseract_emulator):
        browseract_emulator.fault("list-tasks", RequestFault.status(403), times=None)
        code, output = check({"daily_credits": 20})
        assert code == 0
        slots, budget = problems(output).splitlines()
        assert slots.startswith("warn slots the active runs cannot be counted: ")
        assert budget.startswith("warn budget the credits cannot be counted: ")

    def test_text_of_the_response_cannot_control_the_terminal(self, check):
        error = json.dumps({"code": 99001, "msg": "\x1b[2Jgone\n" + "x" * 5000, "trace_id": "t"})
        with responding(Response(error, 400, media_type="application/json")) as address:
            _, output = check(host=address)
        assert "\x1b" not in output
        assert max(map(len, output.splitlines())) < 700


NO_TRIGGERER = (
    r"FAIL triggerer alive: 0 triggerers, 1 scheduler, 1 DAG processor \| Start `airflow triggerer`. Without one, "
    "nothing polls the runs of deferred tasks, and nothing wakes tasks that wait for a slot."
)
LAST_HEARTBEAT = r"FAIL .* 0 triggerers, .*; the last heartbeat of one was \d+ seconds ago, on \S+ \| Start.*"
NO_SCHEDULER = (
    r"warn triggerer alive: 1 triggerer, 0 schedulers, 0 DAG processors \| Start `airflow scheduler` and "
    "`airflow dag-processor`. Only `airflow dags test` runs a DAG without."
)


@cases(
    "jobs, problem",
    {
        "no triggerer": ([("SchedulerJob",), ("DagProcessorJob",)], NO_TRIGGERER),
        "silent triggerer": ([("TriggererJob", 90.0, "running")], LAST_HEARTBEAT),
        "ended triggerer": ([("TriggererJob", 1.0, "success")], LAST_HEARTBEAT),
        "no scheduler": ([("TriggererJob",)], NO_SCHEDULER),
    },
)
def test_missing_triggerer_fails_and_another_missing_component_is_a_warning(check, components, jobs, problem):
    components.clear()
    for job in jobs:
        components.add(*job)
    code, output = check()
    assert re.fullmatch(problem, problems(output))
    assert code == problem.startswith("FAIL")


class TestApiServer:
    @pytest.fixture
    def server(self, check, monkeypatch):
        def run(address: str, **extra: str) -> str:
            monkeypatch.setenv("AIRFLOW__API__BASE_URL", address)
            return check(extra)[1]

        return run

    @cases(
        "response, of_server, of_callbacks",
        {
            "route without a database": (
                Response('{"outcome":"unavailable"}', 503),
                "FAIL API server the callback route at {} cannot handle callbacks now (HTTP 503): Airflow's database",
                "FAIL callbacks the callback route at {} cannot handle callbacks now (HTTP 503): Airflow's database",
            ),
            "relay that replaces the response": (
                Response("{}", 200),
                "FAIL API server {} is not the address of an Airflow API server: the response was HTTP 200 | Set [api]",
                "FAIL callbacks {} does not lead to the callback route: the response was HTTP 200 | Check its path",
            ),
        },
    )
    def test_other_response_than_that_of_the_route_is_explained(self, server, response, of_server, of_callbacks):
        with responding(response) as address:
            found = problems(server(address, webhook_base_url=address)).splitlines()
        expected = [each.format(address) for each in (of_server, of_callbacks)]
        assert [line[: len(begin)] for line, begin in zip(found, expected, strict=True)] == expected

    @cases(
        "response",
        {
            "page": Response("<html>log in", media_type="text/html"),
            "redirect": Response(status_code=302, headers={"location": "/login"}),
            "large page": Response("<html>" + "x" * 10**6, 401, media_type="text/html"),
        },
    )
    def test_gateway_that_responds_itself_needs_a_relay_for_callbacks(self, server, response):
        with responding(response) as address:
            output = server(address, webhook_base_url=address)
        gateway = f"a login page or another gateway responds at {address} (HTTP {response.status_code})"
        relay = "instead of the callback route | Set up a relay there for callbacks."
        assert problems(output) == f"FAIL callbacks {gateway} {relay}"
        assert f"skip  API server  {gateway}\n" in output

    def test_provider_is_missing(self, server):
        app = FastAPI()
        app.add_api_route("/api/v2/version", lambda: {"version": "3.3.9", "git_version": None})
        with served(app) as port:
            found = problems(server(f"http://127.0.0.1:{port}"))
        assert found == (
            f"FAIL API server the provider is missing at http://127.0.0.1:{port}, where Airflow 3.3.9 responds (HTTP "
            f"404) | Install airflow-provider-browseract {__version__} where the API server runs, and restart it. "
            "`airflow plugins` there must list browseract."
        )

    @cases(
        "address, shown",
        {
            "nothing listens": (NOWHERE, f"{NOWHERE}: Connection refused | Start `airflow api-ser"),
            "login and no address": ("http://ada:hunter2@[air", "http://[air: "),
            "long name": (f"http://{'a' * 64}.example.com", f"http://{'a' * 64}.example.com: "),
        },
    )
    def test_address_that_nothing_responds_at_is_reported_without_its_login(self, server, address, shown):
        assert problems(server(address)).startswith(f"FAIL API server nothing responds at {shown}")

    def test_server_that_closes_each_further_connection(self, server, monkeypatch):
        monkeypatch.setattr(requests, "get", raising(requests.ConnectionError()))
        with responding(Response(status_code=404)) as address:
            assert "is not the address of an Airflow API server" in problems(server(address))

    def test_default_address_is_the_port_on_this_machine(self, check, monkeypatch, airflow):
        monkeypatch.delenv("AIRFLOW__API__BASE_URL")
        monkeypatch.setenv("AIRFLOW__API__PORT", airflow.rpartition(":")[2])
        _, output = check({"webhook_base_url": airflow})
        local = airflow.replace("127.0.0.1", "localhost")
        assert f"ok    API server  the callback route responds at {local}\n" in output

    def test_login_page_counts_more_than_an_address_of_the_workers_that_nothing_listens_at(self, server, monkeypatch):
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://127.0.0.1:9/execution/")
        with responding(Response(status_code=401)) as address:
            assert problems(server(address)) == ""

    def test_address_of_the_workers_is_used_behind_a_login(self, server, monkeypatch, airflow):
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{airflow}/execution/")
        with responding(Response("<html>log in", media_type="text/html")) as address:
            assert f"ok    API server  the callback route responds at {airflow}\n" in server(address)

    def test_login_in_the_address_is_not_shown(self, server, airflow):
        output = server(airflow.replace("//", "//ada:hunter2@"))
        assert f"ok    API server  the callback route responds at {airflow}\n" in output
        assert "hunter2" not in output


def test_response_to_a_callback_that_never_ends_is_given_up(check, monkeypatch):
    def drip(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.1)

    monkeypatch.setattr(probe, "PROBE_TIMEOUT", 0.5)
    with listening() as listen:
        _, output = check({"webhook_base_url": f"http://127.0.0.1:{listen(drip)}"})
    assert "does not lead to the callback route: the response was HTTP 200" in problems(output)


def test_spent_credits_are_shown_and_a_budget_that_allows_no_further_run_is_a_warning(check, browseract_emulator):
    browseract_emulator.set_workflow(SEARCH.id, duration=0.0)
    hook = BrowserActHook()
    created = hook.run_task(SEARCH.id, {"keyword": "laptops"})
    wait_for("the credits", lambda: hook.get_task(created.id).credit == 20, timeout=30)
    spent = f"{datetime.now(timezone.utc):%Y-%m-%d} (UTC): 20 of 1,000 credits used, 0 expected for 0 active runs\n"
    assert f"ok    budget      {spent}" in check({"daily_credits": 1000})[1]
    code, output = check({"daily_credits": 20, "monthly_credits": 2000})
    assert code == 0
    remedy = "| No run is started before the end of the period. To allow more, raise daily_credits."
    assert problems(output).endswith(remedy)


class TestWithoutDatabase:
    @pytest.fixture
    def no_database(self, monkeypatch) -> str:
        monkeypatch.setattr(database, "_session", raising(database.NoDatabaseError("connection refused")))
        return "Airflow's database cannot be read on this machine"

    def test_what_cannot_be_checked_is_skipped_with_the_place_to_run_it(self, check, no_database, airflow):
        code, output = check()
        assert code == 0
        where = f"\n{'':18}Run the command where the scheduler or the API server runs.\n"
        for line in (
            f"skip  triggerer   {no_database}: connection refused{where}",
            f"ok    API server  the callback route responds at {airflow}\n",
            f"ok    callbacks   the callback route responds at {airflow}\n",
            f"ok    slots       active: 0 runs\n{'':18}The queue is not known: {no_database}",
        ):
            assert line in output

    def test_connection_that_may_be_in_the_database_is_not_reported_as_missing(self, check, no_database):
        code, output = check(conn_id="elsewhere")
        assert code == 0
        reason = "There is no connection 'elsewhere' in the environment or a secrets backend."
        assert f"skip  connection  {reason} {no_database}" in output


class TestCommandLine:
    def test_no_command_prints_the_help(self, capsys):
        assert main([]) == 0
        assert "check a connection, and whether callbacks arrive" in capsys.readouterr().out

    @pytest.mark.parametrize("words", [["chek"], ["check", "--jsn"], ["check", "a", "b"]])
    def test_wrong_usage_ends_with_exit_code_2(self, words, capsys):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2

    def test_help_does_not_import_airflow(self):
        code = "import sys; from airflow_provider_browseract.__main__ import main\ntry: main(['check', '--help'])\n"
        code += "except SystemExit: sys.exit('airflow' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        assert "Exit code: 0 if no check has failed" in done.stdout

    def run(self, *words: str, stdout=subprocess.PIPE, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "airflow_provider_browseract", "check", *words]
        pipes: dict[str, Any] = {"stdout": stdout, "stderr": subprocess.PIPE, "text": True}
        return subprocess.run(command, env=os.environ | variables, timeout=120, check=False, **pipes)

    def test_airflow_that_cannot_be_loaded_is_reported_without_the_password(self):
        done = self.run(AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="nonsense//ada:hunter2@db")
        assert (done.returncode, done.stdout) == (1, "")
        assert "Airflow cannot be loaded (ArgumentError). `airflow info` shows why." in done.stderr
        assert "hunter2" not in done.stderr

    def test_command_prints_only_its_lines_to_stdout(self, airflow, connect):
        connect({"webhook_base_url": airflow})
        done = self.run("--json", AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG")
        assert done.returncode == 0
        assert json.loads(done.stdout)["ok"] is True

    def test_reader_that_stops_reading_causes_no_traceback(self, airflow, connect):
        connect({"webhook_base_url": airflow})
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as stdout:
            done = self.run("--json", stdout=stdout)
        assert done.returncode == 1
        assert "BrokenPipeError" not in done.stderr
