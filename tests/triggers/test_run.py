from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from contextvars import ContextVar
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger

from airflow_provider_browseract.emulator import HUMAN, ORDERS, RequestFault
from airflow_provider_browseract.hooks import shielding, xcoms
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.waiting import Answer, End, OnPaused, Wait, WaitPolicy, WokenBy
from airflow_provider_browseract.triggers import polling
from airflow_provider_browseract.triggers import run as triggers
from airflow_provider_browseract.triggers.run import TaskTrigger
from airflow_provider_browseract.triggers.slot import SlotTrigger

log: Any = logging.getLogger(__name__)

tells_of_kills = pytest.mark.skipif(
    not hasattr(BaseTrigger, "on_kill"), reason="before Airflow 3.3, triggers are not notified"
)


@pytest.fixture
def emulator(browseract_emulator, connect, monkeypatch):
    connect({"retry_budget": 0.2, "read_timeout": 3})
    browseract_emulator.emulator.set_workflow(ORDERS.id, duration=0.3)
    monkeypatch.setattr(timings, "POLL_PATIENCE", 0.3)
    return browseract_emulator.emulator


WAITS, ASKS = WaitPolicy(), WaitPolicy(on_paused=OnPaused.ASK)


def trigger(task_id: str, *, policy: WaitPolicy = WAITS, cancel_on_kill: bool = True, **fields) -> TaskTrigger:
    now = time.time()
    wait = Wait(task_id, policy=policy, **{"interval": 0.05, "first_poll_at": now, "deadline": now + 30, **fields})
    return TaskTrigger(browseract_conn_id="browseract_default", wait=wait, cancel_on_kill=cancel_on_kill)


def wait(trigger: TaskTrigger) -> WaitEvent:
    async def events():
        return [event.payload async for event in trigger.run()]

    [payload] = asyncio.run(events())
    assert json.loads(json.dumps(payload)) == payload
    return from_json(WaitEvent, payload)


def start() -> str:
    return BrowserActHook().run_task(ORDERS.id).id


def start_paused(emulator) -> str:
    """Start a run that waits for a person when this returns."""
    emulator.set_workflow(HUMAN.id, duration=0.2, pause_at=0.1, pause_limit=600.0)
    task_id = BrowserActHook().run_task(HUMAN.id).id
    emulator.wait_until(lambda: emulator.tasks[-1].status == "paused")
    return task_id


def start_short(emulator) -> str:
    """Start a run that is over when this returns."""
    emulator.next_run(ORDERS.id, duration=0.0)
    task_id = start()
    emulator.wait_until(lambda: emulator.tasks[-1].finished_at)
    return task_id


def test_task_trigger_fires_one_event_when_run_has_ended(emulator):
    task_id = start()
    event = wait(trigger(task_id))
    assert (event.wait.browseract_task_id, event.end, event.reason) == (task_id, End.ENDED, None)


def test_task_trigger_recreated_from_its_arguments_serializes_identically(emulator):
    original = trigger("7", first_poll_at=5.5, deadline=9.5)
    path, arguments = original.serialize()
    assert path == "airflow_provider_browseract.triggers.run.TaskTrigger"
    assert TaskTrigger(**json.loads(json.dumps(arguments))).serialize() == original.serialize()


def test_task_trigger_does_not_poll_before_its_first_poll_time(emulator):
    task_id = start()
    first = time.time() + 0.4
    wait(trigger(task_id, first_poll_at=first))
    polls = [request for request in emulator.requests if request.endpoint == "get-task"]
    assert polls[0].at.timestamp() >= first


def test_task_trigger_with_past_deadline_still_reports_ended_run(emulator):
    task_id = start()
    emulator.wait_until(lambda: emulator.tasks[0].finished_at)
    assert wait(trigger(task_id, deadline=time.time() - 60)).end is End.ENDED


def test_task_trigger_reports_deadline_and_run_keeps_running(emulator):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    event = wait(trigger(start(), deadline=time.time() + 0.3))
    assert event.end is End.DEADLINE
    assert emulator.tasks[0].status == "running"


def test_task_trigger_gives_up_with_reason_when_service_stays_down(emulator):
    task_id = start()
    emulator.fault("get-task", RequestFault.status(503), times=None)
    event = wait(trigger(task_id))
    assert event.end is End.GIVEN_UP
    assert event.reason is not None
    assert "HTTP 503" in event.reason


