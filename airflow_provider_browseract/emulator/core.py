"""The emulator as its user holds it: the service, what shall go wrong, and a record of what happened."""

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
    :param status: the HTTP status answered; None while or when there is no answer
    :param fault: the kind of fault that struck it
    :param with_key: whether it carried an ``Authorization`` header (of which nothing is kept)
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
    :param attempt: 1 to 3; higher than 1 after an answer of 5xx
    :param status: the task's status in the payload
    :param http_status: what the receiver answered; None if it did not, or was never asked
    :param error: why there is no answer
    :param fault: the kind of fault that struck it
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
    """An emulator that answers at a URL."""

    url: str
    emulator: Emulator

    @property
    def api_key(self) -> str:
        """The API key it accepts."""
        return self.emulator.api_key

    @property
    def connection(self) -> dict[str, str]:
        """The Airflow connection that leads to it, as ``AIRFLOW_CONN_...`` takes it in JSON."""
        return {"conn_type": "browseract", "host": self.url, "password": self.api_key}


class Emulator:
    """An emulated BrowserAct.

    :param api_key: the API key it accepts
    :param concurrency: how many tasks may be active at once; a paused one counts. Default: 1, as on the free plan
    :param speed: how many times faster than usual runs go; does not touch faults and time limits
    :param allow_private_callbacks: whether callback URLs may lead to private and local addresses. The real
        service refuses them; an emulator on a developer's machine can hardly
    :param stop_ended_is_ok: whether ``stop-task`` answers 200 for a task that has ended, not code 10121
    :param resume_running_is_ok: whether ``resume-task`` answers 200 for a task that is running, not code 10127
    :param refusal: code and words with which a start is refused while ``concurrency`` tasks are active. Default: 10118,
        "Running tasks number exceeds."
    :param credits: what the account has; a start is refused once that is spent. Default: enough for everything
    :param as_in_the_demos: whether answers are odd in the ways of the vendor's examples: ``profileId``, null outputs,
        screenshots and (in lists) ``created_at``, ``finished_at`` while a run is active, ``live_url_info`` after its
        end, and an envelope without ``data`` and with another format of ``time``
    :param callback_timeout: seconds a receiver may take to answer
    :param callback_retry_delay: seconds between the attempts to deliver a callback
    :param workflows: the workflows of the account
    :param templates: the official templates
    :param clock: tells the time in seconds since the epoch; a served emulator needs one that runs by itself
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
        """How many times faster than usual runs go; a change concerns the runs created after it."""
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
        """Code and words with which a start is refused while as many tasks are active."""
        return self.service.refusal

    @refusal.setter
    def refusal(self, refusal: tuple[int, str]) -> None:
        self.service.refusal = refusal

    @property
    def credits(self) -> int | None:
        """What the account has; a start is refused once that is spent. None means enough for everything."""
        return self.service.credits

    @credits.setter
    def credits(self, credits: int | None) -> None:
        self.service.credits = credits

    @property
    def workflows(self) -> dict[str, EmulatedWorkflow]:
        """The workflows by id, as they are at present."""
        with self._changed:
            return dict(self.service.workflows)

    @property
    def templates(self) -> dict[str, EmulatedWorkflow]:
        """The official templates by id, as they are at present."""
        with self._changed:
            return dict(self.service.templates)

    @property
    def tasks(self) -> list[TaskRecord]:
        """Every task ever created, oldest first."""
        return self.service.tasks()

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request that arrived, oldest first; those under ``/_emulator`` are left out."""
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
        """Change a workflow or template for every run created from now on.

        :param settings: see :class:`EmulatedWorkflow`
        :raises KeyError: if there is no such workflow
        """
        with self._changed:
            self.service.put(self.service.find(workflow_id).having(**settings))

    def next_run(self, workflow_id: str, **settings: Unpack[WorkflowSettings]) -> None:
        """Let the next run of a workflow or template, and only that, go differently.

        Several calls concern several runs, in turn. A refused request uses none up.

        :param settings: see :class:`EmulatedWorkflow`
        :raises KeyError: if there is no such workflow
        """
        self.service.plan_run(workflow_id, settings)

    def rotate_key(self, api_key: str) -> None:
        """Accept another API key from now on, and refuse the one before.

        :param api_key: the key to accept
        :raises ValueError: if it is empty
        """
        if not api_key:
            raise ValueError("api_key must not be empty")
        self.api_key = api_key

    def fault(self, endpoint: str, fault: RequestFault, *, times: int | None = None, skip: int = 0) -> None:
        """Let requests go wrong.

        :param endpoint: last part of the path such as ``run-task``; ``*`` for every endpoint of the API;
            ``download-file`` for exported files
        :param times: how many requests; None means all until :meth:`clear_faults`
        :param skip: how many requests to leave unharmed before
        :raises ValueError: if there is no such endpoint
        """
        with self._changed:
            self._request_faults.arm(fault, _concerns(endpoint), times=times, skip=skip)

    @contextlib.contextmanager
    def outage(self, endpoint: str, fault: RequestFault) -> Iterator[None]:
        """Let every request go wrong while the context lasts; faults that were armed before come first.

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
        """Let callbacks go wrong.

        :param workflow_id: only those of this workflow's runs
        :param task_id: only those of this run
        :param status: only those that tell of this status
        :param times: how many callbacks; None means all until :meth:`clear_faults`
        :param skip: how many callbacks to leave unharmed before
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
        """Let nothing go wrong any more, neither requests nor callbacks."""
        with self._changed:
            self._request_faults.clear()
            self._callback_faults.clear()

    def wait_until(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
        """Wait until a condition holds; it is looked at again after every change.

        :param timeout: seconds to wait at most
        :raises TimeoutError: if it does not hold by then
        """
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"the condition did not come to hold within {timeout:g} s")
            with self._changed:
                # The condition may depend on things the emulator knows nothing of.
                self._changed.wait(min(left, 0.02))

    @contextlib.contextmanager
    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[RunningEmulator]:
        """Answer at ``http://host:port`` while the context lasts; port 0 picks a free one.

        :raises OSError: if the port is taken
        :raises RuntimeError: if this emulator is being served already
        """
        # The web framework is imported only by those who serve.
        from airflow_provider_browseract.emulator.running import running_server

        with self._changed:
            if self._serving:
                raise RuntimeError("this emulator is being served already")
            self._serving = True
        try:
            with running_server(self, host, port) as url:
                yield RunningEmulator(url, self)
        finally:
            self._serving = False

    def accepts_key(self, authorization: str) -> bool:
        """Tell whether the value of an ``Authorization`` header carries the API key."""
        scheme, _, key = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self.api_key.encode())

    def take_request_fault(self, endpoint: str) -> RequestFault | None:
        """Return what goes wrong with a request that arrives now."""
        with self._changed:
            return self._request_faults.take(endpoint)

    def take_callback_fault(self, transition: Transition) -> CallbackFault | None:
        """Return what goes wrong with the callbacks of a status change."""
        with self._changed:
            return self._callback_faults.take(transition) or transition.workflow.callback_fault

    def begin_request(
        self, method: str, path: str, query: str, endpoint: str | None, fault: str | None, with_key: bool
    ) -> int:
        """Record a request, not answered yet, and return its number."""
        with self._changed:
            self._requests.append(RequestRecord(method, path, query, endpoint, None, fault, with_key, self._now()))
            self._changed.notify_all()
            return len(self._requests) - 1

    def end_request(self, number: int, status: int) -> None:
        """Record the answer to a request."""
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
    """Return what tells whether a request fault of an endpoint concerns a request."""
    if endpoint not in (EVERY_ENDPOINT, DOWNLOAD_FILE, *ENDPOINTS):
        raise ValueError(f"no such endpoint: {endpoint!r} (there are: {', '.join(ENDPOINTS)})")
    return lambda asked: asked == endpoint or (endpoint == EVERY_ENDPOINT and asked in ENDPOINTS)


def _addresses(host: str) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
