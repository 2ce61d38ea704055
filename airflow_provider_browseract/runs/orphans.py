"""Orphans: find the run that a start has created if the response to the start was lost."""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import (
    BrowserActError,
    ResponseTooLargeError,
    RunStartUnknownError,
    UnexpectedResponseError,
)
from airflow_provider_browseract.api.models import (
    InputParameter,
    Page,
    Task,
    TaskStatus,
    Template,
    Word,
    Workflow,
    read_page,
)
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.ledger import Entry
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.runs.steps import LogLine, Sleep

T = TypeVar("T")

CUT_LENGTH = 64
"""Characters from which a listed value that is a prefix of the sent value may be a truncated copy of it."""

MAX_LISTED = 5000
"""Items of a list that a lookup reads. The runs of a few minutes are far fewer."""

MAX_READ_ALONE = 20
"""Tasks that a lookup reads one by one, because the list shows no creation time."""

MAX_TEXT = 1024 * 1024
"""Characters of a task's listed inputs that are compared."""

MAX_NAMES = 100_000
"""Characters of all declared names together that are compared with a task's listed inputs."""

MAX_STEPS = 5000
"""Steps after which the comparison of inputs gives up. Without the limit, some texts would take years."""

MAX_SEPARATORS = 20_000
"""Separators in a text of listed inputs, times the different lengths of names that may follow, that are compared."""


class OnOrphan(Word):
    """What to do if it cannot be determined which run, if any, an earlier start created."""

    FAIL = "fail"
    """Fail, and name the possible runs."""

    ADOPT = "adopt"
    """Adopt the newest of them."""

    START = "start"
    """Start a new run, unless exactly one run matches for certain. The possible runs keep running."""


class OrphanError(Exception):
    """It cannot be determined which run an earlier start created."""


@dataclass(frozen=True)
class AskClaimed:
    """Return the runs that mapped siblings have or claim: the lowest map index for each, -1 if a sibling has it."""


@dataclass(frozen=True)
class Claim:
    """Store for the mapped siblings that this task instance is about to adopt a run.

    The result is the map index of this task instance. It is negative if there are no siblings; nothing is stored then.

    :param task_id: the BrowserAct task.
    """

    task_id: str


Step: TypeAlias = "Sleep | LogLine | AskClaimed | Claim | calls.Call[Any]"


@dataclass(frozen=True)
class Orphan:
    """A run that a start may have created, and what is known about it.

    :param entry: the entry that was stored before the start.
    :param request: the request of that start; None if it is no longer known.
    :param created_until: the run was created before this moment, in seconds since the epoch.
    :param listed_from: before this moment, the run may be missing in the list of tasks. A list without it, or with a
        similar run, then proves nothing.
    :param behind: seconds by which BrowserAct's clock is certainly behind ours.
    """

    entry: Entry
    request: RunRequest | None
    created_until: float
    listed_from: float
    behind: float = 0.0

    @property
    def since(self) -> datetime:
        """The run was created at this moment or later."""
        return _moment(self.entry.written_at - timings.CLOCK_SKEW)

    @property
    def until(self) -> datetime:
        """The run was created at this moment or earlier."""
        return _moment(self.created_until)


@dataclass(frozen=True)
class _Limit:
    """The end of a lookup: everything that it reads and compares comes from outside.

    :param clock: returns the current time, in seconds since the epoch.
    :param until: when the lookup is given up.
    """

    clock: Callable[[], float]
    until: float

    def check(self) -> None:
        """Raise an error if the lookup takes too long."""
        if self.clock() > self.until:
            raise BrowserActError(f"it takes longer than {timings.LOOK_UP_LIMIT:g} seconds")


@dataclass(frozen=True)
class _Listed(Generic[T]):
    """The items of all pages of a list.

    :param items: the items that could be read.
    :param skipped: descriptions of the others.
    :param behind: seconds by which BrowserAct's clock is certainly behind ours, as each page shows.
    """

    items: list[T]
    skipped: list[str]
    behind: float


