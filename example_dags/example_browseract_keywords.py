"""One run per keyword, in a pool of the size of the BrowserAct plan.

The pool is optional: without `pool` a task that BrowserAct refuses waits for a slot by itself. A task whose pool does
not exist is never started, so create it first, and let it count deferred tasks:

    airflow pools set browseract 5 "Runs of the BrowserAct plan" --include-deferred
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

# The id of a workflow in the emulator. Put your own here, as the BrowserAct dashboard shows it.
SEARCH_WORKFLOW = "71002814653029437"

with DAG(
    "example_browseract_keywords",
    schedule=None,
    params={"keywords": ["laptops", "phones", "cameras"]},
    default_args={"retries": 2},
    tags=["browseract"],
):

    @task
    def inputs(params: dict[str, Any]) -> list[dict[str, str]]:
        """Make the inputs of each run."""
        return [{"keyword": keyword, "max_items": "2"} for keyword in params["keywords"]]

    search = RunWorkflowOperator.partial(
        task_id="search",
        workflow_id=SEARCH_WORKFLOW,
        pool="browseract",
        deferrable=True,
    ).expand(input_parameters=inputs())

    @task
    def titles(results: list[list[dict[str, Any]]]) -> list[str]:
        """Put the results of all runs together."""
        return [row["title"] for rows in results for row in rows]

    titles(search.output)
