"""The methods of a logger that this package uses. Airflow's loggers have them too."""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    """A logger."""

    def log(self, level: int, msg: str, /, *args: Any) -> Any:
        """Write a line with a level."""

    def info(self, msg: str, /, *args: Any) -> Any:
        """Write a line."""

    def warning(self, msg: str, /, *args: Any, **kwargs: Any) -> Any:
        """Write a warning."""

    def error(self, msg: str, /, *args: Any, **kwargs: Any) -> Any:
        """Write an error."""
