"""Send calls from code that runs in an event loop, and the error of a lost start."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.exceptions import BrowserActError, RunStartUnknownError

if TYPE_CHECKING:
    from airflow_provider_browseract.api.client import AsyncBrowserActClient
    from airflow_provider_browseract.api.models import Page
    from airflow_provider_browseract.loops import Log

T = TypeVar("T")


class AsyncBrowserAct:
    """Send calls to BrowserAct without blocking the event loop.

    :meth:`~airflow_provider_browseract.hooks.browseract.BrowserActHook.async_client` opens such a client. All calls
    share its connection pool, including those of asyncio tasks that run concurrently. The functions of
    :mod:`airflow_provider_browseract.api.v2` and :mod:`airflow_provider_browseract.api.v3` return the calls.

    The examples run against the package's emulator, whose ids they use. They need a REPL with ``await``, such as
    ``python -m asyncio`` or IPython. In them, ``browseract`` is an open client; the other names are those in the
    examples of :class:`~airflow_provider_browseract.hooks.browseract.BrowserActHook`.
    """

    def __init__(self, client: AsyncBrowserActClient, log: Log) -> None:
        self._client = client
        self._log = log

    async def send(self, call: Call[T]) -> T:
        """Send a call, and send it again after temporary errors.

        Do not start runs in a trigger: Airflow may run a trigger more than once, and each run costs credits.

        :param call: the call.
        :returns: what the function that made the call describes.
        :raises RunStartUnknownError: the call may have started a run, but the response was lost or cannot be used.
        :raises BrowserActError: the call failed.

        >>> from airflow_provider_browseract.api import v2
        >>> await browseract.send(v2.get_task_status(task_id))
        <TaskStatus.RUNNING: 'running'>
        """
        with lost_start_is_unknown(call, self._log):
            return await self._client.send(call)

    def iter_items(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Iterate over the items of a list; each page is read when it is needed.

        :param call: the call that reads the first page.
        :returns: the items of all pages, each once.
        :raises BrowserActError: a call failed, or the pages contradict each other.

        >>> from airflow_provider_browseract.api import v2
        >>> tasks = browseract.iter_items(v2.list_tasks(workflow_name="search", status="finished"))
        >>> [task.credit async for task in tasks]
        [20]
        >>> from airflow_provider_browseract.api import v3
        >>> [bot.name async for bot in browseract.iter_items(v3.page_bots(keyword="contact"))]
        ['Find a contact']
        """
        return self._client.iter_items(call)


@contextmanager
def lost_start_is_unknown(call: Call[Any], log: Log) -> Iterator[None]:
    """Raise :class:`RunStartUnknownError` if a start that is sent in this context fails and may have started a run.

    :param log: gets an error if the start is interrupted, because a run may be running then.
    """
    try:
        yield
    except BrowserActError as error:
        if error.not_processed or not call.starts_run:
            raise
        raise RunStartUnknownError(
            f"It is not known whether BrowserAct started a run: {error.message}",
            http_status=error.http_status,
            code=error.code,
            msg=error.msg,
            trace_id=error.trace_id,
            connection=error.connection,
        ) from error
    except BaseException:
        # For example Airflow's execution_timeout, which can interrupt the code at any point.
        if call.starts_run:
            log.error(
                "Interrupted during %s. A run may be running and using credits, and its id is not known.", call.name
            )
        raise
