"""Stop the run of a trigger that is killed, unless something still waits for the run."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from airflow_provider_browseract.compat import DELETED, FINAL_STATES, is_of_earlier_try, task_instance_state
from airflow_provider_browseract.exceptions import NOTHING_TO_STOP, BrowserActError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow import required_action
from airflow_provider_browseract.in_airflow.links import BrowserActTaskLink
from airflow_provider_browseract.in_airflow.shielding import ask_airflow, in_empty_context
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.in_airflow.xcoms import MAX_TRIES_XCOM, aget_xcom
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.callback_url import WAIT_XCOM, is_resumed_wait
from airflow_provider_browseract.runs.report import kept_running, not_stopped
from airflow_provider_browseract.runs.wait import Wait


async def stop_after_ctrl_c(wait: Wait, conn_id: str, cancel_on_kill: bool, log: Any) -> None:
    """Stop the run of an interrupted ``dag.test()``. No code of the operator runs after that."""
    if cancel_on_kill:
        await _stop(wait, conn_id, log, "Interrupted (Ctrl-C). ")
    else:
        log.warning("Interrupted (Ctrl-C). The run %s", kept_running("cancel_on_kill", None))


async def stop_unless_waited_for(wait: Wait, conn_id: str, ti: Any, log: Any) -> None:
    """Stop the run of a wait that was ended, unless the run is still waited for; log what was done."""
    try:
        if waiting := await _who_waits(wait, ti, log):
            log.debug("The run is not stopped: %s", waiting)
            return
    except Exception as error:  # noqa: BLE001 - a run that something may wait for must not be stopped
        log.error(
            "The run was not stopped and may keep running and using credits: Airflow did not report whether a task "
            "still waits for it (%s: %s). If none does, stop it in the BrowserAct dashboard: BrowserAct task %s.",
            type(error).__name__,
            error,
            wait.browseract_task_id,
        )
        return
    await _stop(wait, conn_id, log, "No task waits for the run any more. ", ti)


async def _stop(wait: Wait, conn_id: str, log: Any, why: str, ti: Any = None) -> None:
    """Stop a run unless it has ended, and log what was done.

    :param ti: the task instance, whose link shows where to stop the run; None if there is none.
    """
    task_id = wait.browseract_task_id
    try:
        async with BrowserActHook(conn_id).async_client(within=timings.ON_KILL_CALL_LIMIT) as client:
            # The API does not document what a stop does to an ended run, whose result someone may be reading now.
            with suppress(BrowserActError):
                status = (await client.send(wait.api.get_task_status(task_id))).status
                if status.ended:
                    log.info("%sThe run had already ended as %s.", why, status)
                    return
            await client.send(wait.api.stop_task(task_id))
    except NOTHING_TO_STOP:
        log.info("%sThe run had already ended.", why)
    except Exception as error:  # noqa: BLE001 - whatever fails, the log must report that the run was not stopped
        where = None
        if ti is not None:
            # Airflow has deleted the link if the task was cleared.
            with suppress(Exception):
                where = await aget_xcom(ti, BrowserActTaskLink().xcom_key)
        log.error("%sThe run %s It is BrowserAct task %s.", why, not_stopped(error, where), task_id)
    else:
        log.warning("%sThe run was stopped.", why)


async def _who_waits(wait: Wait, ti: Any, log: Any) -> str | None:
    """Return a sentence about what still waits for the run after the trigger was killed; None if nothing does."""
    try:
        if wait.callback_token_sha256 and is_resumed_wait(await aget_xcom(ti, WAIT_XCOM), wait.began_at):
            return "a callback has resumed the Airflow task."
        pushed = await aget_xcom(ti, "task_id")
    except Exception as error:
        if not is_of_earlier_try(error):
            raise
        return "the next try of the Airflow task waits for it." if await _next_try_waits(wait, ti, log) else None
    if await _was_answered(wait, ti):
        return "a person's answer has resumed the Airflow task."
    # Airflow has deleted the XComs of a cleared task by then, and its next try starts another run.
    if pushed != wait.browseract_task_id:
        return None
    # A task instance in the state up_for_retry has left the run to its next try.
    if await asyncio.to_thread(task_instance_state, ti) in ("deferred", "running", "up_for_retry"):
        return "the Airflow task waits for it elsewhere."
    return None


async def _next_try_waits(wait: Wait, ti: Any, log: Any) -> bool:
    """Return whether the next try of a task instance waits for the run (Airflow 3.4).

    The try of the trigger is over: a person has cleared it, or it has failed and left the run to the next try. Which of
    the two it was is known once the next try has begun, before it waits for anything. Airflow hides that only from the
    triggers of other tries.
    """
    until, told = time.time() + timings.NEXT_TRY_LIMIT, False
    while True:
        state = await asyncio.to_thread(task_instance_state, ti)
        if state == "up_for_retry":
            return True
        max_tries = await in_empty_context(aget_xcom(ti, MAX_TRIES_XCOM))
        if None not in (max_tries, wait.max_tries) and max_tries > wait.max_tries:
            return False
        pushed = await in_empty_context(aget_xcom(ti, "task_id"))
        if pushed is not None:
            return bool(pushed == wait.browseract_task_id)
        if state in (*FINAL_STATES, DELETED) or time.time() >= until:
            return False
        if not told:
            log.info(
                "The try that started the run is over. The run is stopped unless the next try reattaches to it within "
                "%g seconds.",
                timings.NEXT_TRY_LIMIT,
            )
        told = True
        await asyncio.sleep(timings.ANSWER_POLL_INTERVAL)


async def _was_answered(wait: Wait, ti: Any) -> bool:
    """Return whether a person has answered a Required Action of the task instance during a wait (Airflow 3.3)."""
    if wait.default_answer is None:
        return False
    # There may be no Required Action, and clearing a task instance deletes it.
    with tolerate_errors():
        found = await ask_airflow(required_action.read_answer, str(ti.id))
        return found is not None and found.by is not None and found.at >= wait.began_at
    return False
