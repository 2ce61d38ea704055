"""The relays that docs/callbacks.md shows, run as they are shown."""

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import requests
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from airflow_provider_browseract.hooks.browseract import BrowserActHook
from tests.helpers.local_airflow import free_port, wait_for
from tests.helpers.served import served

PAGE = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text()
NGINX = shutil.which("nginx")
ENDED = {"id": "7", "status": "finished"}
JSON = {"Content-Type": "application/json"}


OTHER_PATHS = (
    "/",
    "/api/v2/dags",
    "/browseract/docs",
    "/browseract/callback/../../api/v2/dags",
    "/browseract/callback/%2e%2e/%2e%2e/api/v2/dags",
    "/browseract/callback/..%2f..%2fapi/v2/dags",
    "/browseract/panel",
    "/browseract/panel/runs/7/stop?conn=browseract_default",
    "/browseract/callback/../panel/runs",
    "/browseract/callback/a/b/%2e%2e/%2e%2e/%2e%2e/panel/",
    "/browseract/callback/..%2fpanel/runs",
    "/browseract/callback/a/b/c",
    "/browseract/callback/a/%0ab",
    "/browseract/callback/a/b%0a",
    "/api/v2/x/%2e%2e/%2e%2e/%2e%2e/browseract/callback/a/b/c",
)


