"""What happens to the run of a trigger that Airflow kills or cancels, in real time."""

import asyncio
import threading
from contextvars import ContextVar
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_browseract.api import async_client
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.emulator import HUMAN, ORDERS, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow import shielding, xcoms
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.triggers import task as triggers
from tests.helpers.cases import cases, raising
from tests.triggers.waits import start, start_bot, start_paused, trigger, until

trigger_of: ContextVar[str | None] = ContextVar("trigger_of", default=None)
"""Stands for Airflow's variable with the task instance whose trigger sends a request."""

CALLBACK: dict[str, Any] = {"woken_by": "callback", "began_at": 1000.0}
EARLIER_CALLBACK = {**CALLBACK, "began_at": 940.0}


@pytest.fixture
def emulator(browseract_emulator, connect):
    # A call that hangs without another limit does so for longer than a test may take.
    connect({"retry_budget": 0.2, "read_timeout": 3600})
    browseract_emulator.set_workflow(ORDERS.id, duration=60.0)
    return browseract_emulator


@pytest.fixture
def airflow(monkeypatch) -> SimpleNamespace:
    shown = SimpleNamespace(xcoms={}, state="failed", fails=None, hangs=False, of_another_try=False)
    names = {"dag_id": "shop", "task_id": "run", "run_id": "manual__1", "map_index": 3}

    async def aget_one(*, key, **of):
        assert of == names
        # The first look of a triggerer takes seconds.
        await asyncio.sleep(3600 if shown.hangs else 0.4)
        if shown.fails:
            raise shown.fails
        if shown.of_another_try and trigger_of.get():
            raise RuntimeError("403: Task instance is not a live attempt")
        return shown.xcoms.get(key)

    def get_task_states(dag_id, *, map_index, task_ids, run_ids):
        # In the thread of the event loop, Airflow could only respond through a portal.
        assert threading.current_thread() is not threading.main_thread()
        assert {"dag_id": dag_id, "task_id": task_ids[0], "run_id": run_ids[0], "map_index": map_index} == names
        # The last one of several states stays.
        state = shown.state if not isinstance(shown.state, list) else shown.state[0]
        shown.state = shown.state[1:] or state if isinstance(shown.state, list) else state
        return {"manual__1": {"run_3": state}}

    monkeypatch.setattr(xcoms, "xcom", lambda: SimpleNamespace(aget_one=aget_one))
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(get_task_states))
    shown.names = names
    return shown


@pytest.fixture
def waiting(emulator, airflow):
    made = trigger(start(), callback_token_sha256="0" * 64, began_at=CALLBACK["began_at"])
    made._task_instance = SimpleNamespace(**airflow.names, id="019ab3d5-0000-7000-8000-000000000001")
    airflow.xcoms["task_id"] = made.wait.browseract_task_id
    return made


@pytest.fixture
def scene(emulator, airflow, waiting, monkeypatch) -> SimpleNamespace:
    return SimpleNamespace(emulator=emulator, airflow=airflow, waiting=waiting, monkeypatch=monkeypatch)


async def test_ctrl_c_stops_the_run_of_a_bot_with_version_3_of_the_api(emulator, monkeypatch, logs):
    monkeypatch.setattr(triggers, "in_dag_test", lambda: True)
    interrupted = asyncio.ensure_future(anext(trigger(start_bot(), api_version=ApiVersion.V3).run()))
    await asyncio.sleep(0)
    interrupted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await interrupted
    assert emulator.tasks[0].status == "canceled"
    assert "The run was stopped, because dag.test() was interrupted (Ctrl-C)." in logs()


def keep_the_run(scene):
    scene.waiting.cancel_on_kill = False


def stop_the_run(scene):
    BrowserActHook().stop_task(scene.waiting.wait.browseract_task_id)


def known(state="failed", limit=25.0, xcoms=(), **airflow):
    """What Airflow shows: the state of the task instance, XComs and errors."""

    def show(scene):
        scene.monkeypatch.setattr(timings, "ON_KILL_LIMIT", limit)
        scene.monkeypatch.setattr(timings, "ANSWER_POLL_INTERVAL", 0.1)
        scene.airflow.xcoms.update(xcoms)
        vars(scene.airflow).update(state=state, **airflow)

    return show


