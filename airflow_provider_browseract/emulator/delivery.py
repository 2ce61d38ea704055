"""Deliver callbacks as the vendor documents it, or with a fault."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from airflow_provider_browseract.emulator.browseract import BrowserAct
from airflow_provider_browseract.emulator.faults import CallbackFault
from airflow_provider_browseract.emulator.records import DeliveryRecord
from airflow_provider_browseract.emulator.run import Transition
from airflow_provider_browseract.emulator.times import utc

Sending = asyncio.Task[None]

#: How often a callback is tried. Only a 5xx response leads to another attempt.
ATTEMPTS = 3

#: Ends a request as soon as it is sent.
HANG_UP = httpx.Timeout(None, read=0.0)


class CallbackSender:
    """Send the callbacks of status changes, in order for each task.

    :param client: must follow no redirects
    """

    def __init__(self, browseract: BrowserAct, client: httpx.AsyncClient) -> None:
        self._browseract = browseract
        self._client = client
        self._under_way: set[Sending] = set()
        self._last: dict[str, Sending] = {}
        self._held: dict[str, list[Transition]] = {}

    def send(self, transition: Transition) -> None:
        """Start to deliver the callbacks of a status change."""
        if not transition.urls:
            return
        fault = self._browseract.callback_faults.take(transition) or transition.workflow.callback_fault
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

    async def close(self) -> None:
        """Cancel all deliveries that are still running."""
        for sending in self._under_way:
            sending.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _deliver(
        self, transition: Transition, fault: CallbackFault | None, held: list[Transition], after: Sending | None
    ) -> None:
        if after is not None:
            await asyncio.wait([after])
        if fault is not None:
            await asyncio.sleep(fault.seconds)
        kind, copies = (None, 1) if fault is None else (fault.kind, fault.copies)
        for _ in range(copies):
            for name, url in transition.urls:
                if kind == "lost":
                    self._record(transition, name, url, kind, attempt=1, http_status=None, error="lost")
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
                    self._browseract.callback_timeout,
                )
                http_status = response.status_code
            except httpx.ReadTimeout:
                error = "hung up"
            except asyncio.TimeoutError:
                error = f"no response within {self._browseract.callback_timeout:g} s"
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
                error = f"{type(problem).__name__}: {problem}"
            self._record(transition, name, url, fault, attempt=attempt, http_status=http_status, error=error)
            if http_status is None or http_status < 500:
                return
            if attempt < ATTEMPTS:
                await asyncio.sleep(self._browseract.callback_retry_delay)

    def _record(self, transition: Transition, name: str, url: str, fault: str | None, **result: Any) -> None:
        about: dict[str, Any] = {"url": url, "kind": name, "fault": fault, "at": utc(self._browseract.clock())}
        self._browseract.record_delivery(
            DeliveryRecord(task_id=transition.task_id, status=transition.status, **about, **result)
        )
