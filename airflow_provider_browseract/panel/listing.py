"""The runs of an account that are active or ended lately, as both versions of the API list them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.panel.client import AccountClient
from airflow_provider_browseract.panel.kept import NO_FAILURE
from airflow_provider_browseract.runs.watching import REPORT_WINDOW, Window, list_changes

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
        self._of: tuple[Runs | None, Runs | None] = (None, None)
        self._runs = Runs((), False)

    @property
    def runs(self) -> Runs:
        """The runs that are known, each once. It is the same value until a list was read again."""
        of = self.workflows.value, self.bots.value
        if any(value is not known for value, known in zip(of, self._of, strict=True)):
            read = [value for value in of if value is not None]
            tasks: dict[str, Task] = {}
            for task in (task for value in read for task in value.tasks):
                tasks.setdefault(task.id, task)
            newest = sorted(tasks.values(), key=lambda task: task.created_at.timestamp() if task.created_at else 0.0)
            self._of, self._runs = of, Runs(tuple(newest[::-1]), any(value.truncated for value in read))
        return self._runs

    @property
    def has_bots(self) -> bool:
        """Whether the list of version 3 can be read."""
        return self.bots.value is not None and self.bots.failure is NO_FAILURE

    def refresh(self) -> set[asyncio.Task[None]]:
        """Return the reads that are running, after starting those that are due."""
        return {running for kept in (self.workflows, self.bots) if (running := kept.refresh())}

    def _keep_bots(self, bots: Runs) -> float:
        others = {task.id for task in self.workflows.value.tasks} if self.workflows.value else set()
        return RUNS_INTERVAL if any(task.id not in others for task in bots.tasks) else NO_BOTS_INTERVAL


def _reader(client: AccountClient, api_version: ApiVersion) -> Callable[[], Awaitable[Runs]]:
    window: Window | None = None
    listed_at = truncated_at = float("-inf")

    async def read() -> Runs:
        nonlocal window, listed_at, truncated_at
        now = client.connection.clock()
        # After a day without viewers, the list of a new window is shorter.
        if window is None or now - listed_at > REPORT_WINDOW:
            window = Window(now, api_version)
        listing = await client.send(list_changes(window, PAGE_SIZE, MAX_REQUESTS))
        window.add(listing.items, now, incomplete=listing.incomplete)
        listed_at = now
        if listing.incomplete:
            truncated_at = now
        return Runs(tuple(window.tasks), now - truncated_at < REPORT_WINDOW)

    return read
