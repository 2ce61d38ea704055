"""What is written down of a run before and after its start, and what a later try makes of it.

Two rules hold here. What is written down is found again by every later try, so nothing in it depends on the number of
the try. And nothing is started while it is not known what became of an earlier start: it is looked up.

:func:`begin` does no I/O, as :mod:`airflow_provider_browseract.runs.waiting`: it says what to do next and is told what
came of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any, TypeAlias

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import (
    NOTHING_TO_STOP,
    BrowserActError,
    ConcurrencyLimitError,
    RateLimitError,
    RunStartUnknownError,
    TaskNotFoundError,
)
from airflow_provider_browseract.api.models import (
    CreatedTask,
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
from airflow_provider_browseract.runs.steps import Say, Sleep

KEY = "browseract_run"
"""Under which key the entry is kept; no number of a try is in it."""

VERSION = 1
"""Version of what is written down. A newer one is refused, since it may say what is not understood here."""

CUT = 64
"""Characters from which on a value that begins as the one that was sent may be that one, cut short."""

LATEST = 1e11
"""No moment lies as late as this, in seconds since the epoch."""

STARTS = 3
"""How many times one try asks for a run, where each time the answer was lost and surely none was started."""


class OnOrphan(Word):
    """What to do where it stays unknown which run, if any, an earlier start has made."""

    FAIL = "fail"
    """Fail, and name the runs that may be the one."""

    ADOPT = "adopt"
    """Take the newest of them."""

    START = "start"
    """Start a new run, unless exactly one surely is the one; those that may be the one go on."""


class LedgerError(Exception):
    """What is written down of an earlier run cannot be used; nothing was started or stopped."""


class OrphanError(Exception):
    """Several runs, or runs that cannot be told apart, may be the one that an earlier start has made."""


@dataclass(frozen=True)
class Entry:
    """What is written down of a run.

    :param workflow_id: the workflow, or the official template.
    :param fingerprint: see :func:`fingerprint`.
    :param written_at: moment before the start, in seconds since the epoch.
    :param deadline: moment at which the run's time is over, in seconds since the epoch.
    :param callback_token_sha256: digest of the token in the run's callback address; None if it has none.
    :param task_id: the BrowserAct task; None until the answer to the start is there.
    :param profile_id: its browser profile, if one is known.
    :param earlier: BrowserAct tasks of earlier runs for the same task instance.
    :param max_tries: see :class:`Wanted`; None if the task instance does not wait deferred.
    :param is_template: whether it is a template: which workflow the API shows its runs under is not documented.
    """

    workflow_id: str
    fingerprint: str
    written_at: float
    deadline: float
    callback_token_sha256: str | None = None
    task_id: str | None = None
    profile_id: str | None = None
    earlier: tuple[str, ...] = ()
    max_tries: int | None = None
    is_template: bool = False

    def value(self) -> dict[str, Any]:
        """Write it as plain JSON values, none of them secret."""
        return {"version": VERSION, **asdict(self), "earlier": list(self.earlier)}

    @classmethod
    def read(cls, value: Any) -> Entry:
        """Read what :meth:`value` wrote.

        :raises LedgerError: it is something else, or from a newer version of this provider.
        """
        if not isinstance(value, Mapping):
            raise LedgerError(f"it is of type {type(value).__name__}")
        version = value.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise LedgerError(f"its version is {version!r}, and this provider knows {VERSION}")
        texts = {name: value.get(name) for name in ("workflow_id", "fingerprint")}
        optional = {name: value.get(name) for name in ("callback_token_sha256", "task_id", "profile_id")}
        moments = {name: value.get(name) for name in ("written_at", "deadline")}
        earlier = value.get("earlier")
        for name, found in {**texts, **optional}.items():
            if found == "" or (not isinstance(found, str) and (name in texts or found is not None)):
                raise LedgerError(f"its {name} is {found!r}")
        for name, moment in moments.items():
            if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment < LATEST:
                raise LedgerError(f"its {name} is {moment!r}")
        max_tries = value.get("max_tries")
        if isinstance(max_tries, bool) or not isinstance(max_tries, int | None):
            raise LedgerError(f"its max_tries is {max_tries!r}")
        is_template = value.get("is_template", False)
        if not isinstance(is_template, bool):
            raise LedgerError(f"its is_template is {is_template!r}")
        if not isinstance(earlier, list) or not all(isinstance(each, str) for each in earlier):
            raise LedgerError(f"its earlier is {earlier!r}")
        return cls(
            **texts,  # type: ignore[arg-type]
            **optional,  # type: ignore[arg-type]
            **moments,  # type: ignore[arg-type]
            earlier=tuple(earlier),
            max_tries=max_tries,
            is_template=is_template,
        )


def fingerprint(call: calls.Call[CreatedTask]) -> str:
    """Tell starts of different runs apart, without keeping what is in them.

    :param call: the start; the addresses in it, which are new each time, do not count.
    """
    body = {name: value for name, value in (call.body or {}).items() if not name.endswith("callback_url")}
    # Neither the order of inputs nor that of the keys in one of them means anything, and both may change between tries.
    pairs = {pair["name"]: _sorted(pair["value"]) for pair in body["input_parameters"]}
    return hashlib.sha256(json.dumps({**body, "input_parameters": pairs}, sort_keys=True).encode()).hexdigest()


def _sorted(text: str) -> str:
    """Return the text of an input with the keys of JSON objects in it in order; any other text as it is."""
    try:
        value = json.loads(text) if text[:1] in ("{", "[") else None
        return text if value is None else json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        return text


@dataclass(frozen=True)
class Wanted:
    """The run that is to be.

    :param call: the start.
    :param timeout: seconds that it may take.
    :param callback_token_sha256: digest of the token in its callback address, if it has one.
    :param max_tries: up to which try Airflow retries by itself. Only a person who clears the task changes that.
    :param deferred: whether the task instance waits deferred. If it is cleared then, no worker is told, and whoever
        watches over the trigger may come too late to stop the run.
    """

    call: calls.Call[CreatedTask]
    timeout: float
    callback_token_sha256: str | None
    max_tries: int = 0
    deferred: bool = False

    @property
    def workflow_id(self) -> str:
        """Its workflow, or its template."""
        return str(self._body["workflow_template_id" if self.is_template else "workflow_id"])

    @property
    def is_template(self) -> bool:
        """Whether it is the run of an official template."""
        return "workflow_template_id" in self._body

    @property
    def inputs(self) -> Sequence[Mapping[str, str]]:
        """Its inputs, as name/value pairs."""
        pairs: Sequence[Mapping[str, str]] = self._body["input_parameters"]
        return pairs

    @property
    def profile_id(self) -> str | None:
        """The browser profile that it starts with, if any."""
        return self._body.get("profile_id")

    @property
    def _body(self) -> Mapping[str, Any]:
        return self.call.body or {}


@dataclass(frozen=True)
class Write:
    """Keep an entry, in place of the one before; without one there is nothing to know.

    :param entry: the entry.
    :param over: its run does not go on.
    """

    entry: Entry | None
    over: bool = False

    @property
    def starts(self) -> bool:
        """Whether a start follows it."""
        return not self.over and self.entry is not None and self.entry.task_id is None


@dataclass(frozen=True)
class BeforeStart:
    """Check the store and the names of the inputs before a run is recorded and started. This can take minutes."""


@dataclass(frozen=True)
class AskClaimed:
    """Return the BrowserAct tasks that other task instances are known to wait for."""


@dataclass(frozen=True)
class StartedRun:
    """There is a run to wait for.

    :param entry: what is written down of it; its ``task_id`` is known.
    :param task: the run as the API showed it, where it was not started just now.
    """

    entry: Entry
    task: Task | None = None

    @property
    def task_id(self) -> str:
        """The BrowserAct task."""
        if self.entry.task_id is None:
            raise ValueError("the entry names no task")
        return self.entry.task_id


@dataclass(frozen=True)
class PlanFull:
    """Nothing was started, since BrowserAct takes no further run now.

    :param error: what it said.
    """

    error: ConcurrencyLimitError | RateLimitError


Step: TypeAlias = "Sleep | Say | BeforeStart | Write | AskClaimed | calls.Call[Any]"


def begin(
    wanted: Wanted,
    entry: Entry | None,
    *,
    patience: float,
    on_orphan: OnOrphan,
    clock: Callable[[], float],
) -> Generator[Step, Any, StartedRun | PlanFull]:
    """Take up the run that an earlier try has started, or start one.

    :param wanted: the run that is to be.
    :param entry: what an earlier try has written down, if anything.
    :param patience: seconds that sending a start can take at most.
    :param on_orphan: what to do where it stays unknown what became of a start.
    :param clock: gives the moment, in seconds since the epoch.
    :returns: the run, or that there is no room for one now.
    :raises LedgerError: the entry contradicts what the API says of its run.
    :raises OrphanError: it cannot be told which run an earlier start has made.
    :raises RunStartUnknownError: it cannot be learned whether a start has made a run; the entry stays, so that a later
        try looks it up.
    :raises BrowserActError: the start was refused, or the earlier run can be neither read nor stopped.
    """
    earlier: tuple[str, ...] = ()
    if entry is not None:
        begun = yield from _take_up(wanted, entry, patience, on_orphan, clock)
        if isinstance(begun, StartedRun):
            return begun
        earlier = begun
    return (yield from _start(wanted, entry, earlier, on_orphan, clock))


def _take_up(
    wanted: Wanted, entry: Entry, patience: float, on_orphan: OnOrphan, clock: Callable[[], float]
) -> Generator[Step, Any, StartedRun | tuple[str, ...]]:
    """Take up the run of an entry; or give the runs that there were, none of which goes on."""
    same = fingerprint(wanted.call) == entry.fingerprint
    if entry.task_id is None:
        yield Say("An earlier try was about to start a run and did not write down what came of it. Looking for it.")
        found = yield from _look_up(
            entry,
            wanted if same else None,
            created_until=entry.written_at + patience + timings.CLOCK_SKEW,
            look_until=entry.written_at + patience + timings.LISTING_DELAY,
            on_orphan=on_orphan,
            clock=clock,
        )
        if found is None:
            yield Say("It had started none that could be the one.")
            return entry.earlier
        entry = replace(entry, task_id=found.id, profile_id=found.profile_id or entry.profile_id)
        yield Write(entry)
    task_id: str = entry.task_id or ""
    try:
        task: Task = yield calls.get_task(task_id)
    except TaskNotFoundError as error:
        if on_orphan is OnOrphan.FAIL:
            raise LedgerError(f"it names BrowserAct task {task_id}, and BrowserAct says: {error.brief}") from error
        yield Say(f"BrowserAct task {task_id} of an earlier try is not known any more: {error.brief}", logging.WARNING)
        return *entry.earlier, task_id
    if not entry.is_template and task.workflow_id not in (None, entry.workflow_id):
        raise LedgerError(
            f"it names BrowserAct task {task_id} as one of workflow {entry.workflow_id}, and BrowserAct says that it "
            f"is of workflow {task.workflow_id}"
        )
    if not same:
        yield from _give_way(task, "an earlier try had another workflow, other inputs or another profile")
    elif task.status in (TaskStatus.FAILED, TaskStatus.CANCELED):
        yield Say(f"BrowserAct task {task_id} of an earlier try has ended as {task.status}. Starting a new run.")
    elif not task.status.ended and entry.max_tries not in (None, wanted.max_tries):
        yield from _give_way(task, "the Airflow task was cleared while it waited")
    else:
        # Someone may have given the run more time, or less.
        deadline = entry.written_at + wanted.timeout
        if entry.deadline != deadline:
            entry = replace(entry, deadline=deadline)
            yield Write(entry)
        return StartedRun(entry, task)
    return *entry.earlier, task_id


def _give_way(task: Task, why: str) -> Generator[Step, Any, None]:
    """See to it that a run that is not wanted any more does not go on."""
    if task.status.ended:
        yield Say(f"BrowserAct task {task.id} has ended as {task.status}, but {why}. Starting a new run.")
        return
    with contextlib.suppress(*NOTHING_TO_STOP):
        yield calls.stop_task(task.id)
    yield Say(f"BrowserAct task {task.id} was stopped, since {why}. Starting a new run.", logging.WARNING)


def _start(
    wanted: Wanted,
    before: Entry | None,
    earlier: tuple[str, ...],
    on_orphan: OnOrphan,
    clock: Callable[[], float],
) -> Generator[Step, Any, StartedRun | PlanFull]:
    """Start a run; where surely none was, what was written down before holds again."""
    yield BeforeStart()
    for attempt in range(1, STARTS + 1):
        # Right before the start: a later try looks for runs from this moment on, for as long as a start can take.
        now = clock()
        entry = Entry(
            wanted.workflow_id,
            fingerprint(wanted.call),
            written_at=now,
            deadline=now + wanted.timeout,
            callback_token_sha256=wanted.callback_token_sha256,
            earlier=earlier,
            max_tries=wanted.max_tries if wanted.deferred else None,
            is_template=wanted.is_template,
        )
        yield Write(entry)
        try:
            created: CreatedTask = yield wanted.call
        except BrowserActError as error:
            if error.started_nothing:
                yield Write(before, over=True)
                if isinstance(error, ConcurrencyLimitError | RateLimitError):
                    return PlanFull(error)
                raise
            yield Say(
                f"It is not known whether BrowserAct started a run. Looking for it. {error.brief}", logging.WARNING
            )
            now = clock()
            found = yield from _look_up(
                entry,
                wanted,
                created_until=now + timings.CLOCK_SKEW,
                look_until=now + timings.LISTING_DELAY,
                on_orphan=on_orphan,
                clock=clock,
            )
            if found is None:
                yield Say(f"None was started (attempt {attempt} of {STARTS}).", logging.WARNING)
                if attempt < STARTS:
                    continue
                yield Write(before, over=True)
                raise
            created = CreatedTask(found.id, found.profile_id)
            yield Say(f"BrowserAct task {found.id} is the run.")
        entry = replace(entry, task_id=created.id, profile_id=created.profile_id)
        yield Write(entry)
        return StartedRun(entry)
    raise AssertionError("the last attempt has returned or raised")


def _look_up(
    entry: Entry,
    wanted: Wanted | None,
    *,
    created_until: float,
    look_until: float,
    on_orphan: OnOrphan,
    clock: Callable[[], float],
) -> Generator[Step, Any, Task | None]:
    """Find the run that a start has made of which the answer is not known.

    :param wanted: what that start was for, or None where that is not known any more.
    :param created_until: the run was created before this moment, in seconds since the epoch.
    :param look_until: before this moment the run may not be in the list yet, so that neither none nor another one
        that looks like it tells anything.
    :returns: the run, or None if there is surely none.
    """
    since = _moment(entry.written_at - timings.CLOCK_SKEW)
    until = _moment(created_until)
    while True:
        try:
            workflow_id = None if entry.is_template else entry.workflow_id
            found, skipped = yield from _list_tasks(workflow_id=workflow_id, created_at_from=since, created_at_to=until)
        except BrowserActError as error:
            if on_orphan is OnOrphan.START:
                yield Say(f"Looking for a run failed: {error.brief}", logging.WARNING)
                return None
            raise RunStartUnknownError(
                f"It is not known whether BrowserAct started a run, and looking for it failed: {error.message}",
                http_status=error.http_status,
                code=error.code,
                msg=error.msg,
                trace_id=error.trace_id,
            ) from error
        if clock() >= look_until:
            break
        yield Sleep(min(timings.ORPHAN_LOOK_PAUSE, look_until - clock()))
    found = yield from _dated([task for task in found if _match(task, entry, wanted, until) is not False])
    matches = {task.id: _match(task, entry, wanted, until) for task in found}
    if wanted is not None and None in matches.values():
        source = yield from _read_source(entry, since, until)
        matches = {task.id: _match(task, entry, wanted, until, source) for task in found}
    # Last, since others may have come to know of their runs meanwhile.
    taken: Collection[str] = yield AskClaimed()
    possible = [task for task in found if task.id not in taken and matches[task.id] is not False]
    if not possible and skipped and on_orphan is not OnOrphan.START:
        raise RunStartUnknownError(
            "It is not known whether BrowserAct started a run: the list of its tasks has one that cannot be read "
            f"({skipped[0]})"
        )
    if not possible:
        return None
    if len(possible) == 1 and matches[possible[0].id]:
        return possible[0]
    ids = ", ".join(f"{task.id} ({task.status})" for task in possible)
    if on_orphan is OnOrphan.START:
        yield Say(f"Not waiting for the BrowserAct tasks that may be the run, and go on: {ids}.", logging.WARNING)
        return None
    # A run for something else would only be stopped, and it may be someone else's.
    if on_orphan is OnOrphan.ADOPT and wanted is not None:
        newest = max(possible, key=lambda task: task.created_at or since)
        yield Say(f"Of the BrowserAct tasks {ids}, the newest is taken.", logging.WARNING)
        return newest
    raise OrphanError(
        f"An earlier start of {entry.workflow_id} may have made one of these BrowserAct tasks: {ids}. "
        "Stop those that nobody waits for, in the BrowserAct dashboard, and clear the Airflow task; or let on_orphan "
        "say what to do: 'adopt' takes the newest, 'start' starts a new run."
    )


def _list_tasks(**filters: Any) -> Generator[Step, Any, tuple[list[Task], list[str]]]:
    """Return the tasks of all pages of a list, and which items could not be read.

    :param filters: the arguments of :func:`~airflow_provider_browseract.api.calls.list_tasks`.
    """
    pages = calls.Pages(replace(calls.list_tasks(**filters), read=read_page(Task.read_summary)))
    found: list[Task] = []
    while pages.call is not None:
        page: Page[Task] = yield pages.call
        found += pages.take(page)
    return found, pages.skipped


def _dated(tasks: Sequence[Task]) -> Generator[Step, Any, list[Task]]:
    """Read those tasks alone whose time the list does not have; an older run may look like the one that is wanted."""
    found = []
    for task in tasks:
        if task.created_at is None:
            try:
                task = yield calls.get_task(task.id)
            except BrowserActError as error:
                yield Say(f"BrowserAct task {task.id} cannot be read: {error.brief}", logging.WARNING)
        found.append(task)
    return found


@dataclass(frozen=True)
class _Source:
    """What is known of a workflow or template beside its id.

    :param declared: its inputs.
    :param task_ids: of a template, the tasks that are listed under its name and belong to no workflow of the account.
    """

    declared: tuple[InputParameter, ...] = ()
    task_ids: frozenset[str] = frozenset()


def _read_source(entry: Entry, since: datetime, until: datetime) -> Generator[Step, Any, _Source]:
    """Read what helps to recognise a run of a workflow or template; nothing where that cannot be read."""
    read = calls.get_official_workflow_template if entry.is_template else calls.get_workflow
    try:
        source: Workflow | Template = yield read(entry.workflow_id)
        named: list[Task] = []
        own: set[str] = set()
        if entry.is_template and source.name:
            # The run of a template belongs to a workflow of which only the name is known. A workflow of the account may
            # have the same name.
            named, _ = yield from _list_tasks(workflow_name=source.name, created_at_from=since, created_at_to=until)
            own = yield from _own_workflows()
    except BrowserActError as error:
        yield Say(f"The details of {entry.workflow_id} cannot be read: {error.brief}", logging.WARNING)
        return _Source()
    ids = frozenset(task.id for task in named if task.workflow_id is not None and task.workflow_id not in own)
    return _Source(source.input_parameters, ids)


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


def _match(
    task: Task, entry: Entry, wanted: Wanted | None, until: datetime, source: _Source = _Source()
) -> bool | None:
    """Say whether a task is the one that was started; None if it may be."""
    # A run that came to nothing is of no use to anyone, and need not be told from others.
    if task.id in entry.earlier or task.status in (TaskStatus.FAILED, TaskStatus.CANCELED):
        return False
    if not entry.is_template and task.workflow_id not in (None, entry.workflow_id):
        return False
    created = task.created_at
    if created is not None and not entry.written_at - timings.CLOCK_SKEW <= created.timestamp() <= until.timestamp():
        return False
    if wanted is None:
        return None
    inputs = inputs_match(task.input_parameters or "", wanted.inputs, source.declared)
    if inputs is False or (wanted.profile_id and task.profile_id not in (None, wanted.profile_id)):
        return False
    # Unless BrowserAct's clock is slow, it is older than the start, or with another profile.
    sure = created is not None and created.timestamp() >= entry.written_at - timings.CLOCK_RESOLUTION
    # A template's run may be shown under a workflow that nobody knows, as others with the same inputs may.
    known = task.workflow_id == entry.workflow_id or task.id in source.task_ids
    sure = sure and (not entry.is_template or known)
    return inputs if sure and (not wanted.profile_id or task.profile_id is not None) else None


def inputs_match(
    text: str, inputs: Sequence[Mapping[str, str]], declared: Sequence[InputParameter] = ()
) -> bool | None:
    """Return whether a task was started with some inputs.

    :param text: the inputs as the API shows them, ``key=value; key=value``, in any order.
    :param inputs: the inputs as they were sent, as name/value pairs.
    :param declared: the inputs that the workflow or template declares. Those that are enabled by default may be there
        with whatever value although they were not sent: which value is the default, the API does not say.
    :returns: True if it has all of them and none that was not sent and has no default, False if it has one with another
        value, None if it cannot be known.
    """
    told = _without_spaces(text)
    pieces = [_without_spaces(f"{pair['name']}={pair['value']}") for pair in inputs]
    sent = [pair["name"] for pair in inputs]
    names = {name: f"{_without_spaces(name)}=" for name in (*sent, *(one.name for one in declared))}
    added = [names[one.name] for one in declared if one.default_enabled is True and one.name not in sent]
    if any(True for _ in _consumed(told, pieces, added, tuple(names.values()))):
        return True
    # What was hidden or cut short cannot be told from another value.
    if any(sign in told and not any(sign in piece for piece in pieces) for sign in ("*", "...", "\u2026")):
        return None
    bounded = f";{told};"
    for pair, piece in zip(inputs, pieces, strict=True):
        name = f"{_without_spaces(pair['name'])}="
        _, named, rest = bounded.partition(f";{name}")
        value = rest.partition(";")[0]
        cut = len(value) >= CUT and piece.startswith(name + value)
        if named and not cut and f";{piece};" not in bounded:
            return False
    return None


def _without_spaces(text: str) -> str:
    """Leave out what may get lost on the way."""
    return "".join(text.split())


def _consumed(text: str, pieces: list[str], added: list[str], names: Sequence[str]) -> Iterator[None]:
    """Yield for each way in which a text is made of all the pieces; values may contain what separates them.

    :param added: how pieces begin that may be there as well, with any value.
    :param names: how the pieces of all known inputs begin. Such a value ends before the next of them.
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
