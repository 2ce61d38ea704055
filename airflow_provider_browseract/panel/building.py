"""Make what the pages show from what is known: the runs of the account, Airflow's records, and what the viewer may see.

Nothing here reads anything. Whatever a viewer must not see is left out here, so the templates never have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode

from airflow_provider_browseract.api.models import Step, Task, TaskStatus
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.dag_file import KINDS, Runnable, dag_file, dag_id_of
from airflow_provider_browseract.in_airflow.hiding import LIVE_VIEW, SECRET_INPUTS, Hiding
from airflow_provider_browseract.panel.access import Rights, rights_on
from airflow_provider_browseract.panel.days import source_of
from airflow_provider_browseract.panel.links import TaskInstanceKey
from airflow_provider_browseract.panel.views import (
    BudgetShare,
    Choice,
    DagPage,
    InputView,
    InstancePage,
    InstanceView,
    Overview,
    QueuePlace,
    RunPage,
    RunRow,
    RunTable,
    Slots,
    SourcePage,
    SourceRow,
    SourcesPage,
    StepView,
    foreign_text,
)
from airflow_provider_browseract.runs.report import duration_of

if TYPE_CHECKING:
    from airflow_provider_browseract.panel.accounts import Account, TaskRead
    from airflow_provider_browseract.panel.links import Link, QueueEntry
    from airflow_provider_browseract.panel.viewing import Viewing

PAGE_SIZE = 100
"""Runs on a page."""

PLACES_SHOWN = 20
"""Places of the queue that a page shows. All are counted."""

MAX_STEPS_SHOWN = 100
"""Steps of a run that a page shows: the first and the last ones, half each."""

LISTED_FOR = timedelta(hours=24)
"""How long ended runs are listed. The account has those of some minutes more."""

CLAIMS_SHOWN = 5
"""How many of those that claim to wait for a run are named."""

TOO_MANY_WAIT = "Not known: so many task instances of Airflow may wait that the panel does not read all of them."

XCOMS_ELSEWHERE = (
    "Not known: a custom XCom backend stores XComs of this Airflow elsewhere, so only task instances that wait in the "
    "triggerer are known. Check that no other one waits before you stop the run."
)

UNREADABLE = "a task of a DAG that you may not read"

UNREAD_AFTER = 60.0
"""Seconds after its start from which a run counts as one that nobody waits for. The task instance pushes its XComs in
the first seconds."""

SHOWN = {"active": "Active", "paused": "Paused", "unread": "Not waited for", "failed": "Failed", "all": "All"}
"""The filters of a list of runs, and what they are called on the page."""


@dataclass(frozen=True)
class Knowledge:
    """What a page is made from.

    :param viewing: who looks, and what Airflow's database has about runs and the queue.
    :param account: what is known about the account of the connection.
    """

    viewing: Viewing
    account: Account
    now: datetime

    def rights_on(self, task: Task) -> Rights:
        """Return what the viewer may see of a run."""
        return rights_on(self.viewing.access, self.account.conn_id, self.viewing.proven(task.id))

    def is_unread(self, task: Task) -> bool:
        """Return whether a run is active and nobody waits for it, so that it uses credits without effect."""
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
        names = dict.fromkeys(_label(key) if self.viewing.access.reads_dag(key.dag_id) else UNREADABLE for key in keys)
        shown, more = [*names][:CLAIMS_SHOWN], len(names) - CLAIMS_SHOWN
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def instance_view(key: TaskInstanceKey, try_number: int | None = None) -> InstanceView:
    """Return a task instance as a link to its page in Airflow."""
    path = f"dags/{quote(key.dag_id, safe='')}/runs/{quote(key.run_id, safe='')}/tasks/{quote(key.task_id, safe='')}"
    if key.map_index >= 0:
        path = f"{path}/mapped/{key.map_index}"
    return InstanceView(_label(key), path, try_number)


def _label(key: TaskInstanceKey) -> str:
    index = f" [{key.map_index}]" if key.map_index >= 0 else ""
    return foreign_text(f"{key.dag_id} / {key.task_id}{index}")


def overview(known: Knowledge, show: str, search: str, page: int) -> Overview:
    """Return the first page."""
    seen = _visible(known)
    queue, now = _queue_of(known), known.now.timestamp()
    began = [each.wait.queued.began for each in queue if not each.wait.waits_for_budget(now)]
    daily = known.account.budget.daily_credits if known.account.budget else None
    today = known.now.astimezone(timezone.utc).date()
    return Overview(
        slots=_slots(known, queue) if known.viewing.reads_account else None,
        queue=tuple(_place(known, number, entry) for number, entry in enumerate(queue[:PLACES_SHOWN], start=1)),
        queue_length=len(queue),
        longest_wait=max(0.0, now - min(began)) if began else None,
        paused=sum(_is_shown(known, each, "paused") for each in seen),
        today=BudgetShare(_credits_on(known.account.tasks, today), daily) if known.viewing.reads_account else None,
        runs=_table(known, seen, show, search, page, {"conn": known.account.conn_id}),
    )


def _slots(known: Knowledge, queue: Iterable[QueueEntry]) -> Slots:
    active = sum(not task.status.ended for task in known.account.tasks)
    return Slots(active, any(not each.wait.waits_for_budget(known.now.timestamp()) for each in queue))


def _credits_on(tasks: Iterable[Task], day: date) -> int:
    on_day = (task for task in tasks if task.created_at and task.created_at.astimezone(timezone.utc).date() == day)
    return sum(max(0, task.credit or 0) for task in on_day)


def _queue_of(known: Knowledge) -> list[QueueEntry]:
    """Return the queue of the connection. All connections with the same API key share one queue."""
    conn_id = known.account.conn_id
    everyone = known.viewing.records.queue
    digests = {each.wait.key_digest for each in everyone if each.conn_id == conn_id}
    return [each for each in everyone if each.conn_id == conn_id or each.wait.key_digest in digests]


def _place(known: Knowledge, number: int, entry: QueueEntry) -> QueuePlace:
    """Return a place in the queue: the number for everyone, the name only of DAGs that the viewer may read."""
    now = known.now.timestamp()
    for_budget = entry.wait.waits_for_budget(now)
    return QueuePlace(
        number=number,
        instance=instance_view(entry.key) if known.viewing.access.reads_dag(entry.key.dag_id) else None,
        priority=entry.wait.queued.priority,
        # While it waits for the budget, its wait for a slot has not begun.
        waits=None if for_budget else max(0.0, now - entry.wait.queued.began),
        refusals=entry.wait.queued.refusals,
        for_budget=for_budget,
    )


class Seen(NamedTuple):
    """A run that the viewer may see.

    :param link: the task instance that is shown with it; None if none is known.
    """

    task: Task
    link: Link | None
    rights: Rights


def _visible(known: Knowledge) -> list[Seen]:
    """Return the runs that the viewer may see: those that are active, or ended in the last 24 hours."""
    found = []
    for task in known.account.tasks:
        if task.status.ended and task.finished_at and known.now - task.finished_at > LISTED_FOR:
            continue
        rights = known.rights_on(task)
        if rights.run:
            found.append(Seen(task, next(iter(known.viewing.proven(task.id)), None), rights))
    return found


def run_row(known: Knowledge, task: Task, link: Link | None, rights: Rights) -> RunRow:
    """Return a run as a row."""
    instance = None
    if link is not None and known.viewing.access.reads_runs(link.key.dag_id):
        instance = instance_view(link.key, link.try_number)
    asked = link is not None and link.required_action and not task.status.ended
    unread = known.is_unread(task)
    return RunRow(
        id=task.id,
        status=task.status,
        source=source_name(known, source_of(task)),
        instance=instance,
        instance_hidden=link is not None and instance is None,
        unread=unread,
        started=task.created_at,
        took=duration_of(task),
        credits=task.credit,
        required_action=f"{instance.path}/required_actions" if instance is not None and asked else None,
        stoppable=unread and rights.act,
    )


def source_name(known: Knowledge, source: str | None) -> str:
    """Return what :func:`source_of` returns, with the name of a workflow instead of its id if it is known."""
    return foreign_text(known.account.names.get(source or "") or source)


def _table(
    known: Knowledge,
    seen: Sequence[Seen],
    show: str,
    search: str,
    page: int,
    query: Mapping[str, str],
) -> RunTable:
    """Return a page of a list of runs, after filters and search. Rows are made only for this page."""
    wanted = foreign_text(search).strip()
    if wanted:
        seen = [each for each in seen if _matches(known, each, wanted.casefold())]
    groups = {name: [each for each in seen if _is_shown(known, each, name)] for name in SHOWN}
    chosen = show if show in groups else "all"
    kept = {**query, **({"search": wanted} if wanted else {})}
    found = groups[chosen]
    number = max(1, min(page, -(-len(found) // PAGE_SIZE)))
    begin = (number - 1) * PAGE_SIZE

    def link_to(other: int) -> str:
        return urlencode({**kept, "show": chosen, "page": other})

    return RunTable(
        rows=tuple(run_row(known, *each) for each in found[begin : begin + PAGE_SIZE]),
        first=begin + 1 if found else 0,
        total=len(found),
        newer=link_to(number - 1) if number > 1 else None,
        older=link_to(number + 1) if begin + PAGE_SIZE < len(found) else None,
        filters=tuple(
            Choice(SHOWN[name], urlencode({**kept, "show": name}), name == chosen, len(group))
            for name, group in groups.items()
        ),
        search=wanted,
    )


def _is_shown(known: Knowledge, seen: Seen, show: str) -> bool:
    status = seen.task.status
    if show == "active":
        return not status.ended
    if show == "paused":
        return status in (TaskStatus.PAUSED, TaskStatus.PAUSING)
    if show == "unread":
        return known.is_unread(seen.task)
    return show == "all" or status is TaskStatus.FAILED


def _matches(known: Knowledge, seen: Seen, wanted: str) -> bool:
    task, link, _ = seen
    label = _label(link.key) if link is not None and known.viewing.access.reads_runs(link.key.dag_id) else ""
    texts = (task.id, source_name(known, source_of(task)), task.status.value, label)
    return any(wanted in text.casefold() for text in texts)


def _with_fewer_steps(task: Task, most: int) -> Task:
    """Return a run with at most so many steps: the first and the last ones, half each. The others are counted."""
    steps, half = task.steps, most // 2
    if len(steps) > most:
        steps = steps[:half] + steps[-half:]
    return task.model_copy(update={"steps": steps, "steps_left_out": task.step_count - len(steps)})


def run_page(
    known: Knowledge, read: TaskRead, link: Link | None, rights: Rights, others: Iterable[Link] = ()
) -> RunPage:
    """Return the page of a run that the viewer may see.

    :param read: the run with its steps.
    :param others: the runs of its task instance.
    """
    assert read.task is not None
    proven = [*known.viewing.proven(read.task.id), *([] if link is None else [link])]
    # A sensor, which anyone can point at a run, hides nothing from those whose task instance has started it.
    own = [each for each in proven if not each.follows] or proven
    hidden = {word for each in own for word in each.hidden}
    hiding = Hiding(LIVE_VIEW in hidden, texts=SECRET_INPUTS in hidden or read.secret_inputs)
    task: Task = hiding.apply(_with_fewer_steps(read.task, MAX_STEPS_SHOWN))
    failure = task.failure.message if task.failure else None
    return RunPage(
        run=run_row(known, task, link, rights),
        source_id=task.source_id,
        profile_id=foreign_text(task.profile_id) or None,
        ended=task.finished_at if task.status.ended else None,
        log_url=task.log_detail_url if rights.steps else None,
        live_url=task.live_url if rights.act and not task.status.ended else None,
        failure=foreign_text(failure) if rights.steps else "",
        steps=tuple(map(_step_view, task.steps)) if rights.steps else None,
        steps_left_out=task.steps_left_out,
        wait=_wait_line(known, task),
        others=_other_runs(known, task, others),
        unread=task.unread is not None,
    )


def _other_runs(known: Knowledge, task: Task, links: Iterable[Link]) -> tuple[RunRow, ...]:
    """Return the other runs of a task instance that the viewer may see, as far as they are known."""
    ids = {link.browseract_task_id for link in links} - {task.id}
    return tuple(run_row(known, *each) for each in _visible(known) if each.task.id in ids)


def _step_view(step: Step) -> StepView:
    status = foreign_text(step.status, 50)
    return StepView(step.number, foreign_text(step.goal), status, step.screenshots_url, status == "failed")


def _wait_line(known: Knowledge, task: Task) -> str:
    if known.is_unread(task) and known.viewing.records.unreadable:
        return XCOMS_ELSEWHERE
    if known.viewing.records.incomplete and not task.status.ended:
        return TOO_MANY_WAIT
    if not (who := known.who_waits(task.id)):
        return ""
    waits = [link.wait for link in known.viewing.proven(task.id) if link.wait is not None]
    if not waits:
        return f"Waited for by {who}."
    by = f"Waited for by {who}. The triggerer polls it every {waits[0].longest_pause:g} s"
    return f"{by}, and a callback can end the wait sooner." if waits[0].callback_token_sha256 else f"{by}."


def instance_page(known: Knowledge, key: TaskInstanceKey, run: RunPage | None) -> InstancePage:
    """Return the page of a task instance of a DAG whose runs the viewer may see."""
    places = enumerate(_queue_of(known), start=1)
    place = next((_place(known, number, entry) for number, entry in places if entry.key == key), None)
    return InstancePage(instance_view(key), run, place)


def dag_page(known: Knowledge, dag_id: str, run_id: str | None, show: str, search: str, page: int) -> DagPage:
    """Return the runs of a DAG or DAG run."""
    seen = [
        each
        for each in _visible(known)
        if each.link is not None and each.link.key.dag_id == dag_id and run_id in (None, each.link.key.run_id)
    ]
    table = _table(known, seen, show, search, page, {"conn": known.account.conn_id})
    return DagPage(
        foreign_text(dag_id),
        foreign_text(run_id) if run_id else None,
        table,
        sum(task.credit or 0 for task, _, _ in seen),
    )


def sources_page(
    known: Knowledge, sources: Iterable[Runnable], kind: SourceKind, search: str, truncated: bool
) -> SourcesPage:
    """Return the list of all sources of a kind."""
    wanted = foreign_text(search).strip()
    rows = [SourceRow(each.id, foreign_text(each.name) or each.id, foreign_text(each.description)) for each in sources]
    return SourcesPage(
        kinds=tuple(
            Choice(words.several, urlencode({"conn": known.account.conn_id, "kind": other.value}), other is kind)
            for other, words in KINDS.items()
        ),
        kind=kind,
        rows=tuple(row for row in rows if wanted.casefold() in f"{row.id} {row.name} {row.description}".casefold()),
        search=wanted,
        truncated=truncated,
    )


def source_page(known: Knowledge, source: Runnable) -> SourcePage:
    """Return the page of a workflow, bot or template, with a DAG file that runs it."""
    name = foreign_text(source.name) or source.id
    dag_id = dag_id_of(source)
    # Lists do not name the template of a run, so a template has none.
    version = SOURCES[source.kind].api_version
    runs = [task for task in known.account.tasks if (task.api_version, task.source_id) == (version, source.id)]
    credits = [task.credit for task in runs if task.status.ended and task.credit]
    return SourcePage(
        kind=source.kind,
        id=source.id,
        name=name,
        description=foreign_text(source.description, 2000),
        inputs=tuple(InputView(foreign_text(each.name), each.required) for each in source.inputs),
        file_name=f"{dag_id}.py",
        dag_file=dag_file(source, known.account.conn_id),
        dag_id=dag_id,
        runs=len(runs),
        mean=sum(credits) / len(credits) if credits else None,
        detail_url=source.detail_url,
    )
