"""What the pages know about the BrowserAct account of each connection. It is read only when someone asks for it.

All methods run in the event loop of the panel's own thread. BrowserAct is called with the asynchronous client: a read
really ends after its limit, a response that is too large is not read to its end, and a slow one holds no threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from airflow_provider_browseract.api.arguments import PATH_ID
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.api.pages import Listing, list_items
from airflow_provider_browseract.api.versions import APIS, SOURCES, SourceKind
from airflow_provider_browseract.dag_file import Runnable
from airflow_provider_browseract.exceptions import ConnectionFailedError, InputError, NotFoundError, TaskNotFoundError
from airflow_provider_browseract.hooks.connection import budget_of
from airflow_provider_browseract.in_airflow.hiding import NOTHING, Hiding
from airflow_provider_browseract.panel.client import CALL_LIMIT, AccountClient, Steps
from airflow_provider_browseract.panel.connections import Connections
from airflow_provider_browseract.panel.days import Days, Pace
from airflow_provider_browseract.panel.kept import Kept, Known, Read, explain, recall
from airflow_provider_browseract.panel.listing import RunLists
from airflow_provider_browseract.runs.wait import poll_run, stop_run
from airflow_provider_browseract.spending.budget import Budget

T = TypeVar("T")

Get: TypeAlias = "Callable[[float], Awaitable[Known[T]]]"
"""Returns what is known of something as soon as it is read, and at a moment of the monotonic clock at the latest."""

LISTS_INTERVAL = 600.0
"""Seconds for which lists of workflows, bots and templates are kept."""

ACTIVE_RUN_INTERVAL = 5.0
"""Seconds for which one run is kept while it is active."""

SINGLE_INTERVAL = 60.0
"""Seconds for which one ended run, workflow, bot or template is kept."""

PAGE_SIZE = 100
"""Workflows, bots or templates in one response."""

MAX_ACCOUNTS = 20
MAX_SINGLES = 200
MAX_SOURCES = 500
"""How much is kept: accounts, runs and sources that were read one by one, and sources of a list."""


@dataclass(frozen=True)
class Account(Read):
    """What is known about an account. It is not found if there is no such connection.

    :param tasks: the tasks that are active or ended in the last 24 hours, the newest first, without inputs and outputs.
    :param truncated: there are more tasks, of which only the newest are known.
    :param names: the names of workflows by their ids.
    :param host: base URL of the API.
    :param bots_failure: why the runs of bots could not be read. ``error`` is about those of workflows.
    """

    conn_id: str
    tasks: tuple[Task, ...] = ()
    truncated: bool = False
    budget: Budget | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    bots_failure: Read = field(default_factory=Read)


class AccountData:
    """What was read of one account.

    :param singles: the runs and sources of all accounts that were read one by one.
    """

    def __init__(self, client: AccountClient, pace: Pace, singles: dict[Hashable, Kept[Any]]) -> None:
        self.client, self._singles = client, singles
        self.lists = RunLists(client)
        self.days = Days(client, pace)
        self.sources = {
            kind: client.kept(partial(_list_sources, kind), lambda _: LISTS_INTERVAL) for kind in SourceKind
        }
        """All workflows, bots or templates, without their inputs."""

    def run(self, task_id: str, api_version: ApiVersion) -> Kept[Task]:
        """Return one run, without its inputs, output and files. Of many steps, only the first and last ones are kept.

        :param api_version: the version of the API that probably knows it, unless one lists it. The other one is asked
            if it does not.
        """
        listed = (task.api_version for task in self.lists.runs.tasks if task.id == task_id)
        return self._single(task_id, partial(_read_run, task_id, next(listed, api_version)), _keep_run)

    def source(self, kind: SourceKind, source_id: str) -> Kept[Runnable]:
        """Return one workflow, bot or template, with its declared inputs."""
        return self._single((kind, source_id), partial(_read_source, kind, source_id), lambda _: SINGLE_INTERVAL)

    def _single(self, of: Hashable, steps: Callable[[], Steps[T]], keep: Callable[[T], float]) -> Kept[T]:
        return recall(self._singles, (self, of), partial(self.client.kept, steps, keep), MAX_SINGLES)

    def stopped(self, task_id: str) -> None:
        """Read the run, and the lists, again when someone asks next."""
        # A read that is running may have begun before the stop.
        self._singles.pop((self, task_id), None)
        self.lists.workflows.expired = self.lists.bots.expired = True


class Accounts:
    """What is known about the accounts. There is one for each process.

    ``patience`` is how many seconds a caller waits for a read that is needed or running. After that it gets what there
    is.

    :param clock: returns the time in seconds since the epoch.
    :param sleep: sleeps between the reads of two days.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    ) -> None:
        self.connections = Connections(clock)
        self._clock, self._pace = clock, Pace(asyncio.Lock(), sleep)
        self._data: dict[tuple[str, str, str], AccountData] = {}
        self._singles: dict[Hashable, Kept[Any]] = {}

    async def account(self, conn_id: str, patience: float) -> Account:
        """Return the runs of the account of a connection, and what the connection says about it."""
        until = time.monotonic() + patience
        data, failed = await self._data_of(conn_id, until)
        if data is None:
            return Account(conn_id, error=failed.error, remedy=failed.remedy, not_found=failed.not_found)
        lists, sources, settings = data.lists, data.sources[SourceKind.WORKFLOW], data.client.settings
        # Only a first caller waits for names.
        is_first = sources.known == Known()
        workflows, bots, named = await asyncio.gather(
            lists.workflows.get(until), lists.bots.get(until), sources.get(until if is_first else 0.0)
        )
        return Account(
            conn_id,
            *lists.runs,
            budget_of(settings),
            {each.id: each.name for each in named.value.items if each.name} if named.value else {},
            settings.base_url,
            bots,
            as_of=workflows.as_of or bots.as_of,
            error=workflows.error,
            remedy=workflows.remedy,
        )

    async def get(self, conn_id: str, patience: float, of: Callable[[AccountData], Get[T]]) -> Known[T]:
        """Return something of an account.

        :param of: takes the data of the account, and chooses what is returned.
        """
        until = time.monotonic() + patience
        data, failed = await self._data_of(conn_id, until)
        # Without the connection, nobody knows whether there is what is asked for.
        return Known(error=failed.error, remedy=failed.remedy) if data is None else await of(data)(until)

    async def stop(self, conn_id: str, api_version: ApiVersion, task_id: str) -> bool:
        """Stop a run, which the version of the API has started.

        :returns: ``False`` if it had already ended.
        :raises BrowserActError: it could not be stopped, or BrowserAct does not know it with this API key.
        """
        data, failed = await self._data_of(conn_id, time.monotonic() + CALL_LIMIT)
        if data is None:
            why = failed.error or f"Connection {conn_id!r} could not be read in time"
            raise ConnectionFailedError(why, remedy=failed.remedy)
        try:
            return await data.client.send(stop_run(task_id, APIS[api_version]))
        finally:
            data.stopped(task_id)

    async def _data_of(self, conn_id: str, until: float) -> tuple[AccountData | None, Read]:
        """Return the data of a connection; None with the reason if it cannot be read, or was not read yet."""
        connection = self.connections.kept(conn_id)
        known = await connection.get(until)
        if known.value is None:
            return None, known
        settings = known.value.settings
        if isinstance(settings, InputError):
            return None, explain(settings, conn_id)

        def make() -> AccountData:
            return AccountData(AccountClient(conn_id, settings, connection, self._clock), self._pace, self._singles)

        # Data of an earlier key, which may be that of another account, are not found any more.
        data = recall(self._data, (conn_id, settings.base_url, settings.api_key), make, MAX_ACCOUNTS)
        data.client.settings = settings
        return data, known


