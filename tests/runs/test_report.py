from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_browseract.api.models import DownloadFile, Output, Step, Task, TaskStatus
from airflow_provider_browseract.runs.report import (
    GOAL_LENGTH,
    TABLE_STEPS,
    duration_of,
    end_lines,
    facts,
    log_url,
    status_line,
    step_line,
)

BEGAN = datetime(2026, 11, 25, 8, tzinfo=timezone.utc)
FILE = DownloadFile("g", "a.pdf", 3, "uploaded", None, None, "https://signed")


def step(number: int | None, status: str | None = "succeed", goal: str | None = "read") -> Step:
    return Step(number, status, goal, None, None)


def task(status: TaskStatus = TaskStatus.FINISHED, **fields) -> Task:
    times = {"created_at": BEGAN, "finished_at": BEGAN + timedelta(seconds=23.4)}
    return Task("7", status, workflow_id="70", **{**times, **fields})


def test_the_end_is_told_with_what_it_took_and_each_step():
    lines = end_lines(task(credit=10, steps=(step(1, goal="Open the page"), step(2, "failed", "Read the rows"))))
    assert list(lines) == [
        "BrowserAct task 7 ended as finished after 23 s, 10 credits used, 2 steps:",
        "  succeed  step 1: Open the page",
        "  failed   step 2: Read the rows",
    ]


def test_what_is_not_known_of_the_end_is_left_out():
    assert list(end_lines(Task("7", TaskStatus.CANCELED))) == ["BrowserAct task 7 ended as canceled."]
    assert list(end_lines(Task("7", TaskStatus.FAILED, credit=5, steps=(step(None, None, None),)))) == [
        "BrowserAct task 7 ended as failed, 5 credits used, 1 step:",
        "  ?        step ?: no goal given",
    ]


def test_the_table_of_a_long_run_has_its_first_and_last_steps():
    lines = list(end_lines(task(steps=tuple(map(step, range(1, 201))))))
    assert len(lines) == TABLE_STEPS + 2
    assert lines[1 + TABLE_STEPS // 2] == f"  ... {200 - TABLE_STEPS} more"
    assert lines[-1] == "  succeed  step 200: read"


def test_a_goal_takes_one_line():
    line = step_line("7", step(3, goal="Open\nthe  page " + "x" * 500))
    assert line.startswith("BrowserAct task 7, step 3: Open the page xxx")
    assert "\n" not in line
    assert len(line) < GOAL_LENGTH + 60


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (TaskStatus.RUNNING, "BrowserAct task 7 is running. Live view: https://live"),
        (TaskStatus.PAUSED, "BrowserAct task 7 is paused. It waits for a person: https://live"),
        (TaskStatus.FINISHED, "BrowserAct task 7 is finished."),
    ],
)
def test_the_status_is_told_with_the_live_view_while_there_is_one(status, line):
    assert status_line(task(status, live_url="https://live")) == line


def test_the_facts_are_plain_json_and_hold_nothing_of_what_went_in_or_came_out():
    full = task(
        credit=5,
        steps=(step(1),),
        live_url="https://live",
        log_detail_url="https://log",
        profile_id="9",
        input_parameters="password=hunter2",
        output=Output("secret rows", ("https://signed/a", "https://signed/b")),
        download_files=(FILE,),
    )
    assert json.loads(json.dumps(facts(full))) == {
        "task_id": "7",
        "workflow_id": "70",
        "profile_id": "9",
        "status": "finished",
        "created_at": "2026-11-25T08:00:00+00:00",
        "finished_at": "2026-11-25T08:00:23.400000+00:00",
        "seconds": 23.4,
        "credits": 5,
        "links": {"task": "https://log", "live": None},
        "counts": {"steps": 1, "output_files": 2, "download_files": 1},
    }


def test_the_facts_of_a_run_that_goes_on_have_its_live_view_and_no_end():
    # BrowserAct may give a time of the end before there is one.
    found = facts(task(TaskStatus.RUNNING, live_url="https://live"))
    assert (found["links"]["live"], found["finished_at"], found["seconds"]) == ("https://live", None, None)
    assert duration_of(task(TaskStatus.RUNNING)) is None


def test_the_log_is_where_the_live_view_is_until_there_is_one():
    assert log_url(task(live_url="https://live")) == "https://live"
    assert log_url(task(live_url="https://live", log_detail_url="https://log")) == "https://log"
