"""What lists show, and what needs a person: also what is left out because the viewer may not see it."""

from __future__ import annotations

import gc
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion, TaskStatus
from airflow_provider_browseract.panel.failures import Source
from airflow_provider_browseract.panel.html import foreign_text, label_of
from airflow_provider_browseract.panel.rows import NO_REASON, troubles
from airflow_provider_browseract.runs.wait import Wait
from tests.helpers.cases import cases
from tests.helpers.steps import replace

from .known import CONN, NOW, Viewer, failed, known, link, proof_of, queued, task

OF_PRICES = Viewer({"prices"})
USER_OF_PRICES = Viewer({"prices"}, {"prices"})
READER_OF_ACCOUNT = Viewer(account=True)

RUN = task(1)
PROOF = link(RUN).proof
OF_SENSOR = link(RUN, "shop", follows=True)
NONE, LOOK, ACT = (False, False, False), (True, True, False), (True, True, True)


def lines(look) -> list[tuple[str, str, int]]:
    """Return the lines of "Needs you": whose they are, the state, and how many rows each has."""
    found = troubles(look.rows())
    return [(label_of(each.first.key) if each.first.key else "", each.first.state, len(each.rows)) for each in found]


@cases(
    ("proof", link(RUN), ACT),
    ("proof, of another connection with the same key", link(RUN, conn_id="second"), ACT),
    ("proof of a sensor", link(RUN, follows=True), LOOK),
    ("proof of another run", link(task(2))._replace(browseract_task_id=RUN.id), NONE),
    ("proof of another task instance", link(RUN, map_index=1, proof=PROOF), NONE),
    ("proof of another account", link(RUN, proof=proof_of(link(RUN), "another key")), NONE),
    ("proof with the empty key", link(RUN, proof=proof_of(link(RUN), "")), NONE),
    ("edited follows", OF_SENSOR._replace(follows=False, key=link(RUN).key), NONE),
    ("edited follows, of the sensor", link(RUN, follows=True)._replace(follows=False), NONE),
    ("edited hidden", link(RUN, hidden=("live_view",))._replace(hidden=()), NONE),
    ("edited version", link(RUN)._replace(api_version=ApiVersion.V3), NONE),
    ("edited connection", link(RUN, conn_id="second")._replace(conn_id=CONN), NONE),
    ("no proof", link(RUN, proof=""), NONE),
    ("no ASCII", link(RUN, proof="\ud800ü"), NONE),
    ("trigger", link(RUN, proof="", wait=Wait(RUN.id, 0.0)), ACT),
    ("trigger of another connection", link(RUN, proof="", conn_id="second", wait=Wait(RUN.id, 0.0)), NONE),
    ("trigger of a sensor", link(RUN, proof="", follows=True, wait=Wait(RUN.id, 0.0, follows=True)), LOOK),
)
def test_only_what_is_proven_or_named_by_a_trigger_gives_rights(of_run, rights):
    look = known(RUN, links=[of_run], viewer=USER_OF_PRICES)
    assert look.rights_on(RUN.id) == rights
    assert len(look.rows()) == (rights != NONE)
    # The connection gives all rights, whatever else there is. A run of nobody is shown without a task instance.
    [row] = known(RUN, links=[of_run]).rows()
    assert (row.key is not None) is (rights != NONE)


def test_without_the_key_of_the_connection_only_a_trigger_gives_rights():
    for of_run, sees in ((link(RUN, proof=proof_of(link(RUN), "")), False), (link(RUN, wait=Wait("1", 0.0)), True)):
        look = known(RUN, links=[of_run], viewer=USER_OF_PRICES)
        assert replace(look, viewing=replace(look.viewing, key=None)).rights_on(RUN.id).run is sees


