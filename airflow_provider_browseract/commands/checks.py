"""What the command ``check`` checks, in this order. A check that needs an earlier one that has failed is skipped."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from uuid import uuid4

import requests

from airflow_provider_browseract import __version__
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.commands import database
from airflow_provider_browseract.commands.check import Line, State
from airflow_provider_browseract.commands.database import Component, ComponentKind, NoDatabaseError
from airflow_provider_browseract.compat import AirflowNotFoundException, conf
from airflow_provider_browseract.exceptions import BrowserActError, InputError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import (
    CONNECTION_TYPE,
    budget_of,
    check_for_start,
    no_connection,
    unencrypted,
    unreadable,
)
from airflow_provider_browseract.hooks.probe import (
    PROBE_TIMEOUT,
    Arrival,
    Delivery,
    address_to_test,
    beginning_of,
    count_workflows,
    deliver,
    explain,
)
from airflow_provider_browseract.in_airflow.day_sums import read_day_sums
from airflow_provider_browseract.loops import run_steps
from airflow_provider_browseract.panel.database import connections
from airflow_provider_browseract.runs.budget import Budget, BudgetAction, BudgetStep, ReadDaySums, read_budget
from airflow_provider_browseract.runs.callback_url import new_token, route
from airflow_provider_browseract.runs.outputs import number_of
from airflow_provider_browseract.runs.queueing import count_active

log = logging.getLogger(__name__)

API_LIMIT = 10.0
"""Seconds that a call of BrowserAct's API may take, retries included."""

NOT_ASKED = "Not asked: the versions of the provider. `airflow providers list` on each machine shows them."

NO_DATABASE = "Airflow's database cannot be read on this machine"

WHERE_TO_RUN = "Run the command where the scheduler or the API server runs."

ONLY_FROM_HERE = (
    "It was sent from this machine. That BrowserAct reaches the address too is only shown by the line 'Woken by a "
    "callback' in the log of a task."
)

CONNECTION, API, TRIGGERER, API_SERVER, CALLBACKS, SLOTS, BUDGET = (
    "connection",
    "API",
    "triggerer",
    "API server",
    "callbacks",
    "slots",
    "budget",
)

NAMES = {
    ComponentKind.TRIGGERER: "triggerer",
    ComponentKind.SCHEDULER: "scheduler",
    ComponentKind.DAG_PROCESSOR: "DAG processor",
}

_VERSION = re.compile(rb'"version": ?"([\w.+-]{1,40})"', re.ASCII)


def checks(conn_id: str) -> Iterator[Line]:
    """Check a connection and the Airflow around it, and yield each result as soon as it is known."""
    found: Sequence[Component] = ()
    # Why something cannot be checked here; empty on a machine that has Airflow's database.
    missing, reason = "", ""
    try:
        found = database.components()
    except NoDatabaseError as error:
        missing, reason = NO_DATABASE, f": {error}"
    hook = BrowserActHook(conn_id)
    yield (connection := _check_connection(hook, missing))
    usable = connection.state in (State.OK, State.WARN)
    yield (api := _check_api(hook) if usable else _skipped(API, CONNECTION))
    yield Line(State.SKIP, TRIGGERER, f"{missing}{reason}", WHERE_TO_RUN) if missing else _check_components(found)
    yield _check_api_server()
    yield _check_callbacks(hook) if usable else _skipped(CALLBACKS, CONNECTION)
    if api.state is not State.OK:
        yield _skipped(SLOTS, API)
        return
    yield _check_slots(hook)
    if (budget := budget_of(hook.settings)) is not None:
        yield _check_budget(hook, budget)


def _skipped(name: str, needed: str) -> Line:
    return Line(State.SKIP, name, f"needs the check {needed!r}, which has not passed")


