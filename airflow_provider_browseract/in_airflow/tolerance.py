"""Errors that must not affect a run: of what is only for display, of clean-up, and of requests that are repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def first_line(error: Exception) -> str:
    """Return type and first line of an error for a log. The other lines may be long, such as a statement of SQL."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


@contextmanager
def tolerate_errors(report: Callable[..., Any] | None = None, text: str = "", *args: Any) -> Iterator[None]:
    """Report an error in this context instead of raising it.

    :param report: a method of a logger; None to ignore the error.
    :param text: the line for the log, with a last ``%s`` for the error.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever fails here, it does not affect the run
        if report is not None:
            report(text, *args, f"{type(error).__name__}: {error}")
