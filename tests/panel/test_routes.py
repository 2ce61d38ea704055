"""Who sees what, on every route of the panel."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from unittest.mock import Mock

import httpx
import pytest
from fastapi import HTTPException
from fastapi.routing import APIRoute

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.emulator import CONTACTS, SEARCH, RequestFault
from airflow_provider_browseract.panel import app, connections, kept, pages, rows, viewing, web
from airflow_provider_browseract.panel.links import Recent, RecordReader
from airflow_provider_browseract.runs.wait import Wait
from tests.helpers.cases import cases, raising
from tests.helpers.catalogue import TEMPLATE_TEXT
from tests.triggers.waits import until

from .conftest import PANEL, ROLES, World
from .known import CONN, queued
from .known import failed as failure

FRAGMENT = {"X-BrowserAct-Panel": "fragment"}
STOP = {"X-BrowserAct-Panel": "1", "Sec-Fetch-Site": "same-origin"}
STOPPED, REFUSED = (200, "stopped"), (403, None)
ANONYMOUS = "anonymous"
USERS = (ANONYMOUS, *ROLES)
RUN_PAGE = "/runs/{own}?conn={conn}"
SAME = ("viewer of one DAG", "viewer", "user", "op", "admin")


async def read(client: httpx.AsyncClient, path: str, user: str = "admin", **headers: str) -> httpx.Response:
    """Read the fragment of a page, which waits for data."""
    as_user = {} if user == ANONYMOUS else {"user": user}
    return await client.get(path, headers={**FRAGMENT, **as_user, **headers})


@pytest.fixture
def account(world: World) -> dict[str, str]:
    """Runs of a readable DAG, of another DAG and of none, and one that failed; and a queue of two."""
    own, other, free = world.start(), world.start(), world.start()
    failed = world.start(duration=0.0, outcome="failed", failure=(7, "planted failure"))
    world.link(own, "prices")
    world.link(other, "shop")
    world.link(failed, "prices", waits=False)
    bot, own_bot = world.start_bot(), world.start_bot()
    world.link(own_bot, "prices", api_version=ApiVersion.V3)
    world.queue = [queued(1, "shop"), queued(2, "prices")]
    world.failures = [failure("prices", "planted reason", task="own"), failure("shop", "other reason", task="other")]
    runs = {"own": own, "other": other, "free": free, "failed": failed, "bot": bot, "own_bot": own_bot}
    return {**runs, "conn": CONN}


def of(path: str, account: dict[str, str]) -> str:
    return path.format(**account, run="manual__2026-11-27T00:00:00+00:00")


@pytest.fixture
def see(client, account):
    """Read the text of a page about the runs, as an admin or another user."""

    async def text_of(path: str, user: str = "admin", http_status: int = 200) -> str:
        response = await read(client, of(path, account), user)
        assert response.status_code == http_status
        return response.text

    return text_of


# What is shown, by the path of the page and a text in it, and who sees it.
KINDS = {
    "run of a DAG, in the list": ("/?conn={conn}", 'data-run="{own}"', SAME),
    "run of another DAG, in the list": ("/?conn={conn}", 'data-run="{other}"', SAME[1:]),
    "run without a DAG, in the list": ("/?conn={conn}", 'data-run="{free}"', ("op", "admin")),
    "run of a bot of a DAG, in the list": ("/?conn={conn}", 'data-run="{own_bot}"', SAME),
    "run of a bot without a DAG, in the list": ("/?conn={conn}", 'data-run="{bot}"', ("op", "admin")),
    "page of a run of a bot without a DAG": ("/runs/{bot}?conn={conn}", "bot Find a contact", ("op", "admin")),
    "steps of a run of a bot": ("/runs/{own_bot}?conn={conn}", "/screenshots/{own_bot}/1.svg", SAME),
    "slots of the account": ("/?conn={conn}", 'data-tile="slots"', ("op", "admin")),
    "credits of today": ("/?conn={conn}", 'data-tile="today"', ("op", "admin")),
    "length of the queue": ("/?conn={conn}", 'data-tile="queue"', SAME),
    "name in the queue, of a readable DAG": ("/?conn={conn}", "prices / search [2]", SAME),
    "name in the queue, of another DAG": ("/?conn={conn}", "shop / search [1]", SAME[1:]),
    "failed task instance with its reason": ("/?conn={conn}", "prices / own</strong> not started", SAME),
    "failed task instance of another DAG": ("/?conn={conn}", "shop / other", SAME[1:]),
    "page of a failed task instance": ("/ti/prices/{run}/own/-1", "planted reason", SAME),
    "page of a failed task instance of another DAG": ("/ti/shop/{run}/other/-1", "other reason", SAME[1:]),
    "page of a run": ("/runs/{own}?conn={conn}", "{own}", SAME),
    "page of a run of another DAG": ("/runs/{other}?conn={conn}", "{other}", SAME[1:]),
    "page of a run without a DAG": ("/runs/{free}?conn={conn}", "{free}", ("op", "admin")),
    "steps of a run without a DAG": ("/runs/{free}?conn={conn}", 'class="step', ("op", "admin")),
    "steps with screenshots": ("/runs/{own}?conn={conn}", "/screenshots/{own}/1.svg", SAME),
    "text of a failure": ("/runs/{failed}?conn={conn}", "planted failure", SAME),
    "live view": ("/runs/{own}?conn={conn}", "data-live=", ("user", "op", "admin")),
    "live view of a run without a DAG": ("/runs/{free}?conn={conn}", "data-live=", ("admin",)),
    "stop button of a run without a DAG": ("/?conn={conn}", 'data-stop="{free}"', ("admin",)),
    "page of a task instance": ("/ti/prices/{run}/search/-1", "prices / search", SAME),
    "page of a task instance of another DAG": ("/ti/shop/{run}/search/-1", "shop / search", SAME[1:]),
    "page of a DAG": ("/dag/prices", 'data-run="{own}"', SAME),
    "page of another DAG": ("/dag/shop", 'data-run="{other}"', SAME[1:]),
    "page of a DAG run": ("/dag/prices/{run}", 'data-run="{own}"', SAME),
    "credits": ("/credits?conn={conn}", "<table", ("op", "admin")),
    "workflows": ("/workflows?conn={conn}", SEARCH.id, ("op", "admin")),
    "bots": ("/workflows?conn={conn}&kind=bot", CONTACTS.id, ("op", "admin")),
    "bot": (f"/bots/{CONTACTS.id}?conn={{conn}}", "RunBotOperator", ("op", "admin")),
    "bot template": (f"/bot-templates/{TEMPLATE_TEXT.id}?conn={{conn}}", "RunBotTemplateOperator", ("op", "admin")),
    "workflow": (f"/workflows/{SEARCH.id}?conn={{conn}}", "dag-file", ("op", "admin")),
    "template": (f"/templates/{TEMPLATE_TEXT.id}?conn={{conn}}", "dag-file", ("op", "admin")),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_data_is_seen_only_with_its_right(client, account, kind, monkeypatch):
    path, text, who = KINDS[kind]
    monkeypatch.setattr(rows, "UNREAD_AFTER", -60.0)
    await read(client, f"/?conn={CONN}")
    seen = set()
    for user in USERS:
        response = await read(client, of(path, account), user)
        if of(text, account) in response.text:
            assert response.status_code == 200
            seen.add(user)
    assert seen == set(who)


async def test_every_route_but_the_static_files_needs_a_login(client, account):
    values = {"task_id": account["own"], "dag_id": "prices", "run_id": "r", "map_index": "-1", "source_id": SEARCH.id}
    routes = [(route.path, route.methods) for route in app.create_app().routes if isinstance(route, APIRoute)]
    assert len(routes) == 14
    for path, methods in routes:
        real = path.format(**values, name="panel.css") if "path:path" not in path else "/open/credits"
        for method in methods & {"GET", "POST"}:
            response = await client.request(method, real, headers=STOP)
            assert response.status_code == (200 if "/static/" in path else 401), path
            assert not any(each in response.text for each in account.values() if each != CONN)


async def test_task_instance_shows_the_run_that_it_waits_for_and_not_that_of_a_newer_xcom(see, world, account):
    waited_for = world.link(account["own"], "prices", wait=Wait(account["own"], 0.0))
    world.link(account["free"], "prices", waits=False, pushed_at=waited_for.pushed_at + timedelta(minutes=1))
    shown = await see("/ti/prices/{run}/search/-1", "viewer of one DAG")
    assert f'id="run-id">{account["own"]}</bdi>' in shown


@pytest.mark.parametrize("http_status", [401, 403])
async def test_login_that_airflow_refuses_shows_no_data_and_asks_for_another(client, account, monkeypatch, http_status):
    monkeypatch.setattr(web, "get_user", raising(HTTPException(http_status)))
    response = await client.get(f"/?conn={CONN}")
    assert response.status_code == http_status
    assert "You are not logged in to Airflow." in response.text
    assert account["own"] not in response.text


@cases(
    ("overview", "/?conn=unknown", "/?conn=secret"),
    ("run of a connection", "/runs/{own}?conn=unknown", "/runs/{own}?conn=secret"),
    ("credits", "/credits?conn=unknown", "/credits?conn=secret"),
    ("run", "/runs/12345?conn={conn}", "/runs/{other}?conn={conn}"),
)
async def test_what_is_unknown_and_what_is_forbidden_have_the_same_response(client, account, unknown, forbidden):
    responses = [await read(client, of(path, account), "viewer of one DAG") for path in (unknown, forbidden)]
    assert [each.status_code for each in responses] == [403, 403]
    first, second = (re.sub(r'data-now="[^"]*"', "", each.text) for each in responses)
    assert first == second


async def test_edited_xcom_shows_no_run(see, world, account):
    world.link(account["free"], "prices", proof="edited", waits=False)
    assert "You may not see" in await see("/runs/{free}?conn={conn}", "viewer of one DAG", 403)
    for path in ("/?conn={conn}", "/dag/prices"):
        shown = await see(path, "viewer of one DAG")
        assert f'data-run="{account["own"]}"' in shown
        assert account["free"] not in shown


async def test_no_page_contains_key_inputs_or_outputs(client, world, account):
    done = world.start(duration=0.0, output="planted output")
    world.link(done, "prices", waits=False)
    # The list comes first: it has the version of the API in which each run was started.
    for path in dict.fromkeys([*(path for path, _, _ in KINDS.values()), f"/runs/{done}?conn={CONN}"]):
        response = await read(client, of(path, account))
        assert response.status_code == 200, path
        for planted in ("planted input", "planted output", world.emulator.api_key):
            assert planted not in response.text
            assert planted not in str(response.headers)


async def test_every_response_has_the_headers_that_keep_foreign_code_out(client, account):
    for path, user in (("/", "admin"), ("/nowhere", "admin"), ("/", ANONYMOUS), ("/static/panel.js", ANONYMOUS)):
        response = await read(client, path, user)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'self'" in policy
        assert "unsafe" not in policy
        keeping = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
        assert keeping.items() <= response.headers.items()
        assert response.headers["server-timing"].startswith("total;dur=")


async def test_static_file_is_sent_whole_whatever_range_is_asked_for(client):
    script = await client.get("/static/panel.js")
    part = await client.get("/static/panel.js", headers={"Range": "bytes=" + "0" * 8000})
    assert (part.status_code, part.content) == (200, script.content)


async def test_pictures_without_tls_are_allowed_only_from_the_address_of_the_connection(client, world, account):
    policy = (await read(client, f"/?conn={CONN}")).headers["content-security-policy"]
    images = next(each for each in policy.split("; ") if each.startswith("img-src"))
    assert images == f"img-src 'self' https: {world.emulator.url}"


async def test_links_begin_with_the_path_of_base_url(client, see, account):
    in_airflow = 'href="/team-a/dags/prices/runs/manual__2026-11-27T00%3A00%3A00%2B00%3A00/tasks/search"'
    assert in_airflow in await see(RUN_PAGE)
    whole = await client.get(of(RUN_PAGE, account), headers={"user": "admin"})
    assert f'href="{PANEL}/static/panel.css"' in whole.text


async def test_page_waits_for_data_only_once(client, world, monkeypatch):
    given: list[float] = []

    def noted(request) -> float:
        given.append(web.patience_of(request))
        return given[-1]

    monkeypatch.setattr(pages, "patience_of", noted)
    world.emulator.fault("list-tasks", RequestFault.slow(30), times=None)
    response = await client.get(f"/credits?conn={CONN}", headers={"user": "admin"})
    assert response.status_code == 200
    first, second = given
    assert first <= web.PAGE_PATIENCE
    assert second < web.PAGE_PATIENCE / 10


class TestConnections:
    async def test_password_of_another_service_is_sent_nowhere(self, see, world, monkeypatch):
        connection = {"conn_type": "postgres", "host": world.emulator.url, "password": "password of a database"}
        monkeypatch.setenv("AIRFLOW_CONN_PG", json.dumps(connection))
        before = len(world.emulator.requests)
        assert "is not of type BrowserAct" in await see("/?conn=pg")
        assert len(world.emulator.requests) == before

    @cases(("DAG", "/dag/prices"), ("task instance", "/ti/prices/{run}/search/-1"))
    async def test_browseract_is_not_asked_because_of_an_xcom_without_a_proof(self, see, world, account, path):
        world.links.clear()
        world.link(account["free"], "prices", proof="")
        before = len(world.emulator.requests)
        for user in ("viewer of one DAG", "op"):
            assert account["free"] not in await see(path, user)
        assert len(world.emulator.requests) == before

    async def test_another_connection_with_the_same_key_shows_what_is_proven(self, see, world, account, monkeypatch):
        for name, key in (("SECOND", world.emulator.api_key), ("THIRD", "another key")):
            connection = {"conn_type": "browseract", "host": world.emulator.url, "password": key}
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))
        assert account["own"] in await see("/?conn=second", "viewer of one DAG")
        await see("/?conn=third", "viewer of one DAG", 403)

    async def test_at_most_some_connections_are_read_because_xcoms_name_them(self, see, world, account, monkeypatch):
        read = Mock(wraps=connections._read)
        monkeypatch.setattr(connections, "_read", read)
        genuine = dict(world.links)
        world.links.clear()
        for number in range(100):
            world.link(str(number), "prices", conn_id=f"named_{number}", proof="")
        world.links |= genuine
        assert account["own"] in await see("/", "viewer of one DAG")
        assert read.call_count == viewing.MAX_NAMED

    async def test_browseract_is_not_asked_for_runs_that_the_viewer_may_not_see(self, see, world):
        await see("/?conn={conn}")
        before = len(world.emulator.requests)
        for task_id in ("1", "2", "{other}"):
            await see(f"/runs/{task_id}?conn={{conn}}", "viewer of one DAG", 403)
        assert len(world.emulator.requests) == before

    async def test_reason_of_a_failed_read_is_shown_only_to_who_may_read_the_connection(self, see, connect):
        connect({"daily_credits": "planted-in-extra"})
        assert "daily_credits" in await see("/?conn={conn}", "op")
        shown = await see("/?conn={conn}", "viewer of one DAG")
        assert "daily_credits" not in shown
        assert "BrowserAct could not be read." in shown


class TestHidden:
    """What operators hide of their runs, on every page."""

    @pytest.mark.parametrize("path", [RUN_PAGE, "/ti/prices/{run}/search/-1", "/ti/shop/{run}/search/-1"])
    async def test_live_view_that_one_task_instance_hides_is_on_no_page(self, see, world, account, path):
        world.link(account["own"], "prices", hidden=("live_view",))
        world.link(account["own"], "shop", follows=True, also=True)
        shown = await see(path)
        assert account["own"] in shown
        assert "data-live" not in shown

    @cases(("sensor", {"follows": True}), ("no proof", {"proof": "forged"}))
    async def test_only_a_task_instance_that_has_started_the_run_hides_something_of_it(self, see, world, account, link):
        world.link(account["own"], "shop", also=True, hidden=("live_view", "secret_inputs"), **link)
        shown = await see(RUN_PAGE)
        assert "data-live" in shown
        assert "***" not in shown

    async def test_runs_without_a_proof_are_no_other_runs_of_the_task_instance(self, see, world, account):
        world.link(account["own"], "prices")
        world.link(account["free"], "prices", proof="")
        await see("/?conn={conn}")
        shown = await see("/runs/{own}?conn={conn}", "viewer of one DAG")
        assert account["free"] not in shown
        assert account["failed"] in shown

    async def test_sensor_gives_no_live_view(self, see, world, account):
        for follows in (True, False):
            world.link(account["free"], "prices", proof="", follows=follows, wait=Wait(account["free"], 0.0))
            shown = await see("/runs/{free}?conn={conn}", "user")
            assert ('class="step' in shown, "data-live" in shown) == (True, not follows)


class TestNothingYet:
    """Pages of which BrowserAct or Airflow has nothing yet."""

    async def test_retry_in_the_queue_has_its_place_beside_the_run_of_the_earlier_try(self, see, world, account):
        world.links.clear()
        link = world.link(account["failed"], "prices", waits=False)
        world.queue = [queued(1, "prices")._replace(key=link.key)]
        shown = await see("/ti/prices/{run}/search/-1")
        for text in ("Place in the queue", "planted failure", 'data-refresh="10"'):
            assert text in shown

    async def test_task_instance_in_the_queue_has_its_place(self, see):
        shown = await see("/ti/prices/r/search/2", "viewer of one DAG")
        assert "Place 2 in the queue" in shown
        assert "shop" not in shown

    async def test_reason_of_a_failed_task_instance_is_shown_although_its_run_cannot_be_read(self, see, world, account):
        world.links.clear()
        world.link(account["own"], "prices", waits=False)
        world.failures = [failure("prices", "planted reason", started=True, task_id=account["own"])]
        world.emulator.fault("get-task", RequestFault.refused(99001), times=None)
        shown = await see("/ti/prices/{run}/search/-1", "viewer of one DAG")
        assert "planted reason" in shown
        assert "BrowserAct could not be read" in shown


class TestOpen:
    """The address of the button, which redirects to where the page can be shown."""

    @cases(
        ("all is well", True, "admin", "/team-a/plugin/browseract"),
        ("viewer who sees no plugins", True, "viewer", ""),
        ("Airflow that does not follow the frame", False, "admin", ""),
    )
    @pytest.mark.parametrize("path", ["ti/prices/2026-11-27T00%3A00%3A00%2B00%3A00/search/-1", "runs/7?conn=a%26b"])
    async def test_page_is_opened_within_airflow_if_possible(self, client, monkeypatch, path, follows, user, within):
        monkeypatch.setattr(pages, "UI_FOLLOWS_FRAME", follows)
        response = await client.get(f"/open/{path}", headers={"user": user})
        assert (response.status_code, response.headers["location"]) == (307, f"{within}{PANEL}/{path}")

    @pytest.mark.parametrize("path", ["/evil.example", "..%2F..%2Fauth/logout", "https:%2F%2Fevil.example", "static/x"])
    async def test_no_other_address_is_opened(self, client, path):
        response = await client.get(f"/open/{path}", headers={"user": "admin"})
        assert response.status_code == 404


class TestStop:
    @pytest.fixture(autouse=True)
    def _no_grace(self, monkeypatch):
        monkeypatch.setattr(rows, "UNREAD_AFTER", -60.0)

    @pytest.fixture
    def press(self, client, world, account):
        """Press the button of the run without a DAG, check that only a success stops it, and return the response."""

        async def press_(user: str = "admin", headers=STOP, method: str = "POST") -> httpx.Response:
            path = of("/runs/{free}/stop?conn={conn}", account)
            response = await client.request(method, path, headers={**headers, "user": user}, json={})
            stopped = [task.id for task in world.emulator.tasks if task.status == "canceled"]
            assert stopped == ([account["free"]] if response.status_code == 200 else [])
            return response

        return press_

    async def test_run_that_nobody_waits_for_is_stopped(self, press, account, caplog):
        with caplog.at_level("INFO"):
            assert (await press()).json() == {"outcome": "stopped"}
        assert f"BrowserAct task {account['free']} was stopped in the panel by admin" in caplog.text
        assert (await press()).json() == {"outcome": "ended"}

    async def test_stop_is_sent_although_the_viewer_has_left(self, press, world):
        with world.emulator.fault("get-task", RequestFault.slow(0.3)):
            pressing = asyncio.ensure_future(press())
            await until(lambda: any(each.endpoint == "get-task" for each in world.emulator.requests))
            pressing.cancel()
        await until(lambda: any(task.status == "canceled" for task in world.emulator.tasks))

    async def test_run_that_ends_before_its_stop_is_not_logged_as_stopped(self, client, world, account, caplog):
        world.emulator.fault("stop-task", RequestFault.refused(10121))
        path = of("/runs/{free}/stop?conn={conn}", account)
        with caplog.at_level("INFO"):
            response = await client.post(path, headers={**STOP, "user": "admin"}, json={})
        assert response.json() == {"outcome": "ended"}
        assert "was stopped in the panel" not in caplog.text

    @cases(
        ("run that a task instance waits for", "admin", {}, (409, None)),
        ("second connection to the account", "admin", {"conn_id": "second"}, (409, None)),
        ("claim without a proof", "admin", {"proof": ""}, (409, None)),
        ("sensor", "admin", {"follows": True}, (409, None)),
        ("run of no DAG", "user", None, REFUSED),
        ("reader of the DAG", "viewer", {"waits": False}, REFUSED),
        ("user of the DAG", "user", {"waits": False}, STOPPED),
        ("user of the DAG of a sensor", "user", {"waits": False, "follows": True}, REFUSED),
        ("link without a proof", "user", {"waits": False, "proof": ""}, REFUSED),
    )
    async def test_only_who_may_act_stops_a_run_that_nobody_waits_for(self, press, world, account, user, link, outcome):
        if link is not None:
            world.link(account["free"], "prices", **link)
        response = await press(user)
        assert (response.status_code, response.json().get("outcome")) == outcome

    async def test_refused_stop_reads_nothing_anew(self, press, world, account, monkeypatch):
        world.link(account["free"], "prices")
        monkeypatch.setattr(RecordReader, "read", raising(AssertionError()))
        for user, http_status in (("viewer", 403), ("admin", 409)):
            assert (await press(user)).status_code == http_status

    async def test_no_run_is_stopped_and_the_overview_says_so_while_not_all_that_wait_are_known(
        self, see, press, world
    ):
        assert "It is not known which runs" not in await see("/?conn={conn}")
        world.incomplete = True
        shown = await see("/?conn={conn}")
        assert "It is not known which runs" in shown
        assert "data-stop" not in shown
        assert (await press()).json() == {"error": rows.TOO_MANY_WAIT}

    @cases(
        ("another site", {"X-BrowserAct-Panel": "1", "Sec-Fetch-Site": "cross-site"}, REFUSED),
        ("a subdomain", {"X-BrowserAct-Panel": "1", "Sec-Fetch-Site": "same-site"}, REFUSED),
        ("a form", {"Sec-Fetch-Site": "same-origin"}, REFUSED),
        ("old browser, other site", {"X-BrowserAct-Panel": "1", "Origin": "http://evil.example"}, REFUSED),
        ("old browser, this page", {"X-BrowserAct-Panel": "1", "Origin": "http://airflow.test"}, STOPPED),
        ("no site", {"X-BrowserAct-Panel": "1"}, REFUSED),
    )
    async def test_only_a_request_of_the_page_itself_stops_a_run(self, press, headers, outcome):
        response = await press(headers=headers)
        assert (response.status_code, response.json().get("outcome")) == outcome

    async def test_get_request_stops_nothing(self, press):
        assert (await press(method="GET")).status_code in (404, 405)

    @cases(
        ("reader of the DAG", "admin", ["prices / search", "shop / search"]),
        ("reader of one of the DAGs", "viewer of one DAG", ["prices / search", "a task of a DAG that you may not"]),
    )
    async def test_page_names_who_claims_to_wait(self, see, press, world, account, user, names):
        world.link(account["free"], "prices")
        world.link(account["free"], "shop", also=True, proof="forged")
        shown = await see("/runs/{free}?conn={conn}", user)
        assert all(name in shown for name in names)
        assert ("shop" in shown) is (user == "admin")
        assert "prices / search, shop / search" in (await press()).json()["error"]

    async def test_page_says_if_xcoms_are_stored_elsewhere(self, see, world):
        assert "a custom XCom backend" not in await see("/runs/{free}?conn={conn}")
        world.unreadable = True
        assert "a custom XCom backend" in await see("/runs/{free}?conn={conn}")
        assert "a custom XCom backend" not in await see(RUN_PAGE)

    async def test_failed_stop_is_reported_with_its_reason(self, press, world):
        world.emulator.fault("stop-task", RequestFault.refused(99001), times=None)
        response = await press()
        assert response.status_code == 502
        assert "could not be stopped" in response.json()["error"]


class TestVersions:
    """A run is read and stopped in the version of the API that has started it, and only there."""

    def asked(self, world) -> set[str]:
        """The endpoints that single runs were read with."""
        return {each.endpoint for each in world.emulator.requests} & {"get-task", "query-run"}

    @cases(("XCom", None), ("wait", Wait("1", 0.0, api_version=ApiVersion.V3)))
    async def test_link_names_the_version(self, client, world, wait):
        task_id = world.start_bot()
        world.link(task_id, "prices", api_version=ApiVersion.V3, wait=wait)
        for path in (f"/runs/{task_id}?conn={CONN}", of("/ti/prices/{run}/search/-1", {})):
            response = await read(client, path, "viewer of one DAG")
            assert task_id in response.text
            assert "bot Find a contact" in response.text
        assert self.asked(world) == {"query-run"}

    async def test_list_names_the_version(self, see, world, account):
        await see("/?conn={conn}")
        await see("/runs/{bot}?conn={conn}")
        assert self.asked(world) == {"query-run"}

    async def test_run_that_one_version_does_not_know_is_looked_for_in_the_other(self, see, world, account):
        await see("/runs/{bot}?conn={conn}")
        assert self.asked(world) == {"get-task", "query-run"}
        world.link(account["free"], "prices", api_version=ApiVersion.V3)
        await see("/runs/{free}?conn={conn}")

    async def test_version_of_an_xcom_without_a_proof_counts_for_nothing(self, see, world, account):
        world.link(account["free"], "prices", proof="", api_version=ApiVersion.V3)
        await see("/runs/{free}?conn={conn}")
        assert self.asked(world) == {"get-task"}

    async def test_id_that_no_address_can_have_is_not_asked_for(self, see, world):
        await see("/runs/a%20b?conn={conn}", http_status=404)
        assert self.asked(world) == set()

    async def test_run_of_a_bot_is_stopped_in_version_3(self, client, world, monkeypatch):
        monkeypatch.setattr(rows, "UNREAD_AFTER", -60.0)
        task_id = world.start_bot()
        path = f"/runs/{task_id}/stop?conn={CONN}"
        response = await client.post(path, headers={**STOP, "user": "admin"}, json={})
        assert response.json() == {"outcome": "stopped"}
        stops = {each.endpoint for each in world.emulator.requests} & {"stop-task", "cancel-run"}
        assert stops == {"cancel-run"}

    @cases(
        ("list, for who may read the connection", "/?conn={conn}", "op", True),
        ("list, for a viewer", "/?conn={conn}", "viewer", False),
        ("credits", "/credits?conn={conn}", "op", True),
    )
    async def test_pages_work_without_version_3_and_one_line_says_so(self, see, world, account, path, user, has_reason):
        world.emulator.fault("page-runs", RequestFault.status(404), times=None)
        shown = await see(path, user)
        assert (f'data-run="{account["own"]}"' in shown) is ("credits" not in path)
        assert shown.count("The runs of bots are missing") == 1
        assert ("HTTP 404" in shown) is has_reason
        assert "BrowserAct could not be read" not in shown

    async def test_credits_say_so_if_only_the_days_of_bots_cannot_be_read(self, see, world, account):
        await see("/?conn={conn}")
        world.emulator.fault("page-runs", RequestFault.status(404))
        assert (await see("/credits?conn={conn}")).count("The runs of bots are missing") == 1


@cases(
    ("missing connection", "/?conn=no", "admin", 200, "There is no connection &#39;no&#39;"),
    ("task instance without a run", "/ti/prices/r/t/-1", "viewer of one DAG", 200, "No run yet"),
    ("DAG without a run", "/dag/no", "admin", 200, "No run yet"),
    ("DAG run without a run", "/dag/prices/r", "viewer of one DAG", 200, "No run yet"),
    ("unknown run", "/runs/12345?conn={conn}", "admin", 404, "BrowserAct has no such run."),
    ("page of letters", "/?conn={conn}&page=x", "admin", 200, 'data-run="{own}"'),
    ("negative page", "/?conn={conn}&page=-1", "admin", 200, 'data-run="{own}"'),
    ("huge page", f"/?conn={{conn}}&page={'9' * 5000}", "admin", 200, 'data-run="{own}"'),
    ("filter with NUL", "/?conn={conn}&show=%00", "admin", 200, 'data-run="{own}"'),
    ("DAG id with NUL", "/ti/a%00b/r/t/-1", "admin", 403, "You may not see this"),
    ("DAG id that no database can store", f"/ti/{'x' * 300}/r/t/-1", "admin", 403, "You may not see this"),
    ("file outside of the folder", "/static/..%2Fapp.py", "admin", 404, "There is no such page"),
    ("file that is not for browsers", "/static/app.py", "admin", 404, "There is no such page"),
    ("file with NUL", "/static/panel.css%00", "admin", 404, "There is no such page"),
)
async def test_address_of_nothing_is_a_page_that_says_so(see, account, path, user, http_status, text):
    assert of(text, account) in await see(path, user, http_status)


class TestBadInput:
    async def test_viewer_of_no_connection_sees_failures_and_reads_how_to_add_one(self, see, world):
        world.links.clear()
        shown = await see("/", "viewer of one DAG")
        assert "prices / own</strong> not started: <bdi>planted reason" in " ".join(shown.split())
        assert "Add one of type BrowserAct" in shown

    async def test_what_is_older_than_a_minute_is_shown_as_being_read(self, client, see, world, account, monkeypatch):
        for path in ("/?conn={conn}", RUN_PAGE):
            assert "being read" not in await see(path)
        monkeypatch.setattr(kept, "OLD", 0.0)
        monkeypatch.setattr(web, "PAGE_PATIENCE", 0.0)
        for path in ("/?conn={conn}", RUN_PAGE):
            shown = (await client.get(of(path, account), headers={"user": "admin"})).text
            assert "<span data-loading>being read" in shown
            assert account["own"] in shown
        # Nothing reads the page about an ended run again.
        assert "being read" not in await see("/runs/{failed}?conn={conn}")

    async def test_more_pages_than_threads_wait_for_one_slow_read_and_for_no_longer_than_their_patience(
        self, see, world, account, monkeypatch
    ):
        monkeypatch.setattr(web, "FRAGMENT_PATIENCE", 0.3)
        await see("/?conn={conn}")
        world.emulator.fault("get-task", RequestFault.slow(60), times=None)
        read = [see("/runs/{own}?conn={conn}") for _ in range(2 * app.THREADS)]
        assert all("data-loading" in shown for shown in await asyncio.gather(*read))
        assert len([each for each in world.emulator.requests if each.endpoint == "get-task"]) == 1

    async def test_database_that_cannot_be_read_is_an_error_page_without_details(self, client, world, monkeypatch):
        monkeypatch.setattr(Recent, "get", raising(RuntimeError("password of the database")))
        response = await read(client, "/")
        assert response.status_code == 503
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "This page cannot be shown now" in response.text
        assert 'data-refresh="10"' in response.text
        assert "password" not in response.text

    async def test_pages_are_refused_at_once_if_too_many_wait_for_the_database(self, see, monkeypatch):
        monkeypatch.setattr(app, "MOST_WAITING", 0)
        assert "Too many pages are being read now" in await see("/", http_status=503)

    async def test_placeholders_of_airflow_count_as_not_given(self, see, account):
        assert "prices / search" in await see("/ti/prices/{run}/search/{{MAP_INDEX}}")
        assert f'data-run="{account["own"]}"' in await see("/dag/prices/{{RUN_ID}}")
