"""Who looks at a page, and at which account: what is decided before anything is read from BrowserAct. It blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.panel import database
from airflow_provider_browseract.panel.access import Access
from airflow_provider_browseract.panel.records import Link, Records, TaskInstanceKey
from airflow_provider_browseract.panel.web import FORBIDDEN, PageError


@dataclass(frozen=True)
class Viewing:
    """Who looks, and at which account.

    :param conn_id: the connection whose account is shown; None if there is none.
    :param connections: the connections that the viewer may choose from.
    """

    access: Access
    records: Records
    conn_id: str | None
    connections: tuple[str, ...] = ()

    @property
    def reads_account(self) -> bool:
        """Whether the viewer may see everything that the account has done."""
        return self.conn_id is not None and self.access.reads_connection(self.conn_id)

    def may_know(self, task_id: str) -> bool:
        """Return whether BrowserAct may be asked about a run for the viewer."""
        links = self.records.of_run(task_id)
        return self.reads_account or any(each.confirmed and self.access.reads_runs(each.key.dag_id) for each in links)


def view(user: Any, records: Records, wanted: str) -> Viewing:
    """Return what a user may see, of the wanted connection or of the first one that the user may see.

    :raises PageError: the user may not see the wanted connection.
    """
    access = Access(user)
    default = BrowserActHook.default_conn_name
    # What only an XCom names could be any connection.
    dags = {(link.conn_id, link.key.dag_id) for link in records.links.values() if link.conn_id and link.confirmed}
    known = {default, *database.connections(), *(conn_id for conn_id, _ in dags if conn_id)}

    def is_visible(conn_id: str) -> bool:
        return access.reads_connection(conn_id) or any(
            access.reads_runs(dag_id) for other, dag_id in dags if other == conn_id
        )

    connections = tuple(sorted(filter(is_visible, known)))
    if wanted and wanted not in connections and not access.reads_connection(wanted):
        raise PageError(403, FORBIDDEN)
    first = default if default in connections else next(iter(connections), None)
    return Viewing(access, records, wanted or first, connections)


def view_instance(user: Any, records: Records, key: TaskInstanceKey) -> tuple[Viewing, list[Link]]:
    """Return what a user may see of a task instance, and its runs: that which it waits for, then the newest.

    :raises PageError: the user may not see the runs of its DAG.
    """
    access = Access(user)
    if not key.fits or not access.reads_runs(key.dag_id):
        raise PageError(403, FORBIDDEN)
    links = [link for link in records.of_instance(key) or database.links_of(key) if _may_follow(access, link)]
    # An XCom may have been edited. What the task instance waits for is certain.
    links.sort(key=lambda link: link.wait is None)
    queued = [entry.conn_id for entry in records.queue if entry.key == key]
    conn_id = next((link.conn_id for link in links), None) or next(iter(queued), None)
    return Viewing(access, records, conn_id), links


def view_dag(user: Any, records: Records, dag_id: str, run_id: str | None, wanted: str) -> Viewing:
    """Return what a user may see of a DAG or DAG run.

    :raises PageError: the user may not see its runs, or none of them was read with the wanted connection.
    """
    access = Access(user)
    if not access.reads_runs(dag_id):
        raise PageError(403, FORBIDDEN)
    of_dag = [link for link in records.links.values() if link.key.dag_id == dag_id]
    of_dag = [link for link in of_dag if run_id in (None, link.key.run_id) and _may_follow(access, link)]
    found = {link.conn_id for link in of_dag if link.conn_id}
    if wanted and wanted not in found:
        raise PageError(403, FORBIDDEN)
    return Viewing(access, records, wanted or min(found, default=None), tuple(sorted(found)))


def _may_follow(access: Access, link: Link) -> bool:
    """Return whether the connection of a link may be read for the viewer. An edited XCom could name any connection."""
    return link.conn_id is not None and (link.confirmed or access.reads_connection(link.conn_id))
