"""Starting and reattaching, and any interleaving of deaths, lost responses and clock steps."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.bots import Bot
from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    BrowserActError,
    ConcurrencyLimitError,
    ConnectionFailedError,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    ResponseLostError,
    RunStartUnknownError,
    ServerError,
    TaskEndedError,
    TaskNotFoundError,
    UnknownRefusalError,
)
from airflow_provider_browseract.api.exchange import Call, Response
from airflow_provider_browseract.api.models import ApiVersion, CreatedTask, Page, Step, Task, TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.api.workflows import InputParameter, Workflow
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.cap import CapUsedUpError
from airflow_provider_browseract.runs.ledger import Entry, LedgerError, UnknownRunError
from airflow_provider_browseract.runs.orphans import Claim, OnOrphan, OrphanError, ReadClaims
from airflow_provider_browseract.runs.report import WHY_UNKNOWN
from airflow_provider_browseract.runs.request import RunRequest, Source, digest
from airflow_provider_browseract.runs.starting import (
    BeforeStart,
    Start,
    Started,
    StartedRun,
    StartRefused,
    Write,
    begin,
)
from airflow_provider_browseract.runs.steps import LogLine, Sleep
from tests.cases import examples
from tests.runs.starts import KEY_DIGEST, KINDS, PATIENCE, PENS_LISTED, SAME, SOURCE, bot_run, request, start
from tests.steps import carry_out


@dataclass
class Service:
    """A BrowserAct that keeps every run that it ever created, and those of other users.

    :param lag: seconds until a new run is in the list.
    :param cleared: whether a person has cleared the task since the last run was created.
    :param last: what was run last, with which inputs and profile.
    """

    now: float = 10_000.0
    lag: float = 0.0
    cleared: bool = False
    last: Any = None
    others: list[Task] = field(default_factory=list)
    runs: dict[str, Task] = field(default_factory=dict)

    def start(self, call: Call[CreatedTask]) -> CreatedTask:
        """Make a run."""
        assert call.body is not None
        made = str(100 + len(self.runs))
        created = datetime.fromtimestamp(int(self.now), timezone.utc)
        if "input" in call.body:
            bot_id = "70" if call.name == "create-run" else None
            told = {"bot_id": bot_id, "input": call.body["input"], "api_version": ApiVersion.V3}
        else:
            inputs = "; ".join(f"{pair['name']}={pair['value']}" for pair in call.body["input_parameters"])
            told = {"workflow_id": "70", "input_parameters": inputs}
        run = Task(made, TaskStatus.RUNNING, created_at=created, **told)
        wanted = call.path, {name: given for name, given in call.body.items() if "callback" not in name}
        if self.runs:
            last = list(self.runs.values())[-1]
            came_to_nothing = last.status in (TaskStatus.FAILED, TaskStatus.CANCELED)
            # Such a run may end while it is being stopped.
            not_wanted = last.status.ended and (self.cleared or wanted != self.last)
            assert came_to_nothing or not_wanted, f"a start that nothing explains, after {last}"
        self.cleared, self.last = False, wanted
        self.runs[made] = run
        return CreatedTask(made)

    def answer(self, call: Call[Any]) -> Any:
        """Carry out any other call."""
        version = ApiVersion.V3 if call.path.startswith("/v3/") else ApiVersion.V2
        known = {task.id: task for task in (*self.others, *self.runs.values()) if task.api_version is version}
        if call.name in ("list-tasks", "page-runs"):
            since, until = (
                datetime.fromisoformat(str(call.params[name]).replace("Z", "+00:00"))
                for name in ("created_at_from", "created_at_to")
            )
            listed = datetime.fromtimestamp(self.now - self.lag, timezone.utc)
            found = [task for task in known.values() if since <= (task.created_at or since) <= min(until, listed)]
            return Page(tuple(found), total_count=len(found))
        if call.name == "get-workflow":
            return Workflow("70", input_parameters=(InputParameter("keyword", False),))
        if call.name == "query-bot":
            return Bot("70")
        task = known[str(call.params.get("task_id") or call.path.split("/")[4])]
        if call.name in ("stop-task", "cancel-run"):
            if task.status.ended:
                raise TaskEndedError("x", code=10121)
            self.runs[task.id] = replace(task, status=TaskStatus.CANCELED)
            return None
        return task

    @property
    def going(self) -> list[Task]:
        """The runs that cost money now."""
        return [task for task in self.runs.values() if not task.status.ended]


class TriesOfATask(RuleBasedStateMachine):
    """One Airflow task instance, whose tries die at any step, and whose starts meet any fate."""

    @initialize(
        lag=st.sampled_from([0.0, timings.LISTING_DELAY - 1.0]),
        others=st.booleans(),
        kind=st.sampled_from(["deferred", "in the worker", "with a profile", *KINDS]),
    )
    def begin_with_nothing(self, lag: float, others: bool, kind: str) -> None:
        self.service = Service(lag=lag)
        self.kind = kind
        if others:
            # Runs that somebody else's tasks wait for, or that were going before anything was started here.
            self.service.others = [
                Task("1", TaskStatus.RUNNING, "70", input_parameters=PENS_LISTED),
                Task("2", TaskStatus.RUNNING, "70", self._at(-30.0), input_parameters="keyword=ink; more=yes"),
                Task("3", TaskStatus.RUNNING, "71", self._at(5.0), input_parameters=PENS_LISTED),
                bot_run("4", None),
                bot_run("5", self._at(-30.0), input={"keyword": "ink", "more": True}),
                bot_run("6", self._at(5.0), bot_id="71"),
            ]
        self.stored: str | None = None
        self.steps: Any = None
        self.reply: Any = None
        self.error: BrowserActError | None = None
        self.keyword = "pens"
        self.max_tries = 3
        self.pending: Any = None
        self.decided_at = self.service.now
        self.followed: str | None = None

    def _at(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self.service.now + seconds, timezone.utc)

    def _advance(self) -> Any:
        """Let the try continue with its next step."""
        try:
            if self.error is not None:
                error, self.error = self.error, None
                step = self.steps.throw(error)
            else:
                step = self.steps.send(self.reply)
        except StopIteration as stop:
            self.steps = None
            self._take_outcome(stop.value)
            return None
        except (BrowserActError, OrphanError):
            # The try fails; another may come. There is never more than one run that may be the one.
            self.steps = None
            return None
        self.reply = None
        if isinstance(step, Write):
            self.decided_at = self.service.now
        return step

    def _take_outcome(self, outcome: object) -> None:
        """Check the outcome of the start, and the stored entry."""
        assert isinstance(outcome, StartedRun | StartRefused)
        if isinstance(outcome, StartedRun):
            self.followed = outcome.task_id
            entry = Entry.read(json.loads(self.stored or "null"))
            assert entry.task_id == self.followed
            assert self.followed in self.service.runs
            assert entry.source.kind is KINDS.get(self.kind, SourceKind.WORKFLOW)
            assert (entry.max_tries, entry.deferred) == (self.max_tries, self.kind != "in the worker")

    @precondition(lambda self: self.steps is None)
    @rule()
    def a_try_begins(self) -> None:
        self.followed = None
        entry = None if self.stored is None else Entry.read(json.loads(self.stored))
        self.reply = None
        self.steps = begin(start(self.keyword, self.max_tries, self.kind), entry, lambda: self.service.now)
        self.pending = self._advance()

    @precondition(lambda self: self.steps is not None)
    @rule(
        steps=st.integers(1, 8),
        fate=st.sampled_from(["well", "well", "well", "lost", "never arrived", "broken", "no slot"]),
    )
    def the_try_goes_on(self, steps: int, fate: str) -> None:
        """Let all steps except the last one succeed."""
        for step in range(1, steps + 1):
            if self.steps is not None:
                self._take_step(fate if step == steps else "well")

    @precondition(lambda self: self.steps is not None)
    @rule(fate=st.sampled_from(["lost", "never arrived", "broken"]), steps=st.integers(0, 30))
    def the_start_meets_its_fate(self, fate: str, steps: int) -> None:
        """Let all steps before the start and some steps after it succeed, but not the start itself."""
        for _ in range(60):
            if self.steps is None:
                return
            if isinstance(self.pending, Call) and self.pending.starts_run:
                self._take_step(fate)
                break
            self._take_step("well")
        for _ in range(steps):
            if self.steps is not None:
                self._take_step("well")

    def _take_step(self, fate: str) -> None:
        step = self.pending
        if isinstance(step, Sleep):
            self.service.now += step.seconds
        elif isinstance(step, Write):
            self.stored = None if step.entry is None else json.dumps(step.entry.value())
        elif isinstance(step, ReadClaims):
            self.reply = {"1": -1}
        elif isinstance(step, Claim):
            self.reply = -1
        elif isinstance(step, Call):
            self._carry_out(step, fate)
        elif isinstance(step, BeforeStart):
            # The checks before the start may take any time: nothing is written down yet.
            self.reply = step.request
        else:
            assert isinstance(step, LogLine)
        self.pending = self._advance()

    def _carry_out(self, call: Call[Any], fate: str) -> None:
        if fate == "never arrived":
            self.error = ConnectionFailedError("x")
        elif fate == "broken":
            self.error = ServerError("x")
        elif fate == "no slot" and call.starts_run:
            self.error = ConcurrencyLimitError("x")
        elif fate == "lost":
            self._do(call)
            self.error = ResponseLostError("x")
        else:
            try:
                self.reply = self._do(call)
            except BrowserActError as error:
                self.error = error

    def _do(self, call: Call[Any]) -> Any:
        return self.service.start(call) if call.starts_run else self.service.answer(call)

    @precondition(lambda self: self.steps is not None)
    @rule()
    def the_worker_dies(self) -> None:
        self.steps.close()
        self.steps = None

    @rule(seconds=st.sampled_from([1.0, 30.0, 300.0, 7200.0]))
    def time_passes(self, seconds: float) -> None:
        step = self.pending
        if self.steps is not None and (isinstance(step, Write) or (isinstance(step, Call) and step.starts_run)):
            # Between storing the entry and its start, a try is delayed by at most its patience:
            # a later try looks for the start only among the runs of that time.
            seconds = max(0.0, min(seconds, self.decided_at + PATIENCE - self.service.now))
        self.service.now += seconds

    @rule(status=st.sampled_from([TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELED, TaskStatus.PAUSED]))
    def a_run_changes(self, status: TaskStatus) -> None:
        for task in self.service.going[:1]:
            self.service.runs[task.id] = replace(task, status=status)

    @precondition(lambda self: self.steps is None and (self.stored is None or json.loads(self.stored)["task_id"]))
    @rule()
    def the_inputs_change(self) -> None:
        # Not where the run of the old inputs is not known: then a person has to decide.
        self.keyword = "ink" if self.keyword == "pens" else "pens"

    @precondition(lambda self: self.steps is None and (self.stored is None or json.loads(self.stored)["task_id"]))
    @rule(kind=st.sampled_from(["deferred", "bot"]))
    def the_operator_changes(self, kind: str) -> None:
        self.kind = kind

    @precondition(lambda self: self.steps is None)
    @rule()
    def a_person_clears_the_task(self) -> None:
        self.max_tries += 1
        self.service.cleared = True

    @invariant()
    def at_most_one_run_goes_on(self) -> None:
        assert len(getattr(self, "service", Service()).going) <= 1, self.service.runs


TestAnyInterleaving = TriesOfATask.TestCase
TestAnyInterleaving.settings = settings(
    max_examples=examples(300), stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@dataclass
class Played:
    """What :func:`begin` did with the given responses, in order."""

    over: Started | Exception | None = None
    written: list[Write] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    asked: list[Call[Any]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The endpoints that were called."""
        return [call.name for call in self.asked]


