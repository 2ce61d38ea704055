"""What the pages show, as plain values. The templates take these, and decide nothing else than how they look.

Texts that BrowserAct or a web page wrote are cut and cleaned by :func:`foreign_text` before they get here.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.dag_file import KINDS, Kind

COLORS = 8
"""Colors of the plot. The last one is for all other workflows or DAGs."""

MAX_TEXT = 200
"""Characters of a text from outside that a page shows."""


def foreign_text(text: str | None, length: int = MAX_TEXT) -> str:
    """Return a text from outside in one line of limited length, without characters that control how others are shown.

    Right-to-left marks would change the order of the text around it, and NUL is no character of HTML.
    """
    # Cut first: a name can have a megabyte.
    cut = (text or "")[: length + 1]
    shown = cut if cut.isprintable() else "".join(map(_shown, cut))
    return shown if len(shown) <= length else f"{shown[: length - 1]}\u2026"


def _shown(character: str) -> str:
    return " " if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") else character


class Notice(NamedTuple):
    """A line at the top of a page.

    :param kind: ``info``, ``warning`` or ``error``.
    :param remedy: what the viewer can do about it.
    """

    kind: str
    text: str
    remedy: str = ""


class InstanceView(NamedTuple):
    """A task instance, as a link to its page in Airflow.

    :param label: such as ``prices / search [17]``.
    :param path: path of the page in Airflow's UI, below ``[api] base_url`` and without a slash at the beginning.
    :param try_number: the try that started the run; None if that is not known.
    """

    label: str
    path: str
    try_number: int | None = None


@dataclass(frozen=True)
class Frame:
    """What every page shows around its content.

    :param root: path of ``[api] base_url`` with a slash at its end, below which Airflow's pages are.
    :param tab: which page this is: ``runs``, ``credits``, ``workflows``, or empty for a page without tabs.
    :param conn_id: the connection whose account is shown; None if there is none.
    :param connections: the connections that the viewer may choose from.
    :param as_of: when the shown data were read from BrowserAct; None if they were not read yet.
    :param reading: they are so old that they must not be taken for what is true now, and are being read again.
    :param refresh: seconds after which the script reads the page again; 0 if it does not change.
    :param sees_account: the viewer may read the connection, so the pages about the account are open.
    """

    root: str
    tab: str = ""
    title: str = "BrowserAct"
    conn_id: str | None = None
    connections: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    as_of: datetime | None = None
    reading: bool = False
    refresh: int = 0
    sees_account: bool = False

    @property
    def panel(self) -> str:
        """Path of the overview, below which the other pages are."""
        return f"{self.root}browseract/panel/"


@dataclass(frozen=True)
class Slots:
    """The slots of the plan.

    :param active: how many runs hold a slot.
    :param has_queue: whether a task instance waits for a slot.
    """

    active: int
    has_queue: bool = False


@dataclass(frozen=True)
class BudgetShare:
    """The credits of a day or month, against the budget.

    :param used: credits of the runs that were created in the period.
    :param budget: None if the connection has no budget for it.
    """

    used: int
    budget: int | None = None

    @property
    def percent(self) -> int:
        """How much of the budget is used, at most 100; 0 without a budget."""
        return min(100, 100 * self.used // self.budget) if self.budget else 0

    @property
    def exceeded(self) -> bool:
        """Whether more than the budget is used."""
        return self.budget is not None and self.used > self.budget


@dataclass(frozen=True)
class QueuePlace:
    """A place in the queue for slots.

    :param instance: None for a task instance of a DAG that the viewer may not read.
    :param waits: for how many seconds it has waited for a slot; None while it waits for the budget.
    :param refusals: how often BrowserAct has refused its start.
    :param for_budget: it waits for the next day or month of the budget, and not for a slot.
    """

    number: int
    instance: InstanceView | None
    priority: int
    waits: float | None
    refusals: int
    for_budget: bool = False


@dataclass(frozen=True)
class RunRow:
    """A run in a list.

    :param source: name or id of its workflow, or ``bot`` and its name.
    :param instance: the task instance that started it; None if it is not known, or of a DAG that the viewer may not
        read.
    :param instance_hidden: a task instance is known, but the viewer may not see which one.
    :param unread: the run is active and nobody waits for it.
    :param took: seconds from its start to its end; None while it is active.
    :param required_action: path of the page in Airflow on which a person answers; None if nobody is asked.
    :param stoppable: the viewer may stop it.
    """

    id: str
    status: TaskStatus
    source: str
    instance: InstanceView | None
    instance_hidden: bool
    unread: bool
    started: datetime | None
    took: float | None
    credits: int | None
    required_action: str | None = None
    stoppable: bool = False


@dataclass(frozen=True)
class Choice:
    """Something to choose in a list, as a link.

    :param query: the query string of the link, without the question mark.
    :param count: how many it has; None if that is not known.
    """

    label: str
    query: str
    chosen: bool = False
    count: int | None = None


@dataclass(frozen=True)
class RunTable:
    """A page of a list of runs.

    :param first: number of the first shown run, from 1; 0 if there is none.
    :param total: how many runs fit the filters.
    :param newer: query of the page before; None on the first one.
    :param filters: which runs are shown.
    """

    rows: tuple[RunRow, ...]
    first: int
    total: int
    newer: str | None
    older: str | None
    filters: tuple[Choice, ...] = ()
    search: str = ""

    @property
    def last(self) -> int:
        """Number of the last shown run."""
        return self.first + len(self.rows) - 1 if self.rows else 0


@dataclass(frozen=True)
class Overview:
    """The first page: slots, queue, paused runs, credits of today, and the runs of the last 24 hours.

    :param slots: None if the viewer may not read the connection, as ``today``.
    :param longest_wait: seconds that somebody has waited for a slot; None if nobody waits for one.
    """

    slots: Slots | None
    queue: tuple[QueuePlace, ...]
    queue_length: int
    longest_wait: float | None
    paused: int
    today: BudgetShare | None
    runs: RunTable


@dataclass(frozen=True)
class StepView:
    """A step of a run.

    :param picture: address of its screenshot, which is loaded from BrowserAct's store; None if there is none yet.
    :param failed: the step did not succeed.
    """

    number: int | None
    goal: str
    status: str
    picture: str | None
    failed: bool = False


@dataclass(frozen=True)
class RunPage:
    """A run.

    :param run: as in the list.
    :param log_url: address of its page in BrowserAct.
    :param live_url: address of the live view; None if the run has ended, or if the viewer may not use it.
    :param failure: what BrowserAct says about its failure.
    :param steps: None if the viewer may not see them.
    :param steps_left_out: how many further steps it has.
    :param wait: how the task instance waits for it, as a sentence; empty if it does not wait.
    :param others: other runs of the same task instance.
    :param unread: only the status could be read.
    """

    run: RunRow
    source_id: str | None
    profile_id: str | None
    ended: datetime | None
    log_url: str | None
    live_url: str | None
    failure: str
    steps: tuple[StepView, ...] | None
    steps_left_out: int
    wait: str
    others: tuple[RunRow, ...] = ()
    unread: bool = False

    @property
    def attention(self) -> StepView | None:
        """The last step that failed, if the run failed."""
        failed = [step for step in self.steps or () if step.failed]
        return failed[-1] if failed and self.run.status is TaskStatus.FAILED else None


@dataclass(frozen=True)
class InstancePage:
    """A task instance, with its runs or with its place in the queue.

    :param run: the page of its latest run; None if it has none yet.
    :param place: its place in the queue; None if it does not wait there.
    """

    instance: InstanceView
    run: RunPage | None
    place: QueuePlace | None


@dataclass(frozen=True)
class DagPage:
    """The runs of the task instances of a DAG, or of one DAG run.

    :param dag_run: id of the DAG run; None for all of the last 24 hours.
    """

    dag_id: str
    dag_run: str | None
    runs: RunTable
    credits: int


class Bar(NamedTuple):
    """A day in the plot.

    :param parts: credits by the names of :attr:`CreditsPage.groups`, from the bottom up.
    :param loaded: the day was read.
    """

    day: date
    parts: tuple[int, ...]
    loaded: bool = True

    @property
    def total(self) -> int:
        """The credits of the day."""
        return sum(self.parts)


class CreditsRow(NamedTuple):
    """The runs of a workflow or DAG within the days that are shown.

    :param color: number of its color in the plot, from 0; the last color is for all others.
    :param without_dag: how many runs were not started by a DAG, as far as is known.
    """

    name: str
    runs: int
    credits: int
    failed: int
    without_dag: int
    color: int

    @property
    def mean(self) -> float:
        """Credits of a run in the mean."""
        return self.credits / self.runs if self.runs else 0.0


@dataclass(frozen=True)
class CreditsPage:
    """The credits of the last days (UTC).

    :param groups: names of the parts of each bar, from the bottom up.
    :param month: None as long as one of the days of this month was not read.
    :param by: whether the groups are workflows or DAGs.
    """

    by: tuple[Choice, ...]
    groups: tuple[str, ...]
    bars: tuple[Bar, ...]
    today: BudgetShare
    month: BudgetShare | None
    rows: tuple[CreditsRow, ...]
    rows_left_out: int = 0

    @property
    def days_loaded(self) -> int:
        """How many of the days were read."""
        return sum(bar.loaded for bar in self.bars)

    @property
    def total(self) -> int:
        """The credits of all days."""
        return sum(bar.total for bar in self.bars)


@dataclass(frozen=True)
class SourceRow:
    """A workflow, bot or template in the list."""

    id: str
    name: str
    description: str


@dataclass(frozen=True)
class SourcesPage:
    """All sources of one kind.

    :param kinds: the kinds to choose from.
    :param truncated: there are more than are shown.
    """

    kinds: tuple[Choice, ...]
    kind: SourceKind
    rows: tuple[SourceRow, ...]
    search: str
    truncated: bool

    @property
    def words(self) -> Kind:
        """What the kind is called."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class InputView:
    """An input of a workflow, bot or template."""

    name: str
    required: bool


@dataclass(frozen=True)
class SourcePage:
    """A workflow, bot or template, with a DAG file that runs it.

    :param file_name: what to call the file.
    :param dag_file: Python source, complete.
    :param runs: how many runs the last 24 hours have; 0 for a template, because lists do not name it.
    :param mean: credits of the ended ones in the mean; None if none has credits.
    :param detail_url: address of the template's page in BrowserAct.
    """

    kind: SourceKind
    id: str
    name: str
    description: str
    inputs: tuple[InputView, ...]
    file_name: str
    dag_file: str
    dag_id: str
    runs: int = 0
    mean: float | None = None
    detail_url: str | None = None

    @property
    def words(self) -> Kind:
        """What the kind is called."""
        return KINDS[self.kind]

    @property
    def is_template(self) -> bool:
        """Whether it is an official template, whose runs lists do not name."""
        return self.kind in (SourceKind.TEMPLATE, SourceKind.BOT_TEMPLATE)