def raw(address: str, method: str, path: str) -> tuple[int, bytes]:
    """Ask for a path as it is written."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=120)
    connection.request(method, path, b"{}" if method == "POST" else None, JSON)
    response = connection.getresponse()
    body = response.read()
    assert b"may not come here" not in body
    return response.status, body


@pytest.fixture(params=["", "/team-a"], ids=["at the root", "below a path"])
def base(request) -> str:
    """The path of ``[api] base_url``."""
    return str(request.param)


@pytest.fixture
def backend(api_server, base) -> Iterator[int]:
    """Run an API server with pages that are not for BrowserAct besides the callback route; yield its port."""
    everything = FastAPI()

    @everything.api_route("/api/v2/{path:path}", methods=["GET", "POST"])
    @everything.api_route(f"{base}/browseract/panel", methods=["GET", "POST"])
    @everything.api_route(f"{base}/browseract/panel/{{path:path}}", methods=["GET", "POST"])
    def protected(path: str = "") -> dict[str, str]:
        return {"who": "may not come here"}

    everything.mount(base, api_server)
    with served(everything) as port:
        yield port


@pytest.fixture
def nginx(tmp_path, backend, base) -> Iterator[str]:
    """Run the documented nginx on loopback and without TLS; yield its address."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    [shown] = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
    for before, after in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        ("http://airflow-api-server:8080", f"http://127.0.0.1:{backend}"),
        ("location ~ ^/browseract/", f"location ~ ^{base}/browseract/"),
    ):
        assert shown.count(before) == 1
        shown = shown.replace(before, after)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log info;\n"
        f"events {{}}\nhttp {{ {folders} access_log {tmp_path}/access.log;\n{shown}\n}}\n"
    )
    process = subprocess.Popen([NGINX, "-c", str(configuration), "-p", str(tmp_path), "-e", f"{tmp_path}/error.log"])
    try:
        # It writes the file once it listens.
        wait_for("nginx", lambda: process.poll() is not None or (tmp_path / "pid").exists(), timeout=120, every=0.02)
        assert process.poll() is None, (tmp_path / "error.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(120)


@pytest.fixture
def documented_function(backend, base, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOST", f"127.0.0.1:{backend}")
    monkeypatch.setenv("AIRFLOW_TOKEN", "t0ken-of-the-login")
    monkeypatch.setenv("AIRFLOW_PATH", base)
    monkeypatch.setattr(http.client, "HTTPSConnection", http.client.HTTPConnection)
    [shown] = re.findall(r"```python\n(import http.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(shown, "callbacks.md", "exec"), names)
    return names["handler"]


def event(path: str, method: str = "POST", body: str = json.dumps(ENDED)) -> dict[str, Any]:
    """What AWS hands to a function behind a URL."""
    sent = {"rawPath": path, "requestContext": {"http": {"method": method}}, "body": body}
    return {**sent, "headers": {"content-type": "application/json"}}


@pytest.fixture
def function_url(documented_function) -> Iterator[str]:
    """Serve the documented function as AWS does; yield its address."""
    urls = FastAPI()

    @urls.api_route("/{path:path}", methods=["GET", "POST"])
    async def call(request: Request) -> Response:
        sent = event(request.url.path, request.method, (await request.body()).decode())
        # AWS takes only what JSON can express.
        response = json.loads(json.dumps(await anyio.to_thread.run_sync(documented_function, sent, None)))
        return Response(response.get("body"), response["statusCode"], response.get("headers"))

    with served(urls) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=["nginx", "function_url"])
def relay(request) -> str:
    return str(request.getfixturevalue(request.param))


class TestRelay:
    def test_relay_forwards_callback_with_three_megabyte_body(self, relay, base, deferred):
        body = {**ENDED, "output": {"string": "x" * 3_000_000}}
        response = requests.post(f"{relay}{base}{deferred.path}", json=body, timeout=120)
        assert (response.status_code, response.json()) == (200, {"outcome": "resumed"})
        assert response.headers["Content-Type"] == "application/json"
        assert deferred.state == "scheduled"

    def test_connection_test_succeeds_through_relay(self, relay, base, connect):
        connect({"webhook_base_url": f"{relay}{base}"})
        good, message = BrowserActHook().test_connection()
        assert good, message
        assert message.startswith("Connected to ")


class TestNginx:
    @pytest.mark.parametrize("path", OTHER_PATHS)
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_nginx_relay_blocks_every_other_path(self, nginx, base, deferred, path, method):
        assert raw(nginx, method, base + path)[0] in (403, 404, 405)

    def test_nginx_relay_forwards_the_normalized_path(self, nginx, base, deferred):
        path = f"/api/v2/x/%2e%2e/%2e%2e/%2e%2e{base}{deferred.path}"
        assert raw(nginx, "POST", path) == (200, b'{"outcome":"resumed"}')
        assert raw(nginx, "GET", path)[0] == 403

    def test_nginx_relay_logs_contain_no_callback_token(self, nginx, base, deferred, tmp_path):
        requests.post(f"{nginx}{base}{deferred.path}", json=ENDED, timeout=120)
        requests.get(f"{nginx}{base}{deferred.path}", timeout=120)
        requests.get(f"{nginx}{base}/elsewhere", timeout=120)
        # nginx writes the line after the response.
        wait_for("the line", lambda: "/elsewhere" in (tmp_path / "access.log").read_text(), timeout=120)
        for log in ("access.log", "error.log"):
            assert deferred.token not in (tmp_path / log).read_text()


class TestForwardingFunction:
    def test_login_token_is_forwarded_and_a_redirect_gets_503(self, documented_function, base, deferred, monkeypatch):
        seen: list[str | None] = []
        airflow = FastAPI()

        @airflow.post("/{path:path}")
        def login(request: Request) -> Response:
            seen.append(request.headers["Authorization"])
            return RedirectResponse("/login", 302)

        with served(airflow) as port:
            monkeypatch.setenv("AIRFLOW_HOST", f"127.0.0.1:{port}")
            assert documented_function(event(base + deferred.path), None)["statusCode"] == 503
        assert seen == ["Bearer t0ken-of-the-login"]

    @pytest.mark.parametrize("path", OTHER_PATHS)
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_forwarding_function_forwards_no_other_request(self, documented_function, base, path, method, monkeypatch):
        monkeypatch.setattr(http.client, "HTTPSConnection", None)
        for each in (path, "/browseract/callback/a/b?x=1", "/browseract/callback/a/b\n"):
            assert documented_function(event(base + each, method), None) == {"statusCode": 404}
        assert documented_function(event(f"{base}/browseract/callback/a/b", "GET"), None) == {"statusCode": 404}

    def test_forwarding_responds_with_503_while_airflow_is_down(self, documented_function, base, deferred, monkeypatch):
        monkeypatch.setenv("AIRFLOW_HOST", f"127.0.0.1:{free_port()}")
        assert documented_function(event(base + deferred.path), None)["statusCode"] == 503
