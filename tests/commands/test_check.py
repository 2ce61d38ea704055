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
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.models.connection import Connection
from fastapi import Response
from sqlalchemy.exc import OperationalError

from airflow_provider_browseract.__main__ import main
from airflow_provider_browseract.commands import check as command
from airflow_provider_browseract.emulator import SEARCH, RequestFault
from airflow_provider_browseract.hooks import probe
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from tests.airflow.rows import stored
from tests.helpers.cases import cases, raising
from tests.helpers.local_airflow import wait_for
from tests.helpers.pages import PAGES
from tests.helpers.served import responding, served

KEY = "app-emulator"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def airflow(components, api_server) -> Iterator[str]:
    with served(api_server) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def check(airflow, connect, monkeypatch):
    monkeypatch.setattr(command, "API_LIMIT", 2.0)

    def run(extra=None, *, conn_id: str = "browseract_default", **fields):
        connect({"webhook_base_url": airflow, **(extra or {})}, **fields)
        # An earlier test may have let Airflow's logger write to the stdout of this process.
        output = io.StringIO()
        monkeypatch.setattr(sys, "stdout", output)
        return main(["check", "--conn-id", conn_id]), output.getvalue()

    return run


def problems(output: str) -> str:
    """Return what has failed, each check in one line, with a bar before the remedy."""
    found = re.findall(r"^(?:FAIL|warn) .*(?:\n {18}.*)*", output, re.MULTILINE)
    return "\n".join(re.sub(r"\s+", " ", each.replace("\n", " | ", 1)) for each in found)


def skipped(output: str) -> list[str]:
    return re.findall(r"^skip  (\w+)", output, re.MULTILINE)


ALL_GOOD = """\
ok    components  alive: triggerer, scheduler, DAG processor
ok    connection  'browseract_default' from {source}
ok    callbacks   the callback route responds to this machine
ok    API         accepts the API key; workflows that it can see: 10
ok    slots       active runs: 0
ok    budget      the connection has none

Failed: 0, skipped: 0.
"""


class TestEverythingGood:
    def test_every_check_passes_and_no_run_is_started(self, check, browseract_emulator):
        code, output = check()
        assert output == ALL_GOOD.format(source="the environment")
        assert code == 0
        assert browseract_emulator.tasks == []
        assert {request.method for request in browseract_emulator.requests} == {"GET"}

    def test_documented_output_is_like_that(self):
        # The emulator has fewer workflows than that of the tests.
        shown = ALL_GOOD.format(source="Airflow's database").replace("see: 10", "see: 6")
        assert textwrap.indent(shown, "    ") in PAGES["docs/commands.md"]

    def test_connection_in_the_database_is_found_there(self, check):
        with stored(Connection("in_database", "browseract", password=KEY)):
            _, output = check(conn_id="in_database")
        assert "ok    connection  'in_database' from Airflow's database\n" in output

    def test_connection_of_a_secrets_backend_is_found_there(self, check, monkeypatch):
        class VaultBackend:
            def get_connection(self, conn_id):
                return "the connection"

        failing = VaultBackend()
        monkeypatch.setattr(failing, "get_connection", raising(OSError("hunter2")), raising=False)
        monkeypatch.setattr(command, "ensure_secrets_loaded", lambda: [failing, VaultBackend()])
        assert "from the secrets backend VaultBackend\n" in check()[1]

    def test_without_webhook_base_url_callbacks_are_skipped(self, check):
        code, output = check({"webhook_base_url": ""})
        assert code == 0
        assert "skip  callbacks   the connection has no webhook_base_url, so deferred tasks poll their runs\n" in output
        assert output.endswith("Failed: 0, skipped: 1.\n")

    def test_active_runs_are_counted(self, check, browseract_emulator):
        browseract_emulator.set_workflow(SEARCH.id, duration=60.0)
        for _ in range(2):
            BrowserActHook().run_task(SEARCH.id, {"keyword": "laptops"})
        assert "ok    slots       active runs: 2\n" in check()[1]


def test_missing_connection_is_reported_with_the_remedy(check):
    code, output = check(conn_id="browseract_shp")
    assert code == 1
    assert problems(output).startswith(
        "FAIL connection There is no connection 'browseract_shp' | Add one of type BrowserAct with the API key in"
    )
    assert skipped(output) == ["callbacks", "API", "slots", "budget"]
    assert "skip  API         needs the check 'connection'\n" in output


