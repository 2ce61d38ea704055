"""Wait for a slot: a run cannot be started as long as BrowserAct accepts no further one."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow_provider_browseract.compat import TaskDeferred
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    ConcurrencyLimitError,
    NoSlotError,
    RateLimitError,
)
from airflow_provider_browseract.loops import send_all
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import (
    Active,
    Queued,
    QueueWait,
    count_active,
    pause_after,
    versions_to_count,
)
from airflow_provider_browseract.runs.report import IF_NO_LINE_FOLLOWS
from airflow_provider_browseract.worker.own_run import OwnRun
from airflow_provider_browseract.worker.showing import show_wait_before_start

NO_SLOT_NOW = "BrowserAct has no free slot now; %s. BrowserAct has refused the start %s. Waiting for at most %s. (%s)%s"
TOO_MANY_REQUESTS = (
    "BrowserAct has received too many requests; %s. BrowserAct has refused the start %s. Waiting for at most %s. (%s)%s"
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
        active = self._count_active()
        now, until = time.time(), queued.began + self.limit
        if now >= until:
            raise NoSlotError(
                f"BrowserAct had no free slot within {_in_words(self.limit)}. No run was started.\n"
                f"Raise queue_timeout to wait longer. {self.refused.advice}\n"
                f"BrowserAct has refused {queued.refusals} starts; {self._active_runs(active)}. ({self.refused.brief})"
            )
        self._report(active, until - now)
        pause = max(pause_after(queued.refusals, random.random), self.refused.retry_after or 0.0)
        pause = min(pause, timings.LONGEST_RETRY_AFTER)
        if not self.deferrable:
            run.sleep(min(pause, until - now))
            run.check()
            return
        from airflow_provider_browseract.triggers.slot import SlotTrigger

        wait = QueueWait(
            queued,
            max(until, now + timings.QUEUE_RACE_GRACE),
            source=str(run.source),
            active=None if active is None else active.number,
            pause=None if self._about_slots else pause,
            key_digest=run.hook.settings.key_digest,
            api_version=run.source.api_version,
        )
        raise TaskDeferred(
            trigger=SlotTrigger(browseract_conn_id=run.hook.browseract_conn_id, wait=wait),
            method_name="execute_queued",
            timeout=timedelta(seconds=until - now + timings.TIMEOUT_BACKSTOP),
        )

    @property
    def _about_slots(self) -> bool:
        """Whether BrowserAct has no slot. HTTP 429 is not about the number of runs."""
        return isinstance(self.refused, ConcurrencyLimitError)

    def _count_active(self) -> Active | None:
        # After HTTP 429, counting would send further requests.
        if self._about_slots:
            with suppress(BrowserActError):
                versions = versions_to_count(self.run.source.api_version)
                return send_all(count_active(versions), self.run.hook.client)
        return None

    def _active_runs(self, active: Active | None) -> str:
        """Return how many runs are active after the refusal, as a clause."""
        if not self._about_slots:
            return "it accepts no start for a while"
        if active is None:
            return "an unknown number of runs are active"
        if active.number == 0:
            once = self.queued.refusals == 1
            # A new run is listed about two seconds after its start.
            started = "the run that has the slot has only just started, or has just ended"
            return f"it lists no active run: {started}" if once else "it lists no active run any more"
        return "1 run is active" if active.number == 1 else f"{active.number} runs are active"

    def _report(self, active: Active | None, left: float) -> None:
        """Log the refusal, and show in Airflow what the task instance waits for."""
        log, refusals = self.run.log, self.queued.refusals
        log.info(
            NO_SLOT_NOW if self._about_slots else TOO_MANY_REQUESTS,
            self._active_runs(active),
            "once" if refusals == 1 else f"{refusals} times",
            _in_words(left),
            self.refused.message,
            f" {IF_NO_LINE_FOLLOWS}" if self.deferrable else "",
        )
        number = None if active is None else active.number
        # At the first refusal, the only run may just have started or ended.
        if number == 0 and refusals == 2:
            log.warning(
                "BrowserAct refuses the start although it lists no active run. The task tries again with increasing "
                "pauses. If this continues, check in the BrowserAct dashboard which runs are active, such as those of "
                "bots, and how many the plan allows."
            )
        shown = {"waits_for": "slot", "refusals": refusals, "active_runs": number}
        show_wait_before_start(self.ti, shown, log)


def _in_words(seconds: float) -> str:
    """Return a length of time as a person reads it."""
    if seconds < 120:
        return f"{round(seconds, 1):g} seconds"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