def play(
    entry: Entry | None,
    *answers: object,
    now: float = 2000.0,
    on_orphan: OnOrphan = OnOrphan.FAIL,
    wants: Start | None = None,
    checked: RunRequest | None = None,
) -> Played:
    """Begin a run with an entry of an earlier try, and return the next response to each call.

    :param checked: what the checks before the start return; None for the given request.
    """
    left, played = list(answers), Played()
    clock = [now]

    def answer(step: object) -> object:
        if isinstance(step, Write):
            played.written.append(step)
        elif isinstance(step, LogLine):
            played.logged.append(step.text)
        elif isinstance(step, Sleep):
            played.slept.append(step.seconds)
            clock[0] += step.seconds
        elif isinstance(step, ReadClaims):
            return {}
        elif isinstance(step, Claim):
            return -1
        elif isinstance(step, BeforeStart):
            return checked or step.request
        elif isinstance(step, Call):
            played.asked.append(step)
            return left.pop(0)
        return None

    wanted = replace(wants or start(), on_orphan=on_orphan)
    steps = begin(wanted, entry, lambda: clock[0])
    try:
        played.over = carry_out(steps, answer)
    except (BrowserActError, LedgerError, UnknownRunError, OrphanError, CapUsedUpError) as error:
        played.over = error
    assert not left
    return played


