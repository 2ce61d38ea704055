"""A round of faults in a cluster with the CeleryExecutor: each component and each host is lost at least once.

    python -m tests.faults.cluster [--runs 200] [--seed 1]

It prints what :mod:`tests.faults.round` prints, and the memory of each component.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import signal
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil

from tests.helpers.cluster import HOSTS, WORKERS, Cluster, redis
from tests.helpers.local_airflow import run_command

from .round import GRACES, Outcome, Round, world

DOWN = (5.0, 20.0)
"""Seconds until a lost host is up again."""

MIB = 2**20


@contextlib.contextmanager
def watching(airflow: Cluster) -> Iterator[dict[str, list[int]]]:
    """Record the memory of each component, in bytes, for the length of a ``with`` block."""
    used: dict[str, list[int]] = {name: [] for name in airflow.names}
    over = threading.Event()

    def look() -> None:
        while not over.wait(2.0):
            for name, memory in used.items():
                # One that is not running, or of which a process has just ended, is left out.
                with contextlib.suppress(KeyError, psutil.Error):
                    memory.append(airflow.memory(name))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield used
    finally:
        over.set()
        thread.join(10)


def table(used: dict[str, list[int]], tasks: collections.Counter[str]) -> str:
    """Return a table of the memory of each component, and how many task instances ended in each worker."""
    lines = [f"  {'component':14} {'MiB, median':>11} {'MiB, most':>9} tasks"]
    for name, memory in used.items():
        ended = tasks[name] if name in WORKERS else ""
        # A component that was never sampled has used nothing that is known.
        median, most = statistics.median(memory or [0]) / MIB, max(memory, default=0) / MIB
        lines.append(f"  {name:14} {median:11.0f} {most:9.0f} {ended:>5}")
    return "\n".join(lines)


class ClusterRound(Round):
    """A round in which components and whole hosts of a cluster are lost."""

    airflow: Cluster

    def faults(self) -> dict[str, tuple[int, Callable[[], object]]]:
        """Return the weight of each fault, and what to do."""
        found = super().faults()
        # Replaced by the faults of each component and host.
        of_components = ("API server killed", "scheduler killed", "triggerer killed", "triggerer terminated")
        for name in (*of_components, "worker group terminated"):
            del found[name]
        for component in self.airflow.names:
            found[f"{component} killed"] = (1, partial(self.kill, component))
            if component in WORKERS:
                found[f"{component} shut down warm"] = (1, partial(self._shut_down, component, signal.SIGTERM))
                found[f"{component} shut down cold"] = (1, partial(self._shut_down, component, signal.SIGQUIT))
            else:
                found[f"{component} terminated"] = (1, partial(self.evict, component))
        for host in HOSTS:
            found[f"{host} lost"] = (1, partial(self._lose, host))
        found["Redis killed"] = (1, self._kill_redis)
        return found

    def recover(self) -> None:
        """Do nothing: Airflow itself finds what a lost Celery worker had taken."""

    def _shut_down(self, worker: str, with_signal: signal.Signals) -> None:
        """End a Celery worker by a signal to its first process, and all that is left after a grace by SIGKILL."""
        self.airflow.evict(worker, grace=self.chance.uniform(*GRACES), everyone=False, with_signal=with_signal)
        self.airflow.start(worker)

    def _lose(self, host: str) -> None:
        self.airflow.lose_host(host)
        self.over.wait(self.chance.uniform(*DOWN))
        self.airflow.start(*HOSTS[host])

    def _kill_redis(self) -> None:
        self.airflow.broker.kill()
        self.over.wait(self.chance.uniform(*DOWN))
        self.airflow.broker.start()


def main() -> int:
    """Play a round, and print what it came to and the memory of each component."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--runs", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--home", type=Path)
    asked = options.parse_args()
    print(f"{asked.runs} runs in a cluster, seed {asked.seed}", flush=True)
    outcome = Outcome(asked.seed, asked.runs)
    with (
        tempfile.TemporaryDirectory(prefix="browseract-cluster-") as folder,
        redis() as broker,
        world(asked.home or Path(folder, "airflow"), seed=asked.seed, make=partial(Cluster, broker=broker)) as parts,
    ):
        airflow, api, database = parts
        assert isinstance(airflow, Cluster)
        with watching(airflow) as used:
            played = ClusterRound(airflow, api, database, outcome)
            played.play(limit=600 + asked.runs * 6)
        outcome.problems["faults that did not happen"] = [name for name in played.faults() if not outcome.faults[name]]
        workers = {airflow.hostname_of(name): name for name in WORKERS}
        tasks = collections.Counter(workers.get(ti["hostname"], "") for ti in played.task_instances())
    print(outcome, table(used, tasks), sep="\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    run_command(main, "The cluster was not available")
