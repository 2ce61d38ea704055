"""What the questions of ``make live`` share: calls of one version of the API, the table, and what is secret in it."""

from __future__ import annotations

import contextlib
import json
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from airflow_provider_browseract.api.calls import CODES, Call
from airflow_provider_browseract.exceptions import BrowserActError, ConcurrencyLimitError, RateLimitError
from airflow_provider_browseract.runs.report import number_of

ENDED = ("finished", "failed", "canceled")
POLL_INTERVAL = 1.0
"""Seconds between two polls of the run; short, to see how late its output comes."""

STOP_ATTEMPTS = 3
"""How often a run that is still active at the end is tried to be stopped."""

TASK_ENDED = 10121
"""The code with which BrowserAct may answer the stop of a run that has ended."""

LATE = 20.0
"""Seconds for which a run is watched after its end, because its output, credits and callback may come late."""

LISTED = 2.0
"""Seconds after which the provider expects a new run in the list of tasks."""

WHILE_ACTIVE = "How is a start answered while a run is active?"

PLAN_HAS_SLOTS = "Not seen: the plan allows another run. Use an account of the free plan."

EXCHANGE = "airflow_provider_browseract/api/calls.py"

SHOWN_CREDITS = 3
"""How many of the first and of the last values of the credits are reported."""

WIDTH = 100
"""Columns of the table."""

