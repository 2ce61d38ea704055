"""The runs of an account that are active or ended lately, as both versions of the API list them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.api.pages import list_items
from airflow_provider_browseract.panel.client import AccountClient, Steps
from airflow_provider_browseract.runs.watching import REPORT_WINDOW, Window

RUNS_INTERVAL = 10.0
"""Seconds between two reads of the runs of an account."""

NO_BOTS_INTERVAL = 60.0
"""Seconds between two reads of the list of version 3, as long as it has no run that the other list does not have."""

PAGE_SIZE = 100
MAX_REQUESTS = 20
"""List requests of one read of one version. With pages of 100, they read 2,000 runs."""


class Runs(NamedTuple):
    """The runs of an account that are active or ended lately, the newest first.

    :param truncated: some runs were not read: there are more than were listed, or one was too large.
    """

    tasks: tuple[Task, ...]
    truncated: bool


class RunLists:
    """The lists of one account, one for each version of the API. It is not documented whether they overlap.

    The list of version 3 is read less often while nobody seems to run bots.
    """

    def __init__(self, client: AccountClient) -> None:
        self.workflows = client.kept(_reader(client, ApiVersion.V2), lambda _: RUNS_INTERVAL)
        self.bots = client.kept(_reader(client, ApiVersion.V3), self._keep_bots)

    @property
    def runs(self) -> Runs:
        """The runs that are known, each once."""
        # Of a run that both list, what version 2 says counts.
        read = [kept.known.value for kept in (self.bots, self.workflows) if kept.known.value is not None]
        tasks = {task.id: task for each in read for task in each.tasks}
        newest = sorted(tasks.values(), key=lambda task: -task.created_at.timestamp() if task.created_at else 0.0)
        return Runs(tuple(newest), any(each.truncated for each in read))

    def _keep_bots(self, bots: Runs) -> float:
        others = {task.id for task in self.workflows.known.value.tasks} if self.workflows.known.value else set()
        return RUNS_INTERVAL if any(task.id not in others for task in bots.tasks) else NO_BOTS_INTERVAL


def _reader(client: AccountClient, api_version: ApiVersion) -> Callable[[], Steps[Runs]]:
    window, listed_at, truncated_at = Window(0.0), -inf, -inf

    def read() -> Steps[Runs]:
        nonlocal window, listed_at, truncated_at
        now = client.clock()
        # After a day without viewers, the list of a new window is shorter.
        if now - listed_at > REPORT_WINDOW:
            window = Window(now, api_version)
        listing = yield from list_items(window.call(PAGE_SIZE), MAX_REQUESTS)
        window.add(listing.items, now, incomplete=listing.incomplete)
        listed_at = now
        if listing.incomplete:
            truncated_at = now
        return Runs(tuple(window.tasks), now - truncated_at < REPORT_WINDOW)

    return read
