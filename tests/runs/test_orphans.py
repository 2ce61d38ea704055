"""Which run a start has made whose response was lost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import CreatedTask, InputParameter, Page, SourceInfo, Task, TaskStatus
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.matching import Orphan
from airflow_provider_browseract.runs.options import OnOrphan
from airflow_provider_browseract.runs.orphans import OrphanError, find_orphan
from airflow_provider_browseract.runs.starting import StartedRun, begin
from tests.cases import cases
from tests.runs.starts import PENS_LISTED, SAME, Played, at, bot_run, listed_run, page_of, request, start
from tests.steps import replace

DOWN = errors.ServerError("down")
FAIL, ADOPT, ANOTHER = OnOrphan.FAIL, OnOrphan.ADOPT, OnOrphan.START
UNDECIDED, UNKNOWN = "it cannot be decided", "it is not known"


def look_up(page, on_orphan=FAIL, kind="deferred", source=DOWN, read=DOWN) -> Played:
    """Lose the response to a start at second 1000, and look up the run in a list of tasks.

    If no run is found, another start creates task 9.

    :param page: the page that each list has, or an iterator of pages.
    :param source: the details of the workflow or bot, or the error of reading them.
    :param read: a listed task, if it is read alone, or the error.
    """
    pages = itertools.repeat(page) if isinstance(page, Page) else page
    starts: Iterator[object] = iter([errors.ResponseLostError("x"), CreatedTask(id="9")])

    def respond(call: Call[Any]) -> object:
        if call.starts_run:
            return next(starts)
        responses = {"get-workflow": source, "query-bot": source, "get-task": read, "query-run": read}
        return responses[call.name] if call.name in responses else next(pages)

    played = Played(respond, now=1000.0)
    return played.play(begin(start(max_tries=0, kind=kind, patience=1.0, on_orphan=on_orphan), None, played.clock))


def outcome(played: Played) -> str:
    """Return the id of the run; or that the look-up cannot decide, or cannot find out, which it is."""
    if isinstance(played.over, StartedRun):
        return played.over.task_id
    return {OrphanError: UNDECIDED, errors.RunStartUnknownError: UNKNOWN}[type(played.over)]


@pytest.mark.parametrize(
    ("kind", "fields", "task_id"),
    [
        ("deferred", {}, "5"),
        ("deferred", {"created": None}, UNDECIDED),
        ("deferred", {"created": 1000.0 - timings.CLOCK_RESOLUTION}, "5"),
        ("deferred", {"created": 1000.0 - timings.CLOCK_RESOLUTION - 1}, UNDECIDED),
        ("deferred", {"created": 1000.0 - timings.CLOCK_SKEW}, UNDECIDED),
        ("deferred", {"created": 1000.0 - timings.CLOCK_SKEW - 1}, "9"),
        ("deferred", {"created": 1000.0 + timings.CLOCK_SKEW}, "5"),
        ("deferred", {"created": 1001.0 + timings.CLOCK_SKEW}, "9"),
        ("deferred", {"workflow_id": None}, "5"),
        ("deferred", {"workflow_id": "71"}, "9"),
        ("deferred", {"input_parameters": "keyword=ink"}, "9"),
        ("deferred", {"input_parameters": None}, UNDECIDED),
        ("deferred", {"input_parameters": "keyword=pens; max_items=10"}, UNDECIDED),
        ("deferred", {"profile_id": "8"}, "5"),
        ("deferred", {"status": TaskStatus.FAILED}, "5"),
        ("deferred", {"status": TaskStatus.CANCELED}, "5"),
        # It is not certain, and nobody can use such a run.
        ("deferred", {"status": TaskStatus.CANCELED, "created": None}, "9"),
        ("deferred", {"status": TaskStatus.FINISHED}, "5"),
        ("with a profile", {"profile_id": "9"}, "5"),
        ("with a profile", {"profile_id": "8"}, "9"),
        ("with a profile", {"profile_id": None}, UNDECIDED),
        ("with a profile", {"profile_id": "9", "input_parameters": "keyword=ink"}, "9"),
        ("template", {"workflow_id": "70"}, UNDECIDED),
        ("template", {"workflow_id": "71"}, UNDECIDED),
        ("template", {"workflow_id": None}, UNDECIDED),
        ("template", {"input_parameters": "keyword=ink"}, "9"),
        ("bot", {}, "5"),
        ("bot", {"bot_id": None}, "5"),
        ("bot", {"bot_id": "71"}, "9"),
        ("bot", {"created": None}, UNDECIDED),
        ("bot", {"input": {"keyword": "ink"}}, "9"),
        ("bot", {"input": {"keyword": "***"}}, UNDECIDED),
        ("bot", {"input": {"keyword": "pens", "max_items": 10}}, UNDECIDED),
        ("bot", {"input": {"max_items": 10}}, "9"),
        ("bot", {"input": {}}, UNDECIDED),
        ("bot", {"input": None}, UNDECIDED),
        ("bot template", {"bot_id": None}, UNDECIDED),
        ("bot template", {"bot_id": None, "workflow_id": "71"}, UNDECIDED),
        ("bot template", {"bot_id": None, "input": None}, UNDECIDED),
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
        begins = f"An earlier start of {what} 70 may have created one of these BrowserAct tasks: 5"
        assert str(played.over).startswith(begins)


@pytest.mark.parametrize(("shown", "found"), [(10, "5"), (9, UNDECIDED)], ids=["the default", "another value"])
def test_value_that_was_not_sent_must_be_a_default_of_the_workflow_or_bot(shown, found):
    schema = {"properties": {"keyword": {"type": "string"}, "max_items": {"type": "integer", "default": 10}}}
    run = bot_run(input={"keyword": "pens", "max_items": shown})
    assert outcome(look_up(page_of(run), kind="bot", source=SourceInfo(id="70", input_schema=schema))) == found
    names = {"keyword": False, "max_items": found == "5"}
    declared = tuple(InputParameter(name=name, default_enabled=enabled) for name, enabled in names.items())
    run = listed_run(input_parameters="max_items=1; 2; keyword=pens")
    assert outcome(look_up(page_of(run), source=SourceInfo(id="70", input_parameters=declared))) == found


POSSIBLE = page_of(listed_run("5", 980.0), listed_run("6", 990.0), listed_run("7", 970.0))
"""Runs that may be the wanted one, and look a little older; the second is the newest."""

OF_TEMPLATE, OF_BOT_TEMPLATE = listed_run(workflow_id="71"), bot_run(bot_id=None)
CONTRADICTORY: Page[Task] = Page(items=(), total_count=3)


@cases(
    ("page", "kind", "by_fail", "by_adopt"),
    {
        "several possible runs": (POSSIBLE, "deferred", UNDECIDED, "6"),
        "two runs that certainly match": (page_of(*map(listed_run, "56")), "deferred", UNDECIDED, "5"),
        "a run of a template": (page_of(OF_TEMPLATE), "template", UNDECIDED, "5"),
        "a run of a bot template": (page_of(OF_BOT_TEMPLATE), "bot template", UNDECIDED, "5"),
        "a list that contradicts itself": (CONTRADICTORY, "deferred", UNKNOWN, UNKNOWN),
    },
)
def test_undecided_look_up_fails_adopts_the_newest_or_starts_another_run_as_is_wanted(page, kind, by_fail, by_adopt):
    found = [look_up(page, on_orphan, kind=kind) for on_orphan in (FAIL, ADOPT, ANOTHER)]
    assert [outcome(each) for each in found] == [by_fail, by_adopt, "9"]
    error = "looking for it failed: BrowserAct's responses to list-tasks contradict"
    assert (error in str(found[0].over)) == (page is CONTRADICTORY)


def test_several_possible_runs_are_named_in_the_error_the_newest_first():
    assert (
        "created one of these BrowserAct tasks: 6 (running, created at 1970-01-01 00:16:30 UTC), "
        "5 (running, created at 1970-01-01 00:16:20 UTC), 7 (running, created at 1970-01-01 00:16:10 UTC). In the"
    ) in str(look_up(POSSIBLE).over)
    many = [listed_run(str(100 + age), 990.0 - age, input_parameters=None) for age in range(30)]
    text = str(look_up(page_of(*many)).over)
    assert ": 100 (" in text
    assert ", 109 (running, created at 1970-01-01 00:16:21 UTC), and 20 more. In the" in text
    assert "110" not in text


@pytest.mark.parametrize("on_orphan", list(OnOrphan))
def test_possible_run_of_a_template_is_named_with_its_link(on_orphan):
    url = "https://www.browseract.com/log/5"
    read = replace(OF_TEMPLATE, status=TaskStatus.FINISHED, log_detail_url=url)
    named = f"5 (finished, created at 1970-01-01 00:16:40 UTC, {url})"
    if on_orphan is ADOPT:
        # Between the reading of claims and the own claim, nothing else is read.
        named = "5 (running, created at 1970-01-01 00:16:40 UTC)"
    played = look_up(page_of(OF_TEMPLATE), on_orphan, kind="template", read=read)
    assert any(named in line for line in [*played.logged, str(played.over)])


@pytest.mark.parametrize("on_orphan", list(OnOrphan))
@cases(
    ("created", "inputs"),
    {
        "older, with the same inputs": (970.0, PENS_LISTED),
        "older, whose inputs are not listed": (960.0, None),
        "older, with other inputs": (960.0, "keyword=ink"),
        "newer, whose inputs are not listed": (1003.0, None),
    },
)
def test_the_one_run_that_certainly_matches_is_adopted_beside_an_undecided_or_another_one(created, inputs, on_orphan):
    other = listed_run("4", created, TaskStatus.FINISHED, input_parameters=inputs)
    assert outcome(look_up(page_of(listed_run("5", 1001.0), other), on_orphan)) == "5"


def listed_at(clock: float, *tasks: Task) -> Page[Task]:
    """Return a list whose response has a time by BrowserAct's clock."""
    return replace(page_of(*tasks), served_at=at(clock))


