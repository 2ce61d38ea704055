"""The timing figures, as ratios within one run: ``make bench``, or ``python -m dev.benchmarks.run NAME``.

Each figure is measured in separate processes, so that they do not affect each other.
These are the figures of imports and of the panel, which are printed with their limits:

- ``imports``: the operators, which must not load jsonschema, and the plugin in the processes of tasks
- ``panel``: server time, size and memory of the overview with 2,000 runs and a queue of 200
- ``viewers``: list requests for 20 viewers in 10 minutes, and callbacks beside them
- ``links``: the queries for the links among 200,000 XComs, on SQLite and PostgreSQL
- ``month``: the page about credits with 31 days of 5,000 runs each
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable

from dev.benchmarks import emulator, panel, responses, slots, waits, webhook

TRIGGERS = 500
ANSWER_AFTER = 2.0
"""Seconds that the API takes for each answer."""

POLL_INTERVAL = 10.0
LAG_PROBE = 0.1
"""Seconds that a probe of the lag sleeps: as long as the watchdog that Airflow's triggerer has for blocked loops."""

PROBES = 20
SETTLE = 15.0
"""Seconds before anything is measured: every trigger has then started and asked once."""

MEASURE = 30.0

IMPORT = """
import time
began = time.perf_counter()
{base}
base = time.perf_counter()
{addition}
print(base - began, time.perf_counter() - base)
"""


def imports() -> None:
    """What importing operators and plugin adds to what is imported anyway."""
    _import(
        "the operators, without jsonschema, on top of DAG and BaseOperator",
        # Airflow has loaded jsonschema by then. Another import of it fails.
        "from airflow.sdk import DAG, BaseOperator\nimport sys\nsys.modules['jsonschema'] = None",
        "import airflow_provider_browseract.operators.browseract",
        limit="3 %",
    )
    _import(
        "the plugin, on top of a task process's own imports",
        "import airflow.sdk.execution_time.task_runner, airflow.plugins_manager",
        "import airflow_provider_browseract.plugin",
        limit="1 %",
    )


def _import(what: str, base: str, addition: str, *, limit: str, runs: int = 10) -> None:
    shares, bases, additions = [], [], []
    for _ in range(runs):
        source = IMPORT.format(base=base, addition=addition)
        out = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
        took, added = map(float, out.split()[-2:])
        bases.append(took)
        additions.append(added)
        shares.append(added / took)
    print(
        f"import of {what}: {statistics.median(shares):.2%} (median of {runs}; limit {limit}), "
        f"{statistics.median(additions) * 1000:.1f} ms to {statistics.median(bases) * 1000:.0f} ms"
    )


def triggers() -> None:
    """Lag of the event loop, and memory, with many triggers that wait for a slow API, against ones that only sleep."""
    results = {}
    with _slow_api() as url:
        for kind in ("none", "sleeping", "waiting"):
            done = subprocess.run(
                [sys.executable, "-m", "dev.benchmarks.run", "loop", kind, url],
                capture_output=True,
                text=True,
                check=True,
            )
            results[kind] = json.loads(done.stdout.splitlines()[-1])
    sleeping, waiting = results["sleeping"], results["waiting"]
    print(
        f"loop lag, {TRIGGERS} triggers, answers after {ANSWER_AFTER:g} s: 99th percentile "
        f"{waiting['p99']:.2f} ms waiting, {sleeping['p99']:.2f} ms only sleeping, "
        f"ratio {waiting['p99'] / sleeping['p99']:.2f} (limit 2)"
    )
    print(f"  medians: {waiting['p50']:.2f} ms and {sleeping['p50']:.2f} ms; longest: {waiting['max']:.1f} ms")
    memory = (waiting["rss"] - results["none"]["rss"]) / TRIGGERS / 1024
    print(f"memory: {memory:.0f} KiB per waiting trigger (limit 100 KiB)")


class _slow_api:
    """An emulator in a separate process, with a delay before each response."""

    def __enter__(self) -> str:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dev.benchmarks.run", "api"], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(20)


