"""What happens to the run of a trigger that Airflow kills."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextvars import ContextVar
from dataclasses import replace
from types import SimpleNamespace

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.emulator import ORDERS, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow import xcoms
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.triggers.stopping import stop_after_ctrl_c
from tests.triggers.waits import ASKS, start, start_bot, start_short, trigger
from tests.workers import calls_of

trigger_of: ContextVar[str | None] = ContextVar("trigger_of", default=None)
"""Stands for Airflow's variable with the task instance whose trigger sends a request."""


@pytest.fixture
def airflow(monkeypatch) -> SimpleNamespace:
    """What Airflow shows a trigger: the XComs of its task instance, and its state."""
    known = SimpleNamespace(xcoms={}, state="failed", fails=None, of_another_try=False)
    names = {"dag_id": "shop", "task_id": "run", "run_id": "manual__1", "map_index": 3}

    async def aget_one(*, key, **of):
        assert of == names
        # The first look of a triggerer takes seconds.
        await asyncio.sleep(0.4)
        if known.fails:
            raise known.fails
        if known.of_another_try and trigger_of.get():
            raise RuntimeError("403: Task instance is not a live attempt")
        return known.xcoms.get(key)

    def get_task_states(dag_id, *, map_index, task_ids, run_ids):
        # In the thread of the event loop, Airflow could only respond through a portal.
        assert threading.current_thread() is not threading.main_thread()
        assert {"dag_id": dag_id, "task_id": task_ids[0], "run_id": run_ids[0], "map_index": map_index} == names
        return {"manual__1": {"run_3": known.state}}

    monkeypatch.setattr(xcoms, "xcom", lambda: SimpleNamespace(aget_one=aget_one))
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(get_task_states))
    known.names = names
    return known


@pytest.fixture
def waiting(emulator, airflow):
    """A trigger of a run that keeps running."""
    emulator.set_workflow(ORDERS.id, duration=60.0)
    made = trigger(start(), callback_token_sha256="0" * 64)
    made._task_instance = SimpleNamespace(**airflow.names, id="019ab3d5-0000-7000-8000-000000000001")
    airflow.xcoms["task_id"] = made.wait.browseract_task_id
    return made


async def test_ctrl_c_stops_the_run_of_a_bot_with_version_3_of_the_api(emulator, caplog):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    wait = trigger(start_bot(), api_version=ApiVersion.V3).wait
    await stop_after_ctrl_c(wait, "browseract_default", True, logging.getLogger(__name__))
    assert emulator.tasks[0].status == "canceled"
    assert f"BrowserAct task {wait.browseract_task_id} was stopped." in caplog.text


