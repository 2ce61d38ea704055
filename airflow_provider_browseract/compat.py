"""What moved between Airflow 3.1 and 3.3, in one place."""

from __future__ import annotations

from contextlib import suppress

try:
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowNotFoundException,
        AirflowTaskTimeout,
        TaskDeferralError,
        TaskDeferralTimeout,
        TaskDeferred,
    )
    from airflow.sdk.plugins_manager import AirflowPlugin
except ImportError:  # before Airflow 3.2
    from airflow.configuration import conf
    from airflow.exceptions import (  # type: ignore[attr-defined,no-redef,unused-ignore]
        AirflowFailException,
        AirflowNotFoundException,
        AirflowTaskTimeout,
        TaskDeferralError,
        TaskDeferralTimeout,
        TaskDeferred,
    )
    from airflow.plugins_manager import AirflowPlugin  # type: ignore[assignment,no-redef,unused-ignore]


def count(name: str) -> None:
    """Count one more of something in the metrics of Airflow's API server; what goes wrong there does no harm.

    :param name: name of the counter.
    """
    try:
        from airflow.observability import stats
    except ImportError:  # before Airflow 3.2
        from airflow.stats import Stats as stats  # type: ignore[no-redef,unused-ignore]
    with suppress(Exception):
        stats.incr(name)


def count_in_task(name: str, by: int = 1, tags: dict[str, str] | None = None) -> None:
    """Count something in the metrics of a worker's task, which are set up apart; otherwise as :func:`count`.

    :param name: name of the counter.
    :param by: how many more there are.
    :param tags: what tells one counter of that name from another.
    """
    try:
        from airflow.sdk.observability import stats
    except ImportError:  # before Airflow 3.2
        from airflow.stats import Stats as stats  # type: ignore[no-redef,unused-ignore]
    with suppress(Exception):
        stats.incr(name, by, tags=tags)


__all__ = [
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowPlugin",
    "AirflowTaskTimeout",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "TaskDeferred",
    "conf",
    "count",
    "count_in_task",
]
