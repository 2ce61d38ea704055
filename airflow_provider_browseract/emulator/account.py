"""An account of BrowserAct in memory, which a test controls and serves.

If the vendor's documents do not describe a behaviour, the emulator is strict, so that a DAG that works here does not
depend on undocumented behaviour. ``templates/differences.md`` lists the differences.
"""

from __future__ import annotations

import contextlib
import hmac
import http.client
import json
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_browseract.emulator.catalogue import WORKFLOWS
from airflow_provider_browseract.emulator.endpoints import Endpoint
from airflow_provider_browseract.emulator.errors import ApiError, Code, message_of
from airflow_provider_browseract.emulator.faults import ArmedFault, CallbackFault, RequestFault
from airflow_provider_browseract.emulator.pages import FILES, HTML, show
from airflow_provider_browseract.emulator.records import DeliveryRecord, RequestRecord, Response, envelope, iso, utc
from airflow_provider_browseract.emulator.runs import ENDED, Run
from airflow_provider_browseract.emulator.v2 import V2
from airflow_provider_browseract.emulator.v3 import V3
from airflow_provider_browseract.emulator.workflow import EmulatedWorkflow

log = logging.getLogger(__name__)

ENDPOINTS = {**V2.endpoints, **V3.endpoints}
"""The endpoints of both versions by name."""

EVERY_ENDPOINT, DOWNLOAD_FILE, CALLBACK = "*", "download-file", "callback"
"""What faults and rewrites can be about besides an endpoint of the API."""
NAMES = (EVERY_ENDPOINT, *ENDPOINTS)

HTML_PAGE = b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>Not the API</h1></body></html>"

_CHECKS: dict[str, tuple[Callable[[Any], object], str]] = {
    "api_key": (lambda key: key, "must not be empty"),
    "concurrency": (lambda number: number >= 1, "must be 1 or more"),
    "latency": (lambda seconds: 0 <= seconds[0] <= seconds[1] < float("inf"), "must be two numbers from 0, in order"),
}


