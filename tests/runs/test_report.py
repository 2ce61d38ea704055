from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

from airflow_provider_browseract.api import models
from airflow_provider_browseract.api.models import ApiVersion, DownloadFile, Output, OutputFile, Step, Task, TaskStatus
from airflow_provider_browseract.runs.report import GOAL_LENGTH, end_line, facts, log_url, step_lines
from tests.cases import cases

BEGAN = datetime(2026, 11, 25, 8, tzinfo=timezone.utc)
LIVE = "https://live"
STEP = Step(number=1, status="succeed", goal="read")


def task(status: TaskStatus = TaskStatus.FINISHED, **fields) -> Task:
    times = {"created_at": BEGAN, "finished_at": BEGAN + timedelta(seconds=23.4)}
    return Task(id="7", status=status, workflow_id="70", **{**times, **fields})


@cases(
    ("run", "line"),
    {
        "all": (task(credit=10, steps=(STEP, STEP)), "Finished after 23 s, 10 credits, 2 steps."),
        "nothing": (Task(id="7", status=TaskStatus.CANCELED), "Canceled."),
        "one step": (Task(id="7", status=TaskStatus.FAILED, steps=(STEP,)), "Failed, 1 step."),
    },
)
def test_end_of_a_run_is_reported_with_what_is_known_of_duration_credits_and_steps(run, line):
    assert end_line(run) == line


def test_step_goal_is_shortened_to_one_line():
    [line] = step_lines(task(steps=(Step(number=3, status="running", goal="Open\nthe  page " + "x" * 500),)), 0)
    assert line.startswith("Step 3: Open the page xxx")
    assert "\n" not in line
    assert len(line) < GOAL_LENGTH + 60


def test_run_facts_are_plain_json_without_inputs_and_outputs():
    full = task(
        credit=5,
        steps=(STEP,),
        live_url=LIVE,
        log_detail_url="https://log",
        profile_id="9",
        input_parameters="password=hunter2",
        output=Output(string="secret rows", files=("https://signed/a", "https://signed/b")),
        download_files=(
            DownloadFile(guid="g", file_name="a.pdf", file_size=3, status="uploaded", download_url="https://signed"),
        ),
    )
    assert log_url(full) == "https://log"
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
    formats = (OutputFile(format="csv", name="a.csv", size=3, url="https://signed"),)
    of_bot = Task(
        id="7",
        status=TaskStatus.FINISHED,
        api_version=ApiVersion.V3,
        bot_id="82",
        bot_name="Contacts",
        bot_type=models.BotType.AGENT,
        input={"password": "hunter2"},
        live_url=LIVE,
        output=Output(string="[1]", formats=formats, is_json=True),
    )
    found = json.loads(json.dumps(facts(of_bot)))
    named = ("api_version", "workflow_id", "bot_id", "bot_name", "bot_type", "profile_id")
    assert [found[name] for name in named] == ["v3", None, "82", "Contacts", "agent", None]
    assert found["counts"]["output_files"] == 1
    assert found["links"]["live"] is None
    assert not any(secret in json.dumps(found) for secret in ("hunter2", "signed"))


def test_run_facts_have_the_live_view_and_no_end_while_the_run_keeps_running():
    # BrowserAct may return a time of the end before the end.
    running = task(TaskStatus.RUNNING, live_url=LIVE)
    found = facts(running)
    assert (found["links"]["live"], found["finished_at"], found["seconds"]) == (LIVE, None, None)
    assert log_url(running) == LIVE
