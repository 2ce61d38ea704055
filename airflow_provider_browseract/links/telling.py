"""What Airflow shows and counts of a run, wherever the run is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.compat import count_in_task
from airflow_provider_browseract.links.browseract import BrowserActTaskLink, LiveViewLink
from airflow_provider_browseract.runs.report import facts, log_url

if TYPE_CHECKING:
    from airflow_provider_browseract.api.models import Task


def count_run(task: Task) -> None:
    """Count a run that has ended, and what it took, in Airflow's metrics."""
    count_in_task("browseract.runs", tags={"status": task.status.value})
    if task.credit:
        count_in_task("browseract.credits", by=task.credit)


def show_run(ti: Any, task: Task) -> None:
    """Let buttons and XComs of an Airflow task instance lead to a run and tell what is known of it.

    :param ti: the running Airflow task instance.
    :param task: the run.
    """
    url = log_url(task)
    if url:
        BrowserActTaskLink().push(ti, url)
    LiveViewLink().push(ti, LiveViewLink.OVER if task.status.ended else task.live_url or url)
    ti.xcom_push(key="task", value=facts(task))
