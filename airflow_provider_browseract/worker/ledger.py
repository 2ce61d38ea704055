"""The state of a run that later tries find, stored right before the start and right after it (from Airflow 3.3 on)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.compat import AIRFLOW_V_3_4_PLUS, AirflowFailException, AirflowSkipException
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.in_airflow.xcoms import MAX_TRIES_XCOM
from airflow_provider_browseract.runs.report import error_text
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.runs.stored import Count, Moment, Text, from_json, to_json

if TYPE_CHECKING:
    from airflow.sdk import Context

STATE_KEY = "browseract_run"
"""Key of the entry in Airflow's task state. It does not contain the try number."""

STATE_RETENTION = timedelta(days=30)
"""How long Airflow keeps the stored state of a run if nothing deletes it."""


@dataclass(frozen=True)
class Entry:
    """A start or a run.

    :param fingerprint: see :meth:`~airflow_provider_browseract.runs.request.RunRequest.fingerprint`.
    :param key_digest: digest of the API key that the fingerprint depends on. Fingerprints of two keys always differ.
    :param written_at: when the entry was written, just before the start, in seconds since the epoch.
    :param max_tries: the last try that Airflow starts by itself. Only clearing the task changes it.
    :param deferred: the task instance waits deferred, so a clear during the wait reaches no worker.
    :param task_id: the BrowserAct task; None until the response to the start has arrived.
    :param earlier: BrowserAct tasks of earlier runs for the same task instance.
    :param spent: credits that earlier runs have used, since the task was cleared for the last time.
    """

    source: Source
    fingerprint: Text
    key_digest: Text
    written_at: Moment
    max_tries: int
    deferred: bool = True
    task_id: Text | None = None
    profile_id: Text | None = None
    earlier: tuple[str, ...] = ()
    spent: Count = 0


class Ledger:
    """What the tries of a task instance share, and whether another try will read it.

    :param context: the context of this try. Its ``task_state_store`` (Airflow 3.3 and later) keeps the state.
    :param durable: whether later tries reattach to the run of an earlier one. When ``False``, no state is kept.
    """

    def __init__(self, context: Context, *, durable: bool) -> None:
        self._store: Any = context.get("task_state_store") if durable else None
        self._context = context
        self.ti: Any = context["ti"]

    @property
    def is_kept(self) -> bool:
        """Whether later tries can read the entry."""
        return self._store is not None

    def read(self) -> Entry | None:
        """Return the entry of an earlier try, if there is one.

        :raises AirflowFailException: it cannot be read.
        """
        kept = self._store.get(STATE_KEY) if self.is_kept else None
        try:
            return None if kept is None else from_json(Entry, kept)
        except ValueError as error:
            raise unusable(f"it cannot be read ({error})", kept) from None

    def write(self, entry: Entry | None) -> None:
        """Store an entry, which replaces the earlier one; None deletes it."""
        if not self.is_kept:
            return
        if entry is None:
            self._store.delete(STATE_KEY)
        else:
            self._store.set(STATE_KEY, to_json(entry), retention=STATE_RETENTION)

    def is_of_another_try(self) -> bool:
        """Return whether Airflow has started another try. It then no longer shows the state to this one."""
        return self.is_kept and self._store.get(STATE_KEY) is None

    def another_try(self, error: BaseException) -> bool:
        """Return whether Airflow starts a later try by itself after an error, and that try can read the entry."""
        if isinstance(error, AirflowFailException | AirflowSkipException):
            return False
        return self.is_kept and self.ti.try_number <= self.ti.max_tries and not self._policy_forbids(error)

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

    def show_max_tries(self) -> None:
        """Let the trigger of an earlier try know whether a person has cleared the task instance (Airflow 3.4)."""
        if AIRFLOW_V_3_4_PLUS:
            with tolerate_errors():
                self.ti.xcom_push(key=MAX_TRIES_XCOM, value=self.ti.max_tries)


def unusable(why: str, kept: Any = None) -> AirflowFailException:
    """Return the error of a stored state that cannot be used.

    :param kept: what is stored, if it cannot be read.
    """
    named = kept.get("task_id") if isinstance(kept, Mapping) else None
    is_id = isinstance(named, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", named)
    return AirflowFailException(
        error_text(
            f"The state that an earlier try stored about its run cannot be used: {why}.",
            "Nothing was started or stopped. Make sure that no run is running. Then delete the key "
            f"{STATE_KEY} from the task state of this task instance, or set durable=False.",
            about=named if is_id else None,
        )
    )
