"""What the panel reads in Airflow's database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import delete, select, update

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.in_airflow.xcoms import names_of
from airflow_provider_browseract.panel import database, failures, links
from airflow_provider_browseract.panel.database import BY_TRY, XCOM, TaskInstanceKey
from airflow_provider_browseract.panel.failures import Failure, Source
from airflow_provider_browseract.panel.links import RUN_TRIGGER, Link, Recent, RecordReader, Records
from airflow_provider_browseract.runs.proof import prove_run
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.runs.wait import Wait
from airflow_provider_browseract.triggers.task import TaskTrigger
from airflow_provider_browseract.webhook.database import AS_STORED
from tests.airflow import rows
from tests.airflow.rows import DAG_ID, INDEX, TABLE, selects
from tests.helpers.cases import cases

SHOP = TaskInstanceKey("shop", "manual__2026-11-27T07:00:00.5+00:00~1", "prices.größe_搜索", -1)
CONN, API_KEY = "shop_account", "key of the shop"
HIDDEN = ("live_view", "secret_inputs")


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

    def add(self, key: TaskInstanceKey = SHOP, state: str | None = "running") -> TaskInstanceKey:
        """Add a task instance in its first try, and return it."""
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
        return key

    def push(
        self, key: TaskInstanceKey, run: str = "1", value: Any = None, *, ago=0.0, as_text=False, xcom="task", **more
    ) -> None:
        """Push the XCom of a run, as workers do, some seconds ago.

        :param value: another value.
        :param xcom: the key of the XCom.
        :param as_text: store it as JSON text, as the API server of Airflow 3.1 does.
        :param more: more keys of the facts about the run, which are edited afterwards.
        """
        shown = value
        if value is None:
            shown = facts(Task(id=run, status=TaskStatus.RUNNING, workflow_id="5"), CONN)
            shown |= {"follows": False, "hidden": [], "proof": None}
            shown |= {name: more.pop(name) for name in ("follows", "hidden") if name in more}
            shown |= {"proof": prove_run(API_KEY, names_of(key), shown), **more}
        how: dict[str, Any] = {} if as_text else AS_STORED
        with create_session() as session:
            XComModel.set(xcom, shown, **key._asdict(), **how, session=session)
        of = {"task_instance_id": rows.id_of(key)} if BY_TRY else key._asdict()
        rows.execute(update(XCOM).filter_by(key=xcom, **of).values(timestamp=now() - timedelta(seconds=ago)))

    def defer(self, key: TaskInstanceKey, run: str = "1", conn_id: str = CONN, **fields: Any) -> None:
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
    for name in ("MAX_AGE", "RARELY"):
        monkeypatch.setattr(links, name, 0.0)


@pytest.fixture
def key(airflow) -> TaskInstanceKey:
    """A task instance that runs, and has pushed the XCom of run 1."""
    added = airflow.add()
    airflow.push(added)
    return added


@pytest.fixture
def keeper(airflow) -> Recent[Records]:
    """What reads the database."""
    return Recent(RecordReader().read)


def link_of(run: str = "1", keeper: Recent[Records] | None = None) -> Link:
    """Return the first link of a run: that of a trigger, if there is one."""
    return (keeper or Recent(RecordReader().read)).get().of_run(run)[0]


def waits(run: str = "1", keeper: Recent[Records] | None = None) -> bool:
    return any(link.waits for link in (keeper or Recent(RecordReader().read)).get().of_run(run))


class TestLinks:
    @pytest.mark.parametrize("map_index", [-1, 0, 17])
    def test_task_instance_that_runs_is_linked_to_its_run_with_a_proof(self, airflow, map_index):
        key = airflow.add(SHOP._replace(map_index=map_index))
        airflow.push(key, hidden=["live_view"])
        link = link_of()
        assert link[:7] == ("1", key, 1, CONN, ApiVersion.V2, False, ("live_view",))
        assert (link.waits, link.required_action, link.wait) == (True, False, None)
        assert abs(now() - link.pushed_at) < timedelta(seconds=30)
        assert link.is_proven("another connection with the key", API_KEY)
        assert not link.is_proven(CONN, "another key")
        assert not link._replace(key=key._replace(map_index=3)).is_proven(CONN, API_KEY)

    @cases(
        ("operator", {}, (ApiVersion.V2, False, ())),
        ("sensor", {"api_version": None, "follows": True, "hide_goals": True}, (ApiVersion.V2, True, HIDDEN[1:])),
        ("bot", {"api_version": ApiVersion.V3, "show_live_view": False}, (ApiVersion.V3, False, HIDDEN[:1])),
    )
    def test_deferred_task_instance_is_linked_by_what_its_trigger_states(self, airflow, stored, stated):
        key = airflow.add()
        airflow.push(key, follows=not stated[1], hidden=[*HIDDEN], api_version="v3")
        airflow.defer(key, conn_id="other_account", **stored)
        link = link_of()
        assert link[:7] == ("1", key, 1, "other_account", *stated)
        assert link.waits
        assert link.wait is not None
        assert (link.is_proven("other_account", None), link.is_proven(CONN, API_KEY)) == (True, False)

    @pytest.mark.parametrize("reference", ["s3://bucket/xcom/1.json", "12345"])
    def test_reference_of_a_custom_xcom_backend_is_passed_over_and_noticed(self, airflow, keeper, reference):
        key = airflow.add()
        airflow.push(key, value=reference)
        records = keeper.get()
        assert (records.of_instance(key), records.unreadable) == ([], True)
        airflow.defer(key)
        assert waits(keeper=keeper)
        rows.change(key, state="success", trigger_id=None)
        records = keeper.get()
        assert (records.of_instance(key), records.unreadable) == ([], False)

    @cases(
        ("list", [{"task_id": "1"}]),
        ("facts of another operator", {"task_id": "1"}),
        ("no id", {"task_id": None, "workflow_id": "5", "status": "running"}),
        ("list as id", {"task_id": ["1"], "workflow_id": "5", "status": "running"}),
        ("long id", {"task_id": "1" * 251, "workflow_id": "5", "status": "running"}),
        ("id of several lines", {"task_id": "1\n2", "workflow_id": "5", "status": "running"}),
        ("large", {"task_id": "1", "workflow_id": "5", "status": "running", "page": "x" * 60_000}),
        ("nested text", "[" * 20_000),
    )
    def test_edited_xcom_is_no_link(self, airflow, value):
        key = airflow.add()
        airflow.push(key, value=value)
        records = RecordReader().read()
        assert (records.of_instance(key), records.unreadable) == ([], False)

    @cases(
        ("as pushed", {}, {}, True),
        ("JSON text of Airflow 3.1", {"as_text": True}, {}, True),
        ("sensor", {"follows": True}, {"follows": True}, True),
        ("hidden", {"hidden": [*HIDDEN]}, {"hidden": HIDDEN}, True),
        ("edited follows", {"follows": True, "proof": None}, {"follows": True}, False),
        ("unknown words", {"hidden": ["live_view", "x"]}, {"hidden": ("live_view",), "proof": ""}, False),
        ("long proof", {"proof": "\N{GRINNING FACE}" * 400}, {"proof": ""}, False),
        ("no list of words", {"hidden": "live_view"}, {"hidden": ()}, False),
        ("edited connection", {"connection": "victim"}, {"conn_id": "victim"}, False),
        ("list as connection", {"connection": ["victim"]}, {"conn_id": None}, False),
        ("edited version", {"api_version": "v3"}, {"api_version": ApiVersion.V3}, False),
        ("list as version", {"api_version": ["v2"]}, {"api_version": ApiVersion.V2}, True),
        ("edited run", {"task_id": "1", "run": "2"}, {}, False),
        ("number as run", {"task_id": 1}, {"browseract_task_id": "1"}, True),
        ("dict as proof", {"proof": {}}, {}, False),
    )
    def test_link_has_what_the_xcom_states_and_an_edited_one_is_not_proven(self, airflow, pushed, stated, proven):
        airflow.push(airflow.add(), **pushed)
        link = link_of()
        assert {name: getattr(link, name) for name in stated} == stated
        assert link.is_proven(CONN, API_KEY) is proven
        # A claim to wait needs no proof.
        assert link.waits

    def test_run_belongs_to_the_operator_and_is_waited_for_by_the_sensor(self, airflow):
        sensor = airflow.add(SHOP._replace(task_id="wait"))
        airflow.push(sensor, ago=60.0, follows=True)
        operator = airflow.add(state="success")
        airflow.push(operator)
        airflow.defer(sensor, follows=True)
        records = RecordReader().read()
        found = [(link.key, link.follows, link.waits) for link in records.proven("1", CONN, API_KEY)]
        assert found == [(operator, False, False), (sensor, True, True), (sensor, True, False)]
        assert [link.wait is not None for link in records.of_instance(sensor)] == [True, False]

    def test_of_many_xcoms_the_newest_and_those_of_who_waits_are_read_and_too_many_waits_are_incomplete(
        self, airflow, monkeypatch
    ):
        monkeypatch.setattr(database, "MAX_LINKS", 6)
        airflow.push(airflow.add(), ago=60.0)
        for index in range(9):
            # Later than anything that other tests have pushed.
            airflow.push(airflow.add(SHOP._replace(map_index=index), "success"), f"new-{index}", ago=-1.0 - index)
        records = RecordReader().read()
        assert {run for run in records.links if "new" in run} == {f"new-{index}" for index in range(3, 9)}
        assert ([link.waits for link in records.of_run("1")], records.incomplete) == ([True], False)
        for index in range(6):
            airflow.add(SHOP._replace(task_id="other", map_index=index), "scheduled")
        assert RecordReader().read().incomplete

    @pytest.mark.parametrize("state", ["running", "success"])
    def test_xcom_of_two_days_ago_is_a_link_only_if_the_run_is_still_waited_for(self, airflow, state):
        airflow.push(airflow.add(state=state), ago=2 * 86400.0)
        assert waits() is (state == "running")
        assert ("1" in RecordReader().read().links) is (state == "running")

    def test_corrected_xcom_leaves_nothing_of_what_it_said(self, airflow, key, keeper):
        airflow.push(key, "2", hidden=[*HIDDEN])
        assert link_of("2", keeper).hidden == HIDDEN
        airflow.push(key, "1")
        assert keeper.get().of_run("2") == []


WAITING = ("scheduled", "queued", "running", "deferred", "up_for_reschedule", "up_for_retry")


class TestWhoWaits:
    # A deferred task instance without a trigger was read at the moment of its end.
    @pytest.mark.parametrize("state", [*WAITING, None, "failed", "success"])
    def test_state_decides_whether_a_task_instance_waits(self, key, state):
        rows.change(key, state=state)
        assert waits() is (state in WAITING)

    def test_all_who_wait_are_known_however_many_dags_there_are(self, airflow, monkeypatch):
        monkeypatch.setattr(database, "READ_AT_ONCE", 1)
        for run in "123":
            airflow.push(airflow.add(SHOP._replace(dag_id=f"shop_{run}")), run)
        assert [waits(run) for run in "123"] == [True] * 3

    def test_next_try_waits_for_the_run_of_the_last_one_as_soon_as_it_is_scheduled(self, key, keeper):
        rows.schedule_next_try(key)
        assert waits(keeper=keeper)
        assert link_of(keeper=keeper).try_number == (1 if BY_TRY else None)

    @pytest.mark.parametrize("run", ["1", "2"])
    def test_next_try_waits_for_the_run_that_it_has_pushed(self, airflow, keeper, run):
        key = airflow.add()
        airflow.push(key, ago=60.0)
        rows.schedule_next_try(key)
        rows.start_worker(key)
        airflow.push(key, run)
        [link] = keeper.get().of_instance(key)
        assert (link.browseract_task_id, link.try_number, link.waits) == (run, 2, True)

    def test_deferred_task_instance_waits_for_the_run_of_its_trigger_and_not_for_that_of_an_edited_xcom(self, airflow):
        key = airflow.add()
        airflow.defer(key, "1")
        airflow.push(key, "2")
        assert (waits("1"), waits("2")) == (True, False)

    def test_trigger_that_cannot_be_read_here_leaves_it_to_the_xcom(self, airflow, key):
        airflow.defer(key)
        rows.execute(update(Trigger).filter_by(classpath=RUN_TRIGGER).values(encrypted_kwargs="of another key"))
        link = link_of()
        assert (link.waits, link.wait) == (True, None)

    def test_task_instance_that_waits_for_a_slot_waits_for_no_run(self, airflow, queue):
        key = queue.add(1.0)
        airflow.push(key)
        assert not waits()

    @pytest.mark.parametrize("waited_for", ["action", None])
    def test_required_action_that_is_waited_for_is_open_until_it_is_answered(self, airflow, keeper, waited_for):
        key = airflow.add()
        airflow.defer(key, required_action=waited_for)
        assert not link_of(keeper=keeper).required_action
        airflow.ask(key)
        assert link_of(keeper=keeper).required_action is (waited_for is not None)
        airflow.answer(key)
        assert not link_of(keeper=keeper).required_action


class TestQueue:
    def test_queue_is_in_the_order_of_places_over_all_connections_and_paused_dags(self, queue):
        longest = queue.add(100.0, conn_id="another", refusals=3)
        first = queue.add(300.0, priority=9)
        for_budget = queue.add(200.0, not_before=time.time() + 600, for_budget=True)
        queue.pause()
        entries = RecordReader().read().queue
        assert [entry.key for entry in entries] == [first, longest, for_budget]
        assert [entry.conn_id for entry in entries] == ["browseract_default", "another", "browseract_default"]
        assert [entry.wait.waits_for_budget(time.time()) for entry in entries] == [False, False, True]
        assert entries[1].wait.queued.refusals == 3

    def test_task_instance_that_has_left_the_queue_is_gone(self, queue):
        key = queue.add(1.0)
        keeper = Recent(RecordReader().read)
        assert [entry.key for entry in keeper.get().queue] == [key]
        rows.change(key, state="failed", trigger_id=None)
        assert not keeper.get().queue

    def test_wait_stored_by_another_version_is_passed_over(self, queue):
        queue.add(1.0)
        with create_session() as session:
            trigger = session.scalars(select(Trigger).filter_by(classpath=links.SLOT_TRIGGER)).one()
            trigger.kwargs = {"browseract_conn_id": "browseract_default", "wait": {"place": 1}}
        readable = queue.add(2.0)
        assert [entry.key for entry in RecordReader().read().queue] == [readable]

    def test_length_of_the_queue_is_limited(self, queue, monkeypatch):
        monkeypatch.setattr(links, "MAX_DEFERRED", 2)
        for since in (1.0, 2.0, 3.0):
            queue.add(since)
        assert len(RecordReader().read().queue) == 2


class TestRefresh:
    def test_no_trigger_is_read_twice(self, airflow, queue):
        airflow.push(airflow.add())
        airflow.defer(airflow.add(SHOP._replace(map_index=3)), "3")
        queue.add(1.0)
        keeper = Recent(RecordReader().read)
        with selects() as first:
            keeper.get()
        with selects() as second:
            records = keeper.get()
        # Triggers of both kinds, XComs, older ones, who waits; at first also both kinds of waits.
        assert (len(first), len(second)) == (7, 5)
        assert {"1", "3"} <= records.links.keys()

    @pytest.mark.parametrize("is_old", [False, True])
    def test_while_one_thread_refreshes_others_get_the_last_records_unless_they_are_of_long_ago(self, is_old):
        reading, go_on = threading.Event(), threading.Event()

        def read() -> object:
            reading.set()
            assert go_on.wait(60)
            return object()

        keeper = Recent(read)
        go_on.set()
        before = keeper.get()
        keeper._read_at -= (links.OLDEST + 1) * is_old
        reading.clear()
        go_on.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(keeper.get)
            assert reading.wait(60)
            second = pool.submit(keeper.get)
            if not is_old:
                assert second.result(60) is before
            go_on.set()
            assert first.result(60) is not before
            assert (second.result(60) is before) is not is_old

    def test_first_threads_wait_for_one_refresh_which_is_kept_for_a_moment(self, airflow, monkeypatch):
        monkeypatch.setattr(links, "MAX_AGE", 600.0)
        count: list[int] = []
        keeper = Recent(lambda: [count.append(1)])  # type: ignore[func-returns-value]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: keeper.get(), range(4)))
        assert len(count) == 1
        assert {id(each) for each in found} == {id(keeper.get())}

    def test_what_takes_long_to_read_is_read_rarely(self, airflow, keeper, monkeypatch):
        before = keeper.get()
        monkeypatch.setattr(links, "RARELY", 10.0)
        keeper._took = 1000.0
        assert keeper.get() is before
        keeper._read_at -= links.OLDEST
        assert keeper.get() is not before

    def test_failed_refresh_raises_and_the_next_call_tries_again(self, airflow, keeper, monkeypatch):
        airflow.push(airflow.add())
        with monkeypatch.context() as patch:
            patch.setattr(links, "_links", lambda *_: 1 / 0)
            for _ in range(2):
                with pytest.raises(ZeroDivisionError):
                    keeper.get()
        assert link_of(keeper=keeper).waits


REFUSED: dict[str, Any] = {
    "reason": "The daily budget is used up.",
    "remedy": None,
    "kind": "BudgetError",
    "connection": CONN,
}
REFUSED |= {"source": {"kind": "workflow", "id": "5", "name": None}, "task_id": None, "started": False}
FAILURE = Failure("The daily budget is used up.", "BudgetError", None, CONN, Source("workflow", "5"))


class TestFailures:
    @pytest.fixture
    def fail(self, airflow):
        """Let a task instance of an operator fail, as long ago as given, and push its XCom ``failure``."""

        def fail_(index: int = 0, *, state="failed", ago=0.0, failure: Any = REFUSED, xcom="failure", **of: Any):
            key = airflow.add(SHOP._replace(map_index=index))
            of = {"operator": "RunWorkflowOperator", "custom_operator_name": None, **of}
            rows.change(key, state=state, end_date=now() - timedelta(seconds=ago), **of)
            if failure is not None:
                airflow.push(key, value=failure, xcom=xcom, ago=ago)
            return key

        return fail_

    def found(self) -> list[Any]:
        return [each for each in failures.failed_tries() if each.key.dag_id == SHOP.dag_id]

    @cases(("failed", "failed", False), ("up for retry", "up_for_retry", True))
    def test_task_instance_that_has_failed_has_its_reason(self, fail, state, retries):
        key = fail(3, state=state)
        [failed] = self.found()
        assert (failed.key, failed.try_number, failed.retries, failed.failure) == (key, 1, retries, FAILURE)
        assert now() - failed.ended < timedelta(seconds=30)

    @cases(
        ("our operator without an XCom", {"failure": None}, True),
        ("@task.browseract", {"failure": None, "operator": "X", "custom_operator_name": "@task.browseract"}, True),
        ("subclass", {"operator": "Mine"}, True),
        ("operator of another provider", {"operator": "Other", "failure": None}, False),
        ("XCom of another provider", {"operator": "Other", "failure": {"reason": "x"}}, False),
        ("sensor of another provider", {"operator": "TaskSensor", "failure": None}, False),
        ("our sensor, killed", {"operator": "TaskSensor", "xcom": "_link_PanelLink"}, True),
        ("our sensor", {"operator": "TaskSensor"}, True),
        ("later try has succeeded", {"state": "success"}, False),
        ("running", {"state": "running"}, False),
        ("two days ago", {"ago": 2 * 86400.0}, False),
    )
    def test_only_those_of_our_operators_of_the_last_day_are_found(self, fail, of, is_found):
        key = fail(**of)
        assert [each.key for each in self.found()] == ([key] if is_found else [])

    @cases(
        ("not JSON", "s3://bucket/failure.json"),
        ("list", ["x"]),
        ("no reason", {"kind": "X"}),
        ("number as reason", {"reason": 5, "kind": "X"}),
        ("10 KB", {**REFUSED, "reason": "x" * 10_000}),
        ("nested", "[" * 5_000),
    )
    def test_failure_that_cannot_be_read_leaves_it_to_the_log(self, fail, failure):
        fail(failure=failure)
        assert [each.failure for each in self.found()] == [None]

    def test_long_reason_is_cut_as_workers_cut_theirs(self, fail):
        fail(failure={**REFUSED, "reason": "x" * 5_000, "remedy": "y" * 2_000})
        [failed] = self.found()
        assert (len(failed.failure.reason), len(failed.failure.remedy)) == (300, 300)

    def test_reason_of_an_earlier_try_does_not_count(self, fail):
        key = fail(state="up_for_retry")
        rows.schedule_next_try(key)
        rows.start_worker(key)
        rows.change(key, state="failed", end_date=now())
        [failed] = self.found()
        assert (failed.try_number, failed.failure) == (2, None)

    def test_newest_come_first_and_their_number_is_limited(self, fail, monkeypatch):
        monkeypatch.setattr(failures, "MAX_FAILURES", 2)
        for index, ago in enumerate((2.0, -600.0, -300.0)):
            fail(index, ago=ago, failure=None)
        assert [each.key.map_index for each in self.found()] == [1, 2]


class TestLookUps:
    def test_dags_of_a_past_day_are_those_of_proven_links_that_were_pushed_on_it_or_on_the_next_one(self, airflow):
        midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
        day = (midnight - timedelta(days=9)).date()
        for name, days in (("before", 9.01), ("same", 8.5), ("next", 7.01), ("after", 6.99)):
            key = airflow.add(SHOP._replace(task_id=name))
            airflow.push(key, name, ago=(now() - midnight + timedelta(days=days)).total_seconds())
        ago = 8 * 86400.0
        airflow.push(airflow.add(SHOP._replace(dag_id="sensor")), "same", ago=ago, follows=True)
        airflow.push(airflow.add(SHOP._replace(dag_id="forged")), "same", ago=ago, proof="forged")
        airflow.push(airflow.add(SHOP._replace(task_id="foreign")), value="x", ago=ago)
        assert links.dags_on(day, CONN, API_KEY) == {"same": "shop", "next": "shop"}
        assert links.dags_on(day, CONN, "another key") == {}

    def test_links_of_a_task_instance_are_found_whatever_their_age(self, airflow):
        key = airflow.add(SHOP._replace(map_index=2))
        airflow.push(key, "7", ago=9 * 86400.0)
        airflow.push(airflow.add(SHOP._replace(map_index=4)), "8")
        assert [each.browseract_task_id for each in links.links_of(key)] == ["7"]
        assert links.links_of(key._replace(map_index=3)) == []
        assert links.links_of(key._replace(run_id="\0")) == []

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
