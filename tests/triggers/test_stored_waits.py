"""What earlier versions have stored in Airflow's database can be read (docs/upgrading.md).

The values are those of the version before. A new field of this version is not in them, and must have a default.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_browseract import triggers
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.runs.ledger import Entry
from airflow_provider_browseract.runs.queueing import Queued, QueueWait
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.waiting import Wait
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
    "key_digest": "0123456789abcdef",
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
QUEUED = {"since": 1794980000.0, "began": 1794985000.0, "refusals": 2, "priority": 3}
TRIGGERS: dict[str, dict[str, Any]] = {
    "triggers.run.TaskTrigger": {"browseract_conn_id": "browseract_default", "wait": WAIT, "cancel_on_kill": False},
    "triggers.slot.SlotTrigger": {
        "browseract_conn_id": "browseract_default",
        "wait": {
            "queued": QUEUED,
            "until": 1795000000.0,
            "source": "workflow 71002814653029423",
            "active": 5,
            "pause": 30.0,
            "handed_over": True,
            "key_digest": "0123456789abcdef",
        },
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
EVENT = {
    "wait": WAIT,
    "end": "answered",
    "woken_by": "person",
    "reason": "the network was down",
    "answer": "resume",
    "answered_by": "ada",
}
CURSOR = {"floor": 1794980000.0, "reported": {"18230957120664813": 1794980001.0}}


def kept(before: Any, after: Any) -> bool:
    """Return whether a value has everything that was stored before, at any depth. It may have more fields."""
    if isinstance(before, dict):
        return isinstance(after, dict) and all(
            name in after and kept(each, after[name]) for name, each in before.items()
        )
    return bool(before == after)


def read_and_stored_again(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    module, _, trigger = f"airflow_provider_browseract.{name}".rpartition(".")
    path, again = getattr(importlib.import_module(module), trigger)(**arguments).serialize()
    return path, again


@pytest.mark.parametrize("name", TRIGGERS)
def test_stored_trigger_of_the_version_before_keeps_its_arguments(name):
    path, again = read_and_stored_again(name, TRIGGERS[name])
    assert path == f"airflow_provider_browseract.{name}"
    assert kept(TRIGGERS[name], again)


def test_stored_trigger_without_a_version_of_the_api_is_of_version_2():
    for name, arguments in TRIGGERS.items():
        _, again = read_and_stored_again(name, arguments)
        assert again.get("wait", again)["api_version"] == "v2"


def test_stored_triggers_cover_every_trigger_of_the_provider():
    folder = Path(triggers.__file__ or "").parent
    modules = {f"triggers.{path.stem}" for path in folder.glob("*.py") if "Trigger(Base" in path.read_text()}
    assert {name.rpartition(".")[0] for name in TRIGGERS} == modules


@pytest.mark.parametrize("name", ["triggers.run.TaskTrigger", "triggers.slot.SlotTrigger"])
def test_unknown_field_of_a_newer_version_is_ignored(name):
    arguments = TRIGGERS[name]
    newer = {**arguments, "wait": {**arguments["wait"], "new_in_0_2": 1}}
    assert read_and_stored_again(name, newer) == read_and_stored_again(name, arguments)


def test_stored_wait_without_a_version_of_the_api_is_one_of_version_2():
    assert from_json(Wait, WAIT).api_version is ApiVersion.V2
    assert from_json(QueueWait, TRIGGERS["triggers.slot.SlotTrigger"]["wait"]).api_version is ApiVersion.V2


@pytest.mark.parametrize("name", ["triggers.run.TaskTrigger", "triggers.slot.SlotTrigger"])
def test_stored_trigger_for_the_run_of_a_bot_keeps_its_version_of_the_api(name):
    bot = {**TRIGGERS[name], "wait": {**TRIGGERS[name]["wait"], "api_version": "v3"}}
    assert kept(bot, read_and_stored_again(name, bot)[1])
    unknown = {**bot, "wait": {**bot["wait"], "api_version": "v4"}}
    with pytest.raises(TypeError, match=r"cannot be read: api_version: .*'v2' or 'v3'"):
        read_and_stored_again(name, unknown)


def test_stored_event_of_the_version_before_can_be_read():
    assert kept(EVENT, to_json(from_json(WaitEvent, EVENT)))


def test_stored_place_in_the_queue_of_the_version_before_can_be_read():
    assert kept(QUEUED, to_json(from_json(Queued, QUEUED)))


def test_stored_state_of_a_run_of_the_version_before_keeps_everything_but_its_fingerprint():
    again = Entry.read(ENTRY).value()
    assert (again["version"], again["fingerprint"], again["key_digest"]) == (2, None, None)
    assert kept({**ENTRY, "version": 2, "fingerprint": None}, again)


def test_stored_state_of_a_watcher_of_the_version_before_can_be_read():
    cursor = Cursor.read(CURSOR, now=1795000000.0)
    assert (cursor.floor, cursor.reported) == tuple(CURSOR.values())
