"""The triggers: they wait for a run, for room for one, and for the end of runs that others started."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Hashable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from datetime import datetime, timezone
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TaskSuccessEvent, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import NOTHING_TO_STOP, BrowserActError
from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.compat import in_dag_test
from airflow_provider_browseract.hooks import required_action
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import unreadable
from airflow_provider_browseract.hooks.following import follow_async, outlasting, uninterrupted
from airflow_provider_browseract.hooks.xcoms import RESULT_KEYS, delete_xcoms, names_of, why_unstorable
from airflow_provider_browseract.links.browseract import BrowserActTaskLink, LiveViewLink
from airflow_provider_browseract.links.showing import count_run, show_run
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.inputs import InputError, read_id, read_seconds
from airflow_provider_browseract.runs.late_output import read_late_output
from airflow_provider_browseract.runs.outputs import OutputFormat, as_text_line, pending_line, read_output
from airflow_provider_browseract.runs.queueing import Slots, wait_for_slot
from airflow_provider_browseract.runs.report import end_lines, not_stopped, status_line
from airflow_provider_browseract.runs.waiting import Answer, End, OnPaused, RunWait, WaitEvent, WokenBy, wait_for_end
from airflow_provider_browseract.runs.watching import ENDED, Cursor, EndedTask, Window, matching
from airflow_provider_browseract.webhook.callback import WAIT_XCOM, is_resumed_wait

if TYPE_CHECKING:
    from airflow_provider_browseract.api.client import AsyncBrowserActClient

T = TypeVar("T")

LARGEST_RESPONSE = 4 * 1024 * 1024
"""Bytes of an answer to a poll that a triggerer reads at most. What is larger is read by the worker that resumes."""

log = logging.getLogger(__name__)


async def _ask_airflow(do: Callable[..., T], *args: Any) -> T:
    """Call a function that asks Airflow, in a thread."""
    asking: Coroutine[Any, Any, T] = sync_to_async(do)(*args)
    return await uninterrupted(asking)


class _Stored:
    """Is stored as its class and its arguments, which it keeps as attributes of the same names."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and the arguments, all plain JSON values and none of them secret."""
        arguments = {name: getattr(self, name) for name in signature(type(self)).parameters}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments


