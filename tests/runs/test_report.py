from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_browseract.api.models import (
    ApiVersion,
    BotType,
    DownloadFile,
    Output,
    OutputFile,
    Step,
    Task,
    TaskStatus,
)
from airflow_provider_browseract.runs.report import (
    GOAL_LENGTH,
    describe,
    duration_of,
    end_line,
    facts,
    log_url,
    status_line,
    step_lines,
)

BEGAN = datetime(2026, 11, 25, 8, tzinfo=timezone.utc)
FILE = DownloadFile("g", "a.pdf", 3, "uploaded", None, None, "https://signed")


def step(number: int | None, status: str | None = "succeed", goal: str | None = "read") -> Step:
    return Step(number, status, goal, None, None)


def task(status: TaskStatus = TaskStatus.FINISHED, **fields) -> Task:
    times = {"created_at": BEGAN, "finished_at": BEGAN + timedelta(seconds=23.4)}
    return Task("7", status, workflow_id="70", **{**times, **fields})


def test_end_of_a_run_is_reported_with_duration_credits_and_number_of_steps():
    assert end_line(task(credit=10, steps=(step(1), step(2)))) == (
        "BrowserAct task 7 ended as finished after 23 s, 10 credits used, 2 steps."
    )


def test_end_of_a_run_is_reported_without_unknown_values():
    assert end_line(Task("7", TaskStatus.CANCELED)) == "BrowserAct task 7 ended as canceled."
    assert end_line(Task("7", TaskStatus.FAILED, steps=(step(None),))) == "BrowserAct task 7 ended as failed, 1 step."


def test_step_goal_is_shortened_to_one_line():
    read = Step.read({"step": 3, "status": "running", "step_goal": "Open\nthe  page " + "x" * 500})
    [line] = step_lines(task(steps=(read,)), 0)
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
def test_status_line_has_the_live_view_until_the_run_ends(status, line):
    assert status_line(task(status, live_url="https://live")) == line


def test_run_facts_are_plain_json_without_inputs_and_outputs():
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
        "api_version": "v2",
        "workflow_id": "70",
        "bot_id": None,
        "bot_name": None,
        "bot_type": None,
        "profile_id": "9",
        "status": "finished",
        "created_at": "2026-11-25T08:00:00+00:00",
        "finished_at": "2026-11-25T08:00:23.400000+00:00",
        "seconds": 23.4,
        "credits": 5,
        "links": {"task": "https://log", "live": None},
        "counts": {"steps": 1, "output_files": 2, "download_files": 1},
    }


def test_facts_of_a_bot_run_name_the_bot_and_count_its_formats_and_have_no_input():
    of_bot = Task(
        "7",
        TaskStatus.FINISHED,
        api_version=ApiVersion.V3,
        bot_id="82",
        bot_name="Contacts",
        bot_type=BotType.AGENT,
        input={"password": "hunter2"},
        live_url="https://live",
        output=Output(
            "[1]", formats=(OutputFile("csv", "a.csv", 3, "https://signed"),), files_left_out=2, is_json=True
        ),
    )
    found = json.loads(json.dumps(facts(of_bot)))
    named = ("api_version", "workflow_id", "bot_id", "bot_name", "bot_type", "profile_id")
    assert [found[name] for name in named] == ["v3", None, "82", "Contacts", "agent", None]
    assert found["counts"]["output_files"] == 3
    assert found["links"]["live"] is None
    assert not any(secret in json.dumps(found) for secret in ("hunter2", "signed"))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"workflow_id": "70"}, "BrowserAct task 7 of workflow 70"),
        ({"bot_id": "82", "api_version": ApiVersion.V3}, "BrowserAct task 7 of bot 82"),
        ({"api_version": ApiVersion.V3}, "BrowserAct task 7"),
    ],
    ids=["workflow", "bot", "bot template"],
)
def test_messages_name_the_run_with_its_workflow_or_bot(fields, name):
    assert describe(Task("7", TaskStatus.RUNNING, **fields)) == name


def test_run_facts_have_the_live_view_and_no_end_while_the_run_keeps_running():
    # BrowserAct may return a time of the end before the end.
    found = facts(task(TaskStatus.RUNNING, live_url="https://live"))
    assert (found["links"]["live"], found["finished_at"], found["seconds"]) == ("https://live", None, None)
    assert duration_of(task(TaskStatus.RUNNING)) is None


def test_log_url_is_the_live_view_until_a_log_exists():
    assert log_url(task(live_url="https://live")) == "https://live"
    assert log_url(task(live_url="https://live", log_detail_url="https://log")) == "https://log"
