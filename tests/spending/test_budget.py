from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.spending.budget import Budget, forecast_run, refused_by
from tests.cases import cases, examples
from tests.spending.account import MIDNIGHT, NOON, Account, days_ago, listed, listed_bot
from tests.steps import carry_out
from tests.worker.starts import SOURCE

DAILY = Budget("browseract_default", daily_credits=2000)
MONTHLY = Budget("browseract_default", monthly_credits=40_000)
WORKFLOW = Source(SourceKind.WORKFLOW, "71002814653029437")
BOT, BOT_TEMPLATE = Source(SourceKind.BOT, "82"), Source(SourceKind.BOT_TEMPLATE, "82")
NOVEMBER = [date(2026, 11, day) for day in range(1, 27)]

DOWN, BROKEN = errors.ServerError("BrowserAct is down"), errors.ServerError("The list is broken.")


def numbers(verdict):
    return verdict.used, verdict.open, verdict.reserved, verdict.forecast.credits


def runs_of(number, credit, *, first=0, **kwargs):
    return [listed(first + each, credit=credit, **kwargs) for each in range(number)]


def active(number, credit=5, status="running", **kwargs):
    return listed(number, credit=credit, status=status, **kwargs)


def failing(error):
    return Account(fault=lambda call: error)


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
    assert [call.params.get("workflow_id") for call in account.calls] == [None, None]


def test_runs_of_bots_are_those_of_the_same_account():
    account = Account(
        *runs_of(3, 45),
        *(listed_bot(10 + number, credit=60) for number in range(3)),
        active(20),
        listed_bot(21, credit=5, status="running"),
        listed_bot(22, credit=None, status="paused", bot_id="83"),
        listed_bot(23, credit=15, status="running", bot_id=None),
        listed_bot(24, NOON - timedelta(days=2), 70, bot_id="83"),
    )
    used, reserved = 3 * 45 + 3 * 60, 45 + 60 + 5 + 15
    [verdict] = account.check(DAILY)
    assert numbers(verdict) == (used, 4, reserved, 45)
    assert [call.name for call in account.calls] == ["list-tasks", "page-runs"]
    [verdict] = account.check(DAILY, BOT)
    assert numbers(verdict) == (used, 4, reserved, 60)
    assert "mean of 3 runs of bot 82" in verdict.line
    # A template is not named in lists.
    [verdict] = account.check(DAILY, BOT_TEMPLATE, cap=300)
    assert numbers(verdict) == (used, 4, reserved, 300)


TEMPLATE = Source(SourceKind.TEMPLATE, SOURCE.id)
OF_71 = {"workflow_id": "71"}
OF_YESTERDAY = [
    *(days_ago(number, 1, 45) for number in range(2)),
    *(days_ago(number, 1, 70, **OF_71) for number in range(2, 4)),
    *(active(number, workflow_id=workflow_id) for number, workflow_id in ((6, SOURCE.id), (7, "71"), (8, None))),
]
ACTIVE_71 = [*runs_of(3, 45), active(9, None, **OF_71)]


@cases(
    ("runs", "source", "expected"),
    {
        "no run has ended today": (OF_YESTERDAY, SOURCE, (0, 3, 45 + 5 + 5, 45)),
        "no run of the other workflow has ended": (ACTIVE_71, SOURCE, (135, 1, 5, 45)),
        "template with the id of a workflow": ([*runs_of(3, 45), active(9, 0)], TEMPLATE, (135, 1, 45, 300)),
        "ended without credits": ([*runs_of(3, 45), *runs_of(2, None, first=9)], SOURCE, (135, 2, 90, 45)),
        "canceled without credits": ([*runs_of(3, 45), active(9, None, "canceled", **OF_71)], SOURCE, (135, 1, 5, 45)),
    },
)
def test_open_runs_count_with_the_mean_of_their_workflow_or_the_cost_of_a_step(runs, source, expected):
    [verdict] = Account(*runs).check(DAILY, source, cap=300)
    assert numbers(verdict) == expected


