"""Run one of BrowserAct's official templates, from a country of your choice.

Replace before you use it:

- `SEARCH_TEMPLATE`: the id of a template. This id belongs to the emulator;
  `BrowserActHook().iter_official_workflow_templates()` lists the templates of BrowserAct.
- `region`: a code from `BrowserActHook().get_region_list()`.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunTemplateOperator

SEARCH_TEMPLATE = "52000417936205143"

with DAG(
    "example_browseract_template",
    schedule=None,
    params={"keyword": "laptops"},
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):
    RunTemplateOperator(
        task_id="search",
        workflow_template_id=SEARCH_TEMPLATE,
        region="DE",
        input_parameters={"keyword": "{{ params.keyword }}", "max_items": 3},
        deferrable=True,
    )