def failing(endpoint, fault, link=None):
    def fail(scene):
        scene.airflow.xcoms["_link_BrowserActTaskLink"] = link
        scene.monkeypatch.setattr(timings, "ON_KILL_CALL_LIMIT", 0.6)
        scene.emulator.fault(endpoint, fault, times=None)

    return fail


def unopened(scene):
    away = raising(FileNotFoundError("/etc/ssl/private.pem"))
    scene.monkeypatch.setattr(async_client.AsyncBrowserActClient, "_open", away)


LINK, DOWN = "https://www.browseract.com/x", RequestFault.status(500)
STOPPED, ENDED = "The run was stopped, because no task waits for it any more.", "The run had already ended"
NOTHING, SLOW = "", "The run has not been stopped yet, and the triggerer keeps trying."
MAY_RUN = "was not stopped and may keep running ... no API"
NOT_KNOWN = "could not be stopped: BrowserAct does not know the run with this API key."
NO_STOP_AT_ALL = "could not be stopped (FileNotFoundError: /etc/ssl/private.pem). It may keep running"
NO_STOP = "could not be stopped (BrowserAct failed ... until you stop it "


@cases(
    ("marked failed", known("failed"), "canceled", STOPPED),
    ("marked success", known("success"), "canceled", STOPPED),
    ("cleared", known("deferred", xcoms={"task_id": "another run"}), "canceled", STOPPED),
    ("deferred elsewhere", known("deferred"), "running", NOTHING),
    ("running elsewhere", known("running"), "running", NOTHING),
    ("Airflow is down", known(fails=OSError("no API")), "running", MAY_RUN),
    ("Airflow does not respond", known(hangs=True, limit=0.2), "running", SLOW),
    ("callback ended this wait", known("scheduled", xcoms={"wait": CALLBACK}), "running", NOTHING),
    ("callback ended an earlier wait", known(xcoms={"wait": EARLIER_CALLBACK}), "canceled", STOPPED),
    ("cancel_on_kill=False", keep_the_run, "running", "using credits because cancel_on_kill=False."),
    ("already stopped", stop_the_run, "canceled", f"{ENDED} as canceled."),
    ("stop is refused, ended", failing("stop-task", RequestFault.refused(10121)), "running", f"{ENDED}."),
    ("stop is refused, unknown", failing("stop-task", RequestFault.refused(10112)), "running", NOT_KNOWN),
    ("resumed by another triggerer or an answer", known(["scheduled", "queued", "running"]), "running", NOTHING),
    ("cleared, and the next try begins", known(["queued", "queued", "failed"]), "canceled", STOPPED),
    ("status cannot be read", failing("get-task-status", DOWN), "canceled", STOPPED),
    ("stop fails", failing("stop-task", DOWN), "running", f"{NO_STOP}in the BrowserAct dashboard."),
    ("stop fails with a link", failing("stop-task", DOWN, LINK), "running", f"{NO_STOP}at {LINK}."),
    ("client cannot be opened", unopened, "running", NO_STOP_AT_ALL),
    ("stop hangs", failing("stop-task", RequestFault.hung()), "running", "may not have been stopped ("),
)
def test_kill_stops_a_run_nothing_waits_for_and_logs_it(emulator, waiting, scene, logs, before, status, logged):
    before(scene)
    asyncio.run(waiting.on_kill())
    assert emulator.tasks[0].status == status
    log = logs()
    assert all(part in log for part in logged.split(" ... "))
    assert bool(log) == bool(logged)


