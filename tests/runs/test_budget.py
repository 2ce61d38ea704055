"""The budget of an account: what counts, what is refused, and what happens if it cannot be counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    ResponseTooLargeError,
    ServerError,
    WorkflowNotFoundError,
)
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.budget import (
    Budget,
    BudgetAction,
    ShowBudget,
    check_again,
    check_budget,
    forecast_run,
    refused_by,
)
from airflow_provider_browseract.runs.outcome import BudgetUnknownError
from airflow_provider_browseract.runs.request import Source
from tests.cases import cases, examples
from tests.runs.account import NOON, Account, listed, listed_bot
from tests.runs.starts import SOURCE
from tests.runs.test_spend import contradicting
from tests.steps import carry_out

MIDNIGHT = NOON.replace(hour=0)
DAILY = Budget("browseract_default", daily_credits=2000)
MONTHLY = Budget("browseract_default", monthly_credits=40_000)
WARN = Budget("browseract_default", daily_credits=2000, action=BudgetAction.WARN)
WORKFLOW = Source(SourceKind.WORKFLOW, "71002814653029437")
NOVEMBER = [date(2026, 11, day) for day in range(1, 27)]
"""The past days of the month at the time of the checks."""


def numbers(verdict):
    return verdict.used, verdict.active, verdict.reserved, verdict.forecast.credits


def runs_of(number, credit, *, first=0, **kwargs):
    return [listed(first + each, credit=credit, **kwargs) for each in range(number)]


# What counts


def test_used_reserved_and_expected_are_those_of_all_workflows_of_the_day():
    account = Account(
        *runs_of(20, 45),
        listed(30, credit=100, workflow_id="71"),
        listed(31, credit=200, workflow_id="71"),
        listed(32, credit=5, status="canceled"),
        listed(33, MIDNIGHT - timedelta(seconds=1), 1000),
        # Expected to use the mean of its workflow, what it has used already, or the cost of a step.
        listed(40, credit=5, status="running"),
        listed(41, credit=60, status="paused"),
        listed(42, credit=None, status="created", workflow_id="71"),
        listed(43, credit=None, status="frozen", workflow_id="72"),
    )
    [verdict] = account.check(DAILY)
    assert numbers(verdict) == (20 * 45 + 305, 4, 45 + 60 + 150 + 5, 45)
    # Of the last two workflows, too few runs have ended today.
    assert [call.params.get("workflow_id") for call in account.calls] == [None, None, "71", "72"]


def test_runs_of_bots_are_those_of_the_same_account():
    account = Account(
        *runs_of(3, 45),
        *(listed_bot(10 + number, credit=60) for number in range(3)),
        listed(20, credit=5, status="running"),
        listed_bot(21, credit=5, status="running"),
        listed_bot(22, credit=None, status="paused", bot_id="83"),
        listed_bot(23, credit=15, status="running", bot_id=None),
        listed_bot(24, NOON - timedelta(days=2), 70, bot_id="83"),
    )
    used, reserved = 3 * 45 + 3 * 60, 45 + 60 + 70 + 15
    [verdict] = account.check(DAILY)
    assert numbers(verdict) == (used, 4, reserved, 45)
    # Of one bot, no run has ended today.
    assert [(call.name, call.params.get("bot_id")) for call in account.calls] == [
        ("list-tasks", None),
        ("page-runs", None),
        ("page-runs", "83"),
    ]
    [verdict] = account.check(DAILY, Source(SourceKind.BOT, "82"))
    assert numbers(verdict) == (used, 4, reserved, 60)
    assert "mean of 3 runs of bot 82" in verdict.line
    # A template is not named in lists.
    [verdict] = account.check(DAILY, Source(SourceKind.BOT_TEMPLATE, "82"), cap=300)
    assert numbers(verdict) == (used, 4, reserved, 300)


def test_budget_counts_a_run_once_that_both_versions_list():
    runs = (
        *runs_of(3, 45),
        *(listed_bot(10 + number, credit=60) for number in range(3)),
        listed_bot(20, credit=5, status="running"),
    )
    account = Account(*runs, shared=True)
    [verdict] = account.check(DAILY, Source(SourceKind.BOT, "82"))
    assert numbers(verdict) == (3 * 45 + 3 * 60, 1, 60, 60)


def test_active_runs_count_with_the_forecasts_of_their_workflows_although_no_run_has_ended_today():
    yesterday = [
        listed(number, NOON - timedelta(days=1), credit, workflow_id=workflow_id)
        for number, (credit, workflow_id) in enumerate([(45, SOURCE.id), (45, SOURCE.id), (70, "71"), (70, "71")])
    ]
    active = [
        listed(6, credit=5, status="running"),
        listed(7, credit=5, status="running", workflow_id="71"),
        listed(8, credit=5, status="running", workflow_id=None),
    ]
    account = Account(*yesterday, *active)
    [verdict] = account.check(DAILY)
    assert numbers(verdict) == (0, 3, 45 + 70 + 5, 45)
    assert [call.params.get("workflow_id") for call in account.calls] == [None, None, "71", SOURCE.id]


def test_forecasts_that_cannot_be_read_make_the_credits_unknown():
    account = Account(*runs_of(3, 45), listed(9, credit=None, status="running", workflow_id="71"))

    def answer(step):
        is_forecast = isinstance(step, Call) and step.params.get("workflow_id") == "71"
        return ServerError("down", http_status=503) if is_forecast else account(step)

    with pytest.raises(BudgetUnknownError):
        carry_out(check_budget(DAILY, SOURCE, None, account.clock), answer)


def test_negative_credits_count_as_not_known():
    [verdict] = Account(listed(50, credit=-(10**19)), *runs_of(3, 45)).check(DAILY)
    assert (verdict.used, verdict.without_credits) == (135, 1)


def test_forecast_divides_a_page_that_is_too_large():
    account = Account(*[listed(number, NOON - timedelta(days=2), 45) for number in range(60)])

    def answer(step):
        is_large = isinstance(step, Call) and "workflow_id" in step.params and int(step.params["limit"]) > 50
        return ResponseTooLargeError("too large") if is_large else account(step)

    [verdict] = carry_out(check_budget(DAILY, SOURCE, None, account.clock), answer)
    assert verdict.forecast == (45, 20)


def test_run_that_alone_exceeds_the_budget_is_refused_without_the_advice_to_wait():
    verdict = refused_by(Account(*runs_of(3, 45)).check(replace(DAILY, daily_credits=40)))
    assert verdict is not None
    assert verdict.exceeds_whole_budget
    assert verdict.refusal().endswith(
        "This run alone is expected to use more than daily_credits allows, so waiting does not help. Raise "
        "daily_credits in the extra of the connection."
    )


def test_unknown_workflow_of_an_active_run_counts_with_the_cost_of_a_step():
    account = Account(*runs_of(3, 45), listed(9, credit=None, status="running", workflow_id="71"))
    unknown = WorkflowNotFoundError("there is no such workflow", code=10109)

    def answer(step):
        return unknown if isinstance(step, Call) and step.params.get("workflow_id") == "71" else account(step)

    [verdict] = carry_out(check_budget(DAILY, SOURCE, None, account.clock), answer)
    assert numbers(verdict) == (135, 1, 5, 45)


def test_active_run_of_a_bot_whose_listed_id_is_odd_counts_with_the_cost_of_a_step():
    account = Account(*runs_of(3, 45), listed_bot(9, credit=None, status="running", bot_id="../runs"))
    [verdict] = account.check(DAILY)
    assert numbers(verdict) == (135, 1, 5, 45)


def test_run_of_the_next_day_by_the_clock_of_browseract_counts_only_then():
    tomorrow = MIDNIGHT + timedelta(days=1)
    account = Account(listed(1, tomorrow), now=tomorrow - timedelta(seconds=30))
    for used in (0, 45):
        [verdict] = account.check(DAILY)
        assert verdict.used == used
        account.now = tomorrow


def test_forecast_of_a_template_is_not_that_of_a_workflow_with_the_same_id():
    account = Account(*runs_of(3, 45), listed(9, credit=0, status="running"))
    [verdict] = account.check(DAILY, Source(SourceKind.TEMPLATE, SOURCE.id), cap=300)
    assert numbers(verdict) == (135, 1, 45, 300)


@pytest.mark.parametrize(("used", "allowed"), [(1955, True), (1956, False)])
def test_run_is_allowed_up_to_exactly_the_budget(used, allowed):
    account = Account(*runs_of(3, 45), listed(9, credit=used - 135, workflow_id="71"))
    verdicts = account.check(DAILY)
    assert (refused_by(verdicts) is None) is allowed
    [shown] = account.shown
    assert shown == ShowBudget(
        {
            "period": "2026-11-27",
            "limit": 2000,
            "used": used,
            "reserved": 0,
            "expected": 45,
            "verdict": "allowed" if allowed else "refused",
        },
        None if allowed else "refused",
    )


def test_of_day_and_month_that_both_refuse_the_one_that_ends_later_is_reported():
    account = Account(*runs_of(3, 45))
    account.stored = dict.fromkeys(NOVEMBER, 100)
    both = Budget("browseract_default", daily_credits=100, monthly_credits=2700)
    day, month = account.check(both)
    assert (str(day.period), numbers(day)) == ("2026-11-27", (135, 0, 0, 45))
    assert (str(month.period), numbers(month)) == ("2026-11", (2735, 0, 0, 45))
    assert refused_by([day, month]) is month
    assert [shown.xcom["period"] for shown in account.shown] == ["2026-11"]
    assert len(account.lines) == 2
    # One list of today in each version, as for the day alone.
    assert len(account.calls) == 2


@cases(
    ("budget", "refused"),
    {
        "the day": (Budget("c", daily_credits=100, monthly_credits=4000), "2026-11-27"),
        "the month": (Budget("c", daily_credits=400, monthly_credits=1000), "2026-11"),
        "neither": (Budget("c", daily_credits=400, monthly_credits=4000), None),
    },
)
def test_either_budget_alone_refuses(budget, refused):
    account = Account(*runs_of(3, 45))
    account.stored = dict.fromkeys(NOVEMBER, 100)
    verdict = refused_by(account.check(budget))
    assert (verdict and str(verdict.period)) == refused
    # The XCom has the budget with fewer credits left.
    assert [shown.xcom["period"] for shown in account.shown] == [refused or "2026-11-27"]


# The texts


def spent(used, *credits_of_active):
    """An account with a mean of 45 for the workflow, active runs, and credits that ended runs have used."""
    runs = runs_of(20, 45, workflow_id=WORKFLOW.id)
    active = [listed(50 + each, credit=credit, status="running") for each, credit in enumerate(credits_of_active)]
    return Account(*runs, *active, listed(99, credit=used - 900, workflow_id="72"))


def test_log_line_of_an_allowed_start():
    account = spent(1620, 45, 45)
    account.check(DAILY, WORKFLOW)
    assert account.lines == [
        "Budget of connection 'browseract_default' for 2026-11-27 (UTC): 1,620 of 2,000 credits used, 90 expected for "
        "2 active runs. This run is expected to use 45 (mean of 20 runs of workflow 71002814653029437)."
    ]


@pytest.mark.parametrize(
    ("without", "text"), [(1, "1 ended run has no credits yet."), (3, "3 ended runs have no credits yet.")]
)
def test_log_line_names_ended_runs_without_credits(without, text):
    account = spent(1620)
    account.runs += [*runs_of(without, None, first=200), listed(300, credit=None, status="running")]
    account.check(DAILY, WORKFLOW)
    assert f"1,620 of 2,000 credits used, 5 expected for 1 active run. {text} This run" in account.lines[0]


def test_error_of_a_refused_start():
    account = spent(1920, 60)
    verdict = refused_by(account.check(DAILY, WORKFLOW))
    assert verdict is not None
    assert verdict.refusal() == (
        "The budget of connection 'browseract_default' for 2026-11-27 (UTC) does not allow another run: 1,920 of 2,000 "
        "credits are used, 60 are expected for 1 active run, and this run is expected to use 45. No run was started.\n"
        'Wait until 00:00 UTC, raise daily_credits in the extra of the connection, or set on_budget="wait" so that the '
        "task waits."
    )


def test_error_of_a_start_that_the_monthly_budget_refuses_names_the_next_month():
    account = Account(listed(50, credit=39_999), *runs_of(9, 5))
    account.stored = dict.fromkeys(NOVEMBER, 0)
    verdict = refused_by(account.check(MONTHLY))
    assert verdict is not None
    assert verdict.refusal("123") == (
        "The budget of connection 'browseract_default' for 2026-11 (UTC) does not allow another run: 40,044 of 40,000 "
        "credits are used, no run is active, and this run is expected to use 4,005. BrowserAct task 123 was stopped, "
        "because other runs were started at the same time.\n"
        'Wait until 2026-12-01 UTC, raise monthly_credits in the extra of the connection, or set on_budget="wait" so '
        "that the task waits."
    )


def test_exceeded_budget_with_the_action_warn_logs_a_warning_and_refuses_nothing():
    account = spent(1990)
    assert refused_by(account.check(WARN, WORKFLOW)) is None
    assert account.lines[1:] == [
        "This run is expected to exceed daily_credits=2000. It is started, because budget_action is 'warn'."
    ]
    [shown] = account.shown
    assert (shown.counter, shown.xcom["verdict"]) == ("exceeded", "exceeded")


# What cannot be counted


def without_time(page, number):
    return {**page, "items": [{**item, "created_at": "-"} for item in page["items"]]}


UNCOUNTABLE = cases(
    ("account", "fault", "why"),
    {
        "list unreadable": (Account, ServerError("BrowserAct is down"), "BrowserAct is down"),
        "81 pages": (
            lambda: Account(*runs_of(801, 5), page_size=10),
            None,
            "counting them takes more than 80 requests",
        ),
        "contradicting pages": (lambda: Account(*runs_of(501, 5)), contradicting, "contradict each other"),
        "item without id": (lambda: Account({**listed(1), "id": ""}), None, "one without an id"),
        "item without creation time": (lambda: Account({**listed(1), "created_at": None}), None, "creation time"),
        "unreadable creation time": (lambda: Account(listed(1)), without_time, "creation time"),
    },
)


def broken(make, fault):
    account = make()
    if isinstance(fault, Exception):
        account.error = fault
    elif fault is not None:
        account.change = fault
    return account


@UNCOUNTABLE
def test_credits_that_cannot_be_counted_refuse_the_start_with_an_error_that_can_be_retried(account, fault, why):
    account = broken(account, fault)
    with pytest.raises(BudgetUnknownError) as caught:
        account.check(DAILY)
    first, second = str(caught.value).split("\n")
    assert first.startswith("The credits of connection 'browseract_default' cannot be counted, so no run was started: ")
    assert why in first
    assert first.endswith(". The next try counts again.")
    assert ".." not in first
    assert second == 'To start runs in this case, set budget_action="warn" in the extra of the connection.'
    assert account.shown == [ShowBudget({"verdict": "unknown"}, "unknown")]


@UNCOUNTABLE
def test_credits_that_cannot_be_counted_only_warn_with_the_action_warn(account, fault, why):
    account = broken(account, fault)
    assert account.check(WARN) == ()
    [line] = account.lines
    assert line.startswith("The credits of connection 'browseract_default' cannot be counted: ")
    assert why in line
    assert line.endswith(". The run is started, because budget_action is 'warn'.")
    assert account.shown == [ShowBudget({"verdict": "unknown"}, "unknown")]


@pytest.mark.parametrize("budget", [DAILY, WARN], ids=["refuse", "warn"])
def test_refused_api_key_is_an_error_of_its_own(budget):
    account = Account()
    account.error = AuthenticationError("Invalid api key")
    with pytest.raises(AuthenticationError):
        account.check(budget)
    assert account.shown == []


# The sums of past days


def of_november(runs_a_day=1, **kwargs):
    number = iter(range(1000))
    return Account(
        *(
            listed(next(number), datetime(2026, 11, day, 8, tzinfo=timezone.utc), 10)
            for day in range(1, 28)
            for _ in range(runs_a_day)
        ),
        **kwargs,
    )


def test_past_days_are_counted_once_and_stored():
    account = of_november()
    [verdict] = account.check(MONTHLY)
    # Another request is for the forecast.
    assert (verdict.used, len(account.calls)) == (270, 2 * 27 + 1)
    assert account.stored == dict.fromkeys(NOVEMBER, 10)
    account.calls.clear()
    [verdict] = account.check(MONTHLY)
    assert (verdict.used, len(account.calls)) == (270, 2 + 1)


def test_only_days_without_a_stored_sum_are_counted():
    account = of_november()
    account.stored = {day: 1000 for day in NOVEMBER if day.day not in (5, 6)}
    [verdict] = account.check(MONTHLY)
    assert verdict.used == 24 * 1000 + 3 * 10
    asked = [call.params["created_at_to"] for call in account.calls if "created_at_to" in call.params]
    assert asked == ["2026-11-06T00:00:00Z"] * 2 + ["2026-11-07T00:00:00Z"] * 2
    assert sorted(account.stored) == NOVEMBER
    assert account.stored[date(2026, 11, 5)] == 10


def test_day_with_an_active_run_is_counted_but_not_stored():
    account = of_november()
    account.runs[4]["status"] = "paused"
    [verdict] = account.check(MONTHLY)
    assert (verdict.used, verdict.reserved, verdict.active) == (260, 10, 1)
    assert sorted(account.stored) == [day for day in NOVEMBER if day.day != 5]


@pytest.mark.parametrize(("age", "is_stored"), [(2, False), (4, True)])
def test_day_whose_runs_have_no_credits_yet_is_stored_only_after_four_days(age, is_stored):
    day = (NOON - timedelta(days=age)).date()
    account = Account(*runs_of(3, 45), listed(50, NOON - timedelta(days=age), None))
    [verdict] = account.check(MONTHLY)
    assert (verdict.without_credits, day in account.stored) == (not is_stored, is_stored)


def test_sum_of_a_day_is_stored_from_seven_hours_and_ten_minutes_after_its_end():
    account = of_november(now=MIDNIGHT + timedelta(hours=7, minutes=9))
    account.check(MONTHLY)
    assert sorted(account.stored) == NOVEMBER[:-1]
    account.now += timedelta(minutes=1)
    account.check(MONTHLY)
    assert sorted(account.stored) == NOVEMBER


def test_sum_of_a_later_day_that_someone_has_stored_is_removed():
    account = of_november()
    account.stored = {date(2026, 11, 27): 5, date(2099, 1, 1): 5, date(2026, 10, 31): 5}
    [verdict] = account.check(MONTHLY)
    assert verdict.used == 270
    assert sorted(account.stored) == [date(2026, 10, 31), *NOVEMBER]


def test_check_sends_at_most_80_requests_and_the_next_one_continues_with_the_next_day():
    account = of_november(runs_a_day=3, page_size=1)
    with pytest.raises(BudgetUnknownError, match="more than 80 requests"):
        account.check(MONTHLY)
    assert len(account.calls) == 80
    assert sorted(account.stored) == NOVEMBER[:20]
    [verdict] = account.check(MONTHLY)
    assert verdict.used == 810


def test_days_that_were_counted_before_an_error_are_stored():
    account = of_november()

    def answer(page, number):
        if len(account.calls) == 2 * 4:
            account.error = ServerError("down")
        return page

    account.change = answer
    with pytest.raises(BudgetUnknownError):
        account.check(MONTHLY)
    assert sorted(account.stored) == NOVEMBER[:4]


class _Run:
    """A run in simulated time: from its creation, it is active for so many minutes, and then has used credits."""

    def __init__(self, number, created_at, minutes, credit):
        self.number, self.created_at, self.credit = number, created_at, credit
        self.ends_at = created_at + timedelta(minutes=minutes)

    def listed(self, at):
        ended = self.ends_at <= at
        return listed(self.number, self.created_at, self.credit if ended else 0, "finished" if ended else "running")


SECOND = st.one_of(
    st.integers(0, 10 * 86400),
    # Around midnight; after four days, a month ends.
    st.builds(lambda day, seconds: day * 86400 + seconds, st.integers(1, 9), st.integers(-35, 35)),
    st.builds(lambda day, seconds: day * 86400 + 25_800 + seconds, st.integers(1, 9), st.integers(-35, 35)),
)
BEGIN = datetime(2026, 11, 27, tzinfo=timezone.utc)


@settings(max_examples=examples(200))
@given(
    st.lists(st.tuples(SECOND, st.integers(0, 420), st.integers(0, 99)), max_size=12),
    st.lists(st.tuples(SECOND, st.integers(-30, 30)), min_size=1, max_size=6),
)
def test_each_run_counts_in_the_day_and_the_month_in_which_browseract_created_it_and_in_no_other(runs, checks):
    """By BrowserAct's clock, runs are created and end; several workers, whose clocks differ, check in turn."""
    every = [
        _Run(number, BEGIN + timedelta(seconds=begin), minutes, credit)
        for number, (begin, minutes, credit) in enumerate(runs)
    ]
    account = Account()
    unlimited = Budget("c", daily_credits=10**9, monthly_credits=10**9)
    for second, ahead in sorted(checks):
        at = BEGIN + timedelta(seconds=second)
        account.runs = [run.listed(at) for run in every if run.created_at <= at]
        account.now = at + timedelta(seconds=ahead)
        for verdict, length in zip(account.check(unlimited), (10, 7), strict=True):
            inside = [run for run in account.runs if run["created_at"][:length] == str(verdict.period)]
            assert str(verdict.period) == account.now.isoformat()[:length]
            assert verdict.used == sum(run["credit"] for run in inside if run["status"] == "finished")
            assert verdict.active == sum(run["status"] == "running" for run in inside)
    for day, stored in account.stored.items():
        assert stored == sum(run.credit for run in every if run.created_at.date() == day)


