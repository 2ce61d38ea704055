"""The trigger that waits for a run while no worker is held."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import NOTHING_TO_STOP, BrowserActError
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.hooks import required_action
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.following import follow_async
from airflow_provider_browseract.links.browseract import BrowserActTaskLink
from airflow_provider_browseract.runs.queueing import Slots, wait_for_slot
from airflow_provider_browseract.runs.waiting import (
    Answer,
    End,
    OnPaused,
    PauseOver,
    WaitEvent,
    WaitOver,
    WokenBy,
    wait_for_end,
)
from airflow_provider_browseract.webhook.callback import resumed_xcom

ON_KILL_LIMIT = 25.0
"""Seconds that a killed trigger is kept for stopping its run, a little less than Airflow itself allows."""

CALL_LIMIT = 7.5
"""Seconds of these for each of two calls, which ask for the status and stop the run; asking Airflow takes some, too."""

ANSWER_INTERVAL = 5.0
"""Seconds between two looks for the answer of a person."""

_STOPPING: set[asyncio.Task[None]] = set()
"""Stops under way, which may outlast their triggers; the loop alone would not keep them alive."""


class TaskTrigger(BaseTrigger):
    """Waits until a BrowserAct task has ended, its time is over, or nothing can be learned of it.

    It never starts, resumes or judges a run: the operator asks the API again. All moments are absolute, so another
    triggerer that takes over continues with the same clock.

    :param browseract_task_id: the BrowserAct task.
    :param browseract_conn_id: id of the Airflow connection.
    :param poll_interval: seconds between two questions for the status.
    :param first_poll_at: no question before this moment, in seconds since the epoch.
    :param deadline: moment at which the wait ends, in seconds since the epoch.
    :param callback_token_sha256: digest of the token with which a callback may end the wait before; None if none is
        expected.
    :param last_seen: the status that the log has already told.
    :param steps_told: how many steps the log has already told.
    :param on_paused: see :class:`~airflow_provider_browseract.runs.waiting.OnPaused`.
    :param tell_pauses_from: moment from which on a pause of the run ends the wait; None if no pause does.
    :param pause_told: the pause that the run is in has been told already.
    :param question: the question to a person whose answer ends the wait too
        (:func:`~airflow_provider_browseract.hooks.required_action.ask`).
    :param answer_by: moment from which on nobody has to answer any more.
    :param answer_default: what was decided then.
    :param cancel_on_kill: stop the run when a person ends the wait.
    """

    def __init__(
        self,
        *,
        browseract_task_id: str,
        browseract_conn_id: str,
        poll_interval: float,
        first_poll_at: float,
        deadline: float,
        callback_token_sha256: str | None = None,
        last_seen: str | None = None,
        steps_told: int = 0,
        on_paused: str = OnPaused.WAIT.value,
        tell_pauses_from: float | None = None,
        pause_told: bool = False,
        question: str | None = None,
        answer_by: float | None = None,
        answer_default: str = Answer.STOP.value,
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_task_id = browseract_task_id
        self.browseract_conn_id = browseract_conn_id
        self.poll_interval = poll_interval
        self.first_poll_at = first_poll_at
        self.deadline = deadline
        self.callback_token_sha256 = callback_token_sha256
        self.last_seen = last_seen
        self.steps_told = steps_told
        self.on_paused = on_paused
        self.tell_pauses_from = tell_pauses_from
        self.pause_told = pause_told
        self.question = question
        self.answer_by = answer_by
        self.answer_default = answer_default
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and the arguments, all plain JSON values and none of them secret."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "browseract_task_id": self.browseract_task_id,
                "browseract_conn_id": self.browseract_conn_id,
                "poll_interval": self.poll_interval,
                "first_poll_at": self.first_poll_at,
                "deadline": self.deadline,
                "callback_token_sha256": self.callback_token_sha256,
                "last_seen": self.last_seen,
                "steps_told": self.steps_told,
                "on_paused": self.on_paused,
                "tell_pauses_from": self.tell_pauses_from,
                "pause_told": self.pause_told,
                "question": self.question,
                "answer_by": self.answer_by,
                "answer_default": self.answer_default,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and tell once how the wait ended (:class:`WaitEvent`)."""
        yield TriggerEvent((await self._wait()).payload())  # type: ignore[no-untyped-call]

    async def _wait(self) -> WaitEvent:
        steps = wait_for_end(
            self.browseract_task_id,
            poll_interval=self.poll_interval,
            first_poll_at=self.first_poll_at,
            deadline=self.deadline,
            clock=time.time,
            chance=random.random,
            last_seen=TaskStatus(self.last_seen) if self.last_seen else None,
            steps_told=self.steps_told,
            on_paused=OnPaused(self.on_paused),
            tell_pauses_from=self.tell_pauses_from,
            pause_told=self.pause_told,
        )
        try:
            async with BrowserActHook(self.browseract_conn_id).async_client() as client:
                following = follow_async(steps, client, self.log, self._take_back)
                over = await (following if self.question is None else self._first(following, self.question))
            if isinstance(over, WaitEvent):
                return over
        except Exception as error:
            # A trigger that raises skips execute_complete, and nobody would look after the run.
            self.log.exception("Waiting for BrowserAct task %s failed", self.browseract_task_id)
            await asyncio.sleep(max(0.0, self.first_poll_at - time.time()))
            return self._event(End.GIVEN_UP, f"{type(error).__name__}: {error}")
        return self._event(over.end, str(over.error) if over.error else None)

    async def _first(self, following: Coroutine[Any, Any, WaitOver], question: str) -> WaitOver | WaitEvent:
        """Wait for the run and for the answer of a person, and give what comes first."""
        self._answering = asyncio.ensure_future(self._find_answer(question))
        pending: set[asyncio.Future[Any]] = {asyncio.ensure_future(following), self._answering}
        try:
            while True:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for first in done:
                    if not first.cancelled():
                        over: WaitOver | WaitEvent = first.result()
                        return over
        finally:
            for other in pending:
                other.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _find_answer(self, question: str) -> WaitEvent:
        """Wait for the answer of a person, or for the moment at which nobody is waited for any more."""
        await asyncio.sleep(max(0.0, self.first_poll_at - time.time()))
        while True:
            over = self.answer_by is not None and time.time() >= self.answer_by
            try:
                found = await sync_to_async(required_action.find_answer)(question)
                if found is None and over:
                    found = required_action.Answered(Answer(self.answer_default), None)
                    await sync_to_async(required_action.close)(question, found.answer)
            except ValueError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may be luckier
                self.log.warning("The answer of a person could not be looked for: %s", error)
            else:
                if found is not None:
                    ended = self._event(End.ANSWERED, None)
                    return replace(ended, woken_by=WokenBy.PERSON, answer=found.answer, answered_by=found.by)
            left = ANSWER_INTERVAL if self.answer_by is None or over else self.answer_by - time.time()
            await asyncio.sleep(max(0.0, min(ANSWER_INTERVAL, left)))

    async def _take_back(self, step: PauseOver) -> None:
        """Let nobody be asked any more: the run was resumed in BrowserAct."""
        if self.question is None:
            return
        self._answering.cancel()
        try:
            await sync_to_async(required_action.close)(self.question, Answer.RESUME)
            self.log.info("The run goes on, so nobody has to answer any more.")
        except Exception as error:  # noqa: BLE001 - an answer that is not needed does no harm
            self.log.warning("The question to a person could not be taken back: %s", error)

    def _event(self, end: End, reason: str | None) -> WaitEvent:
        return WaitEvent(self.browseract_task_id, end, self.deadline, WokenBy.POLL, self.callback_token_sha256, reason)

    async def on_kill(self) -> None:
        """Stop the run: someone marked or cleared the waiting Airflow task (Airflow 3.3 and later).

        Airflow calls this too when a callback has resumed the task, and when another triggerer has taken over from one
        that was taken for dead. Both are looked for first, since then the run is still waited for.
        """
        if not self.cancel_on_kill:
            self.log.info("BrowserAct task %s goes on, as it was asked for.", self.browseract_task_id)
            return
        stopping = asyncio.create_task(self._stop_unless_waited_for())
        _STOPPING.add(stopping)
        stopping.add_done_callback(_STOPPING.discard)
        # Until a trigger is gone, Airflow cancels it anew every second or so, and this method with it.
        loop = asyncio.get_running_loop()
        limit = loop.time() + ON_KILL_LIMIT
        while not stopping.done() and loop.time() < limit:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({stopping}, timeout=limit - loop.time())

    async def _stop_unless_waited_for(self) -> None:
        task_id = self.browseract_task_id
        try:
            if waiting := await self._who_waits():
                self.log.info("BrowserAct task %s is not stopped: %s", task_id, waiting)
                return
        except Exception as error:  # noqa: BLE001 - a run that may be waited for must not be stopped on a guess
            self.log.error(
                "BrowserAct task %s was not stopped and may go on: it cannot be learned whether it is still waited for "
                "(%s: %s)",
                task_id,
                type(error).__name__,
                error,
            )
            return
        try:
            async with BrowserActHook(self.browseract_conn_id).async_client(within=CALL_LIMIT) as client:
                # Nothing is said of what a stop makes of a run that has ended, whose result another may just be taking.
                with suppress(BrowserActError):
                    if (await client.send(calls.get_task_status(task_id))).ended:
                        return
                await client.send(calls.stop_task(task_id))
        except NOTHING_TO_STOP:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not go on unsaid
            where = None
            # Of a task that was cleared, Airflow has deleted the link.
            with suppress(Exception):
                where = await self._xcom(BrowserActTaskLink().xcom_key)
            self.log.error(
                "BrowserAct task %s could not be stopped (%s): it may go on, and cost credits, until someone stops it "
                "in the BrowserAct dashboard%s.",
                task_id,
                error,
                f" ({where})" if where else "",
            )
            return
        self.log.info("BrowserAct task %s was stopped, since nobody waits for it any more.", task_id)

    async def _who_waits(self) -> str | None:
        """Say who waits for the run although this trigger was told to end, or give None."""
        if self.callback_token_sha256 and await self._xcom(resumed_xcom(self.first_poll_at)) is not None:
            return "a callback has resumed the Airflow task."
        if self.question and await self._is_answered(self.question):
            return "the answer of a person has resumed the Airflow task."
        ti: Any = self.task_instance
        going = await asyncio.to_thread(
            RuntimeTaskInstance.get_ti_count,
            ti.dag_id,
            map_index=ti.map_index,
            task_ids=[ti.task_id],
            run_ids=[ti.run_id],
            states=["deferred", "running"],
        )
        # Of a task that was cleared, Airflow has deleted the XComs by then; the next try wants another run.
        if going and await self._xcom("task_id") == self.browseract_task_id:
            return "the Airflow task waits for it elsewhere."
        return None

    async def _is_answered(self, question: str) -> bool:
        # With a task that was cleared, Airflow has put its question away.
        with suppress(Exception):
            return await sync_to_async(required_action.find_answer)(question) is not None
        return False

    async def _xcom(self, key: str) -> Any:
        ti: Any = self.task_instance
        return await XCom.aget_one(
            key=key, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
        )