# If both refuse, the one does that the run alone exceeds, or else the month, which ends later.
@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        ((100, 4000), "2026-11-27"),
        ((400, 1000), "2026-11"),
        ((100, 2700), "2026-11"),
        ((40, 2700), "2026-11-27"),
        ((400, 4000), None),
    ],
    ids=["the day", "the month", "both", "the day for ever", "neither"],
)
def test_budget_of_the_day_or_of_the_month_refuses(limits, refused):
    account = Account(*runs_of(3, 45))
    account.stored = dict.fromkeys(NOVEMBER, 100)
    day, month = account.check(Budget("browseract_default", *limits))
    assert (str(day.period), numbers(day)) == ("2026-11-27", (135, 0, 0, 45))
    assert (str(month.period), numbers(month)) == ("2026-11", (2735, 0, 0, 45))
    verdict = refused_by([day, month])
    assert (verdict and str(verdict.period)) == refused
    assert len(account.lines) == sum(2 * used > limit for used, limit in zip((135, 2735), limits, strict=True))
    # One list of today in each version, as for the day alone.
    assert len(account.calls) == 2


def spent(used, *credits_of_active):
    """An account with a mean of 45 for the workflow, active runs, and credits that ended runs have used."""
    runs = runs_of(20, 45, workflow_id=WORKFLOW.id)
    others = [active(50 + each, credit) for each, credit in enumerate(credits_of_active)]
    return Account(*runs, *others, listed(99, credit=used - 900, workflow_id="72"))


def test_log_line_names_the_credits_and_what_is_expected_for_open_runs():
    account = spent(1620, 45, 45)
    account.runs += runs_of(1, None, first=200, workflow_id="73")
    [verdict] = account.check(DAILY, WORKFLOW)
    others = "95 are expected for runs that are active or have no credits yet (3)"
    assert account.lines == [f"1,620 credits of daily_credits=2000 are used; {others}, and 45 for this one."]
    assert verdict.line == (
        f"Budget of connection 'browseract_default' for 2026-11-27 (UTC): 1,620 of 2,000 credits are used, {others}. "
        "This run is expected to use 45 (mean of 20 runs of workflow 71002814653029437)."
    )


REFUSED = (
    "The budget of connection 'browseract_default' for {} (UTC) does not allow another run: {} credits are used, {}, "
    "and this run is expected to use 45. {}\n{}"
)
WAIT = 'Wait until {} UTC, raise {} in the extra of the connection, or set on_budget="wait" so that the task waits.'
OPEN = "{} are expected for runs that are active or have no credits yet ({})"
NONE, ONE, STARTED = OPEN.format(0, 0), OPEN.format(60, 1), "No run was started."
ALONE = (
    "This run alone is expected to use more than daily_credits allows, so waiting does not help. Raise daily_credits "
    "in the extra of the connection."
)
LOWER = "The forecast is max_credits of the task, so a lower max_credits lowers it."
DAY, MONTH = WAIT.format("00:00", "daily_credits"), WAIT.format("2026-12-01", "monthly_credits")
SMALL = replace(DAILY, daily_credits=40)


@cases(
    ("account", "budget", "words"),
    {
        "day": (spent(1920, 60), DAILY, ("2026-11-27", "1,920 of 2,000", ONE, STARTED, DAY)),
        "month": (spent(39_999), MONTHLY, ("2026-11", "39,999 of 40,000", NONE, STARTED, MONTH)),
        "run that alone exceeds it": (spent(905), SMALL, ("2026-11-27", "905 of 40", NONE, STARTED, ALONE)),
    },
)
def test_error_of_a_refused_start_names_credits_and_remedy(account, budget, words):
    account.stored = dict.fromkeys(NOVEMBER, 0)
    verdict = refused_by(account.check(budget, WORKFLOW))
    assert verdict is not None
    assert verdict.refusal() == REFUSED.format(*words)
    assert verdict.exceeds_whole_budget is (budget is SMALL)


