"""The command ``check``, in this process: with Airflow's database, an API server and the emulator."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import pytest
import requests
from airflow import __version__ as airflow_version
from airflow.models.connection import Connection
from airflow.utils.session import create_session
from fastapi import FastAPI, Response
from sqlalchemy import delete

from airflow_provider_browseract import __version__
from airflow_provider_browseract.__main__ import main
from airflow_provider_browseract.commands import checks, database
from airflow_provider_browseract.emulator import SEARCH, RequestFault
from airflow_provider_browseract.hooks import probe
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs.callback_url import UNKNOWN_RESPONSE
from tests.e2e.local_airflow import wait_for
from tests.pages import PAGES
from tests.served import certificate_in, listening, served

from .conftest import variables

KEY = "app-emulator"


@pytest.fixture
def airflow(components, api_server, monkeypatch) -> Iterator[str]:
    """The address of an Airflow whose components are all alive."""
    with served(api_server) as port:
        address = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", address)
        yield address


@pytest.fixture
def check(airflow, connect, monkeypatch):
    """Set the connection, and run the command; return its exit code and its output."""
    monkeypatch.setattr(checks, "API_LIMIT", 2.0)

    def run(extra=None, *, conn_id: str = "browseract_default", words=(), is_terminal: bool = False, **fields):
        connect({"webhook_base_url": airflow, **(extra or {})}, **fields)
        # An earlier test may have let Airflow's logger write to the stdout of this process.
        output = io.StringIO()
        monkeypatch.setattr(output, "isatty", lambda: is_terminal)
        monkeypatch.setattr(sys, "stdout", output)
        return main(["check", conn_id, *words]), output.getvalue()

    return run


@contextmanager
def responding(response: Response) -> Iterator[str]:
    """Serve a response to every request, and yield the address."""
    app = FastAPI()
    app.add_api_route("/{path:path}", lambda: response, methods=["POST", "GET"])
    with served(app) as port:
        yield f"http://127.0.0.1:{port}"


def problems(output: str) -> str:
    """Return what has failed, each check in one line, with a bar before the remedy."""
    found = re.findall(r"^(?:FAIL|warn) .*(?:\n {18}.*)*", output, re.MULTILINE)
    return "\n".join(re.sub(r"\s+", " ", each.replace("\n", " | ", 1)) for each in found)


def states(output: str) -> dict[str, str]:
    """Return the state of each check by its name."""
    return {name.strip(): state for state, name in re.findall(r"^(\w+) +(\S.{11})", output, re.MULTILINE)[:6]}


@contextmanager
def stored(*connections: Connection) -> Iterator[None]:
    """Store connections in Airflow's database."""
    with create_session() as session:
        session.add_all(connections)
    try:
        yield
    finally:
        with create_session() as session:
            session.execute(delete(Connection))


ALL_GOOD = """\
ok    connection  'browseract_default' of type browseract, from {source}
ok    API         {api} accepts the API key; 10 workflows can be seen
ok    triggerer   alive: 1 triggerer, 1 scheduler, 1 DAG processor
ok    API server  {airflow} has provider {provider} on Airflow {version}, like this machine
ok    callbacks   a callback to {airflow} arrived in this Airflow
                  It was sent from this machine. That BrowserAct reaches the address too is only shown by
                  the line 'Woken by a callback' in the log of a task.
ok    slots       active: 0 runs; waiting for a slot: 0 task instances

Not asked: workers, triggerers and DAG processors. `airflow providers list` there shows their version of the provider.
No check failed.
"""


