"""What moved between Airflow 3.1 and 3.3, in one place."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from types import ModuleType

from airflow import __version__ as airflow_version
from packaging import version

try:
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
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
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferralError,
        TaskDeferralTimeout,
        TaskDeferred,
    )
    from airflow.plugins_manager import AirflowPlugin  # type: ignore[assignment,no-redef,unused-ignore]


TRIGGERS_START_TASKS = version.parse(airflow_version) >= version.parse("3.3")
"""Whether triggers are told of the task that they start, so that a task can do without a worker."""


def count(name: str) -> None:
    """Count one more of something in the metrics of Airflow's API server; what goes wrong there does no harm.

    :param name: name of the counter.
    """
    with suppress(Exception):
        try:
            from airflow.observability.stats import Stats
        except ImportError:  # before Airflow 3.2
            from airflow.stats import Stats  # type: ignore[assignment,no-redef,unused-ignore]
        Stats.incr(name)


def count_in_task(name: str, by: int = 1, tags: dict[str, str] | None = None) -> None:
    """Count something in the metrics of a worker's task, which are set up apart; otherwise as :func:`count`.

    :param name: name of the counter.
    :param by: how many more there are.
    :param tags: what tells one counter of that name from another.
    """
    with suppress(Exception):
        try:
            from airflow.sdk.observability.stats import Stats
        except ImportError:  # before Airflow 3.2
            from airflow.stats import Stats  # type: ignore[no-redef,unused-ignore]
        Stats.incr(name, by, tags=tags)


def is_unmapped(operator: object) -> bool:
    """Return whether Airflow makes an operator from a mapped one, in the worker, while it runs ``__init__``."""
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def in_dag_test() -> bool:
    """Return whether this is ``dag.test()``: it runs tasks and triggers in one process, and has no UI."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms

    return isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), InProcessSupervisorComms)


def xcom_serde() -> ModuleType:
    """Return the module with which Airflow serializes XComs."""
    try:
        return import_module("airflow.sdk.serde")
    except ImportError:  # before Airflow 3.2
        return import_module("airflow.serialization.serde")


def is_secret(name: str) -> bool:
    """Say whether Airflow masks values that are called so; whatever cannot be learned is taken for a secret.

    :param name: name of a value.
    """
    try:
        from airflow.sdk._shared.secrets_masker import should_hide_value_for_key
    except ImportError:
        return True
    return bool(should_hide_value_for_key(name))  # type: ignore[no-untyped-call,unused-ignore]


__all__ = [
    "TRIGGERS_START_TASKS",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowPlugin",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "TaskDeferred",
    "conf",
    "count",
    "count_in_task",
    "in_dag_test",
    "is_secret",
    "is_unmapped",
    "xcom_serde",
]