def find_orphan(orphan: Orphan, on_orphan: OnOrphan, clock: Callable[[], float]) -> Generator[Step, Any, Task | None]:
    """Find the run that a start has created although the response was lost.

    :param orphan: the run.
    :param on_orphan: what to do if it cannot be determined which run it is.
    :param clock: returns the current time, in seconds since the epoch.
    :returns: the run; None if there is certainly none, or if ``on_orphan`` allows a new run.
    :raises RunStartUnknownError: the list of tasks cannot be read, or not in time.
    :raises OrphanError: it cannot be determined which of several tasks is the run.
    """
    limit = _Limit(clock, max(clock(), orphan.listed_from) + timings.LOOK_UP_LIMIT)
    try:
        matches, skipped = yield from _compare_listed(orphan, limit)
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
        asked_at = clock()
        # Last, because other task instances may have found their runs in the meantime.
        claims: Mapping[str, int] = yield AskClaimed()
        given_up |= claims.keys()
        possible = [task for task, match in matches if match is not False and task.id not in given_up]
        if not possible:
            break
        certain = [task for task, match in matches if match and task.id not in given_up]
        # Undecided runs beside a certain one are older, or their inputs cannot be read.
        chosen = certain[0] if len(certain) == 1 else (yield from _choose(possible, orphan, on_orphan))
        if chosen is None or (yield from _claim(chosen, orphan, asked_at, clock)):
            return chosen
        given_up.add(chosen.id)
    if skipped and on_orphan is not OnOrphan.START:
        raise RunStartUnknownError(
            "It is not known whether BrowserAct started a run: an item in the list of tasks cannot be read "
            f"({skipped[0]})"
        )
    return None


def _compare_listed(
    orphan: Orphan, limit: _Limit
) -> Generator[Step, Any, tuple[list[tuple[Task, bool | None]], list[str]]]:
    """Return each listed task with whether it is the run, and the items that cannot be read."""
    listed = yield from _list_until_settled(orphan, limit)
    orphan = replace(orphan, behind=listed.behind)
    matches = _matches(listed.items, orphan, limit)
    found = yield from _dated([task for task, match in matches if match is not False], limit)
    matches = _matches(found, orphan, limit)
    if orphan.request is not None and any(match is None for _, match in matches):
        details = yield from _read_details(orphan, limit)
        matches = _matches(found, orphan, limit, details)
    return matches, listed.skipped


def _list_until_settled(orphan: Orphan, limit: _Limit) -> Generator[Step, Any, _Listed[Task]]:
    """Return the tasks that may be the run, once the run must be among them."""
    workflow_id = None if orphan.entry.source.is_template else orphan.entry.source.id
    while True:
        listed = yield from _list_tasks(
            limit, workflow_id=workflow_id, created_at_from=orphan.since, created_at_to=orphan.until
        )
        if limit.clock() >= orphan.listed_from:
            return listed
        yield Sleep(min(timings.ORPHAN_LOOK_PAUSE, orphan.listed_from - limit.clock()))


def _claim(task: Task, orphan: Orphan, asked_at: float, clock: Callable[[], float]) -> Generator[Step, Any, bool]:
    """Claim a run, and return whether it may be adopted. At most one of several mapped siblings may adopt it.

    Siblings whose starts are lost together may find the same run at the same moment, and Airflow has no lock for them.
    So each stores its claim, waits, and then reads the claims of the others. Whoever stores a claim within
    ``CLAIM_PAUSE`` after finding none is seen by all who stored theirs in the meantime, because each of them waits for
    that long; the lowest map index keeps the run. Whoever takes longer may not have been seen.

    :param asked_at: when this task instance began to ask for claims, and found none of this run.
    """
    mine: int = yield Claim(task.id)
    if mine < 0:
        return True
    in_time = clock() - asked_at <= timings.CLAIM_PAUSE
    yield Sleep(timings.CLAIM_PAUSE)
    claims: Mapping[str, int] = yield AskClaimed()
    other = claims.get(task.id)
    if other is not None and other > mine and not in_time:
        _fail_undecided([task], orphan)
    if other is None or other > mine:
        return True
    yield LogLine(f"BrowserAct task {task.id} is left to a mapped task instance that has claimed it too.")
    return False


