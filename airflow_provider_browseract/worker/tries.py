"""The state that the tries of a task instance share, and whether Airflow will start another try."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.compat import count_task_instances
from airflow_provider_browseract.runs.ledger import STATE_KEY, Entry

if TYPE_CHECKING:
    from airflow.sdk import Context

STATE_RETENTION = timedelta(days=30)
"""How long Airflow keeps the stored state of a run if nothing deletes it."""

PLACE_KEY = "browseract_queue"
"""Key of the task's state with the place of the task instance in the queue for slots."""

PLACE_LIFETIME = 24 * 3600.0
"""Seconds for which a place in the queue is kept. A task instance that is cleared days later joins the end."""

NEXT_TRY = "the next try reattaches to it"

FINAL_STATES = ("success", "failed", "skipped", "upstream_failed", "removed")
"""States in which Airflow does not retry a task instance by itself."""


@dataclass(frozen=True)
class Kill:
    """Why this try is being killed.

    :param reason: the reason as a clause, which messages append after a colon.
    :param continued_by: what continues to wait for the run, as a clause; the run is then not stopped. None if nothing
        does.
    :param wanted: whether a person or a time limit ended the try. If not, the infrastructure did.
    """

    reason: str
    continued_by: str | None = None
    wanted: bool = False


class Tries:
    """The state that a task instance keeps from try to try, and whether another try will read it.

    :param context: the context of this try. Its ``task_state_store`` (Airflow 3.3 and later) keeps the state.
    :param reattach: whether later tries reattach to the run of an earlier one. When ``False``, no state is kept.
    """

    def __init__(self, context: Context, *, reattach: bool) -> None:
        self._store: Any = context.get("task_state_store") if reattach else None
        self._context = context
        self.ti: Any = context["ti"]

    @property
    def remembered(self) -> bool:
        """Whether later tries can read the state."""
        return self._store is not None

    def another(self, error: BaseException) -> bool:
        """Return whether Airflow starts a later try by itself after an error, and that try can read the state.

        :param error: the error that this try raises.
        """
        return self.remembered and self.ti.try_number <= self.ti.max_tries and not self._policy_forbids(error)

    def _policy_forbids(self, error: BaseException) -> bool:
        """Return whether the task's ``retry_policy`` (Airflow 3.3 and later) fails it at once after an error.

        Evaluate the policy as Airflow does after the error, so that both get the same result.
        """
        policy = getattr(getattr(self.ti, "task", None), "retry_policy", None)
        if policy is None:
            return False
        try:
            decision = policy.evaluate(
                exception=error,
                try_number=self.ti.try_number,
                max_tries=self.ti.max_tries,
                context=self._context,
            )
        except Exception:  # noqa: BLE001 - Airflow then ignores the policy
            return False
        return str(getattr(decision.action, "value", decision.action)) == "fail"

    def read(self) -> Entry | None:
        """Read what an earlier try has stored.

        :raises LedgerError: it cannot be read.
        """
        kept = self._store.get(STATE_KEY) if self.remembered else None
        return None if kept is None else Entry.read(kept)

    def write(self, entry: Entry | None) -> None:
        """Store an entry, which replaces the earlier one; None deletes it."""
        if not self.remembered:
            return
        if entry is None:
            self._store.delete(STATE_KEY)
        else:
            self._store.set(STATE_KEY, entry.value(), retention=STATE_RETENTION)

    def keep_place(self, now: float) -> float:
        """Return since when the task instance has waited for a slot, and store it for later tries.

        :param now: the current time, in seconds since the epoch, which applies if no earlier try has waited.
        """
        if self.remembered:
            with suppress(Exception):
                kept = (self._store.get(PLACE_KEY) or {}).get("since")
                if isinstance(kept, int | float) and now - PLACE_LIFETIME < kept < now:
                    return float(kept)
                self._store.set(PLACE_KEY, {"since": now}, retention=STATE_RETENTION)
        return now

    def give_up_place(self) -> None:
        """Delete the stored place in the queue, because the run was started or ``queue_timeout`` has expired."""
        if self.remembered:
            with suppress(Exception):
                self._store.delete(PLACE_KEY)

    def claimed(self) -> set[str]:
        """Return the BrowserAct tasks that the mapped siblings of this task instance wait for."""
        found = self.ti.xcom_pull(task_ids=[self.ti.task_id], key="task_id")
        return {each for each in found or () if isinstance(each, str)}

    def is_running(self) -> bool:
        """Return whether Airflow still wants this try to run; ``True`` if the request to Airflow fails."""
        with suppress(Exception):
            return self._is_in("running")
        return True

    def why_killed(self, error: BaseException, within: float) -> Kill:
        """Find out whether a person or the infrastructure kills this try.

        When a person marks or clears a task instance, Airflow first changes its state and then kills its process. If
        the state has not changed, something else ended the process: an evicted pod, a drained node, a stopped worker.

        :param error: the error that this try raises if another one can reattach to its run.
        :param within: seconds to wait for Airflow's response.
        """
        found: list[Kill] = []

        def ask() -> None:
            with suppress(Exception):
                found.append(self._ask_why_killed(error))

        # In a separate thread: the kill may have interrupted a request to Airflow, and the next request waits for it.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(within)
        if found:
            return found[0]
        return self._ended_by_infrastructure("the Airflow task was killed; Airflow did not report why", error)

    def _ask_why_killed(self, error: BaseException) -> Kill:
        if self._is_in("restarting"):
            return Kill("the Airflow task was cleared", wanted=True)
        if self._is_in(*FINAL_STATES):
            return Kill("the Airflow task was set to a final state", wanted=True)
        if self._is_in("deferred"):
            # After Airflow has accepted the deferral, the process still runs for a moment.
            return Kill("the Airflow task has deferred", continued_by="the triggerer waits for it")
        if not self._is_in():
            return Kill("the task instance was deleted in Airflow", wanted=True)
        # Another try has another id. Airflow then no longer shows the state to this try.
        if self.remembered and self._store.get(STATE_KEY) is None:
            return Kill("Airflow considered this try dead and started another one", continued_by=NEXT_TRY)
        ended = "the process of the Airflow task received SIGTERM, although nobody marked or cleared the task"
        return self._ended_by_infrastructure(ended, error)

    def _ended_by_infrastructure(self, reason: str, error: BaseException) -> Kill:
        if self.another(error):
            return Kill(reason, continued_by=NEXT_TRY)
        return Kill(f"{reason}; no later try can reattach to the run (see retries, retry_policy and reattach)")

    def _is_in(self, *states: str) -> bool:
        """Return whether the task instance is in one of the states; without states, whether it exists."""
        return count_task_instances(self.ti, *states) > 0
