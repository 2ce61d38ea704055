"""The callback route, mounted by Airflow itself, on Airflow's database."""

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from operator import methodcaller
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from airflow.models.trigger import Trigger
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from sqlalchemy.exc import OperationalError

from airflow_provider_browseract import plugin
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.plugin import LazyApp
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.callback_url import UNKNOWN_RESPONSE, WAIT_XCOM, is_resumed_wait, new_token
from airflow_provider_browseract.runs.request import digest
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.wait import MAX_CALLBACKS_IN_VAIN, WaitEvent, WokenBy
from airflow_provider_browseract.webhook import database, receiver
from tests.airflow.rows import Deferred, schedule_next_try, selects
from tests.helpers.cases import cases, raising

ENDED = {"id": "7", "status": "finished", "output": {"string": "[]"}}
RESUMED, UNKNOWN = (200, "resumed"), (404, "unknown")
BUSY, UNAVAILABLE = (503, "busy"), (503, "unavailable")


@pytest.fixture
async def client(api_server) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=api_server, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow.test") as sender:
        yield sender


async def call(client: httpx.AsyncClient, path: str, body=ENDED, **arguments) -> tuple[int, str]:
    """Send a callback as BrowserAct does; return the status and the outcome in the response."""
    response = await client.post(path, json=body, **arguments)
    assert list(response.json()) == ["outcome"]
    return response.status_code, response.json()["outcome"]


class TestCallbackForWaitingTask:
    @pytest.mark.parametrize("version", list(ApiVersion))
    async def test_callback_resumes_deferred_task_and_takes_nothing_from_its_body(self, client, deferred, version):
        # At the limit, it would be too late.
        deferred.defer(api_version=version, callbacks_in_vain=MAX_CALLBACKS_IN_VAIN - 1)
        assert await call(client, deferred.path, {"id": "13", "status": "failed", "deadline": 1.0}) == RESUMED
        assert deferred.state == "scheduled"
        event = WaitEvent(deferred.wait, WokenBy.CALLBACK)
        assert from_json(WaitEvent, deferred.resumed_with) == event
        assert is_resumed_wait(deferred.xcoms[WAIT_XCOM], deferred.wait.began_at)

    async def test_callback_marks_only_the_wait_that_it_ended(self, client, deferred):
        earlier, ids = deferred.wait.began_at, []
        for _ in range(2):
            deferred.forget_trigger()
            deferred.defer()
            ids.append(deferred.trigger_id)
            assert await call(client, deferred.path) == RESUMED
        with create_session() as session:
            # SQLite uses the ids of triggers again.
            assert (ids[0] == ids[1]) is (session.get_bind().dialect.name == "sqlite")
        wait = deferred.xcoms[WAIT_XCOM]
        assert is_resumed_wait(wait, deferred.wait.began_at)
        assert not is_resumed_wait(wait, earlier)

    async def test_callback_resumes_only_the_try_whose_id_it_has(self, client, deferred):
        earlier = deferred.path
        schedule_next_try(deferred.waiting)
        deferred.start()
        deferred.defer()
        assert await call(client, earlier) == UNKNOWN
        assert deferred.state == "deferred"
        assert await call(client, deferred.path) == RESUMED
        assert from_json(WaitEvent, deferred.resumed_with).wait.browseract_task_id == "7"

    async def test_early_callback_is_ignored_only_within_the_grace_after_a_deferral(self, client, deferred):
        deferred.defer(ago=timings.CORE_RACE_GRACE - 2)
        assert await call(client, deferred.path) == UNKNOWN
        assert deferred.state == "deferred"
        deferred.defer(ago=timings.CORE_RACE_GRACE + 0.1)
        assert await call(client, deferred.path) == RESUMED