def test_api_key_rotated_during_the_wait_costs_one_failed_poll(emulator, connect, caplog):
    emulator.set_workflow(ORDERS.id, duration=1.0)
    wait = trigger(start()).wait

    async def rotate() -> WaitEvent:
        polls = asyncio.create_task(polling.poll_until_end(wait, "browseract_default", log))
        await asyncio.to_thread(emulator.wait_until, lambda: emulator.requests[-1].endpoint == "get-task")
        connect({"retry_budget": 0.2}, password="app-new")
        emulator.rotate_key("app-new")
        return (await polls)[0]

    assert asyncio.run(rotate()).end is End.ENDED
    [failed] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "failed, 1 in a row: BrowserAct refused get-task: Invalid authorization" in failed


def test_task_trigger_reports_run_with_large_output_as_ended_without_keeping_it(emulator, monkeypatch):
    monkeypatch.setattr(polling, "LARGEST_RESPONSE", 10_000)
    emulator.next_run(ORDERS.id, duration=0.3, output="x" * 20_000)
    event, seen = asyncio.run(polling.poll_until_end(trigger(start()).wait, "browseract_default", log))
    assert event.end is End.ENDED
    assert seen is not None
    assert (seen.output, seen.unread) == (None, "The response to get-task is larger than 10000 bytes (max_response)")


def test_task_trigger_gives_up_with_reason_after_an_unexpected_error(emulator, monkeypatch, capfd):
    async def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(polling, "run_steps_async", broken)
    event = wait(trigger(start()))
    assert (event.end, event.reason) == (End.GIVEN_UP, "ZeroDivisionError: a bug")
    assert "failed with an unexpected error. A worker continues in " in "".join(capfd.readouterr())


def test_task_trigger_gives_up_with_reason_when_connection_is_missing(emulator):
    event = wait(TaskTrigger(browseract_conn_id="nowhere", wait=Wait("7", time.time() + 5, interval=1.0)))
    assert event.end is End.GIVEN_UP
    assert event.reason is not None
    assert "nowhere" in event.reason


def test_triggerer_shutdown_does_not_stop_the_run(emulator):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    task_id = start()

    async def die() -> None:
        dying = trigger(task_id)
        events = dying.run()
        pending = asyncio.ensure_future(events.__anext__())
        while not [request for request in emulator.requests if request.endpoint == "get-task"]:
            await asyncio.sleep(0.01)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await dying.cleanup()

    asyncio.run(die())
    assert emulator.tasks[0].status == "running"
    assert not [request for request in emulator.requests if request.endpoint == "stop-task"]


