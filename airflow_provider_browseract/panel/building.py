"""Make what the pages show from what is known: the runs of the account, Airflow's records, and what the viewer may see.

Nothing here reads anything. Whatever a viewer must not see is left out here, so the templates never have it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import quote, urlencode

from airflow_provider_browseract.api.models import Step, Task, TaskStatus, Template, Workflow
from airflow_provider_browseract.panel.dag_file import dag_file
from airflow_provider_browseract.panel.views import (
    Bar,
    BudgetShare,
    Choice,
    CreditsPage,
    CreditsRow,
    DagPage,
    EarlierRun,
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
from airflow_provider_browseract.runs.callback_url import TaskInstanceKey

if TYPE_CHECKING:
    from airflow_provider_browseract.panel.access import Access
    from airflow_provider_browseract.panel.accounts import Account
    from airflow_provider_browseract.panel.database import Link, QueueEntry, Records
    from airflow_provider_browseract.panel.days import DayRun

PAGE_SIZE = 100
"""Runs on a page."""

MAX_PLACES = 100
"""Places of the queue that a page shows. All are counted."""

MAX_STEPS_SHOWN = 100
"""Steps of a run that a page shows: the first and the last ones, half each."""

UNREAD_AFTER = 60.0
"""Seconds after its start from which a run counts as one that nobody waits for. The task instance pushes its XComs in
the first seconds."""

CLOCKS = timedelta(minutes=2)
"""By how much the clocks of BrowserAct and Airflow may differ."""

LINKED_WITHIN = timedelta(days=2)
"""How long after the creation of a run its task instance may push it: at its start, at its end, and by a later try."""

DAYS_SHOWN = 30
"""Days on the page about credits."""

COLORS = 8
"""Colors of the plot. The last one is for all other workflows or DAGs."""

SHOWN = ("all", "active", "paused", "unread", "failed")
"""The filters of a list of runs."""


@dataclass(frozen=True)
class Knowledge:
    """What a page is made from.

    :param account: what is known about the account of the connection.
    :param records: what Airflow's database has about runs and the queue.
    """

    access: Access
    account: Account
    records: Records
    now: datetime

    @property
    def reads_account(self) -> bool:
        """Whether the viewer may see everything that the account has done."""
        return self.access.reads_connection(self.account.conn_id)


class Sight(NamedTuple):
    """What the viewer may see of a run, and do with it."""

    run: bool
    instance: bool
    steps: bool
    act: bool


def sight_of(known: Knowledge, task: Task, link: Link | None) -> Sight:
    """Return what the viewer may see of a run.

    The rights on a DAG count only for runs that certainly belong to it, because a person with the right to edit XComs
    could name another run.
    """
    access, conn_id = known.access, known.account.conn_id
    dag_id = link.key.dag_id if link is not None and _is_trusted(link, conn_id, task) else None
    run = known.reads_account or (dag_id is not None and access.reads_runs(dag_id))
    return Sight(
        run=run,
        instance=run and link is not None and access.reads_runs(link.key.dag_id),
        steps=run and (known.reads_account or (dag_id is not None and access.reads_steps(dag_id))),
        act=run and (access.edits_connection(conn_id) or (dag_id is not None and access.changes_runs(dag_id))),
    )


def _is_trusted(link: Link, conn_id: str, task: Task) -> bool:
    if not link.confirmed or link.conn_id != conn_id:
        return False
    if link.workflow_id and task.workflow_id and link.workflow_id != task.workflow_id:
        return False
    created = task.created_at
    return created is None or link.pushed_at - LINKED_WITHIN <= created <= link.pushed_at + CLOCKS


def is_unread(task: Task, link: Link | None, now: datetime) -> bool:
    """Return whether a run is active and nobody waits for it, so that it uses credits in vain."""
    if task.status.ended or (link is not None and link.waits):
        return False
    return task.created_at is None or (now - task.created_at).total_seconds() > UNREAD_AFTER


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
    seen = _visible(known, known.account.tasks)
    places = queue_places(known)
    waiting = [each.waits for each in places if not each.for_budget]
    daily = known.account.budget.daily_credits if known.account.budget else None
    today = known.now.astimezone(timezone.utc).date()
    return Overview(
        slots=_slots(known) if known.reads_account else None,
        queue=tuple(places[:MAX_PLACES]),
        queue_length=len(places),
        longest_wait=max(waiting, default=None),
        paused=sum(task.status in (TaskStatus.PAUSED, TaskStatus.PAUSING) for task, _, _ in seen),
        today=BudgetShare(_credits_on(known.account.tasks, today), daily) if known.reads_account else None,
        runs=_table(known, seen, show, search, page, {"conn": known.account.conn_id}),
    )


def _slots(known: Knowledge) -> Slots:
    active = sum(not task.status.ended for task in known.account.tasks)
    refused = [each.wait.active for each in _queue_of(known) if each.wait.active]
    return Slots(active, max(refused, default=None))


def _credits_on(tasks: Iterable[Task], day: date) -> int:
    on_day = (task for task in tasks if task.created_at and task.created_at.astimezone(timezone.utc).date() == day)
    return sum(max(0, task.credit or 0) for task in on_day)


def _queue_of(known: Knowledge) -> list[QueueEntry]:
    """Return the queue of the connection. All connections with the same API key share one queue."""
    conn_id = known.account.conn_id
    digests = {each.wait.key_digest for each in known.records.queue if each.conn_id == conn_id} - {None}
    return [each for each in known.records.queue if each.conn_id == conn_id or each.wait.key_digest in digests]


def queue_places(known: Knowledge) -> list[QueuePlace]:
    """Return the places in the queue: the number for everyone, the name only of DAGs that the viewer may read."""
    now = known.now.timestamp()
    return [
        QueuePlace(
            number=number,
            instance=instance_view(each.key) if known.access.reads_dag(each.key.dag_id) else None,
            priority=each.wait.queued.priority,
            waits=max(0.0, now - each.wait.queued.since),
            refusals=each.wait.queued.refusals,
            for_budget=each.wait.waits_for_budget(now),
        )
        for number, each in enumerate(_queue_of(known), start=1)
    ]


class Seen(NamedTuple):
    """A run that the viewer may see."""

    task: Task
    link: Link | None
    sight: Sight


def _visible(known: Knowledge, tasks: Iterable[Task]) -> list[Seen]:
    found = []
    for task in tasks:
        link = known.records.links.get(task.id)
        sight = sight_of(known, task, link)
        if sight.run:
            found.append(Seen(task, link, sight))
    return found


def run_row(known: Knowledge, task: Task, link: Link | None, sight: Sight) -> RunRow:
    """Return a run as a row."""
    instance = instance_view(link.key, link.try_number) if link is not None and sight.instance else None
    asked = instance is not None and link is not None and link.required_action and not task.status.ended
    unread = is_unread(task, link, known.now)
    return RunRow(
        id=task.id,
        status=task.status,
        workflow=_workflow_name(known, task.workflow_id),
        instance=instance,
        hidden=link is not None and instance is None,
        unread=unread,
        started=task.created_at,
        took=_took(task, known.now),
        credits=task.credit,
        required_action=f"{instance.path}/required_actions" if instance is not None and asked else None,
        stoppable=unread and sight.act,
    )


def _took(task: Task, now: datetime) -> float | None:
    if task.created_at is None:
        return None
    end = task.finished_at if task.status.ended else now
    return None if end is None else max(0.0, (end - task.created_at).total_seconds())


def _workflow_name(known: Knowledge, workflow_id: str | None) -> str:
    return foreign_text(known.account.names.get(workflow_id or "") or workflow_id)


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
            Choice(name, urlencode({**kept, "show": name}), name == chosen, len(group))
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
        return is_unread(seen.task, seen.link, known.now)
    return show == "all" or status is TaskStatus.FAILED


def _matches(known: Knowledge, seen: Seen, wanted: str) -> bool:
    task, link, sight = seen
    label = _label(link.key) if link is not None and sight.instance else ""
    texts = (task.id, _workflow_name(known, task.workflow_id), task.status.value, label)
    return any(wanted in text.casefold() for text in texts)


def run_page(known: Knowledge, task: Task, link: Link | None, sight: Sight, earlier: Iterable[Link] = ()) -> RunPage:
    """Return the page of a run that the viewer may see.

    :param task: the run with its steps.
    :param earlier: the other runs of its task instance.
    """
    half = MAX_STEPS_SHOWN // 2
    steps = task.steps if len(task.steps) <= MAX_STEPS_SHOWN else task.steps[:half] + task.steps[-half:]
    seen = {each.id: each for each in known.account.tasks}
    failure = task.failure.message if task.failure else None
    return RunPage(
        run=run_row(known, task, link, sight),
        workflow_id=task.workflow_id,
        profile_id=foreign_text(task.profile_id) or None,
        ended=task.finished_at if task.status.ended else None,
        log_url=task.log_detail_url if sight.steps else None,
        live_url=task.live_url if sight.act and not task.status.ended else None,
        failure=foreign_text(failure) if sight.steps else "",
        steps=tuple(map(_step_view, steps)) if sight.steps else None,
        steps_left_out=task.step_count - len(steps),
        wait=_wait_line(link),
        earlier=tuple(
            EarlierRun(each.id, each.status, each.created_at, each.credit)
            for each in (seen.get(other.browseract_task_id) for other in earlier)
            if each is not None and each.id != task.id
        ),
    )


def _step_view(step: Step) -> StepView:
    status = foreign_text(step.status, 50)
    return StepView(step.number, foreign_text(step.goal), status, step.screenshots_url, status == "failed")


def _wait_line(link: Link | None) -> str:
    if link is None or not link.waits:
        return ""
    if link.wait is None:
        return "A worker polls it."
    by = f"The triggerer polls it every {link.wait.interval:g} s"
    return f"{by}, and a callback can end the wait sooner." if link.wait.callback_token_sha256 else f"{by}."


def instance_page(known: Knowledge, key: TaskInstanceKey, run: RunPage | None) -> InstancePage:
    """Return the page of a task instance of a DAG whose runs the viewer may see."""
    place = None
    for each, entry in zip(queue_places(known), _queue_of(known), strict=True):
        if entry.key == key:
            place = each
    return InstancePage(instance_view(key), run, place)


def dag_page(known: Knowledge, dag_id: str, run_id: str | None, show: str, search: str, page: int) -> DagPage:
    """Return the runs of a DAG or DAG run."""
    seen = [
        each
        for each in _visible(known, known.account.tasks)
        if each.link is not None
        and each.sight.instance
        and each.link.key.dag_id == dag_id
        and run_id in (None, each.link.key.run_id)
    ]
    table = _table(known, seen, show, search, page, {"conn": known.account.conn_id})
    return DagPage(
        foreign_text(dag_id),
        foreign_text(run_id) if run_id else None,
        table,
        sum(task.credit or 0 for task, _, _ in seen),
    )


class Sums(NamedTuple):
    """How many runs there were, what they cost, and how many of them failed."""

    runs: int = 0
    credits: int = 0
    failed: int = 0

    def plus(self, other: Sums) -> Sums:
        """Return both together."""
        return Sums(self.runs + other.runs, self.credits + other.credits, self.failed + other.failed)


DaySums: TypeAlias = "Mapping[tuple[str | None, str | None], Sums]"
"""Sums of a day, by the workflow that was run and the DAG that has started it; None for what is not known."""


def sums_of(runs: Iterable[DayRun], dags: Mapping[str, str]) -> DaySums:
    """Return the sums of the runs of a day.

    :param dags: the DAG of each run that one has started.
    """
    sums: dict[tuple[str | None, str | None], Sums] = {}
    for run in runs:
        group = run.workflow_id, dags.get(run.browseract_task_id)
        sums[group] = sums.get(group, Sums()).plus(Sums(1, run.credit or 0, run.failed))
    return sums


def credits_page(known: Knowledge, days: Mapping[date, DaySums], by_dag: bool) -> CreditsPage:
    """Return the credits of the last :data:`DAYS_SHOWN` days.

    :param days: the sums of each day that was read.
    """
    last = known.now.astimezone(timezone.utc).date()
    shown = [last - timedelta(days=back) for back in range(DAYS_SHOWN - 1, -1, -1)]

    def name_of(workflow_id: str | None, dag_id: str | None) -> str:
        if not by_dag:
            return _workflow_name(known, workflow_id) or "no workflow given"
        if dag_id is None:
            return "not started by a DAG"
        return foreign_text(dag_id) if known.access.reads_runs(dag_id) else "DAGs that you may not read"

    sums: dict[str, CreditsRow] = {}
    parts: dict[date, Counter[str]] = {}
    for day in shown:
        parts[day] = Counter()
        for (workflow_id, dag_id), of_group in days.get(day, {}).items():
            name = name_of(workflow_id, dag_id)
            row = sums.get(name, CreditsRow(name, 0, 0, 0, 0, 0))
            sums[name] = row._replace(
                runs=row.runs + of_group.runs,
                credits=row.credits + of_group.credits,
                failed=row.failed + of_group.failed,
                unread=row.unread + (of_group.runs if dag_id is None else 0),
            )
            parts[day][name] += of_group.credits
    largest = sorted(sums.values(), key=lambda row: (-row.credits, row.name))
    rows = [row._replace(color=min(place, COLORS - 1)) for place, row in enumerate(largest)]
    names = [row.name for row in rows]
    others = names[COLORS - 1 :] if len(names) > COLORS else []
    groups = [name for name in names if name not in others]
    bars = []
    for day in shown:
        amounts = [parts[day][name] for name in groups]
        if others:
            amounts.append(sum(parts[day][name] for name in others))
        bars.append(Bar(day, tuple(amounts), day in days))
    budget = known.account.budget
    conn = {"conn": known.account.conn_id}
    return CreditsPage(
        by=(
            Choice("by workflow", urlencode({**conn, "by": "workflow"}), not by_dag),
            Choice("by DAG", urlencode({**conn, "by": "dag"}), by_dag),
        ),
        groups=(*groups, "all others") if others else tuple(groups),
        bars=tuple(bars),
        daily=budget.daily_credits if budget else None,
        today=BudgetShare(parts[last].total(), budget.daily_credits if budget else None),
        month=_this_month(days, last, budget.monthly_credits if budget else None),
        rows=tuple(rows),
        days_loaded=sum(day in days for day in shown),
    )


def _this_month(days: Mapping[date, DaySums], last: date, budget: int | None) -> BudgetShare | None:
    """Return the credits of this month; None as long as one of its days was not read."""
    month = [last.replace(day=number) for number in range(1, last.day + 1)]
    if not all(day in days for day in month):
        return None
    return BudgetShare(sum(each.credits for day in month for each in days[day].values()), budget)


def sources_page(
    known: Knowledge, sources: Iterable[Workflow | Template], is_template: bool, search: str, truncated: bool
) -> SourcesPage:
    """Return the list of workflows or templates."""
    conn = {"conn": known.account.conn_id}
    wanted = foreign_text(search).strip()
    rows = [
        SourceRow(
            each.id,
            foreign_text(each.name) or each.id,
            foreign_text(each.description),
            f"{'templates' if is_template else 'workflows'}/{quote(each.id, safe='')}?{urlencode(conn)}",
        )
        for each in sources
    ]
    return SourcesPage(
        kinds=(
            Choice("Workflows", urlencode({**conn, "kind": "workflow"}), not is_template),
            Choice("Official templates", urlencode({**conn, "kind": "template"}), is_template),
        ),
        is_templates=is_template,
        rows=tuple(row for row in rows if wanted.casefold() in f"{row.id} {row.name} {row.description}".casefold()),
        search=wanted,
        truncated=truncated,
    )


def source_page(known: Knowledge, source: Workflow | Template) -> SourcePage:
    """Return the page of a workflow or template, with a DAG file that runs it."""
    is_template = isinstance(source, Template)
    name = foreign_text(source.name) or source.id
    file = dag_file(
        source_id=source.id,
        is_template=is_template,
        name=name,
        inputs=source.input_parameters,
        conn_id=known.account.conn_id,
    )
    credits = [task.credit for task in known.account.tasks if task.workflow_id == source.id and task.credit]
    return SourcePage(
        is_template=is_template,
        id=source.id,
        name=name,
        description=foreign_text(source.description, 2000),
        inputs=tuple(
            InputView(foreign_text(each.name), each.default_enabled is False) for each in source.input_parameters
        ),
        file_name=file.file_name,
        dag_file=file.source,
        dag_id=file.dag_id,
        runs=len(credits),
        mean=sum(credits) / len(credits) if credits else None,
        detail_url=source.detail_url if isinstance(source, Template) else None,
    )
