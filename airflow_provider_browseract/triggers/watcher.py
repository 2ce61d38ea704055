"""A trigger that reports runs that end, whoever started them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_browseract.api.arguments import optional, read_path_id, read_seconds
from airflow_provider_browseract.api.models import ApiVersion, TaskStatus
from airflow_provider_browseract.api.pages import list_items
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.loops import send_all_async
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.watching import END_STATUSES, WATCH_OVERLAP, Cursor, EndedTask, Window

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from airflow_provider_browseract.api.async_client import AsyncBrowserActClient


class TaskFinishedTrigger(BaseEventTrigger):
    """Report each BrowserAct task that ends, whoever started it. Use it in an Airflow ``AssetWatcher``.

    In the ``extra`` of the asset event, ``payload`` has a list ``tasks`` with a dict for each task that has ended since
    the last event (:meth:`~airflow_provider_browseract.runs.watching.EndedTask.facts`). The trigger reports tasks that
    end after its first poll.

    On Airflow 3.3 and later, watchers with the same connection and interval share their polls. The reported tasks are
    stored in the state of the asset. After a restart, the triggerer reports the tasks that ended in the meantime, up to
    24 hours late. A task is reported twice if the triggerer is killed within seconds after the first report, or if the
    state could not be stored. Before Airflow 3.3, each watcher polls for itself, and tasks that end while no triggerer
    is running are not reported.

    :param workflow_id: report only tasks of this workflow.
    :param bot_id: report only tasks of this bot; together with ``workflow_id``, the tasks of both. Without any id, the
        tasks of all workflows, bots and templates are reported.
    :param status: report only tasks with this status, or with one of these: ``"finished"``, ``"failed"``,
        ``"canceled"``. Default: all three.
    :param poll_interval: seconds between two polls, at least 10. A shorter interval reports a task sooner, but sends
        more requests. Default: 60.
    :param browseract_conn_id: id of the Airflow connection. Default: ``browseract_default``.
    :raises InputError: an argument cannot be used.
    """

    def __init__(
        self,
        *,
        workflow_id: str | None = None,
        bot_id: str | None = None,
        status: str | Sequence[str] | None = None,
        poll_interval: float = 60.0,
        browseract_conn_id: str = BrowserActHook.default_conn_name,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.workflow_id = optional(read_path_id, "workflow_id", workflow_id)
        self.bot_id = optional(read_path_id, "bot_id", bot_id)
        self.status = [each.value for each in _read_ends(status)]
        self.poll_interval = read_seconds("poll_interval", poll_interval)
        if self.poll_interval < timings.SHORTEST_WATCH_INTERVAL:
            raise InputError(
                f"poll_interval is {poll_interval!r}. Use at least {timings.SHORTEST_WATCH_INTERVAL:g} seconds."
            )
        self.browseract_conn_id = browseract_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments: plain JSON values, none of them secret."""
        return "airflow_provider_browseract.triggers.watcher.TaskFinishedTrigger", {
            "workflow_id": self.workflow_id,
            "bot_id": self.bot_id,
            "status": self.status,
            "poll_interval": self.poll_interval,
            "browseract_conn_id": self.browseract_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch without sharing the polls, as before Airflow 3.3."""
        async with (
            aclosing(self.open_shared_stream(self.serialize()[1])) as polls,
            aclosing(self.filter_shared_stream(polls)) as events,
        ):
            async for event in events:
                yield event

    def shared_stream_key(self) -> Hashable | None:
        """Share the polls with the watchers of the same connection and interval that list the same versions."""
        versions = _versions(self.workflow_id, self.bot_id)
        return (type(self).__qualname__, self.browseract_conn_id, self.poll_interval, *versions)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncGenerator[tuple[EndedTask, ...], None]:
        """Poll the list of tasks, and yield all tasks that ended lately after each poll.

        An error does not end the stream, because that would end all watchers that share it. The connection is read
        again instead.

        :param kwargs: the arguments of one of the watchers.
        """
        versions = _versions(kwargs["workflow_id"], kwargs["bot_id"])
        windows = [Window(time.time(), version) for version in versions]
        while True:
            # Whatever it is, someone may fix it.
            with tolerate_errors(log.error, "The BrowserAct tasks could not be listed; trying again: %s"):
                hook = BrowserActHook(kwargs["browseract_conn_id"])
                async with hook.async_client() as client:
                    while True:
                        yield tuple([ended for window in windows for ended in await _poll(window, client)])
                        await asyncio.sleep(kwargs["poll_interval"])
            await asyncio.sleep(kwargs["poll_interval"])

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[tuple[EndedTask, ...]]
    ) -> AsyncGenerator[TriggerEvent, None]:
        """Select the tasks that this watcher must report and has not reported yet."""
        source_ids = {*filter(None, (self.workflow_id, self.bot_id))}
        cursor = await self._kept_cursor()
        async for ended in shared_stream:
            wanted = [each for each in ended if each.task.status.value in self.status]
            if source_ids:
                wanted = [each for each in wanted if each.task.source_id in source_ids]
            if cursor is None:
                # The tasks of the first poll count as already reported.
                cursor = Cursor(time.time() - WATCH_OVERLAP, {})
                cursor.mark_reported(wanted, time.time())
            elif news := cursor.news(wanted):
                # In one event: a second event right after the first would start no DAG run before a third one arrives.
                yield TriggerEvent({"tasks": [each.facts() for each in news]})  # type: ignore[no-untyped-call]
                cursor.mark_reported(news, time.time())
                # Airflow must have stored the event first: it is better to report a task twice than never.
                await asyncio.sleep(timings.EVENT_STORE_GRACE)
            else:
                continue
            await self._keep(cursor)

    @property
    def _cursor_key(self) -> str:
        # A watcher with other arguments starts with its own state.
        sources = (self.workflow_id or "*", self.bot_id or "*")
        return ":".join(["browseract", self.browseract_conn_id, *sources, *self.status])

    async def _kept_cursor(self) -> Cursor | None:
        store = getattr(self, "asset_state_store", None)
        while store is not None:
            # A restarted watcher would get the same error.
            with tolerate_errors(self.log.warning, "The watcher state cannot be read; trying again: %s"):
                try:
                    kept = await store.aget(self._cursor_key)
                    return None if kept is None else Cursor.read(kept, time.time())
                except ValueError as error:
                    self.log.warning(
                        "Ignoring the watcher state, which cannot be used: %s. Reporting only runs that end from now "
                        "on.",
                        error,
                    )
                    return None
            await asyncio.sleep(timings.ANSWER_POLL_INTERVAL)
        return None

    async def _keep(self, cursor: Cursor) -> None:
        text = "The watcher state could not be stored. After a restart, runs may be reported again: %s"
        with tolerate_errors(self.log.warning, text):
            if store := getattr(self, "asset_state_store", None):
                await store.aset(self._cursor_key, to_json(cursor))


def _versions(workflow_id: str | None, bot_id: str | None) -> tuple[ApiVersion, ...]:
    """Return the versions of the API whose tasks are listed: both without any id."""
    wanted = {ApiVersion.V2: workflow_id, ApiVersion.V3: bot_id}
    return tuple(version for version, source_id in wanted.items() if source_id is not None) or tuple(ApiVersion)


async def _poll(window: Window, client: AsyncBrowserActClient) -> tuple[EndedTask, ...]:
    """List the tasks that may have changed, and return all that ended lately."""
    polled_at = time.time()
    listing = await send_all_async(list_items(window.call()), client)
    if listing.skipped:
        text = "%d of the listed BrowserAct tasks cannot be read here, or are too large. Their ends are not reported."
        log.warning(text, listing.skipped)
    return window.add(listing.items, polled_at, incomplete=listing.incomplete)


def _read_ends(status: str | Sequence[str] | None) -> list[TaskStatus]:
    """Check the statuses that a watcher reports."""
    given = [status] if isinstance(status, str) else list(status) if status is not None else list(END_STATUSES)
    known = [each.value for each in END_STATUSES]
    if not given or not all(each in known for each in given):
        raise InputError(f"status is {status!r}. Use one or several of: {', '.join(known)}.")
    return [each for each in END_STATUSES if each.value in given]