def _check_connection(hook: BrowserActHook, missing: str) -> Line:
    conn_id = hook.browseract_conn_id
    try:
        connection = hook.get_connection(conn_id)
        if connection.conn_type != CONNECTION_TYPE:
            facts = f"Connection {conn_id!r} is of type {connection.conn_type!r}"
            advice = f"Add a connection of type BrowserAct, and check that one.{_others(missing)}"
            return Line(State.FAIL, CONNECTION, facts, advice)
        check_for_start(hook.settings)
        # Airflow's logger has written the same, but nobody sees it.
        warning = unencrypted(hook.settings.base_url)
    except AirflowNotFoundException:
        if missing:
            facts = f"There is no connection {conn_id!r} in the environment or a secrets backend. {missing}"
            return Line(State.SKIP, CONNECTION, facts, WHERE_TO_RUN)
        facts, _, advice = no_connection(conn_id).partition(".\n")
        return Line(State.FAIL, CONNECTION, facts, f"{advice}{_others(missing)}")
    except InputError as error:
        facts, _, advice = str(error).partition(".\n")
        return Line(State.FAIL, CONNECTION, facts, advice)
    except Exception as error:  # noqa: BLE001 - a secrets backend may fail in any way, and quote what it has read
        facts = f"Airflow connection {conn_id!r} cannot be read ({type(error).__name__})"
        return Line(State.FAIL, CONNECTION, facts, unreadable(conn_id, error).advice)
    facts = f"{conn_id!r} of type {CONNECTION_TYPE}, from {database.source_of(conn_id)}"
    return Line(State.OK if warning is None else State.WARN, CONNECTION, facts, warning or "")


def _others(missing: str) -> str:
    """Return the connections of the right type, as an addition to a remedy."""
    others = [] if missing else connections()
    return f" Connections of type BrowserAct: {', '.join(map(repr, others[:10]))}." if others else ""


def _check_api(hook: BrowserActHook) -> Line:
    try:
        with hook.client_within(API_LIMIT) as client:
            workflows = count_workflows(client)
    except BrowserActError as error:
        return Line(State.FAIL, API, error.brief, error.advice)
    address = hook.settings.base_url
    return Line(State.OK, API, f"{address} accepts the API key; {number_of(workflows, 'workflow')} can be seen")


def _check_components(found: Sequence[Component]) -> Line:
    alive = {kind: [each for each in found if each.kind is kind and each.alive] for kind in NAMES}
    counts = "alive: " + ", ".join(number_of(len(alive[kind]), NAMES[kind]) for kind in NAMES)
    if not alive[ComponentKind.TRIGGERER]:
        last = next((each for each in found if each.kind is ComponentKind.TRIGGERER), None)
        heard = "" if last is None else f"; the last heartbeat of one was {last.age:.0f} seconds ago, on {last.host}"
        return Line(
            State.FAIL,
            TRIGGERER,
            f"{counts}{heard}",
            "Start `airflow triggerer`. Without one, nothing polls the runs of deferred tasks, and nothing wakes tasks "
            "that wait for a slot.",
        )
    gone = [NAMES[kind] for kind in NAMES if not alive[kind]]
    if gone:
        commands = " and ".join(f"`airflow {name.lower().replace(' ', '-')}`" for name in gone)
        return Line(State.WARN, TRIGGERER, counts, f"Start {commands}. Only `airflow dags test` runs a DAG without.")
    return Line(State.OK, TRIGGERER, counts)


def _check_api_server() -> Line:
    base, delivery = "", Delivery(Arrival.NOWHERE, "")
    for each in _api_servers():
        sent = deliver(route(each, uuid4(), new_token()))
        if not base or sent.arrival is not Arrival.NOWHERE:
            base, delivery = each, sent
        if delivery.arrival not in (Arrival.NOWHERE, Arrival.GATEWAY):
            break
    shown = _without_login(base)
    match delivery.arrival:
        case Arrival.ROUTE:
            return Line(State.OK, API_SERVER, f"the callback route responds at {shown}")
        case Arrival.NOWHERE:
            return Line(
                State.FAIL,
                API_SERVER,
                f"nothing responds at {shown}: {delivery.seen}",
                "Start `airflow api-server`, or set [api] base_url to an address of it that this machine can reach.",
            )
        case Arrival.GATEWAY:
            return Line(
                State.SKIP,
                API_SERVER,
                f"a login page or another gateway responds at {shown} ({delivery.seen})",
                "Run `airflow providers list` on the API server to see its version of the provider.",
            )
        case Arrival.UNAVAILABLE:
            problem = explain(shown, delivery)
            return Line(State.FAIL, API_SERVER, problem.what, problem.remedy)
    if (version := _version_of(base)) is None:
        facts = f"{shown} is not the address of an Airflow API server: the response was {delivery.seen}"
        return Line(State.FAIL, API_SERVER, facts, "Set [api] base_url to the address of the API server.")
    return Line(
        State.FAIL,
        API_SERVER,
        f"the provider is missing at {shown}, where Airflow {version} responds ({delivery.seen})",
        f"Install airflow-provider-browseract {__version__} where the API server runs, and restart it. `airflow "
        "plugins` there must list browseract.",
    )


