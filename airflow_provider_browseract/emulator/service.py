"""The emulated BrowserAct itself: tasks, profiles and files in memory, without I/O.

If the vendor's documents do not describe a behaviour, the emulator is strict, so that a DAG that works here does not
depend on undocumented behaviour. :mod:`~airflow_provider_browseract.emulator.differences` lists the differences.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal
from urllib.parse import quote

from airflow_provider_browseract.emulator.catalogue import (
    REGIONS,
    TEMPLATES,
    WORKFLOWS,
    EmulatedFile,
    EmulatedTemplate,
    EmulatedWorkflow,
    Output,
    RunContext,
    RunFailed,
    WorkflowInput,
    WorkflowSettings,
)
from airflow_provider_browseract.emulator.parameters import (
    PARAMETER_ERROR,
    ApiError,
    Query,
    check_callback_url,
    iso,
    parameter_error,
    read_inputs,
    read_object,
)

log = logging.getLogger(__name__)

PATH_PREFIX = "/v2/workflow/"
#: The endpoints, each named by the last part of its path, and their methods.
ENDPOINTS = {
    "run-task": "POST",
    "run-task-by-template": "POST",
    "get-task-status": "GET",
    "get-task": "GET",
    "list-tasks": "GET",
    "stop-task": "PUT",
    "resume-task": "PUT",
    "list-workflows": "GET",
    "get-workflow": "GET",
    "list-official-workflow-templates": "GET",
    "get-official-workflow-template": "GET",
    "get-region-list": "GET",
}

STATUSES = ("created", "running", "finished", "canceled", "pausing", "paused", "failed", "unknown")
ENDED = ("finished", "canceled", "failed")
CREDITS_PER_STEP = 5
MAX_LIMIT = 500
#: ``task_failure_info.code`` of a run whose behaviour raised another exception than RunFailed.
UNEXPECTED = 10000

UNAUTHORIZED = 401
REGION_UNKNOWN = 10013
NOT_PUBLISHED = 10020
WORKFLOW_UNKNOWN = 10111
TASK_UNKNOWN = 10112
TOO_MANY_RUNNING = 10118
BROWSER_BUSY = 90001
NO_CREDITS = 90002
TASK_ENDED = 10121
NOT_PAUSED = 10127
INPUT_MISSING = 10142
TEMPLATE_UNKNOWN = 10176

MESSAGES = {
    UNAUTHORIZED: "Invalid authorization",
    REGION_UNKNOWN: "Proxy region does not exist.",
    NOT_PUBLISHED: "Workflow is not published.",
    WORKFLOW_UNKNOWN: "Workflow does not exist or is not visible.",
    TASK_UNKNOWN: "Task is not exist.",
    TOO_MANY_RUNNING: "Running tasks number exceeds.",
    # The next two codes and messages are invented, because they are not documented.
    BROWSER_BUSY: "A Standard Browser allows only one active task at a time.",
    NO_CREDITS: "Insufficient credits.",
    TASK_ENDED: "Task has completed.",
    NOT_PAUSED: "Task resume only use for paused task",
    INPUT_MISSING: "Required input is missing.",
    TEMPLATE_UNKNOWN: "Workflow template does not exist.",
    PARAMETER_ERROR: "Request parameter error",
    99002: "No operation permission",
}

_RUN_FIELDS: dict[str, type] = {
    "workflow_id": str,
    "input_parameters": list,
    "save_browser_data": bool,
    "profile_id": str,
    "open_incognito_mode": bool,
    "callback_url": str,
    "status_change_callback_url": str,
}
_TEMPLATE_RUN_FIELDS: dict[str, type] = {
    "workflow_template_id": str,
    "proxyRegion": str,
    "input_parameters": list,
    "callback_url": str,
    "status_change_callback_url": str,
}
_FILTERS = ("status", "workflow_id", "workflow_name", "created_at_from", "created_at_to")


@dataclass(frozen=True)
class TaskRecord:
    """Everything about a task at one moment.

    :param workflow_id: its workflow, or its template
    :param inputs: the input parameters exactly as they were sent
    :param status: its true status, even if another word is reported
    :param history: each status, and when it began
    :param ended_by: ``workflow`` if it ended by itself, ``stop-task`` if a request stopped it
    :param biz_code: the business code of ``stop-task``
    """

    id: str
    workflow_id: str
    workflow_name: str
    from_template: bool
    proxy_region: str | None
    inputs: list[tuple[str, str]]
    profile_id: str | None
    save_browser_data: bool
    callback_url: str | None
    status_change_callback_url: str | None
    status: str
    history: list[tuple[str, datetime]]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    ended_by: Literal["workflow", "stop-task"] | None
    biz_code: int | None
    credit: int
    output: str | None


@dataclass(frozen=True)
class Transition:
    """A change of a task's status, and the payload of its callbacks.

    :param status: the reported status
    :param urls: the callback URLs, each with the name of its field in the request
    """

    task_id: str
    workflow: EmulatedWorkflow
    status: str
    ended: bool
    at: float
    payload: dict[str, Any]
    urls: tuple[tuple[str, str], ...]


@dataclass
class _StoredFile:
    file: EmulatedFile
    created: float
    lifetime: float
    expires: float = 0.0
    token: str = ""
    guid: str = field(default_factory=lambda: secrets.token_hex(4))

    def sign(self, at: float) -> None:
        self.token, self.expires = secrets.token_urlsafe(16), at + self.lifetime

    def ready(self, at: float) -> bool:
        return self.file.broken is None and self.created + self.file.prepared_after <= at


@dataclass
class _Run:
    """A task: its request and its progress.

    :param workflow_id: the workflow id that the API returns. For a template, it belongs to a copy that no list contains
    :param since: when the current status began
    :param worked: seconds of work (at speed 1) done before that
    :param paused_once: whether its pause has already begun
    :param resumed: when somebody resumed it, while it is still paused
    """

    id: str
    workflow: EmulatedWorkflow
    workflow_id: str
    inputs: list[tuple[str, str]]
    region: str | None
    profile_id: str | None
    profile_given: bool
    save_browser_data: bool
    callback_url: str | None
    status_change_callback_url: str | None
    created: float
    speed: float
    status: str = "created"
    since: float = 0.0
    worked: float = 0.0
    paused_once: bool = False
    resumed: float | None = None
    confirmed: bool = True
    started: float | None = None
    finished: float | None = None
    ended_by: Literal["workflow", "stop-task"] | None = None
    biz_code: int | None = None
    cookies: dict[str, str] = field(default_factory=dict)
    failure: tuple[int, str] | None = None
    output: Output = field(default_factory=Output)
    files: list[_StoredFile] = field(default_factory=list)
    downloads: list[_StoredFile] = field(default_factory=list)
    history: list[tuple[str, float]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def reported(self, at: float) -> str:
        """Return the status that the API reports."""
        if self.workflow.status is not None:
            return self.workflow.status
        if self.status == "running" and self.workflow.unknown_at is not None:
            begun = self.work_done(at) - self.workflow.duration * self.workflow.unknown_at
            if 0 <= begun < self.workflow.unknown_for:
                return "unknown"
        return self.status

    def has_output(self, at: float) -> bool:
        """Return whether its output and files are available."""
        return self.finished is not None and self.finished + self.workflow.output_after / self.speed <= at

    def is_listed(self, at: float) -> bool:
        return self.created + self.workflow.listed_after / self.speed <= at

    @property
    def will_pause(self) -> bool:
        return self.workflow.pause_at is not None and not self.paused_once

    @property
    def work_ahead(self) -> float:
        """Seconds of work (at speed 1, from the beginning) before the run pauses or ends."""
        if self.workflow.pause_at is not None and not self.paused_once:
            return self.workflow.duration * self.workflow.pause_at
        return self.workflow.duration

    def next_change(self) -> float | None:
        """Return when the status changes by itself, or None if it will not."""
        if self.status == "created":
            return self.created + self.workflow.queued / self.speed
        if self.status == "running":
            return self.since + (self.work_ahead - self.worked) / self.speed
        if self.status == "pausing":
            return self.since + self.workflow.pausing_for / self.speed
        if self.status == "paused":
            return min(filter(None, (self.goes_on_at, self.expires_at)), default=None)
        return None

    @property
    def goes_on_at(self) -> float | None:
        """When a resumed run leaves its pause."""
        return None if self.resumed is None else self.resumed + self.workflow.resume_after / self.speed

    @property
    def expires_at(self) -> float | None:
        """When a pause ends that nobody ends earlier."""
        limit = self.workflow.pause_limit
        return None if limit is None else self.since + limit / self.speed

    def work_done(self, at: float) -> float:
        if self.status != "running":
            return self.worked
        return min(self.worked + (at - self.since) * self.speed, self.work_ahead)

    def change(self, status: str, at: float) -> None:
        self.worked = self.work_done(at)
        if status in ("pausing", "paused"):
            self.paused_once = True
        self.status, self.since = status, at
        self.history.append((status, at))
        if status == "running" and self.started is None:
            self.started = at
        if status in ENDED:
            self.finished = at

    def steps(self, at: float) -> list[tuple[str, str]]:
        """Return goal and status of each step that has begun by then."""
        if self.started is None:
            return []
        goals = self.workflow.steps
        if self.workflow.outcome == "failed" and self.workflow.failed_step is not None:
            goals = goals[: self.workflow.failed_step]
        share = self.work_done(at) / self.workflow.duration if self.workflow.duration else 1.0
        begun = min(int(share * len(goals)) + 1, len(goals))
        last = {"finished": "succeed", "failed": "failed", "canceled": "failed"}.get(self.status, "running")
        return [(goal, "succeed") for goal in goals[: begun - 1]] + [(goals[begun - 1], last)]


class BrowserActService:
    """BrowserAct in memory. It is safe to use from several threads.

    :param concurrency: how many tasks may be active at once, including paused ones. Default: 1, as on the free plan
    :param speed: factor by which runs are faster
    :param clock: returns the time, in seconds since the epoch
    :param stop_ended_is_ok: whether ``stop-task`` responds with 200 for a task that has ended, as one of the vendor's
        documents says, instead of code 10121, as another one says
    :param resume_running_is_ok: whether ``resume-task`` responds with 200 for a running task, instead of code 10127
    :param refusal: code and message with which a start is refused while ``concurrency`` tasks are active
    :param credits: credits of the account. When they are used up, starts are refused. None means no limit
    :param as_in_the_demos: whether responses have the irregularities of the vendor's examples
    :param resolve_host: returns the addresses of a callback URL's host, to refuse private ones as the real service
        does; None allows them
    """

    def __init__(
        self,
        *,
        workflows: Iterable[EmulatedWorkflow] = WORKFLOWS,
        templates: Iterable[EmulatedTemplate] = TEMPLATES,
        concurrency: int = 1,
        speed: float = 1.0,
        clock: Callable[[], float] = time.time,
        stop_ended_is_ok: bool = False,
        resume_running_is_ok: bool = False,
        refusal: tuple[int, str] = (TOO_MANY_RUNNING, MESSAGES[TOO_MANY_RUNNING]),
        credits: int | None = None,
        as_in_the_demos: bool = False,
        resolve_host: Callable[[str], Iterable[str]] | None = None,
    ) -> None:
        self.workflows: dict[str, EmulatedWorkflow] = {workflow.id: workflow for workflow in workflows}
        self.templates: dict[str, EmulatedWorkflow] = {template.id: template for template in templates}
        self.concurrency = concurrency
        self.speed = speed
        self.clock = clock
        self.stop_ended_is_ok = stop_ended_is_ok
        self.resume_running_is_ok = resume_running_is_ok
        self.refusal = refusal
        self.credits = credits
        self.as_in_the_demos = as_in_the_demos
        self.resolve_host = resolve_host
        #: Base URL of the links in responses.
        self.base_url = "http://browseract.invalid"
        #: Held while state is read or changed, and notified after a change.
        self.changed = threading.Condition(threading.RLock())
        #: Called after a change of any task, from any thread.
        self.on_change: Callable[[], None] | None = None
        #: Cookies of each saved profile.
        self.profiles: dict[str, dict[str, str]] = {}
        self._runs: dict[str, _Run] = {}
        self._under_way: dict[str, _Run] = {}
        self._files: dict[str, _StoredFile] = {}
        self._planned: dict[str, list[WorkflowSettings]] = {}
        self._transitions: list[Transition] = []
        self._reads: dict[str, tuple[Callable[[Query], Any], tuple[str, ...]]] = {
            "get-task-status": (self._get_task_status, ("task_id",)),
            "get-task": (self._get_task, ("task_id",)),
            "list-tasks": (self._list_tasks, (*_FILTERS, "page", "limit")),
            "stop-task": (self._stop_task, ("task_id", "biz_code")),
            "resume-task": (self._resume_task, ("task_id",)),
            "list-workflows": (self._list_workflows, ("page", "limit")),
            "get-workflow": (self._get_workflow, ("workflow_id",)),
            "list-official-workflow-templates": (self._list_templates, ("keyword", "page", "limit")),
            "get-official-workflow-template": (self._get_template, ("workflow_template_id",)),
            "get-region-list": (self._get_region_list, ()),
        }

    @property
    def speed(self) -> float:
        """Factor by which runs are faster. A change applies to runs that are created after it."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        if not 0 < speed < float("inf"):
            raise ValueError(f"speed must be more than 0, got {speed!r}")
        self._speed = speed

    @property
    def concurrency(self) -> int:
        """How many tasks may be active at once."""
        return self._concurrency

    @concurrency.setter
    def concurrency(self, concurrency: int) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, got {concurrency!r}")
        self._concurrency = concurrency

    def call(self, endpoint: str, *, query: bytes = b"", body: bytes = b"", content_type: str = "") -> Any:
        """Process a request, and return the body of the response.

        :param endpoint: the last part of the path, such as ``run-task``
        :param query: the query string as it was sent
        :returns: the value of the JSON body; None for an empty body
        :raises ApiError: if the response is the error envelope
        """
        with self.changed:
            self._bring_up_to_date(self.clock())
            if endpoint == "run-task":
                Query(query, ())
                value: Any = self._run_task(read_object(body, content_type, _RUN_FIELDS))
            elif endpoint == "run-task-by-template":
                Query(query, ())
                value = self._run_template(read_object(body, content_type, _TEMPLATE_RUN_FIELDS))
            else:
                read, known = self._reads[endpoint]
                value = read(Query(query, known))
            return value

    def advance(self, now: float | None = None) -> list[Transition]:
        """Update all tasks.

        :param now: the time to use instead of the clock
        :returns: the status changes since the last call, oldest first
        """
        with self.changed:
            self._bring_up_to_date(self.clock() if now is None else now)
            transitions, self._transitions = self._transitions, []
            return transitions

    def next_change(self) -> float | None:
        """Return when the next task changes by itself, or None if none will."""
        with self.changed:
            due = [moment for run in self._under_way.values() if (moment := run.next_change()) is not None]
            return min(due, default=None)

    def find(self, workflow_id: str) -> EmulatedWorkflow:
        """Return a workflow or template.

        :raises KeyError: if there is none with that id
        """
        found = self.workflows.get(workflow_id) or self.templates.get(workflow_id)
        if found is None:
            raise KeyError(f"the emulator has no workflow or template {workflow_id!r}")
        return found

    def put(self, workflow: EmulatedWorkflow) -> None:
        """Add a workflow or template, or replace the one with the same id."""
        with self.changed:
            same_kind, other = self.workflows, self.templates
            if isinstance(workflow, EmulatedTemplate):
                same_kind, other = other, same_kind
            if workflow.id in other:
                raise ValueError(f"{workflow.id!r} is the id of both a workflow and a template")
            same_kind[workflow.id] = workflow

    def plan_run(self, workflow_id: str, settings: WorkflowSettings) -> None:
        """Apply settings to the next run of a workflow for which no settings are planned yet."""
        with self.changed:
            self.find(workflow_id).having(**settings)
            self._planned.setdefault(workflow_id, []).append(settings)

    def tasks(self) -> list[TaskRecord]:
        """Return every task ever created, oldest first."""
        with self.changed:
            now = self.clock()
            self._bring_up_to_date(now)
            return [_record(run, now) for run in self._runs.values()]

    def file(self, token: str) -> EmulatedFile | None:
        """Return the file behind a link, or None if the link is unknown or has expired."""
        with self.changed:
            stored = self._files.get(token)
            now = self.clock()
            return stored.file if stored is not None and stored.ready(now) and now < stored.expires else None

    def describe(self, task_id: str) -> dict[str, Any] | None:
        """Return a task as ``get-task`` does, or None if there is none with that id."""
        with self.changed:
            now = self.clock()
            self._bring_up_to_date(now)
            run = self._runs.get(task_id)
            return None if run is None else self._full(run, now)

    def _run_task(self, body: dict[str, Any]) -> dict[str, Any]:
        workflow_id = body.get("workflow_id")
        if not workflow_id:
            raise parameter_error("workflow_id is required")
        inputs = self._read_common(body)
        workflow = self.workflows.get(workflow_id)
        if workflow is None:
            raise _error(WORKFLOW_UNKNOWN)
        workflow = self._as_planned(workflow)
        if not workflow.published:
            raise _error(NOT_PUBLISHED)
        _check_inputs(workflow.inputs, inputs)
        given = body.get("profile_id") or None
        if given is not None and given not in self.profiles:
            raise parameter_error(f"there is no profile {given!r}")
        self._check_account(workflow)
        profile_id = given or self._new_id()
        save = body.get("save_browser_data", False)
        if save:
            self.profiles.setdefault(profile_id, {})
        run = self._create(workflow, body, inputs, profile_id=profile_id, profile_given=given is not None, save=save)
        return {"id": run.id, self._profile_key: profile_id} if save else {"id": run.id}

    def _run_template(self, body: dict[str, Any]) -> dict[str, Any]:
        template_id = body.get("workflow_template_id")
        if not template_id:
            raise parameter_error("workflow_template_id is required")
        inputs = self._read_common(body)
        template = self.templates.get(template_id)
        if template is None:
            raise _error(TEMPLATE_UNKNOWN)
        template = self._as_planned(template)
        region = body.get("proxyRegion", "US")
        if region not in {one.code for one in REGIONS}:
            raise _error(REGION_UNKNOWN)
        _check_inputs(template.inputs, inputs)
        self._check_account(template)
        run = self._create(template, body, inputs, region=region)
        return {"id": run.id, self._profile_key: self._new_id()} if self.as_in_the_demos else {"id": run.id}

    def _read_common(self, body: dict[str, Any]) -> list[tuple[str, str]]:
        for name in ("callback_url", "status_change_callback_url"):
            if name in body:
                check_callback_url(name, body[name], self.resolve_host)
        return read_inputs(body.get("input_parameters", []))

    def _check_account(self, workflow: EmulatedWorkflow) -> None:
        now = self.clock()
        if self.credits is not None and sum(_credit(run, now) for run in self._runs.values()) >= self.credits:
            raise _error(NO_CREDITS)
        if workflow.one_at_a_time and any(run.workflow.id == workflow.id for run in self._under_way.values()):
            raise _error(BROWSER_BUSY)
        if len(self._under_way) >= self.concurrency:
            raise ApiError(*self.refusal)

    def _as_planned(self, workflow: EmulatedWorkflow) -> EmulatedWorkflow:
        planned = self._planned.get(workflow.id)
        return workflow.having(**planned[0]) if planned else workflow

    def _create(
        self,
        workflow: EmulatedWorkflow,
        body: dict[str, Any],
        inputs: list[tuple[str, str]],
        *,
        region: str | None = None,
        profile_id: str | None = None,
        profile_given: bool = False,
        save: bool = False,
    ) -> _Run:
        # The planned settings are removed only here, so that a refused request keeps them for the next one.
        if self._planned.get(workflow.id):
            del self._planned[workflow.id][0]
        now = self.clock()
        run = _Run(
            id=self._new_id(),
            workflow=workflow,
            workflow_id=self._new_id() if isinstance(workflow, EmulatedTemplate) else workflow.id,
            inputs=inputs,
            region=region,
            profile_id=profile_id,
            profile_given=profile_given,
            save_browser_data=save,
            callback_url=body.get("callback_url"),
            status_change_callback_url=body.get("status_change_callback_url"),
            created=now,
            since=now,
            speed=self.speed,
            history=[("created", now)],
        )
        self._runs[run.id] = self._under_way[run.id] = run
        self._announce()
        return run

    def _new_id(self) -> str:
        # 17 digits and odd, so that a client that reads the id as a floating-point number fails.
        while True:
            number = str((10**16 + secrets.randbelow(9 * 10**16)) | 1)
            if float(number) != int(number) and number not in self._runs and number not in self.profiles:
                return number

    def _bring_up_to_date(self, now: float) -> None:
        # One change at a time, in order, because a run may save the profile with which the next one starts.
        while True:
            due = [
                (moment, run)
                for run in self._under_way.values()
                if (moment := run.next_change()) is not None and moment <= now
            ]
            if not due:
                return
            moment, run = min(due, key=lambda one: one[0])
            if run.status == "created" and run.profile_given and run.profile_id is not None:
                run.cookies = dict(self.profiles[run.profile_id])
            if run.status == "paused" and moment != run.goes_on_at:
                run.confirmed = False
            if run.status in ("created", "paused"):
                self._change(run, "running", moment)
            elif run.status == "pausing":
                self._change(run, "paused", moment)
            elif run.will_pause:
                self._change(run, "pausing" if run.workflow.pausing_for else "paused", moment)
            else:
                self._end(run, moment)

    def _end(self, run: _Run, at: float) -> None:
        outcome: str = run.workflow.outcome
        run.ended_by = "workflow"
        if outcome == "failed":
            run.failure = run.workflow.failure
        elif outcome == "finished":
            try:
                run.output = run.workflow.behaviour(RunContext(dict(run.inputs), run.cookies, run.confirmed))
            except RunFailed as failed:
                outcome, run.failure = "failed", (failed.code, failed.message)
            except Exception as error:
                log.exception("The behaviour of the emulated workflow %r has an error", run.workflow.name)
                outcome, run.failure = "failed", (UNEXPECTED, f"{type(error).__name__}: {error}")
            else:
                if run.save_browser_data and run.profile_id is not None:
                    self.profiles[run.profile_id] = dict(run.cookies)
        text, files, downloads = run.workflow.output, run.workflow.files, run.workflow.downloads
        run.output = Output(
            run.output.string if text is None else text,
            run.output.files if files is None else files,
            run.output.downloads if downloads is None else downloads,
        )
        run.files = [self._store(file, run, at) for file in run.output.files]
        run.downloads = [self._store(file, run, at) for file in run.output.downloads]
        self._change(run, outcome, at)

    def _store(self, file: EmulatedFile, run: _Run, at: float) -> _StoredFile:
        stored = _StoredFile(file, at, run.workflow.file_lifetime)
        self._sign(stored, at)
        return stored

    def _change(self, run: _Run, status: str, at: float) -> None:
        run.change(status, at)
        # The vendor's list of statuses with a callback does not contain "pausing".
        urls = [("status_change_callback_url", run.status_change_callback_url)] if status != "pausing" else []
        if run.ended:
            del self._under_way[run.id]
            urls.append(("callback_url", run.callback_url))
        self._transitions.append(
            Transition(
                task_id=run.id,
                workflow=run.workflow,
                status=run.reported(at),
                ended=run.ended,
                at=at,
                payload=self._full(run, at),
                urls=tuple((name, url) for name, url in urls if url is not None),
            )
        )
        self._announce()

    def _announce(self) -> None:
        self.changed.notify_all()
        if self.on_change is not None:
            self.on_change()

    def _task(self, query: Query) -> _Run:
        run = self._runs.get(query.required("task_id"))
        if run is None:
            raise _error(TASK_UNKNOWN)
        return run

    def _get_task_status(self, query: Query) -> dict[str, Any]:
        return {"status": self._task(query).reported(self.clock())}

    def _get_task(self, query: Query) -> dict[str, Any]:
        return self._full(self._task(query), self.clock())

    def _stop_task(self, query: Query) -> None:
        biz_code = query.integer("biz_code", -(2**31))
        run = self._task(query)
        if not run.ended:
            run.ended_by = "stop-task"
            run.biz_code = biz_code
            self._change(run, "canceled", self.clock())
        elif not self.stop_ended_is_ok:
            raise _error(TASK_ENDED)

    def _resume_task(self, query: Query) -> None:
        run, now = self._task(query), self.clock()
        if run.status == "running" and self.resume_running_is_ok:
            return
        if run.status != "paused":
            raise _error(NOT_PAUSED)
        if run.resumed is None:
            run.resumed = now
        self._bring_up_to_date(now)
        self._announce()

    def _list_tasks(self, query: Query) -> dict[str, Any]:
        status = query.text("status")
        if status is not None and status not in STATUSES:
            raise parameter_error(f"status must be one of {', '.join(STATUSES)}")
        workflow_id = query.text("workflow_id")
        name = (query.text("workflow_name") or "").lower()
        earliest = query.moment("created_at_from")
        latest = query.moment("created_at_to")
        now = self.clock()
        found = [
            run
            for run in reversed(self._runs.values())
            if run.is_listed(now)
            and status in (None, run.reported(now))
            and workflow_id in (None, run.workflow_id)
            and name in run.workflow.name.lower()
            and (earliest is None or earliest <= int(run.created))
            and (latest is None or int(run.created) <= latest)
        ]
        odd = {"created_at": None} if self.as_in_the_demos else {}
        return _page(query, found, lambda run: {**self._simple(run, now), **odd})

    def _list_workflows(self, query: Query) -> dict[str, Any]:
        return _page(query, _newest_first(self.workflows.values()), _workflow)

    def _get_workflow(self, query: Query) -> dict[str, Any]:
        workflow = self.workflows.get(query.required("workflow_id"))
        if workflow is None:
            raise _error(WORKFLOW_UNKNOWN)
        return {**_workflow(workflow), "input_parameters": _inputs(workflow)}

    def _list_templates(self, query: Query) -> dict[str, Any]:
        keyword = (query.text("keyword") or "").lower()
        found = [
            one
            for one in _newest_first(self.templates.values())
            if keyword in one.name.lower() or keyword in one.description.lower()
        ]
        return _page(query, found, lambda one: {"templateId": one.id, "name": one.name, **_recommended(one)})

    def _get_template(self, query: Query) -> dict[str, Any]:
        template = self.templates.get(query.required("workflow_template_id"))
        if template is None:
            raise _error(TEMPLATE_UNKNOWN)
        return {**_workflow(template), **_recommended(template), "input_parameters": _inputs(template)}

    def _get_region_list(self, _: Query) -> list[dict[str, str]]:
        return [{"name": region.name, "code": region.code} for region in REGIONS]

    @property
    def _profile_key(self) -> str:
        return "profileId" if self.as_in_the_demos else "profile_id"

    def _simple(self, run: _Run, at: float) -> dict[str, Any]:
        odd = self.as_in_the_demos
        task: dict[str, Any] = {
            "id": run.id,
            "status": run.reported(at),
            "workflow_id": run.workflow_id,
            "input_parameters": "; ".join(f"{name}={value}" for name, value in run.inputs),
            "created_at": iso(run.created),
            "credit": _credit(run, at),
        }
        if run.profile_id is not None:
            task[self._profile_key] = run.profile_id
        if run.status in ("running", "pausing", "paused") or (odd and run.ended):
            live_url = f"{self.base_url}/live/{run.id}"
            task["live_url_info"] = {"width": 1280, "height": 720, "live_url": live_url}
            task["live_url"] = live_url
        if run.finished is not None or (odd and run.started is not None):
            task["finished_at"] = iso(at if run.finished is None else run.finished)
        if run.has_output(at) and not (odd and run.status != "finished"):
            task["output"] = {
                "string": run.output.string,
                "files": [self._link(stored, at) for stored in run.files if stored.ready(at)],
            }
        elif odd:
            task["output"] = {"string": None, "files": None}
        if run.status == "failed" and run.failure is not None:
            task["task_failure_info"] = {"code": run.failure[0], "message": run.failure[1]}
        return task

    def _full(self, run: _Run, at: float) -> dict[str, Any]:
        task = self._simple(run, at)
        task["log_detail_url"] = f"{self.base_url}/logs/{run.id}"
        task["steps"] = steps = []
        before = None
        for number, (goal, status) in enumerate(run.steps(at), start=1):
            steps.append(
                {
                    "id": f"{run.id}{number:02}",
                    "step": number,
                    "status": status,
                    "evaluation_previous_goal": "" if before is None else f"Reached: {before}",
                    "step_goal": goal,
                    "screenshots_url": self._screenshot(run, number),
                }
            )
            before = goal
        if run.downloads and run.has_output(at):
            task["download_files"] = [self._download(stored, at) for stored in run.downloads]
            task["files_expires_at"] = _milliseconds(min(stored.expires for stored in run.downloads))
        return task

    def _screenshot(self, run: _Run, number: int) -> str | None:
        return None if self.as_in_the_demos else f"{self.base_url}/screenshots/{run.id}/{number}.png"

    def _download(self, stored: _StoredFile, at: float) -> dict[str, Any]:
        created = _milliseconds(stored.created)
        described: dict[str, Any] = {
            "guid": stored.guid,
            "fileName": stored.file.name,
            "status": "uploading",
            "progress": 50,
            "downloadStartTime": created,
            "createTime": created,
        }
        if stored.file.broken is not None:
            return {**described, "status": "failed", "errorMessage": stored.file.broken}
        if not stored.ready(at):
            return described
        announced = stored.file.announced
        return {
            **described,
            "status": "uploaded",
            "progress": 100,
            "fileSize": len(stored.file.content) if announced is None else announced,
            "downloadUrl": self._link(stored, at),
            "downloadCompletedTime": _milliseconds(stored.created + stored.file.prepared_after),
            "expiresAt": _milliseconds(stored.expires),
        }

    def _link(self, stored: _StoredFile, at: float) -> str:
        """Return a link. If the earlier link has expired, sign a new one."""
        if at >= stored.expires:
            self._sign(stored, at)
        name = quote(stored.file.name, safe="")
        return f"{self.base_url}/files/{stored.token}/{name}?expires={_milliseconds(stored.expires)}"

    def _sign(self, stored: _StoredFile, at: float) -> None:
        self._files.pop(stored.token, None)
        stored.sign(at)
        self._files[stored.token] = stored


