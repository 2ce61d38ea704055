"""How pytest reports tests that share a fixture, and how long each test may take."""

from __future__ import annotations

import os

import pytest

MAY_BE_SKIPPED = ("before Airflow 3.2", "before Airflow 3.3", "before Airflow 3.4", "mysql is left out")
"""How the reasons begin for which CI may skip a test: it runs on another Airflow, or Debian has no MySQL server."""

_ERRORS = pytest.StashKey[list[tuple[BaseException, str]]]()


def time_limit(item: pytest.Item) -> float:
    """Return the seconds that a test may take, its fixtures included."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker and marker.args else item.config.getini("timeout"))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = _failed_if_skipped((yield))
    _report_once(report, item, call)
    return report


def _failed_if_skipped(report):
    """Turn a skip into a failure if ``.ci/run`` runs the tests and its reason does not apply there."""
    if os.environ.get("BROWSERACT_CI") and report.skipped and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        if not reason.removeprefix("Skipped: ").startswith(MAY_BE_SKIPPED):
            report.outcome, report.longrepr = "failed", f"{report.nodeid}: may not be skipped in CI ({reason})"
    return report


def _report_once(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
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