class TestCallbackWithoutWaitingTask:
    async def test_second_callback_changes_nothing(self, client, deferred):
        await call(client, deferred.path)
        event = deferred.resumed_with
        assert await call(client, deferred.path) == UNKNOWN
        deferred.leave_trigger("success")
        assert await call(client, deferred.path) == UNKNOWN
        assert (deferred.state, deferred.resumed_with) == ("success", event)

    @cases(
        ("start", Deferred.start, "running"),
        ("poll resumed it", methodcaller("leave_trigger", "scheduled"), "scheduled"),
        ("trigger of another provider", Deferred.hand_to_another_provider, "deferred"),
        ("no callback token", methodcaller("defer", callback_token_sha256=None), "deferred"),
        ("limit of callbacks in vain", methodcaller("defer", callbacks_in_vain=MAX_CALLBACKS_IN_VAIN), "deferred"),
    )
    async def test_callback_that_nothing_waits_for_changes_nothing(self, client, deferred, happens, state):
        happens(deferred)
        assert await call(client, deferred.path) == UNKNOWN
        assert deferred.state == state

    async def test_callback_losing_race_against_trigger_keeps_the_trigger_event(self, client, deferred, monkeypatch):
        claim = database._claim

        def after_the_trigger(session, ti_id, trigger_id, now):
            Trigger.submit_event(trigger_id, TriggerEvent({"from": "the trigger"}), session=session)
            session.flush()
            return claim(session, ti_id, trigger_id, now)

        monkeypatch.setattr(database, "_claim", after_the_trigger)
        assert await call(client, deferred.path) == UNKNOWN
        assert deferred.resumed_with == {"from": "the trigger"}
        assert "woken_by" not in deferred.xcoms.get(WAIT_XCOM, {})


@pytest.fixture
def forge(deferred) -> Callable[[str], str]:
    """Fill a path with the parts of the right one, and with wrong ones."""
    parts = {"route": "/browseract/callback", "path": deferred.path, "id": deferred.ti_id, "token": deferred.token}
    parts |= {"other_id": str(uuid4()), "other_token": new_token(), "digest": digest(deferred.token)}
    return lambda path: path.format(**parts)


FORGED = (
    *("{id}/{other_token}", "{other_id}/{token}", "{other_id}/{other_token}"),
    *("{id}/x", "{id}/{digest}", "{id}/{token}{token}", "{id}/{token}%00", "{id}/" + "x" * 10_000),
    *("x/{token}", "1/{token}", "%00/{token}", "{id}x/{token}", "{{{id}}}/{token}", "x" * 10_000 + "/{token}"),
    "00000000-0000-0000-0000-000000000000/{token}",
)
MISSED = ("{route}{path}", "/browseract{path}", "{route}/{token}", "{path}/more", "{path}/")
NO_PAGES = [f"/browseract/{page}" for page in ("", "elsewhere", "docs", "redoc", "openapi.json")]


class TestForgedCallback:
    @pytest.mark.parametrize("path", FORGED, ids=range(len(FORGED)))
    async def test_forged_callback_gets_the_same_404_and_leaves_no_line(self, client, deferred, forge, path, caplog):
        with caplog.at_level(logging.DEBUG, "airflow_provider_browseract"):
            response = await client.post(forge(f"{{route}}/{path}"), json=ENDED)
        reference = await client.post(forge("{route}/{id}/{other_token}"), json=ENDED)
        assert (response.status_code, response.content) == (404, UNKNOWN_RESPONSE)
        assert dict(response.headers) == dict(reference.headers)
        assert deferred.state == "deferred"
        assert [each for each in caplog.records if each.name.startswith("airflow_provider_browseract")] == []

    @pytest.mark.parametrize("path", ["{id}/x", "x/{token}", "{id}x/{token}", "{id}/{token}x"])
    async def test_text_that_is_no_id_or_no_token_does_not_reach_the_database(self, client, deferred, forge, path):
        with selects() as statements:
            assert await call(client, forge(f"{{route}}/{path}")) == UNKNOWN
        assert statements == []

    @pytest.mark.parametrize("path", [*MISSED, *NO_PAGES])
    async def test_path_that_misses_the_route_gets_a_404_of_its_own(self, client, deferred, forge, path):
        assert await call(client, forge(path)) == (404, "no such path")
        assert deferred.state == "deferred"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_callback_with_another_http_method_gets_405(client, deferred, method):
    response = await client.request(method, deferred.path)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert deferred.state == "deferred"


def callback_app() -> LazyApp:
    """Return a new application, which is not loaded yet."""
    return LazyApp(plugin.callbacks, "The callback route", "Waiting tasks are resumed by their polls.")


