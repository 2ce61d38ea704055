import json
from typing import Any

import pytest

from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.wait import Wait, WaitEvent, WokenBy
from airflow_provider_browseract.runs.watching import Cursor
from airflow_provider_browseract.worker.ledger import Entry, not_certain
from tests.helpers.cases import cases
from tests.helpers.steps import replace
from tests.worker.starts import ENTRY

WAIT = Wait("7", 9.5, callback_token_sha256="0" * 64)
FULL_WAIT = replace(
    WAIT,
    **dict.fromkeys(("ignore_pause_until", "answer_by", "began_at", "failing_since", "poll_interval"), 9.5),
    watch_pauses=True,
    default_answer=Answer.RESUME,
    max_credits=100,
    spent_before=40,
    over_cap=True,
    last_seen=TaskStatus.PAUSED,
    steps_logged=3,
    failed_polls=2,
    required_action="q",
    callbacks_in_vain=1,
)
EVENT = WaitEvent(WAIT, WokenBy.CALLBACK)
CURSOR = Cursor(9.5, {"1": 9.0})


def read(kind, stored):
    return Cursor.read(stored, 10.0) if kind is Cursor else from_json(kind, stored)


@cases(
    ("entry", ENTRY),
    ("entry with the first possible times", replace(ENTRY, written_at=0.0)),
    ("wait", WAIT),
    ("wait with all fields", FULL_WAIT),
    ("event", EVENT),
    ("event of an answer", WaitEvent(WAIT, WokenBy.PERSON, answer=Answer.RESUME, answered_by="ada")),
    ("cursor", CURSOR),
)
def test_stored_value_survives_a_json_round_trip_and_fields_of_a_newer_version_are_ignored(value):
    stored = json.loads(json.dumps(to_json(value)))
    assert read(type(value), stored) == value
    assert read(type(value), {**stored, "colour": "blue"}) == value


WRONG: list[Any] = [[[]], {"a": 1}, True, ""]
SOURCES = [*WRONG, {"kind": "robot", "id": "70"}, {"kind": "workflow", "id": ""}, {"id": "70"}]
WRONG_IN_ENTRY = {
    **dict.fromkeys(to_json(ENTRY), WRONG),
    "source": SOURCES,
    "written_at": [*WRONG, -1.0, float("nan"), float("inf"), 1e11, 1e12],
}
WRONG_IN_WAIT: dict[str, list[Any]] = {
    "browseract_task_id": [7, ""],
    "deadline": [None, True, "9.5", float("nan")],
    "callback_token_sha256": [7],
    "failed_polls": [-1, True],
    "steps_logged": ["3"],
    "last_seen": [7, "teleported"],
    "poll_interval": [0, float("inf")],
    "default_answer": ["shrug"],
}
REFUSED: list[tuple[Any, dict[str, list[Any]]]] = [
    (ENTRY, WRONG_IN_ENTRY),
    (WAIT, WRONG_IN_WAIT),
    (EVENT, {"wait": [None, {}], "woken_by": [None, "magic"], "answer": [7], "answered_by": [7]}),
    (CURSOR, {"floor": ["1", True], "reported": [None, {"1": None}]}),
]


@pytest.mark.parametrize(
    ("value", "name", "wrong"),
    [
        pytest.param(value, name, wrong, id=f"{type(value).__name__}-{name}-{wrong}")
        for value, fields in REFUSED
        for name, values in fields.items()
        for wrong in values
    ],
)
def test_stored_value_with_an_invalid_field_is_refused_by_field_name(value, name, wrong):
    with pytest.raises(ValueError, match=rf"(^|\W){name}\b"):
        read(type(value), {**to_json(value), name: wrong})


@pytest.mark.parametrize("kind", [Entry, Wait, WaitEvent, Cursor])
@pytest.mark.parametrize("value", [None, [], "wait", {}, {"deadline": 9.5}, {1}], ids=str)
def test_anything_else_is_refused(kind, value):
    with pytest.raises(ValueError, match=r"Input should|Field required|is not JSON|it is of type|future|must"):
        read(kind, value)


@pytest.mark.parametrize("odd", ["7" * 65, "7\n[2026-11-27] INFO", "https://evil.example", "\x1b[2J", 7, None, ["7"]])
def test_entry_that_cannot_be_read_names_its_run_only_by_an_id(odd):
    assert "\nBrowserAct task 18230957120664813." in str(not_certain("x", "wait", "18230957120664813"))
    assert str(not_certain("x", "wait", odd)).endswith("Then wait.")
