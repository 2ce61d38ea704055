"""What is written down of a run, and any interleaving of deaths, lost answers and clock steps."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import (
    BrowserActError,
    ConcurrencyLimitError,
    ConnectionFailedError,
    InvalidRequestError,
    RateLimitError,
    ResponseLostError,
    RunStartUnknownError,
    ServerError,
    TaskEndedError,
    TaskNotFoundError,
)
from airflow_provider_browseract.api.models import (
    CreatedTask,
    InputParameter,
    Page,
    Task,
    TaskStatus,
    Template,
    Workflow,
)
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.ledger import (
    LATEST,
    AskClaimed,
    BeforeStart,
    Entry,
    LedgerError,
    OnOrphan,
    OrphanError,
    PlanFull,
    StartedRun,
    Wanted,
    Write,
    begin,
    fingerprint,
    inputs_match,
)
from airflow_provider_browseract.runs.steps import Say, Sleep
from tests.steps import carry_out

ENTRY = Entry("70", "f" * 64, 1000.0, 8200.0, "0" * 64, "7", "9", ("5", "6"), 3)


PATIENCE = 100.0

PENS_LISTED = "keyword=pens"
"""How the API lists the inputs of the starts."""


def pairs(**inputs: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in inputs.items()]


def wanted(keyword: str = "pens", max_tries: int = 3, kind: str = "deferred") -> Wanted:
    given: dict[str, Any] = {"input_parameters": pairs(keyword=keyword), "callback_url": f"https://x.example/{keyword}"}
    if kind == "template":
        call = calls.run_task_by_template("70", **given)
    else:
        call = calls.run_task("70", **given, profile_id="9" if kind == "with a profile" else None)
    deferred = kind != "in the worker"
    return Wanted(call, timeout=3600.0, callback_token_sha256=None, max_tries=max_tries, deferred=deferred)


class TestAnEntry:
    def test_ledger_entry_survives_a_json_round_trip(self):
        assert Entry.read(json.loads(json.dumps(ENTRY.value()))) == ENTRY

    @pytest.mark.parametrize("name", sorted(ENTRY.value()))
    @pytest.mark.parametrize("wrong", [[], {"a": 1}, True, ""], ids=["list", "dict", "boolean", "empty string"])
    def test_ledger_entry_with_an_invalid_field_is_refused_by_field_name(self, name, wrong):
        if name == "earlier" and wrong == []:
            return
        if name in ("version", "is_template") and wrong is True:
            return
        with pytest.raises(LedgerError, match=name):
            Entry.read({**ENTRY.value(), name: wrong})

    @pytest.mark.parametrize("name", ["written_at", "deadline"])
    def test_ledger_entry_with_the_first_possible_timestamp_is_read(self, name):
        assert getattr(Entry.read({**ENTRY.value(), name: 0.0}), name) == 0.0

    def test_ledger_entry_that_does_not_say_what_it_is_of_is_one_of_a_workflow(self):
        value = ENTRY.value()
        del value["is_template"]
        assert Entry.read(value).is_template is False

    @pytest.mark.parametrize("name", ["written_at", "deadline"])
    @pytest.mark.parametrize("moment", [-1.0, float("nan"), float("inf"), LATEST, 1e12], ids=str)
    def test_ledger_entry_with_an_impossible_timestamp_is_refused(self, name, moment):
        with pytest.raises(LedgerError, match=name):
            Entry.read({**ENTRY.value(), name: moment})

    def test_ledger_entry_with_an_unknown_field_is_read_without_that_field(self):
        assert Entry.read({**ENTRY.value(), "new": 1}) == ENTRY

    def test_ledger_entry_of_a_newer_version_is_refused(self):
        with pytest.raises(LedgerError, match="its version is 2, and this provider knows 1"):
            Entry.read({**ENTRY.value(), "version": 2})


def test_task_of_an_entry_without_one_is_an_error_of_the_caller():
    assert StartedRun(ENTRY).task_id == "7"
    with pytest.raises(ValueError, match="the entry names no task"):
        _ = StartedRun(replace(ENTRY, task_id=None)).task_id


class TestAFingerprint:
    def test_fingerprint_is_the_same_for_different_callback_urls(self):
        first, second = (
            calls.run_task("70", input_parameters=pairs(a="1"), callback_url=f"https://x.example/{token}")
            for token in ("one", "two")
        )
        assert fingerprint(first) == fingerprint(second)

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (pairs(a="1", b="2"), pairs(b="2", a="1")),
            (pairs(a='{"x": 1, "y": [{"p": 1, "q": 2}]}'), pairs(a='{"y": [{"q": 2, "p": 1}], "x": 1}')),
            (pairs(a='[{"p": 1, "q": 2}]'), pairs(a='[{"q": 2, "p": 1}]')),
        ],
        ids=["inputs", "keys in the JSON of one", "keys in a list"],
    )
    def test_fingerprint_ignores_the_order_of_inputs_and_of_json_keys(self, first, second):
        first, second = (calls.run_task("70", input_parameters=inputs) for inputs in (first, second))
        assert fingerprint(first) == fingerprint(second)

    @pytest.mark.parametrize(
        "other",
        [
            calls.run_task("71", input_parameters=pairs(a="1")),
            calls.run_task("70", input_parameters=pairs(a="2")),
            calls.run_task("70", input_parameters=pairs(a="[1, 2]")),
            calls.run_task("70", input_parameters=pairs(a="[2, 1]")),
            calls.run_task("70", input_parameters=pairs(a="[broken")),
            calls.run_task("70", input_parameters=pairs(a="1.0")),
            calls.run_task("70", input_parameters=pairs(a="1"), profile_id="9"),
            calls.run_task("70", input_parameters=pairs(a="1"), save_browser_data=True),
        ],
        ids=[
            "other workflow",
            "other input",
            "list",
            "reversed list",
            "broken JSON",
            "number",
            "profile",
            "saved browser data",
        ],
    )
    def test_fingerprint_differs_for_another_workflow_input_or_profile_setting(self, other):
        assert fingerprint(calls.run_task("70", input_parameters=pairs(a="1"))) != fingerprint(other)

    @pytest.mark.parametrize(
        ("first", "second"), [('{"a": 1}', '{"a": 2}'), ("1e2", "100.0")], ids=["JSON objects", "spellings of a number"]
    )
    def test_fingerprint_differs_for_other_values(self, first, second):
        first, second = (calls.run_task("70", input_parameters=pairs(a=value)) for value in (first, second))
        assert fingerprint(first) != fingerprint(second)


class TestInputsListedByTheApi:
    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("a=1; b=two words", True),
            ("b=two words; a=1", True),
            ("a=1;b=two words;", True),
            ("a = 1; b=  two\nwords ", True),
            ("a=2; b=two words", False),
            ("a=11; b=two words", False),
            ("b=other", False),
            ("a=1", None),
            ("a=1; b=two words; c=3", None),
            ("", None),
            ('[{"name": "a", "value": "1"}]', None),
            ("data=5", None),
            ("a=***; b=two words", None),
            ("a=1; b=tw...", None),
        ],
        ids=[
            "same order",
            "other order",
            "other separators",
            "other whitespace",
            "other value",
            "longer value",
            "other value with one missing",
            "one missing",
            "one more",
            "empty",
            "JSON pairs",
            "unknown name only",
            "masked value",
            "value cut short",
        ],
    )
    def test_inputs_listed_by_the_api_match_differ_or_remain_undecided(self, text, match):
        assert inputs_match(text, pairs(a="1", b="two words")) is match

    def test_truncated_input_is_undecided_or_differs_by_its_prefix(self):
        assert inputs_match(f"a={'x' * 64}; b=2", pairs(a="x" * 99, b="2")) is None
        assert inputs_match(f"a={'x' * 64}; b=2; a=z", pairs(a="x" * 99, b="2")) is None
        assert inputs_match("a=1; b=tw\u2026", pairs(a="1", b="two words")) is None
        assert inputs_match(f"a={'x' * 64}", pairs(a="x" * 99)) is None
        assert inputs_match(f"a={'x' * 64}", pairs(a="y" * 99)) is False

    def test_inputs_with_separators_in_their_values_still_match(self):
        assert inputs_match("a=1; b=x=y; c=; d=2", pairs(a="1; b=x=y", c="; d=2")) is True

    def test_run_without_inputs_matches_only_an_empty_listing(self):
        assert inputs_match("", []) is True
        assert inputs_match("a=1", []) is None

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("a=1; b=2; c=3", True),
            ("c=3; a=1; d=; b=2", True),
            ("c=x; y; d=4; a=1; b=2;", True),
            ("a=1; c=3", None),
            ("a=1; b=2; e=5", None),
            ("c=5+a=1; b=2", None),
            ("a=1; b=2; c=3; c=4", None),
            ("a=1; c=3; r=4; b=2", None),
            ("a=1; c=3; u=4; b=2", True),
            ("a=1; b=2; c=3; u=4", True),
            ("a=2; b=2; c=3", False),
        ],
        ids=[
            "one",
            "both, between",
            "with a separator",
            "one missing",
            "unknown",
            "in a value",
            "twice",
            "without a default",
            "not declared, before one that was sent",
            "not declared, at the end",
            "other value",
        ],
    )
    def test_listing_may_have_inputs_with_defaults_besides_those_that_were_sent(self, text, match):
        declared = [InputParameter(name, name != "r") for name in ("a", "c", "d", "r")]
        assert inputs_match(text, pairs(a="1", b="2"), declared) is match

    def test_many_inputs_with_defaults_are_matched_in_no_time(self):
        declared = [InputParameter(f"n{number}", True) for number in range(60)]
        listed = "; ".join(f"{one.name}=1" for one in declared)
        assert inputs_match(f"password=***; {listed}", pairs(password="x"), declared) is None
        assert inputs_match(f"password=x; {listed}", pairs(password="x"), declared) is True


@dataclass
class Service:
    """A BrowserAct that forgets nothing: every run that it ever made, and those of someone else.

    :param lag: seconds until a new run is in the list.
    :param cleared: whether a person has asked for a new run since the last one was made.
    """

    now: float = 10_000.0
    lag: float = 0.0
    cleared: bool = False
    others: list[Task] = field(default_factory=list)
    runs: dict[str, Task] = field(default_factory=dict)

    def start(self, call: calls.Call[CreatedTask]) -> CreatedTask:
        """Make a run."""
        assert call.body is not None
        told = "; ".join(f"{pair['name']}={pair['value']}" for pair in call.body["input_parameters"])
        if self.runs:
            last = list(self.runs.values())[-1]
            came_to_nothing = last.status in (TaskStatus.FAILED, TaskStatus.CANCELED)
            not_wanted = last.status.ended and last.input_parameters != told
            # A run that ends while it is being stopped for a person's sake.
            not_wanted |= last.status.ended and self.cleared
            assert came_to_nothing or not_wanted, f"a start that nothing explains, after {last}"
        made = str(100 + len(self.runs))
        self.cleared = False
        created = datetime.fromtimestamp(int(self.now), timezone.utc)
        self.runs[made] = Task(made, TaskStatus.RUNNING, "70", created, input_parameters=told)
        return CreatedTask(made)

    def answer(self, call: calls.Call[Any]) -> Any:
        """Carry out any other call."""
        if call.path.endswith("list-tasks"):
            since, until = (
                datetime.fromisoformat(str(call.params[name]).replace("Z", "+00:00"))
                for name in ("created_at_from", "created_at_to")
            )
            listed = datetime.fromtimestamp(self.now - self.lag, timezone.utc)
            found = [
                task
                for task in (*self.others, *self.runs.values())
                if since <= (task.created_at or since) <= min(until, listed)
            ]
            return Page(tuple(found), number=1, total_pages=1, total_count=len(found))
        if call.path.endswith("list-workflows"):
            return Page((Workflow("70"), Workflow("71")), number=1, total_count=2)
        if call.path.endswith("get-workflow"):
            return Workflow("70", input_parameters=(InputParameter("keyword", False),))
        if call.path.endswith("get-official-workflow-template"):
            return Template("70", name="Search", input_parameters=(InputParameter("keyword", False),))
        known = {task.id: task for task in (*self.others, *self.runs.values())}
        task = known[str(call.params["task_id"])]
        if call.path.endswith("stop-task"):
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
        kind=st.sampled_from(["deferred", "in the worker", "template", "with a profile"]),
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
        """Let the try go on to its next step."""
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
        """Look at what the beginning came to, beside what is written down."""
        assert isinstance(outcome, StartedRun | PlanFull)
        if isinstance(outcome, StartedRun):
            self.followed = outcome.task_id
            entry = Entry.read(json.loads(self.stored or "null"))
            assert entry.task_id == self.followed
            assert self.followed in self.service.runs
            assert entry.is_template == (self.kind == "template")
            # An entry of an earlier try keeps what was written down then.
            assert (entry.max_tries is None) == (self.kind == "in the worker")

    @precondition(lambda self: self.steps is None)
    @rule()
    def a_try_begins(self) -> None:
        self.followed = None
        entry = None if self.stored is None else Entry.read(json.loads(self.stored))
        self.reply = None
        self.steps = begin(
            wanted(self.keyword, self.max_tries, self.kind),
            entry,
            patience=PATIENCE,
            on_orphan=OnOrphan.FAIL,
            clock=lambda: self.service.now,
        )
        self.pending = self._advance()

    @precondition(lambda self: self.steps is not None)
    @rule(
        steps=st.integers(1, 8),
        fate=st.sampled_from(["well", "well", "well", "lost", "never arrived", "broken", "no room"]),
    )
    def the_try_goes_on(self, steps: int, fate: str) -> None:
        """Let all steps but the last one go well."""
        for step in range(1, steps + 1):
            if self.steps is not None:
                self._take_step(fate if step == steps else "well")

    @precondition(lambda self: self.steps is not None)
    @rule(fate=st.sampled_from(["lost", "never arrived", "broken"]), steps=st.integers(0, 30))
    def the_start_meets_its_fate(self, fate: str, steps: int) -> None:
        """Let all go well up to the start and for some steps after it, but not the start itself."""
        for _ in range(60):
            if self.steps is None:
                return
            if isinstance(self.pending, calls.Call) and self.pending.starts_run:
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
        elif isinstance(step, AskClaimed):
            self.reply = {"1"}
        elif isinstance(step, calls.Call):
            self._carry_out(step, fate)
        else:
            # The checks before the start may take any time: nothing is written down yet.
            assert isinstance(step, Say | BeforeStart)
        self.pending = self._advance()

    def _carry_out(self, call: calls.Call[Any], fate: str) -> None:
        if fate == "never arrived":
            self.error = ConnectionFailedError("x")
        elif fate == "broken":
            self.error = ServerError("x")
        elif fate == "no room" and call.starts_run:
            self.error = ConcurrencyLimitError("x")
        elif fate == "lost":
            self._do(call)
            self.error = ResponseLostError("x")
        else:
            try:
                self.reply = self._do(call)
            except BrowserActError as error:
                self.error = error

    def _do(self, call: calls.Call[Any]) -> Any:
        return self.service.start(call) if call.starts_run else self.service.answer(call)

    @precondition(lambda self: self.steps is not None)
    @rule()
    def the_worker_dies(self) -> None:
        self.steps.close()
        self.steps = None

    @rule(seconds=st.sampled_from([1.0, 30.0, 300.0, 7200.0]))
    def time_passes(self, seconds: float) -> None:
        step = self.pending
        if self.steps is not None and (isinstance(step, Write) or (isinstance(step, calls.Call) and step.starts_run)):
            # Between what it writes down and its start, a try is held up for no longer than the patience that it tells:
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
    max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@dataclass
class Played:
    """What :func:`begin` did with the given answers, in order."""

    over: StartedRun | PlanFull | Exception | None = None
    written: list[Write] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    asked: list[calls.Call[Any]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The endpoints that were asked."""
        return [call.name for call in self.asked]


