"""Run an official template of BrowserAct, from a country of your choice.

Two operators run templates: one as a workflow, one as a bot. A DAG of your own needs only one of the two tasks.

Replace before you use it:

- `SEARCH_TEMPLATE`: the id of a template. This id belongs to the emulator.
  `BrowserActHook().iter_official_workflow_templates()` lists the templates for `RunTemplateOperator`, and
  `BrowserActHook().iter_bot_templates()` those for `RunBotTemplateOperator`.
- `region`: a code from `BrowserActHook().get_region_list()` for `RunTemplateOperator`, and from
  `BrowserActHook().get_bot_region_list()` for `RunBotTemplateOperator`.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunBotTemplateOperator, RunTemplateOperator

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
    RunBotTemplateOperator(
        task_id="search_as_bot",
        template_id=SEARCH_TEMPLATE,
        region="DE",
        input={"keyword": "{{ params.keyword }}", "max_items": "3"},
        deferrable=True,
    )
