"""The Required Action of a paused run in the triggerer: find the answer, or close an open Required Action."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from airflow_provider_browseract.in_airflow import required_action
from airflow_provider_browseract.in_airflow.shielding import ask_airflow
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.loops import Log
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer, OnPaused
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.waiting import End, Wait, WokenBy


async def await_answer(wait: Wait, log: Log) -> WaitEvent:
    """Wait for a person's answer to the Required Action of a wait until the time for it is over."""
    action, default = wait.required_action or "", wait.policy.answer_default
    await asyncio.sleep(max(0.0, wait.first_poll_at - time.time()))
    while True:
        over = wait.answer_by is not None and time.time() >= wait.answer_by
        found = None
        with tolerate_errors(log.warning, "Could not read the answer to the Required Action; trying again: %s"):
            try:
                found = await ask_airflow(required_action.read_answer, action)
                if found is None and over:
                    await ask_airflow(required_action.close, action, default)
                    found = required_action.Found(default, None, time.time())
            except ValueError as error:
                return WaitEvent(wait, End.GIVEN_UP, reason=str(error))
        if found is not None:
            return answer_event(wait, found)
        left = timings.ANSWER_POLL_INTERVAL if wait.answer_by is None or over else wait.answer_by - time.time()
        await asyncio.sleep(max(0.0, min(timings.ANSWER_POLL_INTERVAL, left)))


def answer_event(wait: Wait, found: required_action.Found) -> WaitEvent:
    """Return the event for an answer, or for the end of the pause if a trigger closed the Required Action for that."""
    if found.by is None:
        # found.at comes from the clock of another machine.
        in_time = wait.answer_by is not None and found.at >= wait.answer_by - timings.AIRFLOW_CLOCK_SKEW
        if not in_time or found.answer is not wait.policy.answer_default:
            return WaitEvent(wait, End.NO_LONGER_PAUSED)
    return WaitEvent(wait, End.ANSWERED, WokenBy.PERSON, answer=found.answer, answered_by=found.by)


async def close_open(action: str, answer: Answer, log: Log) -> required_action.Found | None:
    """Answer a Required Action instead of a person, so that it is no longer open.

    :returns: the answer of a person who was faster; None if there is none.
    """
    # An open Required Action does not affect the run.
    with tolerate_errors(log.warning, "The Required Action could not be closed: %s"):
        found = await ask_airflow(required_action.read_answer, action)
        if found is None:
            try:
                await ask_airflow(required_action.close, action, answer)
            except Exception:  # noqa: BLE001 - a person may have been faster
                found = await ask_airflow(required_action.read_answer, action)
        return found if found and found.by is not None else None
    return None


async def close_earlier(wait: Wait, ti: Any) -> None:
    """Close the Required Action that an earlier try may have left open, because no task waits for its answer."""
    if wait.policy.on_paused is OnPaused.ASK and ti is not None and ti.try_number > 1:
        with tolerate_errors():
            if await ask_airflow(required_action.read_answer, str(ti.id)) is None:
                await ask_airflow(required_action.close, str(ti.id), Answer.STOP)


async def was_answered(wait: Wait, ti: Any) -> bool:
    """Return whether a person has answered a Required Action of the task instance during a wait."""
    if wait.policy.on_paused is not OnPaused.ASK:
        return False
    # There may be no Required Action, and clearing a task instance deletes it.
    with tolerate_errors():
        found = await ask_airflow(required_action.read_answer, str(ti.id))
        return found is not None and found.by is not None and found.at >= wait.began_at
    return False