RUN = Task("7", TaskStatus.RUNNING, "70", datetime.fromtimestamp(1000.0, timezone.utc), input_parameters=PENS_LISTED)
BOT = Source(SourceKind.BOT, "70")
NOT_WANTED = "an earlier try had other inputs or another profile"
MADE = CreatedTask("9", "profile of 9")
NEW = Entry(SOURCE, SAME.fingerprint, 2000.0, 5600.0, None, None, None, ("5", "6", "7"), 3, KEY_DIGEST)
"""What is written down before another run is started at second 2000."""


AT_2000 = datetime.fromtimestamp(2000.0, timezone.utc)


def page_of(*tasks: Task) -> Page[Task]:
    return Page(tasks, total_count=len(tasks))


class TestTheRunOfAnEarlierTry:
    @pytest.mark.parametrize("status", [TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.FINISHED, TaskStatus.UNKNOWN])
    def test_active_run_of_an_earlier_try_is_reattached_without_a_write_or_a_log_line(self, status):
        run = replace(RUN, status=status)
        played = play(SAME, run)
        assert played.over == StartedRun(SAME, run)
        assert (played.written, played.logged, played.names) == ([], [], ["get-task"])
        assert played.asked[0].params == {"task_id": "7"}

    def test_deadline_of_a_reattached_run_follows_a_changed_timeout(self):
        played = play(replace(SAME, deadline=9.0), RUN)
        assert played.over == StartedRun(SAME, RUN)
        assert played.written == [Write(SAME)]

    @pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.CANCELED])
    def test_failed_or_canceled_run_of_an_earlier_try_is_replaced_by_a_new_run(self, status):
        played = play(SAME, replace(RUN, status=status), MADE)
        made = replace(NEW, task_id="9", profile_id="profile of 9")
        assert played.over == StartedRun(made)
        assert played.written == [Write(NEW), Write(made)]
        assert played.logged == [f"BrowserAct task 7 of an earlier try has ended as {status}. Starting a new run."]
        assert played.names == ["get-task", "run-task"]

    @pytest.mark.parametrize(
        ("entry", "why"),
        [
            (replace(SAME, fingerprint="f" * 64), NOT_WANTED),
            (replace(SAME, max_tries=2), "the Airflow task was cleared while it waited"),
        ],
        ids=["other inputs", "cleared"],
    )
    @pytest.mark.parametrize("ended_meanwhile", [False, True], ids=["", "already ended"])
    def test_run_with_other_inputs_or_of_a_cleared_task_is_stopped_before_a_new_start(
        self, entry, why, ended_meanwhile
    ):
        stopped = TaskEndedError("x", code=10121) if ended_meanwhile else None
        played = play(entry, RUN, stopped, MADE)
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.earlier == ("5", "6", "7")
        assert played.logged == [f"BrowserAct task 7 was stopped, because {why}. Starting a new run."]
        assert played.names == ["get-task", "stop-task", "run-task"]

    @pytest.mark.parametrize("digest", ["f" * 16, None], ids=["another API key", "written by version 1"])
    @pytest.mark.parametrize("status", [TaskStatus.RUNNING, TaskStatus.FINISHED])
    def test_run_is_reattached_if_its_inputs_cannot_be_compared(self, digest, status):
        entry = replace(SAME, fingerprint=digest and "e" * 64, key_digest=digest)
        run = replace(RUN, status=status)
        played = play(entry, run)
        assert played.over == StartedRun(entry, run)
        assert played.names == ["get-task"]
        [line] = played.logged
        assert line.startswith("The inputs cannot be compared with those of the earlier try")

    def test_run_of_another_workflow_gives_way_although_the_api_key_has_changed(self):
        wants = start(kind="template")
        played = play(replace(SAME, key_digest="f" * 16), RUN, None, MADE, wants=wants)
        why = "it is a run of workflow 70"
        assert played.logged == [f"BrowserAct task 7 was stopped, because {why}. Starting a new run."]

    def test_ended_run_with_other_inputs_is_not_stopped(self):
        played = play(replace(SAME, fingerprint="f" * 64), replace(RUN, status=TaskStatus.FINISHED), MADE)
        assert played.logged == [f"BrowserAct task 7 has ended as finished, but {NOT_WANTED}. Starting a new run."]
        assert played.names == ["get-task", "run-task"]

    def test_finished_run_is_reattached_although_the_task_instance_was_cleared(self):
        run = replace(RUN, status=TaskStatus.FINISHED)
        assert play(replace(SAME, max_tries=2), run).over == StartedRun(SAME, run)

    def test_task_instance_that_waited_in_a_worker_reattaches_after_a_clear(self):
        entry = replace(SAME, max_tries=2, deferred=False)
        wants = start(kind="in the worker")
        assert play(entry, RUN, wants=wants).over == StartedRun(replace(entry, max_tries=3), RUN)

    def test_retry_starts_nothing_if_browseract_does_not_know_the_run(self):
        played = play(SAME, TaskNotFoundError("gone", code=10112))
        assert isinstance(played.over, UnknownRunError)
        assert str(played.over) == (
            "BrowserAct does not know task 7 of an earlier try with this API key: gone (code 10112). Nothing was "
            f"started.\n{WHY_UNKNOWN} Make sure that no run is active. Then clear the task instance, which starts a "
            "new run."
        )
        assert played.names == ["get-task"]

    @pytest.mark.parametrize("kind", ["deferred", "in the worker", "bot"])
    def test_cleared_task_instance_starts_a_new_run_if_browseract_does_not_know_the_earlier_one(self, kind):
        wants = start(kind=kind)
        entry = replace(SAME, source=wants.request.source, fingerprint=wants.fingerprint, max_tries=2)
        played = play(entry, TaskNotFoundError("gone", code=10112), MADE, wants=wants)
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.task_id == MADE.id
        assert played.logged == [
            "BrowserAct does not know task 7 of an earlier try with this API key: gone (code 10112). "
            f"{WHY_UNKNOWN} If it is active in another account, it keeps using credits. Starting a new run, because "
            "the Airflow task was cleared."
        ]

    @pytest.mark.parametrize(
        "error",
        [
            ServerError("down", http_status=503),
            NotFoundError("no route", http_status=404),
            AuthenticationError("no", code=401),
        ],
        ids=["down", "404 of a gateway", "key refused"],
    )
    def test_cleared_task_instance_starts_nothing_if_the_earlier_run_cannot_be_read(self, error):
        assert play(replace(SAME, max_tries=2), error).over is error

    @pytest.mark.parametrize("on_orphan", [OnOrphan.START, OnOrphan.ADOPT])
    def test_run_that_browseract_does_not_know_is_replaced_with_on_orphan_start_or_adopt(self, on_orphan):
        played = play(SAME, TaskNotFoundError("gone", code=10112), MADE, on_orphan=on_orphan)
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.earlier == ("5", "6", "7")
        assert f"Starting a new run, because on_orphan='{on_orphan}'." in played.logged[0]

    def test_run_of_another_workflow_fails_the_try(self):
        played = play(SAME, replace(RUN, workflow_id="71"))
        assert isinstance(played.over, LedgerError)
        assert str(played.over) == (
            "it names BrowserAct task 7 as a run of workflow 70, but for BrowserAct it is a run of workflow 71"
        )

    def test_run_of_another_bot_fails_the_try(self):
        played = play(replace(SAME, source=BOT), bot_run("7", bot_id="71"), wants=start(kind="bot"))
        assert isinstance(played.over, LedgerError)
        what = "it names BrowserAct task 7 as a run of bot 70"
        assert str(played.over) == f"{what}, but for BrowserAct it is a run of bot 71"

    @pytest.mark.parametrize("bot_id", ["70", None])
    def test_active_run_of_a_bot_is_reattached(self, bot_id):
        wants, run = start(kind="bot"), bot_run("7", bot_id=bot_id)
        entry = replace(SAME, source=BOT, fingerprint=wants.fingerprint)
        assert play(entry, run, wants=wants).over == StartedRun(entry, run)

    @pytest.mark.parametrize(
        ("earlier", "now", "names"),
        [
            (start(), start(kind="bot"), ["get-task", "stop-task", "create-run"]),
            (start(kind="bot"), start(), ["query-run", "cancel-run", "run-task"]),
        ],
        ids=["workflow", "bot"],
    )
    def test_run_of_an_earlier_operator_is_read_and_stopped_in_its_version_of_the_api(self, earlier, now, names):
        source = earlier.request.source
        entry = replace(SAME, source=source, fingerprint=earlier.fingerprint)
        run = bot_run("7") if source == BOT else RUN
        played = play(entry, run, None, MADE, wants=now)
        assert isinstance(played.over, StartedRun)
        assert (played.over.entry.source, played.names) == (now.request.source, names)
        assert played.logged == [f"BrowserAct task 7 was stopped, because it is a run of {source}. Starting a new run."]

    @pytest.mark.parametrize("kind", ["deferred", "bot"])
    def test_lost_start_of_an_earlier_operator_is_looked_up_in_its_version_of_the_api(self, kind):
        earlier, now = start(kind=kind), start(kind="bot" if kind == "deferred" else "deferred")
        entry = replace(SAME, source=earlier.request.source, fingerprint=earlier.fingerprint, task_id=None)
        run = bot_run("7") if kind == "bot" else RUN
        played = play(entry, page_of(run), run, wants=now)
        # A person has to decide whether this is the run.
        assert isinstance(played.over, OrphanError)
        assert played.names == (["page-runs", "query-run"] if kind == "bot" else ["list-tasks", "get-task"])

    def test_run_of_a_template_may_belong_to_any_workflow(self):
        wants = start(kind="template")
        entry = replace(SAME, fingerprint=wants.fingerprint, source=wants.request.source)
        run = replace(RUN, workflow_id="71")
        assert play(entry, run, wants=wants).over == StartedRun(entry, run)


