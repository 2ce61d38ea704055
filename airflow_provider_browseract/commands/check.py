"""The command ``check``: whether a connection and the Airflow around it are ready for runs. It starts none."""

from __future__ import annotations

import argparse
import logging
import textwrap
import time
from contextlib import suppress

from airflow.configuration import ensure_secrets_loaded
from airflow.jobs.job import Job, JobState
from airflow.utils.db import check_migrations
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_browseract.api.fields import one_line
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    InputError,
    UnexpectedResponseError,
    UnknownRefusalError,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import budget_of, check_for_start, no_connection, unencrypted
from airflow_provider_browseract.hooks.probe import check_callbacks, count_workflows
from airflow_provider_browseract.loops import send_all
from airflow_provider_browseract.queue.queueing import active_runs
from airflow_provider_browseract.spending.budget import judge, moment
from airflow_provider_browseract.spending.day_sums import list_open_days, read_day_sums
from airflow_provider_browseract.spending.spend import Forecast

log = logging.getLogger(__name__)

API_LIMIT = 10.0
"""Seconds that a call of BrowserAct's API may take, retries included."""

LONGEST_TEXT, WIDTH = 600, 90
"""Characters of a text that may come from outside, and of a line of a remedy."""

COMPONENTS = {"TriggererJob": "triggerer", "SchedulerJob": "scheduler", "DagProcessorJob": "dag-processor"}
"""The commands of the components of Airflow, by the type of their jobs."""


class Skipped(Exception):
    """Something cannot be checked. The message is the reason, and the remedy in a second line."""


def run(options: argparse.Namespace) -> int:
    """Print a line for each check, with the remedy below it, and return the exit code."""
    hook, states, broken = BrowserActHook(options.conn_id), list[str](), None
    for name, check in CHECKS.items():
        state = "FAIL"
        try:
            if broken is not None:
                raise Skipped(f"needs the check {broken!r}")
            found = check(hook)
            # Whoever finds something that is probably not intended adds the remedy.
            state = "warn" if "\n" in found else "ok"
        except Skipped as reason:
            state, found = "skip", str(reason)
        except BrowserActError as error:
            # Without the address, because a secret may be in the wrong field.
            found = f"{error.brief}\n{error.advice}".replace(hook.settings.base_url, "the API address")
        except InputError as error:
            found = str(error)
        except Exception as error:  # noqa: BLE001 - a secrets backend may fail in any way, and quote what it has read
            found = f"unexpected error ({type(error).__name__})\nCheck Airflow's database and secrets backends."
        if name in ("connection", "API") and state in ("FAIL", "skip"):
            broken = broken or name
        states.append(state)
        facts, _, remedy = found.partition("\n")
        print(f"{state:6}{name:12}{one_line(facts, LONGEST_TEXT)}".rstrip("."), file=options.out, flush=True)
        for line in textwrap.wrap(one_line(remedy, LONGEST_TEXT) or "", WIDTH, break_on_hyphens=False):
            print(f"{'':18}{line}", file=options.out)
    print(f"\nFailed: {states.count('FAIL')}, skipped: {states.count('skip')}.", file=options.out)
    return int("FAIL" in states)


def alive() -> set[str]:
    """Return the types of the components that are alive.

    :raises InputError: Airflow's database has to be migrated.
    :raises Skipped: it cannot be read on this machine.
    """
    try:
        check_migrations(1)  # type: ignore[no-untyped-call,unused-ignore]
        with create_session(scoped=False) as session:
            jobs = session.scalars(select(Job).where(Job.job_type.in_(COMPONENTS), Job.state == JobState.RUNNING))
            return {str(job.job_type) for job in jobs if job.is_alive()}
    except TimeoutError:
        raise InputError("Airflow's database has no tables for this version\nRun `airflow db migrate`.") from None
    except Exception as error:  # noqa: BLE001 - the message may contain the password of the database
        raise Skipped(
            f"Airflow's database cannot be read on this machine ({type(error).__name__})\n"
            "Run the command where the scheduler or the API server runs."
        ) from None


def _check_components(_: BrowserActHook) -> str:
    found = alive()
    if missing := [command for kind, command in COMPONENTS.items() if kind not in found]:
        commands = ", ".join(f"`airflow {each}`" for each in missing)
        raise InputError(f"not alive: {', '.join(missing)}\nStart {commands}.")
    return "alive: triggerer, scheduler, DAG processor"


def _check_connection(hook: BrowserActHook) -> str:
    conn_id = hook.browseract_conn_id
    try:
        check_for_start(hook.own_settings())
    except AirflowNotFoundException:
        # It may be in the database, if that can be read at all.
        alive()
        raise InputError(no_connection(conn_id)) from None
    warning = unencrypted(hook.settings.base_url)
    return f"{conn_id!r} from {_place_of(conn_id)}" + (f"\n{warning}" if warning else "")


def _place_of(conn_id: str) -> str:
    """Return where Airflow finds a connection."""
    own = {"EnvironmentVariablesBackend": "the environment", "MetastoreBackend": "Airflow's database"}
    for backend in ensure_secrets_loaded():
        # If one fails, Airflow asks the next one too.
        with suppress(Exception):
            if backend.get_connection(conn_id=conn_id) is not None:
                name = type(backend).__name__
                return own.get(name, f"the secrets backend {name}")
    return "an unknown place"


def _check_callbacks(hook: BrowserActHook) -> str:
    if hook.settings.webhook_base_url is None:
        raise Skipped("the connection has no webhook_base_url, so deferred tasks poll their runs")
    check_callbacks(hook.settings)
    return "the callback route responds to this machine"


def _check_api(hook: BrowserActHook) -> str:
    try:
        with hook.client_within(API_LIMIT) as client:
            workflows = count_workflows(client)
    except (UnexpectedResponseError, UnknownRefusalError) as error:
        if error.code is not None:
            raise
        remedy = (
            "Leave the host of the connection (field API address) empty, or set it to an address without a path such "
            "as /v2. If it is right, look for a proxy or a firewall between this machine and BrowserAct."
        )
        raise InputError(f"What responds is not BrowserAct's API ({error.codes})\n{remedy}") from None
    return f"accepts the API key; workflows that it can see: {workflows}"


def _check_slots(hook: BrowserActHook) -> str:
    with hook.client_within(API_LIMIT) as client:
        return f"active runs: {len(send_all(active_runs([*ApiVersion]), client))}"


def _check_budget(hook: BrowserActHook) -> str:
    budget, now = budget_of(hook.settings), moment(time.time())
    if budget is None:
        return "the connection has none"
    # Only workers write sums.
    sums = read_day_sums(budget, hook.settings.key_digest, now.date(), log)
    with hook.client_within(API_LIMIT) as client:
        runs = list_open_days(client, budget, sums, now)
    verdicts = list(judge(budget, now, sums, runs, Forecast.of(None, runs)))
    facts = "; ".join(
        f"{each.period} (UTC): {each.used:,} of {each.period.limit:,} credits used, {each.reserved:,} more expected"
        for each in verdicts
    )
    spent = [each.period.setting for each in verdicts if each.credits_left < 0]
    return f"{facts}\nTo allow more runs before the end of the period, raise {' and '.join(spent)}." if spent else facts


CHECKS = {
    "components": _check_components,
    "connection": _check_connection,
    "callbacks": _check_callbacks,
    "API": _check_api,
    "slots": _check_slots,
    "budget": _check_budget,
}
"""The checks in their order. Those after ``connection`` need it, and those after ``API`` need that."""