def look(responses, on_orphan=FAIL, kind="deferred", takes=0.0, earlier=()) -> Played:
    """Look up the run of a start at second 1000, with responses by endpoint. Each call takes some seconds."""
    wanted = request(kind=kind)
    orphan = Orphan(replace(SAME, source=wanted.source, earlier=earlier), wanted, 2000.0, 1000.0)
    respond = responses if callable(responses) else lambda call: responses[call.name]
    played = Played(respond, now=1000.0, call_takes=takes)
    return played.play(find_orphan(orphan, on_orphan, played.clock))


class TestClocksThatDiffer:
    """The start is sent at second 1000, and the list is read from second 1000 to 1020, by our clock."""

    @pytest.mark.parametrize(
        ("behind", "created", "task_id"),
        [
            *((behind, 1000.0, "5") for behind in (3.0, 10.0, 30.0, 55.0)),
            (3.0, 990.0, UNDECIDED),
            (30.0, 990.0, UNDECIDED),
            # A clock that is ahead changes nothing.
            (-30.0, 1000.0, "5"),
        ],
    )
    def test_run_is_adopted_by_its_time_on_the_clock_of_browseract(self, behind, created, task_id):
        pages = (listed_at(1000.0 + after - behind, listed_run("5", created - behind)) for after in range(0, 100, 5))
        assert outcome(look_up(pages)) == task_id

    @cases(
        ("served_at", "created"),
        {
            "missing": (None, 990.0),
            "more than a minute slow": (945.0, 941.0),
            "at the epoch": (0.0, 990.0),
            "in the future": (1e9, 990.0),
            "earlier than the listed run": (985.0, 990.0),
        },
    )
    def test_time_of_the_response_that_cannot_be_that_of_browseract_is_ignored(self, served_at, created):
        for moment, task_id in ((created, UNDECIDED), (1000.0, "5")):
            run = listed_run("5", moment)
            page = page_of(run) if served_at is None else listed_at(served_at, run)
            assert outcome(look_up(page)) == task_id

    def test_slow_response_does_not_count_as_a_slow_clock(self):
        run = listed_run("5", 985.0)
        responses = {"list-tasks": listed_at(1000.0, run), "get-workflow": SourceInfo(id="70"), "get-task": run}
        assert isinstance(look(responses, takes=25.0).over, OrphanError)


