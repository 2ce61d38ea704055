"""What a page contains, and what it leaves out because the viewer may not see it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion, Failure, Step, TaskStatus
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.dag_files.runnable import Input, Runnable
from airflow_provider_browseract.panel import building, credits
from airflow_provider_browseract.panel.accounts import TaskRead
from airflow_provider_browseract.panel.days import DayRun
from airflow_provider_browseract.panel.sums import sums_of
from airflow_provider_browseract.panel.views import BudgetShare, Slots, foreign_text
from airflow_provider_browseract.runs.budget import Budget
from airflow_provider_browseract.runs.waiting import Wait
from tests.cases import cases

from .known import ADMIN, CONN, NOW, Viewer, known, link, queued, task

OF_PRICES = Viewer({"prices"})
OF_SHOP = Viewer({"shop"})
READER_OF_ACCOUNT = Viewer(account=True)


def rows(page) -> list[str]:
    return [row.id for row in page.runs.rows]


class TestRights:
    """What one viewer may see of one run."""

    def test_reader_of_dag_sees_its_run_with_steps_and_may_not_act(self):
        run = task(1)
        assert known(run, viewer=OF_PRICES).rights_on(run, link(run)) == (True, True, True, False)

    def test_reader_of_xcoms_without_logs_sees_run_without_steps(self):
        run = task(1)
        viewer = Viewer({"prices"}, steps=False)
        assert known(run, viewer=viewer).rights_on(run, link(run)) == (True, True, False, False)

    def test_who_may_clear_the_task_may_act(self):
        run = task(1)
        viewer = Viewer({"prices"}, {"prices"})
        assert known(run, viewer=viewer).rights_on(run, link(run)).act

    def test_reader_of_another_dag_sees_nothing(self):
        run = task(1)
        assert known(run, viewer=OF_SHOP).rights_on(run, link(run)) == (False, False, False, False)

    def test_reader_of_connection_sees_run_and_steps_without_the_task_instance(self):
        run = task(1)
        assert known(run, viewer=READER_OF_ACCOUNT).rights_on(run, link(run)) == (True, False, True, False)

    def test_run_without_task_instance_is_seen_only_with_the_connection(self):
        run = task(1)
        assert not known(run, viewer=OF_PRICES).rights_on(run, None).run
        assert known(run).rights_on(run, None) == (True, False, True, True)

    @cases(
        "edited",
        {
            "no confirmed connection": {"confirmed": False},
            "another connection": {"conn_id": "other"},
            "another workflow": {"source_id": "72"},
            "a run that is younger than its XCom": {"pushed_at": NOW - timedelta(hours=1)},
            "a run that is days older than its XCom": {"pushed_at": NOW + timedelta(days=3)},
        },
    )
    def test_xcom_that_names_a_foreign_run_gives_no_rights_on_it(self, edited):
        run = task(1)
        edited_link = link(run, **edited)
        assert not known(run, viewer=Viewer({"prices"}, {"prices"})).rights_on(run, edited_link).run
        assert known(run).rights_on(run, edited_link).instance


class TestUnread:
    """Which runs stand out because nobody waits for them."""

    def test_active_run_without_task_instance_is_unread(self):
        assert known().is_unread(task(1), None)

    def test_active_run_whose_task_instance_waits_for_another_one_is_unread(self):
        run = task(1)
        assert known().is_unread(run, link(run, waits=False))

    def test_run_that_is_waited_for_is_not_unread(self):
        run = task(1)
        assert not known().is_unread(run, link(run))

    def test_ended_run_is_not_unread(self):
        assert not known().is_unread(task(1, TaskStatus.FINISHED), None)

    def test_run_of_the_last_minute_is_not_unread_because_its_xcom_may_follow(self):
        assert not known().is_unread(task(1, minutes=0.9), None)
        assert known().is_unread(task(1, minutes=1.1), None)


class TestOverview:
    def test_viewer_of_one_dag_sees_its_runs_and_no_sums_of_the_account(self):
        own, other, free = task(1), task(2), task(3)
        data = known(own, other, free, links=[link(own), link(other, "shop")], viewer=OF_PRICES)
        page = building.overview(data, "all", "", 1)
        assert rows(page) == [own.id]
        assert (page.slots, page.today) == (None, None)

    def test_slots_have_the_number_of_the_last_refusals(self):
        runs = [task(1), task(2, TaskStatus.PAUSED), task(3, TaskStatus.FINISHED)]
        page = building.overview(known(*runs, queue=[queued(1, active=2), queued(2)]), "all", "", 1)
        assert page.slots == Slots(2, 2)
        assert building.overview(known(*runs), "all", "", 1).slots == Slots(2, None)

    def test_queue_has_numbers_for_everyone_and_names_only_of_readable_dags(self):
        data = known(queue=[queued(17, "shop"), queued(3)], viewer=OF_PRICES)
        page = building.overview(data, "all", "", 1)
        assert [(place.number, place.instance and place.instance.label) for place in page.queue] == [
            (1, None),
            (2, "prices / search [3]"),
        ]
        assert page.queue_length == 2
        assert page.longest_wait == 240.0

    def test_connections_with_the_same_key_share_a_queue_and_others_do_not(self):
        queue = [
            queued(1, key_digest="k"),
            queued(2, conn_id="same key", key_digest="k"),
            queued(3, conn_id="another key", key_digest="x"),
        ]
        places = building.overview(known(queue=queue), "all", "", 1).queue
        assert [place.instance.label for place in places if place.instance] == [
            "prices / search [1]",
            "prices / search [2]",
        ]

    def test_wait_for_the_budget_is_not_the_longest_wait_for_a_slot(self):
        queue = [queued(1, minutes=600, not_before=NOW.timestamp() + 60), queued(2)]
        page = building.overview(known(queue=queue), "all", "", 1)
        assert [place.for_budget for place in page.queue] == [True, False]
        assert page.longest_wait == 240.0

    def test_only_the_first_places_are_shown_and_all_are_counted(self, monkeypatch):
        monkeypatch.setattr(building, "PLACES_SHOWN", 2)
        page = building.overview(known(queue=[queued(number) for number in range(5)]), "all", "", 1)
        assert (len(page.queue), page.queue_length) == (2, 5)

    def test_clock_that_is_behind_shows_no_negative_duration(self):
        run = task(1, minutes=-5)
        page = building.overview(known(run, queue=[queued(1, minutes=-5)]), "all", "", 1)
        assert page.queue[0].waits == 0.0

    def test_today_counts_runs_of_the_day_in_utc_against_the_budget(self):
        runs = [task(1, credit=100), task(2, credit=None), task(3, minutes=13 * 60, credit=1000)]
        page = building.overview(known(*runs, budget=Budget(CONN, daily_credits=80)), "all", "", 1)
        assert page.today == BudgetShare(100, 80)
        assert (page.today.percent, page.today.exceeded) == (100, True)

    def test_required_action_links_to_airflow(self):
        run = task(1, TaskStatus.PAUSED)
        page = building.overview(known(run, links=[link(run, required_action=True, map_index=3)]), "all", "", 1)
        assert page.paused == 1
        assert page.runs.rows[0].required_action == (
            "dags/prices/runs/manual__2026-11-27T00%3A00%3A00%2B00%3A00/tasks/search/mapped/3/required_actions"
        )

    def test_task_instance_of_unreadable_dag_is_hidden_and_so_is_its_required_action(self):
        run = task(1, TaskStatus.PAUSED)
        data = known(run, links=[link(run, required_action=True)], viewer=READER_OF_ACCOUNT)
        [row] = building.overview(data, "all", "", 1).runs.rows
        assert (row.instance, row.instance_hidden, row.required_action) == (None, True, None)


def test_runs_that_ended_more_than_24_hours_ago_are_not_listed():
    old = task(1, TaskStatus.FINISHED, minutes=25 * 60, finished_at=NOW - timedelta(hours=24, minutes=1))
    long = task(2, TaskStatus.FINISHED, minutes=25 * 60, finished_at=NOW - timedelta(hours=23))
    active = task(3, minutes=25 * 60)
    assert rows(building.overview(known(old, long, active), "all", "", 1)) == [long.id, active.id]


class TestTable:
    """Filters, search and pages of a list of runs."""

    RUNS = (
        task(1),
        task(2, TaskStatus.PAUSED),
        task(3, TaskStatus.FAILED),
        task(4, TaskStatus.FINISHED, workflow_id="72"),
        task(5),
    )

    def data(self):
        links = [link(run, waits=run.id != "83005") for run in self.RUNS]
        return known(*self.RUNS, links=links, names={"71": "Search", "72": "Log in <b>"})

    @cases(
        "found",
        {
            "all": ["83001", "83002", "83003", "83004", "83005"],
            "active": ["83001", "83002", "83005"],
            "paused": ["83002"],
            "unread": ["83005"],
            "failed": ["83003"],
            "nonsense": ["83001", "83002", "83003", "83004", "83005"],
        },
    )
    def test_filter(self, request, found):
        show = request.node.callspec.id
        assert rows(building.overview(self.data(), show, "", 1)) == found

    def test_filters_have_counts_and_keep_the_search(self):
        page = building.overview(self.data(), "active", "search", 1)
        assert {each.label: each.count for each in page.runs.filters} == {
            "Active": 3,
            "Paused": 1,
            "Not waited for": 1,
            "Failed": 1,
            "All": 5,
        }
        assert [each.label for each in page.runs.filters if each.chosen] == ["Active"]
        assert page.runs.filters[-1].query == f"conn={CONN}&search=search&show=all"

    @cases(
        "search, found",
        {
            "id": ("83003", ["83003"]),
            "workflow": ("log IN", ["83004"]),
            "task instance": ("prices / s", ["83001", "83002", "83003", "83004", "83005"]),
            "status": ("paused", ["83002"]),
            "nothing": ("no such thing", []),
        },
    )
    def test_search(self, search, found):
        assert rows(building.overview(self.data(), "all", search, 1)) == found

    def test_search_does_not_find_the_name_of_a_hidden_dag(self):
        run = task(1)
        data = known(run, links=[link(run, "secret_dag")], viewer=READER_OF_ACCOUNT)
        assert rows(building.overview(data, "all", "secret_dag", 1)) == []

    def test_pages_have_100_runs_and_a_page_that_does_not_exist_is_the_last_one(self):
        data = known(*(task(number) for number in range(250)))
        first, second, third = (building.overview(data, "all", "", page).runs for page in (1, 2, 99))
        assert [(each.first, each.last, each.total) for each in (first, second, third)] == [
            (1, 100, 250),
            (101, 200, 250),
            (201, 250, 250),
        ]
        assert (first.newer, first.older) == (None, f"conn={CONN}&show=all&page=2")
        assert (third.newer, third.older) == (f"conn={CONN}&show=all&page=2", None)

    def test_empty_list_has_no_first_run(self):
        table = building.overview(known(), "all", "", 1).runs
        assert (table.first, table.last, table.total, table.newer, table.older) == (0, 0, 0, None, None)

    def test_2000_runs_and_200_waiting_take_less_than_a_second(self):
        runs = [task(number, minutes=number / 2) for number in range(2000)]
        data = known(*runs, links=map(link, runs), queue=[queued(number) for number in range(200)])
        began = time.thread_time()
        building.overview(data, "all", "search", 1)
        assert time.thread_time() - began < 1.0


class TestRunPage:
    STEPS = (Step(1, "succeed", "Open the shop"), Step(2, "failed", "Log in", None, "https://pictures.example/2.png"))

    def page(self, run, viewer=ADMIN, *, redacted=True, **fields):
        of = link(run, **fields)
        data = known(run, links=[of], viewer=viewer)
        return building.run_page(data, TaskRead(run, redacted=redacted), of, data.rights_on(run, of))

    def test_failed_step_of_a_failed_run_needs_attention(self):
        run = task(1, TaskStatus.FAILED, steps=self.STEPS, failure=Failure(7, "The <b>button</b>\u202e is gone"))
        page = self.page(run)
        assert page.attention == page.steps[1]
        assert page.attention.picture == "https://pictures.example/2.png"
        assert page.failure == "The <b>button</b>  is gone"

    def test_failed_step_of_a_finished_run_needs_no_attention(self):
        assert self.page(task(1, TaskStatus.FINISHED, steps=self.STEPS)).attention is None

    def test_viewer_without_logs_sees_no_steps_no_failure_and_no_log(self):
        run = task(
            1, TaskStatus.FAILED, steps=self.STEPS, failure=Failure(7, "x"), log_detail_url="https://log.example"
        )
        page = self.page(run, Viewer({"prices"}, steps=False))
        assert (page.steps, page.failure, page.log_url, page.attention) == (None, "", None, None)

    def test_live_view_is_only_for_who_may_act_and_only_while_the_run_is_active(self):
        run = task(1, live_url="https://live.example", log_detail_url="https://log.example")
        assert self.page(run).live_url == "https://live.example"
        reader = self.page(run, OF_PRICES)
        assert (reader.live_url, reader.log_url) == (None, "https://log.example")
        assert self.page(task(1, TaskStatus.FINISHED, live_url="https://live.example")).live_url is None

    def test_live_view_does_not_stand_in_for_a_missing_log(self):
        run = task(1, live_url="https://live.example")
        assert self.page(run, OF_PRICES).log_url is None

    def test_live_view_that_the_operator_hides_is_shown_to_nobody(self):
        run = task(1, live_url="https://live.example")
        assert self.page(run, hidden=frozenset({"live_view"})).live_url is None

    def test_texts_of_a_run_with_secret_inputs_are_shown_only_if_the_secrets_were_replaced(self):
        run = task(1, TaskStatus.FAILED, steps=self.STEPS, failure=Failure(7, "wrong: hunter2"))
        hidden = frozenset({"secret_inputs"})
        assert self.page(run, hidden=hidden).steps[0].goal == "Open the shop"
        page = self.page(run, hidden=hidden, redacted=False)
        assert [step.goal for step in page.steps] == ["***", "***"]
        assert "hunter2" not in page.failure
        assert self.page(run, redacted=False).steps[0].goal == "Open the shop"

    def test_of_many_steps_the_first_and_the_last_are_shown(self):
        steps = tuple(Step(number, "succeed", "x") for number in range(300))
        page = self.page(task(1, steps=steps, steps_left_out=50))
        assert (len(page.steps), page.steps[0].number, page.steps[-1].number) == (100, 0, 299)
        assert page.steps_left_out == 250

    def test_wait_states_how_the_task_instance_is_resumed(self):
        wait = Wait("83001", 0.0, callback_token_sha256="0" * 64)
        assert "and a callback can end the wait sooner" in self.page(task(1), wait=wait).wait
        assert "callback" not in self.page(task(1), wait=Wait("83001", 0.0)).wait
        assert self.page(task(1)).wait == "A worker polls it."
        assert self.page(task(1), waits=False).wait == ""

    def test_other_runs_of_the_task_instance_have_their_credits(self):
        runs = [task(1), task(2, TaskStatus.FAILED, credit=35), task(3, TaskStatus.FINISHED)]
        links = [link(run) for run in runs]
        data = known(*runs, links=links)
        rights = data.rights_on(runs[0], links[0])
        page = building.run_page(data, TaskRead(runs[0]), links[0], rights, links[:2])
        assert [(each.id, each.credits) for each in page.others] == [("83002", 35)]

    def test_only_who_may_act_can_stop_an_unread_run(self):
        assert self.page(task(1), waits=False).run.stoppable
        assert not self.page(task(1)).run.stoppable
        assert not self.page(task(1), OF_PRICES, waits=False).run.stoppable


def test_page_of_task_instance_that_waits_for_a_slot_has_its_place():
    entry = queued(3)
    page = building.instance_page(known(queue=[queued(1), entry]), entry.key, None)
    assert page.place is not None
    assert (page.instance.label, page.place.number, page.run) == ("prices / search [3]", 2, None)
    assert building.instance_page(known(), entry.key, None).place is None


def test_page_of_dag_has_only_its_runs():
    runs = [task(1, credit=5), task(2, credit=7), task(3)]
    data = known(*runs, links=[link(runs[0]), link(runs[1], "shop"), link(runs[2])._replace(conn_id="other")])
    page = building.dag_page(data, "prices", None, "all", "", 1)
    assert rows(page) == ["83001", "83003"]
    assert building.dag_page(data, "prices", "another run", "all", "", 1).runs.rows == ()
    assert building.dag_page(data, "shop", None, "all", "", 1).credits == 7


class TestCredits:
    TODAY = NOW.date()

    def page(self, days: dict[date, list[DayRun]], dags=None, *, by_dag=False, **account: Any):
        sums = {day: sums_of(runs, dags or {}) for day, runs in days.items()}
        return credits.credits_page(known(**account), sums, by_dag)

    def run(
        self, number: int, credit: int | None = 5, workflow_id: str | None = "71", *, failed: bool = False
    ) -> DayRun:
        return DayRun(str(number), workflow_id, credit, failed, True)

    def test_bars_have_30_days_of_which_some_are_not_loaded(self):
        page = self.page({self.TODAY: [self.run(1), self.run(2, 7, "72")]})
        assert len(page.bars) == 30
        assert (page.bars[-1].day, page.bars[-1].total, page.bars[-1].loaded) == (self.TODAY, 12, True)
        assert (page.bars[0].total, page.bars[0].loaded) == (0, False)
        assert (page.days_loaded, page.total) == (1, 12)

    def test_rows_are_sorted_by_credits_and_have_sums(self):
        yesterday = self.TODAY - timedelta(days=1)
        days = {
            self.TODAY: [self.run(1, 5), self.run(2, 50, "72"), self.run(3, None, failed=True)],
            yesterday: [self.run(4, 10)],
        }
        page = self.page(days, {"1": "prices"}, names={"71": "Search"})
        assert [(row.name, row.runs, row.credits, row.mean, row.failed, row.without_dag) for row in page.rows] == [
            ("72", 1, 50, 50.0, 0, 1),
            ("Search", 3, 15, 5.0, 1, 2),
        ]
        assert page.groups == ("72", "Search")
        assert [bar.parts for bar in page.bars[-2:]] == [(0, 10), (50, 5)]

    def test_by_dag_names_only_readable_dags(self):
        sums = sums_of([self.run(1, 1), self.run(2, 2), self.run(3, 3)], {"1": "prices", "2": "secret"})
        data = known(viewer=Viewer({"prices"}, account=True))
        page = credits.credits_page(data, {self.TODAY: sums}, True)
        assert [(row.name, row.credits) for row in page.rows] == [
            ("no DAG known", 3),
            ("DAGs that you may not read", 2),
            ("prices", 1),
        ]

    def test_many_workflows_share_the_last_color(self):
        runs = [self.run(number, 100 - number, str(number)) for number in range(20)]
        page = self.page({self.TODAY: runs})
        assert page.groups == (*map(str, range(7)), "all others")
        assert page.bars[-1].parts == (100, 99, 98, 97, 96, 95, 94, sum(100 - number for number in range(7, 20)))
        assert {row.color for row in page.rows[7:]} == {7}
        assert sum(row.credits for row in page.rows) == page.total

    def test_table_has_the_largest_groups_and_says_how_many_others_there_are(self, monkeypatch):
        monkeypatch.setattr(credits, "GROUPS_SHOWN", 2)
        page = self.page({self.TODAY: [self.run(number, number, str(number)) for number in range(1, 6)]})
        assert ([row.credits for row in page.rows], page.rows_left_out, page.total) == ([5, 4], 3, 15)

    def test_month_is_unknown_until_all_of_its_days_are_read(self):
        days: dict[date, list[DayRun]] = {
            self.TODAY - timedelta(days=back): [self.run(back)] for back in range(self.TODAY.day)
        }
        budget = Budget(CONN, daily_credits=10, monthly_credits=1000)
        page = self.page(days, budget=budget)
        assert (page.month.used, page.month.budget, page.today.budget) == (5 * 27, 1000, 10)
        del days[self.TODAY.replace(day=1)]
        assert self.page(days, budget=budget).month is None


@cases(
    "ran, shown",
    {
        "bot": ({"bot_id": "71", "bot_name": "Contacts"}, "bot Contacts"),
        "bot without a name": ({"bot_id": "71"}, "bot 71"),
        "template": ({}, "bot template"),
        "hostile name": ({"bot_id": "71", "bot_name": "a\u202eb"}, "bot a b"),
    },
)
def test_run_of_a_bot_is_shown_with_its_name_in_list_search_and_page(ran, shown):
    run = task(1, workflow_id=None, api_version=ApiVersion.V3, **ran)
    account = known(run, names={"71": "Workflow of the same id"})
    table = building.overview(account, "all", shown, 1).runs
    assert [(row.source, row.api_version) for row in table.rows] == [(shown, ApiVersion.V3)]
    rights = account.rights_on(run, None)
    assert building.run_page(account, TaskRead(run), None, rights).source_id == ran.get("bot_id")


def test_bot_gives_no_rights_on_the_run_of_a_template_and_a_template_only_those_to_look():
    bot = task(1, workflow_id=None, api_version=ApiVersion.V3, bot_id="71")
    template = task(2, workflow_id=None, api_version=ApiVersion.V3)
    viewer = Viewer({"prices"}, {"prices"})
    of_bot = link(bot, api_version=ApiVersion.V3)
    assert known(bot, viewer=viewer).rights_on(bot, of_bot).act
    assert not known(template, viewer=viewer).rights_on(template, of_bot).run
    of_template = link(template, api_version=ApiVersion.V3)
    assert known(template, viewer=viewer).rights_on(template, of_template)[::3] == (True, False)


def test_sources_are_searched_by_name_id_and_description():
    kind = SourceKind.WORKFLOW
    sources = [Runnable(kind, "71", "Search", "Finds <b>prices</b>"), Runnable(kind, "72")]
    page = building.sources_page(known(), sources, kind, "PRICES", False)
    assert [(row.id, row.name) for row in page.rows] == [("71", "Search")]
    assert [row.name for row in building.sources_page(known(), sources, kind, "", False).rows] == ["Search", "72"]


@pytest.mark.parametrize("kind", SourceKind)
def test_page_of_source_has_a_dag_file_with_its_id(kind):
    source = Runnable(kind, "71", "Search", "x", inputs=(Input("keyword", True), Input("limit", False)))
    run = task(1, TaskStatus.FINISHED, credit=20)
    if SOURCES[kind].api_version is ApiVersion.V3:
        run = replace(run, api_version=ApiVersion.V3, workflow_id=None, bot_id="71")
    page = building.source_page(known(run), source)
    assert '"71"' in page.dag_file
    assert [(each.name, each.required) for each in page.inputs] == [("keyword", True), ("limit", False)]
    assert (page.runs, page.mean) == (1, 20.0)


@cases(
    "text, shown",
    {
        "nothing": (None, ""),
        "control characters": ("a\x00b\nc", "a b c"),
        "marks of direction": ("a\u202eb\u200fc", "a b c"),
        "lone surrogate": ("a\ud800", "a "),
        "markup": ("<img onerror=x>", "<img onerror=x>"),
        "long": ("x" * 1_000_000, "x" * 199 + "\u2026"),
    },
)
def test_foreign_text_is_cut_and_has_no_control_characters(text, shown):
    assert foreign_text(text) == shown