class TestKill:
    @pytest.mark.parametrize("state", ["failed", "success"])
    def test_kill_of_task_instance_marked_failed_or_success_stops_the_run(self, emulator, waiting, airflow, state):
        airflow.state = state
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[0].status == "canceled"

    def test_kill_of_cleared_task_instance_stops_the_run(self, emulator, waiting, airflow):
        airflow.state, airflow.xcoms["task_id"] = "deferred", "the run of the next try"
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[0].status == "canceled"

    @pytest.mark.parametrize(
        ("state", "pushed", "status"),
        [
            ("up_for_retry", None, "running"),
            ("deferred", "the same run", "running"),
            ("deferred", "another run", "canceled"),
            ("failed", None, "canceled"),
            ("queued", None, "canceled"),
        ],
        ids=["waits for its retry", "retried", "cleared", "cleared and marked", "does not begin"],
    )
    def test_kill_of_an_earlier_try_on_airflow_3_4_stops_the_run_unless_the_next_try_waits_for_it(
        self, emulator, waiting, airflow, monkeypatch, state, pushed, status
    ):
        monkeypatch.setattr(timings, "NEXT_TRY_LIMIT", 1.0)
        monkeypatch.setattr(timings, "ANSWER_POLL_INTERVAL", 0.1)
        airflow.state, airflow.of_another_try = state, True
        airflow.xcoms["task_id"] = waiting.wait.browseract_task_id if pushed == "the same run" else pushed

        async def kill() -> None:
            trigger_of.set("an earlier try")
            await waiting.on_kill()

        asyncio.run(kill())
        assert emulator.tasks[0].status == status

    def test_kill_stops_the_run_of_a_bot_with_version_3_of_the_api(self, emulator, waiting, airflow):
        task_id = airflow.xcoms["task_id"] = start_bot()
        waiting.wait = replace(waiting.wait, browseract_task_id=task_id, api_version=ApiVersion.V3)
        asyncio.run(waiting.on_kill())
        assert [task.status for task in emulator.tasks] == ["running", "canceled"]
        assert [request.endpoint for request in emulator.requests[2:]] == ["query-run-status", "cancel-run"]

    def test_kill_with_cancel_on_kill_false_does_not_stop_the_run(self, emulator, waiting, capfd):
        waiting.cancel_on_kill = False
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[0].status == "running"
        assert (
            f"{waiting.wait.browseract_task_id} keeps running and using credits because cancel_on_kill=False."
            in "".join(capfd.readouterr())
        )

    @pytest.mark.parametrize("code", [10121, 10112], ids=["ended", "unknown"])
    def test_kill_whose_stop_is_refused_since_the_run_has_ended_logs_it(self, emulator, waiting, capfd, code):
        emulator.fault("stop-task", RequestFault.refused(code), times=None)
        asyncio.run(waiting.on_kill())
        logged = "".join(capfd.readouterr())
        assert f"BrowserAct task {waiting.wait.browseract_task_id} need not be stopped: it has already ended." in logged

    def test_kill_after_run_ended_sends_no_stop_and_logs_it(self, emulator, waiting, capfd):
        waiting.wait = replace(waiting.wait, browseract_task_id=start_short(emulator))
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[1].status == "finished"
        assert calls_of(emulator, "stop-task") == 0
        logged = "".join(capfd.readouterr())
        assert f"{waiting.wait.browseract_task_id} need not be stopped: it has already ended as finished." in logged

    def test_kill_after_the_next_try_has_stopped_the_run_logs_that(self, emulator, waiting, capfd):
        BrowserActHook().stop_task(waiting.wait.browseract_task_id)
        asyncio.run(waiting.on_kill())
        ended = "need not be stopped: it has already ended as canceled, perhaps because the next try has stopped it."
        assert ended in "".join(capfd.readouterr())

    def test_kill_stops_the_run_although_its_status_cannot_be_read(self, emulator, waiting, monkeypatch):
        monkeypatch.setattr(timings, "ON_KILL_CALL_LIMIT", 0.6)
        emulator.fault("get-task-status", RequestFault.status(500), times=None)
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[0].status == "canceled"

    @pytest.mark.parametrize("link", ["https://www.browseract.com/x", None], ids=["marked", "cleared"])
    def test_kill_whose_stop_fails_logs_it_with_the_task_link_if_known(self, emulator, waiting, airflow, capfd, link):
        airflow.xcoms["_link_BrowserActTaskLink"] = link
        emulator.fault("stop-task", RequestFault.status(500), times=None)
        asyncio.run(waiting.on_kill())
        logged = "".join(capfd.readouterr())
        assert f"BrowserAct task {waiting.wait.browseract_task_id} could not be stopped (BrowserAct failed" in logged
        assert f"until you stop it {f'at {link}' if link else 'in the BrowserAct dashboard'}." in logged

    def test_kill_whose_stop_hangs_returns_in_time_and_logs_it(self, emulator, waiting, monkeypatch, capfd):
        monkeypatch.setattr(timings, "ON_KILL_CALL_LIMIT", 0.6)
        emulator.fault("stop-task", RequestFault.hung())
        began = time.monotonic()
        asyncio.run(waiting.on_kill())
        assert time.monotonic() - began < 5
        assert "may not have been stopped (" in "".join(capfd.readouterr())

    def test_kill_returns_in_time_and_logs_when_airflow_does_not_respond(
        self, emulator, waiting, airflow, monkeypatch, capfd
    ):
        async def never(**_):
            await asyncio.sleep(3600)

        monkeypatch.setattr(xcoms, "xcom", lambda: SimpleNamespace(aget_one=never))
        monkeypatch.setattr(timings, "ON_KILL_LIMIT", 0.2)
        began = time.monotonic()
        asyncio.run(waiting.on_kill())
        assert time.monotonic() - began < 5
        assert emulator.tasks[0].status == "running"
        assert "was not stopped within 0.2 seconds. The triggerer keeps trying" in "".join(capfd.readouterr())

    @pytest.mark.parametrize("bounded", [False, True], ids=["no time limit", "Airflow's time limit"])
    def test_kill_stops_the_run_despite_repeated_cancels_by_airflow(self, emulator, waiting, bounded):
        async def kill() -> None:
            on_kill = waiting.on_kill()
            under_way = asyncio.ensure_future(asyncio.wait_for(on_kill, 30) if bounded else on_kill)
            await asyncio.sleep(0.05)
            while not under_way.done() or emulator.tasks[0].status != "canceled":
                under_way.cancel("__airflow_user_action__")
                await asyncio.sleep(0.05)

        asyncio.run(asyncio.wait_for(kill(), 20))
        assert emulator.tasks[0].status == "canceled"


