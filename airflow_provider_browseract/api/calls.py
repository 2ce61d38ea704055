"""Every endpoint of BrowserAct's API v2 as a function that returns a :class:`Call`.

A call is a plain value that can be compared, logged and tested without a network. A client sends it and passes the
response to :meth:`Call.read_response`. For an argument that cannot be used, the functions raise
:class:`~airflow_provider_browseract.api.arguments.InputError`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

from airflow_provider_browseract.api.arguments import InputError, read_choice, read_id
from airflow_provider_browseract.api.errors import (
    BY_CODE,
    BrowserActError,
    ConcurrencyLimitError,
    InsufficientCreditsError,
    NotTheApiError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnexpectedResponseError,
    UnknownRefusalError,
    WorkflowNotFoundError,
    error_class,
)
from airflow_provider_browseract.api.models import (
    CreatedTask,
    Page,
    Region,
    Task,
    TaskStatus,
    Template,
    Workflow,
    is_envelope_of_success,
    one_line,
    read_list,
    read_nothing,
    read_page,
    read_status,
)

T = TypeVar("T")
U = TypeVar("U")
PAGE_LIMIT = 500
"""The largest page that the API returns. The limit is always sent, because a page has only one item without it."""

MAX_PAGES = 1000
"""Pages after which a list counts as invalid."""

SUCCESS_CODES = (None, 0, "0")
"""Values of ``code`` in a successful response. Most responses have none."""

NO_SLOT_WORDS = re.compile(r"running tasks|concurren|parallel|one active task", re.IGNORECASE)
"""Words with which BrowserAct refuses a start without a free slot in responses whose code is not documented.

BrowserAct's own scripts look for words like these instead of a code. No code is documented for the second run of a
Standard Browser, which allows one run at a time.
"""

CREDIT_WORDS = re.compile(r"\bcredits?\b|\bbalance\b", re.IGNORECASE)
"""Words in BrowserAct's refusal of a start that are about credits. No code is documented for that."""

Pair = Mapping[str, str]
"""An input as the API takes it: ``{"name": ..., "value": ...}``, both strings."""


