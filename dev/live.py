"""``make live``: compare what the provider expects of BrowserAct with what the real service does.

    BROWSERACT_API_KEY=app-... WORKFLOW_ID=... BOT_ID=... make live

It starts at most one run of the workflow, with API v2, and one of the bot, with API v3. They use credits, so it asks
before. Only what is set is run. If it is not known whether a start has created a run, no other run is started. However
it ends, also with Ctrl-C, it stops its runs that are still active, and names those that it could not stop.

With an account of the free plan, which allows one run, set both: the bot is then also started while the workflow runs.
The refusal shows whether the provider knows a full plan. If not, its code is missing in ``CODES`` in ``api/calls.py``.
The workflow should have a Private Browser, because a Standard Browser may refuse the start itself.

``INPUT_PARAMETERS`` and ``BOT_INPUT`` are JSON objects with the inputs. ``BROWSERACT_URL`` is another address of the
API. For callbacks, ``CALLBACK_URL`` is a public address from which requests, also below it, reach port
``CALLBACK_PORT`` (8765) of this machine. ``LIVE_TIMEOUT`` (900) is how many seconds each run may take.

Inputs, outputs, the key and addresses of callbacks are not printed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.api.settings import DEFAULT_BASE_URL, Settings
from airflow_provider_browseract.api.versions import APIS, SOURCES, SourceKind
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.request import RunRequest, Source, without_secrets
from airflow_provider_browseract.worker.ledger import Entry
from airflow_provider_browseract.worker.matching import match_task

VARIABLES = {SourceKind.WORKFLOW: ("WORKFLOW_ID", "INPUT_PARAMETERS"), SourceKind.BOT: ("BOT_ID", "BOT_INPUT")}
"""What can be run, with the variables that have its id and its inputs."""

UNKNOWN_ID = "10000000000000001"
POLL_INTERVAL = 1.0

LATE = sum(timings.READ_AGAIN_PAUSES)
"""Seconds after the end of a run in which its output and its callback may come."""

LISTED = timings.LIST_READS[0]
"""Seconds within which a new run has to be listed."""


class Signals:
    """The first signal that ends the command raises ``KeyboardInterrupt``, but not while it is held."""

    held = came = False

    def __init__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores SIGHUP.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, *_: object) -> None:
        first, self.came = not self.came, True
        if first and not self.held:
            raise KeyboardInterrupt

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold a signal until the end of the block."""
        before, self.held = self.came, True
        try:
            yield
        finally:
            self.held = False
        if self.came and not before:
            raise KeyboardInterrupt


