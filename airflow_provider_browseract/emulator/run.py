"""A run of the emulator, and how its status changes with time."""

from __future__ import annotations

import logging
import math
import secrets
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from airflow_provider_browseract.emulator.records import TaskRecord
from airflow_provider_browseract.emulator.times import milliseconds, utc
from airflow_provider_browseract.emulator.workflow import (
    EmulatedFile,
    EmulatedTemplate,
    EmulatedWorkflow,
    Output,
    RunContext,
    RunFailed,
)

log = logging.getLogger(__name__)

STATUSES = ("created", "running", "finished", "canceled", "pausing", "paused", "failed", "unknown")
ENDED = ("finished", "canceled", "failed")
#: The most steps that ``get-task`` returns. Of an endless run, it returns the newest ones.
MAX_STEPS = 10_000
#: ``task_failure_info.code`` of a run whose behaviour raised another exception than RunFailed.
UNEXPECTED = 10000
#: Invented ``task_failure_info`` of a run that took too long.
TOO_LONG = (10004, "The task has exceeded the longest duration.")


@dataclass
class StoredFile:
    """A file of a run, and its current link."""

    file: EmulatedFile
    created: float
    lifetime: float
    guid: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        self._sign(self.created)

    def _sign(self, at: float) -> None:
        self.token, self.expires = secrets.token_urlsafe(16), at + self.lifetime

    def ready(self, at: float) -> bool:
        """Return whether the file is available."""
        return self.file.broken is None and self.created + self.file.prepared_after <= at

    def can_be_opened(self, at: float) -> bool:
        """Return whether the link leads to the file."""
        return self.ready(at) and at < self.expires

    def link(self, base_url: str, at: float) -> str:
        """Return the link. If it has expired, sign a new one first."""
        if at >= self.expires:
            self._sign(at)
        name = quote(self.file.name, safe="")
        return f"{base_url}/files/{self.token}/{name}?expires={milliseconds(self.expires)}"


