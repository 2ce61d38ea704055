"""The most likely mistakes of a new user: each ends in one message that names the remedy."""

from __future__ import annotations

import re

import pytest

from airflow_provider_browseract.runs import timings
from dev.mistakes import CONNECTION, MISTAKES, as_markdown, make, seen
from tests.pages import ROOT

RECORDED = dict(re.findall(r"(?ms)^(## .+?\n)(.+?)(?=\n## |\Z)", (ROOT / "tests/mistakes.md").read_text()))
"""What the users see, by heading: the texts that ``python -m dev.mistakes`` has written."""


@pytest.mark.usefixtures("airflow_database", "short_timings")
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake_ends_in_the_recorded_message(mistake, tmp_path, add_dag_bundle, monkeypatch, capfd):
    monkeypatch.setattr(timings, "DEFAULT_POLL_INTERVAL", 0.5)
    # make() sets this variable; monkeypatch restores it.
    monkeypatch.setenv(CONNECTION, "")
    add_dag_bundle(tmp_path)
    import_error, runs = make(mistake, tmp_path)
    made = seen(mistake, import_error, "".join(capfd.readouterr()), runs)
    heading, section = as_markdown(mistake, made.message).split("\n", 1)
    assert section == RECORDED[f"{heading}\n"]
    # Another traceback would hide the message.
    assert made.tracebacks <= mistake.tracebacks
    assert made.runs == mistake.runs


def test_recorded_mistakes_are_those_that_are_made():
    assert [heading.strip("# \n") for heading in RECORDED] == [mistake.name for mistake in MISTAKES]
