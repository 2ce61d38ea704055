"""What version 0.1 stores in Airflow's database can be read by every later version (docs/upgrading.md).

Until 0.1 is released, change these values when the stored form changes. After that, only add to them.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from airflow_provider_browseract.get_provider_info import get_provider_info
from airflow_provider_browseract.runs.ledger import Entry
from airflow_provider_browseract.runs.watching import Cursor

DIGEST = "ab" * 32
WAIT = {
    "browseract_task_id": "18230957120664813",
    "deadline": 1795000000.0,
    "callback_token_sha256": DIGEST,
    "start_by": 1794990000.0,
    "policy": {
        "poll_interval": 30.0,
        "on_paused": "ask",
        "notifies_of_pauses": True,
        "answer_timeout": 3600.0,
        "answer_default": "resume",
    },
    "last_seen": "paused",
    "steps_logged": 2,
    "pauses": 1,
    "pause_known": True,
    "pauses_from": 0.0,
    "required_action": "019ab3d5-0000-7000-8000-000000000001",
    "answer_by": 1794995000.0,
    "callbacks_in_vain": 1,
    "callback_missed": False,
    "began_at": 1794980000.0,
    "first_poll_at": 1794980010.0,
    "interval": 120.0,
}
TRIGGERS: dict[str, dict[str, Any]] = {
    "triggers.run.TaskTrigger": {"browseract_conn_id": "browseract_default", "wait": WAIT, "cancel_on_kill": False},
    "triggers.slot.SlotTrigger": {
        "browseract_conn_id": "browseract_default",
        "wait": {
            "queued": {"since": 1794980000.0, "began": 1794985000.0, "refusals": 2, "priority": 3},
            "until": 1795000000.0,
            "source": "workflow 71002814653029423",
            "active": 5,
            "pause": 30.0,
            "handed_over": True,
        },
    },
    "triggers.sensor.TaskSensorTrigger": {
        "browseract_task_id": "18230957120664813",
        "browseract_conn_id": "browseract_default",
        "poll_interval": 60.0,
        "output_format": "csv",
    },
    "triggers.watcher.TaskFinishedTrigger": {
        "workflow_id": "71002814653029423",
        "status": ["finished"],
        "poll_interval": 60.0,
        "browseract_conn_id": "browseract_default",
    },
}
ENTRY = {
    "version": 1,
    "source": {"kind": "workflow", "id": "71002814653029423"},
    "fingerprint": DIGEST,
    "written_at": 1794980000.0,
    "deadline": 1795000000.0,
    "callback_token_sha256": DIGEST,
    "task_id": "18230957120664813",
    "profile_id": "77505120820915997",
    "earlier": ["18230957120664812"],
    "max_tries": 2,
}
CURSOR = {"floor": 1794980000.0, "reported": {"18230957120664813": 1794980001.0}}


@pytest.mark.parametrize("name", TRIGGERS)
def test_stored_trigger_of_version_0_1_keeps_its_arguments(name):
    path, arguments = f"airflow_provider_browseract.{name}", TRIGGERS[name]
    module, _, trigger = path.rpartition(".")
    assert getattr(importlib.import_module(module), trigger)(**arguments).serialize() == (path, arguments)


def test_stored_triggers_cover_every_trigger_of_the_provider():
    modules = {module for group in get_provider_info()["triggers"] for module in group["python-modules"]}
    assert {f"airflow_provider_browseract.{name.rpartition('.')[0]}" for name in TRIGGERS} == modules


@pytest.mark.parametrize("name", ["triggers.run.TaskTrigger", "triggers.slot.SlotTrigger"])
def test_unknown_field_of_a_newer_version_is_ignored(name):
    path, arguments = f"airflow_provider_browseract.{name}", TRIGGERS[name]
    module, _, trigger = path.rpartition(".")
    newer = {**arguments, "wait": {**arguments["wait"], "new_in_0_2": 1}}
    assert getattr(importlib.import_module(module), trigger)(**newer).serialize() == (path, arguments)


def test_stored_state_of_a_run_of_version_0_1_can_be_read():
    assert Entry.read(ENTRY).value() == ENTRY


def test_stored_state_of_a_watcher_of_version_0_1_can_be_read():
    cursor = Cursor.read(CURSOR, now=1795000000.0)
    assert (cursor.floor, cursor.reported) == tuple(CURSOR.values())
