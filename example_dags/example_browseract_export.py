"""Write the results of a run to object storage, and read each file in its own task.

The operator passes only paths through XCom.

Replace before you use it:

- `EXPORT_WORKFLOW`: the id of your workflow, as the BrowserAct dashboard shows it. This id belongs to the emulator.
- `params.store`: the folder for the results, as `ObjectStoragePath` takes it, such as
  `s3://aws_default@bucket/browseract`. For S3, install `apache-airflow-providers-amazon[s3fs]`. The folder `/tmp` works
  only if all workers run on one machine.
- `load`: what is to be done with the rows.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from airflow.sdk import DAG, Asset, ObjectStoragePath, task

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

EXPORT_WORKFLOW = "71002814653029449"

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
    def files(results: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the files of the run."""
        return results["files"]

    @task
    def load(file: dict[str, Any]) -> list[dict[str, str]]:
        """Return the rows of one file. Load them into your database here."""
        with ObjectStoragePath(file["path"]).open("r", encoding="utf-8-sig") as opened:
            return list(csv.DictReader(io.StringIO(opened.read())))

    load.expand(file=files(export.output))
