"""Which run a start has made whose response was lost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.bots import Bot
from airflow_provider_browseract.api.errors import (
    BrowserActError,
    ResponseLostError,
    ResponseTooLargeError,
    RunStartUnknownError,
    ServerError,
)
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import CreatedTask, Page, Task, TaskStatus
from airflow_provider_browseract.api.workflows import InputParameter, Workflow
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.matching import Orphan
from airflow_provider_browseract.runs.orphans import Claim, OnOrphan, OrphanError, ReadClaims, find_orphan
from airflow_provider_browseract.runs.starting import BeforeStart, begin
from airflow_provider_browseract.runs.steps import LogLine, Sleep
from tests.runs.starts import AT_1000, PENS_LISTED, SAME, at, bot_run, request, start
from tests.steps import carry_out


def page_of(*tasks: Task) -> Page[Task]:
    return Page(tasks, total_count=len(tasks))


DOWN = ServerError("down")


@pytest.fixture
def log() -> list[str]:
    return []


def look_up(
    page: Page[Task] | Iterator[Page[Task]],
    on_orphan: OnOrphan = OnOrphan.FAIL,
    kind: str = "deferred",
    source: Workflow | Bot | BrowserActError = DOWN,
    read: Task | BrowserActError = DOWN,
    log: list[str] | None = None,
) -> Any:
    """Lose the response to a start at second 1000, look up the run in pages of tasks, and return the outcome.

    If no run is found, another start creates task 9.

    :param source: the details of the workflow or bot.
    :param read: a listed task, if it is read alone.
    :param log: gets the log lines.
    """
    clock = [1000.0]
    pages = itertools.repeat(page) if isinstance(page, Page) else page
    starts: Iterator[object] = iter([ResponseLostError("x"), CreatedTask("9")])

    def answer(step: object) -> object:
        if isinstance(step, Sleep):
            clock[0] += step.seconds
        if isinstance(step, ReadClaims):
            return {}
        if isinstance(step, Claim):
            return -1
        if isinstance(step, LogLine) and log is not None:
            log.append(step.text)
        if isinstance(step, BeforeStart):
            return step.request
        if not isinstance(step, Call):
            return None
        if step.starts_run:
            return next(starts)
        responses = {"get-workflow": source, "query-bot": source, "get-task": read, "query-run": read}
        return responses[step.name] if step.name in responses else next(pages)

    wanted = start(max_tries=0, kind=kind, patience=1.0, on_orphan=on_orphan)
    return carry_out(begin(wanted, None, lambda: clock[0]), answer)


def test_look_up_that_could_not_read_one_task_does_not_report_that_there_is_none():
    other = Task("4", TaskStatus.FAILED, "70")
    page = Page((other,), total_count=2, skipped=("one without an id: it has none",))
    with pytest.raises(
        RunStartUnknownError, match="an item in the list of tasks cannot be read \\(one without an id: it has none\\)"
    ):
        look_up(page)
    with pytest.raises(RunStartUnknownError, match="cannot be read"):
        look_up(page, OnOrphan.ADOPT)
    assert look_up(page, OnOrphan.START).task_id == "9"


def test_look_up_finds_the_run_although_another_task_cannot_be_read():
    run = Task(
        "5",
        TaskStatus.UNKNOWN,
        "70",
        created_at=datetime.fromtimestamp(1000.0, timezone.utc),
        input_parameters=PENS_LISTED,
    )
    assert look_up(Page((run,), total_count=2, skipped=("one",))).task_id == "5"


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
        ("template", {"workflow_id": "70"}, ORPHAN),
        ("template", {"workflow_id": "71"}, ORPHAN),
        ("template", {"workflow_id": None}, ORPHAN),
        ("template", {"input_parameters": "keyword=ink"}, "9"),
    ],
    ids=str,
)
def test_look_up_adopts_a_run_that_certainly_matches_and_ignores_no_possible_one(kind, fields, task_id):
    given = {"status": TaskStatus.RUNNING, "workflow_id": "70", "input_parameters": "keyword=pens", **fields}
    created = given.pop("created", 1000.0)
    run = Task("5", created_at=None if created is None else datetime.fromtimestamp(created, timezone.utc), **given)
    page = Page((run,), total_count=1)
    if task_id == ORPHAN:
        with pytest.raises(OrphanError, match="one of these BrowserAct tasks: 5"):
            look_up(page, kind=kind)
    else:
        assert look_up(page, kind=kind).task_id == task_id


@pytest.mark.parametrize(
    ("kind", "fields", "task_id"),
    [
        ("bot", {}, "5"),
        ("bot", {"bot_id": None}, "5"),
        ("bot", {"bot_id": "71"}, "9"),
        ("bot", {"created": None}, ORPHAN),
        ("bot", {"created": 1000.0 - timings.CLOCK_RESOLUTION - 1}, ORPHAN),
        ("bot", {"created": 1000.0 - timings.CLOCK_SKEW - 1}, "9"),
        ("bot", {"status": TaskStatus.FAILED}, "9"),
        ("bot", {"status": TaskStatus.FINISHED}, "5"),
        ("bot", {"input": {"keyword": "ink"}}, "9"),
        ("bot", {"input": {"keyword": "***"}}, ORPHAN),
        ("bot", {"input": {"keyword": "pens", "max_items": 10}}, ORPHAN),
        ("bot", {"input": {"max_items": 10}}, "9"),
        ("bot", {"input": {}}, ORPHAN),
        ("bot", {"input": None}, ORPHAN),
        ("bot template", {"bot_id": None}, ORPHAN),
        ("bot template", {"bot_id": None, "workflow_id": "71"}, ORPHAN),
        ("bot template", {"bot_id": None, "input": None}, ORPHAN),
        ("bot template", {"bot_id": None, "input": {"keyword": "ink"}}, "9"),
        ("bot template", {}, "9"),
    ],
    ids=str,
)
def test_look_up_adopts_the_run_of_a_bot_only_if_it_certainly_matches(kind, fields, task_id):
    created = fields.pop("created", 1000.0)
    run = bot_run("5", None if created is None else at(created), **fields)
    if task_id == ORPHAN:
        with pytest.raises(OrphanError, match=f"An earlier start of {kind} 70 may .* one of these BrowserAct tasks: 5"):
            look_up(page_of(run), kind=kind)
    else:
        assert look_up(page_of(run), kind=kind).task_id == task_id


@pytest.mark.parametrize(("shown", "found"), [(10, True), (9, False)], ids=["the default", "another value"])
def test_value_that_was_not_sent_must_be_the_default_in_the_schema_of_the_bot(shown, found):
    schema = {"properties": {"keyword": {"type": "string"}, "max_items": {"type": "integer", "default": 10}}}
    run = bot_run("5", input={"keyword": "pens", "max_items": shown})
    with nullcontext() if found else pytest.raises(OrphanError):
        assert look_up(page_of(run), kind="bot", source=Bot("70", input_schema=schema)).task_id == "5"


@pytest.mark.parametrize(("on_orphan", "task_id"), [(OnOrphan.ADOPT, "5"), (OnOrphan.START, "9")])
def test_possible_run_of_a_bot_template_is_adopted_only_if_so_wanted(on_orphan, task_id):
    assert look_up(page_of(bot_run("5", bot_id=None)), on_orphan, kind="bot template").task_id == task_id


def test_runs_of_a_bot_are_listed_in_pages_of_100_in_any_order():
    runs = [bot_run(str(number), input={"keyword": "ink"}) for number in range(100, 349)]
    runs.insert(random.randrange(250), bot_run("5"))

    def answer(step: Call[Any]) -> object:
        assert (step.name, step.params["limit"]) == ("page-runs", 100)
        page = int(step.params["page"])
        return Page(tuple(runs[100 * (page - 1) : 100 * page]), total_count=250)

    found, asked = TestBounds.look(answer, kind="bot")
    assert (found.id, len(asked)) == ("5", 3)


def test_inputs_that_browseract_added_by_default_do_not_prevent_the_match():
    run = Task("5", TaskStatus.RUNNING, "70", AT_1000, input_parameters="max_items=1; 2; keyword=pens")
    declared = (InputParameter("keyword", False), InputParameter("max_items", True))
    assert look_up(page_of(run), source=Workflow("70", input_parameters=declared)).task_id == "5"


def possible_runs() -> Page[Task]:
    """Return a list of three runs that may be the wanted one, and look a little older; the second is the newest."""
    moments = {"5": 980.0, "6": 990.0, "7": 970.0}
    runs = [
        Task(task_id, TaskStatus.RUNNING, "70", datetime.fromtimestamp(at, timezone.utc), input_parameters=PENS_LISTED)
        for task_id, at in moments.items()
    ]
    return Page(tuple(runs), total_count=3)


def test_several_possible_runs_are_named_in_the_error_the_newest_first():
    with pytest.raises(OrphanError) as failed:
        look_up(possible_runs())
    assert (
        "created one of these BrowserAct tasks: 6 (running, created at 1970-01-01 00:16:30 UTC), "
        "5 (running, created at 1970-01-01 00:16:20 UTC), 7 (running, created at 1970-01-01 00:16:10 UTC). In the"
    ) in str(failed.value)


@pytest.mark.parametrize("on_orphan", list(OnOrphan))
def test_possible_run_of_a_template_is_named_with_its_link_and_adopted_only_if_so_wanted(on_orphan, log):
    run = Task("5", TaskStatus.RUNNING, "71", AT_1000, input_parameters=PENS_LISTED)
    url = "https://www.browseract.com/log/5"
    page, read = page_of(run), replace(run, status=TaskStatus.FINISHED, log_detail_url=url)
    named = f"5 (finished, created at 1970-01-01 00:16:40 UTC, {url})"
    if on_orphan is OnOrphan.ADOPT:
        # Between the reading of claims and the own claim, nothing else is read.
        named = "5 (running, created at 1970-01-01 00:16:40 UTC)"
    if on_orphan is OnOrphan.FAIL:
        with pytest.raises(OrphanError) as failed:
            look_up(page, kind="template", read=read)
        log.append(str(failed.value))
    else:
        found = look_up(page, on_orphan, kind="template", read=read, log=log)
        assert found.task_id == ("5" if on_orphan is OnOrphan.ADOPT else "9")
    assert any(named in line for line in log)


def test_only_the_newest_of_many_possible_runs_are_named():
    runs = [Task(str(100 + age), TaskStatus.RUNNING, "70", at(990.0 - age)) for age in range(30)]
    with pytest.raises(
        OrphanError, match=r": 100 \(.*, 109 \(running, created at [^,]*\), and 20 more\. In the"
    ) as failed:
        look_up(page_of(*runs))
    assert "110" not in str(failed.value)


def test_newest_of_several_possible_runs_is_adopted_if_so_wanted():
    assert look_up(possible_runs(), OnOrphan.ADOPT).task_id == "6"


def test_another_run_is_started_beside_several_possible_ones_if_so_wanted():
    assert look_up(possible_runs(), OnOrphan.START).task_id == "9"


BESIDE = {
    "nothing": None,
    "a run that ended 20 s before the start, with the same inputs": {"created": 940.0 + 30.0},
    "a finished run, 40 s older, whose inputs are not listed": {"created": 960.0, "input_parameters": None},
    "a finished run, 40 s older, with other inputs": {"created": 960.0, "input_parameters": "keyword=ink"},
    "a newer run whose inputs are not listed": {"created": 1003.0, "input_parameters": None},
}


@pytest.mark.parametrize("on_orphan", list(OnOrphan))
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_the_one_run_that_certainly_matches_is_adopted_beside_undecided_ones(beside, on_orphan):
    runs = [Task("5", TaskStatus.RUNNING, "70", at(1001.0), input_parameters=PENS_LISTED)]
    if beside is not None:
        fields = {"input_parameters": PENS_LISTED, **beside}
        runs.append(Task("4", TaskStatus.FINISHED, "70", at(fields.pop("created")), **fields))
    assert look_up(page_of(*runs), on_orphan).task_id == "5"


def test_two_runs_that_certainly_match_stay_an_error():
    runs = [Task(name, TaskStatus.RUNNING, "70", at(1001.0), input_parameters=PENS_LISTED) for name in ("5", "6")]
    with pytest.raises(OrphanError, match=r"BrowserAct tasks: 5 \(.*, 6 \("):
        look_up(page_of(*runs))


def test_finished_run_that_was_given_up_earlier_is_not_taken_for_the_new_one():
    given_up = Task("5", TaskStatus.FINISHED, "70", at(1001.0), input_parameters=PENS_LISTED)
    steps = find_orphan(Orphan(replace(SAME, earlier=("5",)), request(), 2000.0, 1000.0), OnOrphan.FAIL, lambda: 1000.0)
    assert carry_out(steps, lambda step: page_of(given_up) if isinstance(step, Call) else {}) is None


def listed_at(clock: float, *tasks: Task) -> Page[Task]:
    """Return a list whose response has a time by BrowserAct's clock."""
    return replace(page_of(*tasks), served_at=at(clock))