def play(
    entry: Entry | None,
    *answers: object,
    now: float = 2000.0,
    on_orphan: OnOrphan = OnOrphan.FAIL,
    wants: Wanted | None = None,
) -> Played:
    """Begin a run with an entry of an earlier try, and give each call the next answer."""
    left, played = list(answers), Played()
    clock = [now]

    def answer(step: object) -> object:
        if isinstance(step, Write):
            played.written.append(step)
        elif isinstance(step, Say):
            played.said.append(step.text)
        elif isinstance(step, Sleep):
            played.slept.append(step.seconds)
            clock[0] += step.seconds
        elif isinstance(step, AskClaimed):
            return set()
        elif isinstance(step, calls.Call):
            played.asked.append(step)
            return left.pop(0)
        return None

    steps = begin(wants or wanted(), entry, patience=100.0, on_orphan=on_orphan, clock=lambda: clock[0])
    try:
        played.over = carry_out(steps, answer)
    except (BrowserActError, LedgerError, OrphanError) as error:
        played.over = error
    assert not left
    return played


RUN = Task("7", TaskStatus.RUNNING, "70", datetime.fromtimestamp(1000.0, timezone.utc), input_parameters=PENS_LISTED)
SAME = replace(ENTRY, fingerprint=fingerprint(wanted().call), deadline=1000.0 + wanted().timeout)
"""What an earlier try, at second 1000, has written down of a run with the same inputs."""

