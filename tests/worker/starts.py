"""A start as the tests of starts and of lost starts want it, and what it does with given responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any
from unittest import mock

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, Page, Task, TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.runs.request import RunRequest, Source
from airflow_provider_browseract.spending.cap import CapUsedUpError
from airflow_provider_browseract.worker import lost_start, start
from airflow_provider_browseract.worker.ledger import Entry
from airflow_provider_browseract.worker.own_run import OwnRun
from airflow_provider_browseract.worker.start import NotNowError, Start, Started
from tests.helpers.steps import replace

SOURCE = Source(SourceKind.WORKFLOW, "70")
KEY_DIGEST = "0123456789abcdef"
KEY = "app-key"

PATIENCE = 100.0
"""Seconds that sending a start can take at most."""

SETTINGS: Any = SimpleNamespace(api_key=KEY, key_digest=KEY_DIGEST, longest_call=PATIENCE)
TI = SimpleNamespace(dag_id="shop", run_id="manual__1", task_id="run", map_index=-1)
ENTRY = Entry(SOURCE, "f" * 64, KEY_DIGEST, "c", 1000.0, PATIENCE, 3, "7", "9", ("5", "6"))


def signed(entry: Entry, **changes: Any) -> Entry:
    """Return an entry with changes as the task instance of the tests stores it."""
    return replace(entry, **changes).signed(SETTINGS, TI)


PENS_LISTED = "keyword=pens"
"""How the API lists the inputs of the starts."""

KINDS = {"template": SourceKind.TEMPLATE, "bot": SourceKind.BOT, "bot template": SourceKind.BOT_TEMPLATE}
"""What is run instead of a workflow, by how the tests name it."""


def request(keyword: str = "pens", kind: str = "workflow", **other: Any) -> RunRequest:
    """A start of workflow, template or bot 70.

    :param kind: what is run, or what is special about it.
    """
    source = Source(KINDS[kind], "70") if kind in KINDS else SOURCE
    profile_id = "9" if kind == "with a profile" else None
    given = {"inputs": {"keyword": keyword}, "callback_url": f"https://x.example/{keyword}", **other}
    return RunRequest(source, profile_id=profile_id, **given)


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


SAME = signed(ENTRY, fingerprint=request().fingerprint(KEY))
"""What an earlier try, at second 1000, has written down of a run with the same inputs."""


@dataclass
class Played(OwnRun):
    """What a start does. Each call, each write and each sleep is an effect.

    :param respond: returns the response to a call, or the error.
    :param now: the time at which it begins.
    :param checked: what the checks before the start return; None for the given request.
    :param checks_take: seconds that they take.
    :param budgets: what each check of the budget raises; None if it allows the run.
    :param siblings: the runs of mapped siblings.
    :param before: called before each effect, with its name.
    """

    respond: Callable[[Call[Any]], object]
    now: float = 2000.0
    checked: RunRequest | None = None
    checks_take: float = 0.0
    budgets: tuple[Exception | None, ...] = ()
    siblings: tuple[str, ...] = ()
    before: Callable[[str], None] = lambda _: None
    over: Any = None
    """The result, or the error."""
    written: list[Entry | None] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    asked: list[Call[Any]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        client = SimpleNamespace(send=self._send)
        self.hook: Any = SimpleNamespace(settings=SETTINGS, client=client, browseract_conn_id="c")
        self.log: Any = SimpleNamespace(info=self._note, warning=self._warn)
        of = {**vars(TI), "map_index": 0} if self.siblings else vars(TI)
        ti = SimpleNamespace(**of, max_tries=3, xcom_pull=lambda **_: [*self.siblings, None])
        self.ledger: Any = SimpleNamespace(ti=ti, write=self._write, is_kept=True, is_of_another_try=lambda: False)
        self.ledger.own_xcom = lambda key: ti.xcom_pull(key=key)
        self.source = SOURCE

    def start(
        self, entry: Entry | None, wanted: RunRequest | None = None, max_tries: int = 3, cap: Any = None
    ) -> Played:
        """Begin a try with the entry of an earlier one, and keep its result or its error."""
        self.ledger.ti.max_tries = max_tries
        if entry is not None and entry.is_proven(SETTINGS, self.ledger.ti):
            self.follow(entry.task_id, entry.source.api_version)
        clock = SimpleNamespace(time=lambda: self.now, sleep=self.sleep)
        with (
            mock.patch.object(start, "time", clock),
            mock.patch.object(lost_start, "time", clock),
            mock.patch.object(start, "_check_budget", lambda run, cap, request: self._check_budget(request)),
        ):
            try:
                self.over = Start(self, wanted or request(), cap, self._check).begin(entry)
            except (BrowserActError, AirflowFailException, NotNowError, CapUsedUpError) as error:
                self.over = error
        return self

    @property
    def names(self) -> list[str]:
        return [call.name for call in self.asked]

    @property
    def started(self) -> Started:
        """The result, which must be a run."""
        assert isinstance(self.over, Started), self.over
        return self.over

    def _check(self, wanted: RunRequest) -> RunRequest:
        self.now += self.checks_take
        return self.checked or wanted

    def _check_budget(self, _: RunRequest) -> None:
        refused, self.budgets = (self.budgets or (None,))[0], self.budgets[1:]
        if refused is not None:
            raise refused

    def _send(self, call: Call[Any], before: Callable[[], object] = lambda: None) -> Any:
        before()
        self.before("start" if call.starts_run else call.name)
        self.asked.append(call)
        assert len(self.asked) < 1000
        response = self.respond(call)
        if isinstance(response, Exception):
            raise response
        return response

    def _write(self, entry: Entry | None) -> None:
        self.before("write")
        self.written.append(entry)

    def sleep(self, seconds: float) -> None:
        self.before("sleep")
        if seconds > 0:
            self.slept.append(seconds)
        self.now += max(0.0, seconds)

    def _note(self, text: str, *args: object) -> None:
        self.lines.append(text % args)

    def _warn(self, text: str, *args: object, **_: object) -> None:
        self.lines.append(text % args)
        self.warnings.append(text % args)