@dataclass
class Run:
    """A task: its request and its progress.

    :param workflow_id: the workflow id that API v2 returns. For a template, it belongs to a copy that no list contains
    :param shown_input: the ``input`` that API v3 returns, if it is not ``inputs``
    :param profile_given: whether it starts with the saved state of its profile
    :param since: when the current status began
    :param worked: seconds of work (at speed 1) done before that
    :param paused_once: whether its pause has already begun
    :param resumed: when somebody resumed it, while it is still paused
    :param stopped: when somebody stopped it
    """

    id: str
    workflow: EmulatedWorkflow
    workflow_id: str
    inputs: list[tuple[str, Any]]
    callback_url: str | None
    status_change_callback_url: str | None
    created: float
    speed: float
    credits_at_end: bool = False
    max_duration: float | None = None
    api_version: Literal["v2", "v3"] = "v2"
    shown_input: dict[str, Any] | None = None
    region: str | None = None
    profile_id: str | None = None
    profile_given: bool = False
    save_browser_data: bool = False
    status: str = "created"
    worked: float = 0.0
    paused_once: bool = False
    resumed: float | None = None
    stopped: float | None = None
    confirmed: bool = True
    started: float | None = None
    finished: float | None = None
    ended_by: Literal["workflow", "stop-task"] | None = None
    biz_code: int | None = None
    cookies: dict[str, str] = field(default_factory=dict)
    failure: tuple[int, str] | None = None
    output: Output = field(default_factory=Output)
    files: list[StoredFile] = field(default_factory=list)
    downloads: list[StoredFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.since = self.created
        self.history = [(self.status, self.created)]

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.status in ENDED

    @property
    def from_template(self) -> bool:
        """Whether it is a run of an official template."""
        return isinstance(self.workflow, EmulatedTemplate)

    def reported(self, at: float) -> str:
        """Return the status that the API reports."""
        if self.workflow.status is not None:
            return self.workflow.status
        if self.status == "running" and self.workflow.unknown_at is not None:
            begun = self._work_done(at) - self.workflow.duration * self.workflow.unknown_at
            if 0 <= begun < self.workflow.unknown_for:
                return "unknown"
        return self.status

    def has_output(self, at: float) -> bool:
        """Return whether its output and files are available."""
        return self.finished is not None and self.finished + self.workflow.output_after / self.speed <= at

    def is_listed(self, at: float) -> bool:
        """Return whether lists contain it."""
        return self.created + self.workflow.listed_after / self.speed <= at

    def credit(self, at: float) -> int:
        """Return the credits that it has used."""
        begun = self._steps_begun(at)
        if not begun or (self.credits_at_end and not self.ended):
            return 0
        return self.workflow.credits_per_step * begun + (self.workflow.extra_credits if self.ended else 0)

    def steps(self, at: float) -> list[tuple[int, str]]:
        """Return number and status of each step that has begun by then, or of the newest if there are many."""
        begun = self._steps_begun(at)
        last = {"finished": "succeed", "failed": "failed", "canceled": "failed"}.get(self.status, "running")
        numbers = range(max(begun - MAX_STEPS, 0) + 1, begun + 1)
        return [(number, "succeed" if number < begun else last) for number in numbers]

    def updated(self, at: float) -> float:
        """Return when its status changed or its newest step began."""
        begun = self._steps_begun(at)
        if self.status != "running" or not begun:
            return self.since
        step_every = self.workflow.step_every or self.workflow.duration / self._planned_steps
        return max(self.since, at - (self._work_done(at) - (begun - 1) * step_every) / self.speed)

    def goal(self, number: int) -> str:
        """Return the goal of a step."""
        return self.workflow.steps[(number - 1) % len(self.workflow.steps)]

    def next_change(self) -> float | None:
        """Return when the status changes without another request, or None if it will not."""
        return min((at for at in (self._proceeds_at, self._stops_at, self._expires_at) if at is not None), default=None)

    def proceed(self, at: float) -> str:
        """Do what is due at the next change, and return the status that follows."""
        if at == self._stops_at:
            self.ended_by = "stop-task"
            return "canceled"
        if at == self._expires_at and at != self._proceeds_at:
            self.ended_by, self.failure = "workflow", TOO_LONG
            return "failed"
        if self.status == "paused" and at != self._leaves_pause_at:
            self.confirmed = False
        if self.status in ("created", "paused"):
            return "running"
        if self.status == "pausing":
            return "paused"
        if self.workflow.pause_at is not None and not self.paused_once:
            return "pausing" if self.workflow.pausing_for else "paused"
        self.ended_by = "workflow"
        return self._work(at)

    def change(self, status: str, at: float) -> None:
        """Change the status."""
        self.worked = self._work_done(at)
        if status in ("pausing", "paused"):
            self.paused_once = True
        self.status, self.since = status, at
        self.history.append((status, at))
        if status == "running" and self.started is None:
            self.started = at
        if status in ENDED:
            self.finished = at

    def record(self, at: float) -> TaskRecord:
        """Return everything about it, for a test."""
        return TaskRecord(
            id=self.id,
            api_version=self.api_version,
            workflow_id=self.workflow.id,
            workflow_name=self.workflow.name,
            from_template=self.from_template,
            proxy_region=self.region,
            inputs=list(self.inputs),
            profile_id=self.profile_id,
            save_browser_data=self.save_browser_data,
            callback_url=self.callback_url,
            status_change_callback_url=self.status_change_callback_url,
            status=self.status,
            history=[(status, utc(since)) for status, since in self.history],
            created_at=utc(self.created),
            started_at=None if self.started is None else utc(self.started),
            finished_at=None if self.finished is None else utc(self.finished),
            ended_by=self.ended_by,
            biz_code=self.biz_code,
            credit=self.credit(at),
            output=self.output.string if self.ended else None,
        )

    def _work(self, at: float) -> str:
        """Compute output and files, and return the status with which the run ends."""
        workflow, outcome, output = self.workflow, str(self.workflow.outcome), Output()
        if outcome == "failed":
            self.failure = workflow.failure
        elif outcome == "finished":
            try:
                output = workflow.behaviour(RunContext(dict(self.inputs), self.cookies, self.confirmed))
            except RunFailed as failed:
                outcome, self.failure = "failed", (failed.code, failed.message)
            except Exception as error:
                log.exception("The behaviour of the emulated workflow %r has an error", workflow.name)
                outcome, self.failure = "failed", (UNEXPECTED, f"{type(error).__name__}: {error}")
        text, value = output.string, output.value
        if workflow.output is not None:
            text, value = (workflow.output, None) if isinstance(workflow.output, str) else ("", workflow.output)
        self.output = Output(
            text,
            output.files if workflow.files is None else workflow.files,
            output.downloads if workflow.downloads is None else workflow.downloads,
            value,
        )
        self.files = [StoredFile(file, at, workflow.file_lifetime) for file in self.output.files]
        self.downloads = [StoredFile(file, at, workflow.file_lifetime) for file in self.output.downloads]
        return outcome

    @property
    def _stops_at(self) -> float | None:
        """When a stop takes effect."""
        return None if self.stopped is None else self.stopped + self.workflow.stop_after / self.speed

    @property
    def _expires_at(self) -> float | None:
        """When it has taken too long."""
        if self.started is None or self.max_duration is None:
            return None
        return self.started + self.max_duration / self.speed

    @property
    def _proceeds_at(self) -> float | None:
        """When the status changes by itself."""
        if self.status == "created":
            return self.created + self.workflow.queued / self.speed
        if self.status == "running" and self._work_ahead < math.inf:
            return self.since + (self._work_ahead - self.worked) / self.speed
        if self.status == "pausing":
            return self.since + self.workflow.pausing_for / self.speed
        if self.status == "paused":
            return min(filter(None, (self._leaves_pause_at, self._pause_expires_at)), default=None)
        return None

    @property
    def _work_ahead(self) -> float:
        """Seconds of work (at speed 1, from the beginning) before the run pauses or ends."""
        if self.workflow.pause_at is not None and not self.paused_once:
            return self.workflow.duration * self.workflow.pause_at
        return self.workflow.duration if self.workflow.step_every is None else math.inf

    @property
    def _leaves_pause_at(self) -> float | None:
        """When a resumed run leaves its pause."""
        return None if self.resumed is None else self.resumed + self.workflow.resume_after / self.speed

    @property
    def _pause_expires_at(self) -> float | None:
        """When a pause ends that nobody ends earlier."""
        limit = self.workflow.pause_limit
        return None if limit is None else self.since + limit / self.speed

    @property
    def _planned_steps(self) -> int:
        workflow = self.workflow
        if workflow.outcome == "failed" and workflow.failed_step is not None:
            return workflow.failed_step
        return len(workflow.steps)

    def _work_done(self, at: float) -> float:
        if self.status != "running":
            return self.worked
        return min(self.worked + (at - self.since) * self.speed, self._work_ahead)

    def _steps_begun(self, at: float) -> int:
        workflow = self.workflow
        if self.started is None:
            return 0
        if workflow.step_every is not None:
            return int(self._work_done(at) / workflow.step_every) + 1
        planned = self._planned_steps
        share = self._work_done(at) / workflow.duration if workflow.duration else 1.0
        return min(int(share * planned) + 1, planned)


@dataclass(frozen=True)
class Transition:
    """A change of a run's status, and the payload of its callbacks.

    :param status: the reported status
    :param urls: the callback URLs, each with the name of its field in the request
    """

    task_id: str
    workflow: EmulatedWorkflow
    status: str
    ended: bool
    payload: dict[str, Any]
    urls: tuple[tuple[str, str], ...]
