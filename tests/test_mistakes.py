"""The most likely mistakes of a new user: each ends in one message that names the remedy."""

from __future__ import annotations

import pytest

from airflow_provider_browseract.runs import timings
from dev.mistakes import CONNECTION, MISTAKES, make, seen


@pytest.mark.usefixtures("airflow_database", "short_timings")
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake_ends_in_one_message_that_names_the_remedy(mistake, tmp_path, add_dag_bundle, monkeypatch, capfd):
    monkeypatch.setattr(timings, "DEFAULT_POLL_INTERVAL", 0.5)
    # make() sets this variable; monkeypatch restores it.
    monkeypatch.setenv(CONNECTION, "")
    add_dag_bundle(tmp_path)
    import_error, runs = make(mistake, tmp_path)
    made = seen(import_error, "".join(capfd.readouterr()), runs)
    assert mistake.remedy in made.message
    # Airflow adds one to each error; a second one would hide the message.
    assert made.tracebacks == (0 if mistake.name == "No triggerer" else 1)
    assert made.runs == mistake.runs
