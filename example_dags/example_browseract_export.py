"""Write the files of a run to object storage, and load their rows into a database.

XCom carries only the paths of the files. The database is that of the connection `warehouse`, of any type whose hook is
a `DbApiHook`, such as Postgres or Snowflake. The DAG creates the table.

Replace before you use it:

- `EXPORT_WORKFLOW`: the id of your workflow, as the BrowserAct dashboard shows it. This id belongs to the emulator.
- `CREATE_TABLE`: the table.
- `COLUMNS`: the columns of the files to load. The table has them too, and a column for the id of the run.
- `params.store`: the folder for the results, as `ObjectStoragePath` takes it, such as
  `s3://aws_default@bucket/browseract`. For S3, install `apache-airflow-providers-amazon[s3fs]`. The folder `/tmp` works
  only if all workers run on one machine.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from airflow.sdk import DAG, Asset, BaseHook, ObjectStoragePath, task

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

EXPORT_WORKFLOW = "71002814653029449"
CREATE_TABLE = "CREATE TABLE IF NOT EXISTS prices (run VARCHAR(20), title VARCHAR(500), price DECIMAL(10, 2))"
COLUMNS = ("title", "price")

with DAG(
    "example_browseract_export",
    schedule=None,
    params={"keyword": "laptops", "store": "file:///tmp/browseract"},
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):
    export = RunWorkflowOperator(
        task_id="export",
        workflow_id=EXPORT_WORKFLOW,
        input_parameters={"keyword": "{{ params.keyword }}", "max_items": 3},
        output_path="{{ params.store }}",
        deferrable=True,
        outlets=[Asset("browseract_export")],
    )

    @task
    def load(run: str, results: dict[str, Any]) -> int:
        """Load the rows of all files, and return their number. A later try replaces the rows of an earlier one."""
        rows: list[tuple[str, ...]] = []
        for file in results["files"]:
            with ObjectStoragePath(file["path"]).open("r", encoding="utf-8-sig") as opened:
                text = io.StringIO(opened.read())
            rows += [(run, *(row[name] for name in COLUMNS)) for row in csv.DictReader(text)]
        warehouse = BaseHook.get_hook("warehouse")
        warehouse.run(CREATE_TABLE)
        warehouse.run(f"DELETE FROM prices WHERE run = {warehouse.placeholder}", parameters=(run,))
        warehouse.insert_rows("prices", rows, target_fields=("run", *COLUMNS))
        return len(rows)

    load(export.output["task_id"], export.output)
