"""The state that the tries of a task instance share, and whether Airflow will start another try."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.compat import AIRFLOW_V_3_4_PLUS, DELETED, FINAL_STATES, task_instance_state
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.in_airflow.xcoms import MAX_TRIES_XCOM
from airflow_provider_browseract.runs import timings

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

    from airflow_provider_browseract.runs.ledger import Entry

STATE_KEY = "browseract_run"
"""Key of the entry in Airflow's task state. It does not contain the try number."""

STATE_RETENTION = timedelta(days=30)
"""How long Airflow keeps the stored state of a run if nothing deletes it."""

PLACE_KEY = "browseract_queue"
"""Key of the task's state with the place of the task instance in the queue for slots."""

CLAIM_KEY = "claim"
"""Key of the XCom with the run that a mapped task instance adopts, for its siblings."""

PLACE_LIFETIME = 24 * 3600.0
"""Seconds for which a place in the queue is kept. A task instance that is cleared days later joins the end."""

NEXT_TRY = "the next try reattaches to it"

NO_LATER_TRY = "no later try can reattach to the run (see retries, retry_policy and durable)"


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
    :param durable: whether later tries reattach to the run of an earlier one. When ``False``, no state is kept.
    """

    def __init__(self, context: Context, *, durable: bool) -> None:
        self._store: Any = context.get("task_state_store") if durable else None
        self._context = context
        self.ti: Any = context["ti"]
        self.earlier: Entry | None = None
        """What an earlier try has stored, once it was read."""

    @property
    def remembered(self) -> bool:
        """Whether later tries can read the state."""
        return self._store is not None

    def another(self, error: BaseException) -> bool:
        """Return whether Airflow starts a later try by itself after an error, and that try can read the state."""
        return self.remembered and self.ti.try_number <= self.ti.max_tries and not self._policy_forbids(error)

    def _policy_forbids(self, error: BaseException) -> bool:
        """Return whether the task's ``retry_policy`` (Airflow 3.3 and later) fails it at once after an error.

        Evaluate the policy as Airflow does after the error, so that both get the same result.
        """
        policy = getattr(getattr(self.ti, "task", None), "retry_policy", None)
        if policy is None:
            return False
        # Airflow ignores a policy that fails.
        with tolerate_errors():
            decision = policy.evaluate(
                exception=error,
                try_number=self.ti.try_number,
                max_tries=self.ti.max_tries,
                context=self._context,
            )
            return str(getattr(decision.action, "value", decision.action)) == "fail"
        return False

    def read(self) -> Entry | None:
        """Read what an earlier try has stored.

        :raises LedgerError: it cannot be read.
        """
        from airflow_provider_browseract.runs.ledger import Entry

        self.earlier = None
        kept = self._store.get(STATE_KEY) if self.remembered else None
        self.earlier = None if kept is None else Entry.read(kept)
        return self.earlier

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
            with tolerate_errors():
                kept = (self._store.get(PLACE_KEY) or {}).get("since")
                if isinstance(kept, int | float) and now - PLACE_LIFETIME < kept < now:
                    return float(kept)
                self._store.set(PLACE_KEY, {"since": now}, retention=STATE_RETENTION)
        return now

    def give_up_place(self) -> None:
        """Delete the stored place in the queue, because the run was started or ``queue_timeout`` has expired."""
        if self.remembered:
            with tolerate_errors():
                self._store.delete(PLACE_KEY)

    def claimed(self) -> dict[str, int]:
        """Return the BrowserAct tasks of the mapped siblings of this task instance.

        :returns: -1 for each that a sibling waits for, and the lowest map index for each that siblings have claimed.
        """
        if self.ti.map_index < 0:
            return {}
        found: dict[str, int] = {}
        for claim in self._of_siblings(CLAIM_KEY):
            if isinstance(claim, dict) and claim["map_index"] != self.ti.map_index:
                task_id, index = str(claim["task_id"]), int(claim["map_index"])
                found[task_id] = min(index, found.get(task_id, index))
        return found | {each: -1 for each in self._of_siblings("task_id") if isinstance(each, str)}

    def claim(self, task_id: str) -> int:
        """Store for the mapped siblings that this task instance is about to adopt a BrowserAct task.

        :returns: the map index of this task instance. It is negative if there are no siblings; nothing is stored then.
        """
        index: int = self.ti.map_index
        if index >= 0:
            self.ti.xcom_push(key=CLAIM_KEY, value={"task_id": task_id, "map_index": index})
        return index

    def _of_siblings(self, key: str) -> list[Any]:
        """Return an XCom of all task instances of the same mapped task, including this one."""
        return self.ti.xcom_pull(task_ids=[self.ti.task_id], key=key) or []

    def show_max_tries(self) -> None:
        """Let the trigger of an earlier try know whether a person has cleared the task instance (Airflow 3.4)."""
        if AIRFLOW_V_3_4_PLUS:
            with tolerate_errors():
                self.ti.xcom_push(key=MAX_TRIES_XCOM, value=self.ti.max_tries)

    def is_running(self) -> bool:
        """Return whether Airflow still wants this try to run; ``True`` if the request to Airflow fails."""
        with tolerate_errors():
            return task_instance_state(self.ti) == "running"
        return True

    def ask_why_killed(self) -> ReasonOfKill:
        """Begin to find out whether a person or the infrastructure kills this try.

        When a person marks or clears a task instance, Airflow first changes its state and then kills its process. If
        the state has not changed, something else ended the process: an evicted pod, a drained node, a stopped worker.
        """
        return ReasonOfKill(self.why_killed)

    def why_killed(self) -> Kill:
        """Return what the state of the task instance shows, with one request to Airflow."""
        state = task_instance_state(self.ti)
        if state == "restarting":
            return Kill("the Airflow task was cleared", wanted=True)
        if state in FINAL_STATES:
            return Kill("the Airflow task was set to a final state", wanted=True)
        if state == "deferred":
            # After Airflow has accepted the deferral, the process still runs for a moment.
            return Kill("the Airflow task has deferred", continued_by="the triggerer waits for it")
        if state == DELETED:
            return Kill("the task instance was deleted in Airflow", wanted=True)
        # Another try has another id. Airflow then no longer shows the state to this try.
        if self.remembered and self._store.get(STATE_KEY) is None:
            return Kill("Airflow considered this try dead and started another one", continued_by=NEXT_TRY)
        return Kill("the process of the Airflow task received SIGTERM, although nobody marked or cleared the task")


def forget_run(context: Context) -> None:
    """Delete the stored state of a run after the task has succeeded, so that clearing the task starts a new run."""
    Tries(context, durable=True).write(None)


class ReasonOfKill:
    """Ask Airflow in a thread why the try is killed, until it responds.

    The request may have to wait for the one that the kill has interrupted, or for an API server that does not respond.

    :param ask: sends the request, and returns the reason.
    """

    def __init__(self, ask: Callable[[], Kill]) -> None:
        self._ask = ask
        self._began = time.monotonic()
        self._found: Kill | None = None
        self._over = False
        self._asking = threading.Thread(target=self._repeat, name="browseract-reason-of-kill", daemon=True)
        self._asking.start()

    def found(self, within: float) -> Kill | None:
        """Return the reason; None if Airflow has not responded within some seconds from the first request."""
        self._asking.join(max(0.0, self._began + within - time.monotonic()))
        return self._found

    def give_up(self) -> None:
        """Send no further request, because the decision is made without a response."""
        self._over = True

    def _repeat(self) -> None:
        while not self._over:
            # The next request may succeed.
            with tolerate_errors():
                self._found = self._ask()
                return
            time.sleep(timings.KILL_ASK_PAUSE)
