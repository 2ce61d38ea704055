from __future__ import annotations

import json
import logging
import textwrap
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.spending.budget import Budget
from tests.helpers.cases import cases, examples, raising
from tests.helpers.pages import PAGES
from tests.spending.account import MIDNIGHT, NOON, Account, days_ago, listed, listed_bot
from tests.worker.starts import KEY_DIGEST, SOURCE

DAILY = Budget("browseract_default", daily_credits=2000)
MONTHLY = Budget("browseract_default", monthly_credits=40_000)
WORKFLOW = Source(SourceKind.WORKFLOW, "71002814653029437")
TEMPLATE = Source(SourceKind.TEMPLATE, SOURCE.id)
BOT, BOT_TEMPLATE = Source(SourceKind.BOT, "82"), Source(SourceKind.BOT_TEMPLATE, "82")
NOVEMBER = [date(2026, 11, day) for day in range(1, 27)]
OF_71: dict[str, Any] = {"workflow_id": "71"}

BROKEN = errors.ServerError("The list is broken.")


def address_of(run):
    return None if run.source_id is None else "https://www.browseract.com/logs/71002814700000050"


def numbers(verdict):
    return verdict.used, len(verdict.open), verdict.reserved, verdict.forecast.credits


def runs_of(number, credit, *, first=0, **kwargs):
    return [listed(first + each, credit=credit, **kwargs) for each in range(number)]


def active(number, credit=5, status="running", **kwargs):
    return listed(number, credit=credit, status=status, **kwargs)


DAY_OF_WORKFLOWS = [
    *runs_of(20, 45),
    listed(30, credit=100, **OF_71),
    listed(31, credit=200, **OF_71),
    listed(32, credit=5, status="canceled"),
    listed(33, MIDNIGHT - timedelta(seconds=1), 1000),
    # Expected to use the mean of its workflow, what it has used already, or the cost of a step.
    active(40),
    active(41, 60, "paused"),
    active(42, None, "created", **OF_71),
    active(43, None, "frozen", workflow_id="72"),
]
DAY_WITH_BOTS = [
    *runs_of(3, 45),
    *(listed_bot(10 + number, credit=60) for number in range(3)),
    active(20),
    listed_bot(21, credit=5, status="running"),
    listed_bot(22, credit=None, status="paused", bot_id="83"),
    listed_bot(23, credit=15, status="running", bot_id=None),
    listed_bot(24, NOON - timedelta(days=2), 70, bot_id="83"),
]
USED, RESERVED = 3 * 45 + 3 * 60, 45 + 60 + 5 + 15
OF_YESTERDAY = [
    *(days_ago(number, 1, 45) for number in range(2)),
    *(days_ago(number, 1, 70, **OF_71) for number in range(2, 4)),
    *(active(number, workflow_id=workflow_id) for number, workflow_id in ((6, SOURCE.id), (7, "71"), (8, None))),
]
TWENTY_OTHERS = [*runs_of(3, 45), *(active(each, None, workflow_id=str(each)) for each in range(100, 120))]
ENDED_WITHOUT = [*runs_of(3, 45), *runs_of(2, None, first=9)]
FIVE = (1200, 5, 2000, 400)


@cases(
    ("all workflows of the day", DAY_OF_WORKFLOWS, SOURCE, (20 * 45 + 305, 4, 45 + 60 + 150 + 5, 45), 2),
    ("bots of the same account", DAY_WITH_BOTS, SOURCE, (USED, 4, RESERVED, 45), 2),
    ("a bot", DAY_WITH_BOTS, BOT, (USED, 4, RESERVED, 60), 2),
    # A template is not named in lists.
    ("template of a bot", DAY_WITH_BOTS, BOT_TEMPLATE, (USED, 4, RESERVED, 300), 2),
    ("template with the id of a workflow", [*runs_of(3, 45), active(9, 0)], TEMPLATE, (135, 1, 45, 300), 2),
    ("20 other workflows are active", TWENTY_OTHERS, SOURCE, (135, 20, 100, 45), 2),
    ("no run has ended today", OF_YESTERDAY, SOURCE, (0, 3, 45 + 5 + 5, 45), 3),
    ("ended without credits", ENDED_WITHOUT, SOURCE, (135, 2, 90, 45), 2),
    ("no run", [], SOURCE, (0, 0, 0, 300), 3),
    # When a run ends, it holds its part of the budget until it has credits.
    *(
        (f"five {status} runs", [*runs_of(3, 400), *runs_of(5, None, first=9, status=status)], SOURCE, FIVE, 2)
        for status in ("running", "finished")
    ),
)
def test_used_reserved_and_expected_are_those_of_all_runs_of_the_day(runs, source, expected, requests):
    account = Account(*runs)
    [verdict] = account.check(DAILY, source, cap=300)
    assert numbers(verdict) == expected
    # A list of each version, and one more for older runs of the source if fewer than three have ended.
    assert [call.name for call in account.calls[:2]] == ["list-tasks", "page-runs"]
    assert [call.params.get("workflow_id") for call in account.calls] == [None, None, SOURCE.id][:requests]


