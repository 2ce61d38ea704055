"""Stopping the run of a trigger that is killed, unless somebody still waits for the run."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import NOTHING_TO_STOP, BrowserActError
from airflow_provider_browseract.compat import count_task_instances
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.steps import Log
from airflow_provider_browseract.hooks.xcoms import aget_xcom
from airflow_provider_browseract.links.browseract import BrowserActTaskLink
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import not_stopped
from airflow_provider_browseract.runs.waiting import Wait
from airflow_provider_browseract.triggers import answers
from airflow_provider_browseract.webhook.callback import WAIT_XCOM, is_resumed_wait


async def stop_after_ctrl_c(wait: Wait, conn_id: str, cancel_on_kill: bool, log: Log) -> None:
    """Stop the run of a ``dag.test()`` that is interrupted; no code of the operator runs after that."""
    task_id = wait.browseract_task_id
    if not cancel_on_kill:
        log.warning(
            "Interrupted (Ctrl-C). BrowserAct task %s keeps running and using credits because cancel_on_kill=False.",
            task_id,
        )
        return
    try:
        stopped = await BrowserActHook(conn_id).astop_task(task_id, within=timings.ON_KILL_CALL_LIMIT)
    except Exception as error:  # noqa: BLE001 - whatever fails, the log must say what becomes of the run
        log.error("Interrupted (Ctrl-C). BrowserAct task %s %s", task_id, not_stopped(error, None))
    else:
        what = "was stopped" if stopped else "had already ended"
        log.warning("Interrupted (Ctrl-C). BrowserAct task %s %s.", task_id, what)


async def stop_unless_waited_for(wait: Wait, conn_id: str, ti: Any, log: Log) -> None:
    """Stop the run of a wait that was ended, unless the run is still waited for; log what was done.

    :param wait: the wait.
    :param conn_id: id of the Airflow connection.
    :param ti: the task instance of the trigger.
    :param log: the trigger's log.
    """
    task_id = wait.browseract_task_id
    try:
        if waiting := await _who_waits(wait, ti):
            log.info("BrowserAct task %s is not stopped: %s", task_id, waiting)
            return
    except Exception as error:  # noqa: BLE001 - a run that may be waited for must not be stopped on a guess
        log.error(
            "BrowserAct task %s was not stopped and may keep running and using credits: Airflow could not be asked "
            "whether the run is still waited for (%s: %s)",
            task_id,
            type(error).__name__,
            error,
        )
        return
    try:
        async with BrowserActHook(conn_id).async_client(within=timings.ON_KILL_CALL_LIMIT) as client:
            # It is not documented what a stop does to a run that has ended, whose result someone may be reading now.
            with suppress(BrowserActError):
                status = await client.send(calls.get_task_status(task_id))
                if status.ended:
                    log.info("BrowserAct task %s is not stopped: it had already ended as %s.", task_id, status)
                    return
            await client.send(calls.stop_task(task_id))
    except NOTHING_TO_STOP:
        log.info("BrowserAct task %s is not stopped: it had already ended.", task_id)
    except Exception as error:  # noqa: BLE001 - whatever fails, the log must say what becomes of the run
        where = None
        # Of a task that was cleared, Airflow has deleted the link.
        with suppress(Exception):
            where = await aget_xcom(ti, BrowserActTaskLink().xcom_key)
        log.error("BrowserAct task %s %s", task_id, not_stopped(error, where))
    else:
        log.info("BrowserAct task %s was stopped, because nobody waits for it any more.", task_id)


async def _who_waits(wait: Wait, ti: Any) -> str | None:
    """Return who waits for the run although the trigger was told to end; None if nobody does."""
    if wait.callback_token_sha256 and is_resumed_wait(await aget_xcom(ti, WAIT_XCOM), wait.first_poll_at):
        return "a callback has resumed the Airflow task."
    if await answers.was_answered(wait, ti):
        return "the answer of a person has resumed the Airflow task."
    # An up_for_retry one has left the run to its next try.
    waiting = await asyncio.to_thread(count_task_instances, ti, "deferred", "running", "up_for_retry")
    # Of a task that was cleared, Airflow has deleted the XComs by then; the next try wants another run.
    if waiting and await aget_xcom(ti, "task_id") == wait.browseract_task_id:
        return "the Airflow task waits for it elsewhere."
    return None
