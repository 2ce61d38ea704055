"""Start one run per keyword, in a pool of the size of the BrowserAct plan.

The pool is optional: without `pool`, a task that BrowserAct refuses waits for a slot. A task whose pool does not exist
never starts, so create the pool first, and let it count deferred tasks:

    airflow pools set browseract 5 "Runs of the BrowserAct plan" --include-deferred

Replace before you use it:

- `SEARCH_WORKFLOW`: the id of your workflow, as the BrowserAct dashboard shows it. This id belongs to the emulator.
- `5`: the number of concurrent runs that your plan allows.
- `inputs`: a function that returns the inputs of each run.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

SEARCH_WORKFLOW = "71002814653029437"

with DAG(
    "example_browseract_keywords",
    schedule=None,
    params={"keywords": ["laptops", "phones", "cameras"]},
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):

    @task
    def inputs(params: dict[str, Any]) -> list[dict[str, str]]:
        """Return the inputs of each run."""
        return [{"keyword": keyword, "max_items": "2"} for keyword in params["keywords"]]

    search = RunWorkflowOperator.partial(
        task_id="search",
        workflow_id=SEARCH_WORKFLOW,
        pool="browseract",
        deferrable=True,
    ).expand(input_parameters=inputs())

    @task
    def titles(results: list[list[dict[str, Any]]]) -> list[str]:
        """Return the titles that all runs found."""
        return [row["title"] for rows in results for row in rows]

    titles(search.output)