def _choose(possible: Sequence[Task], orphan: Orphan, on_orphan: OnOrphan) -> Generator[Step, Any, Task | None]:
    """Act on the possible runs as ``on_orphan`` says."""
    ids = ", ".join(f"{task.id} ({task.status})" for task in possible)
    if on_orphan is OnOrphan.START:
        yield LogLine(
            "Starting a new run because of on_orphan='start'. These BrowserAct tasks may be the run of the lost start, "
            f"and keep running and using credits: {ids}.",
            logging.WARNING,
        )
        return None
    # A run of another request would only be stopped, and it may belong to someone else.
    if on_orphan is OnOrphan.ADOPT and orphan.request is not None:
        newest = max(possible, key=lambda task: task.created_at or orphan.since)
        yield LogLine(f"Adopting the newest of the possible runs because of on_orphan='adopt': {ids}.", logging.WARNING)
        return newest
    _fail_undecided(possible, orphan)


def _fail_undecided(possible: Sequence[Task], orphan: Orphan) -> NoReturn:
    ids = ", ".join(f"{task.id} ({task.status})" for task in possible)
    raise OrphanError(
        f"An earlier start of {orphan.entry.source} may have created one of these BrowserAct tasks: {ids}. In the "
        "BrowserAct dashboard, stop those that no Airflow task waits for, and clear the Airflow task. Or set "
        "on_orphan: 'adopt' adopts the newest, 'start' starts a new run."
    )


def _list_tasks(limit: _Limit, **filters: Any) -> Generator[Step, Any, _Listed[Task]]:
    """Return the tasks of all pages of a list.

    :param filters: the arguments of :func:`~airflow_provider_browseract.api.calls.list_tasks`.
    """
    call = replace(calls.list_tasks(**filters), read=read_page(Task.read_summary))
    return (yield from _read_all(call, limit))


def _read_all(call: calls.Call[Page[T]], limit: _Limit) -> Generator[Step, Any, _Listed[T]]:
    """Return the items of all pages of a list.

    :raises BrowserActError: the list cannot be read, is too long, or takes too long.
    """
    pages = calls.Pages(call)
    found: list[T] = []
    behind: list[float] = []
    while pages.call is not None:
        sent_at = limit.clock()
        try:
            page: Page[T] = yield pages.call
        except ResponseTooLargeError as error:
            # The items contain outputs, which can be large.
            limit.check()
            pages.divide(error)
            continue
        limit.check()
        found += pages.take(page)
        if len(found) + len(pages.skipped) > MAX_LISTED:
            raise UnexpectedResponseError(f"{call.name} lists more than {MAX_LISTED} items")
        behind.append(_seconds_behind(page, sent_at))
    return _Listed(found, pages.skipped, min(behind, default=0.0))


def _seconds_behind(page: Page[Any], sent_at: float) -> float:
    """Return by how many seconds BrowserAct's clock is certainly behind ours, according to one response.

    The time of a response is in whole seconds, and later than the request. A time that cannot be BrowserAct's does not
    count: a gateway may have inserted its own.
    """
    served_at, created = page.served_at, [getattr(item, "created_at", None) for item in page.items]
    if served_at is None or any(moment is not None and moment > served_at for moment in created):
        return 0.0
    behind = sent_at - (served_at.timestamp() + 1.0)
    return behind if 0.0 < behind <= timings.CLOCK_SKEW else 0.0


