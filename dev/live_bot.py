"""The questions of ``make live`` about version 3 of the API: bots of both types, templates, and their runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import httpx

from airflow_provider_browseract.api import v3
from dev import live_session as session
from dev.live_session import Live, Receiver, Version, json_of, outcome, place_of, redacted, value_of, wait_until

V3 = Version(
    task_id="task_id",
    source_id="bot_id",
    task="/v3/bots/runs/{}",
    stop=("POST", "/v3/bots/runs/{}/cancel"),
    resume=("POST", "/v3/bots/runs/{}/resume"),
    tasks="/v3/bots/runs",
    limit=100,
)
TEMPLATES = replace(V3, source_id=None)
"""A list does not show which template a run is of."""

LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)
NUMBERS = {"type=integer", "type=number"}
NO_TASK = "10000000000000001"


def ask(live: Live, receiver: Receiver | None) -> None:
    """Ask everything about the bot."""
    ask_without_a_run(live)
    schema = ask_about_the_schema(live)
    ask_with_wrong_inputs(live, schema)
    ask_with_a_run(live, receiver)


def start(live: Live, inputs: Any = None, **fields: Any) -> httpx.Response:
    """Start a run of the bot or template."""
    kind = "" if live.version.source_id else "templates/"
    body = {"input": live.settings.inputs if inputs is None else inputs, **fields}
    return live.start(f"/v3/bots/{kind}{live.settings.source_id}/runs", body)


def start_and_stop(live: Live, question: str, inputs: Any = None) -> httpx.Response | None:
    """Report what a start answers, and stop the run at once; return the response if there is none."""
    response = start(live, inputs)
    task_id = live.id_of(response)
    stopped = f", then stopped: {outcome(live.stop(task_id))}" if task_id is not None else ""
    live.tell(question, f"{outcome(response)}{stopped}", None if stopped else json_of(response))
    return None if stopped else response


def ask_without_a_run(live: Live) -> None:
    """Ask what costs nothing."""
    wrong = {"Authorization": "Bearer app-not-a-key"}
    live.tell("How is a wrong API key answered?", outcome(live.send("GET", "/v3/bots/regions", headers=wrong)))
    unknown = live.send("GET", f"/v3/bots/runs/{NO_TASK}/status")
    live.tell("How is an unknown run answered?", outcome(unknown), json_of(unknown))
    live.tell("How is limit=101 answered?", outcome(live.send("GET", "/v3/bots/runs", params={"limit": 101})))
    page = live.send("GET", "/v3/bots")
    live.tell("How many items has a page without limit?", f"limit {value_of(page, 'limit')}")
    bots = value_of(live.send("GET", "/v3/bots", params={"limit": 100}), "items") or []
    types = [str(bot.get("bot_type")) for bot in bots]
    live.tell("Which bots are listed?", ", ".join(f"{types.count(each)} {each}" for each in sorted({*types})) or "none")
    moments = [str(run.get("created_at")) for run in live.listed(LONG_AGO)]
    live.tell("In which order are runs listed?", order_of(moments))
    older = value_of(live.send("GET", "/v2/workflow/list-tasks", params={"limit": 1}), "items") or []
    if older:
        response = live.send("GET", f"/v3/bots/runs/{older[0].get('id')}/status")
        live.tell("How does v3 answer for a task of v2's list?", outcome(response))
    else:
        live.tell("How does v3 answer for a task of v2's list?", "not asked: the list of v2 is empty")


def order_of(moments: list[str]) -> str:
    """Return the order of moments that are written in the same way."""
    if len({*moments}) < 2:
        return "not known: there are less than two"
    orders = {"oldest first": sorted(moments), "newest first": sorted(moments, reverse=True)}
    return next((name for name, ordered in orders.items() if moments == ordered), "none")


def ask_about_the_schema(live: Live) -> dict[str, Any]:
    """Ask what the bot declares, and return the schema of its input."""
    response = live.send("GET", f"/v3/bots/{live.settings.source_id}")
    found = json_of(response)
    bot = found if isinstance(found, dict) else {}
    live.tell("What does the bot have?", f"{outcome(response)}: {', '.join(sorted(bot))}")
    live.tell("Of which type is it?", str(bot.get("bot_type")))
    for name in ("input_schema", "output_schema"):
        rules = sorted({*rules_of(bot.get(name))})
        live.tell(f"Which rules does its {name} have?", ", ".join(rules) or str(redacted(bot.get(name))))
    schema = bot.get("input_schema")
    return schema if isinstance(schema, dict) else {}


def rules_of(schema: Any) -> Iterator[str]:
    """Yield the rules of a JSON Schema, with the types, and without the names that it declares."""
    if not isinstance(schema, dict):
        return
    for rule, value in schema.items():
        yield f"{rule}={value}" if rule in ("type", "$schema", "format", "nullable", "additionalProperties") else rule
        if rule in ("default", "enum", "const", "examples"):
            continue
        named = rule in ("properties", "$defs", "definitions", "patternProperties")
        inside = value.values() if named and isinstance(value, dict) else value if isinstance(value, list) else [value]
        for part in inside:
            yield from rules_of(part)


def ask_with_wrong_inputs(live: Live, schema: dict[str, Any]) -> None:
    """Ask how inputs are answered that do not conform to the schema; whatever starts is stopped at once."""
    inputs, declared = live.settings.inputs, schema.get("properties")
    names = declared.items() if isinstance(declared, dict) else ()
    number = next((name for name, each in names if NUMBERS & {*rules_of(each)}), None)
    question = "How is {} answered, where a value is required?"
    if schema.get("required"):
        start_and_stop(live, question, {})
    else:
        live.tell(question, "not asked: the bot requires none")
    question = "How is the text '20' answered, where a number is required?"
    if number is not None:
        start_and_stop(live, question, {**inputs, number: str(inputs.get(number, 20))})
    else:
        live.tell(question, "not asked: the bot has no number")
    start_and_stop(live, "How is a name answered that the schema does not have?", {**inputs, "not_declared": "x"})


def ask_with_a_run(live: Live, receiver: Receiver | None) -> None:
    """Ask what takes a run to its end, and some that are stopped at once."""
    callbacks = {} if receiver is None else {"callback_url": live.settings.callback_url}
    before, sent = datetime.now(timezone.utc), time.monotonic()
    started = start(live, **callbacks)
    task_id = live.id_of(started)
    keys = sorted(json_of(started)) if task_id is not None else "Nothing more can be asked."
    live.tell("What does a start answer?", f"{outcome(started)}, {keys}", json_of(started))
    if task_id is None:
        return
    listed = session.listed_after(live, task_id, before, sent, session.LISTED)
    refused = start_and_stop(live, session.WHILE_ACTIVE)
    known = session.PLAN_HAS_SLOTS if refused is None else place_of(v3.run("1"), refused)
    live.tell("Does the provider know a full plan by it?", known)
    listed = listed or session.listed_after(live, task_id, before, sent, session.LATE)
    live.tell("How soon does the list of runs have it?", listed or "not in time")
    ask_about_inputs(live, task_id, before)
    status = live.send("GET", f"/v3/bots/runs/{task_id}/status")
    live.tell("What does the status of a run have?", f"HTTP {status.status_code}, {keys_of(status)}", json_of(status))
    by_v2 = live.send("GET", "/v2/workflow/get-task", params={"task_id": task_id})
    live.tell("How does v2 answer for a run of v3?", outcome(by_v2))
    since = before.strftime("%Y-%m-%dT%H:%M:%SZ")
    query = {"created_at_from": since, "limit": 500}
    tasks = value_of(live.send("GET", "/v2/workflow/list-tasks", params=query), "items") or []
    live.tell("Does the list of v2 have it?", "yes" if task_id in [str(each.get("id")) for each in tasks] else "no")
    seen = session.follow(live, task_id)
    live.tell("Which statuses were seen?", " > ".join(f"{status} ({at:.0f} s)" for status, at in seen.statuses.items()))
    live.tell("What does a run have while it is active?", seen.waited or "It was never seen active.")
    live.tell("Do its credits grow while it is active?", seen.growth)
    if seen.ended is None:
        live.tell("What happened to the run?", f"It did not end within {live.settings.timeout:g} s and is stopped.")
        return
    live.active.discard(task_id)
    ask_after_the_end(live, task_id, receiver, seen.ended)
    ask_about_a_stop(live)


def keys_of(response: httpx.Response) -> list[str]:
    """Return the names in a response."""
    value = json_of(response)
    return sorted(value) if isinstance(value, dict) else []


def ask_about_inputs(live: Live, task_id: str, before: datetime) -> None:
    """Ask whether responses show the input as it was sent."""
    listed = next((run for run in live.listed(before) if run.get("task_id") == task_id), {})
    for where, run in (("the list of runs", listed), ("the run", live.task(task_id))):
        live.tell(f"Is the input in {where} as it was sent?", compared(live.settings.inputs, run.get("input")))


def compared(sent: dict[str, Any], shown: Any) -> str:
    """Describe how an input differs from the one that was sent."""
    if not isinstance(shown, dict):
        return f"no: it is {'not there' if shown is None else type(shown).__name__}"
    more, less = sorted(shown.keys() - sent.keys()), sorted(sent.keys() - shown.keys())
    other = [name for name in sorted(sent.keys() & shown.keys()) if shown[name] != sent[name]]
    masked = [name for name in other if isinstance(shown[name], str) and set(shown[name]) == {"*"}]
    found = {"more names": more, "without": less, "other values": other, "asterisks": masked}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in found.items() if names) or "yes"


def ask_after_the_end(live: Live, task_id: str, receiver: Receiver | None, ended: dict[str, Any]) -> None:
    """Ask what a run has when it has ended, and what can still be done with it.

    :param ended: the first response with the end of the run.
    """
    began = time.monotonic()
    has = ("output", "output_files", "download_files")
    there = wait_until(lambda: any(live.task(task_id).get(name) not in (None, {}, []) for name in has), session.LATE)
    late = f"after {time.monotonic() - began:.1f} s at most" if there else f"not in {session.LATE:g} s"
    live.tell("Is the output there with the status?", late)
    run = live.task(task_id)
    live.tell("What does an ended run have?", ", ".join(sorted(run)), run)
    live.tell("Of which type is its output?", type(run["output"]).__name__ if "output" in run else "it is not there")
    files = run.get("output_files")
    live.tell("In which formats is its output?", ", ".join(files) if isinstance(files, dict) and files else "none")
    addresses = [each.get("download_url") for each in files.values()] if isinstance(files, dict) else None
    live.tell("What do file addresses look like?", str(redacted(addresses)))
    expiry = run.get("files_expires_at")
    hours = f"{expiry / 3_600_000 - time.time() / 3600:.1f} hours" if isinstance(expiry, int) else "not known"
    live.tell("For how long are its files there?", hours)
    live.tell("Is there a live view after the end?", "yes" if run.get("live_url_info") else "no")
    credits = session.finality(live, task_id, ended, began)
    live.tell("Are its credits final in the first response after the end?", credits)
    live.tell("How is a stop of an ended run answered?", outcome(live.stop(task_id)))
    live.tell("How is a resume of an ended run answered?", outcome(live.resume(task_id)))
    session.ask_about_callbacks(live, receiver)


def ask_about_a_stop(live: Live) -> None:
    """Start a run once more, stop it at once, and ask how soon it has ended."""
    task_id = live.id_of(start(live))
    if task_id is None:
        live.tell("How is a stop answered?", "not asked: the start was refused")
        return
    stopped, began = live.stop(task_id), time.monotonic()
    live.tell("How is a stop answered?", f"{outcome(stopped)}, status {value_of(stopped, 'status')}")
    ended = wait_until(lambda: live.task(task_id).get("status") in session.ENDED, session.LATE)
    late = f"after {time.monotonic() - began:.1f} s at most" if ended else f"not in {session.LATE:g} s"
    live.tell("How soon has a stopped run ended?", late)


def ask_template(live: Live, receiver: Receiver | None) -> None:
    """Ask what differs for a template, whose run is stopped at once."""
    template = json_of(live.send("GET", f"/v3/bots/templates/{live.settings.source_id}"))
    schema = template.get("input_schema") if isinstance(template, dict) else None
    live.tell("Which rules does its input_schema have?", ", ".join(sorted({*rules_of(schema)})) or "none")
    before, sent = datetime.now(timezone.utc), time.monotonic()
    started = start(live)
    task_id = live.id_of(started)
    live.tell("What does a start answer?", f"{outcome(started)}, {keys_of(started)}", json_of(started))
    if task_id is None:
        return
    run = live.task(task_id)
    live.tell("What does a run of a template have?", ", ".join(sorted(run)), run)
    listed = session.listed_after(live, task_id, before, sent, session.LATE)
    live.tell("How soon does the list of runs have it?", listed or "not in time")
    summary: dict[str, Any] = next((each for each in live.listed(before) if each.get("task_id") == task_id), {})
    live.tell("What does the list have of it?", ", ".join(sorted(summary)) or "nothing")
    live.tell("How is a stop answered?", outcome(live.stop(task_id)))
