from __future__ import annotations

import json
import logging
from datetime import date, timedelta
from typing import Any

import pytest

from airflow_provider_browseract.spending import day_sums
from airflow_provider_browseract.spending.day_sums import read_day_sums, write_day_sums
from tests.cases import cases, raising
from tests.conftest import DagResult

KEY = "browseract_spend_shop"
DIGEST = "0123456789abcdef"
LOG = logging.getLogger(__name__)
SUMS = {date(2026, 11, 25): 0, date(2026, 11, 26): 1840}
STORED = {"version": 1, "key_digest": DIGEST, "days": {"2026-11-25": 0, "2026-11-26": 1840}}

FILE = """
import logging
from datetime import date

from airflow.sdk import DAG, task

from airflow_provider_browseract.spending.day_sums import read_day_sums, write_day_sums

log = logging.getLogger(__name__)

with DAG("sums", schedule=None):

    @task
    def count():
        none = read_day_sums("shop", "0123456789abcdef", log)
        write_day_sums("shop", "0123456789abcdef", {date(2026, 11, 25): 0, date(2026, 11, 26): 1840}, log)
        return len(none)

    @task
    def read():
        of = [("shop", "0123456789abcdef"), ("shop", "of another key"), ("other", "0123456789abcdef")]
        found = [read_day_sums(*each, log) for each in of]
        return [{str(day): credits for day, credits in sums.items()} for sums in found]

    count() >> read()
"""


class Variable:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: object) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: str, description: str) -> None:
        self.values[key] = value


@pytest.fixture
def variable(monkeypatch):
    made = Variable()
    monkeypatch.setattr(day_sums, "Variable", made)
    return made


def test_sums_that_a_task_has_stored_are_read_by_another_task_with_the_key(parse, add_dag_bundle, tmp_path):
    from airflow.models import Variable as Stored

    add_dag_bundle(tmp_path)
    file = tmp_path / "sums.py"
    file.write_text(FILE)
    try:
        ended = DagResult(parse(file)["sums"].test())
        stored = json.loads(Stored.get(KEY))
    finally:
        Stored.delete(KEY)
    assert (ended.xcom("count"), ended.xcom("read")) == (0, [STORED["days"], {}, {}])
    assert stored == STORED


def test_only_the_sums_of_the_last_two_months_are_kept(variable, caplog):
    last = date(2026, 11, 26)
    write_day_sums("shop", DIGEST, {last - timedelta(days=number): number for number in range(200)}, LOG)
    kept = read_day_sums("shop", DIGEST, LOG)
    assert (len(kept), min(kept)) == (63, date(2026, 9, 25))
    assert len(variable.values[KEY]) < 2000
    assert caplog.text == ""


@cases(
    {
        "no JSON": "1840 credits",
        "another form": json.dumps([1840]),
        "another version": json.dumps({**STORED, "version": 2}),
        "no days": json.dumps({**STORED, "days": None}),
        "negative": json.dumps({**STORED, "days": {"2026-11-26": -1}}),
        "true": json.dumps({**STORED, "days": {"2026-11-26": True}}),
        "no day": json.dumps({**STORED, "days": {"today": 1840}}),
        "nested too deeply": "[" * 100_000,
    },
)
def test_variable_that_someone_has_edited_logs_a_warning_and_the_days_are_counted_again(variable, caplog, stored):
    variable.values[KEY] = stored
    assert read_day_sums("shop", DIGEST, LOG) == {}
    [line] = [record for record in caplog.records if record.name == LOG.name]
    assert line.levelname == "WARNING"
    assert line.getMessage().startswith("The stored sums of credits could not be read, so they are counted again: ")


def test_variable_that_cannot_be_read_or_written_only_logs_a_warning(variable, caplog):
    variable.get = variable.set = raising(RuntimeError("no API server"))
    assert read_day_sums("shop", DIGEST, LOG) == {}
    write_day_sums("shop", DIGEST, SUMS, LOG)
    assert [record.getMessage() for record in caplog.records] == [
        "The stored sums of credits could not be read, so they are counted again: RuntimeError: no API server",
        "The sums of credits could not be stored: RuntimeError: no API server",
    ]
