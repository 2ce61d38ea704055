"""Starting and reattaching, lost starts, and any interleaving of deaths, lost responses and clears."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, CreatedTask, Page, Step, Task, TaskStatus
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import WHY_UNKNOWN
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.spending.cap import CapUsedUpError
from airflow_provider_browseract.worker.ledger import Entry
from airflow_provider_browseract.worker.start import NotNowError, Started
from tests.helpers.cases import cases, examples, raising
from tests.helpers.steps import replace
from tests.worker.starts import (
    KEY,
    KEY_DIGEST,
    KINDS,
    PATIENCE,
    PENS_LISTED,
    SAME,
    SETTINGS,
    SOURCE,
    TI,
    Played,
    at,
    bot_run,
    listed_run,
    page_of,
    request,
    signed,
)


class Died(BaseException):
    """The process of a try is gone."""


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


FATES = ["well", "well", "well", "lost", "never arrived", "broken", "no slot"]
ENDS = [TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELED]


class TriesOfATask(RuleBasedStateMachine):
    """One Airflow task instance, whose tries die at any effect, and whose starts meet any fate."""

    @initialize(
        lag=st.sampled_from([0.0, timings.LIST_READS[0] - 1.0, timings.LIST_READS[1] - 1.0]),
        others=st.booleans(),
        kind=st.sampled_from(["workflow", "with a profile", *KINDS]),
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
        self.keyword = "pens"
        self.max_tries = 3

    @property
    def entry(self) -> Entry | None:
        return None if self.stored is None else from_json(Entry, json.loads(self.stored))

    @rule(
        fates=st.lists(st.sampled_from(FATES), max_size=8),
        start_fate=st.sampled_from(FATES),
        dies=st.tuples(st.none() | st.integers(1, 14), st.booleans()),
        slow=st.tuples(st.integers(1, 14), st.sampled_from([0.0, 1.0, 30.0, 300.0, 7200.0])),
        run_ends=st.tuples(st.none() | st.integers(1, 14), st.sampled_from(ENDS)),
    )
    def a_try(self, fates: list[str], start_fate: str, dies: Any, slow: Any, run_ends: Any) -> None:
        """A try begins, and passes through its effects up to its end, or to its death."""
        (dies_at, after), (slow_at, seconds), (ends_at, status) = dies, slow, run_ends
        effects, starts, service = itertools.count(1), itertools.count(), self.service
        left = iter(fates)

        def before(name: str) -> None:
            number = next(effects)
            if number == ends_at:
                self.a_run_changes(status)
            if number == slow_at:
                # Between storing the entry and its start, a try is delayed by at most its patience: a later try looks
                # for the start only among the runs of that time.
                played.now += min(seconds, PATIENCE) if name == "start" else seconds
            service.now = played.now
            if number == dies_at and not (after and name not in ("sleep", "write")):
                raise Died

        def respond(call: Call[Any]) -> object:
            fate = next(left, "well")
            if call.starts_run:
                fate = start_fate if next(starts) == 0 else fate
            if fate in ("never arrived", "broken") or (fate == "no slot" and call.starts_run):
                failed = {"never arrived": errors.ConnectionFailedError, "broken": errors.ServerError}
                return failed.get(fate, errors.ConcurrencyLimitError)("x", not_processed=fate != "broken")
            try:
                found = service.start(call) if call.starts_run else service.answer(call)
            except errors.BrowserActError as error:
                found = error
            if after and dies_at is not None and len(played.asked) == dies_at:
                raise Died
            return errors.ResponseLostError("x") if fate == "lost" else found

        played = Played(respond, service.now, siblings=("1",), before=before)

        def write(entry: Entry | None) -> None:
            before("write")
            self.stored = None if entry is None else json.dumps(to_json(entry))

        played.ledger.write = write
        try:
            wanted = request(self.keyword, self.kind)
            played.start(self.entry, wanted, self.max_tries)
        except Died:
            pass
        service.now = played.now
        if isinstance(played.over, Started):
            entry = self.entry
            assert entry is not None
            assert entry.task_id == played.over.task_id
            assert entry.task_id in service.runs
            assert entry.source.kind is KINDS.get(self.kind, SourceKind.WORKFLOW)
            assert entry.max_tries == self.max_tries
            assert entry.is_proven(SETTINGS, played.ledger.ti)

    @rule(seconds=st.sampled_from([1.0, 30.0, 300.0, 7200.0]))
    def time_passes(self, seconds: float) -> None:
        self.service.now += seconds

    @rule(status=st.sampled_from([*ENDS, TaskStatus.PAUSED]))
    def a_run_changes(self, status: TaskStatus) -> None:
        for task in self.service.going[:1]:
            self.service.runs[task.id] = replace(task, status=status)

    @precondition(lambda self: self.entry is None or self.entry.task_id)
    @rule()
    def the_inputs_change(self) -> None:
        # Not where the run of the old inputs is not known: then a person has to decide.
        self.keyword = "ink" if self.keyword == "pens" else "pens"

    @precondition(lambda self: self.entry is None or self.entry.task_id)
    @rule(kind=st.sampled_from(["workflow", "bot"]))
    def the_operator_changes(self, kind: str) -> None:
        self.kind = kind

    @rule()
    def a_person_clears_the_task(self) -> None:
        self.max_tries += 1
        self.service.cleared = True
        entry = self.entry
        if entry is not None and entry.task_id is None and (entry.source.is_template or self.service.others):
            # The error of a start that cannot be looked up asks for this.
            for task in self.service.going:
                self.service.runs[task.id] = replace(task, status=TaskStatus.CANCELED)

    @invariant()
    def at_most_one_run_goes_on(self) -> None:
        assert len(getattr(self, "service", Service()).going) <= 1, self.service.runs


TestAnyInterleaving = TriesOfATask.TestCase
TestAnyInterleaving.settings = settings(
    max_examples=examples(300), stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def play(
    entry: Entry | None, *answers: object, wanted: Any = None, max_tries: int = 3, cap: int | None = None, **how: Any
) -> Played:
    """Begin a try with an entry of an earlier one, and return the next response to each call."""
    left = list(answers)
    played = Played(lambda call: left.pop(0), **how).start(entry, wanted, max_tries, cap)
    assert not left
    return played


def earlier(kind: str, **fields: Any) -> Entry:
    """The entry of an earlier try that ran something else than a workflow."""
    wanted = request(kind=kind)
    return signed(SAME, source=wanted.source, fingerprint=wanted.fingerprint(KEY), **fields)


RUN = listed_run("7")
BOT = Source(SourceKind.BOT, "70")
MADE = CreatedTask(id="9", profile_id="profile of 9")
NEW = Entry(SOURCE, SAME.fingerprint, KEY_DIGEST, "c", 2000.0, PATIENCE, 3, earlier=("5", "6", "7"))
"""What is written down before another run is started at second 2000."""

GONE = errors.TaskNotFoundError("gone", code=10112)
LOST = errors.ResponseLostError("lost")
FULL = errors.ConcurrencyLimitError("full", code=10118, not_processed=True)
LIMITED = errors.RateLimitError("slow down", http_status=429, not_processed=True)
REFUSED = errors.InvalidRequestError("no", code=99001, not_processed=True)
UNCLEAR = errors.UnknownRefusalError("Busy", code=4711)
FINISHED_RUN = listed_run("7", status=TaskStatus.FINISHED)
FAILED_RUN = listed_run("7", status=TaskStatus.FAILED, credit=40)
OWN = listed_run("8", 2000.0)
"""The run that a lost start has made at second 2000."""

BEFORE = signed(SAME, spent=25)
"""The entry of an earlier try, after yet another one has used 25 credits."""

CLEARED = signed(SAME, max_tries=2)
OTHER_INPUTS = signed(SAME, fingerprint="f" * 64)
OTHER_KEY = replace(SAME, fingerprint="e" * 64, key_digest="f" * 16)
OTHER_CONNECTION = signed(SAME, connection="the same account")
NEW_KEY = "The API key has changed since the earlier try. Its run matches this task instance."
REATTACHING = "Reattaching to BrowserAct task 7 that an earlier try started."
OF_BOT, OF_TEMPLATE = earlier("bot"), earlier("template")
BOT_RUN = bot_run("7")


@cases(
    ("running", SAME, "", RUN, SAME),
    ("finished", SAME, "", FINISHED_RUN, SAME),
    ("unknown", SAME, "", listed_run("7", status=TaskStatus.UNKNOWN), SAME),
    ("finished, then cleared", CLEARED, "", FINISHED_RUN, SAME),
    ("another API key", OTHER_KEY, "", RUN, SAME),
    ("another API key, bot", replace(OF_BOT, key_digest="f" * 16), "bot", BOT_RUN, OF_BOT),
    ("another connection with the same key", OTHER_CONNECTION, "", RUN, SAME),
    ("bot", OF_BOT, "bot", BOT_RUN, OF_BOT),
    ("template, of any workflow", OF_TEMPLATE, "template", replace(RUN, workflow_id="71"), OF_TEMPLATE),
    ("cap is used up", signed(SAME, spent=200), "", RUN, signed(SAME, spent=200)),
    ("credits before it", BEFORE, "", RUN, BEFORE),
    ("credits before a clear, finished", signed(BEFORE, max_tries=2), "", FINISHED_RUN, SAME),
)
def test_usable_run_of_an_earlier_try_is_reattached(entry, kind, run, kept):
    played = play(entry, run, wanted=request(kind=kind), cap=100)
    assert played.over == Started(kept, run, None)
    assert played.written == ([] if kept == entry else [kept])
    [call] = played.asked
    assert call.name == ("query-run" if kind == "bot" else "get-task")
    assert "7" in (call.params.get("task_id"), *call.path.split("/"))
    assert played.lines == [*[NEW_KEY] * (entry.key_digest != KEY_DIGEST), REATTACHING]
    assert played.task_id == "7"


NOT_WANTED = "an earlier try had other inputs or another profile"
WAS_STOPPED = "was stopped", "the Airflow task was cleared"
BEFORE_STOP = "ended before its stop"
NO_RESULT = "it has no result"
OF_WORKFLOW = "was stopped", "it is a run of workflow 70"
HAS_ENDED = errors.TaskEndedError("x", code=10121)
FORGOTTEN = f"BrowserAct does not know the run of an earlier try with this API key. {WHY_UNKNOWN}"
STARTED = "Started a run of {}: BrowserAct task 9."


@cases(
    ("failed", SAME, "", [FAILED_RUN], ("has ended as failed", NO_RESULT)),
    ("other inputs", OTHER_INPUTS, "", [RUN, None], ("was stopped", NOT_WANTED)),
    ("other inputs, ended meanwhile", OTHER_INPUTS, "", [RUN, HAS_ENDED, FINISHED_RUN], (BEFORE_STOP, NOT_WANTED)),
    ("other inputs, finished", OTHER_INPUTS, "", [FINISHED_RUN], ("has ended as finished", NOT_WANTED)),
    ("cleared", CLEARED, "", [RUN, None], WAS_STOPPED),
    ("cleared, failed meanwhile", CLEARED, "", [RUN, HAS_ENDED, FAILED_RUN], (BEFORE_STOP, WAS_STOPPED[1])),
    ("workflow before, bot now", SAME, "bot", [RUN, None], OF_WORKFLOW),
    ("bot before, workflow now", OF_BOT, "", [BOT_RUN, None], ("was stopped", "it is a run of bot 70")),
    ("forgotten, then cleared", CLEARED, "", [GONE], WAS_STOPPED),
)
def test_unusable_run_of_an_earlier_try_is_replaced_by_a_new_one(entry, kind, answers, log):
    wanted = request(kind=kind)
    played = play(entry, *answers, MADE, wanted=wanted)
    spent = 40 if answers[0] is FAILED_RUN else 0
    before = signed(NEW, source=wanted.source, fingerprint=wanted.fingerprint(KEY), spent=spent)
    made = signed(before, task_id="9", profile_id="profile of 9")
    assert played.over == Started(made, None, wanted)
    assert played.written == [before, made]
    read_and_stop = ["query-run", "cancel-run"] if entry.source == BOT else ["get-task", "stop-task", "get-task"]
    assert played.names == [*read_and_stop[: len(answers)], wanted.call.name]
    what, why = log
    line = f"The run of an earlier try {what}. Starting a new run, because {why}. It was BrowserAct task 7."
    if answers == [GONE]:
        active = "A run may be active and using credits: BrowserAct task 7."
        line = f"{FORGOTTEN} Starting a new run, because {why}. {active}"
    assert played.lines == [line, STARTED.format(wanted.source)]


@pytest.mark.parametrize("max_tries", [3, 4], ids=["retried", "cleared"])
def test_entry_of_a_found_run_that_came_to_nothing_is_proven_when_a_refused_start_restores_it(max_tries):
    refused = play(signed(SAME, task_id=None), page_of(FAILED_RUN), FAILED_RUN, FULL, max_tries=max_tries)
    assert isinstance(refused.over, NotNowError)
    assert play(refused.written[-1], FAILED_RUN, MADE, max_tries=max_tries).started.task_id == "9"


@pytest.mark.parametrize(("kind", "starts"), [("workflow", True), ("bot", True), ("template", False)])
def test_list_with_another_api_key_proves_that_there_is_no_run_only_of_what_another_account_cannot_run(kind, starts):
    entry = replace(earlier(kind, task_id=None), key_digest="f" * 16)
    played = play(entry, page_of(), *([MADE] if starts else []), wanted=request(kind=kind))
    assert isinstance(played.over, Started if starts else AirflowFailException)
    assert play(replace(entry, max_tries=2), page_of(), MADE, wanted=request(kind=kind)).started.task_id == "9"


NOT_STARTED = (
    f"{FORGOTTEN}\nNothing was started or stopped. Make sure that no run is running. Then clear the Airflow task, "
    "which starts a new run."
)
NOT_CERTAIN = (
    "The state that an earlier try stored about its run cannot be used: the API key has changed, and it is not certain "
    "that the run is one of this task instance.\nNothing was started or stopped."
)
DOWN = errors.ServerError("down", http_status=503)
NO_ROUTE = errors.NotFoundError("no route", http_status=404)


@cases(
    ("forgotten", SAME, "", GONE, AirflowFailException, NOT_STARTED),
    ("cleared, down", CLEARED, "", DOWN, errors.ServerError, "down"),
    ("cleared, 404 of a gateway", CLEARED, "", NO_ROUTE, errors.NotFoundError, "no route"),
    ("other key, no match", OTHER_KEY, "", replace(RUN, workflow_id="71"), AirflowFailException, NOT_CERTAIN),
    ("other key, no certain match", OTHER_KEY, "", listed_run("7", 900.0), AirflowFailException, NOT_CERTAIN),
    ("other key, other source", OTHER_KEY, "bot", RUN, AirflowFailException, NOT_CERTAIN),
)
def test_nothing_is_started_if_the_run_of_an_earlier_try_is_not_known(entry, kind, answer, error, text):
    played = play(entry, answer, wanted=request(kind=kind))
    assert type(played.over) is error
    assert str(played.over).startswith(text)
    assert (len(played.asked), played.written) == (1, [])
    if text is not NOT_CERTAIN:
        return
    assert played.task_id is None
    cleared = play(replace(entry, max_tries=2), answer, MADE, wanted=request(kind=kind))
    assert cleared.started.entry.earlier == ("7",)
    [warning] = cleared.warnings
    assert warning.endswith("may be active and using credits: BrowserAct task 7.")


MOVED = {"dag_id": "other", "run_id": "other", "task_id": "other", "map_index": 0}


@cases(
    ("forged proof", replace(SAME, proof="0" * 64)),
    ("proof of another run", replace(SAME, task_id="8")),
    ("other source", replace(SAME, source=BOT)),
    ("other time", replace(SAME, written_at=1001.0)),
    ("other connection", replace(SAME, connection="other")),
    ("other earlier runs", replace(SAME, earlier=())),
    *(
        (f"proof of another {name}", SAME.signed(SETTINGS, SimpleNamespace(**{**vars(TI), name: value})))
        for name, value in MOVED.items()
    ),
    ("proof of another key", SAME.signed(Settings(api_key="app-other"), TI)),
    ("lost start", replace(SAME, task_id=None)),
)
def test_entry_without_a_proof_of_this_task_instance_is_not_acted_on(entry):
    played = play(entry)
    assert isinstance(played.over, AirflowFailException)
    assert "nothing proves that this task instance stored it" in str(played.over)
    assert (entry.task_id is None) or f"BrowserAct task {entry.task_id}." in str(played.over)
    assert (played.asked, played.written, played.task_id) == ([], [], None)
    cleared = play(replace(entry, max_tries=2), MADE)
    assert cleared.started.entry.earlier == ((entry.task_id,) if entry.task_id else ())
    assert cleared.names == ["run-task"]


class TestCreditsOfEarlierTries:
    @cases(
        ("failed", BEFORE, [FAILED_RUN], 65),
        ("stopped because of other inputs", signed(OTHER_INPUTS, spent=25), [replace(RUN, credit=40), None], 65),
        ("finished with other inputs", signed(OTHER_INPUTS, spent=25), [replace(FINISHED_RUN, credit=40)], 65),
        ("steps instead of credits", BEFORE, [replace(FAILED_RUN, credit=None, steps=(Step(number=1),) * 9)], 70),
        ("was never started", signed(BEFORE, task_id=None), [page_of()], 25),
        ("found by its inputs", signed(BEFORE, task_id=None), [page_of(RUN), FAILED_RUN], 65),
        ("failed before a clear", signed(BEFORE, max_tries=2), [FAILED_RUN], 0),
        ("no longer exists since a clear", signed(BEFORE, max_tries=2), [GONE], 0),
        ("was never started before a clear", signed(BEFORE, task_id=None, max_tries=2), [page_of()], 0),
    )
    # Someone may set a cap before the next try.
    @pytest.mark.parametrize("cap", [100, None], ids=["with a cap", "without a cap"])
    def test_new_run_gets_the_credits_that_were_used_since_the_last_clear(self, cap, entry, answers, spent):
        played = play(entry, *answers, MADE, cap=cap)
        assert (played.started.task_id, played.started.entry.spent) == ("9", spent)
        assert played.written[-2] == signed(played.started.entry, task_id=None, profile_id=None)

    @pytest.mark.parametrize(
        ("max_tries", "credit", "allowed"), [(3, 74, True), (3, 75, False), (3, 200, False), (2, 200, True)]
    )
    def test_cap_that_earlier_runs_have_used_up_prevents_a_start_until_a_clear(self, max_tries, credit, allowed):
        answers = [replace(FAILED_RUN, credit=credit), *([MADE] if allowed else [])]
        played = play(signed(BEFORE, max_tries=max_tries), *answers, cap=100)
        assert isinstance(played.over, Started if allowed else CapUsedUpError)
        assert ("run-task" in played.names) == allowed
        assert bool(played.written) == allowed


class TestAnUnansweredStartOfAnEarlierTry:
    ENTRY = signed(SAME, task_id=None)
    UNKNOWN_INPUTS = signed(ENTRY, fingerprint="f" * 64)
    LOOKING = "An earlier try was about to start a run and did not store the result. Looking for the run."

    def test_lost_run_of_an_earlier_try_is_found_written_down_and_reattached(self):
        played = play(self.ENTRY, page_of(RUN), RUN)
        assert played.over == Started(SAME, RUN, None)
        assert played.written == [SAME]
        assert played.lines == [self.LOOKING, REATTACHING]
        since, until = at(1000.0 - timings.CLOCK_SKEW), at(1100.0 + timings.LIST_READS[1] + timings.CLOCK_SKEW)
        window = v2.list_tasks(source_id="70", created_at_from=since, created_at_to=until)
        assert played.asked[0].params == window.params

    @pytest.mark.parametrize(("shown", "kept"), [("of the list", "of the list"), (None, "9")])
    def test_profile_of_a_lost_run_comes_from_the_list_if_the_list_has_one(self, shown, kept):
        assert play(self.ENTRY, page_of(replace(RUN, profile_id=shown)), RUN).started.entry.profile_id == kept

    def test_lost_run_is_found_by_its_inputs_although_the_api_key_has_changed(self):
        entry = replace(self.ENTRY, fingerprint="e" * 64, key_digest="f" * 16)
        played = play(entry, page_of(listed_run("6", input_parameters="keyword=ink"), RUN), RUN)
        assert played.over == Started(SAME, RUN, None)

    @cases(
        ("long after it", 2000.0, 1, []),
        ("when it must be listed", 1220.0, 1, []),
        ("before", 1212.0, 2, [8.0]),
        ("soon after it", 1100.0, 2, [60.0, 60.0]),
    )
    def test_list_is_read_when_the_start_must_be_in_it(self, now, pages, slept):
        played = play(self.ENTRY, *[page_of()] * pages, MADE, now=now)
        assert played.slept == slept
        assert played.lines == [self.LOOKING, "No matching run was found.", STARTED.format(SOURCE)]
        assert played.started.entry.earlier == ("5", "6")

    def test_finished_run_that_was_given_up_earlier_is_not_taken_for_the_lost_one(self):
        assert play(self.ENTRY, page_of(replace(FINISHED_RUN, id="5")), MADE).started.task_id == "9"

    def test_any_run_may_be_the_one_if_the_inputs_are_not_known_any_more_until_a_clear(self):
        runs = page_of(replace(RUN, input_parameters="keyword=ink"))
        assert isinstance(play(self.UNKNOWN_INPUTS, runs).over, AirflowFailException)
        cleared = play(self.UNKNOWN_INPUTS, runs, MADE, max_tries=4)
        assert cleared.started.task_id == "9"
        [warning] = cleared.warnings
        assert warning.startswith("The response to a start was lost. Each run below may be the one that it created.")
        named = "BrowserAct tasks of workflow 70: 7 (running, created at 1970-01-01 00:16:40 UTC)."
        assert warning.endswith(f"Starting a new run, because the Airflow task was cleared. {named}")

    @pytest.mark.parametrize("kind", ["workflow", "bot"])
    def test_lost_start_of_an_earlier_operator_is_looked_up_in_its_version_of_the_api(self, kind):
        now = request(kind="bot" if kind == "workflow" else "workflow")
        run = bot_run("7") if kind == "bot" else RUN
        played = play(earlier(kind, task_id=None), page_of(run), wanted=now)
        # A person has to decide whether this is the run.
        assert isinstance(played.over, AirflowFailException)
        assert played.names == ["page-runs" if kind == "bot" else "list-tasks"]


TWO_READS = [page_of(), page_of()]
PAGE = errors.UnexpectedResponseError("not from BrowserAct's API", http_status=403)
LATE = listed_run("8", 2055.0)


class TestAStart:
    @pytest.mark.parametrize("entry", [None, SAME], ids=["no entry", "entry of a failed run"])
    @cases(
        ("no slot", [FULL], FULL),
        ("too many requests", [LIMITED], LIMITED),
        ("refused", [REFUSED], REFUSED),
        ("surely made no run", [LOST, *TWO_READS] * 2, LOST),
        ("unclear refusal", [UNCLEAR, *TWO_READS], UNCLEAR),
        ("page instead of a response", [PAGE, *TWO_READS] * 2, PAGE),
    )
    def test_start_that_made_no_run_restores_the_entry_before(self, entry, answers, error):
        played = play(entry, *([] if entry is None else [FAILED_RUN]), *answers)
        waits = isinstance(error, errors.ConcurrencyLimitError | errors.RateLimitError)
        assert (played.over.why if waits else played.over) is error
        # An unclear refusal is looked up and not sent again.
        starts = answers.count(error)
        assert played.names.count("run-task") == starts
        assert played.written[1::2] == [entry] * starts
        assert all(each is not None and each.task_id is None for each in played.written[::2])
        assert not played.starting

    def test_start_with_lost_response_is_looked_up_and_sent_at_most_twice(self):
        played = play(None, *[LOST, *TWO_READS] * 2)
        assert [text for text in played.lines if "(start" in text] == ["No run was started (start 1 of 2)."]
        assert played.slept == [60.0] * 4
        assert [entry.written_at for entry in played.written if entry is not None] == [2000.0, 2120.0]

    def test_budget_is_checked_before_each_start(self):
        used_up = NotNowError(FULL)
        played = play(None, LOST, *TWO_READS, budgets=(None, used_up))
        assert played.over is used_up
        assert played.names == ["run-task", "list-tasks", "list-tasks"]
        assert played.written[-1] is None

    @cases(
        ("lost", LOST, OWN, request(), request()),
        ("profile", LOST, replace(OWN, profile_id="profile of 8"), request(), request()),
        ("no inputs", LOST, replace(OWN, input_parameters=None), request(inputs={}), request(inputs={})),
        ("unclear refusal", UNCLEAR, OWN, request(), request()),
        # The given request is stored.
        ("other inputs", LOST, replace(OWN, input_parameters="keyword=ink"), request(), request("ink")),
    )
    def test_run_of_a_lost_response_is_adopted_if_it_fits_the_request_that_was_sent(self, error, run, wanted, sent):
        played = play(None, error, page_of(run), wanted=wanted, checked=sent)
        kept = signed(NEW, earlier=(), task_id="8", profile_id=run.profile_id, fingerprint=wanted.fingerprint(KEY))
        assert played.over == Started(kept, None, sent)
        assert "The run of this start was found: BrowserAct task 8." in played.lines
        assert played.names.count("run-task") == 1
        assert played.asked[0].body == sent.call.body

    @pytest.mark.parametrize("error", [DOWN, LOST, PAGE], ids=str)
    @cases(
        ("first read", page_of(LATE), None, [60.0]),
        ("second read", page_of(), page_of(LATE), [60.0, 60.0]),
        ("first read fails", DOWN, page_of(LATE), [60.0, 60.0]),
        ("first read has an uncertain one", page_of(listed_run("8", None)), page_of(LATE), [60.0, 60.0]),
        ("first read has several", page_of(LATE, replace(LATE, id="9")), page_of(LATE), [60.0, 60.0]),
    )
    def test_run_that_is_listed_late_is_found_at_the_first_read_that_has_it(self, error, first, second, slept):
        played = play(None, error, *filter(None, (first, second)))
        assert (played.started.task_id, played.slept) == ("8", slept)

    @cases("apart", {"behind": -61, "a little behind": -60, "a little ahead": 60, "ahead": 61})
    def test_empty_list_proves_nothing_if_the_clocks_differ_by_more_than_a_minute(self, apart):
        pages = [replace(page_of(), served_at=at(2060.0 + apart + after)) for after in (0, 60)]
        if abs(apart) == 60:
            assert play(None, LOST, *pages, MADE).started.task_id == "9"
            return
        played = play(None, LOST, *pages)
        assert isinstance(played.over, errors.RunStartUnknownError)
        theirs, ours = f"{at(2120.0 + apart):%Y-%m-%d %H:%M:%S} UTC", "1970-01-01 00:35:20 UTC"
        assert f"BrowserAct's clock shows {theirs}, and that of this machine {ours}" in str(played.over)
        assert played.written[-1] is not None

    @cases({"one freeze": ([30.0], [2000.0, 2030.0]), "each takes long": ([30.0] * 9, [2000.0, 2030.0, 2060.0])})
    def test_entry_that_is_no_longer_fresh_is_stored_again_before_the_request(self, slow_writes, written):
        left = iter(slow_writes)

        def before(name: str) -> None:
            played.now += next(left, 0.0) if name == "write" and "run-task" not in played.names else 0.0

        played = Played(lambda _: MADE, before=before)
        # The entry is dated when storing it begins.
        played.start(None)
        assert [entry.written_at for entry in played.written[:-1] if entry] == written

    def test_entry_is_stored_again_before_a_further_request_and_a_refusal_of_airflow_ends_the_start(self):
        played = Played(lambda _: MADE)

        def send(call: Call[Any], before: Any) -> None:
            before()
            played.now += 6.0
            played.ledger.write = raising(RuntimeError("Task Instance not found"))
            before()

        played.hook.client.send = send
        with pytest.raises(RuntimeError, match="not found"):
            played.start(None)
        assert not played.starting

    def test_failed_search_for_a_lost_start_raises_and_keeps_the_entry(self):
        failed = errors.ServerError("x", http_status=503, code=7, msg="m", trace_id="t")
        played = play(None, LOST, page_of(), failed)
        error = played.over
        assert isinstance(error, errors.RunStartUnknownError)
        assert "looking for it failed: x" in str(error)
        assert (error.http_status, error.code, error.msg, error.trace_id) == (503, 7, "m", "t")
        assert played.written == [signed(NEW, earlier=())]
        assert played.starting

    def test_entry_is_dated_after_slow_checks_before_the_start(self):
        assert play(None, MADE, checks_take=300.0).started.entry.written_at == 2300.0


UNDECIDED, UNKNOWN = "it cannot be decided", "it is not known"


def look_up(page: Any, kind: str = "workflow", **how: Any) -> Played:
    """Lose the response to a start at second 1000, and look up the run. If none is found, another start creates task 9.

    :param page: the page that each list has, or an iterator of pages.
    """
    pages = itertools.repeat(page) if isinstance(page, Page) else page
    starts: Iterator[object] = iter([LOST, CreatedTask(id="9")])
    played = Played(lambda call: next(starts) if call.starts_run else next(pages), now=1000.0, **how)
    return played.start(None, request(kind=kind))


def outcome(played: Played) -> str:
    """Return the id of the run; or that the look-up cannot decide, or cannot find out, which it is."""
    if isinstance(played.over, Started):
        return played.over.task_id
    return {AirflowFailException: UNDECIDED, errors.RunStartUnknownError: UNKNOWN}[type(played.over)]


@pytest.mark.parametrize(
    ("kind", "fields", "task_id"),
    [
        ("workflow", {}, "5"),
        ("workflow", {"created": None}, UNDECIDED),
        ("workflow", {"created": 1000.0 - timings.CLOCK_RESOLUTION}, "5"),
        ("workflow", {"created": 1000.0 - timings.CLOCK_RESOLUTION - 1}, UNDECIDED),
        ("workflow", {"created": 1000.0 - timings.CLOCK_SKEW}, UNDECIDED),
        ("workflow", {"created": 1000.0 - timings.CLOCK_SKEW - 1}, "9"),
        ("workflow", {"created": 1000.0 + timings.LIST_READS[1] + timings.CLOCK_SKEW}, "5"),
        ("workflow", {"created": 1001.0 + timings.LIST_READS[1] + timings.CLOCK_SKEW}, "9"),
        ("workflow", {"workflow_id": None}, "5"),
        ("workflow", {"workflow_id": "71"}, "9"),
        ("workflow", {"input_parameters": "keyword=ink"}, "9"),
        ("workflow", {"input_parameters": None}, UNDECIDED),
        ("workflow", {"profile_id": "8"}, "5"),
        ("workflow", {"status": TaskStatus.FAILED}, "5"),
        # It is not certain, and nobody can use such a run.
        ("workflow", {"status": TaskStatus.CANCELED, "created": None}, "9"),
        ("with a profile", {"profile_id": "9"}, "5"),
        ("with a profile", {"profile_id": "8"}, "9"),
        ("with a profile", {"profile_id": None}, UNDECIDED),
        ("template", {"workflow_id": "71"}, UNDECIDED),
        ("template", {"input_parameters": "keyword=ink"}, "9"),
        ("bot", {}, "5"),
        ("bot", {"bot_id": "71"}, "9"),
        ("bot", {"input": {"keyword": "ink"}}, "9"),
        ("bot", {"input": None}, UNDECIDED),
        ("bot template", {"bot_id": None}, UNDECIDED),
        ("bot template", {"bot_id": None, "input": {"keyword": "ink"}}, "9"),
        ("bot template", {}, "9"),
    ],
    ids=str,
)
def test_look_up_adopts_a_run_that_certainly_matches_and_ignores_no_possible_one(kind, fields, task_id):
    run = bot_run if kind.startswith("bot") else listed_run
    played = look_up(page_of(run(**fields)), kind=kind)
    assert outcome(played) == task_id
    if task_id == UNDECIDED:
        what = kind if "template" in kind or kind == "bot" else "workflow"
        begins = f"\nBrowserAct tasks of {what} 70: 5"
        assert begins in str(played.over)
        # The next try looks the run up again.
        assert played.written[-1] is not None


@cases(
    ("several possible runs", page_of(listed_run("5", 980.0), listed_run("6", 990.0)), UNDECIDED),
    ("two runs that certainly match", page_of(*map(listed_run, "56")), UNDECIDED),
    ("two that failed", page_of(*(listed_run(each, status=TaskStatus.FAILED) for each in "56")), "9"),
    ("a list that contradicts itself", Page(items=(), total_count=3), UNKNOWN),
)
def test_look_up_starts_no_other_run_while_one_is_possible_or_the_list_cannot_be_read_to_its_end(page, found):
    assert outcome(look_up(page)) == found


def test_ten_possible_runs_are_named_in_the_error_the_newest_first():
    many = [listed_run(str(100 + age), 990.0 - age) for age in reversed(range(30))]
    text = str(look_up(page_of(*many)).over)
    assert "BrowserAct tasks of workflow 70: 100 (running, created at 1970-01-01 00:16:30 UTC), 101 (" in text
    assert ", 109 (running, created at 1970-01-01 00:16:21 UTC), and 20 more." in text


@cases(
    ("undecided", 970.0, PENS_LISTED),
    ("another", 1003.0, "keyword=ink"),
)
def test_the_one_run_that_certainly_matches_is_adopted_beside_an_undecided_or_another_one(created, inputs):
    other = listed_run("4", created, TaskStatus.FINISHED, input_parameters=inputs)
    assert outcome(look_up(page_of(listed_run("5", 1001.0), other))) == "5"


def test_run_of_a_mapped_sibling_is_not_adopted():
    assert outcome(look_up(page_of(listed_run("5"), listed_run("6")), siblings=("5",))) == "6"
    assert outcome(look_up(page_of(listed_run("5")), siblings=("5",))) == "9"


@pytest.mark.parametrize("place", [0, 149], ids=["first page", "second page"])
def test_run_is_found_on_each_page_of_the_list(place):
    runs = [bot_run(str(number), input={"keyword": "ink"}) for number in range(100, 249)]
    runs.insert(place, bot_run("5"))
    pages = [Page(items=tuple(each), total_count=150) for each in (runs[:100], runs[100:])]
    played = look_up(iter(pages), kind="bot")
    assert (outcome(played), played.slept) == ("5", [60.0])


@pytest.mark.parametrize(
    ("kind", "name", "of"),
    [
        ("workflow", "list-tasks", {"workflow_id": "70"}),
        ("template", "list-tasks", {}),
        ("bot", "page-runs", {"bot_id": "70"}),
        ("bot template", "page-runs", {}),
    ],
)
def test_look_up_lists_the_runs_of_the_workflow_or_bot_or_all_if_a_template_was_run(kind, name, of):
    listing = look_up(page_of(), kind=kind).asked[1]
    ids = {each: value for each, value in listing.params.items() if each.endswith("_id")}
    assert (listing.name, ids) == (name, of)
