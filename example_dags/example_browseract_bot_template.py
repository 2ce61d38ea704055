"""Run an official template as a bot, once for each keyword.

Replace before you use it:

- `SEARCH_TEMPLATE`: the id of a template. This id belongs to the emulator; `BrowserActHook().iter_bot_templates()`
  lists the templates of BrowserAct.
- `region`: a code from `BrowserActHook().get_bot_region_list()`.
"""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_browseract.operators.browseract import RunBotTemplateOperator

SEARCH_TEMPLATE = "52000417936205143"

with DAG(
    "example_browseract_bot_template",
    schedule=None,
    params={"keywords": ["laptops", "phones"]},
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):

    @task
    def inputs(params: dict[str, list[str]]) -> list[dict[str, str]]:
        """Return the input of each run."""
        return [{"keyword": keyword, "max_items": "3"} for keyword in params["keywords"]]

    RunBotTemplateOperator.partial(task_id="search", template_id=SEARCH_TEMPLATE, region="DE", deferrable=True).expand(
        input=inputs()
    )
