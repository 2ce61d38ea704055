"""A run is followed in the version of the API that has started it, and in no other one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.api.versions import APIS, SOURCES, Api, SourceKind
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import EXPORT, HUMAN, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.runs.outcome import RunTimedOutError
from tests.workers import PENS
from tests.world import browseract_emulator, emulator, worker, world

__all__ = ["browseract_emulator", "emulator", "worker", "world"]

OTHER = cast("ApiVersion", "other")


@pytest.fixture
def followed(monkeypatch) -> list[str]:
    """Let another version start the runs of workflows, without v2 beside it; return what follows them, in order."""
    made: list[str] = []

    def other(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            found = make(*args, **kwargs)

            def read(data: Any) -> Any:
                result = found.read(data)
                return replace(result, api_version=OTHER) if isinstance(result, Task) else result

            return replace(found, read=read)

        return call

    v2 = APIS[ApiVersion.V2]
    monkeypatch.setitem(APIS, OTHER, Api(**{name: other(name, make) for name, make in v2._asdict().items()}))
    monkeypatch.delitem(APIS, ApiVersion.V2)
    workflows = SOURCES[SourceKind.WORKFLOW]
    monkeypatch.setitem(SOURCES, SourceKind.WORKFLOW, workflows._replace(api_version=OTHER))
    return made


def test_run_is_read(worker, emulator, followed):
    worker(workflow_id=SEARCH.id, input_parameters=PENS).run()
    assert set(followed) == {"get_task"}


def test_files_are_read_again(worker, emulator, followed, tmp_path):
    emulator.set_workflow(EXPORT.id, file_lifetime=0.0)
    with pytest.raises(AirflowFailException, match="files are missing"):
        worker(workflow_id=EXPORT.id, input_parameters=PENS, output_path=str(tmp_path)).run()
    assert set(followed) == {"get_task"}


def test_paused_run_is_resumed(worker, emulator, followed):
    emulator.set_workflow(HUMAN.id, duration=0.4, pause_limit=600.0)
    worker(workflow_id=HUMAN.id, on_paused="resume").run()
    assert set(followed) == {"get_task", "resume_task"}


def test_run_that_takes_too_long_is_stopped(worker, emulator, followed):
    emulator.set_workflow(ORDERS.id, duration=600)
    with pytest.raises(RunTimedOutError, match="The run was stopped"):
        worker(workflow_id=ORDERS.id, timeout=0.3).run()
    assert followed[-1] == "stop_task"


def test_lost_start_is_looked_up(worker, emulator, followed):
    emulator.fault("run-task", RequestFault.lost_response(), times=1)
    worker(workflow_id=SEARCH.id, input_parameters=PENS).run()
    assert followed[0] == "list_tasks"
    assert len(emulator.tasks) == 1


def test_run_of_an_earlier_try_with_other_arguments_is_stopped(worker, emulator, followed, store):
    emulator.set_workflow(ORDERS.id, duration=600)
    arguments = {"workflow_id": ORDERS.id, "store": store, "wait_for_completion": False}
    worker(**arguments).run()
    del followed[:]
    worker(**arguments, save_browser_data=True).run()
    assert followed[:2] == ["get_task", "stop_task"]