class _PatientClient:
    """Send the polls of a trigger. If the Airflow connection cannot be read, the poll fails, and the wait continues.

    :param conn_id: id of the Airflow connection.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._open = AsyncExitStack()
        self._client: AsyncBrowserActClient | None = None

    async def send(self, call: calls.Call[T]) -> T:
        """Carry a call.

        :raises BrowserActError: it failed, or the connection cannot be read.
        """
        if self._client is None:
            opening = BrowserActHook(self._conn_id).async_client(max_response=LARGEST_RESPONSE)
            try:
                self._client = await self._open.enter_async_context(opening)
            except Exception as error:
                raise unreadable(self._conn_id, error) from error
        return await self._client.send(call)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._open.aclose()


class TaskTrigger(_Stored, BaseTrigger):
    """Wait until a BrowserAct task has ended, its time is over, or nothing can be learned of it.

    The trigger never starts, resumes or judges a run: the operator asks the API again. All moments are absolute, so
    another triggerer that takes over continues with the same clock.

    :param browseract_task_id: the BrowserAct task.
    :param browseract_conn_id: id of the Airflow connection.
    :param poll_interval: seconds between two questions for the status.
    :param first_poll_at: no question before this moment, in seconds since the epoch.
    :param deadline: moment at which the wait ends, in seconds since the epoch.
    :param deferred_at: moment at which the Airflow task was deferred; likewise.
    :param callback_token_sha256: digest of the token with which a callback may end the wait before; None if none is
        expected.
    :param last_seen: the status that the log has already told.
    :param steps_told: how many steps the log has already told.
    :param pauses: how many pauses of the run have ended a wait; the event repeats it.
    :param hints_in_vain: see :class:`~airflow_provider_browseract.runs.waiting.RunWait`; the callback route reads it.
    :param start_by: moment by which the run has to leave the status ``created``; None if there is none.
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
        deferred_at: float = 0.0,
        callback_token_sha256: str | None = None,
        last_seen: str | None = None,
        steps_told: int = 0,
        pauses: int = 0,
        hints_in_vain: int = 0,
        start_by: float | None = None,
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
        self.deferred_at = deferred_at
        self.callback_token_sha256 = callback_token_sha256
        self.last_seen = last_seen
        self.steps_told = steps_told
        self.pauses = pauses
        self.hints_in_vain = hints_in_vain
        self.start_by = start_by
        self.on_paused = on_paused
        self.tell_pauses_from = tell_pauses_from
        self.pause_told = pause_told
        self.question = question
        self.answer_by = answer_by
        self.answer_default = answer_default
        self.cancel_on_kill = cancel_on_kill
        self._seen: Task | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and report once how the wait ended (:class:`WaitEvent`)."""
        try:
            event = await self._wait()
        except asyncio.CancelledError:
            # In a triggerer this is a restart or a shutdown, and another triggerer continues the wait. In dag.test()
            # nothing continues it.
            if in_dag_test():
                await self._stop_after_ctrl_c()
            raise
        yield TriggerEvent(event.payload())  # type: ignore[no-untyped-call]

    async def _wait(self) -> WaitEvent:
        """Wait for the run, and for the answer of a person where one is asked; give what comes first."""
        if self.question is None:
            await self._close_earlier()
            return await self._follow()
        run = asyncio.ensure_future(self._follow())
        answering = asyncio.ensure_future(self._find_answer(self.question))
        try:
            await asyncio.wait({run, answering}, return_when=asyncio.FIRST_COMPLETED)
            if not run.done():
                return answering.result()
            event = run.result()
            if event.end is End.GIVEN_UP:
                # The answer is seen all the same, and only here.
                await asyncio.wait({answering}, timeout=max(0.0, self.deadline - time.time()))
                if answering.done():
                    return answering.result()
                event = self._event(End.DEADLINE, event.reason)
            stopped = event.end is End.DEADLINE or (self._seen and self._seen.status is TaskStatus.CANCELED)
            answered = await self._close(self.question, Answer.STOP if stopped else Answer.RESUME)
            return event if answered is None or event.end is End.ENDED else self._answered(answered)
        finally:
            run.cancel()
            answering.cancel()
            await asyncio.gather(run, answering, return_exceptions=True)

    async def _follow(self) -> WaitEvent:
        """Wait for the run, and keep it as it was seen last."""
        steps = wait_for_end(
            RunWait(
                self.browseract_task_id,
                self.deadline,
                question=self.question,
                last_seen=self.last_seen,
                steps_told=self.steps_told,
                start_by=self.start_by,
            ),
            poll_interval=self.poll_interval,
            first_poll_at=self.first_poll_at,
            clock=time.time,
            chance=random.random,
            tell_pauses_from=self.tell_pauses_from,
            pause_told=self.pause_told,
        )
        try:
            async with aclosing(_PatientClient(self.browseract_conn_id)) as client:
                over = await follow_async(steps, client, self.log)
        except Exception as error:
            # A trigger that raises skips execute_complete, and nothing would wait for the run any more. An error here
            # would probably occur again at once, so end the wait no sooner than failed polls would.
            self.log.exception("Waiting for BrowserAct task %s failed", self.browseract_task_id)
            await asyncio.sleep(max(0.0, min(timings.POLL_PATIENCE, self.deadline - time.time())))
            return self._event(End.GIVEN_UP, f"{type(error).__name__}: {error}")
        self._seen = over.task
        self.last_seen, self.steps_told = over.wait.last_seen, over.wait.steps_told
        return self._event(over.end, over.error.brief if over.error else None)

    async def _find_answer(self, question: str) -> WaitEvent:
        """Wait for the answer of a person, or for the moment at which nobody is waited for any more."""
        default = Answer(self.answer_default)
        await asyncio.sleep(max(0.0, self.first_poll_at - time.time()))
        while True:
            over = self.answer_by is not None and time.time() >= self.answer_by
            try:
                found = await _ask_airflow(required_action.find_answer, question)
                if found is None and over:
                    await _ask_airflow(required_action.close, question, default)
                    found = required_action.Answered(default, None, time.time())
            except ValueError as error:
                return self._event(End.GIVEN_UP, str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may be luckier
                self.log.warning("The answer of a person could not be looked for: %s", error)
            else:
                if found is not None:
                    return self._answered(found)
            left = timings.ANSWER_POLL_INTERVAL if self.answer_by is None or over else self.answer_by - time.time()
            await asyncio.sleep(max(0.0, min(timings.ANSWER_POLL_INTERVAL, left)))

    def _answered(self, found: required_action.Answered) -> WaitEvent:
        """Tell what was decided; or that the run went on, of which a trigger has taken note before."""
        if found.by is None:
            # By the clock of another machine.
            in_time = self.answer_by is not None and found.at >= self.answer_by - timings.AIRFLOW_CLOCK_SKEW
            if not in_time or found.answer is not Answer(self.answer_default):
                return self._event(End.WENT_ON, None)
        event = self._event(End.ANSWERED, None)
        return replace(event, woken_by=WokenBy.PERSON, answer=found.answer, answered_by=found.by)

    async def _close(self, question: str, answer: Answer) -> required_action.Answered | None:
        """Answer a question in place of a person, so that it is asked no more.

        :returns: the answer of a person who was faster.
        """
        try:
            found = await _ask_airflow(required_action.find_answer, question)
            if found is None:
                try:
                    await _ask_airflow(required_action.close, question, answer)
                except Exception:  # noqa: BLE001 - a person may have been faster
                    found = await _ask_airflow(required_action.find_answer, question)
        except Exception as error:  # noqa: BLE001 - a question that stays open does no harm to the run
            self.log.warning("The question to a person could not be closed: %s", error)
            return None
        return found if found and found.by is not None else None

    async def _close_earlier(self) -> None:
        """Close the question that an earlier try may have left open: nobody waits for its answer any more."""
        ti: Any = self.task_instance
        if self.on_paused == OnPaused.ASK.value and ti is not None and ti.try_number > 1:
            with suppress(Exception):
                if await _ask_airflow(required_action.find_answer, str(ti.id)) is None:
                    await _ask_airflow(required_action.close, str(ti.id), Answer.STOP)

    def _event(self, end: End, reason: str | None) -> WaitEvent:
        return WaitEvent(
            self.browseract_task_id,
            end,
            self.deadline,
            WokenBy.POLL,
            self.callback_token_sha256,
            reason,
            pauses=self.pauses,
            last_seen=self.last_seen,
            steps_told=self.steps_told,
        )

    async def _stop_after_ctrl_c(self) -> None:
        """Stop the run of a ``dag.test()`` that is interrupted; no code of the operator runs after that."""
        task_id = self.browseract_task_id
        if not self.cancel_on_kill:
            self.log.warning(
                "Interrupted (Ctrl-C). BrowserAct task %s keeps running and using credits because "
                "cancel_on_kill=False.",
                task_id,
            )
            return
        try:
            stopped = await BrowserActHook(self.browseract_conn_id).astop_task(
                task_id, within=timings.ON_KILL_CALL_LIMIT
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not be left unsaid
            self.log.error("Interrupted (Ctrl-C). BrowserAct task %s %s", task_id, not_stopped(error, None))
        else:
            what = "was stopped" if stopped else "had already ended"
            self.log.warning("Interrupted (Ctrl-C). BrowserAct task %s %s.", task_id, what)

    async def on_kill(self) -> None:
        """Stop the run: someone marked or cleared the waiting Airflow task (Airflow 3.3 and later).

        Airflow calls this too when a callback has resumed the task, and when another triggerer has taken over from one
        that was taken for dead. Both are looked for first, since then the run is still waited for.
        """
        if not self.cancel_on_kill:
            self.log.info("BrowserAct task %s goes on, as it was asked for.", self.browseract_task_id)
            return
        stopping = outlasting(self._stop_unless_waited_for())
        # Until a trigger is gone, Airflow cancels it anew every second or so, and this method with it.
        loop = asyncio.get_running_loop()
        limit = loop.time() + timings.ON_KILL_LIMIT
        while not stopping.done() and loop.time() < limit:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({stopping}, timeout=limit - loop.time())
        if not stopping.done():
            self.log.warning(
                "BrowserAct task %s was not stopped within %g seconds. The triggerer keeps trying and logs the outcome "
                "below. If no such line follows, the run keeps running and using credits until it ends or you stop it "
                "in the BrowserAct dashboard.",
                self.browseract_task_id,
                timings.ON_KILL_LIMIT,
            )

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
            async with BrowserActHook(self.browseract_conn_id).async_client(
                within=timings.ON_KILL_CALL_LIMIT
            ) as client:
                # Nothing is said of what a stop makes of a run that has ended, whose result another may just be taking.
                with suppress(BrowserActError):
                    status = await client.send(calls.get_task_status(task_id))
                    if status.ended:
                        self.log.info("BrowserAct task %s is not stopped: it had already ended as %s.", task_id, status)
                        return
                await client.send(calls.stop_task(task_id))
        except NOTHING_TO_STOP:
            self.log.info("BrowserAct task %s is not stopped: it had already ended.", task_id)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not go on unsaid
            where = None
            # Of a task that was cleared, Airflow has deleted the link.
            with suppress(Exception):
                where = await self._xcom(BrowserActTaskLink().xcom_key)
            self.log.error("BrowserAct task %s %s", task_id, not_stopped(error, where))
            return
        self.log.info("BrowserAct task %s was stopped, since nobody waits for it any more.", task_id)

    async def _who_waits(self) -> str | None:
        """Say who waits for the run although this trigger was told to end, or give None."""
        if self.callback_token_sha256 and is_resumed_wait(await self._xcom(WAIT_XCOM), self.first_poll_at):
            return "a callback has resumed the Airflow task."
        ti: Any = self.task_instance
        if self.on_paused == OnPaused.ASK.value and await self._is_answered(str(ti.id)):
            return "the answer of a person has resumed the Airflow task."
        going = await asyncio.to_thread(
            RuntimeTaskInstance.get_ti_count,
            ti.dag_id,
            map_index=ti.map_index,
            task_ids=[ti.task_id],
            run_ids=[ti.run_id],
            # An up_for_retry one has left the run to its next try.
            states=["deferred", "running", "up_for_retry"],
        )
        # Of a task that was cleared, Airflow has deleted the XComs by then; the next try wants another run.
        if going and await self._xcom("task_id") == self.browseract_task_id:
            return "the Airflow task waits for it elsewhere."
        return None

    async def _is_answered(self, question: str) -> bool:
        """Say whether a person has answered a question, this or an earlier one, while this trigger waited."""
        # There may be none; and with a task that was cleared, Airflow has put it away.
        with suppress(Exception):
            found = await _ask_airflow(required_action.find_answer, question)
            return found is not None and found.by is not None and found.at >= self.deferred_at
        return False

    async def _xcom(self, key: str) -> Any:
        return await XCom.aget_one(key=key, **names_of(self.task_instance))


class _XComs:
    """Pushes XComs of a task instance, as that itself can do in workers only."""

    def __init__(self, ti: Any) -> None:
        self._of = names_of(ti)

    def xcom_push(self, key: str, value: Any) -> None:
        XCom.set(key=key, value=value, **self._of)


class TaskSensorTrigger(TaskTrigger):
    """Is the whole of a :class:`~airflow_provider_browseract.sensors.browseract.TaskSensor`, without any worker.

    The scheduler starts it in place of the task (``start_from_trigger``; Airflow 3.3 and later, which renders its
    arguments). A run that has finished is concluded here. All else is left to the sensor in a worker, which has the
    right error for it.

    :param browseract_task_id: the BrowserAct task.
    :param browseract_conn_id: id of the Airflow connection.
    :param poll_interval: seconds between two questions for the status.
    :param output_format: what the text of the output is.
    """

    def __init__(
        self, *, browseract_task_id: str, browseract_conn_id: str, poll_interval: float, output_format: str
    ) -> None:
        super().__init__(
            browseract_task_id=browseract_task_id,
            browseract_conn_id=browseract_conn_id,
            poll_interval=poll_interval,
            # When it will run, only Airflow knows.
            first_poll_at=0.0,
            deadline=0.0,
            # Who waits for a run is not who started it.
            cancel_on_kill=False,
        )
        self.output_format = output_format

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and end the Airflow task with the output of the run, or let the sensor go on in a worker."""
        # The one moment that stays the same, whichever triggerer this is.
        timeout_after: datetime = self.timeout_after  # type: ignore[attr-defined]
        until = timeout_after.replace(tzinfo=timeout_after.tzinfo or timezone.utc).timestamp()
        # A policy of the deployment may have set this after the sensor was made.
        self.deadline = until if getattr(self.task, "execution_timeout", None) else until - timings.TIMEOUT_BACKSTOP
        cleared = await self._clear()
        await self._look()
        event = await self._wait()
        if self._seen is not None and self._seen.status is TaskStatus.FINISHED:
            try:
                async with aclosing(_PatientClient(self.browseract_conn_id)) as client:
                    task = await follow_async(read_late_output(self._seen, time.time()), client, self.log)
                if await asyncio.to_thread(self._conclude, task, cleared):
                    yield TaskSuccessEvent()
                    return
            except Exception as error:  # noqa: BLE001 - a worker comes to the same end, and says so in its own way
                self.log.warning("The result is left to a worker: %s", error)
        yield TriggerEvent(event.payload())  # type: ignore[no-untyped-call]

    async def _clear(self) -> bool:
        """Delete the XComs of an earlier run of the task instance, as Airflow does when a worker starts it.

        Otherwise the result of an earlier BrowserAct task would be passed on if this one has none.

        :returns: whether there are none any more.
        """
        links = (BrowserActTaskLink().xcom_key, LiveViewLink().xcom_key)
        try:
            await asyncio.to_thread(self._delete, (*RESULT_KEYS, "task", *links))
        except Exception as error:  # noqa: BLE001 - tried again before there is a result
            self.log.warning("The XComs of an earlier run of this task could not be deleted yet: %s", error)
            return False
        return True

    def _delete(self, keys: Sequence[str]) -> None:
        ti: Any = self.task_instance
        # Airflow logs an error for each XCom that is looked for and does not exist.
        if ti.try_number > 1:
            delete_xcoms(ti, keys)

    async def _look(self) -> None:
        """Show the run while it goes on, as a worker does; if that fails, the wait tells why."""
        try:
            async with aclosing(_PatientClient(self.browseract_conn_id)) as client:
                task = await client.send(calls.get_task(self.browseract_task_id))
            if not task.status.ended:
                self.log.info("%s", status_line(task))
                self.last_seen, self.steps_told = task.status.value, len(task.steps)
                # This was the first question.
                self.first_poll_at = min(time.time() + self.poll_interval, self.deadline)
                await asyncio.to_thread(show_run, _XComs(self.task_instance), task, self.log)
        except Exception as error:  # noqa: BLE001 - the wait meets the same trouble, and sees to it
            self.log.warning("BrowserAct task %s cannot be shown yet: %s", self.browseract_task_id, error)

    def _conclude(self, task: Task, cleared: bool) -> bool:
        """Push the output, and return whether that was all there is to do.

        It runs in a thread of its own: asgiref has a single one for all triggers, which would wait for a slow XCom
        backend.
        """
        sensor: Any = self.task
        if sensor.multiple_outputs or next(sensor.iter_mapped_dependants(), None) is not None:
            # A policy may have set the one after the sensor was made. For the other, Airflow has to learn how long the
            # output is, and only a worker tells it.
            return False
        if not cleared:
            self._delete(RESULT_KEYS)
        read = read_output(task, OutputFormat(self.output_format), why_unstorable)
        for line in end_lines(task):
            self.log.info("%s", line)
        if read.kept_as_text is not None:
            self.log.warning("%s", as_text_line(read.kept_as_text))
        if pending := pending_line(task):
            self.log.warning("%s", pending)
        xcoms = _XComs(self.task_instance)
        show_run(xcoms, task, self.log)
        # Not with the event, whose XComs know nothing of a backend for XComs.
        if read.value is not None and sensor.do_xcom_push:
            xcoms.xcom_push(XCom.XCOM_RETURN_KEY, read.value)
        count_run(task)
        return True


