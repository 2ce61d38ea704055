"""Tests that use Airflow's database run in one process of pytest-xdist, and those that run DAGs in another one."""

from __future__ import annotations


def group_of(request) -> str:
    """Return the group that tests/conftest.py has given to a test."""
    [group] = request.node.get_closest_marker("xdist_group").args
    if request.config.getoption("loadgroup", False):
        # pytest-xdist has seen the marker.
        assert request.node.nodeid.endswith(f"@{group}")
    return str(group)


def test_tests_that_use_the_database_are_a_group(request, airflow_database):
    assert group_of(request) == "database"


def test_tests_that_run_dags_are_another_group(request, parse):
    assert group_of(request) == "dags"