OPEN = {
    "status",
    "bot_type",
    "code",
    "msg",
    "traceId",
    "error",
    "default_enabled",
    "page",
    "limit",
    "total_pages",
    "total_count",
}
"""Fields whose values are shown as they are, apart from what is secret in them."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,24}")
"""What names in the query of an address look like; anything else may be a token."""

LARGEST_NUMBER = 10**6
"""Numbers from this on may be ids. Moments are longer, and are shown by their length as well."""


@dataclass(frozen=True)
class Version:
    """Where the questions find things in one version of the API.

    :param task_id: the field with the id of a task.
    :param source_id: the parameter of the list that selects a workflow or bot; None if there is none.
    :param task: the path of a task. ``{}`` stands for its id, as in the next two.
    :param stop: the method and the path of a stop.
    :param resume: those of a resume.
    :param tasks: the path of the list of tasks.
    :param limit: the largest page of that list.
    """

    task_id: str
    source_id: str | None
    task: str
    stop: tuple[str, str]
    resume: tuple[str, str]
    tasks: str
    limit: int


@dataclass(frozen=True)
class Settings:
    """The settings of the checks.

    :param url: address of the API.
    :param api_key: the API key.
    :param source_id: the id of what is run, which is published and has some output.
    :param inputs: its inputs.
    :param callback_url: public address of the port below; None to skip callbacks.
    :param callback_port: port of this machine.
    :param timeout: seconds that the run may take.
    """

    url: str
    api_key: str = field(repr=False)
    source_id: str
    inputs: dict[str, Any] = field(default_factory=dict, repr=False)
    callback_url: str | None = None
    callback_port: int = 8765
    timeout: float = 900.0


@dataclass
class Live:
    """Raw calls of the API, because the provider's own client would hide the details to check.

    :param settings: the settings.
    """

    settings: Settings
    version: Version
    answers: list[tuple[str, str]] = field(default_factory=list)
    payloads: list[tuple[str, Any]] = field(default_factory=list)
    active: set[str] = field(default_factory=set)
    limits: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        given = self.settings
        self.secrets = {given.api_key, *texts_in(given.inputs), given.source_id, given.callback_url or ""} - {""}
        key = {"Authorization": f"Bearer {self.settings.api_key}"}
        self.http = httpx.Client(base_url=self.settings.url, headers=key, timeout=60.0)

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request, and keep the headers that are about limits."""
        response = self.http.request(method, path, **request)
        self.limits |= {name for name in response.headers if "ratelimit" in name or name == "retry-after"}
        return response

    def tell(self, question: str, answer: str, payload: Any = None) -> None:
        """Add a row to the table, with a payload after it."""
        self.answers.append((question, answer))
        if payload is not None:
            self.payloads.append((question, payload))

    def start(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Start a run, which is stopped at the end if it is still active then.

        :raises httpx.HTTPError: there is no response. The possible runs are also stopped at the end.
        """
        since = datetime.now(timezone.utc)
        try:
            response = self.send("POST", path, json=body)
        except httpx.HTTPError:
            self.active |= self._started_since(since)
            raise
        task_id = self.id_of(response)
        if task_id is not None:
            self.active.add(task_id)
        elif response.status_code >= 500:
            self.active |= self._started_since(since)
        return response

    def id_of(self, response: httpx.Response) -> str | None:
        """Return the id of the task in the response to a start."""
        task_id = value_of(response, self.version.task_id) or value_of(response, "id")
        return None if task_id is None else str(task_id)

    def listed(self, since: datetime, **filters: str) -> list[dict[str, Any]]:
        """Return the newest tasks that were created since a moment."""
        moment = since.strftime("%Y-%m-%dT%H:%M:%SZ")
        query = {"created_at_from": moment, "limit": self.version.limit, **filters}
        items = value_of(self.send("GET", self.version.tasks, params=query), "items")
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    def _started_since(self, since: datetime) -> set[str]:
        """Return the runs of the source that were started since a moment."""
        given = self.version.source_id
        try:
            tasks = self.listed(since, **({given: self.settings.source_id} if given else {}))
            if given is None and tasks:
                raise KeyError
            return {str(task[self.version.task_id]) for task in tasks}
        except (httpx.HTTPError, KeyError):
            self.lost.append("a start was not answered, and a run may be running")
            return set()

    def stop(self, task_id: str) -> httpx.Response:
        """Stop a run."""
        method, path = self.version.stop
        response = self.send(method, path.format(task_id))
        if response.is_success or value_of(response, "code") == TASK_ENDED:
            self.active.discard(task_id)
        return response

    def resume(self, task_id: str) -> httpx.Response:
        """Resume a run."""
        method, path = self.version.resume
        return self.send(method, path.format(task_id))

    def task(self, task_id: str) -> dict[str, Any]:
        """Read a run."""
        value = json_of(self.send("GET", self.version.task.format(task_id)))
        return value if isinstance(value, dict) else {}


def texts_in(value: Any) -> set[str]:
    """Return the texts in inputs, which no message may quote. Shorter ones are in every other text."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return {text for part in parts for text in texts_in(part)}
    return {value} if isinstance(value, str) and len(value) > 1 else set()


def json_of(response: httpx.Response) -> Any:
    """Return the body of a response as a value, as text if it is not JSON, or None if it is empty."""
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        return response.text


def value_of(response: httpx.Response, name: str) -> Any:
    """Return a field of a response that is an object, wrapped or not."""
    value = json_of(response)
    value = value.get("data", value) if isinstance(value, dict) and value.get("data") else value
    return value.get(name) if isinstance(value, dict) else None


def outcome(response: httpx.Response) -> str:
    """Describe the response to a request: the HTTP status, and BrowserAct's code and message if there are any."""
    value = json_of(response)
    if isinstance(value, dict) and "code" in value:
        return f"HTTP {response.status_code}, code {value['code']}: {value.get('msg')}"
    kind = "an empty body" if value is None else f"JSON ({type(value).__name__})"
    return f"HTTP {response.status_code}, {'no JSON' if isinstance(value, str) else kind}"


def redacted(value: Any, name: str = "") -> Any:
    """Return a payload without what may be secret."""
    if isinstance(value, dict):
        return {key: redacted(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [redacted(part, name) for part in value[:3]] + ([f"... {len(value) - 3} more"] if len(value) > 3 else [])
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= LARGEST_NUMBER:
        return f"(number of {len(str(value))} characters)"
    if not isinstance(value, str) or not value or name in OPEN:
        return value
    if re.fullmatch(r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?", value):
        return value
    if re.fullmatch(r"\d{6,}", value):
        return f"...{value[-3:]} ({len(value)} digits)"
    return redacted_address(value) or f"(text of {len(value)} characters)"


def redacted_address(text: str) -> str | None:
    """Return an address with no more than its host and the names in its query; None if the text is no address."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https"):
        return None
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    names = [name if NAME.fullmatch(name) and value.strip("=") else "?" for name, value in pairs]
    return f"{parts.scheme}://{parts.hostname}/... (query: {', '.join(names) or 'none'})"


class Receiver:
    """Receives callbacks, and keeps when they came and what they had.

    :param port: the port to listen at.
    """

    def __init__(self, port: int) -> None:
        self.received: list[tuple[float, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                receiver.received.append((time.time(), dict(self.headers), body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Print nothing: the address can be secret."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Receive nothing more."""
        self.server.shutdown()
        self.server.server_close()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds, for some seconds at most, and return whether it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def listed_after(live: Live, task_id: str, since: datetime, sent: float, seconds: float) -> str | None:
    """Wait until the list of tasks has a run, and return how long after its start; None if it is not there in time."""

    def is_listed() -> bool:
        return task_id in [one.get(live.version.task_id) for one in live.listed(since)]

    if not wait_until(is_listed, seconds):
        return None
    return f"{time.monotonic() - sent:.1f} s after the start at most"


def place_of(call: Call[Any], response: httpx.Response) -> str:
    """Return which line the provider needs, and where, to recognize a refusal as that of a full plan."""
    try:
        call.read(response.status_code, response.content, response.headers)
    except BrowserActError as error:
        known, code = error, error.code
    else:
        return f"No. {outcome(response)} is not a refusal."
    if code in CODES:
        kind, _ = CODES[code]
        if kind is ConcurrencyLimitError:
            return f"Yes: CODES in {EXCHANGE} has code {code}."
        return f"No: CODES in {EXCHANGE} has code {code} as {kind.__name__}. Report it with the words."
    if code:
        what = "by its words only" if isinstance(known, ConcurrencyLimitError) else "no"
        return (
            f"{what.capitalize()}. Add the line '{code}: (errors.ConcurrencyLimitError, None),' to CODES in "
            f"{EXCHANGE}, and '{code}: errors.ConcurrencyLimitError,' to CODES in tests/api/test_calls.py."
        )
    if isinstance(known, ConcurrencyLimitError | RateLimitError):
        return f"Yes, without a code: it is a {type(known).__name__}."
    return f"No, and it has no code. Add its words to NO_SLOT_WORDS in {EXCHANGE}."


@dataclass
class Followed:
    """What was seen of a run until its end.

    :param statuses: seconds after which each status was seen first.
    :param waited: fields of the run while it was active; empty if it was never seen active.
    :param credits: each value of its credits while it was active, with the number of steps then.
    :param ended: the first response with an end of the run; None if it did not end in time.
    """

    statuses: dict[str, float] = field(default_factory=dict)
    waited: str = ""
    credits: list[tuple[Any, int]] = field(default_factory=list)
    ended: dict[str, Any] | None = None

    @property
    def growth(self) -> str:
        """How the credits grew while the run was active; of many values, only the first and the last ones."""
        shown = [f"{value} with {number_of(steps, 'step')}" for value, steps in self.credits]
        if len(shown) > 2 * SHOWN_CREDITS:
            shown[SHOWN_CREDITS:-SHOWN_CREDITS] = ["..."]
        return " > ".join(shown) or "It was never seen active."


def follow(live: Live, task_id: str) -> Followed:
    """Poll a run until it has ended."""
    began = time.monotonic()
    seen = Followed()
    while time.monotonic() - began < live.settings.timeout:
        task = live.task(task_id)
        status = str(task.get("status"))
        seen.statuses.setdefault(status, time.monotonic() - began)
        if status in ENDED:
            seen.ended = task
            break
        if status not in ("created", "None"):
            if not seen.waited:
                live.payloads.append(("What does a run have while it is active?", task))
                seen.waited = "; ".join(
                    f"{name}: {redacted(task[name], name)}" if name in task else f"no {name}"
                    for name in ("output", "finished_at", "live_url_info")
                )
            if not seen.credits or seen.credits[-1][0] != task.get("credit"):
                seen.credits.append((task.get("credit"), len(task.get("steps") or [])))
        time.sleep(POLL_INTERVAL)
    return seen


def finality(live: Live, task_id: str, ended: dict[str, Any], began: float) -> str:
    """Watch the credits of an ended run, and return whether they have changed since its end."""
    first, now = ended.get("credit"), ended

    def changed() -> bool:
        nonlocal now
        now = live.task(task_id)
        return bool(now.get("credit") != first)

    if wait_until(changed, LATE - (time.monotonic() - began)):
        return f"No: {first}, and {now.get('credit')} after {time.monotonic() - began:.1f} s at most."
    return f"Yes: {first}, also {LATE:g} s later."


def ask_about_callbacks(live: Live, receiver: Receiver | None) -> None:
    """Ask what a callback has."""
    if receiver is None:
        live.tell("What does a callback have?", "not asked: set CALLBACK_URL")
        return
    wait_until(lambda: bool(receiver.received), LATE)
    live.tell("How many callbacks came?", str(len(receiver.received)))
    for _, headers, body in receiver.received[:1]:
        with contextlib.suppress(ValueError):
            live.payloads.append(("What does a callback have?", json.loads(body)))
        live.tell("What does a callback have?", f"{len(body)} bytes; headers {', '.join(sorted(headers))}")


def stop_all(live: Live) -> None:
    """Stop what was started and is still active, and note what could not be stopped."""
    for task_id in sorted(live.active):
        said = "no answer"
        for _ in range(STOP_ATTEMPTS):
            try:
                said = outcome(live.stop(task_id))
            except httpx.HTTPError as error:
                said = type(error).__name__
            if task_id not in live.active:
                break
            time.sleep(POLL_INTERVAL)
        live.tell("How was a run that is still active stopped?", said)
    live.lost += [f"BrowserAct task {task_id} may be running" for task_id in sorted(live.active)]


def lines(live: Live) -> Iterator[str]:
    """Yield the table, then the payloads, without anything secret."""
    left = max((len(question) for question, _ in live.answers), default=0)
    for question, answer in live.answers:
        text = without(live.secrets, answer)
        first, *others = textwrap.wrap(text, WIDTH - left - 2, break_on_hyphens=False) or ["-"]
        yield f"{question:{left}}  {first}"
        yield from (f"{'':{left}}  {other}" for other in others)
    for question, payload in live.payloads:
        yield ""
        yield question
        text = json.dumps(redacted(payload), indent=1, ensure_ascii=False)
        yield textwrap.indent(without(live.secrets, text), "  ")


def without(secrets: set[str], text: str) -> str:
    """Return a text without secrets that a message of BrowserAct may have quoted."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