def _dated(tasks: Sequence[Task], limit: _Limit) -> Generator[Step, Any, list[Task]]:
    """Read each task whose creation time is missing in the list, because an older run may look like the wanted one."""
    if (undated := sum(task.created_at is None for task in tasks)) > MAX_READ_ALONE:
        raise UnexpectedResponseError(f"{undated} tasks that may be the run are listed without their creation time")
    found = []
    for task in tasks:
        if task.created_at is None:
            limit.check()
            try:
                task = yield calls.get_task(task.id)
            except BrowserActError as error:
                yield LogLine(f"BrowserAct task {task.id} cannot be read: {error.brief}", logging.WARNING)
        found.append(task)
    return found


@dataclass(frozen=True)
class _Details:
    """Details of a workflow or template.

    :param declared: its declared inputs.
    :param task_ids: for a template, the tasks that are listed under its name and belong to no workflow of the account.
    """

    declared: tuple[InputParameter, ...] = ()
    task_ids: frozenset[str] = frozenset()


def _read_details(orphan: Orphan, limit: _Limit) -> Generator[Step, Any, _Details]:
    """Read details that help to recognize a run of a workflow or template; return no details if that fails."""
    source = orphan.entry.source
    read = calls.get_official_workflow_template if source.is_template else calls.get_workflow
    try:
        described: Workflow | Template = yield read(source.id)
        named: list[Task] = []
        own: set[str] = set()
        if source.is_template and described.name:
            # The run of a template belongs to a workflow whose name alone is known. A workflow of the account may have
            # the same name.
            listed = yield from _list_tasks(
                limit, workflow_name=described.name, created_at_from=orphan.since, created_at_to=orphan.until
            )
            named = listed.items
            own = {workflow.id for workflow in (yield from _read_all(calls.list_workflows(), limit)).items}
    except BrowserActError as error:
        yield LogLine(f"The details of {source} cannot be read: {error.brief}", logging.WARNING)
        return _Details()
    ids = frozenset(task.id for task in named if task.workflow_id is not None and task.workflow_id not in own)
    return _Details(described.input_parameters, ids)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _matches(
    tasks: Iterable[Task], orphan: Orphan, limit: _Limit, details: _Details = _Details()
) -> list[tuple[Task, bool | None]]:
    """Return each task with whether it is the run."""
    matches = []
    for task in tasks:
        limit.check()
        matches.append((task, _match(task, orphan, details)))
    return matches


def _match(task: Task, orphan: Orphan, details: _Details) -> bool | None:
    """Return whether a task is the run that was started; None if that is not certain."""
    entry, request = orphan.entry, orphan.request
    # A failed or canceled run is useless, so it does not matter whether it is the wanted one.
    if task.id in entry.earlier or task.status in (TaskStatus.FAILED, TaskStatus.CANCELED):
        return False
    if not entry.source.is_template and task.workflow_id not in (None, entry.source.id):
        return False
    created = task.created_at
    if created is not None and not orphan.since <= created <= orphan.until:
        return False
    if request is None:
        return None
    inputs = inputs_match(task.input_parameters or "", request.inputs, details.declared)
    if inputs is False or (request.profile_id and task.profile_id not in (None, request.profile_id)):
        return False
    # A run that was created earlier is older than the start, unless BrowserAct's clock is behind ours.
    earliest = entry.written_at - orphan.behind - timings.CLOCK_RESOLUTION
    sure = created is not None and created.timestamp() >= earliest
    # The API may list a template's run under an unknown workflow, which may also have other runs with the same inputs.
    known = task.workflow_id == entry.source.id or task.id in details.task_ids
    sure = sure and (not entry.source.is_template or known)
    return inputs if sure and (not request.profile_id or task.profile_id is not None) else None


