"""The workflows, bots, official templates and regions of the emulator."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from airflow_provider_browseract.emulator.faults import CallbackFault

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

Outcome = Literal["finished", "failed", "canceled"]
OUTCOMES: tuple[Outcome, ...] = ("finished", "failed", "canceled")
BotType = Literal["workflow", "agent"]

PAGE_NOT_LOADED, BLOCKED = 10001, 1011
"""The only failure codes in BrowserAct's documents."""

LOGIN_REFUSED, INPUT_REFUSED = 10002, 10003
"""Failure codes that the emulator invents."""


MAX_FILES = 100
MAX_FILE_SIZE = 50 * 1024 * 1024
"""What BrowserAct allows for each run."""


class RunFailed(Exception):
    """Raised by a behaviour to end its run as ``failed`` with this code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class WorkflowInput:
    """An input parameter that a workflow declares."""

    name: str
    required: bool = True


@dataclass(frozen=True)
class EmulatedFile:
    """A file that a run produces or downloads.

    Output files are addresses in ``output.files``, as with "Output as file", and on API v3 objects in ``output_files``,
    by the format that their names end with. Downloads are objects in ``download_files``, as with files that the browser
    has downloaded.

    :param prepared_after: seconds after the end of the run from which the file is available (real time)
    :param broken: ``errorMessage`` of a download that never becomes available
    :param announced: size in bytes in a download's ``fileSize``, if it differs from the actual size
    """

    name: str
    content: bytes
    content_type: str = "application/octet-stream"
    prepared_after: float = 0.0
    broken: str | None = None
    announced: int | None = None


@dataclass(frozen=True)
class Output:
    """What a run produces: text, output files, downloads, or several of these.

    As on BrowserAct, a run has at most 100 files, and a file at most 50 MB.

    :param value: the output of a bot, which can be any JSON value but null. API v2 returns it as a text
    """

    string: str = ""
    files: tuple[EmulatedFile, ...] = ()
    downloads: tuple[EmulatedFile, ...] = ()
    value: Any = None

    def __post_init__(self) -> None:
        if self.value is not None:
            object.__setattr__(self, "string", self.value if isinstance(self.value, str) else json.dumps(self.value))
        stored = (*self.files, *self.downloads)
        if len(stored) > MAX_FILES:
            raise ValueError(f"a run has at most {MAX_FILES} files, got {len(stored)}")
        for file in stored:
            if len(file.content) > MAX_FILE_SIZE:
                raise ValueError(f"a file has at most {MAX_FILE_SIZE} bytes, but {file.name!r} has {len(file.content)}")


@dataclass(frozen=True)
class RunContext:
    """The data of a run that its behaviour can use.

    :param inputs: the input parameters by name; texts, or any JSON values with API v3
    :param cookies: the state of the run's browser profile. Changes are saved in the profile if the run was started with
        ``save_browser_data``
    :param confirmed: whether every pause was ended by ``resume-task`` and not by its time limit
    """

    inputs: Mapping[str, Any]
    cookies: dict[str, str]
    confirmed: bool = True


Behaviour = Callable[[RunContext], Output]
Workflow = TypeVar("Workflow", bound="EmulatedWorkflow")


class WorkflowSettings(TypedDict, total=False):
    """Settings that :meth:`Emulator.set_workflow` and :meth:`Emulator.next_run` can change; see EmulatedWorkflow."""

    name: str
    description: str
    published: bool
    inputs: tuple[WorkflowInput, ...]
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    ready: bool
    steps: tuple[str, ...]
    step_every: float | None
    behaviour: Behaviour
    duration: float
    queued: float
    outcome: Outcome
    failure: tuple[int, str]
    failed_step: int | None
    output: Any
    files: tuple[EmulatedFile, ...] | None
    downloads: tuple[EmulatedFile, ...] | None
    credits_per_step: int
    extra_credits: int
    file_lifetime: float
    output_after: float
    listed_after: float
    one_at_a_time: bool
    pause_at: float | None
    pausing_for: float
    pause_limit: float | None
    resume_after: float
    stop_after: float
    unknown_at: float | None
    unknown_for: float
    status: str | None
    callback_fault: CallbackFault | None


def no_output(_: RunContext) -> Output:
    """Produce nothing."""
    return Output()


@dataclass(frozen=True)
class EmulatedWorkflow:
    """A workflow of the emulated account, and the behaviour of its runs. API v3 serves it as a bot with the same id.

    All times are seconds at speed 1.

    :param inputs: the declared input parameters
    :param input_schema: the JSON Schema of the bot's ``input``. None means one that is made of ``inputs``, all of them
        texts
    :param output_schema: the JSON Schema of the bot's ``output``, if it has one. The emulator does not check outputs
    :param steps: the goal of each step; a run spreads them evenly over its duration
    :param step_every: time from the beginning of one step to the next in a run that never ends by itself. It repeats
        its steps until somebody stops it or it exceeds the longest duration, whatever its duration and outcome. None
        means that a run ends by itself
    :param behaviour: computes the output of a run that finishes, and may change its profile
    :param published: whether the workflow is published. A run of an unpublished workflow is refused
    :param duration: time in the status ``running``
    :param queued: time in the status ``created`` before that
    :param outcome: the status with which a run ends by itself
    :param failure: code and message in ``task_failure_info`` when the outcome is ``failed``
    :param failed_step: the step (from 1) at which a failing run ends; None means its last one
    :param output: text, or JSON value of a bot, that replaces the behaviour's
    :param files: output files that replace the behaviour's
    :param downloads: downloads that replace the behaviour's
    :param credits_per_step: the credits that each step uses
    :param extra_credits: the credits that a run uses besides those of its steps, as for a proxy. They are added when
        it ends
    :param file_lifetime: how long file links stay valid (real time, whatever the speed)
    :param output_after: how long after the end of a run its output, files and downloads appear
    :param listed_after: how long after its start a run appears in lists
    :param one_at_a_time: whether a run is refused while another one of this workflow is active, as with a
        Standard Browser. The code and the message of that refusal are not documented; see ``BROWSER_BUSY``
    :param pause_at: the fraction of the duration at which a run pauses for a human; None means never
    :param pausing_for: how long it is ``pausing`` before it is ``paused``
    :param pause_limit: how long a pause lasts if nobody resumes the run, which then continues unconfirmed. None
        means forever
    :param resume_after: how long a resumed run stays ``paused``
    :param stop_after: how long a run that is stopped stays as it is before it is ``canceled``
    :param unknown_at: the fraction of the duration from which the status is ``unknown``; None means never
    :param unknown_for: how long the status is ``unknown``
    :param status: a word that is reported instead of every status, to test clients with unknown statuses
    :param callback_fault: the fault of every callback of a run
    """

    id: str
    name: str
    description: str = ""
    inputs: tuple[WorkflowInput, ...] = ()
    input_schema: dict[str, Any] | None = field(default=None, hash=False)
    output_schema: dict[str, Any] | None = field(default=None, hash=False)
    steps: tuple[str, ...] = ("Open the page", "Collect the data", "Return the output")
    step_every: float | None = None
    behaviour: Behaviour = no_output
    published: bool = True
    created_at: str = "2026-01-05T08:00:00Z"
    published_at: str = "2026-01-06T08:00:00Z"
    duration: float = 2.0
    queued: float = 0.0
    outcome: Outcome = "finished"
    failure: tuple[int, str] = (PAGE_NOT_LOADED, "Navigation timeout")
    failed_step: int | None = None
    output: Any = field(default=None, hash=False)
    files: tuple[EmulatedFile, ...] | None = None
    downloads: tuple[EmulatedFile, ...] | None = None
    credits_per_step: int = 5
    extra_credits: int = 0
    file_lifetime: float = 24 * 3600.0
    output_after: float = 0.0
    listed_after: float = 0.0
    one_at_a_time: bool = False
    pause_at: float | None = None
    pausing_for: float = 0.0
    pause_limit: float | None = None
    resume_after: float = 0.0
    stop_after: float = 0.0
    unknown_at: float | None = None
    unknown_for: float = 0.0
    status: str | None = None
    callback_fault: CallbackFault | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("id must not be empty")
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}, got {self.outcome!r}")
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            if setting.type in ("float", "float | None") and value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{setting.name} must be a number from 0, got {value!r}")
            if setting.type == "int" and (type(value) is not int or value < 0):
                raise ValueError(f"{setting.name} must be a whole number from 0, got {value!r}")
        for name in ("pause_at", "unknown_at"):
            fraction = getattr(self, name)
            if fraction is not None and not 0 <= fraction <= 1:
                raise ValueError(f"{name} must be a fraction from 0 to 1, got {fraction!r}")
        # Checks the number and the sizes of the files, and whether the output is JSON.
        Output(files=self.files or (), downloads=self.downloads or (), value=self.output)
        if self.step_every == 0:
            raise ValueError("step_every must be more than 0")
        if not self.steps:
            raise ValueError("a workflow needs at least one step")
        if self.failed_step is not None and not 1 <= self.failed_step <= len(self.steps):
            raise ValueError(f"failed_step must be from 1 to {len(self.steps)}, got {self.failed_step!r}")

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its input on API v3."""
        if self.input_schema is not None:
            return self.input_schema
        return _object({one.name: TEXT for one in self.inputs}, [one.name for one in self.inputs if one.required])

    def having(self, **settings: Unpack[WorkflowSettings]) -> Self:
        """Return this workflow with some settings changed.

        :raises TypeError: if there is no setting with that name
        :raises ValueError: if a value is invalid
        """
        known = WorkflowSettings.__annotations__.keys() & {each.name for each in dataclasses.fields(self)}
        if unknown := settings.keys() - known:
            raise TypeError(f"no such setting: {', '.join(sorted(unknown))} (there are: {', '.join(sorted(known))})")
        changes: dict[str, Any] = {**settings}
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class EmulatedTemplate(EmulatedWorkflow):
    """An official workflow template.

    :param recommendation: its ``recommendDesc``
    :param detail_url: its public page
    """

    recommendation: str = ""
    detail_url: str = ""