CAP = replace(start(), max_credits=100)
FAILED_RUN = replace(RUN, status=TaskStatus.FAILED, credit=40)
BEFORE = replace(SAME, spent=25)
"""The entry of an earlier try, after yet another one has used 25 credits."""


class TestCreditsOfEarlierTries:
    @pytest.mark.parametrize(
        ("entry", "answers", "spent"),
        [
            (BEFORE, [FAILED_RUN], 65),
            (BEFORE, [replace(FAILED_RUN, status=TaskStatus.CANCELED)], 65),
            (replace(BEFORE, fingerprint="f" * 64), [replace(RUN, credit=40), None], 65),
            (replace(BEFORE, fingerprint="f" * 64), [replace(FAILED_RUN, status=TaskStatus.FINISHED)], 65),
            (BEFORE, [replace(FAILED_RUN, credit=None, steps=(Step(1, None, None, None, None),) * 9)], 70),
            (BEFORE, [TaskNotFoundError("gone", code=10112)], 25),
            (replace(BEFORE, task_id=None), [page_of()], 25),
            (replace(BEFORE, task_id=None), [page_of(RUN), FAILED_RUN], 65),
            (replace(BEFORE, max_tries=2), [FAILED_RUN], 0),
            (replace(BEFORE, max_tries=2), [replace(RUN, credit=40), None], 0),
            (replace(BEFORE, task_id=None, max_tries=2), [page_of()], 0),
            (replace(BEFORE, max_tries=None, spent=0), [FAILED_RUN], 0),
        ],
        ids=[
            "failed",
            "canceled",
            "stopped because of other inputs",
            "finished with other inputs",
            "steps instead of credits",
            "no longer exists",
            "was never started",
            "found by its inputs",
            "failed before a clear",
            "stopped because of a clear",
            "was never started before a clear",
            "entry of an older version",
        ],
    )
    def test_new_run_gets_the_credits_that_were_used_since_the_last_clear(self, entry, answers, spent):
        played = play(entry, *answers, MADE, wants=CAP, on_orphan=OnOrphan.START)
        assert isinstance(played.over, StartedRun)
        assert (played.over.task_id, played.over.entry.spent) == ("9", spent)
        assert played.written[-2] == Write(replace(played.over.entry, task_id=None, profile_id=None))

    @pytest.mark.parametrize(("max_tries", "spent"), [(3, 25), (2, 0)], ids=["retry", "clear"])
    @pytest.mark.parametrize("run", [RUN, replace(RUN, status=TaskStatus.FINISHED)], ids=["running", "finished"])
    def test_reattached_run_keeps_the_credits_before_it_until_a_clear(self, run, max_tries, spent):
        entry = replace(BEFORE, max_tries=max_tries, deferred=False)
        played = play(entry, run, wants=replace(CAP, deferred=False))
        assert isinstance(played.over, StartedRun)
        assert (played.over.entry.spent, played.over.entry.max_tries) == (spent, 3)

    @pytest.mark.parametrize(("credit", "allowed"), [(74, True), (75, False), (200, False)])
    def test_cap_that_earlier_runs_have_used_up_prevents_a_start(self, credit, allowed):
        answers = [replace(FAILED_RUN, credit=credit), *([MADE] if allowed else [])]
        played = play(BEFORE, *answers, wants=CAP)
        assert isinstance(played.over, StartedRun if allowed else CapUsedUpError)
        assert ("run-task" in played.names) == allowed
        assert bool(played.written) == allowed

    def test_cap_that_was_used_up_before_a_clear_allows_a_start(self):
        entry = replace(BEFORE, max_tries=2)
        assert isinstance(play(entry, replace(FAILED_RUN, credit=200), MADE, wants=CAP).over, StartedRun)

    def test_reattaching_is_possible_although_the_cap_is_used_up(self):
        played = play(replace(SAME, spent=200), RUN, wants=CAP)
        assert isinstance(played.over, StartedRun)

    def test_credits_of_earlier_tries_count_also_without_a_cap(self):
        # Someone may set one before the next try.
        played = play(BEFORE, FAILED_RUN, MADE)
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.spent == 65

    def test_refused_start_does_not_count_an_earlier_run_twice(self):
        full = ConcurrencyLimitError("full", code=10118)
        refused = play(BEFORE, FAILED_RUN, full, wants=CAP)
        assert refused.over == StartRefused(full)
        played = play(refused.written[-1].entry, FAILED_RUN, MADE, wants=CAP)
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.spent == 65


