"""How pytest reports tests that share a fixture, and how long each test may take."""

from __future__ import annotations

import pytest

_ERRORS = pytest.StashKey[list[tuple[BaseException, str]]]()


def time_limit(item: pytest.Item) -> float:
    """Return the seconds that a test may take, its fixtures included."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker and marker.args else item.config.getini("timeout"))


def report_once(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Report the error of a shared fixture in full only for the first test that needs the fixture.

    Pytest raises the same error for each of the others, and would print it as often.
    """
    if call.when != "setup" or call.excinfo is None or not report.failed:
        return
    error, seen = call.excinfo.value, item.session.stash.setdefault(_ERRORS, [])
    first = next((nodeid for known, nodeid in seen if known is error), None)
    if first is None:
        seen.append((error, item.nodeid))
    else:
        reason = str(error).partition("\n")[0]
        report.longrepr = f"The fixture has failed before, see the error of {first}: {type(error).__name__}: {reason}"
