"""Orphans: find the run that a start has created if the response to the start was lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timezone
from typing import Any, TypeAlias

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import Page, SourceInfo, Task
from airflow_provider_browseract.api.pages import Pages
from airflow_provider_browseract.api.versions import APIS, SOURCES
from airflow_provider_browseract.exceptions import BrowserActError, RunStartUnknownError, UnexpectedResponseError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.matching import Declared, Orphan, came_to_nothing, match_task
from airflow_provider_browseract.runs.options import OnOrphan
from airflow_provider_browseract.runs.steps import LogLine, Sleep

MAX_LISTED = 5000
"""Items of a list that a lookup reads. The runs of a few minutes are far fewer."""

MAX_READ_ALONE = 20
"""Tasks that a lookup reads one by one, because the list shows no creation time."""

MAX_NAMED = 10
"""Possible runs that a message names."""


class OrphanError(Exception):
    """It cannot be determined which run an earlier start created."""


@dataclass(frozen=True)
class ReadClaims:
    """Return the runs that mapped siblings have or claim: the lowest map index for each, -1 if a sibling has it."""


@dataclass(frozen=True)
class Claim:
    """Store for the mapped siblings that this task instance is about to adopt a run.

    The result is the map index of this task instance. It is negative if there are no siblings; nothing is stored then.
    """

    task_id: str


Step: TypeAlias = "Sleep | LogLine | ReadClaims | Claim | Call[Any]"


@dataclass(frozen=True)
class _Limit:
    """The end of a lookup: everything that it reads and compares comes from outside."""

    clock: Callable[[], float]
    until: float

    def check(self) -> None:
        """Raise an error if the lookup takes too long."""
        if self.clock() > self.until:
            raise BrowserActError(f"it takes longer than {timings.LOOK_UP_LIMIT:g} seconds")


def find_orphan(orphan: Orphan, on_orphan: OnOrphan, clock: Callable[[], float]) -> Generator[Step, Any, Task | None]:
    """Find the run that a start has created although the response was lost.

    :returns: the run; None if there is certainly none, or if ``on_orphan`` allows a new run.
    :raises RunStartUnknownError: the list of tasks cannot be read, or not in time.
    :raises OrphanError: it cannot be determined which of several tasks is the run.
    """
    limit = _Limit(clock, max(clock(), orphan.listed_from) + timings.LOOK_UP_LIMIT)
    try:
        matches = yield from _compare_listed(orphan, limit)
    except BrowserActError as error:
        if on_orphan is OnOrphan.START:
            yield LogLine(f"Looking for a run failed: {error.brief}", logging.WARNING)
            return None
        raise RunStartUnknownError(
            f"It is not known whether BrowserAct started a run, and looking for it failed: {error.message}",
            http_status=error.http_status,
            code=error.code,
            msg=error.msg,
            trace_id=error.trace_id,
        ) from error
    given_up: set[str] = set()
    while True:
        read_at = clock()
        # Last, because other task instances may have found their runs in the meantime.
        claims: Mapping[str, int] = yield ReadClaims()
        given_up |= claims.keys()
        possible = [task for task, match in matches if match is not False and task.id not in given_up]
        usable = [task for task in possible if not came_to_nothing(task)]
        certain = [task for task, match in matches if match and task in (usable or possible)]
        chosen: Task | None = None
        if len(certain) == 1:
            # Undecided runs beside a certain one are older, or their inputs cannot be read.
            [chosen] = certain
        elif usable:
            chosen = yield from _choose(usable, orphan, on_orphan, limit)
        # Which of several runs that have failed it is does not matter enough to fail the task.
        if chosen is None or (yield from _claim(chosen, orphan, read_at, limit)):
            return chosen
        given_up.add(chosen.id)


def _compare_listed(orphan: Orphan, limit: _Limit) -> Generator[Step, Any, list[tuple[Task, bool | None]]]:
    """List tasks until the run must be among them, and return each with whether it is the run; None if undecided."""
    source = orphan.entry.source
    is_template = source.is_template
    call = APIS[source.api_version].list_tasks(
        # A list does not name the template of a run.
        source_id=None if is_template else source.id,
        created_at_from=orphan.since,
        created_at_to=orphan.until,
    )
    while True:
        tasks, behind = yield from _list_tasks(call, limit)
        if limit.clock() >= orphan.listed_from:
            break
        yield Sleep(min(timings.ORPHAN_LIST_PAUSE, orphan.listed_from - limit.clock()))
    orphan = replace(orphan, behind=behind)
    if not is_template:
        tasks = yield from _dated([task for task in tasks if _match(task, orphan, limit) is not False], limit)
    matches = [(task, _match(task, orphan, limit)) for task in tasks]
    if orphan.request is not None and not is_template and any(match is None for _, match in matches):
        declared = yield from _read_declared(orphan)
        matches = [(task, _match(task, orphan, limit, declared) if match is None else match) for task, match in matches]
    return matches


def _claim(task: Task, orphan: Orphan, read_at: float, limit: _Limit) -> Generator[Step, Any, bool]:
    """Claim a run, and return whether it may be adopted. At most one of several mapped siblings may adopt it.

    Siblings whose starts are lost together may find the same run at the same moment, and Airflow has no lock for them.
    So each stores its claim, waits, and then reads the claims of the others. Whoever stores a claim within
    ``CLAIM_PAUSE`` after finding none is seen by all who stored theirs in the meantime, because each of them waits for
    that long; the lowest map index keeps the run. Whoever takes longer may not have been seen.

    :param read_at: when this task instance began to read the claims, and found none of this run.
    """
    mine: int = yield Claim(task.id)
    if mine < 0:
        return True
    in_time = limit.clock() - read_at <= timings.CLAIM_PAUSE
    yield Sleep(timings.CLAIM_PAUSE)
    claims: Mapping[str, int] = yield ReadClaims()
    other = claims.get(task.id)
    if other is not None and other > mine and not in_time:
        raise (yield from _undecided([task], orphan, limit))
    if other is None or other > mine:
        return True
    yield LogLine(f"BrowserAct task {task.id} is left to a mapped task instance that has claimed it too.")
    return False


def _choose(
    possible: Sequence[Task], orphan: Orphan, on_orphan: OnOrphan, limit: _Limit
) -> Generator[Step, Any, Task | None]:
    """Act on the possible runs as ``on_orphan`` says."""
    newest_first = sorted(possible, key=lambda task: task.created_at or orphan.since, reverse=True)
    # A run of another request would only be stopped, and it may belong to someone else.
    if on_orphan is OnOrphan.ADOPT and orphan.request is not None:
        yield LogLine(
            f"Adopting the newest of the possible runs because of on_orphan='adopt': {_names_of(newest_first)}.",
            logging.WARNING,
        )
        return newest_first[0]
    if on_orphan is OnOrphan.START:
        yield LogLine(
            "Starting a new run because of on_orphan='start'. These BrowserAct tasks may be the run of the lost start, "
            f"and keep running and using credits: {_names_of((yield from _with_links(newest_first, limit)))}.",
            logging.WARNING,
        )
        return None
    raise (yield from _undecided(newest_first, orphan, limit))


def _undecided(possible: Sequence[Task], orphan: Orphan, limit: _Limit) -> Generator[Step, Any, OrphanError]:
    return OrphanError(
        f"An earlier start of {orphan.entry.source} may have created one of these BrowserAct tasks: "
        f"{_names_of((yield from _with_links(possible, limit)))}. In the BrowserAct dashboard, stop those that no "
        "Airflow task waits for, and clear the Airflow task. From Airflow 3.3 on, you can instead set on_orphan before "
        "you clear it: 'adopt' adopts the newest, 'start' starts a new run."
    )


def _with_links(tasks: Sequence[Task], limit: _Limit) -> Generator[Step, Any, list[Task]]:
    """Read those of the tasks that a message names one by one, because a list has no links to their pages."""
    read = list(tasks)
    for index, task in enumerate(tasks[:MAX_NAMED]):
        if limit.clock() <= limit.until:
            with suppress(BrowserActError):
                read[index] = yield APIS[task.api_version].get_task(task.id)
    return read


def _names_of(tasks: Sequence[Task]) -> str:
    """Return the ids of tasks, each with what is known of status, time and link."""
    names = []
    for task in tasks[:MAX_NAMED]:
        created = (
            f", created at {task.created_at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC" if task.created_at else ""
        )
        link = f", {task.log_detail_url}" if task.log_detail_url else ""
        names.append(f"{task.id} ({task.status}{created}{link})")
    return ", ".join(names) + (f", and {len(tasks) - MAX_NAMED} more" if len(tasks) > MAX_NAMED else "")


def _list_tasks(call: Call[Page[Task]], limit: _Limit) -> Generator[Step, Any, tuple[list[Task], float]]:
    """Return the tasks of all pages of a list.

    :returns: also the seconds by which BrowserAct's clock is certainly behind ours, as each page shows.
    :raises BrowserActError: the list cannot be read, is too long, or takes too long.
    """
    pages = Pages(call)
    found: list[Task] = []
    behind: list[float] = []
    while pages.call is not None:
        sent_at = limit.clock()
        page: Page[Task] = yield pages.call
        found += pages.take(page)
        behind.append(_seconds_behind(page, sent_at))
        limit.check()
        if len(found) > MAX_LISTED:
            raise UnexpectedResponseError(f"{call.name} lists more than {MAX_LISTED} items")
    return found, min(behind, default=0.0)


def _seconds_behind(page: Page[Task], sent_at: float) -> float:
    """Return by how many seconds BrowserAct's clock is certainly behind ours, according to one response.

    The time of a response is in whole seconds, and later than the request. A time that cannot be BrowserAct's does not
    count: a gateway may have inserted its own.
    """
    served_at = page.served_at
    if served_at is None or any(task.created_at is not None and task.created_at > served_at for task in page.items):
        return 0.0
    behind = sent_at - (served_at.timestamp() + 1.0)
    return behind if 0.0 < behind <= timings.CLOCK_SKEW else 0.0


def _dated(tasks: Sequence[Task], limit: _Limit) -> Generator[Step, Any, list[Task]]:
    """Read each task whose creation time is missing in the list, because an older run may look like the wanted one.

    A run that has failed is not read, so it never certainly matches.
    """
    undated = [task for task in tasks if task.created_at is None and not came_to_nothing(task)]
    if len(undated) > MAX_READ_ALONE:
        number = len(undated)
        raise UnexpectedResponseError(f"{number} tasks that may be the run are listed without their creation time")
    found = []
    for task in tasks:
        if task in undated:
            limit.check()
            try:
                task = yield APIS[task.api_version].get_task(task.id)
            except BrowserActError as error:
                yield LogLine(f"BrowserAct task {task.id} cannot be read: {error.brief}", logging.WARNING)
        found.append(task)
    return found


def _read_declared(orphan: Orphan) -> Generator[Step, Any, Declared]:
    """Read what the workflow or bot declares about its inputs; return nothing if that fails."""
    source = orphan.entry.source
    try:
        read: SourceInfo = yield SOURCES[source.kind].read(source.id)
    except BrowserActError as error:
        yield LogLine(f"The inputs of {source} cannot be read: {error.brief}", logging.WARNING)
        return Declared()
    return Declared.by(read)


def _match(task: Task, orphan: Orphan, limit: _Limit, declared: Declared | None = None) -> bool | None:
    limit.check()
    return match_task(task, orphan, declared or Declared())