NOT_WANTED = "an earlier try had another workflow, other inputs or another profile"
MADE = CreatedTask("9", "profile of 9")
NEW = Entry("70", SAME.fingerprint, 2000.0, 5600.0, None, None, None, ("5", "6", "7"), 3)
"""What is written down before another run is started at second 2000."""


AT_2000 = datetime.fromtimestamp(2000.0, timezone.utc)


def page_of(*tasks: Task) -> Page[Task]:
    return Page(tasks, number=1, total_count=len(tasks))


class TestTheRunOfAnEarlierTry:
    @pytest.mark.parametrize("status", [TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.FINISHED, TaskStatus.UNKNOWN])
    def test_it_is_taken_as_it_is_and_nothing_is_written_or_said(self, status):
        run = replace(RUN, status=status)
        played = play(SAME, run)
        assert played.over == StartedRun(SAME, run)
        assert (played.written, played.said, played.names) == ([], [], ["get-task"])
        assert played.asked[0].params == {"task_id": "7"}

    def test_its_deadline_follows_a_changed_timeout(self):
        played = play(replace(SAME, deadline=9.0), RUN)
        assert played.over == StartedRun(SAME, RUN)
        assert played.written == [Write(SAME)]

    @pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.CANCELED])
    def test_it_came_to_nothing_and_another_run_is_started(self, status):
        played = play(SAME, replace(RUN, status=status), MADE)
        made = replace(NEW, task_id="9", profile_id="profile of 9")
        assert played.over == StartedRun(made)
        assert played.written == [Write(NEW), Write(made)]
        assert played.said == [f"BrowserAct task 7 of an earlier try has ended as {status}. Starting a new run."]
        assert played.names == ["get-task", "run-task"]

    @pytest.mark.parametrize(
        ("entry", "why"),
        [
            (replace(SAME, fingerprint="f" * 64), NOT_WANTED),
            (replace(SAME, max_tries=2), "the Airflow task was cleared while it waited"),
        ],
        ids=["other inputs", "cleared"],
    )
    @pytest.mark.parametrize("ended_meanwhile", [False, True], ids=["", "ended meanwhile"])
    def test_it_is_not_wanted_any_more_and_is_stopped(self, entry, why, ended_meanwhile):
        stopped = TaskEndedError("x", code=10121) if ended_meanwhile else None
        played = play(entry, RUN, stopped, MADE)
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.earlier == ("5", "6", "7")
        assert played.said == [f"BrowserAct task 7 was stopped, since {why}. Starting a new run."]
        assert played.names == ["get-task", "stop-task", "run-task"]

    def test_it_is_not_stopped_if_it_has_ended_with_other_inputs(self):
        played = play(replace(SAME, fingerprint="f" * 64), replace(RUN, status=TaskStatus.FINISHED), MADE)
        assert played.said == [f"BrowserAct task 7 has ended as finished, but {NOT_WANTED}. Starting a new run."]
        assert played.names == ["get-task", "run-task"]

    def test_result_is_taken_although_the_task_instance_was_cleared(self):
        run = replace(RUN, status=TaskStatus.FINISHED)
        assert play(replace(SAME, max_tries=2), run).over == StartedRun(replace(SAME, max_tries=2), run)

    def test_task_instance_that_waited_in_a_worker_reattaches_after_a_clear(self):
        entry = replace(SAME, max_tries=None)
        assert play(entry, RUN).over == StartedRun(entry, RUN)

    def test_browseract_does_not_know_it_and_the_try_fails(self):
        played = play(SAME, TaskNotFoundError("gone", code=10112))
        assert isinstance(played.over, LedgerError)
        assert str(played.over) == "it names BrowserAct task 7, and BrowserAct says: gone (code 10112)"
        assert played.names == ["get-task"]

    @pytest.mark.parametrize("on_orphan", [OnOrphan.START, OnOrphan.ADOPT])
    def test_browseract_does_not_know_it_and_another_is_started_if_so_wanted(self, on_orphan):
        played = play(SAME, TaskNotFoundError("gone", code=10112), MADE, on_orphan=on_orphan)
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.earlier == ("5", "6", "7")
        assert played.said == ["BrowserAct task 7 of an earlier try is not known any more: gone (code 10112)"]

    def test_it_belongs_to_another_workflow_and_the_try_fails(self):
        played = play(SAME, replace(RUN, workflow_id="71"))
        assert isinstance(played.over, LedgerError)
        assert "it names BrowserAct task 7 as one of workflow 70, and BrowserAct says that it is of workflow 71" in str(
            played.over
        )

    def test_run_of_a_template_may_belong_to_any_workflow(self):
        wants = wanted(kind="template")
        entry = replace(SAME, fingerprint=fingerprint(wants.call), is_template=True)
        run = replace(RUN, workflow_id="71")
        assert play(entry, run, wants=wants).over == StartedRun(entry, run)


