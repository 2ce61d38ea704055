"""Wait for a slot: a run cannot be started as long as BrowserAct accepts no further one."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow_provider_browseract.compat import TaskDeferred
from airflow_provider_browseract.exceptions import (
    ConcurrencyLimitError,
    NoSlotError,
    RateLimitError,
)
from airflow_provider_browseract.queue.queueing import (
    Queued,
    QueueWait,
    pause_after,
)
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import IF_NO_LINE_FOLLOWS
from airflow_provider_browseract.worker.own_run import OwnRun
from airflow_provider_browseract.worker.showing import show_wait

NO_SLOT_NOW = "BrowserAct has no free slot now, and has refused the start %s. Waiting for at most %s. (%s)%s"
TOO_MANY_REQUESTS = (
    "BrowserAct has received too many requests, and has refused the start %s. Waiting for at most %s. (%s)%s"
)


@dataclass(frozen=True, repr=False)
class SlotWait:
    """A wait for a slot after a refused start.

    :param queued: the place of the task instance in the queue, and its refusals with this one.
    :param limit: seconds that the task instance may be in the queue.
    :param deferrable: wait in the triggerer.
    """

    run: OwnRun
    ti: Any
    refused: ConcurrencyLimitError | RateLimitError
    queued: Queued
    limit: float
    deferrable: bool

    def wait(self) -> None:
        """Wait until there may be a free slot.

        :raises TaskDeferred: the wait has begun in the triggerer.
        :raises NoSlotError: the limit is reached.
        """
        run, queued = self.run, self.queued
        run.check()
        now, until = time.time(), queued.began + self.limit
        if now >= until:
            raise NoSlotError(
                f"BrowserAct had no free slot within {_in_words(self.limit)}. No run was started.\n"
                f"Raise queue_timeout to wait longer. {self.refused.advice}\n"
                f"BrowserAct has refused {queued.refusals} starts. ({self.refused.brief})"
            )
        self._report(until - now)
        pause = max(pause_after(queued.refusals, random.random), self.refused.retry_after or 0.0)
        pause = min(pause, timings.LONGEST_RETRY_AFTER)
        if not self.deferrable:
            run.sleep(min(pause, until - now))
            run.check()
            return
        from airflow_provider_browseract.triggers.slot import SlotTrigger

        # HTTP 429 is not about the number of runs, so no free slot ends its pause.
        grace = timings.QUEUE_RACE_GRACE if self._about_slots else max(pause, timings.QUEUE_RACE_GRACE)
        ends = max(until, now + timings.QUEUE_RACE_GRACE)
        wait = QueueWait(
            queued,
            ends,
            str(run.source),
            run.hook.settings.key_digest,
            min(now + grace, ends),
            run.source.api_version,
        )
        raise TaskDeferred(
            trigger=SlotTrigger(browseract_conn_id=run.hook.browseract_conn_id, wait=wait),
            method_name="execute_queued",
            timeout=timedelta(seconds=until - now + timings.TIMEOUT_BACKSTOP),
        )

    @property
    def _about_slots(self) -> bool:
        return isinstance(self.refused, ConcurrencyLimitError)

    def _report(self, left: float) -> None:
        """Log the refusal, and show in Airflow what the task instance waits for."""
        log, refusals = self.run.log, self.queued.refusals
        log.info(
            NO_SLOT_NOW if self._about_slots else TOO_MANY_REQUESTS,
            "once" if refusals == 1 else f"{refusals} times",
            _in_words(left),
            self.refused.message,
            f" {IF_NO_LINE_FOLLOWS}" if self.deferrable else "",
        )
        show_wait(self.ti, {"waits_for": "slot", "refusals": refusals}, log, link=True)


def _in_words(seconds: float) -> str:
    """Return a length of time as a person reads it."""
    if seconds < 120:
        return f"{round(seconds, 1):g} seconds"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