# The second check


def check_twice(account, budget=None, source=SOURCE, task_id="500"):
    """Check the budget, and check it again after a start."""
    verdicts = account.check(budget or Budget("c", daily_credits=190), source)
    for kept in (account.calls, account.shown, account.lines):
        kept.clear()
    account.runs += account.started
    return carry_out(check_again(verdicts, task_id, account.clock), account)


def starting(*started, runs=()):
    """An account whose mean is 45 and that has used 135 credits, in which runs are then started."""
    account = Account(*(runs or runs_of(3, 45)))
    account.started = list(started)
    return account


def new(number, seconds=0, status="created", credit=0):
    return listed(number, NOON + timedelta(seconds=seconds), credit, status)


@cases(
    ("others", "refused"),
    {
        "alone": ([], False),
        "with a smaller id in the same second": ([new(499)], True),
        "with a larger id in the same second": ([new(501)], False),
        "earlier, with a larger id": ([new(501, -1)], True),
        "later, with a smaller id": ([new(499, 1)], False),
        "stopped earlier": ([new(499, status="canceled", credit=5)], False),
        "stopped, with a larger id": ([new(501, status="canceled", credit=90)], False),
        "finished, with a larger id": ([new(501, status="finished", credit=45)], True),
        "failed, with a larger id": ([new(501, status="failed", credit=45)], True),
        "stopped earlier, with more credits": ([new(499, status="canceled", credit=15)], True),
    },
)
def test_new_run_is_refused_only_by_runs_before_it(others, refused):
    account = starting(new(500), *others)
    verdict = check_twice(account)
    assert (verdict is not None) is refused
    assert [shown.counter for shown in account.shown] == ["refused"] * refused
    assert account.slept == timings.SECOND_CHECK_DELAY
    assert [call.name for call in account.calls] == ["list-tasks", "page-runs"]


