from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_browseract.api.errors import ServerError, TaskNotFoundError
from airflow_provider_browseract.api.exchange import Response
from airflow_provider_browseract.api.models import ApiVersion, Page, Task, TaskStatus
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.watching import (
    END_STATUSES,
    LONGEST_RUN,
    REPORT_WINDOW,
    WATCH_OVERLAP,
    Cursor,
    EndedTask,
    Window,
    list_changes,
    matching,
)
from tests.cases import cases
from tests.steps import carry_out

NOW = 1_000_000_000.0


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, timezone.utc)


def task(task_id: str, status: TaskStatus = TaskStatus.FINISHED, *, created=-60.0, finished=0.0, workflow="w") -> Task:
    """Return a task with times in seconds from now."""
    ended = None if finished is None or not status.ended else moment(finished)
    return Task(task_id, status, workflow, created_at=moment(created), finished_at=ended)


def begins(window: Window) -> float:
    """Return from when on a window lists, in seconds from now."""
    return datetime.fromisoformat(str(window.call().params["created_at_from"]).replace("Z", "+00:00")).timestamp() - NOW


def ids(ended) -> list[str]:
    return [each.task.id for each in ended]


class TestAWindow:
    def test_new_window_begins_early_enough_for_all_recent_ends(self):
        assert begins(Window(NOW)) == -(REPORT_WINDOW + LONGEST_RUN)

    def test_window_lists_only_the_overlap_after_the_first_listing(self):
        window = Window(NOW)
        window.add([task("1")], NOW)
        assert begins(window) == -WATCH_OVERLAP

    def test_window_begins_at_the_oldest_task_that_has_not_ended(self):
        window = Window(NOW)
        window.add([task("1", TaskStatus.RUNNING, created=-7000), task("2", TaskStatus.PAUSED, created=-3000)], NOW)
        assert begins(window) == -7000

    def test_window_stays_bounded_when_a_task_never_ends(self):
        window = Window(NOW)
        window.add([task("1", TaskStatus.UNKNOWN, created=-2 * REPORT_WINDOW)], NOW)
        assert begins(window) == -REPORT_WINDOW

    def test_window_keeps_ended_tasks_missing_from_a_later_listing(self):
        window = Window(NOW)
        assert ids(window.add([task("1")], NOW)) == ["1"]
        assert ids(window.add([task("2")], NOW + 60)) == ["1", "2"]

    def test_window_forgets_tasks_that_ended_long_ago(self):
        window = Window(NOW)
        window.add([task("1")], NOW)
        assert window.add([], NOW + REPORT_WINDOW + WATCH_OVERLAP + 1) == ()

    @pytest.mark.parametrize("status", [status for status in TaskStatus if not status.ended])
    def test_window_does_not_take_an_end_time_alone_as_an_end(self, status):
        running = Task("1", status, created_at=moment(-60), finished_at=moment(0))
        assert Window(NOW).add([running], NOW) == ()

    def test_window_dates_an_end_without_time_at_the_moment_it_was_seen(self):
        window = Window(NOW)
        window.add([task("1", TaskStatus.RUNNING, created=-5000)], NOW)
        [ended] = window.add([task("1", TaskStatus.CANCELED, created=-5000, finished=None)], NOW + 60)
        assert ended.moment == NOW + 60

    def test_window_dates_an_unseen_end_without_time_at_its_creation_time(self):
        [ended] = Window(NOW).add([task("1", TaskStatus.CANCELED, created=-5000, finished=None)], NOW)
        assert ended.moment == NOW - 5000

    def test_window_knows_active_and_ended_tasks_newest_first_and_without_inputs(self):
        window = Window(NOW)
        running = Task("2", TaskStatus.RUNNING, created_at=moment(-30), input_parameters="password=hunter2")
        window.add([task("1"), running, task("3", created=-90)], NOW)
        assert [(each.id, each.input_parameters) for each in window.tasks] == [("2", None), ("1", None), ("3", None)]

    def test_window_keeps_no_input_of_the_run_of_a_bot(self):
        window = Window(NOW, ApiVersion.V3)
        window.add([replace(task("1"), input={"password": "hunter2"})], NOW)
        assert [each.input for each in window.tasks] == [None]

    def test_window_believes_the_end_of_a_task_that_an_older_list_shows_as_active(self):
        window = Window(NOW)
        window.add([task("1")], NOW)
        window.add([task("1", TaskStatus.RUNNING)], NOW + 10)
        assert [each.status for each in window.tasks] == [TaskStatus.FINISHED]

    def test_window_takes_credits_that_are_listed_after_the_end_and_keeps_its_moment(self):
        window = Window(NOW)
        window.add([task("1", TaskStatus.RUNNING)], NOW)
        window.add([task("1", finished=None)], NOW + 10)
        [ended] = window.add([replace(task("1", finished=None), credit=45)], NOW + 20)
        assert (ended.task.credit, ended.moment) == (45, NOW + 10)

    def test_window_lists_readable_tasks_despite_unreadable_ones(self):
        window = Window(NOW)
        good = {"id": "1", "status": "finished", "created_at": moment(-60).isoformat(), "output": "?"}
        others = [{**good, "id": "2", "status": "teleported"}, {**good, "id": None}, {**good, "id": [3]}, "?", None]
        others.append({**good, "id": "4"})
        page = {"items": [good, *others], "page": 1, "total_pages": 1}
        listed = window.call().read_response(Response(200, {}, json.dumps(page).encode())).items
        assert sorted(ids(window.add(listed, NOW))) == ["1", "4"]
        # What could not be understood is listed again until it can be.
        understood = task("2", created=-60)
        assert "2" in ids(window.add([understood], NOW + 60))


