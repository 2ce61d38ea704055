"""What the panel reads in Airflow's database."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, select, update

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.panel import database
from airflow_provider_browseract.panel.database import BY_TRY, RUN_TRIGGER, XCOM, RecordKeeper
from airflow_provider_browseract.panel.records import Link, TaskInstanceKey
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.runs.wait import Wait
from airflow_provider_browseract.triggers.task import TaskTrigger
from airflow_provider_browseract.webhook.database import AS_STORED
from tests.airflow import rows
from tests.airflow.rows import DAG_ID, INDEX, TABLE, selects
from tests.cases import cases

SHOP = TaskInstanceKey("shop", "manual__2026-11-27T07:00:00.5+00:00~1", "prices.größe_搜索", -1)
WORKFLOW = {"workflow_id": "5"}
HIDDEN = {"live_view", "secret_inputs"}
V2, V3 = ({"api_version": version} for version in ApiVersion)
SENSOR = {"browseract_conn_id": "shop_account", "browseract_task_id": "1"}


def now() -> datetime:
    return datetime.now(timezone.utc)


class Airflow:
    """Task instances in Airflow's database, made by hand.

    :param like: a task instance whose rows are copied.
    """

    def __init__(self, like: TaskInstanceKey) -> None:
        self._like = like
        self._dags: set[str] = set()
        self._triggers: list[int] = []

    def add(self, key: TaskInstanceKey = SHOP, state: str | None = "running", **rendered: Any) -> TaskInstanceKey:
        """Add a task instance in its first try, and return it.

        :param rendered: its rendered fields. Default: those of an operator that runs workflow 5.
        """
        with create_session() as session:
            if key.dag_id not in self._dags:
                rows.copy_row(session, DagModel.__table__, {"dag_id": self._like.dag_id}, dag_id=key.dag_id)
                self._dags.add(key.dag_id)
            of = {"dag_id": key.dag_id, "run_id": key.run_id}
            if session.scalar(select(DagRun.id).filter_by(**of)) is None:
                rows.copy_row(
                    session, DagRun.__table__, {"run_id": self._like.run_id}, id=None, logical_date=None, **of
                )
            own = {"id": rows.new_ti_id(), "task_id": key.task_id, INDEX: key.map_index, "try_number": 1, **of}
            own |= {"state": state, "next_method": None, "trigger_id": None}
            like = {"run_id": self._like.run_id, "task_id": self._like.task_id, INDEX: -1}
            rows.copy_row(session, TABLE, like, **own)
        fields = rendered or {"browseract_conn_id": "shop_account", **WORKFLOW}
        of_try = {"id": uuid.uuid4(), "task_instance_id": rows.id_of(key)} if BY_TRY else key._asdict()
        rows.execute(insert(RenderedTaskInstanceFields.__table__).values(rendered_fields=fields, **of_try))
        return key

    def forget_rendered(self, key: TaskInstanceKey) -> None:
        """Delete the rendered fields, as Airflow does with those of old DAG runs."""
        of = {"task_instance_id": rows.id_of(key)} if BY_TRY else key._asdict()
        rows.execute(delete(RenderedTaskInstanceFields).filter_by(**of))

    def push(self, key: TaskInstanceKey, run: str = "1", value: Any = None, *, ago=0.0, as_text=False, **more) -> None:
        """Push the XCom of a run, as workers do, some seconds ago.

        :param value: another value.
        :param as_text: store it as JSON text, as the API server of Airflow 3.1 does.
        :param more: more keys of the facts about the run.
        """
        shown = facts(Task(id=run, status=TaskStatus.RUNNING, workflow_id="5")) | more if value is None else value
        how: dict[str, Any] = {} if as_text else AS_STORED
        with create_session() as session:
            XComModel.set("task", shown, **key._asdict(), **how, session=session)
        of = {"task_instance_id": rows.id_of(key)} if BY_TRY else key._asdict()
        rows.execute(update(XCOM).filter_by(key="task", **of).values(timestamp=now() - timedelta(seconds=ago)))

    def defer(self, key: TaskInstanceKey, run: str = "1", conn_id: str = "shop_account", **fields: Any) -> None:
        """Let a task instance wait for a run in the triggerer."""
        trigger = TaskTrigger(browseract_conn_id=conn_id, wait=Wait(run, time.time() + 3600, **fields))
        self._triggers.append(rows.defer(key, trigger))

    def ask(self, key: TaskInstanceKey) -> None:
        with create_session() as session:
            session.add(HITLDetail(ti_id=rows.id_of(key), options=["Resume", "Stop"], subject="A person is needed"))

    def answer(self, key: TaskInstanceKey) -> None:
        rows.execute(update(HITLDetail).filter_by(ti_id=rows.id_of(key)).values(responded_at=now()))

    def clear(self) -> None:
        tables = (TABLE, DagRun.__table__, DagModel.__table__)
        rows.execute(*(delete(table).where(table.c.dag_id.in_(self._dags)) for table in tables))
        rows.execute(delete(Trigger).where(Trigger.id.in_(self._triggers)))


@pytest.fixture
def airflow(deferred) -> Iterator[Airflow]:
    """Task instances besides those of the example: none at first."""
    made = Airflow(deferred.waiting)
    yield made
    made.clear()


@pytest.fixture(autouse=True)
def always_refresh(monkeypatch) -> None:
    monkeypatch.setattr(database, "MAX_AGE", 0.0)


@pytest.fixture
def key(airflow) -> TaskInstanceKey:
    """A task instance that runs, and has pushed the XCom of run 1."""
    added = airflow.add()
    airflow.push(added)
    return added


@pytest.fixture
def keeper(airflow) -> RecordKeeper:
    """What reads the database: first everything, then what has changed."""
    return RecordKeeper()


def link_of(run: str = "1", keeper: RecordKeeper | None = None) -> Link:
    return (keeper or RecordKeeper()).read().links[run]


class TestLinks:
    @pytest.mark.parametrize("map_index", [-1, 0, 17])
    def test_task_instance_that_runs_is_linked_to_its_run(self, airflow, map_index):
        key = airflow.add(SHOP._replace(map_index=map_index))
        airflow.push(key)
        link = link_of()
        assert link[:6] == ("1", key, 1, "shop_account", "5", True)
        assert (link.waits, link.required_action, link.wait) == (True, False, None)
        assert abs(now() - link.pushed_at) < timedelta(seconds=30)

    def test_deferred_task_instance_without_xcom_is_linked_by_its_trigger(self, airflow):
        key = airflow.add()
        airflow.defer(key, conn_id="other_account")
        link = link_of()
        assert link[:6] == ("1", key, 1, "other_account", "5", True)
        assert link.waits
        assert link.wait is not None
        assert link.wait.browseract_task_id == "1"

    def test_reference_of_a_custom_xcom_backend_is_passed_over(self, airflow, keeper):
        key = airflow.add()
        airflow.push(key, value="s3://bucket/xcom/1.json")
        assert not keeper.read().of_instance(key)
        airflow.defer(key)
        assert link_of(keeper=keeper).waits
        rows.change(key, state="scheduled", trigger_id=None)
        assert link_of(keeper=keeper).waits

    @cases(
        {
            "text": "1",
            "list": [{"task_id": "1"}],
            "facts of another operator": {"task_id": "1"},
            "no id": {"task_id": None, "workflow_id": "5", "status": "running"},
            "list as id": {"task_id": ["1"], "workflow_id": "5", "status": "running"},
            "long id": {"task_id": "1" * 251, "workflow_id": "5", "status": "running"},
            "id of several lines": {"task_id": "1\n2", "workflow_id": "5", "status": "running"},
            "large": {"task_id": "1", "workflow_id": "5", "status": "running", "page": "x" * 60_000},
            "nested text": "[" * 20_000,
        },
    )
    def test_edited_xcom_is_no_link(self, airflow, value):
        key = airflow.add()
        airflow.push(key, value=value)
        assert not RecordKeeper().read().of_instance(key)

    @cases(
        {
            "JSON text of Airflow 3.1": (WORKFLOW, {"as_text": True}, {"key": SHOP, "hidden": set()}),
            "hidden": (WORKFLOW, {"hidden": [*HIDDEN]}, {"hidden": HIDDEN}),
            "unknown words": (WORKFLOW, {"hidden": ["live_view", "x", 7, ["y"]]}, {"hidden": {"live_view"}}),
            "no list of words": (WORKFLOW, {"hidden": "live_view"}, {"hidden": set()}),
            "edited connection": (WORKFLOW, {"connection": "victim"}, {"conn_id": "shop_account", "confirmed": True}),
            "edited XCom of a sensor": (SENSOR, {"run": "2"}, {"browseract_task_id": "2", "confirmed": False}),
            "bot": ({"bot_id": "5"}, V3, {"source_id": "5", "started": True, **V3}),
            "bot template": ({"template_id": "5"}, V3, {"source_id": None, "started": True, **V3}),
            "version 2": (WORKFLOW, {"api_version": "v2"}, V2),
            "unknown version": (WORKFLOW, {"api_version": "v9"}, V2),
            "list as version": (WORKFLOW, {"api_version": ["v3"]}, V2),
            "NUL, lone surrogate": ({"workflow_id": 5, "x": "\0 \ud800"}, {}, {"source_id": "5", "confirmed": True}),
            "long rendered fields": ({**WORKFLOW, "text": "x" * 60_000}, {}, {"confirmed": False}),
        },
    )
    def test_link_has_what_the_rendered_fields_confirm_and_the_xcom_states(self, airflow, rendered, more, expected):
        airflow.push(airflow.add(SHOP, **{"browseract_conn_id": "shop_account", **rendered}), **more)
        link = link_of(more.get("run", "1"))
        assert {name: getattr(link, name) for name in expected} == expected

    def test_without_rendered_fields_the_connection_of_the_xcom_is_not_confirmed(self, airflow):
        key = airflow.add()
        airflow.forget_rendered(key)
        airflow.push(key, connection="shop_account")
        link = link_of()
        assert (link.conn_id, link.source_id, link.confirmed) == ("shop_account", None, False)

    def test_version_of_the_trigger_counts_more_than_that_of_the_xcom(self, airflow):
        key = airflow.add()
        airflow.push(key, api_version="v2")
        airflow.defer(key, api_version=ApiVersion.V3)
        assert link_of().api_version is ApiVersion.V3

    def test_rendered_fields_that_airflow_deletes_later_stay_known(self, airflow, keeper):
        key = airflow.add()
        airflow.push(key, ago=5.0)
        keeper.read()
        airflow.forget_rendered(key)
        airflow.push(key)
        link = link_of(keeper=keeper)
        assert (link.conn_id, link.source_id, link.confirmed) == ("shop_account", "5", True)
        assert link.waits

    def test_run_belongs_to_the_operator_and_is_waited_for_by_the_sensor(self, airflow):
        sensor = airflow.add(SHOP._replace(task_id="wait"), **SENSOR)
        airflow.push(sensor, ago=60.0)
        operator = airflow.add(state="success")
        airflow.push(operator)
        airflow.defer(sensor)
        records = RecordKeeper().read()
        link = records.links["1"]
        assert (link.key, link.started, link.waits) == (operator, True, True)
        assert (link.wait, link.other_wait is None) == (None, False)
        [own] = records.of_instance(sensor)
        assert (own.started, own.waits) == (False, True)

    def test_deferred_task_instance_keeps_its_run_when_another_dag_names_the_run(self, airflow, key):
        forged = airflow.add(SHOP._replace(dag_id="forged"))
        airflow.push(forged, ago=600.0)
        airflow.defer(key)
        assert link_of().key == key

    def test_only_the_newest_links_are_kept(self, airflow, keeper, monkeypatch):
        monkeypatch.setattr(database, "MAX_LINKS", 3)
        for index in range(5):
            # Later than anything that other tests have pushed.
            airflow.push(airflow.add(SHOP._replace(map_index=index)), str(index), ago=-1.0 - index)
            keeper.read()
        assert sorted(keeper.read().links) == ["2", "3", "4"]

    def test_xcom_of_two_days_ago_is_no_link_yet(self, airflow):
        airflow.push(airflow.add(), ago=2 * 86400.0)
        assert "1" not in RecordKeeper().read().links


WAITING = ("running", "deferred", "up_for_reschedule", "up_for_retry")


class TestWhoWaits:
    # A deferred task instance without a trigger was read at the moment of its end.
    @pytest.mark.parametrize("state", [*WAITING, None, "failed", "success"])
    def test_state_decides_whether_a_task_instance_waits(self, key, state):
        rows.change(key, state=state)
        assert link_of().waits is (state in WAITING)

    def test_resumed_task_instance_waits_until_it_ends(self, airflow, key, keeper):
        airflow.defer(key)
        assert link_of(keeper=keeper).waits
        for state in ("scheduled", "queued", "running"):
            rows.change(key, state=state, trigger_id=None)
            assert link_of(keeper=keeper).waits
        rows.change(key, state="failed")
        assert not link_of(keeper=keeper).waits

    @pytest.mark.parametrize("knows_it", [True, False])
    def test_scheduled_next_try_does_not_wait_for_the_run_of_the_last_one(self, airflow, key, keeper, knows_it):
        if knows_it:
            keeper.read()
        rows.schedule_next_try(key)
        link = link_of(keeper=keeper)
        assert not link.waits
        assert link.try_number == (1 if knows_it or BY_TRY else None)

    @cases(
        {"a new run": ("2", [("2", 2, True), ("1", 1, False)]), "the run of the last one": ("1", [("1", 2, True)])},
    )
    def test_next_try_waits_for_the_run_that_it_has_pushed(self, airflow, keeper, run, found):
        key = airflow.add()
        airflow.push(key, ago=60.0)
        keeper.read()
        rows.schedule_next_try(key)
        rows.start_worker(key)
        assert not link_of(keeper=keeper).waits
        airflow.push(key, run)
        for _ in range(2):
            links = keeper.read().of_instance(key)
            assert [(each.browseract_task_id, each.try_number, each.waits) for each in links] == found

    def test_deferred_task_instance_waits_for_the_run_of_its_trigger_and_not_for_that_of_an_edited_xcom(self, airflow):
        key = airflow.add()
        airflow.defer(key, "1")
        airflow.push(key, "2")
        links = RecordKeeper().read().links
        assert (links["1"].waits, links["2"].waits) == (True, False)

    def test_trigger_that_cannot_be_read_here_leaves_it_to_the_xcom(self, airflow, key):
        airflow.defer(key)
        rows.execute(update(Trigger).filter_by(classpath=RUN_TRIGGER).values(encrypted_kwargs="of another key"))
        link = link_of()
        assert (link.waits, link.wait) == (True, None)

    def test_task_instance_that_waits_for_a_slot_waits_for_no_run(self, airflow, queue):
        key = queue.add(1.0)
        airflow.push(key)
        assert not link_of().waits

    def test_required_action_is_open_until_it_is_answered(self, airflow, keeper):
        key = airflow.add()
        airflow.defer(key, required_action="action")
        assert not link_of(keeper=keeper).required_action
        airflow.ask(key)
        assert link_of(keeper=keeper).required_action
        airflow.answer(key)
        assert not link_of(keeper=keeper).required_action

    def test_required_action_that_nobody_waits_for_is_not_shown(self, airflow):
        key = airflow.add()
        airflow.defer(key)
        airflow.ask(key)
        assert not link_of().required_action


class TestQueue:
    def test_queue_is_in_the_order_of_places_over_all_connections_and_paused_dags(self, queue):
        longest = queue.add(100.0, conn_id="another", refusals=3)
        first = queue.add(300.0, priority=9)
        for_budget = queue.add(200.0, not_before=time.time() + 600, for_budget=True)
        queue.pause()
        entries = RecordKeeper().read().queue
        assert [entry.key for entry in entries] == [first, longest, for_budget]
        assert [entry.conn_id for entry in entries] == ["browseract_default", "another", "browseract_default"]
        assert [entry.wait.waits_for_budget(time.time()) for entry in entries] == [False, False, True]
        assert entries[1].wait.queued.refusals == 3

    def test_task_instance_that_has_left_the_queue_is_gone(self, queue):
        key = queue.add(1.0)
        keeper = RecordKeeper()
        assert [entry.key for entry in keeper.read().queue] == [key]
        rows.change(key, state="failed", trigger_id=None)
        assert not keeper.read().queue

    def test_wait_stored_by_another_version_is_passed_over(self, queue):
        queue.add(1.0)
        with create_session() as session:
            trigger = session.scalars(select(Trigger).filter_by(classpath=database.SLOT_TRIGGER)).one()
            trigger.kwargs = {"browseract_conn_id": "browseract_default", "wait": {"place": 1}}
        readable = queue.add(2.0)
        assert [entry.key for entry in RecordKeeper().read().queue] == [readable]

    def test_length_of_the_queue_is_limited(self, queue, monkeypatch):
        monkeypatch.setattr(database, "MAX_DEFERRED", 2)
        for since in (1.0, 2.0, 3.0):
            queue.add(since)
        assert len(RecordKeeper().read().queue) == 2


def slow_refresh(monkeypatch) -> tuple[threading.Event, threading.Event]:
    """From now on, let a refresh set the first event that is returned, and wait for the second one."""
    refreshing, go_on, refresh = threading.Event(), threading.Event(), RecordKeeper._refresh

    def slowly(keeper: RecordKeeper) -> None:
        refreshing.set()
        assert go_on.wait(60)
        refresh(keeper)

    monkeypatch.setattr(RecordKeeper, "_refresh", slowly)
    return refreshing, go_on


class TestRefresh:
    def test_later_read_reads_only_newer_xcoms_and_no_trigger_twice(self, airflow, queue):
        for index, ago in enumerate((1200.0, 600.0, 0.0)):
            airflow.push(airflow.add(SHOP._replace(map_index=index)), str(index), ago=ago)
        airflow.defer(airflow.add(SHOP._replace(map_index=3)), "3")
        queue.add(1.0)
        keeper = RecordKeeper()
        with selects() as first:
            keeper.read()
        with selects() as second:
            records = keeper.read()
        # Who waits, triggers of both kinds, XComs; at first also both kinds of waits, and rendered fields.
        assert (len(first), len(second)) == (7, 4)
        assert {"0", "1", "2", "3"} <= records.links.keys()
        assert keeper._since is not None
        with create_session() as session:
            pushed = database._pushed(session, database.XCOM.timestamp >= keeper._since)
        assert [row.map_index for row in pushed if row.dag_id == SHOP.dag_id] == [2]
        airflow.push(airflow.add(SHOP._replace(map_index=4)), "4")
        assert "4" in keeper.read().links

    @cases("first, second", {"older, within the overlap": (0.0, 50.0), "after one of a clock ahead": (-3600.0, 0.0)})
    def test_later_xcom_is_found_whatever_the_clocks_show(self, airflow, keeper, first, second):
        airflow.push(airflow.add(SHOP._replace(map_index=0)), "1", ago=first)
        keeper.read()
        airflow.push(airflow.add(SHOP._replace(map_index=1)), "2", ago=second)
        assert "2" in keeper.read().links

    def test_while_one_thread_refreshes_others_get_the_last_records(self, airflow, keeper, monkeypatch):
        before = keeper.read()
        refreshing, go_on = slow_refresh(monkeypatch)
        with ThreadPoolExecutor(1) as pool:
            refreshed = pool.submit(keeper.read)
            assert refreshing.wait(60)
            assert keeper.read() is before
            go_on.set()
            assert refreshed.result(60) is not before

    def test_records_of_long_ago_are_given_to_nobody(self, airflow, keeper, monkeypatch):
        old = keeper.read()
        keeper._read_at -= database.OLDEST + 1
        refreshing, go_on = slow_refresh(monkeypatch)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(keeper.read)
            assert refreshing.wait(60)
            second = pool.submit(keeper.read)
            go_on.set()
            assert first.result(60) is not old
            assert second.result(60) is not old

    def test_first_threads_wait_for_one_refresh_which_is_kept_for_a_moment(self, airflow, monkeypatch):
        monkeypatch.setattr(database, "MAX_AGE", 600.0)
        keeper, count, refresh = RecordKeeper(), [], RecordKeeper._refresh

        def counted(self):
            count.append(1)
            refresh(self)

        monkeypatch.setattr(RecordKeeper, "_refresh", counted)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: keeper.read(), range(4)))
        assert len(count) == 1
        assert {id(each) for each in found} == {id(keeper.read())}

    def test_failed_refresh_raises_and_the_next_call_tries_again(self, airflow, keeper, monkeypatch):
        airflow.push(airflow.add())
        with monkeypatch.context() as patch:
            patch.setattr(database, "arrange", lambda links: 1 / 0)
            for _ in range(2):
                with pytest.raises(ZeroDivisionError):
                    keeper.read()
        assert not keeper._known
        assert link_of(keeper=keeper).waits


class TestLookUps:
    def test_links_of_a_past_day_are_those_pushed_on_it_or_on_the_next_one(self, airflow):
        midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
        day = (midnight - timedelta(days=9)).date()
        for name, days in (("before", 9.01), ("same", 8.5), ("next", 7.01), ("after", 6.99)):
            key = airflow.add(SHOP._replace(task_id=name))
            airflow.push(key, name, ago=(now() - midnight + timedelta(days=days)).total_seconds())
        airflow.push(airflow.add(SHOP._replace(task_id="foreign")), value="x", ago=8 * 86400.0)
        assert database.links_on(day) == {"same": "shop", "next": "shop"}

    def test_links_of_a_task_instance_are_found_whatever_their_age(self, airflow):
        key = airflow.add(SHOP._replace(map_index=2))
        airflow.push(key, "7", ago=9 * 86400.0)
        assert [each.browseract_task_id for each in database.links_of(key)] == ["7"]
        assert database.links_of(key._replace(map_index=3)) == []
        assert database.links_of(key._replace(run_id="\0")) == []

    def test_teams_are_read_only_where_airflow_has_them(self, airflow, monkeypatch):
        assert (database.dag_team(DAG_ID), database.connection_team("browseract_default")) == (None, None)
        for model in (DagModel, Connection):
            monkeypatch.setattr(model, "get_team_name", lambda of, **_: f"team of {of}")
        assert (database.dag_team("shop"), database.connection_team("c")) == (None, None)
        monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
        assert (database.dag_team("shop"), database.connection_team("c")) == ("team of shop", "team of c")

    def test_connections_of_other_types_are_left_out(self, airflow):
        with rows.stored(*(Connection(conn_id=f"{kind}_1", conn_type=kind) for kind in ("http", "browseract"))):
            found = database.connections()
        assert "browseract_1" in found
        assert "http_1" not in found