@dataclass(kw_only=True, eq=False, repr=False)
class Emulator:
    """An emulated BrowserAct that a test controls and serves.

    The settings can be given as keyword arguments, and changed later: ``Emulator(concurrency=5)``. It is safe to use
    from several threads. The methods without ``with self.changed`` that change runs are for callers that hold it.
    """

    api_key: str = "app-emulator"
    """The accepted API key. Another one can be set at any time."""
    concurrency: int = 1
    """How many tasks may be active at once, including paused ones. Default: 1, as on the free plan; paid plans allow up
    to 20."""
    credits: int | None = None
    """Credits of the account. When they are used up, a start is refused. Default: None, which means no limit."""
    credits_at_end: bool = False
    """Whether a run uses its credits when it ends, instead of at the beginning of each step. Default: ``False``."""
    shared_runs: bool = False
    """Whether each version of the API knows and lists the tasks of the other one too. Default: ``False``."""
    latency: tuple[float, float] = (0.0, 0.0)
    """The shortest and the longest time in seconds that a response takes. Default: none; on the command line 0.05 and
    0.3."""
    callback_timeout: float = 30.0
    """Seconds without a sign of life after which a receiver of callbacks is given up. Default: 30."""
    callback_retry_delay: float = 1.0
    """Seconds between the attempts to deliver a callback. Default: 1."""
    clock: Callable[[], float] = time.time
    """Returns the time in seconds since the epoch. A served emulator needs a clock that runs by itself."""

    def __post_init__(self) -> None:
        #: The current workflows, templates and bots by id.
        self.workflows: dict[str, EmulatedWorkflow] = {workflow.id: workflow for workflow in WORKFLOWS}
        #: The URL at which it is served, and with which the links in responses begin.
        self.url = "http://browseract.invalid"
        #: Held while state is read or changed, and notified after a change of a task.
        self.changed = threading.Condition(threading.RLock())
        #: Cookies of each saved profile.
        self.profiles: dict[str, dict[str, str]] = {}
        self.runs: dict[str, Run] = {}
        self._active: list[Run] = []
        self._planned: dict[str, list[dict[str, Any]]] = {}
        self._transitions: list[Run] = []
        #: The versions of the API.
        self.apis: dict[str, V2 | V3] = {"v2": V2(self), "v3": V3(self)}
        self._faults: list[ArmedFault] = []
        self._rewrites: list[tuple[str, Callable[[Any], Any]]] = []
        #: Every request that arrived so far, oldest first.
        self.requests: list[RequestRecord] = []
        #: Every attempt to deliver a callback so far, oldest first.
        self.deliveries: list[DeliveryRecord] = []
        self._serving = threading.Lock()

    def __setattr__(self, name: str, value: Any) -> None:
        accepts, rule = _CHECKS.get(name, (lambda _: True, ""))
        if not accepts(value):
            raise ValueError(f"{name} {rule}, got {value!r}")
        super().__setattr__(name, value)

    @property
    def connection(self) -> dict[str, str]:
        """The Airflow connection to the emulator, as ``AIRFLOW_CONN_...`` takes it in JSON."""
        return {"conn_type": "browseract", "host": self.url, "password": self.api_key}

    @property
    def tasks(self) -> list[Run]:
        """Every task ever created, as it is now, oldest first."""
        with self.changed:
            now = self.catch_up()
            return [run.seen(now) for run in self.runs.values()]

    def of_kind(self, *kinds: str) -> list[EmulatedWorkflow]:
        """Return the workflows of some kinds, oldest first."""
        found = (workflow for workflow in self.workflows.values() if workflow.kind in kinds)
        return sorted(found, key=lambda workflow: workflow.created_at)

    def find(self, workflow_id: str) -> EmulatedWorkflow:
        """Return a workflow, template or bot, or raise a ``KeyError``."""
        if workflow_id not in self.workflows:
            raise KeyError(f"the emulator has no workflow, template or bot {workflow_id!r}")
        return self.workflows[workflow_id]

    def add_workflow(self, workflow: EmulatedWorkflow) -> None:
        """Add a workflow, a template or a bot. It replaces the one with the same id."""
        with self.changed:
            # A new dict, because another thread may iterate over the old one.
            self.workflows = {**self.workflows, workflow.id: workflow}

    def set_workflow(self, workflow_id: str, **settings: Any) -> None:
        """Change a workflow, template or bot for every run that is created from now on.

        :param workflow_id: its id, or ``*`` for all of them
        :param settings: see :class:`EmulatedWorkflow`
        :raises KeyError: if there is no such workflow
        """
        with self.changed:
            for each in self.workflows if workflow_id == "*" else [workflow_id]:
                self.add_workflow(self.find(each).having(**settings))

    def next_run(self, workflow_id: str, **settings: Any) -> None:
        """Change the settings of only the next run of a workflow, template or bot.

        Several calls apply to several runs, in order. A refused request uses none of them.

        :param settings: see :class:`EmulatedWorkflow`
        :raises KeyError: if there is no such workflow
        """
        with self.changed:
            self.find(workflow_id).having(**settings)
            self._planned.setdefault(workflow_id, []).append(settings)

    def fault(
        self,
        endpoint: str,
        fault: RequestFault | CallbackFault,
        *,
        times: int | None = None,
        skip: int = 0,
        **about: str,
    ) -> contextlib.AbstractContextManager[Any]:
        """Add a fault of requests or callbacks. The fault that was added first comes first::

            with emulator.fault("get-task", RequestFault.status(503)):  # without ``with``, until clear_faults()

        :param endpoint: BrowserAct's name of an endpoint, such as ``run-task`` or ``create-run``; ``*`` for every
            endpoint of both versions of the API; ``download-file`` for files; ``callback`` for callbacks
        :param fault: a :class:`CallbackFault` for callbacks, a :class:`RequestFault` for everything else
        :param times: how many requests it applies to; None means all
        :param skip: how many requests pass without the fault before
        :param about: only callbacks of the runs of one ``workflow_id`` (workflow, template or bot), of one ``task_id``,
            or that report one ``status``
        :raises ValueError: if the endpoint does not exist, or has no such faults
        """
        is_callback = isinstance(fault, CallbackFault)
        _check_name("endpoint", endpoint, (CALLBACK,) if is_callback else (*NAMES, DOWNLOAD_FILE))
        for name in about:
            _check_name("field of a callback", name, ("workflow_id", "task_id", "status") if is_callback else ())
        if "workflow_id" in about:
            self.find(about["workflow_id"])
        armed, applies = ArmedFault(fault, endpoint, about, times, skip), contextlib.ExitStack()
        self._faults.append(armed)
        applies.callback(setattr, armed, "times", 0)
        return applies

    def clear_faults(self) -> None:
        """Remove all faults of requests and callbacks."""
        self._faults.clear()

    def rewrite(self, endpoint: str, rewrite: Callable[[Any], Any]) -> None:
        """Change what an endpoint responds from now on, also its errors::

            emulator.rewrite("get-task", lambda body: {**body, "status": "dreaming"})

        :param endpoint: BrowserAct's name of an endpoint; ``*`` for every endpoint; ``callback`` for callbacks
        :param rewrite: returns another body, given the JSON value of the body, or None if it is empty. A result of None
            makes the response an empty one with status 200, and no callback. Rewrites that were added before come first
        :raises ValueError: if there is no such endpoint
        """
        _check_name("endpoint", endpoint, (*NAMES, CALLBACK))
        self._rewrites.append((endpoint, rewrite))

    def wait_until(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
        """Wait until a condition is true. It is checked every 20 ms, and after every change of a task.

        :param timeout: seconds to wait at most. Default: 30
        :raises TimeoutError: if it is not true by then
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() >= deadline:
                raise TimeoutError(f"the condition did not become true within {timeout:g} s")
            with self.changed:
                self.changed.wait(0.02)

    @contextlib.contextmanager
    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[Emulator]:
        """Serve the emulator at its ``url`` while the context lasts, and yield it.

        :param host: address to listen on. Default: 127.0.0.1
        :param port: port to listen on. Default: 0, which selects a free port
        :raises OSError: if the port is already in use
        :raises RuntimeError: if this emulator is already being served
        """
        # Imported here, because only a served emulator needs the web server.
        from airflow_provider_browseract.emulator.server import serving

        if not self._serving.acquire(blocking=False):
            raise RuntimeError("this emulator is already being served")
        try:
            with serving(self, host, port):
                yield self
        finally:
            self._serving.release()

    def handle(
        self, method: str, path: str, query: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """Respond to a request, without HTTP and without faults.

        :param query: the query string as it is sent
        :param headers: the headers by their names in lower case
        """
        endpoint, given = find_endpoint(method, path), headers or {}
        if endpoint is None:
            with self.changed:
                page = show(self, path, self.catch_up()) or self._no_such_route(path, 404)
            return page if method == "GET" or page.status == 404 else self._no_such_route(path, 405, Allow="GET")
        if endpoint.method != method:
            return self._no_such_route(path, 405, Allow=endpoint.method)
        scheme, _, key = given.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self.api_key.encode()):
            return self.error(endpoint.name, 401, 401)
        try:
            with self.changed:
                self.catch_up()
                value = endpoint.call(self.apis[endpoint.version], path, query, given, body)
                self.changed.notify_all()
        except ApiError as error:
            return self.error(endpoint.name, error.code.value[0], 400, detail=error.detail)
        except Exception as error:  # noqa: BLE001 - a test may have broken something
            return self.error(endpoint.name, 500, 500, f"{type(error).__name__}: {error}")
        return self._respond(endpoint.name, value, 200)

    def error(
        self, endpoint: str, code: int, status: int, message: str | None = None, detail: str = "", **headers: str
    ) -> Response:
        """Return an error response of an endpoint, with BrowserAct's message for the code by default."""
        known = message_of(code, ENDPOINTS[endpoint].version if endpoint in ENDPOINTS else "v2")
        text = message or known or ("Internal error" if status >= 500 else "Refused")
        return self._respond(endpoint, envelope(code, text + detail, self.clock()), status, **headers)

    def receive(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[RequestRecord, RequestFault | None, Response | None]:
        """Record a request, and return its record, its fault and its response, which is None if none arrives."""
        headers = {header.lower(): value for header, value in headers.items()}
        endpoint = find_endpoint(method, path)
        name = endpoint.name if endpoint else DOWNLOAD_FILE if path.startswith(FILES) else None
        fault: RequestFault | None = self.take_fault(name)
        kind = fault.kind if fault else None
        record = RequestRecord(method, path, query, name, kind, "authorization" in headers, utc(self.clock()))
        self.requests.append(record)
        if fault is None or name is None:
            return record, None, self.handle(method, path, query, headers, body)
        response = self.handle(method, path, query, headers, body) if fault.processed else None
        if fault.http_status:
            return record, fault, self._faulty(name, fault)
        return record, fault, response if fault.kind == "slow" else None

    def _faulty(self, endpoint: str, fault: RequestFault) -> Response:
        status, after = fault.http_status or 0, fault.retry_after
        if fault.kind in ("html", "lost_response"):
            return Response(status, HTML_PAGE, HTML)
        if fault.kind == "redirect":
            return Response(status, b"", HTML, {"Location": fault.location})
        if fault.kind == "gateway":
            return Response(status, json.dumps({"message": http.client.responses.get(status, "")}).encode())
        headers = {} if after is None else {"Retry-After": after if isinstance(after, str) else f"{after:g}"}
        return self.error(endpoint, fault.code or status, status, fault.message, **headers)

    def take_fault(self, endpoint: str | None, **about: str) -> Any:
        """Return the first fault that applies to a request or a callback, and count it."""
        with self.changed:
            found = (armed for armed in self._faults if _includes(armed.endpoint, endpoint) and armed.applies_to(about))
            return next((armed.fault for armed in found), None)

    def rewritten(self, endpoint: str, body: Any) -> Any:
        """Return what the rewrites make of a body."""
        for wanted, rewrite in self._rewrites:
            if _includes(wanted, endpoint):
                body = rewrite(body)
        return body

    def _respond(self, endpoint: str, value: Any, status: int, **headers: str) -> Response:
        try:
            value = self.rewritten(endpoint, value)
            body = json.dumps(value)
        except Exception as error:
            log.exception("A rewrite of the response of %s has an error", endpoint)
            status, body = 500, json.dumps(envelope(500, f"{type(error).__name__}: {error}", self.clock()))
        return Response(200) if value is None else Response(status, body.encode(), headers=headers)

    def _no_such_route(self, path: str, status: int, **headers: str) -> Response:
        # BrowserAct's address suggests a framework that responds like this. The response itself is not documented.
        error = http.client.responses[status]
        body = {"timestamp": iso(utc(self.clock())), "status": status, "error": error, "path": path}
        return Response(status, json.dumps(body).encode(), headers=headers)

    def as_planned(self, workflow: EmulatedWorkflow) -> EmulatedWorkflow:
        """Return a workflow with the settings of its next run."""
        planned = self._planned.get(workflow.id)
        return workflow.having(**planned[0]) if planned else workflow

    def new_id(self) -> str:
        """Return an unused id."""
        # 17 digits and odd, so that a client that reads the id as a floating-point number fails.
        while True:
            number = str((10**16 + secrets.randbelow(9 * 10**16)) | 1)
            if float(number) != int(number) and number not in self.runs and number not in self.profiles:
                return number

    def start_run(self, workflow: EmulatedWorkflow, **fields: Any) -> Run:
        """Start a run with these further fields, or raise an ``ApiError``."""
        if self.credits is not None and sum(run.credit for run in self.tasks) >= self.credits:
            raise ApiError(Code.NO_CREDITS)
        if workflow.one_at_a_time and workflow.id in {run.workflow_id for run in self._active}:
            raise ApiError(Code.BROWSER_BUSY)
        if len(self._active) >= self.concurrency:
            raise ApiError(Code.TOO_MANY_RUNNING)
        # The planned settings are removed only here, so that a refused request keeps them for the next one.
        if planned := self._planned.get(workflow.id):
            planned.pop(0)
        run = Run(
            id=self.new_id(),
            workflow=workflow,
            shown_workflow_id=self.new_id() if workflow.kind == "template" else workflow.id,
            created=self.clock(),
            credits_at_end=self.credits_at_end,
            **fields,
        )
        self.runs[run.id] = run
        self._active.append(run)
        return run

    def catch_up(self) -> float:
        """Let everything happen that is due by now, and return the time."""
        now = self.clock()
        # One change at a time, in order, because a run may save the profile with which the next one starts.
        while (change := self.next_change()) is not None and change[0] <= now:
            at, status, run = change
            if run.begun == 1 and run.profile_given:
                run.cookies = dict(self.profiles.get(run.profile_id or "", {}))
            if status in ENDED:
                self._active.remove(run)
                run.end(at)
            run.begun += 1
            self._transitions.append(seen := run.seen(at))
            if seen.status == "finished" and run.save_browser_data and run.profile_id is not None:
                self.profiles[run.profile_id] = dict(run.cookies)
            self.changed.notify_all()
        return now

    def take_transitions(self) -> list[Run]:
        """Return the tasks after each change of a status since the last call, oldest first."""
        with self.changed:
            self.catch_up()
            transitions, self._transitions = self._transitions, []
            return transitions

    def next_change(self) -> tuple[float, str, Run] | None:
        """Return when the next task changes by itself, its new status and the task, or None if none will."""
        changes = ((*run.next_change(), run) for run in self._active)
        coming = (change for change in changes if change[0] < math.inf)
        return min(coming, key=lambda change: change[0], default=None)


def find_endpoint(method: str, path: str) -> Endpoint | None:
    """Return the endpoint of a request, or one with the same path and another method."""
    found = [endpoint for endpoint in ENDPOINTS.values() if endpoint.pattern.fullmatch(path)]
    return next((endpoint for endpoint in found if endpoint.method == method), found[0] if found else None)


def _includes(wanted: str, endpoint: str | None) -> bool:
    return endpoint in ENDPOINTS if wanted == EVERY_ENDPOINT else endpoint == wanted


def _check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"no such {what}: {name!r} (there are: {', '.join(known)})")
