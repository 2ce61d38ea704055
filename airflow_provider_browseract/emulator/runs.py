"""A run of the emulator: a plan of phases. Its status, steps and credits follow from the plan and the time."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from airflow_provider_browseract.emulator.records import milliseconds, utc
from airflow_provider_browseract.emulator.workflow import EmulatedFile, EmulatedWorkflow, Output, RunContext, RunFailed

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
        self.token, self.expires = secrets.token_urlsafe(16), self.created + self.lifetime

    def ready(self, at: float) -> bool:
        """Return whether the file is available."""
        return self.file.broken is None and self.created + self.file.prepared_after <= at

    def link(self, url: str, at: float) -> str:
        """Return the link. If it has expired, sign a new one first."""
        if at >= self.expires:
            self.token, self.expires = secrets.token_urlsafe(16), at + self.lifetime
        name = quote(self.file.name, safe="")
        return f"{url}/files/{self.token}/{name}?expires={milliseconds(self.expires)}"


@dataclass(kw_only=True, eq=False, repr=False)
class Run:
    """A task at one moment: how it was started, what has happened since, and what is planned.

    :param api_version: the version of the API that started it
    :param inputs: the names and values exactly as they were sent. ``dict(inputs)`` is the ``input`` of a bot
    :param shown_workflow_id: the workflow id that API v2 returns. A run of a template belongs to a copy of it, which no
        list contains
    :param profile_given: whether it starts with the saved state of its profile
    :param created: when it was started, in seconds since the epoch
    """

    id: str
    api_version: Literal["v2", "v3"]
    workflow: EmulatedWorkflow
    inputs: list[tuple[str, Any]]
    shown_workflow_id: str
    proxy_region: str | None = None
    profile_id: str | None = None
    profile_given: bool = False
    save_browser_data: bool = False
    callback_url: str | None = None
    status_change_callback_url: str | None = None
    credits_at_end: bool = False
    created: float

    def __post_init__(self) -> None:
        workflow = self.workflow
        #: The moment in seconds since the epoch. What follows from it, such as the status, is as it is then.
        self.at = self.created
        work = math.inf if workflow.step_every else workflow.duration
        self.phases: list[tuple[str, float]] = [("created", workflow.queued), ("running", work)]
        if workflow.pause_at is not None:
            before = workflow.duration * workflow.pause_at
            limit = math.inf if workflow.pause_limit is None else workflow.pause_limit
            self.phases[1:] = [("running", before), ("paused", limit), ("running", work - before)]
        self.outcome: str = workflow.outcome
        self.failure: tuple[int, str] | None = workflow.failure if workflow.outcome == "failed" else None
        self.stops_at = math.inf
        #: The business code of the request that stopped it.
        self.biz_code: int | None = None
        #: How many statuses of the plan have begun, as far as the account has caught up.
        self.begun = 1
        self.confirmed = workflow.pause_at is None
        self.cookies: dict[str, str] = {}
        self.produced = Output()
        self.files: list[StoredFile] = []
        self.downloads: list[StoredFile] = []

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.workflow.name!r}: {self.history}, {self.credit} credits>"

    def seen(self, at: float) -> Run:
        """Return it as it is at a moment. What happens later does not change that."""
        seen = copy.copy(self)
        seen.at = at
        return seen

    def plan(self) -> Iterator[tuple[float, str]]:
        """Yield when each status begins, and the status."""
        at = self.created
        for status, seconds in (*self.phases, (self.outcome, math.inf)):
            if at > self.stops_at:
                yield self.stops_at, "canceled"
                return
            yield at, status
            at += seconds

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
            self.produced = workflow.instead_of(workflow.behaviour(context) if self.outcome == "finished" else Output())
        except Exception as error:
            self.outcome, self.produced = "failed", workflow.instead_of(Output())
            self.failure = UNEXPECTED, f"{type(error).__name__}: {error}"
            if isinstance(error, RunFailed):
                self.failure = error.code, error.message
            else:
                log.exception("The behaviour of the emulated workflow %r has an error", workflow.name)
        self.files, self.downloads = (
            [StoredFile(file, at, workflow.file_lifetime) for file in files]
            for files in (self.produced.files, self.produced.downloads)
        )

    @property
    def workflow_id(self) -> str:
        """The id of its workflow, template or bot."""
        return self.workflow.id

    @property
    def begun_statuses(self) -> list[tuple[float, str]]:
        """When each status began, in seconds since the epoch, and the status."""
        return [(began, status) for began, status in itertools.islice(self.plan(), self.begun) if began <= self.at]

    @property
    def history(self) -> list[tuple[str, datetime]]:
        """Each status, and when it began."""
        return [(status, utc(began)) for began, status in self.begun_statuses]

    @property
    def status(self) -> str:
        """The status."""
        return self.begun_statuses[-1][1]

    @property
    def created_at(self) -> datetime:
        """When it was started."""
        return utc(self.created)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended, or None if it is still active."""
        status, began = self.history[-1]
        return began if status in ENDED else None

    @property
    def output(self) -> str | None:
        """The text of its output, or None if it is still active. The API can return it later."""
        return self.produced.string if self.status in ENDED else None

    @property
    def has_output(self) -> bool:
        """Whether the API returns its output and files."""
        began, status = self.begun_statuses[-1]
        return status in ENDED and began + self.workflow.output_after <= self.at

    @property
    def worked(self) -> float:
        """The seconds for which it has been running."""
        past = self.begun_statuses
        ends = [*(began for began, _ in past[1:]), self.at]
        return sum(end - began for (began, status), end in zip(past, ends, strict=True) if status == "running")

    @property
    def steps_begun(self) -> int:
        """The number of steps that have begun."""
        every, planned = self.workflow.step_every, len(self.workflow.steps)
        if all(status != "running" for _, status in self.begun_statuses):
            return 0
        if every is not None:
            return int(self.worked / every) + 1
        share = self.worked / self.workflow.duration if self.workflow.duration else 1.0
        return min(int(share * planned) + 1, planned)

    @property
    def steps(self) -> list[tuple[int, str]]:
        """The number and the status of each step that has begun, or of the newest if there are many."""
        begun = self.steps_begun
        last = {"finished": "succeed", "failed": "failed", "canceled": "failed"}.get(self.status, "running")
        numbers = range(max(begun - MAX_STEPS, 0) + 1, begun + 1)
        return [(number, "succeed" if number < begun else last) for number in numbers]

    @property
    def credit(self) -> int:
        """The credits that it has used."""
        if self.credits_at_end and self.finished_at is None:
            return 0
        return self.workflow.credits_per_step * self.steps_begun

    def goal(self, number: int) -> str:
        """Return the goal of a step."""
        return self.workflow.steps[(number - 1) % len(self.workflow.steps)]
