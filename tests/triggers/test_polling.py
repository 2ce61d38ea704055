from __future__ import annotations

import asyncio

import pytest

from airflow_provider_browseract.api import async_client as client
from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.emulator import ORDERS, RequestFault
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.wait import MIN_FAILED_POLLS
from airflow_provider_browseract.triggers import run as triggers
from airflow_provider_browseract.triggers.client import PatientClient
from airflow_provider_browseract.triggers.run import TaskTrigger
from airflow_provider_browseract.triggers.slot import SlotTrigger
from tests.cases import cases
from tests.triggers.waits import start, start_bot, trigger
from tests.workers import calls_of, raises, stored_trigger


def test_task_trigger_polls_after_the_grace_until_the_run_has_ended(world, emulator, wait):
    task_id, began = start(), world.clock.now + 40
    event = wait(trigger(task_id, began_at=began))
    assert (event.wait.browseract_task_id, event.wait.last_seen) == (task_id, "finished")
    polls = [request for request in emulator.requests if request.endpoint == "get-task"]
    assert polls[0].at.timestamp() >= began + timings.CORE_RACE_GRACE


@cases(
    ("duration", "within", "status"),
    {
        "ended before a past deadline": (0.0, -60, "finished"),
        "past deadline": (600.0, -60, "running"),
        "later deadline": (600.0, 30, "running"),
    },
)
def test_trigger_reports_deadline_of_a_run_that_then_keeps_running(world, emulator, wait, duration, within, status):
    emulator.set_workflow(ORDERS.id, duration=duration)
    deadline = world.clock.now + within
    assert wait(trigger(start(), deadline=deadline)).wait.last_seen == status
    assert world.clock.now >= deadline
    assert emulator.tasks[0].status == status


def test_client_that_cannot_be_opened_is_not_reported_as_an_unreadable_connection(emulator, monkeypatch):
    unreadable = raises(FileNotFoundError("/etc/ssl/private.pem"))
    monkeypatch.setattr(client.AsyncBrowserActClient, "_open", unreadable)
    with pytest.raises(FileNotFoundError, match=r"private\.pem"):
        asyncio.run(PatientClient("browseract_default").send(v2.list_regions()))


@cases(
    ("fields", "free"),
    {
        "ended": ({}, True),
        "stopped at the cap": ({"max_credits": 100, "spent_before": 101}, True),
        "still running": ({"deadline": 0.0}, False),
    },
)
def test_slot_of_a_run_that_is_over_is_counted_as_free_at_once(emulator, wait, monkeypatch, fields, free):
    counted = []
    monkeypatch.setattr(triggers, "run_has_ended", lambda *names: counted.append(names))
    wait(trigger(start(), key_digest="k", **fields))
    assert counted == ([("browseract_default", "k")] if free else [])


@cases(
    ("conn_id", "reason"),
    {"service stays down": ("browseract_default", "HTTP 503"), "connection is missing": ("nowhere", "nowhere")},
)
def test_task_trigger_gives_up_when_it_cannot_poll_for_long(world, emulator, wait, logs, conn_id, reason):
    emulator.set_workflow(ORDERS.id, duration=7200.0)
    emulator.fault("get-task", RequestFault.status(503), times=None)
    began = world.clock.now
    event = wait(TaskTrigger(browseract_conn_id=conn_id, wait=trigger(start()).wait))
    assert event.wait.failed_polls >= MIN_FAILED_POLLS
    assert world.clock.now - began >= timings.POLL_PATIENCE
    assert reason in logs()


@pytest.mark.parametrize(("within", "seconds"), [(3600, 600), (30, 30)], ids=["patience", "until the deadline"])
def test_unexpected_error_leaves_the_wait_to_a_worker(world, emulator, wait, monkeypatch, logs, within, seconds):
    monkeypatch.setattr(triggers, "run_steps_async", raises(ZeroDivisionError("a bug")))
    began = world.clock.now
    event = wait(trigger(start(), deadline=began + within))
    assert event.wait.last_seen is None
    assert "failed with an unexpected error. A worker continues in" in logs()
    assert world.clock.now == pytest.approx(began + seconds, abs=12)


def test_api_key_rotated_during_the_wait_fails_no_poll(world, emulator, caplog):
    async def rotated():
        polls = asyncio.ensure_future(anext(aiter(trigger(start()).run())))
        await asyncio.sleep(20)
        emulator.api_key = "app-new"
        world.connect(password="app-new")
        return await polls

    assert world.run(rotated()).payload["wait"]["last_seen"] == "finished"
    assert 401 in [request.status for request in emulator.requests]
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_task_trigger_reports_run_with_large_output_as_ended(emulator, wait, monkeypatch):
    monkeypatch.setattr(client, "MAX_RESPONSE", 10_000)
    emulator.next_run(ORDERS.id, output="x" * 20_000)
    assert wait(trigger(start())).wait.last_seen == "finished"
    assert calls_of(emulator, "get-task-status") == 1


@pytest.mark.parametrize(
    ("largest", "endpoints"),
    [(client.MAX_RESPONSE, {"query-run"}), (100, {"query-run", "query-run-status"})],
    ids=["whole", "too large for the triggerer"],
)
def test_run_of_a_bot_is_polled_with_version_3_of_the_api(emulator, wait, monkeypatch, largest, endpoints):
    monkeypatch.setattr(client, "MAX_RESPONSE", largest)
    assert wait(stored_trigger(trigger(start_bot(), api_version=ApiVersion.V3))).wait.last_seen == "finished"
    assert {request.endpoint for request in emulator.requests[1:]} == endpoints


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