def api() -> None:
    """Serve the emulator, with tasks that never end."""
    from airflow_provider_browseract.emulator import ORDERS, Emulator, RequestFault

    emulator = Emulator(concurrency=TRIGGERS)
    emulator.set_workflow(ORDERS.id, duration=100_000.0, one_at_a_time=False)
    emulator.fault("get-task", RequestFault.slow(ANSWER_AFTER))
    with emulator.serve() as running:
        print(running.url, flush=True)
        signal.pause()


async def _loop(kind: str, url: str) -> None:
    from airflow.triggers.base import BaseTrigger, TriggerEvent

    from airflow_provider_browseract.emulator import ORDERS
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.runs import timings
    from airflow_provider_browseract.runs.wait import Wait
    from airflow_provider_browseract.triggers.task import TaskTrigger

    class Sleeping(BaseTrigger):
        """A trigger that does nothing but wake as often as ours."""

        def serialize(self) -> tuple[str, dict[str, object]]:
            return "", {}

        async def run(self) -> AsyncIterator[TriggerEvent]:
            for _ in range(10_000):
                await asyncio.sleep(POLL_INTERVAL * random.uniform(0.8, 1.2))
            yield TriggerEvent({})

    os.environ["AIRFLOW_CONN_BROWSERACT_DEFAULT"] = json.dumps(
        {"conn_type": "browseract", "host": url, "password": "app-emulator"}
    )
    made: list[BaseTrigger] = []
    if kind == "waiting":
        hook = BrowserActHook()
        with hook.client:
            task_ids = [hook.run_task(ORDERS.id).id for _ in range(TRIGGERS)]
        now = time.time()
        for number, task_id in enumerate(task_ids):
            # As when tasks defer one after the other, and not all in one instant.
            began_at = now + POLL_INTERVAL * number / TRIGGERS - timings.CORE_RACE_GRACE
            wait = Wait(task_id, now + 3600, poll_interval=POLL_INTERVAL, began_at=began_at)
            made.append(TaskTrigger(browseract_conn_id="browseract_default", wait=wait))
    elif kind == "sleeping":
        made = [Sleeping() for _ in range(TRIGGERS)]

    async def follow(trigger: BaseTrigger) -> None:
        async for _ in trigger.run():
            raise AssertionError("no trigger should have fired")

    running = [asyncio.create_task(follow(trigger)) for trigger in made]
    await asyncio.sleep(SETTLE)
    loop = asyncio.get_running_loop()
    end = loop.time() + MEASURE
    lags: list[float] = []

    async def probe(number: int) -> None:
        await asyncio.sleep(LAG_PROBE * number / PROBES)
        while loop.time() < end:
            asked = loop.time()
            await asyncio.sleep(LAG_PROBE)
            lags.append(1000 * (loop.time() - asked - LAG_PROBE))

    await asyncio.gather(*(probe(number) for number in range(PROBES)))
    failed = [task.exception() for task in running if task.done()]
    assert not failed, failed[:1]
    percentiles = statistics.quantiles(lags, n=100)
    print(
        json.dumps(
            {
                "p50": percentiles[49],
                "p99": percentiles[98],
                "max": max(lags),
                "rss": _rss(),
            }
        ),
        flush=True,
    )
    os._exit(0)


def _rss() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


BENCHMARKS: dict[str, Callable[[], None]] = {
    "imports": imports,
    "emulator": emulator.emulator,
    "triggers": triggers,
    "route": webhook.route,
    "strangers": webhook.strangers,
    "wakeup": webhook.wakeup,
    "slots": slots.slots,
    "waits": waits.waits,
    "responses": responses.responses,
    "panel": panel.panel,
    "viewers": panel.viewers,
    "links": panel.links,
    "month": panel.month,
}


def main() -> None:
    """Measure the named figures, all of them by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(BENCHMARKS), help=", ".join(BENCHMARKS))
    names = parser.parse_args().names
    if names[0] == "api":
        api()
    elif names[0] == "loop":
        asyncio.run(_loop(names[1], names[2]))
    else:
        for name in names:
            BENCHMARKS[name]()


if __name__ == "__main__":
    main()