# If both refuse, the one does that the run alone exceeds, or else the month, which ends later.
@cases(
    ("the day", (100, 4000), "daily_credits"),
    ("the month", (400, 1000), "monthly_credits"),
    ("both", (100, 2700), "monthly_credits"),
    ("the day for ever", (40, 2700), "daily_credits"),
    ("neither", (400, 4000), None),
)
def test_budget_of_the_day_or_of_the_month_refuses(caplog, limits, refused):
    caplog.set_level(logging.INFO)
    account = Account(*runs_of(3, 45))
    account.stored = dict.fromkeys(NOVEMBER, 100)
    budget = Budget("browseract_default", *limits)
    day, month = account.check(budget)
    assert (str(day.period), numbers(day)) == ("2026-11-27", (135, 0, 0, 45))
    assert (str(month.period), numbers(month)) == ("2026-11", (2735, 0, 0, 45))
    # One list of today in each version, as for the day alone.
    assert len(account.calls) == 2
    verdict = account.refusal(budget)
    assert (verdict and verdict.period.setting) == refused
    assert len(caplog.messages) == sum(2 * used > limit for used, limit in zip((135, 2735), limits, strict=True))


def spent(used, *others):
    """An account with a mean of 45 for the workflow, other runs, and credits that ended runs have used."""
    return Account(*runs_of(20, 45, workflow_id=WORKFLOW.id), *others, listed(99, credit=used - 900, workflow_id="72"))


REASON = "The budget of connection 'browseract_default' ({}_credits) does not allow another run. No run was started."
WAIT = 'Wait until {} 00:00 UTC, raise {} in the extra of the connection, or set on_budget="wait".'
DAY, MONTH = WAIT.format("2026-11-28", "daily_credits"), WAIT.format("2026-12-01", "monthly_credits")
ALONE = (
    "This run alone exceeds the budget, so waiting does not help. Raise daily_credits in the extra of the connection."
)
LOWER = " The credits expected for this run are its max_credits. Lower it if the run needs less."
OPEN = "credits are used, {} are expected for runs that are active or have no credits yet ({}), and"
NONE, MEAN, CAP = OPEN.format(0, 0), "45 for this run (mean of earlier runs).", "for this run (its max_credits)."
ONE_STEP = "5 for this run (one step, as no earlier run is known)."
MUCH = f"39,999 of 40,000 {OPEN.format(45, 1)} {MEAN}"
LARGEST = "The largest active run is expected to use {} credits: BrowserAct task {}"
LIVE = LARGEST.format(
    60, "71002814700000050 of workflow 71002814653029437, https://www.browseract.com/logs/71002814700000050"
)
OF_A_TEMPLATE = active(51, 45, "paused", workflow_id=None)
LONG_ID = {**active(50, 60, workflow_id=WORKFLOW.id), "id": "71002814700000050"}
TWO = [LONG_ID, OF_A_TEMPLATE, active(52, None, "finished", workflow_id="73")]
USED_50, USED_NOTHING = Account(*runs_of(1, 50, workflow_id="72")), Account()