def test_variable_that_airflow_cannot_read_is_not_reported_as_missing(check, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", "browseract://:app-a/b@/")
    _, output = check(conn_id="shop")
    assert "'shop': Airflow cannot read the value of AIRFLOW_CONN_SHOP | In a URI, characters such" in problems(output)
    assert "app-a/b" not in output


def test_secrets_backend_that_fails_is_reported_without_its_message(check, monkeypatch):
    monkeypatch.setattr(BrowserActHook, "get_connection", raising(OSError("password is hunter2")))
    code, output = check()
    assert code == 1
    assert (
        problems(output)
        == "FAIL connection unexpected error (OSError) | Check Airflow's database and secrets backends."
    )


LOGIN = {"webhook_base_url": "http://ada:hunter2@127.0.0.1:9"}


@cases(
    ("another type", {"conn_type": "hunter2"}, "connection", "is not of type BrowserAct | Use a connection of"),
    ("no key", {"password": ""}, "connection", "'browseract_default' has no API key | Put one (BrowserAct"),
    (
        "field",
        {"extra": {"daily_credits": "hunter2"}},
        "connection",
        "daily_credits': Input should be a valid integer, unable to parse string as an integer | Correct it in the",
    ),
    ("unknown key", {"extra": {"webhook_url": "hunter2"}}, "connection", "extra has unknown keys: 'webhook_url'"),
    ("no address", {"host": "hunter2://"}, "connection", "the host is not an http or https address | Put one like"),
    ("nothing listens", {"host": f"{NOWHERE}/hunter2"}, "API", "API address for list-workflows: Connection refused | "),
    ("secret path", {"host": "{api}/hunter2"}, "API", "What responds is not BrowserAct's API (HTTP 404) | Leave"),
    ("wrong key", {"password": "app-wrong"}, "API", "BrowserAct refused list-workflows: "),
    ("callbacks to nobody", {"extra": {"webhook_base_url": NOWHERE}}, "callbacks", "Connection refused) | Check the a"),
    ("callbacks with a login", {"extra": LOGIN}, "callbacks", "has a query, a fragment or a login"),
)
def test_wrong_field_of_the_connection_is_named_with_remedy(check, browseract_emulator, fields, name, problem):
    fields = json.loads(json.dumps(fields).replace("{api}", browseract_emulator.url))
    code, output = check(fields.pop("extra", None), **fields)
    [found] = problems(output).splitlines()
    assert found.startswith(f"FAIL {name}")
    assert problem in found
    assert code == 1
    assert not any(secret in output for secret in ("app-wrong", "hunter2"))
    later = {"connection": ["callbacks", "API", "slots", "budget"], "API": ["slots", "budget"]}
    assert skipped(output) == later.get(name, [])


@cases(
    ("web page", Response("<html>Hello", media_type="text/html")),
    ("another service", Response('{"status": "up"}', media_type="application/json")),
    ("server without such a path", Response(status_code=404)),
)
def test_address_where_something_else_responds_is_named(check, response):
    with responding(response) as address:
        _, output = check(host=address)
    found = f"What responds is not BrowserAct's API (HTTP {response.status_code}) | Leave the host"
    assert problems(output).startswith(f"FAIL API {found}")


def test_address_without_tls_is_a_warning(check):
    _, output = check({"webhook_base_url": ""}, host="http://browseract.invalid")
    warning, failed = problems(output).splitlines()
    assert warning.startswith(
        "warn connection 'browseract_default' from the environment | The API address begins with h"
    )
    assert failed.startswith(
        "FAIL API No connection to the API address for list-workflows: the name of the host cannot be"
    )


def test_nothing_is_sent_to_the_host_of_a_redirect(check, listen):
    asked = []
    other = listen(lambda connection: asked.append(connection.recv(10_000)))
    redirect = Response(status_code=307, headers={"location": f"http://127.0.0.1:{other}/"})
    with responding(redirect) as address:
        _, output = check({"webhook_base_url": address}, host=address)
    assert [line.split()[1] for line in problems(output).splitlines()] == ["callbacks", "API"]
    assert asked == []


def test_lists_that_cannot_be_read_are_errors_of_slots_and_budget(check, browseract_emulator):
    browseract_emulator.fault("list-tasks", RequestFault.status(403), times=None)
    code, output = check({"daily_credits": 20})
    assert code == 1
    assert re.findall("^FAIL (slots|budget) ", problems(output), re.MULTILINE) == ["slots", "budget"]


def test_text_of_the_response_cannot_control_the_terminal(check):
    error = json.dumps({"code": 99001, "msg": "\x1b[2Jgone\n" + "x" * 5000, "trace_id": "t"})
    with responding(Response(error, 400, media_type="application/json")) as address:
        _, output = check(host=address)
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) < 700
    assert "gone xxx" in output