_SLOTS: dict[str, Slots] = {}
"""What the tasks that wait for room in this triggerer know of the runs, by connection."""


class SlotTrigger(_Stored, BaseTrigger):
    """Waits until BrowserAct seems to have room for one more run. Starts nothing itself, so its end loses nothing.

    :param browseract_conn_id: id of the Airflow connection.
    :param capacity: how many runs went on when there was no room; None if that is not known.
    :param pause: seconds before the first look.
    :param until: moment at which the wait ends in any case, in seconds since the epoch.
    :param queued_since: moment of the first refusal, in seconds since the epoch; the event repeats it.
    :param refusals: how often BrowserAct refused the start; likewise.
    """

    def __init__(
        self,
        *,
        browseract_conn_id: str,
        capacity: int | None,
        pause: float,
        until: float,
        queued_since: float,
        refusals: int,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_conn_id = browseract_conn_id
        self.capacity = capacity
        self.pause = pause
        self.until = until
        self.queued_since = queued_since
        self.refusals = refusals

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and report once that the wait is over; only BrowserAct can tell whether there is a slot."""
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
        # Nothing but the event lasts over a deferral in dag.test().
        said = {"waited_for": "slot", "queued_since": self.queued_since, "refusals": self.refusals}
        yield TriggerEvent(said)  # type: ignore[no-untyped-call]


class TaskFinishedTrigger(_Stored, BaseEventTrigger):
    """Tells of each BrowserAct task that ends, whoever started it: for an Airflow ``AssetWatcher``.

    The ``payload`` in the ``extra`` of the asset's event has under ``tasks`` a dict for each that has ended since the
    event before (:meth:`~airflow_provider_browseract.runs.watching.EndedTask.facts`). It tells what ends after the
    first look.

    On Airflow 3.3 and later all watchers with the same connection and interval share one question. What was told is
    kept in the state of the asset: after a restart of the triggerer the ends since then are told, back to 24 hours. An
    end is told twice if the triggerer is killed within seconds after the first time, or if that could not be kept.
    Before Airflow 3.3 each watcher asks for itself, and what ends while no triggerer runs is not told.

    :param workflow_id: only tasks of this workflow; of all workflows and templates without it.
    :param status: only tasks that ended so: ``"finished"``, ``"failed"``, ``"canceled"``, or several of them. Default:
        all three.
    :param poll_interval: seconds between two questions, 10 at least.
    :param browseract_conn_id: id of the Airflow connection.
    :raises InputError: an argument cannot be used.
    """

    def __init__(
        self,
        *,
        workflow_id: str | None = None,
        status: str | Sequence[str] | None = None,
        poll_interval: float = 60.0,
        browseract_conn_id: str = BrowserActHook.default_conn_name,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.workflow_id = None if workflow_id is None else read_id("workflow_id", workflow_id)
        self.status = [each.value for each in _read_ends(status)]
        self.poll_interval = read_seconds("poll_interval", poll_interval)
        if self.poll_interval < timings.SHORTEST_WATCH_INTERVAL:
            raise InputError(
                f"poll_interval is {poll_interval!r}. Give {timings.SHORTEST_WATCH_INTERVAL:g} seconds at least."
            )
        self.browseract_conn_id = browseract_conn_id

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch alone, as before Airflow 3.3."""
        async with (
            aclosing(self.open_shared_stream(self.serialize()[1])) as looks,
            aclosing(self.filter_shared_stream(looks)) as events,
        ):
            async for event in events:
                yield event

    def shared_stream_key(self) -> Hashable | None:
        """Share the questions with all watchers of the same connection and interval."""
        return (type(self).__qualname__, self.browseract_conn_id, self.poll_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncGenerator[tuple[EndedTask, ...], None]:
        """Ask again and again which tasks have ended lately, and give all of them each time.

        An error does not end it, since that would end all watchers that share it: the connection is read anew.

        :param kwargs: the arguments of one of the watchers.
        """
        window = Window(time.time())
        while True:
            try:
                async with BrowserActHook(kwargs["browseract_conn_id"]).async_client() as client:
                    while True:
                        asked_at = time.time()
                        listed = [task async for task in client.iter_items(window.call())]
                        yield window.add(listed, asked_at)
                        await asyncio.sleep(kwargs["poll_interval"])
            except Exception as error:  # noqa: BLE001 - whatever it is, someone may mend it
                log.error("The tasks of BrowserAct could not be listed; trying again: %s", error)
                await asyncio.sleep(kwargs["poll_interval"])

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[tuple[EndedTask, ...]]
    ) -> AsyncGenerator[TriggerEvent, None]:
        """Pick what this watcher wants to know and has not told yet."""
        statuses = [TaskStatus(status) for status in self.status]
        cursor = await self._kept_cursor()
        async for ended in shared_stream:
            wanted = matching(ended, self.workflow_id, statuses)
            if cursor is None:
                cursor = Cursor.beginning(wanted, time.time())
            elif news := cursor.news(wanted):
                # In one event: another one at once would start no run of a DAG before a third one comes.
                yield TriggerEvent({"tasks": [each.facts() for each in news]})  # type: ignore[no-untyped-call]
                cursor.tell(news, time.time())
                # Rather told twice than never: first Airflow has to have the event.
                await asyncio.sleep(timings.EVENT_STORE_GRACE)
            else:
                continue
            await self._keep(cursor)

    @property
    def _cursor_key(self) -> str:
        # Who watches for something else begins anew.
        return ":".join(["browseract", self.browseract_conn_id, self.workflow_id or "*", *self.status])

    async def _kept_cursor(self) -> Cursor | None:
        store = getattr(self, "asset_state_store", None)
        while store is not None:
            try:
                kept = await store.aget(self._cursor_key)
                return None if kept is None else Cursor.read(kept, time.time())
            except ValueError as error:
                self.log.warning("What was told before cannot be used: %s. Telling what ends from now on.", error)
                break
            except Exception as error:  # noqa: BLE001 - a watcher that ends would begin with the same trouble
                self.log.warning("What was told before cannot be read; trying again: %s", error)
                await asyncio.sleep(timings.ANSWER_POLL_INTERVAL)
        return None

    async def _keep(self, cursor: Cursor) -> None:
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return
        try:
            await store.aset(self._cursor_key, cursor.value())
        except Exception as error:  # noqa: BLE001 - likewise
            self.log.warning("What was told could not be kept; after a restart it may be told again: %s", error)


def _read_ends(status: str | Sequence[str] | None) -> list[TaskStatus]:
    """Check the statuses that a watcher wants to know of."""
    given = [status] if isinstance(status, str) else list(status) if status is not None else list(ENDED)
    known = [each.value for each in ENDED]
    if not given or not all(each in known for each in given):
        raise InputError(f"status is {status!r}. Give one or several of: {', '.join(known)}.")
    return [each for each in ENDED if each.value in given]
