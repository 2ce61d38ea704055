"""Start one run for each input, at most three at once, and compute the inputs in a function.

If a run fails, clear the DAG run with "Clear only failed tasks". The others keep their results, and cost nothing again.

Replace before you use it:

- `SEARCH_WORKFLOW`: the id of your workflow, as the BrowserAct dashboard shows it. This id belongs to the emulator.
- `keywords`: a function that returns what the runs are for.
- `search`: a function that returns the inputs of one run. Each try calls it, and must get the same inputs. So take a
  date from `dag_run`, and not from the clock.
- `max_active_tis_per_dag`: how many runs may be active at once.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

SEARCH_WORKFLOW = "71002814653029437"

with DAG(
    "example_browseract_many",
    schedule=None,
    params={"keywords": ["laptops", "phones", "cameras"]},
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):

    @task
    def keywords(params: dict[str, Any]) -> list[str]:
        """Return a keyword for each run."""
        return list(params["keywords"])

    @task.browseract(workflow_id=SEARCH_WORKFLOW, max_active_tis_per_dag=3, deferrable=True)
    def search(keyword: str, dag_run: Any = None) -> dict[str, Any]:
        """Look for the models of the year."""
        # Each DAG run has this time, also one without a logical date.
        return {"keyword": f"{keyword} {dag_run.run_after.year}", "max_items": 2}

    @task
    def titles(results: list[list[dict[str, Any]]]) -> list[str]:
        """Return the titles that all runs have found."""
        return [row["title"] for rows in results for row in rows]

    titles(search.expand(keyword=keywords()))
