"""The triggers of this package, to be imported from here."""

from airflow_provider_browseract.triggers.task import TaskTrigger
from airflow_provider_browseract.triggers.watcher import TaskFinishedTrigger

__all__ = ["TaskFinishedTrigger", "TaskTrigger"]
