"""What the command ``check`` reads in Airflow's database.

Like ``webhook/database.py``, this module uses ``airflow.models``, which is not a public interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from airflow.configuration import ensure_secrets_loaded
from airflow.jobs.job import Job, JobState
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, lazyload

from airflow_provider_browseract.hooks.connection import variable_of
from airflow_provider_browseract.panel.database import SLOT_TRIGGER, StoredWaits
from airflow_provider_browseract.runs.queueing import QueueWait

LONG_AGO = timedelta(hours=24)
"""How old the last heartbeat of a component may be that is named."""

MAX_WAITING = 1_000
"""How many waits in the queue are read."""


class NoDatabaseError(Exception):
    """Airflow's database cannot be read on this machine. The message is a clause."""


class ComponentKind(Enum):
    """A kind of component, and the name of its jobs."""

    TRIGGERER = "TriggererJob"
    SCHEDULER = "SchedulerJob"
    DAG_PROCESSOR = "DagProcessorJob"


class Component(NamedTuple):
    """A component of Airflow that sends heartbeats.

    :param age: seconds since the last one.
    """

    kind: ComponentKind
    host: str
    alive: bool
    age: float


@contextmanager
def _session() -> Iterator[Session]:
    with create_session(scoped=False) as session:
        url = session.get_bind().engine.url
        # A connection would create an empty file.
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
            raise NoDatabaseError(f"there is no file {url.database}; is AIRFLOW_HOME set?")
        try:
            yield session
            session.commit()
        except DBAPIError as error:
            # Neither the statement nor the password.
            reason = (str(error.orig).strip().splitlines() or [""])[0]
            raise NoDatabaseError(reason.replace(url.password, "***") if url.password else reason) from None


def components() -> list[Component]:
    """Return the components that have sent heartbeats lately, those that are alive first.

    :raises NoDatabaseError: Airflow's database cannot be read here.
    """
    now = datetime.now(timezone.utc)
    kinds = [each.value for each in ComponentKind]
    query = select(Job).where(Job.job_type.in_(kinds), Job.latest_heartbeat >= now - LONG_AGO)
    with _session() as session:
        jobs = session.scalars(query.order_by(Job.latest_heartbeat.desc()).limit(MAX_WAITING)).all()
        found = [
            Component(
                ComponentKind(job.job_type),
                str(job.hostname),
                alive=job.state == JobState.RUNNING and job.is_alive(),
                age=(now - (job.latest_heartbeat or now)).total_seconds(),
            )
            for job in jobs
        ]
    return sorted(found, key=lambda each: not each.alive)


def source_of(conn_id: str) -> str:
    """Return where Airflow finds a connection, as a phrase."""
    own = {
        "EnvironmentVariablesBackend": f"the environment variable {variable_of(conn_id)}",
        "MetastoreBackend": "Airflow's database",
    }
    for backend in ensure_secrets_loaded():
        # If one fails, Airflow asks the next one too.
        with suppress(Exception):
            if backend.get_connection(conn_id=conn_id) is not None:
                name = type(backend).__name__
                return own.get(name, f"the secrets backend {name}")
    return "an unknown place"


def waits_for_slots(conn_id: str, key_digest: str) -> list[QueueWait]:
    """Return the waits in the queue of an API key.

    :raises NoDatabaseError: Airflow's database cannot be read here.
    """
    query = (
        select(Trigger)
        .options(lazyload("*"))
        .join(TaskInstance, TaskInstance.trigger_id == Trigger.id)
        .where(Trigger.classpath == SLOT_TRIGGER, TaskInstance.state == TaskInstanceState.DEFERRED)
        .limit(MAX_WAITING)
    )
    with _session() as session:
        triggers = list(session.scalars(query))
        stored = StoredWaits(QueueWait).read({(each.id, each.created_date) for each in triggers}, triggers)
    return [wait for of, wait in stored.values() if of == conn_id or wait.key_digest == key_digest]
