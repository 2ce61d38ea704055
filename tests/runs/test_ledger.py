from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_provider_browseract.runs.ledger import Entry, LedgerError
from tests.runs.starts import ENTRY


def test_ledger_entry_survives_a_json_round_trip():
    assert Entry.read(json.loads(json.dumps(ENTRY.value()))) == ENTRY


WRONG = {"list": [[]], "dict": {"a": 1}, "boolean": True, "empty string": ""}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param(name, wrong, id=f"{what}-{name}")
        for name in sorted(ENTRY.value())
        for what, wrong in WRONG.items()
        if (what, name) != ("boolean", "deferred")
    ],
)
def test_ledger_entry_with_an_invalid_field_is_refused_by_field_name(name, wrong):
    with pytest.raises(LedgerError, match=name):
        Entry.read({**ENTRY.value(), name: wrong})


@pytest.mark.parametrize("name", ["written_at", "deadline"])
def test_ledger_entry_with_the_first_possible_timestamp_is_read(name):
    assert getattr(Entry.read({**ENTRY.value(), name: 0.0}), name) == 0.0


@pytest.mark.parametrize("name", ["written_at", "deadline"])
@pytest.mark.parametrize("moment", [-1.0, float("nan"), float("inf"), 1e11, 1e12], ids=str)
def test_ledger_entry_with_an_impossible_timestamp_is_refused(name, moment):
    with pytest.raises(LedgerError, match=name):
        Entry.read({**ENTRY.value(), name: moment})


@pytest.mark.parametrize("source", [{"kind": "robot", "id": "70"}, {"kind": "workflow", "id": ""}, {"id": "70"}])
def test_ledger_entry_with_an_invalid_source_is_refused_by_field_name(source):
    with pytest.raises(LedgerError, match="source"):
        Entry.read({**ENTRY.value(), "source": source})


def test_ledger_entry_with_an_unknown_field_is_read_without_that_field():
    assert Entry.read({**ENTRY.value(), "new": 1}) == ENTRY


def test_ledger_entry_from_before_the_cap_is_read_as_one_without_earlier_credits():
    before = {name: value for name, value in ENTRY.value().items() if name not in ("deferred", "spent")}
    assert Entry.read(before) == replace(ENTRY, deferred=True, spent=0)
    assert Entry.read({**before, "max_tries": None}).max_tries is None


def test_ledger_entry_of_a_newer_version_is_refused_and_its_run_is_named():
    with pytest.raises(
        LedgerError, match=r"its version is 3, but this provider supports only versions up to 2\. It names .* 7:"
    ):
        Entry.read({**ENTRY.value(), "version": 3})


def test_ledger_entry_of_version_1_is_read_without_its_fingerprint_that_reveals_inputs():
    before = {name: value for name, value in ENTRY.value().items() if name != "key_digest"}
    read = Entry.read({**before, "version": 1})
    assert read == replace(ENTRY, fingerprint=None, key_digest=None)
    assert "f" * 64 not in json.dumps(read.value())


def test_ledger_entry_that_cannot_be_read_is_refused_with_its_run_and_what_to_do():
    with pytest.raises(LedgerError) as raised:
        Entry.read({"version": 1, "task_id": "18230957120664813", "workflow": "70"})
    message = str(raised.value)
    assert "source: Field required" in message
    assert "It names BrowserAct task 18230957120664813: check in the BrowserAct dashboard" in message


@pytest.mark.parametrize(
    "task_id", ["7" * 65, "7\n[2026-11-27] INFO", "https://evil.example", "\x1b[2J", 7, None, ["7"]], ids=repr
)
def test_odd_task_id_of_an_unreadable_ledger_entry_is_not_repeated(task_id):
    with pytest.raises(LedgerError) as raised:
        Entry.read({"version": 1, "task_id": task_id})
    assert "It names" not in str(raised.value)


@pytest.mark.parametrize("version", ["x" * 5000, "\x1b[2J", [1], None], ids=lambda version: str(version)[:5])
def test_odd_version_of_a_ledger_entry_is_not_repeated(version):
    with pytest.raises(LedgerError, match=f"^its version is {type(version).__name__}, but"):
        Entry.read({**ENTRY.value(), "version": version})