class TestAnUnansweredStartOfAnEarlierTry:
    ENTRY = replace(SAME, task_id=None, deadline=4600.0)

    def test_orphan_of_an_earlier_try_is_found_written_down_and_reattached(self):
        played = play(self.ENTRY, page_of(RUN), RUN)
        assert played.over == StartedRun(replace(self.ENTRY, task_id="7"), RUN)
        assert played.written == [Write(replace(self.ENTRY, task_id="7"))]
        assert played.logged == [
            "An earlier try was about to start a run and did not store the result. Looking for the run."
        ]
        listing = played.asked[0]
        window = v2.list_tasks(
            workflow_id="70",
            created_at_from=datetime.fromtimestamp(1000.0 - timings.CLOCK_SKEW, timezone.utc),
            created_at_to=datetime.fromtimestamp(1100.0 + timings.CLOCK_SKEW, timezone.utc),
        )
        assert listing.params == window.params

    @pytest.mark.parametrize(("shown", "kept"), [("of the list", "of the list"), (None, "9")])
    def test_profile_of_an_orphan_comes_from_the_list_if_the_list_has_one(self, shown, kept):
        played = play(self.ENTRY, page_of(replace(RUN, profile_id=shown)), RUN)
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.profile_id == kept

    def test_orphan_is_found_by_its_inputs_although_the_api_key_has_changed(self):
        entry = replace(self.ENTRY, fingerprint="e" * 64, key_digest="f" * 16)
        played = play(entry, page_of(replace(RUN, id="6", input_parameters="keyword=ink"), RUN), RUN)
        assert played.over == StartedRun(replace(entry, task_id="7"), RUN)
        assert played.logged[0].startswith("The inputs cannot be compared")

    def test_list_is_read_until_the_start_must_be_in_it(self):
        pages = [page_of()] * 3
        played = play(self.ENTRY, *pages, MADE, now=1100.0 + timings.LISTING_DELAY - timings.ORPHAN_LIST_PAUSE - 3.0)
        assert played.slept == [timings.ORPHAN_LIST_PAUSE, 3.0]
        assert played.logged[1:] == ["No matching run was found."]
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.earlier == ("5", "6")

    def test_list_is_read_once_if_the_start_must_be_in_it_already(self):
        assert play(self.ENTRY, page_of(), MADE, now=1100.0 + timings.LISTING_DELAY).slept == []

    @pytest.mark.parametrize("on_orphan", [OnOrphan.FAIL, OnOrphan.ADOPT])
    def test_any_run_may_be_the_one_if_the_inputs_are_not_known_any_more(self, on_orphan):
        entry = replace(self.ENTRY, fingerprint="f" * 64)
        run = replace(RUN, input_parameters="keyword=ink")
        played = play(entry, page_of(run), run, on_orphan=on_orphan)
        assert isinstance(played.over, OrphanError)

    def test_another_run_is_started_beside_those_that_may_be_the_one_if_so_wanted(self):
        entry = replace(self.ENTRY, fingerprint="f" * 64)
        played = play(entry, page_of(RUN), RUN, MADE, on_orphan=OnOrphan.START)
        assert isinstance(played.over, StartedRun)
        assert played.over.task_id == "9"

    def test_one_item_of_the_list_that_cannot_be_read_is_skipped(self):
        listing = play(self.ENTRY, page_of(), MADE).asked[0]
        items = [{"id": "5", "status": "a new word"}, {"status": "running"}]
        page = listing.read({"items": items, "total_count": 2})
        assert [task.id for task in page.items] == ["5"]
        assert len(page.skipped) == 1