class TestAnUnansweredStartOfAnEarlierTry:
    ENTRY = replace(SAME, task_id=None, deadline=4600.0)

    def test_its_run_is_found_written_down_and_taken(self):
        played = play(self.ENTRY, page_of(RUN), RUN)
        assert played.over == StartedRun(replace(self.ENTRY, task_id="7"), RUN)
        assert played.written == [Write(replace(self.ENTRY, task_id="7"))]
        assert played.said == [
            "An earlier try was about to start a run and did not write down what came of it. Looking for it."
        ]
        listing = played.asked[0]
        window = calls.list_tasks(
            workflow_id="70",
            created_at_from=datetime.fromtimestamp(1000.0 - timings.CLOCK_SKEW, timezone.utc),
            created_at_to=datetime.fromtimestamp(1100.0 + timings.CLOCK_SKEW, timezone.utc),
        )
        assert listing.params == window.params

    @pytest.mark.parametrize(("shown", "kept"), [("of the list", "of the list"), (None, "9")])
    def test_its_profile_is_taken_from_the_list_if_that_has_one(self, shown, kept):
        played = play(self.ENTRY, page_of(replace(RUN, profile_id=shown)), RUN)
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.profile_id == kept

    def test_list_is_read_until_the_start_must_be_in_it(self):
        pages = [page_of()] * 3
        played = play(self.ENTRY, *pages, MADE, now=1100.0 + timings.LISTING_DELAY - timings.ORPHAN_LOOK_PAUSE - 3.0)
        assert played.slept == [timings.ORPHAN_LOOK_PAUSE, 3.0]
        assert played.said[1:] == ["It had started none that could be the one."]
        assert isinstance(played.over, StartedRun)
        assert played.over.entry.earlier == ("5", "6")

    def test_list_is_read_once_if_the_start_must_be_in_it_already(self):
        assert play(self.ENTRY, page_of(), MADE, now=1100.0 + timings.LISTING_DELAY).slept == []

    @pytest.mark.parametrize("on_orphan", [OnOrphan.FAIL, OnOrphan.ADOPT])
    def test_any_run_may_be_the_one_if_the_inputs_are_not_known_any_more(self, on_orphan):
        entry = replace(self.ENTRY, fingerprint="f" * 64)
        played = play(entry, page_of(replace(RUN, input_parameters="keyword=ink")), on_orphan=on_orphan)
        assert isinstance(played.over, OrphanError)

    def test_another_run_is_started_beside_those_that_may_be_the_one_if_so_wanted(self):
        entry = replace(self.ENTRY, fingerprint="f" * 64)
        played = play(entry, page_of(RUN), MADE, on_orphan=OnOrphan.START)
        assert isinstance(played.over, StartedRun)
        assert played.over.task_id == "9"

    def test_one_item_of_the_list_that_cannot_be_read_is_skipped(self):
        listing = play(self.ENTRY, page_of(), MADE).asked[0]
        items = [{"id": "5", "status": "a new word"}, {"status": "running"}]
        page = listing.read({"items": items, "total_count": 2})
        assert [task.id for task in page.items] == ["5"]
        assert len(page.skipped) == 1


