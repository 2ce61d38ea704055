"""What it takes to check the input of a bot against its schema: see :mod:`dev.benchmarks.run`."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from airflow_provider_browseract.runs.schemas import conform

NAMES = 200
ITEMS = 20_000
RUNS = 10

IMPORT = """
import time
import airflow_provider_browseract.runs.schemas
began = time.thread_time()
airflow_provider_browseract.runs.schemas.conform({}, {}, "")
print(time.thread_time() - began)
"""


def schemas() -> None:
    """Processor time of a check with many names and with a long list, and what the first one in a process adds."""
    types = {"string": "laptops", "integer": 7, "number": 2.5, "boolean": True}
    kinds = [[*types][number % len(types)] for number in range(NAMES)]
    properties = {f"name_{number}": {"type": kind, "description": "A name"} for number, kind in enumerate(kinds)}
    wide = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    _report(f"{NAMES} names", {name: types[part["type"]] for name, part in properties.items()}, wide, limit=10)
    long = {"type": "object", "properties": {"urls": {"type": "array", "items": {"type": "string"}}}}
    _report(f"{ITEMS:,} texts", {"urls": [f"https://example.com/{number}" for number in range(ITEMS)]}, long, limit=250)
    _report(f"{ITEMS:,} numbers converted to texts", {"urls": [*range(ITEMS)]}, long, limit=1000)
    first = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout
    print(f"first check in a process, with the import of jsonschema: {1000 * float(first):.0f} ms more")


def _report(what: str, value: dict[str, Any], schema: dict[str, Any], *, limit: int) -> None:
    took = []
    for _ in range(RUNS):
        began = time.thread_time()
        conform(value, schema, "bot 1")
        took.append(time.thread_time() - began)
    print(f"check of an input with {what}: {1000 * min(took):.1f} ms (best of {RUNS}; limit {limit} ms)")
