"""A start as the tests of starting and of orphans want it, and what steps do with given responses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, Page, Task, TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.runs.cap import CapUsedUpError
from airflow_provider_browseract.runs.ledger import Entry, LedgerError, UnknownRunError
from airflow_provider_browseract.runs.options import OnOrphan
from airflow_provider_browseract.runs.orphans import Claim, OrphanError, ReadClaims
from airflow_provider_browseract.runs.request import RunRequest, Source
from airflow_provider_browseract.runs.starting import BeforeStart, Start, StartedRun, Write
from airflow_provider_browseract.runs.steps import LogLine, Sleep
from tests.steps import carry_out

SOURCE = Source(SourceKind.WORKFLOW, "70")
KEY_DIGEST = "0123456789abcdef"
ENTRY = Entry(SOURCE, "f" * 64, 1000.0, 8200.0, "7", "9", ("5", "6"), 3, KEY_DIGEST)

PATIENCE = 100.0

PENS_LISTED = "keyword=pens"
"""How the API lists the inputs of the starts."""


KINDS = {"template": SourceKind.TEMPLATE, "bot": SourceKind.BOT, "bot template": SourceKind.BOT_TEMPLATE}
"""What is run instead of a workflow, by how the tests name it."""


def request(keyword: str = "pens", kind: str = "deferred", **other: Any) -> RunRequest:
    source = Source(KINDS[kind], "70") if kind in KINDS else SOURCE
    profile_id = "9" if kind == "with a profile" else None
    given = {"inputs": {"keyword": keyword}, "callback_url": f"https://x.example/{keyword}", **other}
    return RunRequest(source, profile_id=profile_id, **given)


def start(
    keyword: str = "pens",
    max_tries: int = 3,
    kind: str = "deferred",
    patience: float = PATIENCE,
    on_orphan: OnOrphan = OnOrphan.FAIL,
    **other: Any,
) -> Start:
    """A start of workflow, template or bot 70.

    :param kind: how it is waited for, or what is special about it.
    """
    wanted, deferred = request(keyword, kind, **other), kind != "in the worker"
    return Start(wanted, 3600.0, patience, on_orphan, max_tries, deferred, api_key="app-key", key_digest=KEY_DIGEST)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def listed_run(
    task_id: str = "5", created: float | None = 1000.0, status: TaskStatus = TaskStatus.RUNNING, **fields: Any
) -> Task:
    """A run of workflow 70 as the API lists it."""
    given = {"workflow_id": "70", "input_parameters": PENS_LISTED, **fields}
    return Task(id=task_id, status=status, created_at=None if created is None else at(created), **given)


def bot_run(task_id: str = "5", created: float | None = 1000.0, **fields: Any) -> Task:
    """A run of bot 70 as the API lists it."""
    of_bot = {"bot_id": "70", "input": {"keyword": "pens"}, "workflow_id": None, "input_parameters": None}
    return listed_run(task_id, created, api_version=ApiVersion.V3, **{**of_bot, **fields})


def page_of(*tasks: Task) -> Page[Task]:
    return Page(items=tasks, total_count=len(tasks))


SAME = replace(ENTRY, fingerprint=start().fingerprint, deadline=1000.0 + start().timeout)
"""What an earlier try, at second 1000, has written down of a run with the same inputs."""


@dataclass
class Played:
    """What steps did, such as those of a start.

    :param respond: returns the response to a call.
    :param now: the time at which they begin.
    :param call_takes: seconds that each call takes.
    :param checked: what the checks before the start return; None for the given request.
    :param checks_take: seconds that they take.
    """

    respond: Callable[[Call[Any]], object]
    now: float = 2000.0
    call_takes: float = 0.0
    checked: RunRequest | None = None
    checks_take: float = 0.0
    over: Any = None
    """The result, or the error."""
    written: list[Write] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    asked: list[Call[Any]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The endpoints that were called."""
        return [call.name for call in self.asked]

    @property
    def started(self) -> StartedRun:
        """The result, which must be a run."""
        assert isinstance(self.over, StartedRun), self.over
        return self.over

    def clock(self) -> float:
        return self.now

    def play(self, steps: Generator[Any, Any, Any]) -> Played:
        try:
            self.over = carry_out(steps, self._answer)
        except (BrowserActError, LedgerError, UnknownRunError, OrphanError, CapUsedUpError) as error:
            self.over = error
        return self

    def _answer(self, step: object) -> object:
        match step:
            case Write():
                self.written.append(step)
            case LogLine():
                self.logged.append(step.text)
                if step.level >= logging.WARNING:
                    self.warnings.append(step.text)
            case Sleep():
                self.slept.append(step.seconds)
                self.now += step.seconds
            case ReadClaims():
                return {}
            case Claim():
                return -1
            case BeforeStart():
                self.now += self.checks_take
                return self.checked or step.request
            case Call():
                self.asked.append(step)
                assert len(self.asked) < 1000
                self.now += self.call_takes
                return self.respond(step)
        return None
