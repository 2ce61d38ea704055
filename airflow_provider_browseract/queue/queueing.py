"""The queue for slots: BrowserAct accepts a limited number of concurrent runs, and does not queue further ones.

A task instance whose start is refused joins the queue of its API key. When a slot becomes free, one task instance is
woken: the one with the highest priority, and of these the one whose DAG run began first. It tries its start again,
because only BrowserAct decides. If the start is refused again, the task instance returns to its place.

``slot_queue.py`` decides in the triggerer who is woken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, Page, Task, TaskStatus
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.stored import Count, Moment, Text

PAUSE_GROWTH = 1.5
"""Factor by which each pause is longer than the previous one."""

PAUSE_SPREAD = 0.5
"""Fraction of a pause that is random, so that tasks that were refused together do not try again together."""

MAX_LISTED = 100
"""How many active runs are listed for each status. The largest plan has 20 slots."""


@dataclass(frozen=True)
class Queued:
    """The place of a task instance in the queue, and its refusals.

    :param since: when the DAG run of the task instance began, in seconds since the epoch.
    :param began: from when on ``queue_timeout`` counts: when this try began, or when its wait for the budget ended.
    :param refusals: how often BrowserAct has refused the start in this try.
    :param priority: the ``priority_weight`` of the Airflow task.
    :param map_index: Airflow's index of a mapped task instance; -1 without a mapping.
    """

    since: Moment
    began: Moment
    refusals: Count = 0
    priority: int = 1
    map_index: int = -1

    @property
    def place(self) -> tuple[int, float, int, float]:
        """Where the task instance stands in the queue; the lowest place is first."""
        return -self.priority, self.since, self.map_index, self.began

    def refused(self) -> Queued:
        """Return the same after another refusal."""
        return replace(self, refusals=self.refusals + 1)


@dataclass(frozen=True)
class QueueWait:
    """A wait for a slot, as the trigger stores it.

    :param until: when the wait ends in any case, in seconds since the epoch.
    :param source: the workflow, bot or template. BrowserAct may refuse only its runs, as with a Standard Browser.
    :param key_digest: digest of the API key. All connections with the same key share one queue.
    :param not_before: when the task instance joins the queue, in seconds since the epoch: after Airflow has ended its
        process, after HTTP 429, or when the wait for the budget ends.
    :param api_version: version of the API that runs the source.
    :param for_budget: until ``not_before``, it waits for the budget of the account.
    """

    queued: Queued
    until: Moment
    source: str
    key_digest: Text
    not_before: Moment
    api_version: ApiVersion = ApiVersion.V2
    for_budget: bool = False

    @property
    def versions(self) -> frozenset[ApiVersion]:
        """The versions of the API whose active runs are counted while the task instance waits."""
        # Runs of all versions share the slots of a plan. But whoever runs no bots should not need requests for them.
        return frozenset({ApiVersion.V2, self.api_version})

    def waits_for_budget(self, now: float) -> bool:
        """Return whether the task instance still waits for the budget of the account."""
        return self.for_budget and now < self.not_before


def active_runs(versions: Collection[ApiVersion]) -> Generator[Call[Page[Task]], Any, frozenset[str]]:
    """Return the ids of the active runs of the account in versions of the API. Their lists may show the same runs."""
    ids = set[str]()
    for api_version in sorted(versions):
        for status in filter(lambda each: each.holds_slot, TaskStatus):
            page: Page[Task] = yield APIS[api_version].list_tasks(status=status, limit=MAX_LISTED)
            ids |= {task.id for task in page.items}
    return frozenset(ids)


def pause_after(refusals: int, chance: Callable[[], float]) -> float:
    """Return the seconds to wait before a start is tried again without knowledge of slots.

    :param chance: returns a random number from 0 to 1.
    """
    pause = min(timings.LONGEST_SLOT_PAUSE, timings.FIRST_SLOT_PAUSE * PAUSE_GROWTH ** min(refusals - 1, 10))
    return pause * (1 + PAUSE_SPREAD * chance())
