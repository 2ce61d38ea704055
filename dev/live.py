"""``make live``: find out from the real service what its documents do not describe, and print it as a table.

    BROWSERACT_API_KEY=app-... WORKFLOW_ID=... make live

It runs the workflow once to its end, and starts it three times more and stops it at once. Only this uses credits.
However it ends, it stops every run that it started and that is still active.

With an account of the free plan, which allows one run, those three starts cost nothing, and the first one shows how
BrowserAct refuses a start when the plan is full. The table then has the line that the provider needs, and where to put
it. The workflow should have a Private Browser, because a Standard Browser may refuse the start itself.

``INPUT_PARAMETERS`` is a JSON object with the inputs, ``BROWSERACT_URL`` another address of the API. For the checks
of callbacks, ``CALLBACK_URL`` is a public address from which requests reach port ``CALLBACK_PORT`` (8765) of this
machine. ``LIVE_TIMEOUT`` (900) is the number of seconds that the run may take.

Nothing secret is printed: only the length of texts, the host of addresses and the end of ids.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
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

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.errors import BY_CODE, BrowserActError, ConcurrencyLimitError, RateLimitError
from airflow_provider_browseract.api.exchange import Response
from airflow_provider_browseract.api.settings import DEFAULT_BASE_URL
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.outputs import number_of

ENDED = ("finished", "failed", "canceled")
POLL_INTERVAL = 1.0
"""Seconds between two polls of the run; short, to see how late its output comes."""

STOP_ATTEMPTS = 3
"""How often a run that is still active at the end is tried to be stopped."""

TASK_ENDED = 10121
"""The code with which BrowserAct may answer the stop of a run that has ended."""

LATE = 20.0
"""Seconds for which a run is watched after its end, because its output, credits and callback may come late."""

LISTED = timings.SECOND_CHECK_DELAY
"""Seconds after which the provider expects a new run in the list of tasks."""

WHILE_ACTIVE = "How is a start answered while a run is active?"

PLAN_HAS_SLOTS = "Not seen: the plan allows another run. Use an account of the free plan."

ERRORS, EXCHANGE = (f"airflow_provider_browseract/api/{name}.py" for name in ("errors", "exchange"))

SHOWN_CREDITS = 3
"""How many of the first and of the last values of the credits are reported."""

WIDTH = 100
"""Columns of the table."""

OPEN = {"status", "code", "msg", "traceId", "error", "default_enabled", "page", "limit", "total_pages", "total_count"}
"""Fields whose values are shown as they are, apart from what is secret in them."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,24}")
"""What names in the query of an address look like; anything else may be a token."""

LARGEST_NUMBER = 10**6
"""Numbers from this on may be ids. Moments are longer, and are shown by their length as well."""


@dataclass(frozen=True)
class Settings:
    """The settings of the checks.

    :param url: address of the API.
    :param api_key: the API key.
    :param workflow_id: a published workflow that has some output.
    :param inputs: its inputs.
    :param callback_url: public address of the port below; None to skip callbacks.
    :param callback_port: port of this machine.
    :param timeout: seconds that the run may take.
    """

    url: str
    api_key: str = field(repr=False)
    workflow_id: str
    inputs: dict[str, str] = field(default_factory=dict, repr=False)
    callback_url: str | None = None
    callback_port: int = 8765
    timeout: float = 900.0


