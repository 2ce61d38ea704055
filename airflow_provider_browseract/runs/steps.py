"""The steps that the decisions of this package yield.

A decision is a generator. It yields steps, including calls of the API, and is sent the result of each.
:mod:`airflow_provider_browseract.loops` has the two loops that execute them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass


@dataclass(frozen=True)
class Sleep:
    """Do nothing for a number of seconds."""

    seconds: float


@dataclass(frozen=True)
class LogLine:
    """Write a line to the task's log."""

    text: str
    level: int = logging.INFO
