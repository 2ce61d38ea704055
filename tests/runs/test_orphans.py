"""Which run a start has made whose response was lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import BrowserActError, ResponseLostError, RunStartUnknownError, ServerError
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
from airflow_provider_browseract.runs.orphans import AskClaimed, OnOrphan, OrphanError, inputs_match
from airflow_provider_browseract.runs.starting import begin
from airflow_provider_browseract.runs.steps import Sleep
from tests.runs.starts import PENS_LISTED, pairs, start
from tests.steps import carry_out


def page_of(*tasks: Task) -> Page[Task]:
    return Page(tasks, number=1, total_count=len(tasks))


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


DOWN = ServerError("down")


def look_up(
    page: Page[Task] | Iterator[Page[Task]],
    on_orphan: OnOrphan = OnOrphan.FAIL,
    kind: str = "deferred",
    source: Workflow | Template | BrowserActError = DOWN,
    named: Page[Task] | None = None,
    read: Task | BrowserActError = DOWN,
) -> Any:
    """Lose the response to a start at second 1000, look up the run in pages of tasks, and return the outcome.

    If no run is found, another start creates task 9.

    :param source: the details of the workflow or template.
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

    wanted = start(max_tries=0, kind=kind, patience=1.0, on_orphan=on_orphan)
    return carry_out(begin(wanted, None, lambda: clock[0]), answer)


def test_look_up_that_could_not_read_one_task_does_not_report_that_there_is_none():
    page: Page[Task] = Page((), number=1, total_count=1, skipped=("one without an id: it has none",))
    with pytest.raises(
        RunStartUnknownError, match="an item in the list of tasks cannot be read \\(one without an id: it has none\\)"
    ):
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


ORPHAN = "it cannot be decided"


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
def test_look_up_adopts_a_run_that_certainly_matches_and_ignores_no_possible_one(kind, fields, task_id):
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
def test_run_of_a_template_is_recognized_by_the_name_that_it_is_listed_under(listed, name, task_id):
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
    """Return a list of three runs that may be the wanted one; the second is the newest."""
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
def test_look_up_lists_the_runs_of_the_workflow_or_of_all_if_a_template_was_run(kind, workflow_id):
    steps = begin(start(kind=kind, patience=1.0), None, lambda: 1000.0)
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


def test_look_up_in_a_list_that_contradicts_itself_does_not_report_that_there_is_none():
    with pytest.raises(
        RunStartUnknownError, match="looking for it failed: BrowserAct's responses to list-tasks contradict"
    ):
        look_up(Page((), number=1, total_count=3))