class TestAStart:
    def test_what_later_tries_need_is_written_down_before_and_after_it(self):
        wants = replace(wanted(), callback_token_sha256="0" * 64)
        played = play(None, MADE, wants=wants)
        before = replace(NEW, callback_token_sha256="0" * 64, earlier=())
        after = replace(before, task_id="9", profile_id="profile of 9")
        assert played.over == StartedRun(after)
        assert played.written == [Write(before), Write(after)]
        assert play(None, MADE, wants=wanted(kind="in the worker")).written[0] == Write(
            replace(before, callback_token_sha256=None, max_tries=None)
        )

    @pytest.mark.parametrize("entry", [None, SAME], ids=["no entry", "entry of a failed run"])
    @pytest.mark.parametrize(
        "error", [ConcurrencyLimitError("full", code=10118), RateLimitError("slow down", http_status=429)]
    )
    def test_without_a_slot_the_entry_before_holds_again(self, entry, error):
        earlier = [] if entry is None else [replace(RUN, status=TaskStatus.FAILED)]
        played = play(entry, *earlier, error)
        assert played.over == PlanFull(error)
        assert played.written[1:] == [Write(entry, over=True)]

    def test_refused_start_leaves_the_entry_before(self):
        refused = InvalidRequestError("no", code=99001)
        played = play(SAME, replace(RUN, status=TaskStatus.FAILED), refused)
        assert played.over is refused
        assert played.written[1:] == [Write(SAME, over=True)]

    def test_lost_answers_are_looked_up_and_the_start_sent_again_three_times_at_most(self):
        looks = [page_of()] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LOOK_PAUSE))
        lost = ResponseLostError("lost")
        played = play(None, lost, *looks, lost, *looks, lost, *looks)
        assert played.over is lost
        assert played.names.count("run-task") == 3
        assert [text for text in played.said if "attempt" in text] == [
            f"None was started (attempt {attempt} of 3)." for attempt in (1, 2, 3)
        ]
        assert played.slept == [timings.ORPHAN_LOOK_PAUSE] * 12
        assert [write.starts for write in played.written] == [True, True, True, False]
        assert played.written[-1] == Write(None, over=True)

    def test_start_that_surely_made_no_run_leaves_the_entry_before(self):
        looks = [page_of()] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LOOK_PAUSE))
        lost = ResponseLostError("lost")
        played = play(SAME, replace(RUN, status=TaskStatus.FAILED), *[lost, *looks] * 3)
        assert played.written[-1] == Write(SAME, over=True)

    @pytest.mark.parametrize(
        ("kind", "endpoint", "parameter"),
        [
            ("deferred", "get-workflow", "workflow_id"),
            ("template", "get-official-workflow-template", "workflow_template_id"),
        ],
    )
    def test_what_is_run_is_read_to_tell_which_inputs_have_defaults(self, kind, endpoint, parameter):
        run = replace(RUN, id="8", created_at=AT_2000, input_parameters="keyword=pens; max_items=10")
        looks: list[object] = [page_of(run)] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LOOK_PAUSE))
        played = play(None, ResponseLostError("lost"), *looks, DOWN, wants=wanted(kind=kind))
        assert isinstance(played.over, OrphanError)
        assert (played.asked[-1].name, played.asked[-1].params) == (endpoint, {parameter: "70"})
        assert played.said[-1].startswith("The details of 70 cannot be read: down")

    def test_run_of_a_lost_answer_is_taken_with_its_profile(self):
        run = replace(RUN, id="8", profile_id="profile of 8", created_at=AT_2000)
        looks = [page_of(run)] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LOOK_PAUSE))
        played = play(None, ResponseLostError("lost"), *looks)
        assert played.over == StartedRun(replace(NEW, earlier=(), task_id="8", profile_id="profile of 8"))
        assert played.said[-1] == "BrowserAct task 8 is the run."

    @pytest.mark.parametrize(("listed", "task_id"), [(None, "8"), ("", "8"), ("a=1", None)])
    def test_run_without_inputs_is_found_by_a_list_without_inputs(self, listed, task_id):
        wants = replace(wanted(), call=calls.run_task("70", input_parameters=[]))
        run = replace(RUN, id="8", created_at=AT_2000, input_parameters=listed)
        looks: list[object] = [page_of(run)] * (1 + int(timings.LISTING_DELAY / timings.ORPHAN_LOOK_PAUSE))
        source = [] if task_id else [Workflow("70")]
        played = play(None, ResponseLostError("lost"), *looks, *source, wants=wants)
        assert isinstance(played.over, StartedRun if task_id else OrphanError)


