import json
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion, Page, Task, TaskStatus
from airflow_provider_browseract.api.pages import Listing, list_items
from airflow_provider_browseract.runs import watching
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.watching import REPORT_WINDOW, WATCH_OVERLAP, Cursor, Window
from tests.helpers.cases import cases
from tests.helpers.steps import carry_out, read

NOW = 1_000_000_000.0
FINISHED, RUNNING, FAILED, CANCELED = TaskStatus.FINISHED, TaskStatus.RUNNING, TaskStatus.FAILED, TaskStatus.CANCELED
UNKNOWN = TaskStatus.UNKNOWN


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, timezone.utc)


def task(task_id: str, status: TaskStatus = FINISHED, *, created=-60.0, finished=0.0, workflow="w", **fields) -> Task:
    ended = None if finished is None or not status.ended else moment(finished)
    return Task(
        id=task_id, status=status, workflow_id=workflow, created_at=moment(created), finished_at=ended, **fields
    )


def window_of(*tasks: Task, api_version: ApiVersion = ApiVersion.V2) -> Window:
    window = Window(NOW, api_version)
    window.add(tasks, NOW)
    return window


def beginning() -> Cursor:
    return Cursor(NOW - WATCH_OVERLAP, {})


def ids(ended) -> list[str]:
    return [each.task.id for each in ended]


class TestAWindow:
    @cases(
        ("new", Window(NOW), -(REPORT_WINDOW + watching.LONGEST_RUN)),
        ("after the first listing", window_of(task("1")), -WATCH_OVERLAP),
        (
            "oldest task that has not ended",
            window_of(task("1", RUNNING, created=-7000), task("2", TaskStatus.PAUSED, created=-3000)),
            -7000,
        ),
        ("task that never ends", window_of(task("1", UNKNOWN, created=-2 * REPORT_WINDOW)), -REPORT_WINDOW),
    )
    def test_window_lists_from_the_oldest_task_that_may_still_end(self, window, begins):
        begin = str(window.call().params["created_at_from"]).replace("Z", "+00:00")
        assert datetime.fromisoformat(begin).timestamp() - NOW == begins

    def test_window_keeps_ended_tasks_that_are_active_or_missing_in_later_lists_and_forgets_old_ones(self):
        window = window_of(task("1"))
        window.add([task("1", RUNNING)], NOW + 10)
        assert [each.status for each in window.tasks] == [FINISHED]
        assert ids(window.add([task("2")], NOW + 60)) == ["1", "2"]
        assert window.add([], NOW + REPORT_WINDOW + WATCH_OVERLAP + 1) == ()

    @pytest.mark.parametrize("status", [status for status in TaskStatus if not status.ended])
    def test_window_does_not_take_an_end_time_alone_as_an_end(self, status):
        running = Task(id="1", status=status, created_at=moment(-60), finished_at=moment(0))
        assert Window(NOW).add([running], NOW) == ()

    def test_window_dates_an_end_without_time_at_the_moment_it_was_seen_or_else_at_its_creation_time(self):
        canceled = task("1", CANCELED, created=-5000, finished=None)
        [ended] = window_of(task("1", RUNNING, created=-5000)).add([canceled], NOW + 60)
        assert ended.moment == NOW + 60
        [ended] = Window(NOW).add([canceled], NOW)
        assert ended.moment == NOW - 5000

    def test_window_knows_active_and_ended_tasks_newest_first_and_without_inputs(self):
        running = task("2", RUNNING, created=-30, input_parameters="password=hunter2")
        of_bot = task("3", created=-90, input={"password": "hunter2"})
        found = window_of(task("1"), running, of_bot).tasks
        assert [each.id for each in found] == ["2", "1", "3"]
        assert {(each.input_parameters, each.input) for each in found} == {(None, None)}

    def test_window_lists_tasks_beside_one_whose_status_is_not_documented(self):
        window = Window(NOW)
        good = {"id": "1", "status": "finished", "created_at": moment(-60).isoformat(), "output": "?"}
        odd = {**good, "id": "2", "status": "teleported"}
        page = {"items": [good, odd, {**good, "id": "4"}], "page": 1, "total_pages": 1}
        listed = read(window.call(), page).items
        assert sorted(ids(window.add(listed, NOW))) == ["1", "4"]
        # What could not be understood is listed again until it can be.
        assert "2" in ids(window.add([task("2")], NOW + 60))

    def test_window_takes_credits_that_are_listed_after_the_end_and_keeps_its_moment(self):
        window = window_of(task("1", RUNNING))
        window.add([task("1", finished=None)], NOW + 10)
        [ended] = window.add([task("1", finished=None, credit=45)], NOW + 20)
        assert (ended.task.credit, ended.moment) == (45, NOW + 10)


