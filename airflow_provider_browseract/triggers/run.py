"""A trigger that waits for the end of a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.compat import in_dag_test
from airflow_provider_browseract.in_airflow.shielding import outlasting
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.report import kept_running
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import read_argument, to_json
from airflow_provider_browseract.runs.waiting import End, Wait
from airflow_provider_browseract.triggers import answers
from airflow_provider_browseract.triggers.dispatcher import run_has_ended
from airflow_provider_browseract.triggers.polling import poll_until_end
from airflow_provider_browseract.triggers.stopping import stop_after_ctrl_c, stop_unless_waited_for


class TaskTrigger(BaseTrigger):
    """Wait until a BrowserAct task has ended, its time is over, or its status cannot be read.

    The trigger never starts or resumes a run, and does not decide on its result: the operator reads the run again.

    :param browseract_conn_id: id of the Airflow connection.
    :param wait: the wait, as a :class:`~airflow_provider_browseract.runs.waiting.Wait` or as it is stored.
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
        """Wait, and report once how the wait ended (:class:`~airflow_provider_browseract.runs.resuming.WaitEvent`)."""
        try:
            event = await self._wait()
        except (asyncio.CancelledError, KeyboardInterrupt):
            # In a triggerer this is a restart or a shutdown, and another triggerer continues the wait. In dag.test()
            # nothing continues it. Before Python 3.11, Ctrl-C does not always cancel: it can interrupt this code.
            if in_dag_test():
                await stop_after_ctrl_c(self.wait, self.browseract_conn_id, self.cancel_on_kill, self.log)
            raise
        if event.end in (End.ENDED, End.MAX_CREDITS):
            run_has_ended(self.browseract_conn_id, self.wait.key_digest)
        yield TriggerEvent(to_json(event))  # type: ignore[no-untyped-call]

    async def _wait(self) -> WaitEvent:
        """Wait for the run, and for the answer to a Required Action if there is one; return what comes first."""
        action = self.wait.required_action
        if action is None:
            await answers.close_earlier(self.wait, self.task_instance)
            event, _ = await poll_until_end(self.wait, self.browseract_conn_id, self.log)
            return event
        run = asyncio.ensure_future(poll_until_end(self.wait, self.browseract_conn_id, self.log))
        answering = asyncio.ensure_future(answers.await_answer(self.wait, self.log))
        try:
            await asyncio.wait({run, answering}, return_when=asyncio.FIRST_COMPLETED)
            if not run.done():
                return answering.result()
            event, seen = run.result()
            if event.end is End.GIVEN_UP:
                # Only this trigger can still find the answer.
                await asyncio.wait({answering}, timeout=max(0.0, self.wait.deadline - time.time()))
                if answering.done():
                    return answering.result()
                event = WaitEvent(event.wait, End.DEADLINE, reason=event.reason)
            stopped = event.end in (End.DEADLINE, End.MAX_CREDITS) or (
                seen is not None and seen.status is TaskStatus.CANCELED
            )
            found = await answers.close_open(action, Answer.STOP if stopped else Answer.RESUME, self.log)
            if found is None or event.end in (End.ENDED, End.MAX_CREDITS):
                return event
            # A person was faster.
            return answers.answer_event(event.wait, found)
        finally:
            run.cancel()
            answering.cancel()
            await asyncio.gather(run, answering, return_exceptions=True)

    async def on_kill(self) -> None:
        """Stop the run: someone marked or cleared the waiting Airflow task (Airflow 3.3 and later).

        Airflow calls this too when a callback has resumed the task, and when another triggerer has taken over from one
        that was considered dead. Both are checked first, because then the run is still waited for.
        """
        task_id = self.wait.browseract_task_id
        if not self.cancel_on_kill:
            self.log.info("BrowserAct task %s %s", task_id, kept_running("cancel_on_kill", None))
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
                "BrowserAct task %s was not stopped within %g seconds. The triggerer keeps trying. Look in the "
                "BrowserAct dashboard whether the run is still running.",
                task_id,
                timings.ON_KILL_LIMIT,
            )