def test_failed_search_for_a_lost_start_raises_and_keeps_the_entry():
    steps = begin(wanted(), None, patience=1.0, on_orphan=OnOrphan.FAIL, clock=lambda: 0.0)
    assert isinstance(next(steps), BeforeStart)
    assert isinstance(steps.send(None), Write)
    step = steps.send(None)
    assert isinstance(step, calls.Call)
    step = steps.throw(ResponseLostError("x"))
    assert isinstance(step, Say)
    step = steps.send(None)
    assert isinstance(step, calls.Call)
    # And no further Write.
    with pytest.raises(RunStartUnknownError, match="looking for it failed: x") as caught:
        steps.throw(ServerError("x", http_status=503, code=7, msg="m", trace_id="t"))
    error = caught.value
    assert (error.http_status, error.code, error.msg, error.trace_id) == (503, 7, "m", "t")


DOWN = ServerError("down")


def look_up(
    page: Page[Task] | Iterator[Page[Task]],
    on_orphan: OnOrphan = OnOrphan.FAIL,
    kind: str = "deferred",
    source: Workflow | Template | BrowserActError = DOWN,
    named: Page[Task] | None = None,
    read: Task | BrowserActError = DOWN,
) -> Any:
    """Lose the answer of a start at second 1000, have the look-up see pages of tasks, and return what it comes to.

    If it finds no run, another start makes task 9.

    :param source: what is known of the workflow or template.
    :param named: the tasks that are listed under the name of the template.
    :param read: the task that the list shows without its time, if it is read alone.
    """
    clock = [1000.0]
    pages = itertools.repeat(page) if isinstance(page, Page) else page
    starts: Iterator[object] = iter([ResponseLostError("x"), CreatedTask("9")])

    def answer(step: object) -> object:
        if isinstance(step, Sleep):
            clock[0] += step.seconds
        if isinstance(step, AskClaimed):
            return set()
        if not isinstance(step, calls.Call):
            return None
        if step.starts_run:
            return next(starts)
        if step.params.get("workflow_name"):
            assert step.params["workflow_name"] == "Search"
            assert str(step.params["created_at_from"]) < str(step.params["created_at_to"])
            return named
        answers = {
            "get-workflow": source,
            "get-official-workflow-template": source,
            "get-task": read,
            "list-workflows": Page((Workflow("72"),), number=1, total_count=1),
        }
        return answers[step.name] if step.name in answers else next(pages)

    steps = begin(wanted(max_tries=0, kind=kind), None, patience=1.0, on_orphan=on_orphan, clock=lambda: clock[0])
    return carry_out(steps, answer)


def test_look_up_that_could_not_read_one_task_does_not_say_that_there_is_none():
    page: Page[Task] = Page((), number=1, total_count=1, skipped=("one without an id: it has none",))
    with pytest.raises(RunStartUnknownError, match="one that cannot be read \\(one without an id: it has none\\)"):
        look_up(page)
    assert look_up(page, OnOrphan.START).task_id == "9"


def test_look_up_finds_the_run_although_another_task_cannot_be_read():
    run = Task(
        "5",
        TaskStatus.UNKNOWN,
        "70",
        created_at=datetime.fromtimestamp(1000.0, timezone.utc),
        input_parameters=PENS_LISTED,
    )
    assert look_up(Page((run,), number=1, total_count=2, skipped=("one",))).task_id == "5"


ORPHAN = "it cannot be told"


