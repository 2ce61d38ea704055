"""An account of BrowserAct in memory: its workflows, bots, profiles and runs.

If the vendor's documents do not describe a behaviour, the emulator is strict, so that a DAG that works here does not
depend on undocumented behaviour. ``templates/differences.md`` lists the differences.
"""

from __future__ import annotations

import copy
import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_browseract.emulator.catalogue import WORKFLOWS
from airflow_provider_browseract.emulator.errors import ApiError, Code
from airflow_provider_browseract.emulator.records import TaskRecord
from airflow_provider_browseract.emulator.runs import ENDED, Run
from airflow_provider_browseract.emulator.workflow import EmulatedWorkflow

_CHECKS: dict[str, tuple[Callable[[Any], object], str]] = {
    "api_key": (lambda key: key, "must not be empty"),
    "concurrency": (lambda number: number >= 1, "must be 1 or more"),
    "latency": (lambda seconds: 0 <= seconds[0] <= seconds[1] < float("inf"), "must be two numbers from 0, in order"),
}


@dataclass(kw_only=True, eq=False, repr=False)
class Account:
    """The account and its runs. The methods without ``with self.changed`` are for callers that hold it."""

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
    """Seconds that a receiver of callbacks may take to respond. Default: 30."""
    callback_retry_delay: float = 1.0
    """Seconds between the attempts to deliver a callback. Default: 1."""
    clock: Callable[[], float] = time.time
    """Returns the time in seconds since the epoch. A served emulator needs a clock that runs by itself."""

    def __post_init__(self) -> None:
        #: The current workflows, templates and bots by id.
        self.workflows: dict[str, EmulatedWorkflow] = {workflow.id: workflow for workflow in WORKFLOWS}
        #: The URL at which it is served, and with which the links in responses begin.
        self.url = "http://browseract.invalid"
        #: Held while state is read or changed, and notified after a change.
        self.changed = threading.Condition(threading.RLock())
        #: Cookies of each saved profile.
        self.profiles: dict[str, dict[str, str]] = {}
        self.runs: dict[str, Run] = {}
        self._active: list[Run] = []
        self._planned: dict[str, list[dict[str, Any]]] = {}
        self._transitions: list[tuple[Run, float]] = []

    def __setattr__(self, name: str, value: Any) -> None:
        accepts, rule = _CHECKS.get(name, (lambda _: True, ""))
        if not accepts(value):
            raise ValueError(f"{name} {rule}, got {value!r}")
        super().__setattr__(name, value)

    @property
    def tasks(self) -> list[TaskRecord]:
        """Every task ever created, oldest first."""
        with self.changed:
            now = self.catch_up()
            return [run.record(now) for run in self.runs.values()]

    def of_kind(self, *kinds: str) -> dict[str, EmulatedWorkflow]:
        """Return the workflows of some kinds by id."""
        return {workflow.id: workflow for workflow in self.workflows.values() if workflow.kind in kinds}

    def find(self, workflow_id: str) -> EmulatedWorkflow:
        """Return a workflow, template or bot.

        :raises KeyError: if there is none with that id
        """
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
        """Start a run.

        :param fields: further fields of the run
        :raises ApiError: if the account does not allow it
        """
        now = self.clock()
        if self.credits is not None and sum(run.credit(now) for run in self.runs.values()) >= self.credits:
            raise ApiError(Code.NO_CREDITS)
        if workflow.one_at_a_time and any(run.workflow.id == workflow.id for run in self._active):
            raise ApiError(Code.BROWSER_BUSY)
        if len(self._active) >= self.concurrency:
            raise ApiError(Code.TOO_MANY_RUNNING)
        # The planned settings are removed only here, so that a refused request keeps them for the next one.
        if planned := self._planned.get(workflow.id):
            planned.pop(0)
        from_template = workflow.kind == "template"
        run = Run(
            id=self.new_id(),
            workflow_id=workflow.id,
            shown_workflow_id=self.new_id() if from_template else workflow.id,
            from_template=from_template,
            workflow=workflow,
            created=now,
            credits_at_end=self.credits_at_end,
            **fields,
        )
        self.runs[run.id] = run
        self._active.append(run)
        self.changed.notify_all()
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
            if run.status(at) == "finished" and run.save_browser_data and run.profile_id is not None:
                self.profiles[run.profile_id] = dict(run.cookies)
            # What changes later is not in the callbacks of this change.
            self._transitions.append((copy.copy(run), at))
            self.changed.notify_all()
        return now

    def take_transitions(self) -> list[tuple[Run, float]]:
        """Return the runs whose status has changed since the last call, and when, oldest first."""
        with self.changed:
            self.catch_up()
            transitions, self._transitions = self._transitions, []
            return transitions

    def next_change(self) -> tuple[float, str, Run] | None:
        """Return when the next task changes by itself, its new status and the task, or None if none will."""
        changes = ((*run.next_change(), run) for run in self._active)
        coming = (change for change in changes if change[0] < math.inf)
        return min(coming, key=lambda change: change[0], default=None)