@pytest.mark.parametrize("status", ["finished", "failed", "canceled"])
def test_new_run_that_has_ended_in_the_meantime_is_not_refused(status):
    account = starting(new(500, status=status, credit=45), new(499))
    assert check_twice(account) is None
    assert account.shown == []


def test_second_check_is_only_made_near_the_limit_and_only_to_refuse():
    for budget, taken in (
        (Budget("c", daily_credits=180 + 20 * 45), False),
        (Budget("c", daily_credits=179 + 20 * 45), True),
        (Budget("c", daily_credits=180, action=BudgetAction.WARN), False),
    ):
        account = starting(new(500))
        assert check_twice(account, budget) is None
        assert bool(account.calls) is taken


def test_no_second_check_without_verdicts():
    account = Account()
    assert carry_out(check_again([], "500", account.clock), account) is None
    assert (account.calls, account.slept) == ([], 0)


def test_second_check_lists_again_until_the_new_run_appears():
    account = starting(new(499))
    account.change = lambda page, number: (
        {"items": [*page["items"], new(500)], "total_count": page["total_count"] + 1}
        if page["items"] and account.slept > 6
        else page
    )
    assert check_twice(account) is not None
    assert account.slept == timings.SECOND_CHECK_DELAY + timings.ORPHAN_LIST_PAUSE


