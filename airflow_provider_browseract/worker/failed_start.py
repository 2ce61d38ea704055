"""A start that fails: whether Airflow retries it, and what happens to the run of an earlier try."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException
from airflow_provider_browseract.exceptions import BrowserActError, InputError, RunLostError, RunStartUnknownError
from airflow_provider_browseract.hooks.connection import no_connection
from airflow_provider_browseract.runs.report import brief_of, error_text
from airflow_provider_browseract.spending.cap import CapUsedUpError
from airflow_provider_browseract.worker.fate import UNKNOWN
from airflow_provider_browseract.worker.final_errors import is_final

if TYPE_CHECKING:
    from airflow_provider_browseract.worker.ledger import Entry
    from airflow_provider_browseract.worker.own_run import OwnRun


def fail_to_start(error: Exception, run: OwnRun, entry: Entry | None) -> NoReturn:
    """Raise an error that Airflow retries or not, and that states what happens to the run of an earlier try."""
    final = is_final(error, run, begun=entry is not None)
    reason, codes = _words_of(error, run)
    about, fate = _fate_of_earlier(error, run, reason, final=final)
    if isinstance(error, AirflowFailException) and not fate:
        raise error
    message = error_text(reason, fate, about=about, codes=codes)
    if final:
        raise AirflowFailException(message) from None
    if about is not None:
        raise RunLostError(message) from None
    if isinstance(error, AirflowNotFoundException):
        raise AirflowNotFoundException(message) from None
    raise error


def _words_of(error: Exception, run: OwnRun) -> tuple[str, str]:
    """Return reason and remedy of an error, and its codes."""
    if isinstance(error, BrowserActError):
        return str(error).removesuffix(error.codes).rstrip(), error.codes
    if isinstance(error, AirflowNotFoundException):
        return no_connection(run.hook.browseract_conn_id), ""
    known = isinstance(error, InputError | CapUsedUpError | AirflowFailException)
    return str(error) if known else f"{brief_of(error)}.", ""


def _fate_of_earlier(error: Exception, run: OwnRun, reason: str, *, final: bool) -> tuple[str | None, str]:
    """Return the BrowserAct task of an earlier try, if it is known, and what happens to it; "" if there is none."""
    if (task_id := run.task_id) is not None:
        fate = (None if final else run.leave(RunLostError(reason))) or run.stop_on_kill(task_id)
        return task_id, f"An earlier try has started a run. {fate.text}"
    if run.unproven is not None and not isinstance(error, AirflowFailException):
        return run.unproven, "The state of an earlier try names a run, which may be active and using credits."
    if not (final and run.starting) or isinstance(error, RunStartUnknownError):
        return None, ""
    run.leave_start_unknown()
    return None, f"{UNKNOWN}. {RunStartUnknownError.remedy}"


def end_unknown_start(run: OwnRun) -> None:
    """Fail without a retry if execution_timeout has ended a start, and no later try can look the run up."""
    if run.lost is not None:
        # Airflow does this too, but only after it is decided whether there is a retry.
        run.on_kill()
    if not run.ledger.is_kept and (run.starting or run.start_unknown):
        why = f"execution_timeout expired during the start of {run.source}. {UNKNOWN}."
        raise AirflowFailException(f"{why}\n{RunStartUnknownError.remedy}") from None


def report_unknown_start(failure: BaseException, run: OwnRun, entry: Entry | None) -> None:
    """Log it if a run may be running whose id this try does not know."""
    # An earlier try may have started a run if nothing could be read.
    later_try = run.ledger.ti.try_number > 1
    unread = run.start_unknown and isinstance(failure, Exception) and entry is None and later_try
    if run.starting or (unread and not isinstance(failure, AirflowFailException)):
        looks = run.ledger.another_try(failure)
        then = "The next try looks for it." if looks else RunStartUnknownError.remedy
        run.log.error("%s. A run may be running and using credits. %s", UNKNOWN, then)
        run.leave_start_unknown()
