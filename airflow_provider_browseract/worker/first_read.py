"""Show a run in Airflow right after its start, before anything waits for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.in_airflow.showing import show_run
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.runs.report import log_url
from airflow_provider_browseract.runs.resuming import Conclude, WaitAgain
from airflow_provider_browseract.runs.starting import StartedRun
from airflow_provider_browseract.runs.waiting import Wait
from airflow_provider_browseract.worker.kinds import RunKind
from airflow_provider_browseract.worker.owned_run import OwnedRun

if TYPE_CHECKING:
    from airflow_provider_browseract.loops import Log
    from airflow_provider_browseract.runs.options import RunOptions


def push_ids(ti: Any, kind: RunKind, started: StartedRun, log: Log) -> None:
    """Push the XComs that later tasks need."""
    ti.xcom_push(key="task_id", value=started.task_id)
    _push_profile(ti, kind.profile_of(started, None), log)


def read_first(run: OwnedRun, ti: Any, kind: RunKind, started: StartedRun, options: RunOptions) -> Conclude | WaitAgain:
    """Read a new run for its links and, if the response to the start had none, for its profile.

    :returns: what to do next: conclude the run, or wait for it.
    """
    log, limit = run.log, options.start_timeout
    wait = Wait(
        started.task_id,
        started.entry.deadline,
        started.callback_token_sha256,
        start_by=None if limit is None else started.entry.written_at + limit,
        policy=replace(options.policy, credits_per_step=run.hook.settings.credits_per_step),
        key_digest=run.hook.settings.key_digest,
        api_version=started.entry.source.api_version,
        spent_before=started.entry.spent,
        source_name=started.source_name,
        max_tries=ti.max_tries,
    )
    try:
        task = started.task or run.hook.client.send(wait.api.get_task(started.task_id))
    except BrowserActError as error:
        log.warning("BrowserAct task %s was started, but cannot be read yet: %s", started.task_id, error.brief)
        if wait.api_version is ApiVersion.V3:
            # The input that BrowserAct returns also has defaults, and they may be secret.
            run.hook.hiding = replace(run.hook.hiding, secret_inputs=True)
        return WaitAgain(wait)
    run.url = log_url(task)
    run.hook.hiding = run.hook.hiding.of_run(task)
    show_run(ti, task, run.hook.browseract_conn_id, run.hook.hiding.hidden, log)
    if (profile_id := kind.profile_of(started, task)) != kind.profile_of(started, None):
        _push_profile(ti, profile_id, log)
    lines, wait = wait.news(task)
    for line in lines:
        log.info("%s", line)
    return Conclude(task) if task.status.ended else WaitAgain(wait)


def _push_profile(ti: Any, profile_id: str | None, log: Log) -> None:
    """Push the profile that later runs can use, if the kind of run has profiles."""
    if profile_id is None:
        return
    text = "The XCom 'profile_id' could not be pushed, so later tasks cannot read it. The profile is %s. (%s)"
    # The run is more important, and the log contains the id.
    with tolerate_errors(log.error, text, profile_id or "none"):
        ti.xcom_push(key="profile_id", value=profile_id)
