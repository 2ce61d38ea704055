"""The rows of lists, and what needs a person: from the runs of the account, Airflow's records and the viewer's rights.

Nothing here reads anything. Whatever a viewer must not see is left out here, so the templates never have it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.panel.access import Rights, rights_on
from airflow_provider_browseract.panel.database import LISTED
from airflow_provider_browseract.panel.days import source_of
from airflow_provider_browseract.panel.html import foreign_text, label_of
from airflow_provider_browseract.runs.report import duration_of
from airflow_provider_browseract.runs.wait import FOREVER

if TYPE_CHECKING:
    from airflow_provider_browseract.panel.accounts import Account
    from airflow_provider_browseract.panel.database import TaskInstanceKey
    from airflow_provider_browseract.panel.failures import FailedTry
    from airflow_provider_browseract.panel.links import Link, QueueEntry
    from airflow_provider_browseract.panel.viewing import Viewing

UNREAD_AFTER = 60.0
"""Seconds after its start from which a run counts as one that is not waited for. The task instance pushes its XComs in
the first seconds."""

CLAIMS_SHOWN = 5
"""How many of those that claim to wait for a run are named."""

TOO_MANY_WAIT = "Not known: so many task instances of Airflow may wait that the panel does not read all of them."

XCOMS_ELSEWHERE = (
    "Not known: a custom XCom backend stores XComs of this Airflow elsewhere, so only task instances that wait in the "
    "triggerer are known."
)

UNREADABLE = "a task of a DAG that you may not read"

NO_REASON = "Airflow's log has the reason"
"""Why a task instance has failed that left no XCom, for example because its process was killed."""


@dataclass(frozen=True)
class Look:
    """What a page is made from.

    :param viewing: who looks, and what Airflow's database has about runs and the queue.
    :param account: what is known about the account of the connection.
    :param failures: the failed task instances of DAGs that the viewer may read, the newest first.
    """

    viewing: Viewing
    account: Account
    now: datetime
    failures: Sequence[FailedTry] = ()

    def rights_on(self, task_id: str) -> Rights:
        """Return what the viewer may see of a run."""
        return rights_on(self.viewing.access, self.account.conn_id, self.viewing.proven(task_id))

    def is_unread(self, task: Task) -> bool:
        """Return whether a run is active and not waited for, so that it uses credits without effect."""
        # Any claim to wait counts, of any connection and with or without a proof, because a stop cannot be undone.
        if (
            task.status.ended
            or self.viewing.records.incomplete
            or any(link.waits for link in self.viewing.records.of_run(task.id))
        ):
            return False
        return task.created_at is None or (self.now - task.created_at).total_seconds() > UNREAD_AFTER

    def who_waits(self, task_id: str) -> str:
        """Return who claims to wait for a run, as far as the viewer may read their DAGs; empty if nobody does."""
        keys = dict.fromkeys(link.key for link in self.viewing.records.of_run(task_id) if link.waits)
        names = dict.fromkeys(
            label_of(key) if self.viewing.access.reads_dag(key.dag_id) else UNREADABLE for key in keys
        )
        shown, more = [*names][:CLAIMS_SHOWN], len(names) - CLAIMS_SHOWN
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "")

    def waiting(self, task: Task) -> str:
        """Return who waits for a run, or why that is not known; empty if nobody does."""
        if self.is_unread(task) and self.viewing.records.unreadable:
            return XCOMS_ELSEWHERE
        if self.viewing.records.incomplete and not task.status.ended:
            return TOO_MANY_WAIT
        return self.who_waits(task.id)

    def source_name(self, source: str | None) -> str:
        """Return what :func:`source_of` returns, with the name of a workflow instead of its id if it is known."""
        return foreign_text(self.account.names.get(source or "") or source)

    def row(self, task: Task, link: Link | None = None) -> Row:
        """Return a run as a row, with one of its task instances. Default: one that has failed, or has started it."""
        # A run that is active is not told by a task instance that does not wait for it any more.
        failed, own = self._failure_of_run.get(task.id, (None, None)) if task.status.ended else (None, None)
        proven = self.viewing.proven(task.id)
        rights = rights_on(self.viewing.access, self.account.conn_id, proven)
        return Row(self, task, link or own or next(iter(proven), None), rights, failed)

    def rows(self) -> list[Row]:
        """Return the runs of the last 24 hours and the failed task instances that the viewer may see.

        What needs a person comes first, then what is active, each the newest first.
        """
        # The account has those of some minutes more.
        ended = self.now - LISTED
        tasks = (each for each in self.account.tasks if not (each.status.ended and (each.finished_at or ended) < ended))
        found = [row for row in map(self.row, tasks) if row.rights.run]
        of_runs = {id(row.failed) for row in found}
        found += [self.row_of(each) for each in self.failures if id(each) not in of_runs and self._is_here(each)]
        return sorted(found, key=lambda row: row.order)

    def row_of(self, failed: FailedTry) -> Row:
        """Return a failed task instance as a row without a run."""
        return Row(self, None, None, Rights(run=True, steps=False, act=False), failed)

    @cached_property
    def queue(self) -> list[QueueEntry]:
        """The queue of the connection. All connections with the same API key share one queue."""
        conn_id, everyone = self.account.conn_id, self.viewing.records.queue
        digests = {each.wait.key_digest for each in everyone if each.conn_id == conn_id}
        return [each for each in everyone if each.conn_id == conn_id or each.wait.key_digest in digests]

    def queue_by_dag(self) -> dict[str | None, list[tuple[int, QueueEntry]]]:
        """Return the places in the queue, from 1, by DAG: None for those that the viewer may not read."""
        found: dict[str | None, list[tuple[int, QueueEntry]]] = {}
        for number, entry in enumerate(self.queue, start=1):
            dag_id = entry.key.dag_id if self.viewing.access.reads_dag(entry.key.dag_id) else None
            found.setdefault(dag_id, []).append((number, entry))
        return found

    def longest_wait(self, entries: Iterable[QueueEntry]) -> float | None:
        """Return for how many seconds a task instance has waited for a slot; None if none does."""
        now = self.now.timestamp()
        began = [each.wait.queued.began for each in entries if not each.wait.waits_for_budget(now)]
        return max(0.0, now - min(began)) if began else None

    @cached_property
    def _killed(self) -> dict[TaskInstanceKey, Link]:
        """The newest links of the failed task instances that have left no XCom, as after the end of their process."""
        keys = {each.key for each in self.failures if each.failure is None}
        links = [link for of_run in self.viewing.records.links.values() for link in of_run if link.key in keys]
        return {link.key: link for link in sorted(links, key=lambda link: link.pushed_at)}

    def _run_of(self, failed: FailedTry) -> tuple[str | None, str | None]:
        """Return the run and the connection of a failed task instance, as far as it or its link names them."""
        if failed.failure is not None:
            return failed.failure.task_id, failed.failure.connection
        link = self._killed.get(failed.key)
        return (link.browseract_task_id, link.conn_id) if link else (None, None)

    @cached_property
    def _failure_of_run(self) -> dict[str, tuple[FailedTry, Link]]:
        """The failed task instances by the runs that they have started, with their links.

        An XCom of a failure proves nothing, so the link has to. A sensor, which anyone can point at a run, says nothing
        about it.
        """
        runs = {each.key: self._run_of(each)[0] for each in self.failures}
        of_runs = [link for task_id in {*runs.values()} for link in self.viewing.records.of_run(task_id or "")]
        links = {link.key: link for link in of_runs if runs.get(link.key) == link.browseract_task_id}
        found = {}
        for each in reversed(self.failures):
            link = links.get(each.key)
            is_own = link and not link.follows and self.viewing.is_proven(link)
            if link and is_own and self.viewing.access.reads_runs(each.key.dag_id):
                found[link.browseract_task_id] = each, link
        return found

    def _is_here(self, failed: FailedTry) -> bool:
        """Return whether a failed task instance is one of this account, unless it is known to be of another one."""
        _, named = self._run_of(failed)
        return named == self.account.conn_id or named not in self.viewing.connections


@dataclass(frozen=True, slots=True)
class Row:
    """A run with or without a task instance, or a failed task instance whose run is not known or was not started.

    There is one for each run of the account, so it keeps nothing that follows from its fields.

    :param task: the run. Its texts are only for :func:`~airflow_provider_browseract.panel.run.visible`.
    :param link: the task instance that is shown with the run.
    :param failed: the failed task instance.
    """

    look: Look
    task: Task | None
    link: Link | None
    rights: Rights
    failed: FailedTry | None

    @property
    def id(self) -> str:
        """What identifies the row while the page is refreshed."""
        return self.task.id if self.task else "/".join(map(str, self.failed.key)) if self.failed else ""

    @property
    def key(self) -> TaskInstanceKey | None:
        """The task instance; None if there is none, or if the viewer may not see it."""
        if self.link is None:
            return self.failed.key if self.failed else None
        return self.link.key if self.look.viewing.access.reads_runs(self.link.key.dag_id) else None

    @property
    def is_hidden(self) -> bool:
        """Whether a task instance is known that the viewer may not see."""
        return self.link is not None and self.key is None

    @property
    def is_active(self) -> bool:
        """Whether the run has not ended."""
        return self.task is not None and not self.task.status.ended

    @property
    def state(self) -> str:
        """The status of the run or, if its task instance has failed, how: with or without a start."""
        if self.task is None:
            failure = self.failed.failure if self.failed else None
            return "failed" if failure is None or failure.started else "not started"
        if self.failed is not None:
            return "stopped" if self.task.status is TaskStatus.CANCELED else "failed"
        return self.task.status.value

    @property
    def reason(self) -> str:
        """Why the task instance has failed, if it has."""
        if self.failed is None:
            return ""
        return self.failed.failure.reason if self.failed.failure else NO_REASON

    @property
    def remedy(self) -> str:
        """What to do about it, and whether Airflow does something."""
        if self.failed is None:
            return ""
        given = self.failed.failure.remedy if self.failed.failure else None
        return " ".join(filter(None, [given, "Airflow starts another try." if self.failed.retries else None]))

    @property
    def source(self) -> str:
        """Name or id of the workflow, or ``bot`` and its name."""
        if self.task is not None:
            return self.look.source_name(source_of(self.task))
        # Names of the account are only for those who may read the connection.
        source = self.failed.failure.source if self.failed and self.failed.failure else None
        return (source.name or source.id or source.kind) if source else ""

    @property
    def source_path(self) -> tuple[str, str] | None:
        """The page of the workflow or bot; None if the viewer may not see it, or for a template."""
        if self.task is None or not self.task.source_id or not self.look.viewing.reads_account:
            return None
        return "workflows" if self.task.api_version is ApiVersion.V2 else "bots", self.task.source_id

    @property
    def is_unread(self) -> bool:
        """Whether the run is active and not waited for."""
        return self.task is not None and self.look.is_unread(self.task)

    @property
    def is_stoppable(self) -> bool:
        """Whether the viewer may stop the run."""
        return self.is_unread and self.rights.act

    @property
    def is_asking(self) -> bool:
        """Whether a Required Action about the run waits for an answer that the viewer may see."""
        return self.is_active and self.link is not None and self.link.required_action and self.key is not None

    @property
    def answer_by(self) -> datetime | None:
        """When the wait for an answer ends; None without a Required Action, or if that is not known."""
        wait = self.link.wait if self.link and self.is_asking else None
        return datetime.fromtimestamp(wait.limit, self.look.now.tzinfo) if wait and wait.limit < FOREVER else None

    @property
    def needs_you(self) -> bool:
        """Whether a person should look at it."""
        return self.is_unread or self.is_asking or self.failed is not None

    @property
    def began(self) -> datetime | None:
        """When the run was created, or when its task instance failed without a run."""
        return self.task.created_at if self.task else self.failed.ended if self.failed else None

    @property
    def took(self) -> float | None:
        """Seconds from the start of the run to its end, or until now."""
        if self.task is None or self.task.created_at is None:
            return None
        return (self.look.now - self.task.created_at).total_seconds() if self.is_active else duration_of(self.task)

    @property
    def credits(self) -> int | None:
        """The credits of the run so far."""
        return self.task.credit if self.task else None

    @property
    def group(self) -> str:
        """What is equal for rows that need a person for the same reason. The numbers in a reason do not count."""
        parts = [self.id]
        if self.failed is not None:
            parts = [self.failed.key.dag_id, self.failed.key.task_id, self.state, re.sub(r"\d+", "#", self.reason)]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:16]

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters of a list that show the row, beside the one that shows all."""
        status = self.task.status if self.task else None
        shows = (
            ("active", self.is_active),
            ("paused", status in (TaskStatus.PAUSED, TaskStatus.PAUSING)),
            ("unread", self.is_unread),
            ("failed", self.failed is not None or status is TaskStatus.FAILED),
        )
        own = (self.group,) if self.needs_you else ()
        return (*(name for name, shown in shows if shown), *own)

    @property
    def order(self) -> tuple[bool, bool, float]:
        """Where the row stands in a list."""
        return not self.needs_you, not self.is_active, -self.began.timestamp() if self.began else 0.0

    def matches(self, wanted: str) -> bool:
        """Return whether one of the texts of the row contains another one."""
        label = label_of(self.key) if self.key else ""
        texts = (self.id, (self.task and self.task.source_id) or "", self.source, self.state, self.reason, label)
        return any(wanted in text.casefold() for text in texts)


