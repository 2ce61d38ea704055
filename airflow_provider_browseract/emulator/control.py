"""The emulator as a test uses it.

It is above everything else, because it starts the server, which needs what is in the emulator.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from airflow_provider_browseract.emulator.browseract import BrowserAct
from airflow_provider_browseract.emulator.faults import DOWNLOAD_FILE, EVERY_ENDPOINT, CallbackFault, RequestFault
from airflow_provider_browseract.emulator.routes import ENDPOINTS
from airflow_provider_browseract.emulator.run import Transition


@dataclass(frozen=True)
class RunningEmulator:
    """An emulator that is being served at a URL."""

    url: str
    emulator: Emulator

    @property
    def api_key(self) -> str:
        """The API key it accepts."""
        return self.emulator.api_key

    @property
    def connection(self) -> dict[str, str]:
        """The Airflow connection to the emulator, as ``AIRFLOW_CONN_...`` takes it in JSON."""
        return {"conn_type": "browseract", "host": self.url, "password": self.api_key}


class Emulator(BrowserAct):
    """An emulated BrowserAct that a test controls and serves.

    The settings can be given as keyword arguments, and changed later: ``Emulator(concurrency=5)``.
    """

    _serving = False

    def rotate_key(self, api_key: str) -> None:
        """Accept another API key from now on, and refuse the previous one.

        :param api_key: the key to accept
        :raises ValueError: if it is empty
        """
        self.api_key = api_key

    def fault(self, endpoint: str, fault: RequestFault, *, times: int | None = None, skip: int = 0) -> None:
        """Add a fault of requests.

        :param endpoint: BrowserAct's name of an endpoint, such as ``run-task`` or ``create-run``; ``*`` for every
            endpoint of both versions of the API; ``download-file`` for files
        :param fault: the fault
        :param times: how many requests it applies to; None means all until :meth:`clear_faults`
        :param skip: how many requests pass without the fault before
        :raises ValueError: if there is no such endpoint
        """
        self.request_faults.arm(fault, _concerns(endpoint), times=times, skip=skip)

    @contextlib.contextmanager
    def outage(self, endpoint: str, fault: RequestFault) -> Iterator[None]:
        """Apply a fault to every request while the context lasts. Faults that were added before come first.

        :param endpoint: as in :meth:`fault`
        :raises ValueError: if there is no such endpoint
        """
        disarm = self.request_faults.arm(fault, _concerns(endpoint), times=None)
        try:
            yield
        finally:
            disarm()

    def callback_fault(
        self,
        fault: CallbackFault,
        *,
        workflow_id: str | None = None,
        task_id: str | None = None,
        status: str | None = None,
        times: int | None = None,
        skip: int = 0,
    ) -> None:
        """Add a fault of callbacks.

        :param fault: the fault
        :param workflow_id: only callbacks of the runs of this workflow, template or bot
        :param task_id: only callbacks of this run
        :param status: only callbacks that report this status
        :param times: how many callbacks it applies to; None means all until :meth:`clear_faults`
        :param skip: how many callbacks pass without the fault before
        """
        if workflow_id is not None:
            self.find(workflow_id)

        def concerns(transition: Transition) -> bool:
            return (
                workflow_id in (None, transition.workflow.id)
                and task_id in (None, transition.task_id)
                and status in (None, transition.status)
            )

        self.callback_faults.arm(fault, concerns, times=times, skip=skip)

    def clear_faults(self) -> None:
        """Remove all faults of requests and callbacks."""
        self.request_faults.clear()
        self.callback_faults.clear()

    def wait_until(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
        """Wait until a condition is true. It is checked again after every change.

        :param condition: the condition
        :param timeout: seconds to wait at most. Default: 30
        :raises TimeoutError: if the condition is not true by then
        """
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"the condition did not become true within {timeout:g} s")
            with self.changed:
                # The condition may depend on something outside the emulator.
                self.changed.wait(min(left, 0.02))

    @contextlib.contextmanager
    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[RunningEmulator]:
        """Serve the emulator at ``http://host:port`` while the context lasts.

        :param host: address to listen on. Default: 127.0.0.1
        :param port: port to listen on. Default: 0, which selects a free port
        :raises OSError: if the port is already in use
        :raises RuntimeError: if this emulator is already being served
        """
        # Imported here, because only a served emulator needs the web framework.
        from airflow_provider_browseract.emulator.running import running_server

        with self.changed:
            if self._serving:
                raise RuntimeError("this emulator is already being served")
            self._serving = True
        try:
            with running_server(self, host, port) as url:
                yield RunningEmulator(url, self)
        finally:
            self._serving = False


def _concerns(endpoint: str) -> Callable[[str], bool]:
    """Return a function that returns whether a fault of an endpoint applies to a request."""
    if endpoint not in (EVERY_ENDPOINT, DOWNLOAD_FILE, *ENDPOINTS):
        raise ValueError(f"no such endpoint: {endpoint!r} (there are: {', '.join(ENDPOINTS)})")
    return lambda requested: requested == endpoint or (endpoint == EVERY_ENDPOINT and requested in ENDPOINTS)
