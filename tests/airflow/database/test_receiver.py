"""The callback route, mounted by Airflow itself, on Airflow's database."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from airflow import __version__ as airflow_version
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import lazyload

from airflow_provider_browseract import __version__, plugin
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.commands.database import expected_callback
from airflow_provider_browseract.plugin import LazyApp
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.callback_url import (
    TOKEN_KEY,
    UNKNOWN_RESPONSE,
    WAIT_XCOM,
    CallbackOutcome,
    TaskInstanceKey,
    is_resumed_wait,
    new_token,
)
from airflow_provider_browseract.runs.request import digest
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.waiting import MAX_CALLBACKS_IN_VAIN, End, WokenBy
from airflow_provider_browseract.webhook import database, overload, receiver
from tests.airflow.rows import DAG_ID, dialect, push_xcom, selects
from tests.cases import cases, raising

ENDED = {"id": "7", "status": "finished", "output": {"string": "[]"}}
WITH_TEAMS = pytest.mark.skipif(database.TEAM_NAME is None, reason="before Airflow 3.3 there are no teams")


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """The names that were counted in Airflow's metrics."""
    names: list[str] = []
    for module in (receiver, database):
        monkeypatch.setattr(module, "count", names.append)
    return names


@pytest.fixture
async def client(api_server) -> AsyncIterator[httpx.AsyncClient]:
    """A sender of requests to the API server."""
    transport = httpx.ASGITransport(app=api_server, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow.test") as sender:
        yield sender


async def call(client: httpx.AsyncClient, path: str, body=ENDED, **arguments) -> tuple[int, str]:
    """Send a callback as BrowserAct does; return the status and the outcome in the response."""
    response = await client.post(path, json=body, **arguments)
    assert list(response.json()) == ["outcome"]
    return response.status_code, response.json()["outcome"]


class TestCallbackForWaitingTask:
    async def test_callback_resumes_deferred_task_and_takes_nothing_from_its_body(self, client, deferred, counted):
        assert await call(client, deferred.path, {"id": "13", "status": "failed", "deadline": 1.0}) == (200, "resumed")
        assert deferred.state == "scheduled"
        event = WaitEvent(deferred.wait, End.ENDED, WokenBy.CALLBACK)
        assert from_json(WaitEvent, deferred.resumed_with) == event
        wait = deferred.xcoms[WAIT_XCOM]
        assert (wait["woken_by"], wait[TOKEN_KEY]) == ("callback", digest(deferred.token))
        assert is_resumed_wait(wait, deferred.first_poll_at)
        assert counted == ["browseract.callback.resumed"]

    async def test_callback_marks_only_the_wait_that_it_ended(self, client, deferred):
        earlier, ids = deferred.first_poll_at, []
        for _ in range(2):
            deferred.forget_trigger()
            ids.append(deferred.defer())
            assert await call(client, deferred.path) == (200, "resumed")
        # SQLite uses the ids of triggers again.
        assert (ids[0] == ids[1]) is (dialect() == "sqlite")
        wait = deferred.xcoms[WAIT_XCOM]
        assert is_resumed_wait(wait, deferred.first_poll_at)
        assert not is_resumed_wait(wait, earlier)

    async def test_callback_resumes_the_current_try(self, client, deferred):
        for _ in range(2):
            deferred.next_try()
            deferred.defer()
        assert await call(client, deferred.path) == (200, "resumed")
        assert deferred.state == "scheduled"
        assert from_json(WaitEvent, deferred.resumed_with).wait.browseract_task_id == "7"

    @cases(
        "body",
        {
            "empty": b"",
            "cut off": b"{",
            "null": b"null",
            "list": b"[1]",
            "not UTF-8": b"\xff\xfe",
            "unclosed text": b'"' * 70000,
            "deep nesting": b"[" * 70000,
            "status null": b'{"status": null}',
            "status list": b'{"status": ["running"]}',
            "status unknown": b'{"status": "unknown"}',
            "status exploded": b'{"status": "exploded"}',
            "only data": b'{"data": {"status": "canceled"}}',
        },
    )
    async def test_callback_with_unusual_body_resumes_task_instance(self, client, deferred, body):
        response = await client.post(deferred.path, content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()) == (200, {"outcome": "resumed"})

    # The last two are what senders have by default that do not set it.
    @pytest.mark.parametrize(
        "content_type", ["", "application/problem+json", "text/plain", "application/x-www-form-urlencoded"]
    )
    async def test_callback_with_any_content_type_is_accepted(self, client, deferred, content_type):
        headers = {"Content-Type": content_type} if content_type else {}
        assert (await client.post(deferred.path, content=b"{}", headers=headers)).status_code == 200

    @pytest.mark.parametrize("status", ["created", "running", "pausing", "paused"])
    @cases(
        "body_of",
        {
            "as the task": lambda status: {"id": "7", "status": status},
            "in the envelope": lambda status: {"code": 0, "data": {"id": "7", "status": status}},
            "as the run of a bot": lambda status: {"task_id": "7", "input": {"status": "finished"}, "status": status},
        },
    )
    async def test_callback_about_an_active_run_leaves_the_task_deferred(
        self, client, deferred, counted, status, body_of
    ):
        assert await call(client, deferred.path, body_of(status)) == (200, "run active")
        assert deferred.state == "deferred"
        assert counted == ["browseract.callback.run_active"]

    async def test_callback_gets_202_too_early_only_within_the_grace_after_a_deferral(self, client, deferred, counted):
        deferred.defer(ago=timings.CORE_RACE_GRACE - 2)
        assert await call(client, deferred.path) == (202, "too early")
        assert deferred.state == "deferred"
        assert counted == ["browseract.callback.too_early"]
        deferred.defer(ago=timings.CORE_RACE_GRACE + 0.1)
        assert await call(client, deferred.path) == (200, "resumed")

    async def test_callback_is_ignored_when_limit_of_callbacks_in_vain_is_reached(self, client, deferred, counted):
        deferred.defer(callbacks_in_vain=MAX_CALLBACKS_IN_VAIN - 1)
        assert await call(client, deferred.path) == (200, "resumed")
        deferred.defer(callbacks_in_vain=MAX_CALLBACKS_IN_VAIN)
        assert await call(client, deferred.path) == (200, "ignored")
        assert deferred.state == "deferred"


class TestCallbackWithoutWaitingTask:
    async def test_second_callback_gets_already_resumed_and_changes_nothing(self, client, deferred, counted):
        await call(client, deferred.path)
        event = deferred.resumed_with
        assert await call(client, deferred.path) == (200, "already resumed")
        deferred.leave_trigger(TaskInstanceState.SUCCESS)
        assert await call(client, deferred.path) == (200, "already resumed")
        assert deferred.state == "success"
        assert deferred.resumed_with == event
        assert counted[1:] == ["browseract.callback.already_resumed"] * 2

    @cases("woken_by, outcome", {"callback": ("callback", "already resumed"), "poll": ("poll", "not waiting")})
    async def test_callback_after_the_wait_gets_what_the_worker_recorded(self, client, deferred, woken_by, outcome):
        deferred.leave_trigger(TaskInstanceState.RUNNING)
        deferred.describe_wait(woken_by=woken_by, seconds_after_end=1.0)
        assert await call(client, deferred.path) == (200, outcome)

    @pytest.mark.parametrize("wait", [None, "text", "{", ["x"], {}, {TOKEN_KEY: None}, {TOKEN_KEY: 7}], ids=json.dumps)
    async def test_callback_for_task_instance_with_invalid_wait_xcom_gets_404(self, client, deferred, wait):
        deferred.start()
        push_xcom(deferred.waiting, WAIT_XCOM, wait)
        assert await call(client, deferred.path) == (404, "unknown")

    @cases("as_text", {"as workers store it": False, "as JSON text": True})
    async def test_callback_during_start_gets_too_early(self, client, deferred, as_text):
        deferred.start()
        push_xcom(deferred.waiting, WAIT_XCOM, {TOKEN_KEY: digest(deferred.token)}, as_text=as_text)
        assert await call(client, deferred.path) == (202, "too early")
        assert deferred.state == "running"

    @pytest.mark.parametrize("state", ["scheduled", "queued", "running", "success", "failed", "up_for_retry"])
    async def test_callback_after_poll_resumed_task_instance_gets_not_waiting(self, client, deferred, counted, state):
        deferred.leave_trigger(TaskInstanceState(state))
        assert await call(client, deferred.path) == (200, "not waiting")
        assert deferred.state == state
        assert counted == ["browseract.callback.not_waiting"]

    async def test_callback_does_not_resume_trigger_of_another_provider(self, client, deferred):
        trigger_id = deferred.defer()
        with create_session() as session:
            row = session.get(Trigger, trigger_id)
            assert row is not None
            row.classpath = "airflow.providers.other.triggers.Other"
        assert await call(client, deferred.path) == (200, "not waiting")
        assert deferred.state == "deferred"

    async def test_callback_losing_race_against_trigger_keeps_the_trigger_event(self, client, deferred, monkeypatch):
        resumed = database.resume

        def after_the_trigger(deferral):
            Trigger.submit_event(deferral.trigger_id, TriggerEvent({"from": "the trigger"}))
            return resumed(deferral)

        monkeypatch.setattr(database, "resume", after_the_trigger)
        assert await call(client, deferred.path) == (200, "already resumed")
        assert deferred.resumed_with == {"from": "the trigger"}
        assert "woken_by" not in deferred.xcoms[WAIT_XCOM]


class TestHandOver:
    async def test_callback_hands_its_slot_over_once_to_the_next_in_the_queue(self, client, deferred, queue, counted):
        queue.add(200.0)
        first = queue.add(100.0)
        assert await call(client, deferred.path) == (200, "resumed")
        assert sorted(counted) == ["browseract.callback.resumed", "browseract.slots.handed_over"]
        assert await call(client, deferred.path) == (200, "already resumed")
        assert queue.resumed() == [first.map_index]

    @pytest.mark.parametrize("waiting", list(ApiVersion))
    async def test_callback_of_a_bot_resumes_its_task_and_hands_its_slot_over(self, client, deferred, queue, waiting):
        deferred.defer(api_version=ApiVersion.V3)
        queue.add(100.0, api_version=waiting)
        body = {
            "task_id": "7",
            "bot_id": "82000518364027715",
            "bot_type": "agent",
            "input": {"status": "running", "data": {"status": "running"}},
            "output": {"status": "running"},
            "output_files": {"json": {"file_name": "result.json", "download_url": "https://files.example/1"}},
            "status": "finished",
        }
        assert await call(client, deferred.path, body) == (200, "resumed")
        assert from_json(WaitEvent, deferred.resumed_with).wait.api_version is ApiVersion.V3
        assert queue.resumed() == [0]

    async def test_hand_over_that_fails_does_not_fail_the_callback(self, client, deferred, queue, monkeypatch, caplog):
        submit = Trigger.submit_event

        def fail_after_the_first(trigger_id, event, session):
            submit(trigger_id, event, session=session)
            if trigger_id != first:
                raise OSError("database is locked")

        with create_session() as session:
            first = deferred.row(session).trigger_id
        monkeypatch.setattr(Trigger, "submit_event", fail_after_the_first)
        queue.add(100.0)
        assert await call(client, deferred.path) == (200, "resumed")
        assert deferred.state == "scheduled"
        assert queue.resumed() == []
        assert "A free slot could not be handed over" in caplog.text

    def test_higher_priority_then_longer_wait_goes_first(self, queue):
        for since, priority in ((100.0, 1), (300.0, 9), (200.0, 1)):
            queue.add(since, priority=priority)
        woken = [database.hand_over("browseract_default") for _ in range(4)]
        assert [key.map_index if key else None for key in woken] == [1, 0, 2, None]

    @cases(
        "add",
        {
            "another connection": lambda queue: queue.add(1.0, conn_id="another"),
            "deferred just now": lambda queue: queue.add(1.0, ago=0.0),
            "waits for the budget": lambda queue: queue.add(1.0, not_before=9e10),
            "another team": pytest.param(lambda queue: queue.add(1.0, team="team_b"), marks=WITH_TEAMS),
            "marked as failed": lambda queue: queue.mark(queue.add(1.0), "failed"),
            "stored by another version": lambda queue: queue.make_unreadable(queue.add(1.0)),
        },
    )
    def test_hand_over_passes_over_what_does_not_wait_for_this_slot(self, queue, monkeypatch, add):
        monkeypatch.setattr(timings, "CORE_RACE_GRACE", 30.0)
        add(queue)
        other = queue.add(2.0, not_before=time.time() - 1)
        assert database.hand_over("browseract_default") == other
        assert database.hand_over("browseract_default") is None

    def test_task_marked_as_failed_while_the_queue_is_read_is_passed_over(self, queue, monkeypatch):
        marked, other = queue.add(1.0), queue.add(2.0)
        unread = database._queue.unread

        def read_then_mark(session, triggers):
            found = unread(session, triggers)
            session.commit()
            queue.mark(marked, "failed")
            return found

        monkeypatch.setattr(database._queue, "unread", read_then_mark)
        assert database.hand_over("browseract_default") == other

    def test_workflow_that_is_refused_again_and_again_goes_last(self, queue):
        refused = {"source": "standard browser", "refusals": 3, "ago": timings.CORE_RACE_GRACE + 1, "active": 4}
        first = queue.add(1.0, **refused)
        queue.add(2.0, **refused)
        other = queue.add(3.0, source="other", active=5)
        assert database.hand_over("browseract_default") == other
        assert database.hand_over("browseract_default") == first

    def test_task_of_a_paused_dag_gets_no_slot(self, queue):
        waits = queue.add(1.0)
        queue.pause()
        assert database.hand_over("browseract_default") is None
        queue.pause(paused=False)
        assert database.hand_over("browseract_default") == waits

    async def test_slot_is_handed_over_to_a_connection_with_the_same_key(self, client, deferred, queue):
        deferred.forget_trigger()
        deferred.defer(key_digest="k")
        queue.add(1.0, conn_id="another", key_digest="another key")
        same = queue.add(2.0, conn_id="second", key_digest="k")
        queue.add(3.0, key_digest="k")
        assert await call(client, deferred.path) == (200, "resumed")
        assert queue.resumed() == [same.map_index]

    @WITH_TEAMS
    def test_slot_of_a_team_is_handed_over_within_the_team(self, queue):
        queue.add(1.0)
        own = queue.add(2.0, team="team_a")
        assert database.hand_over("browseract_default", None, "team_a") == own
        assert database.hand_over("browseract_default", None, "team_a") is None

    def test_dag_of_which_a_resumed_task_is_not_started_is_late(self, queue):
        queue.add(1.0)
        queue.add(2.0)
        assert database.hand_over("browseract_default") is not None
        now = datetime.now(timezone.utc)
        with create_session() as session:
            assert database._late_dags(session, now - timedelta(seconds=timings.FOLLOW_DELAY)) == set()
            assert database._late_dags(session, now + timedelta(seconds=1)) == {DAG_ID}

    def test_hand_over_passes_over_a_locked_row_without_waiting(self, queue):
        if dialect() == "sqlite":
            # It locks no rows.
            return
        locked, other = queue.add(1.0), queue.add(2.0)
        with create_session(scoped=False) as session:
            [row] = session.scalars(
                select(TaskInstance)
                .options(lazyload("*"))
                .where(TaskInstance.run_id == locked.run_id, TaskInstance.map_index == locked.map_index)
                .where(TaskInstance.task_id == locked.task_id)
                .with_for_update(of=TaskInstance)
            )
            assert row.state == TaskInstanceState.DEFERRED
            began = time.monotonic()
            assert database.hand_over("browseract_default") == other
            assert time.monotonic() - began < database.LOCK_TIMEOUT


@pytest.fixture
def forge(deferred) -> Callable[[str], str]:
    """Fill a path with the parts of the right one, and with wrong ones."""
    run = deferred.waiting
    parts = {"route": "/browseract/callback", "path": deferred.path, "run": run.encode(), "token": deferred.token}
    parts |= {"other_run": run._replace(task_id="elsewhere").encode(), "other_token": new_token()}
    parts |= {"other_index": run._replace(map_index=0).encode(), "digest": digest(deferred.token)}
    return lambda path: path.format(**parts)


OTHER_TOKEN = ("{run}/{other_token}", "{run}/x", "{run}/{digest}")
OTHER_RUN = ("{other_run}/{token}", "{other_index}/{token}", "x/{token}")
MISSED = ("{route}{path}", "/browseract{path}", "{route}/{token}", "{path}/more", "{path}/")
NO_PAGES = [f"/browseract/{page}" for page in ("", "elsewhere", "docs", "redoc", "openapi.json")]


class TestForgedCallback:
    @pytest.mark.parametrize("path", [*OTHER_TOKEN, *OTHER_RUN])
    async def test_forged_callback_always_gets_the_same_404(self, client, deferred, forge, path):
        response = await client.post(forge(f"{{route}}/{path}"), json=ENDED)
        reference = await client.post(forge("{route}/{run}/{other_token}"), json=ENDED)
        assert (response.status_code, response.content) == (404, UNKNOWN_RESPONSE)
        assert dict(response.headers) == dict(reference.headers)
        assert deferred.state == "deferred"

    @pytest.mark.parametrize("path", [*MISSED, *NO_PAGES])
    async def test_path_that_misses_the_route_gets_a_404_of_its_own(self, client, deferred, counted, forge, path):
        assert await call(client, forge(path)) == (404, "no such path")
        assert counted == ["browseract.callback.no_such_path"]
        assert deferred.state == "deferred"

    @pytest.mark.parametrize("state", ["running", "success"])
    async def test_callback_with_wrong_token_for_task_not_waiting_gets_404(self, client, deferred, forge, state):
        deferred.leave_trigger(state)
        assert await call(client, forge("{route}/{run}/{other_token}")) == (404, "unknown")

    async def test_trigger_without_callback_token_is_not_resumed_by_callback(self, client, deferred, forge):
        deferred.defer(callback_token_sha256=None)
        assert await call(client, forge("{route}/{run}/{other_token}")) == (404, "unknown")
        assert await call(client, deferred.path) == (200, "not waiting")
        assert deferred.state == "deferred"


class TestCallbackOfCheck:
    """The callback of the command ``check``, which no task instance waits for."""

    async def test_expected_callback_gets_checked_with_the_versions(self, client, counted, airflow_database):
        token = new_token()
        with expected_callback(digest(token)) as name:
            path = f"/browseract/callback/{TaskInstanceKey.of_check(name).encode()}/{token}"
            response = await client.post(path, json={})
        checked = {"outcome": "checked", "provider": __version__, "airflow": airflow_version}
        assert (response.status_code, response.json()) == (200, checked)
        assert counted == ["browseract.callback.checked"]

    async def test_callback_with_wrong_token_name_or_time_gets_the_404_of_the_route(self, client, airflow_database):
        async def send(name: str, token: str) -> tuple[int, bytes]:
            path = f"/browseract/callback/{TaskInstanceKey.of_check(name).encode()}/{token}"
            response = await client.post(path, json={})
            return response.status_code, response.content

        token = new_token()
        with expected_callback(digest(token)) as name:
            refused = [await send(name, new_token()), await send(name[:-1], token), await send("", token)]
        refused.append(await send(name, token))
        assert refused == [(404, UNKNOWN_RESPONSE)] * 4

    @cases(
        "key, reads_one",
        {
            "reserved": (TaskInstanceKey.of_check("x"), True),
            "task instance": (TaskInstanceKey("d", "x", "t", -1), False),
            "no DAG": (TaskInstanceKey("", "x", "t", -1), False),
            "no task": (TaskInstanceKey("d", "x", "", -1), False),
            "mapped": (TaskInstanceKey("", "x", "", 0), False),
        },
    )
    async def test_only_the_reserved_key_reads_a_variable_and_no_more(self, client, airflow_database, key, reads_one):
        with selects() as statements:
            await client.post(f"/browseract/callback/{key.encode()}/{new_token()}", json={})
        assert ["FROM variable" in each for each in statements] == ([True] if reads_one else [False] * len(statements))
        assert statements or key.task_id == ""


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_callback_with_another_http_method_gets_405(client, deferred, counted, method):
    response = await client.request(method, deferred.path)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert deferred.state == "deferred"
    assert counted == ["browseract.callback.method_not_allowed"]


def callback_app() -> LazyApp:
    """Return a new application, which is not loaded yet."""
    return LazyApp(plugin.callbacks, plugin.CALLBACKS_UNAVAILABLE)


class Asgi:
    """A callback sent to the plugin's application by hand, whose body never ends."""

    def __init__(self, path: str, next_chunk, app: LazyApp | None = None, root_path: str | None = None) -> None:
        self.app, self.next_chunk = app or callback_app(), next_chunk
        path = path.removeprefix("/browseract") if root_path is None else path
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
        self.scope |= {"headers": [], "query_string": b"", "root_path": root_path or ""}
        self.chunks_read, self.status, self.outcome = 0, 0, ""

    async def send(self) -> Asgi:
        """Send it, and store the response."""
        await self.app(self.scope, self._receive, self._keep)
        return self

    async def _receive(self) -> dict[str, Any]:
        self.chunks_read += 1
        return await self.next_chunk()

    async def _keep(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.outcome = json.loads(message["body"])["outcome"]


async def endless() -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * 65536, "more_body": True}


async def stalled() -> dict[str, Any]:
    await anyio.sleep_forever()
    raise AssertionError("forever is over")


async def broken_off() -> dict[str, Any]:
    return {"type": "http.disconnect"}


class TestCallbackBody:
    async def test_callback_body_over_one_mebibyte_gets_413_and_is_read_no_further(self, deferred):
        sent = await Asgi(deferred.path, endless).send()
        assert (sent.status, sent.outcome, sent.chunks_read) == (413, "resumed", 1024 * 1024 // 65536 + 1)
        assert deferred.state == "scheduled"

    async def test_callback_body_announced_as_too_large_gets_413_unread(self, client, deferred):
        length = {"Content-Type": "application/json", "Content-Length": str(1024 * 1024 + 1)}
        response = await client.post(deferred.path, content=b'{"status": "running"}', headers=length)
        assert (response.status_code, response.json()) == (413, {"outcome": "resumed"})

    async def test_callback_body_of_exactly_one_mebibyte_is_read(self, client, deferred):
        body = json.dumps({"status": "running"}).encode().ljust(1024 * 1024)
        response = await client.post(deferred.path, content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()) == (200, {"outcome": "run active"})

    async def test_callback_body_that_times_out_gets_408_and_resumes_task_instance(self, deferred, monkeypatch):
        monkeypatch.setattr(receiver, "BODY_TIMEOUT", 0.05)
        sent = await Asgi(deferred.path, stalled).send()
        assert (sent.status, sent.outcome) == (408, "resumed")
        assert deferred.state == "scheduled"

    @pytest.mark.parametrize("body", [endless, stalled])
    async def test_callback_body_is_not_read_when_token_is_wrong(self, deferred, body):
        sent = await Asgi(deferred.path.replace(deferred.token, new_token()), body).send()
        assert (sent.status, sent.outcome, sent.chunks_read) == (404, "unknown", 0)
        assert deferred.state == "deferred"

    @cases(
        "before",
        {
            "a callback": lambda deferred: asyncio.run(Asgi(deferred.path, broken_off).send()),
            "a poll": lambda deferred: deferred.leave_trigger(TaskInstanceState.SUCCESS),
            "callbacks in vain": lambda deferred: deferred.defer(callbacks_in_vain=MAX_CALLBACKS_IN_VAIN),
            "a deferral just now": lambda deferred: deferred.defer(ago=0.0),
        },
    )
    def test_callback_body_is_not_read_when_there_is_nothing_to_resume(self, deferred, before):
        before(deferred)
        sent = asyncio.run(Asgi(deferred.path, endless).send())
        assert sent.status in (200, 202)
        assert sent.chunks_read == 0

    async def test_one_token_holds_one_body_in_memory_however_many_senders_stall_and_resumes(self, deferred):
        app = callback_app()
        senders = [Asgi(deferred.path, stalled, app) for _ in range(150)]
        tasks = [asyncio.create_task(sender.send()) for sender in senders]
        responded = asyncio.as_completed(tasks, timeout=60)
        for _ in range(len(senders) - 1):
            assert (await next(responded)).status == 200
        assert [sender.outcome for sender in senders].count("resumed") == 1
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert sum(sender.chunks_read for sender in senders) == 1

    async def test_callback_beyond_the_bodies_in_memory_resumes_with_its_body_unread(self, deferred, monkeypatch):
        monkeypatch.setattr(receiver, "MAX_BODIES", 0)
        sent = await Asgi(deferred.path, endless).send()
        assert (sent.status, sent.outcome, sent.chunks_read) == (200, "resumed", 0)

    @cases(
        ("body", "active"),
        {
            "lists": (b"[" + b"[]," * 349_000 + b"1]", False),
            "beside the status": (b'{"x":[' + b"[]," * 349_000 + b'1],"status":"running"}', True),
            "in the envelope": (b'{"data" : {"status":"running","x":[' + b"[]," * 349_000 + b"1]}}", True),
            "as the status": (b'{"status":[' + b"[]," * 349_000 + b"1]}", False),
            "members": (b"{" + b'"a":{},' * 149_000 + b'"status":"paused"}', True),
            "numbers": (b'{"data":null,"x":[' + b"1e5," * 250_000 + b'1],"status":"created"}', True),
        },
    )
    def test_one_mebibyte_of_values_is_read_in_a_fraction_of_the_time_to_build_it(self, body, active):
        def shortest(function) -> float:
            """Return the processor time of a call, as far as other processes do not disturb it."""
            times = []
            for _ in range(5):
                began = time.thread_time()
                function(body)
                times.append(time.thread_time() - began)
            return min(times)

        assert receiver.is_progress_update(body) is active
        assert shortest(receiver.is_progress_update) < shortest(json.loads) / 3

    async def test_event_loop_spends_little_on_each_body_of_a_token_holder(self, client, deferred):
        body = b'{"status":"running","x":[' + b"[]," * 349_000 + b"1]}"
        assert (await client.post(deferred.path, content=body)).json() == {"outcome": "run active"}
        began = time.thread_time()
        for _ in range(5):
            # A body that was read keeps no place from the next one.
            assert (await client.post(deferred.path, content=body)).json() == {"outcome": "run active"}
        spent = (time.thread_time() - began) / 5
        began = time.thread_time()
        json.loads(body)
        assert spent < (time.thread_time() - began) / 2


async def test_token_holder_writes_a_limited_number_of_lines_a_minute(deferred, caplog):
    app = callback_app()
    with caplog.at_level(logging.INFO):
        for _ in range(100):
            await Asgi(deferred.path, broken_off, app).send()
    lines = [record.getMessage() for record in caplog.records if record.name == receiver.__name__]
    assert lines[0] == f"Callback for {deferred.waiting}: resumed"
    assert lines[1:] == [f"Callback for {deferred.waiting}: already resumed"] * receiver.LINES_PER_MINUTE


class TestUnexpectedError:
    async def test_while_database_fails_callbacks_get_503_and_one_log_line_a_minute_and_resume_later(
        self, deferred, monkeypatch, caplog, counted
    ):
        away = ConnectionError("the database is away\nSELECT * FROM task_instance")
        # Another route than that of other tests, which may have logged such a line within the minute.
        app, now = callback_app(), [time.monotonic()]
        monkeypatch.setattr(overload, "time", SimpleNamespace(monotonic=lambda: now[0]))
        with monkeypatch.context() as broken:
            broken.setattr(database, "create_session", raising(away))
            for _ in range(100):
                sent = await Asgi(deferred.path, broken_off, app).send()
                assert (sent.status, sent.outcome) == (503, "unavailable")
            now[0] += 60
            await Asgi(deferred.path, broken_off, app).send()
        log_text = [record.getMessage() for record in caplog.records if record.name == receiver.__name__]
        line = "A callback could not be handled (ConnectionError: the database is away). BrowserAct sends it again, or "
        line += "a poll finds the end of the run."
        assert log_text == [line, f"{line} 99 more such lines were left out since the last one."]
        sent = await Asgi(deferred.path, broken_off, app).send()
        assert (sent.status, sent.outcome) == (200, "resumed")
        assert counted == [*["browseract.callback.unavailable"] * 101, "browseract.callback.resumed"]

    async def test_callback_failing_halfway_changes_nothing_and_is_logged_without_token_and_traceback(
        self, client, deferred, monkeypatch, caplog
    ):
        monkeypatch.setattr(Trigger, "submit_event", raising(RuntimeError("the core has changed")))
        before = deferred.xcoms
        with caplog.at_level(logging.DEBUG):
            assert await call(client, deferred.path) == (503, "unavailable")
        assert (deferred.state, deferred.xcoms) == ("deferred", before)
        assert "the core has changed" in caplog.text
        # What Airflow's logs may show besides the text are the variables of a traceback.
        assert not [record for record in caplog.records if record.exc_info]
        assert deferred.token not in caplog.text

    @pytest.mark.parametrize("missing", ["receiver", "database"])
    async def test_route_that_cannot_be_loaded_is_logged_once_and_loaded_again_after_a_pause(
        self, deferred, monkeypatch, caplog, missing
    ):
        app = callback_app()
        with monkeypatch.context() as broken, caplog.at_level(logging.DEBUG):
            broken.setitem(sys.modules, f"airflow_provider_browseract.webhook.{missing}", None)
            broken.delattr(f"airflow_provider_browseract.webhook.{missing}")
            for _ in range(100):
                sent = await Asgi(deferred.path, broken_off, app).send()
                assert (sent.status, sent.outcome) == (503, "unavailable")
        [line] = [record for record in caplog.records if record.name == plugin.__name__]
        assert line.getMessage().startswith("The callback route cannot be loaded (ModuleNotFoundError: ")
        assert line.getMessage().endswith("Waiting tasks are resumed by their polls.")
        # What Airflow's logs may show besides the text are the variables of a traceback.
        assert line.exc_info is None
        assert deferred.token not in caplog.text
        assert (await Asgi(deferred.path, broken_off, app).send()).outcome == "unavailable"
        later = time.monotonic() + timings.ROUTE_LOAD_PAUSE
        monkeypatch.setattr(plugin, "time", SimpleNamespace(monotonic=lambda: later))
        assert (await Asgi(deferred.path, broken_off, app).send()).outcome == "resumed"


class TestServerLogs:
    @pytest.mark.parametrize("root_path", ["", "/team-a"])
    async def test_callback_token_is_hidden_in_the_path_that_servers_log(self, deferred, root_path):
        callback = Asgi(f"{root_path}{deferred.path}", broken_off, root_path=f"{root_path}/browseract")
        scope = (await callback.send()).scope
        assert scope["path"] == f"{root_path}/browseract/callback/hidden"
        assert scope["raw_path"] == scope["path"].encode()
        assert deferred.state == "scheduled"

    @pytest.mark.parametrize("path", ["//browseract/callback/{}", "/browseract//callback/{}", "/callback/{}/x"])
    async def test_callback_token_is_hidden_in_a_path_that_misses_the_route(self, deferred, path):
        callback = Asgi(path.format(f"{deferred.waiting.encode()}/{deferred.token}"), broken_off, root_path="")
        scope = (await callback.send()).scope
        assert deferred.token not in scope["path"]
        assert scope["raw_path"] == scope["path"].encode()


async def test_flood_of_forged_callbacks_does_not_delay_a_genuine_callback(deferred, monkeypatch):
    monkeypatch.setattr(receiver, "MAX_WAITING_REQUESTS", 64)
    looks = []
    find_deferral = database.find_deferral

    def find_slowly(waiting, token_sha256):
        time.sleep(0.01)
        looks.append(token_sha256)
        return find_deferral(waiting, token_sha256)

    monkeypatch.setattr(database, "find_deferral", find_slowly)
    path = deferred.path.removeprefix("/browseract")
    forged = path.replace(deferred.token, "{}")
    transport = httpx.ASGITransport(app=callback_app())
    client = httpx.AsyncClient(transport=transport, base_url="http://airflow.test")
    async with client, anyio.create_task_group() as group:
        answers: list[int] = []

        async def forge() -> None:
            answers.append((await client.post(forged.format(new_token()), json=ENDED)).status_code)

        for _ in range(300):
            group.start_soon(forge)
        await anyio.sleep(0.02)
        assert await call(client, path) == (200, "resumed")
    assert looks.index(digest(deferred.token)) < 3 * receiver.LOOKUP_THREADS
    assert set(answers) == {404, 503}


def test_concurrent_callbacks_resume_task_instance_once(deferred):
    def outcome_or_none(_: int) -> CallbackOutcome | None:
        """Resume, or return None if SQLite refuses a second writer: such a callback gets 503 and is sent again."""
        try:
            found = database.find_deferral(deferred.waiting, digest(deferred.token))
            return database.resume(found) if isinstance(found, database.Deferral) else found
        except OperationalError:
            return None

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome_or_none, range(16)))
    assert outcomes.count(CallbackOutcome.RESUMED) == 1
    assert set(outcomes) <= {CallbackOutcome.RESUMED, CallbackOutcome.ALREADY_RESUMED, None}


def test_callback_leaves_the_session_open_that_its_thread_uses_for_something_else(deferred, queue):
    waits = queue.add(100.0)
    with create_session() as used:
        row = deferred.row(used)
        used.commit()
        found = database.find_deferral(deferred.waiting, digest(deferred.token))
        assert isinstance(found, database.Deferral)
        assert row in used
        assert database.resume(found) is CallbackOutcome.RESUMED
        assert row in used
    assert queue.resumed() == [waits.map_index]
