import random
from datetime import date, datetime, timedelta, timezone

import pytest

from airflow_provider_browseract.api.models import ListedTask
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.spending import spend
from airflow_provider_browseract.spending.spend import Forecast, RequestLimit, Spend, forecast_for, list_runs, mean_of
from tests.cases import cases
from tests.spending.account import MIDNIGHT, NOON, Account, days_ago, listed, listed_bot
from tests.steps import carry_out
from tests.worker.starts import SOURCE

BOT, TEMPLATE = Source(SourceKind.BOT, "82"), Source(SourceKind.TEMPLATE, "70")
UNDATED = {**listed(1), "created_at": None}
CONTRADICTION = "contradict each other: page 2 has nothing new, after 500 items (total_count 501)"


def as_listed(*runs):
    return [spend.ListedRun.of(ListedTask.model_validate(run)) for run in runs]


def forecast(account, found=(), source=SOURCE, cap=200):
    return carry_out(forecast_for(RequestLimit(), source, as_listed(*found), cap, NOON), account)


def test_mean_is_that_of_the_newest_20_runs_in_whatever_order_they_are_listed():
    old = [listed(number, NOON - timedelta(minutes=number), 1000) for number in range(21, 30)]
    new = [listed(number, NOON - timedelta(minutes=number), 40) for number in range(20)]
    runs = as_listed(*random.sample(old + new, 29))
    assert mean_of(SOURCE.id, runs) == Forecast(40, 20)


@cases(
    {
        "canceled": listed(9, credit=5, status="canceled"),
        "active": listed(9, credit=5, status="running"),
        "paused": listed(9, credit=5, status="paused"),
        "of an unknown status": listed(9, credit=5, status="frozen"),
        "without credits": listed(9, credit=None),
        "with 0 credits": listed(9, credit=0),
        "of another workflow": listed(9, credit=5, workflow_id="71"),
        "of no workflow": listed(9, credit=5, workflow_id=None),
    },
)
def test_mean_ignores_a_run(other):
    assert mean_of(SOURCE.id, as_listed(listed(1, credit=45), other)) == Forecast(45, 1)


def test_mean_includes_failed_runs_is_rounded_up_and_does_not_exist_for_an_unknown_workflow():
    runs = as_listed(listed(1, credit=10), listed(2, credit=15, status="failed"), listed(3, credit=15))
    assert mean_of(SOURCE.id, runs) == Forecast(14, 3)
    assert mean_of(None, as_listed(listed(1, workflow_id=None))) is None


def test_forecast_from_three_counted_runs_takes_no_request():
    account = Account()
    assert forecast(account, [listed(number) for number in range(3)]) == Forecast(45, 3)
    assert account.calls == []


# What is older is not listed, and the list needs no creation times for this.
OF_LAST_WEEK = [*(days_ago(number, 6, 30) for number in range(10, 14)), {**listed(4), "created_at": None}]
OF_BOT = [listed_bot(number, NOON - timedelta(days=2), 30) for number in range(4)]


@cases(
    {
        "of a workflow": ([days_ago(1, 8, 1000), *OF_LAST_WEEK], (listed(2), listed(3)), SOURCE, Forecast(30, 4)),
        "of a bot": ([*OF_BOT, listed_bot(9, bot_id="83")], (), BOT, Forecast(30, 4)),
        "none of the last week": ([], (listed(1), listed(2, credit=55)), SOURCE, Forecast(50, 2)),
    },
)
def test_forecast_from_fewer_runs_lists_one_page_of_the_last_seven_days(runs, found, source, expected):
    account = Account(*runs)
    assert forecast(account, found, source) == expected
    [call] = account.calls
    of_source = {"bot_id": "82"} if source is BOT else {"workflow_id": SOURCE.id}
    assert call.name == ("page-runs" if source is BOT else "list-tasks")
    assert call.params == {**of_source, "created_at_from": "2026-11-20T12:00:00Z", "page": 1, "limit": 100}


@cases(("cap", "credits"), {"without a cap": (None, 5), "with a cap": (200, 200)})
@pytest.mark.parametrize("kind", SourceKind)
def test_forecast_without_an_ended_run_is_the_cap_or_the_cost_of_a_step(kind, cap, credits):
    account = Account()
    assert forecast(account, [listed(1, status="running")], Source(kind, SOURCE.id), cap) == Forecast(credits, 0)
    # Lists do not name templates.
    assert len(account.calls) == (kind in (SourceKind.WORKFLOW, SourceKind.BOT))


def test_forecast_names_its_basis():
    assert Forecast(45, 20).basis(SOURCE) == "(mean of 20 runs of workflow 70)"
    assert Forecast(45, 1).basis(SOURCE) == "(mean of 1 run of workflow 70)"
    assert Forecast(5, 0).basis(SOURCE) == "(assumed, because no ended run of workflow 70 was found)"
    assert Forecast(45, 20).basis(BOT) == "(mean of 20 runs of bot 82)"
    assert Forecast(5, 0).basis(TEMPLATE) == "(assumed, because lists do not name the template of a run)"