@pytest.mark.parametrize(
    ("inputs", "created", "task_id"),
    [
        (PENS_LISTED, 1000.0, "5"),
        (PENS_LISTED, 1000.0 - timings.CLOCK_RESOLUTION - 1, UNDECIDED),
        (PENS_LISTED, 1000.0 - timings.CLOCK_SKEW - 1, "9"),
        (PENS_LISTED, None, UNDECIDED),
        # It cannot be the run, so it is not read.
        ("keyword=ink", 1000.0, "9"),
    ],
)
def test_run_that_is_listed_without_its_time_is_read_alone(inputs, created, task_id):
    page = page_of(listed_run(created=None, input_parameters=inputs))
    assert outcome(look_up(page, read=listed_run(created=created))) == task_id


class TestBounds:
    """Everything that a look-up reads comes from outside, so its size, number and time are limited."""

    @staticmethod
    def endless(call: Call[Any]) -> Page[Task]:
        number = int(call.params["page"])
        return Page(items=tuple(listed_run(f"{number}-{each}", input_parameters="keyword=ink") for each in range(500)))

    UNDATED = [listed_run(str(number), created=None) for number in range(21)]
    TWENTY = {"list-tasks": page_of(*UNDATED[:20]), "get-task": UNDATED[0]}
    FAILED = [listed_run(str(number), created=None, status=TaskStatus.FAILED) for number in range(21, 50)]
    NO_TIMES = "21 tasks that may be the run are listed without their creation time"

    @cases(
        ("responses", "takes", "why", "calls"),
        {
            "endless": (endless, 0.0, "list-tasks lists more than 5000 items", {"list-tasks": 11}),
            "slow": (endless, 60.0, "it takes longer than 300 seconds", {"list-tasks": 6}),
            "no times": ({"list-tasks": page_of(*UNDATED)}, 0.0, NO_TIMES, {"list-tasks": 1}),
            "no times, slow": (TWENTY, 60.0, "it takes longer", {"list-tasks": 1, "get-task": 5}),
        },
    )
    def test_list_that_is_too_long_or_too_slow_is_given_up_and_does_not_report_that_there_is_no_run(
        self, responses, takes, why, calls
    ):
        played = look(responses, takes=takes)
        assert isinstance(played.over, errors.RunStartUnknownError)
        assert why in str(played.over)
        assert {name: played.names.count(name) for name in played.names} == calls
        # With on_orphan='start', this leads to a new run.
        assert look(responses, ANOTHER, takes=takes).over is None

    def test_runs_that_have_failed_are_not_read_alone_for_their_times(self):
        responses = {"list-tasks": page_of(*self.FAILED), "get-workflow": SourceInfo(id="70")}
        assert look(responses).over is None

    @pytest.mark.parametrize(("takes", "number"), [(0.0, 10), (60.0, 4)], ids=["in number", "in time"])
    def test_reading_the_links_of_possible_runs_is_limited(self, takes, number):
        runs = [listed_run(str(number), input_parameters=None) for number in range(20)]
        responses = {"list-tasks": page_of(*runs), "get-workflow": SourceInfo(id="70"), "get-task": runs[0]}
        played = look(responses, takes=takes)
        assert isinstance(played.over, OrphanError)
        assert played.names == ["list-tasks", "get-workflow", *["get-task"] * number]

    def test_run_of_a_template_costs_no_request_for_inputs_that_decide_nothing(self):
        run = listed_run(workflow_id="71", input_parameters=None)
        played = look({"list-tasks": page_of(run), "get-task": run}, kind="template")
        assert isinstance(played.over, OrphanError)
        assert played.names == ["list-tasks", "get-task"]

    def test_runs_of_a_bot_are_listed_in_pages_of_100_in_any_order(self):
        runs = [bot_run(str(number), input={"keyword": "ink"}) for number in range(100, 349)]
        runs.insert(random.randrange(250), bot_run("5"))

        def respond(call: Call[Any]) -> object:
            assert (call.name, call.params["limit"]) == ("page-runs", 100)
            page = int(call.params["page"])
            return Page(items=tuple(runs[100 * (page - 1) : 100 * page]), total_count=250)

        played = look(respond, kind="bot")
        assert (played.over.id, len(played.asked)) == ("5", 3)

    def test_finished_run_that_was_given_up_earlier_is_not_taken_for_the_new_one(self):
        given_up = listed_run("5", 1001.0, TaskStatus.FINISHED)
        assert look({"list-tasks": page_of(given_up)}, earlier=("5",)).over is None


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
    listing = look_up(page_of(), kind=kind).asked[1]
    of_all = {each: listing.params[each] for each in ("created_at_from", "created_at_to", "page", "limit")}
    assert (listing.name, dict(listing.params)) == (name, {**params, **of_all})
    since = v2.list_tasks(created_at_from=at(1000.0 - timings.CLOCK_SKEW))
    assert of_all["created_at_from"] == since.params["created_at_from"]
