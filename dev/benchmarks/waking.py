"""Four ways to notice that a run has ended. Each records when its execute_complete began.

Ours and the hand-written one also record the processor time of their two task processes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from airflow.providers.http.triggers.http import HttpEventTrigger
from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.emulator import HUMAN
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator


@contextmanager
def processor_time(context: Any, key: str) -> Iterator[None]:
    """Push the processor time of this process, from its beginning to the end of the block, in seconds."""
    try:
        yield
    finally:
        context["ti"].xcom_push(key=key, value=time.process_time())


class Timed(RunWorkflowOperator):
    """Our operator, with clocks."""

    def execute(self, context: Any) -> Any:
        """Start and defer."""
        with processor_time(context, "first_process"):
            return super().execute(context)

    def execute_complete(self, context: Any, event: Any, wait: dict[str, Any] | None = None) -> Any:
        """Record the time, and continue."""
        context["ti"].xcom_push(key="resumed_at", value=time.time())
        with processor_time(context, "second_process"):
            return super().execute_complete(context, event, wait)


class AtThatMoment(BaseTrigger):
    """Fires in the triggerer at the exact moment: the lower limit for any trigger that polls."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Name class and arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"at": self.at}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep until then."""
        await asyncio.sleep(max(0.0, self.at - time.time()))
        yield TriggerEvent({"at": self.at})


class WaitsForThatMoment(BaseOperator):
    """Defers on a trigger that knows the moment beforehand."""

    def __init__(self, *, after: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.after = after

    def execute(self, context: Any) -> None:
        """Defer."""
        self.defer(trigger=AtThatMoment(time.time() + self.after), method_name="execute_complete")

    def execute_complete(self, context: Any, event: Any) -> None:
        """Note both moments."""
        context["ti"].xcom_push(key="resumed_at", value=time.time())
        context["ti"].xcom_push(key="ended_at", value=event["at"])


async def has_ended(response: Any) -> bool:
    """Return whether a response to get-task-status reports the end."""
    return "finished" in response.text


class HandWritten(BaseOperator):
    """What one writes today without this provider's operator: a start, and a deferral on the http provider."""

    def execute(self, context: Any) -> None:
        """Start a run and defer."""
        with processor_time(context, "first_process"):
            created = BrowserActHook().run_task(HUMAN.id)
            context["ti"].xcom_push(key="task_id", value=created.id)
            self.defer(
                trigger=HttpEventTrigger(
                    http_conn_id="browseract_http",
                    endpoint=f"/v2/workflow/get-task-status?task_id={created.id}",
                    response_check_path=f"{__name__}.has_ended",
                    poll_interval=10.0,
                ),
                method_name="execute_complete",
            )

    def execute_complete(self, context: Any, event: Any) -> Any:
        """Note the moment, and return the output."""
        context["ti"].xcom_push(key="resumed_at", value=time.time())
        with processor_time(context, "second_process"):
            ti = context["ti"]
            task = BrowserActHook().get_task(ti.xcom_pull(key="task_id", map_indexes=ti.map_index))
            return task.output and task.output.string