@pytest.mark.parametrize(
    ("kind", "fields", "task_id"),
    [
        ("deferred", {}, "5"),
        ("deferred", {"created": None}, ORPHAN),
        ("deferred", {"created": 1000.0 - timings.CLOCK_RESOLUTION}, "5"),
        ("deferred", {"created": 1000.0 - timings.CLOCK_RESOLUTION - 1}, ORPHAN),
        ("deferred", {"created": 1000.0 - timings.CLOCK_SKEW}, ORPHAN),
        ("deferred", {"created": 1000.0 - timings.CLOCK_SKEW - 1}, "9"),
        ("deferred", {"created": 1000.0 + timings.CLOCK_SKEW}, "5"),
        ("deferred", {"created": 1001.0 + timings.CLOCK_SKEW}, "9"),
        ("deferred", {"workflow_id": None}, "5"),
        ("deferred", {"workflow_id": "71"}, "9"),
        ("deferred", {"input_parameters": "keyword=ink"}, "9"),
        ("deferred", {"input_parameters": None}, ORPHAN),
        ("deferred", {"input_parameters": "keyword=pens; max_items=10"}, ORPHAN),
        ("deferred", {"profile_id": "8"}, "5"),
        ("deferred", {"status": TaskStatus.FAILED}, "9"),
        ("deferred", {"status": TaskStatus.CANCELED}, "9"),
        ("deferred", {"status": TaskStatus.FINISHED}, "5"),
        ("with a profile", {"profile_id": "9"}, "5"),
        ("with a profile", {"profile_id": "8"}, "9"),
        ("with a profile", {"profile_id": None}, ORPHAN),
        ("with a profile", {"profile_id": "9", "input_parameters": "keyword=ink"}, "9"),
        ("template", {"workflow_id": "70"}, "5"),
        ("template", {"workflow_id": "71"}, ORPHAN),
        ("template", {"workflow_id": None}, ORPHAN),
    ],
    ids=str,
)
def test_look_up_takes_a_run_that_is_surely_the_one_and_leaves_no_possible_one_unseen(kind, fields, task_id):
    given = {"status": TaskStatus.RUNNING, "workflow_id": "70", "input_parameters": "keyword=pens", **fields}
    created = given.pop("created", 1000.0)
    run = Task("5", created_at=None if created is None else datetime.fromtimestamp(created, timezone.utc), **given)
    page = Page((run,), number=1, total_count=1)
    if task_id == ORPHAN:
        with pytest.raises(OrphanError, match="one of these BrowserAct tasks: 5"):
            look_up(page, kind=kind)
    else:
        assert look_up(page, kind=kind).task_id == task_id


AT_1000 = datetime.fromtimestamp(1000.0, timezone.utc)


@pytest.mark.parametrize(
    ("listed", "default_enabled", "task_id"),
    [
        ("keyword=pens; max_items=10", True, "5"),
        ("max_items=1; 2; keyword=pens", True, "5"),
        ("keyword=pens; max_items=10", False, ORPHAN),
        ("keyword=pens; max_items=10", None, ORPHAN),
        ("keyword=pens; pages=10", True, ORPHAN),
        ("keyword=ink; max_items=10", True, "9"),
    ],
    ids=["after", "before, with a separator", "required", "not said", "not declared", "another value"],
)
def test_inputs_that_browseract_added_by_default_do_not_prevent_the_match(listed, default_enabled, task_id):
    run = Task("5", TaskStatus.RUNNING, "70", AT_1000, input_parameters=listed)
    page = Page((run,), number=1, total_count=1)
    declared = (InputParameter("keyword", False), InputParameter("max_items", default_enabled))
    source = Workflow("70", input_parameters=declared)
    if task_id == ORPHAN:
        with pytest.raises(OrphanError, match="one of these BrowserAct tasks: 5"):
            look_up(page, source=source)
    else:
        assert look_up(page, source=source).task_id == task_id


@pytest.mark.parametrize(
    ("listed", "name", "task_id"),
    [
        ("keyword=pens", "Search", "5"),
        ("keyword=pens; max_items=10", "Search", "5"),
        ("keyword=ink", "Search", "9"),
        ("keyword=pens", None, ORPHAN),
    ],
    ids=["same inputs", "with a default", "other inputs", "template without a name"],
)
def test_run_of_a_template_is_recognised_by_the_name_that_it_is_listed_under(listed, name, task_id):
    run = Task("5", TaskStatus.RUNNING, "71", AT_1000, input_parameters=listed)
    page = Page((run,), number=1, total_count=1)
    source = Template("70", name=name, input_parameters=(InputParameter("max_items", True),))
    if task_id == ORPHAN:
        with pytest.raises(OrphanError, match="one of these BrowserAct tasks: 5"):
            look_up(page, kind="template", source=source, named=page)
    else:
        assert look_up(page, kind="template", source=source, named=page).task_id == task_id


@pytest.mark.parametrize("workflow_id", ["72", None], ids=["of the account", "not said"])
def test_run_of_a_workflow_whose_name_contains_that_of_the_template_is_not_taken_for_its_run(workflow_id):
    run = Task("5", TaskStatus.RUNNING, workflow_id, AT_1000, input_parameters=PENS_LISTED)
    page = Page((run,), number=1, total_count=1)
    with pytest.raises(OrphanError, match="one of these BrowserAct tasks: 5"):
        look_up(page, kind="template", source=Template("70", name="Search"), named=page)


def test_run_that_is_not_listed_under_the_name_of_the_template_is_not_taken_for_its_run():
    run = Task("5", TaskStatus.RUNNING, "71", AT_1000, input_parameters=PENS_LISTED)
    other = replace(run, id="6")
    page, named = (Page((task,), number=1, total_count=1) for task in (run, other))
    with pytest.raises(OrphanError, match="one of these BrowserAct tasks: 5"):
        look_up(page, kind="template", source=Template("70", name="Search"), named=named)


