"""What the tries of one task instance know of each other, and what Airflow will do with the next one."""

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
"""How long Airflow keeps what is written down of a run, where nobody deletes it."""

NEXT_TRY = "the next try reattaches to it"

FINAL_STATES = ("success", "failed", "skipped", "upstream_failed", "removed")
"""States of a task instance that Airflow does not try again by itself."""


@dataclass(frozen=True)
class Kill:
    """Why this try is being killed.

    :param reason: the reason as a clause, which messages append after a colon.
    :param continued_by: who continues to wait for the run, which is then not stopped; None if nobody does.
    :param wanted: whether a person, or a time limit, wanted the end; otherwise it is trouble of the infrastructure.
    """

    reason: str
    continued_by: str | None = None
    wanted: bool = False


class Tries:
    """What is kept over the tries of a task instance, and whether there will be another one that finds it.

    :param context: the context of this try. Its ``task_state_store`` (Airflow 3.3 and later) is what lasts.
    :param reattach: whether later tries are to reattach to the run of earlier ones.
    """

    def __init__(self, context: Context, *, reattach: bool) -> None:
        self._store: Any = context.get("task_state_store") if reattach else None
        self._context = context
        self.ti: Any = context["ti"]

    @property
    def remembered(self) -> bool:
        """Whether later tries find what is written down."""
        return self._store is not None

    def another(self, error: BaseException) -> bool:
        """Return whether Airflow starts a later try by itself after an error, and that try finds what is written down.

        :param error: what this try raises.
        """
        return self.remembered and self.ti.try_number <= self.ti.max_tries and not self._policy_forbids(error)

    def _policy_forbids(self, error: BaseException) -> bool:
        """Return whether the task's ``retry_policy`` (Airflow 3.3 and later) fails it at once after an error.

        Ask as Airflow does after the error, so that both come to the same answer.
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
        except Exception:  # noqa: BLE001 - Airflow then decides as without a policy
            return False
        return str(getattr(decision.action, "value", decision.action)) == "fail"

    def read(self) -> Entry | None:
        """Read what an earlier try has written down.

        :raises LedgerError: it cannot be understood.
        """
        kept = self._store.get(STATE_KEY) if self.remembered else None
        return None if kept is None else Entry.read(kept)

    def write(self, entry: Entry | None) -> None:
        """Keep an entry in place of the one before; None if there is nothing to know."""
        if not self.remembered:
            return
        if entry is None:
            self._store.delete(STATE_KEY)
        else:
            self._store.set(STATE_KEY, entry.value(), retention=STATE_RETENTION)

    def claimed(self) -> set[str]:
        """Return the BrowserAct tasks that the mapped siblings of this task instance wait for."""
        found = self.ti.xcom_pull(task_ids=[self.ti.task_id], key="task_id")
        return {each for each in found or () if isinstance(each, str)}

    def is_running(self) -> bool:
        """Return whether Airflow still wants this try to run; also where Airflow cannot be asked."""
        with suppress(Exception):
            return self._is_in("running")
        return True

    def why_killed(self, error: BaseException, within: float) -> Kill:
        """Find out why this try is being killed: by a person, or by the infrastructure.

        Airflow changes the task instance before it kills the process of one that a person has marked or cleared. The
        process of one that is still as it was is ended by something else: an evicted pod, a drained node, a stopped
        worker.

        :param error: what this try raises if another one can reattach to its run.
        :param within: seconds that Airflow may take to answer.
        """
        found: list[Kill] = []

        def ask() -> None:
            with suppress(Exception):
                found.append(self._ask_why_killed(error))

        # In a thread of its own: a kill may have interrupted a question to Airflow, and the next one waits for that.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(within)
        if found:
            return found[0]
        return self._ended_by_infrastructure("the Airflow task was killed, and Airflow cannot be asked why", error)

    def _ask_why_killed(self, error: BaseException) -> Kill:
        if self._is_in("restarting"):
            return Kill("the Airflow task was cleared", wanted=True)
        if self._is_in(*FINAL_STATES):
            return Kill("the Airflow task was set to a final state", wanted=True)
        if self._is_in("deferred"):
            # The process has a few things left to do after Airflow has taken the deferral.
            return Kill("the Airflow task has deferred", continued_by="the triggerer waits for it")
        if not self._is_in():
            return Kill("the task instance was deleted in Airflow", wanted=True)
        # Another try has another identity, and Airflow then shows this one nothing any more.
        if self.remembered and self._store.get(STATE_KEY) is None:
            return Kill("Airflow considered this try dead and started another one", continued_by=NEXT_TRY)
        ended = "the process of the Airflow task received SIGTERM, although nobody marked or cleared the task"
        return self._ended_by_infrastructure(ended, error)

    def _ended_by_infrastructure(self, reason: str, error: BaseException) -> Kill:
        if self.another(error):
            return Kill(reason, continued_by=NEXT_TRY)
        return Kill(f"{reason}; no later try can reattach to the run (see retries, retry_policy and reattach)")

    def _is_in(self, *states: str) -> bool:
        """Return whether the task instance is in one of some states; without any, whether it exists."""
        return count_task_instances(self.ti, *states) > 0
