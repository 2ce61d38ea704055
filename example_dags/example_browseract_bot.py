"""Run a bot with typed inputs, and use a value of its output.

Replace before you use it:

- `CONTACTS_BOT`: the id of your bot. This id belongs to the emulator; `BrowserActHook().iter_bots()` lists your bots.
- `input`: the input of your bot, as its schema describes it.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_browseract.operators.browseract import RunBotOperator

CONTACTS_BOT = "82000518364027715"

with DAG(
    "example_browseract_bot",
    schedule=None,
    params={"company": "Example Corp", "pages": 2},
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):
    find = RunBotOperator(
        task_id="find",
        bot_id=CONTACTS_BOT,
        # Rendered, the number is the text "2". The bot's schema asks for an integer, so 2 is sent.
        input={"company_name": "{{ params.company }}", "max_pages": "{{ params.pages }}"},
        deferrable=True,
    )

    @task
    def website(contact: dict[str, Any]) -> str:
        """Pick the address of the company's website."""
        return str(contact["official_website_url"])

    website(find.output)
