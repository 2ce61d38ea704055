"""A short round of faults; ``make faults`` plays a whole one."""

from __future__ import annotations

import pytest
from airflow.triggers.base import BaseTrigger

from .round import run_round

SEED = 11


@pytest.mark.timeout(600)
@pytest.mark.skipif(not hasattr(BaseTrigger, "on_kill"), reason="before Airflow 3.3 nothing is kept over tries")
def test_nothing_is_lost_doubled_left_going_stuck_or_wrong(tmp_path_factory, capsys):
    outcome = run_round(30, SEED, tmp_path_factory.mktemp("faults") / "airflow")
    with capsys.disabled():
        print(f"\n{outcome}")
    assert outcome.good, str(outcome)
    assert sum(outcome.faults.values()) >= 5