@dataclass(frozen=True)
class EmulatedBot(EmulatedWorkflow):
    """A bot that only API v3 serves.

    :param bot_type: ``agent`` or ``workflow``
    :param ready: whether the language model of the bot is configured. Otherwise, a run is refused with 10021
    """

    bot_type: BotType = "agent"
    ready: bool = True


def _object(properties: dict[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """Return the schema of an object without other members."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT = {"type": "string"}

REGIONS = {"US": "United States", "UK": "United Kingdom", "DE": "Germany", "JP": "Japan"}
"""The proxy regions: names by code."""

SESSION_COOKIE = "session@shop.example"
WRONG_PASSWORD = "wrong"


def _number(*parts: str) -> int:
    """Return a number that depends only on the parts, so that outputs can be compared across runs."""
    digest = hashlib.sha256("\x00".join(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _as_json(value: Any) -> Output:
    return Output(json.dumps(value))


def _log_in(run: RunContext) -> Output:
    username = run.inputs["username"]
    if run.inputs["password"] == WRONG_PASSWORD:
        raise RunFailed(LOGIN_REFUSED, f"The site did not accept the password of {username}")
    run.cookies[SESSION_COOKIE] = username
    return _as_json({"logged_in": True, "username": username})


def orders_of(username: str) -> list[dict[str, Any]]:
    """Return the orders that "List orders" finds for a user."""
    return [
        {
            "order_id": f"A-{_number(username, 'order', str(n)) % 1_000_000:06d}",
            "customer": username,
            "total": _number(username, "total", str(n)) % 50_000 / 100,
        }
        for n in range(1 + _number(username) % 5)
    ]


def _list_orders(run: RunContext) -> Output:
    username = run.cookies.get(SESSION_COOKIE)
    if username is None:
        return _as_json({"logged_in": False, "message": "The page asks to log in"})
    return _as_json(orders_of(username))


def results_for(keyword: str, max_items: int = 10) -> list[dict[str, Any]]:
    """Return the rows that "Search" and "Export" find for a keyword."""
    return [
        {
            "rank": rank,
            "title": f"{keyword} {_number(keyword, str(rank)) % 1000}",
            "price": _number(keyword, "price", str(rank)) % 100_000 / 100,
            "url": f"https://shop.example/item/{_number(keyword, 'item', str(rank))}",
        }
        for rank in range(1, max_items + 1)
    ]


def _max_items(inputs: Mapping[str, str]) -> int:
    text = inputs.get("max_items", "10")
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise RunFailed(INPUT_REFUSED, f"max_items is not a number: {text!r}")
    return int(text)


def _search(run: RunContext) -> Output:
    return _as_json(results_for(run.inputs["keyword"], _max_items(run.inputs)))


def _csv_file(run: RunContext) -> EmulatedFile:
    rows = results_for(run.inputs["keyword"], _max_items(run.inputs))
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=["rank", "title", "price", "url"])
    writer.writeheader()
    writer.writerows(rows)
    # The CSV files of the service also begin with a byte order mark.
    return EmulatedFile("results.csv", table.getvalue().encode("utf-8-sig"), "text/csv")


def _export(run: RunContext) -> Output:
    return Output(files=(_csv_file(run),))


def _download(run: RunContext) -> Output:
    return Output(downloads=(_csv_file(run),))


def _plain_text(run: RunContext) -> Output:
    return Output(f"Everything about {run.inputs.get('topic', 'nothing in particular')}: it is sold out.")


def _ask_human(run: RunContext) -> Output:
    return _as_json({"confirmed": run.confirmed})


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
    # Another schema can allow other inputs.
    contact = contact_of(run.inputs.get("company_name", ""), int(run.inputs.get("max_pages", 3)))
    company, website = contact["company_name"], contact["official_website_url"]
    table = io.StringIO()
    csv.writer(table).writerows([["company_name", "official_website_url"], [company, website]])
    texts = {
        "json": (json.dumps(contact), "application/json"),
        "md": (f"# {company}\n\n{website}\n", "text/markdown"),
        "csv": (table.getvalue(), "text/csv"),
        "xml": (f"<contact><company>{escape(company)}</company></contact>", "application/xml"),
    }
    files = (EmulatedFile(f"result.{end}", text.encode(), kind) for end, (text, kind) in texts.items())
    return Output(value=contact, files=tuple(files))


def _compare_prices(run: RunContext) -> Output:
    limits, only_in_stock = run.inputs.get("price", {}), run.inputs.get("in_stock")
    offers = [
        {
            "product": product,
            "shop": f"{shop}.shop.example",
            "price": _number(product, shop) % 50_000 / 100,
            "in_stock": _number(shop, product) % 2 == 0,
        }
        for product in run.inputs.get("products", ())
        for shop in "ABC"[: int(run.inputs.get("max_offers", 3))]
    ]
    return Output(
        value=[
            offer
            for offer in offers
            if limits.get("min", 0) <= offer["price"] <= limits.get("max", math.inf)
            and (offer["in_stock"] or not only_in_stock)
        ]
    )


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
    created_at="2026-01-05T08:01:00Z",
)
SEARCH = EmulatedWorkflow(
    id="71002814653029437",
    name="Search",
    description="Searches shop.example for a keyword.",
    inputs=(WorkflowInput("keyword"), WorkflowInput("max_items", required=False)),
    steps=("Open the search page", "Search for the keyword", "Collect the results", "Return the output"),
    behaviour=_search,
    created_at="2026-01-05T08:02:00Z",
)
EXPORT = EmulatedWorkflow(
    id="71002814653029449",
    name="Export results",
    description="Searches shop.example and returns the results as a file.",
    inputs=(WorkflowInput("keyword"), WorkflowInput("max_items", required=False)),
    steps=("Open the search page", "Collect the results", "Upload the file"),
    behaviour=_export,
    created_at="2026-01-05T08:03:00Z",
)
DOWNLOAD = EmulatedWorkflow(
    id="71002814653029491",
    name="Download results",
    description="Searches shop.example and downloads the results in the browser.",
    inputs=(WorkflowInput("keyword"), WorkflowInput("max_items", required=False)),
    steps=("Open the search page", "Press the download button", "Wait for the download"),
    behaviour=_download,
    created_at="2026-01-05T08:08:00Z",
)
PLAIN_TEXT = EmulatedWorkflow(
    id="71002814653029451",
    name="Summarize a page",
    description="Returns a sentence of plain text.",
    inputs=(WorkflowInput("topic", required=False),),
    behaviour=_plain_text,
    created_at="2026-01-05T08:04:00Z",
)
HUMAN = EmulatedWorkflow(
    id="71002814653029467",
    name="Ask a human",
    description="Pauses half-way until somebody resumes it, or for 10 minutes.",
    steps=("Open the page", "Wait for a human to solve the challenge", "Return the output"),
    behaviour=_ask_human,
    pause_at=0.5,
    pause_limit=600.0,
    created_at="2026-01-05T08:05:00Z",
)
FAILING = EmulatedWorkflow(
    id="71002814653029473",
    name="Fail at a captcha",
    description="Fails at its second step.",
    steps=("Open the page", "Get past the captcha", "Collect the data", "Return the output"),
    outcome="failed",
    failure=(BLOCKED, "The page is blocked by a captcha that could not be solved"),
    failed_step=2,
    created_at="2026-01-05T08:06:00Z",
)
ENDLESS = EmulatedWorkflow(
    id="71002814653029503",
    name="Follow the next page",
    description="Opens the next page every 2 seconds until somebody stops it.",
    steps=("Collect the results", "Open the next page"),
    step_every=2.0,
    created_at="2026-01-05T08:09:00Z",
)
UNPUBLISHED = EmulatedWorkflow(
    id="71002814653029489",
    name="Still being built",
    description="Is not published, so it cannot be run.",
    published=False,
    created_at="2026-01-05T08:07:00Z",
)

TEMPLATE_SEARCH = EmulatedTemplate(
    id="52000417936205143",
    name="Product search",
    description="Searches a shop for products.",
    inputs=(WorkflowInput("keyword"), WorkflowInput("max_items", required=False)),
    behaviour=_search,
    recommendation="Compare prices",
    detail_url="https://www.browseract.com/template?id=52000417936205143",
    created_at="2025-11-03T08:00:00Z",
)
TEMPLATE_TEXT = EmulatedTemplate(
    id="52000417936205157",
    name="Page summary",
    description="Summarizes a page in one sentence.",
    inputs=(WorkflowInput("topic", required=False),),
    behaviour=_plain_text,
    recommendation="Keep an eye on a page",
    detail_url="https://www.browseract.com/template?id=52000417936205157",
    created_at="2025-11-03T08:01:00Z",
)
TEMPLATE_EXPORT = EmulatedTemplate(
    id="52000417936205169",
    name="Product export",
    description="Searches a shop for products and exports them as CSV.",
    inputs=(WorkflowInput("keyword"), WorkflowInput("max_items", required=False)),
    behaviour=_export,
    recommendation="Fill a spreadsheet",
    detail_url="https://www.browseract.com/template?id=52000417936205169",
    created_at="2025-11-03T08:02:00Z",
)

CONTACTS = EmulatedBot(
    id="82000518364027715",
    name="Find a contact",
    description="Finds the website and the profiles of a company.",
    input_schema=_object(
        {
            "company_name": {**TEXT, "minLength": 1, "maxLength": 200},
            "max_pages": {"type": "integer", "minimum": 1, "maximum": 100, "default": 3},
        },
        ["company_name"],
    ),
    output_schema=_object(
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
    created_at="2026-01-05T08:10:00Z",
)
PRICES = EmulatedBot(
    id="82000518364027729",
    name="Compare prices",
    description="Collects the offers of several shops for products.",
    input_schema=_object(
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
            "price": _object({"min": {"type": "number", "minimum": 0}, "max": {"type": "number", "minimum": 0}}),
            "coupon": {"type": ["string", "null"], "pattern": "^[A-Z0-9]{4,12}$"},
        },
        ["products", "country"],
    ),
    output_schema={
        "type": "array",
        "items": _object(
            {"product": TEXT, "shop": TEXT, "price": {"type": "number"}, "in_stock": {"type": "boolean"}},
            ["product", "shop", "price", "in_stock"],
        ),
    },
    steps=("Open the search page", "Search for the products", "Collect the prices", "Return the output"),
    behaviour=_compare_prices,
    created_at="2026-01-05T08:11:00Z",
)
AGENT_HUMAN = EmulatedBot(
    id="82000518364027743",
    name="Ask a human in the live view",
    description="Pauses half-way until a person has helped, or for 10 minutes. It cannot be resumed through the API.",
    steps=HUMAN.steps,
    behaviour=lambda run: Output(value={"confirmed": run.confirmed}),
    pause_at=0.5,
    pause_limit=600.0,
    created_at="2026-01-05T08:12:00Z",
)
NOT_READY = EmulatedBot(
    id="82000518364027757",
    name="Without a language model",
    description="Has no configured language model, so it cannot be run.",
    ready=False,
    created_at="2026-01-05T08:13:00Z",
)

WORKFLOWS = (LOG_IN, ORDERS, SEARCH, EXPORT, DOWNLOAD, PLAIN_TEXT, HUMAN, FAILING, ENDLESS, UNPUBLISHED)
TEMPLATES = (TEMPLATE_SEARCH, TEMPLATE_TEXT, TEMPLATE_EXPORT)
BOTS = (CONTACTS, PRICES, AGENT_HUMAN, NOT_READY)