@cases(
    ("day", spent(1920, *TWO), 300, (2000, None), (DAY, f"1,920 of 2,000 {OPEN.format(110, 3)} {MEAN}", LIVE)),
    ("month, no address", spent(39_999, OF_A_TEMPLATE), 300, (None, 40_000), (MONTH, MUCH, LARGEST.format(45, "051"))),
    ("alone", spent(905), 300, (40, None), (ALONE, f"905 of 40 {NONE} {MEAN}")),
    ("alone, by its cap", USED_NOTHING, 101, (100, None), (ALONE + LOWER, f"0 of 100 {NONE} 101 {CAP}")),
    ("by its cap", USED_50, 51, (100, None), (DAY + LOWER, f"50 of 100 {NONE} 51 {CAP}")),
    ("alone, nothing is known", USED_NOTHING, None, (4, None), (ALONE, f"0 of 4 {NONE} {ONE_STEP}")),
)
def test_refusal_names_reason_remedy_numbers_and_the_largest_active_run(account, cap, limits, lines):
    account.stored = dict.fromkeys(NOVEMBER, 0)
    budget = Budget("browseract_default", *limits)
    verdict = account.refusal(budget, WORKFLOW, cap)
    assert verdict.refusal(address_of).split("\n") == [REASON.format("daily" if limits[0] else "monthly"), *lines]
    assert verdict.exceeds_whole_budget is lines[0].startswith(ALONE)


def test_documented_refusal_is_like_that():
    verdict = spent(1920, *TWO).refusal(DAILY, WORKFLOW)
    assert f"\n\n{textwrap.indent(verdict.refusal(address_of), '    ')}\n\n" in PAGES["docs/cost.md"]


def of_workflow(call):
    return BROKEN if "workflow_id" in call.params else None


WRONG_KEY = errors.AuthenticationError("Invalid api key")
UNKNOWN = (
    "The credits of connection 'browseract_default' cannot be counted, so no run was started: The list is broken. The "
    "next try counts again.\nTo start runs without a budget, remove daily_credits and monthly_credits from the extra "
    "of the connection."
)


@cases(
    ("list", lambda call: BROKEN, errors.BudgetUnknownError, UNKNOWN),
    ("forecast", of_workflow, errors.BudgetUnknownError, UNKNOWN),
    ("wrong key", lambda call: WRONG_KEY, errors.AuthenticationError, str(WRONG_KEY)),
)
def test_credits_that_cannot_be_counted_refuse_the_start(fault, error, text):
    with pytest.raises(error) as caught:
        Account(*runs_of(1, 45), fault=fault).refusal(DAILY)
    assert str(caught.value) == text


# The sums of past days


def of_november(runs_a_day=1, **kwargs):
    days = [datetime(2026, 11, day, 8, tzinfo=timezone.utc) for day in range(1, 28) for _ in range(runs_a_day)]
    return Account(*(listed(number, at, 10) for number, at in enumerate(days)), **kwargs)


def test_only_days_without_a_stored_sum_are_counted_and_later_ones_are_removed():
    account = of_november()
    others = {date(2026, 11, 27): 5, date(2099, 1, 1): 5, date(2026, 10, 31): 5}
    account.stored = {day: 1000 for day in NOVEMBER if day.day not in (5, 6)} | others
    [verdict] = account.check(MONTHLY)
    assert verdict.used == 24 * 1000 + 3 * 10
    asked = [call.params["created_at_to"] for call in account.calls if "created_at_to" in call.params]
    assert asked == ["2026-11-06T00:00:00Z"] * 2 + ["2026-11-07T00:00:00Z"] * 2
    assert sorted(account.stored) == [date(2026, 10, 31), *NOVEMBER]
    assert account.stored[date(2026, 11, 5)] == 10


STORED = {"key_digest": KEY_DIGEST, "days": {"2026-11-26": 1840}}
AGAIN = "The stored sums of credits could not be read and are counted again: "


@cases(
    ("none", None, []),
    ("of another key", json.dumps({**STORED, "key_digest": "1"}), []),
    ("no JSON", "1840 credits", [AGAIN]),
    ("nested too deeply", "[" * 100_000, [AGAIN]),
    *((f"{days}", json.dumps({**STORED, "days": days}), [AGAIN]) for days in (None, {"today": 1}, {"2026-11-26": -1})),
)
def test_variable_that_is_missing_or_that_someone_has_edited_is_counted_again(caplog, variable, lines):
    account = of_november()
    account.variable = variable
    [verdict] = account.check(MONTHLY)
    assert verdict.used == 270
    assert account.stored == dict.fromkeys(NOVEMBER, 10)
    assert [message[: len(AGAIN)] for message in caplog.messages] == lines


