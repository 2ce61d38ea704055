"""What earlier versions have stored in Airflow's database can be read (docs/upgrading.md).

The values are those of the version before. A new field of this version is not in them, and must have a default.
"""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from airflow_provider_browseract import triggers
from airflow_provider_browseract.runs.ledger import Entry
from airflow_provider_browseract.runs.queueing import Queued
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json, to_json
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


def stored_again(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a trigger stores that is made from its stored arguments."""
    path, again = resolve_name(f"airflow_provider_browseract.{name}")(**arguments).serialize()
    assert path == f"airflow_provider_browseract.{name}"
    return again


@pytest.mark.parametrize("name", TRIGGERS)
def test_stored_trigger_of_the_version_before_keeps_its_arguments_and_is_of_version_2_of_the_api(name):
    again = stored_again(name, TRIGGERS[name])
    assert kept(TRIGGERS[name], again)
    # A watcher reports the runs of the version of its id, or of both.
    assert again.get("wait", {"api_version": "v2"})["api_version"] == "v2"


def test_stored_triggers_cover_every_trigger_of_the_provider():
    folder = Path(triggers.__file__ or "").parent
    modules = {f"triggers.{path.stem}" for path in folder.glob("*.py") if "Trigger(Base" in path.read_text()}
    assert {name.rpartition(".")[0] for name in TRIGGERS} == modules


@pytest.mark.parametrize("name", ["triggers.run.TaskTrigger", "triggers.slot.SlotTrigger"])
class TestWaits:
    def test_unknown_field_of_a_newer_version_is_ignored(self, name):
        arguments = TRIGGERS[name]
        newer = {**arguments, "wait": {**arguments["wait"], "new_in_0_2": 1}}
        assert stored_again(name, newer) == stored_again(name, arguments)

    def test_stored_trigger_for_the_run_of_a_bot_keeps_its_version_of_the_api(self, name):
        bot = {**TRIGGERS[name], "wait": {**TRIGGERS[name]["wait"], "api_version": "v3"}}
        assert kept(bot, stored_again(name, bot))
        unknown = {**bot, "wait": {**bot["wait"], "api_version": "v4"}}
        with pytest.raises(TypeError, match=r"cannot be read: api_version: .*'v2' or 'v3'"):
            stored_again(name, unknown)


@pytest.mark.parametrize(("what", "stored"), [(WaitEvent, EVENT), (Queued, QUEUED)])
def test_stored_event_and_place_in_the_queue_of_the_version_before_can_be_read(what, stored):
    assert kept(stored, to_json(from_json(what, stored)))


def test_stored_state_of_a_run_of_the_version_before_keeps_everything_but_its_fingerprint():
    again = Entry.read(ENTRY).value()
    assert (again["version"], again["fingerprint"], again["key_digest"]) == (2, None, None)
    assert kept({**ENTRY, "version": 2, "fingerprint": None}, again)


def test_stored_state_of_a_watcher_of_the_version_before_can_be_read():
    cursor = Cursor.read(CURSOR, now=1795000000.0)
    assert (cursor.floor, cursor.reported) == tuple(CURSOR.values())
