"""Workflows, bots and templates that only tests need: :func:`add` adds them to an emulator."""

from __future__ import annotations

from typing import Any

from airflow_provider_browseract.emulator import (
    EXPORT,
    LOG_IN,
    ORDERS,
    EmulatedWorkflow,
    Emulator,
    Output,
    RunContext,
    WorkflowInput,
)
from airflow_provider_browseract.emulator.workflow import BLOCKED, TEXT, object_of
from tests.helpers.demos import respond_as_in_the_demos


def _download(run: RunContext) -> Output:
    return Output(downloads=EXPORT.behaviour(run).files)


def _plain_text(run: RunContext) -> Output:
    return Output(f"Everything about {run.inputs.get('topic', 'nothing in particular')}: it is sold out.")


DOWNLOAD = EmulatedWorkflow(
    id="71002814653029491",
    name="Download results",
    description="Searches shop.example and downloads the results in the browser.",
    inputs=(WorkflowInput("keyword"), WorkflowInput("max_items", required=False)),
    steps=("Open the search page", "Press the download button", "Wait for the download"),
    behaviour=_download,
)

PLAIN_TEXT = EmulatedWorkflow(
    id="71002814653029451",
    name="Summarize a page",
    description="Returns a sentence of plain text.",
    inputs=(WorkflowInput("topic", required=False),),
    behaviour=_plain_text,
)

FAILING = EmulatedWorkflow(
    id="71002814653029473",
    name="Fail at a captcha",
    description="Fails at its second step.",
    steps=("Open the page", "Get past the captcha"),
    outcome="failed",
    failure=(BLOCKED, "The page is blocked by a captcha that could not be solved"),
)

UNPUBLISHED = EmulatedWorkflow(
    id="71002814653029489",
    name="Still being built",
    description="Is not published, so it cannot be run.",
    published=False,
)

TEMPLATE_TEXT = EmulatedWorkflow(
    kind="template",
    id="52000417936205157",
    name="Page summary",
    description="Summarizes a page in one sentence.",
    inputs=(WorkflowInput("topic", required=False),),
    behaviour=_plain_text,
    detail_url="https://www.browseract.com/template?id=52000417936205157",
)

TEMPLATE_EXPORT = EmulatedWorkflow(
    kind="template",
    id="52000417936205169",
    name="Product export",
    description="Searches a shop for products and exports them as CSV.",
    inputs=(WorkflowInput("keyword"), WorkflowInput("max_items", required=False)),
    behaviour=EXPORT.behaviour,
    detail_url="https://www.browseract.com/template?id=52000417936205169",
)

PRICES = EmulatedWorkflow(
    kind="bot",
    id="82000518364027729",
    name="Compare prices",
    description="Collects the offers of several shops for products.",
    input_schema=object_of(
        {
            "products": {
                "type": "array",
                "items": {**TEXT, "minLength": 1, "maxLength": 80},
                "minItems": 1,
                "maxItems": 10,
                "uniqueItems": True,
            },
            "country": {**TEXT, "enum": ["US", "UK", "DE", "JP"]},
            "max_offers": {"type": "integer", "minimum": 1, "maximum": 20, "default": 3},
            "in_stock": {"type": "boolean", "default": False},
            "price": object_of({"min": {"type": "number", "minimum": 0}, "max": {"type": "number", "minimum": 0}}),
            "coupon": {"type": ["string", "null"], "pattern": "^[A-Z0-9]{4,12}$"},
        },
        ["products", "country"],
    ),
    steps=("Open the search page", "Search for the products", "Collect the prices", "Return the output"),
    output=[{"product": "paper", "shop": "A.shop.example", "price": 9.5, "in_stock": True}],
)

ADDED = (DOWNLOAD, PLAIN_TEXT, FAILING, UNPUBLISHED, TEMPLATE_TEXT, TEMPLATE_EXPORT, PRICES)


def prepare(emulator: Any) -> Any:
    """Add them to an emulator on a plan of 5, where any workflow may have several runs at once, and return it."""
    emulator.concurrency = 5
    for workflow in (LOG_IN, ORDERS):
        emulator.set_workflow(workflow.id, one_at_a_time=False)
    return respond_as_in_the_demos(add(emulator))


def add(emulator: Emulator) -> Emulator:
    """Add them to an emulator, and return it."""
    for workflow in ADDED:
        emulator.add_workflow(workflow)
    return emulator
