"""Run one of BrowserAct's official templates, from a country of your choice."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunTemplateOperator

# The id of a template in the emulator. BrowserActHook().iter_official_workflow_templates() lists those of BrowserAct.
SEARCH_TEMPLATE = "52000417936205143"

with DAG(
    "example_browseract_template",
    schedule=None,
    params={"keyword": "laptops"},
    default_args={"retries": 2},
    tags=["browseract"],
):
    RunTemplateOperator(
        task_id="search",
        workflow_template_id=SEARCH_TEMPLATE,
        region="DE",
        input_parameters={"keyword": "{{ params.keyword }}", "max_items": 3},
        deferrable=True,
    )