def _read_run(task_id: str, api_version: ApiVersion) -> Steps[Task]:
    """Read a run, and drop what no page may show: inputs often contain passwords."""
    _check(task_id)
    try:
        task = yield from poll_run(task_id, api_version)
    except TaskNotFoundError:
        task = yield from poll_run(task_id, ApiVersion.V2 if api_version is ApiVersion.V3 else ApiVersion.V3)
    # Secret inputs may be quoted.
    shown: Task = Hiding(texts=NOTHING.of_run(task).secret_inputs).apply(task)
    dropped = {"input_parameters": None, "input": None, "download_files": (), "files_expires_at": None}
    return shown.model_copy(update=dropped)


def _keep_run(task: Task) -> float:
    return SINGLE_INTERVAL if task.status.ended else ACTIVE_RUN_INTERVAL


def _list_sources(kind: SourceKind) -> Steps[Listing[Runnable]]:
    call: Call[Any] = SOURCES[kind].list(limit=PAGE_SIZE)
    listing = yield from list_items(call, MAX_SOURCES // PAGE_SIZE)
    return replace(listing, items=[Runnable.of(kind, each) for each in listing.items])


def _read_source(kind: SourceKind, source_id: str) -> Steps[Runnable]:
    _check(source_id)
    call: Call[Any] = SOURCES[kind].read(source_id)
    return Runnable.of(kind, (yield call))


def _check(id_: str) -> None:
    if not PATH_ID.fullmatch(id_):
        raise NotFoundError("The id has characters that no id has")
