"""A run of the emulator: a plan of phases. Its status, steps and credits follow from the plan and the time."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import logging
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from airflow_provider_browseract.emulator.records import StartedTask, TaskRecord, milliseconds, utc
from airflow_provider_browseract.emulator.workflow import (
    EmulatedFile,
    EmulatedWorkflow,
    Output,
    RunContext,
    RunFailed,
)

log = logging.getLogger(__name__)

ENDED = ("finished", "canceled", "failed")
MAX_STEPS = 10_000
"""The most steps that a response has. Of a longer run, it has the newest ones."""
UNEXPECTED = 10000
"""Failure code of a run whose behaviour raised another exception than RunFailed."""


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

    def link(self, base_url: str, at: float) -> str:
        """Return the link. If it has expired, sign a new one first."""
        if at >= self.expires:
            self._sign(at)
        name = quote(self.file.name, safe="")
        return f"{base_url}/files/{self.token}/{name}?expires={milliseconds(self.expires)}"


@dataclass(kw_only=True, eq=False)
class Run(StartedTask):
    """A task, and the plan of what happens when.

    :param created: when it was started
    :param shown_workflow_id: the workflow id that API v2 returns. A run of a template belongs to a copy of it, which no
        list contains
    :param profile_given: whether it starts with the saved state of its profile
    """

    workflow: EmulatedWorkflow
    created: float
    shown_workflow_id: str
    credits_at_end: bool = False
    profile_given: bool = False

    def __post_init__(self) -> None:
        workflow = self.workflow
        work = math.inf if workflow.step_every else workflow.duration
        self.phases: list[tuple[str, float]] = [("created", workflow.queued)]
        if workflow.pause_at is not None:
            before = workflow.duration * workflow.pause_at
            limit = math.inf if workflow.pause_limit is None else workflow.pause_limit
            self.phases += [("running", before), ("paused", limit)]
            work -= before
        self.phases.append(("running", work))
        self.outcome: str = workflow.outcome
        self.failure: tuple[int, str] | None = workflow.failure if workflow.outcome == "failed" else None
        self.stops_at = math.inf
        self.biz_code: int | None = None
        #: How many statuses of the plan have begun, as far as the account has caught up.
        self.begun = 1
        self.confirmed = workflow.pause_at is None
        self.cookies: dict[str, str] = {}
        self.output = Output()
        self.files: list[StoredFile] = []
        self.downloads: list[StoredFile] = []

    def plan(self) -> Iterator[tuple[float, str]]:
        """Yield when each status begins, and the status."""
        at = self.created
        for status, seconds in (*self.phases, (self.outcome, math.inf)):
            if at > self.stops_at:
                yield self.stops_at, "canceled"
                return
            yield at, status
            at += seconds

    def history(self, at: float) -> list[tuple[float, str]]:
        """Return the statuses that have begun by then, as far as the account has caught up."""
        return [(began, status) for began, status in itertools.islice(self.plan(), self.begun) if began <= at]

    def status(self, at: float) -> str:
        """Return its true status."""
        return self.history(at)[-1][1]

    def reported(self, at: float) -> str:
        """Return the status that the API reports."""
        return self.workflow.status or self.status(at)

    def finished(self, at: float) -> float | None:
        """Return when it ended, or None if it is still active."""
        began, status = self.history(at)[-1]
        return began if status in ENDED else None

    def next_change(self) -> tuple[float, str]:
        """Return when the next status begins, and the status."""
        return next(itertools.islice(self.plan(), self.begun, None))

    def stop(self, at: float, biz_code: int | None) -> None:
        """Let it be canceled after the workflow's ``stop_after``. Only the first stop counts."""
        if self.stops_at == math.inf:
            self.stops_at, self.biz_code = at + self.workflow.stop_after, biz_code

    def resume(self, at: float) -> None:
        """End its pause."""
        began = next(began for began, status in self.plan() if status == "paused")
        self.phases = [(status, at - began if status == "paused" else seconds) for status, seconds in self.phases]
        self.confirmed = True

    def end(self, at: float) -> None:
        """Compute output and files when its end is due, and whether it fails instead of finishing."""
        if self.stops_at < self.created + sum(seconds for _, seconds in self.phases):
            return  # it was stopped before
        workflow = self.workflow
        try:
            context = RunContext(dict(self.inputs), self.cookies, self.confirmed)
            self.output = workflow.instead_of(workflow.behaviour(context) if self.outcome == "finished" else Output())
        except Exception as error:
            self.outcome, self.output = "failed", workflow.instead_of(Output())
            self.failure = UNEXPECTED, f"{type(error).__name__}: {error}"
            if isinstance(error, RunFailed):
                self.failure = error.code, error.message
            else:
                log.exception("The behaviour of the emulated workflow %r has an error", workflow.name)
        self.files, self.downloads = (
            [StoredFile(file, at, workflow.file_lifetime) for file in files]
            for files in (self.output.files, self.output.downloads)
        )

    def has_output(self, at: float) -> bool:
        """Return whether its output and files are available."""
        finished = self.finished(at)
        return finished is not None and finished + self.workflow.output_after <= at

    def is_listed(self, at: float) -> bool:
        """Return whether lists contain it."""
        return self.created + self.workflow.listed_after <= at

    def worked(self, at: float) -> float:
        """Return the seconds for which it has been running."""
        past = self.history(at)
        ends = [*(began for began, _ in past[1:]), at]
        return sum(end - began for (began, status), end in zip(past, ends, strict=True) if status == "running")

    def steps_begun(self, at: float) -> int:
        """Return the number of steps that have begun by then."""
        every, planned = self.workflow.step_every, len(self.workflow.steps)
        if all(status != "running" for _, status in self.history(at)):
            return 0
        if every is not None:
            return int(self.worked(at) / every) + 1
        share = self.worked(at) / self.workflow.duration if self.workflow.duration else 1.0
        return min(int(share * planned) + 1, planned)

    def steps(self, at: float) -> list[tuple[int, str]]:
        """Return number and status of each step that has begun by then, or of the newest if there are many."""
        begun = self.steps_begun(at)
        last = {"finished": "succeed", "failed": "failed", "canceled": "failed"}.get(self.status(at), "running")
        numbers = range(max(begun - MAX_STEPS, 0) + 1, begun + 1)
        return [(number, "succeed" if number < begun else last) for number in numbers]

    def goal(self, number: int) -> str:
        """Return the goal of a step."""
        return self.workflow.steps[(number - 1) % len(self.workflow.steps)]

    def credit(self, at: float) -> int:
        """Return the credits that it has used."""
        if self.credits_at_end and self.finished(at) is None:
            return 0
        return self.workflow.credits_per_step * self.steps_begun(at)

    def record(self, at: float) -> TaskRecord:
        """Return everything about it, for a test."""
        history, finished = self.history(at), self.finished(at)
        return TaskRecord(
            **{each.name: copy.copy(getattr(self, each.name)) for each in dataclasses.fields(StartedTask)},
            status=history[-1][1],
            history=[(status, utc(began)) for began, status in history],
            created_at=utc(self.created),
            finished_at=None if finished is None else utc(finished),
            biz_code=self.biz_code,
            credit=self.credit(at),
            output=None if finished is None else self.output.string,
        )