class Asgi:
    """A callback sent to the plugin's application by hand, whose body never ends."""

    def __init__(self, path: str, next_chunk, app: LazyApp | None = None, root_path: str = "/browseract") -> None:
        self.app, self.next_chunk = app or callback_app(), next_chunk
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
        self.scope |= {"headers": [], "query_string": b"", "root_path": root_path}
        self.chunks_read = 0

    async def send(self) -> tuple[int, str]:
        """Send it, and return the status and the outcome in the response."""
        status, body = await self.response()
        return status, json.loads(body)["outcome"]

    async def response(self) -> tuple[int, bytes]:
        """Send it, and return the status and the body of the response."""
        messages: list[Any] = []

        async def keep(message: Any) -> None:
            messages.append(message)

        await self.app(self.scope, self._receive, keep)
        start, body = messages
        return start["status"], body["body"]

    async def _receive(self) -> dict[str, Any]:
        self.chunks_read += 1
        return await self.next_chunk()


async def endless() -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * 65536, "more_body": True}


async def stalled() -> dict[str, Any]:
    await anyio.sleep_forever()
    raise AssertionError("forever is over")


async def broken_off() -> dict[str, Any]:
    return {"type": "http.disconnect"}


@pytest.mark.parametrize("body", [endless, stalled, broken_off])
@pytest.mark.parametrize("genuine", [True, False], ids=["genuine", "forged"])
async def test_body_of_a_callback_is_never_read(deferred, body, genuine):
    path = deferred.path if genuine else deferred.path.replace(deferred.token, new_token())
    callback = Asgi(path, body)
    assert await callback.send() == (RESUMED if genuine else UNKNOWN)
    assert callback.chunks_read == 0


async def test_only_a_callback_that_resumes_its_task_writes_a_line_and_only_for_debugging(deferred, caplog):
    app = callback_app()
    with caplog.at_level(logging.DEBUG):
        for _ in range(100):
            await Asgi(deferred.path, broken_off, app).send()
    lines = [each for each in caplog.records if each.name.startswith("airflow_provider_browseract")]
    assert [(each.levelname, each.getMessage()) for each in lines] == [
        ("DEBUG", f"A callback has resumed task instance {deferred.ti_id}.")
    ]


class TestUnexpectedError:
    async def test_callbacks_get_503_and_one_line_until_the_database_is_back(self, deferred, monkeypatch, caplog):
        app, away = callback_app(), raising(ConnectionError("the database is away\nSELECT * FROM task_instance"))
        with monkeypatch.context() as broken:
            broken.setattr(database, "create_session", away)
            for _ in range(100):
                assert await Asgi(deferred.path, broken_off, app).send() == UNAVAILABLE
        log_text = [record.getMessage() for record in caplog.records if record.name == receiver.__name__]
        reason = "ConnectionError: the database is away"
        assert log_text == [f"A callback could not be handled ({reason}). Polls end the waits."]
        assert await Asgi(deferred.path, broken_off, app).send() == RESUMED

    async def test_stranger_cannot_repeat_the_line_about_a_failure(self, deferred, monkeypatch, caplog):
        app, forged = callback_app(), deferred.path.replace(deferred.ti_id, str(uuid4()))
        for _ in range(3):
            with monkeypatch.context() as broken:
                broken.setattr(database, "digest", lambda token: 1 / 0)
                assert await Asgi(deferred.path, broken_off, app).send() == UNAVAILABLE
            assert await Asgi(forged, broken_off, app).send() == UNKNOWN
        assert len([record for record in caplog.records if record.name == receiver.__name__]) == 1

    async def test_trigger_that_another_key_has_encrypted_is_not_resumed(self, client, deferred, monkeypatch, caplog):
        monkeypatch.setattr(Trigger, "kwargs", property(lambda _: 1 / 0))
        assert await call(client, deferred.path) == UNKNOWN
        assert deferred.state == "deferred"
        assert not [record for record in caplog.records if record.name == receiver.__name__]

    async def test_callback_failing_halfway_changes_nothing_and_is_logged_without_token_and_traceback(
        self, client, deferred, monkeypatch, caplog
    ):
        monkeypatch.setattr(Trigger, "submit_event", raising(RuntimeError("the core has changed")))
        before = deferred.xcoms
        with caplog.at_level(logging.DEBUG):
            assert await call(client, deferred.path) == UNAVAILABLE
        assert (deferred.state, deferred.xcoms) == ("deferred", before)
        assert "the core has changed" in caplog.text
        # What Airflow's logs may show besides the text are the variables of a traceback.
        assert not [record for record in caplog.records if record.exc_info]
        assert deferred.token not in caplog.text

    @pytest.mark.parametrize("missing", ["receiver", "database"])
    async def test_missing_route_is_logged_once_and_loaded_again_later(self, deferred, monkeypatch, caplog, missing):
        app = callback_app()
        with monkeypatch.context() as broken, caplog.at_level(logging.DEBUG):
            broken.setitem(sys.modules, f"airflow_provider_browseract.webhook.{missing}", None)
            broken.delattr(f"airflow_provider_browseract.webhook.{missing}")
            for _ in range(100):
                status, body = await Asgi(deferred.path, broken_off, app).response()
                assert (status, body.partition(b".")[0]) == (503, b"The callback route cannot be loaded")
        [line] = [record for record in caplog.records if record.name == plugin.__name__]
        assert line.getMessage().startswith("The callback route cannot be loaded (ModuleNotFoundError: ")
        assert line.getMessage().endswith("Waiting tasks are resumed by their polls.")
        # What Airflow's logs may show besides the text are the variables of a traceback.
        assert line.exc_info is None
        assert deferred.token not in caplog.text
        assert (await Asgi(deferred.path, broken_off, app).response())[0] == 503
        later = time.monotonic() + timings.ROUTE_LOAD_PAUSE
        monkeypatch.setattr(plugin, "time", SimpleNamespace(monotonic=lambda: later))
        assert await Asgi(deferred.path, broken_off, app).send() == RESUMED