class TestAStart:
    def test_entry_is_written_before_and_after_the_start(self):
        wants = start(callback_token="secret")
        played = play(None, MADE, wants=wants)
        before = replace(NEW, callback_token_sha256=digest("secret"), earlier=())
        after = replace(before, task_id="9", profile_id="profile of 9")
        assert played.over == StartedRun(after)
        assert played.written == [Write(before), Write(after)]
        assert play(None, MADE, wants=start(kind="in the worker")).written[0] == Write(
            replace(before, callback_token_sha256=None, deferred=False)
        )

    @pytest.mark.parametrize("entry", [None, SAME], ids=["no entry", "entry of a failed run"])
    @pytest.mark.parametrize(
        "error", [ConcurrencyLimitError("full", code=10118), RateLimitError("slow down", http_status=429)]
    )
    def test_start_without_a_slot_restores_the_entry_before(self, entry, error):
        earlier = [] if entry is None else [replace(RUN, status=TaskStatus.FAILED)]
        played = play(entry, *earlier, error)
        assert played.over == StartRefused(error)
        assert played.written[1:] == [Write(entry, over=True)]

    def test_refused_start_leaves_the_entry_before(self):
        refused = InvalidRequestError("no", code=99001)
        played = play(SAME, replace(RUN, status=TaskStatus.FAILED), refused)
        assert played.over is refused
        assert played.written[1:] == [Write(SAME, over=True)]

    def test_start_with_lost_response_is_looked_up_and_sent_at_most_three_times(self):
        looks = [page_of()] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE))
        lost = ResponseLostError("lost")
        played = play(None, lost, *looks, lost, *looks, lost, *looks)
        assert played.over is lost
        assert played.names.count("run-task") == 3
        assert [text for text in played.logged if "(start" in text] == [
            f"No run was started (start {number} of 3)." for number in (1, 2, 3)
        ]
        assert played.slept == [timings.ORPHAN_LIST_PAUSE] * 12
        assert [write.starts for write in played.written] == [True, False] * 3
        assert played.written[-1] == Write(None, over=True)

    def test_start_that_surely_made_no_run_leaves_the_entry_before(self):
        looks = [page_of()] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE))
        lost = ResponseLostError("lost")
        played = play(SAME, replace(RUN, status=TaskStatus.FAILED), *[lost, *looks] * 3)
        assert played.written[-1] == Write(SAME, over=True)

    def test_workflow_is_read_to_tell_which_inputs_have_defaults(self):
        run = replace(RUN, id="8", created_at=AT_2000, input_parameters="keyword=pens; max_items=10")
        looks: list[object] = [page_of(run)] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE))
        played = play(None, ResponseLostError("lost"), *looks, ServerError("down"), run)
        assert isinstance(played.over, OrphanError)
        assert (played.asked[-2].name, played.asked[-2].params) == ("get-workflow", {"workflow_id": "70"})
        assert played.logged[-1] == "The inputs of workflow 70 cannot be read: down"

    def test_run_of_a_lost_response_is_adopted_with_its_profile(self):
        run = replace(RUN, id="8", profile_id="profile of 8", created_at=AT_2000)
        looks = [page_of(run)] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE))
        played = play(None, ResponseLostError("lost"), *looks)
        assert played.over == StartedRun(replace(NEW, earlier=(), task_id="8", profile_id="profile of 8"))
        assert played.logged[-1] == "BrowserAct task 8 is the run of this start."

    def test_run_without_inputs_is_found_in_a_list_that_shows_no_inputs(self):
        run = replace(RUN, id="8", created_at=AT_2000, input_parameters=None)
        looks: list[object] = [page_of(run)] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE))
        played = play(None, ResponseLostError("lost"), *looks, wants=start(inputs={}))
        assert isinstance(played.over, StartedRun)