def error_envelope(code: int, message: str, now: float, *, as_in_the_demos: bool = False) -> dict[str, Any]:
    """Return the body of an error response."""
    return {
        "code": code,
        "msg": message,
        "data": None if as_in_the_demos else {},
        "ts": _milliseconds(now),
        "time": f"{_moment(now):%Y-%m-%d %H:%M:%S}" if as_in_the_demos else iso(now),
        "traceId": secrets.token_hex(16),
    }


def _credit(run: _Run, at: float) -> int:
    return CREDITS_PER_STEP * len(run.steps(at))


def _error(code: int) -> ApiError:
    return ApiError(code, MESSAGES[code])


def _check_inputs(declared: tuple[WorkflowInput, ...], inputs: list[tuple[str, str]]) -> None:
    given = dict(inputs)
    for name in given.keys() - {one.name for one in declared}:
        raise parameter_error(f"the workflow has no input parameter {name!r}")
    for one in declared:
        if one.required and not given.get(one.name):
            raise ApiError(INPUT_MISSING, f"{MESSAGES[INPUT_MISSING]} ({one.name})")


def _page(query: Query, found: list[Any], render: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    page = query.integer("page", 1) or 1
    # Without a limit, the service returns one item per page.
    limit = query.integer("limit", 1, MAX_LIMIT) or 1
    return {
        "page": page,
        "limit": limit,
        "items": [render(one) for one in found[(page - 1) * limit : page * limit]],
        "total_pages": -(-len(found) // limit),
        "total_count": len(found),
    }


def _newest_first(workflows: Iterable[EmulatedWorkflow]) -> list[EmulatedWorkflow]:
    return sorted(workflows, key=lambda one: one.created_at, reverse=True)


def _workflow(workflow: EmulatedWorkflow) -> dict[str, Any]:
    described = {
        "id": workflow.id,
        "name": workflow.name,
        "description": workflow.description,
        "create_at": workflow.created_at,
    }
    if workflow.published:
        described["publish_at"] = workflow.published_at
    return described


def _inputs(workflow: EmulatedWorkflow) -> list[dict[str, Any]]:
    # According to the vendor's n8n node, a parameter that is not enabled by default is required.
    return [{"name": one.name, "default_enabled": not one.required} for one in workflow.inputs]


def _recommended(template: EmulatedWorkflow) -> dict[str, str]:
    if not isinstance(template, EmulatedTemplate):
        raise TypeError(f"{template.id!r} is not a template")
    return {"recommendDesc": template.recommendation, "detailUrl": template.detail_url}


def _record(run: _Run, at: float) -> TaskRecord:
    return TaskRecord(
        id=run.id,
        workflow_id=run.workflow.id,
        workflow_name=run.workflow.name,
        from_template=isinstance(run.workflow, EmulatedTemplate),
        proxy_region=run.region,
        inputs=list(run.inputs),
        profile_id=run.profile_id,
        save_browser_data=run.save_browser_data,
        callback_url=run.callback_url,
        status_change_callback_url=run.status_change_callback_url,
        status=run.status,
        history=[(status, _moment(since)) for status, since in run.history],
        created_at=_moment(run.created),
        started_at=None if run.started is None else _moment(run.started),
        finished_at=None if run.finished is None else _moment(run.finished),
        ended_by=run.ended_by,
        biz_code=run.biz_code,
        credit=_credit(run, at),
        output=run.output.string if run.ended else None,
    )


def _milliseconds(moment: float) -> int:
    return int(moment * 1000)


def _moment(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, timezone.utc)
