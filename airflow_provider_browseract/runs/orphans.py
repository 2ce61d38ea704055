"""Orphans: find the run that a start has created if the response to the start was lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, TypeAlias

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import BrowserActError, RunStartUnknownError
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

CUT_LENGTH = 64
"""Characters from which a listed value that is a prefix of the sent value may be a truncated copy of it."""


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
    """Return the BrowserAct tasks that other task instances are known to wait for."""


Step: TypeAlias = "Sleep | LogLine | AskClaimed | calls.Call[Any]"


@dataclass(frozen=True)
class Orphan:
    """A run that a start may have created, and what is known about it.

    :param entry: the entry that was stored before the start.
    :param request: the request of that start; None if it is no longer known.
    :param created_until: the run was created before this moment, in seconds since the epoch.
    :param listed_from: before this moment, the run may be missing in the list of tasks. A list without it, or with a
        similar run, then proves nothing.
    """

    entry: Entry
    request: RunRequest | None
    created_until: float
    listed_from: float

    @property
    def since(self) -> datetime:
        """The run was created at this moment or later."""
        return _moment(self.entry.written_at - timings.CLOCK_SKEW)

    @property
    def until(self) -> datetime:
        """The run was created at this moment or earlier."""
        return _moment(self.created_until)


def find_orphan(orphan: Orphan, on_orphan: OnOrphan, clock: Callable[[], float]) -> Generator[Step, Any, Task | None]:
    """Find the run that a start has created although the response was lost.

    :param orphan: the run.
    :param on_orphan: what to do if it cannot be determined which run it is.
    :param clock: returns the current time, in seconds since the epoch.
    :returns: the run; None if there is certainly none, or if ``on_orphan`` allows a new run.
    :raises RunStartUnknownError: the list of tasks cannot be read.
    :raises OrphanError: it cannot be determined which of several tasks is the run.
    """
    listed = yield from _list_until_settled(orphan, on_orphan, clock)
    if listed is None:
        return None
    found, skipped = listed
    found = yield from _dated([task for task in found if _match(task, orphan) is not False])
    matches = {task.id: _match(task, orphan) for task in found}
    if orphan.request is not None and None in matches.values():
        details = yield from _read_details(orphan)
        matches = {task.id: _match(task, orphan, details) for task in found}
    # Last, because other task instances may have found their runs in the meantime.
    taken: Collection[str] = yield AskClaimed()
    possible = [task for task in found if task.id not in taken and matches[task.id] is not False]
    if not possible and skipped and on_orphan is not OnOrphan.START:
        raise RunStartUnknownError(
            "It is not known whether BrowserAct started a run: an item in the list of tasks cannot be read "
            f"({skipped[0]})"
        )
    if not possible:
        return None
    if len(possible) == 1 and matches[possible[0].id]:
        return possible[0]
    return (yield from _choose(possible, orphan, on_orphan))


def _list_until_settled(
    orphan: Orphan, on_orphan: OnOrphan, clock: Callable[[], float]
) -> Generator[Step, Any, tuple[list[Task], list[str]] | None]:
    """Return the tasks that may be the run, and the items that cannot be read.

    :returns: None if the list cannot be read, and ``on_orphan`` allows a new run.
    """
    workflow_id = None if orphan.entry.source.is_template else orphan.entry.source.id
    while True:
        try:
            listed = yield from _list_tasks(
                workflow_id=workflow_id, created_at_from=orphan.since, created_at_to=orphan.until
            )
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
        if clock() >= orphan.listed_from:
            return listed
        yield Sleep(min(timings.ORPHAN_LOOK_PAUSE, orphan.listed_from - clock()))


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
    raise OrphanError(
        f"An earlier start of {orphan.entry.source} may have created one of these BrowserAct tasks: {ids}. In the "
        "BrowserAct dashboard, stop those that no Airflow task waits for, and clear the Airflow task. Or set "
        "on_orphan: 'adopt' adopts the newest, 'start' starts a new run."
    )


def _list_tasks(**filters: Any) -> Generator[Step, Any, tuple[list[Task], list[str]]]:
    """Return the tasks of all pages of a list, and the items that could not be read.

    :param filters: the arguments of :func:`~airflow_provider_browseract.api.calls.list_tasks`.
    """
    pages = calls.Pages(replace(calls.list_tasks(**filters), read=read_page(Task.read_summary)))
    found: list[Task] = []
    while pages.call is not None:
        page: Page[Task] = yield pages.call
        found += pages.take(page)
    return found, pages.skipped


def _dated(tasks: Sequence[Task]) -> Generator[Step, Any, list[Task]]:
    """Read each task whose creation time is missing in the list, because an older run may look like the wanted one."""
    found = []
    for task in tasks:
        if task.created_at is None:
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


def _read_details(orphan: Orphan) -> Generator[Step, Any, _Details]:
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
            named, _ = yield from _list_tasks(
                workflow_name=described.name, created_at_from=orphan.since, created_at_to=orphan.until
            )
            own = yield from _own_workflows()
    except BrowserActError as error:
        yield LogLine(f"The details of {source} cannot be read: {error.brief}", logging.WARNING)
        return _Details()
    ids = frozenset(task.id for task in named if task.workflow_id is not None and task.workflow_id not in own)
    return _Details(described.input_parameters, ids)


def _own_workflows() -> Generator[Step, Any, set[str]]:
    """Return the ids of the account's workflows."""
    pages = calls.Pages(calls.list_workflows())
    found: set[str] = set()
    while pages.call is not None:
        page: Page[Workflow] = yield pages.call
        found |= {workflow.id for workflow in pages.take(page)}
    return found


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _match(task: Task, orphan: Orphan, details: _Details = _Details()) -> bool | None:
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
    # A run that was created earlier is older than the start, unless BrowserAct's clock is slow.
    sure = created is not None and created.timestamp() >= entry.written_at - timings.CLOCK_RESOLUTION
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
        has another value; None if it cannot be decided.
    """
    listed = _without_spaces(text)
    pieces = [_without_spaces(f"{pair['name']}={pair['value']}") for pair in inputs]
    sent = [pair["name"] for pair in inputs]
    names = {name: f"{_without_spaces(name)}=" for name in (*sent, *(one.name for one in declared))}
    added = [names[one.name] for one in declared if one.default_enabled is True and one.name not in sent]
    if any(True for _ in _consumed(listed, pieces, added, tuple(names.values()))):
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


def _consumed(text: str, pieces: list[str], added: list[str], names: Sequence[str]) -> Iterator[None]:
    """Yield once for each way to split a text into all the pieces; values may contain the separator.

    :param added: prefixes of further pieces that the text may contain, with any value.
    :param names: prefixes of the pieces of all known inputs. The value of a further piece ends before the next of them.
    """
    if not pieces and not text:
        yield
    for index, piece in enumerate(pieces):
        if piece in pieces[:index] or not text.startswith(piece):
            continue
        rest = text[len(piece) :]
        others = pieces[:index] + pieces[index + 1 :]
        if not rest or rest.startswith(";"):
            yield from _consumed(rest[1:], others, added, names)
    for name in added:
        if text.startswith(name):
            ends = (text.find(f";{other}") for other in names)
            end = min((at for at in ends if at >= 0), default=len(text))
            yield from _consumed(text[end + 1 :], pieces, [other for other in added if other != name], names)