def test_changes_of_a_truncated_list_include_the_status_of_active_tasks_beyond_it():
    window = Window(NOW)
    window.add([task("1", TaskStatus.RUNNING), task("2", TaskStatus.RUNNING), task("3", TaskStatus.RUNNING)], NOW)
    answers = {
        "list-tasks": Page((task("4"), task("3", TaskStatus.RUNNING)), total_count=9),
        "1": TaskStatus.FAILED,
        "2": ServerError("it is down"),
    }
    listing = carry_out(
        list_changes(window, page_size=2, max_requests=1),
        lambda call: answers[call.params.get("task_id", call.name)],
    )
    assert listing.truncated
    assert [(each.id, each.status) for each in listing.items] == [
        ("4", TaskStatus.FINISHED),
        ("3", TaskStatus.RUNNING),
        ("1", TaskStatus.FAILED),
        ("2", TaskStatus.RUNNING),
    ]


class Account:
    """Responds to the calls of a window in version 3 of the API, from tasks in any order."""

    def __init__(self, order: Callable[[list[Task]], list[Task]]) -> None:
        self.order = order
        self.tasks: list[Task] = []
        self.calls: list[dict[str, Any]] = []
        self.before_each_page: Callable[[], None] = lambda: None

    def __call__(self, call):
        found = {each.id: each for each in self.tasks}
        if call.name == "query-run-status":
            [task_id] = [each for each in found if f"/{each}/" in call.path]
            return found[task_id].status
        self.before_each_page()
        assert call.name == "page-runs"
        self.calls.append(dict(call.params))
        begin = datetime.fromisoformat(call.params["created_at_from"].replace("Z", "+00:00"))
        listed = self.order([each for each in self.tasks if each.created_at and each.created_at >= begin])
        limit, page = call.params["limit"], call.params["page"]
        shown = tuple(listed[limit * (page - 1) : limit * page])
        return Page(shown, total_count=len(listed), total_pages=-(-len(listed) // limit))


def task_of_a_bot(number: int, created: float, status: TaskStatus = TaskStatus.FINISHED, *, finished=0.0) -> Task:
    return replace(task(f"run-{number}", status, created=created, finished=finished), api_version=ApiVersion.V3)


ORDERS: dict[str, Callable[[list[Task]], list[Task]]] = {
    "oldest first": lambda tasks: tasks,
    "newest first": lambda tasks: tasks[::-1],
}
in_either_order = cases("order", ORDERS)


@in_either_order
def test_changes_have_all_tasks_of_several_pages_and_no_filter_by_status(order):
    account = Account(order)
    account.tasks = [task_of_a_bot(number, number - 1000.0) for number in range(250)]
    listing = carry_out(list_changes(Window(NOW, ApiVersion.V3)), account)
    assert sorted(each.id for each in listing.items) == sorted(each.id for each in account.tasks)
    assert [(call["page"], call["limit"]) for call in account.calls] == [(1, 100), (2, 100), (3, 100)]
    assert not any("status" in call for call in account.calls)


@in_either_order
def test_changes_have_all_tasks_although_others_are_started_while_the_list_is_read(order):
    account = Account(order)
    account.tasks = [task_of_a_bot(number, number - 1000.0) for number in range(250)]
    before = {each.id for each in account.tasks}
    account.before_each_page = lambda: account.tasks.append(task_of_a_bot(len(account.tasks), 0.0, TaskStatus.RUNNING))
    listing = carry_out(list_changes(Window(NOW, ApiVersion.V3)), account)
    assert before <= {each.id for each in listing.items}
    assert len({each.id for each in listing.items}) == len(listing.items)


@in_either_order
def test_changes_of_a_list_that_is_too_long_have_the_newest_tasks(order):
    account = Account(order)
    account.tasks = [task_of_a_bot(number, number - 1000.0) for number in range(95)]
    listing = carry_out(list_changes(Window(NOW, ApiVersion.V3), page_size=10, max_requests=4), account)
    assert listing.truncated
    assert len(account.calls) == 4
    newest = {f"run-{number}" for number in range(95 - 25, 95)}
    assert newest <= {each.id for each in listing.items}


@cases(
    ("answer", "expected"),
    {
        "ended": (TaskStatus.FAILED, [TaskStatus.FAILED]),
        "not readable": (ServerError("it is down"), [TaskStatus.RUNNING]),
        "deleted": (TaskNotFoundError("no such task", code=10112), []),
    },
)
def test_active_task_that_a_complete_list_does_not_have_is_read_by_itself(answer, expected):
    window = Window(NOW, ApiVersion.V3)
    window.add([task_of_a_bot(1, -30.0, TaskStatus.RUNNING)], NOW)
    answers = {"page-runs": Page((), total_count=0, total_pages=0), "query-run-status": answer}
    listing = carry_out(list_changes(window), lambda call: answers[call.name])
    assert [each.status for each in listing.items] == expected


def test_task_that_has_been_active_for_more_than_a_day_is_no_longer_read():
    window = Window(NOW, ApiVersion.V3)
    window.add([task_of_a_bot(1, -REPORT_WINDOW - 1.0, TaskStatus.RUNNING)], NOW)
    account = Account(lambda tasks: tasks)
    carry_out(list_changes(window), account)
    assert len(account.calls) == 1


@cases("order", {**ORDERS, "by chance": lambda tasks: random.Random(len(tasks)).sample(tasks, len(tasks))})
def test_each_end_of_many_runs_is_reported_once(order):
    chance = random.Random(31)
    begun = sorted(chance.uniform(1.0, 2000.0) for _ in range(300))
    ends = [each + chance.expovariate(1 / 300.0) for each in begun]
    account, window, cursor = Account(order), Window(NOW, ApiVersion.V3), Cursor.beginning([], NOW)
    reported: list[str] = []
    for now in range(0, int(max(ends)) + 120, 60):
        account.tasks = [
            task_of_a_bot(number, begin, TaskStatus.FINISHED if end <= now else TaskStatus.RUNNING, finished=end)
            for number, (begin, end) in enumerate(zip(begun, ends, strict=True))
            if begin <= now
        ]
        news = cursor.news(window.add(carry_out(list_changes(window), account).items, NOW + now))
        reported += ids(news)
        cursor.mark_reported(news, NOW + now)
    assert any(call["page"] == 2 for call in account.calls)
    assert sorted(reported) == sorted(each.id for each in account.tasks)


def ended(task_id: str, at: float = 0.0, **what) -> EndedTask:
    return EndedTask(task(task_id, finished=at, **what), NOW + at)


class TestACursor:
    def test_new_cursor_does_not_report_tasks_that_had_already_ended(self):
        old = [ended("1", -30), ended("2", -9000)]
        cursor = Cursor.beginning(old, NOW)
        assert cursor.news([*old, ended("3", 10)]) == [ended("3", 10)]

    def test_cursor_reports_each_end_once_and_the_earliest_first(self):
        cursor = Cursor.beginning([], NOW)
        news = cursor.news([ended("2", 20), ended("1", 10)])
        assert ids(news) == ["1", "2"]
        cursor.mark_reported(news, NOW + 30)
        assert cursor.news([ended("1", 10), ended("2", 20)]) == []

    def test_cursor_reports_ended_tasks_without_a_creation_time(self):
        cursor = Cursor.beginning([], NOW)
        undated = EndedTask(Task("2", TaskStatus.FINISHED, finished_at=moment(10)), NOW + 10)
        assert set(ids(cursor.news([ended("1", 10), undated]))) == {"1", "2"}

    def test_cursor_reports_an_end_that_is_listed_late(self):
        cursor = Cursor.beginning([], NOW)
        cursor.mark_reported([ended("2", 5000)], NOW + 5000)
        assert ids(cursor.news([ended("1", 5000 - WATCH_OVERLAP + 1)])) == ["1"]

    def test_cursor_restored_after_a_restart_reports_only_new_ends(self):
        cursor = Cursor.beginning([], NOW)
        cursor.mark_reported([ended("1", 10)], NOW + 20)
        again = Cursor.read(json.loads(json.dumps(to_json(cursor))), NOW + 7000)
        assert ids(again.news([ended("1", 10), ended("2", 3000)])) == ["2"]

    def test_cursor_size_stays_bounded_over_many_ends(self):
        cursor = Cursor.beginning([], NOW)
        for number in range(1000):
            cursor.mark_reported([ended(str(number), number * 60.0)], NOW + number * 60.0)
        assert len(cursor.reported) <= WATCH_OVERLAP / 60 + 1

    def test_cursor_is_not_moved_ahead_by_an_end_in_the_future(self):
        cursor = Cursor.beginning([], NOW)
        cursor.mark_reported([ended("1", 90_000)], NOW)
        assert ids(cursor.news([ended("1", 90_000), ended("2", 10)])) == ["2"]

    def test_cursor_from_the_future_is_refused(self):
        with pytest.raises(ValueError, match="from the future"):
            Cursor.read({"floor": NOW + 1, "reported": {}}, NOW)

    @pytest.mark.parametrize(
        "value",
        [
            None,
            [],
            {},
            {"floor": "1", "reported": {}},
            {"floor": True, "reported": {}},
            {"floor": 1},
            {"floor": 1, "reported": {"1": None}},
        ],
        ids=["null", "list", "empty object", "text floor", "boolean floor", "no reports", "null time"],
    )
    def test_stored_cursor_with_invalid_content_is_refused(self, value):
        with pytest.raises(ValueError, match=r"floor|reported|Input should be an object"):
            Cursor.read(value, NOW)


def test_ended_tasks_are_filtered_by_workflow_and_end_status():
    tasks = [ended("1"), ended("2", status=TaskStatus.FAILED), ended("3", workflow="other")]
    assert ids(matching(tasks, None, END_STATUSES)) == ["1", "2", "3"]
    assert ids(matching(tasks, "w", END_STATUSES)) == ["1", "2"]
    assert ids(matching(tasks, "w", [TaskStatus.FAILED])) == ["2"]


def test_ended_tasks_are_filtered_by_bot_and_runs_of_templates_belong_to_none():
    of_a_bot = EndedTask(Task("1", TaskStatus.FINISHED, bot_id="b"), NOW)
    of_a_template = EndedTask(Task("2", TaskStatus.FINISHED), NOW)
    assert ids(matching([of_a_bot, of_a_template], None, END_STATUSES)) == ["1", "2"]
    assert ids(matching([of_a_bot, of_a_template], "b", END_STATUSES)) == ["1"]


def test_ended_task_event_is_plain_json_with_only_listed_facts():
    told = ended("1").facts()
    assert json.loads(json.dumps(told)) == told
    assert set(told) == {
        "task_id",
        "api_version",
        "workflow_id",
        "bot_id",
        "bot_name",
        "bot_type",
        "profile_id",
        "status",
        "created_at",
        "finished_at",
        "seconds",
        "credits",
        "failure",
    }
