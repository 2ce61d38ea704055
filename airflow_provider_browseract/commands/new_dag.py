"""The command ``new-dag``: print a DAG that runs a workflow, bot or template, or its test, or list what there is."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.fields import one_line
from airflow_provider_browseract.api.models import BotType, SourceInfo
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.dag_file import DAG, KINDS, TEST, Runnable, dag_file, dag_id_of
from airflow_provider_browseract.exceptions import BrowserActError, InputError, NotFoundError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import no_connection
from airflow_provider_browseract.runs.bot_input import conform
from airflow_provider_browseract.runs.hints import did_you_mean
from airflow_provider_browseract.runs.request import without_secrets

REQUEST_LIMIT = 20.0
"""Seconds that a request may take, when it is sent again too."""

SAME = {SourceKind.BOT: SourceKind.WORKFLOW, SourceKind.BOT_TEMPLATE: SourceKind.TEMPLATE}
"""What version 3 of the API also serves of version 2, with the same id."""


def run(options: argparse.Namespace) -> int:
    """Print what was asked for, and return the exit code. If something is wrong, stdout stays empty."""
    try:
        if options.id is None and (options.test or options.input):
            raise InputError("--test and --input need the id of a workflow, bot or template.")
        hook = BrowserActHook(options.conn_id)
        hook.own_settings()
        with hook.client_within(REQUEST_LIMIT) as client:
            if options.id is None:
                text = "".join(f"{line}\n" for line in list_all(client))
            else:
                source = find(client, options.id)
                given = read_inputs(options.input, source)
                text = dag_file(source, options.conn_id, given, template=TEST if options.test else DAG)
    except AirflowNotFoundException:
        problem = no_connection(options.conn_id)
    except (BrowserActError, InputError) as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - a secrets backend may fail in any way, and quote what it has read
        problem = f"Unexpected error ({type(error).__name__}). The command check may show more."
    else:
        print(text, end="", file=options.out)
        if options.id is not None:
            path = f"tests/test_{dag_id_of(source)}.py" if options.test else f"dags/{dag_id_of(source)}.py"
            print(f"Save it as {path}.", file=sys.stderr)
        return 0
    print(problem, file=sys.stderr)
    return 1


def list_all(client: BrowserActClient) -> Iterable[str]:
    """Yield a line for each workflow, template and bot of the account."""
    listed = set()
    for kind, calls in SOURCES.items():
        for each in client.iter_items(calls.list()):
            if (SAME.get(kind), each.id) not in listed or each.type is BotType.AGENT:
                listed.add((kind, each.id))
                yield f"{KINDS[kind].one:12}  {each.id}  {one_line(each.name) or ''}".rstrip()
    if not listed:
        yield "The account has nothing to run. Build a workflow in BrowserAct's dashboard, and publish it."


def find(client: BrowserActClient, text: str) -> Runnable:
    """Ask for an id as each kind, and return what it identifies.

    :param text: the id, or an address with it.
    :raises InputError: nothing has the id, or two kinds have it.
    """
    # In an address, an id is a long number. What follows the path may have others.
    numbers = re.findall(r"\d{15,}", text.partition("?")[0]) or re.findall(r"\d{15,}", text)
    source_id = numbers[-1] if "/" in text and numbers else text
    found: dict[SourceKind, SourceInfo] = {}
    for kind, calls in SOURCES.items():
        # A text that cannot be an id is one that nothing has.
        with suppress(NotFoundError, InputError):
            source = client.send(calls.read(source_id))
            if SAME.get(kind) not in found or source.type is BotType.AGENT:
                found[kind] = source
    if len(found) == 1:
        [(kind, source)] = found.items()
        if kind is SourceKind.BOT and source.published_at is None:
            raise InputError(f"The bot {source_id!r} is not published: publish it in BrowserAct's dashboard.")
        return Runnable.of(kind, source)
    if not found:
        raise InputError(
            f"The account has nothing with the id {source_id!r}: run new-dag without an id to list what it has."
        )
    both = " and of ".join(f"the {KINDS[kind].one} {each.name!r}" for kind, each in found.items())
    raise InputError(f"{source_id!r} is the id of {both}, so this command cannot know which one you mean.")


def read_inputs(given: Iterable[str], source: Runnable) -> dict[str, Any]:
    """Return the values of ``--input`` by name, with the types that a bot declares.

    :param given: names and values, as ``name=value``.
    :raises InputError: one of them cannot be used. The message has no value, which can be a secret.
    """
    known, found = [each.name for each in source.inputs], dict[str, str]()
    for each in given:
        name, _, value = each.partition("=")
        if not name or not value:
            raise InputError("--input needs a name and a value, as in --input keyword=laptops.")
        if name in found:
            raise InputError(f"--input has {name!r} twice.")
        if name not in known:
            names = ", ".join(map(repr, known)) or "none"
            raise InputError(f"There is no input {name!r}{did_you_mean(name, known)}, only: {names}.")
        if source.is_secret(name) or without_secrets(value, source.is_secret, set()) != value:
            raise InputError(f"--input {name} is or contains a secret: leave it out, and read it from a connection.")
        found[name] = value
    # Only of the values themselves: a member that is missing in one comes from the example.
    types = {name: {"type": part["type"]} for name, part in source.schema["properties"].items() if "type" in part}
    return conform(found, {"type": "object", "properties": types}, f"the {KINDS[source.kind].one} {source.id}").input
