"""The panel as an application, with viewers of different roles, and a BrowserAct account with runs of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from airflow.api_fastapi.core_api.security import get_user
from fastapi import FastAPI

from airflow_provider_browseract.emulator import CONTACTS, SEARCH
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.panel import access, app, database, failures, links, web
from airflow_provider_browseract.panel.database import TaskInstanceKey
from airflow_provider_browseract.panel.failures import FailedTry
from airflow_provider_browseract.panel.links import Link, QueueEntry, RecordReader, Records

from .known import RUN_ID, link_of

PANEL = "/team-a/browseract/panel"


@dataclass(frozen=True)
class Role:
    """The rights of a user: DAGs whose runs they read and change, and methods on connections.

    :param reads: ``None`` for all DAGs.
    """

    reads: frozenset[str] | None = frozenset()
    changes: bool = False
    connection: tuple[str, ...] = ()
    plugins: bool = True


ROLES = {
    "viewer of one DAG": Role(frozenset({"prices"}), plugins=False),
    "viewer": Role(None, plugins=False),
    "user": Role(None, changes=True, plugins=False),
    "op": Role(None, changes=True, connection=("GET",)),
    "admin": Role(None, changes=True, connection=("GET", "PUT")),
}


class User(str):
    """A user with the role that is its name."""

    def get_name(self) -> str:
        return str(self)


class FakeAuthManager:
    """Answers as an auth manager of Airflow does, by the role that is the user's name."""

    def is_authorized_connection(self, *, method, user, details=None) -> bool:
        return method in ROLES[user].connection

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None) -> bool:
        role = ROLES[user]
        allowed = {"GET": True, "PUT": role.changes}
        return (role.reads is None or details.id in role.reads) and allowed[method]

    def is_authorized_view(self, *, access_view, user) -> bool:
        return ROLES[user].plugins


@dataclass
class World:
    """What the panel finds: links and a queue in Airflow, and runs in BrowserAct."""

    emulator: Any
    links: dict[str, list[Link]] = field(default_factory=dict)
    queue: list[QueueEntry] = field(default_factory=list)
    failures: list[FailedTry] = field(default_factory=list)
    unreadable: bool = False
    incomplete: bool = False

    def start(self, **settings: Any) -> str:
        """Start a run that never ends, unless settings of the workflow say otherwise, and return its id."""
        self.emulator.next_run(SEARCH.id, **{"duration": 3600.0, **settings})
        return BrowserActHook().run_task(SEARCH.id, {"keyword": "planted input"}).id

    def start_bot(self, **settings: Any) -> str:
        """Start a run of a bot that never ends, unless its settings say otherwise, and return its id."""
        self.emulator.next_run(CONTACTS.id, **{"duration": 3600.0, **settings})
        return BrowserActHook().run_bot(CONTACTS.id, {"company_name": "planted input"}).id

    def link(self, task_id: str, dag_id: str, *, also: bool = False, **fields: Any) -> Link:
        """Let a task instance of a DAG have started a run, for which it waits.

        :param also: keep the links of other task instances with the run.
        """
        key = TaskInstanceKey(dag_id, RUN_ID, "search", -1)
        given = {"pushed_at": datetime.now(timezone.utc), "waits": True, **fields}
        made = link_of(task_id, key, self.emulator.api_key, **given)
        self.links[task_id] = [*(self.links.get(task_id, []) if also else []), made]
        return made


@pytest.fixture
def world(browseract_emulator, connect, monkeypatch) -> World:
    """An account with nothing in it, and an Airflow that knows nothing of it."""
    connect()
    made = World(browseract_emulator)
    made.emulator.concurrency = 50
    for name in ("MAX_AGE", "RARELY"):
        monkeypatch.setattr(links, name, 0.0)

    def read(_) -> Records:
        return Records(made.links, tuple(made.queue), made.unreadable, made.incomplete)

    monkeypatch.setattr(RecordReader, "read", read)
    monkeypatch.setattr(failures, "failed_tries", lambda: made.failures)
    monkeypatch.setattr(database, "has_dag", lambda _: False)
    monkeypatch.setattr(database, "connections", list)
    monkeypatch.setattr(links, "links_of", lambda _: [])
    monkeypatch.setattr(links, "dags_on", lambda *_: {})
    for name in ("dag_team", "connection_team"):
        monkeypatch.setattr(database, name, lambda _: None)
    return made


@pytest.fixture
async def client(world, monkeypatch) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of a viewer whose role is in the header ``user``; without it, nobody is logged in."""

    async def user_of(request, token, credentials):
        name = request.headers.get("user")
        return User(name) if name else await get_user(request, token, credentials)

    monkeypatch.setattr(web, "get_user", user_of)
    monkeypatch.setattr(access, "get_auth_manager", FakeAuthManager)
    airflow = FastAPI()
    airflow.mount(PANEL, app.create_app())
    transport = httpx.ASGITransport(app=airflow)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://airflow.test{PANEL}") as browser:
        yield browser