def test_variable_that_cannot_be_read_or_written_only_logs_a_warning(caplog):
    account = of_november()
    account.get = account.set = raising(RuntimeError("no API server"))
    [verdict] = account.check(MONTHLY)
    assert verdict.used == 270
    assert caplog.messages == [
        f"{AGAIN}RuntimeError: no API server",
        "The sums of credits could not be stored: RuntimeError: no API server",
    ]


def test_sums_of_two_months_are_kept():
    account = of_november()
    account.stored = {NOVEMBER[-2] - timedelta(days=number): number for number in range(200)}
    account.check(MONTHLY)
    assert (min(account.stored), len(account.stored)) == (date(2026, 9, 26), 62)


def test_day_with_an_active_run_is_counted_but_not_stored():
    account = of_november()
    account.runs[4]["status"] = "paused"
    # Each day is listed in both versions, but yesterday with today. With too few ended runs, one more request follows.
    for requests in (2 * 26, 2 * 2 + 1):
        account.calls.clear()
        [verdict] = account.check(MONTHLY)
        assert numbers(verdict) == (260, 1, 10, 10)
        assert account.stored == {day: 10 for day in NOVEMBER if day.day != 5}
        assert len(account.calls) == requests


@pytest.mark.parametrize(("age", "is_stored"), [(1, False), (2, True)])
@pytest.mark.parametrize("credit", [None, -(10**19)])
def test_day_whose_runs_have_no_credits_yet_is_stored_only_after_two_days(age, is_stored, credit):
    account = Account(*runs_of(3, 45), days_ago(50, age, credit))
    [verdict] = account.check(MONTHLY)
    day = (NOON - timedelta(days=age)).date()
    assert (verdict.used, len(verdict.open), day in account.stored) == (135, not is_stored, is_stored)


def test_yesterday_is_listed_with_today_until_its_sum_is_stored_seven_hours_and_ten_minutes_after_its_end():
    account = of_november(now=MIDNIGHT + timedelta(hours=7, minutes=9))
    account.stored = dict.fromkeys(NOVEMBER[:-1], 10)
    for later, stored, since in ((0, NOVEMBER[:-1], 25), (1, NOVEMBER, 25), (2, NOVEMBER, 26)):
        account.calls.clear()
        account.now += timedelta(minutes=later)
        [verdict] = account.check(MONTHLY)
        assert (verdict.used, sorted(account.stored)) == (270, stored)
        assert [call.params["created_at_from"] for call in account.calls[:2]] == [f"2026-11-{since}T23:59:00Z"] * 2
        assert len(account.calls) == 3


def test_check_that_fails_stores_what_it_has_counted_and_the_next_one_continues():
    account = of_november()
    account.fault = lambda call: BROKEN if len(account.calls) > 40 else None
    with pytest.raises(errors.BudgetUnknownError, match="The list is broken"):
        account.refusal(MONTHLY)
    assert sorted(account.stored) == NOVEMBER[:20]
    account.calls.clear()
    [verdict] = account.check(MONTHLY)
    assert (verdict.used, len(account.calls)) == (270, 2 * 6)


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
            assert len(verdict.open) == sum(run["status"] == "running" for run in inside)
    for day, stored in account.stored.items():
        assert stored == sum(credit for second, _, credit in runs if after(second).date() == day)


@cases(
    ("November", NOON, "2026-11-01", "2026-12-01"),
    ("the first second", datetime(2026, 12, 1, tzinfo=timezone.utc), "2026-12-01", "2027-01-01"),
    ("the last second", datetime(2028, 2, 29, 23, 59, 59, tzinfo=timezone.utc), "2028-02-01", "2028-03-01"),
)
def test_month_of_a_budget(at, begins, ends):
    [period] = MONTHLY.periods(at)
    assert (str(period.begins.date()), str(period.ends.date()), str(period)) == (begins, ends, begins[:7])