class TestRequiredAction:
    @pytest.fixture
    def asked(self, emulator, people, monkeypatch):
        """A trigger whose run has paused, with an open Required Action."""
        monkeypatch.setattr(timings, "ANSWER_POLL_INTERVAL", 0.05)
        people._ask("019ab3d5-0000-7000-8000-000000000001", options=["Resume", "Stop"])
        [question] = people.questions
        task_id = start_paused(emulator)
        now = time.time()
        return lambda default="stop", **fields: trigger(
            task_id,
            policy=replace(ASKS, answer_default=Answer(default)),
            pauses_from=now,
            pause_known=True,
            required_action=question,
            **fields,
        )

    @pytest.mark.parametrize("option", ["Resume", "Stop"])
    def test_answered_required_action_ends_the_wait_with_the_answer(self, people, asked, option):
        people.answer(option)
        event = wait(asked())
        assert (event.end, event.woken_by, event.answered_by) == (End.ANSWERED, WokenBy.PERSON, "ada")
        assert event.answer is not None
        assert event.answer.option == option

    def test_required_action_answered_early_ends_the_wait_only_at_first_poll_time(self, people, asked):
        people.answer("Resume")
        first = time.time() + 0.4
        wait(asked(first_poll_at=first))
        assert time.time() >= first

    @pytest.mark.parametrize("default", ["resume", "stop"])
    def test_unanswered_required_action_gets_default_answer_and_is_closed(self, people, asked, default):
        by = time.time() + 0.3
        event = wait(asked(answer_by=by, default=default))
        assert time.time() >= by
        assert (event.end, event.answer, event.answered_by) == (End.ANSWERED, default, None)
        assert people.question["chosen"] == [default.capitalize()]

    def test_required_action_is_closed_when_run_is_resumed_in_browseract(self, emulator, people, asked):
        BrowserActHook().resume_task(emulator.tasks[0].id)
        emulator.set_workflow(HUMAN.id, duration=60.0)
        assert wait(asked()).end in (End.NO_LONGER_PAUSED, End.ENDED)
        assert (people.question["chosen"], people.question["by"]) == (["Resume"], None)

    def test_task_trigger_keeps_waiting_and_logs_when_required_action_is_unreadable(self, people, asked, capfd):
        people.away = RuntimeError("the API server is away")
        event = wait(asked(answer_by=time.time(), deadline=time.time() + 0.3))
        assert event.end is End.DEADLINE
        log = "".join(capfd.readouterr())
        assert "Could not read the answer to the Required Action; trying again: the API server is away" in log

    def test_run_end_is_reported_although_required_action_cannot_be_closed(self, emulator, people, asked, capfd):
        BrowserActHook().stop_task(emulator.tasks[0].id)
        people.away = RuntimeError("the API server is away")
        assert wait(asked()).end is End.ENDED
        assert "could not be closed: the API server is away" in "".join(capfd.readouterr())

    def test_answer_given_while_required_action_is_being_closed_is_reported(self, emulator, people, asked, monkeypatch):
        close = people._update

        def answered_meanwhile(**what):
            people.answer("Stop")
            close(**what)

        monkeypatch.setattr("airflow.sdk.execution_time.hitl.update_hitl_detail_response", answered_meanwhile)
        event = wait(asked(deadline=time.time() + 0.3))
        assert (event.end, event.answer, event.answered_by) == (End.ANSWERED, Answer.STOP, "ada")

    def test_required_action_is_handled_although_the_run_cannot_be_polled(self, people, asked, monkeypatch):
        async def away(*_):
            raise OSError("no secrets here")

        monkeypatch.setattr(BrowserActHook, "aget_connection", away)
        assert wait(asked(answer_by=time.time() + 0.3)).end is End.ANSWERED
        people._ask("019ab3d5-0000-7000-8000-000000000001")
        assert wait(asked(deadline=time.time() + 0.3)).end is End.DEADLINE

    def test_answer_given_after_polling_was_given_up_is_reported(self, people, asked, monkeypatch):
        async def away(*_):
            raise OSError("no secrets here")

        monkeypatch.setattr(BrowserActHook, "aget_connection", away)
        monkeypatch.setattr(timings, "POLL_PATIENCE", 0.0)

        async def story() -> WaitEvent:
            waited_for = asyncio.ensure_future(anext(asked().run()))
            await asyncio.sleep(0.5)
            people.answer("Stop")
            return from_json(WaitEvent, (await waited_for).payload)

        event = asyncio.run(asyncio.wait_for(story(), 60))
        assert (event.end, event.answer, event.answered_by) == (End.ANSWERED, Answer.STOP, "ada")

    def test_required_action_is_closed_when_polling_was_given_up_and_nobody_answers_by_the_deadline(
        self, people, asked, monkeypatch
    ):
        async def broken(*_):
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(polling, "run_steps_async", broken)
        monkeypatch.setattr(timings, "POLL_PATIENCE", 0.0)
        event = wait(asked(deadline=time.time() + 0.3))
        assert (event.end, event.reason) == (End.DEADLINE, "ZeroDivisionError: a bug")
        assert people.question["chosen"] == ["Stop"]

    def test_required_action_answered_with_unknown_option_makes_trigger_give_up(self, people, asked):
        people.answer("Perhaps")
        event = wait(asked())
        assert event.end is End.GIVEN_UP
        assert "the answer is ['Perhaps']" in (event.reason or "")

    def test_required_action_closed_by_another_trigger_is_not_reported_as_answer_of_person(
        self, emulator, people, asked
    ):
        people.answer("Resume", by=None)
        assert wait(asked()).end is End.NO_LONGER_PAUSED
        arguments = {"answer_by": time.time() + 60, "default": "resume"}
        assert wait(asked(**arguments)).end is End.NO_LONGER_PAUSED
        arguments = {"answer_by": time.time() - 60, "default": "resume"}
        event = wait(asked(**arguments))
        assert (event.end, event.answer, event.answered_by) == (End.ANSWERED, Answer.RESUME, None)
        assert wait(asked(answer_by=time.time() - 60, default="stop")).end is End.NO_LONGER_PAUSED

    @pytest.mark.parametrize(("try_number", "closed"), [(1, False), (2, True)], ids=["first try", "retry"])
    def test_required_action_left_open_by_earlier_try_is_closed_on_retry(self, emulator, people, try_number, closed):
        people._ask("019ab3d5-0000-7000-8000-000000000001")
        made = trigger(start_short(emulator), policy=ASKS)
        [question] = people.questions
        made.task_instance = SimpleNamespace(id=question, try_number=try_number, task_id="run")  # type: ignore[assignment]
        assert wait(made).end is End.ENDED
        assert (people.question["chosen"] is not None) == closed

    def test_required_action_is_closed_when_the_run_ends(self, emulator, people, asked):
        BrowserActHook().stop_task(emulator.tasks[0].id)
        assert wait(asked()).end is End.ENDED
        assert people.question["chosen"] == ["Stop"]

    def test_required_action_answered_before_the_run_ended_keeps_its_answer(self, emulator, people, asked, monkeypatch):
        people.answer("Resume")
        BrowserActHook().stop_task(emulator.tasks[0].id)
        made, get, ended = asked(), people._get, threading.Event()

        async def poll(*arguments):
            try:
                return await polling.poll_until_end(*arguments)
            finally:
                ended.set()

        def get_late(**what):
            # A poll finds the end of the run while the answer is still being read.
            assert ended.wait(60)
            return get(**what)

        monkeypatch.setattr(triggers, "poll_until_end", poll)
        monkeypatch.setattr("airflow.sdk.execution_time.hitl.get_hitl_detail_content_detail", get_late)
        assert wait(made).end is End.ENDED
        assert (people.question["chosen"], people.question["by"]) == (["Resume"], {"id": "1", "name": "ada"})

    def test_required_action_answered_in_an_earlier_try_keeps_its_answer(self, emulator, people):
        people._ask("019ab3d5-0000-7000-8000-000000000001")
        people.answer("Resume")
        made = trigger(start_short(emulator), policy=ASKS)
        [question] = people.questions
        made.task_instance = SimpleNamespace(id=question, try_number=2, task_id="run")  # type: ignore[assignment]
        assert wait(made).end is End.ENDED
        assert people.question["chosen"] == ["Resume"]

    def test_required_action_is_closed_at_the_deadline(self, people, asked):
        assert wait(asked(deadline=time.time() + 0.3)).end is End.DEADLINE
        assert people.question["chosen"] == ["Stop"]

    def test_slow_read_of_required_action_is_completed_and_not_cancelled(self, emulator, people, asked):
        # Before Airflow 3.3, the triggerer mistakes a late response for the response to its next request.
        people.delay = 0.5
        BrowserActHook().stop_task(emulator.tasks[0].id)

        async def story() -> None:
            assert len([event async for event in asked().run()]) == 1
            while people.looks.count("ended") < people.looks.count("begun"):
                await asyncio.sleep(0.02)

        asyncio.run(asyncio.wait_for(story(), 20))
        assert people.looks[:2] == ["begun", "ended"]

    def test_cancelled_trigger_with_required_action_leaves_no_stray_asyncio_task(self, asked):
        async def die() -> None:
            pending = asyncio.ensure_future(asked().run().__anext__())
            await asyncio.sleep(0.2)
            pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pending
            # A running request to Airflow completes, as it should.
            assert asyncio.all_tasks() - shielding._UNDER_WAY == {asyncio.current_task()}

        asyncio.run(die())


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


