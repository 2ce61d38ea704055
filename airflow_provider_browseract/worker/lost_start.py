"""Find out whether a start whose response was lost has created a run.

BrowserAct can carry out a start after the response was lost, and a new run can be missing in the list of tasks for a
while. So the list is read twice (``timings.LIST_READS``). The first read finds most runs early. Only the second one, if
the list is complete, proves that there is no run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone

from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.api.pages import Pages
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.exceptions import BrowserActError, RunStartUnknownError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.report import error_text
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.worker.ledger import UNTIL_CLEARED, Entry
from airflow_provider_browseract.worker.matching import came_to_nothing, match_task
from airflow_provider_browseract.worker.own_run import UNKNOWN, OwnRun

MAX_NAMED = 10
"""Possible runs that a message names."""

MAYBE = "The response to a start was lost. Each run below may be the one that it created."


@dataclass(frozen=True)
class Listed:
    """What the list of tasks shows of a start.

    :param certain: the one run that certainly matches.
    :param usable: the runs that may be it, and have neither failed nor been canceled.
    :param clocks: a sentence about BrowserAct's clock, if it is so far from ours that a run may be missing.
    """

    certain: Task | None
    usable: list[Task]
    clocks: str | None


@dataclass(frozen=True)
class LostStart:
    """A start that may have created a run.

    :param run: what this process answers for.
    :param entry: what was stored before the start.
    :param request: what was to be run; None if that is no longer known.
    :param ended_at: when the request had certainly ended, in seconds since the epoch.
    """

    run: OwnRun
    entry: Entry
    request: RunRequest | None
    ended_at: float

    def find(self, *, cleared: bool = False) -> Task | None:
        """Return the run; None if there is certainly none. A kill ends this, and decides what happens to the run.

        :param cleared: a person has cleared the task since then, and so wants a new run if this one is not certain.
        :raises RunStartUnknownError: the list of tasks cannot be read to its end, or the clocks differ.
        :raises AirflowFailException: some tasks may be the run, and none certainly is.
        :raises RunError: the try was killed.
        """
        run = self.run
        run.lost = self
        try:
            listed = self._read_when_listed()
        except Exception:
            run.lost = None
            raise
        run.lost = None
        if listed.certain is not None:
            return listed.certain
        if not listed.usable and listed.clocks is None:
            run.log.info("No matching run was found.")
            return None
        why = MAYBE if listed.usable else f"{UNKNOWN}. {listed.clocks}"
        if cleared:
            then = "Starting a new run, because the Airflow task was cleared."
            run.log.warning("%s %s %s", why, then, self.names_of(listed))
            return None
        if not listed.usable:
            raise RunStartUnknownError(why)
        # The error names the runs.
        run.leave_start_unknown()
        stop = "In the BrowserAct dashboard, stop the runs below that no Airflow task waits for."
        raise AirflowFailException(error_text(why, f"{stop} Then {UNTIL_CLEARED}.", self.names_of(listed)))

    def _read_when_listed(self) -> Listed:
        """Wait until the run must be in the list, and return what the list shows then, or earlier if it has the run."""
        run, (first, last) = self.run, timings.LIST_READS
        over = time.time() >= self.ended_at + last
        for seconds in (last,) if over else (first, last):
            run.sleep(self.ended_at + seconds - time.time())
            try:
                listed = self.read(run.hook.client)
            except BrowserActError as error:
                if seconds == last:
                    message = f"{UNKNOWN}, and looking for it failed: {error.message}"
                    raise RunStartUnknownError.after(error, message) from error
                run.log.warning("The list of tasks could not be read: %s", error.brief)
                continue
            run.check()
            if listed.certain is not None:
                break
        return listed

    def read(self, client: BrowserActClient) -> Listed:
        """Read the list of the tasks that were created in the time of the start, to its end.

        :raises BrowserActError: the list cannot be read to its end.
        """
        entry, siblings, clocks = self.entry, self._runs_of_siblings(), None
        since = datetime.fromtimestamp(entry.written_at - timings.CLOCK_SKEW, timezone.utc)
        until = datetime.fromtimestamp(self.ended_at + timings.LIST_READS[-1] + timings.CLOCK_SKEW, timezone.utc)
        # A list does not name the template of a run.
        source_id = None if entry.source.is_template else entry.source.id
        api, tasks = APIS[entry.source.api_version], []
        pages: Pages[Task] = Pages(api.list_tasks(source_id=source_id, created_at_from=since, created_at_to=until))
        while pages.call is not None:
            page = client.send(pages.call)
            clocks = clocks or _clocks(page.served_at)
            tasks += [task for task in pages.take(page) if task.id not in siblings]
        in_time = [task for task in tasks if task.created_at is None or since <= task.created_at <= until]
        matches = [(task, match_task(task, entry, self.request)) for task in in_time]
        possible = [task for task, match in matches if match is not False]
        usable = [task for task in possible if not came_to_nothing(task)]
        # If one run certainly matches, the undecided ones do not count.
        certain = [task for task, match in matches if match and task in (usable or possible)]
        return Listed(certain[0] if len(certain) == 1 else None, usable, clocks)

    def _runs_of_siblings(self) -> set[str]:
        """Return the runs of the other task instances of the same mapped task."""
        ti = self.run.ledger.ti
        found = ti.xcom_pull(task_ids=[ti.task_id], key="task_id") if ti.map_index >= 0 else None
        return {each for each in found or () if isinstance(each, str)}

    def names_of(self, listed: Listed) -> str:
        """Return the ids of the usable runs, the newest first, each with its status and time, as a sentence."""
        since = datetime.min.replace(tzinfo=timezone.utc)
        newest = sorted(listed.usable, key=lambda task: task.created_at or since, reverse=True)
        times = [f", created at {_shown(task.created_at)}" if task.created_at else "" for task in newest]
        names = [f"{task.id} ({task.status}{at})" for task, at in zip(newest, times, strict=True)]
        more = f", and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        return f"BrowserAct tasks of {self.entry.source}: {', '.join(names[:MAX_NAMED])}{more}." if names else ""


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _clocks(served_at: datetime | None) -> str | None:
    ours = datetime.fromtimestamp(time.time(), timezone.utc)
    if served_at is None or abs((served_at - ours).total_seconds()) <= timings.CLOCK_SKEW:
        return None
    return (
        f"BrowserAct's clock shows {_shown(served_at)}, and that of this machine {_shown(ours)}, so the run may be "
        "missing in the list. Correct the clock that is wrong."
    )