def list_all(account, since=MIDNIGHT, until=None, requests=None):
    return carry_out(list_runs(requests or RequestLimit(), since, until), account)


def test_runs_are_listed_from_one_moment_up_to_another_and_a_minute_more_is_asked_for():
    edges = [MIDNIGHT - timedelta(seconds=1), MIDNIGHT, NOON - timedelta(seconds=1), NOON]
    account = Account(*(listed(number, moment) for number, moment in enumerate(edges)))
    assert [run.id for run in list_all(account, MIDNIGHT, NOON)] == ["001", "002"]
    assert [call.name for call in account.calls] == ["list-tasks", "page-runs"]
    assert {(call.params["created_at_from"], call.params["created_at_to"]) for call in account.calls} == {
        ("2026-11-26T23:59:00Z", "2026-11-27T12:00:00Z")
    }
    assert timings.CLOCK_SKEW == 60


@cases(
    {
        "81 pages": ([listed(number) for number in range(801)], 10, "counting them takes more than 80 requests"),
        "item without id": ([{**listed(1), "id": None}], 500, "items.0.task_id: Field required"),
        "item without creation time": ([UNDATED], 500, "BrowserAct task 001 is listed without its creation time"),
        "pages that contradict each other": ([listed(number) for number in range(501)], 500, CONTRADICTION),
    },
)
def test_list_that_cannot_be_counted_raises(runs, page_size, why):
    account = Account(*runs, page_size=page_size)
    if "contradict" in why:
        account.change = lambda page, number: page if number == 1 else {**page, "items": []}
    with pytest.raises(BrowserActError) as caught:
        list_all(account)
    assert why in caught.value.brief


@cases(
    {
        "as many pages as requests are sent": (0, 790, {"page_size": 10}, (79, 1)),
        "bots in pages of 100, beside workflows": (250, 201, {}, (1, 3)),
        "as many of bots as of workflows": (150, 150, {}, (1, 2)),
        "runs that both versions list": (150, 1, {"shared": True}, (1, 1)),
        "version 3 lists the same runs as version 2": (0, 900, {"shared": True}, (2, 1)),
    },
)
def test_each_run_of_a_bot_or_workflow_is_listed_once(bots, workflows, how, pages):
    runs = [*map(listed_bot, range(bots)), *map(listed, range(bots, bots + workflows))]
    account = Account(*runs, **how)
    assert sorted(run.id for run in list_all(account)) == [f"{number:03}" for number in range(bots + workflows)]
    assert [call.name for call in account.calls] == ["list-tasks"] * pages[0] + ["page-runs"] * pages[1]


def test_list_of_version_3_that_begins_with_the_runs_of_version_2_is_read_to_its_end():
    workflows, bots = [listed(number) for number in range(150)], [listed_bot(number) for number in range(200, 260)]
    lists = {"list-tasks": Account(*workflows), "page-runs": Account(*workflows, *bots, shared=True)}
    assert len(carry_out(list_runs(RequestLimit(), MIDNIGHT), lambda step: lists[step.name](step))) == 210


def test_credits_that_only_one_list_has_count():
    first, second = as_listed(listed(1, credit=None, status="running"), listed(1, credit=45))
    assert [run.credit for run in spend.unite([first, second])] == [45]
    assert [run.credit for run in spend.unite([second, first])] == [45]


def test_spend_has_a_row_for_each_workflow_and_day_and_counts_each_run_once():
    found = Spend.of(
        as_listed(
            listed(1, NOON, 45),
            listed(1, NOON, 45),
            listed(2, NOON, None, "failed"),
            listed(3, NOON, 15, "running"),
            listed(4, NOON, 5, workflow_id=None),
            listed(7, NOON, 3, workflow_id=None),
            # Written in the time of Tokyo, where it was the next day.
            listed(5, datetime(2026, 11, 27, 8, 59, tzinfo=timezone(timedelta(hours=9))), 100),
            listed(6, NOON, 80, "canceled", workflow_id="71"),
        )
    )
    assert found.rows == (
        spend.SpendRow(date(2026, 11, 26), "70", 1, 100, 0, 0),
        spend.SpendRow(date(2026, 11, 27), None, 2, 8, 0, 0),
        spend.SpendRow(date(2026, 11, 27), "70", 3, 60, 1, 1),
        spend.SpendRow(date(2026, 11, 27), "71", 1, 80, 0, 0),
    )
    assert found.credits == 248
    nothing = Spend.of([])
    assert (nothing.rows, nothing.credits) == ((), 0)