def test_failed_search_for_a_lost_start_raises_and_keeps_the_entry():
    steps = begin(start(patience=1.0), None, lambda: 0.0)
    before = next(steps)
    assert isinstance(before, BeforeStart)
    assert isinstance(steps.send(before.request), Write)
    step = steps.send(None)
    assert isinstance(step, Call)
    step = steps.throw(ResponseLostError("x"))
    assert isinstance(step, LogLine)
    step = steps.send(None)
    assert isinstance(step, Call)
    # And no further Write.
    with pytest.raises(RunStartUnknownError, match="looking for it failed: x") as caught:
        steps.throw(ServerError("x", http_status=503, code=7, msg="m", trace_id="t"))
    error = caught.value
    assert (error.http_status, error.code, error.msg, error.trace_id) == (503, 7, "m", "t")


@pytest.mark.parametrize("code", [10999, 777], ids=["of BrowserAct's kind", "of any kind"])
@pytest.mark.parametrize("status", [200, 500])
def test_undocumented_code_that_is_no_clear_refusal_leads_to_a_search_for_the_run(code, status):
    call = start().request.call
    envelope = {"code": code, "msg": "Busy", "traceId": "t"}
    with pytest.raises(BrowserActError) as refused:
        call.read_response(Response(status, {}, json.dumps(envelope).encode()))
    steps = begin(start(patience=1.0), None, lambda: 0.0)
    step = next(steps)
    while not isinstance(step, Call):
        step = steps.send(step.request if isinstance(step, BeforeStart) else None)
    assert step.starts_run
    steps.throw(refused.value)
    step = next(steps)
    assert isinstance(step, Call)
    assert step.name == "list-tasks"


