"""The state of a run that later tries find, stored right before the start and right after it (from Airflow 3.3 on)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.compat import AIRFLOW_V_3_4_PLUS, AirflowFailException, AirflowSkipException
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.in_airflow.xcoms import MAX_TRIES_XCOM, names_of
from airflow_provider_browseract.runs.proof import is_proven, prove
from airflow_provider_browseract.runs.report import error_text
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.runs.stored import Count, Moment, Seconds, Text, from_json, to_json

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.api.settings import Settings

STATE_KEY = "browseract_run"
"""Key of the entry in Airflow's task state. It does not contain the try number."""

STATE_RETENTION = timedelta(days=30)
"""How long Airflow keeps the stored state of a run if nothing deletes it."""


@dataclass(frozen=True)
class Entry:
    """A start or a run.

    :param fingerprint: see :meth:`~airflow_provider_browseract.runs.request.RunRequest.fingerprint`.
    :param key_digest: digest of the API key that fingerprint and proof depend on. Those of two keys always differ.
    :param connection: id of the Airflow connection with which the run is started.
    :param written_at: when the entry was written, just before the start, in seconds since the epoch.
    :param longest_call: seconds after which the start had certainly ended.
    :param max_tries: the last try that Airflow starts by itself. Only clearing the task changes it.
    :param task_id: the BrowserAct task; None until the response to the start has arrived.
    :param earlier: BrowserAct tasks of earlier runs for the same task instance.
    :param spent: credits that earlier runs have used, since the task was cleared for the last time.
    :param proof: see :mod:`~airflow_provider_browseract.runs.proof`.
    """

    source: Source
    fingerprint: Text
    key_digest: Text
    connection: Text
    written_at: Moment
    longest_call: Seconds
    max_tries: int
    task_id: Text | None = None
    profile_id: Text | None = None
    earlier: tuple[str, ...] = ()
    spent: Count = 0
    proof: Text | None = None

    def signed(self, settings: Settings, ti: Any) -> Entry:
        """Return the entry with its proof for a task instance."""
        return replace(self, proof=self._proof(settings, ti))

    def is_proven(self, settings: Settings, ti: Any) -> bool:
        """Return whether the task instance has stored the entry, with the present API key."""
        return self.key_digest == settings.key_digest and is_proven(self._proof(settings, ti), self.proof)

    def _proof(self, settings: Settings, ti: Any) -> str:
        # The moment may come back from a database with fewer digits.
        facts = (self.connection, self.source.api_version.value, str(self.source), round(self.written_at * 1000))
        return prove(settings.api_key, "entry", names_of(ti), *facts, self.task_id, self.earlier)


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
            named = kept.get("task_id") if isinstance(kept, Mapping) else None
            raise not_certain(UNUSABLE.format(f"it cannot be read ({error})"), UNTIL_DELETED, named) from None

    def write(self, entry: Entry | None) -> None:
        """Store an entry, which replaces the earlier one; None deletes it."""
        if not self.is_kept:
            return
        if entry is None:
            self._store.delete(STATE_KEY)
        else:
            self._store.set(STATE_KEY, to_json(entry), retention=STATE_RETENTION)

    def own_xcom(self, key: str) -> Any:
        """Return an XCom of the task instance; None if there is none."""
        return self.ti.xcom_pull(task_ids=self.ti.task_id, key=key, map_indexes=self.ti.map_index)

    def is_of_another_try(self) -> bool:
        """Return whether Airflow has started another try. It then no longer shows the state to this one."""
        return self.is_kept and self._store.get(STATE_KEY) is None

    def another_try(self, error: BaseException) -> bool:
        """Return whether Airflow starts a later try by itself after an error, and that try can read the entry."""
        if isinstance(error, AirflowFailException | AirflowSkipException | KeyboardInterrupt):
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


UNUSABLE = "The state that an earlier try stored about its run cannot be used: {}."

UNTIL_DELETED = f"delete the key {STATE_KEY} from the task state of this task instance, or set durable=False"
"""What lets a new run start if the stored state cannot be read at all."""

UNTIL_CLEARED = "clear the Airflow task, which starts a new run"
"""What lets a new run start instead of a run that may be of another task instance."""


def id_of(named: Any) -> str | None:
    """Return the id of a BrowserAct task from the stored state as it may be shown; None if it is none."""
    return named if isinstance(named, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", named) else None


def not_certain(reason: str, then: str, named: Any, codes: str = "") -> AirflowFailException:
    """Return the error of a try that does nothing, because it is not certain which run an earlier try has started.

    :param then: what lets a new run start.
    :param named: the BrowserAct task that may be that run.
    :param codes: BrowserAct's codes, if it has refused something.
    """
    safe = f"Nothing was started or stopped. Make sure that no run is running. Then {then}."
    return AirflowFailException(error_text(reason, safe, about=id_of(named), codes=codes))
