"""The lines at the top of pages about what cannot be shown, or not be done."""

from __future__ import annotations

from airflow_provider_browseract.panel.accounts import Account
from airflow_provider_browseract.panel.kept import Read
from airflow_provider_browseract.panel.views import Notice

BUSY = Notice("error", "Too many pages are being read now.", "The page tries again by itself.")
MORE_RUNS = Notice("info", "Some days have more runs than are read here, so their credits are higher than shown.")
NOT_STOPPED = Notice(
    "error",
    "You may not stop this run.",
    "You need the right to edit task instances of its DAG, or to edit the connection.",
)
NO_SUCH_RUN = Notice(
    "error",
    "BrowserAct has no such run.",
    "Check the id, and the connection: each account knows only its own runs.",
)
FOREIGN_REQUEST = Notice(
    "error", "The request does not seem to come from a page of this Airflow.", "Reload the page, and try again."
)


def failed(read: Read | None, reads_account: bool) -> tuple[Notice, ...]:
    """Return the notice of a failed read. The reason can quote the connection, so only who may read that sees it."""
    if read is None or read.error is None:
        return ()
    if not reads_account:
        return (Notice("error", "BrowserAct could not be read.", "The page tries again by itself."),)
    return (Notice("error", f"BrowserAct could not be read: {read.error.rstrip('.')}.", read.remedy),)


def left_out(read: Read | None, reads_account: bool) -> tuple[Notice, ...]:
    """Return the notices of runs that a page about the runs of an account does not have."""
    if not isinstance(read, Account):
        return ()
    found = []
    if read.truncated:
        found.append(Notice("info", f"Not all runs could be read. {len(read.tasks):,} runs are shown."))
    # If nothing can be read, that says it.
    if read.error is None and read.bots_failure.error is not None:
        reason = f": {read.bots_failure.error.rstrip('.')}" if reads_account else ""
        remedy = read.bots_failure.remedy if reads_account else ""
        found.append(
            Notice("warning", f"The runs of bots are missing, because they could not be read{reason}.", remedy)
        )
    return tuple(found)
