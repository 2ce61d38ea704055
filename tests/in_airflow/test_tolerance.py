"""Errors that do not affect a run."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors

log = logging.getLogger(__name__)


def test_tolerated_error_is_logged_after_the_other_arguments_and_not_raised(caplog):
    with tolerate_errors(log.warning, "Could not push %r (%s).", "wait"):
        raise OSError("no network")
    assert [record.getMessage() for record in caplog.records] == ["Could not push 'wait' (OSError: no network)."]


def test_exceptions_that_end_a_process_are_not_tolerated():
    with pytest.raises(KeyboardInterrupt), tolerate_errors():
        raise KeyboardInterrupt
