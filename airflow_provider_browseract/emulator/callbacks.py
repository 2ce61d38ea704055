"""Send callbacks as the vendor documents it, or with a fault."""

from __future__ import annotations

import json
import logging
import threading

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

HANG_UP = 0.001
"""Seconds after which a request is ended that does not wait for its response."""


class CallbackSender(threading.Thread):
    """Lets an emulator's runs proceed until it is stopped, and sends their callbacks, in order for each run."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__(name="browseract-emulator-callbacks", daemon=True)
        self._emulator = emulator
        self._client = httpx.Client(timeout=None, limits=httpx.Limits(max_connections=None), trust_env=False)
        self._stopping = threading.Event()
        self._last: dict[str, threading.Thread] = {}

    def run(self) -> None:
        """Send callbacks until :meth:`stop`."""
        emulator = self._emulator
        with emulator.changed:
            while not self._stopping.is_set():
                for run, at in emulator.take_transitions():
                    self._send(run, at)
                change = emulator.next_change()
                wait = threading.TIMEOUT_MAX if change is None else change[0] - emulator.clock()
                emulator.changed.wait(min(max(wait, 0.0), threading.TIMEOUT_MAX))

    def stop(self) -> None:
        """Send nothing more. A request that has been sent is not waited for."""
        self._stopping.set()
        with self._emulator.changed:
            self._emulator.changed.notify_all()
        self.join()

    def _send(self, run: Run, at: float) -> None:
        """Start to deliver the callbacks of a status change."""
        urls = {"status_change_callback_url": run.status_change_callback_url}
        if run.finished(at) is not None:
            urls["callback_url"] = run.callback_url
        addresses = {field: url for field, url in urls.items() if url is not None}
        if not addresses:
            return
        about = {"workflow_id": run.workflow.id, "task_id": run.id, "status": run.reported(at)}
        fault = self._emulator.take_fault(CALLBACK, **about)
        is_late = fault is not None and fault.kind == "late"
        after = None if is_late else self._last.get(run.id)
        sending = threading.Thread(target=self._deliver, args=(run, at, addresses, fault, after), daemon=True)
        sending.start()
        if not is_late:
            self._last[run.id] = sending

    def _deliver(
        self,
        run: Run,
        at: float,
        addresses: dict[str, str],
        fault: CallbackFault | None,
        after: threading.Thread | None,
    ) -> None:
        """Deliver the callbacks of a status change, after those of the change before."""
        describe = full_task if run.api_version == "v2" else run_detail
        try:
            described = self._emulator.rewritten(CALLBACK, describe(self._emulator, run, at))
        except Exception:
            log.exception("A callback is not sent, because of an error")
            return
        if after is not None:
            after.join()
        self._stopping.wait(fault.seconds if fault else 0.0)
        if described is None:
            return
        body = json.dumps(described).encode()
        for _ in range(fault.copies if fault else 1):
            for field, url in addresses.items():
                for attempt in range(1, ATTEMPTS + 1):
                    self._stopping.wait(self._emulator.callback_retry_delay if attempt > 1 else 0.0)
                    if self._stopping.is_set():
                        return
                    http_status, error = self._post(url, body, fault.kind if fault else None)
                    self._emulator.record_delivery(
                        DeliveryRecord(
                            task_id=run.id,
                            url=url,
                            kind=field,
                            attempt=attempt,
                            status=run.reported(at),
                            http_status=http_status,
                            error=error,
                            fault=fault.kind if fault else None,
                            at=utc(self._emulator.clock()),
                        )
                    )
                    if http_status is None or http_status < 500:
                        break

    def _post(self, url: str, body: bytes, fault: str | None) -> tuple[int | None, str | None]:
        """Send a callback, and return the status of the response, or why there is none."""
        if fault == "lost":
            return None, "lost"
        limit = self._emulator.callback_timeout
        timeout = httpx.Timeout(limit, read=HANG_UP if fault == "hung_up" else limit)
        try:
            sent = self._client.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=timeout)
            return sent.status_code, None
        except httpx.TimeoutException:
            return None, "hung up" if fault == "hung_up" else f"no response within {limit:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
            return None, f"{type(problem).__name__}: {problem}"
