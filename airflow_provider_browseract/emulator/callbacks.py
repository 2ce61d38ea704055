"""Send callbacks as the vendor documents it, or with a fault."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from functools import partial

import httpx

from airflow_provider_browseract.emulator.control import CALLBACK, Emulator
from airflow_provider_browseract.emulator.faults import CallbackFault
from airflow_provider_browseract.emulator.records import DeliveryRecord, utc
from airflow_provider_browseract.emulator.runs import Run
from airflow_provider_browseract.emulator.v2 import full_task
from airflow_provider_browseract.emulator.v3 import run_detail

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a callback is tried. Only a 5xx response leads to another attempt."""

HANG_UP = httpx.Timeout(None, read=0.0)
"""Ends a request as soon as it is sent."""

NO_FAULT = CallbackFault("late", seconds=0.0)

Sending = asyncio.Task[None]


class CallbackSender:
    """Lets an emulator's runs proceed while the context lasts, and sends their callbacks, in order for each run."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._client = httpx.AsyncClient(follow_redirects=False, timeout=None, trust_env=False)
        self._wake = asyncio.Event()
        self._under_way: set[Sending] = set()
        self._last: dict[str, Sending] = {}

    async def __aenter__(self) -> CallbackSender:
        self._loop = asyncio.get_running_loop()
        self._emulator.on_change = self._changed
        self._ticking = asyncio.create_task(self._tick())
        self._ticking.add_done_callback(partial(_complain, "The emulator's runs make no more progress"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._emulator.on_change = lambda: None
        tasks = [self._ticking, *self._under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    def _changed(self) -> None:
        # This may be called from any thread, and while the event loop is closing.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _tick(self) -> None:
        emulator = self._emulator
        while True:
            self._wake.clear()
            for run, at in emulator.take_transitions():
                self._send(run, at)
            due = emulator.next_change()
            # Not asyncio.wait_for, because it may swallow the cancellation of this task before Python 3.12.
            alarm = None if due is None else self._loop.call_later(max(0.0, due - emulator.clock()), self._wake.set)
            await self._wake.wait()
            if alarm is not None:
                alarm.cancel()

    def _send(self, run: Run, at: float) -> None:
        """Start to deliver the callbacks of a status change."""
        urls = {"status_change_callback_url": run.status_change_callback_url}
        if run.finished(at) is not None:
            urls["callback_url"] = run.callback_url
        addresses = {field: url for field, url in urls.items() if url is not None}
        if not addresses:
            return
        about = {"workflow_id": run.workflow.id, "task_id": run.id, "status": run.reported(at)}
        fault = self._emulator.take_fault(kind=CALLBACK, **about) or run.workflow.callback_fault
        is_late = fault is not None and fault.kind == "late"
        after = None if is_late else self._last.get(run.id)
        sending = asyncio.create_task(self._deliver(run, at, addresses, fault, after))
        self._under_way.add(sending)
        sending.add_done_callback(self._under_way.discard)
        sending.add_done_callback(partial(_complain, "A callback is not sent"))
        if not is_late:
            self._last[run.id] = sending

    async def _deliver(
        self, run: Run, at: float, addresses: dict[str, str], fault: CallbackFault | None, after: Sending | None
    ) -> None:
        describe = full_task if run.api_version == "v2" else run_detail
        with self._emulator.changed:
            described = describe(run, at, self._emulator.base_url)
        described = self._emulator.rewritten(CALLBACK, described)
        if described is None:
            return
        body = json.dumps(described).encode()
        if after is not None:
            await asyncio.wait([after])
        fault = fault or NO_FAULT
        await asyncio.sleep(fault.seconds)
        for _ in range(fault.copies):
            for field, url in addresses.items():
                for attempt in range(1, ATTEMPTS + 1):
                    await asyncio.sleep(self._emulator.callback_retry_delay if attempt > 1 else 0)
                    http_status, error = (None, "lost") if fault.kind == "lost" else await self._post(url, body, fault)
                    self._emulator.record_delivery(
                        DeliveryRecord(
                            task_id=run.id,
                            url=url,
                            kind=field,
                            attempt=attempt,
                            status=run.reported(at),
                            http_status=http_status,
                            error=error,
                            fault=None if fault is NO_FAULT else fault.kind,
                            at=utc(self._emulator.clock()),
                        )
                    )
                    if http_status is None or http_status < 500:
                        break

    async def _post(self, url: str, body: bytes, fault: CallbackFault) -> tuple[int | None, str | None]:
        """Send a callback, and return the status of the response, or why there is none."""
        timeout = HANG_UP if fault.kind == "hung_up" else httpx.USE_CLIENT_DEFAULT
        headers = {"Content-Type": "application/json"}
        sent = self._client.post(url, content=body, headers=headers, timeout=timeout)
        try:
            # This limit applies to the whole response. The timeout of the client applies to each packet.
            return (await asyncio.wait_for(sent, self._emulator.callback_timeout)).status_code, None
        except httpx.ReadTimeout:
            return None, "hung up"
        except asyncio.TimeoutError:
            return None, f"no response within {self._emulator.callback_timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
            return None, f"{type(problem).__name__}: {problem}"


def _complain(what: str, task: Sending) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("%s, because of an error", what, exc_info=error)
