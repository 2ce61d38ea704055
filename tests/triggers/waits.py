"""Waits for runs of the emulator, and triggers that wait."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from airflow_provider_browseract.api import v3
from airflow_provider_browseract.emulator import HUMAN, ORDERS
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.waiting import OnPaused, Wait, WaitPolicy
from airflow_provider_browseract.triggers.run import TaskTrigger

LIMIT = 60.0
"""Seconds to wait for a condition at most."""

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


def start_bot() -> str:
    """Start the same with version 3 of the API, in which each workflow of the emulator is a bot."""
    return BrowserActHook().client.send(v3.create_run(ORDERS.id)).id


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


async def until(reached: Callable[[], object]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + LIMIT
    while not reached():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
