import asyncio
import time
from collections.abc import Callable
from functools import wraps

from airflow_provider_browseract.api import v3
from airflow_provider_browseract.emulator import HUMAN, ORDERS
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs.wait import Wait
from airflow_provider_browseract.triggers.task import TaskTrigger


def in_world(test):
    """Run an asynchronous test, or each test of a class, in the time of its fixture ``world``."""
    if isinstance(test, type):
        for name, each in [*vars(test).items()]:
            if name.startswith("test_"):
                setattr(test, name, in_world(each))
        return test

    @wraps(test)
    def run(*instance, **fixtures):
        fixtures["world"].run(test(*instance, **fixtures))

    return run


def trigger(task_id: str, *, cancel_on_kill: bool = True, **fields) -> TaskTrigger:
    now = time.time()
    given = {"poll_interval": 5.0, "began_at": now, "deadline": now + 3600, **fields}
    return TaskTrigger(
        browseract_conn_id="browseract_default", wait=Wait(task_id, **given), cancel_on_kill=cancel_on_kill
    )


def start() -> str:
    return BrowserActHook().run_task(ORDERS.id).id


def start_bot() -> str:
    """Start the same with version 3 of the API, in which each workflow of the emulator is a bot."""
    return BrowserActHook().client.send(v3.run(ORDERS.id)).id


def start_paused(emulator) -> str:
    """Start a run that waits for a person when this returns."""
    emulator.set_workflow(HUMAN.id, pause_at=0.1, pause_limit=7200.0)
    task_id = BrowserActHook().run_task(HUMAN.id).id
    emulator.wait_until(lambda: emulator.tasks[-1].status == "paused")
    return task_id


async def until(reached: Callable[[], object]) -> None:
    """Wait until a condition is true. The time limit of a test ends a wait for what never happens."""
    while not reached():
        await asyncio.sleep(0.01)