@cases(
    ("waits for its retry", "up_for_retry", None, 2, 60.0, "running"),
    ("retried", "deferred", "the same run", 2, 60.0, "running"),
    ("cleared", "deferred", "another run", None, 60.0, "canceled"),
    ("cleared, waits for a slot", "deferred", None, 3, 60.0, "canceled"),
    ("cleared and marked", "failed", None, None, 60.0, "canceled"),
    ("does not begin", "queued", None, None, 1.0, "canceled"),
    ("retried, does not start", "running", None, 2, 1.0, "canceled"),
)
def test_kill_of_an_earlier_try_on_airflow_3_4_stops_the_run_unless_the_next_try_waits_for_it(
    emulator, waiting, airflow, monkeypatch, logs, state, pushed, max_tries, limit, status
):
    monkeypatch.setattr(timings, "NEXT_TRY_LIMIT", limit)
    monkeypatch.setattr(timings, "ANSWER_POLL_INTERVAL", 0.1)
    waiting.wait = replace(waiting.wait, max_tries=2)
    airflow.state, airflow.of_another_try = state, True
    airflow.xcoms["task_id"] = waiting.wait.browseract_task_id if pushed == "the same run" else pushed
    airflow.xcoms["max_tries"] = max_tries

    async def kill() -> None:
        trigger_of.set("an earlier try")
        await waiting.on_kill()

    asyncio.run(kill())
    assert emulator.tasks[0].status == status
    assert logs().count("unless the next try reattaches to it within 1 seconds") == (limit == 1.0)


@cases(
    {"reattaches": ("the same run", "running"), "starts a run": ("another", "canceled"), "nothing": (None, "canceled")},
)
async def test_kill_while_the_next_try_begins_waits_until_it_is_known_which_run_that_try_has(
    emulator, waiting, airflow, monkeypatch, pushed, status
):
    monkeypatch.setattr(timings, "NEXT_TRY_LIMIT", 2.0)
    monkeypatch.setattr(timings, "ANSWER_POLL_INTERVAL", 0.1)
    # Its worker has deleted the XComs.
    airflow.state, airflow.xcoms = "running", {}
    killed = asyncio.ensure_future(waiting.on_kill())
    await asyncio.sleep(1.0)
    assert emulator.tasks[0].status == "running"
    airflow.xcoms["task_id"] = waiting.wait.browseract_task_id if pushed == "the same run" else pushed
    await killed
    assert emulator.tasks[0].status == status


@pytest.mark.parametrize("bounded", [False, True], ids=["no time limit", "Airflow's time limit"])
def test_kill_stops_the_run_despite_repeated_cancels_by_airflow(emulator, waiting, bounded):
    async def kill() -> None:
        on_kill = waiting.on_kill()
        under_way = asyncio.ensure_future(asyncio.wait_for(on_kill, 30) if bounded else on_kill)
        await asyncio.sleep(0.05)
        while not under_way.done() or emulator.tasks[0].status != "canceled":
            under_way.cancel("__airflow_user_action__")
            await asyncio.sleep(0.05)

    asyncio.run(kill())
    assert emulator.tasks[0].status == "canceled"


async def test_kill_during_the_end_of_the_triggerer_is_logged_as_an_error_with_the_run(waiting, airflow, logs):
    airflow.hangs = True
    killed = asyncio.ensure_future(waiting.on_kill())
    await asyncio.sleep(0.05)
    # As asyncio.run does at its end.
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await killed
    line = "The run has not been stopped yet, and the triggerer has ended."
    assert line in (log := logs())
    assert f"BrowserAct task {waiting.wait.browseract_task_id}." in log


@pytest.fixture
def asking(emulator, people):
    people._ask("019ab3d5-0000-7000-8000-000000000001")
    [action] = people.questions
    emulator.set_workflow(HUMAN.id, duration=0.2)
    return trigger(start_paused(emulator), default_answer=Answer.STOP, required_action=action)


async def test_slow_read_of_required_action_is_completed_and_not_cancelled(emulator, people, asking):
    # Before Airflow 3.3, the triggerer mistakes a late response for the response to its next request.
    people.delay = 0.5
    BrowserActHook().stop_task(emulator.tasks[0].id)
    assert len([event async for event in asking.run()]) == 1
    await until(lambda: people.looks.count("ended") == people.looks.count("begun"))
    assert people.looks[:2] == ["begun", "ended"]


async def test_cancelled_trigger_with_required_action_leaves_no_stray_asyncio_task(asking):
    pending = asyncio.ensure_future(anext(asking.run()))
    await asyncio.sleep(0.2)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    # A running request to Airflow completes, as it should.
    assert asyncio.all_tasks() - shielding._UNDER_WAY == {asyncio.current_task()}