def test_new_run_that_does_not_appear_in_the_list_keeps_running():
    account = starting(new(499))
    assert check_twice(account) is None
    assert timings.LISTING_DELAY <= account.slept < timings.LISTING_DELAY + timings.ORPHAN_LIST_PAUSE + 1
    assert account.lines == [
        "The budget was not checked again after the start, because the new run is not listed. It keeps running."
    ]


def test_new_run_keeps_running_if_the_list_cannot_be_read():
    account = starting(new(500), new(499))
    verdicts = account.check(Budget("c", daily_credits=190))
    account.error = ServerError("BrowserAct is down")
    assert carry_out(check_again(verdicts, "500", account.clock), account) is None
    assert account.lines[1:] == [
        "The budget could not be checked again, so the new run keeps running: BrowserAct is down"
    ]


@pytest.mark.parametrize("seconds", [-40, -1, 1, 40])
@pytest.mark.parametrize("rival", [True, False], ids=["with another start", "alone"])
def test_second_check_around_midnight_finds_the_new_run_on_the_day_that_browseract_gives_it(seconds, rival):
    """BrowserAct's clock and ours differ by up to a minute, and the day or the month ends in the meantime."""
    midnight = datetime(2026, 12, 1, tzinfo=timezone.utc)
    account = Account(*(listed(number, midnight - timedelta(hours=2), 45) for number in range(3)))
    for ahead in (-1, 1):
        account.now = midnight + timedelta(seconds=ahead)
        created_at = midnight + timedelta(seconds=seconds)
        account.started = [listed(500, created_at, 0, "created")]
        if rival:
            account.started += [
                listed(number, created_at - timedelta(seconds=1), 0, "created") for number in range(400, 404)
            ]
        verdict = check_twice(account, Budget("c", daily_credits=190))
        assert (verdict and str(verdict.period)) == (("2026-11-30" if seconds < 0 else "2026-12-01") if rival else None)
        assert account.slept < timings.LISTING_DELAY
        account.runs = account.runs[:3]