class Account:
    """Responds to the calls of a window in version 3 of the API, from tasks in any order."""

    def __init__(self, order: Callable[[list[Task]], list[Task]], tasks: Iterable[Task] = ()) -> None:
        self.order, self.tasks = order, list(tasks)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, call):
        assert call.name == "page-runs"
        self.calls.append(dict(call.params))
        begin = datetime.fromisoformat(call.params["created_at_from"].replace("Z", "+00:00"))
        listed = self.order([each for each in self.tasks if each.created_at and each.created_at >= begin])
        limit, page = call.params["limit"], call.params["page"]
        shown = tuple(listed[limit * (page - 1) : limit * page])
        return Page(items=shown, total_count=len(listed), total_pages=-(-len(listed) // limit))


def task_of_a_bot(number: int, created: float, status: TaskStatus = FINISHED, *, finished=0.0) -> Task:
    return task(f"run-{number}", status, created=created, finished=finished, api_version=ApiVersion.V3)


ORDERS: dict[str, Callable[[list[Task]], list[Task]]] = {
    "oldest first": lambda tasks: tasks,
    "newest first": lambda tasks: tasks[::-1],
}


@cases("order", ORDERS)
def test_changes_of_a_list_that_is_too_long_have_the_newest_tasks(order):
    account = Account(order, (task_of_a_bot(each, each - 1000.0) for each in range(95)))
    listing = carry_out(list_items(Window(NOW, ApiVersion.V3).call(10), max_requests=4), account)
    assert listing.truncated
    assert len(account.calls) == 4
    assert {f"run-{number}" for number in range(95 - 25, 95)} <= {each.id for each in listing.items}


def test_active_task_beyond_an_incomplete_list_stays_active_for_a_day_and_otherwise_does_not_exist_any_more():
    old, running = task("1", RUNNING, created=-REPORT_WINDOW - 1), task("2", RUNNING)
    assert [each.id for each in window_of(old, running).tasks] == ["2", "1"]
    for skipped, truncated, kept in ((1, False, ["2"]), (0, True, ["2"]), (0, False, [])):
        window = window_of(old, running)
        window.add([], NOW, incomplete=Listing[Task]([], skipped, truncated).incomplete)
        assert [each.id for each in window.tasks] == kept
    assert ids(window_of(running).add([task("2")], NOW, incomplete=True)) == ["2"]


@cases("order", {**ORDERS, "by chance": lambda tasks: random.Random(len(tasks)).sample(tasks, len(tasks))})
def test_each_end_of_many_runs_is_reported_once(order):
    chance = random.Random(31)
    begun = sorted(chance.uniform(1.0, 2000.0) for _ in range(300))
    ends = [each + chance.expovariate(1 / 300.0) for each in begun]
    account, window, cursor = Account(order), Window(NOW, ApiVersion.V3), beginning()
    reported: list[str] = []
    for now in range(0, int(max(ends)) + 120, 60):
        account.tasks = [
            task_of_a_bot(number, begin, FINISHED if end <= now else RUNNING, finished=end)
            for number, (begin, end) in enumerate(zip(begun, ends, strict=True))
            if begin <= now
        ]
        news = cursor.news(window.add(carry_out(list_items(window.call()), account).items, NOW + now))
        reported += ids(news)
        cursor.mark_reported(news, NOW + now)
    assert any(call["page"] == 2 for call in account.calls)
    assert sorted(reported) == sorted(each.id for each in account.tasks)


def ended(task_id: str, at: float = 0.0, **what) -> watching.EndedTask:
    return watching.EndedTask(task(task_id, finished=at, **what), NOW + at)


class TestACursor:
    def test_cursor_reports_each_end_once_and_the_earliest_first_also_after_a_restart(self):
        cursor = beginning()
        news = cursor.news([ended("2", 20), ended("1", 10)])
        assert ids(news) == ["1", "2"]
        cursor.mark_reported(news, NOW + 30)
        again = Cursor.read(json.loads(json.dumps(to_json(cursor))), NOW + 7000)
        for each in (cursor, again):
            assert ids(each.news([ended("1", 10), ended("2", 20), ended("3", 3000)])) == ["3"]

    @pytest.mark.parametrize(
        ("reported", "at", "late"), [(5000, 5000, 5001 - WATCH_OVERLAP), (90_000, 0, 10)], ids=["listed late", "future"]
    )
    def test_cursor_reports_an_end_before_one_that_was_reported(self, reported, at, late):
        cursor = beginning()
        cursor.mark_reported([ended("1", reported)], NOW + at)
        assert ids(cursor.news([ended("1", reported), ended("2", late)])) == ["2"]

    def test_cursor_reports_ended_tasks_without_a_creation_time(self):
        undated = watching.EndedTask(Task(id="2", status=FINISHED, finished_at=moment(10)), NOW + 10)
        assert set(ids(beginning().news([ended("1", 10), undated]))) == {"1", "2"}

    def test_cursor_size_stays_bounded_over_many_ends(self):
        cursor = beginning()
        for number in range(1000):
            cursor.mark_reported([ended(str(number), number * 60.0)], NOW + number * 60.0)
        assert len(cursor.reported) <= WATCH_OVERLAP / 60 + 1


def test_ended_task_event_is_plain_json_with_only_listed_facts():
    told = ended("1").facts()
    assert json.loads(json.dumps(told)) == told
    assert set(told) == {
        *("task_id", "api_version", "workflow_id", "bot_id", "bot_name", "bot_type", "profile_id", "status"),
        *("created_at", "finished_at", "seconds", "credits", "failure"),
    }
