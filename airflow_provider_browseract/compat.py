"""Imports that differ between Airflow 3.1 and 3.3, and imports that are not Airflow's public interface.

DAG files and the plugin import this module. Functions therefore import what only some processes need. Airflow's models
are not here: only ``webhook/database.py``, ``commands/check.py`` and ``panel/`` use them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any

from airflow import __version__ as airflow_version
from packaging import version

try:
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowNotFoundException,
        AirflowRescheduleException,
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
        AirflowRescheduleException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferralError,
        TaskDeferralTimeout,
        TaskDeferred,
    )
    from airflow.plugins_manager import AirflowPlugin  # type: ignore[assignment,no-redef,unused-ignore]


_VERSION = version.parse(airflow_version)

AIRFLOW_V_3_3_PLUS = version.parse("3.3") <= _VERSION
"""Whether this is Airflow 3.3 or later."""

AIRFLOW_V_3_4_PLUS = version.parse("3.4.dev0") <= _VERSION
"""Whether this is Airflow 3.4 or later, or a preview of it."""

UI_FOLLOWS_FRAME = version.parse("3.3.2") <= _VERSION
"""Whether Airflow's UI can open any page of a plugin, because its address follows the frame."""

CLEAR_KEEPS_STATE = not AIRFLOW_V_3_4_PLUS
"""Whether clearing a task keeps its state. From Airflow 3.4 on, a person decides that at each clear."""

DELETED = "deleted"
"""Returned by :func:`task_instance_state` if Airflow has no such task instance."""

FINAL_STATES = ("success", "failed", "skipped", "upstream_failed", "removed")
"""States in which Airflow does not retry a task instance by itself."""


def count_in_task(name: str, by: int = 1, tags: dict[str, str] | None = None) -> None:
    """Increment a counter in the metrics of a task. Errors are ignored."""
    with suppress(Exception):
        try:
            from airflow.sdk.observability.stats import Stats
        except ImportError:  # before Airflow 3.2
            from airflow.stats import Stats  # type: ignore[no-redef,unused-ignore]
        Stats.incr(name, by, tags=tags)


def task_instance_state(ti: Any) -> str | None:
    """Return the state of a task instance in its current try, with one request to Airflow; None before it has one."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id]
    ).get(ti.run_id, {})
    # The key is the id of the task or, for a mapped one, the id and the index.
    return next(iter(states.values()), DELETED)


def is_of_earlier_try(error: Exception) -> bool:
    """Return whether a request of a trigger was refused because its task instance has another try (Airflow 3.4)."""
    return "not a live attempt" in str(error)


def xcom() -> Any:
    """Return Airflow's class ``XCom``, which reads and writes the XComs of any task instance."""
    from airflow.sdk.execution_time.xcom import XCom

    return XCom


def required_actions() -> ModuleType:
    """Return the module with Airflow's requests for Required Actions."""
    return import_module("airflow.sdk.execution_time.hitl")


def set_during_execution() -> Any:
    """Return the placeholder for a template field that the task itself sets."""
    from airflow.sdk.definitions._internal.types import SET_DURING_EXECUTION

    return SET_DURING_EXECUTION


def call_with_context(function: Callable[..., Any], args: Collection[Any], context: Mapping[str, Any]) -> Any:
    """Call a function of the user with the values of the context, or keyword arguments, that it takes by name."""
    try:
        from airflow.sdk.bases.decorator import determine_kwargs
    except ImportError:  # before Airflow 3.2
        from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined,no-redef,unused-ignore]
    return function(*args, **determine_kwargs(function, args, context))


def is_unmapped(operator: object) -> bool:
    """Return whether ``__init__`` runs in a worker, where Airflow creates an operator from a mapped one."""
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def in_task() -> bool:
    """Return whether this process executes a task."""
    from airflow.sdk import get_current_context

    with suppress(RuntimeError):
        get_current_context()
        return True
    return False


def in_dag_test() -> bool:
    """Return whether this is ``dag.test()``, which runs tasks and triggers in one process, and has no UI."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms

    return isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), InProcessSupervisorComms)


def at_end_of_task(call: Callable[[], None]) -> None:
    """Let the process of a task call a function once, at its end, also after a deferral (from Airflow 3.2 on)."""
    try:
        from airflow.listeners import hookimpl
        from airflow.sdk.listener import get_listener_manager
    except ImportError:
        return
    manager: Any = get_listener_manager()  # type: ignore[no-untyped-call,unused-ignore]

    class Listener:
        @hookimpl  # type: ignore[untyped-decorator,unused-ignore]
        def before_stopping(self, component: object) -> None:
            manager.pm.unregister(self)
            call()

    # A process that executes an operator without Airflow, such as a test, does not end with the task.
    if in_task():
        manager.add_listener(Listener())


@contextmanager
def reporting_failed_tries(report: Callable[[Any, object], None]) -> Iterator[None]:
    """Call a function with the task instance and the error of each try that fails in this process."""
    from airflow.listeners import hookimpl

    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:  # before Airflow 3.2
        from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment,no-redef,unused-ignore]

    class Listener:
        @hookimpl  # type: ignore[untyped-decorator,unused-ignore]
        def on_task_instance_failed(self, task_instance: Any, error: object) -> None:
            report(task_instance, error)

    manager: Any = get_listener_manager()  # type: ignore[no-untyped-call,unused-ignore]
    manager.add_listener(listener := Listener())
    try:
        yield
    finally:
        # A test may have removed all listeners.
        if manager.pm.is_registered(listener):
            manager.pm.unregister(listener)


def reconfigure() -> None:
    """Let this process use the database and the DAG bundles that Airflow's configuration has now."""
    from airflow import settings
    from airflow.dag_processing.bundles import manager

    settings.dispose_orm()
    settings.configure_vars()  # type: ignore[no-untyped-call,unused-ignore]
    settings.configure_orm()  # type: ignore[no-untyped-call,unused-ignore]
    # From Airflow 3.4 on, the configuration of bundles is read once per process.
    getattr(getattr(manager, "_load_bundle_config_snapshot", None), "cache_clear", lambda: None)()


def reload_secrets_backends() -> None:
    """Let this process use the secrets backends that Airflow's configuration has now."""
    from airflow import configuration

    # Other modules have imported the list itself.
    configuration.secrets_backend_list[:] = configuration.initialize_secrets_backends()
    try:
        from airflow.sdk.configuration import clear_secrets_backends_cache
    except ImportError:  # before Airflow 3.3
        return
    clear_secrets_backends_cache()


def create_tables() -> None:
    """Create the tables in Airflow's database."""
    from airflow.utils.db import initdb

    initdb()


def dags_of(file: str) -> dict[str, Any]:
    """Return the DAGs of a file by their ids, as Airflow reads them; an error of the file is an ``ImportError``."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef,assignment,unused-ignore]
    bag = DagBag(file)
    if bag.import_errors:
        raise ImportError("\n".join(bag.import_errors.values()))
    return dict(bag.dags)


def is_secret(name: str) -> bool:
    """Return whether Airflow masks values with this name."""
    from airflow.sdk._shared.secrets_masker import should_hide_value_for_key

    return bool(should_hide_value_for_key(name))  # type: ignore[no-untyped-call,unused-ignore]


def redact(text: str) -> str:
    """Return a text with ``***`` for each secret that this process masks in logs."""
    from airflow.sdk._shared.secrets_masker import redact as redact_known

    return str(redact_known(text))  # type: ignore[no-untyped-call,unused-ignore]
