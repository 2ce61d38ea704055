import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_browseract.api import async_client as client
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.emulator import ORDERS, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.wait import FOREVER, WaitEvent, WokenBy
from airflow_provider_browseract.triggers import task as triggers
from airflow_provider_browseract.triggers.slot import SlotTrigger
from airflow_provider_browseract.triggers.task import TaskTrigger
from tests.helpers.cases import cases, raising
from tests.helpers.workers import calls_of, stored_trigger
from tests.triggers.waits import start, start_bot, start_paused, trigger


@cases(("client cannot be opened", "browseract_default", "private.pem"), ("no connection", "nowhere", "nowhere"))
def test_wait_that_cannot_poll_is_given_up_as_after_failed_polls(
    world, emulator, wait, monkeypatch, logs, conn_id, words
):
    waiting, began = trigger(start()).wait, world.clock.now
    monkeypatch.setattr(client.AsyncBrowserActClient, "_open", raising(FileNotFoundError("/etc/ssl/private.pem")))
    event = wait(TaskTrigger(browseract_conn_id=conn_id, wait=waiting))
    assert event.wait.last_seen is None
    assert 0 <= world.clock.now - began - timings.POLL_PATIENCE < 60
    assert words in logs()


@pytest.mark.parametrize(("within", "seconds"), [(3600, 600), (30, 30)], ids=["patience", "until the deadline"])
def test_unexpected_error_leaves_the_wait_to_a_worker(world, emulator, wait, monkeypatch, logs, within, seconds):
    monkeypatch.setattr(triggers, "send_all_async", raising(ZeroDivisionError("a bug")))
    began = world.clock.now
    event = wait(trigger(start(), deadline=began + within))
    assert event.wait.last_seen is None
    assert "failed with an unexpected error. A worker continues in" in logs()
    assert world.clock.now == pytest.approx(began + seconds, abs=12)


@cases(
    ("workflow, too large for the triggerer", start, "v2", 20_000, ["get-task", "get-task-status"]),
    ("bot", start_bot, "v3", 5_000, ["query-run"]),
    ("bot, too large for the triggerer", start_bot, "v3", 20_000, ["query-run", "query-run-status"]),
)
def test_run_is_polled_in_its_version_of_the_api(emulator, wait, monkeypatch, begin, version, length, polls):
    monkeypatch.setattr(client, "MAX_RESPONSE", 10_000)
    emulator.next_run(ORDERS.id, output="x" * length)
    assert wait(stored_trigger(trigger(begin(), api_version=ApiVersion(version)))).wait.last_seen == "finished"
    first, *others = [request.endpoint for request in emulator.requests[1:]]
    # Only the run that has ended is too large.
    assert [first, *(name for name in others if name != first)] == polls


def test_triggerer_shutdown_does_not_stop_the_run(world, emulator):
    async def shut_down():
        dying = trigger(start())
        pending = asyncio.ensure_future(anext(aiter(dying.run())))
        await asyncio.sleep(20)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await dying.cleanup()

    world.run(shut_down())
    assert emulator.tasks[0].status == "running"
    assert calls_of(emulator, "get-task") > 1
    assert calls_of(emulator, "stop-task") == 0


@cases("stored", {"empty": {}, "no deadline": {"browseract_task_id": "7"}, "text": "7", "null": None})
def test_trigger_with_an_unreadable_stored_wait_fails_as_triggerers_expect_it(stored):
    # Of all exceptions in __init__, a triggerer survives TypeError only.
    with pytest.raises(TypeError, match="the stored Wait cannot be read: "):
        TaskTrigger(browseract_conn_id="browseract_default", wait=stored)
    with pytest.raises(TypeError, match="the stored QueueWait cannot be read: "):
        SlotTrigger(browseract_conn_id="browseract_default", wait=stored)


# The Required Action of a paused run


TI_ID = "019ab3d5-0000-7000-8000-000000000001"
AWAY = "RuntimeError: the API server is away"


@pytest.fixture
def asking(emulator, people):
    people._ask(TI_ID, options=["Resume", "Stop"])
    task_id = start_paused(emulator)
    now = time.time()

    def make(default="stop", max_credits=None, **fields):
        for name in {"answer_by", "deadline", "began_at"} & fields.keys():
            fields[name] += now
        asks: dict[str, Any] = {"watch_pauses": True, "required_action": TI_ID, "ignore_pause_until": FOREVER}
        return trigger(task_id, default_answer=Answer(default), max_credits=max_credits, **{**asks, **fields})

    return make


def answer(option, by="ada"):
    return lambda people, _: people.answer(option, by=by)


def resume(_, emulator):
    BrowserActHook().resume_task(emulator.tasks[0].id)


def stop(_, emulator):
    BrowserActHook().stop_task(emulator.tasks[0].id)


def down(_, emulator):
    emulator.fault("get-task", RequestFault.status(503), times=None)


def nothing(*_):
    pass


closed = answer("Resume", by=None)
OVER, RESUMES = {"answer_by": -60}, {"default": "resume"}


