"""Make the inputs of each run in a function."""

from __future__ import annotations

from datetime import date
from typing import Any

from airflow.sdk import DAG, task

# The id of a workflow in the emulator. Put your own here, as the BrowserAct dashboard shows it.
SEARCH_WORKFLOW = "71002814653029437"

with DAG("example_browseract_decorated", schedule=None, default_args={"retries": 2}, tags=["browseract"]):

    @task.browseract(workflow_id=SEARCH_WORKFLOW, deferrable=True)
    def search(product: str) -> dict[str, Any]:
        """Look for this year's model of a product."""
        return {"keyword": f"{product} {date.today().year}", "max_items": 2}

    search.expand(product=["pens", "ink"])
