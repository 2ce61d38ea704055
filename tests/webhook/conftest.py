from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import delete, select

from airflow_provider_browseract.emulator import SEARCH
from airflow_provider_browseract.triggers.browseract import TaskTrigger
from airflow_provider_browseract.webhook.callback import TOKEN_XCOM, WaitingTask, digest, new_token

DAG_ID = "example_browseract_search"
LONG_AGO = 60.0


class Deferred:
    """A task instance in Airflow's database, made to wait for a callback by hand."""

    def __init__(self, run_id: str) -> None:
        self.waiting = WaitingTask(DAG_ID, run_id, "search", -1)
        self.token = new_token()
        self.deadline = time.time() + 3600
        self.first_poll_at = 0.0

    @property
    def path(self) -> str:
        """Where the callback goes."""
        return f"/browseract/callback/{self.waiting.encode()}/{self.token}"

    def row(self, session) -> Any:
        """Give the row of the task instance."""
        return session.scalars(
            select(TaskInstance).where(
                TaskInstance.dag_id == DAG_ID,
                TaskInstance.run_id == self.waiting.run_id,
                TaskInstance.task_id == "search",
            )
        ).one()

    def start(self) -> None:
        """Bring it to where its run is about to be started."""
        with create_session() as session:
            ti = self.row(session)
            ti.state, ti.trigger_id, ti.next_method, ti.next_kwargs = TaskInstanceState.RUNNING, None, None, None
            session.execute(delete(XComModel).where(XComModel.run_id == self.waiting.run_id))
            XComModel.set(TOKEN_XCOM, digest(self.token), **self.waiting._asdict(), session=session)

    def defer(self, ago: float = LONG_AGO, **arguments: Any) -> int:
        """Let it defer, and give the id of the trigger.

        :param ago: seconds that this lies back.
        """
        self.first_poll_at = time.time()
        trigger = TaskTrigger(
            **{
                "browseract_task_id": "7",
                "browseract_conn_id": "browseract_default",
                "poll_interval": 120.0,
                "first_poll_at": self.first_poll_at,
                "deadline": self.deadline,
                "callback_token_sha256": digest(self.token),
                **arguments,
            }
        )
        with create_session() as session:
            row = Trigger.from_object(trigger)
            row.created_date = datetime.now(timezone.utc) - timedelta(seconds=ago)
            session.add(row)
            session.flush()
            ti = self.row(session)
            ti.state, ti.trigger_id, ti.next_method = TaskInstanceState.DEFERRED, row.id, "execute_complete"
            return row.id

    def forget_trigger(self) -> None:
        """Delete the trigger, as the triggerer does with one that nobody waits for."""
        self.change(lambda ti: setattr(ti, "trigger_id", None))
        with create_session() as session:
            session.execute(delete(Trigger).where(Trigger.classpath.startswith("airflow_provider_browseract")))

    def change(self, change: Callable[[Any], None]) -> None:
        """Change the row by hand."""
        with create_session() as session:
            change(self.row(session))

    @property
    def state(self) -> str:
        """Its state."""
        with create_session() as session:
            return str(self.row(session).state)

    @property
    def resumed_with(self) -> Any:
        """The event that it was resumed with, or None."""
        with create_session() as session:
            ti = self.row(session)
            if ti.trigger_id is not None or not ti.next_kwargs:
                return None
            kwargs: Any = ti.next_kwargs
            try:
                from airflow.sdk.serde import deserialize

                resumed: Any = deserialize(kwargs)
                return resumed["event"]
            except ImportError:
                return kwargs["event"]

    @property
    def xcoms(self) -> dict[str, Any]:
        """Its XComs."""
        with create_session() as session:
            rows = session.execute(
                select(XComModel.key, XComModel.value).where(
                    XComModel.run_id == self.waiting.run_id, XComModel.task_id == "search"
                )
            )
            return {key: json.loads(value) if isinstance(value, str) else value for key, value in rows}


_run_ids: list[str] = []
"""The run of the search example that all tests take the rows of."""


@pytest.fixture
def deferred(run_dag, browseract_emulator) -> Deferred:
    """A task instance that has been waiting for a callback for a minute."""
    if not _run_ids:
        browseract_emulator.emulator.set_workflow(SEARCH.id, duration=0.0)
        _run_ids.append(run_dag(DAG_ID).dag_run.run_id)
    made = Deferred(_run_ids[0])
    made.start()
    made.defer()
    return made