class TestServerLogs:
    @pytest.mark.parametrize("root_path", ["", "/team-a"])
    async def test_callback_token_is_hidden_in_the_path_that_servers_log(self, deferred, root_path):
        callback = Asgi(f"{root_path}{deferred.path}", broken_off, root_path=f"{root_path}/browseract")
        assert await callback.send() == RESUMED
        assert callback.scope["path"] == f"{root_path}/browseract/callback/hidden"
        assert callback.scope["raw_path"] == callback.scope["path"].encode()
        assert deferred.state == "scheduled"

    @pytest.mark.parametrize("path", ["//browseract/callback/{}", "/browseract//callback/{}", "/callback/{}/x"])
    async def test_callback_token_is_hidden_in_a_path_that_misses_the_route(self, deferred, path):
        callback = Asgi(path.format(f"{deferred.ti_id}/{deferred.token}"), broken_off, root_path="")
        await callback.send()
        assert deferred.token not in callback.scope["path"]
        assert callback.scope["raw_path"] == callback.scope["path"].encode()


async def test_callbacks_beyond_those_that_may_wait_get_503(deferred, monkeypatch):
    monkeypatch.setattr(receiver, "MAX_AT_ONCE", 20)
    over = threading.Event()
    monkeypatch.setattr(database, "resume", lambda ti_id, token: not over.wait(30))
    app = callback_app()
    forged = [Asgi(deferred.path.replace(deferred.token, new_token()), stalled, app) for _ in range(100)]
    responded = asyncio.as_completed([asyncio.create_task(each.send()) for each in forged], timeout=30)
    for _ in range(80):
        assert await next(responded) == BUSY
    over.set()
    assert [await each for each in responded] == [UNKNOWN] * 20


async def test_callback_that_gets_no_thread_in_time_gets_503(deferred, monkeypatch):
    monkeypatch.setattr(timings, "LONGEST_CALLBACK_WAIT", 0.2)
    monkeypatch.setattr(receiver, "THREADS", 1)
    began, over = threading.Event(), threading.Event()

    def held(ti_id, token):
        began.set()
        return over.wait(30)

    monkeypatch.setattr(database, "resume", held)
    app = callback_app()
    first = asyncio.create_task(Asgi(deferred.path, stalled, app).send())
    await asyncio.to_thread(began.wait, 30)
    assert await Asgi(deferred.path, stalled, app).send() == BUSY
    over.set()
    # What has begun is carried out.
    assert await first == RESUMED


def test_concurrent_callbacks_resume_task_instance_once(deferred):
    def resumed_or_none(_: int) -> bool | None:
        """Resume, or return None if SQLite refuses a second writer: such a callback gets 503 and is sent again."""
        try:
            return database.resume(UUID(deferred.ti_id), deferred.token)
        except OperationalError:
            return None

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(resumed_or_none, range(16)))
    assert outcomes.count(True) == 1
    assert set(outcomes) <= {True, False, None}


def test_callback_leaves_the_session_open_that_its_thread_uses_for_something_else(deferred):
    ti_id = UUID(deferred.ti_id)
    with create_session() as used:
        row = deferred.row(used)
        used.commit()
        assert database.resume(ti_id, deferred.token)
        assert row in used
