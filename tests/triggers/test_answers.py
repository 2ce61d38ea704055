"""The Required Action of a paused run, from its trigger on."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from airflow_provider_browseract.emulator import RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow import shielding
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.waiting import End, WokenBy
from airflow_provider_browseract.triggers import answers, polling
from airflow_provider_browseract.triggers import run as triggers
from tests.cases import cases
from tests.triggers.waits import ASKS, start_paused, start_short, trigger

TI_ID = "019ab3d5-0000-7000-8000-000000000001"
AWAY = "RuntimeError: the API server is away"


@pytest.fixture
def asking(emulator, people):
    """Return a function that makes a trigger whose run has paused, with an open Required Action."""
    people._ask(TI_ID, options=["Resume", "Stop"])
    task_id = start_paused(emulator)
    now = time.time()

    def make(default="stop", max_credits=None, **fields):
        for name in {"answer_by", "deadline", "first_poll_at"} & fields.keys():
            fields[name] += now
        policy = replace(ASKS, answer_default=Answer(default), max_credits=max_credits)
        return trigger(task_id, policy=policy, pauses_from=now, pause_known=True, required_action=TI_ID, **fields)

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
    ("before", "fields", "end", "answered", "chosen"),
    {
        "resume": (answer("Resume"), {}, End.ANSWERED, ("resume", "ada"), "Resume"),
        "stop": (answer("Stop"), {}, End.ANSWERED, ("stop", "ada"), "Stop"),
        "unknown option": (answer("Perhaps"), {}, End.GIVEN_UP, None, "Perhaps"),
        "default": (nothing, {"answer_by": 300, **RESUMES}, End.ANSWERED, ("resume", None), "Resume"),
        "default stop": (nothing, {"answer_by": 300}, End.ANSWERED, ("stop", None), "Stop"),
        "deadline": (nothing, {"deadline": 300}, End.DEADLINE, None, "Stop"),
        "run cannot be polled, default": (down, {"answer_by": 300}, End.ANSWERED, ("stop", None), "Stop"),
        "run cannot be polled, deadline": (down, {"deadline": 300}, End.DEADLINE, None, "Stop"),
        "run is stopped": (stop, {}, End.ENDED, None, "Stop"),
        "run is resumed in BrowserAct": (resume, {}, End.NO_LONGER_PAUSED, None, "Resume"),
        "closed by another trigger": (closed, {}, End.NO_LONGER_PAUSED, None, "Resume"),
        "closed too early": (closed, {"answer_by": 60, **RESUMES}, End.NO_LONGER_PAUSED, None, "Resume"),
        "closed when its time was over": (closed, OVER | RESUMES, End.ANSWERED, ("resume", None), "Resume"),
        "closed with another answer than the default": (closed, OVER, End.NO_LONGER_PAUSED, None, "Resume"),
    },
)
def test_wait_ends_with_the_answer_or_closes_the_required_action(
    emulator, people, wait, asking, before, fields, end, answered, chosen
):
    made = asking(**fields)
    before(people, emulator)
    event = wait(made)
    assert event.end is end
    assert (event.answer and (event.answer, event.answered_by)) == answered
    assert (event.woken_by is WokenBy.PERSON) is (end is End.ANSWERED)
    assert people.question["chosen"] == [chosen]
    if end is End.GIVEN_UP:
        assert "the answer is ['Perhaps']" in (event.reason or "")


def test_required_action_answered_early_ends_the_wait_only_at_first_poll_time(world, people, wait, asking):
    people.answer("Resume")
    made = asking(first_poll_at=40)
    wait(made)
    assert world.clock.now >= made.wait.first_poll_at


def test_time_for_an_answer_ends_although_the_next_read_would_be_later(wait, asking, monkeypatch):
    monkeypatch.setattr(timings, "ANSWER_POLL_INTERVAL", 6000.0)
    assert wait(asking(answer_by=30)).end is End.ANSWERED


class TestTrouble:
    """The wait goes on, and the run counts more than its Required Action."""

    def test_task_trigger_keeps_waiting_and_logs_when_required_action_is_unreadable(self, people, wait, asking, logs):
        people.away = RuntimeError("the API server is away")
        assert wait(asking(answer_by=0, deadline=30)).end is End.DEADLINE
        assert f"Could not read the answer to the Required Action; trying again: {AWAY}" in logs()

    def test_run_end_is_reported_although_required_action_cannot_be_closed(self, emulator, people, wait, asking, logs):
        stop(people, emulator)
        people.away = RuntimeError("the API server is away")
        assert wait(asking()).end is End.ENDED
        assert f"could not be closed: {AWAY}" in logs()

    def test_answer_given_after_polling_was_given_up_is_reported(self, world, people, asking, monkeypatch):
        async def away(*_):
            raise OSError("no secrets here")

        async def answered_late():
            waited_for = asyncio.ensure_future(anext(asking().run()))
            await asyncio.sleep(2 * timings.POLL_PATIENCE)
            people.answer("Stop")
            return from_json(WaitEvent, (await waited_for).payload)

        monkeypatch.setattr(BrowserActHook, "aget_connection", away)
        event = world.run(answered_late())
        assert (event.end, event.answer, event.answered_by) == (End.ANSWERED, Answer.STOP, "ada")

    def test_required_action_is_closed_when_polling_was_given_up_and_nobody_answers_by_the_deadline(
        self, people, wait, asking, monkeypatch
    ):
        async def broken(*_):
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(polling, "run_steps_async", broken)
        event = wait(asking(deadline=3000))
        assert (event.end, event.reason) == (End.DEADLINE, "ZeroDivisionError: a bug")
        assert people.question["chosen"] == ["Stop"]


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
        assert (event.end, event.answer, event.answered_by) == (End.ANSWERED, Answer.STOP, "ada")

    @pytest.mark.parametrize("answered", [False, True], ids=["no answer", "answered meanwhile"])
    def test_required_action_of_a_run_over_the_cap_is_closed_and_does_not_resume_it(
        self, emulator, people, wait, asking, answered_meanwhile, answered
    ):
        if answered:
            answered_meanwhile("Resume")
        assert wait(asking(max_credits=100, spent_before=101)).end is End.MAX_CREDITS
        assert emulator.tasks[0].status == "canceled"
        assert people.question["chosen"] == ["Resume" if answered else "Stop"]

    def test_required_action_keeps_the_answer_from_before_the_end(self, emulator, people, wait, asking, monkeypatch):
        people.answer("Resume")
        stop(people, emulator)
        ended, reads = asyncio.Event(), []

        async def poll(*arguments):
            try:
                return await polling.poll_until_end(*arguments)
            finally:
                ended.set()

        async def ask_late(function, *arguments):
            # A poll finds the end of the run while the answer is still being read. An assertion here would be
            # tolerated like any error of Airflow.
            reads.append(ended.is_set())
            await ended.wait()
            return await shielding.ask_airflow(function, *arguments)

        monkeypatch.setattr(triggers, "poll_until_end", poll)
        monkeypatch.setattr(answers, "ask_airflow", ask_late)
        assert wait(asking()).end is End.ENDED
        assert reads == [False, True]
        assert (people.question["chosen"], people.question["by"]) == (["Resume"], {"id": "1", "name": "ada"})


@cases(
    ("try_number", "answered", "chosen"),
    {
        "first try": (1, False, None),
        "retry": (2, False, ["Stop"]),
        "retry, answered in an earlier try": (2, True, ["Resume"]),
    },
)
def test_required_action_left_open_by_a_try_is_closed_on_retry(emulator, people, wait, try_number, answered, chosen):
    people._ask(TI_ID)
    if answered:
        people.answer("Resume")
    made = trigger(start_short(emulator), policy=ASKS)
    made.task_instance = SimpleNamespace(id=TI_ID, try_number=try_number, task_id="run")  # type: ignore[assignment]
    assert wait(made).end is End.ENDED
    assert people.question["chosen"] == chosen
