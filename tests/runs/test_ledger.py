from __future__ import annotations

import json

import pytest

from airflow_provider_browseract.runs.ledger import Entry, LedgerError
from tests.runs.starts import ENTRY


def test_ledger_entry_survives_a_json_round_trip():
    assert Entry.read(json.loads(json.dumps(ENTRY.value()))) == ENTRY


@pytest.mark.parametrize("name", sorted(ENTRY.value()))
@pytest.mark.parametrize("wrong", [[], {"a": 1}, True, ""], ids=["list", "dict", "boolean", "empty string"])
def test_ledger_entry_with_an_invalid_field_is_refused_by_field_name(name, wrong):
    if name == "earlier" and wrong == []:
        return
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


def test_ledger_entry_of_a_newer_version_is_refused():
    with pytest.raises(LedgerError, match="its version is 2, but this provider supports only version 1"):
        Entry.read({**ENTRY.value(), "version": 2})
