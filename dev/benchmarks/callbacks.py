"""What callbacks cost, in a real API server on PostgreSQL: see :mod:`dev.benchmarks.run`."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import time
from collections import Counter
from typing import Any

import aiohttp
import requests

from airflow_provider_browseract.panel.database import TaskInstanceKey
from airflow_provider_browseract.runs.callback_url import new_token
from airflow_provider_browseract.runs.request import digest
from dev.benchmarks.figures import Figure
from dev.benchmarks.rows import CONN, Row, api_server, call, command, insert, prepared_airflow
from tests.helpers.local_airflow import LocalAirflow

PER_SECOND = 40
"""What 2,000 waiting tasks get whose runs take 50 seconds. Twice as many keep a processor busy, mostly with what
Airflow does to resume a task."""

SECONDS = 30
FLOOD = 1500
"""How many forged callbacks a genuine one is behind, each of :data:`FLOODS` times."""

FLOODS = 5
BODY = b'{"id": "7", "status": "finished"}'

RESPONSE = Figure(f"response to one of {PER_SECOND} callbacks a second, median", 30, "ms")
LOST = Figure("callbacks that have resumed no task", 0)
BEHIND = Figure(f"a genuine callback behind {FLOOD} forged ones, longest", 1, "s")


def route() -> None:
    """Send a stream of callbacks that each resume a task, and genuine ones behind many forged ones."""
    with prepared_airflow() as airflow, api_server(airflow):
        taken, outcomes = asyncio.run(send(deferred(airflow, PER_SECOND * SECONDS), PER_SECOND))
        RESPONSE.report(statistics.median(taken), f"99th percentile {statistics.quantiles(taken, n=100)[98]:.0f} ms")
        LOST.report(outcomes.total() - outcomes["resumed"])
        behind, outcomes = [], Counter()
        for url in deferred(airflow, FLOODS):
            # From a separate process, because it keeps its sender busy too.
            with subprocess.Popen(command(flood, url), stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                # The forged ones are under way when the genuine one comes.
                process.stdout.readline()
                began = time.perf_counter()
                outcomes[requests.post(url, data=BODY, timeout=60).json()["outcome"]] += 1
                behind.append(time.perf_counter() - began)
                statuses = json.loads(process.stdout.readline())
        BEHIND.report(max(behind), f"the forged ones got {statuses}")
        LOST.report(outcomes.total() - outcomes["resumed"])


def deferred(airflow: LocalAirflow, number: int) -> list[str]:
    """Add task instances that wait for callbacks, and return the addresses of these."""
    return [airflow.callback_address(*each) for each in call(airflow, insert_deferred, number)]


def insert_deferred(number: int) -> list[tuple[str, str]]:
    """Add task instances that wait for callbacks, and return their ids and tokens."""
    from airflow_provider_browseract.runs.wait import Wait
    from airflow_provider_browseract.triggers.task import TaskTrigger

    now, tokens = time.time(), [new_token() for _ in range(number)]
    rows = []
    for index, token in enumerate(tokens):
        wait = Wait(str(index), now + 3600, callback_token_sha256=digest(token), began_at=now)
        key = TaskInstanceKey("waits", f"manual__{now}", "callback", index)
        rows.append(Row(key, trigger=TaskTrigger(browseract_conn_id=CONN, wait=wait)))
    insert(rows)
    return [(str(row.id), token) for row, token in zip(rows, tokens, strict=True)]


async def send(urls: list[str], per_second: float) -> tuple[list[float], Counter[str]]:
    """Send callbacks at fixed times; return the milliseconds that each response takes, and what happened to them."""
    outcomes: Counter[str] = Counter()
    # One that leaves the machine to the server; it comes with the http provider.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

        async def post(url: str) -> float:
            began = time.perf_counter()
            async with client.post(url, data=BODY) as response:
                answer: dict[str, Any] = await response.json()
            outcomes[answer["outcome"]] += 1
            return 1000 * (time.perf_counter() - began)

        began, under_way = time.perf_counter(), []
        for number, url in enumerate(urls):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            under_way.append(asyncio.create_task(post(url)))
        return await asyncio.gather(*under_way), outcomes


def flood(genuine: str) -> dict[int, int]:
    """Send forged callbacks all at once; print a line after the first response, and return how often each status came.

    :param genuine: the address of a callback, of which they have another token.
    """
    urls = [f"{genuine.rpartition('/')[0]}/{new_token()}" for _ in range(FLOOD)]

    async def post_all() -> Counter[int]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

            async def post(url: str) -> int:
                async with client.post(url, data=BODY) as response:
                    await response.read()
                return response.status

            posts = [asyncio.create_task(post(url)) for url in urls]
            await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
            print("under way", flush=True)
            return Counter(await asyncio.gather(*posts))

    return asyncio.run(post_all())
