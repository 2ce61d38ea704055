"""How a trigger polls a run, and when it gives up."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.emulator import ORDERS, RequestFault
from airflow_provider_browseract.runs.waiting import End, Wait
from airflow_provider_browseract.triggers import polling
from airflow_provider_browseract.triggers.run import TaskTrigger
from tests.triggers.waits import start, start_bot, trigger, wait

log: Any = logging.getLogger(__name__)


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


async def test_api_key_rotated_during_the_wait_fails_no_poll(emulator, connect, caplog):
    emulator.set_workflow(ORDERS.id, duration=3.0)
    polls = asyncio.create_task(polling.poll_until_end(trigger(start()).wait, "browseract_default", log))
    await asyncio.to_thread(emulator.wait_until, lambda: emulator.requests[-1].endpoint == "get-task")
    connect({"retry_budget": 0.2}, password="app-new")
    emulator.api_key = "app-new"
    event, _ = await polls
    assert event.end is End.ENDED
    assert 401 in [request.status for request in emulator.requests]
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_task_trigger_reports_run_with_large_output_as_ended_without_keeping_it(emulator, monkeypatch):
    monkeypatch.setattr(polling, "LARGEST_RESPONSE", 10_000)
    emulator.next_run(ORDERS.id, duration=0.3, output="x" * 20_000)
    event, seen = asyncio.run(polling.poll_until_end(trigger(start()).wait, "browseract_default", log))
    assert event.end is End.ENDED
    assert seen is not None
    assert (seen.output, seen.unread) == (None, "The response to get-task is larger than 10000 bytes (max_response)")


@pytest.mark.parametrize(
    ("largest", "endpoints"),
    [(polling.LARGEST_RESPONSE, {"query-run"}), (100, {"query-run", "query-run-status"})],
    ids=["whole", "too large for the triggerer"],
)
def test_run_of_a_bot_is_polled_with_version_3_of_the_api(emulator, monkeypatch, largest, endpoints):
    monkeypatch.setattr(polling, "LARGEST_RESPONSE", largest)
    started = trigger(start_bot(), api_version=ApiVersion.V3)
    _, arguments = started.serialize()
    assert wait(TaskTrigger(**json.loads(json.dumps(arguments)))).end is End.ENDED
    assert {request.endpoint for request in emulator.requests[1:]} == endpoints


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
