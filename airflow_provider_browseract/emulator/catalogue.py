"""The workflows, bots, official templates and regions of the emulator."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
from html import escape
from typing import Any

from airflow_provider_browseract.emulator.workflow import (
    TEXT,
    EmulatedFile,
    EmulatedWorkflow,
    Output,
    RunContext,
    RunFailed,
    WorkflowInput,
    object_of,
)

REGIONS = {"US": "United States", "UK": "United Kingdom", "DE": "Germany", "JP": "Japan"}
"""The proxy regions: names by code."""

SESSION_COOKIE = "session@shop.example"
WRONG_PASSWORD = "wrong"


def number_from(*parts: str) -> int:
    """Return a number that depends only on the parts, so that outputs can be compared across runs."""
    return int.from_bytes(hashlib.sha256("\x00".join(parts).encode()).digest()[:4], "big")


# The failure codes 10002 and 10003 are invented.
def _log_in(run: RunContext) -> Output:
    username = run.inputs["username"]
    if run.inputs["password"] == WRONG_PASSWORD:
        raise RunFailed(10002, f"The site did not accept the password of {username}")
    run.cookies[SESSION_COOKIE] = username
    return Output({"logged_in": True, "username": username})


def orders_of(username: str) -> list[dict[str, Any]]:
    """Return the orders that "List orders" finds for a user."""
    return [
        {
            "order_id": f"A-{number_from(username, 'order', str(n)) % 1_000_000:06d}",
            "customer": username,
            "total": number_from(username, "total", str(n)) % 50_000 / 100,
        }
        for n in range(1 + number_from(username) % 5)
    ]


def _list_orders(run: RunContext) -> Output:
    username = run.cookies.get(SESSION_COOKIE)
    if username is None:
        return Output({"logged_in": False, "message": "The page asks to log in"})
    return Output(orders_of(username))


def results_for(keyword: str, max_items: int = 10) -> list[dict[str, Any]]:
    """Return the rows that "Search" and "Export" find for a keyword."""
    return [
        {
            "rank": rank,
            "title": f"{keyword} {number_from(keyword, str(rank)) % 1000}",
            "price": number_from(keyword, "price", str(rank)) % 100_000 / 100,
            "url": f"https://shop.example/item/{number_from(keyword, 'item', str(rank))}",
        }
        for rank in range(1, max_items + 1)
    ]


def _search(run: RunContext) -> Output:
    text = run.inputs.get("max_items", "10")
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise RunFailed(10003, f"max_items is not a number: {text!r}")
    return Output(results_for(run.inputs["keyword"], int(text)))


def _export(run: RunContext) -> Output:
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=["rank", "title", "price", "url"])
    writer.writeheader()
    writer.writerows(_search(run).value)
    # The CSV files of the service also begin with a byte order mark.
    return Output(files=(EmulatedFile("results.csv", table.getvalue().encode("utf-8-sig"), "text/csv"),))


def contact_of(company: str, max_pages: int = 3) -> dict[str, Any]:
    """Return what "Find a contact" finds for a company."""
    name = "".join(char for char in company.lower() if char.isascii() and char.isalnum()) or "company"
    return {
        "company_name": company,
        "official_website_url": f"https://{name}.example",
        "facebook_url": None,
        "pages": [f"https://{name}.example/{page}" for page in ("", "about", "contact")][:max_pages],
    }


def _find_contact(run: RunContext) -> Output:
    contact = contact_of(run.inputs.get("company_name", ""), int(run.inputs.get("max_pages", 3)))
    company, website = contact["company_name"], contact["official_website_url"]
    texts = {
        "json": (json.dumps(contact), "application/json"),
        "md": (f"# {company}\n\n{website}\n", "text/markdown"),
        "csv": (f"official_website_url\n{website}\n", "text/csv"),
        "xml": (f"<website>{escape(website)}</website>", "application/xml"),
    }
    files = (EmulatedFile(f"result.{end}", text.encode(), kind) for end, (text, kind) in texts.items())
    return Output(contact, tuple(files))


LOG_IN = EmulatedWorkflow(
    id="71002814653029411",
    name="Log in",
    description="Logs in to shop.example and leaves the session in the browser profile.",
    inputs=(WorkflowInput("username"), WorkflowInput("password")),
    steps=("Open the log-in page", "Fill in the form", "Wait for the account page"),
    behaviour=_log_in,
    one_at_a_time=True,
)
ORDERS = EmulatedWorkflow(
    id="71002814653029423",
    name="List orders",
    description="Lists the orders of the user who is logged in to shop.example.",
    steps=("Open the account page", "Open the list of orders", "Collect the orders", "Return the output"),
    behaviour=_list_orders,
    one_at_a_time=True,
)
SEARCH = EmulatedWorkflow(
    id="71002814653029437",
    name="Search",
    description="Searches shop.example for a keyword.",
    inputs=(WorkflowInput("keyword"), WorkflowInput("max_items", required=False)),
    steps=("Open the search page", "Search for the keyword", "Collect the results", "Return the output"),
    behaviour=_search,
)
EXPORT = dataclasses.replace(
    SEARCH,
    id="71002814653029449",
    name="Export results",
    description="Searches shop.example and returns the results as a file.",
    steps=("Open the search page", "Collect the results", "Upload the file"),
    behaviour=_export,
)
HUMAN = EmulatedWorkflow(
    id="71002814653029467",
    name="Ask a human",
    description="Pauses half-way until somebody resumes it, or for 10 minutes.",
    steps=("Open the page", "Wait for a human to solve the challenge", "Return the output"),
    behaviour=lambda run: Output({"confirmed": run.confirmed}),
    pause_at=0.5,
    pause_limit=600.0,
)
ENDLESS = EmulatedWorkflow(
    id="71002814653029503",
    name="Follow the next page",
    description="Opens the next page every 2 seconds until somebody stops it.",
    steps=("Collect the results", "Open the next page"),
    step_every=2.0,
)

TEMPLATE_SEARCH = dataclasses.replace(
    SEARCH,
    kind="template",
    id="52000417936205143",
    name="Product search",
    description="Searches a shop for products.",
    detail_url="https://www.browseract.com/template?id=52000417936205143",
)

CONTACTS = EmulatedWorkflow(
    kind="bot",
    id="82000518364027715",
    name="Find a contact",
    description="Finds the website and the profiles of a company.",
    input_schema=object_of(
        {
            "company_name": {**TEXT, "minLength": 1, "maxLength": 200},
            "max_pages": {"type": "integer", "minimum": 1, "maximum": 100, "default": 3},
        },
        ["company_name"],
    ),
    output_schema=object_of(
        {
            "company_name": TEXT,
            "official_website_url": TEXT,
            "facebook_url": {"type": ["string", "null"]},
            "pages": {"type": "array", "items": TEXT},
        },
        ["company_name", "official_website_url"],
    ),
    steps=("Search for the company", "Open the page of the company", "Collect the profiles"),
    behaviour=_find_contact,
)
AGENT_HUMAN = dataclasses.replace(
    HUMAN,
    kind="bot",
    id="82000518364027743",
    name="Ask a human in the live view",
    description="Pauses half-way until a person has helped, or for 10 minutes. It cannot be resumed through the API.",
)

WORKFLOWS = (LOG_IN, ORDERS, SEARCH, EXPORT, HUMAN, ENDLESS, TEMPLATE_SEARCH, CONTACTS, AGENT_HUMAN)
