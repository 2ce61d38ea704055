"""What is stored in Airflow is read back as it was, or refused by the name of its field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.runs.ledger import Entry, LedgerError
from airflow_provider_browseract.runs.options import Answer, OnPaused
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.waiting import End, Wait, WaitPolicy, WokenBy
from airflow_provider_browseract.runs.watching import Cursor
from tests.cases import cases
from tests.runs.starts import ENTRY
from tests.steps import replace

WAIT = Wait("7", 9.5, "0" * 64)
FULL_WAIT = replace(
    WAIT,
    **dict.fromkeys(("start_by", "pauses_from", "answer_by", "began_at", "first_poll_at"), 9.5),
    policy=WaitPolicy(5.0, OnPaused.ASK, True, 60.0, max_credits=100, credits_per_step=0),
    last_seen=TaskStatus.PAUSED,
    steps_logged=3,
    pauses=2,
    pause_known=True,
    required_action="q",
    callbacks_in_vain=1,
    callback_missed=True,
    interval=5.0,
    spent_before=40,
    cap_warned=True,
)
EVENT = WaitEvent(WAIT, End.ENDED, WokenBy.CALLBACK)
CURSOR = Cursor(9.5, {"1": 9.0})


def read(kind, stored):
    if kind is Entry:
        return Entry.read(stored)
    return Cursor.read(stored, 10.0) if kind is Cursor else from_json(kind, stored)


def written(value):
    return value.value() if isinstance(value, Entry) else to_json(value)


@cases(
    "value",
    {
        "entry": ENTRY,
        "entry with the first possible times": replace(ENTRY, written_at=0.0, deadline=0.0),
        "wait": WAIT,
        "wait with all fields": FULL_WAIT,
        "event": EVENT,
        "event of a failure": replace(EVENT, end=End.GIVEN_UP, reason="HTTP 503"),
        "event of an answer": WaitEvent(WAIT, End.ANSWERED, WokenBy.PERSON, answer=Answer.RESUME, answered_by="ada"),
        "cursor": CURSOR,
    },
)
def test_stored_value_survives_a_json_round_trip_and_fields_of_a_newer_version_are_ignored(value):
    stored = json.loads(json.dumps(written(value)))
    assert read(type(value), stored) == value
    assert read(type(value), {**stored, "colour": "blue"}) == value
    if "policy" in stored:
        assert read(type(value), {**stored, "policy": {**stored["policy"], "mood": "calm"}}) == value


def test_event_has_only_the_fields_that_other_versions_of_the_provider_know():
    assert set(to_json(EVENT)) == {"wait", "end", "woken_by", "reason", "answer", "answered_by"}


WRONG: list[Any] = [[[]], {"a": 1}, True, ""]
MOMENTS = [*WRONG, -1.0, float("nan"), float("inf"), 1e11, 1e12]
SOURCES = [*WRONG, {"kind": "robot", "id": "70"}, {"kind": "workflow", "id": ""}, {"id": "70"}]
WRONG_IN_ENTRY = {
    **dict.fromkeys(ENTRY.value(), WRONG),
    **{"deferred": [wrong for wrong in WRONG if wrong is not True], "source": SOURCES},
    **dict.fromkeys(("written_at", "deadline"), MOMENTS),
}
WRONG_IN_WAIT: dict[str, list[Any]] = {
    "browseract_task_id": [7, ""],
    "deadline": [None, True, "9.5", float("nan")],
    "callback_token_sha256": [7],
    "pauses": [-1, True],
    "steps_logged": ["3"],
    "last_seen": [7, "teleported"],
    "interval": [0, float("inf")],
    "policy": [None, {"on_paused": "shrug"}],
}
REFUSED: list[tuple[Any, dict[str, list[Any]]]] = [
    (ENTRY, WRONG_IN_ENTRY),
    (WAIT, WRONG_IN_WAIT),
    (EVENT, {"wait": [None, {}], "end": [None, "triumph"], "woken_by": [None, "magic"], "reason": [7], "answer": [7]}),
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
    with pytest.raises((ValueError, LedgerError), match=rf"(^|\W){name}\b|^its {name} "):
        read(type(value), {**written(value), name: wrong})


@pytest.mark.parametrize(
    "change", [{"answer": "resume"}, {"end": "answered"}, {"end": "answered", "answer": "perhaps"}], ids=str
)
def test_event_whose_answer_contradicts_its_end_is_refused(change):
    with pytest.raises(ValueError, match="answer"):
        from_json(WaitEvent, {**to_json(EVENT), **change})


@pytest.mark.parametrize("kind", [Entry, Wait, WaitEvent, Cursor])
@pytest.mark.parametrize("value", [None, [], "wait", {}, {"deadline": 9.5}, {1}], ids=str)
def test_anything_else_is_refused(kind, value):
    with pytest.raises((ValueError, LedgerError)):
        read(kind, value)


def test_cursor_from_the_future_is_refused():
    with pytest.raises(ValueError, match="from the future"):
        Cursor.read({"floor": 10.1, "reported": {}}, 10.0)


def without(*names):
    return {name: value for name, value in ENTRY.value().items() if name not in names}


@cases(
    ("stored", "entry"),
    {
        "without earlier credits": (without("deferred", "spent"), replace(ENTRY, deferred=True, spent=0)),
        "without tries": ({**ENTRY.value(), "max_tries": None}, replace(ENTRY, max_tries=None)),
        # Its fingerprint would reveal inputs.
        "version 1": ({**without("key_digest"), "version": 1}, replace(ENTRY, fingerprint=None, key_digest=None)),
    },
)
def test_ledger_entry_of_an_older_version_is_read_without_what_it_lacks(stored, entry):
    assert Entry.read(stored) == entry


NAMED = r"\. It names BrowserAct task 18230957120664813: check in the BrowserAct dashboard whether"


@cases(
    ("stored", "message"),
    {
        "newer": ({**ENTRY.value(), "version": 3}, r"its version is 3, but this provider supports only .* up to 2"),
        "unreadable": ({"version": 1, "workflow": "70"}, r"it cannot be read \(.*source: Field required"),
    },
)
def test_ledger_entry_that_cannot_be_read_is_refused_with_its_run_and_what_to_do(stored, message):
    with pytest.raises(LedgerError, match=f"^{message}.*{NAMED}"):
        Entry.read({**stored, "task_id": "18230957120664813"})
    for odd in ("7" * 65, "7\n[2026-11-27] INFO", "https://evil.example", "\x1b[2J", 7, None, ["7"]):
        with pytest.raises(LedgerError) as raised:
            Entry.read({**stored, "task_id": odd})
        assert "It names" not in str(raised.value)


@pytest.mark.parametrize("version", ["x" * 5000, "\x1b[2J", [1], None], ids=lambda version: str(version)[:5])
def test_odd_version_of_a_ledger_entry_is_not_repeated(version):
    with pytest.raises(LedgerError, match=f"^its version is {type(version).__name__}, but"):
        Entry.read({**ENTRY.value(), "version": version})
