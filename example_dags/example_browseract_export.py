"""Results go to object storage, and each file on to a task of its own.

`store` may be anything that `ObjectStoragePath` takes, such as `s3://aws_default@bucket/browseract`; for S3 install
`apache-airflow-providers-amazon[s3fs]`. Through XCom go nothing but the paths.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from airflow.sdk import DAG, Asset, ObjectStoragePath, task

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

# The id of a workflow in the emulator. Put your own here, as the BrowserAct dashboard shows it.
EXPORT_WORKFLOW = "71002814653029449"

with DAG(
    "example_browseract_export",
    schedule=None,
    params={"keyword": "laptops", "store": "file:///tmp/browseract"},
    default_args={"retries": 2},
    tags=["browseract"],
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
        """Take the files out of what the run has written."""
        return results["files"]

    @task
    def load(file: dict[str, Any]) -> list[dict[str, str]]:
        """Read the rows of one file, and load them wherever they belong."""
        with ObjectStoragePath(file["path"]).open("r", encoding="utf-8-sig") as opened:
            return list(csv.DictReader(io.StringIO(opened.read())))

    load.expand(file=files(export.output))
