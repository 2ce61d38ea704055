"""Deliver callbacks as the vendor documents it, or with a fault."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from airflow_provider_browseract.emulator.core import Emulator
    from airflow_provider_browseract.emulator.faults import CallbackFault
    from airflow_provider_browseract.emulator.service import Transition

#: How often a callback is tried. Only a 5xx response leads to another attempt.
ATTEMPTS = 3

#: Ends a request as soon as it is sent.
HANG_UP = httpx.Timeout(None, read=0.0)


class CallbackSender:
    """Send the callbacks of status changes, in order for each task.

    :param client: must follow no redirects
    """

    def __init__(self, emulator: Emulator, client: httpx.AsyncClient) -> None:
        self._emulator = emulator
        self._client = client
        self._under_way: set[asyncio.Task[None]] = set()
        self._last: dict[str, asyncio.Task[None]] = {}
        self._held: dict[str, list[Transition]] = {}

    def send(self, transition: Transition) -> None:
        """Start to deliver the callbacks of a status change."""
        if not transition.urls:
            return
        fault = self._emulator.take_callback_fault(transition)
        task_id = transition.task_id
        if fault is not None and fault.kind == "out_of_order" and not transition.ended:
            self._held.setdefault(task_id, []).append(transition)
            return
        after = None if fault is not None and fault.kind == "late" else self._last.get(task_id)
        held = self._held.pop(task_id, [])
        sending = asyncio.create_task(self._deliver(transition, fault, held, after))
        self._under_way.add(sending)
        sending.add_done_callback(self._under_way.discard)
        if fault is None or fault.kind != "late":
            self._last[task_id] = sending
            sending.add_done_callback(lambda done: self._forget(task_id, done))

    async def close(self) -> None:
        """Cancel all deliveries that are still running."""
        for sending in self._under_way:
            sending.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _forget(self, task_id: str, done: asyncio.Task[None]) -> None:
        if self._last.get(task_id) is done:
            del self._last[task_id]

    async def _deliver(
        self,
        transition: Transition,
        fault: CallbackFault | None,
        held: list[Transition],
        after: asyncio.Task[None] | None,
    ) -> None:
        if after is not None:
            await asyncio.wait([after])
        kind = None if fault is None else fault.kind
        if fault is not None and fault.kind == "late":
            await asyncio.sleep(fault.seconds)
        copies = 1 if fault is None else fault.copies
        for _ in range(copies):
            for name, url in transition.urls:
                if kind == "lost":
                    self._emulator.record_delivery(transition, url, name, 1, error="lost", fault=kind)
                else:
                    await self._post(transition, name, url, kind)
        for earlier in held:
            for name, url in earlier.urls:
                await self._post(earlier, name, url, "out_of_order")

    async def _post(self, transition: Transition, name: str, url: str, fault: str | None) -> None:
        body = json.dumps(transition.payload).encode()
        for attempt in range(1, ATTEMPTS + 1):
            http_status = error = None
            try:
                # This limit applies to the whole response. The timeout of the client applies to each packet.
                response = await asyncio.wait_for(
                    self._client.post(
                        url,
                        content=body,
                        headers={"Content-Type": "application/json"},
                        timeout=HANG_UP if fault == "hung_up" else httpx.USE_CLIENT_DEFAULT,
                    ),
                    self._emulator.callback_timeout,
                )
                http_status = response.status_code
            except httpx.ReadTimeout:
                error = "hung up"
            except asyncio.TimeoutError:
                error = f"no response within {self._emulator.callback_timeout:g} s"
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
                error = f"{type(problem).__name__}: {problem}"
            self._emulator.record_delivery(
                transition, url, name, attempt, http_status=http_status, error=error, fault=fault
            )
            if http_status is None or http_status < 500:
                return
            if attempt < ATTEMPTS:
                await asyncio.sleep(self._emulator.callback_retry_delay)