class Silent(WSGIRequestHandler):
    """Prints nothing: the address of a callback can be secret."""

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def receiving(port: int | None) -> Iterator[set[str] | None]:
    """Receive callbacks at a port; yield the ends of their addresses. Without a port, yield None."""
    if port is None:
        yield None
        return
    came = set[str]()

    def receive(environ: dict[str, Any], start: Any) -> list[bytes]:
        came.add(environ["PATH_INFO"].rpartition("/")[2])
        start("200 OK", [])
        return []

    with make_server("127.0.0.1", port, receive, handler_class=Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield came
        server.shutdown()


@dataclass
class Live:
    """The comparison.

    :param callbacks: the ends of the addresses of the callbacks that came; None if none are expected.
    :param timeout: seconds that a run may take.
    :param secrets: texts that are not printed.
    :param active: the runs that were started and may be active.
    :param unclear: the start of which it is not known whether it has created a run.
    """

    client: BrowserActClient
    signals: Signals
    callbacks: set[str] | None
    timeout: float
    secrets: set[str]
    differences: int = 0
    active: dict[str, RunRequest] = field(default_factory=dict)
    unclear: Source | None = None

    def compare(self, what: str, expected: str, found: str, same: bool) -> None:
        """Print what was expected and found."""
        self.differences += not same
        mark = "ok" if same else "DIFFERENT"
        print(f"{mark:9}  {what}: expected {expected}, found {self.without_secrets(found)}", flush=True)

    def without_secrets(self, text: str) -> str:
        """Return a text without what BrowserAct may have quoted."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def compare_error(self, what: str, call: Call[Any], *expected: type[BrowserActError]) -> None:
        """Send a call, which must fail with one of some errors."""
        error = self.error_of(call)
        names = " or ".join(kind.__name__ for kind in expected)
        self.compare(what, names, described(error), isinstance(error, expected))

    def error_of(self, call: Call[Any]) -> BrowserActError | None:
        """Send a call, and return its error."""
        try:
            self.client.send(call)
        except BrowserActError as error:
            return error
        return None

    def compare_for_free(self, request: RunRequest) -> None:
        """Compare what uses no credits."""
        api, calls = APIS[request.source.api_version], SOURCES[request.source.kind]
        self.compare_error("an unknown run", api.get_task_status(UNKNOWN_ID), errors.TaskNotFoundError)
        self.compare_error(f"an unknown {request.source.kind}", calls.read(UNKNOWN_ID), errors.NotFoundError)
        error = self.error_of(api.list_tasks(limit=api.PAGE_LIMIT))
        self.compare(f"a page of {api.PAGE_LIMIT} runs", "success", described(error), error is None)
        source = self.client.send(calls.read(request.source.id))
        schema = source.input_schema if isinstance(source.input_schema, dict) else {}
        declared = {*schema.get("properties", ()), *(each.name for each in source.input_parameters)}
        missing = ", ".join(sorted(request.inputs.keys() - declared)) or "none"
        self.compare("given inputs that are not declared", "none", missing, missing == "none")

    def run(self, requests: list[RunRequest]) -> None:
        """Start the runs, and follow them to their ends."""
        active: list[tuple[RunRequest, str]] = []
        for request in requests:
            task_id = self._start(request, plan_may_be_full=bool(active))
            if task_id is None and self.unclear is None and active:
                self._follow(*active.pop())
                task_id = self._start(request)
            if self.unclear is not None:
                return
            if task_id is not None:
                active.append((request, task_id))
        for request, task_id in active:
            self._follow(request, task_id)

    def _start(self, request: RunRequest, *, plan_may_be_full: bool = False) -> str | None:
        """Start a run, and return its id; None if there is none, or if that is not known."""
        began, error, created = time.time(), None, None
        what, expected = f"a start of the {request.source.kind}", "a run"
        with self.signals.holding():
            # Whatever fails from here on, there may be a run.
            self.unclear = request.source
            try:
                created = self.client.send(request.call)
                self.active[created.id] = request
            except BrowserActError as refusal:
                error = refusal
            if error is None or error.not_processed:
                self.unclear = None
        if created is None:
            kind: Any = errors.ConcurrencyLimitError
            if plan_may_be_full:
                what, expected = f"{what} beside another run, with a full plan", kind.__name__
            words = f": {error.msg}" if error and error.msg else ""
            self.compare(what, expected, described(error) + words, plan_may_be_full and isinstance(error, kind))
            return None
        self.compare(what, expected, "a run", True)
        if request.save_browser_data:
            shown = "a profile" if created.profile_id else "none"
            self.compare("the profile that it saves", "a profile", shown, created.profile_id is not None)
        self._compare_the_list(request, created.id, began)
        [other] = [api for version, api in APIS.items() if version != request.source.api_version]
        self.compare_error("the run in the other API", other.get_task_status(created.id), errors.TaskNotFoundError)
        return created.id

    def _compare_the_list(self, request: RunRequest, task_id: str, began: float) -> None:
        """Wait until the list of runs has a run, by which a lost start would be found."""
        api, since = APIS[request.source.api_version], datetime.fromtimestamp(began - timings.CLOCK_SKEW, timezone.utc)
        call = api.list_tasks(source_id=request.source.id, created_at_from=since)
        entry = Entry(request.source, "", "", "", written_at=began, longest_call=0.0, max_tries=0)
        listed: dict[str, bool | None] = {}
        while task_id not in listed and time.time() - began < LISTED:
            time.sleep(POLL_INTERVAL)
            listed = {task.id: match_task(task, entry, request) for task in self.client.iter_items(call)}
        found = f"after {time.time() - began:.0f} s" if task_id in listed else "not listed"
        self.compare("the list of runs", f"the run within {LISTED:g} s", found, task_id in listed)
        certain = [each for each, match in listed.items() if match] == [task_id]
        self.compare("its inputs there", "those of this run alone", "the same" if certain else "not certain", certain)

    def _follow(self, request: RunRequest, task_id: str) -> None:
        """Poll a run until it has ended, and compare what it has then."""
        api, name = APIS[request.source.api_version], str(request.source.kind)
        deadline = time.monotonic() + self.timeout
        statuses, credits = list[TaskStatus](), list[float]()
        while not (task := self.client.send(api.get_task(task_id))).status.ended:
            statuses += [task.status] if task.status not in statuses[-1:] else []
            credits += [task.credits_so_far] if task.credits_so_far not in credits[-1:] else []
            if time.monotonic() > deadline:
                self.compare(f"the end of the {name}", f"within {self.timeout:g} s", str(task.status), False)
                return
            time.sleep(POLL_INTERVAL)
        del self.active[task_id]
        statuses.append(task.status)
        good = task.status is TaskStatus.FINISHED and TaskStatus.UNKNOWN not in statuses
        shown = " > ".join(map(str, statuses))
        self.compare(f"statuses of the {name}", "finished, and known ones before", shown, good)
        grown = " > ".join(f"{each:g}" for each in credits) or "never seen active"
        self.compare("its credits", "growing while it is active", grown, credits == sorted(credits))
        self._compare_later(request, task)
        self.compare_error("a stop of it", api.stop_task(task_id), errors.TaskEndedError)
        resumed = (errors.TaskEndedError, errors.TaskNotPausedError, errors.ResumeNotSupportedError)
        self.compare_error("a resume of it", api.resume_task(task_id), *resumed)

    def _compare_later(self, request: RunRequest, ended: Task) -> None:
        """Watch an ended run, whose output, credits and callback may come late."""
        api, began, task, output_after = APIS[request.source.api_version], time.monotonic(), ended, None
        while True:
            passed = time.monotonic() - began
            if output_after is None and (task.output or task.download_files):
                output_after = passed
            if passed > LATE:
                break
            time.sleep(POLL_INTERVAL)
            task = self.client.send(api.get_task(ended.id))
        found = "none" if output_after is None else f"after {output_after:.0f} s"
        self.compare("its output", f"within {LATE:g} s", found, output_after is not None)
        found = f"{ended.credit} > {task.credit}"
        self.compare("its credits after the end", "final in the first response", found, ended.credit == task.credit)
        if self.callbacks is not None:
            came = request.source.kind.value in self.callbacks
            self.compare("its callback", f"within {LATE:g} s", "came" if came else "none", came)

    def stop_all(self) -> list[str]:
        """Stop what is active, and return a sentence for each run that may still be active."""
        left = []
        if self.unclear is not None:
            left.append(f"A start of {self.unclear} may have created a run, which may be using credits.")
        for task_id, request in self.active.items():
            error = self.error_of(APIS[request.source.api_version].stop_task(task_id))
            if error is not None and not isinstance(error, errors.TaskEndedError):
                left.append(f"BrowserAct task {task_id} of {request.source} may be active and using credits.")
        return left


def described(error: BrowserActError | None) -> str:
    """Describe the result of a call."""
    return "success" if error is None else f"{type(error).__name__} ({error.codes})"


def read_requests() -> list[RunRequest]:
    """Read what is to be run from the environment.

    :raises ValueError: an id or the inputs cannot be used.
    """
    requests = []
    for kind, (name, inputs_name) in VARIABLES.items():
        if source_id := os.environ.get(name):
            inputs = json.loads(os.environ.get(inputs_name) or "{}")
            if not isinstance(inputs, dict):
                raise ValueError(f"{inputs_name} is not a JSON object")
            if kind is SourceKind.WORKFLOW:
                inputs = {key: value if isinstance(value, str) else json.dumps(value) for key, value in inputs.items()}
            url = os.environ.get("CALLBACK_URL")
            address = f"{url.rstrip('/')}/{kind}" if url else None
            saves = True if kind is SourceKind.WORKFLOW else None
            requests.append(RunRequest(Source(kind, source_id), inputs, save_browser_data=saves, callback_url=address))
            requests[-1].call  # noqa: B018 - checks the id
    return requests


def secrets_of(requests: list[RunRequest], api_key: str) -> set[str]:
    """Return the texts that no line may quote. Short ones are in every other text."""
    found = {api_key, *(request.callback_url or "" for request in requests)}
    without_secrets([dict(request.inputs) for request in requests], lambda _: True, found)
    return {text for text in found if len(text) > (4 if text.isdecimal() else 1)}


def ask(live: Live, requests: list[RunRequest]) -> None:
    """Compare what is free; then ask, and run the rest. A signal that comes later does not raise an exception."""
    try:
        for request in requests:
            live.compare_for_free(request)
        sources = " and ".join(str(request.source) for request in requests)
        if input(f"Run {sources} once? This uses credits. Type yes: ") == "yes":
            live.run(requests)
    finally:
        live.signals.held = True


def main() -> int:
    """Compare, and print which runs may still be active."""
    signals, api_key = Signals(), os.environ.get("BROWSERACT_API_KEY")
    try:
        requests = read_requests()
        port, timeout = int(os.environ.get("CALLBACK_PORT") or 8765), float(os.environ.get("LIVE_TIMEOUT") or 900)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not (api_key and requests):
        print("Set BROWSERACT_API_KEY, and WORKFLOW_ID or BOT_ID or both. See dev/live.py.", file=sys.stderr)
        return 2
    settings = Settings(api_key=api_key, base_url=os.environ.get("BROWSERACT_URL") or DEFAULT_BASE_URL)
    with BrowserActClient(settings) as client, receiving(port if requests[0].callback_url else None) as callbacks:
        live = Live(client, signals, callbacks, timeout, secrets_of(requests, api_key))
        try:
            ask(live, requests)
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
        except (BrowserActError, EOFError) as error:
            live.differences += 1
            print(live.without_secrets(str(error)), file=sys.stderr)
        finally:
            left = live.stop_all()
            for line in left:
                print(line, "Look into the BrowserAct dashboard.", file=sys.stderr)
    return 130 if signals.came else 1 if left or live.differences else 0


if __name__ == "__main__":
    sys.exit(main())
