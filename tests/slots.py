"""How fast the slots of a plan change hands."""

from __future__ import annotations

from datetime import datetime

from airflow_provider_browseract.emulator import Run


def slot_changes(tasks: list[Run], plan: int) -> list[tuple[datetime, float]]:
    """Return when each slot of a plan became free that was used again, and for how many seconds it was unused."""
    starts = sorted(task.created_at for task in tasks)
    ends = sorted(task.finished_at for task in tasks if task.finished_at)
    # The slot of the first run that ends goes to the first run that had none, and so on.
    return [(end, (start - end).total_seconds()) for start, end in zip(starts[plan:], ends, strict=False)]
