"""A real Airflow in a folder: API server, scheduler, DAG processor and triggerer as separate processes on loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psutil
import requests

from airflow_provider_browseract.runs.callback_url import address

from .balancer import balancing

T = TypeVar("T")

COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
"""The components of an Airflow, and their commands. A component can run several times, as ``triggerer`` and
``triggerer 2``."""


def free_port() -> int:
    """Return a free port below those that the system chooses, so that no other process gets it in the meantime."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def is_listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def run_command(main: Callable[[], int], failed: str) -> NoReturn:
    """Run a command that starts an Airflow, and end this process with its exit code.

    What went wrong outside has no traceback, but a message that begins with ``failed``. Only the first SIGINT or
    SIGTERM interrupts the command: make sends its own after the terminal's.
    """
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _interrupt)
    try:
        sys.exit(main())
    except (RuntimeError, TimeoutError) as error:
        print(f"{failed}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _interrupt(number: int, _frame: object) -> None:
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt


def wait_for(what: str, look: Callable[[], T | None], *, timeout: float, every: float = 0.3) -> T:
    """Look every so many seconds until there is something that is not false, and return it; ``what`` names it."""
    deadline = time.monotonic() + timeout
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {timeout:g} s")
        time.sleep(every)


@dataclass
class LocalAirflow:
    """An Airflow with its own home, database and port.

    :param home: its folder, with the logs, the configuration and, with SQLite, the database.
    :param dags: folder with the DAG files.
    :param environment: more variables for its processes, such as connections.
    :param database: address of an empty PostgreSQL database; SQLite without it.
    :param copies: how many API servers and triggerers run; several API servers stand behind one address.
    :param path: path of ``[api] base_url``.
    :param modules: folders with Python modules that its configuration names.
    :param users: the role of each user, whose password is the name. The first one is an admin, as which :meth:`api`
        calls. Without users, everyone is an admin without a login.
    """

    home: Path
    dags: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    database: str | None = None
    copies: int = 1
    path: str = ""
    modules: tuple[Path, ...] = ()
    users: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    _secret: str = field(default_factory=partial(secrets.token_hex, 32))
    _ports: dict[str, int] = field(default_factory=dict)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _http: requests.Session = field(default_factory=requests.Session)

    @property
    def url(self) -> str:
        """Address of the UI, the REST API and the callback route."""
        return f"http://127.0.0.1:{self.port}{self.path}"

    @property
    def names(self) -> list[str]:
        return [
            name if number == 1 else f"{name} {number}"
            for name in COMPONENTS
            for number in range(1, self.copies + 1 if name in ("api-server", "triggerer") else 2)
        ]

    def home_of(self, component: str) -> Path:
        """Return the ``AIRFLOW_HOME`` of a component, which is its working directory as well."""
        return self.home

    def command_of(self, component: str) -> tuple[str, ...]:
        """Return what follows ``airflow`` in the command of a component."""
        words = COMPONENTS[component.partition(" ")[0]]
        return (*words, "--port", str(self._port_of(component))) if component.startswith("api-server") else words

    def python_of(self, component: str) -> str:
        return sys.executable

    def variables_of(self, component: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return {
            **clean,
            "PYTHONPATH": os.pathsep.join(filter(None, map(str, self._python_path()))),
            "PYTHONUNBUFFERED": "1",
            "AIRFLOW_HOME": str(self.home_of(component)),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            **self._user_variables(),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            **self._database_variables(),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": self._secret,
            "AIRFLOW__API_AUTH__JWT_SECRET": self._secret,
            # Nobody changes a DAG file here, and reading all of them again costs a third of the machine.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW__OPENLINEAGE__DISABLED": "True",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **self.environment,
        }

    def _user_variables(self) -> dict[str, str]:
        setting = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER"
        if not self.users:
            return {f"{setting}_ALL_ADMINS": "True"}
        return {
            f"{setting}_USERS": ",".join(f"{name}:{role}" for name, role in self.users.items()),
            f"{setting}_PASSWORDS_FILE": str(self.home / "passwords.json"),
        }

    def _python_path(self) -> list[Path | str]:
        return [self.home / "config", *self.modules, os.environ.get("PYTHONPATH", "")]

    def _database_variables(self) -> dict[str, str]:
        if self.database is not None:
            # The server has 100 connections for all processes together. A request to an API server holds one while it
            # waits for another: a dozen workers that begin at once and find ten would wait for each other forever.
            return {
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database,
                "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "5",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "25",
            }
        return {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "20",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "browseract_local_database.connect_args",
        }

    def prepare(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        self._make_homes()
        config = self.home / "config"
        config.mkdir(parents=True)
        # Seconds a process waits for another's write; the default of 5 brings the scheduler down under load.
        (config / "browseract_local_database.py").write_text("connect_args = {'timeout': 60}\n")
        (self.home / "passwords.json").write_text(json.dumps({name: name for name in self.users}))
        self.cli("db", "migrate")
        if self.database is None:
            with sqlite3.connect(self.home / "airflow.db") as database:
                # Readers then do not wait for writers; the setting stays with the file.
                database.execute("PRAGMA journal_mode=WAL")

    def _make_homes(self) -> None:
        """Create what has to be on each host."""

    def cli(self, *words: str, module: str = "airflow") -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            env=self.variables_of("scheduler"),
            cwd=self.home_of("scheduler"),
            capture_output=True,
            text=True,
            timeout=180,
        )
        if done.returncode:
            raise RuntimeError(f"{module} {' '.join(words)} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def start(self, *components: str) -> None:
        """Start components, all of them without names, each in its own process group."""
        for name in components or self.names:
            with (self.home / f"{name}.out").open("ab") as out:
                self._processes[name] = subprocess.Popen(
                    [self.python_of(name), "-m", "airflow", *self.command_of(name)],
                    env=self.variables_of(name),
                    cwd=self.home_of(name),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def _port_of(self, api_server: str) -> int:
        if self.copies == 1:
            return self.port
        return self._ports.setdefault(api_server, free_port())

    def wait_until_healthy(self, timeout: float = 240) -> None:
        def healthy() -> bool:
            self.check_alive()
            try:
                answer = self._http.get(f"{self.url}/api/v2/monitor/health", timeout=10)
                answer.raise_for_status()
                health = answer.json()
            except (requests.RequestException, ValueError):
                return False
            return all(health[part]["status"] == "healthy" for part in ("scheduler", "triggerer", "dag_processor"))

        try:
            wait_for("A healthy Airflow", healthy, timeout=timeout)
        except TimeoutError as error:
            raise TimeoutError("\n".join([f"{error}.", *map(self._end_of_output, self.names)])) from None
        if "Authorization" not in self._http.headers:
            self._http.headers["Authorization"] = f"Bearer {self._token()}"

    def _token(self) -> str:
        name = next(iter(self.users), None)
        login = {"username": name, "password": name} if name else None
        response = self._http.request("POST" if login else "GET", f"{self.url}/auth/token", json=login, timeout=30)
        response.raise_for_status()
        return response.json()["access_token"]

    def check_alive(self) -> None:
        """Raise with the end of its output if a component has ended by itself."""
        for name in self._ended():
            raise RuntimeError(f"Ended with {self._processes[name].returncode}: {self._end_of_output(name)}")

    def _end_of_output(self, name: str) -> str:
        """Return the last lines that a component has printed."""
        file = self.home / f"{name}.out"
        lines = file.read_text(errors="replace").splitlines() if file.exists() else []
        return "\n".join([f"airflow {name}", *lines[-30:]])

    def revive(self) -> list[str]:
        """Restart components that have ended by themselves, as a service manager does, and return their names."""
        ended = self._ended()
        for name in ended:
            self.stop(name)
            self.start(name)
        return ended

    def _ended(self) -> list[str]:
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def memory(self, *components: str) -> int:
        """Add up the resident memory, in bytes, of components with everything that they started."""
        return sum(process.memory_info().rss for name in components for process in self.processes(name))

    def processes(self, name: str) -> list[psutil.Process]:
        parent = psutil.Process(self._processes[name].pid)
        return [parent, *parent.children(recursive=True)]

    def busy_workers(self) -> list[tuple[psutil.Process, psutil.Process]]:
        """Return each worker of the LocalExecutor that has a task, and the process of that task."""
        busy = []
        for worker in sorted(self.processes("scheduler"), key=lambda process: process.pid):
            # One that has just ended is none.
            with suppress(psutil.Error):
                if "airflow worker" in " ".join(worker.cmdline()) and (children := worker.children()):
                    busy.append((worker, children[0]))
        return busy

    def worker_of(self, ti_id: str) -> tuple[psutil.Process, psutil.Process] | None:
        """Return the worker of a try, and the process of that try. The id of a task instance changes with each try."""
        for worker, task in self.busy_workers():
            # One that has just ended is none.
            with suppress(psutil.Error):
                if ti_id in " ".join(task.cmdline()):
                    return worker, task
        return None

    @contextmanager
    def frozen(self, component: str) -> Iterator[None]:
        """Have a component do nothing for the length of a ``with`` block, as on a machine that hangs."""
        family = self.processes(component)
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                process.resume()

    def stop(self, *components: str, with_signal: int = signal.SIGTERM) -> None:
        """End components, all of them without names, with everything that they started."""
        ending = {name: self._processes.pop(name) for name in components or list(self._processes)}
        for process in ending.values():
            _signal_group(process.pid, with_signal)
        for process in ending.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
            _signal_group(process.pid, signal.SIGKILL)
            process.wait(timeout=15)

    def evict(
        self, component: str, *, grace: float, everyone: bool, with_signal: signal.Signals = signal.SIGTERM
    ) -> None:
        """End a component as a service manager does: SIGTERM, and after a grace SIGKILL to what is still running.

        :param everyone: whether SIGTERM goes to every process, as systemd sends it, or only to the first one, as
            Kubernetes does.
        """
        family = set(self.processes(component))
        first = self._processes.pop(component)
        for process in family:
            if everyone or process.pid == first.pid:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(with_signal)
        deadline = time.monotonic() + grace
        while left := [process for process in family if process.is_running() and is_running(process.pid)]:
            late = time.monotonic() > deadline
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    # A worker may begin another task while it is being ended.
                    family.update(process.children(recursive=True))
                    if late:
                        process.kill()
            time.sleep(0.1)
        first.wait()

    @contextmanager
    def running(self) -> Iterator[LocalAirflow]:
        self.prepare()
        with ExitStack() as stack:
            # Some have lost their parent. A task has its own process group.
            stack.callback(kill_processes_of, {self.home_of(name) for name in self.names})
            # Some components take a quarter of a minute to end by themselves, and nobody needs what they do then.
            stack.callback(self.stop, with_signal=signal.SIGKILL)
            if self.copies > 1:
                backends = [self._port_of(name) for name in self.names if name.startswith("api-server")]
                stack.enter_context(balancing(self.port, backends))
            self.start()
            self.wait_until_healthy()
            yield self

    def api(self, method: str, path: str, **keywords: Any) -> Any:
        response = self._http.request(method, f"{self.url}/api/v2/{path}", timeout=60, **keywords)
        response.raise_for_status()
        return response.json()

    def callback_address(self, ti_id: object, token: str) -> str:
        """Return the address of a callback for a task instance; without the token of its run it is a forged one."""
        return address(self.url, ti_id, token, conn_id="browseract_default", api_base_url=self.url)

    def set_connection(self, conn_id: str, **fields: Any) -> None:
        """Add a connection to the database, or change some fields and ``conn_type`` of the one that is there."""
        path, body = f"{self.url}/api/v2/connections", {"connection_id": conn_id, **fields}
        response = self._http.patch(f"{path}/{conn_id}", json=body, params={"update_mask": sorted(fields)}, timeout=60)
        if response.status_code == 404:
            response = self._http.post(path, json=body, timeout=60)
        response.raise_for_status()

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run of a DAG once it has been parsed, and return the run's id."""

        def unpaused() -> bool:
            self.check_alive()
            answer = self._http.patch(f"{self.url}/api/v2/dags/{dag_id}", json={"is_paused": False}, timeout=60)
            if answer.status_code == 404 and (errors := self.api("GET", "importErrors")["import_errors"]):
                raise RuntimeError(errors[0]["stack_trace"])
            return answer.ok

        def started() -> str | None:
            body = {"logical_date": None, "conf": dict(conf or {})}
            answer = self._http.post(f"{self.url}/api/v2/dags/{dag_id}/dagRuns", json=body, timeout=60)
            if answer.status_code == 404:
                # Airflow stores a new DAG a moment before what it starts.
                return None
            answer.raise_for_status()
            return str(answer.json()["dag_run_id"])

        wait_for(f"DAG {dag_id}", unpaused, timeout=240)
        return wait_for(f"A run of {dag_id}", started, timeout=60)

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return self.api("GET", f"dags/{dag_id}/dagRuns/{run_id}")

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = 300) -> str:
        """Wait for the end of a DAG run, and return its state."""

        def state() -> str | None:
            self.check_alive()
            found: str = self.dag_run(dag_id, run_id)["state"]
            return found if found in ("success", "failed") else None

        return wait_for(f"The end of {dag_id}", state, timeout=timeout, every=1.0)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return self.api("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str, map_index: int = -1) -> Any:
        """Read an XCom, or None if there is none."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        found = self._find(path, {"map_index": str(map_index), "deserialize": "false", "stringify": "false"})
        return None if found is None else found["value"]

    def _find(self, path: str, params: dict[str, str], **headers: str) -> Any:
        """Read something from the REST API, or None if it does not exist."""
        response = self._http.get(f"{self.url}/api/v2/{path}", params=params, headers=headers, timeout=60)
        if response.status_code == 404:
            return None
        response.raise_for_status()
        return response.json()

    def extra_links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """Read the buttons of a task instance."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links"
        return self.api("GET", path, params={"map_index": map_index})["extra_links"]

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, map_index: int = -1) -> None:
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/{map_index}/hitlDetails"
        self.api("PATCH", path, json={"chosen_options": [option], "params_input": {}})

    def log(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> list[str]:
        """Read the lines of a task's log, those of the triggerer among them, of all its tries."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        instance = self.api("GET", path if map_index < 0 else f"{path}/{map_index}")
        tries = range(1, instance["try_number"] + 1)
        return [line for number in tries for line in self._log_of_try(dag_id, run_id, task_id, number, map_index)]

    def taken_for_dead(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> int:
        """Return how many tries Airflow has ended because it heard of their deferral after the trigger had fired.

        It does so where its scheduler is slower than the wait, which a busy machine may make it.
        """
        of = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": str(map_index)}
        return self.api("GET", "eventLogs", params={**of, "event": "state mismatch"})["total_entries"]

    def _log_of_try(self, dag_id: str, run_id: str, task_id: str, number: int, map_index: int) -> list[str]:
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{number}"
        params = {"map_index": str(map_index), "full_content": "true"}
        if (found := self._find(path, params, Accept="application/json")) is None:
            # A try that Airflow ended because it heard of the deferral after the trigger had fired is not recorded.
            return self._log_files(dag_id, run_id, task_id, number, map_index)
        return [_log_line(entry) for entry in found["content"]]

    def _log_files(self, dag_id: str, run_id: str, task_id: str, number: int, map_index: int) -> list[str]:
        folder = Path("logs", f"dag_id={dag_id}", f"run_id={run_id}", f"task_id={task_id}")
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        homes = sorted({self.home_of(name) for name in self.names})
        files = [file for home in homes for file in sorted((home / folder).glob(f"attempt={number}.log*"))]
        entries = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return [_log_line(entry) for entry in sorted(entries, key=lambda entry: entry.get("timestamp") or "")]


def _log_line(entry: str | dict[str, Any]) -> str:
    if isinstance(entry, str):
        return entry
    details = [str(detail) for detail in entry.get("error_detail") or ()]
    return " ".join([entry.get("timestamp") or "", entry["event"], *details]).strip()


def is_running(pid: int) -> bool:
    """Return whether there is a process that is no zombie."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def kill_processes_of(homes: Collection[Path]) -> None:
    """Send SIGKILL to every process whose ``AIRFLOW_HOME`` is one of some folders.

    The environment of a process cannot be read once it has changed its title. For those of Airflow and Celery that do
    so, the working directory counts.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            home = process.environ().get("AIRFLOW_HOME")
            if home is None and any(name in process.name() for name in ("airflow", "celery")):
                home = process.cwd()
            if home in map(str, homes):
                process.kill()


def _signal_group(pid: int, with_signal: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, with_signal)
