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
from airflow_provider_browseract.runs.stored import Count, Moment, Seconds, Text, from_json

PAUSE_GROWTH = 1.5
"""Factor by which each pause is longer than the previous one."""

PAUSE_SPREAD = 0.5
"""Fraction of a pause that is random, so that tasks that were refused together do not try again together."""

MAX_UNEXPECTED_REFUSALS = 2
"""How many starts may be refused although there seemed to be a free slot. After that, the plan has fewer slots than
expected or, if only one workflow is refused while others wait, only this workflow has to wait."""

MAX_LISTED = 100
"""How many active runs are listed for each status. Any further ones are counted, but not recognized as new."""


@dataclass(frozen=True)
class Queued:
    """The place of a task instance in the queue, and its refusals.

    :param since: when the DAG run of the task instance began, in seconds since the epoch.
    :param began: from when on ``queue_timeout`` counts: when this try began, or when its wait for the budget ended.
    :param refusals: how often BrowserAct has refused the start in this try.
    """

    since: Moment
    began: Moment
    refusals: Count = 0
    priority: int = 1

    @property
    def place(self) -> tuple[int, float, float]:
        """Where the task instance stands in the queue; the lowest place is first."""
        return -self.priority, self.since, self.began

    @classmethod
    def read(cls, stored: Any) -> Queued:
        """Read what a trigger has stored."""
        return from_json(cls, stored)

    def refused(self) -> Queued:
        """Return the same after another refusal."""
        return replace(self, refusals=self.refusals + 1)


@dataclass(frozen=True)
class QueueWait:
    """A wait for a slot, as the trigger stores it.

    :param until: when the wait ends in any case, in seconds since the epoch.
    :param source: the workflow or template. BrowserAct may refuse only its runs, as with a Standard Browser.
    :param active: how many runs were active right after the refusal; None if that is not known.
    :param pause: seconds after which the start is tried again, whatever the count shows, because the refusal was not
        about the number of runs; None to wait for a slot.
    :param key_digest: digest of the API key. All connections with the same key share one queue. None if an older
        version has stored the wait, which then shares only the queue of its connection.
    :param api_version: version of the API that runs the source.
    :param not_before: when the wait for the budget of the account ends and the task instance joins the queue, in
        seconds since the epoch; None if it does not wait for the budget.
    """

    queued: Queued
    until: Moment
    source: str = ""
    active: Count | None = None
    pause: Seconds | None = None
    key_digest: Text | None = None
    api_version: ApiVersion = ApiVersion.V2
    not_before: Moment | None = None

    @property
    def versions(self) -> frozenset[ApiVersion]:
        """The versions of the API whose active runs are counted while the task instance waits."""
        return versions_to_count(self.api_version)

    def active_in(self, versions: frozenset[ApiVersion]) -> int | None:
        """Return how many runs of these versions were active right after the refusal; None if that is not known."""
        return self.active if self.versions == versions else None

    def waits_for_budget(self, now: float) -> bool:
        """Return whether the task instance still waits for the budget of the account."""
        return self.not_before is not None and now < self.not_before


@dataclass(frozen=True)
class Active:
    """The active runs of an account.

    :param ids: the ids of at most :data:`MAX_LISTED` for each status and version of the API.
    """

    number: int
    ids: frozenset[str]


def versions_to_count(api_version: ApiVersion) -> frozenset[ApiVersion]:
    """Return the versions of the API whose active runs are counted when a run of one version is refused.

    Runs of all versions share the slots of a plan. But whoever runs no bots should not need requests for them.
    """
    return frozenset({ApiVersion.V2, api_version})


def count_active(versions: Collection[ApiVersion]) -> Generator[Call[Page[Task]], Any, Active | None]:
    """Count the active runs of the account in versions of the API; None if BrowserAct does not return their number.

    The lists of two versions may show the same runs, or each only its own. So runs are counted by their ids.
    """
    numbers, ids, all_listed, same_runs = [], frozenset[str](), True, False
    for api_version in sorted(versions):
        number, listed, found = 0, 0, set()
        for status in filter(lambda each: each.holds_slot, TaskStatus):
            page: Page[Task] = yield APIS[api_version].list_tasks(status=status, limit=MAX_LISTED)
            if page.total_count is None:
                return None
            number += page.total_count
            listed += len(page.items)
            found |= {task.id for task in page.items}
        numbers.append(number)
        all_listed &= listed == number
        same_runs |= not ids.isdisjoint(found)
        ids |= found
    if all_listed:
        # A run whose status changes in between is listed twice.
        return Active(len(ids), ids)
    return Active(max(numbers) if same_runs else sum(numbers), ids)


def pause_after(refusals: int, chance: Callable[[], float]) -> float:
    """Return the seconds to wait before a start is tried again without knowledge of slots.

    :param chance: returns a random number from 0 to 1.
    """
    pause = min(timings.LONGEST_SLOT_PAUSE, timings.FIRST_SLOT_PAUSE * PAUSE_GROWTH ** min(refusals - 1, 10))
    return pause * (1 + PAUSE_SPREAD * chance())
