from collections.abc import Callable
from functools import partial

import pytest

from airflow_provider_browseract.compat import DELETED
from airflow_provider_browseract.emulator import SEARCH
from tests.helpers.workers import PENS, logs, store
from tests.helpers.world import connect, emulator, worker, world

__all__ = ["connect", "emulator", "logs", "store", "worker", "world"]


@pytest.fixture
def search(worker):
    """Return a function that makes a task instance which runs the workflow SEARCH, with other arguments."""
    return partial(worker, workflow_id=SEARCH.id, input_parameters=PENS)


class Airflow:
    """What Airflow knows of the task instance. A try whose place another one has taken is shown no stored state."""

    def __init__(self, store) -> None:
        self.state: str | None = "running"
        self.superseded = False
        self.answers: Callable[[], None] = lambda: None
        self._get = store.get
        store.get = self.get

    def become(self, state, superseded=False) -> None:
        self.state, self.superseded = state, superseded

    def get(self, key):
        self.answers()
        return None if self.superseded else self._get(key)

    def states(self, dag_id, *, map_index, task_ids, run_ids):
        self.answers()
        assert (dag_id, map_index, task_ids, run_ids) == ("shop", -1, ["run"], ["manual__1"])
        return {} if self.state == DELETED else {"manual__1": {"run": self.state}}


@pytest.fixture
def airflow(store, monkeypatch) -> Airflow:
    airflow = Airflow(store)
    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states", airflow.states)
    return airflow
