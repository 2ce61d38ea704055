import random
from datetime import date, datetime, timedelta, timezone

import pytest

from airflow_provider_browseract.api.models import ListedTask
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.spending import spend
from airflow_provider_browseract.spending.spend import CAP, MEAN, STEP, Forecast, list_runs
from tests.helpers.cases import cases
from tests.spending.account import MIDNIGHT, NOON, Account, days_ago, listed, listed_bot
from tests.worker.starts import SOURCE

BOT = Source(SourceKind.BOT, "82")
UNDATED = {**listed(1), "created_at": None}
CONTRADICTION = "contradict each other: page 2 has nothing new, after 500 items (total_count 501)"


def as_listed(*runs):
    return [spend.ListedRun.of(ListedTask.model_validate(run)) for run in runs]


# Forecasts

LATE = [listed(number, NOON - timedelta(minutes=number), 40) for number in range(20)]
EARLY = [listed(number, NOON - timedelta(minutes=number), 1000) for number in range(21, 30)]
FAILED = [listed(1, credit=10), listed(2, credit=15, status="failed"), listed(3, credit=15)]
IGNORED = {
    "canceled": listed(9, credit=5, status="canceled"),
    "active": listed(9, credit=5, status="running"),
    "of an unknown status": listed(9, credit=5, status="frozen"),
    "without credits": listed(9, credit=None),
    "with 0 credits": listed(9, credit=0),
    "of another workflow": listed(9, credit=5, workflow_id="71"),
    "of no workflow": listed(9, credit=5, workflow_id=None),
}


@cases(
    ("newest 20 in any order", random.sample(LATE + EARLY, 29), SOURCE.id, 200, Forecast(40, MEAN)),
    ("rounded up, with a failed run", FAILED, SOURCE.id, 200, Forecast(14, MEAN)),
    *((name, [listed(1), other], SOURCE.id, 200, Forecast(45, MEAN)) for name, other in IGNORED.items()),
    ("only an active one", [listed(1, status="running")], SOURCE.id, 200, Forecast(200, CAP)),
    # Lists do not name a template.
    ("template", [listed(1, workflow_id=None)], None, 200, Forecast(200, CAP)),
    ("template without a cap", [listed(1, workflow_id=None)], None, None, Forecast(5, STEP)),
)
def test_forecast_is_the_mean_of_the_newest_runs_that_ended_by_themselves(runs, source_id, cap, expected):
    assert Forecast.of(source_id, as_listed(*runs), cap) == expected


OLD = [*(days_ago(number, 34, 30) for number in range(10, 14)), UNDATED, days_ago(20, 36, 1000)]
OF_BOT = [*(listed_bot(number, NOON - timedelta(days=2), 30) for number in range(4)), listed_bot(9, bot_id="83")]
THREE = [listed(number) for number in range(1, 4)]


@cases(
    ("three of today", THREE, THREE, SOURCE, Forecast(45, MEAN)),
    ("two of today, four older", [*OLD, *THREE[1:]], THREE[1:], SOURCE, Forecast(35, MEAN)),
    ("of a bot", OF_BOT, [], BOT, Forecast(30, MEAN)),
    ("none", [], [], SOURCE, Forecast(200, CAP)),
    ("template", [], [], Source(SourceKind.TEMPLATE, SOURCE.id), Forecast(200, CAP)),
)
def test_fewer_than_three_runs_list_one_page_of_older_ones_of_the_source(runs, today, source, expected):
    account = Account(*runs)
    found = spend.with_older_runs(account, source, as_listed(*today), NOON)
    assert Forecast.of(source.id, found, 200) == expected
    assert len({run.id for run in found}) == len(found)
    of_source = {"bot_id": "82"} if source is BOT else {"workflow_id": SOURCE.id}
    asked = [{**of_source, "created_at_from": "2026-10-23T12:00:00Z", "page": 1, "limit": 100}]
    assert [call.params for call in account.calls] == ([] if today is THREE or source.is_template else asked)


# Lists


def test_runs_are_listed_from_one_moment_up_to_another_and_a_minute_more_is_asked_for():
    edges = [MIDNIGHT - timedelta(seconds=1), MIDNIGHT, NOON - timedelta(seconds=1), NOON]
    account = Account(*(listed(number, moment) for number, moment in enumerate(edges)))
    assert [run.id for run in list_runs(account, MIDNIGHT, NOON)] == ["001", "002"]
    assert [call.name for call in account.calls] == ["list-tasks", "page-runs"]
    assert {(call.params["created_at_from"], call.params["created_at_to"]) for call in account.calls} == {
        ("2026-11-26T23:59:00Z", "2026-11-27T12:00:00Z")
    }
    assert timings.CLOCK_SKEW == 60


@cases(
    ("item without id", [{**listed(1), "id": None}], "items.0.task_id: Field required"),
    ("item without creation time", [UNDATED], "BrowserAct task 001 is listed without its creation time"),
    ("pages that contradict each other", [*map(listed, range(500)), listed(0)], CONTRADICTION),
)
def test_list_that_cannot_be_counted_raises(runs, why):
    with pytest.raises(BrowserActError) as caught:
        list_runs(Account(*runs), MIDNIGHT)
    assert why in caught.value.brief


@cases(
    ("as many pages as there are", 0, 810, {"page_size": 10}, (81, 1)),
    ("bots in pages of 100, beside workflows", 250, 201, {}, (1, 3)),
    ("as many of bots as of workflows", 150, 150, {}, (1, 2)),
    ("runs that both versions list", 150, 1, {"shared": True}, (1, 1)),
    ("version 3 lists the same runs as version 2", 0, 900, {"shared": True}, (2, 1)),
)
def test_each_run_of_a_bot_or_workflow_is_listed_once(bots, workflows, how, pages):
    runs = [*map(listed_bot, range(bots)), *map(listed, range(bots, bots + workflows))]
    account = Account(*runs, **how)
    assert sorted(run.id for run in list_runs(account, MIDNIGHT)) == [f"{each:03}" for each in range(bots + workflows)]
    assert [call.name for call in account.calls] == ["list-tasks"] * pages[0] + ["page-runs"] * pages[1]


class Lists(Account):
    """Two lists, of which the second also has runs of the first."""

    def __init__(self, first, second):
        super().__init__()
        self.lists = {"list-tasks": Account(*first), "page-runs": Account(*second, shared=True)}

    def send(self, call):
        return self.lists[call.name].send(call)


def test_list_of_version_3_that_begins_with_the_runs_of_version_2_is_read_to_its_end():
    workflows, bots = [listed(number) for number in range(150)], [listed_bot(number) for number in range(200, 260)]
    assert len(list_runs(Lists(workflows, [*workflows, *bots]), MIDNIGHT)) == 210


@pytest.mark.parametrize("credits", [(None, 45), (45, None), (45, 45)])
def test_credits_that_only_one_list_has_count(credits):
    first, second = ([listed(1, credit=credit)] for credit in credits)
    [run] = list_runs(Lists(first, second), MIDNIGHT)
    assert (run.credit, run.source_id) == (45, SOURCE.id)


def test_spend_has_a_row_for_each_workflow_and_day():
    found = spend.Spend.of(
        as_listed(
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
    nothing = spend.Spend.of([])
    assert (nothing.rows, nothing.credits) == ((), 0)