class TestKillOfResumedTask:
    """Airflow calls the end of a trigger a kill also where the task is still waited for."""

    def test_kill_does_not_stop_run_when_callback_ended_this_wait(self, emulator, waiting, airflow, capfd):
        airflow.state = "scheduled"
        airflow.xcoms["wait"] = {"woken_by": "callback", "first_poll_at": waiting.wait.first_poll_at}
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[0].status == "running"
        assert "a callback has resumed the Airflow task" in "".join(capfd.readouterr())

    def test_kill_stops_run_when_callback_ended_an_earlier_wait(self, emulator, waiting, airflow):
        airflow.xcoms["wait"] = {"woken_by": "callback", "first_poll_at": waiting.wait.first_poll_at - 60}
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[0].status == "canceled"

    @pytest.mark.parametrize("own", [True, False], ids=["own Required Action", "Required Action of earlier try"])
    def test_kill_does_not_stop_run_when_answer_resumed_the_task_instance(
        self, emulator, waiting, airflow, people, capfd, own
    ):
        airflow.state = "scheduled"
        people._ask(waiting.task_instance.id)
        action = waiting.task_instance.id if own else None
        waiting.wait = replace(waiting.wait, policy=ASKS, began_at=time.time(), required_action=action)
        people.answer("Resume")
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[0].status == "running"
        assert "a person's answer has resumed the Airflow task" in "".join(capfd.readouterr())

    @pytest.mark.parametrize("what", ["marked", "cleared", "answered before"])
    def test_kill_stops_run_when_required_action_was_not_answered_in_this_wait(
        self, emulator, waiting, airflow, people, what
    ):
        people._ask(waiting.task_instance.id)
        if what == "answered before":
            people.answer("Resume")
        action = waiting.task_instance.id
        waiting.wait = replace(waiting.wait, policy=ASKS, began_at=time.time(), required_action=action)
        people.away = KeyError("no such Required Action") if what == "cleared" else None
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[0].status == "canceled"

    @pytest.mark.parametrize("state", ["deferred", "running"])
    def test_kill_does_not_stop_run_when_task_instance_waits_elsewhere(self, emulator, waiting, airflow, state, capfd):
        airflow.state = state
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[0].status == "running"
        assert "the Airflow task waits for it elsewhere" in "".join(capfd.readouterr())

    def test_kill_does_not_stop_run_and_logs_it_when_airflow_is_unreachable(self, emulator, waiting, airflow, capfd):
        airflow.fails = RuntimeError("the API server is away")
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[0].status == "running"
        logged = "".join(capfd.readouterr())
        assert f"BrowserAct task {emulator.tasks[0].id} was not stopped and may keep running" in logged
        assert "the API server is away" in logged