def run_at(created: float) -> Task:
    return Task("5", TaskStatus.RUNNING, "70", at(created), input_parameters=PENS_LISTED)


class TestClocksThatDiffer:
    """The start is sent at second 1000, and the list is read from second 1000 to 1020, by our clock."""

    @pytest.mark.parametrize("behind", [3.0, 10.0, 30.0, 55.0])
    def test_run_is_adopted_although_the_clock_of_browseract_is_behind_ours(self, behind):
        pages = (listed_at(1000.0 + after - behind, run_at(1000.0 - behind)) for after in range(0, 100, 5))
        assert look_up(pages).task_id == "5"

    @pytest.mark.parametrize("behind", [3.0, 30.0])
    def test_older_run_is_not_adopted_because_of_a_clock_that_is_behind(self, behind):
        pages = (listed_at(1000.0 + after - behind, run_at(990.0 - behind)) for after in range(0, 100, 5))
        with pytest.raises(OrphanError, match="BrowserAct tasks: 5"):
            look_up(pages)

    def test_fast_clock_of_browseract_changes_nothing(self):
        pages = (listed_at(1030.0 + after, run_at(1030.0)) for after in range(0, 100, 5))
        assert look_up(pages).task_id == "5"

    @pytest.mark.parametrize(
        ("served_at", "created"),
        [(None, 990.0), (945.0, 941.0), (0.0, 990.0), (1e9, 990.0), (985.0, 990.0)],
        ids=["missing", "more than a minute slow", "at the epoch", "in the future", "earlier than the listed run"],
    )
    def test_time_of_the_response_that_cannot_be_that_of_browseract_is_ignored(self, served_at, created):
        def listed(moment: float) -> Page[Task]:
            return page_of(run_at(moment)) if served_at is None else listed_at(served_at, run_at(moment))

        with pytest.raises(OrphanError, match="BrowserAct tasks: 5"):
            look_up(listed(created))
        assert look_up(listed(1000.0)).task_id == "5"

    def test_slow_response_does_not_count_as_a_slow_clock(self):
        clock = [1000.0]

        def answer(step: object) -> object:
            if not isinstance(step, Call):
                return {}
            served_at = at(clock[0])
            clock[0] += 25.0
            listed = replace(page_of(run_at(985.0)), served_at=served_at)
            return {"get-workflow": Workflow("70"), "get-task": run_at(985.0), "list-tasks": listed}[step.name]

        orphan = Orphan(replace(SAME, earlier=()), request(), 2000.0, 1000.0)
        with pytest.raises(OrphanError):
            carry_out(find_orphan(orphan, OnOrphan.FAIL, lambda: clock[0]), answer)


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


