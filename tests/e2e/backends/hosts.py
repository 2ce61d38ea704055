"""The name of each host of a cluster on one machine. Airflow imports it in its own processes, from ``PYTHONPATH``."""

from __future__ import annotations

import os

NAME = "BROWSERACT_HOST"
"""Environment variable with the name of the host."""


def name() -> str:
    return os.environ[NAME]
