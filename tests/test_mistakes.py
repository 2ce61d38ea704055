"""The most likely mistakes of a new user: each ends in one message that names the remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from dev.mistakes import MISTAKES
from tests.pages import ROOT


def test_each_mistake_ends_in_one_message_that_names_the_remedy(subtests):
    # In one other process, because starting Airflow takes longer than all mistakes, and to read its whole output.
    done = subprocess.run(
        # Isolated, so that it imports the installed package.
        [sys.executable, "-I", ROOT / "dev" / "mistakes.py", "--json"],
        # Without the settings of these tests.
        env={name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        stdout=subprocess.PIPE,
        text=True,
        timeout=280,
        check=True,
    )
    # When the process ends, Airflow 3.4.0b2 writes errors after it.
    seen = json.loads(done.stdout.partition("\n")[0])
    for mistake in MISTAKES:
        with subtests.test(mistake.name):
            made = seen[mistake.name]
            assert mistake.remedy in made["message"]
            # Airflow adds one to each error; a second one would hide the message.
            assert made["tracebacks"] == (0 if mistake.name == "No triggerer" else 1)
            assert made["runs"] == mistake.runs