def test_spent_credits_are_shown_and_a_budget_that_allows_no_further_run_is_a_warning(check, browseract_emulator):
    browseract_emulator.set_workflow(SEARCH.id, duration=0.0)
    hook = BrowserActHook()
    created = hook.run_task(SEARCH.id, {"keyword": "laptops"})
    wait_for("the credits", lambda: hook.get_task(created.id).credit == 20, timeout=30)
    spent = f"{datetime.now(timezone.utc):%Y-%m-%d} (UTC): 20 of 1,000 credits used, 0 more expected\n"
    assert f"ok    budget      {spent}" in check({"daily_credits": 1000})[1]
    code, output = check({"daily_credits": 20, "monthly_credits": 2000})
    assert code == 0
    assert problems(output).endswith("| To allow more runs before the end of the period, raise daily_credits.")


# Airflow around it


def test_missing_components_are_named_with_their_commands(check, components):
    components.clear()
    components.add("SchedulerJob")
    code, output = check()
    commands = "`airflow triggerer`, `airflow dag-processor`"
    assert problems(output) == f"FAIL components not alive: triggerer, dag-processor | Start {commands}."
    assert (code, skipped(output)) == (1, [])


def test_what_cannot_be_checked_without_the_database_is_skipped_with_the_place_to_run_it(check, monkeypatch):
    error = OperationalError("SELECT", {}, Exception("password=hunter2"))
    monkeypatch.setattr(command, "check_migrations", raising(error))
    code, output = check()
    cannot = "Airflow's database cannot be read on this machine (OperationalError)"
    where = f"\n{'':18}Run the command where the scheduler or the API server runs.\n"
    assert f"skip  components  {cannot}{where}" in output
    assert (code, skipped(output)) == (0, ["components"])
    # It may be in the database.
    code, output = check(conn_id="elsewhere")
    assert f"skip  connection  {cannot}{where}" in output
    assert (code, len(skipped(output))) == (0, 6)
    assert "hunter2" not in output


# Callbacks


def test_response_to_a_callback_that_never_ends_is_given_up(check, listen, monkeypatch):
    def begin(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 21\r\n\r\n{")
        # Until the command has closed the connection.
        while connection.recv(10_000):
            pass

    monkeypatch.setattr(probe, "PROBE_TIMEOUT", 0.5)
    _, output = check({"webhook_base_url": f"http://127.0.0.1:{listen(begin)}"})
    assert "FAIL callbacks Callbacks do not arrive: " in problems(output)
    assert "webhook_base_url does not respond to this machine (TimeoutError)" in problems(output)


class TestCommandLine:
    def test_no_command_prints_the_help(self, capsys):
        assert main([]) == 0
        assert "check a connection and the Airflow around it" in capsys.readouterr().out

    @pytest.mark.parametrize("words", [["chek"], ["check", "--json"], ["check", "a"]])
    def test_wrong_usage_ends_with_exit_code_2(self, words, capsys):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2

    def run(self, *words: str, stdout=subprocess.PIPE, **variables: str) -> subprocess.CompletedProcess[str]:
        words_ = [sys.executable, "-m", "airflow_provider_browseract", "check", *words]
        pipes: dict[str, Any] = {"stdout": stdout, "stderr": subprocess.PIPE, "text": True}
        return subprocess.run(words_, env=os.environ | variables, timeout=120, check=False, **pipes)

    def test_airflow_that_cannot_be_loaded_is_reported_without_the_password(self):
        done = self.run(AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="nonsense//ada:hunter2@db")
        assert (done.returncode, done.stdout) == (1, "")
        assert "Airflow cannot be loaded (ArgumentError). `airflow info` shows why." in done.stderr
        assert "hunter2" not in done.stderr

    def test_database_without_tables_has_to_be_migrated(self, connect, tmp_path):
        connect()
        done = self.run(AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{tmp_path / 'airflow.db'}")
        problem = "Airflow's database has no tables for this version | Run `airflow db migrate`."
        assert (done.returncode, problems(done.stdout)) == (1, f"FAIL components {problem}")
        assert "ok    connection  'browseract_default' from the environment\n" in done.stdout
        done = self.run("--conn-id", "x", AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{tmp_path / 'airflow.db'}")
        assert problems(done.stdout) == f"FAIL components {problem}\nFAIL connection {problem}"

    def test_command_prints_only_its_lines_to_stdout(self, airflow, connect):
        connect({"webhook_base_url": airflow})
        done = self.run(AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG")
        assert done.returncode == 0
        assert done.stdout.startswith("ok    components  ")
        assert done.stdout.endswith("Failed: 0, skipped: 0.\n")

    def test_reader_that_stops_reading_causes_no_traceback(self, airflow, connect):
        connect({"webhook_base_url": airflow})
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as stdout:
            done = self.run(stdout=stdout)
        assert done.returncode == 1
        assert "BrokenPipeError" not in done.stderr
