"""A hook that opens clients with an Airflow connection. Its subclasses have the methods for the endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from airflow_provider_browseract import __version__
from airflow_provider_browseract.compat import AirflowNotFoundException, in_dag_test, in_task
from airflow_provider_browseract.hooks import connection as form
from airflow_provider_browseract.hooks.hiding import NOTHING
from airflow_provider_browseract.in_airflow.shielding import uninterrupted

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_browseract.api.client import BrowserActClient
    from airflow_provider_browseract.api.exchange import Call
    from airflow_provider_browseract.api.models import CreatedTask
    from airflow_provider_browseract.api.settings import ClientSettings
    from airflow_provider_browseract.hooks.async_client import AsyncBrowserAct


class ConnectedHook(BaseHook):
    """Send calls to BrowserAct with an Airflow connection of type ``browseract``.

    :param browseract_conn_id: id of the Airflow connection.
    """

    conn_name_attr = "browseract_conn_id"
    default_conn_name = "browseract_default"
    conn_type = form.CONNECTION_TYPE
    hook_name = form.HOOK_NAME

    def __init__(self, browseract_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.browseract_conn_id = browseract_conn_id
        self._settings: form.ConnectionSettings | None = None
        self._key_refused = False
        self.hiding = NOTHING
        """What :attr:`client` removes from the runs that it returns. Operators and sensors set it."""

    @property
    def settings(self) -> form.ConnectionSettings:
        """The settings of the connection."""
        # Another thread may let the hook forget them.
        settings = self._settings
        if settings is None:
            settings = self._settings = self._look_up()
        return settings

    @cached_property
    def client(self) -> BrowserActClient:
        """The client that sends any call of :mod:`airflow_provider_browseract.api.v2` or ``v3``."""
        from airflow_provider_browseract.api.client import BrowserActClient

        return BrowserActClient(
            self._current, refused=self._forget, shown=lambda result: self.hiding.apply(result), warn=self.log.warning
        )

    def get_conn(self) -> BrowserActClient:
        """Return :attr:`client`. All hooks of Airflow have a method with this name."""
        return self.client

    def client_within(self, seconds: float | None) -> AbstractContextManager[BrowserActClient]:
        """Return a client for calls that must end in time.

        :param seconds: seconds after which a call fails, retries included; ``None`` for :attr:`client`, whose limits
            are those of the connection.
        """
        if seconds is None:
            return nullcontext(self.client)
        from airflow_provider_browseract.api.client import BrowserActClient

        return BrowserActClient(lambda: self._current(seconds), refused=self._forget)

    @asynccontextmanager
    async def async_client(
        self, *, within: float | None = None, max_response: int | None = None
    ) -> AsyncIterator[AsyncBrowserAct]:
        """Open a client for code that runs in an event loop. Reading the connection does not block the loop either.

        :param within: seconds after which a call fails, retries included. Default: as the connection's timeouts and
            ``retry_budget`` say.
        :param max_response: bytes of a response after which a call stops reading and raises
            :class:`~airflow_provider_browseract.exceptions.ResponseTooLargeError`. Default: 256 MiB.

        >>> import asyncio
        >>> from airflow_provider_browseract.api import v2
        >>> async with hook.async_client() as browseract:
        ...     polls = [browseract.send(v2.get_task_status(each)) for each in (task_id, finished_task_id)]
        ...     print(*await asyncio.gather(*polls))
        running finished
        """
        from airflow_provider_browseract.api.client import AsyncBrowserActClient
        from airflow_provider_browseract.hooks.async_client import AsyncBrowserAct

        async def settings() -> ClientSettings:
            current = self._settings
            if current is None:
                with self._failing_the_call():
                    current = self._settings = await self._alook_up()
            return current.client.within(within)

        await settings()
        async with AsyncBrowserActClient(settings, refused=self._forget, max_response=max_response) as client:
            yield AsyncBrowserAct(client, self.log)

    def _start(self, call: Call[CreatedTask]) -> CreatedTask:
        from airflow_provider_browseract.hooks.async_client import lost_start_is_unknown

        with lost_start_is_unknown(call, self.log):
            return self.client.send(call)

    def _current(self, within: float | None = None) -> ClientSettings:
        with self._failing_the_call():
            return self.settings.client.within(within)

    def _forget(self) -> None:
        """Read the connection again when it is needed next, because someone may have replaced the API key."""
        self._settings, self._key_refused = None, True

    @contextmanager
    def _failing_the_call(self) -> Iterator[None]:
        """Let the call fail if the connection cannot be read again, so that a wait for a run continues."""
        try:
            yield
        except Exception as error:
            if not self._key_refused:
                raise
            raise form.unreadable(self.browseract_conn_id, error) from error

    def _look_up(self) -> form.ConnectionSettings:
        """Read the connection."""
        return _read(self.get_connection(self.browseract_conn_id))

    async def _alook_up(self) -> form.ConnectionSettings:
        """Read the connection without blocking the event loop."""
        try:
            return _read(await uninterrupted(self.aget_connection(self.browseract_conn_id)))
        except AirflowNotFoundException:
            # In a task of Airflow 3.1 and under dag.test(), only the blocking method finds the connections that Airflow
            # stores.
            if not (in_task() or in_dag_test()):
                raise
            return self._look_up()


def _read(connection: Connection) -> form.ConnectionSettings:
    from airflow import __version__ as airflow_version

    user_agent = f"airflow-provider-browseract/{__version__} apache-airflow/{airflow_version}"
    return form.read_settings(connection, user_agent=user_agent)
