"""The client of a trigger, for which an Airflow connection that cannot be read is only a failed request."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import unreadable
from airflow_provider_browseract.hooks.hiding import NOTHING, Hiding

if TYPE_CHECKING:
    from airflow_provider_browseract.api.async_client import AsyncBrowserActClient

T = TypeVar("T")


class PatientClient:
    """Send the polls of a trigger. If the Airflow connection cannot be read, the poll fails, and the wait continues.

    :param within: seconds that a call and its retries may take; None for the limits of the connection.
    :param hiding: what is removed from the runs that are read.
    """

    def __init__(self, conn_id: str, *, within: float | None = None, hiding: Hiding = NOTHING) -> None:
        self._conn_id = conn_id
        self._within = within
        self._hiding = hiding
        self._open = AsyncExitStack()
        self._client: AsyncBrowserActClient | None = None

    async def send(self, call: Call[T]) -> T:
        """Send a call.

        :raises BrowserActError: the call failed, or the connection cannot be read.
        """
        if self._client is None:
            hook = BrowserActHook(self._conn_id)
            try:
                await hook.asettings()
            except Exception as error:
                raise unreadable(self._conn_id, error) from error
            self._client = await self._open.enter_async_context(hook.async_client(within=self._within))
        result: T = self._hiding.apply(await self._client.send(call))
        return result

    async def aclose(self) -> None:
        """Close the connections."""
        await self._open.aclose()
