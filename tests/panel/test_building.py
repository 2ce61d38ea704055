"""What a page contains, and what it leaves out because the viewer may not see it."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion, Failure, Step, Task, TaskStatus
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.dag_file import Runnable
from airflow_provider_browseract.panel import building, credits
from airflow_provider_browseract.panel.accounts import TaskRead
from airflow_provider_browseract.panel.days import Day
from airflow_provider_browseract.panel.views import BudgetShare, Overview, Slots, StepView, foreign_text
from airflow_provider_browseract.runs.wait import Wait
from airflow_provider_browseract.spending.budget import Budget
from tests.cases import cases
from tests.steps import replace

from .known import ADMIN, CONN, NOW, Viewer, known, link, proof_of, queued, task

OF_PRICES = Viewer({"prices"})
WITHOUT_LOGS = Viewer({"prices"}, steps=False)
USER_OF_PRICES = Viewer({"prices"}, {"prices"})
READER_OF_ACCOUNT = Viewer(account=True)


def overview(*tasks, show: str = "all", search: str = "", page: int = 1, **more: Any) -> Overview:
    return building.overview(known(*tasks, **more), show, search, page)


def rows(page) -> list[str]:
    return [row.id for row in page.runs.rows]


RUN = task(1)
PROOF = link(RUN).proof
OF_SENSOR = link(RUN, "shop", follows=True)
NONE, LOOK, ACT = (False, False, False), (True, True, False), (True, True, True)


@cases(
    {
        "proof": (link(RUN), ACT),
        "proof, of another connection with the same key": (link(RUN, conn_id="second"), ACT),
        "proof of a sensor": (link(RUN, follows=True), LOOK),
        "proof of another run": (link(task(2))._replace(browseract_task_id=RUN.id), NONE),
        "proof of another task instance": (link(RUN, map_index=1, proof=PROOF), NONE),
        "proof of another account": (link(RUN, proof=proof_of(link(RUN), "another key")), NONE),
        "proof with the empty key": (link(RUN, proof=proof_of(link(RUN), "")), NONE),
        "edited follows": (OF_SENSOR._replace(follows=False, key=link(RUN).key), NONE),
        "edited follows, of the sensor": (link(RUN, follows=True)._replace(follows=False), NONE),
        "edited hidden": (link(RUN, hidden=("live_view",))._replace(hidden=()), NONE),
        "edited version": (link(RUN)._replace(api_version=ApiVersion.V3), NONE),
        "edited connection": (link(RUN, conn_id="second")._replace(conn_id=CONN), NONE),
        "no proof": (link(RUN, proof=""), NONE),
        "no ASCII": (link(RUN, proof="\ud800ü"), NONE),
        "trigger": (link(RUN, proof="", wait=Wait(RUN.id, 0.0)), ACT),
        "trigger of another connection": (link(RUN, proof="", conn_id="second", wait=Wait(RUN.id, 0.0)), NONE),
        "trigger of a sensor": (link(RUN, proof="", follows=True, wait=Wait(RUN.id, 0.0, follows=True)), LOOK),
    },
)
def test_only_what_is_proven_or_named_by_a_trigger_gives_rights(of_run, rights):
    data = known(RUN, links=[of_run], viewer=USER_OF_PRICES)
    assert data.rights_on(RUN) == rights
    # The connection gives all rights, whatever else there is. A run of nobody is shown without a task instance.
    [row] = overview(RUN, links=[of_run]).runs.rows
    assert (row.instance is not None) is (rights != NONE)


def test_without_the_key_of_the_connection_only_a_trigger_gives_rights():
    for of_run, sees in ((link(RUN, proof=proof_of(link(RUN), "")), False), (link(RUN, wait=POLLS), True)):
        data = known(RUN, links=[of_run], viewer=USER_OF_PRICES)
        assert replace(data, viewing=replace(data.viewing, key=None)).rights_on(RUN).run is sees


@pytest.mark.parametrize("turned", [False, True])
def test_each_link_gives_its_rights_whatever_the_order_and_whatever_is_forged(turned):
    forged = link(RUN, "forged", proof="", hidden=("live_view", "secret_inputs"), api_version=ApiVersion.V3)
    links = [forged, link(RUN, "prices"), OF_SENSOR][:: -1 if turned else 1]
    for dag_id, rights in (("prices", ACT), ("shop", LOOK), ("forged", NONE)):
        data = known(RUN, links=links, viewer=Viewer({dag_id}, {dag_id}))
        assert data.rights_on(RUN) == rights
    [row] = overview(RUN, links=links).runs.rows
    assert row.instance is not None
    assert row.instance.label == "prices / search"


@cases(
    {
        "no task instance": (task(1), None, True),
        "task instance that waits for another one": (task(1), {"waits": False}, True),
        "task instance that waits for it": (task(1), {}, False),
        "claim of another connection": (task(1), {"conn_id": "second"}, False),
        "claim without a proof": (task(1), {"proof": ""}, False),
        "claim of a sensor": (task(1), {"follows": True}, False),
        "ended": (task(1, TaskStatus.FINISHED), None, False),
        "of the last minute, whose XCom may follow": (task(1, minutes=0.9), None, False),
        "older than a minute": (task(1, minutes=1.1), None, True),
    },
)
def test_active_run_is_unread_if_nobody_waits_for_it(run, waits, unread):
    assert known(links=[] if waits is None else [link(run, **waits)]).is_unread(run) is unread


class TestOverview:
    def test_slots_are_full_while_a_task_waits_for_one(self):
        runs = [task(1), task(2, TaskStatus.PAUSED), task(3, TaskStatus.FINISHED)]
        assert overview(*runs, queue=[queued(1), queued(2)]).slots == Slots(2, has_queue=True)
        assert overview(*runs).slots == Slots(2)

    def test_queue_has_numbers_for_everyone_and_names_only_of_readable_dags(self):
        page = overview(queue=[queued(17, "shop"), queued(3)], viewer=OF_PRICES)
        places = [(place.number, place.instance and place.instance.label) for place in page.queue]
        assert places == [(1, None), (2, "prices / search [3]")]
        assert (page.queue_length, page.longest_wait) == (2, 240.0)

    def test_connections_with_the_same_key_share_a_queue_and_others_do_not(self):
        same = queued(2, conn_id="same key", key_digest="k")
        other = queued(3, conn_id="another key", key_digest="x")
        places = overview(queue=[queued(1, key_digest="k"), same, other]).queue
        assert [place.instance and place.instance.label[-3:] for place in places] == ["[1]", "[2]"]

    def test_wait_for_the_budget_is_not_the_longest_wait_for_a_slot(self):
        page = overview(queue=[queued(1, minutes=-1, not_before=NOW.timestamp() + 60, for_budget=True), queued(2)])
        assert [(place.for_budget, place.waits) for place in page.queue] == [(True, None), (False, 240.0)]
        assert page.longest_wait == 240.0

    def test_only_the_first_places_are_shown_and_all_are_counted(self, monkeypatch):
        monkeypatch.setattr(building, "PLACES_SHOWN", 2)
        page = overview(queue=[queued(number) for number in range(5)])
        assert (len(page.queue), page.queue_length) == (2, 5)

    def test_clock_that_is_behind_shows_no_negative_duration(self):
        page = overview(queue=[queued(1, minutes=-5)])
        assert (page.queue[0].waits, page.longest_wait) == (0.0, 0.0)

    def test_today_counts_runs_of_the_day_in_utc_against_the_budget(self):
        runs = [task(1, credit=100), task(2, credit=None), task(3, minutes=13 * 60, credit=1000)]
        today = overview(*runs, budget=Budget(CONN, daily_credits=80)).today
        assert today == BudgetShare(100, 80)
        assert (today.percent, today.exceeded) == (100, True)

    def test_required_action_links_to_airflow_and_is_hidden_with_the_task_instance_of_an_unreadable_dag(self):
        run = task(1, TaskStatus.PAUSED)
        links = [link(run, required_action=True, map_index=3)]
        page = overview(run, links=links)
        path = "dags/prices/runs/manual__2026-11-27T00%3A00%3A00%2B00%3A00/tasks/search/mapped/3/required_actions"
        assert (page.paused, page.runs.rows[0].required_action) == (1, path)
        [row] = overview(run, links=links, viewer=READER_OF_ACCOUNT).runs.rows
        assert (row.instance, row.instance_hidden, row.required_action) == (None, True, None)

    def test_runs_that_ended_more_than_24_hours_ago_are_not_listed(self):
        old = task(1, TaskStatus.FINISHED, minutes=25 * 60, finished_at=NOW - timedelta(hours=24, minutes=1))
        long = task(2, TaskStatus.FINISHED, minutes=25 * 60, finished_at=NOW - timedelta(hours=23))
        active = task(3, minutes=25 * 60)
        assert rows(overview(old, long, active)) == [long.id, active.id]


ALL = ["83001", "83002", "83003", "83004", "83005"]


class TestTable:
    @pytest.fixture
    def found(self):
        finished = task(4, TaskStatus.FINISHED, workflow_id="72")
        runs = (task(1), task(2, TaskStatus.PAUSED), task(3, TaskStatus.FAILED), finished, task(5))
        links = [link(run, waits=run.id != "83005") for run in runs]
        return lambda **chosen: overview(*runs, links=links, names={"71": "Search", "72": "Log in <b>"}, **chosen)

    @cases(
        {
            "all": ("all", "", ALL),
            "active": ("active", "", ["83001", "83002", "83005"]),
            "paused": ("paused", "", ["83002"]),
            "unread": ("unread", "", ["83005"]),
            "failed": ("failed", "", ["83003"]),
            "no filter": ("nonsense", "", ALL),
            "id": ("all", "83003", ["83003"]),
            "workflow": ("all", "log IN", ["83004"]),
            "task instance": ("all", "prices / s", ALL),
            "status": ("all", "paused", ["83002"]),
            "nothing found": ("all", "no such thing", []),
        },
    )
    def test_filter_and_search(self, found, show, search, ids):
        assert rows(found(show=show, search=search)) == ids

    def test_filters_have_counts_and_keep_the_search(self, found):
        filters = found(show="active", search="search").runs.filters
        counts = {"Active": 3, "Paused": 1, "Not waited for": 1, "Failed": 1, "All": 5}
        assert {each.label: each.count for each in filters} == counts
        assert [each.label for each in filters if each.chosen] == ["Active"]
        assert filters[-1].query == f"conn={CONN}&search=search&show=all"

    def test_search_does_not_find_the_name_of_a_hidden_dag(self):
        run = task(1)
        found = overview(run, search="secret_dag", links=[link(run, "secret_dag")], viewer=READER_OF_ACCOUNT)
        assert rows(found) == []

    @cases(
        {
            "first": (250, 1, (1, 100), None, "page=2"),
            "second": (250, 2, (101, 200), "page=1", "page=3"),
            "behind the last one": (250, 99, (201, 250), "page=2", None),
            "empty": (0, 1, (0, 0), None, None),
        },
    )
    def test_pages_have_100_runs(self, runs, page, limits, newer, older):
        found = overview(*map(task, range(runs)), page=page).runs
        assert ((found.first, found.last), found.total) == (limits, runs)
        expected = [other and f"conn={CONN}&show=all&{other}" for other in (newer, older)]
        assert [found.newer, found.older] == expected

    def test_2000_runs_and_200_waiting_take_less_than_a_second(self):
        runs = [task(number, minutes=number / 2) for number in range(2000)]
        data = known(*runs, links=map(link, runs), queue=[queued(number) for number in range(200)])
        began = time.thread_time()
        building.overview(data, "all", "search", 1)
        assert time.thread_time() - began < 1.0


LIVE: dict[str, Any] = {"live_url": "https://live.example"}
LOG: dict[str, Any] = {"log_detail_url": "https://log.example"}
NO_LIVE, LOGGED = {"live_url": None}, {"log_url": "https://log.example"}
FAILED_STEP = Step(number=2, status="failed", goal="Log in", screenshots_url="https://pictures.example/2.png")
ATTENTION = StepView(2, "Log in", "failed", "https://pictures.example/2.png", failed=True)
STEPS = (Step(number=1, status="succeed", goal="Open the shop"), FAILED_STEP)
GONE = Failure(code=7, message="The <b>button</b>\u202e is gone")
FAILED_RUN = task(1, TaskStatus.FAILED, steps=STEPS, failure=GONE, **LOG)
HIDES_LIVE_VIEW = {"hidden": ("live_view",)}
NO_LOGS = {"steps": None, "failure": "", "log_url": None, "attention": None}
POLLS, CALLED_BACK = Wait("83001", 0.0), Wait("83001", 0.0, callback_token_sha256="0" * 64)
BY = "Waited for by prices / search."
POLLED = f"{BY} The triggerer polls it every 10 s"
SOONER = f"{BY} The triggerer polls it every 120 s, and a callback can end the wait sooner."


class TestRunPage:
    def page(self, run, viewer=ADMIN, *, secret_inputs=False, **fields):
        of = link(run, **fields)
        data = known(run, links=[of], viewer=viewer)
        return building.run_page(data, TaskRead(run, secret_inputs=secret_inputs), of, data.rights_on(run))

    @cases(
        {
            "who may act": (task(1, **LIVE, **LOG), ADMIN, {}, {**LIVE, **LOGGED}),
            "reader": (task(1, **LIVE, **LOG), OF_PRICES, {}, {**NO_LIVE, **LOGGED}),
            "reader, without a log": (task(1, **LIVE), OF_PRICES, {}, {**NO_LIVE, "log_url": None}),
            "ended": (task(1, TaskStatus.FINISHED, **LIVE), ADMIN, {}, NO_LIVE),
            "live view that the operator hides": (task(1, **LIVE), ADMIN, HIDES_LIVE_VIEW, NO_LIVE),
            "viewer without logs": (FAILED_RUN, WITHOUT_LOGS, {}, NO_LOGS),
            "failed run": (FAILED_RUN, ADMIN, {}, {"failure": "The <b>button</b> is gone", "attention": ATTENTION}),
            "failed step of a good run": (task(1, TaskStatus.FINISHED, steps=STEPS), ADMIN, {}, {"attention": None}),
            "waits in a worker": (task(1), ADMIN, {}, {"wait": BY}),
            "claim without a proof": (task(1), ADMIN, {"proof": "", **HIDES_LIVE_VIEW}, {"wait": BY}),
            "waits deferred": (task(1), ADMIN, {"wait": POLLS}, {"wait": f"{POLLED}."}),
            "waits for a callback": (task(1), ADMIN, {"wait": CALLED_BACK}, {"wait": SOONER}),
            "nobody waits": (task(1), ADMIN, {"waits": False}, {"wait": ""}),
        },
    )
    def test_viewer_sees_what_the_rights_and_the_state_of_the_run_allow(self, run, viewer, linked, shown):
        page = self.page(run, viewer, **linked)
        assert {name: getattr(page, name) for name in shown} == shown

    @cases("hidden, secret_inputs", {"XCom or trigger": ({"secret_inputs"}, False), "names": ((), True)})
    def test_texts_of_a_run_with_secret_inputs_are_not_shown(self, hidden, secret_inputs):
        run = task(1, TaskStatus.FAILED, steps=STEPS, failure=Failure(code=7, message="wrong: hunter2"))
        page = self.page(run, hidden=tuple(hidden), secret_inputs=secret_inputs)
        assert [step.goal for step in page.steps] == ["***", "***"]
        assert "hunter2" not in page.failure
        assert self.page(run).steps[0].goal == "Open the shop"

    def test_of_many_steps_the_first_and_the_last_are_shown(self):
        steps = tuple(Step(number=number, status="succeed", goal="x") for number in range(300))
        page = self.page(task(1, steps=steps, steps_left_out=50))
        assert (len(page.steps), page.steps[0].number, page.steps[-1].number) == (100, 0, 299)
        assert page.steps_left_out == 250

    def test_only_who_may_act_can_stop_an_unread_run(self):
        assert self.page(task(1), waits=False).run.stoppable
        assert not self.page(task(1)).run.stoppable
        assert not self.page(task(1), OF_PRICES, waits=False).run.stoppable


def test_page_of_dag_has_only_its_runs():
    runs = [task(1, credit=5), task(2, credit=7), task(3)]
    sensor, forged = link(runs[1], follows=True), link(runs[1], proof="")
    data = known(*runs, links=[link(runs[0]), sensor, forged, link(runs[1], "shop"), link(runs[2], follows=True)])
    page = building.dag_page(data, "prices", None, "all", "", 1)
    assert rows(page) == ["83001", "83003"]
    assert building.dag_page(data, "prices", "another run", "all", "", 1).runs.rows == ()
    assert building.dag_page(data, "shop", None, "all", "", 1).credits == 7


def day_run(number: int, credit: int | None = 5, source_id: str | None = "71", *, failed: bool = False) -> Task:
    status = TaskStatus.FAILED if failed else TaskStatus.FINISHED
    return Task(id=str(number), status=status, workflow_id=source_id, credit=credit)


class TestCredits:
    TODAY = NOW.date()

    def page(self, days: dict[date, list[Task]], dags=None, *, by_dag=False, **account: Any):
        sums = {}
        for day, runs in days.items():
            created = datetime.combine(day, NOW.timetz())
            tasks = [replace(run, created_at=created) for run in runs]
            sums[day] = Day.of(day, tasks, NOW, dags or {}).sums
        return credits.credits_page(known(**account), sums, by_dag)

    def test_bars_have_30_days_of_which_some_are_not_loaded(self):
        page = self.page({self.TODAY: [day_run(1), day_run(2, 7, "72")]})
        assert len(page.bars) == 30
        assert (page.bars[-1].day, page.bars[-1].total, page.bars[-1].loaded) == (self.TODAY, 12, True)
        assert (page.bars[0].total, page.bars[0].loaded) == (0, False)
        assert (page.days_loaded, page.total) == (1, 12)

    def test_rows_are_sorted_by_credits_and_have_sums(self):
        today = [day_run(1, 5), day_run(2, 50, "72"), day_run(3, None, failed=True)]
        days = {self.TODAY: today, self.TODAY - timedelta(days=1): [day_run(4, 10)]}
        page = self.page(days, {"1": "prices"}, names={"71": "Search"})
        assert [(row.name, row.runs, row.credits, row.mean, row.failed, row.without_dag) for row in page.rows] == [
            ("72", 1, 50, 50.0, 0, 1),
            ("Search", 3, 15, 5.0, 1, 2),
        ]
        assert page.groups == ("72", "Search")
        assert [bar.parts for bar in page.bars[-2:]] == [(0, 10), (50, 5)]

    def test_by_dag_names_only_readable_dags(self):
        days = {self.TODAY: [day_run(1, 1), day_run(2, 2), day_run(3, 3)]}
        dags = {"1": "prices", "2": "secret"}
        page = self.page(days, dags, by_dag=True, viewer=Viewer({"prices"}, account=True))
        expected = [("no DAG known", 3), ("DAGs that you may not read", 2), ("prices", 1)]
        assert [(row.name, row.credits) for row in page.rows] == expected

    def test_many_workflows_share_the_last_color(self):
        page = self.page({self.TODAY: [day_run(number, 100 - number, str(number)) for number in range(20)]})
        assert page.groups == (*map(str, range(7)), "all others")
        assert page.bars[-1].parts == (100, 99, 98, 97, 96, 95, 94, sum(100 - number for number in range(7, 20)))
        assert {row.color for row in page.rows[7:]} == {7}
        assert sum(row.credits for row in page.rows) == page.total

    def test_table_has_the_largest_groups_and_says_how_many_others_there_are(self, monkeypatch):
        monkeypatch.setattr(credits, "GROUPS_SHOWN", 2)
        page = self.page({self.TODAY: [day_run(number, number, str(number)) for number in range(1, 6)]})
        assert ([row.credits for row in page.rows], page.rows_left_out, page.total) == ([5, 4], 3, 15)

    def test_month_is_unknown_until_all_of_its_days_are_read(self):
        days = {self.TODAY - timedelta(days=back): [day_run(back)] for back in range(self.TODAY.day)}
        budget = Budget(CONN, daily_credits=10, monthly_credits=1000)
        page = self.page(days, budget=budget)
        assert (page.month.used, page.month.budget, page.today.budget) == (5 * 27, 1000, 10)
        del days[self.TODAY.replace(day=1)]
        assert self.page(days, budget=budget).month is None


@cases(
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
    assert [row.source for row in table.rows] == [shown]
    rights = account.rights_on(run)
    assert building.run_page(account, TaskRead(run), None, rights).source_id == ran.get("bot_id")


def test_sources_are_searched_by_name_id_and_description():
    kind = SourceKind.WORKFLOW
    sources = [Runnable(kind, "71", "Search", "Finds <b>prices</b>"), Runnable(kind, "72")]
    page = building.sources_page(known(), sources, kind, "PRICES", False)
    assert [(row.id, row.name) for row in page.rows] == [("71", "Search")]
    assert [row.name for row in building.sources_page(known(), sources, kind, "", False).rows] == ["Search", "72"]


@pytest.mark.parametrize("kind", SourceKind)
def test_page_of_source_has_a_dag_file_with_its_id(kind):
    schema = {"properties": {"keyword": {}, "limit": {}}, "required": ["keyword"]}
    source = Runnable(kind, "71", "Search", "x", schema, {"keyword": "text"})
    run = task(1, TaskStatus.FINISHED, credit=20)
    if SOURCES[kind].api_version is ApiVersion.V3:
        run = replace(run, api_version=ApiVersion.V3, workflow_id=None, bot_id="71")
    page = building.source_page(known(run), source)
    assert '"71"' in page.dag_file
    assert [(each.name, each.required) for each in page.inputs] == [("keyword", True), ("limit", False)]
    assert (page.runs, page.mean) == (1, 20.0)


@cases(
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