def possible_runs() -> Page[Task]:
    """Make a list of three runs that may be the one that is looked for; the second is the newest."""
    moments = {"5": 990.0, "6": 1010.0, "7": 980.0}
    runs = [
        Task(task_id, TaskStatus.RUNNING, "70", datetime.fromtimestamp(at, timezone.utc), input_parameters=PENS_LISTED)
        for task_id, at in moments.items()
    ]
    return Page(tuple(runs), number=1, total_count=3)


def test_several_possible_runs_are_named_in_the_error():
    with pytest.raises(OrphanError, match=r"BrowserAct tasks: 5 \(running\), 6 \(running\), 7 \(running\)\."):
        look_up(possible_runs())


def test_newest_of_several_possible_runs_is_adopted_if_so_wanted():
    assert look_up(possible_runs(), OnOrphan.ADOPT).task_id == "6"


def test_another_run_is_started_beside_several_possible_ones_if_so_wanted():
    assert look_up(possible_runs(), OnOrphan.START).task_id == "9"


@pytest.mark.parametrize(("kind", "workflow_id"), [("deferred", "70"), ("template", None)])
def test_look_up_lists_the_runs_of_the_workflow_or_of_all_where_a_template_was_run(kind, workflow_id):
    steps = begin(wanted(kind=kind), None, patience=1.0, on_orphan=OnOrphan.FAIL, clock=lambda: 1000.0)
    while not isinstance(next(steps), calls.Call):
        pass
    steps.throw(ResponseLostError("x"))
    listing = next(steps)
    assert isinstance(listing, calls.Call)
    assert (listing.name, listing.params.get("workflow_id")) == ("list-tasks", workflow_id)
    begin_at = datetime.fromtimestamp(1000.0 - timings.CLOCK_SKEW, timezone.utc)
    assert listing.params["created_at_from"] == calls.list_tasks(created_at_from=begin_at).params["created_at_from"]


@pytest.mark.parametrize(
    ("created", "task_id"),
    [
        (1000.0, "5"),
        (1000.0 - timings.CLOCK_RESOLUTION - 1, ORPHAN),
        (1000.0 - timings.CLOCK_SKEW - 1, "9"),
        (None, ORPHAN),
    ],
)
def test_run_that_is_listed_without_its_time_is_read_alone(created, task_id):
    run = Task("5", TaskStatus.RUNNING, "70", input_parameters=PENS_LISTED)
    read = replace(run, created_at=None if created is None else datetime.fromtimestamp(created, timezone.utc))
    if task_id == ORPHAN:
        with pytest.raises(OrphanError, match="one of these BrowserAct tasks: 5"):
            look_up(page_of(run), read=read)
    else:
        assert look_up(page_of(run), read=read).task_id == task_id


def test_run_that_cannot_be_another_is_not_read_for_its_time():
    run = Task("5", TaskStatus.RUNNING, "70", input_parameters="keyword=ink")
    assert look_up(page_of(run), read=replace(run, input_parameters=PENS_LISTED, created_at=AT_1000)).task_id == "9"


def test_run_that_appears_late_in_the_list_is_found():
    run = Task("5", TaskStatus.RUNNING, "70", AT_1000, input_parameters=PENS_LISTED)
    looks: list[Page[Task]] = [Page((), number=1, total_count=0)] * int(
        timings.LISTING_DELAY / timings.ORPHAN_LOOK_PAUSE
    ) + [Page((run,), number=1, total_count=1)]
    assert look_up(iter(looks)).task_id == "5"


def test_look_up_reads_all_pages():
    run = Task("5", TaskStatus.RUNNING, "70", AT_1000, input_parameters=PENS_LISTED)
    others = [Task(str(number), TaskStatus.RUNNING, "70", input_parameters="keyword=ink") for number in (1, 2)]
    pages = iter([Page((others[0], run), number=1, total_count=3), Page((others[1],), number=2, total_count=3)] * 99)
    assert look_up(pages).task_id == "5"


def test_look_up_in_a_list_that_contradicts_itself_does_not_say_that_there_is_none():
    with pytest.raises(
        RunStartUnknownError, match="looking for it failed: BrowserAct's answers to list-tasks contradict"
    ):
        look_up(Page((), number=1, total_count=3))


@pytest.mark.parametrize("code", [10999, 777], ids=["of BrowserAct's kind", "of any kind"])
def test_start_refused_with_an_undocumented_code_leads_to_a_search_for_the_run(code):
    call = wanted().call
    with pytest.raises(BrowserActError) as refused:
        call.read_response(calls.Response(400, {}, json.dumps({"code": code, "msg": "Busy"}).encode()))
    steps = begin(wanted(), None, patience=1.0, on_orphan=OnOrphan.FAIL, clock=lambda: 0.0)
    while not isinstance(step := next(steps), calls.Call):
        pass
    assert step.starts_run
    steps.throw(refused.value)
    step = next(steps)
    assert isinstance(step, calls.Call)
    assert step.name == "list-tasks"


def test_ledger_entry_is_dated_after_slow_checks_before_the_start():
    now = 10_000.0
    steps = begin(wanted(), None, patience=PATIENCE, on_orphan=OnOrphan.FAIL, clock=lambda: now)
    assert isinstance(next(steps), BeforeStart)
    now += 300.0
    written = steps.send(None)
    assert isinstance(written, Write)
    assert written.entry is not None
    assert written.entry.written_at == now