# The forecast of a dry run


def dry_run(account, budget=None, source=SOURCE, cap=None):
    carry_out(forecast_run(budget, source, cap, account.clock), account)
    assert account.shown == []
    return account.lines


@cases(
    ("account", "text"),
    {
        "mean": (Account(*runs_of(4, 1045)), "1,045 credits (mean of 4 runs of workflow 70)."),
        "no runs": (Account(), "5 credits (assumed, because no ended run of workflow 70 was found)."),
    },
)
def test_forecast_without_a_budget(account, text):
    assert dry_run(account) == [f"The run is expected to use {text}"]


@pytest.mark.parametrize(("limit", "verdict"), [(180, "allows"), (179, "does not allow")])
def test_forecast_with_a_budget_names_the_verdict_and_never_fails(limit, verdict):
    [line] = dry_run(Account(*runs_of(3, 45)), Budget("c", daily_credits=limit))
    assert line.startswith("Budget of connection 'c' for 2026-11-27 (UTC): 135 of ")
    assert line.endswith(f"(mean of 3 runs of workflow 70). The budget {verdict} this run.")


@pytest.mark.parametrize("budget", [None, DAILY], ids=["without a budget", "with a budget"])
@pytest.mark.parametrize("error", [ServerError("BrowserAct is down"), AuthenticationError("BrowserAct is down")])
def test_forecast_that_cannot_be_made_is_a_warning(budget, error):
    account = Account()
    account.error = error
    [line] = dry_run(account, budget)
    assert line.startswith("The credits cannot be counted: BrowserAct is down")


@cases(
    ("at", "begins", "ends"),
    {
        "November": (NOON, "2026-11-01", "2026-12-01"),
        "the first second": (datetime(2026, 12, 1, tzinfo=timezone.utc), "2026-12-01", "2027-01-01"),
        "the last second": (datetime(2028, 2, 29, 23, 59, 59, tzinfo=timezone.utc), "2028-02-01", "2028-03-01"),
    },
)
def test_month_of_a_budget(at, begins, ends):
    [period] = MONTHLY.periods(at)
    assert (str(period.begins.date()), str(period.ends.date()), str(period)) == (begins, ends, begins[:7])