@dataclass
class Live:
    """Raw calls of the API, because the provider's own client would hide the details to check.

    :param settings: the settings.
    """

    settings: Settings
    answers: list[tuple[str, str]] = field(default_factory=list)
    payloads: list[tuple[str, Any]] = field(default_factory=list)
    active: set[str] = field(default_factory=set)
    limits: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        given = self.settings
        self.secrets = {given.api_key, *given.inputs.values(), given.workflow_id, given.callback_url or ""} - {""}
        key = {"Authorization": f"Bearer {self.settings.api_key}"}
        self.http = httpx.Client(base_url=self.settings.url, headers=key, timeout=60.0)

    def send(self, method: str, endpoint: str, **request: Any) -> httpx.Response:
        """Send a request to an endpoint, and keep the headers that are about limits."""
        response = self.http.request(method, f"/v2/workflow/{endpoint}", **request)
        self.limits |= {name for name in response.headers if "ratelimit" in name or name == "retry-after"}
        return response

    def tell(self, question: str, answer: str, payload: Any = None) -> None:
        """Add a row to the table, with a payload after it."""
        self.answers.append((question, answer))
        if payload is not None:
            self.payloads.append((question, payload))

    def start(self, **fields: Any) -> httpx.Response:
        """Start a run, which is stopped at the end if it is still active then.

        :raises httpx.HTTPError: there is no response. The possible runs are also stopped at the end.
        """
        pairs = [{"name": name, "value": value} for name, value in self.settings.inputs.items()]
        body = {"workflow_id": self.settings.workflow_id, "input_parameters": pairs, **fields}
        since = datetime.now(timezone.utc)
        try:
            response = self.send("POST", "run-task", json=body)
        except httpx.HTTPError:
            self.active |= self._started_since(since)
            raise
        task_id = value_of(response, "id")
        if task_id is not None:
            self.active.add(str(task_id))
        elif response.status_code >= 500:
            self.active |= self._started_since(since)
        return response

    def _started_since(self, since: datetime) -> set[str]:
        """Return the runs of the workflow that were started since a moment."""
        query = {
            "workflow_id": self.settings.workflow_id,
            "created_at_from": since.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "limit": 500,
        }
        try:
            items = value_of(self.send("GET", "list-tasks", params=query), "items")
            return {str(item["id"]) for item in items}
        except (httpx.HTTPError, KeyError, TypeError):
            self.lost.append("a start was not answered, and a run of the workflow may be running")
            return set()

    def stop(self, task_id: str) -> httpx.Response:
        """Stop a run."""
        response = self.send("PUT", "stop-task", params={"task_id": task_id})
        if response.is_success or value_of(response, "code") == TASK_ENDED:
            self.active.discard(task_id)
        return response

    def task(self, task_id: str) -> dict[str, Any]:
        """Read a run."""
        response = self.send("GET", "get-task", params={"task_id": task_id})
        value = json_of(response)
        return value if isinstance(value, dict) else {}


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


def ask_without_a_run(live: Live) -> None:
    """Ask what costs nothing."""
    wrong = {"Authorization": "Bearer app-not-a-key"}
    live.tell("How is a wrong API key answered?", outcome(live.send("GET", "get-region-list", headers=wrong)))
    unknown = live.send("GET", "get-task", params={"task_id": "10000000000000001"})
    live.tell("How is an unknown task answered?", outcome(unknown), json_of(unknown))
    live.tell("How is a path that does not exist answered?", outcome(live.send("GET", "no-such-endpoint")))
    live.tell("How is limit=501 answered?", outcome(live.send("GET", "list-tasks", params={"limit": 501})))
    page = live.send("GET", "list-workflows")
    live.tell("How many items has a page without limit?", f"limit {value_of(page, 'limit')}")
    beyond = live.send("GET", "list-workflows", params={"page": 9999, "limit": 500})
    live.tell("What is a page after the last one?", f"{outcome(beyond)}, {len(value_of(beyond, 'items') or [])} items")
    declared = value_of(
        live.send("GET", "get-workflow", params={"workflow_id": live.settings.workflow_id}), "input_parameters"
    )
    live.tell("Which inputs are enabled by default?", str([one.get("default_enabled") for one in declared or []]))