@dataclass(frozen=True)
class Response:
    """An HTTP response, from either HTTP library.

    :param status: HTTP status.
    :param headers: header names in lower case, with their values.
    :param body: the undecoded body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request to the API, and how to read its response.

    :param method: HTTP method.
    :param path: path below the base URL, with the version of the API.
    :param read: converts the decoded JSON of a successful response to a model.
    :param params: query parameters.
    :param body: JSON body, kept out of ``repr`` because inputs may be confidential.
    :param starts_run: whether sending the call twice would start, and bill, two runs.
    """

    method: str
    path: str
    read: Callable[[Any], T] = field(repr=False)
    params: Mapping[str, str | int] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    starts_run: bool = False

    @property
    def name(self) -> str:
        """The endpoint's name in the API, such as ``get-task``."""
        return self.path.rsplit("/", 1)[-1]

    def read_response(self, response: Response) -> T:
        """Convert an HTTP response to the result of the call.

        :raises BrowserActError: the call failed. The class depends on BrowserAct's code, or on the HTTP status.
        """
        if 200 <= response.status < 300:
            try:
                data = _decode(response)
                # No documented error has status 200, but such an error would still be an error.
                if isinstance(data, Mapping) and data.get("code") not in SUCCESS_CODES:
                    raise self._error(response, data)
                result = self.read(_unwrapped(data))
                return replace(result, served_at=_served_at(response)) if isinstance(result, Page) else result
            except UnexpectedResponseError as error:
                raise type(error)(
                    f"BrowserAct's response to {self.name} cannot be used: {error.message}",
                    http_status=response.status,
                ) from None
        is_page = False
        try:
            data = _decode(response)
        except UnexpectedResponseError as error:
            data, is_page = None, isinstance(error, NotTheApiError)
        raise self._error(response, data if isinstance(data, Mapping) else {}, is_page=is_page)

    def _error(self, response: Response, envelope: Mapping[str, Any], *, is_page: bool = False) -> BrowserActError:
        given = envelope.get("code")
        msg, trace_id = (one_line(envelope.get(name)) for name in ("msg", "traceId"))
        code = _code(given)
        kind = error_class(
            response.status, code, is_envelope=given is not None or bool(msg or trace_id), is_page=is_page
        )
        if issubclass(kind, NotTheApiError):
            return kind(f"The response to {self.name} is not from BrowserAct's API", http_status=response.status)
        # After any other status, such as a gateway's, it is not known whether the start was processed.
        undocumented = self.starts_run and code not in BY_CODE
        refused = 400 <= response.status < 500 and response.status != 408
        no_slot = undocumented and refused and NO_SLOT_WORDS.search(msg or "")
        if no_slot:
            kind = ConcurrencyLimitError
        elif undocumented and CREDIT_WORDS.search(msg or ""):
            kind = InsufficientCreditsError if issubclass(kind, UnknownRefusalError | PermissionDeniedError) else kind
        what = "BrowserAct refused the start: " if self.starts_run else f"BrowserAct refused {self.name}: "
        if issubclass(kind, ServerError):
            what = f"BrowserAct failed at {self.name}: "
        word = None if code is not None else one_line(given)
        error = kind(
            what + (": ".join(filter(None, (word, msg))) or "no reason given"),
            http_status=response.status,
            code=code,
            msg=msg,
            trace_id=trace_id,
            retry_after=_retry_after(response.headers.get("retry-after")),
            remedy=self._remedy(kind),
        )
        # HTTP 429 itself means that nothing was processed.
        if given and code not in BY_CODE and not isinstance(error, RateLimitError) and not no_slot:
            error.not_processed = _is_refusal(response.status, error, envelope)
        return error

    def _remedy(self, kind: type[BrowserActError]) -> str | None:
        """Return the remedy with the id from the call, or None to use the remedy of the class."""
        workflow_id = {**self.params, **(self.body or {})}.get("workflow_id")
        if not issubclass(kind, WorkflowNotFoundError) or workflow_id is None:
            return None
        return kind.remedy.replace("workflow_id", f"workflow_id {str(workflow_id)!r}", 1)


def _is_refusal(status: int, error: BrowserActError, envelope: Mapping[str, Any]) -> bool:
    """Return whether BrowserAct itself has certainly refused a call, although its code is not documented.

    Every error that the vendor documents is refused before a task exists: with HTTP 4xx, and an envelope with code,
    message and trace id, without data. No gateway writes such an envelope. So the start need not be looked up, which
    would take a minute and call a plain refusal, such as that of an account without credits, an unknown start.

    If BrowserAct nevertheless refused a start after it had created a task, a paid run would be active without an
    Airflow task that waits for it, but not more than one: the start is not sent again, and the Airflow task fails
    without retries (unless the reason is a lack of credits, without which nothing runs). After HTTP 408, 5xx or 200 and
    in any other form, the run is looked up, because something may have failed after the start. The same applies to 401,
    after which the client would send the start again with a new key.
    """
    is_whole = bool(error.code) and bool(error.msg) and bool(error.trace_id)
    has_data = any(envelope.get(name) for name in ("data", "id", "task_id"))
    return 400 <= status < 500 and status not in (401, 408) and is_whole and not has_data


def _code(given: Any) -> int | None:
    """Read the code of an envelope, a number that may be sent as text."""
    if isinstance(given, str):
        # Python refuses to read numbers of thousands of digits.
        return int(given) if given.isdecimal() and len(given) < 20 else None
    return int(given) if isinstance(given, int) else None


def _unwrapped(data: Any) -> Any:
    """Return the data of a response. According to the document, a few have it in ``{"code": 0, "data": ...}``."""
    return data["data"] if is_envelope_of_success(data) and "data" in data else data


def _decode(response: Response) -> Any:
    if not response.body.strip():
        return None
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        if response.body.lstrip().startswith(b"<"):
            raise NotTheApiError("it is a web page instead of JSON") from None
        raise UnexpectedResponseError("it is not complete JSON") from None