class TestBounds:
    """Everything that a look-up reads comes from outside, so its size, number and time are limited."""

    @staticmethod
    def look(answer: Any, on_orphan: OnOrphan = OnOrphan.FAIL, kind: str = "deferred", pause: float = 0.0) -> Any:
        """Look a run up. Each call takes some seconds."""
        clock = [1000.0]
        asked: list[str] = []

        def reply(step: object) -> object:
            if isinstance(step, Claim):
                return -1
            if not isinstance(step, Call):
                return {}
            asked.append(step.name)
            assert len(asked) < 100
            clock[0] += pause
            return answer(step)

        wanted = request(kind=kind)
        orphan = Orphan(replace(SAME, source=wanted.source, earlier=()), wanted, 2000.0, 1000.0)
        try:
            return carry_out(find_orphan(orphan, on_orphan, lambda: clock[0]), reply), asked
        except (RunStartUnknownError, OrphanError) as error:
            return error, asked

    @staticmethod
    def endless(step: Call[Any]) -> Page[Task]:
        number = int(step.params["page"])
        run = Task("", TaskStatus.RUNNING, "70", at(1000.0), input_parameters="keyword=ink")
        return Page(tuple(replace(run, id=f"{number}-{index}") for index in range(500)))

    def test_list_that_never_ends_is_given_up_and_does_not_report_that_there_is_no_run(self):
        error, asked = self.look(self.endless)
        assert isinstance(error, RunStartUnknownError)
        assert "list-tasks lists more than 5000 items" in str(error)
        assert len(asked) == 11

    def test_page_that_is_too_large_is_read_in_smaller_pages(self):
        run = Task("8", TaskStatus.RUNNING, "70", at(1001.0), input_parameters="keyword=pens")

        def answer(step: Call[Any]) -> object:
            if int(step.params["limit"]) > 100:
                return ResponseTooLargeError("too large")
            return Page((run,), total_count=1)

        found, asked = self.look(answer)
        assert found.id == "8"
        assert asked == ["list-tasks"] * 4

    def test_page_with_too_many_items_is_given_up(self):
        error, _ = self.look(lambda _: Page((), skipped=("x",) * 6000))
        assert isinstance(error, RunStartUnknownError)

    def test_slow_list_is_given_up_after_the_time_limit(self):
        error, asked = self.look(self.endless, pause=60.0)
        assert isinstance(error, RunStartUnknownError)
        assert "it takes longer than 300 seconds" in str(error)
        assert len(asked) == 6

    def test_slow_list_leads_to_a_new_run_with_on_orphan_start(self):
        assert self.look(self.endless, OnOrphan.START, pause=60.0)[0] is None

    def test_many_runs_without_a_creation_time_are_not_all_read(self):
        runs = [Task(str(number), TaskStatus.RUNNING, "70", input_parameters=PENS_LISTED) for number in range(21)]
        error, asked = self.look(lambda _: page_of(*runs))
        assert isinstance(error, RunStartUnknownError)
        assert "21 tasks that may be the run are listed without their creation time" in str(error)
        assert asked == ["list-tasks"]

    def test_runs_without_a_creation_time_are_read_only_until_the_time_limit(self):
        runs = [Task(str(number), TaskStatus.RUNNING, "70", input_parameters=PENS_LISTED) for number in range(20)]
        error, asked = self.look(lambda step: runs[0] if step.name == "get-task" else page_of(*runs), pause=60.0)
        assert isinstance(error, RunStartUnknownError)
        assert asked.count("get-task") == 5

    @pytest.mark.parametrize(("pause", "number"), [(0.0, 10), (60.0, 4)], ids=["in number", "in time"])
    def test_reading_the_links_of_possible_runs_is_limited(self, pause, number):
        runs = [Task(str(number), TaskStatus.RUNNING, "70", at(1000.0)) for number in range(20)]
        responses = {"list-tasks": page_of(*runs), "get-workflow": Workflow("70"), "get-task": runs[0]}
        error, asked = self.look(lambda step: responses[step.name], pause=pause)
        assert isinstance(error, OrphanError)
        assert asked == ["list-tasks", "get-workflow", *["get-task"] * number]

    def test_run_of_a_template_costs_no_request_for_inputs_that_decide_nothing(self):
        run = Task("5", TaskStatus.RUNNING, "71", at(1000.0))
        error, asked = self.look(lambda step: run if step.name == "get-task" else page_of(run), kind="template")
        assert isinstance(error, OrphanError)
        assert asked == ["list-tasks", "get-task"]