@pytest.mark.parametrize("turned", [False, True])
def test_each_link_gives_its_rights_whatever_the_order_and_whatever_is_forged(turned):
    forged = link(RUN, "forged", proof="", hidden=("live_view", "secret_inputs"), api_version=ApiVersion.V3)
    links = [forged, link(RUN, "prices"), OF_SENSOR][:: -1 if turned else 1]
    for dag_id, rights in (("prices", ACT), ("shop", LOOK), ("forged", NONE)):
        assert known(RUN, links=links, viewer=Viewer({dag_id}, {dag_id})).rights_on(RUN.id) == rights
    [row] = known(RUN, links=links).rows()
    assert row.key == links[1].key


@cases(
    ("task instance that waits for another one", task(1), {"waits": False}, True),
    ("task instance that waits for it", task(1), {}, False),
    ("claim of another connection", task(1), {"conn_id": "second"}, False),
    ("claim without a proof", task(1), {"proof": ""}, False),
    ("claim of a sensor", task(1), {"follows": True}, False),
    ("ended", task(1, TaskStatus.FINISHED), None, False),
    ("of the last minute, whose XCom may follow", task(1, minutes=0.9), None, False),
    ("older than a minute", task(1, minutes=1.1), None, True),
)
def test_active_run_that_nobody_waits_for_needs_a_person(run, waits, unread):
    look = known(run, links=[] if waits is None else [link(run, **waits)])
    assert look.is_unread(run) is unread
    assert len(troubles(look.rows())) == unread


STARTED: dict[str, Any] = {"started": True, "task_id": "83001"}