def inputs_match(
    text: str, inputs: Sequence[Mapping[str, str]], declared: Sequence[InputParameter] = ()
) -> bool | None:
    """Return whether a task was started with some inputs.

    :param text: the inputs as the API shows them, ``key=value; key=value``, in any order.
    :param inputs: the inputs as they were sent, as name/value pairs.
    :param declared: the inputs that the workflow or template declares. An input that is enabled by default may be
        listed with any value although it was not sent, because the API does not show the default value.
    :returns: True if the task has all sent inputs, and no other inputs except those with a default; False if an input
        has another value; None if it cannot be decided, or not within :data:`MAX_STEPS`.
    """
    if len(text) > MAX_TEXT:
        return None
    if sum(len(one.name) for one in declared) > MAX_NAMES:
        declared = ()
    listed = _without_spaces(text)
    pieces = [_without_spaces(f"{pair['name']}={pair['value']}") for pair in inputs]
    sent = dict.fromkeys(pair["name"] for pair in inputs)
    names = {name: f"{_without_spaces(name)}=" for name in (*sent, *(one.name for one in declared))}
    added = [names[one.name] for one in declared if one.default_enabled is True and one.name not in sent]
    if _can_be_split(listed, pieces, added, set(names.values())):
        return True
    # A hidden or truncated value cannot be distinguished from another value.
    if any(sign in listed and not any(sign in piece for piece in pieces) for sign in ("*", "...", "\u2026")):
        return None
    bounded = f";{listed};"
    for pair, piece in zip(inputs, pieces, strict=True):
        name = f"{_without_spaces(pair['name'])}="
        _, named, rest = bounded.partition(f";{name}")
        value = rest.partition(";")[0]
        cut = len(value) >= CUT_LENGTH and piece.startswith(name + value)
        if named and not cut and f";{piece};" not in bounded:
            return False
    return None


def _without_spaces(text: str) -> str:
    """Return the text without whitespace, which BrowserAct may change."""
    return "".join(text.split())


def _can_be_split(text: str, pieces: Sequence[str], added: Sequence[str], names: Collection[str]) -> bool:
    """Return whether a text consists of all the pieces; ``False`` also if that takes too long to find out.

    Values may contain the separator, so there can be several ways to split a text, and each has to be tried.

    :param added: prefixes of further pieces that the text may contain, each once and with any value.
    :param names: prefixes of the pieces of all known inputs. The value of a further piece ends before the next of them.
    """
    lengths = {len(name) for name in names} if added else set()
    if text.count(";") * max(1, len(lengths)) > MAX_SEPARATORS:
        return False
    separators = [found.start() for found in re.finditer(";", text)]
    prefixes = {name: len(pieces) + index for index, name in enumerate(dict.fromkeys(added))}
    ends = [at for at in separators if any(text[at + 1 : at + 1 + length] in names for length in lengths)]
    # A piece that occurs at some place has the same characters before its first separator as the text from there on.
    by_segment: dict[str, dict[str, list[int]]] = {}
    for index, piece in enumerate(pieces):
        by_segment.setdefault(piece.partition(";")[0], {}).setdefault(piece, []).append(index)
    wanted = (1 << len(pieces)) - 1
    # What is left is a number with one bit for each piece, and one for each prefix.
    places = [(0, (1 << len(pieces) + len(prefixes)) - 1)]
    seen = set(places)
    while places and len(seen) <= MAX_STEPS:
        at, left = places.pop()
        if at >= len(text):
            if not left & wanted:
                return True
            continue
        following = []
        separator = bisect_left(separators, at)
        segment = text[at : separators[separator] if separator < len(separators) else None]
        for piece, indexes in by_segment.get(segment, {}).items():
            unused = [index for index in indexes if left >> index & 1]
            end = at + len(piece)
            if unused and text.startswith(piece, at) and text[end : end + 1] in ("", ";"):
                following.append((end + 1, left ^ 1 << unused[0]))
        for length in lengths:
            prefix = prefixes.get(text[at : at + length])
            if prefix is not None and left >> prefix & 1:
                next_one = bisect_left(ends, at)
                end = ends[next_one] if next_one < len(ends) else len(text)
                following.append((end + 1, left ^ 1 << prefix))
        for place in following:
            if place not in seen:
                seen.add(place)
                places.append(place)
    return False