@tells_of_kills
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
        airflow.state, airflow.of_another_try = state, True
        airflow.xcoms["task_id"] = waiting.wait.browseract_task_id if pushed == "the same run" else pushed

        async def kill() -> None:
            trigger_of.set("an earlier try")
            await waiting.on_kill()

        asyncio.run(kill())
        assert emulator.tasks[0].status == status

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
        said = "".join(capfd.readouterr())
        assert f"BrowserAct task {waiting.wait.browseract_task_id} is not stopped: it had already ended." in said

    def test_kill_after_run_ended_sends_no_stop_and_logs_it(self, emulator, waiting, capfd):
        waiting.wait = replace(waiting.wait, browseract_task_id=start_short(emulator))
        asyncio.run(waiting.on_kill())
        assert emulator.tasks[1].status == "finished"
        assert not [request for request in emulator.requests if request.endpoint == "stop-task"]
        said = "".join(capfd.readouterr())
        assert f"{waiting.wait.browseract_task_id} is not stopped: it had already ended as finished." in said

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
        said = "".join(capfd.readouterr())
        assert f"BrowserAct task {waiting.wait.browseract_task_id} could not be stopped (BrowserAct failed" in said
        assert f"until you stop it {f'at {link}' if link else 'in the BrowserAct dashboard'}." in said

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


@tells_of_kills
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
        said = "".join(capfd.readouterr())
        assert f"BrowserAct task {emulator.tasks[0].id} was not stopped and may keep running" in said
        assert "the API server is away" in said


@pytest.mark.parametrize(
    "stored", [{}, {"browseract_task_id": "7"}, "7", None], ids=["empty", "no deadline", "text", "null"]
)
def test_trigger_with_an_unreadable_stored_wait_fails_as_triggerers_expect_it(stored):
    # Of all exceptions in __init__, a triggerer survives TypeError only.
    with pytest.raises(TypeError, match="the stored Wait cannot be read: "):
        TaskTrigger(browseract_conn_id="browseract_default", wait=stored)
    with pytest.raises(TypeError, match="the stored QueueWait cannot be read: "):
        SlotTrigger(browseract_conn_id="browseract_default", wait=stored)
