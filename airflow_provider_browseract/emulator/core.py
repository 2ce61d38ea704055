"""The emulator's public interface: the service, its faults, and a record of requests and callbacks."""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_provider_browseract.emulator.catalogue import TEMPLATES, WORKFLOWS
from airflow_provider_browseract.emulator.faults import (
    DOWNLOAD_FILE,
    EVERY_ENDPOINT,
    CallbackFault,
    FaultPlan,
    RequestFault,
)
from airflow_provider_browseract.emulator.service import (
    ENDPOINTS,
    MESSAGES,
    TOO_MANY_RUNNING,
    BrowserActService,
    TaskRecord,
    Transition,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from airflow_provider_browseract.emulator.catalogue import (
        EmulatedTemplate,
        EmulatedWorkflow,
        WorkflowSettings,
    )


@dataclass(frozen=True)
class RequestRecord:
    """A request that arrived.

    :param endpoint: the last part of an API path, ``download-file``, or None for any other path
    :param status: the HTTP status of the response; None before the response, or if there is none
    :param fault: the kind of fault that applied to it
    :param with_key: whether it had an ``Authorization`` header (whose value is not recorded)
    """

    method: str
    path: str
    query: str
    endpoint: str | None
    status: int | None
    fault: str | None
    with_key: bool
    at: datetime


@dataclass(frozen=True)
class DeliveryRecord:
    """An attempt to deliver a callback.

    :param kind: ``callback_url`` or ``status_change_callback_url``
    :param attempt: 1 to 3; higher than 1 after a 5xx response
    :param status: the task's status in the payload
    :param http_status: the HTTP status of the receiver's response; None if there was no response or no request
    :param error: why there is no response
    :param fault: the kind of fault that applied to it
    """

    task_id: str
    url: str
    kind: str
    attempt: int
    status: str
    http_status: int | None
    error: str | None
    fault: str | None
    at: datetime


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


class Emulator:
    """An emulated BrowserAct.

    :param api_key: the accepted API key
    :param concurrency: how many tasks may be active at once, including paused ones. Default: 1, as on the free plan
    :param speed: factor by which runs are faster. Faults and time limits do not change. Default: 1
    :param allow_private_callbacks: whether callback URLs may have private and local addresses. The real service refuses
        them, but an emulator on a developer's machine usually needs them. Default: ``True``
    :param stop_ended_is_ok: whether ``stop-task`` responds with 200 for a task that has ended, instead of code 10121
    :param resume_running_is_ok: whether ``resume-task`` responds with 200 for a running task, instead of code 10127
    :param refusal: code and message with which a start is refused while ``concurrency`` tasks are active. Default:
        10118, "Running tasks number exceeds."
    :param credits: credits of the account. When they are used up, starts are refused. Default: no limit
    :param as_in_the_demos: whether responses have the irregularities of the vendor's examples: ``profileId``, null
        outputs, screenshots and (in lists) ``created_at``, ``finished_at`` while a run is active, ``live_url_info``
        after its end, and an envelope without ``data`` and with another format of ``time``
    :param callback_timeout: seconds that a receiver may take to respond
    :param callback_retry_delay: seconds between the attempts to deliver a callback
    :param workflows: the workflows of the account
    :param templates: the official templates
    :param clock: returns the time in seconds since the epoch. A served emulator needs a clock that runs by itself
    """

    def __init__(
        self,
        *,
        api_key: str = "app-emulator",
        concurrency: int = 1,
        speed: float = 1.0,
        allow_private_callbacks: bool = True,
        stop_ended_is_ok: bool = False,
        resume_running_is_ok: bool = False,
        refusal: tuple[int, str] = (TOO_MANY_RUNNING, MESSAGES[TOO_MANY_RUNNING]),
        credits: int | None = None,
        as_in_the_demos: bool = False,
        callback_timeout: float = 30.0,
        callback_retry_delay: float = 1.0,
        workflows: Iterable[EmulatedWorkflow] = WORKFLOWS,
        templates: Iterable[EmulatedTemplate] = TEMPLATES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rotate_key(api_key)
        self.callback_timeout = callback_timeout
        self.callback_retry_delay = callback_retry_delay
        self.service = BrowserActService(
            workflows=workflows,
            templates=templates,
            concurrency=concurrency,
            speed=speed,
            clock=clock,
            stop_ended_is_ok=stop_ended_is_ok,
            resume_running_is_ok=resume_running_is_ok,
            refusal=refusal,
            credits=credits,
            as_in_the_demos=as_in_the_demos,
            resolve_host=None if allow_private_callbacks else _addresses,
        )
        self._changed = self.service.changed
        self._request_faults: FaultPlan[RequestFault] = FaultPlan()
        self._callback_faults: FaultPlan[CallbackFault] = FaultPlan()
        self._requests: list[RequestRecord] = []
        self._deliveries: list[DeliveryRecord] = []
        self._serving = False

    @property
    def speed(self) -> float:
        """Factor by which runs are faster. A change applies to runs that are created after it."""
        return self.service.speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self.service.speed = speed

    @property
    def concurrency(self) -> int:
        """How many tasks may be active at once."""
        return self.service.concurrency

    @concurrency.setter
    def concurrency(self, concurrency: int) -> None:
        self.service.concurrency = concurrency

    @property
    def refusal(self) -> tuple[int, str]:
        """Code and message with which a start is refused while ``concurrency`` tasks are active."""
        return self.service.refusal

    @refusal.setter
    def refusal(self, refusal: tuple[int, str]) -> None:
        self.service.refusal = refusal

    @property
    def credits(self) -> int | None:
        """Credits of the account. When they are used up, starts are refused. None means no limit."""
        return self.service.credits

    @credits.setter
    def credits(self, credits: int | None) -> None:
        self.service.credits = credits

    @property
    def workflows(self) -> dict[str, EmulatedWorkflow]:
        """The current workflows by id."""
        with self._changed:
            return dict(self.service.workflows)

    @property
    def templates(self) -> dict[str, EmulatedWorkflow]:
        """The current official templates by id."""
        with self._changed:
            return dict(self.service.templates)

    @property
    def tasks(self) -> list[TaskRecord]:
        """Every task ever created, oldest first."""
        return self.service.tasks()

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request that arrived, oldest first."""
        with self._changed:
            return list(self._requests)

    @property
    def deliveries(self) -> list[DeliveryRecord]:
        """Every attempt to deliver a callback, oldest first."""
        with self._changed:
            return list(self._deliveries)

    def add_workflow(self, workflow: EmulatedWorkflow) -> None:
        """Add a workflow, or a template, to the catalogue."""
        self.service.put(workflow)

    def set_workflow(self, workflow_id: str, **settings: Unpack[WorkflowSettings]) -> None:
        """Change a workflow or template for every run that is created from now on.

        :param settings: see :class:`EmulatedWorkflow`
        :raises KeyError: if there is no such workflow
        """
        with self._changed:
            self.service.put(self.service.find(workflow_id).having(**settings))

    def next_run(self, workflow_id: str, **settings: Unpack[WorkflowSettings]) -> None:
        """Change the settings of only the next run of a workflow or template.

        Several calls apply to several runs, in order. A refused request uses none of them.

        :param settings: see :class:`EmulatedWorkflow`
        :raises KeyError: if there is no such workflow
        """
        self.service.plan_run(workflow_id, settings)

    def rotate_key(self, api_key: str) -> None:
        """Accept another API key from now on, and refuse the previous one.

        :param api_key: the key to accept
        :raises ValueError: if it is empty
        """
        if not api_key:
            raise ValueError("api_key must not be empty")
        self.api_key = api_key

    def fault(self, endpoint: str, fault: RequestFault, *, times: int | None = None, skip: int = 0) -> None:
        """Add a fault of requests.

        :param endpoint: last part of the path such as ``run-task``; ``*`` for every endpoint of the API;
            ``download-file`` for exported files
        :param fault: the fault
        :param times: how many requests it applies to; None means all until :meth:`clear_faults`
        :param skip: how many requests pass without the fault before
        :raises ValueError: if there is no such endpoint
        """
        with self._changed:
            self._request_faults.arm(fault, _concerns(endpoint), times=times, skip=skip)

    @contextlib.contextmanager
    def outage(self, endpoint: str, fault: RequestFault) -> Iterator[None]:
        """Apply a fault to every request while the context lasts. Faults that were added before come first.

        :param endpoint: as in :meth:`fault`
        :raises ValueError: if there is no such endpoint
        """
        with self._changed:
            disarm = self._request_faults.arm(fault, _concerns(endpoint), times=None)
        try:
            yield
        finally:
            with self._changed:
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
        :param workflow_id: only callbacks of this workflow's runs
        :param task_id: only callbacks of this run
        :param status: only callbacks that report this status
        :param times: how many callbacks it applies to; None means all until :meth:`clear_faults`
        :param skip: how many callbacks pass without the fault before
        """
        if workflow_id is not None:
            self.service.find(workflow_id)

        def concerns(transition: Transition) -> bool:
            return (
                workflow_id in (None, transition.workflow.id)
                and task_id in (None, transition.task_id)
                and status in (None, transition.status)
            )

        with self._changed:
            self._callback_faults.arm(fault, concerns, times=times, skip=skip)

    def clear_faults(self) -> None:
        """Remove all faults of requests and callbacks."""
        with self._changed:
            self._request_faults.clear()
            self._callback_faults.clear()

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
            with self._changed:
                # The condition may depend on something outside the emulator.
                self._changed.wait(min(left, 0.02))

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

        with self._changed:
            if self._serving:
                raise RuntimeError("this emulator is already being served")
            self._serving = True
        try:
            with running_server(self, host, port) as url:
                yield RunningEmulator(url, self)
        finally:
            self._serving = False

    def accepts_key(self, authorization: str) -> bool:
        """Return whether the value of an ``Authorization`` header contains the API key."""
        scheme, _, key = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self.api_key.encode())

    def take_request_fault(self, endpoint: str) -> RequestFault | None:
        """Return the fault of a request that arrives now, or None."""
        with self._changed:
            return self._request_faults.take(endpoint)

    def take_callback_fault(self, transition: Transition) -> CallbackFault | None:
        """Return the fault of the callbacks of a status change, or None."""
        with self._changed:
            return self._callback_faults.take(transition) or transition.workflow.callback_fault

    def begin_request(
        self, method: str, path: str, query: str, endpoint: str | None, fault: str | None, with_key: bool
    ) -> int:
        """Record a request without a response, and return its number."""
        with self._changed:
            self._requests.append(RequestRecord(method, path, query, endpoint, None, fault, with_key, self._now()))
            self._changed.notify_all()
            return len(self._requests) - 1

    def end_request(self, number: int, status: int) -> None:
        """Record the status of the response to a request."""
        with self._changed:
            self._requests[number] = dataclasses.replace(self._requests[number], status=status)
            self._changed.notify_all()

    def record_delivery(
        self,
        transition: Transition,
        url: str,
        kind: str,
        attempt: int,
        *,
        http_status: int | None = None,
        error: str | None = None,
        fault: str | None = None,
    ) -> None:
        """Record an attempt to deliver a callback."""
        with self._changed:
            self._deliveries.append(
                DeliveryRecord(
                    transition.task_id,
                    url,
                    kind,
                    attempt,
                    transition.status,
                    http_status,
                    error,
                    fault,
                    self._now(),
                )
            )
            self._changed.notify_all()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.service.clock(), timezone.utc)


def _concerns(endpoint: str) -> Callable[[str], bool]:
    """Return a function that returns whether a fault of an endpoint applies to a request."""
    if endpoint not in (EVERY_ENDPOINT, DOWNLOAD_FILE, *ENDPOINTS):
        raise ValueError(f"no such endpoint: {endpoint!r} (there are: {', '.join(ENDPOINTS)})")
    return lambda requested: requested == endpoint or (endpoint == EVERY_ENDPOINT and requested in ENDPOINTS)


def _addresses(host: str) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