@cases(
    ("resume", answer("Resume"), {}, ("resume", "ada"), True, None, "Resume"),
    ("stop", answer("Stop"), {}, ("stop", "ada"), True, None, "Stop"),
    ("default", nothing, {"answer_by": 300, **RESUMES}, ("resume", None), True, "paused", "Resume"),
    ("default stop", nothing, {"answer_by": 300}, ("stop", None), True, "paused", "Stop"),
    ("deadline", nothing, {"deadline": 300}, None, False, "paused", "Stop"),
    ("run cannot be polled, default", down, {"answer_by": 300}, ("stop", None), True, None, "Stop"),
    ("run cannot be polled, deadline", down, {"deadline": 3000}, None, False, None, "Stop"),
    ("run is stopped", stop, {}, None, False, "canceled", "Stop"),
    ("run is resumed in BrowserAct", resume, {}, None, False, "running", "Resume"),
    ("closed by another trigger", closed, {}, ("resume", None), True, None, "Resume"),
    ("closed with another answer than the default", closed, OVER, ("resume", None), True, None, "Resume"),
)
def test_wait_ends_with_the_answer_or_closes_the_required_action(
    emulator, people, wait, asking, before, fields, answered, asked, last_seen, chosen
):
    made = asking(**fields)
    before(people, emulator)
    event = wait(made)
    assert (event.answer and (event.answer, event.answered_by)) == answered
    assert (event.woken_by is WokenBy.PERSON) is (answered is not None)
    # A Required Action that is closed is not waited for again.
    assert (event.wait.required_action == TI_ID) is asked
    assert event.wait.last_seen == last_seen
    assert people.question["chosen"] == [chosen]


def test_required_action_answered_early_ends_the_wait_only_after_the_grace(world, people, wait, asking):
    people.answer("Resume")
    made = asking(began_at=40)
    wait(made)
    assert world.clock.now >= made.wait.began_at + timings.CORE_RACE_GRACE + timings.CALLBACK_GRACE


def test_time_for_an_answer_ends_although_the_next_read_would_be_later(wait, asking, monkeypatch):
    monkeypatch.setattr(timings, "ANSWER_POLL_INTERVAL", 6000.0)
    assert wait(asking(answer_by=30)).answer is Answer.STOP


def test_run_is_polled_at_its_interval_while_a_person_is_asked(emulator, people, wait, asking):
    assert wait(asking(poll_interval=300.0, deadline=1000)).answer is None
    assert calls_of(emulator, "get-task") <= 6


class TestTrouble:
    def test_task_trigger_keeps_waiting_and_logs_when_required_action_is_unreadable(self, people, wait, asking, logs):
        people.away = RuntimeError("the API server is away")
        assert wait(asking(answer_by=0, deadline=30)).answer is None
        assert f"Could not read the answer to the Required Action; trying again: {AWAY}" in logs()

    def test_run_end_is_reported_although_required_action_cannot_be_closed(self, emulator, people, wait, asking, logs):
        stop(people, emulator)
        people.away = RuntimeError("the API server is away")
        assert wait(asking()).wait.last_seen == "canceled"
        assert f"could not be closed: {AWAY}" in logs()

    def test_answer_is_found_although_the_run_cannot_be_polled_for_long(self, world, people, asking, monkeypatch):
        async def answered_late():
            waited_for = asyncio.ensure_future(anext(asking().run()))
            await asyncio.sleep(2 * timings.POLL_PATIENCE)
            people.answer("Stop")
            return from_json(WaitEvent, (await waited_for).payload)

        monkeypatch.setattr(BrowserActHook, "aget_connection", raising(OSError("no secrets here")))
        event = world.run(answered_late())
        assert (event.answer, event.answered_by) == (Answer.STOP, "ada")

    def test_worker_continues_with_an_open_action_after_an_unexpected_error(self, people, wait, asking, monkeypatch):
        monkeypatch.setattr(triggers, "send_all_async", raising(ZeroDivisionError("a bug")))
        event = wait(asking())
        assert (event.answer, event.wait.required_action, people.question["chosen"]) == (None, TI_ID, None)


class TestAnsweredMeanwhile:
    @pytest.fixture
    def answered_meanwhile(self, people, monkeypatch):
        """Return a function that lets a person answer just before the trigger closes the Required Action."""
        close = people._update

        def answer_first(option):
            def update(**what):
                people.answer(option)
                close(**what)

            monkeypatch.setattr("airflow.sdk.execution_time.hitl.update_hitl_detail_response", update)

        return answer_first

    def test_answer_given_while_required_action_is_being_closed_is_reported(self, wait, asking, answered_meanwhile):
        answered_meanwhile("Stop")
        event = wait(asking(deadline=30))
        assert (event.answer, event.answered_by) == (Answer.STOP, "ada")

    @pytest.mark.parametrize("answered", [False, True], ids=["no answer", "answered meanwhile"])
    def test_cap_closes_the_required_action(self, emulator, people, wait, asking, answered_meanwhile, answered):
        if answered:
            answered_meanwhile("Resume")
        event = wait(asking(max_credits=100, spent_before=101))
        assert (event.wait.over_cap, event.answer) == (True, None)
        assert emulator.tasks[0].status == "canceled"
        assert people.question["chosen"] == ["Resume" if answered else "Stop"]


@cases(
    ("first try", 1, False, None),
    ("retry", 2, False, ["Stop"]),
    ("retry, answered in an earlier try", 2, True, ["Resume"]),
)
def test_required_action_left_open_by_a_try_is_closed_on_retry(emulator, people, wait, try_number, answered, chosen):
    emulator.set_workflow(ORDERS.id, duration=0.0)
    people._ask(TI_ID)
    if answered:
        people.answer("Resume")
    made = trigger(start(), default_answer=Answer.STOP)
    made.task_instance = SimpleNamespace(id=TI_ID, try_number=try_number, task_id="run")  # type: ignore[assignment]
    assert wait(made).wait.last_seen == "finished"
    assert people.question["chosen"] == chosen