def _retry_after(value: str | None) -> float | None:
    """Read a ``Retry-After`` header, seconds or an HTTP date, as seconds from now."""
    if value is None:
        return None
    with suppress(ValueError):
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    moment = _http_date(value)
    return None if moment is None else max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def _served_at(response: Response) -> datetime | None:
    """Return the time of a response by the server's clock; None if there is none, or if it comes from a cache."""
    return None if "age" in response.headers else _http_date(response.headers.get("date", ""))


def _http_date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


class Pages(Generic[U]):
    """Go through the pages of a list up to its end.

    The document does not require any of the numbers of a page, so each of them may be missing, and a gateway may return
    the first page for every page. A list that contradicts itself is an error. If it counted as a short list, it would
    hide a run that uses credits.

    :param call: the call for the first page.
    """

    def __init__(self, call: Call[Page[U]]) -> None:
        self.call: Call[Page[U]] | None = call
        """The call for the next page; None after the last one."""

        self.skipped: list[str] = []
        """The items so far that could not be read, each with the reason."""

        self._seen: set[Any] = set()
        self._position = 0
        self._taken = 0
        self._total: int | None = None
        self._larger: list[int] = []
        """The limits that the pages had before they were divided, the largest first."""

    def take(self, page: Page[U]) -> list[U]:
        """Take the page that :attr:`call` returned, and set :attr:`call` to the next one.

        :returns: the items of the page, without those of earlier pages. Items move to a later page when new items are
            added to the front of the list.
        :raises UnexpectedResponseError: the numbers of the pages contradict the items.
        """
        if self.call is None:
            raise ValueError("the list has ended")
        # The number of the page comes from the request, because a response may have none.
        number, count, before = int(self.call.params["page"]), len(page.items) + len(page.skipped), self._position
        new = {getattr(item, "id", item): item for item in page.items}
        new = {key: item for key, item in new.items() if key not in self._seen}
        self._position += count
        self._taken += 1
        self._total = page.total_count
        self._seen |= new.keys()
        self.skipped += page.skipped
        if not new and not page.skipped:
            if not self._may_end(page, number, before):
                raise self._contradiction(number, page, "nothing new")
            self.call = None
            return []
        if page.total_count is not None and self._position > page.total_count:
            raise self._contradiction(number, page, f"item {self._position}")
        if page.total_count is None and page.total_pages is not None and number > page.total_pages:
            raise self._contradiction(number, page, f"{count} items")
        if not self._continues(page, number, count):
            self.call = None
        elif self._taken >= MAX_PAGES:
            raise self._contradiction(number, page, "a next page")
        else:
            self._proceed(number + 1)
        return list(new.values())

    def divide(self, error: BrowserActError) -> None:
        """Set :attr:`call` to a smaller page, because the page that it returned was too large to be read.

        A page with one item cannot be smaller, so the item is skipped. Later pages are larger again.

        :param error: the error of the call.
        """
        if self.call is None:
            raise ValueError("the list has ended")
        limit = int(self.call.params.get("limit", 1))
        if limit > 1:
            self._larger.append(limit)
            limit //= next(factor for factor in (2, 3, 5, limit) if limit % factor == 0)
            # If the position is within a page, items of that page are read again, and returned once.
            self._position -= self._position % limit
            self._set(limit, self._position // limit + 1)
            return
        self._position += 1
        self._taken += 1
        self.skipped.append(f"one without an id: {error.message}")
        if self._position == self._total:
            self.call = None
        elif self._taken >= MAX_PAGES:
            raise error
        else:
            self._proceed(self._position + 1)

    def _proceed(self, number: int) -> None:
        """Set :attr:`call` to a page; after pages were divided, to a larger one where such a page begins."""
        if self._larger and self._position % self._larger[-1] == 0:
            limit = self._larger.pop()
            self._set(limit, self._position // limit + 1)
        elif self.call is not None:
            self.call = replace(self.call, params={**self.call.params, "page": number})

    def _set(self, limit: int, number: int) -> None:
        assert self.call is not None
        self.call = replace(self.call, params={**self.call.params, "limit": limit, "page": number})

    def _may_end(self, page: Page[U], number: int, before: int) -> bool:
        """Return whether the list may end before a page without new items."""
        if page.total_count is not None:
            return before >= page.total_count
        if page.total_pages is not None:
            return number > page.total_pages or number == 1
        return not page.items

    def _continues(self, page: Page[U], number: int, count: int) -> bool:
        """Return whether another page may follow a page with new items."""
        more_pages = page.total_pages is not None and number < page.total_pages
        if page.total_count is not None:
            return more_pages or self._position < page.total_count
        if page.total_pages is not None:
            return more_pages
        # A page may be smaller than requested. Only a limit in the response shows that it is not full.
        return page.limit is None or count >= page.limit

    def _contradiction(self, number: int, page: Page[U], what: str) -> UnexpectedResponseError:
        assert self.call is not None
        numbers = f"total_count {page.total_count}, total_pages {page.total_pages}, limit {page.limit}"
        return UnexpectedResponseError(
            f"BrowserAct's responses to {self.call.name} contradict each other: page {number} has {what}, after "
            f"{self._position - len(page.items) - len(page.skipped)} items ({numbers})"
        )


def run_task(
    workflow_id: str,
    *,
    input_parameters: Sequence[Pair] = (),
    save_browser_data: bool = False,
    profile_id: str | None = None,
    callback_url: str | None = None,
    status_change_callback_url: str | None = None,
) -> Call[CreatedTask]:
    """Start a run of a workflow (``POST /v2/workflow/run-task``).

    :param workflow_id: the workflow to run.
    :param input_parameters: name/value pairs of strings.
    :param save_browser_data: save cookies and logins in a profile. The response then contains its id.
    :param profile_id: browser profile of an earlier run to start with.
    :param callback_url: called once when the task ends.
    :param status_change_callback_url: called at each change of status.
    """
    body = _given(
        workflow_id=read_id("workflow_id", workflow_id),
        input_parameters=[dict(pair) for pair in input_parameters],
        save_browser_data=save_browser_data,
        profile_id=_optional_id("profile_id", profile_id),
        callback_url=callback_url,
        status_change_callback_url=status_change_callback_url,
    )
    return Call("POST", "/v2/workflow/run-task", CreatedTask.read, body=body, starts_run=True)


def run_task_by_template(
    workflow_template_id: str,
    *,
    region: str | None = None,
    input_parameters: Sequence[Pair] = (),
    callback_url: str | None = None,
    status_change_callback_url: str | None = None,
) -> Call[CreatedTask]:
    """Start a run of an official template (``POST /v2/workflow/run-task-by-template``). Templates have no profiles.

    :param workflow_template_id: the template to run.
    :param region: code of the proxy region; the API's default is ``US``.
    :param input_parameters: name/value pairs of strings.
    :param callback_url: called once when the task ends.
    :param status_change_callback_url: called at each change of status.
    """
    body = _given(
        workflow_template_id=read_id("workflow_template_id", workflow_template_id),
        proxyRegion=_optional_id("region", region),
        input_parameters=[dict(pair) for pair in input_parameters],
        callback_url=callback_url,
        status_change_callback_url=status_change_callback_url,
    )
    return Call("POST", "/v2/workflow/run-task-by-template", CreatedTask.read, body=body, starts_run=True)


def get_task_status(task_id: str) -> Call[TaskStatus]:
    """Read only the status, the cheapest way to poll (``GET /v2/workflow/get-task-status``).

    :param task_id: the task to read.
    """
    return Call("GET", "/v2/workflow/get-task-status", read_status, {"task_id": read_id("task_id", task_id)})


def get_task(task_id: str) -> Call[Task]:
    """Read everything about a task (``GET /v2/workflow/get-task``).

    :param task_id: the task to read.
    """
    task_id = read_id("task_id", task_id)

    def read(data: Any) -> Task:
        task = Task.read(data)
        if task.id != task_id:
            raise UnexpectedResponseError("it is about another task")
        return task

    return Call("GET", "/v2/workflow/get-task", read, {"task_id": task_id})


def list_tasks(
    *,
    workflow_id: str | None = None,
    workflow_name: str | None = None,
    status: TaskStatus | str | None = None,
    created_at_from: datetime | None = None,
    created_at_to: datetime | None = None,
    page: int = 1,
    limit: int = PAGE_LIMIT,
) -> Call[Page[Task]]:
    """List tasks by creation time (``GET /v2/workflow/list-tasks``).

    :param workflow_id: only tasks of this workflow.
    :param workflow_name: only tasks of workflows whose name contains this. Case does not matter.
    :param status: only tasks with this status.
    :param created_at_from: only tasks created at this time or later; needs a time zone.
    :param created_at_to: only tasks created at this time or earlier; needs a time zone.
    :param page: page number, from 1.
    :param limit: tasks a page, 1 to 500.
    """
    params = _given(
        workflow_id=_optional_id("workflow_id", workflow_id),
        workflow_name=workflow_name,
        status=None if status is None else read_choice("status", status, TaskStatus).value,
        created_at_from=_utc("created_at_from", created_at_from),
        created_at_to=_utc("created_at_to", created_at_to),
        page=page,
        limit=limit,
    )
    return Call("GET", "/v2/workflow/list-tasks", read_page(Task.read), params)


def stop_task(task_id: str, *, biz_code: int | None = None) -> Call[None]:
    """Cancel a task at once (``PUT /v2/workflow/stop-task``).

    :param task_id: the task to cancel.
    :param biz_code: a number for the caller's own statistics.
    """
    params = _given(task_id=read_id("task_id", task_id), biz_code=biz_code)
    return Call("PUT", "/v2/workflow/stop-task", read_nothing, params)


def resume_task(task_id: str) -> Call[None]:
    """Resume a paused task (``PUT /v2/workflow/resume-task``).

    :param task_id: the task that waits for a person.
    """
    return Call("PUT", "/v2/workflow/resume-task", read_nothing, {"task_id": read_id("task_id", task_id)})


def list_workflows(*, page: int = 1, limit: int = PAGE_LIMIT) -> Call[Page[Workflow]]:
    """List the account's workflows (``GET /v2/workflow/list-workflows``).

    :param page: page number, from 1.
    :param limit: workflows a page, 1 to 500.
    """
    params = {"page": page, "limit": limit}
    return Call("GET", "/v2/workflow/list-workflows", read_page(Workflow.read), params)


def get_workflow(workflow_id: str) -> Call[Workflow]:
    """Read a workflow with the inputs that it takes (``GET /v2/workflow/get-workflow``).

    :param workflow_id: the workflow to read.
    """
    params = {"workflow_id": read_id("workflow_id", workflow_id)}
    return Call("GET", "/v2/workflow/get-workflow", Workflow.read, params)


def list_official_workflow_templates(
    *, keyword: str | None = None, page: int = 1, limit: int = PAGE_LIMIT
) -> Call[Page[Template]]:
    """List official templates (``GET /v2/workflow/list-official-workflow-templates``).

    :param keyword: only templates whose name or description contains this.
    :param page: page number, from 1.
    :param limit: templates a page, 1 to 500.
    """
    params = _given(keyword=keyword, page=page, limit=limit)
    return Call("GET", "/v2/workflow/list-official-workflow-templates", read_page(Template.read), params)


def get_official_workflow_template(workflow_template_id: str) -> Call[Template]:
    """Read a template with the inputs that it takes (``GET /v2/workflow/get-official-workflow-template``).

    :param workflow_template_id: the template to read.
    """
    params = {"workflow_template_id": read_id("workflow_template_id", workflow_template_id)}
    return Call("GET", "/v2/workflow/get-official-workflow-template", Template.read, params)


def get_region_list() -> Call[tuple[Region, ...]]:
    """List the proxy regions for template runs (``GET /v2/workflow/get-region-list``)."""
    return Call("GET", "/v2/workflow/get-region-list", read_list(Region.read))


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _optional_id(argument: str, value: str | None) -> str | None:
    return None if value is None else read_id(argument, value)


def _utc(argument: str, moment: datetime | None) -> str | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InputError(f"{argument} is {moment.isoformat()}, which has no time zone. Pass a datetime with one.")
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
