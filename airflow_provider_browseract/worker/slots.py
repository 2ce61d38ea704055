"""Wait for a slot: a run cannot be started as long as BrowserAct accepts no further one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api.errors import BrowserActError, ConcurrencyLimitError
from airflow_provider_browseract.in_airflow.showing import show_wait
from airflow_provider_browseract.loops import run_steps, sleep
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.outcome import NoSlotError
from airflow_provider_browseract.runs.queueing import Active, Queued, QueueWait, count_active, pause_after
from airflow_provider_browseract.runs.report import IF_NO_LINE_FOLLOWS
from airflow_provider_browseract.runs.starting import StartRefused
from airflow_provider_browseract.worker.owned_run import OwnedRun

if TYPE_CHECKING:
    from airflow.sdk import Context

NO_SLOT_NOW = "BrowserAct has no free slot now; %s. BrowserAct has refused the start %s. Waiting for at most %s. (%s)%s"
TOO_MANY_REQUESTS = (
    "BrowserAct has received too many requests; %s. BrowserAct has refused the start %s. Waiting for at most %s. (%s)%s"
)


def wait_for_slot(
    run: OwnedRun,
    context: Context,
    refused: StartRefused,
    queued: Queued,
    limit: float,
    defer: Callable[..., Any] | None,
) -> None:
    """Wait until there may be a free slot, in this worker or, by raising the deferral, in the triggerer.

    :param queued: how long the task instance has been in the queue, including this refusal.
    :param limit: seconds that the task instance may be in the queue.
    :param defer: the operator's ``defer``; None to wait in this worker.
    :raises NoSlotError: the limit is reached.
    """
    run.raise_if_killed()
    about_slots = isinstance(refused.error, ConcurrencyLimitError)
    # HTTP 429 is not about the number of runs, and counting sends further requests.
    active = _count_active(run) if about_slots else None
    shown = _active_runs(active, queued) if about_slots else "it accepts no start for a while"
    now, until = time.time(), queued.began + limit
    if now >= until:
        if run.tries is not None:
            run.tries.give_up_place()
        raise NoSlotError(
            f"BrowserAct had no free slot within {_in_words(limit)} and refused {queued.refusals} starts; {shown}. "
            f"No run was started.\n{refused.error}\nRaise queue_timeout to wait longer for a slot."
        )
    run.log.info(
        NO_SLOT_NOW if about_slots else TOO_MANY_REQUESTS,
        shown,
        "once" if queued.refusals == 1 else f"{queued.refusals} times",
        _in_words(until - now),
        refused.error.message,
        "" if defer is None else f" {IF_NO_LINE_FOLLOWS}",
    )
    # At the first refusal, the only run may just have ended.
    if about_slots and active is not None and active.number == 0 and queued.refusals == 2:
        run.log.warning(
            "BrowserAct refuses the start although no run is active. The task tries again with increasing pauses. If "
            "this continues, check the plan in the BrowserAct dashboard."
        )
    number = None if active is None else active.number
    show_wait(context["ti"], None, {"waits_for": "slot", "refusals": queued.refusals, "active_runs": number}, run.log)
    pause = max(pause_after(queued.refusals, random.random), refused.error.retry_after or 0.0)
    pause = min(pause, timings.LONGEST_RETRY_AFTER)
    if defer is None:
        sleep(min(pause, until - now), run.raise_if_killed)
        run.raise_if_killed()
        return
    from airflow_provider_browseract.triggers.slot import SlotTrigger

    wait = QueueWait(
        queued,
        max(until, now + timings.CORE_RACE_GRACE),
        source=str(run.source),
        active=number,
        pause=None if about_slots else pause,
        handed_over=run.hook.settings.webhook_base_url is not None,
        key_digest=run.hook.settings.client.key_digest,
    )
    defer(
        trigger=SlotTrigger(browseract_conn_id=run.hook.browseract_conn_id, wait=wait),
        method_name="execute_queued",
        timeout=timedelta(seconds=until - now + timings.TIMEOUT_BACKSTOP),
    )


def _active_runs(active: Active | None, queued: Queued) -> str:
    """Return how many runs are active after a refusal, as a clause."""
    if active is None:
        return "an unknown number of runs are active"
    if active.number == 0:
        return "the run that had the slot has just ended" if queued.refusals == 1 else "no run is active any more"
    return "1 run is active" if active.number == 1 else f"{active.number} runs are active"


def _in_words(seconds: float) -> str:
    """Return a length of time as a person reads it."""
    if seconds < 120:
        return f"{round(seconds, 1):g} seconds"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _count_active(run: OwnedRun) -> Active | None:
    try:
        return run_steps(count_active(), run.hook.client, run.log)
    except BrowserActError:
        return None
