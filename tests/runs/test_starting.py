"""Starting and reattaching, and any interleaving of deaths, lost responses and clock steps."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api import models, v2
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, CreatedTask, SourceInfo, Step, Task, TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.cap import CapUsedUpError
from airflow_provider_browseract.runs.ledger import Entry, LedgerError, UnknownRunError
from airflow_provider_browseract.runs.options import OnOrphan
from airflow_provider_browseract.runs.orphans import Claim, OrphanError, ReadClaims
from airflow_provider_browseract.runs.report import WHY_UNKNOWN
from airflow_provider_browseract.runs.request import Source, digest
from airflow_provider_browseract.runs.starting import BeforeStart, Start, StartedRun, StartRefused, Write, begin
from airflow_provider_browseract.runs.steps import LogLine, Sleep
from tests.cases import cases, examples
from tests.runs import starts
from tests.runs.starts import KEY_DIGEST, KINDS, SAME, SOURCE, Played, at, bot_run, listed_run, page_of, request, start
from tests.steps import replace


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
        if "input" in call.body:
            bot_id = "70" if call.name == "create-run" else None
            run = bot_run(made, int(self.now), bot_id=bot_id, input=call.body["input"])
        else:
            inputs = "; ".join(f"{pair['name']}={pair['value']}" for pair in call.body["input_parameters"])
            run = listed_run(made, int(self.now), input_parameters=inputs)
        wanted = call.path, {name: given for name, given in call.body.items() if "callback" not in name}
        if self.runs:
            last = list(self.runs.values())[-1]
            came_to_nothing = last.status in (TaskStatus.FAILED, TaskStatus.CANCELED)
            # Such a run may end while it is being stopped.
            not_wanted = last.status.ended and (self.cleared or wanted != self.last)
            assert came_to_nothing or not_wanted, f"a start that nothing explains, after {last}"
        self.cleared, self.last = False, wanted
        self.runs[made] = run
        return CreatedTask(id=made)

    def answer(self, call: Call[Any]) -> Any:
        """Carry out any other call."""
        version = ApiVersion.V3 if call.path.startswith("/v3/") else ApiVersion.V2
        known = {task.id: task for task in (*self.others, *self.runs.values()) if task.api_version is version}
        if call.name in ("list-tasks", "page-runs"):
            since, until = (
                datetime.fromisoformat(str(call.params[name]).replace("Z", "+00:00"))
                for name in ("created_at_from", "created_at_to")
            )
            listed = at(self.now - self.lag)
            return page_of(
                *(each for each in known.values() if since <= (each.created_at or since) <= min(until, listed))
            )
        if call.name == "get-workflow":
            return SourceInfo(id="70", input_parameters=(models.InputParameter(name="keyword", default_enabled=False),))
        if call.name == "query-bot":
            return SourceInfo(id="70")
        task = known[str(call.params.get("task_id") or call.path.split("/")[4])]
        if call.name in ("stop-task", "cancel-run"):
            if task.status.ended:
                raise errors.TaskEndedError("x", code=10121)
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
            before, after = self.service.now - 30.0, self.service.now + 5.0
            self.service.others = [
                listed_run("1", None),
                listed_run("2", before, input_parameters="keyword=ink; more=yes"),
                listed_run("3", after, workflow_id="71"),
                bot_run("4", None),
                bot_run("5", before, input={"keyword": "ink", "more": True}),
                bot_run("6", after, bot_id="71"),
            ]
        self.stored: str | None = None
        self.steps: Any = None
        self.reply: Any = None
        self.error: errors.BrowserActError | None = None
        self.keyword = "pens"
        self.max_tries = 3
        self.pending: Any = None
        self.decided_at = self.service.now
        self.followed: str | None = None

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
        except (errors.BrowserActError, OrphanError):
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
            self.error = errors.ConnectionFailedError("x")
        elif fate == "broken":
            self.error = errors.ServerError("x")
        elif fate == "no slot" and call.starts_run:
            self.error = errors.ConcurrencyLimitError("x")
        elif fate == "lost":
            self._do(call)
            self.error = errors.ResponseLostError("x")
        else:
            try:
                self.reply = self._do(call)
            except errors.BrowserActError as error:
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
            seconds = max(0.0, min(seconds, self.decided_at + starts.PATIENCE - self.service.now))
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


def play(entry, *answers, on_orphan=OnOrphan.FAIL, wants: Start | None = None, **how) -> Played:
    """Begin a run with an entry of an earlier try, and return the next response to each call."""
    left = list(answers)
    played = Played(lambda call: left.pop(0), **how)
    played.play(begin(replace(wants or start(), on_orphan=on_orphan), entry, played.clock))
    assert not left
    return played


def earlier(kind: str, **fields: Any) -> Entry:
    """The entry of an earlier try that ran something else than a workflow."""
    wanted = start(kind=kind)
    return replace(SAME, source=wanted.request.source, fingerprint=wanted.fingerprint, **fields)


RUN = listed_run("7")
BOT = Source(SourceKind.BOT, "70")
MADE = CreatedTask(id="9", profile_id="profile of 9")
NEW = Entry(SOURCE, SAME.fingerprint, 2000.0, 5600.0, None, None, ("5", "6", "7"), 3, KEY_DIGEST)
"""What is written down before another run is started at second 2000."""

GONE = errors.TaskNotFoundError("gone", code=10112)
LOST = errors.ResponseLostError("lost")
FULL, LIMITED = errors.ConcurrencyLimitError("full", code=10118), errors.RateLimitError("slow down", http_status=429)
REFUSED, UNCLEAR = errors.InvalidRequestError("no", code=99001), errors.UnknownRefusalError("Busy", code=4711)
CAP = replace(start(), max_credits=100)
FINISHED_RUN = listed_run("7", status=TaskStatus.FINISHED)
FAILED_RUN = listed_run("7", status=TaskStatus.FAILED, credit=40)
OWN = listed_run("8", 2000.0)
"""The run that a lost start has made at second 2000."""

BEFORE = replace(SAME, spent=25)
"""The entry of an earlier try, after yet another one has used 25 credits."""

CLEARED = replace(SAME, max_tries=2)
OTHER_INPUTS = replace(SAME, fingerprint="f" * 64)
OTHER_KEY = replace(SAME, fingerprint="e" * 64, key_digest="f" * 16)
OF_VERSION_1 = replace(SAME, fingerprint=None, key_digest=None)
IN_A_WORKER = replace(SAME, deferred=False)
NOT_COMPARED = "The inputs cannot be compared with those of the earlier try"
OF_BOT, OF_TEMPLATE = earlier("bot"), earlier("template")
BOT_RUN = bot_run("7")


@cases(
    ("entry", "kind", "run", "kept"),
    {
        "running": (SAME, "", RUN, SAME),
        "paused": (SAME, "", listed_run("7", status=TaskStatus.PAUSED), SAME),
        "finished": (SAME, "", FINISHED_RUN, SAME),
        "unknown": (SAME, "", listed_run("7", status=TaskStatus.UNKNOWN), SAME),
        "changed timeout": (replace(SAME, deadline=9.0), "", RUN, SAME),
        "finished, then cleared": (CLEARED, "", FINISHED_RUN, SAME),
        "in a worker, then cleared": (replace(IN_A_WORKER, max_tries=2), "in the worker", RUN, IN_A_WORKER),
        "another API key": (OTHER_KEY, "", RUN, OTHER_KEY),
        "another API key, finished": (OTHER_KEY, "", FINISHED_RUN, OTHER_KEY),
        "written by version 1": (OF_VERSION_1, "", RUN, OF_VERSION_1),
        "written by version 1, finished": (OF_VERSION_1, "", FINISHED_RUN, OF_VERSION_1),
        "bot": (OF_BOT, "bot", BOT_RUN, OF_BOT),
        "bot without an id": (OF_BOT, "bot", replace(BOT_RUN, bot_id=None), OF_BOT),
        "template, of any workflow": (OF_TEMPLATE, "template", replace(RUN, workflow_id="71"), OF_TEMPLATE),
        "cap is used up": (replace(SAME, spent=200), "", RUN, replace(SAME, spent=200)),
        "credits before it": (BEFORE, "", RUN, BEFORE),
        "credits before it, finished": (BEFORE, "", FINISHED_RUN, BEFORE),
        "credits before a clear": (replace(BEFORE, max_tries=2, deferred=False), "", RUN, SAME),
        "credits before a clear, finished": (replace(BEFORE, max_tries=2), "", FINISHED_RUN, SAME),
    },
)
def test_usable_run_of_an_earlier_try_is_reattached(entry, kind, run, kept):
    played = play(entry, run, wants=replace(start(kind=kind), max_credits=100))
    assert played.over == StartedRun(kept, run)
    assert played.written == ([] if kept == entry else [Write(kept)])
    [call] = played.asked
    assert call.name == ("query-run" if kind == "bot" else "get-task")
    assert "7" in (call.params.get("task_id"), *call.path.split("/"))
    assert [line.partition(",")[0] for line in played.logged] == [NOT_COMPARED] * (entry.key_digest != KEY_DIGEST)


NOT_WANTED = "an earlier try had other inputs or another profile"
WAS_STOPPED = "was stopped, because the Airflow task was cleared while it waited"
OF_WORKFLOW = "was stopped, because it is a run of workflow 70"
HAS_ENDED = errors.TaskEndedError("x", code=10121)
CANCELED_RUN = listed_run("7", status=TaskStatus.CANCELED, credit=40)
ELSEWHERE = "If it is active in another account, it keeps using credits."
FORGOTTEN = "BrowserAct does not know task 7 of an earlier try with this API key: gone (code 10112). "


@cases(
    ("entry", "kind", "answers", "log"),
    {
        "failed": (SAME, "", [FAILED_RUN], "of an earlier try has ended as failed"),
        "canceled": (SAME, "", [CANCELED_RUN], "of an earlier try has ended as canceled"),
        "other inputs": (OTHER_INPUTS, "", [RUN, None], f"was stopped, because {NOT_WANTED}"),
        "other inputs, ended meanwhile": (OTHER_INPUTS, "", [RUN, HAS_ENDED], f"was stopped, because {NOT_WANTED}"),
        "other inputs, finished": (OTHER_INPUTS, "", [FINISHED_RUN], f"has ended as finished, but {NOT_WANTED}"),
        "cleared": (CLEARED, "", [RUN, None], WAS_STOPPED),
        "cleared, ended meanwhile": (CLEARED, "", [RUN, HAS_ENDED], WAS_STOPPED),
        "another source and API key": (OTHER_KEY, "template", [RUN, None], OF_WORKFLOW),
        "workflow before, bot now": (SAME, "bot", [RUN, None], OF_WORKFLOW),
        "bot before, workflow now": (OF_BOT, "", [BOT_RUN, None], "was stopped, because it is a run of bot 70"),
        "forgotten, then cleared": (CLEARED, "", [GONE], "the Airflow task was cleared"),
        "forgotten, then cleared in the worker": (CLEARED, "in the worker", [GONE], "the Airflow task was cleared"),
        "forgotten bot, then cleared": (replace(OF_BOT, max_tries=2), "bot", [GONE], "the Airflow task was cleared"),
        "forgotten, on_orphan=start": (SAME, OnOrphan.START, [GONE], "on_orphan='start'"),
        "forgotten, on_orphan=adopt": (SAME, OnOrphan.ADOPT, [GONE], "on_orphan='adopt'"),
    },
)
def test_unusable_run_of_an_earlier_try_is_replaced_by_a_new_one(entry, kind, answers, log):
    wants = start(kind=kind)
    on_orphan = kind if isinstance(kind, OnOrphan) else OnOrphan.FAIL
    played = play(entry, *answers, MADE, wants=wants, on_orphan=on_orphan)
    spent = 40 if answers[0] in (FAILED_RUN, CANCELED_RUN) else 0
    before = replace(
        NEW, source=wants.request.source, fingerprint=wants.fingerprint, deferred=wants.deferred, spent=spent
    )
    made = replace(before, task_id="9", profile_id="profile of 9")
    assert played.over == StartedRun(made)
    assert played.written == [Write(before), Write(made)]
    read_and_stop = ["query-run", "cancel-run"] if entry.source == BOT else ["get-task", "stop-task"]
    assert played.names == [*read_and_stop[: len(answers)], wants.request.call.name]
    line = f"BrowserAct task 7 {log}. Starting a new run."
    if answers == [GONE]:
        line = f"{FORGOTTEN}{WHY_UNKNOWN} {ELSEWHERE} Starting a new run, because {log}."
    assert played.logged == [line]


NOT_STARTED = (
    f"{FORGOTTEN}Nothing was started.\n{WHY_UNKNOWN} Make sure that no run is active. Then clear the task instance, "
    "which starts a new run."
)
NAMES = "it names BrowserAct task 7 as a run of {0} 70, but for BrowserAct it is a run of {0} 71"
DOWN = errors.ServerError("down", http_status=503)
NO_ROUTE, NO_KEY = errors.NotFoundError("no route", http_status=404), errors.AuthenticationError("no", code=401)


@cases(
    ("entry", "kind", "answer", "error", "text"),
    {
        "forgotten": (SAME, "", GONE, UnknownRunError, NOT_STARTED),
        "cleared, down": (CLEARED, "", DOWN, errors.ServerError, "down"),
        "cleared, 404 of a gateway": (CLEARED, "", NO_ROUTE, errors.NotFoundError, "no route"),
        "cleared, key refused": (CLEARED, "", NO_KEY, errors.AuthenticationError, "no"),
        "another workflow": (SAME, "", replace(RUN, workflow_id="71"), LedgerError, NAMES.format("workflow")),
        "another bot": (OF_BOT, "bot", replace(BOT_RUN, bot_id="71"), LedgerError, NAMES.format("bot")),
    },
)
def test_nothing_is_started_if_the_run_of_an_earlier_try_is_not_known(entry, kind, answer, error, text):
    played = play(entry, answer, wants=start(kind=kind))
    assert type(played.over) is error
    assert str(played.over).startswith(text)
    assert (len(played.asked), played.written) == (1, [])


class TestCreditsOfEarlierTries:
    @cases(
        ("entry", "answers", "spent"),
        {
            "failed": (BEFORE, [FAILED_RUN], 65),
            "canceled": (BEFORE, [CANCELED_RUN], 65),
            "stopped because of other inputs": (replace(OTHER_INPUTS, spent=25), [replace(RUN, credit=40), None], 65),
            "finished with other inputs": (replace(OTHER_INPUTS, spent=25), [replace(FINISHED_RUN, credit=40)], 65),
            "steps instead of credits": (BEFORE, [replace(FAILED_RUN, credit=None, steps=(Step(number=1),) * 9)], 70),
            "no longer exists": (BEFORE, [GONE], 25),
            "was never started": (replace(BEFORE, task_id=None), [page_of()], 25),
            "found by its inputs": (replace(BEFORE, task_id=None), [page_of(RUN), FAILED_RUN], 65),
            "found after it was stopped": (replace(BEFORE, task_id=None), [page_of(CANCELED_RUN), CANCELED_RUN], 65),
            "failed before a clear": (replace(BEFORE, max_tries=2), [FAILED_RUN], 0),
            "stopped because of a clear": (replace(BEFORE, max_tries=2), [replace(RUN, credit=40), None], 0),
            "was never started before a clear": (replace(BEFORE, task_id=None, max_tries=2), [page_of()], 0),
            "entry of an older version": (replace(BEFORE, max_tries=None, spent=0), [FAILED_RUN], 0),
        },
    )
    # Someone may set a cap before the next try.
    @pytest.mark.parametrize("wants", [CAP, start()], ids=["with a cap", "without a cap"])
    def test_new_run_gets_the_credits_that_were_used_since_the_last_clear(self, entry, answers, spent, wants):
        played = play(entry, *answers, MADE, wants=wants, on_orphan=OnOrphan.START)
        assert (played.started.task_id, played.started.entry.spent) == ("9", spent)
        assert played.written[-2] == Write(replace(played.started.entry, task_id=None, profile_id=None))

    @pytest.mark.parametrize(
        ("max_tries", "credit", "allowed"), [(3, 74, True), (3, 75, False), (3, 200, False), (2, 200, True)]
    )
    def test_cap_that_earlier_runs_have_used_up_prevents_a_start_until_a_clear(self, max_tries, credit, allowed):
        answers = [replace(FAILED_RUN, credit=credit), *([MADE] if allowed else [])]
        played = play(replace(BEFORE, max_tries=max_tries), *answers, wants=CAP)
        assert isinstance(played.over, StartedRun if allowed else CapUsedUpError)
        assert ("run-task" in played.names) == allowed
        assert bool(played.written) == allowed

    def test_refused_start_does_not_count_an_earlier_run_twice(self):
        refused = play(BEFORE, FAILED_RUN, FULL, wants=CAP)
        assert refused.over == StartRefused(FULL)
        assert play(refused.written[-1].entry, FAILED_RUN, MADE, wants=CAP).started.entry.spent == 65


class TestAnUnansweredStartOfAnEarlierTry:
    ENTRY = replace(SAME, task_id=None, deadline=4600.0)
    UNKNOWN_INPUTS = replace(ENTRY, fingerprint="f" * 64)
    LOOKING = "An earlier try was about to start a run and did not store the result. Looking for the run."

    def test_orphan_of_an_earlier_try_is_found_written_down_and_reattached(self):
        played = play(self.ENTRY, page_of(RUN), RUN)
        assert played.over == StartedRun(replace(self.ENTRY, task_id="7"), RUN)
        assert played.written == [Write(replace(self.ENTRY, task_id="7"))]
        assert played.logged == [self.LOOKING]
        since, until = at(1000.0 - timings.CLOCK_SKEW), at(1100.0 + timings.CLOCK_SKEW)
        window = v2.list_tasks(source_id="70", created_at_from=since, created_at_to=until)
        assert played.asked[0].params == window.params

    @pytest.mark.parametrize(("shown", "kept"), [("of the list", "of the list"), (None, "9")])
    def test_profile_of_an_orphan_comes_from_the_list_if_the_list_has_one(self, shown, kept):
        assert play(self.ENTRY, page_of(replace(RUN, profile_id=shown)), RUN).started.entry.profile_id == kept

    def test_orphan_is_found_by_its_inputs_although_the_api_key_has_changed(self):
        entry = replace(self.ENTRY, fingerprint="e" * 64, key_digest="f" * 16)
        played = play(entry, page_of(listed_run("6", input_parameters="keyword=ink"), RUN), RUN)
        assert played.over == StartedRun(replace(entry, task_id="7"), RUN)
        assert played.logged[0].startswith(NOT_COMPARED)

    @pytest.mark.parametrize(("left", "slept"), [(0.0, []), (8.0, [5.0, 3.0])])
    def test_list_is_read_until_the_start_must_be_in_it(self, left, slept):
        pages = [page_of()] * (1 + len(slept))
        played = play(self.ENTRY, *pages, MADE, now=1100.0 + timings.LISTING_DELAY - left)
        assert (played.slept, played.logged) == (slept, [self.LOOKING, "No matching run was found."])
        assert played.started.entry.earlier == ("5", "6")

    @pytest.mark.parametrize("on_orphan", OnOrphan)
    def test_any_run_may_be_the_one_if_the_inputs_are_not_known_any_more(self, on_orphan):
        run = replace(RUN, input_parameters="keyword=ink")
        new = [MADE] if on_orphan is OnOrphan.START else []
        played = play(self.UNKNOWN_INPUTS, page_of(run), run, *new, on_orphan=on_orphan)
        assert isinstance(played.over, StartedRun if new else OrphanError)

    @pytest.mark.parametrize("kind", ["deferred", "bot"])
    def test_lost_start_of_an_earlier_operator_is_looked_up_in_its_version_of_the_api(self, kind):
        now = start(kind="bot" if kind == "deferred" else "deferred")
        run = bot_run("7") if kind == "bot" else RUN
        played = play(earlier(kind, task_id=None), page_of(run), run, wants=now)
        # A person has to decide whether this is the run.
        assert isinstance(played.over, OrphanError)
        assert played.names == (["page-runs", "query-run"] if kind == "bot" else ["list-tasks", "get-task"])


def no_response(status: int) -> errors.ServerError:
    return errors.ServerError("no response", http_status=status)


def looks(*tasks: Task) -> list[object]:
    """The pages that a look-up reads, until the run must be in the list."""
    return [page_of(*tasks)] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE))


class TestAStart:
    def test_entry_is_written_before_and_after_the_start(self):
        wants = start(callback_token="secret")
        played = play(None, MADE, wants=wants)
        before = replace(NEW, earlier=())
        after = replace(before, task_id="9", profile_id="profile of 9")
        assert played.over == StartedRun(after, callback_token_sha256=digest("secret"))
        assert played.written == [Write(before), Write(after)]
        assert play(None, MADE, wants=start(kind="in the worker")).written[0] == Write(replace(before, deferred=False))

    @pytest.mark.parametrize("entry", [None, SAME], ids=["no entry", "entry of a failed run"])
    @cases(
        ("answers", "error"),
        {
            "no slot": ([FULL], FULL),
            "too many requests": ([LIMITED], LIMITED),
            "refused": ([REFUSED], REFUSED),
            "surely made no run": ([LOST, *looks()] * 3, LOST),
            "unclear refusal": ([UNCLEAR, *looks()], UNCLEAR),
        },
    )
    def test_start_that_made_no_run_restores_the_entry_before(self, entry, answers, error):
        played = play(entry, *([] if entry is None else [FAILED_RUN]), *answers)
        waits = isinstance(error, errors.ConcurrencyLimitError | errors.RateLimitError)
        assert played.over == (StartRefused(error) if waits else error)
        assert played.written[-1] == Write(entry, over=True)
        # An unclear refusal is looked up and not sent again.
        assert played.names.count("run-task") == answers.count(error)
        assert [write.starts for write in played.written] == [True, False] * answers.count(error)

    def test_start_with_lost_response_is_looked_up_and_sent_at_most_three_times(self):
        played = play(None, *[LOST, *looks()] * 3)
        assert [text for text in played.logged if "(start" in text] == [
            f"No run was started (start {number} of 3)." for number in (1, 2, 3)
        ]
        assert played.slept == [timings.ORPHAN_LIST_PAUSE] * 12
        times = [write.entry.written_at for write in played.written if write.entry is not None]
        assert times == [2000.0 + timings.LISTING_DELAY * number for number in range(3)]

    def test_workflow_is_read_to_tell_which_inputs_have_defaults(self):
        run = replace(OWN, input_parameters="keyword=pens; max_items=10")
        played = play(None, LOST, *looks(run), errors.ServerError("down"), run)
        assert isinstance(played.over, OrphanError)
        assert (played.asked[-2].name, played.asked[-2].params) == ("get-workflow", {"workflow_id": "70"})
        assert played.logged[-1] == "The inputs of workflow 70 cannot be read: down"

    @cases(
        ("error", "run", "wants", "sent"),
        {
            "lost": (LOST, OWN, start(), request()),
            "profile": (LOST, replace(OWN, profile_id="profile of 8"), start(), request()),
            "no inputs": (LOST, replace(OWN, input_parameters=None), start(inputs={}), request(inputs={})),
            "unclear refusal": (UNCLEAR, OWN, start(), request()),
            # The given request is stored.
            "other inputs": (LOST, replace(OWN, input_parameters="keyword=ink"), start(), request("ink")),
        },
    )
    def test_run_of_a_lost_response_is_adopted_if_it_is_a_run_of_the_request_that_was_sent(
        self, error, run, wants, sent
    ):
        played = play(None, error, *looks(run), wants=wants, checked=sent)
        kept = replace(NEW, earlier=(), task_id="8", profile_id=run.profile_id, fingerprint=wants.fingerprint)
        assert played.over == StartedRun(kept)
        assert played.logged[-1] == "BrowserAct task 8 is the run of this start."
        assert played.names.count("run-task") == 1
        assert played.asked[0].body == sent.call.body

    # A gateway's error can come a minute before BrowserAct carries out the start.
    @cases(
        ("error", "delay"),
        {
            **{str(each): (no_response(each), timings.LATE_START_DELAY) for each in (408, 502, 503, 504)},
            "500": (no_response(500), timings.LISTING_DELAY),
            "lost": (LOST, timings.LISTING_DELAY),
        },
    )
    def test_run_that_is_listed_at_the_last_moment_is_found_and_not_waited_for_any_longer(self, error, delay):
        empty = [page_of()] * int(delay / timings.ORPHAN_LIST_PAUSE)
        played = play(None, error, *empty, page_of(listed_run("8", 2000.0 + delay)))
        assert (played.started.task_id, sum(played.slept)) == ("8", delay)

    def test_failed_search_for_a_lost_start_raises_and_keeps_the_entry(self):
        played = play(None, LOST, errors.ServerError("x", http_status=503, code=7, msg="m", trace_id="t"))
        error = played.over
        assert isinstance(error, errors.RunStartUnknownError)
        assert "looking for it failed: x" in str(error)
        assert (error.http_status, error.code, error.msg, error.trace_id) == (503, 7, "m", "t")
        assert [write.starts for write in played.written] == [True]

    @pytest.mark.parametrize("code", [10999, 777], ids=["of BrowserAct's kind", "of any kind"])
    @pytest.mark.parametrize("status", [200, 500])
    def test_undocumented_code_that_is_no_clear_refusal_leads_to_a_search_for_the_run(self, code, status):
        envelope = {"code": code, "msg": "Busy", "traceId": "t"}
        with pytest.raises(errors.BrowserActError) as refused:
            start().request.call.read(status, json.dumps(envelope).encode(), {})
        played = play(None, refused.value, *looks(OWN))
        assert played.started.task_id == "8"
        assert played.names[:2] == ["run-task", "list-tasks"]

    def test_ledger_entry_is_dated_after_slow_checks_before_the_start(self):
        assert play(None, MADE, checks_take=300.0).started.entry.written_at == 2300.0
