"""A trigger that does the whole work of a sensor, without a worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime, timezone
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.hooks.hiding import Hiding
from airflow_provider_browseract.hooks.steps import run_steps_async
from airflow_provider_browseract.hooks.xcoms import RESULT_KEYS, RETURN_KEY, XComs, delete_xcoms, why_unstorable
from airflow_provider_browseract.links.browseract import BrowserActTaskLink, LiveViewLink
from airflow_provider_browseract.links.showing import count_run, show_run
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.late_output import read_late_output
from airflow_provider_browseract.runs.outputs import (
    OutputFormat,
    as_text_line,
    doubtful_line,
    pending_line,
    read_output,
    storable,
)
from airflow_provider_browseract.runs.report import end_lines, status_line
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.waiting import Wait, WaitPolicy
from airflow_provider_browseract.triggers.polling import PatientClient, poll_until_end
from airflow_provider_browseract.triggers.serializing import serialized


class TaskSensorTrigger(BaseTrigger):
    """Do the work of a :class:`~airflow_provider_browseract.sensors.browseract.TaskSensor` in the triggerer.

    The scheduler starts the trigger instead of the task (``start_from_trigger``; Airflow 3.3 and later, which renders
    its arguments). The trigger returns the result of a run that has finished. In all other cases, the sensor continues
    in a worker and raises the right error.

    :param browseract_task_id: id of the BrowserAct task.
    :param browseract_conn_id: id of the Airflow connection.
    :param poll_interval: seconds between two polls.
    :param output_format: format of the output's text.
    :param show_live_view: show the address of the live view in the log and in XComs.
    """

    def __init__(
        self,
        *,
        browseract_task_id: str,
        browseract_conn_id: str,
        poll_interval: float,
        output_format: str,
        show_live_view: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.browseract_task_id = browseract_task_id
        self.browseract_conn_id = browseract_conn_id
        self.poll_interval = poll_interval
        self.output_format = output_format
        self.show_live_view = show_live_view

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments: plain JSON values, none of them secret."""
        names = ("browseract_task_id", "browseract_conn_id", "poll_interval", "output_format", "show_live_view")
        return serialized(self, *names)

    def _client(self) -> PatientClient:
        return PatientClient(self.browseract_conn_id, hiding=Hiding(live_view=not self.show_live_view))

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and end the Airflow task with the output of the run, or let the sensor continue in a worker."""
        # This moment stays the same when another triggerer takes over.
        timeout_after: datetime = self.timeout_after  # type: ignore[attr-defined]
        until = timeout_after.replace(tzinfo=timeout_after.tzinfo or timezone.utc).timestamp()
        # A cluster policy may have set this after the sensor was created.
        has_own_timeout = getattr(self.task, "execution_timeout", None)
        wait = Wait(
            self.browseract_task_id,
            until if has_own_timeout else until - timings.TIMEOUT_BACKSTOP,
            policy=WaitPolicy(poll_interval=self.poll_interval, show_live_view=self.show_live_view),
            interval=self.poll_interval,
        )
        cleared = await self._clear()
        event, seen = await poll_until_end(await self._look(wait), self.browseract_conn_id, self.log)
        if seen is not None and seen.status is TaskStatus.FINISHED:
            try:
                async with aclosing(self._client()) as client:
                    task = await run_steps_async(read_late_output(seen, time.time()), client, self.log)
                if await asyncio.to_thread(self._conclude, task, cleared):
                    yield TaskSuccessEvent()
                    return
            except Exception as error:  # noqa: BLE001 - a worker gets the same error, and raises it
                self.log.warning("The sensor continues in a worker, because it could not push the result: %s", error)
        yield TriggerEvent(to_json(event))  # type: ignore[no-untyped-call]

    async def _clear(self) -> bool:
        """Delete the XComs of an earlier run of the task instance, as Airflow does when a worker starts it.

        Otherwise the result of an earlier BrowserAct task would be passed on if this one has none.

        :returns: whether they could be deleted.
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
        # Airflow logs an error for each requested XCom that does not exist.
        if ti.try_number > 1:
            delete_xcoms(ti, keys)

    async def _look(self, wait: Wait) -> Wait:
        """Show the run while it is active, as a worker does, and return the wait that follows.

        If the run cannot be read, the polls of the wait report the reason.
        """
        try:
            async with aclosing(self._client()) as client:
                task = await client.send(calls.get_task(self.browseract_task_id))
            if task.status.ended:
                return wait
            self.log.info("%s", status_line(task))
            _, wait = wait.news(task)
            await asyncio.to_thread(show_run, XComs(self.task_instance), task, self.log)
            # The request above counts as the first poll.
            return wait.begun(time.time())
        except Exception as error:  # noqa: BLE001 - the wait gets the same error, and reports it
            self.log.warning("BrowserAct task %s cannot be read or shown yet: %s", self.browseract_task_id, error)
            return wait

    def _conclude(self, task: Task, cleared: bool) -> bool:
        """Push the output, and return whether there is nothing left to do.

        Call this in a separate thread: asgiref has a single thread for all triggers, which a slow XCom backend would
        block.
        """
        sensor: Any = self.task
        if sensor.multiple_outputs or next(sensor.iter_mapped_dependants(), None) is not None:
            # A cluster policy may have set multiple_outputs after the sensor was created. For mapped dependants,
            # Airflow needs the length of the output, which only a worker reports.
            return False
        if task.unread is not None or task.files_left_out:
            # Only a worker can read the run, or explain why not.
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
        xcoms = XComs(self.task_instance)
        if read.doubt is not None and task.output is not None:
            xcoms.xcom_push("output_text", storable(task.output.string or ""))
            self.log.warning("%s", doubtful_line(read.doubt, "The text is stored in the XCom output_text."))
        show_run(xcoms, task, self.log)
        # Not with the event, because Airflow would not use a custom XCom backend for it.
        if read.value is not None and sensor.do_xcom_push:
            xcoms.xcom_push(RETURN_KEY, read.value)
        count_run(task)
        return True