GATEWAY_LOOKS = 1 + int(timings.LATE_START_DELAY / timings.ORPHAN_LIST_PAUSE)


@pytest.mark.parametrize("status", [408, 502, 503, 504])
def test_start_that_browseract_carries_out_a_minute_after_a_gateway_s_error_is_found(status):
    run = replace(RUN, id="8", created_at=datetime.fromtimestamp(2055.0, timezone.utc))
    looks = [page_of()] * (GATEWAY_LOOKS - 1) + [page_of(run)]
    played = play(None, ServerError("no response", http_status=status), *looks)
    assert isinstance(played.over, StartedRun)
    assert played.over.task_id == "8"
    assert sum(played.slept) == timings.LATE_START_DELAY


@pytest.mark.parametrize("error", [ServerError("x", http_status=500), ResponseLostError("x")], ids=["500", "lost"])
def test_look_up_waits_no_longer_than_the_list_is_late_after_another_error(error):
    run = replace(RUN, id="8", created_at=AT_2000)
    played = play(None, error, *[page_of(run)] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE)))
    assert sum(played.slept) == timings.LISTING_DELAY


def test_second_start_is_looked_up_from_the_time_at_which_it_was_sent():
    looks = [page_of()] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE))
    played = play(None, ResponseLostError("lost"), *looks, MADE)
    times = [write.entry.written_at for write in played.written if write.entry is not None]
    assert times == [2000.0, 2000.0 + timings.LISTING_DELAY, 2000.0 + timings.LISTING_DELAY]


@pytest.mark.parametrize("found", [False, True], ids=["no run", "a run"])
def test_unclear_refusal_is_looked_up_and_not_sent_again(found):
    refused = UnknownRefusalError("Busy", code=4711, http_status=200)
    run = replace(RUN, id="8", created_at=AT_2000)
    looks = [page_of(run) if found else page_of()] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE))
    played = play(SAME, replace(RUN, status=TaskStatus.FAILED), refused, *looks)
    assert played.names.count("run-task") == 1
    if found:
        assert isinstance(played.over, StartedRun)
    else:
        assert played.over is refused
        assert played.written[-1] == Write(SAME, over=True)


def test_request_that_the_checks_return_is_sent_and_looked_up_and_the_given_one_is_stored():
    sent = request("ink")
    run = replace(RUN, id="8", created_at=AT_2000, input_parameters="keyword=ink")
    looks = [page_of(run)] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE))
    played = play(None, ResponseLostError("lost"), *looks, checked=sent)
    assert played.asked[0].body == sent.call.body
    assert isinstance(played.over, StartedRun)
    assert (played.over.task_id, played.over.entry.fingerprint) == ("8", start().fingerprint)


def test_ledger_entry_is_dated_after_slow_checks_before_the_start():
    now = 10_000.0
    steps = begin(start(), None, lambda: now)
    before = next(steps)
    assert isinstance(before, BeforeStart)
    now += 300.0
    written = steps.send(before.request)
    assert isinstance(written, Write)
    assert written.entry is not None
    assert written.entry.written_at == now
