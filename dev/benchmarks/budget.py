"""What a check of the budget costs on an account with many runs: see :mod:`dev.benchmarks.run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from airflow_provider_browseract.emulator import SEARCH, Emulator

RUNS = 2000
"""Runs of the account today."""

OUTPUT = 10_000
"""Characters in the output of each run."""

CHECK = """
import logging, resource, time
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.api.versions import APIS, SourceKind
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.loops import send_all
from airflow_provider_browseract.spending.budget import Budget, StepSender, check_budget
from airflow_provider_browseract.runs.request import Source

def largest():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

client = BrowserActHook().client
lists = APIS[ApiVersion.V2].list_tasks
client.send(lists(limit=1))
before, began = largest(), time.perf_counter()
client.send(lists(limit=500))
took = time.perf_counter() - began
steps = check_budget(Budget("browseract_default", 10**9), Source(SourceKind.WORKFLOW, "{workflow}"), None, time.time)
began = time.perf_counter()
[verdict] = send_all(steps, StepSender(client, logging.getLogger(), lambda step: None))
print(took, time.perf_counter() - began, largest() - before, verdict.used)
"""


def budget() -> None:
    """Time, memory and requests of a check of the daily budget, compared with one page of the list of tasks."""
    emulator = Emulator(concurrency=RUNS)
    emulator.set_workflow(SEARCH.id, output="x" * OUTPUT, duration=0.0)
    with emulator.changed:
        for _ in range(RUNS):
            emulator.start_run(
                emulator.workflows[SEARCH.id],
                api_version="v2",
                inputs=[("keyword", "pens")],
            )
            emulator.catch_up()
    with emulator.serve() as running:
        environment = {**os.environ, "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps(running.connection)}
        out = subprocess.run(
            [sys.executable, "-c", CHECK.replace("{workflow}", SEARCH.id)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    one, check, memory, used = map(float, out.split()[-4:])
    requests = sum(request.endpoint in ("list-tasks", "page-runs") for request in emulator.requests) - 2
    print(
        f"check of a budget with {RUNS} runs today and {OUTPUT} characters of output each: {requests} requests, "
        f"{check / one:.1f} times one page of 500 ({check:.2f} s to {one:.2f} s), {memory / 2**20:.0f} MiB (limit 60), "
        f"{used:.0f} credits"
    )