def _api_servers() -> Iterator[str]:
    """Yield the addresses at which the API server may be reached from here: one or two."""
    workers_use = conf.get("core", "execution_api_server_url", fallback=None) or ""
    base_url = conf.get("api", "base_url", fallback=None) or ""
    if base_url.startswith(("http://", "https://")):
        yield base_url.rstrip("/")
    elif not workers_use:
        yield f"http://localhost:{conf.get('api', 'port', fallback='8080')}"
    if (other := workers_use.rstrip("/").removesuffix("/execution")) not in ("", base_url.rstrip("/")):
        yield other


def _without_login(url: str) -> str:
    # Not urlsplit, which raises an error for some texts that are no addresses.
    return re.sub(r"//[^/?#]*@", "//", url)


def _version_of(base: str) -> str | None:
    """Return the version of the Airflow at an address; None if there is none."""
    try:
        address = f"{base}/api/v2/version"
        with requests.get(address, timeout=PROBE_TIMEOUT, allow_redirects=False, stream=True) as response:
            found = _VERSION.search(beginning_of(response))
    except requests.RequestException:
        return None
    return None if found is None else found[1].decode()


def _check_callbacks(hook: BrowserActHook) -> Line:
    base_url = hook.settings.webhook_base_url
    if base_url is None:
        facts = "the connection has no webhook_base_url, so deferred tasks poll their runs"
        return Line(State.SKIP, CALLBACKS, facts)
    try:
        delivery = deliver(address_to_test(hook))
    except InputError as error:
        facts, _, advice = str(error).rstrip(".").partition(". ")
        return Line(State.FAIL, CALLBACKS, facts, f"{advice}." if advice else "")
    if delivery.arrival is Arrival.ROUTE:
        return Line(State.OK, CALLBACKS, f"the callback route responds at {base_url}", ONLY_FROM_HERE)
    problem = explain(base_url, delivery)
    return Line(State.FAIL, CALLBACKS, problem.what, problem.remedy)


def _check_slots(hook: BrowserActHook) -> Line:
    try:
        with hook.client_within(API_LIMIT) as client:
            active = run_steps(count_active([*ApiVersion]), client, log)
    except BrowserActError as error:
        return Line(State.WARN, SLOTS, f"the active runs cannot be counted: {error.brief}", error.advice)
    number = "an unknown number of runs" if active is None else number_of(active.number, "run")
    facts = f"active: {number}"
    try:
        waits = database.waits_for_slots(hook.browseract_conn_id, hook.settings.key_digest)
    except NoDatabaseError:
        return Line(State.OK, SLOTS, facts, f"The queue is not known: {NO_DATABASE}. {WHERE_TO_RUN}")
    now = time.time()
    budget = sum(wait.waits_for_budget(now) for wait in waits)
    facts += f"; waiting for a slot: {number_of(len(waits) - budget, 'task instance')}"
    if budget:
        facts += f"; waiting for the budget: {budget}"
    return Line(State.OK, SLOTS, facts)


def _check_budget(hook: BrowserActHook, budget: Budget) -> Line:
    def read_sums(step: BudgetStep) -> Mapping[date, int] | None:
        # Only workers write sums.
        is_read = isinstance(step, ReadDaySums)
        return read_day_sums(budget.conn_id, hook.settings.key_digest, log) if is_read else None

    try:
        with hook.client_within(API_LIMIT) as client:
            verdicts = run_steps(read_budget(budget, time.time), client, log, read_sums)
    except BrowserActError as error:
        return Line(State.WARN, BUDGET, f"the credits cannot be counted: {error.brief}", error.advice)
    facts = "; ".join(
        f"{each.period} (UTC): {each.used:,} of {each.period.limit:,} credits used, {each.reserved:,} expected for "
        f"{number_of(each.active, 'active run')}"
        for each in verdicts
    )
    if all(each.credits_left >= 0 for each in verdicts):
        return Line(State.OK, BUDGET, facts)
    settings = " and ".join(each.period.setting for each in verdicts if each.credits_left < 0)
    refused = "No run is started before" if budget.action is BudgetAction.REFUSE else "A warning is logged until"
    return Line(State.WARN, BUDGET, facts, f"{refused} the end of the period. To allow more, raise {settings}.")
