"""The steps that the decisions of this package yield.

A decision is a generator. It yields steps, including calls of the API, and is sent the result of each.
:mod:`airflow_provider_browseract.loops` has the two loops that execute them. Event loops execute only calls.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class LogLine:
    """Write a line to the task's log."""

    text: str
    level: int = logging.INFO


class Log(Protocol):
    """The methods that this package uses of a logger. Airflow's loggers have them too."""

    def log(self, level: int, msg: str, /, *args: Any) -> Any:
        """Write a line with a level."""

    def info(self, msg: str, /, *args: Any) -> Any:
        """Write a line."""

    def warning(self, msg: str, /, *args: Any, **kwargs: Any) -> Any:
        """Write a warning."""

    def error(self, msg: str, /, *args: Any, **kwargs: Any) -> Any:
        """Write an error."""
