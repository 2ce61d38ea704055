"""Who looks at a page, and at which account: what is decided before anything is read from BrowserAct. It blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.panel import database, links
from airflow_provider_browseract.panel.access import Access
from airflow_provider_browseract.panel.database import TaskInstanceKey
from airflow_provider_browseract.panel.links import Link, Records
from airflow_provider_browseract.panel.web import FORBIDDEN, PageError

Keys: TypeAlias = "Callable[[Collection[str]], dict[str, str]]"
"""Returns the API keys of those connections that can be read in time."""

MAX_NAMED = 20
"""Connections that are read for one page because XComs name them. Those in the database go first, then the newest."""


@dataclass(frozen=True)
class Viewing:
    """Who looks, and at which account.

    :param conn_id: the connection whose account is shown; None if there is none.
    :param key: its API key; None if it cannot be read.
    :param connections: the connections that the viewer may choose from.
    """

    access: Access
    records: Records
    conn_id: str | None
    key: str | None = field(default=None, repr=False)
    connections: tuple[str, ...] = ()

    @property
    def reads_account(self) -> bool:
        """Whether the viewer may see everything that the account has done."""
        return self.conn_id is not None and self.access.reads_connection(self.conn_id)

    def proven(self, task_id: str) -> list[Link]:
        """Return the links of a run that give rights on it, those of task instances that have started it first."""
        return [] if self.conn_id is None else self.records.proven(task_id, self.conn_id, self.key)

    def is_proven(self, link: Link) -> bool:
        """Return whether a link gives rights on its run."""
        return self.conn_id is not None and link.is_proven(self.conn_id, self.key)

    def may_know(self, task_id: str) -> bool:
        """Return whether BrowserAct may be asked about a run for the viewer."""
        return self.reads_account or any(self.access.reads_runs(link.key.dag_id) for link in self.proven(task_id))


def view(user: Any, records: Records, keys: Keys, wanted: str) -> Viewing:
    """Return what a user may see, of the wanted connection or of the first one that the user may see.

    :raises PageError: the user may not see the wanted connection.
    """
    access, stored, default = Access(user), _stored(), BrowserActHook.default_conn_name
    all_links = [link for of_run in records.links.values() for link in of_run]
    connections = {conn_id for conn_id in stored if access.reads_connection(conn_id)}
    named = [(link.conn_id, link) for link in all_links if link.conn_id and link.conn_id not in connections]
    seen = [link for conn_id, link in named if access.reads_runs(link.key.dag_id) or access.reads_connection(conn_id)]
    connections |= {link.conn_id for link in _proven(seen, keys, stored) if link.conn_id}
    conn_id = wanted or (default if default in connections else min(connections, default=None))
    is_allowed = not wanted or wanted in connections or access.reads_connection(wanted)
    # Another connection may have the same key. Nobody without a run makes the panel read a connection.
    own = [] if is_allowed else [link for link in all_links if access.reads_runs(link.key.dag_id)]
    if is_allowed or own:
        viewing = _viewing(access, records, keys, conn_id, connections)
        if is_allowed or any(link.is_proven(wanted, viewing.key) for link in own):
            return viewing
    raise PageError(403, FORBIDDEN)


def view_instance(user: Any, records: Records, keys: Keys, key: TaskInstanceKey) -> tuple[Viewing, list[Link]]:
    """Return what a user may see of a task instance, and its runs: that which it waits for, then the newest.

    :raises PageError: the user may not see the runs of its DAG.
    """
    access = Access(user)
    if not key.fits or not access.reads_runs(key.dag_id):
        raise PageError(403, FORBIDDEN)
    runs: dict[str, Link] = {}
    for link in _proven(records.of_instance(key) or links.links_of(key), keys, _stored()):
        runs.setdefault(link.browseract_task_id, link)
    conn_ids = [link.conn_id for link in runs.values()] + [each.conn_id for each in records.queue if each.key == key]
    return _viewing(access, records, keys, next(iter(conn_ids), None)), [*runs.values()]


def view_dag(user: Any, records: Records, keys: Keys, dag_id: str, run_id: str | None, wanted: str) -> Viewing:
    """Return what a user may see of a DAG or DAG run.

    :raises PageError: the user may not see its runs, or none of them was read with the wanted connection.
    """
    access = Access(user)
    if not access.reads_runs(dag_id):
        raise PageError(403, FORBIDDEN)
    of_dag = [link for of_run in records.links.values() for link in of_run if link.key.dag_id == dag_id]
    proven = _proven([link for link in of_dag if run_id in (None, link.key.run_id)], keys, _stored())
    found = {link.conn_id for link in proven if link.conn_id}
    if wanted and wanted not in found:
        raise PageError(403, FORBIDDEN)
    return _viewing(access, records, keys, wanted or min(found, default=None), found)


def _viewing(
    access: Access, records: Records, keys: Keys, conn_id: str | None, connections: Iterable[str] = ()
) -> Viewing:
    key = None if conn_id is None else keys([conn_id]).get(conn_id)
    return Viewing(access, records, conn_id, key, tuple(sorted(connections)))


def _stored() -> set[str]:
    """Return the connections that nobody can make up."""
    return {BrowserActHook.default_conn_name, *database.connections()}


def _proven(some: Iterable[Link], keys: Keys, first: Collection[str]) -> list[Link]:
    """Return the links that are proven with the connection that they name, in the same order.

    :param first: connections that are read before others.
    """
    named = [(link.conn_id, link) for link in some if link.conn_id]
    conn_ids = sorted(dict.fromkeys(conn_id for conn_id, _ in named), key=lambda conn_id: conn_id not in first)
    known = keys(conn_ids[:MAX_NAMED])
    return [link for conn_id, link in named if link.is_proven(conn_id, known.get(conn_id))]
