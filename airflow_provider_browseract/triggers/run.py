"""A trigger that waits for the end of a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.compat import in_dag_test
from airflow_provider_browseract.exceptions import NOTHING_TO_STOP, BrowserActError
from airflow_provider_browseract.hooks.hiding import Hiding
from airflow_provider_browseract.in_airflow import required_action
from airflow_provider_browseract.in_airflow.shielding import ask_airflow, outlasting
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.loops import run_steps_async
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.report import kept_running, not_stopped
from airflow_provider_browseract.runs.stored import read_argument, to_json
from airflow_provider_browseract.runs.wait import MAX_STOPS, End, Wait, WaitEvent, WokenBy, poll_run
from airflow_provider_browseract.triggers.client import PatientClient
from airflow_provider_browseract.triggers.stopping import stop_after_ctrl_c, stop_unless_waited_for


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

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments: plain JSON values, none of them secret."""
        return "airflow_provider_browseract.triggers.run.TaskTrigger", {
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
            if in_dag_test():
                await stop_after_ctrl_c(self.wait, self.browseract_conn_id, self.cancel_on_kill, self.log)
            raise
        yield TriggerEvent(to_json(event))  # type: ignore[no-untyped-call]

    async def _until_end(self) -> WaitEvent:
        """Poll the run, and look for the answer to a Required Action if there is one, until one ends the wait."""
        # Only triggerers need it, and workers import this module.
        from airflow_provider_browseract.triggers.dispatcher import run_has_ended

        # Whether goals of steps are hidden was decided in the worker, which knows the inputs.
        hiding = Hiding(live_view=not self.wait.show_live_view)
        await self._close_earlier()
        await asyncio.sleep(self.wait.first_pause(time.time()))
        async with aclosing(PatientClient(self.browseract_conn_id, hiding=hiding)) as client:
            wait, stops, stopped, poll_at = self.wait, 0, False, 0.0
            while True:
                try:
                    if wait.required_action is not None and (event := await self._answer(wait)):
                        return event
                    if time.time() >= poll_at:
                        wait, end = wait.after_poll(await self._look(client, wait), time.time(), self.log)
                        if end is End.MAX_CREDITS:
                            # Until a worker resumes the task, the run would keep using credits.
                            stops += 1
                            stopped = await self._stop(client, wait)
                            end = End.MAX_CREDITS if stopped or stops >= MAX_STOPS else None
                        if end is not None:
                            if end is End.ENDED or stopped:
                                run_has_ended(self.browseract_conn_id, wait.key_digest)
                            return await self._close(wait, end)
                        poll_at = time.time() + wait.pause(time.time())
                except Exception:
                    # A trigger that raises skips execute_complete, and nothing would wait for the run any more. The
                    # error would probably occur again at once, so end the wait no sooner than failed polls would.
                    pause = max(0.0, min(timings.POLL_PATIENCE, wait.deadline - time.time()))
                    self.log.error(
                        "Polling the run failed with an unexpected error. A worker continues in %.0f seconds.",
                        pause,
                        exc_info=True,
                    )
                    await asyncio.sleep(pause)
                    return WaitEvent(wait)
                left = max(0.0, poll_at - time.time())
                await asyncio.sleep(min(left, timings.ANSWER_POLL_INTERVAL) if wait.required_action else left)

    async def _look(self, client: PatientClient, wait: Wait) -> Task | BrowserActError:
        try:
            return await run_steps_async(poll_run(wait.browseract_task_id, wait.api_version), client)
        except BrowserActError as error:
            return error

    async def _stop(self, client: PatientClient, wait: Wait) -> bool:
        """Stop a run that is over the cap, and return whether it is stopped now."""
        try:
            await client.send(wait.api.stop_task(wait.browseract_task_id))
        except NOTHING_TO_STOP:
            return True
        except BrowserActError as error:
            self.log.error("The run %s", not_stopped(error, None))
            return False
        self.log.warning(
            "The run was stopped, because more credits were used than max_credits=%s allows.", wait.max_credits
        )
        return True

    # The Required Action of a paused run

    async def _answer(self, wait: Wait) -> WaitEvent | None:
        """Return the event for an answer to the Required Action, or for the default if the time for it is over."""
        action, default = wait.required_action or "", wait.default_answer or Answer.STOP
        over = wait.answer_by is not None and time.time() >= wait.answer_by
        found = None
        with tolerate_errors(self.log.warning, "Could not read the answer to the Required Action; trying again: %s"):
            try:
                found = await ask_airflow(required_action.read_answer, action)
                if found is None and over:
                    await ask_airflow(required_action.close, action, default)
                    found = required_action.Found(default, None, time.time())
            except ValueError as error:
                self.log.warning("The answer to the Required Action cannot be used: %s.", error)
                return WaitEvent(wait.unasked())
        if found is None:
            return None
        if found.by is None:
            # Another trigger has closed it. found.at comes from the clock of another machine.
            in_time = wait.answer_by is not None and found.at >= wait.answer_by - timings.AIRFLOW_CLOCK_SKEW
            if not in_time or found.answer is not default:
                return WaitEvent(wait.unasked())
        return WaitEvent(wait, WokenBy.PERSON, found.answer, found.by)

    async def _close(self, wait: Wait, end: End) -> WaitEvent:
        """Return the event for an end, and close the Required Action if there is one; a person may have been faster."""
        if (action := wait.required_action) is None:
            return WaitEvent(wait)
        goes_on = end in (End.ENDED, End.NO_LONGER_PAUSED) and wait.last_seen is not TaskStatus.CANCELED
        answer = Answer.RESUME if goes_on else Answer.STOP
        found = None
        # An open Required Action does not affect the run.
        with tolerate_errors(self.log.warning, "The Required Action could not be closed: %s"):
            found = await ask_airflow(required_action.read_answer, action)
            if found is None:
                try:
                    await ask_airflow(required_action.close, action, answer)
                except Exception:  # noqa: BLE001 - a person may have been faster
                    found = await ask_airflow(required_action.read_answer, action)
        if found is None or found.by is None or end in (End.ENDED, End.MAX_CREDITS):
            return WaitEvent(wait.unasked())
        return WaitEvent(wait, WokenBy.PERSON, found.answer, found.by)

    async def _close_earlier(self) -> None:
        """Close the Required Action that an earlier try may have left open, because no task waits for its answer."""
        ti, wait = self.task_instance, self.wait
        if wait.default_answer is None or wait.required_action is not None or ti is None or ti.try_number <= 1:
            return
        with tolerate_errors():
            if await ask_airflow(required_action.read_answer, str(ti.id)) is None:
                await ask_airflow(required_action.close, str(ti.id), Answer.STOP)

    async def on_kill(self) -> None:
        """Stop the run: someone marked or cleared the waiting Airflow task (Airflow 3.3 and later).

        Airflow calls this too when a callback has resumed the task, and when another triggerer has taken over from one
        that was considered dead. Both are checked first, because then the run is still waited for.
        """
        if not self.cancel_on_kill:
            self.log.info("The run %s", kept_running("cancel_on_kill", None))
            return
        stopping = outlasting(stop_unless_waited_for(self.wait, self.browseract_conn_id, self.task_instance, self.log))
        # Until a trigger is gone, Airflow cancels it again every second or so, and this method with it.
        loop = asyncio.get_running_loop()
        limit = loop.time() + timings.ON_KILL_LIMIT
        while not stopping.done() and loop.time() < limit:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({stopping}, timeout=limit - loop.time())
        if not stopping.done():
            self.log.warning(
                "The run was not stopped within %g seconds. The triggerer keeps trying. Check in the BrowserAct "
                "dashboard whether it is still running: BrowserAct task %s.",
                timings.ON_KILL_LIMIT,
                self.wait.browseract_task_id,
            )