_SLOTS: dict[str, Slots] = {}
"""What the tasks that wait for room in this triggerer know of the runs, by connection."""


class SlotTrigger(BaseTrigger):
    """Waits until BrowserAct seems to have room for one more run. Starts nothing itself, so its end loses nothing.

    :param browseract_conn_id: id of the Airflow connection.
    :param capacity: how many runs went on when there was no room; None if that is not known.
    :param pause: seconds before the first look.
    :param until: moment at which the wait ends in any case, in seconds since the epoch.
    """

    def __init__(self, *, browseract_conn_id: str, capacity: int | None, pause: float, until: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_conn_id = browseract_conn_id
        self.capacity = capacity
        self.pause = pause
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and the arguments, all plain JSON values and none of them secret."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "browseract_conn_id": self.browseract_conn_id,
                "capacity": self.capacity,
                "pause": self.pause,
                "until": self.until,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and tell once that the wait is over; whether there is room is BrowserAct's to say."""
        steps = wait_for_slot(
            _SLOTS.setdefault(self.browseract_conn_id, Slots()),
            capacity=self.capacity,
            pause=self.pause,
            until=self.until,
            clock=time.time,
            chance=random.random,
        )
        try:
            async with BrowserActHook(self.browseract_conn_id).async_client() as client:
                await follow_async(steps, client, self.log)
        except Exception:
            # The start will meet the same trouble, and say what it is.
            self.log.exception("Waiting for room failed")
            await asyncio.sleep(self.pause)
        yield TriggerEvent({"waited_for": "slot"})  # type: ignore[no-untyped-call]