@cases(
    ("account", "cap", "limit", "remedy"),
    {
        "alone more than the budget": (Account(), 101, 100, f"{ALONE} {LOWER}"),
        "together more than the budget": (Account(*runs_of(1, 50, workflow_id="72")), 51, 100, f"{DAY} {LOWER}"),
        "without a cap": (Account(), None, 4, ALONE),
        "with a mean": (spent(905), 101, 40, ALONE),
    },
)
def test_remedy_names_max_credits_only_if_it_is_the_forecast(account, cap, limit, remedy):
    verdict = refused_by(account.check(replace(DAILY, daily_credits=limit), WORKFLOW, cap))
    assert verdict is not None
    assert verdict.refusal().partition("\n")[2] == remedy


def of_workflow(call):
    return BROKEN if "workflow_id" in call.params else None


@pytest.mark.parametrize("fault", [lambda call: BROKEN, of_workflow], ids=["list", "forecast"])
def test_credits_that_cannot_be_counted_refuse_the_start(fault):
    with pytest.raises(errors.BudgetUnknownError) as caught:
        Account(*runs_of(1, 45), fault=fault).check(DAILY)
    assert str(caught.value) == (
        "The credits of connection 'browseract_default' cannot be counted, so no run was started: The list is broken. "
        "The next try counts again.\nTo start runs without a budget, remove daily_credits and monthly_credits from the "
        "extra of the connection."
    )


def test_refused_api_key_is_an_error_of_its_own():
    account = failing(errors.AuthenticationError("Invalid api key"))
    with pytest.raises(errors.AuthenticationError):
        account.check(DAILY)


def of_november(runs_a_day=1, **kwargs):
    days = [datetime(2026, 11, day, 8, tzinfo=timezone.utc) for day in range(1, 28) for _ in range(runs_a_day)]
    return Account(*(listed(number, at, 10) for number, at in enumerate(days)), **kwargs)


def test_only_days_without_a_stored_sum_are_counted_and_later_ones_are_removed():
    account = of_november()
    account.stored = {day: 1000 for day in NOVEMBER if day.day not in (5, 6)}
    others = {date(2026, 11, 27): 5, date(2099, 1, 1): 5, date(2026, 10, 31): 5}
    account.stored |= others
    [verdict] = account.check(MONTHLY)
    assert verdict.used == 24 * 1000 + 3 * 10
    asked = [call.params["created_at_to"] for call in account.calls if "created_at_to" in call.params]
    assert asked == ["2026-11-06T00:00:00Z"] * 2 + ["2026-11-07T00:00:00Z"] * 2
    assert sorted(account.stored) == [date(2026, 10, 31), *NOVEMBER]
    assert account.stored[date(2026, 11, 5)] == 10


def test_day_with_an_active_run_is_counted_but_not_stored():
    account = of_november()
    account.runs[4]["status"] = "paused"
    # Each day is listed in both versions; one more request is for the forecast.
    for listed_days in (27, 2):
        account.calls.clear()
        [verdict] = account.check(MONTHLY)
        assert (verdict.used, verdict.reserved, verdict.open) == (260, 10, 1)
        assert account.stored == {day: 10 for day in NOVEMBER if day.day != 5}
        assert len(account.calls) == 2 * listed_days + 1


@pytest.mark.parametrize(("age", "is_stored"), [(2, False), (4, True)])
@pytest.mark.parametrize("credit", [None, -(10**19)])
def test_day_whose_runs_have_no_credits_yet_is_stored_only_after_four_days(age, is_stored, credit):
    account = Account(*runs_of(3, 45), days_ago(50, age, credit))
    [verdict] = account.check(MONTHLY)
    day = (NOON - timedelta(days=age)).date()
    assert (verdict.used, verdict.open, day in account.stored) == (135, not is_stored, is_stored)


