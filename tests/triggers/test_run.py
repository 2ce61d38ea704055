from __future__ import annotations

import asyncio
import json

import pytest

from airflow_provider_browseract.emulator import ORDERS
from airflow_provider_browseract.runs.waiting import End, WaitPolicy
from airflow_provider_browseract.triggers import run as triggers
from airflow_provider_browseract.triggers.run import TaskTrigger
from airflow_provider_browseract.triggers.slot import SlotTrigger
from tests.triggers.waits import start, trigger, until, wait
from tests.workers import calls_of


def test_task_trigger_fires_one_event_when_run_has_ended(emulator):
    task_id = start()
    event = wait(trigger(task_id))
    assert (event.wait.browseract_task_id, event.end, event.reason) == (task_id, End.ENDED, None)


@pytest.mark.parametrize(
    ("fields", "end", "free"),
    [
        ({}, End.ENDED, True),
        ({"policy": WaitPolicy(max_credits=100), "spent_before": 101}, End.MAX_CREDITS, True),
        ({"deadline": 0.0}, End.DEADLINE, False),
    ],
    ids=["ended", "stopped at the cap", "still running"],
)
def test_slot_of_a_run_that_is_over_is_counted_as_free_at_once(emulator, monkeypatch, fields, end, free):
    counted = []
    monkeypatch.setattr(triggers, "run_has_ended", lambda *names: counted.append(names))
    emulator.set_workflow(ORDERS.id, duration=0.3 if end is End.ENDED else 60.0)
    assert wait(trigger(start(), key_digest="k", **fields)).end is end
    assert counted == ([("browseract_default", "k")] if free else [])


def test_task_trigger_recreated_from_its_arguments_serializes_identically(emulator):
    original = trigger("7", first_poll_at=5.5, deadline=9.5)
    path, arguments = original.serialize()
    assert path == "airflow_provider_browseract.triggers.run.TaskTrigger"
    assert TaskTrigger(**json.loads(json.dumps(arguments))).serialize() == original.serialize()


async def test_triggerer_shutdown_does_not_stop_the_run(emulator):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    dying = trigger(start())
    pending = asyncio.ensure_future(anext(aiter(dying.run())))
    await until(lambda: calls_of(emulator, "get-task"))
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    await dying.cleanup()
    assert emulator.tasks[0].status == "running"
    assert calls_of(emulator, "stop-task") == 0


@pytest.mark.parametrize(
    "stored", [{}, {"browseract_task_id": "7"}, "7", None], ids=["empty", "no deadline", "text", "null"]
)
def test_trigger_with_an_unreadable_stored_wait_fails_as_triggerers_expect_it(stored):
    # Of all exceptions in __init__, a triggerer survives TypeError only.
    with pytest.raises(TypeError, match="the stored Wait cannot be read: "):
        TaskTrigger(browseract_conn_id="browseract_default", wait=stored)
    with pytest.raises(TypeError, match="the stored QueueWait cannot be read: "):
        SlotTrigger(browseract_conn_id="browseract_default", wait=stored)
