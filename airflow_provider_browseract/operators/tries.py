"""What the tries of one task instance know of each other."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.runs.ledger import KEY, Entry

if TYPE_CHECKING:
    from airflow.sdk import Context

RETENTION = timedelta(days=30)
"""How long Airflow keeps what is written down of a run, where nobody deletes it."""


class Tries:
    """What is kept over the tries of a task instance, and whether there will be another one that finds it.

    :param context: the context of this try. Its ``task_state_store`` (Airflow 3.3 and later) is what lasts.
    :param reattach: whether later tries are to take up the run of earlier ones.
    """

    def __init__(self, context: Context, *, reattach: bool) -> None:
        self._store: Any = context.get("task_state_store") if reattach else None
        self.ti: Any = context["ti"]

    @property
    def remembered(self) -> bool:
        """Whether later tries find what is written down."""
        return self._store is not None

    @property
    def another(self) -> bool:
        """Whether Airflow starts a later try by itself if this one fails, and that one finds what is written down."""
        return self.remembered and self.ti.try_number <= self.ti.max_tries

    def read(self) -> Entry | None:
        """Read what an earlier try has written down.

        :raises LedgerError: it cannot be understood.
        """
        kept = self._store.get(KEY) if self.remembered else None
        return None if kept is None else Entry.read(kept)

    def write(self, entry: Entry | None) -> None:
        """Keep an entry in place of the one before; None if there is nothing to know."""
        if not self.remembered:
            return
        if entry is None:
            self._store.delete(KEY)
        else:
            self._store.set(KEY, entry.value(), retention=RETENTION)

    def claimed(self) -> set[str]:
        """Give the BrowserAct tasks that the mapped siblings of this task instance wait for."""
        found = self.ti.xcom_pull(task_ids=[self.ti.task_id], key="task_id")
        return {each for each in found or () if isinstance(each, str)}

    def taken_over(self, within: float) -> str | None:
        """Say why this try, which is being killed, must leave its run to a later one; or give None.

        A worker is killed when someone marks or clears the task. But also when it was taken for dead and another try
        has begun, and when the API server cannot be reached for a while.

        :param within: seconds that Airflow may take to answer.
        """
        if not self.remembered:
            return None
        told: list[str | None] = []

        def ask() -> None:
            with suppress(Exception):
                told.append(self._successor())

        # In a thread of its own: a kill may have interrupted a question to Airflow, and the next one waits for that.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(within)
        if told:
            return told[0]
        return (
            "Airflow cannot be asked why the task was killed, and the next try takes the run up"
            if self.another
            else None
        )

    def _successor(self) -> str | None:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        # A later try has another identity, and Airflow then shows this one nothing any more.
        if self._store.get(KEY) is not None:
            return None
        ti = self.ti
        cleared = RuntimeTaskInstance.get_ti_count(
            ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id], states=["restarting"]
        )
        return None if cleared else "Airflow took this try for dead, and a later one takes the run up"
