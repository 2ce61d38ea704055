"""Two ways to notice that a run has ended. Each records when its execute_complete began."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator


class Timed(RunWorkflowOperator):
    """Our operator, with a clock."""

    def execute_complete(self, context: Any, event: Any, wait: dict[str, Any] | None = None) -> Any:
        """Record the time, and continue."""
        context["ti"].xcom_push(key="resumed_at", value=time.time())
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
        """Record both moments."""
        context["ti"].xcom_push(key="resumed_at", value=time.time())
        context["ti"].xcom_push(key="ended_at", value=event["at"])
