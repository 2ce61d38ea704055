"""What a viewer may see, asked of Airflow's auth manager. Every page asks for itself; Airflow decides only who sees the
menu entry.

| data | needed |
| --- | --- |
| a run: status, workflow, times, credits, profile | GET on XComs of its DAG, as its XCom ``task`` shows the same |
| runs without such a DAG, sums of the account, its workflows and bots | GET on the connection |
| steps, screenshots, text of a failure | GET on logs of its DAG, or on the connection |
| live view, in which a person can act; stop | PUT on task instances of its DAG, or on the connection |
| names in the queue, failed task instances | GET on the DAG |
| why they have failed | GET on XComs of the DAG |
| inputs, outputs, files | nobody |

The DAG of a run is that of a task instance whose link is proven. That of a sensor gives neither live view nor stop.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal, NamedTuple

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import (
    AccessView,
    ConnectionDetails,
    DagAccessEntity,
    DagDetails,
)

from airflow_provider_browseract.panel import database
from airflow_provider_browseract.panel.failures import FailedTry
from airflow_provider_browseract.panel.links import Link

Method = Literal["GET", "PUT"]


class Access:
    """What one viewer may see. It lives as long as one request, and an auth manager may keep rights for longer.

    :param user: the user, as Airflow's ``get_user`` returns it.
    """

    def __init__(self, user: Any) -> None:
        self._manager, self._user = get_auth_manager(), user
        # Each right is asked for once.
        self._connection, self._dag = cache(self._ask_for_connection), cache(self._ask_for_dag)

    @property
    def name(self) -> str:
        """The name of the viewer, for the log."""
        return str(self._user.get_name())

    def reads_connection(self, conn_id: str) -> bool:
        """Return whether the viewer may see everything that the account of a connection has done."""
        return self._connection("GET", conn_id)

    def edits_connection(self, conn_id: str) -> bool:
        """Return whether the viewer may stop any run of the account."""
        return self._connection("PUT", conn_id)

    def reads_dag(self, dag_id: str) -> bool:
        """Return whether the viewer may know that the DAG exists."""
        return self._dag("GET", None, dag_id)

    def reads_runs(self, dag_id: str) -> bool:
        """Return whether the viewer may see the runs of a DAG."""
        return self._dag("GET", DagAccessEntity.XCOM, dag_id)

    def reads_steps(self, dag_id: str) -> bool:
        """Return whether the viewer may see what the runs of a DAG do."""
        return self._dag("GET", DagAccessEntity.TASK_LOGS, dag_id)

    def changes_runs(self, dag_id: str) -> bool:
        """Return whether the viewer may act in the browser of a run of a DAG, and stop it: who may clear its task."""
        return self._dag("PUT", DagAccessEntity.TASK_INSTANCE, dag_id)

    def sees_plugin_pages(self) -> bool:
        """Return whether Airflow's UI shows pages of plugins to the viewer."""
        return self._manager.is_authorized_view(access_view=AccessView.PLUGINS, user=self._user)

    def _ask_for_connection(self, method: Method, conn_id: str) -> bool:
        details = ConnectionDetails(conn_id=conn_id, team_name=database.connection_team(conn_id))
        return self._manager.is_authorized_connection(method=method, details=details, user=self._user)

    def _ask_for_dag(self, method: Method, entity: DagAccessEntity | None, dag_id: str) -> bool:
        details = DagDetails(id=dag_id, team_name=database.dag_team(dag_id))
        return self._manager.is_authorized_dag(method=method, access_entity=entity, details=details, user=self._user)


class Rights(NamedTuple):
    """What a viewer may see of one run, and do with it.

    :param run: see that it exists, with its status, times and credits.
    :param steps: see what it does.
    :param act: act in its browser, and stop it.
    """

    run: bool
    steps: bool
    act: bool


_rights = cache(Rights)
"""All runs share the few combinations that there are."""


def rights_on(access: Access, conn_id: str, proven: Iterable[Link]) -> Rights:
    """Return what a viewer may see of a run: what each of its task instances gives by itself, or the connection.

    :param proven: the links of the run that are proven. A person with the right to edit XComs could name another run.
    """
    reads_account = access.reads_connection(conn_id)
    own = [link for link in proven if access.reads_runs(link.key.dag_id)]
    run = reads_account or bool(own)
    return _rights(
        run=run,
        steps=reads_account or any(access.reads_steps(link.key.dag_id) for link in own),
        # Whoever may trigger the DAG of a sensor can choose the run that it waits for.
        act=run
        and (
            access.edits_connection(conn_id)
            or any(access.changes_runs(link.key.dag_id) for link in own if not link.follows)
        ),
    )


def visible_failures(access: Access, tries: Iterable[FailedTry]) -> list[FailedTry]:
    """Return the failed task instances that a viewer may see, without the reasons that the viewer must not see."""
    return [
        each if access.reads_runs(each.key.dag_id) else each._replace(failure=None)
        for each in tries
        if access.reads_dag(each.key.dag_id)
    ]