OF_ALL_LISTS = ("created_at_from", "created_at_to", "page", "limit")


@pytest.mark.parametrize(
    ("kind", "name", "params"),
    [
        ("deferred", "list-tasks", {"workflow_id": "70"}),
        ("template", "list-tasks", {}),
        ("bot", "page-runs", {"bot_id": "70"}),
        ("bot template", "page-runs", {}),
    ],
)
def test_look_up_lists_the_runs_of_the_workflow_or_bot_or_all_if_a_template_was_run(kind, name, params):
    steps = begin(start(kind=kind, patience=1.0), None, lambda: 1000.0)
    step = next(steps)
    while not isinstance(step, Call):
        step = steps.send(step.request if isinstance(step, BeforeStart) else None)
    steps.throw(ResponseLostError("x"))
    listing = next(steps)
    assert isinstance(listing, Call)
    assert (listing.name, dict(listing.params)) == (
        name,
        params | {each: listing.params[each] for each in OF_ALL_LISTS},
    )
    begin_at = datetime.fromtimestamp(1000.0 - timings.CLOCK_SKEW, timezone.utc)
    assert listing.params["created_at_from"] == v2.list_tasks(created_at_from=begin_at).params["created_at_from"]


def test_run_that_appears_late_in_the_list_is_found():
    run = Task("5", TaskStatus.RUNNING, "70", AT_1000, input_parameters=PENS_LISTED)
    looks: list[Page[Task]] = [Page((), total_count=0)] * int(timings.LISTING_DELAY / timings.ORPHAN_LIST_PAUSE) + [
        Page((run,), total_count=1)
    ]
    assert look_up(iter(looks)).task_id == "5"


def test_look_up_reads_all_pages():
    run = Task("5", TaskStatus.RUNNING, "70", AT_1000, input_parameters=PENS_LISTED)
    others = [Task(str(number), TaskStatus.RUNNING, "70", input_parameters="keyword=ink") for number in (1, 2)]
    pages = iter([Page((others[0], run), total_count=3), Page((others[1],), total_count=3)] * 99)
    assert look_up(pages).task_id == "5"


def test_look_up_in_a_list_that_contradicts_itself_does_not_report_that_there_is_none():
    with pytest.raises(
        RunStartUnknownError, match="looking for it failed: BrowserAct's responses to list-tasks contradict"
    ):
        look_up(Page((), total_count=3))
