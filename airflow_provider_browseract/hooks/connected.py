"""The part of the hook that reads its connection, and opens clients with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.compat import in_dag_test
from airflow_provider_browseract.hooks import connection as form
from airflow_provider_browseract.in_airflow.hiding import NOTHING
from airflow_provider_browseract.in_airflow.shielding import uninterrupted

if TYPE_CHECKING:
    from airflow_provider_browseract.api.async_client import AsyncBrowserActClient
    from airflow_provider_browseract.api.client import BrowserActClient
else:
    # Agents read the annotations of the methods, so each name in them has a value. These modules take long to import.
    AsyncBrowserActClient = BrowserActClient = Any


class ConnectedHook(BaseHook):
    """A hook with a connection of type ``browseract``.

    It reads the connection at the first call, and again after BrowserAct has refused the API key.

    :param browseract_conn_id: id of the Airflow connection.
    """

    conn_name_attr = "browseract_conn_id"
    default_conn_name = "browseract_default"
    conn_type = form.CONNECTION_TYPE
    hook_name = form.HOOK_NAME

    def __init__(self, browseract_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.browseract_conn_id = browseract_conn_id
        self._settings: Settings | None = None
        self._key_refused = False
        self.hiding = NOTHING
        """What :attr:`client` removes from the runs that it returns. Operators and sensors set it."""

    @property
    def settings(self) -> Settings:
        """The settings of the connection."""
        # Another thread may let the hook forget them.
        settings = self._settings
        if settings is None:
            settings = self._settings = form.read_settings(self.get_connection(self.browseract_conn_id))
        return settings

    def own_settings(self) -> Settings:
        """Return the settings of a connection to BrowserAct, for those who choose it by its id.

        The password of another service must not be sent to BrowserAct, or to wherever the connection points.

        :raises InputError: it is of another type, or its fields cannot be used.
        """
        form.check_type(self.get_connection(self.browseract_conn_id))
        return self.settings

    def _current(self, within: float | None = None) -> Settings:
        try:
            return self.settings.within(within)
        except Exception as error:
            if not self._key_refused:
                raise
            # Only the call fails if the connection cannot be read again, so that a wait for a run continues.
            raise form.unreadable(self.browseract_conn_id, error) from error

    async def asettings(self) -> Settings:
        """Return the settings of the connection, without blocking an event loop."""
        # Under dag.test(), only the blocking method finds the connections that Airflow stores.
        if self._settings is None and not in_dag_test():
            self._settings = form.read_settings(await uninterrupted(self.aget_connection(self.browseract_conn_id)))
        return self.settings

    def _forget(self) -> None:
        """Read the connection again when it is needed next, because someone may have replaced the API key."""
        self._settings, self._key_refused = None, True

    @cached_property
    def client(self) -> BrowserActClient:
        """The client that sends the calls of workers."""
        from airflow_provider_browseract.api.client import BrowserActClient

        return BrowserActClient(self._current, refused=self._forget, shown=self._shown, warn=self.log.warning)

    def _shown(self, result: Any) -> Any:
        return self.hiding.apply(result)

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
    async def async_client(self, *, within: float | None = None) -> AsyncIterator[AsyncBrowserActClient]:
        """Open a client for an event loop. If the connection cannot be read, only the call fails.

        :param within: as ``seconds`` of :meth:`client_within`.
        """
        from airflow_provider_browseract.api.async_client import AsyncBrowserActClient

        async def settings() -> Settings:
            try:
                return (await self.asettings()).within(within)
            except Exception as error:
                raise form.unreadable(self.browseract_conn_id, error) from error

        async with AsyncBrowserActClient(settings, refused=self._forget, shown=self._shown) as client:
            yield client
