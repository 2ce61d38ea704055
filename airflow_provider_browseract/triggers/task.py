"""A trigger that waits for the end of a run, and stops the run if it is killed and nothing else waits for the run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.compat import (
    DELETED,
    FINAL_STATES,
    in_dag_test,
    is_of_earlier_try,
    task_instance_state,
)
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow import required_action
from airflow_provider_browseract.in_airflow.hiding import Hiding
from airflow_provider_browseract.in_airflow.links import BrowserActTaskLink
from airflow_provider_browseract.in_airflow.shielding import ask_airflow, in_empty_context, outlasting
from airflow_provider_browseract.in_airflow.tolerance import first_line, tolerate_errors
from airflow_provider_browseract.in_airflow.xcoms import MAX_TRIES_XCOM, aget_xcom
from airflow_provider_browseract.loops import send_all_async
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.callback_url import WAIT_XCOM, is_resumed_wait
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.report import kept_running, not_stopped
from airflow_provider_browseract.runs.stored import read_argument, to_json
from airflow_provider_browseract.runs.wait import MAX_STOPS, End, Wait, WaitEvent, WokenBy, poll_run, stop_run

if TYPE_CHECKING:
    from airflow_provider_browseract.api.async_client import AsyncBrowserActClient


class TaskTrigger(BaseTrigger):
    """Wait until a BrowserAct task has ended, its time is over, or its status cannot be read.

    The trigger never starts or resumes a run, and does not decide on its result: the operator reads the run again.

    :param browseract_conn_id: id of the Airflow connection.
    :param wait: the wait, as a ``Wait`` (``runs/wait.py``) or as it is stored.
    :param cancel_on_kill: stop the run when a person ends the wait. When ``False``, the run keeps running and using
        credits.
    :raises TypeError: the wait cannot be read.
    """

    def __init__(self, *, browseract_conn_id: str, wait: Wait | Mapping[str, Any], cancel_on_kill: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_conn_id = browseract_conn_id
        self.wait = read_argument(Wait, wait)
        self.cancel_on_kill = cancel_on_kill
        self._stops = 0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments: plain JSON values, none of them secret."""
        return "airflow_provider_browseract.triggers.task.TaskTrigger", {
            "browseract_conn_id": self.browseract_conn_id,
            "wait": to_json(self.wait),
            "cancel_on_kill": self.cancel_on_kill,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and report once that the wait is over (:class:`~airflow_provider_browseract.runs.wait.WaitEvent`)."""
        try:
            event = await self._until_end()
        except (asyncio.CancelledError, KeyboardInterrupt):
            # In a triggerer this is a restart or a shutdown, and another triggerer continues the wait. In dag.test()
            # nothing continues it. Before Python 3.11, Ctrl-C does not always cancel: it can interrupt this code.
            if in_dag_test() and self._may_stop():
                await self._stop_unless_ended(", because dag.test() was interrupted (Ctrl-C)")
            raise
        yield TriggerEvent(to_json(event))  # type: ignore[no-untyped-call]

    async def _until_end(self) -> WaitEvent:
        """Poll the run, and look for the answer to a Required Action if there is one, until one ends the wait."""
        await self._close_earlier()
        await asyncio.sleep(self.wait.first_pause(time.time()))
        wait, poll_at = self.wait, 0.0
        try:
            async with self._hook().async_client() as client:
                while True:
                    if event := await self._answer(wait):
                        return event
                    if time.time() >= poll_at:
                        wait, end = await self._poll(client, wait)
                        # Each end is reported. A worker decides what follows.
                        if end is not None:
                            return await self._close(wait, end)
                        poll_at = time.time() + wait.pause(time.time())
                    left = max(0.0, poll_at - time.time())
                    await asyncio.sleep(min(left, timings.ANSWER_POLL_INTERVAL) if wait.required_action else left)
        except Exception:
            # A trigger that raises skips execute_complete, and nothing would wait for the run any more. The error would
            # probably occur again at once, so end the wait no sooner than failed polls would.
            pause = max(0.0, min(timings.POLL_PATIENCE, wait.deadline - time.time()))
            self.log.error(
                "Polling the run failed with an unexpected error. A worker continues in %.0f seconds.",
                pause,
                exc_info=True,
            )
            await asyncio.sleep(pause)
            return WaitEvent(wait)

    def _hook(self) -> BrowserActHook:
        hook = BrowserActHook(self.browseract_conn_id)
        # Whether goals of steps are hidden was decided in the worker, which knows the inputs.
        hook.hiding = Hiding(live_view=not self.wait.show_live_view)
        return hook

    async def _poll(self, client: AsyncBrowserActClient, wait: Wait) -> tuple[Wait, End | None]:
        """Poll once, and stop a run that is over its cap."""
        try:
            calls = poll_run(wait.browseract_task_id, wait.api_version)
            seen: Task | BrowserActError = await send_all_async(calls, client)
        except BrowserActError as error:
            seen = error
        wait, end = wait.after_poll(seen, time.time(), self.log)
        if end is End.MAX_CREDITS:
            # Until a worker resumes the task, and stops it again if it is still active, it would keep using credits.
            self._stops += 1
            why = f", because more credits were used than max_credits={wait.max_credits} allows"
            if not await self._stop(client, why) and self._stops < MAX_STOPS:
                end = None
        return wait, end

    # The Required Action of a paused run

    async def _answer(self, wait: Wait) -> WaitEvent | None:
        """Return the event for an answer to the Required Action, or for the default if the time for it is over."""
        if (action := wait.required_action) is None:
            return None
        try:
            found = await ask_airflow(required_action.read_answer, action)
            if found is None and wait.answer_by is not None and time.time() >= wait.answer_by:
                found = required_action.Found(wait.default_answer or Answer.STOP, None)
                await ask_airflow(required_action.close, action, found.answer)
        except Exception as error:  # noqa: BLE001 - the next read may succeed
            self.log.warning("Could not read the answer to the Required Action; trying again: %s", first_line(error))
            return None
        # Without a name, it was closed by another trigger, whose event was lost, or now.
        return None if found is None else WaitEvent(wait, WokenBy.PERSON, found.answer, found.by)

    async def _close(self, wait: Wait, end: End) -> WaitEvent:
        """Return the event for an end, and close the Required Action if there is one; a person may have been faster."""
        if (action := wait.required_action) is None:
            return WaitEvent(wait, end=end)
        goes_on = end.lets_it_run and wait.last_seen is not TaskStatus.CANCELED
        answer = Answer.RESUME if goes_on else Answer.STOP
        found = None
        # An open Required Action does not affect the run.
        with tolerate_errors(self.log.warning, "The Required Action could not be closed: %s"):
            try:
                await ask_airflow(required_action.close, action, answer)
            except Exception:  # noqa: BLE001 - a person may have been faster
                found = await ask_airflow(required_action.read_answer, action)
        if found is None or found.by is None or end in (End.ENDED, End.MAX_CREDITS):
            return WaitEvent(wait.unasked(), end=end)
        return WaitEvent(wait, WokenBy.PERSON, found.answer, found.by)

    async def _close_earlier(self) -> None:
        """Close the Required Action that an earlier try may have left open, because no task waits for its answer."""
        ti, wait = self.task_instance, self.wait
        if wait.default_answer is None or wait.required_action is not None or ti is None or ti.try_number <= 1:
            return
        with tolerate_errors():
            await ask_airflow(required_action.close, str(ti.id), Answer.STOP)

    # Stop the run

    async def _stop(self, client: AsyncBrowserActClient, why: str) -> bool:
        """Stop the run, log what was done, and return whether it does not run any more.

        :param why: why it is stopped, as the end of a sentence.
        """
        task_id = self.wait.browseract_task_id
        try:
            if await send_all_async(stop_run(task_id, self.wait.api), client):
                self.log.warning("The run was stopped%s.", why)
            else:
                self.log.info("The run had already ended.")
        except Exception as error:  # noqa: BLE001 - whatever fails, the log must report that the run was not stopped
            where = None
            # The link is gone if the next try of a cleared task has begun. In dag.test() there is no task instance, and
            # before Airflow 3.3 there is no such request.
            with suppress(Exception):
                where = await aget_xcom(self.task_instance, BrowserActTaskLink().xcom_key)
            self.log.error("The run %s It is BrowserAct task %s.", not_stopped(error, where), task_id)
            return False
        return True

    async def _stop_unless_ended(self, why: str) -> None:
        async with self._hook().async_client(within=timings.ON_KILL_CALL_LIMIT) as client:
            # The API does not document what a stop does to an ended run, whose result someone may be reading now.
            with suppress(Exception):
                status = (await client.send(self.wait.api.get_task_status(self.wait.browseract_task_id))).status
                if status.ended:
                    self.log.info("The run had already ended as %s.", status)
                    return
            await self._stop(client, why)

    def _may_stop(self) -> bool:
        """Return whether a person who ends the wait stops the run too, and log it otherwise."""
        if not self.cancel_on_kill:
            self.log.warning("The run %s", kept_running(None))
        return self.cancel_on_kill

    async def on_kill(self) -> None:
        """Stop the run: someone marked or cleared the waiting Airflow task (Airflow 3.3 and later).

        Airflow calls this too when a callback has resumed the task, and when another triggerer has taken over from one
        that was considered dead. Both are checked first, because then the run is still waited for.
        """
        if not self._may_stop():
            return
        stopping = outlasting(self._stop_unless_waited_for())
        # Until a trigger is gone, Airflow cancels it again every second or so, and this method with it.
        loop = asyncio.get_running_loop()
        limit = loop.time() + timings.ON_KILL_LIMIT
        while not stopping.done() and loop.time() < limit:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({stopping}, timeout=limit - loop.time())
        if stopping.cancelled() or not stopping.done():
            # It is cancelled if the triggerer ends, and its event loop is being closed.
            self.log.error(
                "The run has not been stopped yet, and the triggerer %s. Check in the BrowserAct dashboard whether it "
                "is still running: BrowserAct task %s.",
                "has ended" if stopping.cancelled() else "keeps trying",
                self.wait.browseract_task_id,
            )

    async def _stop_unless_waited_for(self) -> None:
        try:
            waited_for = await self._is_waited_for()
        except Exception as error:  # noqa: BLE001 - a run that something may wait for must not be stopped
            self.log.error(
                "The run was not stopped and may keep running and using credits: Airflow did not report whether a task "
                "still waits for it (%s: %s). If none does, stop it in the BrowserAct dashboard: BrowserAct task %s.",
                type(error).__name__,
                error,
                self.wait.browseract_task_id,
            )
            return
        if not waited_for:
            await self._stop_unless_ended(", because no task waits for it any more")

    async def _is_waited_for(self) -> bool:
        """Return whether something still waits for the run after the trigger was killed.

        If Airflow has not decided that yet, wait until it has: an event of another triggerer or an answer may have
        ended the wait, or a person has cleared the task, or the next try begins. When a try begins, its worker deletes
        the XComs. Soon after, it is known whether that try has this run.
        """
        ti, wait, is_of_earlier = self.task_instance, self.wait, False
        until = min(wait.deadline, time.time() + timings.NEXT_TRY_LIMIT)
        try:
            if is_resumed_wait(await aget_xcom(ti, WAIT_XCOM), wait.began_at):
                # A callback has resumed the task instance.
                return True
        except Exception as error:
            if not is_of_earlier_try(error):
                raise
            # A person has cleared the task, or the try has failed and left the run to the next one (Airflow 3.4).
            is_of_earlier = True
            self.log.info(
                "The try that started the run is over. The run is stopped unless the next try reattaches to it within "
                "%g seconds.",
                timings.NEXT_TRY_LIMIT,
            )
        # Airflow 3.4 hides the XComs of the next try only from the triggers of other tries.
        while (pushed := await in_empty_context(aget_xcom(ti, "task_id"))) in (wait.browseract_task_id, None):
            # Airflow logs an error for each XCom that does not exist, and only Airflow 3.4 has this one.
            max_tries = await in_empty_context(aget_xcom(ti, MAX_TRIES_XCOM)) if is_of_earlier else None
            state = await asyncio.to_thread(task_instance_state, ti)
            decided = self._waits(state, max_tries, has_run=bool(pushed), is_of_earlier=is_of_earlier)
            if decided is not None or time.time() >= (wait.deadline if pushed else until):
                return bool(decided)
            await asyncio.sleep(timings.ANSWER_POLL_INTERVAL)
        return False

    def _waits(self, state: str | None, max_tries: int | None, *, has_run: bool, is_of_earlier: bool) -> bool | None:
        """Return whether the task instance waits for the run; None if Airflow has not decided that yet.

        :param has_run: the XComs of its try name the run.
        :param is_of_earlier: the trigger is one of an earlier try.
        """
        if max_tries is not None and self.wait.max_tries is not None and max_tries > self.wait.max_tries:
            # A person has cleared the task, and the next try has begun.
            return False
        # A task instance in the state up_for_retry has left the run to its next try.
        if (state == "up_for_retry" and (has_run or is_of_earlier)) or (has_run and state in ("deferred", "running")):
            return True
        return False if state in (*FINAL_STATES, DELETED) else None
