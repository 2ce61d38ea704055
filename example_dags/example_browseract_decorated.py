"""Compute the inputs of each run in a function.

Replace before you use it:

- `SEARCH_WORKFLOW`: the id of your workflow, as the BrowserAct dashboard shows it. This id belongs to the emulator.
- `search`: a function that returns the inputs of your workflow.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from airflow.sdk import DAG, task

SEARCH_WORKFLOW = "71002814653029437"

with DAG(
    "example_browseract_decorated", schedule=None, default_args={"retries": 2}, tags=["browseract"], doc_md=__doc__
):

    @task.browseract(workflow_id=SEARCH_WORKFLOW, deferrable=True)
    def search(product: str) -> dict[str, Any]:
        """Look for this year's model of a product."""
        return {"keyword": f"{product} {date.today().year}", "max_items": 2}

    search.expand(product=["pens", "ink"])
