"""Wait for a slot: a run cannot be started as long as BrowserAct accepts no further one."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import NoReturn

from airflow_provider_browseract.compat import TaskDeferred
from airflow_provider_browseract.exceptions import ConcurrencyLimitError, NoSlotError, RateLimitError
from airflow_provider_browseract.queue.queueing import Queued, QueueWait, pause_after
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import IF_NO_LINE_FOLLOWS
from airflow_provider_browseract.worker.own_run import OwnRun
from airflow_provider_browseract.worker.showing import show_wait

NO_SLOT_NOW = "BrowserAct has no free slot now, and has refused the start"
TOO_MANY_REQUESTS = "BrowserAct has received too many requests, and has refused the start"


def wait_for_slot(
    run: OwnRun, refused: ConcurrencyLimitError | RateLimitError, queued: Queued, limit: float, *, deferrable: bool
) -> None:
    """Wait until there may be a free slot.

    :param queued: the place of the task instance in the queue, and its refusals with this one.
    :param limit: seconds that the task instance may be in the queue.
    :param deferrable: wait in the triggerer.
    :raises TaskDeferred: the wait has begun in the triggerer.
    :raises NoSlotError: the limit is reached.
    """
    run.check()
    now, until = time.time(), queued.began + limit
    if now >= until:
        raise NoSlotError(
            f"BrowserAct had no free slot within {_in_words(limit)}. No run was started.\n"
            f"Raise queue_timeout to wait longer. {refused.advice}\n"
            f"BrowserAct has refused {queued.refusals} starts. ({refused.brief})"
        )
    about_slots = isinstance(refused, ConcurrencyLimitError)
    run.log.info(
        f"{NO_SLOT_NOW if about_slots else TOO_MANY_REQUESTS} %s. Waiting for at most %s. (%s)%s",
        "once" if queued.refusals == 1 else f"{queued.refusals} times",
        _in_words(until - now),
        refused.message,
        f" {IF_NO_LINE_FOLLOWS}" if deferrable else "",
    )
    show_wait(run.ledger.ti, {"waits_for": "slot", "refusals": queued.refusals}, run.log, link=True)
    pause = max(pause_after(queued.refusals, random.random), refused.retry_after or 0.0)
    pause = min(pause, timings.LONGEST_RETRY_AFTER)
    if not deferrable:
        run.sleep(min(pause, until - now))
        run.check()
        return
    # HTTP 429 is not about the number of runs, so no free slot ends its pause.
    grace = timings.QUEUE_RACE_GRACE if about_slots else max(pause, timings.QUEUE_RACE_GRACE)
    until = max(until, now + timings.QUEUE_RACE_GRACE)
    defer_to_queue(run, queued, not_before=min(now + grace, until), until=until)


def defer_to_queue(
    run: OwnRun, queued: Queued, *, not_before: float, until: float, for_budget: bool = False
) -> NoReturn:
    """Continue in the triggerer; ``execute_queued`` is called when the start should be tried.

    :param not_before: when the task instance joins the queue, in seconds since the epoch.
    :param until: when the wait ends in any case.
    :param for_budget: until ``not_before``, it waits for the budget of the account.
    :raises TaskDeferred: always.
    """
    from airflow_provider_browseract.triggers.slot import SlotTrigger

    key_digest, source = run.hook.settings.key_digest, run.source
    wait = QueueWait(queued, until, str(source), key_digest, not_before, source.api_version, for_budget)
    raise TaskDeferred(
        trigger=SlotTrigger(browseract_conn_id=run.hook.browseract_conn_id, wait=wait),
        method_name="execute_queued",
        timeout=timedelta(seconds=until - time.time() + timings.TIMEOUT_BACKSTOP),
    )


def _in_words(seconds: float) -> str:
    """Return a length of time as a person reads it."""
    if seconds < 120:
        return f"{round(seconds, 1):g} seconds"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