def ask_with_a_run(live: Live, receiver: Receiver | None) -> None:
    """Ask what takes a run to its end, and some that are stopped at once."""
    callbacks = {} if receiver is None else {"callback_url": live.settings.callback_url}
    before = datetime.now(timezone.utc)
    sent = time.monotonic()
    started = live.start(save_browser_data=True, **callbacks)
    task_id = value_of(started, "id")
    if task_id is None:
        live.tell("What does a start answer?", f"{outcome(started)}. Nothing more can be asked.", json_of(started))
        return
    task_id = str(task_id)
    keys = sorted(json_of(started))
    live.tell(
        "What does a start with save_browser_data answer?", f"HTTP {started.status_code}, {keys}", json_of(started)
    )
    since = before.strftime("%Y-%m-%dT%H:%M:%SZ")
    listed = listed_after(live, task_id, since, sent, LISTED)
    ask_beside_the_run(live, value_of(started, "profile_id") or value_of(started, "profileId"))
    listed = listed or listed_after(live, task_id, since, sent, LATE)
    live.tell("How soon does list-tasks have it?", listed or "not in time")
    seen = follow(live, task_id)
    live.tell("Which statuses were seen?", " > ".join(f"{status} ({at:.0f} s)" for status, at in seen.statuses.items()))
    live.tell("What does a run have while it is active?", seen.waited or "It was never seen active.")
    live.tell("Do its credits grow while it is active?", seen.growth)
    if seen.ended is None:
        live.tell("What happened to the run?", f"It did not end within {live.settings.timeout:g} s and is stopped.")
        return
    live.active.discard(task_id)
    ask_after_the_end(live, task_id, receiver, seen.ended)


def listed_after(live: Live, task_id: str, since: str, sent: float, seconds: float) -> str | None:
    """Wait until the list of tasks has a run, and return how long after its start; None if it is not there in time."""
    if not wait_until(lambda: is_listed(live, task_id, since), seconds):
        return None
    return f"{time.monotonic() - sent:.1f} s after the start at most"


def is_listed(live: Live, task_id: str, since: str) -> bool:
    """Return whether the list of tasks has a run."""
    query = {"created_at_from": since, "limit": 500}
    return task_id in [one.get("id") for one in value_of(live.send("GET", "list-tasks", params=query), "items") or []]


def ask_beside_the_run(live: Live, profile: object) -> None:
    """Ask what a second run gets while the first is active; whatever starts is stopped at once."""
    questions: dict[str, dict[str, Any]] = {
        WHILE_ACTIVE: {},
        "How is a second run with the same profile answered?": {"profile_id": profile} if profile else {},
        "How is an unknown profile_id answered?": {"profile_id": "10000000000000001"},
    }
    for question, fields in questions.items():
        response = live.start(**fields)
        task_id = value_of(response, "id")
        stopped = f", then stopped: {outcome(live.stop(str(task_id)))}" if task_id is not None else ""
        live.tell(question, f"{outcome(response)}{stopped}", None if stopped else json_of(response))
        if question == WHILE_ACTIVE:
            live.tell("Does the provider know a full plan by it?", PLAN_HAS_SLOTS if stopped else place_of(response))