class TestFailures:
    """Task instances that have failed, with and without a run."""

    @cases(
        ("not started", None, {}, "not started", "It is over"),
        ("no XCom", None, {"reason": None}, "failed", NO_REASON),
        ("no XCom, with its run", TaskStatus.FAILED, {"reason": None}, "failed", NO_REASON),
        ("run that is not listed any more", None, STARTED, "failed", "It is over"),
        ("failed run", TaskStatus.FAILED, STARTED, "failed", "It is over"),
        ("run that was stopped", TaskStatus.CANCELED, STARTED, "stopped", "It is over"),
    )
    def test_state_and_reason_of_a_failed_task_instance_are_one_row_with_its_run(self, status, fields, state, reason):
        runs = [] if status is None else [task(1, status)]
        look = known(*runs, links=map(link, runs), failures=[failed(**fields)])
        [row] = look.rows()
        assert (row.state, row.reason) == (state, reason)
        assert (row.task is not None) is bool(runs)
        assert lines(look) == [("prices / search", state, 1)]
        assert "failed" in row.filters

    def test_active_run_of_a_failed_task_instance_is_a_row_of_its_own(self):
        look = known(RUN, links=[link(RUN, waits=False)], failures=[failed(**STARTED)])
        assert lines(look) == [("prices / search", "running", 1), ("prices / search", "failed", 1)]

    def test_failed_sensor_is_a_row_of_its_own_and_says_nothing_about_the_run_that_it_has_followed(self):
        run = task(1, TaskStatus.FINISHED)
        look = known(run, links=[link(run), link(run, "shop", follows=True)], failures=[failed("shop", **STARTED)])
        found = [(row.key and row.key.dag_id, row.state, row.reason) for row in look.rows()]
        assert found == [("shop", "failed", "It is over"), ("prices", "finished", "")]

    def test_viewer_of_the_line_alone_does_not_see_which_run_it_is(self):
        run = task(1, TaskStatus.FAILED)
        viewer = Viewer({"prices"}, account=True, xcoms=False)
        look = known(run, links=[link(run)], failures=[failed(**STARTED)], viewer=viewer)
        assert [(row.task is None, row.reason) for row in look.rows()] == [(True, NO_REASON), (False, "")]

    def test_name_of_a_workflow_is_not_looked_up_for_a_failure(self):
        [row] = known(failures=[failed(source=Source("workflow", "72"))], names={"72": "Payroll"}).rows()
        assert row.source == "72"

    def test_many_failures_of_a_dag_hide_none_of_another(self):
        many = [failed("forged", f"{'x' * n}", map_index=n) for n in range(24) for _ in range(2)]
        found = troubles(known(failures=[*many, failed()], viewer=Viewer({"prices", "forged"})).rows())
        assert [each.first.key.dag_id for each in found[:3] if each.first.key] == ["forged", "prices", "forged"]

    def test_failure_without_a_proof_gives_no_right_on_the_run_that_it_names(self):
        look = known(RUN, failures=[failed(**STARTED)], viewer=USER_OF_PRICES)
        [row] = look.rows()
        assert (row.task, row.rights) == (None, (True, False, False))
        [without, of_run] = sorted(known(RUN, failures=[failed(**STARTED)]).rows(), key=lambda row: row.failed is None)
        assert (without.task, of_run.key) == (None, None)

    def test_equal_reasons_are_one_line_whatever_their_numbers_and_lines_have_an_order(self):
        refused = [failed(reason=f"Only {n} credits are left", map_index=n, minutes=n) for n in range(1, 46)]
        other = [failed(reason="Another one", map_index=50), failed("shop", "Only 3 credits are left")]
        cheap, dear = task(1, credit=10), task(2, credit=900)
        soon, late = task(3, TaskStatus.PAUSED), task(4, TaskStatus.PAUSED)
        asked = [
            link(run, "shop", wait=Wait(run.id, at, required_action="x"), required_action=True, map_index=index)
            for index, (run, at) in enumerate({late: 5e9, soon: 4e9}.items())
        ]
        look = known(cheap, dear, soon, late, links=asked, failures=[*refused, *other])
        found = troubles(look.rows())
        assert [each.first.task and each.first.task.id for each in found[:4]] == [dear.id, cheap.id, soon.id, late.id]
        counts = [(each.first.reason[:4], len(each.rows)) for each in found[4:]]
        assert counts == [("Only", 45), ("Only", 1), ("Anot", 1)]
        assert found[2].first.answer_by == datetime.fromtimestamp(4e9, NOW.tzinfo)
        # The filter of a line has exactly its rows.
        of_line = [row.key for row in look.rows() if found[4].id in row.filters and row.key]
        assert {key.map_index for key in of_line} == set(range(1, 46))

    @cases(
        ("reader of one DAG", OF_PRICES, [("prices / search", "not started", 1)]),
        ("reader of the account", READER_OF_ACCOUNT, []),
    )
    def test_viewer_sees_exactly_the_failures_of_readable_dags(self, viewer, seen):
        assert lines(known(failures=[failed(), failed("shop"), failed("hidden")], viewer=viewer)) == seen

    @cases(("this one", CONN, 1), ("another", "second", 0), ("none that exists", "typo", 1))
    def test_failure_is_shown_with_its_connection_or_with_each_if_that_cannot_be_chosen(self, connection, here):
        assert len(known(failures=[failed(connection=connection)]).rows()) == here

    def test_order_is_what_needs_a_person_then_active_then_ended_each_newest_first(self):
        runs = [task(1, minutes=9), task(2, minutes=1.5), task(3, TaskStatus.FINISHED), task(4, minutes=5)]
        look = known(*runs, links=[link(runs[0]), link(runs[3])], failures=[failed("shop", minutes=3)])
        assert [row.id[:5] for row in look.rows()] == ["83002", "shop/", "83004", "83001", "83003"]


class TestQueue:
    def test_queue_is_one_line_a_dag_with_places_for_everyone_and_names_only_of_readable_dags(self):
        look = known(queue=[queued(17, "shop"), queued(3), queued(4)], viewer=OF_PRICES)
        found = {dag_id: [number for number, _ in places] for dag_id, places in look.queue_by_dag().items()}
        assert found == {None: [1], "prices": [2, 3]}

    def test_connections_with_the_same_key_share_a_queue_and_others_do_not(self):
        same = queued(2, conn_id="same key", key_digest="k")
        other = queued(3, conn_id="another key", key_digest="x")
        assert [each.key.map_index for each in known(queue=[queued(1, key_digest="k"), same, other]).queue] == [1, 2]

    @cases(
        ("for a slot", [queued(2), queued(3, minutes=1)], 240.0),
        ("for the budget", [queued(1, minutes=9, not_before=NOW.timestamp() + 60, for_budget=True)], None),
        ("a clock that is behind", [queued(1, minutes=-5)], 0.0),
        ("nobody", [], None),
    )
    def test_longest_wait_is_that_for_a_slot(self, entries, longest):
        assert known().longest_wait(entries) == longest


