"""BrowserAct in memory, without HTTP.

If the vendor's documents do not describe a behaviour, the emulator is strict, so that a DAG that works here does not
depend on undocumented behaviour. :mod:`~airflow_provider_browseract.emulator.differences` lists the differences.
"""

from __future__ import annotations

import dataclasses
import hmac
import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.emulator.catalogue import BOTS, TEMPLATES, WORKFLOWS
from airflow_provider_browseract.emulator.errors import (
    BROWSER_BUSY,
    MESSAGES,
    NO_CREDITS,
    TOO_MANY_REQUESTS,
    TOO_MANY_RUNNING,
    ApiError,
)
from airflow_provider_browseract.emulator.faults import CallbackFault, FaultPlan, RequestFault
from airflow_provider_browseract.emulator.records import DeliveryRecord, RequestRecord, TaskRecord
from airflow_provider_browseract.emulator.rendering import full_task, run_detail
from airflow_provider_browseract.emulator.run import Run, Transition
from airflow_provider_browseract.emulator.workflow import (
    EmulatedBot,
    EmulatedFile,
    EmulatedTemplate,
    EmulatedWorkflow,
    Workflow,
    WorkflowSettings,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

_CHECKS: dict[str, tuple[Callable[[Any], object], str]] = {
    "api_key": (lambda key: key, "must not be empty"),
    "concurrency": (lambda number: number >= 1, "must be 1 or more"),
    "latency": (lambda seconds: 0 <= seconds[0] <= seconds[1] < float("inf"), "must be two numbers from 0, in order"),
    "max_duration": (lambda seconds: seconds is None or seconds > 0, "must be more than 0"),
    "rate_limit": (lambda rate: rate is None or (rate[0] >= 1 and rate[1] > 0), "must be a number from 1, and seconds"),
    "speed": (lambda factor: 0 < factor < float("inf"), "must be more than 0"),
}


@dataclass(kw_only=True, eq=False, repr=False)
class BrowserAct:
    """The account and its runs, the faults to apply, and the record of requests and callbacks.

    It is safe to use from several threads.
    """

    api_key: str = "app-emulator"
    """The accepted API key."""
    concurrency: int = 1
    """How many tasks may be active at once, including paused ones. Default: 1, as on the free plan."""
    speed: float = 1.0
    """Factor by which runs are faster. A change applies to runs that are created after it. Faults and time limits do
    not change. Default: 1."""
    allow_private_callbacks: bool = True
    """Whether callback URLs may have private and local addresses. The real service refuses them, but an emulator on a
    developer's machine usually needs them. Default: ``True``."""
    stop_ended_is_ok: bool = False
    """Whether ``stop-task`` responds with 200 for a task that has ended, as one of the vendor's documents says, instead
    of code 10121, as another one says. Default: ``False``."""
    resume_running_is_ok: bool = False
    """Whether ``resume-task`` responds with 200 for a running task, instead of code 10127. Default: ``False``."""
    refusal: tuple[int, str] = (TOO_MANY_RUNNING, MESSAGES[TOO_MANY_RUNNING])
    """Code and message with which a start is refused while ``concurrency`` tasks are active. Default: 10118, "Running
    tasks number exceeds."."""
    credits: int | None = None
    """Credits of the account. When they are used up, starts are refused. Default: None, which means no limit."""
    credits_at_end: bool = False
    """Whether a run uses its credits when it ends, instead of at the beginning of each step. Default: ``False``."""
    max_duration: float | None = None
    """Seconds (at speed 1) after which a run that has begun ends as failed, including its pauses. The real service ends
    a run after 7 hours, but how it does so is not documented. Default: None, which means no limit."""
    latency: tuple[float, float] = (0.0, 0.0)
    """The shortest and the longest time in seconds that a response takes, whatever the speed. Default: none."""
    rate_limit: tuple[int, float] | None = None
    """Number of requests to the API that are accepted within a number of seconds. Any further one gets HTTP 429 with
    ``Retry-After``. The real service documents no limit, so this response is invented. Default: None, no limit."""
    as_in_the_demos: bool = False
    """Whether responses are like those in the vendor's examples. A task has no ``credit`` and no ``log_detail_url``. It
    always has ``live_url_info``, ``finished_at`` even before its end, and null if it has no output, files or failure.
    Its steps appear when they end. A start returns ``profileId``. ``list-tasks`` with an empty ``workflow_id`` returns
    the tasks of all workflows. With API v3, a start returns ``id`` instead of ``task_id``, and a resume and a cancel
    nothing. A run always has ``live_url_info`` and never ``steps``, and its ``output`` is null if it has files. Errors
    are as with ``errors_as_in_the_demos``. Default: ``False``."""
    errors_as_in_the_demos: bool = False
    """Whether the error envelope is like those in the vendor's examples, with ``time`` as ``YYYY-MM-DD HH:MM:SS`` and
    ``data`` null, or absent with API v3, instead of as in its OpenAPI documents. Default: ``False``."""
    shared_runs: bool = False
    """Whether each version of the API knows and lists the tasks of the other one too. Default: ``False``."""
    converts_input: bool = False
    """Whether the ``input`` of a bot may have texts instead of numbers, booleans, lists and objects, which are then
    converted. Otherwise they are refused. Default: ``False``."""
    shows_defaults: bool = False
    """Whether the ``input`` in responses contains the defaults of the schema too. Default: ``False``."""
    hides_input: bool = False
    """Whether the ``input`` in responses has asterisks instead of all values. Default: ``False``."""
    callback_timeout: float = 30.0
    """Seconds that a receiver of callbacks may take to respond."""
    callback_retry_delay: float = 1.0
    """Seconds between the attempts to deliver a callback."""
    clock: Callable[[], float] = time.time
    """Returns the time in seconds since the epoch. A served emulator needs a clock that runs by itself."""

    workflows: dict[str, EmulatedWorkflow] = field(init=False)
    """The current workflows by id."""
    templates: dict[str, EmulatedTemplate] = field(init=False)
    """The current official templates by id."""
    bots: dict[str, EmulatedBot] = field(init=False)
    """The current bots that only API v3 serves, by id."""

    def __post_init__(self) -> None:
        self.workflows = {workflow.id: workflow for workflow in WORKFLOWS}
        self.templates = {template.id: template for template in TEMPLATES}
        self.bots = {bot.id: bot for bot in BOTS}
        #: Base URL of the links in responses.
        self.base_url = "http://browseract.invalid"
        #: Held while state is read or changed, and notified after a change.
        self.changed = threading.Condition(threading.RLock())
        #: Called after a change of any task, from any thread.
        self.on_change: Callable[[], None] | None = None
        #: Cookies of each saved profile.
        self.profiles: dict[str, dict[str, str]] = {}
        self.runs: dict[str, Run] = {}
        self.request_faults: FaultPlan[RequestFault] = FaultPlan()
        self.callback_faults: FaultPlan[CallbackFault] = FaultPlan()
        self._active: dict[str, Run] = {}
        self._planned: dict[str, list[WorkflowSettings]] = {}
        self._transitions: list[Transition] = []
        self._requests: list[RequestRecord] = []
        self._deliveries: list[DeliveryRecord] = []
        self._counted: list[float] = []

    def __setattr__(self, name: str, value: Any) -> None:
        accepts, rule = _CHECKS.get(name, (None, ""))
        if accepts is not None and not accepts(value):
            raise ValueError(f"{name} {rule}, got {value!r}")
        super().__setattr__(name, value)

    @property
    def tasks(self) -> list[TaskRecord]:
        """Every task ever created, oldest first."""
        with self.changed:
            now = self.catch_up()
            return [run.record(now) for run in self.runs.values()]

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request that arrived, oldest first."""
        with self.changed:
            return list(self._requests)

    @property
    def deliveries(self) -> list[DeliveryRecord]:
        """Every attempt to deliver a callback, oldest first."""
        with self.changed:
            return list(self._deliveries)

    @property
    def catalogue(self) -> dict[str, EmulatedWorkflow]:
        """All workflows, templates and bots by id."""
        return {**self.workflows, **self.templates, **self.bots}

    def find(self, workflow_id: str) -> EmulatedWorkflow:
        """Return a workflow, template or bot.

        :raises KeyError: if there is none with that id
        """
        try:
            return self.catalogue[workflow_id]
        except KeyError:
            raise KeyError(f"the emulator has no workflow, template or bot {workflow_id!r}") from None

    def add_workflow(self, workflow: EmulatedWorkflow) -> None:
        """Add a workflow, a template or a bot to the catalogue. It replaces the one with the same id."""
        kinds: tuple[type[EmulatedWorkflow], ...] = (EmulatedTemplate, EmulatedBot)
        with self.changed:
            known = self.catalogue.get(workflow.id, workflow)
            if any(isinstance(known, kind) != isinstance(workflow, kind) for kind in kinds):
                raise ValueError(f"{workflow.id!r} is the id of a workflow, template or bot of another kind")
            # A new dict, because another thread may iterate over the old one.
            if isinstance(workflow, EmulatedTemplate):
                self.templates = {**self.templates, workflow.id: workflow}
            elif isinstance(workflow, EmulatedBot):
                self.bots = {**self.bots, workflow.id: workflow}
            else:
                self.workflows = {**self.workflows, workflow.id: workflow}

    def set_workflow(self, workflow_id: str, **settings: Unpack[WorkflowSettings]) -> None:
        """Change a workflow, template or bot for every run that is created from now on.

        :param settings: see :class:`EmulatedWorkflow`
        :raises KeyError: if there is no such workflow
        """
        with self.changed:
            self.add_workflow(self.find(workflow_id).having(**settings))

    def next_run(self, workflow_id: str, **settings: Unpack[WorkflowSettings]) -> None:
        """Change the settings of only the next run of a workflow, template or bot.

        Several calls apply to several runs, in order. A refused request uses none of them.

        :param settings: see :class:`EmulatedWorkflow`
        :raises KeyError: if there is no such workflow
        """
        with self.changed:
            self.find(workflow_id).having(**settings)
            self._planned.setdefault(workflow_id, []).append(settings)

    def as_planned(self, workflow: Workflow) -> Workflow:
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
        """Start a run.

        :param fields: further fields of the run
        :raises ApiError: if the account does not allow it
        """
        now = self.clock()
        if self.credits is not None and sum(run.credit(now) for run in self.runs.values()) >= self.credits:
            raise ApiError(NO_CREDITS)
        if workflow.one_at_a_time and any(run.workflow.id == workflow.id for run in self._active.values()):
            raise ApiError(BROWSER_BUSY)
        if len(self._active) >= self.concurrency:
            raise ApiError(*self.refusal)
        # The planned settings are removed only here, so that a refused request keeps them for the next one.
        if self._planned.get(workflow.id):
            del self._planned[workflow.id][0]
        run = Run(
            id=self.new_id(),
            workflow=workflow,
            created=now,
            speed=self.speed,
            credits_at_end=self.credits_at_end,
            max_duration=self.max_duration,
            **fields,
        )
        self.runs[run.id] = self._active[run.id] = run
        self._announce()
        return run

    def stop_run(self, run: Run, biz_code: int | None) -> None:
        """Stop an active run."""
        if run.stopped is None:
            run.stopped, run.biz_code = self.clock(), biz_code
        self.catch_up()
        self._announce()

    def resume_run(self, run: Run) -> None:
        """Resume a paused run."""
        if run.resumed is None:
            run.resumed = self.clock()
        self.catch_up()
        self._announce()

    def catch_up(self) -> float:
        """Change everything that is due by now, and return the time."""
        now = self.clock()
        # One change at a time, in order, because a run may save the profile with which the next one starts.
        while due := [(at, run) for at, run in self._coming() if at <= now]:
            at, run = min(due, key=lambda one: one[0])
            if run.status == "created" and run.profile_given and run.profile_id is not None:
                run.cookies = dict(self.profiles[run.profile_id])
            status = run.proceed(at)
            if status == "finished" and run.save_browser_data and run.profile_id is not None:
                self.profiles[run.profile_id] = dict(run.cookies)
            self._change(run, status, at)
        return now

    def take_transitions(self) -> list[Transition]:
        """Return the status changes since the last call, oldest first."""
        with self.changed:
            self.catch_up()
            transitions, self._transitions = self._transitions, []
            return transitions

    def next_change(self) -> float | None:
        """Return when the next task changes by itself, or None if none will."""
        with self.changed:
            return min((at for at, _ in self._coming()), default=None)

    def describe(self, render: Callable[..., dict[str, Any]], run: Run, at: float | None = None) -> dict[str, Any]:
        """Return a run as a function of :mod:`~airflow_provider_browseract.emulator.rendering` describes it."""
        now = self.clock() if at is None else at
        return render(run, now, self.base_url, as_in_the_demos=self.as_in_the_demos)

    def file(self, token: str) -> EmulatedFile | None:
        """Return the file behind a link, or None if the link is unknown or has expired."""
        with self.changed:
            now = self.clock()
            files = (stored for run in self.runs.values() for stored in (*run.files, *run.downloads))
            valid = (stored.file for stored in files if stored.token == token and stored.can_be_opened(now))
            return next(valid, None)

    def accepts_key(self, authorization: str) -> bool:
        """Return whether the value of an ``Authorization`` header contains the API key."""
        scheme, _, key = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self.api_key.encode())

    def over_rate_limit(self) -> RequestFault | None:
        """Count a request to the API. Return how it is refused if there were too many."""
        with self.changed:
            if self.rate_limit is None:
                return None
            now, (requests, seconds) = self.clock(), self.rate_limit
            self._counted = [at for at in self._counted if at > now - seconds]
            if len(self._counted) >= requests:
                return RequestFault.status(TOO_MANY_REQUESTS, retry_after=math.ceil(self._counted[0] + seconds - now))
            self._counted.append(now)
            return None

    def begin_request(self, request: RequestRecord) -> int:
        """Record a request without a response, and return its number."""
        with self.changed:
            self._requests.append(request)
            self.changed.notify_all()
            return len(self._requests) - 1

    def end_request(self, number: int, status: int) -> None:
        """Record the status of the response to a request."""
        with self.changed:
            self._requests[number] = dataclasses.replace(self._requests[number], status=status)
            self.changed.notify_all()

    def record_delivery(self, delivery: DeliveryRecord) -> None:
        """Record an attempt to deliver a callback."""
        with self.changed:
            self._deliveries.append(delivery)
            self.changed.notify_all()

    def _coming(self) -> list[tuple[float, Run]]:
        return [(at, run) for run in self._active.values() if (at := run.next_change()) is not None]

    def _change(self, run: Run, status: str, at: float) -> None:
        run.change(status, at)
        # The vendor's list of statuses with a callback does not contain "pausing".
        urls = [("status_change_callback_url", run.status_change_callback_url)] if status != "pausing" else []
        if run.ended:
            del self._active[run.id]
            urls.append(("callback_url", run.callback_url))
        self._transitions.append(
            Transition(
                task_id=run.id,
                workflow=run.workflow,
                status=run.reported(at),
                ended=run.ended,
                payload=self.describe(full_task if run.api_version == "v2" else run_detail, run, at),
                urls=tuple((name, url) for name, url in urls if url is not None),
            )
        )
        self._announce()

    def _announce(self) -> None:
        self.changed.notify_all()
        if self.on_change is not None:
            self.on_change()