def place_of(response: httpx.Response) -> str:
    """Return which line the provider needs, and where, to recognize a refusal as that of a full plan."""
    try:
        v2.run_task("1").read_response(Response(response.status_code, response.headers, response.content))
    except BrowserActError as error:
        known, code = error, error.code
    else:
        return f"No. {outcome(response)} is not a refusal."
    if code in BY_CODE:
        if BY_CODE[code] is ConcurrencyLimitError:
            return f"Yes: BY_CODE in {ERRORS} has code {code}."
        return f"No: BY_CODE in {ERRORS} has code {code} as {BY_CODE[code].__name__}. Report it with the words."
    if code:
        what = "by its words only" if isinstance(known, ConcurrencyLimitError) else "no"
        return (
            f"{what.capitalize()}. Add the line '{code}: ConcurrencyLimitError,' to BY_CODE in {ERRORS}, and "
            f"'{code}: errors.ConcurrencyLimitError,' to CODES in tests/api/test_exchange.py."
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


def ask_after_the_end(live: Live, task_id: str, receiver: Receiver | None, ended: dict[str, Any]) -> None:
    """Ask what a run has when it has ended, and what can still be done with it.

    :param ended: the first response with the end of the run.
    """
    began = time.monotonic()

    def has_output() -> bool:
        task = live.task(task_id)
        output = task.get("output") or {}
        return bool(output.get("string") or output.get("files") or task.get("download_files"))

    there = wait_until(has_output, LATE)
    late = time.monotonic() - began
    live.tell("Is the output there with the status?", f"after {late:.1f} s at most" if there else f"not in {LATE:g} s")
    task = live.task(task_id)
    live.tell("What does an ended run have?", ", ".join(sorted(task)), task)
    live.tell("Is there a live view after the end?", "yes" if task.get("live_url_info") else "no")
    live.tell(
        "Are screenshots null?",
        str(sorted({str(one.get("screenshots_url") is None) for one in task.get("steps") or []})),
    )
    live.tell("What do file addresses look like?", str(redacted((task.get("output") or {}).get("files"))))
    live.tell("Are its credits final in the first response after the end?", finality(live, task_id, ended, began))
    shown = str(task.get("input_parameters"))
    named = [name for name in live.settings.inputs if name in shown]
    live.tell(
        "Which inputs does it show?", f"{len(shown)} characters, with {len(named)} of {len(live.settings.inputs)} names"
    )
    live.tell("How is a stop of an ended run answered?", outcome(live.stop(task_id)))
    live.tell(
        "How is a resume of an ended run answered?",
        outcome(live.send("PUT", "resume-task", params={"task_id": task_id})),
    )
    if receiver is None:
        live.tell("What does a callback have?", "not asked: set CALLBACK_URL")
        return
    wait_until(lambda: bool(receiver.received), LATE)
    live.tell("How many callbacks came?", str(len(receiver.received)))
    for _, headers, body in receiver.received[:1]:
        with contextlib.suppress(ValueError):
            live.payloads.append(("What does a callback have?", json.loads(body)))
        live.tell("What does a callback have?", f"{len(body)} bytes; headers {', '.join(sorted(headers))}")


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


def ask(live: Live) -> None:
    """Ask everything, and stop what is still active, however it ends."""
    with contextlib.ExitStack() as stack:
        stack.callback(live.http.close)
        receiver = None
        if live.settings.callback_url is not None:
            receiver = Receiver(live.settings.callback_port)
            stack.callback(receiver.close)
        stack.callback(stop_all, live)
        ask_without_a_run(live)
        ask_with_a_run(live, receiver)
        live.tell("Which headers are about limits?", ", ".join(sorted(live.limits)) or "none were seen")


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


def main() -> int:
    """Run the checks, and print the results."""
    given = {name: os.environ.get(name) for name in ("BROWSERACT_API_KEY", "WORKFLOW_ID")}
    if not all(given.values()):
        print("Set BROWSERACT_API_KEY and WORKFLOW_ID. See dev/live.py for what it costs.", file=sys.stderr)
        return 2
    inputs = json.loads(os.environ.get("INPUT_PARAMETERS") or "{}")
    live = Live(
        Settings(
            url=os.environ.get("BROWSERACT_URL") or DEFAULT_BASE_URL,
            api_key=str(given["BROWSERACT_API_KEY"]),
            workflow_id=str(given["WORKFLOW_ID"]),
            inputs={name: value if isinstance(value, str) else json.dumps(value) for name, value in inputs.items()},
            callback_url=os.environ.get("CALLBACK_URL"),
            callback_port=int(os.environ.get("CALLBACK_PORT") or 8765),
            timeout=float(os.environ.get("LIVE_TIMEOUT") or 900),
        )
    )
    try:
        ask(live)
    finally:
        print("\n".join(lines(live)))
        for line in live.lost:
            print(f"{line} and using credits. Stop it in the BrowserAct dashboard.", file=sys.stderr)
    return 1 if live.lost else 0


if __name__ == "__main__":
    sys.exit(main())
