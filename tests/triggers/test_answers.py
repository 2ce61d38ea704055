"""The Required Action of a paused run, from its trigger on."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from airflow_provider_browseract.emulator import HUMAN
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow import shielding
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.waiting import Answer, End, WokenBy
from airflow_provider_browseract.triggers import answers, polling
from airflow_provider_browseract.triggers import run as triggers
from tests.triggers.waits import ASKS, start_paused, start_short, trigger, until, wait


@pytest.fixture
def asking(emulator, people, monkeypatch):
    """A trigger whose run has paused, with an open Required Action."""
    monkeypatch.setattr(timings, "ANSWER_POLL_INTERVAL", 0.05)
    people._ask("019ab3d5-0000-7000-8000-000000000001", options=["Resume", "Stop"])
    [question] = people.questions
    task_id = start_paused(emulator)
    now = time.time()
    return lambda default="stop", max_credits=None, **fields: trigger(
        task_id,
        policy=replace(ASKS, answer_default=Answer(default), max_credits=max_credits),
        pauses_from=now,
        pause_known=True,
        required_action=question,
        **fields,
    )


@pytest.mark.parametrize("option", ["Resume", "Stop"])
def test_answered_required_action_ends_the_wait_with_the_answer(people, asking, option):
    people.answer(option)
    event = wait(asking())
    assert (event.end, event.woken_by, event.answered_by) == (End.ANSWERED, WokenBy.PERSON, "ada")
    assert event.answer is not None
    assert event.answer.option == option


def test_required_action_answered_early_ends_the_wait_only_at_first_poll_time(people, asking):
    people.answer("Resume")
    first = time.time() + 0.4
    wait(asking(first_poll_at=first))
    assert time.time() >= first


@pytest.mark.parametrize("default", ["resume", "stop"])
def test_unanswered_required_action_gets_default_answer_and_is_closed(people, asking, default):
    by = time.time() + 0.3
    event = wait(asking(answer_by=by, default=default))
    assert time.time() >= by
    assert (event.end, event.answer, event.answered_by) == (End.ANSWERED, default, None)
    assert people.question["chosen"] == [default.capitalize()]


def test_time_for_an_answer_ends_although_the_next_read_would_be_later(asking, monkeypatch):
    monkeypatch.setattr(timings, "ANSWER_POLL_INTERVAL", 600.0)
    assert wait(asking(answer_by=time.time() + 0.3, default="stop")).end is End.ANSWERED


def test_required_action_is_closed_when_run_is_resumed_in_browseract(emulator, people, asking):
    BrowserActHook().resume_task(emulator.tasks[0].id)
    emulator.set_workflow(HUMAN.id, duration=60.0)
    assert wait(asking()).end in (End.NO_LONGER_PAUSED, End.ENDED)
    assert (people.question["chosen"], people.question["by"]) == (["Resume"], None)


def test_task_trigger_keeps_waiting_and_logs_when_required_action_is_unreadable(people, asking, capfd):
    people.away = RuntimeError("the API server is away")
    event = wait(asking(answer_by=time.time(), deadline=time.time() + 0.3))
    assert event.end is End.DEADLINE
    log = "".join(capfd.readouterr())
    assert "Could not read the answer to the Required Action; trying again: RuntimeError: the API server is away" in log


def test_run_end_is_reported_although_required_action_cannot_be_closed(emulator, people, asking, capfd):
    BrowserActHook().stop_task(emulator.tasks[0].id)
    people.away = RuntimeError("the API server is away")
    assert wait(asking()).end is End.ENDED
    assert "could not be closed: RuntimeError: the API server is away" in "".join(capfd.readouterr())


def test_answer_given_while_required_action_is_being_closed_is_reported(emulator, people, asking, monkeypatch):
    close = people._update

    def answered_meanwhile(**what):
        people.answer("Stop")
        close(**what)

    monkeypatch.setattr("airflow.sdk.execution_time.hitl.update_hitl_detail_response", answered_meanwhile)
    event = wait(asking(deadline=time.time() + 0.3))
    assert (event.end, event.answer, event.answered_by) == (End.ANSWERED, Answer.STOP, "ada")


@pytest.mark.parametrize("answered", [False, True], ids=["no answer", "answered meanwhile"])
def test_required_action_of_a_run_over_the_cap_is_closed_and_does_not_resume_it(
    emulator, people, asking, monkeypatch, answered
):
    close = people._update

    def maybe_answered_meanwhile(**what):
        if answered:
            people.answer("Resume")
        close(**what)

    monkeypatch.setattr("airflow.sdk.execution_time.hitl.update_hitl_detail_response", maybe_answered_meanwhile)
    assert wait(asking(max_credits=100, spent_before=101)).end is End.MAX_CREDITS
    assert emulator.tasks[0].status == "canceled"
    assert people.question["chosen"] == ["Resume" if answered else "Stop"]


def test_required_action_is_handled_although_the_run_cannot_be_polled(people, asking, monkeypatch):
    async def away(*_):
        raise OSError("no secrets here")

    monkeypatch.setattr(BrowserActHook, "aget_connection", away)
    assert wait(asking(answer_by=time.time() + 0.3)).end is End.ANSWERED
    people._ask("019ab3d5-0000-7000-8000-000000000001")
    assert wait(asking(deadline=time.time() + 0.3)).end is End.DEADLINE


async def test_answer_given_after_polling_was_given_up_is_reported(people, asking, monkeypatch):
    async def away(*_):
        raise OSError("no secrets here")

    monkeypatch.setattr(BrowserActHook, "aget_connection", away)
    monkeypatch.setattr(timings, "POLL_PATIENCE", 0.0)

    waited_for = asyncio.ensure_future(anext(asking().run()))
    await asyncio.sleep(0.5)
    people.answer("Stop")
    event = from_json(WaitEvent, (await waited_for).payload)
    assert (event.end, event.answer, event.answered_by) == (End.ANSWERED, Answer.STOP, "ada")


def test_required_action_is_closed_when_polling_was_given_up_and_nobody_answers_by_the_deadline(
    people, asking, monkeypatch
):
    async def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(polling, "run_steps_async", broken)
    monkeypatch.setattr(timings, "POLL_PATIENCE", 0.0)
    event = wait(asking(deadline=time.time() + 0.3))
    assert (event.end, event.reason) == (End.DEADLINE, "ZeroDivisionError: a bug")
    assert people.question["chosen"] == ["Stop"]


def test_required_action_answered_with_unknown_option_makes_trigger_give_up(people, asking):
    people.answer("Perhaps")
    event = wait(asking())
    assert event.end is End.GIVEN_UP
    assert "the answer is ['Perhaps']" in (event.reason or "")


def test_required_action_closed_by_another_trigger_is_not_reported_as_answer_of_person(emulator, people, asking):
    people.answer("Resume", by=None)
    assert wait(asking()).end is End.NO_LONGER_PAUSED
    arguments = {"answer_by": time.time() + 60, "default": "resume"}
    assert wait(asking(**arguments)).end is End.NO_LONGER_PAUSED
    arguments = {"answer_by": time.time() - 60, "default": "resume"}
    event = wait(asking(**arguments))
    assert (event.end, event.answer, event.answered_by) == (End.ANSWERED, Answer.RESUME, None)
    assert wait(asking(answer_by=time.time() - 60, default="stop")).end is End.NO_LONGER_PAUSED


@pytest.mark.parametrize(("try_number", "closed"), [(1, False), (2, True)], ids=["first try", "retry"])
def test_required_action_left_open_by_earlier_try_is_closed_on_retry(emulator, people, try_number, closed):
    people._ask("019ab3d5-0000-7000-8000-000000000001")
    made = trigger(start_short(emulator), policy=ASKS)
    [question] = people.questions
    made.task_instance = SimpleNamespace(id=question, try_number=try_number, task_id="run")  # type: ignore[assignment]
    assert wait(made).end is End.ENDED
    assert (people.question["chosen"] is not None) == closed


def test_required_action_is_closed_when_the_run_ends(emulator, people, asking):
    BrowserActHook().stop_task(emulator.tasks[0].id)
    assert wait(asking()).end is End.ENDED
    assert people.question["chosen"] == ["Stop"]


def test_required_action_answered_before_the_run_ended_keeps_its_answer(emulator, people, asking, monkeypatch):
    people.answer("Resume")
    BrowserActHook().stop_task(emulator.tasks[0].id)
    ended, reads = asyncio.Event(), []

    async def poll(*arguments):
        try:
            return await polling.poll_until_end(*arguments)
        finally:
            ended.set()

    async def ask_late(function, *arguments):
        # A poll finds the end of the run while the answer is still being read. An assertion here would be tolerated
        # like any error of Airflow.
        reads.append(ended.is_set())
        await ended.wait()
        return await shielding.ask_airflow(function, *arguments)

    monkeypatch.setattr(triggers, "poll_until_end", poll)
    monkeypatch.setattr(answers, "ask_airflow", ask_late)
    assert wait(asking()).end is End.ENDED
    assert reads == [False, True]
    assert (people.question["chosen"], people.question["by"]) == (["Resume"], {"id": "1", "name": "ada"})


def test_required_action_answered_in_an_earlier_try_keeps_its_answer(emulator, people):
    people._ask("019ab3d5-0000-7000-8000-000000000001")
    people.answer("Resume")
    made = trigger(start_short(emulator), policy=ASKS)
    [question] = people.questions
    made.task_instance = SimpleNamespace(id=question, try_number=2, task_id="run")  # type: ignore[assignment]
    assert wait(made).end is End.ENDED
    assert people.question["chosen"] == ["Resume"]


def test_required_action_is_closed_at_the_deadline(people, asking):
    assert wait(asking(deadline=time.time() + 0.3)).end is End.DEADLINE
    assert people.question["chosen"] == ["Stop"]


async def test_slow_read_of_required_action_is_completed_and_not_cancelled(emulator, people, asking):
    # Before Airflow 3.3, the triggerer mistakes a late response for the response to its next request.
    people.delay = 0.5
    BrowserActHook().stop_task(emulator.tasks[0].id)
    assert len([event async for event in asking().run()]) == 1
    await until(lambda: people.looks.count("ended") == people.looks.count("begun"))
    assert people.looks[:2] == ["begun", "ended"]


async def test_cancelled_trigger_with_required_action_leaves_no_stray_asyncio_task(asking):
    pending = asyncio.ensure_future(anext(asking().run()))
    await asyncio.sleep(0.2)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    # A running request to Airflow completes, as it should.
    assert asyncio.all_tasks() - shielding._UNDER_WAY == {asyncio.current_task()}