class Trouble(NamedTuple):
    """Rows that need a person for the same reason: one, or failed ones of a task that differ in numbers alone.

    :param id: the filter of a list that has exactly these rows.
    """

    id: str
    rows: list[Row]

    @property
    def first(self) -> Row:
        """The newest one."""
        return self.rows[0]


def troubles(rows: Iterable[Row]) -> list[Trouble]:
    """Return what needs a person, the worst first.

    Runs that are not waited for (by credits) come before Required Actions (by the time that is left), and these before
    failures. Of these, each DAG has its most frequent one first, then its next one, so that none hides those of others.
    """
    found: dict[str, Trouble] = {}
    for row in rows:
        if row.needs_you:
            found.setdefault(row.group, Trouble(row.group, [])).rows.append(row)
    turns: Counter[str] = Counter()
    ordered = []
    for each in sorted(found.values(), key=_badness):
        kind, _ = _badness(each)
        dag_id = each.first.failed.key.dag_id if each.first.failed else ""
        ordered.append((kind, turns[dag_id] if dag_id else 0, each))
        turns[dag_id] += 1
    return [each for _, _, each in sorted(ordered, key=lambda each: each[:2])]


def _badness(trouble: Trouble) -> tuple[int, float]:
    row = trouble.first
    if row.is_unread:
        return 0, -(row.credits or 0)
    if row.is_asking:
        return 1, row.answer_by.timestamp() if row.answer_by else float("inf")
    return 2, -len(trouble.rows)
