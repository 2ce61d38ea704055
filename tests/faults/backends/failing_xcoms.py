"""An XCom backend that refuses some writes, as object storage does that is throttled or away for a moment.

Airflow imports it in its own processes, from ``PYTHONPATH``.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from airflow.sdk.bases.xcom import BaseXCom

FOLDER = "FAULTS_XCOM_FOLDER"
"""Variable with the folder in which the writes are counted. No write fails before that folder is there."""

SEED = "FAULTS_XCOM_SEED"
"""Variable with the seed that decides which writes are refused."""

SHARES = {"return_value": 0.05, "task_id": 0.03}
"""Share of the writes that are refused, by key; a tenth of those of all other keys.

These are the keys without which a try cannot do its work, so a refused write may cost the try, but never the run: the
next try has to reattach. Every other key is for display only, and a refused write may cost nothing.
"""


class FailingXCom(BaseXCom):
    """Airflow's own XComs, except that some writes of mapped task instances fail."""

    @staticmethod
    def serialize_value(value: Any, **of: Any) -> Any:
        """Serialize a value, or fail."""
        key, map_index = of.get("key"), of.get("map_index")
        is_mapped = map_index is not None and map_index >= 0
        if key is not None and is_mapped and _is_refused(f"{of.get('task_id')}-{map_index}", key):
            raise OSError(f"SlowDown: the XCom backend of this round refuses to write {key!r}")
        return BaseXCom.serialize_value(value, **of)


def refused_writes(folder: Path) -> list[str]:
    """Return the key of each write that was refused."""
    path = folder / "refused"
    return path.read_text().split() if path.exists() else []


def _is_refused(who: str, key: str) -> bool:
    folder = Path(os.environ[FOLDER])
    if not folder.exists():
        return False
    # How many times each key was written lies in a file, so that a later try does not repeat the fate of an earlier.
    number = _append(folder / f"{who}-{key}", "x")
    refused = random.Random(f"{os.environ[SEED]} {who} {key} {number}").random() < SHARES.get(key, 0.1)
    if refused:
        _append(folder / "refused", f"{key}\n")
    return refused


def _append(path: Path, text: str) -> int:
    with path.open("a") as file:
        file.write(text)
    return path.stat().st_size