class TestEverythingGood:
    def test_every_check_passes_and_no_run_is_started(self, check, airflow, browseract_emulator):
        code, output = check()
        source = "the environment variable AIRFLOW_CONN_BROWSERACT_DEFAULT"
        of = {"api": browseract_emulator.url, "airflow": airflow, "provider": __version__, "version": airflow_version}
        assert output == ALL_GOOD.format(source=source, **of)
        assert code == 0
        assert browseract_emulator.tasks == []
        assert {request.method for request in browseract_emulator.requests} == {"GET"}

    def test_documented_output_is_like_that(self):
        of = {"api": "http://127.0.0.1:8010", "airflow": "http://127.0.0.1:8080", "version": "3.3.2"}
        shown = ALL_GOOD.format(source="Airflow's database", provider=__version__, **of)
        assert textwrap.indent(shown, "    ") in PAGES["docs/commands.md"]

    def test_json_has_the_same_as_data_and_nothing_else(self, check):
        code, output = check(words=("--json",))
        found = json.loads(output)
        assert (code, found["conn_id"], found["ok"]) == (0, "browseract_default", True)
        assert [each["name"] for each in found["checks"]] == [
            "connection",
            "API",
            "triggerer",
            "API server",
            "callbacks",
            "slots",
        ]
        assert {each["state"] for each in found["checks"]} == {"ok"}
        assert found["checks"][2]["facts"] == "alive: 1 triggerer, 1 scheduler, 1 DAG processor"

    def test_variable_of_the_check_is_gone_afterwards(self, check):
        check()
        assert variables() == []

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
        _, output = check()
        assert (
            "ok    slots       active: 2 runs; waiting for a slot: 2 task instances; waiting for the budget: 1\n"
            in output
        )

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
            "Connections of type BrowserAct: "
            "'browseract_shop'."
        )
        skipped = {"API": "skip", "callbacks": "skip", "slots": "skip"}
        assert states(output) == {"connection": "FAIL", "triggerer": "ok", "API server": "ok", **skipped}

    def test_variable_that_airflow_cannot_read_is_not_reported_as_missing(self, check, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", "browseract://:app-a/b@/")
        _, output = check(conn_id="shop")
        assert (
            "'shop': Airflow cannot read the value of AIRFLOW_CONN_SHOP | In a URI, characters such as / in"
            in problems(output)
        )
        assert "app-a/b" not in output

    def test_connection_of_another_type_is_refused(self, check):
        _, output = check(conn_type="http")
        assert problems(output) == (
            "FAIL connection Connection 'browseract_default' is of type 'http' | Add a connection of type BrowserAct, "
            "and check that one."
        )

    def test_connection_without_key_is_refused(self, check):
        _, output = check(password="")
        assert problems(output) == (
            "FAIL connection Connection 'browseract_default' has no API key | Put one (BrowserAct dashboard: "
            "Integrations, Manage API Keys) into its API key (password) field."
        )

    def test_field_that_cannot_be_used_is_named(self, check):
        _, output = check({"read_timeout": "long"})
        assert problems(output).startswith(
            "FAIL connection Connection 'browseract_default': extra 'read_timeout' is 'lon"
        )

    def test_unknown_key_of_the_extra_is_a_warning(self, check):
        code, output = check({"webhook_url": "x"})
        assert code == 0
        assert "The extra has unknown keys, which are ignored: 'webhook_url'" in problems(output)
        assert states(output)["API"] == "ok"

    def test_secrets_backend_that_fails_is_reported_without_its_message(self, check, monkeypatch):
        def fail(self, conn_id):
            raise OSError("password is hunter2")

        monkeypatch.setattr(BrowserActHook, "get_connection", fail)
        _, output = check()
        assert problems(output).startswith(
            "FAIL connection Airflow connection 'browseract_default' cannot be read (OSE"
        )
        assert "hunter2" not in output


class TestApi:
    def test_nothing_listens(self, check):
        _, output = check(host="http://127.0.0.1:9")
        assert problems(output) == (
            "FAIL API No connection to http://127.0.0.1:9 for list-workflows: Connection refused | Check the host of "
            "the Airflow connection 'browseract_default' (field API address), and that this machine can reach it (DNS, "
            "proxy, firewall)."
        )
        assert (states(output)["callbacks"], states(output)["slots"]) == ("ok", "skip")

    def test_wrong_key(self, check):
        _, output = check(password="app-wrong")
        assert re.fullmatch(
            r"FAIL API BrowserAct refused list-workflows: .* \(code 401, HTTP 401, traceId \w+\) \| Put a valid API "
            r"key \(BrowserAct dashboard: Integrations, Manage API Keys\) into the API key \(password\) field of the "
            r"Airflow connection 'browseract_default'\.",
            problems(output),
        )
        assert "app-wrong" not in output

    def test_path_in_the_host(self, check, browseract_emulator):
        _, output = check(host=f"{browseract_emulator.url}/v2")
        assert "Remove '/v2' from the host of the Airflow connection 'browseract_default'" in problems(output)

    def test_untrusted_certificate(self, check, tmp_path):
        with tls_server(tmp_path) as port:
            _, output = check(host=f"https://127.0.0.1:{port}")
        assert "its certificate is not trusted (" in problems(output)
        assert "set REQUESTS_CA_BUNDLE" in problems(output)

    def test_page_instead_of_the_api(self, check):
        with responding(Response("<html>log in", media_type="text/html")) as address:
            _, output = check(host=address)
        assert problems(output).startswith(
            "FAIL API BrowserAct's response to list-workflows cannot be used: it is a web page"
        )

    def test_runs_that_cannot_be_counted_are_a_warning(self, check, browseract_emulator):
        browseract_emulator.fault("list-tasks", RequestFault.status(403), times=None)
        code, output = check()
        assert code == 0
        assert problems(output).startswith("warn slots the active runs cannot be counted: ")

    def test_text_of_the_response_cannot_control_the_terminal(self, check):
        error = json.dumps({"code": 99001, "msg": "\x1b[2Jgone\n" + "x" * 5000, "trace_id": "t"})
        with responding(Response(error, 400, media_type="application/json")) as address:
            _, output = check(host=address)
        assert "\x1b" not in output
        assert max(map(len, output.splitlines())) < 700


class TestTriggerer:
    def test_no_triggerer(self, check, components):
        components.clear()
        components.add("SchedulerJob")
        components.add("DagProcessorJob")
        code, output = check()
        assert code == 1
        assert problems(output) == (
            "FAIL triggerer alive: 0 triggerers, 1 scheduler, 1 DAG processor | Start `airflow triggerer`. Without "
            "one, nothing polls the runs of deferred tasks, and nothing wakes tasks that wait for a slot."
        )

    @pytest.mark.parametrize(("ago", "state"), [(90.0, "running"), (1.0, "success")], ids=["silent", "ended"])
    def test_triggerer_that_is_gone_is_not_alive(self, check, components, ago, state):
        components.clear()
        components.add("TriggererJob", ago, state)
        _, output = check()
        assert re.search(
            r"0 triggerers, .*; the last heartbeat of one was \d+ seconds ago, on \S+ \| Start", problems(output)
        )

    def test_missing_scheduler_is_a_warning(self, check, components):
        components.clear()
        components.add("TriggererJob")
        code, output = check()
        assert code == 0
        assert problems(output) == (
            "warn triggerer alive: 1 triggerer, 0 schedulers, 0 DAG processors | Start `airflow scheduler` and "
            "`airflow dag-processor`. Only `airflow dags test` runs a DAG without."
        )


class TestApiServer:
    @pytest.fixture
    def server(self, check, monkeypatch):
        """Run the command with another address of the API server."""

        def run(address: str) -> str:
            monkeypatch.setenv("AIRFLOW__API__BASE_URL", address)
            return problems(check()[1])

        return run

    def test_provider_is_missing(self, server):
        app = FastAPI()
        app.add_api_route("/api/v2/version", lambda: {"version": "3.3.9", "git_version": None})
        with served(app) as port:
            found = server(f"http://127.0.0.1:{port}")
        assert found == (
            f"FAIL API server the provider is missing at http://127.0.0.1:{port}, where Airflow 3.3.9 responds (HTTP "
            f"404) | Install airflow-provider-browseract {__version__} where the API server runs, and restart it. "
            "`airflow plugins` there must list browseract."
        )

    def test_nothing_listens(self, server):
        assert server("http://127.0.0.1:9") == (
            "FAIL API server nothing responds at http://127.0.0.1:9: Connection refused | Start `airflow api-server`, "
            "or set [api] base_url to an address of it that this machine can reach."
        )

    @pytest.mark.parametrize(
        ("address", "shown"),
        [
            ("http://ada:hunter2@[air", "http://[air"),
            (f"http://{'a' * 64}.example.com", f"http://{'a' * 64}.example.com"),
        ],
    )
    def test_address_that_is_none_is_reported(self, server, address, shown):
        assert server(address).startswith(f"FAIL API server nothing responds at {shown}: ")

    def test_other_server(self, server, browseract_emulator):
        assert server(browseract_emulator.url) == (
            f"FAIL API server {browseract_emulator.url} is not the address of an Airflow API server: the response was "
            "HTTP 404 | Set [api] base_url to the address of the API server."
        )

    def test_server_that_closes_each_further_connection(self, server, monkeypatch):
        def fail(*_, **__):
            raise requests.ConnectionError

        monkeypatch.setattr(requests, "get", fail)
        with responding(Response(status_code=404)) as address:
            assert "is not the address of an Airflow API server" in server(address)

    def test_route_that_cannot_handle_callbacks(self, server):
        with responding(Response('{"outcome":"unavailable"}', 503)) as address:
            assert f"FAIL API server the callback route at {address} cannot handle callbacks now" in server(address)

    def test_default_address_is_the_port_on_this_machine(self, check, monkeypatch, airflow):
        monkeypatch.delenv("AIRFLOW__API__BASE_URL")
        monkeypatch.setenv("AIRFLOW__API__PORT", airflow.rpartition(":")[2])
        _, output = check({"webhook_base_url": airflow})
        assert f"ok    API server  {airflow.replace('127.0.0.1', 'localhost')} has provider" in output

    def test_other_airflow(self, server):
        with responding(Response(UNKNOWN_RESPONSE, 404)) as address:
            assert server(address) == (
                f"FAIL API server another Airflow responds at {address}: its database is not the one of this machine "
                "| Set [api] base_url here to the address of this Airflow's API server, or [database] sql_alchemy_conn "
                "to its database."
            )

    def test_other_version_is_a_warning(self, server):
        versions = {"outcome": "checked", "provider": "0.0.9", "airflow": "3.2.0"}
        with responding(Response(json.dumps(versions))) as address:
            assert server(address) == (
                f"warn API server {address} has provider 0.0.9 on Airflow 3.2.0; this machine has provider "
                f"{__version__} on Airflow {airflow_version} | Install the same versions on all components."
            )

    def test_login_page_means_that_it_cannot_be_asked(self, check, monkeypatch):
        with responding(Response(status_code=302, headers={"location": "/login"})) as address:
            monkeypatch.setenv("AIRFLOW__API__BASE_URL", address)
            code, output = check()
        assert code == 0
        assert f"skip  API server  a login page or another gateway responds at {address} (HTTP 302)\n" in output

    def test_login_page_counts_more_than_an_address_of_the_workers_that_nothing_listens_at(self, server, monkeypatch):
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://127.0.0.1:9/execution/")
        with responding(Response(status_code=401)) as address:
            assert server(address) == ""

    def test_address_of_the_workers_is_used_behind_a_login(self, check, monkeypatch, airflow):
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{airflow}/execution/")
        with responding(Response("<html>log in", media_type="text/html")) as address:
            monkeypatch.setenv("AIRFLOW__API__BASE_URL", address)
            _, output = check()
        assert f"ok    API server  {airflow} has provider" in output

    def test_login_in_the_address_is_not_shown(self, check, monkeypatch, airflow):
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", airflow.replace("//", "//ada:hunter2@"))
        _, output = check()
        assert f"ok    API server  {airflow} has provider" in output
        assert "hunter2" not in output


class TestCallbacks:
    def test_nothing_listens(self, check):
        code, output = check({"webhook_base_url": "http://127.0.0.1:9"})
        assert code == 1
        assert problems(output) == (
            "FAIL callbacks http://127.0.0.1:9 cannot be reached from the machine of this test: Connection refused | "
            "Check the address, and that the API server or a relay listens there. In some networks, a machine cannot "
            "reach its own public address. If yours is one of them, look at the log of a task that waited for a "
            "callback: if it has the line 'Woken by a callback', callbacks arrive."
        )

    def test_address_with_the_route_in_it(self, check, airflow):
        _, output = check({"webhook_base_url": f"{airflow}/browseract/callback"})
        assert problems(output) == (
            "FAIL callbacks webhook_base_url of connection 'browseract_default' contains the path of the callback "
            "route | Remove /browseract/callback and what follows it."
        )

    def test_address_with_a_part_of_the_route_in_it(self, check, airflow):
        _, output = check({"webhook_base_url": f"{airflow}/browseract"})
        assert problems(output) == (
            f"FAIL callbacks {airflow}/browseract does not lead to the callback route: the response was HTTP 404 | "
            "Check its path (remove /browseract from its end), and that the provider is installed where the API server "
            "runs."
        )

    def test_login_in_the_address_is_refused_and_not_shown(self, check, airflow):
        _, output = check({"webhook_base_url": airflow.replace("//", "//ada:hunter2@")})
        assert problems(output) == (
            "FAIL callbacks webhook_base_url of connection 'browseract_default' has a query, a fragment or a login | "
            "Set it to only scheme, host and path."
        )
        assert "hunter2" not in output

    @pytest.mark.parametrize(
        "page",
        [
            Response("<html>log in", media_type="text/html"),
            Response(status_code=302, headers={"location": "/login"}),
            Response("<html>" + "x" * 10**6, 401, media_type="text/html"),
        ],
        ids=["page with 200", "redirect", "large page with 401"],
    )
    def test_gateway_that_responds_itself(self, check, page):
        with responding(page) as address:
            _, output = check({"webhook_base_url": address})
        assert problems(output) == (
            f"FAIL callbacks a login page or another gateway responds at {address} (HTTP {page.status_code}) instead "
            "of the callback route | Set up a relay there for callbacks."
        )

    def test_callback_that_arrives_at_another_airflow(self, check):
        with responding(Response(UNKNOWN_RESPONSE, 404)) as address:
            _, output = check({"webhook_base_url": address})
        assert problems(output) == (
            f"FAIL callbacks the callback arrives at another Airflow: the callback route responds at {address}, but "
            "with a database that is not the one of this Airflow | Set webhook_base_url to the address of the API "
            "server of this Airflow."
        )

    def test_route_that_cannot_handle_callbacks(self, check):
        with responding(Response('{"outcome":"unavailable"}', 503)) as address:
            _, output = check({"webhook_base_url": address})
        assert problems(output).startswith(
            f"FAIL callbacks the callback route at {address} cannot handle callbacks now (HTTP 503): Airflow's database"
        )

    def test_relay_that_replaces_the_response_is_not_good(self, check):
        with responding(Response("{}", 200)) as address:
            _, output = check({"webhook_base_url": address})
        assert f"{address} does not lead to the callback route: the response was HTTP 200" in problems(output)

    def test_response_that_never_ends_is_given_up(self, check, monkeypatch):
        monkeypatch.setattr(probe, "PROBE_TIMEOUT", 0.5)
        with listening() as listen:
            port = listen(drip)
            _, output = check({"webhook_base_url": f"http://127.0.0.1:{port}"})
        assert "does not lead to the callback route: the response was HTTP 200" in problems(output)


def drip(connection: socket.socket) -> None:
    """Respond with ten bytes a second, without an end."""
    connection.recv(10_000)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


@contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    """Serve TLS with a certificate that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_in(folder))

    def shake_hands(connection: socket.socket) -> None:
        with suppress(OSError):
            context.wrap_socket(connection, server_side=True).close()

    with listening() as listen:
        yield listen(shake_hands)


class TestBudget:
    @pytest.fixture
    def today(self, browseract_emulator, documented_responses) -> str:
        """The day, on which a run has cost 20 credits."""
        browseract_emulator.set_workflow(SEARCH.id, duration=0.0)
        hook = BrowserActHook()
        created = hook.run_task(SEARCH.id, {"keyword": "laptops"})
        wait_for("the credits", lambda: hook.get_task(created.id).credit == 20, timeout=30)
        return f"{datetime.now(timezone.utc):%Y-%m-%d}"

    def test_spent_credits_are_shown(self, check, today):
        _, output = check({"daily_credits": 1000})
        assert f"ok    budget      {today} (UTC): 20 of 1,000 credits used, 0 expected for 0 active runs\n" in output

    def test_budget_that_allows_no_further_run_is_a_warning(self, check, today):
        code, output = check({"daily_credits": 20, "monthly_credits": 2000})
        assert code == 0
        assert problems(output).endswith(
            "| No run is started before the end of the period. To allow more, raise daily_credits."
        )

    def test_credits_that_cannot_be_counted_are_a_warning(self, check, browseract_emulator):
        browseract_emulator.fault("list-tasks", RequestFault.status(403), times=None)
        _, output = check({"daily_credits": 20})
        assert "warn budget the credits cannot be counted: " in problems(output)


class TestWithoutDatabase:
    @pytest.fixture
    def no_database(self, monkeypatch) -> str:
        """Let every access to Airflow's database fail, and return the reason."""

        @contextmanager
        def session():
            raise database.NoDatabaseError("connection refused")
            yield

        monkeypatch.setattr(database, "_session", session)
        return "Airflow's database cannot be read on this machine"

    def test_what_cannot_be_checked_is_skipped_with_the_place_to_run_it(self, check, no_database, airflow):
        code, output = check()
        assert code == 0
        where = f"\n{'':18}Run the command where the scheduler or the API server runs.\n"
        assert f"skip  triggerer   {no_database}: connection refused{where}" in output
        assert (
            f"skip  API server  {airflow} has the provider, but its version is not known: {no_database}{where}"
            in output
        )
        assert (
            f"skip  callbacks   the callback route responds at {airflow}, but it may be that of another Air" in output
        )
        assert f"ok    slots       active: 0 runs\n{'':18}The queue is not known: {no_database}" in output

    def test_database_that_can_only_be_read_still_shows_components_and_queue(self, check, monkeypatch, queue):
        def fail(_):
            raise database.NoDatabaseError("read-only transaction")

        monkeypatch.setattr(database, "expected_callback", fail)
        _, output = check()
        assert states(output) == {
            "connection": "ok",
            "API": "ok",
            "triggerer": "ok",
            "API server": "skip",
            "callbacks": "skip",
            "slots": "ok",
        }
        assert "Airflow's database cannot be written on this machine: read-only transaction" in output
        assert "waiting for a slot: 0 task instances\n" in output

    def test_connection_that_may_be_in_the_database_is_not_reported_as_missing(self, check, no_database):
        code, output = check(conn_id="elsewhere")
        assert code == 0
        assert (
            "skip  connection  There is no connection 'elsewhere' in the environment or a secrets backend. "
            + no_database
        ) in output


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

    def test_airflow_that_cannot_be_loaded_is_reported_without_the_password(self):
        done = subprocess.run(
            [sys.executable, "-m", "airflow_provider_browseract", "check"],
            env=os.environ | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "nonsense//ada:hunter2@db"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "Airflow cannot be loaded (ArgumentError). `airflow info` shows why." in done.stderr
        assert "hunter2" not in done.stderr

    def test_command_prints_only_its_lines_to_stdout(self, airflow, connect):
        connect({"webhook_base_url": airflow, "unknown": 1})
        done = subprocess.run(
            [sys.executable, "-m", "airflow_provider_browseract", "check", "--json"],
            env=os.environ | {"AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"},
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0
        assert json.loads(done.stdout)["ok"] is True

    def test_reader_that_stops_reading_causes_no_traceback(self, airflow, connect):
        connect({"webhook_base_url": airflow})
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "airflow_provider_browseract", "check", "--json"]
        with os.fdopen(writing, "w") as stdout:
            done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        assert done.returncode == 1
        assert "BrokenPipeError" not in done.stderr
