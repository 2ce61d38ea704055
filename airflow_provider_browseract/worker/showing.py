"""XComs and metrics with which a worker shows a run in Airflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api.arguments import read_path_id
from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.compat import (
    AirflowRescheduleException,
    AirflowSkipException,
    AirflowTaskTimeout,
    count_in_task,
    redact,
)
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.in_airflow.links import BrowserActTaskLink, LiveViewLink, PanelLink
from airflow_provider_browseract.in_airflow.required_action import required_action_url
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.in_airflow.xcoms import names_of
from airflow_provider_browseract.runs.callback_url import WAIT_XCOM
from airflow_provider_browseract.runs.proof import is_proven, prove_run
from airflow_provider_browseract.runs.report import IF_NO_LINE_FOLLOWS, facts, log_url, polling_line, reason_and_remedy
from airflow_provider_browseract.runs.wait import Wait, WaitEvent, WokenBy

if TYPE_CHECKING:
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.runs.log import Log


FAILURE_XCOM = "failure"
"""XCom with why the newest try of a task instance has failed."""

NOT_PUSHED = "Could not push the XCom %r (%s)."

FAILURE_LENGTH = 300
"""Characters of a reason or a remedy in that XCom."""


@contextmanager
def showing_failure(ti: Any, facts: Callable[[], dict[str, Any] | None], log: Log) -> Iterator[None]:
    """Push the XCom that shows why a try fails, without secrets, if an error leaves this context, and the button that
    leads to it in the panel.

    :param facts: returns the keys ``connection``, ``source``, ``task_id`` and ``started``; None to push nothing.
    """
    try:
        yield
    except (AirflowSkipException, AirflowRescheduleException):
        raise
    except Exception as error:
        # Whatever happens here, the error decides whether Airflow starts another try.
        with suppress(AirflowTaskTimeout), tolerate_errors(log.warning, NOT_PUSHED, FAILURE_XCOM):
            if (known := facts()) is not None:
                reason, then = reason_and_remedy(redact(str(error)))
                shown = {"reason": reason[:FAILURE_LENGTH], "remedy": then and then[:FAILURE_LENGTH]}
                ti.xcom_push(key=FAILURE_XCOM, value={**shown, "kind": type(error).__name__, **known})
                # With a run, the button was pushed with that.
                if known["task_id"] is None:
                    PanelLink().push_for(ti)
        raise


def id_or_none(value: Any) -> str | None:
    """Return an id as it may be shown; None for another value, which may be long or confidential."""
    with suppress(InputError):
        return read_path_id("id", value)
    return None


def count_run(task: Task) -> None:
    """Count an ended run and its credits in Airflow's metrics."""
    count_in_task("browseract.runs", tags={"status": task.status.value})
    if task.credit:
        count_in_task("browseract.credits", by=task.credit)


def show_run(ti: Any, task: Task, hook: BrowserActHook, log: Log, *, follows: bool = False) -> None:
    """Push the links to a run and the facts about it, with a proof, as XComs of an Airflow task instance.

    An error is logged and never raised: they are for display, and for the case that no entry is stored.

    :param hook: the hook with which the task was read.
    :param follows: the task instance has not started the run.
    """
    with tolerate_errors(log.warning, "The links to the run and the XCom 'task' could not be pushed (%s)."):
        if url := log_url(task):
            BrowserActTaskLink().push(ti, url)
            # At the end of the run, its live view is no longer available.
            LiveViewLink().push(ti, url if task.status.ended else task.live_url or url)
        PanelLink().push_for(ti)
        hidden = [*hook.hiding.of_run(task).hidden]
        shown = {**facts(task, hook.browseract_conn_id), "follows": follows, "hidden": hidden}
        shown["proof"] = prove_run(hook.settings.api_key, names_of(ti), shown)
        ti.xcom_push(key="task", value=shown)


def proven_run(shown: Any, api_key: str, ti: Any) -> tuple[str, ApiVersion] | None:
    """Return the run that the XCom ``task`` names, if its proof shows that this task instance pushed it."""
    if not isinstance(shown, Mapping) or not is_proven(prove_run(api_key, names_of(ti), shown), shown.get("proof")):
        return None
    return shown["task_id"], ApiVersion(shown["api_version"])


def show_wait(ti: Any, shown: dict[str, Any], log: Log, *, link: bool = False) -> None:
    """Push the XCom that shows how a task instance waits, or what woke it.

    :param link: push the link to the task instance in the panel too, because it has no run yet.
    """
    # An XCom that is only for display must not end the wait.
    with tolerate_errors(log.warning, NOT_PUSHED, WAIT_XCOM):
        ti.xcom_push(key=WAIT_XCOM, value=shown)
        if link:
            PanelLink().push_for(ti)


def log_wait(ti: Any, wait: Wait, log: Log) -> None:
    """Log what the triggerer waits for."""
    line = polling_line(wait.longest_pause)
    if wait.waits_for is WokenBy.PERSON:
        where = required_action_url(ti)
        line = f"Waiting in the triggerer for a person's answer at {where}. {IF_NO_LINE_FOLLOWS}"
    elif wait.waits_for is WokenBy.CALLBACK:
        also = f"In case it is lost, the triggerer polls the run at least every {wait.longest_pause:g} seconds."
        line = f"Waiting in the triggerer for BrowserAct's callback. {also} {IF_NO_LINE_FOLLOWS}"
    log.info("%s", line)


def show_what_woke(ti: Any, event: WaitEvent, seen: Task, resumed_at: float, log: Log) -> None:
    """Log and push what has ended a wait in the triggerer.

    :param resumed_at: when this process began, in seconds since 1970.
    """
    # Airflow may end the trigger of this wait only now. The trigger then reads these two keys (is_resumed_wait).
    shown: dict[str, Any] = {"woken_by": event.woken_by.value, "began_at": event.wait.began_at}
    after = ""
    if seen.finished_at is not None:
        # The two moments come from BrowserAct's clock and ours. A negative difference means that they differ.
        shown["seconds_after_end"] = seconds = round(max(0.0, resumed_at - seen.finished_at.timestamp()), 1)
        after = f", {seconds:g} seconds after the end of the run"
    log.info("Woken by a %s%s.", event.woken_by, after)
    if event.answer is not None:
        log.info("The run has ended, so the answer %s has no effect.", event.answer.option)
    show_wait(ti, shown, log)


def push_profile(ti: Any, profile_id: str | None, log: Log) -> None:
    """Push the profile that later runs can use, if the kind of run has profiles."""
    if profile_id is None:
        return
    text = "The XCom 'profile_id' could not be pushed, so later tasks cannot read it. The profile is %s. (%s)"
    # The run is more important, and the log contains the id.
    with tolerate_errors(log.error, text, profile_id or "none"):
        ti.xcom_push(key="profile_id", value=profile_id)