def test_runs_that_ended_more_than_24_hours_ago_are_not_listed():
    old = task(1, TaskStatus.FINISHED, minutes=25 * 60, finished_at=NOW - timedelta(hours=24, minutes=1))
    long = task(2, TaskStatus.FINISHED, minutes=25 * 60, finished_at=NOW - timedelta(hours=23))
    active = task(3, minutes=25 * 60)
    assert {row.id for row in known(old, long, active).rows()} == {long.id, active.id}


def test_required_action_is_hidden_with_the_task_instance_of_an_unreadable_dag():
    run = task(1, TaskStatus.PAUSED)
    for viewer, asks in ((OF_PRICES, True), (READER_OF_ACCOUNT, False)):
        [row] = known(run, links=[link(run, required_action=True)], viewer=viewer).rows()
        assert (row.is_asking, row.is_hidden, row.key is None) == (asks, not asks, not asks)


@cases(
    ("bot", {"bot_id": "71", "bot_name": "Contacts"}, "bot Contacts", ("bots", "71")),
    ("bot without a name", {"bot_id": "71"}, "bot 71", ("bots", "71")),
    ("template", {}, "bot template", None),
    ("hostile name", {"bot_id": "71", "bot_name": "a\u202eb"}, "bot a b", ("bots", "71")),
)
def test_run_of_a_bot_has_its_name_and_leads_to_its_page(ran, shown, path):
    run = task(1, workflow_id=None, api_version=ApiVersion.V3, **ran)
    [row] = known(run, names={"71": "Workflow of the same id"}).rows()
    assert (row.source, row.source_path, row.matches(shown.casefold())) == (shown, path, True)
    assert known(run, links=[link(run)], viewer=OF_PRICES).rows()[0].source_path is None


def test_search_does_not_find_the_name_of_a_hidden_dag():
    [row] = known(RUN, links=[link(RUN, "secret_dag")], viewer=READER_OF_ACCOUNT).rows()
    assert not row.matches("secret_dag")


def test_2000_runs_with_200_waiting_and_2000_failed_that_name_one_run_take_less_than_a_second():
    runs = [task(number, TaskStatus.FAILED, minutes=number / 2) for number in range(2000)]
    failures = [failed(map_index=number, started=True, task_id=runs[0].id) for number in range(2000)]
    forged = [link(runs[0], map_index=number, proof="0" * 64) for number in range(2000)]
    queue = [queued(number) for number in range(200)]
    look = known(*runs, links=[*forged, *map(link, runs)], queue=queue, failures=failures)
    began = time.thread_time()
    assert len(troubles(look.rows())) == 1
    assert time.thread_time() - began < 1.0


@cases(
    ("nothing", None, ""),
    ("control characters", "a\x00b\nc", "a b c"),
    ("marks of direction", "a\u202eb\u200fc", "a b c"),
    ("lone surrogate", "a\ud800", "a "),
    ("markup", "<img onerror=x>", "<img onerror=x>"),
    ("long", "x" * 1_000_000, "x" * 199 + "\u2026"),
)
def test_foreign_text_is_cut_and_has_no_control_characters(text, shown):
    assert foreign_text(text) == shown


def test_a_run_in_a_list_is_one_object_for_the_garbage_collector():
    # Its full collections stop the API server for as long as half a second, and many objects bring the next one closer.
    runs = [task(number, TaskStatus.FINISHED) for number in range(500)]
    look = known(*runs, links=map(link, runs))
    look.rows()  # keeps what all rows share
    gc.collect()
    before = len(gc.get_objects())
    rows = look.rows()
    assert len(troubles(rows)) == 0
    assert {name for row in rows for name in row.filters} == set()
    assert len(gc.get_objects()) - before < 1.5 * len(rows)