def test_sum_of_a_day_is_stored_from_seven_hours_and_ten_minutes_after_its_end():
    account = of_november(now=MIDNIGHT + timedelta(hours=7, minutes=9))
    account.check(MONTHLY)
    assert sorted(account.stored) == NOVEMBER[:-1]
    account.now += timedelta(minutes=1)
    account.check(MONTHLY)
    assert sorted(account.stored) == NOVEMBER


def test_check_sends_at_most_80_requests_and_the_next_one_continues_with_the_next_day():
    account = of_november(runs_a_day=3, page_size=1)
    with pytest.raises(errors.BudgetUnknownError, match="more than 80 requests"):
        account.check(MONTHLY)
    assert len(account.calls) == 80
    assert sorted(account.stored) == NOVEMBER[:20]
    [verdict] = account.check(MONTHLY)
    assert verdict.used == 810


def after(seconds):
    return MIDNIGHT + timedelta(seconds=seconds)


def simulated(number, run, now):
    """Return a run as it is listed now: from its creation, it is active for so many minutes, and then has credits."""
    second, minutes, credit = run
    ended = after(second + 60 * minutes) <= now
    return listed(number, after(second), credit if ended else 0, "finished" if ended else "running")


SECOND = st.one_of(
    st.integers(0, 10 * 86400),
    # Around midnight; after four days, a month ends.
    st.builds(lambda day, seconds: day * 86400 + seconds, st.integers(1, 9), st.integers(-35, 35)),
    st.builds(lambda day, seconds: day * 86400 + 25_800 + seconds, st.integers(1, 9), st.integers(-35, 35)),
)


@settings(max_examples=examples(200))
@given(
    st.lists(st.tuples(SECOND, st.integers(0, 420), st.integers(0, 99)), max_size=12),
    st.lists(st.tuples(SECOND, st.integers(-30, 30)), min_size=1, max_size=6),
)
def test_each_run_counts_in_the_day_and_the_month_in_which_browseract_created_it_and_in_no_other(runs, checks):
    """By BrowserAct's clock, runs are created and end; several workers, whose clocks differ, check in turn."""
    account = Account()
    unlimited = Budget("c", daily_credits=10**9, monthly_credits=10**9)
    for second, ahead in sorted(checks):
        account.runs = [simulated(number, run, after(second)) for number, run in enumerate(runs) if run[0] <= second]
        account.now = after(second + ahead)
        for verdict, length in zip(account.check(unlimited), (10, 7), strict=True):
            inside = [run for run in account.runs if run["created_at"][:length] == str(verdict.period)]
            assert str(verdict.period) == account.now.isoformat()[:length]
            assert verdict.used == sum(run["credit"] for run in inside if run["status"] == "finished")
            assert verdict.open == sum(run["status"] == "running" for run in inside)
    for day, stored in account.stored.items():
        assert stored == sum(credit for second, _, credit in runs if after(second).date() == day)


UNKNOWN = "The credits cannot be counted: BrowserAct is down"
MEAN = "This run is expected to use 45 (mean of 3 runs of workflow 70)."
ASSUMED = "This run is expected to use 5 (assumed, because no ended run of workflow 70 was found)."


@cases(
    ("account", "limit", "line"),
    {
        "no runs": (Account(), 180, ASSUMED),
        "budget allows": (Account(*runs_of(3, 45)), 180, f"{MEAN} The budget allows this run."),
        "budget does not allow": (Account(*runs_of(3, 45)), 179, f"{MEAN} The budget does not allow this run."),
        "down": (failing(DOWN), 180, UNKNOWN),
        "key refused": (failing(errors.AuthenticationError("BrowserAct is down")), 180, UNKNOWN),
    },
)
def test_forecast_of_a_dry_run_is_one_line_and_never_fails(account, limit, line):
    carry_out(forecast_run(Budget("c", daily_credits=limit), SOURCE, None, account.clock), account)
    [logged] = account.lines
    assert line in logged


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
