"""What the pages know about the BrowserAct account of each connection. It is read only when someone asks for it.

All methods run in the event loop of the panel's own thread. BrowserAct is called with the asynchronous client: a call
really ends after its limit, a response that is too large is not read to its end, and a slow one holds no threads.
Connections are read in own threads, because Airflow reads them from its database or a secrets backend, and because its
``aget_connection`` does that in one thread for the whole process.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from airflow_provider_browseract.api.arguments import PATH_ID
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.api.pages import Listing, list_items
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.api.versions import APIS, SOURCES, SourceKind
from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.dag_file import Runnable
from airflow_provider_browseract.exceptions import ConnectionFailedError, InputError, TaskEndedError, TaskNotFoundError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import budget_of
from airflow_provider_browseract.in_airflow.hiding import NOTHING
from airflow_provider_browseract.in_airflow.shielding import uninterrupted
from airflow_provider_browseract.panel.client import CALL_LIMIT, AccountClient, only
from airflow_provider_browseract.panel.days import Days, DaysRead, Pace
from airflow_provider_browseract.panel.kept import NO_FAILURE, Failure, Kept, Patience, Read
from airflow_provider_browseract.panel.listing import RunLists
from airflow_provider_browseract.runs.wait import poll_run
from airflow_provider_browseract.spending.budget import Budget

T = TypeVar("T")

CONNECTION_INTERVAL = 60.0
"""Seconds after which a connection is read again, because someone may have changed or deleted it."""

LISTS_INTERVAL = 600.0
"""Seconds for which lists of workflows, bots and templates are kept."""

ACTIVE_RUN_INTERVAL = 5.0
"""Seconds for which one run is kept while it is active."""

SINGLE_INTERVAL = 60.0
"""Seconds for which one ended run, workflow, bot or template is kept."""

PAGE_SIZE = 100
"""Workflows, bots or templates in one response."""

RUN = "run"
"""What a run that was read by itself is called, beside the kinds of sources."""

THREADS = 4
"""Threads that read connections."""

MAX_CONNECTIONS = 20
MAX_SINGLES = 200
MAX_SOURCES = 500
"""How much is kept: connections, runs and sources that were read one by one, and sources of a list."""


@dataclass(frozen=True)
class Account(Read):
    """What is known about an account. A new one replaces it.

    :param tasks: the tasks that are active or ended in the last 24 hours, the newest first, without inputs and outputs.
    :param truncated: there are more tasks, of which only the newest are known.
    :param bots_failure: why the runs of bots could not be read. ``error`` is about the runs of workflows.
    :param missing: there is no such connection.
    :param names: the names of workflows by their ids.
    :param host: base URL of the API.
    """

    conn_id: str
    tasks: tuple[Task, ...] = ()
    truncated: bool = False
    budget: Budget | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    bots_failure: Failure = NO_FAILURE
    missing: bool = False


@dataclass(frozen=True)
class TaskRead(Read):
    """One run, without its inputs, output and files. Of many steps, only the first and the last ones are kept.

    :param secret_inputs: by their names, some of its inputs are secret, or they are not known.
    """

    task: Task | None = None
    secret_inputs: bool = False
    not_found: bool = False


@dataclass(frozen=True)
class SourcesRead(Read):
    """All workflows, bots or templates, without their inputs.

    :param truncated: there are more.
    """

    items: tuple[Runnable, ...] = ()
    truncated: bool = False


@dataclass(frozen=True)
class SourceRead(Read):
    """One workflow, bot or template, with its declared inputs."""

    source: Runnable | None = None
    not_found: bool = False


class _Data:
    """What was read of one account."""

    def __init__(self, client: AccountClient, pace: Pace) -> None:
        self.client = client
        self.lists = RunLists(client)
        self.sources = {kind: client.kept(self._reader_of(kind), lambda _: LISTS_INTERVAL) for kind in SourceKind}
        self.days = Days(client, self.lists, pace)

    def account(self) -> Account:
        """Return what is known."""
        workflows, settings, lists = self.sources[SourceKind.WORKFLOW].value, self.client.settings, self.lists
        names = {each.id: each.name for each in workflows.items if each.name} if workflows else {}
        state = {**lists.workflows.state, "as_of": lists.workflows.as_of or lists.bots.as_of}
        return Account(
            self.client.connection.conn_id,
            *lists.runs,
            budget_of(settings),
            names,
            settings.base_url,
            lists.bots.failure,
            **state,
        )

    def _reader_of(self, kind: SourceKind) -> Callable[[], Awaitable[Listing[Runnable]]]:
        async def read() -> Listing[Runnable]:
            call: Call[Any] = SOURCES[kind].list(limit=PAGE_SIZE)
            listing: Listing[Any] = await self.client.send(list_items(call, MAX_SOURCES // PAGE_SIZE))
            return replace(listing, items=[Runnable.of(kind, each) for each in listing.items])

        return read


class _Connection:
    """A connection, and the data that were read with it."""

    def __init__(self, conn_id: str, accounts: Accounts) -> None:
        self.data: _Data | None = None
        self.settings = Kept(conn_id, self._read, lambda _: CONNECTION_INTERVAL, accounts.clock)
        self._accounts = accounts

    def drop(self) -> None:
        """Forget the data."""
        if self.data is not None:
            self.data.client.closed = True
            self._accounts.forget(self.data.client)
            self.data = None

    async def _read(self) -> Settings:
        try:
            hook = BrowserActHook(self.settings.conn_id)
            settings = await anyio.to_thread.run_sync(
                hook.own_settings, "Only those have pages.", limiter=self._accounts.threads
            )
        except (AirflowNotFoundException, InputError):
            # It was deleted, or became the connection of another service.
            self.drop()
            raise
        client = AccountClient(settings, self.settings)
        if self.data is not None and self.data.client.owner != client.owner:
            self.drop()
        if self.data is None:
            self.data = _Data(client, self._accounts.pace)
        self.data.client.settings = settings
        return settings


class Accounts:
    """What is known about the accounts. There is one for each process.

    ``patience`` is how many seconds a caller waits for a read that is needed or running. After that it gets what there
    is.

    :param clock: returns the time in seconds since the epoch.
    :param sleep: sleeps between requests for days.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    ) -> None:
        self.clock = clock
        self.threads = anyio.CapacityLimiter(THREADS)
        self.pace = Pace(clock, sleep)
        self._connections: OrderedDict[str, _Connection] = OrderedDict()
        self._singles: OrderedDict[tuple[AccountClient, str, str], Kept[Any]] = OrderedDict()

    async def account(self, conn_id: str, patience: float) -> Account:
        """Return the runs of the account of a connection, and what the connection says about it."""
        wait = Patience(patience)
        connection = self._connection(conn_id)
        data, state = await self._data(conn_id, wait)
        if data is None:
            return Account(conn_id, missing=connection.settings.failure.not_found, **state)
        workflows = data.sources[SourceKind.WORKFLOW]
        workflows.refresh()
        # Only a first caller waits for names.
        names = [workflows] if workflows.value is None and workflows.failure.error is None else []
        await wait.wait_for(data.lists.workflows, data.lists.bots, *names)
        return data.account()

    def version_of(self, conn_id: str, task_id: str) -> ApiVersion | None:
        """Return the version of the API that lists a run; None if the run is not known."""
        data = self._connections[conn_id].data if conn_id in self._connections else None
        tasks = data.lists.runs.tasks if data else ()
        return next((task.api_version for task in tasks if task.id == task_id), None)

    async def task(self, conn_id: str, api_version: ApiVersion, task_id: str, patience: float) -> TaskRead:
        """Return one run.

        :param api_version: the version of the API that probably knows it. The other one is asked if it does not.
        """

        def read(client: AccountClient) -> Awaitable[tuple[Task, bool]]:
            return _read_task(client, api_version, task_id)

        found, state = await self._single(conn_id, RUN, task_id, read, _keep_task, patience)
        return TaskRead(*(found or ()), **state)

    async def sources(self, conn_id: str, kind: SourceKind, patience: float) -> SourcesRead:
        """Return all workflows, bots or templates."""
        wait = Patience(patience)
        data, state = await self._data(conn_id, wait)
        if data is None:
            return SourcesRead(**state)
        kept = data.sources[kind]
        await wait.wait_for(kept)
        listing = kept.value or Listing([], 0, False)
        return SourcesRead(tuple(listing.items), listing.truncated, **kept.state)

    async def source(self, conn_id: str, kind: SourceKind, source_id: str, patience: float) -> SourceRead:
        """Return one workflow, bot or template."""

        async def read(client: AccountClient) -> Runnable:
            call: Call[Any] = SOURCES[kind].read(source_id)
            return Runnable.of(kind, await client.send(only(call)))

        source, state = await self._single(conn_id, kind, source_id, read, lambda _: SINGLE_INTERVAL, patience)
        return SourceRead(source, **state)

    async def days(self, conn_id: str, patience: float = CALL_LIMIT) -> DaysRead:
        """Return what was read of the last days. Further days are read while someone asks."""
        wait = Patience(patience)
        data, state = await self._data(conn_id, wait)
        if data is None:
            return DaysRead(**state)
        data.days.read()
        await wait.wait_until(data.days.first)
        return data.days.read()

    async def stop(self, conn_id: str, api_version: ApiVersion, task_id: str) -> bool:
        """Stop a run, which the version of the API has started, also if the caller is cancelled before it is stopped.

        :returns: ``False`` if it had already ended.
        :raises BrowserActError: it could not be stopped, or BrowserAct does not know it with this API key.
        """
        return await uninterrupted(self._stop(conn_id, api_version, task_id))

    async def _stop(self, conn_id: str, api_version: ApiVersion, task_id: str) -> bool:
        data, state = await self._data(conn_id, Patience(CALL_LIMIT))
        if data is None:
            why = state["error"] or f"Connection {conn_id!r} could not be read in time"
            raise ConnectionFailedError(why, remedy=state["remedy"])
        if not PATH_ID.fullmatch(task_id):
            return False
        try:
            with suppress(TaskEndedError):
                await data.client.send(only(APIS[api_version].stop_task(task_id)))
                return True
            return False
        finally:
            # A read that is running may have begun before the stop.
            self._singles.pop((data.client, RUN, task_id), None)
            (data.lists.bots if api_version is ApiVersion.V3 else data.lists.workflows).expire()

    def forget(self, client: AccountClient) -> None:
        """Forget the runs, workflows, bots and templates that were read one by one."""
        for key in [key for key in self._singles if key[0] is client]:
            del self._singles[key]

    def _connection(self, conn_id: str) -> _Connection:
        connection = self._connections.setdefault(conn_id, _Connection(conn_id, self))
        self._connections.move_to_end(conn_id)
        while len(self._connections) > MAX_CONNECTIONS:
            self._connections.popitem(last=False)[1].drop()
        return connection

    async def _data(self, conn_id: str, wait: Patience) -> tuple[_Data | None, dict[str, Any]]:
        """Return the data of a connection; None with the reason if it cannot be read, or was not read yet."""
        connection = self._connection(conn_id)
        await wait.wait_for(connection.settings)
        failure = connection.settings.failure
        return connection.data, {"error": failure.error, "remedy": failure.remedy}

    async def _single(
        self,
        conn_id: str,
        what: str,
        item_id: str,
        read: Callable[[AccountClient], Awaitable[T]],
        keep: Callable[[Any], float],
        patience: float,
    ) -> tuple[T | None, dict[str, Any]]:
        wait = Patience(patience)
        data, state = await self._data(conn_id, wait)
        if data is None:
            return None, state
        if not PATH_ID.fullmatch(item_id):
            return None, {"not_found": True}
        key, client = (data.client, what, item_id), data.client
        kept: Kept[T] = self._singles.setdefault(key, client.kept(lambda: read(client), keep))
        self._singles.move_to_end(key)
        while len(self._singles) > MAX_SINGLES:
            self._singles.popitem(last=False)
        await wait.wait_for(kept)
        return kept.value, {**kept.state, "not_found": kept.failure.not_found}


async def _read_task(client: AccountClient, api_version: ApiVersion, task_id: str) -> tuple[Task, bool]:
    """Read a run, and drop what no page may show: inputs often contain passwords."""
    try:
        task = await client.send(poll_run(task_id, api_version))
    except TaskNotFoundError:
        other = ApiVersion.V2 if api_version is ApiVersion.V3 else ApiVersion.V3
        task = await client.send(poll_run(task_id, other))
    hidden = {"input_parameters": None, "input": None, "download_files": (), "files_expires_at": None}
    return task.model_copy(update=hidden), NOTHING.of_run(task).secret_inputs


def _keep_task(read: tuple[Task, bool]) -> float:
    task, _ = read
    return SINGLE_INTERVAL if task.status.ended else ACTIVE_RUN_INTERVAL
